// test_recompute.c - a block that is run again in backward: the same bits, fewer bytes, and its work counted apart.

#include "small.h"

TEST(recomputation_changes_no_bit)
{
    for (Training training = FULL; training < TRAININGS; training++)
        for (int dropout = 0; dropout < 2; dropout++) {
            double loss[2];
            Meter counts[2] = { { .trace = NULL }, { .trace = NULL } };
            int64_t kept[2];
            real *grads[2][64] = { { NULL } };
            int parameters = 0;
            for (int recompute = 0; recompute < 2; recompute++) {
                Transformer *model = model_new(training, dropout ? 0.25 : 0, recompute);
                Tape *tape = tape_new();
                meter_watch(&counts[recompute], tape);
                tape->dropout_seed = 17;
                parameters = model->parameter_count;
                memory_reset_peaks();
                Tensor *l = transformer_loss(model, tape, small_text, small_text + 1, SMALL_B, SMALL_T);
                EXPECT(l->requires_grad, "%s, recompute %d: nothing trains", training_names[training], recompute);
                if (!l->requires_grad) return;
                loss[recompute] = number(l->data[0]);
                kept[recompute] = ledger.live[MEMORY_KEPT_ACTIVATIONS];
                tensor_drop(l);
                backward(tape, l);
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
            EXPECT(kept[1] < kept[0], "%s: %" PRId64 " bytes kept, with recomputation %" PRId64, training_names[training], kept[0], kept[1]);
            const Meter *a = &counts[0], *b = &counts[1];
            EXPECT(a->dgrad == b->dgrad && a->wgrad == b->wgrad && a->wgrad_skipped == b->wgrad_skipped &&
                    a->wgrad_never_recorded == b->wgrad_never_recorded &&
                   a->adapter_gradients == b->adapter_gradients, "%s: gradients are counted otherwise when recomputed", training_names[training]);
            for (Phase p = PHASE_FORWARD; p < PHASE_RECOMPUTE; p++)
                EXPECT(meter_phase(a, p).flops == meter_phase(b, p).flops && meter_phase(a, p).flops > 0,
                        "%s, %s: %" PRId64 " FLOPs, with recomputation %" PRId64, training_names[training],
                       phase_names[p], meter_phase(a, p).flops, meter_phase(b, p).flops);
            // the blocks' forward FLOPs once more, of those blocks that were recorded
            int64_t again = meter_phase(b, PHASE_RECOMPUTE).flops, head = meter_op(a, &lm_head_op, PHASE_FORWARD).flops;
            int64_t blocks = meter_phase(a, PHASE_FORWARD).flops - head;
            if (training == TOP_LORA) EXPECT(again > 0 && again < blocks, "only the top block is run again: %" PRId64 " of %" PRId64, again, blocks);
            else EXPECT(again == blocks, "%s: %" PRId64 " FLOPs are recomputed, not %" PRId64, training_names[training], again, blocks);
            EXPECT(meter_phase(a, PHASE_RECOMPUTE).flops == 0, "recomputation without being asked for");
            int64_t differ = 0;
            for (int i = 0; i < parameters; i++) differ += grads[0][i] != NULL;
            EXPECT(differ == (training == FULL ? parameters : training == LORA ? 4 * BLOCKS : 4), "%" PRId64 " gradients", differ);
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
    Tensor *W = context, *h = op_recompute(tape, inner_block, W, x, W->requires_grad ? W : NULL), *y = op_recompute(tape, inner_block,
            W, h, W->requires_grad ? W : NULL);
    tensor_drop(h);
    return y;
}

TEST(recomputation_within_recomputation)
{
    enum { N = 3, W_ = 5 };
    const int64_t f = 2 * N * W_ * W_; // FLOPs of one product
    Tensor *x = weights("x", N, W_, 1, true), *W = weights("W", W_, W_, 2, true);
    real *dx = NULL, *dW = NULL;
    for (int nested = 0; nested < 2; nested++) {
        Tape *tape = tape_new();
        Meter meter = { 0 };
        meter_watch(&meter, tape);
        tape->dropout_seed = 3;
        Tensor *y;
        if (nested) y = op_recompute(tape, outer_block, W, x, W);
        else y = inner_block(tape, inner_block(tape, x, W), W);
        backward(tape, op_sum(tape, y));
        if (!nested) dx = copy_of(x->grad, x->size), dW = copy_of(W->grad, W->size);
        else {
            EXPECT(same_bits(dx, x->grad, x->size) && norm_of(dx, x->size) > 0.01, "other bits in dx");
            EXPECT(same_bits(dW, W->grad, W->size) && norm_of(dW, W->size) > 0.01, "other bits in dW");
        }
        int64_t forward = meter_phase(&meter, PHASE_FORWARD).flops, again = meter_phase(&meter, PHASE_RECOMPUTE).flops;
        int64_t dgrad = meter_phase(&meter, PHASE_DGRAD).flops, wgrad = meter_phase(&meter, PHASE_WGRAD).flops;
        // x and W are leaves: d/dx of the first product is a gradient of a leaf
        EXPECT(forward == 2 * f && dgrad == f && wgrad == 3 * f, "nested %d: forward %" PRId64 ", dgrad %" PRId64 ", wgrad %" PRId64 " products",
                nested, forward / f, dgrad / f, wgrad / f);
        EXPECT(again == (nested ? 4 * f : 0), "nested %d: %" PRId64 " products recomputed", nested, again / f);
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
    Tensor *x = weights("x", 3, 5, 1, false), *W = weights("W", 5, 5, 2, true);
    Tape *tape = tape_new();
    Tensor *y = op_recompute(tape, inner_block, W, x, W);
    EXPECT(y->requires_grad, "the result's flag is false: nothing inside would train");
    backward(tape, op_sum(tape, y));
    EXPECT(W->grad && norm_of(W->grad, W->size) > 0.01 && x->grad == NULL, "W got no gradient, or x got one");
    tape_clear(tape);
    tensor_drop_grad(W);
    W->requires_grad = false;
    y = op_recompute(tape, inner_block, W, x, NULL);
    EXPECT(!y->requires_grad && tape->count == 0, "nothing trains, and a node is recorded");
    tape_free(tape);
    tensor_drop(x), tensor_drop(W);
    EXPECT_NOTHING_LIVE();
}

// Backward passes it over: its result did not lead to the loss.
TEST(a_block_beside_the_loss_is_not_run_again)
{
    Tensor *x = weights("x", 3, 5, 1, true), *W = weights("W", 5, 5, 2, true);
    Tape *tape = tape_new();
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    Tensor *loss = op_sum(tape, op_matmul(tape, x, W));
    op_recompute(tape, inner_block, W, x, W);
    backward(tape, loss);
    EXPECT(meter_phase(&meter, PHASE_RECOMPUTE).kernels == 0, "%" PRId64 " kernels ran again", meter_phase(&meter, PHASE_RECOMPUTE).kernels);
    EXPECT(W->grad && norm_of(W->grad, W->size) > 0.01, "what feeds the loss got no gradient");
    tape_free(tape);
    tensor_drop(x), tensor_drop(W);
    EXPECT_NOTHING_LIVE();
}

int main(void)
{
    parallel_set_threads(2);
    RUN(recomputation_changes_no_bit);
    RUN(recomputation_within_recomputation);
    RUN(recomputation_on_a_frozen_input);
    RUN(a_block_beside_the_loss_is_not_run_again);
    return test_summary();
}
