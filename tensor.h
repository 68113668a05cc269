// tensor.h - what a tensor is, and where every byte goes.
//
// A tensor is a dense, row-major block of numbers with a shape, and perhaps a gradient. There are no strides, views or
// broadcasts. Two kinds exist:
//   a leaf    made by tensor_new: weights, adapter matrices, inputs. Its maker frees it with tensor_drop.
//   a result  made by an op (autograd.h). Whoever called the op holds it, and lets go with tensor_drop as soon as the value
//             is no longer needed; the data is freed when no node of the tape keeps it either.
// All data, gradients and workspace come from memory_take, which writes each byte into the ledger under its kind.
//
// Letters for shapes, in the whole project: B batch, T context (positions), C width (n_embd), H heads, D = C/H head size,
// V vocabulary, R rank of an adapter, N rows (size / last dimension; B*T in the transformer), I and O inputs and outputs.
//
// Read next: parallel.h and matmul.h (the one kernel that takes most of the time), or autograd.h at once.

#ifndef TENSOR_H
#define TENSOR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifndef REAL
#define REAL float
#endif
typedef REAL real; // make REAL=double builds all of it in double, for exact gradient checks

// ------------------------------------------------------------------------------------------------- mistakes, and the time

// Stops the program where the mistake is, in every build, with the stack alive for a debugger.
#define check(condition, ...)                                              \
    do {                                                                   \
        if (!(condition)) check_failed(__FILE__, __LINE__, __VA_ARGS__);   \
    } while (0)
_Noreturn void check_failed(const char *file, int line, const char *format, ...);

// A user's mistake: writes one line into error[size], for the program to print, and returns false.
#if defined __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
bool fail(char *error, size_t size, const char *format, ...);

// A clock that only goes forward, in seconds.
double seconds_now(void);

// ------------------------------------------------------------------------------------------------------ memory: the ledger

typedef enum MemoryKind {
    MEMORY_WEIGHTS,              // the base model's parameters (and a lesson's leaves)
    MEMORY_ADAPTERS,             // LoRA's A and B
    MEMORY_PARAMETER_GRADIENTS,  // gradients of leaves
    MEMORY_MOMENTS,              // the optimizer's two averages
    MEMORY_KEPT_ACTIVATIONS,     // results, and saved statistics, that some gradient will read
    MEMORY_LIVE_ACTIVATIONS,     // results that only their caller still holds
    MEMORY_ACTIVATION_GRADIENTS, // gradients of results
    MEMORY_WORKSPACE,            // scratch of a kernel while it runs
    MEMORY_KINDS
} MemoryKind;
extern const char *const memory_kind_names[MEMORY_KINDS]; // "weights", ..., as in metrics.json

typedef struct Ledger {          // all in bytes
    long live[MEMORY_KINDS];     // held now
    long own_peak[MEMORY_KINDS]; // the most that this kind ever held
    long at_peak[MEMORY_KINDS];  // what this kind held when the total was highest
    long total, peak;            // sum of live, and its maximum
    long pool;                   // free buffers held for reuse; not part of total
    long mallocs;                // buffers asked of the system so far: constant in steady state
} Ledger;
extern Ledger ledger;            // read it freely; only the functions below write it

// A buffer of `count` reals, aligned to 64 bytes; NULL for none. Its contents are whatever was there before (NaN in a debug
// build). Out of memory: a message and exit(1). Call it from the main thread only.
real *memory_take(MemoryKind kind, long count);
// Gives a buffer back to the pool; NULL is fine. `kind` and `count` must be those it is on the ledger with.
void  memory_give(MemoryKind kind, real *buffer, long count);
// The buffer of `count` reals is now of another kind.
void  memory_move(MemoryKind from, MemoryKind to, long count);
// Starts the peaks anew from what is held now.
void  memory_reset_peaks(void);
// Returns the free buffers to the system.
void  memory_release_pool(void);
// While `file` is not NULL, every change of the ledger writes one CSV row: phase, label, then the live bytes of each kind.
void  memory_timeline(FILE *file);
// Says what the program is doing now, for the timeline: ("backward", "gelu"). The strings must last.
void  memory_at(const char *phase, const char *label);

// ------------------------------------------------------------------------------------------------------------------- tensor

enum { MAX_DIMS = 4, NODE_LEAF = -1, NODE_CONSUMED = -2 };

typedef struct Tensor {
    // what it is
    char  name[64];        // "transformer.h.0.attn.c_attn.weight", "gelu#17"
    int   ndim;
    int   shape[MAX_DIMS]; // outermost first; unused entries are 1
    long  size;            // product of shape

    // its numbers
    real *data;            // NULL once the last holder has let go
    real *grad;            // NULL until a gradient reaches it: "not computed" is not the same as zero
    bool  requires_grad;   // leaf: set by you; result: true if some input's is

    // who needs it
    MemoryKind kind;       // the ledger's line for its data
    int   holders;         // of the data: the caller's handle, and every node that kept it
    int   refs;            // of this header: nodes that will read its shape, flag and grad, perhaps after its data is gone
    bool  dropped;         // the caller's handle is gone
    bool  on_tape;         // its header is freed by its tape; otherwise by tensor_drop
    int   node;            // which node made it; NODE_LEAF; or NODE_CONSUMED: its tape has been through backward
} Tensor;

// SHAPE(8, 4) stands for the two arguments `ndim, shape`.
#define SHAPE(...) (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (int[]){__VA_ARGS__}

// A leaf, filled with zeros. The caller owns it: tensor_drop.
Tensor *tensor_new(const char *name, MemoryKind kind, int ndim, const int *shape);
// A leaf that holds a copy of values[product of shape].
Tensor *tensor_from(const char *name, const real *values, int ndim, const int *shape);
// A result of the engine, contents undefined; used by ops only. `buffer`, if not NULL, was handed over by another result.
Tensor *tensor_result(const char *name, real *buffer, int ndim, const int *shape, bool on_tape);
// Drops t like tensor_drop, but returns its buffer instead of freeing it; t must be a result that nothing else holds.
real   *tensor_hand_over(Tensor *t);
// The caller no longer needs the data. A leaf, or a result made without a tape, is gone
// entirely, or as soon as no node of a tape refers to it; NULL is fine.
void    tensor_drop(Tensor *t);
// One more node keeps the data, or one fewer: data moves between kept and live, and goes when nobody is left.
void    tensor_keep(Tensor *t);
void    tensor_unkeep(Tensor *t);
// One more node refers to the header, or one fewer: a leaf that was dropped goes with the last of them.
void    tensor_refer(Tensor *t);
void    tensor_unrefer(Tensor *t);
// Frees the gradient, if there is one.
void    tensor_drop_grad(Tensor *t);
// Frees the header (and whatever it still holds); for tapes.
void    tensor_free(Tensor *t);

static inline int  last_dim(const Tensor *t) { return t->shape[t->ndim - 1]; }
static inline long rows_of(const Tensor *t) { return t->size / last_dim(t); }
bool        same_shape(const Tensor *a, const Tensor *b);
// Room outside the ledger, for lists: `count` zeroed elements of `size` bytes, the caller's to free; or an array's room
// changed. Never NULL: without memory there is one line, that there is no room for `what`, and exit status 1.
void       *allocate(size_t count, size_t size, const char *what);
void       *reallocate(void *array, size_t count, size_t size, const char *what);
// "[64,128]": a string in one of eight buffers used in turn, for messages.
const char *shape_text(const Tensor *t);
// Prints name, shape, flags, gradient's norm and the numbers (the corners of large tensors).
void        tensor_print(const Tensor *t);
// sqrt(sum of squares), summed in double; 0 for NULL.
double      norm_of(const real *values, long count);
// FNV-1a over bytes: equal weights give equal hashes. Start with HASH_START and chain.
#define HASH_START 14695981039346656037ull
uint64_t    hash_bytes(uint64_t hash, const void *bytes, size_t count);

// ------------------------------------------------------------------------------------------------------------ random numbers

// Counter-based: the i-th number depends on the seed and i alone, so any thread can make it.
// splitmix64's output function (Steele, Lea, Flood 2014).
static inline uint64_t random_bits(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
// in [0, 1)
static inline double random_uniform(uint64_t seed, uint64_t i) { return (double)(random_bits(seed, i) >> 11) * 0x1p-53; }
// mean 0, deviation 1 (Box and Muller)
double random_normal(uint64_t seed, uint64_t i);
void   fill_normal(Tensor *t, double deviation, uint64_t seed);           // N(0, deviation^2)
void   fill_uniform(Tensor *t, double bound, uint64_t seed);              // U(-bound, bound)

// ------------------------------------------------------------------------- numeric helpers that several kernels share

// Sums are kept in LANES partial sums, folded in halves at the end: a compiler may then use its widest registers, and the
// order of addition does not depend on which registers those are.
enum { LANES = 16 };

// What gcc must be told of some short loops: to leave one over lanes as it is, for it unrolls that before it looks for vectors,
// and then finds none; to unroll another, so that numbers stay in registers. clang needs no word.
#if defined __GNUC__ && !defined __clang__
#define VECTOR_LOOP _Pragma("GCC unroll 1")
#define UNROLL_LOOP _Pragma("GCC unroll 8")
#else
#define VECTOR_LOOP
#define UNROLL_LOOP
#endif

static inline real fold_lanes(real lane[LANES])
{
    UNROLL_LOOP for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static inline real real_sqrt(real x) { return sizeof(real) == sizeof(float) ? (real)sqrtf((float)x) : (real)sqrt((double)x); }

// e^x, written so that a loop over it vectorises: x = n ln2 + r with |r| <= ln2/2; e^r by its series up to r^7; times 2^n by
// setting the exponent's bits. Relative error below 2e-7 from -87 on. Below about -87.7 the bits of 2^n are 0, and so is the
// result, as it must be of -infinity. From 88 on it stays at e^88, instead of infinity; NaN stays NaN. In the double build:
// libm's exp.
static inline real fast_exp(real value)
{
    if (sizeof(real) == sizeof(double)) return (real)exp((double)value);
    float x = (float)value;
    x = x < -88.0f ? -88.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f; // 1.5 * 2^23 leaves no bits for a fraction: n is in the lowest bits
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;    // ln2 in two parts: the first product is exact
    float p = 1 / 120.0f + r * (1 / 720.0f + r * (1 / 5040.0f));
    p = 1.0f + r * (1.0f + r * (1 / 2.0f + r * (1 / 6.0f + r * (1 / 24.0f + r * p))));
    uint32_t bits; // a cast of n would be undefined for NaN
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return (real)(p * power);
}

#endif
