// fuzz.h - what libFuzzer's targets share. Each target feeds bytes to one reader of foreign files and checks what must hold for
// any input: no crash, no leak, no undefined behaviour (the sanitizers look), one line of error or a result that is consistent.

#ifndef FUZZ_H
#define FUZZ_H

#include "memory.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

// A message is one line, ended and not empty.
static inline void check_message(const char *error)
{
    check(error[0] != '\0' && strchr(error, '\n') == NULL, "the message is empty or has more than one line: %s", error);
}

// A copy of the exact size, so that the sanitizer sees the first byte too far; the caller's to free.
static inline char *exact_copy(const void *bytes, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);
    check(copy != NULL, "out of memory");
    if (n > 0) memcpy(copy, bytes, n);
    return copy;
}

#endif
