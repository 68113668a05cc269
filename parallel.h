// parallel.h - runs the parts of one kernel on all cores, with POSIX threads.
//
// A kernel is called once per part and computes the share of its output that this part owns. No two parts write the same
// element and no sum crosses parts, so there is nothing to lock and the result's bits do not depend on the number of parts.
//
//     static void double_it(void *context, Part part)
//     {
//         Share s = share(part, n, 16);
//         for (long i = s.begin; i < s.end; i++) ...
//     }
//     parallel_run(double_it, context);
//
// Read next: matmul.h.

#ifndef PARALLEL_H
#define PARALLEL_H

#define MAX_THREADS 256

typedef struct Part  { int index, count; } Part;  // part `index` of `count`
typedef struct Share { long begin, end; } Share;  // of something numbered from 0; empty if begin == end

// The share that `part` owns of n items, cut at multiples of `grain`. Shares differ by at most one grain.
Share share(Part part, long n, long grain);

// How many threads run a kernel, the caller included: 1 to MAX_THREADS; 0 means one per online core (also the start value).
// More threads than cores are slower, never wrong.
void parallel_set_threads(int count);
int  parallel_threads(void);

// Calls work(context, part) for every part, one of them on the calling thread, and returns when all have ended. Call it from
// one thread at a time, and not from within `work`. parallel_run_serial calls all of it as a single part, here and now: for
// work that is smaller than waking a thread.
void parallel_run(void (*work)(void *context, Part part), void *context);
void parallel_run_serial(void (*work)(void *context, Part part), void *context);

#endif
