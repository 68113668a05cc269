// lora.c - see lora.h. An adapter's life: made, applied, merged, unmerged.
//
// linear_apply is all of LoRA, three ops: y = x W + b (frozen), h = x A, y += s h B. There is no gradient code here: the three
// ops have theirs, and the flags (W's false, A's and B's true) decide which of them run. dW is skipped at the guard in
// backward, and dY W^T is computed, for whatever lies below.
//
// linear_merge replaces W by W + s A B and keeps the old bytes, so that linear_unmerge gives them back exactly; subtracting s A
// B would round a second time. While it is merged, linear_apply leaves the adapter out: else it would count twice.
//
// Read next: transformer.h, where each block has four such layers.

#include "lora.h"

double lora_scale(double alpha, int R, bool rank_stabilized) { return alpha / (rank_stabilized ? sqrt((double)R) : (double)R); }

// What a fresh adapter holds, beside the zeros with which B was made.
static void lora_init(const Lora *lora, uint64_t seed)
{
    fill_uniform(lora->A, 1 / sqrt((double)lora->A->shape[0]), seed);
    lora->A->requires_grad = lora->B->requires_grad = true;
}

Lora lora_new(const char *name, int I, int O, int R, double scale, uint64_t seed)
{
    char full[MAX_NAME + 2];
    Lora lora = { .scale = (real)scale };
    snprintf(full, sizeof full, "%s.A", name);
    lora.A = tensor_new(full, MEMORY_ADAPTERS, SHAPE(I, R));
    snprintf(full, sizeof full, "%s.B", name);
    lora.B = tensor_new(full, MEMORY_ADAPTERS, SHAPE(R, O));
    lora_init(&lora, seed);
    return lora;
}

void lora_free(Lora *lora)
{
    tensor_drop(lora->A);
    tensor_drop(lora->B);
    tensor_drop(lora->mask);
    lora->A = lora->B = lora->mask = NULL;
}

static int count_parts(unsigned parts) { return (int)((parts & 1) + (parts >> 1 & 1) + (parts >> 2 & 1)); }

void lora_restrict(Lora *lora, unsigned parts)
{
    int R = lora->B->shape[0], O = lora->B->shape[1], C = O / 3, count = count_parts(parts);
    check(count > 0 && parts <= 7 && O % 3 == 0 && R % count == 0, "lora_restrict: parts %u of B %s", parts,
          shape_text(lora->B));
    lora->mask = tensor_new("mask", MEMORY_ADAPTERS, SHAPE(R, O));
    for (int part = 0, first = 0; part < 3; part++) {
        if (!(parts >> part & 1)) continue;
        for (int r = first; r < first + R / count; r++)
            for (int j = 0; j < C; j++) lora->mask->data[(int64_t)r * O + part * C + j] = 1;
        first += R / count;
    }
}

int64_t lora_size(const Lora *lora)
{
    return lora->A->size + (lora->mask ? lora->B->size / 3 : lora->B->size); // each row of a masked B reaches one part of three
}

// y + scale (x A) B; y is given up for it.
static Tensor *add_adapter(Tape *tape, const Lora *lora, Tensor *x, Tensor *y)
{
    bool masked = tape != NULL && lora->mask != NULL;
    Tensor *h = op_matmul(tape, x, lora->A);               // [..,R]: the only thing kept besides x
    Tensor *B = masked ? op_mul(tape, lora->B, lora->mask) : lora->B;
    y = op_matmul_add(tape, y, h, B, lora->scale);         // in y's own buffer
    tensor_drop(h);
    if (masked) tensor_drop(B);
    return y;
}

Tensor *linear_apply(Tape *tape, const Linear *linear, Tensor *x)
{
    Tensor *y = op_linear(tape, x, linear->weight, linear->bias);
    bool adapted = linear->lora != NULL && linear->original == NULL;
    return adapted ? add_adapter(tape, linear->lora, x, y) : y;
}

static void merge_part(void *context, Part part)
{
    const Linear *linear = context;
    const Lora *lora = linear->lora;
    product(values(linear->weight), values(lora->A), scaled(values(lora->B), lora->scale), part);
}

void linear_merge(Linear *linear)
{
    if (linear->lora == NULL || linear->original != NULL) return;
    check(linear->weight->codes == NULL, "linear_merge: %s is in codes, to which nothing can be added; tensor_unpack it first",
          linear->weight->name);
    linear->original = tensor_from("original", linear->weight->data, linear->weight->ndim, linear->weight->shape);
    parallel_run(merge_part, linear);
}

void linear_unmerge(Linear *linear)
{
    if (linear->original == NULL) return;
    memcpy(linear->weight->data, linear->original->data, (size_t)linear->weight->size * sizeof(real));
    tensor_drop(linear->original);
    linear->original = NULL;
}

void linear_forget_original(Linear *linear)
{
    if (linear->original == NULL) return;
    tensor_drop(linear->original);
    linear->original = NULL;
    linear->lora = NULL;
}
