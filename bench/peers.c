// peers.c - see bench.h: programs beside ours, asked through pipes, and the files that they read.

#include "bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

void peer_end(Peer *peer)
{
    if (peer->pid == 0) return;
    close(peer->to);
    close(peer->from);
    kill(peer->pid, SIGTERM);
    waitpid(peer->pid, NULL, 0);
    peer->pid = 0;
}

void peer_fails(Peer *peer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(peer->why, sizeof peer->why, format, arguments);
    va_end(arguments);
    peer_end(peer);
}

// The next line of an answer: its first word, and what follows, which lasts until the next call. False: there is none.
static bool peer_line(Peer *peer, int timeout, char word[16], const char **rest)
{
    static const char *const words[] = { "ready", "loss", "seconds", "bytes", "skipped" };
    for (;;) {
        memmove(peer->line, peer->line + peer->taken, (size_t)(peer->filled -= peer->taken)); // the line before this one
        peer->taken = 0;
        char *end;
        while ((end = memchr(peer->line, '\n', (size_t)peer->filled)) == NULL) {
            struct pollfd ready = { .fd = peer->from, .events = POLLIN };
            int got = poll(&ready, 1, 1000 * timeout);
            if (got < 0 && errno == EINTR) continue;
            if (got == 0) { peer_fails(peer, "no answer within %d s", timeout); return false; }
            if (peer->filled == sizeof peer->line) peer->filled = 0; // too long to be an answer
            ssize_t count = read(peer->from, peer->line + peer->filled, sizeof peer->line - (size_t)peer->filled);
            if (count <= 0) return false;
            peer->filled += (int)count;
        }
        *end = '\0';
        peer->taken = (int)(end - peer->line) + 1;
        size_t length = strcspn(peer->line, " ");
        for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
            if (strlen(words[w]) != length || strncmp(peer->line, words[w], length) != 0) continue;
            snprintf(word, 16, "%s", words[w]);
            *rest = peer->line + length + (peer->line[length] == ' ');
            return true;
        }
    }
}

void peer_begin(Peer *peer, const char *const arguments[], const char *log)
{
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) die(EXIT_FAILED, "cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    peer->pid = fork();
    if (peer->pid < 0) die(EXIT_FAILED, "cannot start %s: %s", arguments[0], strerror(errno));
    if (peer->pid == 0) {
        int file = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (file < 0 || dup2(to[0], 0) < 0 || dup2(from[1], 1) < 0 || dup2(file, 2) < 0) _exit(126);
        close(to[1]);
        close(from[0]);
        execvp(arguments[0], (char *const *)(uintptr_t)arguments);
        fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    fcntl(to[1], F_SETFD, FD_CLOEXEC);
    fcntl(from[0], F_SETFD, FD_CLOEXEC);
    peer->to = to[1];
    peer->from = from[0];
    char word[16];
    const char *rest;
    if (!peer_line(peer, 120, word, &rest)) {
        if (peer->why[0] == '\0') peer_fails(peer, "%s did not start; see %s", arguments[0], log);
    } else if (strcmp(word, "ready") != 0) peer_fails(peer, "%.250s", rest);
    else snprintf(peer->name, sizeof peer->name, "%.120s", rest);
}

int peer_ask(Peer *peer, const char *expected, double *values, int most, char *why, size_t size, const char *format, ...)
{
    if (peer->pid == 0) { snprintf(why, size, "%s", peer->why); return 0; }
    char question[128], word[16], *end;
    const char *rest;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(question, sizeof question - 1, format, arguments);
    va_end(arguments);
    question[length++] = '\n';
    if (write(peer->to, question, (size_t)length) != length || !peer_line(peer, 300, word, &rest)) {
        if (peer->why[0] == '\0') peer_fails(peer, "it ended when asked to %.*s", length - 1, question);
        snprintf(why, size, "%s", peer->why);
        return 0;
    }
    if (strcmp(word, expected) != 0) { snprintf(why, size, "%.250s", rest); return 0; }
    int count = 0;
    for (; count < most; count++, rest = end) {
        values[count] = strtod(rest, &end);
        if (end == rest) break;
    }
    if (count == 0) snprintf(why, size, "it answered without a number");
    return count;
}

static FileWriter *begin_file(const char *path)
{
    char error[512];
    FileWriter *w = file_write_begin(path, error, sizeof error);
    if (w == NULL) die(EXIT_FAILED, "%s", error);
    return w;
}

static void end_file(FileWriter *w)
{
    char error[512];
    if (!file_write_commit(w, error, sizeof error)) die(EXIT_FAILED, "%s", error);
}

// llm.c's checkpoint, version 3: 256 ints, then all tensors of a kind together; its linear weights are [out, in].
void write_llmc(const Transformer *model, const char *path)
{
    const Config *c = &model->config;
    FileWriter *w = begin_file(path);
    int header[256] = { 20240326, 3, c->block_size, c->vocab_size, c->n_layer, c->n_head, c->n_embd, c->vocab_size };
    file_write(w, header, sizeof header);
    file_write(w, model->wte->data, sizeof(real) * (size_t)model->wte->size);
    file_write(w, model->wpe->data, sizeof(real) * (size_t)model->wpe->size);
    for (int kind = 0; kind < 12; kind++) // a block's tensors come in the order of GPT-2's state dict, here and there
        for (int block = 0; block < c->n_layer; block++) {
            const Tensor *t = model->parameters[2 + 12 * block + kind];
            if (t->ndim == 1) { file_write(w, t->data, sizeof(real) * (size_t)t->size); continue; }
            real *transposed = allocate((size_t)t->size, sizeof(real), "a weight");
            for (int i = 0; i < t->shape[0]; i++)
                for (int o = 0; o < t->shape[1]; o++) transposed[o * t->shape[0] + i] = t->data[i * t->shape[1] + o];
            file_write(w, transposed, sizeof(real) * (size_t)t->size);
            free(transposed);
        }
    file_write(w, model->ln_f_weight->data, sizeof(real) * (size_t)c->n_embd);
    file_write(w, model->ln_f_bias->data, sizeof(real) * (size_t)c->n_embd);
    end_file(w);
}

void write_batches(const Shape *shape, const char *path)
{
    int T = shape->config.block_size, n = shape->B * T;
    int *batch = allocate(2 * (size_t)n, sizeof *batch, "a batch");
    FileWriter *w = begin_file(path);
    for (int i = 0; i < BATCHES; i++) {
        text_batch(&shape->text, shape->B, T, SEED, i, batch, batch + n);
        file_write(w, batch, 2 * sizeof *batch * (size_t)n);
    }
    free(batch);
    end_file(w);
}
