// ops_gpt.c - see ops.h. The ops of the transformer, and LoRA's second half; at the end the list of all ops. Written like those
// of ops.c, which come first.
//
// Read next: lora.h.

#include "ops.h"

// ---- embedding: y[b,t] = wte[ids[b,t]] + wpe[t]        dwte[ids[b,t]] += dy[b,t], dwpe[t] += dy[b,t]
//
// A row of dwte may be hit from anywhere in the batch, so the gradients' parts own columns, not rows.

static void embedding_forward(const Node *n, Part part)
{
    int C = last_dim(n->out), T = n->out->shape[1];
    Share s = rows(n, part);
    for (int64_t r = s.begin; r < s.end; r++) {
        const real *token = n->in[0]->data + (int64_t)n->ids[r] * C, *position = n->in[1]->data + r % T * C;
        real *y = n->out->data + r * C;
        for (int c = 0; c < C; c++) y[c] = token[c] + position[c];
    }
}

static void embedding_grad_wte(const Node *n, Part part)
{
    const real *dy = n->out->grad;
    real *dwte = n->in[0]->grad;
    int C = last_dim(n->out);
    Share s = share(part, C, GRAIN);
    for (int64_t r = 0; r < rows_of(n->out); r++)
        for (int64_t c = s.begin; c < s.end; c++) dwte[(int64_t)n->ids[r] * C + c] += dy[r * C + c];
}

static void embedding_grad_wpe(const Node *n, Part part)
{
    const real *dy = n->out->grad;
    real *dwpe = n->in[1]->grad;
    int C = last_dim(n->out), T = n->out->shape[1];
    Share s = share(part, C, GRAIN);
    for (int64_t r = 0; r < rows_of(n->out); r++)
        for (int64_t c = s.begin; c < s.end; c++) dwpe[r % T * C + c] += dy[r * C + c];
}

const Op embedding_op = { .name = "embedding", .forward = embedding_forward,
    .input = { { .grad = embedding_grad_wte, .keeps = KEEP_NONE }, { .grad = embedding_grad_wpe, .keeps = KEEP_NONE } } };

Tensor *op_embedding(Tape *tape, Tensor *wte, Tensor *wpe, const int *ids, int B, int T)
{
    check(wte->ndim == 2 && wpe->ndim == 2 && last_dim(wte) == last_dim(wpe), "embedding: %s %s and %s %s differ in width",
          wte->name, shape_text(wte), wpe->name, shape_text(wpe));
    check(T <= wpe->shape[0], "embedding: %d positions, but %s %s has %d", T, wpe->name, shape_text(wpe), wpe->shape[0]);
    for (int i = 0; i < B * T; i++)
        check(ids[i] >= 0 && ids[i] < wte->shape[0], "embedding: id %d at %d is not in 0..%d", ids[i], i, wte->shape[0] - 1);
    return record(tape, (Node){ .op = &embedding_op, .in = { wte, wpe }, .ids = ids }, NULL, SHAPE(B, T, last_dim(wte)));
}

// ---- layernorm: y = h gain + bias with h = (x - mean) rstd, rstd = 1 / sqrt(variance + 1e-5), each row of width C
//
//     dbias[c] += sum_rows dy[c],   dgain[c] += sum_rows dy[c] h[c]
//     dx[c] += rstd (g[c] - mean(g) - h[c] mean(g h)) with g = dy gain: for x moves the mean and the variance too
//
// saved: mean and rstd of each row. y is not kept for others' gradients: with x there anyway, it is made again (`again` in its row).

static void layernorm_forward(const Node *n, Part part)
{
    const real *gain = n->in[1]->data, *bias = n->in[2]->data;
    int C = last_dim(n->out);
    Share s = rows(n, part);
    for (int64_t r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * C;
        real *y = n->out->data + r * C, mean = row_sum(x, C) / (real)C;
        real rstd = 1 / (real)sqrt((double)(row_squares(x, mean, C) / (real)C) + 1e-5);
        for (int c = 0; c < C; c++) y[c] = (x[c] - mean) * rstd * gain[c] + bias[c];
        if (n->saved) n->saved[2 * r] = mean, n->saved[2 * r + 1] = rstd;
    }
}

static void layernorm_grad_x(const Node *n, Part part)
{
    const real *gain = n->in[1]->data;
    int C = last_dim(n->out);
    Share s = rows(n, part);
    for (int64_t r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * C, *dy = n->out->grad + r * C;
        real *dx = n->in[0]->grad + r * C, mean = n->saved[2 * r], rstd = n->saved[2 * r + 1];
        real g_mean = row_dot(dy, gain, C) / (real)C;
        real gh_mean = row_dot_centred(dy, gain, x, mean, C) / (real)C * rstd;
        for (int c = 0; c < C; c++) dx[c] += rstd * (dy[c] * gain[c] - g_mean - (x[c] - mean) * rstd * gh_mean);
    }
}

static void layernorm_grad_gain(const Node *n, Part part)
{
    real *dgain = n->in[1]->grad;
    int C = last_dim(n->out);
    Share s = share(part, C, GRAIN);
    for (int64_t r = 0; r < rows_of(n->out); r++) {
        const real *x = n->in[0]->data + r * C, *dy = n->out->grad + r * C;
        real mean = n->saved[2 * r], rstd = n->saved[2 * r + 1];
        for (int64_t c = s.begin; c < s.end; c++) dgain[c] += dy[c] * ((x[c] - mean) * rstd);
    }
}

static void layernorm_grad_bias(const Node *n, Part part) { column_sums(n->in[2]->grad, gradient(n->out), part); }

static int64_t two_per_row(const Node *n) { return 2 * rows_of(n->in[0]); }

const Op layernorm_op = { .name = "layernorm", .forward = layernorm_forward, .saved = two_per_row,
    .again = KEEP(0) | KEEP(1) | KEEP(2), .input = {
    { .grad = layernorm_grad_x, .keeps = KEEP(0) | KEEP(1) | KEEP_SAVED },
    { .grad = layernorm_grad_gain, .keeps = KEEP(0) | KEEP_SAVED },
    { .grad = layernorm_grad_bias, .keeps = KEEP_NONE },
} };

Tensor *op_layernorm(Tape *tape, Tensor *x, Tensor *gain, Tensor *bias)
{
    check(gain->ndim == 1 && gain->size == last_dim(x), "layernorm: %s %s does not fit the width of %s %s", gain->name,
          shape_text(gain), x->name, shape_text(x));
    check_same_shape("layernorm", gain, bias);
    return record(tape, (Node){ .op = &layernorm_op, .in = { x, gain, bias } }, NULL, x->ndim, x->shape);
}

// ---- lm_head: y[N,V] = x[N,C] wte[V,C]^T
//
//     y[n,v] = sum_c x[n,c] wte[v,c]         Y = X wte^T
//    dx[n,c] += sum_v dy[n,v] wte[v,c]      dX += dY wte       reads wte, frozen or not
//    dwte[v,c] += sum_n dy[n,v] x[n,c]      dwte += dY^T X     reads x

static void lm_head_forward(const Node *n, Part part)
{
    Matrix Y = values(n->out), X = values(n->in[0]), wte = values(n->in[1]);
    product(empty(Y), X, transposed(wte), part);
}

static void lm_head_grad_x(const Node *n, Part part)
{
    Matrix dX = gradient(n->in[0]), dY = gradient(n->out), wte = values(n->in[1]);
    product(dX, dY, wte, part);
}

static void lm_head_grad_wte(const Node *n, Part part)
{
    Matrix dwte = gradient(n->in[1]), dY = gradient(n->out), X = values(n->in[0]);
    product(dwte, transposed(dY), X, part);
}

static int64_t lm_head_flops(const Node *n) { return 2 * n->in[0]->size * n->in[1]->shape[0]; }

const Op lm_head_op = { .name = "lm_head", .forward = lm_head_forward, .flops = lm_head_flops, .weight = 1, .input = {
    { .grad = lm_head_grad_x, .keeps = KEEP(1), .work = 1 },
    { .grad = lm_head_grad_wte, .keeps = KEEP(0), .work = 1 },
} };

Tensor *op_lm_head(Tape *tape, Tensor *x, Tensor *wte)
{
    check(wte->ndim == 2 && last_dim(x) == wte->shape[1], "lm_head: %s %s and %s %s differ in width", x->name, shape_text(x),
          wte->name, shape_text(wte));
    int shape[MAX_DIMS];
    with_last_dim(shape, x, wte->shape[0]);
    return record(tape, (Node){ .op = &lm_head_op, .in = { x, wte } }, NULL, x->ndim, shape);
}

// ---- attention: in each of B*H heads, with q, k, v [T,D]: S = q k^T / sqrt(D), P = softmax of each row up to t, y = P v
//
// A part owns whole heads. What one head computes, and its gradient, is `attention` in kernels.c.
// saved: two numbers for each row of S, not T: from them the gradient makes P again.

// The columns of one head among those of all: part 0, 1, 2 for q, k, v of in[0], 0 of out
static Matrix head_of(Matrix all, const Node *n, int64_t index, int part)
{
    int T = n->out->shape[1], C = last_dim(n->out), D = C / n->heads;
    return block_of(all, index / n->heads * T, part * C + index % n->heads * D, T, D);
}

static Share heads(const Node *n, Part part) { return share(part, (int64_t)n->out->shape[0] * n->heads, 1); }

static real *stats_of(const Node *n, int64_t index) { return n->saved ? n->saved + index * n->out->shape[1] * 2 : NULL; }

static void attention_forward(const Node *n, Part part)
{
    Matrix y = values(n->out), qkv = values(n->in[0]);
    Share s = heads(n, part);
    for (int64_t i = s.begin; i < s.end; i++)
        attention(head_of(y, n, i, 0), head_of(qkv, n, i, 0), head_of(qkv, n, i, 1), head_of(qkv, n, i, 2), stats_of(n, i));
}

static void attention_grad(const Node *n, Part part)
{
    Matrix dy = gradient(n->out), qkv = values(n->in[0]), d = gradient(n->in[0]);
    Share s = heads(n, part);
    for (int64_t i = s.begin; i < s.end; i++)
        attention_gradient(head_of(d, n, i, 0), head_of(d, n, i, 1), head_of(d, n, i, 2), head_of(dy, n, i, 0),
                           head_of(qkv, n, i, 0), head_of(qkv, n, i, 1), head_of(qkv, n, i, 2), stats_of(n, i));
}

// Two products of 2D over the T(T+1)/2 pairs of a query and a key that it sees, in every head
static int64_t attention_flops(const Node *n)
{
    int64_t T = n->out->shape[1];
    return n->out->shape[0] * (T * (T + 1)) / 2 * 4 * last_dim(n->out);
}

static int64_t attention_saved(const Node *n) { return (int64_t)2 * n->out->shape[0] * n->heads * n->out->shape[1]; }

const Op attention_op = { .name = "attention", .forward = attention_forward, .flops = attention_flops,
    .saved = attention_saved,
    .input = { { .grad = attention_grad, .keeps = KEEP(0) | KEEP_SAVED, .work = 2 } } }; // four products where forward has two

Tensor *op_attention(Tape *tape, Tensor *qkv, int heads_count)
{
    check(heads_count > 0 && qkv->ndim == 3 && last_dim(qkv) % (3 * heads_count) == 0,
          "attention: %s %s is not [B, T, 3 x %d heads x D]", qkv->name, shape_text(qkv), heads_count);
    scratch_reserve(qkv->shape[1], last_dim(qkv) / 3 / heads_count);
    return record(tape, (Node){ .op = &attention_op, .in = { qkv }, .heads = heads_count }, NULL,
                  SHAPE(qkv->shape[0], qkv->shape[1], last_dim(qkv) / 3));
}

// ---- gelu: y = 0.5 x (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3); the same as y = x s with s = 1 / (1 + e^(-2u))
//      dx = dy (s + x s (1 - s) 2 du/dx), du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x^2)
//
// The gradient turns dy into dx where it lies: the one op that does (`in_place` in its row). y is made again, as layernorm's.

#define SQRT_2_PI ((real)0.7978845608028654)
#define CUBIC     ((real)0.044715)
enum { FEW = 256 }; // numbers at a time, whose exponentials are made together

// e[i] = e^(-2u) for x[0..count-1]
static void gelu_exponentials(real *e, const real *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) e[i] = -2 * SQRT_2_PI * (x[i] + CUBIC * x[i] * x[i] * x[i]);
    row_exp(e, e, 0, count);
}

static void gelu_forward(const Node *n, Part part)
{
    Share s = elements(n, part);
    for (int64_t few = s.begin; few < s.end; few += FEW) {
        int64_t count = few + FEW < s.end ? FEW : s.end - few;
        const real *x = n->in[0]->data + few;
        real *y = n->out->data + few, e[FEW];
        gelu_exponentials(e, x, count);
        for (int64_t i = 0; i < count; i++) y[i] = x[i] / (1 + e[i]);
    }
}

static void gelu_grad(const Node *n, Part part)
{
    Share s = elements(n, part);
    for (int64_t few = s.begin; few < s.end; few += FEW) {
        int64_t count = few + FEW < s.end ? FEW : s.end - few;
        const real *x = n->in[0]->data + few;
        real *dy = n->out->grad + few, e[FEW];
        gelu_exponentials(e, x, count);
        for (int64_t i = 0; i < count; i++) {
            real sigmoid = 1 / (1 + e[i]);
            dy[i] *= sigmoid + x[i] * sigmoid * (1 - sigmoid) * 2 * SQRT_2_PI * (1 + 3 * CUBIC * x[i] * x[i]);
        }
    }
}

const Op gelu_op = { .name = "gelu", .forward = gelu_forward, .again = KEEP(0),
    .input = { { .grad = gelu_grad, .keeps = KEEP(0), .in_place = true } } };

Tensor *op_gelu(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = &gelu_op, .in = { x } }, NULL, x->ndim, x->shape);
}

// ---- dropout: y[i] = x[i] / (1 - p) if element i is kept, else 0        dx[i] += the same factor times dy[i]

static real dropout_factor(const Node *n, int64_t i)
{
    return random_uniform(n->seed, (uint64_t)i) < (double)n->scalar ? 0 : 1 / (1 - n->scalar);
}

static void dropout_forward(const Node *n, Part part)
{
    const real *x = n->in[0]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = dropout_factor(n, i) * x[i];
}

static void dropout_grad(const Node *n, Part part)
{
    const real *dy = n->out->grad;
    real *dx = n->in[0]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) dx[i] += dropout_factor(n, i) * dy[i];
}

const Op dropout_op = { .name = "dropout", .forward = dropout_forward, .input = { { .grad = dropout_grad, .keeps = KEEP_NONE } } };

Tensor *op_dropout(Tape *tape, Tensor *x, real p)
{
    check(p >= 0 && p < 1, "dropout: the probability %g is not in [0, 1)", (double)p);
    uint64_t seed = tape ? random_bits(tape->dropout_seed, (uint64_t)tape->dropout_calls++) : 0;
    return record(tape, (Node){ .op = &dropout_op, .in = { x }, .scalar = tape ? p : 0, .seed = seed }, NULL, x->ndim, x->shape);
}

// ---- cross_entropy: y[r] = log(sum_k e^x[r,k]) - x[r,target]        dx[r,k] += dy[r] (softmax(x[r])[k] - (k == target))
//
// saved: the row's max and 1 / sum_k e^(x - max), as in attention.

static void cross_entropy_forward(const Node *n, Part part)
{
    int V = last_dim(n->in[0]);
    Share s = rows(n, part);
    for (int64_t r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * V;
        real max = row_max(x, V), sum = row_exp_sum(x, max, V);
        n->out->data[r] = (real)log((double)sum) + max - x[n->ids[r]];
        if (n->saved) n->saved[2 * r] = max, n->saved[2 * r + 1] = 1 / sum;
    }
}

static void cross_entropy_grad(const Node *n, Part part)
{
    int V = last_dim(n->in[0]);
    Share s = rows(n, part);
    for (int64_t r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * V, *dy = n->out->grad;
        real *dx = n->in[0]->grad + r * V, max = n->saved[2 * r], factor = n->saved[2 * r + 1] * dy[r], e[FEW];
        for (int few = 0; few < V; few += FEW) {
            int count = few + FEW < V ? FEW : V - few;
            row_exp(e, x + few, max, count);
            for (int k = 0; k < count; k++) dx[few + k] += e[k] * factor;
        }
        dx[n->ids[r]] -= dy[r];
    }
}

const Op cross_entropy_op = { .name = "cross_entropy", .forward = cross_entropy_forward, .saved = two_per_row,
    .input = { { .grad = cross_entropy_grad, .keeps = KEEP(0) | KEEP_SAVED } } };

Tensor *op_cross_entropy(Tape *tape, Tensor *logits, const int *targets)
{
    int V = last_dim(logits);
    for (int64_t r = 0; r < rows_of(logits); r++)
        check(targets[r] >= 0 && targets[r] < V, "cross_entropy: target %d at row %" PRId64 " is not in 0..%d", targets[r], r,
              V - 1);
    return record(tape, (Node){ .op = &cross_entropy_op, .in = { logits }, .ids = targets }, NULL,
                  SHAPE((int)rows_of(logits), 1)); // rows() counts rows of the result: [N,1]
}

// ---- matmul_add: out = y + s h B, LoRA's second half        y[N,O], h[N,R], B[R,O]
//
//     dy   += dout, which the engine does itself
//    dh[n,r] += s sum_o dout[n,o] B[r,o]    dH += dOut (s B)^T   reads B
//    dB[r,o] += s sum_n h[n,r] dout[n,o]    dB += H^T (s dOut)   reads h

static void matmul_add_forward(const Node *n, Part part)
{
    Matrix Out = values(n->out), Y = values(n->in[0]), H = values(n->in[1]), B = values(n->in[2]);
    copy(Out, Y, part); // nothing to do where Out lies in the place of Y
    product(Out, H, scaled(B, n->scalar), part);
}

static void matmul_add_grad_h(const Node *n, Part part)
{
    Matrix dH = gradient(n->in[1]), dOut = gradient(n->out), B = values(n->in[2]);
    product(dH, dOut, transposed(scaled(B, n->scalar)), part);
}

static void matmul_add_grad_B(const Node *n, Part part)
{
    Matrix dB = gradient(n->in[2]), dOut = gradient(n->out), H = values(n->in[1]);
    product(dB, transposed(H), scaled(dOut, n->scalar), part);
}

static int64_t matmul_add_flops(const Node *n) { return 2 * n->in[1]->size * last_dim(n->in[2]); }

const Op matmul_add_op = { .name = "matmul_add", .forward = matmul_add_forward, .flops = matmul_add_flops, .input = {
    { .keeps = KEEP_NONE },
    { .grad = matmul_add_grad_h, .keeps = KEEP(2), .work = 1 },
    { .grad = matmul_add_grad_B, .keeps = KEEP(1), .work = 1 },
} };

Tensor *op_matmul_add(Tape *tape, Tensor *y, Tensor *h, Tensor *B, real s)
{
    check(B->ndim == 2 && last_dim(h) == B->shape[0] && last_dim(y) == B->shape[1] && rows_of(y) == rows_of(h),
          "matmul_add: %s %s + %s %s x %s %s do not fit",
          y->name, shape_text(y), h->name, shape_text(h), B->name, shape_text(B));
    check(h != y && B != y, "matmul_add: %s is given up, so it cannot be a factor too", y->name);
    return record(tape, (Node){ .op = &matmul_add_op, .in = { y, h, B }, .scalar = s }, y, y->ndim, y->shape);
}

// ------------------------------------------------------------------------------------------------------------- all of them

const Op *const all_ops[] = {
    &add_op, &sub_op, &mul_op, &scale_op, &add_scaled_op, &relu_op, &tanh_op, &exp_op, &sum_op, &mean_op, &softmax_op,
    &matmul_op, &linear_op,
    &embedding_op, &layernorm_op, &lm_head_op, &attention_op, &gelu_op, &dropout_op, &cross_entropy_op, &matmul_add_op,
    &recompute_op,
    NULL
};
