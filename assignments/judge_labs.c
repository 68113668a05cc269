// judge_labs.c - see judge.h. The checks of all tasks but those of one kernel: what is expected comes from central differences of plain
// formulas, or from properties that a right answer has.

#include "judge.h"

#include "chain.h"
#include "lab3.h"

#include <signal.h>
#include <sys/wait.h>

// ---- L1.1

static Chain now; // what the differences are taken of: w is split into its two uses
static double second_w;
static double chain_of(void *context)
{
    (void)context;
    double y = second_w * tanh(now.w * now.x + now.b);
    return (y - now.t) * (y - now.t);
}
static double chain_both(void *context)
{
    second_w = now.w;
    return chain_of(context);
}

void judge_chain(Judge *j)
{
    static const char *const what[4] = { "dloss/dx", "dloss/dw", "dloss/db", "dloss/dt" };
    static const double weights[4] = { 1, 3, 2, 2 };
    double ours[4][4], expected[4][4], inner[4], outer[4];
    for (int i = 0; i < 4; i++) {
        Array a = next(j, "chain");
        now = (Chain){ number_of(seed, 0, i), number_of(seed, 1, i), number_of(seed, 2, i), number_of(seed, 3, i) };
        double *fields[4] = { &now.x, &now.w, &now.b, &now.t };
        for (int k = 0; k < 4; k++) {
            ours[k][i] = a.count == 4 ? a.values[k] : 0;
            expected[k][i] = central_difference(fields[k], chain_both, NULL);
        }
        second_w = now.w;
        inner[i] = central_difference(&now.w, chain_of, NULL);
        outer[i] = central_difference(&second_w, chain_of, NULL);
    }
    Known known[] = { { inner, "the first use of w alone, inside tanh: the second adds its own term" },
                      { outer, "the second use of w alone, in front of tanh: the first adds its own term" }, { NULL, NULL } };
    for (int k = 0; k < 4; k++)
        compare(j, weights[k], what[k], (Array){ ours[k], 4 }, expected[k], 4, 4, "central difference in double; a row of four cases", known);
}

// ---- L1.4

static const char *which_graph;
static double *gx, *gw, *gf, *gv;
static int64_t g_count;
static double graph_loss(void *context)
{
    (void)context;
    double sum = 0;
    for (int64_t i = 0; i < g_count; i++) {
        double a = tanh(gx[i] * gw[i]);
        sum += which_graph[0] == 's' ? 2 * a + 5 * a * gw[i] : which_graph[0] == 'f' ? a * gf[i] * gv[i] : a;
    }
    return sum;
}

void judge_backward(Judge *j)
{
    static const char *const graphs[] = { "once", "several uses", "frozen", "twice" };
    for (int g = 0; g < 4; g++) {
        uint64_t own = seed_of(seed, g);
        int C = size_of(own, 1);
        which_graph = graphs[g];
        g_count = (int64_t)size_of(own, 0) * C;
        gx = numbers(0, own, g_count), gw = numbers(1, own, g_count), gf = numbers(2, own, g_count), gv = numbers(3, own, g_count);
        double *dx = differences(gx, g_count, graph_loss, NULL), *dw = differences(gw, g_count, graph_loss, NULL);
        double *dv = g == 2 ? differences(gv, g_count, graph_loss, NULL) : NULL, *half = numbers(0, own, g_count);
        Array x = next(j, "x"), w = next(j, "w"), frozen = next(j, "frozen"), v = next(j, "v"), facts = next(j, "facts");
        if (facts.count != 6) { j->broken = true; facts.values = (double[]){ 0, 0, 0, 0, 0, 0 }; }
        const double *f = facts.values;
        for (int64_t i = 0; i < g_count; i++) {
            half[i] = dw[i];
            if (g == 3) dx[i] *= 2, dw[i] *= 2;
        }
        Known known[] = { { g == 3 ? half : NULL, "the second pass alone: did it overwrite what was there?" }, { NULL, NULL } };
        if (g == 0) {
            compare(j, 1, "backward(), each tensor used once: dw", w, dw, g_count, C, by_differences, NULL);
            compare(j, 1, "backward(), each tensor used once: dx", x, dx, g_count, C, by_differences, NULL);
        }
        if (g == 1) {
            compare(j, 1.5, "backward(), a result used three times: dx", x, dx, g_count, C, by_differences, NULL);
            compare(j, 1.5, "backward(), w used by two ops: dw", w, dw, g_count, C, by_differences, NULL);
        }
        if (g == 2) {
            bool through = compare(j, 2.5, "backward(), through a frozen tensor: dw below it", w, dw, g_count, C, by_differences, NULL);
            through = compare(j, 0.5, "backward(), beside a frozen tensor: dv", v, dv, g_count, C, by_differences, NULL) && through;
            award(j, 1, through && frozen.values == NULL && x.values == NULL && f[0] == 4 && f[1] == 2,
                  "backward(), frozen tensors: %s; %g gradient kernels of results and %g of leaves ran instead of 4 and 2\n     hint: ask for "
                  "requires_grad before anything else is done for an input",
                  frozen.values || x.values ? "one has a gradient, which nobody asked for" : "none has a gradient", f[0], f[1]);
            award(j, 1, through && f[2] == (double)(2 * g_count * (int64_t)sizeof(real)),
                  "backward(), frozen tensors: %g bytes of parameter gradients were held, and two tensors of %" PRId64 " bytes train", f[2], g_count * (int64_t)sizeof(real));
        }
        if (g == 3) {
            bool sums = compare(j, 1, "backward(), two passes without clearing: dw", w, dw, g_count, C, by_differences, known);
            award(j, 1, sums && f[3] == 0 && f[4] == 0 && f[5] == 0,
                  "after backward(): %g bytes of kept activations, %g of activation gradients and %g nodes are left\n     hint: release(n) when a node "
                  "is done, and the tape has no node any more", f[3], f[4], f[5]);
        }
    }
}

// ---- Lab 2

void judge_init(Judge *j)
{
    int I = 13 * size_of(seed, 0), O = size_of(seed, 1), R = size_of(seed, 2);
    Array A[3], B[3], flags[3];
    for (int i = 0; i < 3; i++) A[i] = next(j, "A"), B[i] = next(j, "B"), flags[i] = next(j, "flags");
    if (j->broken) { award(j, 1, false, " "); return; }
    double bound = 1 / sqrt(I), largest = 0, sum = 0, square = 0, b_largest = 0;
    bool differ = false, again = true, sizes = true, train = true;
    for (int i = 0; i < 3; i++) {
        sizes = sizes && A[i].count == (int64_t)I * R && B[i].count == (int64_t)R * O && flags[i].count == 2;
        if (!sizes) break;
        train = train && flags[i].values[0] == 1 && flags[i].values[1] == 1;
        for (int64_t k = 0; k < A[i].count; k++) {
            double a = A[i].values[k];
            if (!(fabs(a) <= largest)) largest = fabs(a);
            if (i == 0) sum += a, square += a * a;
            differ = differ || (i == 1 && a != A[0].values[k]);
            again = again && (i != 2 || a == A[0].values[k]);
        }
        for (int64_t k = 0; k < B[i].count; k++)
            if (!(fabs(B[i].values[k]) <= b_largest)) b_largest = fabs(B[i].values[k]);
    }
    double n = (double)I * R, deviation = sqrt(square / n);
    bool spread = sizes && largest <= bound && largest > 0.9 * bound && fabs(sum / n) < 5 * bound / sqrt(3 * n) && fabs(deviation / bound - 0.57735) < 0.12;
    award(j, 1.5, largest > 0 && b_largest == 0, "A [%d,%d] and B [%d,%d]: the largest entries are %.4g and %.4g\n     hint: %s", I, R, R, O, largest, b_largest,
          b_largest > 0 ? "with B not zero a fresh adapter changes what the model says" : "with both zero neither ever gets a gradient");
    award(j, 2, spread && differ && again,
          "A [%d,%d]: the largest entry is %.4g, mean %.2g and deviation %.4g; uniform in +-1/sqrt(%d) = +-%.4g has deviation %.4g%s", I, R, largest,
          sum / n, deviation, I, bound, bound / sqrt(3), !spread ? "\n     hint: fill_uniform takes the bound" : differ ? "" : "\n     hint: another seed gives the same A");
    award(j, 1.5, largest > 0 && train, "A and B must both require a gradient");
}

void judge_scale(Judge *j)
{
    int ranks[4] = { pick(seed, 0, 2, 9), pick(seed, 1, 2, 9), 0, pick(seed, 3, 10, 12) };
    double alpha = pick(seed, 4, 3, 40);
    static const char *const what[3] = { "the scale, one rank for all", "the scale, a rank for each block", "the scale, rank-stabilised" };
    for (int way = 0; way < 3; way++) {
        double expected[16] = { 0 }, all_alpha[16] = { 0 }, other[16] = { 0 };
        for (int i = 0; i < 16; i++) {
            int r = way == 0 ? ranks[0] : way == 2 ? ranks[1] : ranks[i / 4];
            if (r == 0 || (way != 1 && i % 4 != 0)) continue;
            expected[i] = alpha / (way == 2 ? sqrt(r) : r);
            all_alpha[i] = alpha;
            other[i] = way == 2 ? alpha / r : alpha / sqrt(r);
        }
        Known known[] = { { all_alpha, "alpha alone: divide by the rank" },
                          { other, way == 2 ? "alpha / r: with rank_stabilized it is the square root" : "the square root is for rank_stabilized" },
                          { NULL, NULL } };
        compare(j, way == 2 ? 2 : 1, what[way], next(j, "scales"), expected, 16, 4, "alpha over r, or over its root", known);
    }
}

typedef struct LayerCase { int N, I, O, R; bool masked; double scale, *x, *W, *b, *A, *B, *mask, *g; } LayerCase;

static LayerCase layer_case(uint64_t own, bool masked)
{
    LayerCase c = { size_of(own, 0), size_of(own, 1), large_of(own, 2), size_of(own, 3), masked, 1 + number_of(own, 9, 0) / 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
    c.x = numbers(0, own, (int64_t)c.N * c.I), c.W = numbers(1, own, (int64_t)c.I * c.O), c.b = numbers(2, own, c.O);
    c.A = numbers(3, own, (int64_t)c.I * c.R), c.B = numbers(4, own, (int64_t)c.R * c.O), c.mask = numbers(5, own, (int64_t)c.R * c.O);
    c.g = numbers(6, own, (int64_t)c.N * c.O);
    for (int64_t i = 0; i < (int64_t)c.R * c.O; i++) c.mask[i] = !masked || c.mask[i] > 0;
    return c;
}

// y [N,O]; with `scale` 0 the layer without its adapter
static void layer_output(const LayerCase *c, double scale, double *y)
{
    for (int n = 0; n < c->N; n++) {
        const double *x = c->x + n * c->I;
        double h[32] = { 0 };
        for (int i = 0; i < c->I; i++)
            for (int r = 0; r < c->R; r++) h[r] += x[i] * c->A[i * c->R + r];
        for (int o = 0; o < c->O; o++) {
            double sum = c->b[o];
            for (int i = 0; i < c->I; i++) sum += x[i] * c->W[i * c->O + o];
            for (int r = 0; r < c->R; r++) sum += scale * h[r] * c->B[r * c->O + o] * c->mask[r * c->O + o];
            y[n * c->O + o] = sum;
        }
    }
}

static double layer_loss(void *context)
{
    static double y[1 << 12];
    const LayerCase *c = context;
    double sum = 0;
    layer_output(c, c->scale, y);
    for (int i = 0; i < c->N * c->O; i++) sum += c->g[i] * y[i];
    return sum;
}

void judge_path(Judge *j)
{
    static const char *const what[3] = { "y = x W + b + s (x A) B", "y when training", "y with a mask" };
    for (int way = 0; way < 3; way++) {
        LayerCase c = layer_case(seed_of(seed, way), way == 2);
        int64_t outputs = (int64_t)c.N * c.O, inputs = (int64_t)c.N * c.I, narrow = (int64_t)c.N * c.R;
        double *y = numbers(0, 0, outputs), *base = numbers(0, 0, outputs), *unscaled = numbers(0, 0, outputs);
        layer_output(&c, c.scale, y);
        layer_output(&c, 0, base);
        layer_output(&c, 1, unscaled);
        Known known[] = { { base, "x W + b alone: the adapter is not in it" }, { unscaled, "the scale is missing" }, { NULL, NULL } };
        bool good = compare(j, way == 0 ? 2 : 0.5, what[way], next(j, "y"), y, outputs, c.O, by_loops, known);
        Array bytes = next(j, "bytes"), in = next(j, "in"), A = next(j, "A"), B = next(j, "B");
        if (way == 0) continue;
        good = compare(j, 0.5, "the gradient of A", A, differences(c.A, (int64_t)c.I * c.R, layer_loss, &c), (int64_t)c.I * c.R, c.R, by_differences, NULL) && good;
        good = compare(j, 0.5, "the gradient of B", B, differences(c.B, (int64_t)c.R * c.O, layer_loss, &c), (int64_t)c.R * c.O, c.O, by_differences, NULL) && good;
        good = compare(j, 0.5, "the gradient of x", in, differences(c.x, inputs, layer_loss, &c), inputs, c.I, by_differences, NULL) && good;
        if (way != 1) continue;
        int64_t number = (int64_t)sizeof(real);
        double kept = bytes.count == 3 ? bytes.values[0] : -1, live = bytes.count == 3 ? bytes.values[1] : -1, peak = bytes.count == 3 ? bytes.values[2] : -1;
        award(j, 1, good && kept == (double)((inputs + narrow) * number) && live == (double)(outputs * number) && peak <= (double)((inputs + outputs + narrow) * number),
              "bytes: %g are kept where x and x A are %" PRId64 "; %g are still held where y is %" PRId64 "; %g at most where x, y and x A are %" PRId64 "\n"
              "     hint: drop x A when it is used, and add into y's own buffer (op_matmul_add)",
              kept, (inputs + narrow) * number, live, outputs * number, peak, (inputs + outputs + narrow) * number);
    }
}

void judge_merge(Judge *j)
{
    LayerCase c = layer_case(seed, false);
    int64_t count = (int64_t)c.I * c.O;
    double *merged = numbers(1, seed, count), *alone = numbers(1, seed, count), *unscaled = numbers(1, seed, count), *twice = numbers(1, seed, count);
    for (int i = 0; i < c.I; i++)
        for (int o = 0; o < c.O; o++) {
            double sum = 0;
            for (int r = 0; r < c.R; r++) sum += c.A[i * c.R + r] * c.B[r * c.O + o];
            int64_t at = (int64_t)i * c.O + o;
            merged[at] += c.scale * sum;
            alone[at] = c.scale * sum;
            unscaled[at] += sum;
            twice[at] += 2 * c.scale * sum;
        }
    Known known[] = { { c.W, "W as it was: nothing was added" }, { alone, "s A B alone: it has to be added to W" }, { unscaled, "the scale is missing" },
                      { twice, "added twice" }, { NULL, NULL } };
    bool good = compare(j, 3, "the merged weight", next(j, "merged"), merged, count, c.O, by_loops, known);
    Array back = next(j, "unmerged");
    bool same = back.count == count;
    for (int64_t i = 0; i < count && same; i++) same = back.values[i] == c.W[i];
    award(j, 1, good && same, "unmerging must bring back the bytes of before: did merging write anywhere else?");
}

static double *keep_in, *keep_W, *keep_V, *keep_g;
static int keep_N, keep_I, keep_O;
static double keep_loss(void *context)
{
    (void)context;
    double sum = 0;
    for (int n = 0; n < keep_N; n++)
        for (int o = 0; o < keep_O; o++) {
            double h = 0;
            for (int i = 0; i < keep_I; i++) h += 2 * keep_in[n * keep_I + i] * keep_W[i * keep_O + o];
            for (int i = 0; i < keep_I; i++) sum += h * keep_V[o * keep_I + i] * keep_g[n * keep_I + i];
        }
    return sum;
}

void judge_keeps(Judge *j)
{
    keep_N = size_of(seed, 0), keep_I = size_of(seed, 1), keep_O = size_of(seed, 2);
    keep_in = numbers(0, seed, (int64_t)keep_N * keep_I), keep_W = numbers(1, seed, (int64_t)keep_I * keep_O);
    keep_V = numbers(5, seed, (int64_t)keep_O * keep_I), keep_g = numbers(6, seed, (int64_t)keep_N * keep_I);
    // for x, W, b trained or not (bits 1, 2, 4): linear's node, then layernorm's with x, gain, bias, which holds all three where it keeps
    // x, to make its result again; last, a block that trains inside
    static const unsigned expected[15] = { 2, 7 | KEEP_SAVED, 1, 7 | KEEP_SAVED, 3, 7 | KEEP_SAVED, 0, 0, 2, 7 | KEEP_SAVED, 1, 7 | KEEP_SAVED, 3, 7 | KEEP_SAVED, 1 };
    Array kept = next(j, "kept"), bytes = next(j, "bytes"), when = next(j, "when"), in = next(j, "in"), W = next(j, "W");
    int64_t wrong = -1, x_bytes = (int64_t)keep_N * keep_I * (int64_t)sizeof(real);
    for (int i = 0; i < 15 && kept.count == 15; i++)
        if ((unsigned)kept.values[i] != expected[i] && wrong < 0) wrong = i;
    bool rule = award(j, 2, kept.count == 15 && wrong < 0,
                      "keeps_of: %s with x %s, weight %s, bias %s holds %#x where its gradients read %#x (1 x, 2 weight, 0x200 statistics)\n     hint: an input "
                      "that requires no gradient asks for nothing", wrong == 14 ? "a recomputed block" : wrong % 2 ? "layernorm" : "linear",
                      (wrong / 2 + 1) & 1 ? "trained" : "frozen", (wrong / 2 + 1) & 2 ? "trained" : "frozen", (wrong / 2 + 1) & 4 ? "trained" : "frozen",
                      wrong < 0 ? 0 : (unsigned)kept.values[wrong], wrong < 0 ? 0 : expected[wrong]);
    double *din = differences(keep_in, (int64_t)keep_N * keep_I, keep_loss, NULL), *dW = differences(keep_W, (int64_t)keep_I * keep_O, keep_loss, NULL);
    bool right = compare(j, 0.5, "the gradient of x below a frozen weight", in, din, (int64_t)keep_N * keep_I, keep_I, by_differences, NULL);
    right = compare(j, 0.5, "the gradient of W", W, dW, (int64_t)keep_I * keep_O, keep_O, by_differences, NULL) && right;
    award(j, 1, rule && right && bytes.count == 1 && bytes.values[0] == (double)x_bytes,
          "two linears, the upper one frozen: %g bytes are kept, where only the lower one's x, %" PRId64 " bytes, will be read", bytes.count == 1 ? bytes.values[0] : -1, x_bytes);
    award(j, 1, rule && right && when.count == 6 && when.values[3] == (double)x_bytes && when.values[4] == 0 && when.values[5] == 0,
          "x must be let go as soon as dW has read it, before dx is made\n     hint: only the first `inputs` inputs count");
}

void judge_moments(Judge *j)
{
    double *p[TENSORS], *m[TENSORS], *v[TENSORS];
    int64_t size[TENSORS], bytes_wrong = -1;
    bool values = true, still = true;
    for (int i = 0; i < TENSORS; i++) {
        size[i] = (tensor_rows[i] ? tensor_rows[i] : 1) * tensor_columns[i];
        p[i] = numbers(i, seed, size[i]);
        m[i] = room(size[i]);
        v[i] = room(size[i]);
    }
    for (int step = 0; step < STEPS; step++) {
        double c1 = 1 - pow(0.8, step + 1), c2 = 1 - pow(0.95, step + 1), held = 0, lr = 0.03;
        for (int i = 0; i < TENSORS; i++) {
            for (int64_t k = 0; k < size[i]; k++) {
                if (!trains_in[step][i]) { m[i][k] = v[i][k] = 0; continue; }
                double g = number_of(seed, 20 + TENSORS * step + i, k);
                m[i][k] = 0.8 * m[i][k] + 0.2 * g;
                v[i][k] = 0.95 * v[i][k] + 0.05 * g * g;
                p[i][k] = p[i][k] * (tensor_rows[i] ? 1 - lr * 0.1 : 1) - lr * (m[i][k] / c1) / (sqrt(v[i][k] / c2) + 1e-8);
            }
            if (trains_in[step][i]) held += 2 * (double)size[i] * sizeof(real);
            Array t = next(j, "t");
            bool same = t.count == size[i] && same_numbers(t.values, p[i], size[i]);
            values = values && (same || !trains_in[step][i]);
            still = still && (same || trains_in[step][i]);
        }
        Array bytes = next(j, "bytes");
        if ((bytes.count != 1 || bytes.values[0] != held) && bytes_wrong < 0) bytes_wrong = step;
    }
    bool good = award(j, 2, values, "the trained tensors are not where AdamW takes them in %d steps\n     hint: new moments are zero, and kept from step to step", STEPS);
    award(j, 2, good && bytes_wrong < 0, "step %" PRId64 ": the bytes of moments are not two numbers for each one that trains\n     hint: none for a frozen tensor, and none "
          "for one that was frozen since", bytes_wrong);
    award(j, 1, good && still, "a frozen tensor moves on\n     hint: drop its moments");
}

// ---- Lab 3

static const char *shape_words(Shape s)
{
    static char text[200];
    snprintf(text, sizeof text, "V %" PRId64 ", T %" PRId64 ", L %" PRId64 ", H %" PRId64 ", C %" PRId64 ", r %" PRId64 ", B %" PRId64 ", %" PRId64 " bytes a number",
             s.V, s.T, s.L, s.H, s.C, s.r, s.B, s.bytes);
    return text;
}

// The numbers of worked shapes are known to all, and may be said; of others neither they nor anything to work them out from.
static void say_number(Judge *j, double weight, const char *what, int which, double ours, double expected)
{
    if (which < WORKED) award(j, weight, false, "%s: yours %.0f   worked out %.0f\n     for %s", what, ours, expected, shape_words(lab3_shape(seed, which)));
    else award(j, weight, false, "%s: right for the worked shapes, and too %s for a larger one\n     hint: which of V, T, L, H, C, r, B does it grow with, and how?", what,
               ours < expected ? "small" : "large");
}

void judge_memory(Judge *j)
{
    static const char *const names[2][5] = { { "weights, full", "adapters, full", "gradients, full", "moments, full", "kept, full" },
                                             { "weights, LoRA", "adapters, LoRA", "gradients, LoRA", "moments, LoRA", "kept, LoRA" } };
    static const double weights[2][5] = { { 0.5, 0, 1, 1, 2 }, { 0.5, 1, 1, 1, 2 } }; // no adapter: nothing to know
    double ours[2][5][SHAPES], expected[2][5][SHAPES];
    int known = 0;
    bool something = false;
    for (int i = 0; i < SHAPES; i++)
        for (int lora = 0; lora < 2; lora++) {
            Memory m;
            Array a = next(j, lora ? "LoRA" : "full");
            if (!lab3_memory(lab3_shape(seed, i), lora, &m)) continue; // in a handout: the worked ones are known
            int64_t e[5] = { m.weights, m.adapters, m.gradients, m.moments, m.kept };
            known = i + 1;
            for (int k = 0; k < 5; k++) {
                expected[lora][k][i] = (double)e[k];
                ours[lora][k][i] = a.count == 5 ? a.values[k] : -1;
                something = something || ours[lora][k][i] != 0;
            }
        }
    check(known > 0, "grade: nothing is known of Lab 3's shapes");
    for (int lora = 0; lora < 2; lora++)
        for (int k = 0; k < 5; k++) {
            int wrong = 0;
            while (wrong < known && ours[lora][k][wrong] == expected[lora][k][wrong]) wrong++;
            if (something && wrong == known) award(j, weights[lora][k], true, " ");
            else if (wrong == known) wrong = 0; // a lucky zero
            if (wrong < known) say_number(j, weights[lora][k], names[lora][k], wrong, ours[lora][k][wrong], expected[lora][k][wrong]);
        }
}

void judge_claims(Judge *j)
{
    static const char *const names[10] = { "bytes of gradients, full", "bytes of gradients, LoRA", "bytes of moments, full", "bytes of moments, LoRA",
                                           "gradients through weight matrices, full", "gradients through weight matrices, LoRA",
                                           "gradients of weight matrices, full", "gradients of weight matrices, LoRA", "adapter tensors reached",
                                           "adapter tensors reached when the flow is cut" };
    double ours[MEASURED][10], expected[MEASURED][10];
    int known = 0;
    for (int i = 0; i < MEASURED; i++) {
        Claims c;
        Array a = next(j, "claims");
        Shape s = lab3_shape(seed, i);
        s.bytes = (int64_t)sizeof(real); // what the engine was built with
        if (!lab3_claims(s, &c)) continue;
        int64_t e[10] = { c.gradient_bytes[0], c.gradient_bytes[1], c.moment_bytes[0], c.moment_bytes[1], c.dgrad[0], c.dgrad[1], c.wgrad[0], c.wgrad[1], c.reached, c.reached_when_cut };
        known = i + 1;
        for (int k = 0; k < 10; k++) {
            expected[i][k] = (double)e[k];
            ours[i][k] = a.count == 10 ? a.values[k] : -1;
        }
    }
    check(known > 0, "grade: nothing is known of Lab 3's shapes");
    for (int part = 0; part < 4; part++) {
        int first = part < 3 ? 2 * part : 8, last = part == 0 ? 1 : part == 1 ? 3 : part == 2 ? 7 : 9, wrong = -1, at = 0;
        if (part == 2) first = 4;
        for (int i = 0; i < known && wrong < 0; i++)
            for (int k = first; k <= last; k++)
                if (ours[i][k] != expected[i][k] && wrong < 0) wrong = k, at = i;
        if (wrong < 0) award(j, 2, true, " ");
        else say_number(j, 2, names[wrong], at, ours[at][wrong], expected[at][wrong]);
    }
}

// What one run of the test said: 1 the engine is right, 0 it is not (or check() stopped it), -1 neither.
static int test_says(Answers *a, Task *t)
{
    Judge own = { .task = t, .answers = a };
    Array said = next(&own, "right");
    next(&own, "end");
    if (WIFSIGNALED(a->status) && WTERMSIG(a->status) == SIGABRT) return 0;
    return a->how[0] == '\0' && !own.broken && a->at == a->size && said.count == 1 ? said.values[0] != 0 : -1;
}

// The test runs many times, each in a process of its own, in a right engine or in one with the bug, of which there are several each: in
// what number and order, nobody can know. It must be right every time.
void judge_found(Judge *j)
{
    Task *t = j->task;
    Array here = next(j, "right");
    if (t->trees == 0) {
        award(j, 1, false, "your test says %s in this tree; points need right engines and some with the bug, which are not here",
              here.count == 1 && here.values[0] != 0 ? "true" : "false");
        return;
    }
    int runs = 16 + pick(seed, 50, 0, 8), order[24] = { 0 };
    for (int i = 0; i < runs; i++) { // each tree at least once; shuffled as the list grows
        int place = pick(seed, 100 + i, 0, i);
        order[i] = order[place];
        order[place] = i < t->trees ? i : pick(seed, 60 + i, 0, t->trees - 1);
    }
    bool right = true, noticed = true;
    for (int i = 0; i < runs; i++) {
        int tree = order[i];
        Answers a = run(t->tree[tree], t->id, seed_of(seed, 200 + i));
        int said = test_says(&a, t);
        if (tree % 2) noticed = noticed && said == 0; // the odd ones have the bug
        else right = right && said == 1;
        free(a.bytes);
    }
    award(j, 1, right && noticed, "your test %s\n     hint: %s", right ? "does not notice the bug, or not every time" : "says that a right engine has a bug, or does not come to its end",
          right ? "compare numbers that the bug changes with what you work out by hand" : "work out by hand what the engine should say");
}
