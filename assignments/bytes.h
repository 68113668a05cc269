// bytes.h - Lab 3: how many bytes does a training step hold, by arithmetic alone?

#ifndef BYTES_H
#define BYTES_H

#include <stdbool.h>
#include <stdint.h>

// A transformer of transformer.h, trained on B windows of T tokens (T is also its block_size); numbers of `bytes` bytes.
typedef struct Shape { int64_t V, T, L, H, C, r, B, bytes; } Shape;

typedef struct Memory { int64_t weights, adapters, gradients, moments, kept; } Memory; // in bytes

// Everything trains; or, if `lora`, the base is frozen and every block's c_attn has an adapter of rank r.
Memory memory_of(Shape s, bool lora);

#endif
