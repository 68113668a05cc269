// predict.c - see predict.h. One training step on paper: every buffer that comes and goes, in the order in which it does.
// N = B T rows. Sizes are in numbers; they become bytes at the end.
//
// It has the order of the engine and none of its code. `Paper` is a ledger of its own: take() writes a buffer onto it, give()
// strikes one off. NAME_there is what an op leaves behind in forward, NAME_back what its gradients take and free. An engine
// that keeps a byte too many, or frees one too late, disagrees with it (tests/test_predict.c).
//
// Read next: train.c, or chapter 11 of TUTORIAL.md.

#include "predict.h"

typedef struct Paper {
    int64_t live[MEMORY_KINDS], own_peak[MEMORY_KINDS], at_peak[MEMORY_KINDS], total, peak;
    const Config *config;
    const LoraConfig *lora;
    int64_t T, N, C;
    bool full, whole; // everything trains; the batch is one part
} Paper;

static void take(Paper *p, MemoryKind kind, int64_t count)
{
    p->live[kind] += count;
    p->total += count;
    if (p->live[kind] > p->own_peak[kind]) p->own_peak[kind] = p->live[kind];
    if (p->total > p->peak) {
        p->peak = p->total;
        memcpy(p->at_peak, p->live, sizeof p->live);
    }
}

static void give(Paper *p, MemoryKind kind, int64_t count) { take(p, kind, -count); }

static void keep(Paper *p, int64_t count) // a result becomes one that a gradient will read
{
    give(p, MEMORY_LIVE_ACTIVATIONS, count);
    take(p, MEMORY_KEPT_ACTIVATIONS, count);
}

static void activation_grad(Paper *p, int64_t count) { take(p, MEMORY_ACTIVATION_GRADIENTS, count); }
static void parameter_grad(Paper *p, int64_t count) { take(p, MEMORY_PARAMETER_GRADIENTS, count); }
static void grad_done(Paper *p, int64_t count) { give(p, MEMORY_ACTIVATION_GRADIENTS, count); }
static void kept_done(Paper *p, int64_t count) { give(p, MEMORY_KEPT_ACTIVATIONS, count); }
static void result(Paper *p, int64_t count) { take(p, MEMORY_LIVE_ACTIVATIONS, count); }
static void dropped(Paper *p, int64_t count) { give(p, MEMORY_LIVE_ACTIVATIONS, count); }

static int rank(const Config *config, const LoraConfig *lora, int block, int kind)
{
    int last = lora == NULL ? -1 : lora->last_block < 0 ? config->n_layer - 1 : lora->last_block;
    if (lora == NULL || block < lora->first_block || block > last || !(lora->targets & 1u << kind)) return 0;
    return lora->r_by_block ? lora->r_by_block[block] : lora->r;
}

// Which values of a block require a gradient: what makes them does, or what they are made of.
typedef struct Flow { bool in, qkv, attended, middle, wide, narrow, out; } Flow;

static Flow flow_of(const Paper *p, int block, bool in)
{
    bool a[LINEARS];
    for (int k = 0; k < LINEARS; k++) a[k] = p->full || rank(p->config, p->lora, block, k) > 0;
    Flow f = { .in = in };
    f.qkv = in || a[C_ATTN];
    f.attended = f.qkv || a[ATTN_C_PROJ];
    f.middle = in || f.attended;
    f.wide = f.middle || a[C_FC];
    f.narrow = f.wide || a[MLP_C_PROJ];
    f.out = f.middle || f.narrow;
    return f;
}

// ------------------------------------------------------------------------------------------------------------------ forward

// y = x W + b (+ s (x A) B, in place); x is not needed afterwards. It is kept for dW = x^T dy or for dA = x^T dh.
static bool keeps_x(const Paper *p, int r) { return p->full || (r > 0 && !p->lora->freeze_A); }

// But x of a layernorm or a gelu that is recorded is made again in backward, and not kept: only attention's result is not so.
static bool made_again(int kind, bool x_requires) { return kind != ATTN_C_PROJ && x_requires; }

static void linear_there(Paper *p, int block, int kind, bool x_requires)
{
    int64_t x = p->N * linear_inputs(p->config, (LinearKind)kind), y = p->N * linear_outputs(p->config, (LinearKind)kind);
    int r = rank(p->config, p->lora, block, kind);
    bool keeps = keeps_x(p, r) && !made_again(kind, x_requires);
    result(p, y);
    if (p->full && keeps) keep(p, x);
    if (r > 0) {
        result(p, p->N * r); // h = x A
        if (keeps) keep(p, x);
        keep(p, p->N * r);   // h is kept for dB = s h^T dy
    }
    if (!keeps) dropped(p, x);
}

static void layernorm_there(Paper *p, bool recorded, bool x_is_kept)
{
    result(p, p->N * p->C);
    if (!recorded) return;
    take(p, MEMORY_KEPT_ACTIVATIONS, 2 * p->N); // mean and 1/deviation of each row
    if (!x_is_kept) keep(p, p->N * p->C);
}

static void block_there(Paper *p, int block, Flow f, bool x_is_kept)
{
    int64_t NC = p->N * p->C;
    layernorm_there(p, f.in, x_is_kept);
    linear_there(p, block, C_ATTN, f.in);
    result(p, NC); // attention
    if (f.qkv) take(p, MEMORY_KEPT_ACTIVATIONS, 2 * p->N * p->config->n_head); // max and 1/sum of each row of scores
    if (f.qkv) keep(p, 3 * NC);
    else dropped(p, 3 * NC);
    linear_there(p, block, ATTN_C_PROJ, f.qkv);
    result(p, NC); // x + h
    layernorm_there(p, f.middle, false);
    dropped(p, NC); // h; its place was needed until the layernorm had replaced it
    linear_there(p, block, C_FC, f.middle);
    result(p, 4 * NC); // gelu
    if (f.wide) keep(p, 4 * NC);
    else dropped(p, 4 * NC);
    linear_there(p, block, MLP_C_PROJ, f.wide);
    result(p, NC); // the second sum
    if (!f.middle) dropped(p, NC); // the first
    dropped(p, NC); // h
}

// ----------------------------------------------------------------------------------------------------------------- backward

static void x_done(Paper *p, int64_t count, bool again)
{
    give(p, again ? MEMORY_LIVE_ACTIVATIONS : MEMORY_KEPT_ACTIVATIONS, count);
}

static void linear_back(Paper *p, int block, int kind, bool x_requires)
{
    int64_t I = linear_inputs(p->config, (LinearKind)kind), O = linear_outputs(p->config, (LinearKind)kind), N = p->N;
    int r = rank(p->config, p->lora, block, kind);
    bool again = made_again(kind, x_requires);
    if (r > 0) {
        bool h_requires = x_requires || !p->lora->freeze_A;
        parameter_grad(p, r * O);                        // dB
        kept_done(p, N * r);                             // h: only dB read it
        if (h_requires) {
            activation_grad(p, N * r);                   // dh
        }
        if (!x_requires) grad_done(p, N * O);            // nothing below wants dy; else the frozen linear takes it over
        if (keeps_x(p, r) && again) result(p, N * I);    // x, once more
        if (!p->lora->freeze_A) parameter_grad(p, I * r);// dA
        if (keeps_x(p, r)) x_done(p, N * I, again);      // x: only dA read it
        if (x_requires) activation_grad(p, N * I);       // dx, its part through A
        if (h_requires) grad_done(p, N * r);
    }
    if (p->full) {
        parameter_grad(p, O);
        if (again) result(p, N * I);
        parameter_grad(p, I * O);
        x_done(p, N * I, again);                         // x: only dW read it
    }
    if (!x_requires) return;                             // the linear itself was not recorded
    if (r == 0) activation_grad(p, N * I);               // dx
    grad_done(p, N * O);                                 // dy
}

// x already has the gradient of the residual sum, if it requires one.
static void layernorm_back(Paper *p)
{
    if (p->full) {
        parameter_grad(p, p->C);
        parameter_grad(p, p->C);
    }
    kept_done(p, p->N * p->C); // x
    kept_done(p, 2 * p->N);
    grad_done(p, p->N * p->C); // dy
}

// y = x + h: x takes the gradient's buffer over, h gets a copy.
static void residual_back(Paper *p, bool x_requires, bool h_requires)
{
    if (h_requires) activation_grad(p, p->N * p->C);
    if (!x_requires) grad_done(p, p->N * p->C);
}

static void block_back(Paper *p, int block, Flow f)
{
    int64_t NC = p->N * p->C;
    residual_back(p, f.middle, f.narrow);
    if (f.narrow) linear_back(p, block, MLP_C_PROJ, f.wide);
    if (f.wide) {
        kept_done(p, 4 * NC); // gelu's x; its gradient takes the place of its result's
        linear_back(p, block, C_FC, f.middle);
    }
    if (!f.middle) return;
    layernorm_back(p);
    residual_back(p, f.in, f.attended);
    if (f.attended) linear_back(p, block, ATTN_C_PROJ, f.qkv);
    if (f.qkv) {
        activation_grad(p, 3 * NC);
        kept_done(p, 3 * NC); // qkv
        kept_done(p, 2 * p->N * p->config->n_head);
        grad_done(p, NC);
        linear_back(p, block, C_ATTN, f.in);
    }
    if (f.in) layernorm_back(p);
}

// ------------------------------------------------------------------------------------------------------------------ one step

double base_parameters(double V, double T, double L, double C) { return V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C; }

int64_t lora_parameters(const Config *config, const LoraConfig *lora)
{
    int64_t size = 0;
    for (int i = 0; i < config->n_layer; i++)
        for (int k = 0; k < LINEARS; k++)
            size += (int64_t)rank(config, lora, i, k) *
                    (linear_inputs(config, (LinearKind)k) + linear_outputs(config, (LinearKind)k));
    return size;
}

static int64_t frozen_A_parameters(const Config *config, const LoraConfig *lora)
{
    int64_t size = 0;
    for (int i = 0; i < config->n_layer; i++)
        for (int k = 0; k < LINEARS; k++) size += (int64_t)rank(config, lora, i, k) * linear_inputs(config, (LinearKind)k);
    return size;
}

// A weight [I,O] in codes, in numbers of the build: half a byte each and 4 for each 64; or a byte each and 4 for each column.
static int64_t in_codes(BaseType type, int64_t I, int64_t O, int real_bytes)
{
    int64_t bytes = type == BASE_NF4 ? (I * O + 1) / 2 + 4 * ((I * O + 63) / 64) : I * O + 4 * O;
    return (bytes + real_bytes - 1) / real_bytes;
}

// What is there all the time.
static void states_there(Paper *p, int threads, int real_bytes)
{
    const Config *c = p->config;
    int64_t base = (int64_t)base_parameters(c->vocab_size, c->block_size, c->n_layer, c->n_embd), weights = base;
    for (int k = 0; !p->full && k < LINEARS && p->lora->base_type != BASE_FLOAT; k++) {
        int64_t I = linear_inputs(c, (LinearKind)k), O = linear_outputs(c, (LinearKind)k);
        weights += c->n_layer * (in_codes(p->lora->base_type, I, O, real_bytes) - I * O);
    }
    int64_t adapter = p->full ? 0 : lora_parameters(c, p->lora);
    int64_t frozen_A = p->full || !p->lora->freeze_A ? 0 : frozen_A_parameters(c, p->lora);
    take(p, MEMORY_WEIGHTS, weights);
    take(p, MEMORY_ADAPTERS, adapter);
    take(p, MEMORY_MOMENTS, 2 * (p->full ? base : adapter - frozen_A));
    take(p, MEMORY_WORKSPACE, threads * scratch_size((int)p->T, c->n_embd / c->n_head));
}

// Returns whether the last block's result requires a gradient.
static bool forward(Paper *p, bool recompute)
{
    int64_t NC = p->N * p->C, NV = p->N * p->config->vocab_size;
    bool requires = p->full;
    result(p, NC); // the embedding
    for (int i = 0; i < p->config->n_layer; i++) {
        Flow f = flow_of(p, i, requires);
        int64_t kept_before = p->live[MEMORY_KEPT_ACTIVATIONS];
        block_there(p, i, f, false);
        requires = f.out;
        bool x_is_kept = f.in; // by the first layernorm
        if (recompute) {       // all that the block kept goes again, and its input stays for backward
            kept_done(p, p->live[MEMORY_KEPT_ACTIVATIONS] - kept_before);
            if (f.in) result(p, NC);
            if (f.out) keep(p, NC);
            x_is_kept = f.out;
        }
        if (!x_is_kept) dropped(p, NC);
    }
    layernorm_there(p, requires, false);
    if (!requires) dropped(p, NC);
    result(p, NV);    // logits
    dropped(p, NC);   // if the head reads it in backward, it is made again
    result(p, p->N);  // losses
    if (requires) {
        take(p, MEMORY_KEPT_ACTIVATIONS, 2 * p->N);
        keep(p, NV);
    } else dropped(p, NV);
    result(p, 1);     // their mean
    dropped(p, p->N);
    if (!p->whole) {
        result(p, 1); // the part's share of it
        dropped(p, 1);
    }
    return requires;
}

// From the loss to the last block's result.
static void head_back(Paper *p)
{
    int64_t N = p->N, NC = N * p->C, NV = N * p->config->vocab_size;
    activation_grad(p, 1);
    if (!p->whole) {
        activation_grad(p, 1);
        grad_done(p, 1);
    }
    activation_grad(p, N);
    grad_done(p, 1);
    activation_grad(p, NV);
    kept_done(p, NV);
    kept_done(p, 2 * N);
    grad_done(p, N);
    if (p->full) {
        result(p, NC); // its x, once more
        parameter_grad(p, p->config->vocab_size * p->C);
        dropped(p, NC);
    }
    activation_grad(p, NC);
    grad_done(p, NV);
    if (p->full) {
        parameter_grad(p, p->C);
        parameter_grad(p, p->C);
    }
    activation_grad(p, NC);
    kept_done(p, NC);
    kept_done(p, 2 * N);
    grad_done(p, NC);
}

static void backward_pass(Paper *p, bool recompute)
{
    int64_t NC = p->N * p->C;
    head_back(p);
    for (int i = p->config->n_layer - 1; i >= 0; i--) {
        bool in = p->full;
        for (int j = 0; j < i; j++) in = flow_of(p, j, in).out;
        Flow f = flow_of(p, i, in);
        if (!f.out) continue;
        if (recompute) {
            block_there(p, i, f, true);
            dropped(p, NC); // its result: only what was kept on the way is of interest now
        }
        block_back(p, i, f);
        if (recompute && !f.in) kept_done(p, NC);
    }
    if (p->full) {
        parameter_grad(p, p->config->block_size * p->C); // wpe
        grad_done(p, NC);
    }
}

Prediction predict_step(const Config *config, const LoraConfig *lora, int B, int T, bool recompute, int threads, int real_bytes)
{
    return predict_step_in_parts(config, lora, B, T, recompute, threads, real_bytes, 1);
}

Prediction predict_step_in_parts(const Config *config, const LoraConfig *lora, int B, int T, bool recompute, int threads,
                                 int real_bytes, int parts)
{
    Paper paper = { .config = config, .lora = lora, .T = T, .C = config->n_embd, .full = lora == NULL, .whole = parts == 1 };
    states_there(&paper, threads, real_bytes);
    paper.N = ((int64_t)B + parts - 1) / parts * T; // the last part is one of the largest,
    for (int i = 0; i < parts && i < 2; i++) {      // and beside the sum of those before it, as the second is
        if (i > 0) dropped(&paper, 1);              // the loss of the pass before
        if (forward(&paper, recompute)) backward_pass(&paper, recompute);
    }
    Prediction prediction = { .peak = paper.peak * real_bytes };
    for (int k = 0; k < MEMORY_KINDS; k++) {
        prediction.own_peak[k] = paper.own_peak[k] * real_bytes;
        prediction.at_peak[k] = paper.at_peak[k] * real_bytes;
    }
    return prediction;
}
