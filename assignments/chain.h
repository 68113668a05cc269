// chain.h - Lab 1 begins here: a chain of scalars, small enough to differentiate by hand.

#ifndef CHAIN_H
#define CHAIN_H

typedef struct Chain { double x, w, b, t; } Chain;

//     u = w x + b;  y = w tanh(u);  loss = (y - t)^2        w is used twice
//
// The derivatives of the loss by x, w, b and t, each in the field of its name.
Chain chain_gradient(Chain c);

#endif
