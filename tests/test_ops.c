// test_ops.c - every op, alone: its values against naive formulas, each gradient against central differences (one table row per
// shape; a test demands that no op and no input is missing), that a gradient only
// adds, what a node keeps, and the same bits for any number of threads. What ops stand on is in test_kernels.c.

#include "../adapters.h"
#include "../generate.h"
#include "../meter.h"
#include "../ops.h"
#include "../training.h"
#include "child.h"
#include "gradcheck.h"
#include "test.h"

#include <fenv.h>
#include <pthread.h>
#include <sys/mman.h>

// ------------------------------------------------------------------------------------------------------------ the table's parts

enum { MOST_IDS = 4096, DROPOUT_SEED = 77 };
static int ids[MOST_IDS];

static const int *ids_below(int V, int64_t count)
{
    for (int64_t i = 0; i < count; i++) ids[i] = (int)((i * 7 + i * i * 3 + 2) % V);
    return ids;
}

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

static double at(const Tensor *t, int64_t i) { return (double)t->data[i]; }
static double gelu_of(double x) { return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))); }

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

static int number_of(const Op *op)
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

static double graph_number(void *context) // the same loss, summed in double outside the engine
{
    Graph *g = context;
    graph_forward(g);
    double loss = 0;
    for (int k = 0; k < g->outputs; k++)
        for (int64_t i = 0; i < g->out[k]->size && (g->only == 0 || g->only == k + 1); i++)
            loss += at(g->out[k], i) * irregular(500 + (uint64_t)k, i, 1);
    return loss;
}

static void graph_backward(Graph *g)
{
    graph_forward(g);
    backward(g->tape, graph_loss(g));
}

// ---------------------------------------------------------------------------------------------------------------- the op tests

static bool checked[MOST_OPS][MAX_INPUTS];

static bool can_alias(const Case *c) // a - a is left out: its gradient is 0, which a test of its own expects
{
    const Input *a = &c->in[0], *b = &c->in[1];
    return b->name && c->op != &sub_op && a->ndim == b->ndim && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

// The gradient of input i against central differences. Wrong, with two uses: perhaps it is that of one of them, alone.
static Verdict check_input(Graph *g, int i)
{
    Tensor *t = g->in[i];
    double *expected = malloc((size_t)t->size * sizeof *expected);
    Verdict verdict = { .ok = false };
    for (g->only = 0; g->only <= g->outputs && g->outputs > 0; g->only++) {
        for (int64_t j = 0; j < t->size; j++) expected[j] = central_difference(&t->data[j], graph_number, g);
        char what[160];
        snprintf(what, sizeof what, "%s, d/d %s %s, %s", g->c->op->name, t->name, shape_text(t), variant_names[g->variant]);
        Verdict v = compare_gradients(what, t->grad, expected, t->size, last_dim(t), GRAD_BOUND);
        if (g->only == 0) verdict = v;
        else if (v.ok) snprintf(verdict.text + strlen(verdict.text), 100, "\n       it is what use %d alone gives: is = used where += is meant?", g->only);
        if (verdict.ok || g->variant != SHARED) break;
    }
    g->only = 0;
    free(expected);
    return verdict;
}

static void check_case(const Case *c, Variant variant)
{
    if (variant == ALIASED && !can_alias(c)) return;
    Graph g = graph_new(c, variant);
    memset(observed, 0, sizeof observed);
    graph_backward(&g);
    for (int i = 0; i < g.inputs; i++) g.in[i]->requires_grad = false;
    for (int i = 0; i < (variant == ALIASED ? 1 : g.inputs); i++) {
        Verdict v = check_input(&g, i);
        EXPECT(v.ok, "%s", v.text);
        bool asked = observed[number_of(c->op)][i] || c->op == &recompute_op; // which runs inner nodes instead
        if (v.ok && variant == CHAINED) checked[number_of(c->op)][i] = asked;
    }
    graph_free(&g);
}

static void check_variant(Variant variant)
{
    for (int i = 0; i < CASES; i++)
        if (!cases[i].large) check_case(&cases[i], variant);
}

TEST(gradients_of_each_op_alone) { check_variant(PLAIN_USE); }
TEST(gradients_of_inputs_used_twice) { check_variant(SHARED); }
TEST(gradients_of_one_tensor_in_two_places) { check_variant(ALIASED); }
TEST(gradients_of_each_op_between_others) { check_variant(CHAINED); }

TEST(a_tensor_minus_itself)
{
    Tensor *x = tensor_from("x", (real[]){ 3, (real)-0.5, 7 }, SHAPE(3));
    x->requires_grad = true;
    Tape *tape = tape_new();
    backward(tape, op_sum(tape, op_sub(tape, x, x)));
    for (int i = 0; i < 3; i++) EXPECT(x->grad && x->grad[i] == 0, "d(x - x)/dx is not 0 at %d", i);
    tape_free(tape);
    tensor_drop(x);
}

TEST(no_op_and_no_input_is_missed) // runs after the test of chained ops, which fills `checked`
{
    for (int op = 0; all_ops[op] != NULL; op++) {
        EXPECT(op < MOST_OPS && all_ops[op]->name != NULL && all_ops[op]->forward != NULL, "op %d has no row", op);
        const Case *small = NULL, *large = NULL;
        for (int i = 0; i < CASES; i++)
            if (cases[i].op == all_ops[op]) *(cases[i].large ? &large : &small) = &cases[i];
        EXPECT(small != NULL && small->in[0].name != NULL, "%s: its gradients are checked nowhere", all_ops[op]->name);
        EXPECT(large != NULL, "%s: not in the comparison of threads", all_ops[op]->name);
        for (int i = 0; i < MAX_INPUTS && small != NULL && small->in[i].name != NULL; i++)
            EXPECT(checked[op][i], "%s: the gradient of input %d passed no check", all_ops[op]->name, i);
        for (int i = 0; i < MAX_INPUTS && small != NULL; i++)
            EXPECT(all_ops[op]->input[i].grad == NULL || small->in[i].name != NULL, "%s: input %d has a gradient and is in no case", all_ops[op]->name, i);
    }
}

TEST(the_checker_rejects_wrong_gradients)
{
    enum { ROWS_ = 2, COLUMNS_ = 3, SIZE = ROWS_ * COLUMNS_ };
    const double right[SIZE] = { 0.5, -1.25, 3, 0.75, -0.125, 2 };
    static const struct { const char *what, *hint; double factor; } wrong[] = {
        { "zero", "path cut", 0 }, { "half", "1/2 of it", 0.5 }, { "double", "added twice", 2 }, { "negative", "opposite sign", -1 },
        { "seventh", "1/7 of it", 1 / 7.0 }, { "sevenfold", "7 times as much", 7 }, { "scaled", "0.375 times what it should be", 0.375 },
    };
    real ours[SIZE];
    for (int i = 0; i < SIZE; i++) ours[i] = (real)right[i];
    EXPECT(compare_gradients("right", ours, right, SIZE, COLUMNS_, GRAD_BOUND).ok, "a right gradient is rejected");
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
        for (int i = 0; i < SIZE; i++) ours[i] = (real)(wrong[w].factor * right[i]);
        Verdict v = compare_gradients(wrong[w].what, ours, right, SIZE, COLUMNS_, GRAD_BOUND);
        EXPECT(!v.ok && v.differ == SIZE && strstr(v.text, wrong[w].hint), "%s", v.text);
    }
    for (int r = 0; r < ROWS_; r++)
        for (int c = 0; c < COLUMNS_; c++) ours[c * ROWS_ + r] = (real)right[r * COLUMNS_ + c];
    Verdict v = compare_gradients("transposed", ours, right, SIZE, COLUMNS_, GRAD_BOUND);
    EXPECT(!v.ok && strstr(v.text, "transposed pattern"), "%s", v.text);
    for (int i = 0; i < SIZE; i++) ours[i] = (real)right[i];
    ours[5] = (real)(right[5] * (1 + 4 * GRAD_BOUND)); // one entry, slightly wrong
    v = compare_gradients("one entry", ours, right, SIZE, COLUMNS_, GRAD_BOUND);
    EXPECT(!v.ok && v.differ == 1 && strstr(v.text, "[1,2]"), "%s", v.text);
    ours[5] = (real)NAN;
    EXPECT(!compare_gradients("NaN", ours, right, SIZE, COLUMNS_, GRAD_BOUND).ok, "NaN passes");
    EXPECT(!compare_gradients("NULL", NULL, right, SIZE, COLUMNS_, GRAD_BOUND).ok, "a missing gradient passes");
    const double zeros[SIZE] = { 0 };
    memset(ours, 0, sizeof ours);
    v = compare_gradients("vacuous", ours, zeros, SIZE, COLUMNS_, GRAD_BOUND);
    EXPECT(!v.ok && strstr(v.text, "could not fail"), "zeros agree with zeros: %s", v.text);
}

// What the engine itself computes when it is asked for something else than was meant: loss = sum(1.5 (x w + x w + x w)) is meant.
typedef enum Mistake { NO_MISTAKE, NO_PATH, ONE_USE, TWO_PASSES, WRONG_SIGN, MEAN_FOR_SUM, NO_SCALE, MISTAKES } Mistake;

static int uses;
static bool all_but_one_use(const Node *n, int input) { return n->op == &mul_op && input == 0 && ++uses > 1; }

static real *gradient_with(Mistake mistake, const real *values, const real *weights)
{
    Tape *tape = tape_new();
    Tensor *x = tensor_from("x", values, SHAPE(2, 5)), *w = tensor_from("w", weights, SHAPE(2, 5)), *zero = tensor_new("0", MEMORY_WEIGHTS, SHAPE(2, 5));
    x->requires_grad = true;
    uses = 0;
    Meter cutter = { .cut = all_but_one_use };
    if (mistake == ONE_USE) meter_watch(&cutter, tape);
    for (int pass = 0; pass < (mistake == TWO_PASSES ? 2 : 1); pass++) {
        Tensor *y = op_add(tape, op_add(tape, op_mul(tape, x, w), op_mul(tape, x, w)), op_mul(tape, x, w));
        y = op_scale(tape, y, (real)(mistake == NO_SCALE ? 1 : mistake == NO_PATH ? 0 : 1.5));
        if (mistake == WRONG_SIGN) y = op_sub(tape, zero, y);
        backward(tape, mistake == MEAN_FOR_SUM ? op_mean(tape, y) : op_sum(tape, y));
        tape_clear(tape);
    }
    real *gradient = copy_of(x->grad, x->size);
    tape_free(tape);
    tensor_drop(x), tensor_drop(w), tensor_drop(zero);
    return gradient;
}

TEST(mistakes_get_their_hints)
{
    enum { SIZE = 10 };
    static const char *const hints[MISTAKES] = { [NO_PATH] = "is the path cut", [ONE_USE] = "1/3 of it: is one of 3 uses left, by = for +=?", [TWO_PASSES] = "added twice, or not zeroed?",
        [WRONG_SIGN] = "the opposite sign", [MEAN_FOR_SUM] = "1/10 of it: is one of 10 uses left, by = for +=? A mean for a sum (1 / N)?",
        [NO_SCALE] = "0.666667 times what it should be: a scale missed (alpha / r)?" };
    real x[SIZE], w[SIZE];
    double expected[SIZE];
    for (int i = 0; i < SIZE; i++) x[i] = (real)irregular(1, i, 1), w[i] = (real)irregular(2, i, 1), expected[i] = 4.5 * (double)w[i];
    for (Mistake mistake = NO_MISTAKE; mistake < MISTAKES; mistake++) {
        real *ours = gradient_with(mistake, x, w);
        Verdict v = compare_gradients("loss, d/d x [2,5]", ours, expected, SIZE, 5, GRAD_BOUND);
        EXPECT(v.ok == (mistake == NO_MISTAKE) && (v.ok || strstr(v.text, hints[mistake])), "mistake %d: %s", (int)mistake, v.text);
        free(ours);
    }
    real *sum = gradient_with(NO_MISTAKE, x, w); // where the mean is meant
    for (int i = 0; i < SIZE; i++) expected[i] /= SIZE;
    Verdict v = compare_gradients("loss, d/d x [2,5]", sum, expected, SIZE, 5, GRAD_BOUND);
    EXPECT(!v.ok && strstr(v.text, "10 times as much: a sum for a mean (N)?"), "%s", v.text);
    free(sum);
    for (int n = 0; n < CASES; n++) { // of a matrix used twice, the second use alone
        if (cases[n].op != &linear_op || cases[n].large) continue;
        Graph g = graph_new(&cases[n], SHARED);
        meter.cut = all_but_one_use, uses = 0; // the loss's own products, one for each use, meet it: the later one goes on
        graph_backward(&g);
        v = check_input(&g, 1);
        EXPECT(!v.ok && strstr(v.text, "it is what use 2 alone gives: is = used where += is meant?"), "%s", v.text);
        graph_free(&g);
        break;
    }
}

// Every choice of frozen inputs: the gradients of the others keep their bits, and a frozen input gets none.
TEST(frozen_inputs_change_no_other_gradient)
{
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        if (c->large || !c->in[1].name) continue;
        for (Variant variant = PLAIN_USE; variant < VARIANTS; variant++) {
            if (variant == ALIASED) continue;
            Graph g = graph_new(c, variant);
            graph_backward(&g);
            real *all[MAX_INPUTS] = { NULL };
            for (int i = 0; i < g.inputs; i++) all[i] = copy_of(g.in[i]->grad, g.in[i]->size);
            for (unsigned trains = 1; trains + 1 < 1u << g.inputs; trains++) {
                for (int i = 0; i < g.inputs; i++) {
                    tensor_drop_grad(g.in[i]);
                    g.in[i]->requires_grad = trains >> i & 1;
                }
                graph_backward(&g);
                for (int i = 0; i < g.inputs; i++) {
                    if (trains >> i & 1)
                        EXPECT(g.in[i]->grad && same_bits(g.in[i]->grad, all[i], g.in[i]->size),
                                "%s, %s, trainable inputs %#x: other bits in d/d %s", c->op->name,
                               variant_names[variant], trains, g.in[i]->name);
                    else EXPECT(g.in[i]->grad == NULL, "%s: %s is frozen and has a gradient", c->op->name, g.in[i]->name);
                }
            }
            for (int i = 0; i < g.inputs; i++) free(all[i]);
            graph_free(&g);
        }
    }
}

// What a node keeps is what the trainable inputs' gradients read, and what makes the output again: no more (memory), and no less
// (the chained gradients above would read freed buffers). All inputs are results here, dropped by the caller at once.
TEST(a_node_keeps_what_its_gradients_read)
{
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        if (c->large || c->keeps[0] == NULL) continue;
        Graph g = graph_new(c, CHAINED);
        for (unsigned trains = 0; trains < 1u << g.inputs; trains++) {
            tape_clear(g.tape);
            Tensor *in[MAX_INPUTS] = { NULL };
            static Tensor *late[MAX_INPUTS];
            for (int i = 0; i < g.inputs; i++) {
                g.in[i]->requires_grad = trains >> i & 1;
                in[i] = c->leaves && i > 0 ? g.in[i] : op_scale(g.tape, g.in[i], (real)1.5);
            }
            memcpy(late, in, sizeof in);
            Tensor *y = c->apply(g.tape, late);
            bool keeps_in[MAX_INPUTS] = { false }, keeps_out = false, keeps_saved = false;
            for (int i = 0; i < g.inputs; i++)
                for (const char *k = c->keeps[i]; trains >> i & 1 && *k; k++) {
                    if (*k == 'y') keeps_out = true;
                    else if (*k == 's') keeps_saved = true;
                    else keeps_in[*k - '0'] = true;
                }
            int64_t expected = (keeps_out ? y->size : 0) + (keeps_saved ? c->saved : 0);
            for (int i = 0; i < g.inputs; i++) expected += keeps_in[i] ? in[i]->size : 0;
            for (int i = 0; i < g.inputs; i++)
                if (!(c->leaves && i > 0)) tensor_drop(in[i]);
            tensor_drop(y);
            EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == expected * (int64_t)sizeof(real),
                    "%s, trainable inputs %#x: %" PRId64 " bytes are kept, not %" PRId64, c->op->name,
                   trains, ledger.live[MEMORY_KEPT_ACTIVATIONS], expected * (int64_t)sizeof(real));
            EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0, "%s: %" PRId64 " bytes are live after all handles were dropped",
                    c->op->name, ledger.live[MEMORY_LIVE_ACTIVATIONS]);
            EXPECT(y->requires_grad == (trains != 0), "%s, trainable inputs %#x: the result's flag is %d", c->op->name,
                    trains, y->requires_grad);
        }
        graph_free(&g);
    }
}

// Leaves `value` in the free buffers of a graph's sizes.
static void fill_free_buffers(const Graph *g, real value)
{
    enum { EACH = 8 };
    for (int k = -1; k < g->inputs; k++) {
        int64_t size = k < 0 ? g->out[0]->size : g->in[k]->size;
        real *used[EACH];
        for (int i = 0; i < EACH; i++) {
            used[i] = memory_take(MEMORY_WORKSPACE, size);
            for (int64_t j = 0; j < size; j++) used[i][j] = value;
        }
        for (int i = 0; i < EACH; i++) memory_give(MEMORY_WORKSPACE, used[i], size);
    }
}

static const Graph *graph_to_fill;
static real to_fill_with;
static bool fill_before_each_gradient(const Node *n, int input)
{
    (void)n, (void)input;
    fill_free_buffers(graph_to_fill, to_fill_with);
    return false;
}

// Zeros to add to, an empty matrix for a product, or the result's own gradient: whatever a first gradient finds, nothing of what
// its buffer held before is left.
TEST(first_gradients_do_not_depend_on_what_was_there)
{
    for (int n = 0; n < CASES; n++)
        for (Variant variant = PLAIN_USE; variant < VARIANTS; variant++) {
            const Case *c = &cases[n];
            if ((variant == ALIASED && !can_alias(c)) || (c->large && variant != CHAINED)) continue;
            Graph g = graph_new(c, variant);
            real *clean[MAX_INPUTS] = { NULL };
            graph_to_fill = &g;
            meter.cut = fill_before_each_gradient;
            for (int spoilt = 0; spoilt < 2; spoilt++) {
                to_fill_with = spoilt ? (real)NAN : 0;
                graph_backward(&g);
                for (int i = 0; i < (variant == ALIASED ? 1 : g.inputs); i++) {
                    if (!spoilt) clean[i] = copy_of(g.in[i]->grad, g.in[i]->size);
                    else EXPECT(same_bits(clean[i], g.in[i]->grad, g.in[i]->size), "%s, %s: d/d %s depends on what its buffer held before, NaN: |g| = %g, not %g",
                                c->op->name, variant_names[variant], g.in[i]->name, norm_of(g.in[i]->grad, g.in[i]->size), norm_of(clean[i], g.in[i]->size));
                    tensor_drop_grad(g.in[i]);
                }
            }
            for (int i = 0; i < MAX_INPUTS; i++) free(clean[i]);
            graph_free(&g);
        }
}

// ------------------------------------------------------------------------------------------------------ gradients only add

// The node of the graph that is the case's own; the last one, behind what prepares its inputs.
static Node *node_of(const Graph *g)
{
    Node *n = &g->tape->nodes[g->tape->count - 1];
    return n->op == g->c->op ? n : NULL;
}

// Runs the gradient of one input on numbers of the test's own: dx begins as `dx`, and the kernel runs `times` times.
static void run_on(Node *n, int input, real *dx, int times)
{
    Tensor *in = n->in[input];
    real *dy = malloc((size_t)n->out->size * sizeof *dy);
    for (int64_t i = 0; i < n->out->size; i++) dy[i] = (real)irregular(7, i, 1);
    real *before = copy_of(dy, n->out->size);
    in->grad = dx;
    n->out->grad = dy;
    for (int t = 0; t < times; t++) n->op->input[input].grad(n, WHOLE);
    EXPECT(same_bits(before, dy, n->out->size), "%s, input %d: its gradient changes dy", n->op->name, input);
    in->grad = n->out->grad = NULL;
    free(dy), free(before);
}

// Twice the same kernel, on numbers that are there: dx + 2 g. The one that works in place is left out: it has no dx.
TEST(gradient_kernels_only_add)
{
    int kernels = 0, expected = 0;
    for (int op = 0; all_ops[op] != NULL; op++)
        for (int i = 0; i < MAX_INPUTS; i++) expected += all_ops[op]->input[i].grad != NULL && !all_ops[op]->input[i].in_place;
    bool seen[MOST_OPS][MAX_INPUTS] = { { false } };
    for (int c = 0; c < CASES; c++) {
        Graph g = graph_new(&cases[c], PLAIN_USE);
        graph_forward(&g);
        Node *n = node_of(&g);
        for (int i = 0; i < MAX_INPUTS && n != NULL; i++) {
            if (n->op->input[i].grad == NULL || n->op->input[i].in_place) continue;
            int64_t size = n->in[i]->size;
            real *once = calloc((size_t)size, sizeof *once), *dx = malloc((size_t)size * sizeof *dx);
            for (int64_t j = 0; j < size; j++) dx[j] = (real)irregular(8, j, 1);
            run_on(n, i, once, 1);
            run_on(n, i, dx, 2);
            double worst = 0, largest = 1;
            for (int64_t j = 0; j < size; j++) largest = fmax(largest, fabs((double)once[j]));
            for (int64_t j = 0; j < size; j++) {
                double error = fabs((double)dx[j] - irregular(8, j, 1) - 2 * (double)once[j]) / largest;
                if (!(error <= worst)) worst = error;
            }
            EXPECT(worst < 60 * EPSILON && norm_of(once, size) > 0, "%s, input %d, %s: twice its gradient does not add up: off by %.3g", n->op->name, i,
                   shape_text(n->in[i]), worst);
            kernels += !seen[number_of(n->op)][i];
            seen[number_of(n->op)][i] = true;
            free(once), free(dx);
        }
        graph_free(&g);
    }
    EXPECT(kernels == expected && kernels > 20, "%d of %d gradient kernels were run", kernels, expected);
}

TEST(values_follow_the_formulas)
{
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        Graph g = graph_new(c, PLAIN_USE);
        graph_forward(&g);
        Tensor *y = g.out[0];
        double *expected = malloc((size_t)y->size * sizeof *expected), largest = 0, worst = 0;
        c->naive(g.in, expected);
        for (int64_t i = 0; i < y->size; i++) largest = fmax(largest, fabs(expected[i]));
        for (int64_t i = 0; i < y->size; i++) {
            double error = fabs(at(y, i) - expected[i]) / largest;
            if (!(error <= worst)) worst = error;
        }
        EXPECT(largest > 1e-3 && worst < 60 * EPSILON, "%s, %s %s: off by %.2e of the largest value, %.3g", c->op->name,
                g.in[0]->name, shape_text(g.in[0]), worst, largest);
        // without a tape: the same bits; dropout, which is off then, gives a copy
        Tensor *free_y = c->apply(NULL, g.in);
        const real *same = c->op == &dropout_op ? g.in[0]->data : y->data;
        EXPECT(same_bits(free_y->data, same, y->size), "%s: other bits without a tape", c->op->name);
        tensor_drop(free_y);
        free(expected);
        graph_free(&g);
    }
}

TEST(bits_do_not_depend_on_the_threads)
{
    static const int counts[] = { 1, 2, 3, 5 };
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        if (!c->large) continue;
        real *y = NULL, *grads[MAX_INPUTS] = { NULL };
        for (int k = 0; k < 4; k++) {
            parallel_set_threads(counts[k]);
            Graph g = graph_new(c, PLAIN_USE);
            graph_backward(&g);
            if (k == 0) {
                y = copy_of(g.out[0]->data, g.out[0]->size);
                for (int i = 0; i < g.inputs; i++) grads[i] = copy_of(g.in[i]->grad, g.in[i]->size);
            } else {
                EXPECT(same_bits(y, g.out[0]->data, g.out[0]->size), "%s: other values with %d threads", c->op->name, counts[k]);
                for (int i = 0; i < g.inputs; i++)
                    EXPECT(same_bits(grads[i], g.in[i]->grad, g.in[i]->size), "%s: other bits in d/d %s with %d threads",
                            c->op->name, g.in[i]->name, counts[k]);
            }
            graph_free(&g);
        }
        free(y);
        for (int i = 0; i < MAX_INPUTS; i++) free(grads[i]);
    }
    parallel_set_threads(2);
}

// ------------------------------------------------------------------------------------------------------ values at the extremes

TEST(softmax_and_cross_entropy_survive_large_logits)
{
    const real large[] = { 900, -900, 899, 3, 900 };
    const int target[] = { 2 };
    Tensor *x = tensor_from("x", large, SHAPE(1, 5));
    Tensor *y = op_softmax(NULL, x), *loss = op_cross_entropy(NULL, x, target);
    double sum = 2 + exp(-1);
    EXPECT(fabs(at(y, 0) - 1 / sum) < 4 * EPSILON && fabs(at(y, 2) - exp(-1) / sum) < 4 * EPSILON, "%g %g", at(y, 0), at(y, 2));
    EXPECT(at(y, 1) < 1e-30 && at(y, 3) < 1e-30, "%g %g", at(y, 1), at(y, 3));
    EXPECT(fabs(at(loss, 0) - (1 + log(sum))) < 900 * EPSILON, "%.9g, not %.9g", at(loss, 0), 1 + log(sum));
    tensor_drop(loss);
    tensor_drop(y);
    for (int64_t i = 0; i < x->size; i++) x->data[i] = (real)-1e4 + (real)i; // all far below 0: still a distribution
    y = op_softmax(NULL, x);
    sum = 0;
    for (int64_t i = 0; i < y->size; i++) sum += at(y, i);
    EXPECT(fabs(sum - 1) < 8 * EPSILON && at(y, 4) > at(y, 3), "the sum is %.9g", sum);
    tensor_drop(y);
    tensor_drop(x);
}

TEST(softmax_keeps_nan)
{
    Tensor *x = tensor_from("x", (real[]){ 1, (real)NAN, 2 }, SHAPE(1, 3)), *y = op_softmax(NULL, x);
    EXPECT(isnan(at(y, 0)) && isnan(at(y, 1)) && isnan(at(y, 2)), "softmax hides a NaN: %g %g %g", at(y, 0), at(y, 1), at(y, 2));
    tensor_drop(x), tensor_drop(y);
}

TEST(gelu_far_from_zero)
{
    const real far[] = { -40, -12, -6, 6, 12, 40, 0 };
    Tensor *x = tensor_from("x", far, SHAPE(7));
    x->requires_grad = true;
    Tape *tape = tape_new();
    Tensor *y = op_gelu(tape, x);
    backward(tape, op_sum(tape, y));
    for (int i = 0; i < 7; i++) {
        EXPECT(fabs(at(y, i) - gelu_of((double)far[i])) <= 1e-6 + 4 * EPSILON * fabs((double)far[i]), "gelu(%g) = %g",
                (double)far[i], at(y, i));
        double slope = i < 3 ? 0 : i < 6 ? 1 : 0.5;
        EXPECT(fabs((double)x->grad[i] - slope) < 1e-6, "the slope at %g is %g", (double)far[i], (double)x->grad[i]);
    }
    tape_free(tape);
    tensor_drop(x);
}

TEST(relu_has_slope_0_at_0)
{
    Tensor *x = tensor_from("x", (real[]){ 0, (real)-0.5, (real)0.5 }, SHAPE(3));
    x->requires_grad = true;
    Tape *tape = tape_new();
    backward(tape, op_sum(tape, op_relu(tape, x)));
    EXPECT(x->grad[0] == 0 && x->grad[1] == 0 && x->grad[2] == 1, "%g %g %g", (double)x->grad[0], (double)x->grad[1], (double)x->grad[2]);
    tape_free(tape);
    tensor_drop(x);
}

// ------------------------------------------------------------------------------------------------------------------- dropout

static real *dropped(Tape *tape, Tensor *x, real p, int calls_before)
{
    tape_clear(tape);
    for (int i = 0; i < calls_before; i++) op_dropout(tape, x, p);
    return copy_of(op_dropout(tape, x, p)->data, x->size);
}

TEST(dropout_drops_its_share_and_can_be_replayed)
{
    enum { N = 20000 };
    Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(N));
    for (int64_t i = 0; i < N; i++) x->data[i] = 3;
    Tape *tape = tape_new();
    static const double chances[] = { 0, 0.1, 0.5, 0.9 };
    for (int k = 0; k < 4; k++) {
        tape->dropout_seed = 11;
        real *y = dropped(tape, x, (real)chances[k], 0);
        int64_t zeros = 0, others = 0, pairs = 0;
        for (int64_t i = 0; i < N; i++) {
            zeros += y[i] == 0;
            others += y[i] != 0 && fabs((double)y[i] - 3 / (1 - chances[k])) > 100 * EPSILON;
            pairs += i > 0 && y[i] == 0 && y[i - 1] == 0;
        }
        double share_ = (double)zeros / N, deviation = sqrt(chances[k] * (1 - chances[k]) / N);
        EXPECT(fabs(share_ - chances[k]) <= 5 * deviation, "p = %g: a share of %g is zero", chances[k], share_);
        EXPECT(fabs((double)pairs / N - chances[k] * chances[k]) <= 0.03, "p = %g: neighbours are not independent: %g",
                chances[k], (double)pairs / N);
        EXPECT(others == 0, "p = %g: %" PRId64 " elements are neither 0 nor x / (1 - p)", chances[k], others);
        real *again = dropped(tape, x, (real)chances[k], 0), *next = dropped(tape, x, (real)chances[k], 1);
        tape->dropout_seed = 12;
        real *other = dropped(tape, x, (real)chances[k], 0);
        EXPECT(same_bits(y, again, N), "p = %g: the same call gave other elements", chances[k]);
        if (k > 0) EXPECT(!same_bits(y, next, N) && !same_bits(y, other, N),
                "p = %g: another call, or another seed, gave the same elements", chances[k]);
        free(y), free(again), free(next), free(other);
    }
    tape_free(tape);
    tensor_drop(x);
}

// Threads seldom show that two parts share an element, for mostly one ends before the other; reversing the order does.
TEST(parts_of_an_embedding_gradient_run_in_any_order)
{
    enum { V_ = 7, T_ = 9, C_ = 51, ROWS = 3 * T_, PARTS = 3 };
    Tensor *wte = tensor_new("wte", MEMORY_WEIGHTS, SHAPE(V_, C_)), *wpe = tensor_new("wpe", MEMORY_WEIGHTS, SHAPE(T_, C_));
    wte->requires_grad = wpe->requires_grad = true;
    Tape *tape = tape_new();
    op_embedding(tape, wte, wpe, ids_below(V_, ROWS), 3, T_);
    real dy[ROWS * C_];
    for (int i = 0; i < ROWS * C_; i++) dy[i] = (real)(random_uniform(5, (uint64_t)i) - 0.5);
    Node *node = &tape->nodes[0];
    node->out->grad = dy;
    for (int input = 0; input < 2; input++) {
        real sums[2][T_ * C_] = { { 0 } };
        for (int order = 0; order < 2; order++) {
            node->in[input]->grad = sums[order];
            for (int i = 0; i < PARTS; i++) embedding_op.input[input].grad(node, (Part){ order ? PARTS - 1 - i : i, PARTS });
            node->in[input]->grad = NULL;
        }
        EXPECT(same_bits(sums[0], sums[1], T_ * C_) && norm_of(sums[0], T_ * C_) > 1, "input %d: two parts add to one element", input);
    }
    node->out->grad = NULL;
    tape_free(tape);
    tensor_drop(wte), tensor_drop(wpe);
}

// ------------------------------------------------------------------------------------------- the largest, and other places in a row

// Rows as long as vectors, and one more or less; and longer than any buffer that a kernel may have.
static const int row_lengths[] = { 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 34, 48, 63, 64, 65, 255, 256, 257, 272, 300, 511, 513, 1025 };
enum { ROW_LENGTHS = sizeof row_lengths / sizeof *row_lengths, LONGEST = 1025 };

// Softmax and cross entropy of one row, the value and dx, against the same in double. `scale` is that of the numbers.
static void check_row(const char *what, const Tensor *x, int target, double scale)
{
    static double p[LONGEST];
    const int V = last_dim(x);
    double largest = at(x, 0), sum = 0;
    for (int v = 0; v < V; v++) largest = fmax(largest, at(x, v));
    for (int v = 0; v < V; v++) sum += p[v] = exp(at(x, v) - largest);
    for (int v = 0; v < V; v++) p[v] /= sum;
    Tape *tape = tape_new();
    Tensor *y = op_softmax(tape, (Tensor *)x), *loss = op_cross_entropy(tape, (Tensor *)x, &target);
    double expected = log(sum) + largest - at(x, target), wrong = 0, wrong_gradient = 0, bound = (20 + 2 * scale) * EPSILON + (IN_DOUBLE ? 0 : 1e-6);
    for (int v = 0; v < V; v++) wrong = fmax(wrong, isfinite(at(y, v)) ? fabs(at(y, v) - p[v]) : 1);
    EXPECT(fabs(at(loss, 0) - expected) <= (scale + 10) * 4 * EPSILON, "%s: cross entropy %.9g, not %.9g", what, at(loss, 0), expected);
    EXPECT(wrong <= bound, "%s: softmax is off by %.3g", what, wrong);
    backward(tape, op_sum(tape, op_scale(tape, loss, 3)));
    for (int v = 0; v < V; v++) {
        double error = fabs((double)x->grad[v] - 3 * (p[v] - (v == target)));
        wrong_gradient = fmax(wrong_gradient, isfinite(error) ? error : 1);
    }
    EXPECT(wrong_gradient <= 3 * bound, "%s: the gradient of cross entropy is off by %.3g", what, wrong_gradient);
    tape_free(tape);
    tensor_drop_grad((Tensor *)x);
}

// Two logits far above all others, a little apart: only with the true maximum taken off is one e times as likely as the other.
TEST(the_largest_logit_at_every_place)
{
    for (int k = 0; k < ROW_LENGTHS; k++) {
        const int V = row_lengths[k], step = V <= 34 ? 1 : V / 16 > 16 ? 16 : 8;
        Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(1, V));
        x->requires_grad = true;
        for (int i = -2; i <= V; i += i < 2 ? 1 : step) { // each place, or the first two, the last two, and those at ends of vectors
            const int place = (i + V) % V, other = V == 1 ? 0 : place == 0 ? V - 1 : i % 2 ? 0 : place - 1;
            char what[80];
            snprintf(what, sizeof what, "%d logits, the largest at %d, the next at %d", V, place, other);
            for (int v = 0; v < V; v++) x->data[v] = (real)irregular(5, v, 1);
            x->data[other] = 999, x->data[place] = 1000;
            check_row(what, x, other, 1000);
            x->data[other] = 1; // alone
            check_row(what, x, place, 1000);
            x->data[place] = -1000, x->data[other] = -1000; // and the least
            check_row(what, x, place, 2000);
        }
        tensor_drop(x);
    }
}

TEST(rows_of_logits_of_every_length)
{
    for (int k = 0; k < ROW_LENGTHS; k++)
        for (int target = 0; target < 3; target++) {
            const int V = row_lengths[k];
            Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(1, V));
            x->requires_grad = true;
            fill_irregular(x, 12, 4);
            char what[80];
            snprintf(what, sizeof what, "%d logits", V);
            check_row(what, x, target == 0 ? 0 : target == 1 ? V - 1 : V / 2, 8);
            tensor_drop(x);
        }
}

// --------------------------------------------------------------------------------------------------------------------- token ids

enum { IDS_V = 11, IDS_T = 6 };

static Transformer *small_transformer(void)
{
    char error[200];
    return transformer_new((Config){ IDS_V, IDS_T, 1, 2, 8, 0 }, 5, error, sizeof error);
}

static int bad_ids[4 * IDS_T]; // of two rows and more; all 0 but for one, set by the test

static void in_embedding(void)
{
    Transformer *model = small_transformer();
    op_embedding(NULL, model->wte, model->wpe, bad_ids, 2, IDS_T);
}

static void in_cross_entropy(void) { op_cross_entropy(NULL, tensor_new("logits", MEMORY_WEIGHTS, SHAPE(2, IDS_T, IDS_V)), bad_ids); }
static void in_logits(void) { transformer_logits(small_transformer(), NULL, bad_ids, 2, IDS_T); }
static void in_loss(void) { transformer_loss(small_transformer(), NULL, bad_ids, (int[2 * IDS_T]){ 0 }, 2, IDS_T); }
static void in_targets(void) { transformer_loss(small_transformer(), NULL, (int[2 * IDS_T]){ 0 }, bad_ids, 2, IDS_T); }
static void in_mixed(void) { transformer_logits_mixed(small_transformer(), (const Adapter *[2]){ NULL, NULL }, bad_ids, 2, IDS_T); }
static void in_generate(void) { generate(small_transformer(), bad_ids, IDS_T, 1, 1, 0, 1); }
static void in_evaluation(void) { evaluate_all(small_transformer(), bad_ids, 2 * IDS_T); }
static void in_estimate(void) { evaluate_quickly(small_transformer(), bad_ids, IDS_T + 1, 2); }

static void in_next(void)
{
    Transformer *model = small_transformer();
    Cache cache = cache_new(model);
    transformer_next(model, &cache, bad_ids, IDS_T);
}

static void in_a_step(void)
{
    Transformer *model = small_transformer();
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    training_step(model, tape_new(), optimizer, bad_ids, (int[2 * IDS_T]){ 0 }, 2, IDS_T, 1, 0, 0.01);
}

// Whoever takes ids refuses one that is none, at the first place and at the last: it would read beside the table.
TEST(ids_that_are_none_are_refused)
{
    static const struct { void (*deed)(void); const char *name, *says; int last; } takers[] = {
        { in_embedding, "op_embedding", "embedding: id", 2 * IDS_T - 1 }, { in_cross_entropy, "op_cross_entropy", "cross_entropy: target", 2 * IDS_T - 1 },
        { in_logits, "transformer_logits", "embedding: id", 2 * IDS_T - 1 }, { in_loss, "transformer_loss", "embedding: id", 2 * IDS_T - 1 },
        { in_targets, "transformer_loss", "cross_entropy: target", 2 * IDS_T - 1 }, { in_mixed, "transformer_logits_mixed", "embedding: id", 2 * IDS_T - 1 },
        { in_next, "transformer_next", "transformer_next: id", IDS_T - 1 }, { in_generate, "generate", "transformer_next: id", IDS_T - 1 },
        { in_evaluation, "evaluate_all", "embedding: id", 2 * IDS_T - 2 }, { in_estimate, "evaluate_quickly", "embedding: id", IDS_T - 1 },
        { in_a_step, "training_step", "embedding: id", 2 * IDS_T - 1 },
    };
    for (size_t k = 0; k < sizeof takers / sizeof *takers; k++)
        for (int form = 0; form < 5; form++) {
            const int place = form & 1 ? takers[k].last : 0, id = form == 4 ? 0 : form & 2 ? IDS_V : -1;
            char expected[80];
            snprintf(expected, sizeof expected, "%s %d at ", takers[k].says, id);
            bad_ids[place] = id;
            int status = in_child(takers[k].deed);
            bad_ids[place] = 0;
            if (form == 4) EXPECT(status == 0, "%s: status %d although all is good: %s", takers[k].name, status, said);
            else EXPECT(status == -1 && strstr(said, expected) && strstr(said, "is not in 0..10"), "%s, %d at %d: status %d, and it said: %s", takers[k].name, id, place, status,
                        said);
        }
}

// ------------------------------------------------------------------------------------------------------------------ shared work

// How many of `count` numbers have changed, of which `was` is a copy; sets how many changed that `owner` says another part changed.
static int64_t changed(const real *now, const real *was, int64_t count, unsigned char *owner, int64_t *twice)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        if (same_bits(&now[i], &was[i], 1)) continue;
        sum++;
        *twice += owner[i]++ > 0;
    }
    return sum;
}

// Runs a kernel on each of `parts` parts, each time on numbers that are as before, and counts what each writes to `to`.
static void check_shares(const char *what, Node *n, Kernel *kernel, real *to, int64_t size, int parts)
{
    real *was = copy_of(to, size);
    unsigned char *owner = calloc((size_t)size, 1);
    int64_t twice = 0, all = 0, least = size, most = 0;
    for (int i = 0; i < parts; i++) {
        memcpy(to, was, (size_t)size * sizeof *to);
        kernel(n, (Part){ i, parts });
        int64_t own = changed(to, was, size, owner, &twice);
        all += own;
        least = own < least ? own : least;
        most = own > most ? own : most;
    }
    EXPECT(twice == 0 && all > size / 4, "%s, %d parts: %" PRId64 " of %" PRId64 " numbers are written, %" PRId64 " by two parts", what, parts, all, size, twice);
    EXPECT(3 * most * parts <= 5 * all && 3 * least * parts >= all, "%s, %d parts: of %" PRId64 " numbers one part writes %" PRId64 ", another %" PRId64, what, parts, all, most,
           least);
    free(was), free(owner);
}

static void fill_gradient(Tensor *t, uint64_t seed)
{
    t->grad = memory_take(is_leaf(t) ? MEMORY_PARAMETER_GRADIENTS : MEMORY_ACTIVATION_GRADIENTS, t->size);
    for (int64_t i = 0; i < t->size; i++) t->grad[i] = (real)irregular(seed, i, 1);
}

// Shapes of which every side is long enough for three parts, of ops that share more than rows; the others have their large case.
static const Case shared_cases[] = {
    { &matmul_op, do_matmul, NULL, { { "a", 2, { 200, 256 } }, { "b", 2, { 256, 250 } } }, .large = true },
    { &embedding_op, do_embedding, NULL, { { "wte", 2, { 11, 200 } }, { "wpe", 2, { 32, 200 } } }, .large = true },
    { &layernorm_op, do_layernorm, NULL, { { "x", 2, { 30, 200 } }, { "gain", 1, { 200 } }, { "bias", 1, { 200 } } }, .large = true },
    { &linear_op, do_linear, NULL, { { "x", 2, { 200, 256 } }, { "W", 2, { 256, 250 } }, { "b", 1, { 250 } } }, .large = true },
    { &linear_op, do_linear, NULL, { { "x", 2, { 8, 250 } }, { "W", 2, { 250, 256 } }, { "b", 1, { 256 } } }, .large = true },
    { &lm_head_op, do_lm_head, NULL, { { "x", 2, { 200, 256 } }, { "wte", 2, { 250, 256 } } }, .large = true },
    { &attention_op, do_attention_3, NULL, { { "qkv", 3, { 2, 20, 54 } } }, .large = true },
    { &cross_entropy_op, do_cross_entropy, NULL, { { "logits", 2, { 200, 30 } } }, .large = true },
    { &matmul_add_op, do_matmul_add_kept, NULL, { { "y", 2, { 200, 250 } }, { "h", 2, { 200, 64 } }, { "B", 2, { 64, 250 } } }, .large = true },
};
enum { SHARED_CASES = sizeof shared_cases / sizeof *shared_cases };

// A kernel that gives all of its work to one part is right, and as slow as with one thread. Counted in numbers that each part writes.
static void share_out(const Case *c, int parts)
{
    Graph g = graph_new(c, PLAIN_USE);
    graph_forward(&g);
    Node *n = node_of(&g);
    char what[MAX_NAME + 40];
    fill_gradient(n->out, 7);
    for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++) {
        Tensor *in = n->in[i];
        if (n->op->input[i].grad == NULL) continue;
        snprintf(what, sizeof what, "%s, d/d %s", n->op->name, in->name);
        if (n->op->input[i].in_place) { check_shares(what, n, n->op->input[i].grad, n->out->grad, n->out->size, parts); continue; }
        if (in->grad == NULL) fill_gradient(in, 8);
        check_shares(what, n, n->op->input[i].grad, in->grad, in->size, parts);
    }
    for (int64_t i = 0; i < n->out->size; i++) n->out->data[i] = (real)-77; // the forward last: gradients read what it made
    snprintf(what, sizeof what, "%s, forward", n->op->name);
    if (n->out->size > 1) check_shares(what, n, n->op->forward, n->out->data, n->out->size, parts);
    graph_free(&g);
}

TEST(each_part_of_a_kernel_has_its_share)
{
    bool seen[MOST_OPS] = { [0] = false };
    seen[number_of(&recompute_op)] = true; // its block's ops are
    for (int c = 0; c < SHARED_CASES + CASES; c++) {
        const Case *one = c < SHARED_CASES ? &shared_cases[c] : &cases[c - SHARED_CASES];
        if (!one->large || (c >= SHARED_CASES && seen[number_of(one->op)])) continue;
        for (int parts = 2; parts <= 3; parts++) share_out(one, parts);
        seen[number_of(one->op)] = true;
    }
    for (int op = 0; all_ops[op] != NULL; op++) EXPECT(seen[op], "%s is not among the cases", all_ops[op]->name);
}

// ---- on threads of their own

enum { MOST_PARTS = 8 };
static struct { pthread_t thread[MOST_PARTS]; int calls[MOST_PARTS], count; } who; // computed which part, of how many

static void note(Part part)
{
    if (part.index >= MOST_PARTS) return;
    who.thread[part.index] = pthread_self();
    who.calls[part.index]++;
    if (part.index == 0) who.count = part.count;
}

// Whether `parts` parts ran once each, each on another thread, the first on the caller's.
static bool on_threads(int parts)
{
    bool good = who.count == parts && pthread_equal(who.thread[0], pthread_self());
    for (int i = 0; i < MOST_PARTS; i++) {
        good &= who.calls[i] == (i < parts);
        for (int j = 0; j < i && i < parts; j++) good &= !pthread_equal(who.thread[i], who.thread[j]);
    }
    memset(&who, 0, sizeof who);
    return good;
}

static void noted_work(void *context, Part part) { (void)context, note(part); }

static void noted_forward(const Node *n, Part part)
{
    Share s = elements(n, part);
    note(part);
    for (int64_t i = s.begin; i < s.end; i++) n->out->data[i] = n->in[0]->data[i];
}

static void noted_grad(const Node *n, Part part) { (void)n, note(part); }
static int64_t noted_flops(const Node *n) { return n->heads; }

static bool gradients_on_threads;
static int gradients_seen;
static bool look_at_gradient(void *watcher, const Tape *tape, const Node *n, int input, Event event)
{
    (void)tape;
    if (event != AFTER || input == FORWARD || strcmp(n->op->name, "noted") != 0) return true;
    gradients_seen++;
    gradients_on_threads &= on_threads(*(const int *)watcher);
    return true;
}

// Elementwise work of many numbers, and a product of few numbers and many FLOPs: both are worth the threads, forward and backward.
TEST(kernels_run_on_as_many_threads_as_were_asked_for)
{
    const Op elementwise = { .name = "noted", .forward = noted_forward, .input = { { .grad = noted_grad }, { .grad = noted_grad } } };
    const Op heavy = { .name = "noted", .forward = noted_forward, .flops = noted_flops, .input = { { .grad = noted_grad, .work = 1 }, { .grad = noted_grad, .work = 1 } } };
    static const int counts[] = { 2, 1, 3, 2, 5 };
    for (int k = 0; k < 5; k++) {
        parallel_set_threads(counts[k]);
        int threads = parallel_threads(); // the plain build has one
        for (int round = 0; round < 20; round++) {
            parallel_run(noted_work, NULL);
            EXPECT(on_threads(threads), "%d threads, round %d: the parts did not run on a thread each", threads, round);
        }
        for (int form = 0; form < 2; form++) {
            Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(form ? 2 : 300, 200)), *w = tensor_new("w", MEMORY_WEIGHTS, SHAPE(3));
            x->requires_grad = w->requires_grad = true;
            Tape *tape = tape_new();
            memset(&who, 0, sizeof who);
            Tensor *y = record(tape, (Node){ .op = form ? &heavy : &elementwise, .in = { x, w }, .heads = 1000000 }, NULL, x->ndim, x->shape);
            EXPECT(on_threads(threads), "%d threads, %s: forward does not run on all of them", threads, form ? "a product" : "elements");
            tape->watch = look_at_gradient, tape->watcher = &threads;
            gradients_on_threads = true, gradients_seen = 0;
            backward(tape, op_sum(tape, y));
            EXPECT(gradients_on_threads && gradients_seen == 2, "%d threads, %s: %d gradients, not on all of them", threads, form ? "a product" : "elements", gradients_seen);
            tape_free(tape);
            tensor_drop(x), tensor_drop(w);
        }
    }
    parallel_set_threads(2);
}

// ---- who computed a number? Every thread has a rounding mode of its own: the second one rounds up, so what it computes has other bits.

static void round_up(void *context, Part part) { (void)context, fesetround(part.index > 0 ? FE_UPWARD : FE_TONEAREST); }
static void round_as_usual(void *context, Part part) { (void)context, (void)part, fesetround(FE_TONEAREST); }

static bool can_round_up(void) // valgrind cannot
{
    volatile double one = 1, little = 1e-20, sum;
    fesetround(FE_UPWARD);
    sum = one + little;
    fesetround(FE_TONEAREST);
    return sum > 1;
}

enum { SLICES = 16 };
// Of 16 slices of a matrix, how many have other bits: slices across its rows or its columns, whichever are fewer. columns 1: a list.
static int slices_that_differ(const real *a, const real *b, int64_t size, int columns)
{
    bool differ[2][SLICES] = { { false } };
    int count[2] = { 0 };
    for (int64_t i = 0; i < size; i++)
        if (!same_bits(&a[i], &b[i], 1)) differ[0][i * SLICES / size] = differ[1][i % columns * SLICES / columns] = true;
    for (int k = 0; k < 2 * SLICES; k++) count[k / SLICES] += differ[k / SLICES][k % SLICES];
    return columns > 1 && count[1] < count[0] ? count[1] : count[0];
}

// Each deed, once with all threads rounding alike and once with one rounding up, leaves its numbers for comparison.
static void expect_shared(const char *what, real *(*deed)(int64_t *size), int columns)
{
    int64_t size;
    real *alone = deed(&size);
    parallel_run(round_up, NULL);
    real *shared = deed(&size);
    parallel_run(round_as_usual, NULL);
    real *again = deed(&size);
    int slices = slices_that_differ(alone, shared, size, columns);
    EXPECT(same_bits(alone, again, size), "%s: other bits the second time", what);
    EXPECT(slices >= SLICES / 2 - 2 && slices <= SLICES / 2 + 2, "%s: of %d slices the second thread computes %d", what, SLICES, slices);
    free(alone), free(shared), free(again);
}

enum { EACH = 40 * 16 * SLICES }; // numbers of a tensor: in each slice many that a rounding changes

static Tensor *some_weights(const char *name, int rows_, int columns, uint64_t seed)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE(rows_, columns));
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (real)((random_uniform(seed, (uint64_t)i) - 0.5) / 3); // no sum of two is exact
    t->requires_grad = true;
    return t;
}

static void fill_rough_gradient(Tensor *t, uint64_t seed)
{
    fill_gradient(t, seed);
    for (int64_t i = 0; i < t->size; i++) t->grad[i] /= 3;
}

static real *deed_adamw(int64_t *size)
{
    Tensor *t = some_weights("t", 80, EACH / 80, 1);
    AdamW *optimizer = adamw_new(&t, 1, (AdamWConfig){ 0.9, 0.97, 0.1, 0 }); // no clipping: it would depend on the norm's bits
    fill_rough_gradient(t, 2);
    adamw_step(optimizer, 0.01);
    real *copy = copy_of(t->data, *size = t->size);
    adamw_free(optimizer);
    tensor_drop(t);
    return copy;
}

static real *deed_squares(int64_t *size) // of 16 tensors, one number each
{
    Tensor *t[SLICES];
    for (int i = 0; i < SLICES; i++) t[i] = some_weights("t", 30, 40, (uint64_t)i), fill_rough_gradient(t[i], 30 + (uint64_t)i);
    AdamW *optimizer = adamw_new(t, SLICES, (AdamWConfig){ 0.9, 0.97, 0.1, 0 });
    adamw_step(optimizer, 0.01);
    real *copy = calloc(2 * SLICES, sizeof *copy); // a slice has room for a double
    for (int i = 0; i < SLICES; i++) memcpy(copy + 2 * i, &optimizer->squares[i], sizeof *optimizer->squares);
    *size = 2 * SLICES;
    adamw_free(optimizer);
    for (int i = 0; i < SLICES; i++) tensor_drop(t[i]);
    return copy;
}

static real *deed_merge(int64_t *size)
{
    Lora lora = lora_new("lora", 256, 64, 4, 0.7, 3);
    Tensor *W = some_weights("W", 256, 64, 4);
    for (int64_t i = 0; i < lora.B->size; i++) lora.B->data[i] = (real)(random_uniform(5, (uint64_t)i) - 0.5);
    Linear linear = { .weight = W, .lora = &lora };
    linear_merge(&linear);
    real *copy = copy_of(W->data, *size = W->size);
    linear_unmerge(&linear);
    lora_free(&lora);
    tensor_drop(W);
    return copy;
}

static real *deed_pass(int64_t *size) // x's gradient: d from the second product, and then c, which the addition passes on
{
    Tensor *x = some_weights("x", 300, 160, 1), *w = some_weights("w", 300, 160, 2), *c = some_weights("c", 300, 160, 3), *d = some_weights("d", 300, 160, 4);
    w->requires_grad = c->requires_grad = d->requires_grad = false;
    Tape *tape = tape_new();
    Tensor *first = op_mul(tape, op_add(tape, x, w), c), *second = op_mul(tape, x, d);
    backward(tape, op_sum(tape, op_add(tape, first, second)));
    real *copy = copy_of(x->grad, *size = x->size);
    tape_free(tape);
    tensor_drop(x), tensor_drop(w), tensor_drop(c), tensor_drop(d);
    return copy;
}

static real *deed_products(int64_t *size)
{
    Tensor *a = some_weights("a", 160, 60, 1), *b = some_weights("b", 60, 64, 2), *y = op_matmul(NULL, a, b);
    real *copy = copy_of(y->data, *size = y->size);
    tensor_drop(a), tensor_drop(b), tensor_drop(y);
    return copy;
}

// The heads of which the second thread computes the attention of new tokens: only one at a time reaches the logits.
static void expect_shared_heads(void)
{
    enum { HEADS = 4, WIDTH = 16, LENGTH = 12 };
    char error[200];
    Transformer *model = transformer_new((Config){ 11, LENGTH, 1, HEADS, WIDTH, 0 }, 5, error, sizeof error);
    for (int i = 0; i < model->parameter_count; i++) fill_irregular(model->parameters[i], 70 + (uint64_t)i, 1);
    Tensor *proj = model->blocks[0].linear[ATTN_C_PROJ].weight;
    for (int head = 0; head < HEADS; head++) {
        real *logits[2];
        for (int64_t i = 0; i < proj->size; i++) proj->data[i] = i / WIDTH / (WIDTH / HEADS) == head ? (real)irregular(3, i, 1) : 0;
        for (int up = 0; up < 2; up++) {
            Cache cache = cache_new(model);
            parallel_run(up ? round_up : round_as_usual, NULL);
            Tensor *next = transformer_next(model, &cache, ids_below(11, LENGTH), LENGTH);
            logits[up] = copy_of(next->data, next->size);
            tensor_drop(next);
            cache_free(&cache);
        }
        parallel_run(round_as_usual, NULL);
        EXPECT(same_bits(logits[0], logits[1], 11) == (head < HEADS / 2), "head %d of new tokens is computed by the %s thread", head, head < HEADS / 2 ? "second" : "first");
        free(logits[0]), free(logits[1]);
    }
    transformer_free(model);
}

TEST(two_threads_share_what_is_not_an_op)
{
    EXPECT(parallel_threads() <= 2, "%d threads", parallel_threads());
    if (parallel_threads() == 1 || !can_round_up()) return; // the plain build has one thread
    expect_shared("adamw's update", deed_adamw, 1);
    expect_shared("the squares of adamw's norm", deed_squares, 1);
    expect_shared("merging", deed_merge, 64);
    expect_shared("a gradient passed on", deed_pass, 1);
    expect_shared("a product", deed_products, 64);
    expect_shared_heads();
}

// ---- who wrote a zero, or a copy? These have the same bits whoever writes them: so the pages of their buffer are closed, and the thread
// that comes to a page first is noted when it is stopped there.

enum { MOST_PAGES = 512 };
static struct { char *begin; size_t page; int count; pthread_t by[MOST_PAGES]; bool touched[MOST_PAGES]; } closed;

static void on_touch(int number, siginfo_t *info, void *context)
{
    (void)context;
    int64_t i = ((char *)info->si_addr - closed.begin) / (int64_t)closed.page;
    if ((char *)info->si_addr < closed.begin || i >= closed.count) { signal(number, SIG_DFL); return; } // another fault: it comes again, and is the end
    closed.by[i] = pthread_self();
    closed.touched[i] = true;
    mprotect(closed.begin + i * (int64_t)closed.page, closed.page, PROT_READ | PROT_WRITE);
}

// Closes the whole pages of the buffer that the `turn`-th request of `size` numbers will get.
static void close_pages(int64_t size, int turn)
{
    real *buffer[2];
    for (int i = 0; i < turn; i++) buffer[i] = memory_take(MEMORY_WORKSPACE, size);
    closed.page = (size_t)sysconf(_SC_PAGESIZE);
    closed.begin = (char *)(((uintptr_t)buffer[turn - 1] + closed.page) / closed.page * closed.page); // the pool writes in front
    closed.count = (int)((uintptr_t)((char *)(buffer[turn - 1] + size) - closed.begin) / closed.page);
    if (closed.count > MOST_PAGES) closed.count = MOST_PAGES;
    memset(closed.touched, 0, sizeof closed.touched);
    for (int i = turn - 1; i >= 0; i--) memory_give(MEMORY_WORKSPACE, buffer[i], size);
    mprotect(closed.begin, (size_t)closed.count * closed.page, PROT_NONE);
}

static void nothing(const Node *n, Part part) { (void)n, (void)part; }
static const Op swallow = { .name = "swallow", .forward = nothing, .input = { { .grad = nothing } } }; // x of any size -> [1]

// The gradient of x is cleared for the kernel; or, with `passes`, copied from that of w + x.
static void check_pages(bool passes)
{
    Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(200, 400)), *w = tensor_new("w", MEMORY_WEIGHTS, SHAPE(200, 400));
    x->requires_grad = true;
    Tape *tape = tape_new();
    Tensor *loss = record(tape, (Node){ .op = &swallow, .in = { passes ? op_add(tape, w, x) : x } }, NULL, SHAPE(1));
    struct sigaction act = { .sa_sigaction = on_touch, .sa_flags = SA_SIGINFO }, segv, bus;
    sigaction(SIGSEGV, &act, &segv), sigaction(SIGBUS, &act, &bus);
    close_pages(x->size, passes ? 2 : 1);
    backward(tape, loss);
    mprotect(closed.begin, (size_t)closed.count * closed.page, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &segv, NULL), sigaction(SIGBUS, &bus, NULL);
    int touched = 0, second = 0;
    for (int i = 0; i < closed.count; i++) {
        touched += closed.touched[i];
        second += closed.touched[i] && !pthread_equal(closed.by[i], pthread_self());
    }
    EXPECT(touched == closed.count && touched > 4, "passes %d: %d of %d pages of a gradient are written", passes, touched, closed.count);
    EXPECT(4 * second >= touched && 4 * second <= 3 * touched, "passes %d: of %d pages the second thread writes %d", passes, touched, second);
    tape_free(tape);
    tensor_drop(x), tensor_drop(w);
}

TEST(two_threads_share_zeros_and_copies)
{
    EXPECT(parallel_threads() <= 2, "%d threads", parallel_threads());
#ifdef POISON // the caller writes into each buffer that it takes
    const bool first_come = false;
#else
    const bool first_come = true;
#endif
    for (int passes = 0; passes < 2 && parallel_threads() == 2 && first_come; passes++) check_pages(passes);
}

int main(void)
{
    parallel_set_threads(2);
    RUN(the_checker_rejects_wrong_gradients);
    RUN(mistakes_get_their_hints);
    RUN(gradients_of_each_op_alone);
    RUN(gradients_of_inputs_used_twice);
    RUN(gradients_of_one_tensor_in_two_places);
    RUN(a_tensor_minus_itself);
    RUN(gradients_of_each_op_between_others);
    RUN(no_op_and_no_input_is_missed);
    RUN(frozen_inputs_change_no_other_gradient);
    RUN(a_node_keeps_what_its_gradients_read);
    RUN(first_gradients_do_not_depend_on_what_was_there);
    RUN(gradient_kernels_only_add);
    RUN(values_follow_the_formulas);
    RUN(bits_do_not_depend_on_the_threads);
    RUN(softmax_and_cross_entropy_survive_large_logits);
    RUN(softmax_keeps_nan);
    RUN(gelu_far_from_zero);
    RUN(relu_has_slope_0_at_0);
    RUN(dropout_drops_its_share_and_can_be_replayed);
    RUN(parts_of_an_embedding_gradient_run_in_any_order);
    RUN(the_largest_logit_at_every_place);
    RUN(rows_of_logits_of_every_length);
    RUN(ids_that_are_none_are_refused);
    RUN(each_part_of_a_kernel_has_its_share);
    RUN(kernels_run_on_as_many_threads_as_were_asked_for);
    RUN(two_threads_share_what_is_not_an_op);
    RUN(two_threads_share_zeros_and_copies);
    return test_summary();
}
