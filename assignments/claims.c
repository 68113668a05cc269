// claims.c - see claims.h.

#include "claims.h"

#include "adamw.h"
#include "adapters.h"
#include "meter.h"

static Transformer *new_model(Shape s)
{
    char error[256];
    Config config = { (int)s.V, (int)s.T, (int)s.L, (int)s.H, (int)s.C, 0 };
    Transformer *model = transformer_new(config, 1, error, sizeof error);
    check(model != NULL, "%s", error);
    return model;
}

// Freezes the base and attaches an adapter to every c_attn.
static void attach(Transformer *model, Shape s)
{
    char error[256];
    LoraConfig lora = { .r = (int)s.r, .alpha = 2 * (double)s.r, .targets = 1u << C_ATTN, .last_block = -1 };
    transformer_train_base(model, false);
    check(transformer_add_adapter(model, "lora", lora, 2, error, sizeof error) != NULL, "%s", error);
}

// Forward and backward on some tokens; then the optimizer, unless it is NULL. The gradients stay.
static void one_step(Transformer *model, Tape *tape, AdamW *optimizer, Shape s)
{
    enum { MOST = 1024 };
    int ids[MOST + 1], N = (int)(s.B * s.T);
    check(N <= MOST, "one_step: %d tokens", N);
    for (int i = 0; i <= N; i++) ids[i] = (int)(random_bits(3, (uint64_t)i) % (uint64_t)s.V);
    Tensor *loss = transformer_loss(model, tape, ids, ids + 1, (int)s.B, (int)s.T);
    backward(tape, loss);
    if (optimizer != NULL) adamw_step(optimizer, 0.001);
}

// For a meter's cut: true if this is the gradient that goes through a weight matrix that does not train.
static bool at_frozen_weights(const Node *n, int input)
{
    int weight = n->op->weight;
    return weight != 0 && input == 0 && !n->in[weight]->requires_grad;
}

Claims measure(Shape shape)
{
    Claims claims = { .reached = 0 };
    for (int run = 0; run < 3; run++) { // full, LoRA, LoRA with the flow cut
        Transformer *model = new_model(shape);
        if (run > 0) attach(model, shape);
        Tape *tape = tape_new();
        Meter meter = { .cut = run == 2 ? at_frozen_weights : NULL };
        meter_watch(&meter, tape);
        AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
        memory_reset_peaks();
        one_step(model, tape, run < 2 ? optimizer : NULL, shape);
        if (run < 2) {
            claims.gradient_bytes[run] = ledger.own_peak[MEMORY_PARAMETER_GRADIENTS];
            claims.moment_bytes[run] = ledger.own_peak[MEMORY_MOMENTS];
            claims.dgrad[run] = meter.dgrad;
            claims.wgrad[run] = meter.wgrad;
        }
        for (int i = model->base_count; i < model->parameter_count; i++)
            *(run == 1 ? &claims.reached : &claims.reached_when_cut) += model->parameters[i]->grad != NULL;
        adamw_free(optimizer);
        tape_free(tape);
        transformer_free(model);
    }
    return claims;
}
