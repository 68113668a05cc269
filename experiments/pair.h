// pair.h - two processes that train together: fork, a socket between them, and the sum of their gradients.
//
//     Link link = pair_begin();                                          // from here on there are two
//     ... training_step_in_parts(..., &(Parts){ 2, link.index, link.index + 1, pair_add_up, &link });
//     bool same = pair_end(&link, hash);                                 // one again; whether the other's hash was this one's
//
// Of each gradient process 0 adds up the first half, process 1 the second, both the gradient of process 0 first. It is what
// io/mpi/ranks.c does for any number of processes on any machines.

#ifndef PAIR_H
#define PAIR_H

#include "measure.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Link { int socket, index; int64_t sent; pid_t child; } Link; // sent: bytes of gradients, by this process

static inline Link pair_begin(void)
{
    int ends[2];
    fflush(stdout);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) die(EXIT_FAILED, "no connection between two processes");
    signal(SIGPIPE, SIG_IGN); // to write to a process that is gone is an error, which says so, and not the end
    pid_t child = fork();
    if (child < 0) die(EXIT_FAILED, "no second process");
    int index = child == 0;
    close(ends[1 - index]);
    return (Link){ ends[index], index, 0, child };
}

// All of it, in however many pieces; reading or writing.
static inline void pass_through(const Link *link, void *bytes, size_t size, bool out)
{
    for (size_t done = 0; done < size;) {
        char *at = (char *)bytes + done;
        ssize_t n = out ? write(link->socket, at, size - done) : read(link->socket, at, size - done);
        if (n <= 0) die(EXIT_FAILED, "the other process is gone");
        done += (size_t)n;
    }
}

// Process 0 speaks first, so that neither waits for the other to listen.
static inline void swap(const Link *link, void *mine, size_t size, void *theirs, size_t their_size)
{
    if (link->index == 0) pass_through(link, mine, size, true);
    pass_through(link, theirs, their_size, false);
    if (link->index == 1) pass_through(link, mine, size, true);
}

static inline void pair_add_up(void *context, Transformer *model, double *loss)
{
    Link *link = context;
    double theirs;
    for (int i = 0; i < model->parameter_count; i++) {
        const Tensor *t = model->parameters[i];
        if (t->grad == NULL) continue;
        int64_t half = t->size / 2, own = link->index ? t->size - half : half, other = t->size - own;
        real *mine = t->grad + (link->index ? half : 0), *others = t->grad + (link->index ? 0 : half);
        real *given = allocate((size_t)own, sizeof *given, "a gradient");
        swap(link, others, (size_t)other * sizeof(real), given, (size_t)own * sizeof(real));
        for (int64_t j = 0; j < own; j++) mine[j] = link->index == 0 ? mine[j] + given[j] : given[j] + mine[j];
        free(given);
        swap(link, mine, (size_t)own * sizeof(real), others, (size_t)other * sizeof(real));
        link->sent += (own + other) * (int64_t)sizeof(real);
    }
    swap(link, loss, sizeof *loss, &theirs, sizeof theirs);
    *loss = link->index == 0 ? *loss + theirs : theirs + *loss;
}

static inline bool pair_end(Link *link, uint64_t hash)
{
    uint64_t theirs;
    swap(link, &hash, sizeof hash, &theirs, sizeof theirs);
    if (link->index == 1) _exit(0);
    waitpid(link->child, NULL, 0);
    close(link->socket);
    return theirs == hash;
}

#endif
