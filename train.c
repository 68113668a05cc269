// train.c - trains a character-level transformer on a text: all of it, or LoRA adapters on a frozen base.
//
//     ./train --data book.txt --out out/book                                          everything trains
//     ./train --data other.txt --init out/book --lora-r 8 --out out/other             the base is frozen, an adapter trains
//     ./train --resume --out out/book --max-iters 4000                                goes on, to the bit as if never stopped
//
// From the top: the options; begin() for a new run and resume() for an old one, which both end in a TrainingState; the log;
// main with the loop. A step itself is training_step in training.c, for demo.c and the notebooks take the same one. LoRA
// differs from full training in two calls of begin(): transformer_train_base(model, false) and transformer_add_adapter.
//
// Into --out go the model or the adapter, the state for --resume, log.csv (a row every ten steps) and metrics.json (losses,
// counts, bytes). After LoRA the base's hash is compared with the one before: a frozen bit that moved is an error.
//
// Read next: training.c, then sample.c.

#include "io/evaluation.h"
#include "io/file.h"
#include "io/json.h"
#include "io/machine.h"
#include "io/model_file.h"
#include "io/options.h"
#include "io/progress.h"
#include "io/state_file.h"

#include <errno.h>
#include <getopt.h>
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
    long     eval_interval;
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

// The command line's options, in place of those of `start`.
static Options read_options(int argc, char **argv, const Options *start)
{
    enum {
        DATA = 1, OUT, INIT, RESUME, LORA_R, LORA_ALPHA, LORA_TARGETS, N_LAYER, N_HEAD, N_EMBD, BLOCK_SIZE, BATCH_SIZE,
        MAX_ITERS, LEARNING_RATE, MIN_LR, WARMUP_ITERS, WEIGHT_DECAY, BETA1, BETA2, GRAD_CLIP, DROPOUT, EVAL_INTERVAL, SEED,
        THREADS, RECOMPUTE, TRACE, HELP
    };
    static const struct option table[] = {
        { "data", 1, NULL, DATA }, { "out", 1, NULL, OUT }, { "init", 1, NULL, INIT }, { "resume", 0, NULL, RESUME },
        { "lora-r", 1, NULL, LORA_R }, { "lora-alpha", 1, NULL, LORA_ALPHA }, { "lora-targets", 1, NULL, LORA_TARGETS },
        { "n-layer", 1, NULL, N_LAYER }, { "n-head", 1, NULL, N_HEAD }, { "n-embd", 1, NULL, N_EMBD },
        { "block-size", 1, NULL, BLOCK_SIZE }, { "batch-size", 1, NULL, BATCH_SIZE }, { "max-iters", 1, NULL, MAX_ITERS },
        { "learning-rate", 1, NULL, LEARNING_RATE }, { "min-lr", 1, NULL, MIN_LR }, { "warmup-iters", 1, NULL, WARMUP_ITERS },
        { "weight-decay", 1, NULL, WEIGHT_DECAY }, { "beta1", 1, NULL, BETA1 }, { "beta2", 1, NULL, BETA2 },
        { "grad-clip", 1, NULL, GRAD_CLIP }, { "dropout", 1, NULL, DROPOUT }, { "eval-interval", 1, NULL, EVAL_INTERVAL },
        { "seed", 1, NULL, SEED }, { "threads", 1, NULL, THREADS }, { "recompute", 0, NULL, RECOMPUTE },
        { "trace", 0, NULL, TRACE }, { "help", 0, NULL, HELP }, { 0 }
    };
    Options o = *start;
    opterr = 0;
    optind = 1;
    for (int option, index = 0; (option = getopt_long(argc, argv, ":", table, &index)) != -1;) {
        const char *name = option > 0 && option <= HELP ? table[option - 1].name : "";
        switch (option) {
        case DATA: o.data = optarg; break;
        case OUT: o.out = optarg; break;
        case INIT: o.init = optarg; break;
        case RESUME: o.resume = true; break;
        case LORA_R: o.lora.r = (int)option_int(name, optarg, 0, 65536); break;
        case LORA_ALPHA: o.lora.alpha = option_double(name, optarg, 0, 1e6); o.alpha_given = true; break;
        case LORA_TARGETS: {
            const char *bad = NULL;
            o.targets_given = true;
            o.lora.targets = lora_targets(optarg, &bad);
            if (o.lora.targets == 0)
                die(EXIT_USAGE, "--lora-targets %s: \"%s\" is no layer; there are c_attn, attn.c_proj, c_fc, mlp.c_proj, c_proj "
                    "for both projections, and q, k, v", optarg, bad);
            break;
        }
        case N_LAYER: o.config.n_layer = (int)option_int(name, optarg, 1, 4096); o.shape_given = true; break;
        case N_HEAD: o.config.n_head = (int)option_int(name, optarg, 1, 65536); o.shape_given = true; break;
        case N_EMBD: o.config.n_embd = (int)option_int(name, optarg, 1, 65536); o.shape_given = true; break;
        case BLOCK_SIZE: o.config.block_size = (int)option_int(name, optarg, 1, 1 << 20); o.shape_given = true; break;
        case BATCH_SIZE: o.batch_size = (int)option_int(name, optarg, 1, 1 << 20); break;
        case MAX_ITERS: o.schedule.max_iters = option_int(name, optarg, 1, 1l << 40); break;
        case LEARNING_RATE: o.schedule.learning_rate = option_double(name, optarg, 0, 100); break;
        case MIN_LR: o.schedule.min_lr = option_double(name, optarg, 0, 100); o.min_lr_given = true; break;
        case WARMUP_ITERS: o.schedule.warmup_iters = option_int(name, optarg, 0, 1l << 40); break;
        case WEIGHT_DECAY: o.adamw.weight_decay = option_double(name, optarg, 0, 100); break;
        case BETA1: o.adamw.beta1 = option_double(name, optarg, 0, 0.999999); break;
        case BETA2: o.adamw.beta2 = option_double(name, optarg, 0, 0.999999); break;
        case GRAD_CLIP: o.adamw.grad_clip = option_double(name, optarg, 0, 1e9); break;
        case DROPOUT: o.config.dropout = option_double(name, optarg, 0, 0.99); break;
        case EVAL_INTERVAL: o.eval_interval = option_int(name, optarg, 1, 1l << 40); break;
        case SEED: o.seed = option_seed(optarg); break;
        case THREADS: o.threads = (int)option_int(name, optarg, 1, MAX_THREADS); break;
        case RECOMPUTE: o.recompute = true; break;
        case TRACE: o.trace = true; break;
        case HELP: help(); exit(output_status());
        default: option_unknown(argv, optind - 1);
        }
    }
    if (optind < argc) die(EXIT_USAGE, "%s: train takes options only; --help lists them", argv[optind]);
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

// Going on with other settings would be another run: what is given anew must be what it was.
static void check_agreement(const Options *saved, const Options *given)
{
    const char *was = lora_targets_text(saved->lora.targets), *is = lora_targets_text(given->lora.targets);
    const struct { const char *name; double was, is; } numbers[] = {
        { "n-layer", saved->config.n_layer, given->config.n_layer }, { "n-head", saved->config.n_head, given->config.n_head },
        { "n-embd", saved->config.n_embd, given->config.n_embd },
        { "block-size", saved->config.block_size, given->config.block_size },
        { "dropout", saved->config.dropout, given->config.dropout }, { "lora-r", saved->lora.r, given->lora.r },
        { "lora-alpha", saved->lora.alpha, given->lora.alpha }, { "batch-size", saved->batch_size, given->batch_size },
        { "learning-rate", saved->schedule.learning_rate, given->schedule.learning_rate },
        { "min-lr", saved->schedule.min_lr, given->schedule.min_lr },
        { "warmup-iters", (double)saved->schedule.warmup_iters, (double)given->schedule.warmup_iters },
        { "weight-decay", saved->adamw.weight_decay, given->adamw.weight_decay },
        { "beta1", saved->adamw.beta1, given->adamw.beta1 },
        { "beta2", saved->adamw.beta2, given->adamw.beta2 }, { "grad-clip", saved->adamw.grad_clip, given->adamw.grad_clip },
    };
    static const char hint[] = "leave it out to go on as before, or start a new run with --init and another --out";
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].was != numbers[i].is)
            die(EXIT_USAGE, "--%s %.10g: the run in %s has %.10g; %s", numbers[i].name, numbers[i].is, given->out,
                numbers[i].was, hint);
    if (strcmp(was, is) != 0) die(EXIT_USAGE, "--lora-targets %s: the run in %s has %s; %s", is, given->out, was, hint);
    if (saved->seed != given->seed)
        die(EXIT_USAGE, "--seed %llu: the run in %s has %llu; %s", (unsigned long long)given->seed, given->out,
            (unsigned long long)saved->seed, hint);
}

// The last save of a run, and its options.
static TrainingState resume(int argc, char **argv, Options *o)
{
    char error[1024];
    TrainingState state;
    if (!state_load(o->out, o->init, &state, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    if (o->init != NULL && state.base_dir == NULL)
        die(EXIT_USAGE, "--init %s: the run in %s trains a whole model, which comes from there; leave out --init", o->init,
            o->out);
    Options saved = saved_options(o, &state);
    *o = read_options(argc, argv, &saved);
    check_agreement(&saved, o);
    if (o->data == NULL) die(EXIT_USAGE, "%s does not say where its text is; give --data", o->out);
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

// A run that was killed may have got further than its last save: who resumes from `step` writes the rows after it anew.
static void resume_log(Log *log, const char *dir, long step)
{
    char path[4096], error[1024], *old = NULL;
    size_t n;
    snprintf(path, sizeof path, "%s/log.csv", dir);
    if (file_read(path, (size_t)1 << 30, &old, &n, error, sizeof error)) {
        char *end = strchr(old, '\n'); // of the heading, then of each row that stays
        while (end != NULL && end[1] != '\0' && strchr(end + 1, '\n') != NULL && atol(end + 1) <= step)
            end = strchr(end + 1, '\n');
        if (!file_write_all(path, old, end ? (size_t)(end + 1 - old) : 0, error, sizeof error)) die(EXIT_FAILED, "%s", error);
        free(old);
    }
    log->file = open_log(dir, "a");
    if (ftell(log->file) == 0) fputs(log_heading, log->file);
}

static volatile sig_atomic_t stop_asked;
static void ask_to_stop(int signal_number) { stop_asked = signal_number; }

static void clean_up(Tape *tape, int *batch, double *times, Text *text, TrainingState *state)
{
    tape_free(tape);
    free(batch);
    free(times);
    text_free(text);
    state_free(state);
    memory_release_pool();
}

// What a run measured, for metrics.json.
typedef struct Metrics {
    const char *dir;
    double train_loss, val_loss, floor;       // floor: NAN if there is none
    double step_ms, tokens_per_second;
    long   trainable, all;
    long   steps;                             // that the counts are of
    const Counts *counts;
    const Ledger *peaks;
} Metrics;

static void write_metrics(const Metrics *m)
{
    char path[4096], error[1024];
    snprintf(path, sizeof path, "%s/metrics.json", m->dir);
    FileWriter *file = file_write_begin(path, error, sizeof error);
    if (file == NULL) die(EXIT_FAILED, "%s", error);
    file_printf(file, "{\n  \"val_loss\": %.6f,\n  \"train_loss\": %.6f,\n", m->val_loss, m->train_loss);
    if (!isnan(m->floor)) file_printf(file, "  \"floor\": %.6f,\n", m->floor);
    file_printf(file, "  \"step_ms_median\": %.3f,\n  \"tokens_per_second\": %.0f,\n", m->step_ms, m->tokens_per_second);
    file_printf(file, "  \"trainable_parameters\": %ld,\n  \"all_parameters\": %ld,\n", m->trainable, m->all);
    const Counts *counts = m->counts;
    const struct { const char *key; long count; } gradients[] = {
        { "dgrad", counts->dgrad }, { "wgrad", counts->wgrad }, { "wgrad_skipped", counts->wgrad_skipped },
        { "wgrad_never_recorded", counts->wgrad_never_recorded }, { "adapter_gradients", counts->adapter_gradients },
    };
    for (size_t i = 0; i < sizeof gradients / sizeof *gradients; i++)
        file_printf(file, "  \"%s\": %ld,\n", gradients[i].key, gradients[i].count / m->steps);
    file_printf(file, "  \"flops\": {");
    for (int p = 0; p < PHASES; p++)
        file_printf(file, "%s\"%s\": %ld", p ? ", " : "", phase_names[p], counts_phase(counts, (Phase)p).flops / m->steps);
    file_printf(file, "},\n  \"pool_bytes\": %ld,\n  \"peak_bytes\": {\"total\": %ld", m->peaks->pool, m->peaks->peak);
    for (int k = 0; k < MEMORY_KINDS; k++) file_printf(file, ", \"%s\": %ld", memory_kind_names[k], m->peaks->at_peak[k]);
    file_printf(file, "},\n  \"own_peak_bytes\": {");
    for (int k = 0; k < MEMORY_KINDS; k++)
        file_printf(file, "%s\"%s\": %ld", k ? ", " : "", memory_kind_names[k], m->peaks->own_peak[k]);
    file_printf(file, "}\n}\n");
    if (!file_write_commit(file, error, sizeof error)) die(EXIT_FAILED, "%s", error);
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

int main(int argc, char **argv)
{
    program_name = "train";
    Options o = read_options(argc, argv, &defaults);
    if (!o.resume) complete(&o);
    if (o.threads > 0) parallel_set_threads(o.threads);
    Text text;
    char error[1024];
    TrainingState state = o.resume ? resume(argc, argv, &o) : begin(&o, &text);
    Transformer *model = state.model;
    const Config *c = &model->config;
    model->recompute = o.recompute;
    if (o.resume) {
        if (!text_read(o.data, BUILTIN_CHARACTERS, &state.vocabulary, c->block_size, &text, error, sizeof error))
            die(EXIT_FAILED, "%s", error);
        uint64_t hash = text_fingerprint(&text);
        if (hash != state.text_hash)
            die(EXIT_FAILED,
                "%s is not the text of the run in %s: its hash is %016llx, not %016llx; say with --data where that text is "
                "now, or start a "
                "new run with --init and another --out",
                o.data, o.out, (unsigned long long)hash, (unsigned long long)state.text_hash);
    }
    describe(&state, &o);
    long trainable = transformer_trainable_size(model),
         all = transformer_base_size(model) + (model->active ? adapter_size(model->active, c) : 0);
    printf("%s: %s characters, vocabulary %d\n", o.data, thousands(text.count), c->vocab_size);
    if (!isnan(text.val_floor)) printf("  no model can beat %.3f nats a character\n", text.val_floor);
    else printf("  guessing gives %.3f nats a character\n", log(c->vocab_size));
    printf("model: %d layers, %d heads, width %d, context %d\n", c->n_layer, c->n_head, c->n_embd, c->block_size);
    printf("  %s numbers, of which %s (%.2f %%) train\n", thousands(all), thousands(trainable),
           100.0 * (double)trainable / (double)all);

    int B = o.batch_size, T = c->block_size;
    if ((long)B * T > 1 << 30) die(EXIT_USAGE, "--batch-size %d of %d characters each: more than 2^30 in a step", B, T);
    int *batch = allocate(2 * (size_t)B * (size_t)T, sizeof *batch, "a batch");
    long todo = o.schedule.max_iters - state.step;
    double *times = allocate((size_t)(todo > 0 ? todo : 1), sizeof *times, "the times of the steps");
    if (todo <= 0) printf("all %ld steps are done already; --max-iters is the total\n", o.schedule.max_iters);

    // A directory that cannot be written to is found before the work. What a resumed run left is brought to the state's step; a
    // new run replaces an older model only when it has trained one.
    if (o.resume) save(&o, &state);
    else if (!file_make_directories(o.out, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    Log log = { 0 };
    if (o.resume) resume_log(&log, o.out, state.step);
    else begin_log(&log);
    struct sigaction action = { .sa_handler = ask_to_stop };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    uint64_t hash = transformer_hash(model);
    Tape *tape = tape_new();
    Progress progress;
    progress_begin(&progress, "training", state.step, o.schedule.max_iters, text.train_floor);
    long first = state.step;
    bool saved = o.resume;
    double before = seconds_now(), evaluating = 0;
    while (state.step < o.schedule.max_iters && !stop_asked) {
        long step = state.step;
        tape->trace = o.trace && step == first ? stdout : NULL;
        if (step == first + 1) {
            tape_clear(tape);
            tape->counts = (Counts){ 0 };
            memory_reset_peaks();
        }
        double rate = schedule_rate(&o.schedule, step);
        text_batch(&text, B, T, state.seed, step, batch, batch + B * T);
        StepResult result = training_step(model, tape, state.optimizer, batch, batch + B * T, B, T, state.seed, step, rate);
        if (!isfinite(result.loss) || !isfinite(result.gradient_norm)) {
            char where[256] = "every weight and gradient is finite; a smaller --learning-rate may help";
            find_bad_number(model, where, sizeof where);
            clean_up(tape, batch, times, &text, &state);
            die(EXIT_FAILED, "step %ld: the loss is %g and the gradient's norm %g: %s; %s %s", step, result.loss,
                result.gradient_norm, where,
                saved ? "what was saved before is intact, in" : "this run has saved nothing in", o.out);
        }
        times[step - first] = result.seconds;
        state.step++;
        if (state.step == 2 && first == 0 && untrained(model->active, c))
            fprintf(stderr,
                    "train: after two steps every B of the adapter is still 0: nothing is learned; is --learning-rate %g what "
                    "you meant?\n",
                    o.schedule.learning_rate);
        bool evaluate = state.step % o.eval_interval == 0 || state.step == o.schedule.max_iters;
        double val = (double)NAN, start = seconds_now();
        if (evaluate) {
            val = estimate_validation(model, &text, B);
            progress_validation(&progress, val);
        }
        if (evaluate
            || step % 10 == 0) { // before the save: --resume takes away rows that are too many, and cannot add what lacks
            fprintf(log.file, "%ld,%.6f,", state.step, result.loss);
            if (evaluate) fprintf(log.file, "%.6f", val);
            fprintf(log.file, ",%.8g,%.6g,%.3f\n", rate, result.gradient_norm, 1e3 * result.seconds);
            fflush(log.file);
        }
        if (evaluate) {
            save(&o, &state);
            keep_log(&log, o.out);
            saved = true;
        }
        evaluating += seconds_now() - start;
        progress_step(&progress, state.step, result.loss, (long)B * T);
    }
    action.sa_handler = SIG_DFL; // what is left can be stopped at any time: each file is replaced whole
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    progress_end(&progress);
    progress_curve(&progress);
    long done = state.step - first;
    double tokens_per_second = done > 0 ? (double)(done * B * T) / (seconds_now() - before - evaluating) : 0;
    if (stop_asked) save(&o, &state);
    keep_log(&log, o.out);
    bool logged = !ferror(log.file);
    logged &= fclose(log.file) == 0;
    if (stop_asked) {
        printf("stopped after step %ld and saved; go on with: ./train --resume --out %s\n", state.step, o.out);
        clean_up(tape, batch, times, &text, &state);
        return 128 + stop_asked;
    }

    Ledger peaks = ledger; // of the steps alone
    double train_loss = evaluate_training(model, &text), val_loss = evaluate_validation(model, &text);
    if (done > 0) // else what the run wrote at its end is there already
        write_metrics(&(Metrics){ .dir = o.out, .train_loss = train_loss, .val_loss = val_loss, .floor = text.val_floor,
                                  .step_ms = 1e3 * median(times, done), .tokens_per_second = tokens_per_second,
                                  .trainable = trainable, .all = all, .steps = done > 1 ? done - 1 : 1,
                                  .counts = &tape->counts, .peaks = &peaks });
    if (!logged)
        die(EXIT_FAILED, "%s/log.csv is not complete: is the disk full? The model itself is saved in %s", o.out, o.out);

    if (!isnan(text.val_floor))
        printf("floor: %.4f on the validation text; the model is %.4f above it\n", text.val_floor, val_loss - text.val_floor);
    if (validation_leaks(&text, val_loss))
        die(EXIT_FAILED, "the validation loss is below what any model can reach: it saw what it should predict; this is a bug");
    if (model->active != NULL) {
        uint64_t now = transformer_hash(model);
        printf("base: hash %016llx before and %016llx after\n", (unsigned long long)hash, (unsigned long long)now);
        if (now != hash) die(EXIT_FAILED, "the frozen base has changed: this is a bug");
    }
    printf("saved in %s\n", o.out);
    printf("final: train loss %.4f, val loss %.4f", train_loss, val_loss);
    if (done > 0) printf(", %.0f tokens/s, peak %ld bytes", tokens_per_second, peaks.peak);
    printf("\n");

    clean_up(tape, batch, times, &text, &state);
    return output_status();
}
