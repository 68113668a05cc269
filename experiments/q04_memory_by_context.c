// q04_memory_by_context.c - why does LoRA sometimes save so little memory?
//
// The third step (the moments exist by then) of full training and of LoRA, on more and more tokens. What LoRA saves is a
// constant: gradient and moments of the frozen weights. Activations grow with the tokens, and they are still there.
// Asked in peft#1514, #1469, #675 (17 GB became 12, 9 were hoped for), #148 (0.165 % trainable, still 34 GB).
// Look at: keeps_of in autograd.c (what a node must hold), adamw_step (moments), and predict.c, which has it all as formulas.

#include "tiny.h"

enum { BLOCKS = 4, WIDTH = 64, SIZES = 4 };
static const int windows[SIZES] = { 1, 4, 16, 64 }; // of TINY_T tokens

int main(void)
{
    question("LoRA trains 1 or 2 % of the numbers. Why does memory not fall by as much?");
    predict("From how many tokens in a batch do kept activations outweigh all that LoRA saves?");

    const LoraConfig lora = lora_on(ON_C_ATTN, 4);
    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, WIDTH, 1);
    double ratio[SIZES], kept[SIZES];
    const int64_t bytes = (int64_t)sizeof(real), P = transformer_base_size(model), p = lora_parameters(&model->config, &lora);
    int64_t saved = 0;
    bool as_predicted = true, states_exact = true, half = true;

    printf("  %6s %12s %12s %8s  %20s %13s\n", "tokens", "peak, full", "peak, LoRA", "ratio", "gradients + moments",
           "kept, LoRA");
    for (int s = 0; s < SIZES; s++) {
        Ledger run[2];
        int64_t states[2];
        for (int with_lora = 0; with_lora < 2; with_lora++) {
            const LoraConfig *trained = with_lora ? &lora : NULL;
            adapt(model, trained, 1);
            Batch batch = first_windows(&text, windows[s], TINY_T);
            run[with_lora] = measure_steps(model, (Steps){ .batch = batch, .count = 3, .optimizer = true }).ledger;
            Prediction predicted = predict_step(&model->config, trained, windows[s], TINY_T, false, 1, (int)bytes);
            as_predicted &= run[with_lora].peak == predicted.peak;
            states[with_lora] = run[with_lora].own_peak[MEMORY_PARAMETER_GRADIENTS] + run[with_lora].own_peak[MEMORY_MOMENTS];
        }
        saved = states[0] - states[1];
        states_exact &= states[0] == 3 * P * bytes && states[1] == 3 * p * bytes; // a gradient and two moments for each number
        ratio[s] = (double)run[0].peak / (double)run[1].peak;
        kept[s] = (double)run[1].own_peak[MEMORY_KEPT_ACTIVATIONS];
        half &= kept[s] > 0.5 * (double)run[0].own_peak[MEMORY_KEPT_ACTIVATIONS];
        printf("  %6d %12" PRId64 " %12" PRId64 " %7.2fx %10" PRId64 " -> %6" PRId64 " %13.0f\n", windows[s] * TINY_T,
               (int64_t)run[0].peak, (int64_t)run[1].peak, ratio[s], states[0], states[1], kept[s]);
    }
    double per_token = (kept[1] - kept[0]) / ((windows[1] - windows[0]) * TINY_T);
    double crossover = (double)saved / per_token;
    measured("kept for each token, LoRA", "%.0f bytes", per_token);
    measured("so they outweigh what LoRA saves from", "%.0f tokens on (%" PRId64 " / %.0f)", ceil(crossover), saved, per_token);

    why("LoRA does away with gradient and moments of what is frozen (three numbers for each weight), and with "
        "the inputs of frozen layers without adapter. All else that backward reads is kept as before.");
    finding(states_exact, "gradients and moments fall from 3 numbers a weight of the base to 3 of A and B, to the byte");
    finding(half, "of the kept activations LoRA keeps more than half, at every size");
    finding(kept[0] < (double)saved && kept[SIZES - 1] > (double)saved && crossover > windows[0] * TINY_T,
            "few tokens: the saving is larger; many: the activations are");
    finding(ratio[0] > 2 && ratio[SIZES - 1] < 1.5,
            "the peak falls to less than a half at 32 tokens, but not to two thirds at 2048");
    finding(as_predicted, "every peak is, to the byte, what predict.c computes on paper");
    transformer_free(model);
    text_free(&text);
    return answered();
}
