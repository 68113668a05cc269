// test_adamw.c - the optimizer: its formula, what it does with a gradient that is not finite, and what it forgets.

#include "small.h"

static void set_grad(Tensor *t, uint64_t seed, double size)
{
    if (t->grad == NULL) t->grad = memory_take(MEMORY_PARAMETER_GRADIENTS, t->size);
    for (int64_t i = 0; i < t->size; i++) t->grad[i] = (real)(size * irregular(seed, i, 1));
}

TEST(adamw_equals_its_formula)
{
    enum { TENSORS = 3, STEPS = 20, MOST = 80 };
    static const struct { double clip, decay; } forms[] = { { 0, 0 }, { 0.5, 0 }, { 0, 0.3 }, { 0.5, 0.3 }, { 1000, 0.3 } };
    static const double sizes[] = { 0.01, 1, 0.1 }; // norms of 0.06, 6 and 0.6: below a clip of 0.5, far and just above
    for (int form = 0; form < 5; form++) {
        Tensor *t[TENSORS] = { weights("W", 3, 5, 1, true), vector("b", 37, 2, true), weights("A", 5, 13, 3, true) };
        double p[TENSORS][MOST], m[TENSORS][MOST] = { { 0 } }, v[TENSORS][MOST] = { { 0 } };
        for (int k = 0; k < TENSORS; k++)
            for (int64_t i = 0; i < t[k]->size; i++) p[k][i] = number(t[k]->data[i]);
        AdamWConfig config = { 0.9, 0.97, forms[form].decay, forms[form].clip };
        AdamW *optimizer = adamw_new(t, TENSORS, config);
        double worst = 0, worst_norm = 0;
        for (int step = 1; step <= STEPS; step++) {
            double lr = 0.02 / step, squares = 0;
            for (int k = 0; k < TENSORS; k++) {
                set_grad(t[k], (uint64_t)(1000 + 10 * step + k), sizes[step % 3]);
                for (int64_t i = 0; i < t[k]->size; i++) squares += number(t[k]->grad[i]) * number(t[k]->grad[i]);
            }
            double norm = adamw_step(optimizer,
                    lr), clip = config.grad_clip > 0 &&
                    sqrt(squares) > config.grad_clip ? config.grad_clip / sqrt(squares) : 1;
            worst_norm = fmax(worst_norm, fabs(norm / sqrt(squares) - 1));
            for (int k = 0; k < TENSORS; k++)
                for (int64_t i = 0; i < t[k]->size; i++) {
                    double g = clip * number(t[k]->grad[i]);
                    m[k][i] = config.beta1 * m[k][i] + (1 - config.beta1) * g;
                    v[k][i] = config.beta2 * v[k][i] + (1 - config.beta2) * g * g;
                    double mean = m[k][i] / (1 - pow(config.beta1, step)), square = v[k][i] / (1 - pow(config.beta2, step));
                    if (k != 1) p[k][i] -= lr * config.weight_decay * p[k][i]; // matrices only
                    p[k][i] -= lr * mean / (sqrt(square) + 1e-8);
                    worst = fmax(worst, fabs(number(t[k]->data[i]) - p[k][i]));
                }
        }
        EXPECT(worst < (IN_DOUBLE ? 1e-13 : 3e-6), "clip %g, decay %g: off by %.3g", config.grad_clip, config.weight_decay, worst);
        EXPECT(worst_norm < 1e-12, "the returned norm is off by %.3g", worst_norm);
        EXPECT(optimizer->step == STEPS && fabs(p[0][0] - irregular(1, 0, 1)) > 1e-3, "%" PRId64 " steps, and W moved by %g",
                optimizer->step, p[0][0] - irregular(1, 0, 1));
        adamw_free(optimizer);
        for (int k = 0; k < TENSORS; k++) tensor_drop(t[k]);
    }
    EXPECT_NOTHING_LIVE();
}

TEST(a_gradient_that_is_not_finite_changes_nothing)
{
    Tensor *t[2] = { weights("W", 3, 5, 1, true), vector("b", 7, 2, true) };
    AdamW *optimizer = adamw_new(t, 2, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    set_grad(t[0], 1, 1), set_grad(t[1], 2, 1);
    adamw_step(optimizer, 0.1);
    real *W = copy_of(t[0]->data, 15), *b = copy_of(t[1]->data, 7), *m = copy_of(optimizer->m[0], 15);
    static const double bad[] = { (double)NAN, (double)INFINITY };
    for (int i = 0; i < 2; i++) {
        t[1]->grad[3] = (real)bad[i];
        double norm = adamw_step(optimizer, 0.1);
        EXPECT(!isfinite(norm), "the norm is %g", norm);
        EXPECT(same_bits(W, t[0]->data, 15) && same_bits(b, t[1]->data, 7) && same_bits(m, optimizer->m[0], 15) &&
                optimizer->step == 1, "a gradient of %g changed something", bad[i]);
    }
    free(W), free(b), free(m);
    adamw_free(optimizer);
    tensor_drop(t[0]), tensor_drop(t[1]);
    EXPECT_NOTHING_LIVE();
}

TEST(freezing_in_mid_training_stops_a_weight_at_once)
{
    Transformer *model = model_new(FULL, 0, false);
    Tape *tape = tape_new();
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    Tensor *W = model->blocks[1].linear[C_FC].weight;
    uint64_t start = transformer_hash(model);
    for (int step = 0; step < 3; step++) model_backward(model, tape), adamw_step(optimizer, 0.01), zero_grads(model);
    EXPECT(transformer_hash(model) != start, "training changed nothing");
    int64_t moments = ledger.live[MEMORY_MOMENTS];
    model_backward(model, tape); // a gradient is there when the flag goes
    W->requires_grad = false;
    real *frozen = copy_of(W->data, W->size), *other = copy_of(model->wte->data, model->wte->size);
    adamw_step(optimizer, 0.01); // weight decay and the moments would both move it
    zero_grads(model);
    EXPECT(ledger.live[MEMORY_MOMENTS] == moments - 2 * bytes(W->size), "its moments are still there");
    for (int step = 0; step < 3; step++) {
        model_backward(model, tape);
        EXPECT(W->grad == NULL, "it got a gradient");
        adamw_step(optimizer, 0.01);
        zero_grads(model);
    }
    EXPECT(same_bits(frozen, W->data, W->size), "a frozen weight moved");
    EXPECT(!same_bits(other, model->wte->data, model->wte->size), "the others stopped too");
    free(frozen), free(other);

    model_backward(model, tape); // freezing all of the base drops the gradients too
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] > 0, "no gradient to drop");
    transformer_train_base(model, false);
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == 0, "%" PRId64 " bytes of gradients of frozen weights",
            ledger.live[MEMORY_PARAMETER_GRADIENTS]);
    start = transformer_hash(model);
    double norm = adamw_step(optimizer, 0.01);
    EXPECT(norm == 0 && transformer_hash(model) == start && ledger.live[MEMORY_MOMENTS] == 0,
            "norm %g, %" PRId64 " bytes of moments", norm, ledger.live[MEMORY_MOMENTS]);
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
    EXPECT_NOTHING_LIVE();
}

// The optimizer still holds the adapter's list and moments when the adapter is gone.
TEST(an_optimizer_may_outlive_its_adapter)
{
    for (int order = 0; order < 3; order++) {
        Transformer *model = model_new(LORA, 0, false);
        Tape *tape = tape_new();
        AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
        model_backward(model, tape);
        adamw_step(optimizer, 0.01);
        if (order > 0) zero_grads(model); // else the gradients go with the adapter
        int64_t moments = ledger.live[MEMORY_MOMENTS];
        EXPECT(moments == 2 * bytes(transformer_trainable_size(model)), "%" PRId64 " bytes of moments", moments);
        if (order == 2) transformer_free(model); // all of it
        else transformer_remove_adapter(model, model->active);
        Tensor *stranger = weights("stranger", 12, 2, 9, true); // may lie where A was
        EXPECT(ledger.live[MEMORY_MOMENTS] == moments, "%" PRId64 " bytes of moments, of %" PRId64, ledger.live[MEMORY_MOMENTS], moments);
        adamw_free(optimizer);
        EXPECT(ledger.live[MEMORY_MOMENTS] == 0 && ledger.live[MEMORY_ADAPTERS] == 0, "%" PRId64 " bytes of moments are left, %" PRId64 " of the adapter",
               ledger.live[MEMORY_MOMENTS], ledger.live[MEMORY_ADAPTERS]);
        EXPECT(stranger->data[23] == (real)irregular(9, 23, 1), "another tensor's numbers changed");
        tensor_drop(stranger);
        tape_free(tape);
        if (order < 2) transformer_free(model);
    }
    EXPECT_NOTHING_LIVE();
}

int main(void)
{
    parallel_set_threads(2);
    RUN(adamw_equals_its_formula);
    RUN(a_gradient_that_is_not_finite_changes_nothing);
    RUN(freezing_in_mid_training_stops_a_weight_at_once);
    RUN(an_optimizer_may_outlive_its_adapter);
    return test_summary();
}
