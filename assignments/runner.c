// runner.c - runs one task's exercise with the code that is linked to it, and hands the raw numbers to whoever asked. It judges nothing
// and knows no expected value: judge.c starts it in a process with limits, and the judge compares.
//
//     runner TASK          reads what to draw its exercise from, and writes its answers to descriptor 3 (answer.h)
//     runner TASK SEED     prints them

#include "answer.h"

#include "adamw.h"
#include "adapters.h"
#include "chain.h"
#include "claims.h"
#include "found.h"
#include "meter.h"

static void answer_grad(const char *name, const Tensor *t) { answer(name, t->grad, t->size); }

static Tensor *leaf(const char *name, uint64_t seed, int array, bool requires_grad, int ndim, const int *shape)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, ndim, shape);
    for (int64_t i = 0; i < t->size; i++) t->data[i] = number_of(seed, array, i);
    t->requires_grad = requires_grad;
    return t;
}

// ---- one gradient kernel, on arrays with a margin of known words on both sides

enum { MARGIN = 32 };
#define CANARY 1.2345678901234567e77

static real *guarded(int64_t count)
{
    real *buffer = memory_take(MEMORY_WORKSPACE, count + 2 * MARGIN);
    for (int64_t i = 0; i < count + 2 * MARGIN; i++) buffer[i] = CANARY;
    return buffer + MARGIN;
}

static double intact(const real *buffer, int64_t count)
{
    for (int64_t i = 0; i < MARGIN; i++)
        if (buffer[i - MARGIN] != CANARY || buffer[count + i] != CANARY) return 0;
    return 1;
}

static real *guarded_numbers(uint64_t seed, int array, int64_t count)
{
    real *buffer = guarded(count);
    for (int64_t i = 0; i < count; i++) buffer[i] = number_of(seed, array, i);
    return buffer;
}

static const Op *const op_of[FORMULAS] = {
    [MATMUL] = &matmul_op, [LINEAR] = &linear_op, [MATMUL_ADD] = &matmul_add_op, [LM_HEAD] = &lm_head_op, [LAYERNORM] = &layernorm_op,
    [CROSS_ENTROPY] = &cross_entropy_op, [SOFTMAX] = &softmax_op, [ATTENTION] = &attention_op, [GELU] = &gelu_op,
};

// The node after forward, and dy where backward would have it.
static Node node_of(const Problem *p, const Op *op, uint64_t seed)
{
    Node n = { .op = op, .ids = p->targets, .scalar = p->scalar, .heads = p->heads };
    for (int i = 0; i < 3 && p->ndim[i] > 0; i++) n.in[i] = leaf("input", seed, i, true, p->ndim[i], p->shape[i]);
    n.out = leaf("output", seed, 5, true, p->ndim[3], p->shape[3]);
    if (op->saved) n.saved = guarded(op->saved(&n));
    if (op == &attention_op) scratch_reserve(p->shape[3][1], p->shape[3][2] / p->heads);
    op->forward(&n, WHOLE);
    n.out->grad = guarded_numbers(seed, 3, n.out->size);
    return n;
}

// What is there before is what the engine would have: a gradient; or zeros; or for a product, nothing, and a flag that says so.
static void run_gradient_kernel(const Gradient *g, uint64_t seed, Way way)
{
    static const char *const names[WAYS] = { "first", "again", "in parts" };
    const Op *op = op_of[g->formula];
    Problem p = problem_of(g->formula, seed, way);
    Node n = node_of(&p, op, seed);
    Tensor *in = n.in[g->input];
    bool in_place = op->input[g->input].in_place;
    if (!in_place) {
        in->grad = guarded_numbers(seed, 4, in->size);
        in->grad_empty = way != AGAIN && op->input[g->input].work > 0;
        for (int64_t i = 0; i < in->size && way != AGAIN; i++) in->grad[i] = in->grad_empty ? (real)NAN : 0;
    }
    int parts = way == IN_PARTS ? PARTS : 1;
    const real *dy = n.out->grad, *dx = in_place ? dy : in->grad;
    double wrote[PARTS] = { 0 };
    real *before = memory_take(MEMORY_WORKSPACE, in->size);
    for (int i = 0; i < parts; i++) {
        int part = (i + 2) % parts; // any order will do
        memcpy(before, dx, (size_t)in->size * sizeof *dx);
        op->input[g->input].grad(&n, (Part){ part, parts });
        for (int64_t k = 0; k < in->size; k++) wrote[part] += memcmp(&before[k], &dx[k], sizeof *dx) != 0;
    }
    answer(names[way], dx, in->size);
    answer("wrote", wrote, parts);
    double whole = intact(dx, in->size) * intact(dy, n.out->size);
    for (int64_t i = 0; i < n.out->size && !in_place; i++) whole *= dy[i] == number_of(seed, 3, i);
    answer("margins", &whole, 1);
}

static bool run_gradients(const char *task, uint64_t seed)
{
    for (size_t i = 0; i < sizeof gradients / sizeof *gradients; i++)
        if (strcmp(gradients[i].task, task) == 0) {
            for (int way = 0; way < WAYS; way++)
                if (way != AGAIN || gradients[i].formula != GELU) run_gradient_kernel(&gradients[i], seed_of(seed, way), (Way)way);
            return true;
        }
    return false;
}

// ---- L1.5

static void run_product(uint64_t seed, ProductWay way)
{
    ProductCase c = product_case(seed, way);
    int64_t count = (int64_t)c.m * c.n;
    real *at = guarded_numbers(seed, 4, count), *a = guarded_numbers(seed, 0, (int64_t)c.m * c.k), *b = guarded_numbers(seed, 1, (int64_t)c.k * c.n);
    Matrix A = matrix(a, c.m, c.k), B = matrix(b, c.k, c.n), C = matrix(at, c.m, c.n);
    if (way == TRANSPOSED) A = transposed(matrix(a, c.k, c.m)), B = transposed(matrix(b, c.n, c.k));
    A = scaled(A, c.factor_A), B = scaled(B, c.factor_B);
    if (way == INTO_EMPTY) C = empty(C);
    if (way == FROM_A_ROW) C = starting_from(C, guarded_numbers(seed, 2, c.n));
    for (int64_t i = 0; i < count && way != ADDED; i++) at[i] = C.empty ? (real)NAN : 0;
    product(C, A, B, way == ONE_PART ? (Part){ 1, PARTS } : WHOLE);
    answer(product_names[way], at, count);
    double whole = intact(at, count);
    answer("margins", &whole, 1);
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
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    Tensor *x = leaf("x", seed, 0, which[0] != 'f', SHAPE(N, C)), *w = leaf("w", seed, 1, true, SHAPE(N, C));
    Tensor *frozen = leaf("frozen", seed, 2, false, SHAPE(N, C)), *v = leaf("v", seed, 3, true, SHAPE(N, C));
    memory_reset_peaks();
    int64_t before = ledger.live[MEMORY_PARAMETER_GRADIENTS]; // 0, if what came before was let go
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
    int64_t facts[] = { meter_phase(&meter, PHASE_DGRAD).kernels, meter_phase(&meter, PHASE_WGRAD).kernels,
                     ledger.own_peak[MEMORY_PARAMETER_GRADIENTS] - before, ledger.live[MEMORY_KEPT_ACTIVATIONS],
                     ledger.live[MEMORY_ACTIVATION_GRADIENTS], tape->count };
    answer_integers("facts", facts, 6);
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
        answer_integers("flags", (int64_t[]){ lora.A->requires_grad, lora.B->requires_grad }, 2);
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
    int I = size_of(seed, 1), O = large_of(seed, 2), R = size_of(seed, 3); // O above I + R: a full-size product is seen
    Layer l = { .linear = { leaf("W", seed, 1, false, SHAPE(I, O)), leaf("b", seed, 2, false, SHAPE(O)), NULL, NULL },
                .lora = { leaf("A", seed, 3, true, SHAPE(I, R)), leaf("B", seed, 4, true, SHAPE(R, O)), 1 + number_of(seed, 9, 0) / 2, NULL } };
    if (masked) {
        l.lora.mask = leaf("mask", seed, 5, false, SHAPE(R, O));
        for (int64_t i = 0; i < l.lora.mask->size; i++) l.lora.mask->data[i] = l.lora.mask->data[i] > 0;
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
        answer_integers("bytes", (int64_t[]){ ledger.live[MEMORY_KEPT_ACTIVATIONS], ledger.live[MEMORY_LIVE_ACTIVATIONS],
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

static int64_t kept_at[8];
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
    int64_t kept[16];
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
    op_recompute(tape, block_of_one, w, x, w);
    kept[nodes++] = tape->nodes[tape->count - 1].kept;
    answer_integers("kept", kept, nodes);
    tape_clear(tape);

    // two linears above one another, the second with a frozen weight: what is held, and when it goes
    Tensor *in = leaf("in", seed, 0, true, SHAPE(N, I)), *W = leaf("W", seed, 1, true, SHAPE(I, O)), *b = leaf("b", seed, 2, false, SHAPE(O));
    Tensor *V = leaf("V", seed, 5, false, SHAPE(O, I)), *c = leaf("c", seed, 4, false, SHAPE(I));
    Tensor *a = op_scale(tape, in, 2), *h = op_linear(tape, a, W, b), *y = op_linear(tape, h, V, c);
    tensor_drop(a);
    tensor_drop(h);
    answer_integers("bytes", (int64_t[]){ ledger.live[MEMORY_KEPT_ACTIVATIONS] }, 1);
    Tensor *g = leaf("g", seed, 6, false, SHAPE(N, I));
    Meter meter = { .cut = note_kept };
    meter_watch(&meter, tape);
    backward(tape, op_sum(tape, op_mul(tape, y, g)));
    answer_integers("when", kept_at, kept_count);
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
            for (int64_t j = 0; j < t[i]->size; j++) t[i]->grad[j] = number_of(seed, 20 + TENSORS * step + i, j);
        }
        adamw_step(optimizer, 0.03);
        for (int i = 0; i < TENSORS; i++) answer("t", t[i]->data, t[i]->size);
        answer_integers("bytes", &ledger.live[MEMORY_MOMENTS], 1);
    }
}

// ---- Lab 3

static void run_claims(uint64_t seed)
{
    for (int i = 0; i < MEASURED; i++) {
        Claims c = measure(lab3_shape(seed, i));
        answer_integers("claims", (int64_t[]){ c.gradient_bytes[0], c.gradient_bytes[1], c.moment_bytes[0], c.moment_bytes[1], c.dgrad[0],
                                         c.dgrad[1], c.wgrad[0], c.wgrad[1], c.reached, c.reached_when_cut }, 10);
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = answer_begin(argc, argv);
    const char *task = argv[1];
    parallel_set_threads(1);
    if (run_gradients(task, seed)) ;
    else if (strcmp(task, "L1.1") == 0) run_chain(seed);
    else if (strcmp(task, "L1.4") == 0) {
        run_backward_once(seed_of(seed, 0), "once");
        run_backward_once(seed_of(seed, 1), "several uses");
        run_backward_once(seed_of(seed, 2), "frozen");
        run_backward_once(seed_of(seed, 3), "twice");
    } else if (strcmp(task, "L1.5") == 0) {
        for (int way = 0; way < PRODUCT_WAYS; way++) run_product(seed_of(seed, 20 + way), (ProductWay)way);
    } else if (strcmp(task, "L2.1") == 0) run_init(seed);
    else if (strcmp(task, "L2.2") == 0) run_scale(seed);
    else if (strcmp(task, "L2.3") == 0) run_path(seed);
    else if (strcmp(task, "L2.6") == 0) run_merge(seed);
    else if (strcmp(task, "L2.7") == 0) run_keeps(seed);
    else if (strcmp(task, "L2.8") == 0) run_moments(seed);
    else if (strcmp(task, "L3.2") == 0) run_claims(seed);
    else if (strcmp(task, "L3.3") == 0) answer_integers("right", (int64_t[]){ engine_is_right() }, 1);
    else {
        fprintf(stderr, "runner: there is no task %s\n", task);
        return 2;
    }
    answer_end();
}
