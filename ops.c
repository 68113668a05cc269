// ops.c - see ops.h. The ops of first lessons, and at the end the one that all this is about: linear.
//
// In each block: y is the node's output and dy its gradient; a, b, x, ... are its inputs, da, db, dx, ... theirs. A kernel
// writes the share of its output that `part` owns. Gradients are only ever added to: dx += ..., because a tensor that is used
// twice gets a gradient from each use; the engine has made sure that there is something to add to. Each op's row says for each
// input: its gradient, the data that this reads, and its FLOPs in units of forward's.
//
// Where to begin: mul, then linear. Read next: lora.h; ops_gpt.c can wait until you meet its ops.

#include "ops.h"

void check_same_shape(const char *op, const Tensor *a, const Tensor *b)
{
    check(same_shape(a, b), "%s: %s %s and %s %s differ in shape", op, a->name, shape_text(a), b->name, shape_text(b));
}

void with_last_dim(int shape[MAX_DIMS], const Tensor *x, int last)
{
    memcpy(shape, x->shape, sizeof x->shape);
    shape[x->ndim - 1] = last;
}

// ---- add: y = a + b        da += dy, db += dy, which the engine does itself

static void add_forward(const Node *n, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = a[i] + b[i];
}

const Op add_op = { .name = "add", .forward = add_forward, .input = { { .keeps = KEEP_NONE }, { .keeps = KEEP_NONE } } };

Tensor *op_add(Tape *tape, Tensor *a, Tensor *b)
{
    check_same_shape("add", a, b);
    return record(tape, (Node){ .op = &add_op, .in = { a, b } }, NULL, a->ndim, a->shape);
}

// ---- sub: y = a - b        da += dy, db -= dy

static void sub_forward(const Node *n, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = a[i] - b[i];
}

static void sub_grad_b(const Node *n, Part part)
{
    const real *dy = n->out->grad;
    real *db = n->in[1]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) db[i] -= dy[i];
}

const Op sub_op = { .name = "sub", .forward = sub_forward, .input = { { .keeps = KEEP_NONE }, { .grad = sub_grad_b, .keeps = KEEP_NONE } } };

Tensor *op_sub(Tape *tape, Tensor *a, Tensor *b)
{
    check_same_shape("sub", a, b);
    return record(tape, (Node){ .op = &sub_op, .in = { a, b } }, NULL, a->ndim, a->shape);
}

// ---- mul: y = a * b        da += dy * b, db += dy * a

static void mul_forward(const Node *n, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = a[i] * b[i];
}

static void mul_grad_a(const Node *n, Part part)
{
    const real *dy = n->out->grad, *b = n->in[1]->data;
    real *da = n->in[0]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) da[i] += dy[i] * b[i];
}

static void mul_grad_b(const Node *n, Part part)
{
    const real *dy = n->out->grad, *a = n->in[0]->data;
    real *db = n->in[1]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) db[i] += dy[i] * a[i];
}

const Op mul_op = { .name = "mul", .forward = mul_forward, .input = {
    { .grad = mul_grad_a, .keeps = KEEP(1) },
    { .grad = mul_grad_b, .keeps = KEEP(0) },
} };

Tensor *op_mul(Tape *tape, Tensor *a, Tensor *b)
{
    check_same_shape("mul", a, b);
    return record(tape, (Node){ .op = &mul_op, .in = { a, b } }, NULL, a->ndim, a->shape);
}

// ---- scale: y = s a        da += s dy

static void scale_forward(const Node *n, Part part)
{
    const real *a = n->in[0]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = n->scalar * a[i];
}

static void scale_grad(const Node *n, Part part)
{
    const real *dy = n->out->grad;
    real *da = n->in[0]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) da[i] += n->scalar * dy[i];
}

const Op scale_op = { .name = "scale", .forward = scale_forward, .input = { { .grad = scale_grad, .keeps = KEEP_NONE } } };

Tensor *op_scale(Tape *tape, Tensor *a, real s)
{
    return record(tape, (Node){ .op = &scale_op, .in = { a }, .scalar = s }, NULL, a->ndim, a->shape);
}

// ---- add_scaled: y = a + s b        da += dy, db += s dy

static void add_scaled_forward(const Node *n, Part part)
{
    const real *a = n->in[0]->data, *b = n->in[1]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = a[i] + n->scalar * b[i];
}

static void add_scaled_grad_b(const Node *n, Part part)
{
    const real *dy = n->out->grad;
    real *db = n->in[1]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) db[i] += n->scalar * dy[i];
}

const Op add_scaled_op = { .name = "add_scaled", .forward = add_scaled_forward,
    .input = { { .keeps = KEEP_NONE }, { .grad = add_scaled_grad_b, .keeps = KEEP_NONE } } };

Tensor *op_add_scaled(Tape *tape, Tensor *a, Tensor *b, real s)
{
    check_same_shape("add_scaled", a, b);
    return record(tape, (Node){ .op = &add_scaled_op, .in = { a, b }, .scalar = s }, NULL, a->ndim, a->shape);
}

// ---- relu: y = max(x, 0)        dx += dy where y > 0

static void relu_forward(const Node *n, Part part)
{
    const real *x = n->in[0]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

static void relu_grad(const Node *n, Part part)
{
    const real *dy = n->out->grad, *y = n->out->data;
    real *dx = n->in[0]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) dx[i] += y[i] > 0 ? dy[i] : 0;
}

const Op relu_op = { .name = "relu", .forward = relu_forward, .input = { { .grad = relu_grad, .keeps = KEEP_OUT } } };

Tensor *op_relu(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = &relu_op, .in = { x } }, NULL, x->ndim, x->shape);
}

// ---- tanh: y = tanh(x)        dx += dy (1 - y^2)

static void tanh_forward(const Node *n, Part part)
{
    const real *x = n->in[0]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = (real)tanh((double)x[i]);
}

static void tanh_grad(const Node *n, Part part)
{
    const real *dy = n->out->grad, *y = n->out->data;
    real *dx = n->in[0]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) dx[i] += dy[i] * (1 - y[i] * y[i]);
}

const Op tanh_op = { .name = "tanh", .forward = tanh_forward, .input = { { .grad = tanh_grad, .keeps = KEEP_OUT } } };

Tensor *op_tanh(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = &tanh_op, .in = { x } }, NULL, x->ndim, x->shape);
}

// ---- exp: y = e^x        dx += dy y

static void exp_forward(const Node *n, Part part)
{
    const real *x = n->in[0]->data;
    real *y = n->out->data;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) y[i] = (real)exp((double)x[i]);
}

static void exp_grad(const Node *n, Part part)
{
    const real *dy = n->out->grad, *y = n->out->data;
    real *dx = n->in[0]->grad;
    Share s = elements(n, part);
    for (int64_t i = s.begin; i < s.end; i++) dx[i] += dy[i] * y[i];
}

const Op exp_op = { .name = "exp", .forward = exp_forward, .input = { { .grad = exp_grad, .keeps = KEEP_OUT } } };

Tensor *op_exp(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = &exp_op, .in = { x } }, NULL, x->ndim, x->shape);
}

// ---- sum: y = sum of x        dx[i] += dy        One part adds all: no sum crosses parts.

static void sum_forward(const Node *n, Part part)
{
    if (part.index == 0) n->out->data[0] = row_sum(n->in[0]->data, n->in[0]->size);
}

static void sum_grad(const Node *n, Part part)
{
    real *dx = n->in[0]->grad, each = n->out->grad[0];
    Share s = share(part, n->in[0]->size, GRAIN);
    for (int64_t i = s.begin; i < s.end; i++) dx[i] += each;
}

const Op sum_op = { .name = "sum", .forward = sum_forward, .input = { { .grad = sum_grad, .keeps = KEEP_NONE } } };

Tensor *op_sum(Tape *tape, Tensor *x) { return record(tape, (Node){ .op = &sum_op, .in = { x } }, NULL, SHAPE(1)); }

// ---- mean: y = sum of x / size        dx[i] += dy / size

static void mean_forward(const Node *n, Part part)
{
    if (part.index == 0) n->out->data[0] = row_sum(n->in[0]->data, n->in[0]->size) / (real)n->in[0]->size;
}

static void mean_grad(const Node *n, Part part)
{
    real *dx = n->in[0]->grad, each = n->out->grad[0] / (real)n->in[0]->size;
    Share s = share(part, n->in[0]->size, GRAIN);
    for (int64_t i = s.begin; i < s.end; i++) dx[i] += each;
}

const Op mean_op = { .name = "mean", .forward = mean_forward, .input = { { .grad = mean_grad, .keeps = KEEP_NONE } } };

Tensor *op_mean(Tape *tape, Tensor *x) { return record(tape, (Node){ .op = &mean_op, .in = { x } }, NULL, SHAPE(1)); }

// ---- softmax: y[j] = e^x[j] / sum_k e^x[k], each row        dx[j] += y[j] (dy[j] - sum_k dy[k] y[k])
//
// Both sums are the same for e^(x - max): subtracting a row's largest x keeps every exponential at most 1.

static void softmax_forward(const Node *n, Part part)
{
    int V = last_dim(n->out);
    Share s = rows(n, part);
    for (int64_t r = s.begin; r < s.end; r++) {
        const real *x = n->in[0]->data + r * V;
        real *y = n->out->data + r * V;
        row_exp(y, x, row_max(x, V), V);
        real scale = 1 / row_sum(y, V);
        for (int j = 0; j < V; j++) y[j] *= scale;
    }
}

static void softmax_grad(const Node *n, Part part)
{
    int V = last_dim(n->out);
    Share s = rows(n, part);
    for (int64_t r = s.begin; r < s.end; r++) {
        const real *y = n->out->data + r * V, *dy = n->out->grad + r * V;
        real *dx = n->in[0]->grad + r * V, mean = row_dot(dy, y, V);
        for (int j = 0; j < V; j++) dx[j] += y[j] * (dy[j] - mean);
    }
}

const Op softmax_op = { .name = "softmax", .forward = softmax_forward, .input = { { .grad = softmax_grad, .keeps = KEEP_OUT } } };

Tensor *op_softmax(Tape *tape, Tensor *x)
{
    return record(tape, (Node){ .op = &softmax_op, .in = { x } }, NULL, x->ndim, x->shape);
}

// ---- matmul: y[N,O] = a[N,I] b[I,O]
//
//     y[n,o] = sum_i a[n,i] b[i,o]           Y = A B
//    da[n,i] += sum_o dy[n,o] b[i,o]        dA += dY B^T      reads b, whether b trains or not
//    db[i,o] += sum_n a[n,i] dy[n,o]        dB += A^T dY      reads a

static void matmul_forward(const Node *n, Part part)
{
    Matrix Y = values(n->out), A = values(n->in[0]), B = values(n->in[1]);
    product(empty(Y), A, B, part);
}

static void matmul_grad_a(const Node *n, Part part)
{
    Matrix dA = gradient(n->in[0]), dY = gradient(n->out), B = values(n->in[1]);
    product(dA, dY, transposed(B), part);
}

static void matmul_grad_b(const Node *n, Part part)
{
    Matrix dB = gradient(n->in[1]), dY = gradient(n->out), A = values(n->in[0]);
    product(dB, transposed(A), dY, part);
}

static int64_t matmul_flops(const Node *n) { return 2 * n->in[0]->size * last_dim(n->in[1]); }

const Op matmul_op = { .name = "matmul", .forward = matmul_forward, .flops = matmul_flops, .input = {
    { .grad = matmul_grad_a, .keeps = KEEP(1), .work = 1 },
    { .grad = matmul_grad_b, .keeps = KEEP(0), .work = 1 },
} };

Tensor *op_matmul(Tape *tape, Tensor *a, Tensor *b)
{
    check(b->ndim == 2 && last_dim(a) == b->shape[0],
          "matmul: %s %s and %s %s do not fit: columns of the first must be rows of the second",
          a->name, shape_text(a), b->name, shape_text(b));
    int shape[MAX_DIMS];
    with_last_dim(shape, a, last_dim(b));
    return record(tape, (Node){ .op = &matmul_op, .in = { a, b } }, NULL, a->ndim, shape);
}

// ---- linear: y[N,O] = x[N,I] W[I,O] + b[O]
//
//     y[n,o] = b[o] + sum_i x[n,i] W[i,o]    Y = b in each row + X W
//    dx[n,i] += sum_o dy[n,o] W[i,o]        dX += dY W^T      reads W, frozen or not
//    dW[i,o] += sum_n x[n,i] dy[n,o]        dW += X^T dY      reads x
//    db[o]   += sum_n dy[n,o]

static void linear_forward(const Node *n, Part part)
{
    Matrix Y = values(n->out), X = values(n->in[0]), W = values(n->in[1]);
    product(starting_from(Y, n->in[2]->data), X, W, part);
}

static void linear_grad_x(const Node *n, Part part)
{
    Matrix dX = gradient(n->in[0]), dY = gradient(n->out), W = values(n->in[1]);
    product(dX, dY, transposed(W), part);
}

static void linear_grad_W(const Node *n, Part part)
{
    Matrix dW = gradient(n->in[1]), dY = gradient(n->out), X = values(n->in[0]);
    product(dW, transposed(X), dY, part);
}

static void linear_grad_b(const Node *n, Part part) { column_sums(n->in[2]->grad, gradient(n->out), part); }

const Op linear_op = { .name = "linear", .forward = linear_forward, .flops = matmul_flops, .weight = 1, .input = {
    { .grad = linear_grad_x, .keeps = KEEP(1), .work = 1 },
    { .grad = linear_grad_W, .keeps = KEEP(0), .work = 1 },
    { .grad = linear_grad_b, .keeps = KEEP_NONE },
} };

Tensor *op_linear(Tape *tape, Tensor *x, Tensor *W, Tensor *b)
{
    check(W->ndim == 2 && last_dim(x) == W->shape[0], "linear: %s %s and %s %s do not fit: W is [inputs, outputs]", x->name,
          shape_text(x), W->name, shape_text(W));
    check(b->ndim == 1 && b->size == W->shape[1], "linear: bias %s %s does not fit %s %s", b->name, shape_text(b), W->name,
          shape_text(W));
    int shape[MAX_DIMS];
    with_last_dim(shape, x, last_dim(W));
    return record(tape, (Node){ .op = &linear_op, .in = { x, W, b } }, NULL, x->ndim, shape);
}
