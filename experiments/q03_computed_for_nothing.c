// q03_computed_for_nothing.c - are gradients of frozen weights computed and thrown away?
//
// Not here. To see what that would cost, the second run sets requires_grad on the whole base, with the adapters attached, and
// never uses what it gets. Engines have shipped this by mistake (candle#3773: a 0.5B model took 4.4 GB instead of 1.5).
// Look at: run_backward in autograd.c: the guard stands before the buffer is asked for (need_grad) and the kernel is run.

#include "claims.h"
#include "tiny.h"

enum { BLOCKS = 4, REPEATS = 8 };

int main(void)
{
    question("Are gradients of the frozen weights computed, and then thrown away?");
    predict("If they were: how much more work, and would the adapters' gradients be any different?");

    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, 64, 1);
    Adapter *adapter = attach(model, lora_on(ON_C_ATTN, 4), 1);
    fill_B(adapter, BLOCKS);
    int64_t base = transformer_base_size(model), small = adapter_size(adapter), bytes = (int64_t)sizeof(real);
    InVain v = compute_in_vain(model, tiny_batch(&text), REPEATS);
    const Measured *needed = &v.needed, *wasted = &v.wasted;
    int64_t needed_bytes = needed->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS];
    int64_t wasted_bytes = wasted->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS];
    printf("  %-28s %16s %20s\n", "", "skipped (ours)", "computed for nothing");
    printf("  %-28s %16" PRId64 " %20" PRId64 "\n", "parameter gradients, bytes", needed_bytes, wasted_bytes);
    printf("  %-28s %16" PRId64 " %20" PRId64 "\n", "peak, bytes", (int64_t)needed->ledger.peak, (int64_t)wasted->ledger.peak);
    printf("  %-28s %16.1f %20.1f\n", "MFLOP", 1e-6 * all_flops(needed), 1e-6 * all_flops(wasted));
    printf("  %-28s %16.2f %20.2f\n", "ms, forward and backward", 1e3 * needed->seconds, 1e3 * wasted->seconds);
    measured("largest difference of an adapter's gradient", "%g", v.largest_difference);

    why("The guard skips kernel and buffer of an input that does not require grad. What it skips feeds nothing: "
        "dW is read by the optimizer alone, so the adapters' gradients cannot depend on it.");
    finding(needed_bytes == small * bytes, "ours: gradient bytes are those of A and B, and no more");
    finding(wasted_bytes == (small + base) * bytes, "computed for nothing: the base's size on top");
    finding(all_flops(wasted) > 1.3 * all_flops(needed) && wasted->ledger.peak > needed->ledger.peak,
            "it costs more than 30 % more multiplications, and a higher peak");
    finding(v.norm > 0 && v.same_bits, "the adapters' gradients are the same to the last bit");
    transformer_free(model);
    text_free(&text);
    return answered();
}
