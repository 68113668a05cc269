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
#include "train_options.h"
#include "text.h"
#include "training.h"
#include "adapters.h"

// Either everything trains (no adapter in use: the weights are in the file, too), or the adapter in use does, on a frozen base
// (then only A and B are in the file, with the place and fingerprint of the base).
typedef struct TrainingState {
    Transformer *model;
    AdamW       *optimizer;     // made of model->parameters; its step count and moments are in the file
    Vocabulary   vocabulary;    // may be empty
    Settings     settings;      // where everything trains: what the files of the model that it began with say besides; may be empty
    int64_t      step;          // iterations done
    TrainOptions options;       // of the run, those that the table says go on; data NULL: nobody can read that text again
    uint64_t     text_hash;     // tells whether the text is still the same
    char        *data;          // options.data, if state_load made it
    char        *base_dir;      // where the base of the adapter in use is; NULL if everything trains
} TrainingState;

// One save of a run: the state, then what others read, model_save's files or adapter_save's. The state stays the caller's. A
// tensor that trains and should not, or the reverse, is a programmer's mistake (check()).
bool state_save(const char *dir, const TrainingState *state, char *error, size_t size);
// The same up to the moment when the files would take their places: whatever can be in the way of a save is found before the
// work. `dir` is made; else nothing is left.
bool state_rehearse(const char *dir, const TrainingState *state, char *error, size_t size);

// Builds model (dropout included) and optimizer anew. The base of an adapter is read from `base_dir`, or if that is NULL from
// where it was; it must be the same to the bit. Of another build type (REAL), a state is refused. On error *state is all zero.
bool state_load(const char *dir, const char *base_dir, TrainingState *state, char *error, size_t size);

// What would be lost if something else were saved in `dir`: "a model of 2000 steps, validation loss 1.4712, of 2026-11-29 18:20".
// False: there is neither a model nor an adapter. *state: --resume can go on with it.
bool state_describe(const char *dir, char *text, size_t size, bool *state);

// Frees everything that state_load made, the model included.
void state_free(TrainingState *state);

#endif
