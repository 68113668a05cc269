// demo.c - full fine-tuning against LoRA, on one small model, with every number measured.
//
// A character transformer learns short tales; then the same base is taught to tell them as a pirate would: by training all of
// it, by an adapter on c_attn, by the same on a base in four bits, and by an adapter on all four linear layers. What each of
// them cost in bytes, work and time is printed beside what predict.c says it should; then eleven things that people say about
// LoRA, each with a verdict and its number.
//
// Here the runs are made, and main says in which order everything is measured and printed. experiments/comparison.h lists where
// each part of that is.
//
// Read next: TUTORIAL.md, where each of these numbers is predicted first; or experiments/.

#include "experiments/comparison.h"

#include <sys/wait.h>
#include <unistd.h>

enum { BASE_STEPS = 800, TUNE_STEPS = 200, SAMPLE = 240 }; // steps of training; characters of a sample

static LoraConfig on_codes; // on_c_attn, and the base in codes
static const char *const codes_headings[BASE_TYPES] = { "floats again", "c_attn, nf4", "c_attn, int8" };

static Comparison all = {
    .run = {
        { .name = "full", .heading = "full", .lora = NULL, .learning_rate = 2e-3 },
        { .name = "c_attn", .heading = "LoRA c_attn", .lora = &on_c_attn, .learning_rate = 2e-2 },
        { .name = "c_attn_codes", .lora = &on_codes, .learning_rate = 2e-2 },
        { .name = "all", .heading = "LoRA all 4", .lora = &on_all, .learning_rate = 1e-2 },
    },
    .base_steps = BASE_STEPS, .tune_steps = TUNE_STEPS,
};

// ------------------------------------------------------------------------------------------------------------------ training

// What a run shows and writes while it trains.
typedef struct Watcher { const char *what; Progress progress; FILE *log; } Watcher;

static void after_step(void *context, int64_t done, const StepResult *result)
{
    Watcher *w = context;
    if (!isfinite(result->loss)) die(EXIT_FAILED, "%s: the loss is not finite at step %" PRId64, w->what, done - 1);
    progress_step(&w->progress, done, result->loss, BATCH * CONTEXT);
    fprintf(w->log, "%s,%" PRId64 ",%.6f,%.3f\n", w->what, done - 1, result->loss, 1e3 * result->seconds);
}

// Trains what requires grad.
static Measured train_run(const Text *text, const char *what, int steps, double rate, FILE *log)
{
    Watcher watch = { .what = what, .log = log };
    progress_begin(&watch.progress, what, 0, steps, text->train_floor);
    Measured m = train(all.model, text, &(Training){ .B = BATCH, .schedule = usual_schedule(rate, steps), .weight_decay = 0.1,
                                                     .seed = SEED, .after = after_step, .context = &watch });
    progress_end(&watch.progress);
    return m;
}

static void train_base(FILE *log)
{
    train_run(&all.tales, "pretraining", BASE_STEPS, 3e-3, log);
    all.base_task = evaluate_validation(all.model, &all.pirate);
    all.base_tales = evaluate_validation(all.model, &all.tales);
    if (validation_leaks(&all.tales, all.base_tales))
        die(EXIT_FAILED, "the loss %.3f is below the floor: the model saw what it should predict; this is a bug", all.base_tales);
    all.hash = transformer_hash(all.model);
}

static void choose_base_type(BaseType type)
{
    on_codes = on_c_attn;
    on_codes.base_type = type;
    all.run[C_ATTN_CODES].heading = codes_headings[type];
}

// From the same base each time; the last adapter, on all four layers, stays.
static void train_runs(FILE *log)
{
    for (int r = 0; r < RUNS; r++) {
        Run *run = &all.run[r];
        real **base = copy_base(all.model);
        all.pirate_adapter = adapt(all.model, run->lora, SEED);
        run->trainable = transformer_trainable_size(all.model);
        run->predicted = predict_step(&all.model->config, run->lora, BATCH, CONTEXT, false, parallel_threads(), (int)sizeof(real));
        run->measured = train_run(&all.pirate, run->name, TUNE_STEPS, run->learning_rate, log);
        run->val_task = evaluate_validation(all.model, &all.pirate);
        run->val_tales = evaluate_validation(all.model, &all.tales);
        restore_base(all.model, base);
    }
}

// A second task beside the first: its adapter alone is added, and the base stays.
static void train_robot(FILE *log)
{
    all.robot_adapter = add_adapter(all.model, "robot", &on_all, SEED);
    train_run(&all.robot, "robot", TUNE_STEPS, all.run[ALL_FOUR].learning_rate, log);
    all.hash_after = transformer_hash(all.model);
}

// Steps with and without recomputation in turn, of the first two runs.
static void measure_recompute(void)
{
    enum { PAIRS = 6 };
    Steps steps = { .batch = small_batch(&all.pirate), .count = 2, .optimizer = true };
    for (int r = 0; r < 2; r++) {
        adapt(all.model, all.run[r].lora, SEED);
        for (int i = 0; i < 2 * PAIRS; i++) {
            all.model->recompute = i % 2;
            Measured m = measure_steps(all.model, steps);
            keep_least(&all.recompute[r][i % 2], &m);
        }
    }
    all.model->recompute = false;
}

// ------------------------------------------------------------------------------------- what the operating system says of it

// Runs in a process of its own: a few steps of one kind, or none, and nothing else; prints the peak of its resident size.
static int print_resident(const char *name, int vocab_size)
{
    static int ids[BATCH * CONTEXT];
    for (int r = 0; r < RUNS; r++) {
        if (strcmp(name, all.run[r].name) != 0) continue;
        Transformer *model = new_model(small_shape(vocab_size), SEED);
        adapt(model, all.run[r].lora, SEED);
        memory_release_pool(); // floats of what is in codes now
        measure_steps(model, (Steps){ .batch = { ids, ids, BATCH, CONTEXT }, .count = 3, .optimizer = true });
        transformer_free(model);
    }
    printf("%" PRId64 "\n", (int64_t)resident_peak());
    memory_release_pool();
    return 0;
}

// What such a process prints, or 0.
static int64_t resident_of(const char *program, const char *name)
{
    char threads[16], what[64], answer[64] = "";
    snprintf(threads, sizeof threads, "%d", parallel_threads());
    snprintf(what, sizeof what, "%s:%d", name, all.model->config.vocab_size);
    int ends[2];
    fflush(stdout);
    if (pipe(ends) != 0) return 0;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execlp(program, program, "--threads", threads, "--base-type", base_type_names[on_codes.base_type], "--measure-resident",
               what, (char *)NULL);
        _exit(EXIT_FAILED);
    }
    close(ends[1]);
    if (child > 0 && read(ends[0], answer, sizeof answer - 1) < 0) answer[0] = '\0';
    close(ends[0]);
    if (child > 0) waitpid(child, NULL, 0);
    return strtoll(answer, NULL, 10);
}

static void measure_resident(const char *program)
{
    all.empty_process = resident_of(program, "nothing");
    for (int r = 0; r < RUNS; r++) all.run[r].resident = resident_of(program, all.run[r].name);
}

// --------------------------------------------------------------------------------------------------------------------- options

// What is asked for in the place of the comparison, or beside it.
typedef struct Asked { const char *shape, *resident; bool trace; int threads; BaseType base_type; } Asked;

static const Option demo_options[] = {
    { "shape", "NAME", NULL, "the formulas alone, for a large shape: gpt2-124m, gpt-7b, gpt-65b, gpt3-175b, "
      "llama-7b, llama-65b", TEXT_OPTION(Asked, shape) },
    { "trace", NULL, NULL, "one step of LoRA's backward pass, node by node, alone", FLAG_OPTION(Asked, trace) },
    { "base-type", "TYPE", "nf4", "what the third run's base is in: float, nf4, int8",
      WORDS_OPTION(Asked, base_type, base_type_read, NULL) },
    { "threads", "N", NULL, "(one for each core)", INT_OPTION(Asked, threads, 1, MAX_THREADS) },
    { "measure-resident", "NAME:VOCABULARY", NULL, NULL, TEXT_OPTION(Asked, resident) }, // the demo's own
    { 0 }
};

static const OptionTable demo_table = {
    .head = "demo: full fine-tuning against LoRA on a small model, every number measured.\n"
    "Without options the whole comparison: under a minute on two cores",
    .rows = demo_options,
    .tail = "Files go to out/demo/: metrics.json, loss.csv, bytes.csv, timeline_*.csv, and\n"
    "plots if gnuplot is installed.\n"
    "Example: ./demo --shape gpt3-175b"
};

static int show_shape(const char *name)
{
    if (print_one_shape(name)) return output_status();
    fprintf(stderr, "demo: --shape %s: no such shape; there are:", name);
    for (int i = 0; i < SHAPES; i++) fprintf(stderr, " %s", shape_name(i));
    fputc('\n', stderr);
    return EXIT_USAGE;
}

static int show_trace(void)
{
    Text text = open_text("builtin:tales", 4000, CONTEXT);
    Transformer *model = new_model(small_shape(text.vocabulary.size), SEED);
    transformer_train_base(model, false);
    add_adapter(model, "fresh", &on_c_attn, SEED);
    Tape *tape = tape_new();
    measure_begin(tape, NULL);
    set_trace(tape, stdout);
    printf("One backward pass through a frozen base with fresh adapters (B = 0) on c_attn,\nin the order in which it runs:\n\n");
    backward(tape, transformer_loss(model, tape, text.tokens, text.tokens + 1, BATCH, CONTEXT));
    Measured m = measure_end(NULL, 1);
    printf("\ngradient passed through %" PRId64 " of 16 frozen linears and the head;\n%" PRId64
           " weight gradients skipped, %" PRId64 " never recorded; %" PRId64 " adapter gradients computed\n", m.dgrad - 1, m.wgrad_skipped,
           m.wgrad_never_recorded, m.adapter_gradients);
    tape_free(tape);
    transformer_free(model);
    text_free(&text);
    return output_status();
}

// True: something else than the comparison is asked for, and *status is what to exit with.
static bool served(const Asked *asked, int *status)
{
    char name[32];
    int vocabulary, end = 0;
    if (asked->resident != NULL) {
        if (sscanf(asked->resident, "%31[^:]:%d%n", name, &vocabulary, &end) != 2 || asked->resident[end] != '\0' || vocabulary < 1)
            die(EXIT_USAGE, "--measure-resident %s: NAME:VOCABULARY is needed", asked->resident);
        *status = print_resident(name, vocabulary);
    } else if (asked->shape != NULL) *status = show_shape(asked->shape);
    else if (asked->trace) *status = show_trace();
    else return false;
    return true;
}

// ------------------------------------------------------------------------------------------------------------------------ main

int main(int argc, char **argv)
{
    program_begin("demo");
    Asked asked = { 0 };
    int status = 0;
    options_read(argc, argv, &demo_table, &asked, NULL);
    if (asked.threads > 0) parallel_set_threads(asked.threads);
    choose_base_type(asked.base_type);
    if (served(&asked, &status)) return status;
    make_directories();

    double start = seconds_now();
    all.tales = open_text("builtin:tales", 400000, CONTEXT);
    all.pirate = open_text("builtin:pirate", 100000, CONTEXT);
    all.robot = open_text("builtin:robot", 100000, CONTEXT);
    all.model = new_model(small_shape(all.tales.vocabulary.size), SEED);
    printf("A transformer of %s numbers (4 blocks, 4 heads, width 128, context 64)\n"
           "reads short tales, %d windows of 64 characters a step, on %d threads. It cannot\n"
           "come below the text's floor: the loss of a reader who knows the grammar.\n\n",
           thousands(transformer_base_size(all.model)), BATCH, parallel_threads());
    FILE *log = open_file(OUT, "loss.csv");
    fprintf(log, "run,step,loss,ms\n");
    train_base(log);

    printf("\nThe base's loss on tales it has not seen: %.3f; floor %.3f. Its\n"
           "bytes have the hash %016" PRIx64 ". Now the same base learns to tell them\n"
           "as a pirate would, four times, once with its linear layers in %s.\n\n",
           all.base_tales, all.tales.val_floor, all.hash, base_type_names[asked.base_type]);
    measure_recompute();
    train_runs(log);
    train_robot(log);
    close_file(log, OUT, "loss.csv");
    measure_resident(argv[0]);

    print_bytes(&all);
    print_work(&all);
    print_recompute(&all);
    print_learning(&all);
    print_hashes(&all);
    print_sample(all.model, NULL, &all.tales, SAMPLE, "the base alone");
    print_sample(all.model, all.pirate_adapter, &all.pirate, SAMPLE, "the same base with the pirate's adapter");
    print_sample(all.model, all.robot_adapter, &all.robot, SAMPLE, "the same base with the robot's adapter");
    bool sound = print_claims(&all);
    print_shapes();
    write_step(all.model, small_batch(&all.pirate), OUT);
    write_metrics(&all);
    draw_bytes(&all);
    printf("All this took %.0f s. The numbers are in out/demo/metrics.json.\n", seconds_now() - start);

    sound = sound && transformer_hash(all.model) == all.hash;
    transformer_free(all.model);
    text_free(&all.tales);
    text_free(&all.pirate);
    text_free(&all.robot);
    if (!sound) die(EXIT_FAILED, "a claim's verdict was not found, or the base's bytes have changed: this is a bug");
    return output_status();
}
