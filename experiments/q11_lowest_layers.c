// q11_lowest_layers.c - the lowest adapters show a gradient of 0: is something broken?
//
// Six frozen layers with adapters, first with sigmoids between them, then with GELU and a residual stream. For each layer |dA|
// and |dB| of the first step, and after one update. One zero is expected, another is a vanishing gradient; look at B.
// Asked in microsoft/LoRA#167. Look at: block_forward in transformer.c (x + f(x)), and tanh_grad in autograd.c.

#include "adamw.h"
#include "question.h"

enum { ROWS = 32, WIDTH = 16, RANK = 4, LAYERS = 6, STEPS = 2 };

// 1 / (1 + e^-x), of the ops there are: (1 + tanh(x/2)) / 2.
static Tensor *sigmoid(Tape *tape, Tensor *x, Tensor *ones)
{
    Tensor *t = op_tanh(tape, op_scale(tape, x, (real)0.5));
    return op_scale(tape, op_add(tape, t, ones), (real)0.5);
}

typedef struct Norms { double A[STEPS][LAYERS], B[STEPS][LAYERS]; } Norms;

static Norms measure(bool residual, uint64_t seed)
{
    Norms norms;
    Tensor *x = random_leaf("x", 1, seed, SHAPE(ROWS, WIDTH)), *target = random_leaf("target", 1, seed + 1, SHAPE(ROWS, WIDTH));
    Tensor *ones = tensor_new("ones", MEMORY_WEIGHTS, SHAPE(ROWS, WIDTH)), *parameters[2 * LAYERS];
    for (int64_t i = 0; i < ones->size; i++) ones->data[i] = 1;
    Layer layer[LAYERS];
    for (int i = 0; i < LAYERS; i++) {
        layer_init(&layer[i], WIDTH, WIDTH, RANK, 0.25, seed + 10 + (uint64_t)i);
        parameters[2 * i] = layer[i].lora.A;
        parameters[2 * i + 1] = layer[i].lora.B;
    }
    AdamW *optimizer = adamw_new(parameters, 2 * LAYERS, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    Tape *tape = tape_new();
    for (int step = 0; step < STEPS; step++) {
        tape_clear(tape);
        Tensor *h = x;
        for (int i = 0; i < LAYERS; i++) {
            Tensor *y = linear_apply(tape, &layer[i].linear, h);
            h = residual ? op_add(tape, h, op_gelu(tape, y)) : sigmoid(tape, y, ones);
        }
        backward(tape, squared_error(tape, h, target));
        for (int i = 0; i < LAYERS; i++) {
            norms.A[step][i] = grad_norm(layer[i].lora.A);
            norms.B[step][i] = grad_norm(layer[i].lora.B);
        }
        adamw_step(optimizer, 0.01);
        for (int i = 0; i < 2 * LAYERS; i++) tensor_drop_grad(parameters[i]);
    }
    tape_free(tape);
    adamw_free(optimizer);
    for (int i = 0; i < LAYERS; i++) layer_free(&layer[i]);
    drop_all(3, (Tensor *[]){ x, target, ones });
    return norms;
}

int main(void)
{
    question("The lowest adapters' gradients look like 0. Is the path broken?");
    predict("Which gradients are exactly 0 in the first step: every A, every B, or those of the lowest layers?");

    bool A_zero = true, B_flows = true, then_flows = true, vanishes = true, carries = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (int residual = 0; residual < 2; residual++) {
            Norms n = measure(residual, 100 * seed);
            const char *net = residual ? "h + gelu(h W)" : "sigmoid(h W)";
            if (seed == 1)
                printf("  %-15s %14s %14s %14s %14s\n", net, "|dA|, step 0", "|dB|, step 0", "|dA|, step 1", "|dB|, step 1");
            for (int i = LAYERS - 1; i >= 0; i--) {
                if (seed == 1)
                    printf("    layer %-7d %14.3g %14.3g %14.3g %14.3g\n", i, n.A[0][i], n.B[0][i], n.A[1][i], n.B[1][i]);
                A_zero &= n.A[0][i] == 0;
                B_flows &= n.B[0][i] > 0;
                then_flows &= n.A[1][i] > 0;
            }
            double share = n.B[0][0] / n.B[0][LAYERS - 1];
            if (residual) carries &= share > 0.2;
            else vanishes &= share < 1e-2;
        }

    why("Every A gets exactly 0 at step 0 because B is 0. A small but non-zero dB far down is another matter: each "
        "sigmoid's slope is at most 1/4 and each W small, so what passes shrinks by a factor; h + f(h) passes it whole.");
    finding(A_zero, "step 0: dA is exactly 0 in every layer of both nets, and that is as it should be");
    finding(B_flows && then_flows, "step 0: no dB is 0; step 1: no dA is either, so no path is broken");
    finding(vanishes, "sigmoids: the lowest dB is less than 1/100 of the highest, over three seeds: it vanishes");
    finding(carries, "residual stream: it is more than 1/5 of the highest, over three seeds");
    return answered();
}
