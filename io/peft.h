// peft.h - adapter_config.json, as PEFT writes and reads it: which layers get an adapter, of which rank and scale.
//
// PEFT names layers by lists of names or by a regular expression, and gives exceptions from the general rank and alpha by
// patterns. Here all that becomes an AdapterPlan: one rank and one scale for each linear layer of the model. adapter_file.c
// builds the adapter from the plan and reads its numbers; what PEFT can say and this engine cannot compute is refused by name.
//
//     AdapterPlan plan;
//     if (!peft_parse_config(json, &model->config, &plan, error, sizeof error)) ...
//     free(plan.layers);

#ifndef PEFT_H
#define PEFT_H

#include "io/json.h"
#include "adapters.h"

enum { PEFT_LARGEST_RANK = 1 << 16 };

// What a configuration comes to for one model. `config` has the general values: a rank and an alpha, which most layers share.
typedef struct AdapterPlan {
    LoraConfig config;
    LoraLayer *layers;       // [n_layer][LINEARS]; owned: free
} AdapterPlan;

// The plan of an adapter that is in memory.
AdapterPlan peft_plan(const Adapter *adapter, const Config *model);

// Writes PEFT's configuration of the plan: these layers, ranks and scales, and no others.
void peft_put_config(FILE *out, const Config *model, const AdapterPlan *plan, const char *base_dir);

// Reads one: which layers of the model PEFT would give an adapter, with its rules for target_modules, layers_to_transform,
// rank_pattern and alpha_pattern. Every key is read, or known to have no effect, or empty. False after one line in `error`, with
// nothing to free, if a key is wrong, names no layer, asks for what this engine does not compute, or is not known and not empty;
// so is what PEFT itself refuses. Regular expressions are understood if simple.
bool peft_parse_config(const Json *json, const Config *model, AdapterPlan *plan, char *error, size_t size);

// Whether a regular expression of Python's matches the whole name (of less than 64 characters), or with `suffix` what comes
// after some dot of it. False after one line in `error` if it is not one of the simple ones: ASCII characters, ., [a-z], [^a-z],
// \., \d, \w, ^, $, (...), (?:...), a|b, a*, a+, a?, with parentheses in each other up to three deep. The time has a bound,
// whatever it says.
bool peft_match(const char *pattern, bool suffix, const char *name, bool *matches, char *error, size_t size);

#endif
