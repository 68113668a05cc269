// generate.h - text from a model, token by token.
//
//     tokens[0] = newline;
//     generate(model, tokens, 1, 500, 0.8, 0, seed);     // 500 more in tokens[1] to tokens[500]
//
// Logits of the next token, draw one, append it. No tape is given, so nothing is recorded.
//
// Read next: generate.c, then predict.h.

#ifndef GENERATE_H
#define GENERATE_H

#include "transformer.h"

// Writes `length` tokens that follow the prompt, `prompt_length` >= 1, into tokens (which holds the prompt and has room for
// both). The context is what came before, up to block_size tokens; when it is full, its later half becomes the next one's
// beginning (a position's embedding is learned, so nothing that is remembered fits another position). Token i of the new ones
// is drawn by the i-th number of the seed, as sample_token says (temperature 0: the most probable; top_k 0: of all).
void generate(const Transformer *model, int *tokens, int prompt_length, int length, double temperature, int top_k,
              uint64_t seed);

#endif
