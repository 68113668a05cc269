// evaluation.h - how well a model predicts the two parts of a text: training.h's evaluation, with text.h's tokens.
//
// All return the mean loss in nats per target.

#ifndef EVALUATION_H
#define EVALUATION_H

#include "text.h"
#include "training.h"

// Over the whole validation part of the text, and over the equally long end of its training part; of a part that has more than
// evaluation_most characters, over evenly spaced windows of about so many.
double evaluate_validation(const Transformer *model, const Text *text);
double evaluate_training(const Transformer *model, const Text *text);
extern int64_t evaluation_most; // four million; a test takes less
// Both, the training part first. `watch` (training.h) is told how many of each part's evaluation_targets are done.
void   evaluate_both(const Transformer *model, const Text *text, double *train, double *val, EvaluationWatch watch, void *context);
int64_t evaluation_targets(const Transformer *model, const Text *text);
// An estimate of the first: evaluate_quickly, on the validation part.
double estimate_validation(const Transformer *model, const Text *text, int B, int pass);
// Whether `loss` on the validation part is more than 20 nats in all below the floor of a built-in text. A model that does not
// see what it should predict gets there with probability e^-20 at most (Markov's inequality for the ratio of its likelihood to
// the true one): if one does, a later character reached an earlier position. Without a floor: false.
bool   validation_leaks(const Text *text, double loss);

#endif
