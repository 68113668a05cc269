// runner.c - runs one task's exercise with the code that is linked to it, and hands the raw numbers to whoever asked. It judges nothing
// and knows no expected value: grade.c starts it in a process with limits, and compares.
//
//     runner TASK SEED [FD]      writes its answers to the file descriptor FD; without one, as text

#include "answer.h"

#include "adamw.h"
#include "chain.h"
#include "claims.h"
#include "found.h"
#include "transformer.h"

static void answer_grad(const char *name, const Tensor *t) { answer(name, t->grad, t->size); }

static Tensor *leaf(const char *name, uint64_t seed, int array, bool requires_grad, int ndim, const int *shape)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, ndim, shape);
    for (long i = 0; i < t->size; i++) t->data[i] = number_of(seed, array, i);
    t->requires_grad = requires_grad;
    return t;
}

// ---- one gradient kernel, on arrays with a margin of known words on both sides

enum { MARGIN = 32 };
#define CANARY 1.2345678901234567e77

static double *guarded(long count)
{
    double *buffer = memory_take(MEMORY_WORKSPACE, count + 2 * MARGIN);
    for (long i = 0; i < count + 2 * MARGIN; i++) buffer[i] = CANARY;
    return buffer + MARGIN;
}

static double intact(const double *buffer, long count)
{
    for (long i = 0; i < MARGIN; i++)
        if (buffer[i - MARGIN] != CANARY || buffer[count + i] != CANARY) return 0;
    return 1;
}

static void run_one(const Kernel *k, uint64_t seed, Way way)
{
    static const char *const names[WAYS] = { "first", "again", "in parts" };
    const Op *op = &ops[k->op];
    Problem p = problem_of(k->op, seed);
    Node n = { .op = k->op, .ids = p.targets, .scalar = p.scalar, .heads = p.heads, .first = way != AGAIN };
    for (int i = 0; i < 3 && p.ndim[i] > 0; i++) n.in[i] = leaf("input", seed, i, true, p.ndim[i], p.shape[i]);
    n.out = leaf("output", seed, 5, true, p.ndim[3], p.shape[3]);
    int parts = way == IN_PARTS ? PARTS : 1;
    if (op->saved) n.saved = guarded(op->saved(&n));
    if (op->workspace && op->workspace(&n) > 0) n.work = guarded(parts * op->workspace(&n));
    op->forward(&n, n.out->data, (Part){ 0, 1 });

    long count = count_of(&p, k->input), outputs = count_of(&p, 3);
    double *dx = guarded(count), *dy = guarded(outputs);
    for (long i = 0; i < outputs; i++) dy[i] = number_of(seed, 3, i);
    FirstGradient kind = op->input[k->input].first;
    for (long i = 0; i < count; i++) // what is there before: a gradient; or zeros, the output's own, or nothing
        dx[i] = !n.first ? number_of(seed, 4, i) : kind == ADDS ? 0 : kind == IN_PLACE ? dy[i] : (double)NAN;
    for (int part = 0; part < parts; part++)
        op->input[k->input].grad(&n, n.first && kind == IN_PLACE ? dx : dy, dx, (Part){ part, parts });
    answer(names[way], dx, count);
    double whole = intact(dx, count) * intact(dy, outputs);
    for (long i = 0; i < outputs && !(n.first && kind == IN_PLACE); i++) whole *= dy[i] == number_of(seed, 3, i);
    answer("margins", &whole, 1);
}

static bool run_kernels(const char *task, uint64_t seed)
{
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (strcmp(kernels[i].task, task) == 0) {
            for (int way = 0; way < WAYS; way++) run_one(&kernels[i], seed_of(seed, way), (Way)way);
            return true;
        }
    return false;
}

// ---- L1.1

static void run_chain(uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        Chain c = { number_of(seed, 0, i), number_of(seed, 1, i), number_of(seed, 2, i), number_of(seed, 3, i) };
        Chain gradient = chain_gradient(c);
        answer("chain", (double[]){ gradient.x, gradient.w, gradient.b, gradient.t }, 4);
    }
}

// ---- L1.4: elementwise ops only, which are given

static void run_backward_once(uint64_t seed, const char *which)
{
    int N = size_of(seed, 0), C = size_of(seed, 1);
    Tape *tape = tape_new();
    Tensor *x = leaf("x", seed, 0, which[0] != 'f', SHAPE(N, C)), *w = leaf("w", seed, 1, true, SHAPE(N, C));
    Tensor *frozen = leaf("frozen", seed, 2, false, SHAPE(N, C)), *v = leaf("v", seed, 3, true, SHAPE(N, C));
    memory_reset_peaks();
    for (int pass = 0; pass < (strcmp(which, "twice") == 0 ? 2 : 1); pass++) {
        Tensor *loss;
        if (which[0] == 's') {        // several uses: a = tanh(x w), sum(2 a + 5 a w)
            Tensor *a = op_tanh(tape, op_mul(tape, x, w));
            loss = op_sum(tape, op_add(tape, op_scale(tape, a, 2), op_scale(tape, op_mul(tape, a, w), 5)));
        } else if (which[0] == 'f') { // frozen in the middle: sum(tanh(x w) frozen v)
            loss = op_sum(tape, op_mul(tape, op_mul(tape, op_tanh(tape, op_mul(tape, x, w)), frozen), v));
        } else loss = op_sum(tape, op_tanh(tape, op_mul(tape, x, w)));
        backward(tape, loss);
    }
    answer_grad("x", x);
    answer_grad("w", w);
    answer_grad("frozen", frozen);
    answer_grad("v", v);
    long facts[] = { counts_phase(&tape->counts, PHASE_DGRAD).kernels, counts_phase(&tape->counts, PHASE_WGRAD).kernels,
                     ledger.own_peak[MEMORY_PARAMETER_GRADIENTS], ledger.live[MEMORY_KEPT_ACTIVATIONS],
                     ledger.live[MEMORY_ACTIVATION_GRADIENTS], tape->count };
    answer_longs("facts", facts, 6);
    tape_free(tape);
    Tensor *leaves[] = { x, w, frozen, v };
    for (int i = 0; i < 4; i++) tensor_drop(leaves[i]);
}

// ---- Lab 2

static void run_init(uint64_t seed)
{
    for (int i = 0; i < 3; i++) { // the third with the first one's seed
        int I = 13 * size_of(seed, 0), O = size_of(seed, 1), R = size_of(seed, 2);
        Lora lora = lora_new("lora", I, O, R, 1.5, seed_of(seed, i % 2));
        answer("A", lora.A->data, lora.A->size);
        answer("B", lora.B->data, lora.B->size);
        answer_longs("flags", (long[]){ lora.A->requires_grad, lora.B->requires_grad }, 2);
        lora_free(&lora);
    }
}

static void run_scale(uint64_t seed)
{
    char error[256];
    int ranks[4] = { pick(seed, 0, 2, 9), pick(seed, 1, 2, 9), 0, pick(seed, 3, 10, 12) };
    double alpha = pick(seed, 4, 3, 40);
    Config config = { 5, 4, 4, 1, 3, 0 };
    for (int way = 0; way < 3; way++) {
        Transformer *model = transformer_new(config, 1, error, sizeof error);
        LoraConfig lora = { .r = ranks[way == 2], .alpha = alpha, .targets = way == 1 ? 15 : 1, .last_block = -1,
                            .r_by_block = way == 1 ? ranks : NULL, .rank_stabilized = way == 2 };
        Adapter *adapter = transformer_add_adapter(model, "lora", lora, 1, error, sizeof error);
        check(adapter != NULL, "%s", error);
        double scales[4 * LINEARS];
        for (int i = 0; i < 4 * LINEARS; i++) scales[i] = adapter->lora[i].A ? adapter->lora[i].scale : 0;
        answer("scales", scales, 4 * LINEARS);
        transformer_free(model);
    }
}

typedef struct Layer { Linear linear; Lora lora; } Layer;

static Layer layer_of(uint64_t seed, bool masked)
{
    int I = size_of(seed, 1), O = size_of(seed, 2), R = size_of(seed, 3);
    Layer l = { .linear = { leaf("W", seed, 1, false, SHAPE(I, O)), leaf("b", seed, 2, false, SHAPE(O)), NULL, NULL },
                .lora = { leaf("A", seed, 3, true, SHAPE(I, R)), leaf("B", seed, 4, true, SHAPE(R, O)), 1 + number_of(seed, 9, 0) / 2, NULL } };
    if (masked) {
        l.lora.mask = leaf("mask", seed, 5, false, SHAPE(R, O));
        for (long i = 0; i < l.lora.mask->size; i++) l.lora.mask->data[i] = l.lora.mask->data[i] > 0;
    }
    return l;
}

static void run_path(uint64_t seed)
{
    for (int way = 0; way < 3; way++) { // only computing; training; training with a mask
        uint64_t own = seed_of(seed, way);
        int N = size_of(own, 0), I = size_of(own, 1);
        Layer l = layer_of(own, way == 2);
        l.linear.lora = &l.lora;
        Tape *tape = way > 0 ? tape_new() : NULL;
        Tensor *in = leaf("in", own, 0, true, SHAPE(N, I)), *x = op_scale(tape, in, 1);
        memory_reset_peaks();
        Tensor *y = linear_apply(tape, &l.linear, x);
        tensor_drop(x);
        answer("y", y->data, y->size);
        answer_longs("bytes", (long[]){ ledger.live[MEMORY_KEPT_ACTIVATIONS], ledger.live[MEMORY_LIVE_ACTIVATIONS],
                                        ledger.own_peak[MEMORY_LIVE_ACTIVATIONS] }, 3);
        if (tape != NULL) {
            Tensor *g = leaf("g", own, 6, false, y->ndim, y->shape);
            if (y->requires_grad) backward(tape, op_sum(tape, op_mul(tape, y, g)));
            tensor_drop(g);
        } else tensor_drop(y);
        answer_grad("in", in);
        answer_grad("A", l.lora.A);
        answer_grad("B", l.lora.B);
        tape_free(tape);
    }
}

static void run_merge(uint64_t seed)
{
    Layer l = layer_of(seed, false);
    l.linear.lora = &l.lora;
    Tensor *W = l.linear.weight;
    linear_merge(&l.linear);
    answer("merged", W->data, W->size);
    linear_unmerge(&l.linear);
    answer("unmerged", W->data, W->size);
}

static long kept_at[8];
static int kept_count;

static bool note_kept(const Node *n, int input)
{
    (void)n, (void)input;
    if (kept_count < 8) kept_at[kept_count++] = ledger.live[MEMORY_KEPT_ACTIVATIONS];
    return false;
}

static Tensor *block_of_one(Tape *tape, Tensor *x, void *context) { return op_mul(tape, x, context); }

static void run_keeps(uint64_t seed)
{
    int N = size_of(seed, 0), I = size_of(seed, 1), O = size_of(seed, 2);
    Tape *tape = tape_new();
    long kept[16];
    int nodes = 0;
    for (unsigned train = 1; train < 8; train++) { // linear with x, W, b: bits 1, 2, 4 say which require a gradient
        Tensor *x = leaf("x", seed, 0, train & 1, SHAPE(N, I)), *W = leaf("W", seed, 1, train >> 1 & 1, SHAPE(I, O));
        Tensor *b = leaf("b", seed, 2, train >> 2 & 1, SHAPE(O));
        op_linear(tape, x, W, b);
        kept[nodes++] = tape->nodes[tape->count - 1].kept;
        op_layernorm(tape, x, leaf("gain", seed, 3, train >> 1 & 1, SHAPE(I)), leaf("bias", seed, 4, train >> 2 & 1, SHAPE(I)));
        kept[nodes++] = tape->nodes[tape->count - 1].kept;
    }
    Tensor *x = leaf("x", seed, 0, false, SHAPE(N, I)), *w = leaf("w", seed, 1, true, SHAPE(N, I));
    op_recompute(tape, block_of_one, w, x, true);
    kept[nodes++] = tape->nodes[tape->count - 1].kept;
    answer_longs("kept", kept, nodes);
    tape_clear(tape);

    // two linears above one another, the second with a frozen weight: what is held, and when it goes
    Tensor *in = leaf("in", seed, 0, true, SHAPE(N, I)), *W = leaf("W", seed, 1, true, SHAPE(I, O)), *b = leaf("b", seed, 2, false, SHAPE(O));
    Tensor *V = leaf("V", seed, 5, false, SHAPE(O, I)), *c = leaf("c", seed, 4, false, SHAPE(I));
    Tensor *a = op_scale(tape, in, 2), *h = op_linear(tape, a, W, b), *y = op_linear(tape, h, V, c);
    tensor_drop(a);
    tensor_drop(h);
    answer_longs("bytes", (long[]){ ledger.live[MEMORY_KEPT_ACTIVATIONS] }, 1);
    Tensor *g = leaf("g", seed, 6, false, SHAPE(N, I));
    tape->cut = note_kept;
    backward(tape, op_sum(tape, op_mul(tape, y, g)));
    answer_longs("when", kept_at, kept_count);
    answer_grad("in", in);
    answer_grad("W", W);
}

static void run_moments(uint64_t seed)
{
    Tensor *t[TENSORS];
    for (int i = 0; i < TENSORS; i++)
        t[i] = tensor_rows[i] ? leaf("t", seed, i, false, SHAPE(tensor_rows[i], tensor_columns[i])) : leaf("t", seed, i, false, SHAPE(tensor_columns[i]));
    AdamW *optimizer = adamw_new(t, TENSORS, (AdamWConfig){ 0.8, 0.95, 0.1, 0 });
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < TENSORS; i++) {
            t[i]->requires_grad = trains_in[step][i];
            if (!t[i]->requires_grad) { tensor_drop_grad(t[i]); continue; }
            if (t[i]->grad == NULL) t[i]->grad = memory_take(MEMORY_PARAMETER_GRADIENTS, t[i]->size);
            for (long j = 0; j < t[i]->size; j++) t[i]->grad[j] = number_of(seed, 20 + TENSORS * step + i, j);
        }
        adamw_step(optimizer, 0.03);
        for (int i = 0; i < TENSORS; i++) answer("t", t[i]->data, t[i]->size);
        answer_longs("bytes", &ledger.live[MEMORY_MOMENTS], 1);
    }
}

// ---- Lab 3

static void run_claims(uint64_t seed)
{
    for (int i = 0; i < 2; i++) {
        Claims c = measure(lab3_shape(seed, i));
        answer_longs("claims", (long[]){ c.gradient_bytes[0], c.gradient_bytes[1], c.moment_bytes[0], c.moment_bytes[1], c.dgrad[0],
                                         c.dgrad[1], c.wgrad[0], c.wgrad[1], c.reached, c.reached_when_cut }, 10);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = answer_begin(argc, argv);
    const char *task = argv[1];
    parallel_set_threads(1);
    if (run_kernels(task, seed)) ;
    else if (strcmp(task, "L1.1") == 0) run_chain(seed);
    else if (strcmp(task, "L1.4") == 0) {
        run_backward_once(seed_of(seed, 0), "once");
        run_backward_once(seed_of(seed, 1), "several uses");
        run_backward_once(seed_of(seed, 2), "frozen");
        run_backward_once(seed_of(seed, 3), "twice");
    } else if (strcmp(task, "L2.1") == 0) run_init(seed);
    else if (strcmp(task, "L2.2") == 0) run_scale(seed);
    else if (strcmp(task, "L2.3") == 0) run_path(seed);
    else if (strcmp(task, "L2.6") == 0) run_merge(seed);
    else if (strcmp(task, "L2.7") == 0) run_keeps(seed);
    else if (strcmp(task, "L2.8") == 0) run_moments(seed);
    else if (strcmp(task, "L3.2") == 0) run_claims(seed);
    else if (strcmp(task, "L3.3") == 0) answer_longs("right", (long[]){ engine_is_right() }, 1);
    else {
        fprintf(stderr, "runner: there is no task %s\n", task);
        return 2;
    }
    answer_end();
}
