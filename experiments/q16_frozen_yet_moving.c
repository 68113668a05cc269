// q16_frozen_yet_moving.c - a layer was frozen, and still changes: how?
//
// A layer trains for 20 steps, then it is to stay as it is, for 100 more, in one of four ways. Only the first one is freezing;
// the others leave the optimizer something to go on with: moments, weight decay, or an old gradient. The numbers are of the
// first seed; the findings hold for all three.
// Asked in many forums; advice differs. Look at: adamw_step in adamw.c (what is frozen loses its moments), and update_part.

#include "adamw.h"
#include "question.h"

enum { ROWS = 16, WIDTH = 8, STEPS_BEFORE = 20, STEPS_AFTER = 100, WAYS = 4 };
enum { FROZEN, ZERO_GRADIENT, ONLY_DECAY, OLD_GRADIENT };
static const char *const ways[WAYS] = { "requires_grad = false", "gradient set to 0, old moments",
                                        "gradient 0, fresh moments, decay 0.1", "gradient not cleared, no new one" };

// The largest change of W after it should have stopped; *kept: whether the optimizer still has moments for it.
static double change(int way, uint64_t seed, bool *kept)
{
    Tensor *x = random_leaf("x", 1, seed, SHAPE(ROWS, WIDTH));
    Tensor *target = random_leaf("target", 1, seed + 10, SHAPE(ROWS, WIDTH));
    Tensor *W = random_leaf("W", 0.3, seed + 20, SHAPE(WIDTH, WIDTH)), *before = NULL;
    Tensor *V = random_leaf("V", 0.3, seed + 30, SHAPE(WIDTH, WIDTH));
    W->requires_grad = V->requires_grad = true;
    AdamWConfig config = { 0.9, 0.99, way == ONLY_DECAY ? 0.1 : 0, 0 };
    AdamW *optimizer = adamw_new((Tensor *[]){ W, V }, 2, config);
    Tape *tape = tape_new();
    for (int step = 0; step < STEPS_BEFORE + STEPS_AFTER; step++) {
        if (step == STEPS_BEFORE) {
            before = tensor_from("before", W->data, SHAPE(WIDTH, WIDTH));
            if (way == FROZEN) W->requires_grad = false;
            if (way == ONLY_DECAY) {
                adamw_free(optimizer);
                optimizer = adamw_new((Tensor *[]){ W, V }, 2, config);
            }
        }
        bool stopped = step >= STEPS_BEFORE;
        tape_clear(tape);
        tensor_drop_grad(V);
        if (!(stopped && way == OLD_GRADIENT)) tensor_drop_grad(W);
        if (stopped && way == OLD_GRADIENT) W->requires_grad = false; // nothing new is added ...
        Tensor *h = op_tanh(tape, op_matmul(tape, x, W));
        backward(tape, squared_error(tape, op_matmul(tape, h, V), target));
        if (stopped && way == OLD_GRADIENT) W->requires_grad = true;  // ... but the optimizer was not told
        if (stopped && (way == ZERO_GRADIENT || way == ONLY_DECAY)) memset(W->grad, 0, (size_t)W->size * sizeof(real));
        adamw_step(optimizer, 0.01);
    }
    *kept = optimizer->m[0] != NULL;
    double largest = largest_difference(W->data, before->data, W->size);
    tape_free(tape);
    adamw_free(optimizer);
    drop_all(5, (Tensor *[]){ x, target, W, V, before });
    return largest;
}

int main(void)
{
    question("I froze a layer, and its weights still change. Why?");
    predict("Which of the four ways keep W as it is, to the bit, for 100 steps?");

    bool stays = true, coasts = true, decays = true, repeats = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        double largest[WAYS];
        bool kept[WAYS];
        for (int way = 0; way < WAYS; way++) {
            largest[way] = change(way, seed, &kept[way]);
            if (seed == 1) measured(ways[way], "W moved by %.3g; moments %s", largest[way], kept[way] ? "kept" : "freed");
        }
        stays &= largest[FROZEN] == 0 && !kept[FROZEN];
        coasts &= largest[ZERO_GRADIENT] > 0.001;
        decays &= largest[ONLY_DECAY] > 0.001;
        repeats &= largest[OLD_GRADIENT] > 5 * largest[ZERO_GRADIENT];
    }

    why("Adam steps by m / sqrt(v): with a gradient of 0 the averages only fade, and W coasts on; weight decay needs no "
        "gradient at all. So the flag has to stop the optimizer too: it passes W over, and frees its moments.");
    finding(stays, "requires_grad = false: not one bit of W changes, and its moments are freed");
    finding(coasts, "a zero gradient is no freezing: W coasts on its moments, over three seeds");
    finding(decays, "without moments, weight decay alone moves it, over three seeds");
    finding(repeats, "an old gradient that nobody cleared is applied again and again: over 5 times as far, over three seeds");
    return answered();
}
