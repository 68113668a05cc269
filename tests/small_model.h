// small_model.h - a transformer that is small enough for tests of every number, what its tests do to it, and a text for it.

#ifndef SMALL_MODEL_H
#define SMALL_MODEL_H

#include "../adamw.h"
#include "../adapters.h"
#include "gradcheck.h"

enum { V = 11, CONTEXT = 9, H = 3, C = 12, T = 7, B = 2, N = B * T, ALL_LINEARS = (1 << LINEARS) - 1 };

static const int text[2 * N + 1] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 10, 7, 0, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3, 3, 8, 3, 2 };
static const int *const ids = text, *const targets = text + 1;

static inline double number(real x) { return (double)x; }
static inline int64_t   bytes(int64_t count) { return count * (int64_t)sizeof(real); }

static char error[256];

static inline Transformer *model_of(int blocks, double dropout)
{
    Transformer *model = transformer_new((Config){ V, CONTEXT, blocks, H, C, dropout }, 5, error, sizeof error);
    if (model == NULL) printf("%s\n", error), exit(1);
    return model;
}

// Larger weights than the initialisation's, and no bias at 0 or gain at 1, so that every gradient is worth checking.
static inline void make_irregular(Transformer *model)
{
    for (int i = 0; i < model->parameter_count; i++) {
        Tensor *t = model->parameters[i];
        bool gain = i < model->base_count && strstr(t->name, "ln_") && strstr(t->name, ".weight");
        for (int64_t j = 0; j < t->size; j++) t->data[j] = (real)((gain ? 1 : 0) + irregular(200 + (uint64_t)i, j, 0.5));
    }
}

static inline Adapter *adapter_on(Transformer *model, const char *name, unsigned on, int first, int last, uint64_t seed)
{
    Adapter *adapter = transformer_add_adapter(model, name, (LoraConfig){ .r = 2, .alpha = 3, .targets = on,
            .first_block = first, .last_block = last }, seed, error, sizeof error);
    if (adapter == NULL) printf("%s\n", error), exit(1);
    return adapter;
}

static inline void fill_B(Transformer *model, const Adapter *adapter, double size) // so that the adapter changes something
{
    for (int i = 0; i < model->config.n_layer * LINEARS; i++)
        if (adapter->lora[i].B) fill_irregular(adapter->lora[i].B, 900 + (uint64_t)i, size);
}

static inline double model_backward(const Transformer *model, Tape *tape, const int *in, const int *out)
{
    Tensor *loss = transformer_loss(model, tape, in, out, B, T);
    double value = number(loss->data[0]);
    tensor_drop(loss);
    backward(tape, loss);
    tape_clear(tape);
    return value;
}

static inline real *logits_of(const Transformer *model) // a copy, [N,V]
{
    Tensor *y = transformer_logits(model, NULL, ids, B, T);
    real *copy = copy_of(y->data, y->size);
    tensor_drop(y);
    return copy;
}

static inline void train(Transformer *model, Tape *tape, AdamW *optimizer, const int *in, const int *out, int steps, double rate)
{
    for (int i = 0; i < steps; i++) {
        model_backward(model, tape, in, out);
        adamw_step(optimizer, rate);
        zero_grads(model);
    }
}

static inline AdamW *optimizer_of(Transformer *model, double decay)
{
    return adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, decay, 1 });
}

#endif
