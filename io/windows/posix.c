// posix.c - what io/posix.h declares: for Windows alone.

#include <fcntl.h>
#include <io.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <windows.h>

#undef open
#undef fclose

// As open(), but so that an open file can be renamed, and removed.
int posix_open(const char *path, int flags, ...)
{
    bool writes = (flags & O_WRONLY) != 0;
    HANDLE handle = CreateFileA(path, writes ? GENERIC_WRITE : GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                NULL, flags & O_EXCL ? CREATE_NEW : OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    if (handle != INVALID_HANDLE_VALUE) return _open_osfhandle((intptr_t)handle, flags & (O_BINARY | O_WRONLY));
    DWORD why = GetLastError();
    errno = why == ERROR_FILE_NOT_FOUND || why == ERROR_PATH_NOT_FOUND ? ENOENT : why == ERROR_FILE_EXISTS ? EEXIST : EACCES;
    return -1;
}

// Takes the place of an existing file. One that is open can only be moved out of the way, and goes when it is closed.
int posix_rename(const char *from, const char *to)
{
    char aside[4096];
    if (MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) return 0;
    snprintf(aside, sizeof aside, "%s.old", to);
    if (MoveFileExA(to, aside, MOVEFILE_REPLACE_EXISTING) && MoveFileExA(from, to, MOVEFILE_WRITE_THROUGH)) {
        DeleteFileA(aside);
        return 0;
    }
    MoveFileExA(aside, to, 0);
    errno = EACCES;
    return -1;
}

// A stream into memory is a temporary file that is read when it is closed.
enum { STREAMS = 8 };
static struct { FILE *file; char **text; size_t *size; } streams[STREAMS];

FILE *posix_memstream(char **text, size_t *size)
{
    char *name = _tempnam(NULL, "melt");
    FILE *file = name == NULL ? NULL : fopen(name, "w+bTD"); // short-lived, and deleted on close
    free(name);
    for (int i = 0; file != NULL && i < STREAMS; i++)
        if (streams[i].file == NULL) {
            streams[i].file = file, streams[i].text = text, streams[i].size = size;
            return file;
        }
    if (file != NULL) fclose(file);
    return NULL;
}

int posix_fclose(FILE *file)
{
    bool good = true;
    for (int i = 0; i < STREAMS; i++) {
        if (file == NULL || streams[i].file != file) continue;
        streams[i].file = NULL;
        long length = fflush(file) == 0 ? ftell(file) : -1;
        char *text = length < 0 ? NULL : malloc((size_t)length + 1);
        rewind(file);
        good = text != NULL && fread(text, 1, (size_t)length, file) == (size_t)length;
        if (text != NULL) text[good ? length : 0] = '\0';
        *streams[i].text = text;
        *streams[i].size = good ? (size_t)length : 0;
    }
    return fclose(file) == 0 && good ? 0 : EOF;
}

int64_t posix_pread(int file, void *to, size_t size, int64_t offset)
{
    if (_lseeki64(file, offset, SEEK_SET) < 0) return -1;
    return _read(file, to, size < (1 << 30) ? (unsigned)size : 1u << 30);
}

int posix_sysconf(int what)
{
    SYSTEM_INFO info;
    (void)what; // the number of cores
    GetSystemInfo(&info);
    return (int)info.dwNumberOfProcessors;
}

int64_t posix_getline(char **line, size_t *room, FILE *file)
{
    size_t length = 0;
    for (int c = 0; c != '\n' && (c = getc(file)) != EOF;) {
        if (length + 2 > *room) {
            char *larger = realloc(*line, 2 * *room + 64);
            if (larger == NULL) return -1;
            *line = larger;
            *room = 2 * *room + 64;
        }
        (*line)[length++] = (char)c;
        (*line)[length] = '\0';
    }
    return length > 0 ? (int64_t)length : -1;
}
