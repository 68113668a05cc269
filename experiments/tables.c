// tables.c - what ./demo prints of bytes, work, time and learning: one column for each run.

#include "experiments/comparison.h"

void print_heading(const char *text)
{
    printf("\n%s== %s ", colour(STRONG), text);
    for (size_t i = strlen(text); i < 75; i++) putchar('=');
    printf("%s\n", colour(NORMAL));
}

static void heading_row(const Comparison *c, const char *first)
{
    printf("%-22s", first);
    for (int r = 0; r < RUNS; r++) printf("%13s", c->run[r].heading);
    printf(" ratio\n");
}

// Whole numbers, and the ratio: by what factor the second run's is smaller than the first's; not of what is next to nothing.
static void row(const char *name, const int64_t value[RUNS], bool with_ratio)
{
    printf("%-22s", name);
    for (int r = 0; r < RUNS; r++) printf("%13s", thousands(value[r]));
    if (with_ratio && value[FULL] > 8 && value[C_ATTN_ONLY] > 8)
        printf("%5.1fx", (double)value[FULL] / (double)value[C_ATTN_ONLY]);
    printf("\n");
}

static void row_of(const char *name, int digits, double unit, const double value[RUNS], bool with_ratio)
{
    printf("%-22s", name);
    for (int r = 0; r < RUNS; r++) printf("%13.*f", digits, unit * value[r]);
    if (with_ratio) printf("%5.2fx", value[FULL] / value[C_ATTN_ONLY]);
    printf("\n");
}

// A number of each run's, for row and row_of: what `field` of a Run is.
#define OF_RUNS(field) { c->run[FULL].field, c->run[C_ATTN_ONLY].field, c->run[C_ATTN_CODES].field, c->run[ALL_FOUR].field }

static void print_agreement(const Comparison *c)
{
    int agree = 0;
    for (int r = 0; r < RUNS; r++)
        for (int k = 0; k < MEMORY_KINDS; k++) {
            const Ledger *measured = &c->run[r].measured.ledger;
            const Prediction *predicted = &c->run[r].predicted;
            agree += measured->at_peak[k] == predicted->at_peak[k];
            agree += measured->own_peak[k] == predicted->own_peak[k];
        }
    printf("\n%d of these %d numbers are, to the byte, what predict.c computes from the shape.\n", agree,
           2 * RUNS * MEMORY_KINDS);
}

static const char *codes_text(const Comparison *c)
{
    static const char *const texts[BASE_TYPES] = { "floats again", "codes of four bits", "codes of eight bits" };
    return texts[c->run[C_ATTN_CODES].lora->base_type];
}

void print_bytes(const Comparison *c)
{
    print_heading("Bytes of one training step, measured");
    heading_row(c, "at the step's peak");
    for (int k = 0; k < MEMORY_KINDS; k++)
        row(memory_kind_names[k], (int64_t[])OF_RUNS(measured.ledger.at_peak[k]), true);
    row("total", (int64_t[])OF_RUNS(measured.ledger.peak), true);
    row("total, predicted", (int64_t[])OF_RUNS(predicted.peak), true);
    row("resident (system says)", (int64_t[])OF_RUNS(resident - c->empty_process), true);
    printf("\n");
    heading_row(c, "each kind's own peak");
    for (int k = 0; k < MEMORY_KINDS; k++)
        row(memory_kind_names[k], (int64_t[])OF_RUNS(measured.ledger.own_peak[k]), true);
    print_agreement(c);
    printf("`ratio`: full / LoRA c_attn. `%s`: LoRA c_attn once more, with the\n"
           "weights of the base's linear layers in %s.\n", c->run[C_ATTN_CODES].heading, codes_text(c));
    printf("`resident` is the peak of a process that does nothing else, less an empty one's\n"
           "(%s); it includes buffers held for reuse.\n", bytes_text((double)c->empty_process));
    printf("What LoRA does not save: kept activations. They fall only where a frozen layer\n"
           "without adapter no longer keeps its input for a weight gradient.\n");
}

void print_work(const Comparison *c)
{
    char name[32];
    print_heading("Work of one training step, measured");
    heading_row(c, "");
    row("dgrad, of 17 matrices", (int64_t[])OF_RUNS(measured.dgrad), false);
    row("wgrad", (int64_t[])OF_RUNS(measured.wgrad), false);
    row("wgrad skipped", (int64_t[])OF_RUNS(measured.wgrad_skipped), false);
    row("wgrad never recorded", (int64_t[])OF_RUNS(measured.wgrad_never_recorded), false);
    row("adapter gradients", (int64_t[])OF_RUNS(measured.adapter_gradients), false);
    for (int p = 0; p < PHASE_RECOMPUTE; p++) {
        snprintf(name, sizeof name, "MFLOP %s", phase_names[p]);
        row_of(name, 1, 1e-6, (double[])OF_RUNS(measured.phase[p].flops), false);
    }
    double flops[RUNS];
    for (int r = 0; r < RUNS; r++) flops[r] = all_flops(&c->run[r].measured);
    row_of("MFLOP in all", 1, 1e-6, flops, true);
    for (int p = 0; p < PHASES; p++) { // recompute: what was made again in backward
        snprintf(name, sizeof name, "ms    %s", phase_names[p]);
        row_of(name, 2, 1e3, (double[])OF_RUNS(measured.phase[p].seconds), false);
    }
    row_of("ms    optimizer", 2, 1e3, (double[])OF_RUNS(measured.optimizer_seconds), false);
    row_of("ms    step, median", 2, 1e3, (double[])OF_RUNS(measured.seconds), true);
}

void print_recompute(const Comparison *c)
{
    print_heading("Trading time for bytes: run each block again in backward");
    printf("%-20s%15s%15s%15s%15s\n", "", "peak bytes", "recomputed", "ms a step", "recomputed");
    for (int r = 0; r < 2; r++) {
        const Measured *m = c->recompute[r];
        printf("%-20s%15s%15s%15.2f%15.2f\n", c->run[r].heading, thousands(m[0].ledger.peak), thousands(m[1].ledger.peak),
               1e3 * m[0].seconds, 1e3 * m[1].seconds);
    }
}

// A line of the table of losses: the base's column, then the runs'.
static void loss_row(const char *name, double base, const double value[RUNS])
{
    printf("%-20s%8.3f", name, base);
    for (int r = 0; r < RUNS; r++) printf("%13.3f", value[r]);
    printf("\n");
}

void print_learning(const Comparison *c)
{
    print_heading("What was learned, and what forgotten (validation loss, nats a character)");
    printf("%-20s%8s", "", "base");
    for (int r = 0; r < RUNS; r++) printf("%13s", c->run[r].heading);
    printf("\n");
    loss_row("pirate (new)", c->base_task, (double[])OF_RUNS(val_task));
    printf("%-20s%8s%13.3f\n", "  floor of the text", "", c->pirate.val_floor);
    loss_row("tales (old)", c->base_tales, (double[])OF_RUNS(val_tales));
    printf("%-20s%8s%13.3f\n", "  floor of the text", "", c->tales.val_floor);
    printf("%-20s%8s", "learning rate", "");
    for (int r = 0; r < RUNS; r++) printf("%13g", c->run[r].learning_rate);
    printf("\n%-20s%8s", "trainable numbers", thousands(transformer_base_size(c->model)));
    for (int r = 0; r < RUNS; r++) printf("%13s", thousands(c->run[r].trainable));
    printf("\n%-20s%8s", "to store a task", "");
    for (int r = 0; r < RUNS; r++) printf("%13s", bytes_text((double)c->run[r].trainable * sizeof(real)));
    printf("\n");
}

void print_hashes(const Comparison *c)
{
    print_heading("One base, several adapters, one process (samples at temperature 0.3)");
    printf("the base's hash before %016" PRIx64 "\n                 after %016" PRIx64 "  %s\n", c->hash, c->hash_after,
           c->hash == c->hash_after ? "(unchanged)" : "(CHANGED)");
}

char *sample_text(const Transformer *model, const Text *text, int length)
{
    char error[256], *utf8 = allocate((size_t)(4 * length + 1), 1, "a sample");
    int *tokens = allocate((size_t)(2 + length), sizeof *tokens, "a sample");
    vocabulary_encode(&text->vocabulary, "\n\n", 2, tokens, error, sizeof error); // a new tale
    generate(model, tokens, 2, length, 0.3, 0, SEED);
    size_t size = 0;
    for (int i = 2; i < 2 + length; i++) {
        char character[5];
        int bytes = vocabulary_decode(&text->vocabulary, tokens[i], character);
        memcpy(utf8 + size, character, (size_t)bytes);
        size += (size_t)bytes;
    }
    utf8[size] = '\0';
    free(tokens);
    return utf8;
}

void print_sample(Transformer *model, Adapter *adapter, const Text *text, int length, const char *title)
{
    transformer_use_adapter(model, adapter);
    printf("\n-- %s\n", title);
    char *words = sample_text(model, text, length);
    int column = 0, shown = (int)strlen(words);
    while (shown > length / 2 && strchr("\n !\"", words[shown - 1]) == NULL) shown--; // not within a word, if one ends near
    for (char *at = words; at < words + shown; at++) {
        if (*at == ' ' && column > 70) *at = '\n';
        column = *at == '\n' ? 0 : column + ((*at & 0xc0) != 0x80); // bytes within a character take no column
        putchar(*at);
    }
    printf("\n");
    free(words);
}
