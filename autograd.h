// autograd.h - reverse-mode automatic differentiation: the op table, the tape, and backward().
//
//     Tape *tape = tape_new();
//     Tensor *x = tensor_from("x", (real[]){ 3 }, SHAPE(1));
//     x->requires_grad = true;
//     Tensor *y = op_mul(tape, op_scale(tape, x, 2), x);    // y = 2x * x
//     backward(tape, y);
//     printf("dy/dx = %g\n", (double)x->grad[0]);           // 4x = 12
//     tape_free(tape);                                      // and with it every result made on it
//     tensor_drop(x);
//
// An op computes its result and, if some input requires a gradient, appends a node to the tape. With `tape` NULL, or when
// nothing upstream is trainable, it only computes: nothing is recorded and nothing is kept.
//
// Freezing is one flag, `requires_grad`, read in four places: an op's result (true if some input's is), what a node keeps,
// the guard in backward(), and the optimizer.
//
// Ownership: results made on a tape live until tape_clear or tape_free; tensor_drop lets their data go earlier. A result made
// with `tape` NULL belongs to the caller alone. Token ids and targets stay the caller's and must last until backward ends.
// Shapes that do not fit are a programmer's mistake: check() names the op and both shapes, and aborts.
//
// Read next: autograd.c: record_into, run_backward, one op of your choice, and the op table at its end. Then lora.h.

#ifndef AUTOGRAD_H
#define AUTOGRAD_H

#include "parallel.h"
#include "tensor.h"

typedef enum OpKind {
    // for first lessons
    OP_ADD, OP_SUB, OP_MUL, OP_SCALE, OP_ADD_SCALED, OP_RELU, OP_TANH, OP_EXP, OP_SUM, OP_MEAN, OP_SOFTMAX, OP_MATMUL,
    // for the transformer
    OP_EMBEDDING, OP_LAYERNORM, OP_LINEAR, OP_LM_HEAD, OP_ATTENTION, OP_GELU, OP_DROPOUT, OP_CROSS_ENTROPY,
    // for LoRA, and for trading time against memory
    OP_MATMUL_ADD, OP_RECOMPUTE,
    OP_KINDS
} OpKind;

enum { MAX_INPUTS = 3 };

typedef struct Tape Tape;
typedef struct Node Node;

// One call of an op: what its kernels see. A recorded one stays on the tape until backward has passed.
struct Node {
    OpKind   op;
    Tensor  *in[MAX_INPUTS];    // unused ones are NULL
    Tensor  *out;
    real    *saved;             // statistics that forward leaves for the gradients; NULL if none will read them
    real    *work;              // a kernel's scratch, `part` after `part`, while it runs
    unsigned kept;              // which of in[], out and saved this node holds until backward
    bool     first;             // no gradient has reached this input before: dx holds nothing yet
    // constants of the call, for the ops that have them
    const int *ids;             // token ids or targets, [N]
    real     scalar;            // a factor; dropout's probability
    int      heads, from;       // attention: of how many heads, and which position is the first to be computed
    uint64_t seed;              // dropout: of this call
    long     first_call;        // recompute: the number of its first dropout call
    Tensor *(*block)(Tape *tape, Tensor *x, void *context); // recompute: what to run again
    void    *context;
    bool     trains;            // recompute: whether a leaf inside the block requires a gradient
};

// Which data the gradient of one input reads. Recording holds exactly what is named by the inputs that require a gradient.
#define KEEP(i)    (1u << (i))  // the data of in[i]
#define KEEP_OUT   (1u << 8)
#define KEEP_SAVED (1u << 9)
#define KEEP_NONE  0u

// Gradients are only ever added to. So the first that reaches an input must find zeros: a kernel that ADDS is given them; one
// that STORES is told by n->first to store where it would add, which saves a walk through memory. An elementwise one of input
// 0, the last to read dy, may even turn dy into dx IN_PLACE: then dx == dy, and no new buffer is needed.
typedef enum FirstGradient { ADDS, STORES, IN_PLACE } FirstGradient;

// One row of the op table.
typedef struct Op {
    const char *name;
    void (*forward)(const Node *n, real *y, Part part);                        // y = f(in)
    struct {
        void (*grad)(const Node *n, const real *dy, real *dx, Part part);      // dx += dy * df/d(in[i])
        unsigned keeps;
        int work;                                                              // its FLOPs, in units of forward's
        FirstGradient first;
    } input[MAX_INPUTS];                                                       // one gradient kernel PER INPUT
    long (*flops)(const Node *n);     // of forward: the formula's multiplications and additions; NULL: elementwise, not counted
    long (*saved)(const Node *n);     // how many reals forward saves; NULL: none
    long (*workspace)(const Node *n); // how many reals of scratch each part needs, in any of its kernels; NULL: none
    int weight;                       // which input is a weight matrix of the base; 0: none
} Op;
extern const Op ops[OP_KINDS];

// What was done, and how long it took. A gradient of a result is dgrad, one of a leaf is wgrad.
typedef enum Phase { PHASE_FORWARD, PHASE_DGRAD, PHASE_WGRAD, PHASE_RECOMPUTE, PHASES } Phase;
extern const char *const phase_names[PHASES];
typedef struct Work { long kernels, flops; double seconds; } Work;
typedef struct Counts {
    Work work[OP_KINDS][PHASES];
    // gradients at the base's weight matrices (every linear, and the tied head)
    long dgrad;                // passed through one of them to its input
    long wgrad;                // computed for the matrix itself
    long wgrad_skipped;        // not computed: the guard found it frozen
    long wgrad_never_recorded; // not even recorded: nothing below trains
    long adapter_gradients;    // computed for LoRA's A and B
} Counts;
Work counts_phase(const Counts *counts, Phase phase); // summed over ops

struct Tape {
    Node    *nodes;            // append order is topological order: an op's inputs exist before it does
    int      count, capacity;
    Tensor **results;          // every result made with this tape, recorded or not: headers to free
    int      result_count, result_capacity;
    Counts   counts;           // adds up until you zero it
    uint64_t dropout_seed;     // set it anew for every step
    long     dropout_calls;
    bool     replaying;        // this run was counted before: recomputation
    Tape    *inner;            // on which recomputation runs; NULL until it is needed
    // for watching and for experiments
    FILE    *trace;            // not NULL: backward writes one line per node and input, in the order in which it runs
    bool   (*cut)(const Node *n, int input); // not NULL and true: this gradient is dropped, as if it were zero
};

Tape *tape_new(void);
// Frees all results and nodes; the tape can be used again. counts stay.
void  tape_clear(Tape *tape);
void  tape_free(Tape *tape);

// Adds d(loss)/d(t) to t->grad for every leaf that requires it and feeds the loss, and consumes the tape: a node's kept data
// and its result's gradient are freed as soon as it has run. The loss must be a single number, made on this tape.
void backward(Tape *tape, Tensor *loss);

// ---------------------------------------------------------------------------------------------------------------------- ops
// All return a new result. N is the product of all dimensions but the last.

Tensor *op_add(Tape *tape, Tensor *a, Tensor *b);                        // a + b                 same shapes
Tensor *op_sub(Tape *tape, Tensor *a, Tensor *b);                        // a - b                 same shapes
Tensor *op_mul(Tape *tape, Tensor *a, Tensor *b);                        // a * b, elementwise    same shapes
Tensor *op_scale(Tape *tape, Tensor *a, real s);                         // s a
Tensor *op_add_scaled(Tape *tape, Tensor *a, Tensor *b, real s);         // a + s b               same shapes
Tensor *op_relu(Tape *tape, Tensor *x);                                  // max(x, 0); gradient 0 at 0
Tensor *op_tanh(Tape *tape, Tensor *x);
Tensor *op_exp(Tape *tape, Tensor *x);
Tensor *op_sum(Tape *tape, Tensor *x);                                   // of all elements       -> [1]
Tensor *op_mean(Tape *tape, Tensor *x);                                  // of all elements       -> [1]
Tensor *op_softmax(Tape *tape, Tensor *x);                               // over the last dimension
Tensor *op_matmul(Tape *tape, Tensor *a, Tensor *b);                     // [..,I] x [I,O] -> [..,O]

// y[b,t] = wte[ids[b,t]] + wpe[t]      wte [V,C], wpe [at least T,C], ids [B*T], each in 0..V-1 -> [B,T,C]
Tensor *op_embedding(Tape *tape, Tensor *wte, Tensor *wpe, const int *ids, int B, int T);
// y = (x - mean) / sqrt(variance + 1e-5) * gain + bias, over the last dimension; biased variance, as in GPT-2
Tensor *op_layernorm(Tape *tape, Tensor *x, Tensor *gain, Tensor *bias);
// y = x W + b                          x [..,I], W [I,O] (GPT-2's orientation), b [O] -> [..,O]
Tensor *op_linear(Tape *tape, Tensor *x, Tensor *W, Tensor *b);
// logits = x wte^T, the output head tied to the token embedding        x [..,C], wte [V,C] -> [..,V]
Tensor *op_lm_head(Tape *tape, Tensor *x, Tensor *wte);
// causal multi-head attention: softmax(q k^T / sqrt(D), over positions up to t) v        qkv [B,T,3C] = q | k | v -> [B,T,C]
Tensor *op_attention(Tape *tape, Tensor *qkv, int heads);
// Of that, the rows of positions from .. T-1 alone, without a tape: what new tokens need of q | k | v of all  -> [B,T-from,C]
Tensor *op_attention_from(Tensor *qkv, int heads, int from);
// GPT-2's: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
Tensor *op_gelu(Tape *tape, Tensor *x);
// With a tape: each element is 0 with probability p, else x / (1 - p). Without a tape (evaluation): a copy of x. Element i
// is kept if a hash of (dropout_seed, number of the call, i) says so: there is no mask to store and no stream to keep in step.
Tensor *op_dropout(Tape *tape, Tensor *x, real p);
// -log softmax(logits)[target], one per row: no sum crosses rows; op_mean follows        logits [..,V], targets [N] -> [N,1]
Tensor *op_cross_entropy(Tape *tape, Tensor *logits, const int *targets);
// y + s h B, LoRA's second half. It takes over the caller's handle of y, and y's buffer too when no node keeps it.
// y [..,O], h [..,R], B [R,O] -> [..,O]
Tensor *op_matmul_add(Tape *tape, Tensor *y, Tensor *h, Tensor *B, real s);
// block(x), of which only x is kept: backward runs the block again (activation checkpointing). `block` must drop what it
// makes but its result, must not drop x, and must compute the same each time; `trains` says whether a leaf inside it requires
// a gradient. x [..] -> the block's shape
Tensor *op_recompute(Tape *tape, Tensor *(*block)(Tape *tape, Tensor *x, void *context), void *context, Tensor *x, bool trains);

#endif
