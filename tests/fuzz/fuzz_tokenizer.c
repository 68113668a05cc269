// fuzz_tokenizer.c - any JSON as tokenizer.json: an accepted vocabulary must be ascending code points, decode and encode each
// of them, and come back equal when it is written and read again.

#include "io/model_file.h"

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char error[600] = "", *text = exact_copy(bytes, n);
    Json *json = json_parse(text, n, error, sizeof error);
    const Json *vocab = json_get(json_get(json, "model"), "vocab");
    int size = vocab && vocab->type == JSON_OBJECT ? (int)vocab->count : 3;
    Vocabulary vocabulary = { 0 }, again = { 0 };
    if (json != NULL && !vocabulary_parse(json, size, &vocabulary, error, sizeof error)) check_message(error);
    else if (json != NULL) {
        for (const Json *item = vocab->child; item != NULL; item = item->next) {
            int token = -1;
            vocabulary_encode(&vocabulary, item->key, item->key_length, &token, error, sizeof error);
            check(token == item->int_value, "%s is token %d, not %" PRId64, item->key, token, (int64_t)item->int_value);
        }
        for (int token = 0; token < size; token++) {
            char character[5];
            int back = -1, length = vocabulary_decode(&vocabulary, token, character);
            const uint32_t *c = &vocabulary.code_point[token];
            check(token == 0 || c[0] > c[-1], "token %d is out of order", token);
            vocabulary_encode(&vocabulary, character, (size_t)length, &back, error, sizeof error);
            check(back == token, "token %d became %d: %s", token, back, error);
        }
        Document d;
        document_open(&d);
        vocabulary_put(d.out, &vocabulary);
        check(document_close(&d, error, sizeof error), "%s", error);
        Json *copy = json_parse(d.text, d.length, error, sizeof error);
        check(copy && vocabulary_parse(copy, size, &again, error, sizeof error), "%s", error);
        check(vocabulary_equal(&vocabulary, &again), "another vocabulary");
        json_free(copy);
        free(d.text);
    }
    vocabulary_free(&vocabulary);
    vocabulary_free(&again);
    json_free(json);
    free(text);
    return 0;
}
