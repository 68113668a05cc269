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
#include <unistd.h>

enum { MOST_ADAPTERS = 64 };

typedef struct List { const char *directory[MOST_ADAPTERS]; int count; } List;

// What is asked for.
typedef struct Sampling {
    const char *model, *prompt;
    List        adapters;
    int         length, top_k, threads;
    double      temperature;
    uint64_t    seed;
    BaseType    base_type;
    bool        any_base, interactive;
    uint64_t    given;       // the rows that were on the command line
} Sampling;

static bool add_adapter(const char *directory, void *to, char *why, size_t size)
{
    List *list = to;
    if (list->count == MOST_ADAPTERS) return fail(why, size, "more than %d adapters", MOST_ADAPTERS);
    list->directory[list->count++] = directory;
    return true;
}

static const Option sample_options[] = {
    { "model", "DIR", "out", "a model that train has saved, or of GPT-2's shape with a character tokenizer",
      TEXT_OPTION(Sampling, model) },
    { "adapter", "DIR", NULL, "an adapter on it; given several times, one continuation each, on one base",
      WORDS_OPTION(Sampling, adapters, add_adapter, NULL) },
    { "base-type", "float|nf4|int8", NULL, "hold the weights of the model's linear layers in 4 or 8 bits each (as its files do)",
      WORDS_OPTION(Sampling, base_type, base_type_read, base_type_write) },
    { "any-base", NULL, NULL, "use an adapter although it was trained on another base",
      FLAG_OPTION(Sampling, any_base) },
    { "prompt", "TEXT", NULL, "what to continue (a new line)", TEXT_OPTION(Sampling, prompt) },
    { "interactive", NULL, NULL, "reads prompts, a line each, until the input ends", FLAG_OPTION(Sampling, interactive) },
    { "length", "N", "500", "characters to write", INT_OPTION(Sampling, length, 1, 100000000) },
    { "temperature", "X", "0.8", "0: always the most probable character",
      DOUBLE_OPTION(Sampling, temperature, 0, 1000) },
    { "top-k", "K", "0", "draw from the K most probable only; 0: from all", INT_OPTION(Sampling, top_k, 0, 1 << 30) },
    { "seed", "N", "1337", "another one draws another text", INT64_OPTION(Sampling, seed, 0, LARGEST_SEED) },
    { "threads", "N", NULL, "(one for each core)", INT_OPTION(Sampling, threads, 1, MAX_THREADS) },
    { 0 }
};

static const OptionTable sample_table = {
    .head = "sample: continues a prompt, character by character",
    .rows = sample_options,
    .tail = "Example: ./sample --model out --adapter out/pirate --prompt \"Arr\" --length 200"
};

static Sampling read_sampling(int argc, char **argv)
{
    Sampling s = { .prompt = "\n" };
    options_read(argc, argv, &sample_table, &s, &s.given);
    if (s.prompt[0] == '\0')
        die(EXIT_USAGE, "--prompt is empty: there must be something to continue; leave it out for a new line");
    if (s.interactive && s.adapters.count > 1) die(EXIT_USAGE, "--interactive takes one --adapter at most, not %d", s.adapters.count);
    return s;
}

static void write_character(void *vocabulary, int token)
{
    char character[5];
    int n = vocabulary_decode(vocabulary, token, character);
    fwrite(character, 1, (size_t)n, stdout);
    fflush(stdout); // at once
}

// The prompt and what follows it, each character as it is drawn. False, after one line in `error`: the prompt has others.
static bool write_sample(const Transformer *model, Vocabulary *vocabulary, const char *prompt, const Sampling *s, char *error,
                         size_t size)
{
    size_t room = strlen(prompt) + (size_t)s->length;
    int *tokens = allocate(room, sizeof *tokens, "the characters");
    int n = (int)vocabulary_encode(vocabulary, prompt, strlen(prompt), tokens, error, size);
    for (int i = 0; i < n; i++) write_character(vocabulary, tokens[i]);
    double start = seconds_now();
    if (n > 0)
        generate_among(model, vocabulary->size, tokens, n, s->length, s->temperature, s->top_k, s->seed, write_character,
                       vocabulary);
    double seconds = seconds_now() - start;
    free(tokens);
    if (n < 0) return false;
    printf("\n");
    fflush(stdout);
    fprintf(stderr, "%d characters, %.0f a second\n", s->length, s->length / seconds);
    return true;
}

// A line of input is a prompt; the end of input ends it. A line that cannot be read says why, and the next one may do.
static void converse(const Transformer *model, Vocabulary *vocabulary, const Sampling *s)
{
    char *line = NULL, error[1024];
    size_t room = 0;
    bool terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    for (;;) {
        if (terminal) fputs("prompt> ", stderr);
        if (getline(&line, &room, stdin) < 0) break;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && !write_sample(model, vocabulary, line, s, error, sizeof error)) fprintf(stderr, "sample: %s\n", error);
    }
    free(line);
}

// An adapter knows the weights that it was trained beside: rounded ones, or those of the files. Nobody may have thought of it.
static void warn_of_type(const Transformer *model, const Adapter *adapter, const char *directory)
{
    BaseType trained = adapter->config.base_type;
    if (trained != BASE_FLOAT && model->base_type == BASE_FLOAT)
        fprintf(stderr, "sample: %s was trained on a base held in %s, and this one is in floats: --base-type %s holds it so\n", directory,
                base_type_names[trained], base_type_names[trained]);
}

int main(int argc, char **argv)
{
    program_begin("sample");
    const Sampling s = read_sampling(argc, argv);
    if (s.threads > 0) parallel_set_threads(s.threads);
    char error[1024];
    Vocabulary vocabulary = { 0 };
    Transformer *model = model_load(s.model, &vocabulary, error, sizeof error);
    bool type_given = option_given(sample_options, s.given, "base-type");
    if (model == NULL || (type_given && !model_hold(model, s.base_type, s.model, error, sizeof error))) die(EXIT_FAILED, "%s", error);
    if (vocabulary.size == 0 && !vocabulary_load(s.model, model->config.vocab_size, &vocabulary, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    if (s.adapters.count == 0 && directory_holds(s.model, "adapter_config.json"))
        fprintf(stderr, "sample: %s holds a model and an adapter; this is the model alone: --adapter %s adds the other\n", s.model,
                s.model);
    for (int i = 0; i == 0 || i < s.adapters.count; i++) {
        char name[32];
        snprintf(name, sizeof name, "adapter %d", i);
        if (i < s.adapters.count
            && adapter_load(model, s.adapters.directory[i], name, s.any_base, error, sizeof error) == NULL) die(EXIT_FAILED, "%s", error);
        if (i < s.adapters.count && !type_given) warn_of_type(model, model->active, s.adapters.directory[i]);
        if (s.adapters.count > 1) printf("%s== %s\n", i ? "\n" : "", s.adapters.directory[i]);
        if (s.interactive) converse(model, &vocabulary, &s);
        else if (!write_sample(model, &vocabulary, s.prompt, &s, error, sizeof error)) die(EXIT_FAILED, "--prompt: %s", error);
    }
    vocabulary_free(&vocabulary);
    transformer_free(model);
    memory_release_pool();
    return output_status();
}
