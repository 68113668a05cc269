// judge_kernels.c - see judge.h. The checks of one kernel: the ops once more, in plain loops and double, and central differences of them.

#include "judge.h"

typedef struct Naive { Problem p; Formula formula; double *in[3], *dy; } Naive;

static double softmax_sum(const double *x, int count)
{
    double sum = 0;
    for (int k = 0; k < count; k++) sum += exp(x[k]);
    return sum;
}

// y[m,n] = start[n] + before[m,n] + scale a[m,k] b[k,n], or b[n,k] if it is transposed; start and before may be NULL
static void naive_product(double *y, const double *start, const double *before, double scale, const double *a, const double *b, bool transpose,
                          int m, int n, int k)
{
    for (int r = 0; r < m; r++)
        for (int o = 0; o < n; o++) {
            double sum = 0;
            for (int i = 0; i < k; i++) sum += a[r * k + i] * (transpose ? b[o * k + i] : b[i * n + o]);
            y[r * n + o] = (start ? start[o] : 0) + (before ? before[r * n + o] : 0) + scale * sum;
        }
}

static void naive_layernorm(double *y, const double *x, const double *gain, const double *bias, int rows_count, int width)
{
    for (int r = 0; r < rows_count; r++, x += width, y += width) {
        double mean = 0, variance = 0;
        for (int c = 0; c < width; c++) mean += x[c] / width;
        for (int c = 0; c < width; c++) variance += (x[c] - mean) * (x[c] - mean) / width;
        for (int c = 0; c < width; c++) y[c] = (x[c] - mean) / sqrt(variance + 1e-5) * gain[c] + bias[c];
    }
}

static void naive_attention(double *y, const double *x, const Problem *p)
{
    int T = p->shape[0][1], C = p->shape[3][2], D = C / p->heads;
    for (int bh = 0; bh < p->shape[0][0] * p->heads; bh++) {
        const double *q = x + (int64_t)(bh / p->heads) * T * 3 * C + bh % p->heads * D, *k = q + C, *v = q + 2 * C;
        for (int t = 0; t < T; t++) {
            double weights[80], *row = y + ((int64_t)(bh / p->heads) * T + t) * C + bh % p->heads * D;
            for (int s = 0; s <= t; s++) {
                weights[s] = 0;
                for (int d = 0; d < D; d++) weights[s] += q[(int64_t)t * 3 * C + d] * k[(int64_t)s * 3 * C + d] / sqrt(D);
            }
            double sum = softmax_sum(weights, t + 1);
            for (int d = 0; d < D; d++) row[d] = 0;
            for (int s = 0; s <= t; s++) {
                double share_of_s = exp(weights[s]) / sum;
                for (int d = 0; d < D; d++) row[d] += share_of_s * v[(int64_t)s * 3 * C + d];
            }
        }
    }
}

// y of the op; the caller has room for it
static void naive_forward(const Naive *n, double *y)
{
    const Problem *p = &n->p;
    const double *x = n->in[0], *w = n->in[1], *b = n->in[2];
    int N = p->shape[0][0], width = p->shape[0][1];
    switch (n->formula) {
    case MATMUL:
    case LINEAR: naive_product(y, b, NULL, 1, x, w, false, N, p->shape[1][1], width); return;
    case MATMUL_ADD: naive_product(y, NULL, x, p->scalar, w, b, false, N, width, p->shape[1][1]); return;
    case LM_HEAD: naive_product(y, NULL, NULL, 1, x, w, true, N, p->shape[1][0], width); return;
    case LAYERNORM: naive_layernorm(y, x, w, b, N, width); return;
    case CROSS_ENTROPY:
        for (int r = 0; r < N; r++) y[r] = log(softmax_sum(x + r * width, width)) - x[r * width + p->targets[r]];
        return;
    case SOFTMAX:
        for (int r = 0; r < N; r++) {
            double sum = softmax_sum(x + r * width, width);
            for (int k = 0; k < width; k++) y[r * width + k] = exp(x[r * width + k]) / sum;
        }
        return;
    case ATTENTION: naive_attention(y, x, p); return;
    default: // GELU
        for (int64_t i = 0; i < count_of(p, 0); i++)
            y[i] = 0.5 * x[i] * (1 + tanh(0.79788456080286536 * (x[i] + 0.044715 * x[i] * x[i] * x[i])));
    }
}

static double naive_loss(void *context)
{
    const Naive *n = context;
    static double y[1 << 16];
    double sum = 0;
    naive_forward(n, y);
    for (int64_t i = 0; i < count_of(&n->p, 3); i++) sum += n->dy[i] * y[i];
    return sum;
}

static const char overwritten[] = "did you overwrite (=) where two uses meet instead of adding (+=)?";
static const char all_parts[] = "every part wrote all of it: take share(part, ...) only";

// The next array and its margins: the wrong numbers that are known are those of the gradient alone, and of so many parts that do it all.
static void judge_way(Judge *j, const Gradient *g, Way way)
{
    static const char *const names[WAYS] = { "first", "again", "in parts" };
    static const char *const ways[WAYS] = { "", ", used twice", ", in three parts" };
    static const double weights[WAYS] = { 5, 3, 2 };
    uint64_t own = seed_of(seed, way);
    Naive n = { .p = problem_of(g->formula, own, way), .formula = g->formula };
    for (int i = 0; i < 3 && n.p.ndim[i] > 0; i++) n.in[i] = numbers(i, own, count_of(&n.p, i));
    n.dy = numbers(3, own, count_of(&n.p, 3));
    int64_t count = count_of(&n.p, g->input);
    double *expected = differences(n.in[g->input], count, naive_loss, &n), *before = numbers(4, own, count);
    double *alone = room(count), *times = room(count);
    for (int64_t i = 0; i < count; i++) {
        alone[i] = expected[i];
        times[i] = PARTS * expected[i];
        if (way == AGAIN) expected[i] += before[i];
    }
    Known again[] = { { alone, overwritten }, { before, "this use adds nothing" }, { NULL, NULL } };
    Known other[] = { { times, all_parts }, { NULL, NULL } };
    char what[128];
    int last = n.p.shape[g->input][n.p.ndim[g->input] - 1];
    snprintf(what, sizeof what, "%s %c [%" PRId64 ",%d]%s", j->task->function, g->names[g->input], count / last, last, ways[way]);
    Array ours = next(j, names[way]), wrote = next(j, "wrote"), margins = next(j, "margins");
    bool inside = margins.count == 1 && margins.values[0] == 1;
    int busy = 0, whole = 0;
    for (int part = 0; part < wrote.count; part++) busy += wrote.values[part] > 0, whole += wrote.values[part] == (double)count;
    if (!inside) award(j, weights[way], false, "%s: it wrote outside its array, or into dy", what);
    else if (way == IN_PARTS && busy == 1 && whole == 1) award(j, weights[way], false, "%s: one part did all the work, and the others none: take share(part, ...)", what);
    else compare(j, weights[way], what, ours, expected, count, last, by_differences, way == AGAIN ? again : other);
}

bool judge_gradient(Judge *j)
{
    for (size_t i = 0; i < sizeof gradients / sizeof *gradients; i++) {
        if (strcmp(gradients[i].task, j->task->id) != 0) continue;
        for (int way = 0; way < WAYS; way++)
            if (way != AGAIN || gradients[i].formula != GELU) judge_way(j, &gradients[i], (Way)way);
        return true;
    }
    return false;
}

// ---- L1.5

static double *product_of(const ProductCase *c, const double *A, const double *B, double factor)
{
    double *y = room((int64_t)c->m * c->n);
    naive_product(y, NULL, NULL, factor, A, B, false, c->m, c->n, c->k);
    return y;
}

static double *transpose_of(const double *x, int rows_count, int columns)
{
    double *y = room((int64_t)rows_count * columns);
    for (int i = 0; i < rows_count; i++)
        for (int k = 0; k < columns; k++) y[k * rows_count + i] = x[i * columns + k];
    return y;
}

static void judge_product_way(Judge *j, ProductWay way)
{
    static const double weights[PRODUCT_WAYS] = { 2, 2, 1, 2, 1, 1, 1 };
    uint64_t own = seed_of(seed, 20 + (int)way);
    ProductCase c = product_case(own, way);
    int64_t count = (int64_t)c.m * c.n;
    double *stored_A = numbers(0, own, (int64_t)c.m * c.k), *stored_B = numbers(1, own, (int64_t)c.k * c.n), *A = stored_A, *B = stored_B;
    if (way == TRANSPOSED) A = transpose_of(A, c.k, c.m), B = transpose_of(B, c.n, c.k);
    double *before = numbers(4, own, count), *start = numbers(2, own, c.n);
    double *alone = product_of(&c, A, B, c.factor_A * c.factor_B), *expected = room(count);
    Share part = share((Part){ 1, PARTS }, c.m, 1);
    for (int64_t i = 0; i < count; i++) {
        bool mine = way != ONE_PART || (i / c.n >= part.begin && i / c.n < part.end);
        expected[i] = (mine ? alone[i] : 0) + (way == ADDED ? before[i] : way == FROM_A_ROW ? start[i % c.n] : 0);
    }
    bool factors = way == WITH_FACTORS;
    Known known[] = {
        { way == TRANSPOSED ? product_of(&c, stored_A, stored_B, 1) : NULL, "the steps `down` and `right` are not read: element(M, i, j) reads them" },
        { factors ? product_of(&c, A, B, 1) : NULL, "both factors are missing" },
        { factors ? product_of(&c, A, B, c.factor_A) : NULL, "B's factor is missing" },
        { factors ? product_of(&c, A, B, c.factor_B) : NULL, "A's factor is missing" },
        { way == ADDED ? alone : NULL, overwritten }, { way == FROM_A_ROW ? alone : NULL, "C.start is not read" },
        { way == ONE_PART ? alone : NULL, all_parts },
    };
    Known of_this_way[8] = { { NULL, NULL } };
    for (int i = 0, used = 0; i < 7; i++)
        if (known[i].values != NULL) of_this_way[used++] = known[i];
    char what[128];
    snprintf(what, sizeof what, "product [%d,%d] x [%d,%d], %s", c.m, c.k, c.k, c.n, product_names[way]);
    Array ours = next(j, product_names[way]), margins = next(j, "margins");
    bool inside = margins.count == 1 && margins.values[0] == 1;
    if (!inside) award(j, weights[way], false, "%s: it wrote outside C", what);
    else compare(j, weights[way], what, ours, expected, count, c.n, by_loops, of_this_way);
}

void judge_product(Judge *j)
{
    for (int way = 0; way < PRODUCT_WAYS; way++) judge_product_way(j, (ProductWay)way);
}
