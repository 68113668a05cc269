// claims.c - eleven things that people say about LoRA. Each is one function: it measures, gives the verdict with what the verdict
// rests on, and prints the numbers. First the facts of claims.h, which some questions share.

#include "experiments/claims.h"

#include "experiments/comparison.h"

// ---------------------------------------------------------------------------------------------------------------- shared facts

int adapters_reached(const Transformer *model, LinearKind kind)
{
    int reached = 0;
    for (int i = 0; i < model->config.n_layer; i++) {
        const Tensor *B = model->blocks[i].linear[kind].lora->B;
        reached += norm_of(B->grad, B->size) > 0;
    }
    return reached;
}

InVain compute_in_vain(Transformer *model, Batch batch, int count)
{
    InVain v = { .numbers = adapter_size(model->active) };
    real *gradients[2];
    for (int base_too = 0; base_too < 2; base_too++) {
        transformer_train_base(model, base_too);
        *(base_too ? &v.wasted : &v.needed) = measure_steps(model, (Steps){ .batch = batch, .count = count });
        gradients[base_too] = adapter_gradients(model);
        zero_grads(model);
    }
    transformer_train_base(model, false);
    v.largest_difference = largest_difference(gradients[0], gradients[1], v.numbers);
    v.same_bits = memcmp(gradients[0], gradients[1], (size_t)v.numbers * sizeof(real)) == 0;
    v.norm = norm_of(gradients[0], v.numbers);
    for (int i = 0; i < 2; i++) free(gradients[i]);
    return v;
}

bool codes_give_same_bits(Transformer *model, Batch batch, BaseType type)
{
    real *gradients[2], **base = copy_base(model);
    for (int floats = 0; floats < 2; floats++) {
        transformer_hold_base(model, floats ? BASE_FLOAT : type);
        measure_steps(model, (Steps){ .batch = batch, .count = 1 });
        gradients[floats] = adapter_gradients(model);
        zero_grads(model);
    }
    restore_base(model, base);
    bool same = memcmp(gradients[0], gradients[1], (size_t)adapter_size(model->active) * sizeof(real)) == 0;
    for (int i = 0; i < 2; i++) free(gradients[i]);
    return same;
}

double logits_differ(const Transformer *model, Batch batch, const Tensor *before)
{
    Tensor *now = transformer_logits(model, NULL, batch.ids, batch.B, batch.T);
    double difference = largest_difference(now->data, before->data, before->size);
    tensor_drop(now);
    return difference;
}

Merge merge_and_back(Transformer *model, Batch batch)
{
    uint64_t hash = transformer_hash(model);
    int64_t weights = ledger.live[MEMORY_WEIGHTS];
    Tensor *apart = transformer_logits(model, NULL, batch.ids, batch.B, batch.T);
    Merge m = { .size = norm_of(apart->data, apart->size) / sqrt((double)apart->size) };
    transformer_merge(model);
    m.more_bytes = ledger.live[MEMORY_WEIGHTS] - weights;
    m.difference = logits_differ(model, batch, apart);
    transformer_unmerge(model);
    m.left = ledger.live[MEMORY_WEIGHTS] - weights;
    m.base_restored = transformer_hash(model) == hash;
    tensor_drop(apart);
    return m;
}

// ------------------------------------------------------------------------------------------------------------------- the claims

static bool all_found;

// Prints a claim with its verdict, if what the verdict rests on was found in this run.
static void claim(int number, const char *words, const char *verdict, bool found)
{
    all_found &= found;
    printf("\n%2d. %-64s%s%s%s\n", number, words, colour(found ? ICE : WARM), found ? verdict : "NOT FOUND", colour(NORMAL));
}

static double base_bytes(const Comparison *c) { return (double)transformer_base_size(c->model) * sizeof(real); }

static void claim_two_small_matrices(const Comparison *c)
{
    int C = c->model->config.n_embd, L = c->model->config.n_layer;
    double delta = 3.0 * C * C * L * sizeof(real), adapter = (double)c->run[C_ATTN_ONLY].trainable * sizeof(real);
    claim(1, "base + two small matrices is less than base + equal matrices", "true", adapter < delta);
    printf("    Base %s, adapter on c_attn %s; a full-size change of the same\n"
           "    matrices would be %s, %.0f times the adapter.\n",
           bytes_text(base_bytes(c)), bytes_text(adapter), bytes_text(delta), delta / adapter);
}

static void claim_simply_add(const Comparison *c)
{
    transformer_use_adapter(c->model, c->pirate_adapter);
    Merge m = merge_and_back(c->model, first_windows(&c->pirate, 1, CONTEXT));
    claim(2, "it is larger than the base alone; one could simply add", "half true",
          m.more_bytes > 0 && m.left == 0 && m.base_restored && m.difference < 1e-3);
    printf("    Unmerged: larger. Merged: W + s A B is the size of W, +0 bytes (%s more\n"
           "    while the originals are kept for unmerging). Largest difference of a\n"
           "    logit: %.1e of %.1f. Unmerging gave back the base's bytes: %s.\n",
           bytes_text((double)m.more_bytes), m.difference, m.size, m.base_restored ? "yes" : "NO");
}

static void claim_small_part_only(const Comparison *c)
{
    const Measured *full = &c->run[FULL].measured, *lora = &c->run[C_ATTN_ONLY].measured;
    double left = all_flops(lora) / all_flops(full);
    claim(3, "LoRA is cheaper: it computes gradients for the small part only", "half true",
          full->wgrad > 0 && lora->wgrad == 0 && left > 0.5 && left < 0.9);
    printf("    Weight gradients of the base: %" PRId64 " -> %" PRId64 ". But %" PRId64 " of %" PRId64 " input gradients\n"
           "    stay, so the work falls by %.0f %%, not by nearly all.\n",
           full->wgrad, lora->wgrad, lora->dgrad, full->dgrad, 100 * (1 - left));
}

// A plain chain of four frozen linear layers with fresh adapters: how many get a gradient; whether a frozen weight got one; and
// the norm of what flows through them all, to the chain's input.
typedef struct Chain { int reached; bool weight_grad; double through; } Chain;

static Chain measure_chain(Cut *cut)
{
    enum { LAYERS = 4, WIDTH = 16 };
    Chain result = { 0 };
    Layer layer[LAYERS];
    Tensor *input = random_leaf("input", 1, 1, SHAPE(8, WIDTH)), *x = input;
    input->requires_grad = true;
    Tape *tape = tape_new();
    set_cut(tape, cut);
    for (int i = 0; i < LAYERS; i++) {
        layer_init(&layer[i], WIDTH, WIDTH, 2, 0.3, (uint64_t)(10 + i));
        fill_normal(layer[i].linear.weight, 0.3, (uint64_t)(2 + i));
        x = linear_apply(tape, &layer[i].linear, x);
    }
    backward(tape, op_mean(tape, op_mul(tape, x, x)));
    result.through = norm_of(input->grad, input->size);
    tape_free(tape);
    for (int i = 0; i < LAYERS; i++) {
        result.reached += norm_of(layer[i].lora.B->grad, layer[i].lora.B->size) > 0;
        result.weight_grad |= layer[i].linear.weight->grad != NULL;
        layer_free(&layer[i]);
    }
    tensor_drop(input);
    return result;
}

static void claim_must_flow(const Comparison *c)
{
    enum { WAYS = 3 };
    static Cut *const cuts[WAYS] = { NULL, cut_frozen_linears, cut_frozen_matrices };
    static const char *const names[WAYS] = { "no cut", "cut in the blocks", "and at the head" };
    int reached[WAYS][LINEARS], L = c->model->config.n_layer;
    Adapter *fresh = add_adapter(c->model, "fresh", &on_all, SEED);
    for (int way = 0; way < WAYS; way++) {
        measure_steps(c->model, (Steps){ .batch = first_windows(&c->pirate, BATCH, CONTEXT), .count = 1, .cut = cuts[way] });
        for (int k = 0; k < LINEARS; k++) reached[way][k] = adapters_reached(c->model, (LinearKind)k);
        zero_grads(c->model);
    }
    transformer_remove_adapter(c->model, fresh);
    Chain flowing = measure_chain(NULL), broken = measure_chain(cut_frozen_linears);
    int64_t full = c->run[FULL].measured.dgrad, lora = c->run[C_ATTN_ONLY].measured.dgrad;
    bool as_expected = flowing.reached == 4 && broken.reached == 1 && lora == full - 1;
    for (int k = 0; k < LINEARS; k++) {
        bool residual = k == ATTN_C_PROJ || k == MLP_C_PROJ; // adds to the residual stream, which passes the frozen weights by
        as_expected &= reached[0][k] == L && reached[1][k] == (residual ? L : 0) && reached[2][k] == 0;
    }
    claim(4, "gradients must flow through the network regardless", "true", as_expected);
    printf("    %" PRId64 " of 16 linear layers and the head pass one on; below the lowest adapter\n"
           "    nothing does. Cut the flow at frozen weights, and of four adapters in a\n"
           "    plain chain %d get a gradient (%d without the cut). In the transformer, of\n", lora - 1, broken.reached,
           flowing.reached);
    printf("    4 each:                c_attn  attn.c_proj  c_fc  mlp.c_proj\n");
    for (int way = 0; way < WAYS; way++)
        printf("      %-20s %4d    %7d     %5d  %6d%s\n", names[way], reached[way][0], reached[way][1], reached[way][2],
               reached[way][3], way == 1 ? "  (residual stream)" : "");
}

static void claim_still_needed(const Comparison *c)
{
    transformer_use_adapter(c->model, c->pirate_adapter);
    InVain v = compute_in_vain(c->model, first_windows(&c->pirate, BATCH, CONTEXT), 1);
    claim(5, "gradients of the frozen weights are still needed", "half true", v.same_bits);
    printf("    Gradients THROUGH them are, gradients OF them are not: computing those too\n"
           "    changes %s of the %s adapter gradients.\n", v.same_bits ? "not one bit" : "SOME", thousands(v.numbers));
}

static void claim_trivial(void)
{
    Chain flowing = measure_chain(NULL);
    claim(6, "the base is constant, its derivative 0, so it is trivial", "false", !flowing.weight_grad && flowing.through > 0);
    printf("    dLoss/dW of a frozen W is skipped (%s). dLoss/dx =\n"
           "    dLoss/dy W^T is not 0: through the chain's four frozen layers came %.3g.\n",
           flowing.weight_grad ? "COMPUTED" : "grad: not computed", flowing.through);
}

static void claim_keeping_costs(const Comparison *c)
{
    const Measured *full = &c->run[FULL].measured, *lora = &c->run[C_ATTN_ONLY].measured;
    double work = (double)full->phase[PHASE_WGRAD].flops / all_flops(full), seconds = full->optimizer_seconds;
    for (int p = 0; p < PHASES; p++) seconds += full->phase[p].seconds;
    double full_peak = (double)full->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS];
    double lora_peak = (double)lora->ledger.own_peak[MEMORY_PARAMETER_GRADIENTS];
    claim(7, "gradients are cheap; keeping them is what costs", "half true", work > 0.2 && lora_peak < full_peak / 10);
    printf("    Parameter gradients at their peak: %s -> %s. But computing the\n"
           "    base's was %.0f %% of the multiplications and %.0f %% of the time of a full step.\n",
           bytes_text(full_peak), bytes_text(lora_peak), 100 * work, 100 * full->phase[PHASE_WGRAD].seconds / seconds);
}

static void claim_optimizer_shrinks(const Comparison *c)
{
    const Run *full = &c->run[FULL], *lora = &c->run[C_ATTN_ONLY];
    int64_t full_moments = full->measured.ledger.own_peak[MEMORY_MOMENTS];
    int64_t moments = lora->measured.ledger.own_peak[MEMORY_MOMENTS];
    claim(8, "optimizer state shrinks with the number of trained parameters", "true",
          full_moments * lora->trainable == moments * full->trainable);
    printf("    Moments: %s (%.1f times the weights) -> %s.\n", bytes_text((double)full_moments),
           (double)full_moments / base_bytes(c), bytes_text((double)moments));
}

static void claim_gold_copy(const Comparison *c)
{
    enum { SWITCHES = 1000 };
    double start = seconds_now();
    for (int i = 0; i < SWITCHES; i++) transformer_use_adapter(c->model, i % 2 ? c->pirate_adapter : c->robot_adapter);
    double seconds = (seconds_now() - start) / SWITCHES;
    double adapter = (double)adapter_size(c->pirate_adapter) * sizeof(real);
    bool unchanged = transformer_hash(c->model) == c->hash;
    claim(9, "keep one gold copy, and small adapters for each task", "true", unchanged);
    printf("    Here: one base of %s, %s more for each adapter on all four layers\n"
           "    (%.0f %%), %.0f nanoseconds to switch; the base's bytes now: %s.\n",
           bytes_text(base_bytes(c)), bytes_text(adapter), 100 * adapter / base_bytes(c), 1e9 * seconds,
           unchanged ? "unchanged" : "CHANGED");
}

static void claim_large_models(const Comparison *c)
{
    const Run *full = &c->run[FULL], *lora = &c->run[C_ATTN_ONLY];
    double P = (double)full->trainable, p = (double)lora->trainable, here = 16 * P / (4 * P + 16 * p);
    double peak = (double)full->measured.ledger.peak / (double)lora->measured.ledger.peak;
    Ratios there = ratios_at_gpt3();
    claim(10, "it matters most for models of 7B, 65B, 175B parameters", "true", there.states > here && there.peak > peak);
    printf("    Weights, gradients and moments: %.2f times less here, %.2f times at 175B.\n"
           "    The peak of a step: %.1f times less here, %.1f times there, on one window.\n"
           "    Most of what LoRA leaves are activations here, and there the frozen weights.\n",
           here, there.states, peak, there.peak);
}

// The same adapter on floats and on codes learns about the same; and what it gets of codes is what it gets of floats.
static void claim_exact_bits(const Comparison *c)
{
    const Run *floats = &c->run[C_ATTN_ONLY], *codes = &c->run[C_ATTN_CODES];
    BaseType type = codes->lora->base_type;
    double all = (double)floats->measured.ledger.at_peak[MEMORY_WEIGHTS];
    double bytes = (double)codes->measured.ledger.at_peak[MEMORY_WEIGHTS];
    transformer_use_adapter(c->model, c->pirate_adapter);
    bool same = codes_give_same_bits(c->model, first_windows(&c->pirate, BATCH, CONTEXT), type);
    claim(11, "the base's exact bits are not needed", "true",
          same && codes->val_task < floats->val_task + 0.1 && (type == BASE_FLOAT || bytes < all / 2));
    printf("    Weights, those of linear layers in %s: %s -> %s. Loss with LoRA\n"
           "    on c_attn: %.3f, on floats %.3f. A gradient needs W's values: through the\n"
           "    codes it has %s bits as through floats of the codes' values.\n",
           base_type_names[type], bytes_text(all), bytes_text(bytes), codes->val_task, floats->val_task, same ? "the same" : "OTHER");
}

bool print_claims(const Comparison *c)
{
    all_found = true;
    print_heading("Eleven things people say about LoRA, measured in this run");
    claim_two_small_matrices(c);
    claim_simply_add(c);
    claim_small_part_only(c);
    claim_must_flow(c);
    claim_still_needed(c);
    claim_trivial();
    claim_keeping_costs(c);
    claim_optimizer_shrinks(c);
    claim_gold_copy(c);
    claim_large_models(c);
    claim_exact_bits(c);
    return all_found;
}
