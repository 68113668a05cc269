// train_options.h - what a training run is told: train's options, each one row of a table, and where its value is.
//
// A run's state (state_file.h) holds them, by the same rows: so a run that goes on knows what it was told, and all of it is
// within the ranges of the command line, whoever wrote the file.

#ifndef TRAIN_OPTIONS_H
#define TRAIN_OPTIONS_H

#include "adamw.h"
#include "options.h"
#include "training.h"

#define MOST_STEPS   0x1p40
#define MOST_DROPOUT 0.99

typedef struct TrainOptions {
    const char *data, *out, *init;
    bool        resume, overwrite, recompute, trace;
    Config      config;        // vocab_size is the text's
    LoraConfig  lora;          // r 0: everything trains
    int         batch_size, micro_batches, threads;
    Schedule    schedule;
    AdamWConfig adamw;
    int64_t     eval_interval; // steps between saves
    uint64_t    seed;          // of batches and dropout, with the step
    uint64_t    given;         // the rows that were on the command line
} TrainOptions;

extern const OptionTable train_table;

// Those of a run of which nothing is said.
TrainOptions train_options_default(void);
bool train_option_given(const TrainOptions *o, const char *name);

// Fills in what depends on other options and was not given: alpha, and the least learning rate. False, after one line in
// `error`: they do not fit together.
bool train_options_complete(TrainOptions *o, char *error, size_t size);

#endif
