// adamw.h - the optimizer: Adam with decoupled weight decay (Loshchilov and Hutter 2019), after clipping the gradient's norm.
//
//     g *= min(1, clip / |g|), |g| over all trainable tensors;  p *= 1 - lr decay (2-D tensors only, as in nanoGPT)
//     m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + 1e-8)
//
// The two moments m and v, each as large as the tensor, exist only for tensors that require grad.
//
// Read next: training.h, where forward, backward and this make one step.

#ifndef ADAMW_H
#define ADAMW_H

#include "kernels.h"
#include "memory.h"

typedef struct AdamWConfig { double beta1, beta2, weight_decay, grad_clip; } AdamWConfig; // grad_clip 0: none

enum { NORM_PIECES = 16 }; // pieces of the norm's sum: at most so many threads share it

typedef struct AdamW {
    AdamWConfig config;
    Tensor **parameters; // its own copy of the list; the tensors stay their owner's
    real   **m, **v;     // [count], NULL for a tensor that does not train
    int      count;
    int64_t  step;       // steps taken
    double   squares[NORM_PIECES]; // of the last step: |g|^2 of each tensor's first sixteenth, second, ...
    double   seconds;    // spent in adamw_step so far
} AdamW;

AdamW *adamw_new(Tensor **parameters, int count, AdamWConfig config);
void   adamw_free(AdamW *optimizer);
// One step over every tensor that requires grad: first asks for its moments if it has none. A tensor that has been frozen since
// loses them, so that it cannot drift. Returns |g| before clipping; if that is not finite, nothing is changed.
// A tensor that requires grad and has no gradient is a programmer's mistake: check() names it.
double adamw_step(AdamW *optimizer, double learning_rate);

#endif
