// test_uses.c - a tensor that is used more than once: its gradient is the sum over its uses, in whatever order they come.

#include "small.h"

TEST(a_gradient_waits_for_all_uses) // y = b + 5a with a = 3x, b = 2a: 21, where passing a's gradient on too early gives 6 or 15
{
    Tape *tape = tape_new();
    for (int order = 0; order < 2; order++) {
        Tensor *x = leaf("x", 0.7, true), *a = op_scale(tape, x, 3), *b = op_scale(tape, a, 2);
        Tensor *y = order == 0 ? op_add_scaled(tape, b, a, 5) : op_add(tape, op_scale(tape, a, 5), b);
        backward(tape, y);
        EXPECT(x->grad && x->grad[0] == 21, "order %d: dy/dx = %g, not 21", order, x->grad ? number(x->grad[0]) : 0);
        tape_clear(tape);
        tensor_drop(x);
    }
    tape_free(tape);
    EXPECT_NOTHING_LIVE();
}

TEST(a_tensor_used_twice_gets_the_sum)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 3, true);
    static const double expected[] = { 2, 6, 12, 7, 27 };
    for (int form = 0; form < 5; form++) {
        Tensor *y = form == 0 ? op_add(tape, x, x)
                  : form == 1 ? op_mul(tape, x, x)
                  : form == 2 ? op_mul(tape, op_scale(tape, x, 2), x)                                   // the header's example
                  : form == 3 ? op_add_scaled(tape, op_scale(tape, x, 3), x, 4)
                              : op_mul(tape, op_mul(tape, x, x), x);
        backward(tape, y);
        EXPECT(x->grad && number(x->grad[0]) == expected[form], "form %d: %g, not %g", form,
                x->grad ? number(x->grad[0]) : 0, expected[form]);
        tensor_drop_grad(x);
        tape_clear(tape);
    }
    tape_free(tape);
    tensor_drop(x);
    EXPECT_NOTHING_LIVE();
}

// A result with three uses, one of which hands its gradient on as it is: the first to come may store, the others must add.
TEST(three_uses_of_a_result)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true), *a = op_mul(tape, x, x);              // a = x^2
    Tensor *y = op_add(tape, op_add(tape, a, op_scale(tape, a, 10)), a);  // y = 12 x^2
    backward(tape, y);
    EXPECT(x->grad && x->grad[0] == 48, "dy/dx = %g, not 48", x->grad ? number(x->grad[0]) : 0);
    tape_free(tape);
    tensor_drop(x);
    EXPECT_NOTHING_LIVE();
}

static Tensor *use_gelu(Tape *t, Tensor *x) { return op_gelu(t, x); }
static Tensor *use_add(Tape *t, Tensor *x) { return op_add(t, x, x); }
static Tensor *use_sub(Tape *t, Tensor *x) { return op_sub(t, x, op_scale(t, x, 3)); }
static Tensor *use_mul(Tape *t, Tensor *x) { return op_mul(t, x, x); }
static Tensor *use_add_scaled(Tape *t, Tensor *x) { return op_add_scaled(t, x, x, 2); }
static Tensor *use_relu(Tape *t, Tensor *x) { return op_relu(t, x); }
static Tensor *use_softmax(Tape *t, Tensor *x) { return op_softmax(t, x); }
static Tensor *use_mean(Tape *t, Tensor *x) { return op_mean(t, x); }
static Tensor *use_sum(Tape *t, Tensor *x) { return op_sum(t, x); }
static Tensor *use_dropout(Tape *t, Tensor *x) { return op_dropout(t, x, (real)0.25); }
static const int targets[] = { 2, 0, 5, 1, 1, 3 };
static Tensor *use_cross_entropy(Tape *t, Tensor *x) { return op_cross_entropy(t, x, targets); }
static Tensor *use_matmul(Tape *t, Tensor *x) { return op_matmul(t, x, x); }
static Tensor *use_lm_head(Tape *t, Tensor *x) { return op_lm_head(t, x, x); }
static Tensor *use_matmul_add(Tape *t, Tensor *x) { return op_matmul_add(t, op_add(t, x, x), x, x, 2); }
static Tensor *use_attention(Tape *t, Tensor *x) { return op_attention(t, x, 1); }

// Ways to use one tensor, [6,6] or [1,6,6]; some need the one, attention the other.
static const struct Use { const char *name; Tensor *(*apply)(Tape *tape, Tensor *x); int needs_ndim; } use_list[] = {
    { "gelu", use_gelu, 0 }, { "add", use_add, 0 }, { "sub", use_sub, 0 }, { "mul", use_mul, 0 }, { "add_scaled", use_add_scaled, 0 },
    { "relu", use_relu, 0 }, { "softmax", use_softmax, 0 }, { "mean", use_mean, 0 }, { "sum", use_sum, 0 }, { "dropout", use_dropout, 0 },
    { "cross_entropy", use_cross_entropy, 0 }, { "matmul", use_matmul, 2 }, { "lm_head", use_lm_head, 2 },
    { "matmul_add", use_matmul_add, 2 }, { "attention", use_attention, 3 },
};
enum { USES = sizeof use_list / sizeof *use_list };

// Adds to x's gradient that of the sum over the uses of w . use(x), x a leaf or the result of an op.
static void gradient_of_uses(Tensor *x, const int *which, int count, bool is_result)
{
    Tape *tape = tape_new();
    tape->dropout_seed = 77;
    Tensor *at = is_result ? op_scale(tape, x, (real)1.5) : x, *loss = NULL, *weight[2] = { NULL };
    for (int k = 0; k < count; k++) {
        tape->dropout_calls = 0; // the same elements, whichever use is first
        Tensor *y = use_list[which[k]].apply(tape, at);
        weight[k] = tensor_new("weight", MEMORY_WEIGHTS, y->ndim, y->shape);
        fill_irregular(weight[k], (uint64_t)(700 + which[k]), 1);
        Tensor *part = op_sum(tape, op_mul(tape, y, weight[k]));
        loss = loss ? op_add(tape, loss, part) : part;
    }
    backward(tape, loss);
    tape_free(tape);
    for (int k = 0; k < 2; k++) tensor_drop(weight[k]);
}

// Whatever a gradient finds of the other use: nothing, another kernel's sum, dy itself, or a buffer that was taken over.
TEST(two_uses_add_up_in_any_order)
{
    for (int a = 0; a < USES; a++)
        for (int b = 0; b < USES; b++) {
            int need = use_list[a].needs_ndim | use_list[b].needs_ndim;
            if ((use_list[a].needs_ndim == 2 && use_list[b].needs_ndim == 3) || (use_list[a].needs_ndim == 3 && use_list[b].needs_ndim == 2)) continue;
            Tensor *x = need == 3 ? tensor_new("x", MEMORY_WEIGHTS, SHAPE(1, 6, 6)) : tensor_new("x", MEMORY_WEIGHTS, SHAPE(6, 6));
            fill_irregular(x, 5, 1);
            x->requires_grad = true;
            for (int is_result = 0; is_result < 2; is_result++) {
                double alone[36], worst = 0, largest = 0;
                gradient_of_uses(x, &a, 1, is_result);
                for (int i = 0; i < 36; i++) alone[i] = (double)x->grad[i];
                tensor_drop_grad(x);
                gradient_of_uses(x, &b, 1, is_result);
                for (int i = 0; i < 36; i++) alone[i] += (double)x->grad[i], largest = fmax(largest, fabs(alone[i]));
                tensor_drop_grad(x);
                gradient_of_uses(x, (int[]){ a, b }, 2, is_result);
                for (int i = 0; i < 36; i++) {
                    double error = fabs((double)x->grad[i] - alone[i]);
                    if (!(error <= worst)) worst = error;
                }
                EXPECT(worst <= 20 * EPSILON * fmax(largest, 1) && largest > 1e-3, "%s, then %s, of a %s: off by %.3g of %.3g", use_list[a].name, use_list[b].name,
                       is_result ? "result" : "leaf", worst, largest);
                tensor_drop_grad(x);
            }
            tensor_drop(x);
        }
}

int main(void)
{
    parallel_set_threads(2);
    RUN(a_gradient_waits_for_all_uses);
    RUN(a_tensor_used_twice_gets_the_sum);
    RUN(three_uses_of_a_result);
    RUN(two_uses_add_up_in_any_order);
    return test_summary();
}
