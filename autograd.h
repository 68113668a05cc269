// autograd.h - reverse-mode automatic differentiation: the tape, and backward().
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
// An op (ops.h) computes its result and, if some input requires a gradient, appends a node to the tape. With `tape` NULL, or
// when nothing upstream is trainable, it only computes: nothing is recorded and nothing is kept.
//
// Freezing is one flag, `requires_grad`, read in four places: an op's result (true if some input's is), what a node keeps,
// the guard in backward(), and the optimizer.
//
// Ownership: results made on a tape live until tape_clear or tape_free; tensor_drop lets their data go earlier. A result made
// with `tape` NULL belongs to the caller alone. Token ids and targets stay the caller's and must last until backward ends; until
// then no leaf may change, for gradients read it, and results are made again from it.
// Shapes that do not fit are a programmer's mistake: check() names the op and both shapes, and aborts.
//
// Read next: autograd.c: record, run_backward. Then mul and linear in ops.c.

#ifndef AUTOGRAD_H
#define AUTOGRAD_H

#include "kernels.h"
#include "memory.h"
#include "tensor.h"

enum { MAX_INPUTS = 3 };

typedef struct Op Op;
typedef struct Node Node;
typedef void Kernel(const Node *n, Part part);

// A part of a model that can be run again: from its input and what is in `context` alone.
typedef struct Replay {
    Tensor *(*block)(Tape *tape, Tensor *x, void *context);
    void    *context;
    int64_t  first_call;        // the number of its first dropout call
} Replay;

// One call of an op: what its kernels see. A recorded one stays on the tape until backward has passed.
struct Node {
    const Op *op;
    Tensor   *in[MAX_INPUTS];   // unused ones are NULL
    Tensor   *out;
    real     *saved;            // statistics that forward leaves for the gradients; NULL if none will read them
    unsigned  kept;             // which of in[], out and saved this node holds until backward, or can have made again then
    // constants of the call, for the ops that have them
    const int *ids;             // token ids or targets, [N]
    real     scalar;            // a factor; dropout's probability
    int      heads;             // attention
    uint64_t seed;              // dropout: of this call
    Replay   replay;            // recompute
};

// Which data the gradient of one input reads. Recording holds exactly what is named by the inputs that require a gradient.
#define KEEP(i)    (1u << (i))  // the data of in[i]
#define KEEP_OUT   (1u << 8)
#define KEEP_SAVED (1u << 9)
#define KEEP_NONE  0u

// One row for each op. A gradient kernel only ever adds: dx += dy * df/dx, where dy is n->out->grad and dx n->in[i]->grad; for
// a tensor that is used twice gets a gradient from each use.
struct Op {
    const char *name;
    Kernel *forward;                     // out = f(in)
    struct {
        Kernel  *grad;                   // one PER INPUT; NULL: dy itself is what the input gets
        unsigned keeps;
        int      work;                   // its FLOPs, in units of forward's. Above 0 it is a product or attention: those take a
                                         // first gradient as zeros, so the engine leaves it empty; any other finds zeros
        bool     in_place;               // the exception, for input 0: turns dy into dx where it lies, instead of adding
    } input[MAX_INPUTS];
    int64_t (*flops)(const Node *n);     // of forward: the formula's multiplications and additions; NULL: elementwise, not counted
    int64_t (*saved)(const Node *n);     // how many reals forward saves; NULL: none
    unsigned again;                      // what forward reads, where that is cheap: a node that keeps in[0] anyway keeps all of
                                         // this, and makes out again when a gradient reads it, instead of out being kept
    int weight;                          // which input is a weight matrix of the base; 0: none
    void (*program)(Tape *tape, Node *n);// not NULL: runs in place of gradient kernels, and takes n->out->grad with it
};

// One observer can watch a tape (meter.h): it is told of each kernel before and after, of what is not computed, and, between
// BEFORE and AFTER of a gradient, of each result MADE_AGAIN for it. FORWARD stands for an input when the kernel
// is a forward. If it answers BEFORE a gradient with false, this gradient is dropped, as if it were zero.
typedef enum Event { BEFORE, AFTER, SKIPPED, NOT_RECORDED, MADE_AGAIN } Event;
enum { FORWARD = -1 };
typedef bool Watch(void *watcher, const Tape *tape, const Node *n, int input, Event event);

struct Tape {
    Node    *nodes;            // append order is topological order: an op's inputs exist before it does
    int      count, capacity;
    Tensor **results;          // every result made with this tape, recorded or not: headers to free
    int      result_count, result_capacity;
    uint64_t dropout_seed;     // set it anew for every step
    int64_t  dropout_calls;
    Watch   *watch;            // NULL: nobody
    void    *watcher;
    Tape    *inner, *outer;    // on which recomputation runs, made when it is needed; for that one: whose it is
    bool     replaying;        // this run was seen before: recomputation
};

Tape *tape_new(void);
// Frees all results and nodes; the tape can be used again.
void  tape_clear(Tape *tape);
void  tape_free(Tape *tape);

// Adds d(loss)/d(t) to t->grad for every leaf that requires it and feeds the loss, and consumes the tape: a node's kept data
// and its result's gradient are freed as soon as it has run. The loss must be a single number, made on this tape.
void backward(Tape *tape, Tensor *loss);

// ------------------------------------------------------------------------------------------------- for those who write ops

// Every op ends with this: makes the output, runs forward, and appends the node if something upstream trains. `place`, if not
// NULL, is a result that the caller gives up, and whose buffer the output takes if no node keeps it.
Tensor *record(Tape *tape, Node n, Tensor *place, int ndim, const int *shape);
// For programs: the loop of backward(), from the last node to the first, whose output has its gradient; an end to what was
// recorded, but not to the results; and the data of those inputs of n that it `reads`, made again where it is gone.
void    run_backward(Tape *tape);
void    tape_forget(Tape *tape);
void    make_again(const Tape *tape, const Node *n, unsigned reads);

// A tensor's numbers, and its gradient, as the matrix that kernels see: [N, last dimension].
static inline Matrix values(const Tensor *t)
{
    Matrix m = matrix(t->data, rows_of(t), last_dim(t));
    m.codes = t->codes;
    return m;
}
static inline Matrix gradient(const Tensor *t)
{
    Matrix m = matrix(t->grad, rows_of(t), last_dim(t));
    m.empty = t->grad_empty;
    return m;
}
// FLOPs of the forward, and of the gradient of one input.
int64_t flops_of(const Node *n, int input);

#endif
