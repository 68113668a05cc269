// test_steps.c - one step of training, with good numbers and with bad ones.

#include "../io/machine.h"
#include "../io/text.h"
#include "../training.h"
#include "gradcheck.h"
#include "test.h"

enum { V = 11, T = 6, H = 2, C = 8, B = 2 };
static char error[256];

static double number(real x) { return (double)x; }

static Transformer *new_model(double dropout)
{
    Transformer *model = transformer_new((Config){ V, T, 2, H, C, dropout }, 5, error, sizeof error);
    if (model == NULL) printf("%s\n", error), exit(1);
    for (int i = 0; i < model->parameter_count; i++)
        for (int64_t j = 0; j < model->parameters[i]->size; j++) model->parameters[i]->data[j] += (real)irregular(200 + (uint64_t)i, j, 0.3);
    return model;
}

static Text new_text(int count) // its tokens are the caller's to free
{
    int *tokens = malloc((size_t)count * sizeof *tokens);
    for (int i = 0; i < count; i++) tokens[i] = (int)(random_bits(1, (uint64_t)i) % V);
    return (Text){ .tokens = tokens, .count = count, .train_count = count * 9 / 10 };
}

TEST(a_step_is_forward_backward_and_update)
{
    Transformer *model = new_model(0.25), *twin = new_model(0.25);
    const AdamWConfig config = { 0.9, 0.99, 0.1, 0.5 };
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, config), *other = adamw_new(twin->parameters, twin->parameter_count, config);
    Tape *tape = tape_new(), *second = tape_new();
    Text text = new_text(200);
    int ids[B * T], targets[B * T];
    for (int step = 0; step < 3; step++) {
        text_batch(&text, B, T, 7, step, ids, targets);
        StepResult result = training_step(model, tape, optimizer, ids, targets, B, T, 7, step, 0.01);
        tape_clear(second);
        second->dropout_seed = random_bits(8, (uint64_t)step);
        Tensor *loss = transformer_loss(twin, second, ids, targets, B, T);
        double value = number(loss->data[0]);
        backward(second, loss);
        double norm = adamw_step(other, 0.01);
        zero_grads(twin);
        EXPECT(result.loss == value && result.gradient_norm == norm && norm > 0.5, "step %d: loss %.9g, not %.9g; norm %.9g, not %.9g", step, result.loss, value, result.gradient_norm, norm);
        for (int i = 0; i < model->parameter_count; i++) {
            EXPECT(model->parameters[i]->grad == NULL, "step %d: %s still has a gradient", step, model->parameters[i]->name);
            EXPECT(same_bits(model->parameters[i]->data, twin->parameters[i]->data, twin->parameters[i]->size), "step %d: %s has other bits", step, model->parameters[i]->name);
        }
    }
    adamw_free(optimizer), adamw_free(other);
    tape_free(tape), tape_free(second);
    transformer_free(model), transformer_free(twin);
    free(text.tokens);
    scratch_release();
    EXPECT(ledger.total == 0, "%" PRId64 " bytes are left", ledger.total);
}

TEST(a_step_with_a_bad_number_changes_nothing_and_names_it)
{
    Transformer *model = new_model(0);
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    Tape *tape = tape_new();
    Text text = new_text(200);
    int ids[B * T], targets[B * T];
    char where[200] = "untouched";
    text_batch(&text, B, T, 7, 0, ids, targets);
    training_step(model, tape, optimizer, ids, targets, B, T, 7, 0, 0.01);
    EXPECT(!find_bad_number(model, where, sizeof where) && strcmp(where, "untouched") == 0, "all is finite, and it says: %s", where);
    Tensor *bad = model->blocks[1].linear[C_FC].bias;
    real before = bad->data[3];
    uint64_t good = transformer_hash(model);
    bad->data[3] = (real)INFINITY;
    uint64_t hash = transformer_hash(model);
    text_batch(&text, B, T, 7, 1, ids, targets);
    StepResult result = training_step(model, tape, optimizer, ids, targets, B, T, 7, 1, 0.01);
    EXPECT(!isfinite(result.loss) && !isfinite(result.gradient_norm) && transformer_hash(model) == hash && optimizer->step == 1, "loss %g, norm %g, step %" PRId64 ": the weights have moved", result.loss, result.gradient_norm, optimizer->step);
    EXPECT(find_bad_number(model, where, sizeof where) && strcmp(where, "the weight transformer.h.1.mlp.c_fc.bias[3] is inf") == 0, "it says: %s", where);
    bad->data[3] = before;
    EXPECT(transformer_hash(model) == good && find_bad_number(model, where, sizeof where) && strncmp(where, "the gradient of transformer.", 28) == 0, "it says: %s", where);
    zero_grads(model);
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
    free(text.tokens);
}

TEST(the_resident_peak_grows)
{
    int64_t before = resident_peak();
    size_t size = 64 << 20;
    char *much = malloc(size);
    if (much != NULL)
        for (size_t i = 0; i < size; i += 1024) ((volatile char *)much)[i] = 1;
    EXPECT(before == 0 || resident_peak() >= before + (32 << 20), "%lld bytes, then %lld", (long long)before, (long long)resident_peak());
    free(much);
}

int main(void)
{
    RUN(a_step_is_forward_backward_and_update);
    RUN(a_step_with_a_bad_number_changes_nothing_and_names_it);
    RUN(the_resident_peak_grows);
    return test_summary();
}
