// question.h - what every experiment shares: the question, a prediction, the measured number, why, and what was found.
//
//     question("Does freezing a layer stop the gradient?");
//     predict("How many gradients are computed?");          // on a terminal it waits for your guess, in a pipe it does not
//     measured("weight gradients", "%d", count);            // one aligned line
//     why("The reason, in two lines.");
//     finding(count == 3, "three gradients are computed");  // a false one makes the program fail
//     return answered();                                    // prints `N passed, N failed`
//
// Counts, bytes and equal bits are facts, and asserted as such. What a training brings is asserted only as a bound that holds
// for each of three seeds; times are printed and not asserted (q27's, of the processor, as a wide bound on a ratio). tiny.h has a
// small transformer for those that need one.

#ifndef QUESTION_H
#define QUESTION_H

#include "measure.h"

#include <stdarg.h>
#include <unistd.h>

enum { SEEDS = 3, COLUMNS = 80 };

static char your_guess[80];
static int  findings_true, findings_false;

// Prints words in lines of at most COLUMNS, each indented; `first` stands before the first line.
static inline void print_wrapped(const char *first, const char *words)
{
    int indent = (int)strlen(first), column = printf("%s", first);
    for (int length; *words != '\0'; words += length + (words[length] == ' ')) {
        length = (int)strcspn(words, " ");
        if (column + 1 + length > COLUMNS) column = printf("\n%*s", indent, "") - 1;
        column += printf("%s%.*s", column > indent ? " " : "", length, words);
    }
    printf("\n");
}

static inline void question(const char *words)
{
    parallel_set_threads(1); // the nets are small, and a debugger then has one stack to show
    print_wrapped("Question       ", words);
}

static inline void predict(const char *words)
{
    print_wrapped("Predict first  ", words);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        printf("Your guess:    ");
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
    printf("  %-48s ", name);
    vprintf(format, values);
    printf("\n");
    va_end(values);
}

static inline void why(const char *words)
{
    if (your_guess[0] != '\0') measured("your guess", "%s", your_guess);
    printf("\n");
    print_wrapped("Why        ", words);
    printf("\n");
}

static inline void finding(bool holds, const char *sentence)
{
    findings_true += holds;
    findings_false += !holds;
    print_wrapped(holds ? "found      " : "NOT FOUND  ", sentence);
}

static inline int answered(void)
{
    memory_release_pool();
    printf("\n%d passed, %d failed\n", findings_true, findings_false);
    return findings_false > 0 || findings_true == 0;
}

// ------------------------------------------------------------------------------------------------------------------- tensors

// mean((y - target)^2)
static inline Tensor *squared_error(Tape *tape, Tensor *y, Tensor *target)
{
    Tensor *difference = op_sub(tape, y, target);
    return op_mean(tape, op_mul(tape, difference, difference));
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

// tensor_drop for each of several: drop_all(2, (Tensor *[]){ x, y }).
static inline void drop_all(int count, Tensor **tensors)
{
    for (int i = 0; i < count; i++) tensor_drop(tensors[i]);
}

#endif
