// recompute.c - op_recompute (ops.h): a block of the model of which only the input is kept, and which backward runs again.
//
// Forward runs the block on a tape of its own and forgets its nodes; backward runs it again, seeded with dy, and goes back
// through it. So this op's row has a program in the place of gradient kernels. It records on the inner tape alone.
//
// Read next: lora.h.

#include "ops.h"

// Runs the block on the inner tape, watched like the outer one; its result is still on the inner tape.
static Tensor *run_block(Tape *tape, Tensor *x, Replay replay, bool again)
{
    if (tape->inner == NULL) tape->inner = tape_new();
    Tape *inner = tape->inner;
    inner->outer = tape;
    inner->dropout_seed = tape->dropout_seed;
    inner->dropout_calls = replay.first_call;
    inner->replaying = again;
    inner->watch = tape->watch;
    inner->watcher = tape->watcher;
    return replay.block(inner, x, replay.context);
}

static void recompute_backward(Tape *tape, Node *n)
{
    make_again(tape, n, KEEP(0));
    Tensor *y = run_block(tape, n->in[0], n->replay, true);
    check(y->requires_grad && same_shape(y, n->out), "recompute: the block gave %s %s, and %s the first time", y->name,
          shape_text(y), shape_text(n->out));
    y->grad = n->out->grad;
    n->out->grad = NULL;
    tensor_drop(y);
    run_backward(tape->inner); // adds to x->grad and to the gradients of the leaves inside
    tape_clear(tape->inner);
}

static void recompute_forward(const Node *n, Part part) { (void)n, (void)part; } // op_recompute has done it

// in[0] is x; in[1] a leaf inside the block that trains, if one does: for it, too, backward needs x.
const Op recompute_op = { .name = "recompute", .forward = recompute_forward, .program = recompute_backward,
    .input = { { .keeps = KEEP(0) }, { .keeps = KEEP(0) } } };

Tensor *op_recompute(Tape *tape, Tensor *(*block)(Tape *tape, Tensor *x, void *context), void *context, Tensor *x,
                     Tensor *trains)
{
    if (tape == NULL) return block(NULL, x, context);
    Replay replay = { block, context, tape->dropout_calls };
    Tensor *y = run_block(tape, x, replay, tape->replaying);
    tape->dropout_calls = tape->inner->dropout_calls;
    tape_forget(tape->inner); // y is left, and its buffer becomes the result's
    int ndim = y->ndim, shape[MAX_DIMS];
    memcpy(shape, y->shape, sizeof shape);
    Tensor *out = record(tape, (Node){ .op = &recompute_op, .in = { x, trains }, .replay = replay }, y, ndim, shape);
    tape_clear(tape->inner);
    return out;
}
