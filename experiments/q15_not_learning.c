// q15_not_learning.c - the loss does not fall: where to look first?
//
// A transformer that has read some tales should learn the pirate's. Three steps of four patients, with a doctor's table: what
// trains, does a gradient arrive, does B move. Then the loss of full training and of LoRA by learning rate.
// The tables are of the first seed; the findings hold over three. Asked in LLaVA#1172, SimpleTuner#1756.
// Look at: adamw_new in adamw.c (it copies the list of parameters), transformer_use_adapter in transformer.c.

#include "tiny.h"

enum { STEPS = 60, RATES = 5, PATIENTS = 4 };
enum { HEALTHY, EARLY_OPTIMIZER, SCALE_ZERO, TINY_RATE };
static const char *const patients[PATIENTS] = { "healthy", "optimizer older than adapter", "alpha = 0", "learning rate 1e-7" };
static const double rates[RATES] = { 3e-4, 1e-3, 3e-3, 1e-2, 3e-2 };

typedef struct Reading { int64_t trains; double gradient, moved; } Reading; // numbers; |dB| and |B| of all layers in the end

static Reading examine(Transformer *model, const Text *text, int patient)
{
    Reading reading = { 0 };
    LoraConfig lora = lora_on(ON_C_ATTN, 4);
    if (patient == SCALE_ZERO) lora.alpha = 0;
    AdamW *early = new_optimizer(model, 0);
    Adapter *adapter = attach(model, lora, 1);
    AdamW *optimizer = patient == EARLY_OPTIMIZER ? early : new_optimizer(model, 0);
    Tape *tape = tape_new();
    for (int step = 0; step < 3; step++) {
        zero_grads(model);
        backward(tape, transformer_loss(model, tape, text->tokens, text->tokens + 1, TINY_B, TINY_T));
        adamw_step(optimizer, patient == TINY_RATE ? 1e-7 : 3e-3);
    }
    reading.trains = transformer_trainable_size(model);
    for (int i = 0; i < BASE_BLOCKS; i++) {
        const Tensor *B = model->blocks[i].linear[C_ATTN].lora->B;
        reading.gradient = hypot(reading.gradient, grad_norm(B));
        reading.moved = hypot(reading.moved, norm_of(B->data, B->size));
    }
    tape_free(tape);
    if (optimizer != early) adamw_free(optimizer);
    adamw_free(early);
    transformer_remove_adapter(model, adapter);
    return reading;
}

// The loss after STEPS at this rate, from a copy of the base; with an adapter, or of all weights.
static double loss_at(const Transformer *base, const Text *text, double rate, bool with_lora, uint64_t seed)
{
    Transformer *model = tiny_model(text, BASE_BLOCKS, BASE_WIDTH, seed);
    for (int i = 0; i < base->base_count; i++) {
        const Tensor *from = base->parameters[i];
        memcpy(model->parameters[i]->data, from->data, (size_t)from->size * sizeof(real));
    }
    if (with_lora) attach(model, lora_on(ON_C_ATTN, 4), seed);
    double loss = learn(model, text, STEPS, rate, seed);
    transformer_free(model);
    return loss;
}

int main(void)
{
    question("The loss does not fall. What to look at, and does LoRA want another learning rate?");
    predict("Which number tells a broken adapter from a healthy one? Which has the higher best rate?");

    Text tales = tiny_text("builtin:tales"), pirate = tiny_text("builtin:pirate");
    bool told_apart = true, not_lower = true;
    int sum[2] = { 0, 0 }; // of the best rates' places in the list, over the seeds
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        Transformer *model = tiny_base(&tales, seed);
        if (seed == 1) printf("  %-30s %12s %14s %18s\n", "", "trainable", "|dB| in step 2", "|B| after 3 steps");
        Reading healthy = examine(model, &pirate, HEALTHY);
        for (int p = 0; p < PATIENTS; p++) {
            Reading r = p == HEALTHY ? healthy : examine(model, &pirate, p);
            if (seed == 1) printf("  %-30s %12" PRId64 " %14.3g %18.3g\n", patients[p], r.trains, r.gradient, r.moved);
            bool no_gradient = p == SCALE_ZERO, no_move = p == SCALE_ZERO || p == EARLY_OPTIMIZER;
            told_apart &= r.trains == healthy.trains && (r.gradient == 0) == no_gradient && (r.moved == 0) == no_move;
            if (p == TINY_RATE) told_apart &= r.moved < 1e-3 * healthy.moved;
        }
        double loss[2][RATES];
        int best[2] = { 0, 0 };
        for (int lora = 0; lora < 2; lora++)
            for (int l = 0; l < RATES; l++) {
                loss[lora][l] = loss_at(model, &pirate, rates[l], lora, seed);
                if (loss[lora][l] < loss[lora][best[lora]]) best[lora] = l;
            }
        for (int l = 0; l < RATES && seed == 1; l++)
            printf("  rate %-8g  full: loss %.3f   LoRA, r = 4: loss %.3f\n", rates[l], loss[0][l], loss[1][l]);
        measured("best rate: full, LoRA", "%g, %g (seed %d)", rates[best[0]], rates[best[1]], (int)seed);
        not_lower &= best[1] >= best[0];
        for (int lora = 0; lora < 2; lora++) sum[lora] += best[lora];
        transformer_free(model);
    }

    why("Ask in this order: is anything trainable; does dB arrive; has B moved, and how far? A B that is 0 after some "
        "steps never learned, whatever the loss looked like. Only then tune the rate: LoRA wants a higher one.");
    finding(told_apart, "|dB| and |B| tell all four patients apart; the list of what is trainable does not, over three seeds");
    finding(not_lower && sum[1] > sum[0],
            "LoRA's best rate is higher than full training's on the whole, and for no seed lower");
    text_free(&tales);
    text_free(&pirate);
    return answered();
}
