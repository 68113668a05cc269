// grade.c - runs each task's exercise in a process of its own, compares the numbers that it hands over, and awards the points.
//
//     grade [--seed N] [--json FILE] LIST      LIST has one line for each task (grade.sh writes it), of fields between tabs:
//                                              task, points, function, file:line, title, program, program with a bug, why there is none
//     grade --examples SEED                    the published numbers of Lab 3, for a handout
//
// What is expected comes from here alone: from a forward pass in plain loops and central differences of it, or from properties that a
// right answer has. The student's process knows none of it. It gets a pipe, processor time, memory and no files; an answer counts only
// if the process came to its end by itself, said so, and every array is there. Points are those of the markers in the sources; each
// check has a weight, and a task earns its points in proportion.

#include "exercise.h"

#include "chain.h"
#include "lab3.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CPU_SECONDS = 5, WALL_SECONDS = 60, MEMORY_BYTES = 1 << 30, MOST_ANSWERS = 1 << 22, MOST_SAID = 4000, MOST_TASKS = 64 };

typedef struct Task { char id[16], function[64], place[128], title[128], program[512], buggy[512], reason[512]; double points, earned; char text[8192]; } Task;

static uint64_t seed = 1;

// Room for `count` zeros, until the task is judged.
typedef struct Room { struct Room *before; double numbers[]; } Room;
static Room *rooms;

static double *room(long count)
{
    Room *r = calloc(1, sizeof *r + (size_t)count * sizeof(double));
    check(r != NULL, "out of memory");
    r->before = rooms;
    rooms = r;
    return r->numbers;
}

static void leave_rooms(void)
{
    while (rooms != NULL) {
        Room *before = rooms->before;
        free(rooms);
        rooms = before;
    }
}

// ------------------------------------------------------------------------------------------------------ running a student's code

typedef struct Answers {
    char *bytes;                // what the process handed over
    size_t size, at;
    char said[MOST_SAID + 1];   // the beginning of what it printed, which counts for nothing
    char how[200];              // how it ended, if not well; else empty
    int  status;
} Answers;

static void limited(int resource, rlim_t value) { setrlimit(resource, &(struct rlimit){ value, value }); }

_Noreturn static void become(const char *program, const char *task, int answers, int said)
{
    char number[32], descriptor[16];
    snprintf(number, sizeof number, "%llu", (unsigned long long)seed);
    snprintf(descriptor, sizeof descriptor, "%d", answers);
    setpgid(0, 0);
    int nothing = open("/dev/null", O_RDONLY);
    dup2(nothing, STDIN_FILENO);
    dup2(said, STDOUT_FILENO);
    dup2(said, STDERR_FILENO);
    close(nothing);
    close(said);
    if (chdir("/") != 0) _exit(126);
    limited(RLIMIT_CPU, CPU_SECONDS);
    limited(RLIMIT_AS, MEMORY_BYTES);
    limited(RLIMIT_FSIZE, 0);
    limited(RLIMIT_CORE, 0);
    char *arguments[] = { (char *)(uintptr_t)program, (char *)(uintptr_t)task, number, descriptor, NULL }, *environment[] = { NULL };
    execve(program, arguments, environment);
    _exit(127);
}

static Answers run(const char *program, const char *task)
{
    Answers a = { .bytes = malloc(MOST_ANSWERS) };
    int answers[2], said[2];
    check(a.bytes != NULL && pipe(answers) == 0 && pipe(said) == 0, "no pipe: %s", strerror(errno));
    fcntl(answers[0], F_SETFD, FD_CLOEXEC);
    fcntl(said[0], F_SETFD, FD_CLOEXEC);
    pid_t child = fork();
    check(child >= 0, "no process: %s", strerror(errno));
    if (child == 0) become(program, task, answers[1], said[1]);
    close(answers[1]);
    close(said[1]);

    struct pollfd ends[2] = { { answers[0], POLLIN, 0 }, { said[0], POLLIN, 0 } };
    double deadline = seconds_now() + WALL_SECONDS;
    size_t heard = 0;
    bool late = false, flood = false;
    while ((ends[0].fd >= 0 || ends[1].fd >= 0) && !late && !flood) {
        if (poll(ends, 2, 100) < 0 && errno != EINTR) break;
        late = seconds_now() > deadline;
        for (int i = 0; i < 2; i++) {
            if (ends[i].fd < 0 || !(ends[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
            char buffer[65536];
            ssize_t got = read(ends[i].fd, buffer, sizeof buffer);
            if (got <= 0) { ends[i].fd = -1; continue; }
            if (i == 0) {
                flood = a.size + (size_t)got > MOST_ANSWERS;
                if (flood) break;
                memcpy(a.bytes + a.size, buffer, (size_t)got);
                a.size += (size_t)got;
            } else {
                size_t room = MOST_SAID - heard, part = (size_t)got < room ? (size_t)got : room;
                memcpy(a.said + heard, buffer, part);
                heard += part;
            }
        }
    }
    close(answers[0]);
    close(said[0]);
    if (late || flood) kill(child, SIGKILL);
    while (waitpid(child, &a.status, 0) < 0 && errno == EINTR) ;
    kill(-child, SIGKILL); // whatever it left behind
    if (late) snprintf(a.how, sizeof a.how, "it was not at its end after %d s", WALL_SECONDS);
    else if (flood) snprintf(a.how, sizeof a.how, "it handed over more than any right answer holds");
    else if (WIFSIGNALED(a.status)) {
        int number = WTERMSIG(a.status);
        if (number == SIGXCPU || number == SIGKILL) snprintf(a.how, sizeof a.how, "it took more than %d s of processor time: does a loop never end?", CPU_SECONDS);
        else if (number == SIGABRT) snprintf(a.how, sizeof a.how, "it stopped itself (abort): a check() of the engine failed");
        else snprintf(a.how, sizeof a.how, "it crashed with signal %d%s", number, number == SIGSEGV ? " (a bad pointer or index)" : "");
    } else if (WEXITSTATUS(a.status) != 0) snprintf(a.how, sizeof a.how, "it ended with status %d before all was done", WEXITSTATUS(a.status));
    return a;
}

// -------------------------------------------------------------------------------------------------------------------- judging

typedef struct Judge { Task *task; Answers *answers; double earned, total; int failures; bool broken; } Judge;
typedef struct Array { const double *values; long count; } Array; // values NULL: not computed

static void say(Task *t, const char *format, ...)
{
    size_t used = strlen(t->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->text + used, sizeof t->text - used, format, arguments);
    va_end(arguments);
}

// The next array, which must have this name. If it is not there, nothing that follows counts, and neither does what came before.
static Array next(Judge *j, const char *name)
{
    Answers *a = j->answers;
    Header header;
    if (j->broken) return (Array){ NULL, 0 };
    if (a->size - a->at >= sizeof header) {
        memcpy(&header, a->bytes + a->at, sizeof header);
        a->at += sizeof header;
        header.name[NAME - 1] = '\0';
        size_t bytes = header.count > 0 ? (size_t)header.count * sizeof(double) : 0;
        if (strcmp(header.name, name) == 0 && header.count >= NOT_COMPUTED && header.count <= MOST_ANSWERS && bytes <= a->size - a->at) {
            double *values = room(header.count > 0 ? header.count : 0);
            memcpy(values, a->bytes + a->at, bytes);
            a->at += bytes;
            return (Array){ header.count < 0 ? NULL : values, header.count < 0 ? 0 : header.count };
        }
    }
    j->broken = true;
    return (Array){ NULL, 0 };
}

// One check: of this weight, and what to say if it failed. Only the first failure of a task is explained at length.
static bool award(Judge *j, double weight, bool good, const char *format, ...)
{
    char text[1024];
    j->total += weight;
    if (good) { j->earned += weight; return true; }
    if (j->broken) return false;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    char *end = j->failures++ ? strchr(text, '\n') : NULL; // the others: their first line
    if (end != NULL) *end = '\0';
    say(j->task, "     %s\n", text);
    return false;
}

// Wrong numbers that mean something, and what.
typedef struct Known { const double *values; const char *hint; } Known;

static bool same_numbers(const double *a, const double *b, long count)
{
    double largest = 0;
    for (long i = 0; i < count; i++) largest = fmax(largest, fabs(b[i]));
    for (long i = 0; i < count; i++)
        if (!(fabs(a[i] - b[i]) <= 1e-7 * largest)) return false;
    return true;
}

static bool compare(Judge *j, double weight, const char *what, Array ours, const double *expected, long count, int columns, const char *whence,
                    const Known *known)
{
    if (j->broken) return award(j, weight, false, " ");
    if (ours.values == NULL) return award(j, weight, false, "%s: no gradient was computed\n     hint: is the path cut, or a flag not handed on?", what);
    if (ours.count != count) return award(j, weight, false, "%s: %ld numbers instead of %ld", what, ours.count, count);
    double largest = 0;
    for (long i = 0; i < count; i++) largest = fmax(largest, fabs(expected[i]));
    check(largest > 1e-6, "%s %s: everything that is expected is 0; this check could not fail", j->task->id, what);
    long differ = 0, worst = 0;
    double error = 0;
    for (long i = 0; i < count; i++) {
        double own = fabs(ours.values[i] - expected[i]) / fmax(fabs(expected[i]), 0.01 * largest);
        if (!(own <= 1e-7)) differ++;
        if (!(own <= error)) error = own, worst = i;
    }
    if (differ == 0) return award(j, weight, true, " ");
    const char *hint = NULL;
    for (; known != NULL && known->values != NULL && hint == NULL; known++)
        if (same_numbers(ours.values, known->values, count)) hint = known->hint;
    if (isnan(ours.values[worst])) hint = "nan is what memory holds here until something is written to it";
    char pattern[160];
    if (hint == NULL) {
        gradient_hint(pattern, sizeof pattern, ours.values, expected, count, (int)(count / columns), columns, largest);
        hint = pattern;
    }
    return award(j, weight, false, "%s: at [%ld,%ld]: yours %.6g   expected %.6g (%s)\n     %ld of %ld entries differ\n     hint: %s", what,
                 worst / columns, worst % columns, ours.values[worst], expected[worst], whence, differ, count, hint);
}

static const char *const by_differences = "central difference in double";

// The derivatives of f by x[count], which f reads.
static double *differences(double *x, long count, double (*f)(void *context), void *context)
{
    double *slopes = room(count);
    for (long i = 0; i < count; i++) slopes[i] = central_difference(&x[i], f, context);
    return slopes;
}

static double *numbers(int array, uint64_t own, long count)
{
    double *values = room(count);
    for (long i = 0; i < count; i++) values[i] = number_of(own, array, i);
    return values;
}

// ---- the ops once more, in plain loops: the oracle of the kernels' tasks

typedef struct Naive { Problem p; OpKind op; double *in[3], *dy; } Naive;

static double softmax_sum(const double *x, int count)
{
    double sum = 0;
    for (int k = 0; k < count; k++) sum += exp(x[k]);
    return sum;
}

// y of the op; the caller has room for it
static void naive_forward(const Naive *n, double *y)
{
    const Problem *p = &n->p;
    const double *x = n->in[0], *w = n->in[1], *b = n->in[2];
    int rows = p->shape[0][0], width = p->shape[0][1];
    switch (n->op) {
    case OP_MATMUL:
    case OP_LINEAR: {
        int O = p->shape[1][1];
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < O; o++) {
                y[r * O + o] = b ? b[o] : 0;
                for (int i = 0; i < width; i++) y[r * O + o] += x[r * width + i] * w[i * O + o];
            }
        return;
    }
    case OP_MATMUL_ADD: {
        int R = p->shape[1][1];
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < width; o++) {
                y[r * width + o] = x[r * width + o];
                for (int i = 0; i < R; i++) y[r * width + o] += p->scalar * w[r * R + i] * b[i * width + o];
            }
        return;
    }
    case OP_LM_HEAD: {
        int V = p->shape[1][0];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < V; v++) {
                y[r * V + v] = 0;
                for (int c = 0; c < width; c++) y[r * V + v] += x[r * width + c] * w[v * width + c];
            }
        return;
    }
    case OP_LAYERNORM:
        for (int r = 0; r < rows; r++, x += width, y += width) {
            double mean = 0, variance = 0;
            for (int c = 0; c < width; c++) mean += x[c] / width;
            for (int c = 0; c < width; c++) variance += (x[c] - mean) * (x[c] - mean) / width;
            for (int c = 0; c < width; c++) y[c] = (x[c] - mean) / sqrt(variance + 1e-5) * w[c] + b[c];
        }
        return;
    case OP_CROSS_ENTROPY:
        for (int r = 0; r < rows; r++) y[r] = log(softmax_sum(x + r * width, width)) - x[r * width + p->targets[r]];
        return;
    case OP_SOFTMAX:
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < width; k++) y[r * width + k] = exp(x[r * width + k]) / softmax_sum(x + r * width, width);
        return;
    case OP_ATTENTION: {
        int T = p->shape[0][1], C = p->shape[3][2], D = C / p->heads;
        for (int bh = 0; bh < rows * p->heads; bh++) {
            const double *q = x + (long)(bh / p->heads) * T * 3 * C + bh % p->heads * D, *k = q + C, *v = q + 2 * C;
            for (int t = 0; t < T; t++) {
                double weights[80], *row = y + ((long)(bh / p->heads) * T + t) * C + bh % p->heads * D;
                for (int s = 0; s <= t; s++) {
                    weights[s] = 0;
                    for (int d = 0; d < D; d++) weights[s] += q[(long)t * 3 * C + d] * k[(long)s * 3 * C + d] / sqrt(D);
                }
                double sum = softmax_sum(weights, t + 1);
                for (int d = 0; d < D; d++) {
                    row[d] = 0;
                    for (int s = 0; s <= t; s++) row[d] += exp(weights[s]) / sum * v[(long)s * 3 * C + d];
                }
            }
        }
        return;
    }
    default: // OP_GELU
        for (long i = 0; i < count_of(p, 0); i++)
            y[i] = 0.5 * x[i] * (1 + tanh(0.79788456080286536 * (x[i] + 0.044715 * x[i] * x[i] * x[i])));
    }
}

static double naive_loss(void *context)
{
    const Naive *n = context;
    static double y[1 << 16];
    double sum = 0;
    naive_forward(n, y);
    for (long i = 0; i < count_of(&n->p, 3); i++) sum += n->dy[i] * y[i];
    return sum;
}

static bool judge_kernel(Judge *j)
{
    static const char *const names[WAYS] = { "first", "again", "in parts" };
    static const char *const ways[WAYS] = { "", ", used twice", ", in three parts" };
    static const double weights[WAYS] = { 5, 3, 2 };
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
        if (strcmp(kernels[k].task, j->task->id) != 0) continue;
        int input = kernels[k].input;
        for (int way = 0; way < WAYS; way++) {
            uint64_t own = seed_of(seed, way);
            Naive n = { .p = problem_of(kernels[k].op, own), .op = kernels[k].op };
            for (int i = 0; i < 3 && n.p.ndim[i] > 0; i++) n.in[i] = numbers(i, own, count_of(&n.p, i));
            n.dy = numbers(3, own, count_of(&n.p, 3));
            long count = count_of(&n.p, input);
            double *expected = differences(n.in[input], count, naive_loss, &n), *before = numbers(4, own, count);
            double *alone = room(count), *times = room(count);
            for (long i = 0; i < count; i++) {
                alone[i] = expected[i];
                times[i] = PARTS * expected[i];
                if (way == AGAIN) expected[i] += before[i];
            }
            Known known[] = { { way == AGAIN ? alone : times, way == AGAIN ? "did you overwrite (=) where two uses meet instead of adding (+=)?"
                                                                           : "every part wrote all of it: take share(part, ...) only" },
                              { way == AGAIN ? before : NULL, "this use adds nothing" }, { NULL, NULL } };
            char what[128];
            int last = n.p.shape[input][n.p.ndim[input] - 1];
            snprintf(what, sizeof what, "%s %c [%ld,%d]%s", j->task->function, kernels[k].names[input], count / last, last, ways[way]);
            Array ours = next(j, names[way]), margins = next(j, "margins");
            bool inside = margins.count == 1 && margins.values[0] == 1;
            if (!inside) award(j, weights[way], false, "%s: it wrote outside its array, or into dy", what);
            else compare(j, weights[way], what, ours, expected, count, last, by_differences, known);
        }
        return true;
    }
    return false;
}

// ---- L1.1

static Chain now; // what the differences are taken of: w is split into its two uses
static double second_w;
static double chain_of(void *context)
{
    (void)context;
    double y = second_w * tanh(now.w * now.x + now.b);
    return (y - now.t) * (y - now.t);
}
static double chain_both(void *context)
{
    second_w = now.w;
    return chain_of(context);
}

static void judge_chain(Judge *j)
{
    static const char *const what[4] = { "dloss/dx", "dloss/dw", "dloss/db", "dloss/dt" };
    static const double weights[4] = { 1, 3, 2, 2 };
    double ours[4][4], expected[4][4], inner[4], outer[4];
    for (int i = 0; i < 4; i++) {
        Array a = next(j, "chain");
        now = (Chain){ number_of(seed, 0, i), number_of(seed, 1, i), number_of(seed, 2, i), number_of(seed, 3, i) };
        double *fields[4] = { &now.x, &now.w, &now.b, &now.t };
        for (int k = 0; k < 4; k++) {
            ours[k][i] = a.count == 4 ? a.values[k] : 0;
            expected[k][i] = central_difference(fields[k], chain_both, NULL);
        }
        second_w = now.w;
        inner[i] = central_difference(&now.w, chain_of, NULL);
        outer[i] = central_difference(&second_w, chain_of, NULL);
    }
    Known known[] = { { inner, "the first use of w alone, inside tanh: the second adds its own term" },
                      { outer, "the second use of w alone, in front of tanh: the first adds its own term" }, { NULL, NULL } };
    for (int k = 0; k < 4; k++)
        compare(j, weights[k], what[k], (Array){ ours[k], 4 }, expected[k], 4, 4, "central difference in double; a row of four cases", known);
}

// ---- L1.4

static const char *which_graph;
static double *gx, *gw, *gf, *gv;
static long g_count;
static double graph_loss(void *context)
{
    (void)context;
    double sum = 0;
    for (long i = 0; i < g_count; i++) {
        double a = tanh(gx[i] * gw[i]);
        sum += which_graph[0] == 's' ? 2 * a + 5 * a * gw[i] : which_graph[0] == 'f' ? a * gf[i] * gv[i] : a;
    }
    return sum;
}

static void judge_backward(Judge *j)
{
    static const char *const graphs[] = { "once", "several uses", "frozen", "twice" };
    for (int g = 0; g < 4; g++) {
        uint64_t own = seed_of(seed, g);
        int C = size_of(own, 1);
        which_graph = graphs[g];
        g_count = (long)size_of(own, 0) * C;
        gx = numbers(0, own, g_count), gw = numbers(1, own, g_count), gf = numbers(2, own, g_count), gv = numbers(3, own, g_count);
        double *dx = differences(gx, g_count, graph_loss, NULL), *dw = differences(gw, g_count, graph_loss, NULL);
        double *dv = g == 2 ? differences(gv, g_count, graph_loss, NULL) : NULL, *half = numbers(0, own, g_count);
        Array x = next(j, "x"), w = next(j, "w"), frozen = next(j, "frozen"), v = next(j, "v"), facts = next(j, "facts");
        if (facts.count != 6) { j->broken = true; facts.values = (double[]){ 0, 0, 0, 0, 0, 0 }; }
        const double *f = facts.values;
        for (long i = 0; i < g_count; i++) {
            half[i] = dw[i];
            if (g == 3) dx[i] *= 2, dw[i] *= 2;
        }
        Known known[] = { { g == 3 ? half : NULL, "the second pass alone: did it overwrite what was there?" }, { NULL, NULL } };
        if (g == 0) {
            compare(j, 1, "backward(), each tensor used once: dw", w, dw, g_count, C, by_differences, NULL);
            compare(j, 1, "backward(), each tensor used once: dx", x, dx, g_count, C, by_differences, NULL);
        }
        if (g == 1) {
            compare(j, 1.5, "backward(), a result used three times: dx", x, dx, g_count, C, by_differences, NULL);
            compare(j, 1.5, "backward(), w used by two ops: dw", w, dw, g_count, C, by_differences, NULL);
        }
        if (g == 2) {
            bool through = compare(j, 2.5, "backward(), through a frozen tensor: dw below it", w, dw, g_count, C, by_differences, NULL);
            through = compare(j, 0.5, "backward(), beside a frozen tensor: dv", v, dv, g_count, C, by_differences, NULL) && through;
            award(j, 1, through && frozen.values == NULL && x.values == NULL && f[0] == 4 && f[1] == 2,
                  "backward(), frozen tensors: %s; %g gradient kernels of results and %g of leaves ran instead of 4 and 2\n     hint: ask for "
                  "requires_grad before anything else is done for an input",
                  frozen.values || x.values ? "one has a gradient, which nobody asked for" : "none has a gradient", f[0], f[1]);
            award(j, 1, through && f[2] == (double)(2 * g_count * (long)sizeof(real)),
                  "backward(), frozen tensors: %g bytes of parameter gradients were held, and two tensors of %ld bytes train", f[2], g_count * (long)sizeof(real));
        }
        if (g == 3) {
            bool sums = compare(j, 1, "backward(), two passes without clearing: dw", w, dw, g_count, C, by_differences, known);
            award(j, 1, sums && f[3] == 0 && f[4] == 0 && f[5] == 0,
                  "after backward(): %g bytes of kept activations, %g of activation gradients and %g nodes are left\n     hint: release(n) when a node "
                  "is done, and the tape has no node any more", f[3], f[4], f[5]);
        }
    }
}

// ---- Lab 2

static void judge_init(Judge *j)
{
    int I = 13 * size_of(seed, 0), O = size_of(seed, 1), R = size_of(seed, 2);
    Array A[3], B[3], flags[3];
    for (int i = 0; i < 3; i++) A[i] = next(j, "A"), B[i] = next(j, "B"), flags[i] = next(j, "flags");
    if (j->broken) { award(j, 1, false, " "); return; }
    double bound = 1 / sqrt(I), largest = 0, sum = 0, square = 0, b_largest = 0;
    bool differ = false, again = true, sizes = true, train = true;
    for (int i = 0; i < 3; i++) {
        sizes = sizes && A[i].count == (long)I * R && B[i].count == (long)R * O && flags[i].count == 2;
        if (!sizes) break;
        train = train && flags[i].values[0] == 1 && flags[i].values[1] == 1;
        for (long k = 0; k < A[i].count; k++) {
            double a = A[i].values[k];
            if (!(fabs(a) <= largest)) largest = fabs(a);
            if (i == 0) sum += a, square += a * a;
            differ = differ || (i == 1 && a != A[0].values[k]);
            again = again && (i != 2 || a == A[0].values[k]);
        }
        for (long k = 0; k < B[i].count; k++)
            if (!(fabs(B[i].values[k]) <= b_largest)) b_largest = fabs(B[i].values[k]);
    }
    double n = (double)I * R, deviation = sqrt(square / n);
    bool spread = sizes && largest <= bound && largest > 0.9 * bound && fabs(sum / n) < 5 * bound / sqrt(3 * n) && fabs(deviation / bound - 0.57735) < 0.12;
    award(j, 1.5, largest > 0 && b_largest == 0, "A [%d,%d] and B [%d,%d]: the largest entries are %.4g and %.4g\n     hint: %s", I, R, R, O, largest, b_largest,
          b_largest > 0 ? "with B not zero a fresh adapter changes what the model says" : "with both zero neither ever gets a gradient");
    award(j, 2, spread && differ && again,
          "A [%d,%d]: the largest entry is %.4g, mean %.2g and deviation %.4g; uniform in +-1/sqrt(%d) = +-%.4g has deviation %.4g%s", I, R, largest,
          sum / n, deviation, I, bound, bound / sqrt(3), !spread ? "\n     hint: fill_uniform takes the bound" : differ ? "" : "\n     hint: another seed gives the same A");
    award(j, 1.5, largest > 0 && train, "A and B must both require a gradient");
}

static void judge_scale(Judge *j)
{
    int ranks[4] = { pick(seed, 0, 2, 9), pick(seed, 1, 2, 9), 0, pick(seed, 3, 10, 12) };
    double alpha = pick(seed, 4, 3, 40);
    static const char *const what[3] = { "the scale, one rank for all", "the scale, a rank for each block", "the scale, rank-stabilised" };
    for (int way = 0; way < 3; way++) {
        double expected[16] = { 0 }, all_alpha[16] = { 0 }, other[16] = { 0 };
        for (int i = 0; i < 16; i++) {
            int r = way == 0 ? ranks[0] : way == 2 ? ranks[1] : ranks[i / 4];
            if (r == 0 || (way != 1 && i % 4 != 0)) continue;
            expected[i] = alpha / (way == 2 ? sqrt(r) : r);
            all_alpha[i] = alpha;
            other[i] = way == 2 ? alpha / r : alpha / (way == 1 ? ranks[0] : sqrt(r));
        }
        Known known[] = { { all_alpha, "alpha alone: divide by the rank" },
                          { other, way == 2 ? "alpha / r: with rank_stabilized it is the square root" : way == 1 ? "the rank of the whole adapter, not of this block" : "the square root is for rank_stabilized" },
                          { NULL, NULL } };
        compare(j, way == 2 ? 2 : 1, what[way], next(j, "scales"), expected, 16, 4, "alpha over r, or over its root", known);
    }
}

typedef struct LayerCase { int N, I, O, R; bool masked; double scale, *x, *W, *b, *A, *B, *mask, *g; } LayerCase;

static LayerCase layer_case(uint64_t own, bool masked)
{
    LayerCase c = { size_of(own, 0), size_of(own, 1), size_of(own, 2), size_of(own, 3), masked, 1 + number_of(own, 9, 0) / 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
    c.x = numbers(0, own, (long)c.N * c.I), c.W = numbers(1, own, (long)c.I * c.O), c.b = numbers(2, own, c.O);
    c.A = numbers(3, own, (long)c.I * c.R), c.B = numbers(4, own, (long)c.R * c.O), c.mask = numbers(5, own, (long)c.R * c.O);
    c.g = numbers(6, own, (long)c.N * c.O);
    for (long i = 0; i < (long)c.R * c.O; i++) c.mask[i] = !masked || c.mask[i] > 0;
    return c;
}

// y[n,o], and with `scale` 0 the layer without its adapter
static double layer_output(const LayerCase *c, double scale, int n, int o)
{
    double y = c->b[o];
    for (int i = 0; i < c->I; i++) y += c->x[n * c->I + i] * c->W[i * c->O + o];
    for (int r = 0; r < c->R; r++) {
        double h = 0;
        for (int i = 0; i < c->I; i++) h += c->x[n * c->I + i] * c->A[i * c->R + r];
        y += scale * h * c->B[r * c->O + o] * c->mask[r * c->O + o];
    }
    return y;
}

static double layer_loss(void *context)
{
    const LayerCase *c = context;
    double sum = 0;
    for (int n = 0; n < c->N; n++)
        for (int o = 0; o < c->O; o++) sum += c->g[n * c->O + o] * layer_output(c, c->scale, n, o);
    return sum;
}

static void judge_path(Judge *j)
{
    static const char *const what[3] = { "y = x W + b + s (x A) B", "y when training", "y with a mask" };
    for (int way = 0; way < 3; way++) {
        LayerCase c = layer_case(seed_of(seed, way), way == 2);
        long outputs = (long)c.N * c.O, inputs = (long)c.N * c.I, narrow = (long)c.N * c.R;
        double *y = numbers(0, 0, outputs), *base = numbers(0, 0, outputs), *unscaled = numbers(0, 0, outputs);
        for (int n = 0; n < c.N; n++)
            for (int o = 0; o < c.O; o++) {
                y[n * c.O + o] = layer_output(&c, c.scale, n, o);
                base[n * c.O + o] = layer_output(&c, 0, n, o);
                unscaled[n * c.O + o] = layer_output(&c, 1, n, o);
            }
        Known known[] = { { base, "x W + b alone: the adapter is not in it" }, { unscaled, "the scale is missing" }, { NULL, NULL } };
        bool good = compare(j, way == 0 ? 2 : 0.5, what[way], next(j, "y"), y, outputs, c.O, "naive loops in double", known);
        Array bytes = next(j, "bytes"), in = next(j, "in"), A = next(j, "A"), B = next(j, "B");
        if (way == 0) continue;
        good = compare(j, 0.5, "the gradient of A", A, differences(c.A, (long)c.I * c.R, layer_loss, &c), (long)c.I * c.R, c.R, by_differences, NULL) && good;
        good = compare(j, 0.5, "the gradient of B", B, differences(c.B, (long)c.R * c.O, layer_loss, &c), (long)c.R * c.O, c.O, by_differences, NULL) && good;
        good = compare(j, 0.5, "the gradient of x", in, differences(c.x, inputs, layer_loss, &c), inputs, c.I, by_differences, NULL) && good;
        if (way != 1) continue;
        long number = (long)sizeof(real);
        double kept = bytes.count == 3 ? bytes.values[0] : -1, live = bytes.count == 3 ? bytes.values[1] : -1, peak = bytes.count == 3 ? bytes.values[2] : -1;
        award(j, 1, good && kept == (double)((inputs + narrow) * number) && live == (double)(outputs * number) && peak <= (double)((inputs + outputs + narrow) * number),
              "bytes: %g are kept where x and x A are %ld; %g are still held where y is %ld; %g at most where x, y and x A are %ld\n"
              "     hint: drop x A when it is used, and add into y's own buffer (op_matmul_add)",
              kept, (inputs + narrow) * number, live, outputs * number, peak, (inputs + outputs + narrow) * number);
    }
}

static void judge_merge(Judge *j)
{
    LayerCase c = layer_case(seed, false);
    long count = (long)c.I * c.O;
    double *merged = numbers(1, seed, count), *alone = numbers(1, seed, count), *unscaled = numbers(1, seed, count), *twice = numbers(1, seed, count);
    for (int i = 0; i < c.I; i++)
        for (int o = 0; o < c.O; o++) {
            double sum = 0;
            for (int r = 0; r < c.R; r++) sum += c.A[i * c.R + r] * c.B[r * c.O + o];
            long at = (long)i * c.O + o;
            merged[at] += c.scale * sum;
            alone[at] = c.scale * sum;
            unscaled[at] += sum;
            twice[at] += 2 * c.scale * sum;
        }
    Known known[] = { { c.W, "W as it was: nothing was added" }, { alone, "s A B alone: it has to be added to W" }, { unscaled, "the scale is missing" },
                      { twice, "added twice" }, { NULL, NULL } };
    bool good = compare(j, 3, "the merged weight", next(j, "merged"), merged, count, c.O, "naive loops in double", known);
    Array back = next(j, "unmerged");
    bool same = back.count == count;
    for (long i = 0; i < count && same; i++) same = back.values[i] == c.W[i];
    award(j, 1, good && same, "unmerging must bring back the bytes of before: did merging write anywhere else?");
}

static double *keep_in, *keep_W, *keep_V, *keep_g;
static int keep_N, keep_I, keep_O;
static double keep_loss(void *context)
{
    (void)context;
    double sum = 0;
    for (int n = 0; n < keep_N; n++)
        for (int o = 0; o < keep_O; o++) {
            double h = 0;
            for (int i = 0; i < keep_I; i++) h += 2 * keep_in[n * keep_I + i] * keep_W[i * keep_O + o];
            for (int i = 0; i < keep_I; i++) sum += h * keep_V[o * keep_I + i] * keep_g[n * keep_I + i];
        }
    return sum;
}

static void judge_keeps(Judge *j)
{
    keep_N = size_of(seed, 0), keep_I = size_of(seed, 1), keep_O = size_of(seed, 2);
    keep_in = numbers(0, seed, (long)keep_N * keep_I), keep_W = numbers(1, seed, (long)keep_I * keep_O);
    keep_V = numbers(5, seed, (long)keep_O * keep_I), keep_g = numbers(6, seed, (long)keep_N * keep_I);
    // for x, W, b trained or not (bits 1, 2, 4): linear's node, then layernorm's with x, gain, bias; last, a block that trains inside
    static const unsigned expected[15] = { 2, 3 | KEEP_SAVED, 1, 1 | KEEP_SAVED, 3, 3 | KEEP_SAVED, 0, 0, 2, 3 | KEEP_SAVED, 1, 1 | KEEP_SAVED, 3, 3 | KEEP_SAVED, 1 };
    Array kept = next(j, "kept"), bytes = next(j, "bytes"), when = next(j, "when"), in = next(j, "in"), W = next(j, "W");
    long wrong = -1, x_bytes = (long)keep_N * keep_I * (long)sizeof(real);
    for (int i = 0; i < 15 && kept.count == 15; i++)
        if ((unsigned)kept.values[i] != expected[i] && wrong < 0) wrong = i;
    bool rule = award(j, 2, kept.count == 15 && wrong < 0,
                      "keeps_of: %s with x %s, weight %s, bias %s holds %#x where its gradients read %#x (1 x, 2 weight, 0x200 statistics)\n     hint: an input "
                      "that requires no gradient asks for nothing", wrong == 14 ? "a recomputed block" : wrong % 2 ? "layernorm" : "linear",
                      (wrong / 2 + 1) & 1 ? "trained" : "frozen", (wrong / 2 + 1) & 2 ? "trained" : "frozen", (wrong / 2 + 1) & 4 ? "trained" : "frozen",
                      wrong < 0 ? 0 : (unsigned)kept.values[wrong], wrong < 0 ? 0 : expected[wrong]);
    double *din = differences(keep_in, (long)keep_N * keep_I, keep_loss, NULL), *dW = differences(keep_W, (long)keep_I * keep_O, keep_loss, NULL);
    bool right = compare(j, 0.5, "the gradient of x below a frozen weight", in, din, (long)keep_N * keep_I, keep_I, by_differences, NULL);
    right = compare(j, 0.5, "the gradient of W", W, dW, (long)keep_I * keep_O, keep_O, by_differences, NULL) && right;
    award(j, 1, rule && right && bytes.count == 1 && bytes.values[0] == (double)x_bytes,
          "two linears, the upper one frozen: %g bytes are kept, where only the lower one's x, %ld bytes, will be read", bytes.count == 1 ? bytes.values[0] : -1, x_bytes);
    award(j, 1, rule && right && when.count == 6 && when.values[3] == (double)x_bytes && when.values[4] == 0 && when.values[5] == 0,
          "x must be let go as soon as dW has read it, before dx is made\n     hint: only the first `inputs` inputs count");
}

static void judge_moments(Judge *j)
{
    double *p[TENSORS], *m[TENSORS], *v[TENSORS];
    long size[TENSORS], bytes_wrong = -1;
    bool values = true, still = true;
    for (int i = 0; i < TENSORS; i++) {
        size[i] = (tensor_rows[i] ? tensor_rows[i] : 1) * tensor_columns[i];
        p[i] = numbers(i, seed, size[i]);
        m[i] = room(size[i]);
        v[i] = room(size[i]);
    }
    for (int step = 0; step < STEPS; step++) {
        double c1 = 1 - pow(0.8, step + 1), c2 = 1 - pow(0.95, step + 1), held = 0, lr = 0.03;
        for (int i = 0; i < TENSORS; i++) {
            for (long k = 0; k < size[i]; k++) {
                if (!trains_in[step][i]) { m[i][k] = v[i][k] = 0; continue; }
                double g = number_of(seed, 20 + TENSORS * step + i, k);
                m[i][k] = 0.8 * m[i][k] + 0.2 * g;
                v[i][k] = 0.95 * v[i][k] + 0.05 * g * g;
                p[i][k] = p[i][k] * (tensor_rows[i] ? 1 - lr * 0.1 : 1) - lr * (m[i][k] / c1) / (sqrt(v[i][k] / c2) + 1e-8);
            }
            if (trains_in[step][i]) held += 2 * (double)size[i] * sizeof(real);
            Array t = next(j, "t");
            bool same = t.count == size[i] && same_numbers(t.values, p[i], size[i]);
            values = values && (same || !trains_in[step][i]);
            still = still && (same || trains_in[step][i]);
        }
        Array bytes = next(j, "bytes");
        if ((bytes.count != 1 || bytes.values[0] != held) && bytes_wrong < 0) bytes_wrong = step;
    }
    bool good = award(j, 2, values, "the trained tensors are not where AdamW takes them in %d steps\n     hint: new moments are zero, and kept from step to step", STEPS);
    award(j, 2, good && bytes_wrong < 0, "step %ld: the bytes of moments are not two numbers for each one that trains\n     hint: none for a frozen tensor, and none "
          "for one that was frozen since", bytes_wrong);
    award(j, 1, good && still, "a frozen tensor moves on\n     hint: drop its moments");
}

// ---- Lab 3

static void judge_memory(Judge *j)
{
    static const char *const names[5] = { "weights", "adapters", "gradients", "moments", "kept" };
    static const double weights[2][5] = { { 0.5, 0, 1, 1, 2 }, { 0.5, 1, 1, 1, 2 } }; // no adapter: nothing to know
    double ours[2][5][SHAPES], expected[2][5][SHAPES];
    for (int i = 0; i < SHAPES; i++)
        for (int lora = 0; lora < 2; lora++) {
            Memory m;
            if (!lab3_memory(lab3_shape(seed, i), lora, &m)) {
                award(j, 1, false, "no numbers were published for seed %llu: use SEED=1", (unsigned long long)seed);
                return;
            }
            long e[5] = { m.weights, m.adapters, m.gradients, m.moments, m.kept };
            Array a = next(j, lora ? "LoRA" : "full");
            for (int k = 0; k < 5; k++) {
                expected[lora][k][i] = (double)e[k];
                ours[lora][k][i] = a.count == 5 ? a.values[k] : -1;
            }
        }
    bool something = false;
    for (int lora = 0; lora < 2; lora++)
        for (int k = 0; k < 5; k++)
            for (int i = 0; i < SHAPES; i++) something = something || ours[lora][k][i] != 0;
    for (int lora = 0; lora < 2; lora++)
        for (int k = 0; k < 5; k++) {
            int wrong = -1;
            for (int i = 0; i < SHAPES; i++)
                if (ours[lora][k][i] != expected[lora][k][i] && wrong < 0) wrong = i;
            Shape s = lab3_shape(seed, wrong < 0 ? 0 : wrong);
            award(j, weights[lora][k], something && wrong < 0, "%s, %s: yours %.0f   expected %.0f bytes\n     for V %ld, T %ld, %ld layers, %ld heads, C %ld, r %ld, B %ld, %ld bytes a number",
                  names[k], lora ? "LoRA" : "full", ours[lora][k][wrong < 0 ? 0 : wrong], expected[lora][k][wrong < 0 ? 0 : wrong], s.V, s.T, s.L, s.H, s.C, s.r, s.B, s.bytes);
        }
}

static void judge_claims(Judge *j)
{
    static const char *const names[4] = { "bytes of gradients, full and LoRA", "bytes of moments, full and LoRA", "gradients through and of weight matrices", "adapter tensors reached" };
    double ours[2][10], expected[2][10];
    for (int i = 0; i < 2; i++) {
        Claims c;
        if (!lab3_claims(lab3_shape(seed, i), &c)) {
            award(j, 1, false, "no numbers were published for seed %llu: use SEED=1", (unsigned long long)seed);
            return;
        }
        long e[10] = { c.gradient_bytes[0], c.gradient_bytes[1], c.moment_bytes[0], c.moment_bytes[1], c.dgrad[0], c.dgrad[1], c.wgrad[0], c.wgrad[1], c.reached, c.reached_when_cut };
        Array a = next(j, "claims");
        for (int k = 0; k < 10; k++) {
            expected[i][k] = (double)e[k];
            ours[i][k] = a.count == 10 ? a.values[k] : -1;
        }
    }
    for (int part = 0; part < 4; part++) {
        int first = part < 3 ? 2 * part : 8, last = part == 0 ? 1 : part == 1 ? 3 : part == 2 ? 7 : 9, wrong = -1, at = 0;
        for (int i = 0; i < 2; i++)
            for (int k = first; k <= last; k++)
                if (ours[i][k] != expected[i][k] && wrong < 0) wrong = k, at = i;
        Shape s = lab3_shape(seed, at);
        award(j, 2, wrong < 0, "%s: number %d is %.0f, expected %.0f\n     for V %ld, T %ld, %ld layers, %ld heads, C %ld, r %ld, B %ld", names[part], wrong - first + 1,
              wrong < 0 ? 0 : ours[at][wrong], wrong < 0 ? 0 : expected[at][wrong], s.V, s.T, s.L, s.H, s.C, s.r, s.B);
    }
}

// The test must say the same each time: true in the right engine, false (or stopped by check()) in the one with the bug.
static void judge_found(Judge *j)
{
    enum { TIMES = 3 };
    Array here = next(j, "right");
    if (j->task->buggy[0] == '-') {
        award(j, 1, false, "your test says %s in this tree; points need the right engine, which is not here", here.count == 1 && here.values[0] != 0 ? "true" : "false");
        return;
    }
    bool right = true, noticed = true;
    for (int i = 0; i < TIMES; i++) {
        for (int bug = 0; bug < 2; bug++) {
            Answers a = run(bug ? j->task->buggy : j->task->program, "L3.3");
            Judge own = { .task = j->task, .answers = &a };
            Array said = next(&own, "right");
            next(&own, "end");
            bool clean = a.how[0] == '\0' && !own.broken && said.count == 1, stopped = WIFSIGNALED(a.status) && WTERMSIG(a.status) == SIGABRT;
            if (bug) noticed = noticed && ((clean && said.values[0] == 0) || stopped);
            else right = right && clean && said.values[0] == 1;
            free(a.bytes);
        }
    }
    award(j, 1, right && noticed, "your test %s\n     hint: %s", right ? "does not notice the bug" : "says that the right engine has a bug, or does not come to its end",
          right ? "compare numbers that the bug changes with what you work out by hand" : "work out by hand what the engine should say");
}

static void judge(Task *t)
{
    if (t->program[0] == '-') {
        say(t, "     %s\n", t->reason);
        return;
    }
    Answers a = run(t->program, t->id);
    Judge j = { .task = t, .answers = &a };
    bool known = true;
    if (judge_kernel(&j)) ;
    else if (strcmp(t->id, "L1.1") == 0) judge_chain(&j);
    else if (strcmp(t->id, "L1.4") == 0) judge_backward(&j);
    else if (strcmp(t->id, "L2.1") == 0) judge_init(&j);
    else if (strcmp(t->id, "L2.2") == 0) judge_scale(&j);
    else if (strcmp(t->id, "L2.3") == 0) judge_path(&j);
    else if (strcmp(t->id, "L2.6") == 0) judge_merge(&j);
    else if (strcmp(t->id, "L2.7") == 0) judge_keeps(&j);
    else if (strcmp(t->id, "L2.8") == 0) judge_moments(&j);
    else if (strcmp(t->id, "L3.1") == 0) judge_memory(&j);
    else if (strcmp(t->id, "L3.2") == 0) judge_claims(&j);
    else if (strcmp(t->id, "L3.3") == 0) judge_found(&j);
    else known = false;
    check(known, "grade: no checks for task %s", t->id);
    next(&j, "end");
    if (j.broken || a.how[0] != '\0' || a.at != a.size) { // nothing that it handed over counts
        t->text[0] = '\0';
        say(t, "     %s\n", a.how[0] ? a.how : "it ended early, or handed over something else: exit() inside a task ends the exercise");
        if (a.said[0]) {
            char *end = a.said + strcspn(a.said, "\n"), *start = a.said;
            *end = '\0';
            for (char *c = a.said; c < end && *c != ':' && *c != ' '; c++) // the file's name without its directory
                if (*c == '/') start = c + 1;
            say(t, "     it said: %.300s\n", start);
        }
        j.earned = 0;
    }
    t->earned = j.total > 0 && j.earned > 0 ? floor(100 * t->points * j.earned / j.total + 0.5) / 100 : 0;
    free(a.bytes);
    leave_rooms();
}

// --------------------------------------------------------------------------------------------------------------------- results

static void json_text(FILE *f, const char *text)
{
    fputc('"', f);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else if (c == '\n') fputs("\\n", f);
        else if (c < 0x20 || c > 0x7e) fprintf(f, "\\u%04x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

static bool is_homework(const Task *t) { return t->id[0] == 'H'; }

// Gradescope's results.json: one score, and one entry for each test.
static bool write_json(const char *path, const Task *tasks, int count, double score)
{
    char temporary[1024];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *f = fopen(temporary, "w");
    if (f == NULL) return false;
    fprintf(f, "{ \"score\": %g, \"output\": \"seed %llu\", \"visibility\": \"visible\", \"stdout_visibility\": \"hidden\",\n  \"tests\": [", score, (unsigned long long)seed);
    for (int i = 0; i < count; i++) {
        const Task *t = &tasks[i];
        fprintf(f, "%s\n    { \"number\": \"%s\", \"name\": ", i ? "," : "", t->id);
        char name[256];
        snprintf(name, sizeof name, "%s %s%s", t->id, t->title, is_homework(t) ? " (extra)" : "");
        json_text(f, name);
        fprintf(f, ", \"score\": %g, \"max_score\": %g, \"status\": \"%s\", \"visibility\": \"visible\", \"output\": ", t->earned, t->points,
                t->earned >= t->points ? "passed" : "failed");
        json_text(f, t->text);
        fprintf(f, " }");
    }
    fprintf(f, "\n  ] }\n");
    bool good = fflush(f) == 0 && !ferror(f);
    good = fclose(f) == 0 && good;
    return good && rename(temporary, path) == 0;
}

static void examples(void)
{
    for (int i = 0; i < SHAPES; i++) {
        Shape s = lab3_shape(seed, i);
        Memory m[2];
        Claims c;
        char shape[200];
        snprintf(shape, sizeof shape, "V %ld T %ld L %ld H %ld C %ld r %ld B %ld bytes %ld", s.V, s.T, s.L, s.H, s.C, s.r, s.B, s.bytes);
        for (int lora = 0; lora < 2; lora++) {
            lab3_memory(s, lora, &m[lora]);
            printf("%s %s: %ld %ld %ld %ld %ld\n", lora ? "LoRA" : "full", shape, m[lora].weights, m[lora].adapters, m[lora].gradients, m[lora].moments, m[lora].kept);
        }
        lab3_claims(s, &c);
        printf("claims %s: %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld\n", shape, c.gradient_bytes[0], c.gradient_bytes[1], c.moment_bytes[0], c.moment_bytes[1], c.dgrad[0],
               c.dgrad[1], c.wgrad[0], c.wgrad[1], c.reached, c.reached_when_cut);
    }
}

// The next field of a line, up to a tab.
static void field(char **at, char *to, size_t size)
{
    size_t length = strcspn(*at, "\t\n");
    snprintf(to, size, "%.*s", (int)length, *at);
    *at += length + ((*at)[length] != '\0');
}

static Task tasks[MOST_TASKS];

int main(int argc, char **argv)
{
    const char *json = NULL, *list = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) seed = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--json") == 0 && i + 1 < argc) json = argv[++i];
        else if (strcmp(argv[i], "--examples") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
            examples();
            return 0;
        } else list = argv[i];
    }
    FILE *f = list ? fopen(list, "r") : NULL;
    if (f == NULL) {
        fprintf(stderr, "grade: %s\n", list ? "the list of tasks cannot be read" : "[--seed N] [--json FILE] LIST");
        return 2;
    }
    int count = 0;
    char line[4096], points[32];
    while (count < MOST_TASKS && fgets(line, sizeof line, f) != NULL) {
        Task *t = &tasks[count++];
        char *at = line;
        field(&at, t->id, sizeof t->id);
        field(&at, points, sizeof points);
        field(&at, t->function, sizeof t->function);
        field(&at, t->place, sizeof t->place);
        field(&at, t->title, sizeof t->title);
        field(&at, t->program, sizeof t->program);
        field(&at, t->buggy, sizeof t->buggy);
        field(&at, t->reason, sizeof t->reason);
        t->points = strtod(points, NULL);
    }
    fclose(f);
    if (count == 0) {
        fprintf(stderr, "grade: the list has no task\n");
        return 2;
    }

    for (int i = 0; i < count; i++) {
        Task *t = &tasks[i];
        judge(t);
        if (t->earned >= t->points) continue;
        say(t, "     step through it: make gdb TASK=%s SEED=%llu\n", t->id, (unsigned long long)seed);
        printf("FAIL %s %s (%s)  %g/%g points\n%s", t->id, t->title, t->place, t->earned, t->points, t->text);
    }
    double score = 0, extra = 0, most = 0, most_extra = 0;
    printf("\n%-6s %-52s %s\n", "task", "", "points");
    for (int i = 0; i < count; i++) {
        Task *t = &tasks[i];
        *(is_homework(t) ? &extra : &score) += t->earned;
        *(is_homework(t) ? &most_extra : &most) += t->points;
        printf("%-6s %-52s %6g of %g\n", t->id, t->title, t->earned, t->points);
    }
    if (most > 0) printf("%-6s %-52s %6g of %g\n", "labs", "", score, most);
    if (most_extra > 0) printf("%-6s %-52s %6g of %g\n", "extra", "homework", extra, most_extra);
    if (json != NULL && !write_json(json, tasks, count, score + extra)) {
        fprintf(stderr, "grade: %s cannot be written: %s\n", json, strerror(errno));
        return 1;
    }
    return 0;
}
