// judge.h - what the checks of every task are made of: a process that runs a student's code, the numbers that it hands over, and awards.

#ifndef JUDGE_H
#define JUDGE_H

#include "exercise.h"

#include <stdarg.h>

enum { MOST_TREES = 8 };
typedef struct Task {
    char id[16], function[64], place[128], title[128], source[512], reason[1024];
    char program[512];                      // "": there is none, for the reason above
    char tree[MOST_TREES][512];             // L3.3's: in right engines, and at odd places in some with the bug
    int  trees;
    double points, earned;
    char text[8192]; // what is said about it
} Task;

extern uint64_t seed;          // of the task that is judged
extern const char *workshop;    // a directory that is the grader's alone: room, room.root, empty
extern bool static_programs;

// Room for `count` zeros, until the task is judged.
double *room(int64_t count);
void    leave_rooms(void);

enum { MOST_SAID = 4000 };
typedef struct Answers {
    char *bytes;                // what the process handed over
    size_t size, at;
    char said[MOST_SAID + 1];   // the beginning of what it printed, which counts for nothing
    char how[200];              // how it ended, if not well; else empty
    int  status;
} Answers;

// Runs a program on one task in a sandbox; `own` is what its exercise is drawn from. The caller frees the bytes.
Answers run(const char *program, const char *task, uint64_t own);
// Compiles room/t.c to room/out/t.o in a sandbox: whether that worked, and what the compiler said, of at most MOST_SAID bytes.
bool compile(const char *compiler, char said[MOST_SAID + 1]);

typedef struct Judge { Task *task; Answers *answers; double earned, total; int failures; bool broken; } Judge;
typedef struct Array { const double *values; int64_t count; } Array; // values NULL: not computed
// Wrong numbers that mean something, and what; a list ends with NULL, NULL.
typedef struct Known { const double *values; const char *hint; } Known;

// Adds to what is said about the task.
FORMATS(2, 3) void say(Task *t, const char *format, ...);
// The next array, which must have this name. If it is not there, nothing that follows counts, and neither does what came before.
Array next(Judge *j, const char *name);
// One check: of this weight, and what to say if it failed. Only the first failure of a task is explained at length.
FORMATS(4, 5) bool award(Judge *j, double weight, bool good, const char *format, ...);
// One check of an array against what is expected, `whence` it is known, and what wrong numbers of known kinds mean.
bool compare(Judge *j, double weight, const char *what, Array ours, const double *expected, int64_t count, int columns, const char *whence,
             const Known *known);
bool same_numbers(const double *a, const double *b, int64_t count);

// Where expected numbers come from: the derivatives of f by x[count], which f reads; and the arrays of exercise.h.
extern const char *const by_differences, *const by_loops;
double *differences(double *x, int64_t count, double (*f)(void *context), void *context);
double *numbers(int array, uint64_t own, int64_t count);

// The checks: of one gradient kernel (false: the task is not one), of the product, and of all others.
bool judge_gradient(Judge *j);
void judge_product(Judge *j);
void judge_chain(Judge *j);
void judge_backward(Judge *j);
void judge_init(Judge *j);
void judge_scale(Judge *j);
void judge_path(Judge *j);
void judge_merge(Judge *j);
void judge_keeps(Judge *j);
void judge_moments(Judge *j);
void judge_memory(Judge *j);
void judge_claims(Judge *j);
void judge_found(Judge *j);

#endif
