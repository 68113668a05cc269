// generate.c - see generate.h. What each block found out about a token is remembered (Cache), so that the next token costs one
// row of work; a full context is begun anew with its later half.
//
// Read next: predict.h, or sample.c.

#include "generate.h"

void generate(const Transformer *model, int *tokens, int prompt_length, int length, double temperature, int top_k,
              uint64_t seed)
{
    int V = model->config.vocab_size, longest = model->config.block_size;
    int start = prompt_length > longest ? prompt_length - longest : 0; // the context is tokens[start] to the last one
    real *logits = memory_take(MEMORY_WORKSPACE, V);
    Cache cache = cache_new(model);
    for (int i = 0; i < length; i++) {
        int end = prompt_length + i;
        if (end - start > longest) { // full: every position would change, so all that is kept must be read again
            start = end - (longest + 1) / 2;
            cache.count = 0;
        }
        int seen = start + cache.count;
        transformer_next(model, &cache, tokens + seen, end - seen, logits);
        tokens[end] = sample_token(logits, V, temperature, top_k, seed, (uint64_t)i);
    }
    cache_free(&cache);
    memory_give(MEMORY_WORKSPACE, logits, V);
}
