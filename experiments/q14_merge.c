// q14_merge.c - why does a merged model give slightly different outputs, and when is that a bug?
//
// W + s A B is computed once instead of adding s (x A) B each time: equal on paper, rounded differently. Measured on the logits
// of a transformer: merged, merged and rounded to 16 bits, and merged twice, which is a bug. Then what a hundred rounds of
// adding and subtracting s A B do to the weights, and what our unmerge does. Asked in peft#1388 (2.1178, 2.1214 in bf16).
// Look at: linear_merge, linear_unmerge, linear_forget_original in lora.c.

#include "tiny.h"

enum { BLOCKS = 4, WIDTH = 64, CYCLES = 100 };

// To the nearest number with 8 significant bits, as in bfloat16.
static real to_16_bits(real value)
{
    int exponent;
    double fraction = frexp((double)value, &exponent);
    return (real)ldexp(rint(ldexp(fraction, 8)), exponent - 8);
}

// The largest difference of a logit from those in `apart`.
static double logits_differ(const Transformer *model, const Text *text, const Tensor *apart)
{
    Tensor *now = transformer_logits(model, NULL, text->tokens, 1, TINY_T);
    double difference = largest_difference(now->data, apart->data, apart->size);
    tensor_drop(now);
    return difference;
}

// Adds s A B to the layer's weight for good, or subtracts it.
static void add_change(Linear *layer, const Lora *lora, int sign)
{
    const Lora *attached = layer->lora;
    Lora signed_lora = { lora->A, lora->B, (real)sign * lora->scale };
    layer->lora = &signed_lora;
    linear_merge(layer);
    linear_forget_original(layer);
    layer->lora = attached;
}

int main(void)
{
    question("Merged and unmerged model differ a little. Rounding, or a bug?");
    predict("How far apart are the largest logits in 32-bit? And the weights after merging and unmerging 100 times?");

    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, WIDTH, 1);
    train(model, &text, 20, 3e-3, 1);
    Adapter *adapter = attach(model, lora_on(ON_ALL, 4), 1);
    fill_B(adapter, BLOCKS);
    uint64_t hash = transformer_hash(model);
    Tensor *apart = transformer_logits(model, NULL, text.tokens, 1, TINY_T);
    double size = norm_of(apart->data, apart->size) / sqrt((double)apart->size);

    transformer_merge(model);
    double merged = logits_differ(model, &text, apart);
    transformer_unmerge(model);
    for (int i = 1; i < CYCLES; i++) transformer_merge(model), transformer_unmerge(model);
    bool kept_bytes = transformer_hash(model) == hash;

    Linear *layer = &model->blocks[0].linear[C_ATTN];
    Tensor *W = layer->weight, *before = tensor_from("before", W->data, SHAPE(W->shape[0], W->shape[1]));
    double drift[2];
    for (int i = 1; i <= CYCLES; i++) {
        add_change(layer, layer->lora, +1);
        add_change(layer, layer->lora, -1);
        if (i == 1 || i == CYCLES) drift[i == CYCLES] = largest_difference(W->data, before->data, W->size);
    }
    memcpy(W->data, before->data, (size_t)W->size * sizeof(real));

    for (int i = 0; i < BLOCKS * LINEARS; i++) adapter->lora[i].scale *= 2; // W + 2 s A B: merged, and still applied
    double twice = logits_differ(model, &text, apart);
    for (int i = 0; i < BLOCKS * LINEARS; i++) adapter->lora[i].scale /= 2;

    transformer_merge(model);
    for (int i = 0; i < model->base_count; i++) {
        Tensor *t = model->parameters[i];
        for (long j = 0; j < t->size; j++) t->data[j] = to_16_bits(t->data[j]);
    }
    double rounded = logits_differ(model, &text, apart);

    measured("size of a logit (root mean square)", "%.2f", size);
    measured("largest difference: merged", "%.2g", merged);
    measured("largest difference: merged, weights in 16 bits", "%.2g", rounded);
    measured("largest difference: merged and applied (a bug)", "%.2g", twice);
    measured("weights after 1, 100 cycles, added, subtracted", "off by %.2g, %.2g", drift[0], drift[1]);
    measured("weights after 100 cycles of ours (kept bytes)", "%s", kept_bytes ? "the same bits" : "OTHER BITS");

    why("Sums in another order round differently, by a few units of the last place; 16 bits have 65536 times larger "
        "units. What a bug does is far larger than either. Unmerging by subtraction rounds again; keep the bytes.");
    finding(merged > 0 && merged < 1e-5 * size, "merged: not equal, but within 1e-5 of a logit's size");
    finding(rounded > 100 * merged && rounded < 0.1 * size, "in 16 bits: more than 100 times as far, and still below a tenth");
    finding(twice > 10 * rounded, "merged twice: more than 10 times farther than even 16 bits explain");
    finding(drift[0] > 0 && drift[1] >= drift[0], "add and subtract: not the old weights again, after one cycle already");
    finding(kept_bytes, "ours: 100 cycles, and the hash of the weights is the same");
    drop_all(2, (Tensor *[]){ before, apart });
    transformer_free(model);
    text_free(&text);
    return answered();
}
