// q06_why_no_faster.c - why is LoRA hardly faster than full training?
//
// The multiplications of a step, by phase, and the time of each, for full training and for LoRA on all four layers of a
// block. Times are the fastest of several steps taken in turn; the findings rest on counts, which are the same on each run.
// Asked in microsoft/LoRA#24. Look at: the op table at the end of autograd.c: linear has one gradient for each input.

#include "tiny.h"

enum { BLOCKS = 4, WIDTH = 128, STEPS = 10 };
typedef struct Cost { double mflop[PHASES], ms[PHASES], optimizer_ms; long optimizer_numbers; } Cost;

// One step, whose times replace those in `cost` where they are shorter.
static void step(Transformer *model, Tape *tape, AdamW *optimizer, const Text *text, Cost *cost)
{
    tape->counts = (Counts){ 0 };
    optimizer->seconds = 0;
    forward_backward(model, tape, text);
    adamw_step(optimizer, 0);
    zero_grads(model);
    for (int p = 0; p < PHASE_RECOMPUTE; p++) {
        Work work = counts_phase(&tape->counts, (Phase)p);
        cost->mflop[p] = 1e-6 * (double)work.flops;
        cost->ms[p] = fmin(cost->ms[p] > 0 ? cost->ms[p] : HUGE_VAL, 1e3 * work.seconds);
    }
    cost->optimizer_ms = fmin(cost->optimizer_ms > 0 ? cost->optimizer_ms : HUGE_VAL, 1e3 * optimizer->seconds);
    cost->optimizer_numbers = transformer_trainable_size(model);
}

int main(void)
{
    question("LoRA trains 3 % of the numbers. Why is a step not many times as fast?");
    predict("By what factor does the work (multiplications and additions) of a step fall?");

    Text text = tiny_text("builtin:tales");
    Transformer *models[2];
    Tape *tapes[2];
    AdamW *optimizers[2];
    Cost cost[2] = { 0 };
    for (int i = 0; i < 2; i++) {
        models[i] = tiny_model(&text, BLOCKS, WIDTH, 1);
        if (i == 1) attach(models[i], lora_on(ON_ALL, 4), 1);
        tapes[i] = tape_new();
        optimizers[i] = tiny_optimizer(models[i]);
    }
    for (int s = 0; s < STEPS; s++)
        for (int i = 0; i < 2; i++) step(models[i], tapes[i], optimizers[i], &text, &cost[i]);

    double all[2] = { 0 }, ms[2] = { cost[0].optimizer_ms, cost[1].optimizer_ms };
    printf("  %-12s %14s %14s %14s %14s\n", "", "full, MFLOP", "LoRA, MFLOP", "full, ms", "LoRA, ms");
    for (int p = 0; p < PHASE_RECOMPUTE; p++) {
        for (int i = 0; i < 2; i++) {
            all[i] += cost[i].mflop[p];
            ms[i] += cost[i].ms[p];
        }
        printf("  %-12s %14.1f %14.1f %14.2f %14.2f\n", phase_names[p], cost[0].mflop[p], cost[1].mflop[p], cost[0].ms[p],
               cost[1].ms[p]);
    }
    printf("  %-12s %14s %14s %14.2f %14.2f\n", "optimizer", "", "", cost[0].optimizer_ms, cost[1].optimizer_ms);
    printf("  %-12s %14.1f %14.1f %14.2f %14.2f\n", "all", all[0], all[1], ms[0], ms[1]);
    measured("the work falls by a factor of", "%.2f", all[0] / all[1]);
    measured("numbers the optimizer updates", "%ld -> %ld", cost[0].optimizer_numbers, cost[1].optimizer_numbers);

    why("A step is three products of about equal size: x W, dY W^T, X^T dY. Only the last goes, so even an adapter "
        "for free could win no more than 3/2 on them. What nearly vanishes is the optimizer, and that was little.");
    finding(cost[1].mflop[PHASE_FORWARD] > cost[0].mflop[PHASE_FORWARD], "forward: the adapters make it more work, not less");
    finding(cost[1].mflop[PHASE_DGRAD] > 0.95 * cost[0].mflop[PHASE_DGRAD],
            "dgrad, through the frozen weights: 95 % of it stays, or more");
    finding(cost[1].mflop[PHASE_WGRAD] < 0.1 * cost[0].mflop[PHASE_WGRAD], "wgrad: less than a tenth is left");
    finding(all[0] > 1.3 * all[1] && all[0] < 1.5 * all[1], "in all the work falls by a factor between 1.3 and 1.5");
    finding(20 * cost[1].optimizer_numbers < cost[0].optimizer_numbers, "the optimizer has less than a twentieth to update");
    for (int i = 0; i < 2; i++) {
        tape_free(tapes[i]);
        adamw_free(optimizers[i]);
        transformer_free(models[i]);
    }
    text_free(&text);
    return answered();
}
