// evaluation.c - see evaluation.h.

#include "evaluation.h"

int64_t evaluation_most = 4000000;

// The training part's end is as long as the validation part, or all of it.
static double evaluate_part(const Transformer *model, const Text *text, bool validation, EvaluationWatch watch, void *context)
{
    int64_t count = text->count - text->train_count;
    if (!validation && count > text->train_count) count = text->train_count;
    const int *end = text->tokens + (validation ? text->count : text->train_count);
    return evaluate_most(model, end - count, count, evaluation_most, watch, context);
}

double evaluate_validation(const Transformer *model, const Text *text) { return evaluate_part(model, text, true, NULL, NULL); }

double evaluate_training(const Transformer *model, const Text *text) { return evaluate_part(model, text, false, NULL, NULL); }

void evaluate_both(const Transformer *model, const Text *text, double *train, double *val, EvaluationWatch watch, void *context)
{
    *train = evaluate_part(model, text, false, watch, context);
    *val = evaluate_part(model, text, true, watch, context);
}

int64_t evaluation_targets(const Transformer *model, const Text *text)
{
    int64_t targets = text->count - text->train_count - 1, T = model->config.block_size;
    return targets > evaluation_most ? evaluation_most / T * T : targets;
}

double estimate_validation(const Transformer *model, const Text *text, int B, int pass)
{
    return evaluate_quickly(model, text->tokens + text->train_count, text->count - text->train_count, B, pass);
}

bool validation_leaks(const Text *text, double loss)
{
    double targets = (double)(text->count - text->train_count - 1);
    return (text->val_floor - loss) * targets > 20;
}
