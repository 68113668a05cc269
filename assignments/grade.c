// grade.c - compiles each task's solution, runs its exercise, compares the numbers that it hands over, and awards the points.
//
//     grade OPTION... LIST      LIST has one line for each task (grade.sh writes it), of fields between tabs: task, points, function,
//                               file:line, title, source (the project's file with the student's function in it) or -, why there is none
//     --base DIR                the reference, compiled: engine.a, alone.a, runner.o, bytes_runner.o, include, symbols
//     --bugs DIR                L3.3's: bug-N.o, one of the engine's files, for odd N with the bug
//     --work DIR                a directory that is the grader's alone
//     --cc PATH, --static, --gold   the compiler; whether it can link without shared libraries, and with that linker
//     --seed N                  what the numbers and shapes are drawn from; or
//     --name TEXT --secret TEXT these: a student's own, which no message tells
//     --json FILE               results, in Gradescope's form: zeros first, the points at the end
//     --cache DIR               programs that were linked before (for course-check)
//     grade --examples          the numbers of Lab 3's worked shapes, for a handout
//     grade --escape PROGRAM    runs it where a solution runs, and prints what it says (escape.c)
//
// The checks are in judge_kernels.c and judge_labs.c. What is expected comes from there alone: from a forward pass in plain loops and
// central differences of it, or from properties that a right answer has. The student's process knows none of it, and no seed but its
// own exercise's. An answer counts only if the process came to its end by itself, said so, and every array is there. Points are those of
// assignments/tasks.txt; each check has a weight, and a task earns its points in proportion.

#include "judge.h"

#include "lab3.h"
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_TASKS = 64, MOST_PATH = 512, MOST_SYMBOLS = 4096, MOST_OBJECT = 1 << 22 };

static struct { const char *base, *bugs, *compiler, *json, *name, *secret, *cache; bool seeded, escape, gold; uint64_t seed; } options = { .bugs = "", .compiler = "/usr/bin/cc", .secret = "", .seed = 1 };

// ------------------------------------------------------------------------------------------------------------------- compiling

// Runs a tool of the grader's own; its standard output goes to the file `out`, if there is one.
static bool tool(const char *out, const char *const *arguments)
{
    int status = 1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int file = open(out ? out : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0600), nothing = open("/dev/null", O_WRONLY);
        dup2(file, STDOUT_FILENO);
        dup2(nothing, STDERR_FILENO);
        execvp(arguments[0], (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) ;
    return child > 0 && status == 0;
}

// Copies a regular file of at most MOST_OBJECT bytes, whatever else the path may have become.
static bool copy_file(const char *from, const char *to, int mode)
{
    struct stat about;
    char *bytes = malloc(MOST_OBJECT);
    int in = open(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK), out = -1;
    ssize_t size = -1;
    if (bytes != NULL && in >= 0 && fstat(in, &about) == 0 && S_ISREG(about.st_mode) && about.st_size <= MOST_OBJECT) size = read(in, bytes, MOST_OBJECT);
    if (size >= 0) unlink(to), out = open(to, O_WRONLY | O_CREAT | O_EXCL, mode);
    bool good = out >= 0 && write(out, bytes, (size_t)size) == size;
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    free(bytes);
    return good;
}

typedef struct Symbol { char name[120], type; } Symbol;

// What `nm -P` says of a file: names and types, in symbols[]; how many.
static int symbols_of(const char *list, Symbol *symbols)
{
    char line[1024];
    int count = 0;
    FILE *f = fopen(list, "r");
    while (f != NULL && count < MOST_SYMBOLS && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%119s %c", symbols[count].name, &symbols[count].type) == 2) {
#ifdef __APPLE__ // puts a line in front of C's names
            if (symbols[count].name[0] == '_') memmove(symbols[count].name, symbols[count].name + 1, strlen(symbols[count].name));
#endif
            count++;
        }
    if (f != NULL) fclose(f);
    return count;
}

// What a task may use of the C library: mathematics (also with f or l at its end), memory, strings, printing, and an end.
static bool is_plain(const char *name)
{
    static const char words[] = " sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh exp exp2 expm1 log log2 log10 log1p pow sqrt cbrt hypot "
        "fabs fmin fmax floor ceil round trunc fmod remainder ldexp frexp scalbn modf copysign erf erfc tgamma lgamma fma lround llround lrint llrint rint "
        "nearbyint fdim abs labs llabs div ldiv malloc calloc realloc free aligned_alloc memcpy memmove memset memcmp memchr strlen strcmp strncmp strcpy "
        "strchr strstr qsort printf puts putchar fprintf fputs fputc fflush fwrite putc snprintf vprintf vfprintf vsnprintf stdout stderr perror exit abort "
        "__assert_fail __stack_chk_fail _GLOBAL_OFFSET_TABLE_ __fpclassify __signbit __isnan __isinf __finite __memcpy_chk __memset_chk __printf_chk __snprintf_chk dyld_stub_binder __chkstk_darwin __stderrp __stdoutp ";
    char word[128];
    size_t length = strlen(name);
    snprintf(word, sizeof word, " %.120s ", name);
    if (strstr(words, word) != NULL) return true;
    if (length < 2 || (name[length - 1] != 'f' && name[length - 1] != 'l')) return false;
    word[length] = ' ', word[length + 1] = '\0';
    return strstr(words, word) != NULL;
}

// Every name that the object leaves to the linker is a function or constant of the engine, or plain; else says which is not.
static bool links_only_to_good(const char *object, Task *t)
{
    static Symbol engine[MOST_SYMBOLS], own[MOST_SYMBOLS];
    char list[MOST_PATH], path[MOST_PATH];
    snprintf(list, sizeof list, "%s/names", workshop);
    snprintf(path, sizeof path, "%s/symbols", options.base);
    if (!tool(list, (const char *const[]){ "nm", "-P", "-g", object, NULL })) return snprintf(t->reason, sizeof t->reason, "nm cannot read what the compiler made"), false;
    int count = symbols_of(list, own), known = symbols_of(path, engine);
    for (int i = 0; i < count; i++) {
        bool given = strchr("Uwv", own[i].type) != NULL && is_plain(own[i].name);
        for (int k = 0; k < known && !given; k++) given = strcmp(own[i].name, engine[k].name) == 0;
        if (given) continue;
        snprintf(t->reason, sizeof t->reason, strchr("Uwv", own[i].type) ? "it uses %s, which no task needs: the engine, mathematics, memory, strings and printing are there"
                 : "it defines %s for everybody: write `static`", own[i].name);
        return false;
    }
    return true;
}

// The first line of the compiler's with an error in it; it names the student's file and line.
static void say_error(Task *t, char *said)
{
    const char *found = said;
    for (char *line = strtok(said, "\n"); line != NULL; line = strtok(NULL, "\n"))
        if (strstr(line, "error") != NULL) { found = line; break; }
    snprintf(t->reason, sizeof t->reason, "it does not compile: %.400s", found[0] ? found : "the compiler was stopped at a limit");
}

static bool link_program(char *program, const char *name, const char *object, const char *other, bool alone, const char *runner)
{
    char archive[MOST_PATH], first[MOST_PATH];
    snprintf(program, MOST_PATH, "%s/%s", workshop, name);
    snprintf(archive, sizeof archive, "%s/%s.a", options.base, alone ? "alone" : "engine");
    snprintf(first, sizeof first, "%s/%s.o", options.base, runner);
    const char *arguments[16] = { options.compiler, static_programs ? "-static" : "-g" };
    int n = 2;
    arguments[n++] = object;
    if (options.gold) arguments[n++] = "-fuse-ld=gold";
    if (other != NULL) arguments[n++] = other;
    arguments[n++] = first;
    if (strcmp(runner, "bytes_runner") != 0) arguments[n++] = archive; // the formula has no engine to ask
    arguments[n++] = "-lm", arguments[n++] = "-lpthread";
    arguments[n++] = "-o", arguments[n++] = program;
    bool good = tool(NULL, arguments);
    if (good) chmod(program, 0755);
    return good;
}

static uint64_t hash_of_file(const char *path, uint64_t hash)
{
    unsigned char buffer[65536];
    FILE *f = fopen(path, "rb");
    for (size_t got; f != NULL && (got = fread(buffer, 1, sizeof buffer, f)) > 0; ) hash = hash_bytes(hash, buffer, got);
    if (f != NULL) fclose(f);
    return hash;
}

// L3.3's trees: the engine with bug-0.o, bug-1.o, ... in the place of one file: the odd ones have the bug.
static bool link_trees(Task *t, const char *object)
{
    char tree[MOST_PATH], name[32];
    for (t->trees = 0; t->trees < MOST_TREES; t->trees++) {
        snprintf(tree, sizeof tree, "%s/bug-%d.o", options.bugs, t->trees);
        snprintf(name, sizeof name, "tree-%d", t->trees);
        if (access(tree, R_OK) != 0) return true;
        if (!link_program(t->tree[t->trees], name, object, tree, false, "runner")) return false;
    }
    return true;
}

// Sets the task's program, or the reason why there is none. A gradient kernel is linked alone: the other tasks' kernels are stubs there,
// so that the work must be its own. (What is alone is told in tasks.txt.)
static void build(Task *t)
{
    char path[MOST_PATH], object[MOST_PATH], kept[MOST_PATH], said[MOST_SAID + 1];
    bool alone = strstr(t->function, "grad") != NULL;
    if (t->source[0] == '-') return;
    snprintf(kept, sizeof kept, "%s/%016" PRIx64, options.cache ? options.cache : "", hash_of_file(t->source, hash_bytes(HASH_START, t->id, strlen(t->id))));
    if (options.cache != NULL && access(kept, X_OK) == 0) { snprintf(t->program, sizeof t->program, "%s", kept); return; }
    snprintf(path, sizeof path, "%s/room/t.c", workshop);
    if (!copy_file(t->source, path, 0644)) { snprintf(t->reason, sizeof t->reason, "its file cannot be copied"); return; }
    if (!compile(options.compiler, said)) { say_error(t, said); return; }
    snprintf(path, sizeof path, "%s/room/out/t.o", workshop);
    snprintf(object, sizeof object, "%s/t.o", workshop);
    if (!copy_file(path, object, 0600)) { snprintf(t->reason, sizeof t->reason, "it compiles to more than %d bytes", MOST_OBJECT); return; }
    unlink(path);
    if (!links_only_to_good(object, t)) return;
    if (!link_program(t->program, "program", object, NULL, alone, strcmp(t->id, "L3.1") == 0 ? "bytes_runner" : "runner") || (strcmp(t->id, "L3.3") == 0 && !link_trees(t, object))) {
        t->program[0] = '\0';
        snprintf(t->reason, sizeof t->reason, "it does not link: it uses something that the engine does not have here");
    } else if (options.cache != NULL && t->trees == 0) copy_file(t->program, kept, 0755);
}

// --------------------------------------------------------------------------------------------------------------------- judging

static void judge(Task *t)
{
    seed = task_seed(options.seed, t->id);
    build(t);
    if (t->program[0] == '\0') {
        say(t, "     %s\n", t->reason);
        return;
    }
    Answers a = run(t->program, t->id, seed);
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
static bool write_json(const char *path, const Task *tasks, int count, double score, const char *remark)
{
    char temporary[1024];
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *f = fopen(temporary, "w");
    if (f == NULL) return false;
    fprintf(f, "{ \"score\": %g, \"output\": ", score);
    json_text(f, remark);
    fprintf(f, ", \"visibility\": \"visible\", \"stdout_visibility\": \"hidden\",\n  \"tests\": [");
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
    for (int i = 0; i < WORKED; i++) {
        Shape s = worked[i];
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

static int read_list(const char *path)
{
    int count = 0;
    char line[4096], points[32];
    FILE *f = path ? fopen(path, "r") : NULL;
    while (f != NULL && count < MOST_TASKS && fgets(line, sizeof line, f) != NULL) {
        Task *t = &tasks[count++];
        char *at = line;
        field(&at, t->id, sizeof t->id);
        field(&at, points, sizeof points);
        field(&at, t->function, sizeof t->function);
        field(&at, t->place, sizeof t->place);
        field(&at, t->title, sizeof t->title);
        field(&at, t->source, sizeof t->source);
        field(&at, t->reason, sizeof t->reason);
        t->points = strtod(points, NULL);
    }
    if (f != NULL) fclose(f);
    return count;
}

// The rest of the options, and LIST; NULL: something is wrong with them.
static const char *read_options(int argc, char **argv)
{
    const char *list = NULL;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(name, "--static") == 0) { static_programs = true; continue; }
        if (strcmp(name, "--gold") == 0) { options.gold = true; continue; }
        if (name[0] != '-') { list = name; continue; }
        if (value == NULL) return NULL;
        i++;
        if (strcmp(name, "--base") == 0) options.base = value;
        else if (strcmp(name, "--bugs") == 0) options.bugs = value;
        else if (strcmp(name, "--work") == 0) workshop = value;
        else if (strcmp(name, "--cc") == 0) options.compiler = value;
        else if (strcmp(name, "--json") == 0) options.json = value;
        else if (strcmp(name, "--cache") == 0) options.cache = value;
        else if (strcmp(name, "--name") == 0) options.name = value;
        else if (strcmp(name, "--secret") == 0) options.secret = value;
        else if (strcmp(name, "--seed") == 0) options.seed = strtoull(value, NULL, 10), options.seeded = true;
        else if (strcmp(name, "--escape") == 0) list = value, options.escape = true;
        else return NULL;
    }
    if (options.name != NULL && !options.seeded)
        options.seed = random_bits(hash_bytes(hash_bytes(HASH_START, options.secret, strlen(options.secret) + 1), options.name, strlen(options.name)), strlen(options.secret)) >> 1;
    return workshop ? list : NULL;
}

// The workshop: room, where the compiler works, with `out`, which is its user's; a directory that is empty; and the roots of both.
static void furnish(void)
{
    static const char *const rooms[] = { "room", "room/out", "room.root", "empty", "empty.root" };
    char path[MOST_PATH], include[MOST_PATH];
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/%s", workshop, rooms[i]);
        check(mkdir(path, 0755) == 0 || errno == EEXIST, "%s: %s", path, strerror(errno));
        if (i == 1) sandbox_owns(path);
    }
    if (options.base == NULL) return;
    snprintf(path, sizeof path, "%s/room/", workshop);
    snprintf(include, sizeof include, "%s/include", options.base);
    check(tool(NULL, (const char *const[]){ "cp", "-R", include, path, NULL }), "%s: cannot be copied", include);
}

static int escape(const char *program)
{
    furnish();
    Answers a = run(program, "escape", 1);
    printf("%s%s\n%s\n", a.said, a.how, sandbox_says());
    return WIFEXITED(a.status) && WEXITSTATUS(a.status) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    char remark[640] = "The grading did not come to its end: this is what was written before it began.";
    if (argc > 1 && strcmp(argv[1], "--examples") == 0) { examples(); return 0; }
    const char *list = read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    if (list != NULL && options.escape) return escape(list);
    int count = options.base ? read_list(list) : 0;
    if (count == 0) {
        fprintf(stderr, "grade: --base DIR --work DIR [OPTION...] LIST, with at least one task\n");
        return 2;
    }
    if (options.json != NULL && !write_json(options.json, tasks, count, 0, remark)) {
        fprintf(stderr, "grade: %s cannot be written: %s\n", options.json, strerror(errno));
        return 1;
    }
    furnish();
    for (int i = 0; i < count; i++) {
        Task *t = &tasks[i];
        judge(t);
        if (t->earned >= t->points) continue;
        if (options.name != NULL) say(t, "     step through it: make gdb TASK=%s\n", t->id);
        else say(t, "     step through it: make gdb TASK=%s SEED=%llu\n", t->id, (unsigned long long)options.seed);
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
    snprintf(remark, sizeof remark, "solutions ran with: %s", sandbox_says());
    printf("%s\n", remark);
    if (options.json != NULL && !write_json(options.json, tasks, count, score + extra, remark)) {
        fprintf(stderr, "grade: %s cannot be written: %s\n", options.json, strerror(errno));
        return 1;
    }
    return 0;
}
