// train_options.c - see train_options.h. The table is in the order of --help.

#include "train_options.h"

#include "adapters.h"
#include "kernels.h"
#include "model_file.h"

static bool read_targets(const char *names, void *targets, char *why, size_t size)
{
    const char *bad = NULL;
    unsigned set = lora_targets(names, &bad);
    if (set == 0)
        return fail(why, size, "\"%.100s\" is no layer; there are c_attn, attn.c_proj, c_fc, mlp.c_proj, c_proj for both "
                    "projections, and q, k, v", bad);
    *(unsigned *)targets = set;
    return true;
}

static const char *write_targets(const void *targets) { return lora_targets_text(*(const unsigned *)targets); }

enum { MANY = 1 << 20 };
#define FLAG(member)           FLAG_OPTION(TrainOptions, member)
#define TEXT(member)           TEXT_OPTION(TrainOptions, member)
#define INT(member, ...)       INT_OPTION(TrainOptions, member, __VA_ARGS__)
#define STEPS(member, from)    INT64_OPTION(TrainOptions, member, from, MOST_STEPS)
#define NUMBER(member, ...)    DOUBLE_OPTION(TrainOptions, member, __VA_ARGS__)
#define TARGETS(member)        WORDS_OPTION(TrainOptions, member, read_targets, write_targets)
#define BASE_TYPE_OF(member)   WORDS_OPTION(TrainOptions, member, base_type_read, base_type_write)

static const Option options[] = {
    { .meaning = "What is read and written" },
    { "data", "FILE|builtin:NAME", "builtin:tales",
      "the text, in UTF-8; built in: tales and the tasks pirate, robot, ghost", KEPT, TEXT(data) },
    { "out", "DIR", "out", "where the model, or the adapter, and logs go", TEXT(out) },
    { "overwrite", NULL, NULL, "replace the model or adapter that is there, at the first save", FLAG(overwrite) },
    { "init", "DIR", NULL, "start from this model instead of random weights", TEXT(init) },
    { "resume", NULL, NULL, "go on from the last save in --out, with its text and settings, to the bit as if it had never "
      "stopped. --max-iters, --eval-interval, --micro-batches, --threads and --recompute may be others; with another total the "
      "learning rate follows the new curve from there on, with another number of parts rounding and dropout differ. --data and --init say where the text and an adapter's base are now, if "
      "they have moved", FLAG(resume) },

    { .meaning = "The model, if there is no --init" },
    { "n-layer", "N", "4", "blocks", OF_MODEL, INT(config.n_layer, 1, 4096) },
    { "n-head", "N", "4", "heads of attention in each", OF_MODEL, INT(config.n_head, 1, 65536) },
    { "n-embd", "N", "128", "width, a multiple of the heads", OF_MODEL, INT(config.n_embd, 1, 65536) },
    { "block-size", "N", "64", "characters that it sees", OF_MODEL, INT(config.block_size, 1, MANY) },
    { "dropout", "X", "0", "part of the activations that a step leaves out; with --init the base's",
      SETTLED, NUMBER(config.dropout, 0, MOST_DROPOUT) },

    { .meaning = "An adapter on a frozen base" },
    { "lora-r", "N", "0", "0: train everything; N > 0: freeze --init and train adapters of rank N",
      SETTLED, INT(lora.r, 0, 65536) },
    { "lora-alpha", "X", NULL, "the adapters' scale is alpha / r (twice r)", SETTLED, NUMBER(lora.alpha, 0, 1e6) },
    { "lora-targets", "LIST", "c_attn", "of c_attn, attn.c_proj, c_fc, mlp.c_proj; c_proj means both; in the place of "
      "c_attn some of its parts q, k, v, each of rank N", SETTLED, TARGETS(lora.targets) },
    { "base-type", "float|nf4|int8", NULL, "hold the weights of the base's linear layers in 4 or 8 bits each (as its files "
      "do)", SETTLED, BASE_TYPE_OF(lora.base_type), .later = true },

    { .meaning = "The steps" },
    { "max-iters", "N", "2000", "steps in all, those before a --resume included", KEPT, STEPS(schedule.max_iters, 1) },
    { "batch-size", "N", "12", "windows of the text in each", SETTLED, INT(batch_size, 1, MANY) },
    { "learning-rate", "X", "1e-3", "the highest rate", SETTLED, NUMBER(schedule.learning_rate, 0, 100) },
    { "min-lr", "X", "1e-4", "the last, at most the highest", SETTLED, NUMBER(schedule.min_lr, 0, 100) },
    { "warmup-iters", "N", "100", "steps in which it rises", SETTLED, STEPS(schedule.warmup_iters, 0) },
    { "weight-decay", "X", "0.1", "of AdamW, on matrices", SETTLED, NUMBER(adamw.weight_decay, 0, 100) },
    { "beta1", "X", "0.9", "of the first moment", SETTLED, NUMBER(adamw.beta1, 0, 0.999999) },
    { "beta2", "X", "0.99", "of the second", SETTLED, NUMBER(adamw.beta2, 0, 0.999999) },
    { "grad-clip", "X", "1.0", "longest gradient; 0: any", SETTLED, NUMBER(adamw.grad_clip, 0, 1e9) },
    { "seed", "N", "1337", "of weights, batches, dropout", SETTLED, INT64_OPTION(TrainOptions, seed, 0, LARGEST_SEED) },

    { .meaning = "How it runs" },
    { "eval-interval", "N", "250", "steps between evaluations and saves", KEPT, STEPS(eval_interval, 1) },
    { "micro-batches", "K", "1", "passes in which a batch is taken: their gradients add up before one step, and activations are "
      "those of one pass. Under mpirun each process takes K", KEPT, INT(micro_batches, 1, MANY), .later = true },
    { "threads", "N", NULL, "(one for each core); the result does not depend on it", INT(threads, 1, MAX_THREADS) },
    { "recompute", NULL, NULL, "keep only the blocks' inputs, and run each block again in backward", FLAG(recompute) },
    { "trace", NULL, NULL, "print the first step's backward pass, node by node", FLAG(trace) },
    { 0 }
};

const OptionTable train_table = {
    .head = "train: trains a character-level transformer on any UTF-8 text",
    .rows = options,
    .tail = "Example: ./train --data book.txt --out out/book\n"
    "         ./train --data builtin:pirate --init out/book --lora-r 8 \\\n"
    "                 --learning-rate 3e-3 --out out/pirate"
};

TrainOptions train_options_default(void)
{
    TrainOptions o = { .lora.last_block = -1 };
    options_default(options, &o);
    return o;
}

bool train_option_given(const TrainOptions *o, const char *name) { return option_given(options, o->given, name); }

bool train_options_complete(TrainOptions *o, char *error, size_t size)
{
    static const char *const shape[] = { "n-layer", "n-head", "n-embd", "block-size" };
    Schedule *rate = &o->schedule;
    bool targets = train_option_given(o, "lora-targets");
    if (o->lora.r == 0 && (targets || train_option_given(o, "lora-alpha")))
        return fail(error, size, "--lora-%s needs --lora-r N: without a rank there is no adapter, and the whole model "
                    "would train", targets ? "targets" : "alpha");
    if (o->lora.r == 0 && o->lora.base_type != BASE_FLOAT)
        return fail(error, size, "--base-type %s needs --lora-r N: codes cannot train, only adapters on them",
                    base_type_names[o->lora.base_type]);
    if (o->lora.r > 0 && o->init == NULL)
        return fail(error, size, "--lora-r %d needs --init DIR: an adapter is trained on a model that exists; train one first, "
                    "without --lora-r", o->lora.r);
    for (int i = 0; i < 4; i++)
        if (o->init != NULL && train_option_given(o, shape[i]))
            return fail(error, size, "--%s: the shape comes from %s; leave it out", shape[i], o->init);
    if (!train_option_given(o, "lora-alpha")) o->lora.alpha = 2.0 * o->lora.r;
    if (!train_option_given(o, "min-lr") && rate->min_lr > rate->learning_rate) rate->min_lr = rate->learning_rate;
    if (rate->min_lr > rate->learning_rate)
        return fail(error, size, "--min-lr %g is above --learning-rate %g; the rate only falls", rate->min_lr,
                    rate->learning_rate);
    return true;
}
