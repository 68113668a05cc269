// q01_frozen_middle.c - the middle layer of three is frozen: can the first one still learn?
//
// Three layers, h = tanh(h W). One backward pass with all three trainable, one with the middle frozen, from the same numbers,
// so that the first layer's gradients can be compared bit by bit. Asked in many forms; many answer that it cannot.
// Look at: run_backward in autograd.c, the line with the guard, then matmul_grad_a (reads W) and matmul_grad_b (does not).

#include "question.h"

enum { ROWS = 4, WIDTH = 8 };

typedef struct Pass {
    int64_t through, of;        // gradients passed to a layer's input, and computed for a weight
    bool middle;                // whether the middle weight got one
    real first[WIDTH * WIDTH];  // the first weight's gradient
} Pass;

static Pass backward_pass(bool freeze_middle)
{
    Tape *tape = tape_new();
    measure_begin(tape, NULL);
    Tensor *x = random_leaf("x", 1, 1, SHAPE(ROWS, WIDTH)), *W[3], *h = x;
    for (int i = 0; i < 3; i++) {
        W[i] = random_leaf("W", 0.3, (uint64_t)(2 + i), SHAPE(WIDTH, WIDTH));
        W[i]->requires_grad = !(i == 1 && freeze_middle);
        h = op_tanh(tape, op_matmul(tape, h, W[i]));
    }
    backward(tape, op_mean(tape, op_mul(tape, h, h)));

    Measured m = measure_end(NULL, 1);
    Pass pass = { .through = op_work(&m, "matmul", PHASE_DGRAD).kernels, .of = op_work(&m, "matmul", PHASE_WGRAD).kernels,
                  .middle = W[1]->grad != NULL };
    if (W[0]->grad != NULL) memcpy(pass.first, W[0]->grad, sizeof pass.first);
    for (int i = 0; i < 3; i++) tensor_drop(W[i]);
    tensor_drop(x);
    tape_free(tape);
    return pass;
}

int main(void)
{
    question("Three layers, and the middle one is frozen. Can the first still get its gradient?");
    predict("How many weight gradients, and how many input gradients, before and after freezing?");

    Pass all = backward_pass(false), frozen = backward_pass(true);
    double norm = norm_of(all.first, WIDTH * WIDTH), difference = largest_difference(all.first, frozen.first, WIDTH * WIDTH);
    measured("all train: weight gradients, input gradients", "%" PRId64 ", %" PRId64, all.of, all.through);
    measured("middle frozen: weight gradients, input gradients", "%" PRId64 ", %" PRId64, frozen.of, frozen.through);
    measured("first layer's gradient, all train", "|dW1| = %.6f", norm);
    measured("first layer's gradient, middle frozen", "|dW1| = %.6f", norm_of(frozen.first, WIDTH * WIDTH));
    measured("largest difference between the two", "%g", difference);

    why("dX = dY W^T reads the VALUES of W, which freezing leaves alone; only dW = X^T dY is not computed. "
        "(The lowest layer's input needs no gradient: hence one input gradient fewer than layers.)");
    finding(all.of == 3 && all.through == 2, "all train: 3 weight gradients, 2 input gradients");
    finding(frozen.of == 2 && frozen.through == 2, "middle frozen: one weight gradient fewer, as many input gradients");
    finding(all.middle && !frozen.middle, "the frozen weight's own gradient is not computed at all");
    finding(norm > 0 && memcmp(all.first, frozen.first, sizeof all.first) == 0,
            "the first layer's gradient is the same to the last bit");
    return answered();
}
