// q09_recompute.c - gradient checkpointing and LoRA: why do the adapters get no gradient?
//
// Part 1: two blocks, each run again in backward (op_recompute). A reentrant checkpoint looks at its input's flag alone; here
// `trains` says what is inside the block. With it false, and a frozen input, we have the well-known failure.
// Part 2: a transformer with model->recompute: what is saved in bytes, what it costs in work, and whether a bit changes.
// Asked in peft#137, #1142, microsoft/LoRA#120.
// Look at: op_recompute and run_recompute in autograd.c, block_trains in transformer.c.

#include "tiny.h"

enum { WIDTH = 8, LAYERS = 2 };

static Tensor *block(Tape *tape, Tensor *x, void *layer) // x [4,8] -> [4,8]
{
    Tensor *y = linear_apply(tape, &((Layer *)layer)->linear, x), *z = op_tanh(tape, y);
    tensor_drop(y);
    return z;
}

// In how many of the blocks B gets a gradient; -1 if backward would refuse, because nothing is recorded.
static int reached(bool input_flag, bool trains)
{
    Tensor *x = random_leaf("x", 1, 1, SHAPE(4, WIDTH)), *h = x;
    Layer layer[LAYERS];
    Tape *tape = tape_new();
    x->requires_grad = input_flag;
    for (int i = 0; i < LAYERS; i++) {
        layer_init(&layer[i], WIDTH, WIDTH, 2, 0.3, (uint64_t)(2 + i));
        h = op_recompute(tape, block, &layer[i], h, trains ? layer[i].lora.B : NULL);
    }
    Tensor *loss = op_mean(tape, op_mul(tape, h, h));
    int count = loss->requires_grad ? 0 : -1;
    if (loss->requires_grad) backward(tape, loss);
    for (int i = 0; i < LAYERS; i++) {
        if (layer[i].lora.B->grad != NULL) count++;
        layer_free(&layer[i]);
    }
    tensor_drop(x);
    tape_free(tape);
    return count;
}

int main(void)
{
    question("Blocks are run again in backward to save memory. Why may adapters then get no gradient?");
    predict("How many of two adapters get one, if a block is recorded only when its input requires grad?");

    int frozen_input = reached(false, false), flagged_input = reached(true, false), told = reached(false, true);
    measured("input's flag alone, input frozen", "%s", frozen_input < 0 ? "nothing is recorded" : "recorded");
    measured("input's flag alone, input flagged", "%d of %d adapters", flagged_input, LAYERS);
    measured("what trains inside is asked as well (ours)", "%d of %d adapters", told, LAYERS);

    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, 4, 64, 1);
    fill_B(attach(model, lora_on(ON_C_ATTN, 4), 1), 4);
    Measured m[2];
    real *gradients[2];
    int64_t numbers = adapter_size(model->active);
    for (int again = 0; again < 2; again++) {
        model->recompute = again;
        m[again] = one_pass(model, &text, NULL);
        gradients[again] = adapter_gradients(model);
        zero_grads(model);
    }
    int64_t peak[2] = { m[0].ledger.peak, m[1].ledger.peak };
    int64_t flops[2] = { m[0].phase[PHASE_RECOMPUTE].flops, m[1].phase[PHASE_RECOMPUTE].flops };
    bool same = memcmp(gradients[0], gradients[1], (size_t)numbers * sizeof(real)) == 0 && norm_of(gradients[0], numbers) > 0;
    measured("transformer: peak bytes, kept and recomputed", "%" PRId64 ", %" PRId64, peak[0], peak[1]);
    measured("transformer: MFLOP spent once more", "%.1f, %.1f", 1e-6 * (double)flops[0], 1e-6 * (double)flops[1]);
    measured("transformer: gradients of all adapters", "%s", same ? "the same bits" : "OTHER BITS");

    why("Whether a block's result requires grad depends on the leaves INSIDE it, too. Who asks its input alone, "
        "finds a frozen embedding's output, and records nothing. Flagging that output is a way around.");
    finding(frozen_input == -1, "asked at the input alone: nothing is recorded");
    finding(flagged_input == LAYERS, "the usual way around, a flag on the input: both adapters get a gradient");
    finding(told == LAYERS, "asked inside as well: both do, without a flag on the input");
    finding(3 * peak[1] < 2 * peak[0] && flops[0] == 0 && flops[1] > 0,
            "recomputing takes more than a third off the peak, for one more forward pass of the blocks");
    finding(same, "not one bit of the gradients changes");
    for (int i = 0; i < 2; i++) free(gradients[i]);
    transformer_free(model);
    text_free(&text);
    return answered();
}
