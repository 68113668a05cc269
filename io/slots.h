// slots.h - the tensors of a file by name: one list for saving and for loading.
//
// A Slot is one tensor in a file and where its numbers are in memory:
//
//     save:  list the slots, point them at memory, write
//     load:  list the slots, match them with the file (nothing has been believed or allocated so far), build, point, read
//
//     Slots slots = { 0 };
//     slots_list_base(&slots, &model->config, model->base_type);
//     slots_point_at_base(&slots, model);
//     bool good = slots_save(save, "model.safetensors", MODEL_PREFIX, &slots, &metadata, 1);
//     free(slots.list);
//
// Names, shapes and orientation in the file are those of GPT-2 in transformers, and of PEFT: A and B are transposed there.
// Numbers are written in the build's own type, REAL_DTYPE, or in Slots.stored; F16, BF16, F32 and F64 are read. A weight in codes
// (quantise.h) has two tensors in the place of one, which are in every build's files the same:
//
//     NAME.weight.codes     nf4: U8 [(I O + 1) / 2], two numbers each, the first one in the high half    int8: I8 [I,O]
//     NAME.weight.scales    nf4: F32 [(I O + 63) / 64], of each 64 numbers in a row                      int8: F32 [O], of each column
//
// Without memory: exit status 1.

#ifndef SLOTS_H
#define SLOTS_H

#include "adamw.h"
#include "peft.h"
#include "safetensors.h"
#include "save.h"
#include "adapters.h"

#define REAL_DTYPE (sizeof(real) == sizeof(double) ? SAFETENSORS_F64 : SAFETENSORS_F32)
#define MODEL_PREFIX   "transformer."                  // of a name in the files of transformers
#define ADAPTER_PREFIX "base_model.model.transformer." // ... of PEFT

typedef struct Slot {
    char    name[80];              // in the file, without prefix: "h.0.attn.c_attn.weight"
    int     ndim, shape[2];        // in the file
    SafetensorsDtype as;           // of codes: what file and memory hold, U8, I8 or F32; 0: numbers, which memory has as reals
    bool    transposed;            // in memory it is the other way round
    bool    trains;
    int     moment, of;            // 1: m, 2: v of the tensor of slot `of`; 0: the tensor itself
    Tensor *tensor;
    void   *data;                  // in memory
    const Safetensors      *file;  // that it was matched with
    const SafetensorsEntry *entry; // ... in there
} Slot;

// Begins as { 0 }, or with the type that slots_save writes, if it is not REAL_DTYPE; free(slots.list) ends it.
typedef struct Slots { Slot *list; int count, room; SafetensorsDtype stored; } Slots;

// Append to the list: the tensors of a model, in the order of its parameter list; A and B of each layer of an adapter; the two
// moments of everything that is in the list so far and trains.
void slots_list_base(Slots *slots, const Config *config, BaseType type); // type: of the linear layers' weights
void slots_list_adapter(Slots *slots, const Config *config, const AdapterPlan *plan);
void slots_list_moments(Slots *slots);

// Point at memory what the function of the same name listed, first of all. Moments come after the tensors that they belong to;
// those that the optimizer lacks are made if `make`.
void slots_point_at_base(Slots *slots, const Transformer *model);
void slots_point_at_adapter(Slots *slots, const Adapter *adapter, const Config *config);
void slots_point_at_moments(Slots *slots, AdamW *optimizer, bool make);

// Adds a file of all slots to a save, each under `prefix` and its name, with metadata[pairs].
bool slots_save(Save *save, const char *file, const char *prefix, const Slots *slots, const SafetensorsMetadata *metadata,
                size_t pairs);

// Opens DIR/NAME; on error, which leaves one line in `error`, *file is NULL. Where there is DIR/NAME.index.json in its place, all
// files that this names are opened, one behind the other (file->next). Where the tensors are in a file of another kind, the line
// says in which, and how to convert it.
bool slots_open(const char *dir, const char *name, Safetensors **file, char *error, size_t size);

// Finds every slot's tensor in the file, or files. They must hold these and no others, each once, with the prefixes above or
// without, but for what a model file may have besides: old masks, and an output head. False: `error` lists what is missing,
// unknown or of another shape. The entries belong to the files, which must stay open until slots_read.
bool slots_match(const Safetensors *file, Slots *slots, bool model_file, char *error, size_t size);

// Reads all that was matched to where it was pointed. On error a part may have been read.
bool slots_read(const Safetensors *file, const Slots *slots, char *error, size_t size);

// The part of `name` behind what transformers and PEFT put before it.
const char *bare_name(const char *name);

#endif
