// steps.c - see bench.h: our training, step by step.

#include "bench/bench.h"
#include "io/adapter_file.h"
#include "io/model_file.h"

#include <time.h>

static const double learning_rate = 1e-3;

// Text of random characters: its statistics do not matter for time, and nothing is learned that would change it.
void shape_begin(Shape *shape)
{
    shape->text.count = shape->text.train_count = 100000;
    shape->text.tokens = allocate((size_t)shape->text.count, sizeof *shape->text.tokens, "a text");
    for (int64_t i = 0; i < shape->text.count; i++)
        shape->text.tokens[i] = (int)(random_bits(SEED, (uint64_t)i) % (uint64_t)shape->config.vocab_size);
}

// One step, and all that it took.
static Measured train_once(Trainer *t, double *loss)
{
    measure_begin(t->tape, t->optimizer);
    int B = t->shape->B, T = t->model->config.block_size, *ids = t->batch, *targets = ids + B * T;
    int64_t number = t->step % BATCHES;
    text_batch(&t->shape->text, B, T, SEED, number, ids, targets);
    StepResult result = training_step(t->model, t->tape, t->optimizer, ids, targets, B, T, SEED, number, learning_rate);
    Measured m = measure_end(t->optimizer, 1);
    m.seconds = result.seconds;
    *loss = result.loss;
    t->step++;
    return m;
}

// A model whose weights are large enough that every part of it shows in its loss: with those that training starts from, the
// loss hardly depends on the kind of GELU.
Transformer *bench_model(const Shape *shape, const LoraConfig *lora)
{
    Transformer *model = new_model(shape->config, SEED);
    adapt(model, lora, SEED);
    for (int i = 0; i < model->parameter_count; i++) {
        Tensor *t = model->parameters[i];
        bool matrix = t->ndim == 2 && i < model->base_count; // else a bias, a gain, or of the adapter
        for (int64_t j = 0; j < t->size; j++)
            t->data[j] = matrix ? 6 * t->data[j] : t->data[j] + (real)(0.1 * random_normal(SEED + (uint64_t)i, (uint64_t)j));
    }
    return model;
}

Trainer *trainer_new(const Shape *shape, const LoraConfig *lora, const char *dir)
{
    scratch_release(); // a part of what is measured
    int64_t held = ledger.total;
    char error[512];
    int T = shape->config.block_size;
    Trainer *t = allocate(1, sizeof *t, "a trainer");
    *t = (Trainer){ .shape = shape, .model = bench_model(shape, lora), .tape = tape_new(),
                    .batch = allocate(2 * (size_t)(shape->B * T), sizeof(int), "a batch") };
    bool saved = dir == NULL   ? true
                 : lora == NULL ? model_save(t->model, NULL, dir, error, sizeof error)
                                : adapter_save(t->model, t->model->active, "..", dir, error, sizeof error);
    if (!saved) die(EXIT_FAILED, "%s", error);
    t->optimizer = new_optimizer(t->model, 0.1);
    use_threads(0);
    for (int i = 0; i < CHECKED; i++) t->peak_bytes = train_once(t, &t->loss[i]).ledger.peak - held;
    t->predicted_bytes = predict_step(&shape->config, lora, shape->B, T, false, machine.threads, (int)sizeof(real)).peak;
    return t;
}

void trainer_free(Trainer *t)
{
    if (t == NULL) return;
    tape_free(t->tape);
    adamw_free(t->optimizer);
    transformer_free(t->model);
    free(t->batch);
    free(t);
}

double all_step_flops(const Timing *timing)
{
    const Work *phase = timing->last.phase;
    return (double)(phase[PHASE_FORWARD].flops + phase[PHASE_DGRAD].flops + phase[PHASE_WGRAD].flops);
}

static void keep_times(Timing *timing, const Measured *m)
{
    double rest = m->seconds - m->optimizer_seconds;
    timing->last = *m;
    for (int p = 0; p < PHASES; p++) {
        add(&timing->phase[p], m->phase[p].seconds);
        rest -= m->phase[p].seconds;
        for (int op = 0; op < MEASURED_OPS && m->op[op].name != NULL; op++)
            add(&timing->op[op][p], m->op[op].phase[p].seconds);
    }
    add(&timing->optimizer, m->optimizer_seconds);
    add(&timing->rest, rest);
    add(&timing->step, m->seconds);
}

static double cpu_seconds(void) // of all threads
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

Turn train_turn(Trainer *t, int which, int count)
{
    use_threads(which);
    Turn turn = { .got = 0 };
    Samples peaks = { 0 }, got = { 0 };
    double loss;
    train_once(t, &loss);
    for (int i = 0; i < count; i++) {
        add(&peaks, measure_peak());
        add(&peaks, measure_peak());
        int64_t mallocs = ledger.mallocs;
        double start = seconds_now(), cpu = cpu_seconds();
        Measured m = train_once(t, &loss);
        add(&got, (cpu_seconds() - cpu) / (seconds_now() - start) / parallel_threads());
        t->mallocs += ledger.mallocs - mallocs;
        if (!isfinite(loss)) die(EXIT_FAILED, "a loss is not finite: nothing that follows would mean anything");
        keep_times(&t->timing[which], &m);
        add(&turn.seconds, m.seconds);
    }
    turn.got = middle(&got);
    turn.peak = middle(&peaks);
    turn.of_peak = all_step_flops(&t->timing[which]) / middle(&turn.seconds) / turn.peak;
    return turn;
}

void print_step_only(const Shape *shape, int count)
{
    Trainer *t = trainer_new(shape, NULL, NULL);
    Samples seconds = { 0 };
    double loss;
    for (int i = 0; i < count; i++) add(&seconds, train_once(t, &loss).seconds);
    printf("%.4f\n", ms(&seconds));
    trainer_free(t);
}

static void show_progress(void *context, int64_t done, const StepResult *result)
{
    (void)context, (void)result;
    if (done % 50 == 0 && done < TEXT_STEPS) progress("training on the text", (int)done, TEXT_STEPS);
}

void train_on_text(const char *path, double *loss, double *seconds)
{
    double start = seconds_now();
    Text text = open_text(path, 0, CONTEXT);
    Transformer *model = new_model(small_shape(text.vocabulary.size), SEED);
    progress("training on the text", 0, TEXT_STEPS);
    train(model, &text, &(Training){ .B = BATCH, .schedule = { 1e-3, 1e-4, 100, TEXT_STEPS }, .weight_decay = 0.1, .seed = SEED,
                                     .after = show_progress });
    *loss = evaluate_validation(model, &text);
    *seconds = seconds_now() - start;
    transformer_free(model);
    text_free(&text);
}
