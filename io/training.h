// training.h - what the programs that train have in common: the schedule, one step, evaluation.
//
//     for (long step = 0; step < schedule.max_iters; step++)
//         training_step(model, tape, optimizer, &text, B, seed, step, schedule_rate(&schedule, step), batch);
//     double loss = evaluate_validation(model, &text);
//
// The step is the same for full training and LoRA: what trains is a matter of flags (requires_grad), not of this code.
//
// Read next: training_step in training.c, ten lines; then train.c.

#ifndef TRAINING_H
#define TRAINING_H

#include "adamw.h"
#include "io/text.h"
#include "transformer.h"

typedef struct Schedule {
    double learning_rate, min_lr;
    long   warmup_iters, max_iters;
} Schedule;

// nanoGPT's: linear warm-up from learning_rate / (warmup_iters + 1), then a cosine from learning_rate down to min_lr at
// max_iters.
double schedule_rate(const Schedule *schedule, long step);

typedef struct StepResult { double loss, gradient_norm, seconds; } StepResult;

// One step on batch number `step` of the text: forward, backward, AdamW, and the gradients are freed. batch is scratch for
// 2 * B * T ints, and must not change while the step runs. If loss or norm is not finite, the weights are as before and
// the gradients are still there, for find_bad_number.
StepResult training_step(Transformer *model, Tape *tape, AdamW *optimizer, const Text *text, int B, uint64_t seed, long step,
                         double learning_rate, int *batch);

// Names the first weight that is NaN or infinite, or if all are finite the first gradient: tensor, index (row-major), value. False, and
// `where` as it was: there is none.
bool find_bad_number(const Transformer *model, char *where, size_t size);

// The mean loss in nats per target over tokens[0 .. count-1]: consecutive windows of block_size, the last one shorter; each
// token but the first is a target once. No tape, so no dropout.
double evaluate_all(const Transformer *model, const int *tokens, long count);
// Over the whole validation part of the text, and over the equally long end of its training part.
double evaluate_validation(const Transformer *model, const Text *text);
double evaluate_training(const Transformer *model, const Text *text);
// Whether `loss` on the validation part is more than 20 nats in all below the floor of a built-in text. A model that does not
// see what it should predict gets there with probability e^-20 at most (Markov's inequality for the ratio of its likelihood to
// the true one): if one does, a later character reached an earlier position. Without a floor: false.
bool   validation_leaks(const Text *text, double loss);
// An estimate: the mean over 20 fixed windows-batches of the validation part.
double evaluate_quickly(const Transformer *model, const Text *text, int B);

// Writes `length` tokens that follow the prompt, `prompt_length` >= 1, into tokens (which holds the prompt and has room for
// both). The context is what came before, up to block_size tokens; when it is full, its later half becomes the next one's
// beginning (a position's embedding is learned, so nothing that is remembered fits another position).
void generate(const Transformer *model, int *tokens, int prompt_length, int length, double temperature, int top_k,
              uint64_t seed);

// Equal hashes: the same tokens in the same order.
uint64_t text_fingerprint(const Text *text);

// Whether the machine has that much memory at all; else false, after one line in `error`.
bool memory_holds(double bytes, char *error, size_t size);
// The bytes of the base's weights.
double weight_bytes(const Config *config);
// The process's peak resident size in bytes, or 0 if the system does not tell.
long resident_peak(void);
// The middle one of count > 0 values (of an even number: the upper of the two), which get sorted.
double median(double *values, long count);

#endif
