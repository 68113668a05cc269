// measure.h - how demo, questions, plots and bench make models, run steps and measure them: once for all of them.
//
//     Text text = open_text("builtin:tales", 20000, 32);
//     Transformer *model = new_model((Config){ text.vocabulary.size, 32, 4, 2, 64, 0 }, seed);
//     adapt(model, &on_c_attn, seed);                  // from now on a fresh adapter trains; NULL: all of the base
//     Measured m = measure_steps(model, (Steps){ .batch = first_windows(&text, 8, 32), .count = 3, .optimizer = true });
//     printf("%s bytes, %.1f MFLOP\n", thousands(m.ledger.peak), 1e-6 * all_flops(&m));
//
// What a tape counts, prints and cuts off is read and set in measure.c, and nowhere else in these programs. Nothing here returns
// an error: what cannot be had ends the program, with one line on stderr.

#ifndef MEASURE_H
#define MEASURE_H

#include "adamw.h"
#include "generate.h"
#include "io/evaluation.h"
#include "io/machine.h"
#include "io/options.h"
#include "meter.h"
#include "predict.h"

#include <inttypes.h>
#include <stdlib.h>

// ----------------------------------------------------------------------------------------------------------- models and texts

// The small model of demo, plots and bench: nanoGPT's CPU settings. The text gives the vocabulary.
enum { SEED = 1337, BATCH = 12, CONTEXT = 64 };
static inline Config small_shape(int vocab_size) { return (Config){ vocab_size, CONTEXT, 4, 4, 128, 0 }; }

// Adapters of rank 8 and scale 2 on every block: on the layer that makes q, k and v, and on all four linear layers.
extern const LoraConfig on_c_attn, on_all;

Text         open_text(const char *name, int64_t characters, int context);  // text_read; free with text_free
Transformer *new_model(Config config, uint64_t seed);
Adapter     *add_adapter(Transformer *model, const char *name, const LoraConfig *lora, uint64_t seed);
AdamW       *new_optimizer(const Transformer *model, double weight_decay);
// What trains from now on: all of the base (`lora` NULL), or a fresh adapter on the frozen base, which is then held as
// lora->base_type says. Older adapters go.
Adapter     *adapt(Transformer *model, const LoraConfig *lora, uint64_t seed);
// A copy of the numbers of a base in floats, outside the ledger. restore_base goes back to them, from codes too, and frees it.
real       **copy_base(const Transformer *model);
void         restore_base(Transformer *model, real **copy);

// A leaf of N(0, deviation^2); frozen, until you set requires_grad.
static inline Tensor *random_leaf(const char *name, double deviation, uint64_t seed, int ndim, const int *shape)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, ndim, shape);
    fill_normal(t, deviation, seed);
    return t;
}

// A frozen linear layer, W of N(0, deviation^2), with a fresh adapter of scale 1. It must stay where it is in memory.
typedef struct Layer { Linear linear; Lora lora; } Layer;

static inline void layer_init(Layer *layer, int inputs, int outputs, int rank, double deviation, uint64_t seed)
{
    layer->lora = lora_new("lora", inputs, outputs, rank, 1, seed);
    layer->linear = (Linear){ .weight = random_leaf("W", deviation, seed + 1000, SHAPE(inputs, outputs)),
                              .bias = tensor_new("b", MEMORY_WEIGHTS, SHAPE(outputs)), .lora = &layer->lora };
}

static inline void layer_free(Layer *layer)
{
    lora_free(&layer->lora);
    tensor_drop(layer->linear.weight);
    tensor_drop(layer->linear.bias);
}

// B windows of T tokens, and the token after each of theirs.
typedef struct Batch { const int *ids, *targets; int B, T; } Batch;
static inline Batch first_windows(const Text *text, int B, int T) { return (Batch){ text->tokens, text->tokens + 1, B, T }; }
// Batch number 0 of a training with SEED, in one buffer that the next call fills anew.
Batch small_batch(const Text *text);

// ------------------------------------------------------------------------------------------------------------------ measuring

enum { MEASURED_OPS = 32 };

// One step; of several, the mean of each number.
typedef struct Measured {
    int64_t dgrad;                  // gradients passed through one of the base's weight matrices
    int64_t wgrad;                  // computed for the matrix itself;
    int64_t wgrad_skipped;          // skipped, for it is frozen;
    int64_t wgrad_never_recorded;   // or not even recorded, for nothing below trains
    int64_t adapter_gradients;      // computed for A and B
    Work    phase[PHASES];
    struct { const char *name; Work phase[PHASES]; } op[MEASURED_OPS]; // as many as have a name
    double  seconds, optimizer_seconds;
    Ledger  ledger;                 // with the peaks of these steps
} Measured;

// Counts, times and peaks from here on, of one tape at a time; and then what each of `steps` steps took. `optimizer` may be NULL.
void     measure_begin(Tape *tape, AdamW *optimizer);
Measured measure_end(const AdamW *optimizer, int64_t steps);

double all_flops(const Measured *m);                                 // of forward, dgrad, wgrad and recomputation
Work   op_work(const Measured *m, const char *op, Phase phase);      // op_work(&m, "matmul", PHASE_DGRAD)
// The counts and bytes of `next`, with the shorter of both times wherever there are two.
void   keep_least(Measured *least, const Measured *next);

// Asked before each gradient of input `input` at node n: true drops it, as if it were zero.
typedef bool Cut(const Node *n, int input);
// The misreading "the derivative of a constant is 0": nothing passes a frozen linear layer; nor, with the second, the frozen head.
Cut cut_frozen_linears, cut_frozen_matrices;
// The base's matrix by which this node multiplies: a linear layer's, or the head's. NULL: it does not.
const Tensor *base_matrix(const Node *n);
void set_cut(Tape *tape, Cut *cut);
void set_trace(Tape *tape, FILE *file); // backward prints a line for each node and input, in the order in which it runs

// `count` times forward and backward on one batch, and with `optimizer` a step at learning rate 0, which changes no weight. The
// counts and bytes are those of the last one, the times the shortest. Without `optimizer` the parameters' gradients stay.
typedef struct Steps {
    Batch batch;
    int   count;
    bool  optimizer;
    Cut  *cut;       // NULL: nothing is cut
    FILE *timeline;  // not NULL: gets every change of the last step's live bytes
} Steps;
Measured measure_steps(Transformer *model, Steps steps);

// Steps of training on a text, by the schedule. Returns what each but the first took (it asks for moments and buffers).
typedef struct Training {
    int      B;
    Schedule schedule;
    double   weight_decay;
    uint64_t seed;
    void   (*after)(void *context, int64_t done, const StepResult *result); // NULL, or called after each step
    void    *context;
} Training;
Measured train(Transformer *model, const Text *text, const Training *training); // `seconds`: the median
// A tenth of the steps to warm up, then down to a tenth of the rate.
static inline Schedule usual_schedule(double rate, int64_t steps) { return (Schedule){ rate, rate / 10, steps / 10, steps }; }
// A fresh adapter on c_attn of this rank and scale, after 60 steps of 4 windows at a rate of 0.01: one cell of a table of losses.
enum { CELL_STEPS = 60, CELL_BATCH = 4 };
#define CELL_RATE 1e-2
void train_cell(Transformer *model, const Text *text, int rank, double scale);

// The gradients of the adapter in use, one after the other: adapter_size numbers, the caller's to free.
real  *adapter_gradients(const Transformer *model);
// The largest |a[i] - b[i]|.
double largest_difference(const real *a, const real *b, int64_t count);

// ---------------------------------------------------------------------------------------------------------------------- files

FILE *open_file(const char *directory, const char *name);
void  close_file(FILE *file, const char *directory, const char *name);
// One step of the small model, full, with LoRA on c_attn, and with its blocks recomputed: timeline_full.csv, timeline_lora.csv,
// timeline_recompute.csv; and bytes.csv, the bytes at the peak of the first two, predicted and measured. The adapter stays.
void  write_step(Transformer *model, Batch batch, const char *directory);

#endif
