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

typedef struct Progress {
    const char *what;      // "pretraining"
    long   first, total;   // steps done before this run, and in the end
    double floor;          // the text's floor, or NAN
    double start, shown;   // seconds
    double loss, val;      // smoothed training loss; the last validation loss, or NAN
    bool   terminal;
} Progress;

// On a terminal: one line, rewritten a few times a second: step, loss, floor, validation, speed, time left. Into a pipe: ten plain
// lines in all. Both on stdout.
void progress_begin(Progress *p, const char *what, long first, long total, double floor);
void progress_step(Progress *p, long steps_done, double loss, long tokens_per_step);
void progress_validation(Progress *p, double val); // shown from now on
void progress_end(Progress *p);                    // leaves the last line standing

// "3,239,424", "37.7 MB" (10^6), "1.4 TB": strings in one of sixteen buffers used in turn.
const char *thousands(long number);
const char *bytes_text(double bytes);
const char *count_text(double number); // "3,815 M", "67 G"

#endif
