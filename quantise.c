// quantise.c - see quantise.h. The values of nf4, from numbers to codes, and back.
//
// Read next: kernels.h.

#include "quantise.h"

#include "memory.h"

#include <stdlib.h>

const char *const base_type_names[BASE_TYPES] = { "float", "nf4", "int8" };

// ------------------------------------------------------------------------------------------------------- the values of nf4

// The x below which a normally distributed number is with probability p >= 1/2: Newton's method on P(x) = 1 - erfc(x / sqrt(2)) / 2,
// whose slope is the density.
static double normal_quantile(double p)
{
    double x = 0;
    for (int i = 0; i < 40; i++) {
        double density = exp(-x * x / 2) / sqrt(2 * 3.141592653589793);
        x -= (1 - erfc(x / sqrt(2)) / 2 - p) / density;
    }
    return x;
}

// Weights are roughly normal. So the values are at the quantiles of the normal distribution: each is met about equally often, and
// none of the 16 is wasted. Eight above 0, 0 itself, and seven below, at probabilities evenly spaced from 1/2 to `outermost`,
// which leaves out the mean of half of 1/16 and half of 1/15; divided by the largest, so that they end at -1 and 1.
const float *nf4_values(void)
{
    static float values[NF4_VALUES];
    const double outermost = 1 - (1.0 / 32 + 1.0 / 30) / 2;
    if (values[0] != 0) return values;
    double largest = normal_quantile(outermost);
    for (int i = 1; i <= 8; i++) values[7 + i] = (float)(normal_quantile(0.5 + (outermost - 0.5) * i / 8) / largest);
    for (int i = 1; i <= 7; i++) values[7 - i] = (float)(-normal_quantile(0.5 + (outermost - 0.5) * i / 7) / largest);
    return values;
}

// ------------------------------------------------------------------------------------------------------------------- storage

int64_t codes_scales(BaseType type, int64_t count, int columns)
{
    return type == BASE_NF4 ? (count + NF4_BLOCK - 1) / NF4_BLOCK : columns;
}

int64_t codes_bytes(BaseType type, int64_t count) { return type == BASE_NF4 ? (count + 1) / 2 : count; }

// Of scales and codes together, as the ledger counts: in reals.
static int64_t room(const Codes *c)
{
    int64_t bytes = codes_scales(c->type, c->count, c->columns) * (int64_t)sizeof *c->scales + codes_bytes(c->type, c->count);
    return (bytes + (int64_t)sizeof(real) - 1) / (int64_t)sizeof(real);
}

void tensor_take_codes(Tensor *t, BaseType type)
{
    check(is_leaf(t) && t->ndim == 2 && !t->requires_grad && t->codes == NULL && type != BASE_FLOAT,
          "%s %s: only a frozen leaf of two dimensions can be held in codes, and only once", t->name, shape_text(t));
    Codes *c = allocate(1, sizeof *c, "codes");
    *c = (Codes){ .type = type, .count = t->size, .columns = last_dim(t) };
    c->scales = (float *)(void *)memory_take(t->kind, room(c));
    c->codes = (uint8_t *)(c->scales + codes_scales(type, c->count, c->columns));
    memory_give(t->kind, t->data, t->size);
    t->data = NULL;
    t->codes = c;
}

void tensor_free_codes(Tensor *t)
{
    if (t->codes == NULL) return;
    memory_give(t->kind, (real *)(void *)t->codes->scales, room(t->codes));
    free(t->codes);
    t->codes = NULL;
}

// ----------------------------------------------------------------------------------------------------- from numbers to codes

// The largest |w| of count numbers; NaN if one is not finite.
static float largest_of(const real *w, int64_t count, int64_t stride)
{
    float largest = 0, odd = 0;
    for (int64_t i = 0; i < count; i++) {
        float size = (float)fabs((double)w[i * stride]);
        largest = size > largest ? size : largest;
        odd += size - size; // 0, or NaN
    }
    return largest + odd;
}

// The nearest value's number; of two equally near the lower one.
static uint8_t nf4_code(float w)
{
    const float *values = nf4_values();
    int code = 0;
    while (code < NF4_VALUES - 1 && w > (values[code] + values[code + 1]) / 2) code++;
    return (uint8_t)code;
}

static void to_nf4(Codes *c, const real *w)
{
    memset(c->codes, 0, (size_t)codes_bytes(BASE_NF4, c->count));
    for (int64_t i = 0; i < c->count; i++) {
        float *scale = &c->scales[i / NF4_BLOCK];
        int64_t left = c->count - i;
        if (i % NF4_BLOCK == 0) *scale = largest_of(w + i, left < NF4_BLOCK ? left : NF4_BLOCK, 1);
        uint8_t code = nf4_code(*scale > 0 ? (float)w[i] / *scale : 0);
        c->codes[i / 2] |= (uint8_t)(i % 2 == 0 ? code << 4 : code);
    }
}

static void to_int8(Codes *c, const real *w)
{
    int64_t rows = c->count / c->columns;
    for (int j = 0; j < c->columns; j++) {
        float largest = largest_of(w + j, rows, c->columns);
        c->scales[j] = largest / 127;
        for (int64_t i = j; i < c->count; i += c->columns)
            c->codes[i] = (uint8_t)(int8_t)(largest > 0 ? rintf((float)w[i] * (127 / largest)) : 0);
    }
}

void tensor_quantise(Tensor *t, BaseType type)
{
    real *numbers = t->data;
    check(numbers != NULL, "tensor_quantise: %s has no numbers", t->name);
    t->data = NULL; // its codes are made of them
    tensor_take_codes(t, type);
    if (type == BASE_NF4) to_nf4(t->codes, numbers);
    else to_int8(t->codes, numbers);
    memory_give(t->kind, numbers, t->size);
}

// ----------------------------------------------------------------------------------------------------- from codes to numbers

void unpack(const Codes *c, int64_t first, int64_t count, real *to, int64_t stride)
{
    if (c->type == BASE_INT8) {
        for (int64_t i = first; i < first + count; i++, to += stride)
            *to = (real)((float)(int8_t)c->codes[i] * c->scales[i % c->columns]);
        return;
    }
    const float *values = nf4_values();
    for (int64_t i = first; i < first + count; i++, to += stride) {
        unsigned code = i % 2 == 0 ? c->codes[i / 2] >> 4 : c->codes[i / 2] & 15;
        *to = (real)(values[code] * c->scales[i / NF4_BLOCK]);
    }
}

void tensor_unpack(Tensor *t)
{
    if (t->codes == NULL) return;
    t->data = memory_take(t->kind, t->size);
    unpack(t->codes, 0, t->size, t->data, 1);
    tensor_free_codes(t);
}
