// exercise.h - the numbers and shapes that one seed stands for, known to the program that runs a student's code (runner.c) and to the
// one that judges it (judge.h). Another seed gives other numbers, and other shapes.

#ifndef EXERCISE_H
#define EXERCISE_H

#include "bytes.h"
#include "ops.h"
#include "tests/gradcheck.h"

// Different primes for different `which` (0 to 5): no two sizes of one exercise are the same.
static inline int size_of(uint64_t seed, int which)
{
    static const int primes[] = { 3, 5, 7, 11, 13, 17, 19 };
    int start = (int)(random_bits(seed, 1000) % 7), stride = 1 + (int)(random_bits(seed, 1001) % 6);
    return primes[(start + which * stride) % 7];
}

// And sizes that are larger than any of these.
static inline int large_of(uint64_t seed, int which)
{
    static const int primes[] = { 37, 41, 43, 47, 53, 59, 61 };
    return primes[(random_bits(seed, 1002) + (uint64_t)which) % 7];
}

// What one task's exercise is drawn from: it does not tell the seed of another's.
static inline uint64_t task_seed(uint64_t seed, const char *task)
{
    uint64_t hash = HASH_START ^ random_bits(seed, 77);
    for (; *task; task++) hash = (hash ^ (unsigned char)*task) * 0x100000001b3u;
    return random_bits(hash, seed >> 32) >> 1;
}

// Irregular numbers: the i-th of array number `array`.
static inline double number_of(uint64_t seed, int array, int64_t i) { return irregular(random_bits(seed, 2000 + (uint64_t)array), i, 1.2); }

static inline int pick(uint64_t seed, int which, int low, int high)
{
    return low + (int)(random_bits(seed, 3000 + (uint64_t)which) % (uint64_t)(high - low + 1));
}

// The tasks that ask for one gradient kernel, each of a formula that the engine has as an op, and judge_kernels.c once more in plain loops.
typedef enum Formula { MATMUL, LINEAR, MATMUL_ADD, LM_HEAD, LAYERNORM, CROSS_ENTROPY, SOFTMAX, ATTENTION, GELU, FORMULAS } Formula;
typedef struct Gradient { const char *task, *names; Formula formula; int input; } Gradient; // names: a letter for each input
static const Gradient gradients[] = {
    { "L1.2", "ab", MATMUL, 0 },      { "L1.3", "ab", MATMUL, 1 },      { "L1.6", "xWb", LINEAR, 0 },
    { "L1.7", "xWb", LINEAR, 1 },     { "L2.4", "yhB", MATMUL_ADD, 1 }, { "L2.5", "yhB", MATMUL_ADD, 2 },
    { "H1", "x", GELU, 0 },           { "H2", "xgb", LAYERNORM, 0 },    { "H3", "xgb", LAYERNORM, 1 },
    { "H4", "xWb", LINEAR, 2 },       { "H5", "x", SOFTMAX, 0 },        { "H6", "x", CROSS_ENTROPY, 0 },
    { "H7", "q", ATTENTION, 0 },      { "H8", "xw", LM_HEAD, 0 },       { "H9", "xw", LM_HEAD, 1 },
};

// One call of an op: its inputs are arrays 0, 1, 2, the gradient of its output is array 3, a gradient that is there before array 4.
typedef struct Problem {
    int ndim[4], shape[4][3]; // of three inputs and the output; ndim 0: none
    int heads, targets[64];
    double scalar;
} Problem;

static inline void shape_is(Problem *p, int which, int ndim, int a, int b, int c)
{
    p->ndim[which] = ndim;
    p->shape[which][0] = a;
    p->shape[which][1] = b;
    p->shape[which][2] = c;
}

static inline int64_t count_of(const Problem *p, int which)
{
    int64_t count = p->ndim[which] > 0;
    for (int d = 0; d < p->ndim[which]; d++) count *= p->shape[which][d];
    return count;
}

// A gradient kernel is called in three ways, each with a seed, so numbers and shapes, of its own. The one that works in place, on its
// dy, is not called AGAIN: there it has nothing to add to.
typedef enum Way { FIRST, AGAIN, IN_PARTS, WAYS } Way;
enum { PARTS = 3 };
static inline uint64_t seed_of(uint64_t seed, int way) { return random_bits(seed, 4000 + (uint64_t)way); }

static inline Problem problem_of(Formula formula, uint64_t seed, Way way)
{
    int N = size_of(seed, 0), I = size_of(seed, 1), O = size_of(seed, 2), H = pick(seed, 0, 2, 3), D = size_of(seed, 3);
    if (way == FIRST) N = large_of(seed, 0);
    else I = large_of(seed, 1);
    if (way == IN_PARTS) N = pick(seed, 8, 5, 7), O = pick(seed, 9, 17, 19); // more columns than a grain: two parts have some
    Problem p = { .heads = H, .scalar = 1 + number_of(seed, 9, 0) / 2 };
    for (int i = 0; i < 64; i++) p.targets[i] = pick(seed, 100 + i, 0, I - 1);
    shape_is(&p, 0, 2, N, I, 0);
    shape_is(&p, 3, 2, N, O, 0);
    switch (formula) {
    case MATMUL: shape_is(&p, 1, 2, I, O, 0); break;
    case LINEAR: shape_is(&p, 1, 2, I, O, 0), shape_is(&p, 2, 1, O, 0, 0); break;
    case MATMUL_ADD: shape_is(&p, 0, 2, N, O, 0), shape_is(&p, 1, 2, N, I, 0), shape_is(&p, 2, 2, I, O, 0); break;
    case LM_HEAD: shape_is(&p, 1, 2, O, I, 0); break;
    case LAYERNORM: shape_is(&p, 1, 1, I, 0, 0), shape_is(&p, 2, 1, I, 0, 0), shape_is(&p, 3, 2, N, I, 0); break;
    case CROSS_ENTROPY: shape_is(&p, 3, 2, N, 1, 0); break;
    case ATTENTION: { // once many positions
        bool many = way == AGAIN;
        int T = many ? I : size_of(seed, 1), B = many ? 1 : 2, C = H * (many ? 2 : D % 5 + 2);
        shape_is(&p, 0, 3, B, T, 3 * C), shape_is(&p, 3, 3, B, T, C);
        break;
    }
    default: shape_is(&p, 3, 2, N, I, 0); // elementwise, or row by row
    }
    return p;
}

// The ways in which L1.5's product is called: A is array 0, B array 1, the row to start from array 2, what C holds before array 4.
typedef enum ProductWay { AS_IT_IS, TRANSPOSED, WITH_FACTORS, ADDED, INTO_EMPTY, FROM_A_ROW, ONE_PART, PRODUCT_WAYS } ProductWay;
static const char *const product_names[PRODUCT_WAYS] = { "C = A B", "A and B transposed", "A and B with factors", "C += A B", "an empty C",
                                                         "an empty C with a start", "part 1 of 3" };
typedef struct ProductCase { int m, n, k; double factor_A, factor_B; } ProductCase;
static inline ProductCase product_case(uint64_t seed, ProductWay way)
{
    bool factors = way == WITH_FACTORS;
    int size[3] = { size_of(seed, 0), size_of(seed, 1), size_of(seed, 2) };
    size[way % 3] = large_of(seed, way);
    return (ProductCase){ size[0], size[1], size[2], factors ? 1 + number_of(seed, 9, 0) / 2 : 1,
                          factors ? 3 + number_of(seed, 9, 1) / 2 : 1 };
}

// Lab 3's shapes: two that are worked out in the handout, and others. Those of L3.2 are run, those of L3.1 only thought of.
enum { WORKED = 2, SHAPES = 8, MEASURED = 4 };
static const Shape worked[WORKED] = { { 27, 5, 2, 2, 6, 3, 2, 8 }, { 12, 8, 3, 3, 12, 2, 3, 8 } };
static inline Shape lab3_shape(uint64_t seed, int which)
{
    if (which < WORKED) return worked[which];
    uint64_t own = seed_of(seed, 10 + which);
    bool large = which >= MEASURED;
    int64_t H = pick(own, 0, 2, large ? 17 : 5);
    return (Shape){ .V = large ? pick(own, 1, 1000, 60000) : pick(own, 1, 41, 97), .T = large ? pick(own, 2, 33, 1100) : pick(own, 2, 10, 17),
                    .L = large ? pick(own, 3, 5, 40) : pick(own, 3, 1, 5), .H = H, .C = H * pick(own, 4, 3, large ? 130 : 7),
                    .r = pick(own, 5, 1, large ? 129 : 11), .B = large ? pick(own, 6, 1, 33) : pick(own, 6, 1, 4), .bytes = which % 2 ? 4 : 8 };
}

// The steps of the optimizer's exercise: which tensors train in which step.
enum { TENSORS = 4, STEPS = 5 };
static const int tensor_rows[TENSORS] = { 3, 0, 2, 7 }, tensor_columns[TENSORS] = { 5, 11, 7, 2 }; // 0 rows: one dimension
static const bool trains_in[STEPS][TENSORS] = { { 1, 1, 0, 1 }, { 1, 1, 0, 1 }, { 1, 1, 0, 0 }, { 1, 1, 0, 0 }, { 1, 1, 1, 0 } };

// The answers' form: a name, how many numbers (NOT_COMPUTED: there is no array), then the numbers as doubles.
enum { NAME = 24, NOT_COMPUTED = -1 };
typedef struct Header { char name[NAME]; int64_t count; } Header;

#endif
