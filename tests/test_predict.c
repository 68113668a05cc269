// test_predict.c - the paper against the ledger: for every shape, target set and rank below, each kind's own peak and what it
// holds at the overall peak agree to the byte; of a step in one part, and in several.

#include "adamw.h"
#include "predict.h"
#include "training.h"
#include "tests/test.h"

#include <stdlib.h>

static void compare_in_parts(const char *what, Config config, const LoraConfig *lora, int B, int T, bool recompute, int parts)
{
    char error[256];
    Transformer *model = transformer_new(config, 3, error, sizeof error);
    if (lora != NULL) {
        transformer_train_base(model, false);
        transformer_add_adapter(model, "adapter", *lora, 4, error, sizeof error);
        transformer_hold_base(model, lora->base_type);
    }
    model->recompute = recompute;
    int ids[512];
    for (int i = 0; i <= B * T; i++) ids[i] = (int)(random_bits(5, (uint64_t)i) % (uint64_t)config.vocab_size);
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    Tape *tape = tape_new();
    for (int step = 0; step < 3; step++) {
        tape_clear(tape);
        memory_reset_peaks();
        training_step_in_parts(model, tape, optimizer, ids, ids + 1, B, T, 1, step, 1e-3, &(Parts){ .count = parts, .end = parts });
    }
    Prediction p = predict_step_in_parts(&config, lora, B, T, recompute, parallel_threads(), (int)sizeof(real), parts);
    EXPECT(p.peak == ledger.peak, "%s: predicted %" PRId64 ", measured %" PRId64, what, p.peak, ledger.peak);
    for (int k = 0; k < MEMORY_KINDS; k++) {
        EXPECT(p.own_peak[k] == ledger.own_peak[k], "%s: %s: own peak predicted %" PRId64 ", measured %" PRId64, what, memory_kind_names[k], p.own_peak[k], ledger.own_peak[k]);
        EXPECT(p.at_peak[k] == ledger.at_peak[k], "%s: %s: at the peak predicted %" PRId64 ", measured %" PRId64, what, memory_kind_names[k], p.at_peak[k], ledger.at_peak[k]);
    }
    tape_free(tape);
    adamw_free(optimizer);
    transformer_free(model);
    scratch_release();
    EXPECT(ledger.total == 0, "%s: %" PRId64 " bytes are left", what, ledger.total);
}

static void compare(const char *what, Config config, const LoraConfig *lora, int B, int T, bool recompute)
{
    char name[200];
    snprintf(name, sizeof name, "%s, in two parts", what);
    compare_in_parts(what, config, lora, B, T, recompute, 1);
    if (lora == NULL || lora->targets % 4 == 1) compare_in_parts(name, config, lora, B, T, recompute, 2);
}

static const struct { const char *name; Config config; int B, T; } shapes[] = {
    { "1 block, wide vocabulary", { 97, 9, 1, 1, 12, 0 }, 2, 9 },
    { "3 blocks", { 11, 16, 3, 3, 24, 0 }, 3, 13 },
    { "4 blocks, long context", { 5, 64, 4, 2, 16, 0 }, 2, 64 },
    { "context 1", { 7, 4, 2, 4, 8, 0 }, 5, 1 },
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

TEST(full)
{
    for (int s = 0; s < SHAPES; s++)
        for (int recompute = 0; recompute < 2; recompute++)
            compare(shapes[s].name, shapes[s].config, NULL, shapes[s].B, shapes[s].T, recompute);
}

TEST(every_set_of_targets_and_ranks)
{
    for (int s = 0; s < SHAPES; s++)
        for (unsigned targets = 1; targets < 16; targets++)
            for (int variant = 0; variant < 8; variant++) {
                int top = shapes[s].config.n_layer - 1, ranks[4] = { 2, 0, 5, 1 };
                LoraConfig lora = { .r = variant & 1 ? 1 : 6, .alpha = 4, .targets = targets, .last_block = -1, .freeze_A = variant >= 4 };
                if ((variant & 3) == 2) lora.first_block = top;
                if ((variant & 3) == 3) lora.r_by_block = ranks;
                char what[128];
                snprintf(what, sizeof what, "%s, targets %s, variant %d", shapes[s].name, lora_targets_text(targets), variant);
                compare(what, shapes[s].config, &lora, shapes[s].B, shapes[s].T, false);
                if (variant < 4) compare(what, shapes[s].config, &lora, shapes[s].B, shapes[s].T, true);
            }
}

TEST(a_base_in_codes)
{
    for (int s = 0; s < SHAPES; s++)
        for (BaseType type = BASE_NF4; type < BASE_TYPES; type++)
            for (int recompute = 0; recompute < 2; recompute++) {
                LoraConfig lora = { .r = 3, .alpha = 4, .targets = 15, .last_block = -1, .base_type = type };
                compare(base_type_names[type], shapes[s].config, &lora, shapes[s].B, shapes[s].T, recompute);
            }
}

TEST(parameters)
{
    EXPECT(base_parameters(50257, 1024, 12, 768) == 124439808, "GPT-2's 124M: %.0f", base_parameters(50257, 1024, 12, 768));
    Config gpt2 = { 50257, 1024, 12, 12, 768, 0 };
    LoraConfig lora = { .r = 8, .alpha = 16, .targets = 1u << C_ATTN, .last_block = -1 };
    EXPECT(lora_parameters(&gpt2, &lora) == 294912, "r = 8 on c_attn: %" PRId64, lora_parameters(&gpt2, &lora));
}

// 12 windows: parts of one size, and of two.
TEST(micro_batches)
{
    const LoraConfig lora = { .r = 2, .alpha = 4, .targets = 1u << C_ATTN, .last_block = -1 };
    for (int parts = 1; parts <= 12; parts++)
        for (int recompute = 0; recompute < 2; recompute++) {
            char what[100];
            snprintf(what, sizeof what, "12 windows in %d parts", parts);
            compare_in_parts(what, (Config){ 7, 16, 3, 2, 16, 0 }, NULL, 12, 11, recompute, parts);
            compare_in_parts(what, (Config){ 7, 16, 3, 2, 16, 0 }, &lora, 12, 11, recompute, parts);
        }
}

int main(void)
{
    RUN(micro_batches);
    RUN(full);
    RUN(every_set_of_targets_and_ranks);
    RUN(a_base_in_codes);
    RUN(parameters);
    return test_summary();
}
