// machine.c - see machine.h.

// macOS and FreeBSD hide sysconf's number of pages, which is no part of POSIX, from who asks for POSIX
#define _DARWIN_C_SOURCE // NOLINT(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)
#define __BSD_VISIBLE 1  // NOLINT(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)

#include "machine.h"

#include "progress.h"
#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>
#ifndef NO_PROCESSES // WebAssembly, of the web page
#include <sys/resource.h>
#endif
#include <unistd.h>

#ifdef __APPLE__
enum { MAXRSS_UNIT = 1 };    // bytes in getrusage's unit
#else
enum { MAXRSS_UNIT = 1024 };
#endif

int64_t resident_peak(void)
{
    FILE *status = fopen("/proc/self/status", "r"); // Linux: getrusage there counts what the parent had before exec, too
    char line[256];
    int64_t kilobytes = 0;
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmHWM: %" SCNd64, &kilobytes) == 1) break;
    if (status != NULL) fclose(status);
    if (kilobytes > 0) return 1024 * kilobytes;
#ifdef NO_PROCESSES
    return 0;
#else
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_maxrss * MAXRSS_UNIT : 0;
#endif
}

bool memory_holds(double bytes, char *error, size_t size)
{
#ifdef _SC_PHYS_PAGES
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (memory > 0 && bytes > memory)
        return fail(error, size, "%s are needed at least, and this machine has %s of memory; take a smaller model",
                    bytes_text(bytes), bytes_text(memory));
#else
    (void)bytes, (void)error, (void)size;
#endif
    return true;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}
