// test_ops.c - every op, alone: its values against naive formulas, each gradient against central differences (op_cases.h has a row
// for each op and shape; a test demands that no op and no input is missing), that a gradient only adds, what a node keeps, and the
// same bits for any number of threads. What ops stand on is in test_kernels.c.

#include "op_cases.h"

// ---------------------------------------------------------------------------------------------------------------- the op tests

static bool checked[MOST_OPS][MAX_INPUTS];

static bool can_alias(const Case *c) // a - a is left out: its gradient is 0, which a test of its own expects
{
    const Input *a = &c->in[0], *b = &c->in[1];
    return b->name && c->op != &sub_op && a->ndim == b->ndim && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

// The gradient of input i against central differences. Wrong, with two uses: perhaps it is that of one of them, alone.
static Verdict check_input(Graph *g, int i)
{
    Tensor *t = g->in[i];
    double *expected = malloc((size_t)t->size * sizeof *expected);
    Verdict verdict = { .ok = false };
    for (g->only = 0; g->only <= g->outputs && g->outputs > 0; g->only++) {
        for (int64_t j = 0; j < t->size; j++) expected[j] = central_difference(&t->data[j], graph_number, g);
        char what[160];
        snprintf(what, sizeof what, "%s, d/d %s %s, %s", g->c->op->name, t->name, shape_text(t), variant_names[g->variant]);
        Verdict v = compare_gradients(what, t->grad, expected, t->size, last_dim(t), GRAD_BOUND);
        if (g->only == 0) verdict = v;
        else if (v.ok) snprintf(verdict.text + strlen(verdict.text), 100, "\n       it is what use %d alone gives: is = used where += is meant?", g->only);
        if (verdict.ok || g->variant != SHARED) break;
    }
    g->only = 0;
    free(expected);
    return verdict;
}

static void check_case(const Case *c, Variant variant)
{
    if (variant == ALIASED && !can_alias(c)) return;
    Graph g = graph_new(c, variant);
    memset(observed, 0, sizeof observed);
    graph_backward(&g);
    for (int i = 0; i < g.inputs; i++) g.in[i]->requires_grad = false;
    for (int i = 0; i < (variant == ALIASED ? 1 : g.inputs); i++) {
        Verdict v = check_input(&g, i);
        EXPECT(v.ok, "%s", v.text);
        bool asked = observed[number_of(c->op)][i] || c->op == &recompute_op; // which runs inner nodes instead
        if (v.ok && variant == CHAINED) checked[number_of(c->op)][i] = asked;
    }
    graph_free(&g);
}

static void check_variant(Variant variant)
{
    for (int i = 0; i < CASES; i++)
        if (!cases[i].large) check_case(&cases[i], variant);
}

TEST(gradients_of_each_op_alone) { check_variant(PLAIN_USE); }
TEST(gradients_of_inputs_used_twice) { check_variant(SHARED); }
TEST(gradients_of_one_tensor_in_two_places) { check_variant(ALIASED); }
TEST(gradients_of_each_op_between_others) { check_variant(CHAINED); }

TEST(a_tensor_minus_itself)
{
    Tensor *x = tensor_from("x", (real[]){ 3, (real)-0.5, 7 }, SHAPE(3));
    x->requires_grad = true;
    Tape *tape = tape_new();
    backward(tape, op_sum(tape, op_sub(tape, x, x)));
    for (int i = 0; i < 3; i++) EXPECT(x->grad && x->grad[i] == 0, "d(x - x)/dx is not 0 at %d", i);
    tape_free(tape);
    tensor_drop(x);
}

TEST(no_op_and_no_input_is_missed) // runs after the test of chained ops, which fills `checked`
{
    for (int op = 0; all_ops[op] != NULL; op++) {
        EXPECT(op < MOST_OPS && all_ops[op]->name != NULL && all_ops[op]->forward != NULL, "op %d has no row", op);
        const Case *small = NULL, *large = NULL;
        for (int i = 0; i < CASES; i++)
            if (cases[i].op == all_ops[op]) *(cases[i].large ? &large : &small) = &cases[i];
        EXPECT(small != NULL && small->in[0].name != NULL, "%s: its gradients are checked nowhere", all_ops[op]->name);
        EXPECT(large != NULL, "%s: not in the comparison of threads", all_ops[op]->name);
        for (int i = 0; i < MAX_INPUTS && small != NULL && small->in[i].name != NULL; i++)
            EXPECT(checked[op][i], "%s: the gradient of input %d passed no check", all_ops[op]->name, i);
        for (int i = 0; i < MAX_INPUTS && small != NULL; i++)
            EXPECT(all_ops[op]->input[i].grad == NULL || small->in[i].name != NULL, "%s: input %d has a gradient and is in no case", all_ops[op]->name, i);
    }
}

TEST(the_checker_rejects_wrong_gradients)
{
    enum { ROWS_ = 2, COLUMNS_ = 3, SIZE = ROWS_ * COLUMNS_ };
    const double right[SIZE] = { 0.5, -1.25, 3, 0.75, -0.125, 2 };
    static const struct { const char *what, *hint; double factor; } wrong[] = {
        { "zero", "path cut", 0 }, { "half", "1/2 of it", 0.5 }, { "double", "added twice", 2 }, { "negative", "opposite sign", -1 },
        { "seventh", "1/7 of it", 1 / 7.0 }, { "sevenfold", "7 times as much", 7 }, { "scaled", "0.375 times what it should be", 0.375 },
    };
    real ours[SIZE];
    for (int i = 0; i < SIZE; i++) ours[i] = (real)right[i];
    EXPECT(compare_gradients("right", ours, right, SIZE, COLUMNS_, GRAD_BOUND).ok, "a right gradient is rejected");
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
        for (int i = 0; i < SIZE; i++) ours[i] = (real)(wrong[w].factor * right[i]);
        Verdict v = compare_gradients(wrong[w].what, ours, right, SIZE, COLUMNS_, GRAD_BOUND);
        EXPECT(!v.ok && v.differ == SIZE && strstr(v.text, wrong[w].hint), "%s", v.text);
    }
    for (int r = 0; r < ROWS_; r++)
        for (int c = 0; c < COLUMNS_; c++) ours[c * ROWS_ + r] = (real)right[r * COLUMNS_ + c];
    Verdict v = compare_gradients("transposed", ours, right, SIZE, COLUMNS_, GRAD_BOUND);
    EXPECT(!v.ok && strstr(v.text, "transposed pattern"), "%s", v.text);
    for (int i = 0; i < SIZE; i++) ours[i] = (real)right[i];
    ours[5] = (real)(right[5] * (1 + 4 * GRAD_BOUND)); // one entry, slightly wrong
    v = compare_gradients("one entry", ours, right, SIZE, COLUMNS_, GRAD_BOUND);
    EXPECT(!v.ok && v.differ == 1 && strstr(v.text, "[1,2]"), "%s", v.text);
    ours[5] = (real)NAN;
    EXPECT(!compare_gradients("NaN", ours, right, SIZE, COLUMNS_, GRAD_BOUND).ok, "NaN passes");
    EXPECT(!compare_gradients("NULL", NULL, right, SIZE, COLUMNS_, GRAD_BOUND).ok, "a missing gradient passes");
    const double zeros[SIZE] = { 0 };
    memset(ours, 0, sizeof ours);
    v = compare_gradients("vacuous", ours, zeros, SIZE, COLUMNS_, GRAD_BOUND);
    EXPECT(!v.ok && strstr(v.text, "could not fail"), "zeros agree with zeros: %s", v.text);
}

// What the engine itself computes when it is asked for something else than was meant: loss = sum(1.5 (x w + x w + x w)) is meant.
typedef enum Mistake { NO_MISTAKE, NO_PATH, ONE_USE, TWO_PASSES, WRONG_SIGN, MEAN_FOR_SUM, NO_SCALE, MISTAKES } Mistake;

static int uses;
static bool all_but_one_use(const Node *n, int input) { return n->op == &mul_op && input == 0 && ++uses > 1; }

static real *gradient_with(Mistake mistake, const real *values, const real *weights)
{
    Tape *tape = tape_new();
    Tensor *x = tensor_from("x", values, SHAPE(2, 5)), *w = tensor_from("w", weights, SHAPE(2, 5)), *zero = tensor_new("0", MEMORY_WEIGHTS, SHAPE(2, 5));
    x->requires_grad = true;
    uses = 0;
    Meter cutter = { .cut = all_but_one_use };
    if (mistake == ONE_USE) meter_watch(&cutter, tape);
    for (int pass = 0; pass < (mistake == TWO_PASSES ? 2 : 1); pass++) {
        Tensor *y = op_add(tape, op_add(tape, op_mul(tape, x, w), op_mul(tape, x, w)), op_mul(tape, x, w));
        y = op_scale(tape, y, (real)(mistake == NO_SCALE ? 1 : mistake == NO_PATH ? 0 : 1.5));
        if (mistake == WRONG_SIGN) y = op_sub(tape, zero, y);
        backward(tape, mistake == MEAN_FOR_SUM ? op_mean(tape, y) : op_sum(tape, y));
        tape_clear(tape);
    }
    real *gradient = copy_of(x->grad, x->size);
    tape_free(tape);
    tensor_drop(x), tensor_drop(w), tensor_drop(zero);
    return gradient;
}

TEST(mistakes_get_their_hints)
{
    enum { SIZE = 10 };
    static const char *const hints[MISTAKES] = { [NO_PATH] = "is the path cut", [ONE_USE] = "1/3 of it: is one of 3 uses left, by = for +=?", [TWO_PASSES] = "added twice, or not zeroed?",
        [WRONG_SIGN] = "the opposite sign", [MEAN_FOR_SUM] = "1/10 of it: is one of 10 uses left, by = for +=? A mean for a sum (1 / N)?",
        [NO_SCALE] = "0.666667 times what it should be: a scale missed (alpha / r)?" };
    real x[SIZE], w[SIZE];
    double expected[SIZE];
    for (int i = 0; i < SIZE; i++) x[i] = (real)irregular(1, i, 1), w[i] = (real)irregular(2, i, 1), expected[i] = 4.5 * (double)w[i];
    for (Mistake mistake = NO_MISTAKE; mistake < MISTAKES; mistake++) {
        real *ours = gradient_with(mistake, x, w);
        Verdict v = compare_gradients("loss, d/d x [2,5]", ours, expected, SIZE, 5, GRAD_BOUND);
        EXPECT(v.ok == (mistake == NO_MISTAKE) && (v.ok || strstr(v.text, hints[mistake])), "mistake %d: %s", (int)mistake, v.text);
        free(ours);
    }
    real *sum = gradient_with(NO_MISTAKE, x, w); // where the mean is meant
    for (int i = 0; i < SIZE; i++) expected[i] /= SIZE;
    Verdict v = compare_gradients("loss, d/d x [2,5]", sum, expected, SIZE, 5, GRAD_BOUND);
    EXPECT(!v.ok && strstr(v.text, "10 times as much: a sum for a mean (N)?"), "%s", v.text);
    free(sum);
    for (int n = 0; n < CASES; n++) { // of a matrix used twice, the second use alone
        if (cases[n].op != &linear_op || cases[n].large) continue;
        Graph g = graph_new(&cases[n], SHARED);
        meter.cut = all_but_one_use, uses = 0; // the loss's own products, one for each use, meet it: the later one goes on
        graph_backward(&g);
        v = check_input(&g, 1);
        EXPECT(!v.ok && strstr(v.text, "it is what use 2 alone gives: is = used where += is meant?"), "%s", v.text);
        graph_free(&g);
        break;
    }
}

// Every choice of frozen inputs: the gradients of the others keep their bits, and a frozen input gets none.
TEST(frozen_inputs_change_no_other_gradient)
{
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        if (c->large || !c->in[1].name) continue;
        for (Variant variant = PLAIN_USE; variant < VARIANTS; variant++) {
            if (variant == ALIASED) continue;
            Graph g = graph_new(c, variant);
            graph_backward(&g);
            real *all[MAX_INPUTS] = { NULL };
            for (int i = 0; i < g.inputs; i++) all[i] = copy_of(g.in[i]->grad, g.in[i]->size);
            for (unsigned trains = 1; trains + 1 < 1u << g.inputs; trains++) {
                for (int i = 0; i < g.inputs; i++) {
                    tensor_drop_grad(g.in[i]);
                    g.in[i]->requires_grad = trains >> i & 1;
                }
                graph_backward(&g);
                for (int i = 0; i < g.inputs; i++) {
                    if (trains >> i & 1)
                        EXPECT(g.in[i]->grad && same_bits(g.in[i]->grad, all[i], g.in[i]->size),
                                "%s, %s, trainable inputs %#x: other bits in d/d %s", c->op->name,
                               variant_names[variant], trains, g.in[i]->name);
                    else EXPECT(g.in[i]->grad == NULL, "%s: %s is frozen and has a gradient", c->op->name, g.in[i]->name);
                }
            }
            for (int i = 0; i < g.inputs; i++) free(all[i]);
            graph_free(&g);
        }
    }
}

// What a node keeps is what the trainable inputs' gradients read, and what makes the output again: no more (memory), and no less
// (the chained gradients above would read freed buffers). All inputs are results here, dropped by the caller at once.
TEST(a_node_keeps_what_its_gradients_read)
{
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        if (c->large || c->keeps[0] == NULL) continue;
        Graph g = graph_new(c, CHAINED);
        for (unsigned trains = 0; trains < 1u << g.inputs; trains++) {
            tape_clear(g.tape);
            Tensor *in[MAX_INPUTS] = { NULL };
            static Tensor *late[MAX_INPUTS];
            for (int i = 0; i < g.inputs; i++) {
                g.in[i]->requires_grad = trains >> i & 1;
                in[i] = c->leaves && i > 0 ? g.in[i] : op_scale(g.tape, g.in[i], (real)1.5);
            }
            memcpy(late, in, sizeof in);
            Tensor *y = c->apply(g.tape, late);
            bool keeps_in[MAX_INPUTS] = { false }, keeps_out = false, keeps_saved = false;
            for (int i = 0; i < g.inputs; i++)
                for (const char *k = c->keeps[i]; trains >> i & 1 && *k; k++) {
                    if (*k == 'y') keeps_out = true;
                    else if (*k == 's') keeps_saved = true;
                    else keeps_in[*k - '0'] = true;
                }
            int64_t expected = (keeps_out ? y->size : 0) + (keeps_saved ? c->saved : 0);
            for (int i = 0; i < g.inputs; i++) expected += keeps_in[i] ? in[i]->size : 0;
            for (int i = 0; i < g.inputs; i++)
                if (!(c->leaves && i > 0)) tensor_drop(in[i]);
            tensor_drop(y);
            EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == expected * (int64_t)sizeof(real),
                    "%s, trainable inputs %#x: %" PRId64 " bytes are kept, not %" PRId64, c->op->name,
                   trains, ledger.live[MEMORY_KEPT_ACTIVATIONS], expected * (int64_t)sizeof(real));
            EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0, "%s: %" PRId64 " bytes are live after all handles were dropped",
                    c->op->name, ledger.live[MEMORY_LIVE_ACTIVATIONS]);
            EXPECT(y->requires_grad == (trains != 0), "%s, trainable inputs %#x: the result's flag is %d", c->op->name,
                    trains, y->requires_grad);
        }
        graph_free(&g);
    }
}

// Leaves `value` in the free buffers of a graph's sizes.
static void fill_free_buffers(const Graph *g, real value)
{
    enum { EACH = 8 };
    for (int k = -1; k < g->inputs; k++) {
        int64_t size = k < 0 ? g->out[0]->size : g->in[k]->size;
        real *used[EACH];
        for (int i = 0; i < EACH; i++) {
            used[i] = memory_take(MEMORY_WORKSPACE, size);
            for (int64_t j = 0; j < size; j++) used[i][j] = value;
        }
        for (int i = 0; i < EACH; i++) memory_give(MEMORY_WORKSPACE, used[i], size);
    }
}

static const Graph *graph_to_fill;
static real to_fill_with;
static bool fill_before_each_gradient(const Node *n, int input)
{
    (void)n, (void)input;
    fill_free_buffers(graph_to_fill, to_fill_with);
    return false;
}

// Zeros to add to, an empty matrix for a product, or the result's own gradient: whatever a first gradient finds, nothing of what
// its buffer held before is left.
TEST(first_gradients_do_not_depend_on_what_was_there)
{
    for (int n = 0; n < CASES; n++)
        for (Variant variant = PLAIN_USE; variant < VARIANTS; variant++) {
            const Case *c = &cases[n];
            if ((variant == ALIASED && !can_alias(c)) || (c->large && variant != CHAINED)) continue;
            Graph g = graph_new(c, variant);
            real *clean[MAX_INPUTS] = { NULL };
            graph_to_fill = &g;
            meter.cut = fill_before_each_gradient;
            for (int spoilt = 0; spoilt < 2; spoilt++) {
                to_fill_with = spoilt ? (real)NAN : 0;
                graph_backward(&g);
                for (int i = 0; i < (variant == ALIASED ? 1 : g.inputs); i++) {
                    if (!spoilt) clean[i] = copy_of(g.in[i]->grad, g.in[i]->size);
                    else EXPECT(same_bits(clean[i], g.in[i]->grad, g.in[i]->size), "%s, %s: d/d %s depends on what its buffer held before, NaN: |g| = %g, not %g",
                                c->op->name, variant_names[variant], g.in[i]->name, norm_of(g.in[i]->grad, g.in[i]->size), norm_of(clean[i], g.in[i]->size));
                    tensor_drop_grad(g.in[i]);
                }
            }
            for (int i = 0; i < MAX_INPUTS; i++) free(clean[i]);
            graph_free(&g);
        }
}

// ------------------------------------------------------------------------------------------------------ gradients only add

// Runs the gradient of one input on numbers of the test's own: dx begins as `dx`, and the kernel runs `times` times.
static void run_on(Node *n, int input, real *dx, int times)
{
    Tensor *in = n->in[input];
    real *dy = malloc((size_t)n->out->size * sizeof *dy);
    for (int64_t i = 0; i < n->out->size; i++) dy[i] = (real)irregular(7, i, 1);
    real *before = copy_of(dy, n->out->size);
    in->grad = dx;
    n->out->grad = dy;
    for (int t = 0; t < times; t++) n->op->input[input].grad(n, WHOLE);
    EXPECT(same_bits(before, dy, n->out->size), "%s, input %d: its gradient changes dy", n->op->name, input);
    in->grad = n->out->grad = NULL;
    free(dy), free(before);
}

// Twice the same kernel, on numbers that are there: dx + 2 g. The one that works in place is left out: it has no dx.
TEST(gradient_kernels_only_add)
{
    int kernels = 0, expected = 0;
    for (int op = 0; all_ops[op] != NULL; op++)
        for (int i = 0; i < MAX_INPUTS; i++) expected += all_ops[op]->input[i].grad != NULL && !all_ops[op]->input[i].in_place;
    bool seen[MOST_OPS][MAX_INPUTS] = { { false } };
    for (int c = 0; c < CASES; c++) {
        Graph g = graph_new(&cases[c], PLAIN_USE);
        graph_forward(&g);
        Node *n = node_of(&g);
        for (int i = 0; i < MAX_INPUTS && n != NULL; i++) {
            if (n->op->input[i].grad == NULL || n->op->input[i].in_place) continue;
            int64_t size = n->in[i]->size;
            real *once = calloc((size_t)size, sizeof *once), *dx = malloc((size_t)size * sizeof *dx);
            for (int64_t j = 0; j < size; j++) dx[j] = (real)irregular(8, j, 1);
            run_on(n, i, once, 1);
            run_on(n, i, dx, 2);
            double worst = 0, largest = 1;
            for (int64_t j = 0; j < size; j++) largest = fmax(largest, fabs((double)once[j]));
            for (int64_t j = 0; j < size; j++) {
                double error = fabs((double)dx[j] - irregular(8, j, 1) - 2 * (double)once[j]) / largest;
                if (!(error <= worst)) worst = error;
            }
            EXPECT(worst < 60 * EPSILON && norm_of(once, size) > 0, "%s, input %d, %s: twice its gradient does not add up: off by %.3g", n->op->name, i,
                   shape_text(n->in[i]), worst);
            kernels += !seen[number_of(n->op)][i];
            seen[number_of(n->op)][i] = true;
            free(once), free(dx);
        }
        graph_free(&g);
    }
    EXPECT(kernels == expected && kernels > 20, "%d of %d gradient kernels were run", kernels, expected);
}

TEST(values_follow_the_formulas)
{
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        Graph g = graph_new(c, PLAIN_USE);
        graph_forward(&g);
        Tensor *y = g.out[0];
        double *expected = malloc((size_t)y->size * sizeof *expected), largest = 0, worst = 0;
        c->naive(g.in, expected);
        for (int64_t i = 0; i < y->size; i++) largest = fmax(largest, fabs(expected[i]));
        for (int64_t i = 0; i < y->size; i++) {
            double error = fabs(at(y, i) - expected[i]) / largest;
            if (!(error <= worst)) worst = error;
        }
        EXPECT(largest > 1e-3 && worst < 60 * EPSILON, "%s, %s %s: off by %.2e of the largest value, %.3g", c->op->name,
                g.in[0]->name, shape_text(g.in[0]), worst, largest);
        // without a tape: the same bits; dropout, which is off then, gives a copy
        Tensor *free_y = c->apply(NULL, g.in);
        const real *same = c->op == &dropout_op ? g.in[0]->data : y->data;
        EXPECT(same_bits(free_y->data, same, y->size), "%s: other bits without a tape", c->op->name);
        tensor_drop(free_y);
        free(expected);
        graph_free(&g);
    }
}

TEST(bits_do_not_depend_on_the_threads)
{
    static const int counts[] = { 1, 2, 3, 5 };
    for (int n = 0; n < CASES; n++) {
        const Case *c = &cases[n];
        if (!c->large) continue;
        real *y = NULL, *grads[MAX_INPUTS] = { NULL };
        for (int k = 0; k < 4; k++) {
            parallel_set_threads(counts[k]);
            Graph g = graph_new(c, PLAIN_USE);
            graph_backward(&g);
            if (k == 0) {
                y = copy_of(g.out[0]->data, g.out[0]->size);
                for (int i = 0; i < g.inputs; i++) grads[i] = copy_of(g.in[i]->grad, g.in[i]->size);
            } else {
                EXPECT(same_bits(y, g.out[0]->data, g.out[0]->size), "%s: other values with %d threads", c->op->name, counts[k]);
                for (int i = 0; i < g.inputs; i++)
                    EXPECT(same_bits(grads[i], g.in[i]->grad, g.in[i]->size), "%s: other bits in d/d %s with %d threads",
                            c->op->name, g.in[i]->name, counts[k]);
            }
            graph_free(&g);
        }
        free(y);
        for (int i = 0; i < MAX_INPUTS; i++) free(grads[i]);
    }
    parallel_set_threads(2);
}

int main(void)
{
    parallel_set_threads(2);
    RUN(the_checker_rejects_wrong_gradients);
    RUN(mistakes_get_their_hints);
    RUN(gradients_of_each_op_alone);
    RUN(gradients_of_inputs_used_twice);
    RUN(gradients_of_one_tensor_in_two_places);
    RUN(a_tensor_minus_itself);
    RUN(gradients_of_each_op_between_others);
    RUN(no_op_and_no_input_is_missed);
    RUN(frozen_inputs_change_no_other_gradient);
    RUN(a_node_keeps_what_its_gradients_read);
    RUN(first_gradients_do_not_depend_on_what_was_there);
    RUN(gradient_kernels_only_add);
    RUN(values_follow_the_formulas);
    RUN(bits_do_not_depend_on_the_threads);
    return test_summary();
}
