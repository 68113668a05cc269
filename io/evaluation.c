// evaluation.c - see evaluation.h.

#include "evaluation.h"

double evaluate_validation(const Transformer *model, const Text *text)
{
    return evaluate_all(model, text->tokens + text->train_count, text->count - text->train_count);
}

double evaluate_training(const Transformer *model, const Text *text)
{
    int64_t count = text->count - text->train_count;
    if (count > text->train_count) count = text->train_count;
    return evaluate_all(model, text->tokens + text->train_count - count, count);
}

double estimate_validation(const Transformer *model, const Text *text, int B)
{
    return evaluate_quickly(model, text->tokens + text->train_count, text->count - text->train_count, B);
}

bool validation_leaks(const Text *text, double loss)
{
    double targets = (double)(text->count - text->train_count - 1);
    return (text->val_floor - loss) * targets > 20;
}
