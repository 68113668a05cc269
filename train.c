// train.c - trains a character-level transformer on a text: all of it, or LoRA adapters on a frozen base.
//
//     ./train --data book.txt --out out/book                                          everything trains
//     ./train --data other.txt --init out/book --lora-r 8 --out out/other             the base is frozen, an adapter trains
//     ./train --resume --out out/book --max-iters 4000                                goes on, to the bit as if never stopped
//
// From the top: the options; begin() for a new run and resume() for an old one, which both end in a TrainingState; the log; the
// loop, train_on(); the report; main. A step itself is training_step in training.c, for demo.c and the notebooks take the same
// one. LoRA differs from full training in two calls of begin(): transformer_train_base(model, false) and
// transformer_add_adapter.
//
// Into --out go the model or the adapter, the state for --resume, log.csv (a row every ten steps) and metrics.json (losses,
// counts, bytes). After LoRA the base's hash is compared with the one before: a frozen bit that moved is an error.
//
// Read next: training.c, then sample.c.

#include "io/adapter_file.h"
#include "io/evaluation.h"
#include "io/file.h"
#include "io/json.h"
#include "io/machine.h"
#include "io/model_file.h"
#include "io/options.h"
#include "io/progress.h"
#include "io/state_file.h"
#include "meter.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { BUILTIN_CHARACTERS = 1000000 };

typedef struct Options {
    const char *data, *out, *init;
    bool     resume, recompute, trace, shape_given, alpha_given, targets_given, min_lr_given;
    Config   config;
    LoraConfig lora;            // r 0: everything trains
    int      batch_size, threads;
    Schedule schedule;
    AdamWConfig adamw;
    int64_t  eval_interval;
    uint64_t seed;
} Options;

static const Options defaults = {
    .data = "builtin:tales", .out = "out",
    .config = { .block_size = 64, .n_layer = 4, .n_head = 4, .n_embd = 128 },
    .lora = { .targets = 1u << C_ATTN, .last_block = -1 },
    .batch_size = 12,
    .schedule = { .learning_rate = 1e-3, .min_lr = 1e-4, .warmup_iters = 100, .max_iters = 2000 },
    .adamw = { .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1, .grad_clip = 1.0 },
    .eval_interval = 250, .seed = 1337,
};

static void help(void)
{
    printf("train: trains a character-level transformer on any UTF-8 text\n\n"
           "  --data FILE|builtin:NAME  the text (builtin:tales); built in: tales and the\n"
           "                            tasks pirate, robot, ghost\n"
           "  --out DIR                 where the model, or the adapter, and logs go (out)\n"
           "  --init DIR                start from this model instead of random weights\n"
           "  --resume                  go on from the last save in --out, with its text and\n"
           "                            settings, to the bit as if it had never stopped.\n"
           "                            --max-iters, --eval-interval and --threads may be\n"
           "                            others; with another total the learning rate follows\n"
           "                            the new curve from there on. --data and --init say\n"
           "                            where the text and an adapter's base are now, if\n"
           "                            they have moved\n"
           "  --lora-r N                0: train everything (0); N > 0: freeze --init and\n"
           "                            train adapters of rank N\n"
           "  --lora-alpha X            the adapters' scale is alpha / r (twice r)\n"
           "  --lora-targets LIST       of c_attn, attn.c_proj, c_fc, mlp.c_proj; c_proj\n"
           "                            means both; in the place of c_attn some of its parts\n"
           "                            q, k, v, each of rank N (c_attn)\n"
           "  --n-layer 4  --n-head 4  --n-embd 128  --block-size 64  --batch-size 12\n"
           "  --dropout 0\n"
           "  --max-iters 2000          steps in all, those before a --resume included\n"
           "  --learning-rate 1e-3  --min-lr 1e-4  --warmup-iters 100\n"
           "  --weight-decay 0.1  --beta1 0.9  --beta2 0.99  --grad-clip 1.0\n"
           "  --eval-interval 250       steps between evaluations and saves\n"
           "  --seed 1337\n"
           "  --threads N               one for each core (%d here); the result does not\n"
           "                            depend on it\n"
           "  --recompute               keep only the blocks' inputs, and run each block\n"
           "                            again in backward\n"
           "  --trace                   print the first step's backward pass, node by node\n\n"
           "Example: ./train --data book.txt --out out/book\n"
           "         ./train --data builtin:pirate --init out/book --lora-r 8 \\\n"
           "                 --learning-rate 3e-3 --out out/pirate\n", parallel_threads());
}

static void take_targets(const char *names, void *targets)
{
    const char *bad = NULL;
    unsigned set = lora_targets(names, &bad);
    if (set == 0)
        die(EXIT_USAGE, "--lora-targets %s: \"%s\" is no layer; there are c_attn, attn.c_proj, c_fc, mlp.c_proj, c_proj for both "
            "projections, and q, k, v", names, bad);
    *(unsigned *)targets = set;
}

typedef struct Table { Option rows[32]; } Table;

// `settled`: who resumes cannot choose it anew.
static Table table_of(Options *o)
{
    enum { MANY = 1 << 20 };
    const double most_steps = 0x1p40;
    Config *c = &o->config;
    LoraConfig *l = &o->lora;
    Schedule *s = &o->schedule;
    AdamWConfig *a = &o->adamw;
    return (Table){ {
        { "data", .text = &o->data }, { "out", .text = &o->out }, { "init", .text = &o->init }, { "resume", .flag = &o->resume },
        { "n-layer", .whole = &c->n_layer, .least = 1, .most = 4096, .given = &o->shape_given, .settled = true },
        { "n-head", .whole = &c->n_head, .least = 1, .most = 65536, .given = &o->shape_given, .settled = true },
        { "n-embd", .whole = &c->n_embd, .least = 1, .most = 65536, .given = &o->shape_given, .settled = true },
        { "block-size", .whole = &c->block_size, .least = 1, .most = MANY, .given = &o->shape_given, .settled = true },
        { "dropout", .number = &c->dropout, .least = 0, .most = 0.99, .settled = true },
        { "lora-r", .whole = &l->r, .least = 0, .most = 65536, .settled = true },
        { "lora-alpha", .number = &l->alpha, .least = 0, .most = 1e6, .given = &o->alpha_given, .settled = true },
        { "lora-targets", .take = take_targets, .to = &l->targets, .given = &o->targets_given },
        { "batch-size", .whole = &o->batch_size, .least = 1, .most = MANY, .settled = true },
        { "max-iters", .count = &s->max_iters, .least = 1, .most = most_steps },
        { "learning-rate", .number = &s->learning_rate, .least = 0, .most = 100, .settled = true },
        { "min-lr", .number = &s->min_lr, .least = 0, .most = 100, .given = &o->min_lr_given, .settled = true },
        { "warmup-iters", .count = &s->warmup_iters, .least = 0, .most = most_steps, .settled = true },
        { "weight-decay", .number = &a->weight_decay, .least = 0, .most = 100, .settled = true },
        { "beta1", .number = &a->beta1, .least = 0, .most = 0.999999, .settled = true },
        { "beta2", .number = &a->beta2, .least = 0, .most = 0.999999, .settled = true },
        { "grad-clip", .number = &a->grad_clip, .least = 0, .most = 1e9, .settled = true },
        { "eval-interval", .count = &o->eval_interval, .least = 1, .most = most_steps },
        { "seed", .seed = &o->seed },
        { "threads", .whole = &o->threads, .least = 1, .most = MAX_THREADS },
        { "recompute", .flag = &o->recompute }, { "trace", .flag = &o->trace }, { "help", .show = help },
    } };
}

// The command line's options, in place of those of `start`.
static Options read_options(int argc, char **argv, const Options *start)
{
    Options o = *start;
    int first_word = options_read(argc, argv, table_of(&o).rows);
    if (first_word < argc) die(EXIT_USAGE, "%s: train takes options only; --help lists them", argv[first_word]);
    return o;
}

// What must fit together in a new run; fills in what depends on other options.
static void complete(Options *o)
{
    if (o->lora.r == 0 && (o->alpha_given || o->targets_given))
        die(EXIT_USAGE, "--lora-%s needs --lora-r N: without a rank there is no adapter, and the whole model would train",
            o->targets_given ? "targets" : "alpha");
    if (!o->alpha_given) o->lora.alpha = 2.0 * o->lora.r;
    if (!o->min_lr_given && o->schedule.min_lr > o->schedule.learning_rate) o->schedule.min_lr = o->schedule.learning_rate;
    if (o->schedule.min_lr > o->schedule.learning_rate)
        die(EXIT_USAGE, "--min-lr %g is above --learning-rate %g; the rate only falls", o->schedule.min_lr,
            o->schedule.learning_rate);
    if (o->lora.r > 0 && o->init == NULL)
        die(EXIT_USAGE,
            "--lora-r %d needs --init DIR: an adapter is trained on a model that exists; train one first, without --lora-r",
            o->lora.r);
    char why[512];
    if (o->lora.r > 0 && !adapter_can_name(o->init, why, sizeof why)) die(EXIT_USAGE, "--init: %s", why);
    if (o->shape_given && o->init != NULL)
        die(EXIT_USAGE, "the shape comes from %s; leave out --n-layer, --n-head, --n-embd and --block-size", o->init);
}

// What a state says in the place of options: the start for the command line of who resumes.
static Options saved_options(const Options *o, const TrainingState *state)
{
    Options saved = *o;
    const Adapter *adapter = state->model->active;
    saved.data = state->data;
    saved.config = state->model->config;
    saved.lora = adapter ? adapter->config : defaults.lora;
    saved.batch_size = state->batch_size;
    saved.schedule = state->schedule;
    saved.adamw = state->optimizer->config;
    saved.eval_interval = state->eval_interval;
    saved.seed = state->seed;
    return saved;
}

static double number_of(const Option *o) { return o->whole ? *o->whole : o->count ? (double)*o->count : *o->number; }

// Going on with other settings would be another run: what is given anew must be what it was.
static void check_agreement(Options *saved, Options *given)
{
    static const char hint[] = "leave it out to go on as before, or start a new run with --init and another --out";
    const Table old = table_of(saved), new = table_of(given);
    for (int i = 0; old.rows[i].name != NULL; i++) {
        if (!old.rows[i].settled) continue;
        double was = number_of(&old.rows[i]), is = number_of(&new.rows[i]);
        if (was != is)
            die(EXIT_USAGE, "--%s %.10g: the run in %s has %.10g; %s", old.rows[i].name, is, given->out, was, hint);
    }
    const char *was = lora_targets_text(saved->lora.targets), *is = lora_targets_text(given->lora.targets);
    if (strcmp(was, is) != 0) die(EXIT_USAGE, "--lora-targets %s: the run in %s has %s; %s", is, given->out, was, hint);
    if (saved->seed != given->seed)
        die(EXIT_USAGE, "--seed %" PRIu64 ": the run in %s has %" PRIu64 "; %s", given->seed, given->out, saved->seed, hint);
}

// The last save of a run, its options, and its text.
static TrainingState resume(int argc, char **argv, Options *o, Text *text)
{
    char error[1024];
    TrainingState state;
    if (!state_load(o->out, o->init, &state, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    if (o->init != NULL && state.base_dir == NULL)
        die(EXIT_USAGE, "--init %s: the run in %s trains a whole model, which comes from there; leave out --init", o->init,
            o->out);
    if (state.base_dir != NULL && !adapter_can_name(state.base_dir, error, sizeof error)) die(EXIT_USAGE, "--init: %s", error);
    Options saved = saved_options(o, &state);
    *o = read_options(argc, argv, &saved);
    check_agreement(&saved, o);
    if (o->data == NULL) die(EXIT_USAGE, "%s does not say where its text is; give --data", o->out);
    if (!text_read(o->data, BUILTIN_CHARACTERS, &state.vocabulary, state.model->config.block_size, text, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    uint64_t hash = text_fingerprint(text);
    if (hash != state.text_hash)
        die(EXIT_FAILED, "%s is not the text of the run in %s: its hash is %016" PRIx64 ", not %016" PRIx64 "; say with --data "
            "where that text is now, or start a new run with --init and another --out", o->data, o->out, hash,
            state.text_hash);
    return state;
}

static char *copy_path(const char *path)
{
    char *copy = strdup(path);
    if (copy == NULL) die(EXIT_FAILED, "out of memory: no room for a path");
    return copy;
}

// A model and an adapter in one directory would be taken for each other, and one training state would replace the other's.
static void check_directory(const char *dir, bool adapter)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, adapter ? "model.safetensors" : "adapter_model.safetensors");
    if (access(path, F_OK) == 0)
        die(EXIT_USAGE, "--out %s holds %s; %s needs a directory of its own: choose another --out", dir,
            adapter ? "a whole model" : "an adapter", adapter ? "an adapter" : "a whole model");
}

// Makes or loads the model that a new run begins with.
static TrainingState begin(const Options *o, Text *text)
{
    char error[1024];
    TrainingState state = { .seed = o->seed };
    check_directory(o->out, o->lora.r > 0);
    if (o->init != NULL) {
        state.model = model_load(o->init, &state.vocabulary, error, sizeof error);
        if (state.model == NULL) die(EXIT_FAILED, "%s", error);
        if (state.vocabulary.size == 0 &&
            !vocabulary_load(o->init, state.model->config.vocab_size, &state.vocabulary, error, sizeof error))
            die(EXIT_FAILED, "%s; without characters no text can be read for it", error);
        state.model->config.dropout = o->config.dropout;
        if (!settings_load(o->init, &state.settings, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    }
    int block_size = state.model ? state.model->config.block_size : o->config.block_size;
    if (!text_read(o->data, BUILTIN_CHARACTERS, state.model ? &state.vocabulary : NULL, block_size, text, error, sizeof error))
        die(EXIT_FAILED, "%s", error);

    if (state.model == NULL) {
        Config config = o->config;
        config.vocab_size = text->vocabulary.size;
        if (!memory_holds(4 * weight_bytes(&config), error, sizeof error))
            die(EXIT_USAGE, "%s", error); // weights, gradients, two moments
        state.model = transformer_new(config, o->seed, error, sizeof error);
        if (state.model == NULL) die(EXIT_USAGE, "%s", error);
        if (!vocabulary_copy(&text->vocabulary, &state.vocabulary)) die(EXIT_FAILED, "out of memory");
    }
    if (o->lora.r > 0) {
        transformer_train_base(state.model, false);
        if (transformer_add_adapter(state.model, "default", o->lora, o->seed, error, sizeof error) == NULL)
            die(EXIT_USAGE, "%s", error);
        state.base_dir = copy_path(o->init);
    }
    state.optimizer = adamw_new(state.model->parameters, state.model->parameter_count, o->adamw);
    state.text_hash = text_fingerprint(text);
    return state;
}

// What a save says about the run besides its numbers.
static void describe(TrainingState *state, const Options *o)
{
    if (o->data != state->data) { // a new run, or the text has moved
        free(state->data);
        state->data = json_valid_utf8(o->data, strlen(o->data)) == strlen(o->data) ? copy_path(o->data) : NULL;
    }
    state->batch_size = o->batch_size;
    state->schedule = o->schedule;
    state->eval_interval = o->eval_interval;
}

static void save(const Options *o, const TrainingState *state)
{
    char error[1024];
    if (!state_save(o->out, state, error, sizeof error)) die(EXIT_FAILED, "%s", error);
}

// ------------------------------------------------------------------------------------------------------------------- the log

// DIR/log.csv, a row for every tenth step and every evaluation. Until a new run's first save its rows are in memory, for the
// log of an older run belongs to the model that is still there.
typedef struct Log { FILE *file; char *early; size_t early_size; } Log;

static FILE *open_log(const char *dir, const char *mode)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/log.csv", dir);
    FILE *file = fopen(path, mode);
    if (file == NULL) die(EXIT_FAILED, "cannot write %s: %s; choose another --out", path, strerror(errno));
    return file;
}

static const char log_heading[] = "step,train_loss,val_loss,learning_rate,gradient_norm,ms\n";

static void begin_log(Log *log)
{
    log->file = open_memstream(&log->early, &log->early_size);
    if (log->file == NULL) die(EXIT_FAILED, "out of memory: no room for the log");
    fputs(log_heading, log->file);
}

// After the first save.
static void keep_log(Log *log, const char *dir)
{
    if (log->early == NULL) return;
    fclose(log->file);
    log->file = open_log(dir, "w");
    fwrite(log->early, 1, log->early_size, log->file);
    fflush(log->file);
    free(log->early);
    log->early = NULL;
}

static void log_row(Log *log, int64_t step, const double *val, double rate, const StepResult *result) // val NULL: none
{
    fprintf(log->file, "%" PRId64 ",%.6f,", step, result->loss);
    if (val != NULL) fprintf(log->file, "%.6f", *val);
    fprintf(log->file, ",%.8g,%.6g,%.3f\n", rate, result->gradient_norm, 1e3 * result->seconds);
    fflush(log->file);
}

// A run that was killed may have got further than its last save: who resumes from `step` writes the rows after it anew.
static void resume_log(Log *log, const char *dir, int64_t step)
{
    char path[4096], error[1024], *old = NULL;
    size_t n;
    snprintf(path, sizeof path, "%s/log.csv", dir);
    if (file_read(path, (size_t)1 << 30, &old, &n, error, sizeof error)) {
        char *end = strchr(old, '\n'); // of the heading, then of each row that stays
        while (end != NULL && end[1] != '\0' && strchr(end + 1, '\n') != NULL && strtoll(end + 1, NULL, 10) <= step)
            end = strchr(end + 1, '\n');
        if (!file_write_all(path, old, end ? (size_t)(end + 1 - old) : 0, error, sizeof error)) die(EXIT_FAILED, "%s", error);
        free(old);
    }
    log->file = open_log(dir, "a");
    if (ftell(log->file) == 0) fputs(log_heading, log->file);
}

// ------------------------------------------------------------------------------------------------------------------- the run

// The seconds of the last steps, for a median: a run may be too long to remember all of them.
enum { LAST_STEPS = 1000 };
typedef struct Times { double seconds[LAST_STEPS]; int64_t count; } Times;

typedef struct Run {
    Options       o;
    TrainingState state;
    Text          text;
    Tape         *tape;
    Meter         meter;      // watches the tape
    int          *batch;      // ids[B*T], then targets[B*T]
    Log           log;
    Progress      progress;
    Times         times;
    int64_t       first;      // steps done before this run
    int64_t       trainable, all; // numbers
    uint64_t      hash;       // of the base, at the start
    bool          saved;      // what is in --out is of this run
    double        start, evaluating; // when the steps began, and seconds since then that were not spent in them
} Run;

static volatile sig_atomic_t stop_asked;
static void ask_to_stop(int signal_number) { stop_asked = signal_number; }

static void on_signals(void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void clean_up(Run *run)
{
    tape_free(run->tape);
    free(run->batch);
    text_free(&run->text);
    state_free(&run->state);
    memory_release_pool();
}

static void print_heading(Run *run)
{
    const Transformer *model = run->state.model;
    const Config *c = &model->config;
    run->trainable = transformer_trainable_size(model);
    run->all = transformer_base_size(model) + (model->active ? adapter_size(model->active) : 0);
    printf("%s: %s characters, vocabulary %d\n", run->o.data, thousands(run->text.count), c->vocab_size);
    if (!isnan(run->text.val_floor)) printf("  no model can beat %.3f nats a character\n", run->text.val_floor);
    else printf("  guessing gives %.3f nats a character\n", log(c->vocab_size));
    printf("model: %d layers, %d heads, width %d, context %d\n", c->n_layer, c->n_head, c->n_embd, c->block_size);
    printf("  %s numbers, of which %s (%.2f %%) train\n", thousands(run->all), thousands(run->trainable),
           100.0 * (double)run->trainable / (double)run->all);
}

// All that the steps need. A directory that cannot be written to is found before the work. What a resumed run left is brought
// to the state's step; a new run replaces an older model only when it has trained one.
static void prepare(Run *run)
{
    char error[1024];
    const Options *o = &run->o;
    int B = o->batch_size, T = run->state.model->config.block_size;
    if ((int64_t)B * T > 1 << 30) die(EXIT_USAGE, "--batch-size %d of %d characters each: more than 2^30 in a step", B, T);
    run->batch = allocate(2 * (size_t)B * (size_t)T, sizeof *run->batch, "a batch");
    run->first = run->state.step;
    if (run->first >= o->schedule.max_iters)
        printf("all %" PRId64 " steps are done already; --max-iters is the total\n", o->schedule.max_iters);
    if (o->resume) save(o, &run->state);
    else if (!file_make_directories(o->out, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    if (o->resume) resume_log(&run->log, o->out, run->first);
    else begin_log(&run->log);
    run->saved = o->resume;
    on_signals(ask_to_stop);
    run->hash = transformer_hash(run->state.model);
    run->tape = tape_new();
    meter_watch(&run->meter, run->tape);
    progress_begin(&run->progress, "training", run->first, o->schedule.max_iters, run->text.train_floor);
}

// Whether there is an adapter whose every B is exactly zero, as it was when fresh.
static bool untrained(const Adapter *adapter, const Config *config)
{
    for (int i = 0; adapter != NULL && i < config->n_layer * LINEARS; i++) {
        const Tensor *B = adapter->lora[i].B;
        if (B != NULL && norm_of(B->data, B->size) > 0) return false;
    }
    return adapter != NULL;
}

_Noreturn static void stop_at_bad_number(Run *run, const StepResult *result)
{
    char where[256] = "every weight and gradient is finite; a smaller --learning-rate may help";
    int64_t step = run->state.step;
    find_bad_number(run->state.model, where, sizeof where);
    clean_up(run);
    die(EXIT_FAILED, "step %" PRId64 ": the loss is %g and the gradient's norm %g: %s; %s %s", step, result->loss,
        result->gradient_norm, where, run->saved ? "what was saved before is intact, in" : "this run has saved nothing in",
        run->o.out);
}

// After a step, which made the state's step number one larger: a row in the log, and if it is time for that an evaluation and a
// save.
static void after_step(Run *run, double rate, const StepResult *result)
{
    const Options *o = &run->o;
    TrainingState *state = &run->state;
    bool evaluate = state->step % o->eval_interval == 0 || state->step == o->schedule.max_iters;
    double val, start = seconds_now();
    if (evaluate) {
        val = estimate_validation(state->model, &run->text, o->batch_size);
        progress_validation(&run->progress, val);
    }
    // before the save: --resume takes away rows that are too many, and cannot add what lacks
    if (evaluate || state->step % 10 == 1) log_row(&run->log, state->step, evaluate ? &val : NULL, rate, result);
    if (evaluate) {
        save(o, state);
        keep_log(&run->log, o->out);
        run->saved = true;
    }
    run->evaluating += seconds_now() - start;
}

// The loop. Ends after the last step, or after the one in which a signal came.
static void train_on(Run *run)
{
    const Options *o = &run->o;
    TrainingState *state = &run->state;
    Tape *tape = run->tape;
    int B = o->batch_size, T = state->model->config.block_size, *ids = run->batch, *targets = ids + B * T;
    run->start = seconds_now();
    while (state->step < o->schedule.max_iters && !stop_asked) {
        int64_t step = state->step;
        run->meter.trace = o->trace && step == run->first ? stdout : NULL;
        if (step == run->first + 1) { // what is measured begins when every buffer has been asked for once
            tape_clear(tape);
            meter_zero(&run->meter);
            memory_reset_peaks();
        }
        double rate = schedule_rate(&o->schedule, step);
        text_batch(&run->text, B, T, state->seed, step, ids, targets);
        StepResult result = training_step(state->model, tape, state->optimizer, ids, targets, B, T, state->seed, step, rate);
        if (!isfinite(result.loss) || !isfinite(result.gradient_norm)) stop_at_bad_number(run, &result);
        run->times.seconds[run->times.count++ % LAST_STEPS] = result.seconds;
        state->step++;
        if (state->step == 2 && run->first == 0 && untrained(state->model->active, &state->model->config))
            fprintf(stderr, "train: after two steps every B of the adapter is still 0: nothing is learned; is --learning-rate %g "
                    "what you meant?\n", o->schedule.learning_rate);
        after_step(run, rate, &result);
        progress_step(&run->progress, state->step, result.loss, (int64_t)B * T);
    }
}

// ---------------------------------------------------------------------------------------------------------------- the report

// What a run measured, for metrics.json.
typedef struct Metrics {
    double  train_loss, val_loss;
    double  step_ms;                           // the median of the last LAST_STEPS steps, or of all if they are fewer
    double  tokens_per_second;
    int64_t steps;                             // that the counts are of
    Ledger  peaks;                             // of the steps alone
} Metrics;

static void write_metrics(const Run *run, const Metrics *m)
{
    char path[FILE_PATH], error[1024];
    FileWriter *file = NULL;
    if (file_path(path, run->o.out, "metrics.json", error, sizeof error)) file = file_write_begin(path, error, sizeof error);
    if (file == NULL) die(EXIT_FAILED, "%s", error);
    file_printf(file, "{\n  \"val_loss\": %.6f,\n  \"train_loss\": %.6f,\n", m->val_loss, m->train_loss);
    if (!isnan(run->text.val_floor)) file_printf(file, "  \"floor\": %.6f,\n", run->text.val_floor);
    file_printf(file, "  \"step_ms_median\": %.3f,\n  \"tokens_per_second\": %.0f,\n", m->step_ms, m->tokens_per_second);
    const Meter *meter = &run->meter;
    const Ledger *peaks = &m->peaks;
    const struct { const char *key; int64_t count; } numbers[] = {
        { "trainable_parameters", run->trainable }, { "all_parameters", run->all },
        { "dgrad", meter->dgrad / m->steps }, { "wgrad", meter->wgrad / m->steps },
        { "wgrad_skipped", meter->wgrad_skipped / m->steps },
        { "wgrad_never_recorded", meter->wgrad_never_recorded / m->steps },
        { "adapter_gradients", meter->adapter_gradients / m->steps },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        file_printf(file, "  \"%s\": %" PRId64 ",\n", numbers[i].key, numbers[i].count);
    file_printf(file, "  \"flops\": {");
    for (int p = 0; p < PHASES; p++)
        file_printf(file, "%s\"%s\": %" PRId64, p ? ", " : "", phase_names[p], meter_phase(meter, (Phase)p).flops / m->steps);
    file_printf(file, "},\n  \"pool_bytes\": %" PRId64 ",\n  \"peak_bytes\": {\"total\": %" PRId64, (int64_t)peaks->pool,
                (int64_t)peaks->peak);
    for (int k = 0; k < MEMORY_KINDS; k++)
        file_printf(file, ", \"%s\": %" PRId64, memory_kind_names[k], (int64_t)peaks->at_peak[k]);
    file_printf(file, "},\n  \"own_peak_bytes\": {");
    for (int k = 0; k < MEMORY_KINDS; k++)
        file_printf(file, "%s\"%s\": %" PRId64, k ? ", " : "", memory_kind_names[k], (int64_t)peaks->own_peak[k]);
    file_printf(file, "}\n}\n");
    if (!file_write_commit(file, error, sizeof error)) die(EXIT_FAILED, "%s", error);
}

// What can be said only after the last step; what must not be is a bug, and a failure.
static void report(const Run *run, const Metrics *m)
{
    double floor = run->text.val_floor;
    if (!isnan(floor)) printf("floor: %.4f on the validation text; the model is %.4f above it\n", floor, m->val_loss - floor);
    if (validation_leaks(&run->text, m->val_loss))
        die(EXIT_FAILED, "the validation loss is below what any model can reach: it saw what it should predict; this is a bug");
    if (run->state.model->active != NULL) {
        uint64_t now = transformer_hash(run->state.model);
        printf("base: hash %016" PRIx64 " before and %016" PRIx64 " after\n", run->hash, now);
        if (now != run->hash) die(EXIT_FAILED, "the frozen base has changed: this is a bug");
    }
    printf("saved in %s\n", run->o.out);
    printf("final: train loss %.4f, val loss %.4f", m->train_loss, m->val_loss);
    if (run->times.count > 0)
        printf(", %.0f tokens/s, peak %" PRId64 " bytes", m->tokens_per_second, (int64_t)m->peaks.peak);
    printf("\n");
}

// From the last step to the last line: the log is closed, losses are evaluated, and what was measured is written and printed.
static void finish(Run *run)
{
    const Options *o = &run->o;
    const Transformer *model = run->state.model;
    int64_t done = run->state.step - run->first;
    Metrics m = { .steps = done > 1 ? done - 1 : 1, .peaks = ledger };
    on_signals(SIG_DFL); // what is left can be stopped at any time: each file is replaced whole
    progress_end(&run->progress);
    progress_curve(&run->progress);
    if (done > 0)
        m.tokens_per_second = (double)(done * o->batch_size * model->config.block_size)
                            / (seconds_now() - run->start - run->evaluating);
    if (stop_asked) save(o, &run->state);
    keep_log(&run->log, o->out);
    bool logged = !ferror(run->log.file);
    logged &= fclose(run->log.file) == 0;
    if (stop_asked) {
        printf("stopped after step %" PRId64 " and saved; go on with: ./train --resume --out %s\n", run->state.step, o->out);
        return;
    }
    m.train_loss = evaluate_training(model, &run->text);
    m.val_loss = evaluate_validation(model, &run->text);
    if (done > 0) { // else what the run wrote at its end is there already
        m.step_ms = 1e3 * median(run->times.seconds, done < LAST_STEPS ? done : LAST_STEPS);
        write_metrics(run, &m);
    }
    if (!logged)
        die(EXIT_FAILED, "%s/log.csv is not complete: is the disk full? The model itself is saved in %s", o->out, o->out);
    report(run, &m);
}

int main(int argc, char **argv)
{
    program_name = "train";
    Run run = { .o = read_options(argc, argv, &defaults) };
    if (!run.o.resume) complete(&run.o);
    if (run.o.threads > 0) parallel_set_threads(run.o.threads);
    run.state = run.o.resume ? resume(argc, argv, &run.o, &run.text) : begin(&run.o, &run.text);
    run.state.model->recompute = run.o.recompute;
    describe(&run.state, &run.o);
    print_heading(&run);
    prepare(&run);
    train_on(&run);
    finish(&run);
    clean_up(&run);
    return stop_asked ? 128 + stop_asked : output_status();
}
