// kernels.c - see kernels.h. Each verb as the loop that its formula is, on one thread: all that a reader needs, and the measure
// of the tests. fast/ says the same again for the machine, tens of times as fast; `make PLAIN=1` links this file in its place.
//
// Read next: autograd.h.

#include "kernels.h"

#include "memory.h"

// ----------------------------------------------------------------------------------------------------------------- matrices

static real *element(Matrix m, int64_t i, int64_t j) { return m.at + i * m.down + j * m.right; }

static inline real value(Matrix m, int64_t i, int64_t j)
{
    real number = 0;
    if (m.codes == NULL) return *element(m, i, j);
    unpack(m.codes, i * m.down + j * m.right, 1, &number, 1);
    return number;
}

void product(Matrix C, Matrix A, Matrix B, Part part)
{
    Share rows = share(part, C.rows, 1);
    for (int64_t i = rows.begin; i < rows.end; i++)
        for (int j = 0; j < C.columns; j++) {
            real sum = !C.empty ? *element(C, i, j) : C.start ? C.start[j] : 0;
            for (int k = 0; k < A.columns; k++) sum += A.factor * B.factor * value(B, k, j) * *element(A, i, k);
            *element(C, i, j) = sum;
        }
}

void copy(Matrix C, Matrix A, Part part)
{
    Share rows = share(part, C.rows, 1);
    for (int64_t i = rows.begin; i < rows.end; i++)
        for (int j = 0; j < C.columns; j++) *element(C, i, j) = *element(A, i, j);
}

void column_sums(real *sums, Matrix A, Part part)
{
    Share columns = share(part, A.columns, GRAIN);
    for (int i = 0; i < A.rows; i++)
        for (int64_t j = columns.begin; j < columns.end; j++) sums[j] += *element(A, i, j);
}

// --------------------------------------------------------------------------------------------------------------------- rows

static real exponential(real x) { return (real)exp((double)x); }

real row_sum(const real *x, int64_t n)
{
    real sum = 0;
    for (int64_t j = 0; j < n; j++) sum += x[j];
    return sum;
}

real row_dot(const real *a, const real *b, int64_t n)
{
    real sum = 0;
    for (int64_t j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

real row_max(const real *x, int64_t n)
{
    real max = x[0];
    for (int64_t j = 1; j < n; j++) max = x[j] > max ? x[j] : max;
    return max;
}

void row_exp(real *y, const real *x, real max, int64_t n)
{
    for (int64_t j = 0; j < n; j++) y[j] = exponential(x[j] - max);
}

real row_exp_sum(const real *x, real max, int64_t n)
{
    real sum = 0;
    for (int64_t j = 0; j < n; j++) sum += exponential(x[j] - max);
    return sum;
}

real row_squares(const real *x, real mean, int64_t n)
{
    real sum = 0;
    for (int64_t j = 0; j < n; j++) sum += (x[j] - mean) * (x[j] - mean);
    return sum;
}

real row_dot_centred(const real *a, const real *b, const real *x, real mean, int64_t n)
{
    real sum = 0;
    for (int64_t j = 0; j < n; j++) sum += a[j] * b[j] * (x[j] - mean);
    return sum;
}

double row_norm2(const real *x, int64_t n)
{
    double sum = 0;
    for (int64_t j = 0; j < n; j++) sum += (double)x[j] * (double)x[j];
    return sum;
}

// ------------------------------------------------------------------------------------------------------------------ threads

void parallel_set_threads(int count) { (void)count; }
int  parallel_threads(void) { return 1; }
void parallel_run(void (*work)(void *context, Part part), void *context) { work(context, WHOLE); }

static real *room; // two rows of attention's scores
static int64_t room_size;

int64_t scratch_size(int T, int D) { return (void)D, 2 * (int64_t)T; }

void scratch_reserve(int T, int D)
{
    if (scratch_size(T, D) <= room_size) return;
    scratch_release();
    room_size = scratch_size(T, D);
    room = memory_take(MEMORY_WORKSPACE, room_size);
}

void scratch_release(void)
{
    memory_give(MEMORY_WORKSPACE, room, room_size);
    room = NULL;
    room_size = 0;
}

// ---------------------------------------------------------------------------------------------------------------- attention
//
// For position t of T, which sees the positions j <= t:
//     s[j] = q[t] . k[j] / sqrt(D);   p[j] = e^(s[j] - max) / sum;   y[t] = sum_j p[j] v[j]
// and backward, with dp[j] = dy[t] . v[j] and ds[j] = p[j] (dp[j] - sum_i dp[i] p[i]):
//     dv[j] += p[j] dy[t];   dq[t] += sum_j ds[j] k[j] / sqrt(D);   dk[j] += ds[j] q[t] / sqrt(D)

// to[j] = factor * (row t of a) . (row j of b) for j < count
static void dots(real *to, Matrix a, int64_t t, Matrix b, int64_t count, real factor)
{
    for (int64_t j = 0; j < count; j++) {
        real sum = 0;
        for (int d = 0; d < a.columns; d++) sum += *element(a, t, d) * (factor * *element(b, j, d));
        to[j] = sum;
    }
}

void attention(Matrix y, Matrix q, Matrix k, Matrix v, real *stats)
{
    real *p = room, scale = 1 / (real)sqrt((double)q.columns);
    for (int64_t t = 0; t < q.rows; t++) {
        int64_t seen = k.rows - q.rows + t + 1; // itself and what came before
        dots(p, q, t, k, seen, scale);
        real max = row_max(p, seen);
        row_exp(p, p, max, seen);
        real inverse = 1 / row_sum(p, seen);
        for (int d = 0; d < y.columns; d++) {
            real sum = 0;
            for (int64_t j = 0; j < seen; j++) sum += p[j] * inverse * *element(v, j, d);
            *element(y, t, d) = sum;
        }
        if (stats != NULL) stats[2 * t] = max, stats[2 * t + 1] = inverse;
    }
}

static void begin(Matrix m)
{
    for (int64_t i = 0; m.empty && i < m.rows; i++)
        for (int j = 0; j < m.columns; j++) *element(m, i, j) = 0;
}

void attention_gradient(Matrix dq, Matrix dk, Matrix dv, Matrix dy, Matrix q, Matrix k, Matrix v, const real *stats)
{
    begin(dq);
    begin(dk);
    begin(dv);
    real *p = room, *ds = room + k.rows, scale = 1 / (real)sqrt((double)q.columns);
    for (int64_t t = 0; t < q.rows; t++) {
        int64_t seen = t + 1;
        dots(p, q, t, k, seen, scale);
        dots(ds, dy, t, v, seen, 1); // dp
        row_exp(p, p, stats[2 * t], seen);
        for (int64_t j = 0; j < seen; j++) p[j] *= stats[2 * t + 1];
        real mean = row_dot(ds, p, seen);
        for (int64_t j = 0; j < seen; j++) ds[j] = p[j] * (ds[j] - mean);
        for (int64_t j = 0; j < seen; j++)
            for (int d = 0; d < q.columns; d++) {
                *element(dv, j, d) += p[j] * *element(dy, t, d);
                *element(dq, t, d) += scale * ds[j] * *element(k, j, d);
                *element(dk, j, d) += scale * ds[j] * *element(q, t, d);
            }
    }
}
