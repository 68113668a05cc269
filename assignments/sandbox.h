// sandbox.h - a process that can do nothing but compute: what a student's code is compiled and run in.
//
// What it gets is set before the program begins, so before its main or any constructor. On Linux:
//     - system calls: a running solution can compute, ask for memory and write to what is open; it can open no file, start no process,
//       send no signal, reach no network, share no memory (a filter, which needs no privilege)
//     - if the grader is root, a user of its own that nobody else is; all that this user runs is ended afterwards
//     - a root directory of its own: an empty one for a solution that runs; for the compiler the system's and one to write to. That takes
//       root, or namespaces that need no privilege; so do a network and shared memory of its own
//     - limits on processor time, memory, processes, file size and descriptors, and no environment
// sandbox_says() tells which of these hold here. Elsewhere it is the limits alone, and it says so.

#ifndef SANDBOX_H
#define SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

typedef struct Sandbox {
    const char *directory; // where it is; the compiler may write there, a solution finds it empty
    bool compiler;         // it may start processes and read the system
    bool loader;           // not linked statically: it must read libraries before it begins
    int  input, output, said; // descriptors 0, 3, and 1 and 2
} Sandbox;

// Starts arguments[0] (a path); the process's id, or -1. sandbox_end ends what is left of it, once it has been waited for.
pid_t sandbox_start(const Sandbox *s, char *const *arguments);
void  sandbox_end(pid_t process);
// Gives the sandbox's user a directory, or a file.
void  sandbox_owns(const char *path);
const char *sandbox_says(void);

#endif
