// measure.c - see measure.h: models and texts, then what the tape tells, steps and training, files.

#include "experiments/measure.h"

#include <errno.h>

const LoraConfig on_c_attn = { .r = 8, .alpha = 16, .targets = 1u << C_ATTN, .last_block = -1 };
const LoraConfig on_all = { .r = 8, .alpha = 16, .targets = (1u << LINEARS) - 1, .last_block = -1 };

Text open_text(const char *name, int64_t characters, int context)
{
    char error[512];
    Text text;
    if (!text_read(name, characters, NULL, context, &text, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    return text;
}

Transformer *new_model(Config config, uint64_t seed)
{
    char error[512];
    Transformer *model = transformer_new(config, seed, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    return model;
}

Adapter *add_adapter(Transformer *model, const char *name, const LoraConfig *lora, uint64_t seed)
{
    char error[512];
    Adapter *adapter = transformer_add_adapter(model, name, *lora, seed, error, sizeof error);
    if (adapter == NULL) die(EXIT_FAILED, "%s", error);
    return adapter;
}

AdamW *new_optimizer(const Transformer *model, double weight_decay)
{
    return adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, weight_decay, 1.0 });
}

Adapter *adapt(Transformer *model, const LoraConfig *lora, uint64_t seed)
{
    while (model->adapters != NULL) transformer_remove_adapter(model, model->adapters);
    transformer_hold_base(model, lora == NULL ? BASE_FLOAT : lora->base_type);
    transformer_train_base(model, lora == NULL);
    return lora == NULL ? NULL : add_adapter(model, "adapter", lora, seed);
}

real **copy_base(const Transformer *model)
{
    static const char what[] = "a copy of the base";
    check(model->base_type == BASE_FLOAT, "copy_base: the base is in %s codes", base_type_names[model->base_type]);
    real **copy = allocate((size_t)model->base_count, sizeof *copy, what);
    for (int i = 0; i < model->base_count; i++) {
        size_t count = (size_t)model->parameters[i]->size;
        copy[i] = allocate(count, sizeof(real), what);
        memcpy(copy[i], model->parameters[i]->data, count * sizeof(real));
    }
    return copy;
}

void restore_base(Transformer *model, real **copy)
{
    transformer_hold_base(model, BASE_FLOAT); // room for floats, where there are codes
    for (int i = 0; i < model->base_count; i++) {
        memcpy(model->parameters[i]->data, copy[i], (size_t)model->parameters[i]->size * sizeof(real));
        free(copy[i]);
    }
    free(copy);
}

Batch small_batch(const Text *text)
{
    static int batch[2 * BATCH * CONTEXT];
    int *targets = batch + BATCH * CONTEXT;
    text_batch(text, BATCH, CONTEXT, SEED, 0, batch, targets);
    return (Batch){ batch, targets, BATCH, CONTEXT };
}

// ----------------------------------------------------------------------------------------------------------- what the tape tells

static Meter meter; // of the tape that is measured

void measure_begin(Tape *tape, AdamW *optimizer)
{
    memory_reset_peaks();
    meter_zero(&meter);
    meter_watch(&meter, tape);
    if (optimizer != NULL) optimizer->seconds = 0;
}

static Work each(Work work, int64_t steps)
{
    return (Work){ work.kernels / steps, work.flops / steps, work.seconds / (double)steps };
}

Measured measure_end(const AdamW *optimizer, int64_t steps)
{
    const Meter *c = &meter;
    Measured m = { .dgrad = c->dgrad / steps, .wgrad = c->wgrad / steps, .wgrad_skipped = c->wgrad_skipped / steps,
                   .wgrad_never_recorded = c->wgrad_never_recorded / steps, .adapter_gradients = c->adapter_gradients / steps,
                   .optimizer_seconds = optimizer ? optimizer->seconds / (double)steps : 0, .ledger = ledger };
    for (int p = 0; p < PHASES; p++) m.phase[p] = each(meter_phase(c, (Phase)p), steps);
    for (int i = 0; all_ops[i] != NULL; i++) {
        m.op[i].name = all_ops[i]->name;
        for (int p = 0; p < PHASES; p++) m.op[i].phase[p] = each(meter_op(c, all_ops[i], (Phase)p), steps);
    }
    return m;
}

double all_flops(const Measured *m)
{
    double sum = 0;
    for (int p = 0; p < PHASES; p++) sum += (double)m->phase[p].flops;
    return sum;
}

Work op_work(const Measured *m, const char *op, Phase phase)
{
    int i = 0;
    while (i < MEASURED_OPS && m->op[i].name != NULL && strcmp(m->op[i].name, op) != 0) i++;
    check(i < MEASURED_OPS && m->op[i].name != NULL, "op_work: there is no op %s", op);
    return m->op[i].phase[phase];
}

static double shorter(double a, double b) { return a < b ? a : b; }

void keep_least(Measured *least, const Measured *next)
{
    Measured before = *least;
    *least = *next;
    if (before.seconds == 0) return; // there was none
    least->seconds = shorter(before.seconds, next->seconds);
    least->optimizer_seconds = shorter(before.optimizer_seconds, next->optimizer_seconds);
    for (int p = 0; p < PHASES; p++) least->phase[p].seconds = shorter(before.phase[p].seconds, next->phase[p].seconds);
}

const Tensor *base_matrix(const Node *n) { return n->op->weight ? n->in[n->op->weight] : NULL; }

bool cut_frozen_matrices(const Node *n, int input)
{
    const Tensor *matrix = base_matrix(n);
    return input == 0 && matrix != NULL && !matrix->requires_grad;
}

bool cut_frozen_linears(const Node *n, int input) { return n->op != &lm_head_op && cut_frozen_matrices(n, input); }

void set_cut(Tape *tape, Cut *cut)
{
    meter.cut = cut;
    meter_watch(&meter, tape);
}

void set_trace(Tape *tape, FILE *file)
{
    meter.trace = file;
    meter_watch(&meter, tape);
}

// --------------------------------------------------------------------------------------------------------- steps, and training

Measured measure_steps(Transformer *model, Steps s)
{
    AdamW *optimizer = s.optimizer ? new_optimizer(model, 0) : NULL;
    Tape *tape = tape_new();
    Measured least = { 0 };
    for (int i = 0; i < s.count; i++) {
        tape_clear(tape);
        zero_grads(model);
        measure_begin(tape, optimizer);
        set_cut(tape, s.cut);
        memory_timeline(i == s.count - 1 ? s.timeline : NULL);
        double start = seconds_now();
        backward(tape, transformer_loss(model, tape, s.batch.ids, s.batch.targets, s.batch.B, s.batch.T));
        if (optimizer != NULL) {
            adamw_step(optimizer, 0);
            zero_grads(model);
        }
        Measured step = measure_end(optimizer, 1);
        step.seconds = seconds_now() - start;
        memory_timeline(NULL);
        keep_least(&least, &step);
    }
    tape_free(tape);
    adamw_free(optimizer);
    return least;
}

Measured train(Transformer *model, const Text *text, const Training *t)
{
    int64_t steps = t->schedule.max_iters;
    AdamW *optimizer = new_optimizer(model, t->weight_decay);
    Tape *tape = tape_new();
    int *batch = allocate(2 * (size_t)(t->B * model->config.block_size), sizeof *batch, "a batch");
    int B = t->B, T = model->config.block_size;
    double *seconds = allocate((size_t)steps, sizeof *seconds, "the times of the steps");
    for (int64_t step = 0; step < steps; step++) {
        if (step == 1) { // the moments exist, and every buffer has been asked for once
            tape_clear(tape);
            measure_begin(tape, optimizer);
        }
        text_batch(text, B, T, t->seed, step, batch, batch + B * T);
        StepResult result = training_step(model, tape, optimizer, batch, batch + B * T, B, T, t->seed, step,
                                          schedule_rate(&t->schedule, step));
        seconds[step] = result.seconds;
        if (t->after != NULL) t->after(t->context, step + 1, &result);
    }
    Measured m = measure_end(optimizer, steps > 1 ? steps - 1 : 1);
    m.seconds = steps > 1 ? median(seconds + 1, steps - 1) : seconds[0];
    free(seconds);
    free(batch);
    tape_free(tape);
    adamw_free(optimizer);
    return m;
}

void train_cell(Transformer *model, const Text *text, int rank, double scale)
{
    LoraConfig lora = on_c_attn;
    lora.r = rank;
    lora.alpha = rank * scale;
    adapt(model, &lora, SEED);
    train(model, text, &(Training){ .B = CELL_BATCH, .schedule = usual_schedule(CELL_RATE, CELL_STEPS), .weight_decay = 0.1,
                                    .seed = SEED });
}

real *adapter_gradients(const Transformer *model)
{
    real *all = allocate((size_t)adapter_size(model->active), sizeof *all, "the gradients"), *next = all;
    for (int i = model->base_count; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        if (!t->requires_grad) continue;
        memcpy(next, t->grad, (size_t)t->size * sizeof *all);
        next += t->size;
    }
    return all;
}

double largest_difference(const real *a, const real *b, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

// ------------------------------------------------------------------------------------------------------------------------ files

FILE *open_file(const char *directory, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    if (file == NULL) die(EXIT_FAILED, "%s: cannot be written: %s; run it in a directory of your own", path, strerror(errno));
    return file;
}

void close_file(FILE *file, const char *directory, const char *name)
{
    bool broken = ferror(file) != 0;
    if (fclose(file) != 0 || broken) die(EXIT_FAILED, "%s/%s: not all could be written; is the disk full?", directory, name);
}

void write_step(Transformer *model, Batch batch, const char *directory)
{
    static const struct { const char *file; const LoraConfig *lora; bool recompute; } ways[] = {
        { "timeline_full.csv", NULL, false },
        { "timeline_lora.csv", &on_c_attn, false },
        { "timeline_recompute.csv", &on_c_attn, true },
    };
    Measured m[3];
    for (int i = 0; i < 3; i++) {
        FILE *file = open_file(directory, ways[i].file);
        adapt(model, ways[i].lora, SEED);
        model->recompute = ways[i].recompute;
        m[i] = measure_steps(model, (Steps){ .batch = batch, .count = 2, .optimizer = true, .timeline = file });
        close_file(file, directory, ways[i].file);
    }
    model->recompute = false;
    Prediction p[2];
    for (int i = 0; i < 2; i++)
        p[i] = predict_step(&model->config, ways[i].lora, batch.B, batch.T, false, parallel_threads(), (int)sizeof(real));
    FILE *file = open_file(directory, "bytes.csv");
    fprintf(file, "kind,full_predicted,full_measured,lora_predicted,lora_measured\n");
    for (int k = 0; k < MEMORY_KINDS; k++) {
        fprintf(file, "%s", memory_kind_names[k]);
        for (int i = 0; i < 2; i++)
            fprintf(file, ",%" PRId64 ",%" PRId64, (int64_t)p[i].at_peak[k], (int64_t)m[i].ledger.at_peak[k]);
        fprintf(file, "\n");
    }
    close_file(file, directory, "bytes.csv");
}
