// test_runs.c - the word that a run gives: nothing that was trained is lost without need, what can be known before the first
// step is said before it, and what is printed and written at the end is what it says it is.
//
// What file.c calls of open, write, fsync and rename, and training and the programs of backward, transformer_loss and seconds_now,
// comes to the functions named arranged_: they fail, count, raise signals and tell a time of their own when a test says so.

#include "../io/progress.h"
#include "../training.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int     arranged_open(const char *path, int flags, ...);
static ssize_t arranged_write(int file, const void *bytes, size_t n);
static int     arranged_fsync(int file);
static int     arranged_rename(const char *from, const char *to);
static double  arranged_seconds_now(void);
static void    arranged_backward(Tape *tape, Tensor *loss);
static Tensor *arranged_transformer_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T);

#define open   arranged_open
#define write  arranged_write
#define fsync  arranged_fsync
#define rename arranged_rename
#include "../io/file.c"
#undef open
#undef write
#undef fsync
#undef rename

#define backward         arranged_backward
#define transformer_loss arranged_transformer_loss
#define seconds_now      arranged_seconds_now
#include "../training.c"
#define scaled progress_scaled // kernels.h has another
#include "../io/progress.c"
#undef scaled
#include "programs.h"
#undef backward
#undef transformer_loss
#undef seconds_now

#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

static char error[1024];
static const char *printed_file;

// -------------------------------------------------------------------------------------------------------- what can be arranged

typedef enum Call { NO_CALL, OPEN, WRITE, FSYNC, RENAME, CALLS } Call;
static const char *const call_names[CALLS] = { "", "open", "write", "fsync", "rename" };
static Call fault;            // which call fails
static int64_t fault_at;      // the how manieth of them, from 1,
static bool for_good;         // ... and all after it
static int64_t *shared;       // [0]: such calls so far, of the child

static int64_t step_now = -1; // counts backward, from 0
static int64_t stop_step = -1, delete_step = -1, disturb_step = -1; // asks to stop, deletes @run, changes the base after this step
static int stop_signal = SIGTERM;
static bool no_steps;         // a step is a failure
static int64_t stop_evaluation = -1, evaluations; // asks to stop in the how manieth batch of an evaluation
static bool own_time;
static double time_now, step_seconds, character_seconds; // of an evaluated character

static bool fails(Call call)
{
    if (call != fault) return false;
    int64_t count = ++shared[0];
    errno = ENOSPC;
    return for_good ? count >= fault_at : count == fault_at;
}

static int arranged_open(const char *path, int flags, ...)
{
    if (!(flags & O_CREAT)) return open(path, flags);
    va_list rest;
    va_start(rest, flags);
    int mode = va_arg(rest, int);
    va_end(rest);
    return strcmp(path, prints_to) != 0 && fails(OPEN) ? -1 : open(path, flags, mode);
}
static ssize_t arranged_write(int file, const void *bytes, size_t n)
{ return file > STDERR_FILENO && fails(WRITE) ? -1 : write(file, bytes, n); }
static int arranged_fsync(int file) { (void)file; return fails(FSYNC) ? -1 : 0; } // nothing here outlives the test
static int arranged_rename(const char *from, const char *to) { return fails(RENAME) ? -1 : rename(from, to); }
static double arranged_seconds_now(void) { return own_time ? time_now : seconds_now(); }

static const Transformer *trained;
static Tensor *arranged_transformer_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T)
{
    trained = model;
    if (tape != NULL && no_steps) _exit(97);
    time_now += tape != NULL ? step_seconds : character_seconds * B * T;
    if (tape == NULL && evaluations++ == stop_evaluation) raise(stop_signal);
    return transformer_loss(model, tape, ids, targets, B, T);
}
static void arranged_backward(Tape *tape, Tensor *loss)
{
    backward(tape, loss);
    step_now++;
    if (step_now == stop_step) raise(stop_signal);
    if (step_now == delete_step) remove_all(in_root("run"));
    if (step_now == disturb_step) trained->wte->data[3] += (real)1e-4;
}

static bool file_has(const char *name, const char *words)
{
    char *text = text_of(in_root(name));
    bool found = strstr(text, words) != NULL;
    free(text);
    return found;
}

static bool is_there(const char *name) { return access(in_root(name), F_OK) == 0; }

// The step of the save in @run; -1: none that can be loaded.
static int64_t saved_step(void)
{
    TrainingState state;
    if (!state_load(in_root("run"), NULL, &state, error, sizeof error)) return -1;
    int64_t step = state.step;
    state_free(&state);
    return step;
}

static int temporary_files(void)
{
    int count = 0;
    DIR *d = opendir(in_root("run"));
    for (struct dirent *e; d && (e = readdir(d));) count += strncmp(e->d_name, ".meltwater", 10) == 0;
    if (d) closedir(d);
    return count;
}

#define SMALL "--data @text.txt --n-layer 1 --n-head 2 --n-embd 8 --block-size 8 --batch-size 2 --threads 1 --warmup-iters 1 "
#define ADAPTER "--data @text.txt --init @base --lora-r 2 --batch-size 2 --threads 1 --warmup-iters 1 "

// ------------------------------------------------------------------------------------------------- every write of every file

// Whichever call fails, there is one line that says which file, why and what to do, and what was saved before can be loaded.
static void each_call_fails(const char *what, int (*main_)(int argc, char **argv), const char *start, const char *line)
{
    for (fault = OPEN; fault < CALLS; fault++)
        for (int mode = 0; mode < (fault == WRITE ? 2 : 1); mode++) {
            int64_t tried = 0;
            for (fault_at = 1, for_good = mode; fault_at < 2000; fault_at++, tried++) {
                if (start) copy_directory(in_root(start), in_root("run"));
                else remove_all(in_root("run"));
                shared[0] = 0;
                int status = run(main_, line);
                if (shared[0] < fault_at) { // none failed
                    EXPECT(status == 0, "%s, without a fault: status %d, said: %s", what, status, said);
                    break;
                }
                const char *path = strstr(said, in_root("run"));
                EXPECT(status == 1 && one_line(said) && path && strstr(said, "No space left on device; free some space"),
                       "%s, %s number %" PRId64 " fails: status %d, said: %s", what, call_names[fault], fault_at, status, said);
                EXPECT(temporary_files() == 0, "%s, %s number %" PRId64 " fails: temporary files are left", what, call_names[fault], fault_at);
                if (main_ != train_main) continue;
                int64_t step = saved_step();
                bool later = strstr(said, "log.csv is not complete") || strstr(said, "metrics.json");
                EXPECT(step == 2 || step == 4 || (start && step == 3) || (step < 0 && !start && !is_there("run/training_state.safetensors")),
                       "%s, %s number %" PRId64 " fails: a save of step %" PRId64 ": %s", what, call_names[fault], fault_at, step, error);
                EXPECT(!strstr(said, "not complete") || step == 4, "%s: %d %s: the run was lost with its log", what, later, said);
            }
            EXPECT(tried > 1, "%s: %" PRId64 " calls of %s", what, tried, call_names[fault]);
        }
    fault = NO_CALL;
}

TEST(each_write_of_a_run_fails_in_turn)
{
    each_call_fails("a new run", train_main, NULL, "--out @run --max-iters 4 --eval-interval 2 " SMALL);
    each_call_fails("going on", train_main, "started", "--out @run --resume --max-iters 4");
}
TEST(each_write_of_a_run_of_lora_fails_in_turn)
{
    each_call_fails("LoRA", train_main, NULL, "--out @run --max-iters 4 --eval-interval 2 " ADAPTER);
    each_call_fails("in the place of another", train_main, "adapter", "--out @run --overwrite --max-iters 4 --eval-interval 2 --lora-targets c_fc " ADAPTER);
}
TEST(each_write_of_a_merge_fails_in_turn)
{
    each_call_fails("merge", adapter_main, NULL, "merge @adapter --out @run");
    each_call_fails("merge over a model", adapter_main, "started", "merge @adapter --out @run --overwrite");
}

// ------------------------------------------------------------------------------------------------- known before the first step

static int64_t room;
static void on_a_full_disk(void)
{
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){ (rlim_t)room, (rlim_t)room });
    program_deed();
}

static void as_nobody(void)
{
    if (geteuid() == 0 && seteuid(65534) != 0) _exit(99);
    program_deed();
}

static void expect_no_step(const char *line, void (*deed)(void), int status, const char *words)
{
    no_steps = true;
    arguments_are(line);
    int got = in_child(deed);
    no_steps = false;
    EXPECT(got == status && one_line(said) && strstr(said, words), "%s: status %d%s, said: %s", line, got, got == 97 ? ", a step was made" : "", said);
}

TEST(what_is_in_the_way_of_a_save_is_found_before_the_first_step)
{
    static const char *const in_the_way[] = { "model.safetensors", "config.json", "tokenizer.json", "training_state.safetensors", "log.csv", "metrics.json" };
    remove_all(in_root("run"));
    must(file_make_directories(in_root("run"), message, sizeof message));
    chmod(root, 0755);
    chmod(in_root("run"), 0555);
    prints_to = "/dev/null";
    expect_no_step("--out @run " SMALL, as_nobody, 1, "Permission denied; check permissions");
    prints_to = printed_file;
    chmod(in_root("run"), 0755);
    for (int i = 0; i < 6; i++) {
        char path[100];
        remove_all(in_root("run"));
        snprintf(path, sizeof path, "run/%s", in_the_way[i]);
        must(file_make_directories(in_root(path), message, sizeof message));
        expect_no_step("--out @run --overwrite " SMALL, program_deed, 1, in_the_way[i]);
        EXPECT(temporary_files() == 0, "%s: temporary files are left", in_the_way[i]);
    }
    remove_all(in_root("run"));
    prints_to = "/dev/null";
    for (room = 0; room < 9000; room += 3000) expect_no_step("--out @run " SMALL, on_a_full_disk, 1, "File too large; free some space");
    prints_to = printed_file;
    copy_directory(in_root("base"), in_root("b\xff"));
    expect_no_step("--out @run --data @text.txt --init @b\xff --lora-r 2", program_deed, 2, "the base's path is not UTF-8");
    EXPECT(!is_there("run/adapter_model.safetensors") && temporary_files() == 0, "something is left");
}

TEST(a_model_is_not_replaced_without_a_word)
{
    static const struct { const char *start, *line, *what; } cases[] = {
        { "started", "--out @run --max-iters 2 " SMALL, "a model of 2 steps, validation loss " },
        { "adapter", "--out @run --max-iters 2 " ADAPTER, "an adapter of 3 steps, validation loss " },
    };
    for (int i = 0; i < 2; i++) {
        copy_directory(in_root(cases[i].start), in_root("run"));
        expect_no_step(cases[i].line, program_deed, 2, cases[i].what);
        char *log = text_of(in_root("run/log.csv")), *last = strrchr(log, '\n'), loss[40] = "", when[40];
        for (*last = '\0'; last > log && *last != '\n'; last--) ;
        for (int comma = 0; *last != '\0' && comma < 2; last++) comma += *last == ',';
        snprintf(loss, sizeof loss, "validation loss %.4f, of ", strtod(last, NULL));
        time_t now = time(NULL);
        strftime(when, sizeof when, ", of %Y-%m-%d ", localtime(&now));
        EXPECT(strstr(said, loss) && strstr(said, when), "not %s, %s: %s", loss, when, said);
        EXPECT(strstr(said, "go on with it by --resume, choose another --out, or replace it with --overwrite"), "%s", said);
        EXPECT(same_directory(in_root(cases[i].start), in_root("run")), "%s", message);
        free(log);
        char line[400];
        snprintf(line, sizeof line, "--overwrite --eval-interval 1 %s", cases[i].line);
        EXPECT(train(line) == 0 && saved_step() == 2 && file_has("run/log.csv", "\n1,"), "--overwrite: %s", said);
    }
    copy_directory(in_root("started"), in_root("run"));
    remove(in_root("run/training_state.safetensors")); // somebody else's model
    expect_no_step(cases[0].line, program_deed, 2, "; choose another --out, or replace it with --overwrite");
    EXPECT(!strstr(said, "steps") && !strstr(said, "--resume"), "%s", said);
}

// ------------------------------------------------------------------------------------------------------------------ signals

static void with_signals(void) // nohup and `&` may have set them aside
{
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    program_deed();
}

static void ask_again(int done) // between two renames
{
    if (done > 0) return;
    raise(SIGTERM);
    raise(SIGINT);
    raise(SIGHUP);
}

TEST(who_asks_twice_waits_for_the_save)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGPIPE };
    for (int i = 0; i < 4; i++) {
        remove_all(in_root("run"));
        arguments_are("--out @run --max-iters 90 --eval-interval 90 " SMALL);
        stop_step = 2, stop_signal = signals[i];
        file_commit_step = ask_again;
        int status = in_child(with_signals);
        stop_step = -1;
        file_commit_step = NULL;
        EXPECT(status == 128 + signals[i], "signal %d: status %d, said: %s", signals[i], status, said);
        EXPECT(saved_step() == 3, "signal %d: a save of step %" PRId64 ": %s", signals[i], saved_step(), error);
        EXPECT(strncmp(said, "train: stopping: once the step is done and saved this ends\n", 50) == 0, "signal %d said: %s", signals[i], said);
        EXPECT(file_has("printed", "stopped after step 3 and saved; go on with: ./train --resume --out "), "signal %d", signals[i]);
    }
}

static void without_hangup(void)
{
    signal(SIGHUP, SIG_IGN);
    program_deed();
}

TEST(nohup_is_obeyed)
{
    remove_all(in_root("run"));
    arguments_are("--out @run --max-iters 4 --eval-interval 4 " SMALL);
    stop_step = 1, stop_signal = SIGHUP;
    int status = in_child(without_hangup);
    stop_step = -1;
    EXPECT(status == 0 && saved_step() == 4, "status %d, step %" PRId64 ", said: %s", status, saved_step(), said);
}

TEST(the_last_evaluation_can_be_stopped)
{
    remove_all(in_root("run"));
    arguments_are("--out @run --max-iters 3 --eval-interval 3 " SMALL);
    stop_evaluation = QUICK_BATCHES + 1, stop_signal = SIGTERM;
    int status = in_child(with_signals);
    stop_evaluation = -1;
    EXPECT(status == 128 + SIGTERM && saved_step() == 3, "status %d, step %" PRId64 ", said: %s", status, saved_step(), said);
    EXPECT(file_has("printed", "stopped in the last evaluation; the model of step 3 is saved in ") && !file_has("printed", "final:"), "not said");
    EXPECT(!is_there("run/metrics.json"), "metrics of what was not measured");
}

// ----------------------------------------------------------------------------------------- closed descriptors, pipes, lost directories

static int closed_ones;
static void with_closed(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (closed_ones >> fd & 1) close(fd);
    exit(program(count_arguments(), vector));
}

TEST(a_closed_descriptor_gets_no_file)
{
    for (closed_ones = 1; closed_ones < 8; closed_ones++) {
        remove_all(in_root("run"));
        arguments_are("--out @run --max-iters 30 --eval-interval 10 --learning-rate 1e-9 --min-lr 1e-9 " ADAPTER); // warns on stderr
        int output = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);
        fflush(stdout);
        dup2(null, STDOUT_FILENO);
        int status = in_child(with_closed);
        fflush(stdout);
        dup2(output, STDOUT_FILENO);
        close(output), close(null);
        char *log = text_of(in_root("run/log.csv"));
        int rows = 0, wrong = 0;
        for (char *row = strtok(log, "\n"); row != NULL; row = strtok(NULL, "\n"), rows++)
            wrong += rows > 0 && (strspn(row, "0123456789.,e+-") != strlen(row) || !strchr(row, ','));
        EXPECT(status == 0 && rows == 7 && wrong == 0, "%d closed: status %d, %d rows, of which %d are none; said: %s", closed_ones, status, rows, wrong, said);
        free(log);
        EXPECT(saved_step() == 30, "%s", error);
    }
}

static void from_a_pipe(void)
{
    int ends[2];
    char *text = text_of(in_root("text.txt"));
    if (pipe(ends) != 0 || write(ends[1], text, strlen(text)) < 0) _exit(99);
    close(ends[1]);
    dup2(ends[0], STDIN_FILENO);
    program_deed();
}

static void from_a_file(void)
{
    int file = open(in_root("text.txt"), O_RDONLY);
    dup2(file, STDIN_FILENO);
    program_deed();
}

static void from_a_named_pipe(void)
{
    char *text = text_of(in_root("text.txt"));
    if (fork() == 0) {
        int pipe = open(in_root("pipe"), O_WRONLY);
        _exit(write(pipe, text, strlen(text)) < 0);
    }
    program_deed();
}

static void impatiently(void) // who opens a pipe into which nobody writes waits for ever
{
    alarm(10);
    program_deed();
}

TEST(a_text_from_a_pipe_is_asked_for_again)
{
    void (*const ways[])(void) = { from_a_pipe, from_a_file, from_a_named_pipe };
    EXPECT(mkfifo(in_root("pipe"), 0600) == 0, "%s", strerror(errno));
    for (int i = 0; i < 3; i++) {
        const char *data = i == 2 ? "@pipe" : "/dev/stdin";
        char line[300];
        remove_all(in_root("run"));
        snprintf(line, sizeof line, "--out @run --max-iters 2 --n-layer 1 --n-head 2 --n-embd 8 --block-size 8 --batch-size 2 --data %s", data);
        arguments_are(line);
        EXPECT(in_child(ways[i]) == 0 && file_has("printed", "cannot be read again"), "%d: %s", i, said);
        arguments_are("--resume --out @run --max-iters 3");
        EXPECT(in_child(impatiently) == 2 && one_line(said) && strstr(said, "does not say where its text is") && strstr(said, "--data"), "%s", said);
        snprintf(line, sizeof line, "--out @run --resume --max-iters 3 --data %s", data);
        arguments_are(line);
        EXPECT(in_child(ways[i]) == 0 && saved_step() == 3, "%s", said);
        EXPECT(train("--resume --out @run --max-iters 4 --data @text.txt") == 0 && saved_step() == 4, "%s", said);
        EXPECT(!file_has("printed", "again") && train("--resume --out @run --max-iters 5") == 0, "a file is where it was: %s", said);
    }
}

TEST(the_log_goes_where_the_save_goes)
{
    for (int when = 1; when < 12; when += 9) { // before the first save, and after it
        remove_all(in_root("run"));
        delete_step = when;
        int status = train("--out @run --max-iters 23 --eval-interval 4 " SMALL);
        delete_step = -1;
        EXPECT(status == (when < 4), "deleted after step %d: status %d, said: %s", when, status, said);
        EXPECT(saved_step() == 23 && is_there("run/model.safetensors") && is_there("run/metrics.json"), "step %" PRId64 ": %s", saved_step(), error);
        EXPECT(file_has("run/log.csv", "step,train_loss") && file_has("run/log.csv", "\n20,") && file_has("run/log.csv", "\n23,"), "the rows after step %d are lost", when);
    }
}

// ------------------------------------------------------------------------------------------- evaluation, by the definition

static double plain_loss(const Transformer *model, const int *tokens, int T) // of one window
{
    Tensor *logits = transformer_logits(model, NULL, tokens, 1, T);
    int V = model->config.vocab_size;
    double sum = 0;
    for (int t = 0; t < T; t++) {
        const real *row = logits->data + (int64_t)t * V;
        double total = 0;
        for (int v = 0; v < V; v++) total += exp((double)row[v]);
        sum += log(total) - (double)row[tokens[t + 1]];
    }
    tensor_drop(logits);
    return sum; // of T targets
}

static double plain_evaluation(const Transformer *model, const int *tokens, int64_t count, int64_t most)
{
    int64_t T = model->config.block_size, targets = count - 1, whole = targets / T, windows = targets > most ? most / T : whole;
    double sum = 0;
    for (int64_t k = 0; k < windows; k++) sum += plain_loss(model, tokens + k * whole / windows * T, (int)T);
    if (targets > most) return sum / (double)(windows * T);
    if (targets % T > 0) sum += plain_loss(model, tokens + whole * T, (int)(targets % T));
    return sum / (double)targets;
}

static double plain_estimate(const Transformer *model, const int *tokens, int64_t count, int B)
{
    int T = model->config.block_size;
    double sum = 0;
    for (int i = 0; i < 20 * B; i++) sum += plain_loss(model, tokens + random_bits(1, (uint64_t)i) % (uint64_t)(count - T), T);
    return sum / (20.0 * B * T);
}

static double metric(const char *key)
{
    char quoted[60], *text = text_of(in_root("run/metrics.json"));
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    char *at = strstr(text, quoted);
    double value = at ? strtod(at + strlen(quoted), NULL) : (double)NAN;
    free(text);
    return value;
}

TEST(losses_are_of_the_parts_that_they_name)
{
    static const int64_t limits[] = { 4000000, 37 };
    for (int i = 0; i < 2; i++) {
        remove_all(in_root("run"));
        evaluation_most = limits[i];
        int status = train("--out @run --max-iters 30 --eval-interval 30 --learning-rate 0.05 " SMALL "--block-size 6");
        EXPECT(status == 0, "status %d, said: %s", status, said);
        Vocabulary vocabulary;
        Text text;
        Transformer *model = model_load(in_root("run"), &vocabulary, message, sizeof message);
        must(model != NULL && text_read(in_root("text.txt"), 0, &vocabulary, 6, &text, message, sizeof message));
        int64_t val = text.count - text.train_count;
        EXPECT((val - 1) % 6 > 0, "choose another text: its last window is whole");
        double on_val = plain_evaluation(model, text.tokens + text.train_count, val, limits[i]);
        double on_train = plain_evaluation(model, text.tokens + text.train_count - val, val, limits[i]);
        double quick = plain_estimate(model, text.tokens + text.train_count, val, 2);
        EXPECT(fabs(metric("val_loss") - on_val) < 2e-5, "val_loss %g, by a plain loop %g", metric("val_loss"), on_val);
        EXPECT(fabs(metric("train_loss") - on_train) < 2e-5, "train_loss %g, by a plain loop %g", metric("train_loss"), on_train);
        EXPECT(fabs(on_val - on_train) > 1e-3 && fabs(on_val - quick) > 1e-3, "choose another text: %g %g %g", on_val, on_train, quick);
        char line[100], *log = text_of(in_root("run/log.csv")), *row = strstr(log, "\n30,");
        EXPECT(row && fabs(strtod(strchr(strchr(row, ',') + 1, ',') + 1, NULL) - quick) < 2e-5, "the log says %s, a plain loop %.6f", row ? row : "nothing", quick);
        snprintf(line, sizeof line, "final: train loss %.4f, val loss %.4f, ", metric("train_loss"), metric("val_loss"));
        EXPECT(file_has("printed", line), "not the last line: %s", line);
        EXPECT(file_has("printed", "evaluated: windows of 36 characters, evenly spaced over") == (i == 1), "whether all of it was read");
        free(log);
        text_free(&text);
        vocabulary_free(&vocabulary);
        transformer_free(model);
    }
    evaluation_most = 4000000;
}

// On a machine on which a step takes a second, and an evaluated character a tenth of one.
TEST(time_left_has_the_last_evaluation_in_it)
{
    remove_all(in_root("run"));
    own_time = true, step_seconds = 1, character_seconds = 0.1;
    int status = train("--out @run --max-iters 20 --eval-interval 10 " SMALL "--block-size 2");
    own_time = false, step_seconds = character_seconds = 0;
    EXPECT(status == 0, "status %d, said: %s", status, said);
    char *printed = text_of(in_root("printed")), *last = strstr(printed, "training 20/20"), *evaluating = strstr(printed, "evaluating");
    Text text;
    must(text_read(in_root("text.txt"), 0, NULL, 8, &text, message, sizeof message));
    int64_t characters = 2 * (text.count - text.train_count - 1);
    text_free(&text);
    char expected[100];
    snprintf(expected, sizeof expected, "  %.0f s left\n", 0.1 * (double)characters);
    EXPECT(last && strstr(last, expected) && strstr(last, expected) < strchr(last, '\n'), "not%s in: %s", expected, last);
    int lines = 0;
    for (char *at = evaluating; at && (at = strstr(at, "evaluating")) != NULL; at++) lines++;
    EXPECT(lines >= 5 && lines <= 10, "%d lines of the evaluation", lines);
    snprintf(expected, sizeof expected, "evaluating %" PRId64 "/%" PRId64 "  0k chars/s  0 s left\n", characters, characters);
    EXPECT(strstr(printed, expected), "%s is missing in: %s", expected, printed);
    free(printed);
}

// --------------------------------------------------------------------------------------------------- counts, and the frozen base

// What a step does is counted once, however many there were.
TEST(the_counts_are_of_one_step)
{
    static const char *const keys[] = { "dgrad", "wgrad", "wgrad_skipped", "wgrad_never_recorded", "adapter_gradients", "forward", "trainable_parameters", "all_parameters", "total" };
    static const double expected[2][5] = { { 9, 9, 0, 0, 0 }, { 8, 0, 8, 1, 4 } }; // four linears in two blocks, and the head; c_attn below all
    for (int form = 0; form < 2; form++) {
        double of[2][9];
        for (int i = 0; i < 2; i++) {
            char line[300];
            remove_all(in_root("run"));
            snprintf(line, sizeof line, "%s --out @run --max-iters %d", form ? ADAPTER : SMALL "--n-layer 2", i ? 9 : 2);
            EXPECT(train(line) == 0, "%s", said);
            for (int k = 0; k < 9; k++) of[i][k] = metric(keys[k]);
        }
        for (int k = 0; k < 9; k++) EXPECT(of[0][k] == of[1][k] && of[0][k] >= 0, "%s: %g after 2 steps, %g after 9", keys[k], of[0][k], of[1][k]);
        for (int k = 0; k < 5; k++) EXPECT(of[0][k] == expected[form][k], "%s: %g, not %g", keys[k], of[0][k], expected[form][k]);
    }
}

TEST(a_frozen_base_that_changed_is_an_error)
{
    for (int i = 0; i < 2; i++) {
        remove_all(in_root("run"));
        disturb_step = i ? 1 : -1;
        int status = train("--out @run --max-iters 4 " ADAPTER);
        disturb_step = -1;
        EXPECT(i ? status == 1 && one_line(said) && strstr(said, "the frozen base has changed") : status == 0, "status %d, said: %s", status, said);
        EXPECT(file_has("printed", "base: hash ") && file_has("printed", "final:") == !i, "what is printed");
    }
}

int main(void)
{
    parallel_set_threads(1);
    if (!make_root("runs")) return 1;
    prints_to = printed_file = strdup(in_root("printed"));
    int counter = open(in_root("calls"), O_RDWR | O_CREAT, 0600);
    if (counter < 0 || ftruncate(counter, sizeof *shared) != 0
        || (shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, counter, 0)) == MAP_FAILED) { perror(root); return 1; }
    int status = train("--out @started --max-iters 2 --eval-interval 2 " SMALL);
    if (status == 0) status = train("--out @base --max-iters 2 --eval-interval 2 --n-layer 2 --data @text.txt --n-head 2 --n-embd 8 --block-size 8 --batch-size 2");
    if (status == 0) status = train("--out @adapter --max-iters 3 " ADAPTER);
    if (status != 0) { printf("nothing to start from: %s", said); return 1; }
    RUN(each_write_of_a_run_fails_in_turn);
    RUN(each_write_of_a_run_of_lora_fails_in_turn);
    RUN(each_write_of_a_merge_fails_in_turn);
    RUN(what_is_in_the_way_of_a_save_is_found_before_the_first_step);
    RUN(a_model_is_not_replaced_without_a_word);
    RUN(who_asks_twice_waits_for_the_save);
    RUN(nohup_is_obeyed);
    RUN(the_last_evaluation_can_be_stopped);
    RUN(a_closed_descriptor_gets_no_file);
    RUN(a_text_from_a_pipe_is_asked_for_again);
    RUN(the_log_goes_where_the_save_goes);
    RUN(losses_are_of_the_parts_that_they_name);
    RUN(time_left_has_the_last_evaluation_in_it);
    RUN(the_counts_are_of_one_step);
    RUN(a_frozen_base_that_changed_is_an_error);
    remove_all(root);
    return test_summary();
}
