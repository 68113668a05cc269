// q27_gpt2_in_four_bits.c - what does a base in four bits save at GPT-2's size, and what does it not?
//
// The shape of GPT-2 124M with random weights, adapters of rank 8 on c_attn, blocks recomputed: two steps on 256 tokens with the
// base in floats, two with it in nf4. Every byte at the peak, by the formulas of predict.c and by the ledger. It needs most of a
// gigabyte (twice that with REAL=double) and says so where the machine has less; then the formulas alone are left.
// Look at: states_there and in_codes in predict.c, transformer_hold_base in transformer.c.

#include "claims.h"
#include "question.h"

#include <time.h>

enum { TOKENS = 256, TYPES = 2 }; // floats, and nf4
static const Config gpt2_124m = { 50257, 1024, 12, 12, 768, 0 };

static double megabytes(int64_t bytes) { return 1e-6 * (double)bytes; }

static void print_kind(const char *name, const int64_t bytes[2 * TYPES], bool measured_too)
{
    printf("  %-24s", name);
    for (int i = 0; i < 2 * TYPES; i++)
        if (i % 2 == 0 || measured_too) printf("%13.1f", megabytes(bytes[i]));
        else printf("%13s", "");
    printf("\n");
}

int main(void)
{
    question("What does a base in four bits save at GPT-2's size, and what does it not?");
    predict("A step of LoRA on 256 tokens, blocks recomputed. The linear layers' weights take 4 bits and a scale, not 32: about "
            "a seventh. By what factor does the peak fall?");

    LoraConfig lora[TYPES] = { on_c_attn, on_c_attn };
    lora[1].base_type = BASE_NF4;
    Prediction p[TYPES];
    for (int t = 0; t < TYPES; t++) p[t] = predict_step(&gpt2_124m, &lora[t], 1, TOKENS, true, 1, (int)sizeof(real));
    Measured m[TYPES] = { 0 };
    double seconds[TYPES] = { 0 }; // of the processor, which a neighbour disturbs less
    char error[256];
    bool fits = memory_holds(1.4 * (double)p[0].peak, error, sizeof error);
    if (fits) {
        static int ids[TOKENS + 1];
        for (int i = 0; i <= TOKENS; i++) ids[i] = (int)(7919LL * i * i % gpt2_124m.vocab_size);
        Transformer *model = new_model(gpt2_124m, SEED);
        model->recompute = true;
        for (int t = 0; t < TYPES; t++) {
            adapt(model, &lora[t], SEED);
            memory_release_pool();
            clock_t start = clock();
            m[t] = measure_steps(model, (Steps){ .batch = { ids, ids + 1, 1, TOKENS }, .count = 2, .optimizer = true });
            seconds[t] = (double)(clock() - start) / CLOCKS_PER_SEC / 2;
        }
        transformer_free(model);
    } else printf("  not measured: %s\n", error);

    bool exact = true;
    printf("  %-24s%13s%13s%13s%13s\n", "MB at the peak", "float: paper", "ledger", "nf4: paper", "ledger");
    for (int k = 0; k < MEMORY_KINDS; k++) {
        const Ledger *floats = &m[0].ledger, *nf4 = &m[1].ledger;
        print_kind(memory_kind_names[k], (int64_t[]){ p[0].at_peak[k], floats->at_peak[k], p[1].at_peak[k], nf4->at_peak[k] }, fits);
        exact &= p[0].at_peak[k] == floats->at_peak[k] && p[1].at_peak[k] == nf4->at_peak[k];
    }
    exact &= p[0].peak == m[0].ledger.peak && p[1].peak == m[1].ledger.peak;
    print_kind("in all", (int64_t[]){ p[0].peak, m[0].ledger.peak, p[1].peak, m[1].ledger.peak }, fits);
    double embeddings = (double)gpt2_124m.n_embd * (gpt2_124m.vocab_size + gpt2_124m.block_size) * sizeof(real);
    measured("of nf4's weights, embeddings in floats", "%.1f MB", 1e-6 * embeddings);
    measured("the peak falls by a factor of", "%.2f", (double)p[0].peak / (double)p[1].peak);
    if (fits) measured("a step, floats and nf4", "%.2f s, %.2f s: %.2f times", seconds[0], seconds[1], seconds[1] / seconds[0]);

    int64_t left = p[1].peak - p[1].at_peak[MEMORY_WEIGHTS], was = p[0].peak - p[0].at_peak[MEMORY_WEIGHTS];
    why("Only the weights of linear layers are in codes. Embeddings, which are the head as well, stay floats, and so does all that "
        "the step itself makes: activations and their gradients. A product makes a piece of W at a time out of codes, at most "
        "128 x 512 numbers, in scratch that each thread has anyway.");
    if (fits) finding(exact, "every byte at the peak, by kind, is what predict.c says");
    if (fits) finding(seconds[1] <= 1.5 * seconds[0], "a step on nf4 takes at most 1.5 times as long as on floats");
    finding(left == was, "apart from the weights, not a byte is saved");
    finding(embeddings > (double)p[1].at_peak[MEMORY_WEIGHTS] / 2, "of nf4's weights more than half are embeddings");
    return answered();
}
