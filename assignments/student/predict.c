// predict.c - see predict.h.

#include "predict.h"

double base_parameters(double V, double T, double L, double C) { return V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C; }
