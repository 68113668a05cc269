// exercise.h - the numbers and shapes that one seed stands for, known to the program that runs a student's code (runner.c) and to the
// one that judges it (grade.c). Another seed gives other numbers, and other shapes.

#ifndef EXERCISE_H
#define EXERCISE_H

#include "autograd.h"
#include "memory.h"
#include "tests/gradcheck.h"

// Different primes for different `which` (0 to 5): no two sizes of one exercise are the same.
static inline int size_of(uint64_t seed, int which)
{
    static const int primes[] = { 3, 5, 7, 11, 13, 17, 19 };
    int start = (int)(random_bits(seed, 1000) % 7), stride = 1 + (int)(random_bits(seed, 1001) % 6);
    return primes[(start + which * stride) % 7];
}

// Irregular numbers: the i-th of array number `array`.
static inline double number_of(uint64_t seed, int array, long i) { return irregular(random_bits(seed, 2000 + (uint64_t)array), i, 1.2); }

static inline int pick(uint64_t seed, int which, int low, int high)
{
    return low + (int)(random_bits(seed, 3000 + (uint64_t)which) % (uint64_t)(high - low + 1));
}

// The tasks that ask for one gradient kernel.
typedef struct Kernel { const char *task, *names; OpKind op; int input; } Kernel; // names: a letter for each input
static const Kernel kernels[] = {
    { "L1.2", "ab", OP_MATMUL, 0 },     { "L1.3", "ab", OP_MATMUL, 1 },     { "L2.4", "yhB", OP_MATMUL_ADD, 1 },
    { "L2.5", "yhB", OP_MATMUL_ADD, 2 },{ "H1", "x", OP_GELU, 0 },          { "H2", "xgb", OP_LAYERNORM, 0 },
    { "H3", "xgb", OP_LAYERNORM, 1 },   { "H4", "xWb", OP_LINEAR, 2 },      { "H5", "x", OP_SOFTMAX, 0 },
    { "H6", "x", OP_CROSS_ENTROPY, 0 }, { "H7", "q", OP_ATTENTION, 0 },     { "H8", "xw", OP_LM_HEAD, 0 },
    { "H9", "xw", OP_LM_HEAD, 1 },
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

static inline long count_of(const Problem *p, int which)
{
    long count = p->ndim[which] > 0;
    for (int d = 0; d < p->ndim[which]; d++) count *= p->shape[which][d];
    return count;
}

static inline Problem problem_of(OpKind op, uint64_t seed)
{
    int N = size_of(seed, 0), I = size_of(seed, 1), O = size_of(seed, 2), H = pick(seed, 0, 2, 3), D = size_of(seed, 3);
    Problem p = { .heads = H, .scalar = 1 + number_of(seed, 9, 0) / 2 };
    for (int i = 0; i < 64; i++) p.targets[i] = pick(seed, 100 + i, 0, I - 1);
    shape_is(&p, 0, 2, N, I, 0);
    shape_is(&p, 3, 2, N, O, 0);
    switch (op) {
    case OP_MATMUL: shape_is(&p, 1, 2, I, O, 0); break;
    case OP_LINEAR: shape_is(&p, 1, 2, I, O, 0), shape_is(&p, 2, 1, O, 0, 0); break;
    case OP_MATMUL_ADD: shape_is(&p, 0, 2, N, O, 0), shape_is(&p, 1, 2, N, I, 0), shape_is(&p, 2, 2, I, O, 0); break;
    case OP_LM_HEAD: shape_is(&p, 1, 2, O, I, 0); break;
    case OP_LAYERNORM: shape_is(&p, 1, 1, I, 0, 0), shape_is(&p, 2, 1, I, 0, 0), shape_is(&p, 3, 2, N, I, 0); break;
    case OP_CROSS_ENTROPY: shape_is(&p, 3, 2, N, 1, 0); break;
    case OP_ATTENTION: { // sometimes more positions than attention takes at a time
        bool many = pick(seed, 1, 0, 1);
        int T = many ? 70 : size_of(seed, 1), B = many ? 1 : 2, C = H * (many ? 2 : D % 5 + 2);
        shape_is(&p, 0, 3, B, T, 3 * C), shape_is(&p, 3, 3, B, T, C);
        break;
    }
    default: shape_is(&p, 3, 2, N, I, 0); // elementwise, or row by row
    }
    return p;
}

// A kernel is called in three ways, each with a seed, so numbers and shapes, of its own.
typedef enum Way { FIRST, AGAIN, IN_PARTS, WAYS } Way;
enum { PARTS = 3 };
static inline uint64_t seed_of(uint64_t seed, int way) { return random_bits(seed, 4000 + (uint64_t)way); }

// Lab 3's shapes.
enum { SHAPES = 6 };
static inline Shape lab3_shape(uint64_t seed, int which)
{
    uint64_t own = seed_of(seed, 10 + which);
    long H = pick(own, 0, 2, 3);
    return (Shape){ .V = pick(own, 1, 5, 40), .T = pick(own, 2, 3, 9), .L = pick(own, 3, 2, 4), .H = H, .C = H * pick(own, 4, 2, 5),
                    .r = pick(own, 5, 1, 5), .B = pick(own, 6, 2, 4), .bytes = 8 };
}

// The steps of the optimizer's exercise: which tensors train in which step.
enum { TENSORS = 4, STEPS = 5 };
static const int tensor_rows[TENSORS] = { 3, 0, 2, 7 }, tensor_columns[TENSORS] = { 5, 11, 7, 2 }; // 0 rows: one dimension
static const bool trains_in[STEPS][TENSORS] = { { 1, 1, 0, 1 }, { 1, 1, 0, 1 }, { 1, 1, 0, 0 }, { 1, 1, 0, 0 }, { 1, 1, 1, 0 } };

// The answers' form: a name, how many numbers (NOT_COMPUTED: there is no array), then the numbers as doubles.
enum { NAME = 24, NOT_COMPUTED = -1 };
typedef struct Header { char name[NAME]; long count; } Header;

#endif
