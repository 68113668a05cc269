// page.h - what the files of this folder share: the page is the engine, compiled to WebAssembly, and a drawing of what it says.
//
// Every function marked EXPORT is called by web/worker.js, by its name. Those that tell more than one number return JSON, which
// stands until the next call. Text comes in through room(). What cannot be done returns {"error":"one line"}; a programmer's
// mistake stops the engine as everywhere else (check()), and worker.js passes on what it said.
//
//     main.c    a model, a text, training, samples, adapters; predictions; the claims
//     lane.c    one step of a small net, watched node by node: the three lanes
//     alone.c   one thread, in the place of fast/threads.c

#ifndef PAGE_H
#define PAGE_H

#include "io/json.h"
#include "memory.h"

#ifdef __wasm__
#define EXPORT(name) __attribute__((export_name(#name))) name
#else
#define EXPORT(name) name
#endif

// An answer: a stream to write JSON to, and then its text.
FILE       *answer_begin(void);
const char *answer_end(void);
const char *answer_error(const char *why);
// "key":[of weights,of adapters,...]
void put_kinds(FILE *f, const char *key, const int64_t bytes[MEMORY_KINDS]);

// The text that the page has handed over, ended by a 0.
extern char *handed;

#endif
