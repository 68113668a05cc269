// test_again.c - results that are not kept for backward, for the node that made them makes them again: layernorm's and gelu's. The
// same bits as when they are held, fewer bytes, and their work counted as recomputation.

#include "small.h"

enum { C = 24, LEAVES = 7 };

// Everything that can read a result: two linears, a gelu, a second layernorm, a product of results, an adapter, a block that is run
// again. `held`: results stay the caller's until backward has ended, so nothing needs to be made again.
typedef struct Net { Tensor *x, *gain, *bias, *W, *b, *A, *B; } Net;

static Net net_new(int rows)
{
    Net n = { weights("x", rows, C, 1, true), vector("gain", C, 2, true), vector("bias", C, 3, true), weights("W", C, C, 4, true),
              vector("b", C, 5, true), weights("A", C, 2, 6, true), weights("B", 2, C, 7, true) };
    return n;
}

static void leaves_of(const Net *n, Tensor *leaves[LEAVES])
{
    memcpy(leaves, (Tensor *[]){ n->x, n->gain, n->bias, n->W, n->b, n->A, n->B }, LEAVES * sizeof *leaves);
}

static void net_free(Net *n)
{
    Tensor *leaves[LEAVES];
    leaves_of(n, leaves);
    for (int i = 0; i < LEAVES; i++) tensor_drop(leaves[i]);
}

static Tensor *gelu_of_linear(Tape *tape, Tensor *x, void *context)
{
    const Net *n = context;
    Tensor *h = op_linear(tape, x, n->W, n->b), *y = op_gelu(tape, h), *z = op_linear(tape, y, n->W, n->b);
    tensor_drop(h), tensor_drop(y);
    return z;
}

static Tensor *loss_of(Net *n, Tape *tape, bool held)
{
    Tensor *h = op_layernorm(tape, n->x, n->gain, n->bias);       // read by four
    Tensor *l = op_linear(tape, h, n->W, n->b), *g = op_gelu(tape, l);
    Tensor *m = op_mul(tape, g, h), *gg = op_gelu(tape, h);       // gelu's x is itself made again
    Tensor *hh = op_layernorm(tape, gg, n->bias, n->gain);
    Tensor *ggg = op_gelu(tape, hh), *r = op_recompute(tape, gelu_of_linear, n, ggg, n->W);
    Tensor *a = op_matmul(tape, gg, n->A), *y = op_matmul_add(tape, r, a, n->B, 2);
    Tensor *last = op_gelu(tape, y);
    Tensor *s = op_add(tape, m, op_mul(tape, last, hh)), *loss = op_sum(tape, s);
    if (!held) {
        Tensor *results[] = { h, l, g, m, gg, hh, ggg, a, y, last, s };
        for (size_t i = 0; i < sizeof results / sizeof *results; i++) tensor_drop(results[i]);
    }
    return loss;
}

TEST(what_is_made_again_has_the_same_bits)
{
    static const int rows[] = { 3, 1200 }; // below and above the size from which all threads take part
    for (int size = 0; size < 2; size++)
        for (unsigned frozen = 0; frozen < 1u << LEAVES; frozen += size ? 29 : 1) {
            real *grads[2][LEAVES] = { { NULL } };
            int64_t again[2], peak[2];
            Net n = net_new(rows[size]);
            Tensor *leaves[LEAVES];
            leaves_of(&n, leaves);
            if (frozen == (1u << LEAVES) - 1) { net_free(&n); continue; }
            for (int i = 0; i < LEAVES; i++) leaves[i]->requires_grad = !(frozen >> i & 1);
            if (!n.W->requires_grad && !n.b->requires_grad) n.W->requires_grad = true; // the block is told that W trains
            for (int held = 0; held < 2; held++) {
                parallel_set_threads(1 + held);
                Tape *tape = tape_new();
                Meter meter = { 0 };
                meter_watch(&meter, tape);
                memory_reset_peaks();
                backward(tape, loss_of(&n, tape, held));
                again[held] = meter_phase(&meter, PHASE_RECOMPUTE).kernels, peak[held] = ledger.peak;
                tape_free(tape);
                for (int i = 0; i < LEAVES; i++) {
                    grads[held][i] = leaves[i]->grad ? copy_of(leaves[i]->grad, leaves[i]->size) : NULL;
                    tensor_drop_grad(leaves[i]);
                }
            }
            for (int i = 0; i < LEAVES; i++) {
                EXPECT((grads[0][i] != NULL) == leaves[i]->requires_grad, "frozen %#x: %s has %s gradient", frozen, leaves[i]->name, grads[0][i] ? "a" : "no");
                EXPECT(grads[0][i] == NULL || (grads[1][i] && same_bits(grads[0][i], grads[1][i], leaves[i]->size)), "frozen %#x: other bits in d/d %s", frozen, leaves[i]->name);
                free(grads[0][i]), free(grads[1][i]);
            }
            bool any = (frozen & 7) != 7; // else h is kept, as below the first adapter
            EXPECT(any ? again[0] > again[1] : again[0] == again[1], "frozen %#x: %" PRId64 " kernels ran again, with all results held %" PRId64, frozen, again[0], again[1]);
            EXPECT(peak[0] < peak[1], "frozen %#x: the peak is %" PRId64 ", with all results held %" PRId64, frozen, peak[0], peak[1]);
            net_free(&n);
        }
    EXPECT_NOTHING_LIVE();
}

// y = gelu(layernorm(x)) W: of the three results nothing is kept, of layernorm x and two numbers for each row.
TEST(only_what_makes_it_is_kept)
{
    enum { N = 5 };
    Net n = net_new(N);
    Tape *tape = tape_new();
    Tensor *x = op_scale(tape, n.x, 2), *h = op_layernorm(tape, x, n.gain, n.bias), *g = op_gelu(tape, h), *y = op_linear(tape, g, n.W, n.b);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(3 * N * C), "%" PRId64 " bytes are there for their caller alone", ledger.live[MEMORY_LIVE_ACTIVATIONS]);
    tensor_drop(x), tensor_drop(h), tensor_drop(g);
    EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(N * C + 2 * N), "%" PRId64 " bytes are kept", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == bytes(N * C), "%" PRId64 " bytes are live beside y", ledger.live[MEMORY_LIVE_ACTIVATIONS] - bytes(N * C));
    EXPECT(x->data != NULL && h->data == NULL && g->data == NULL, "x is gone, or another result is not");
    real *value = copy_of(y->data, y->size);
    backward(tape, op_sum(tape, y));
    EXPECT(y->data != NULL && same_bits(value, y->data, y->size), "what the caller holds is not what it was");
    EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == 0 && g->data == NULL && h->data == NULL, "what was made again is still there");
    free(value);
    tape_free(tape);
    net_free(&n);
    EXPECT_NOTHING_LIVE();
}

// Where nothing trains in what makes it, or only the bias, x is not kept; then the result itself is.
TEST(without_its_input_a_result_is_kept)
{
    enum { N = 5 };
    for (int bias_trains = 0; bias_trains < 2; bias_trains++) {
        Net n = net_new(N);
        n.x->requires_grad = n.gain->requires_grad = false, n.bias->requires_grad = bias_trains;
        Tape *tape = tape_new();
        Tensor *h = op_layernorm(tape, n.x, n.gain, n.bias), *y = op_linear(tape, h, n.W, n.b);
        tensor_drop(h);
        EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(N * C) && h->data != NULL, "bias trains %d: %" PRId64 " bytes are kept", bias_trains, ledger.live[MEMORY_KEPT_ACTIVATIONS]);
        Meter meter = { 0 };
        meter_watch(&meter, tape);
        backward(tape, op_sum(tape, y));
        EXPECT(meter_phase(&meter, PHASE_RECOMPUTE).kernels == 0, "bias trains %d: a result was made again", bias_trains);
        tape_free(tape);
        net_free(&n);
    }
    EXPECT_NOTHING_LIVE();
}

// The gradients read gain and bias only through the result; who drops the leaves before backward must not lose them.
TEST(leaves_dropped_before_backward_are_there_to_make_it_again)
{
    real *dW = NULL;
    for (int dropped = 0; dropped < 2; dropped++) {
        Net n = net_new(4);
        n.gain->requires_grad = n.bias->requires_grad = false;
        Tape *tape = tape_new();
        Tensor *h = op_layernorm(tape, n.x, n.gain, n.bias), *y = op_linear(tape, h, n.W, n.b), *loss = op_sum(tape, op_mul(tape, y, y));
        tensor_drop(h);
        if (dropped) tensor_drop(n.gain), tensor_drop(n.bias);
        backward(tape, loss);
        if (!dropped) dW = copy_of(n.W->grad, n.W->size);
        else EXPECT(same_bits(dW, n.W->grad, n.W->size), "other bits in dW once gain and bias are dropped");
        tape_free(tape);
        if (dropped) n.gain = n.bias = NULL;
        net_free(&n);
    }
    free(dW);
    EXPECT_NOTHING_LIVE();
}

// The result of matmul_add takes the place of y only if no node reads y later.
TEST(a_result_that_will_be_read_is_not_written_over)
{
    Net n = net_new(6);
    Tape *tape = tape_new();
    Tensor *y = op_gelu(tape, n.x), *l = op_linear(tape, y, n.W, n.b), *h = op_matmul(tape, n.x, n.A);
    const real *buffer = y->data;
    Tensor *out = op_matmul_add(tape, y, h, n.B, 2);
    EXPECT(out->data != buffer && y->data == NULL, "y's buffer was taken over, or y is still there");
    backward(tape, op_sum(tape, op_add(tape, l, out)));
    for (int i = 0; i < C; i++) { // l's share of dW: the column's sum of y, with dy = 1
        double sum = 0;
        for (int r = 0; r < 6; r++) {
            double x = number(n.x->data[r * C + i]);
            sum += 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
        }
        EXPECT(fabs(number(n.W->grad[i * C]) - sum) < 100 * EPSILON, "dW[%d] = %g, not %g", i, number(n.W->grad[i * C]), sum);
    }
    tape_free(tape);
    net_free(&n);
    EXPECT_NOTHING_LIVE();
}

static bool cut_weights(const Node *n, int input) { return n->op->weight && input == n->op->weight; }

TEST(nothing_is_made_again_for_no_one)
{
    for (int form = 0; form < 2; form++) { // a gradient that is cut; a branch that does not reach the loss
        Net n = net_new(3);
        Tape *tape = tape_new();
        Meter meter = { .cut = form == 0 ? cut_weights : NULL };
        meter_watch(&meter, tape);
        Tensor *g = op_gelu(tape, n.x), *y = op_linear(tape, g, n.W, n.b), *loss = op_sum(tape, form == 0 ? y : n.x);
        tensor_drop(g), tensor_drop(y);
        backward(tape, loss);
        EXPECT(n.x->grad != NULL && n.W->grad == NULL, "form %d: x has %s gradient, W %s", form, n.x->grad ? "a" : "no", n.W->grad ? "one" : "none");
        EXPECT(meter_phase(&meter, PHASE_RECOMPUTE).kernels == 0, "form %d: %" PRId64 " kernels ran again", form, meter_phase(&meter, PHASE_RECOMPUTE).kernels);
        tape_free(tape);
        net_free(&n);
    }
    EXPECT_NOTHING_LIVE();
}

// In a model: two layernorms and a gelu of each block, and the last layernorm; as recomputation, without FLOPs of products.
TEST(the_meter_counts_them_as_recomputation)
{
    for (Training training = FULL; training < TRAININGS; training++) {
        Transformer *model = model_new(training, 0, false);
        Tape *tape = tape_new();
        Meter meter = { 0 };
        meter_watch(&meter, tape);
        backward(tape, transformer_loss(model, tape, small_text, small_text + 1, SMALL_B, SMALL_T));
        Work norms = meter_op(&meter, &layernorm_op, PHASE_RECOMPUTE), gelus = meter_op(&meter, &gelu_op, PHASE_RECOMPUTE), all = meter_phase(&meter, PHASE_RECOMPUTE);
        // LoRA on c_attn and mlp.c_proj: the lowest adapted block's first layernorm is not recorded, and keeps its result
        int64_t norms_expected = training == FULL ? 2 * BLOCKS + 1 : training == LORA ? BLOCKS - 1 : 0, gelus_expected = training == TOP_LORA ? 1 : BLOCKS;
        EXPECT(norms.kernels == norms_expected && gelus.kernels == gelus_expected, "%s: %" PRId64 " layernorms and %" PRId64 " gelus",
               training_names[training], norms.kernels, gelus.kernels);
        EXPECT(all.kernels == norms.kernels + gelus.kernels && all.flops == 0 && gelus.seconds > 0, "%s: %" PRId64 " kernels, %" PRId64 " FLOPs, %g s",
               training_names[training], all.kernels, all.flops, gelus.seconds);
        EXPECT(meter_op(&meter, &gelu_op, PHASE_FORWARD).kernels == BLOCKS, "%s: %" PRId64 " gelus in forward", training_names[training], meter_op(&meter, &gelu_op, PHASE_FORWARD).kernels);
        tape_free(tape);
        transformer_free(model);
    }
    EXPECT_NOTHING_LIVE();
}

static void wait_two_milliseconds(void)
{
    for (double start = seconds_now(); seconds_now() < start + 2e-3;) continue;
}

static void slow_forward(const Node *n, Part part)
{
    if (part.index == 0) wait_two_milliseconds();
    gelu_op.forward(n, part);
}

// The time of making a result again is not the gradient's that asked for it.
TEST(its_time_is_not_the_gradients)
{
    Net n = net_new(3);
    Tape *tape = tape_new();
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    Op slow = gelu_op;
    slow.forward = slow_forward;
    Tensor *g = record(tape, (Node){ .op = &slow, .in = { n.x } }, NULL, n.x->ndim, n.x->shape), *y = op_linear(tape, g, n.W, n.b);
    tensor_drop(g);
    backward(tape, op_sum(tape, y));
    double again = meter_op(&meter, &slow, PHASE_RECOMPUTE).seconds, gradient = meter_op(&meter, &linear_op, PHASE_WGRAD).seconds;
    EXPECT(again >= 2e-3 && gradient < again, "made again in %g s, the gradients in %g s", again, gradient);
    EXPECT(meter_phase(&meter, PHASE_FORWARD).seconds >= 2e-3, "forward took %g s", meter_phase(&meter, PHASE_FORWARD).seconds);
    tape_free(tape);
    net_free(&n);
    EXPECT_NOTHING_LIVE();
}

// Each is made from the one before it, 300 deep; once.
TEST(a_long_chain_is_made_once)
{
    enum { LONG = 300 };
    Net n = net_new(2);
    Tape *tape = tape_new();
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    Tensor *h = op_scale(tape, n.x, 1);
    for (int i = 0; i < LONG; i++) {
        Tensor *next = op_gelu(tape, h);
        tensor_drop(h);
        h = next;
    }
    EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == bytes(2 * C), "%" PRId64 " bytes are kept: more than the lowest x", ledger.live[MEMORY_KEPT_ACTIVATIONS]);
    backward(tape, op_sum(tape, h));
    EXPECT(meter_phase(&meter, PHASE_RECOMPUTE).kernels == LONG - 1, "%" PRId64 " gelus were made again", meter_phase(&meter, PHASE_RECOMPUTE).kernels);
    tape_free(tape);
    net_free(&n);
    EXPECT_NOTHING_LIVE();
}

int main(void)
{
    RUN(what_is_made_again_has_the_same_bits);
    RUN(only_what_makes_it_is_kept);
    RUN(without_its_input_a_result_is_kept);
    RUN(leaves_dropped_before_backward_are_there_to_make_it_again);
    RUN(a_result_that_will_be_read_is_not_written_over);
    RUN(nothing_is_made_again_for_no_one);
    RUN(the_meter_counts_them_as_recomputation);
    RUN(its_time_is_not_the_gradients);
    RUN(a_long_chain_is_made_once);
    return test_summary();
}
