// comparison.h - what ./demo compares, and where each part of what it prints is made.
//
//     demo.c        trains the base, and from it the four runs; main
//     tables.c      bytes, work, recomputation, learning, samples
//     claims.c      eleven things that people say about LoRA, each measured and given a verdict
//     shapes.c      the formulas alone, for models of up to 175 billion numbers
//     files.c       what goes to out/demo/, drawn with plots/*.gp, or in bars of text

#ifndef COMPARISON_H
#define COMPARISON_H

#include "experiments/measure.h"
#include "io/progress.h"

// One way to fine-tune, and what it was measured to take.
typedef struct Run {
    const char *name, *heading;
    const LoraConfig *lora;      // NULL: all of the base trains
    double learning_rate;
    Measured   measured;         // a step after the first
    Prediction predicted;
    double  val_task, val_tales;
    int64_t trainable, resident; // resident: what the system says of a process that does nothing else
} Run;
enum { FULL, C_ATTN_ONLY, C_ATTN_CODES, ALL_FOUR, RUNS }; // C_ATTN_CODES: C_ATTN_ONLY again, on a base in codes

typedef struct Comparison {
    Run run[RUNS];
    int base_steps, tune_steps;
    Text tales, pirate, robot;
    Transformer *model;
    Adapter *pirate_adapter, *robot_adapter; // on all four layers
    double  base_task, base_tales;           // the base's own loss on the new task, and on what it was trained on
    uint64_t hash, hash_after;               // of the base: when it was trained, and when all had been trained beside it
    int64_t empty_process;                   // what the system says of a process that trains nothing
    Measured recompute[2][2];                // of the first two runs; [1] with each block run again in backward
} Comparison;

// "== TEXT ====": over each part of what is printed.
void print_heading(const char *text);

void print_bytes(const Comparison *c);
void print_work(const Comparison *c);
void print_recompute(const Comparison *c);
void print_learning(const Comparison *c);
void print_hashes(const Comparison *c);
// A tale of `length` characters by the adapter (NULL: the base alone), which stays in use.
void print_sample(Transformer *model, Adapter *adapter, const Text *text, int length, const char *title);
// The characters that follow an empty line at temperature 0.3, with a 0 at the end: UTF-8, the caller's to free.
char *sample_text(const Transformer *model, const Text *text, int length);

// False: some verdict does not follow from what was measured.
bool print_claims(const Comparison *c);

// The table of large shapes; one in detail: its name is unknown if that returns false; and their names.
enum { SHAPES = 6, FORMATS = 4 };
void print_shapes(void);
bool print_one_shape(const char *name);
const char *shape_name(int i);
void put_shapes(FILE *file); // as JSON, for the page
// What each of two machines sends in a step, and how long that takes: at the demo's shape, where so many numbers train, and at two
// of these.
void print_wire(double full, double lora);

// Bytes of weights, gradients and moments in 32 bits, full training over LoRA on c_attn, and the same of the peaks of a step on
// one window of full length: at GPT-3's shape.
typedef struct Ratios { double states, peak; } Ratios;
Ratios ratios_at_gpt3(void);

#define OUT "out/demo"
void make_directories(void);
void write_metrics(const Comparison *c);
void draw_bytes(const Comparison *c); // after write_step and loss.csv

#endif
