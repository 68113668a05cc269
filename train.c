// train.c - trains a character-level transformer on a text: all of it, or LoRA adapters on a frozen base.
//
//     ./train --data book.txt --out out/book                                          everything trains
//     ./train --data other.txt --init out/book --lora-r 8 --out out/other             the base is frozen, an adapter trains
//     ./train --resume --out out/book --max-iters 4000                                goes on, to the bit as if never stopped
//
// The options are a table in io/train_options.c. From the top: resume() for an old run and begin() for a new one, which both end
// in a TrainingState; the log; the loop, train_on(); the report; main. A step itself is training_step_in_parts in training.c; with
// one part its bits are those of training_step, which demo.c and the notebooks take. LoRA differs from full training in two calls
// of begin(): transformer_train_base(model, false) and transformer_add_adapter. Of several processes (io/ranks.h) each takes its
// parts of every batch, and process 0 alone writes.
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
#include "io/progress.h"
#include "io/ranks.h"
#include "io/train_options.h"
#include "io/state_file.h"
#include "generate.h"
#include "meter.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUILTIN_CHARACTERS = 1000000 };

static TrainOptions read_options(int argc, char **argv)
{
    char error[512];
    TrainOptions o = train_options_default();
    options_read(argc, argv, &train_table, &o, &o.given);
    if (o.resume && o.overwrite) die(EXIT_USAGE, "--resume goes on with what --overwrite would replace; choose one of them");
    if (!o.resume && !train_options_complete(&o, error, sizeof error)) die(EXIT_USAGE, "%s", error);
    return o;
}

// Whether the text will be there for --resume: not what comes through a pipe, and not a path that JSON cannot hold.
static bool can_be_read_again(const char *data)
{
    struct stat status;
    if (strncmp(data, "builtin:", 8) == 0) return true;
    return json_valid_utf8(data, strlen(data)) == strlen(data) && stat(data, &status) == 0 && S_ISREG(status.st_mode)
        && strcmp(data, "/dev/stdin") != 0 && strncmp(data, "/dev/fd/", 8) != 0 && strncmp(data, "/proc/", 6) != 0;
}

// The last save of a run, its options, and its text.
static TrainingState resume(TrainOptions *o, Text *text)
{
    char error[1024];
    TrainingState state;
    if (!state_load(o->out, o->init, &state, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    if (o->init != NULL && state.base_dir == NULL)
        die(EXIT_USAGE, "--init %s: the run in %s trains a whole model, which comes from there; leave out --init", o->init,
            o->out);
    options_resume(train_table.rows, o, o->given, &state.options, o->out);
    if (state.base_dir != NULL && !adapter_can_name(state.base_dir, error, sizeof error)) die(EXIT_USAGE, "--init: %s", error);
    o->config = state.options.config;
    o->lora = state.options.lora; // with what is no option
    if (o->data == NULL)
        die(EXIT_USAGE, "%s does not say where its text is, for it came through a pipe or its path is not UTF-8; give it with "
            "--data", o->out);
    if (!text_read(o->data, BUILTIN_CHARACTERS, &state.vocabulary, state.model->config.block_size, text, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    uint64_t hash = text_fingerprint(text);
    if (hash != state.text_hash)
        die(EXIT_FAILED, "%s is not the text of the run in %s: its hash is %016" PRIx64 ", not %016" PRIx64 "; say with --data "
            "where that text is now, or start a new run with --init and another --out", o->data, o->out, hash,
            state.text_hash);
    return state;
}

// A model and an adapter in one directory would be taken for each other, and one training state would replace the other's. And
// what somebody has trained is not replaced without a word.
static void check_directory(const TrainOptions *o)
{
    char path[FILE_PATH], what[200];
    bool adapter = o->lora.r > 0, has_state;
    snprintf(path, sizeof path, "%s/%s", o->out, adapter ? "model.safetensors" : "adapter_model.safetensors");
    if (access(path, F_OK) == 0)
        die(EXIT_USAGE, "--out %s holds %s; %s needs a directory of its own: choose another --out", o->out,
            adapter ? "a whole model" : "an adapter", adapter ? "an adapter" : "a whole model");
    if (!o->overwrite && state_describe(o->out, what, sizeof what, &has_state))
        die(EXIT_USAGE, "--out %s holds %s; %schoose another --out, or replace it with --overwrite", o->out, what,
            has_state ? "go on with it by --resume, " : "");
}

// What a base's configuration says of dropout, which model_load leaves to who trains.
static double dropout_of(const char *dir)
{
    char error[1024], why[512];
    double dropout = 0;
    Json *json = json_read(dir, "config.json", 1 << 20, error, sizeof error);
    if (json == NULL) die(EXIT_FAILED, "%s", error);
    if (!json_optional_number(json, "resid_pdrop", 0, &dropout, why, sizeof why)) die(EXIT_FAILED, "%s/config.json: %s", dir, why);
    if (!(dropout >= 0 && dropout <= MOST_DROPOUT))
        die(EXIT_FAILED, "%s/config.json: \"resid_pdrop\" is %g; say another with --dropout", dir, dropout);
    json_free(json);
    return dropout;
}

// Holds the base as asked, or as it is stored.
static void hold_base(Transformer *model, TrainOptions *o)
{
    char error[1024];
    if (!train_option_given(o, "base-type")) o->lora.base_type = model->base_type;
    if (!model_hold(model, o->lora.base_type, o->init, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    if (o->lora.r == 0 && model->base_type != BASE_FLOAT)
        die(EXIT_USAGE, "--init %s: it is stored in %s, and codes cannot train; --base-type float makes numbers of them, or train an "
            "adapter with --lora-r N", o->init, base_type_names[model->base_type]);
}

// Makes or loads the model that a new run begins with.
static TrainingState begin(TrainOptions *o, Text *text)
{
    char error[1024];
    TrainingState state = { 0 };
    check_directory(o);
    if (o->lora.r > 0 && !adapter_can_name(o->init, error, sizeof error)) die(EXIT_USAGE, "--init: %s", error);
    if (o->init != NULL) {
        state.model = model_load(o->init, &state.vocabulary, error, sizeof error);
        if (state.model == NULL) die(EXIT_FAILED, "%s", error);
        if (state.vocabulary.size == 0 &&
            !vocabulary_load(o->init, state.model->config.vocab_size, &state.vocabulary, error, sizeof error))
            die(EXIT_FAILED, "%s; without characters no text can be read for it", error);
        state.model->config.dropout = train_option_given(o, "dropout") ? o->config.dropout : dropout_of(o->init);
        if (!settings_load(o->init, &state.settings, error, sizeof error)) die(EXIT_FAILED, "%s", error);
        hold_base(state.model, o);
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
        state.base_dir = strcpy(allocate(strlen(o->init) + 1, 1, "a path"), o->init);
    }
    o->config = state.model->config;
    state.optimizer = adamw_new(state.model->parameters, state.model->parameter_count, o->adamw);
    state.text_hash = text_fingerprint(text);
    return state;
}

static void save(const TrainOptions *o, const TrainingState *state)
{
    char error[1024];
    if (!state_save(o->out, state, error, sizeof error)) die(EXIT_FAILED, "%s", error);
}

// ------------------------------------------------------------------------------------------------------------------- the log

// DIR/log.csv, a row for every tenth step and every evaluation. Until a new run's first save its rows are in a file beside it,
// for the log of an older run belongs to the model that is still there. Each later row is added by name: it goes where the next
// save will go, even if somebody has deleted the directory. A log that cannot be written is no reason to lose the run.
typedef struct Log { FileWriter *first; const char *dir; char path[FILE_PATH], error[512]; } Log;

static const char log_heading[] = "step,train_loss,val_loss,learning_rate,gradient_norm,ms\n";
static FileWriter *first_rows; // of a run that has saved nothing: they go with it, however it ends
static void drop_first_rows(void) { file_write_abort(first_rows), first_rows = NULL; }

static void begin_log(Log *log, const char *dir, bool resumed)
{
    log->dir = dir;
    bool good = file_path(log->path, dir, "log.csv", log->error, sizeof log->error);
    if (good && !resumed) {
        good = (first_rows = file_write_begin(log->path, log->error, sizeof log->error)) != NULL;
        if (good) file_printf(first_rows, "%s", log_heading);
    }
    if (!good) die(EXIT_FAILED, "%s", log->error);
    atexit(drop_first_rows);
}

// After a save: what was measured of an older model is not of the one that is there now.
static void keep_log(Log *log)
{
    char path[FILE_PATH], error[512];
    if (first_rows == NULL) return;
    file_write_commit(first_rows, log->error, sizeof log->error);
    first_rows = NULL;
    if (file_path(path, log->dir, "metrics.json", error, sizeof error)) remove(path);
}

static void log_row(Log *log, int64_t step, const double *val, double rate, const StepResult *result) // val NULL: none
{
    char row[200], loss[32] = "";
    if (val != NULL) snprintf(loss, sizeof loss, "%.6f", *val);
    int n = snprintf(row, sizeof row, "%" PRId64 ",%.6f,%s,%.8g,%.6g,%.3f\n", step, result->loss, loss, rate,
                     result->gradient_norm, 1e3 * result->seconds);
    if (first_rows != NULL) file_write(first_rows, row, (size_t)n);
    else if (access(log->path, F_OK) == 0
             || (file_make_directories(log->dir, log->error, sizeof log->error)
                 && file_append(log->path, log_heading, sizeof log_heading - 1, log->error, sizeof log->error)))
        file_append(log->path, row, (size_t)n, log->error, sizeof log->error);
}

// A run that was killed may have got further than its last save: who resumes from `step` writes the rows after it anew.
static void resume_log(Log *log, int64_t step)
{
    char error[1024], *old = NULL;
    size_t n;
    if (!file_read(log->path, (size_t)1 << 30, &old, &n, error, sizeof error)) return;
    char *end = strchr(old, '\n'); // of the heading, then of each row that stays
    while (end != NULL && end[1] != '\0' && strchr(end + 1, '\n') != NULL && strtoll(end + 1, NULL, 10) <= step)
        end = strchr(end + 1, '\n');
    const char *stays = end ? old : log_heading;
    size_t length = end ? (size_t)(end + 1 - old) : sizeof log_heading - 1;
    if (!file_write_all(log->path, stays, length, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    free(old);
}

// ------------------------------------------------------------------------------------------------------------------- the run

// The seconds of the last steps, for a median: a run may be too long to remember all of them.
enum { LAST_STEPS = 1000 };
typedef struct Times { double seconds[LAST_STEPS]; int64_t count; } Times;

typedef struct Run {
    TrainOptions      o;
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
    bool          stopped;    // the last evaluation was not waited for
    int64_t       evaluated;  // characters of it that are done
    Parts         parts;      // of a batch: --micro-batches, for each of the processes
    int           stop;       // the signal that asks them all to stop
    double        start, evaluating; // when the steps began, and seconds since then that were not spent in them
    double        character;  // seconds to evaluate one
} Run;

// The first signal asks to stop, after the step that runs; so does SIGPIPE, when nobody reads what is printed any more. Whoever
// asks again is told what is waited for: the save must not be lost. SIGQUIT (Ctrl-\) and SIGKILL are there for those who mean it.
static volatile sig_atomic_t stop_asked;
static void ask_to_stop(int signal_number)
{
    static const char patience[] = "train: stopping: once the step is done and saved this ends\n";
    if (!stop_asked) stop_asked = signal_number;
    else if (signal_number != SIGPIPE && write(STDERR_FILENO, patience, sizeof patience - 1) < 0) return; // nobody is there
}

static void on_signals(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };
    struct sigaction action = { .sa_handler = ask_to_stop, .sa_flags = SA_RESTART }, old;
    for (int i = 0; i < 4; i++) // one that is ignored (by nohup) stays so
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
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
    if (run->state.options.data == NULL)
        printf("  it cannot be read again: give it once more with --data to go on by --resume\n");
    printf("model: %d layers, %d heads, width %d, context %d", c->n_layer, c->n_head, c->n_embd, c->block_size);
    if (c->dropout > 0) printf(", dropout %g", c->dropout);
    printf("\n");
    printf("  %s numbers, of which %s (%.2f %%) train\n", thousands(run->all), thousands(run->trainable),
           100.0 * (double)run->trainable / (double)run->all);
    if (model->base_type != BASE_FLOAT)
        printf("base: %s, %s instead of %s in the weights of its linear layers\n", base_type_names[model->base_type],
               bytes_text((double)transformer_linear_bytes(model, model->base_type)),
               bytes_text((double)transformer_linear_bytes(model, BASE_FLOAT)));
    const Parts *p = &run->parts;
    if (p->count > 1)
        printf("each step: %d windows in %d parts; %d process%s with %d each\n", run->o.batch_size, p->count, ranks.count,
               ranks.count > 1 ? "es" : "", p->end - p->first);
}

static FileWriter *begin_metrics(const Run *run)
{
    char path[FILE_PATH], error[1024];
    FileWriter *file = NULL;
    if (file_path(path, run->o.out, "metrics.json", error, sizeof error)) file = file_write_begin(path, error, sizeof error);
    if (file == NULL) die(EXIT_FAILED, "%s", error);
    return file;
}

// What is said of the files when a run cannot go on.
static const char *what_is_left(const Run *run)
{
    return run->saved ? "what was saved before is intact, in" : "this run has saved nothing in";
}

// At the start, where it is also what process 0 waits for before it writes, and before each save: all processes must have the same
// text, the same weights and moments, to the bit, and the same settings as far as these decide who does what, and when.
static void compare_ranks(const Run *run)
{
    const AdamW *optimizer = run->state.optimizer;
    const TrainOptions *o = &run->o;
    if (ranks.count == 1) return;
    int64_t settings[] = { run->state.step, o->batch_size, o->micro_batches, o->eval_interval, (int64_t)o->seed };
    uint64_t hash = hash_bytes(transformer_hash(run->state.model), settings, sizeof settings);
    hash = hash_bytes(hash, &run->state.text_hash, sizeof run->state.text_hash);
    for (int i = 0; i < optimizer->count; i++) {
        const Tensor *t = optimizer->parameters[i];
        const real *adapter = i < run->state.model->base_count ? NULL : t->data; // the base is in the hash
        const real *const numbers[] = { adapter, optimizer->m[i], optimizer->v[i] };
        for (int k = 0; k < 3; k++)
            if (numbers[k] != NULL) hash = hash_bytes(hash, numbers[k], (size_t)t->size * sizeof(real));
    }
    int other = ranks_different(hash);
    if (other > 0)
        die(EXIT_FAILED, "step %" PRId64 ": process %d has other weights, moments, settings or text than process 0; start all with "
            "the same files, options and build; %s %s", run->state.step, other, what_is_left(run), run->o.out);
}

static Parts parts_of(const TrainOptions *o)
{
    int64_t count = (int64_t)o->micro_batches * ranks.count;
    int most = o->batch_size / ranks.count;
    char mend[64] = "fewer processes, or a larger --batch-size";
    if (most > 0) snprintf(mend, sizeof mend, "--micro-batches %d at most", most);
    if (count > o->batch_size)
        die(EXIT_USAGE, "--micro-batches %d, in %d process%s: %" PRId64 " parts of a batch of %d windows; some would be empty; take "
            "%s", o->micro_batches, ranks.count, ranks.count > 1 ? "es" : "", count, o->batch_size, mend);
    int first = o->micro_batches * ranks.index;
    return (Parts){ (int)count, first, first + o->micro_batches, ranks_add_up, NULL };
}

// What would be in the way of the first save is found before the work. What a resumed run left is brought to the state's step; a
// new run replaces an older model only when it has trained one.
static void prepare_files(Run *run)
{
    char error[1024];
    const TrainOptions *o = &run->o;
    if (o->resume) save(o, &run->state);
    else if (!state_rehearse(o->out, &run->state, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    file_write_abort(begin_metrics(run));
    begin_log(&run->log, o->out, o->resume);
    if (o->resume) resume_log(&run->log, run->first);
}

// All that the steps need.
static void prepare(Run *run)
{
    const TrainOptions *o = &run->o;
    int B = o->batch_size, T = run->state.model->config.block_size;
    if ((int64_t)B * T > 1 << 30) die(EXIT_USAGE, "--batch-size %d of %d characters each: more than 2^30 in a step", B, T);
    run->batch = allocate(2 * (size_t)B * (size_t)T, sizeof *run->batch, "a batch");
    run->first = run->state.step;
    if (run->first >= o->schedule.max_iters)
        printf("all %" PRId64 " steps are done already; --max-iters is the total\n", o->schedule.max_iters);
    run->saved = o->resume;
    compare_ranks(run); // and so all have read what there is, before process 0 writes
    if (ranks.index == 0) prepare_files(run);
    on_signals();
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
        result->gradient_norm, where, what_is_left(run), run->o.out);
}

// A line of what the model writes by now.
static void show_sample(Run *run)
{
    enum { SAMPLE = 60 };
    int tokens[1 + SAMPLE] = { 0 };
    char ignored[512], character[5];
    const Vocabulary *vocabulary = &run->state.vocabulary;
    if (vocabulary_encode(vocabulary, "\n", 1, tokens, ignored, sizeof ignored) < 0) tokens[0] = 0;
    generate_among(run->state.model, vocabulary->size, tokens, 1, SAMPLE, 0.8, 0, run->o.seed, NULL, NULL);
    progress_end(&run->progress);
    run->progress.length = 0;
    printf("  it writes: ");
    for (int i = 1; i <= SAMPLE; i++) {
        int n = vocabulary_decode(vocabulary, tokens[i], character);
        printf("%.*s", n, n == 1 && (unsigned char)character[0] < ' ' ? " " : character); // control characters stay out
    }
    printf("\n");
}

// After a step, which made the state's step number one larger: a row in the log, and if it is time for that an evaluation and a
// save.
static void after_step(Run *run, double rate, const StepResult *result)
{
    const TrainOptions *o = &run->o;
    TrainingState *state = &run->state;
    bool evaluate = state->step % o->eval_interval == 0 || state->step == o->schedule.max_iters;
    double val, start = seconds_now();
    if (evaluate) compare_ranks(run);
    if (ranks.index > 0) return;
    if (evaluate) {
        int pass = (o->batch_size + run->parts.count - 1) / run->parts.count; // no more windows at once than a step takes
        val = estimate_validation(state->model, &run->text, o->batch_size, pass);
        progress_validation(&run->progress, val);
        run->character = (seconds_now() - start) / (QUICK_BATCHES * o->batch_size * (double)state->model->config.block_size);
    }
    // before the save: --resume takes away rows that are too many, and cannot add what lacks
    if (evaluate || state->step % 10 == 1) log_row(&run->log, state->step, evaluate ? &val : NULL, rate, result);
    if (evaluate) {
        save(o, state);
        keep_log(&run->log);
        run->saved = true;
        show_sample(run);
    }
    run->evaluating += seconds_now() - start;
    run->progress.later = 2 * run->character * (double)evaluation_targets(state->model, &run->text);
}

// The loop. Ends after the last step, or after the one in which a signal came.
static void train_on(Run *run)
{
    const TrainOptions *o = &run->o;
    TrainingState *state = &run->state;
    Tape *tape = run->tape;
    int B = o->batch_size, T = state->model->config.block_size, *ids = run->batch, *targets = ids + B * T;
    run->start = seconds_now();
    while (!(run->stop = ranks_most(stop_asked)) && state->step < o->schedule.max_iters) {
        int64_t step = state->step;
        run->meter.trace = o->trace && step == run->first ? stdout : NULL;
        if (step == run->first + 1) { // what is measured begins when every buffer has been asked for once
            tape_clear(tape);
            meter_zero(&run->meter);
            memory_reset_peaks();
            ranks.sent = 0;
        }
        double rate = schedule_rate(&o->schedule, step);
        text_batch(&run->text, B, T, o->seed, step, ids, targets);
        StepResult result = training_step_in_parts(state->model, tape, state->optimizer, ids, targets, B, T, o->seed, step, rate,
                                                   &run->parts);
        if (!isfinite(result.loss) || !isfinite(result.gradient_norm)) stop_at_bad_number(run, &result);
        run->times.seconds[run->times.count++ % LAST_STEPS] = result.seconds;
        if (run->times.count == 1) run->character = result.seconds / (3.0 * B * T); // a guess: forward is a third of a step
        state->step++;
        if (state->step == 2 && run->first == 0 && untrained(state->model->active, &state->model->config))
            fprintf(stderr, "train: after two steps every B of the adapter is still 0: nothing is learned; is --learning-rate %g "
                    "what you meant?\n", o->schedule.learning_rate);
        after_step(run, rate, &result);
        progress_step(&run->progress, state->step, result.loss, (int64_t)B * T);
    }
    if (run->stop) compare_ranks(run);
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
    char error[1024];
    FileWriter *file = begin_metrics(run);
    file_printf(file, "{\n  \"val_loss\": %.6f,\n  \"train_loss\": %.6f,\n", m->val_loss, m->train_loss);
    if (!isnan(run->text.val_floor)) file_printf(file, "  \"floor\": %.6f,\n", run->text.val_floor);
    file_printf(file, "  \"base_type\": \"%s\",\n", base_type_names[run->state.model->base_type]);
    file_printf(file, "  \"step_ms_median\": %.3f,\n  \"tokens_per_second\": %.0f,\n", m->step_ms, m->tokens_per_second);
    const Meter *meter = &run->meter;
    const Ledger *peaks = &m->peaks;
    const struct { const char *key; int64_t count; } numbers[] = {
        { "trainable_parameters", run->trainable }, { "all_parameters", run->all },
        { "dgrad", meter->dgrad / m->steps }, { "wgrad", meter->wgrad / m->steps },
        { "wgrad_skipped", meter->wgrad_skipped / m->steps },
        { "wgrad_never_recorded", meter->wgrad_never_recorded / m->steps },
        { "adapter_gradients", meter->adapter_gradients / m->steps },
        { "micro_batches", run->o.micro_batches }, { "ranks", ranks.count }, { "wire_bytes", ranks.sent / m->steps },
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
    int64_t targets = evaluation_targets(run->state.model, &run->text), all = run->text.count - run->text.train_count - 1;
    if (targets < all)
        printf("evaluated: windows of %s characters, evenly spaced over %s of each part\n", thousands(targets), thousands(all));
    if (!isnan(floor)) printf("floor: %.4f on the validation text; the model is %.4f above it\n", floor, m->val_loss - floor);
    if (validation_leaks(&run->text, m->val_loss))
        die(EXIT_FAILED, "the validation loss is below what any model can reach: it saw what it should predict; this is a bug");
    if (run->state.model->active != NULL) {
        uint64_t now = transformer_hash(run->state.model);
        printf("base: hash %016" PRIx64 " before and %016" PRIx64 " after\n", run->hash, now);
        if (now != run->hash) die(EXIT_FAILED, "the frozen base has changed: this is a bug");
    }
    printf("saved in %s; what next:\n", run->o.out);
    if (run->state.model->active == NULL)
        printf("  ./sample --model %s\n  ./train --init %s --lora-r 8 --data FILE --out DIR\n", run->o.out, run->o.out);
    else {
        BaseType type = run->state.model->base_type; // float, or in codes what the adapter knows: its base is held so again
        printf("  ./sample --model %s --adapter %s%s%s\n", run->state.base_dir, run->o.out, type == BASE_FLOAT ? "" : " --base-type ",
               type == BASE_FLOAT ? "" : base_type_names[type]);
    }
    printf("  ./train --resume --out %s --max-iters %" PRId64 "\n", run->o.out, 2 * run->o.schedule.max_iters);
    printf("final: train loss %.4f, val loss %.4f", m->train_loss, m->val_loss);
    if (run->times.count > 0)
        printf(", %.0f tokens/s, peak %" PRId64 " bytes", m->tokens_per_second, (int64_t)m->peaks.peak);
    printf("\n");
}

static bool still_wanted(void *context, int64_t done)
{
    Run *run = context;
    progress_step(&run->progress, run->evaluated + done, (double)NAN, 1);
    int64_t targets = evaluation_targets(run->state.model, &run->text);
    if (done == targets) run->evaluated += done;
    return !(run->stopped = stop_asked);
}

// Both losses, with a progress line if it takes time. False: a signal ended it; the model is saved, its losses are not known.
static bool evaluate(Run *run, Metrics *m)
{
    progress_begin(&run->progress, "evaluating", 0, 2 * evaluation_targets(run->state.model, &run->text), (double)NAN);
    run->progress.patience = 2;
    evaluate_both(run->state.model, &run->text, &m->train_loss, &m->val_loss, still_wanted, run);
    progress_end(&run->progress);
    return !run->stopped;
}

// From the last step to the last line: losses are evaluated, and what was measured is written and printed.
static void finish(Run *run)
{
    const TrainOptions *o = &run->o;
    int64_t done = run->state.step - run->first;
    Metrics m = { .steps = done > 1 ? done - 1 : 1, .peaks = ledger };
    progress_end(&run->progress);
    progress_curve(&run->progress);
    if (done > 0)
        m.tokens_per_second = (double)(done * o->batch_size * run->state.model->config.block_size)
                            / (seconds_now() - run->start - run->evaluating);
    bool stopped = run->stop != 0;
    if (stopped) save(o, &run->state);
    keep_log(&run->log);
    if (stopped)
        printf("stopped after step %" PRId64 " and saved; go on with: ./train --resume --out %s\n", run->state.step, o->out);
    else if (!evaluate(run, &m))
        printf("stopped in the last evaluation; the model of step %" PRId64 " is saved in %s, its losses are not known\n",
               run->state.step, o->out);
    else if (done > 0) { // else what the run wrote at its end is there already
        m.step_ms = 1e3 * median(run->times.seconds, done < LAST_STEPS ? done : LAST_STEPS);
        write_metrics(run, &m);
    }
    if (run->log.error[0] != '\0')
        die(EXIT_FAILED, "%s; log.csv is not complete, but the model itself is saved in %s", run->log.error, o->out);
    if (!stopped && !run->stopped) report(run, &m);
}

int main(int argc, char **argv)
{
    program_begin("train");
    ranks_begin();
    Run run = { .o = read_options(argc, argv) };
    if (run.o.threads > 0) parallel_set_threads(run.o.threads);
    if (ranks.count > 1 && run.o.data != NULL && access(run.o.data, F_OK) == 0 && !can_be_read_again(run.o.data))
        die(EXIT_USAGE, "--data %s: each of %d processes reads the text itself, so it must be in a file", run.o.data, ranks.count);
    run.state = run.o.resume ? resume(&run.o, &run.text) : begin(&run.o, &run.text);
    run.state.options = run.o;
    if (!can_be_read_again(run.o.data)) run.state.options.data = run.state.data; // what was known before, or NULL
    run.state.model->recompute = run.o.recompute;
    run.parts = parts_of(&run.o);
    print_heading(&run);
    prepare(&run);
    train_on(&run);
    if (ranks.index == 0) finish(&run);
    clean_up(&run);
    return ranks_most(stop_asked || run.stop ? 128 + (stop_asked ? stop_asked : run.stop) : output_status());
}
