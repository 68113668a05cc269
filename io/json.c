// json.c - recursive descent over one text: each parse_ function starts at the first byte of its value, fills it and stops
// behind its last byte. A value is linked into the tree before its content is read, so after an error json_free(root)
// frees whatever there is. The first error is written where it is seen and everything returns false.

#include "json.h"

#include "file.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Parser {
    const char *text;
    size_t n, at;              // at: the next byte to look at
    int    depth;
    size_t values;
    char  *error;
    size_t error_size;
} Parser;

static bool parse_value(Parser *p, Json *v);

static bool wrong(Parser *p, size_t at, const char *what)
{
    snprintf(p->error, p->error_size, "%s at byte %zu", what, at);
    return false;
}

static int peek(const Parser *p)            // the next byte; -1 at the end
{
    return p->at < p->n ? (unsigned char)p->text[p->at] : -1;
}

static void skip_space(Parser *p)
{
    while (peek(p) == ' ' || peek(p) == '\t' || peek(p) == '\n' || peek(p) == '\r') p->at++;
}

static Json *new_value(Parser *p)
{
    Json *v = ++p->values <= JSON_MAX_VALUES ? calloc(1, sizeof *v) : NULL;
    if (!v) wrong(p, p->at, p->values > JSON_MAX_VALUES ? "too many values" : "out of memory");
    return v;
}

size_t json_valid_utf8(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)text[i];
        int more = c < 0x80 ? 0 : c < 0xC2 ? -1 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : c < 0xF5 ? 3 : -1;
        if (more < 0 || (size_t)more >= n - i) return i;
        for (int k = 1; k <= more; k++) {
            unsigned char d = (unsigned char)text[i + (size_t)k];
            unsigned char low = 0x80, high = 0xBF;
            if (k == 1) {                   // the second byte is where overlong forms and surrogates show
                if (c == 0xE0) low = 0xA0;
                if (c == 0xED) high = 0x9F;
                if (c == 0xF0) low = 0x90;
                if (c == 0xF4) high = 0x8F;
            }
            if (d < low || d > high) return i;
        }
        i += (size_t)more + 1;
    }
    return n;
}

// Four hexadecimal digits at text[at], or -1. A quote stands behind every string, so this never runs off the text.
static int hex4(const char *text)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    int value = 0;
    for (int k = 0; k < 4; k++) {
        char c = text[k];
        const char *found = c ? strchr(digits, c) : NULL;
        if (!found) return -1;
        value = value * 16 + (int)(found - digits) % 16;
    }
    return value;
}

static char *put_utf8(char *out, int c)
{
    if (c < 0x80) { *out++ = (char)c; return out; }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const int lead[] = { 0, 0xC0, 0xE0, 0xF0 };
    *out++ = (char)(lead[more] | c >> 6 * more);
    while (more-- > 0) *out++ = (char)(0x80 | (c >> 6 * more & 0x3F));
    return out;
}

// The escape at text[at] (behind its backslash); moves `at` behind it. -1: not a legal one.
static int parse_escape(const char *text, size_t *at)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = text[(*at)++];
    const char *name = c ? strchr(names, c) : NULL;
    if (name) return values[name - names];
    int high = c == 'u' ? hex4(text + *at) : -1;
    if (high < 0) return -1;
    *at += 4;
    if (high < 0xD800 || high > 0xDFFF) return high;
    int low = high < 0xDC00 && text[*at] == '\\' && text[*at + 1] == 'u' ? hex4(text + *at + 2) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return -1;
    *at += 6;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

static bool parse_string(Parser *p, char **string, size_t *length)
{
    size_t end = p->at + 1, start = p->at;
    while (end < p->n && p->text[end] != '"') end += p->text[end] == '\\' ? 2 : 1;
    if (end >= p->n) return wrong(p, start, "string without end");
    char *out = *string = malloc(end - start);       // decoding never makes it longer
    if (!out) return wrong(p, start, "out of memory");
    for (size_t i = start + 1; i < end;) {
        size_t here = i;
        if ((unsigned char)p->text[i] < 0x20) return wrong(p, i, "control character in a string");
        if (p->text[i] != '\\') { *out++ = p->text[i++]; continue; }
        i++;
        int c = parse_escape(p->text, &i);
        if (c < 0) return wrong(p, here, "illegal escape or lone surrogate");
        out = put_utf8(out, c);
    }
    *out = 0;
    *length = (size_t)(out - *string);
    p->at = end + 1;
    return true;
}

static bool skip_digits(Parser *p)
{
    if (peek(p) < '0' || peek(p) > '9') return wrong(p, p->at, "expected a digit");
    while (peek(p) >= '0' && peek(p) <= '9') p->at++;
    return true;
}

static bool parse_number(Parser *p, Json *v)
{
    char copy[128];
    size_t start = p->at;
    bool negative = peek(p) == '-', whole = true;
    if (negative) p->at++;
    if (peek(p) == '0') p->at++;
    else if (!skip_digits(p)) return false;
    if (peek(p) >= '0' && peek(p) <= '9') return wrong(p, start, "leading zero");
    if (peek(p) == '.') {
        whole = false;
        p->at++;
        if (!skip_digits(p)) return false;
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        whole = false;
        p->at++;
        if (peek(p) == '+' || peek(p) == '-') p->at++;
        if (!skip_digits(p)) return false;
    }
    size_t length = p->at - start;
    if (length >= sizeof copy) return wrong(p, start, "number of more than 127 characters");
    memcpy(copy, p->text + start, length);
    copy[length] = 0;

    char *end;
    v->type = JSON_NUMBER;
    v->number = strtod(copy, &end);
    if (*end) return wrong(p, start, "number not understood (LC_NUMERIC must be \"C\")");
    if (!isfinite(v->number)) return wrong(p, start, "number too large");
    if (!whole) return true;
    errno = 0;
    v->int_value = strtoll(copy, NULL, 10);
    v->is_int = errno == 0;
    errno = 0;
    if (!negative) v->uint_value = strtoull(copy, NULL, 10);
    v->is_uint = !negative && errno == 0;
    return true;
}

static int compare_keys(const Json *a, const Json *b)
{
    if (a->key_length != b->key_length) return a->key_length < b->key_length ? -1 : 1;
    return memcmp(a->key, b->key, a->key_length);
}

static int by_key(const void *left, const void *right)
{
    const Json *a = *(const Json *const *)left, *b = *(const Json *const *)right;
    int order = compare_keys(a, b);
    return order ? order : (a->offset > b->offset) - (a->offset < b->offset);
}

static bool keys_differ(Parser *p, const Json *object)
{
    if (object->count < 2) return true;
    const Json **sorted = malloc(object->count * sizeof *sorted);
    if (!sorted) return wrong(p, object->offset, "out of memory");
    size_t n = 0;
    for (const Json *member = object->child; member; member = member->next) sorted[n++] = member;
    qsort(sorted, n, sizeof *sorted, by_key);
    bool good = true;
    for (size_t i = 1; i < n && good; i++)
        if (compare_keys(sorted[i], sorted[i - 1]) == 0) good = wrong(p, sorted[i]->offset, "duplicate key");
    free(sorted);
    return good;
}

static bool parse_container(Parser *p, Json *v)
{
    bool object = peek(p) == '{';
    int  close = object ? '}' : ']';
    Json **tail = &v->child;
    v->type = object ? JSON_OBJECT : JSON_ARRAY;
    if (++p->depth > JSON_MAX_DEPTH) return wrong(p, p->at, "nested too deep");
    p->at++;
    skip_space(p);
    while (peek(p) != close || v->count > 0) {
        Json *child = *tail = new_value(p);
        if (!child) return false;
        tail = &child->next;
        v->count++;
        child->offset = p->at;
        if (object) {
            if (peek(p) != '"') return wrong(p, p->at, v->count > 1 ? "expected a key" : "expected a key or '}'");
            if (!parse_string(p, &child->key, &child->key_length)) return false;
            skip_space(p);
            if (peek(p) != ':') return wrong(p, p->at, "expected ':'");
            p->at++;
            skip_space(p);
        }
        if (!parse_value(p, child)) return false;
        skip_space(p);
        if (peek(p) == close) break;
        if (peek(p) != ',') return wrong(p, p->at, object ? "expected ',' or '}'" : "expected ',' or ']'");
        p->at++;
        skip_space(p);
    }
    p->at++;
    p->depth--;
    return !object || keys_differ(p, v);
}

static bool begins(const Parser *p, const char *word)
{
    return p->n - p->at >= strlen(word) && memcmp(p->text + p->at, word, strlen(word)) == 0;
}

static bool parse_word(Parser *p, const char *word)
{
    if (!begins(p, word)) return wrong(p, p->at, "expected a value");
    p->at += strlen(word);
    return true;
}

static bool parse_value(Parser *p, Json *v)
{
    int c = peek(p);
    switch (c) {
    case '{': case '[': return parse_container(p, v);
    case '"': v->type = JSON_STRING; return parse_string(p, &v->string, &v->length);
    case 't': v->type = JSON_BOOL; v->boolean = true; return parse_word(p, "true");
    case 'f': v->type = JSON_BOOL; return parse_word(p, "false");
    case 'n': v->type = JSON_NULL; return parse_word(p, "null");
    default:  break;
    }
    if (begins(p, "NaN") || begins(p, "Infinity") || begins(p, "-Infinity"))
        return wrong(p, p->at, "NaN or Infinity, which Python writes and JSON does not have,");
    return c == '-' || (c >= '0' && c <= '9') ? parse_number(p, v) : wrong(p, p->at, "expected a value");
}

Json *json_parse(const char *text, size_t n, char *error, size_t error_size)
{
    Parser p = { .text = text, .n = n, .error = error, .error_size = error_size };
    size_t valid = json_valid_utf8(text, n);
    if (valid < n) {
        wrong(&p, valid, "invalid UTF-8");
        return NULL;
    }
    skip_space(&p);
    Json *root = new_value(&p);
    if (!root) return NULL;
    root->offset = p.at;
    bool good = parse_value(&p, root);
    skip_space(&p);
    if (good && p.at < n) good = wrong(&p, p.at, "expected the end");
    if (good) return root;
    json_free(root);
    return NULL;
}

Json *json_read(const char *dir, const char *name, size_t max_bytes, char *error, size_t error_size)
{
    char path[FILE_PATH], why[160], *bytes;
    size_t n;
    if (!file_path(path, dir, name, error, error_size) || !file_read(path, max_bytes, &bytes, &n, error, error_size)) return NULL;
    Json *json = json_parse(bytes, n, why, sizeof why);
    if (json == NULL && strncmp(bytes, GIT_LFS_POINTER, strlen(GIT_LFS_POINTER)) == 0)
        snprintf(error, error_size, "%s is a Git LFS pointer, not the file itself; get that with: git lfs pull", path);
    else if (json == NULL) snprintf(error, error_size, "%s is not JSON: %s", path, why);
    free(bytes);
    return json;
}

void json_free(Json *root)                  // recursion as deep as the tree: at most JSON_MAX_DEPTH + 1
{
    if (!root) return;
    for (Json *child = root->child, *next; child; child = next) {
        next = child->next;
        json_free(child);
    }
    free(root->key);
    free(root->string);
    free(root);
}

const Json *json_get(const Json *object, const char *key)
{
    if (!object || object->type != JSON_OBJECT) return NULL;
    size_t n = strlen(key);
    for (const Json *member = object->child; member; member = member->next)
        if (member->key_length == n && memcmp(member->key, key, n) == 0) return member;
    return NULL;
}

static const Json *get(const Json *object, const char *key, JsonType type, char *error, size_t error_size)
{
    static const char *const names[] = { "null", "true or false", "a number", "a string", "an array", "an object" };
    const Json *member = json_get(object, key);
    if (!member) snprintf(error, error_size, "\"%s\" is missing", key);
    if (!member || member->type == type) return member;
    snprintf(error, error_size, "\"%s\" at byte %zu is %s, but must be %s", key, member->offset, names[member->type],
             names[type]);
    return NULL;
}

bool json_get_int(const Json *object, const char *key, int64_t least, int64_t most, int64_t *value, char *error, size_t error_size)
{
    const Json *member = get(object, key, JSON_NUMBER, error, error_size);
    if (!member) return false;
    if (!member->is_int || member->int_value < least || member->int_value > most) {
        snprintf(error, error_size, "\"%s\" at byte %zu is %.17g, but must be a whole number from %" PRId64 " to %" PRId64, key,
                 member->offset, member->number, least, most);
        return false;
    }
    *value = member->int_value;
    return true;
}

bool json_get_number(const Json *object, const char *key, double *value, char *error, size_t error_size)
{
    const Json *member = get(object, key, JSON_NUMBER, error, error_size);
    if (member) *value = member->number;
    return member != NULL;
}

bool json_get_bool(const Json *object, const char *key, bool *value, char *error, size_t error_size)
{
    const Json *member = get(object, key, JSON_BOOL, error, error_size);
    if (member) *value = member->boolean;
    return member != NULL;
}

bool json_get_string(const Json *object, const char *key, const char **value, char *error, size_t error_size)
{
    const Json *member = get(object, key, JSON_STRING, error, error_size);
    if (!member) return false;
    if (memchr(member->string, 0, member->length)) {
        snprintf(error, error_size, "\"%s\" at byte %zu has a zero byte inside", key, member->offset);
        return false;
    }
    *value = member->string;
    return true;
}

bool json_given(const Json *object, const char *key)
{
    const Json *member = json_get(object, key);
    return member && member->type != JSON_NULL;
}

bool json_optional_number(const Json *object, const char *key, double otherwise, double *value, char *error, size_t error_size)
{
    *value = otherwise;
    return !json_given(object, key) || json_get_number(object, key, value, error, error_size);
}

bool json_optional_bool(const Json *object, const char *key, bool otherwise, bool *value, char *error, size_t error_size)
{
    *value = otherwise;
    return !json_given(object, key) || json_get_bool(object, key, value, error, error_size);
}

bool json_is_string(const Json *value, const char *text)
{
    return value && value->type == JSON_STRING && value->length == strlen(text) && memcmp(value->string, text, value->length) == 0;
}

bool json_is_empty(const Json *value)
{
    if (!value) return true;
    switch (value->type) {
    case JSON_NULL:   return true;
    case JSON_BOOL:   return !value->boolean;
    case JSON_STRING: return value->length == 0;
    case JSON_NUMBER: return false;
    case JSON_ARRAY: case JSON_OBJECT: break;
    }
    return value->count == 0;
}

bool json_is_known(const Json *object, const char *const *known, char *error, size_t error_size)
{
    for (const Json *member = object->child; member; member = member->next) {
        const char *const *key = known;
        while (*key && (strlen(*key) != member->key_length || memcmp(*key, member->key, member->key_length) != 0)) key++;
        if (*key || json_is_empty(member)) continue;
        snprintf(error, error_size, "%s is in use, which this engine does not know",
                 json_quoted(member->key, member->key_length).text);
        return false;
    }
    return true;
}

void json_put_string(FILE *out, const char *text, size_t n)
{
    char piece[16];
    fputc('"', out);
    for (size_t i = 0; i < n; i++) {        // byte by byte, without the quotes that json_escape adds
        size_t length = json_escape(piece, sizeof piece, text + i, 1);
        fwrite(piece + 1, 1, length - 2, out);
    }
    fputc('"', out);
}

void json_put_text(FILE *out, const char *text)
{
    if (text) json_put_string(out, text, strlen(text));
    else fputs("null", out);
}

void json_put_number(FILE *out, double number)
{
    char text[40];
    assert(isfinite(number));
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    fputs(text, out);
}

void json_put(FILE *out, const Json *value)
{
    const char *comma = "";
    switch (value->type) {
    case JSON_NULL:   fputs("null", out); return;
    case JSON_BOOL:   fputs(value->boolean ? "true" : "false", out); return;
    case JSON_STRING: json_put_string(out, value->string, value->length); return;
    case JSON_NUMBER:
        if (value->is_int) fprintf(out, "%" PRId64, value->int_value);
        else if (value->is_uint) fprintf(out, "%" PRIu64, value->uint_value);
        else {
            json_put_number(out, value->number);
            if (value->number == floor(value->number) && fabs(value->number) < 1e15) fputs(".0", out); // it was no whole one
        }
        return;
    case JSON_ARRAY: case JSON_OBJECT: break;
    }
    fputc(value->type == JSON_ARRAY ? '[' : '{', out);
    for (const Json *child = value->child; child; child = child->next, comma = ", ") {
        fputs(comma, out);
        if (child->key) {
            json_put_string(out, child->key, child->key_length);
            fputs(": ", out);
        }
        json_put(out, child);
    }
    fputc(value->type == JSON_ARRAY ? ']' : '}', out);
}

size_t json_escape(char *out, size_t room, const char *text, size_t n)
{
    static const char names[] = "\"\\bfnrt", values[] = "\"\\\b\f\n\r\t";
    size_t length = 0;
    for (size_t i = 0; i < n + 2; i++) {    // the text and its two quotes
        char piece[8] = "\"";
        size_t size = 1;
        if (i > 0 && i <= n) {
            char c = text[i - 1];
            const char *found = c ? strchr(values, c) : NULL;
            if (found) size = (size_t)snprintf(piece, sizeof piece, "\\%c", names[found - values]);
            else if ((unsigned char)c < 0x20) size = (size_t)snprintf(piece, sizeof piece, "\\u%04x", (unsigned)c);
            else piece[0] = c;
        }
        for (size_t k = 0; k < size; k++, length++)
            if (length < room) out[length] = piece[k];
    }
    if (room > 0) out[length < room ? length : room - 1] = 0;
    return length;
}

JsonQuoted json_quoted(const char *text, size_t n)
{
    JsonQuoted q = { "" };
    if (json_escape(q.text, sizeof q.text, text, n) >= sizeof q.text) memcpy(q.text + sizeof q.text - 5, "...\"", 5);
    return q;
}
