// judge.c - see judge.h. What a student's process gets is told in sandbox.h.

#include "judge.h"

#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CPU_SECONDS = 5, WALL_SECONDS = 120, MOST_ANSWERS = 1 << 22 }; // sandbox.c limits the processor's time

uint64_t seed = 1;
const char *workshop;
bool static_programs;

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

// --------------------------------------------------------------------------------------------------- running a student's code

// Reads what there is of answers (ends[0]) and of what is said (ends[1]); false: nothing more comes, or too much came.
static bool listen(struct pollfd ends[2], Answers *a, size_t *heard, bool *flood)
{
    char buffer[65536];
    for (int i = 0; i < 2; i++) {
        if (ends[i].fd < 0 || !(ends[i].revents & (POLLIN | POLLHUP | POLLERR))) continue;
        ssize_t got = read(ends[i].fd, buffer, sizeof buffer);
        if (got <= 0) { ends[i].fd = -1; continue; }
        if (i == 0) {
            *flood = a->size + (size_t)got > MOST_ANSWERS;
            if (*flood) return false;
            memcpy(a->bytes + a->size, buffer, (size_t)got);
            a->size += (size_t)got;
        } else {
            size_t left = MOST_SAID - *heard, part = (size_t)got < left ? (size_t)got : left;
            memcpy(a->said + *heard, buffer, part);
            *heard += part;
        }
    }
    return ends[0].fd >= 0 || ends[1].fd >= 0;
}

static void say_how(Answers *a, bool late, bool flood)
{
    int number = WIFSIGNALED(a->status) ? WTERMSIG(a->status) : 0;
    if (late) snprintf(a->how, sizeof a->how, "it was not at its end after %d s", WALL_SECONDS);
    else if (flood) snprintf(a->how, sizeof a->how, "it handed over more than any right answer holds");
    else if (number == SIGXCPU || number == SIGKILL) snprintf(a->how, sizeof a->how, "it took more than %d s of processor time: does a loop never end?", CPU_SECONDS);
    else if (number == SIGABRT) snprintf(a->how, sizeof a->how, "it stopped itself (abort): a check() of the engine failed");
    else if (number != 0) snprintf(a->how, sizeof a->how, "it crashed with signal %d%s", number, number == SIGSEGV ? " (a bad pointer or index)" : "");
    else if (WEXITSTATUS(a->status) != 0) snprintf(a->how, sizeof a->how, "it ended with status %d before all was done", WEXITSTATUS(a->status));
}

static int quiet_pipe(int ends[2])
{
    int status = pipe(ends);
    for (int i = 0; i < 2 && status == 0; i++) fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    return status;
}

// Runs it in the sandbox to its end: to the process's, whoever else may hold its pipes.
static Answers watch(Sandbox s, char *const *arguments, const char *input)
{
    Answers a = { .bytes = malloc(MOST_ANSWERS) };
    int given[2], answers[2], said[2];
    check(a.bytes != NULL && quiet_pipe(given) == 0 && quiet_pipe(answers) == 0 && quiet_pipe(said) == 0, "no pipe: %s", strerror(errno));
    s.input = given[0], s.output = answers[1], s.said = said[1];
    pid_t child = sandbox_start(&s, arguments);
    check(child > 0, "no process: %s", strerror(errno));
    close(given[0]), close(answers[1]), close(said[1]);
    ssize_t wrote = write(given[1], input, strlen(input));
    (void)wrote;
    close(given[1]);
    struct pollfd ends[2] = { { answers[0], POLLIN, 0 }, { said[0], POLLIN, 0 } };
    double deadline = seconds_now() + WALL_SECONDS;
    size_t heard = 0;
    bool late = false, flood = false, ended = false, more = true;
    while (!ended && !late && !flood) {
        if (more) poll(ends, 2, 50);
        else poll(NULL, 0, 1);
        pid_t got = waitpid(child, &a.status, WNOHANG); // first, so that all it wrote before is read below
        ended = got == child || (got < 0 && errno != EINTR);
        late = seconds_now() > deadline;
        if (more) more = listen(ends, &a, &heard, &flood);
    }
    sandbox_end(child);
    while (more && !flood && poll(ends, 2, 0) > 0) more = listen(ends, &a, &heard, &flood);
    close(answers[0]), close(said[0]);
    if (!ended) {
        kill(child, SIGKILL);
        while (waitpid(child, &a.status, 0) < 0 && errno == EINTR) ;
    }
    say_how(&a, late, flood);
    return a;
}

Answers run(const char *program, const char *task, uint64_t own)
{
    char number[32], place[1024];
    char *arguments[] = { (char *)(uintptr_t)program, (char *)(uintptr_t)task, NULL };
    snprintf(number, sizeof number, "%llu", (unsigned long long)own);
    snprintf(place, sizeof place, "%s/empty", workshop);
    return watch((Sandbox){ .directory = place, .loader = !static_programs }, arguments, number);
}

bool compile(const char *compiler, char said[MOST_SAID + 1])
{
    char place[1024];
    static const char *const options[] = { "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-DREAL=double", "-DPOISON", "-Iinclude", "-Iinclude/assignments", "-w",
                                           "-c", "t.c", "-o", "out/t.o", NULL };
    char *arguments[16] = { (char *)(uintptr_t)compiler };
    for (int i = 0; options[i] != NULL; i++) arguments[i + 1] = (char *)(uintptr_t)options[i];
    snprintf(place, sizeof place, "%s/room", workshop);
    Answers a = watch((Sandbox){ .directory = place, .compiler = true }, arguments, "");
    memcpy(said, a.said, sizeof a.said);
    if (a.how[0] != '\0' && said[0] == '\0') snprintf(said, MOST_SAID, "error: the compiler: %s", a.how);
    free(a.bytes);
    return a.how[0] == '\0';
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

// The engine is built in double, and what is expected is, too. A solution may add in float: this is more than that costs, and less than
// any mistake makes.
static const double TOLERANCE = 2e-5;

bool same_numbers(const double *a, const double *b, int64_t count)
{
    double largest = 0;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(b[i]));
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(a[i] - b[i]) <= TOLERANCE * largest)) return false;
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
        double own = fabs(ours.values[i] - expected[i]) / fmax(fabs(expected[i]), 0.1 * largest);
        if (!(own <= TOLERANCE)) differ++;
        if (!(own <= error)) error = own, worst = i;
    }
    if (differ == 0) return award(j, weight, true, " ");
    const char *hint = NULL;
    for (; known != NULL && known->values != NULL && hint == NULL; known++)
        if (same_numbers(ours.values, known->values, count)) hint = known->hint;
    double times = ours.values[worst] / expected[worst];
    if (isnan(ours.values[worst])) hint = "nan is what memory holds here until something is written to it";
    char pattern[160], ratio[64] = "no number";
    if (isfinite(times)) snprintf(ratio, sizeof ratio, "%.4g times what it should be", times);
    if (hint == NULL) {
        gradient_hint(pattern, sizeof pattern, ours.values, expected, count, (int)(count / columns), columns, largest);
        hint = pattern;
    }
    return award(j, weight, false, "%s: at [%" PRId64 ",%" PRId64 "] yours is %s (%s)\n     %" PRId64 " of %" PRId64 " entries differ\n     hint: %s", what,
                 worst / columns, worst % columns, ratio, whence, differ, count, hint);
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
