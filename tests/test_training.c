// test_training.c - the schedule, the evaluation, and the floor that no honest model comes below.

#include "adapters.h"
#include "generate.h"
#include "io/evaluation.h"
#include "io/machine.h"
#include "memory.h"
#include "training.h"

#include "child.h"
#include "test.h"

#include <stdlib.h>

static char error[256];

static Transformer *model_of(int V, int T, int layers, int width)
{
    Transformer *model = transformer_new((Config){ V, T, layers, 2, width, 0 }, 1337, error, sizeof error);
    if (model == NULL) { printf("%s\n", error); exit(1); }
    return model;
}

// nanoGPT's get_lr: linear warm-up, cosine, then flat.
TEST(schedule)
{
    Schedule s = { 1e-3, 1e-4, 100, 2000 };
    EXPECT(fabs(schedule_rate(&s, 0) - 1e-3 / 101) < 1e-12, "%g", schedule_rate(&s, 0));
    EXPECT(fabs(schedule_rate(&s, 99) - 1e-3 * 100 / 101) < 1e-12, "%g", schedule_rate(&s, 99));
    EXPECT(fabs(schedule_rate(&s, 100) - 1e-3) < 1e-12, "%g", schedule_rate(&s, 100));
    EXPECT(fabs(schedule_rate(&s, 1050) - 5.5e-4) < 1e-12, "half-way down: %g", schedule_rate(&s, 1050));
    EXPECT(fabs(schedule_rate(&s, 575) - (1e-4 + 0.5 * (1 + sqrt(0.5)) * 9e-4)) < 1e-12, "a quarter down: %g", schedule_rate(&s, 575));
    EXPECT(schedule_rate(&s, 2000) == 1e-4 && schedule_rate(&s, 999999) == 1e-4, "%g", schedule_rate(&s, 2000));
}

// nanoGPT's get_lr once more, as it stands there.
static double nanogpt_rate(const Schedule *s, int64_t it)
{
    if (it < s->warmup_iters) return s->learning_rate * (double)(it + 1) / (double)(s->warmup_iters + 1);
    if (it > s->max_iters) return s->min_lr;
    double ratio = (double)(it - s->warmup_iters) / (double)(s->max_iters - s->warmup_iters);
    return s->min_lr + 0.5 * (1.0 + cos(acos(-1) * ratio)) * (s->learning_rate - s->min_lr);
}

// Every step of short schedules: no warm-up, one step of it, nothing but it; one step in all; rates that do not fall.
TEST(the_schedule_at_its_edges)
{
    for (int64_t warmup = 0; warmup <= 5; warmup++)
        for (int64_t most = 1; most <= 7; most++)
            for (int form = 0; form < 3; form++) {
                const double least = form == 0 ? 1e-4 : form == 1 ? 0 : 1e-3;
                const Schedule s = { 1e-3, least, warmup, most };
                for (int64_t step = 0; step <= most + 2; step++) {
                    const double rate = schedule_rate(&s, step);
                    double expected = step < warmup || step < most ? nanogpt_rate(&s, step) : least; // at most == warmup nanoGPT divides 0 by 0
                    EXPECT(fabs(rate - expected) < 1e-15, "warm-up %" PRId64 " of %" PRId64 ", step %" PRId64 ": %.9g, not %.9g", warmup, most, step, rate, expected);
                    EXPECT(rate >= 0 && rate <= 1e-3 && (step >= warmup || rate < 1e-3), "warm-up %" PRId64 " of %" PRId64 ", step %" PRId64 ": %g", warmup, most, step, rate);
                }
                if (warmup < most) EXPECT(schedule_rate(&s, warmup) == 1e-3, "the first step after the warm-up of %" PRId64 " has not the full rate", warmup);
                if (warmup < most) EXPECT(schedule_rate(&s, most - 1) > least || form == 2, "the last of %" PRId64 " steps has the least rate already", most);
            }
}

TEST(medians)
{
    double odd[] = { 9, 1, 5 }, even[] = { 4, 1, 3, 2 };
    EXPECT(median(odd, 3) == 5, "%g", odd[1]);
    EXPECT(median(even, 4) == 3, "%g", even[2]);
}

// By hand: each token but the first once, with the context of its own window.
TEST(each_target_once)
{
    enum { V = 7, T = 5 };
    Transformer *model = model_of(V, T, 1, 8);
    int tokens[1 + 17 * T + 3];
    int64_t counts[] = { 2, T, T + 1, T + 2, sizeof tokens / sizeof *tokens };
    for (int i = 0; i < (int)(sizeof tokens / sizeof *tokens); i++) tokens[i] = (int)(random_bits(3, (uint64_t)i) % V);
    Cache cache = cache_new(model);
    for (int c = 0; c < 5; c++) {
        double sum = 0;
        for (int64_t at = 0; at + 1 < counts[c]; at++) {
            double logits[V], total = 0;
            if (at % T == 0) cache.count = 0;
            Tensor *next = transformer_next(model, &cache, tokens + at, 1);
            for (int v = 0; v < V; v++) total += exp(logits[v] = (double)next->data[v]);
            tensor_drop(next);
            sum += log(total) - logits[tokens[at + 1]];
        }
        double mean = evaluate_all(model, tokens, counts[c]);
        EXPECT(fabs(mean - sum / (double)(counts[c] - 1)) < 1e-5, "%" PRId64 " tokens: %.7f, by hand %.7f", counts[c], mean, sum / (double)(counts[c] - 1));
    }
    cache_free(&cache);
    transformer_free(model);
}

typedef struct Told { int64_t at[10]; int count, enough; } Told;
static bool told(void *context, int64_t done)
{
    Told *t = context;
    if (t->count < 10) t->at[t->count++] = done;
    return t->count != t->enough;
}

// Of a long text windows are taken, as far apart as they can be; who watches is told how far it is, and may have enough.
TEST(evenly_spaced_windows)
{
    enum { V = 7, T = 5, COUNT = 1 + 100 * T + 3 };
    Transformer *model = model_of(V, T, 1, 8);
    int tokens[COUNT];
    for (int i = 0; i < COUNT; i++) tokens[i] = (int)(random_bits(3, (uint64_t)i) % V);
    for (int windows = 1; windows <= 99; windows += 14) {
        double sum = 0;
        for (int k = 0; k < windows; k++) sum += evaluate_all(model, tokens + k * 100 / windows * T, T + 1);
        double taken = evaluate_most(model, tokens, COUNT, windows * T + 2, NULL, NULL);
        EXPECT(fabs(taken - sum / windows) < 1e-5, "%d windows: %.7f, not %.7f", windows, taken, sum / windows);
    }
    Told all = { .enough = -1 }, some = { .enough = -1 }, few = { .enough = 2 };
    EXPECT(evaluate_most(model, tokens, COUNT, COUNT, told, &all) == evaluate_all(model, tokens, COUNT), "all of it");
    EXPECT(all.count == 8 && all.at[0] == 80 && all.at[6] == 500 && all.at[7] == COUNT - 1, "%d times, %" PRId64 ", %" PRId64, all.count, all.at[0], all.at[7]);
    evaluate_most(model, tokens, COUNT, 203, told, &some);
    EXPECT(some.count == 3 && some.at[2] == 200, "%d times, %" PRId64, some.count, some.at[2]);
    EXPECT(isnan(evaluate_most(model, tokens, COUNT, COUNT, told, &few)) && few.count == 2, "%d times", few.count);
    transformer_free(model);
}

// Where there is one window, or two, the estimate is of these.
TEST(an_estimate_is_of_windows_of_the_tokens)
{
    enum { V = 7, T = 5 };
    Transformer *model = model_of(V, T, 1, 8);
    const int tokens[T + 2] = { 3, 1, 4, 1, 5, 2, 6 };
    double first = evaluate_all(model, tokens, T + 1), second = evaluate_all(model, tokens + 1, T + 1);
    double one = evaluate_quickly(model, tokens, T + 1, 3, 3), two = evaluate_quickly(model, tokens, T + 2, 3, 3);
    EXPECT(fabs(one - first) < 1e-6, "one window: %.7f, not %.7f", one, first);
    EXPECT(two > fmin(first, second) && two < fmax(first, second), "two windows of %.7f and %.7f: %.7f", first, second, two);
    EXPECT(two == evaluate_quickly(model, tokens, T + 2, 3, 3), "a second estimate is another");
    transformer_free(model);
}

static double loss_of(const Transformer *model, const int *ids, const int *targets, int B, int T)
{
    Tensor *loss = transformer_loss(model, NULL, ids, targets, B, T);
    double value = (double)loss->data[0];
    tensor_drop(loss);
    return value;
}

// Twenty batches of B windows, the n-th of which begins where the n-th number of seed 1 says, anywhere where it and the target
// after it fit: one window at a time.
static double estimate_by_windows(const Transformer *model, const int *tokens, int64_t count, int B)
{
    const int T = model->config.block_size;
    double sum = 0;
    for (int n = 0; n < 20 * B; n++) {
        const int *window = tokens + random_bits(1, (uint64_t)n) % (uint64_t)(count - T);
        sum += loss_of(model, window, window + 1, 1, T);
    }
    return sum / (20 * B);
}

TEST(an_estimate_is_the_mean_of_its_windows)
{
    enum { V = 7, T = 5, COUNT = 90 };
    Transformer *model = model_of(V, T, 1, 8);
    for (int i = 0; i < model->base_count; i++) fill_normal(model->parameters[i], 0.8, (uint64_t)i); // so that windows differ
    int tokens[COUNT + T];
    for (int i = 0; i < COUNT + T; i++) tokens[i] = i < COUNT ? (int)(random_bits(4, (uint64_t)i) % V) : -1; // what lies behind is no id
    for (int64_t count = T + 1; count <= COUNT; count += count < T + 5 ? 1 : 20)
        for (int B = 1; B <= 7; B += 3) {
            double estimate = evaluate_quickly(model, tokens, count, B, 1 + (B + (int)count) % B), expected = estimate_by_windows(model, tokens, count, B);
            EXPECT(fabs(estimate - expected) < 1e-5, "%" PRId64 " tokens, batches of %d: %.7f, not %.7f", count, B, estimate, expected);
        }
    transformer_free(model);
}

// Of a text whose two parts are not alike: each function looks at its own part.
TEST(each_evaluation_has_its_part_of_the_text)
{
    enum { V = 7, T = 5, COUNT = 120, TRAIN = 90 };
    Transformer *model = model_of(V, T, 1, 8);
    for (int i = 0; i < model->base_count; i++) fill_normal(model->parameters[i], 0.8, (uint64_t)i);
    int tokens[COUNT];
    for (int i = 0; i < COUNT; i++) tokens[i] = (int)(random_bits(4, (uint64_t)i) % (i < TRAIN ? 3 : V));
    Text text = { .tokens = tokens, .count = COUNT, .train_count = TRAIN };
    for (int short_ = 0; short_ < 2; short_++) { // the training text longer than the validation text, and shorter
        if (short_) text.train_count = 50;
        const int64_t rest = text.count - text.train_count, seen = rest < text.train_count ? rest : text.train_count;
        double validation = 0, training = 0;
        for (int64_t at = 0; at + 1 < rest; at += T) {
            int64_t length = rest - 1 - at < T ? rest - 1 - at : T;
            const int *from = tokens + text.train_count + at;
            validation += loss_of(model, from, from + 1, 1, (int)length) * (double)length;
        }
        for (int64_t at = 0; at + 1 < seen; at += T) {
            int64_t length = seen - 1 - at < T ? seen - 1 - at : T;
            const int *from = tokens + text.train_count - seen + at; // its last tokens, as many as are validated
            training += loss_of(model, from, from + 1, 1, (int)length) * (double)length;
        }
        validation /= (double)(rest - 1), training /= (double)(seen - 1);
        EXPECT(fabs(evaluate_validation(model, &text) - validation) < 1e-5, "validation: %.7f, not %.7f", evaluate_validation(model, &text), validation);
        EXPECT(fabs(evaluate_training(model, &text) - training) < 1e-5, "training: %.7f, not %.7f", evaluate_training(model, &text), training);
        double estimate = estimate_by_windows(model, tokens + text.train_count, rest, 4);
        EXPECT(fabs(estimate_validation(model, &text, 4, 4) - estimate) < 1e-5, "the estimate: %.7f, not %.7f", estimate_validation(model, &text, 4, 4), estimate);
    }
    transformer_free(model);
}

// ------------------------------------------------------------------------------------------------------------ one step, one update

// Dropout depends on the seed and on the step; without it neither counts.
TEST(a_step_drops_by_seed_and_number)
{
    enum { V = 7, T = 5, B = 2 };
    int tokens[B * T + 1];
    for (int i = 0; i <= B * T; i++) tokens[i] = i * 5 % V;
    static const struct { uint64_t seed; int64_t step; } runs[] = { { 3, 8 }, { 3, 8 }, { 4, 8 }, { 3, 9 }, { 8, 3 } };
    for (int dropout = 0; dropout < 2; dropout++) {
        double loss[5];
        for (int k = 0; k < 5; k++) {
            Transformer *model = transformer_new((Config){ V, T, 1, 2, 8, dropout ? 0.4 : 0 }, 5, error, sizeof error);
            for (int i = 0; i < model->base_count; i++) fill_normal(model->parameters[i], 0.8, (uint64_t)i);
            AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });
            Tape *tape = tape_new();
            loss[k] = training_step(model, tape, optimizer, tokens, tokens + 1, B, T, runs[k].seed, runs[k].step, 0.01).loss;
            for (int j = 0; j < k; j++)
                EXPECT((loss[j] == loss[k]) == (!dropout || (k == 1 && j == 0)), "dropout %d, seed %d and step %d: %.9g; seed %d and step %d: %.9g", dropout, (int)runs[j].seed,
                       (int)runs[j].step, loss[j], (int)runs[k].seed, (int)runs[k].step, loss[k]);
            adamw_free(optimizer);
            tape_free(tape);
            transformer_free(model);
        }
    }
}

static void train_with_lora_dropout(void)
{
    Transformer *model = model_of(7, 5, 1, 8);
    transformer_add_adapter(model, "a", (LoraConfig){ .r = 2, .alpha = 2, .targets = 1u << C_ATTN, .last_block = -1, .dropout = 0.05 }, 3, error, sizeof error);
    training_step(model, tape_new(), NULL, (int[]){ 1 }, (int[]){ 2 }, 1, 1, 1, 0, 0.01);
}

TEST(an_adapter_with_dropout_is_not_trained_without)
{
    int status = in_child(train_with_lora_dropout);
    EXPECT(status == -1 && strstr(said, "a was trained with lora_dropout 0.05"), "status %d, and it said: %s", status, said);
}

static Tensor *given(const char *name, int64_t size, const double *gradient)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE((int)size));
    t->requires_grad = true;
    t->grad = memory_take(MEMORY_PARAMETER_GRADIENTS, size);
    for (int64_t i = 0; i < size; i++) t->grad[i] = (real)gradient[i];
    return t;
}

// The first step moves a weight by lr g / (|g| + 1e-8), whatever the betas are: epsilon stands beside the root, and both averages
// are corrected. A gradient of 0 moves nothing.
TEST(the_first_step_of_adamw)
{
    static const double gradient[] = { 0, 1e-12, 1e-9, 1e-8, -1e-8, 1e-7, -1e-3, 1, -1000 };
    enum { COUNT = sizeof gradient / sizeof *gradient };
    for (int form = 0; form < 3; form++) {
        Tensor *t = given("b", COUNT, gradient);
        AdamW *optimizer = adamw_new(&t, 1, (AdamWConfig){ form == 0 ? 0.9 : 0.5, form == 2 ? 0.95 : 0.999, 0.1, 0 });
        adamw_step(optimizer, 0.01);
        for (int i = 0; i < COUNT; i++) {
            double expected = -0.01 * gradient[i] / (fabs(gradient[i]) + 1e-8);
            EXPECT(fabs((double)t->data[i] - expected) <= 1e-3 * fabs(expected), "form %d: a gradient of %g moves by %.9g, not %.9g", form, gradient[i], (double)t->data[i], expected);
        }
        EXPECT(t->data[0] == 0, "a gradient of 0 moves by %g", (double)t->data[0]);
        adamw_free(optimizer);
        tensor_drop(t);
    }
}

// Clipping begins above the limit, not at it, and looks at all gradients together.
TEST(clipping_begins_above_the_limit)
{
    static const struct { double limit, factor; } forms[] = { { 0, 1 }, { 1000, 1 }, { 13.001, 1 }, { 13, 1 }, { 12.9, 12.9 / 13 }, { 6.5, 0.5 }, { 0.013, 0.001 } };
    for (int f = 0; f < 7; f++) {
        Tensor *t[] = { given("a", 2, (double[]){ 3, -4 }), given("frozen", 1, (double[]){ 100 }), given("b", 1, (double[]){ 12 }) }; // 5 and 12: 13
        set_requires_grad(t[1], false);
        AdamW *optimizer = adamw_new(t, 3, (AdamWConfig){ 0.5, 0.75, 0, forms[f].limit });
        double norm = adamw_step(optimizer, 0.01);
        const double m[] = { 0.5 * 3 * forms[f].factor, 0.5 * -4 * forms[f].factor, 0.5 * 12 * forms[f].factor };
        EXPECT(fabs(norm - 13) < 1e-12, "the norm is %.12g, not 13", norm);
        for (int i = 0; i < 3; i++) {
            double ours = (double)(i < 2 ? optimizer->m[0][i] : optimizer->m[2][0]);
            EXPECT(forms[f].factor == 1 ? ours == m[i] : fabs(ours / m[i] - 1) < 1e-6, "limit %g: the average of gradient %d is %.9g, not %.9g", forms[f].limit, i, ours, m[i]);
        }
        EXPECT(optimizer->m[1] == NULL && optimizer->v[1] == NULL, "moments of what is frozen");
        adamw_free(optimizer);
        for (int i = 0; i < 3; i++) tensor_drop(t[i]);
    }
}

// Of a model with an adapter: what decays without any gradient is each matrix, and no bias and no gain; what is frozen stays.
TEST(what_decays)
{
    Transformer *model = model_of(7, 5, 2, 8);
    transformer_add_adapter(model, "a", (LoraConfig){ .r = 2, .alpha = 2, .targets = 15, .last_block = -1 }, 3, error, sizeof error);
    set_requires_grad(model->blocks[1].linear[C_FC].weight, false);
    for (int i = 0; i < model->parameter_count; i++) {
        Tensor *t = model->parameters[i];
        for (int64_t j = 0; j < t->size; j++) t->data[j] = 1;
        if (!t->requires_grad) continue;
        t->grad = memory_take(MEMORY_PARAMETER_GRADIENTS, t->size);
        memset(t->grad, 0, (size_t)t->size * sizeof(real));
    }
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.5, 1 });
    double norm = adamw_step(optimizer, 0.125);
    EXPECT(norm == 0, "the norm of zeros is %g", norm);
    int decayed = 0;
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        const char *dot = strrchr(t->name, '.');
        bool matrix = (strcmp(dot, ".weight") == 0 && !strstr(t->name, "ln_")) || strcmp(dot, ".A") == 0 || strcmp(dot, ".B") == 0;
        double expected = matrix && t->requires_grad ? 1 - 0.125 * 0.5 : 1;
        int64_t others = 0;
        for (int64_t j = 0; j < t->size; j++) others += (double)t->data[j] != expected;
        EXPECT(others == 0, "%s: %" PRId64 " of its numbers are not %g", t->name, others, expected);
        decayed += expected < 1;
    }
    EXPECT(decayed == 2 + 2 * 4 - 1 + 2 * 4 * 2, "%d tensors decay", decayed);
    adamw_free(optimizer);
    transformer_free(model);
}

// A tensor that begins to train late begins with averages of 0, whatever their buffers held before; the optimizer's count goes on.
TEST(who_trains_late_begins_with_nothing)
{
    enum { SIZE = 50 };
    double gradient[SIZE];
    for (int i = 0; i < SIZE; i++) gradient[i] = 0.25 * (i % 7 - 3) + 0.1;
    Tensor *t[] = { given("early", SIZE, gradient), given("late", SIZE, gradient) };
    set_requires_grad(t[1], false);
    AdamW *optimizer = adamw_new(t, 2, (AdamWConfig){ 0.5, 0.75, 0, 0 });
    adamw_step(optimizer, 0.01), adamw_step(optimizer, 0.01);
    set_requires_grad(t[0], false);
    adamw_step(optimizer, 0.01); // its averages go, and their buffers wait for the next
    t[1]->requires_grad = true;
    t[1]->grad = memory_take(MEMORY_PARAMETER_GRADIENTS, SIZE);
    for (int i = 0; i < SIZE; i++) t[1]->grad[i] = (real)gradient[i];
    adamw_step(optimizer, 0.01);
    double worst = 0;
    for (int i = 0; i < SIZE; i++) {
        double mean = 0.5 * gradient[i] / (1 - pow(0.5, 4)), square = 0.25 * gradient[i] * gradient[i] / (1 - pow(0.75, 4));
        worst = fmax(worst, fabs((double)t[1]->data[i] + 0.01 * mean / (sqrt(square) + 1e-8)));
    }
    EXPECT(worst < 1e-7 && optimizer->step == 4, "its first step is off by %.3g; the count is %" PRId64, worst, optimizer->step);
    adamw_free(optimizer);
    tensor_drop(t[0]), tensor_drop(t[1]);
}

// What a state file holds of an optimizer is enough: another one, with the same averages and count, goes on with the same bits.
TEST(an_update_goes_on_from_its_averages)
{
    enum { SIZE = 50, STEPS = 7, STOP = 3 };
    const double gradient[SIZE] = { 0 };
    Tensor *t[2];
    AdamW *optimizer[2];
    for (int k = 0; k < 2; k++) t[k] = given("b", SIZE, gradient);
    for (int k = 0; k < 2; k++) optimizer[k] = adamw_new(&t[k], 1, (AdamWConfig){ 0.9, 0.99, 0.1, 0.5 });
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < SIZE; i++) t[0]->grad[i] = t[1]->grad[i] = (real)(random_uniform((uint64_t)step, (uint64_t)i) - 0.4);
        if (step == STOP) { // the second one begins here
            memcpy(t[1]->data, t[0]->data, SIZE * sizeof(real));
            optimizer[1]->m[0] = memory_take(MEMORY_MOMENTS, SIZE), optimizer[1]->v[0] = memory_take(MEMORY_MOMENTS, SIZE);
            memcpy(optimizer[1]->m[0], optimizer[0]->m[0], SIZE * sizeof(real)), memcpy(optimizer[1]->v[0], optimizer[0]->v[0], SIZE * sizeof(real));
            optimizer[1]->step = optimizer[0]->step;
        }
        adamw_step(optimizer[0], 0.01);
        if (step >= STOP) adamw_step(optimizer[1], 0.01);
        if (step >= STOP) EXPECT(memcmp(t[0]->data, t[1]->data, SIZE * sizeof(real)) == 0, "step %d: other bits", step);
    }
    EXPECT(optimizer[1]->step == STEPS, "%" PRId64 " steps", optimizer[1]->step);
    for (int k = 0; k < 2; k++) adamw_free(optimizer[k]), tensor_drop(t[k]);
}

// Trains on windows of the text; if `leak`, each position is shown the character that it is to predict.
static double trained_loss(const Text *text, bool leak, int steps)
{
    enum { B = 16, T = 32 };
    Transformer *model = model_of(text->vocabulary.size, T, 1, 48);
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1.0 });
    Tape *tape = tape_new();
    int ids[B * T], targets[B * T];
    for (int step = 0; step < steps; step++) {
        text_batch(text, B, T, 1, step, ids, targets);
        tape_clear(tape);
        backward(tape, transformer_loss(model, tape, leak ? targets : ids, targets, B, T));
        adamw_step(optimizer, 5e-3);
        zero_grads(model);
    }
    double sum = 0;
    const int *tokens = text->tokens + text->train_count;
    int64_t windows = (text->count - text->train_count - 1) / T;
    for (int64_t w = 0; w < windows; w++) {
        Tensor *loss = transformer_loss(model, NULL, tokens + w * T + leak, tokens + w * T + 1, 1, T);
        sum += (double)loss->data[0];
        tensor_drop(loss);
    }
    if (!leak) EXPECT(fabs(sum / (double)windows - evaluate_validation(model, text)) < 0.05, "%g %g", sum / (double)windows, evaluate_validation(model, text));
    tape_free(tape);
    adamw_free(optimizer);
    transformer_free(model);
    return sum / (double)windows;
}

// The causal mask's test from outside: a model that could look ahead would learn to, and come below the floor. One that is shown
// the answer does, so the rule can fail.
TEST(nothing_honest_comes_below_the_floor)
{
    Text text;
    EXPECT(text_read("builtin:tales", 60000, NULL, 32, &text, error, sizeof error), "%s", error);
    double targets = (double)(text.count - text.train_count - 1);
    EXPECT(!validation_leaks(&text, text.val_floor) && !validation_leaks(&text, text.val_floor - 19 / targets), "within 20 nats");
    EXPECT(validation_leaks(&text, text.val_floor - 21 / targets), "more than 20 nats");
    double honest = trained_loss(&text, false, 300), shown = trained_loss(&text, true, 300);
    EXPECT(honest > text.val_floor && honest < 1.5 && !validation_leaks(&text, honest), "honest %.3f, floor %.3f", honest, text.val_floor);
    EXPECT(validation_leaks(&text, shown), "shown the answers %.3f, floor %.3f", shown, text.val_floor);
    text.val_floor = (double)NAN;
    EXPECT(!validation_leaks(&text, 0), "a file has no floor");
    text_free(&text);
}

// Sampling is a function of the seed, at temperature 0 of nothing. A context of 6 goes on with the last 3 when it is full.
TEST(generated_tokens)
{
    enum { V = 11, T = 6 };
    Transformer *model = model_of(V, T, 1, 8);
    for (int i = 0; i < model->base_count; i++) fill_normal(model->parameters[i], 1.5, (uint64_t)i);
    int a[40] = { 1, 2, 3 }, b[40] = { 1, 2, 3 }, c[40] = { 1, 2, 3 };
    generate(model, a, 3, 37, 1.0, 0, 5);
    generate(model, b, 3, 37, 1.0, 0, 5);
    generate(model, c, 3, 37, 1.0, 0, 6);
    EXPECT(memcmp(a, b, sizeof a) == 0, "the same seed");
    EXPECT(memcmp(a, c, sizeof a) != 0, "another seed");
    int longer[40] = { 9, 9, 9, 9, 9, 9, 9 }, shorter[40];
    for (int i = 0; i < T; i++) longer[7 + i] = shorter[i] = i;
    generate(model, longer, 7 + T, 20, 0, 0, 1);
    generate(model, shorter, T, 20, 0, 0, 2);
    EXPECT(memcmp(longer + 7, shorter, (T + 20) * sizeof *shorter) == 0, "what lies more than a context back is not seen");

    static const int seen[] = { 1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5, 6, 3 };
    enum { STEPS = sizeof seen / sizeof *seen };
    int tokens[1 + STEPS] = { 7 };
    generate(model, tokens, 1, STEPS, 1.0, 0, 3);
    for (int end = 1; end <= STEPS; end++) {
        Tensor *logits = transformer_logits(model, NULL, tokens + end - seen[end - 1], 1, seen[end - 1]);
        int drawn = sample_token(logits->data + (seen[end - 1] - 1) * V, V, 1.0, 0, 3, (uint64_t)(end - 1));
        EXPECT(tokens[end] == drawn, "token %d is %d; drawn after the %d before it: %d", end, tokens[end], seen[end - 1], drawn);
        tensor_drop(logits);
    }
    transformer_free(model);
}

// Each token after the other, from the whole context each time: what the context is, and that the i-th new token is drawn by the
// i-th number. Contexts of odd and even length, of one; prompts shorter than, as long as, and longer than it.
static void generate_by_hand(const Transformer *model, int *tokens, int prompt, int length, double temperature, int top_k, uint64_t seed)
{
    const int V = model->config.vocab_size, longest = model->config.block_size;
    int start = prompt > longest ? prompt - longest : 0;
    for (int i = 0; i < length; i++) {
        int end = prompt + i;
        if (end - start > longest) start = end - (longest + 1) / 2; // full: its later half is kept
        Tensor *logits = transformer_logits(model, NULL, tokens + start, 1, end - start);
        tokens[end] = sample_token(logits->data + (int64_t)(end - start - 1) * V, V, temperature, top_k, seed, (uint64_t)i);
        tensor_drop(logits);
    }
}

TEST(generated_tokens_one_context_at_a_time)
{
    enum { V = 11, MOST = 80, NONE = -7 };
    for (int T = 1; T <= 8; T += T < 3 ? 1 : T == 3 ? 3 : 1) { // 1, 2, 3, 6, 7, 8
        Transformer *model = model_of(V, T, 2, 8);
        for (int i = 0; i < model->base_count; i++) fill_normal(model->parameters[i], 1.5, (uint64_t)i);
        const int prompts[] = { 1, T > 1 ? T - 1 : 1, T, T + 1, 2 * T + 3 };
        for (int form = 0; form < 5 * 3; form++) {
            const int prompt = prompts[form % 5], length = form == 0 ? 0 : form == 1 ? 1 : 3 * T + 2, top_k = form / 5 == 2 ? 3 : 0;
            const double temperature = form / 5 == 1 ? 0 : 1;
            int ours[MOST], expected[MOST];
            for (int i = 0; i < MOST; i++) ours[i] = expected[i] = i < prompt ? i * 4 % V : NONE;
            generate(model, ours, prompt, length, temperature, top_k, 21 + (uint64_t)form);
            generate_by_hand(model, expected, prompt, length, temperature, top_k, 21 + (uint64_t)form);
            int first = 0;
            while (first < MOST && ours[first] == expected[first]) first++;
            EXPECT(first == MOST, "context %d, prompt %d, %d tokens, temperature %g, top_k %d: token %d is %d, not %d", T, prompt, length, temperature, top_k, first, ours[first % MOST],
                   expected[first % MOST]);
            EXPECT(ours[prompt + length] == NONE, "more tokens than were asked for");
        }
        transformer_free(model);
    }
}

static int tokens_before, tokens_more;
static void read_too_many(void)
{
    static const int ids[20] = { 0 };
    Transformer *model = model_of(7, 5, 1, 8);
    Cache cache = cache_new(model);
    for (int i = 0; i < tokens_before; i++) tensor_drop(transformer_next(model, &cache, ids, 1));
    transformer_next(model, &cache, ids, tokens_more);
}

TEST(a_cache_has_room_for_one_context)
{
    static const struct { int before, more; const char *says; } forms[] = {
        { 0, 5, NULL }, { 4, 1, NULL }, { 2, 3, NULL },
        { 0, 6, "transformer_next: 6 tokens after 0, in a context of 5" }, { 5, 1, "transformer_next: 1 tokens after 5, in a context of 5" },
        { 3, 3, "transformer_next: 3 tokens after 3, in a context of 5" }, { 1, 0, "transformer_next: 0 tokens after 1, in a context of 5" },
    };
    for (int f = 0; f < 7; f++) {
        tokens_before = forms[f].before, tokens_more = forms[f].more;
        int status = in_child(read_too_many);
        EXPECT(forms[f].says ? status == -1 && strstr(said, forms[f].says) : status == 0, "%d tokens after %d: status %d, and it said: %s", tokens_more, tokens_before, status, said);
    }
}

TEST(an_adapter_has_a_name_and_a_rank_or_is_refused)
{
    Transformer *model = model_of(7, 5, 1, 8);
    for (int length = 60; length <= 66; length++) {
        char name[80] = "", full[MAX_NAME];
        memset(name, 'a', (size_t)length), name[length] = '\0';
        Adapter *adapter = transformer_add_adapter(model, name, (LoraConfig){ .r = 2, .alpha = 2, .targets = 1u << C_ATTN, .last_block = -1 }, 3, error, sizeof error);
        snprintf(full, sizeof full, "%s.h.0.attn.c_attn.A", name);
        if (length < 64) EXPECT(adapter && strcmp(adapter->name, name) == 0 && strcmp(adapter->lora[0].A->name, full) == 0, "a name of %d characters was refused or cut", length);
        else EXPECT(adapter == NULL && strstr(error, "there is room for 63"), "a name of %d characters: it said %s", length, error);
        if (length < 64) // whether it is the one in use or not
            for (int in_use = 0; in_use < 2; in_use++) {
                transformer_use_adapter(model, in_use ? adapter : NULL);
                Adapter *again = transformer_add_adapter(model, name, (LoraConfig){ .r = 2, .alpha = 2, .targets = 1u << C_ATTN, .last_block = -1 }, 3, error, sizeof error);
                EXPECT(again == NULL && strstr(error, "is already attached"), "two adapters of one name: %s", error);
            }
    }
    Adapter *wide = transformer_add_adapter(model, "wide", (LoraConfig){ .r = 65537, .alpha = 2, .targets = 1u << C_ATTN, .last_block = -1 }, 3, error, sizeof error);
    EXPECT(wide == NULL && strstr(error, "r is 65537; the largest is 65536"), "a rank of 65537: it said %s", error);
    transformer_free(model);
}

// What a character asks for beside the cache are rows of one token, always of the same sizes: not one more buffer for each token that
// was read, each a little larger, which nobody can use again.
TEST(sampling_takes_a_cache_and_a_few_rows)
{
    enum { V = 20, T = 256, LAYERS = 2, WIDTH = 64, LENGTH = 200 };
    Transformer *model = model_of(V, T, LAYERS, WIDTH);
    int tokens[1 + 2 * LENGTH] = { 3 };
    scratch_release();
    memory_release_pool();
    memory_reset_peaks();
    int64_t before = ledger.total, mallocs = ledger.mallocs;
    const int64_t cache = (int64_t)LAYERS * T * 2 * WIDTH, scratch = scratch_size(T, WIDTH / 2) * parallel_threads();
    const int64_t row = 4 * WIDTH, most = before + (cache + scratch + 12 * row) * (int64_t)sizeof(real);
    generate(model, tokens, 1, 10, 1.0, 0, 5);
    int64_t asked = ledger.mallocs - mallocs;
    generate(model, tokens, 1, LENGTH, 1.0, 0, 5);
    EXPECT(ledger.mallocs - mallocs == asked && asked < 24, "%" PRId64 " buffers for 10 characters, then %" PRId64 " more for %d", asked,
           ledger.mallocs - mallocs - asked, LENGTH);
    EXPECT(ledger.peak <= most && ledger.total + ledger.pool <= most, "at most %" PRId64 " bytes, %" PRId64 " with the pool: more than %" PRId64, ledger.peak,
           ledger.total + ledger.pool, most);
    generate(model, tokens, 1 + LENGTH, LENGTH, 1.0, 0, 5); // a prompt, and beyond the context: half of it is read at once
    int64_t half = before + (cache + scratch + T * 12 * row) * (int64_t)sizeof(real);
    EXPECT(ledger.total + ledger.pool <= half, "%" PRId64 " bytes with the pool: more than %" PRId64, ledger.total + ledger.pool, half);
    scratch_release();
    EXPECT(ledger.total == before, "%" PRId64 " bytes are left", ledger.total - before);
    transformer_free(model);
}

int main(void)
{
    RUN(schedule);
    RUN(the_schedule_at_its_edges);
    RUN(medians);
    RUN(each_target_once);
    RUN(evenly_spaced_windows);
    RUN(an_estimate_is_of_windows_of_the_tokens);
    RUN(an_estimate_is_the_mean_of_its_windows);
    RUN(each_evaluation_has_its_part_of_the_text);
    RUN(a_step_drops_by_seed_and_number);
    RUN(an_adapter_with_dropout_is_not_trained_without);
    RUN(the_first_step_of_adamw);
    RUN(clipping_begins_above_the_limit);
    RUN(what_decays);
    RUN(who_trains_late_begins_with_nothing);
    RUN(an_update_goes_on_from_its_averages);
    RUN(nothing_honest_comes_below_the_floor);
    RUN(generated_tokens);
    RUN(generated_tokens_one_context_at_a_time);
    RUN(a_cache_has_room_for_one_context);
    RUN(an_adapter_has_a_name_and_a_rank_or_is_refused);
    RUN(sampling_takes_a_cache_and_a_few_rows);
    return test_summary();
}
