// attention.c - causal attention of one head by products: QUERIES rows of scores at a time, so that no T x T matrix exists. The
// products leave out the tiles above the diagonal. Formulas: kernels.c.

#include "fast.h"

enum { QUERIES = 64 }; // more use a packed key longer; fewer take less room

static int whole_lanes(int count) { return (count + LANES - 1) / LANES * LANES; }

static int64_t block_room(int T) { return (int64_t)(T < QUERIES ? T : QUERIES) * whole_lanes(T); } // of the largest block

// Scores and their gradients lie behind what the products of a head use.
static int64_t behind_products(int T, int D) { return larger(product_scratch(D, T), product_scratch(T, D)); }

int64_t attention_scratch(int T, int D) { return behind_products(T, D) + 2 * block_room(T); }

// Queries t0 .. of a head: rows x keys scores, each row in whole lanes, so that loops over it need no rest
typedef struct Scores { int t0, rows, keys, row; } Scores;

static Scores scores_at(Matrix q, Matrix k, int t0)
{
    int rows = q.rows - t0 < QUERIES ? q.rows - t0 : QUERIES, keys = k.rows - q.rows + t0 + rows;
    return (Scores){ t0, rows, keys, whole_lanes(keys) };
}

static Matrix as_matrix(real *numbers, Scores s)
{
    Matrix m = matrix(numbers, s.rows, s.keys);
    m.down = s.row;
    return m;
}

// S[rows,keys] = scale a b^T, where a query sees the key
static void products_of_rows(real *S, Scores s, Matrix a, Matrix b, real scale)
{
    triangle_product(empty(as_matrix(S, s)), block_of(a, s.t0, 0, s.rows, a.columns),
                     scaled(transposed(block_of(b, 0, 0, s.keys, b.columns)), scale), WHOLE, LOWER_C, s.keys - s.rows);
}

// What follows a row's first `seen` scores in their last lanes becomes `value`: a query does not see those keys, and
// e^-infinity is 0. All lanes at once: after single stores, the next load of them all would wait.
static void hide(real *row, int seen, real value)
{
    int begin = (seen - 1) / LANES * LANES;
    VECTOR_LOOP for (int l = 0; l < LANES; l++) row[begin + l] = begin + l < seen ? row[begin + l] : value;
}

// x = e^(x - max); returns their sum. count is whole lanes.
static real exponentials(real *x, int count, real max)
{
    real lane[LANES] = { 0 };
    for (int j = 0; j < count; j += LANES)
        VECTOR_LOOP for (int l = 0; l < LANES; l++) lane[l] += x[j + l] = fast_exp(x[j + l] - max);
    return fold_lanes(lane);
}

void attention(Matrix y, Matrix q, Matrix k, Matrix v, real *stats)
{
    real *P = scratch() + behind_products(k.rows, k.columns), scale = 1 / (real)sqrt((double)q.columns);
    for (int t0 = 0; t0 < q.rows; t0 += QUERIES) {
        Scores s = scores_at(q, k, t0);
        products_of_rows(P, s, q, k, scale);
        for (int i = 0; i < s.rows; i++) {
            real *row = P + (int64_t)i * s.row;
            int seen = s.keys - s.rows + i + 1, lanes = whole_lanes(seen); // a position sees itself and what came before
            hide(row, seen, -(real)INFINITY);
            real max = row_max(row, lanes), inverse = 1 / exponentials(row, lanes, max);
            for (int j = 0; j < lanes; j++) row[j] *= inverse;
            for (int j = lanes; j < s.row; j++) row[j] = 0;
            if (stats != NULL) stats[2 * (t0 + i)] = max, stats[2 * (t0 + i) + 1] = inverse;
        }
        triangle_product(empty(block_of(y, t0, 0, s.rows, y.columns)), as_matrix(P, s), block_of(v, 0, 0, s.keys, v.columns), WHOLE,
                         LOWER_A, s.keys - s.rows);
    }
}

// P again from the scores in p and the statistics, and dS from dP in ds: ds = p (dp - sum dp p)
static void gradient_of_row(real *p, real *ds, int seen, int row, const real *stats)
{
    int lanes = whole_lanes(seen);
    hide(p, seen, -(real)INFINITY);
    hide(ds, seen, 0);
    for (int j = 0; j < lanes; j++) p[j] = fast_exp(p[j] - stats[0]) * stats[1];
    for (int j = lanes; j < row; j++) p[j] = ds[j] = 0;
    real mean = row_dot(ds, p, lanes);
    for (int j = 0; j < lanes; j++) ds[j] = p[j] * (ds[j] - mean);
}

void attention_gradient(Matrix dq, Matrix dk, Matrix dv, Matrix dy, Matrix q, Matrix k, Matrix v, const real *stats)
{
    int T = q.rows, D = q.columns;
    real scale = 1 / (real)sqrt((double)D);
    real *P = scratch() + behind_products(T, D), *dS = P + block_room(T);
    for (int t0 = (T - 1) / QUERIES * QUERIES; t0 >= 0; t0 -= QUERIES) { // the last one, which sees all keys, may store dk and dv
        Scores s = scores_at(q, k, t0);
        products_of_rows(P, s, q, k, scale);
        products_of_rows(dS, s, dy, v, 1); // dP = dy v^T
        for (int i = 0; i < s.rows; i++)
            gradient_of_row(P + (int64_t)i * s.row, dS + (int64_t)i * s.row, t0 + i + 1, s.row, stats + 2 * (t0 + i));
        Matrix p = as_matrix(P, s), ds = as_matrix(dS, s), dY = block_of(dy, t0, 0, s.rows, D), Q = block_of(q, t0, 0, s.rows, D);
        triangle_product(block_of(dv, 0, 0, s.keys, D), transposed(p), dY, WHOLE, UPPER_A, t0);
        triangle_product(block_of(dq, t0, 0, s.rows, D), ds, scaled(block_of(k, 0, 0, s.keys, D), scale), WHOLE, LOWER_A, t0);
        triangle_product(block_of(dk, 0, 0, s.keys, D), transposed(ds), scaled(Q, scale), WHOLE, UPPER_A, t0);
        dk.empty = dv.empty = false;
    }
}
