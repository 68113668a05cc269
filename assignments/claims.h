// claims.h - Lab 3: what people say about LoRA, measured.

#ifndef CLAIMS_H
#define CLAIMS_H

#include "bytes.h"

typedef struct Claims {
    int64_t gradient_bytes[2], moment_bytes[2]; // the most that was held of each; [0] everything trains, [1] LoRA
    int64_t dgrad[2], wgrad[2];                 // gradients through, and of, the base's weight matrices
    int64_t reached, reached_when_cut;          // tensors of the adapter that got a gradient
} Claims;

// A model of this shape, with adapters of rank r on every c_attn, one step each.
Claims measure(Shape shape);

#endif
