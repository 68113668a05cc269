// sample.c - writes text with a trained model, and any number of adapters on it.
//
//     ./sample --model out/book --prompt "Once "
//     ./sample --model out/book --adapter out/other --adapter out/third          one text each, from one base in memory
//
// Load the model and its characters, turn the prompt into token ids, and repeat: logits of the next character, draw one, append
// it (generate_among in generate.c, transformer_next and sample_token there). No tape is given, so nothing is recorded;
// what each block found out about a character is remembered (Cache), so that the next one costs one row of work. An adapter is
// a pointer in each linear layer: the next --adapter changes pointers, and the base stays as it is.
//
// The text goes to stdout, the speed to stderr. The same seed draws the same text. Read next: adapter.c.

#include "generate.h"
#include "io/adapter_file.h"
#include "io/model_file.h"
#include "io/options.h"

#include <stdlib.h>

enum { MOST_ADAPTERS = 64 };

static void help(void)
{
    printf("sample: continues a prompt, character by character\n\n"
           "  --model DIR        a model that train has saved, or of GPT-2's shape with a\n"
           "                     character tokenizer (out)\n"
           "  --adapter DIR      an adapter on it; given several times, one continuation\n"
           "                     each, on one base\n"
           "  --any-base         use an adapter although it was trained on another base\n"
           "  --prompt TEXT      what to continue (a new line)\n"
           "  --length 500       characters to write\n"
           "  --temperature 0.8  0: always the most probable character\n"
           "  --top-k 0          draw from the K most probable only; 0: from all\n"
           "  --seed 1337\n"
           "  --threads N        one for each core\n\n"
           "Example: ./sample --model out --adapter out/pirate --prompt \"Arr\" --length 200\n");
}

// What is asked for.
typedef struct Sampling {
    const char *model, *prompt, *adapters[MOST_ADAPTERS];
    int         adapter_count, length, top_k, threads;
    double      temperature;
    uint64_t    seed;
    bool        any_base;
} Sampling;

static void take_adapter(const char *directory, void *to)
{
    Sampling *s = to;
    if (s->adapter_count == MOST_ADAPTERS) die(EXIT_USAGE, "more than %d adapters", MOST_ADAPTERS);
    s->adapters[s->adapter_count++] = directory;
}

static Sampling read_sampling(int argc, char **argv)
{
    Sampling s = { .model = "out", .prompt = "\n", .length = 500, .temperature = 0.8, .seed = 1337 };
    const Option table[] = {
        { "model", .text = &s.model }, { "adapter", .take = take_adapter, .to = &s }, { "any-base", .flag = &s.any_base },
        { "prompt", .text = &s.prompt }, { "length", .whole = &s.length, .least = 1, .most = 100000000 },
        { "temperature", .number = &s.temperature, .least = 0, .most = 1000 },
        { "top-k", .whole = &s.top_k, .least = 0, .most = 1 << 30 }, { "seed", .seed = &s.seed },
        { "threads", .whole = &s.threads, .least = 1, .most = MAX_THREADS }, { "help", .show = help }, { 0 }
    };
    int first_word = options_read(argc, argv, table);
    if (first_word < argc) die(EXIT_USAGE, "%s: sample takes options only; --help lists them", argv[first_word]);
    if (s.prompt[0] == '\0')
        die(EXIT_USAGE, "--prompt is empty: there must be something to continue; leave it out for a new line");
    return s;
}

static void write_sample(const Transformer *model, const Vocabulary *vocabulary, const int *prompt, int prompt_length,
                         const Sampling *s)
{
    int count = prompt_length + s->length, *tokens = allocate((size_t)count, sizeof *tokens, "the characters");
    memcpy(tokens, prompt, (size_t)prompt_length * sizeof *tokens);
    double start = seconds_now();
    generate_among(model, vocabulary->size, tokens, prompt_length, s->length, s->temperature, s->top_k, s->seed);
    double seconds = seconds_now() - start;
    for (int i = 0; i < count; i++) {
        char character[5];
        int n = vocabulary_decode(vocabulary, tokens[i], character);
        fwrite(character, 1, (size_t)n, stdout);
    }
    printf("\n");
    fflush(stdout);
    fprintf(stderr, "%d characters, %.0f a second\n", s->length, s->length / seconds);
    free(tokens);
}

int main(int argc, char **argv)
{
    program_name = "sample";
    const Sampling s = read_sampling(argc, argv);
    if (s.threads > 0) parallel_set_threads(s.threads);
    char error[1024];
    Vocabulary vocabulary = { 0 };
    Transformer *model = model_load(s.model, &vocabulary, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    if (vocabulary.size == 0 && !vocabulary_load(s.model, model->config.vocab_size, &vocabulary, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    if (s.adapter_count == 0 && directory_holds(s.model, "adapter_config.json"))
        fprintf(stderr, "sample: %s holds a model and an adapter; this is the model alone: --adapter %s adds the other\n", s.model,
                s.model);
    int *prompt = allocate(strlen(s.prompt), sizeof *prompt, "the prompt");
    int n = (int)vocabulary_encode(&vocabulary, s.prompt, strlen(s.prompt), prompt, error, sizeof error);
    if (n < 0) die(EXIT_FAILED, "--prompt: %s", error);

    if (s.adapter_count == 0) write_sample(model, &vocabulary, prompt, n, &s);
    for (int i = 0; i < s.adapter_count; i++) {
        char name[32];
        snprintf(name, sizeof name, "adapter %d", i);
        if (adapter_load(model, s.adapters[i], name, s.any_base, error, sizeof error) == NULL) die(EXIT_FAILED, "%s", error);
        if (s.adapter_count > 1) printf("%s== %s\n", i ? "\n" : "", s.adapters[i]);
        write_sample(model, &vocabulary, prompt, n, &s);
    }
    free(prompt);
    vocabulary_free(&vocabulary);
    transformer_free(model);
    memory_release_pool();
    return output_status();
}
