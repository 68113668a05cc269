// meter.h - a watcher of a tape: counts and times kernels, prints the backward pass, cuts a gradient for an experiment.
//
//     Meter meter = { .trace = stdout };
//     meter_watch(&meter, tape);
//     ... forward, backward ...
//     printf("%" PRId64 " FLOPs\n", meter_phase(&meter, PHASE_WGRAD).flops);
//
// The engine knows one call of it (Watch in autograd.h). What it counts adds up until you zero it.
//
// Read next: predict.h.

#ifndef METER_H
#define METER_H

#include "autograd.h"

// A gradient of a result is dgrad, one of a leaf is wgrad.
typedef enum Phase { PHASE_FORWARD, PHASE_DGRAD, PHASE_WGRAD, PHASE_RECOMPUTE, PHASES } Phase;
extern const char *const phase_names[PHASES];

// PHASE_RECOMPUTE: what backward runs a second time, results that were not kept and whole blocks (op_recompute).
typedef struct Work { int64_t kernels, flops; double seconds; } Work; // kernels: one per op call and input

enum { MAX_OPS = 64 };

typedef struct Meter {
    struct { const Op *op; Work work[PHASES]; } ops[MAX_OPS]; // in the order in which they were met; op NULL: no more
    // gradients at the base's weight matrices (every linear, and the tied head)
    int64_t dgrad;                // passed through one of them to its input
    int64_t wgrad;                // computed for the matrix itself
    int64_t wgrad_skipped;        // not computed: the guard found it frozen
    int64_t wgrad_never_recorded; // not even recorded: nothing below trains
    int64_t adapter_gradients;    // computed for LoRA's A and B
    double start;                 // of the kernel that runs now
    // set by you
    FILE *trace;                  // not NULL: one line per node and input of the backward pass, in the order in which it runs
    bool (*cut)(const Node *n, int input); // not NULL and true: this gradient is dropped, as if it were zero
} Meter;

// The meter, which stays the caller's and must outlive the tape's use, watches from now on; NULL: nobody does.
void meter_watch(Meter *meter, Tape *tape);
// Zeroes what was counted; trace and cut stay.
void meter_zero(Meter *meter);
// Summed over ops; and of one op.
Work meter_phase(const Meter *meter, Phase phase);
Work meter_op(const Meter *meter, const Op *op, Phase phase);

#endif
