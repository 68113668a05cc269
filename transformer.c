// transformer.c - see transformer.h. Construction first, then the forward pass, then freezing and counting.
//
// A block is ten lines, one op each. `x = replace(x, op(tape, x))` drops the old value as soon as the new one
// is there, so between two ops only what some node keeps stays in memory. With `tape` NULL the same lines only compute:
// sampling and evaluation use them too.
//
// Every parameter is appended to model->parameters by parameter() or, for adapters, by transformer_add_layers, and nowhere
// else. To freeze is to set flags in that list.
//
// Read next: adapters.h.

#include "transformer.h"

#include <stdlib.h>

const char *const linear_names[LINEARS] = { "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj" };

static const char lists[] = "the model's lists";

int linear_inputs(const Config *config, LinearKind kind) { return config->n_embd * (kind == MLP_C_PROJ ? 4 : 1); }

int linear_outputs(const Config *config, LinearKind kind)
{
    return config->n_embd * (kind == C_ATTN ? 3 : kind == C_FC ? 4 : 1);
}

// ------------------------------------------------------------------------------------------------------------- construction

static bool possible(const Config *c, char *error, size_t size)
{
    if (c->vocab_size < 1 || c->block_size < 1 || c->n_layer < 1 || c->n_head < 1 || c->n_embd < 1)
        return fail(error, size, "vocab_size %d, block_size %d, n_layer %d, n_head %d and n_embd %d must all be at least 1",
                    c->vocab_size, c->block_size, c->n_layer, c->n_head, c->n_embd);
    if (c->n_embd % c->n_head != 0)
        return fail(error, size, "n_embd %d is not a multiple of n_head %d: every head gets an equal share of the width",
                    c->n_embd, c->n_head);
    if (!(c->dropout >= 0 && (real)c->dropout < 1)) return fail(error, size, "dropout %g is not in [0, 1)", c->dropout);
    int64_t largest = c->vocab_size > c->block_size ? c->vocab_size : c->block_size;
    if (c->n_embd > 1 << 16 || c->n_layer > 1 << 12 || largest * c->n_embd > (int64_t)1 << 40)
        return fail(error, size,
                    "n_layer %d, n_embd %d, vocab_size %d, block_size %d: larger than anything this engine was made for",
                    c->n_layer, c->n_embd, c->vocab_size, c->block_size);
    return true;
}

// A new base parameter at the end of the one list: N(0, deviation^2), or all `value` if deviation is 0.
static Tensor *parameter(Transformer *model, uint64_t seed, double deviation, double value, const char *name, int ndim,
                         const int *shape)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, ndim, shape);
    if (deviation > 0) fill_normal(t, deviation, random_bits(seed, (uint64_t)model->parameter_count));
    else for (int64_t i = 0; i < t->size; i++) t->data[i] = (real)value;
    t->requires_grad = true;
    model->parameters[model->parameter_count++] = t;
    return t;
}

static Tensor *norm_parameter(Transformer *model, const char *end, int block, int half, double value)
{
    char name[MAX_NAME];
    snprintf(name, sizeof name, "transformer.h.%d.ln_%d.%s", block, half, end);
    return parameter(model, 0, 0, value, name, SHAPE(model->config.n_embd));
}

static Linear linear_parameters(Transformer *model, uint64_t seed, int block, LinearKind kind)
{
    // what adds to the residual stream starts smaller, so that its variance does not grow with depth (GPT-2)
    bool residual = kind == ATTN_C_PROJ || kind == MLP_C_PROJ;
    double deviation = residual ? 0.02 / sqrt(2.0 * model->config.n_layer) : 0.02;
    int I = linear_inputs(&model->config, kind), O = linear_outputs(&model->config, kind);
    char name[MAX_NAME];
    Linear linear = { 0 };
    snprintf(name, sizeof name, "transformer.h.%d.%s.weight", block, linear_names[kind]);
    linear.weight = parameter(model, seed, deviation, 0, name, SHAPE(I, O));
    snprintf(name, sizeof name, "transformer.h.%d.%s.bias", block, linear_names[kind]);
    linear.bias = parameter(model, seed, 0, 0, name, SHAPE(O));
    return linear;
}

Transformer *transformer_new(Config config, uint64_t seed, char *error, size_t size)
{
    if (!possible(&config, error, size)) return NULL;
    Transformer *model = allocate(1, sizeof *model, lists);
    model->config = config;
    model->parameters = allocate((size_t)(4 + config.n_layer * (4 + 2 * LINEARS)), sizeof *model->parameters, lists);
    model->blocks = allocate((size_t)config.n_layer, sizeof *model->blocks, lists);
    int C = config.n_embd;
    model->wte = parameter(model, seed, 0.02, 0, "transformer.wte.weight", SHAPE(config.vocab_size, C));
    model->wpe = parameter(model, seed, 0.02, 0, "transformer.wpe.weight", SHAPE(config.block_size, C));
    for (int i = 0; i < config.n_layer; i++) { // in the order of GPT-2's state dict
        Block *block = &model->blocks[i];
        block->config = &model->config;
        block->ln_1_weight = norm_parameter(model, "weight", i, 1, 1);
        block->ln_1_bias = norm_parameter(model, "bias", i, 1, 0);
        block->linear[C_ATTN] = linear_parameters(model, seed, i, C_ATTN);
        block->linear[ATTN_C_PROJ] = linear_parameters(model, seed, i, ATTN_C_PROJ);
        block->ln_2_weight = norm_parameter(model, "weight", i, 2, 1);
        block->ln_2_bias = norm_parameter(model, "bias", i, 2, 0);
        block->linear[C_FC] = linear_parameters(model, seed, i, C_FC);
        block->linear[MLP_C_PROJ] = linear_parameters(model, seed, i, MLP_C_PROJ);
    }
    model->ln_f_weight = parameter(model, seed, 0, 1, "transformer.ln_f.weight", SHAPE(C));
    model->ln_f_bias = parameter(model, seed, 0, 0, "transformer.ln_f.bias", SHAPE(C));
    model->base_count = model->parameter_count;
    return model;
}

void adapter_free(Adapter *adapter)
{
    for (int i = 0; i < adapter->count; i++) lora_free(&adapter->lora[i]);
    free(adapter->lora);
    free(adapter);
}

void transformer_free(Transformer *model)
{
    if (model == NULL) return;
    for (int i = 0; i < model->config.n_layer * LINEARS; i++) linear_unmerge(&model->blocks[i / LINEARS].linear[i % LINEARS]);
    while (model->adapters != NULL) {
        Adapter *adapter = model->adapters;
        model->adapters = adapter->next;
        adapter_free(adapter);
    }
    for (int i = 0; i < model->base_count; i++) tensor_drop(model->parameters[i]);
    free(model->blocks);
    free(model->parameters);
    free(model);
}

// ------------------------------------------------------------------------------------------------------------- forward pass

static Tensor *dropout(Tape *tape, const Config *config, Tensor *x)
{
    return tape != NULL && config->dropout > 0 ? replace(x, op_dropout(tape, x, (real)config->dropout)) : x;
}

Tensor *block_begin(Tape *tape, Tensor *x, const Block *block)
{
    Tensor *h = op_layernorm(tape, x, block->ln_1_weight, block->ln_1_bias);
    return replace(h, linear_apply(tape, &block->linear[C_ATTN], h));           // [B,T,3C]
}

Tensor *block_end(Tape *tape, Tensor *x, Tensor *attended, const Block *block)
{
    Tensor *h = replace(attended, linear_apply(tape, &block->linear[ATTN_C_PROJ], attended));
    h = dropout(tape, block->config, h);
    Tensor *y = op_add(tape, x, h);
    h = replace(h, op_layernorm(tape, y, block->ln_2_weight, block->ln_2_bias));
    h = replace(h, linear_apply(tape, &block->linear[C_FC], h));                // [B,T,4C]
    h = replace(h, op_gelu(tape, h));
    h = replace(h, linear_apply(tape, &block->linear[MLP_C_PROJ], h));          // [B,T,C]
    h = dropout(tape, block->config, h);
    y = replace(y, op_add(tape, y, h));
    tensor_drop(h);
    return y;
}

// One block, x [B,T,C] -> [B,T,C]; x stays the caller's.
static Tensor *block_forward(Tape *tape, Tensor *x, void *context)
{
    const Block *block = context;
    Tensor *h = block_begin(tape, x, block);
    h = replace(h, op_attention(tape, h, block->config->n_head));               // [B,T,C]
    return block_end(tape, x, h, block);
}

static Tensor *first_to_train(Tensor *found, Tensor *t) { return found == NULL && t->requires_grad ? t : found; }

// A tensor that the block reads and that requires a gradient, or NULL.
static Tensor *trains_in(const Block *block)
{
    Tensor *const norms[] = { block->ln_1_weight, block->ln_1_bias, block->ln_2_weight, block->ln_2_bias }, *found = NULL;
    for (int i = 0; i < 4; i++) found = first_to_train(found, norms[i]);
    for (int k = 0; k < LINEARS; k++) {
        const Linear *linear = &block->linear[k];
        found = first_to_train(first_to_train(found, linear->weight), linear->bias);
        if (linear->lora != NULL) found = first_to_train(first_to_train(found, linear->lora->A), linear->lora->B);
    }
    return found;
}

Tensor *transformer_logits(const Transformer *model, Tape *tape, const int *ids, int B, int T)
{
    Tensor *x = op_embedding(tape, model->wte, model->wpe, ids, B, T);
    x = dropout(tape, &model->config, x);
    for (int i = 0; i < model->config.n_layer; i++) {
        Block *block = &model->blocks[i];
        x = replace(x, model->recompute ? op_recompute(tape, block_forward, block, x, trains_in(block))
                                        : block_forward(tape, x, block));
    }
    x = replace(x, op_layernorm(tape, x, model->ln_f_weight, model->ln_f_bias)); // [B,T,C]
    return replace(x, op_lm_head(tape, x, model->wte));
}

Tensor *transformer_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T)
{
    Tensor *x = transformer_logits(model, tape, ids, B, T);
    x = replace(x, op_cross_entropy(tape, x, targets)); // [B*T,1]
    return replace(x, op_mean(tape, x));
}

// ------------------------------------------------------------------------------------------------------- freezing and counting

void set_requires_grad(Tensor *t, bool requires_grad)
{
    t->requires_grad = requires_grad;
    if (!requires_grad) tensor_drop_grad(t);
}

void transformer_train_base(Transformer *model, bool requires_grad)
{
    for (int i = 0; i < model->base_count; i++) set_requires_grad(model->parameters[i], requires_grad);
}

void zero_grads(Transformer *model)
{
    for (int i = 0; i < model->parameter_count; i++) tensor_drop_grad(model->parameters[i]);
}

void transformer_hold_base(Transformer *model, BaseType type)
{
    if (type == model->base_type) return;
    if (type != BASE_FLOAT) transformer_hold_base(model, BASE_FLOAT);
    uint64_t fingerprint = model->base_type == BASE_FLOAT ? transformer_fingerprint(model) : 0;
    for (int i = 0; i < model->config.n_layer * LINEARS; i++) {
        Linear *linear = &model->blocks[i / LINEARS].linear[i % LINEARS];
        check(linear->original == NULL, "transformer_hold_base: an adapter is merged into %s", linear->weight->name);
        tensor_unpack(linear->weight);
        if (type == BASE_FLOAT) continue;
        set_requires_grad(linear->weight, false);
        tensor_quantise(linear->weight, type);
    }
    model->base_type = type;
    model->fingerprint = fingerprint;
}

int64_t transformer_linear_bytes(const Transformer *model, BaseType type)
{
    int64_t bytes = 0;
    for (int i = 0; i < model->config.n_layer * LINEARS; i++) {
        const Tensor *W = model->blocks[i / LINEARS].linear[i % LINEARS].weight;
        bytes += type == BASE_NF4  ? (W->size + 1) / 2 + 4 * ((W->size + NF4_BLOCK - 1) / NF4_BLOCK)
               : type == BASE_INT8 ? W->size + 4 * last_dim(W) : W->size * (int64_t)sizeof(real);
    }
    return bytes;
}

uint64_t transformer_hash(const Transformer *model)
{
    uint64_t hash = HASH_START;
    for (int i = 0; i < model->base_count; i++) {
        const Tensor *t = model->parameters[i];
        const Codes *c = t->codes;
        if (c == NULL) hash = hash_bytes(hash, t->data, (size_t)t->size * sizeof(real));
        else hash = hash_bytes(hash, c->scales, (size_t)c->scale_count * sizeof *c->scales + (size_t)c->code_count);
    }
    return hash;
}

// The values as 32-bit numbers, byte by byte, for the double build and a big-endian machine have other bytes.
uint64_t transformer_fingerprint(const Transformer *model)
{
    uint64_t hash = HASH_START;
    if (model->fingerprint != 0) return model->fingerprint;
    for (int i = 0; i < model->base_count; i++)
        for (int64_t j = 0; j < model->parameters[i]->size; j++) {
            real number = 0;
            if (model->parameters[i]->codes) unpack(model->parameters[i]->codes, j, 1, &number, 1);
            else number = model->parameters[i]->data[j];
            float value = (float)number;
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            unsigned char bytes[4] = { bits & 255, bits >> 8 & 255, bits >> 16 & 255, bits >> 24 };
            hash = hash_bytes(hash, bytes, sizeof bytes);
        }
    return hash;
}

int64_t transformer_base_size(const Transformer *model)
{
    int64_t size = 0;
    for (int i = 0; i < model->base_count; i++) size += model->parameters[i]->size;
    return size;
}

int64_t transformer_trainable_size(const Transformer *model)
{
    int64_t size = 0;
    for (int i = 0; i < model->parameter_count; i++)
        if (model->parameters[i]->requires_grad) size += model->parameters[i]->size;
    for (int i = 0; i < model->config.n_layer * LINEARS; i++) { // less what a mask keeps at 0
        const Lora *lora = model->blocks[i / LINEARS].linear[i % LINEARS].lora;
        if (lora != NULL && lora->mask != NULL) size -= lora->A->size + lora->B->size - lora_size(lora);
    }
    return size;
}
