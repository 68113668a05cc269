// quantise.h - a frozen weight in four or eight bits a number: codes and scales in the place of floats.
//
//     nf4    one of 16 values from -1 to 1, times its block's scale, the largest |w| of 64 numbers in a row
//     int8   a whole number from -127 to 127, times its column's scale, 1/127 of the largest |w| there
//
// Of a frozen W the gradient needs the values, and nothing else: y = x W, dx = dy W^T. So a product makes them of the codes,
// a panel at a time, in scratch that it has anyway and whose size does not depend on W's. Training W is another matter: a step
// moves a number by less than the distance of two codes. Such a tensor cannot require a gradient.
//
// (nf4: Dettmers et al. 2023, arXiv:2305.14314, without its second step for scales; int8: as weights in arXiv:2208.07339.)
//
// Read next: kernels.h.

#ifndef QUANTISE_H
#define QUANTISE_H

#include "tensor.h"

typedef enum BaseType { BASE_FLOAT, BASE_NF4, BASE_INT8, BASE_TYPES } BaseType;
extern const char *const base_type_names[BASE_TYPES]; // "float", "nf4", "int8"

enum { NF4_BLOCK = 64, NF4_VALUES = 16 };

struct Codes {
    BaseType type;
    int      columns;
    float   *scales;          // [scale_count]: one for each block, the last of which may be shorter, or for each column
    uint8_t *codes;           // [code_count] bytes behind them: two numbers in each, the first one high; or one, -127 to 127
    int64_t  scale_count, code_count;
};

// The numbers of a leaf become the nearest codes; and back, the codes' values become its numbers. Where one is not finite, its
// whole block or column turns into NaN. A type that is no code, or a leaf that requires a gradient, has other than two
// dimensions or is in codes already: check().
void tensor_quantise(Tensor *t, BaseType type);
void tensor_unpack(Tensor *t);

// For who reads codes from a file: gives t undefined codes in the place of its numbers. For tensor.c: frees them.
void tensor_take_codes(Tensor *t, BaseType type);
void tensor_free_codes(Tensor *t);

// to[i * stride] = number first + i of the tensor, row-major, for i < count. The one place where codes become numbers.
void unpack(const Codes *codes, int64_t first, int64_t count, real *to, int64_t stride);

// The values of nf4, [NF4_VALUES], ascending.
const float *nf4_values(void);

#endif
