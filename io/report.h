// report.h - one web page of a real run: the data of a program, put into io/report.html.
//
//     Report *report = report_begin("out/report.html", error, sizeof error);   // NULL: it cannot be written, and why
//     json_put_number(report_member(report, "answer"), 42);                    // any JSON value under a name of its own
//     report_tape(report);                                                     // each node of two small nets, in every mode
//     if (!report_end(report, error, sizeof error)) ...                        // the page stands, complete, or not at all
//
// The page is one file: its style, its program and its data are inside, and it asks nothing of the network. What it computes
// by itself are the bytes for other shapes; it does so with predict.c, turned into JavaScript by io/predict_js.awk when the
// engine is built. Numbers that the page shows and this file does not write would be a defect.

#ifndef REPORT_H
#define REPORT_H

#include "io/json.h"
#include "adapters.h"

typedef struct Report Report;

// Creates the temporary file beside `path`, so that a path which cannot be written is refused before the work.
Report *report_begin(const char *path, char *error, size_t size);
// Begins a member of the page's data: the caller writes one JSON value to the stream, which stays the report's.
FILE *report_member(Report *report, const char *key);
// A member that holds the text of a file.
bool report_file(Report *report, const char *key, const char *path, char *error, size_t size);
// Member "nets": a chain of four layers and a transformer of two blocks, one step of each in every mode: full, LoRA, LoRA on the
// top alone, all frozen, and the gradient cut at frozen weights. Each op with its inputs, values, kept tensors and live bytes; each
// gradient that ran, with its norm; each that was skipped, with what that saves.
void report_tape(Report *report);
// A member that lists the ops of one forward pass of the model, in order: name, result, inputs.
void report_ops(Report *report, const char *key, Transformer *model, int B, int T);
// Member "checks": predict_step of `count` random configurations, for the page's own arithmetic to be held against.
void report_checks(Report *report, int count, uint64_t seed);
// Writes the page and frees the report. False: the target is what it was, after one line in `error`.
bool report_end(Report *report, char *error, size_t size);
// Forgets it all; the target is what it was.
void report_abort(Report *report);

// The page with its placeholder for the data: io/report.html, as bytes, made by the Makefile.
extern const unsigned char report_page[];
extern const size_t report_page_size;

#endif
