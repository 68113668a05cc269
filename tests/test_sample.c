// test_sample.c - the program sample on what others' models bring: more rows than characters, an adapter beside the model.

#define main sample_main // the program itself
#include "../sample.c"
#undef main

#include "checkpoint.h"
#include "child.h"

enum { LETTERS = 9 }; // of V rows

static char *words[16];
static void call_sample(void) // in a child; the text goes where its errors go
{
    int count = 0;
    while (words[count] != NULL) count++;
    dup2(STDERR_FILENO, STDOUT_FILENO);
    optind = 1;
    int status = sample_main(count, words);
    fflush(stdout);
    _exit(status);
}

#define CALL(...) (memcpy(words, (char *[16]){ (char[]){ "sample" }, (char[]){ "--model" }, __VA_ARGS__ }, sizeof words), in_child(call_sample))

// A model whose rows without a character are by far the most probable.
static Transformer *padded_model(void)
{
    Transformer *model = new_model(3);
    for (int v = LETTERS; v < V; v++)
        for (int c = 0; c < C; c++) model->wte->data[v * C + c] *= 100; // some sign makes one of them large, whatever came before
    return model;
}

TEST(rows_without_a_character_are_never_drawn)
{
    enum { LENGTH = 60 };
    Transformer *model = padded_model();
    int some[LENGTH + 1] = { 1 }, all[LENGTH + 1] = { 1 }, plain[LENGTH + 1] = { 1 }, padded = 0;
    for (int i = 0; i < 3; i++) {
        double temperature = i == 0 ? 0 : 1;
        int top_k = i == 2 ? 3 : 0;
        generate_among(model, LETTERS, some, 1, LENGTH, temperature, top_k, 7, NULL, NULL);
        for (int k = 1; k <= LENGTH; k++) EXPECT(some[k] >= 0 && some[k] < LETTERS, "temperature %g, top-k %d: token %d", temperature, top_k, some[k]);
        generate_among(model, V, all, 1, LENGTH, temperature, top_k, 7, NULL, NULL);
        generate(model, plain, 1, LENGTH, temperature, top_k, 7);
        EXPECT(memcmp(all, plain, sizeof all) == 0, "among all is another text");
        for (int k = 1; k <= LENGTH; k++) padded += all[k] >= LETTERS;
    }
    EXPECT(padded > LENGTH, "only %d of %d would have been drawn: the test tests nothing", padded, 3 * LENGTH);

    Vocabulary v = { LETTERS, calloc(LETTERS, sizeof *v.code_point) };
    for (int i = 0; i < LETTERS; i++) v.code_point[i] = i == 0 ? '\n' : (uint32_t)('a' + i);
    EXPECT(model_save(model, &v, in_root("padded"), error, sizeof error), "%s", error);
    for (int i = 0; i < 2; i++) {
        int status = CALL(in_root("padded"), (char[]){ "--length" }, (char[]){ "40" }, (char[]){ "--temperature" }, i ? (char[]){ "1" } : (char[]){ "0" });
        char *text = strstr(said, "40 characters,") ? said : NULL;
        EXPECT(status == 0 && text != NULL, "status %d: %s", status, said);
    }
    vocabulary_free(&v);
    transformer_free(model);
}

// A directory with both: the model is used, and it is said that the adapter is not.
TEST(a_model_and_an_adapter_in_one_directory)
{
    Transformer *model = new_model(4);
    Vocabulary v = letters(V);
    EXPECT(model_save(model, &v, in_root("both"), error, sizeof error), "%s", error);
    char prompt[] = "\n", *dir = in_root("both");
    EXPECT(CALL(dir, (char[]){ "--length" }, (char[]){ "3" }, (char[]){ "--prompt" }, prompt) == 0 && !strstr(said, "adapter"), "%s", said);
    EXPECT(adapter_save(model, new_adapter(model, "a", everywhere(2, 4), 1), dir, dir, error, sizeof error), "%s", error);
    EXPECT(CALL(dir, (char[]){ "--length" }, (char[]){ "3" }, (char[]){ "--prompt" }, prompt) == 0
               && strstr(said, "holds a model and an adapter; this is the model alone"), "%s", said);
    EXPECT(CALL(dir, (char[]){ "--adapter" }, dir, (char[]){ "--length" }, (char[]){ "3" }, (char[]){ "--prompt" }, prompt) == 0
               && !strstr(said, "holds a model"), "%s", said);
    vocabulary_free(&v);
    transformer_free(model);
}

int main(void)
{
    if (!make_root()) return 1;
    RUN(rows_without_a_character_are_never_drawn);
    RUN(a_model_and_an_adapter_in_one_directory);
    remove_all(root);
    return test_summary();
}
