// programs.h - the programs in the process of a test: train, sample and adapter, each run in a child, with what it printed and
// said, and files in a directory of the test's own.

#ifndef PROGRAMS_H
#define PROGRAMS_H

#define main train_main
#include "../train.c"
#undef main
#define main sample_main
#include "../sample.c"
#undef main
#define main adapter_main
#include "../adapter.c"
#undef main

#include "child.h"
#include "directory.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>

static char root[300], message[1024];

static inline const char *in_root(const char *name) // one of sixteen buffers, used in turn
{
    static char paths[16][600];
    static int turn;
    char *path = paths[turn = (turn + 1) % 16];
    snprintf(path, sizeof paths[0], "%s/%s", root, name);
    return path;
}

static inline void must(bool good)
{
    if (good) return;
    printf("%s\n", message);
    exit(1);
}

static inline void copy_file(const char *from, const char *to)
{
    char *bytes;
    size_t size;
    must(file_read(from, 1 << 24, &bytes, &size, message, sizeof message));
    FILE *out = fopen(to, "wb");
    if (out == NULL || fwrite(bytes, 1, size, out) != size || fclose(out) != 0) perror(to), exit(1);
    free(bytes);
}

static inline void copy_directory(const char *from, const char *to) // of plain files
{
    remove_all(to);
    must(file_make_directories(to, message, sizeof message));
    DIR *d = opendir(from);
    for (struct dirent *e; d && (e = readdir(d)); ) {
        char a[900], b[900];
        if (e->d_name[0] == '.') continue;
        snprintf(a, sizeof a, "%s/%s", from, e->d_name);
        snprintf(b, sizeof b, "%s/%s", to, e->d_name);
        copy_file(a, b);
    }
    if (d) closedir(d);
}

// Whether the two hold the same files with the same bytes, apart from log.csv and metrics.json, which tell times. Names the first that differs in `message`.
static inline bool same_directory(const char *from, const char *to)
{
    int64_t files = 0;
    bool same = true;
    DIR *d = opendir(from);
    for (struct dirent *e; d && same && (e = readdir(d)); ) {
        char a[900], b[900], *x = NULL, *y = NULL;
        size_t n = 0, m = 0;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        files++;
        if (strcmp(e->d_name, "log.csv") == 0 || strcmp(e->d_name, "metrics.json") == 0) continue;
        snprintf(a, sizeof a, "%s/%s", from, e->d_name);
        snprintf(b, sizeof b, "%s/%s", to, e->d_name);
        same = file_read(a, 1 << 24, &x, &n, message, sizeof message) && file_read(b, 1 << 24, &y, &m, message, sizeof message) && n == m && memcmp(x, y, n) == 0;
        if (!same) snprintf(message, sizeof message, "%.200s differs", e->d_name);
        free(x), free(y);
    }
    if (d) closedir(d);
    d = opendir(to);
    while (d && readdir(d)) files--;
    if (d) closedir(d);
    if (same && files != -2) snprintf(message, sizeof message, "%" PRId64 " files more", -2 - files);
    return same && files == -2;
}

static inline bool one_line(const char *text) { return text[0] != '\0' && strchr(text, '\n') == text + strlen(text) - 1; }

static char arguments[80][600];
static char *vector[81];
static inline void arguments_are(const char *line) // words; @ at a word's start stands for the directory of this test
{
    int count = 0;
    vector[count] = strcpy(arguments[count], "program"), count++;
    for (const char *word = line; *word; ) {
        size_t length = strcspn(word, " ");
        if (word[0] == '@') snprintf(arguments[count], sizeof arguments[0], "%s/%.*s", root, (int)length - 1, word + 1);
        else snprintf(arguments[count], sizeof arguments[0], "%.*s", (int)length, word);
        vector[count] = arguments[count], count++;
        word += length + strspn(word + length, " ");
    }
    vector[count] = NULL;
}

static const char *prints_to = "/dev/null"; // where a program's standard output goes
static inline void quietly(void)
{
    int file = open(prints_to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || dup2(file, STDOUT_FILENO) < 0) _exit(98);
}

static inline int count_arguments(void)
{
    int count = 0;
    while (vector[count] != NULL) count++;
    optind = 1;
    return count;
}

static int (*program)(int argc, char **argv) = train_main;

static inline void program_deed(void)
{
    quietly();
    exit(program(count_arguments(), vector));
}

static inline int run(int (*main_)(int argc, char **argv), const char *line)
{
    program = main_;
    arguments_are(line);
    int status = in_child(program_deed);
    program = train_main;
    return status;
}
static inline int train(const char *line) { return run(train_main, line); }

static inline char *text_of(const char *path) // the caller's; "" if there is none
{
    static char *bytes;
    size_t size;
    if (!file_read(path, 1 << 24, &bytes, &size, message, sizeof message)) must((bytes = calloc(1, 1)) != NULL);
    return bytes;
}

// The directory, in memory where there is such a file system: disks take their time to replace a file. And a text.
static inline bool make_root(const char *name)
{
    const char *base = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/meltwater-%s-XXXXXX", base ? base : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", name);
    if (mkdtemp(root) == NULL) return perror(root), false;
    FILE *text = fopen(in_root("text.txt"), "w");
    for (int i = 0; text && i < 40; i++) fprintf(text, "The %d cats sat on \xc3\xa4 mat.\n", i * i % 97);
    return (text != NULL && fclose(text) == 0) || (perror(root), false);
}

#endif
