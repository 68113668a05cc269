// tensor.c - see tensor.h. Mistakes, tensors, printing, and random numbers.
//
// A tensor has two lives. Its data lives while someone needs it: the caller who holds it, and each node that keeps it. Its header
// (shape, flag, gradient) lives longer, for backward asks for those when the data is long gone: as long as a node uses it, or
// as long as the tape on which it was made.
//
// Read next: memory.h, or autograd.h at once.

#include "tensor.h"

#include "memory.h"
#include "quantise.h"

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

// ------------------------------------------------------------------------------------------------------------------- tensor

static void set_shape(Tensor *t, int ndim, const int *shape)
{
    const int64_t most = INT64_MAX / 64; // of bytes, with room for sums of some
    check(ndim >= 1 && ndim <= MAX_DIMS, "%s: a tensor has 1 to %d dimensions, not %d", t->name, MAX_DIMS, ndim);
    t->ndim = ndim;
    t->size = 1;
    for (int d = 0; d < MAX_DIMS; d++) {
        t->shape[d] = d < ndim ? shape[d] : 1;
        check(t->shape[d] > 0, "%s: dimension %d is %d, not at least 1", t->name, d, t->shape[d]);
        check(t->size <= most / (int64_t)sizeof(real) / t->shape[d], "%s: the sizes up to dimension %d, %d, are more than any memory "
              "holds", t->name, d, t->shape[d]);
        t->size *= t->shape[d];
    }
}

static Tensor *header_new(const char *name, MemoryKind kind, Tape *tape, int ndim, const int *shape)
{
    check(strlen(name) < MAX_NAME, "%s: a name has at most %d characters", name, MAX_NAME - 1);
    Tensor *t = allocate(1, sizeof *t, name);
    *t = (Tensor){ .kind = kind, .held = true, .tape = tape };
    memcpy(t->name, name, strlen(name) + 1);
    set_shape(t, ndim, shape);
    return t;
}

Tensor *tensor_new(const char *name, MemoryKind kind, int ndim, const int *shape)
{
    Tensor *t = header_new(name, kind, NULL, ndim, shape);
    t->data = memory_take(kind, t->size);
    memset(t->data, 0, (size_t)t->size * sizeof(real));
    return t;
}

Tensor *tensor_from(const char *name, const real *values, int ndim, const int *shape)
{
    Tensor *t = header_new(name, MEMORY_WEIGHTS, NULL, ndim, shape);
    t->data = memory_take(t->kind, t->size);
    memcpy(t->data, values, (size_t)t->size * sizeof(real));
    return t;
}

Tensor *tensor_result(const char *name, Tape *tape, Tensor *place, int ndim, const int *shape)
{
    Tensor *t = header_new(name, MEMORY_LIVE_ACTIVATIONS, tape, ndim, shape);
    t->data = place ? place->data : memory_take(t->kind, t->size);
    return t;
}

static void free_data(Tensor *t)
{
    memory_give(t->kind, t->data, t->size);
    t->data = NULL;
    tensor_free_codes(t);
}

// After one need fewer: frees what nobody needs any more.
static void settle(Tensor *t)
{
    if (t->held || t->kept > 0) return;
    free_data(t);
    if (t->tape == NULL && t->used == 0) tensor_free(t);
}

void tensor_drop(Tensor *t)
{
    if (t == NULL) return;
    tensor_check(t, "tensor_drop");
    check(t->held, "%s: dropped twice", t->name);
    t->held = false;
    if (t->again) free_data(t);
    settle(t);
}

void tensor_give_up(Tensor *place)
{
    check(place->held && place->kept == 0, "%s: given up while a node keeps it", place->name);
    place->data = NULL;
    tensor_drop(place);
}

static void change_kind(Tensor *t, MemoryKind from, MemoryKind to)
{
    if (t->kind != from) return; // a leaf stays on its line
    memory_move(from, to, t->size);
    t->kind = to;
}

void tensor_keep(Tensor *t)
{
    check(has_numbers(t), "%s: a gradient needs it, but its data is gone", t->name);
    t->kept++;
    if (!t->again) change_kind(t, MEMORY_LIVE_ACTIVATIONS, MEMORY_KEPT_ACTIVATIONS); // else it will not stay for that
}

void tensor_unkeep(Tensor *t)
{
    check(t->kept > 0, "%s: let go of once too often", t->name);
    if (--t->kept == 0 && t->held) change_kind(t, MEMORY_KEPT_ACTIVATIONS, MEMORY_LIVE_ACTIVATIONS);
    settle(t);
}

void tensor_return(Tensor *t) { t->data = memory_take(t->kind, t->size); }

void tensor_use(Tensor *t) { t->used++; }

void tensor_unuse(Tensor *t)
{
    check(t->used > 0, "%s: used by no node", t->name);
    t->used--;
    settle(t);
}

void tensor_drop_grad(Tensor *t)
{
    memory_give(is_leaf(t) ? MEMORY_PARAMETER_GRADIENTS : MEMORY_ACTIVATION_GRADIENTS, t->grad, t->size);
    t->grad = NULL;
}

void tensor_free(Tensor *t)
{
    tensor_drop_grad(t);
    free_data(t);
#ifdef POISON // the header stays, so that whoever still has its handle is found and named
    t->ndim = 0;
#else
    free(t);
#endif
}

void tensor_check(const Tensor *t, const char *user)
{
    check(t->ndim > 0, "%s: %s is gone: it was dropped, or its tape was cleared or freed", user, t->name);
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
    if (t->codes != NULL) printf("  (in %s codes)\n", base_type_names[t->codes->type]);
    if (!has_numbers(t)) printf("  (its data is gone: dropped, and kept by no node)\n");
    if (t->data == NULL) return;
    int columns = last_dim(t);
    for (int64_t r = 0; r < rows_of(t) && r < 8; r++) {
        for (int c = 0; c < columns && c < 8; c++) printf(" %10.5g", (double)t->data[r * columns + c]);
        printf(columns > 8 ? " ...\n" : "\n");
    }
    if (rows_of(t) > 8) printf(" ...\n");
}

double norm_of(const real *values, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; values != NULL && i < count; i++) sum += (double)values[i] * (double)values[i];
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
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (real)(deviation * random_normal(seed, (uint64_t)i));
}

void fill_uniform(Tensor *t, double bound, uint64_t seed)
{
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (real)(bound * (2.0 * random_uniform(seed, (uint64_t)i) - 1.0));
}
