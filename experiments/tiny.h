// tiny.h - a character transformer that learns something in a second, for the experiments that need a real one.
//
//     Text text = tiny_text("builtin:tales");
//     Transformer *model = tiny_model(&text, 4, 64, seed);            // 4 blocks, width 64, random
//     Adapter *adapter = attach(model, lora_on(ON_C_ATTN, 4), seed);  // freezes the base; rank 4 on every c_attn
//     forward_backward(model, tape, &text);                           // one pass; the gradients stay, to be looked at
//     double loss = train(model, &text, 60, 3e-3, seed);              // or 60 steps, and the validation loss after them
//
// tiny_base gives a model that has read some tales, for adapters to learn the pirate's. All is seeded: the same bits each run.

#ifndef TINY_H
#define TINY_H

#include "io/evaluation.h"
#include "io/options.h"
#include "question.h"

#include <stdlib.h>

enum { TINY_B = 8, TINY_T = 32 }; // windows in a batch, and their length
enum { ON_C_ATTN = 1u << C_ATTN, ON_ALL = (1u << LINEARS) - 1 };

// "builtin:tales", "builtin:pirate", ...; free with text_free.
static inline Text tiny_text(const char *name)
{
    char error[256];
    Text text;
    if (!text_read(name, 20000, NULL, TINY_T, &text, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    return text;
}

static inline Transformer *tiny_model(const Text *text, int n_layer, int n_embd, uint64_t seed)
{
    char error[256];
    Config config = { text->vocabulary.size, TINY_T, n_layer, 2, n_embd, 0 };
    Transformer *model = transformer_new(config, seed, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    return model;
}

// An adapter of rank r and scale 2 on these layers of all blocks.
static inline LoraConfig lora_on(unsigned targets, int r)
{
    return (LoraConfig){ .r = r, .alpha = 2 * r, .targets = targets, .last_block = -1 };
}

// Freezes the base and attaches a fresh adapter to it.
static inline Adapter *attach(Transformer *model, LoraConfig lora, uint64_t seed)
{
    char error[256];
    transformer_train_base(model, false);
    Adapter *adapter = transformer_add_adapter(model, "adapter", lora, seed, error, sizeof error);
    if (adapter == NULL) die(EXIT_FAILED, "%s", error);
    return adapter;
}

// B is zero in a fresh adapter; with this one it is as if some training had been.
static inline void fill_B(Adapter *adapter, int n_layer)
{
    for (int i = 0; i < n_layer * LINEARS; i++)
        if (adapter->lora[i].B != NULL) fill_normal(adapter->lora[i].B, 0.02, (uint64_t)(1000 + i));
}

static inline AdamW *tiny_optimizer(const Transformer *model)
{
    return adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 1.0 });
}

// One forward and backward pass over the text's first windows; parameter gradients stay for the caller to look at.
static inline void forward_backward(Transformer *model, Tape *tape, const Text *text)
{
    tape_clear(tape);
    backward(tape, transformer_loss(model, tape, text->tokens, text->tokens + 1, TINY_B, TINY_T));
}

// Trains whatever requires grad, at a constant learning rate; the loss over the validation text afterwards.
static inline double train(Transformer *model, const Text *text, int steps, double rate, uint64_t seed)
{
    int batch[2 * TINY_B * TINY_T];
    Tape *tape = tape_new();
    AdamW *optimizer = tiny_optimizer(model);
    for (int step = 0; step < steps; step++) {
        text_batch(text, TINY_B, TINY_T, seed, step, batch, batch + TINY_B * TINY_T);
        training_step(model, tape, optimizer, batch, batch + TINY_B * TINY_T, TINY_B, TINY_T, seed, step, rate);
    }
    tape_free(tape);
    adamw_free(optimizer);
    return evaluate_validation(model, text);
}

// The base for a new task: 2 blocks, width 32, that have read some tales.
enum { BASE_BLOCKS = 2, BASE_WIDTH = 32 };
static inline Transformer *tiny_base(const Text *tales, uint64_t seed)
{
    Transformer *model = tiny_model(tales, BASE_BLOCKS, BASE_WIDTH, seed);
    train(model, tales, 150, 5e-3, seed);
    return model;
}

#endif
