// svd.h - what training changed in a weight matrix, taken apart: D = sum_k s_k u_k v_k^T, with the singular values s_k, the
// largest first. For matrices of which one side is SMALL.

#ifndef SVD_H
#define SVD_H

#include "experiments/measure.h"

enum { SMALL = 32 };

// A matrix with orthogonal columns, rows x SMALL, and the rotation that made them so: D = columns rotation^T. The length of
// column k is the singular value s_k; the columns stand in falling order of it.
typedef struct Svd { int rows; double *columns, rotation[SMALL * SMALL], s[SMALL]; } Svd;

static inline void rotate(double *m, int rows, int p, int q, double c, double s)
{
    for (int r = 0; r < rows; r++) {
        double a = m[r * SMALL + p], b = m[r * SMALL + q];
        m[r * SMALL + p] = c * a - s * b;
        m[r * SMALL + q] = s * a + c * b;
    }
}

static inline double dot(const double *m, int rows, int p, int q)
{
    double sum = 0;
    for (int r = 0; r < rows; r++) sum += m[r * SMALL + p] * m[r * SMALL + q];
    return sum;
}

// One-sided Jacobi (Hestenes 1958): turns two columns at a time until all are orthogonal.
static inline void svd_run(Svd *d)
{
    for (int i = 0; i < SMALL * SMALL; i++) d->rotation[i] = i % (SMALL + 1) == 0;
    for (int sweep = 0; sweep < 12; sweep++)
        for (int p = 0; p < SMALL; p++)
            for (int q = p + 1; q < SMALL; q++) {
                double pp = dot(d->columns, d->rows, p, p), qq = dot(d->columns, d->rows, q, q);
                double pq = dot(d->columns, d->rows, p, q);
                double angle = 0.5 * atan2(2 * pq, qq - pp) + 1.5707963267948966; // a quarter more: the longer one comes first
                rotate(d->columns, d->rows, p, q, cos(angle), sin(angle));
                rotate(d->rotation, SMALL, p, q, cos(angle), sin(angle));
            }
    for (int k = 0; k < SMALL; k++) d->s[k] = sqrt(dot(d->columns, d->rows, k, k));
}

// The shorter side of every matrix here is the width: D, or its transpose if the columns are more.
static inline int64_t place(const Tensor *W, int r, int c)
{
    return W->shape[1] == SMALL ? (int64_t)r * SMALL + c : (int64_t)c * W->shape[1] + r;
}

static inline Svd svd_of_change(const Tensor *W, const real *before)
{
    Svd d = { .rows = (int)(W->size / SMALL) };
    d.columns = malloc((size_t)W->size * sizeof *d.columns);
    if (d.columns == NULL) die(EXIT_FAILED, "out of memory");
    for (int r = 0; r < d.rows; r++)
        for (int c = 0; c < SMALL; c++)
            d.columns[r * SMALL + c] = (double)W->data[place(W, r, c)] - (double)before[place(W, r, c)];
    svd_run(&d);
    return d;
}

// W = what it was before, and the first `rank` terms of its change.
static inline void keep_terms(Tensor *W, const real *before, const Svd *d, int rank)
{
    for (int r = 0; r < d->rows; r++)
        for (int c = 0; c < SMALL; c++) {
            double sum = (double)before[place(W, r, c)];
            for (int k = 0; k < rank; k++) sum += d->columns[r * SMALL + k] * d->rotation[c * SMALL + k];
            W->data[place(W, r, c)] = (real)sum;
        }
}

// How much of the change's square its first r terms hold, over `count` matrices.
static inline double svd_share(const Svd *d, int count, int r)
{
    double some = 0, all = 0;
    for (int i = 0; i < count; i++)
        for (int k = 0; k < SMALL; k++) {
            all += d[i].s[k] * d[i].s[k];
            some += k < r ? d[i].s[k] * d[i].s[k] : 0;
        }
    return some / all;
}

#endif
