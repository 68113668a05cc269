// progress.h - what a run shows while it goes on, and numbers that people can read.
//
//     Progress progress;
//     progress_begin(&progress, "training", first, total, floor);
//     progress_step(&progress, steps_done, loss, B * T);              // after each step
//     progress_validation(&progress, val);                            // when there is a new one
//     progress_end(&progress);

#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

enum { CURVE_COLUMNS = 60 };

typedef struct Progress {
    const char *what;      // "pretraining"
    int64_t first, total;  // steps done before this run, and in the end
    double floor;          // the text's floor, or NAN
    double start, shown;   // seconds
    double later;          // set by you: the seconds that follow the last step, which are left as well
    double patience;       // set by you: nothing is shown before so many seconds have passed
    int64_t tenth;         // which was shown last
    double loss, val;      // smoothed training loss; the last validation loss, or NAN
    bool   fresh_val;      // no step has come since that
    bool   terminal;       // stdout is one that can go back to the start of a line
    int    length;         // of the line that stands there
    // for the curve: each column is an equal share of the steps
    int    columns;
    double sum[CURVE_COLUMNS], vals[CURVE_COLUMNS]; // of the losses; the last validation loss, or NAN
    int64_t steps[CURVE_COLUMNS];
} Progress;

// On a terminal: one line, rewritten a few times a second: step, loss, floor, validation, speed, time left; where that would be
// wider than the terminal, less of it. Into a pipe, or where TERM is dumb: ten plain lines in all. Both on stdout.
void progress_begin(Progress *p, const char *what, int64_t first, int64_t total, double floor);
void progress_step(Progress *p, int64_t steps_done, double loss, int64_t tokens_per_step); // loss NAN: there is none
void progress_validation(Progress *p, double val); // shown from now on
void progress_end(const Progress *p);              // leaves the last line standing
// On a terminal: the losses of the run as a small curve from 0 up, with the floor as a line. Else nothing.
void progress_curve(const Progress *p);

// Colours say again what words or signs say: ice is frozen or fixed, warm is what trains. The sequence that begins one (NORMAL:
// ends it), or "" if stdout is no terminal, TERM is dumb, or NO_COLOR is set and not empty.
typedef enum Colour { NORMAL, STRONG, ICE, WARM } Colour;
const char *colour(Colour c);

// "3,239,424", "37.7 MB" (10^6), "1.4 TB": strings in one of sixteen buffers used in turn.
const char *thousands(int64_t number);
const char *bytes_text(double bytes);
const char *count_text(double number); // "3,815 M", "67 G"

#endif
