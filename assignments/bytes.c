// bytes.c - see bytes.h. It knows nothing of the engine.

#include "bytes.h"

Memory memory_of(Shape s, bool lora)
{
    Memory m = { 0, 0, 0, 0, 0 };
    int64_t base = s.V * s.C + s.T * s.C + s.L * (12 * s.C * s.C + 13 * s.C) + 2 * s.C, adapter = s.L * s.r * (s.C + 3 * s.C);
    int64_t trainable = lora ? adapter : base, N = s.B * s.T, NC = N * s.C;
    m.weights = base * s.bytes;
    m.adapters = lora ? adapter * s.bytes : 0;
    m.gradients = trainable * s.bytes;
    m.moments = 2 * trainable * s.bytes;
    // each block: the inputs of two layernorms, qkv, gelu's input, attention's result for attn.c_proj, or x A; what layernorm and gelu
    // gave is made again. But the lowest layernorm below an adapter is not recorded, and c_attn's input is kept in its place.
    int64_t block = NC + 2 * N + 3 * NC + 2 * N * s.H + NC + 2 * N + 4 * NC + (lora ? N * s.r : NC);
    int64_t head = NC + 2 * N + N * s.V + 2 * N;
    m.kept = (s.L * block + head - (lora ? 2 * N : 0)) * s.bytes;
    return m;
}
