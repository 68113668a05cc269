// machine.c - see machine.h.

#include "machine.h"

#include "progress.h"
#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef _WIN32
#include <windows.h>
#elif !defined NO_PROCESSES // posix.h
#include <sys/ioctl.h>
#include <sys/resource.h>
#endif

#ifdef __APPLE__
enum { MAXRSS_UNIT = 1 };    // bytes in getrusage's unit
#else
enum { MAXRSS_UNIT = 1024 };
#endif

int terminal_columns(void)
{
#ifdef TIOCGWINSZ
    struct winsize size;
    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
#endif
    return 80;
}

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
    double memory = 0;
#ifdef _WIN32
    MEMORYSTATUSEX status = { .dwLength = sizeof status };
    if (GlobalMemoryStatusEx(&status)) memory = (double)status.ullTotalPhys;
#elif defined _SC_PHYS_PAGES
    memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
#endif
    if (memory > 0 && bytes > memory)
        return fail(error, size, "%s are needed at least, and this machine has %s of memory; take a smaller model",
                    bytes_text(bytes), bytes_text(memory));
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
