// tiny.h - a character transformer that learns something in a second, for the experiments that need a real one.
//
//     Text text = tiny_text("builtin:tales");
//     Transformer *model = tiny_model(&text, 4, 64, seed);             // 4 blocks, width 64, random
//     Adapter *adapter = attach(model, lora_on(ON_C_ATTN, 4), seed);   // freezes the base; rank 4 on every c_attn
//     Measured m = one_pass(model, &text, NULL);                       // forward and backward; the gradients stay, to be looked at
//     double loss = learn(model, &text, 60, 3e-3, seed);               // or 60 steps, and the validation loss after them
//
// tiny_base gives a model that has read some tales, for adapters to learn the pirate's. All is seeded: the same bits each run.

#ifndef TINY_H
#define TINY_H

#include "measure.h"
#include "question.h"

enum { TINY_B = 8, TINY_T = 32 }; // windows in a batch, and their length
enum { ON_C_ATTN = 1u << C_ATTN, ON_ALL = (1u << LINEARS) - 1 };

// "builtin:tales", "builtin:pirate", ...; free with text_free.
static inline Text tiny_text(const char *name) { return open_text(name, 20000, TINY_T); }
static inline Batch tiny_batch(const Text *text) { return first_windows(text, TINY_B, TINY_T); }

static inline Transformer *tiny_model(const Text *text, int n_layer, int n_embd, uint64_t seed)
{
    return new_model((Config){ text->vocabulary.size, TINY_T, n_layer, 2, n_embd, 0 }, seed);
}

// An adapter of rank r and scale 2 on these layers of all blocks.
static inline LoraConfig lora_on(unsigned targets, int r)
{
    return (LoraConfig){ .r = r, .alpha = 2 * r, .targets = targets, .last_block = -1 };
}

// Freezes the base and attaches a fresh adapter to it, in the place of an older one.
static inline Adapter *attach(Transformer *model, LoraConfig lora, uint64_t seed) { return adapt(model, &lora, seed); }

// B is zero in a fresh adapter; with this one it is as if some training had been.
static inline void fill_B(Adapter *adapter, int n_layer)
{
    for (int i = 0; i < n_layer * LINEARS; i++)
        if (adapter->lora[i].B != NULL) fill_normal(adapter->lora[i].B, 0.02, (uint64_t)(1000 + i));
}

// One forward and backward pass over the text's first windows (cut: measure.h); parameter gradients stay.
static inline Measured one_pass(Transformer *model, const Text *text, Cut *cut)
{
    return measure_steps(model, (Steps){ .batch = tiny_batch(text), .count = 1, .cut = cut });
}

// Trains whatever requires grad, at a constant learning rate; the loss over the validation text afterwards.
static inline double learn(Transformer *model, const Text *text, int steps, double rate, uint64_t seed)
{
    train(model, text, &(Training){ .B = TINY_B, .schedule = { rate, rate, 0, steps }, .seed = seed });
    return evaluate_validation(model, text);
}

// The base for a new task: 2 blocks, width 32, that have read some tales.
enum { BASE_BLOCKS = 2, BASE_WIDTH = 32 };
static inline Transformer *tiny_base(const Text *tales, uint64_t seed)
{
    Transformer *model = tiny_model(tales, BASE_BLOCKS, BASE_WIDTH, seed);
    learn(model, tales, 150, 5e-3, seed);
    return model;
}

// As learn, but with a warm-up and down to a tenth of the rate: two trainings then differ less by chance.
static inline double learn_slowly(Transformer *model, const Text *text, int steps, double rate, uint64_t seed)
{
    train(model, text, &(Training){ .B = TINY_B, .schedule = usual_schedule(rate, steps), .seed = seed });
    return evaluate_validation(model, text);
}

// A base that has read more, so that what rounding its weights does can be seen in the loss: 2 blocks, width 64.
static inline Transformer *well_read_base(const Text *tales, uint64_t seed)
{
    Transformer *model = tiny_model(tales, 2, 64, seed);
    learn_slowly(model, tales, 800, 5e-3, seed);
    return model;
}

#endif
