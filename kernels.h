// kernels.h - the verbs of which all ops are made: products of matrices, sums over rows and columns, exponentials, attention.
//
// They work on plain arrays and know no tensor and no tape. kernels.c says each as the loop that its formula is, on one thread;
// `make PLAIN=1` builds the project with that. The folder fast/ says the same verbs for the machine: a reader may skip it.
//
// A kernel computes the share of its output that its part owns. No two parts write the same element and no sum crosses parts,
// so there is nothing to lock, and the bits of the result do not depend on the number of parts.
//
// Read next: kernels.c, then autograd.h.

#ifndef KERNELS_H
#define KERNELS_H

#include "quantise.h"

// -------------------------------------------------------------------------------------------------------------------- parts

typedef struct Part  { int index, count; } Part;      // part `index` of `count`
typedef struct Share { int64_t begin, end; } Share;   // of something numbered from 0; empty if begin == end
#define WHOLE ((Part){ 0, 1 })

// The share that `part` owns of n items, cut at multiples of `grain`. Shares differ by at most one grain.
static inline Share share(Part part, int64_t n, int64_t grain)
{
    int64_t grains = (n + grain - 1) / grain;
    Share s = { grains * part.index / part.count * grain, grains * (part.index + 1) / part.count * grain };
    return (Share){ s.begin < n ? s.begin : n, s.end < n ? s.end : n };
}
enum { GRAIN = 16 }; // of elementwise kernels: a cache line of floats

// How many threads run a kernel, the caller included: 1 to MAX_THREADS; 0 means one per online core (also the start value).
// More threads than cores are slower, never wrong. The plain build has one.
enum { MAX_THREADS = 256 };
void parallel_set_threads(int count);
int  parallel_threads(void);
// Calls work(context, part) for every part, one of them on the calling thread, and returns when all have ended. Call it from
// one thread at a time, and not from within `work`.
void parallel_run(void (*work)(void *context, Part part), void *context);

// ----------------------------------------------------------------------------------------------------------------- matrices

typedef struct Matrix {
    real   *at;              // element (i,j) is factor * at[i * down + j * right]
    int     rows, columns;
    int64_t down, right;     // how far apart neighbours in a column, and in a row, lie in memory
    real    factor;
    bool    empty;           // holds nothing yet: a product that adds to it takes it as zeros, or as
    const real *start;       // this row, if not NULL, in each row
    const Codes *codes;      // not NULL: at is, and the numbers are in there; only B of a product may be so
} Matrix;

static inline Matrix matrix(const real *at, int64_t rows, int columns)
{
    return (Matrix){ .at = (real *)at, .rows = (int)rows, .columns = columns, .down = columns, .right = 1, .factor = 1 };
}
static inline Matrix transposed(Matrix m)
{
    return (Matrix){ m.at, m.columns, m.rows, m.right, m.down, m.factor, m.empty, NULL, m.codes };
}
static inline Matrix scaled(Matrix m, real factor) { m.factor *= factor; return m; }
static inline Matrix empty(Matrix m) { m.empty = true; return m; }
static inline Matrix starting_from(Matrix m, const real *row) { m.empty = true, m.start = row; return m; }
// rows x columns of m, which is not in codes, from (i,j) on
static inline Matrix block_of(Matrix m, int64_t i, int64_t j, int rows, int columns)
{
    m.at += i * m.down + j * m.right;
    if (m.start != NULL) m.start += j;
    m.rows = rows;
    m.columns = columns;
    return m;
}

// C += A B, with C [m,n], A [m,k], B [k,n]; C's rows are contiguous, its factor is 1, and it overlaps neither A nor B. Each
// element is summed over k in ascending order, with the same rounding whatever its place, m, n and the number of parts.
void product(Matrix C, Matrix A, Matrix B, Part part);
// Of the next two A is like C: rows contiguous, factor 1.
// C = A, each part the share that product(C, ...) gives it: so one kernel may do this and then add. Nothing if C is A.
void copy(Matrix C, Matrix A, Part part);
// sums[j] += sum_i A(i,j)
void column_sums(real *sums, Matrix A, Part part);

// --------------------------------------------------------------------------------------------------------------------- rows

real   row_sum(const real *x, int64_t n);                                           // sum_j x[j]
real   row_dot(const real *a, const real *b, int64_t n);                            // sum_j a[j] b[j]
real   row_max(const real *x, int64_t n);                                           // n at least 1
void   row_exp(real *y, const real *x, real max, int64_t n);                        // y[j] = e^(x[j] - max); y may be x
real   row_exp_sum(const real *x, real max, int64_t n);                             // sum_j e^(x[j] - max)
real   row_squares(const real *x, real mean, int64_t n);                            // sum_j (x[j] - mean)^2
real   row_dot_centred(const real *a, const real *b, const real *x, real mean, int64_t n); // sum_j a[j] b[j] (x[j] - mean)
double row_norm2(const real *x, int64_t n);                                         // sum_j x[j]^2, in double

// ---------------------------------------------------------------------------------------------------------------- attention

// Causal attention of one head: y [Q,D] = softmax(q k^T / sqrt(D)) v, with q [Q,D] and k, v [T,D]. The queries are the last
// Q of T positions; each sees its own and what came before. `stats`, if not NULL, [Q,2]: the maximum of each row of
// scores and 1 / the sum of its exponentials, from which the gradient makes the probabilities again.
void attention(Matrix y, Matrix q, Matrix k, Matrix v, real *stats);
// dq, dk, dv += the gradients, with Q = T.
void attention_gradient(Matrix dq, Matrix dk, Matrix dv, Matrix dy, Matrix q, Matrix k, Matrix v, const real *stats);

// ------------------------------------------------------------------------------------------------------------------ scratch

// What the verbs copy and keep for themselves while they run belongs to the threads, and stays theirs: on the ledger it is
// workspace. scratch_reserve makes room for attention of T positions in heads of D; call it from the main thread, before the
// kernel. scratch_release frees all of it, until the next kernel. scratch_size: numbers in each thread, after that reserve.
void    scratch_reserve(int T, int D);
void    scratch_release(void);
int64_t scratch_size(int T, int D);

#endif
