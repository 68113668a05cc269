// transformer.c - see transformer.h. Construction first, then the forward pass, then freezing, counting and adapters.
//
// block_forward is the model: ten lines, one op each. `x = replace(x, op(tape, x))` drops the old value as soon as the new one
// is there, so between two ops only what some node keeps stays in memory. With `tape` NULL the same lines only compute:
// sampling and evaluation use them too.
//
// Every parameter is appended to model->parameters by parameter() or by transformer_add_layers, and nowhere else. To freeze is
// to set flags in that list; to switch adapters is to set one pointer in each linear layer.
//
// Read next: adamw.h.

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
    long largest = c->vocab_size > c->block_size ? c->vocab_size : c->block_size;
    if (c->n_embd > 1 << 16 || c->n_layer > 1 << 12 || largest * c->n_embd > 1l << 40)
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
    else for (long i = 0; i < t->size; i++) t->data[i] = (real)value;
    t->requires_grad = true;
    model->parameters[model->parameter_count++] = t;
    return t;
}

Transformer *transformer_new(Config config, uint64_t seed, char *error, size_t size)
{
    if (!possible(&config, error, size)) return NULL;
    Transformer *model = allocate(1, sizeof *model, lists);
    model->config = config;
    model->parameters = allocate((size_t)(4 + config.n_layer * (4 + 2 * LINEARS)), sizeof *model->parameters, lists);
    model->blocks = allocate((size_t)config.n_layer, sizeof *model->blocks, lists);
    int C = config.n_embd;
    char name[64];
    model->wte = parameter(model, seed, 0.02, 0, "transformer.wte.weight", SHAPE(config.vocab_size, C));
    model->wpe = parameter(model, seed, 0.02, 0, "transformer.wpe.weight", SHAPE(config.block_size, C));
    for (int i = 0; i < config.n_layer; i++) {
        Block *block = &model->blocks[i];
        block->config = &model->config;
        for (int half = 1; half <= 2; half++) { // attention, then the two-layer net
            snprintf(name, sizeof name, "transformer.h.%d.ln_%d.weight", i, half);
            *(half == 1 ? &block->ln_1_weight : &block->ln_2_weight) = parameter(model, seed, 0, 1, name, SHAPE(C));
            snprintf(name, sizeof name, "transformer.h.%d.ln_%d.bias", i, half);
            *(half == 1 ? &block->ln_1_bias : &block->ln_2_bias) = parameter(model, seed, 0, 0, name, SHAPE(C));
            for (int k = half == 1 ? C_ATTN : C_FC; k <= (half == 1 ? ATTN_C_PROJ : MLP_C_PROJ); k++) {
                // what adds to the residual stream starts smaller, so that its variance does not grow with depth (GPT-2)
                bool residual = k == ATTN_C_PROJ || k == MLP_C_PROJ;
                double deviation = residual ? 0.02 / sqrt(2.0 * config.n_layer) : 0.02;
                int I = linear_inputs(&config, (LinearKind)k), O = linear_outputs(&config, (LinearKind)k);
                snprintf(name, sizeof name, "transformer.h.%d.%s.weight", i, linear_names[k]);
                block->linear[k].weight = parameter(model, seed, deviation, 0, name, SHAPE(I, O));
                snprintf(name, sizeof name, "transformer.h.%d.%s.bias", i, linear_names[k]);
                block->linear[k].bias = parameter(model, seed, 0, 0, name, SHAPE(O));
            }
        }
    }
    model->ln_f_weight = parameter(model, seed, 0, 1, "transformer.ln_f.weight", SHAPE(C));
    model->ln_f_bias = parameter(model, seed, 0, 0, "transformer.ln_f.bias", SHAPE(C));
    model->base_count = model->parameter_count;
    return model;
}

void transformer_free(Transformer *model)
{
    if (model == NULL) return;
    transformer_unmerge(model);
    while (model->adapters != NULL) transformer_remove_adapter(model, model->adapters);
    for (int i = 0; i < model->base_count; i++) tensor_drop(model->parameters[i]);
    free(model->blocks);
    free(model->parameters);
    free(model);
}

// ------------------------------------------------------------------------------------------------------------- forward pass

// The new value takes the old one's place; the old one's memory goes unless a node keeps it.
static Tensor *replace(Tensor *old, Tensor *new)
{
    tensor_drop(old);
    return new;
}

static Tensor *dropout(Tape *tape, const Config *config, Tensor *x)
{
    return tape != NULL && config->dropout > 0 ? replace(x, op_dropout(tape, x, (real)config->dropout)) : x;
}

// Attention of new rows [1,T,3C] to themselves and to the `count` rows in `past`, to which it adds them.
static Tensor *attention_with_past(Tensor *rows, int heads, real *past, int count)
{
    int T = rows->shape[1], width = last_dim(rows);
    memcpy(past + (long)count * width, rows->data, (size_t)rows->size * sizeof(real));
    Tensor *all = tensor_result("qkv", NULL, SHAPE(1, count + T, width), false);
    memcpy(all->data, past, (size_t)all->size * sizeof(real));
    return replace(all, op_attention_from(all, heads, count));
}

// One block, x [B,T,C] -> [B,T,C]; x stays the caller's. `past`, if not NULL: q, k and v of `count` positions before these.
static Tensor *block_forward(Tape *tape, Tensor *x, const Block *block, real *past, int count)
{
    int heads = block->config->n_head;
    Tensor *h = op_layernorm(tape, x, block->ln_1_weight, block->ln_1_bias);
    h = replace(h, linear_apply(tape, &block->linear[C_ATTN], h));              // [B,T,3C]
    h = replace(h, past ? attention_with_past(h, heads, past, count) : op_attention(tape, h, heads)); // [B,T,C]
    h = replace(h, linear_apply(tape, &block->linear[ATTN_C_PROJ], h));
    Tensor *y = op_add(tape, x, h = dropout(tape, block->config, h));
    h = replace(h, op_layernorm(tape, y, block->ln_2_weight, block->ln_2_bias));
    h = replace(h, linear_apply(tape, &block->linear[C_FC], h));                // [B,T,4C]
    h = replace(h, op_gelu(tape, h));
    h = replace(h, linear_apply(tape, &block->linear[MLP_C_PROJ], h));          // [B,T,C]
    y = replace(y, op_add(tape, y, h = dropout(tape, block->config, h)));
    tensor_drop(h);
    return y;
}

// Whether a tensor that the block reads requires a gradient.
static bool block_trains(const Transformer *model, int index)
{
    const Block *block = &model->blocks[index];
    bool trains = block->ln_1_weight->requires_grad || block->ln_1_bias->requires_grad ||
                  block->ln_2_weight->requires_grad || block->ln_2_bias->requires_grad;
    for (int k = 0; k < LINEARS; k++) {
        const Linear *linear = &block->linear[k];
        trains |= linear->weight->requires_grad || linear->bias->requires_grad;
        trains |= linear->lora != NULL && (linear->lora->A->requires_grad || linear->lora->B->requires_grad);
    }
    return trains;
}

static Tensor *block_again(Tape *tape, Tensor *x, void *block) { return block_forward(tape, x, block, NULL, 0); }

Tensor *transformer_logits(const Transformer *model, Tape *tape, const int *ids, int B, int T)
{
    Tensor *x = op_embedding(tape, model->wte, model->wpe, ids, B, T);
    x = dropout(tape, &model->config, x);
    for (int i = 0; i < model->config.n_layer; i++)
        x = replace(x, model->recompute ? op_recompute(tape, block_again, &model->blocks[i], x, block_trains(model, i))
                                        : block_forward(tape, x, &model->blocks[i], NULL, 0));
    x = replace(x, op_layernorm(tape, x, model->ln_f_weight, model->ln_f_bias)); // [B,T,C]
    return replace(x, op_lm_head(tape, x, model->wte));
}

Tensor *transformer_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T)
{
    Tensor *x = transformer_logits(model, tape, ids, B, T);
    x = replace(x, op_cross_entropy(tape, x, targets)); // [B*T,1]
    return replace(x, op_mean(tape, x));
}

// Points every linear layer at its part of the adapter; NULL: at none.
static void point_at(Transformer *model, const Adapter *adapter)
{
    for (int i = 0; i < model->config.n_layer * LINEARS; i++)
        model->blocks[i / LINEARS].linear[i % LINEARS].lora = adapter && adapter->lora[i].A ? &adapter->lora[i] : NULL;
}

bool transformer_is_merged(const Transformer *model)
{
    for (int i = 0; i < model->config.n_layer; i++)
        for (int k = 0; k < LINEARS; k++)
            if (model->blocks[i].linear[k].original != NULL) return true;
    return false;
}

static void must_not_be_merged(const Transformer *model, const char *function)
{
    check(!transformer_is_merged(model), "%s: %s is merged; unmerge it first", function,
          model->active ? model->active->name : "an adapter");
}

Tensor *transformer_logits_mixed(Transformer *model, const Adapter *const *adapters, const int *ids, int B, int T)
{
    must_not_be_merged(model, "logits_mixed");
    int V = model->config.vocab_size;
    size_t row = (size_t)T * (size_t)V; // of logits
    Tensor *logits = tensor_result("logits", NULL, SHAPE(B, T, V), false);
    int *rows = allocate((size_t)B, sizeof *rows, lists);
    int *their_ids = allocate((size_t)B * (size_t)T, sizeof *their_ids, lists);
    bool *done = allocate((size_t)B, sizeof *done, lists);
    for (int first = 0; first < B; first++) {
        int count = 0;
        for (int b = first; b < B; b++) {
            if (done[b] || adapters[b] != adapters[first]) continue;
            memcpy(their_ids + count * T, ids + b * T, (size_t)T * sizeof *ids);
            rows[count++] = b;
            done[b] = true;
        }
        if (count == 0) continue;
        point_at(model, adapters[first]);
        Tensor *theirs = transformer_logits(model, NULL, their_ids, count, T);
        for (int i = 0; i < count; i++)
            memcpy(logits->data + (size_t)rows[i] * row, theirs->data + (size_t)i * row, row * sizeof(real));
        tensor_drop(theirs);
    }
    point_at(model, model->active);
    free(rows);
    free(their_ids);
    free(done);
    return logits;
}

Cache cache_new(const Transformer *model)
{
    const Config *c = &model->config;
    return (Cache){ 0, tensor_new("past", MEMORY_KEPT_ACTIVATIONS, SHAPE(c->n_layer, c->block_size, 3 * c->n_embd)) };
}

void cache_free(Cache *cache) { tensor_drop(cache->past); }

void transformer_next(const Transformer *model, Cache *cache, const int *ids, int T, real *logits)
{
    int C = model->config.n_embd, count = cache->count;
    long block = last_dim(cache->past) * (long)model->config.block_size; // numbers in `past` for each
    check(T > 0 && count + T <= model->config.block_size, "transformer_next: %d tokens after %d, in a context of %d", T, count,
          model->config.block_size);
    Tensor positions = *model->wpe; // from `count` on: the same numbers, seen from there
    positions.data += (long)count * C;
    positions.shape[0] -= count;
    Tensor *x = op_embedding(NULL, model->wte, &positions, ids, 1, T);
    for (int i = 0; i < model->config.n_layer; i++)
        x = replace(x, block_forward(NULL, x, &model->blocks[i], cache->past->data + i * block, count));
    cache->count += T;
    Tensor *last = tensor_result("last", NULL, SHAPE(1, C), false);
    memcpy(last->data, x->data + (long)(T - 1) * C, (size_t)C * sizeof(real));
    tensor_drop(x);
    last = replace(last, op_layernorm(NULL, last, model->ln_f_weight, model->ln_f_bias));
    last = replace(last, op_lm_head(NULL, last, model->wte));
    memcpy(logits, last->data, (size_t)last->size * sizeof(real));
    tensor_drop(last);
}

int sample_token(real *logits, int V, double temperature, int top_k, uint64_t seed, uint64_t i)
{
    int best = 0;
    for (int v = 1; v < V; v++)
        if (logits[v] > logits[best] || isnan((double)logits[best])) best = v;
    if (temperature <= 0) return best;
    if (top_k > 0 && top_k < V) { // the top_k-th largest is the threshold; ties with it stay
        real threshold = logits[best];
        for (int k = 1, above = 0; k < top_k && above < top_k; k = above + 1) {
            real next = (real)-INFINITY;
            above = 0;
            for (int v = 0; v < V; v++)
                if (logits[v] >= threshold) above++;
                else if (logits[v] > next) next = logits[v];
            if (above < top_k) threshold = next;
        }
        for (int v = 0; v < V; v++)
            if (logits[v] < threshold) logits[v] = (real)-INFINITY;
    }
    double sum = 0, max = (double)logits[best];
    for (int v = 0; v < V; v++) sum += exp(((double)logits[v] - max) / temperature);
    double left = random_uniform(seed, i) * sum;
    for (int v = 0; v < V; v++) {
        left -= exp(((double)logits[v] - max) / temperature);
        if (left < 0) return v;
    }
    return best;
}

// ------------------------------------------------------------------------------------------------------- freezing and counting

static void set_requires_grad(Tensor *t, bool requires_grad)
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

uint64_t transformer_hash(const Transformer *model)
{
    uint64_t hash = HASH_START;
    for (int i = 0; i < model->base_count; i++)
        hash = hash_bytes(hash, model->parameters[i]->data, (size_t)model->parameters[i]->size * sizeof(real));
    return hash;
}

long transformer_base_size(const Transformer *model)
{
    long size = 0;
    for (int i = 0; i < model->base_count; i++) size += model->parameters[i]->size;
    return size;
}

long transformer_trainable_size(const Transformer *model)
{
    long size = 0;
    for (int i = 0; i < model->parameter_count; i++)
        if (model->parameters[i]->requires_grad) size += model->parameters[i]->size;
    for (int i = 0; model->active != NULL && i < model->config.n_layer * LINEARS; i++) { // less what a mask keeps at 0
        const Lora *lora = &model->active->lora[i];
        if (lora->mask != NULL) size -= lora->A->size + lora->B->size - lora_size(lora);
    }
    return size;
}

// ----------------------------------------------------------------------------------------------------------------- adapters

static const char part_names[] = "qkv"; // of C_ATTN, in the order of TARGET_Q, TARGET_K, TARGET_V

unsigned lora_targets(const char *names, const char **bad)
{
    unsigned targets = 0;
    for (const char *word = names; ; ) {
        size_t length = strcspn(word, ",");
        unsigned found = 0;
        for (int k = 0; k < LINEARS; k++) { // a word names a layer if it is the end of its path, as in PEFT
            const char *full = linear_names[k];
            size_t start = strlen(full) - length;
            bool ends_so = length > 0 && length <= strlen(full) && strncmp(full + start, word, length) == 0;
            if (ends_so && (start == 0 || full[start - 1] == '.')) found |= 1u << k;
        }
        const char *part = length == 1 ? strchr(part_names, word[0]) : NULL;
        if (part != NULL) found = (unsigned)TARGET_Q << (part - part_names);
        if (found == 0) { *bad = word; return 0; }
        targets |= found;
        if (word[length] == '\0') return targets;
        word += length + 1;
    }
}

const char *lora_targets_text(unsigned targets)
{
    static char texts[2][64];
    static int turn;
    char *text = texts[turn = !turn];
    text[0] = '\0';
    for (int k = 0; k < LINEARS; k++) {
        if (!(targets & 1u << k)) continue;
        const char *name = k == C_ATTN ? "c_attn" : k == C_FC ? "c_fc" : linear_names[k];
        snprintf(text + strlen(text), sizeof texts[0] - strlen(text), "%s%s", text[0] ? "," : "", name);
    }
    for (int part = 0; part < 3; part++)
        if (targets & (unsigned)TARGET_Q << part)
            snprintf(text + strlen(text), sizeof texts[0] - strlen(text), "%s%c", text[0] ? "," : "", part_names[part]);
    return text;
}

enum { LARGEST_RANK = 1 << 16 };

Adapter *transformer_add_layers(Transformer *model, const char *name, LoraConfig config, const LoraLayer *layers, uint64_t seed,
                                char *error, size_t size)
{
    const Config *c = &model->config;
    int count = c->n_layer * LINEARS, highest = 0;
    must_not_be_merged(model, "add_adapter");
    for (const Adapter *a = model->adapters; a != NULL; a = a->next)
        if (strcmp(a->name, name) == 0) return fail(error, size, "an adapter with the name %s is already attached", name), NULL;
    if (strlen(name) >= sizeof ((Adapter *)0)->name)
        return fail(error, size, "the adapter's name %.20s... has %zu characters; there is room for %zu", name, strlen(name),
                    sizeof ((Adapter *)0)->name - 1), NULL;
    for (int i = 0; i < count; i++) {
        if (layers[i].r > highest) highest = layers[i].r;
        if (!isfinite(layers[i].scale))
            return fail(error, size, "the scale is %g; a finite number is needed", layers[i].scale), NULL;
    }
    if (highest > LARGEST_RANK) return fail(error, size, "r is %d; the largest is %d", highest, LARGEST_RANK), NULL;
    if (highest == 0) return fail(error, size, "the rank is 0 in every block: nothing to attach"), NULL;

    Adapter *adapter = allocate(1, sizeof *adapter, lists);
    snprintf(adapter->name, sizeof adapter->name, "%s", name);
    adapter->config = config;
    adapter->lora = allocate((size_t)count, sizeof *adapter->lora, lists);
    adapter->next = model->adapters;
    model->adapters = adapter;

    size_t most = (size_t)(model->parameter_count + 2 * count);
    model->parameters = reallocate(model->parameters, most, sizeof *model->parameters, lists);
    for (int i = 0; i < count; i++) {
        LinearKind kind = (LinearKind)(i % LINEARS);
        char full[160];
        if (layers[i].r == 0) continue;
        snprintf(full, sizeof full, "%s.h.%d.%s", name, i / LINEARS, linear_names[kind]);
        adapter->lora[i] = lora_new(full, linear_inputs(c, kind), linear_outputs(c, kind), layers[i].r, layers[i].scale,
                                    random_bits(seed, (uint64_t)i));
        if (kind == C_ATTN && config.targets & TARGETS_QKV) lora_restrict(&adapter->lora[i], config.targets >> LINEARS);
        model->parameters[model->parameter_count++] = adapter->lora[i].A;
        model->parameters[model->parameter_count++] = adapter->lora[i].B;
    }
    adapter->config.r_by_block = NULL; // the caller's; the ranks are in lora[] now
    transformer_use_adapter(model, adapter);
    return adapter;
}

Adapter *transformer_add_adapter(Transformer *model, const char *name, LoraConfig config, uint64_t seed, char *error,
                                 size_t size)
{
    const Config *c = &model->config;
    if (config.last_block < 0) config.last_block = c->n_layer - 1;
    if (config.r_by_block == NULL && config.r < 1) return fail(error, size, "r is %d; a rank is at least 1", config.r), NULL;
    if (!isfinite(config.alpha)) return fail(error, size, "alpha is %g; a finite number is needed", config.alpha), NULL;
    if (config.targets == 0 || config.targets >> (LINEARS + 3)) return fail(error, size, "no layer to attach to"), NULL;
    if (config.targets & 1u << C_ATTN && config.targets & TARGETS_QKV)
        return fail(error, size, "the targets %s: c_attn is q, k and v in one, so it is either c_attn or parts of it",
                    lora_targets_text(config.targets)), NULL;
    if (config.first_block < 0 || config.first_block > config.last_block || config.last_block >= c->n_layer)
        return fail(error, size, "blocks %d to %d: the model has blocks 0 to %d", config.first_block, config.last_block,
                    c->n_layer - 1), NULL;
    LoraLayer *layers = allocate((size_t)c->n_layer * LINEARS, sizeof *layers, lists);
    bool good = true;
    for (int i = config.first_block; i <= config.last_block && good; i++) {
        int r = config.r_by_block ? config.r_by_block[i] : config.r;
        good = r >= 0 || fail(error, size, "r of block %d is %d", i, r);
        // task L2.2 (4 points): the scale
        double scale = config.alpha / (config.rank_stabilized ? sqrt((double)r) : (double)r);
        // end task
        for (int k = 0; k < LINEARS && r > 0; k++)
            if (config.targets & 1u << k) layers[i * LINEARS + k] = (LoraLayer){ r, scale };
        for (unsigned part = TARGET_Q; part <= TARGET_V && r > 0; part *= 2)
            if (config.targets & part) layers[i * LINEARS + C_ATTN] = (LoraLayer){ layers[i * LINEARS + C_ATTN].r + r, scale };
    }
    Adapter *adapter = good ? transformer_add_layers(model, name, config, layers, seed, error, size) : NULL;
    free(layers);
    return adapter;
}

void transformer_use_adapter(Transformer *model, Adapter *adapter)
{
    must_not_be_merged(model, "use_adapter");
    model->active = adapter;
    point_at(model, adapter);
    for (int i = model->base_count; i < model->parameter_count; i++) set_requires_grad(model->parameters[i], false);
    for (int i = 0; adapter != NULL && i < model->config.n_layer * LINEARS; i++) {
        if (adapter->lora[i].A == NULL) continue;
        adapter->lora[i].A->requires_grad = !adapter->config.freeze_A;
        adapter->lora[i].B->requires_grad = true;
    }
}

void transformer_remove_adapter(Transformer *model, Adapter *adapter)
{
    must_not_be_merged(model, "remove_adapter");
    if (model->active == adapter) transformer_use_adapter(model, NULL);
    for (Adapter **link = &model->adapters; *link != NULL; link = &(*link)->next)
        if (*link == adapter) { *link = adapter->next; break; }
    for (int i = 0; i < model->config.n_layer * LINEARS; i++) {
        Lora *lora = &adapter->lora[i];
        if (lora->A == NULL) continue;
        int kept = model->base_count;
        for (int p = model->base_count; p < model->parameter_count; p++)
            if (model->parameters[p] != lora->A && model->parameters[p] != lora->B)
                model->parameters[kept++] = model->parameters[p];
        model->parameter_count = kept;
        lora_free(lora);
    }
    free(adapter->lora);
    free(adapter);
}

static void each_linear(Transformer *model, void (*action)(Linear *linear))
{
    for (int i = 0; i < model->config.n_layer; i++)
        for (int k = 0; k < LINEARS; k++) action(&model->blocks[i].linear[k]);
}

void transformer_merge(Transformer *model) { each_linear(model, linear_merge); }
void transformer_unmerge(Transformer *model) { each_linear(model, linear_unmerge); }

void transformer_forget_original(Transformer *model)
{
    if (!transformer_is_merged(model)) return;
    each_linear(model, linear_forget_original);
    transformer_remove_adapter(model, model->active);
}

long adapter_size(const Adapter *adapter, const Config *config)
{
    long size = 0;
    for (int i = 0; i < config->n_layer * LINEARS; i++)
        if (adapter->lora[i].A != NULL) size += lora_size(&adapter->lora[i]);
    return size;
}
