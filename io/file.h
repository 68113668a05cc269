// file.h - whole files in, whole files out.
//
// Reading: file_read puts a file into memory, with a limit. Writing: a FileWriter collects the new content in a temporary
// file beside the target and commit renames it, so whoever opens the target sees the old content or the new, never half:
//
//     FileWriter *w = file_write_begin("out/config.json", error, sizeof error);
//     if (!w) ...                                       // nothing happened; error says why
//     file_printf(w, "{\"n_layer\": %d}\n", n_layer);    // failures are remembered until commit
//     if (!file_write_commit(w, error, sizeof error)) ...
//
// Files that belong together are committed together: file_commit brings all of them to the disk before it renames the first,
// so that nothing has changed if there is no room, and a crash finds at most the few microseconds between two renames.
//
// Every function that can fail takes `error, error_size` and leaves one line there, without program name and newline:
// what, path, the system's reason and what to do. On success `error` is not touched.

#ifndef FILE_H
#define FILE_H

#include <stdbool.h>
#include <stddef.h>

enum { FILE_PATH = 4096 };   // room for a path

#define GIT_LFS_POINTER "version https://git-lfs" // so begins what Git leaves of a large file that was not fetched

// Writes DIR/NAME into path; false if that is too long.
bool file_path(char path[FILE_PATH], const char *dir, const char *name, char *error, size_t error_size);

// Reads all of `path` (a pipe will do as well) if it has at most max_bytes bytes. *bytes is the caller's to free; a zero
// byte that does not count in *size follows the content. False: *bytes is NULL and *size 0. A regular file's size is held
// against the limit before memory is asked for.
bool file_read(const char *path, size_t max_bytes, char **bytes, size_t *size, char *error, size_t error_size);

// Makes `dir` and the directories above it that are missing. One that exists is fine.
bool file_make_directories(const char *dir, char *error, size_t error_size);

typedef struct FileWriter FileWriter;

// Creates the temporary file in the directory of `path`. NULL on error; also where `path` exists and is no regular file.
// An existing file's permissions carry over. A symbolic link at `path` will be replaced, not followed.
FileWriter *file_write_begin(const char *path, char *error, size_t error_size);

// Append bytes, or formatted text of at most 4095 bytes (a longer one counts as a failure). Each call goes straight to
// the system, there is no buffer. After the first failure they do nothing, and write no message: that is commit's. Their
// result is useful only to stop early.
bool file_write(FileWriter *w, const void *bytes, size_t n);
#if defined __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
bool file_printf(FileWriter *w, const char *format, ...);

// Brings all to the disk; false, after one line, if that or any write before failed. NULL: true.
bool file_written(FileWriter *w, char *error, size_t error_size);

// A writer that removes `path` when it is committed, if there is such a file.
FileWriter *file_remove_begin(const char *path, char *error, size_t error_size);

// Brings everything to the disk, then renames onto the targets, all in one directory, in the order of the list (NULLs are
// passed over). False if this or any write before failed: the temporary files are gone and the targets are what they were.
// (Exceptions, which the message states: a rename failed, and those before it are done; or all are, but a directory could not
// be synced.) Frees all writers in any case.
bool file_commit(FileWriter *const *writers, int count, char *error, size_t error_size);
bool file_write_commit(FileWriter *w, char *error, size_t error_size); // of one

// For tests that let a process die between two renames: if not NULL, it is called before each, with how many are done.
extern void (*file_commit_step)(int done);

// Forgets what was written, leaves the target alone, frees w. w may be NULL.
void file_write_abort(FileWriter *w);

// Removes the temporary files in `dir` whose writers were killed: those of processes that are no more.
void file_sweep(const char *dir);

// Adds n bytes to the end of a file, which is made if there is none.
bool file_append(const char *path, const void *bytes, size_t n, char *error, size_t error_size);

// Begin, write n bytes and commit in one call.
bool file_write_all(const char *path, const void *bytes, size_t n, char *error, size_t error_size);

#endif
