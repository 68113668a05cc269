// test_checkpoint.c - models, adapters and training states: to disk and back without losing a bit, the names and shapes that
// other libraries expect, and what must be refused without leaving anything behind. Works in a directory of its own under
// TMPDIR.

#include "../io/adapter_file.h"
#include "../io/file.h"
#include "../io/json.h"
#include "../io/model_file.h"
#include "../io/peft.h"
#include "../io/safetensors.h"
#include "../io/state_file.h"
#include "directory.h"
#include "test.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { V = 13, T = 8, L = 3, H = 2, C = 8 };
static const Config small = { .vocab_size = V, .block_size = T, .n_layer = L, .n_head = H, .n_embd = C };
static const SafetensorsDtype own = sizeof(real) == sizeof(double) ? SAFETENSORS_F64 : SAFETENSORS_F32;
static const SafetensorsDtype other = sizeof(real) == sizeof(double) ? SAFETENSORS_F32 : SAFETENSORS_F64;

static char root[300], error[2000];

// --- helpers ---

static char *in_root(const char *name) // the same pointer for the same name, valid to the end
{
    static char *paths[128];
    static int count;
    char path[800];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (int i = 0; i < count; i++)
        if (strcmp(paths[i], path) == 0) return paths[i];
    if (count == 128) { printf("in_root: more than 128 paths\n"); exit(1); }
    return paths[count++] = strdup(path);
}

static bool one_line(const char *word) { return error[0] != '\0' && !strchr(error, '\n') && strstr(error, word); }

static void give_up(const char *what) { printf("%s: %s\n", what, error); exit(1); }

static char *read_text(const char *path, size_t *n)
{
    char *bytes;
    size_t size;
    if (!file_read(path, 1 << 24, &bytes, &size, error, sizeof error)) give_up("test");
    if (n) *n = size;
    return bytes;
}

static void write_text(const char *path, const char *bytes, size_t n)
{
    FILE *out = fopen(path, "wb"); // not file_write_all, which waits for the disk
    if (!out || fwrite(bytes, 1, n, out) != n || fclose(out) != 0) { perror(path); exit(1); }
}

static bool same_bytes(const char *a, const char *b)
{
    size_t n, m;
    char *x = read_text(a, &n), *y = read_text(b, &m);
    bool same = n == m && memcmp(x, y, n) == 0;
    free(x), free(y);
    return same;
}

static int files_in(const char *path)
{
    int n = -2; // . and ..
    DIR *d = opendir(path);
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

// `text` with the first `old` in it replaced.
static char *replaced(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    if (at == NULL) { printf("%s is not in %s\n", old, text); exit(1); }
    char *result = malloc(strlen(text) + strlen(new) + 1);
    sprintf(result, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    return result;
}

static Vocabulary letters(int n)
{
    Vocabulary v = { n, malloc((size_t)n * sizeof *v.code_point) };
    for (int i = 0; i < n; i++)
        v.code_point[i] = i == 0 ? 0 : i < 4 ? (uint32_t[]){ 0, '\n', '"', '\\' }[i] : (uint32_t)(0x80 + 37 * i * i);
    return v;
}

static void disturb(Tensor *t, uint64_t seed)
{
    for (long i = 0; i < t->size; i++) t->data[i] += (real)(0.1 * random_normal(seed, (uint64_t)i));
}

// A model in which no tensor is like another.
static Transformer *new_model(uint64_t seed)
{
    Transformer *model = transformer_new(small, seed, error, sizeof error);
    for (int i = 0; model && i < model->base_count; i++) disturb(model->parameters[i], seed + 100 + (uint64_t)i);
    return model;
}

static Adapter *new_adapter(Transformer *model, const char *name, LoraConfig config, uint64_t seed)
{
    Adapter *adapter = transformer_add_adapter(model, name, config, seed, error, sizeof error);
    if (adapter == NULL) give_up("new_adapter");
    for (int i = 0; i < L * LINEARS; i++) {
        const Lora *lora = &adapter->lora[i];
        if (lora->A == NULL) continue;
        disturb(lora->A, seed + (uint64_t)i);
        disturb(lora->B, seed + 50 + (uint64_t)i);
        for (long j = 0; lora->mask && j < lora->B->size; j++) lora->B->data[j] *= lora->mask->data[j];
    }
    return adapter;
}

static bool same_bits(const Tensor *a, const Tensor *b)
{
    return a->size == b->size && same_shape(a, b) && memcmp(a->data, b->data, (size_t)a->size * sizeof(real)) == 0;
}

static bool same_base(const Transformer *a, const Transformer *b)
{
    bool same = a->base_count == b->base_count;
    for (int i = 0; i < a->base_count && same; i++)
        same = same_bits(a->parameters[i], b->parameters[i]) && strcmp(a->parameters[i]->name, b->parameters[i]->name) == 0;
    return same;
}

static bool same_adapter(const Adapter *a, const Adapter *b)
{
    for (int i = 0; i < L * LINEARS; i++) {
        const Lora *x = &a->lora[i], *y = &b->lora[i];
        if ((x->A == NULL) != (y->A == NULL)) return false;
        if (x->A && !(same_bits(x->A, y->A) && same_bits(x->B, y->B) && memcmp(&x->scale, &y->scale, sizeof x->scale) == 0))
            return false;
    }
    return true;
}

// Writes tensors that need not be what a configuration says. Their values are 0.01 times a count.
typedef struct { const char *name; int ndim, shape[3]; } Item;
static void write_items(const char *path, const Item *items, size_t count, SafetensorsDtype dtype)
{
    static double values[20000];
    SafetensorsTensor *tensors = calloc(count, sizeof *tensors);
    for (int i = 0; i < 20000; i++) {
        if (dtype == SAFETENSORS_F64) values[i] = 0.01 * i;
        else ((float *)values)[i] = (float)(0.01 * i);
    }
    for (size_t i = 0; i < count; i++)
        tensors[i] = (SafetensorsTensor){ items[i].name, dtype, items[i].ndim, items[i].shape, values };
    SafetensorsMetadata format = { "format", "pt" };
    if (safetensors_write(path, tensors, count, &format, 1, error, sizeof error)) give_up("write_items");
    free(tensors);
}

// The tensors of a saved file as items, with room for more: names belong to *file.
static size_t items_of(const char *path, Item *items, Safetensors **file)
{
    if (safetensors_open(path, file, error, sizeof error)) give_up("items_of");
    for (size_t i = 0; i < (*file)->count; i++) {
        const SafetensorsEntry *e = &(*file)->entries[i];
        items[i] = (Item){ e->name, (int)e->ndim, { (int)e->shape[0], e->ndim > 1 ? (int)e->shape[1] : 1, 1 } };
    }
    return (*file)->count;
}

// --- models ---

TEST(models_return_to_the_bit)
{
    Transformer *model = new_model(1);
    Vocabulary v = letters(V), back;
    real odd[] = { (real)NAN, (real)INFINITY, -(real)INFINITY, (real)-0.0, (real)1e-42 };
    memcpy(model->blocks[1].linear[C_FC].weight->data, odd, sizeof odd);
    char *dir = in_root("deep/er/model/");
    EXPECT(model_save(model, &v, dir, error, sizeof error), "%s", error);
    EXPECT(files_in(dir) == 4, "%d files", files_in(dir));
    Transformer *copy = model_load(dir, &back, error, sizeof error);
    EXPECT(copy && same_base(model, copy), "%s", error);
    EXPECT(vocabulary_equal(&v, &back), "%d characters", back.size);
    EXPECT(copy && transformer_hash(model) == transformer_hash(copy), "%s", error);
    if (copy != NULL) {
        const Config *c = &copy->config;
        EXPECT(c->vocab_size == V && c->block_size == T && c->n_layer == L && c->n_head == H && c->n_embd == C
                   && c->dropout == 0,
               "another configuration");
    }
    for (int i = 0; copy && i < copy->base_count; i++)
        EXPECT(copy->parameters[i]->requires_grad, "%s is frozen", copy->parameters[i]->name);
    EXPECT(copy && model_save(copy, &back, in_root("again"), error, sizeof error), "%s", error);
    EXPECT(same_bytes(in_root("again/model.safetensors"), in_root("deep/er/model/model.safetensors")),
           "saved again it is another file");
    EXPECT(same_bytes(in_root("again/tokenizer.json"), in_root("deep/er/model/tokenizer.json")),
           "saved again it is another vocabulary");
    vocabulary_free(&back);
    transformer_free(copy);

    EXPECT(model_save(model, NULL, in_root("mute"), error, sizeof error), "%s", error);
    EXPECT(files_in(in_root("mute")) == 2, "%d files without a vocabulary", files_in(in_root("mute")));
    copy = model_load(in_root("mute"), &back, error, sizeof error);
    EXPECT(copy != NULL && back.size == 0, "%s", error);
    EXPECT(!vocabulary_load(in_root("mute"), V, &back, error, sizeof error) && one_line("tokenizer.json"), "%s", error);
    transformer_free(copy);

    LoraConfig lora = {
        .r = 2, .alpha = 4, .targets = 1, .last_block = -1
    }; // a merged adapter is part of the base that is saved, another is not
    new_adapter(model, "x", lora, 5);
    EXPECT(model_save(model, NULL, in_root("beside"), error, sizeof error)
               && same_bytes(in_root("beside/model.safetensors"), in_root("mute/model.safetensors")),
           "%s", error);
    transformer_merge(model);
    EXPECT(model_save(model, NULL, in_root("merged"), error, sizeof error)
               && !same_bytes(in_root("merged/model.safetensors"), in_root("mute/model.safetensors")),
           "%s", error);
    transformer_free(model);
    vocabulary_free(&v);
}

TEST(names_and_shapes_are_those_of_gpt2)
{
    static const struct { const char *name; int ndim, shape[2]; } block[] = {
        { "ln_1.weight", 1, { C } },
        { "ln_1.bias", 1, { C } },
        { "attn.c_attn.weight", 2, { C, 3 * C } },
        { "attn.c_attn.bias", 1, { 3 * C } },
        { "attn.c_proj.weight", 2, { C, C } },
        { "attn.c_proj.bias", 1, { C } },
        { "ln_2.weight", 1, { C } },
        { "ln_2.bias", 1, { C } },
        { "mlp.c_fc.weight", 2, { C, 4 * C } },
        { "mlp.c_fc.bias", 1, { 4 * C } },
        { "mlp.c_proj.weight", 2, { 4 * C, C } },
        { "mlp.c_proj.bias", 1, { C } },
    };
    static const char *const settings[] = {
        "\"architectures\": [\"GPT2LMHeadModel\"]",
        "\"model_type\": \"gpt2\"",
        "\"vocab_size\": 13",
        "\"n_positions\": 8",
        "\"n_ctx\": 8",
        "\"n_embd\": 8",
        "\"n_layer\": 3",
        "\"n_head\": 2",
        "\"n_inner\": null",
        "\"activation_function\": \"gelu_new\"",
        "\"resid_pdrop\": 0.0",
        "\"embd_pdrop\": 0.0",
        "\"attn_pdrop\": 0.0",
        "\"layer_norm_epsilon\": 1e-05",
        "\"initializer_range\": 0.02",
        "\"scale_attn_weights\": true",
        "\"scale_attn_by_inverse_layer_idx\": false",
        "\"reorder_and_upcast_attn\": false",
        "\"use_cache\": true",
        "\"tie_word_embeddings\": true",
        "\"bos_token_id\": null",
        "\"eos_token_id\": null",
    };
    Transformer *model = new_model(2);
    Vocabulary v = letters(V);
    EXPECT(model_save(model, &v, in_root("gpt2"), error, sizeof error), "%s", error);
    Safetensors *file;
    const SafetensorsEntry *e;
    if (safetensors_open(in_root("gpt2/model.safetensors"), &file, error, sizeof error)) give_up("names");
    EXPECT(file->count == 4 + 12 * L, "%zu tensors", file->count);
    for (int i = 0; i < L; i++)
        for (size_t k = 0; k < sizeof block / sizeof *block; k++) {
            char name[80];
            snprintf(name, sizeof name, "transformer.h.%d.%s", i, block[k].name);
            EXPECT(!safetensors_find(file, name, &e, error, sizeof error) && e->dtype == own
                       && safetensors_shape_is(e, block[k].ndim, block[k].shape),
                   "%s", name);
        }
    EXPECT(!safetensors_find(file, "transformer.wte.weight", &e, error, sizeof error)
               && safetensors_shape_is(e, 2, (int[]){ V, C }),
           "wte");
    EXPECT(!safetensors_find(file, "transformer.wpe.weight", &e, error, sizeof error)
               && safetensors_shape_is(e, 2, (int[]){ T, C }),
           "wpe");
    EXPECT(!safetensors_find(file, "transformer.ln_f.weight", &e, error, sizeof error)
               && safetensors_shape_is(e, 1, (int[]){ C }),
           "ln_f");
    EXPECT(!safetensors_find(file, "transformer.ln_f.bias", &e, error, sizeof error)
               && safetensors_shape_is(e, 1, (int[]){ C }),
           "ln_f");
    const char *format = safetensors_metadata(file, "format");
    EXPECT(format && strcmp(format, "pt") == 0, "metadata");
    safetensors_close(file);

    char *config = read_text(in_root("gpt2/config.json"), NULL), *tokenizer = read_text(in_root("gpt2/tokenizer.json"), NULL);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        EXPECT(strstr(config, settings[i]), "%s is missing", settings[i]);
    EXPECT(strstr(config, own == SAFETENSORS_F64 ? "\"torch_dtype\": \"float64\"" : "\"torch_dtype\": \"float32\""), "%s",
           config);
    EXPECT(strstr(tokenizer, "\"pattern\":{\"Regex\":\"[\\\\s\\\\S]\"},\"behavior\":\"Isolated\""), "%s", tokenizer);
    EXPECT(strstr(tokenizer, "\"vocab\":{\"\\u0000\":0,\"\\n\":1,\"\\\"\":2,\"\\\\\":3,"), "%s", tokenizer);
    free(config), free(tokenizer);
    tokenizer = read_text(in_root("gpt2/tokenizer_config.json"), NULL);
    EXPECT(
        strstr(tokenizer,
               "\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"model_max_length\":8,\"clean_up_tokenization_spaces\":false"),
        "%s", tokenizer);
    free(tokenizer);
    transformer_free(model);
    vocabulary_free(&v);
}

TEST(other_peoples_model_files)
{
    static Item items[100];
    Safetensors *file;
    Transformer *model = new_model(3), *copy;
    if (!model_save(model, NULL, in_root("theirs"), error, sizeof error)) give_up("theirs");
    char *path = in_root("theirs/model.safetensors");
    size_t n = items_of(path, items, &file);
    for (size_t i = 0; i < n; i++) items[i].name += strlen("transformer."); // as OpenAI's file has them
    items[n] = (Item){ "h.0.attn.bias", 3, { 1, T, T } };
    items[n + 1] = (Item){ "h.2.attn.masked_bias", 0, { 1 } };
    items[n + 2] = (Item){ "lm_head.weight", 2, { V, C } };
    write_items(path, items, n + 3, SAFETENSORS_F32);
    copy = model_load(in_root("theirs"), NULL, error, sizeof error);
    EXPECT(copy != NULL, "%s", error);
    for (int i = 0; copy && i < copy->base_count; i++)
        for (long j = 0; j < copy->parameters[i]->size; j++)
            EXPECT((float)copy->parameters[i]->data[j] == (float)(0.01 * (double)j), "%s[%ld] is %g", copy->parameters[i]->name,
                   j, (double)copy->parameters[i]->data[j]);
    transformer_free(copy);
    write_items(path, items, n + 2, other); // the other type is read as well, and no head is needed
    copy = model_load(in_root("theirs"), NULL, error, sizeof error);
    EXPECT(copy != NULL && (float)copy->wte->data[7] == 0.07f, "%s", error);
    transformer_free(copy);

    items[n + 2] = (Item){ "lm_head.weight", 2, { V - 1, C } };
    write_items(path, items, n + 3, SAFETENSORS_F32);
    EXPECT(!model_load(in_root("theirs"), NULL, error, sizeof error) && one_line("lm_head.weight"), "%s", error);
    items[n] = (Item){ "transformer.wte.weight", 2, { V, C } }; // with and without prefix in one file
    write_items(path, items, n + 1, SAFETENSORS_F32);
    EXPECT(!model_load(in_root("theirs"), NULL, error, sizeof error) && one_line("1 tensor unknown")
               && strstr(error, "wte.weight"),
           "%s", error);
    items[n] = (Item){ "h.0.attn.c_attn.masked_bias", 1, { 1 } }; // not a mask
    write_items(path, items, n + 1, SAFETENSORS_F32);
    EXPECT(!model_load(in_root("theirs"), NULL, error, sizeof error) && one_line("1 tensor unknown"), "%s", error);
    safetensors_close(file);
    transformer_free(model);
}

TEST(missing_unknown_and_misshaped_tensors)
{
    static Item items[100];
    Safetensors *file;
    Transformer *model = new_model(4);
    if (!model_save(model, NULL, in_root("unfit"), error, sizeof error)) give_up("unfit");
    char *path = in_root("unfit/model.safetensors");
    size_t n = items_of(path, items, &file);
    long held = ledger.total;
    for (size_t i = 0; i < n; i++) { // each tensor in turn: away, transposed or longer, under another name
        Item original = items[i];
        items[i] = items[n - 1];
        write_items(path, items, n - 1, own);
        EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line(": 1 tensor missing (\"")
                   && strstr(error, original.name + 12),
               "%s: %s", original.name, error);
        items[i] = original;
        if (original.ndim == 2 && original.shape[0] != original.shape[1])
            items[i].shape[0] = original.shape[1], items[i].shape[1] = original.shape[0];
        else items[i].shape[0]++;
        write_items(path, items, n, own);
        EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line(": 1 tensor of another shape (\"")
                   && strstr(error, original.name),
               "%s: %s", original.name, error);
        items[i] = original;
        items[i].name = "transformer.h.3.new\n\"name\"";
        write_items(path, items, n, own);
        EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line("1 tensor missing")
                   && strstr(error, "; 1 tensor unknown (\"transformer.h.3.new\\n"),
               "%s: %s", original.name, error);
        items[i] = original;
    }
    write_items(path, items, n - 20, own);
    EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line("20 tensors missing")
               && strstr(error, ", ...)"),
           "%s", error);
    char *config = read_text(in_root("unfit/config.json"), NULL),
         *changed = replaced(config, "\"n_layer\": 3", "\"n_layer\": 4");
    write_items(path, items, n, own);
    write_text(in_root("unfit/config.json"), changed, strlen(changed));
    EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line("12 tensors missing"), "%s", error);
    EXPECT(ledger.total == held, "%ld bytes are left", ledger.total - held);
    free(config), free(changed);
    safetensors_close(file);
    transformer_free(model);
}

TEST(hostile_configurations)
{
    static const struct { const char *old, *new, *word; } cases[] = {
        { "\"n_layer\": 3", "\"n_layer\": 4096", "missing" },
        { "\"n_layer\": 3", "\"n_layer\": 5000", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": -1", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": 0", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": \"3\"", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": 3.5", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": null", "n_layer" },
        { "\"n_layer\": 3", "\"n_layers\": 3", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": 99999999999999999999999", "n_layer" },
        { "\"n_embd\": 8", "\"n_embd\": 65536", "another shape" },
        { "\"n_embd\": 8", "\"n_embd\": 2147483647", "n_embd" },
        { "\"n_embd\": 8", "\"n_embd\": 9", "multiple" },
        { "\"n_head\": 2", "\"n_head\": 0", "n_head" },
        { "\"n_head\": 2", "\"n_head\": 16", "n_head" },
        { "\"n_head\": 2", "\"n_head\": 3", "multiple" },
        { "\"vocab_size\": 13", "\"vocab_size\": 268435456", "another shape" },
        { "\"vocab_size\": 13", "\"vocab_size\": 4294967309", "vocab_size" },
        { "\"n_positions\": 8", "\"n_positions\": 268435456", "another shape" },
        { "\"n_positions\": 8", "\"n_positions\": 9", "another shape" },
        { "\"n_inner\": null", "\"n_inner\": 31", "n_inner" },
        { "\"n_inner\": null", "\"n_inner\": true", "n_inner" },
        { "gelu_new", "gelu", "activation_function" },
        { "\"gelu_new\"", "7", "activation_function" },
        { "1e-05", "1e-06", "layer_norm_epsilon" },
        { "1e-05", "\"x\"", "layer_norm_epsilon" },
        { "\"scale_attn_weights\": true", "\"scale_attn_weights\": false", "scale_attn_weights" },
        { "idx\": false", "idx\": true", "scale_attn_by_inverse_layer_idx" },
        { "upcast_attn\": false", "upcast_attn\": true", "reorder_and_upcast_attn" },
        { "embeddings\": true", "embeddings\": false", "tie_word_embeddings" },
        { "embeddings\": true", "embeddings\": 1", "tie_word_embeddings" },
        { "\"gpt2\"", "\"llama\"", "model_type" },
        { "\"model_type\"", "\"type\"", "model_type" },
        { "\"use_cache\": true", "\"add_cross_attention\": true", "add_cross_attention" },
        { "\"use_cache\": true", "\"pruned_heads\": {\"0\": [1]}", "pruned_heads" },
        { "\"use_cache\": true", "\"quantization_config\": {\"bits\": 4}", "quantization_config" },
        { "\"use_cache\": true", "\"n_layer\": 3", "config.json" },
        { "{", "[", "config.json" },
        { "{", "", "config.json" },
    };
    Transformer *model = new_model(5), *copy;
    if (!model_save(model, NULL, in_root("hostile"), error, sizeof error)) give_up("hostile");
    char *path = in_root("hostile/config.json"), *config = read_text(path, NULL);
    long held = ledger.total, mallocs = ledger.mallocs;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replaced(config, cases[i].old, cases[i].new);
        write_text(path, changed, strlen(changed));
        copy = model_load(in_root("hostile"), NULL, error, sizeof error);
        EXPECT(copy == NULL && one_line(cases[i].word), "%s: %s", cases[i].new, error);
        transformer_free(copy);
        free(changed);
    }
    EXPECT(ledger.total == held && ledger.mallocs == mallocs, "memory was asked for: %ld bytes, %ld buffers",
           ledger.total - held, ledger.mallocs - mallocs);
    static const char *const kind[] = { "{}", "[]", "\"gpt2\"", "3", "" };
    for (int i = 0; i < 5; i++) {
        write_text(path, kind[i], strlen(kind[i]));
        EXPECT(!model_load(in_root("hostile"), NULL, error, sizeof error) && one_line("config.json"), "%s: %s", kind[i], error);
    }
    static const char least[] =
        "{\"model_type\":\"gpt2\",\"vocab_size\":13,\"n_positions\":8,\"n_embd\":8,\"n_layer\":3,\"n_head\":2,\"n_inner\":32}";
    write_text(path, least, strlen(least));
    copy = model_load(in_root("hostile"), NULL, error, sizeof error);
    EXPECT(copy != NULL && same_base(copy, model), "%s", error);
    transformer_free(copy);
    remove(path);
    EXPECT(!model_load(in_root("hostile"), NULL, error, sizeof error) && one_line("config.json"), "%s", error);
    free(config);
    transformer_free(model);
}

TEST(other_tokenizers)
{
    static const struct { const char *old, *new; } cases[] = {
        { "WordLevel", "BPE" },
        { "Isolated", "Removed" },
        { "[\\\\s\\\\S]", "." },
        { "Fuse", "ByteLevel" },
        { "\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}" },
        { "\"added_tokens\":[]", "\"added_tokens\":[{\"id\":0}]" },
        { "\"post_processor\":null", "\"post_processor\":{\"type\":\"TemplateProcessing\",\"special_tokens\":{\"x\":1}}" },
        { "\"\\n\":1", "\"\\n\":2" },
        { "\"\\n\":1", "\"\\n\":-1" },
        { "\"\\n\":1", "\"\\n\":13" },
        { "\"\\n\":1", "\"\\n\":1.0" },
        { "\"\\n\":1", "\"\\n\":\"1\"" },
        { "\"\\n\":1", "\"\\n\\n\":1" },
        { "\"\\n\":1", "\"\":1" },
        { "\"\\n\":1,\"\\\"\":2", "\"\\n\":2,\"\\\"\":1" },
        { "\"\\n\":1,", "" },
        { "\"vocab\":{", "\"vocab\":[" },
        { "\"vocab\"", "\"words\"" },
    };
    Transformer *model = new_model(6), *copy;
    Vocabulary v = letters(V), back;
    if (!model_save(model, &v, in_root("tokens"), error, sizeof error)) give_up("tokens");
    char *path = in_root("tokens/tokenizer.json"), *tokenizer = read_text(path, NULL), *changed;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        changed = replaced(tokenizer, cases[i].old, cases[i].new);
        write_text(path, changed, strlen(changed));
        EXPECT(!vocabulary_load(in_root("tokens"), V, &back, error, sizeof error) && one_line("tokenizer.json")
                   && back.size == 0,
               "%s: %s", cases[i].new, error);
        copy = model_load(in_root("tokens"), &back, error, sizeof error); // the model is good without
        EXPECT(copy != NULL && back.size == 0, "%s", cases[i].new);
        transformer_free(copy);
        free(changed);
    }
    changed = replaced(tokenizer, "\"post_processor\":null",
                       "\"post_processor\":{\"type\":\"TemplateProcessing\",\"special_tokens\":{}}"); // what transformers adds
    write_text(path, changed, strlen(changed));
    EXPECT(vocabulary_load(in_root("tokens"), V, &back, error, sizeof error) && vocabulary_equal(&v, &back), "%s", error);
    vocabulary_free(&back);
    EXPECT(!vocabulary_load(in_root("tokens"), V + 1, &back, error, sizeof error) && one_line("13 tokens"), "%s", error);
    free(changed), free(tokenizer);
    vocabulary_free(&v);
    transformer_free(model);
}

// --- adapters ---

static LoraConfig everywhere(int r, double alpha)
{ return (LoraConfig){ .r = r, .alpha = alpha, .targets = 15, .last_block = -1 }; }

TEST(adapters_return_to_the_bit)
{
    Transformer *model = new_model(7), *twin = new_model(7);
    int by_block[L], saved = 0;
    for (unsigned targets = 1; targets < 16; targets++)
        for (int first = 0; first < L; first++)
            for (int last = first; last < L; last++) {
                int variant = (int)(targets + (unsigned)saved) % 4; // each kind of rank in turn
                LoraConfig config = { .r = 3 + variant,
                                      .alpha = variant == 1 ? 0.1 : 7,
                                      .targets = targets,
                                      .first_block = first,
                                      .last_block = last,
                                      .rank_stabilized = variant & 1 };
                for (int i = 0; i < L; i++) by_block[i] = i == first ? 2 : (i * 3 + variant) % 4; // 0: none in that block
                if (variant >= 2) config.r_by_block = by_block;
                Adapter *adapter = new_adapter(model, "a", config, targets);
                EXPECT(adapter_save(model, adapter, "a/base \"dir\"", in_root("adapter"), error, sizeof error), "%s", error);
                Adapter *back = adapter_load(twin, in_root("adapter"), "b", false, error, sizeof error);
                EXPECT(back && same_adapter(adapter, back), "targets %u, blocks %d to %d, variant %d: %s", targets, first, last,
                       variant, error);
                EXPECT(back == NULL
                           || (twin->active == back && back->config.rank_stabilized == config.rank_stabilized
                               && back->config.alpha == config.alpha),
                       "its settings");
                EXPECT(back == NULL || adapter_size(back, &small) == adapter_size(adapter, &small), "its size");
                EXPECT(twin->parameter_count == model->parameter_count, "%d and %d parameters", twin->parameter_count,
                       model->parameter_count);
                for (int i = model->base_count; i < model->parameter_count; i++) // the one list: the same, in the same order
                    EXPECT(strcmp(model->parameters[i]->name + 1, twin->parameters[i]->name + 1) == 0
                               && same_bits(model->parameters[i], twin->parameters[i]) && twin->parameters[i]->requires_grad,
                           "%s and %s", model->parameters[i]->name, twin->parameters[i]->name);
                saved++;
                transformer_remove_adapter(model, adapter);
                if (back) transformer_remove_adapter(twin, back);
            }
    EXPECT(saved == 15 * 6, "%d adapters", saved);
    char base[100];
    EXPECT(adapter_base(in_root("adapter"), base, sizeof base, error, sizeof error) && strcmp(base, "a/base \"dir\"") == 0,
           "%s", error);
    EXPECT(!adapter_base(in_root("adapter"), base, 5, error, sizeof error) && one_line("too long"), "%s", error);
    EXPECT(files_in(in_root("adapter")) == 2, "%d files", files_in(in_root("adapter")));

    Adapter *adapter = new_adapter(model, "odd", everywhere(2, 4), 9); // NaN and infinity, and another adapter beside it
    adapter->lora[3].A->data[1] = (real)NAN;
    adapter->lora[3].B->data[2] = (real)INFINITY;
    Adapter *first = new_adapter(twin, "first", everywhere(1, 1), 3);
    EXPECT(adapter_save(model, adapter, ".", in_root("adapter"), error, sizeof error), "%s", error);
    Adapter *back = adapter_load(twin, in_root("adapter"), "second", false, error, sizeof error);
    EXPECT(back && same_adapter(adapter, back) && twin->active == back && back->next == first, "%s", error);
    EXPECT(!first->lora[0].A->requires_grad && first->lora[0].A->data != NULL, "the other adapter");
    EXPECT(!adapter_load(twin, in_root("adapter"), "first", false, error, sizeof error) && one_line("first")
               && twin->active == back,
           "%s", error);
    EXPECT(!adapter_save(model, adapter, "\xff", in_root("adapter"), error, sizeof error) && one_line("UTF-8"), "%s", error);
    transformer_free(model);
    transformer_free(twin);
}

TEST(names_and_shapes_are_those_of_peft)
{
    Transformer *model = new_model(8);
    int by_block[L] = { 4, 0, 6 };
    LoraConfig config = everywhere(4, 8);
    config.r_by_block = by_block;
    Adapter *adapter = new_adapter(model, "a", config, 1);
    EXPECT(adapter_save(model, adapter, "./base", in_root("peft"), error, sizeof error), "%s", error);
    static const struct { const char *name; int I, O; } layers[] = {
        { "attn.c_attn", C, 3 * C }, { "attn.c_proj", C, C }, { "mlp.c_fc", C, 4 * C }, { "mlp.c_proj", 4 * C, C },
    };
    Safetensors *file;
    if (safetensors_open(in_root("peft/adapter_model.safetensors"), &file, error, sizeof error)) give_up("peft");
    EXPECT(file->count == 16, "%zu tensors", file->count);
    for (int i = 0; i < L; i += 2)
        for (int k = 0; k < LINEARS; k++)
            for (int half = 0; half < 2; half++) {
                const SafetensorsEntry *e;
                char name[120];
                int r = by_block[i], rows = half ? layers[k].O : r, columns = half ? r : layers[k].I;
                snprintf(name, sizeof name, "base_model.model.transformer.h.%d.%s.lora_%c.weight", i, layers[k].name,
                         "AB"[half]);
                bool found = !safetensors_find(file, name, &e, error, sizeof error)
                             && safetensors_shape_is(e, 2, (int[]){ rows, columns });
                EXPECT(found, "%s", name);
                if (!found) continue;
                real values[400]; // transposed
                const Tensor *t = half ? adapter->lora[i * LINEARS + k].B : adapter->lora[i * LINEARS + k].A;
                EXPECT(e->elements <= 400 && !safetensors_read(file, e, values, own, error, sizeof error), "%s", error);
                for (int row = 0; row < rows; row++)
                    for (int column = 0; column < columns; column++)
                        EXPECT(memcmp(&values[row * columns + column], &t->data[column * rows + row], sizeof(real)) == 0,
                               "%s[%d][%d]", name, row, column);
            }
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)transformer_hash(model));
    EXPECT(strcmp(safetensors_metadata(file, "format"), "pt") == 0
               && strcmp(safetensors_metadata(file, "base_fingerprint"), hash) == 0,
           "metadata");
    safetensors_close(file);
    char *json = read_text(in_root("peft/adapter_config.json"), NULL);
    static const char *const settings[] = {
        "\"base_model_name_or_path\": \"./base\"",
        "\"bias\": \"none\"",
        "\"fan_in_fan_out\": true",
        "\"inference_mode\": true",
        "\"layers_to_transform\": [0, 2]",
        "\"lora_alpha\": 8,",
        "\"lora_dropout\": 0,",
        "\"peft_type\": \"LORA\"",
        "\"r\": 4",
        "\"h.2.attn.c_proj\": 6",
        "\"alpha_pattern\": {}",
        "\"task_type\": \"CAUSAL_LM\"",
        "\"target_modules\": [\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]",
        "\"use_dora\": false",
        "\"use_rslora\": false",
        "\"modules_to_save\": null",
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        EXPECT(strstr(json, settings[i]), "%s is missing in %s", settings[i], json);
    EXPECT(!strstr(json, "h.0."), "%s", json);
    free(json);
    transformer_free(model);
}

// Writes an adapter's configuration and tensors: layers "0:attn.c_attn:4 ..." as block, name and rank.
static void write_adapter(const char *json, const char *layers)
{
    static char names[60][120];
    Item items[60];
    size_t n = 0;
    int block, r, used;
    char name[40];
    for (; sscanf(layers, " %d:%39[^:]:%d%n", &block, name, &r, &used) == 3; layers += used, n += 2) {
        int k = 0;
        while (strcmp(linear_names[k], name) != 0) k++;
        snprintf(names[n], sizeof names[n], "base_model.model.transformer.h.%d.%s.lora_A.weight", block, name);
        snprintf(names[n + 1], sizeof names[n], "base_model.model.transformer.h.%d.%s.lora_B.weight", block, name);
        items[n] = (Item){ names[n], 2, { r, linear_inputs(&small, (LinearKind)k) } };
        items[n + 1] = (Item){ names[n + 1], 2, { linear_outputs(&small, (LinearKind)k), r } };
    }
    mkdir(in_root("by_hand"), 0777);
    write_text(in_root("by_hand/adapter_config.json"), json, strlen(json));
    write_items(in_root("by_hand/adapter_model.safetensors"), items, n, SAFETENSORS_F32);
}

TEST(other_peoples_adapters)
{
    static const struct { const char *json, *layers; double alpha_of_first; bool root; } cases[] = {
        { "{\"peft_type\":\"LORA\"}", "0:attn.c_attn:8 1:attn.c_attn:8 2:attn.c_attn:8", 8, false }, // PEFT's defaults
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"c_proj\"],\"layers_to_transform\":1}",
          "1:attn.c_proj:2 1:mlp.c_proj:2", 8, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\"all-linear\",\"layers_to_transform\":[2,0,9],\"layers_"
          "pattern\":[\"h\"]}",
          "0:attn.c_attn:2 0:attn.c_proj:2 0:mlp.c_fc:2 0:mlp.c_proj:2 2:attn.c_attn:2 2:attn.c_proj:2 2:mlp.c_fc:2 "
          "2:mlp.c_proj:2",
          8, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3,\"target_modules\":[\"h.2.mlp.c_fc\",\"transformer.h.0.attn.c_"
          "proj\",\"nowhere\"]}",
          "0:attn.c_proj:2 2:mlp.c_fc:2", 3, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\".*[02]\\\\.(mlp|attn)\\\\.c_(fc|attn)\",\"use_rslora\":true}",
          "0:attn.c_attn:2 0:mlp.c_fc:2 2:attn.c_attn:2 2:mlp.c_fc:2", 8, true },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\"(?:transformer\\\\.)?h?\\\\.?[a-z]?\\\\.[1-2]+\\\\.(mlp|none)*"
          "\\\\.c_fc\"}",
          "1:mlp.c_fc:2 2:mlp.c_fc:2", 8, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\"transformer\\\\.h\\\\.\\\\d\\\\.(?:mlp\\\\.c_fc|attn\\\\.c_"
          "attn)\",\"bias\":\"none\",\"lora_dropout\":0.5,\"fan_in_fan_out\":false,"
          "\"rank_pattern\":{\"c_fc\":5,\"h.0.mlp.c_fc\":7,\"^transformer.h.1.attn.c_attn\":3},\"alpha_pattern\":{\"h\\\\."
          "0\\\\..*\":1.5},\"unknown\":1,\"loftq_config\":{}}",
          "0:attn.c_attn:2 0:mlp.c_fc:5 1:attn.c_attn:3 1:mlp.c_fc:5 2:attn.c_attn:2 2:mlp.c_fc:5", 1.5,
          false }, // the first pattern that fits decides
    };
    Transformer *model = new_model(9), *twin = new_model(9);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_adapter(cases[i].json, cases[i].layers);
        Adapter *adapter = adapter_load(model, in_root("by_hand"), "a", false, error, sizeof error);
        EXPECT(adapter != NULL, "%s: %s", cases[i].json, error);
        if (adapter == NULL) continue;
        const Lora *lora = adapter->lora;
        while (lora->A == NULL) lora++;
        int r = lora->A->shape[1];
        EXPECT(lora->scale == (real)(cases[i].alpha_of_first / (cases[i].root ? sqrt(r) : r)), "%s: scale %g", cases[i].json,
               (double)lora->scale);
        EXPECT((float)lora->A->data[1] == (float)(0.01 * lora->A->shape[0]) && (float)lora->A->data[r] == 0.01f,
               "transposed: %g %g", (double)lora->A->data[1], (double)lora->A->data[r]);
        EXPECT(adapter->config.dropout == (strstr(cases[i].json, "lora_dropout") ? 0.5 : 0), "lora_dropout %g",
               adapter->config.dropout);
        EXPECT(adapter_save(model, adapter, ".", in_root("adapter"), error, sizeof error), "%s",
               error); // layers of any kind and rank survive
        Adapter *back = adapter_load(twin, in_root("adapter"), "b", false, error, sizeof error);
        EXPECT(back && same_adapter(adapter, back) && back->config.dropout == adapter->config.dropout, "%s: %s", cases[i].json,
               error);
        transformer_merge(model);
        transformer_unmerge(model);
        transformer_remove_adapter(model, adapter);
        if (back) transformer_remove_adapter(twin, back);
    }
    transformer_free(model);
    transformer_free(twin);
}

TEST(regular_expressions)
{
    static const struct { const char *pattern, *name; int suffix, whole; } cases[] = {
        // 1: it matches, 0: it does not, -1: refused
        { "a", "a", 1, 1 },
        { "a", "ab", 0, 0 },
        { "", "", 1, 1 },
        { "", "a", 0, 0 },
        { "a.c", "abc", 1, 1 },
        { "a\\.c", "abc", 0, 0 },
        { "a\\.c", "a.c", 1, 1 },
        { "c", "a.c", 1, 0 },
        { "b.c", "a.b.c", 1, 0 },
        { ".c", "a.b.c", 0, 0 },
        { "^a.b", "a.b", 1, 1 },
        { "^b", "a.b", 0, 0 },
        { "a$", "a", 1, 1 },
        { "a$b", "ab", 0, 0 },
        { "a|bc", "bc", 1, 1 },
        { "a|bc", "ac", 0, 0 },
        { "(a|b)c", "bc", 1, 1 },
        { "(?:a|)c", "c", 1, 1 },
        { "a*", "", 1, 1 },
        { "a*", "aaaa", 1, 1 },
        { "a+", "", 0, 0 },
        { "a+", "aaa", 1, 1 },
        { "a?b", "b", 1, 1 },
        { "a?b", "aab", 0, 0 },
        { "(ab)*", "abab", 1, 1 },
        { "(ab)+", "aba", 0, 0 },
        { "(ab)+", "", 0, 0 },
        { ".*?b", "aab", 1, 1 },
        { "((a|b)+c)*", "abcac", 1, 1 },
        { "((a|b)+c)*", "abca", 0, 0 },
        { "[a-c]", "b", 1, 1 },
        { "[a-c]", "d", 0, 0 },
        { "[^a-c]", "d", 1, 1 },
        { "[^a-c]", "b", 0, 0 },
        { "[a-]", "-", 1, 1 },
        { "[-a]", "-", 1, 1 },
        { "[.x]", "y", 0, 0 },
        { "[\\d_]+", "12_", 1, 1 },
        { "\\d", "x", 0, 0 },
        { "\\w+", "aZ_9", 1, 1 },
        { "\\w", ".", 0, 0 },
        { "h\\.(0|2)\\..*", "transformer.h.2.mlp.c_fc", 1, 0 },
        { "(a*)*", "aaa", 1, 1 },
        { "(a*)+b", "aab", 1, 1 },
        { "(|a)+", "aa", 1, 1 },
        { "*", "a", -1, -1 },
        { "a**", "a", -1, -1 },
        { "a*+", "a", -1, -1 },
        { "(a", "a", -1, -1 },
        { "a)", "a", -1, -1 },
        { "[a", "a", -1, -1 },
        { "[", "a", -1, -1 },
        { "[a-", "a", -1, -1 },
        { "[\xc3\xa9-", "a", -1, -1 },
        { "\xc3\xa9?a", "a", -1, -1 },
        { "[^", "a", -1, -1 },
        { "[]a]", "a", -1, -1 },
        { "[b-a]", "a", -1, -1 },
        { "a{2}", "aa", -1, -1 },
        { "(?=a)a", "a", -1, -1 },
        { "(?i)a", "a", -1, -1 },
        { "\\1", "a", -1, -1 },
        { "\\s", " ", -1, -1 },
        { "a\\", "a", -1, -1 },
        { "[a\\", "a", -1, -1 },
        { "|*", "a", -1, -1 },
        { "((((a))))", "a", -1, -1 },
        { "[[:digit:]]", "1", -1, -1 },
        { "[a-\\d]", "1", -1, -1 },
        { "(*)", "a", -1, -1 },
        { "a]", "a]", -1, -1 },
        { "a^*", "a", -1, -1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int suffix = 0; suffix < 2; suffix++) {
            bool matches = false;
            int expected = suffix ? cases[i].suffix : cases[i].whole;
            char *exact = strdup(cases[i].pattern); // so that a sanitizer sees what is read behind its end
            bool good = peft_match(exact, suffix, cases[i].name, &matches, error, sizeof error);
            free(exact);
            EXPECT(good == (expected >= 0) && (!good || matches == expected) && (good || one_line("regular expression")),
                   "%s, %s, suffix %d: %d, matches %d", cases[i].pattern, cases[i].name, suffix, good, matches);
        }
    static const char *const bombs[] = {
        "(a|)*", "(a*)*", "((a+)+)+", "(.*a|.*b)*", ".*", "(((a?)*)+)*"
    }; // with other matchers a matter of years, or of gigabytes
    char text[257], name[64];
    memset(name, 'a', 63), name[63] = '\0';
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        bool matches;
        double start = seconds_now();
        text[0] = '\0';
        while (strlen(text) + strlen(bombs[i]) <= 256) strcat(text, bombs[i]);
        EXPECT(peft_match(text, true, name, &matches, error, sizeof error) && matches, "%s: %s", text, error);
        EXPECT(seconds_now() - start < 5, "%s: %.1f s", text, seconds_now() - start);
    }
}

TEST(adapters_that_are_refused)
{
    static const struct { const char *old, *new, *word; } cases[] = {
        { "\"r\": 4", "\"r\": 0", "\"r\"" },
        { "\"r\": 4", "\"r\": -4", "\"r\"" },
        { "\"r\": 4", "\"r\": \"4\"", "\"r\"" },
        { "\"r\": 4", "\"r\": 65537", "\"r\"" },
        { "\"r\": 4", "\"r\": 65536", "another shape" },
        { "\"r\": 4", "\"r\": 5", "another shape" },
        { "\"lora_alpha\": 8", "\"lora_alpha\": \"8\"", "lora_alpha" },
        { "\"lora_alpha\": 8", "\"lora_alpha\": 1e999", "adapter_config.json" },
        { "\"LORA\"", "\"IA3\"", "peft_type" },
        { "\"peft_type\"", "\"type\"", "peft_type" },
        { "\"none\"", "\"all\"", "bias" },
        { "\"use_dora\": false", "\"use_dora\": true", "use_dora" },
        { "\"modules_to_save\": null", "\"modules_to_save\": [\"wte\"]", "modules_to_save" },
        { "\"use_rslora\": false", "\"use_rslora\": 1", "use_rslora" },
        { "\"revision\": null", "\"exclude_modules\": [\"c_attn\"]", "exclude_modules" },
        { "\"revision\": null", "\"lora_bias\": true", "lora_bias" },
        { "\"revision\": null", "\"layer_replication\": [[0,1]]", "layer_replication" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "[\"q_proj\"]", "target_modules" },
        { "[\"c_attn\", ", "[", "6 tensors unknown" },
        { "\"c_fc\", ", "", "6 tensors unknown" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "7", "target_modules" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(a\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"a{9999}{9999}\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]",
          "\"o+++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]",
          "\"(((((((((((((((((((((((((((((((o+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+\"",
          "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\".*+c_attn\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"*c_attn\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"[[:alpha:]]*\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(?=a).*\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(?!a).*\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(.)\\\\1\"", "regular expression" },
        { "\"layers_to_transform\": null", "\"layers_to_transform\": [1]", "16 tensors unknown" },
        { "\"layers_to_transform\": null", "\"layers_to_transform\": 3", "target_modules" },
        { "\"layers_to_transform\": null", "\"layers_to_transform\": \"1\"", "layers_to_transform" },
        { "\"layers_pattern\": null", "\"layers_pattern\": \"layers\"", "layers_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 2", "another shape" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 0", "rank_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 2.5", "rank_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": \"x\"", "rank_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 1e300", "rank_pattern" },
        { "\"rank_pattern\": {}", "\"rank_pattern\": [1]", "rank_pattern" },
        { "\"alpha_pattern\": {", "\"alpha_pattern\": {\"*\": 1", "" },
        { "{", "[", "adapter_config.json" },
    };
    static Item items[40];
    Safetensors *file;
    Transformer *model = new_model(10), *stranger = new_model(11);
    Adapter *adapter = new_adapter(model, "a", everywhere(4, 8), 1), *first = new_adapter(model, "first", everywhere(1, 1), 2);
    if (!adapter_save(model, adapter, ".", in_root("bad"), error, sizeof error)) give_up("bad");
    char *path = in_root("bad/adapter_config.json"), *json = read_text(path, NULL);
    int parameters = model->parameter_count;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replaced(json, cases[i].old, cases[i].new);
        write_text(path, changed, strlen(changed));
        Adapter *loaded = adapter_load(model, in_root("bad"), "b", false, error, sizeof error);
        // an expression that only a part of the C libraries accepts may do no harm either
        EXPECT(cases[i].word[0] == '\0' || (loaded == NULL && one_line(cases[i].word)), "%s: %s", cases[i].new,
               loaded ? "is accepted" : error);
        if (loaded) transformer_remove_adapter(model, loaded), transformer_use_adapter(model, first);
        EXPECT(model->active == first && model->adapters == first && first->next == adapter, "%s: something is left",
               cases[i].new);
        free(changed);
    }
    write_text(path, json, strlen(json));

    EXPECT(!adapter_load(stranger, in_root("bad"), "b", false, error, sizeof error) && one_line("another base"), "%s", error);
    for (int i = 0; i < 2; i++) {
        char hash[20];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)transformer_hash(i ? stranger : model));
        EXPECT(strstr(error, hash), "%s is not in: %s", hash, error);
    }
    EXPECT(stranger->adapters == NULL && stranger->parameter_count == stranger->base_count, "half attached");
    Adapter *loaded = adapter_load(stranger, in_root("bad"), "b", true, error, sizeof error);
    EXPECT(loaded && same_adapter(loaded, adapter), "%s", error);
    transformer_free(stranger);

    char *tensors = in_root("bad/adapter_model.safetensors");
    size_t n = items_of(tensors, items, &file);
    EXPECT(n == 24, "%zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        Item original = items[i];
        items[i] = items[n - 1];
        write_items(tensors, items, n - 1, own);
        EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line(": 1 tensor missing"),
               "%s: %s", original.name, error);
        items[i] = original;
        items[i].shape[1]++;
        write_items(tensors, items, n, own);
        EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line(": 1 tensor of another shape")
                   && strstr(error, original.name),
               "%s", error);
        items[i] = original;
    }
    items[n] = (Item){ "base_model.model.lm_head.weight", 2, { V, C } };
    write_items(tensors, items, n + 1, own);
    EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line(": 1 tensor unknown"), "%s",
           error);
    EXPECT(model->active == first && model->parameter_count == parameters, "something is left");
    remove(tensors);
    EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line("adapter_model.safetensors"), "%s",
           error);
    safetensors_close(file);
    free(json);
    transformer_free(model);
}

// A few steps on made-up batches that depend on the step alone.
static void train(Transformer *model, AdamW *optimizer, long from, long to)
{
    Tape *tape = tape_new();
    for (long step = from; step < to; step++) {
        int ids[2 * T], targets[2 * T];
        for (int i = 0; i < 2 * T; i++) {
            ids[i] = (int)(random_bits((uint64_t)step, (uint64_t)i) % V);
            targets[i] = (int)(random_bits((uint64_t)step, 1000 + (uint64_t)i) % V);
        }
        tape->dropout_seed = (uint64_t)step;
        backward(tape, transformer_loss(model, tape, ids, targets, 2, T));
        adamw_step(optimizer, 1e-2);
        zero_grads(model);
        tape_clear(tape);
    }
    tape_free(tape);
}

static long zeros_outside(const Lora *lora) // how many entries of B that the mask leaves out are 0
{
    long zeros = 0;
    for (long j = 0; j < lora->B->size; j++) zeros += lora->mask->data[j] == 0 && lora->B->data[j] == 0;
    return zeros;
}

// One backward pass of a fixed batch.
static void gradients(Transformer *model)
{
    Tape *tape = tape_new();
    int ids[2 * T], targets[2 * T];
    for (int i = 0; i < 2 * T; i++) ids[i] = (3 * i * i + i) % V, targets[i] = (5 * i + 2) % V;
    backward(tape, transformer_loss(model, tape, ids, targets, 2, T));
    tape_free(tape);
}

// An adapter of some of q, k and v is one of the whole c_attn with more rank whose B is kept zero in places: everything but
// what the mask holds back must be the same to the bit.
TEST(adapters_of_q_and_v)
{
    static const struct { unsigned targets; int parts; } cases[] = {
        { TARGET_Q | TARGET_V, 2 }, { TARGET_K, 1 }, { TARGETS_QKV, 3 }, { TARGET_V | 1u << C_FC, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int r = 2, parts = cases[i].parts;
        Transformer *model = new_model(50), *plain = new_model(50);
        LoraConfig config = { .r = r, .alpha = 3.5, .targets = cases[i].targets, .last_block = -1 };
        transformer_train_base(model, false);
        Adapter *adapter = new_adapter(model, "some", config, 7);
        long size = L * parts * (C * r + r * C)
                    + (cases[i].targets & 1u << C_FC ? L * (C * r + r * 4 * C) : 0); // as of separate layers
        EXPECT(transformer_trainable_size(model) == size && adapter_size(adapter, &small) == size,
               "%ld and %ld numbers train, not %ld", transformer_trainable_size(model), adapter_size(adapter, &small), size);

        static const int which[8][3] = {
            [1] = { 0 }, [2] = { 1 }, [4] = { 2 }, [5] = { 0, 2 }, [7] = { 0, 1, 2 }
        }; // the part of each r rows of B
        long misplaced = 0;
        for (int row = 0; row < parts * r; row++)
            for (int j = 0; j < 3 * C; j++)
                misplaced +=
                    adapter->lora[C_ATTN].mask->data[row * 3 * C + j] != (j / C == which[cases[i].targets >> LINEARS][row / r]);
        EXPECT(misplaced == 0, "%ld entries of the mask", misplaced);

        EXPECT(adapter_save(model, adapter, "base", in_root("parts"), error, sizeof error), "%s", error);
        char *json = read_text(in_root("parts/adapter_config.json"), NULL), rank[40], alpha[40];
        bool alone = !(cases[i].targets & 1u << C_FC); // no other layer, whose rank would be the general one
        snprintf(rank, sizeof rank, "\"r\": %d,", parts * r);
        snprintf(alpha, sizeof alpha, "\"lora_alpha\": %g,", parts * 3.5);
        EXPECT(!alone || (strstr(json, rank) && strstr(json, alpha) && strstr(json, "\"alpha_pattern\": {}")), "%s", json);
        free(json);
        Adapter *whole = adapter_load(plain, in_root("parts"), "other", false, error, sizeof error);
        EXPECT(whole && same_adapter(adapter, whole), "%s", error);
        transformer_train_base(plain, false);
        gradients(model);
        gradients(plain);
        for (int k = 0; whole && k < L * LINEARS; k++) {
            const Lora *a = &adapter->lora[k], *b = &whole->lora[k];
            if (a->A == NULL) continue;
            EXPECT(memcmp(a->A->grad, b->A->grad, (size_t)a->A->size * sizeof(real)) == 0, "layer %d: dA", k);
            EXPECT((a->mask != NULL) == (k % LINEARS == C_ATTN), "layer %d: mask", k);
            long held = 0, wrong = 0;
            for (long j = 0; j < a->B->size; j++) {
                bool open = a->mask == NULL || a->mask->data[j] != 0;
                wrong += a->B->grad[j] != (open ? b->B->grad[j] : 0);
                held += !open && b->B->grad[j] != 0;
            }
            EXPECT(wrong == 0, "layer %d: %ld numbers of dB are wrong", k, wrong);
            EXPECT(a->mask == NULL || held > 0, "layer %d: the mask holds nothing back", k);
        }
        zero_grads(model);
        AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
        Tensor *before = tensor_from("before", adapter->lora[C_ATTN].B->data, SHAPE(parts * r, 3 * C));
        train(model, optimizer, 0, 5);
        EXPECT(!same_bits(before, adapter->lora[C_ATTN].B), "nothing was learned");
        for (int k = 0; k < L * LINEARS; k += LINEARS) {
            const Lora *lora = &adapter->lora[k];
            EXPECT(zeros_outside(lora) == lora->B->size - parts * r * C, "layer %d: only %ld zeros", k, zeros_outside(lora));
        }
        Tensor *W = model->blocks[1].linear[C_ATTN].weight, *old = tensor_from("old", W->data, W->ndim, W->shape);
        transformer_merge(model);
        for (int part = 0; part < 3; part++) { // the columns of a part that is left out keep their bits
            long changed = 0;
            for (int row = 0; row < C; row++)
                for (int j = part * C; j < (part + 1) * C; j++)
                    changed += W->data[row * 3 * C + j] != old->data[row * 3 * C + j];
            EXPECT((changed > 0) == ((cases[i].targets >> LINEARS >> part & 1) != 0), "part %d: %ld weights have changed", part,
                   changed);
        }
        tensor_drop(before);
        tensor_drop(old);
        adamw_free(optimizer);
        transformer_free(model);
        transformer_free(plain);
    }
}

// A batch whose rows use different adapters: each row must get what it would get alone, to the bit, and nothing else may
// change.
TEST(rows_with_adapters_of_their_own)
{
    enum { B = 7 };
    Transformer *model = new_model(60);
    transformer_train_base(model, false);
    Adapter *a = new_adapter(model, "a", everywhere(2, 4), 1);
    Adapter *b =
        new_adapter(model, "b", (LoraConfig){ .r = 3, .alpha = 5, .targets = TARGET_Q | TARGET_V, .last_block = 1 }, 2);
    Adapter *c = new_adapter(
        model, "c", (LoraConfig){ .r = 1, .alpha = 9, .targets = 1u << MLP_C_PROJ, .first_block = 2, .last_block = -1 }, 3);
    const Adapter *rows[B] = { b, NULL, c, b, a, NULL, c };
    int ids[B * T];
    for (int i = 0; i < B * T; i++) ids[i] = (i * i + 3 * i) % V;
    gradients(model); // of c, which is in use
    for (int threads = 1; threads <= 3; threads++) {
        parallel_set_threads(threads);
        Tensor *mixed = transformer_logits_mixed(model, rows, ids, B, T), *at_once = NULL;
        EXPECT(model->active == c && c->lora[2 * LINEARS + MLP_C_PROJ].B->grad != NULL
                   && c->lora[2 * LINEARS + MLP_C_PROJ].B->requires_grad && !a->lora[0].B->requires_grad,
               "the adapter in use has changed");
        Tensor *after = transformer_logits(model, NULL, ids + 2 * T, 1, T);
        EXPECT(memcmp(after->data, mixed->data + 2 * T * V, T * V * sizeof(real)) == 0,
               "another adapter computes than the one in use");
        tensor_drop(after);
        for (int row = 0; row < B; row++) {
            size_t bytes = T * V * sizeof(real);
            transformer_use_adapter(model, (Adapter *)rows[row]);
            Tensor *alone = transformer_logits(model, NULL, ids + row * T, 1, T);
            EXPECT(memcmp(alone->data, mixed->data + row * T * V, bytes) == 0, "%d threads: row %d", threads, row);
            tensor_drop(alone);
            at_once = transformer_logits(model, NULL, ids, B, T);
            for (int i = 0; i < B; i++) // another adapter would have been seen
                EXPECT((memcmp(at_once->data + i * T * V, mixed->data + i * T * V, bytes) == 0) == (rows[i] == rows[row]),
                       "row %d as row %d", i, row);
            tensor_drop(at_once);
        }
        transformer_use_adapter(model, c);
        gradients(model);
        tensor_drop(mixed);
    }
    parallel_set_threads(1);
    transformer_free(model);
}

// --- states ---

static bool same_moments(const AdamW *a, const AdamW *b)
{
    bool same = a->count == b->count && a->step == b->step;
    for (int i = 0; i < a->count && same; i++) {
        same = (a->m[i] == NULL) == (b->m[i] == NULL);
        size_t n = (size_t)a->parameters[i]->size * sizeof(real);
        if (a->m[i] && same) same = memcmp(a->m[i], b->m[i], n) == 0 && memcmp(a->v[i], b->v[i], n) == 0;
    }
    return same;
}

TEST(states_go_on_as_if_nothing_had_happened)
{
    AdamWConfig adamw = { 0.9, 0.99, 0.1, 1.0 / 3 };
    Vocabulary v = letters(V);
    Transformer *base = new_model(20);
    if (!model_save(base, &v, in_root("base"), error, sizeof error)) give_up("base");
    transformer_free(base);
    for (int variant = 0; variant < 7;
         variant++) { // all; adapters: everywhere, B alone, ranks by block, q and v; and both before their first step
        bool lora = variant >= 1 && variant <= 5;
        long steps = variant >= 5 ? 0 : 5;
        TrainingState state = { .step = 123456789,
                                .seed = 0xfedcba9876543210,
                                .vocabulary = v,
                                .data = "a\n\"\\ \xe2\x82\xac",
                                .text_hash = UINT64_MAX - 1,
                                .batch_size = 77,
                                .schedule = { 1.0 / 3, 1.0 / 7, 11, 123456790 },
                                .eval_interval = 1l << 40 },
                      back;
        state.model = lora ? model_load(in_root("base"), NULL, error, sizeof error) : new_model(20);
        state.model->config.dropout = 0.1;
        int by_block[L] = { 3, 0, 1 };
        LoraConfig config = everywhere(2, 3.3);
        config.freeze_A = variant == 2;
        if (variant == 3) config.r_by_block = by_block, config.rank_stabilized = true;
        if (variant == 4) config.targets = TARGET_Q | TARGET_V | 1u << C_FC;
        if (lora) {
            transformer_train_base(state.model, false);
            new_adapter(state.model, "my adapter", config, 77);
            state.base_dir = in_root("base");
        }
        state.optimizer = adamw_new(state.model->parameters, state.model->parameter_count, adamw);
        train(state.model, state.optimizer, 0, steps);
        EXPECT(state_save(in_root("run/state"), &state, error, sizeof error), "variant %d: %s", variant, error);
        EXPECT(files_in(in_root("run/state")) == (variant == 0 ? 5 : 7), "%d files",
               files_in(in_root("run/state"))); // state and model; then an adapter, too
        Transformer *seen = lora ? model_load(in_root("base"), NULL, error, sizeof error)
                                 : model_load(in_root("run/state"), NULL, error, sizeof error);
        EXPECT(seen && same_base(seen, state.model), "variant %d: what others read: %s", variant, error);
        EXPECT(!lora
                   || (adapter_load(seen, in_root("run/state"), "x", false, error, sizeof error)
                       && same_adapter(seen->active, state.model->active)),
               "variant %d: %s", variant, error);
        transformer_free(seen);

        bool good = state_load(in_root("run/state"), NULL, &back, error, sizeof error);
        EXPECT(good, "variant %d: %s", variant, error);
        if (!good) continue;
        EXPECT(back.step == state.step && back.seed == state.seed && strcmp(back.data, state.data) == 0, "%ld %llx %s",
               back.step, (unsigned long long)back.seed, back.data);
        EXPECT(back.text_hash == state.text_hash && back.batch_size == 77 && back.eval_interval == state.eval_interval,
               "%llx %d %ld", (unsigned long long)back.text_hash, back.batch_size, back.eval_interval);
        EXPECT(memcmp(&back.schedule, &state.schedule, sizeof back.schedule) == 0, "the schedule");
        EXPECT(vocabulary_equal(&back.vocabulary, &v), "variant %d: vocabulary", variant);
        EXPECT(memcmp(&back.optimizer->config, &adamw, sizeof adamw) == 0 && back.optimizer->step == steps,
               "variant %d: the optimizer's settings", variant);
        EXPECT(back.model->config.dropout == state.model->config.dropout, "dropout %g", back.model->config.dropout);
        EXPECT(lora ? strcmp(back.base_dir, state.base_dir) == 0 : back.base_dir == NULL, "base_dir");
        EXPECT(same_base(back.model, state.model), "variant %d: the base", variant);
        EXPECT(!lora
                   || (same_adapter(back.model->active, state.model->active)
                       && strcmp(back.model->active->name, "my adapter") == 0),
               "variant %d: the adapter", variant);
        const LoraConfig *was = lora ? &state.model->active->config : NULL, *is = lora ? &back.model->active->config : NULL;
        EXPECT(
            !lora
                || (is->r == was->r && is->alpha == was->alpha && is->targets == was->targets && is->freeze_A == was->freeze_A),
            "variant %d: what was asked for", variant);
        EXPECT(back.model->parameter_count == state.model->parameter_count, "variant %d", variant);
        for (int i = 0; i < back.model->parameter_count; i++)
            EXPECT(back.model->parameters[i]->requires_grad == state.model->parameters[i]->requires_grad
                       && strcmp(back.model->parameters[i]->name, state.model->parameters[i]->name) == 0,
                   "variant %d: %s", variant, state.model->parameters[i]->name);
        EXPECT(same_moments(back.optimizer, state.optimizer), "variant %d: the moments", variant);
        EXPECT(
            state_save(in_root("run/again"), &back, error, sizeof error)
                && same_bytes(in_root("run/again/training_state.safetensors"), in_root("run/state/training_state.safetensors")),
            "variant %d: saved again it is another file %s", variant, error);
        train(state.model, state.optimizer, steps, steps + 3);
        train(back.model, back.optimizer, steps, steps + 3);
        EXPECT(same_base(back.model, state.model) && same_moments(back.optimizer, state.optimizer),
               "variant %d: three steps later", variant);
        EXPECT(!lora || same_adapter(back.model->active, state.model->active), "variant %d: three steps later", variant);
        state_free(&back);
        adamw_free(state.optimizer);
        transformer_free(state.model);
    }
    vocabulary_free(&v);
}

TEST(states_that_are_refused)
{
    TrainingState state = { .seed = 1 }, back;
    Transformer *base = new_model(21), *stranger = new_model(22);
    if (!model_save(base, NULL, in_root("base"), error, sizeof error)
        || !model_save(stranger, NULL, in_root("strange"), error, sizeof error))
        give_up("base");
    state.model = base;
    transformer_train_base(base, false);
    new_adapter(base, "a", everywhere(2, 4), 1);
    state.base_dir = in_root("base");
    state.optimizer = adamw_new(base->parameters, base->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    train(base, state.optimizer, 0, 2);
    if (!state_save(in_root("refused"), &state, error, sizeof error)) give_up("state");
    long held = ledger.total;
    EXPECT(state_load(in_root("refused"), in_root("base"), &back, error, sizeof error), "%s", error);
    state_free(&back);
    EXPECT(!state_load(in_root("refused"), in_root("strange"), &back, error, sizeof error) && one_line("another base"), "%s",
           error);
    EXPECT(!state_load(in_root("refused"), in_root("nowhere"), &back, error, sizeof error) && one_line("nowhere/config.json"),
           "%s", error);
    EXPECT(!state_load(in_root("nowhere"), NULL, &back, error, sizeof error) && one_line("training_state.safetensors"), "%s",
           error);
    EXPECT(back.model == NULL && back.optimizer == NULL && back.base_dir == NULL, "something is left");

    static Item items[100];
    Safetensors *file;
    char *path = in_root("refused/training_state.safetensors");
    size_t n = items_of(path, items, &file);
    EXPECT(n == 3 * 24, "%zu tensors", n);
    const char *text = safetensors_metadata(file, "meltwater_state");
    static const struct { const char *old, *new, *word; } cases[] = {
        { "\"version\":1", "\"version\":2", "version" },
        { "\"step\":0", "\"step\":-1", "step" },
        { "\"seed\":1", "\"seed\":-1", "seed" },
        { "\"seed\":1", "\"seed\":\"1\"", "seed" },
        { "\"optimizer_step\":2", "\"optimizer_step\":2.5", "optimizer_step" },
        { "\"optimizer_step\":2", "\"optimizer_step\":0", "48 tensors unknown" },
        { "\"beta1\":0.9", "\"beta3\":0.9", "beta1" },
        { "\"dropout\":0", "\"dropout\":1", "dropout" },
        { "\"freeze_A\":false", "\"freeze_A\":true", "24 tensors unknown" },
        { "\"freeze_A\":false", "\"freeze_B\":true", "freeze_A" },
        { "\"lora_dropout\": 0,", "\"lora_dropout\": 0.1,", "lora_dropout" },
        { "\"lora_r\":2", "\"lora_r\":-1", "lora_r" },
        { "\"lora_alpha\":4", "\"lora_alfa\":4", "lora_alpha" },
        { "\"lora_targets\":\"c_attn", "\"lora_targets\":\"x", "lora_targets" },
        { "\"lora_targets\":\"c_attn,attn.c_proj,c_fc,mlp.c_proj", "\"lora_targets\":\"q,k,v", "shared" },
        { "\"r\": 2", "\"r\": 3", "another shape" },
        { "\"r\": 2", "\"r\": 0", "\"r\"" },
        { "\"adapter\":", "\"adapters\":", "model_type" },
        { "\"data\":null", "\"tokenizer\":{}", "vocabulary" },
        { "\"data\":null", "\"data\":3", "data" },
        { "\"learning_rate\":0", "\"learning_rate\":null", "learning_rate" },
        { "\"text_hash\":0", "\"text_hash\":0.5", "text_hash" },
        { "\"batch_size\":0", "\"batch_size\":-1", "batch_size" },
        { "{", "[", "no training state" },
    };
    for (size_t i = 0; i <= sizeof cases / sizeof *cases; i++) {
        bool last = i == sizeof cases / sizeof *cases; // no such metadata at all
        char *changed = last ? NULL : replaced(text, cases[i].old, cases[i].new);
        SafetensorsTensor tensors[100];
        real zeros[400] = { 0 };
        for (size_t k = 0; k < n; k++)
            tensors[k] = (SafetensorsTensor){ items[k].name, own, items[k].ndim, items[k].shape, zeros };
        SafetensorsMetadata metadata[] = { { "format", "pt" }, { "meltwater_state", changed } };
        if (safetensors_write(path, tensors, n, metadata, last ? 1 : 2, error, sizeof error)) give_up("state");
        EXPECT(!state_load(in_root("refused"), NULL, &back, error, sizeof error)
                   && one_line(last ? "meltwater_state" : cases[i].word),
               "%s: %s", last ? "" : cases[i].new, error);
        free(changed);
    }
    write_items(path, items, n, other);
    EXPECT(!state_load(in_root("refused"), NULL, &back, error, sizeof error) && one_line("training_state.safetensors"), "%s",
           error);
    SafetensorsTensor wrong = { "x", other, 0, NULL, (double[]){ 0 } };
    SafetensorsMetadata metadata = { "meltwater_state", text };
    if (safetensors_write(path, &wrong, 1, &metadata, 1, error, sizeof error)) give_up("state");
    EXPECT(!state_load(in_root("refused"), NULL, &back, error, sizeof error) && one_line("REAL="), "%s", error);
    EXPECT(ledger.total == held, "%ld bytes are left", ledger.total - held);
    safetensors_close(file);
    adamw_free(state.optimizer);
    transformer_free(base);
    transformer_free(stranger);
}

// --- damage ---

// Cuts the file short at many places; `load` must fail each time, with one line.
static void truncate_everywhere(const char *path, bool (*load)(void))
{
    size_t n;
    char *bytes = read_text(path, &n);
    while (n > 0 && strchr("\n ", bytes[n - 1])) n--; // white space at the end of JSON is not missed
    long held = ledger.total;
    for (size_t length = 0; length < n; length += length < 300 || length + 50 > n ? 7 : 1 + n / 40) {
        write_text(path, bytes, length);
        error[0] = '\0';
        EXPECT(!load() && one_line(strrchr(path, '/') + 1), "%zu of %zu bytes of %s: %s", length, n, path, error);
    }
    EXPECT(ledger.total == held, "%ld bytes are left", ledger.total - held);
    write_text(path, bytes, n);
    EXPECT(load(), "%s", error);
    free(bytes);
}

static Transformer *victim;
static bool load_model(void)
{
    Transformer *model = model_load(in_root("cut"), NULL, error, sizeof error);
    transformer_free(model);
    return model != NULL;
}
static bool load_vocabulary(void)
{
    Vocabulary v;
    bool good = vocabulary_load(in_root("cut"), V, &v, error, sizeof error);
    vocabulary_free(&v);
    return good;
}
static bool load_adapter(void)
{
    Adapter *before = victim->active, *adapter = adapter_load(victim, in_root("cut"), "loaded", false, error, sizeof error);
    if (adapter) transformer_remove_adapter(victim, adapter), transformer_use_adapter(victim, before);
    return adapter != NULL;
}
static bool load_state(void)
{
    TrainingState state;
    bool good = state_load(in_root("cut"), NULL, &state, error, sizeof error);
    state_free(&state);
    return good;
}

TEST(truncated_files)
{
    Vocabulary v = letters(V);
    victim = new_model(30);
    LoraConfig config = { .r = 2, .alpha = 4, .targets = 1, .last_block = -1 };
    Adapter *adapter = new_adapter(victim, "a", config, 1);
    TrainingState state = { .seed = 1, .base_dir = in_root("cut"), .model = victim };
    transformer_train_base(victim, false);
    state.optimizer = adamw_new(victim->parameters, victim->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    train(victim, state.optimizer, 0, 1);
    if (!model_save(victim, &v, in_root("cut"), error, sizeof error)
        || !adapter_save(victim, adapter, ".", in_root("cut"), error, sizeof error)
        || !state_save(in_root("cut"), &state, error, sizeof error))
        give_up("cut");
    truncate_everywhere(in_root("cut/config.json"), load_model);
    truncate_everywhere(in_root("cut/model.safetensors"), load_model);
    truncate_everywhere(in_root("cut/tokenizer.json"), load_vocabulary);
    truncate_everywhere(in_root("cut/adapter_config.json"), load_adapter);
    truncate_everywhere(in_root("cut/adapter_model.safetensors"), load_adapter);
    truncate_everywhere(in_root("cut/training_state.safetensors"), load_state);
    adamw_free(state.optimizer);
    transformer_free(victim);
    vocabulary_free(&v);
}

TEST(a_failed_save_harms_nothing)
{
    static const char *const names[] = { "config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "model.safetensors",
                                         "adapter_config.json",
                                         "adapter_model.safetensors",
                                         "training_state.safetensors" };
    enum { NAMES = sizeof names / sizeof *names };
    Vocabulary v = letters(V);
    Transformer *model = new_model(40);
    LoraConfig config = { .r = 2, .alpha = 4, .targets = 15, .last_block = -1 };
    Adapter *adapter = new_adapter(model, "a", config, 1);
    TrainingState state = { .seed = 1, .base_dir = ".", .model = model };
    transformer_train_base(model, false);
    state.optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });

    write_text(in_root("a file"), "x", 1); // no directory can be made here
    char *blocked[] = { in_root("a file"), in_root("a file/below"), "/proc/nowhere/below" };
    for (int i = 0; i < 3; i++) {
        EXPECT(!model_save(model, &v, blocked[i], error, sizeof error) && one_line("cannot make the directory"), "%s", error);
        EXPECT(!adapter_save(model, adapter, ".", blocked[i], error, sizeof error) && one_line("cannot make the directory"),
               "%s", error);
        EXPECT(!state_save(blocked[i], &state, error, sizeof error) && one_line("cannot make the directory"), "%s", error);
    }
    for (int i = 0; i < NAMES; i++) { // a directory is where the file should be
        char *dir = in_root("blocked"), file[900];
        remove_all(dir);
        mkdir(dir, 0777);
        snprintf(file, sizeof file, "%s/%s", dir, names[i]);
        mkdir(file, 0777);
        bool good = i < 4   ? model_save(model, &v, dir, error, sizeof error)
                    : i < 6 ? adapter_save(model, adapter, ".", dir, error, sizeof error)
                            : state_save(dir, &state, error, sizeof error);
        EXPECT(!good && one_line(names[i]), "%s: %s", names[i], error);
        EXPECT(files_in(dir) == 1, "%s: %d files", names[i], files_in(dir)); // all or nothing
    }

    char *dir = in_root("old"), copies[NAMES][900], files[NAMES][900];
    if (!model_save(model, &v, dir, error, sizeof error) || !adapter_save(model, adapter, ".", dir, error, sizeof error)
        || !state_save(dir, &state, error, sizeof error))
        give_up("old");
    mkdir(in_root("copies"), 0777);
    for (int i = 0; i < NAMES; i++) {
        size_t n;
        snprintf(files[i], sizeof files[i], "%s/%s", in_root("old"), names[i]);
        snprintf(copies[i], sizeof copies[i], "%s/%s", in_root("copies"), names[i]);
        char *bytes = read_text(files[i], &n);
        write_text(copies[i], bytes, n);
        free(bytes);
    }
    for (int i = 0; i < model->parameter_count; i++) disturb(model->parameters[i], (uint64_t)i);
    signal(SIGXFSZ, SIG_IGN); // the disk is full after 1,600 bytes: room for the small files, not for the tensors
    struct rlimit unlimited, full;
    getrlimit(RLIMIT_FSIZE, &unlimited);
    full = unlimited;
    full.rlim_cur = 1600;
    setrlimit(RLIMIT_FSIZE, &full);
    bool model_saved = model_save(model, &v, dir, error, sizeof error), said = one_line("model.safetensors");
    bool adapter_saved = adapter_save(model, adapter, ".", dir, error, sizeof error),
         adapter_said = one_line("adapter_model.safetensors");
    bool state_saved = state_save(dir, &state, error, sizeof error), state_said = one_line("training_state.safetensors");
    setrlimit(RLIMIT_FSIZE, &unlimited);
    EXPECT(!model_saved && said && !adapter_saved && adapter_said && !state_saved && state_said, "%s", error);
    for (int i = 0; i < NAMES; i++) EXPECT(same_bytes(files[i], copies[i]), "%s has changed", names[i]);
    EXPECT(files_in(dir) == NAMES, "%d files", files_in(dir));
    adamw_free(state.optimizer);
    transformer_free(model);
    vocabulary_free(&v);
}

TEST(a_failed_save_of_another_shape_leaves_what_can_be_loaded)
{
    Vocabulary v = letters(V);
    Transformer *model = new_model(41), *larger = transformer_new((Config){ V, T, L + 1, H, C, 0 }, 1, error, sizeof error);
    LoraConfig config = { .r = 1, .alpha = 4, .targets = 1, .last_block = -1 },
               wider = { .r = 9, .alpha = 1, .targets = 15, .last_block = -1 };
    Adapter *adapter = new_adapter(model, "a", config, 1), *other_adapter = new_adapter(larger, "b", wider, 1);
    char *dir = in_root("shape");
    if (!model_save(model, &v, dir, error, sizeof error) || !adapter_save(model, adapter, ".", dir, error, sizeof error))
        give_up("shape");
    int files = files_in(dir);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit unlimited, full;
    getrlimit(RLIMIT_FSIZE, &unlimited);
    full = unlimited;
    full.rlim_cur = 1600;
    setrlimit(RLIMIT_FSIZE, &full);
    bool model_saved = model_save(larger, NULL, dir, error, sizeof error);
    bool adapter_saved = adapter_save(larger, other_adapter, ".", dir, error, sizeof error);
    setrlimit(RLIMIT_FSIZE, &unlimited);
    EXPECT(!model_saved && !adapter_saved && files_in(dir) == files, "%d files", files_in(dir));
    Transformer *again = model_load(dir, NULL, error, sizeof error); // configuration and tensors still belong together
    EXPECT(again != NULL && transformer_hash(again) == transformer_hash(model), "%s", error);
    if (again != NULL) {
        EXPECT(adapter_load(again, dir, "a", false, error, sizeof error) != NULL, "%s", error);
        transformer_free(again);
    }
    EXPECT(!model_save(model, &v, "", error, sizeof error) && one_line("empty"), "%s",
           error); // not the root of the file system
    EXPECT(!adapter_save(model, adapter, ".", "", error, sizeof error) && one_line("empty"), "%s", error);
    transformer_free(model);
    transformer_free(larger);
    vocabulary_free(&v);
}

// --- too large for any memory ---

// Files whose headers promise terabytes, with as many bytes behind them: holes, which take no room on the disk.
TEST(terabytes_are_refused)
{
    Config huge = { .vocab_size = 1 << 28, .block_size = T, .n_layer = 1, .n_head = 1, .n_embd = 4096 };
    long long V_ = huge.vocab_size, C_ = huge.n_embd, L_ = huge.n_layer, at = 0;
    char *header, text[1000];
    size_t n;
    FILE *out = open_memstream(&header, &n);
    const struct { const char *name; long long rows, columns; } tensors[] = {
        // in the order of the names
        { "h.0.attn.c_attn.bias", 3 * C_, 0 },
        { "h.0.attn.c_attn.weight", C_, 3 * C_ },
        { "h.0.attn.c_proj.bias", C_, 0 },
        { "h.0.attn.c_proj.weight", C_, C_ },
        { "h.0.ln_1.bias", C_, 0 },
        { "h.0.ln_1.weight", C_, 0 },
        { "h.0.ln_2.bias", C_, 0 },
        { "h.0.ln_2.weight", C_, 0 },
        { "h.0.mlp.c_fc.bias", 4 * C_, 0 },
        { "h.0.mlp.c_fc.weight", C_, 4 * C_ },
        { "h.0.mlp.c_proj.bias", C_, 0 },
        { "h.0.mlp.c_proj.weight", 4 * C_, C_ },
        { "ln_f.bias", C_, 0 },
        { "ln_f.weight", C_, 0 },
        { "wpe.weight", T, C_ },
        { "wte.weight", V_, C_ },
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        long long bytes = 4 * tensors[i].rows * (tensors[i].columns ? tensors[i].columns : 1);
        fprintf(out, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld", i ? "," : "{", tensors[i].name, tensors[i].rows);
        if (tensors[i].columns) fprintf(out, ",%lld", tensors[i].columns);
        fprintf(out, "],\"data_offsets\":[%lld,%lld]}", at, at + bytes);
        at += bytes;
    }
    fprintf(out, "}");
    fclose(out);
    mkdir(in_root("huge"), 0777);
    snprintf(text, sizeof text,
             "{\"model_type\":\"gpt2\",\"vocab_size\":%lld,\"n_positions\":%d,\"n_embd\":%lld,\"n_layer\":%lld,\"n_head\":1}",
             V_, T, C_, L_);
    write_text(in_root("huge/config.json"), text, strlen(text));
    char *path = in_root("huge/model.safetensors");
    FILE *file = fopen(path, "wb");
    for (int i = 0; i < 8; i++) fputc((int)(n >> 8 * i & 255), file);
    fwrite(header, 1, n, file);
    fclose(file);
    long mallocs = ledger.mallocs;
    EXPECT(!model_load(in_root("huge"), NULL, error, sizeof error) && one_line("incomplete metadata"), "%s",
           error); // nothing behind the header
    if (truncate(path, (off_t)(8 + (long long)n + at)) == 0) // not every file system allows such a hole
        EXPECT(!model_load(in_root("huge"), NULL, error, sizeof error) && one_line("of memory"), "%s", error);
    EXPECT(ledger.mallocs == mallocs, "%ld buffers were asked for", ledger.mallocs - mallocs);
    free(header);
}

// --- sudden death ---

// Every number in the state of step n is n, or n + 1 / 2 and n + 1 / 4 in the moments.
static void set_numbers(TrainingState *state, long n)
{
    AdamW *o = state->optimizer;
    state->step = n;
    for (int i = 0; i < o->count; i++)
        for (long j = 0; j < o->parameters[i]->size; j++) {
            o->parameters[i]->data[j] = (real)n;
            o->m[i][j] = (real)n + (real)0.5;
            o->v[i][j] = (real)n + (real)0.25;
        }
}

static bool all_are(const real *values, long count, real value)
{
    for (long i = 0; i < count; i++)
        if (values[i] != value) return false;
    return true;
}

static bool model_is_of_step(const Transformer *model, long n)
{
    bool good = true;
    for (int i = 0; i < model->base_count; i++)
        good = good && all_are(model->parameters[i]->data, model->parameters[i]->size, (real)n);
    return good;
}

static bool state_is_whole(const TrainingState *state)
{
    const AdamW *o = state->optimizer;
    bool good = model_is_of_step(state->model, state->step);
    for (int i = 0; i < o->count; i++)
        good = good && all_are(o->m[i], o->parameters[i]->size, (real)state->step + (real)0.5)
               && all_are(o->v[i], o->parameters[i]->size, (real)state->step + (real)0.25);
    return good;
}

// A run that does nothing but save, one step after the other, with two states in turn of two shapes and vocabularies.
static void save_until_killed(const char *dir, TrainingState *states, int shapes, long step)
{
    for (;; step++) {
        TrainingState *state = &states[step % shapes];
        set_numbers(state, step);
        if (!state_save(dir, state, error, sizeof error)) _exit(1);
    }
}

static TrainingState state_to_kill(Config config)
{
    TrainingState state = { .seed = 1,
                            .vocabulary = letters(config.vocab_size),
                            .model = transformer_new(config, 1, error, sizeof error) };
    state.optimizer = adamw_new(state.model->parameters, state.model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    for (int i = 0; i < state.optimizer->count; i++) {
        long size = state.model->parameters[i]->size;
        state.optimizer->m[i] = memory_take(MEMORY_MOMENTS, size);
        state.optimizer->v[i] = memory_take(MEMORY_MOMENTS, size);
    }
    state.optimizer->step = 1;
    return state;
}

static void free_states(TrainingState states[2])
{
    for (int i = 0; i < 2; i++) {
        vocabulary_free(&states[i].vocabulary);
        adamw_free(states[i].optimizer);
        transformer_free(states[i].model);
    }
}

enum { OF_THIS_STEP, OF_THE_LAST, MISSING }; // what the model beside a state is

// Loads what a killed run has left: a whole state, and what model is beside it. Then does what --resume does, after which the
// model must be of the state's step. Returns that step.
static long look(const char *dir, const TrainingState *states, int shapes, int *model_is)
{
    TrainingState left;
    Vocabulary v = { 0 };
    bool good = state_load(dir, NULL, &left, error, sizeof error);
    EXPECT(good && state_is_whole(&left), "%s", good ? "numbers of several steps in one state" : error);
    if (!good) return -1;
    long step = left.step;
    Transformer *model = model_load(dir, &v, error, sizeof error);
    if (model == NULL) {
        *model_is = MISSING;
        EXPECT(one_line("model.safetensors: cannot open"), "step %ld: %s", step, error);
    } else {
        *model_is = model_is_of_step(model, step) ? OF_THIS_STEP : OF_THE_LAST;
        long its_step = step - (*model_is == OF_THE_LAST);
        EXPECT(model_is_of_step(model, its_step), "the model is neither of step %ld nor of the step before", step);
        EXPECT(vocabulary_equal(&v, &states[its_step % shapes].vocabulary), "the vocabulary is not that of the model");
    }
    transformer_free(model);
    vocabulary_free(&v);
    if (*model_is != OF_THIS_STEP) {
        EXPECT(state_save(dir, &left, error, sizeof error) && (model = model_load(dir, NULL, error, sizeof error)), "%s",
               error);
        EXPECT(model && model_is_of_step(model, step), "the model is still not of step %ld", step);
        transformer_free(model);
    }
    state_free(&left);
    return step;
}

// Kills a run that saves all the time, at random moments.
static void kill_many_times(const char *name, int kills, int shapes)
{
    TrainingState states[2] = { state_to_kill(small), state_to_kill((Config){ V + 2, T, L + 1, H, C, 0 }) };
    char *dir = in_root(name);
    set_numbers(&states[0], 0);
    EXPECT(state_save(dir, &states[0], error, sizeof error), "%s", error);
    double start = seconds_now();
    for (int i = 0; i < 5; i++) state_save(dir, &states[0], error, sizeof error);
    double span = 6 * (seconds_now() - start) / 5; // kills fall into the time of about six saves
    long step = 0;
    int found[3] = { 0 };
    for (int i = 0; i < kills && step >= 0; i++) {
        pid_t child = fork();
        if (child == 0) save_until_killed(dir, states, shapes, step + 1);
        long wait = (long)(1e9 * span * random_uniform(3, (uint64_t)i));
        nanosleep(&(struct timespec){ wait / 1000000000, wait % 1000000000 }, NULL);
        int status, model_is = OF_THIS_STEP;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        EXPECT(WIFSIGNALED(status), "kill %d: the run ended by itself", i);
        long before = step;
        step = look(dir, states, shapes, &model_is);
        EXPECT(step >= before, "kill %d: step %ld after step %ld", i, step, before);
        span *= step == before ? 1.1 : 0.95; // how long a save takes depends on what else the machine does: about half of the
                                             // kills shall come before the first one is done
        found[model_is]++;
    }
    printf("     %d kills during %ld saves: the model was of the state's step %d times, of the one before %d times, missing %d "
           "times\n",
           kills, step, found[OF_THIS_STEP], found[OF_THE_LAST], found[MISSING]);
    EXPECT(step > kills / 4, "only %ld saves: the kills came too early to test anything", step);
    EXPECT(state_save(dir, &states[0], error, sizeof error) && files_in(dir) == 5, "temporary files are left: %d files",
           files_in(dir));
    free_states(states);
}

static int steps_to_live;
static void die_there(int done) { if (done == steps_to_live) raise(SIGKILL); }

// Kills a run between each two of the renames of one save, from the first to the last.
static void kill_between_renames(const char *name, int shapes)
{
    TrainingState states[2] = { state_to_kill(small), state_to_kill((Config){ V + 2, T, L + 1, H, C, 0 }) };
    char *dir = in_root(name);
    set_numbers(&states[0], 0);
    EXPECT(state_save(dir, &states[0], error, sizeof error), "%s", error);
    long step = 0;
    bool finished = false;
    for (steps_to_live = 0; !finished && steps_to_live < 20; steps_to_live++) {
        pid_t child = fork();
        if (child == 0) {
            TrainingState *state = &states[(step + 1) % shapes];
            file_commit_step = die_there;
            set_numbers(state, step + 1);
            state_save(dir, state, error, sizeof error);
            _exit(0);
        }
        int status, model_is = OF_THIS_STEP;
        waitpid(child, &status, 0);
        finished = WIFEXITED(status);
        long now = look(dir, states, shapes, &model_is);
        // the state first; where the shape stays nothing else happens but the model's rename, where it changes the model goes
        // first
        EXPECT(now == step + (steps_to_live > 0), "killed before rename %d: state of step %ld", steps_to_live, now);
        int expected = steps_to_live == 0 || finished ? OF_THIS_STEP : shapes == 1 || steps_to_live < 2 ? OF_THE_LAST : MISSING;
        EXPECT(model_is == expected, "killed before rename %d of %d shapes: the model is %d, not %d", steps_to_live, shapes,
               model_is, expected);
        step = now;
    }
    EXPECT(finished && steps_to_live > (shapes == 1 ? 2 : 5), "%d renames", steps_to_live);
    free_states(states);
}

TEST(a_killed_run_leaves_a_whole_save) { kill_many_times("killed", sizeof(real) == sizeof(float) ? 200 : 20, 1); }
TEST(a_kill_between_two_renames) { kill_between_renames("between", 1); }
TEST(a_kill_between_two_renames_of_another_shape) { kill_between_renames("between two", 2); }
TEST(a_killed_run_leaves_no_mixture) { kill_many_times("mixed", sizeof(real) == sizeof(float) ? 50 : 10, 2); }

TEST(nothing_is_left_in_memory) { EXPECT(ledger.total == 0, "%ld bytes", ledger.total); }

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/meltwater-checkpoint-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(root)) { perror(root); return 1; }
    RUN(models_return_to_the_bit);
    RUN(names_and_shapes_are_those_of_gpt2);
    RUN(other_peoples_model_files);
    RUN(missing_unknown_and_misshaped_tensors);
    RUN(hostile_configurations);
    RUN(other_tokenizers);
    RUN(adapters_return_to_the_bit);
    RUN(names_and_shapes_are_those_of_peft);
    RUN(other_peoples_adapters);
    RUN(regular_expressions);
    RUN(adapters_that_are_refused);
    RUN(adapters_of_q_and_v);
    RUN(rows_with_adapters_of_their_own);
    RUN(states_go_on_as_if_nothing_had_happened);
    RUN(states_that_are_refused);
    RUN(truncated_files);
    RUN(a_failed_save_harms_nothing);
    RUN(a_failed_save_of_another_shape_leaves_what_can_be_loaded);
    RUN(terabytes_are_refused);
    RUN(a_killed_run_leaves_a_whole_save);
    RUN(a_killed_run_leaves_no_mixture);
    RUN(a_kill_between_two_renames);
    RUN(a_kill_between_two_renames_of_another_shape);
    RUN(nothing_is_left_in_memory);
    remove_all(root);
    return test_summary();
}
