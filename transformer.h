// transformer.h - a GPT-2-shaped language model: configuration, parameters, forward pass, freezing.
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
// Read next: block_begin and block_end in transformer.c, then adapters.h.

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
    BaseType base_type;               // what the base below is held in while it trains: transformer_hold_base, predict_step
    double   dropout;                 // of an adapter made elsewhere: what it was trained with, and cannot be here
} LoraConfig;

// A named set of A's and B's for one base. Several can live beside one base; at most one is in use.
typedef struct Adapter {
    char       name[64];
    LoraConfig config;
    Lora      *lora;      // [count], count = n_layer * LINEARS; A is NULL where there is none
    int        count;
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
    BaseType base_type;                 // how the linear layers' weights are held: as floats or, frozen, in codes
    uint64_t fingerprint;               // of the base before its weights became codes; 0: they are as they came
} Transformer;

// NULL if the configuration is impossible, after one line that says why in `error` (size bytes).
Transformer *transformer_new(Config config, uint64_t seed, char *error, size_t size);
void         transformer_free(Transformer *model);

// ids [B*T] -> logits [B,T,V]; targets [B*T] -> the mean loss in nats per target, [1]. T is at most block_size.
Tensor *transformer_logits(const Transformer *model, Tape *tape, const int *ids, int B, int T);
Tensor *transformer_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T);
// The two halves of a block, up to attention and from it on: x [B,T,C] -> q | k | v [B,T,3C]; x and attended [B,T,C], which it
// takes over, -> [B,T,C].
Tensor *block_begin(Tape *tape, Tensor *x, const Block *block);
Tensor *block_end(Tape *tape, Tensor *x, Tensor *attended, const Block *block);
// The new value takes the old one's place; the old one's memory goes unless a node keeps it.
static inline Tensor *replace(Tensor *old, Tensor *new) { return tensor_drop(old), new; }

// Freezing: sets requires_grad of every base parameter. A gradient that a newly frozen one still has is freed.
void transformer_train_base(Transformer *model, bool requires_grad);

// Holds the weights of the linear layers, not embeddings, norms and biases, as codes of that type from now on, frozen; or makes
// floats of the codes' values. Codes of one type become those of another by way of floats. Nothing may be merged (check()).
void transformer_hold_base(Transformer *model, BaseType type);

// The bytes of the weights of the linear layers, if they are held as that type.
int64_t      transformer_linear_bytes(const Transformer *model, BaseType type);

// Over the base's bytes, in the order of the list: two models with equal hashes have equal weights.
uint64_t transformer_hash(const Transformer *model);
// Over the base's values as files hold them, little-endian 32-bit: the same for every build and machine. Of a base in codes:
// over those of which the codes were made, so that an adapter trained on it fits the one in floats, too.
uint64_t transformer_fingerprint(const Transformer *model);
// Numbers in the base, and in all that requires grad.
int64_t transformer_base_size(const Transformer *model);
int64_t transformer_trainable_size(const Transformer *model);

// Sets the flag; a gradient that a newly frozen tensor still has is freed.
void set_requires_grad(Tensor *t, bool requires_grad);
// Frees the gradients of all parameters.
void zero_grads(Transformer *model);
// Frees an adapter that no model lists any more; adapters.h has the rest.
void adapter_free(Adapter *adapter);

#endif
