// one_file.c - meltwater.c as a part of a test: its training, step by step.

#define main one_file_main
#include "../meltwater.c"
#undef main

#include "one_file.h"

static void losses_of(double *losses, int steps, double rate)
{
    for (int step = 0; step < steps; step++) losses[step] = train_step(step, rate);
}

const char *one_file_full(double *losses, int steps, double rate)
{
    make_model();
    write_text();
    losses_of(losses, steps, rate);
    return text;
}

const char *one_file_lora(double *losses, int steps, double rate)
{
    turn_vowels();
    freeze_and_attach();
    losses_of(losses, steps, rate);
    return text;
}

OneFileCounts one_file_counts(void) { return (OneFileCounts){ through, computed, skipped, bytes[THEIR_GRADIENTS], bytes[MOMENTS] }; }
