// bytes_runner.c - runner.c for L3.1 alone: linked with bytes.c and nothing of the engine, so that arithmetic is all there is.

#include "answer.h"

int main(int argc, char **argv)
{
    uint64_t seed = answer_begin(argc, argv);
    for (int i = 0; i < SHAPES; i++)
        for (int lora = 0; lora < 2; lora++) {
            Memory m = memory_of(lab3_shape(seed, i), lora);
            answer_integers(lora ? "LoRA" : "full", (int64_t[]){ m.weights, m.adapters, m.gradients, m.moments, m.kept }, 5);
        }
    answer_end();
}
