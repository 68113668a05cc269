// quantise.c - see quantise.h. The values of nf4; from numbers to codes; and back. Read next: kernels.h.

#include "quantise.h"

#include "memory.h"

#include <stdlib.h>

const char *const base_type_names[BASE_TYPES] = { "float", "nf4", "int8" };

// The x below which a standard normal number is with probability p >= 1/2: Newton's method, whose slope is the density.
static double normal_quantile(double p)
{
    double x = 0;
    for (int i = 0; i < 40; i++) x += (p - 1 + erfc(x / sqrt(2)) / 2) * sqrt(2 * 3.141592653589793) * exp(x * x / 2);
    return x;
}

// Weights are about normally distributed, so the values are quantiles of that distribution, closer together where weights are
// many. Eight above 0, 0 itself and seven below, at probabilities evenly spaced from 1/2 to `last`, which is as far from 1 as
// half of 1/16 and half of 1/15 are on average; divided by the largest, so that they end at -1 and 1.
const float *nf4_values(void)
{
    static float values[NF4_VALUES];
    if (values[0] < 0) return values;
    const double last = 1 - (1 / 32.0 + 1 / 30.0) / 2, largest = normal_quantile(last);
    for (int i = 1; i <= 8; i++) values[7 + i] = (float)(normal_quantile(0.5 + (last - 0.5) * i / 8) / largest);
    for (int i = 1; i <= 7; i++) values[7 - i] = (float)(-normal_quantile(0.5 + (last - 0.5) * i / 7) / largest);
    return values;
}

// Of scales and codes together, as the ledger counts: in reals.
static int64_t room(const Codes *c)
{
    int64_t bytes = c->scale_count * (int64_t)sizeof *c->scales + c->code_count;
    return (bytes + (int64_t)sizeof(real) - 1) / (int64_t)sizeof(real);
}

void tensor_take_codes(Tensor *t, BaseType type)
{
    bool nf4 = type == BASE_NF4;
    check(is_leaf(t) && t->ndim == 2 && !t->requires_grad && t->codes == NULL && (nf4 || type == BASE_INT8),
          "%s %s: only a frozen leaf of two dimensions can be held in codes, and only once", t->name, shape_text(t));
    nf4_values(); // made now, before threads ask for them
    Codes *c = allocate(1, sizeof *c, "codes");
    *c = (Codes){ .type = type, .columns = last_dim(t), .code_count = nf4 ? (t->size + 1) / 2 : t->size,
                  .scale_count = nf4 ? (t->size + NF4_BLOCK - 1) / NF4_BLOCK : last_dim(t) };
    c->scales = (float *)(void *)memory_take(t->kind, room(c));
    c->codes = (uint8_t *)(c->scales + c->scale_count);
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

// The largest |w| of n numbers; NaN if one is not finite.
static float largest_of(const real *w, int64_t n, int64_t stride)
{
    float largest = 0, odd = 0;
    for (int64_t i = 0; i < n; i++) {
        float size = (float)fabs((double)w[i * stride]);
        largest = size > largest ? size : largest;
        odd += size - size; // 0, or NaN
    }
    return largest + odd;
}

// The number of the value nearest to w; of two equally near the lower one.
static int nf4_code(float w)
{
    const float *values = nf4_values();
    int code = 0;
    while (code < NF4_VALUES - 1 && w > (values[code] + values[code + 1]) / 2) code++;
    return code;
}

static void to_nf4(Codes *c, const real *w, int64_t size)
{
    memset(c->codes, 0, (size_t)c->code_count);
    for (int64_t i = 0; i < size; i++) {
        float *scale = &c->scales[i / NF4_BLOCK];
        if (i % NF4_BLOCK == 0) *scale = largest_of(w + i, size - i < NF4_BLOCK ? size - i : NF4_BLOCK, 1);
        c->codes[i / 2] |= (uint8_t)(nf4_code(*scale > 0 ? (float)w[i] / *scale : 0) << (i % 2 == 0 ? 4 : 0));
    }
}

static void to_int8(Codes *c, const real *w, int64_t size)
{
    for (int j = 0; j < c->columns; j++) {
        float largest = largest_of(w + j, size / c->columns, c->columns);
        float factor = 127 / largest; // infinite where all are about 0: then every code is
        c->scales[j] = largest / 127;
        for (int64_t i = j; i < size; i += c->columns)
            c->codes[i] = (uint8_t)(int8_t)(isfinite(factor) ? rintf((float)w[i] * factor) : 0);
    }
}

void tensor_quantise(Tensor *t, BaseType type)
{
    real *numbers = t->data;
    t->data = NULL; // its codes are made of them
    tensor_take_codes(t, type);
    check(numbers != NULL, "tensor_quantise: %s has no numbers", t->name);
    if (type == BASE_NF4) to_nf4(t->codes, numbers, t->size);
    else to_int8(t->codes, numbers, t->size);
    memory_give(t->kind, numbers, t->size);
}

// n numbers that share a block's scale: two from each byte, but perhaps one from the first and from the last
static void unpack_nf4(const uint8_t *codes, int64_t first, int64_t n, float scale, real *to, int64_t stride)
{
    const float *values = nf4_values();
    const uint8_t *byte = codes + first / 2;
    int64_t i = 0;
    if (first % 2 == 1) to[i++ * stride] = (real)(values[*byte++ & 15] * scale);
    for (; i + 1 < n; i += 2, byte++) {
        to[i * stride] = (real)(values[*byte >> 4] * scale);
        to[(i + 1) * stride] = (real)(values[*byte & 15] * scale);
    }
    if (i < n) to[i * stride] = (real)(values[*byte >> 4] * scale);
}

// n numbers of one row, each with its column's scale
static void unpack_int8(const uint8_t *codes, int64_t n, const float *scales, real *to, int64_t stride)
{
    for (int64_t i = 0; i < n; i++) to[i * stride] = (real)((float)(int8_t)codes[i] * scales[i]);
}

void unpack(const Codes *c, int64_t first, int64_t count, real *to, int64_t stride)
{
    int64_t run = c->type == BASE_NF4 ? NF4_BLOCK : c->columns;
    for (int64_t end = first + count, n; first < end; first += n, to += n * stride) {
        n = run - first % run < end - first ? run - first % run : end - first;
        if (c->type == BASE_NF4) unpack_nf4(c->codes, first, n, c->scales[first / run], to, stride);
        else unpack_int8(c->codes + first, n, c->scales + first % run, to, stride);
    }
}

void tensor_unpack(Tensor *t)
{
    if (t->codes == NULL) return;
    t->data = memory_take(t->kind, t->size);
    unpack(t->codes, 0, t->size, t->data, 1);
    tensor_free_codes(t);
}
