// test.h - the whole test framework.
//
// A test file includes this header, writes `TEST(name) { ... EXPECT(condition, "format", ...); ... }` and a main that
// calls RUN(name) for each test and returns test_summary(). A failed EXPECT prints one line with file, line and the values
// that the message shows, and the test goes on; a test passes if none of its EXPECTs failed and at least one was reached:
// a test that checks nothing counts as failed. tests/run.sh adds up the `N passed, N failed` lines of all programs.
//
// A test in which the program ends, by a signal or by exit(), is named as the one that failed. TEST=name in the environment
// runs that test alone.

#ifndef TEST_H
#define TEST_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int tests_passed, tests_failed, test_reached, test_wrong;
static const char *test_skipped; // why: what the test needs does not exist on this system (child.h)

#define TEST(name) static void name(void)

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        test_reached++;                                                                            \
        if (!(condition) && test_skipped == NULL && ++test_wrong <= 8) {                                                   \
            printf("     %s:%d: %s\n       ", __FILE__, __LINE__, #condition);                     \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

#define RUN(name) test_run(#name, name)

// The test that runs now, for the case that it does not return; NULL: none. Children that a test forks are not it.
static const char *test_running;
static pid_t test_process;

static const struct { int number; const char *name; } test_signals[] = {
    { SIGABRT, "SIGABRT" }, { SIGSEGV, "SIGSEGV" }, { SIGFPE, "SIGFPE" }, { SIGBUS, "SIGBUS" }, { SIGILL, "SIGILL" },
};
enum { TEST_SIGNALS = sizeof test_signals / sizeof *test_signals };
static struct sigaction test_signal_before[TEST_SIGNALS];

// Only write(): stdout may be in any state when a signal comes.
static void test_ended(const char *how)
{
    const char *parts[] = { "FAIL ", test_running, ": ended by ", how, "\n" };
    if (test_running == NULL || getpid() != test_process) return;
    for (int i = 0; i < 5; i++)
        if (write(STDOUT_FILENO, parts[i], strlen(parts[i])) < 0) return;
    test_running = NULL;
}

// Names the test, then lets the signal do what it would have done: abort() raises it again, a faulty instruction runs again.
static void test_signal(int number)
{
    for (int i = 0; i < TEST_SIGNALS; i++)
        if (test_signals[i].number == number) {
            test_ended(test_signals[i].name);
            sigaction(number, &test_signal_before[i], NULL);
        }
}

static void test_exit(void) { test_ended("exit()"); }

static void test_begin(void)
{
    test_process = getpid();
    setvbuf(stdout, NULL, _IOLBF, 0); // what a test has said is out before it crashes
    for (int i = 0; i < TEST_SIGNALS; i++) {
        struct sigaction action = { .sa_handler = test_signal };
        sigaction(test_signals[i].number, &action, &test_signal_before[i]);
    }
    atexit(test_exit);
}

static void test_run(const char *name, void (*test)(void))
{
    const char *only = getenv("TEST");
    if (only != NULL && strcmp(only, name) != 0) return;
    if (test_process == 0) test_begin();
    test_reached = test_wrong = 0;
    test_skipped = NULL;
    test_running = name;
    test();
    test_running = NULL;
    if (test_wrong == 0 && test_skipped != NULL) {
        printf("skip %s: %s\n", name, test_skipped);
    } else if (test_wrong == 0 && test_reached > 0) {
        tests_passed++;
        printf("ok   %s (%d checks)\n", name, test_reached);
    } else {
        tests_failed++;
        printf("FAIL %s: %d of %d checks\n", name, test_wrong, test_reached);
    }
    fflush(stdout);
}

// Prints the totals and returns the program's exit status. No test run at all is a failure.
static int test_summary(void)
{
    printf("%d passed, %d failed\n", tests_passed, tests_failed);
    return tests_failed > 0 || tests_passed == 0;
}

#endif
