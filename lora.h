// lora.h - a linear layer, and the low-rank adapter that can ride on it.
//
//     y = x W + b + scale * (x A) B          W [I,O], b [O], A [I,R], B [R,O]
//
// Only A and B train. Their gradients need dL/dy, which reaches this layer through the frozen weights above it, and they pass
// dL/dx = dy W^T + scale (dy B^T) A^T on to the layers below: through W, though W itself gets no gradient.
// (Hu et al. 2021, arXiv:2106.09685; A and B here are the transposes of PEFT's lora_A and lora_B, to match GPT-2's W.)
//
// Read next: lora.c (linear_apply is all of it), then transformer.h.

#ifndef LORA_H
#define LORA_H

#include "ops.h"

typedef struct Lora {
    Tensor *A, *B;     // [I,R] and [R,O]; kind MEMORY_ADAPTERS
    real    scale;     // alpha / R, or alpha / sqrt(R)
    Tensor *mask;      // [R,O] of 1 and 0: where B may be other than 0; NULL: everywhere
} Lora;

typedef struct Linear {
    Tensor     *weight, *bias; // [I,O] and [O]
    const Lora *lora;          // the active adapter, or NULL; not owned
    Tensor     *original;      // the weight's bytes before the adapter was merged into it; NULL: not merged
} Linear;

// What multiplies (x A) B: alpha / R, or alpha / sqrt(R) if rank-stabilized (Kalajdzievski 2023).
double lora_scale(double alpha, int R, bool rank_stabilized);

// A uniform in +-1/sqrt(I), B zero: a fresh adapter changes no output bit, and dB is not zero, so it can start to learn (with
// both zero neither ever would). Both require grad. The name becomes NAME.A and NAME.B; free with lora_free.
Lora lora_new(const char *name, int I, int O, int R, double scale, uint64_t seed);
void lora_free(Lora *lora);

// For the fused layer of attention, y = q | k | v: adapts some of the three only (bits 1, 2, 4), each with rank R / how many,
// as if each were a layer of its own. A's columns are those of the parts side by side, and B is zero but for a block of each
// part:
//
//     q and v, R = 4:   B = | q q 0 0 0 0 |        rows: the ranks of q, then of v
//                           | q q 0 0 0 0 |        columns: q, k, v
//                           | 0 0 0 0 v v |
//                           | 0 0 0 0 v v |
//
// To other programs it is an adapter of rank R like any other. In training B is multiplied by the mask, whose zeros let no
// gradient through, so that what is 0 stays 0.
void lora_restrict(Lora *lora, unsigned parts);

// The numbers that it may learn: A, and B where the mask is 1.
int64_t lora_size(const Lora *lora);

// x [..,I] -> [..,O], a new result (autograd.h). Uses the adapter if there is one that is not merged.
Tensor *linear_apply(Tape *tape, const Linear *linear, Tensor *x);

// W += scale A B, in place, for inference without the extra products. A layer without adapter is left alone, one that is merged
// already too; W in codes is a programmer's mistake (check()). unmerge puts the original bytes back (nothing is subtracted, so
// nothing is rounded). forget_original frees them: the merged weight is then the only one, and the adapter is no longer attached.
void linear_merge(Linear *linear);
void linear_unmerge(Linear *linear);
void linear_forget_original(Linear *linear);

#endif
