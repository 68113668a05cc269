// json.h - a small, strict JSON reader (RFC 8259) and the escaping of strings for writers.
//
//     Json *config = json_parse(text, n, error, sizeof error);
//     int64_t n_layer;
//     if (!config || !json_get_int(config, "n_layer", 1, 1000, &n_layer, error, sizeof error)) ...
//     for (const Json *item = config->child; item; item = item->next) ...    // members or elements, in the file's order
//     json_free(config);
//
// Strict: the text must be UTF-8 without byte order mark and hold exactly one value; duplicate keys, lone surrogates,
// trailing commas, comments, leading zeros, NaN (which Python writes) and numbers beyond a double's range are refused. Limits of its own: depth
// JSON_MAX_DEPTH, JSON_MAX_VALUES values (a tree needs about 150 bytes for each), numbers of at most 127 characters.
// The program must not leave the "C" locale for numbers (LC_NUMERIC).
//
// Errors are one line in `error`: for the parser "expected ',' or '}' at byte 17", bytes counted from the text's first, 0.

#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_MAX_DEPTH  64         // arrays and objects inside each other
#define JSON_MAX_VALUES 2000000

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } JsonType;

typedef struct Json {              // all of it belongs to the tree; fields not of its type are 0
    JsonType type;
    size_t   offset;               // byte of the text where it begins; for a member of an object, where its key begins
    bool     boolean;              // JSON_BOOL
    double   number;               // JSON_NUMBER, the nearest double
    bool     is_int, is_uint;      // ... written without fraction or exponent, and within the range of
    int64_t  int_value;            // ... this (if is_int)
    uint64_t uint_value;           // ... or this (if is_uint; "-0" is not); both are exact
    char    *string;               // JSON_STRING, decoded, zero byte behind it;
    size_t   length;               // ... its bytes: "\u0000" is legal, so a zero byte may be inside, too
    size_t   count;                // JSON_ARRAY, JSON_OBJECT: how many elements or members
    struct Json *child;            // ... the first of them
    struct Json *next;             // the next one beside this value; NULL: it is the last
    char    *key;                  // member of an object: its key, as `string`; else NULL
    size_t   key_length;
} Json;

// The tree for text[0..n), or NULL and an error. The text is not needed afterwards. json_free frees all of it (or NULL).
Json *json_parse(const char *text, size_t n, char *error, size_t error_size);
// The same for the file DIR/NAME, of at most max_bytes bytes. The error names it, and knows a Git LFS pointer.
Json *json_read(const char *dir, const char *name, size_t max_bytes, char *error, size_t error_size);
void  json_free(Json *root);

// The member of that name; NULL if there is none or `object` is no object (or NULL). A walk over all members.
const Json *json_get(const Json *object, const char *key);

// The member's value in *value; false, with a line that names the key, if it is missing, of another type or, for an int,
// not a whole number from least to most. Strings belong to the tree; one with a zero byte inside is refused.
bool json_get_int(const Json *object, const char *key, int64_t least, int64_t most, int64_t *value, char *error, size_t error_size);
bool json_get_number(const Json *object, const char *key, double *value, char *error, size_t error_size);
bool json_get_bool(const Json *object, const char *key, bool *value, char *error, size_t error_size);
bool json_get_string(const Json *object, const char *key, const char **value, char *error, size_t error_size);

// The same for a member that may be missing or null; then *value is `otherwise`.
bool json_optional_number(const Json *object, const char *key, double otherwise, double *value, char *error, size_t error_size);
bool json_optional_bool(const Json *object, const char *key, bool otherwise, bool *value, char *error, size_t error_size);

bool json_given(const Json *object, const char *key);        // there is such a member, and it is not null
bool json_is_string(const Json *value, const char *text);    // value may be NULL
bool json_is_empty(const Json *value);                       // NULL, null, false, "", [] or {}

// Whether every member of the object is among the known keys (the list ends with NULL) or empty; else a line names the first
// that is not: what nobody has read may not ask for something.
bool json_is_known(const Json *object, const char *const *known, char *error, size_t error_size);

// Writing, to a stream: text[0..n) as a string, a string or null, a finite number in as few digits as give the same double, and
// a whole tree, on one line.
void json_put_string(FILE *out, const char *text, size_t n);
void json_put_text(FILE *out, const char *text);
void json_put_number(FILE *out, double number);
void json_put(FILE *out, const Json *value);

// Writes text[0..n) as a JSON string with its quotes and a zero byte, as much as fits into out[0..room). Returns the length
// of the whole, without zero byte, as snprintf does; out may be NULL if room is 0. Escaped are " \ and control characters
// below 0x20 (\b \t \n \f \r, else \u00xx in lower case); everything else goes through as it is.
size_t json_escape(char *out, size_t room, const char *text, size_t n);

// The same for a message: in quotes and on one line, whatever it is, and cut where it is long.
typedef struct JsonQuoted { char text[100]; } JsonQuoted;
JsonQuoted json_quoted(const char *text, size_t n);

// How many bytes of text[0..n) are well-formed UTF-8 from the start on; n: all of it. Overlong forms, surrogates and
// what lies above U+10FFFF are not.
size_t json_valid_utf8(const char *text, size_t n);

#endif
