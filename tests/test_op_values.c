// test_op_values.c - single ops where their formulas are most easily wrong: numbers far from zero, rows of every length, ids that are
// none, and dropout's share.

#include "../adapters.h"
#include "../generate.h"
#include "../ops.h"
#include "../training.h"
#include "child.h"
#include "gradcheck.h"
#include "test.h"

// ------------------------------------------------------------------------------------------------------ values at the extremes

TEST(softmax_and_cross_entropy_survive_large_logits)
{
    const real large[] = { 900, -900, 899, 3, 900 };
    const int target[] = { 2 };
    Tensor *x = tensor_from("x", large, SHAPE(1, 5));
    Tensor *y = op_softmax(NULL, x), *loss = op_cross_entropy(NULL, x, target);
    double sum = 2 + exp(-1);
    EXPECT(fabs(at(y, 0) - 1 / sum) < 4 * EPSILON && fabs(at(y, 2) - exp(-1) / sum) < 4 * EPSILON, "%g %g", at(y, 0), at(y, 2));
    EXPECT(at(y, 1) < 1e-30 && at(y, 3) < 1e-30, "%g %g", at(y, 1), at(y, 3));
    EXPECT(fabs(at(loss, 0) - (1 + log(sum))) < 900 * EPSILON, "%.9g, not %.9g", at(loss, 0), 1 + log(sum));
    tensor_drop(loss);
    tensor_drop(y);
    for (int64_t i = 0; i < x->size; i++) x->data[i] = (real)-1e4 + (real)i; // all far below 0: still a distribution
    y = op_softmax(NULL, x);
    sum = 0;
    for (int64_t i = 0; i < y->size; i++) sum += at(y, i);
    EXPECT(fabs(sum - 1) < 8 * EPSILON && at(y, 4) > at(y, 3), "the sum is %.9g", sum);
    tensor_drop(y);
    tensor_drop(x);
}

TEST(softmax_keeps_nan)
{
    Tensor *x = tensor_from("x", (real[]){ 1, (real)NAN, 2 }, SHAPE(1, 3)), *y = op_softmax(NULL, x);
    EXPECT(isnan(at(y, 0)) && isnan(at(y, 1)) && isnan(at(y, 2)), "softmax hides a NaN: %g %g %g", at(y, 0), at(y, 1), at(y, 2));
    tensor_drop(x), tensor_drop(y);
}

TEST(gelu_far_from_zero)
{
    const real far[] = { -40, -12, -6, 6, 12, 40, 0 };
    Tensor *x = tensor_from("x", far, SHAPE(7));
    x->requires_grad = true;
    Tape *tape = tape_new();
    Tensor *y = op_gelu(tape, x);
    backward(tape, op_sum(tape, y));
    for (int i = 0; i < 7; i++) {
        EXPECT(fabs(at(y, i) - gelu_of((double)far[i])) <= 1e-6 + 4 * EPSILON * fabs((double)far[i]), "gelu(%g) = %g",
                (double)far[i], at(y, i));
        double slope = i < 3 ? 0 : i < 6 ? 1 : 0.5;
        EXPECT(fabs((double)x->grad[i] - slope) < 1e-6, "the slope at %g is %g", (double)far[i], (double)x->grad[i]);
    }
    tape_free(tape);
    tensor_drop(x);
}

TEST(relu_has_slope_0_at_0)
{
    Tensor *x = tensor_from("x", (real[]){ 0, (real)-0.5, (real)0.5 }, SHAPE(3));
    x->requires_grad = true;
    Tape *tape = tape_new();
    backward(tape, op_sum(tape, op_relu(tape, x)));
    EXPECT(x->grad[0] == 0 && x->grad[1] == 0 && x->grad[2] == 1, "%g %g %g", (double)x->grad[0], (double)x->grad[1], (double)x->grad[2]);
    tape_free(tape);
    tensor_drop(x);
}

// ------------------------------------------------------------------------------------------------------------------- dropout

static real *dropped(Tape *tape, Tensor *x, real p, int calls_before)
{
    tape_clear(tape);
    for (int i = 0; i < calls_before; i++) op_dropout(tape, x, p);
    return copy_of(op_dropout(tape, x, p)->data, x->size);
}

TEST(dropout_drops_its_share_and_can_be_replayed)
{
    enum { N = 20000 };
    Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(N));
    for (int64_t i = 0; i < N; i++) x->data[i] = 3;
    Tape *tape = tape_new();
    static const double chances[] = { 0, 0.1, 0.5, 0.9 };
    for (int k = 0; k < 4; k++) {
        tape->dropout_seed = 11;
        real *y = dropped(tape, x, (real)chances[k], 0);
        int64_t zeros = 0, others = 0, pairs = 0;
        for (int64_t i = 0; i < N; i++) {
            zeros += y[i] == 0;
            others += y[i] != 0 && fabs((double)y[i] - 3 / (1 - chances[k])) > 100 * EPSILON;
            pairs += i > 0 && y[i] == 0 && y[i - 1] == 0;
        }
        double share_ = (double)zeros / N, deviation = sqrt(chances[k] * (1 - chances[k]) / N);
        EXPECT(fabs(share_ - chances[k]) <= 5 * deviation, "p = %g: a share of %g is zero", chances[k], share_);
        EXPECT(fabs((double)pairs / N - chances[k] * chances[k]) <= 0.03, "p = %g: neighbours are not independent: %g",
                chances[k], (double)pairs / N);
        EXPECT(others == 0, "p = %g: %" PRId64 " elements are neither 0 nor x / (1 - p)", chances[k], others);
        real *again = dropped(tape, x, (real)chances[k], 0), *next = dropped(tape, x, (real)chances[k], 1);
        tape->dropout_seed = 12;
        real *other = dropped(tape, x, (real)chances[k], 0);
        EXPECT(same_bits(y, again, N), "p = %g: the same call gave other elements", chances[k]);
        if (k > 0) EXPECT(!same_bits(y, next, N) && !same_bits(y, other, N),
                "p = %g: another call, or another seed, gave the same elements", chances[k]);
        free(y), free(again), free(next), free(other);
    }
    tape_free(tape);
    tensor_drop(x);
}

// Threads seldom show that two parts share an element, for mostly one ends before the other; reversing the order does.
TEST(parts_of_an_embedding_gradient_run_in_any_order)
{
    enum { V_ = 7, T_ = 9, C_ = 51, ROWS = 3 * T_, PARTS = 3 };
    Tensor *wte = tensor_new("wte", MEMORY_WEIGHTS, SHAPE(V_, C_)), *wpe = tensor_new("wpe", MEMORY_WEIGHTS, SHAPE(T_, C_));
    wte->requires_grad = wpe->requires_grad = true;
    Tape *tape = tape_new();
    op_embedding(tape, wte, wpe, ids_below(V_, ROWS), 3, T_);
    real dy[ROWS * C_];
    for (int i = 0; i < ROWS * C_; i++) dy[i] = (real)(random_uniform(5, (uint64_t)i) - 0.5);
    Node *node = &tape->nodes[0];
    node->out->grad = dy;
    for (int input = 0; input < 2; input++) {
        real sums[2][T_ * C_] = { { 0 } };
        for (int order = 0; order < 2; order++) {
            node->in[input]->grad = sums[order];
            for (int i = 0; i < PARTS; i++) embedding_op.input[input].grad(node, (Part){ order ? PARTS - 1 - i : i, PARTS });
            node->in[input]->grad = NULL;
        }
        EXPECT(same_bits(sums[0], sums[1], T_ * C_) && norm_of(sums[0], T_ * C_) > 1, "input %d: two parts add to one element", input);
    }
    node->out->grad = NULL;
    tape_free(tape);
    tensor_drop(wte), tensor_drop(wpe);
}

// ------------------------------------------------------------------------------------------- the largest, and other places in a row

// Rows as long as vectors, and one more or less; and longer than any buffer that a kernel may have.
static const int row_lengths[] = { 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 34, 48, 63, 64, 65, 255, 256, 257, 272, 300, 511, 513, 1025 };
enum { ROW_LENGTHS = sizeof row_lengths / sizeof *row_lengths, LONGEST = 1025 };

// Softmax and cross entropy of one row, the value and dx, against the same in double. `scale` is that of the numbers.
static void check_row(const char *what, const Tensor *x, int target, double scale)
{
    static double p[LONGEST];
    const int V = last_dim(x);
    double largest = at(x, 0), sum = 0;
    for (int v = 0; v < V; v++) largest = fmax(largest, at(x, v));
    for (int v = 0; v < V; v++) sum += p[v] = exp(at(x, v) - largest);
    for (int v = 0; v < V; v++) p[v] /= sum;
    Tape *tape = tape_new();
    Tensor *y = op_softmax(tape, (Tensor *)x), *loss = op_cross_entropy(tape, (Tensor *)x, &target);
    double expected = log(sum) + largest - at(x, target), wrong = 0, wrong_gradient = 0, bound = (20 + 2 * scale) * EPSILON + (IN_DOUBLE ? 0 : 1e-6);
    for (int v = 0; v < V; v++) wrong = fmax(wrong, isfinite(at(y, v)) ? fabs(at(y, v) - p[v]) : 1);
    EXPECT(fabs(at(loss, 0) - expected) <= (scale + 10) * 4 * EPSILON, "%s: cross entropy %.9g, not %.9g", what, at(loss, 0), expected);
    EXPECT(wrong <= bound, "%s: softmax is off by %.3g", what, wrong);
    backward(tape, op_sum(tape, op_scale(tape, loss, 3)));
    for (int v = 0; v < V; v++) {
        double error = fabs((double)x->grad[v] - 3 * (p[v] - (v == target)));
        wrong_gradient = fmax(wrong_gradient, isfinite(error) ? error : 1);
    }
    EXPECT(wrong_gradient <= 3 * bound, "%s: the gradient of cross entropy is off by %.3g", what, wrong_gradient);
    tape_free(tape);
    tensor_drop_grad((Tensor *)x);
}

// Two logits far above all others, a little apart: only with the true maximum taken off is one e times as likely as the other.
TEST(the_largest_logit_at_every_place)
{
    for (int k = 0; k < ROW_LENGTHS; k++) {
        const int V = row_lengths[k], step = V <= 34 ? 1 : V / 16 > 16 ? 16 : 8;
        Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(1, V));
        x->requires_grad = true;
        for (int i = -2; i <= V; i += i < 2 ? 1 : step) { // each place, or the first two, the last two, and those at ends of vectors
            const int place = (i + V) % V, other = V == 1 ? 0 : place == 0 ? V - 1 : i % 2 ? 0 : place - 1;
            char what[80];
            snprintf(what, sizeof what, "%d logits, the largest at %d, the next at %d", V, place, other);
            for (int v = 0; v < V; v++) x->data[v] = (real)irregular(5, v, 1);
            x->data[other] = 999, x->data[place] = 1000;
            check_row(what, x, other, 1000);
            x->data[other] = 1; // alone
            check_row(what, x, place, 1000);
            x->data[place] = -1000, x->data[other] = -1000; // and the least
            check_row(what, x, place, 2000);
        }
        tensor_drop(x);
    }
}

TEST(rows_of_logits_of_every_length)
{
    for (int k = 0; k < ROW_LENGTHS; k++)
        for (int target = 0; target < 3; target++) {
            const int V = row_lengths[k];
            Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(1, V));
            x->requires_grad = true;
            fill_irregular(x, 12, 4);
            char what[80];
            snprintf(what, sizeof what, "%d logits", V);
            check_row(what, x, target == 0 ? 0 : target == 1 ? V - 1 : V / 2, 8);
            tensor_drop(x);
        }
}

// --------------------------------------------------------------------------------------------------------------------- token ids

enum { IDS_V = 11, IDS_T = 6 };

static Transformer *small_transformer(void)
{
    char error[200];
    return transformer_new((Config){ IDS_V, IDS_T, 1, 2, 8, 0 }, 5, error, sizeof error);
}

static int bad_ids[4 * IDS_T]; // of two rows and more; all 0 but for one, set by the test

static void in_embedding(void)
{
    Transformer *model = small_transformer();
    op_embedding(NULL, model->wte, model->wpe, bad_ids, 2, IDS_T);
}

static void in_cross_entropy(void) { op_cross_entropy(NULL, tensor_new("logits", MEMORY_WEIGHTS, SHAPE(2, IDS_T, IDS_V)), bad_ids); }
static void in_logits(void) { transformer_logits(small_transformer(), NULL, bad_ids, 2, IDS_T); }
static void in_loss(void) { transformer_loss(small_transformer(), NULL, bad_ids, (int[2 * IDS_T]){ 0 }, 2, IDS_T); }
static void in_targets(void) { transformer_loss(small_transformer(), NULL, (int[2 * IDS_T]){ 0 }, bad_ids, 2, IDS_T); }
static void in_mixed(void) { transformer_logits_mixed(small_transformer(), (const Adapter *[2]){ NULL, NULL }, bad_ids, 2, IDS_T); }
static void in_generate(void) { generate(small_transformer(), bad_ids, IDS_T, 1, 1, 0, 1); }
static void in_evaluation(void) { evaluate_all(small_transformer(), bad_ids, 2 * IDS_T); }
static void in_estimate(void) { evaluate_quickly(small_transformer(), bad_ids, IDS_T + 1, 2, 2); }

static void in_next(void)
{
    Transformer *model = small_transformer();
    Cache cache = cache_new(model);
    transformer_next(model, &cache, bad_ids, IDS_T);
}

static void in_a_step(void)
{
    Transformer *model = small_transformer();
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    training_step(model, tape_new(), optimizer, bad_ids, (int[2 * IDS_T]){ 0 }, 2, IDS_T, 1, 0, 0.01);
}

// Whoever takes ids refuses one that is none, at the first place and at the last: it would read beside the table.
TEST(ids_that_are_none_are_refused)
{
    static const struct { void (*deed)(void); const char *name, *says; int last; } takers[] = {
        { in_embedding, "op_embedding", "embedding: id", 2 * IDS_T - 1 }, { in_cross_entropy, "op_cross_entropy", "cross_entropy: target", 2 * IDS_T - 1 },
        { in_logits, "transformer_logits", "embedding: id", 2 * IDS_T - 1 }, { in_loss, "transformer_loss", "embedding: id", 2 * IDS_T - 1 },
        { in_targets, "transformer_loss", "cross_entropy: target", 2 * IDS_T - 1 }, { in_mixed, "transformer_logits_mixed", "embedding: id", 2 * IDS_T - 1 },
        { in_next, "transformer_next", "transformer_next: id", IDS_T - 1 }, { in_generate, "generate", "transformer_next: id", IDS_T - 1 },
        { in_evaluation, "evaluate_all", "embedding: id", 2 * IDS_T - 2 }, { in_estimate, "evaluate_quickly", "embedding: id", IDS_T - 1 },
        { in_a_step, "training_step", "embedding: id", 2 * IDS_T - 1 },
    };
    for (size_t k = 0; k < sizeof takers / sizeof *takers; k++)
        for (int form = 0; form < 5; form++) {
            const int place = form & 1 ? takers[k].last : 0, id = form == 4 ? 0 : form & 2 ? IDS_V : -1;
            char expected[80];
            snprintf(expected, sizeof expected, "%s %d at ", takers[k].says, id);
            bad_ids[place] = id;
            int status = in_child(takers[k].deed);
            bad_ids[place] = 0;
            if (form == 4) EXPECT(status == 0, "%s: status %d although all is good: %s", takers[k].name, status, said);
            else EXPECT(status == -1 && strstr(said, expected) && strstr(said, "is not in 0..10"), "%s, %d at %d: status %d, and it said: %s", takers[k].name, id, place, status,
                        said);
        }
}

int main(void)
{
    parallel_set_threads(2);
    RUN(softmax_and_cross_entropy_survive_large_logits);
    RUN(softmax_keeps_nan);
    RUN(gelu_far_from_zero);
    RUN(relu_has_slope_0_at_0);
    RUN(dropout_drops_its_share_and_can_be_replayed);
    RUN(parts_of_an_embedding_gradient_run_in_any_order);
    RUN(the_largest_logit_at_every_place);
    RUN(rows_of_logits_of_every_length);
    RUN(ids_that_are_none_are_refused);
    return test_summary();
}
