// adapters.c - see adapters.h. Targets in words, then attaching, switching and merging, then several in one batch.
//
// Read next: adamw.h.

#include "adapters.h"

#include <stdlib.h>

static const char lists[] = "the adapter's lists";

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

enum { LARGEST_RANK = 1 << 16 };

static bool can_attach(const Transformer *model, const char *name, const LoraLayer *layers, char *error, size_t size)
{
    int highest = 0;
    for (const Adapter *a = model->adapters; a != NULL; a = a->next)
        if (strcmp(a->name, name) == 0) return fail(error, size, "an adapter with the name %s is already attached", name);
    if (strlen(name) >= sizeof ((Adapter *)0)->name)
        return fail(error, size, "the adapter's name %.20s... has %zu characters; there is room for %zu", name, strlen(name),
                    sizeof ((Adapter *)0)->name - 1);
    for (int i = 0; i < model->config.n_layer * LINEARS; i++) {
        if (layers[i].r > highest) highest = layers[i].r;
        if (!isfinite(layers[i].scale)) return fail(error, size, "the scale is %g; a finite number is needed", layers[i].scale);
    }
    if (highest > LARGEST_RANK) return fail(error, size, "r is %d; the largest is %d", highest, LARGEST_RANK);
    return highest > 0 || fail(error, size, "the rank is 0 in every block: nothing to attach");
}

Adapter *transformer_add_layers(Transformer *model, const char *name, LoraConfig config, const LoraLayer *layers, uint64_t seed,
                                char *error, size_t size)
{
    const Config *c = &model->config;
    must_not_be_merged(model, "add_adapter");
    if (!can_attach(model, name, layers, error, size)) return NULL;

    Adapter *adapter = allocate(1, sizeof *adapter, lists);
    snprintf(adapter->name, sizeof adapter->name, "%s", name);
    adapter->config = config;
    adapter->count = c->n_layer * LINEARS;
    adapter->lora = allocate((size_t)adapter->count, sizeof *adapter->lora, lists);
    adapter->next = model->adapters;
    model->adapters = adapter;

    size_t most = (size_t)(model->parameter_count + 2 * adapter->count);
    model->parameters = reallocate(model->parameters, most, sizeof *model->parameters, lists);
    for (int i = 0; i < adapter->count; i++) {
        LinearKind kind = (LinearKind)(i % LINEARS);
        char full[MAX_NAME];
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

static bool possible(const LoraConfig *config, const Config *c, char *error, size_t size)
{
    if (config->r_by_block == NULL && config->r < 1) return fail(error, size, "r is %d; a rank is at least 1", config->r);
    if (!isfinite(config->alpha)) return fail(error, size, "alpha is %g; a finite number is needed", config->alpha);
    if (config->targets == 0 || config->targets >> (LINEARS + 3)) return fail(error, size, "no layer to attach to");
    if (config->targets & 1u << C_ATTN && config->targets & TARGETS_QKV)
        return fail(error, size, "the targets %s: c_attn is q, k and v in one, so it is either c_attn or parts of it",
                    lora_targets_text(config->targets));
    if (config->first_block < 0 || config->first_block > config->last_block || config->last_block >= c->n_layer)
        return fail(error, size, "blocks %d to %d: the model has blocks 0 to %d", config->first_block, config->last_block,
                    c->n_layer - 1);
    for (int i = config->first_block; i <= config->last_block; i++)
        if (config->r_by_block != NULL && config->r_by_block[i] < 0)
            return fail(error, size, "r of block %d is %d", i, config->r_by_block[i]);
    return true;
}

Adapter *transformer_add_adapter(Transformer *model, const char *name, LoraConfig config, uint64_t seed, char *error,
                                 size_t size)
{
    if (config.last_block < 0) config.last_block = model->config.n_layer - 1;
    if (!possible(&config, &model->config, error, size)) return NULL;
    LoraLayer *layers = allocate((size_t)model->config.n_layer * LINEARS, sizeof *layers, lists);
    for (int i = config.first_block; i <= config.last_block; i++) {
        int r = config.r_by_block ? config.r_by_block[i] : config.r;
        LoraLayer layer = { r, lora_scale(config.alpha, r, config.rank_stabilized) };
        for (int k = 0; k < LINEARS && r > 0; k++)
            if (config.targets & 1u << k) layers[i * LINEARS + k] = layer;
        for (unsigned part = TARGET_Q; part <= TARGET_V && r > 0; part *= 2)
            if (config.targets & part)
                layers[i * LINEARS + C_ATTN] = (LoraLayer){ layers[i * LINEARS + C_ATTN].r + r, layer.scale };
    }
    Adapter *adapter = transformer_add_layers(model, name, config, layers, seed, error, size);
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

// Takes the tensor out of the model's list.
static void unlist(Transformer *model, const Tensor *t)
{
    int kept = model->base_count;
    for (int p = model->base_count; p < model->parameter_count; p++)
        if (model->parameters[p] != t) model->parameters[kept++] = model->parameters[p];
    model->parameter_count = kept;
}

void transformer_remove_adapter(Transformer *model, Adapter *adapter)
{
    must_not_be_merged(model, "remove_adapter");
    if (model->active == adapter) transformer_use_adapter(model, NULL);
    for (Adapter **link = &model->adapters; *link != NULL; link = &(*link)->next)
        if (*link == adapter) { *link = adapter->next; break; }
    for (int i = 0; i < adapter->count; i++) {
        if (adapter->lora[i].A == NULL) continue;
        unlist(model, adapter->lora[i].A);
        unlist(model, adapter->lora[i].B);
    }
    adapter_free(adapter);
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

Tensor *transformer_logits_mixed(Transformer *model, const Adapter *const *adapters, const int *ids, int B, int T)
{
    must_not_be_merged(model, "logits_mixed");
    int V = model->config.vocab_size;
    size_t row = (size_t)T * (size_t)V; // of logits
    Tensor *logits = tensor_result("logits", NULL, NULL, SHAPE(B, T, V));
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

int64_t adapter_size(const Adapter *adapter)
{
    int64_t size = 0;
    for (int i = 0; i < adapter->count; i++)
        if (adapter->lora[i].A != NULL) size += lora_size(&adapter->lora[i]);
    return size;
}
