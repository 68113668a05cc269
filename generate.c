// generate.c - see generate.h. The same ops as in training, without a tape; attention alone is another: to the new positions
// and to what the cache holds, read where it lies.
//
// Read next: meter.h.

#include "generate.h"

Cache cache_new(const Transformer *model)
{
    const Config *c = &model->config;
    return (Cache){ 0, tensor_new("past", MEMORY_KEPT_ACTIVATIONS, SHAPE(c->n_layer, c->block_size, 2 * c->n_embd)) };
}

void cache_free(Cache *cache) { tensor_drop(cache->past); }

// y[b,t] = wte[ids[t]] + wpe[first + t]: the embedding of positions from `first` on
static Tensor *embed(const Transformer *model, const int *ids, int T, int first)
{
    int C = model->config.n_embd;
    Tensor *x = tensor_result("embedding", NULL, NULL, SHAPE(1, T, C));
    for (int t = 0; t < T; t++) {
        check(ids[t] >= 0 && ids[t] < model->config.vocab_size, "transformer_next: id %d at %d is not in 0..%d", ids[t], t,
              model->config.vocab_size - 1);
        const real *token = model->wte->data + (int64_t)ids[t] * C, *position = model->wpe->data + (int64_t)(first + t) * C;
        for (int c = 0; c < C; c++) x->data[(int64_t)t * C + c] = token[c] + position[c];
    }
    return x;
}

typedef struct Attend { Matrix y, q, past; int heads; } Attend; // [T,C], [T,C] and [positions so far,2C]

static void attend_part(void *context, Part part)
{
    const Attend *a = context;
    int C = a->y.columns, D = C / a->heads, T = a->y.rows, all = a->past.rows;
    Share s = share(part, a->heads, 1);
    for (int64_t h = s.begin; h < s.end; h++)
        attention(block_of(a->y, 0, h * D, T, D), block_of(a->q, 0, h * D, T, D), block_of(a->past, 0, h * D, all, D),
                  block_of(a->past, 0, C + h * D, all, D), NULL);
}

// Attention of new rows qkv [1,T,3C] to themselves and to the `count` positions in `past`, to which it adds their k and v.
static Tensor *attend(Tensor *qkv, int heads, real *past, int count)
{
    int T = qkv->shape[1], C = last_dim(qkv) / 3;
    for (int t = 0; t < T; t++)
        memcpy(past + (int64_t)(count + t) * 2 * C, qkv->data + (int64_t)t * 3 * C + C, 2 * (size_t)C * sizeof(real));
    Tensor *y = tensor_result("attention", NULL, NULL, SHAPE(1, T, C));
    Attend a = { values(y), block_of(values(qkv), 0, 0, T, C), matrix(past, count + T, 2 * C), heads };
    if (T == 1) attend_part(&a, WHOLE); // too little to wake a thread for
    else parallel_run(attend_part, &a);
    return y;
}

Tensor *transformer_next(const Transformer *model, Cache *cache, const int *ids, int T)
{
    const Config *c = &model->config;
    int C = c->n_embd, count = cache->count;
    int64_t layer = last_dim(cache->past) * (int64_t)c->block_size; // numbers in `past` for each
    check(T > 0 && count + T <= c->block_size, "transformer_next: %d tokens after %d, in a context of %d", T, count,
          c->block_size);
    scratch_reserve(c->block_size, C / c->n_head);
    Tensor *x = embed(model, ids, T, count);
    for (int i = 0; i < c->n_layer; i++) {
        Tensor *h = block_begin(NULL, x, &model->blocks[i]);
        h = replace(h, attend(h, c->n_head, cache->past->data + i * layer, count));
        x = replace(x, block_end(NULL, x, h, &model->blocks[i]));
    }
    cache->count += T;
    Tensor *last = tensor_result("last", NULL, NULL, SHAPE(1, C));
    memcpy(last->data, x->data + (int64_t)(T - 1) * C, (size_t)C * sizeof(real));
    tensor_drop(x);
    last = replace(last, op_layernorm(NULL, last, model->ln_f_weight, model->ln_f_bias));
    return replace(last, op_lm_head(NULL, last, model->wte));
}

// Hides all but the top_k largest: the top_k-th largest is the threshold; ties with it stay.
static void keep_largest(real *logits, int V, int top_k, real largest)
{
    real threshold = largest;
    for (int k = 1, above = 0; k < top_k && above < top_k; k = above + 1) {
        real next = (real)-INFINITY;
        above = 0;
        for (int v = 0; v < V; v++)
            if (logits[v] >= threshold) above++;
            else if (logits[v] > next) next = logits[v];
        if (above < top_k) threshold = next;
    }
    for (int v = 0; v < V; v++)
        if (logits[v] < threshold) logits[v] = (real)-INFINITY;
}

int sample_token(real *logits, int V, double temperature, int top_k, uint64_t seed, uint64_t i)
{
    int best = 0;
    for (int v = 1; v < V; v++)
        if (logits[v] > logits[best] || isnan((double)logits[best])) best = v;
    if (temperature <= 0) return best;
    if (top_k > 0 && top_k < V) keep_largest(logits, V, top_k, logits[best]);
    double sum = 0, max = (double)logits[best];
    for (int v = 0; v < V; v++) sum += exp(((double)logits[v] - max) / temperature);
    double left = random_uniform(seed, i) * sum;
    for (int v = 0; v < V; v++) {
        left -= exp(((double)logits[v] - max) / temperature);
        if (left < 0) return v;
    }
    return best;
}

void generate(const Transformer *model, int *tokens, int prompt_length, int length, double temperature, int top_k,
              uint64_t seed)
{
    generate_among(model, model->config.vocab_size, tokens, prompt_length, length, temperature, top_k, seed, NULL, NULL);
}

void generate_among(const Transformer *model, int choices, int *tokens, int prompt_length, int length, double temperature,
                    int top_k, uint64_t seed, Drawn *drawn, void *context)
{
    int longest = model->config.block_size;
    int start = prompt_length > longest ? prompt_length - longest : 0; // the context is tokens[start] to the last one
    Cache cache = cache_new(model);
    for (int i = 0; i < length; i++) {
        int end = prompt_length + i;
        if (end - start > longest) { // full: every position would change, so all that is kept must be read again
            start = end - (longest + 1) / 2;
            cache.count = 0;
        }
        int seen = start + cache.count;
        Tensor *logits = transformer_next(model, &cache, tokens + seen, end - seen);
        tokens[end] = sample_token(logits->data, choices, temperature, top_k, seed, (uint64_t)i);
        tensor_drop(logits);
        if (drawn != NULL) drawn(context, tokens[end]);
    }
    cache_free(&cache);
}
