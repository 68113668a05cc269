// text.h - characters: reading a text, its vocabulary, and the windows that training sees.
//
// A token is one Unicode code point of the training text; the vocabulary is the set of those, sorted by code point. The first
// 90 % of a text (rounded down) are for training, the rest for validation.
//
//     Text text;
//     if (!text_read("builtin:tales", 1000000, NULL, T, &text, error, sizeof error)) ...   // or the path of a file
//     text_batch(&text, B, T, seed, step, ids, targets);
//     text_free(&text);
//
// Functions that can fail leave one line in `error` (size bytes): what, where (offset in bytes from 0, line from 1), why, and
// what to do.

#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Vocabulary {
    int       size;
    uint32_t *code_point;     // [size], ascending: token i is code point code_point[i]; owned
} Vocabulary;

typedef struct Text {
    Vocabulary vocabulary;
    int    *tokens;           // [count]; owned
    int64_t count;
    int64_t train_count;      // tokens[0 .. train_count-1] for training, the rest for validation
    double train_floor, val_floor; // built-in texts: the mean nats per token that no model can beat on average; else NAN
} Text;

// Reads a file (at most 2 GiB), or a built-in text, "builtin:NAME", of at least `builtin_length` characters from a fixed seed.
// With `vocabulary` NULL the text brings its own, a built-in one that of all built-in texts together, so that a model of the
// tales can take up any of the tasks; else a copy of that one is used. False, after one line in `error` and with *text empty,
// if the file cannot be read, is empty, is not UTF-8 (with the byte offset), has a character that the given vocabulary lacks
// (which, and its byte offset), or has fewer than block_size + 1 tokens in either part; or if there is no such built-in text
// (with a list of those there are). Any code point is a token, zero bytes and a byte order mark included.
bool text_read(const char *source, int64_t builtin_length, const Vocabulary *vocabulary, int block_size, Text *text, char *error, size_t size);
void text_free(Text *text);
// Equal hashes: the same tokens in the same order.
uint64_t text_fingerprint(const Text *text);

// Fills B windows of T tokens of the training part and the T tokens that follow each by one: ids [B*T], targets [B*T]. Where they
// start depends on the seed and the step alone. T + 1 tokens must fit into the training part (check()).
void text_batch(const Text *text, int B, int T, uint64_t seed, int64_t step, int *ids, int *targets);

// The code point that begins at *at, which moves past it. The text must be well-formed UTF-8.
uint32_t utf8_next(const char **at);

// Encodes `bytes` bytes of UTF-8 into tokens (room for one per byte). Returns how many, or -1 after one line in `error`.
int64_t vocabulary_encode(const Vocabulary *vocabulary, const char *utf8, size_t bytes, int *tokens, char *error, size_t size);
// Writes the token's character and a final 0; returns its length in bytes, 1 to 4.
int  vocabulary_decode(const Vocabulary *vocabulary, int token, char character[5]);
// False: out of memory, and *to is empty.
bool vocabulary_copy(const Vocabulary *from, Vocabulary *to);
bool vocabulary_equal(const Vocabulary *a, const Vocabulary *b);
void vocabulary_free(Vocabulary *vocabulary);

#endif
