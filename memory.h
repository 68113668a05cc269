// memory.h - where every byte goes: the ledger, and the pool of buffers behind it.
//
// All data, gradients, moments and scratch come from memory_take, which writes each byte into the ledger under its kind, and
// return through memory_give. What was given back waits in the pool for the next request of the same size: a training step
// asks for the same sizes each time, so after the first one the system is asked for nothing.
//
// Read next: kernels.h, or autograd.h at once.

#ifndef MEMORY_H
#define MEMORY_H

#include "tensor.h"

extern const char *const memory_kind_names[MEMORY_KINDS]; // "weights", ..., as in metrics.json

typedef struct Ledger {             // all in bytes
    int64_t live[MEMORY_KINDS];     // held now
    int64_t own_peak[MEMORY_KINDS]; // the most that this kind ever held
    int64_t at_peak[MEMORY_KINDS];  // what this kind held when the total was highest
    int64_t total, peak;            // sum of live, and its maximum
    int64_t pool;                   // free buffers held for reuse; not part of total
    int64_t mallocs;                // buffers asked of the system so far: constant in steady state
} Ledger;
extern Ledger ledger;               // read it freely; only the functions below write it

// A buffer of `count` reals, aligned to 64 bytes; NULL for none. Its contents are whatever was there before (NaN in a debug
// build). Out of memory: a message and exit(1). Call it from the main thread only.
real *memory_take(MemoryKind kind, int64_t count);
// Gives a buffer back to the pool; NULL is fine. `kind` and `count` must be those it is on the ledger with.
void  memory_give(MemoryKind kind, real *buffer, int64_t count);
// The buffer of `count` reals is now of another kind.
void  memory_move(MemoryKind from, MemoryKind to, int64_t count);
// Starts the peaks anew from what is held now.
void  memory_reset_peaks(void);
// Returns the free buffers to the system.
void  memory_release_pool(void);
// While `file` is not NULL, every change of the ledger writes one CSV row: phase, label, then the live bytes of each kind.
void  memory_timeline(FILE *file);
// Says what the program is doing now, for the timeline: ("backward", "gelu"). The strings must last.
void  memory_at(const char *phase, const char *label);

// Room outside the ledger, for lists: `count` zeroed elements of `size` bytes, the caller's to free; or an array's room
// changed. Never NULL: without memory there is one line, that there is no room for `what`, and exit status 1.
void *allocate(size_t count, size_t size, const char *what);
void *reallocate(void *array, size_t count, size_t size, const char *what);
// The program, at the beginning of such a line: "train". Set by each main.
extern const char *program_name;

#endif
