// flow.c - see flow.h. backward asks before each gradient kernel whether to cut it off: here nothing is cut, but seen.

#include "plots/flow.h"

const char *const kind_names[] = { "not recorded", "skipped", "run" };

static Flow *watched;
static const Transformer *watched_model;

// Which matrix of the base, or of an adapter's layer, t is; -1: none.
static int matrix_of(const Tensor *t)
{
    for (int i = 0; i < MATRICES - 1; i++) {
        const Linear *linear = &watched_model->blocks[i / LINEARS].linear[i % LINEARS];
        if (t == linear->weight || (linear->lora != NULL && (t == linear->lora->A || t == linear->lora->B))) return i;
    }
    return t == watched_model->wte ? MATRICES - 1 : -1;
}

static bool see(const Node *n, int input)
{
    const Tensor *in = n->in[input], *matrix = base_matrix(n);
    if (matrix != NULL && input == 0) watched->dgrad[matrix_of(matrix)] = FLOW_RUN;
    if (matrix != NULL && input == 1) watched->wgrad[matrix_of(matrix)] = FLOW_RUN;
    if (in->kind == MEMORY_ADAPTERS) watched->adapter[matrix_of(in)]++;
    return false;
}

Measured measure_flow(Transformer *model, const Text *text, Flow *flow, FILE *timeline)
{
    enum { STEPS = 2 }; // the moments exist in the second
    int64_t dgrad = 0, wgrad = 0, adapter = 0;
    *flow = (Flow){ .adapter = { 0 } };
    watched = flow;
    watched_model = model;
    Measured m = measure_steps(model, (Steps){ small_batch(text), STEPS, true, see, timeline });
    for (int i = 0; i < MATRICES; i++) {
        flow->adapter[i] /= STEPS;
        dgrad += flow->dgrad[i] == FLOW_RUN;
        wgrad += flow->wgrad[i] == FLOW_RUN;
        adapter += flow->adapter[i];
        // a product is recorded only if at least one of its gradients will be needed: the other was skipped
        if (flow->dgrad[i] == FLOW_RUN && flow->wgrad[i] != FLOW_RUN) flow->wgrad[i] = FLOW_SKIPPED;
        if (flow->wgrad[i] == FLOW_RUN && flow->dgrad[i] != FLOW_RUN) flow->dgrad[i] = FLOW_SKIPPED;
    }
    check(dgrad == m.dgrad && wgrad == m.wgrad && adapter == m.adapter_gradients,
          "measure_flow: saw %" PRId64 " dgrad, %" PRId64 " wgrad and %" PRId64 " adapter gradients, the tape counted %" PRId64
          ", %" PRId64 " and %" PRId64, dgrad, wgrad, adapter, m.dgrad, m.wgrad, m.adapter_gradients);
    return m;
}
