// chain.c - see chain.h.

#include "chain.h"

#include <math.h>

Chain chain_gradient(Chain c)
{
    double tanh_u = tanh(c.w * c.x + c.b);
    double dy = 2 * (c.w * tanh_u - c.t);
    double du = dy * c.w * (1 - tanh_u * tanh_u);
    Chain gradient = { .x = du * c.w, .w = du * c.x + dy * tanh_u, .b = du, .t = -dy };
    return gradient;
}
