// model_file.h - a model as a directory that Hugging Face transformers opens without conversion; theirs open here.
//
//     DIR/config.json  tokenizer.json  tokenizer_config.json  model.safetensors           GPT2LMHeadModel.from_pretrained(DIR)
//     DIR/generation_config.json                                                          where the model that it came from had one
//
// The files of one save are written beside their targets and take their places together when all of them are on the disk
// (save.h): no room, no change. A crash, at any moment, leaves the files of the old save or of the new. A model's tensors never
// stand beside another configuration or vocabulary than their own: where that changes, the old tensors are removed first.
//
// Functions that can fail leave one line in `error` (size bytes), and then nothing has changed in memory. What the engine does
// not compute (another activation, an untied head, ...) is refused, never ignored: a key of config.json or tokenizer.json is read,
// or known to have no effect here, or empty (null, false, "", [], {}). Sizes in a configuration are held against
// the tensors in the file before memory is asked for. NaN and infinity are numbers like others.
//
// Tensors in several files are read by way of model.safetensors.index.json; they are written into one.
//
// Numbers are written in the build's own type, F32, or F64 with REAL=double, unless Settings say another. F16, BF16, F32 and F64
// are read.
//
// A base in codes (quantise.h) is saved in codes: config.json and the tensors' metadata say of which type, and slots.h how a
// weight is stored. Nobody else can read that; transformers would take random numbers in the place of what it does not find,
// but refuses a "quantization_config" that names no "quant_method" it could look for. Loading makes the floats of the whole model
// for a moment, so codes save memory only after it.

#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include "json.h"
#include "safetensors.h"
#include "save.h"
#include "text.h"
#include "adapters.h"

// Saves the base as it is in memory (with an adapter that is merged into it, without one that is not). Makes `dir`, and the
// directories above it, if they are missing. `vocabulary` NULL or empty: no tokenizer is written, one that is there stays. Its
// size must be at most the model's vocab_size (check()). Dropout is a matter of training, and is written as 0.
bool model_save(const Transformer *model, const Vocabulary *vocabulary, const char *dir, char *error, size_t size);

// What a model's files say besides, which belongs to whoever trained it: ids of special tokens, dropouts, how text is drawn. A
// model that is made from another keeps it.
typedef struct Settings {
    char *config, *generation; // config.json and generation_config.json, as JSON; NULL: none; owned
    SafetensorsDtype dtype;    // that numbers are written in: F16, BF16, F32, F64; 0: the build's own
} Settings;

// Those of a directory, dtype 0. On error *settings is empty.
bool settings_load(const char *dir, Settings *settings, char *error, size_t size);
void settings_free(Settings *settings);

// The same as model_save, with everything of the settings that the model itself does not decide. (NULL: as model_save.)
bool model_save_with(const Transformer *model, const Vocabulary *vocabulary, const Settings *settings, const char *dir,
                     char *error, size_t size);

// The type of a model's numbers on the disk; 0: they are of several.
bool        model_dtype(const char *dir, SafetensorsDtype *dtype, char *error, size_t size);
const char *model_dtype_name(SafetensorsDtype dtype); // "bfloat16", as in config.json

// A new model, the caller's to free, all of it requiring grad but for weights in codes, and with dropout 0; NULL on error. Names
// may lack the prefix `transformer.`; masks among the tensors of old files are passed over; lm_head.weight must equal wte.weight.
// *vocabulary, if not NULL, becomes that of the directory, or empty if there is none that fits: vocabulary_load says why.
Transformer *model_load(const char *dir, Vocabulary *vocabulary, char *error, size_t size);

// Holds a model that was loaded from `dir` as `type` from now on (transformer_hold_base), all of what is floats requiring grad
// still. False: it is stored in codes of another type, which would round it twice; one line says so.
bool model_hold(Transformer *model, BaseType type, const char *dir, char *error, size_t size);

// Reads DIR/tokenizer.json, which must be of the form that model_save writes: a token is a character, numbered in the order of
// code points, at most vocab_size in all: a model may have more rows, which no text means. On error *vocabulary is empty.
bool vocabulary_load(const char *dir, int vocab_size, Vocabulary *vocabulary, char *error, size_t size);

// The bytes of the base's weights.
double weight_bytes(const Config *config);

// ------------------------------------------------------------------------------------------ the parts, for a training state

enum { MODEL_LARGEST_TABLE = 1 << 28 }; // characters or positions; the transformer's own limit is about the same

// Adds the files of model_save_with to a save.
bool model_add_files(Save *save, const Transformer *model, const Vocabulary *vocabulary, const Settings *settings);

// config.json and tokenizer.json as JSON: written, and taken from a tree, which may be NULL. On error nothing is to be freed. The
// type is that of the linear layers' weights; NULL: it must be float.
void model_put_config(FILE *out, const Config *config, BaseType type, const Settings *settings);
Settings settings_of(const Json *config, const Json *generation); // either may be NULL
bool model_parse_config(const Json *json, Config *config, BaseType *type, char *error, size_t size);
void vocabulary_put(FILE *out, const Vocabulary *vocabulary);
bool vocabulary_parse(const Json *json, int vocab_size, Vocabulary *vocabulary, char *error, size_t size);

#endif
