// sample.c - writes text with a trained model, and any number of adapters on it.
//
//     ./sample --model out/book --prompt "Once "
//     ./sample --model out/book --adapter out/other --adapter out/third          one text each, from one base in memory
//
// Load the model and its characters, turn the prompt into token ids, and repeat: logits of the next character, draw one, append
// it (generate in generate.c, transformer_next and sample_token in transformer.c). No tape is given, so nothing is recorded;
// what each block found out about a character is remembered (Cache), so that the next one costs one row of work. An adapter is
// a pointer in each linear layer: the next --adapter changes pointers, and the base stays as it is.
//
// The text goes to stdout, the speed to stderr. The same seed draws the same text. Read next: adapter.c.

#include "generate.h"
#include "io/adapter_file.h"
#include "io/model_file.h"
#include "io/options.h"
#include "io/progress.h"

#include <getopt.h>
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

static void write_sample(const Transformer *model, const Vocabulary *vocabulary, const int *prompt, int prompt_length,
                         int length, double temperature, int top_k, uint64_t seed)
{
    int *tokens = allocate((size_t)(prompt_length + length), sizeof *tokens, "the characters");
    memcpy(tokens, prompt, (size_t)prompt_length * sizeof *tokens);
    double start = seconds_now();
    generate(model, tokens, prompt_length, length, temperature, top_k, seed);
    double seconds = seconds_now() - start;
    for (int i = 0; i < prompt_length + length; i++) {
        char character[5];
        int n = vocabulary_decode(vocabulary, tokens[i], character);
        fwrite(character, 1, (size_t)n, stdout);
    }
    printf("\n");
    fflush(stdout);
    fprintf(stderr, "%d characters, %.0f a second\n", length, length / seconds);
    free(tokens);
}

int main(int argc, char **argv)
{
    program_name = "sample";
    enum { MODEL = 1, ADAPTER, ANY_BASE, PROMPT, LENGTH, TEMPERATURE, TOP_K, SEED, THREADS, HELP };
    static const struct option options[] = { { "model", 1, NULL, MODEL },
                                             { "adapter", 1, NULL, ADAPTER },
                                             { "any-base", 0, NULL, ANY_BASE },
                                             { "prompt", 1, NULL, PROMPT },
                                             { "length", 1, NULL, LENGTH },
                                             { "temperature", 1, NULL, TEMPERATURE },
                                             { "top-k", 1, NULL, TOP_K },
                                             { "seed", 1, NULL, SEED },
                                             { "threads", 1, NULL, THREADS },
                                             { "help", 0, NULL, HELP },
                                             { 0 } };
    const char *directory = "out", *prompt = "\n", *adapters[MOST_ADAPTERS];
    int adapter_count = 0, length = 500, top_k = 0;
    double temperature = 0.8;
    uint64_t seed = 1337;
    bool any_base = false;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;)
        switch (option) {
        case MODEL: directory = optarg; break;
        case ADAPTER:
            if (adapter_count == MOST_ADAPTERS) die(EXIT_USAGE, "more than %d adapters", MOST_ADAPTERS);
            adapters[adapter_count++] = optarg;
            break;
        case ANY_BASE: any_base = true; break;
        case PROMPT: prompt = optarg; break;
        case LENGTH: length = (int)option_int("length", optarg, 1, 100000000); break;
        case TEMPERATURE: temperature = option_double("temperature", optarg, 0, 1000); break;
        case TOP_K: top_k = (int)option_int("top-k", optarg, 0, 1 << 30); break;
        case SEED: seed = option_seed(optarg); break;
        case THREADS: parallel_set_threads((int)option_int("threads", optarg, 1, MAX_THREADS)); break;
        case HELP: help(); return output_status();
        default: option_unknown(argv, optind - 1);
        }
    if (optind < argc) die(EXIT_USAGE, "%s: sample takes options only; --help lists them", argv[optind]);
    if (prompt[0] == '\0')
        die(EXIT_USAGE, "--prompt is empty: there must be something to continue; leave it out for a new line");

    char error[1024];
    Vocabulary vocabulary = { 0 };
    Transformer *model = model_load(directory, &vocabulary, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    if (vocabulary.size == 0 && !vocabulary_load(directory, model->config.vocab_size, &vocabulary, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    int *ids = allocate(strlen(prompt), sizeof *ids, "the prompt");
    long n = vocabulary_encode(&vocabulary, prompt, strlen(prompt), ids, error, sizeof error);
    if (n < 0) die(EXIT_FAILED, "--prompt: %s", error);

    if (adapter_count == 0) write_sample(model, &vocabulary, ids, (int)n, length, temperature, top_k, seed);
    for (int i = 0; i < adapter_count; i++) {
        char name[32];
        snprintf(name, sizeof name, "adapter %d", i);
        if (adapter_load(model, adapters[i], name, any_base, error, sizeof error) == NULL) die(EXIT_FAILED, "%s", error);
        if (adapter_count > 1) printf("%s== %s\n", i ? "\n" : "", adapters[i]);
        write_sample(model, &vocabulary, ids, (int)n, length, temperature, top_k, seed);
    }
    free(ids);
    vocabulary_free(&vocabulary);
    transformer_free(model);
    memory_release_pool();
    return output_status();
}
