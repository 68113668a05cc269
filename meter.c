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

// A line of at most 80 columns, for names as long as "transformer.h.3.attn.c_attn.weight", which loses its first word.
static void trace(const Meter *meter, const Tape *tape, const Node *n, int input, const char *what)
{
    static const char base[] = "transformer.";
    if (meter->trace == NULL || input == FORWARD) return;
    char head[32];
    const char *name = n->in[input]->name;
    if (strncmp(name, base, sizeof base - 1) == 0) name += sizeof base - 1;
    snprintf(head, sizeof head, "#%d %s", (int)(n - tape->nodes), n->op->name);
    fprintf(meter->trace, "  %-14s d/d %-23s %s\n", head, name, what);
}

// What a frozen input costs: nothing. Says what it saves.
static void skipped(Meter *meter, const Tape *tape, const Node *n, int input)
{
    char what[96], flops[32] = "";
    const Tensor *in = n->in[input];
    double bytes = (double)in->size * sizeof(real), mflop = 1e-6 * (double)flops_of(n, input);
    if (input != 0 && input == n->op->weight) meter->wgrad_skipped++;
    if (mflop >= 0.001) snprintf(flops, sizeof flops, ", %.3g MFLOP", mflop);
    snprintf(what, sizeof what, "%s: saves %.0f %s%s", is_leaf(in) ? "frozen" : "ends here", bytes < 1e4 ? bytes : 1e-3 * bytes,
             bytes < 1e4 ? "B" : "kB", flops);
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
    char what[96];
    const Tensor *in = n->in[input];
    snprintf(what, sizeof what, "%-12s |g| = %.4g", shape_text(in), norm_of(in->grad, in->size));
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
