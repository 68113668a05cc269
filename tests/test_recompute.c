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

// ---------------------------------------------------------------------------------------------------------------- the observer

enum { MOST_TOLD = 4000, MOST_GRADS = 64 };

// What an observer is told, in the order in which it is.
typedef struct Told { const Op *op; int input; Event event; bool again; } Told;
static struct { int count, strayed; Told of[MOST_TOLD]; } told[2];

static bool listen(void *watcher, const Tape *tape, const Node *n, int input, Event event)
{
    int which = *(const int *)watcher;
    if (input == FORWARD && event != BEFORE && event != AFTER && event != NOT_RECORDED) return true; // of a forward, no more is asked for here
    told[which].strayed += input != FORWARD && !(n >= tape->nodes && n < tape->nodes + tape->count); // a node of that tape
    if (told[which].count < MOST_TOLD) told[which].of[told[which].count++] = (Told){ n->op, input, event, tape->replaying && input == FORWARD };
    return true;
}

// Only what is told of the first run and of backward, without op_recompute itself; returns how many.
static int first_runs(int which, Told *to)
{
    int count = 0;
    for (int i = 0; i < told[which].count; i++)
        if (told[which].of[i].op != &recompute_op && !told[which].of[i].again) to[count++] = told[which].of[i];
    return count;
}

static bool same_told(Told a, Told b) { return a.op == b.op && a.input == b.input && a.event == b.event; }

// The second runs: the forwards of each recorded block once more, the top one first.
static void expect_the_blocks_again(Training training, int before, int behind)
{
    const Op *forwards[MOST_TOLD], *again[MOST_TOLD];
    int count = 0, more = 0;
    bool backwards = false;
    for (int i = 0; i < told[1].count; i++) {
        Told t = told[1].of[i];
        backwards |= t.input != FORWARD;
        if (t.input != FORWARD || t.event != BEFORE || t.op == &recompute_op) continue;
        if (t.again) again[more++] = t.op;
        else if (!backwards) forwards[count++] = t.op;
    }
    const int of_adapters = training == TOP_LORA ? 4 : 0; // which the blocks below the top have not
    int each = (count - before - behind + (BLOCKS - 1) * of_adapters) / BLOCKS, wrong = 0;
    EXPECT(more == each * (training == TOP_LORA ? 1 : BLOCKS) && each >= 10, "%s: %d forwards run again, of blocks of %d", training_names[training], more, each);
    for (int i = 0; i < more && each >= 10 && more <= count; i++) wrong += again[i] != forwards[count - behind - (i / each + 1) * each + i % each];
    EXPECT(wrong == 0, "%s: %d of the forwards that run again are others", training_names[training], wrong);
}

// Of a block that is run again, an observer is told what it is told of one that is not, in the same order: nothing twice, nothing
// left out. The second run comes on top of it, and says so.
TEST(an_observer_hears_the_same_of_a_recomputed_block)
{
    static Told first[2][MOST_TOLD];
    for (Training training = FULL; training < TRAININGS; training++)
        for (int dropout = 0; dropout < 2; dropout++) {
            int counts[2], open = 0;
            for (int recompute = 0; recompute < 2; recompute++) {
                Transformer *model = model_new(training, dropout ? 0.25 : 0, recompute);
                Tape *tape = tape_new();
                tape->watch = listen, tape->watcher = &recompute;
                told[recompute].count = told[recompute].strayed = 0;
                model_backward(model, tape);
                counts[recompute] = first_runs(recompute, first[recompute]);
                for (int i = 0; i < told[recompute].count; i++) { // nothing runs within something else
                    Told t = told[recompute].of[i];
                    open += t.event == BEFORE && !(i + 1 < told[recompute].count && same_told(told[recompute].of[i + 1], (Told){ t.op, t.input, AFTER, false }));
                }
                EXPECT(told[recompute].strayed == 0, "%d gradients are said to be of another tape than their nodes", told[recompute].strayed);
                tape_free(tape);
                transformer_free(model);
            }
            int differ = 0;
            for (int i = 0; i < counts[0] && i < counts[1]; i++) differ += !same_told(first[0][i], first[1][i]);
            EXPECT(counts[0] == counts[1] && differ == 0 && counts[0] > 100, "%s: told %d events, with recomputation %d, and %d of them others", training_names[training],
                   counts[0], counts[1], differ);
            EXPECT(open == 0, "%s: %d kernels begin and do not end at once", training_names[training], open);
            expect_the_blocks_again(training, 1 + dropout, 4);
        }
    EXPECT_NOTHING_LIVE();
}

static const Op *op_to_cut;
static int input_to_cut, times_cut;
static bool cut_one(const Node *n, int input)
{
    bool cut = n->op == op_to_cut && input == input_to_cut;
    times_cut += cut;
    return cut;
}

static void all_gradients(const Transformer *model, real **grads)
{
    for (int i = 0; i < model->parameter_count; i++) grads[i] = copy_of(model->parameters[i]->grad, model->parameters[i]->size);
}

// One kind of gradient after the other is cut: what is left does not depend on recomputation, and is not what it was.
TEST(a_gradient_is_cut_within_a_recomputed_block)
{
    int cuts = 0;
    for (int op = 0; all_ops[op] != NULL; op++)
        for (int input = 0; input < MAX_INPUTS; input++) {
            real *grads[3][MOST_GRADS] = { { NULL } };
            int cut[3] = { 0 }, others = 0, changed = 0;
            Meter counts[3] = { { .cut = cut_one }, { .cut = cut_one }, { .trace = NULL } };
            for (int form = 0; form < 3; form++) { // kept, recomputed, and kept without a cut
                Transformer *model = model_new(LORA, 0.25, form == 1);
                Tape *tape = tape_new();
                tape->dropout_seed = 5;
                op_to_cut = all_ops[op], input_to_cut = input, times_cut = 0;
                meter_watch(&counts[form], tape);
                model_backward(model, tape);
                cut[form] = times_cut;
                all_gradients(model, grads[form]);
                for (int i = 0; i < model->parameter_count && form > 0; i++) {
                    real *a = grads[0][i], *b = grads[form][i];
                    bool same = (a == NULL) == (b == NULL) && (a == NULL || same_bits(a, b, model->parameters[i]->size));
                    *(form == 1 ? &others : &changed) += !same;
                }
                tape_free(tape);
                transformer_free(model);
            }
            for (int form = 0; form < 3; form++)
                for (int i = 0; i < MOST_GRADS; i++) free(grads[form][i]);
            EXPECT(cut[0] == cut[1] && others == 0, "%s, input %d: cut %d times, recomputed %d times; %d other gradients", all_ops[op]->name, input, cut[0], cut[1], others);
            EXPECT(cut[2] == 0 && (changed > 0) == (cut[0] > 0), "%s, input %d: cut %d times, and %d gradients changed", all_ops[op]->name, input, cut[0], changed);
            for (Phase p = PHASE_DGRAD; p <= PHASE_WGRAD; p++)
                EXPECT(meter_phase(&counts[0], p).kernels == meter_phase(&counts[1], p).kernels && meter_phase(&counts[0], p).flops == meter_phase(&counts[1], p).flops,
                       "%s, input %d: %s is counted otherwise when recomputed", all_ops[op]->name, input, phase_names[p]);
            cuts += cut[0] > 0;
        }
    EXPECT(cuts >= 14, "%d kinds of gradients were cut", cuts);
    EXPECT_NOTHING_LIVE();
}

static bool cut_second(const Node *n, int input) { return n->op == &matmul_op && input == 1; }

TEST(what_is_cut_is_not_counted)
{
    Tensor *x = weights("x", 3, 5, 1, true), *W = weights("W", 5, 7, 2, true);
    Tape *tape = tape_new();
    Meter meter = { .cut = cut_second };
    meter_watch(&meter, tape);
    backward(tape, op_sum(tape, op_matmul(tape, x, W)));
    Work work = meter_op(&meter, &matmul_op, PHASE_WGRAD);
    EXPECT(work.kernels == 1 && work.flops == 2 * 3 * 5 * 7 && W->grad == NULL && x->grad != NULL, "%" PRId64 " kernels, %" PRId64 " FLOPs, not those of x alone", work.kernels,
           work.flops);
    tape_free(tape);
    tensor_drop(x), tensor_drop(W);
    EXPECT_NOTHING_LIVE();
}

// Lines of a trace without numbers of nodes and of results, which recomputation changes: op, shape, and what is said of it.
static int lines_of(FILE *file, char lines[][160], int most)
{
    char line[512], op[40], name[100], shape[40], rest[120];
    int count = 0;
    rewind(file);
    while (count < most && fgets(line, sizeof line, file)) {
        if (sscanf(line, " #%*d %39s d/d %99s %39s %119[^\n]", op, name, shape, rest) != 4) return -1;
        snprintf(lines[count++], 160, "%.20s %.40s %.20s %.60s", op, strchr(name, '#') ? "a result" : name, shape, rest);
    }
    return count;
}

TEST(a_recomputed_block_is_traced_like_any_other)
{
    enum { MOST = 400 };
    static char lines[2][MOST][160];
    for (Training training = FULL; training < TRAININGS; training++) {
        int counts[2] = { 0 }, differ = 0;
        for (int recompute = 0; recompute < 2; recompute++) {
            Transformer *model = model_new(training, 0, recompute);
            Tape *tape = tape_new();
            FILE *file = tmpfile();
            if (file == NULL) return;
            Meter meter = { .trace = file };
            meter_watch(&meter, tape);
            model_backward(model, tape);
            counts[recompute] = lines_of(file, lines[recompute], MOST);
            fclose(file);
            tape_free(tape);
            transformer_free(model);
        }
        for (int i = 0; i < counts[0] && i < counts[1]; i++)
            if (strcmp(lines[0][i], lines[1][i]) != 0 && differ++ == 0) printf("     %s\n     %s\n", lines[0][i], lines[1][i]);
        EXPECT(counts[0] == counts[1] && counts[0] > 20 && counts[0] < MOST && differ == 0, "%s: %d lines, with recomputation %d, %d of them others", training_names[training],
               counts[0], counts[1], differ);
    }
    EXPECT_NOTHING_LIVE();
}

// ---------------------------------------------------------------------------------------------------------------------- times

static const double FORWARD_TIME = 0.0015, GRADIENT_TIME = 0.001; // seconds

static void spend(double seconds)
{
    for (double end = seconds_now() + seconds; seconds_now() < end; ) continue;
}

static void slow_forward(const Node *n, Part part) { (void)part, spend(FORWARD_TIME), n->out->data[0] = n->in[0]->data[0]; }
static void slow_grad(const Node *n, Part part) { (void)part, spend(GRADIENT_TIME), n->in[0]->grad[0] += n->out->grad[0]; }
static int64_t slow_flops(const Node *n) { return 7 * n->in[0]->size; }
static const Op slow_op = { .name = "slow", .forward = slow_forward, .flops = slow_flops, .input = { { .grad = slow_grad, .work = 3 } } };

static Tensor *slow(Tape *tape, Tensor *x) { return record(tape, (Node){ .op = &slow_op, .in = { x } }, NULL, SHAPE(1)); }

static Tensor *slow_block(Tape *tape, Tensor *x, void *context)
{
    (void)context;
    Tensor *h = slow(tape, x), *y = slow(tape, h);
    tensor_drop(h);
    return y;
}

// Time is counted where it is spent, each kernel's once: so no more than has passed, and no less than the kernels take.
TEST(times_are_those_of_the_kernels)
{
    enum { SLOW_BLOCKS = 2, CALLS = 2 * SLOW_BLOCKS };
    for (int recompute = 0; recompute < 2; recompute++) {
        Tensor *x = leaf("x", 2, true), *y = x;
        Tape *tape = tape_new();
        Meter meter = { 0 };
        meter_watch(&meter, tape);
        double begin = seconds_now(), sum = 0;
        for (int i = 0; i < SLOW_BLOCKS; i++) y = recompute ? op_recompute(tape, slow_block, NULL, y, NULL) : slow_block(tape, y, NULL);
        spend(2 * FORWARD_TIME); // of nobody
        backward(tape, y);
        double passed = seconds_now() - begin - 2 * FORWARD_TIME;
        const struct { Phase phase; int64_t kernels, flops; double seconds; } expected[] = {
            { PHASE_FORWARD, CALLS, 7 * CALLS, FORWARD_TIME },
            { PHASE_RECOMPUTE, recompute * CALLS, recompute * 7 * CALLS, FORWARD_TIME },
            { PHASE_DGRAD, CALLS - 1, 21 * (CALLS - 1), GRADIENT_TIME },
            { PHASE_WGRAD, 1, 21, GRADIENT_TIME },
        };
        for (int i = 0; i < 4; i++) {
            Work work = meter_op(&meter, &slow_op, expected[i].phase), all = meter_phase(&meter, expected[i].phase);
            EXPECT(work.kernels == expected[i].kernels && work.flops == expected[i].flops, "recompute %d, %s: %" PRId64 " kernels, %" PRId64 " FLOPs", recompute,
                   phase_names[expected[i].phase], work.kernels, work.flops);
            EXPECT(work.seconds >= (double)work.kernels * expected[i].seconds, "recompute %d, %s: %g s, which %" PRId64 " kernels cannot do", recompute,
                   phase_names[expected[i].phase], work.seconds, work.kernels);
            EXPECT(all.seconds >= work.seconds && all.kernels >= work.kernels, "recompute %d, %s: the sum over all ops is less than one of them", recompute,
                   phase_names[expected[i].phase]);
            sum += all.seconds;
        }
        EXPECT(sum <= passed, "recompute %d: %g s are counted, and %g have passed", recompute, sum, passed);
        EXPECT(meter_op(&meter, &recompute_op, PHASE_FORWARD).kernels == recompute * SLOW_BLOCKS, "%" PRId64 " kernels of op_recompute",
               meter_op(&meter, &recompute_op, PHASE_FORWARD).kernels);
        tape_free(tape);
        tensor_drop(x);
    }
    EXPECT_NOTHING_LIVE();
}

int main(void)
{
    parallel_set_threads(2);
    RUN(recomputation_changes_no_bit);
    RUN(recomputation_within_recomputation);
    RUN(recomputation_on_a_frozen_input);
    RUN(a_block_beside_the_loss_is_not_run_again);
    RUN(an_observer_hears_the_same_of_a_recomputed_block);
    RUN(a_gradient_is_cut_within_a_recomputed_block);
    RUN(what_is_cut_is_not_counted);
    RUN(a_recomputed_block_is_traced_like_any_other);
    RUN(times_are_those_of_the_kernels);
    return test_summary();
}
