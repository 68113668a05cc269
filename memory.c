// memory.c - see memory.h. What each kind holds, the most that it held, and what all kinds held when the total was highest.
//
// Read next: kernels.h, or autograd.h at once.

#include "memory.h"

#include <stdlib.h>

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
const char *program_name = "meltwater";
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

static void ledger_add(MemoryKind kind, int64_t bytes)
{
    ledger.live[kind] += bytes;
    ledger.total += bytes;
    check(ledger.live[kind] >= 0, "the ledger holds %" PRId64 " bytes of %s", ledger.live[kind], memory_kind_names[kind]);
    if (ledger.live[kind] > ledger.own_peak[kind]) ledger.own_peak[kind] = ledger.live[kind];
    if (ledger.total > ledger.peak) {
        ledger.peak = ledger.total;
        memcpy(ledger.at_peak, ledger.live, sizeof ledger.live);
    }
    if (timeline == NULL) return;
    fprintf(timeline, "%s,%s", timeline_phase, timeline_label);
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(timeline, ",%" PRId64, ledger.live[k]);
    fputc('\n', timeline);
}

void memory_reset_peaks(void)
{
    memcpy(ledger.own_peak, ledger.live, sizeof ledger.live);
    memcpy(ledger.at_peak, ledger.live, sizeof ledger.live);
    ledger.peak = ledger.total;
}

static _Noreturn void no_room(const char *what)
{
    fprintf(stderr, "%s: out of memory: no room for %s\n", program_name, what);
    exit(1);
}

void *allocate(size_t count, size_t size, const char *what)
{
    void *room = calloc(count + (count == 0), size);
    if (room == NULL) no_room(what);
    return room;
}

void *reallocate(void *array, size_t count, size_t size, const char *what)
{
    array = realloc(array, count * size);
    if (array == NULL) no_room(what);
    return array;
}

// The pool: one list of free buffers for each size.
typedef struct FreeBuffer { struct FreeBuffer *next; } FreeBuffer;
typedef struct SizeClass { int64_t bytes; FreeBuffer *first; } SizeClass;
static SizeClass *classes;
static int class_count, class_capacity;

static int64_t buffer_bytes(int64_t count) { return (count * (int64_t)sizeof(real) + 63) / 64 * 64; } // what malloc is asked for

static SizeClass *class_of(int64_t bytes)
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

static void *new_buffer(MemoryKind kind, int64_t bytes)
{
    void *buffer = (uint64_t)bytes > SIZE_MAX ? NULL : aligned_alloc(64, (size_t)bytes);
    if (buffer == NULL) {
        fprintf(stderr,
                "%s: out of memory: %" PRId64 " bytes for %s, with %" PRId64 " held already; "
                "a smaller model, batch or context needs less\n",
                program_name, bytes, memory_kind_names[kind], ledger.total);
        exit(1);
    }
    ledger.mallocs++;
    return buffer;
}

// A debug build: what was not written, and what is read after it was given back, shows itself.
static void poison(real *buffer, int64_t count)
{
#ifdef POISON
    for (int64_t i = 0; i < count; i++) buffer[i] = (real)NAN;
#else
    (void)buffer, (void)count;
#endif
}

real *memory_take(MemoryKind kind, int64_t count)
{
    if (count == 0) return NULL;
    int64_t bytes = buffer_bytes(count);
    SizeClass *class = class_of(bytes);
    void *buffer = class->first;
    if (buffer != NULL) {
        class->first = class->first->next;
        ledger.pool -= bytes;
    } else {
        buffer = new_buffer(kind, bytes);
    }
    ledger_add(kind, count * (int64_t)sizeof(real));
    poison(buffer, count);
    return buffer;
}

void memory_give(MemoryKind kind, real *buffer, int64_t count)
{
    if (buffer == NULL) return;
    poison(buffer, count);
    int64_t bytes = buffer_bytes(count);
    SizeClass *class = class_of(bytes);
    FreeBuffer *free_buffer = (FreeBuffer *)(void *)buffer;
    free_buffer->next = class->first;
    class->first = free_buffer;
    ledger.pool += bytes;
    ledger_add(kind, -count * (int64_t)sizeof(real));
}

void memory_move(MemoryKind from, MemoryKind to, int64_t count)
{
    if (from == to) return;
    ledger_add(from, -count * (int64_t)sizeof(real));
    ledger_add(to, count * (int64_t)sizeof(real));
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
