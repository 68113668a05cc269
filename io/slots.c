// slots.c - see slots.h.

#include "slots.h"

#include "json.h"

#include <limits.h>
#include <stdlib.h>

enum { LONGEST_INDEX = 1 << 26 }; // bytes

static const char for_files[] = "what is saved or loaded";

// Named after what it belongs to and a last part; block -1: not in a block.
static Slot *add_slot(Slots *slots, int ndim, int rows, int columns, int block, const char *name, const char *end)
{
    char in_block[32] = "";
    if (slots->count == slots->room) {
        slots->room = slots->room ? 2 * slots->room : 64;
        slots->list = reallocate(slots->list, (size_t)slots->room, sizeof *slots->list, for_files);
    }
    Slot *slot = &slots->list[slots->count++];
    *slot = (Slot){ .ndim = ndim, .shape = { rows, columns }, .trains = true };
    if (block >= 0) snprintf(in_block, sizeof in_block, "h.%d.", block);
    int length = snprintf(slot->name, sizeof slot->name, "%s%s%s", in_block, name, end);
    check(length < (int)sizeof slot->name, "slots: no room for the name of %s", name);
    return slot;
}

// A linear layer's weight [I,O]: its numbers, or codes and scales.
static void add_weight(Slots *slots, BaseType type, int I, int O, int block, const char *name)
{
    int64_t size = (int64_t)I * O, codes = (size + 1) / 2;
    if (type == BASE_FLOAT) {
        add_slot(slots, 2, I, O, block, name, ".weight");
        return;
    }
    check(type == BASE_INT8 || codes <= INT_MAX, "slots: %" PRId64 " bytes of codes of one weight", codes);
    Slot *slot = type == BASE_NF4 ? add_slot(slots, 1, (int)codes, 1, block, name, ".weight.codes")
                                  : add_slot(slots, 2, I, O, block, name, ".weight.codes");
    slot->as = type == BASE_NF4 ? SAFETENSORS_U8 : SAFETENSORS_I8;
    slot = add_slot(slots, 1, type == BASE_NF4 ? (int)((size + NF4_BLOCK - 1) / NF4_BLOCK) : O, 1, block, name, ".weight.scales");
    slot->as = SAFETENSORS_F32;
}

void slots_list_base(Slots *slots, const Config *c, BaseType type)
{
    int C = c->n_embd;
    add_slot(slots, 2, c->vocab_size, C, -1, "wte", ".weight");
    add_slot(slots, 2, c->block_size, C, -1, "wpe", ".weight");
    for (int i = 0; i < c->n_layer; i++)
        for (int k = 0; k < LINEARS; k++) {
            if (k == C_ATTN || k == C_FC) { // a layernorm comes before each half of the block
                add_slot(slots, 1, C, 1, i, k == C_ATTN ? "ln_1" : "ln_2", ".weight");
                add_slot(slots, 1, C, 1, i, k == C_ATTN ? "ln_1" : "ln_2", ".bias");
            }
            int I = linear_inputs(c, (LinearKind)k), O = linear_outputs(c, (LinearKind)k);
            add_weight(slots, type, I, O, i, linear_names[k]);
            add_slot(slots, 1, O, 1, i, linear_names[k], ".bias");
        }
    add_slot(slots, 1, C, 1, -1, "ln_f", ".weight");
    add_slot(slots, 1, C, 1, -1, "ln_f", ".bias");
}

void slots_point_at_base(Slots *slots, const Transformer *model)
{
    Slot *slot = slots->list;
    for (int i = 0; i < model->base_count; i++, slot++) {
        Tensor *t = model->parameters[i];
        const char *name = t->name + strlen(MODEL_PREFIX);
        size_t length = strlen(name);
        check(strncmp(name, slot->name, length) == 0 && strcmp(slot->name + length, t->codes ? ".codes" : "") == 0
              && (t->codes != NULL) == (slot->as != 0), "slots: %s is saved as %s", t->name, slot->name);
        slot->tensor = t;
        slot->data = t->codes ? (void *)t->codes->codes : t->data;
        if (t->codes == NULL) continue;
        slot++;
        slot->tensor = t;
        slot->data = t->codes->scales;
    }
}

void slots_list_adapter(Slots *slots, const Config *c, const AdapterPlan *plan)
{
    for (int i = 0; i < c->n_layer; i++)
        for (int k = 0; k < LINEARS; k++) {
            int r = plan->layers[i * LINEARS + k].r;
            if (r == 0) continue;
            Slot *A = add_slot(slots, 2, r, linear_inputs(c, (LinearKind)k), i, linear_names[k], ".lora_A.weight");
            A->transposed = true;
            A->trains = !plan->config.freeze_A;
            add_slot(slots, 2, linear_outputs(c, (LinearKind)k), r, i, linear_names[k], ".lora_B.weight")->transposed = true;
        }
}

void slots_point_at_adapter(Slots *slots, const Adapter *adapter, const Config *c)
{
    Slot *slot = slots->list;
    for (int i = 0; i < c->n_layer * LINEARS; i++) {
        const Lora *lora = &adapter->lora[i];
        if (lora->A == NULL) continue;
        slot[0].tensor = lora->A, slot[0].data = lora->A->data;
        slot[1].tensor = lora->B, slot[1].data = lora->B->data;
        slot += 2;
    }
}

void slots_list_moments(Slots *slots)
{
    int tensors = slots->count;
    for (int i = 0; i < tensors; i++)
        for (int moment = 1; moment <= 2 && slots->list[i].trains; moment++) {
            Slot of = slots->list[i];
            Slot *slot = add_slot(slots, of.ndim, of.shape[0], of.shape[1], -1, of.name, moment == 1 ? ".m" : ".v");
            slot->transposed = of.transposed;
            slot->moment = moment;
            slot->of = i;
        }
}

void slots_point_at_moments(Slots *slots, AdamW *o, bool make)
{
    for (int s = 0; s < slots->count; s++) {
        Slot *slot = &slots->list[s];
        if (slot->moment == 0) continue;
        const Tensor *t = slots->list[slot->of].tensor;
        int i = 0;
        while (i < o->count && o->parameters[i] != t) i++;
        check(i < o->count, "slots: the optimizer does not know %s", t->name);
        real **buffer = slot->moment == 1 ? &o->m[i] : &o->v[i];
        if (*buffer == NULL && make) *buffer = memory_take(MEMORY_MOMENTS, t->size);
        check(*buffer != NULL, "slots: %s trains, but has no moments", t->name);
        slot->data = *buffer;
    }
}

// to[rows][columns] = from[columns][rows], transposed
static void transpose(const real *from, real *to, int rows, int columns)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) to[(int64_t)i * columns + j] = from[(int64_t)j * rows + i];
}

static size_t slot_size(const Slot *slot) { return (size_t)slot->shape[0] * (size_t)slot->shape[1]; }

// The slot's numbers as its file has them, in a buffer of their own, the caller's; NULL: they are so in memory.
static void *numbers_of_file(const Slot *slot, SafetensorsDtype stored)
{
    if (slot->as) return NULL;
    size_t n = slot_size(slot);
    real *turned = slot->transposed ? allocate(n, sizeof *turned, for_files) : NULL;
    if (turned) transpose(slot->data, turned, slot->shape[0], slot->shape[1]);
    if (stored == REAL_DTYPE) return turned;
    void *converted = allocate(n, stored == SAFETENSORS_F64 ? 8 : stored == SAFETENSORS_F32 ? 4 : 2, for_files);
    safetensors_convert(turned ? turned : slot->data, REAL_DTYPE, n, converted, stored);
    free(turned);
    return converted;
}

bool slots_save(Save *save, const char *file, const char *prefix, const Slots *slots,
                const SafetensorsMetadata *metadata, size_t pairs)
{
    struct { char text[128]; } *names = allocate((size_t)slots->count, sizeof *names, for_files);
    SafetensorsTensor *tensors = allocate((size_t)slots->count, sizeof *tensors, for_files);
    void **others = allocate((size_t)slots->count, sizeof *others, for_files);
    SafetensorsDtype stored = slots->stored ? slots->stored : REAL_DTYPE;
    for (int i = 0; i < slots->count; i++) {
        const Slot *slot = &slots->list[i];
        snprintf(names[i].text, sizeof names[i].text, "%s%s", prefix, slot->name);
        others[i] = numbers_of_file(slot, stored);
        tensors[i] = (SafetensorsTensor){ names[i].text, slot->as ? slot->as : stored, slot->ndim, slot->shape,
                                          others[i] ? others[i] : slot->data };
    }
    char path[FILE_PATH];
    FileWriter *writer = NULL;
    bool good = file_path(path, save->dir, file, save->error, save->size)
             && safetensors_write_begin(path, tensors, (size_t)slots->count, metadata, pairs, &writer, save->error,
                                        save->size) == SAFETENSORS_OK;
    good = save_add(save, writer) && good;
    for (int i = 0; i < slots->count; i++) free(others[i]);
    free(others);
    free(tensors);
    free(names);
    return good;
}

bool slots_read(const Safetensors *file, const Slots *slots, char *error, size_t size)
{
    bool good = true;
    for (int i = 0; good && i < slots->count; i++) {
        const Slot *slot = &slots->list[i];
        if (slot->file != file) continue;
        real *turned = slot->transposed ? allocate(slot_size(slot), sizeof(real), for_files) : NULL;
        good = safetensors_read(file, slot->entry, turned ? turned : slot->data, slot->as ? slot->as : REAL_DTYPE, error, size)
            == SAFETENSORS_OK;
        if (good && turned) transpose(turned, slot->data, slot->shape[1], slot->shape[0]);
        free(turned);
    }
    return good && (file->next == NULL || slots_read(file->next, slots, error, size));
}

const char *bare_name(const char *name)
{
    static const char *const prefixes[] = { "base_model.model.", MODEL_PREFIX };
    for (int i = 0; i < 2; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) name += strlen(prefixes[i]);
    return name;
}

// "h.3.attn.bias": the causal mask, which older files have among their tensors. So has lm_head.weight its place: see tied_head.
static bool passed_over(const char *name)
{
    if (strcmp(name, "lm_head.weight") == 0) return true;
    if (strncmp(name, "h.", 2) != 0) return false;
    name += 2 + strspn(name + 2, "0123456789");
    return strcmp(name, ".attn.bias") == 0 || strcmp(name, ".attn.masked_bias") == 0;
}

typedef struct Names { int count; char text[400]; } Names; // the first few of a list

static void add_name(Names *names, const char *name, const char *remark)
{
    size_t used = strlen(names->text);
    if (names->count < 3)
        snprintf(names->text + used, sizeof names->text - used, "%s%s%s", used ? ", " : "",
                 json_quoted(name, strlen(name)).text, remark);
    else if (names->count == 3) snprintf(names->text + used, sizeof names->text - used, ", ...");
    names->count++;
}

static int by_name(const void *left, const void *right)
{
    return strcmp((*(Slot *const *)left)->name, (*(Slot *const *)right)->name);
}

static const char *dims_text(size_t ndim, const size_t *shape, char text[80])
{
    strcpy(text, "[");
    for (size_t i = 0; i < ndim && i < 3; i++) snprintf(text + strlen(text), 80 - strlen(text), i ? ",%zu" : "%zu", shape[i]);
    return strcat(text, ndim > 3 ? ",...]" : "]");
}

typedef struct Misfit { const Names *names; const char *what; } Misfit;
enum { MISFITS = 4 };

static bool tell_misfits(const Safetensors *file, const Misfit misfits[MISFITS], char *error, size_t size)
{
    const char *mark = ":";
    snprintf(error, size, "%s does not fit its configuration", file->path);
    for (const Misfit *m = misfits; m < misfits + MISFITS; m++) {
        size_t used = strlen(error);
        int count = m->names->count;
        if (count == 0) continue;
        snprintf(error + used, size - used, "%s %d tensor%s %s (%s)", mark, count, count == 1 ? "" : "s", m->what, m->names->text);
        mark = ";";
    }
    return false;
}

bool slots_match(const Safetensors *file, Slots *slots, bool model_file, char *error, size_t size)
{
    Names missing = { 0 }, extra = { 0 }, misshaped = { 0 }, mistyped = { 0 };
    Slot **sorted = allocate((size_t)slots->count, sizeof *sorted, for_files);
    for (int i = 0; i < slots->count; i++) sorted[i] = &slots->list[i];
    qsort(sorted, (size_t)slots->count, sizeof *sorted, by_name);
    for (const Safetensors *f = file; f != NULL; f = f->next)
        for (size_t e = 0; e < f->count; e++) {
            const SafetensorsEntry *entry = &f->entries[e];
            const char *name = bare_name(entry->name);
            if (model_file && passed_over(name)) continue;
            Slot key, *pointer = &key, **found = NULL;
            if (strlen(name) < sizeof key.name) {
                strcpy(key.name, name);
                found = bsearch(&pointer, sorted, (size_t)slots->count, sizeof *sorted, by_name);
            }
            if (found == NULL || (*found)->entry != NULL) { // unknown, or there with and without prefix
                add_name(&extra, entry->name, "");
                continue;
            }
            Slot *slot = *found;
            slot->entry = entry;
            slot->file = f;
            char is[80], wanted[80], remark[200];
            if (slot->as != 0 && entry->dtype != slot->as) {
                snprintf(remark, sizeof remark, " is %s, not %s", safetensors_dtype_name(entry->dtype), safetensors_dtype_name(slot->as));
                add_name(&mistyped, entry->name, remark);
            }
            if (safetensors_shape_is(entry, slot->ndim, slot->shape)) continue;
            dims_text(entry->ndim, entry->shape, is);
            dims_text((size_t)slot->ndim, (size_t[]){ (size_t)slot->shape[0], (size_t)slot->shape[1] }, wanted);
            snprintf(remark, sizeof remark, " is %s, not %s", is, wanted);
            add_name(&misshaped, entry->name, remark);
        }
    for (int i = 0; i < slots->count; i++)
        if (slots->list[i].entry == NULL) add_name(&missing, slots->list[i].name, "");
    free(sorted);
    const Misfit misfits[MISFITS] = { { &missing, "missing" }, { &extra, "unknown" }, { &misshaped, "of another shape" },
                                      { &mistyped, "of another type" } };
    return missing.count + extra.count + misshaped.count + mistyped.count == 0 || tell_misfits(file, misfits, error, size);
}

// What others call their tensors' files, and the command that makes safetensors of them.
static bool tell_other_file(const char *dir, const char *name, char *error, size_t size)
{
    static const char model[] = "model.safetensors";
    static const struct { const char *wanted, *other; } others[] = {
        { model, "pytorch_model.bin" }, { model, "pytorch_model.bin.index.json" },
        { "adapter_model.safetensors", "adapter_model.bin" },
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(others[i].wanted, name) != 0 || !directory_holds(dir, others[i].other)) continue;
        if (others[i].wanted == model)
            return fail(error, size, "%s has its tensors in %s, and no %s; convert it: python3 -c \"from transformers import "
                        "GPT2LMHeadModel as M; M.from_pretrained('%s').save_pretrained('%s', max_shard_size='1TB')\"", dir,
                        others[i].other, name, dir, dir);
        return fail(error, size, "%s has its tensors in %s, and no %s; convert it: python3 -c \"import torch, safetensors.torch "
                    "as s; s.save_file(torch.load('%s/%s', weights_only=True), '%s/%s', {'format': 'pt'})\"", dir,
                    others[i].other, name, dir, others[i].other, dir, name);
    }
    return true;
}

// The files that an index names, each once; which tensor it says is where does not matter.
static bool open_all(const char *dir, const char *index, Safetensors **file, char *error, size_t size)
{
    char path[FILE_PATH];
    Json *json = json_read(dir, index, LONGEST_INDEX, error, size);
    const Json *map = json_get(json, "weight_map");
    bool good = json != NULL && ((map != NULL && map->type == JSON_OBJECT && map->count > 0)
                                 || fail(error, size, "%s/%s: \"weight_map\" names no file", dir, index));
    for (const Json *item = good ? map->child : NULL; item != NULL && good; item = item->next) {
        good = (item->type == JSON_STRING && strchr(item->string, '/') == NULL)
            || fail(error, size, "%s/%s: \"weight_map\" has something that is not a file of this directory", dir, index);
        good = good && file_path(path, dir, item->string, error, size);
        Safetensors *f = *file, *new;
        while (good && f != NULL && strcmp(f->path, path) != 0) f = f->next;
        if (!good || f != NULL) continue; // wrong, or open
        good = safetensors_open(path, &new, error, size) == SAFETENSORS_OK;
        if (good) new->next = *file, *file = new;
    }
    json_free(json);
    if (good) return true;
    safetensors_close(*file);
    *file = NULL;
    return false;
}

bool slots_open(const char *dir, const char *name, Safetensors **file, char *error, size_t size)
{
    char path[FILE_PATH], index[64];
    *file = NULL;
    snprintf(index, sizeof index, "%s.index.json", name);
    if (!directory_holds(dir, name) && directory_holds(dir, index)) return open_all(dir, index, file, error, size);
    if (!directory_holds(dir, name) && !tell_other_file(dir, name, error, size)) return false;
    return file_path(path, dir, name, error, size) && safetensors_open(path, file, error, size) == SAFETENSORS_OK;
}
