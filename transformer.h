// transformer.h - a GPT-2-shaped language model: configuration, parameters, forward pass, freezing, adapters.
//
//     Transformer *model = transformer_new(config, seed, error, sizeof error);
//     Tensor *loss = transformer_loss(model, tape, ids, targets, B, T);
//     backward(tape, loss);
//
// x = wte[ids] + wpe; for each block: x += c_proj(attention(c_attn(ln_1(x)))), x += c_proj(gelu(c_fc(ln_2(x))));
// logits = ln_f(x) wte^T. Names, shapes and orientation are those of GPT-2 in Hugging Face transformers.
//
// model->parameters is the ONE list of tensors: base first, adapters after. Counting, freezing, saving and the optimizer use
// it.
//
// Read next: block_forward in transformer.c, then adamw.h.

#ifndef TRANSFORMER_H
#define TRANSFORMER_H

#include "lora.h"

typedef struct Config {
    int vocab_size, block_size, n_layer, n_head, n_embd; // V, longest T, blocks, H, C
    double dropout; // after the embedding and before each residual addition, in training only
} Config;

// The four linear layers of a block, in the order in which a step meets them.
typedef enum LinearKind { C_ATTN, ATTN_C_PROJ, C_FC, MLP_C_PROJ, LINEARS } LinearKind;
extern const char *const linear_names[LINEARS];  // "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"
int linear_inputs(const Config *config, LinearKind kind);
int linear_outputs(const Config *config, LinearKind kind);

typedef struct Block {
    Tensor *ln_1_weight, *ln_1_bias, *ln_2_weight, *ln_2_bias; // [C]
    Linear  linear[LINEARS];
    const Config *config;
} Block;

// Parts of C_ATTN, which can be adapted alone: bits of LoraConfig.targets.
enum { TARGET_Q = 1 << LINEARS, TARGET_K = 2 << LINEARS, TARGET_V = 4 << LINEARS, TARGETS_QKV = 7 << LINEARS };

// What an adapter is attached to, and how.
typedef struct LoraConfig {
    int      r;                       // rank; of q, k and v each, if they are adapted alone (lora_restrict)
    double   alpha;                   // scale = alpha / r
    unsigned targets;                 // bit 1 << LinearKind for each layer that gets one; for C_ATTN also some of TARGETS_QKV
    int      first_block, last_block; // blocks first..last, both included; last_block < 0: up to the top
    const int *r_by_block;            // NULL, or a rank for each block that replaces r (0: none there)
    bool     rank_stabilized;         // scale = alpha / sqrt(r) instead
    bool     freeze_A;                // train B alone
    double   dropout;                 // of an adapter made elsewhere: what it was trained with, and cannot be here
} LoraConfig;

// Rank and scale of an adapter on one linear layer; r 0: none there.
typedef struct LoraLayer { int r; double scale; } LoraLayer;

// Reads "c_attn,mlp.c_proj" or "q,v" into a set of bits; `c_proj` alone means both, as in PEFT. Returns 0 if a name is unknown
// or none is there, and points *bad at the offending word.
unsigned    lora_targets(const char *names, const char **bad);
// The reverse, into one of two buffers used in turn.
const char *lora_targets_text(unsigned targets);

// A named set of A's and B's for one base. Several can live beside one base; at most one is in use.
typedef struct Adapter {
    char       name[64];
    LoraConfig config;
    Lora      *lora;      // [n_layer][LINEARS]; A is NULL where there is none
    struct Adapter *next; // in the model's list
} Adapter;

typedef struct Transformer {
    Config   config;
    Tensor  *wte, *wpe;                 // [V,C] token embedding and, tied, output head; [block_size,C] position embedding
    Block   *blocks;                    // [n_layer]
    Tensor  *ln_f_weight, *ln_f_bias;   // [C]
    Tensor **parameters;                // every tensor above in the order of GPT-2's state dict, then the adapters' A and B
    int      parameter_count, base_count;
    Adapter *adapters, *active;         // all that are attached (newest first), and the one in use or NULL
    bool     recompute;                 // keep only each block's input, and run the block again in backward
} Transformer;

// NULL if the configuration is impossible, after one line that says why in `error` (size bytes).
Transformer *transformer_new(Config config, uint64_t seed, char *error, size_t size);
void         transformer_free(Transformer *model);

// ids [B*T] -> logits [B,T,V]; targets [B*T] -> the mean loss in nats per target, [1]. T is at most block_size.
Tensor *transformer_logits(const Transformer *model, Tape *tape, const int *ids, int B, int T);
Tensor *transformer_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T);
// Each row b with an adapter of its own, adapters[b] (NULL: the base alone), whatever is in use: ids [B*T] -> logits [B,T,V],
// without a tape. The rows that share an adapter run together, in one pass of the ordinary forward for each adapter: so a row
// gets the bits that it would get alone, and nothing has to be known about adapters anywhere else. Nothing may be merged
// (check()).
Tensor *transformer_logits_mixed(Transformer *model, const Adapter *const *adapters, const int *ids, int B, int T);
// What a model remembers of the tokens that it has read one after the other (the KV cache): q, k and v of each in every block.
// With it, a token more costs one row of work instead of the whole context again. It is for one model with one adapter.
typedef struct Cache { int count; Tensor *past; } Cache; // tokens read, at most block_size; [n_layer,block_size,3C]
Cache   cache_new(const Transformer *model); // the caller's, until cache_free; count = 0 empties it
void    cache_free(Cache *cache);
// Reads ids[0..T-1] after what is in the cache, to which it adds them, and writes the logits of what follows to logits[V]: the
// bits that transformer_logits of all of them has in its last row. There must be room for T more (check()).
void    transformer_next(const Transformer *model, Cache *cache, const int *ids, int T, real *logits);
// Draws one token: logits / temperature, the top_k largest only (0: all), by the i-th number of the seed. Temperature 0: the
// largest. Changes logits.
int     sample_token(real *logits, int V, double temperature, int top_k, uint64_t seed, uint64_t i);

// Freezing: sets requires_grad of every base parameter. A gradient that a newly frozen one still has is freed.
void transformer_train_base(Transformer *model, bool requires_grad);

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

// Over the base's bytes, in the order of the list: two models with equal hashes have equal weights.
uint64_t transformer_hash(const Transformer *model);
// Numbers in the base, in all that requires grad, in one adapter.
long transformer_base_size(const Transformer *model);
long transformer_trainable_size(const Transformer *model);
long adapter_size(const Adapter *adapter, const Config *config);

// Frees the gradients of all parameters.
void zero_grads(Transformer *model);

#endif
