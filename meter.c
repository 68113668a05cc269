// meter.c - see meter.h.
//
// Read next: predict.h.

#include "meter.h"

const char *const phase_names[PHASES] = { "forward", "dgrad", "wgrad", "recompute" };

void meter_zero(Meter *meter) { *meter = (Meter){ .trace = meter->trace, .cut = meter->cut }; }

static Work *work_of(Meter *meter, const Op *op)
{
    int i = 0;
    while (i < MAX_OPS && meter->ops[i].op != NULL && meter->ops[i].op != op) i++;
    check(i < MAX_OPS, "meter: more than %d different ops", MAX_OPS);
    meter->ops[i].op = op;
    return meter->ops[i].work;
}

Work meter_op(const Meter *meter, const Op *op, Phase phase)
{
    for (int i = 0; i < MAX_OPS; i++)
        if (meter->ops[i].op == op) return meter->ops[i].work[phase];
    return (Work){ 0 };
}

Work meter_phase(const Meter *meter, Phase phase)
{
    Work sum = { 0 };
    for (int i = 0; i < MAX_OPS; i++) {
        sum.kernels += meter->ops[i].work[phase].kernels;
        sum.flops += meter->ops[i].work[phase].flops;
        sum.seconds += meter->ops[i].work[phase].seconds;
    }
    return sum;
}

static Phase phase_of(const Tape *tape, const Node *n, int input)
{
    if (input == FORWARD) return tape->replaying ? PHASE_RECOMPUTE : PHASE_FORWARD;
    return is_leaf(n->in[input]) ? PHASE_WGRAD : PHASE_DGRAD;
}

static void trace(const Meter *meter, const Tape *tape, const Node *n, int input, const char *what)
{
    if (meter->trace == NULL || input == FORWARD) return;
    char head[32];
    snprintf(head, sizeof head, "#%d %s", (int)(n - tape->nodes), n->op->name);
    fprintf(meter->trace, "  %-18s d/d %-44s %-13s %s\n", head, n->in[input]->name, shape_text(n->in[input]), what);
}

// What a frozen input costs: nothing. Says what it saves.
static void skipped(Meter *meter, const Tape *tape, const Node *n, int input)
{
    char what[96];
    const Tensor *in = n->in[input];
    if (input != 0 && input == n->op->weight) meter->wgrad_skipped++;
    snprintf(what, sizeof what, "%s: skipped, saves %" PRId64 " bytes and %.1f MFLOP",
             is_leaf(in) ? "frozen" : "nothing below trains", in->size * (int64_t)sizeof(real), 1e-6 * (double)flops_of(n, input));
    trace(meter, tape, n, input, what);
}

static void add_work(Meter *meter, Phase phase, const Node *n, int input)
{
    Work *work = &work_of(meter, n->op)[phase];
    double now = seconds_now();
    work->kernels++;
    work->flops += flops_of(n, input);
    work->seconds += now - meter->start;
    meter->start = now; // what was made again for a gradient is no part of its time
}

static void count(Meter *meter, const Tape *tape, const Node *n, int input)
{
    add_work(meter, phase_of(tape, n, input), n, input);
    if (input == FORWARD) return;
    if (n->op->weight && input == 0) meter->dgrad++;
    if (n->op->weight && input == n->op->weight) meter->wgrad++;
    if (n->in[input]->kind == MEMORY_ADAPTERS) meter->adapter_gradients++;
    if (meter->trace == NULL) return;
    char what[32];
    snprintf(what, sizeof what, "|g| = %.4g", norm_of(n->in[input]->grad, n->in[input]->size));
    trace(meter, tape, n, input, what);
}

static bool before(Meter *meter, const Tape *tape, const Node *n, int input)
{
    memory_at(input == FORWARD ? "forward" : "backward", n->op->name);
    if (input != FORWARD && meter->cut != NULL && meter->cut(n, input)) {
        trace(meter, tape, n, input, "cut");
        return false;
    }
    meter->start = seconds_now();
    return true;
}

static bool watch(void *watcher, const Tape *tape, const Node *n, int input, Event event)
{
    Meter *meter = watcher;
    switch (event) {
    case BEFORE: return before(meter, tape, n, input);
    case AFTER: count(meter, tape, n, input); return true;
    case SKIPPED: skipped(meter, tape, n, input); return true;
    case MADE_AGAIN: add_work(meter, PHASE_RECOMPUTE, n, input); return true;
    case NOT_RECORDED: meter->wgrad_never_recorded += n->op->weight && !tape->replaying; return true;
    }
    return true;
}

void meter_watch(Meter *meter, Tape *tape)
{
    tape->watch = meter ? watch : NULL;
    tape->watcher = meter;
}
