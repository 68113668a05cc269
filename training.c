// training.c - see training.h. The schedule, the step, then evaluation.
//
// A step is the heart of every run, full or LoRA: a pass, which is forward and backward, and an update, which is the optimizer and
// an end to the gradients. That is training_step. In parts it is several passes and one update: training_step_in_parts, which
// train.c calls; with one part it gives the same bits.
//
// Read next: generate.h.

#include "training.h"

#include <stdlib.h>

double schedule_rate(const Schedule *s, int64_t step)
{
    if (step < s->warmup_iters) return s->learning_rate * (double)(step + 1) / (double)(s->warmup_iters + 1);
    if (step >= s->max_iters) return s->min_lr;
    double done = (double)(step - s->warmup_iters) / (double)(s->max_iters - s->warmup_iters);
    return s->min_lr + 0.5 * (1 + cos(3.141592653589793 * done)) * (s->learning_rate - s->min_lr);
}

// Forward and backward of one part of a batch, which counts by its share of the targets. Returns its share of the loss.
static double pass(Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T, uint64_t seed, int64_t step,
                   Part part)
{
    const Adapter *adapter = model->active;
    check(adapter == NULL || adapter->config.dropout == 0,
          "training_step: %s was trained with lora_dropout %g, which this engine does not compute; it can be used, "
          "not trained",
          adapter->name, adapter->config.dropout);
    Share windows = share(part, B, 1);
    int64_t count = windows.end - windows.begin, first = windows.begin * T;
    double weight = (double)count / B; // 1: the whole batch
    tape_clear(tape);
    uint64_t dropout = random_bits(seed + 1, (uint64_t)step);
    tape->dropout_seed = dropout + (uint64_t)part.index;
    Tensor *loss = transformer_loss(model, tape, ids + first, targets + first, (int)count, T);
    double value = weight * (double)loss->data[0];
    if (weight < 1) loss = replace(loss, op_scale(tape, loss, (real)weight));
    backward(tape, loss);
    return value;
}

// AdamW, and the gradients are freed; a number that is not finite stops it before the weights change.
static StepResult update(Transformer *model, AdamW *optimizer, double loss, double learning_rate, double start)
{
    StepResult result = { .loss = loss };
    result.gradient_norm = isfinite(result.loss) ? adamw_step(optimizer, learning_rate) : (double)NAN;
    if (isfinite(result.loss) && isfinite(result.gradient_norm)) zero_grads(model);
    result.seconds = seconds_now() - start;
    return result;
}

StepResult training_step(Transformer *model, Tape *tape, AdamW *optimizer, const int *ids, const int *targets, int B, int T,
                         uint64_t seed, int64_t step, double learning_rate)
{
    double start = seconds_now();
    double loss = pass(model, tape, ids, targets, B, T, seed, step, WHOLE);
    return update(model, optimizer, loss, learning_rate, start);
}

// The gradients so far are put aside, so that the next part's are apart from them ...
static void put_aside(Transformer *model, real **sums)
{
    for (int i = 0; i < model->parameter_count; i++) {
        sums[i] = model->parameters[i]->grad;
        model->parameters[i]->grad = NULL;
    }
}

// ... and that part's whole gradient is added to them. (A kernel's += would add its terms one by one, in another order than
// processes that exchange whole gradients: the bits would differ.)
static void add_to_sums(Transformer *model, real **sums)
{
    for (int i = 0; i < model->parameter_count; i++) {
        Tensor *t = model->parameters[i];
        if (sums[i] == NULL) continue;
        for (int64_t j = 0; j < t->size && t->grad != NULL; j++) sums[i][j] += t->grad[j];
        tensor_drop_grad(t);
        t->grad = sums[i];
    }
}

StepResult training_step_in_parts(Transformer *model, Tape *tape, AdamW *optimizer, const int *ids, const int *targets, int B,
                                  int T, uint64_t seed, int64_t step, double learning_rate, const Parts *parts)
{
    check(0 <= parts->first && parts->first < parts->end && parts->end <= parts->count && parts->count <= B,
          "training_step_in_parts: parts %d up to %d of %d, of a batch of %d", parts->first, parts->end, parts->count, B);
    double start = seconds_now(), loss = 0;
    real **sums = allocate((size_t)model->parameter_count, sizeof *sums, "the sums of gradients");
    for (int p = parts->first; p < parts->end; p++) {
        if (p > parts->first) put_aside(model, sums);
        loss += pass(model, tape, ids, targets, B, T, seed, step, (Part){ p, parts->count });
        if (p > parts->first) add_to_sums(model, sums);
    }
    free(sums);
    if (parts->add_up != NULL) parts->add_up(parts->context, model, &loss);
    return update(model, optimizer, loss, learning_rate, start);
}

// Codes themselves are finite; the scales that they are multiplied by need not be.
static bool find_bad_scale(const Tensor *t, char *where, size_t size)
{
    for (int64_t j = 0; t->codes != NULL && j < t->codes->scale_count; j++)
        if (!isfinite((double)t->codes->scales[j])) {
            snprintf(where, size, "scale %lld of the codes of %s is %g", (long long)j, t->name, (double)t->codes->scales[j]);
            return true;
        }
    return false;
}

bool find_bad_number(const Transformer *model, char *where, size_t size)
{
    for (int gradient = 0; gradient < 2; gradient++)
        for (int i = 0; i < model->parameter_count; i++) {
            const Tensor *t = model->parameters[i];
            const real *values = gradient ? t->grad : t->data;
            if (!gradient && find_bad_scale(t, where, size)) return true;
            for (int64_t j = 0; values != NULL && j < t->size; j++)
                if (!isfinite((double)values[j])) {
                    snprintf(where, size, "the %s %s[%lld] is %g", gradient ? "gradient of" : "weight", t->name, (long long)j,
                             (double)values[j]);
                    return true;
                }
        }
    return false;
}

static double window_loss(const Transformer *model, const int *ids, const int *targets, int B, int T)
{
    Tensor *loss = transformer_loss(model, NULL, ids, targets, B, T);
    double value = (double)loss->data[0];
    tensor_drop(loss);
    return value;
}

double evaluate_all(const Transformer *model, const int *tokens, int64_t count)
{
    return evaluate_most(model, tokens, count, count, NULL, NULL);
}

double evaluate_most(const Transformer *model, const int *tokens, int64_t count, int64_t most, EvaluationWatch watch,
                     void *context)
{
    enum { WINDOWS = 16 }; // at a time
    const int T = model->config.block_size;
    int64_t targets = count - 1, whole = targets / T, done = 0;
    check(targets <= most || most >= T, "evaluate_most: %" PRId64 " targets are less than a window of %d", most, T);
    int64_t windows = targets > most ? most / T : whole, rest = targets > most ? 0 : targets % T;
    int *ids = allocate(2 * WINDOWS * (size_t)T, sizeof *ids, "a batch"), *next = ids + WINDOWS * (int64_t)T;
    double sum = 0;
    bool enough = false;
    for (int64_t k = 0; k < windows && !enough; k += WINDOWS) {
        int B = windows - k < WINDOWS ? (int)(windows - k) : WINDOWS;
        for (int b = 0; b < B; b++) {
            const int *window = tokens + (k + b) * whole / windows * T;
            memcpy(ids + (int64_t)b * T, window, (size_t)T * sizeof *ids);
            memcpy(next + (int64_t)b * T, window + 1, (size_t)T * sizeof *ids);
        }
        sum += window_loss(model, ids, next, B, T) * B * T;
        done += (int64_t)B * T;
        enough = watch != NULL && !watch(context, done);
    }
    free(ids);
    if (enough) return (double)NAN;
    if (rest > 0) {
        sum += window_loss(model, tokens + done, tokens + done + 1, 1, (int)rest) * (double)rest;
        done += rest;
        if (watch != NULL) watch(context, done);
    }
    return sum / (double)done;
}

double evaluate_quickly(const Transformer *model, const int *tokens, int64_t count, int B, int pass)
{
    int T = model->config.block_size, windows = QUICK_BATCHES * B;
    int64_t starts = count - T; // where a window and the target after it fit
    int *ids = allocate(2 * (size_t)(pass * T), sizeof *ids, "a batch"), *targets = ids + pass * T;
    double sum = 0;
    for (int first = 0, n; first < windows; first += n) {
        n = windows - first < pass ? windows - first : pass;
        for (int b = 0; b < n; b++) {
            int64_t start = (int64_t)(random_bits(1, (uint64_t)(first + b)) % (uint64_t)starts);
            memcpy(ids + b * T, tokens + start, (size_t)T * sizeof *ids);
            memcpy(targets + b * T, tokens + start + 1, (size_t)T * sizeof *ids);
        }
        sum += window_loss(model, ids, targets, n, T) * ((double)n / B);
    }
    free(ids);
    return sum / QUICK_BATCHES;
}
