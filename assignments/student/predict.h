// predict.h - how many numbers a model has. (How many bytes a training step takes is Lab 3.)

#ifndef PREDICT_H
#define PREDICT_H

// Numbers in the base: V C + T C + L (12 C^2 + 13 C) + 2 C.
double base_parameters(double V, double T, double L, double C);

#endif
