// safetensors.h - reads and writes the tensor files of the Hugging Face world.
//
// A file is 8 bytes N (little-endian), N bytes of JSON header, then the data of all tensors, row-major and little-endian:
//
//     {"__metadata__":{"format":"pt"},"wte":{"dtype":"F32","shape":[65,128],"data_offsets":[0,33280]}, ...}
//
// Reading:
//     Safetensors *file;
//     if (safetensors_open("model.safetensors", &file, error, sizeof error)) ...         // 0 is success
//     const SafetensorsEntry *e;
//     if (safetensors_find(file, "wte", &e, error, sizeof error)) ...              // or loop over file->entries
//     if (!safetensors_shape_is(e, 2, (int[]){ 65, 128 })) ...                            // then e->elements is 65 * 128
//     if (safetensors_read(file, e, values, SAFETENSORS_F32, error, sizeof error)) ...    // into your array
//     safetensors_close(file);
//
// A header is believed only as far as it was checked: open compares every offset with shapes, neighbours and the file's
// size. The checks, their order and their names are those of the reference implementation. Stricter than it: a tensor name
// or any other key given twice, a tensor not given as an object or a type not as a string, a name with a zero byte inside,
// and what json.h limits.
// Every function returns SAFETENSORS_OK (0) or what is wrong, and then one line in `error` with file, tensor and place.

#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_MAX_HEADER 100000000   // bytes of JSON, in files read and written

typedef enum {                             // the reference's names
    SAFETENSORS_OK,
    SAFETENSORS_HEADER_TOO_SMALL,              // the file has less than 8 bytes
    SAFETENSORS_HEADER_TOO_LARGE,              // N > SAFETENSORS_MAX_HEADER
    SAFETENSORS_INVALID_HEADER_LENGTH,         // the file ends inside its header
    SAFETENSORS_INVALID_HEADER,                // not UTF-8
    SAFETENSORS_INVALID_HEADER_DESERIALIZATION,// not JSON, or not JSON of this form
    SAFETENSORS_INVALID_OFFSET,                // a tensor does not begin where the one before it ends: hole or overlap
    SAFETENSORS_VALIDATION_OVERFLOW,           // more elements or bits than a size_t can count
    SAFETENSORS_MISALIGNED_SLICE,              // 4- or 6-bit elements that do not fill their last byte
    SAFETENSORS_TENSOR_INVALID_INFO,           // shape and type need another number of bytes than the offsets give
    SAFETENSORS_METADATA_INCOMPLETE_BUFFER,    // data missing at the end of the file, or bytes that belong to no tensor
    SAFETENSORS_TENSOR_NOT_FOUND,
    SAFETENSORS_INVALID_TENSOR_VIEW,           // cannot be written, or its type cannot be read
    SAFETENSORS_IO_ERROR,                      // the system said no (memory, too)
    SAFETENSORS_JSON_ERROR,                    // writing: text that is not UTF-8
} SafetensorsError;

typedef enum {                             // ascending in alignment; the writer puts later ones first
    SAFETENSORS_BOOL, SAFETENSORS_F4, SAFETENSORS_F6_E2M3, SAFETENSORS_F6_E3M2, SAFETENSORS_U8, SAFETENSORS_I8,
    SAFETENSORS_F8_E5M2, SAFETENSORS_F8_E4M3, SAFETENSORS_F8_E8M0, SAFETENSORS_F8_E4M3FNUZ, SAFETENSORS_F8_E5M2FNUZ,
    SAFETENSORS_I16, SAFETENSORS_U16, SAFETENSORS_F16, SAFETENSORS_BF16, SAFETENSORS_I32, SAFETENSORS_U32, SAFETENSORS_F32,
    SAFETENSORS_C64, SAFETENSORS_F64, SAFETENSORS_I64, SAFETENSORS_U64, SAFETENSORS_DTYPES
} SafetensorsDtype;

const char *safetensors_dtype_name(SafetensorsDtype dtype);   // "F32"

typedef struct {                           // one tensor of an open file
    const char      *name;
    SafetensorsDtype dtype;
    size_t           ndim;                 // 0: a single number; any number of dimensions is legal
    const size_t    *shape;                // outermost first; a 0 makes the tensor empty
    size_t           elements;             // product of shape
    size_t           begin, end;           // bytes in the data; [begin, end) starts at the file's byte data_start + begin
} SafetensorsEntry;

typedef struct Safetensors {               // an open file; all it points to lives until safetensors_close
    char                *path;             // for messages
    int                  fd;               // -1: the file is in memory, at bytes
    const unsigned char *bytes;
    size_t               size, data_start; // of the whole file; where the data begins
    size_t               count;
    SafetensorsEntry    *entries;          // sorted as their data is: by begin, end, name
    size_t              *dims;             // the memory behind all shapes
    struct Json         *header;           // the memory behind names and metadata
    struct Safetensors  *next;             // the caller's, for tensors in several files: another of them, which close closes, too
} Safetensors;

// Opens and checks a file. Only the header is read now. On error *file is NULL.
SafetensorsError safetensors_open(const char *path, Safetensors **file, char *error, size_t error_size);

// The same for a file in memory. The bytes stay the caller's and must live as long as *file. `name` is for messages.
SafetensorsError safetensors_parse(const void *bytes, size_t n, const char *name, Safetensors **file, char *error,
                                   size_t error_size);
void safetensors_close(Safetensors *file);   // NULL is fine

SafetensorsError safetensors_find(const Safetensors *file, const char *name, const SafetensorsEntry **entry, char *error,
                                  size_t error_size);
bool safetensors_shape_is(const SafetensorsEntry *entry, int ndim, const int *shape);

// The metadata value of that key, or NULL.
const char *safetensors_metadata(const Safetensors *file, const char *key);

// Reads one tensor into values[0..entry->elements), the caller's array: floats if `as` is SAFETENSORS_F32, doubles if it is
// SAFETENSORS_F64. The file's type may be F16, BF16, F32 or F64; values are kept exactly, but F64 into floats rounds to
// nearest and overflows to infinity. U8 and I8 are read as themselves only, as bytes. On error the array holds what was read so far.
SafetensorsError safetensors_read(const Safetensors *file, const SafetensorsEntry *entry, void *values, SafetensorsDtype as,
                                  char *error, size_t error_size);

typedef struct {                           // one tensor to write
    const char      *name;                 // UTF-8
    SafetensorsDtype dtype;                // what data points to: F32 floats, F64 doubles, F16 and BF16 the bits as uint16_t, U8 and I8 bytes
    int              ndim;
    const int       *shape;                // [ndim]
    const void      *data;                 // may be NULL if the tensor is empty
} SafetensorsTensor;

typedef struct { const char *key, *value; } SafetensorsMetadata;

// The n numbers at `values`, floats or doubles (`from` F32 or F64), as what a tensor of type `as` points to: each rounded once, to
// the nearest; of two equally near, to the even one.
void safetensors_convert(const void *values, SafetensorsDtype from, size_t n, void *to, SafetensorsDtype as);

// Writes a file, atomically (file.h). Order and bytes are those of safetensors.torch.save_file, whatever the order of the
// list: type descending, then name bytewise, header padded with spaces to 8 bytes. metadata[pairs] is sorted by key, and
// left out if pairs is 0; always give {"format", "pt"}, other libraries ask for it. On error the target is as before.
SafetensorsError safetensors_write(const char *path, const SafetensorsTensor *tensors, size_t count,
                                   const SafetensorsMetadata *metadata, size_t pairs, char *error, size_t error_size);

// The same, but without the last step: *writer is to be committed, with others perhaps; NULL on error.
SafetensorsError safetensors_write_begin(const char *path, const SafetensorsTensor *tensors, size_t count,
                                         const SafetensorsMetadata *metadata, size_t pairs, FileWriter **writer, char *error,
                                         size_t error_size);

#endif
