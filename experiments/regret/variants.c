// variants.c - LoRA's relatives, from one flag (LoRA-FA) to some fifty lines (DoRA); none of them is in the book. See regret.h.
//
// Gradients are clipped to a norm of 1 for each optimizer: LoRA's A and B together, LoRA+'s apart, DoRA's m apart from both.

#include "regret.h"

#include <stdlib.h>

// ---- rsLoRA (Kalajdzievski 2023): scale = alpha / sqrt(r) instead of alpha / r. That is all.
// ---- LoRA-FA (Zhang et al. 2023): A stays as it was drawn, only B trains. One flag: A's gradient and moments are never made, and
//      x, which only dA = x^T dh reads, need not be kept for it.

static const AdamWConfig adamw = { 0.9, 0.99, 0, 1.0 };

static void adapt_to(Transformer *model, const Way *way, uint64_t seed)
{
    LoraLayer layers[BLOCKS * LINEARS];
    char error[512];
    adapt(model, NULL, 0); // older adapters go
    if (way->kind == FULL) return;
    transformer_train_base(model, false);
    for (int i = 0; i < BLOCKS * LINEARS; i++) {
        int r = way->rank[i % LINEARS];
        layers[i] = (LoraLayer){ r, r ? lora_scale(way->alpha, r, way->kind == RSLORA) : 0 };
    }
    LoraConfig config = { .freeze_A = way->kind == LORA_FA };
    if (transformer_add_layers(model, "adapter", config, layers, seed, error, sizeof error) == NULL) die(EXIT_FAILED, "%s", error);
}

// ---- LoRA+ (Hayou et al. 2024): B learns at 16 times A's rate. Two optimizers, one for all A's, one for all B's. (To scale B's
//      gradient by 16 would change nothing: Adam divides it out again.)

static void split_optimizer(Learner *l)
{
    Tensor **half = allocate((size_t)l->model->parameter_count, sizeof *half, "a list of A's or B's");
    for (int i = 0; i < 2; i++) {
        int count = 0;
        for (int p = l->model->base_count + i; p < l->model->parameter_count; p += 2) half[count++] = l->model->parameters[p];
        l->optimizer[i] = adamw_new(half, count, adamw);
        l->factor[i] = i == 0 ? 1 : 16;
    }
    free(half);
}

// The length of column o.
static double length(const Tensor *v, int64_t o)
{
    double sum = 0;
    for (int64_t j = o; j < v->size; j += v->shape[1]) sum += (double)v->data[j] * (double)v->data[j];
    return sqrt(sum);
}

// ---- DoRA (Liu et al. 2024): each column of V = W + s A B keeps its direction and gets its length from a vector m that trains.
//
//     U[i,o] = V[i,o] m[o] / n[o]      n[o] = |V[.,o]|, a constant in backward, as the paper proposes (section 4.3)
//
// U stands in W's place while a step runs, so the model's code and the ops stay as they are; but U, V and m / n in each row have
// W's bytes, and dU is the work of a full weight gradient. A linear layer written for it could do without.

enum { MATRICES = BLOCKS * LINEARS };
struct Dora { Tensor *W, *m, *inverse, *ones; const Lora *lora; }; // m and inverse, which is 1 / n: [1,O]; ones: [I,1]

static void dora_begin(Learner *l)
{
    Tensor *m[MATRICES];
    l->dora = allocate(MATRICES, sizeof *l->dora, "DoRA's lists");
    for (int i = 0; i < MATRICES; i++) {
        const Tensor *W = l->model->blocks[i / LINEARS].linear[i % LINEARS].weight;
        struct Dora *d = &l->dora[i];
        m[i] = d->m = tensor_new("m", MEMORY_ADAPTERS, SHAPE(1, W->shape[1]));
        d->inverse = tensor_new("1 / n", MEMORY_ADAPTERS, SHAPE(1, W->shape[1]));
        d->ones = tensor_new("ones", MEMORY_ADAPTERS, SHAPE(W->shape[0], 1));
        for (int64_t k = 0; k < d->ones->size; k++) d->ones->data[k] = 1;
        for (int64_t o = 0; o < d->m->size; o++) d->m->data[o] = (real)length(W, o);
        d->m->requires_grad = true;
    }
    l->optimizer[1] = adamw_new(m, MATRICES, adamw);
}

// U in the place of W, or W again.
static void dora_swap(Learner *l, Tape *tape, bool in)
{
    for (int i = 0; l->dora != NULL && i < MATRICES; i++) {
        Linear *linear = &l->model->blocks[i / LINEARS].linear[i % LINEARS], was = *linear;
        struct Dora *d = &l->dora[i];
        if (!in) {
            tensor_drop(linear->weight);
            *linear = (Linear){ .weight = d->W, .bias = was.bias, .lora = d->lora };
            continue;
        }
        Tensor *v = op_matmul_add(tape, op_scale(tape, was.weight, 1), was.lora->A, was.lora->B, was.lora->scale);
        for (int64_t o = 0; o < d->m->size; o++) d->inverse->data[o] = (real)(1 / length(v, o));
        Tensor *g = op_mul(tape, d->m, d->inverse), *rows = replace(g, op_matmul(tape, d->ones, g));
        *linear = (Linear){ .weight = replace(rows, replace(v, op_mul(tape, v, rows))), .bias = was.bias };
        d->W = was.weight;
        d->lora = was.lora;
    }
}

// ------------------------------------------------------------------------------------------- what they have in common

Learner learner_begin(Transformer *model, const Way *way, uint64_t seed)
{
    Learner l = { .model = model, .factor = { 1, 1 }, .tape = tape_new() };
    adapt_to(model, way, seed);
    if (way->kind == LORA_PLUS) split_optimizer(&l);
    else l.optimizer[0] = adamw_new(model->parameters, model->parameter_count, adamw);
    if (way->kind == DORA) dora_begin(&l);
    return l;
}

double learner_step(Learner *l, const int *ids, const int *targets, int B, int T, double rate)
{
    tape_clear(l->tape);
    dora_swap(l, l->tape, true);
    Tensor *loss = transformer_loss(l->model, l->tape, ids, targets, B, T);
    dora_swap(l, NULL, false);
    double value = (double)loss->data[0];
    backward(l->tape, loss);
    for (int i = 0; i < 2 && l->optimizer[i] != NULL; i++) adamw_step(l->optimizer[i], rate * l->factor[i]);
    zero_grads(l->model);
    for (int i = 0; l->dora != NULL && i < MATRICES; i++) tensor_drop_grad(l->dora[i].m);
    return value;
}

double learner_loss(Learner *l, const int *tokens, int64_t count)
{
    dora_swap(l, NULL, true);
    double loss = evaluate_all(l->model, tokens, count);
    dora_swap(l, NULL, false);
    return loss;
}

int64_t learner_numbers(const Learner *l)
{
    int64_t numbers = transformer_trainable_size(l->model);
    for (int i = 0; l->dora != NULL && i < MATRICES; i++) numbers += l->dora[i].m->size;
    return numbers;
}

void learner_end(Learner *l)
{
    tape_free(l->tape);
    adamw_free(l->optimizer[0]);
    adamw_free(l->optimizer[1]);
    for (int i = 0; l->dora != NULL && i < MATRICES; i++) {
        tensor_drop(l->dora[i].m);
        tensor_drop(l->dora[i].inverse);
        tensor_drop(l->dora[i].ones);
    }
    free(l->dora);
    *l = (Learner){ 0 };
}
