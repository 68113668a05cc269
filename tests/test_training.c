// test_training.c - the schedule, the evaluation, and the floor that no honest model comes below.

#include "generate.h"
#include "io/evaluation.h"
#include "io/machine.h"
#include "memory.h"
#include "training.h"

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

// Where there is one window, or two, the estimate is of these.
TEST(an_estimate_is_of_windows_of_the_tokens)
{
    enum { V = 7, T = 5 };
    Transformer *model = model_of(V, T, 1, 8);
    const int tokens[T + 2] = { 3, 1, 4, 1, 5, 2, 6 };
    double first = evaluate_all(model, tokens, T + 1), second = evaluate_all(model, tokens + 1, T + 1);
    double one = evaluate_quickly(model, tokens, T + 1, 3), two = evaluate_quickly(model, tokens, T + 2, 3);
    EXPECT(fabs(one - first) < 1e-6, "one window: %.7f, not %.7f", one, first);
    EXPECT(two > fmin(first, second) && two < fmax(first, second), "two windows of %.7f and %.7f: %.7f", first, second, two);
    EXPECT(two == evaluate_quickly(model, tokens, T + 2, 3), "a second estimate is another");
    transformer_free(model);
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
    RUN(medians);
    RUN(each_target_once);
    RUN(an_estimate_is_of_windows_of_the_tokens);
    RUN(nothing_honest_comes_below_the_floor);
    RUN(generated_tokens);
    RUN(sampling_takes_a_cache_and_a_few_rows);
    return test_summary();
}
