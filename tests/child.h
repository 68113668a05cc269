// child.h - runs something that ends the program, in a child process, and hears what it says.

#ifndef CHILD_H
#define CHILD_H

#include "../kernels.h"
#include "test.h"

#ifdef NO_PROCESSES // io/posix.h

static char said[1];

static inline int in_child(void (*deed)(void))
{
    (void)deed;
    test_skipped = "this system has no fork";
    return -3;
}

#else

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Runs `deed` in a child, whose threads are 1: the others stayed with the parent. Returns its exit status (0 if it returns), or -1
// if it aborted, -2 if another signal ended it; what it wrote to stderr is in `said`.
static char said[8192];
static bool child_runs;

int __lsan_is_turned_off(void); // asked by LeakSanitizer, where there is one: a child that exits in mid-work has leaks
int __lsan_is_turned_off(void) { return child_runs; }

static inline int in_child(void (*deed)(void))
{
    int ends[2];
    fflush(stdout);
    if (pipe(ends) != 0) return -3;
    pid_t child = fork();
    if (child < 0) return -3;
    if (child == 0) {
        child_runs = true;
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        parallel_set_threads(1);
        deed();
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while (length < sizeof said - 1 && (got = read(ends[0], said + length, sizeof said - 1 - length)) > 0) length += (size_t)got;
    said[length] = '\0';
    char *emulator = strstr(said, "qemu: uncaught target signal"); // its word, not the program's
    if (emulator != NULL) *emulator = '\0';
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? -1 : -2;
}

#endif

#define EXPECT_ABORT(mistake, text)                                                                                   \
    do {                                                                                                              \
        int status_ = in_child(mistake);                                                                              \
        EXPECT(status_ == -1 && strstr(said, text), #mistake ": status %d, and it said: %s", status_, said);          \
        EXPECT(strstr(said, ".c:") && strchr(said, '\n') == said + strlen(said) - 1, "not one line with its place: %s", said); \
    } while (0)

#endif
