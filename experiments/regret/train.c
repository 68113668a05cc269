// train.c - one training of one way; see regret.h.

#include "regret.h"

#include "io/corpus.h"

#include <stdlib.h>

Bench bench_open(uint64_t seed)
{
    Bench b = { .tales = open_text("builtin:tales", CHARACTERS, REACH), .pirate = open_text("builtin:pirate", CHARACTERS, REACH),
                .seed = seed };
    b.model = new_model((Config){ b.tales.vocabulary.size, REACH, BLOCKS, 2, WIDTH, 0 }, seed);
    train(b.model, &b.tales, &(Training){ .B = 4, .schedule = { 5e-3, 5e-4, 0, BASE_STEPS }, .seed = seed });
    b.base_old = evaluate_validation(b.model, &b.tales);
    b.base_loss = evaluate_validation(b.model, &b.pirate);
    b.base = copy_base(b.model);
    return b;
}

void bench_close(Bench *b)
{
    restore_base(b->model, b->base);
    transformer_free(b->model);
    text_free(&b->tales);
    text_free(&b->pirate);
}

static void back_to_base(Bench *b)
{
    restore_base(b->model, b->base);
    b->base = copy_base(b->model);
}

static double validation(Learner *l, const Text *text)
{
    return learner_loss(l, text->tokens + text->train_count, text->count - text->train_count);
}

int *knee_windows(const Bench *b, const Way *way, double *nats)
{
    int T = way->T, count = way->x * T, *ids = allocate(2 * (size_t)count, sizeof *ids, "the windows"), *targets = ids + count;
    enum { LETTERS = 16 };
    *nats = 0;
    if (way->random) { // 16 letters, each drawn with the same chance
        const Vocabulary *v = &b->pirate.vocabulary;
        int a = 0;
        while (v->code_point[a] != 'a') a++;
        for (int w = 0; w < way->x; w++)
            for (int t = 0; t <= T; t++) {
                int token = a + (int)(random_bits(b->seed ^ 0x6b6e6565, (uint64_t)(w * (T + 1) + t)) % LETTERS);
                if (t < T) ids[w * T + t] = token;
                if (t > 0) targets[w * T + t - 1] = token;
            }
        *nats = count * log(LETTERS);
    } else { // the pirate's text from its beginning; corpus.h knows what a character costs its writer, on average
        memcpy(ids, b->pirate.tokens, (size_t)count * sizeof *ids);
        memcpy(targets, b->pirate.tokens + 1, (size_t)count * sizeof *ids);
        *nats = count * b->pirate.train_floor;
    }
    return ids;
}

// The mean loss over all of the knee's windows.
static double loss_of_windows(const Transformer *model, const int *ids, const int *targets, int count, int T)
{
    double sum = 0;
    for (int w = 0; w < count; w += 8) {
        Tensor *loss = transformer_loss(model, NULL, ids + w * T, targets + w * T, 8, T);
        sum += 8 * (double)loss->data[0];
        tensor_drop(loss);
    }
    return sum / count;
}

static Outcome outcome_now(Bench *b, Learner *l)
{
    return (Outcome){ validation(l, &b->pirate), validation(l, &b->tales), learner_numbers(l) };
}

static Outcome train_on_windows(Bench *b, const Way *way, Learner *l, double rate)
{
    double nats;
    int *ids = knee_windows(b, way, &nats), *targets = ids + way->x * way->T;
    for (int step = 0; step < way->steps; step++) {
        int first = step * way->B % way->x * way->T;
        // down to a twentieth: what stays unlearned is then what does not fit, not what the last step shook out
        double now = schedule_rate(&(Schedule){ rate, rate / 20, 0, way->steps }, step);
        learner_step(l, ids + first, targets + first, way->B, way->T, now);
    }
    Outcome o = { loss_of_windows(b->model, ids, targets, way->x, way->T), nats, learner_numbers(l) };
    free(ids);
    return o;
}

Outcome train_way(Bench *b, const Way *way, double rate, Trace *trace, void *context)
{
    Learner l = learner_begin(b->model, way, b->seed);
    Outcome o;
    if (strcmp(way->claim, "knee") == 0) o = train_on_windows(b, way, &l, rate);
    else {
        int size = way->B * way->T, *batch = allocate(2 * (size_t)size, sizeof *batch, "a batch");
        for (int step = 0; step < way->steps; step++) {
            text_batch(&b->pirate, way->B, way->T, b->seed, step, batch, batch + size);
            learner_step(&l, batch, batch + size, way->B, way->T, rate);
            bool shown = (step + 1) % 25 == 0;
            if (trace != NULL && shown) trace(context, step + 1, outcome_now(b, &l));
        }
        free(batch);
        o = outcome_now(b, &l);
    }
    learner_end(&l);
    back_to_base(b);
    return o;
}
