// found.c - see found.h. The test below notices the first bug of assignments/bugs.txt.

#include "found.h"

#include "adapters.h"

bool engine_is_right(void)
{
    bool right = true;
    Tape *tape = tape_new();
    Tensor *x = tensor_from("x", (real[]){ 3 }, SHAPE(1)), *w = tensor_from("w", (real[]){ 2 }, SHAPE(1));
    x->requires_grad = true, w->requires_grad = false;
    Tensor *y = op_mul(tape, x, w);
    right = y->requires_grad;
    if (right) backward(tape, y);
    right = right && x->grad != NULL && x->grad[0] > 1.999 && x->grad[0] < 2.001 && w->grad == NULL;
    tape_free(tape);
    tensor_drop(x);
    tensor_drop(w);
    return right;
}
