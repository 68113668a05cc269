// fuzz_safetensors.c - any file: what is accepted must cover the file without holes, be readable, and be refused if cut short.
// The first byte says whether the rest is a whole file, or two bytes and a header, to which its length and zeros are added.

#include "fuzz.h"
#include "io/safetensors.h"

static void look(Safetensors *file)
{
    char error[600] = "";
    size_t end = 0;
    for (size_t i = 0; i < file->count; i++) {
        const SafetensorsEntry *e = &file->entries[i], *found;
        size_t product = 1;
        for (size_t k = 0; k < e->ndim; k++) product *= e->shape[k];
        check(e->begin == end && e->end >= e->begin && product == e->elements, "tensor %zu: its place or its size", i);
        end = e->end;
        check(!safetensors_find(file, e->name, &found, error, sizeof error) && found == e, "tensor %zu is not found", i);
        if (e->elements > 65536) continue;
        double *values = malloc((e->elements + 1) * sizeof *values);
        bool readable = e->dtype == SAFETENSORS_F16 || e->dtype == SAFETENSORS_BF16 || e->dtype == SAFETENSORS_F32
                     || e->dtype == SAFETENSORS_F64;
        for (int as = 0; as < 2; as++) {
            SafetensorsDtype type = as ? SAFETENSORS_F64 : SAFETENSORS_F32;
            SafetensorsError code = safetensors_read(file, e, values, type, error, sizeof error);
            check((code == SAFETENSORS_OK) == readable, "tensor %zu: %s", i, error);
        }
        bool bytes = e->dtype == SAFETENSORS_U8 || e->dtype == SAFETENSORS_I8;
        SafetensorsError code = safetensors_read(file, e, values, bytes ? e->dtype : SAFETENSORS_U8, error, sizeof error);
        check((code == SAFETENSORS_OK) == bytes, "tensor %zu, bytes: %s", i, error);
        free(values);
    }
    check(file->data_start + end == file->size, "the tensors end at %zu of %zu", file->data_start + end, file->size);
    (void)safetensors_metadata(file, "format");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char error[600] = "";
    if (n == 0) return 0;
    size_t size = n - 1;
    char *image = NULL;
    if (bytes[0] % 2 == 0 || n < 3) image = exact_copy(bytes + 1, size);
    else {
        size_t header = n - 3, data = bytes[1] + 256u * (bytes[2] % 16);
        size = 8 + header + data;
        image = calloc(size, 1);
        check(image != NULL, "out of memory");
        for (int i = 0; i < 8; i++) image[i] = (char)(header >> 8 * i & 255);
        memcpy(image + 8, bytes + 3, header);
    }
    Safetensors *file, *cut;
    SafetensorsError code = safetensors_parse(image, size, "input", &file, error, sizeof error);
    check((code == SAFETENSORS_OK) == (file != NULL), "code %d", code);
    if (code) check_message(error);
    else {
        look(file);
        code = safetensors_parse(image, size - 1, "input", &cut, error, sizeof error);
        check(code && cut == NULL, "accepted without its last byte");
    }
    safetensors_close(file);
    free(image);
    return 0;
}
