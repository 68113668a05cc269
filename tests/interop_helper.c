// interop_helper.c - small steps that tests/interop.py asks for, one command each:
//
//     interop_helper make OUT SEED V T L H C          a random model; its vocabulary is the file on stdin, of V characters
//     interop_helper logits MODEL ADAPTER MERGE ID... one line of V numbers for each token; ADAPTER - is none, MERGE 0 or 1
//     interop_helper attach MODEL OUT SEED R ALPHA TARGETS FIRST LAST RSLORA [RANK...]  a random adapter, saved
//     interop_helper merge MODEL ADAPTER OUT          the adapter folded into the base, saved as a model
//     interop_helper copy MODEL OUT                   read and saved again
//     interop_helper hold MODEL TYPE OUT              the same, held as float, nf4 or int8
//     interop_helper copy-adapter MODEL ADAPTER OUT
//     interop_helper encode MODEL                     the tokens of the text on stdin
//     interop_helper match                            for each pattern and name on stdin, a line: yes, no or refused
//     interop_helper check                            for each path on stdin, a line: ok, or why it is no safetensors file

#include "../io/adapter_file.h"
#include "../io/model_file.h"
#include "../io/options.h"
#include "../io/peft.h"
#include "../io/safetensors.h"

#include <stdlib.h>

static char error[1024];

static void *need(void *thing)
{
    if (thing == NULL) { fprintf(stderr, "interop_helper: %s\n", error); exit(1); }
    return thing;
}

static void must(bool good) { need(good ? error : NULL); }

static char *read_stdin(size_t *n)
{
    char *bytes = need(malloc(1 << 20));
    *n = fread(bytes, 1, 1 << 20, stdin);
    return bytes;
}

// As if trained: no tensor is all 0 or 1.
static void disturb(Tensor *t, double deviation, uint64_t seed)
{
    for (int64_t i = 0; i < t->size; i++) t->data[i] += (real)(deviation * random_normal(seed, (uint64_t)i));
}

static void make(char **a)
{
    Config config = {
        .vocab_size = atoi(a[2]), .block_size = atoi(a[3]), .n_layer = atoi(a[4]), .n_head = atoi(a[5]), .n_embd = atoi(a[6])
    };
    size_t n;
    char *text = read_stdin(&n);
    Vocabulary vocabulary = { 0, need(calloc(n + 1, sizeof(uint32_t))) };
    for (const char *at = text; at < text + n;)
        vocabulary.code_point[vocabulary.size++] = utf8_next(&at); // sorted by the caller
    Transformer *model = need(transformer_new(config, (uint64_t)atoi(a[1]), error, sizeof error));
    for (int i = 0; i < model->base_count; i++) disturb(model->parameters[i], 0.1, (uint64_t)(1000 + i));
    must(model_save(model, &vocabulary, a[0], error, sizeof error));
    transformer_free(model);
    vocabulary_free(&vocabulary);
    free(text);
}

static void logits(int count, char **a)
{
    Transformer *model = need(model_load(a[0], NULL, error, sizeof error));
    if (strcmp(a[1], "-") != 0) need(adapter_load(model, a[1], "default", false, error, sizeof error));
    if (atoi(a[2])) transformer_merge(model);
    int T = count - 3, V = model->config.vocab_size, *ids = need(malloc((size_t)(T + 1) * sizeof *ids));
    for (int t = 0; t < T; t++) ids[t] = atoi(a[3 + t]);
    Tensor *y = transformer_logits(model, NULL, ids, 1, T);
    for (int64_t i = 0; i < y->size; i++) printf("%.9g%c", (double)y->data[i], i % V == V - 1 ? '\n' : ' ');
    tensor_drop(y);
    transformer_free(model);
    free(ids);
}

static void attach(int count, char **a)
{
    Transformer *model = need(model_load(a[0], NULL, error, sizeof error));
    const char *bad;
    int *ranks = need(calloc((size_t)model->config.n_layer, sizeof *ranks));
    for (int i = 0; i < count - 9 && i < model->config.n_layer; i++) ranks[i] = atoi(a[9 + i]);
    LoraConfig lora = { .r = atoi(a[3]),
                        .alpha = atof(a[4]),
                        .targets = lora_targets(a[5], &bad),
                        .first_block = atoi(a[6]),
                        .last_block = atoi(a[7]),
                        .rank_stabilized = atoi(a[8]),
                        .r_by_block = count > 9 ? ranks : NULL };
    Adapter *adapter = need(transformer_add_adapter(model, "random", lora, (uint64_t)atoi(a[2]), error, sizeof error));
    for (int i = model->base_count; i < model->parameter_count; i++) disturb(model->parameters[i], 0.2, (uint64_t)i);
    must(adapter_save(model, adapter, a[0], a[1], error, sizeof error));
    transformer_free(model);
    free(ranks);
}

static void check_files(void)
{
    char path[4096];
    while (fgets(path, sizeof path, stdin) != NULL) {
        Safetensors *file;
        path[strcspn(path, "\n")] = '\0';
        puts(safetensors_open(path, &file, error, sizeof error) ? error : "ok");
        safetensors_close(file);
    }
}

static void match_patterns(void)
{
    char line[4096];
    while (fgets(line, sizeof line, stdin) != NULL) { // pattern, tab, name
        char *name = strchr(line, '\t');
        bool matches;
        name[strcspn(name, "\n")] = '\0';
        *name++ = '\0';
        puts(!peft_match(line, false, name, &matches, error, sizeof error) ? "refused" : matches ? "yes" : "no");
    }
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    char **a = argv + 2;
    int count = argc - 2;
    if (strcmp(command, "make") == 0 && count == 7) make(a);
    else if (strcmp(command, "check") == 0) check_files();
    else if (strcmp(command, "match") == 0) match_patterns();
    else if (strcmp(command, "logits") == 0 && count > 3) logits(count, a);
    else if (strcmp(command, "attach") == 0 && count >= 9) attach(count, a);
    else if ((strcmp(command, "merge") == 0 || strcmp(command, "copy-adapter") == 0) && count == 3) {
        Vocabulary vocabulary;
        Transformer *model = need(model_load(a[0], &vocabulary, error, sizeof error));
        Adapter *adapter = need(adapter_load(model, a[1], "default", false, error, sizeof error));
        if (strcmp(command, "merge") == 0) {
            transformer_merge(model);
            must(model_save(model, &vocabulary, a[2], error, sizeof error));
        } else must(adapter_save(model, adapter, a[0], a[2], error, sizeof error));
        transformer_free(model);
        vocabulary_free(&vocabulary);
    } else if (strcmp(command, "copy") == 0 && count == 2) {
        Vocabulary vocabulary;
        Transformer *model = need(model_load(a[0], &vocabulary, error, sizeof error));
        must(model_save(model, &vocabulary, a[1], error, sizeof error));
        transformer_free(model);
        vocabulary_free(&vocabulary);
    } else if (strcmp(command, "hold") == 0 && count == 3) {
        BaseType type;
        must(base_type_read(a[1], &type, error, sizeof error));
        Transformer *model = need(model_load(a[0], NULL, error, sizeof error));
        must(model_hold(model, type, a[0], error, sizeof error) && model_save(model, NULL, a[2], error, sizeof error));
        transformer_free(model);
    } else if (strcmp(command, "encode") == 0 && count == 1) {
        size_t n;
        char *text = read_stdin(&n);
        int *tokens = need(malloc((n + 1) * sizeof *tokens));
        Vocabulary vocabulary;
        Transformer *model = need(model_load(a[0], NULL, error, sizeof error));
        must(vocabulary_load(a[0], model->config.vocab_size, &vocabulary, error, sizeof error));
        int64_t tokens_read = vocabulary_encode(&vocabulary, text, n, tokens, error, sizeof error);
        must(tokens_read >= 0);
        for (int64_t i = 0; i < tokens_read; i++) printf("%d\n", tokens[i]);
        transformer_free(model);
        vocabulary_free(&vocabulary);
        free(tokens);
        free(text);
    } else {
        fprintf(stderr, "interop_helper: unknown command; see the top of tests/interop_helper.c\n");
        return 2;
    }
    return 0;
}
