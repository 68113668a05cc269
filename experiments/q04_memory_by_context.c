// q04_memory_by_context.c - why does LoRA sometimes save so little memory?
//
// The third step (the moments exist by then) of full training and of LoRA, on more and more tokens. What LoRA saves is a
// constant: gradient and moments of the frozen weights. Activations grow with the tokens, and they are still there.
// Asked in peft#1514, #1469, #675 (17 GB became 12, 9 were hoped for), #148 (0.165 % trainable, still 34 GB).
// Look at: keeps_of in autograd.c (what a node must hold), adamw_step (moments), and predict.c, which has it all as formulas.

#include "predict.h"
#include "tiny.h"

enum { BLOCKS = 4, WIDTH = 64, SIZES = 5 };
static const int windows[SIZES] = { 1, 4, 16, 64, 256 }; // of TINY_T tokens

static Ledger third_step(Transformer *model, const Text *text, int B)
{
    AdamW *optimizer = tiny_optimizer(model);
    Tape *tape = tape_new();
    for (int step = 0; step < 3; step++) {
        tape_clear(tape);
        if (step == 2) memory_reset_peaks();
        backward(tape, transformer_loss(model, tape, text->tokens, text->tokens + 1, B, TINY_T));
        adamw_step(optimizer, 0);
        zero_grads(model);
    }
    Ledger third = ledger;
    tape_free(tape);
    adamw_free(optimizer);
    return third;
}

int main(void)
{
    question("LoRA trains 1 or 2 % of the numbers. Why does memory not fall by as much?");
    predict("From how many tokens in a batch do kept activations outweigh all that LoRA saves?");

    const LoraConfig lora = { .r = 4, .alpha = 8, .targets = 1u << C_ATTN, .last_block = -1 };
    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, WIDTH, 1);
    double ratio[SIZES], kept[SIZES];
    long saved = 3 * transformer_base_size(model) * (long)sizeof(real); // one gradient and two moments for each number
    bool as_predicted = true, adamw_exact = true, half = true;

    printf("  %7s %11s %11s %6s %25s %25s\n", "tokens", "peak, full", "peak, LoRA", "ratio", "gradients + moments (own)", "kept activations, LoRA");
    for (int s = 0; s < SIZES; s++) {
        Ledger run[2];
        for (int with_lora = 0; with_lora < 2; with_lora++) {
            Adapter *adapter = with_lora ? attach(model, lora, 1) : NULL;
            transformer_train_base(model, !with_lora);
            run[with_lora] = third_step(model, &text, windows[s]);
            Prediction p = predict_step(&model->config, with_lora ? &lora : NULL, windows[s], TINY_T, false, 1, (int)sizeof(real));
            as_predicted &= p.peak == run[with_lora].peak;
            if (with_lora) transformer_remove_adapter(model, adapter);
        }
        long states[2];
        for (int i = 0; i < 2; i++) states[i] = run[i].own_peak[MEMORY_PARAMETER_GRADIENTS] + run[i].own_peak[MEMORY_MOMENTS];
        adamw_exact &= states[0] == saved && states[1] == 3 * lora_parameters(&model->config, &lora) * (long)sizeof(real);
        ratio[s] = (double)run[0].peak / (double)run[1].peak;
        kept[s] = (double)run[1].own_peak[MEMORY_KEPT_ACTIVATIONS];
        half &= kept[s] > 0.5 * (double)run[0].own_peak[MEMORY_KEPT_ACTIVATIONS];
        printf("  %7d %11ld %11ld %5.2fx %14ld -> %7ld %25.0f\n", windows[s] * TINY_T, run[0].peak, run[1].peak, ratio[s], states[0], states[1], kept[s]);
    }
    double per_token = (kept[1] - kept[0]) / ((windows[1] - windows[0]) * TINY_T);
    double crossover = (double)saved / per_token;
    measured("kept for each token, LoRA", "%.0f bytes", per_token);
    measured("so they outweigh what LoRA saves from", "%.0f tokens on (%ld / %.0f)", ceil(crossover), saved, per_token);

    why("LoRA does away with gradient and moments of what is frozen (three numbers for each weight), and with",
        "the inputs of frozen layers without adapter. All else that backward reads is kept as before.");
    finding(adamw_exact, "gradients and moments fall from 3 numbers a weight of the base to 3 a weight of A and B, to the byte");
    finding(half, "of the kept activations LoRA keeps more than half, at every size");
    finding(kept[0] < (double)saved && kept[SIZES - 1] > (double)saved && crossover > windows[0] * TINY_T, "few tokens: the saving is larger; many: the activations are");
    finding(ratio[0] > 2.5 && ratio[SIZES - 1] < 1.7, "the whole step takes 1/2.5 or less at 32 tokens, but more than 1/1.7 at 8192");
    finding(as_predicted, "every peak is, to the byte, what predict.c computes on paper");
    transformer_free(model);
    text_free(&text);
    return answered();
}
