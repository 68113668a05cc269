// test_model.c - the transformer with and without adapters: its values against an independent forward pass, every gradient
// against central differences, what is counted, kept and frozen, and that training does what it should.

#include "../generate.h"
#include "../meter.h"
#include "small_model.h"
#include "test.h"

// -------------------------------------------------------------------------------------- an independent forward pass, in double

static const Tensor *named(const Transformer *model, const char *format, int block)
{
    char name[96];
    snprintf(name, sizeof name, format, block);
    for (int i = 0; i < model->base_count; i++)
        if (strcmp(model->parameters[i]->name, name) == 0) return model->parameters[i];
    printf("the model has no parameter %s\n", name);
    exit(1);
}

static void naive_norm(const double *x, const Tensor *gain, const Tensor *bias, double *y)
{
    double mean = 0, variance = 0;
    for (int c = 0; c < C; c++) mean += x[c] / C;
    for (int c = 0; c < C; c++) variance += (x[c] - mean) * (x[c] - mean) / C;
    for (int c = 0; c < C; c++) y[c] = (x[c] - mean) / sqrt(variance + 1e-5) * number(gain->data[c]) + number(bias->data[c]);
}

static void naive_linear(const Transformer *model, int block, LinearKind kind, const double *x, double *y)
{
    static const char *const formats[LINEARS] = { "transformer.h.%d.attn.c_attn.", "transformer.h.%d.attn.c_proj.",
            "transformer.h.%d.mlp.c_fc.", "transformer.h.%d.mlp.c_proj." };
    char name[96];
    snprintf(name, sizeof name, "%sweight", formats[kind]);
    const Tensor *W = named(model, name, block);
    snprintf(name, sizeof name, "%sbias", formats[kind]);
    const Tensor *b = named(model, name, block);
    int I = W->shape[0], O = W->shape[1];
    const Lora *lora = model->active && model->active->lora[block * LINEARS + (int)kind].A ? &model->active->lora[block * LINEARS + (int)kind] : NULL;
    for (int o = 0; o < O; o++) {
        y[o] = number(b->data[o]);
        for (int i = 0; i < I; i++) {
            double w = number(W->data[i * O + o]);
            if (lora) // the adapter, as a full-size change of the weight
                for (int r = 0; r < lora->A->shape[1]; r++)
                    w += model->active->config.alpha / lora->A->shape[1] * number(lora->A->data[i * lora->A->shape[1] + r]) * number(lora->B->data[r * O + o]);
            y[o] += x[i] * w;
        }
    }
}

static void naive_logits(const Transformer *model, const int *in, double logits[T][V]) // of one sequence
{
    const Tensor *wte = named(model, "transformer.wte.weight", 0), *wpe = named(model, "transformer.wpe.weight", 0);
    double x[T][C], h[C], qkv[T][3 * C], y[C], wide[4 * C];
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) x[t][c] = number(wte->data[in[t] * C + c]) + number(wpe->data[t * C + c]);
    for (int l = 0; l < model->config.n_layer; l++) {
        for (int t = 0; t < T; t++) {
            naive_norm(x[t], named(model, "transformer.h.%d.ln_1.weight", l), named(model, "transformer.h.%d.ln_1.bias", l), h);
            naive_linear(model, l, C_ATTN, h, qkv[t]);
        }
        for (int t = 0; t < T; t++) {
            for (int head = 0; head < H; head++) {
                double weight[T], sum = 0;
                for (int j = 0; j <= t; j++) {
                    double score = 0;
                    for (int d = head * (C / H); d < (head + 1) * (C / H); d++) score += qkv[t][d] * qkv[j][C + d];
                    sum += weight[j] = exp(score / sqrt((double)C / H));
                }
                for (int d = head * (C / H); d < (head + 1) * (C / H); d++) {
                    h[d] = 0;
                    for (int j = 0; j <= t; j++) h[d] += weight[j] / sum * qkv[j][2 * C + d];
                }
            }
            naive_linear(model, l, ATTN_C_PROJ, h, y);
            for (int c = 0; c < C; c++) x[t][c] += y[c];
            naive_norm(x[t], named(model, "transformer.h.%d.ln_2.weight", l), named(model, "transformer.h.%d.ln_2.bias", l), h);
            naive_linear(model, l, C_FC, h, wide);
            for (int i = 0; i < 4 * C; i++) wide[i] *= 0.5 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (wide[i] + 0.044715 * pow(wide[i], 3))));
            naive_linear(model, l, MLP_C_PROJ, wide, y);
            for (int c = 0; c < C; c++) x[t][c] += y[c];
        }
    }
    for (int t = 0; t < T; t++) {
        naive_norm(x[t], named(model, "transformer.ln_f.weight", 0), named(model, "transformer.ln_f.bias", 0), h);
        for (int v = 0; v < V; v++) {
            logits[t][v] = 0;
            for (int c = 0; c < C; c++) logits[t][v] += h[c] * number(wte->data[v * C + c]);
        }
    }
}

TEST(logits_and_loss_equal_an_independent_forward_pass)
{
    for (int adapted = 0; adapted < 2; adapted++) {
        Transformer *model = model_of(2, 0);
        if (adapted) adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
        make_irregular(model);
        real *logits = logits_of(model);
        double worst = 0, largest = 0, loss = 0;
        for (int b = 0; b < B; b++) {
            double expected[T][V];
            naive_logits(model, ids + b * T, expected);
            for (int t = 0; t < T; t++) {
                double sum = 0;
                for (int v = 0; v < V; v++) {
                    worst = fmax(worst, fabs(number(logits[(b * T + t) * V + v]) - expected[t][v]));
                    largest = fmax(largest, fabs(expected[t][v]));
                    sum += exp(expected[t][v]);
                }
                loss += (log(sum) - expected[t][targets[b * T + t]]) / N;
            }
        }
        EXPECT(worst <= 100 * EPSILON * largest && largest > 0.5, "adapted %d: off by %.3g of %.3g", adapted, worst, largest);
        Tensor *mean = transformer_loss(model, NULL, ids, targets, B, T);
        EXPECT(fabs(number(mean->data[0]) - loss) < 100 * EPSILON, "adapted %d: the loss is %.9g, not %.9g", adapted,
                number(mean->data[0]), loss);
        tensor_drop(mean);
        free(logits);
        transformer_free(model);
    }
}

TEST(parameters_are_those_of_gpt_2)
{
    static const char *const of_block[] = { "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias",
            "attn.c_proj.weight", "attn.c_proj.bias",
                                            "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias" };
    Transformer *model = transformer_new((Config){ 65, 64, 3, 4, 64, 0 }, 5, error, sizeof error);
    EXPECT(model->base_count == 2 + 3 * 12 + 2 && model->parameter_count == model->base_count, "%d parameters", model->base_count);
    int64_t size = (int64_t)65 * 64 + 64 * 64 + 3 * (12 * 64 * 64 + 13 * 64) + 2 * 64;
    EXPECT(transformer_base_size(model) == size && transformer_trainable_size(model) == size, "%" PRId64 " numbers, not %" PRId64,
            transformer_base_size(model), size);
    EXPECT(ledger.live[MEMORY_WEIGHTS] == bytes(size), "%" PRId64 " bytes of weights", ledger.live[MEMORY_WEIGHTS]);
    for (int i = 0; i < model->base_count; i++) {
        const Tensor *t = model->parameters[i];
        char name[64];
        if (i < 2) snprintf(name, sizeof name, "transformer.%s.weight", i == 0 ? "wte" : "wpe");
        else if (i < 38) snprintf(name, sizeof name, "transformer.h.%d.%s", (i - 2) / 12, of_block[(i - 2) % 12]);
        else snprintf(name, sizeof name, "transformer.ln_f.%s", i == 38 ? "weight" : "bias");
        EXPECT(strcmp(t->name, name) == 0, "parameter %d is %s, not %s", i, t->name, name);
        bool matrix = t->ndim == 2, residual = strstr(name, "c_proj.weight") != NULL;
        double deviation = norm_of(t->data, t->size) / sqrt((double)t->size), expected = residual ? 0.02 / sqrt(2.0 * 3) : 0.02;
        if (matrix) EXPECT(fabs(deviation / expected - 1) < 0.06, "%s: deviation %g, not %g", name, deviation, expected);
        else for (int64_t j = 0; j < t->size; j++) EXPECT(t->data[j] == (strstr(name, "weight") ? 1 : 0), "%s[%" PRId64 "] = %g", name,
                j, number(t->data[j]));
    }
    Transformer *same = transformer_new(model->config, 5, error, sizeof error), *other = transformer_new(model->config, 6,
            error, sizeof error);
    EXPECT(transformer_hash(model) == transformer_hash(same) && transformer_hash(model) != transformer_hash(other),
            "the seed does not decide the weights");
    EXPECT(!same_bits(model->blocks[0].linear[C_FC].weight->data, model->blocks[1].linear[C_FC].weight->data, 64),
            "two blocks start alike");
    for (int i = 0; i < same->base_count; i++) { // the last number of any tensor counts
        Tensor *t = same->parameters[i];
        real old = t->data[t->size - 1];
        t->data[t->size - 1] = old + 1;
        EXPECT(transformer_hash(same) != transformer_hash(model), "the hash does not see %s", t->name);
        t->data[t->size - 1] = old;
    }
    EXPECT(transformer_hash(same) == transformer_hash(model), "the same bytes, and another hash");
    transformer_free(model), transformer_free(same), transformer_free(other);
}

// ------------------------------------------------------------------------------------------------ central differences, in full

typedef struct Run { Transformer *model; Tape *tape; } Run;

static double run_loss(void *context) // mean cross entropy of the engine's logits, in double
{
    const Run *run = context;
    tape_clear(run->tape);
    Tensor *y = transformer_logits(run->model, run->tape, ids, B, T); // with a tape, for dropout; all flags are false here
    double loss = 0;
    for (int r = 0; r < N; r++) {
        double sum = 0, most = number(y->data[r * V]);
        for (int v = 1; v < V; v++) most = fmax(most, number(y->data[r * V + v]));
        for (int v = 0; v < V; v++) sum += exp(number(y->data[r * V + v]) - most);
        loss += (log(sum) + most - number(y->data[r * V + targets[r]])) / N;
    }
    return loss;
}

// Checks every `every`-th number of all parameters that require grad; returns how many tensors were checked.
static int check_model(Transformer *model, int every, const char *what)
{
    Run run = { model, tape_new() };
    run.tape->dropout_seed = 21;
    model_backward(model, run.tape, ids, targets);
    bool trains[256];
    for (int i = 0; i < model->parameter_count; i++) trains[i] = model->parameters[i]->requires_grad;
    for (int i = 0; i < model->parameter_count; i++) model->parameters[i]->requires_grad = false;
    int tensors = 0;
    for (int i = 0; i < model->parameter_count; i++) {
        Tensor *t = model->parameters[i];
        if (!trains[i]) {
            EXPECT(t->grad == NULL, "%s: %s is frozen and has a gradient", what, t->name);
            continue;
        }
        EXPECT(t->grad != NULL, "%s: %s has no gradient", what, t->name);
        if (t->grad == NULL) continue;
        int64_t count = 0, step = t->size < 40 ? 1 : every;
        double *expected = malloc((size_t)t->size * sizeof *expected), largest = 0;
        real *ours = malloc((size_t)t->size * sizeof *ours);
        for (int64_t j = 0; j < t->size; j += step, count++) {
            expected[count] = central_difference(&t->data[j], run_loss, &run);
            ours[count] = t->grad[j];
            largest = fmax(largest, fabs(expected[count]));
        }
        if (IN_DOUBLE || largest > 0.02) { // in float, smaller ones drown in rounding
            char name[160];
            snprintf(name, sizeof name, "%s, d/d %s %s (every %" PRId64 ".)", what, t->name, shape_text(t), step);
            Verdict v = compare_gradients(name, ours, expected, count, (int)count, IN_DOUBLE ? 2e-8 : 0.05);
            EXPECT(v.ok, "%s", v.text);
            tensors++;
        }
        free(expected);
        free(ours);
    }
    for (int i = 0; i < model->parameter_count; i++) model->parameters[i]->requires_grad = trains[i];
    tape_free(run.tape);
    return tensors;
}

TEST(every_gradient_of_the_whole_model)
{
    Transformer *model = model_of(2, 0);
    make_irregular(model);
    int checked = check_model(model, IN_DOUBLE ? EVERY : 31, "full");
    EXPECT(checked == model->base_count || (!IN_DOUBLE && checked > 12), "%d of %d tensors were checked", checked, model->base_count);
    transformer_free(model);
}

TEST(every_gradient_of_adapters_on_a_frozen_base)
{
    for (int frozen = 0; frozen < 2; frozen++) {
        Transformer *model = model_of(2, 0);
        Adapter *adapter = adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
        make_irregular(model); // B is not zero, so A's gradient is not either
        if (frozen) transformer_train_base(model, false);
        for (int i = 0; i < 2 * LINEARS; i++) EXPECT(norm_of(adapter->lora[i].B->data, adapter->lora[i].B->size) > 0.1, "B is zero");
        int checked = check_model(model, frozen && IN_DOUBLE ? EVERY : 31, frozen ? "LoRA" : "LoRA and base together");
        int expected = (frozen ? 0 : model->base_count) + 4 * LINEARS;
        EXPECT(checked == expected || (!IN_DOUBLE && checked > 8), "%d of %d tensors were checked", checked, expected);
        transformer_free(model);
    }
}

TEST(gradients_with_dropout_and_with_recomputation)
{
    for (int form = 1; form < 4; form++) {
        Transformer *model = model_of(2, form & 1 ? 0.25 : 0);
        adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
        make_irregular(model);
        transformer_train_base(model, form == 2);
        model->recompute = form & 2;
        int checked = check_model(model, 31, form == 1 ? "LoRA, dropout" : form == 2 ? "all, recomputed" : "LoRA, dropout, recomputed");
        EXPECT(checked >= 8, "%d tensors were checked", checked);
        transformer_free(model);
    }
}

static bool cut_head(const Node *n, int input) { return n->op == &lm_head_op && input == 1; }
static bool cut_embedding(const Node *n, int input) { return n->op == &embedding_op && input == 0; }

TEST(the_tied_head_adds_up_two_gradients)
{
    Transformer *model = model_of(2, 0);
    make_irregular(model);
    Tape *tape = tape_new();
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    real *grads[3];
    for (int i = 0; i < 3; i++) {
        meter.cut = i == 0 ? NULL : i == 1 ? cut_head : cut_embedding;
        model_backward(model, tape, ids, targets);
        grads[i] = copy_of(model->wte->grad, model->wte->size);
        zero_grads(model);
    }
    double worst = 0, embedding = norm_of(grads[1], V * C), head = norm_of(grads[2], V * C);
    for (int64_t i = 0; i < V * C; i++) worst = fmax(worst, fabs(number(grads[0][i]) - number(grads[1][i]) - number(grads[2][i])));
    EXPECT(worst <= 8 * EPSILON * (embedding + head) && embedding > 1e-3 && head > 1e-3,
            "off by %g; the uses give %g and %g", worst, embedding, head);
    for (int i = 0; i < 3; i++) free(grads[i]);
    tape_free(tape);
    transformer_free(model);
}

// --------------------------------------------------------------------------------------------------------------------- dropout

static Tensor *times(Tape *tape, Tensor *x, Tensor *mask) { return replace(x, op_mul(tape, x, mask)); }

// The forward pass op by op, with a product by a mask at each place where transformer.h promises dropout: after the embedding, and
// before each of a block's two additions.
static Tensor *logits_with_masks(const Transformer *model, Tape *tape, Tensor *const *mask)
{
    Tensor *x = times(tape, op_embedding(tape, model->wte, model->wpe, ids, B, T), *mask++);
    for (int i = 0; i < model->config.n_layer; i++) {
        const Block *block = &model->blocks[i];
        Tensor *h = op_layernorm(tape, x, block->ln_1_weight, block->ln_1_bias);
        h = replace(h, linear_apply(tape, &block->linear[C_ATTN], h));
        h = replace(h, op_attention(tape, h, H));
        h = times(tape, replace(h, linear_apply(tape, &block->linear[ATTN_C_PROJ], h)), *mask++);
        x = replace(x, op_add(tape, x, h));
        h = replace(h, op_layernorm(tape, x, block->ln_2_weight, block->ln_2_bias));
        h = replace(h, linear_apply(tape, &block->linear[C_FC], h));
        h = replace(h, op_gelu(tape, h));
        h = times(tape, replace(h, linear_apply(tape, &block->linear[MLP_C_PROJ], h)), *mask++);
        x = replace(x, op_add(tape, x, h));
        tensor_drop(h);
    }
    x = replace(x, op_layernorm(tape, x, model->ln_f_weight, model->ln_f_bias));
    return replace(x, op_lm_head(tape, x, model->wte));
}

enum { MASKS = 1 + 2 * 2 }; // of two blocks

// What the k-th call of dropout after `seed` makes of ones: 0 or 1 / (1 - p).
static Tensor *mask_of(uint64_t seed, int k, double p)
{
    Tensor *mask = tensor_new("mask", MEMORY_WEIGHTS, SHAPE(B, T, C));
    for (int64_t i = 0; i < mask->size; i++)
        mask->data[i] = random_uniform(random_bits(seed, (uint64_t)k), (uint64_t)i) < (double)(real)p ? 0 : 1 / (1 - (real)p);
    return mask;
}

// Logits, and every gradient of their loss, of the model or of the pass with masks; a copy, of the gradients one after the other.
static real *logits_and_gradients(Transformer *model, Tape *tape, Tensor *const *mask, int64_t *size)
{
    tape_clear(tape);
    Tensor *y = mask ? logits_with_masks(model, tape, mask) : transformer_logits(model, tape, ids, B, T);
    *size = N * V;
    for (int i = 0; i < model->parameter_count; i++) *size += model->parameters[i]->size;
    real *all = calloc((size_t)*size, sizeof *all), *at = all + N * V;
    memcpy(all, y->data, N * V * sizeof *all);
    backward(tape, op_mean(tape, op_cross_entropy(tape, y, targets)));
    for (int i = 0; i < model->parameter_count; at += model->parameters[i++]->size)
        if (model->parameters[i]->grad) memcpy(at, model->parameters[i]->grad, (size_t)bytes(model->parameters[i]->size));
    zero_grads(model);
    return all;
}

TEST(dropout_is_where_it_is_said_to_be)
{
    static const double chances[] = { 0.1, 0.25, 0.7 };
    for (int form = 0; form < 6; form++) {
        const double p = chances[form % 3];
        Transformer *model = model_of(2, p);
        adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
        make_irregular(model);
        model->recompute = form >= 3;
        Tape *tape = tape_new();
        Tensor *mask[MASKS];
        for (int k = 0; k < MASKS; k++) mask[k] = mask_of(40 + (uint64_t)form, k, p);
        tape->dropout_seed = 40 + (uint64_t)form;
        int64_t size;
        real *ours = logits_and_gradients(model, tape, NULL, &size), *expected = logits_and_gradients(model, tape, mask, &size);
        EXPECT(same_bits(ours, expected, N * V), "p %g, recompute %d: other logits than with a mask after the embedding and before each addition", p, form >= 3);
        EXPECT(same_bits(ours, expected, size) && norm_of(ours + N * V, size - N * V) > 0.1, "p %g, recompute %d: other gradients", p, form >= 3);
        tape_clear(tape);
        Tensor *y = transformer_logits(model, tape, ids, B, T);
        EXPECT(tape->dropout_calls == MASKS, "%" PRId64 " calls of dropout, not %d", tape->dropout_calls, MASKS);
        EXPECT(same_bits(y->data, ours, N * V), "the same seed, and other logits");
        tape_clear(tape);
        tape->dropout_seed++;
        y = transformer_logits(model, tape, ids, B, T);
        EXPECT(!same_bits(y->data, ours, N * V), "another seed, and the same logits");
        for (int k = 0; k < MASKS; k++)
            for (int64_t i = 0; i < mask[k]->size; i++) mask[k]->data[i] = 1;
        Tensor *bare = logits_with_masks(model, NULL, mask);
        real *evaluated = logits_of(model); // without a tape
        EXPECT(same_bits(evaluated, bare->data, N * V), "p %g: without a tape, something is dropped", p);
        tensor_drop(bare);
        for (int k = 0; k < MASKS; k++) tensor_drop(mask[k]);
        free(ours), free(expected), free(evaluated);
        tape_free(tape);
        transformer_free(model);
    }
}

// ------------------------------------------------------------------------------------------------------- what depends on what

TEST(a_token_changes_nothing_before_it)
{
    Transformer *model = model_of(2, 0);
    make_irregular(model);
    int in[N];
    memcpy(in, ids, sizeof in);
    real *before = logits_of(model);
    for (int t = 0; t < T; t++) {
        in[t] = (ids[t] + 5) % V;
        Tensor *after = transformer_logits(model, NULL, in, B, T);
        in[t] = ids[t];
        EXPECT(same_bits(before, after->data, (int64_t)t * V), "token %d changes a logit before it", t);
        for (int later = t; later < T; later++)
            EXPECT(!same_bits(before + later * V, after->data + later * V, V), "token %d does not change the logits at %d", t, later);
        EXPECT(same_bits(before + T * V, after->data + T * V, (B - 1) * (int64_t)T * V),
                "token %d of one sequence changes another sequence", t);
        tensor_drop(after);
    }
    free(before);
    transformer_free(model);
}

enum { LONG = 150 }; // more positions than attention takes at a time

TEST(causality_over_a_long_context)
{
    Transformer *model = transformer_new((Config){ V, LONG, 1, 1, 10, 0 }, 5, error, sizeof error);
    make_irregular(model);
    int in[LONG];
    for (int t = 0; t < LONG; t++) in[t] = (t * t + 3 * t) % V;
    Tensor *before = transformer_logits(model, NULL, in, 1, LONG);
    for (int t = 0; t < LONG; t += 7) {
        in[t] = (in[t] + 1) % V;
        Tensor *after = transformer_logits(model, NULL, in, 1, LONG);
        in[t] = (in[t] + V - 1) % V;
        EXPECT(same_bits(before->data, after->data, (int64_t)t * V), "token %d changes a logit before it", t);
        EXPECT(!same_bits(before->data + t * V, after->data + t * V, V) && !same_bits(before->data + (LONG - 1) * V,
                after->data + (LONG - 1) * V, V), "token %d changes nothing after it", t);
        tensor_drop(after);
    }
    tensor_drop(before);
    transformer_free(model);
}

// Read in pieces of any length, with what came before in a cache: the bits of the whole sequence read at once.
TEST(a_cache_gives_the_same_bits)
{
    static const int pieces[] = { 1, 2, 5, 63, 64, 65, LONG }, SHORTER = LONG - 30;
    Transformer *model = transformer_new((Config){ V, LONG, 2, 3, 30, 0 }, 5, error, sizeof error);
    adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    make_irregular(model);
    int in[LONG];
    for (int t = 0; t < LONG; t++) in[t] = (t * t + 3 * t) % V;
    Tensor *all = transformer_logits(model, NULL, in, 1, LONG);
    Cache cache = cache_new(model);
    for (int i = 0; i < (int)(sizeof pieces / sizeof *pieces); i++) {
        cache.count = 0;
        for (int end, length = i % 2 ? LONG : SHORTER; cache.count < length; ) { // what an earlier run left must not matter
            end = cache.count + pieces[i] < length ? cache.count + pieces[i] : length;
            Tensor *next = transformer_next(model, &cache, in + cache.count, end - cache.count);
            EXPECT(cache.count == end, "%d read, %d in the cache", end, cache.count);
            EXPECT(same_bits(next->data, all->data + (end - 1) * V, V), "in pieces of %d: other bits after %d tokens", pieces[i], end);
            tensor_drop(next);
        }
    }
    cache_free(&cache);
    tensor_drop(all);
    transformer_free(model);
}

TEST(a_sequence_does_not_depend_on_its_batch)
{
    Transformer *model = model_of(2, 0);
    adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    make_irregular(model);
    real *both = logits_of(model);
    for (int b = 0; b < B; b++) {
        Tensor *alone = transformer_logits(model, NULL, ids + b * T, 1, T);
        EXPECT(same_bits(both + (int64_t)b * T * V, alone->data, T * V), "sequence %d has other bits alone", b);
        tensor_drop(alone);
    }
    Tape *tape = tape_new(); // with a tape: the same bits
    Tensor *taped = transformer_logits(model, tape, ids, B, T);
    EXPECT(same_bits(both, taped->data, N * V), "other bits with a tape");
    tape_free(tape);
    free(both);
    transformer_free(model);
}

// ------------------------------------------------------------------------------------------------------------ counts and FLOPs

TEST(gradients_are_counted)
{
    static const struct { const char *what; unsigned on; int first; int64_t dgrad, wgrad, skipped, never, adapters; } forms[] = {
        { "full", 0, 0, 17, 17, 0, 0, 0 },                                      // even block 0's c_attn: the embedding below it trains
        { "c_attn everywhere", 1u << C_ATTN, 0, 16, 0, 16, 1, 8 },
        { "all four everywhere", ALL_LINEARS, 0, 16, 0, 16, 1, 32 },
        { "mlp.c_proj everywhere", 1u << MLP_C_PROJ, 0, 13, 0, 13, 4, 8 },
        { "c_attn in the top block", 1u << C_ATTN, 3, 4, 0, 4, 13, 2 },
        { "mlp.c_proj in the top block", 1u << MLP_C_PROJ, 3, 1, 0, 1, 16, 2 },
    };
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        Transformer *model = model_of(4, 0);
        if (forms[f].on) {
            adapter_on(model, "a", forms[f].on, forms[f].first, -1, 3);
            transformer_train_base(model, false);
        }
        Tape *tape = tape_new();
        Meter meter = { 0 };
        const Meter *c = &meter;
        meter_watch(&meter, tape);
        model_backward(model, tape, ids, targets);
        EXPECT(c->dgrad == forms[f].dgrad && c->wgrad == forms[f].wgrad && c->wgrad_skipped == forms[f].skipped &&
                c->wgrad_never_recorded == forms[f].never &&
               c->adapter_gradients == forms[f].adapters, "%s: dgrad %" PRId64 ", wgrad %" PRId64 ", skipped %" PRId64 ", never recorded %" PRId64 ", adapters %" PRId64, forms[f].what, c->dgrad, c->wgrad,
               c->wgrad_skipped, c->wgrad_never_recorded, c->adapter_gradients);
        EXPECT(c->wgrad + c->wgrad_skipped + c->wgrad_never_recorded == 17,
                "%s: the three do not add up to full training's 17", forms[f].what);
        tape_free(tape);
        transformer_free(model);
    }
}

TEST(flops_follow_the_formulas)
{
    // full training at the default shape
    const int64_t L = 4, W = 128, t = 64, b = 12, v = 65, rows = b * t;
    Transformer *model = transformer_new((Config){ (int)v, (int)t, (int)L, 4, (int)W, 0 }, 1, error, sizeof error);
    Tape *tape = tape_new();
    Meter meter = { 0 };
    meter_watch(&meter, tape);
    int *in = calloc((size_t)rows + 1, sizeof *in);
    for (int64_t i = 0; i <= rows; i++) in[i] = (int)(i * i % v);
    Tensor *loss = transformer_loss(model, tape, in, in + 1, (int)b, (int)t);
    tensor_drop(loss);
    backward(tape, loss);
    int64_t linears = 2 * rows * 12 * W * W * L, attention = 0, head = 2 * rows * W * v;
    for (int64_t position = 1; position <= t; position++) attention += L * b * position * 2 * 2 * W; // a score and a weighted value: 2 W each, in all heads
    EXPECT(meter_phase(&meter, PHASE_FORWARD).flops == linears + attention + head, "forward: %" PRId64,
            meter_phase(&meter, PHASE_FORWARD).flops);
    EXPECT(meter_phase(&meter, PHASE_DGRAD).flops == linears + 2 * attention + head, "dgrad: %" PRId64,
            meter_phase(&meter, PHASE_DGRAD).flops);
    EXPECT(meter_phase(&meter, PHASE_WGRAD).flops == linears + head, "wgrad: %" PRId64, meter_phase(&meter, PHASE_WGRAD).flops);
    int64_t all = 0;
    for (Phase p = PHASE_FORWARD; p < PHASES; p++) all += meter_phase(&meter, p).flops;
    EXPECT(all / 1000000 == 3815, "a full step takes %" PRId64 " FLOPs", all);
    tape_free(tape);
    transformer_free(model);
    free(in);

    // adapters on c_attn, small: one product less where nothing trains below, no weight gradient of the base
    model = model_of(4, 0);
    adapter_on(model, "a", 1u << C_ATTN, 0, -1, 3);
    transformer_train_base(model, false);
    tape = tape_new();
    meter_zero(&meter);
    meter_watch(&meter, tape);
    model_backward(model, tape, ids, targets);
    const int64_t r = 2, c_attn = 2 * N * C * 3 * C, down = 2 * N * C * r, up = 2 * N * r * 3 * C;
    linears = 4 * 2 * N * 12 * (int64_t)C * C, head = 2 * N * C * V, attention = 4 * (int64_t)B * (T * (T + 1) / 2) * 4 * C;
    EXPECT(meter_phase(&meter, PHASE_FORWARD).flops == linears + attention + head + 4 * (down + up),
            "LoRA, forward: %" PRId64, meter_phase(&meter, PHASE_FORWARD).flops);
    EXPECT(meter_phase(&meter, PHASE_DGRAD).flops == linears - c_attn + 2 * attention + head + 3 * down + 4 * up,
            "LoRA, dgrad: %" PRId64, meter_phase(&meter, PHASE_DGRAD).flops);
    EXPECT(meter_phase(&meter, PHASE_WGRAD).flops == 4 * (down + up), "LoRA, wgrad: %" PRId64, meter_phase(&meter,
            PHASE_WGRAD).flops);
    tape_free(tape);
    transformer_free(model);
}

// What a step is said to do, walking once up the model. `flows`: what comes from below requires a gradient.
typedef struct Said { int64_t dgrad, wgrad, skipped, never, adapters, flops[PHASES], kernels; } Said;

static void say_linear(Said *s, bool flows, bool full, bool A_trains, int64_t I, int64_t O, int64_t r) // r 0: no adapter here
{
    const int64_t base = 2 * N * I * O, down = 2 * N * I * r, up = 2 * N * r * O;
    s->flops[PHASE_FORWARD] += base + down + up;
    s->kernels += r ? 3 : 1;
    s->dgrad += flows;
    s->wgrad += full;
    s->skipped += flows && !full;
    s->never += !flows && !full;
    s->flops[PHASE_DGRAD] += flows ? base : 0;
    s->flops[PHASE_WGRAD] += full ? base : 0;
    if (r == 0) return;
    s->adapters += 1 + A_trains;
    s->flops[PHASE_WGRAD] += up + (A_trains ? down : 0);
    s->flops[PHASE_DGRAD] += (flows || A_trains ? up : 0) + (flows ? down : 0);
}

static Said said_of(bool full, unsigned on, int first, int blocks, int64_t r, bool A_trains, bool recompute)
{
    Said s = { .kernels = 1 };
    bool flows = full;
    const int64_t attention = (int64_t)B * (T * (T + 1) / 2) * 4 * C;
    for (int i = 0; i < blocks; i++) {
        const int64_t before = s.flops[PHASE_FORWARD];
        const bool runs_again = recompute && (flows || (on && i >= first));
        for (int k = 0; k < LINEARS; k++) {
            Config config = { .n_embd = C };
            bool here = i >= first && (on >> k & 1);
            say_linear(&s, flows, full, A_trains, linear_inputs(&config, (LinearKind)k), linear_outputs(&config, (LinearKind)k), here ? r : 0);
            flows |= here;
            if (k != C_ATTN) continue;
            s.flops[PHASE_FORWARD] += attention;
            s.flops[PHASE_DGRAD] += flows ? 2 * attention : 0;
        }
        s.flops[PHASE_RECOMPUTE] += runs_again ? s.flops[PHASE_FORWARD] - before : 0;
        s.kernels += 6 + recompute; // two layernorms, attention, gelu, two additions
    }
    s.kernels += 3; // layernorm, cross entropy, mean
    say_linear(&s, flows, full, false, C, V, 0); // the tied head
    return s;
}

// Every set of adapted layers, from each block on, with A trained or frozen, recomputed or not: counts and FLOPs, at odd sizes.
TEST(what_is_counted_follows_from_what_trains)
{
    enum { BLOCKS = 2, RANK = 2 };
    for (int form = 0; form < 4; form++)
        for (unsigned on = 0; on <= ALL_LINEARS; on++)
            for (int first = 0; first < (on ? BLOCKS : 1); first++) {
                const bool recompute = form & 1, freeze_A = form & 2;
                Transformer *model = model_of(BLOCKS, 0);
                model->recompute = recompute;
                if (on) {
                    transformer_add_adapter(model, "a", (LoraConfig){ .r = RANK, .alpha = 3, .targets = on, .first_block = first, .last_block = -1,
                                            .freeze_A = freeze_A }, 3, error, sizeof error);
                    transformer_train_base(model, false);
                }
                Tape *tape = tape_new();
                Meter m = { 0 };
                meter_watch(&m, tape);
                model_backward(model, tape, ids, targets);
                const Said s = said_of(on == 0, on, first, BLOCKS, RANK, !freeze_A, recompute);
                char what[96];
                snprintf(what, sizeof what, "%s from block %d, A %s, recompute %d", on ? lora_targets_text(on) : "full", first, freeze_A ? "frozen" : "trained", recompute);
                EXPECT(m.dgrad == s.dgrad && m.wgrad == s.wgrad && m.wgrad_skipped == s.skipped && m.wgrad_never_recorded == s.never && m.adapter_gradients == s.adapters,
                       "%s: dgrad %" PRId64 ", wgrad %" PRId64 ", skipped %" PRId64 ", never recorded %" PRId64 ", adapters %" PRId64 ", not %" PRId64 ", %" PRId64
                       ", %" PRId64 ", %" PRId64 ", %" PRId64, what, m.dgrad, m.wgrad, m.wgrad_skipped, m.wgrad_never_recorded, m.adapter_gradients, s.dgrad, s.wgrad,
                       s.skipped, s.never, s.adapters);
                for (Phase p = PHASE_FORWARD; p < PHASES; p++)
                    EXPECT(meter_phase(&m, p).flops == s.flops[p], "%s, %s: %" PRId64 " FLOPs, not %" PRId64, what, phase_names[p], meter_phase(&m, p).flops, s.flops[p]);
                EXPECT(meter_phase(&m, PHASE_FORWARD).kernels == s.kernels, "%s: %" PRId64 " forward kernels, not %" PRId64, what,
                       meter_phase(&m, PHASE_FORWARD).kernels, s.kernels);
                tape_free(tape);
                transformer_free(model);
            }
}

TEST(a_weight_used_twice_counts_twice)
{
    Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(3, 5)), *W = tensor_new("W", MEMORY_WEIGHTS, SHAPE(5, 5)), *b = tensor_new("b", MEMORY_WEIGHTS, SHAPE(5));
    for (int frozen = 0; frozen < 2; frozen++) {
        Tape *tape = tape_new();
        Meter m = { 0 };
        meter_watch(&m, tape);
        W->requires_grad = !frozen, b->requires_grad = true;
        Tensor *y = op_linear(tape, op_linear(tape, x, W, b), W, b);
        backward(tape, op_sum(tape, op_add(tape, y, y)));
        const int64_t f = 2 * 3 * 5 * 5;
        EXPECT(m.dgrad == 1 && m.wgrad == (frozen ? 0 : 2) && m.wgrad_skipped == (frozen ? 2 : 0), "frozen %d: dgrad %" PRId64 ", wgrad %" PRId64 ", skipped %" PRId64,
               frozen, m.dgrad, m.wgrad, m.wgrad_skipped);
        EXPECT(meter_op(&m, &linear_op, PHASE_FORWARD).flops == 2 * f && meter_op(&m, &linear_op, PHASE_DGRAD).flops == f &&
               meter_op(&m, &linear_op, PHASE_WGRAD).flops == (frozen ? 0 : 2 * f), "frozen %d: forward %" PRId64 ", dgrad %" PRId64 ", wgrad %" PRId64 " products", frozen,
               meter_op(&m, &linear_op, PHASE_FORWARD).flops / f, meter_op(&m, &linear_op, PHASE_DGRAD).flops / f, meter_op(&m, &linear_op, PHASE_WGRAD).flops / f);
        EXPECT(meter_op(&m, &add_op, PHASE_DGRAD).kernels == 2 && meter_op(&m, &linear_op, PHASE_WGRAD).kernels == (frozen ? 2 : 4),
               "frozen %d: %" PRId64 " kernels of y + y, %" PRId64 " of W and b", frozen, meter_op(&m, &add_op, PHASE_DGRAD).kernels,
               meter_op(&m, &linear_op, PHASE_WGRAD).kernels);
        meter_zero(&m);
        EXPECT(m.dgrad + m.wgrad + m.wgrad_skipped == 0 && meter_phase(&m, PHASE_FORWARD).kernels == 0, "something is left after meter_zero");
        tape_free(tape);
        tensor_drop_grad(W), tensor_drop_grad(b);
    }
    tensor_drop(x), tensor_drop(W), tensor_drop(b);
}

static bool never(const Node *n, int input) { return (void)n, input < FORWARD; }

TEST(a_meter_is_zeroed_and_keeps_what_was_set)
{
    Meter m = { .cut = never, .trace = stderr, .dgrad = 1, .wgrad = 2, .wgrad_skipped = 3, .wgrad_never_recorded = 4, .adapter_gradients = 5 };
    m.ops[0].op = &linear_op;
    for (int p = 0; p < PHASES; p++) m.ops[0].work[p] = (Work){ 1, 2, 3 };
    meter_zero(&m);
    EXPECT(m.cut == never && m.trace == stderr, "cut or trace is gone");
    EXPECT(m.dgrad == 0 && m.wgrad == 0 && m.wgrad_skipped == 0 && m.wgrad_never_recorded == 0 && m.adapter_gradients == 0, "a count is left");
    for (Phase p = PHASE_FORWARD; p < PHASES; p++) {
        Work work = meter_phase(&m, p);
        EXPECT(work.kernels == 0 && work.flops == 0 && work.seconds == 0, "%s: work is left", phase_names[p]);
    }
}

TEST(an_adapter_is_no_part_of_the_base)
{
    Transformer *model = model_of(2, 0);
    const int64_t size = transformer_base_size(model);
    const uint64_t hash = transformer_hash(model), fingerprint = transformer_fingerprint(model);
    Adapter *adapter = adapter_on(model, "a", 1u << C_ATTN | 1u << MLP_C_PROJ, 0, 0, 3);
    fill_B(model, adapter, 0.5);
    EXPECT(transformer_base_size(model) == size && transformer_hash(model) == hash && transformer_fingerprint(model) == fingerprint,
           "with an adapter beside it the base has %" PRId64 " numbers, not %" PRId64 ", or another hash", transformer_base_size(model), size);
    EXPECT(transformer_trainable_size(model) == size + adapter_size(adapter), "%" PRId64 " numbers train, not %" PRId64, transformer_trainable_size(model),
           size + adapter_size(adapter));
    transformer_use_adapter(model, NULL);
    EXPECT(transformer_trainable_size(model) == size, "with the adapter put away %" PRId64 " numbers train, not %" PRId64, transformer_trainable_size(model), size);
    transformer_free(model);
}

// ------------------------------------------------------------------------------------------------------------------ kept bytes

// What stays kept at the end of forward, in reals, walking once up the model: `flows` says whether what comes from below
// requires a gradient.
static int64_t kept_by_formula(bool full, unsigned on, int first, int blocks, int64_t r, bool recompute)
{
    int64_t kept = 0;
    bool flows = full;
    for (int i = 0; i < blocks; i++) {
        unsigned here = i >= first ? on : 0;
        bool in[LINEARS];
        for (int k = 0; k < LINEARS; k++) in[k] = full || (here >> k & 1); // its x is read by a gradient
        if (recompute) {
            if (flows || here) kept += N * C;                 // the block's input alone
            flows |= here != 0;
            continue;
        }
        for (int k = 0; k < LINEARS; k++) kept += here >> k & 1 ? N * r : 0;           // x A
        if (flows) kept += N * C + 2 * N;                     // ln_1: x, and mean and rstd of each row
        if (in[C_ATTN] && !flows) kept += N * C;              // else ln_1 makes it again
        flows |= in[C_ATTN];
        if (flows || full) kept += N * 3 * C + 2 * N * H;     // attention: qkv, and max and 1 / sum of each row and head
        bool stream = flows;                                  // through c_attn; the residual stream joins the two below
        if (in[ATTN_C_PROJ]) kept += N * C;
        stream |= in[ATTN_C_PROJ];
        if (stream) kept += N * C + 2 * N;                    // ln_2
        if (in[C_FC] && !stream) kept += N * C;
        stream |= in[C_FC];
        if (stream) kept += N * 4 * C;                        // gelu: x
        if (in[MLP_C_PROJ] && !stream) kept += N * 4 * C;
        stream |= in[MLP_C_PROJ];
        flows = stream;
    }
    kept += N * C + 2 * N;                                    // ln_f, which makes the head's x again
    return kept + N * V + 2 * N;                              // cross entropy: logits, and max and 1 / sum of each row
}

TEST(kept_bytes_equal_the_closed_formula)
{
    enum { BLOCKS = 3 };
    EXPECT(kept_by_formula(true, 0, 0, BLOCKS, 2, false) == BLOCKS * N * (10 * C + 4 + 2 * H) + N * (C + V + 4),
            "the formula itself");
    const int64_t scratch = bytes(scratch_size(T, C / H) * parallel_threads());
    scratch_release();
    for (int recompute = 0; recompute < 2; recompute++)
        for (unsigned on = 0; on <= ALL_LINEARS; on++)
            for (int first = 0; first < (on ? BLOCKS : 1); first++) {
                Transformer *model = model_of(BLOCKS, 0);
                model->recompute = recompute;
                if (on) adapter_on(model, "a", on, first, -1, 3), transformer_train_base(model, false);
                Tape *tape = tape_new();
                Tensor *loss = transformer_loss(model, tape, ids, targets, B, T);
                tensor_drop(loss);
                int64_t expected = bytes(kept_by_formula(on == 0, on, first, BLOCKS, 2, recompute));
                EXPECT(ledger.live[MEMORY_KEPT_ACTIVATIONS] == expected, "%s from block %d, recompute %d: %" PRId64 " bytes are kept, not %" PRId64,
                       on ? lora_targets_text(on) : "full", first, recompute, ledger.live[MEMORY_KEPT_ACTIVATIONS], expected);
                EXPECT(ledger.live[MEMORY_LIVE_ACTIVATIONS] == 0 && ledger.live[MEMORY_WORKSPACE] == scratch,
                        "%" PRId64 " bytes are live after forward, and %" PRId64 " of scratch", ledger.live[MEMORY_LIVE_ACTIVATIONS], ledger.live[MEMORY_WORKSPACE]);
                tape_free(tape);
                transformer_free(model);
            }
    scratch_release();
    for (int k = 0; k < MEMORY_KINDS; k++) EXPECT(ledger.live[k] == 0, "%" PRId64 " bytes of %s after all is freed", ledger.live[k],
            memory_kind_names[k]);
}

// ---------------------------------------------------------------------------------------------------------------- frozen bases

TEST(a_frozen_base_gets_no_gradient_and_keeps_its_bytes)
{
    Transformer *model = model_of(2, 0);
    make_irregular(model);
    Adapter *adapter = adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    transformer_train_base(model, false);
    EXPECT(transformer_trainable_size(model) == adapter_size(adapter),
            "%" PRId64 " numbers train, the adapter has %" PRId64, transformer_trainable_size(model), adapter_size(adapter));
    EXPECT(adapter_size(adapter) == 2 * 2 * ((C + 3 * C) + (C + C) + (C + 4 * C) + (4 * C + C)),
            "the adapter has %" PRId64, adapter_size(adapter));
    uint64_t hash = transformer_hash(model);
    Tape *tape = tape_new();
    AdamW *optimizer = optimizer_of(model, 0.1);
    for (int step = 0; step < 5; step++) {
        model_backward(model, tape, ids, targets);
        for (int i = 0; i < model->base_count; i++) EXPECT(model->parameters[i]->grad == NULL, "step %d: %s has a gradient",
                step, model->parameters[i]->name);
        for (int i = model->base_count; i < model->parameter_count; i++) {
            const Tensor *t = model->parameters[i];
            bool is_A = strstr(t->name, ".A") != NULL;
            double norm = norm_of(t->grad, t->size);
            EXPECT(t->grad && (step == 0 && is_A ? norm == 0 : norm > 0), "step %d: |g| of %s is %g", step, t->name,
                    norm); // B = 0 at first, so dA = 0
        }
        adamw_step(optimizer, 0.05);
        zero_grads(model);
    }
    EXPECT(transformer_hash(model) == hash, "the frozen base changed");
    for (int i = 0; i < 2 * LINEARS; i++) EXPECT(norm_of(adapter->lora[i].B->data, adapter->lora[i].B->size) > 0, "B is still zero");
    EXPECT(ledger.own_peak[MEMORY_PARAMETER_GRADIENTS] >= bytes(transformer_trainable_size(model)), "the gradients are not on the ledger");
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
}

TEST(adapter_gradients_do_not_depend_on_the_bases_own)
{
    real *grads[2][2 * 2 * LINEARS];
    for (int base = 0; base < 2; base++) {
        Transformer *model = model_of(2, 0.25);
        Adapter *adapter = adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
        make_irregular(model);
        transformer_train_base(model, base);
        Tape *tape = tape_new();
        tape->dropout_seed = 8;
        model_backward(model, tape, ids, targets);
        for (int i = 0; i < 2 * LINEARS; i++) {
            grads[base][2 * i] = copy_of(adapter->lora[i].A->grad, adapter->lora[i].A->size);
            grads[base][2 * i + 1] = copy_of(adapter->lora[i].B->grad, adapter->lora[i].B->size);
            if (base) {
                EXPECT(same_bits(grads[0][2 * i], grads[1][2 * i], adapter->lora[i].A->size), "other bits in dA of %s",
                        adapter->lora[i].A->name);
                EXPECT(same_bits(grads[0][2 * i + 1], grads[1][2 * i + 1], adapter->lora[i].B->size),
                        "other bits in dB of %s", adapter->lora[i].B->name);
            }
        }
        EXPECT((model->wte->grad != NULL) == base, "base %d: the embedding's gradient", base);
        tape_free(tape);
        transformer_free(model);
    }
    for (int i = 0; i < 2 * 2 * LINEARS; i++) free(grads[0][i]), free(grads[1][i]);
}

// -------------------------------------------------------------------------------------------------------------------- training

TEST(bits_do_not_depend_on_the_threads)
{
    enum { B_ = 11, T_ = 33, ROWS = B_ * T_ }; // large enough that embedding and layernorm run in threads, too
    int in[ROWS + 1];
    for (int i = 0; i <= ROWS; i++) in[i] = (i * i + 3 * i) % 29;
    for (int form = 0; form < 3; form++) { // full, LoRA, LoRA recomputed
        uint64_t first = 0;
        for (int threads = 1; threads <= 3; threads++) {
            parallel_set_threads(threads);
            Transformer *model = transformer_new((Config){ 29, T_, 2, 3, 51, 0.125 }, 5, error, sizeof error);
            Adapter *adapter = form ? adapter_on(model, "a", ALL_LINEARS, 0, -1, 3) : NULL;
            if (form) transformer_train_base(model, false), fill_B(model, adapter, 0.5);
            model->recompute = form == 2;
            Tape *tape = tape_new();
            AdamW *optimizer = optimizer_of(model, 0.1);
            uint64_t hash = HASH_START;
            for (int step = 0; step < 3; step++) {
                tape->dropout_seed = (uint64_t)step;
                Tensor *loss = transformer_loss(model, tape, in, in + 1, B_, T_);
                hash = hash_bytes(hash, loss->data, sizeof(real));
                tensor_drop(loss);
                backward(tape, loss);
                tape_clear(tape);
                for (int i = 0; i < model->parameter_count; i++)
                    if (model->parameters[i]->grad) hash = hash_bytes(hash, model->parameters[i]->grad,
                            (size_t)bytes(model->parameters[i]->size));
                double norm = adamw_step(optimizer, 0.01);
                hash = hash_bytes(hash, &norm, sizeof norm);
                zero_grads(model);
            }
            for (int i = 0; i < model->parameter_count; i++) hash = hash_bytes(hash, model->parameters[i]->data,
                    (size_t)bytes(model->parameters[i]->size));
            if (threads == 1) first = hash;
            EXPECT(hash == first, "form %d: with %d threads, some bit of loss, gradients, norm or weights is another", form, threads);
            adamw_free(optimizer);
            tape_free(tape);
            transformer_free(model);
        }
    }
    parallel_set_threads(2);
}

TEST(one_batch_can_be_overfitted)
{
    Transformer *model = model_of(2, 0);
    Tape *tape = tape_new();
    AdamW *optimizer = optimizer_of(model, 0);
    double first = model_backward(model, tape, ids, targets);
    zero_grads(model);
    EXPECT(fabs(first - log(V)) < 0.1, "an untrained model's loss is %g, not about log V = %g", first, log(V));
    train(model, tape, optimizer, ids, targets, 150, 0.01);
    double last = model_backward(model, tape, ids, targets);
    EXPECT(last < 0.1, "after 150 steps on one batch, the loss is %g", last);
    adamw_free(optimizer);
    zero_grads(model);

    // an adapter on the trained base learns another batch; the base stays
    transformer_train_base(model, false);
    uint64_t hash = transformer_hash(model);
    Adapter *adapter = adapter_on(model, "a", ALL_LINEARS, 0, -1, 3);
    optimizer = optimizer_of(model, 0);
    first = model_backward(model, tape, ids + N, targets + N);
    zero_grads(model);
    train(model, tape, optimizer, ids + N, targets + N, 150, 0.01);
    double adapted = model_backward(model, tape, ids + N, targets + N);
    EXPECT(first > 2 && adapted < 0.5 * first, "an adapter takes the other batch's loss from %g to %g", first, adapted);
    EXPECT(transformer_hash(model) == hash, "the base moved");
    transformer_use_adapter(model, NULL);
    Tensor *loss = transformer_loss(model, NULL, ids, targets, B, T);
    EXPECT(fabs(number(loss->data[0]) - last) < 1e-6, "without the adapter, the base's loss is %g, not %g", number(loss->data[0]), last);
    tensor_drop(loss);
    (void)adapter;
    adamw_free(optimizer);
    tape_free(tape);
    transformer_free(model);
}

int main(void)
{
    parallel_set_threads(2);
    RUN(logits_and_loss_equal_an_independent_forward_pass);
    RUN(parameters_are_those_of_gpt_2);
    RUN(every_gradient_of_the_whole_model);
    RUN(every_gradient_of_adapters_on_a_frozen_base);
    RUN(gradients_with_dropout_and_with_recomputation);
    RUN(the_tied_head_adds_up_two_gradients);
    RUN(dropout_is_where_it_is_said_to_be);
    RUN(a_token_changes_nothing_before_it);
    RUN(causality_over_a_long_context);
    RUN(a_cache_gives_the_same_bits);
    RUN(a_sequence_does_not_depend_on_its_batch);
    RUN(gradients_are_counted);
    RUN(flops_follow_the_formulas);
    RUN(what_is_counted_follows_from_what_trains);
    RUN(a_weight_used_twice_counts_twice);
    RUN(a_meter_is_zeroed_and_keeps_what_was_set);
    RUN(an_adapter_is_no_part_of_the_base);
    RUN(kept_bytes_equal_the_closed_formula);
    RUN(a_frozen_base_gets_no_gradient_and_keeps_its_bytes);
    RUN(adapter_gradients_do_not_depend_on_the_bases_own);
    RUN(bits_do_not_depend_on_the_threads);
    RUN(one_batch_can_be_overfitted);
    return test_summary();
}
