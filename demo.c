// demo.c - full fine-tuning against LoRA, on one small model, with every number measured.
//
// A character transformer learns short tales; then the same base is taught to tell them as a pirate would: by training all of
// it, by an adapter on c_attn, and by an adapter on all four linear layers. What each of them cost in bytes, work and time is
// printed beside what predict.c says it should; then ten things that people say about LoRA, each with a verdict and its number.
//
// Read next: TUTORIAL.md, where each of these numbers is predicted first; or experiments/.

#include "adamw.h"
#include "generate.h"
#include "io/evaluation.h"
#include "io/machine.h"
#include "io/options.h"
#include "io/progress.h"
#include "io/report.h"
#include "predict.h"
#include "training.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BATCH = 12, CONTEXT = 64, BASE_STEPS = 800, TUNE_STEPS = 200, SAMPLE = 240 };
static const uint64_t seed = 1337;
static const Config shape = { 0, CONTEXT, 4, 4, 128, 0 }; // nanoGPT's CPU settings; the text gives the vocabulary

static const LoraConfig on_c_attn = { .r = 8, .alpha = 16, .targets = 1u << C_ATTN, .last_block = -1 };
static const LoraConfig on_all = { .r = 8, .alpha = 16, .targets = (1u << LINEARS) - 1, .last_block = -1 };

// One way to fine-tune, and what it was measured to take.
typedef struct Run {
    const char *name, *heading;
    const LoraConfig *lora;     // NULL: all of the base trains
    double learning_rate;
    // measured
    Ledger     ledger;          // peaks of a step after the first
    Prediction predicted;
    Counts     counts;          // of all `steps` measured steps
    long       steps;
    double     phase_ms[PHASES], optimizer_ms, step_ms; // step: median, the others: mean
    double     val_task, val_tales;
    long       trainable, resident; // resident: what the system says of a process that does nothing else
} Run;
enum { FULL, C_ATTN_ONLY, ALL_FOUR, RUNS };
static Run runs[RUNS] = {
    { .name = "full", .heading = "full", .lora = NULL, .learning_rate = 2e-3 },
    { .name = "c_attn", .heading = "LoRA c_attn", .lora = &on_c_attn, .learning_rate = 2e-2 },
    { .name = "all", .heading = "LoRA all 4", .lora = &on_all, .learning_rate = 1e-2 },
};

static void heading(const char *text)
{
    printf("\n%s== %s ", colour(STRONG), text);
    for (size_t i = strlen(text); i < 75; i++) putchar('=');
    printf("%s\n", colour(NORMAL));
}

// --html FILE: the page that is being written, or NULL; and what is collected for it on the way.
static Report *report;
static FILE *samples, *claims;
static char *samples_text, *claims_text;
static size_t samples_size, claims_size;

static AdamW *optimizer_for(const Transformer *model)
{
    return adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1.0 });
}

// ------------------------------------------------------------------------------------------------------------------ training

static void put_sample(const Transformer *model, const Text *text, const char *run, long step)
{
    int tokens[2 + SAMPLE];
    char error[256], character[5], escaped[16];
    vocabulary_encode(&text->vocabulary, "\n\n", 2, tokens, error, sizeof error); // a new tale
    generate(model, tokens, 2, SAMPLE / 2, 0.3, 0, seed);
    fprintf(samples, "%s{\"run\":\"%s\",\"step\":%ld,\"text\":\"", ftell(samples) > 0 ? ",\n" : "", run, step);
    for (int i = 2; i < 2 + SAMPLE / 2; i++) {
        vocabulary_decode(&text->vocabulary, tokens[i], character);
        size_t n = json_escape(escaped, sizeof escaped, character, strlen(character));
        fwrite(escaped + 1, 1, n - 2, samples); // without its quotes
    }
    fputs("\"}", samples);
}

// Trains what requires grad for `steps` steps; fills the measurements of `run`, if there is one, from the second step on.
static void train(Transformer *model, const Text *text, const char *what, long steps, double learning_rate, Run *run, FILE *log)
{
    Schedule schedule = { learning_rate, learning_rate / 10, steps / 10, steps };
    AdamW *optimizer = optimizer_for(model);
    Tape *tape = tape_new();
    int *batch = allocate(2 * BATCH * CONTEXT, sizeof *batch, "a batch");
    double *times = allocate((size_t)steps, sizeof *times, "the times of the steps");
    Progress progress;
    progress_begin(&progress, what, 0, steps, text->train_floor);
    for (long step = 0; step < steps; step++) {
        if (samples != NULL && run != NULL && (step == 0 || step == 5 || step == 20 || step == 60))
            put_sample(model, text, what, step);
        if (step == 1) { // the moments exist, and every buffer has been asked for once
            tape_clear(tape);
            memory_reset_peaks();
            tape->counts = (Counts){ 0 };
            optimizer->seconds = 0;
        }
        text_batch(text, BATCH, CONTEXT, seed, step, batch, batch + BATCH * CONTEXT);
        StepResult result = training_step(model, tape, optimizer, batch, batch + BATCH * CONTEXT, BATCH, CONTEXT, seed, step,
            schedule_rate(&schedule, step));
        if (!isfinite(result.loss)) die(EXIT_FAILED, "%s: the loss is not finite at step %ld", what, step);
        times[step] = result.seconds;
        progress_step(&progress, step + 1, result.loss, BATCH * CONTEXT);
        if (log != NULL) fprintf(log, "%s,%ld,%.6f,%.3f\n", what, step, result.loss, 1e3 * result.seconds);
    }
    progress_end(&progress);
    if (samples != NULL && run != NULL) put_sample(model, text, what, steps);
    if (run != NULL) {
        double measured = (double)(steps - 1);
        run->steps = steps - 1;
        run->ledger = ledger;
        run->counts = tape->counts;
        for (int p = 0; p < PHASES; p++) run->phase_ms[p] = 1e3 * counts_phase(&tape->counts, (Phase)p).seconds / measured;
        run->optimizer_ms = 1e3 * optimizer->seconds / measured;
        run->step_ms = 1e3 * median(times + 1, steps - 1);
        run->trainable = transformer_trainable_size(model);
        run->predicted = predict_step(&model->config, run->lora, BATCH, CONTEXT, model->recompute, parallel_threads(),
            (int)sizeof(real));
    }
    free(times);
    free(batch);
    tape_free(tape);
    adamw_free(optimizer);
}

static long each(const Run *run, long count) { return count / run->steps; } // of what was added up over all steps

static Adapter *add(Transformer *model, const char *name, const LoraConfig *lora)
{
    char error[256];
    Adapter *adapter = transformer_add_adapter(model, name, *lora, seed, error, sizeof error);
    if (adapter == NULL) die(EXIT_FAILED, "%s", error);
    return adapter;
}

// A copy of the base's numbers outside the ledger, to go back to after full fine-tuning.
static real **copy_base(const Transformer *model)
{
    static const char what[] = "a copy of the base";
    real **copy = allocate((size_t)model->base_count, sizeof *copy, what);
    for (int i = 0; i < model->base_count; i++) {
        size_t count = (size_t)model->parameters[i]->size;
        copy[i] = allocate(count, sizeof(real), what);
        memcpy(copy[i], model->parameters[i]->data, count * sizeof(real));
    }
    return copy;
}

static void restore_base(Transformer *model, real **copy)
{
    for (int i = 0; i < model->base_count; i++)
        memcpy(model->parameters[i]->data, copy[i], (size_t)model->parameters[i]->size * sizeof(real));
}

// ------------------------------------------------------------------------------------- what the operating system says of it

// Runs in a process of its own: a few steps of one kind and nothing else; prints the peak of its resident size.
static int measure_resident(const char *name, int vocab_size)
{
    for (int r = 0; r < RUNS; r++) {
        if (strcmp(name, runs[r].name) != 0) continue;
        char error[256];
        Config config = shape;
        config.vocab_size = vocab_size;
        Transformer *model = transformer_new(config, seed, error, sizeof error);
        if (runs[r].lora != NULL) {
            transformer_train_base(model, false);
            transformer_add_adapter(model, "adapter", *runs[r].lora, seed, error, sizeof error);
        }
        AdamW *optimizer = optimizer_for(model);
        Tape *tape = tape_new();
        static int ids[BATCH * CONTEXT];
        for (int step = 0; step < 3; step++) {
            tape_clear(tape);
            backward(tape, transformer_loss(model, tape, ids, ids, BATCH, CONTEXT));
            adamw_step(optimizer, 0);
            zero_grads(model);
        }
    }
    printf("%lld\n", (long long)resident_peak());
    return 0;
}

// What such a process prints, or 0.
static long resident_of(const char *program, const char *name, int vocab_size)
{
    char threads[16], what[64], answer[64] = "";
    snprintf(threads, sizeof threads, "%d", parallel_threads());
    snprintf(what, sizeof what, "%s:%d", name, vocab_size);
    int ends[2];
    fflush(stdout);
    if (pipe(ends) != 0) return 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execlp(program, program, "--threads", threads, "--measure-resident", what, (char *)NULL);
        _exit(EXIT_FAILED);
    }
    close(ends[1]);
    if (child > 0 && read(ends[0], answer, sizeof answer - 1) < 0) answer[0] = '\0';
    close(ends[0]);
    if (child > 0) waitpid(child, NULL, 0);
    return atol(answer);
}

// ------------------------------------------------------------------------------------------------------------------- tables

static void row_of_bytes(const char *name, const long bytes[RUNS])
{
    printf("%-24s", name);
    for (int r = 0; r < RUNS; r++) printf("%14s", thousands(bytes[r]));
    if (bytes[FULL] > 0 && bytes[C_ATTN_ONLY] > 0) printf("%11.1f x", (double)bytes[FULL] / (double)bytes[C_ATTN_ONLY]);
    printf("\n");
}

static void table_heading(const char *first, const char *last)
{
    printf("%-24s", first);
    for (int r = 0; r < RUNS; r++) printf("%14s", runs[r].heading);
    printf("%13s\n", last);
}

static void print_bytes(long empty_process)
{
    heading("Bytes of one training step, measured");
    table_heading("at the peak of the step", "full/c_attn");
    long row[RUNS];
    for (int k = 0; k < MEMORY_KINDS; k++) {
        for (int r = 0; r < RUNS; r++) row[r] = runs[r].ledger.at_peak[k];
        row_of_bytes(memory_kind_names[k], row);
    }
    for (int r = 0; r < RUNS; r++) row[r] = runs[r].ledger.peak;
    row_of_bytes("total", row);
    for (int r = 0; r < RUNS; r++) row[r] = runs[r].predicted.peak;
    row_of_bytes("total, predicted", row);
    for (int r = 0; r < RUNS; r++) row[r] = runs[r].resident - empty_process;
    row_of_bytes("resident (system says)", row);

    printf("\n");
    table_heading("each kind's own peak", "full/c_attn");
    for (int k = 0; k < MEMORY_KINDS; k++) {
        for (int r = 0; r < RUNS; r++) row[r] = runs[r].ledger.own_peak[k];
        row_of_bytes(memory_kind_names[k], row);
    }
    int agree = 0, all = 0;
    for (int r = 0; r < RUNS; r++)
        for (int k = 0; k < MEMORY_KINDS; k++) {
            agree += runs[r].ledger.at_peak[k] == runs[r].predicted.at_peak[k];
            agree += runs[r].ledger.own_peak[k] == runs[r].predicted.own_peak[k];
            all += 2;
        }
    printf("\n%d of these %d numbers are, to the byte, what predict.c computes from the shape.\n", agree, all);
    printf("`resident` is the peak of a process that does nothing else, less an empty one's\n"
        "(%s); it includes buffers held for reuse.\n", bytes_text((double)empty_process));
    printf("What LoRA does not save: kept activations. They fall only where a frozen layer\n"
        "without adapter no longer keeps its input for a weight gradient.\n");
}

static void print_work(void)
{
    heading("Work of one training step, measured");
    table_heading("", "full/c_attn");
    long row[RUNS];
    const char *const names[] = { "dgrad, of 17 matrices", "wgrad", "wgrad skipped", "wgrad never recorded",
        "adapter gradients" };
    for (int i = 0; i < 5; i++) {
        printf("%-24s", names[i]);
        for (int r = 0; r < RUNS; r++) {
            const Counts *c = &runs[r].counts;
            long counts[] = { c->dgrad, c->wgrad, c->wgrad_skipped, c->wgrad_never_recorded, c->adapter_gradients };
            printf("%14ld", each(&runs[r], counts[i]));
        }
        printf("\n");
    }
    long flops[RUNS] = { 0 };
    for (int p = 0; p < PHASE_RECOMPUTE; p++) {
        char name[32];
        snprintf(name, sizeof name, "MFLOP %s", phase_names[p]);
        printf("%-24s", name);
        for (int r = 0; r < RUNS; r++) {
            row[r] = each(&runs[r], counts_phase(&runs[r].counts, (Phase)p).flops);
            flops[r] += row[r];
            printf("%14.1f", 1e-6 * (double)row[r]);
        }
        printf("\n");
    }
    printf("%-24s", "MFLOP in all");
    for (int r = 0; r < RUNS; r++) printf("%14.1f", 1e-6 * (double)flops[r]);
    printf("%11.2f x\n", (double)flops[FULL] / (double)flops[C_ATTN_ONLY]);
    for (int p = 0; p < PHASE_RECOMPUTE; p++) {
        printf("ms    %-18s", phase_names[p]);
        for (int r = 0; r < RUNS; r++) printf("%14.2f", runs[r].phase_ms[p]);
        printf("\n");
    }
    printf("ms    %-18s", "optimizer");
    for (int r = 0; r < RUNS; r++) printf("%14.2f", runs[r].optimizer_ms);
    printf("\nms    %-18s", "step, median");
    for (int r = 0; r < RUNS; r++) printf("%14.2f", runs[r].step_ms);
    printf("%11.2f x\n", runs[FULL].step_ms / runs[C_ATTN_ONLY].step_ms);
}

static void print_learning(const Text *tales, const Text *pirate, double base_task, double base_tales, const Transformer *model)
{
    heading("What was learned, and what forgotten (validation loss, nats a character)");
    printf("%-24s%14s%14s%14s%14s\n", "", "base", runs[FULL].heading, runs[C_ATTN_ONLY].heading, runs[ALL_FOUR].heading);
    printf("%-24s%14.3f", "pirate (new)", base_task);
    for (int r = 0; r < RUNS; r++) printf("%14.3f", runs[r].val_task);
    printf("\n%-24s%14s%14.3f\n", "  floor of the text", "", pirate->val_floor);
    printf("%-24s%14.3f", "tales (old)", base_tales);
    for (int r = 0; r < RUNS; r++) printf("%14.3f", runs[r].val_tales);
    printf("\n%-24s%14s%14.3f\n", "  floor of the text", "", tales->val_floor);
    printf("%-24s%14s", "learning rate", "");
    for (int r = 0; r < RUNS; r++) printf("%14g", runs[r].learning_rate);
    printf("\n%-24s%14s", "trainable numbers", thousands(transformer_base_size(model)));
    for (int r = 0; r < RUNS; r++) printf("%14s", thousands(runs[r].trainable));
    printf("\n%-24s%14s", "bytes to store a task", "");
    for (int r = 0; r < RUNS; r++) printf("%14s", bytes_text((double)(runs[r].trainable * (long)sizeof(real))));
    printf("\n");
}

static void print_sample(const Transformer *model, const Text *text, const char *title)
{
    int tokens[2 + SAMPLE];
    char error[256], character[5];
    vocabulary_encode(&text->vocabulary, "\n\n", 2, tokens, error, sizeof error); // a new tale
    generate(model, tokens, 2, SAMPLE, 0.3, 0, seed);
    printf("\n-- %s\n", title);
    int column = 0, shown = SAMPLE;
    while (shown > SAMPLE / 2 && tokens[1 + shown] != tokens[1] && tokens[1 + shown] >= 4) shown--; // end at a sign, if near
    for (int i = 2; i < 2 + shown; i++) {
        int n = vocabulary_decode(&text->vocabulary, tokens[i], character);
        if (character[0] == ' ' && column > 70) { character[0] = '\n'; }
        column = character[0] == '\n' ? 0 : column + 1;
        fwrite(character, 1, (size_t)n, stdout);
    }
    printf("\n");
}

// --------------------------------------------------------------------------------------------------------------- experiments

// Drops what flows through a frozen weight: the misreading "the derivative of a constant is 0". `head` cuts at lm_head as well.
static bool cut_linear(const Node *n, int input) { return input == 0 && n->op == OP_LINEAR && !n->in[1]->requires_grad; }
static bool cut_linear_and_head(const Node *n, int input)
{
    return cut_linear(n, input) || (input == 0 && n->op == OP_LM_HEAD && !n->in[1]->requires_grad);
}

// How many of the blocks' fresh adapters at layer `kind` get a gradient dB that is not exactly zero.
static void count_reached(Transformer *model, const int *ids, bool (*cut)(const Node *, int), int reached[LINEARS])
{
    Tape *tape = tape_new();
    tape->cut = cut;
    backward(tape, transformer_loss(model, tape, ids, ids + 1, BATCH, CONTEXT));
    for (int k = 0; k < LINEARS; k++) {
        reached[k] = 0;
        for (int i = 0; i < model->config.n_layer; i++) {
            const Tensor *B = model->blocks[i].linear[k].lora->B;
            reached[k] += norm_of(B->grad, B->size) > 0;
        }
    }
    tape_free(tape);
    zero_grads(model);
}

// A plain chain of four frozen linear layers with fresh adapters: how many get a gradient; the frozen weight's own, and what flows
// through it to the chain's input.
typedef struct ChainResult { int reached; bool weight_grad; double through; } ChainResult;

static ChainResult chain(bool (*cut)(const Node *, int))
{
    enum { LAYERS = 4, WIDTH = 16 };
    ChainResult result = { 0 };
    Linear layer[LAYERS] = { 0 };
    Lora lora[LAYERS];
    Tensor *input = tensor_new("input", MEMORY_WEIGHTS, SHAPE(8, WIDTH)), *x = input;
    fill_normal(input, 1, 1);
    input->requires_grad = true;
    Tape *tape = tape_new();
    tape->cut = cut;
    for (int i = 0; i < LAYERS; i++) {
        layer[i].weight = tensor_new("W", MEMORY_WEIGHTS, SHAPE(WIDTH, WIDTH));
        layer[i].bias = tensor_new("b", MEMORY_WEIGHTS, SHAPE(WIDTH));
        fill_normal(layer[i].weight, 0.3, (uint64_t)(2 + i));
        lora[i] = lora_new("lora", WIDTH, WIDTH, 2, 1, (uint64_t)(10 + i));
        layer[i].lora = &lora[i];
        x = linear_apply(tape, &layer[i], x);
    }
    backward(tape, op_mean(tape, op_mul(tape, x, x)));
    result.through = norm_of(input->grad, input->size);
    for (int i = 0; i < LAYERS; i++) {
        result.reached += norm_of(lora[i].B->grad, lora[i].B->size) > 0;
        result.weight_grad |= layer[i].weight->grad != NULL;
    }
    tape_free(tape);
    for (int i = 0; i < LAYERS; i++) {
        tensor_drop(layer[i].weight);
        tensor_drop(layer[i].bias);
        lora_free(&lora[i]);
    }
    tensor_drop(input);
    return result;
}

// The gradients of the adapter in use, all in one array, with the base's own weight gradients computed or not.
static real *adapter_gradients(Transformer *model, const int *ids, bool base_too, long *count)
{
    transformer_train_base(model, base_too);
    Tape *tape = tape_new();
    backward(tape, transformer_loss(model, tape, ids, ids + 1, BATCH, CONTEXT));
    *count = adapter_size(model->active, &model->config);
    real *all = allocate((size_t)*count, sizeof *all, "the gradients"), *next = all;
    for (int i = model->base_count; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        if (!t->requires_grad) continue;
        memcpy(next, t->grad, (size_t)t->size * sizeof *all);
        next += t->size;
    }
    tape_free(tape);
    zero_grads(model);
    transformer_train_base(model, false);
    return all;
}

static double largest_difference(const Tensor *a, const Tensor *b)
{
    double largest = 0;
    for (long i = 0; i < a->size; i++) {
        double d = fabs((double)a->data[i] - (double)b->data[i]);
        if (d > largest) largest = d;
    }
    return largest;
}

// Prints a claim with its verdict, if what the verdict rests on was found in this run.
static bool all_confirmed = true;
static void claim(int number, const char *words, const char *verdict, bool found)
{
    all_confirmed &= found;
    printf("\n%2d. %-64s%s%s%s\n", number, words, colour(found ? ICE : WARM), found ? verdict : "NOT FOUND", colour(NORMAL));
    if (claims == NULL) return;
    fprintf(claims, "%s{\"words\":", number > 1 ? "\"},\n" : "");
    json_put_text(claims, words);
    fprintf(claims, ",\"verdict\":\"%s\",\"found\":%s,\"text\":\"", found ? verdict : "not found", found ? "true" : "false");
}

// Prints what was measured for the claim before; the page gets the same words.
#if defined __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
static void say(const char *format, ...)
{
    char words[1024], escaped[2048];
    va_list values;
    va_start(values, format);
    vsnprintf(words, sizeof words, format, values);
    va_end(values);
    fputs(words, stdout);
    if (claims == NULL) return;
    size_t n = json_escape(escaped, sizeof escaped, words, strlen(words));
    fwrite(escaped + 1, 1, n - 2, claims);
}

static void print_claims(Transformer *model, Adapter *pirate, Adapter *robot, const Text *text, uint64_t hash)
{
    heading("Ten things people say about LoRA, measured in this run");
    char error[256];
    const int *ids = text->tokens;
    const Run *full = &runs[FULL], *lora = &runs[C_ATTN_ONLY];
    double real_size = sizeof(real), base_bytes = (double)transformer_base_size(model) * real_size;
    int C = model->config.n_embd, L = model->config.n_layer;

    double delta = 3.0 * C * C * L * real_size, adapter = (double)lora->trainable * real_size;
    claim(1, "base + two small matrices is less than base + equal matrices", "true", adapter < delta);
    say("    Base %s, adapter on c_attn %s; a full-size change of the same\n"
        "    matrices would be %s, %.0f times the adapter.\n",
        bytes_text(base_bytes), bytes_text(adapter), bytes_text(delta), delta / adapter);

    transformer_use_adapter(model, pirate);
    Tensor *apart = transformer_logits(model, NULL, ids, 1, CONTEXT);
    long weights_before = ledger.live[MEMORY_WEIGHTS];
    transformer_merge(model);
    long with_copy = ledger.live[MEMORY_WEIGHTS] - weights_before;
    Tensor *merged = transformer_logits(model, NULL, ids, 1, CONTEXT);
    transformer_unmerge(model);
    bool restored = transformer_hash(model) == hash;
    claim(2, "it is larger than the base alone; one could simply add", "half true",
          with_copy > 0 && restored && ledger.live[MEMORY_WEIGHTS] == weights_before &&
              largest_difference(apart, merged) < 1e-3);
    say("    Unmerged: larger. Merged: W + s A B is the size of W, +0 bytes (%s more\n"
        "    while the originals are kept for unmerging). Largest difference of a\n"
        "    logit: %.1e of %.1f. Unmerging gave back the base's bytes: %s.\n",
        bytes_text((double)with_copy), largest_difference(apart, merged),
            norm_of(apart->data, apart->size) / sqrt((double)apart->size), restored ? "yes" : "NO");
    tensor_drop(apart);
    tensor_drop(merged);

    double flops[RUNS] = { 0 }, wgrad_flops = (double)each(full, counts_phase(&full->counts, PHASE_WGRAD).flops);
    for (int r = 0; r < RUNS; r++)
        for (int p = 0; p < PHASES; p++) flops[r] += (double)each(&runs[r], counts_phase(&runs[r].counts, (Phase)p).flops);
    claim(3, "LoRA is cheaper: it computes gradients for the small part only", "half true",
          full->counts.wgrad > 0 && lora->counts.wgrad == 0 && flops[C_ATTN_ONLY] > 0.5 * flops[FULL] &&
              flops[C_ATTN_ONLY] < 0.9 * flops[FULL]);
    say("    Weight gradients of the base: %ld -> %ld. But %ld of %ld input gradients\n"
        "    stay, so the work falls by %.0f %%, not by nearly all.\n",
        each(full, full->counts.wgrad), each(lora, lora->counts.wgrad), each(lora, lora->counts.dgrad),
            each(full, full->counts.dgrad),
        100 * (1 - flops[C_ATTN_ONLY] / flops[FULL]));

    int all[LINEARS], blocks[LINEARS], none[LINEARS];
    Adapter *fresh = transformer_add_adapter(model, "fresh", on_all, seed, error, sizeof error);
    count_reached(model, ids, NULL, all);
    count_reached(model, ids, cut_linear, blocks);
    count_reached(model, ids, cut_linear_and_head, none);
    transformer_remove_adapter(model, fresh);
    ChainResult flowing = chain(NULL), broken = chain(cut_linear);
    bool as_expected = flowing.reached == 4 && broken.reached == 1 &&
        each(lora, lora->counts.dgrad) == each(full, full->counts.dgrad) - 1;
    for (int k = 0; k < LINEARS; k++) {
        bool residual = k == ATTN_C_PROJ || k == MLP_C_PROJ; // adds to the residual stream, which passes the frozen weights by
        as_expected &= all[k] == L && blocks[k] == (residual ? L : 0) && none[k] == 0;
    }
    claim(4, "gradients must flow through the network regardless", "true", as_expected);
    say("    %ld of 16 linear layers and the head pass one on; below the lowest adapter\n"
        "    nothing does. Cut the flow at frozen weights, and of four adapters in a\n"
        "    plain chain %d get a gradient (%d without the cut). In the transformer, of\n",
        each(lora, lora->counts.dgrad) - 1, broken.reached, flowing.reached);
    say("    4 each:                c_attn  attn.c_proj  c_fc  mlp.c_proj\n");
    say("      no cut               %4d    %7d     %5d  %6d\n", all[0], all[1], all[2], all[3]);
    say("      cut in the blocks    %4d    %7d     %5d  %6d  (residual stream)\n", blocks[0], blocks[1], blocks[2],
        blocks[3]);
    say("      and at the head      %4d    %7d     %5d  %6d\n", none[0], none[1], none[2], none[3]);

    transformer_use_adapter(model, pirate);
    long count;
    real *without = adapter_gradients(model, ids, false, &count), *with = adapter_gradients(model, ids, true, &count);
    bool same = memcmp(without, with, (size_t)count * sizeof *with) == 0;
    free(without);
    free(with);
    claim(5, "gradients of the frozen weights are still needed", "half true", same);
    say("    Gradients THROUGH them are, gradients OF them are not: computing those too\n"
        "    changes %s of the %s adapter gradients.\n", same ? "not one bit" : "SOME", thousands(count));

    claim(6, "the base is constant, its derivative 0, so it is trivial", "false", !flowing.weight_grad && flowing.through > 0);
    say("    dLoss/dW of a frozen W is skipped (%s). dLoss/dx =\n"
        "    dLoss/dy W^T is not 0: through the chain's four frozen layers came %.3g.\n",
        flowing.weight_grad ? "COMPUTED" : "grad: not computed", flowing.through);

    double whole_ms = full->phase_ms[PHASE_FORWARD] + full->phase_ms[PHASE_DGRAD] + full->phase_ms[PHASE_WGRAD] + full->optimizer_ms;
    claim(7, "gradients are cheap; keeping them is what costs", "half true",
          wgrad_flops > 0.2 * flops[FULL] &&
              lora->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS] < full->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS] / 10);
    say("    Parameter gradients at their peak: %s -> %s. But computing the\n"
        "    base's was %.0f %% of the multiplications and %.0f %% of the time of a full step.\n",
        bytes_text((double)full->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS]),
            bytes_text((double)lora->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS]),
        100 * wgrad_flops / flops[FULL], 100 * full->phase_ms[PHASE_WGRAD] / whole_ms);

    claim(8, "optimizer state shrinks with the number of trained parameters", "true",
          full->ledger.own_peak[MEMORY_MOMENTS] * lora->trainable == lora->ledger.own_peak[MEMORY_MOMENTS] * full->trainable);
    say("    Moments: %s (%.1f times the weights) -> %s.\n", bytes_text((double)full->ledger.own_peak[MEMORY_MOMENTS]),
        (double)full->ledger.own_peak[MEMORY_MOMENTS] / base_bytes,
            bytes_text((double)lora->ledger.own_peak[MEMORY_MOMENTS]));

    enum { SWITCHES = 1000 };
    double start = seconds_now();
    for (int i = 0; i < SWITCHES; i++) transformer_use_adapter(model, i % 2 ? pirate : robot);
    double switching = (seconds_now() - start) / SWITCHES;
    claim(9, "keep one gold copy, and small adapters for each task", "true", transformer_hash(model) == hash);
    say("    Here: one base of %s, %s more for each adapter on all four layers\n"
        "    (%.0f %%), %.1f microseconds to switch; the base's bytes now: %s.\n",
        bytes_text(base_bytes), bytes_text((double)adapter_size(pirate, &model->config) * real_size),
        100 * (double)adapter_size(pirate, &model->config) * real_size / base_bytes, 1e6 * switching,
            transformer_hash(model) == hash ? "unchanged" : "CHANGED");

    double here = (double)full->ledger.peak / (double)lora->ledger.peak;
    Config gpt3 = { 50257, 2048, 96, 96, 12288, 0 };
    double P = base_parameters(50257, 2048, 96, 12288), p = (double)lora_parameters(&gpt3, &on_c_attn);
    double N = base_bytes / real_size, small = 16 * N / (4 * N + 16 * (double)lora->trainable),
        there = 16 * P / (4 * P + 16 * p);
    claim(10, "it matters most for models of 7B, 65B, 175B parameters", "true", there > small);
    say("    Weights, gradients and moments: %.2f times less here, %.2f times at 175B.\n"
        "    But the peak here falls only %.1f times, for a small model's step is\n"
        "    mostly activations; the table below has the large ones.\n", small, there, here);
}

// ------------------------------------------------------------------------------------------------------------ larger shapes

typedef struct Shape { const char *name; int V, T, L, H, C, llama_inner; } Shape; // llama_inner 0: GPT-2's architecture
static const Shape shapes[] = {
    { "gpt2-124m", 50257, 1024, 12, 12, 768, 0 },
    { "gpt-7b", 50257, 2048, 32, 32, 4096, 0 },
    { "gpt-65b", 50257, 2048, 80, 64, 8192, 0 },
    { "gpt3-175b", 50257, 2048, 96, 96, 12288, 0 },
    { "llama-7b", 32000, 2048, 32, 32, 4096, 11008 },
    { "llama-65b", 32000, 2048, 80, 64, 8192, 22016 },
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

// Numbers in the model, and in an adapter of rank r on the attention's input projections (c_attn; in a llama q, k and v).
static double shape_parameters(const Shape *s)
{
    double V = s->V, L = s->L, C = s->C, F = s->llama_inner;
    if (s->llama_inner == 0) return base_parameters(V, s->T, L, C);
    return 2 * V * C + L * (4 * C * C + 3 * C * F + 2 * C) + C; // untied head, no biases, three matrices in the gated net
}

static double shape_adapter(const Shape *s, int r) { return (double)s->L * r * (s->llama_inner ? 6.0 : 4.0) * s->C; }

// Bytes for each number: of the weights, of what trains for its gradient, and for its two moments.
static const struct { const char *name; double weight, gradient, moments; } formats[] = {
    { "all 32-bit", 4, 4, 8 },
    { "16-bit, moments 32", 2, 2, 8 },
    { "all 16-bit", 2, 2, 4 },
};
enum { FORMATS = sizeof formats / sizeof *formats };

static double states(const Shape *s, int format, int r) // r 0: full
{
    double P = shape_parameters(s), p = r > 0 ? shape_adapter(s, r) : P;
    double all = r > 0 ? P + p : P;
    return all * formats[format].weight + p * (formats[format].gradient + formats[format].moments);
}

static void print_shapes(void)
{
    heading("The same formulas at larger shapes: weights + gradients + moments");
    printf("%-12s%18s", "", "parameters");
    for (int f = 0; f < FORMATS; f++) printf("%*s", f == 1 ? 20 : 14, formats[f].name);
    printf("\n");
    for (int i = 0; i < 4; i++)
        for (int r = 0; r <= 8; r += 8) {
            printf("%-12s%18s", r ? "  LoRA r=8" : shapes[i].name,
                thousands((long)(r ? shape_adapter(&shapes[i], r) : shape_parameters(&shapes[i]))));
            for (int f = 0; f < FORMATS; f++) printf("%*s", f == 1 ? 20 : 14, bytes_text(states(&shapes[i], f, r)));
            printf("\n");
        }
    printf("Published for GPT-3 175B (Hu et al. 2021): training 1.2 TB -> 350 GB, and\n"
        "a task's checkpoint 350 GB -> 35 MB (r = 4 on q and v: by formula %s).\n", bytes_text(2.0 * 96 * 2 * 4 * 2 * 12288));
    printf("\nActivations come on top; one window of full length, kept for backward, 32-bit:\n");
    for (int i = 0; i < 4; i++) {
        const Shape *s = &shapes[i];
        Config config = { s->V, s->T, s->L, s->H, s->C, 0 };
        Prediction full = predict_step(&config, NULL, 1, s->T, false, 1, 4),
            lora = predict_step(&config, &on_c_attn, 1, s->T, false, 1, 4),
                   less = predict_step(&config, &on_c_attn, 1, s->T, true, 1, 4);
        printf("%-10s full %9s   LoRA %9s   LoRA, blocks recomputed %9s\n", s->name,
            bytes_text((double)full.own_peak[MEMORY_KEPT_ACTIVATIONS]),
               bytes_text((double)lora.own_peak[MEMORY_KEPT_ACTIVATIONS]),
                   bytes_text((double)less.own_peak[MEMORY_KEPT_ACTIVATIONS]));
    }
    printf("`./demo --shape NAME` has one of these in detail:\n");
    for (int i = 0; i < SHAPES; i++) printf("%s%s", shapes[i].name, i + 1 < SHAPES ? ", " : ".\n");
}

static int print_one_shape(const char *name)
{
    const Shape *s = NULL;
    for (int i = 0; i < SHAPES; i++)
        if (strcmp(name, shapes[i].name) == 0) s = &shapes[i];
    if (s == NULL) {
        fprintf(stderr, "demo: --shape %s: no such shape; there are:", name);
        for (int i = 0; i < SHAPES; i++) fprintf(stderr, " %s", shapes[i].name);
        fputc('\n', stderr);
        return EXIT_USAGE;
    }
    printf("%s: %s parameters\n  %d layers, %d heads, width %d, context %d, vocabulary %d\n", s->name,
        count_text(shape_parameters(s)), s->L, s->H, s->C, s->T, s->V);
    printf("\n%-19s%13s%20s%18s%9s\n", formats[0].name, "full", "LoRA r=8 attention", "adapter alone", "ratio");
    for (int f = 0; f < FORMATS; f++) {
        if (f > 0) printf("\n%s\n", formats[f].name);
        double P = shape_parameters(s), p = shape_adapter(s, 8);
        double full[] = { P * formats[f].weight, P * formats[f].gradient, P * formats[f].moments };
        double lora[] = { (P + p) * formats[f].weight, p * formats[f].gradient, p * formats[f].moments };
        const char *const rows[] = { "  weights", "  gradients", "  moments" };
        for (int i = 0; i < 3; i++)
            printf("%-19s%13s%20s%18s%8.1fx\n", rows[i], bytes_text(full[i]), bytes_text(lora[i]), i == 0
                ? bytes_text(p * formats[f].weight) : "", full[i] / lora[i]);
        printf("%-19s%13s%20s%18s%8.1fx\n", "  in all", bytes_text(states(s, f, 0)), bytes_text(states(s, f, 8)), "",
            states(s, f, 0) / states(s, f, 8));
    }
    if (s->llama_inner != 0) {
        printf("\nActivations depend on the architecture; the engine knows GPT-2's alone.\n");
        return output_status();
    }
    Config config = { s->V, s->T, s->L, s->H, s->C, 0 };
    printf("\nOne step on one window of %d tokens, 32-bit, at the peak:\n%-24s%16s%16s%16s\n", s->T, "", "full", "LoRA",
        "LoRA, recompute");
    Prediction p[] = { predict_step(&config, NULL, 1, s->T, false, 1, 4),
        predict_step(&config, &on_c_attn, 1, s->T, false, 1, 4), predict_step(&config, &on_c_attn, 1, s->T, true, 1, 4) };
    for (int k = 0; k < MEMORY_KINDS; k++)
        printf("%-24s%16s%16s%16s\n", memory_kind_names[k], bytes_text((double)p[0].at_peak[k]),
            bytes_text((double)p[1].at_peak[k]), bytes_text((double)p[2].at_peak[k]));
    printf("%-24s%16s%16s%16s\n", "in all", bytes_text((double)p[0].peak), bytes_text((double)p[1].peak),
        bytes_text((double)p[2].peak));
    return output_status();
}

// ------------------------------------------------------------------------------------------------------ memory against time

typedef struct Trade { long peak[2]; double ms[2]; } Trade; // without and with recomputation

// Steps with and without recomputation in turn, from the same weights: peak bytes, and median time of each.
static Trade measure_recompute(Transformer *model, const Text *text, const LoraConfig *lora)
{
    enum { PAIRS = 6 };
    Trade trade;
    double times[2][PAIRS];
    int batch[2 * BATCH * CONTEXT];
    transformer_train_base(model, lora == NULL);
    Adapter *adapter = lora ? add(model, "recompute", lora) : NULL;
    AdamW *optimizer = optimizer_for(model);
    Tape *tape = tape_new();
    for (int i = 0; i < 2 * PAIRS; i++) {
        int with = i % 2;
        model->recompute = with;
        tape_clear(tape);
        memory_reset_peaks();
        text_batch(text, BATCH, CONTEXT, seed, i, batch, batch + BATCH * CONTEXT);
        times[with][i / 2] = 1e3 * training_step(model, tape, optimizer, batch, batch + BATCH * CONTEXT, BATCH, CONTEXT, seed,
            i, 0).seconds;
        trade.peak[with] = ledger.peak;
    }
    model->recompute = false;
    for (int with = 0; with < 2; with++) trade.ms[with] = median(times[with], PAIRS);
    tape_free(tape);
    adamw_free(optimizer);
    if (adapter != NULL) transformer_remove_adapter(model, adapter);
    return trade;
}

static void print_recompute(const Trade trades[2])
{
    heading("Trading time for bytes: run each block again in backward");
    printf("%-20s%15s%15s%15s%15s\n", "", "peak bytes", "recomputed", "ms a step", "recomputed");
    for (int r = 0; r < 2; r++)
        printf("%-20s%15s%15s%15.2f%15.2f\n", runs[r].heading, thousands(trades[r].peak[0]), thousands(trades[r].peak[1]),
            trades[r].ms[0], trades[r].ms[1]);
}

// -------------------------------------------------------------------------------------------------------------------- files

static FILE *open_out(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "out/demo/%s", name);
    FILE *file = fopen(path, "w");
    if (file == NULL) die(EXIT_FAILED, "%s: cannot be written: %s; run the demo in a directory of your own", path,
        strerror(errno));
    return file;
}

static void close_out(FILE *file, const char *name)
{
    bool written = !ferror(file);
    if (fclose(file) != 0 || !written) die(EXIT_FAILED, "out/demo/%s: not all could be written; is the disk full?", name);
}

// One step's live bytes, op by op, for full, LoRA, and LoRA with recomputation.
static void write_timelines(Transformer *model, const Text *text)
{
    static const char *const names[] = { "timeline_full.csv", "timeline_lora.csv", "timeline_lora_recompute.csv" };
    int batch[2 * BATCH * CONTEXT];
    text_batch(text, BATCH, CONTEXT, seed, 0, batch, batch + BATCH * CONTEXT);
    while (model->adapters != NULL) transformer_remove_adapter(model, model->adapters); // they would stand in the ledger
    for (int i = 0; i < 3; i++) {
        if (i == 1) add(model, "timeline", &on_c_attn);
        transformer_train_base(model, i == 0);
        model->recompute = i == 2;
        AdamW *optimizer = optimizer_for(model);
        Tape *tape = tape_new();
        for (int step = 0; step < 2; step++) { // the moments exist from the second on
            FILE *file = step == 1 ? open_out(names[i]) : NULL;
            tape_clear(tape);
            memory_timeline(file);
            backward(tape, transformer_loss(model, tape, batch, batch + BATCH * CONTEXT, BATCH, CONTEXT));
            adamw_step(optimizer, 0);
            zero_grads(model);
            memory_timeline(NULL);
            if (file != NULL) close_out(file, names[i]);
        }
        tape_free(tape);
        adamw_free(optimizer);
    }
    model->recompute = false;
    transformer_train_base(model, false);
}

static void bar(const char *name, long bytes, long most)
{
    int width = most > 0 ? (int)(44 * bytes / most) : 0;
    printf("  %-24s%9s ", name, bytes_text((double)bytes));
    for (int i = 0; i < width; i++) putchar('#');
    putchar('\n');
}

static void draw(void)
{
    FILE *script = open_out("plot.gp");
    fprintf(script,
            "set terminal svg size 1000,420 background rgb 'white' noenhanced\nset datafile separator ','\n"
                "set key outside right\n"
            "set output 'out/demo/bytes.svg'\nset style data histograms\nset style histogram rowstacked\n"
                "set style fill solid 0.8\nset boxwidth 0.6\n"
            "set ylabel 'MB at the peak of a step'\nset yrange [0:*]\n"
            "plot for [i=9:2:-1] 'out/demo/bytes.csv' using (column(11-i)/1e6):xtic(1) lc (11-i) title columnheader(11-i)\n"
            "set output 'out/demo/timeline.svg'\nset multiplot layout 1,3\nset yrange [0:%.0f]\n"
                "set xlabel 'events of one step'\nset ylabel 'live MB'\nset xtics 100\n"
            "do for [f in 'full lora lora_recompute'] {\n  set title f\n"
                "  if (f eq 'full') { set key inside top right samplen 1 } else { unset key }\n"
            "  plot for [i=10:3:-1] 'out/demo/timeline_'.f.'.csv' using 0:(sum [c=3:i] column(c)/1e6) with filledcurves x1 lc (i-1) title columnheader(i)\n}\nunset multiplot\n"
            "set output 'out/demo/loss.svg'\nunset title\nset key outside right\nset yrange [0:*]\nset xlabel 'step'\n"
                "set ylabel 'training loss, nats a character'\n"
            "plot for [w in 'pretraining full c_attn all'] 'out/demo/loss.csv' using 2:(stringcolumn(1) eq w ? $3 : NaN) smooth bezier lw 2 title w\n",
            1.9e-6 * (double)runs[FULL].ledger.peak);
    close_out(script, "plot.gp");
    FILE *csv = open_out("bytes.csv");
    fprintf(csv, "run");
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(csv, ",%s", memory_kind_names[k]);
    for (int r = 0; r < RUNS; r++) {
        fprintf(csv, "\n%s", runs[r].heading);
        for (int k = 0; k < MEMORY_KINDS; k++) fprintf(csv, ",%ld", runs[r].ledger.at_peak[k]);
    }
    fprintf(csv, "\n");
    close_out(csv, "bytes.csv");
    if (system("command -v gnuplot > /dev/null 2>&1") == 0 && system("gnuplot out/demo/plot.gp") == 0) {
        printf("\nPlots: bytes.svg, timeline.svg, loss.svg in out/demo/, beside their CSV files.\n");
        return;
    }
    printf("\nAt the peak of a step (install gnuplot for plots in out/demo/):\n");
    for (int r = 0; r < RUNS; r++) {
        printf("%s\n", runs[r].heading);
        for (int k = 0; k < MEMORY_KINDS; k++)
            if (runs[r].ledger.at_peak[k] > 0) bar(memory_kind_names[k], runs[r].ledger.at_peak[k], runs[FULL].ledger.peak);
    }
}

static void write_metrics(double base_task, double base_tales, const Text *pirate, const Text *tales, uint64_t hash)
{
    FILE *f = open_out("metrics.json");
    fprintf(f, "{\n  \"base_hash\": \"%016llx\",\n  \"floor\": {\"pirate\": %.6f, \"tales\": %.6f},\n"
        "  \"base\": {\"val_pirate\": %.6f, \"val_tales\": %.6f}",
            (unsigned long long)hash, pirate->val_floor, tales->val_floor, base_task, base_tales);
    for (int r = 0; r < RUNS; r++) {
        const Run *run = &runs[r];
        fprintf(f, ",\n  \"%s\": {\n    \"val_pirate\": %.6f, \"val_tales\": %.6f, \"trainable_parameters\": %ld, \"step_ms_median\": %.3f,\n", run->name, run->val_task, run->val_tales, run->trainable, run->step_ms);
        fprintf(f, "    \"dgrad\": %ld, \"wgrad\": %ld, \"wgrad_skipped\": %ld, \"wgrad_never_recorded\": %ld, \"adapter_gradients\": %ld,\n    \"flops\": {", each(run, run->counts.dgrad),
                each(run, run->counts.wgrad), each(run, run->counts.wgrad_skipped),
                    each(run, run->counts.wgrad_never_recorded), each(run, run->counts.adapter_gradients));
        for (int p = 0; p < PHASES; p++)
            fprintf(f, "%s\"%s\": %ld", p ? ", " : "", phase_names[p], each(run, counts_phase(&run->counts, (Phase)p).flops));
        fprintf(f, "},\n    \"peak_bytes\": {\"total\": %ld, \"predicted\": %ld, \"resident\": %ld", run->ledger.peak,
            run->predicted.peak, run->resident);
        for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, ", \"%s\": %ld", memory_kind_names[k], run->ledger.at_peak[k]);
        fprintf(f, "}\n  }");
    }
    fprintf(f, "\n}\n");
    close_out(f, "metrics.json");
}

// ----------------------------------------------------------------------------------------------------- one web page of it all

static void begin_report(const char *path)
{
    char error[512];
    report = report_begin(path, error, sizeof error);
    if (report == NULL) die(EXIT_FAILED, "--html %s", error);
    samples = open_memstream(&samples_text, &samples_size);
    claims = open_memstream(&claims_text, &claims_size);
    if (samples == NULL || claims == NULL) die(EXIT_FAILED, "out of memory");
}

// Rank against scale: adapters on c_attn, all with one learning rate, after few steps on small batches.
static void put_grid(Transformer *model, const Text *text)
{
    enum { GRID_STEPS = 60, GRID_BATCH = 4 };
    static const int ranks[] = { 1, 2, 4, 8, 16 };
    static const double scales[] = { 0.25, 1, 2, 4, 16 }, rate = 1e-2;
    int batch[2 * GRID_BATCH * CONTEXT];
    FILE *f = report_member(report, "grid");
    fprintf(f, "{\"steps\":%d,\"batch\":%d,\"learning_rate\":%g,\"cells\":[", GRID_STEPS, GRID_BATCH, rate);
    for (int i = 0; i < 25; i++) {
        LoraConfig lora = on_c_attn;
        lora.r = ranks[i / 5];
        lora.alpha = lora.r * scales[i % 5];
        Adapter *adapter = add(model, "grid", &lora);
        AdamW *optimizer = optimizer_for(model);
        Tape *tape = tape_new();
        Schedule schedule = { rate, rate / 10, GRID_STEPS / 10, GRID_STEPS };
        for (long step = 0; step < GRID_STEPS; step++) {
            text_batch(text, GRID_BATCH, CONTEXT, seed, step, batch, batch + GRID_BATCH * CONTEXT);
            training_step(model, tape, optimizer, batch, batch + GRID_BATCH * CONTEXT, GRID_BATCH, CONTEXT, seed, step,
                schedule_rate(&schedule, step));
        }
        double loss = estimate_validation(model, text, GRID_BATCH);
        fprintf(f, "%s{\"r\":%d,\"scale\":%g,\"loss\":", i ? "," : "", lora.r, scales[i % 5]);
        if (isfinite(loss)) json_put_number(f, loss);
        else fputs("null", f);
        fputc('}', f);
        tape_free(tape);
        adamw_free(optimizer);
        transformer_remove_adapter(model, adapter);
    }
    fputs("]}", f);
}

static void put_list(FILE *f, const char *name, const double *values, int count)
{
    fprintf(f, ",\"%s\":", name);
    for (int i = 0; i < count; i++) fprintf(f, "%s%.15g", i ? "," : "[", values[i]);
    fputc(']', f);
}

static void put_shapes(void)
{
    FILE *f = report_member(report, "shapes");
    for (int i = 0; i < SHAPES; i++) {
        const Shape *s = &shapes[i];
        double full[FORMATS], lora[FORMATS];
        for (int k = 0; k < FORMATS; k++) full[k] = states(s, k, 0), lora[k] = states(s, k, 8);
        fprintf(f, "%s{\"name\":\"%s\",\"V\":%d,\"T\":%d,\"L\":%d,\"H\":%d,\"C\":%d,\"gpt\":%s", i ? ",\n" : "[",
                s->name, s->V, s->T, s->L, s->H, s->C, s->llama_inner ? "false" : "true");
        fprintf(f, ",\"parameters\":%.0f,\"adapter\":%.0f", shape_parameters(s), shape_adapter(s, 8));
        put_list(f, "full", full, FORMATS);
        put_list(f, "lora", lora, FORMATS);
        fputc('}', f);
    }
    fputc(']', f);
    f = report_member(report, "formats");
    for (int k = 0; k < FORMATS; k++) fprintf(f, "%s\"%s\"", k ? "," : "[", formats[k].name);
    fputc(']', f);
}

static void put_setup(const Config *c, const Text *text)
{
    FILE *f = report_member(report, "setup");
    fprintf(f, "{\"config\":{\"vocab_size\":%d,\"block_size\":%d,\"n_layer\":%d,\"n_head\":%d,\"n_embd\":%d},\"B\":%d,\"T\":%d",
            c->vocab_size, c->block_size, c->n_layer, c->n_head, c->n_embd, BATCH, CONTEXT);
    fprintf(f, ",\"threads\":%d,\"real_bytes\":%d,\"base_steps\":%d,\"tune_steps\":%d,\"train_floor\":%.6f,\"kinds\":[",
            parallel_threads(), (int)sizeof(real), BASE_STEPS, TUNE_STEPS, text->train_floor);
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s\"%s\"", k ? "," : "", memory_kind_names[k]);
    fputs("]}", f);
}

static void put_runs(const Trade trades[2])
{
    FILE *f = report_member(report, "runs");
    for (int r = 0; r < RUNS; r++) {
        const Run *run = &runs[r];
        double ms[] = { run->phase_ms[PHASE_FORWARD], run->phase_ms[PHASE_DGRAD], run->phase_ms[PHASE_WGRAD], run->optimizer_ms };
        double predicted[MEMORY_KINDS];
        for (int k = 0; k < MEMORY_KINDS; k++) predicted[k] = (double)run->predicted.at_peak[k];
        fprintf(f, "%s{\"name\":\"%s\",\"heading\":\"%s\",\"learning_rate\":%g,\"r\":%d,\"targets\":%u", r ? ",\n" : "[", run->name, run->heading,
                run->learning_rate, run->lora ? run->lora->r : 0, run->lora ? run->lora->targets : 0);
        put_list(f, "ms", ms, 4);
        put_list(f, "predicted", predicted, MEMORY_KINDS);
        fputc('}', f);
    }
    fputc(']', f);
    f = report_member(report, "recompute"); // of full and of LoRA on c_attn, each without and with
    for (int r = 0; r < 2; r++)
        fprintf(f, "%s{\"peak\":[%ld,%ld],\"ms\":[%.3f,%.3f]}", r ? "," : "[", trades[r].peak[0], trades[r].peak[1], trades[r].ms[0],
                trades[r].ms[1]);
    fputc(']', f);
}

static void write_report(const char *path, Transformer *model, const Text *text, const Trade trades[2])
{
    static const char *const files[][2] = { { "metrics", "metrics.json" }, { "loss", "loss.csv" },
        { "timeline_full", "timeline_full.csv" }, { "timeline_lora", "timeline_lora.csv" },
        { "timeline_recompute", "timeline_lora_recompute.csv" } };
    char error[512], name[64];
    printf("\nFor the page: rank against scale, 25 short runs ...\n");
    fflush(stdout);
    put_setup(&model->config, text);
    put_runs(trades);
    fclose(samples);
    fprintf(report_member(report, "samples"), "[%s]", samples_text);
    free(samples_text);
    fclose(claims);
    fprintf(report_member(report, "claims"), "[%s\"}]", claims_text);
    free(claims_text);
    put_shapes();
    report_ops(report, "ops_lora", model, BATCH, CONTEXT); // the adapter of the timelines is still in use
    transformer_use_adapter(model, NULL);
    report_ops(report, "ops_full", model, BATCH, CONTEXT);
    put_grid(model, text);
    report_tape(report);
    report_checks(report, 120, seed);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(name, sizeof name, "out/demo/%s", files[i][1]);
        if (!report_file(report, files[i][0], name, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    }
    if (!report_end(report, error, sizeof error)) die(EXIT_FAILED, "--html %s", error);
    printf("The page is %s: open it in a browser.\n", path);
}

// --------------------------------------------------------------------------------------------------------------------- main

static void help(void)
{
    printf("demo: full fine-tuning against LoRA on a small model, every number measured\n\n"
           "  ./demo                  the whole comparison, under a minute on two cores\n"
           "  ./demo --shape NAME     the formulas alone, for a large shape:\n                          ");
    for (int i = 0; i < SHAPES; i++)
        printf("%s%s", shapes[i].name, i + 1 == SHAPES ? "\n" : i == 3 ? ",\n                          " : ", ");
    printf("  --html FILE             the comparison, and then one web page of it: each op,\n"
           "                          byte and claim\n"
           "  --trace                 one step of LoRA's backward pass, node by node, alone\n"
           "  --threads N             threads (default: one for each core, %d here)\n"
           "  --help                  this\n\n"
           "Files go to out/demo/: metrics.json, loss.csv, bytes.csv, timeline_*.csv, and\n"
           "plots if gnuplot is installed.\n"
           "Example: ./demo --shape gpt3-175b\n", parallel_threads());
}

static Text read_builtin(const char *name, long characters)
{
    Text text;
    char error[256];
    if (!text_read(name, characters, NULL, CONTEXT, &text, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    return text;
}

static Transformer *new_model(int vocab_size)
{
    char error[256];
    Config config = shape;
    config.vocab_size = vocab_size;
    Transformer *model = transformer_new(config, seed, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    return model;
}

static int trace_one_step(void)
{
    Text text = read_builtin("builtin:tales", 4000);
    Transformer *model = new_model(text.vocabulary.size);
    transformer_train_base(model, false);
    add(model, "fresh", &on_c_attn);
    Tape *tape = tape_new();
    tape->trace = stdout;
    printf("One backward pass through a frozen base with fresh adapters (B = 0) on c_attn,\nin the order in which it runs:\n"
        "\n");
    backward(tape, transformer_loss(model, tape, text.tokens, text.tokens + 1, BATCH, CONTEXT));
    printf("\ngradient passed through %ld of 16 frozen linears and the head; %ld weight gradients\n"
        "skipped, %ld never recorded; %ld adapter gradients computed\n", tape->counts.dgrad - 1,
           tape->counts.wgrad_skipped, tape->counts.wgrad_never_recorded, tape->counts.adapter_gradients);
    tape_free(tape);
    transformer_free(model);
    text_free(&text);
    return output_status();
}

int main(int argc, char **argv)
{
    program_name = "demo";
    enum { SHAPE_OPTION = 1, THREADS, TRACE, HTML, HELP, RESIDENT };
    static const struct option options[] = { { "shape", required_argument, NULL, SHAPE_OPTION },
        { "threads", required_argument, NULL, THREADS }, { "html", required_argument, NULL, HTML },
                                             { "trace", no_argument, NULL, TRACE }, { "help", no_argument, NULL, HELP },
                                             { "measure-resident", required_argument, NULL, RESIDENT }, { 0 } };
    const char *html = NULL, *one_shape = NULL;
    bool trace = false;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;)
        switch (option) {
        case SHAPE_OPTION: one_shape = optarg; break;
        case THREADS: parallel_set_threads((int)option_int("threads", optarg, 1, MAX_THREADS)); break;
        case TRACE: trace = true; break;
        case HTML: html = optarg; break;
        case HELP: help(); return output_status();
        case RESIDENT: { // NAME:VOCABULARY, used by the demo itself
            char *colon = strchr(optarg, ':');
            if (colon == NULL) die(EXIT_USAGE, "--measure-resident %s: NAME:VOCABULARY is needed", optarg);
            *colon = '\0';
            return measure_resident(optarg, (int)option_int("measure-resident", colon + 1, 1, 1000000));
        }
        default: option_unknown(argv, optind - 1);
        }
    if (optind < argc) die(EXIT_USAGE, "%s: the demo takes no such argument; --help lists what it takes", argv[optind]);
    if (one_shape != NULL) return print_one_shape(one_shape);
    if (trace) return trace_one_step();
    if ((mkdir("out", 0777) != 0 && errno != EEXIST) || (mkdir("out/demo", 0777) != 0 && errno != EEXIST))
        die(EXIT_FAILED, "out/demo: cannot be made: %s; run the demo in a directory of your own", strerror(errno));

    if (html != NULL) begin_report(html);

    double start = seconds_now();
    Text tales = read_builtin("builtin:tales", 400000), pirate = read_builtin("builtin:pirate", 100000),
        robot = read_builtin("builtin:robot", 100000);
    Transformer *model = new_model(tales.vocabulary.size);
    printf("A transformer of %s numbers (4 blocks, 4 heads, width 128, context 64)\n"
        "reads short tales, %d windows of 64 characters a step, on %d threads. It cannot\n"
        "come below the text's floor: the loss of a reader who knows the grammar.\n\n",
           thousands(transformer_base_size(model)), BATCH, parallel_threads());

    FILE *log = open_out("loss.csv");
    fprintf(log, "run,step,loss,ms\n");
    train(model, &tales, "pretraining", BASE_STEPS, 3e-3, NULL, log);
    double base_task = evaluate_validation(model, &pirate), base_tales = evaluate_validation(model, &tales);
    if (validation_leaks(&tales, base_tales))
        die(EXIT_FAILED, "the loss %.3f is below the floor: the model saw what it should predict; this is a bug", base_tales);
    uint64_t hash = transformer_hash(model);
    real **base = copy_base(model);
    printf("\nThe base's loss on tales it has not seen: %.3f; floor %.3f. Its\n"
        "bytes have the hash %016llx. Now the same base learns to tell them\nas a pirate would, three times.\n\n",
        base_tales, tales.val_floor, (unsigned long long)hash);

    Trade trades[2];
    for (int r = 0; r < 2; r++) trades[r] = measure_recompute(model, &pirate, runs[r].lora); // at learning rate 0
    Adapter *adapter = NULL; // the last one stays: on all four layers
    for (int r = 0; r < RUNS; r++) {
        transformer_train_base(model, runs[r].lora == NULL);
        if (adapter != NULL) transformer_remove_adapter(model, adapter);
        adapter = runs[r].lora ? add(model, runs[r].name, runs[r].lora) : NULL;
        train(model, &pirate, runs[r].name, TUNE_STEPS, runs[r].learning_rate, &runs[r], log);
        runs[r].val_task = evaluate_validation(model, &pirate);
        runs[r].val_tales = evaluate_validation(model, &tales);
        if (runs[r].lora == NULL) restore_base(model, base);
    }
    Adapter *machine = add(model, "robot", &on_all);
    train(model, &robot, "robot", TUNE_STEPS, runs[ALL_FOUR].learning_rate, NULL, log);
    close_out(log, "loss.csv");
    uint64_t hash_after = transformer_hash(model);

    long empty = resident_of(argv[0], "nothing", tales.vocabulary.size);
    for (int r = 0; r < RUNS; r++) runs[r].resident = resident_of(argv[0], runs[r].name, tales.vocabulary.size);
    print_bytes(empty);
    print_work();
    print_recompute(trades);
    print_learning(&tales, &pirate, base_task, base_tales, model);

    heading("One base, several adapters, one process (samples at temperature 0.3)");
    printf("the base's hash before %016llx\n                 after %016llx  %s\n", (unsigned long long)hash,
        (unsigned long long)hash_after, hash == hash_after ? "(unchanged)" : "(CHANGED)");
    transformer_use_adapter(model, NULL);
    print_sample(model, &tales, "the base alone");
    transformer_use_adapter(model, adapter);
    print_sample(model, &pirate, "the same base with the pirate's adapter");
    transformer_use_adapter(model, machine);
    print_sample(model, &robot, "the same base with the robot's adapter");

    print_claims(model, adapter, machine, &pirate, hash);
    print_shapes();
    write_timelines(model, &pirate);
    write_metrics(base_task, base_tales, &pirate, &tales, hash);
    draw();
    if (html != NULL) write_report(html, model, &pirate, trades);
    bool sound = transformer_hash(model) == hash && all_confirmed;
    printf("All this took %.0f s. The numbers are in out/demo/metrics.json.\n", seconds_now() - start);

    for (int i = 0; i < model->base_count; i++) free(base[i]);
    free(base);
    transformer_free(model);
    text_free(&tales);
    text_free(&pirate);
    text_free(&robot);
    if (!sound) die(EXIT_FAILED, "a claim's verdict was not found, or the base's bytes have changed: this is a bug");
    return output_status();
}
