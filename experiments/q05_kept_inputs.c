// q05_kept_inputs.c - can an adapter make activations larger instead of smaller?
//
// One frozen layer, y = x W, X of 512 x 4096 numbers, in three forms: bare, with an adapter of rank 16, and with one whose A is
// frozen (LoRA-FA). After forward the ledger says what is kept for backward. Then the adapter's product is made in full before
// it is added, as engines do that build LoRA from a matrix product and a sum: while they run, that costs more.
// Asked in peft#2196 ("almost double") and #2468. Look at: keeps_of in autograd.c, linear_apply in lora.c, op_matmul_add.

#include "question.h"

enum { ROWS = 512, INPUTS = 4096, OUTPUTS = 256, RANK = 16, BYTES = sizeof(real) };

typedef struct Bytes { int64_t kept, live; } Bytes; // kept for backward; the most of other results while the adapter was added

// As linear_apply does it, or with the adapter's product in full.
static Bytes forward(Tensor *x, const Linear *layer, bool full_product)
{
    const Lora *lora = layer->lora;
    Tape *tape = tape_new();
    Tensor *y = op_linear(tape, x, layer->weight, layer->bias), *h = lora ? op_matmul(tape, x, lora->A) : NULL;
    memory_reset_peaks(); // x is kept by now, if it will be; y and h are live
    if (lora != NULL && full_product) {
        Tensor *change = op_matmul(tape, h, lora->B);
        op_add_scaled(tape, y, change, lora->scale);
        drop_all(2, (Tensor *[]){ y, change });
    } else if (lora != NULL) op_matmul_add(tape, y, h, lora->B, lora->scale); // into y
    tensor_drop(h);
    Bytes bytes = { ledger.live[MEMORY_KEPT_ACTIVATIONS], ledger.own_peak[MEMORY_LIVE_ACTIVATIONS] };
    tape_free(tape);
    return bytes;
}

int main(void)
{
    question("Freezing W lets its input go. Does an adapter on W bring it back?");
    predict("X takes 8 MiB in 32-bit. How much is kept without adapter, with one of rank 16, with A frozen?");

    Tensor *input = random_leaf("input", 1, 1, SHAPE(ROWS, INPUTS)), *x = op_scale(NULL, input, 1); // a result, as in a net
    x->requires_grad = true; // something below trains: the gradient has to pass through
    int64_t X = (int64_t)ROWS * INPUTS * BYTES, XA = (int64_t)ROWS * RANK * BYTES, Y = (int64_t)ROWS * OUTPUTS * BYTES;
    Layer layer;
    layer_init(&layer, INPUTS, OUTPUTS, RANK, 0.02, 2);
    Linear adapted = layer.linear, plain = layer.linear;
    plain.lora = NULL;

    Bytes bare = forward(x, &plain, false), with = forward(x, &adapted, false), full = forward(x, &adapted, true);
    layer.lora.A->requires_grad = false;
    Bytes fixed_A = forward(x, &adapted, false);
    plain.weight->requires_grad = true;
    Bytes trained = forward(x, &plain, false);

    measured("kept: W trains, no adapter", "%9" PRId64 " bytes", trained.kept);
    measured("kept: W frozen, no adapter", "%9" PRId64 " bytes", bare.kept);
    measured("kept: W frozen, A and B train", "%9" PRId64 " bytes", with.kept);
    measured("kept: W frozen, A too, B trains", "%9" PRId64 " bytes", fixed_A.kept);
    measured("live: added into y's own buffer (ours)", "%9" PRId64 " bytes", with.live);
    measured("live: (x A) B as a product of its own", "%9" PRId64 " bytes", full.live);

    why("dA = s x^T (dY B^T) reads x, which is as large as what dW would have read; dB reads x A only, R wide. "
        "x is kept once, whoever reads it: by freezing you win nothing where an adapter that trains A sits.");
    finding(trained.kept == X && bare.kept == 0,
            "frozen without adapter: x is not kept, though the gradient passes through (when W trains it is)");
    finding(with.kept == X + XA, "with an adapter x is back, and x A on top: more than full training keeps");
    finding(fixed_A.kept == XA, "with A frozen only x A is kept, 1/256 of x");
    finding(with.live == Y + XA && full.live == 3 * Y && full.kept == with.kept,
            "an unfused adapter: three full-size outputs at once instead of one, the same bytes kept");
    layer_free(&layer);
    drop_all(2, (Tensor *[]){ x, input });
    return answered();
}
