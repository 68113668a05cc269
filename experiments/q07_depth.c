// q07_depth.c - why can a few adapters be slower than training whole layers?
//
// The same adapter on the top block alone, on the bottom block alone, on all of them, and, against these, the whole top block
// trained without any adapter. What counts is how far down the lowest trainable tensor lies, not how many numbers train.
// Asked in LlamaFactory#5398: 16 million numbers in adapters took longer than 2.6 billion in the last layers.
// Look at: record_into in autograd.c: an op whose inputs do not require grad leaves no node, so backward ends by itself.

#include "tiny.h"

enum { BLOCKS = 4, WIDTH = 64, REPEATS = 5, RUNS = 4 };
enum { TOP_ADAPTER, BOTTOM_ADAPTER, ALL_ADAPTERS, TOP_BLOCK };
static const char *const names[RUNS] = { "adapter, top block", "adapter, bottom block", "adapters, all blocks",
                                         "top block, no adapter" };

typedef struct Cost { int64_t trainable, dgrad, flops, kept; double ms; } Cost; // flops: of backward

static Cost measure(Transformer *model, const Text *text)
{
    Measured m = measure_steps(model, (Steps){ .batch = tiny_batch(text), .count = REPEATS });
    zero_grads(model);
    return (Cost){ transformer_trainable_size(model), m.dgrad, m.phase[PHASE_DGRAD].flops + m.phase[PHASE_WGRAD].flops,
                   m.ledger.own_peak[MEMORY_KEPT_ACTIVATIONS], 1e3 * m.seconds };
}

int main(void)
{
    question("Fewer numbers to train: is a step always faster?");
    predict("17 matrices can pass a gradient on. How many do, with one adapter on top, or one at the bottom?");

    Text text = tiny_text("builtin:tales");
    Transformer *model = tiny_model(&text, BLOCKS, WIDTH, 1);
    Cost cost[RUNS];
    printf("  %-22s %10s %10s %11s %10s %8s\n", "", "trainable", "passed on", "MFLOP back", "kept, KB", "ms");
    for (int run = 0; run < RUNS; run++) {
        LoraConfig lora = lora_on(ON_C_ATTN, 4);
        if (run == TOP_ADAPTER) lora.first_block = BLOCKS - 1;
        if (run == BOTTOM_ADAPTER) lora.last_block = 0;
        Adapter *adapter = NULL;
        if (run != TOP_BLOCK) adapter = attach(model, lora, 1);
        else for (int i = 0; i < model->base_count; i++) // the base is frozen by now
            model->parameters[i]->requires_grad = strstr(model->parameters[i]->name, "transformer.h.3.") != NULL;
        cost[run] = measure(model, &text);
        printf("  %-22s %10" PRId64 " %10" PRId64 " %11.1f %10.0f %8.2f\n", names[run], cost[run].trainable, cost[run].dgrad,
               1e-6 * (double)cost[run].flops, 1e-3 * (double)cost[run].kept, cost[run].ms);
        if (adapter != NULL) transformer_remove_adapter(model, adapter);
    }
    const Cost *top = &cost[TOP_ADAPTER], *bottom = &cost[BOTTOM_ADAPTER];
    const Cost *block = &cost[TOP_BLOCK], *all = &cost[ALL_ADAPTERS];

    why("The gradient must come down to the lowest trainable tensor, through everything above it; and each op on "
        "the way keeps what its own gradient reads. Below that tensor nothing is recorded, kept or computed.");
    finding(top->trainable == bottom->trainable, "top and bottom adapter have equally many numbers");
    finding(top->dgrad == 4 && bottom->dgrad == 16, "top: 4 of 17 matrices pass a gradient on; bottom: 16");
    finding(bottom->flops > 3 * top->flops && 2 * bottom->kept > 5 * top->kept,
            "bottom: more than 3 times the work of backward, 2.5 times the kept bytes");
    finding(all->dgrad == bottom->dgrad, "adapters on all blocks pass on no more than the lowest alone requires");
    finding(block->trainable > 5 * all->trainable && block->flops < all->flops,
            "the whole top block: more than 5 times the numbers of all adapters, and yet less work");
    transformer_free(model);
    text_free(&text);
    return answered();
}
