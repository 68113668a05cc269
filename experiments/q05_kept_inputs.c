// q05_kept_inputs.c - can an adapter make activations larger instead of smaller?
//
// One frozen layer, y = x W, X of 512 x 4096 numbers, in three forms: bare, with an adapter of rank 16, and with an adapter whose
// A is frozen (LoRA-FA). After forward the ledger says what is kept for backward. Then the adapter's product is made in full
// before it is added, as engines do that build LoRA from a matrix product and a sum: that costs at the peak.
// Asked in peft#2196 ("almost double") and #2468. Look at: keeps_of in autograd.c, linear_apply in lora.c, op_matmul_add.

#include "lora.h"
#include "question.h"

enum { ROWS = 512, INPUTS = 4096, OUTPUTS = 1024, RANK = 16 };

typedef struct Bytes { long kept, peak; } Bytes; // after forward; the most of activations of all kinds while it ran

static Bytes forward(Tensor *x, Tensor *W, Tensor *b, Lora *lora, bool full_product)
{
    Linear layer = { .weight = W, .bias = b, .lora = lora };
    Tape *tape = tape_new();
    long before = ledger.total;
    memory_reset_peaks();
    if (full_product) { // y = x W + b, then s (x A) B as a product of its own, then the sum
        Tensor *y = op_linear(tape, x, W, b), *h = op_matmul(tape, x, lora->A), *change = op_matmul(tape, h, lora->B);
        op_add_scaled(tape, y, change, lora->scale);
        tensor_drop(h);
        tensor_drop(y);
        tensor_drop(change);
    } else linear_apply(tape, &layer, x);
    Bytes bytes = { ledger.live[MEMORY_KEPT_ACTIVATIONS], ledger.peak - before };
    tape_free(tape);
    return bytes;
}

int main(void)
{
    question("Freezing W lets its input go. Does an adapter on W bring it back?");
    predict("X takes 8 MiB in 32-bit. How much is kept without adapter, with one of rank 16, with A frozen?");

    Tensor *input = random_leaf("input", 1, 1, SHAPE(ROWS, INPUTS)), *x = op_scale(NULL, input, 1); // a result, as in a net
    Tensor *W = random_leaf("W", 0.02, 2, SHAPE(INPUTS, OUTPUTS)), *b = tensor_new("b", MEMORY_WEIGHTS, SHAPE(OUTPUTS));
    Lora lora = lora_new("lora", INPUTS, OUTPUTS, RANK, 1, 3);
    long X = x->size * (long)sizeof(real), XA = (long)ROWS * RANK * (long)sizeof(real), Y = (long)ROWS * OUTPUTS * (long)sizeof(real);

    Bytes bare = forward(x, W, b, NULL, false);
    Bytes with = forward(x, W, b, &lora, false), full = forward(x, W, b, &lora, true);
    lora.A->requires_grad = false;
    Bytes fixed_A = forward(x, W, b, &lora, false);
    lora.A->requires_grad = true;
    W->requires_grad = true;
    Bytes trained = forward(x, W, b, NULL, false);

    measured("kept: W trains, no adapter", "%9ld bytes", trained.kept);
    measured("kept: W frozen, no adapter", "%9ld bytes", bare.kept);
    measured("kept: W frozen, A and B train", "%9ld bytes", with.kept);
    measured("kept: W frozen, A too, B trains", "%9ld bytes", fixed_A.kept);
    measured("new at the peak: added into y's own buffer (ours)", "%9ld bytes", with.peak);
    measured("new at the peak: (x A) B as a product of its own", "%9ld bytes", full.peak);

    why("dA = s x^T (dY B^T) reads x, which is as large as what dW would have read; dB reads x A only, R wide.",
        "x is kept once, whoever reads it: by freezing you win nothing where an adapter that trains A sits.");
    finding(trained.kept == X && bare.kept == 0, "frozen without adapter: x is not kept (when W trains, all of it is)");
    finding(with.kept == X + XA, "with an adapter x is back, and x A on top: more than full training keeps");
    finding(fixed_A.kept == XA, "with A frozen only x A is kept, 1/256 of x");
    finding(full.peak - with.peak == 2 * Y && full.kept == with.kept, "an unfused adapter: two more full-size outputs at the peak, the same bytes kept");
    lora_free(&lora);
    tensor_drop(x);
    tensor_drop(input);
    tensor_drop(W);
    tensor_drop(b);
    return answered();
}
