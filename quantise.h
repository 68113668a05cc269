// quantise.h - a frozen weight in four or eight bits for each number: codes and scales in the place of floats.
//
//     nf4    one of 16 values between -1 and 1, times its block's scale, the largest |w| of 64 numbers that follow each other
//     int8   a whole number from -127 to 127, times its column's scale, 1/127 of the largest |w| there
//
// What flows through a frozen W needs its values and nothing else: y = x W, and dx = dy W^T. So a product makes the values of
// a few rows and columns at a time out of the codes, in the scratch that it has anyway, and no array of all of them is there.
// dW would need W in full precision, to change it by less than a code's distance: such a tensor cannot require a gradient.
//
// (nf4: Dettmers et al. 2023, arXiv:2305.14314, with 4-byte scales; int8: the weights of Dettmers et al. 2022, arXiv:2208.07339.)
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
    int64_t  count;          // numbers, row-major as in a tensor
    int      columns;
    float   *scales;         // nf4: [count / NF4_BLOCK, rounded up]; int8: [columns]; 4 bytes each in every build
    uint8_t *codes;          // nf4: two in a byte, the first in the high half; int8: one, in two's complement. Behind the scales
};

// How many scales, and bytes of codes.
int64_t codes_scales(BaseType type, int64_t count, int columns);
int64_t codes_bytes(BaseType type, int64_t count);

// A leaf's numbers become the nearest codes, or the codes' values become its numbers again; t->data and t->codes are never both
// there afterwards. A number that is not finite makes its whole block or column NaN. `type` is not BASE_FLOAT, t does not
// require a gradient and has two dimensions (check()).
void tensor_quantise(Tensor *t, BaseType type);
void tensor_unpack(Tensor *t);

// Codes for t whose contents are undefined, in the place of its numbers: for who reads them from a file.
void tensor_take_codes(Tensor *t, BaseType type);
void tensor_free_codes(Tensor *t);

// to[i * stride] = number first + i of the tensor, for i < count. The one place where codes become numbers.
void unpack(const Codes *codes, int64_t first, int64_t count, real *to, int64_t stride);

// The 16 values of nf4, ascending.
const float *nf4_values(void);

#endif
