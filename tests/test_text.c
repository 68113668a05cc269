// test_text.c - characters, vocabularies, the split and the batches. Works in a file of its own under TMPDIR.

#include "../io/text.h"
#include "../io/corpus.h"
#include "../io/file.h"
#include "test.h"

#include <inttypes.h>

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static char path[400], error[600];

static bool read_bytes(const char *bytes, size_t n, const Vocabulary *vocabulary, int block_size, Text *text)
{
    error[0] = '\0';
    if (!file_write_all(path, bytes, n, error, sizeof error)) { printf("%s\n", error); exit(1); }
    return text_read(path, 0, vocabulary, block_size, text, error, sizeof error);
}

// One line, and it says where: both parts must occur in it.
static bool says(const char *a, const char *b) { return error[0] != '\0' && !strchr(error, '\n') && strstr(error, a) && strstr(error, b); }

// A vocabulary of these characters.
static Vocabulary vocabulary_of(const char *utf8)
{
    char long_enough[4000] = "";
    Text text;
    while (strlen(long_enough) + strlen(utf8) < 300) strcat(long_enough, utf8);
    if (!read_bytes(long_enough, strlen(long_enough), NULL, 1, &text)) { printf("%s\n", error); exit(1); }
    Vocabulary v = text.vocabulary;
    free(text.tokens);
    return v;
}

TEST(characters_of_every_length)
{
    static const uint32_t points[] = { 0, 'A', 0x7f, 0x80, 0xe9, 0x7ff, 0x800, 0x20ac, 0xd7ff, 0xe000, 0xfeff, 0xffff, 0x10000, 0x1f600, 0x10ffff };
    enum { POINTS = sizeof points / sizeof *points };
    Vocabulary all = { POINTS, (uint32_t *)points };
    char bytes[4 * POINTS * 10] = "";
    size_t n = 0;
    for (int round = 0; round < 10; round++)
        for (int i = POINTS; i-- > 0; ) { // against the order of the vocabulary
            char character[5];
            int length = vocabulary_decode(&all, i, character);
            EXPECT(length == (points[i] < 0x80 ? 1 : points[i] < 0x800 ? 2 : points[i] < 0x10000 ? 3 : 4), "U+%X: %d", (unsigned)points[i], length);
            EXPECT(character[length] == '\0', "U+%X", (unsigned)points[i]);
            const char *at = character;
            EXPECT(utf8_next(&at) == points[i] && at == character + length, "U+%X", (unsigned)points[i]);
            memcpy(bytes + n, character, (size_t)length);
            n += (size_t)length;
        }
    Text text;
    EXPECT(read_bytes(bytes, n, NULL, 4, &text), "%s", error);
    EXPECT(vocabulary_equal(&text.vocabulary, &all), "%d characters", text.vocabulary.size);
    EXPECT(text.count == 10 * POINTS, "%" PRId64 " tokens", text.count);
    for (int64_t i = 0; i < text.count; i++) EXPECT(text.tokens[i] == POINTS - 1 - i % POINTS, "token %" PRId64 " is %d", i, text.tokens[i]);
    EXPECT(isnan(text.train_floor) && isnan(text.val_floor), "a file has no floor");
    text_free(&text);
    EXPECT(text.tokens == NULL && text.vocabulary.size == 0 && text.count == 0, "not empty");
}

TEST(what_is_not_utf8)
{
    static const struct { const char *bytes; size_t bad; } cases[] = { // the offset of the byte that does not fit
        { "\xff", 0 }, { "ab\x80", 2 }, { "a\nb\nc\xc3(", 5 }, { "\xc0\xaf", 0 }, { "ok\xe2\x82", 2 }, { "\xed\xa0\x80", 0 }, { "\xf4\x90\x80\x80", 0 },
        { "\xc3\xa9\xc3", 2 }, { "\xf0\x9f\x98", 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Text text;
        char where[40];
        int64_t line = 1;
        for (size_t k = 0; k < cases[i].bad; k++) line += cases[i].bytes[k] == '\n';
        snprintf(where, sizeof where, "offset %zu (line %" PRId64 ")", cases[i].bad, line);
        EXPECT(!read_bytes(cases[i].bytes, strlen(cases[i].bytes), NULL, 0, &text), "case %zu is read", i);
        EXPECT(says("not UTF-8", where) && strstr(error, path), "case %zu: %s", i, error);
        EXPECT(text.tokens == NULL && text.vocabulary.code_point == NULL, "case %zu leaves something", i);
    }
}

TEST(empty_missing_and_short)
{
    Text text;
    EXPECT(!read_bytes("", 0, NULL, 8, &text) && says("empty", path), "%s", error);
    unlink(path);
    EXPECT(!text_read(path, 0, NULL, 8, &text, error, sizeof error) && says("cannot read", path), "%s", error);
    EXPECT(!text_read("/", 0, NULL, 8, &text, error, sizeof error) && says("cannot read", "/"), "%s", error);
    char bytes[1000];
    memset(bytes, 'x', sizeof bytes);
    EXPECT(!read_bytes(bytes, 80, NULL, 8, &text) && says("too short", "9"), "%s", error);
    EXPECT(read_bytes(bytes, 81, NULL, 8, &text), "%s", error); // 72 and 9: just enough
    text_free(&text);
    EXPECT(!read_bytes(bytes, 1000, NULL, 100, &text) && says("too short", "101"), "%s", error);
    EXPECT(read_bytes(bytes, 1000, NULL, 99, &text), "%s", error);
    text_free(&text);
}

TEST(ninety_and_ten_percent)
{
    char bytes[1500];
    for (int i = 0; i < 1500; i++) bytes[i] = (char)('a' + i % 26);
    for (size_t n = 10; n < 1500; n += 7) {
        Text text;
        if (!read_bytes(bytes, n, NULL, 0, &text)) { EXPECT(false, "%zu: %s", n, error); continue; }
        EXPECT(text.train_count == (int64_t)(n * 9 / 10) && text.count == (int64_t)n, "%" PRId64 " of %zu", text.train_count, n);
        text_free(&text);
    }
}

TEST(unknown_characters)
{
    Vocabulary v = vocabulary_of("abc\n");
    Text text;
    EXPECT(!read_bytes("abca\nbc\xc3\xa9", 9, &v, 0, &text) && says("U+00E9 \xc3\xa9", "offset 7 (line 2)"), "%s", error);
    EXPECT(text.tokens == NULL && text.vocabulary.size == 0, "leaves something");
    EXPECT(!read_bytes("ab\0c", 4, &v, 0, &text) && says("U+0000 at", "offset 2"), "%s", error);   // nothing that would break the line
    EXPECT(!read_bytes("ab\xe2\x80\xa8", 5, &v, 0, &text) && says("U+2028 at", "offset 2"), "%s", error);
    EXPECT(read_bytes("abcabcabccba", 12, &v, 0, &text) && vocabulary_equal(&v, &text.vocabulary) && text.vocabulary.code_point != v.code_point, "%s", error);
    text_free(&text);

    int tokens[8];
    EXPECT(vocabulary_encode(&v, "cab\n", 4, tokens, error, sizeof error) == 4, "%s", error);
    EXPECT(tokens[0] == 3 && tokens[1] == 1 && tokens[2] == 2 && tokens[3] == 0, "%d %d %d %d", tokens[0], tokens[1], tokens[2], tokens[3]);
    EXPECT(vocabulary_encode(&v, "", 0, tokens, error, sizeof error) == 0, "an empty text has no tokens");
    EXPECT(vocabulary_encode(&v, "abx", 3, tokens, error, sizeof error) == -1 && says("U+0078 x", "offset 2"), "%s", error);
    EXPECT(vocabulary_encode(&v, "ab\xff", 3, tokens, error, sizeof error) == -1 && says("0xff", "offset 2"), "%s", error);
    Vocabulary none = { 0 }, copy;
    EXPECT(vocabulary_encode(&none, "a", 1, tokens, error, sizeof error) == -1, "nothing is in an empty vocabulary");
    EXPECT(vocabulary_copy(&none, &copy) && vocabulary_equal(&none, &copy) && !vocabulary_equal(&v, &copy), "copy of nothing");
    vocabulary_free(&copy);
    EXPECT(vocabulary_copy(&v, &copy) && vocabulary_equal(&v, &copy), "copy");
    copy.code_point[1]++;
    EXPECT(!vocabulary_equal(&v, &copy), "a copy is apart");
    vocabulary_free(&copy);
    vocabulary_free(&v);
}

TEST(batches)
{
    enum { COUNT = 400, B = 5, T = 7 };
    int ids[B * T], targets[B * T], again[B * T], numbers[COUNT];
    for (int i = 0; i < COUNT; i++) numbers[i] = i; // so that a token says where it is from
    Text text = { .tokens = numbers, .count = COUNT, .train_count = 360 };
    bool started[COUNT] = { false };
    for (int64_t step = 0; step < 3000; step++) {
        text_batch(&text, B, T, 42, step, ids, targets);
        for (int i = 0; i < B * T; i++) {
            EXPECT(targets[i] == ids[i] + 1, "step %" PRId64 ": %d follows %d", step, targets[i], ids[i]);
            EXPECT(i % T == 0 || ids[i] == ids[i - 1] + 1, "step %" PRId64 ": a window is not in one piece", step);
            EXPECT(ids[i] >= 0 && targets[i] < 360, "step %" PRId64 ": %d is not for training", step, targets[i]);
            if (i % T == 0) started[ids[i]] = true;
        }
    }
    int starts = 0;
    for (int i = 0; i < COUNT; i++) starts += started[i];
    EXPECT(starts == 360 - T && started[0] && started[360 - T - 1], "%d starts", starts);
    text_batch(&text, B, T, 42, 17, ids, targets);
    text_batch(&text, B, T, 42, 17, again, targets);
    EXPECT(memcmp(ids, again, sizeof ids) == 0, "seed and step alone decide");
    text_batch(&text, B, T, 43, 17, again, targets);
    EXPECT(memcmp(ids, again, sizeof ids) != 0, "another seed");
    text_batch(&text, B, T, 42, 18, again, targets);
    EXPECT(memcmp(ids, again, sizeof ids) != 0, "another step");
    text_batch(&text, 2, T, 42, 17, again, targets);
    EXPECT(memcmp(ids, again, 2 * T * sizeof *ids) == 0, "a row does not depend on the number of rows");
    text.train_count = T + 1;
    text_batch(&text, B, T, 42, 0, ids, targets); // a single window
    EXPECT(ids[0] == 0 && targets[B * T - 1] == T, "%d to %d", ids[0], targets[B * T - 1]);
}

TEST(builtin_texts)
{
    Text tales, again;
    EXPECT(text_read("builtin:tales", 300000, NULL, 64, &tales, error, sizeof error), "%s", error);
    EXPECT(tales.count >= 300000 && tales.count < 301000 && tales.train_count == tales.count * 9 / 10, "%" PRId64, tales.count);
    EXPECT(tales.train_floor > 0.1 && tales.train_floor < 2 && tales.val_floor > 0.1 && tales.val_floor < 2, "%g %g", tales.train_floor, tales.val_floor);
    EXPECT(fabs(tales.train_floor - tales.val_floor) < 0.05, "%g %g", tales.train_floor, tales.val_floor);
    Corpus corpus;
    EXPECT(corpus_write("tales", 1337, 300000, &corpus) && corpus.length == tales.count, "the corpus has another length");
    EXPECT(tales.train_floor == corpus_floor(&corpus, 0, tales.train_count) && tales.val_floor == corpus_floor(&corpus, tales.train_count, tales.count),
           "the floors, %g and %g, are not those of the two parts", tales.train_floor, tales.val_floor);
    corpus_free(&corpus);
    EXPECT(text_read("builtin:tales", 300000, NULL, 64, &again, error, sizeof error), "%s", error);
    EXPECT(again.count == tales.count && memcmp(again.tokens, tales.tokens, (size_t)tales.count * sizeof *tales.tokens) == 0, "a built-in text is always the same");
    text_free(&again);
    for (const char *const *name = corpus_names(); *name; name++) { // a model of the tales can take up any task, of any length
        for (int64_t length = 2000; length <= 2000000; length *= 1000) {
            char source[80];
            Text task, with;
            snprintf(source, sizeof source, "builtin:%s", *name);
            EXPECT(text_read(source, length, NULL, 64, &task, error, sizeof error), "%s", error);
            EXPECT(vocabulary_equal(&task.vocabulary, &tales.vocabulary), "%s has %d characters, the tales %d", *name, task.vocabulary.size, tales.vocabulary.size);
            EXPECT(isfinite(task.train_floor) && isfinite(task.val_floor) && task.val_floor > 0, "%s: %g %g", *name, task.train_floor, task.val_floor);
            EXPECT(text_read(source, length, &tales.vocabulary, 64, &with, error, sizeof error), "%s", error);
            EXPECT(with.count == task.count && memcmp(with.tokens, task.tokens, (size_t)task.count * sizeof *task.tokens) == 0, "%s", *name);
            text_free(&task);
            text_free(&with);
        }
        EXPECT(!text_read("builtin:novel", 1000, NULL, 8, &again, error, sizeof error) && says("builtin:novel", *name), "%s", error);
    }
    EXPECT(!text_read("builtin:tales", 100, NULL, 1000, &again, error, sizeof error) && says("too short", "1001"), "%s", error);
    Vocabulary few = vocabulary_of("abc");
    EXPECT(!text_read("builtin:tales", 1000, &few, 8, &again, error, sizeof error) && says("not among the 3", "offset"), "%s", error);
    vocabulary_free(&few);
    text_free(&tales);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/meltwater-text-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0) { perror(path); return 1; }
    close(fd);
    RUN(characters_of_every_length);
    RUN(what_is_not_utf8);
    RUN(empty_missing_and_short);
    RUN(ninety_and_ten_percent);
    RUN(unknown_characters);
    RUN(batches);
    RUN(builtin_texts);
    unlink(path);
    return test_summary();
}
