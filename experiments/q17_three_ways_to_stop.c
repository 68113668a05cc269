// q17_three_ways_to_stop.c - no_grad, requires_grad = false, detach: which of them let a gradient through?
//
// Three layers with adapters, h = tanh(x W + s (x A) B). Around the middle one: nothing, the flag (its adapter frozen too), its
// forward pass without a tape (no_grad), or its result copied into a new leaf (detach). Who below still gets a gradient?
// Asked on many pages. Look at: record_into in autograd.c: `recorded`, and the flag of the result.

#include "question.h"

enum { ROWS = 4, WIDTH = 8, LAYERS = 3, WAYS = 4 };
enum { AS_IT_IS, FLAG, NO_GRAD, DETACH };
static const char *const ways[WAYS] = { "nothing", "requires_grad = false", "no_grad: no tape", "detach: a copy" };

typedef struct Pass {
    double norm[LAYERS];     // |dB| of each layer
    bool   computed[LAYERS];
    int64_t kept;            // bytes after forward
    real   loss;
} Pass;

static Pass backward_pass(int way)
{
    Pass pass = { 0 };
    Tape *tape = tape_new();
    Tensor *x = random_leaf("x", 1, 1, SHAPE(ROWS, WIDTH)), *h = x, *apart = NULL; // apart: made on no tape, so ours to drop
    Layer layer[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        layer_init(&layer[i], WIDTH, WIDTH, 2, 0.5, (uint64_t)(2 + i));
        int here = i == 1 ? way : AS_IT_IS;
        if (here == FLAG) layer[i].lora.A->requires_grad = layer[i].lora.B->requires_grad = false;
        Tape *recorder = here == NO_GRAD ? NULL : tape;
        Tensor *y = linear_apply(recorder, &layer[i].linear, h);
        h = op_tanh(recorder, y);
        if (here == NO_GRAD) {
            tensor_drop(y);
            apart = h;
        }
        if (here == DETACH) h = apart = tensor_from("detached", h->data, SHAPE(ROWS, WIDTH));
    }
    Tensor *loss = op_mean(tape, op_mul(tape, h, h));
    pass.loss = loss->data[0];
    pass.kept = ledger.live[MEMORY_KEPT_ACTIVATIONS];
    backward(tape, loss);
    for (int i = 0; i < LAYERS; i++) {
        const Tensor *B = layer[i].lora.B;
        pass.norm[i] = grad_norm(B);
        pass.computed[i] = B->grad != NULL;
        printf(" %13s", grad_text(B));
        layer_free(&layer[i]);
    }
    printf(" %11" PRId64 "\n", pass.kept);
    tape_free(tape);
    drop_all(2, (Tensor *[]){ apart, x });
    return pass;
}

int main(void)
{
    question("no_grad, requires_grad = false, detach: three words for the same thing?");
    predict("With each of them at the middle layer of three: does the lowest adapter still get a gradient?");

    Pass pass[WAYS];
    printf("  %-22s %13s %13s %13s %11s\n", "at the middle layer", "|dB|, lowest", "middle", "top", "kept, bytes");
    for (int way = 0; way < WAYS; way++) {
        printf("  %-22s", ways[way]);
        pass[way] = backward_pass(way);
    }

    const Pass *as_is = &pass[AS_IT_IS], *flag = &pass[FLAG], *no_grad = &pass[NO_GRAD], *detach = &pass[DETACH];
    why("The flag says of one leaf that its own gradient is not wanted; paths lead on through it. Without a tape "
        "nothing is recorded, and a copy has no maker: both cut the path, and all below it with it.");
    finding(flag->computed[0] && flag->norm[0] == as_is->norm[0],
            "the flag: the lowest adapter's gradient is what it was without");
    finding(!flag->computed[1], "... and the middle one's is not computed");
    finding(!no_grad->computed[0] && !no_grad->computed[1],
            "no_grad: neither the middle adapter's nor the lowest one's is computed");
    finding(!detach->computed[0] && !detach->computed[1], "detach: the same");
    finding(no_grad->norm[2] == as_is->norm[2] && detach->norm[2] == as_is->norm[2] && no_grad->loss == as_is->loss,
            "above the cut, and in the loss, nothing differs: there it does not show");
    finding(no_grad->kept < as_is->kept && detach->kept == as_is->kept,
            "no_grad keeps less for backward; detach keeps it all, in vain, for it cuts what was recorded before");
    return answered();
}
