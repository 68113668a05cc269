// question.h - what every experiment shares: the question, a prediction, the measured number, why, and what was found.
//
//     question("Does freezing a layer stop the gradient?");
//     predict("How many gradients are computed?");          // on a terminal it waits for your guess, in a pipe it does not
//     measured("weight gradients", "%ld", count);           // one aligned line
//     why("The first line of the reason,", "and the second.");
//     finding(count == 3, "three gradients are computed");  // a false one makes the program fail
//     return answered();                                    // prints `N passed, N failed`
//
// tiny.h has a small transformer for the experiments that need one.

#ifndef QUESTION_H
#define QUESTION_H

#include "autograd.h"

#include <stdarg.h>
#include <unistd.h>

enum { SEEDS = 3 }; // what training brings is asserted only as a bound that holds for every one of them

static char your_guess[80];
static int  findings_true, findings_false;

static inline void question(const char *text)
{
    parallel_set_threads(1); // the nets are small, and a debugger then has one stack to show
    printf("Question\n  %s\n", text);
}

static inline void predict(const char *text)
{
    printf("\nPredict first\n  %s\n", text);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        printf("  your guess: ");
        fflush(stdout);
        if (fgets(your_guess, sizeof your_guess, stdin) == NULL) your_guess[0] = '\0';
        your_guess[strcspn(your_guess, "\n")] = '\0';
    }
    printf("\nMeasured\n");
}

#if defined __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static inline void measured(const char *name, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    printf("  %-52s ", name);
    vprintf(format, values);
    printf("\n");
    va_end(values);
}

static inline void why(const char *first, const char *second)
{
    if (your_guess[0] != '\0') measured("your guess", "%s", your_guess);
    printf("\nWhy\n  %s\n  %s\n\nFound\n", first, second);
}

static inline void finding(bool holds, const char *sentence)
{
    findings_true += holds;
    findings_false += !holds;
    printf("  %s  %s\n", holds ? "yes" : "NOT FOUND:", sentence);
}

static inline int answered(void)
{
    memory_release_pool();
    printf("\n%d passed, %d failed\n", findings_true, findings_false);
    return findings_false > 0 || findings_true == 0;
}

// ----------------------------------------------------------------------------------------------------- tensors, errors, texts

// A leaf of N(0, deviation^2); frozen, until you set requires_grad.
static inline Tensor *random_leaf(const char *name, double deviation, uint64_t seed, int ndim, const int *shape)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, ndim, shape);
    fill_normal(t, deviation, seed);
    return t;
}

// mean((y - target)^2)
static inline Tensor *squared_error(Tape *tape, Tensor *y, Tensor *target)
{
    Tensor *difference = op_sub(tape, y, target);
    return op_mean(tape, op_mul(tape, difference, difference));
}

// The largest |a[i] - b[i]|.
static inline double largest_difference(const real *a, const real *b, long count)
{
    double largest = 0;
    for (long i = 0; i < count; i++) largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

static inline double grad_norm(const Tensor *t) { return norm_of(t->grad, t->size); }

// "0.0123", or "not computed", which is not the same as 0. In one of eight buffers used in turn.
static inline const char *grad_text(const Tensor *t)
{
    static char texts[8][24];
    static int turn;
    char *text = texts[turn = (turn + 1) % 8];
    if (t->grad == NULL) snprintf(text, 24, "not computed");
    else snprintf(text, 24, "%.3g", grad_norm(t));
    return text;
}

#endif
