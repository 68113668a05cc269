// checkpoint.c - see checkpoint.h.
//
// Saving and loading share one list of what a file holds. A Slot is one tensor in a file and where its numbers are in memory:
//
//     save:  list the slots, point them at memory, write
//     load:  list the slots, match them with the file (nothing has been believed or allocated so far), build, point, read
//
// The files of one save are written beside their targets, and take their places together when all are on the disk.

#include "checkpoint.h"

#include "file.h"
#include "json.h"
#include "peft.h"
#include "safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define REAL_DTYPE (sizeof(real) == sizeof(double) ? SAFETENSORS_F64 : SAFETENSORS_F32)
#define MODEL_PREFIX   "transformer."                  // of a name in the files of transformers
#define ADAPTER_PREFIX "base_model.model.transformer." // ... of PEFT
#define FINGERPRINT    "base_fingerprint"              // keys of metadata
#define STATE          "meltwater_state"
#define STATE_FILE     "training_state.safetensors"

enum {
    PATH = 4096,           // room for a path
    WHY = 512,             // ... for the inner half of a message
    SMALL_FILE = 1 << 20,  // the longest configuration that is read
    TOKENIZER_FILE = 1 << 26,
    // the transformer's own limits are about the same
    LARGEST_WIDTH = 1 << 16, LARGEST_DEPTH = 1 << 12, LARGEST_TABLE = 1 << 28,
    STATE_VERSION = 1,
};

static const char for_files[] = "what is saved or loaded";

static char *copy_text(const char *text) // NULL stays NULL
{
    char *copy = text == NULL ? NULL : allocate(strlen(text) + 1, 1, for_files);
    return copy == NULL ? NULL : strcpy(copy, text);
}

static bool join(char path[PATH], const char *dir, const char *name, char *error, size_t size)
{
    if (snprintf(path, PATH, "%s/%s", dir, name) < PATH) return true;
    return fail(error, size, "the path of %s is too long: %zu bytes, at most %d will do", name, strlen(dir), PATH - 64);
}

// ------------------------------------------------------------------------------------------------------------------- one save

// Text that is written with fprintf(out, ...).
typedef struct Document { char *text; size_t length; FILE *out; } Document;

static void document_open(Document *d)
{
    *d = (Document){ 0 };
    d->out = open_memstream(&d->text, &d->length);
    if (d->out == NULL) { fprintf(stderr, "out of memory: no room to save\n"); exit(1); }
}

// Ends the text, so that it can be read; free(d->text) afterwards.
static bool document_close(Document *d, char *error, size_t size)
{
    bool good = !ferror(d->out);
    good = fclose(d->out) == 0 && good;
    return good || fail(error, size, "out of memory: no room to save");
}

// The files of a save, in the order in which they will take their places.
typedef struct Save {
    const char *dir;
    FileWriter *files[12];
    int    count;
    char  *error;          // where a message goes, and how much room it has
    size_t size;
} Save;

static bool save_begin(Save *save, const char *dir, char *error, size_t size)
{
    *save = (Save){ .dir = dir, .error = error, .size = size };
    if (!file_make_directories(dir, error, size)) return false;
    file_sweep(dir);
    return true;
}

static bool save_add(Save *save, FileWriter *writer)
{
    if (writer != NULL) save->files[save->count++] = writer;
    return writer != NULL;
}

static bool save_end(Save *save, bool good)
{
    if (good) return file_commit(save->files, save->count, save->error, save->size);
    for (int i = 0; i < save->count; i++) file_write_abort(save->files[i]);
    return false;
}

static bool file_is(const char *path, const char *bytes, size_t n)
{
    char *old, why[WHY];
    size_t length;
    if (!file_read(path, n, &old, &length, why, sizeof why)) return false;
    bool same = length == n && memcmp(old, bytes, n) == 0;
    free(old);
    return same;
}

// Adds a small file, unless it is on the disk already as it should be.
static bool save_document(Save *save, const char *name, Document *d)
{
    char path[PATH];
    bool good = document_close(d, save->error, save->size) && join(path, save->dir, name, save->error, save->size);
    if (good && !file_is(path, d->text, d->length)) {
        FileWriter *writer = file_write_begin(path, save->error, save->size);
        good = save_add(save, writer) && file_write(writer, d->text, d->length);
    }
    free(d->text);
    return good;
}

// Old tensors must not stand beside a new configuration or vocabulary, not even for the time between two renames: if one of
// these changes, the tensors are removed first. save_mark keeps the place for that, before the documents are added;
// save_replace, after them, knows whether there were any.
static int save_mark(Save *save)
{
    save->files[save->count] = NULL;
    return save->count++;
}

static bool save_replace(Save *save, int mark, const char *tensors)
{
    char path[PATH];
    if (save->count == mark + 1) return true; // no document has changed
    if (!join(path, save->dir, tensors, save->error, save->size)) return false;
    save->files[mark] = file_remove_begin(path, save->error, save->size);
    return save->files[mark] != NULL;
}

static Json *read_json(const char *dir, const char *name, size_t limit, char *error, size_t size)
{
    char path[PATH], why[WHY], *bytes;
    size_t length;
    if (!join(path, dir, name, error, size) || !file_read(path, limit, &bytes, &length, error, size)) return NULL;
    Json *json = json_parse(bytes, length, why, sizeof why);
    if (json == NULL) fail(error, size, "%s is not JSON: %s", path, why);
    free(bytes);
    return json;
}

// ---------------------------------------------------------------------------------------------------------------------- slots

typedef struct Slot {
    char    name[80];              // in the file, without prefix: "h.0.attn.c_attn.weight"
    int     ndim, shape[2];        // in the file
    bool    transposed;            // in memory it is the other way round
    bool    trains;
    int     moment, of;            // 1: m, 2: v of the tensor of slot `of`; 0: the tensor itself
    Tensor *tensor;
    real   *data;                  // in memory
    const SafetensorsEntry *entry; // in the file that it was matched with
} Slot;

typedef struct Slots { Slot *list; int count, room; } Slots;

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
    check(length < (int)sizeof slot->name, "checkpoint: no room for the name of %s", name);
    return slot;
}

// The tensors of a model, in the order of its parameter list.
static void list_base(Slots *slots, const Config *c)
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
            add_slot(slots, 2, I, O, i, linear_names[k], ".weight");
            add_slot(slots, 1, O, 1, i, linear_names[k], ".bias");
        }
    add_slot(slots, 1, C, 1, -1, "ln_f", ".weight");
    add_slot(slots, 1, C, 1, -1, "ln_f", ".bias");
}

static void point_at_base(Slots *slots, const Transformer *model)
{
    for (int i = 0; i < model->base_count; i++) {
        Tensor *t = model->parameters[i];
        check(strcmp(t->name + strlen(MODEL_PREFIX), slots->list[i].name) == 0, "checkpoint: %s is saved as %s", t->name,
              slots->list[i].name);
        slots->list[i].tensor = t;
        slots->list[i].data = t->data;
    }
}

// A and B of an adapter, in PEFT's names and orientation.
static void list_adapter(Slots *slots, const Config *c, const AdapterPlan *plan)
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

static void point_at_adapter(Slots *slots, const Adapter *adapter, const Config *c)
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

// The two moments of everything that trains.
static void list_moments(Slots *slots)
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

// After the tensors themselves have been pointed at. Moments that the optimizer lacks are made if `make`.
static void point_at_moments(Slots *slots, AdamW *o, bool make)
{
    for (int s = 0; s < slots->count; s++) {
        Slot *slot = &slots->list[s];
        if (slot->moment == 0) continue;
        const Tensor *t = slots->list[slot->of].tensor;
        int i = 0;
        while (i < o->count && o->parameters[i] != t) i++;
        check(i < o->count, "checkpoint: the optimizer does not know %s", t->name);
        real **buffer = slot->moment == 1 ? &o->m[i] : &o->v[i];
        if (*buffer == NULL && make) *buffer = memory_take(MEMORY_MOMENTS, t->size);
        check(*buffer != NULL, "checkpoint: %s trains, but has no moments", t->name);
        slot->data = *buffer;
    }
}

// to[rows][columns] = from[columns][rows], transposed
static void transpose(const real *from, real *to, int rows, int columns)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) to[(long)i * columns + j] = from[(long)j * rows + i];
}

static size_t slot_size(const Slot *slot) { return (size_t)slot->shape[0] * (size_t)slot->shape[1]; }

static bool save_slots(Save *save, const char *file, const char *prefix, const Slots *slots,
                       const SafetensorsMetadata *metadata, size_t pairs)
{
    struct { char text[128]; } *names = allocate((size_t)slots->count, sizeof *names, for_files);
    SafetensorsTensor *tensors = allocate((size_t)slots->count, sizeof *tensors, for_files);
    real **turned = allocate((size_t)slots->count, sizeof *turned, for_files);
    for (int i = 0; i < slots->count; i++) {
        const Slot *slot = &slots->list[i];
        snprintf(names[i].text, sizeof names[i].text, "%s%s", prefix, slot->name);
        if (slot->transposed)
            transpose(slot->data, turned[i] = allocate(slot_size(slot), sizeof(real), for_files), slot->shape[0], slot->shape[1]);
        tensors[i] =
            (SafetensorsTensor){ names[i].text, REAL_DTYPE, slot->ndim, slot->shape, turned[i] ? turned[i] : slot->data };
    }
    char path[PATH];
    FileWriter *writer = NULL;
    bool good = join(path, save->dir, file, save->error, save->size)
             && safetensors_write_begin(path, tensors, (size_t)slots->count, metadata, pairs, &writer, save->error,
                                        save->size) == SAFETENSORS_OK;
    good = save_add(save, writer) && good;
    for (int i = 0; i < slots->count; i++) free(turned[i]);
    free(turned);
    free(tensors);
    free(names);
    return good;
}

static bool read_slots(const Safetensors *file, const Slots *slots, char *error, size_t size)
{
    bool good = true;
    for (int i = 0; good && i < slots->count; i++) {
        const Slot *slot = &slots->list[i];
        real *turned = slot->transposed ? allocate(slot_size(slot), sizeof(real), for_files) : NULL;
        good = safetensors_read(file, slot->entry, turned ? turned : slot->data, REAL_DTYPE, error, size) == SAFETENSORS_OK;
        if (good && turned) transpose(turned, slot->data, slot->shape[1], slot->shape[0]);
        free(turned);
    }
    return good;
}

// The name without what transformers and PEFT put before it.
static const char *bare(const char *name)
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
    char quoted[100]; // whatever the file calls it, on one line
    if (json_escape(quoted, sizeof quoted, name, strlen(name)) >= sizeof quoted) memcpy(quoted + sizeof quoted - 5, "...\"", 5);
    size_t used = strlen(names->text);
    if (names->count < 3) snprintf(names->text + used, sizeof names->text - used, "%s%s%s", used ? ", " : "", quoted, remark);
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

// Finds every slot's tensor in the file. It must hold these and no others, but for what a model file may have besides.
static bool match(const Safetensors *file, Slots *slots, bool model_file, char *error, size_t size)
{
    Names missing = { 0 }, extra = { 0 }, misshaped = { 0 };
    Slot **sorted = allocate((size_t)slots->count, sizeof *sorted, for_files);
    for (int i = 0; i < slots->count; i++) sorted[i] = &slots->list[i];
    qsort(sorted, (size_t)slots->count, sizeof *sorted, by_name);
    for (size_t e = 0; e < file->count; e++) {
        const SafetensorsEntry *entry = &file->entries[e];
        const char *name = bare(entry->name);
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
        if (safetensors_shape_is(entry, slot->ndim, slot->shape)) continue;
        char is[80], wanted[80], remark[200];
        dims_text(entry->ndim, entry->shape, is);
        dims_text((size_t)slot->ndim, (size_t[]){ (size_t)slot->shape[0], (size_t)slot->shape[1] }, wanted);
        snprintf(remark, sizeof remark, " is %s, not %s", is, wanted);
        add_name(&misshaped, entry->name, remark);
    }
    for (int i = 0; i < slots->count; i++)
        if (slots->list[i].entry == NULL) add_name(&missing, slots->list[i].name, "");
    free(sorted);
    if (missing.count + extra.count + misshaped.count == 0) return true;

    snprintf(error, size, "%s does not fit its configuration", file->path);
    const char *mark = ":";
    const struct { const Names *names; const char *what; } lists[] = {
        { &missing, "missing" }, { &extra, "unknown" }, { &misshaped, "of another shape" },
    };
    for (int i = 0; i < 3; i++) {
        size_t used = strlen(error);
        const Names *names = lists[i].names;
        if (names->count == 0) continue;
        snprintf(error + used, size - used, "%s %d tensor%s %s (%s)", mark, names->count, names->count == 1 ? "" : "s",
                 lists[i].what, names->text);
        mark = ";";
    }
    return false;
}

static bool open_tensors(const char *dir, const char *name, Safetensors **file, char *error, size_t size)
{
    char path[PATH];
    return join(path, dir, name, error, size) && safetensors_open(path, file, error, size) == SAFETENSORS_OK;
}

// ---------------------------------------------------------------------------------------------------------------------- models

static void put_config(FILE *out, const Config *c)
{
    fputs("{\n  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"model_type\": \"gpt2\",\n", out);
    fprintf(out, "  \"vocab_size\": %d,\n  \"n_positions\": %d,\n", c->vocab_size, c->block_size);
    fprintf(out, "  \"n_ctx\": %d,\n", c->block_size);
    fprintf(out, "  \"n_embd\": %d,\n  \"n_layer\": %d,\n  \"n_head\": %d,\n", c->n_embd, c->n_layer, c->n_head);
    fputs("  \"n_inner\": null,\n  \"activation_function\": \"gelu_new\",\n", out);
    fputs("  \"resid_pdrop\": 0.0,\n  \"embd_pdrop\": 0.0,\n  \"attn_pdrop\": 0.0,\n", out);
    fputs("  \"layer_norm_epsilon\": 1e-05,\n  \"initializer_range\": 0.02,\n  \"scale_attn_weights\": true,\n", out);
    fputs("  \"scale_attn_by_inverse_layer_idx\": false,\n  \"reorder_and_upcast_attn\": false,\n", out);
    // no token begins or ends a text: GPT-2's own, 50256, would lie outside of a vocabulary of characters
    fputs("  \"use_cache\": true,\n  \"tie_word_embeddings\": true,\n", out);
    fputs("  \"bos_token_id\": null,\n  \"eos_token_id\": null,\n", out);
    fprintf(out, "  \"torch_dtype\": \"%s\"\n}\n", REAL_DTYPE == SAFETENSORS_F64 ? "float64" : "float32");
}

static bool parse_config(const Json *json, Config *config, char *error, size_t size)
{
    static const struct { const char *key; bool value; } flags[] = {
        // what the engine computes; also what GPT-2 does when nothing is said
        { "scale_attn_weights", true },       { "scale_attn_by_inverse_layer_idx", false },
        { "reorder_and_upcast_attn", false }, { "tie_word_embeddings", true },
        { "add_cross_attention", false },
    };
    static const char *const features[] = { "pruned_heads", "quantization_config" };
    long V, T, C, L, H, inner;
    double epsilon;
    if (!json_is_string(json_get(json, "model_type"), "gpt2"))
        return fail(error, size, "\"model_type\" is not \"gpt2\", the one kind of model that this engine computes");
    if (!json_get_int(json, "vocab_size", 1, LARGEST_TABLE, &V, error, size)
        || !json_get_int(json, "n_positions", 1, LARGEST_TABLE, &T, error, size)
        || !json_get_int(json, "n_embd", 1, LARGEST_WIDTH, &C, error, size)
        || !json_get_int(json, "n_layer", 1, LARGEST_DEPTH, &L, error, size)
        || !json_get_int(json, "n_head", 1, C, &H, error, size))
        return false;
    if (C % H != 0) return fail(error, size, "\"n_embd\" %ld is not a multiple of \"n_head\" %ld", C, H);
    if (json_given(json, "n_inner") && !json_get_int(json, "n_inner", 4 * C, 4 * C, &inner, error, size)) return false;
    if (json_given(json, "activation_function") && !json_is_string(json_get(json, "activation_function"), "gelu_new"))
        return fail(error, size, "\"activation_function\" is not \"gelu_new\", the one that this engine computes");
    if (!json_optional_number(json, "layer_norm_epsilon", 1e-5, &epsilon, error, size)) return false;
    if (fabs(epsilon - 1e-5) > 1e-12)
        return fail(error, size, "\"layer_norm_epsilon\" is %g; this engine computes with 1e-05 only", epsilon);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool value;
        if (!json_optional_bool(json, flags[i].key, flags[i].value, &value, error, size)) return false;
        if (value != flags[i].value)
            return fail(error, size, "\"%s\" is %s; this engine computes the opposite only", flags[i].key,
                        value ? "true" : "false");
    }
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (!json_is_empty(json_get(json, features[i])))
            return fail(error, size, "\"%s\" is in use, which this engine does not know", features[i]);
    *config = (Config){ .vocab_size = (int)V, .block_size = (int)T, .n_layer = (int)L, .n_head = (int)H, .n_embd = (int)C };
    return true;
}

// A vocabulary of the tokenizers library: text is split into characters, and each is looked up.
static void put_tokenizer(FILE *out, const Vocabulary *vocabulary)
{
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,\n"
          " \"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\s\\\\S]\"},\"behavior\":\"Isolated\","
          "\"invert\":false},\n"
          " \"post_processor\":null,\"decoder\":{\"type\":\"Fuse\"},\n \"model\":{\"type\":\"WordLevel\",\"vocab\":{",
          out);
    for (int token = 0; token < vocabulary->size; token++) {
        char character[5];
        int length = vocabulary_decode(vocabulary, token, character);
        if (token > 0) fputc(',', out);
        json_put_string(out, character, (size_t)length);
        fprintf(out, ":%d", token);
    }
    fputs("},\"unk_token\":\"<unk>\"}}\n", out);
}

static bool parse_tokenizer(const Json *json, int vocab_size, Vocabulary *vocabulary, char *error, size_t size)
{
    const Json *model = json_get(json, "model"), *vocab = json_get(model, "vocab"), *split = json_get(json, "pre_tokenizer");
    const Json *pattern = json_get(split, "pattern"), *after = json_get(json, "post_processor");
    bool by_character =
        json_is_string(json_get(split, "type"), "Split") && json_is_string(json_get(split, "behavior"), "Isolated")
        && (json_is_string(json_get(pattern, "Regex"), "[\\s\\S]") || json_is_string(json_get(pattern, "String"), ""));
    bool adds_nothing =
        json_is_empty(after)
        || (json_is_string(json_get(after, "type"), "TemplateProcessing") && json_is_empty(json_get(after, "special_tokens")));
    if (!json_is_string(json_get(model, "type"), "WordLevel") || vocab == NULL || vocab->type != JSON_OBJECT || !by_character
        || !json_is_string(json_get(json_get(json, "decoder"), "type"), "Fuse") || !json_is_empty(json_get(json, "normalizer"))
        || !json_is_empty(json_get(json, "added_tokens")) || !adds_nothing)
        return fail(error, size, "not a tokenizer whose tokens are single characters, the only kind that this program knows");
    if (vocab->count != (size_t)vocab_size)
        return fail(error, size, "it has %zu tokens, but the model %d", vocab->count, vocab_size);
    uint32_t *list = allocate((size_t)vocab_size, sizeof *list, for_files);
    bool *taken = allocate((size_t)vocab_size, sizeof *taken, for_files), good = true;
    for (const Json *item = vocab->child; item != NULL && good; item = item->next) {
        const char *end = item->key;
        uint32_t c = item->key_length > 0 ? utf8_next(&end) : 0;
        good = item->key_length > 0 && end == item->key + item->key_length && item->is_int && item->int_value >= 0
            && item->int_value < vocab_size && !taken[item->int_value];
        if (!good) break;
        list[item->int_value] = c;
        taken[item->int_value] = true;
    }
    for (int i = 1; i < vocab_size && good; i++) good = list[i - 1] < list[i];
    free(taken);
    if (good) *vocabulary = (Vocabulary){ vocab_size, list };
    else free(list);
    return good || fail(error, size, "its tokens are not single characters, numbered from 0 in the order of their code points");
}

bool vocabulary_load(const char *dir, int vocab_size, Vocabulary *vocabulary, char *error, size_t size)
{
    char why[WHY];
    *vocabulary = (Vocabulary){ 0 };
    Json *json = read_json(dir, "tokenizer.json", TOKENIZER_FILE, error, size);
    if (json == NULL) return false;
    bool good = parse_tokenizer(json, vocab_size, vocabulary, why, sizeof why);
    json_free(json);
    return good || fail(error, size, "%s/tokenizer.json: %s", dir, why);
}

// `vocabulary` may be NULL or empty.
static bool save_model(Save *save, const Transformer *model, const Vocabulary *vocabulary)
{
    const Config *c = &model->config;
    bool text = vocabulary != NULL && vocabulary->size > 0, good = true;
    check(!text || vocabulary->size == c->vocab_size, "model_save: %d characters for a vocab_size of %d", vocabulary->size,
          c->vocab_size);
    int mark = save_mark(save);
    Document d;
    if (text) {
        document_open(&d);
        put_tokenizer(d.out, vocabulary);
        good = save_document(save, "tokenizer.json", &d);
    }
    if (text && good) { // the class is what keeps transformers from taking GPT-2's own tokenizer
        document_open(&d);
        fprintf(d.out, "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"model_max_length\":%d,"
                "\"clean_up_tokenization_spaces\":false}\n", c->block_size);
        good = save_document(save, "tokenizer_config.json", &d);
    }
    if (good) {
        document_open(&d);
        put_config(d.out, c);
        good = save_document(save, "config.json", &d);
    }
    Slots slots = { 0 };
    list_base(&slots, c);
    point_at_base(&slots, model);
    SafetensorsMetadata format = { "format", "pt" };
    good = good && save_replace(save, mark, "model.safetensors")
        && save_slots(save, "model.safetensors", MODEL_PREFIX, &slots, &format, 1);
    free(slots.list);
    return good;
}

bool model_save(const Transformer *model, const Vocabulary *vocabulary, const char *dir, char *error, size_t size)
{
    Save save;
    return save_begin(&save, dir, error, size) && save_end(&save, save_model(&save, model, vocabulary));
}

// If the file has an output head of its own, it must be the token embedding once more.
static bool tied_head(const Safetensors *file, const Transformer *model, char *error, size_t size)
{
    for (size_t e = 0; e < file->count; e++) {
        const SafetensorsEntry *entry = &file->entries[e];
        if (strcmp(bare(entry->name), "lm_head.weight") != 0) continue;
        bool same = safetensors_shape_is(entry, 2, model->wte->shape);
        real *head = same ? allocate(entry->elements, sizeof *head, for_files) : NULL;
        bool good = !same || safetensors_read(file, entry, head, REAL_DTYPE, error, size) == SAFETENSORS_OK;
        same = same && good && memcmp(head, model->wte->data, entry->elements * sizeof *head) == 0;
        free(head);
        if (!good) return false;
        if (!same)
            return fail(error, size, "%s: lm_head.weight is not the same as wte.weight; this engine ties the two", file->path);
    }
    return true;
}

static bool holds(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct stat status;
    return stat(path, &status) == 0;
}

Transformer *model_load(const char *dir, Vocabulary *vocabulary, char *error, size_t size)
{
    char why[WHY];
    if (vocabulary != NULL) *vocabulary = (Vocabulary){ 0 };
    if (!holds(dir, "config.json") && holds(dir, "adapter_config.json")) {
        fail(error, size, "%s holds an adapter, and no model: name the model that it belongs to", dir);
        return NULL;
    }
    Json *json = read_json(dir, "config.json", SMALL_FILE, error, size);
    if (json == NULL) return NULL;
    Config config;
    bool good = parse_config(json, &config, why, sizeof why) || fail(error, size, "%s/config.json: %s", dir, why);
    json_free(json);

    Safetensors *file = NULL;
    Slots slots = { 0 };
    Transformer *model = NULL;
    if (good && open_tensors(dir, "model.safetensors", &file, error, size)) {
        list_base(&slots, &config);
        if (match(file, &slots, true, error, size) && (!memory_holds(weight_bytes(&config), why, sizeof why)
                                                       || (model = transformer_new(config, 0, why, sizeof why)) == NULL))
            fail(error, size, "%s/config.json: %s", dir, why);
    }
    if (model != NULL) {
        point_at_base(&slots, model);
        if (!read_slots(file, &slots, error, size) || !tied_head(file, model, error, size)) {
            transformer_free(model);
            model = NULL;
        }
    }
    free(slots.list);
    safetensors_close(file);
    if (model != NULL && vocabulary != NULL) vocabulary_load(dir, config.vocab_size, vocabulary, why, sizeof why);
    return model;
}

// -------------------------------------------------------------------------------------------------------------------- adapters

static void hash_text(char text[20], uint64_t hash) { snprintf(text, 20, "%016llx", (unsigned long long)hash); }

static bool save_adapter(Save *save, const Transformer *model, const Adapter *adapter, const char *base_dir)
{
    check(!transformer_is_merged(model), "adapter_save: an adapter is merged into the base; unmerge it first");
    const Config *c = &model->config;
    if (json_valid_utf8(base_dir, strlen(base_dir)) != strlen(base_dir))
        return fail(save->error, save->size, "the base's path is not UTF-8, so it cannot be written into adapter_config.json; "
                    "rename it");
    AdapterPlan plan = peft_plan(adapter, c);
    Slots slots = { 0 };
    list_adapter(&slots, c, &plan);
    point_at_adapter(&slots, adapter, c);
    bool good =
        slots.count > 0 || fail(save->error, save->size, "adapter %s has no layer: there is nothing to save", adapter->name);
    int mark = save_mark(save);
    if (good) {
        Document d;
        document_open(&d);
        peft_put_config(d.out, c, &plan, base_dir);
        good = save_document(save, "adapter_config.json", &d);
    }
    char fingerprint[20];
    hash_text(fingerprint, transformer_hash(model));
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { FINGERPRINT, fingerprint } };
    good = good && save_replace(save, mark, "adapter_model.safetensors")
        && save_slots(save, "adapter_model.safetensors", ADAPTER_PREFIX, &slots, metadata, 2);
    free(slots.list);
    free(plan.layers);
    return good;
}

bool adapter_save(const Transformer *model, const Adapter *adapter, const char *base_dir, const char *dir, char *error,
                  size_t size)
{
    Save save;
    return save_begin(&save, dir, error, size) && save_end(&save, save_adapter(&save, model, adapter, base_dir));
}

static bool same_base(const Transformer *model, const char *fingerprint, const char *path, const char *hint, char *error,
                      size_t size)
{
    char own[20];
    if (fingerprint == NULL) return true;
    hash_text(own, transformer_hash(model));
    if (strcmp(own, fingerprint) == 0) return true;
    return fail(error, size, "%s was trained on another base: its fingerprint is %.32s, that of this one is %s; %s", path,
                fingerprint, own, hint);
}

Adapter *adapter_load(Transformer *model, const char *dir, const char *name, bool any_base, char *error, size_t size)
{
    check(!transformer_is_merged(model), "adapter_load: an adapter is merged into the base; unmerge it first");
    char why[WHY];
    Json *json = read_json(dir, "adapter_config.json", SMALL_FILE, error, size);
    if (json == NULL) return NULL;
    AdapterPlan plan = { 0 };
    bool good = peft_parse_config(json, &model->config, &plan, why, sizeof why)
             || fail(error, size, "%s/adapter_config.json: %s", dir, why);
    json_free(json);

    Safetensors *file = NULL;
    Slots slots = { 0 };
    Adapter *adapter = NULL, *before = model->active;
    if (good) list_adapter(&slots, &model->config, &plan);
    if (good && open_tensors(dir, "adapter_model.safetensors", &file, error, size)
        && (any_base || same_base(model, safetensors_metadata(file, FINGERPRINT), file->path, "load that one", error, size))
        && match(file, &slots, false, error, size))
        adapter = transformer_add_layers(model, name, plan.config, plan.layers, 0, error, size);
    if (adapter != NULL) {
        point_at_adapter(&slots, adapter, &model->config);
        if (!read_slots(file, &slots, error, size)) {
            transformer_remove_adapter(model, adapter);
            transformer_use_adapter(model, before);
            adapter = NULL;
        }
    }
    safetensors_close(file);
    free(slots.list);
    free(plan.layers);
    return adapter;
}

bool adapter_base(const char *dir, char *base, size_t base_size, char *error, size_t size)
{
    char why[WHY];
    const char *text;
    Json *json = read_json(dir, "adapter_config.json", SMALL_FILE, error, size);
    if (json == NULL) return false;
    bool good = json_get_string(json, "base_model_name_or_path", &text, why, sizeof why);
    good = good
           && ((size_t)snprintf(base, base_size, "%s", text) < base_size
               || fail(why, sizeof why, "the path of the base is too long"));
    json_free(json);
    return good || fail(error, size, "%s/adapter_config.json: %s", dir, why);
}

// ------------------------------------------------------------------------------------------------------------- training states

// Everything but the numbers in tensors, as one JSON object.
static void put_state(FILE *out, const TrainingState *state, const AdapterPlan *plan)
{
    const Transformer *model = state->model;
    const AdamW *o = state->optimizer;
    const struct { const char *key; double value; } numbers[] = {
        { "beta1", o->config.beta1 }, { "beta2", o->config.beta2 }, { "weight_decay", o->config.weight_decay },
        { "grad_clip", o->config.grad_clip }, { "dropout", model->config.dropout },
        { "learning_rate", state->schedule.learning_rate }, { "min_lr", state->schedule.min_lr },
    };
    fprintf(out, "{\"version\":%d,\"step\":%ld,\"seed\":%llu,\"optimizer_step\":%ld", STATE_VERSION, state->step,
            (unsigned long long)state->seed, o->step);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        fprintf(out, ",\"%s\":", numbers[i].key);
        json_put_number(out, numbers[i].value);
    }
    fprintf(out, ",\"warmup_iters\":%ld,\"max_iters\":%ld,\"eval_interval\":%ld,\"batch_size\":%d,\"text_hash\":%llu,\"data\":",
            state->schedule.warmup_iters, state->schedule.max_iters, state->eval_interval, state->batch_size,
            (unsigned long long)state->text_hash);
    json_put_text(out, state->data);
    if (state->vocabulary.size > 0) {
        fputs(",\"tokenizer\":", out);
        put_tokenizer(out, &state->vocabulary);
    }
    if (model->active == NULL) {
        fputs(",\"config\":", out);
        put_config(out, &model->config);
    } else {
        char fingerprint[20];
        hash_text(fingerprint, transformer_hash(model));
        fputs(",\"adapter_name\":", out);
        json_put_text(out, model->active->name);
        const LoraConfig *l = &model->active->config;
        fprintf(out, ",\"lora_r\":%d,\"lora_alpha\":", l->r);
        json_put_number(out, l->alpha);
        fprintf(out, ",\"lora_targets\":\"%s\",\"freeze_A\":%s,\"" FINGERPRINT "\":\"%s\",\"base_dir\":",
                lora_targets_text(l->targets), l->freeze_A ? "true" : "false", fingerprint);
        json_put_text(out, state->base_dir);
        fputs(",\"adapter\":", out);
        peft_put_config(out, &model->config, plan, state->base_dir);
    }
    fputs("}", out);
}

static bool save_state(Save *save, const TrainingState *state)
{
    Transformer *model = state->model;
    const Config *c = &model->config;
    check(!transformer_is_merged(model), "state_save: an adapter is merged into the base; unmerge it first");
    check((model->active != NULL) == (state->base_dir != NULL), "state_save: an adapter in use and base_dir go together");
    AdapterPlan plan = { 0 };
    Slots slots = { 0 };
    if (model->active == NULL) {
        list_base(&slots, c);
        point_at_base(&slots, model);
    } else {
        plan = peft_plan(model->active, c);
        list_adapter(&slots, c, &plan);
        point_at_adapter(&slots, model->active, c);
    }
    int trainable = 0;
    for (int i = 0; i < model->parameter_count; i++) trainable += model->parameters[i]->requires_grad;
    for (int i = 0; i < slots.count; i++) {
        const Slot *slot = &slots.list[i];
        check(slot->tensor->requires_grad == slot->trains, "state_save: %s %s", slot->tensor->name,
              slot->trains ? "is frozen; a state knows only training of everything or of the adapter in use"
                           : "trains, though the adapter's A is frozen");
        trainable -= slot->trains;
    }
    check(trainable == 0, "state_save: %d more tensors train than belong to the state", trainable);
    if (state->optimizer->step > 0) {
        list_moments(&slots);
        point_at_moments(&slots, state->optimizer, false);
    }
    Document d;
    document_open(&d);
    put_state(d.out, state, &plan);
    bool good = document_close(&d, save->error, save->size);
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { STATE, d.text } };
    good = good && save_slots(save, STATE_FILE, MODEL_PREFIX, &slots, metadata, 2);
    free(d.text);
    free(slots.list);
    free(plan.layers);
    return good;
}

bool state_save(const char *dir, const TrainingState *state, char *error, size_t size)
{
    Save save;
    const Transformer *model = state->model;
    return save_begin(&save, dir, error, size)
        && save_end(&save, save_state(&save, state) // first, for it is what --resume goes by
                           && (model->active == NULL ? save_model(&save, model, &state->vocabulary)
                                                     : save_adapter(&save, model, model->active, state->base_dir)));
}

static bool get_uint64(const Json *json, const char *key, uint64_t *value, char *error, size_t size)
{
    const Json *number = json_get(json, key);
    if (number == NULL || !number->is_uint) return fail(error, size, "\"%s\" is missing or not a whole number", key);
    *value = number->uint_value;
    return true;
}

// What a state says besides its tensors, and besides what build_model reads.
static bool parse_state(const Json *json, TrainingState *state, AdamWConfig *adamw, long *optimizer_step, double *dropout,
                        char *error, size_t size)
{
    Schedule *s = &state->schedule;
    long version, batch_size;
    const char *data = NULL;
    const struct { const char *key; long least, most, *value; } whole[] = {
        { "version", STATE_VERSION, STATE_VERSION, &version }, { "step", 0, INT64_MAX, &state->step },
        { "optimizer_step", 0, INT64_MAX, optimizer_step }, { "warmup_iters", 0, INT64_MAX, &s->warmup_iters },
        { "max_iters", 0, INT64_MAX, &s->max_iters }, { "eval_interval", 0, INT64_MAX, &state->eval_interval },
        { "batch_size", 0, LARGEST_TABLE, &batch_size },
    };
    const struct { const char *key; double *value;
    } numbers[] = {
        { "beta1", &adamw->beta1 },         { "beta2", &adamw->beta2 }, { "weight_decay", &adamw->weight_decay },
        { "grad_clip", &adamw->grad_clip }, { "dropout", dropout },     { "learning_rate", &s->learning_rate },
        { "min_lr", &s->min_lr },
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!json_get_int(json, whole[i].key, whole[i].least, whole[i].most, whole[i].value, error, size)) return false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!json_get_number(json, numbers[i].key, numbers[i].value, error, size)) return false;
    if (!get_uint64(json, "seed", &state->seed, error, size) || !get_uint64(json, "text_hash", &state->text_hash, error, size)
        || (json_given(json, "data") && !json_get_string(json, "data", &data, error, size))) return false;
    if (!(*dropout >= 0 && *dropout < 1)) return fail(error, size, "\"dropout\" is %g", *dropout);
    state->batch_size = (int)batch_size;
    state->data = copy_text(data);
    return true;
}

// Takes over what PEFT's configuration does not say: what was asked for, and that only parts of c_attn are adapted.
static bool take_over(const Config *c, AdapterPlan *plan, const LoraConfig *lora, char *error, size_t size)
{
    unsigned parts = lora->targets >> LINEARS, count = (parts & 1) + (parts >> 1 & 1) + (parts >> 2 & 1);
    for (int i = 0; i < c->n_layer && count > 0; i++)
        if ((unsigned)plan->layers[i * LINEARS + C_ATTN].r % count != 0)
            return fail(error, size, "\"lora_targets\" are %u parts of c_attn, but its rank %d cannot be shared among them",
                        count, plan->layers[i * LINEARS + C_ATTN].r);
    if (plan->config.dropout != 0)
        return fail(error, size, "\"lora_dropout\" is %g; this engine trains adapters without", plan->config.dropout);
    plan->config.r = lora->r;
    plan->config.alpha = lora->alpha;
    plan->config.targets = lora->targets;
    plan->config.freeze_A = lora->freeze_A;
    return true;
}

// The model, as far as it can be built before the tensors are read; *slots lists these and is matched with the file.
static bool build_model(const Safetensors *file, const Json *json, const char *base_dir, bool moments, TrainingState *state,
                        Slots *slots, char *error, size_t size)
{
    char why[WHY];
    const Json *adapter = json_get(json, "adapter"), *tokenizer = json_get(json, "tokenizer");
    const char *name, *stored, *fingerprint, *targets, *bad;
    AdapterPlan plan = { 0 };
    LoraConfig lora = { 0 }; // as it was asked for, where PEFT's configuration says what came of it
    Config config;
    bool good;
    long r;
    if (adapter == NULL) {
        if (!parse_config(json_get(json, "config"), &config, why, sizeof why))
            return fail(error, size, "%s: %s", file->path, why);
        list_base(slots, &config);
        if (moments) list_moments(slots);
        good = match(file, slots, false, error, size) && memory_holds(3 * weight_bytes(&config), error, size) // and two moments
            && (state->model = transformer_new(config, 0, error, size)) != NULL;
        if (good) point_at_base(slots, state->model);
    } else {
        if (!json_get_string(json, "adapter_name", &name, why, sizeof why)
            || !json_get_string(json, "base_dir", &stored, why, sizeof why)
            || !json_get_string(json, FINGERPRINT, &fingerprint, why, sizeof why)
            || !json_get_bool(json, "freeze_A", &lora.freeze_A, why, sizeof why)
            || !json_get_int(json, "lora_r", 0, PEFT_LARGEST_RANK, &r, why, sizeof why)
            || !json_get_number(json, "lora_alpha", &lora.alpha, why, sizeof why)
            || !json_get_string(json, "lora_targets", &targets, why, sizeof why))
            return fail(error, size, "%s: %s", file->path, why);
        lora.r = (int)r;
        lora.targets = lora_targets(targets, &bad);
        if (lora.targets == 0) return fail(error, size, "%s: \"lora_targets\" names no layer", file->path);
        state->base_dir = copy_text(base_dir ? base_dir : stored);
        state->model = model_load(state->base_dir, NULL, error, size);
        good = state->model != NULL
            && same_base(state->model, fingerprint, file->path, "the base must be the one it was", error, size);
        if (good) good = peft_parse_config(adapter, &state->model->config, &plan, why, sizeof why)
                      || fail(error, size, "%s: %s", file->path, why);
        if (good)
            good =
                take_over(&state->model->config, &plan, &lora, why, sizeof why) || fail(error, size, "%s: %s", file->path, why);
        if (good) {
            list_adapter(slots, &state->model->config, &plan);
            if (moments) list_moments(slots);
            transformer_train_base(state->model, false);
            good = match(file, slots, false, error, size)
                && transformer_add_layers(state->model, name, plan.config, plan.layers, 0, error, size) != NULL;
        }
        if (good) point_at_adapter(slots, state->model->active, &state->model->config);
        free(plan.layers);
    }
    if (good && tokenizer != NULL
        && !parse_tokenizer(tokenizer, state->model->config.vocab_size, &state->vocabulary, why, sizeof why))
        return fail(error, size, "%s: the vocabulary: %s", file->path, why);
    return good;
}

bool state_load(const char *dir, const char *base_dir, TrainingState *state, char *error, size_t size)
{
    char why[WHY];
    Safetensors *file;
    *state = (TrainingState){ 0 };
    if (!open_tensors(dir, STATE_FILE, &file, error, size)) return false;
    const char *text = safetensors_metadata(file, STATE);
    Json *json = text == NULL ? NULL : json_parse(text, strlen(text), why, sizeof why);
    Slots slots = { 0 };
    AdamWConfig adamw = { 0 };
    long optimizer_step = 0;
    double dropout = 0;
    bool good = json != NULL || fail(error, size, "%s is no training state: %s", file->path,
                                     text == NULL ? "its metadata lacks " STATE : why);
    for (size_t e = 0; e < file->count && good; e++)
        if (file->entries[e].dtype != REAL_DTYPE)
            good = fail(error, size,
                        "%s holds %s, but this build computes in %s; go on with the build that wrote it (make REAL=%s)",
                        file->path, safetensors_dtype_name(file->entries[e].dtype), safetensors_dtype_name(REAL_DTYPE),
                        REAL_DTYPE == SAFETENSORS_F64 ? "float" : "double");
    if (good && !parse_state(json, state, &adamw, &optimizer_step, &dropout, why, sizeof why))
        good = fail(error, size, "%s: %s", file->path, why);
    good = good && build_model(file, json, base_dir, optimizer_step > 0, state, &slots, error, size);
    if (good) {
        state->model->config.dropout = dropout;
        state->optimizer = adamw_new(state->model->parameters, state->model->parameter_count, adamw);
        state->optimizer->step = optimizer_step;
        point_at_moments(&slots, state->optimizer, true);
        good = read_slots(file, &slots, error, size);
    }
    free(slots.list);
    json_free(json);
    safetensors_close(file);
    if (!good) state_free(state);
    return good;
}

void state_free(TrainingState *state)
{
    adamw_free(state->optimizer); // first: it looks at the model's tensors
    transformer_free(state->model);
    vocabulary_free(&state->vocabulary);
    free(state->data);
    free(state->base_dir);
    *state = (TrainingState){ 0 };
}
