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

#include "matmul.h"

Lora lora_new(const char *name, int I, int O, int R, double scale, uint64_t seed)
{
    char full[128];
    Lora lora = { .scale = (real)scale };
    snprintf(full, sizeof full, "%s.A", name);
    lora.A = tensor_new(full, MEMORY_ADAPTERS, SHAPE(I, R));
    snprintf(full, sizeof full, "%s.B", name);
    lora.B = tensor_new(full, MEMORY_ADAPTERS, SHAPE(R, O));
    // task L2.1 (5 points): a fresh adapter
    fill_uniform(lora.A, 1 / sqrt((double)I), seed);
    lora.A->requires_grad = lora.B->requires_grad = true;
    // end task
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
            for (int j = 0; j < C; j++) lora->mask->data[(long)r * O + part * C + j] = 1;
        first += R / count;
    }
}

long lora_size(const Lora *lora)
{
    return lora->A->size + (lora->mask ? lora->B->size / 3 : lora->B->size); // each row of a masked B reaches one part of three
}

Tensor *linear_apply(Tape *tape, const Linear *linear, Tensor *x)
{
    Tensor *y = op_linear(tape, x, linear->weight, linear->bias);
    const Lora *lora = linear->lora;
    if (lora == NULL || linear->original != NULL) return y;
    // task L2.3 (7 points): the adapter's path
    bool masked = tape != NULL && lora->mask != NULL;
    Tensor *h = op_matmul(tape, x, lora->A);               // [..,R]: the only thing kept besides x
    Tensor *B = masked ? op_mul(tape, lora->B, lora->mask) : lora->B;
    y = op_matmul_add(tape, y, h, B, lora->scale);         // in y's own buffer
    tensor_drop(h);
    if (masked) tensor_drop(B);
    // end task
    return y;
}

typedef struct Merge { const Linear *linear; real *work; long scratch; } Merge;

static void merge_part(void *context, Part part)
{
    const Merge *merge = context;
    const Linear *linear = merge->linear;
    const Lora *lora = linear->lora;
    real *W = linear->weight->data;
    int I = lora->A->shape[0], R = lora->A->shape[1], O = lora->B->shape[1];
    // task L2.6 (4 points): merging
    matmul((Matmul){ .m = I, .n = O, .k = R, .a = matrix(lora->A->data, R), .b = matrix(lora->B->data, O),
                     .scale = lora->scale, .start = W, .start_row = O, .c = W, .c_row = O,
                     .work = merge->work + part.index * merge->scratch }, part);
    // end task
}

void linear_merge(Linear *linear)
{
    if (linear->lora == NULL || linear->original != NULL) return;
    linear->original = tensor_from("original", linear->weight->data, linear->weight->ndim, linear->weight->shape);
    Merge merge = { linear, NULL, matmul_scratch(linear->lora->B->shape[1], linear->lora->B->shape[0]) };
    merge.work = memory_take(MEMORY_WORKSPACE, merge.scratch * parallel_threads());
    parallel_run(merge_part, &merge);
    memory_give(MEMORY_WORKSPACE, merge.work, merge.scratch * parallel_threads());
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
