// op_cases.h - the ops for the tests that are about all of them: one row for each op and shape, with its formula once more, one
// number at a time in double; and a graph around a row's op, with inputs, a loss and its gradients.
//
// test_ops.c asks each row for values and gradients, test_shares.c for what each thread computes. A new op needs a row here.

#ifndef OP_CASES_H
#define OP_CASES_H

#include "../meter.h"
#include "../ops.h"
#include "gradcheck.h"
#include "test.h"

// ------------------------------------------------------------------------------------------------------------ the table's parts

enum { DROPOUT_SEED = 77 };

static Tensor *do_add(Tape *t, Tensor **in) { return op_add(t, in[0], in[1]); }
static Tensor *do_sub(Tape *t, Tensor **in) { return op_sub(t, in[0], in[1]); }
static Tensor *do_mul(Tape *t, Tensor **in) { return op_mul(t, in[0], in[1]); }
static Tensor *do_scale(Tape *t, Tensor **in) { return op_scale(t, in[0], (real)-1.75); }
static Tensor *do_add_scaled(Tape *t, Tensor **in) { return op_add_scaled(t, in[0], in[1], (real)0.375); }
static Tensor *do_relu(Tape *t, Tensor **in) { return op_relu(t, in[0]); }
static Tensor *do_tanh(Tape *t, Tensor **in) { return op_tanh(t, in[0]); }
static Tensor *do_exp(Tape *t, Tensor **in) { return op_exp(t, in[0]); }
static Tensor *do_sum(Tape *t, Tensor **in) { return op_sum(t, in[0]); }
static Tensor *do_mean(Tape *t, Tensor **in) { return op_mean(t, in[0]); }
static Tensor *do_softmax(Tape *t, Tensor **in) { return op_softmax(t, in[0]); }
static Tensor *do_matmul(Tape *t, Tensor **in) { return op_matmul(t, in[0], in[1]); }
static Tensor *do_layernorm(Tape *t, Tensor **in) { return op_layernorm(t, in[0], in[1], in[2]); }
static Tensor *do_linear(Tape *t, Tensor **in) { return op_linear(t, in[0], in[1], in[2]); }
static Tensor *do_lm_head(Tape *t, Tensor **in) { return op_lm_head(t, in[0], in[1]); }
static Tensor *do_attention_1(Tape *t, Tensor **in) { return op_attention(t, in[0], 1); }
static Tensor *do_attention_3(Tape *t, Tensor **in) { return op_attention(t, in[0], 3); }
static Tensor *do_gelu(Tape *t, Tensor **in) { return op_gelu(t, in[0]); }
static Tensor *do_dropout(Tape *t, Tensor **in) { return op_dropout(t, in[0], (real)0.3125); }

static Tensor *do_embedding(Tape *t, Tensor **in) // 3 sequences, two positions shorter than wpe is long
{
    int T = in[1]->shape[0] - 2;
    return op_embedding(t, in[0], in[1], ids_below(in[0]->shape[0], 3 * T), 3, T);
}

static Tensor *do_cross_entropy(Tape *t, Tensor **in)
{
    return op_cross_entropy(t, in[0], ids_below(last_dim(in[0]), rows_of(in[0])));
}

static Tensor *do_matmul_add(Tape *t, Tensor **in) // in place: nobody keeps y
{
    return op_matmul_add(t, op_scale(t, in[0], (real)1.25), in[1], in[2], (real)-0.625);
}

static Tensor *do_matmul_add_kept(Tape *t, Tensor **in) // copied: tanh keeps y for its own gradient
{
    return op_matmul_add(t, op_tanh(t, in[0]), in[1], in[2], (real)-0.625);
}

static Tensor *gelu_of_linear(Tape *t, Tensor *x, void *context)
{
    Tensor **in = context;
    Tensor *h = op_linear(t, x, in[1], in[2]), *y = op_gelu(t, h);
    tensor_drop(h);
    return y;
}

static Tensor *do_recompute(Tape *t, Tensor **in)
{
    return op_recompute(t, gelu_of_linear, in, in[0], in[1]->requires_grad ? in[1] : in[2]->requires_grad ? in[2] : NULL);
}

// ---- the same values, from the formulas in ops.h, one number at a time in double

#define ELEMENTWISE(name, value)                                                           \
    static void name(Tensor **in, double *y)                                               \
    {                                                                                      \
        for (int64_t i = 0; i < in[0]->size; i++) {                                           \
            double a = at(in[0], i), b = in[1] && in[1]->size == in[0]->size ? at(in[1], i) : 0; \
            (void)a, (void)b;                                                              \
            y[i] = value;                                                                  \
        }                                                                                  \
    }
ELEMENTWISE(naive_add, a + b)
ELEMENTWISE(naive_sub, a - b)
ELEMENTWISE(naive_mul, a * b)
ELEMENTWISE(naive_scale, -1.75 * a)
ELEMENTWISE(naive_add_scaled, a + 0.375 * b)
ELEMENTWISE(naive_relu, fmax(a, 0))
ELEMENTWISE(naive_tanh, (exp(2 * a) - 1) / (exp(2 * a) + 1))
ELEMENTWISE(naive_exp, exp(a))
ELEMENTWISE(naive_gelu, gelu_of(a))
ELEMENTWISE(naive_dropout, random_uniform(random_bits(DROPOUT_SEED, 0), (uint64_t)i) < 0.3125 ? 0 : a / (1 - 0.3125))

static void naive_sum(Tensor **in, double *y)
{
    y[0] = 0;
    for (int64_t i = 0; i < in[0]->size; i++) y[0] += at(in[0], i);
}

static void naive_mean(Tensor **in, double *y)
{
    naive_sum(in, y);
    y[0] /= (double)in[0]->size;
}

static void naive_softmax(Tensor **in, double *y)
{
    int V = last_dim(in[0]);
    for (int64_t r = 0; r < rows_of(in[0]); r++) {
        double sum = 0;
        for (int j = 0; j < V; j++) sum += exp(at(in[0], r * V + j));
        for (int j = 0; j < V; j++) y[r * V + j] = exp(at(in[0], r * V + j)) / sum;
    }
}

static void naive_product(const Tensor *a, const Tensor *b, bool transposed, double *y)
{
    int I = last_dim(a), O = transposed ? b->shape[0] : b->shape[1];
    for (int64_t r = 0; r < rows_of(a); r++)
        for (int o = 0; o < O; o++) {
            y[r * O + o] = 0;
            for (int i = 0; i < I; i++) y[r * O + o] += at(a, r * I + i) * (transposed ? at(b, (int64_t)o * I + i) : at(b, (int64_t)i * O + o));
        }
}

static void naive_matmul(Tensor **in, double *y) { naive_product(in[0], in[1], false, y); }
static void naive_lm_head(Tensor **in, double *y) { naive_product(in[0], in[1], true, y); }

static void naive_linear(Tensor **in, double *y)
{
    naive_product(in[0], in[1], false, y);
    int O = in[1]->shape[1];
    for (int64_t i = 0; i < rows_of(in[0]) * O; i++) y[i] += at(in[2], i % O);
}

static void naive_recompute(Tensor **in, double *y)
{
    naive_linear(in, y);
    for (int64_t i = 0; i < rows_of(in[0]) * in[1]->shape[1]; i++) y[i] = gelu_of(y[i]);
}

static void naive_matmul_add(Tensor **in, double *y)
{
    naive_product(in[1], in[2], false, y);
    for (int64_t i = 0; i < in[0]->size; i++) y[i] = 1.25 * at(in[0], i) - 0.625 * y[i];
}

static void naive_matmul_add_kept(Tensor **in, double *y)
{
    naive_product(in[1], in[2], false, y);
    for (int64_t i = 0; i < in[0]->size; i++) y[i] = tanh(at(in[0], i)) - 0.625 * y[i];
}

static void naive_embedding(Tensor **in, double *y)
{
    int C = last_dim(in[0]), T = in[1]->shape[0] - 2;
    const int *id = ids_below(in[0]->shape[0], 3 * T);
    for (int b = 0; b < 3; b++)
        for (int t = 0; t < T; t++)
            for (int c = 0; c < C; c++) y[((int64_t)b * T + t) * C + c] = at(in[0], (int64_t)id[b * T + t] * C + c) + at(in[1], (int64_t)t * C + c);
}

static void naive_layernorm(Tensor **in, double *y)
{
    int C = last_dim(in[0]);
    for (int64_t r = 0; r < rows_of(in[0]); r++) {
        double mean = 0, variance = 0;
        for (int c = 0; c < C; c++) mean += at(in[0], r * C + c) / C;
        for (int c = 0; c < C; c++) variance += pow(at(in[0], r * C + c) - mean, 2) / C;
        for (int c = 0; c < C; c++) y[r * C + c] = (at(in[0], r * C + c) - mean) / sqrt(variance + 1e-5) * at(in[1], c) + at(in[2], c);
    }
}

static void naive_attention(Tensor **in, double *y, int H)
{
    int B = in[0]->shape[0], T = in[0]->shape[1], C = last_dim(in[0]) / 3, D = C / H;
    double *weight = malloc((size_t)T * sizeof *weight);
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int t = 0; t < T; t++) {
                double sum = 0;
                for (int j = 0; j < T; j++) {
                    double score = 0;
                    for (int d = 0; d < D; d++) score += at(in[0], ((int64_t)b * T + t) * 3 * C + h * D + d) * at(in[0],
                            ((int64_t)b * T + j) * 3 * C + C + h * D + d);
                    weight[j] = j > t ? 0 : exp(score / sqrt(D)); // the mask: the future has no weight
                    sum += weight[j];
                }
                for (int d = 0; d < D; d++) {
                    double value = 0;
                    for (int j = 0; j < T; j++) value += weight[j] / sum * at(in[0], ((int64_t)b * T + j) * 3 * C + 2 * C + h * D + d);
                    y[((int64_t)b * T + t) * C + h * D + d] = value;
                }
            }
    free(weight);
}

static void naive_attention_1(Tensor **in, double *y) { naive_attention(in, y, 1); }
static void naive_attention_3(Tensor **in, double *y) { naive_attention(in, y, 3); }

static void naive_cross_entropy(Tensor **in, double *y)
{
    int V = last_dim(in[0]);
    const int *target = ids_below(V, rows_of(in[0]));
    for (int64_t r = 0; r < rows_of(in[0]); r++) {
        double sum = 0;
        for (int k = 0; k < V; k++) sum += exp(at(in[0], r * V + k));
        y[r] = -log(exp(at(in[0], r * V + target[r])) / sum);
    }
}

// ---- the table

typedef struct Input { const char *name; int ndim, shape[MAX_DIMS]; } Input;

typedef struct Case {
    const Op *op;
    Tensor *(*apply)(Tape *tape, Tensor **in);
    void   (*naive)(Tensor **in, double *y);
    Input  in[MAX_INPUTS];
    // What the gradient of each input must find kept: digits for inputs, y for the result, s for the saved statistics.
    // NULL: the node keeps more than its own op needs, or its inputs must be leaves; not checked here.
    const char *keeps[MAX_INPUTS];
    int64_t   saved;      // reals
    bool   leaves;     // inputs 1 and 2 must be leaves
    bool   large;      // so large that all threads take part: for the comparison of bits, not for differences
} Case;

static const Case cases[] = {
    { &add_op, do_add, naive_add, { { "a", 3, { 2, 3, 5 } }, { "b", 3, { 2, 3, 5 } } }, .keeps = { "", "" } },
    { &add_op, do_add, naive_add, { { "a", 3, { 7, 13, 251 } }, { "b", 3, { 7, 13, 251 } } }, .large = true },
    { &sub_op, do_sub, naive_sub, { { "a", 3, { 2, 3, 5 } }, { "b", 3, { 2, 3, 5 } } }, .keeps = { "", "" } },
    { &sub_op, do_sub, naive_sub, { { "a", 3, { 7, 13, 251 } }, { "b", 3, { 7, 13, 251 } } }, .large = true },
    { &mul_op, do_mul, naive_mul, { { "a", 3, { 2, 3, 5 } }, { "b", 3, { 2, 3, 5 } } }, .keeps = { "1", "0" } },
    { &mul_op, do_mul, naive_mul, { { "a", 3, { 7, 13, 251 } }, { "b", 3, { 7, 13, 251 } } }, .large = true },
    { &scale_op, do_scale, naive_scale, { { "a", 2, { 3, 7 } } }, .keeps = { "" } },
    { &scale_op, do_scale, naive_scale, { { "a", 2, { 100, 229 } } }, .large = true },
    { &add_scaled_op, do_add_scaled, naive_add_scaled, { { "a", 2, { 3, 7 } }, { "b", 2, { 3, 7 } } }, .keeps = { "", "" } },
    { &add_scaled_op, do_add_scaled, naive_add_scaled, { { "a", 2, { 100, 229 } }, { "b", 2, { 100, 229 } } }, .large = true },
    { &relu_op, do_relu, naive_relu, { { "x", 2, { 4, 9 } } }, .keeps = { "y" } },
    { &relu_op, do_relu, naive_relu, { { "x", 2, { 100, 229 } } }, .large = true },
    { &tanh_op, do_tanh, naive_tanh, { { "x", 2, { 4, 9 } } }, .keeps = { "y" } },
    { &tanh_op, do_tanh, naive_tanh, { { "x", 2, { 100, 229 } } }, .large = true },
    { &exp_op, do_exp, naive_exp, { { "x", 2, { 4, 9 } } }, .keeps = { "y" } },
    { &exp_op, do_exp, naive_exp, { { "x", 2, { 100, 229 } } }, .large = true },
    { &sum_op, do_sum, naive_sum, { { "x", 3, { 2, 3, 7 } } }, .keeps = { "" } },
    { &sum_op, do_sum, naive_sum, { { "x", 2, { 100, 229 } } }, .large = true },
    { &mean_op, do_mean, naive_mean, { { "x", 3, { 2, 3, 7 } } }, .keeps = { "" } },
    { &mean_op, do_mean, naive_mean, { { "x", 2, { 100, 229 } } }, .large = true },
    { &softmax_op, do_softmax, naive_softmax, { { "x", 3, { 2, 3, 5 } } }, .keeps = { "y" } },
    { &softmax_op, do_softmax, naive_softmax, { { "x", 2, { 3, 37 } } }, .keeps = { "y" } },
    { &softmax_op, do_softmax, naive_softmax, { { "x", 2, { 211, 113 } } }, .large = true },
    { &matmul_op, do_matmul, naive_matmul, { { "a", 3, { 2, 3, 5 } }, { "b", 2, { 5, 4 } } }, .keeps = { "1", "0" } },
    { &matmul_op, do_matmul, naive_matmul, { { "a", 2, { 11, 7 } }, { "b", 2, { 7, 37 } } }, .keeps = { "1", "0" } },
    { &matmul_op, do_matmul, naive_matmul, { { "a", 2, { 41, 67 } }, { "b", 2, { 67, 35 } } }, .large = true },

    { &embedding_op, do_embedding, naive_embedding, { { "wte", 2, { 11, 5 } }, { "wpe", 2, { 9, 5 } } }, .keeps = { "", "" } },
    { &embedding_op, do_embedding, naive_embedding, { { "wte", 2, { 11, 130 } }, { "wpe", 2, { 70, 130 } } }, .large = true },
    { &layernorm_op, do_layernorm, naive_layernorm, { { "x", 3, { 2, 3, 5 } }, { "gain", 1, { 5 } }, { "bias", 1, { 5 } } }, .keeps = { "012s", "012s", "" }, .saved = 12 },
    { &layernorm_op, do_layernorm, naive_layernorm, { { "x", 2, { 4, 37 } }, { "gain", 1, { 37 } }, { "bias", 1, { 37 } } }, .keeps = { "012s", "012s", "" }, .saved = 8 },
    { &layernorm_op, do_layernorm, naive_layernorm, { { "x", 2, { 211, 113 } }, { "gain", 1, { 113 } }, { "bias", 1, { 113 } } }, .large = true },
    { &linear_op, do_linear, naive_linear, { { "x", 3, { 2, 3, 5 } }, { "W", 2, { 5, 4 } }, { "b", 1, { 4 } } }, .keeps = { "1", "0", "" } },
    { &linear_op, do_linear, naive_linear, { { "x", 2, { 9, 7 } }, { "W", 2, { 7, 37 } }, { "b", 1, { 37 } } }, .keeps = { "1", "0", "" } },
    { &linear_op, do_linear, naive_linear, { { "x", 2, { 41, 67 } }, { "W", 2, { 67, 35 } }, { "b", 1, { 35 } } }, .large = true },
    { &lm_head_op, do_lm_head, naive_lm_head, { { "x", 3, { 2, 3, 5 } }, { "wte", 2, { 11, 5 } } }, .keeps = { "1", "0" } },
    { &lm_head_op, do_lm_head, naive_lm_head, { { "x", 2, { 41, 67 } }, { "wte", 2, { 35, 67 } } }, .large = true },
    { &attention_op, do_attention_1, naive_attention_1, { { "qkv", 3, { 2, 5, 6 } } }, .keeps = { "0s" }, .saved = 20 },
    { &attention_op, do_attention_3, naive_attention_3, { { "qkv", 3, { 2, 4, 18 } } }, .keeps = { "0s" }, .saved = 48 },
    { &attention_op, do_attention_1, naive_attention_1, { { "qkv", 3, { 1, 67, 6 } } }, .keeps = { "0s" }, .saved = 134 }, // T above a block of queries
    { &attention_op, do_attention_1, naive_attention_1, { { "qkv", 3, { 1, 3, 57 } } }, .keeps = { "0s" }, .saved = 6 },   // D = 19, above the lanes
    { &attention_op, do_attention_3, naive_attention_3, { { "qkv", 3, { 3, 131, 54 } } }, .large = true },
    { &gelu_op, do_gelu, naive_gelu, { { "x", 2, { 3, 7 } } }, .keeps = { "0" } },
    { &gelu_op, do_gelu, naive_gelu, { { "x", 2, { 100, 229 } } }, .large = true },
    { &dropout_op, do_dropout, naive_dropout, { { "x", 2, { 5, 9 } } }, .keeps = { "" } },
    { &dropout_op, do_dropout, naive_dropout, { { "x", 2, { 100, 229 } } }, .large = true },
    { &cross_entropy_op, do_cross_entropy, naive_cross_entropy, { { "logits", 3, { 2, 2, 5 } } }, .keeps = { "0s" }, .saved = 8 },
    { &cross_entropy_op, do_cross_entropy, naive_cross_entropy, { { "logits", 2, { 3, 37 } } }, .keeps = { "0s" }, .saved = 6 },
    { &cross_entropy_op, do_cross_entropy, naive_cross_entropy, { { "logits", 2, { 151, 150 } } }, .large = true },

    { &matmul_add_op, do_matmul_add, naive_matmul_add, { { "y", 3, { 2, 3, 4 } }, { "h", 3, { 2, 3, 5 } }, { "B", 2, { 5, 4 } } }, .keeps = { "", "2", "1" } },
    { &matmul_add_op, do_matmul_add_kept, naive_matmul_add_kept, { { "y", 2, { 3, 7 } }, { "h", 2, { 3, 2 } }, { "B", 2, { 2, 7 } } }, .keeps = { NULL } },
    { &matmul_add_op, do_matmul_add, naive_matmul_add, { { "y", 2, { 61, 35 } }, { "h", 2, { 61, 13 } }, { "B", 2, { 13, 35 } } }, .large = true },
    { &recompute_op, do_recompute, naive_recompute, { { "x", 2, { 3, 5 } }, { "W", 2, { 5, 4 } }, { "b", 1, { 4 } } }, .keeps = { "0", "0", "0" }, .leaves = true },
    { &recompute_op, do_recompute, naive_recompute, { { "x", 2, { 41, 67 } }, { "W", 2, { 67, 35 } }, { "b", 1, { 35 } } }, .leaves = true, .large = true },
};
enum { CASES = sizeof cases / sizeof *cases };

enum { MOST_OPS = 64 };

static inline int number_of(const Op *op)
{
    int i = 0;
    while (all_ops[i] != op) i++;
    return i;
}

// ------------------------------------------------------------------------------------------------------------------ one graph

// PLAIN_USE: loss = w . op(in). SHARED: op(in) is made twice, each with weights of its own, so every input gets two gradients.
// ALIASED: two inputs of the same shape are one tensor. CHAINED: each input is the result of an op and is dropped at once, and
// the result goes through another op.
typedef enum Variant { PLAIN_USE, SHARED, ALIASED, CHAINED, VARIANTS } Variant;
static const char *const variant_names[VARIANTS] = { "alone", "used twice", "same tensor in two places", "chained" };

typedef struct Graph {
    const Case *c;
    Variant     variant;
    Tape       *tape;
    Tensor     *in[MAX_INPUTS]; // leaves
    int         inputs, outputs;
    Tensor     *out[2], *weight[2];
    int         only;           // of the outputs, the one that counts, 1 or 2; 0: all
} Graph;

static bool observed[MOST_OPS][MAX_INPUTS];
static bool observe(const Node *n, int input) // the meter asks before each gradient whether to drop it: never
{
    observed[number_of(n->op)][input] = true;
    return false;
}

static Meter meter; // of the graph that is there: each is freed before the next one is made

static Graph graph_new(const Case *c, Variant variant)
{
    Graph g = { .c = c, .variant = variant, .tape = tape_new() };
    g.tape->dropout_seed = DROPOUT_SEED;
    meter = (Meter){ .cut = observe };
    meter_watch(&meter, g.tape);
    for (; g.inputs < MAX_INPUTS && c->in[g.inputs].name; g.inputs++) {
        const Input *in = &c->in[g.inputs];
        Tensor *t = g.in[g.inputs] = tensor_new(in->name, MEMORY_WEIGHTS, in->ndim, in->shape);
        fill_irregular(t, 31 + (uint64_t)(10 * g.inputs), c->op == &gelu_op ? 3 : 1);
        t->requires_grad = true;
    }
    return g;
}

static void graph_free(Graph *g)
{
    tape_free(g->tape);
    for (int i = 0; i < g->inputs; i++) tensor_drop(g->in[i]);
    for (int k = 0; k < 2; k++) tensor_drop(g->weight[k]);
}

static void graph_forward(Graph *g)
{
    tape_clear(g->tape);
    Tensor *in[MAX_INPUTS] = { g->in[0], g->in[1], g->in[2] };
    static Tensor *late[MAX_INPUTS]; // recompute reads this again in backward
    if (g->variant == ALIASED) in[1] = in[0];
    bool made[MAX_INPUTS] = { false };
    for (int i = 0; i < g->inputs && g->variant == CHAINED; i++)
        if (!(g->c->leaves && i > 0)) in[i] = op_scale(g->tape, in[i], (real)1.5), made[i] = true;
    memcpy(late, in, sizeof in);
    g->outputs = g->variant == SHARED ? 2 : 1;
    for (int k = 0; k < g->outputs; k++) g->out[k] = g->c->apply(g->tape, late);
    for (int i = 0; i < g->inputs; i++)
        if (made[i]) tensor_drop(in[i]);
    if (g->variant == CHAINED) {
        Tensor *y = g->out[0];
        g->out[0] = op_tanh(g->tape, y);
        tensor_drop(y);
    }
}

static Tensor *graph_loss(Graph *g)
{
    Tensor *loss = NULL;
    for (int k = 0; k < g->outputs; k++) {
        if (g->weight[k] == NULL) {
            g->weight[k] = tensor_new("weights of the loss", MEMORY_WEIGHTS, g->out[k]->ndim, g->out[k]->shape);
            fill_irregular(g->weight[k], 500 + (uint64_t)k, 1);
        }
        Tensor *part = op_sum(g->tape, op_mul(g->tape, g->out[k], g->weight[k]));
        loss = loss ? op_add(g->tape, loss, part) : part;
    }
    return loss;
}

static inline double graph_number(void *context) // the same loss, summed in double outside the engine
{
    Graph *g = context;
    graph_forward(g);
    double loss = 0;
    for (int k = 0; k < g->outputs; k++)
        for (int64_t i = 0; i < g->out[k]->size && (g->only == 0 || g->only == k + 1); i++)
            loss += at(g->out[k], i) * irregular(500 + (uint64_t)k, i, 1);
    return loss;
}

static inline void graph_backward(Graph *g)
{
    graph_forward(g);
    backward(g->tape, graph_loss(g));
}

// The node of the graph that is the case's own; the last one, behind what prepares its inputs.
static inline Node *node_of(const Graph *g)
{
    Node *n = &g->tape->nodes[g->tape->count - 1];
    return n->op == g->c->op ? n : NULL;
}

#endif
