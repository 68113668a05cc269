// file.c - reading with a limit, and the atomic writer: write beside the target, sync, rename, sync the directory.
// Of several files all are synced before the first is renamed.
//
// A system call may be interrupted or do only a part of the work; the loops below go on until all is done. A writer keeps
// the errno of its first failure, so that its user has to look only once, at commit.

#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY ".meltwater-%ld-%d.tmp" // process and number

struct FileWriter {
    int  fd;                 // -1: commit removes the target
    int  old;                // the target as it was, held open during commit; -1: there is none
    int  failed;             // errno of the first failure; 0: none
    int  directory_length;   // path up to and with its last '/'; 0: it has none
    char *temporary;         // both names follow the struct in its memory
    char *path;
};

// Leaves one line for the user. Always false, so that callers can return it.
static bool explain(const char *what, const char *path, int number, char *error, size_t error_size)
{
    const char *hint = number == ENOENT || number == ENOTDIR ? "; check the name and its directory"
                     : number == EACCES || number == EROFS   ? "; check permissions or choose another place"
                     : number == ENOSPC || number == EFBIG   ? "; free some space or choose another place"
                     : number == EISDIR                      ? "; give the name of a file" : "";
    snprintf(error, error_size, "cannot %s %s: %s%s", what, path, strerror(number), hint);
    return false;
}

bool file_path(char path[FILE_PATH], const char *dir, const char *name, char *error, size_t error_size)
{
    if (snprintf(path, FILE_PATH, "%s/%s", dir, name) < FILE_PATH) return true;
    snprintf(error, error_size, "the path of %s is too long: %zu bytes, at most %d will do", name, strlen(dir), FILE_PATH - 64);
    return false;
}

bool file_read(const char *path, size_t max_bytes, char **bytes, size_t *size, char *error, size_t error_size)
{
    struct stat info;
    char  *data = NULL;
    size_t used = 0, room = 0, next = 1 << 16;
    int    failed = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    bool   too_large = false;

    *bytes = NULL;
    *size = 0;
    if (fd < 0 || fstat(fd, &info) != 0) failed = errno;
    else if (S_ISREG(info.st_mode)) {
        too_large = (uintmax_t)info.st_size > max_bytes;
        next = (size_t)info.st_size + 2;            // one more to meet the end of the file, one for the zero byte
    }
    while (!failed && !too_large) {
        if (used + 1 >= room) {                     // at the start; later only for pipes and files that grow
            char *larger = next > room ? realloc(data, next) : NULL;
            if (!larger) { failed = ENOMEM; break; }
            data = larger;
            room = next;
            next = 2 * room;
        }
        ssize_t n = read(fd, data + used, room - used - 1);
        if (n == 0) break;
        if (n > 0) used += (size_t)n;
        else if (errno != EINTR) failed = errno;
        too_large = used > max_bytes;
    }
    if (fd >= 0) close(fd);
    if (too_large) snprintf(error, error_size, "cannot read %s: it has more than the allowed %zu bytes", path, max_bytes);
    else if (failed) explain("read", path, failed, error, error_size);
    if (failed || too_large) {
        free(data);
        return false;
    }
    data[used] = 0;
    *bytes = data;
    *size = used;
    return true;
}

static FileWriter *new_writer(const char *path, char *error, size_t error_size)
{
    size_t room = strlen(path) + 64;
    FileWriter *w = calloc(1, sizeof *w + 2 * room);
    if (!w) {
        explain("write", path, ENOMEM, error, error_size);
        return NULL;
    }
    w->fd = w->old = -1;
    w->temporary = (char *)(w + 1);
    w->path = strcpy(w->temporary + room, path);
    const char *slash = strrchr(path, '/');
    w->directory_length = slash ? (int)(slash - path) + 1 : 0;
    memcpy(w->temporary, path, (size_t)w->directory_length);
    return w;
}

FileWriter *file_remove_begin(const char *path, char *error, size_t error_size) { return new_writer(path, error, error_size); }

FileWriter *file_write_begin(const char *path, char *error, size_t error_size)
{
    struct stat old;
    bool exists = stat(path, &old) == 0;
    if (exists && !S_ISREG(old.st_mode)) {          // renaming onto a device or a pipe would destroy it
        snprintf(error, error_size, "cannot write %s: it exists and is not a regular file; choose another name", path);
        return NULL;
    }
    FileWriter *w = new_writer(path, error, error_size);
    if (!w) return NULL;
    for (int k = 0; k < 1000; k++) {                // until a name is free: a process that died may have left one
        sprintf(w->temporary + w->directory_length, TEMPORARY, (long)getpid(), k);
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0 || errno != EEXIST) break;
    }
    if (w->fd < 0) {
        explain("write", path, errno, error, error_size);
        free(w);
        return NULL;
    }
    if (exists && fchmod(w->fd, old.st_mode & 0777) != 0) w->failed = errno;
    return w;
}

// 0, or why not all of it could be written.
static int write_all(int fd, const char *from, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, from, n);
        if (done > 0) {
            from += done;
            n -= (size_t)done;
        } else if (done == 0 || errno != EINTR) {
            return done == 0 ? EIO : errno;
        }
    }
    return 0;
}

bool file_write(FileWriter *w, const void *bytes, size_t n)
{
    if (!w->failed) w->failed = write_all(w->fd, bytes, n);
    return !w->failed;
}

bool file_printf(FileWriter *w, const char *format, ...)
{
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (n >= 0 && (size_t)n < sizeof text) return file_write(w, text, (size_t)n);
    if (!w->failed) w->failed = EOVERFLOW;          // half a text is worse than none
    return false;
}

static int sync_to_disk(int fd)
{
    int result;
    do result = fsync(fd); while (result != 0 && errno == EINTR);
    return result;
}

bool file_written(FileWriter *w, char *error, size_t error_size)
{
    if (!w || w->fd < 0) return true;
    if (!w->failed && sync_to_disk(w->fd) != 0) w->failed = errno;
    return !w->failed || explain("write", w->path, w->failed, error, error_size);
}

// The rename lasts once the directory is on the disk, too.
static bool sync_directory(const FileWriter *w, char *error, size_t error_size)
{
    bool good = true;
    w->temporary[w->directory_length] = 0;          // what remains is the directory
    int directory = open(w->directory_length ? w->temporary : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0 && sync_to_disk(directory) != 0 && errno != EINVAL)   // EINVAL: a file system without it
        good = explain("sync the directory of the new", w->path, errno, error, error_size);
    if (directory >= 0) close(directory);
    return good;
}

void (*file_commit_step)(int done);

bool file_commit(FileWriter *const *writers, int count, char *error, size_t error_size)
{
    bool good = true;
    int done = 0;
    for (int i = 0; i < count && good; i++) {
        FileWriter *w = writers[i];
        if (!w) continue;
        w->old = open(w->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); // so that freeing its bytes, which takes long, waits
        good = file_written(w, error, error_size);
    }
    for (; done < count && good; done++) {          // from here on nothing asks for room
        FileWriter *w = writers[done];
        if (file_commit_step) file_commit_step(done);
        if (w && (w->fd < 0 ? unlink(w->path) != 0 && errno != ENOENT : rename(w->temporary, w->path) != 0))
            good = explain(w->fd < 0 ? "remove" : "write", w->path, errno, error, error_size);
        if (!good) break;
    }
    const FileWriter *last = NULL;
    for (int i = 0; i < done; i++)
        if (writers[i]) last = writers[i];
    if (good && last) good = sync_directory(last, error, error_size);
    for (int i = 0; i < count; i++) {
        FileWriter *w = writers[i];
        if (w && w->old >= 0) close(w->old);
        if (i >= done) file_write_abort(w);
        else if (w) {
            if (w->fd >= 0) close(w->fd);           // its bytes are on the disk: close has nothing left to report
            free(w);
        }
    }
    return good;
}

bool file_write_commit(FileWriter *w, char *error, size_t error_size) { return file_commit(&w, 1, error, error_size); }

void file_write_abort(FileWriter *w)
{
    if (!w) return;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->temporary);
    }
    free(w);
}

void file_sweep(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        long process;
        int number, end = 0;
        if (sscanf(e->d_name, TEMPORARY "%n", &process, &number, &end) != 2 || end == 0 || e->d_name[end] != 0) continue;
        if (process > 0 && kill((pid_t)process, 0) != 0 && errno == ESRCH) unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d) closedir(d);
}

bool file_append(const char *path, const void *bytes, size_t n, char *error, size_t error_size)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    int failed = fd < 0 ? errno : write_all(fd, bytes, n);
    if (fd >= 0 && close(fd) != 0 && !failed) failed = errno;
    return !failed || explain("write", path, failed, error, error_size);
}

bool file_write_all(const char *path, const void *bytes, size_t n, char *error, size_t error_size)
{
    FileWriter *w = file_write_begin(path, error, error_size);
    if (!w) return false;
    file_write(w, bytes, n);
    return file_write_commit(w, error, error_size);
}

bool file_make_directories(const char *dir, char *error, size_t error_size)
{
    char path[4096];
    struct stat info;
    int length = snprintf(path, sizeof path, "%s", dir);
    if (length == 0 || length >= (int)sizeof path) {
        snprintf(error, error_size, length == 0 ? "the name of the directory is empty; for the present one write ."
                                                : "the path of the directory is too long: %d bytes", length);
        return false;
    }
    for (char *end = path; *end != '\0'; ) { // a, a/b, a/b/c
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char after = *end;
        *end = '\0';
        int failed = mkdir(path, 0777) == 0 ? 0 : errno;
        if (failed && (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)))
            return explain("make the directory", path, failed == EEXIST ? ENOTDIR : failed, error, error_size);
        *end = after;
    }
    return true;
}
