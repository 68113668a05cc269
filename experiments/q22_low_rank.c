// q22_low_rank.c - why is a change of low rank enough?
//
// A small base that has read tales is trained in full on the pirate's. What that changed in each weight matrix, D = W_after -
// W_before, is taken apart into its singular values: D = sum_k s_k u_k v_k^T, the largest first. Then the base gets only the
// first r terms of each D back, and everything else as full training left it; and beside it an adapter of rank r is trained.
// After Aghajanyan et al. 2020 (few dimensions are enough) and Hu et al. 2021, section 7. Look at: linear_merge in lora.c.

#include "svd.h"
#include "tiny.h"

enum { BASE_STEPS = 600, STEPS = 150, RANKS = 6, MATRICES = BASE_BLOCKS * LINEARS };
static const int ranks[RANKS] = { 1, 2, 4, 8, 16, SMALL };

static Tensor *matrix_of(const Transformer *model, int i) { return model->blocks[i / LINEARS].linear[i % LINEARS].weight; }

typedef struct Losses { double base, full, truncated[RANKS], lora[RANKS], share[RANKS]; } Losses;

static Losses measure(const Text *tales, const Text *pirate, uint64_t seed)
{
    Losses l;
    Transformer *model = tiny_model(tales, BASE_BLOCKS, BASE_WIDTH, seed);
    learn(model, tales, BASE_STEPS, 5e-3, seed);
    l.base = evaluate_validation(model, pirate);
    real *before[MATRICES], **copy = copy_base(model);
    for (int i = 0; i < MATRICES; i++) {
        int at = 0;
        while (model->parameters[at] != matrix_of(model, i)) at++;
        before[i] = copy[at];
    }
    l.full = learn(model, pirate, STEPS, 3e-3, seed);
    Svd d[MATRICES];
    for (int i = 0; i < MATRICES; i++) d[i] = svd_of_change(matrix_of(model, i), before[i]);
    for (int r = 0; r < RANKS; r++) {
        for (int i = 0; i < MATRICES; i++) keep_terms(matrix_of(model, i), before[i], &d[i], ranks[r]);
        l.truncated[r] = evaluate_validation(model, pirate);
        l.share[r] = svd_share(d, MATRICES, ranks[r]);
    }
    for (int i = 0; i < MATRICES; i++) free(d[i].columns);
    restore_base(model, copy);
    for (int r = 0; r < RANKS; r++) {
        attach(model, lora_on(ON_ALL, ranks[r]), seed);
        l.lora[r] = learn(model, pirate, STEPS, 1e-2, seed);
    }
    transformer_free(model);
    return l;
}

int main(void)
{
    question("Why is a low-rank change enough?");
    predict("Of what full fine-tuning changed in the matrices, how much of the square lies in 8 of 32 directions? And how much "
            "of what it learned does the model keep with these alone?");
    Text tales = tiny_text("builtin:tales"), pirate = tiny_text("builtin:pirate");
    bool steep = true, enough = true, better = true, exact = true, lora = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        Losses l = measure(&tales, &pirate, seed);
        if (seed == 1) {
            printf("  %-4s %32s %12s %12s\n", "rank", "share of the change's square", "loss with it", "an adapter's");
            for (int r = 0; r < RANKS; r++)
                printf("  %-4d %30.1f %% %12.3f %12.3f\n", ranks[r], 100 * l.share[r], l.truncated[r], l.lora[r]);
        }
        printf("  seed %d: untrained %.3f, full %.3f; rank 4 of its change %.3f, adapter %.3f\n", (int)seed, l.base, l.full,
               l.truncated[2], l.lora[2]);
        double gain = l.base - l.full;
        steep &= l.share[3] > 0.6;
        better &= l.lora[2] < l.truncated[2] - 0.1;
        enough &= l.base - l.truncated[3] > 0.8 * gain;
        lora &= l.base - l.lora[2] > 0.8 * gain;
        exact &= fabs(l.truncated[RANKS - 1] - l.full) < 1e-3;
    }
    why("What the task needs is small beside what the base knows, and lies mostly in few directions. And an adapter is not "
        "bound to the directions that full training took, which had no reason to be few: it finds the best r of its own.");
    finding(steep, "8 of 32 directions hold more than 60 % of the change's square, over three seeds");
    finding(enough, "8 of them keep more than 80 % of what full training gained, over three seeds");
    finding(lora, "an adapter of rank 4 on all layers gains more than 80 % of it, over three seeds");
    finding(better, "and more than the 4 largest directions of full training's change: it found better ones, over three seeds");
    finding(exact, "all 32 give full training's loss back: the terms add up to the change");
    text_free(&tales);
    text_free(&pirate);
    return answered();
}
