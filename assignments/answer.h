// answer.h - how a program that runs a student's code hands its numbers over: through a file descriptor, or as text to read.

#ifndef ANSWER_H
#define ANSWER_H

#include "exercise.h"

#include <sys/resource.h>
#include <unistd.h>

static int descriptor = -1; // -1: as text

static inline void hand_over(const void *bytes, size_t size)
{
    for (const char *at = bytes; size > 0; ) {
        ssize_t done = write(descriptor, at, size);
        if (done <= 0) _exit(3);
        at += done;
        size -= (size_t)done;
    }
}

// values NULL with count > 0: there is no such array.
static inline void answer(const char *name, const double *values, int64_t count)
{
    if (descriptor < 0) {
        printf("%-10s", name);
        if (values == NULL && count > 0) printf(" not computed");
        for (int64_t i = 0; values != NULL && i < count; i++) printf(" %.6g", values[i]);
        printf("\n");
        return;
    }
    Header header = { "", values == NULL && count > 0 ? NOT_COMPUTED : count };
    snprintf(header.name, sizeof header.name, "%s", name);
    hand_over(&header, sizeof header);
    if (header.count > 0) hand_over(values, (size_t)count * sizeof *values);
}

static inline void answer_integers(const char *name, const int64_t *values, int count)
{
    double numbers[64];
    for (int i = 0; i < count; i++) numbers[i] = (double)values[i];
    answer(name, numbers, count);
}

// TASK SEED [FD]: from here on no file can be opened, if it is graded.
static inline uint64_t answer_begin(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "%s: TASK SEED [FD]\n", argv[0]);
        exit(2);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 3) {
        descriptor = atoi(argv[3]);
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 0, 0 });
    }
    return strtoull(argv[2], NULL, 10);
}

// Nothing that comes after this line can change an answer.
_Noreturn static inline void answer_end(void)
{
    answer("end", NULL, 0);
    fflush(stdout);
    _exit(0);
}

#endif
