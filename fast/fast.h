// fast.h - what the files of this folder share: sums in lanes, an exponential that vectorises, and the threads' scratch.
//
// This folder says the verbs of kernels.h again, for the machine. A reader of the engine may skip all of it.

#ifndef FAST_H
#define FAST_H

#include "kernels.h"

// Sums are kept in LANES partial sums, folded in halves at the end: a compiler may then use its widest registers, and the
// order of addition does not depend on which registers those are.
enum { LANES = 16 };

// What gcc must be told of some short loops: to leave one over lanes as it is, for it unrolls that before it looks for vectors,
// and then finds none; to unroll another, so that numbers stay in registers. clang needs no word for those.
#if defined __GNUC__ && !defined __clang__
#define VECTOR_LOOP _Pragma("GCC unroll 1")
#define UNROLL_LOOP _Pragma("GCC unroll 8")
#else
#define VECTOR_LOOP
#define UNROLL_LOOP
#endif

static inline real fold_lanes(real lane[LANES])
{
    UNROLL_LOOP for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

// e^x, written so that a loop over it vectorises: x = n ln2 + r with |r| <= ln2/2; e^r by its series up to r^7; times 2^n by
// setting the exponent's bits. Relative error below 2e-7 from -87 on. Below about -87.7 the bits of 2^n are 0, and so is the
// result, as it must be of -infinity. From 88 on it stays at e^88, instead of infinity; NaN stays NaN. In the double build:
// libm's exp.
static inline real fast_exp(real value)
{
    if (sizeof(real) == sizeof(double)) return (real)exp((double)value);
    float x = (float)value;
    x = x < -88.0f ? -88.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; // 1.5 * 2^23 leaves no bits for a fraction: n is in the lowest bits
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;    // ln2 in two parts: the first product is exact
    float p = 1 / 120.0f + r * (1 / 720.0f + r * (1 / 5040.0f));
    p = 1.0f + r * (1.0f + r * (1 / 2.0f + r * (1 / 6.0f + r * (1 / 24.0f + r * p))));
    uint32_t bits; // a cast of n would be undefined for NaN
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return (real)(p * power);
}

// A product leaves out what causal attention hides: query i sees the keys up to i + diagonal.
typedef enum Triangle {
    NOTHING,                                // all is asked for
    LOWER_C,                                // c(i,j) for j > i + diagonal: not asked for, may come out as anything
    LOWER_A,                                // terms with k > i + diagonal, where a(i,k) = 0
    UPPER_A,                                // terms with k < i - diagonal, where a(i,k) = 0
} Triangle;
void triangle_product(Matrix C, Matrix A, Matrix B, Part part, Triangle triangle, int diagonal);

// A product works on DEPTH rows of B, WIDTH columns of them at a time, and on strips of at most STRIP rows of A.
enum { DEPTH = 128, WIDTH = 512, STRIP = 16 };

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// How many numbers of scratch a product of so many terms and columns uses, from the first on.
static inline int64_t product_scratch(int terms, int columns)
{
    return smaller(terms, DEPTH) * (smaller(((int64_t)columns + 31) / 32 * 32, WIDTH) + STRIP);
}
int64_t attention_scratch(int T, int D);

// The calling thread's own (scratch_reserve).
real *scratch(void);

#endif
