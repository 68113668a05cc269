// small.h - what the engine's tests share: leaves of irregular numbers, a small model, and the two demands that recur: that a mistake
// stops the program with one line, and that everything was given back.

#ifndef SMALL_H
#define SMALL_H

#include "../adamw.h"
#include "../adapters.h"
#include "../meter.h"
#include "child.h"
#include "gradcheck.h"
#include "test.h"

static inline int64_t bytes(int64_t count) { return count * (int64_t)sizeof(real); }
static inline double number(real x) { return (double)x; }

// Every test ends with this: all that it took has been given back, of every kind, the threads' scratch too.
#define EXPECT_NOTHING_LIVE()                                                                                                        \
    scratch_release();                                                                                                               \
    for (int kind_ = 0; kind_ < MEMORY_KINDS; kind_++)                                                                               \
        EXPECT(ledger.live[kind_] == 0, "%" PRId64 " bytes of %s are still live", ledger.live[kind_], memory_kind_names[kind_])

static inline Tensor *leaf(const char *name, double value, bool trains)
{
    Tensor *t = tensor_from(name, (real[]){ (real)value }, SHAPE(1));
    t->requires_grad = trains;
    return t;
}

static inline Tensor *weights(const char *name, int rows_, int columns, uint64_t seed, bool trains)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE(rows_, columns));
    fill_irregular(t, seed, 1);
    t->requires_grad = trains;
    return t;
}

static inline Tensor *vector(const char *name, int size, uint64_t seed, bool trains)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE(size));
    fill_irregular(t, seed, 1);
    t->requires_grad = trains;
    return t;
}

// ------------------------------------------------------------------------------------------------ a model, for longer graphs

enum { SMALL_V = 11, SMALL_T = 7, SMALL_B = 2, BLOCKS = 3 };
static const int small_text[SMALL_B * SMALL_T + 1] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 10, 7, 0 };

typedef enum Training { FULL, LORA, TOP_LORA, TRAININGS } Training;
static const char *const training_names[TRAININGS] = { "full", "LoRA", "LoRA in the top block" };

static inline Transformer *model_new(Training training, double dropout, bool recompute)
{
    char error[200];
    Transformer *model = transformer_new((Config){ SMALL_V, SMALL_T, BLOCKS, 3, 12, dropout }, 5, error, sizeof error);
    for (int i = 0; i < model->parameter_count; i++)
        for (int64_t j = 0; j < model->parameters[i]->size; j++) model->parameters[i]->data[j] += (real)(0.2 * irregular(40 + (uint64_t)i, j, 1));
    model->recompute = recompute;
    if (training != FULL) {
        transformer_train_base(model, false);
        LoraConfig config = { .r = 2, .alpha = 3, .targets = 1u << C_ATTN | 1u << MLP_C_PROJ,
                .first_block = training == TOP_LORA ? BLOCKS - 1 : 0, .last_block = -1 };
        transformer_add_adapter(model, "a", config, 6, error, sizeof error);
        for (int i = model->base_count; i < model->parameter_count; i++) fill_irregular(model->parameters[i],
                60 + (uint64_t)i, 1); // B is not zero
    }
    return model;
}

static inline double model_backward(const Transformer *model, Tape *tape)
{
    Tensor *loss = transformer_loss(model, tape, small_text, small_text + 1, SMALL_B, SMALL_T);
    double value = number(loss->data[0]);
    tensor_drop(loss);
    backward(tape, loss);
    tape_clear(tape);
    return value;
}

#endif
