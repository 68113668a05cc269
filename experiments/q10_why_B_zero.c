// q10_why_B_zero.c - why does B start at zero, and not A, or both, or neither?
//
// A frozen layer x W has to become x (W + U V), U V of rank 4, by an adapter that starts in four ways. No weight decay, and the
// learning rate is above 0 from the first step on. The tables are of the first seed; the findings hold for all three.
// Asked in microsoft/LoRA#98, #114, #142; relora#18 shipped both zero. Look at: lora_new in lora.c; matmul_add_grad_h and
// matmul_add_grad_B in autograd.c: dh = s dY B^T, dB = s h^T dY, and dA = x^T dh.

#include "adamw.h"
#include "question.h"

enum { ROWS = 64, WIDTH = 16, RANK = 4, STEPS = 200, STARTS = 4, SHOWN = 3 };
enum { B_ZERO, A_ZERO, BOTH_ZERO, NONE_ZERO };
static const char *const names[STARTS] = { "A random, B 0 (ours)", "A 0, B random", "both 0", "both random" };

typedef struct Run {
    double shift;                        // the first step's loss, less the loss of the frozen layer alone
    double A[SHOWN], B[SHOWN];           // |dA| and |dB| in the first steps
    double last;                         // loss after STEPS, as a share of the frozen layer's
} Run;

static Run train_adapter(int start, uint64_t seed)
{
    Run run = { 0 };
    Tensor *x = random_leaf("x", 1, seed, SHAPE(ROWS, WIDTH));
    Tensor *U = random_leaf("U", 0.5, seed + 20, SHAPE(WIDTH, RANK)), *V = random_leaf("V", 0.5, seed + 30, SHAPE(RANK, WIDTH));
    Layer layer;
    layer_init(&layer, WIDTH, WIDTH, RANK, 0.25, seed + 10);
    Tensor *W = layer.linear.weight, *A = layer.lora.A, *B = layer.lora.B;
    Tensor *h = op_matmul(NULL, x, U), *target = op_matmul_add(NULL, op_matmul(NULL, x, W), h, V, 1); // x (W + U V)
    if (start == A_ZERO || start == NONE_ZERO) fill_uniform(B, 0.5, seed + 50);
    if (start == A_ZERO || start == BOTH_ZERO) memset(A->data, 0, (size_t)A->size * sizeof(real));
    AdamW *optimizer = adamw_new((Tensor *[]){ A, B }, 2, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    double frozen = 0; // the loss without adapter
    Tape *tape = tape_new();
    for (int step = -1; step <= STEPS; step++) {
        tape_clear(tape);
        layer.linear.lora = step >= 0 ? &layer.lora : NULL;
        Tensor *loss = squared_error(tape, linear_apply(tape, &layer.linear, x), target);
        if (step == -1) frozen = (double)loss->data[0];
        if (step == 0) run.shift = (double)loss->data[0] - frozen;
        if (step == STEPS) run.last = (double)loss->data[0] / frozen;
        if (step == -1) continue;
        backward(tape, loss);
        if (step < SHOWN) run.A[step] = grad_norm(A), run.B[step] = grad_norm(B);
        adamw_step(optimizer, 0.02);
        tensor_drop_grad(A);
        tensor_drop_grad(B);
    }
    tape_free(tape);
    adamw_free(optimizer);
    layer_free(&layer);
    drop_all(5, (Tensor *[]){ x, U, V, h, target });
    return run;
}

int main(void)
{
    question("An adapter's B starts at 0 and A does not. Would it work the other way round? And with both 0?");
    predict("Which of the four starts change the model before the first step, and which never learn?");

    bool same_start = true, one_zero = true, stuck = true, random_differs = true, learn = true;
    print_wrapped("  ", "(shift: what the fresh adapter does to the loss; left: the share of the base's loss after 200 steps)");
    printf("  %-20s %5s %21s %21s %8s\n", "", "shift", "|dA|, steps 0, 1, 2", "|dB|, steps 0, 1, 2", "left");
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (int start = 0; start < STARTS; start++) {
            Run r = train_adapter(start, seed);
            if (seed == 1)
                printf("  %-20s %5.2g   %5.2g %6.2g %6.2g   %5.2g %6.2g %6.2g %6.1f %%\n", names[start], r.shift,
                       r.A[0], r.A[1], r.A[2], r.B[0], r.B[1], r.B[2], 100 * r.last);
            if (start != NONE_ZERO) same_start &= r.shift == 0;
            else random_differs &= r.shift != 0;
            if (start == B_ZERO) one_zero &= r.A[0] == 0 && r.B[0] > 0 && r.A[1] > 0;
            if (start == A_ZERO) one_zero &= r.B[0] == 0 && r.A[0] > 0 && r.B[1] > 0;
            if (start == BOTH_ZERO) stuck &= r.A[2] == 0 && r.B[2] == 0 && r.last == 1;
            else learn &= r.last < 0.1;
        }

    why("dB = s (x A)^T dY is 0 if A is; dA = s x^T (dY B^T) is 0 if B is. With one of the two at 0, the model starts "
        "as it was and the other factor moves at once; with both, neither ever does. Which one is 0 matters little.");
    finding(same_start, "with A or B at 0 the first loss is the frozen layer's own, to the bit");
    finding(random_differs, "with both random it is not: the first loss is already another");
    finding(one_zero, "only the factor that is 0 gets a gradient at step 0, the other one's is exactly 0; from step 1 both do");
    finding(stuck, "both 0: both gradients are exactly 0 for ever, and the loss never moves");
    finding(learn, "the other three learn: below 10 % of the loss after 200 steps, over three seeds");
    return answered();
}
