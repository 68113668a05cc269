// save.c - see save.h.

#include "save.h"

#include "options.h"
#include "memory.h"

#include <stdlib.h>
#include <unistd.h>

bool save_begin(Save *save, const char *dir, char *error, size_t size)
{
    *save = (Save){ .dir = dir, .error = error, .size = size };
    if (!file_make_directories(dir, error, size)) return false;
    file_sweep(dir);
    return true;
}

bool directory_holds(const char *dir, const char *name)
{
    char path[FILE_PATH], why[160];
    return file_path(path, dir, name, why, sizeof why) && access(path, F_OK) == 0;
}

bool save_add(Save *save, FileWriter *writer)
{
    check(save->count < (int)(sizeof save->files / sizeof *save->files), "save_add: more than %d files", save->count);
    if (writer != NULL) save->files[save->count++] = writer;
    return writer != NULL;
}

bool save_end(Save *save, bool good)
{
    if (good) return file_commit(save->files, save->count, save->error, save->size);
    save_abort(save, false);
    return false;
}

bool save_abort(Save *save, bool good)
{
    for (int i = 0; i < save->count; i++) {
        good = good && file_written(save->files[i], save->error, save->size);
        file_write_abort(save->files[i]);
    }
    return good;
}

void document_open(Document *d)
{
    *d = (Document){ 0 };
    d->out = open_memstream(&d->text, &d->length);
    if (d->out == NULL) die(EXIT_FAILED, "out of memory: no room to save");
}

bool document_close(Document *d, char *error, size_t size)
{
    bool good = !ferror(d->out);
    good = fclose(d->out) == 0 && good;
    return good || fail(error, size, "out of memory: no room to save");
}

static bool file_is(const char *path, const char *bytes, size_t n)
{
    char *old, why[512];
    size_t length;
    if (!file_read(path, n, &old, &length, why, sizeof why)) return false;
    bool same = length == n && memcmp(old, bytes, n) == 0;
    free(old);
    return same;
}

bool save_document(Save *save, const char *name, Document *d)
{
    char path[FILE_PATH];
    bool good = document_close(d, save->error, save->size) && file_path(path, save->dir, name, save->error, save->size);
    if (good && !file_is(path, d->text, d->length)) {
        FileWriter *writer = file_write_begin(path, save->error, save->size);
        good = save_add(save, writer);
        if (good) file_write(writer, d->text, d->length); // whether it could is said at the end
    }
    free(d->text);
    return good;
}

int save_mark(Save *save)
{
    save->files[save->count] = NULL;
    return save->count++;
}

bool save_replace(Save *save, int mark, const char *tensors)
{
    char path[FILE_PATH];
    if (save->count == mark + 1) return true; // no document has changed
    if (!file_path(path, save->dir, tensors, save->error, save->size)) return false;
    save->files[mark] = file_remove_begin(path, save->error, save->size);
    return save->files[mark] != NULL;
}
