// test_engine.c - the engine's rules: how gradients add up along a graph, what frozen means, who owns which byte and until when,
// what is an error and what it says, recomputation, and the optimizer.

#include "small.h"

// ------------------------------------------------------------------------------------------------------------- small graphs

TEST(gradients_add_up_until_they_are_dropped)
{
    Tape *tape = tape_new();
    Tensor *W = weights("W", 3, 5, 1, true), *x = weights("x", 2, 3, 2, false);
    real *once = NULL;
    for (int pass = 1; pass <= 3; pass++) {
        backward(tape, op_sum(tape, op_tanh(tape, op_matmul(tape, x, W))));
        tape_clear(tape);
        if (pass == 1) once = copy_of(W->grad, W->size);
        double worst = 0;
        for (int64_t i = 0; i < W->size; i++) worst = fmax(worst, fabs(number(W->grad[i]) - pass * number(once[i])));
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
        EXPECT(y->spent && y->data[0] == 4, "the loss keeps its value");
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
    Tensor *x = weights("x", 2, 3, 1, false), *W1 = weights("W1", 3, 5, 2, true), *W2 = weights("W2", 5, 4, 3,
            true), *W3 = weights("W3", 4, 7, 4, true);
    Tensor *const weights[] = { W1, W2, W3 };
    real *all[3] = { NULL };
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    for (int frozen = -1; frozen < 3; frozen++) { // none, then one after the other
        for (int i = 0; i < 3; i++) weights[i]->requires_grad = i != frozen;
        meter_zero(&meter);
        Tensor *y = op_matmul(tape, op_matmul(tape, op_matmul(tape, x, W1), W2), W3);
        EXPECT(y->requires_grad, "frozen W%d: the result's flag is false", frozen + 1);
        backward(tape, op_mean(tape, op_tanh(tape, y)));
        Work dgrad = meter_op(&meter, &matmul_op, PHASE_DGRAD), wgrad = meter_op(&meter, &matmul_op, PHASE_WGRAD);
        EXPECT(dgrad.kernels == (frozen == 0 ? 1 : 2) && wgrad.kernels == (frozen < 0 ? 3 : 2),
                "frozen W%d: %" PRId64 " dgrad and %" PRId64 " wgrad kernels", frozen + 1, dgrad.kernels, wgrad.kernels);
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
    return n->op == &matmul_op && input == 0 && !n->in[1]->requires_grad;
}

TEST(the_cut_hook_stops_a_gradient)
{
    Tape *tape = tape_new();
    Tensor *x = weights("x", 2, 3, 1, false), *W1 = weights("W1", 3, 5, 2, true), *W2 = weights("W2", 5, 4, 3,
            false), *W3 = weights("W3", 4, 7, 4, true);
    Meter meter = { .cut = cut_frozen };
    meter_watch(&meter, tape);
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
    backward(tape, op_tanh(tape, weights("x", 2, 3, 1, true)));
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

static void dropped_twice_by_its_caller(void) // while a node still uses it
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true);
    op_scale(tape, x, 2);
    tensor_drop(x);
    tensor_drop(x);
}

static void made_on_another_tape(void)
{
    Tape *tape = tape_new(), *other = tape_new();
    Tensor *x = leaf("x", 2, true), *y = op_scale(tape, x, 2);
    op_mul(other, x, y);
}

static void frozen_and_made_on_another_tape(void) // which may free it before this one is done
{
    Tape *tape = tape_new(), *other = tape_new();
    Tensor *x = leaf("x", 2, true), *y = op_tanh(other, leaf("c", 2, false));
    op_mul(tape, x, y);
}

static void added_to_a_factor(void)
{
    Tensor *y = weights("y", 5, 5, 1, false), *B = weights("B", 5, 5, 2, false);
    op_matmul_add(NULL, y, y, B, 2);
}

static void added_to_its_matrix(void)
{
    Tensor *y = weights("y", 5, 5, 1, false), *h = weights("h", 5, 5, 2, false);
    op_matmul_add(NULL, y, h, y, 2);
}

static void step_without_gradient(void)
{
    Tensor *W = weights("forgotten", 3, 5, 1, true);
    adamw_step(adamw_new(&W, 1, (AdamWConfig){ 0.9, 0.99, 0, 0 }), 0.1);
}

static void unfrozen_too_late(void) // W's gradient would read an x that nobody kept
{
    Tape *tape = tape_new();
    Tensor *W = weights("W", 3, 5, 1, false), *x = weights("x", 2, 3, 2, true), *h = op_scale(tape, x, 2), *y = op_matmul(tape, h, W);
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
    EXPECT_ABORT(dropped_twice, "scale#0: dropped twice");
    EXPECT_ABORT(dropped_twice_by_its_caller, "x: dropped twice");
    EXPECT_ABORT(made_on_another_tape, "mul: input 1, scale#0, was made on another tape");
    EXPECT_ABORT(frozen_and_made_on_another_tape, "mul: input 1, tanh#0, was made on another tape");
    EXPECT_ABORT(added_to_a_factor, "matmul_add: y is given up, so it cannot be a factor too");
    EXPECT_ABORT(added_to_its_matrix, "matmul_add: y is given up, so it cannot be a factor too");
    EXPECT_ABORT(step_without_gradient, "adamw_step: forgotten requires grad, but no gradient reached it");
    EXPECT_ABORT(unfrozen_too_late, "W was frozen when matmul#1 used it");
    EXPECT_ABORT(no_such_probability, "dropout: the probability 1");
}

static void too_large_for_any_memory(void) { tensor_new("huge", MEMORY_WEIGHTS, SHAPE(1 << 30, 1 << 30, 4)); }
static void too_large_for_an_integer(void) { tensor_new("huge", MEMORY_WEIGHTS, SHAPE(65536, 65536, 65536, 65536)); }
static void no_rows(void) { tensor_new("empty", MEMORY_WEIGHTS, SHAPE(3, 0)); }
static void below_no_rows(void) { tensor_new("empty", MEMORY_WEIGHTS, SHAPE(-3, -5)); }
static void no_dimensions(void) { tensor_new("point", MEMORY_WEIGHTS, 0, NULL); }
static void too_many_dimensions(void) { tensor_new("hyper", MEMORY_WEIGHTS, SHAPE(1, 2, 3, 4, 5)); }

static void name_too_long(void)
{
    char name[MAX_NAME + 1];
    memset(name, 'x', sizeof name - 1), name[sizeof name - 1] = '\0';
    tensor_new(name, MEMORY_WEIGHTS, SHAPE(3));
}

TEST(impossible_sizes_and_names_are_refused)
{
    EXPECT_ABORT(too_large_for_any_memory, "huge: the sizes up to dimension 1, 1073741824, are more than any memory holds");
    EXPECT_ABORT(too_large_for_an_integer, "huge: the sizes up to dimension 3, 65536, are more than any memory holds");
    EXPECT_ABORT(no_rows, "empty: dimension 1 is 0, not at least 1");
    EXPECT_ABORT(below_no_rows, "empty: dimension 0 is -3, not at least 1");
    EXPECT_ABORT(no_dimensions, "point: a tensor has 1 to 4 dimensions, not 0");
    EXPECT_ABORT(too_many_dimensions, "hyper: a tensor has 1 to 4 dimensions, not 5");
    EXPECT_ABORT(name_too_long, "a name has at most 127 characters");
}

#ifdef POISON // only a debug build frees no header, and knows a handle whose tensor is gone
static void used_after_its_tape(void)
{
    Tape *tape = tape_new();
    Tensor *x = leaf("x", 2, true), *y = op_scale(tape, x, 2);
    tape_free(tape);
    op_scale(NULL, y, 2);
}

static void dropped_after_its_tape(void)
{
    Tape *tape = tape_new();
    Tensor *y = op_scale(tape, leaf("x", 2, true), 2);
    tape_free(tape);
    tensor_drop(y);
}

static void loss_after_its_tape_was_cleared(void)
{
    Tape *tape = tape_new();
    Tensor *y = op_scale(tape, leaf("x", 2, true), 2);
    tape_clear(tape);
    backward(tape, y);
}

static void leaf_used_after_its_drop(void)
{
    Tensor *x = leaf("x", 2, true);
    tensor_drop(x);
    op_scale(NULL, x, 2);
}

static void leaf_dropped_twice(void)
{
    Tensor *x = leaf("x", 2, true);
    tensor_drop(x);
    leaf("stranger", 5, true);
    tensor_drop(x);
}
#endif

TEST(a_debug_build_knows_a_handle_whose_tensor_is_gone)
{
#ifdef POISON
    EXPECT_ABORT(used_after_its_tape, "scale: scale#0 is gone: it was dropped, or its tape was cleared or freed");
    EXPECT_ABORT(dropped_after_its_tape, "tensor_drop: scale#0 is gone");
    EXPECT_ABORT(loss_after_its_tape_was_cleared, "backward: scale#0 is gone");
    EXPECT_ABORT(leaf_used_after_its_drop, "scale: x is gone");
    EXPECT_ABORT(leaf_dropped_twice, "tensor_drop: x is gone");
#else
    EXPECT(true, "other builds free the header, as a sanitizer would see");
#endif
}

#define MISFIT(name, expression)                                                                          \
    static void name(void)                                                                                \
    {                                                                                                     \
        Tensor *a = weights("left", 2, 3, 1, true), *b = weights("right", 4, 5, 2, true), *v = vector("v", 7, 3, true); \
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
    Tensor *x = weights("x", 2, 3, 1, false), *W = weights("W", 3, 5, 2, false), *h = weights("h", 2, 4, 3,
            false), *B = weights("B", 4, 5, 4, true);
    Tensor *y = op_matmul_add(tape, op_matmul(NULL, x, W), h, B, 2); // its first input was made by no tape, and is taken over
    Tensor *stranger = weights("stranger", 2, 5, 5, true);
    backward(tape, op_sum(tape, y));
    if (stranger->grad != NULL || B->grad == NULL) _exit(3);
}

static void leaf_in_matmul_add(void)
{
    Tape *tape = tape_new();
    Tensor *y = weights("y", 2, 5, 1, true), *h = weights("h", 2, 4, 3, false), *B = weights("B", 4, 5, 4, true);
    y->data[0] = 3;
    Tensor *out = op_matmul_add(tape, y, h, B, 2); // takes over the handle of a leaf that trains
    Tensor *stranger = weights("stranger", 2, 5, 5, true);
    backward(tape, op_sum(tape, out));
    if (stranger->grad != NULL || B->grad == NULL) _exit(3);
}

// A leaf that is dropped while nodes refer to it goes with the last of them, and its gradient too.
TEST(a_leaf_dropped_early_goes_with_the_tape)
{
    for (int backward_first = 0; backward_first < 2; backward_first++) {
        Tape *tape = tape_new();
        Tensor *x = weights("x", 2, 3, 1, true), *W = weights("W", 3, 5, 2, true), *c = weights("c", 2, 5, 3, true);
        Tensor *y = op_mul(tape, op_add(tape, op_matmul(tape, x, W), c), c), *loss = op_sum(tape, y);
        tensor_drop(W), tensor_drop(c);
        EXPECT(ledger.live[MEMORY_WEIGHTS] == bytes(6 + 15 + 10), "%" PRId64 " bytes of weights: the tape needs them still",
                ledger.live[MEMORY_WEIGHTS]);
        if (backward_first) {
            backward(tape, loss);
            EXPECT(x->grad && norm_of(x->grad, x->size) > 0, "no gradient through a dropped W");
        }
        tape_clear(tape);
        EXPECT(ledger.live[MEMORY_WEIGHTS] == bytes(6), "%" PRId64 " bytes of weights, of which x has 6 numbers", ledger.live[MEMORY_WEIGHTS]);
        EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == (backward_first ? bytes(6) : 0), "%" PRId64 " bytes of gradients",
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
    Tensor *x = weights("x", 3, 5, 1, true), *W = weights("W", 5, 4, 2, true), *b = vector("b", 4, 3, true);
    Tensor *h = op_linear(NULL, x, W, b);
    Tensor *y = op_gelu(NULL, h);
    EXPECT(!h->requires_grad && !y->requires_grad && is_leaf(y), "a result made without a tape is on one, or trains");
    EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0, "%" PRId64 " bytes are kept", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(2 * 3 * 4), "%" PRId64 " bytes are live", ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    tensor_drop(h), tensor_drop(y);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0, "a dropped result is still there");
    // with a tape, but nothing to train: the same, and no node
    x->requires_grad = W->requires_grad = b->requires_grad = false;
    Tape *tape = tape_new();
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    h = op_linear(tape, x, W, b);
    EXPECT(!h->requires_grad && tape->count == 0 && ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0, "a frozen op is recorded");
    EXPECT(meter.wgrad_never_recorded == 1, "%" PRId64 " weight gradients count as never recorded", meter.wgrad_never_recorded);
    tape_free(tape);
    tensor_drop(x), tensor_drop(W), tensor_drop(b);
    EXPECT_NOTHING_LIVE();
}

// One linear layer, x a result: what stays kept after the caller has let go of x and y.
TEST(a_frozen_linear_keeps_no_x)
{
    enum { N = 6, I = 5, O = 7, R = 2 };
    static const struct { const char *what; bool x, W, b, A, B; int64_t kept; } cases[] = {
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
        Tensor *leaf_x = weights("x", N, I, 1, cases[c].x);
        Linear linear = { .weight = weights("W", I, O, 2, cases[c].W), .bias = vector("b", O, 3, cases[c].b),
                .lora = adapted ? &lora : NULL };
        Tape *tape = tape_new();
        Tensor *x = op_scale(tape, leaf_x, 2), *y = linear_apply(tape, &linear, x);
        tensor_drop(x);
        tensor_drop(y);
        EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(cases[c].kept), "%s: %" PRId64 " bytes are kept, not %" PRId64,
                cases[c].what, ledger.live[MEMORY_KEPT_ACTIVATIONS], bytes(cases[c].kept));
        EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0, "%s: %" PRId64 " bytes are live", cases[c].what, ledger.live[MEMORY_LIVE_ACTIVATIONS]);
        tape_free(tape);
        tensor_drop(leaf_x), tensor_drop(linear.weight), tensor_drop(linear.bias);
        lora_free(&lora);
    }
    EXPECT_NOTHING_LIVE();
}

static void kept_result_in_matmul_add(void)
{
    Tensor *x = weights("x", 6, 7, 1, true), *h = weights("h", 6, 2, 2, true), *B = weights("B", 2, 7, 3, true);
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
    Tensor *x = weights("x", N, O, 1, true), *h = weights("h", N, R, 2, true), *B = weights("B", R, O, 3, true);
    Tape *tape = tape_new();
    Tensor *y = op_scale(tape, x, 2);
    real *buffer = y->data;
    Tensor *out = op_matmul_add(tape, y, h, B, 3);
    EXPECT(out->data == buffer && y->data == NULL, "nobody keeps y, and its buffer was not taken over");
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(N * O), "%" PRId64 " bytes are live", ledger.live[MEMORY_LIVE_ACTIVATIONS]);
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
    static const int64_t counts[] = { 1, 7, 16, 33, 1000 };
    int64_t total = ledger.total;
    for (int i = 0; i < 5; i++) {
        some[i] = memory_take(MEMORY_WORKSPACE, counts[i]);
        EXPECT((uintptr_t)some[i] % 64 == 0, "%" PRId64 " reals: not aligned to 64 bytes", counts[i]);
        total += bytes(counts[i]);
    }
    EXPECT(ledger.total == total, "the total is %" PRId64 ", not %" PRId64, ledger.total, total);
    memory_move(MEMORY_WORKSPACE, MEMORY_MOMENTS, counts[4]);
    EXPECT(ledger.live[MEMORY_MOMENTS] == bytes(1000) && ledger.total == total, "moving changes the total");
    for (int i = 0; i < 4; i++) memory_give(MEMORY_WORKSPACE, some[i], counts[i]);
    memory_give(MEMORY_MOMENTS, some[4], 1000);
    int64_t before = ledger.mallocs;
    real *again = memory_take(MEMORY_WORKSPACE, 1000);
    EXPECT(again == some[4] && ledger.mallocs == before, "a free buffer of that size was there, and was not used");
    memory_give(MEMORY_WORKSPACE, again, 1000);
    EXPECT(ledger.pool > bytes(1000), "the pool holds %" PRId64 " bytes", ledger.pool);
    memory_release_pool();
    EXPECT(ledger.pool == 0, "the pool holds %" PRId64 " bytes after its release", ledger.pool);
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
                for (int64_t j = 0; j < x->size; j++) used[k][j] = round == 0 ? 0 : (real)NAN;
            }
            for (int k = 0; k < 4; k++) memory_give(MEMORY_WORKSPACE, used[k], x->size);
            backward(tape, loss);
            if (round == 0) clean = copy_of(x->grad, x->size);
            EXPECT(same_bits(clean, x->grad, x->size) && (form % 2 || x->grad[x->size - 1] == 6), "%" PRId64 " numbers, %s: x[0] gets %g, the last %g", x->size,
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
    char name[MAX_NAME];
    memset(name, 'x', sizeof name - 1), name[sizeof name - 1] = '\0'; // the longest
    Tensor *t = tensor_new(name, MEMORY_ADAPTERS, SHAPE(2, 3, 5));
    EXPECT(t->size == 30 && t->ndim == 3 && last_dim(t) == 5 && rows_of(t) == 6 && t->shape[3] == 1, "size %" PRId64, t->size);
    EXPECT(strcmp(shape_text(t), "[2,3,5]") == 0 && strcmp(t->name, name) == 0, "%s %s", shape_text(t), t->name);
    for (int64_t i = 0; i < t->size; i++) EXPECT(t->data[i] == 0, "a new leaf is not zero at %" PRId64, i);
    EXPECT(ledger.live[MEMORY_ADAPTERS] == bytes(30), "%" PRId64 " bytes", ledger.live[MEMORY_ADAPTERS]);
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
    for (int64_t i = 0; i < t->size; i++) mean += number(t->data[i]) / (double)t->size;
    for (int64_t i = 0; i < t->size; i++) square += pow(number(t->data[i]) / 3,
            2) / (double)t->size, fourth += pow(number(t->data[i]) / 3, 4) / (double)t->size;
    EXPECT(fabs(mean) < 0.1 && fabs(square - 1) < 0.05 && fabs(fourth - 3) < 0.3,
            "normal: mean %g, variance / 9 %g, kurtosis %g", mean, square, fourth);
    fill_uniform(t, 0.25, 6);
    double least = 1, most = -1;
    mean = square = 0;
    for (int64_t i = 0; i < t->size; i++) {
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

static int64_t kept_then = -1, kept_now, kept_rises, kept_samples;
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
        Meter meter = { .cut = sample_kept };
        meter_watch(&meter, tape);
        Tensor *loss = transformer_loss(model, tape, small_text, small_text + 1, SMALL_B, SMALL_T);
        tensor_drop(loss);
        int64_t at_start = ledger.live[MEMORY_KEPT_ACTIVATIONS];
        kept_samples = kept_rises = 0;
        backward(tape, loss);
        EXPECT(kept_rises == 0 && kept_samples > 10, "%s: kept bytes rose %" PRId64 " times at %" PRId64 " gradients",
                training_names[training], kept_rises, kept_samples);
        EXPECT(at_start > 0 && kept_now < at_start / 2, "%s: from %" PRId64 " to %" PRId64 " at the last gradient", training_names[training],
                at_start, kept_now);
        EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0 && ledger.live[MEMORY_ACTIVATION_GRADIENTS] == 0 &&
                ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0,
               "%s: after backward, kept %" PRId64 ", live %" PRId64 ", gradients of results %" PRId64, training_names[training], ledger.live[MEMORY_KEPT_ACTIVATIONS],
               ledger.live[MEMORY_LIVE_ACTIVATIONS], ledger.live[MEMORY_ACTIVATION_GRADIENTS]);
        EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == bytes(transformer_trainable_size(model)),
                "%s: %" PRId64 " bytes of parameter gradients for %" PRId64 " numbers",
               training_names[training], ledger.live[MEMORY_PARAMETER_GRADIENTS], transformer_trainable_size(model));
        tape_free(tape);
        transformer_free(model);
    }
    EXPECT_NOTHING_LIVE();
}

// A result that a node kept and the caller still holds is kept until that node has run, then live, then gone.
static void backward_of_a_linear(void)
{
    Tensor *x = weights("x", 3, 5, 1, true), *W = weights("W", 5, 4, 2, true), *b = vector("b", 4, 3, true);
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

// What a node kept for a weight goes with the node, although the weight was frozen after the forward pass.
TEST(what_is_frozen_after_forward_is_let_go)
{
    Tensor *x = weights("x", 3, 5, 1, false), *W = weights("W", 5, 4, 2, true), *c = weights("c", 3, 4, 3, true);
    Tape *tape = tape_new();
    Tensor *h = op_scale(tape, x, 2), *loss = op_sum(tape, op_add(tape, op_matmul(tape, h, W), c));
    tensor_drop(h);
    EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(15), "%" PRId64 " bytes are kept: W's gradient would read h", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    W->requires_grad = false;
    backward(tape, loss);
    EXPECT(W->grad == NULL && c->grad != NULL, "W, now frozen, got a gradient, or c got none");
    EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0, "%" PRId64 " bytes are kept after backward", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    tape_free(tape);
    tensor_drop(x), tensor_drop(W), tensor_drop(c);
    EXPECT_NOTHING_LIVE();
}

TEST(each_result_is_listed_once)
{
    Transformer *model = model_new(LORA, 0, false);
    Tape *tape = tape_new();
    tensor_drop(transformer_loss(model, tape, small_text, small_text + 1, SMALL_B, SMALL_T));
    int64_t twice = 0;
    for (int i = 0; i < tape->result_count; i++)
        for (int j = 0; j < i; j++) twice += tape->results[i] == tape->results[j];
    EXPECT(twice == 0 && tape->result_count > 40, "of the tape's %d results, %" PRId64 " are in its list twice, and would be freed twice", tape->result_count, twice);
    if (twice > 0) return; // freeing them ends the program
    tape_free(tape);
    transformer_free(model);
    EXPECT_NOTHING_LIVE();
}

TEST(what_only_the_caller_holds_is_live_again)
{
    Tape *tape = tape_new();
    Tensor *x = weights("x", 3, 5, 1, true), *y = op_exp(tape, x); // the gradient of exp reads y
    Tensor *loss = op_sum(tape, y);
    EXPECT(y->kind == MEMORY_KEPT_ACTIVATIONS && ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(15), "%" PRId64 " bytes are kept", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    backward(tape, loss);
    EXPECT(y->kind == MEMORY_LIVE_ACTIVATIONS && ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0 && ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(15 + 1),
           "%" PRId64 " bytes are kept, %" PRId64 " live", ledger.live[MEMORY_KEPT_ACTIVATIONS], ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    tensor_drop(y);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(1), "%" PRId64 " bytes are live", ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    tape_free(tape);
    tensor_drop(x);
    EXPECT_NOTHING_LIVE();
}

// A leaf that gets dy itself: what was a gradient of a result is one of a leaf from then on.
TEST(a_gradient_taken_over_changes_its_kind)
{
    Tape *tape = tape_new();
    Tensor *x = weights("x", 3, 5, 1, true), *c = weights("c", 3, 5, 2, false);
    backward(tape, op_sum(tape, op_add(tape, x, c)));
    EXPECT(ledger.live[MEMORY_PARAMETER_GRADIENTS] == bytes(15) && ledger.live[MEMORY_ACTIVATION_GRADIENTS] == 0, "%" PRId64 " bytes of leaves' gradients, not %" PRId64 "; %" PRId64 " of results'",
           ledger.live[MEMORY_PARAMETER_GRADIENTS], bytes(15), ledger.live[MEMORY_ACTIVATION_GRADIENTS]);
    tape_free(tape);
    tensor_drop(x), tensor_drop(c);
    EXPECT_NOTHING_LIVE();
}

TEST(buffers_of_a_step_are_given_back)
{
    Transformer *model = model_new(LORA, 0.25, false);
    Tape *tape = tape_new();
    scratch_release();
    int64_t at_rest = ledger.total;
    for (int step = 0; step < 2; step++) {
        model_backward(model, tape);
        zero_grads(model);
        int64_t scratch = bytes(scratch_size(SMALL_T, 4) * parallel_threads());
        EXPECT(ledger.live[MEMORY_WORKSPACE] == scratch, "step %d: %" PRId64 " bytes of scratch, not %" PRId64, step, ledger.live[MEMORY_WORKSPACE], scratch);
        scratch_release(); // else it stays the threads'
        EXPECT(ledger.total == at_rest, "step %d: %" PRId64 " bytes more than before it", step, ledger.total - at_rest);
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
        int64_t mallocs = 0, total = 0, pool = 0;
        for (int step = 0; step < 6; step++) {
            tape->dropout_seed = (uint64_t)step;
            model_backward(model, tape);
            adamw_step(optimizer, 0.01);
            zero_grads(model);
            if (step == 1) mallocs = ledger.mallocs, total = ledger.total, pool = ledger.pool;
            if (step > 1) EXPECT(ledger.mallocs == mallocs && ledger.total == total && ledger.pool == pool,
                    "%s, recompute %d, step %d: %" PRId64 " more buffers, %" PRId64 " more bytes",
                                 training_names[form / 2], form % 2, step, ledger.mallocs - mallocs, ledger.total - total);
        }
        EXPECT(ledger.live[MEMORY_MOMENTS] == 2 * bytes(transformer_trainable_size(model)),
                "%" PRId64 " bytes of moments for %" PRId64 " numbers", ledger.live[MEMORY_MOMENTS], transformer_trainable_size(model));
        adamw_free(optimizer);
        tape_free(tape);
        transformer_free(model);
    }
    EXPECT_NOTHING_LIVE();
    memory_release_pool();
    EXPECT(ledger.pool == 0 && ledger.total == 0, "pool %" PRId64 ", total %" PRId64, ledger.pool, ledger.total);
}

// Reads a timeline: its last row, and the largest sum of a row. Returns the number of rows, or -1 if one is malformed.
static int64_t read_timeline(FILE *file, int64_t last[MEMORY_KINDS], int64_t own[MEMORY_KINDS], int64_t *peak, int64_t *backward_rows)
{
    char line[512];
    rewind(file);
    if (!fgets(line, sizeof line, file)) return -1;
    char header[512] = "phase,label";
    for (int k = 0; k < MEMORY_KINDS; k++) strcat(strcat(header, ","), memory_kind_names[k]);
    strcat(header, "\n");
    if (strcmp(line, header) != 0) return -1;
    int64_t rows = 0;
    while (fgets(line, sizeof line, file)) {
        char *place = strchr(line, ',');
        if (place) place = strchr(place + 1, ',');
        int64_t sum = 0;
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
    EXPECT(ledger.peak == ledger.total, "after the reset, the peak is %" PRId64 " and the total %" PRId64, ledger.peak, ledger.total);
    Meter meter = { 0 }; // which says where in a step each change is
    meter_watch(&meter, tape);
    memory_timeline(file);
    model_backward(model, tape);
    adamw_step(optimizer, 0.01);
    memory_timeline(NULL);
    int64_t last[MEMORY_KINDS], own[MEMORY_KINDS] = { 0 }, peak = 0, backward_rows = 0, at_peak = 0, total = 0;
    int64_t rows = read_timeline(file, last, own, &peak, &backward_rows);
    EXPECT(rows > 100 && backward_rows > 20, "%" PRId64 " rows, of which %" PRId64 " of backward", rows, backward_rows);
    EXPECT(peak == ledger.peak, "the highest row sums to %" PRId64 ", the ledger's peak is %" PRId64, peak, ledger.peak);
    for (int k = 0; k < MEMORY_KINDS; k++) {
        EXPECT(last[k] == ledger.live[k], "%s: the last row says %" PRId64 ", the ledger %" PRId64, memory_kind_names[k], last[k], ledger.live[k]);
        if (k != MEMORY_WEIGHTS) EXPECT(own[k] == ledger.own_peak[k], "%s: own peak %" PRId64 ", by the rows %" PRId64,
                memory_kind_names[k], ledger.own_peak[k], own[k]);
        EXPECT(ledger.at_peak[k] <= ledger.own_peak[k], "%s: at the peak more than ever", memory_kind_names[k]);
        at_peak += ledger.at_peak[k];
        total += ledger.live[k];
    }
    EXPECT(at_peak == ledger.peak && total == ledger.total, "the kinds sum to %" PRId64 " at the peak of %" PRId64 ", and to %" PRId64 " of %" PRId64,
            at_peak, ledger.peak, total, ledger.total);
    EXPECT(ledger.own_peak[MEMORY_MOMENTS] == 2 * bytes(transformer_trainable_size(model)), "the moments' own peak is %" PRId64,
            ledger.own_peak[MEMORY_MOMENTS]);
    int64_t written = ftell(file);
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
    Meter meter = { .trace = file };
    meter_watch(&meter, tape);
    model_backward(model, tape);
    char line[512], saves[80], flops[40];
    snprintf(saves, sizeof saves, "frozen: saves %" PRId64 " B", bytes(12 * 36));
    snprintf(flops, sizeof flops, ", %.3g MFLOP", 2e-6 * SMALL_B * SMALL_T * 12 * 36);
    int64_t skipped = 0, weights = 0, named = 0, above = 1000, disorder = 0, norms = 0;
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        int64_t number_ = strtol(strchr(line, '#') + 1, NULL, 10);
        disorder += number_ > above;
        above = number_;
        norms += strstr(line, "|g| = ") != NULL;
        EXPECT(strlen(line) <= 81, "%s", line); // with its end
        if (!strstr(line, "frozen: saves")) continue;
        skipped++;
        weights += (strstr(line, " linear ") && strstr(line, ".weight")) || strstr(line, " lm_head ");
        named += strstr(line, "d/d h.1.attn.c_attn.weight") && strstr(line, saves) && strstr(line, flops);
    }
    EXPECT(named == 1, "%" PRId64 " lines say what block 1's c_attn saves: %s %s", named, saves, flops);
    EXPECT(weights == meter.wgrad_skipped && weights == 4 * BLOCKS, "%" PRId64 " weights in the trace, %" PRId64 " counted", weights,
            meter.wgrad_skipped);
    EXPECT(skipped > weights && norms > 20 && disorder == 0, "%" PRId64 " skipped, %" PRId64 " norms, %" PRId64 " lines out of order", skipped, norms, disorder);
    fclose(file);
    tape_free(tape);
    transformer_free(model);
    EXPECT_NOTHING_LIVE();
}

int main(void)
{
    parallel_set_threads(2);
    RUN(gradients_add_up_until_they_are_dropped);
    RUN(a_branch_that_does_not_reach_the_loss_gets_nothing);
    RUN(a_tape_serves_again_after_backward);
    RUN(gradients_pass_through_frozen_weights);
    RUN(the_cut_hook_stops_a_gradient);
    RUN(mistakes_stop_the_program_and_say_why);
    RUN(impossible_sizes_and_names_are_refused);
    RUN(a_debug_build_knows_a_handle_whose_tensor_is_gone);
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
    RUN(what_is_frozen_after_forward_is_let_go);
    RUN(each_result_is_listed_once);
    RUN(what_only_the_caller_holds_is_live_again);
    RUN(a_gradient_taken_over_changes_its_kind);
    RUN(buffers_of_a_step_are_given_back);
    RUN(steady_state_asks_the_system_for_nothing);
    RUN(the_timeline_and_the_peaks_agree);
    RUN(the_trace_names_what_was_skipped);
    return test_summary();
}
