// test.h - the whole test framework.
//
// A test file includes this header, writes `TEST(name) { ... EXPECT(condition, "format", ...); ... }` and a main that
// calls RUN(name) for each test and returns test_summary(). A failed EXPECT prints one line with file, line and the values
// that the message shows, and the test goes on; a test passes if none of its EXPECTs failed and at least one was reached:
// a test that checks nothing counts as failed. tests/run.sh adds up the `N passed, N failed` lines of all programs.

#ifndef TEST_H
#define TEST_H

#include <stdio.h>
#include <string.h>

static int tests_passed, tests_failed, test_reached, test_wrong;

#define TEST(name) static void name(void)

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        test_reached++;                                                                            \
        if (!(condition) && ++test_wrong <= 8) {                                                   \
            printf("     %s:%d: %s\n       ", __FILE__, __LINE__, #condition);                     \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

#define RUN(name) test_run(#name, name)

static void test_run(const char *name, void (*test)(void))
{
    test_reached = test_wrong = 0;
    test();
    if (test_wrong == 0 && test_reached > 0) {
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
