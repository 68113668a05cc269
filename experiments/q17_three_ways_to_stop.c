// q17_three_ways_to_stop.c - no_grad, requires_grad = false, detach: which of them let a gradient through?
//
// Three layers with adapters, h = tanh(x W + s (x A) B). Around the middle one: nothing, the flag (its adapter frozen too), its
// forward pass without a tape (no_grad), or its result copied into a new leaf (detach). Who below still gets a gradient?
// Asked on many pages. Look at: record_into in autograd.c: `recorded`, and the flag of the result.

#include "lora.h"
#include "question.h"

enum { ROWS = 4, WIDTH = 8, LAYERS = 3, WAYS = 4 };
enum { AS_IT_IS, FLAG, NO_GRAD, DETACH };
static const char *const ways[WAYS] = { "nothing", "requires_grad = false", "no_grad: tape = NULL", "detach: a copy as a leaf" };

typedef struct Pass { double norm[LAYERS]; bool computed[LAYERS]; long kept; real loss; } Pass; // dB of each layer; kept bytes after forward

static Pass backward_pass(int way)
{
    Pass pass = { 0 };
    Tape *tape = tape_new();
    Tensor *x = random_leaf("x", 1, 1, SHAPE(ROWS, WIDTH)), *h = x, *apart = NULL; // apart: made on no tape, so ours to drop
    Linear layer[LAYERS];
    Lora lora[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        lora[i] = lora_new("lora", WIDTH, WIDTH, 2, 1, (uint64_t)(2 + i));
        layer[i] = (Linear){ random_leaf("W", 0.5, (uint64_t)(10 + i), SHAPE(WIDTH, WIDTH)), tensor_new("b", MEMORY_WEIGHTS, SHAPE(WIDTH)), &lora[i], NULL };
        if (i != 1 || way == AS_IT_IS) h = op_tanh(tape, linear_apply(tape, &layer[i], h));
        else if (way == FLAG) {
            lora[i].A->requires_grad = lora[i].B->requires_grad = false;
            h = op_tanh(tape, linear_apply(tape, &layer[i], h));
        } else if (way == NO_GRAD) {
            Tensor *y = linear_apply(NULL, &layer[i], h);
            h = apart = op_tanh(NULL, y);
            tensor_drop(y);
        } else {
            Tensor *y = op_tanh(tape, linear_apply(tape, &layer[i], h));
            h = apart = tensor_from("detached", y->data, SHAPE(ROWS, WIDTH));
        }
    }
    Tensor *loss = op_mean(tape, op_mul(tape, h, h));
    pass.loss = loss->data[0];
    pass.kept = ledger.live[MEMORY_KEPT_ACTIVATIONS];
    backward(tape, loss);
    for (int i = 0; i < LAYERS; i++) {
        pass.norm[i] = grad_norm(lora[i].B);
        pass.computed[i] = lora[i].B->grad != NULL;
        printf(" %14s", grad_text(lora[i].B));
        tensor_drop(layer[i].weight);
        tensor_drop(layer[i].bias);
        lora_free(&lora[i]);
    }
    printf(" %12ld\n", pass.kept);
    tape_free(tape);
    tensor_drop(apart);
    tensor_drop(x);
    return pass;
}

int main(void)
{
    question("no_grad, requires_grad = false, detach: three words for the same thing?");
    predict("With each of them at the middle layer of three: does the lowest adapter still get a gradient?");

    Pass pass[WAYS];
    printf("  %-26s %14s %14s %14s %12s\n", "at the middle layer", "|dB| lowest", "middle", "top", "kept, bytes");
    for (int way = 0; way < WAYS; way++) {
        printf("  %-26s", ways[way]);
        pass[way] = backward_pass(way);
    }

    why("The flag says of one leaf that its own gradient is not wanted; paths lead on through it. Without a tape",
        "nothing is recorded, and a copy has no maker: both cut the path, and all below it with it.");
    finding(pass[FLAG].computed[0] && pass[FLAG].norm[0] == pass[AS_IT_IS].norm[0], "the flag: the lowest adapter's gradient is what it was without");
    finding(!pass[FLAG].computed[1], "... and the middle one's is not computed");
    finding(!pass[NO_GRAD].computed[0] && !pass[NO_GRAD].computed[1], "no_grad: neither the middle adapter's nor the lowest one's is computed");
    finding(!pass[DETACH].computed[0] && !pass[DETACH].computed[1], "detach: the same");
    finding(pass[NO_GRAD].norm[2] == pass[AS_IT_IS].norm[2] && pass[DETACH].norm[2] == pass[AS_IT_IS].norm[2] && pass[NO_GRAD].loss == pass[AS_IT_IS].loss,
            "above the cut, and in the loss, nothing differs: it does not show in the numbers there");
    finding(pass[NO_GRAD].kept < pass[AS_IT_IS].kept && pass[DETACH].kept == pass[AS_IT_IS].kept,
            "no_grad keeps less for backward; detach keeps it all, in vain, for it cuts what was recorded before");
    return answered();
}
