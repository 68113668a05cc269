// state_file.h - all that a training run needs to go on as if it had never stopped, to the bit: what --resume reads.
//
//     DIR/training_state.safetensors      ours alone; beside it stand the files of the model or the adapter, for others
//
// Saves, errors and types of numbers are as for models (model_file.h): all files or none. A crash, in the few microseconds
// between two renames, may leave the new state beside the old model or adapter: then who resumes writes that anew.

#ifndef STATE_FILE_H
#define STATE_FILE_H

#include "adamw.h"
#include "model_file.h"
#include "training.h"
#include "adapters.h"

// Either everything trains (no adapter in use: the weights are in the file, too), or the adapter in use does, on a frozen base
// (then only A and B are in the file, with the place and fingerprint of the base).
typedef struct TrainingState {
    Transformer *model;
    AdamW       *optimizer;     // made of model->parameters; its settings, step count and moments are in the file
    Vocabulary   vocabulary;    // may be empty
    Settings     settings;      // where everything trains: what the files of the model that it began with say besides; may be empty
    int64_t      step;          // iterations done
    uint64_t     seed;          // of batches and dropout, with the step
    char        *data;          // where the text came from, UTF-8, or NULL;
    uint64_t     text_hash;     // ... and a hash that tells whether it is still the same
    int          batch_size;
    Schedule     schedule;
    int64_t      eval_interval; // steps between saves
    char        *base_dir;      // where the base of the adapter in use is; NULL if everything trains
} TrainingState;

// One save of a run: the state, then what others read, model_save's files or adapter_save's. The state stays the caller's. A
// tensor that trains and should not, or the reverse, is a programmer's mistake (check()).
bool state_save(const char *dir, const TrainingState *state, char *error, size_t size);

// Builds model (dropout included) and optimizer anew. The base of an adapter is read from `base_dir`, or if that is NULL from
// where it was; it must be the same to the bit. Of another build type (REAL), a state is refused. On error *state is all zero.
bool state_load(const char *dir, const char *base_dir, TrainingState *state, char *error, size_t size);

// Frees everything that state_load made, the model included.
void state_free(TrainingState *state);

#endif
