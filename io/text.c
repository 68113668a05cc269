// text.c - see text.h. UTF-8 first, then vocabularies, then whole texts and their batches.
//
// The text is checked as UTF-8 once, when it is read; after that a character is a token id, and nothing else in the program
// sees bytes. The built-in texts share one vocabulary, so that an adapter for one fits a base that learned another. Batch
// number `step` of a seed is the same windows in every run, whatever was drawn before: a resumed run needs no state of a
// generator.

#include "text.h"

#include "corpus.h"
#include "file.h"
#include "json.h"
#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>

enum {
    CODE_POINTS = 0x110000,   // Unicode ends here
    ALPHABET = 200000,        // characters of each built-in text that are looked at for the vocabulary they share
};
#define LARGEST_TEXT 2147483647u // bytes, so that a count of tokens is far from any limit
#define CORPUS_SEED 1337         // built-in texts are always the same
#define BATCH_STREAM 0xba7c4ull  // keeps batches apart from other numbers that are drawn from the same seed

// -------------------------------------------------------------------------------------------------------------------- UTF-8

uint32_t utf8_next(const char **at)
{
    const unsigned char *s = (const unsigned char *)*at;
    int length = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint32_t c = length == 1 ? s[0] : s[0] & (0x7fu >> length); // the first byte says the length, then come its own bits
    for (int i = 1; i < length; i++) c = c << 6 | (s[i] & 0x3f);
    *at += length;
    return c;
}

static int put_character(uint32_t c, char to[5])
{
    int length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--, c >>= 6) to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)(length == 1 ? c : (0xf00u >> length & 0xf0) | c); // 110..., 1110..., 11110...
    to[length] = '\0';
    return length;
}

static int64_t line_of(const char *text, size_t offset)
{
    int64_t line = 1;
    for (size_t i = 0; i < offset; i++) line += text[i] == '\n';
    return line;
}

static bool check_utf8(const char *utf8, size_t bytes, char *error, size_t size)
{
    size_t good = json_valid_utf8(utf8, bytes);
    if (good == bytes) return true;
    return fail(error, size, "not UTF-8: byte 0x%02x at offset %zu (line %" PRId64 ") does not fit; convert the text, for example with iconv",
                (unsigned)(unsigned char)utf8[good], good, line_of(utf8, good));
}

// --------------------------------------------------------------------------------------------------------------- vocabulary

static int compare_code_points(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

int64_t vocabulary_encode(const Vocabulary *vocabulary, const char *utf8, size_t bytes, int *tokens, char *error, size_t size)
{
    if (!check_utf8(utf8, bytes, error, size)) return -1;
    int64_t count = 0;
    for (const char *at = utf8; at < utf8 + bytes; ) {
        size_t offset = (size_t)(at - utf8);
        uint32_t c = utf8_next(&at);
        const uint32_t *found = vocabulary->size == 0 ? NULL
                              : bsearch(&c, vocabulary->code_point, (size_t)vocabulary->size, sizeof c, compare_code_points);
        if (found == NULL) {
            char shown[5] = "";
            if (c >= ' ' && !(c >= 0x7f && c < 0xa0) && c != 0x2028 && c != 0x2029) put_character(c, shown); // on one line
            fail(error, size, "character U+%04X%s%s at offset %zu (line %" PRId64 ") is not among the %d of the vocabulary; replace it, or train a "
                 "model on text that has it", (unsigned)c, shown[0] ? " " : "", shown, offset, line_of(utf8, offset), vocabulary->size);
            return -1;
        }
        tokens[count++] = (int)(found - vocabulary->code_point);
    }
    return count;
}

int vocabulary_decode(const Vocabulary *vocabulary, int token, char character[5])
{
    check(token >= 0 && token < vocabulary->size, "vocabulary_decode: token %d; there are %d", token, vocabulary->size);
    return put_character(vocabulary->code_point[token], character);
}

bool vocabulary_copy(const Vocabulary *from, Vocabulary *to)
{
    size_t bytes = (size_t)from->size * sizeof *from->code_point;
    *to = (Vocabulary){ 0 };
    uint32_t *copy = malloc(bytes + 1); // never nothing, or NULL could mean success
    if (copy == NULL) return false;
    if (bytes > 0) memcpy(copy, from->code_point, bytes);
    *to = (Vocabulary){ from->size, copy };
    return true;
}

bool vocabulary_equal(const Vocabulary *a, const Vocabulary *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->code_point, b->code_point, (size_t)a->size * sizeof *a->code_point) == 0);
}

void vocabulary_free(Vocabulary *vocabulary)
{
    free(vocabulary->code_point);
    *vocabulary = (Vocabulary){ 0 };
}

// Marks the characters of well-formed text in `seen`, one bit for each code point there is, and returns how many are new.
static int mark_characters(uint64_t *seen, const char *utf8, size_t bytes)
{
    int count = 0;
    for (const char *at = utf8; at < utf8 + bytes; ) {
        uint32_t c = utf8_next(&at);
        count += !(seen[c / 64] >> c % 64 & 1);
        seen[c / 64] |= (uint64_t)1 << c % 64;
    }
    return count;
}

// The vocabulary of a text; for a built-in one (corpus not NULL) that of all built-in texts, so that a model of one can read the others.
static bool collect_vocabulary(const char *utf8, size_t bytes, const Corpus *corpus, Vocabulary *vocabulary)
{
    uint64_t *seen = calloc(CODE_POINTS / 64, sizeof *seen);
    if (seen == NULL) return false;
    int count = mark_characters(seen, utf8, bytes);
    for (const char *const *name = corpus_names(); corpus != NULL && *name != NULL; name++) {
        Corpus other;
        corpus_write(*name, CORPUS_SEED, ALPHABET, &other);
        count += mark_characters(seen, other.text, (size_t)other.length);
        corpus_free(&other);
    }
    uint32_t *list = malloc((size_t)(count + 1) * sizeof *list);
    if (list != NULL) {
        *vocabulary = (Vocabulary){ count, list };
        for (uint32_t i = 0; i < CODE_POINTS / 64; i++)
            for (uint32_t bit = 0; bit < 64 && seen[i] >> bit != 0; bit++)
                if (seen[i] >> bit & 1) *list++ = 64 * i + bit;
    }
    free(seen);
    return list != NULL;
}

// -------------------------------------------------------------------------------------------------------------------- texts

// Tokens, split and floors of `utf8`; text is filled as far as it went.
static bool take_text(const char *source, const char *utf8, size_t bytes, const Corpus *corpus, const Vocabulary *vocabulary, int block_size,
                      Text *text, char *error, size_t size)
{
    char why[256];
    if (bytes == 0) return fail(error, size, "%s is empty; a text is needed", source);
    if (!check_utf8(utf8, bytes, why, sizeof why)) return fail(error, size, "%s is %s", source, why);
    size_t characters = 0;
    for (size_t i = 0; i < bytes; i++) characters += ((unsigned char)utf8[i] & 0xc0) != 0x80; // all but continuation bytes
    bool room = vocabulary != NULL ? vocabulary_copy(vocabulary, &text->vocabulary) : collect_vocabulary(utf8, bytes, corpus, &text->vocabulary);
    text->tokens = malloc(characters * sizeof *text->tokens);
    if (!room || text->tokens == NULL) return fail(error, size, "cannot take %s: out of memory for %zu characters", source, characters);
    text->count = vocabulary_encode(&text->vocabulary, utf8, bytes, text->tokens, why, sizeof why);
    if (text->count < 0) return fail(error, size, "%s: %s", source, why);

    text->train_count = text->count * 9 / 10;
    int64_t val_count = text->count - text->train_count;
    if (val_count <= block_size || text->train_count <= block_size)
        return fail(error, size, "%s is too short: of its %" PRId64 " characters %" PRId64 " are for validation, and block size %d needs at least %d; take a "
                    "longer text or a smaller --block-size", source, text->count, val_count, block_size, block_size + 1);
    if (corpus != NULL) { // ASCII: characters are bytes
        text->train_floor = corpus_floor(corpus, 0, text->train_count);
        text->val_floor = corpus_floor(corpus, text->train_count, text->count);
    }
    return true;
}

bool text_read(const char *source, int64_t builtin_length, const Vocabulary *vocabulary, int block_size, Text *text, char *error, size_t size)
{
    static const char prefix[] = "builtin:";
    bool good;
    *text = (Text){ .train_floor = (double)NAN, .val_floor = (double)NAN };
    if (strncmp(source, prefix, sizeof prefix - 1) == 0) {
        Corpus corpus;
        if (!corpus_write(source + sizeof prefix - 1, CORPUS_SEED, builtin_length, &corpus)) {
            char names[200] = "";
            for (const char *const *name = corpus_names(); *name != NULL; name++)
                snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s%s", names[0] ? ", " : "", prefix, *name);
            return fail(error, size, "%s: there is no built-in text of that name; there are %s", source, names);
        }
        good = take_text(source, corpus.text, (size_t)corpus.length, &corpus, vocabulary, block_size, text, error, size);
        corpus_free(&corpus);
    } else {
        char *bytes;
        size_t count;
        if (!file_read(source, LARGEST_TEXT, &bytes, &count, error, size)) return false;
        good = take_text(source, bytes, count, NULL, vocabulary, block_size, text, error, size);
        free(bytes);
    }
    if (!good) text_free(text);
    return good;
}

void text_free(Text *text)
{
    vocabulary_free(&text->vocabulary);
    free(text->tokens);
    *text = (Text){ 0 };
}

uint64_t text_fingerprint(const Text *text)
{
    uint64_t hash = HASH_START;
    for (int64_t i = 0; i < text->count; i++) { // lowest byte first: a checkpoint may go on at a machine with another order
        uint32_t token = (uint32_t)text->tokens[i];
        unsigned char bytes[4] = { token & 255, token >> 8 & 255, token >> 16 & 255, token >> 24 };
        hash = hash_bytes(hash, bytes, sizeof bytes);
    }
    return hash;
}

void text_batch(const Text *text, int B, int T, uint64_t seed, int64_t step, int *ids, int *targets)
{
    int64_t starts = text->train_count - T; // the last window's last target is the last token for training
    check(starts > 0, "text_batch: windows of %d tokens and one more from %" PRId64, T, text->train_count);
    uint64_t stream = random_bits(seed ^ BATCH_STREAM, (uint64_t)step);
    for (int b = 0; b < B; b++) {
        const int *window = text->tokens + random_bits(stream, (uint64_t)b) % (uint64_t)starts;
        memcpy(ids + (int64_t)b * T, window, (size_t)T * sizeof *ids);
        memcpy(targets + (int64_t)b * T, window + 1, (size_t)T * sizeof *targets);
    }
}
