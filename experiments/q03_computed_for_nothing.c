// q03_computed_for_nothing.c - are gradients of frozen weights computed and thrown away?
//
// Not here. To see what that would cost, the second run sets requires_grad on the whole base, with the adapters attached, and
// never uses what it gets. Engines have shipped this by mistake (candle#3773: a 0.5B model took 4.4 GB instead of 1.5).
// Look at: run_backward in autograd.c: the guard stands before the buffer is asked for (need_grad) and the kernel is run.

#include "tiny.h"

enum { BLOCKS = 4, REPEATS = 8 };

typedef struct Cost {
    long   peak, parameter_gradients, flops;
    double ms;       // the fastest of several
    real  *gradients; // of the adapters, one after another
} Cost;

static Cost measure(Transformer *model, const Text *text, bool base_too)
{
    Cost cost = { .ms = HUGE_VAL };
    transformer_train_base(model, base_too);
    Tape *tape = tape_new();
    for (int i = 0; i < REPEATS; i++) {
        tape_clear(tape);
        zero_grads(model);
        tape->counts = (Counts){ 0 };
        memory_reset_peaks();
        double start = seconds_now();
        forward_backward(model, tape, text);
        cost.ms = fmin(cost.ms, 1e3 * (seconds_now() - start));
    }
    cost.peak = ledger.peak;
    cost.parameter_gradients = ledger.own_peak[MEMORY_PARAMETER_GRADIENTS];
    for (int p = 0; p < PHASES; p++) cost.flops += counts_phase(&tape->counts, (Phase)p).flops;
    real *next = cost.gradients = malloc((size_t)adapter_size(model->active, &model->config) * sizeof *next);
    if (next == NULL) die(EXIT_FAILED, "out of memory");
    for (int i = model->base_count; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        memcpy(next, t->grad, (size_t)t->size * sizeof *next);
        next += t->size;
    }
    tape_free(tape);
    zero_grads(model);
    return cost;
}

int main(void)
{
    question("Are gradients of the frozen weights computed, and then thrown away?");
    predict("If they were: how much more work, and would the adapters' gradients be any different?");

    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, 64, 1);
    Adapter *adapter = attach(model, lora_on(ON_C_ATTN, 4), 1);
    fill_B(adapter, BLOCKS);
    long base = transformer_base_size(model), small = adapter_size(adapter, &model->config), bytes = (long)sizeof(real);
    Cost needed = measure(model, &text, false), wasted = measure(model, &text, true);
    printf("  %-28s %16s %20s\n", "", "skipped (ours)", "computed for nothing");
    printf("  %-28s %16ld %20ld\n", "parameter gradients, bytes", needed.parameter_gradients, wasted.parameter_gradients);
    printf("  %-28s %16ld %20ld\n", "peak, bytes", needed.peak, wasted.peak);
    printf("  %-28s %16.1f %20.1f\n", "MFLOP", 1e-6 * (double)needed.flops, 1e-6 * (double)wasted.flops);
    printf("  %-28s %16.2f %20.2f\n", "ms, forward and backward", needed.ms, wasted.ms);
    double apart = largest_difference(needed.gradients, wasted.gradients, small);
    measured("largest difference of an adapter's gradient", "%g", apart);

    why("The guard skips kernel and buffer of an input that does not require grad. What it skips feeds nothing: "
        "dW is read by the optimizer alone, so the adapters' gradients cannot depend on it.");
    finding(needed.parameter_gradients == small * bytes, "ours: gradient bytes are those of A and B, and no more");
    finding(wasted.parameter_gradients == (small + base) * bytes, "computed for nothing: the base's size on top");
    finding(wasted.flops > 13 * needed.flops / 10 && wasted.peak > needed.peak,
            "it costs more than 30 % more multiplications, and a higher peak");
    finding(norm_of(needed.gradients, small) > 0 && memcmp(needed.gradients, wasted.gradients, (size_t)(small * bytes)) == 0,
            "the adapters' gradients are the same to the last bit");
    free(needed.gradients);
    free(wasted.gradients);
    transformer_free(model);
    text_free(&text);
    return answered();
}
