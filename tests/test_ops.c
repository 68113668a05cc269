// test_ops.c - every op, alone: its values against naive formulas, each gradient against central differences (one table row per
// shape; a test demands that no op and no input is missing), that a gradient only
// adds, what a node keeps, and the same bits for any number of threads. What ops stand on is in test_kernels.c.

#include "../meter.h"
#include "../ops.h"
#include "gradcheck.h"
#include "test.h"

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
    { &layernorm_op, do_layernorm, naive_layernorm, { { "x", 3, { 2, 3, 5 } }, { "gain", 1, { 5 } }, { "bias", 1, { 5 } } }, .keeps = { "01s", "0s", "" }, .saved = 12 },
    { &layernorm_op, do_layernorm, naive_layernorm, { { "x", 2, { 4, 37 } }, { "gain", 1, { 37 } }, { "bias", 1, { 37 } } }, .keeps = { "01s", "0s", "" }, .saved = 8 },
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

// What a node keeps is what the trainable inputs' gradients read: no more (memory), and no less (the chained gradients above
// would read freed buffers). All inputs are results here, dropped by the caller at once.
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
    return test_summary();
}
