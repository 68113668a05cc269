// autograd.c - see autograd.h. Three parts: the engine (record, backward), the ops (one block each: formula, forward, one
// gradient per input, checks), and the op table at the end, which is the index of it all.
//
// The kernels work on plain arrays. They never record and never see the tape. A kernel is called once per part and writes the
// share of its output that this part owns (parallel.h). Gradients are only ever added to: dx += ..., because a tensor that is
// used twice gets a gradient from each use. The first use, which would add to zeros, may store (FirstGradient in autograd.h).
//
// Where to begin: record_into, through which every op goes; run_backward, which has the guard; then one op, `mul` first and
// `linear` after it. The others can wait until you meet them. Read next: lora.h.

#include "autograd.h"

#include "matmul.h"

#include <stdlib.h>

// --------------------------------------------------------------------------------------------------------------- the engine

const char *const phase_names[PHASES] = { "forward", "dgrad", "wgrad", "recompute" };

enum { SMALL_WORK = 20000 }; // multiplications, or elements: below this, waking the other threads costs more than it brings

static void *grow(void *array, int *capacity, size_t element)
{
    *capacity = *capacity ? 2 * *capacity : 64;
    return reallocate(array, (size_t)*capacity, element, "the nodes of a tape");
}

Tape *tape_new(void) { return allocate(1, sizeof(Tape), "a tape"); }

Work counts_phase(const Counts *counts, Phase phase)
{
    Work sum = { 0 };
    for (int op = 0; op < OP_KINDS; op++) {
        sum.kernels += counts->work[op][phase].kernels;
        sum.flops += counts->work[op][phase].flops;
        sum.seconds += counts->work[op][phase].seconds;
    }
    return sum;
}

static long flops_of(const Node *n) { return ops[n->op].flops ? ops[n->op].flops(n) : 0; }
static long saved_size(const Node *n) { return ops[n->op].saved ? ops[n->op].saved(n) : 0; }

// Runs one kernel on all cores: a forward if `dx` is NULL, else a gradient.
typedef struct Call { const Node *node; int input; const real *dy; real *dx; } Call;

static void call_part(void *context, Part part)
{
    const Call *c = context;
    const Op *op = &ops[c->node->op];
    if (c->dx == NULL) op->forward(c->node, c->node->out->data, part);
    else op->input[c->input].grad(c->node, c->dy, c->dx, part);
}

static void run_kernel(Node *n, int input, const real *dy, real *dx, Tape *tape, Phase phase)
{
    const Op *op = &ops[n->op];
    long flops = flops_of(n) * (dx ? op->input[input].work : 1), size = n->out->size;
    for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++) size += n->in[i]->size;
    bool small = flops / 2 + size < SMALL_WORK;
    long scratch = op->workspace ? op->workspace(n) * parallel_threads() : 0;
    double start = tape ? seconds_now() : 0;
    if (scratch > 0) n->work = memory_take(MEMORY_WORKSPACE, scratch);
    Call call = { n, input, dy, dx };
    (small ? parallel_run_serial : parallel_run)(call_part, &call);
    if (scratch > 0) memory_give(MEMORY_WORKSPACE, n->work, scratch);
    n->work = NULL;
    if (tape == NULL) return;
    Work *work = &tape->counts.work[n->op][phase];
    work->kernels++;
    work->flops += flops;
    work->seconds += seconds_now() - start;
}

// What the gradients of the first `inputs` inputs read, of those that require one. Node n, if recorded, must hold this for
// all of its inputs, and nothing more; and in backward less and less.
static unsigned keeps_of(const Node *n, int inputs)
{
    unsigned keeps = KEEP_NONE;
    // task L2.7 (5 points): the keep rule
    for (int i = 0; i < inputs && n->in[i] != NULL; i++)
        if (n->in[i]->requires_grad || n->trains) keeps |= ops[n->op].input[i].keeps;
    // end task
    return keeps;
}

// The one function through which every op goes: makes the output (in a buffer of its own, or the given one), runs forward,
// and appends a node if something upstream trains.
static Tensor *record_into(Tape *tape, Node n, real *buffer, int ndim, const int *shape)
{
    const Op *op = &ops[n.op];
    bool requires_grad = n.trains;
    for (int i = 0; i < MAX_INPUTS && n.in[i] != NULL; i++) {
        check(n.in[i]->data != NULL, "%s: input %d, %s %s, has no data: it was dropped", op->name, i, n.in[i]->name,
              shape_text(n.in[i]));
        check(tape == NULL || !n.in[i]->requires_grad || n.in[i]->node != NODE_CONSUMED,
              "%s: input %d, %s, was made on a tape that backward has consumed", op->name, i, n.in[i]->name);
        requires_grad |= n.in[i]->requires_grad;
    }
    bool recorded = tape != NULL && requires_grad;
    memory_at("forward", op->name);

    char name[64];
    snprintf(name, sizeof name, "%s#%d", op->name, tape ? tape->result_count : 0);
    n.out = tensor_result(name, buffer, ndim, shape, tape != NULL);
    n.kept = recorded ? keeps_of(&n, MAX_INPUTS) : KEEP_NONE;
    if (n.kept & KEEP_SAVED) n.saved = memory_take(MEMORY_KEPT_ACTIVATIONS, saved_size(&n));

    run_kernel(&n, 0, NULL, NULL, tape, tape && tape->replaying ? PHASE_RECOMPUTE : PHASE_FORWARD);
    if (tape == NULL) return n.out;

    if (tape->result_count == tape->result_capacity)
        tape->results = grow(tape->results, &tape->result_capacity, sizeof *tape->results);
    tape->results[tape->result_count++] = n.out;
    if (!recorded) {
        if (op->weight && !tape->replaying) tape->counts.wgrad_never_recorded++;
        return n.out;
    }
    for (int i = 0; i < MAX_INPUTS && n.in[i] != NULL; i++) {
        tensor_refer(n.in[i]);
        if (n.kept & KEEP(i)) tensor_keep(n.in[i]);
    }
    if (n.kept & KEEP_OUT) tensor_keep(n.out);
    n.out->requires_grad = true;
    n.out->node = tape->count;
    // Appended after its inputs were: so walking from the last node to the first meets every consumer of a tensor before
    // the node that made it, and its gradient is complete when its turn comes.
    if (tape->count == tape->capacity) tape->nodes = grow(tape->nodes, &tape->capacity, sizeof *tape->nodes);
    tape->nodes[tape->count++] = n;
    return n.out;
}

static Tensor *record(Tape *tape, Node n, int ndim, const int *shape) { return record_into(tape, n, NULL, ndim, shape); }

// Lets go of some of what a node holds.
static void unkeep(Node *n, unsigned what)
{
    for (int i = 0; i < MAX_INPUTS; i++)
        if (what & KEEP(i)) tensor_unkeep(n->in[i]);
    if (what & KEEP_OUT) tensor_unkeep(n->out);
    if (what & KEEP_SAVED) {
        memory_give(MEMORY_KEPT_ACTIVATIONS, n->saved, saved_size(n));
        n->saved = NULL;
    }
    n->kept &= ~what;
}

// Lets go of all that a node holds. Its output can feed nothing any more.
static void release(Node *n)
{
    unkeep(n, n->kept);
    tensor_drop_grad(n->out);
    n->out->node = NODE_CONSUMED;
    for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++) tensor_unrefer(n->in[i]);
}

static void release_nodes(Tape *tape)
{
    for (int i = tape->count - 1; i >= 0; i--) release(&tape->nodes[i]);
    tape->count = 0;
}

void tape_clear(Tape *tape)
{
    release_nodes(tape);
    for (int i = 0; i < tape->result_count; i++) tensor_free(tape->results[i]);
    tape->result_count = 0;
    tape->dropout_calls = 0;
}

void tape_free(Tape *tape)
{
    if (tape == NULL) return;
    tape_clear(tape);
    tape_free(tape->inner);
    free(tape->nodes);
    free(tape->results);
    free(tape);
}

static void zero_part(void *context, Part part)
{
    Tensor *t = context;
    Share s = share(part, t->size, 1024);
    memset(t->grad + s.begin, 0, (size_t)(s.end - s.begin) * sizeof(real));
}

static MemoryKind grad_kind(const Tensor *t)
{
    return t->node == NODE_LEAF ? MEMORY_PARAMETER_GRADIENTS : MEMORY_ACTIVATION_GRADIENTS;
}

// Gives t a gradient: of zeros to add to; of nothing yet, for a kernel that stores; or the output's own, for one in place.
static void need_grad(Tensor *t, FirstGradient first, Tensor *out)
{
    if (first == IN_PLACE) {
        t->grad = out->grad;
        out->grad = NULL;
        memory_move(MEMORY_ACTIVATION_GRADIENTS, grad_kind(t), t->size);
        return;
    }
    t->grad = memory_take(grad_kind(t), t->size);
    if (first == STORES) return;
    if (t->size < SMALL_WORK) memset(t->grad, 0, (size_t)t->size * sizeof(real));
    else parallel_run(zero_part, t);
}

// What a kernel that STORES does with the next few numbers before it adds to them: zeros that stay in the cache.
static void begin(const Node *n, real *dx, long count)
{
    if (n->first) memset(dx, 0, (size_t)count * sizeof *dx);
}

// dx += dy: the gradient of an input that the output merely contains. In place there is nothing to do.
static void pass_on(const Node *n, const real *dy, real *dx, Part part)
{
    Share s = share(part, n->out->size, LANES);
    if (dx == dy) return;
    if (n->first) memcpy(dx + s.begin, dy + s.begin, (size_t)(s.end - s.begin) * sizeof *dx);
    else for (long i = s.begin; i < s.end; i++) dx[i] += dy[i];
}

static void trace(const Tape *tape, const Node *n, int number, int input, const char *what)
{
    if (tape->trace == NULL) return;
    const Tensor *in = n->in[input];
    char head[32];
    snprintf(head, sizeof head, "#%d %s", number, ops[n->op].name);
    fprintf(tape->trace, "  %-18s d/d %-44s %-13s %s\n", head, in->name, shape_text(in), what);
}

// What a frozen input costs: nothing. Says what it saves.
static void skipped(Tape *tape, const Node *n, int number, int input)
{
    if (input != 0 && input == ops[n->op].weight) tape->counts.wgrad_skipped++;
    if (tape->trace == NULL) return;
    char what[96];
    bool leaf = n->in[input]->kind == MEMORY_WEIGHTS || n->in[input]->kind == MEMORY_ADAPTERS;
    snprintf(what, sizeof what, "%s: skipped, saves %ld bytes and %.1f MFLOP", leaf ? "frozen" : "nothing below trains",
             n->in[input]->size * (long)sizeof(real),
             1e-6 * (double)(flops_of(n) * ops[n->op].input[input].work));
    trace(tape, n, number, input, what);
}

static void count_gradient(Counts *counts, const Node *n, int input)
{
    if (ops[n->op].weight && input == 0) counts->dgrad++;
    if (ops[n->op].weight && input == ops[n->op].weight) counts->wgrad++;
    if (n->in[input]->kind == MEMORY_ADAPTERS) counts->adapter_gradients++;
}

static void run_recompute(Tape *tape, Node *n);

// From the last node to the first; every node has its output's whole gradient when its turn comes (see record_into).
static void run_backward(Tape *tape)
{
    // task L1.4 (12 points): backward, with the guard
    for (int number = tape->count - 1; number >= 0; number--) {
        Node *n = &tape->nodes[number];
        memory_at("backward", ops[n->op].name);
        if (n->out->grad == NULL) { // nothing that led to the loss used it
            release(n);
            continue;
        }
        if (n->op == OP_RECOMPUTE) run_recompute(tape, n);
        else for (int i = MAX_INPUTS - 1; i >= 0; i--) { // input 0 last: it may turn dy itself into dx
            Tensor *in = n->in[i];
            if (in == NULL) continue;
            if (!in->requires_grad) { skipped(tape, n, number, i); continue; } // the guard: all that freezing is
            check((ops[n->op].input[i].keeps & ~n->kept) == 0,
                  "backward: %s was frozen when %s used it, and is not now: set requires_grad before the forward pass",
                  in->name, n->out->name);
            if (tape->cut != NULL && tape->cut(n, i)) { trace(tape, n, number, i, "cut"); continue; }

            count_gradient(&tape->counts, n, i);
            const real *dy = n->out->grad;
            n->first = in->grad == NULL;
            if (n->first) need_grad(in, ops[n->op].input[i].first, n->out);
            run_kernel(n, i, dy, in->grad, tape, in->node == NODE_LEAF ? PHASE_WGRAD : PHASE_DGRAD);
            if (tape->trace != NULL) {
                char what[32];
                snprintf(what, sizeof what, "|g| = %.4g", norm_of(in->grad, in->size));
                trace(tape, n, number, i, what);
            }
            unkeep(n, n->kept & ~keeps_of(n, i)); // X goes once dW has read it: dX may take its place
        }
        release(n);
    }
    tape->count = 0;
    // end task
}

void backward(Tape *tape, Tensor *loss)
{
    check(loss->size == 1, "backward(%s): the loss has shape %s, not one number; op_mean or op_sum makes one", loss->name,
          shape_text(loss));
    check(loss->node != NODE_CONSUMED, "backward(%s): backward has been called on this tape; build the graph again",
          loss->name);
    check(loss->requires_grad, "backward(%s): nothing trainable feeds the loss; did you attach an adapter?", loss->name);
    check(loss->node >= 0 && loss->node < tape->count && tape->nodes[loss->node].out == loss,
          "backward(%s): the loss was not made on this tape", loss->name);
    memory_at("backward", "loss");
    need_grad(loss, STORES, NULL);
    loss->grad[0] = 1; // d(loss)/d(loss)
    run_backward(tape);
}

// ------------------------------------------------------------------------------------------------------------------ the ops
//
// In each block: x, y, ... are the node's tensors, dy the output's gradient, dx that of the input at hand.

static void check_same_shape(const char *op, const Tensor *a, const Tensor *b)
{
    check(same_shape(a, b), "%s: %s %s and %s %s differ in shape", op, a->name, shape_text(a), b->name, shape_text(b));
}

static Share elements(const Node *n, Part part) { return share(part, n->out->size, LANES); } // of an elementwise kernel
static Share rows(const Node *n, Part part) { return share(part, rows_of(n->out), 1); }      // of a kernel that owns rows

// A part's own scratch; NULL if the op needs none (in the plain build)
static real *work_of(const Node *n, Part part) { return n->work ? n->work + part.index * ops[n->op].workspace(n) : NULL; }

// ---- add: y = a + b        dL/da = dy, dL/db = dy

static void add_forward(const Node *n, real *y, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = a[i] + b[i];
}

Tensor *op_add(Tape *tape, Tensor *a, Tensor *b)
{
    check_same_shape("add", a, b);
    return record(tape, (Node){ .op = OP_ADD, .in = { a, b } }, a->ndim, a->shape);
}

// ---- sub: y = a - b        dL/da = dy, dL/db = -dy

static void sub_forward(const Node *n, real *y, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = a[i] - b[i];
}

static void sub_grad_b(const Node *n, const real *dy, real *db, Part part)
{
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) db[i] -= dy[i];
}

Tensor *op_sub(Tape *tape, Tensor *a, Tensor *b)
{
    check_same_shape("sub", a, b);
    return record(tape, (Node){ .op = OP_SUB, .in = { a, b } }, a->ndim, a->shape);
}

// ---- mul: y = a * b        dL/da = dy * b, dL/db = dy * a

static void mul_forward(const Node *n, real *y, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = a[i] * b[i];
}

static void mul_grad_a(const Node *n, const real *dy, real *da, Part part)
{
    const real *b = n->in[1]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) da[i] += dy[i] * b[i];
}

static void mul_grad_b(const Node *n, const real *dy, real *db, Part part)
{
    const real *a = n->in[0]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) db[i] += dy[i] * a[i];
}

Tensor *op_mul(Tape *tape, Tensor *a, Tensor *b)
{
    check_same_shape("mul", a, b);
    return record(tape, (Node){ .op = OP_MUL, .in = { a, b } }, a->ndim, a->shape);
}

// ---- scale: y = s a        dL/da = s dy

static void scale_forward(const Node *n, real *y, Part part)
{
    const real *a = n->in[0]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = n->scalar * a[i];
}

static void scale_grad(const Node *n, const real *dy, real *da, Part part)
{
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) da[i] += n->scalar * dy[i];
}

Tensor *op_scale(Tape *tape, Tensor *a, real s)
{
    return record(tape, (Node){ .op = OP_SCALE, .in = { a }, .scalar = s }, a->ndim, a->shape);
}

// ---- add_scaled: y = a + s b        dL/da = dy, dL/db = s dy

static void add_scaled_forward(const Node *n, real *y, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = a[i] + n->scalar * b[i];
}

Tensor *op_add_scaled(Tape *tape, Tensor *a, Tensor *b, real s)
{
    check_same_shape("add_scaled", a, b);
    return record(tape, (Node){ .op = OP_ADD_SCALED, .in = { a, b }, .scalar = s }, a->ndim, a->shape);
}

// ---- relu: y = max(x, 0)        dL/dx = dy where y > 0

static void relu_forward(const Node *n, real *y, Part part)
{
    const real *x = n->in[0]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

static void relu_grad(const Node *n, const real *dy, real *dx, Part part)
{
    const real *y = n->out->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) dx[i] += y[i] > 0 ? dy[i] : 0;
}

Tensor *op_relu(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = OP_RELU, .in = { x } }, x->ndim, x->shape);
}

// ---- tanh: y = tanh(x)        dL/dx = dy (1 - y^2)

static void tanh_forward(const Node *n, real *y, Part part)
{
    const real *x = n->in[0]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = (real)tanh((double)x[i]);
}

static void tanh_grad(const Node *n, const real *dy, real *dx, Part part)
{
    const real *y = n->out->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) dx[i] += dy[i] * (1 - y[i] * y[i]);
}

Tensor *op_tanh(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = OP_TANH, .in = { x } }, x->ndim, x->shape);
}

// ---- exp: y = e^x        dL/dx = dy y

static void exp_forward(const Node *n, real *y, Part part)
{
    const real *x = n->in[0]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = (real)exp((double)x[i]);
}

static void exp_grad(const Node *n, const real *dy, real *dx, Part part)
{
    const real *y = n->out->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) dx[i] += dy[i] * y[i];
}

Tensor *op_exp(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = OP_EXP, .in = { x } }, x->ndim, x->shape);
}

// ---- sum: y = sum of x        dL/dx[i] = dy        One part adds all: no sum crosses parts.

static real sum_of(const real *x, long count)
{
    real lane[LANES] = { 0 };
    long i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int l = 0; l < LANES; l++) lane[l] += x[i + l];
    for (; i < count; i++) lane[i % LANES] += x[i];
    return fold_lanes(lane);
}

static void sum_forward(const Node *n, real *y, Part part)
{
    if (part.index == 0) y[0] = sum_of(n->in[0]->data, n->in[0]->size);
}

static void sum_grad(const Node *n, const real *dy, real *dx, Part part)
{
    Share s = share(part, n->in[0]->size, LANES);
    for (long i = s.begin; i < s.end; i++) dx[i] += dy[0];
}

Tensor *op_sum(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = OP_SUM, .in = { x } }, SHAPE(1));
}

// ---- mean: y = sum of x / size        dL/dx[i] = dy / size

static void mean_forward(const Node *n, real *y, Part part)
{
    if (part.index == 0) y[0] = sum_of(n->in[0]->data, n->in[0]->size) / (real)n->in[0]->size;
}

static void mean_grad(const Node *n, const real *dy, real *dx, Part part)
{
    Share s = share(part, n->in[0]->size, LANES);
    real each = dy[0] / (real)n->in[0]->size;
    for (long i = s.begin; i < s.end; i++) dx[i] += each;
}

Tensor *op_mean(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = OP_MEAN, .in = { x } }, SHAPE(1));
}

// ---- softmax: y[j] = e^x[j] / sum_k e^x[k], each row        dL/dx[j] = y[j] (dy[j] - sum_k dy[k] y[k])
//
// Both sums are the same for e^(x - max): subtracting a row's largest x keeps every exponential at most 1.

static real max_of(const real *x, int count)
{
    real lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = x[0];
    int j = 0;
    for (; j + LANES <= count; j += LANES)
        VECTOR_LOOP for (int l = 0; l < LANES; l++) lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
    for (; j < count; j++) lane[0] = x[j] > lane[0] ? x[j] : lane[0];
    UNROLL_LOOP for (int half = LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] = lane[l] > lane[l + half] ? lane[l] : lane[l + half];
    return lane[0];
}

static real dot(const real *a, const real *b, long count)
{
    real lane[LANES] = { 0 };
    long i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int l = 0; l < LANES; l++) lane[l] += a[i + l] * b[i + l];
    for (; i < count; i++) lane[i % LANES] += a[i] * b[i];
    return fold_lanes(lane);
}

// x = e^(x - max); returns their sum
static real exponentials(real *x, int count, real max)
{
    real lane[LANES] = { 0 };
    int j = 0;
    for (; j + LANES <= count; j += LANES)
        VECTOR_LOOP for (int l = 0; l < LANES; l++) lane[l] += x[j + l] = fast_exp(x[j + l] - max);
    for (; j < count; j++) lane[j % LANES] += x[j] = fast_exp(x[j] - max);
    return fold_lanes(lane);
}

static void softmax_forward(const Node *n, real *y, Part part)
{
    int V = last_dim(n->out);
    Share s = rows(n, part);
    for (long r = s.begin; r < s.end; r++) {
        memcpy(y + r * V, n->in[0]->data + r * V, (size_t)V * sizeof *y);
        real scale = 1 / exponentials(y + r * V, V, max_of(y + r * V, V));
        for (int j = 0; j < V; j++) y[r * V + j] *= scale;
    }
}

static void softmax_grad(const Node *n, const real *dy, real *dx, Part part)
{
    // task H5 (5 points): softmax, its gradient
    int V = last_dim(n->out);
    Share s = rows(n, part);
    for (long r = s.begin; r < s.end; r++) {
        const real *y = n->out->data + r * V;
        real mean = dot(dy + r * V, y, V);
        for (int j = 0; j < V; j++) dx[r * V + j] += y[j] * (dy[r * V + j] - mean);
    }
    // end task
}

Tensor *op_softmax(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = OP_SOFTMAX, .in = { x } }, x->ndim, x->shape);
}

// ---- matmul: y[N,O] = a[N,I] b[I,O]        da = dy b^T, db = a^T dy
//
// By indices: y[n,o] = sum_i a[n,i] b[i,o], so dL/da[n,i] = sum_o dy[n,o] b[i,o]: it reads b, whether b trains or not.

static void matmul_forward(const Node *n, real *y, Part part)
{
    const Tensor *a = n->in[0], *b = n->in[1];
    int N = (int)rows_of(a), I = last_dim(a), O = last_dim(b);
    matmul((Matmul){ .m = N, .n = O, .k = I, .a = matrix(a->data, I), .b = matrix(b->data, O),
                     .scale = 1, .c = y, .c_row = O, .work = work_of(n, part) }, part);
}

static void matmul_grad_a(const Node *n, const real *dy, real *da, Part part)
{
    const Tensor *a = n->in[0], *b = n->in[1];
    int N = (int)rows_of(a), I = last_dim(a), O = last_dim(b);
    // task L1.2 (10 points): matmul, the gradient of its first factor
    matmul((Matmul){ .m = N, .n = I, .k = O, .a = matrix(dy, O), .b = transposed(b->data, O),
                     .scale = 1, .start = n->first ? NULL : da, .start_row = I, .c = da, .c_row = I,
                     .work = work_of(n, part) }, part);
    // end task
}

static void matmul_grad_b(const Node *n, const real *dy, real *db, Part part)
{
    const Tensor *a = n->in[0], *b = n->in[1];
    int N = (int)rows_of(a), I = last_dim(a), O = last_dim(b);
    // task L1.3 (10 points): matmul, the gradient of its second factor
    matmul((Matmul){ .m = I, .n = O, .k = N, .a = transposed(a->data, I), .b = matrix(dy, O),
                     .scale = 1, .start = n->first ? NULL : db, .start_row = O, .c = db, .c_row = O,
                     .work = work_of(n, part) }, part);
    // end task
}

static long larger(long a, long b) { return a > b ? a : b; }

// Of y[N,O] = x[N,I] w[I,O] and its two gradients: the largest scratch serves all.
static long products_scratch(int N, int I, int O)
{
    return larger(matmul_scratch(O, I), larger(matmul_scratch(I, O), matmul_scratch(O, N)));
}

static long matmul_workspace(const Node *n)
{
    return products_scratch((int)rows_of(n->in[0]), last_dim(n->in[0]), last_dim(n->in[1]));
}

static long matmul_flops(const Node *n) { return 2 * n->in[0]->size * last_dim(n->in[1]); }

static void with_last_dim(int shape[MAX_DIMS], const Tensor *x, int last)
{
    memcpy(shape, x->shape, sizeof x->shape);
    shape[x->ndim - 1] = last;
}

Tensor *op_matmul(Tape *tape, Tensor *a, Tensor *b)
{
    check(b->ndim == 2 && last_dim(a) == b->shape[0],
          "matmul: %s %s and %s %s do not fit: columns of the first must be rows of the second",
          a->name, shape_text(a), b->name, shape_text(b));
    int shape[MAX_DIMS];
    with_last_dim(shape, a, last_dim(b));
    return record(tape, (Node){ .op = OP_MATMUL, .in = { a, b } }, a->ndim, shape);
}

// ---- embedding: y[b,t] = wte[ids[b,t]] + wpe[t]        dwte[ids[b,t]] += dy[b,t], dwpe[t] += dy[b,t]
//
// A row of dwte may be hit from anywhere in the batch, so the gradients' parts own columns, not rows.

static void embedding_forward(const Node *n, real *y, Part part)
{
    int C = last_dim(n->out), T = n->out->shape[1];
    Share s = rows(n, part);
    for (long r = s.begin; r < s.end; r++) {
        const real *token = n->in[0]->data + (long)n->ids[r] * C, *position = n->in[1]->data + r % T * C;
        for (int c = 0; c < C; c++) y[r * C + c] = token[c] + position[c];
    }
}

static void embedding_grad_wte(const Node *n, const real *dy, real *dwte, Part part)
{
    int C = last_dim(n->out);
    Share s = share(part, C, LANES);
    for (long r = 0; r < rows_of(n->out); r++)
        for (long c = s.begin; c < s.end; c++) dwte[(long)n->ids[r] * C + c] += dy[r * C + c];
}

static void embedding_grad_wpe(const Node *n, const real *dy, real *dwpe, Part part)
{
    int C = last_dim(n->out), T = n->out->shape[1];
    Share s = share(part, C, LANES);
    for (long r = 0; r < rows_of(n->out); r++)
        for (long c = s.begin; c < s.end; c++) dwpe[r % T * C + c] += dy[r * C + c];
}

Tensor *op_embedding(Tape *tape, Tensor *wte, Tensor *wpe, const int *ids, int B, int T)
{
    check(wte->ndim == 2 && wpe->ndim == 2 && last_dim(wte) == last_dim(wpe), "embedding: %s %s and %s %s differ in width",
          wte->name, shape_text(wte), wpe->name, shape_text(wpe));
    check(T <= wpe->shape[0], "embedding: %d positions, but %s %s has %d", T, wpe->name, shape_text(wpe), wpe->shape[0]);
    for (int i = 0; i < B * T; i++)
        check(ids[i] >= 0 && ids[i] < wte->shape[0], "embedding: id %d at %d is not in 0..%d", ids[i], i, wte->shape[0] - 1);
    return record(tape, (Node){ .op = OP_EMBEDDING, .in = { wte, wpe }, .ids = ids }, SHAPE(B, T, last_dim(wte)));
}

// ---- layernorm: y = h gain + bias with h = (x - mean) rstd, rstd = 1 / sqrt(variance + 1e-5), each row of width C
//
// dbias[c] = sum_rows dy, dgain[c] = sum_rows dy h. With g = dy gain: dx = rstd (g - mean(g) - h mean(g h)), for x moves the
// mean and the variance too.  saved: mean, rstd of each row.

static void moments_of(const real *x, int C, real *mean, real *rstd)
{
    *mean = sum_of(x, C) / (real)C;
    real lane[LANES] = { 0 };
    int c = 0;
    for (; c + LANES <= C; c += LANES)
        for (int l = 0; l < LANES; l++) lane[l] += (x[c + l] - *mean) * (x[c + l] - *mean);
    for (; c < C; c++) lane[c % LANES] += (x[c] - *mean) * (x[c] - *mean);
    *rstd = 1 / (real)sqrt((double)(fold_lanes(lane) / (real)C) + 1e-5);
}

static void layernorm_forward(const Node *n, real *y, Part part)
{
    const real *gain = n->in[1]->data, *bias = n->in[2]->data;
    int C = last_dim(n->out);
    Share s = rows(n, part);
    for (long r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * C;
        real mean, rstd;
        moments_of(x, C, &mean, &rstd);
        for (int c = 0; c < C; c++) y[r * C + c] = (x[c] - mean) * rstd * gain[c] + bias[c];
        if (n->saved) {
            n->saved[2 * r] = mean;
            n->saved[2 * r + 1] = rstd;
        }
    }
}

static void layernorm_grad_x(const Node *n, const real *dy, real *dx, Part part)
{
    // task H2 (8 points): layernorm, the gradient of its input
    const real *gain = n->in[1]->data;
    int C = last_dim(n->out);
    Share s = rows(n, part);
    for (long r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * C, *dy_row = dy + r * C;
        real mean = n->saved[2 * r], rstd = n->saved[2 * r + 1];
        real lane[LANES] = { 0 }; // of the sum of g (x - mean)
        int c0 = 0;
        for (; c0 + LANES <= C; c0 += LANES)
            for (int l = 0; l < LANES; l++) lane[l] += dy_row[c0 + l] * gain[c0 + l] * (x[c0 + l] - mean);
        for (; c0 < C; c0++) lane[c0 % LANES] += dy_row[c0] * gain[c0] * (x[c0] - mean);
        real g_mean = dot(dy_row, gain, C) / (real)C, gh_mean = fold_lanes(lane) / (real)C * rstd;
        begin(n, dx + r * C, C);
        for (int c = 0; c < C; c++)
            dx[r * C + c] += rstd * (dy_row[c] * gain[c] - g_mean - (x[c] - mean) * rstd * gh_mean);
    }
    // end task
}

static void layernorm_grad_gain(const Node *n, const real *dy, real *dgain, Part part)
{
    // task H3 (4 points): layernorm, the gradient of its gain
    int C = last_dim(n->out);
    Share s = share(part, C, LANES);
    for (long r = 0; r < rows_of(n->out); r++) {
        const real *x = n->in[0]->data + r * C;
        real mean = n->saved[2 * r], rstd = n->saved[2 * r + 1];
        for (long c = s.begin; c < s.end; c++) dgain[c] += dy[r * C + c] * ((x[c] - mean) * rstd);
    }
    // end task
}

// db[o] += sum over rows of dy: of layernorm's bias and of linear's
static void bias_grad(const Node *n, const real *dy, real *db, Part part)
{
    // task H4 (3 points): the gradient of a bias
    int O = last_dim(n->out);
    Share s = share(part, O, LANES);
    for (long r = 0; r < rows_of(n->out); r++)
        for (long o = s.begin; o < s.end; o++) db[o] += dy[r * O + o];
    // end task
}

static long two_per_row(const Node *n) { return 2 * rows_of(n->in[0]); }

Tensor *op_layernorm(Tape *tape, Tensor *x, Tensor *gain, Tensor *bias)
{
    check(gain->ndim == 1 && gain->size == last_dim(x), "layernorm: %s %s does not fit the width of %s %s", gain->name,
          shape_text(gain), x->name, shape_text(x));
    check_same_shape("layernorm", gain, bias);
    return record(tape, (Node){ .op = OP_LAYERNORM, .in = { x, gain, bias } }, x->ndim, x->shape);
}

// ---- linear: y[N,O] = x[N,I] W[I,O] + b[O]        dx = dy W^T (reads W, frozen or not), dW = x^T dy (reads x),
//                                                   db = column sums of dy
// The first two are matmul's own gradients.

static void linear_forward(const Node *n, real *y, Part part)
{
    const Tensor *x = n->in[0], *W = n->in[1];
    int N = (int)rows_of(x), I = last_dim(x), O = last_dim(W);
    matmul((Matmul){ .m = N, .n = O, .k = I, .a = matrix(x->data, I), .b = matrix(W->data, O),
                     .scale = 1, .start = n->in[2]->data, .start_row = 0, .c = y, .c_row = O, .work = work_of(n, part) }, part);
}

Tensor *op_linear(Tape *tape, Tensor *x, Tensor *W, Tensor *b)
{
    check(W->ndim == 2 && last_dim(x) == W->shape[0], "linear: %s %s and %s %s do not fit: W is [inputs, outputs]", x->name,
          shape_text(x), W->name, shape_text(W));
    check(b->ndim == 1 && b->size == W->shape[1], "linear: bias %s %s does not fit %s %s", b->name, shape_text(b), W->name,
          shape_text(W));
    int shape[MAX_DIMS];
    with_last_dim(shape, x, last_dim(W));
    return record(tape, (Node){ .op = OP_LINEAR, .in = { x, W, b } }, x->ndim, shape);
}

// ---- lm_head: y[N,V] = x[N,C] wte[V,C]^T        dx = dy wte, dwte = dy^T x

static void lm_head_forward(const Node *n, real *y, Part part)
{
    const Tensor *x = n->in[0], *wte = n->in[1];
    int N = (int)rows_of(x), C = last_dim(x), V = wte->shape[0];
    matmul((Matmul){ .m = N, .n = V, .k = C, .a = matrix(x->data, C), .b = transposed(wte->data, C),
                     .scale = 1, .c = y, .c_row = V, .work = work_of(n, part) }, part);
}

static void lm_head_grad_x(const Node *n, const real *dy, real *dx, Part part)
{
    const Tensor *x = n->in[0], *wte = n->in[1];
    int N = (int)rows_of(x), C = last_dim(x), V = wte->shape[0];
    // task H8 (3 points): the tied head, the gradient of its input
    matmul((Matmul){ .m = N, .n = C, .k = V, .a = matrix(dy, V), .b = matrix(wte->data, C),
                     .scale = 1, .start = n->first ? NULL : dx, .start_row = C, .c = dx, .c_row = C,
                     .work = work_of(n, part) }, part);
    // end task
}

static void lm_head_grad_wte(const Node *n, const real *dy, real *dwte, Part part)
{
    const Tensor *x = n->in[0], *wte = n->in[1];
    int N = (int)rows_of(x), C = last_dim(x), V = wte->shape[0];
    // task H9 (3 points): the tied head, the gradient of its matrix
    matmul((Matmul){ .m = V, .n = C, .k = N, .a = transposed(dy, V), .b = matrix(x->data, C),
                     .scale = 1, .start = n->first ? NULL : dwte, .start_row = C, .c = dwte, .c_row = C,
                     .work = work_of(n, part) }, part);
    // end task
}

static long lm_head_workspace(const Node *n)
{
    int N = (int)rows_of(n->in[0]), C = last_dim(n->in[0]), V = n->in[1]->shape[0];
    return larger(matmul_scratch(V, C), larger(matmul_scratch(C, V), matmul_scratch(C, N)));
}

static long lm_head_flops(const Node *n) { return 2 * n->in[0]->size * n->in[1]->shape[0]; }

Tensor *op_lm_head(Tape *tape, Tensor *x, Tensor *wte)
{
    check(wte->ndim == 2 && last_dim(x) == wte->shape[1], "lm_head: %s %s and %s %s differ in width", x->name, shape_text(x),
          wte->name, shape_text(wte));
    int shape[MAX_DIMS];
    with_last_dim(shape, x, wte->shape[0]);
    return record(tape, (Node){ .op = OP_LM_HEAD, .in = { x, wte } }, x->ndim, shape);
}

// ---- attention: for each of B*H heads, with q, k, v [T,D] and scale = 1/sqrt(D):
//          S = scale q k^T [T,T];   P[t,j] = e^(S[t,j] - max_t) / sum_t for j <= t, else 0;   y = P v
//      dv = P^T dy;   dP = dy v^T;   dS[t,j] = P[t,j] (dP[t,j] - sum_k dP[t,k] P[t,k]);   dq = scale dS k;   dk = scale dS^T q
//
// A part owns whole heads and takes QUERIES rows of S at a time, so no T x T matrix exists; the products leave out the tiles
// above the diagonal. saved: max_t and 1 / sum_t of each row, from which the gradient makes P again: 2 numbers a row, not T.

enum { QUERIES = 64 }; // more use a packed key longer; fewer take less room

typedef struct Head { int T, C, D; long row; const real *q, *k, *v, *stats; } Head; // q, k, v [T,D] with rows `row` apart

static Head head_of(const Node *n, long index)
{
    int T = n->in[0]->shape[1], C = last_dim(n->out), D = C / n->heads;
    const real *q = n->in[0]->data + index / n->heads * T * 3 * C + index % n->heads * D;
    return (Head){ T, C, D, 3 * C, q, q + C, q + 2 * C, n->saved ? n->saved + index * T * 2 : NULL };
}

static const Part whole = { 0, 1 };

static int whole_lanes(int count) { return (count + LANES - 1) / LANES * LANES; }
static long block_room(int T) { return (long)(T < QUERIES ? T : QUERIES) * whole_lanes(T); } // of the largest block of scores

// A block of queries, from t0 on: rows x keys scores, each row in whole lanes, so that loops over it need no rest
typedef struct Block { int t0, rows, keys, row; } Block;

static Block block_at(const Head *h, int t0)
{
    int rows = h->T - t0 < QUERIES ? h->T - t0 : QUERIES;
    return (Block){ t0, rows, t0 + rows, whole_lanes(t0 + rows) };
}

static int last_block(const Head *h) { return (h->T - 1) / QUERIES * QUERIES; }

// S[rows,keys] = scale q k^T, where a query sees the key
static void scores(const Head *h, Block b, Matrix q, Matrix k, real scale, real *S, real *work)
{
    matmul((Matmul){ .m = b.rows, .n = b.keys, .k = h->D, .a = q, .b = k, .scale = scale, .c = S, .c_row = b.row,
                     .triangle = LOWER_C, .diagonal = b.t0, .work = work }, whole);
}

// What follows a row's first `seen` scores in their last lanes becomes `value`: a query does not see those keys, and
// e^-infinity is 0. All lanes at once: after single stores, the next load of them all would wait.
static void hide(real *row, int seen, real value)
{
    int begin = (seen - 1) / LANES * LANES;
    VECTOR_LOOP for (int l = 0; l < LANES; l++) row[begin + l] = begin + l < seen ? row[begin + l] : value;
}

static void attention_forward(const Node *n, real *y, Part part)
{
    Share s = share(part, (long)n->out->shape[0] * n->heads, 1);
    for (long index = s.begin; index < s.end; index++) {
        Head h = head_of(n, index);
        real *S = work_of(n, part), *work = S + block_room(h.T);
        for (int t0 = n->from; t0 < h.T; t0 += QUERIES) {
            Block b = block_at(&h, t0);
            scores(&h, b, matrix(h.q + t0 * h.row, h.row), transposed(h.k, h.row), 1 / (real)sqrt((double)h.D), S, work);
            for (int i = 0; i < b.rows; i++) {
                real *row = S + (long)i * b.row;
                int seen = t0 + i + 1, lanes = whole_lanes(seen); // a position sees itself and what came before
                hide(row, seen, -(real)INFINITY);
                real max = max_of(row, lanes), scale = 1 / exponentials(row, lanes, max);
                for (int j = 0; j < lanes; j++) row[j] *= scale;
                for (int j = lanes; j < b.row; j++) row[j] = 0;
                if (n->saved) {
                    n->saved[2 * (index * h.T + t0 + i)] = max;
                    n->saved[2 * (index * h.T + t0 + i) + 1] = scale;
                }
            }
            matmul((Matmul){ .m = b.rows, .n = h.D, .k = b.keys, .a = matrix(S, b.row), .b = matrix(h.v, h.row),
                             .scale = 1, .c_row = h.C,
                             .c = y + (index / n->heads * (h.T - n->from) + t0 - n->from) * h.C + index % n->heads * h.D,
                             .triangle = LOWER_A, .diagonal = t0, .work = work }, whole);
        }
    }
}

static void attention_grad(const Node *n, const real *dy, real *dqkv, Part part)
{
    // task H7 (15 points): causal attention, its gradient
    Share s = share(part, (long)n->out->shape[0] * n->heads, 1);
    for (long index = s.begin; index < s.end; index++) {
        Head h = head_of(n, index);
        real scale = 1 / (real)sqrt((double)h.D);
        real *dq = dqkv + (h.q - n->in[0]->data), *dk = dq + h.C, *dv = dq + 2 * h.C;
        real *P = work_of(n, part), *dS = P + block_room(h.T), *work = dS + block_room(h.T);
        for (int t0 = last_block(&h); t0 >= 0; t0 -= QUERIES) { // the last one, which sees all keys, may store dk and dv
            Block b = block_at(&h, t0);
            bool first = n->first, last = b.keys == h.T;
            const real *g = dy + (index / n->heads * h.T + t0) * h.C + index % n->heads * h.D; // dy of this head, rows C apart
            Matrix q = matrix(h.q + t0 * h.row, h.row), dY = matrix(g, h.C);
            scores(&h, b, q, transposed(h.k, h.row), scale, P, work);
            scores(&h, b, dY, transposed(h.v, h.row), 1, dS, work); // dP = dy v^T
            for (int i = 0; i < b.rows; i++) {
                real *p = P + (long)i * b.row, *ds = dS + (long)i * b.row;
                real max = h.stats[2 * (t0 + i)], inverse = h.stats[2 * (t0 + i) + 1];
                int seen = t0 + i + 1, lanes = whole_lanes(seen);
                hide(p, seen, -(real)INFINITY);
                hide(ds, seen, 0);
                for (int j = 0; j < lanes; j++) p[j] = fast_exp(p[j] - max) * inverse;
                for (int j = lanes; j < b.row; j++) p[j] = ds[j] = 0;
                real mean = dot(ds, p, lanes);
                for (int j = 0; j < lanes; j++) ds[j] = p[j] * (ds[j] - mean);
            }
            matmul((Matmul){ .m = b.keys, .n = h.D, .k = b.rows, .a = transposed(P, b.row), .b = dY,
                             .scale = 1, .start = first && last ? NULL : dv, .start_row = h.row, .c = dv, .c_row = h.row,
                             .triangle = UPPER_A, .diagonal = t0, .work = work }, whole);
            matmul((Matmul){ .m = b.rows, .n = h.D, .k = b.keys, .a = matrix(dS, b.row), .b = matrix(h.k, h.row),
                             .scale = scale, .start = first ? NULL : dq + t0 * h.row, .start_row = h.row, .c = dq + t0 * h.row,
                             .c_row = h.row, .triangle = LOWER_A, .diagonal = t0, .work = work }, whole);
            matmul((Matmul){ .m = b.keys, .n = h.D, .k = b.rows, .a = transposed(dS, b.row), .b = q,
                             .scale = scale, .start = first && last ? NULL : dk, .start_row = h.row, .c = dk, .c_row = h.row,
                             .triangle = UPPER_A, .diagonal = t0, .work = work }, whole);
        }
    }
    // end task
}

// Two products of 2D over the pairs of a query and a key that it sees, in every head: T(T+1)/2 if all are queries
static long attention_flops(const Node *n)
{
    long T = n->in[0]->shape[1], from = n->from;
    return n->out->shape[0] * (T * (T + 1) - from * (from + 1)) / 2 * 4 * last_dim(n->out);
}

static long attention_saved(const Node *n) { return 2l * n->out->shape[0] * n->heads * n->out->shape[1]; }
static long attention_workspace(const Node *n) // two blocks, of P and of dS, and what the products need
{
    int T = n->in[0]->shape[1], D = last_dim(n->out) / n->heads;
    return 2 * block_room(T) + larger(matmul_scratch(T, D), matmul_scratch(D, T));
}

static Tensor *attention(Tape *tape, Tensor *qkv, int heads, int from)
{
    check(qkv->ndim == 3 && heads > 0 && last_dim(qkv) % (3 * heads) == 0,
          "attention: %s %s is not [B, T, 3 x %d heads x D]", qkv->name, shape_text(qkv), heads);
    check(from >= 0 && from < qkv->shape[1], "attention: no position %d in %s %s", from, qkv->name, shape_text(qkv));
    return record(tape, (Node){ .op = OP_ATTENTION, .in = { qkv }, .heads = heads, .from = from },
                  SHAPE(qkv->shape[0], qkv->shape[1] - from, last_dim(qkv) / 3));
}

Tensor *op_attention(Tape *tape, Tensor *qkv, int heads) { return attention(tape, qkv, heads, 0); }
Tensor *op_attention_from(Tensor *qkv, int heads, int from) { return attention(NULL, qkv, heads, from); }

// ---- gelu: y = 0.5 x (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3); the same as y = x s with s = 1 / (1 + e^(-2u))
//      dL/dx = dy (s + x s (1 - s) 2 du/dx), du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x^2)

#define SQRT_2_PI ((real)0.7978845608028654)
#define CUBIC     ((real)0.044715)

static void gelu_forward(const Node *n, real *y, Part part)
{
    const real *x = n->in[0]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = x[i] / (1 + fast_exp(-2 * SQRT_2_PI * (x[i] + CUBIC * x[i] * x[i] * x[i])));
}

enum { FEW = 256 }; // slopes at a time

static void gelu_grad(const Node *n, const real *dy, real *dx, Part part)
{
    // task H1 (5 points): GELU, its gradient
    const real *x = n->in[0]->data;
    Share s = elements(n, part);
    for (long few = s.begin; few < s.end; few += FEW) {
        long count = few + FEW < s.end ? FEW : s.end - few;
        real slope[FEW];
        for (long i = 0; i < count; i++) {
            real value = x[few + i], sigmoid = 1 / (1 + fast_exp(-2 * SQRT_2_PI * (value + CUBIC * value * value * value)));
            slope[i] = sigmoid + value * sigmoid * (1 - sigmoid) * 2 * SQRT_2_PI * (1 + 3 * CUBIC * value * value);
        }
        if (n->first) for (long i = 0; i < count; i++) dx[few + i] *= slope[i]; // dx is dy
        else for (long i = 0; i < count; i++) dx[few + i] += slope[i] * dy[few + i];
    }
    // end task
}

Tensor *op_gelu(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = OP_GELU, .in = { x } }, x->ndim, x->shape);
}

// ---- dropout: y[i] = x[i] / (1 - p) if element i is kept, else 0        dL/dx[i] = the same factor times dy[i]

static real dropout_factor(const Node *n, long i)
{
    return random_uniform(n->seed, (uint64_t)i) < (double)n->scalar ? 0 : 1 / (1 - n->scalar);
}

static void dropout_forward(const Node *n, real *y, Part part)
{
    const real *x = n->in[0]->data;
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) y[i] = dropout_factor(n, i) * x[i];
}

static void dropout_grad(const Node *n, const real *dy, real *dx, Part part)
{
    Share s = elements(n, part);
    for (long i = s.begin; i < s.end; i++) dx[i] += dropout_factor(n, i) * dy[i];
}

Tensor *op_dropout(Tape *tape, Tensor *x, real p)
{
    check(p >= 0 && p < 1, "dropout: the probability %g is not in [0, 1)", (double)p);
    uint64_t seed = tape ? random_bits(tape->dropout_seed, (uint64_t)tape->dropout_calls++) : 0;
    return record(tape, (Node){ .op = OP_DROPOUT, .in = { x }, .scalar = tape ? p : 0, .seed = seed }, x->ndim, x->shape);
}

// ---- cross_entropy: y[r] = log(sum_k e^x[r,k]) - x[r,target]        dL/dx[r,k] = dy[r] (softmax(x[r])[k] - (k == target))
//
// saved: the row's max and 1 / sum_k e^(x - max), as in attention.

static void cross_entropy_forward(const Node *n, real *y, Part part)
{
    int V = last_dim(n->in[0]);
    Share s = rows(n, part);
    for (long r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * V;
        real max = max_of(x, V), lane[LANES] = { 0 };
        int k = 0;
        for (; k + LANES <= V; k += LANES)
            for (int l = 0; l < LANES; l++) lane[l] += fast_exp(x[k + l] - max);
        for (; k < V; k++) lane[k % LANES] += fast_exp(x[k] - max);
        real sum = fold_lanes(lane);
        y[r] = (real)log((double)sum) + max - x[n->ids[r]];
        if (n->saved) {
            n->saved[2 * r] = max;
            n->saved[2 * r + 1] = 1 / sum;
        }
    }
}

static void cross_entropy_grad(const Node *n, const real *dy, real *dx, Part part)
{
    // task H6 (5 points): softmax with cross-entropy, its gradient
    int V = last_dim(n->in[0]);
    Share s = rows(n, part);
    for (long r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * V;
        real max = n->saved[2 * r], factor = n->saved[2 * r + 1] * dy[r];
        begin(n, dx + r * V, V);
        for (int k = 0; k < V; k++) dx[r * V + k] += fast_exp(x[k] - max) * factor;
        dx[r * V + n->ids[r]] -= dy[r];
    }
    // end task
}

Tensor *op_cross_entropy(Tape *tape, Tensor *logits, const int *targets)
{
    int V = last_dim(logits);
    for (long r = 0; r < rows_of(logits); r++)
        check(targets[r] >= 0 && targets[r] < V, "cross_entropy: target %d at row %ld is not in 0..%d", targets[r], r, V - 1);
    // rows() counts rows of the result: [N,1]
    return record(tape, (Node){ .op = OP_CROSS_ENTROPY, .in = { logits }, .ids = targets }, SHAPE((int)rows_of(logits), 1));
}

// ---- matmul_add: out = y + s h B        dL/dy = dy (taken over), dL/dh = s dy B^T, dL/dB = s h^T dy

static void matmul_add_forward(const Node *n, real *out, Part part)
{
    const Tensor *h = n->in[1], *B = n->in[2];
    int N = (int)rows_of(h), R = last_dim(h), O = last_dim(B);
    matmul((Matmul){ .m = N, .n = O, .k = R, .a = matrix(h->data, R), .b = matrix(B->data, O),
                     .scale = n->scalar, .start = n->in[0]->data, .start_row = O, .c = out, .c_row = O,
                     .work = work_of(n, part) }, part);
}

static void matmul_add_grad_h(const Node *n, const real *dy, real *dh, Part part)
{
    const Tensor *h = n->in[1], *B = n->in[2];
    int N = (int)rows_of(h), R = last_dim(h), O = last_dim(B);
    // task L2.4 (3 points): s h B, the gradient of h
    matmul((Matmul){ .m = N, .n = R, .k = O, .a = matrix(dy, O), .b = transposed(B->data, O),
                     .scale = n->scalar, .start = n->first ? NULL : dh, .start_row = R, .c = dh, .c_row = R,
                     .work = work_of(n, part) }, part);
    // end task
}

static void matmul_add_grad_B(const Node *n, const real *dy, real *dB, Part part)
{
    const Tensor *h = n->in[1], *B = n->in[2];
    int N = (int)rows_of(h), R = last_dim(h), O = last_dim(B);
    // task L2.5 (3 points): s h B, the gradient of B
    matmul((Matmul){ .m = R, .n = O, .k = N, .a = transposed(h->data, R), .b = matrix(dy, O),
                     .scale = n->scalar, .start = n->first ? NULL : dB, .start_row = O, .c = dB, .c_row = O,
                     .work = work_of(n, part) }, part);
    // end task
}

static long matmul_add_workspace(const Node *n)
{
    return products_scratch((int)rows_of(n->in[1]), last_dim(n->in[1]), last_dim(n->in[2]));
}

static long matmul_add_flops(const Node *n) { return 2 * n->in[1]->size * last_dim(n->in[2]); }

Tensor *op_matmul_add(Tape *tape, Tensor *y, Tensor *h, Tensor *B, real s)
{
    check(B->ndim == 2 && last_dim(h) == B->shape[0] && last_dim(y) == B->shape[1] && rows_of(y) == rows_of(h),
          "matmul_add: %s %s + %s %s x %s %s do not fit",
          y->name, shape_text(y), h->name, shape_text(h), B->name, shape_text(B));
    Node n = { .op = OP_MATMUL_ADD, .in = { y, h, B }, .scalar = s };
    bool in_place = y->kind == MEMORY_LIVE_ACTIVATIONS; // no node keeps the old value, and the caller gives up its handle
    Tensor *out = record_into(tape, n, in_place ? y->data : NULL, y->ndim, y->shape);
    if (in_place) tensor_hand_over(y);
    else tensor_drop(y);
    return out;
}

// ---- recompute: y = block(x), keeping x alone
//
// Forward runs the block on a tape of its own and throws that away; backward runs it again, seeded with dy. This is the one op
// whose gradient records, on the inner tape, and never on the outer one.

static void add_counts(Counts *to, const Counts *from)
{
    for (int op = 0; op < OP_KINDS; op++)
        for (int p = 0; p < PHASES; p++) {
            to->work[op][p].kernels += from->work[op][p].kernels;
            to->work[op][p].flops += from->work[op][p].flops;
            to->work[op][p].seconds += from->work[op][p].seconds;
        }
    to->dgrad += from->dgrad;
    to->wgrad += from->wgrad;
    to->wgrad_skipped += from->wgrad_skipped;
    to->wgrad_never_recorded += from->wgrad_never_recorded;
    to->adapter_gradients += from->adapter_gradients;
}

// Runs the block on the inner tape, counted into `tape`; returns its result, still on the inner tape.
static Tensor *run_block(const Node *n, Tape *tape, bool replaying)
{
    if (tape->inner == NULL) tape->inner = tape_new();
    Tape *inner = tape->inner;
    inner->counts = (Counts){ 0 };
    inner->dropout_seed = tape->dropout_seed;
    inner->dropout_calls = n->first_call;
    inner->replaying = replaying;
    inner->trace = tape->trace;
    inner->cut = tape->cut;
    return n->block(inner, n->in[0], n->context);
}

static void run_recompute(Tape *tape, Node *n)
{
    Tensor *y = run_block(n, tape, true);
    check(y->requires_grad && same_shape(y, n->out), "recompute: the block gave %s %s, and %s the first time", y->name,
          shape_text(y), shape_text(n->out));
    y->grad = n->out->grad;
    n->out->grad = NULL;
    tensor_drop(y);
    run_backward(tape->inner); // adds to x->grad and to the gradients of the leaves inside
    add_counts(&tape->counts, &tape->inner->counts);
    tape_clear(tape->inner);
}

static void recompute_forward(const Node *n, real *y, Part part) { (void)n, (void)y, (void)part; } // op_recompute has done it

Tensor *op_recompute(Tape *tape, Tensor *(*block)(Tape *tape, Tensor *x, void *context), void *context, Tensor *x, bool trains)
{
    if (tape == NULL) return block(NULL, x, context);
    Node n = { .op = OP_RECOMPUTE, .in = { x }, .trains = trains, .first_call = tape->dropout_calls, .block = block,
               .context = context };
    Tensor *y = run_block(&n, tape, tape->replaying);
    Tape *inner = tape->inner;
    add_counts(&tape->counts, &inner->counts);
    tape->dropout_calls = inner->dropout_calls;
    release_nodes(inner); // only the caller's handle of y is left, and its buffer becomes the result's
    int ndim = y->ndim, shape[MAX_DIMS];
    memcpy(shape, y->shape, sizeof shape);
    real *buffer = tensor_hand_over(y);
    tape_clear(inner);
    return record_into(tape, n, buffer, ndim, shape);
}

// ------------------------------------------------------------------------------------------------------------- the op table
// One gradient per input; beside each, the data that it reads and its FLOPs in units of forward's.

const Op ops[OP_KINDS] = {
    [OP_ADD] = { .name = "add", .forward = add_forward,
        .input = { { pass_on, KEEP_NONE, 0, IN_PLACE }, { pass_on, KEEP_NONE, 0, STORES } } },
    [OP_SUB] = { .name = "sub", .forward = sub_forward,
        .input = { { pass_on, KEEP_NONE, 0, IN_PLACE }, { sub_grad_b, KEEP_NONE, 0, ADDS } } },
    [OP_MUL] = { .name = "mul", .forward = mul_forward,
        .input = { { mul_grad_a, KEEP(1), 0, ADDS }, { mul_grad_b, KEEP(0), 0, ADDS } } },
    [OP_SCALE] = { .name = "scale", .forward = scale_forward, .input = { { scale_grad, KEEP_NONE, 0, ADDS } } },
    [OP_ADD_SCALED] = { .name = "add_scaled", .forward = add_scaled_forward,
        .input = { { pass_on, KEEP_NONE, 0, IN_PLACE }, { scale_grad, KEEP_NONE, 0, ADDS } } },
    [OP_RELU] = { .name = "relu", .forward = relu_forward, .input = { { relu_grad, KEEP_OUT, 0, ADDS } } },
    [OP_TANH] = { .name = "tanh", .forward = tanh_forward, .input = { { tanh_grad, KEEP_OUT, 0, ADDS } } },
    [OP_EXP] = { .name = "exp", .forward = exp_forward, .input = { { exp_grad, KEEP_OUT, 0, ADDS } } },
    [OP_SUM] = { .name = "sum", .forward = sum_forward, .input = { { sum_grad, KEEP_NONE, 0, ADDS } } },
    [OP_MEAN] = { .name = "mean", .forward = mean_forward, .input = { { mean_grad, KEEP_NONE, 0, ADDS } } },
    [OP_SOFTMAX] = { .name = "softmax", .forward = softmax_forward, .input = { { softmax_grad, KEEP_OUT, 0, ADDS } } },
    [OP_MATMUL] = { .name = "matmul", .forward = matmul_forward, .input = {
        { matmul_grad_a, KEEP(1), 1, STORES },              // da = dy b^T
        { matmul_grad_b, KEEP(0), 1, STORES },              // db = a^T dy
    }, .flops = matmul_flops, .workspace = matmul_workspace },

    [OP_EMBEDDING] = { .name = "embedding", .forward = embedding_forward,
        .input = { { embedding_grad_wte, KEEP_NONE, 0, ADDS }, { embedding_grad_wpe, KEEP_NONE, 0, ADDS } } },
    [OP_LAYERNORM] = { .name = "layernorm", .forward = layernorm_forward, .input = {
        { layernorm_grad_x, KEEP(0) | KEEP(1) | KEEP_SAVED, 0, STORES },
        { layernorm_grad_gain, KEEP(0) | KEEP_SAVED, 0, ADDS },
        { bias_grad, KEEP_NONE, 0, ADDS },
    }, .saved = two_per_row },
    [OP_LINEAR] = { .name = "linear", .forward = linear_forward, .input = {
        { matmul_grad_a, KEEP(1), 1, STORES },              // dX = dY W^T : reads W, frozen or not
        { matmul_grad_b, KEEP(0), 1, STORES },              // dW = X^T dY : reads X
        { bias_grad, KEEP_NONE, 0, ADDS },                  // db = column sums of dY
    }, .flops = matmul_flops, .workspace = matmul_workspace, .weight = 1 },
    [OP_LM_HEAD] = { .name = "lm_head", .forward = lm_head_forward, .input = {
        { lm_head_grad_x, KEEP(1), 1, STORES },
        { lm_head_grad_wte, KEEP(0), 1, STORES },
    }, .flops = lm_head_flops, .workspace = lm_head_workspace, .weight = 1 },
    [OP_ATTENTION] = { .name = "attention", .forward = attention_forward, .input = {
        { attention_grad, KEEP(0) | KEEP_SAVED, 2, STORES },// four products where forward has two
    }, .flops = attention_flops, .saved = attention_saved, .workspace = attention_workspace },
    [OP_GELU] = { .name = "gelu", .forward = gelu_forward, .input = { { gelu_grad, KEEP(0), 0, IN_PLACE } } },
    [OP_DROPOUT] = { .name = "dropout", .forward = dropout_forward, .input = { { dropout_grad, KEEP_NONE, 0, ADDS } } },
    [OP_CROSS_ENTROPY] = { .name = "cross_entropy", .forward = cross_entropy_forward,
        .input = { { cross_entropy_grad, KEEP(0) | KEEP_SAVED, 0, STORES } }, .saved = two_per_row },

    [OP_MATMUL_ADD] = { .name = "matmul_add", .forward = matmul_add_forward, .input = {
        { pass_on, KEEP_NONE, 0, IN_PLACE },                // dy: LoRA's path beside the frozen weight
        { matmul_add_grad_h, KEEP(2), 1, STORES },          // dh = s dy B^T
        { matmul_add_grad_B, KEEP(1), 1, STORES },          // dB = s h^T dy
    }, .flops = matmul_add_flops, .workspace = matmul_add_workspace },
    [OP_RECOMPUTE] = { .name = "recompute", .forward = recompute_forward,
        .input = { { NULL, KEEP(0), 0, ADDS } } },             // its gradient: run_recompute
};
