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
        h = op_recompute(tape, block, &layer[i], h, trains);
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
    long peak[2], flops[2];
    uint64_t hash[2] = { HASH_START, HASH_START }; // of all adapter gradients
    for (int again = 0; again < 2; again++) {
        Tape *tape = tape_new();
        model->recompute = again;
        memory_reset_peaks();
        forward_backward(model, tape, &text);
        peak[again] = ledger.peak;
        flops[again] = counts_phase(&tape->counts, PHASE_RECOMPUTE).flops;
        for (int i = model->base_count; i < model->parameter_count; i++) {
            const Tensor *t = model->parameters[i];
            hash[again] = hash_bytes(hash[again], t->grad, (size_t)t->size * sizeof(real));
        }
        tape_free(tape);
        zero_grads(model);
    }
    measured("transformer: peak bytes, kept and recomputed", "%ld, %ld", peak[0], peak[1]);
    measured("transformer: MFLOP spent once more", "%.1f, %.1f", 1e-6 * (double)flops[0], 1e-6 * (double)flops[1]);
    measured("transformer: gradients of all adapters", "%s", hash[0] == hash[1] ? "the same bits" : "OTHER BITS");

    why("Whether a block's result requires grad depends on the leaves INSIDE it, too. Who asks its input alone, "
        "finds a frozen embedding's output, and records nothing. Flagging that output is a way around.");
    finding(frozen_input == -1, "asked at the input alone: nothing is recorded");
    finding(flagged_input == LAYERS, "the usual way around, a flag on the input: both adapters get a gradient");
    finding(told == LAYERS, "asked inside as well: both do, without a flag on the input");
    finding(3 * peak[1] < 2 * peak[0] && flops[0] == 0 && flops[1] > 0,
            "recomputing takes more than a third off the peak, for one more forward pass of the blocks");
    finding(hash[0] == hash[1] && hash[0] != HASH_START, "not one bit of the gradients changes");
    transformer_free(model);
    text_free(&text);
    return answered();
}
