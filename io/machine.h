// machine.h - what differs from one system to another: the memory that there is, what the process took of it, and how wide the
// terminal is; and the middle one of several times, for on a busy machine a mean says little.

#ifndef MACHINE_H
#define MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Whether the machine has that much memory at all; else false, after one line in `error`. True if the system does not tell.
bool memory_holds(double bytes, char *error, size_t size);
// The process's peak resident size in bytes, or 0 if the system does not tell.
int64_t resident_peak(void);
// The columns of the terminal that stdout is, or 80.
int terminal_columns(void);
// The middle one of count > 0 values (of an even number: the upper of the two), which get sorted.
double median(double *values, int64_t count);

#endif
