// checkpoint.h - models, adapters and the state of a training run, to disk and back.
//
// Models and adapters are directories that Hugging Face transformers and PEFT open without conversion; theirs open here:
//
//     DIR/config.json  tokenizer.json  tokenizer_config.json  model.safetensors           GPT2LMHeadModel.from_pretrained(DIR)
//     DIR/adapter_config.json  adapter_model.safetensors                                  PeftModel.from_pretrained(base, DIR)
//     DIR/training_state.safetensors                                                      ours alone: what --resume needs
//
// The files of one save are written beside their targets and take their places together when all of them are on the disk
// (file.h): no room, no change. A crash, at any moment, leaves the files of the old save or of the new, or, in the few
// microseconds between two renames, the new training state beside the old model; then who resumes writes the model anew. A
// model's tensors never stand beside another configuration or vocabulary than their own: where that changes, the old tensors
// are removed first.
//
// Functions that can fail leave one line in `error` (size bytes), and then nothing has changed in memory: no model, no
// half-attached adapter. What the engine does not compute (another activation, an untied head, DoRA, ...) is refused, never
// ignored. Sizes in a configuration are held against the tensors in the file before memory is asked for. NaN and infinity are
// numbers like others.
//
// Numbers are written in the build's own type: F32, or F64 with REAL=double. F16, BF16, F32 and F64 are read.

#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "training.h"

// Saves the base as it is in memory (with an adapter that is merged into it, without one that is not). Makes `dir`, and the
// directories above it, if they are missing. `vocabulary` NULL or empty: no tokenizer is written, one that is there stays. Its
// size must be the model's vocab_size (check()). Dropout is a matter of training, and is written as 0.
bool model_save(const Transformer *model, const Vocabulary *vocabulary, const char *dir, char *error, size_t size);

// A new model, the caller's to free, all of it requiring grad and with dropout 0; NULL on error. Names may lack the prefix
// `transformer.`; masks among the tensors of old files are passed over; lm_head.weight must equal wte.weight.
// *vocabulary, if not NULL, becomes that of the directory, or empty if there is none that fits: vocabulary_load says why.
Transformer *model_load(const char *dir, Vocabulary *vocabulary, char *error, size_t size);

// Reads DIR/tokenizer.json, which must be of the form that model_save writes: a token is a character, numbered in the order of
// code points, vocab_size in all. On error *vocabulary is empty.
bool vocabulary_load(const char *dir, int vocab_size, Vocabulary *vocabulary, char *error, size_t size);

// Saves an adapter of `model`, which must not be merged (check()). `base_dir` is written down as the place of its base, and
// with the tensors goes the base's fingerprint (transformer_hash), which PEFT passes over.
bool adapter_save(const Transformer *model, const Adapter *adapter, const char *base_dir, const char *dir, char *error,
                  size_t size);

// Attaches an adapter to `model` (not merged: check()) under `name` and makes it the one in use; NULL on error, and the one
// that was in use still is. If the file has a fingerprint that is not the model's it is refused, unless `any_base`. Files by
// PEFT have none. Ranks and scales may differ from layer to layer: they are those of adapter->lora. adapter->config has the
// general ones, and the range of blocks that holds all layers. lora_dropout is a matter of training, and ignored. Regular
// expressions in the configuration (a target_modules string, keys of rank_pattern) are understood if simple.
Adapter *adapter_load(Transformer *model, const char *dir, const char *name, bool any_base, char *error, size_t size);

// The base that an adapter names: base_model_name_or_path, as it stands in its configuration.
bool adapter_base(const char *dir, char *base, size_t base_size, char *error, size_t size);

// All that a training run needs to go on as if it had never stopped, to the bit. Either everything trains (no adapter in use:
// the weights are in the file, too), or the adapter in use does, on a frozen base (then only A and B are in the file, with the
// place and fingerprint of the base).
typedef struct TrainingState {
    Transformer *model;
    AdamW       *optimizer;     // made of model->parameters; its settings, step count and moments are in the file
    Vocabulary   vocabulary;    // may be empty
    long         step;          // iterations done
    uint64_t     seed;          // of batches and dropout, with the step
    char        *data;          // where the text came from, UTF-8, or NULL;
    uint64_t     text_hash;     // ... and a hash that tells whether it is still the same
    int          batch_size;
    Schedule     schedule;
    long         eval_interval; // steps between saves
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
