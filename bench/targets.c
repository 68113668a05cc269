// targets.c - see bench.h: what is asked of a step in float32, as medians over rounds, and whether it was reached. They are for a
// machine with AVX-512 and two cores; elsewhere, and beside other work, a miss says little.

#include "bench/bench.h"

typedef enum Quantity { OF_PEAK, OF_ONE_THREAD, BYTES } Quantity; // percent of the peak, one thread's time by all's, bytes

typedef struct Target {
    const char *what, *key;
    const Contender *contender; // with one thread for OF_PEAK; with all otherwise
    Quantity quantity;
    double bound;               // at least; of bytes at most
} Target;

static const Target targets[] = {
    { "small, full: % of the peak, one thread", "full_percent", &steps[1], OF_PEAK, 70 },
    { "small, LoRA c_attn: % of the peak, one thread", "lora_c_attn_percent", &steps[3], OF_PEAK, 66 },
    { "small, LoRA all 4: % of the peak, one thread", "lora_all_percent", &steps[5], OF_PEAK, 63 },
    { "larger, full: % of the peak, one thread", "large_percent", &larges[1], OF_PEAK, 83 },
    { "small, full: one thread's time by that of two", "full_threads", &steps[0], OF_ONE_THREAD, 1.85 },
    { "small, full: MB at the peak", "full_bytes", &steps[0], BYTES, 29e6 },
    { "small, LoRA c_attn: MB at the peak", "lora_c_attn_bytes", &steps[2], BYTES, 21e6 },
    { "larger, full: MB at the peak", "large_bytes", &larges[0], BYTES, 342e6 },
};
enum { TARGETS = sizeof targets / sizeof *targets };

static double measured(const Target *t)
{
    const Contender *c = t->contender;
    switch (t->quantity) {
    case OF_PEAK: return 100 * middle(&c->of_peak);
    case OF_ONE_THREAD: return ratio(&c[1].turns, &c->turns);
    case BYTES: return (double)c->trainer->peak_bytes;
    }
    return 0;
}

static bool met(const Target *t) { return t->quantity == BYTES ? measured(t) <= t->bound : measured(t) >= t->bound; }

void print_targets(void)
{
    printf("\nTargets for %s, as medians of paired ratios%13s%10s\n", real_name, "target", "measured");
    for (int i = 0; i < TARGETS; i++) {
        const Target *t = &targets[i];
        double unit = t->quantity == BYTES ? 1e-6 : 1;
        printf("%-50s%s%6.4g%10.2f  %s\n", t->what, t->quantity == BYTES ? "<=" : ">=", unit * t->bound, unit * measured(t),
               met(t) ? "met" : "missed");
    }
}

void json_targets(FileWriter *w)
{
    for (int i = 0; i < TARGETS; i++)
        file_printf(w, "%s\n    \"%s\": {\"target\": %g, \"measured\": %.4f, \"met\": %s}", i > 0 ? "," : "", targets[i].key,
                    targets[i].bound, measured(&targets[i]), met(&targets[i]) ? "true" : "false");
}
