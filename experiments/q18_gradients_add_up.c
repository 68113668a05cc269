// q18_gradients_add_up.c - why must gradients be cleared, and why does backward add to them at all?
//
// First a batch of 64 rows, whole and in 8 parts one after another, whose gradients are added up. Then training with plain
// gradient descent, once with the gradient cleared after each step and once without. The curve is of the first seed.
// Asked in micrograd#102 and on many pages.
// Look at: need_grad in autograd.c (who comes first to a gradient), and += in the gradient kernels.

#include "question.h"

enum { ROWS = 64, PARTS = 8, WIDTH = 8, STEPS = 60 };

// d/dW of the mean squared error over rows [first, first + rows), times `share`, is added to W->grad.
static double add_gradient(Tensor *W, const Tensor *x, const Tensor *target, int first, int rows, real share_of_all)
{
    Tape *tape = tape_new();
    Tensor *x_part = tensor_from("x", x->data + first * WIDTH, SHAPE(rows, WIDTH));
    Tensor *target_part = tensor_from("target", target->data + first * WIDTH, SHAPE(rows, WIDTH));
    Tensor *loss = op_scale(tape, squared_error(tape, op_matmul(tape, x_part, W), target_part), share_of_all);
    double value = (double)loss->data[0];
    backward(tape, loss);
    tape_free(tape);
    drop_all(2, (Tensor *[]){ x_part, target_part });
    return value;
}

int main(void)
{
    question("Why does backward add to gradients, so that one has to clear them?");
    predict("Train without clearing: does the loss fall more slowly, just as fast, or not at all?");

    bool parts_agree = true, twice = true, clearing_learns = true, not_clearing = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        Tensor *x = random_leaf("x", 1, 10 * seed, SHAPE(ROWS, WIDTH));
        Tensor *goal = random_leaf("goal", 0.5, 10 * seed + 1, SHAPE(WIDTH, WIDTH)), *target = op_matmul(NULL, x, goal);
        Tensor *W = random_leaf("W", 0.3, 10 * seed + 2, SHAPE(WIDTH, WIDTH));
        real start[WIDTH * WIDTH], whole[WIDTH * WIDTH]; // W's numbers, and its gradient over the whole batch
        memcpy(start, W->data, sizeof start);
        W->requires_grad = true;

        add_gradient(W, x, target, 0, ROWS, 1);
        memcpy(whole, W->grad, sizeof whole);
        add_gradient(W, x, target, 0, ROWS, 1); // a second backward, nothing cleared
        double size = norm_of(whole, W->size);
        twice &= fabs(grad_norm(W) / size - 2) < 1e-6;
        tensor_drop_grad(W);
        for (int part = 0; part < PARTS; part++) add_gradient(W, x, target, part * ROWS / PARTS, ROWS / PARTS, (real)1 / PARTS);
        double apart = largest_difference(W->grad, whole, W->size);
        parts_agree &= apart < 1e-6 * size;
        if (seed == 1) measured("8 parts and the whole batch: largest difference", "%.2g, of |g| = %.3f", apart, size);

        double loss[2][STEPS];
        for (int clear = 0; clear < 2; clear++) {
            memcpy(W->data, start, sizeof start);
            tensor_drop_grad(W);
            for (int step = 0; step < STEPS; step++) {
                loss[clear][step] = add_gradient(W, x, target, 0, ROWS, 1);
                for (int64_t i = 0; i < W->size; i++) W->data[i] -= W->grad[i];
                if (clear) tensor_drop_grad(W);
            }
            if (seed == 1) {
                printf("  loss every 10 steps, %-12s", clear ? "cleared" : "not cleared");
                for (int step = 0; step < STEPS; step += 10) printf(" %7.2g", loss[clear][step]);
                printf("\n");
            }
        }
        double least = HUGE_VAL, most = 0; // of the last 10: not cleared, cleared
        for (int step = STEPS - 10; step < STEPS; step++) {
            least = fmin(least, loss[0][step]);
            most = fmax(most, loss[1][step]);
        }
        clearing_learns &= most < 0.02 * loss[1][0];
        not_clearing &= least > 10 * most;
        drop_all(4, (Tensor *[]){ x, W, goal, target });
    }

    why("A tensor that is used twice gets a part of its gradient from each use, and a batch from each micro-batch: both "
        "need +=. Not cleared, a step is the sum of all gradients so far, momentum without friction: it swings for ever.");
    finding(parts_agree, "8 micro-batches add up to the whole batch's gradient, to 1e-6 of its size, over three seeds");
    finding(twice, "backward twice, not cleared: twice the gradient");
    finding(clearing_learns, "cleared: the loss falls below 1/50 in 60 steps, over three seeds");
    finding(not_clearing, "not cleared: in the last 10 steps it is never within 10 times that, over three seeds");
    return answered();
}
