// lab3.c - see lab3.h.

#include "lab3.h"

#include "predict.h"

bool lab3_memory(Shape s, bool lora, Memory *m)
{
    Config config = { (int)s.V, (int)s.T, (int)s.L, (int)s.H, (int)s.C, 0 };
    LoraConfig on_c_attn = { .r = (int)s.r, .targets = 1u << C_ATTN, .last_block = -1 };
    Prediction p = predict_step(&config, lora ? &on_c_attn : NULL, (int)s.B, (int)s.T, false, 1, (int)s.bytes);
    *m = (Memory){ p.own_peak[MEMORY_WEIGHTS], p.own_peak[MEMORY_ADAPTERS], p.own_peak[MEMORY_PARAMETER_GRADIENTS],
                   p.own_peak[MEMORY_MOMENTS], p.own_peak[MEMORY_KEPT_ACTIVATIONS] };
    return true;
}

// Every linear and the head pass a gradient on, but for the lowest under LoRA, below which nothing trains.
bool lab3_claims(Shape s, Claims *c)
{
    int64_t matrices = 4 * s.L + 1;
    *c = (Claims){ .dgrad = { matrices, matrices - 1 }, .wgrad = { matrices, 0 }, .reached = 2 * s.L, .reached_when_cut = 0 };
    for (int lora = 0; lora < 2; lora++) {
        Memory m;
        lab3_memory(s, lora, &m);
        c->gradient_bytes[lora] = m.gradients;
        c->moment_bytes[lora] = m.moments;
    }
    return true;
}
