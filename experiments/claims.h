// claims.h - facts about LoRA that the demo's claims and some of the questions both rest on, each measured by one piece of code.

#ifndef CLAIMS_H
#define CLAIMS_H

#include "experiments/measure.h"

// How many adapters on layers of this kind got a gradient dB that is not exactly zero.
int adapters_reached(const Transformer *model, LinearKind kind);

// Forward and backward with the adapter in use, `count` times; then the same with the base's own gradients computed, too, for
// nothing. `gradients` are the adapter's, `numbers` of them each time.
typedef struct InVain { Measured needed, wasted; int64_t numbers; double largest_difference; bool same_bits; double norm; } InVain;
InVain compute_in_vain(Transformer *model, Batch batch, int count);

// One forward and backward pass with the adapter in use on the base in codes of that type, and one on the codes' values in floats:
// whether the adapter's gradients have the same bits. The base must be in floats, and is as it was afterwards.
bool codes_give_same_bits(Transformer *model, Batch batch, BaseType type);

// The adapter in use is merged into the base and taken out again; logits are of the batch.
typedef struct Merge {
    double  difference, size;   // the largest of a logit; a logit's usual size
    int64_t more_bytes, left;   // of weights, while merged; after unmerging
    bool    base_restored;      // to the bit
} Merge;
Merge merge_and_back(Transformer *model, Batch batch);
// The largest difference of a logit from those in `before`.
double logits_differ(const Transformer *model, Batch batch, const Tensor *before);

#endif
