// step.c - two training steps, small enough for a walk in a debugger: first everything trains, then the base is frozen
// and adapters on the c_attn of both blocks train. `make gdb` stops it at the first gradient kernel; `make walk` lists its
// functions in the order in which they are met.

#include "adamw.h"
#include "adapters.h"
#include "meter.h"

enum { B = 2, T = 6 };

// At file scope, so that `tape`, `model` and `optimizer` mean something in every frame of a debugger.
static Tape *tape;
static Transformer *model;
static AdamW *optimizer;
static Meter meter;

// Forward, backward, optimizer: what train.c does some thousand times.
static void step(const char *what, const int *ids, const int *targets)
{
    tape_clear(tape);                                                      // what the last step made
    meter_zero(&meter);
    memory_reset_peaks();
    Tensor *loss = transformer_loss(model, tape, ids, targets, B, T);      // forward: each op appends a node
    double value = (double)loss->data[0];
    backward(tape, loss);                                                  // from the last node to the first
    double norm = adamw_step(optimizer, 1e-2);                             // moves what requires grad
    zero_grads(model);                                                     // gradients only add up: free them
    printf("%-5s loss %.4f, |g| %.4f; of 9 matrices: %d dgrad, %d wgrad, %d skipped, %d never recorded; %d of adapters\n", what,
           value, norm, (int)meter.dgrad, (int)meter.wgrad, (int)meter.wgrad_skipped, (int)meter.wgrad_never_recorded,
           (int)meter.adapter_gradients);
}

int main(void)
{
    parallel_set_threads(1);                                               // each kernel is one call, on this thread
    const char *text = "the ice melts";                                    // B * T characters, and the one that follows
    int tokens[B * T + 1];                                                 // ' ' is 0, 'a' is 1, ...
    for (int i = 0; i <= B * T; i++) tokens[i] = text[i] == ' ' ? 0 : text[i] - 'a' + 1;

    char error[256];
    Config config = { .vocab_size = 27, .block_size = T, .n_layer = 2, .n_head = 2, .n_embd = 8 };
    model = transformer_new(config, 1337, error, sizeof error);
    check(model != NULL, "%s", error);
    tape = tape_new();
    meter_watch(&meter, tape);

    AdamWConfig settings = { .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1, .grad_clip = 1 };
    optimizer = adamw_new(model->parameters, model->parameter_count, settings);
    step("full", tokens, tokens + 1);
    adamw_free(optimizer);                                                 // its moments are those of the whole base

    transformer_train_base(model, false);                                  // freezing: one flag for each tensor
    LoraConfig lora = { .r = 2, .alpha = 4, .targets = 1u << C_ATTN, .last_block = -1 };
    Adapter *adapter = transformer_add_adapter(model, "lora", lora, 7, error, sizeof error);
    check(adapter != NULL, "%s", error);
    optimizer = adamw_new(model->parameters, model->parameter_count, settings);
    step("LoRA", tokens, tokens + 1);

    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
    scratch_release();
    return ledger.total == 0 ? 0 : 1;
}
