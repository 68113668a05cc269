// meltwater.c - the whole idea in one file: a tape, one flag, and LoRA.
//
//     cc -O2 meltwater.c -lm && ./a.out
//
// It trains a small transformer to write sentences, letter by letter. Then it freezes every weight, puts a thin pair of
// matrices (a LoRA adapter) beside each large one, and trains those alone to write in another way. A frozen weight gets no
// gradient of its own, yet gradients flow *through* it to the adapters below. That is one line: "the guard", in backward. The
// file is plain and slow on purpose. The rest of the project is the same, made general, measured and fast.
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// A token is a character's code, below V. A step reads B windows of T tokens. Each token is a row of C numbers, which attention
// reads in H heads of D. R is the rank of an adapter, SCALE the factor of what it adds (LoRA's alpha / R).
enum { V = 128, T = 32, C = 32, H = 2, D = C / H, LAYERS = 2, B = 4, R = 4, SCALE = 2, SEED = 1337, FORWARD = -1 };

// ---- random numbers: the i-th of a seed (splitmix64); in [0, 1); with mean 0 and deviation 1 (Box and Muller)
static uint64_t bits(uint64_t seed, uint64_t i) {
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u, z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static double uniform(uint64_t seed, uint64_t i) { return (double)(bits(seed, i) >> 11) * 0x1p-53; }
static double normal(uint64_t seed, uint64_t i) {
    return sqrt(-2 * log(1 - uniform(seed, 2 * i))) * cos(6.283185307179586 * uniform(seed, 2 * i + 1));
}

// ---- tensors: numbers in rows, perhaps their gradient, and the flag
typedef struct Tensor {
    int rows, columns, size;
    bool weight;         // not made by an op
    bool requires_grad;  // of a weight: set by us; of a result: true if some input's is
    double *data, *grad; // grad: d(loss)/d(data); NULL until one is computed, which is not the same as zeros
    double *m, *v;       // AdamW's moments, of a weight that trains
    struct Tensor *lora; // of a weight: its adapter's A, with B after it in the list; NULL: none
} Tensor;
enum { WEIGHTS, THEIR_GRADIENTS, MOMENTS, RESULTS, KINDS };
static size_t bytes[KINDS]; // of each kind; gradients and results: in one step
static double *zeros(int kind, int count) {
    double *array = calloc((size_t)count, sizeof *array);
    if (array == NULL) { fprintf(stderr, "meltwater: out of memory\n"); exit(1); }
    bytes[kind] += (size_t)count * sizeof *array;
    return array;
}

// ---- the tape: each call of an op is a node, in the order of the calls
typedef struct Node {
    void (*op)(const struct Node *n, int input); // FORWARD: out = f(in). 0, 1, 2: adds dy df/dx to the gradient of that input
    Tensor *in[3], out;
    const int *ids;                              // tokens, of embedding and loss
    double factor;                               // of add
    bool turned;                                 // linear reads its weight as W^T
} Node;
static Node tape[128];
static int nodes, length = T;          // length: of each window
static int through, computed, skipped; // gradients: of results; of weights; of weights, but not computed
static Tensor *record(Node node, int rows, int columns) {
    Node *n = &tape[nodes++];
    *n = node;
    n->out = (Tensor){ rows, columns, rows * columns, .data = zeros(RESULTS, rows * columns) };
    for (int i = 0; i < 3 && n->in[i] != NULL; i++) n->out.requires_grad |= n->in[i]->requires_grad;
    n->op(n, FORWARD);
    return &n->out;
}
// An op's inputs come before it on the tape. So, from the last node to the first, each output has its whole gradient in time.
static void backward(Tensor *loss) {
    *(loss->grad = zeros(RESULTS, 1)) = 1; // d(loss)/d(loss)
    for (Node *n = tape + nodes; n-- > tape; )
        for (int i = 0; i < 3 && n->in[i] != NULL && n->out.grad != NULL; i++) {
            Tensor *x = n->in[i];
            if (!x->requires_grad) { skipped += x->weight; continue; } // the guard: all that freezing is
            if (x->grad == NULL) x->grad = zeros(x->weight ? THEIR_GRADIENTS : RESULTS, x->size);
            n->op(n, i);
            if (x->weight) computed++; else through++;
        }
}
static void tape_clear(void) { while (nodes > 0) nodes--, free(tape[nodes].out.data), free(tape[nodes].out.grad); }

// ---- linear: y = x W + b. See what each gradient reads: dx reads W, frozen or not; only dW reads x.
static void linear_op(const Node *n, int input) {
    Tensor *x = n->in[0], *W = n->in[1], *b = n->in[2];
    int I = x->columns, O = n->out.columns, down = n->turned ? 1 : O, right = n->turned ? I : 1; // W[i,o]: i * down + o * right
    double *y = n->out.data, *dy = n->out.grad;
    for (int r = 0; r < x->rows; r++)
        for (int i = 0; i < I; i++) {
            double *xi = &x->data[r * I + i], *dxi = input == 0 ? &x->grad[r * I + i] : NULL;
            for (int o = 0; o < O && input == FORWARD; o++) y[r * O + o] += *xi * W->data[i * down + o * right];
            for (int o = 0; o < O && input == 0; o++) *dxi += dy[r * O + o] * W->data[i * down + o * right]; // dx = dy W^T
            for (int o = 0; o < O && input == 1; o++) W->grad[i * down + o * right] += *xi * dy[r * O + o]; // dW = x^T dy
        }
    for (int i = 0; i < n->out.size && b != NULL && input == FORWARD; i++) y[i] += b->data[i % O];
    for (int i = 0; i < n->out.size && input == 2; i++) b->grad[i % O] += dy[i]; // db = sum of dy
}
static Tensor *linear(Tensor *x, Tensor *W, Tensor *b) {
    return record((Node){ linear_op, .in = { x, W, b } }, x->rows, W->columns);
}

// ---- embedding: row r is E[its token] + P[its place in the window]
static void embedding_op(const Node *n, int input) {
    for (int i = 0; i < n->out.size; i++) {
        int at[2] = { n->ids[i / C] * C + i % C, i / C % length * C + i % C };
        if (input == FORWARD) n->out.data[i] = n->in[0]->data[at[0]] + n->in[1]->data[at[1]];
        else n->in[input]->grad[at[input]] += n->out.grad[i];
    }
}

// ---- add: y = a + factor b
static void add_op(const Node *n, int input) {
    for (int i = 0; i < n->out.size; i++)
        if (input == FORWARD) n->out.data[i] = n->in[0]->data[i] + n->factor * n->in[1]->data[i];
        else n->in[input]->grad[i] += (input == 0 ? 1 : n->factor) * n->out.grad[i];
}
static Tensor *add(Tensor *a, Tensor *b, double factor) {
    return record((Node){ add_op, { a, b }, .factor = factor }, a->rows, a->columns);
}

// ---- gelu: y = x (1 + t) / 2, t = tanh(a (x + c x^3)), dt/dx = (1 - t^2) a (1 + 3 c x^2)
static void gelu_op(const Node *n, int input) {
    const double a = 0.7978845608028654, c = 0.044715; // a = sqrt(2 / pi)
    for (int i = 0; i < n->out.size; i++) {
        double x = n->in[0]->data[i], t = tanh(a * (x + c * x * x * x));
        if (input == FORWARD) n->out.data[i] = x * (1 + t) / 2;
        else n->in[0]->grad[i] += n->out.grad[i] * (1 + t + x * (1 - t * t) * a * (1 + 3 * c * x * x)) / 2;
    }
}

// ---- layernorm: each row y = g z + b, z = (x - mean(x)) / s, s its deviation; dx = (d - mean(d) - z mean(d z)) / s, d = g dy
static void layernorm_op(const Node *n, int input) {
    const double *g = n->in[1]->data, *b = n->in[2]->data;
    for (int r = 0; r < n->out.rows; r++) {
        const double *x = n->in[0]->data + r * C, *dy = input == FORWARD ? NULL : n->out.grad + r * C;
        double mean = 0, s = 1e-5, mean_d = 0, mean_dz = 0;
        for (int c = 0; c < C; c++) mean += x[c] / C;
        for (int c = 0; c < C; c++) s += (x[c] - mean) * (x[c] - mean) / C;
        s = sqrt(s);
        for (int c = 0; c < C && input == 0; c++) mean_d += g[c] * dy[c] / C, mean_dz += g[c] * dy[c] * (x[c] - mean) / s / C;
        for (int c = 0; c < C; c++) {
            double z = (x[c] - mean) / s;
            if (input == FORWARD) n->out.data[r * C + c] = g[c] * z + b[c];
            if (input == 0) n->in[0]->grad[r * C + c] += (g[c] * dy[c] - mean_d - z * mean_dz) / s;
            if (input == 1) n->in[1]->grad[c] += dy[c] * z;
            if (input == 2) n->in[2]->grad[c] += dy[c];
        }
    }
}
static Tensor *layernorm(Tensor *x, Tensor *g) { return record((Node){ layernorm_op, .in = { x, g, g + 1 } }, x->rows, C); }

// ---- attention, in each head: token t takes y = sum_u p_u v_u, p = softmax_u(q k_u / sqrt(D)), of its window's u up to t.
// A row of x: q | k | v. dv_u += p_u dy; dp_u = dy v_u; ds_u = p_u (dp_u - sum p dp) / sqrt(D); dq += ds_u k_u, dk_u += ds_u q
static void softmax(double *p, int count) {
    double largest = p[0], sum = 0;
    for (int i = 1; i < count; i++) largest = fmax(largest, p[i]);
    for (int i = 0; i < count; i++) sum += p[i] = exp(p[i] - largest);
    for (int i = 0; i < count; i++) p[i] /= sum;
}
static void attention_op(const Node *n, int input) {
    for (int j = 0; j < n->out.rows * H; j++) {
        int r = j / H, t = r % length, S = 3 * C, first = (r - t) * S + j % H * D, out = r * C + j % H * D; // S: a row of x
        const double *x = n->in[0]->data + first, *q = x + t * S, *k = x + C, *v = x + 2 * C; // first: where the window begins
        double p[T] = { 0 }, dp[T] = { 0 }, sum = 0, *y = n->out.data + out;
        for (int u = 0; u <= t; u++) for (int i = 0; i < D; i++) p[u] += q[i] * k[u * S + i] / sqrt(D);
        softmax(p, t + 1);
        for (int u = 0; u <= t && input == FORWARD; u++) for (int i = 0; i < D; i++) y[i] += p[u] * v[u * S + i];
        if (input == FORWARD) continue;
        double *dx = n->in[0]->grad + first, *dq = dx + t * S, *dk = dx + C, *dv = dx + 2 * C, *dy = n->out.grad + out;
        for (int u = 0; u <= t; u++) for (int i = 0; i < D; i++) dv[u * S + i] += p[u] * dy[i], dp[u] += dy[i] * v[u * S + i];
        for (int u = 0; u <= t; u++) sum += p[u] * dp[u];
        for (int u = 0; u <= t; u++) for (int i = 0; i < D; i++) {
            double ds = p[u] * (dp[u] - sum) / sqrt(D);
            dq[i] += ds * k[u * S + i], dk[u * S + i] += ds * q[i];
        }
    }
}

// ---- loss: the mean over rows of -log p[id], p = softmax(x); dx = (p - 1 at id) / rows
static void loss_op(const Node *n, int input) {
    for (int r = 0; r < n->in[0]->rows; r++) {
        double p[V], rows = n->in[0]->rows;
        softmax(memcpy(p, n->in[0]->data + r * V, sizeof p), V);
        if (input == FORWARD) n->out.data[0] -= log(p[n->ids[r]]) / rows;
        else for (int v = 0; v < V; v++) n->in[0]->grad[r * V + v] += n->out.grad[0] * (p[v] - (v == n->ids[r])) / rows;
    }
}

// ---- the model: GPT-2's, small. All weights are in one list in this order, each with its bias after it; then the adapters.
enum { NORM_1 = 0, QKV = 2, PROJ = 4, NORM_2 = 6, UP = 8, DOWN = 10, BLOCK = 12 }; // in a block of the model
enum { EMBEDDING, POSITIONS, BLOCKS, LAST_NORM = BLOCKS + LAYERS * BLOCK };
static Tensor weights[64];
static int weight_count;
static Tensor *weight(int rows, int columns, double deviation, double mean) {
    Tensor *t = &weights[weight_count];
    *t = (Tensor){ rows, columns, rows * columns, true, true, .data = zeros(WEIGHTS, rows * columns) };
    for (int i = 0; i < t->size; i++) t->data[i] = mean + deviation * normal(bits(SEED, weight_count), i);
    return &weights[weight_count++];
}
static void linear_weights(int I, int O, double deviation) { weight(I, O, deviation, 0), weight(1, O, 0, 0); }
static void norm_weights(void) { weight(1, C, 0, 1), weight(1, C, 0, 0); } // gain and bias
static void make_model(void) {
    weight(V, C, 0.02, 0), weight(T, C, 0.02, 0);
    for (int k = 0; k < LAYERS; k++) {
        norm_weights(), linear_weights(C, 3 * C, 0.02), linear_weights(C, C, 0.02 / sqrt(2 * LAYERS));
        norm_weights(), linear_weights(C, 4 * C, 0.02), linear_weights(4 * C, C, 0.02 / sqrt(2 * LAYERS));
    }
    norm_weights();
}

// ---- LoRA: y = x W + b + SCALE (x A) B. W is frozen; A and B train. B begins as zeros, so at first nothing changes.
static Tensor *apply(Tensor *x, Tensor *W) {
    Tensor *y = linear(x, W, W + 1), *A = W->lora;
    return A == NULL ? y : add(y, linear(linear(x, A, NULL), A + 1, NULL), SCALE);
}
static void freeze_and_attach(void) {
    for (Tensor *t = weights; t < weights + weight_count; t++)
        t->requires_grad = false, free(t->m), free(t->v), t->m = t->v = NULL, bytes[MOMENTS] = 0;
    for (int k = 0; k < LAYERS * 4; k++) { // beside QKV, PROJ, UP and DOWN of each block
        Tensor *W = &weights[BLOCKS + k / 4 * BLOCK + (int[]){ QKV, PROJ, UP, DOWN }[k % 4]];
        Tensor *A = W->lora = weight(W->rows, R, 0, 0);
        for (int i = 0; i < A->size; i++) A->data[i] = (2 * uniform(bits(SEED, k), i) - 1) / sqrt(W->rows);
        weight(R, W->columns, 0, 0);
    }
}
static Tensor *logits(const int *ids, int rows) {
    Tensor *x = record((Node){ embedding_op, { weights + EMBEDDING, weights + POSITIONS }, .ids = ids }, rows, C), *h;
    for (Tensor *w = weights + BLOCKS; w < weights + LAST_NORM; w += BLOCK) {
        h = apply(layernorm(x, w + NORM_1), w + QKV);
        x = add(x, apply(record((Node){ attention_op, .in = { h } }, rows, C), w + PROJ), 1);
        h = apply(layernorm(x, w + NORM_2), w + UP);
        x = add(x, apply(record((Node){ gelu_op, .in = { h } }, rows, 4 * C), w + DOWN), 1);
    }
    return record((Node){ linear_op, { layernorm(x, weights + LAST_NORM), weights + EMBEDDING }, .turned = true }, rows, V);
}

// ---- AdamW: m and v are running means of the gradient and of its square. What is frozen has none. Matrices decay.
static void adamw_step(int step, double rate) { // step: from 1
    for (Tensor *t = weights; t < weights + weight_count; t++)
        for (int i = 0; i < t->size && t->requires_grad; i++) {
            if (t->m == NULL) t->m = zeros(MOMENTS, t->size), t->v = zeros(MOMENTS, t->size);
            t->m[i] = 0.9 * t->m[i] + 0.1 * t->grad[i];
            t->v[i] = 0.99 * t->v[i] + 0.01 * t->grad[i] * t->grad[i];
            t->data[i] -= t->rows > 1 ? rate * 0.1 * t->data[i] : 0;
            t->data[i] -= rate * t->m[i] / (1 - pow(0.9, step)) / (sqrt(t->v[i] / (1 - pow(0.99, step))) + 1e-8);
        }
}

// ---- training and sampling
static char text[4000 + 64];
static void write_text(void) {
    static const char *const words[3][4] = { { "the cat ", "a small bird ", "my sister ", "the old man " },
        { "sees ", "likes ", "hears ", "follows " }, { "the river.\n", "a red kite.\n", "the first snow.\n", "my house.\n" } };
    for (int i = 0; strlen(text) < 4000; i++) strcat(text, words[i % 3][bits(7, i) % 4]);
}
static void turn_vowels(void) { for (char *c = text; *c != '\0'; c++) if (strchr("aeiu", *c) != NULL) *c = 'o'; }
static double train_step(int step, double rate) { // step: from 0; returns the loss
    static int ids[B * T], next[B * T];
    for (int i = 0; i < B * T; i++) {
        const char *c = text + bits(bits(SEED, step), i / T) % (4000 - T) + i % T;
        ids[i] = (unsigned char)c[0], next[i] = (unsigned char)c[1];
    }
    bytes[RESULTS] = bytes[THEIR_GRADIENTS] = 0, through = computed = skipped = 0;
    Tensor *loss = record((Node){ loss_op, { logits(ids, B * T) }, .ids = next }, 1, 1);
    double value = loss->data[0];
    backward(loss), adamw_step(step + 1, rate);
    for (Tensor *t = weights; t < weights + weight_count; t++) free(t->grad), t->grad = NULL;
    tape_clear();
    return value;
}
static void sample(void) {
    int ids[150] = { '\n' };
    for (int i = 1; i < 150; i++, tape_clear()) {
        length = i < T ? i : T;
        double *p = logits(ids + i - length, length)->data + (length - 1) * V, left = uniform(SEED, i);
        for (int v = 0; v < V; v++) p[v] /= 0.7; // the temperature
        softmax(p, V);
        while (ids[i] < V - 1 && (left -= p[ids[i]]) > 0) ids[i]++;
        putchar(ids[i]);
    }
    puts("\n"), length = T;
}
static void train(const char *what, int steps, double rate) {
    puts(what);
    for (int step = 0; step < steps; step++) {
        double loss = train_step(step, rate);
        if (step % 100 == 99) printf("  step %3d  loss %.3f\n", step + 1, loss);
    }
    printf("  bytes: weights %zu, their gradients %zu, moments %zu, results of ops and their gradients %zu\n"
           "  gradients in each step: %d of results, %d of weights; %d of weights not computed\n\n", bytes[WEIGHTS],
           bytes[THEIR_GRADIENTS], bytes[MOMENTS], bytes[RESULTS], through, computed, skipped);
    sample();
}
int main(void) {
    make_model(), write_text();
    train("Everything trains:", 500, 3e-3);
    turn_vowels(), freeze_and_attach();
    train("Every weight is frozen; adapters train, to write each vowel as an o:", 300, 1e-2);
    for (int k = 0; k < weight_count; k++) weights[k].lora = NULL;
    puts("Without the adapters, the same base writes as before:"), sample();
    return 0;
}
