// q13_rank.c - does a larger rank cost much memory, and does it help?
//
// First the bytes of a step at rank 1 to 64, from the ledger. Then a transformer that has read some tales learns the pirate's,
// by ranks and learning rates. The table of losses is of the first seed; the findings hold over three.
// Asked in gpu_poor#5 and aprender#2258 (r = 256 diverged). Look at: lora_new in lora.c, and adamw_step in adamw.c.

#include "tiny.h"

enum { STEPS = 60, RANKS = 4, RATES = 4 };
static const int ranks[RANKS] = { 1, 4, 16, 64 };
static const double rates[RATES] = { 1e-3, 1e-2, 1e-1, 1 };
static const MemoryKind kinds[] = { MEMORY_WEIGHTS, MEMORY_ADAPTERS, MEMORY_PARAMETER_GRADIENTS, MEMORY_MOMENTS,
                                    MEMORY_KEPT_ACTIVATIONS };

int main(void)
{
    question("What does a larger rank cost in memory, and what does it bring?");
    predict("r from 1 to 16: by how many percent does the peak of a step grow? And does the loss keep falling?");

    Text tales = tiny_text("builtin:tales"), pirate = tiny_text("builtin:pirate");
    Transformer *model = tiny_model(&tales, 4, 128, 1);
    int64_t peak[RANKS];
    bool exact = true;
    printf("  %-8s %11s %11s %11s %11s %11s %11s\n", "bytes", "weights", "adapters", "gradients", "moments", "kept", "peak");
    for (int r = 0; r < RANKS; r++) {
        attach(model, lora_on(ON_C_ATTN, ranks[r]), 1);
        Ledger l = measure_steps(model, (Steps){ .batch = tiny_batch(&tales), .count = 2, .optimizer = true }).ledger;
        const int64_t size = 4 * ranks[r] * (128 + 3 * 128) * (int64_t)sizeof(real); // r (in + out) in 4 blocks
        peak[r] = l.peak;
        printf("  r = %-4d", ranks[r]);
        for (int k = 0; k < 5; k++) printf(" %11" PRId64, (int64_t)l.own_peak[kinds[k]]);
        printf(" %11" PRId64 "\n", peak[r]);
        exact &= l.own_peak[MEMORY_ADAPTERS] == size && l.own_peak[MEMORY_PARAMETER_GRADIENTS] == size &&
            l.own_peak[MEMORY_MOMENTS] == 2 * size;
    }
    transformer_free(model);

    bool saturates = true, too_high = true, far_too_high = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        double loss[RANKS][RATES], best[RANKS], base;
        model = tiny_base(&tales, seed);
        base = evaluate_validation(model, &pirate);
        if (seed == 1)
            printf("  loss     rate %g %9g %11g %11g   (untrained: %.3f)\n", rates[0], rates[1], rates[2], rates[3], base);
        for (int r = 0; r < RANKS; r++) {
            best[r] = HUGE_VAL;
            for (int l = 0; l < RATES; l++) {
                attach(model, lora_on(ON_C_ATTN, ranks[r]), seed);
                loss[r][l] = learn(model, &pirate, STEPS, rates[l], seed);
                best[r] = fmin(best[r], loss[r][l]);
            }
            const double *at = loss[r];
            if (seed == 1) printf("  r = %-4d %11.3f %11.3f %11.3f %11.3f\n", ranks[r], at[0], at[1], at[2], at[3]);
            far_too_high &= loss[r][RATES - 1] > base;
        }
        printf("  best loss at r = 1, 4, 16, 64:   %.3f %.3f %.3f %.3f   (seed %d)\n", best[0], best[1], best[2], best[3],
               (int)seed);
        double gain = best[0] - best[2]; // of r = 16 over r = 1
        saturates &= gain > 0.03 && best[2] - best[3] < 0.5 * gain;
        too_high &= loss[0][2] < base && fmin(loss[1][2], fmin(loss[2][2], loss[3][2])) > base;
        transformer_free(model);
    }

    why("A and B have r (in + out) numbers, and three more of each while training: little beside the weights and "
        "activations that stay. What rank 1 cannot do a larger one may; the learning rate decides more than r does.");
    finding(exact, "adapter, gradients and moments are r (in + out) numbers a layer, once, once and twice, to the byte");
    finding(100 * (peak[2] - peak[0]) < 10 * peak[0], "r from 1 to 16: the peak of a step grows by less than 10 %");
    finding(saturates, "16 beats 1 by more than 0.03; 64 adds less than half of that gain, if anything, over three seeds");
    finding(too_high, "rate 0.1: r = 1 still improves, r = 4, 16 and 64 end worse than untrained, over three seeds");
    finding(far_too_high, "rate 1: every rank does, over three seeds");
    text_free(&tales);
    text_free(&pirate);
    return answered();
}
