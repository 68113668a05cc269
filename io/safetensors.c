// safetensors.c - the reader believes nothing that it has not checked; the writer gives the reference's bytes.
//
// Reading goes through one function, read_at, for files on disk and in memory; numbers are put together from bytes, so the
// machine's own byte order does not matter. `Report` carries where a message goes, and the file's name that begins it.

#include "safetensors.h"
#include "json.h"

#include <errno.h>
#include <math.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK 65536   // bytes converted at a time; a multiple of every element's size

static const struct { const char *name; unsigned bits; } dtypes[SAFETENSORS_DTYPES] = {
    [SAFETENSORS_BOOL]        = { "BOOL", 8 },        [SAFETENSORS_F4]          = { "F4", 4 },
    [SAFETENSORS_F6_E2M3]     = { "F6_E2M3", 6 },     [SAFETENSORS_F6_E3M2]     = { "F6_E3M2", 6 },
    [SAFETENSORS_U8]          = { "U8", 8 },          [SAFETENSORS_I8]          = { "I8", 8 },
    [SAFETENSORS_F8_E5M2]     = { "F8_E5M2", 8 },     [SAFETENSORS_F8_E4M3]     = { "F8_E4M3", 8 },
    [SAFETENSORS_F8_E8M0]     = { "F8_E8M0", 8 },     [SAFETENSORS_F8_E4M3FNUZ] = { "F8_E4M3FNUZ", 8 },
    [SAFETENSORS_F8_E5M2FNUZ] = { "F8_E5M2FNUZ", 8 }, [SAFETENSORS_I16]         = { "I16", 16 },
    [SAFETENSORS_U16]         = { "U16", 16 },        [SAFETENSORS_F16]         = { "F16", 16 },
    [SAFETENSORS_BF16]        = { "BF16", 16 },       [SAFETENSORS_I32]         = { "I32", 32 },
    [SAFETENSORS_U32]         = { "U32", 32 },        [SAFETENSORS_F32]         = { "F32", 32 },
    [SAFETENSORS_C64]         = { "C64", 64 },        [SAFETENSORS_F64]         = { "F64", 64 },
    [SAFETENSORS_I64]         = { "I64", 64 },        [SAFETENSORS_U64]         = { "U64", 64 },
};

const char *safetensors_dtype_name(SafetensorsDtype dtype) { return dtypes[dtype].name; }

typedef struct { const char *path; char *error; size_t error_size; } Report;

// Puts "path: message" into the error line and hands the code back. Names from files go through quote() first.
#if defined __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
static SafetensorsError refuse(const Report *r, SafetensorsError code, const char *format, ...)
{
    va_list arguments;
    int n = snprintf(r->error, r->error_size, "%s: ", r->path);
    va_start(arguments, format);
    if (n >= 0 && (size_t)n < r->error_size) vsnprintf(r->error + n, r->error_size - (size_t)n, format, arguments);
    va_end(arguments);
    return code;
}

typedef struct { char text[200]; } Quoted;
static Quoted quote(const char *name)   // in quotes and on one line, whatever it contains
{
    Quoted q;
    size_t n = json_escape(q.text, sizeof q.text, name, strlen(name));
    if (n >= sizeof q.text) memcpy(q.text + sizeof q.text - 5, "...\"", 5);
    return q;
}

static bool multiply(size_t a, size_t b, size_t *product)
{
    *product = a * b;
    return a == 0 || b <= SIZE_MAX / a;
}

static uint64_t load(const unsigned char *bytes, unsigned n)          // n bytes, the least significant first
{
    uint64_t value = 0;
    while (n-- > 0) value = value << 8 | bytes[n];
    return value;
}

static void store(unsigned char *bytes, unsigned n, uint64_t value)
{
    for (unsigned i = 0; i < n; i++) bytes[i] = (unsigned char)(value >> 8 * i);
}

static SafetensorsError read_at(const Safetensors *f, size_t offset, void *to, size_t n, const Report *r)
{
    if (f->fd < 0) memcpy(to, f->bytes + offset, n);
    for (size_t done = 0; f->fd >= 0 && done < n;) {
        ssize_t got = pread(f->fd, (char *)to + done, n - done, (off_t)(offset + done));
        if (got > 0) done += (size_t)got;
        else if (got == 0) return refuse(r, SAFETENSORS_IO_ERROR, "the file became shorter while it was read");
        else if (errno != EINTR) return refuse(r, SAFETENSORS_IO_ERROR, "cannot read: %s", strerror(errno));
    }
    return SAFETENSORS_OK;
}

// --- reading the header ---

static bool is_size(const Json *v) { return v->is_uint && v->uint_value <= SIZE_MAX; }

static SafetensorsError ill_formed(const Report *r, const Json *item, const char *why)
{
    return refuse(r, SAFETENSORS_INVALID_HEADER_DESERIALIZATION, "invalid JSON in header: %s at byte %zu of the header: %s",
                  quote(item->key).text, item->offset, why);
}

// {"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}; shapes go to *dims, which moves on. Other keys are passed over.
static SafetensorsError parse_entry(const Json *item, SafetensorsEntry *e, size_t **dims, const Report *r)
{
    const Json *dtype = json_get(item, "dtype"), *shape = json_get(item, "shape");
    const Json *offsets = json_get(item, "data_offsets");
    const char *why = item->type != JSON_OBJECT                      ? "a tensor must be an object"
                    : strlen(item->key) != item->key_length          ? "a name with a zero byte inside"
                    : !dtype || dtype->type != JSON_STRING           ? "\"dtype\" must be a string"
                    : !shape || shape->type != JSON_ARRAY            ? "\"shape\" must be an array"
                    : !offsets || offsets->type != JSON_ARRAY
                               || offsets->count != 2                ? "\"data_offsets\" must be an array of 2" : NULL;
    if (why) return ill_formed(r, item, why);

    e->name = item->key;
    while (e->dtype < SAFETENSORS_DTYPES && strcmp(dtypes[e->dtype].name, dtype->string) != 0) e->dtype++;
    if (e->dtype == SAFETENSORS_DTYPES || strlen(dtype->string) != dtype->length) why = "unknown \"dtype\"";
    e->ndim = shape->count;
    e->shape = *dims;
    for (const Json *dim = shape->child; dim; dim = dim->next) {
        if (!is_size(dim)) why = "\"shape\" must hold whole numbers, 0 or more";
        *(*dims)++ = (size_t)dim->uint_value;
    }
    if (!is_size(offsets->child) || !is_size(offsets->child->next))
        why = "\"data_offsets\" must hold whole numbers, 0 or more";
    e->begin = (size_t)offsets->child->uint_value;
    e->end = (size_t)offsets->child->next->uint_value;
    return why ? ill_formed(r, item, why) : SAFETENSORS_OK;
}

static int by_offset(const void *left, const void *right)
{
    const SafetensorsEntry *a = left, *b = right;
    int order = (a->begin > b->begin) - (a->begin < b->begin);
    if (order == 0) order = (a->end > b->end) - (a->end < b->end);
    return order ? order : strcmp(a->name, b->name);
}

// Every entry against its neighbour, its own shape and type, and the last one against the end of the file.
static SafetensorsError check_entries(Safetensors *f, const Report *r)
{
    size_t expected = 0, bits, available = f->size - f->data_start;
    for (SafetensorsEntry *e = f->entries; e < f->entries + f->count; e++) {
        const char *type = dtypes[e->dtype].name;
        Quoted name = quote(e->name);
        if (e->begin != expected || e->end < e->begin)
            return refuse(r, SAFETENSORS_INVALID_OFFSET, "invalid offset for tensor %s: [%zu, %zu] where byte %zu of the data is "
                          "next: a hole or an overlap", name.text, e->begin, e->end, expected);
        expected = e->end;
        bool fits = true;
        e->elements = 1;
        for (size_t i = 0; i < e->ndim && fits; i++) fits = multiply(e->elements, e->shape[i], &e->elements);
        if (!fits || !multiply(e->elements, dtypes[e->dtype].bits, &bits))
            return refuse(r, SAFETENSORS_VALIDATION_OVERFLOW, "overflow computing buffer size from shape and/or element type: "
                          "tensor %s at byte %zu of the data", name.text, e->begin);
        if (bits % 8 != 0)
            return refuse(r, SAFETENSORS_MISALIGNED_SLICE, "tensor %s at byte %zu of the data: %zu elements of type %s do not "
                          "end up at a byte boundary", name.text, e->begin, e->elements, type);
        if (e->end - e->begin != bits / 8)
            return refuse(r, SAFETENSORS_TENSOR_INVALID_INFO, "invalid shape, data type, or offset for tensor %s: %zu elements "
                          "of %s need %zu bytes, not [%zu, %zu]", name.text, e->elements, type, bits / 8, e->begin, e->end);
    }
    if (expected == available) return SAFETENSORS_OK;
    return refuse(r, SAFETENSORS_METADATA_INCOMPLETE_BUFFER, "incomplete metadata, file not fully covered: the tensors have %zu "
                  "bytes, the file has %zu from byte %zu on; %s", expected, available, f->data_start,
                  expected > available ? "it was cut short, get it again" : "something else was appended");
}

// The tree of a header of n bytes, to f->header.
static SafetensorsError parse_json(Safetensors *f, size_t n, const Report *r)
{
    char why[160], *text = malloc(n + 1);
    if (!text) return refuse(r, SAFETENSORS_IO_ERROR, "out of memory for a header of %zu bytes", n);
    SafetensorsError code = read_at(f, 8, text, n, r);
    size_t valid = code ? 0 : json_valid_utf8(text, n);
    if (!code && valid < n)
        code = refuse(r, SAFETENSORS_INVALID_HEADER, "invalid UTF-8 in header at byte %zu of the header", valid);
    if (!code && !(f->header = json_parse(text, n, why, sizeof why)))
        code = refuse(r, SAFETENSORS_INVALID_HEADER_DESERIALIZATION, "invalid JSON in header: %s of the header", why);
    if (!code && f->header->type != JSON_OBJECT)
        code = refuse(r, SAFETENSORS_INVALID_HEADER_DESERIALIZATION, "invalid JSON in header: it must be an object");
    free(text);
    return code;
}

static SafetensorsError parse_header(Safetensors *f, const Report *r)
{
    unsigned char first[8];
    if (f->size < 8)
        return refuse(r, SAFETENSORS_HEADER_TOO_SMALL, "header too small: %zu bytes are no safetensors file", f->size);
    SafetensorsError code = read_at(f, 0, first, 8, r);
    if (code) return code;
    if (load(first, 8) > SAFETENSORS_MAX_HEADER && memcmp(first, GIT_LFS_POINTER, 8) == 0)
        return refuse(r, SAFETENSORS_HEADER_TOO_LARGE, "a Git LFS pointer, not the file itself; get that with: git lfs pull");
    if (load(first, 8) > SAFETENSORS_MAX_HEADER)
        return refuse(r, SAFETENSORS_HEADER_TOO_LARGE, "header too large: the length at byte 0 is above %d; is this a "
                      "safetensors file?", SAFETENSORS_MAX_HEADER);
    size_t n = (size_t)load(first, 8);
    if (n > f->size - 8)
        return refuse(r, SAFETENSORS_INVALID_HEADER_LENGTH, "invalid header length: %zu bytes, but %zu follow; the file was "
                      "cut short, get it again", n, f->size - 8);
    f->data_start = 8 + n;
    if ((code = parse_json(f, n, r))) return code;

    size_t all_dims = 0;
    const Json *metadata = json_get(f->header, "__metadata__");
    for (const Json *item = f->header->child, *shape; item; item = item->next)
        if ((shape = json_get(item, "shape"))) all_dims += shape->count;
    size_t *dims = f->dims = malloc((all_dims + 1) * sizeof *dims);
    f->entries = calloc(f->header->count + 1, sizeof *f->entries);
    if (!f->dims || !f->entries) return refuse(r, SAFETENSORS_IO_ERROR, "out of memory for %zu tensors", f->header->count);
    for (const Json *item = f->header->child; item; item = item->next)
        if (item != metadata && (code = parse_entry(item, &f->entries[f->count++], &dims, r))) return code;
    if (metadata && metadata->type != JSON_OBJECT && metadata->type != JSON_NULL)
        return ill_formed(r, metadata, "it must be an object");
    for (const Json *pair = metadata ? metadata->child : NULL; pair; pair = pair->next)
        if (pair->type != JSON_STRING) return ill_formed(r, pair, "metadata must be strings");
    qsort(f->entries, f->count, sizeof *f->entries, by_offset);
    return check_entries(f, r);
}

// --- files, entries, values ---

// Takes over fd (-1: the file is in memory, at bytes).
static SafetensorsError new_file(int fd, const void *bytes, size_t size, Safetensors **file, const Report *r)
{
    Safetensors *f = *file = calloc(1, sizeof *f + strlen(r->path) + 1);
    if (!f) {
        if (fd >= 0) close(fd);
        return refuse(r, SAFETENSORS_IO_ERROR, "out of memory");
    }
    f->path = strcpy((char *)(f + 1), r->path);
    f->fd = fd;
    f->bytes = bytes;
    f->size = size;
    SafetensorsError code = parse_header(f, r);
    if (code) {
        safetensors_close(f);
        *file = NULL;
    }
    return code;
}

SafetensorsError safetensors_open(const char *path, Safetensors **file, char *error, size_t error_size)
{
    Report r = { path, error, error_size };
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);   // without O_NONBLOCK a pipe without writer would hang here
    *file = NULL;
    if (fd < 0 || fstat(fd, &info) != 0) {
        refuse(&r, SAFETENSORS_IO_ERROR, "cannot open: %s; check the name", strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        refuse(&r, SAFETENSORS_IO_ERROR, "not a regular file; give the name of a .safetensors file");
    } else {
        return new_file(fd, NULL, (size_t)info.st_size, file, &r);
    }
    if (fd >= 0) close(fd);
    return SAFETENSORS_IO_ERROR;
}

SafetensorsError safetensors_parse(const void *bytes, size_t n, const char *name, Safetensors **file, char *error,
                                   size_t error_size)
{
    Report r = { name, error, error_size };
    return new_file(-1, bytes, n, file, &r);
}

void safetensors_close(Safetensors *f)
{
    for (Safetensors *next; f; f = next) {
        next = f->next;
        if (f->fd >= 0) close(f->fd);
        json_free(f->header);
        free(f->dims);
        free(f->entries);
        free(f);
    }
}

SafetensorsError safetensors_find(const Safetensors *f, const char *name, const SafetensorsEntry **entry, char *error,
                                  size_t error_size)
{
    Report r = { f->path, error, error_size };
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->entries[i].name, name) == 0) {
            *entry = &f->entries[i];
            return SAFETENSORS_OK;
        }
    *entry = NULL;
    return refuse(&r, SAFETENSORS_TENSOR_NOT_FOUND, "tensor %s not found among the file's %zu", quote(name).text, f->count);
}

bool safetensors_shape_is(const SafetensorsEntry *e, int ndim, const int *shape)
{
    if (ndim < 0 || e->ndim != (size_t)ndim) return false;
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0 || e->shape[i] != (size_t)shape[i]) return false;
    return true;
}

const char *safetensors_metadata(const Safetensors *f, const char *key)
{
    const Json *value = json_get(json_get(f->header, "__metadata__"), key);
    return value ? value->string : NULL;
}

static float float_from_bits(uint64_t bits)
{
    uint32_t word = (uint32_t)bits;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

// Half precision: 1 bit sign, 5 exponent (bias 15), 10 mantissa. Every one of them is a float (8 exponent, bias 127, 23).
static float float_from_half(uint64_t half)
{
    uint64_t sign = (half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 0x3FF;
    if (exponent == 0) return (sign ? -0x1p-24f : 0x1p-24f) * (float)mantissa;                   // zero and subnormal
    if (exponent == 31) return float_from_bits(sign | 0x7F800000 | mantissa << 13);              // infinity and NaN
    return float_from_bits(sign | (exponent + 127 - 15) << 23 | mantissa << 13);
}

static bool is_float(SafetensorsDtype type)
{
    return type == SAFETENSORS_F16 || type == SAFETENSORS_BF16 || type == SAFETENSORS_F32 || type == SAFETENSORS_F64;
}

static bool is_byte(SafetensorsDtype type) { return type == SAFETENSORS_U8 || type == SAFETENSORS_I8; }

SafetensorsError safetensors_read(const Safetensors *f, const SafetensorsEntry *e, void *values, SafetensorsDtype as,
                                  char *error, size_t error_size)
{
    Report r = { f->path, error, error_size };
    unsigned char chunk[CHUNK];
    SafetensorsDtype type = e->dtype;
    unsigned width = dtypes[type].bits / 8;
    if (is_byte(type) && as == type) return read_at(f, f->data_start + e->begin, values, e->end - e->begin, &r);
    if (!is_float(type) || (as != SAFETENSORS_F32 && as != SAFETENSORS_F64))
        return refuse(&r, SAFETENSORS_INVALID_TENSOR_VIEW,
                      "tensor %s at byte %zu of the data is %s and cannot be read as %s; only "
                      "F16, BF16, F32 and F64 can be read",
                      quote(e->name).text, e->begin, dtypes[type].name, dtypes[as].name);
    size_t next = 0;                                                            // of values
    for (size_t at = e->begin, n; at < e->end; at += n) {
        n = e->end - at < CHUNK ? e->end - at : CHUNK;
        SafetensorsError code = read_at(f, f->data_start + at, chunk, n, &r);
        if (code) return code;
        for (size_t i = 0; i < n; i += width, next++) {
            uint64_t bits = load(chunk + i, width);
            float  single = type == SAFETENSORS_F16  ? float_from_half(bits)
                          : type == SAFETENSORS_BF16 ? float_from_bits(bits << 16)   // the upper half of a float
                                                     : float_from_bits(bits);
            double value;
            if (type == SAFETENSORS_F64) memcpy(&value, &bits, sizeof value);
            else value = (double)single;
            if (as == SAFETENSORS_F64) ((double *)values)[next] = value;
            else ((float *)values)[next] = type == SAFETENSORS_F64 ? (float)value : single;
        }
    }
    return SAFETENSORS_OK;
}

// --- writing ---

// The nearest number of 16 bits, of two equally near the one that ends in 0: F16 has a mantissa of 10 bits and exponents from
// -14, BF16 7 and from -126. One too large is infinity.
static uint16_t half_from_double(double value, SafetensorsDtype type)
{
    int mantissa = type == SAFETENSORS_F16 ? 10 : 7, least = type == SAFETENSORS_F16 ? -14 : -126, exponent;
    unsigned sign = signbit(value) ? 0x8000 : 0, infinity = type == SAFETENSORS_F16 ? 0x7C00 : 0x7F80;
    if (isnan(value)) return (uint16_t)(sign | infinity | 1u << (mantissa - 1));
    if (isinf(value)) return (uint16_t)(sign | infinity);
    frexp(value, &exponent);                                                     // |value| is in [2^(exponent-1), 2^exponent)
    exponent = value == 0 || exponent <= least ? least : exponent - 1;
    double steps = rint(ldexp(fabs(value), mantissa - exponent));                // from 2^mantissa on, the leading 1 is one exponent
    double bits = ldexp(exponent - least, mantissa) + steps;
    return (uint16_t)(sign | (bits < infinity ? (unsigned)bits : infinity));
}

void safetensors_convert(const void *values, SafetensorsDtype from, size_t n, void *to, SafetensorsDtype as)
{
    for (size_t i = 0; i < n; i++) {
        double value = from == SAFETENSORS_F64 ? ((const double *)values)[i] : (double)((const float *)values)[i];
        if (as == SAFETENSORS_F64) ((double *)to)[i] = value;
        else if (as == SAFETENSORS_F32) ((float *)to)[i] = (float)value;
        else ((uint16_t *)to)[i] = half_from_double(value, as);
    }
}

static int by_dtype_and_name(const void *left, const void *right)
{
    const SafetensorsTensor *a = left, *b = right;
    return a->dtype != b->dtype ? (a->dtype < b->dtype) - (a->dtype > b->dtype) : strcmp(a->name, b->name);
}

static int by_metadata_key(const void *left, const void *right)
{
    return strcmp(((const SafetensorsMetadata *)left)->key, ((const SafetensorsMetadata *)right)->key);
}

// The bytes of a tensor to write; false if it cannot be written.
static bool tensor_bytes(const SafetensorsTensor *t, size_t *bytes)
{
    bool good = is_float(t->dtype) || is_byte(t->dtype);
    *bytes = good ? dtypes[t->dtype].bits / 8 : 0;
    for (int i = 0; i < t->ndim && good; i++) good = t->shape[i] >= 0 && multiply(*bytes, (size_t)t->shape[i], bytes);
    return good && (*bytes == 0 || t->data);
}

static void put_header(FILE *out, const SafetensorsTensor *tensors, size_t count, const SafetensorsMetadata *metadata,
                       size_t pairs)
{
    const char *comma = "";
    size_t begin = 0, bytes;
    fputs(pairs > 0 ? "{\"__metadata__\":{" : "{", out);
    for (size_t i = 0; i < pairs; i++, comma = ",") {
        fputs(comma, out);
        json_put_text(out, metadata[i].key);
        fputc(':', out);
        json_put_text(out, metadata[i].value);
    }
    if (pairs > 0) fputc('}', out);
    for (const SafetensorsTensor *t = tensors; t < tensors + count; t++, comma = ",", begin += bytes) {
        fputs(comma, out);
        json_put_text(out, t->name);
        fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtypes[t->dtype].name);
        for (int i = 0; i < t->ndim; i++) fprintf(out, i > 0 ? ",%d" : "%d", t->shape[i]);
        tensor_bytes(t, &bytes);
        fprintf(out, "],\"data_offsets\":[%zu,%zu]}", begin, begin + bytes);
    }
    fputc('}', out);
    for (long n = ftell(out); n % 8 != 0; n++) fputc(' ', out);      // the data begins at a multiple of 8
}

static void write_values(FileWriter *w, const SafetensorsTensor *t)
{
    unsigned char chunk[CHUNK];
    unsigned width = dtypes[t->dtype].bits / 8;
    size_t bytes, next = 0;
    tensor_bytes(t, &bytes);
    while (next < bytes / width) {
        size_t n = 0;
        for (; n < CHUNK && next < bytes / width; n += width, next++) {
            uint8_t  byte = 0;
            uint16_t half = 0;
            uint32_t word = 0;
            uint64_t bits = 0;
            if (width == 1) byte = ((const uint8_t *)t->data)[next];
            else if (width == 2) memcpy(&half, (const uint16_t *)t->data + next, 2);
            else if (width == 4) memcpy(&word, (const float *)t->data + next, 4);
            else memcpy(&bits, (const double *)t->data + next, 8);
            store(chunk + n, width, width == 1 ? byte : width == 2 ? half : width == 4 ? word : bits);
        }
        if (!file_write(w, chunk, n)) return;        // commit will say why
    }
}

// Makes the header of sorted lists in memory (*header, the caller's to free) and checks it: what we could not read back
// must not be written.
static SafetensorsError make_header(const SafetensorsTensor *tensors, size_t count, const SafetensorsMetadata *metadata,
                                    size_t pairs, char **header, size_t *n, const Report *r)
{
    char why[160];
    size_t bytes, total = 0, text = 0;
    for (size_t i = 0; i < pairs; i++) text += strlen(metadata[i].key) + strlen(metadata[i].value);
    for (const SafetensorsTensor *t = tensors; t < tensors + count; t++) {
        if (!tensor_bytes(t, &bytes) || bytes > SIZE_MAX - total || strcmp(t->name, "__metadata__") == 0)
            return refuse(r, SAFETENSORS_INVALID_TENSOR_VIEW, "tensor %s cannot be written: impossible name, type (F16, BF16, "
                          "F32, F64, U8 and I8 will do), shape or data", quote(t->name).text);
        total += bytes;
        text += strlen(t->name);
    }
    if (text <= SAFETENSORS_MAX_HEADER) {            // the header is longer still; this spares the memory
        FILE *out = open_memstream(header, n);
        if (out) put_header(out, tensors, count, metadata, pairs);
        bool bad = !out || ferror(out);
        if (out && fclose(out) != 0) bad = true;
        if (bad) return refuse(r, SAFETENSORS_IO_ERROR, "out of memory for the header");
        text = *n;
    }
    if (text > SAFETENSORS_MAX_HEADER)
        return refuse(r, SAFETENSORS_HEADER_TOO_LARGE, "header too large: %zu bytes, the limit is %d", text,
                      SAFETENSORS_MAX_HEADER);
    Json *json = json_parse(*header, *n, why, sizeof why);
    json_free(json);
    if (json) return SAFETENSORS_OK;
    return refuse(r, SAFETENSORS_JSON_ERROR, "a name or metadata cannot be written: %s of the header", why);
}

SafetensorsError safetensors_write_begin(const char *path, const SafetensorsTensor *tensors, size_t count,
                                         const SafetensorsMetadata *metadata, size_t pairs, FileWriter **writer, char *error,
                                         size_t error_size)
{
    Report r = { path, error, error_size };
    SafetensorsTensor   *t = malloc((count + 1) * sizeof *t);         // sorted copies of the two lists
    SafetensorsMetadata *m = malloc((pairs + 1) * sizeof *m);
    SafetensorsError code = SAFETENSORS_IO_ERROR;
    unsigned char first[8];
    char  *header = NULL;
    size_t n = 0;
    if (t && count > 0) qsort(memcpy(t, tensors, count * sizeof *t), count, sizeof *t, by_dtype_and_name);
    if (m && pairs > 0) qsort(memcpy(m, metadata, pairs * sizeof *m), pairs, sizeof *m, by_metadata_key);
    if (!t || !m) refuse(&r, code, "out of memory");
    else code = make_header(t, count, m, pairs, &header, &n, &r);

    FileWriter *w = *writer = code ? NULL : file_write_begin(path, error, error_size);
    if (w) {
        store(first, 8, n);
        file_write(w, first, 8);
        file_write(w, header, n);
        for (size_t i = 0; i < count; i++) write_values(w, &t[i]);
    }
    if (!code && !w) code = SAFETENSORS_IO_ERROR;
    free(header);
    free(t);
    free(m);
    return code;
}

SafetensorsError safetensors_write(const char *path, const SafetensorsTensor *tensors, size_t count,
                                   const SafetensorsMetadata *metadata, size_t pairs, char *error, size_t error_size)
{
    FileWriter *w;
    SafetensorsError code = safetensors_write_begin(path, tensors, count, metadata, pairs, &w, error, error_size);
    return code || file_write_commit(w, error, error_size) ? code : SAFETENSORS_IO_ERROR;
}
