// judge.c - see judge.h. What a student's process gets: a pipe, processor time, memory and no files.

#include "judge.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CPU_SECONDS = 5, WALL_SECONDS = 60, MEMORY_BYTES = 1 << 30, MOST_ANSWERS = 1 << 22 };

uint64_t seed = 1;

typedef struct Room { struct Room *before; double numbers[]; } Room;
static Room *rooms;

double *room(int64_t count)
{
    Room *r = calloc(1, sizeof *r + (size_t)count * sizeof(double));
    check(r != NULL, "out of memory");
    r->before = rooms;
    rooms = r;
    return r->numbers;
}

void leave_rooms(void)
{
    while (rooms != NULL) {
        Room *before = rooms->before;
        free(rooms);
        rooms = before;
    }
}

// ------------------------------------------------------------------------------------------------------ running a student's code

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

Answers run(const char *program, const char *task)
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

void say(Task *t, const char *format, ...)
{
    size_t used = strlen(t->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(t->text + used, sizeof t->text - used, format, arguments);
    va_end(arguments);
}

Array next(Judge *j, const char *name)
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

bool award(Judge *j, double weight, bool good, const char *format, ...)
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

bool same_numbers(const double *a, const double *b, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(b[i]));
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(a[i] - b[i]) <= 1e-7 * largest)) return false;
    return true;
}

bool compare(Judge *j, double weight, const char *what, Array ours, const double *expected, int64_t count, int columns, const char *whence,
                    const Known *known)
{
    if (j->broken) return award(j, weight, false, " ");
    if (ours.values == NULL) return award(j, weight, false, "%s: no gradient was computed\n     hint: is the path cut, or a flag not handed on?", what);
    if (ours.count != count) return award(j, weight, false, "%s: %" PRId64 " numbers instead of %" PRId64, what, ours.count, count);
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(expected[i]));
    check(largest > 1e-6, "%s %s: everything that is expected is 0; this check could not fail", j->task->id, what);
    int64_t differ = 0, worst = 0;
    double error = 0;
    for (int64_t i = 0; i < count; i++) {
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
    return award(j, weight, false, "%s: at [%" PRId64 ",%" PRId64 "]: yours %.6g   expected %.6g (%s)\n     %" PRId64 " of %" PRId64 " entries differ\n     hint: %s", what,
                 worst / columns, worst % columns, ours.values[worst], expected[worst], whence, differ, count, hint);
}

const char *const by_differences = "central difference in double", *const by_loops = "plain loops in double";

double *differences(double *x, int64_t count, double (*f)(void *context), void *context)
{
    double *slopes = room(count);
    for (int64_t i = 0; i < count; i++) slopes[i] = central_difference(&x[i], f, context);
    return slopes;
}

double *numbers(int array, uint64_t own, int64_t count)
{
    double *values = room(count);
    for (int64_t i = 0; i < count; i++) values[i] = number_of(own, array, i);
    return values;
}
