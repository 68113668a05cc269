// test_fast.c - what fast/ has beside the verbs of kernels.h, which test_kernels.c tests: the exponential, products of triangles, the
// threads and their scratch. The plain build has none of it.

#include "../fast/fast.h"
#include "../memory.h"
#include "gradcheck.h"
#include "test.h"

#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------------------------------------ fast_exp

TEST(fast_exp_agrees_with_libm)
{
    if (IN_DOUBLE) {
        for (double x = -700; x < 700; x += 0.371) EXPECT((double)fast_exp((real)x) == exp(x), "e^%g = %.17g", x,
                (double)fast_exp((real)x));
        return;
    }
    double worst = 0, where = 0;
    for (int sign = -1; sign <= 1; sign += 2)
        for (uint32_t bits = 0x2f000000u; bits < 0x42b00000u; bits += 499) { // from 2^-33 to 88, a sample of all floats
            float x;
            memcpy(&x, &bits, sizeof x);
            x *= (float)sign;
            if (x < -87.0f) break;
            double error = fabs((double)fast_exp((real)x) / exp((double)x) - 1);
            if (!(error <= worst)) worst = error, where = (double)x;
        }
    EXPECT(worst < 2e-7, "relative error %.3g at %.9g", worst, where); // what fast.h promises
    EXPECT(worst > 1e-9, "the test compares nothing: %g", worst);
    EXPECT(fast_exp(0) == 1, "e^0 = %.9g", (double)fast_exp(0));
    const real ends[] = { 1000, (real)88.5, (real)INFINITY };
    for (int i = 0; i < 3; i++) {
        EXPECT(fast_exp(ends[i]) == fast_exp(88), "e^%g leaves the end's value", (double)ends[i]);
        EXPECT(fast_exp(-ends[i]) == 0, "e^-%g = %g, not 0: attention hides keys by it", (double)ends[i],
               (double)fast_exp(-ends[i]));
    }
    for (float x = -87; x > -88; x = nextafterf(x, -88)) { // where the exponent runs out
        double y = (double)fast_exp((real)x), low = exp(-87.0);
        EXPECT(y >= 0 && y <= low * (1 + 2e-7), "e^%.9g = %g", (double)x, y);
        if (!(y >= 0 && y <= low * (1 + 2e-7))) break;
    }
}

TEST(fast_exp_keeps_nan)
{
    volatile real nan = (real)NAN; // known when the program runs, and (below) when it is compiled
    EXPECT(isnan((double)fast_exp(nan)), "e^NaN = %g", (double)fast_exp(nan));
    EXPECT(isnan((double)fast_exp((real)NAN)), "e^NaN = %g, worked out by the compiler", (double)fast_exp((real)NAN));
}

// ----------------------------------------------------------------------------------------------------------------- triangles

static real *numbers(int64_t count, uint64_t seed)
{
    real *x = malloc((size_t)count * sizeof *x);
    for (int64_t i = 0; i < count; i++) x[i] = (real)irregular(seed, i, 1);
    return x;
}

static Matrix stored(real *at, int rows, int columns, bool is_transposed)
{
    return is_transposed ? transposed(matrix(at, columns, rows)) : matrix(at, rows, columns);
}

// How many elements of C = bias + A B, in which a triangle of A is zero, or of C not asked for, have not the bits of the whole.
static int64_t triangle_differs(const int shape[3], int form, Triangle triangle, int diagonal)
{
    int m = shape[0], n = shape[1], k = shape[2];
    real *a = numbers((int64_t)m * k, 1), *b = numbers((int64_t)k * n, 2), *bias = numbers(n, 3);
    real *c[2] = { numbers((int64_t)m * n, 4), numbers((int64_t)m * n, 4) };
    Matrix A = scaled(stored(a, m, k, form & 1), (real)-0.375), B = stored(b, k, n, form & 2);
    for (int i = 0; i < m; i++)
        for (int l = 0; l < k; l++)
            if ((triangle == LOWER_A && l > i + diagonal) || (triangle == UPPER_A && l < i - diagonal)) A.at[i * A.down + l * A.right] = 0;
    product(starting_from(matrix(c[0], m, n), bias), A, B, WHOLE);
    for (int i = 0, parts = 1 + form % 3; i < parts; i++)
        triangle_product(starting_from(matrix(c[1], m, n), bias), A, B, (Part){ i, parts }, triangle, diagonal);
    int64_t wrong = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            if (triangle != LOWER_C || j <= i + diagonal) wrong += !same_bits(&c[0][i * n + j], &c[1][i * n + j], 1);
    free(a), free(b), free(bias), free(c[0]), free(c[1]);
    return wrong;
}

// What a triangle leaves out is not asked for, or zero: the rest has the bits of the whole product.
TEST(matmul_of_a_triangle_equals_the_whole)
{
    static const int shapes[][3] = { { 64, 64, 32 }, { 37, 53, 300 }, { 300, 21, 290 }, { 50, 290, 40 }, { 5, 3, 7 },
                                     { 24, 600, 30 } };
    static const int diagonals[] = { 0, 1, 5, 64, 250 };
    for (int s = 0; s < 6; s++)
        for (int form = 0; form < 60; form++) {
            Triangle triangle = (Triangle)(LOWER_C + form / 4 % 3);
            int64_t wrong = triangle_differs(shapes[s], form, triangle, diagonals[form / 12]);
            EXPECT(wrong == 0, "%d x %d x %d, triangle %d, diagonal %d: %" PRId64 " elements differ", shapes[s][0], shapes[s][1], shapes[s][2],
                   triangle, diagonals[form / 12], wrong);
        }
}

// ------------------------------------------------------------------------------------------------------------------- scratch

enum { SCRATCHES = 3 };
static real *scratch_of[SCRATCHES];
static void note_scratch(void *context, Part part) { (void)context, scratch_of[part.index] = scratch(); }

static const real CANARY = (real)-12345.5;

static void paint(int64_t size)
{
    for (int t = 0; t < SCRATCHES; t++)
        for (int64_t j = 0; j < size; j++) scratch_of[t][j] = CANARY;
}

// How many numbers of its own the calling thread used; sets how many of others, or beyond `room`, it wrote.
static int64_t used_scratch(int64_t size, int64_t room, int64_t *strayed)
{
    int64_t used = 0;
    *strayed = 0;
    for (int t = 0; t < SCRATCHES; t++)
        for (int64_t j = 0; j < size; j++) {
            bool own = t == 0 && j < room, written = scratch_of[t][j] != CANARY;
            used += own && written;
            *strayed += !own && written;
        }
    return used;
}

static void attend(int T, int D, bool backward)
{
    enum { ROOM = 300 * 33 };
    static real numbers_[8][ROOM], stats[2 * 300];
    Matrix m[8];
    for (int i = 0; i < 8; i++) {
        m[i] = matrix(numbers_[i], T, D);
        for (int64_t j = 0; j < (int64_t)T * D; j++) numbers_[i][j] = (real)irregular((uint64_t)i, j, 1);
    }
    attention(m[0], m[1], m[2], m[3], stats);
    if (backward) attention_gradient(m[4], m[5], m[6], m[7], m[1], m[2], m[3], stats);
}

// Each thread has a scratch of its own, and a kernel writes no further in it than its size says. The room is made larger than
// the kernel asks for, so that what it writes beyond is seen.
TEST(each_part_has_its_own_scratch)
{
    static const int shapes[][2] = { { 1, 1 }, { 17, 3 }, { 64, 16 }, { 65, 33 }, { 131, 19 }, { 300, 8 } };
    parallel_set_threads(SCRATCHES);
    scratch_reserve(1000, 70);
    parallel_run(note_scratch, NULL);
    int64_t size = scratch_size(1000, 70), strayed;
    for (int t = 0; t < SCRATCHES; t++)
        for (int u = 0; u < t; u++) EXPECT(scratch_of[t] >= scratch_of[u] + size || scratch_of[u] >= scratch_of[t] + size, "parts %d and %d share their scratch", u, t);
    for (int s = 0; s < 6; s++)
        for (int backward = 0; backward < 2; backward++) {
            paint(size);
            attend(shapes[s][0], shapes[s][1], backward);
            int64_t room = attention_scratch(shapes[s][0], shapes[s][1]), used = used_scratch(size, room, &strayed);
            EXPECT(strayed == 0 && used > 0, "attention, T %d, D %d, backward %d: wrote %" PRId64 " numbers outside of its scratch of %" PRId64 ", %" PRId64 " inside",
                   shapes[s][0], shapes[s][1], backward, strayed, room, used);
        }
    enum { N = 300 };
    real *a = numbers(N * N, 1), *b = numbers(N * N, 2), *c = numbers(N * N, 3);
    for (int form = 0; form < 4; form++) {
        paint(size);
        product(matrix(c, N, N), stored(a, N, N, form & 1), stored(b, N, N, form & 2), (Part){ 1, 3 });
        int64_t used = used_scratch(size, product_scratch(N, N), &strayed);
        EXPECT(strayed == 0 && used > 0, "product, form %d: wrote %" PRId64 " numbers outside of its scratch, %" PRId64 " inside", form, strayed, used);
    }
    free(a), free(b), free(c);
    parallel_set_threads(2);
}

// ------------------------------------------------------------------------------------------------------------------- threads

typedef struct Calls { atomic_int of_part[16], wrong; int count; } Calls;

static void count_call(void *context, Part part)
{
    Calls *calls = context;
    if (part.count != calls->count || part.index < 0 || part.index >= part.count) atomic_fetch_add(&calls->wrong, 1);
    else atomic_fetch_add(&calls->of_part[part.index], 1);
}

TEST(every_part_runs_once_with_more_threads_than_cores)
{
    static const int counts[] = { 7, 1, 2, 5, 7, 3, 2 }; // up and down
    for (int k = 0; k < 7; k++) {
        parallel_set_threads(counts[k]);
        EXPECT(parallel_threads() == counts[k], "%d threads, not %d", parallel_threads(), counts[k]);
        for (int round = 0; round < 40; round++) {
            Calls calls = { .count = counts[k] };
            if (round % 20 == 19) nanosleep(&(struct timespec){ 0, 3000000 }, NULL); // long enough for the waiting threads to fall asleep
            parallel_run(count_call, &calls);
            int wrong = atomic_load(&calls.wrong);
            for (int i = 0; i < 16; i++) wrong += atomic_load(&calls.of_part[i]) != (i < counts[k]);
            EXPECT(wrong == 0, "%d threads, round %d: %d parts ran not at all, twice, or with a wrong number", counts[k], round, wrong);
        }
    }
    parallel_set_threads(MAX_THREADS + 50);
    EXPECT(parallel_threads() == MAX_THREADS, "%d threads", parallel_threads());
    parallel_set_threads(0);
    EXPECT(parallel_threads() == (int)sysconf(_SC_NPROCESSORS_ONLN), "0 is not one thread per core: %d", parallel_threads());
    parallel_set_threads(2);
}

int main(void)
{
    parallel_set_threads(2);
    RUN(fast_exp_agrees_with_libm);
    RUN(fast_exp_keeps_nan);
    RUN(matmul_of_a_triangle_equals_the_whole);
    RUN(each_part_has_its_own_scratch);
    RUN(every_part_runs_once_with_more_threads_than_cores);
    return test_summary();
}
