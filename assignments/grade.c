// grade.c - runs each task's exercise in a process of its own, compares the numbers that it hands over, and awards the points.
//
//     grade [--seed N] [--json FILE] LIST      LIST has one line for each task (grade.sh writes it), of fields between tabs:
//                                              task, points, function, file:line, title, program, program with a bug, why there is none
//     grade --examples SEED                    the published numbers of Lab 3, for a handout
//
// The checks are in judge_kernels.c and judge_labs.c. What is expected comes from there alone: from a forward pass in plain loops and
// central differences of it, or from properties that a right answer has. The student's process knows none of it. It gets a pipe,
// processor time, memory and no files; an answer counts only if the process came to its end by itself, said so, and every array is
// there. Points are those of assignments/tasks.txt; each check has a weight, and a task earns its points in proportion.

#include "judge.h"

#include "lab3.h"

#include <errno.h>

enum { MOST_TASKS = 64 };

static void judge(Task *t)
{
    if (t->program[0] == '-') {
        say(t, "     %s\n", t->reason);
        return;
    }
    Answers a = run(t->program, t->id);
    Judge j = { .task = t, .answers = &a };
    bool known = true;
    if (judge_gradient(&j)) ;
    else if (strcmp(t->id, "L1.1") == 0) judge_chain(&j);
    else if (strcmp(t->id, "L1.4") == 0) judge_backward(&j);
    else if (strcmp(t->id, "L1.5") == 0) judge_product(&j);
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
        snprintf(shape, sizeof shape, "V %" PRId64 " T %" PRId64 " L %" PRId64 " H %" PRId64 " C %" PRId64 " r %" PRId64 " B %" PRId64 " bytes %" PRId64, s.V, s.T, s.L, s.H, s.C, s.r, s.B, s.bytes);
        for (int lora = 0; lora < 2; lora++) {
            lab3_memory(s, lora, &m[lora]);
            printf("%s %s: %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", lora ? "LoRA" : "full", shape, m[lora].weights, m[lora].adapters, m[lora].gradients, m[lora].moments, m[lora].kept);
        }
        lab3_claims(s, &c);
        printf("claims %s: %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", shape, c.gradient_bytes[0], c.gradient_bytes[1], c.moment_bytes[0], c.moment_bytes[1], c.dgrad[0],
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
