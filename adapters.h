// adapters.h - adapters on a model: which layers, attach, switch, merge, several in one batch.
//
//     LoraConfig config = { .r = 8, .alpha = 16, .targets = 1u << C_ATTN, .last_block = -1 };
//     transformer_train_base(model, false);
//     Adapter *adapter = transformer_add_adapter(model, "pirate", config, seed, error, sizeof error);
//
// Several can live beside one base; at most one is in use. To switch is to set one pointer in each linear layer.
//
// Read next: adamw.h.

#ifndef ADAPTERS_H
#define ADAPTERS_H

#include "transformer.h"

// Reads "c_attn,mlp.c_proj" or "q,v" into a set of bits; `c_proj` alone means both, as in PEFT. Returns 0 if a name is unknown
// or none is there, and points *bad at the offending word.
unsigned    lora_targets(const char *names, const char **bad);
// The reverse, into one of two buffers used in turn.
const char *lora_targets_text(unsigned targets);

// Rank and scale of an adapter on one linear layer; r 0: none there.
typedef struct LoraLayer { int r; double scale; } LoraLayer;

// Attaches a fresh adapter and makes it the one in use. The base is left as it is: freeze it with transformer_train_base.
// A name that exists, a rank below 1 or a range without block returns NULL, after one line in `error`.
Adapter *transformer_add_adapter(Transformer *model, const char *name, LoraConfig config, uint64_t seed, char *error,
                                 size_t size);
// The same with any rank and scale for each layer, layers[n_layer][LINEARS]; r, alpha and r_by_block of `config` do not count.
Adapter *transformer_add_layers(Transformer *model, const char *name, LoraConfig config, const LoraLayer *layers, uint64_t seed,
                                char *error, size_t size);
// Makes `adapter` the one in use (NULL: the base alone) by changing pointers; only the one in use requires grad.
void transformer_use_adapter(Transformer *model, Adapter *adapter);
// Detaches and frees; if it was in use, the base runs alone afterwards.
void transformer_remove_adapter(Transformer *model, Adapter *adapter);
// The adapter in use, folded into the weights and out again (lora.h). Use and remove change nothing while it is merged: unmerge
// first.
void transformer_merge(Transformer *model);
void transformer_unmerge(Transformer *model);
bool transformer_is_merged(const Transformer *model); // whether one is folded in now
// While merged: frees the original weights, so that the merged ones are the base from now on, and removes the adapter, which
// would otherwise be applied twice. Not merged: does nothing.
void transformer_forget_original(Transformer *model);

// Each row b with an adapter of its own, adapters[b] (NULL: the base alone), whatever is in use: ids [B*T] -> logits [B,T,V],
// without a tape. The rows that share an adapter run together, in one pass of the ordinary forward for each adapter: so a row
// gets the bits that it would get alone, and nothing has to be known about adapters anywhere else. Nothing may be merged
// (check()).
Tensor *transformer_logits_mixed(Transformer *model, const Adapter *const *adapters, const int *ids, int B, int T);
// Numbers that it may learn.
int64_t adapter_size(const Adapter *adapter);

#endif
