// products.c - see bench.h: one product as it becomes fast, and e^x by libm and by the engine's polynomial.

#include "bench/bench.h"

#if defined __GNUC__ && !defined __clang__ // gcc unrolls a short loop before it looks for vectors, and then finds none
#define VECTOR_LOOP _Pragma("GCC unroll 1")
#else
#define VECTOR_LOOP
#endif

typedef struct Product { int m, n, k; real *a, *b, *c; } Product;

static void naive_product(const Product *p)
{
    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            real sum = 0;
            for (int l = 0; l < p->k; l++) sum += p->a[i * p->k + l] * p->b[l * p->n + j];
            p->c[i * p->n + j] = sum;
        }
}

// The inner loop runs along rows of B and C, so that the compiler can use vectors.
static void reordered_product(const Product *p)
{
    for (int i = 0; i < p->m; i++) {
        real *restrict c = p->c + (int64_t)i * p->n;
        for (int j = 0; j < p->n; j++) c[j] = 0;
        for (int l = 0; l < p->k; l++) {
            const real *restrict b = p->b + (int64_t)l * p->n;
            real a = p->a[i * p->k + l];
            for (int j = 0; j < p->n; j++) c[j] += a * b[j];
        }
    }
}

// A tile of C stays in registers while k runs; B is read where it lies.
#if defined __AVX512F__
enum { ROWS = 8, COLUMNS = 32 };
#elif defined __AVX__ || defined __aarch64__
enum { ROWS = 6, COLUMNS = 16 };
#else
enum { ROWS = 6, COLUMNS = 8 };
#endif

__attribute__((noinline)) static void product_tile(int k, const real *restrict a, const real *restrict b, int n, real *c)
{
    real sum[ROWS][COLUMNS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = c[i * n + j];
    for (int l = 0; l < k; l++)
        for (int i = 0; i < ROWS; i++)
            VECTOR_LOOP for (int j = 0; j < COLUMNS; j++) sum[i][j] += a[i * k + l] * b[l * n + j];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) c[i * n + j] = sum[i][j];
}

static void tiled_product(const Product *p) // m a multiple of ROWS, n of COLUMNS
{
    memset(p->c, 0, sizeof(real) * (size_t)(p->m * p->n));
    for (int j = 0; j < p->n; j += COLUMNS)
        for (int i = 0; i < p->m; i += ROWS)
            product_tile(p->k, p->a + (int64_t)i * p->k, p->b + j, p->n, p->c + (int64_t)i * p->n + j);
}

static void engine_part(void *context, Part part)
{
    const Product *p = context;
    product(empty(matrix(p->c, p->m, p->n)), matrix(p->a, p->m, p->k), matrix(p->b, p->k, p->n), part);
}

static void engine_product(const Product *p)
{
    Product copy = *p;
    parallel_run(engine_part, &copy);
}

Chapter story[STORY] = {
    { "naive: three loops, sums along a column of B", "naive", { .count = 0 } },
    { "reordered: along the rows", "reordered", { .count = 0 } },
    { "tiled: sums in registers", "tiled", { .count = 0 } },
    { "the engine's: tiled and packed, one thread", "packed", { .count = 0 } },
    { "the engine's, all threads", "threads", { .count = 0 } },
};
static void (*const products[STORY])(const Product *p) = { naive_product, reordered_product, tiled_product, engine_product,
                                                           engine_product };
Samples exp_libm, exp_fast;

__attribute__((noinline)) static void exp_by_libm(real *y, const real *x, int n)
{
    for (int i = 0; i < n; i++) y[i] = sizeof(real) == sizeof(float) ? (real)expf((float)x[i]) : (real)exp((double)x[i]);
}

__attribute__((noinline)) static void exp_by_polynomial(real *y, const real *x, int n)
{
    row_exp(y, x, 0, n);
}

// Seconds of one of these products, `repeats` times.
static double time_product(int i, const Product *p, int repeats)
{
    double start = seconds_now();
    for (int r = 0; r < repeats; r++) products[i](p);
    return seconds_now() - start;
}

static void compare_exp(const Product *p)
{
    int n = p->m * (p->k < p->n ? p->k : p->n);
    double start = seconds_now();
    exp_by_libm(p->c, p->a, n);
    double between = seconds_now();
    exp_by_polynomial(p->c, p->a, n);
    add(&exp_libm, (between - start) / n);
    add(&exp_fast, (seconds_now() - between) / n);
}

void tell_story(int rounds, bool quick)
{
    Product p = { .m = quick ? 48 : 768, .n = quick ? 64 : 512, .k = 128 };
    enum { ARRAYS = 3 };
    int64_t sizes[ARRAYS] = { p.m * p.k, p.k * p.n, p.m * p.n };
    real **arrays[ARRAYS] = { &p.a, &p.b, &p.c };
    for (int i = 0; i < ARRAYS; i++) {
        *arrays[i] = memory_take(MEMORY_WORKSPACE, sizes[i]);
        for (int64_t j = 0; j < sizes[i]; j++) (*arrays[i])[j] = (real)(random_uniform(1, (uint64_t)j) - 0.5);
    }
    double flops = 2.0 * p.m * p.n * p.k;
    for (int r = 0; r < rounds; r++) {
        progress("one product", r, rounds);
        for (int s = 0; s < STORY; s++) {
            int repeats = s < 2 ? 1 : 5;
            use_threads(s == STORY - 1 ? 0 : 1);
            products[s](&p);
            add(&story[s].rate, flops * repeats / time_product(s, &p, repeats));
        }
        compare_exp(&p);
    }
    for (int i = 0; i < ARRAYS; i++) memory_give(MEMORY_WORKSPACE, *arrays[i], sizes[i]);
}
