// test_kernels.c - the verbs of kernels.h against loops in double that say the same: products at every kind of edge, their parts, sums
// and exponentials of rows, attention with and without a past. It holds for fast/ and for the plain loops of kernels.c.

#include "../kernels.h"
#include "../memory.h"
#include "gradcheck.h"
#include "test.h"

// ------------------------------------------------------------------------------------------------------------------ products

typedef enum Start { START_NONE, START_BIAS, START_SELF, STARTS } Start;

// A product with its operands in guarded buffers: NaN around what may be read, canaries around what may be written.
typedef struct Product { Matrix A, B, C; real *a, *b, *c, *bias; int64_t a_size, b_size, c_size; } Product;

enum { GUARD = 48 };
static const real CANARY = (real)-12345.5;

static real *guarded(int64_t inner, real fill)
{
    real *buffer = malloc((size_t)(inner + 2 * GUARD) * sizeof *buffer);
    for (int64_t i = 0; i < inner + 2 * GUARD; i++) buffer[i] = fill;
    return buffer;
}

static real *element(Matrix m, int64_t i, int64_t j) { return &m.at[i * m.down + j * m.right]; }

// rows x columns whose neighbours lie `gap` further apart than they must; transposed in memory, if asked for.
static Matrix spread(real *at, int rows, int columns, int gap, bool is_transposed)
{
    Matrix m = is_transposed ? matrix(at, columns, rows) : matrix(at, rows, columns);
    m.down += gap;
    return is_transposed ? transposed(m) : m;
}

static void fill_matrix(Matrix m, uint64_t seed)
{
    for (int i = 0; i < m.rows; i++)
        for (int j = 0; j < m.columns; j++) *element(m, i, j) = (real)irregular(seed, (int64_t)i * m.columns + j, 1);
}

// C [m,n] = A [m,k] B [k,n] times the scale, which A and B share, from zeros, a row, or what C holds.
static Product product_new(int m, int n, int k, bool a_transposed, bool b_transposed, Start start, double scale)
{
    Product q = { .a_size = a_transposed ? (int64_t)(m + 3) * k : (int64_t)(k + 3) * m,
                  .b_size = b_transposed ? (int64_t)(k + 2) * n : (int64_t)(n + 2) * k, .c_size = (int64_t)(n + 5) * m };
    q.a = guarded(q.a_size, (real)NAN), q.b = guarded(q.b_size, (real)NAN);
    q.c = guarded(q.c_size, CANARY), q.bias = guarded(n, (real)NAN);
    q.A = scaled(spread(q.a + GUARD, m, k, 3, a_transposed), (real)(scale * 4));
    q.B = scaled(spread(q.b + GUARD, k, n, 2, b_transposed), (real)0.25);
    q.C = spread(q.c + GUARD, m, n, 5, false);
    fill_matrix(q.A, 1), fill_matrix(q.B, 2), fill_matrix(q.C, 4);
    for (int j = 0; j < n; j++) q.bias[GUARD + j] = (real)irregular(3, j, 1);
    for (int i = 0; i < m && start != START_SELF; i++)
        for (int j = 0; j < n; j++) *element(q.C, i, j) = (real)NAN;
    if (start == START_NONE) q.C = empty(q.C);
    if (start == START_BIAS) q.C = starting_from(q.C, q.bias + GUARD);
    return q;
}

static void product_free(Product *q) { free(q->a), free(q->b), free(q->c), free(q->bias); }

static void run_parts(const Product *q, int count)
{
    for (int i = 0; i < count; i++) product(q->C, q->A, q->B, (Part){ i, count });
}

static bool outside_untouched(const Product *q, char *text, size_t size)
{
    for (int64_t w = 0; w < q->c_size + 2 * GUARD; w++) {
        int64_t at = w - GUARD;
        if ((at >= 0 && at < q->c_size && at % q->C.down < q->C.columns) || q->c[w] == CANARY) continue;
        snprintf(text, size, "%d x %d x %d: wrote outside of C at %" PRId64, q->C.rows, q->C.columns, q->A.columns, at);
        return false;
    }
    return true;
}

// The triple loop, at every `every`-th element and along the borders; true if all is right and no canary was touched.
static bool product_right(const Product *q, Start start, int every, char *text, size_t size)
{
    int m = q->C.rows, n = q->C.columns, k = q->A.columns;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            int64_t e = (int64_t)i * n + j;
            if (e % every != 0 && i != 0 && j != 0 && i != m - 1 && j != n - 1) continue;
            double sum = start == START_BIAS ? irregular(3, j, 1) : start == START_SELF ? irregular(4, e, 1) : 0, weight = fabs(sum);
            for (int l = 0; l < k; l++) {
                double term = (double)(q->A.factor * q->B.factor) * irregular(1, (int64_t)i * k + l, 1) * irregular(2, (int64_t)l * n + j, 1);
                sum += term;
                weight += fabs(term);
            }
            double got = (double)*element(q->C, i, j);
            if (fabs(got - sum) <= EPSILON * (k + 3) * weight) continue;
            snprintf(text, size, "%d x %d x %d, neighbours %" PRId64 " %" PRId64 ", %" PRId64 " %" PRId64 " apart, start %d: C[%d,%d] = %.9g, not %.9g",
                     m, n, k, q->A.down, q->A.right, q->B.down, q->B.right, start, i, j, got, sum);
            return false;
        }
    return outside_untouched(q, text, size);
}

static void check_product(int m, int n, int k, int every)
{
    for (int form = 0; form < 4 * STARTS; form++) {
        Start start = (Start)(form / 4);
        Product q = product_new(m, n, k, form & 1, form & 2, start, form % 5 == 0 ? 1 : -0.375);
        run_parts(&q, 1 + form % 3);
        char text[256] = "";
        EXPECT(product_right(&q, start, every, text, sizeof text), "%s", text);
        product_free(&q);
    }
}

TEST(matmul_equals_the_triple_loop)
{
    for (int i = 0; i < 60; i++)
        check_product(1 + (int)(random_bits(5, 3 * (uint64_t)i) % 70), 1 + (int)(random_bits(5, 3 * (uint64_t)i + 1) % 70),
                1 + (int)(random_bits(5, 3 * (uint64_t)i + 2) % 70), 3);
    static const int sizes[] = { 1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33 };
    for (int i = 0; i < 14; i++) check_product(sizes[i], sizes[(i * 5 + 3) % 14], sizes[(i * 3 + 1) % 14], 1);
    check_product(1, 1, 1, 1);
    check_product(1, 300, 7, 1);
    check_product(300, 1, 7, 1);
}

TEST(matmul_across_its_blocks)
{
    check_product(301, 300, 513, 211);
    check_product(193, 257, 256, 211);
    check_product(145, 33, 257, 61);
    check_product(29, 1100, 300, 211);
}

// Row i of C by itself, or column j.
static bool alone_differs(const Product *one, int i, int j, int form)
{
    int m = one->C.rows, n = one->C.columns, k = one->A.columns;
    Product q = product_new(m, n, k, form & 1, form & 2, START_BIAS, -0.375);
    if (j < 0) {
        q.A = block_of(q.A, i, 0, 1, k);
        q.C = block_of(q.C, i, 0, 1, n);
    } else {
        q.B = block_of(q.B, 0, j, k, 1);
        q.C = block_of(q.C, 0, j, m, 1);
    }
    run_parts(&q, 1);
    bool differs = false;
    for (int r = 0; r < q.C.rows; r++)
        for (int c = 0; c < q.C.columns; c++)
            differs |= !same_bits(element(q.C, r, c), element(one->C, j < 0 ? i : r, j < 0 ? c : j), 1);
    product_free(&q);
    return differs;
}

// The bits of an element depend on its own row of A and column of B alone: not on m, n, or the number of parts.
TEST(matmul_bits_depend_on_row_and_column_alone)
{
    static const int shapes[][3] = { { 37, 53, 300 }, { 9, 70, 33 }, { 211, 5, 17 }, { 50, 290, 40 }, { 20, 600, 33 } };
    for (int s = 0; s < 5; s++)
        for (int form = 0; form < 4; form++) {
            int m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
            Product one = product_new(m, n, k, form & 1, form & 2, START_BIAS, -0.375);
            run_parts(&one, 1);
            for (int parts = 2; parts <= 7; parts += parts == 3 ? 2 : 1) {
                Product many = product_new(m, n, k, form & 1, form & 2, START_BIAS, -0.375);
                run_parts(&many, parts);
                EXPECT(same_bits(one.c, many.c, one.c_size + 2 * GUARD), "%d x %d x %d: other bits in %d parts", m, n, k, parts);
                product_free(&many);
            }
            int64_t rows_differ = 0, columns_differ = 0;
            for (int i = 0; i < m; i += 3) rows_differ += alone_differs(&one, i, -1, form);
            for (int j = 0; j < n; j += 7) columns_differ += alone_differs(&one, -1, j, form);
            EXPECT(rows_differ == 0 && columns_differ == 0,
                    "%d x %d x %d: %" PRId64 " rows and %" PRId64 " columns have other bits when computed alone", m, n, k, rows_differ, columns_differ);
            product_free(&one);
        }
}

// --------------------------------------------------------------------------------------------------------- how parts are cut

static const int odd_shapes[][2] = { { 37, 53 }, { 3, 200 }, { 200, 3 }, { 1, 1 }, { 64, 64 }, { 1, 300 }, { 5, 16 }, { 33, 31 }, { 7, 129 } };
enum { ODD_SHAPES = sizeof odd_shapes / sizeof *odd_shapes };

// Adds 1 for each element that the product of one part writes.
static void mark_product(int *owner, int m, int n, int k, int form, Part part)
{
    Product q = product_new(m, n, k, form & 1, form & 2, (Start)(form / 4), 1);
    Matrix C = q.C;
    C.empty = true; // from zeros or the bias: what is written is no canary
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) *element(C, i, j) = CANARY;
    product(C, q.A, q.B, part);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) owner[i * n + j] += *element(C, i, j) != CANARY;
    product_free(&q);
}

TEST(matmul_parts_write_each_element_once)
{
    for (int s = 0; s < ODD_SHAPES; s++)
        for (int parts = 1; parts <= 6; parts++) {
            int m = odd_shapes[s][0], n = odd_shapes[s][1];
            int *writes = calloc((size_t)m * (size_t)n, sizeof *writes);
            for (int i = 0; i < parts; i++) mark_product(writes, m, n, 5, 0, (Part){ i, parts });
            int64_t wrong = 0;
            for (int e = 0; e < m * n; e++) wrong += writes[e] != 1;
            EXPECT(wrong == 0, "%d x %d in %d parts: %" PRId64 " elements are not written exactly once", m, n, parts, wrong);
            free(writes);
        }
}

static void mark_copy(int *owner, int m, int n, bool from_transposed, Part part)
{
    Product q = product_new(m, n, n, from_transposed, false, START_SELF, 0.25); // A's factor is 1
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) *element(q.C, i, j) = CANARY;
    copy(q.C, q.A, part);
    int64_t wrong = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            real c = *element(q.C, i, j);
            owner[i * n + j] += c != CANARY;
            wrong += c != CANARY && c != *element(q.A, i, j);
        }
    char text[256] = "";
    EXPECT(wrong == 0 && outside_untouched(&q, text, sizeof text), "%d x %d: %" PRId64 " elements are not those of A; %s", m, n, wrong, text);
    product_free(&q);
}

// A kernel may copy and then add, part by part, with nobody in between: so the two must agree on what a part owns, and from C's
// shape alone.
TEST(copy_and_product_cut_alike)
{
    static const int terms[] = { 1, 5, 140 };
    for (int s = 0; s < ODD_SHAPES; s++)
        for (int parts = 1; parts <= 5; parts++)
            for (int i = 0; i < parts; i++) {
                int m = odd_shapes[s][0], n = odd_shapes[s][1];
                Part part = { i, parts };
                int *first = calloc((size_t)m * (size_t)n, sizeof *first), *copied = calloc((size_t)m * (size_t)n, sizeof *copied);
                mark_product(first, m, n, 3, 0, part);
                for (int form = 0; form < 8; form++) { // not one that starts from C, whose old values would show through
                    int *again = calloc((size_t)m * (size_t)n, sizeof *again);
                    mark_product(again, m, n, terms[form % 3], form, part);
                    EXPECT(memcmp(first, again, (size_t)m * (size_t)n * sizeof *again) == 0,
                           "%d x %d, part %d of %d: the cut is another one with %d terms, form %d", m, n, i, parts, terms[form % 3], form);
                    free(again);
                }
                mark_copy(copied, m, n, false, part);
                EXPECT(memcmp(first, copied, (size_t)m * (size_t)n * sizeof *copied) == 0,
                       "%d x %d, part %d of %d: copy and product own different elements", m, n, i, parts);
                free(first), free(copied);
            }
}

// Whatever part comes first.
TEST(copy_then_product_in_any_order)
{
    for (int s = 0; s < ODD_SHAPES; s++)
        for (int parts = 1; parts <= 5; parts++) {
            int m = odd_shapes[s][0], n = odd_shapes[s][1];
            Product whole = product_new(m, n, 9, false, true, START_SELF, -0.375);
            run_parts(&whole, 1);
            Product from = product_new(m, n, 9, false, true, START_SELF, -0.375);
            for (int order = 0; order < 3; order++) {
                Product q = product_new(m, n, 9, false, true, START_NONE, -0.375); // C holds NaN
                q.C.empty = false;
                for (int step = 0; step < parts; step++) {
                    int i = order == 0 ? step : order == 1 ? parts - 1 - step : (step * 3 + 1) % parts;
                    if (order == 2 && parts == 3) i = (step + 1) % parts;
                    copy(q.C, from.C, (Part){ i, parts });
                    product(q.C, q.A, q.B, (Part){ i, parts });
                }
                EXPECT(same_bits(whole.c, q.c, whole.c_size + 2 * GUARD), "%d x %d in %d parts, order %d: other bits than in one", m, n, parts, order);
                product_free(&q);
            }
            product_free(&whole), product_free(&from);
        }
}

TEST(copying_a_matrix_onto_itself_changes_nothing)
{
    Product q = product_new(37, 53, 1, false, false, START_SELF, 1);
    real *before = copy_of(q.c, q.c_size + 2 * GUARD);
    copy(q.C, q.C, WHOLE);
    EXPECT(same_bits(before, q.c, q.c_size + 2 * GUARD), "it did");
    free(before);
    product_free(&q);
}

TEST(columns_are_summed_in_parts)
{
    static const int shapes[][2] = { { 1, 1 }, { 5, 7 }, { 41, 16 }, { 13, 17 }, { 3, 250 }, { 100, 33 } };
    for (int s = 0; s < 6; s++)
        for (int parts = 1; parts <= 5; parts++) {
            int m = shapes[s][0], n = shapes[s][1];
            Product q = product_new(m, n, n, false, false, START_SELF, 0.25);
            real *sums = guarded(n, CANARY);
            for (int j = 0; j < n; j++) sums[GUARD + j] = (real)irregular(8, j, 1); // it adds
            for (int i = parts - 1; i >= 0; i--) column_sums(sums + GUARD, q.A, (Part){ i, parts });
            int64_t wrong = 0;
            for (int j = 0; j < n; j++) {
                double sum = irregular(8, j, 1), weight = fabs(sum);
                for (int i = 0; i < m; i++) sum += (double)*element(q.A, i, j), weight += fabs((double)*element(q.A, i, j));
                wrong += !(fabs((double)sums[GUARD + j] - sum) <= EPSILON * m * weight);
            }
            for (int j = 0; j < GUARD; j++) wrong += sums[j] != CANARY || sums[GUARD + n + j] != CANARY;
            EXPECT(wrong == 0, "[%d,%d] in %d parts: %" PRId64 " sums are wrong", m, n, parts, wrong);
            free(sums);
            product_free(&q);
        }
}

// ---------------------------------------------------------------------------------------------------------------------- rows

typedef struct Sums { double sum, dot, max, exps, squares, centred, norm2; } Sums;

static Sums sums_of(const real *a, const real *b, const real *x, double mean, int64_t n)
{
    Sums s = { .max = (double)a[0] };
    for (int64_t j = 0; j < n; j++) {
        double a_j = (double)a[j], b_j = (double)b[j], x_j = (double)x[j] - mean;
        s.sum += a_j, s.dot += a_j * b_j, s.max = fmax(s.max, a_j);
        s.squares += x_j * x_j, s.centred += a_j * b_j * x_j, s.norm2 += a_j * a_j;
    }
    for (int64_t j = 0; j < n; j++) s.exps += exp((double)a[j] - s.max);
    return s;
}

static bool is_near(double got, double expected, int64_t n) { return fabs(got - expected) <= 2 * EPSILON * (double)n + 4 * EPSILON * fabs(expected); }

TEST(sums_of_rows_of_every_length)
{
    static const int more[] = { 127, 128, 129, 255, 256, 257, 1000, 4097 };
    for (int step = 1; step <= 70 + 8; step++) {
        int64_t n = step <= 70 ? step : more[step - 71];
        real *a = guarded(n, (real)NAN), *b = guarded(n, (real)NAN), *x = guarded(n, (real)NAN); // what is read beyond would show
        for (int64_t j = 0; j < n; j++) {
            a[GUARD + j] = (real)irregular(1, j, 1), b[GUARD + j] = (real)irregular(2, j, 1), x[GUARD + j] = (real)irregular(3, j, 1);
        }
        const real *a_ = a + GUARD, *b_ = b + GUARD, *x_ = x + GUARD, mean = (real)0.125;
        Sums s = sums_of(a_, b_, x_, 0.125, n);
        EXPECT(is_near((double)row_sum(a_, n), s.sum, n), "row_sum of %" PRId64 ": %.9g, not %.9g", n, (double)row_sum(a_, n), s.sum);
        EXPECT(is_near((double)row_dot(a_, b_, n), s.dot, n), "row_dot of %" PRId64 ": %.9g, not %.9g", n, (double)row_dot(a_, b_, n), s.dot);
        EXPECT((double)row_max(a_, n) == s.max, "row_max of %" PRId64 ": %.9g, not %.9g", n, (double)row_max(a_, n), s.max);
        EXPECT(is_near((double)row_exp_sum(a_, (real)s.max, n), s.exps, n), "row_exp_sum of %" PRId64 ": %.9g, not %.9g", n,
               (double)row_exp_sum(a_, (real)s.max, n), s.exps);
        EXPECT(is_near((double)row_squares(x_, mean, n), s.squares, n), "row_squares of %" PRId64 ": %.9g, not %.9g", n,
               (double)row_squares(x_, mean, n), s.squares);
        EXPECT(is_near((double)row_dot_centred(a_, b_, x_, mean, n), s.centred, n), "row_dot_centred of %" PRId64 ": %.9g, not %.9g", n,
               (double)row_dot_centred(a_, b_, x_, mean, n), s.centred);
        EXPECT(fabs(row_norm2(a_, n) - s.norm2) <= 1e-13 * s.norm2, "row_norm2 of %" PRId64 ": %.17g, not %.17g", n, row_norm2(a_, n), s.norm2);
        free(a), free(b), free(x);
    }
}

// norm_of of tensor.h, which reports and messages show.
TEST(norms_of_every_length)
{
    real x[300];
    double squares = 0;
    EXPECT(norm_of(NULL, 5) == 0 && norm_of(x, 0) == 0, "the norm of nothing");
    for (int n = 1; n <= 300; n++) {
        x[n - 1] = (real)irregular(6, n, 1);
        squares += (double)x[n - 1] * (double)x[n - 1];
        EXPECT(fabs(norm_of(x, n) - sqrt(squares)) < 1e-12, "the norm of %d numbers is %.12g, not %.12g", n, norm_of(x, n), sqrt(squares));
    }
}

// The largest anywhere in the row; NaN is not asked for.
TEST(the_largest_of_a_row_at_every_place)
{
    real row[67];
    for (int n = 1; n <= 67; n++)
        for (int place = 0; place < n; place++) {
            for (int j = 0; j < n; j++) row[j] = (real)-3 - (real)j;
            row[place] = (real)-0.5;
            EXPECT(row_max(row, n) == (real)-0.5, "of %d numbers, the largest at %d: %g", n, place, (double)row_max(row, n));
        }
}

static double exp_error(const real *x, double max, int64_t n, double *where)
{
    double worst = 0;
    real *y = guarded(n, CANARY);
    row_exp(y + GUARD, x, (real)max, n);
    for (int64_t j = 0; j < n; j++) {
        double expected = exp((double)(x[j] - (real)max)), error = fabs((double)y[GUARD + j] / expected - 1);
        if (!(error <= worst)) worst = error, *where = (double)x[j];
    }
    for (int j = 0; j < GUARD; j++)
        if (y[j] != CANARY || y[GUARD + n + j] != CANARY) worst = (double)INFINITY;
    free(y);
    return worst;
}

TEST(exponentials_of_rows_agree_with_libm)
{
    enum { N = 70001 };
    real *x = malloc(N * sizeof *x);
    double where = 0, from = -87, to = 88;
    for (int j = 0; j < N; j++) x[j] = (real)(from + (to - from) * j / N);
    double worst = exp_error(x, 0, N, &where);
    EXPECT(worst < (IN_DOUBLE ? 1e-15 : 2e-7), "relative error %.3g at %.9g", worst, where);
    for (int j = 0; j < N; j++) x[j] = (real)(irregular(3, j, 1) * pow(2, -j % 40)); // near 0
    worst = exp_error(x, 0, N, &where);
    EXPECT(worst < (IN_DOUBLE ? 1e-15 : 2e-7), "relative error %.3g at %.9g", worst, where);
    for (int n = 1; n < 70; n++) { // every length, with a maximum, and in place
        for (int j = 0; j < n; j++) x[j] = (real)(10 * irregular(4, j, 1));
        worst = exp_error(x, 10, n, &where);
        EXPECT(worst < (IN_DOUBLE ? 1e-15 : 2e-7), "%d numbers: relative error %.3g at %.9g", n, worst, where);
        real apart[70];
        row_exp(apart, x, 10, n);
        row_exp(x, x, 10, n);
        EXPECT(same_bits(apart, x, n), "%d numbers: other bits in place", n);
    }
    free(x);
}

TEST(exponentials_far_from_zero)
{
    volatile real nan = (real)NAN;
    real x[] = { -(real)INFINITY, -1000, -89, nan, 0, 88 }, y[6];
    row_exp(y, x, 0, 6);
    EXPECT(y[0] == 0, "e^-infinity = %g: attention hides keys by it", (double)y[0]);
    EXPECT(y[1] >= 0 && (double)y[1] < 1e-38 && y[2] >= 0 && (double)y[2] < 1e-38, "e^-1000 = %g, e^-89 = %g", (double)y[1], (double)y[2]);
    EXPECT(isnan((double)y[3]), "e^NaN = %g", (double)y[3]);
    EXPECT(y[4] == 1 && fabs((double)y[5] / exp(88) - 1) < 2e-7, "e^0 = %.9g, e^88 = %.9g", (double)y[4], (double)y[5]);
}

// ----------------------------------------------------------------------------------------------------------------- attention

typedef struct Head { int Q, T, D; real *q_, *kv_, *y_, *d_; Matrix q, k, v, y, dq, dk, dv; real *stats; } Head;

// q, and k | v as a cache holds them, among other columns; y and the gradients with canaries around them.
static Head head_new(int Q, int T, int D)
{
    Head h = { .Q = Q, .T = T, .D = D };
    h.q_ = guarded((int64_t)Q * 3 * D, (real)NAN), h.kv_ = guarded((int64_t)T * 5 * D, (real)NAN);
    h.y_ = guarded((int64_t)Q * 2 * D, CANARY), h.d_ = guarded((int64_t)T * 4 * D, CANARY);
    h.stats = guarded(2 * Q, CANARY);
    h.q = block_of(matrix(h.q_ + GUARD, Q, 3 * D), 0, D, Q, D);
    h.k = block_of(matrix(h.kv_ + GUARD, T, 5 * D), 0, D, T, D), h.v = block_of(matrix(h.kv_ + GUARD, T, 5 * D), 0, 3 * D, T, D);
    h.y = block_of(matrix(h.y_ + GUARD, Q, 2 * D), 0, D, Q, D);
    Matrix d = matrix(h.d_ + GUARD, T, 4 * D);
    h.dq = block_of(d, 0, 0, T, D), h.dk = block_of(d, 0, D, T, D), h.dv = block_of(d, 0, 2 * D, T, D);
    fill_matrix(h.q, 1), fill_matrix(h.k, 2), fill_matrix(h.v, 3);
    return h;
}

static void head_free(Head *h) { free(h->q_), free(h->kv_), free(h->y_), free(h->d_), free(h->stats); }

static double dot_of(Matrix a, int i, Matrix b, int j)
{
    double sum = 0;
    for (int d = 0; d < a.columns; d++) sum += (double)*element(a, i, d) * (double)*element(b, j, d);
    return sum;
}

// p[0..seen-1]: the probabilities of query t; returns how many keys it sees.
static int probabilities(double *p, const Head *h, int t, double *max, double *inverse)
{
    int seen = h->T - h->Q + t + 1;
    double sum = 0;
    *max = -(double)INFINITY;
    for (int j = 0; j < seen; j++) p[j] = dot_of(h->q, t, h->k, j) / sqrt(h->D), *max = fmax(*max, p[j]);
    for (int j = 0; j < seen; j++) sum += p[j] = exp(p[j] - *max);
    *inverse = 1 / sum;
    for (int j = 0; j < seen; j++) p[j] *= *inverse;
    return seen;
}

static void check_attention(int Q, int T, int D)
{
    Head h = head_new(Q, T, D);
    double worst = 0, *p = malloc((size_t)T * sizeof *p), max, inverse;
    int64_t strayed = 0;
    scratch_reserve(T, D);
    attention(h.y, h.q, h.k, h.v, h.stats + GUARD);
    for (int t = 0; t < Q; t++) {
        int seen = probabilities(p, &h, t, &max, &inverse);
        worst = fmax(worst, fmax(fabs((double)h.stats[GUARD + 2 * t] - max), fabs((double)h.stats[GUARD + 2 * t + 1] - inverse)));
        for (int d = 0; d < D; d++) {
            double y = 0;
            for (int j = 0; j < seen; j++) y += p[j] * (double)*element(h.v, j, d);
            double error = fabs((double)*element(h.y, t, d) - y);
            if (!(error <= worst)) worst = error;
            strayed += *(element(h.y, t, d) - D) != CANARY;
        }
    }
    EXPECT(worst < (IN_DOUBLE ? 1e-14 : 3e-6) && strayed == 0, "Q %d, T %d, D %d: off by %.3g; %" PRId64 " numbers beside y were written", Q, T, D, worst, strayed);
    real *y = copy_of(h.y_, (int64_t)Q * 2 * D + 2 * GUARD);
    attention(h.y, h.q, h.k, h.v, NULL);
    EXPECT(same_bits(y, h.y_, (int64_t)Q * 2 * D + 2 * GUARD), "Q %d, T %d, D %d: other bits without statistics", Q, T, D);
    free(y), free(p);
    head_free(&h);
}

// One query, some, and all; D and T on both sides of the lanes and of a block of queries.
TEST(attention_with_and_without_a_past)
{
    static const int lengths[] = { 1, 2, 5, 15, 16, 17, 63, 64, 65, 131 }, widths[] = { 1, 3, 16, 19, 33 };
    for (int l = 0; l < 10; l++)
        for (int w = 0; w < 5; w++) {
            int T = lengths[l], queries[] = { 1, (T + 2) / 3, T - 1, T };
            for (int k = 0; k < 4; k++)
                if (queries[k] >= 1) check_attention(queries[k], T, widths[w]);
        }
    scratch_release();
}

// A key that lies in the future changes no bit, not even a NaN.
TEST(attention_reads_no_future)
{
    Head h = head_new(40, 70, 19);
    scratch_reserve(70, 19);
    attention(h.y, h.q, h.k, h.v, NULL);
    real *before = copy_of(h.y_, 40 * 2 * 19 + 2 * GUARD);
    for (int j = 50; j < 70; j++)
        for (int d = 0; d < 19; d++) *element(h.k, j, d) = (real)3, *element(h.v, j, d) = (real)7;
    attention(h.y, h.q, h.k, h.v, NULL);
    EXPECT(same_bits(before, h.y_, GUARD + 20 * 2 * 19), "the first 20 queries see keys 0 to 49 at most, and their results changed");
    EXPECT(!same_bits(before, h.y_, 40 * 2 * 19 + 2 * GUARD), "the others' did not");
    free(before);
    head_free(&h);
    scratch_release();
}

static void expected_gradients(const Head *h, Matrix dy, double *dq, double *dk, double *dv)
{
    int T = h->T, D = h->D;
    double *p = malloc((size_t)T * sizeof *p), *dp = malloc((size_t)T * sizeof *dp), max, inverse, scale = 1 / sqrt(D);
    for (int t = 0; t < T; t++) {
        int seen = probabilities(p, h, t, &max, &inverse);
        double mean = 0;
        for (int j = 0; j < seen; j++) dp[j] = dot_of(dy, t, h->v, j), mean += p[j] * dp[j];
        for (int j = 0; j < seen; j++)
            for (int d = 0; d < D; d++) {
                double ds = p[j] * (dp[j] - mean) * scale;
                dv[j * D + d] += p[j] * (double)*element(dy, t, d);
                dq[t * D + d] += ds * (double)*element(h->k, j, d);
                dk[j * D + d] += ds * (double)*element(h->q, t, d);
            }
    }
    free(p), free(dp);
}

// Twice: into empty gradients, and added to what is there.
static void check_attention_gradient(int T, int D)
{
    Head h = head_new(T, T, D);
    double *expected[3], worst[2] = { 0, 0 };
    int64_t strayed = 0;
    for (int i = 0; i < 3; i++) expected[i] = calloc((size_t)T * (size_t)D, sizeof *expected[i]);
    scratch_reserve(T, D);
    attention(h.y, h.q, h.k, h.v, h.stats + GUARD);
    fill_matrix(h.y, 9); // from now on it is dy
    expected_gradients(&h, h.y, expected[0], expected[1], expected[2]);
    Matrix d[3] = { h.dq, h.dk, h.dv };
    for (int twice = 0; twice < 2; twice++) {
        for (int i = 0; i < 3; i++) d[i].empty = !twice;
        attention_gradient(d[0], d[1], d[2], h.y, h.q, h.k, h.v, h.stats + GUARD);
        for (int i = 0; i < 3; i++)
            for (int t = 0; t < T; t++)
                for (int c = 0; c < D; c++) {
                    double error = fabs((double)*element(d[i], t, c) - (1 + twice) * expected[i][t * D + c]);
                    if (!(error <= worst[twice])) worst[twice] = error;
                }
    }
    for (int t = 0; t < T; t++)
        for (int c = 0; c < D; c++) strayed += *(element(h.dv, t, c) + D) != CANARY;
    double bound = IN_DOUBLE ? 3e-14 : 2e-5;
    EXPECT(worst[0] < bound && worst[1] < 2 * bound && strayed == 0, "T %d, D %d: off by %.3g, added once more by %.3g; %" PRId64 " numbers beside were written",
           T, D, worst[0], worst[1], strayed);
    for (int i = 0; i < 3; i++) free(expected[i]);
    head_free(&h);
}

TEST(attention_gradients_follow_the_formula)
{
    static const int lengths[] = { 1, 2, 5, 16, 17, 64, 65, 131 }, widths[] = { 1, 3, 16, 19, 33 };
    for (int l = 0; l < 8; l++)
        for (int w = 0; w < 5; w++) check_attention_gradient(lengths[l], widths[w]);
    scratch_release();
}

enum { PEAK_T = 80, PEAK_D = 3 };

// The probabilities of query t when keys `place` and `other` score 1000 and 999, and all others 0.
static void peaked(double *p, int t, int place, int other)
{
    double largest = place <= t ? 1000 : other <= t ? 999 : 0, sum = 0;
    for (int j = 0; j <= t; j++) sum += p[j] = exp((j == place ? 1000 : j == other ? 999 : 0) - largest);
    for (int j = 0; j <= t; j++) p[j] /= sum;
}

static void check_peak(int T, int place, int other)
{
    static real numbers_[8][PEAK_T * PEAK_D], stats[2 * PEAK_T];
    Matrix m[8]; // y, q, k, v, dq, dk, dv, dy
    for (int i = 0; i < 8; i++) {
        m[i] = matrix(numbers_[i], T, PEAK_D);
        for (int j = 0; j < T * PEAK_D; j++) numbers_[i][j] = i == 3 || i == 7 ? (real)irregular((uint64_t)i, j, 1) : 0;
    }
    for (int t = 0; t < T; t++) *element(m[1], t, 0) = (real)(1000 * sqrt(PEAK_D));
    *element(m[2], place, 0) = 1, *element(m[2], other, 0) = (real)0.999;
    attention(m[0], m[1], m[2], m[3], stats);
    attention_gradient(m[4], m[5], m[6], m[7], m[1], m[2], m[3], stats);
    double worst = 0, worst_dv = 0, dv[PEAK_T * PEAK_D] = { 0 };
    for (int t = 0; t < T; t++) {
        double p[PEAK_T];
        peaked(p, t, place, other);
        for (int d = 0; d < PEAK_D; d++) {
            double y = 0;
            for (int j = 0; j <= t; j++) y += p[j] * (double)*element(m[3], j, d), dv[j * PEAK_D + d] += p[j] * (double)*element(m[7], t, d);
            double error = fabs((double)*element(m[0], t, d) - y);
            worst = fmax(worst, isfinite(error) ? error : 1);
        }
    }
    for (int j = 0; j < T * PEAK_D; j++) {
        double error = fabs((double)numbers_[6][j] - dv[j]);
        worst_dv = fmax(worst_dv, isfinite(error) && isfinite((double)numbers_[4][j]) && isfinite((double)numbers_[5][j]) ? error : 1);
    }
    double bound = IN_DOUBLE ? 1e-10 : 2e-3; // a score of 1000 in float is off by some 1e-4
    EXPECT(worst < bound && worst_dv < bound * T, "%d keys, the largest score at %d, the next at %d: y is off by %.3g, dv by %.3g", T, place, other, worst, worst_dv);
}

// As with the logits of a row: two keys far above all others, one e times as likely as the other.
TEST(attention_with_the_largest_score_at_every_key)
{
    static const int lengths[] = { 2, 15, 16, 17, 31, 32, 33, 64, 65, 80 };
    scratch_reserve(PEAK_T, PEAK_D);
    for (int l = 0; l < 10; l++)
        for (int place = 0; place < lengths[l]; place++) {
            check_peak(lengths[l], place, (place + 1) % lengths[l]);
            if (place > 1) check_peak(lengths[l], place, 0);
        }
    scratch_release();
}

// ------------------------------------------------------------------------------------------------------------ parts, scratch

TEST(shares_cover_all_and_are_even)
{
    for (int64_t n = 0; n <= 80; n++)
        for (int64_t grain = 1; grain <= 17; grain += 1 + grain / 5)
            for (int count = 1; count <= 9; count++) {
                int64_t end = 0, least = n + 1, most = 0;
                bool aligned = true;
                for (int i = 0; i < count; i++) {
                    Share s = share((Part){ i, count }, n, grain);
                    aligned &= s.begin == end && s.end >= s.begin && (s.begin % grain == 0 || s.begin == n);
                    end = s.end;
                    int64_t length = s.end - s.begin;
                    least = length < least ? length : least;
                    most = length > most ? length : most;
                }
                EXPECT(aligned && end == n, "%" PRId64 " items, grain %" PRId64 ", %d parts: the shares do not follow each other", n, grain, count);
                EXPECT(most - least <= grain, "%" PRId64 " items, grain %" PRId64 ", %d parts: shares from %" PRId64 " to %" PRId64, n, grain, count, least, most);
            }
}

// What it says is what the ledger shows, and a release gives back all of it.
TEST(scratch_is_on_the_ledger)
{
    static const int shapes[][2] = { { 1, 1 }, { 64, 32 }, { 700, 16 }, { 2000, 64 } };
    Product q = product_new(40, 40, 40, false, false, START_NONE, 1);
    for (int s = 0; s < 4; s++) {
        int T = shapes[s][0], D = shapes[s][1];
        scratch_release();
        EXPECT(ledger.live[MEMORY_WORKSPACE] == 0, "%" PRId64 " bytes of scratch after its release", ledger.live[MEMORY_WORKSPACE]);
        scratch_reserve(T, D);
        Head h = head_new(1, T, D);
        attention(h.y, h.q, h.k, h.v, NULL);
        run_parts(&q, 1);
        int64_t expected = scratch_size(T, D) * parallel_threads() * (int64_t)sizeof(real);
        EXPECT(ledger.live[MEMORY_WORKSPACE] == expected, "T %d, D %d: %" PRId64 " bytes of scratch, not %" PRId64, T, D, ledger.live[MEMORY_WORKSPACE], expected);
        scratch_reserve(1, 1); // less than there is
        EXPECT(ledger.live[MEMORY_WORKSPACE] == expected, "less was asked for, and now there are %" PRId64 " bytes", ledger.live[MEMORY_WORKSPACE]);
        head_free(&h);
    }
    product_free(&q);
    scratch_release();
}

// After a reset all three peaks are what is held, of each kind; what is taken then counts, and what was given back before does not.
TEST(peaks_begin_from_what_is_held)
{
    real *held = memory_take(MEMORY_WEIGHTS, 100), *gone = memory_take(MEMORY_MOMENTS, 5000);
    memory_give(MEMORY_MOMENTS, gone, 5000);
    memory_reset_peaks();
    for (int after = 0; after < 2; after++) {
        EXPECT(ledger.peak == ledger.total, "after %d: a peak of %" PRId64 " bytes, and %" PRId64 " are held", after, ledger.peak, ledger.total);
        for (int k = 0; k < MEMORY_KINDS; k++)
            EXPECT(ledger.own_peak[k] == ledger.live[k] && ledger.at_peak[k] == ledger.live[k], "after %d, %s: peaks of %" PRId64 " and %" PRId64 " bytes, and %" PRId64 " are held",
                   after, memory_kind_names[k], ledger.own_peak[k], ledger.at_peak[k], ledger.live[k]);
        if (after == 0) gone = memory_take(MEMORY_ADAPTERS, 30);
    }
    memory_give(MEMORY_ADAPTERS, gone, 30);
    memory_give(MEMORY_WEIGHTS, held, 100);
}

int main(void)
{
    parallel_set_threads(2);
    RUN(matmul_equals_the_triple_loop);
    RUN(matmul_across_its_blocks);
    RUN(matmul_bits_depend_on_row_and_column_alone);
    RUN(matmul_parts_write_each_element_once);
    RUN(copy_and_product_cut_alike);
    RUN(copy_then_product_in_any_order);
    RUN(copying_a_matrix_onto_itself_changes_nothing);
    RUN(columns_are_summed_in_parts);
    RUN(sums_of_rows_of_every_length);
    RUN(norms_of_every_length);
    RUN(the_largest_of_a_row_at_every_place);
    RUN(exponentials_of_rows_agree_with_libm);
    RUN(exponentials_far_from_zero);
    RUN(attention_with_and_without_a_past);
    RUN(attention_reads_no_future);
    RUN(attention_gradients_follow_the_formula);
    RUN(attention_with_the_largest_score_at_every_key);
    RUN(shares_cover_all_and_are_even);
    RUN(scratch_is_on_the_ledger);
    RUN(peaks_begin_from_what_is_held);
    return test_summary();
}
