// tensor.c - see tensor.h. The ledger and its pool first, then tensors, printing, and random numbers.
//
// Every buffer comes from memory_take and returns through memory_give. These two keep the ledger: what each kind holds, the
// most that it held, and what all kinds held when the total was highest. A buffer that was given back waits in the pool for the
// next request of exactly its size, so a training loop that has run in asks the system for nothing.
//
// A tensor has two lives. Its data lives while someone holds it: the caller, and each node that kept it. Its header (shape,
// flag, gradient) lives longer, for backward asks for those when the data is long gone. tensor_keep and tensor_unkeep count the
// first, tensor_refer and tensor_unrefer the second.
//
// Read next: parallel.h and matmul.h, or autograd.h at once.

#include "tensor.h"

#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

void check_failed(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

bool fail(char *error, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, size, format, arguments);
    va_end(arguments);
    return false;
}

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ------------------------------------------------------------------------------------------------------ memory: the ledger

const char *const memory_kind_names[MEMORY_KINDS] = {
    [MEMORY_WEIGHTS] = "weights",
    [MEMORY_ADAPTERS] = "adapters",
    [MEMORY_PARAMETER_GRADIENTS] = "parameter_gradients",
    [MEMORY_MOMENTS] = "moments",
    [MEMORY_KEPT_ACTIVATIONS] = "kept_activations",
    [MEMORY_LIVE_ACTIVATIONS] = "live_activations",
    [MEMORY_ACTIVATION_GRADIENTS] = "activation_gradients",
    [MEMORY_WORKSPACE] = "workspace",
};

Ledger ledger;
static FILE *timeline;
static const char *timeline_phase = "start", *timeline_label = "";

void memory_at(const char *phase, const char *label)
{
    timeline_phase = phase;
    timeline_label = label;
}

void memory_timeline(FILE *file)
{
    timeline = file;
    if (file == NULL) return;
    fprintf(file, "phase,label");
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(file, ",%s", memory_kind_names[k]);
    fputc('\n', file);
}

static void ledger_add(MemoryKind kind, long bytes)
{
    ledger.live[kind] += bytes;
    ledger.total += bytes;
    check(ledger.live[kind] >= 0, "the ledger holds %ld bytes of %s", ledger.live[kind], memory_kind_names[kind]);
    if (ledger.live[kind] > ledger.own_peak[kind]) ledger.own_peak[kind] = ledger.live[kind];
    if (ledger.total > ledger.peak) {
        ledger.peak = ledger.total;
        memcpy(ledger.at_peak, ledger.live, sizeof ledger.live);
    }
    if (timeline == NULL) return;
    fprintf(timeline, "%s,%s", timeline_phase, timeline_label);
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(timeline, ",%ld", ledger.live[k]);
    fputc('\n', timeline);
}

void memory_reset_peaks(void)
{
    memcpy(ledger.own_peak, ledger.live, sizeof ledger.live);
    memcpy(ledger.at_peak, ledger.live, sizeof ledger.live);
    ledger.peak = ledger.total;
}

void *allocate(size_t count, size_t size, const char *what)
{
    void *room = calloc(count + (count == 0), size);
    if (room == NULL) { fprintf(stderr, "out of memory: no room for %s\n", what); exit(1); }
    return room;
}

void *reallocate(void *array, size_t count, size_t size, const char *what)
{
    array = realloc(array, count * size);
    if (array == NULL) { fprintf(stderr, "out of memory: no room for %s\n", what); exit(1); }
    return array;
}

// The pool: one list of free buffers for each size. A training step asks for the same sizes each time, so after the first
// step every request is met from here, and no page is touched for the first time again.
typedef struct FreeBuffer { struct FreeBuffer *next; } FreeBuffer;
typedef struct SizeClass { long bytes; FreeBuffer *first; } SizeClass;
static SizeClass *classes;
static int class_count, class_capacity;

static long buffer_bytes(long count) { return (count * (long)sizeof(real) + 63) / 64 * 64; } // what malloc is asked for

static SizeClass *class_of(long bytes)
{
    for (int i = 0; i < class_count; i++)
        if (classes[i].bytes == bytes) return &classes[i];
    if (class_count == class_capacity) {
        class_capacity = class_capacity ? 2 * class_capacity : 64;
        classes = reallocate(classes, (size_t)class_capacity, sizeof *classes, "the pool's list");
    }
    classes[class_count] = (SizeClass){ bytes, NULL };
    return &classes[class_count++];
}

real *memory_take(MemoryKind kind, long count)
{
    if (count == 0) return NULL;
    long bytes = buffer_bytes(count);
    SizeClass *class = class_of(bytes);
    void *buffer = class->first;
    if (buffer != NULL) {
        class->first = class->first->next;
        ledger.pool -= bytes;
    } else {
        buffer = aligned_alloc(64, (size_t)bytes);
        if (buffer == NULL) {
            fprintf(stderr,
                    "out of memory: %ld bytes for %s, with %ld held already; a smaller model, batch or context needs less\n",
                    bytes, memory_kind_names[kind], ledger.total);
            exit(1);
        }
        ledger.mallocs++;
    }
    ledger_add(kind, count * (long)sizeof(real));
#ifdef POISON // a debug build: what was not written shows itself
    for (long i = 0; i < count; i++) ((real *)buffer)[i] = (real)NAN;
#endif
    return buffer;
}

void memory_give(MemoryKind kind, real *buffer, long count)
{
    if (buffer == NULL) return;
#ifdef POISON // so does what is read after it was given back
    for (long i = 0; i < count; i++) buffer[i] = (real)NAN;
#endif
    long bytes = buffer_bytes(count);
    SizeClass *class = class_of(bytes);
    FreeBuffer *free_buffer = (FreeBuffer *)(void *)buffer;
    free_buffer->next = class->first;
    class->first = free_buffer;
    ledger.pool += bytes;
    ledger_add(kind, -count * (long)sizeof(real));
}

void memory_move(MemoryKind from, MemoryKind to, long count)
{
    if (from == to) return;
    ledger_add(from, -count * (long)sizeof(real));
    ledger_add(to, count * (long)sizeof(real));
}

void memory_release_pool(void)
{
    for (int i = 0; i < class_count; i++)
        while (classes[i].first != NULL) {
            FreeBuffer *next = classes[i].first->next;
            free(classes[i].first);
            classes[i].first = next;
            ledger.pool -= classes[i].bytes;
        }
    free(classes);
    classes = NULL;
    class_count = class_capacity = 0;
}

// ------------------------------------------------------------------------------------------------------------------- tensor

// Headers are recycled too: a step makes and drops some hundred of them, more the deeper the model is.
typedef struct SpareHeader { struct SpareHeader *next; } SpareHeader;
static SpareHeader *spare_headers;

static Tensor *header_new(const char *name, MemoryKind kind, real *buffer, int ndim, const int *shape)
{
    check(ndim >= 1 && ndim <= MAX_DIMS, "%s: a tensor has 1 to %d dimensions, not %d", name, MAX_DIMS, ndim);
    Tensor *t = (Tensor *)(void *)spare_headers;
    if (t != NULL) spare_headers = spare_headers->next;
    else t = allocate(1, sizeof *t, name);
    *t = (Tensor){ .ndim = ndim, .size = 1, .kind = kind, .holders = 1, .node = NODE_LEAF };
    snprintf(t->name, sizeof t->name, "%s", name);
    for (int d = 0; d < MAX_DIMS; d++) {
        t->shape[d] = d < ndim ? shape[d] : 1;
        check(t->shape[d] > 0, "%s: dimension %d is %d, not at least 1", name, d, t->shape[d]);
        t->size *= t->shape[d];
    }
    t->data = buffer ? buffer : memory_take(kind, t->size);
    return t;
}

Tensor *tensor_new(const char *name, MemoryKind kind, int ndim, const int *shape)
{
    Tensor *t = header_new(name, kind, NULL, ndim, shape);
    memset(t->data, 0, (size_t)t->size * sizeof(real));
    return t;
}

Tensor *tensor_from(const char *name, const real *values, int ndim, const int *shape)
{
    Tensor *t = header_new(name, MEMORY_WEIGHTS, NULL, ndim, shape);
    memcpy(t->data, values, (size_t)t->size * sizeof(real));
    return t;
}

Tensor *tensor_result(const char *name, real *buffer, int ndim, const int *shape, bool on_tape)
{
    Tensor *t = header_new(name, MEMORY_LIVE_ACTIVATIONS, buffer, ndim, shape);
    t->on_tape = on_tape;
    return t;
}

static void let_go(Tensor *t)
{
    check(t->holders > 0, "%s: let go of once too often", t->name);
    if (--t->holders > 0) return;
    memory_give(t->kind, t->data, t->size);
    t->data = NULL;
}

void tensor_drop(Tensor *t)
{
    if (t == NULL) return;
    check(!t->dropped, "%s: dropped twice", t->name);
    t->dropped = true;
    let_go(t);
    if (!t->on_tape && t->refs == 0) tensor_free(t);
}

real *tensor_hand_over(Tensor *t)
{
    check(t->holders == 1 && !t->dropped && t->kind == MEMORY_LIVE_ACTIVATIONS,
          "%s: handed over while something else holds it", t->name);
    real *buffer = t->data;
    t->data = NULL;
    t->dropped = true;
    t->holders = 0;
    if (!t->on_tape && t->refs == 0) tensor_free(t);
    return buffer;
}

void tensor_keep(Tensor *t)
{
    check(t->data != NULL, "%s: a gradient needs it, but its data is gone", t->name);
    t->holders++;
    if (t->kind == MEMORY_LIVE_ACTIVATIONS) {
        memory_move(t->kind, MEMORY_KEPT_ACTIVATIONS, t->size);
        t->kind = MEMORY_KEPT_ACTIVATIONS;
    }
}

void tensor_unkeep(Tensor *t)
{
    bool only_caller = t->holders == 2 && !t->dropped;
    if (only_caller && t->kind == MEMORY_KEPT_ACTIVATIONS) {
        memory_move(t->kind, MEMORY_LIVE_ACTIVATIONS, t->size);
        t->kind = MEMORY_LIVE_ACTIVATIONS;
    }
    let_go(t);
}

void tensor_refer(Tensor *t) { t->refs++; }

void tensor_unrefer(Tensor *t)
{
    check(t->refs > 0, "%s: referred to by no node", t->name);
    if (--t->refs == 0 && t->dropped && !t->on_tape) tensor_free(t);
}

void tensor_drop_grad(Tensor *t)
{
    memory_give(t->node == NODE_LEAF ? MEMORY_PARAMETER_GRADIENTS : MEMORY_ACTIVATION_GRADIENTS, t->grad, t->size);
    t->grad = NULL;
}

void tensor_free(Tensor *t)
{
    tensor_drop_grad(t);
    if (t->holders > 0) memory_give(t->kind, t->data, t->size);
    SpareHeader *spare = (SpareHeader *)(void *)t;
    spare->next = spare_headers;
    spare_headers = spare;
}

bool same_shape(const Tensor *a, const Tensor *b)
{
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

const char *shape_text(const Tensor *t)
{
    static char texts[8][48];
    static int turn;
    char *text = texts[turn = (turn + 1) % 8];
    int n = 0;
    for (int d = 0; d < t->ndim; d++) n += snprintf(text + n, 48 - (size_t)n, "%c%d", d ? ',' : '[', t->shape[d]);
    snprintf(text + n, 48 - (size_t)n, "]");
    return text;
}

void tensor_print(const Tensor *t)
{
    printf("%s %s%s", t->name, shape_text(t), t->requires_grad ? " requires_grad" : "");
    if (t->grad == NULL) printf("  grad: not computed\n");
    else printf("  |grad| = %.6g\n", norm_of(t->grad, t->size));
    if (t->data == NULL) {
        printf("  (its data is gone: dropped, and kept by no node)\n");
        return;
    }
    int columns = last_dim(t);
    for (long r = 0; r < rows_of(t) && r < 8; r++) {
        for (int c = 0; c < columns && c < 8; c++) printf(" %10.5g", (double)t->data[r * columns + c]);
        printf(columns > 8 ? " ...\n" : "\n");
    }
    if (rows_of(t) > 8) printf(" ...\n");
}

double norm_of(const real *values, long count)
{
    double sum = 0;
    for (long i = 0; values != NULL && i < count; i++) sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < count; i++) hash = (hash ^ byte[i]) * 1099511628211ull;
    return hash;
}

// ------------------------------------------------------------------------------------------------------------ random numbers

double random_normal(uint64_t seed, uint64_t i)
{
    double u = 1.0 - random_uniform(seed, 2 * i); // in (0, 1]: its logarithm is finite
    double v = random_uniform(seed, 2 * i + 1);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void fill_normal(Tensor *t, double deviation, uint64_t seed)
{
    for (long i = 0; i < t->size; i++) t->data[i] = (real)(deviation * random_normal(seed, (uint64_t)i));
}

void fill_uniform(Tensor *t, double bound, uint64_t seed)
{
    for (long i = 0; i < t->size; i++) t->data[i] = (real)(bound * (2.0 * random_uniform(seed, (uint64_t)i) - 1.0));
}
