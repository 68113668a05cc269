// generate.h - sampling text from a model, with what was read remembered.
//
// Read next: meter.h.

#ifndef GENERATE_H
#define GENERATE_H

#include "transformer.h"

// Writes `length` tokens that follow the prompt, `prompt_length` >= 1, into tokens (which holds the prompt and has room for
// both). The context is what came before, up to block_size tokens; when it is full, its later half becomes the next one's
// beginning (a position's embedding is learned, so nothing that is remembered fits another position).
void generate(const Transformer *model, int *tokens, int prompt_length, int length, double temperature, int top_k,
              uint64_t seed);
// The same from the first `choices` tokens of the vocabulary: the rows behind them, if a model has more, are of no token.
// `drawn`, if not NULL, is told each token as soon as it is there.
typedef void Drawn(void *context, int token);
void generate_among(const Transformer *model, int choices, int *tokens, int prompt_length, int length, double temperature,
                    int top_k, uint64_t seed, Drawn *drawn, void *context);

// What a model remembers of the tokens that it has read one after the other (the KV cache): k and v of each in every block.
// With it, a token more costs one row of work instead of the whole context again. It is for one model with one adapter.
typedef struct Cache { int count; Tensor *past; } Cache; // tokens read, at most block_size; [n_layer,block_size,2C]: k | v
Cache cache_new(const Transformer *model); // the caller's, until cache_free; count = 0 empties it
void  cache_free(Cache *cache);
// Reads ids[0..T-1] after what is in the cache, to which it adds them; the logits [1,V] of what follows, the caller's: the bits
// that transformer_logits of all of them has in its last row. There must be room for T more (check()).
Tensor *transformer_next(const Transformer *model, Cache *cache, const int *ids, int T);

// Draws one token: logits / temperature, the top_k largest only (0: all), by the i-th number of the seed. Temperature 0: the
// largest. Changes logits.
int   sample_token(real *logits, int V, double temperature, int top_k, uint64_t seed, uint64_t i);

#endif
