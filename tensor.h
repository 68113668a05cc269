// tensor.h - what a tensor is: a dense, row-major block of numbers with a shape, and perhaps a gradient. There are no strides,
// views or broadcasts. Two kinds exist:
//   a leaf    made by tensor_new: weights, adapter matrices, inputs. Its maker frees it with tensor_drop.
//   a result  made by an op (ops.h). Whoever called the op holds it, and lets go with tensor_drop as soon as the value
//             is no longer needed; the data is freed when no node of the tape keeps it either.
//
// Letters for shapes, in the whole project: B batch, T context (positions), C width (n_embd), H heads, D = C/H head size,
// V vocabulary, R rank of an adapter, N rows (size / last dimension; B*T in the transformer), I and O inputs and outputs.
//
// Read next: memory.h, where every byte of it is counted; or autograd.h at once.

#ifndef TENSOR_H
#define TENSOR_H

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifndef REAL
#define REAL float
#endif
typedef REAL real; // make REAL=double builds all of it in double, for exact gradient checks

#if defined __GNUC__ // lets the compiler compare a format with its arguments
#define FORMATS(text, values) __attribute__((format(printf, text, values)))
#else
#define FORMATS(text, values)
#endif

// ------------------------------------------------------------------------------------------------- mistakes, and the time

// Stops the program where the mistake is, in every build, with the stack alive for a debugger.
#define check(condition, ...)                                              \
    do {                                                                   \
        if (!(condition)) check_failed(__FILE__, __LINE__, __VA_ARGS__);   \
    } while (0)
_Noreturn FORMATS(3, 4) void check_failed(const char *file, int line, const char *format, ...);

// A user's mistake: writes one line into error[size], for the program to print, and returns false.
FORMATS(3, 4) bool fail(char *error, size_t size, const char *format, ...);

// A clock that only goes forward, in seconds.
double seconds_now(void);

// ------------------------------------------------------------------------------------------------------------------- tensor

// The lines of the ledger (memory.h).
typedef enum MemoryKind {
    MEMORY_WEIGHTS,              // the base model's parameters (and a lesson's leaves)
    MEMORY_ADAPTERS,             // LoRA's A and B
    MEMORY_PARAMETER_GRADIENTS,  // gradients of leaves
    MEMORY_MOMENTS,              // the optimizer's two averages
    MEMORY_KEPT_ACTIVATIONS,     // results, and saved statistics, that some gradient will read
    MEMORY_LIVE_ACTIVATIONS,     // results that only their caller still holds, or that were made again for a gradient
    MEMORY_ACTIVATION_GRADIENTS, // gradients of results
    MEMORY_WORKSPACE,            // the threads' scratch
    MEMORY_KINDS
} MemoryKind;

enum { MAX_DIMS = 4, MAX_NAME = 128 };

typedef struct Tape Tape;   // autograd.h
typedef struct Codes Codes; // quantise.h

typedef struct Tensor {
    // what it is
    int        ndim;
    int        shape[MAX_DIMS]; // outermost first; unused entries are 1
    MemoryKind kind;            // the ledger's line for its data
    int64_t    size;            // product of shape
    char       name[MAX_NAME];  // "transformer.h.0.attn.c_attn.weight", "gelu#17"; for messages, reports, gdb

    // its numbers
    real *data;                 // NULL once nobody holds or keeps it
    Codes *codes;               // a frozen weight's numbers in few bits; then data is NULL
    real *grad;                 // NULL until a gradient reaches it: "not computed" is not the same as zero
    bool  grad_empty;           // grad was made for a product, which takes it as zeros and need not read it
    bool  requires_grad;        // leaf: set by you; result: true if some input's is

    // who needs it
    bool  spent;                // a result: backward has passed its node, so it can feed nothing any more
    bool  held;                 // by its caller, until tensor_drop
    bool  again;                // a result whose data can be made again: then tensor_drop frees it, whoever keeps it
    int   kept;                 // its data, by so many nodes: a gradient of theirs will read it
    int   used;                 // this header, by so many nodes: they ask for its shape, flag and gradient
    Tape *tape;                 // on which it was made, and which frees this header; NULL: a leaf, or made without one
} Tensor;

// SHAPE(8, 4) stands for the two arguments `ndim, shape`.
#define SHAPE(...) (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (int[]){__VA_ARGS__}

// A leaf, filled with zeros. The caller owns it: tensor_drop. A shape whose size no buffer could have, or a name that does not
// fit, is a programmer's mistake (check()).
Tensor *tensor_new(const char *name, MemoryKind kind, int ndim, const int *shape);
// A leaf that holds a copy of values[product of shape].
Tensor *tensor_from(const char *name, const real *values, int ndim, const int *shape);
// The caller no longer needs the data; it goes unless a node keeps it, or backward makes it again when a node asks. A leaf, or a
// result made without a tape, is gone entirely, or as soon as no node of a tape uses it; NULL is fine.
void    tensor_drop(Tensor *t);
// Frees the gradient, if there is one.
void    tensor_drop_grad(Tensor *t);

// Of the engine alone. A result, contents undefined; it shares the buffer of `place`, if that is not NULL: a result of the same
// size that its caller gives up. Once the old value has been read, tensor_give_up(place) leaves the buffer to the new one.
Tensor *tensor_result(const char *name, Tape *tape, Tensor *place, int ndim, const int *shape);
void    tensor_give_up(Tensor *place);
// One more node keeps the data, or one fewer: data moves between kept and live, and goes when nobody is left.
void    tensor_keep(Tensor *t);
void    tensor_unkeep(Tensor *t);
// A buffer for data that is made again; the nodes that keep it let go of it.
void    tensor_return(Tensor *t);
// One more node uses the header, or one fewer.
void    tensor_use(Tensor *t);
void    tensor_unuse(Tensor *t);
// Frees the header (and whatever it still holds); for tapes.
void    tensor_free(Tensor *t);
// Stops at a handle that was used after its header was freed: for certain in a debug build, which frees no header.
void    tensor_check(const Tensor *t, const char *user);

static inline int     last_dim(const Tensor *t) { return t->shape[t->ndim - 1]; }
static inline int64_t rows_of(const Tensor *t) { return t->size / last_dim(t); }
static inline bool    has_numbers(const Tensor *t) { return t->data != NULL || t->codes != NULL; }
static inline bool    is_leaf(const Tensor *t) { return t->tape == NULL; }
bool        same_shape(const Tensor *a, const Tensor *b);
// "[64,128]": a string in one of eight buffers used in turn, for messages.
const char *shape_text(const Tensor *t);
// Prints name, shape, flags, gradient's norm and the numbers (the corners of large tensors).
void        tensor_print(const Tensor *t);
// sqrt(sum of squares), summed in double; 0 for NULL.
double      norm_of(const real *values, int64_t count);
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

#endif
