// rows.c - sums, maxima and exponentials of a row, in lanes.

#include "fast.h"

// clang, left to itself, unrolls a loop over lanes, and then finds vectors of two and of four.
#if defined __clang__
#define LANE_LOOP _Pragma("nounroll")
#else
#define LANE_LOOP
#endif

real row_sum(const real *x, int64_t n)
{
    real lane[LANES] = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        LANE_LOOP for (int l = 0; l < LANES; l++) lane[l] += x[i + l];
    for (; i < n; i++) lane[i % LANES] += x[i];
    return fold_lanes(lane);
}

real row_dot(const real *a, const real *b, int64_t n)
{
    real lane[LANES] = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        LANE_LOOP for (int l = 0; l < LANES; l++) lane[l] += a[i + l] * b[i + l];
    for (; i < n; i++) lane[i % LANES] += a[i] * b[i];
    return fold_lanes(lane);
}

real row_max(const real *x, int64_t n)
{
    real lane[LANES];
    for (int l = 0; l < LANES; l++) lane[l] = x[0];
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        VECTOR_LOOP for (int l = 0; l < LANES; l++) lane[l] = x[j + l] > lane[l] ? x[j + l] : lane[l];
    for (; j < n; j++) lane[0] = x[j] > lane[0] ? x[j] : lane[0];
    UNROLL_LOOP for (int half = LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] = lane[l] > lane[l + half] ? lane[l] : lane[l + half];
    return lane[0];
}

// In place, and so by one pointer: where two might be the same array, clang finds no vectors.
void row_exp(real *y, const real *x, real max, int64_t n)
{
    if (y != x) memcpy(y, x, (size_t)n * sizeof *y);
    for (int64_t j = 0; j < n; j++) y[j] = fast_exp(y[j] - max);
}

real row_exp_sum(const real *x, real max, int64_t n)
{
    real lane[LANES] = { 0 };
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        VECTOR_LOOP for (int l = 0; l < LANES; l++) lane[l] += fast_exp(x[j + l] - max);
    for (; j < n; j++) lane[j % LANES] += fast_exp(x[j] - max);
    return fold_lanes(lane);
}

real row_squares(const real *x, real mean, int64_t n)
{
    real lane[LANES] = { 0 };
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        LANE_LOOP for (int l = 0; l < LANES; l++) lane[l] += (x[j + l] - mean) * (x[j + l] - mean);
    for (; j < n; j++) lane[j % LANES] += (x[j] - mean) * (x[j] - mean);
    return fold_lanes(lane);
}

real row_dot_centred(const real *a, const real *b, const real *x, real mean, int64_t n)
{
    real lane[LANES] = { 0 };
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        LANE_LOOP for (int l = 0; l < LANES; l++) lane[l] += a[j + l] * b[j + l] * (x[j + l] - mean);
    for (; j < n; j++) lane[j % LANES] += a[j] * b[j] * (x[j] - mean);
    return fold_lanes(lane);
}

double row_norm2(const real *x, int64_t n)
{
    double lane[LANES] = { 0 }, sum = 0;
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES)
        LANE_LOOP for (int l = 0; l < LANES; l++) lane[l] += (double)x[j + l] * (double)x[j + l];
    for (; j < n; j++) lane[0] += (double)x[j] * (double)x[j];
    for (int l = 0; l < LANES; l++) sum += lane[l];
    return sum;
}

void column_sums(real *sums, Matrix A, Part part)
{
    Share columns = share(part, A.columns, GRAIN);
    for (int i = 0; i < A.rows; i++) {
        const real *row = A.at + i * A.down;
        for (int64_t j = columns.begin; j < columns.end; j++) sums[j] += row[j];
    }
}
