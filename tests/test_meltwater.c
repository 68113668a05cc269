// test_meltwater.c - the one file beside the book: the same text, shape and seed give the same losses, and what is frozen is frozen
// in both.

#include "adapters.h"
#include "training.h"

#include "one_file.h"
#include "test.h"

enum { STEPS = sizeof(real) == sizeof(double) ? 100 : 20 }; // in float the two round differently, and few steps are enough
#define CLOSE (sizeof(real) == sizeof(double) ? 1e-10 : 2e-3) // in float the two round differently at every sum

static char error[256];

// The windows of meltwater.c.
static void batch_of(const char *text, int64_t step, int *ids, int *targets)
{
    for (int i = 0; i < ONE_B * ONE_T; i++) {
        uint64_t start = random_bits(random_bits(ONE_SEED, (uint64_t)step), (uint64_t)(i / ONE_T)) % (ONE_TEXT - ONE_T);
        const char *c = text + start + i % ONE_T;
        ids[i] = c[0];
        targets[i] = c[1];
    }
}

static double train_beside(Transformer *model, const char *text, const double *losses, double rate)
{
    int ids[ONE_B * ONE_T], targets[ONE_B * ONE_T];
    double worst = 0;
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 0 });
    Tape *tape = tape_new();
    for (int step = 0; step < STEPS; step++) {
        batch_of(text, step, ids, targets);
        double loss = training_step(model, tape, optimizer, ids, targets, ONE_B, ONE_T, ONE_SEED, step, rate).loss;
        worst = fmax(worst, fabs(loss - losses[step]));
    }
    tape_free(tape);
    adamw_free(optimizer);
    return worst;
}

TEST(the_same_losses_as_the_book)
{
    double full[STEPS], lora[STEPS];
    Config config = { ONE_V, ONE_T, ONE_LAYERS, ONE_H, ONE_C, 0 };
    Transformer *model = transformer_new(config, ONE_SEED, error, sizeof error);

    const char *text = one_file_full(full, STEPS, 3e-3);
    double worst = train_beside(model, text, full, 3e-3);
    printf("     everything trains: the losses differ by %.1e at most\n", worst);
    EXPECT(worst < CLOSE, "everything trains: a loss differs by %g", worst);
    EXPECT(full[STEPS - 1] < full[0] - 0.5, "from %.3f to %.3f: little was learned", full[0], full[STEPS - 1]);
    OneFileCounts all = one_file_counts();
    int64_t base = transformer_base_size(model);
    EXPECT(all.skipped == 0 && all.gradient_bytes == (size_t)base * sizeof(double) && all.moment_bytes == 2 * all.gradient_bytes,
           "everything trains: %d skipped, %zu bytes of gradients, %zu of moments", all.skipped, all.gradient_bytes, all.moment_bytes);

    text = one_file_lora(lora, STEPS, 1e-2);
    transformer_train_base(model, false);
    LoraConfig all_linears = { .r = ONE_R, .alpha = ONE_R * ONE_SCALE, .targets = (1 << LINEARS) - 1, .last_block = ONE_LAYERS - 1 };
    EXPECT(transformer_add_adapter(model, "vowels", all_linears, ONE_SEED, error, sizeof error) != NULL, "%s", error);
    uint64_t before = transformer_hash(model);
    worst = train_beside(model, text, lora, 1e-2);
    printf("     adapters train: by %.1e\n", worst);
    EXPECT(worst < CLOSE, "adapters train: a loss differs by %g", worst);
    EXPECT(lora[STEPS - 1] < lora[0] - 0.05, "from %.3f to %.3f: little was learned", lora[0], lora[STEPS - 1]);
    EXPECT(transformer_hash(model) == before, "the base has changed");
    OneFileCounts some = one_file_counts();
    size_t adapters = (size_t)(transformer_trainable_size(model)) * sizeof(double);
    EXPECT(some.skipped > 0 && some.computed == 2 * 4 * ONE_LAYERS && some.gradient_bytes == adapters && some.moment_bytes == 2 * adapters,
           "adapters train: %d skipped, %d computed, %zu bytes of gradients, %zu of moments", some.skipped, some.computed,
           some.gradient_bytes, some.moment_bytes);
    transformer_free(model);
}

int main(void)
{
    RUN(the_same_losses_as_the_book);
    return test_summary();
}
