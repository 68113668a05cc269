// fuzz_json.c - any text: what is accepted must be a consistent tree, and come back equal when it is written and read again.

#include "fuzz.h"
#include "io/json.h"

static void write_value(FILE *out, const Json *v)
{
    const char *comma = "";
    switch (v->type) {
    case JSON_NULL:   fputs("null", out); break;
    case JSON_BOOL:   fputs(v->boolean ? "true" : "false", out); break;
    case JSON_NUMBER:
        if (v->is_int) fprintf(out, "%lld", (long long)v->int_value);
        else if (v->is_uint) fprintf(out, "%llu", (unsigned long long)v->uint_value);
        else json_put_number(out, v->number);
        break;
    case JSON_STRING: json_put_string(out, v->string, v->length); break;
    case JSON_ARRAY: case JSON_OBJECT:
        fputc(v->type == JSON_ARRAY ? '[' : '{', out);
        for (const Json *child = v->child; child; child = child->next, comma = ",") {
            fputs(comma, out);
            if (v->type == JSON_OBJECT) json_put_string(out, child->key, child->key_length), fputc(':', out);
            write_value(out, child);
        }
        fputc(v->type == JSON_ARRAY ? ']' : '}', out);
        break;
    }
}

static bool same_text(const char *a, size_t n, const char *b, size_t m) { return n == m && (n == 0 || memcmp(a, b, n) == 0); }

static void compare(const Json *a, const Json *b)
{
    check(a->type == b->type && a->boolean == b->boolean && a->count == b->count, "another type or count");
    check(a->number == b->number, "%.17g became %.17g", a->number, b->number);
    check(same_text(a->string, a->length, b->string, b->length), "another string");
    check(same_text(a->key, a->key_length, b->key, b->key_length), "another key");
    size_t count = 0;
    const Json *x = a->child, *y = b->child;
    for (; x && y; x = x->next, y = y->next, count++) compare(x, y);
    check(!x && !y && count == a->count, "%zu members, not %zu", count, a->count);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char error[300] = "", *text = exact_copy(bytes, n), *again = NULL;
    size_t length;
    Json *json = json_parse(text, n, error, sizeof error);
    if (json == NULL) check_message(error);
    else {
        FILE *out = open_memstream(&again, &length);
        write_value(out, json);
        fclose(out);
        Json *copy = json_parse(again, length, error, sizeof error);
        check(copy != NULL, "%s: %s", again, error);
        compare(json, copy);
        json_free(copy);
        free(again);
    }
    json_free(json);
    free(text);
    return 0;
}
