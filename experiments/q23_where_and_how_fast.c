// q23_where_and_how_fast.c - with the same number of numbers to train: on which layers, and at which learning rate?
//
// For width C, rank r on c_attn has 4 C r numbers, on c_attn and both layers of the small net (c_fc, mlp.c_proj) 14 C r, on all
// four 16 C r. So r = 8 on c_attn, 2 on all four. Each, and full training, at five learning rates; what matters is the best.
// After "LoRA without regret" (Schulman et al. 2025: the layers of the net matter more than attention's, and LoRA's best rate
// is about ten times full training's) and "LoRA learns less and forgets less" (Biderman et al. 2024). Look at: lora_targets.
// Ten seconds' worth of it; with five seeds, a finer grid and the floor, experiments/regret asks the same and more.

#include "tiny.h"

enum { BASE_STEPS = 600, STEPS = 150, RATES = 5, WAYS = 4 };
static const double rates[RATES] = { 1e-3, 3e-3, 1e-2, 3e-2, 1e-1 };
static const struct { const char *name; unsigned targets; int r; } ways[WAYS] = {
    { "everything trains", 0, 0 },
    { "r = 8 on c_attn", ON_C_ATTN, 8 },
    { "r = 2 on all four", ON_ALL, 2 },
    { "r = 3 on c_fc and mlp.c_proj", 1u << C_FC | 1u << MLP_C_PROJ, 3 },
};

int main(void)
{
    question("On which layers, and at which learning rate?");
    predict("1,024 numbers a block: all on c_attn, or fewer on each of four layers? And is LoRA's best learning rate lower "
            "than full training's, the same, or higher?");
    Text tales = tiny_text("builtin:tales"), pirate = tiny_text("builtin:pirate");
    bool spread = true, net = true, faster = true, less = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        double best[WAYS], rate[WAYS], old[WAYS];
        Transformer *model = tiny_model(&tales, BASE_BLOCKS, BASE_WIDTH, seed);
        learn(model, &tales, BASE_STEPS, 5e-3, seed);
        double base = evaluate_validation(model, &tales);
        if (seed == 1)
            printf("  %-30s %8s %6g %6g %6g %6g %6g   tales\n", "loss, by learning rate", "numbers", rates[0], rates[1],
                   rates[2], rates[3], rates[4]);
        for (int w = 0; w < WAYS; w++) {
            double loss[RATES];
            int64_t trained = 0;
            best[w] = HUGE_VAL;
            for (int k = 0; k < RATES; k++) {
                real **copy = copy_base(model);
                LoraConfig lora = lora_on(ways[w].targets, ways[w].r);
                adapt(model, ways[w].r ? &lora : NULL, seed);
                trained = transformer_trainable_size(model);
                loss[k] = learn(model, &pirate, STEPS, rates[k], seed);
                if (loss[k] < best[w]) {
                    best[w] = loss[k];
                    rate[w] = rates[k];
                    old[w] = evaluate_validation(model, &tales);
                }
                restore_base(model, copy);
            }
            if (seed == 1)
                printf("  %-30s %8d %6.3f %6.3f %6.3f %6.3f %6.3f   %.3f\n", ways[w].name, (int)trained, loss[0], loss[1],
                       loss[2], loss[3], loss[4], old[w]);
        }
        printf("  seed %d, best rates: %g; %g, %g, %g; losses %.3f; %.3f, %.3f, %.3f; tales before %.3f\n", (int)seed, rate[0],
               rate[1], rate[2], rate[3], best[0], best[1], best[2], best[3], base);
        spread &= best[2] < best[1];
        net &= best[3] < best[1];
        faster &= rate[1] > rate[0] && rate[2] > rate[0];
        less &= best[0] < best[2] && old[2] < old[0];
        transformer_free(model);
    }
    why("A low rank on every layer can change more than a higher one on a single layer; and the net of two layers is where "
        "most of the weights are. A B begins as 0, and A is small beside W: both must move further than W would, so the rate is "
        "higher.");
    finding(spread, "spread over all four layers the same numbers learn more than on c_attn alone, over three seeds");
    finding(net, "so do fewer on the two layers of the net, over three seeds");
    finding(faster, "LoRA's best rate is higher than full training's, over three seeds");
    finding(less, "LoRA learns less than full training, and forgets less of the tales, over three seeds");
    text_free(&tales);
    text_free(&pirate);
    return answered();
}
