// adapter_file.h - an adapter as a directory that Hugging Face PEFT opens without conversion; theirs open here.
//
//     DIR/adapter_config.json  adapter_model.safetensors                                  PeftModel.from_pretrained(base, DIR)
//
// The configuration, with PEFT's rules for it, is peft.h's. Saves, errors and types of numbers are as for models
// (model_file.h): all files or none, and no half-attached adapter. What the engine does not compute (DoRA, ...) is refused.

#ifndef ADAPTER_FILE_H
#define ADAPTER_FILE_H

#include "save.h"
#include "adapters.h"

// Saves an adapter of `model`, which must not be merged (check()). `base_dir` is written down as the place of its base, and
// with the tensors goes the base's fingerprint (transformer_fingerprint) and, if that is not float, the type of its weights while
// the adapter trained (adapter->config.base_type), both of which PEFT passes over.
bool adapter_save(const Transformer *model, const Adapter *adapter, const char *base_dir, const char *dir, char *error,
                  size_t size);

// Attaches an adapter to `model` (not merged: check()) under `name` and makes it the one in use; NULL on error, and the one
// that was in use still is. If the file has a fingerprint that is not the model's it is refused, unless `any_base`. Files by
// PEFT have none. Ranks and scales may differ from layer to layer: they are those of adapter->lora. adapter->config has the
// general ones, and the range of blocks that holds all layers. lora_dropout is a matter of training, and ignored. Regular
// expressions in the configuration (a target_modules string, keys of rank_pattern) are understood if simple.
Adapter *adapter_load(Transformer *model, const char *dir, const char *name, bool any_base, char *error, size_t size);

// The base that an adapter names: base_model_name_or_path. If it is a relative path, it is one from where the adapter was
// trained: it is looked for from here, then from the adapter's own directory and from those above it. Where it is not, its name
// comes back as it stands.
bool adapter_base(const char *dir, char *base, size_t base_size, char *error, size_t size);

// Whether an adapter can name `base_dir` as its base; else, before anything was done, a line says why.
bool adapter_can_name(const char *base_dir, char *error, size_t size);

// ------------------------------------------------------------------------------------------ the parts, for a training state

#define FINGERPRINT "base_fingerprint" // their keys in metadata
#define BASE_TYPE   "base_type"

// Adds the files of adapter_save to a save.
bool adapter_add_files(Save *save, const Transformer *model, const Adapter *adapter, const char *base_dir);

// The fingerprint of a model's base, in hexadecimal.
typedef struct Fingerprint { char text[20]; } Fingerprint;
Fingerprint fingerprint_of(const Transformer *model);

// Whether `fingerprint`, which the file at `path` has, is the model's, or NULL; else false, after one line that ends in `hint`.
bool fingerprint_fits(const Transformer *model, const char *fingerprint, const char *path, const char *hint, char *error,
                      size_t size);

#endif
