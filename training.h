// training.h - what trains a model: the schedule, one step, evaluation.
//
//     for (int64_t step = 0; step < schedule.max_iters; step++) {
//         text_batch(&text, B, T, seed, step, ids, targets);                     // io/text.h, or tokens from anywhere else
//         training_step(model, tape, optimizer, ids, targets, B, T, seed, step, schedule_rate(&schedule, step));
//     }
//     double loss = evaluate_all(model, tokens, count);
//
// The step is the same for full training and LoRA: what trains is a matter of flags (requires_grad), not of this code. train.c
// calls training_step_in_parts, which gives the same bits where there is one part.
//
// Read next: training_step in training.c, and pass and update, of which it is made; then generate.h.

#ifndef TRAINING_H
#define TRAINING_H

#include "adamw.h"
#include "transformer.h"

typedef struct Schedule {
    double  learning_rate, min_lr;
    int64_t warmup_iters, max_iters;
} Schedule;

// nanoGPT's: linear warm-up from learning_rate / (warmup_iters + 1), then a cosine from learning_rate down to min_lr at
// max_iters.
double schedule_rate(const Schedule *schedule, int64_t step);

typedef struct StepResult { double loss, gradient_norm, seconds; } StepResult;

// One step on ids[B*T] and the targets[B*T] that follow them: forward, backward, AdamW, and the gradients are freed. Dropout
// depends on seed and step alone. ids and targets are the caller's, and must not change while the step runs. If loss or norm
// is not finite, the weights are as before and the gradients are still there, for find_bad_number.
StepResult training_step(Transformer *model, Tape *tape, AdamW *optimizer, const int *ids, const int *targets, int B, int T,
                         uint64_t seed, int64_t step, double learning_rate);

// The same step with its batch in parts: one after the other (micro-batches), shared among processes, or both. Part p of K has
// windows p B / K up to (p + 1) B / K, and counts by its share of the targets. The gradients of the parts are added up, in their
// order, before the optimizer's one step: so it is the step on the whole batch, but for rounding, and dropout, whose pattern
// depends on p too. Activations are those of one part at a time; gradients of parameters are there twice: the sum, and the part's.
typedef struct Parts {
    int   count;      // K, at most B
    int   first, end; // those that are taken here: p from first to end - 1
    void (*add_up)(void *context, Transformer *model, double *loss); // adds what the other parts give to the gradients and to the
    void *context;                                                   // loss, with the same sums everywhere; NULL: there are none
} Parts;
StepResult training_step_in_parts(Transformer *model, Tape *tape, AdamW *optimizer, const int *ids, const int *targets, int B,
                                  int T, uint64_t seed, int64_t step, double learning_rate, const Parts *parts);

// Names the first weight that is NaN or infinite, or if all are finite the first gradient: tensor, index (row-major), value.
// False, and `where` as it was: there is none.
bool find_bad_number(const Transformer *model, char *where, size_t size);

// The mean loss in nats per target over tokens[0 .. count-1]: consecutive windows of block_size, the last one shorter; each
// token but the first is a target once. No tape, so no dropout.
double evaluate_all(const Transformer *model, const int *tokens, int64_t count);
// The same, but over at most `most` targets, a window or more: where there are more, evenly spaced windows of them. `watch`, if not NULL, is told
// every few windows how many targets are done; it returns false if that is enough, and then the result is NAN.
typedef bool (*EvaluationWatch)(void *context, int64_t done);
double evaluate_most(const Transformer *model, const int *tokens, int64_t count, int64_t most, EvaluationWatch watch,
                     void *context);
// An estimate: the mean over QUICK_BATCHES * B fixed windows of them, `pass` at once, on which it depends by rounding alone. count
// must be above block_size.
enum { QUICK_BATCHES = 20 };
double evaluate_quickly(const Transformer *model, const int *tokens, int64_t count, int B, int pass);

#endif
