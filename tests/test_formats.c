// test_formats.c - files, JSON and safetensors: what must be refused, with which reason, what must be accepted, and the exact
// bytes that are written. Works in a directory of its own under TMPDIR and leaves nothing behind.

#include <stdio.h>
#include <unistd.h>
static int watched_fsync(int fd);
static int watched_rename(const char *from, const char *to);
#define fsync watched_fsync
#define rename watched_rename
#include "../io/file.c"
#undef fsync
#undef rename
#include "../io/json.h"
#include "../io/safetensors.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[400], error[400];

static char *in_directory(const char *name)       // valid until the fourth call after this one
{
    static char paths[4][512];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static int count_files(void)
{
    int n = 0;
    DIR *d = opendir(directory);
    for (struct dirent *e; d && (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d) closedir(d);
    return n;
}

static bool one_line(void) { return error[0] && !strchr(error, '\n'); }

static bool file_is(const char *path, const void *bytes, size_t n)
{
    char *got, why[400];
    size_t size;
    if (!file_read(path, 1 << 20, &got, &size, why, sizeof why)) return false;
    bool same = size == n && memcmp(got, bytes, n) == 0;
    free(got);
    return same;
}

// --- files ---

TEST(files_are_read)
{
    char *bytes, *path = in_directory("plain");
    size_t n;
    EXPECT(file_write_all(path, "12345", 5, error, sizeof error), "%s", error);
    EXPECT(file_read(path, 5, &bytes, &n, error, sizeof error), "%s", error);
    EXPECT(n == 5 && strcmp(bytes, "12345") == 0, "%zu bytes", n);
    free(bytes);
    error[0] = 0;
    EXPECT(!file_read(path, 4, &bytes, &n, error, sizeof error) && !bytes && one_line() && strstr(error, path), "%s", error);
    EXPECT(file_write_all(path, "", 0, error, sizeof error), "%s", error);
    EXPECT(file_read(path, 0, &bytes, &n, error, sizeof error) && n == 0, "%s", error);
    free(bytes);
    unlink(path);
    EXPECT(!file_read(path, 9, &bytes, &n, error, sizeof error) && strstr(error, strerror(ENOENT)), "%s", error);
    EXPECT(!file_read(directory, 9, &bytes, &n, error, sizeof error) && strstr(error, strerror(EISDIR)), "%s", error);
    EXPECT(mkfifo(path, 0600) == 0, "%s", strerror(errno));     // a pipe: its size is not known in advance
    for (size_t limit = 199999; limit <= 200000; limit++) {
        pid_t writer = fork();
        if (writer == 0) {
            FILE *out = fopen(path, "w");
            for (int i = 0; out && i < 200000; i++) fputc("abc"[i % 3], out);
            _exit(out && fclose(out) == 0 ? 0 : 1);
        }
        bool good = file_read(path, limit, &bytes, &n, error, sizeof error);
        EXPECT(good == (limit == 200000), "limit %zu: %s", limit, error);
        EXPECT(!good || (n == 200000 && bytes[199999] == "abc"[199999 % 3] && bytes[n] == 0), "%zu bytes", n);
        free(bytes);
        waitpid(writer, NULL, 0);
    }
    unlink(path);
}

TEST(files_are_replaced_at_once)
{
    char *path = in_directory("target"), line[300];
    EXPECT(file_write_all(path, "old", 3, error, sizeof error), "%s", error);
    EXPECT(chmod(path, 0640) == 0, "%s", strerror(errno));
    FileWriter *w = file_write_begin(path, error, sizeof error);
    memset(line, 'x', sizeof line);
    for (int i = 0; i < 100; i++) EXPECT(file_printf(w, "%d%.*s\n", i % 10, 298, line), "line %d", i);
    EXPECT(file_is(path, "old", 3), "the target changed before commit");
    EXPECT(file_write_commit(w, error, sizeof error), "%s", error);
    struct stat info;
    EXPECT(stat(path, &info) == 0 && info.st_size == 30000 && (info.st_mode & 0777) == 0640, "%lo", (unsigned long)info.st_mode);
    EXPECT(file_write_all(path, "old", 3, error, sizeof error), "%s", error);
    w = file_write_begin(path, error, sizeof error);
    file_write(w, "new", 3);
    file_write_abort(w);
    file_write_abort(NULL);
    EXPECT(file_is(path, "old", 3) && count_files() == 1, "%d files", count_files());
    w = file_write_begin(path, error, sizeof error);            // longer than file_printf can do: an error, not half of it
    EXPECT(!file_printf(w, "%5000d", 1) && !file_write(w, "more", 4), "a text of 5000 bytes");
    EXPECT(!file_write_commit(w, error, sizeof error) && one_line(), "%s", error);
    EXPECT(file_is(path, "old", 3) && count_files() == 1, "%d files", count_files());
    unlink(path);
}

TEST(failed_writes_leave_the_old_file)
{
    char *path = in_directory("target"), *sub = in_directory("sub");
    static char large[100000];
    EXPECT(file_write_all(path, "old", 3, error, sizeof error), "%s", error);

    struct rlimit limit, small = { 50000, 50000 };              // the system refuses in the middle, as on a full disk
    getrlimit(RLIMIT_FSIZE, &limit);
    small.rlim_max = limit.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    bool good = file_write_all(path, large, sizeof large, error, sizeof error);
    SafetensorsTensor t = { "x", SAFETENSORS_F32, 1, (int[]){ 25000 }, large };
    SafetensorsError code = safetensors_write(path, &t, 1, NULL, 0, error, sizeof error);
    setrlimit(RLIMIT_FSIZE, &limit);
    EXPECT(!good && code == SAFETENSORS_IO_ERROR && one_line() && strstr(error, path) && strstr(error, strerror(EFBIG)), "%s", error);
    EXPECT(file_is(path, "old", 3) && count_files() == 1, "%d files", count_files());

    EXPECT(mkdir(sub, 0700) == 0, "%s", strerror(errno));       // the target is a directory, from the start or suddenly
    error[0] = 0;
    EXPECT(!file_write_begin(sub, error, sizeof error) && one_line() && strstr(error, sub), "%s", error);
    EXPECT(!file_write_begin("/dev/null", error, sizeof error), "a device would be replaced");
    unlink(path);
    FileWriter *w = file_write_begin(path, error, sizeof error);
    mkdir(path, 0700);
    EXPECT(!file_write_commit(w, error, sizeof error) && strstr(error, strerror(EISDIR)), "%s", error);
    rmdir(path);
    EXPECT(count_files() == 1, "%d files", count_files());

    snprintf(large, sizeof large, "%s/none/file", directory);
    EXPECT(!file_write_begin(large, error, sizeof error) && strstr(error, strerror(ENOENT)), "%s", error);
    snprintf(large, sizeof large, "%s/file", sub);
    EXPECT(file_write_all(large, "old", 3, error, sizeof error), "%s", error);
    chmod(sub, 0500);
    bool root = geteuid() == 0 && seteuid(65534) == 0;          // permissions do not stop root
    w = file_write_begin(large, error, sizeof error);
    if (root) EXPECT(seteuid(0) == 0, "%s", strerror(errno));
    EXPECT(!w && strstr(error, strerror(EACCES)), "%s", error);
    chmod(sub, 0700);
    EXPECT(file_is(large, "old", 3), "the old file is gone");
    unlink(large);
    rmdir(sub);
}

// --- JSON ---

static Json *parse(const char *text)
{
    error[0] = 0;
    return json_parse(text, strlen(text), error, sizeof error);
}

TEST(json_accepts)
{
    static const char *const good[] = {
        "0", "-0", " null\t\r\n", "true", "false", "\"\"", "[]", "{}", "[ ]", "{ }", "[[],{}]", "-1.5e-3", "1E+2", "0.0", "0e0",
        "[1,2 , 3]", "{\"a\":1 , \"b\" :[{\"a\":null}]}", "{\"\":0}", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"", "\"\x7f\"",
        "18446744073709551616", "1e308", "\"\\ud83d\\ude00\"", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf\"",
        "{\"a\":{\"a\":1},\"A\":2,\"aa\":3}",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        Json *v = parse(good[i]);
        EXPECT(v, "%s: %s", good[i], error);
        json_free(v);
    }
}

TEST(json_refuses)
{
    static const struct { const char *text, *error; } bad[] = {
        { "", "expected a value at byte 0" },                   { "  ", "expected a value at byte 2" },
        { "nul", "expected a value at byte 0" },                { "True", "expected a value at byte 0" },
        { "NaN", "NaN or Infinity, which Python writes and JSON does not have, at byte 0" },
        { "[1, -Infinity]", "NaN or Infinity, which Python writes and JSON does not have, at byte 4" },
        { "{\"a\":Infinity}", "NaN or Infinity, which Python writes and JSON does not have, at byte 5" },
        { "-Inf", "expected a digit at byte 1" },               { "Na", "expected a value at byte 0" },
        { "01", "leading zero at byte 0" },                     { "-01", "leading zero at byte 0" },
        { "1.", "expected a digit at byte 2" },                 { ".5", "expected a value at byte 0" },
        { "+1", "expected a value at byte 0" },                 { "1e", "expected a digit at byte 2" },
        { "1e+", "expected a digit at byte 3" },                { "-", "expected a digit at byte 1" },
        { "0x10", "expected the end at byte 1" },               { "1e400", "number too large at byte 0" },
        { "1 2", "expected the end at byte 2" },                { "{}x", "expected the end at byte 2" },
        { "[1,]", "expected a value at byte 3" },               { "[,1]", "expected a value at byte 1" },
        { "[1 2]", "expected ',' or ']' at byte 3" },           { "[", "expected a value at byte 1" },
        { "[1", "expected ',' or ']' at byte 2" },              { "]", "expected a value at byte 0" },
        { "[1}", "expected ',' or ']' at byte 2" },             { "{\"a\":1]", "expected ',' or '}' at byte 6" },
        { "{", "expected a key or '}' at byte 1" },             { "{\"a\":1,}", "expected a key at byte 7" },
        { "{a:1}", "expected a key or '}' at byte 1" },         { "{\"a\" 1}", "expected ':' at byte 5" },
        { "{\"a\":}", "expected a value at byte 5" },           { "{\"a\":1 \"b\":2}", "expected ',' or '}' at byte 7" },
        { "{\"a\":1, \"b\":2, \"a\":3}", "duplicate key at byte 15" },
        { "{\"a\":1,\"\\u0061\":3}", "duplicate key at byte 7" },
        { "\"abc", "string without end at byte 0" },            { "\"abc\\\"", "string without end at byte 0" },
        { "\"\\", "string without end at byte 0" },             { "'a'", "expected a value at byte 0" },
        { "\"a\nb\"", "control character in a string at byte 2" },
        { "\"\\x41\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\u12\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\u12g4\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\ud83d\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\ude00\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\ude00\\ude00\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\ud83d\\u0041\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\ud83dxude00\"", "illegal escape or lone surrogate at byte 1" },
        { "\"\\ud83d\\ud83d\"", "illegal escape or lone surrogate at byte 1" },
        { "\xef\xbb\xbf{}", "expected a value at byte 0" },     { "// x\n1", "expected a value at byte 0" },
        { "\"\xff\"", "invalid UTF-8 at byte 1" },              { "\"\xc0\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xc3\"", "invalid UTF-8 at byte 1" },              { "\"\xed\xa0\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\xe0\x9f\xbf\"", "invalid UTF-8 at byte 1" },      { "\"\xf0\x8f\xbf\xbf\"", "invalid UTF-8 at byte 1" },
        { "\"\xf4\x90\x80\x80\"", "invalid UTF-8 at byte 1" },  { "\"\xf5\x80\x80\x80\"", "invalid UTF-8 at byte 1" },
        { "\"\x80\"", "invalid UTF-8 at byte 1" },              { "\"ab\xe2\x82", "invalid UTF-8 at byte 3" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Json *v = parse(bad[i].text);
        EXPECT(!v, "%s was accepted", bad[i].text);
        EXPECT(strcmp(error, bad[i].error) == 0, "%s: \"%s\", not \"%s\"", bad[i].text, error, bad[i].error);
        json_free(v);
    }
    Json *v = json_parse("[\"a\0b\"]", 7, error, sizeof error);
    EXPECT(!v && strstr(error, "control character"), "%s", error);
    EXPECT(json_valid_utf8("a\xc3\xa9", 2) == 1 && json_valid_utf8("a\xc3\xa9", 3) == 3, "cut inside a character");
    v = json_parse("12345", 2, error, sizeof error);            // n counts, not what stands behind
    EXPECT(v && v->uint_value == 12, "%s", error);
    json_free(v);
}

TEST(json_limits)
{
    char text[300];
    for (int depth = JSON_MAX_DEPTH; depth <= JSON_MAX_DEPTH + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = 0;
        Json *v = parse(text);
        EXPECT((v != NULL) == (depth <= JSON_MAX_DEPTH), "depth %d: %s", depth, error);
        json_free(v);
    }
    Json *v = parse("[[],[],[[]],{\"a\":{}}]");                 // depth is not the number of containers
    EXPECT(v && v->count == 4, "%s", error);
    json_free(v);
    memset(text, '1', 128);
    for (int n = 127; n <= 128; n++) {
        v = json_parse(text, (size_t)n, error, sizeof error);
        EXPECT((v != NULL) == (n == 127), "a number of %d digits: %s", n, error);
        json_free(v);
    }
    size_t n = 2 * (size_t)JSON_MAX_VALUES + 1;                 // an array and JSON_MAX_VALUES zeros: one value too many
    char *many = malloc(n);
    for (size_t i = 0; many && i < n; i++) many[i] = i == 0 ? '[' : i == n - 1 ? ']' : i % 2 ? '0' : ',';
    EXPECT(many && !json_parse(many, n, error, sizeof error) && strstr(error, "too many values"), "%s", error);
    free(many);
}

TEST(json_values)
{
    Json *v = parse("{\"i\":-9223372036854775808,\"u\":18446744073709551615,\"f\":1.0,\"z\":-0,\"big\":18446744073709551616,"
                    "\"e\":1e2,\"d\":0.1,\"s\":\"a\\u0000b\",\"t\":\"\\ud83d\\ude00\\u20ac\\u00e9\",\"b\":true,\"l\":[1,[],\"x\"],"
                    "\"n\":7,\"null\":null}");
    EXPECT(v && v->type == JSON_OBJECT && v->count == 13, "%s", error);
    const Json *i = json_get(v, "i"), *u = json_get(v, "u"), *f = json_get(v, "f"), *z = json_get(v, "z"), *e = json_get(v, "e");
    const Json *big = json_get(v, "big"), *s = json_get(v, "s"), *t = json_get(v, "t"), *l = json_get(v, "l");
    EXPECT(i->is_int && !i->is_uint && i->int_value == INT64_MIN, "%lld", (long long)i->int_value);
    EXPECT(u->is_uint && !u->is_int && u->uint_value == UINT64_MAX, "%llu", (unsigned long long)u->uint_value);
    EXPECT(!f->is_int && !f->is_uint && f->number == 1.0, "%g", f->number);
    EXPECT(z->is_int && !z->is_uint && signbit(z->number), "%g", z->number);
    EXPECT(!big->is_int && !big->is_uint && big->number == 0x1p64, "%g", big->number);
    EXPECT(!e->is_int && !e->is_uint && e->number == 100 && json_get(v, "d")->number == 0.1, "%g", e->number);
    EXPECT(s->length == 3 && memcmp(s->string, "a\0b", 4) == 0, "%zu", s->length);
    EXPECT(strcmp(t->string, "\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xa9") == 0, "%s", t->string);
    EXPECT(l->count == 3 && l->child->next->type == JSON_ARRAY && !l->child->next->next->next && l->offset == 164, "%zu", l->offset);
    EXPECT(!json_get(v, "none") && !json_get(l, "i") && !json_get(NULL, "i"), "found");

    int64_t whole = 0;
    double number = 0;
    bool flag = false;
    const char *string = NULL;
    EXPECT(json_get_int(v, "n", 7, 7, &whole, error, sizeof error) && whole == 7, "%s", error);
    EXPECT(json_get_number(v, "d", &number, error, sizeof error) && number == 0.1, "%s", error);
    EXPECT(json_get_bool(v, "b", &flag, error, sizeof error) && flag, "%s", error);
    EXPECT(json_get_string(v, "t", &string, error, sizeof error) && string == t->string, "%s", error);
    EXPECT(!json_get_int(v, "n", 8, 9, &whole, error, sizeof error) && strstr(error, "\"n\""), "%s", error);
    EXPECT(!json_get_int(v, "n", 5, 6, &whole, error, sizeof error) && strstr(error, "from 5 to 6"), "%s", error);
    EXPECT(!json_get_int(v, "f", 0, 9, &whole, error, sizeof error) && strstr(error, "whole number"), "%s", error);
    EXPECT(!json_get_int(v, "t", 0, 9, &whole, error, sizeof error) && strstr(error, "is a string"), "%s", error);
    EXPECT(!json_get_int(v, "none", 0, 9, &whole, error, sizeof error) && strstr(error, "missing"), "%s", error);
    EXPECT(!json_get_string(v, "s", &string, error, sizeof error) && strstr(error, "zero byte"), "%s", error);
    EXPECT(!json_get_bool(v, "null", &flag, error, sizeof error) && strstr(error, "is null"), "%s", error);
    EXPECT(!json_get_number(v, "l", &number, error, sizeof error) && one_line(), "%s", error);
    json_free(v);
    json_free(NULL);
}

TEST(json_strings_are_escaped)
{
    char out[200], text[256];
    size_t n = json_escape(out, sizeof out, "a\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9", 14);
    EXPECT(strcmp(out, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\"") == 0 && n == strlen(out), "%s", out);
    EXPECT(json_escape(NULL, 0, "a\nb", 3) == 6, "length without memory");
    EXPECT(json_escape(out, 4, "abcd", 4) == 6 && strcmp(out, "\"ab") == 0, "%s", out);
    EXPECT(json_escape(out, sizeof out, "", 0) == 2 && strcmp(out, "\"\"") == 0, "%s", out);
    for (int i = 0; i < 128; i++) text[i] = (char)i;            // what is written can be read
    char *all = malloc(1000);
    n = json_escape(all, 1000, text, 128);
    Json *v = json_parse(all, n, error, sizeof error);
    EXPECT(v && v->length == 128 && memcmp(v->string, text, 128) == 0, "%s", error);
    json_free(v);
    free(all);
}

// --- safetensors: reading ---

static char image[1 << 20];                                     // a file in memory

static size_t build(const char *json, size_t data)              // its header, and `data` zero bytes
{
    size_t n = strlen(json);
    for (int i = 0; i < 8; i++) image[i] = (char)(n >> 8 * i & 255);
    memcpy(image + 8, json, n);
    memset(image + 8 + n, 0, data);
    return 8 + n + data;
}

static SafetensorsError code_of(const void *bytes, size_t n)    // of a file in memory; it must be the same from the disk
{
    Safetensors *f, *g;
    char path[512], first[400];
    snprintf(path, sizeof path, "%s/image", directory);
    error[0] = 0;
    SafetensorsError code = safetensors_parse(bytes, n, path, &f, error, sizeof error);
    EXPECT((code != SAFETENSORS_OK) == (f == NULL) && (code != SAFETENSORS_OK) == one_line(), "code %d: %s", code, error);
    EXPECT(!code || strncmp(error, path, strlen(path)) == 0, "no file name: %s", error);
    safetensors_close(f);
    strcpy(first, error);
    EXPECT(file_write_all(path, bytes, n, error, sizeof error), "%s", error);
    error[0] = 0;
    SafetensorsError again = safetensors_open(path, &g, error, sizeof error);
    EXPECT(again == code && strcmp(first, error) == 0, "in memory %d %s, on disk %d %s", code, first, again, error);
    safetensors_close(g);
    unlink(path);
    return code;
}

#define RAW(bytes) bytes, sizeof bytes - 1

TEST(safetensors_refuses_with_the_reference_s_reason)
{
    static const struct { const char *bytes; size_t n; SafetensorsError code; } raw[] = {
        { RAW(""), SAFETENSORS_HEADER_TOO_SMALL },
        { RAW("\2\0\0\0\0\0\0"), SAFETENSORS_HEADER_TOO_SMALL },
        { RAW("<\0\0\0\0\0\0\0"), SAFETENSORS_INVALID_HEADER_LENGTH },
        { RAW("<\0\0\0\0\xff\xff\xff" "{\"test\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}"
              "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), SAFETENSORS_HEADER_TOO_LARGE },
        { RAW("\xff\xff\xff\xff\xff\xff\xff\xff{}"), SAFETENSORS_HEADER_TOO_LARGE },
        { RAW("\x00\xe1\xf5\x05\0\0\0\0{}"), SAFETENSORS_INVALID_HEADER_LENGTH },   // 100,000,000: still allowed
        { RAW("\x01\xe1\xf5\x05\0\0\0\0{}"), SAFETENSORS_HEADER_TOO_LARGE },
        { RAW("\xe8\3\0\0\0\0\0\0{}"), SAFETENSORS_INVALID_HEADER_LENGTH },         // says 1000
        { RAW("\1\0\0\0\0\0\0\0\xff"), SAFETENSORS_INVALID_HEADER },
        { RAW("\1\0\0\0\0\0\0\0{"), SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { RAW("\0\0\0\0\0\0\0\0"), SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { RAW("\6\0\0\0\0\0\0\0{}\r \t\n"), SAFETENSORS_OK },
        { RAW("\6\0\0\0\0\0\0\0\t\n{}\r "), SAFETENSORS_OK },
        { RAW("\2\0\0\0\0\0\0\0{}"), SAFETENSORS_OK },
        { RAW("\2\0\0\0\0\0\0\0{}x"), SAFETENSORS_METADATA_INCOMPLETE_BUFFER },
        { RAW("\2\0\0\0\0\0\0\0[]"), SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
    };
    for (size_t i = 0; i < sizeof raw / sizeof *raw; i++) {
        SafetensorsError code = code_of(raw[i].bytes, raw[i].n);
        EXPECT(code == raw[i].code, "raw file %zu: code %d, not %d: %s", i, code, raw[i].code, error);
    }
#define TENSOR(shape, offsets) "{\"test\":{\"dtype\":\"I32\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define TYPED(type, shape, offsets) "{\"test\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    static const struct { const char *json; size_t data; SafetensorsError code; } cases[] = {
        { TENSOR("[2,2]", "[0,16]"), 16, SAFETENSORS_OK },
        { TENSOR("[]", "[0,4]"), 4, SAFETENSORS_OK },
        { TENSOR("[2,0]", "[0, 0]"), 0, SAFETENSORS_OK },
        { TENSOR("[2,2]", "[0,16]"), 16 + 35, SAFETENSORS_METADATA_INCOMPLETE_BUFFER },
        { TENSOR("[2,2]", "[0,16]"), 14, SAFETENSORS_METADATA_INCOMPLETE_BUFFER },
        { TENSOR("[2,2]", "[0, 4]"), 0, SAFETENSORS_TENSOR_INVALID_INFO },
        { TENSOR("[2,2]", "[0,20]"), 20, SAFETENSORS_TENSOR_INVALID_INFO },
        { TENSOR("[2,18446744073709551614]", "[0,16]"), 16, SAFETENSORS_VALIDATION_OVERFLOW },
        { TENSOR("[2,9223372036854775807]", "[0,16]"), 16, SAFETENSORS_VALIDATION_OVERFLOW },
        { TENSOR("[4294967296,4294967296,0]", "[0,0]"), 0, SAFETENSORS_VALIDATION_OVERFLOW },
        { TENSOR("[0,4294967296,4294967296]", "[0,0]"), 0, SAFETENSORS_OK },
        { TENSOR("[18446744073709551616]", "[0,0]"), 0, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[2,2]", "[4,20]"), 20, SAFETENSORS_INVALID_OFFSET },                 // does not begin at 0
        { TENSOR("[2,2]", "[16,0]"), 16, SAFETENSORS_INVALID_OFFSET },
        { TENSOR("[0]", "[0,18446744073709551615]"), 0, SAFETENSORS_TENSOR_INVALID_INFO },
        { TENSOR("[-1]", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[-0]", "[0,0]"), 0, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1.0]", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1e0]", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[\"1\"]", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[null]", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("1", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1]", "[0]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1]", "[0,4,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1]", "[0,-4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1]", "[0.0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1]", "{\"0\":0,\"1\":4}"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1]", "[0,4]") "x", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TENSOR("[1]", "[0,4]") "{}", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TYPED("f32", "[1]", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TYPED("F16\\u0000", "[1]", "[0,2]"), 2, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TYPED("", "[1]", "[0,4]"), 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { TYPED("F4", "[1,3]", "[0,2]"), 2, SAFETENSORS_MISALIGNED_SLICE },
        { TYPED("F4", "[1,2]", "[0,1]"), 1, SAFETENSORS_OK },
        { TYPED("F4", "[1,2]", "[0,2]"), 2, SAFETENSORS_TENSOR_INVALID_INFO },
        { TYPED("F6_E2M3", "[4]", "[0,3]"), 3, SAFETENSORS_OK },
        { TYPED("F6_E3M2", "[2]", "[0,2]"), 2, SAFETENSORS_MISALIGNED_SLICE },
        { "{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
          SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":[{}]}}", 4, SAFETENSORS_OK },
        { "{\"t\":{\"dtype\":5,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"t\":[\"F32\",[1],[0,4]]}", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },           // stricter
        { "{\"t\":null}", 0, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"\\ud800\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"a\\u0000\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
          SAFETENSORS_INVALID_HEADER_DESERIALIZATION },                                             // stricter
        { "{\"__metadata__\":{\"format\":\"pt\"}}", 0, SAFETENSORS_OK },
        { "{\"__metadata__\":{}}", 0, SAFETENSORS_OK },
        { "{\"__metadata__\":null}", 0, SAFETENSORS_OK },
        { "{\"__metadata__\":{\"step\":3}}", 0, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"__metadata__\":[]}", 0, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"__metadata__\":\"pt\"}", 0, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },
#define FLOATS(name, from, to) "\"" name "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[" #from "," #to "]}"
        { "{" FLOATS("b", 4, 8) "," FLOATS("a", 0, 4) "}", 8, SAFETENSORS_OK },                     // any order
        { "{" FLOATS("a", 0, 4) "," FLOATS("b", 8, 12) "}", 12, SAFETENSORS_INVALID_OFFSET },       // hole
        { "{" FLOATS("a", 0, 4) "," FLOATS("b", 3, 7) "}", 7, SAFETENSORS_INVALID_OFFSET },         // overlap
        { "{" FLOATS("a", 0, 4) "," FLOATS("b", 4, 0) "}", 4, SAFETENSORS_INVALID_OFFSET },         // backwards
        { "{" FLOATS("a", 0, 4) "," FLOATS("a", 4, 8) "}", 8, SAFETENSORS_INVALID_HEADER_DESERIALIZATION },   // stricter
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        SafetensorsError code = code_of(image, build(cases[i].json, cases[i].data));
        EXPECT(code == cases[i].code, "%s + %zu: code %d, not %d: %s", cases[i].json, cases[i].data, code, cases[i].code, error);
    }
    EXPECT(strlen(TENSOR("[2,2]", "[0,16]")) == '<', "the reference's own case says '<'");
    code_of(image, build("{" FLOATS("a", 0, 4) "," FLOATS("line\\n\\u001b[2J", 8, 12) "}", 12));
    EXPECT(strstr(error, "\"line\\n\\u001b[2J\"") && strstr(error, "[8, 12]"), "a name must not reach the terminal raw: %s", error);
}

TEST(safetensors_many_tensors_at_one_place)
{
    static char json[400000];
    char *end = json + sprintf(json, "{");
    for (int i = 0; i < 4000; i++)
        end += sprintf(end, "%s\"weight_%d\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}", i ? "," : "", i);
    strcpy(end, "}");
    EXPECT(code_of(image, build(json, 16)) == SAFETENSORS_INVALID_OFFSET, "%s", error);
    char name[400];                                             // a long name is cut short in messages, as one line
    memset(name, 'n', 399);
    name[399] = 0;
    sprintf(json, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[4,20]}}", name);
    EXPECT(code_of(image, build(json, 20)) == SAFETENSORS_INVALID_OFFSET && strstr(error, "nnn...\""), "%s", error);
}

TEST(safetensors_types)
{
    static const char *const names[] = {
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16",
        "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
    };
    static const int bits[] = { 8, 4, 6, 6, 8, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16, 32, 32, 32, 64, 64, 64, 64 };
    EXPECT(sizeof names / sizeof *names == SAFETENSORS_DTYPES, "%d types", SAFETENSORS_DTYPES);
    for (int i = 0; i < SAFETENSORS_DTYPES; i++) {
        char json[200];
        float values[4];
        Safetensors *f;
        sprintf(json, "{\"x\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%d]}}", names[i], bits[i] / 2);
        size_t n = build(json, (size_t)bits[i] / 2);
        SafetensorsError code = safetensors_parse(image, n, "image", &f, error, sizeof error);
        EXPECT(code == SAFETENSORS_OK && f->entries[0].dtype == (SafetensorsDtype)i, "%s: code %d", names[i], code);
        if (code) continue;
        EXPECT(strcmp(safetensors_dtype_name((SafetensorsDtype)i), names[i]) == 0, "%s", names[i]);
        bool readable = i == SAFETENSORS_F16 || i == SAFETENSORS_BF16 || i == SAFETENSORS_F32 || i == SAFETENSORS_F64;
        code = safetensors_read(f, f->entries, values, SAFETENSORS_F32, error, sizeof error);
        EXPECT(code == (readable ? SAFETENSORS_OK : SAFETENSORS_INVALID_TENSOR_VIEW), "%s: code %d", names[i], code);
        bool byte = i == SAFETENSORS_U8 || i == SAFETENSORS_I8;
        EXPECT(readable || (strstr(error, names[i]) && strstr(error, "\"x\"") && one_line()), "%s", error);
        EXPECT(safetensors_read(f, f->entries, values, SAFETENSORS_I32, error, sizeof error) != SAFETENSORS_OK, "as I32");
        for (int as = SAFETENSORS_U8; as <= SAFETENSORS_I8; as++) // bytes are read as what they are, and nothing else is
            EXPECT((safetensors_read(f, f->entries, values, (SafetensorsDtype)as, error, sizeof error) == SAFETENSORS_OK) == (byte && as == i), "%s as %s",
                   names[i], names[as]);
        safetensors_close(f);
    }
}

static double slow_half(unsigned h)                             // by the definition, with nothing in common with the reader
{
    int sign = h >> 15 ? -1 : 1, exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 31) return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0) return sign * pow(2, -14) * mantissa / 1024;
    return sign * pow(2, exponent - 15) * (1 + mantissa / 1024.0);
}

static bool same(double a, double b) { return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b)); }

static size_t build_all_patterns(const char *type)
{
    char json[200];
    sprintf(json, "{\"h\":{\"dtype\":\"%s\",\"shape\":[65536],\"data_offsets\":[0,131072]}}", type);
    size_t n = build(json, 131072);
    for (size_t i = 0; i < 65536; i++) {
        image[n - 131072 + 2 * i] = (char)(i & 255);
        image[n - 131072 + 2 * i + 1] = (char)(i >> 8);
    }
    return n;
}

TEST(safetensors_reads_all_halves)
{
    Safetensors *f;
    float  *floats = malloc(65536 * sizeof *floats);
    double *doubles = malloc(65536 * sizeof *doubles);
    int wrong = 0;
    size_t n = build_all_patterns("F16");
    EXPECT(!safetensors_parse(image, n, "image", &f, error, sizeof error), "%s", error);
    EXPECT(!safetensors_read(f, f->entries, floats, SAFETENSORS_F32, error, sizeof error), "%s", error);
    EXPECT(!safetensors_read(f, f->entries, doubles, SAFETENSORS_F64, error, sizeof error), "%s", error);
    for (unsigned i = 0; i < 65536; i++)
        if (!same((double)floats[i], slow_half(i)) || !same(doubles[i], slow_half(i))) wrong++;
    EXPECT(wrong == 0, "%d of 65536 halves are wrong", wrong);
    EXPECT(floats[0x3C00] == 1.0f && floats[0xC000] == -2.0f && floats[0x7BFF] == 65504.0f && floats[1] == 0x1p-24f, "known ones");
    safetensors_close(f);

    // The same patterns as BF16, which is a float without its lower 16 bits: 8 bits of exponent, 7 of mantissa.
    n = build_all_patterns("BF16");
    EXPECT(!safetensors_parse(image, n, "image", &f, error, sizeof error), "%s", error);
    EXPECT(!safetensors_read(f, f->entries, floats, SAFETENSORS_F32, error, sizeof error), "%s", error);
    for (unsigned i = 0; i < 65536; i++) {
        int sign = i >> 15 ? -1 : 1, exponent = i >> 7 & 255, mantissa = i & 127;
        double value = exponent == 255 ? mantissa ? (double)NAN : sign * (double)INFINITY
                     : exponent == 0 ? sign * pow(2, -126) * mantissa / 128 : sign * pow(2, exponent - 127) * (1 + mantissa / 128.0);
        if (!same((double)floats[i], value)) wrong++;
    }
    EXPECT(wrong == 0, "%d of 65536 BF16 are wrong", wrong);
    safetensors_close(f);
    free(floats);
    free(doubles);
}

// --- safetensors: writing ---

static bool write_and_compare(const SafetensorsTensor *tensors, size_t count, const SafetensorsMetadata *metadata, size_t pairs,
                              const char *json, const void *data, size_t bytes)
{
    char *path = in_directory("written");
    size_t n = build(json, bytes);
    memcpy(image + n - bytes, data, bytes);
    SafetensorsError code = safetensors_write(path, tensors, count, metadata, pairs, error, sizeof error);
    bool good = code == SAFETENSORS_OK && file_is(path, image, n);
    unlink(path);
    return good;
}

// The number that these 16 bits are.
static double half_value(unsigned bits, SafetensorsDtype type)
{
    if (type == SAFETENSORS_F16) return slow_half(bits);
    uint32_t word = bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return (double)value;
}

static unsigned half_of(double value, SafetensorsDtype type) // from a double, and the same from a float if it is one
{
    float single = (float)value;
    uint16_t half, other;
    safetensors_convert(&value, SAFETENSORS_F64, 1, &half, type);
    safetensors_convert(&single, SAFETENSORS_F32, 1, &other, type);
    EXPECT(isnan(value) || (double)single != value || other == half, "%a is %04x from a double, %04x from a float", value, (unsigned)half, (unsigned)other);
    return half;
}

// Between two neighbours among all there are: the middle goes to the even one, and whatever lies beside it to the nearer one, if
// it is nearer by a hair.
TEST(safetensors_rounds_to_halves)
{
    static const SafetensorsDtype types[] = { SAFETENSORS_F16, SAFETENSORS_BF16 };
    for (int t = 0; t < 2; t++) {
        SafetensorsDtype type = types[t];
        unsigned infinity = type == SAFETENSORS_F16 ? 0x7C00 : 0x7F80;
        int wrong = 0;
        for (unsigned bits = 0; bits < infinity; bits++) {
            double here = half_value(bits, type), above = half_value(bits + 1, type);
            if (bits + 1 == infinity) above = 2 * here - half_value(bits - 1, type); // where the next one would be
            double middle = here + (above - here) / 2, low = nextafter(middle, 0), high = nextafter(middle, above);
            wrong += half_of(here, type) != bits || half_of(-here, type) != (bits | 0x8000);
            wrong += half_of(middle, type) != bits + bits % 2 || half_of(-middle, type) != ((bits + bits % 2) | 0x8000);
            wrong += half_of(low, type) != bits || half_of(high, type) != bits + 1;
        }
        EXPECT(wrong == 0, "%s: %d are wrong", safetensors_dtype_name(type), wrong);
        EXPECT(half_of(1e300, type) == infinity && half_of(-(double)INFINITY, type) == (infinity | 0x8000), "what is too large");
        unsigned nan = half_of((double)NAN, type) & 0x7FFF;
        EXPECT(nan > infinity, "a NaN becomes %04x", nan);
    }
    static const double values[] = { 1 + 0x1p-40, 0.1 }; // and to the two wider types
    float floats[2];
    double doubles[2];
    safetensors_convert(values, SAFETENSORS_F64, 2, floats, SAFETENSORS_F32);
    safetensors_convert(floats, SAFETENSORS_F32, 2, doubles, SAFETENSORS_F64);
    EXPECT(floats[0] == 1 && floats[1] == 0.1f && doubles[1] == (double)0.1f, "%a %a", (double)floats[0], (double)floats[1]);
    safetensors_convert(values, SAFETENSORS_F64, 2, doubles, SAFETENSORS_F64);
    EXPECT(doubles[0] == values[0] && doubles[1] == values[1], "%a %a", doubles[0], doubles[1]);

    static const uint16_t halves[] = { 0x3C00, 0xC100 };
    SafetensorsTensor two[] = { { "h", SAFETENSORS_F16, 1, (int[]){ 2 }, halves }, { "b", SAFETENSORS_BF16, 1, (int[]){ 1 }, halves } };
    EXPECT(write_and_compare(two, 2, NULL, 0, "{\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]},"
                             "\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[2,6]}}    ", "\0\x3c\0\x3c\0\xc1", 6), "%s", error);
}

// A tree, written and read again, is the same tree; a number stays what it was written as.
TEST(json_trees_are_written)
{
    static const char text[] = "{\"a\\n\": [1, -2, 18446744073709551615, 0.1, 1.0, 1e-05, 100000.0, 1e+300, true, false, null], "
                               "\"\": {\"b\": {}, \"c\": [], \"d\": \"\xc3\xa9\\u0001\"}}";
    Json *v = parse(text);
    char *written;
    size_t n;
    FILE *out = open_memstream(&written, &n);
    json_put(out, v);
    fclose(out);
    EXPECT(strcmp(written, text) == 0, "%s, not %s", written, text);
    free(written);
    json_free(v);
}

// Whatever is not known must be empty, wherever it stands.
TEST(json_unknown_keys)
{
    static const char *const known[] = { "a", "bc", NULL };
    static const struct { const char *text, *word; } cases[] = {
        { "{}", NULL }, { "{\"a\":1,\"bc\":[2]}", NULL }, { "{\"x\":null,\"y\":false,\"z\":\"\",\"u\":[],\"v\":{}}", NULL },
        { "{\"b\":1}", "\"b\"" }, { "{\"bcd\":1,\"a\":2}", "\"bcd\"" }, { "{\"a\":1,\"x\":0}", "\"x\"" }, { "{\"a\\u0000\":1}", "\"a" },
        { "{\"a\":1,\"x\\n\":true}", "\"x\\n\"" }, { "{\"x\":[null]}", "\"x\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Json *v = parse(cases[i].text);
        bool good = json_is_known(v, known, error, sizeof error);
        EXPECT(good == (cases[i].word == NULL) && (good || (strstr(error, cases[i].word) && !strchr(error, '\n'))), "%s: %s",
               cases[i].text, good ? "accepted" : error);
        json_free(v);
    }
}

// What Git leaves of a large file: both readers say so.
TEST(git_lfs_pointers)
{
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    char *path = in_directory("pointer");
    Safetensors *f;
    EXPECT(file_write_all(path, pointer, strlen(pointer), error, sizeof error), "%s", error);
    EXPECT(safetensors_open(path, &f, error, sizeof error) && strstr(error, "Git LFS pointer") && strstr(error, "git lfs pull"), "%s", error);
    EXPECT(!json_read(directory, "pointer", 1000, error, sizeof error) && strstr(error, "Git LFS pointer"), "%s", error);
    unlink(path);
}

// A save that died leaves its temporary files to be swept; that of a process which lives is being written.
TEST(only_the_files_of_the_dead_are_swept)
{
    char living[64], dead[64];
    pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
    snprintf(living, sizeof living, ".meltwater-%ld-0.tmp", (long)getppid()); // another process, which lives
    snprintf(dead, sizeof dead, ".meltwater-%ld-0.tmp", (long)child);
    const char *const names[] = { living, dead, ".meltwater-x-0.tmp", ".meltwater-1-0.tmpx" };
    for (int i = 0; i < 4; i++) EXPECT(file_write_all(in_directory(names[i]), "x", 1, error, sizeof error), "%s", error);
    file_sweep(directory);
    for (int i = 0; i < 4; i++)
        EXPECT((access(in_directory(names[i]), F_OK) == 0) == (i != 1), "%s is %s", names[i], i == 1 ? "still there" : "gone");
    for (int i = 0; i < 4; i++) unlink(in_directory(names[i]));
}

// ------------------------------------------------- what a save asks of the disk (file.c's calls come here)

typedef struct Event { char what; bool directory; char name[100]; } Event; // s: fsync, r: rename, u: unlink
static Event events[40];
static int event_count;

static Event *add_event(char what, const char *name)
{
    Event *e = &events[event_count < 39 ? event_count++ : 39];
    *e = (Event){ .what = what };
    snprintf(e->name, sizeof e->name, "%s", name);
    return e;
}

static int watched_fsync(int fd)
{
    char link[64], name[500] = "";
    struct stat info;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, sizeof name - 1);
    if (n < 0 || fstat(fd, &info) != 0) return -1;
    const char *slash = strrchr(name, '/');
    add_event('s', slash ? slash + 1 : name)->directory = S_ISDIR(info.st_mode);
    return fsync(fd);
}

static int watched_rename(const char *from, const char *to)
{
    const char *slash = strrchr(from, '/');
    add_event('r', slash ? slash + 1 : from);
    return rename(from, to);
}

// Each file once, before any takes its place; their directory once, after the last has.
TEST(a_save_syncs_files_then_renames_then_their_directory)
{
    for (int count = 1; count <= 5; count++) {
        FileWriter *writers[6] = { NULL };
        char name[20];
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "file-%d", i);
            writers[i] = file_write_begin(in_directory(name), error, sizeof error);
            EXPECT(writers[i] && file_write(writers[i], "x", 1), "%s", error);
        }
        event_count = 0;
        EXPECT(file_commit(writers, 6, error, sizeof error), "%s", error);
        EXPECT(event_count == 2 * count + 1, "%d files: %d calls", count, event_count);
        for (int i = 0; i < event_count && event_count == 2 * count + 1; i++) {
            const Event *e = &events[i];
            bool good = i < count ? e->what == 's' && !e->directory : i < 2 * count ? e->what == 'r' : e->what == 's' && e->directory;
            EXPECT(good, "%d files: call %d is %c of %s", count, i, e->what, e->name);
            if (i < count) EXPECT(strcmp(e->name, events[count + i].name) == 0, "synced %s, renamed %s", e->name, events[count + i].name);
        }
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "file-%d", i);
            unlink(in_directory(name));
        }
    }
}

TEST(safetensors_writes_the_reference_s_bytes)
{
    static const float six[] = { 0, 1, 2, 3, 4, 5 };
    static const unsigned char six_bytes[] = { 0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64, 0, 0, 160, 64 };
    SafetensorsMetadata framework = { "framework", "pt" };
    EXPECT(write_and_compare(NULL, 0, NULL, 0, "{}      ", "", 0), "empty: %s", error);
    EXPECT(write_and_compare(NULL, 0, &framework, 1, "{\"__metadata__\":{\"framework\":\"pt\"}}     ", "", 0), "pair: %s", error);
    SafetensorsTensor no_padding = { "attn.0", SAFETENSORS_F32, 3, (int[]){ 1, 2, 3 }, six };
    EXPECT(write_and_compare(&no_padding, 1, NULL, 0, "{\"attn.0\":{\"dtype\":\"F32\",\"shape\":[1,2,3],\"data_offsets\":[0,24]}}",
                             six_bytes, 24), "64 bytes: %s", error);
    SafetensorsTensor padding = { "attn0", SAFETENSORS_F32, 4, (int[]){ 1, 1, 2, 3 }, six };
    EXPECT(write_and_compare(&padding, 1, NULL, 0, "{\"attn0\":{\"dtype\":\"F32\",\"shape\":[1,1,2,3],\"data_offsets\":[0,24]}}       ",
                             six_bytes, 24), "72 bytes: %s", error);

    // Doubles before floats, then bytewise: 1 < 10 < 2, upper case before lower, non-ASCII last; scalars and empty tensors.
    static const double half[] = { 0.5 };
    SafetensorsTensor mixed[] = {
        { "\xc3\xa9\n\"", SAFETENSORS_F32, 0, NULL, six + 1 },  { "h.2", SAFETENSORS_F32, 2, (int[]){ 0, 7 }, NULL },
        { "h.10", SAFETENSORS_F32, 1, (int[]){ 1 }, six + 2 },  { "z", SAFETENSORS_F64, 1, (int[]){ 1 }, half },
        { "h.1", SAFETENSORS_F32, 1, (int[]){ 1 }, six + 3 },   { "Z", SAFETENSORS_F32, 1, (int[]){ 1 }, six + 4 },
    };
    SafetensorsMetadata two[] = { { "format", "pt" }, { "a\t", "\x01/\\" } };
    EXPECT(write_and_compare(mixed, 6, two, 2, "{\"__metadata__\":{\"a\\t\":\"\\u0001/\\\\\",\"format\":\"pt\"},"
                             "\"z\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                             "\"Z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]},"
                             "\"h.1\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]},"
                             "\"h.10\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[16,20]},"
                             "\"h.2\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[20,20]},"
                             "\"\xc3\xa9\\n\\\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[20,24]}}  ",
                             "\0\0\0\0\0\0\xe0\x3f\0\0\x80\x40\0\0\x40\x40\0\0\0\x40\0\0\x80\x3f", 24), "mixed: %s", error);
    EXPECT(strcmp(mixed[3].name, "z") == 0 && strcmp(two[0].key, "format") == 0, "the caller's lists were sorted");
}

// Bytes, more than one chunk of them; and what is read stops where the tensor does.
TEST(safetensors_bytes)
{
    enum { N = 70001 };
    unsigned char *bytes = malloc(N), *again = malloc(N + 1);
    char *path = in_directory("bytes");
    for (int i = 0; i < N; i++) bytes[i] = (unsigned char)(i * 7 ^ i >> 8);
    SafetensorsTensor tensors[] = { { "u", SAFETENSORS_U8, 1, (int[]){ N }, bytes }, { "i", SAFETENSORS_I8, 2, (int[]){ 2, 3 }, bytes + 5 },
                                    { "f", SAFETENSORS_F32, 1, (int[]){ 1 }, bytes } };
    Safetensors *file = NULL;
    EXPECT(!safetensors_write(path, tensors, 3, NULL, 0, error, sizeof error) && !safetensors_open(path, &file, error, sizeof error), "%s", error);
    EXPECT(strcmp(file->entries[0].name, "f") == 0 && file->entries[1].dtype == SAFETENSORS_I8 && file->entries[2].dtype == SAFETENSORS_U8, "the order");
    for (int t = 0; t < 2; t++) {
        const SafetensorsEntry *e = &file->entries[2 - t];
        memset(again, 0xAA, N + 1);
        EXPECT(!safetensors_read(file, e, again, e->dtype, error, sizeof error), "%s", error);
        EXPECT(memcmp(again, tensors[t].data, e->elements) == 0 && again[e->elements] == 0xAA, "%s: other bytes", e->name);
    }
    safetensors_close(file);
    unlink(path);
    free(bytes), free(again);
}

TEST(safetensors_refuses_to_write)
{
    static const float one[] = { 1 };
    char *path = in_directory("written");
    const struct { SafetensorsTensor t; SafetensorsError code; } bad[] = {
        { { "x", SAFETENSORS_F32, 1, (int[]){ -1 }, one }, SAFETENSORS_INVALID_TENSOR_VIEW },
        { { "x", SAFETENSORS_F32, 1, (int[]){ 1 }, NULL }, SAFETENSORS_INVALID_TENSOR_VIEW },
        { { "x", SAFETENSORS_I32, 1, (int[]){ 1 }, one }, SAFETENSORS_INVALID_TENSOR_VIEW },
        { { "x", SAFETENSORS_F32, 3, (int[]){ INT32_MAX, INT32_MAX, INT32_MAX }, one }, SAFETENSORS_INVALID_TENSOR_VIEW },
        { { "__metadata__", SAFETENSORS_F32, 1, (int[]){ 1 }, one }, SAFETENSORS_INVALID_TENSOR_VIEW },
        { { "same", SAFETENSORS_F64, 1, (int[]){ 0 }, one }, SAFETENSORS_JSON_ERROR },        // beside a float of that name
        { { "\xff", SAFETENSORS_F32, 1, (int[]){ 1 }, one }, SAFETENSORS_JSON_ERROR },
    };
    EXPECT(file_write_all(path, "old", 3, error, sizeof error), "%s", error);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        SafetensorsTensor pair[] = { bad[i].t, { "same", SAFETENSORS_F32, 1, (int[]){ 1 }, one } };
        error[0] = 0;
        SafetensorsError code = safetensors_write(path, pair, 2, NULL, 0, error, sizeof error);
        EXPECT(code == bad[i].code && one_line() && strstr(error, path), "case %zu: code %d: %s", i, code, error);
    }
    SafetensorsMetadata twice[] = { { "a", "1" }, { "a", "2" } }, raw = { "a", "\xff" };
    EXPECT(safetensors_write(path, NULL, 0, twice, 2, error, sizeof error) == SAFETENSORS_JSON_ERROR, "%s", error);
    EXPECT(safetensors_write(path, NULL, 0, &raw, 1, error, sizeof error) == SAFETENSORS_JSON_ERROR, "%s", error);
    for (size_t n = SAFETENSORS_MAX_HEADER / 5; n <= SAFETENSORS_MAX_HEADER; n *= 5) {   // first too long only when escaped
        char *value = malloc(n + 1);
        memset(value, n < SAFETENSORS_MAX_HEADER ? 1 : 'a', n);
        value[n] = 0;
        SafetensorsMetadata large = { "framework", value };
        EXPECT(safetensors_write(path, NULL, 0, &large, 1, error, sizeof error) == SAFETENSORS_HEADER_TOO_LARGE, "%s", error);
        free(value);
    }
    EXPECT(file_is(path, "old", 3) && count_files() == 1, "%d files", count_files());
    unlink(path);
}

TEST(safetensors_round_trip)
{
    enum { N = 70001 };                                         // more than one chunk, and no multiple of it
    float  *floats = malloc(N * sizeof *floats), *floats_again = malloc(N * sizeof *floats);
    double *doubles = malloc(N * sizeof *doubles), *doubles_again = malloc(N * sizeof *doubles);
    char *path = in_directory("trip");
    for (uint32_t i = 0, seed = 1; i < N; i++) {                // any bits at all, infinities and NaNs among them
        uint32_t low = seed = seed * 1664525u + 1013904223u, high = seed = seed * 1664525u + 1013904223u;
        uint64_t both = (uint64_t)high << 32 | low;
        memcpy(&floats[i], &low, 4);
        memcpy(&doubles[i], &both, 8);
    }
    floats[0] = INFINITY, floats[1] = -0.0f, floats[2] = NAN, floats[3] = 0x1p-149f;
    doubles[0] = 0.1, doubles[1] = 1e300, doubles[2] = -(double)INFINITY, doubles[3] = 0x1p-1074;
    SafetensorsTensor tensors[] = {
        { "f", SAFETENSORS_F32, 2, (int[]){ 1, N }, floats }, { "d", SAFETENSORS_F64, 2, (int[]){ N, 1 }, doubles },
    };
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { "step", "12" } };
    EXPECT(!safetensors_write(path, tensors, 2, metadata, 2, error, sizeof error), "%s", error);

    Safetensors *f;
    const SafetensorsEntry *e, *d = NULL;
    EXPECT(!safetensors_open(path, &f, error, sizeof error) && f->count == 2 && f->data_start % 8 == 0, "%s", error);
    EXPECT(strcmp(safetensors_metadata(f, "step"), "12") == 0 && !safetensors_metadata(f, "none"), "metadata");
    EXPECT(!safetensors_find(f, "f", &e, error, sizeof error) && !safetensors_find(f, "d", &d, error, sizeof error), "%s", error);
    EXPECT(safetensors_find(f, "g", &(const SafetensorsEntry *){ 0 }, error, sizeof error) == SAFETENSORS_TENSOR_NOT_FOUND, "found");
    EXPECT(strstr(error, "\"g\"") && strstr(error, path) && one_line(), "%s", error);
    EXPECT(safetensors_shape_is(e, 2, (int[]){ 1, N }) && !safetensors_shape_is(e, 2, (int[]){ N, 1 }) && e->elements == N, "shape");
    EXPECT(!safetensors_shape_is(e, 1, (int[]){ 1 }) && !safetensors_shape_is(d, 2, (int[]){ N, -1 }), "shape");
    EXPECT(!safetensors_read(f, e, floats_again, SAFETENSORS_F32, error, sizeof error), "%s", error);
    EXPECT(!safetensors_read(f, d, doubles_again, SAFETENSORS_F64, error, sizeof error), "%s", error);
    EXPECT(memcmp(floats, floats_again, N * sizeof *floats) == 0, "floats differ");
    EXPECT(memcmp(doubles, doubles_again, N * sizeof *doubles) == 0, "doubles differ");
    EXPECT(!safetensors_read(f, e, doubles_again, SAFETENSORS_F64, error, sizeof error), "%s", error);
    EXPECT(!safetensors_read(f, d, floats_again, SAFETENSORS_F32, error, sizeof error), "%s", error);
    int wrong = 0;
    for (int i = 0; i < N; i++)
        if (!same(doubles_again[i], (double)floats[i]) || !same((double)floats_again[i], (double)(float)doubles[i])) wrong++;
    EXPECT(wrong == 0, "%d conversions are wrong", wrong);
    EXPECT(floats_again[0] == 0.1f && floats_again[1] == INFINITY && floats_again[3] == 0, "%g", (double)floats_again[0]);
    EXPECT(truncate(path, 1000) == 0 && safetensors_read(f, e, floats_again, SAFETENSORS_F32, error, sizeof error)
           == SAFETENSORS_IO_ERROR && strstr(error, "shorter"), "%s", error);
    safetensors_close(f);
    safetensors_close(NULL);
    unlink(path);
    EXPECT(safetensors_open(path, &f, error, sizeof error) == SAFETENSORS_IO_ERROR && strstr(error, strerror(ENOENT)), "%s", error);
    EXPECT(safetensors_open(directory, &f, error, sizeof error) == SAFETENSORS_IO_ERROR && !f, "%s", error);
    free(floats), free(floats_again), free(doubles), free(doubles_again);
}

TEST(safetensors_survives_damage)
{
    static const float values[] = { 1, 2, 3, 4, 5, 6 };
    SafetensorsTensor tensors[] = {
        { "h.0.weight", SAFETENSORS_F32, 2, (int[]){ 2, 2 }, values }, { "h.0.bias", SAFETENSORS_F32, 1, (int[]){ 2 }, values + 4 },
    };
    SafetensorsMetadata metadata = { "format", "pt" };
    char *path = in_directory("whole"), *bytes;
    size_t n;
    EXPECT(!safetensors_write(path, tensors, 2, &metadata, 1, error, sizeof error), "%s", error);
    EXPECT(file_read(path, 1000, &bytes, &n, error, sizeof error), "%s", error);
    for (size_t cut = 0; cut < n; cut++) {
        SafetensorsError code = code_of(bytes, cut);
        EXPECT(code == (cut < 8 ? SAFETENSORS_HEADER_TOO_SMALL : cut < n - 24 ? SAFETENSORS_INVALID_HEADER_LENGTH
                        : SAFETENSORS_METADATA_INCOMPLETE_BUFFER), "cut at %zu of %zu: code %d", cut, n, code);
    }
    EXPECT(code_of(bytes, n) == SAFETENSORS_OK, "%s", error);
    int refused = 0;
    for (size_t at = 0; at < n - 24; at++)                      // any header byte changed: what is accepted can be read
        for (int change = 1; change < 256; change += 2) {
            Safetensors *f;
            float out[6];
            bytes[at] = (char)(bytes[at] ^ change);
            char *exact = malloc(n);                            // of the exact size, so that the sanitizer sees the end
            memcpy(exact, bytes, n);
            if (safetensors_parse(exact, n, "damaged", &f, error, sizeof error)) refused++;
            for (size_t i = 0; f && i < f->count; i++)
                if (f->entries[i].elements <= 6) safetensors_read(f, &f->entries[i], out, SAFETENSORS_F32, error, sizeof error);
            safetensors_close(f);
            free(exact);
            bytes[at] = (char)(bytes[at] ^ change);
        }
    EXPECT(refused > (int)(n - 24) * 128 / 2, "only %d damaged headers were refused", refused);
    free(bytes);
    unlink(path);
}

TEST(nothing_is_left_behind)
{
    EXPECT(rmdir(directory) == 0, "%s: %s", directory, strerror(errno));
}

int main(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%.300s/test_formats.XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(directory)) {
        printf("cannot make a directory like %s: %s\n", directory, strerror(errno));
        return 1;
    }
    RUN(files_are_read);
    RUN(files_are_replaced_at_once);
    RUN(failed_writes_leave_the_old_file);
    RUN(json_accepts);
    RUN(json_refuses);
    RUN(json_limits);
    RUN(json_values);
    RUN(json_strings_are_escaped);
    RUN(safetensors_refuses_with_the_reference_s_reason);
    RUN(safetensors_many_tensors_at_one_place);
    RUN(safetensors_types);
    RUN(safetensors_reads_all_halves);
    RUN(safetensors_rounds_to_halves);
    RUN(json_trees_are_written);
    RUN(json_unknown_keys);
    RUN(git_lfs_pointers);
    RUN(only_the_files_of_the_dead_are_swept);
    RUN(a_save_syncs_files_then_renames_then_their_directory);
    RUN(safetensors_writes_the_reference_s_bytes);
    RUN(safetensors_bytes);
    RUN(safetensors_refuses_to_write);
    RUN(safetensors_round_trip);
    RUN(safetensors_survives_damage);
    RUN(nothing_is_left_behind);
    return test_summary();
}
