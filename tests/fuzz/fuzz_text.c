// fuzz_text.c - any bytes as a text: what is accepted must decode to the same bytes, be split as promised, and give batches.
// The first byte says whether the text brings its own vocabulary (0: that takes long) or must do with a given one.

#include "io/text.c"

#include "fuzz.h"

static uint32_t characters[] = { 0, '\t', '\n', ' ', '!', 'a', 'b', 'c', 'd', 'e', 0xe4, 0x301, 0x2028, 0x20ac, 0xfeff, 0x1f600,
                                 0x10ffff };
static const Vocabulary given = { (int)(sizeof characters / sizeof *characters), characters };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n == 0) return 0;
    enum { BLOCK = 2, BATCH = 3 };
    char error[600] = "", *utf8 = exact_copy(bytes + 1, n - 1);
    Text text = { .train_floor = (double)NAN, .val_floor = (double)NAN };
    const Vocabulary *vocabulary = bytes[0] == 0 ? NULL : &given;
    if (!take_text("input", utf8, n - 1, NULL, vocabulary, BLOCK, &text, error, sizeof error)) check_message(error);
    else {
        size_t at = 0;
        for (int64_t i = 0; i < text.count; i++) {
            char character[5];
            int length = vocabulary_decode(&text.vocabulary, text.tokens[i], character);
            bool same = at + (size_t)length <= n - 1 && memcmp(utf8 + at, character, (size_t)length) == 0;
            check(same, "token %" PRId64 " is not what is at byte %zu", i, at);
            at += (size_t)length;
        }
        check(at == n - 1, "%zu bytes of %zu", at, n - 1);
        check(text.train_count == text.count * 9 / 10, "%" PRId64 " of %" PRId64 " tokens", text.train_count, text.count);
        int ids[BATCH * BLOCK], targets[BATCH * BLOCK];
        text_batch(&text, BATCH, BLOCK, 1, (int64_t)n, ids, targets);
        for (int i = 0; i < BATCH * BLOCK; i++) {
            check(ids[i] >= 0 && ids[i] < text.vocabulary.size, "id %d of a batch", i);
            check(targets[i] >= 0 && targets[i] < text.vocabulary.size, "target %d of a batch", i);
        }
    }
    text_free(&text);
    free(utf8);
    return 0;
}
