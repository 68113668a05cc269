// q06_why_no_faster.c - why is LoRA hardly faster than full training?
//
// The multiplications of a step, by phase, and the time of each, for full training and for LoRA on all four layers of a
// block. Times are the fastest of several steps taken in turn; the findings rest on counts, which are the same on each run.
// Asked in microsoft/LoRA#24. Look at: the block of linear in ops.c: it has one gradient for each input.

#include "tiny.h"

enum { BLOCKS = 4, WIDTH = 128, TURNS = 5, STEPS = 3 }; // steps of each turn

int main(void)
{
    question("LoRA trains few of the numbers. Why is a step not many times as fast?");
    predict("By what factor does the work (multiplications and additions) of a step fall?");

    Text text = tiny_text("builtin:tales");
    Transformer *models[2];
    Measured cost[2] = { 0 };
    int64_t trainable[2];
    for (int i = 0; i < 2; i++) {
        models[i] = tiny_model(&text, BLOCKS, WIDTH, 1);
        if (i == 1) attach(models[i], lora_on(ON_ALL, 4), 1);
        trainable[i] = transformer_trainable_size(models[i]);
    }
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < 2; i++) {
            Measured m = measure_steps(models[i], (Steps){ .batch = tiny_batch(&text), .count = STEPS, .optimizer = true });
            keep_least(&cost[i], &m);
        }

    double mflop[2][PHASES], ms[2];
    for (int i = 0; i < 2; i++) {
        ms[i] = 1e3 * cost[i].optimizer_seconds;
        for (int p = 0; p < PHASES; p++) {
            mflop[i][p] = 1e-6 * (double)cost[i].phase[p].flops;
            ms[i] += 1e3 * cost[i].phase[p].seconds;
        }
    }
    printf("  %-12s %14s %14s %14s %14s\n", "", "full, MFLOP", "LoRA, MFLOP", "full, ms", "LoRA, ms");
    for (int p = 0; p < PHASES; p++)
        printf("  %-12s %14.1f %14.1f %14.2f %14.2f\n", phase_names[p], mflop[0][p], mflop[1][p],
               1e3 * cost[0].phase[p].seconds, 1e3 * cost[1].phase[p].seconds);
    printf("  %-12s %14s %14s %14.2f %14.2f\n", "optimizer", "", "", 1e3 * cost[0].optimizer_seconds,
           1e3 * cost[1].optimizer_seconds);
    double all[2] = { 1e-6 * all_flops(&cost[0]), 1e-6 * all_flops(&cost[1]) };
    printf("  %-12s %14.1f %14.1f %14.2f %14.2f\n", "all", all[0], all[1], ms[0], ms[1]);
    measured("the work falls by a factor of", "%.2f", all[0] / all[1]);
    double again[2]; // with each block's forward run a second time in backward
    for (int i = 0; i < 2; i++) {
        models[i]->recompute = true;
        Measured m = measure_steps(models[i], (Steps){ .batch = tiny_batch(&text), .count = 1 });
        again[i] = 1e-6 * all_flops(&m);
    }
    measured("with recomputation, by", "%.2f", again[0] / again[1]);
    measured("numbers the optimizer updates", "%" PRId64 " -> %" PRId64 ", %.1f %%", trainable[0], trainable[1],
             100 * (double)trainable[1] / (double)trainable[0]);

    why("A step is three products of about equal size: x W, dY W^T, X^T dY. Only the last goes, so even an adapter "
        "for free could win no more than 3/2 on them. What nearly vanishes is the optimizer, and that was little.");
    finding(mflop[1][PHASE_FORWARD] > mflop[0][PHASE_FORWARD], "forward: the adapters make it more work, not less");
    finding(mflop[1][PHASE_DGRAD] > 0.95 * mflop[0][PHASE_DGRAD],
            "dgrad, through the frozen weights: 95 % of it stays, or more");
    finding(mflop[1][PHASE_WGRAD] < 0.1 * mflop[0][PHASE_WGRAD], "wgrad: less than a tenth is left");
    finding(all[0] > 1.3 * all[1] && all[0] < 1.5 * all[1], "in all the work falls by a factor between 1.3 and 1.5");
    finding(again[0] > 1.2 * again[1] && again[0] < all[0] / all[1] * again[1],
            "with recomputation by less: forward counts twice in both, so 4 units against 3");
    finding(20 * trainable[1] < trainable[0], "the optimizer has less than a twentieth to update");
    for (int i = 0; i < 2; i++) transformer_free(models[i]);
    text_free(&text);
    return answered();
}
