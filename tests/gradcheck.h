// gradcheck.h - is a gradient right? Compares it with central differences, and says what a wrong one looks like.
//
// The checker takes plain arrays, so it can be fed a wrong gradient on purpose (test_ops.c does). It refuses an expected
// gradient that is zero everywhere: code that returns zeros would pass it. In double, four evaluations per number leave an
// error near 1e-11, so that a derivative wrong by one part in a million shows; the float build can only look for gross errors.

#ifndef GRADCHECK_H
#define GRADCHECK_H

#include "../tensor.h"

#include <stdlib.h>

#define IN_DOUBLE   (sizeof(real) == sizeof(double))
#define STEP_H      (IN_DOUBLE ? 0x1p-11 : 0x1p-6)  // a power of two: x + h is exact for the values below
#define GRAD_BOUND  (IN_DOUBLE ? 1e-8 : 1e-2)
#define FLOOR       (IN_DOUBLE ? 0.01 : 0.2)        // a share of the largest entry; smaller ones are held to it
#define EPSILON     (IN_DOUBLE ? 2.3e-16 : 1.2e-7)  // of `real`

// Every number of a whole model where the build is fast, every fifth under sanitizers or without optimisation.
#if defined __has_feature
#if __has_feature(address_sanitizer)
#define SLOW_BUILD
#endif
#endif
#if defined __SANITIZE_ADDRESS__ || !defined __OPTIMIZE__
#define SLOW_BUILD
#endif
#ifdef SLOW_BUILD
enum { EVERY = 5 };
#else
enum { EVERY = 1 };
#endif

// Irregular numbers in (-bound, bound), at least 0.06 from 0 (a kink of relu) and multiples of 1/4096 (exact with +-2h).
static inline double irregular(uint64_t seed, int64_t i, double bound)
{
    double x = (2 * random_uniform(seed, (uint64_t)i) - 1) * (bound - 0.0625);
    return floor(x * 4096) / 4096 + (x < 0 ? -0.0625 : 0.0625 + 1.0 / 4096);
}

static inline void fill_irregular(Tensor *t, uint64_t seed, double bound)
{
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (real)irregular(seed, i, bound);
}

static inline double at(const Tensor *t, int64_t i) { return (double)t->data[i]; }

// The formula of gelu, in double.
static inline double gelu_of(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

// Token ids in no order, all below V; until the next call.
static inline const int *ids_below(int V, int64_t count)
{
    static int below[4096];
    check(count <= (int64_t)(sizeof below / sizeof *below), "ids_below: %" PRId64 " ids", count);
    for (int64_t i = 0; i < count; i++) below[i] = (int)((i * 7 + i * i * 3 + 2) % V);
    return below;
}

// df/dx by the five-point rule, whose error is of order h^4.
static inline double central_difference(real *x, double (*loss)(void *context), void *context)
{
    const double h = STEP_H, at = (double)*x;
    double f[5];
    for (int k = -2; k <= 2; k++) {
        if (k == 0) continue;
        *x = (real)(at + k * h);
        f[k + 2] = loss(context);
    }
    *x = (real)at;
    return (8 * (f[3] - f[1]) - (f[4] - f[0])) / (12 * h);
}

typedef struct Verdict {
    bool   ok;
    double error;      // the largest difference, relative to the expected value (or to FLOOR of the largest, if that is more)
    int64_t   differ;     // entries whose error is above the bound
    char   text[800];  // what to tell: place, both values, ratio, and a hint if the whole tensor fits a pattern
} Verdict;

static inline bool close_to(double a, double b, double scale) { return fabs(a - b) <= 1e-4 * scale; }

// What a wrong gradient looks like as a whole; `text` holds the hint.
static inline void gradient_hint(char *text, size_t size, const real *ours, const double *expected, int64_t count, int rows, int columns,
                                 double largest)
{
    double dot = 0, square = 0;
    for (int64_t i = 0; i < count; i++) {
        dot += (double)ours[i] * expected[i];
        square += expected[i] * expected[i];
    }
    double ratio = dot / square, times = round(ratio), part = round(1 / ratio); // n times as much; one part of n
    bool scaled = true;
    for (int64_t i = 0; i < count && scaled; i++) scaled = close_to((double)ours[i], ratio * expected[i], largest);
    bool transposed = !scaled && rows * columns == count && rows > 1 && columns > 1;
    for (int r = 0; r < rows && transposed; r++)
        for (int c = 0; c < columns && transposed; c++)
            transposed = close_to((double)ours[(int64_t)c * rows + r], expected[(int64_t)r * columns + c], largest);
    if (transposed) snprintf(text, size, "the transposed pattern: are rows and columns exchanged?");
    else if (!scaled) snprintf(text, size, "no simple pattern");
    else if (fabs(ratio) < 1e-4) snprintf(text, size, "all zero: is the path cut, or a flag not handed on?");
    else if (close_to(ratio, -1, 1)) snprintf(text, size, "the opposite sign");
    else if (close_to(ratio, 2, 1)) snprintf(text, size, "twice as much: added twice, or not zeroed?");
    else if (part >= 2 && close_to(ratio * part, 1, 1))
        snprintf(text, size, "1/%g of it: is one of %g uses left, by = for +=? A mean for a sum (1 / N)? A scale missed (alpha / r)?", part, part);
    else if (times >= 3 && close_to(ratio / times, 1, 1))
        snprintf(text, size, "%g times as much: a sum for a mean (N)? A scale missed (alpha / r)?", times);
    else snprintf(text, size, "every entry is %.6g times what it should be: a scale missed (alpha / r)?", ratio);
}

// ours [count] against expected [count]; rows x columns is how they are laid out; `what` names op, argument and variant.
static inline Verdict compare_gradients(const char *what, const real *ours, const double *expected, int64_t count, int columns, double bound)
{
    Verdict v = { .ok = false, .error = 0 };
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(expected[i]));
    if (!(largest > 1e-6)) {
        snprintf(v.text, sizeof v.text, "%s: the expected gradient is 0 everywhere; this check could not fail", what);
        return v;
    }
    if (ours == NULL) {
        snprintf(v.text, sizeof v.text, "%s: no gradient was computed", what);
        return v;
    }
    int64_t worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double error = fabs((double)ours[i] - expected[i]) / fmax(fabs(expected[i]), FLOOR * largest);
        if (!(error <= bound)) v.differ++;
        if (!(error <= v.error)) v.error = error, worst = i; // a NaN counts as the largest
    }
    v.ok = v.differ == 0;
    char hint[160];
    gradient_hint(hint, sizeof hint, ours, expected, count, (int)(count / columns), columns, largest);
    snprintf(v.text, sizeof v.text, "%s: at [%" PRId64 ",%" PRId64 "]: ours %.10g, expected %.10g (central difference), ratio %.6g\n"
             "       %" PRId64 " of %" PRId64 " entries differ by more than %.0e (the worst by %.2e)\n       hint: %s",
             what, worst / columns, worst % columns, (double)ours[worst], expected[worst], (double)ours[worst] / expected[worst], v.differ, count,
             bound, v.error, hint);
    return v;
}

// Whether two arrays have the same bits (so that NaN equals NaN and 0 differs from -0).
static inline bool same_bits(const void *a, const void *b, int64_t count)
{
    return memcmp(a, b, (size_t)count * sizeof(real)) == 0;
}

static inline real *copy_of(const real *values, int64_t count)
{
    if (values == NULL) return NULL;
    real *copy = malloc((size_t)count * sizeof *copy);
    if (copy == NULL) exit(1);
    memcpy(copy, values, (size_t)count * sizeof *copy);
    return copy;
}

#endif
