// page_hash.c - what tests/test_page.py holds the web page against: a training by this machine's own build. Prints hashes of
// all weights: after 30 steps of full training on tales, after 30 more of LoRA on pirate, and
// the same for 3 steps each at the shape of the demo.
//
//     make -s BUILD=build/bits OPTIMISE='-O1 -ffp-contract=off' build/bits/tests/page_hash        (WebAssembly fuses no multiply-add)

#include "adapters.h"
#include "io/text.h"
#include "training.h"

#include <stdlib.h>

enum { SEED = 1337, RANK = 8 };
typedef struct Shape { int L, H, C, T, B; } Shape;

static uint64_t hash_of_all(const Transformer *model)
{
    uint64_t hash = HASH_START;
    for (int i = 0; i < model->parameter_count; i++)
        hash = hash_bytes(hash, model->parameters[i]->data, (size_t)model->parameters[i]->size * sizeof(real));
    return hash;
}

static void train(Transformer *model, const char *source, Shape s, int steps, double rate)
{
    char error[512];
    Text text;
    if (!text_read(source, 100000, NULL, s.T, &text, error, sizeof error)) { fprintf(stderr, "page_hash: %s\n", error); exit(1); }
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1.0 });
    Tape *tape = tape_new();
    Schedule schedule = { rate, rate / 10, steps / 10, steps };
    int *ids = allocate(2 * (size_t)(s.B * s.T), sizeof *ids, "a batch"), *targets = ids + s.B * s.T;
    for (int step = 0; step < steps; step++) {
        text_batch(&text, s.B, s.T, SEED, step, ids, targets);
        training_step(model, tape, optimizer, ids, targets, s.B, s.T, SEED, step, schedule_rate(&schedule, step));
    }
    printf("%016" PRIx64 "\n", hash_of_all(model));
    free(ids);
    tape_free(tape);
    adamw_free(optimizer);
    text_free(&text);
}

static void both(Shape s, int steps)
{
    char error[512];
    Text text;
    if (!text_read("builtin:tales", 1000, NULL, s.T, &text, error, sizeof error)) exit(1);
    Transformer *model = transformer_new((Config){ text.vocabulary.size, s.T, s.L, s.H, s.C, 0 }, SEED, error, sizeof error);
    text_free(&text);
    if (model == NULL) exit(1);
    train(model, "builtin:tales", s, steps, 3e-3);
    transformer_train_base(model, false);
    LoraConfig lora = { .r = RANK, .alpha = 2 * RANK, .targets = (1u << LINEARS) - 1, .last_block = -1 };
    if (transformer_add_adapter(model, "pirate", lora, SEED, error, sizeof error) == NULL) exit(1);
    train(model, "builtin:pirate", s, steps, 1e-2);
    transformer_free(model);
}

int main(void)
{
    both((Shape){ 2, 2, 64, 32, 8 }, 30);
    both((Shape){ 4, 4, 128, 64, 12 }, 3);
    return 0;
}
