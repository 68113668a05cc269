// test_engine.c - the engine's rules: how gradients add up along a graph, what frozen means, who owns which byte and until when,
// what is an error and what it says, recomputation, and the optimizer.

#include "../adamw.h"
#include "../transformer.h"
#include "child.h"
#include "gradcheck.h"
#include "test.h"

static long bytes(long count) { return count * (long)sizeof(real); }
static double number(real x) { return (double)x; }

// Every test ends with this: all that it took has been given back, of every kind.
#define EXPECT_NOTHING_LIVE()                                                                                                        \
    for (int kind_ = 0; kind_ < MEMORY_KINDS; kind_++)                                                                               \
    EXPECT(ledger.live[kind_] == 0, "%ld bytes of %s are still live", ledger.live[kind_], memory_kind_names[kind_])

static Tensor *leaf(const char *name, double value, bool trains)
{
    Tensor *t = tensor_from(name, (real[]){ (real)value }, SHAPE(1));
    t->requires_grad = trains;
    return t;
}

static Tensor *matrix(const char *name, int rows, int columns, uint64_t seed, bool trains)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE(rows, columns));
    fill_irregular(t, seed, 1);
    t->requires_grad = trains;
    return t;
}

static Tensor *vector(const char *name, int size, uint64_t seed, bool trains)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE(size));
    fill_irregular(t, seed, 1);
    t->requires_grad = trains;
    return t;
}

#define EXPECT_ABORT(mistake, text)                                                                                   \
    do {                                                                                                              \
        int status_ = in_child(mistake);                                                                              \
        EXPECT(status_ == -1 && strstr(said, text), #mistake ": status %d, and it said: %s", status_, said);          \
        EXPECT(strstr(said, ".c:") && strchr(said, '\n') == said + strlen(said) - 1, "not one line with its place: %s", said); \
    } while (0)

// ------------------------------------------------------------------------------------------------------------- small graphs

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

TEST(gradients_add_up_until_they_are_dropped)
{
    Tape *tape = tape_new();
    Tensor *W = matrix("W", 3, 5, 1, true), *x = matrix("x", 2, 3, 2, false);
    real *once = NULL;
    for (int pass = 1; pass <= 3; pass++) {
        backward(tape, op_sum(tape, op_tanh(tape, op_matmul(tape, x, W))));
        tape_clear(tape);
        if (pass == 1) once = copy_of(W->grad, W->size);
        double worst = 0;
        for (long i = 0; i < W->size; i++) worst = fmax(worst, fabs(number(W->grad[i]) - pass * number(once[i])));
        EXPECT(worst <= 8 * EPSILON && norm_of(once, W->size) > 0.1, "pass %d: not %d times the gradient, off by %g", pass, pass, worst);
    }
    tensor_drop_grad(W);
    EXPECT(W->grad == NULL, "the gradient is still there");
    backward(tape, op_sum(tape, op_tanh(tape, op_matmul(tape, x, W))));
    EXPECT(same_bits(W->grad, once, W->size), "after dropping the gradient, the next one differs");
    free(once);
    tape_free(tape);
    tensor_drop(W);
    tensor_drop(x);
    EXPECT_NOTHING_LIVE();
}

TEST(a_branch_that_does_not_reach_the_loss_gets_nothing)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true), *z = leaf("z", 5, true);
    Tensor *loss = op_scale(tape, x, 3);
    op_mul(tape, x, z); // made later, used by nobody
    backward(tape, loss);
    EXPECT(x->grad && x->grad[0] == 3, "dy/dx is not 3");
    EXPECT(z->grad == NULL, "z does not feed the loss and has a gradient");
    tape_free(tape);
    tensor_drop(x);
    tensor_drop(z);
    EXPECT_NOTHING_LIVE();
}

TEST(a_tape_serves_again_after_backward)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true);
    for (int i = 0; i < 3; i++) {
        Tensor *y = op_mul(tape, x, x);
        backward(tape, y);
        EXPECT(y->node == NODE_CONSUMED && y->data[0] == 4, "the loss keeps its value");
        EXPECT(x->grad[0] == (real)(4 * (i + 1)), "round %d: %g", i, number(x->grad[0]));
        if (i == 1) tape_clear(tape);
    }
    tape_free(tape);
    tensor_drop(x);
    EXPECT_NOTHING_LIVE();
}

// dL/dx goes through a frozen W and needs its values; W itself gets nothing. One trainable input is enough for the result.
TEST(gradients_pass_through_frozen_weights)
{
    Tape *tape = tape_new();
    Tensor *x = matrix("x", 2, 3, 1, false), *W1 = matrix("W1", 3, 5, 2, true), *W2 = matrix("W2", 5, 4, 3,
            true), *W3 = matrix("W3", 4, 7, 4, true);
    Tensor *const weights[] = { W1, W2, W3 };
    real *all[3] = { NULL };
    for (int frozen = -1; frozen < 3; frozen++) { // none, then one after the other
        for (int i = 0; i < 3; i++) weights[i]->requires_grad = i != frozen;
        tape->counts = (Counts){ 0 };
        Tensor *y = op_matmul(tape, op_matmul(tape, op_matmul(tape, x, W1), W2), W3);
        EXPECT(y->requires_grad, "frozen W%d: the result's flag is false", frozen + 1);
        backward(tape, op_mean(tape, op_tanh(tape, y)));
        Work dgrad = tape->counts.work[OP_MATMUL][PHASE_DGRAD], wgrad = tape->counts.work[OP_MATMUL][PHASE_WGRAD];
        EXPECT(dgrad.kernels == (frozen == 0 ? 1 : 2) && wgrad.kernels == (frozen < 0 ? 3 : 2),
                "frozen W%d: %ld dgrad and %ld wgrad kernels", frozen + 1, dgrad.kernels, wgrad.kernels);
        for (int i = 0; i < 3; i++) {
            if (frozen < 0) all[i] = copy_of(weights[i]->grad, weights[i]->size);
            else if (i == frozen) EXPECT(weights[i]->grad == NULL, "frozen W%d has a gradient", i + 1);
            else EXPECT(weights[i]->grad && same_bits(weights[i]->grad, all[i], weights[i]->size),
                    "frozen W%d: other bits in dW%d", frozen + 1, i + 1);
            tensor_drop_grad(weights[i]);
        }
        tape_clear(tape);
    }
    EXPECT(norm_of(all[0], W1->size) > 1e-3, "dW1 is as good as zero");
    for (int i = 0; i < 3; i++) free(all[i]), tensor_drop(weights[i]);
    tensor_drop(x);
    tape_free(tape);
    EXPECT_NOTHING_LIVE();
}

static bool cut_frozen(const Node *n, int input) // no dX where the weight is frozen: the mistake that LoRA would not survive
{
    return n->op == OP_MATMUL && input == 0 && !n->in[1]->requires_grad;
}

TEST(the_cut_hook_stops_a_gradient)
{
    Tape *tape = tape_new();
    Tensor *x = matrix("x", 2, 3, 1, false), *W1 = matrix("W1", 3, 5, 2, true), *W2 = matrix("W2", 5, 4, 3,
            false), *W3 = matrix("W3", 4, 7, 4, true);
    tape->cut = cut_frozen;
    backward(tape, op_mean(tape, op_matmul(tape, op_matmul(tape, op_matmul(tape, x, W1), W2), W3)));
    EXPECT(W1->grad == NULL, "the flow was cut at W2, and W1 has a gradient");
    EXPECT(W3->grad && norm_of(W3->grad, W3->size) > 0, "W3 is above the cut");
    tape_free(tape);
    tensor_drop(x), tensor_drop(W1), tensor_drop(W2), tensor_drop(W3);
    EXPECT_NOTHING_LIVE();
}

// ------------------------------------------------------------------------------------------------------------------- errors

static void backward_twice(void)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true), *y = op_mul(tape, x, x);
    backward(tape, y);
    backward(tape, y);
}

static void nothing_trains(void)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, false);
    backward(tape, op_mul(tape, x, x));
}

static void loss_is_a_matrix(void)
{
    Tape *tape = tape_new();
    backward(tape, op_tanh(tape, matrix("x", 2, 3, 1, true)));
}

static void loss_of_another_tape(void)
{
    Tape *tape = tape_new(), *other = tape_new();
    Tensor *x = leaf("x", 2, true);
    op_mul(tape, x, x);
    backward(tape, op_mul(other, x, x));
}

static void flag_forced(void) // "it seems to work": it would train nothing
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, false), *y = op_mul(tape, x, x);
    y->requires_grad = true;
    backward(tape, y);
}

static void dropped_tensor_used(void)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true), *y = op_scale(tape, x, 2);
    tensor_drop(y);
    op_scale(tape, y, 2);
}

static void consumed_tensor_used(void)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true), *y = op_scale(tape, x, 2);
    backward(tape, op_scale(tape, y, 2));
    op_scale(tape, y, 2);
}

static void dropped_twice(void)
{
    Tape *tape = tape_new();
    Tensor *y = op_scale(tape, leaf("x", 2, true), 2);
    tensor_drop(y);
    tensor_drop(y);
}

static void step_without_gradient(void)
{
    Tensor *W = matrix("forgotten", 3, 5, 1, true);
    adamw_step(adamw_new(&W, 1, (AdamWConfig){ 0.9, 0.99, 0, 0 }), 0.1);
}

static void unfrozen_too_late(void) // W's gradient would read an x that nobody kept
{
    Tape *tape = tape_new();
    Tensor *W = matrix("W", 3, 5, 1, false), *x = matrix("x", 2, 3, 2, true), *h = op_scale(tape, x, 2), *y = op_matmul(tape, h, W);
    tensor_drop(h);
    W->requires_grad = true;
    backward(tape, op_sum(tape, y));
}

static void no_such_probability(void) { op_dropout(NULL, leaf("x", 2, true), 1); }

TEST(mistakes_stop_the_program_and_say_why)
{
    EXPECT_ABORT(backward_twice, "backward has been called on this tape");
    EXPECT_ABORT(nothing_trains, "nothing trainable feeds the loss; did you attach an adapter?");
    EXPECT_ABORT(loss_is_a_matrix, "the loss has shape [2,3], not one number");
    EXPECT_ABORT(loss_of_another_tape, "was not made on this tape");
    EXPECT_ABORT(flag_forced, "was not made on this tape");
    EXPECT_ABORT(dropped_tensor_used, "it was dropped");
    EXPECT_ABORT(consumed_tensor_used, "on a tape that backward has consumed");
    EXPECT_ABORT(dropped_twice, "dropped twice");
    EXPECT_ABORT(step_without_gradient, "adamw_step: forgotten requires grad, but no gradient reached it");
    EXPECT_ABORT(unfrozen_too_late, "W was frozen when matmul#1 used it");
    EXPECT_ABORT(no_such_probability, "dropout: the probability 1");
}

#define MISFIT(name, expression)                                                                          \
    static void name(void)                                                                                \
    {                                                                                                     \
        Tensor *a = matrix("left", 2, 3, 1, true), *b = matrix("right", 4, 5, 2, true), *v = vector("v", 7, 3, true); \
        (void)a, (void)b, (void)v;                                                                        \
        expression;                                                                                       \
    }
MISFIT(misfit_add, op_add(NULL, a, b))
MISFIT(misfit_sub, op_sub(NULL, a, b))
MISFIT(misfit_mul, op_mul(NULL, a, b))
MISFIT(misfit_add_scaled, op_add_scaled(NULL, a, b, 2))
MISFIT(misfit_matmul, op_matmul(NULL, a, b))
MISFIT(misfit_linear, op_linear(NULL, a, b, v))
MISFIT(misfit_lm_head, op_lm_head(NULL, a, b))
MISFIT(misfit_layernorm, op_layernorm(NULL, a, v, v))
MISFIT(misfit_embedding, op_embedding(NULL, a, b, (int[]){ 0 }, 1, 1))
MISFIT(misfit_attention, op_attention(NULL, a, 1))
MISFIT(misfit_matmul_add, op_matmul_add(NULL, op_scale(NULL, a, 1), b, v, 1))
MISFIT(too_many_positions, op_embedding(NULL, a, a, (int[]){ 0, 1, 0 }, 1, 3))
MISFIT(bad_id, op_embedding(NULL, a, a, (int[]){ 0, 2 }, 1, 2))
MISFIT(bad_target, op_cross_entropy(NULL, a, (int[]){ 0, 3 }))

TEST(shapes_that_do_not_fit_are_named)
{
    EXPECT_ABORT(misfit_add, "add: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_sub, "sub: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_mul, "mul: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_add_scaled, "add_scaled: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_matmul, "matmul: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_linear, "linear: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_lm_head, "lm_head: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_layernorm, "layernorm: v [7] does not fit the width of left [2,3]");
    EXPECT_ABORT(misfit_embedding, "embedding: left [2,3] and right [4,5]");
    EXPECT_ABORT(misfit_attention, "attention: left [2,3]");
    EXPECT_ABORT(misfit_matmul_add, "matmul_add: ");
    EXPECT_ABORT(too_many_positions, "embedding: 3 positions, but left [2,3] has 2");
    EXPECT_ABORT(bad_id, "embedding: id 2 at 1");
    EXPECT_ABORT(bad_target, "cross_entropy: target 3 at row 1");
}

// A tape reads flag and gradient of its nodes' inputs in backward. What it reads must still be the same tensor, although the
// caller has dropped it (or the drop must be refused): else a stranger in the recycled header gets a gradient.
static void leaf_dropped_before_backward(void)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true), *c = leaf("c", 3, false), *y = op_add(tape, x, c);
    tensor_drop(c); // frozen, and no gradient reads its data
    Tensor *stranger = leaf("stranger", 5, true);
    backward(tape, y);
    if (stranger->grad != NULL || x->grad == NULL || x->grad[0] != 1) _exit(3);
}

static void result_without_tape_in_matmul_add(void)
{
    Tape *tape = tape_new();
    Tensor *x = matrix("x", 2, 3, 1, false), *W = matrix("W", 3, 5, 2, false), *h = matrix("h", 2, 4, 3,
            false), *B = matrix("B", 4, 5, 4, true);
    Tensor *y = op_matmul_add(tape, op_matmul(NULL, x, W), h, B, 2); // its first input was made by no tape, and is taken over
    Tensor *stranger = matrix("stranger", 2, 5, 5, true);
    backward(tape, op_sum(tape, y));
    if (stranger->grad != NULL || B->grad == NULL) _exit(3);
}

static void leaf_in_matmul_add(void)
{
    Tape *tape = tape_new();
    Tensor *y = matrix("y", 2, 5, 1, true), *h = matrix("h", 2, 4, 3, false), *B = matrix("B", 4, 5, 4, true);
    y->data[0] = 3;
    Tensor *out = op_matmul_add(tape, y, h, B, 2); // takes over the handle of a leaf that trains
    Tensor *stranger = matrix("stranger", 2, 5, 5, true);
    backward(tape, op_sum(tape, out));
    if (stranger->grad != NULL || B->grad == NULL) _exit(3);
}

// A leaf that is dropped while nodes refer to it goes with the last of them, and its gradient too.
TEST(a_leaf_dropped_early_goes_with_the_tape)
{
    for (int backward_first = 0; backward_first < 2; backward_first++) {
        Tape *tape = tape_new();
        Tensor *x = matrix("x", 2, 3, 1, true), *W = matrix("W", 3, 5, 2, true), *c = matrix("c", 2, 5, 3, true);
        Tensor *y = op_mul(tape, op_add(tape, op_matmul(tape, x, W), c), c), *loss = op_sum(tape, y);
        tensor_drop(W), tensor_drop(c);
        EXPECT(ledger.live[MEMORY_WEIGHTS] == bytes(6 + 15 + 10), "%ld bytes of weights: the tape needs them still",
                ledger.live[MEMORY_WEIGHTS]);
        if (backward_first) {
            backward(tape, loss);
            EXPECT(x->grad && norm_of(x->grad, x->size) > 0, "no gradient through a dropped W");
        }
        tape_clear(tape);
        EXPECT(ledger.live[MEMORY_WEIGHTS] == bytes(6), "%ld bytes of weights, of which x has 6 numbers", ledger.live[MEMORY_WEIGHTS]);
        EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == (backward_first ? bytes(6) : 0), "%ld bytes of gradients",
                ledger.live[MEMORY_PARAMETER_GRADIENTS]);
        tape_free(tape);
        tensor_drop(x);
    }
    EXPECT_NOTHING_LIVE();
}

TEST(no_stranger_gets_a_dropped_tensors_gradient)
{
    static void (*const deeds[])(void) = { leaf_dropped_before_backward, result_without_tape_in_matmul_add, leaf_in_matmul_add };
    static const char *const names[] = { "a leaf dropped before backward", "matmul_add on a result made without a tape",
            "matmul_add on a leaf" };
    for (int i = 0; i < 3; i++) {
        int status = in_child(deeds[i]);
        EXPECT(status == 0 || status == -1,
                "%s: status %d (3: another tensor got the gradient, or the right one did not), said: %s", names[i], status,
                said);
    }
}

// ------------------------------------------------------------------------------------------------------------------- memory

TEST(without_a_tape_nothing_is_recorded_or_kept)
{
    Tensor *x = matrix("x", 3, 5, 1, true), *W = matrix("W", 5, 4, 2, true), *b = vector("b", 4, 3, true);
    Tensor *h = op_linear(NULL, x, W, b);
    Tensor *y = op_gelu(NULL, h);
    EXPECT(!h->requires_grad && !y->requires_grad && y->node == NODE_LEAF, "a result made without a tape is on one");
    EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0, "%ld bytes are kept", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(2 * 3 * 4), "%ld bytes are live", ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    tensor_drop(h), tensor_drop(y);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0, "a dropped result is still there");
    // with a tape, but nothing to train: the same, and no node
    x->requires_grad = W->requires_grad = b->requires_grad = false;
    Tape *tape = tape_new();
    h = op_linear(tape, x, W, b);
    EXPECT(!h->requires_grad && tape->count == 0 && ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0, "a frozen op is recorded");
    EXPECT(tape->counts.wgrad_never_recorded == 1, "%ld weight gradients count as never recorded", tape->counts.wgrad_never_recorded);
    tape_free(tape);
    tensor_drop(x), tensor_drop(W), tensor_drop(b);
    EXPECT_NOTHING_LIVE();
}

// One linear layer, x a result: what stays kept after the caller has let go of x and y.
TEST(a_frozen_linear_keeps_no_x)
{
    enum { N = 6, I = 5, O = 7, R = 2 };
    static const struct { const char *what; bool x, W, b, A, B; long kept; } cases[] = {
        { "all trains", true, true, true, false, false, N * I },
        { "W frozen", true, false, true, false, false, 0 },
        { "W and b frozen", true, false, false, false, false, 0 },
        { "only W trains", false, true, false, false, false, N * I },
        { "only b trains", false, false, true, false, false, 0 },
        { "all frozen", false, false, false, false, false, 0 },
        { "adapter on a frozen layer", true, false, false, true, true, N * I + N * R },
        { "adapter at the bottom", false, false, false, true, true, N * I + N * R },
        { "adapter with A frozen", true, false, false, false, true, N * R },
        { "adapter beside a training layer", true, true, true, true, true, N * I + N * R },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        bool adapted = cases[c].A || cases[c].B;
        Lora lora = lora_new("l", I, O, R, 2, 9);
        lora.A->requires_grad = cases[c].A, lora.B->requires_grad = cases[c].B;
        fill_irregular(lora.B, 3, 1);
        Tensor *leaf_x = matrix("x", N, I, 1, cases[c].x);
        Linear linear = { .weight = matrix("W", I, O, 2, cases[c].W), .bias = vector("b", O, 3, cases[c].b),
                .lora = adapted ? &lora : NULL };
        Tape *tape = tape_new();
        Tensor *x = op_scale(tape, leaf_x, 2), *y = linear_apply(tape, &linear, x);
        tensor_drop(x);
        tensor_drop(y);
        EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(cases[c].kept), "%s: %ld bytes are kept, not %ld",
                cases[c].what, ledger.live[MEMORY_KEPT_ACTIVATIONS], bytes(cases[c].kept));
        EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0, "%s: %ld bytes are live", cases[c].what, ledger.live[MEMORY_LIVE_ACTIVATIONS]);
        tape_free(tape);
        tensor_drop(leaf_x), tensor_drop(linear.weight), tensor_drop(linear.bias);
        lora_free(&lora);
    }
    EXPECT_NOTHING_LIVE();
}

static void kept_result_in_matmul_add(void)
{
    Tensor *x = matrix("x", 6, 7, 1, true), *h = matrix("h", 6, 2, 2, true), *B = matrix("B", 2, 7, 3, true);
    Tape *tape = tape_new();
    Tensor *y = op_exp(tape, x); // its gradient will read y
    real before = y->data[5];
    op_matmul_add(tape, y, h, B, 3);
    if (y->data == NULL || y->data[5] != before) _exit(3);
}

TEST(matmul_add_makes_no_full_size_copy)
{
    enum { N = 6, O = 7, R = 2 };
    int status = in_child(kept_result_in_matmul_add);
    EXPECT(status == 0, "y, which a node keeps, was taken over (3) or the engine stopped (-1): status %d, said: %s", status, said);
    if (status != 0) return;
    Tensor *x = matrix("x", N, O, 1, true), *h = matrix("h", N, R, 2, true), *B = matrix("B", R, O, 3, true);
    Tape *tape = tape_new();
    Tensor *y = op_scale(tape, x, 2);
    real *buffer = y->data;
    Tensor *out = op_matmul_add(tape, y, h, B, 3);
    EXPECT(out->data == buffer && y->data == NULL, "nobody keeps y, and its buffer was not taken over");
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(N * O), "%ld bytes are live", ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    y = op_exp(tape, x); // keeps y for its own gradient: now the value must survive
    real *before = copy_of(y->data, y->size);
    out = op_matmul_add(tape, y, h, B, 3);
    EXPECT(out->data != y->data && y->data && same_bits(before, y->data, y->size), "y is kept by a node, and was overwritten");
    free(before);
    tape_free(tape);
    tensor_drop(x), tensor_drop(h), tensor_drop(B);
    EXPECT_NOTHING_LIVE();
}

TEST(buffers_are_aligned_counted_and_reused)
{
    real *some[5];
    static const long counts[] = { 1, 7, 16, 33, 1000 };
    long total = ledger.total;
    for (int i = 0; i < 5; i++) {
        some[i] = memory_take(MEMORY_WORKSPACE, counts[i]);
        EXPECT((uintptr_t)some[i] % 64 == 0, "%ld reals: not aligned to 64 bytes", counts[i]);
        total += bytes(counts[i]);
    }
    EXPECT(ledger.total == total, "the total is %ld, not %ld", ledger.total, total);
    memory_move(MEMORY_WORKSPACE, MEMORY_MOMENTS, counts[4]);
    EXPECT(ledger.live[MEMORY_MOMENTS] == bytes(1000) && ledger.total == total, "moving changes the total");
    for (int i = 0; i < 4; i++) memory_give(MEMORY_WORKSPACE, some[i], counts[i]);
    memory_give(MEMORY_MOMENTS, some[4], 1000);
    long before = ledger.mallocs;
    real *again = memory_take(MEMORY_WORKSPACE, 1000);
    EXPECT(again == some[4] && ledger.mallocs == before, "a free buffer of that size was there, and was not used");
    memory_give(MEMORY_WORKSPACE, again, 1000);
    EXPECT(ledger.pool > bytes(1000), "the pool holds %ld bytes", ledger.pool);
    memory_release_pool();
    EXPECT(ledger.pool == 0, "the pool holds %ld bytes after its release", ledger.pool);
    EXPECT_NOTHING_LIVE();
}

// Below and above the size from which all threads take part; with a kernel that finds zeros, and with one that stores.
TEST(a_first_gradient_does_not_depend_on_what_its_buffer_held)
{
    static const int sizes[] = { 30, 25001 };
    for (int form = 0; form < 4; form++) {
        Tensor *x = vector("x", sizes[form / 2], 1, true), *gain = vector("gain", sizes[form / 2], 2, false);
        Tape *tape = tape_new();
        real *clean = NULL;
        for (int round = 0; round < 2; round++) {
            Tensor *loss = op_sum(tape, form % 2 ? op_layernorm(tape, op_layernorm(tape, x, gain, gain), gain, gain) : op_scale(tape, op_scale(tape, x, 2), 3));
            real *used[4];
            for (int k = 0; k < 4; k++) {
                used[k] = memory_take(MEMORY_WORKSPACE, x->size);
                for (long j = 0; j < x->size; j++) used[k][j] = round == 0 ? 0 : (real)NAN;
            }
            for (int k = 0; k < 4; k++) memory_give(MEMORY_WORKSPACE, used[k], x->size);
            backward(tape, loss);
            if (round == 0) clean = copy_of(x->grad, x->size);
            EXPECT(same_bits(clean, x->grad, x->size) && (form % 2 || x->grad[x->size - 1] == 6), "%ld numbers, %s: x[0] gets %g, the last %g", x->size,
                   form % 2 ? "layernorm" : "scale", number(x->grad[0]), number(x->grad[x->size - 1]));
            tape_clear(tape);
            tensor_drop_grad(x);
        }
        free(clean);
        tape_free(tape);
        tensor_drop(x), tensor_drop(gain);
    }
    EXPECT_NOTHING_LIVE();
}

TEST(a_tensor_knows_its_shape)
{
    Tensor *t = tensor_new("a name that is much longer than the sixty-three characters which fit into a tensor's header",
            MEMORY_ADAPTERS, SHAPE(2, 3, 5));
    EXPECT(t->size == 30 && t->ndim == 3 && last_dim(t) == 5 && rows_of(t) == 6 && t->shape[3] == 1, "size %ld", t->size);
    EXPECT(strcmp(shape_text(t), "[2,3,5]") == 0 && strlen(t->name) == 63, "%s %s", shape_text(t), t->name);
    for (long i = 0; i < t->size; i++) EXPECT(t->data[i] == 0, "a new leaf is not zero at %ld", i);
    EXPECT(ledger.live[MEMORY_ADAPTERS] == bytes(30), "%ld bytes", ledger.live[MEMORY_ADAPTERS]);
    EXPECT(hash_bytes(HASH_START, "a", 1) == 0xaf63dc4c8601ec8cull && hash_bytes(HASH_START, "foobar",
            6) == 0x85944171f73967e8ull, "not FNV-1a");
    tensor_drop(t);
    tensor_drop(NULL);
    EXPECT_NOTHING_LIVE();
}

// What tensor_print says, into a buffer of 2,000 characters.
static const char *printed(const Tensor *t)
{
    static char text[2000];
    FILE *file = tmpfile();
    int before = dup(STDOUT_FILENO);
    fflush(stdout);
    if (file == NULL || before < 0 || dup2(fileno(file), STDOUT_FILENO) < 0) return "";
    tensor_print(t);
    fflush(stdout);
    dup2(before, STDOUT_FILENO);
    close(before);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

TEST(a_tensor_can_be_printed)
{
    Tensor *t = tensor_from("small", (real[]){ 1, 2.5, -3, 4e6, 0, 7 }, SHAPE(2, 3));
    const char *text = printed(t);
    EXPECT(strcmp(text, "small [2,3]  grad: not computed\n          1        2.5         -3\n      4e+06          0          7\n") == 0, "it says: %s", text);
    t->requires_grad = true;
    Tape *tape = tape_new();
    Tensor *y = op_scale(tape, t, 3);
    backward(tape, op_sum(tape, y));
    text = printed(t);
    EXPECT(strstr(text, "small [2,3] requires_grad  |grad| = 7.34847\n") == text, "it says: %s", text);
    tensor_drop(y);
    text = printed(y);
    EXPECT(strstr(text, "its data is gone"), "it says: %s", text);
    tape_free(tape);
    tensor_drop(t);
    t = tensor_new("large", MEMORY_WEIGHTS, SHAPE(3, 4, 9)); // its corners
    text = printed(t);
    int lines = 0, dots = 0;
    for (const char *c = text; *c; c++) lines += *c == '\n', dots += strncmp(c, " ...\n", 5) == 0;
    EXPECT(lines == 1 + 8 + 1 && dots == 9, "%d lines, %d of them go on: %s", lines, dots, text);
    tensor_drop(t);
    EXPECT_NOTHING_LIVE();
}

TEST(random_numbers_have_their_distribution)
{
    Tensor *t = tensor_new("t", MEMORY_WEIGHTS, SHAPE(100, 201));
    fill_normal(t, 3, 5);
    double mean = 0, square = 0, fourth = 0;
    for (long i = 0; i < t->size; i++) mean += number(t->data[i]) / (double)t->size;
    for (long i = 0; i < t->size; i++) square += pow(number(t->data[i]) / 3,
            2) / (double)t->size, fourth += pow(number(t->data[i]) / 3, 4) / (double)t->size;
    EXPECT(fabs(mean) < 0.1 && fabs(square - 1) < 0.05 && fabs(fourth - 3) < 0.3,
            "normal: mean %g, variance / 9 %g, kurtosis %g", mean, square, fourth);
    fill_uniform(t, 0.25, 6);
    double least = 1, most = -1;
    mean = square = 0;
    for (long i = 0; i < t->size; i++) {
        double x = number(t->data[i]);
        least = fmin(least, x), most = fmax(most, x), mean += x / (double)t->size, square += x * x / (double)t->size;
    }
    EXPECT(least >= -0.25 && most <= 0.25 && least < -0.249 && most > 0.249 && fabs(mean) < 0.006,
            "uniform: %g to %g, mean %g", least, most, mean);
    EXPECT(fabs(square - 0.0625 / 3) < 0.001, "uniform: variance %g", square);
    tensor_drop(t);
    EXPECT_NOTHING_LIVE();
}

// ------------------------------------------------------------------------------------------------ a model, for longer graphs

enum { V = 11, T = 7, B = 2, BLOCKS = 3 };
static const int text[B * T + 1] = { 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 10, 7, 0 };

typedef enum Training { FULL, LORA, TOP_LORA, TRAININGS } Training;
static const char *const training_names[TRAININGS] = { "full", "LoRA", "LoRA in the top block" };

static Transformer *model_new(Training training, double dropout, bool recompute)
{
    char error[200];
    Transformer *model = transformer_new((Config){ V, T, BLOCKS, 3, 12, dropout }, 5, error, sizeof error);
    for (int i = 0; i < model->parameter_count; i++)
        for (long j = 0; j < model->parameters[i]->size; j++) model->parameters[i]->data[j] += (real)(0.2 * irregular(40 + (uint64_t)i, j, 1));
    model->recompute = recompute;
    if (training != FULL) {
        transformer_train_base(model, false);
        LoraConfig config = { .r = 2, .alpha = 3, .targets = 1u << C_ATTN | 1u << MLP_C_PROJ,
                .first_block = training == TOP_LORA ? BLOCKS - 1 : 0, .last_block = -1 };
        transformer_add_adapter(model, "a", config, 6, error, sizeof error);
        for (int i = model->base_count; i < model->parameter_count; i++) fill_irregular(model->parameters[i],
                60 + (uint64_t)i, 1); // B is not zero
    }
    return model;
}

static double model_backward(const Transformer *model, Tape *tape)
{
    Tensor *loss = transformer_loss(model, tape, text, text + 1, B, T);
    double value = number(loss->data[0]);
    tensor_drop(loss);
    backward(tape, loss);
    tape_clear(tape);
    return value;
}

static long kept_then = -1, kept_now, kept_rises, kept_samples;
static bool sample_kept(const Node *n, int input)
{
    (void)n, (void)input;
    kept_now = ledger.live[MEMORY_KEPT_ACTIVATIONS];
    kept_rises += kept_samples > 0 && kept_now > kept_then;
    kept_then = kept_now;
    kept_samples++;
    return false;
}

TEST(kept_bytes_fall_during_backward)
{
    for (Training training = FULL; training < TRAININGS; training++) {
        Transformer *model = model_new(training, 0, false);
        Tape *tape = tape_new();
        tape->cut = sample_kept;
        Tensor *loss = transformer_loss(model, tape, text, text + 1, B, T);
        tensor_drop(loss);
        long at_start = ledger.live[MEMORY_KEPT_ACTIVATIONS];
        kept_samples = kept_rises = 0;
        backward(tape, loss);
        EXPECT(kept_rises == 0 && kept_samples > 10, "%s: kept bytes rose %ld times at %ld gradients",
                training_names[training], kept_rises, kept_samples);
        EXPECT(at_start > 0 && kept_now < at_start / 2, "%s: from %ld to %ld at the last gradient", training_names[training],
                at_start, kept_now);
        EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0 && ledger.live[MEMORY_ACTIVATION_GRADIENTS] == 0 &&
                ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0,
               "%s: after backward, kept %ld, live %ld, gradients of results %ld", training_names[training], ledger.live[MEMORY_KEPT_ACTIVATIONS],
               ledger.live[MEMORY_LIVE_ACTIVATIONS], ledger.live[MEMORY_ACTIVATION_GRADIENTS]);
        EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == bytes(transformer_trainable_size(model)),
                "%s: %ld bytes of parameter gradients for %ld numbers",
               training_names[training], ledger.live[MEMORY_PARAMETER_GRADIENTS], transformer_trainable_size(model));
        tape_free(tape);
        transformer_free(model);
    }
    EXPECT_NOTHING_LIVE();
}

// A result that a node kept and the caller still holds is kept until that node has run, then live, then gone.
static void backward_of_a_linear(void)
{
    Tensor *x = matrix("x", 3, 5, 1, true), *W = matrix("W", 5, 4, 2, true), *b = vector("b", 4, 3, true);
    Tape *tape = tape_new();
    Tensor *h = op_tanh(tape, x), *y = op_linear(tape, h, W, b);
    tensor_drop(h); // only the node of linear holds it
    backward(tape, op_sum(tape, op_mul(tape, y, y)));
    if (W->grad == NULL || !(norm_of(W->grad, W->size) > 0) || x->grad == NULL || !(norm_of(x->grad, x->size) > 0)) _exit(3);
}

// A node lets go of what has been read, gradient by gradient, and of nothing that a later one of its gradients still reads.
TEST(a_gradient_finds_what_it_reads)
{
    int status = in_child(backward_of_a_linear);
    EXPECT(status == 0, "x or W was let go before its gradient had read it: status %d, said: %s", status, said);
}

TEST(each_result_is_listed_once)
{
    Transformer *model = model_new(LORA, 0, false);
    Tape *tape = tape_new();
    tensor_drop(transformer_loss(model, tape, text, text + 1, B, T));
    long twice = 0;
    for (int i = 0; i < tape->result_count; i++)
        for (int j = 0; j < i; j++) twice += tape->results[i] == tape->results[j];
    EXPECT(twice == 0 && tape->result_count > 40, "of the tape's %d results, %ld are in its list twice, and would be freed twice", tape->result_count, twice);
    if (twice > 0) return; // freeing them ends the program
    tape_free(tape);
    transformer_free(model);
    EXPECT_NOTHING_LIVE();
}

TEST(what_only_the_caller_holds_is_live_again)
{
    Tape *tape = tape_new();
    Tensor *x = matrix("x", 3, 5, 1, true), *y = op_exp(tape, x); // the gradient of exp reads y
    Tensor *loss = op_sum(tape, y);
    EXPECT(y->kind == MEMORY_KEPT_ACTIVATIONS && ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(15), "%ld bytes are kept", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    backward(tape, loss);
    EXPECT(y->kind == MEMORY_LIVE_ACTIVATIONS && ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0 && ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(15 + 1),
           "%ld bytes are kept, %ld live", ledger.live[MEMORY_KEPT_ACTIVATIONS], ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    tensor_drop(y);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(1), "%ld bytes are live", ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    tape_free(tape);
    tensor_drop(x);
    EXPECT_NOTHING_LIVE();
}

// A leaf that gets dy itself: what was a gradient of a result is one of a leaf from then on.
TEST(a_gradient_taken_over_changes_its_kind)
{
    Tape *tape = tape_new();
    Tensor *x = matrix("x", 3, 5, 1, true), *c = matrix("c", 3, 5, 2, false);
    backward(tape, op_sum(tape, op_add(tape, x, c)));
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == bytes(15) && ledger.live[MEMORY_ACTIVATION_GRADIENTS] == 0, "%ld bytes of leaves' gradients, not %ld; %ld of results'",
           ledger.live[MEMORY_PARAMETER_GRADIENTS], bytes(15), ledger.live[MEMORY_ACTIVATION_GRADIENTS]);
    tape_free(tape);
    tensor_drop(x), tensor_drop(c);
    EXPECT_NOTHING_LIVE();
}

TEST(buffers_of_a_step_are_given_back)
{
    Transformer *model = model_new(LORA, 0.25, false);
    Tape *tape = tape_new();
    long at_rest = ledger.total;
    for (int step = 0; step < 2; step++) {
        model_backward(model, tape);
        zero_grads(model);
        EXPECT(ledger.live[MEMORY_WORKSPACE] == 0, "step %d: %ld bytes of scratch are still held", step, ledger.live[MEMORY_WORKSPACE]);
        EXPECT(ledger.total == at_rest, "step %d: %ld bytes more than before it", step, ledger.total - at_rest);
    }
    tape_free(tape);
    transformer_free(model);
}

TEST(steady_state_asks_the_system_for_nothing)
{
    for (int form = 0; form < 2 * TRAININGS; form++) {
        Transformer *model = model_new((Training)(form / 2), 0.25, form % 2);
        Tape *tape = tape_new();
        AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
        long mallocs = 0, total = 0, pool = 0;
        for (int step = 0; step < 6; step++) {
            tape->dropout_seed = (uint64_t)step;
            model_backward(model, tape);
            adamw_step(optimizer, 0.01);
            zero_grads(model);
            if (step == 1) mallocs = ledger.mallocs, total = ledger.total, pool = ledger.pool;
            if (step > 1) EXPECT(ledger.mallocs == mallocs && ledger.total == total && ledger.pool == pool,
                    "%s, recompute %d, step %d: %ld more buffers, %ld more bytes",
                                 training_names[form / 2], form % 2, step, ledger.mallocs - mallocs, ledger.total - total);
        }
        EXPECT(ledger.live[MEMORY_MOMENTS] == 2 * bytes(transformer_trainable_size(model)),
                "%ld bytes of moments for %ld numbers", ledger.live[MEMORY_MOMENTS], transformer_trainable_size(model));
        adamw_free(optimizer);
        tape_free(tape);
        transformer_free(model);
    }
    EXPECT_NOTHING_LIVE();
    memory_release_pool();
    EXPECT(ledger.pool == 0 && ledger.total == 0, "pool %ld, total %ld", ledger.pool, ledger.total);
}

// Reads a timeline: its last row, and the largest sum of a row. Returns the number of rows, or -1 if one is malformed.
static long read_timeline(FILE *file, long last[MEMORY_KINDS], long own[MEMORY_KINDS], long *peak, long *backward_rows)
{
    char line[512];
    rewind(file);
    if (!fgets(line, sizeof line, file)) return -1;
    char header[512] = "phase,label";
    for (int k = 0; k < MEMORY_KINDS; k++) strcat(strcat(header, ","), memory_kind_names[k]);
    strcat(header, "\n");
    if (strcmp(line, header) != 0) return -1;
    long rows = 0;
    while (fgets(line, sizeof line, file)) {
        char *place = strchr(line, ',');
        if (place) place = strchr(place + 1, ',');
        long sum = 0;
        for (int k = 0; k < MEMORY_KINDS; k++) {
            if (!place || *place != ',') return -1;
            last[k] = strtol(place + 1, &place, 10);
            if (last[k] < 0) return -1;
            sum += last[k];
            if (last[k] > own[k]) own[k] = last[k];
        }
        if (*place != '\n') return -1;
        if (sum > *peak) *peak = sum;
        *backward_rows += strncmp(line, "backward,", 9) == 0;
        rows++;
    }
    return rows;
}

TEST(the_timeline_and_the_peaks_agree)
{
    Transformer *model = model_new(LORA, 0.25, true);
    Tape *tape = tape_new();
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    FILE *file = tmpfile();
    if (file == NULL) return; // a test that checks nothing counts as failed
    memory_reset_peaks();
    EXPECT(ledger.peak == ledger.total, "after the reset, the peak is %ld and the total %ld", ledger.peak, ledger.total);
    memory_timeline(file);
    model_backward(model, tape);
    adamw_step(optimizer, 0.01);
    memory_timeline(NULL);
    long last[MEMORY_KINDS], own[MEMORY_KINDS] = { 0 }, peak = 0, backward_rows = 0, at_peak = 0, total = 0;
    long rows = read_timeline(file, last, own, &peak, &backward_rows);
    EXPECT(rows > 100 && backward_rows > 20, "%ld rows, of which %ld of backward", rows, backward_rows);
    EXPECT(peak == ledger.peak, "the highest row sums to %ld, the ledger's peak is %ld", peak, ledger.peak);
    for (int k = 0; k < MEMORY_KINDS; k++) {
        EXPECT(last[k] == ledger.live[k], "%s: the last row says %ld, the ledger %ld", memory_kind_names[k], last[k], ledger.live[k]);
        if (k != MEMORY_WEIGHTS) EXPECT(own[k] == ledger.own_peak[k], "%s: own peak %ld, by the rows %ld",
                memory_kind_names[k], ledger.own_peak[k], own[k]);
        EXPECT(ledger.at_peak[k] <= ledger.own_peak[k], "%s: at the peak more than ever", memory_kind_names[k]);
        at_peak += ledger.at_peak[k];
        total += ledger.live[k];
    }
    EXPECT(at_peak == ledger.peak && total == ledger.total, "the kinds sum to %ld at the peak of %ld, and to %ld of %ld",
            at_peak, ledger.peak, total, ledger.total);
    EXPECT(ledger.own_peak[MEMORY_MOMENTS] == 2 * bytes(transformer_trainable_size(model)), "the moments' own peak is %ld",
            ledger.own_peak[MEMORY_MOMENTS]);
    long written = ftell(file);
    memory_give(MEMORY_WORKSPACE, memory_take(MEMORY_WORKSPACE, 3), 3);
    EXPECT(ftell(file) == written, "the timeline goes on after it was stopped");
    fclose(file);
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
    EXPECT_NOTHING_LIVE();
}

TEST(the_trace_names_what_was_skipped)
{
    Transformer *model = model_new(LORA, 0, false);
    Tape *tape = tape_new();
    FILE *file = tmpfile();
    if (file == NULL) return;
    tape->trace = file;
    model_backward(model, tape);
    char line[512], saves[80], flops[40];
    snprintf(saves, sizeof saves, "frozen: skipped, saves %ld bytes and", bytes(12 * 36));
    snprintf(flops, sizeof flops, "%.1f MFLOP", 2e-6 * B * T * 12 * 36);
    long skipped = 0, weights = 0, named = 0, above = 1000, disorder = 0, norms = 0;
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        long number_ = strtol(strchr(line, '#') + 1, NULL, 10);
        disorder += number_ > above;
        above = number_;
        norms += strstr(line, "|g| = ") != NULL;
        if (!strstr(line, "frozen: skipped")) continue;
        skipped++;
        weights += (strstr(line, " linear ") && strstr(line, ".weight")) || strstr(line, " lm_head ");
        named += strstr(line, "d/d transformer.h.1.attn.c_attn.weight") && strstr(line, "[12,36]") && strstr(line,
                saves) && strstr(line, flops);
    }
    EXPECT(named == 1, "%ld lines say what block 1's c_attn saves: %s %s", named, saves, flops);
    EXPECT(weights == tape->counts.wgrad_skipped && weights == 4 * BLOCKS, "%ld weights in the trace, %ld counted", weights,
            tape->counts.wgrad_skipped);
    EXPECT(skipped > weights && norms > 20 && disorder == 0, "%ld skipped, %ld norms, %ld lines out of order", skipped, norms, disorder);
    fclose(file);
    tape_free(tape);
    transformer_free(model);
    EXPECT_NOTHING_LIVE();
}

// ---------------------------------------------------------------------------------------------------------------- recompute

TEST(recomputation_changes_no_bit)
{
    for (Training training = FULL; training < TRAININGS; training++)
        for (int dropout = 0; dropout < 2; dropout++) {
            double loss[2];
            Counts counts[2];
            long kept[2];
            real *grads[2][64] = { { NULL } };
            int parameters = 0;
            for (int recompute = 0; recompute < 2; recompute++) {
                Transformer *model = model_new(training, dropout ? 0.25 : 0, recompute);
                Tape *tape = tape_new();
                tape->dropout_seed = 17;
                parameters = model->parameter_count;
                memory_reset_peaks();
                Tensor *l = transformer_loss(model, tape, text, text + 1, B, T);
                EXPECT(l->requires_grad, "%s, recompute %d: nothing trains", training_names[training], recompute);
                if (!l->requires_grad) return;
                loss[recompute] = number(l->data[0]);
                kept[recompute] = ledger.live[MEMORY_KEPT_ACTIVATIONS];
                tensor_drop(l);
                backward(tape, l);
                counts[recompute] = tape->counts;
                for (int i = 0; i < parameters; i++) grads[recompute][i] = copy_of(model->parameters[i]->grad, model->parameters[i]->size);
                if (recompute)
                    for (int i = 0; i < parameters; i++) {
                        bool same = grads[0][i] ? grads[1][i] && same_bits(grads[0][i], grads[1][i],
                                model->parameters[i]->size) : grads[1][i] == NULL;
                        EXPECT(same, "%s, dropout %d: other bits in d/d %s", training_names[training], dropout, model->parameters[i]->name);
                    }
                tape_free(tape);
                transformer_free(model);
            }
            EXPECT(loss[0] == loss[1], "%s, dropout %d: the loss is %.9g, recomputed %.9g", training_names[training],
                    dropout, loss[0], loss[1]);
            EXPECT(kept[1] < kept[0], "%s: %ld bytes kept, with recomputation %ld", training_names[training], kept[0], kept[1]);
            const Counts *a = &counts[0], *b = &counts[1];
            EXPECT(a->dgrad == b->dgrad && a->wgrad == b->wgrad && a->wgrad_skipped == b->wgrad_skipped &&
                    a->wgrad_never_recorded == b->wgrad_never_recorded &&
                   a->adapter_gradients == b->adapter_gradients, "%s: gradients are counted otherwise when recomputed", training_names[training]);
            for (Phase p = PHASE_FORWARD; p < PHASE_RECOMPUTE; p++)
                EXPECT(counts_phase(a, p).flops == counts_phase(b, p).flops && counts_phase(a, p).flops > 0,
                        "%s, %s: %ld FLOPs, with recomputation %ld", training_names[training],
                       phase_names[p], counts_phase(a, p).flops, counts_phase(b, p).flops);
            // the blocks' forward FLOPs once more, of those blocks that were recorded
            long again = counts_phase(b, PHASE_RECOMPUTE).flops, head = a->work[OP_LM_HEAD][PHASE_FORWARD].flops;
            long blocks = counts_phase(a, PHASE_FORWARD).flops - head;
            if (training == TOP_LORA) EXPECT(again > 0 && again < blocks, "only the top block is run again: %ld of %ld", again, blocks);
            else EXPECT(again == blocks, "%s: %ld FLOPs are recomputed, not %ld", training_names[training], again, blocks);
            EXPECT(counts_phase(a, PHASE_RECOMPUTE).flops == 0, "recomputation without being asked for");
            long differ = 0;
            for (int i = 0; i < parameters; i++) differ += grads[0][i] != NULL;
            EXPECT(differ == (training == FULL ? parameters : training == LORA ? 4 * BLOCKS : 4), "%ld gradients", differ);
            for (int i = 0; i < 64; i++) free(grads[0][i]), free(grads[1][i]);
        }
    EXPECT_NOTHING_LIVE();
}

static Tensor *inner_block(Tape *tape, Tensor *x, void *context) // tanh(dropout(x W))
{
    Tensor *W = context, *h = op_matmul(tape, x, W), *d = op_dropout(tape, h, (real)0.25), *y = op_tanh(tape, d);
    tensor_drop(h), tensor_drop(d);
    return y;
}

static Tensor *outer_block(Tape *tape, Tensor *x, void *context) // the same twice, the inner ones recomputed too
{
    Tensor *W = context, *h = op_recompute(tape, inner_block, W, x, W->requires_grad), *y = op_recompute(tape, inner_block,
            W, h, W->requires_grad);
    tensor_drop(h);
    return y;
}

TEST(recomputation_within_recomputation)
{
    enum { N = 3, W_ = 5 };
    const long f = 2 * N * W_ * W_; // FLOPs of one product
    Tensor *x = matrix("x", N, W_, 1, true), *W = matrix("W", W_, W_, 2, true);
    real *dx = NULL, *dW = NULL;
    for (int nested = 0; nested < 2; nested++) {
        Tape *tape = tape_new();
        tape->dropout_seed = 3;
        Tensor *y;
        if (nested) y = op_recompute(tape, outer_block, W, x, true);
        else y = inner_block(tape, inner_block(tape, x, W), W);
        backward(tape, op_sum(tape, y));
        if (!nested) dx = copy_of(x->grad, x->size), dW = copy_of(W->grad, W->size);
        else {
            EXPECT(same_bits(dx, x->grad, x->size) && norm_of(dx, x->size) > 0.01, "other bits in dx");
            EXPECT(same_bits(dW, W->grad, W->size) && norm_of(dW, W->size) > 0.01, "other bits in dW");
        }
        long forward = counts_phase(&tape->counts, PHASE_FORWARD).flops, again = counts_phase(&tape->counts, PHASE_RECOMPUTE).flops;
        long dgrad = counts_phase(&tape->counts, PHASE_DGRAD).flops, wgrad = counts_phase(&tape->counts, PHASE_WGRAD).flops;
        // x and W are leaves: d/dx of the first product is a gradient of a leaf
        EXPECT(forward == 2 * f && dgrad == f && wgrad == 3 * f, "nested %d: forward %ld, dgrad %ld, wgrad %ld products",
                nested, forward / f, dgrad / f, wgrad / f);
        EXPECT(again == (nested ? 4 * f : 0), "nested %d: %ld products recomputed", nested, again / f);
        tensor_drop_grad(x), tensor_drop_grad(W);
        tape_free(tape);
    }
    free(dx), free(dW);
    tensor_drop(x), tensor_drop(W);
    EXPECT_NOTHING_LIVE();
}

// The block's input does not require a gradient, as below a frozen embedding: the leaves inside must get theirs all the same.
TEST(recomputation_on_a_frozen_input)
{
    Tensor *x = matrix("x", 3, 5, 1, false), *W = matrix("W", 5, 5, 2, true);
    Tape *tape = tape_new();
    Tensor *y = op_recompute(tape, inner_block, W, x, true);
    EXPECT(y->requires_grad, "the result's flag is false: nothing inside would train");
    backward(tape, op_sum(tape, y));
    EXPECT(W->grad && norm_of(W->grad, W->size) > 0.01 && x->grad == NULL, "W got no gradient, or x got one");
    tape_clear(tape);
    tensor_drop_grad(W);
    W->requires_grad = false;
    y = op_recompute(tape, inner_block, W, x, false);
    EXPECT(!y->requires_grad && tape->count == 0, "nothing trains, and a node is recorded");
    tape_free(tape);
    tensor_drop(x), tensor_drop(W);
    EXPECT_NOTHING_LIVE();
}

// ---------------------------------------------------------------------------------------------------------------- optimizer

static void set_grad(Tensor *t, uint64_t seed, double size)
{
    if (t->grad == NULL) t->grad = memory_take(MEMORY_PARAMETER_GRADIENTS, t->size);
    for (long i = 0; i < t->size; i++) t->grad[i] = (real)(size * irregular(seed, i, 1));
}

TEST(adamw_equals_its_formula)
{
    enum { TENSORS = 3, STEPS = 20, MOST = 80 };
    static const struct { double clip, decay; } forms[] = { { 0, 0 }, { 0.5, 0 }, { 0, 0.3 }, { 0.5, 0.3 }, { 1000, 0.3 } };
    static const double sizes[] = { 0.01, 1, 0.1 }; // norms of 0.06, 6 and 0.6: below a clip of 0.5, far and just above
    for (int form = 0; form < 5; form++) {
        Tensor *t[TENSORS] = { matrix("W", 3, 5, 1, true), vector("b", 37, 2, true), matrix("A", 5, 13, 3, true) };
        double p[TENSORS][MOST], m[TENSORS][MOST] = { { 0 } }, v[TENSORS][MOST] = { { 0 } };
        for (int k = 0; k < TENSORS; k++)
            for (long i = 0; i < t[k]->size; i++) p[k][i] = number(t[k]->data[i]);
        AdamWConfig config = { 0.9, 0.97, forms[form].decay, forms[form].clip };
        AdamW *optimizer = adamw_new(t, TENSORS, config);
        double worst = 0, worst_norm = 0;
        for (int step = 1; step <= STEPS; step++) {
            double lr = 0.02 / step, squares = 0;
            for (int k = 0; k < TENSORS; k++) {
                set_grad(t[k], (uint64_t)(1000 + 10 * step + k), sizes[step % 3]);
                for (long i = 0; i < t[k]->size; i++) squares += number(t[k]->grad[i]) * number(t[k]->grad[i]);
            }
            double norm = adamw_step(optimizer,
                    lr), clip = config.grad_clip > 0 &&
                    sqrt(squares) > config.grad_clip ? config.grad_clip / sqrt(squares) : 1;
            worst_norm = fmax(worst_norm, fabs(norm / sqrt(squares) - 1));
            for (int k = 0; k < TENSORS; k++)
                for (long i = 0; i < t[k]->size; i++) {
                    double g = clip * number(t[k]->grad[i]);
                    m[k][i] = config.beta1 * m[k][i] + (1 - config.beta1) * g;
                    v[k][i] = config.beta2 * v[k][i] + (1 - config.beta2) * g * g;
                    double mean = m[k][i] / (1 - pow(config.beta1, step)), square = v[k][i] / (1 - pow(config.beta2, step));
                    if (k != 1) p[k][i] -= lr * config.weight_decay * p[k][i]; // matrices only
                    p[k][i] -= lr * mean / (sqrt(square) + 1e-8);
                    worst = fmax(worst, fabs(number(t[k]->data[i]) - p[k][i]));
                }
        }
        EXPECT(worst < (IN_DOUBLE ? 1e-13 : 3e-6), "clip %g, decay %g: off by %.3g", config.grad_clip, config.weight_decay, worst);
        EXPECT(worst_norm < 1e-12, "the returned norm is off by %.3g", worst_norm);
        EXPECT(optimizer->step == STEPS && fabs(p[0][0] - irregular(1, 0, 1)) > 1e-3, "%ld steps, and W moved by %g",
                optimizer->step, p[0][0] - irregular(1, 0, 1));
        adamw_free(optimizer);
        for (int k = 0; k < TENSORS; k++) tensor_drop(t[k]);
    }
    EXPECT_NOTHING_LIVE();
}

TEST(a_gradient_that_is_not_finite_changes_nothing)
{
    Tensor *t[2] = { matrix("W", 3, 5, 1, true), vector("b", 7, 2, true) };
    AdamW *optimizer = adamw_new(t, 2, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    set_grad(t[0], 1, 1), set_grad(t[1], 2, 1);
    adamw_step(optimizer, 0.1);
    real *W = copy_of(t[0]->data, 15), *b = copy_of(t[1]->data, 7), *m = copy_of(optimizer->m[0], 15);
    static const double bad[] = { (double)NAN, (double)INFINITY };
    for (int i = 0; i < 2; i++) {
        t[1]->grad[3] = (real)bad[i];
        double norm = adamw_step(optimizer, 0.1);
        EXPECT(!isfinite(norm), "the norm is %g", norm);
        EXPECT(same_bits(W, t[0]->data, 15) && same_bits(b, t[1]->data, 7) && same_bits(m, optimizer->m[0], 15) &&
                optimizer->step == 1, "a gradient of %g changed something", bad[i]);
    }
    free(W), free(b), free(m);
    adamw_free(optimizer);
    tensor_drop(t[0]), tensor_drop(t[1]);
    EXPECT_NOTHING_LIVE();
}

TEST(freezing_in_mid_training_stops_a_weight_at_once)
{
    Transformer *model = model_new(FULL, 0, false);
    Tape *tape = tape_new();
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    Tensor *W = model->blocks[1].linear[C_FC].weight;
    uint64_t start = transformer_hash(model);
    for (int step = 0; step < 3; step++) model_backward(model, tape), adamw_step(optimizer, 0.01), zero_grads(model);
    EXPECT(transformer_hash(model) != start, "training changed nothing");
    long moments = ledger.live[MEMORY_MOMENTS];
    model_backward(model, tape); // a gradient is there when the flag goes
    W->requires_grad = false;
    real *frozen = copy_of(W->data, W->size), *other = copy_of(model->wte->data, model->wte->size);
    adamw_step(optimizer, 0.01); // weight decay and the moments would both move it
    zero_grads(model);
    EXPECT(ledger.live[MEMORY_MOMENTS] == moments - 2 * bytes(W->size), "its moments are still there");
    for (int step = 0; step < 3; step++) {
        model_backward(model, tape);
        EXPECT(W->grad == NULL, "it got a gradient");
        adamw_step(optimizer, 0.01);
        zero_grads(model);
    }
    EXPECT(same_bits(frozen, W->data, W->size), "a frozen weight moved");
    EXPECT(!same_bits(other, model->wte->data, model->wte->size), "the others stopped too");
    free(frozen), free(other);

    model_backward(model, tape); // freezing all of the base drops the gradients too
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] > 0, "no gradient to drop");
    transformer_train_base(model, false);
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == 0, "%ld bytes of gradients of frozen weights",
            ledger.live[MEMORY_PARAMETER_GRADIENTS]);
    start = transformer_hash(model);
    double norm = adamw_step(optimizer, 0.01);
    EXPECT(norm == 0 && transformer_hash(model) == start && ledger.live[MEMORY_MOMENTS] == 0,
            "norm %g, %ld bytes of moments", norm, ledger.live[MEMORY_MOMENTS]);
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
    EXPECT_NOTHING_LIVE();
}

int main(void)
{
    parallel_set_threads(2);
    RUN(a_gradient_waits_for_all_uses);
    RUN(a_tensor_used_twice_gets_the_sum);
    RUN(three_uses_of_a_result);
    RUN(gradients_add_up_until_they_are_dropped);
    RUN(a_branch_that_does_not_reach_the_loss_gets_nothing);
    RUN(a_tape_serves_again_after_backward);
    RUN(gradients_pass_through_frozen_weights);
    RUN(the_cut_hook_stops_a_gradient);
    RUN(mistakes_stop_the_program_and_say_why);
    RUN(shapes_that_do_not_fit_are_named);
    RUN(a_leaf_dropped_early_goes_with_the_tape);
    RUN(no_stranger_gets_a_dropped_tensors_gradient);
    RUN(without_a_tape_nothing_is_recorded_or_kept);
    RUN(a_frozen_linear_keeps_no_x);
    RUN(matmul_add_makes_no_full_size_copy);
    RUN(buffers_are_aligned_counted_and_reused);
    RUN(a_first_gradient_does_not_depend_on_what_its_buffer_held);
    RUN(a_tensor_knows_its_shape);
    RUN(a_tensor_can_be_printed);
    RUN(random_numbers_have_their_distribution);
    RUN(kept_bytes_fall_during_backward);
    RUN(a_gradient_finds_what_it_reads);
    RUN(each_result_is_listed_once);
    RUN(what_only_the_caller_holds_is_live_again);
    RUN(a_gradient_taken_over_changes_its_kind);
    RUN(buffers_of_a_step_are_given_back);
    RUN(steady_state_asks_the_system_for_nothing);
    RUN(the_timeline_and_the_peaks_agree);
    RUN(the_trace_names_what_was_skipped);
    RUN(recomputation_changes_no_bit);
    RUN(recomputation_within_recomputation);
    RUN(recomputation_on_a_frozen_input);
    RUN(adamw_equals_its_formula);
    RUN(a_gradient_that_is_not_finite_changes_nothing);
    RUN(freezing_in_mid_training_stops_a_weight_at_once);
    return test_summary();
}
