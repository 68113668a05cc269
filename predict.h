// predict.h - how many bytes a training step takes, by arithmetic alone.
//
// Nothing here runs the engine or shares code with it: the formulas follow one step on paper, op by op, and a test holds them
// against the ledger to the byte. What a student can learn from them is in predict.c, where each term says which tensor it is.
//
// Read next: train.c, or demo.c, which measures what this predicts.

#ifndef PREDICT_H
#define PREDICT_H

#include "adapters.h"

typedef struct Prediction {
    int64_t own_peak[MEMORY_KINDS]; // the most that each kind holds during a step, in bytes
    int64_t at_peak[MEMORY_KINDS];  // what each kind holds when the total is highest
    int64_t peak;
} Prediction;

// A step after the first (the moments exist): forward, backward, optimizer, on B windows of T tokens, with `threads` parts.
// `lora` NULL: all of the base trains. Otherwise the base is frozen and an adapter of that form is in use. Numbers of
// `real_bytes` bytes each. Dropout must be 0. Targets are whole linear layers: adapters of q, k or v alone are not foreseen.
Prediction predict_step(const Config *config, const LoraConfig *lora, int B, int T, bool recompute,
                        int threads, int real_bytes);

// The same step in `parts` passes (training_step_in_parts, all of them here): activations are those of the largest pass; from the
// second one on the sum of what trains stands beside the pass's own gradients.
Prediction predict_step_in_parts(const Config *config, const LoraConfig *lora, int B, int T, bool recompute, int threads,
                                 int real_bytes, int parts);

// Numbers in the base: V C + T C + L (12 C^2 + 13 C) + 2 C; and in an adapter: r (in + out) for each linear layer that has one.
double base_parameters(double V, double T, double L, double C);
int64_t   lora_parameters(const Config *config, const LoraConfig *lora);

#endif
