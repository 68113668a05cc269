// posix.h - what Windows and WASI (WebAssembly outside a browser) lack of POSIX, as far as it is used here. The Makefile has it
// included ahead of every file when it builds for them; no other system sees it. Neither can start processes as POSIX does, so
// demo, which forks, is not built there.

#ifndef POSIX_H
#define POSIX_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef __wasi__
#include <sys/stat.h>
#endif

#if defined _WIN32 || defined __wasi__
#define NO_PROCESSES // no fork, no signals from others

// A signal's handler, without masks and flags.
struct sigaction { void (*sa_handler)(int); int sa_flags; };
enum { SA_RESTART };
static inline int posix_sigaction(int number, const struct sigaction *action, struct sigaction *before)
{
    void (*old)(int) = signal(number, action == NULL ? SIG_IGN : action->sa_handler);
    if (action == NULL && old != SIG_ERR) signal(number, old); // only a question
    if (before != NULL) before->sa_handler = old;
    return old == SIG_ERR ? -1 : 0;
}
#define sigaction(number, action, before) posix_sigaction(number, action, before)

// Whether a process lives: not to be known, so it does.
#define kill(process, number) ((void)(process), 0)
// A new file has the permissions that new files have.
#define fchmod(file, mode) ((void)(mode), 0)
#endif

#ifdef _WIN32

#include <stdint.h>

// Blocks begin at a multiple of 16; a multiple of 64 would be a little faster, and not free()'s.
#define aligned_alloc(alignment, size) malloc(size)

// O_BINARY, for a line's end stays as it is; SIGHUP is SIGBREAK, and SIGPIPE never comes.
enum { O_CLOEXEC = 0x8000, O_NONBLOCK = 0, O_DIRECTORY = 0, SIGBUS = SIGSEGV, SIGHUP = 21, SIGPIPE = 13 };
#define fcntl(file, question)           ((void)(file), 0)
#define fsync(file)                     _commit(file)
#define mkdir(path, ...)                mkdir(path)
#define dirfd(directory)                (-1)
#define unlinkat(directory, name, flag) (-1)

int     posix_open(const char *path, int flags, ...);
int     posix_rename(const char *from, const char *to);
FILE   *posix_memstream(char **text, size_t *size);
int     posix_fclose(FILE *file);
int64_t posix_pread(int file, void *to, size_t size, int64_t offset);
int     posix_sysconf(int what);
int64_t posix_getline(char **line, size_t *room, FILE *file);

#define open(...)                   posix_open(__VA_ARGS__)
#define rename(from, to)            posix_rename(from, to)
#define open_memstream(text, size)  posix_memstream(text, size)
#define fclose(file)                posix_fclose(file)
#define pread(file, to, size, from) posix_pread(file, to, size, from)
#define sysconf(what)               posix_sysconf(what)
#define getline(line, room, file)   posix_getline(line, room, file)
enum { _SC_NPROCESSORS_ONLN };
#endif

#endif
