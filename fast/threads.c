// threads.c - a pool of threads that wait for the next round, and a caller that waits for its end: they look for a short while,
// and then sleep.
//
// One round is one kernel: the caller publishes what to run, raises the count of each worker, computes part 0 itself and waits
// until no part is unfinished. Threads start with the first round that needs them and live as long as the program. Each has its
// own scratch.

#include "fast.h"

#include "memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// How long a waiting thread looks before it sleeps, in seconds. Nearly all waits are shorter than the longest look, and to wake
// a thread takes about half as long. Who looks in vain may wait for a thread that needs this very core, because another process has
// its own: next time it looks half as long. To yield instead would hand the core to any process in the background for a whole
// time slice.
#define LONGEST_LOOK  100e-6
#define SHORTEST_LOOK 3e-6

static int threads;                         // parts per kernel; 0: not chosen yet
static atomic_bool crowded;                 // more threads than cores: nobody looks, for it would keep others from work
static int workers;                         // threads started so far, beside the caller; worker w computes part w + 1
static atomic_uint rounds[MAX_THREADS];     // raised once for every round in which worker w has a part
static atomic_int unfinished;               // workers that have not ended their part of this round
static atomic_int sleepers;                 // workers that sleep, or are about to
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static atomic_int caller_sleeps;            // or is about to

// What this round computes: written before `rounds` is raised, read after.
static void (*round_work)(void *context, Part part);
static void *round_context;
static int round_parts;

static _Thread_local int thread_number;     // 0: the caller
static real *scratches[MAX_THREADS];        // each of scratch_numbers numbers, or all NULL
static int64_t scratch_numbers, attention_numbers;
static int scratch_count;                   // of how many threads

// How long to look after a look that was in vain, or was not
static double next_look(double look, bool in_vain)
{
    if (crowded) return 0;
    return !in_vain ? LONGEST_LOOK : look > 2 * SHORTEST_LOOK ? look / 2 : SHORTEST_LOOK;
}

static void *worker(void *argument)
{
    int index = (int)(intptr_t)argument;
    thread_number = index + 1;
    double look = next_look(0, false);
    for (unsigned seen = 0;; seen++) {
        double end = seconds_now() + look;
        bool in_vain = false;
        while (atomic_load_explicit(&rounds[index], memory_order_acquire) == seen) {
            if (seconds_now() < end) continue;
            in_vain = true;
            pthread_mutex_lock(&mutex);
            atomic_fetch_add(&sleepers, 1);
            while (atomic_load(&rounds[index]) == seen) pthread_cond_wait(&wake, &mutex);
            atomic_fetch_sub(&sleepers, 1);
            pthread_mutex_unlock(&mutex);
        }
        look = next_look(look, in_vain);
        round_work(round_context, (Part){ index + 1, round_parts });
        if (atomic_fetch_sub(&unfinished, 1) == 1 && atomic_load(&caller_sleeps)) {
            pthread_mutex_lock(&mutex);
            pthread_cond_signal(&done);
            pthread_mutex_unlock(&mutex);
        }
    }
    return NULL;
}

static void make_scratch(void)
{
    scratch_numbers = larger(DEPTH * (WIDTH + STRIP), attention_numbers);
    for (scratch_count = 0; scratch_count < parallel_threads(); scratch_count++)
        scratches[scratch_count] = memory_take(MEMORY_WORKSPACE, scratch_numbers);
}

void scratch_release(void)
{
    while (scratch_count > 0) memory_give(MEMORY_WORKSPACE, scratches[--scratch_count], scratch_numbers);
    attention_numbers = 0;
}

int64_t scratch_size(int T, int D) { return larger(DEPTH * (WIDTH + STRIP), attention_scratch(T, D)); }

void scratch_reserve(int T, int D)
{
    int64_t numbers = attention_scratch(T, D);
    if (numbers <= attention_numbers) return;
    scratch_release();
    attention_numbers = numbers;
}

real *scratch(void)
{
    if (scratch_count == 0) make_scratch(); // only ever by the caller: parallel_run has made it before workers ask
    return scratches[thread_number];
}

void parallel_set_threads(int count)
{
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    scratch_release();
    if (count <= 0) count = cores > 0 ? cores : 1;
    threads = count < MAX_THREADS ? count : MAX_THREADS;
#ifdef __wasi__ // which has none
    threads = 1;
#endif
    crowded = cores > 0 && threads > cores;
}

int parallel_threads(void)
{
    if (threads == 0) parallel_set_threads(0);
    return threads;
}

static void start_workers(int count)
{
    for (; workers < count; workers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)workers) != 0) {
            fprintf(stderr, "cannot start thread %d of %d; try fewer --threads\n", workers + 2, count + 1);
            exit(1);
        }
        pthread_detach(thread);
    }
}

static void wait_for_workers(void)
{
    static double look = LONGEST_LOOK;
    double end = seconds_now() + look;
    bool in_vain = false;
    while (!in_vain && atomic_load_explicit(&unfinished, memory_order_acquire) > 0) in_vain = seconds_now() >= end;
    look = next_look(look, in_vain);
    if (!in_vain) return;
    pthread_mutex_lock(&mutex);
    atomic_store(&caller_sleeps, 1);
    while (atomic_load(&unfinished) > 0) pthread_cond_wait(&done, &mutex);
    atomic_store(&caller_sleeps, 0);
    pthread_mutex_unlock(&mutex);
}

void parallel_run(void (*work)(void *context, Part part), void *context)
{
    int parts = parallel_threads();
    if (scratch_count == 0) make_scratch();
    if (parts == 1) {
        work(context, WHOLE);
        return;
    }
    start_workers(parts - 1);
    round_work = work;
    round_context = context;
    round_parts = parts;
    atomic_store(&unfinished, parts - 1);
    for (int w = 0; w < parts - 1; w++) atomic_fetch_add(&rounds[w], 1);
    if (atomic_load(&sleepers) > 0) {
        pthread_mutex_lock(&mutex);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&mutex);
    }
    work(context, (Part){ 0, parts });
    wait_for_workers();
}
