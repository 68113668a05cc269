// bits.c - trains a small model for 30 steps, all of it, then an adapter, and prints a hash of all weights after each, and of
// each loss. Built with -ffp-contract=off, it prints the same on every machine and for any number of threads: tests/cross.sh.

#include "../adapters.h"
#include "../training.h"

enum { STEPS = 30, B = 3, T = 13, TOKENS = 1000 };

static char error[256];

// As 32-bit numbers, lowest byte first, on any machine.
static uint64_t hash_number(uint64_t hash, real number)
{
    float value = (float)number;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    unsigned char bytes[4] = { bits & 255, bits >> 8 & 255, bits >> 16 & 255, bits >> 24 };
    return hash_bytes(hash, bytes, sizeof bytes);
}

static void train(Transformer *model, const char *what)
{
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    Tape *tape = tape_new();
    Schedule schedule = { .learning_rate = 1e-2, .min_lr = 1e-3, .warmup_iters = 5, .max_iters = STEPS };
    static int tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i * i % model->config.vocab_size;
    uint64_t losses = HASH_START, weights = HASH_START;
    for (int step = 0; step < STEPS; step++) {
        const int *ids = tokens + step * 7;
        double loss = training_step(model, tape, optimizer, ids, ids + 1, B, T, 7, step, schedule_rate(&schedule, step)).loss;
        losses = hash_number(losses, (real)loss);
    }
    for (int i = 0; i < model->parameter_count; i++)
        for (int64_t j = 0; j < model->parameters[i]->size; j++) weights = hash_number(weights, model->parameters[i]->data[j]);
    printf("%s: weights %016" PRIx64 ", losses %016" PRIx64 "\n", what, weights, losses);
    adamw_free(optimizer);
    tape_free(tape);
}

int main(void)
{
    const Config config = { .vocab_size = 31, .block_size = 16, .n_layer = 2, .n_head = 3, .n_embd = 48, .dropout = 0.1 };
    Transformer *model = transformer_new(config, 1, error, sizeof error);
    if (model == NULL) return puts(error), 1;
    train(model, "full");
    transformer_train_base(model, false);
    const LoraConfig lora = { .r = 4, .alpha = 8, .targets = (1u << LINEARS) - 1, .last_block = -1 };
    if (transformer_add_adapter(model, "adapter", lora, 2, error, sizeof error) == NULL) return puts(error), 1;
    train(model, "LoRA");
    transformer_free(model);
    return 0;
}
