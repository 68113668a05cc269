// checkpoint.h - what the tests of model, adapter and state files share: small models, files in a directory of their own under TMPDIR,
// and comparisons to the bit.

#ifndef CHECKPOINT_H
#define CHECKPOINT_H

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

static inline char *in_root(const char *name) // the same pointer for the same name, valid to the end
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

static inline bool one_line(const char *word) { return error[0] != '\0' && !strchr(error, '\n') && strstr(error, word); }

static inline void give_up(const char *what) { printf("%s: %s\n", what, error); exit(1); }

static inline char *read_text(const char *path, size_t *n)
{
    static char *bytes;
    size_t size;
    if (!file_read(path, 1 << 24, &bytes, &size, error, sizeof error)) give_up("test");
    if (n) *n = size;
    return bytes;
}

static inline void write_text(const char *path, const char *bytes, size_t n)
{
    FILE *out = fopen(path, "wb"); // not file_write_all, which waits for the disk
    if (!out || fwrite(bytes, 1, n, out) != n || fclose(out) != 0) { perror(path); exit(1); }
}

static inline bool same_bytes(const char *a, const char *b)
{
    size_t n, m;
    char *x = read_text(a, &n), *y = read_text(b, &m);
    bool same = n == m && memcmp(x, y, n) == 0;
    free(x), free(y);
    return same;
}

static inline int files_in(const char *path)
{
    int n = -2; // . and ..
    DIR *d = opendir(path);
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

// `text` with the first `old` in it replaced.
static inline char *replaced(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    if (at == NULL) { printf("%s is not in %s\n", old, text); exit(1); }
    char *result = malloc(strlen(text) + strlen(new) + 1);
    sprintf(result, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    return result;
}

static inline Vocabulary letters(int n)
{
    Vocabulary v = { n, malloc((size_t)n * sizeof *v.code_point) };
    for (int i = 0; i < n; i++)
        v.code_point[i] = i == 0 ? 0 : i < 4 ? (uint32_t[]){ 0, '\n', '"', '\\' }[i] : (uint32_t)(0x80 + 37 * i * i);
    return v;
}

static inline void disturb(Tensor *t, uint64_t seed)
{
    for (int64_t i = 0; i < t->size; i++) t->data[i] += (real)(0.1 * random_normal(seed, (uint64_t)i));
}

// A model in which no tensor is like another.
static inline Transformer *new_model(uint64_t seed)
{
    Transformer *model = transformer_new(small, seed, error, sizeof error);
    for (int i = 0; model && i < model->base_count; i++) disturb(model->parameters[i], seed + 100 + (uint64_t)i);
    return model;
}

static inline Adapter *new_adapter(Transformer *model, const char *name, LoraConfig config, uint64_t seed)
{
    Adapter *adapter = transformer_add_adapter(model, name, config, seed, error, sizeof error);
    if (adapter == NULL) give_up("new_adapter");
    for (int i = 0; i < L * LINEARS; i++) {
        const Lora *lora = &adapter->lora[i];
        if (lora->A == NULL) continue;
        disturb(lora->A, seed + (uint64_t)i);
        disturb(lora->B, seed + 50 + (uint64_t)i);
        for (int64_t j = 0; lora->mask && j < lora->B->size; j++) lora->B->data[j] *= lora->mask->data[j];
    }
    return adapter;
}

static inline bool same_bits(const Tensor *a, const Tensor *b)
{
    return a->size == b->size && same_shape(a, b) && memcmp(a->data, b->data, (size_t)a->size * sizeof(real)) == 0;
}

static inline bool same_base(const Transformer *a, const Transformer *b)
{
    bool same = a->base_count == b->base_count;
    for (int i = 0; i < a->base_count && same; i++)
        same = same_bits(a->parameters[i], b->parameters[i]) && strcmp(a->parameters[i]->name, b->parameters[i]->name) == 0;
    return same;
}

static inline bool same_adapter(const Adapter *a, const Adapter *b)
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
static inline void write_items(const char *path, const Item *items, size_t count, SafetensorsDtype dtype)
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
static inline size_t items_of(const char *path, Item *items, Safetensors **file)
{
    if (safetensors_open(path, file, error, sizeof error)) give_up("items_of");
    for (size_t i = 0; i < (*file)->count; i++) {
        const SafetensorsEntry *e = &(*file)->entries[i];
        items[i] = (Item){ e->name, (int)e->ndim, { (int)e->shape[0], e->ndim > 1 ? (int)e->shape[1] : 1, 1 } };
    }
    return (*file)->count;
}

// Makes the directory; false: it cannot be.
static inline bool make_root(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/meltwater-checkpoint-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (mkdtemp(root) == NULL) return perror(root), false;
    return true;
}

static inline LoraConfig everywhere(int r, double alpha)
{ return (LoraConfig){ .r = r, .alpha = alpha, .targets = 15, .last_block = -1 }; }

// A few steps on made-up batches that depend on the step alone.
static inline void train(Transformer *model, AdamW *optimizer, int64_t from, int64_t to)
{
    Tape *tape = tape_new();
    for (int64_t step = from; step < to; step++) {
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

#endif
