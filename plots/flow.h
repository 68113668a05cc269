// flow.h - where gradients flow in one step: through each of the base's matrices, of it, and of the adapter on it.

#ifndef FLOW_H
#define FLOW_H

#include "experiments/measure.h"

enum { BLOCKS = 4, MATRICES = BLOCKS * LINEARS + 1 }; // the small model's; the tied head is the last

typedef enum Kind { FLOW_NOT_RECORDED, FLOW_SKIPPED, FLOW_RUN } Kind; // of a gradient
extern const char *const kind_names[];
typedef struct Flow { Kind dgrad[MATRICES], wgrad[MATRICES]; int adapter[MATRICES]; } Flow; // adapter: how many of dA and dB

// A step of what trains in the model (adapt), and what was seen in it. `timeline` as in Steps.
Measured measure_flow(Transformer *model, const Text *text, Flow *flow, FILE *timeline);

#endif
