// test_faults.c - what happens when the system says no, or a number goes bad: every allocation failing in turn, threads that cannot be
// started, a full disk, directories that cannot be written, NaN and infinity in weights, gradients and loss.
//
// The engine's calls of malloc and its relatives, of pthread_create and fsync come to the functions named wrap_ below (wrap.h), and those
// of backward and transformer_loss in a training step to faulty_ ones. Each fault happens in a child of its own.

#include "wrap.h"

#include "../training.h"
static void    faulty_backward(Tape *tape, Tensor *loss);
static Tensor *faulty_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T);
#define backward faulty_backward
#define transformer_loss faulty_loss
#include "../training.c"
#undef backward
#undef transformer_loss

#include "programs.h"
#include "gradcheck.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/mount.h>
#endif
#include <sys/stat.h>

// -------------------------------------------------------------------------------------------------- allocations that fail

// Blocks that were asked for since `watching` and not freed, with the number of the request; and which request shall fail.
typedef struct Piece { void *at; size_t size; int64_t number; } Piece;
enum { PIECES = 1 << 14 };
static Piece pieces[PIECES];
static bool watching;
static int64_t *requests; // [0]: so far, of the child, [1]: the most bytes that it held: in memory that is shared with it
static int64_t held;      // bytes now
static int64_t fail_at;   // 0: none

static bool refuse(void)
{
    if (!watching || ++*requests != fail_at) return false;
    errno = ENOMEM;
    return true;
}

static size_t slot_of(const void *block)
{
    size_t slot = (size_t)random_bits(0, (uint64_t)(uintptr_t)block) % PIECES;
    while (pieces[slot].at != NULL && pieces[slot].at != block) slot = (slot + 1) % PIECES;
    return slot;
}

static void *note(void *block, size_t size)
{
    if (!watching || block == NULL) return block;
    pieces[slot_of(block)] = (Piece){ block, size, *requests };
    if ((held += (int64_t)size) > requests[1]) requests[1] = held;
    return block;
}

// What was freed stays in its slot with size 0, so that later ones are still found.
static void forget(void *block)
{
    if (!watching || block == NULL) return;
    Piece *piece = &pieces[slot_of(block)];
    held -= (int64_t)piece->size;
    piece->size = 0, piece->number = 0;
}

void *wrap_malloc(size_t size) { return refuse() ? NULL : note((malloc)(size), size); }
void *wrap_calloc(size_t count, size_t size) { return refuse() ? NULL : note((calloc)(count, size), count * size); }
void *wrap_aligned_alloc(size_t alignment, size_t size) { return refuse() ? NULL : note((aligned_alloc)(alignment, size), size); }
char *wrap_strdup(const char *text) { return refuse() ? NULL : note((strdup)(text), strlen(text) + 1); }
void *wrap_realloc(void *old, size_t size)
{
    if (refuse()) return NULL;
    forget(old);
    return note((realloc)(old, size), size);
}
void wrap_free(void *block)
{
    forget(block);
    (free)(block);
}

int wrap_fsync(int file) { (void)file; return 0; } // nothing here outlives the test, and waiting for the disk takes minutes

static bool no_threads;
int wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    return no_threads ? EAGAIN : (pthread_create)(thread, attributes, start, argument);
}

// --------------------------------------------------------------------------------------------------------------- numbers that go bad

static int64_t stop_step = -1;               // the step in which the run is asked to stop
static int64_t poison_step = -1, steps_seen; // the step whose gradient or loss goes bad
static const char *poison_tensor;         // the end of its name; NULL: the loss
static int64_t poison_index;
static real poison_value;
static Transformer *poisoned_model;

static Tensor *faulty_loss(const Transformer *model, Tape *tape, const int *ids, const int *targets, int B, int T)
{
    Tensor *loss = transformer_loss(model, tape, ids, targets, B, T);
    if (tape == NULL) return loss; // an evaluation
    poisoned_model = (Transformer *)(uintptr_t)model;
    if (steps_seen == poison_step && poison_tensor == NULL) loss->data[0] = poison_value;
    return loss;
}

static void faulty_backward(Tape *tape, Tensor *loss)
{
    backward(tape, loss);
    if (steps_seen == stop_step) raise(SIGTERM);
    if (steps_seen++ != poison_step || poison_tensor == NULL) return;
    for (int i = 0; i < poisoned_model->parameter_count; i++) {
        Tensor *t = poisoned_model->parameters[i];
        size_t length = strlen(t->name), end = strlen(poison_tensor);
        if (length >= end && strcmp(t->name + length - end, poison_tensor) == 0) t->grad[poison_index] = poison_value;
    }
}

// -------------------------------------------------------------------------------------------------------- every allocation in turn

enum { V = 7, T = 5, L = 2, H = 2, C = 8, B = 2 };
static const int tokens[B * T + 1] = { 3, 1, 4, 1, 5, 6, 2, 6, 5, 3, 5 };

static char error[1024];

// The deeds return what they could do, or after `error` says why not; all that they took is given back. A child reports with 10 (done)
// or 11 (refused with a clear line); the engine itself ends it with 1.
enum { STRIDE = IN_DOUBLE ? 5 : EVERY }; // the fast float build takes every single one
typedef bool (*Deed)(void);
static Deed deed;

static Transformer *new_model(void)
{
    return transformer_new((Config){ V, T, L, H, C, 0.1 }, 5, error, sizeof error);
}

static const LoraConfig lora = { .r = 2, .alpha = 3, .targets = (1 << LINEARS) - 1, .last_block = -1 };

static bool step_deed(void) // full, and LoRA with recomputation; two steps each
{
    for (int form = 0; form < 2; form++) {
        Transformer *model = new_model();
        if (model == NULL) return false;
        if (form == 1) {
            transformer_train_base(model, false);
            if (transformer_add_adapter(model, "a", lora, 3, error, sizeof error) == NULL) { transformer_free(model); return false; }
            model->recompute = true;
        }
        AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
        Tape *tape = tape_new();
        for (int step = 0; step < 2; step++) {
            backward(tape, transformer_loss(model, tape, tokens, tokens + 1, B, T));
            tape_clear(tape);
            adamw_step(optimizer, 0.01);
            zero_grads(model);
        }
        adamw_free(optimizer);
        tape_free(tape);
        transformer_merge(model);
        transformer_free(model);
    }
    return true;
}

static bool text_deed(void)
{
    Text text = { 0 };
    if (!text_read(in_root("text.txt"), 0, NULL, T, &text, error, sizeof error)) return false;
    int batch[2 * B * T];
    text_batch(&text, B, T, 1, 1, batch, batch + B * T);
    Vocabulary copy;
    bool good = vocabulary_copy(&text.vocabulary, &copy);
    if (good) vocabulary_free(&copy);
    else snprintf(error, sizeof error, "out of memory"); // whose caller says so
    text_free(&text);
    return good;
}

static bool builtin_deed(void)
{
    Text text = { 0 };
    bool good = text_read("builtin:robot", 1000, NULL, T, &text, error, sizeof error);
    if (good) text_free(&text);
    return good;
}

static bool model_deed(void)
{
    Vocabulary vocabulary = { 0 };
    Transformer *model = model_load(in_root("full"), &vocabulary, error, sizeof error);
    if (model == NULL) return false;
    // model_load says only that there is no vocabulary; vocabulary_load says why, and here it would succeed: one request fails, no more
    bool whole = vocabulary.size > 0;
    if (!whole) snprintf(error, sizeof error, "out of memory for the vocabulary");
    bool good = whole && model_save(model, &vocabulary, in_root("saved"), error, sizeof error);
    vocabulary_free(&vocabulary);
    transformer_free(model);
    return good;
}

static bool adapter_deed(void)
{
    Transformer *model = model_load(in_root("full"), NULL, error, sizeof error);
    if (model == NULL) return false;
    uint64_t hash = transformer_hash(model);
    char base[300];
    Adapter *adapter = NULL;
    bool good = adapter_base(in_root("lora"), base, sizeof base, error, sizeof error) &&
                (adapter = adapter_load(model, in_root("lora"), "a", false, error, sizeof error)) != NULL &&
                adapter_save(model, adapter, base, in_root("saved"), error, sizeof error);
    check(adapter != NULL || (model->adapters == NULL && model->parameter_count == model->base_count), "a refused adapter is half there");
    check(transformer_hash(model) == hash, "the base has changed");
    transformer_free(model);
    return good;
}

static bool state_deed(void)
{
    TrainingState state;
    for (int form = 0; form < 2; form++) {
        if (!state_load(in_root(form ? "lora" : "full"), NULL, &state, error, sizeof error)) {
            check(state.model == NULL && state.optimizer == NULL, "a refused state is half there");
            return false;
        }
        bool good = state_save(in_root("saved"), &state, error, sizeof error);
        state_free(&state);
        if (!good) return false;
    }
    return true;
}

#ifdef POISON // a debug build frees no header
#define MAY_STAY(size) ((size) == sizeof(Tensor))
#else
#define MAY_STAY(size) false
#endif

// Ends the child with what came of it.
static void counted_deed(void)
{
    quietly();
    watching = true;
    bool done = deed();
    scratch_release();
    memory_release_pool();
    watching = false;
    for (int i = 0; i < PIECES; i++)
        if (pieces[i].size > 0 && !MAY_STAY(pieces[i].size)) {
            fprintf(stderr, "the block of %zu bytes of request %" PRId64 " was never freed\n", pieces[i].size, pieces[i].number);
            _exit(12);
        }
    if (!done) fprintf(stderr, "%s\n", error);
    _exit(done ? 10 : 11);
}

// How many requests a child makes, and its status.
static int counted(void (*what)(void))
{
    requests[0] = requests[1] = 0;
    return in_child(what);
}

// EVERY_REQUEST in the environment: really each fails (`make test-all`); else, where there are many, every seventh.
static int64_t stride_of(int64_t all) { return getenv("EVERY_REQUEST") ? 1 : all > 1000 ? 7 * STRIDE : STRIDE; }

// Lets each request of the deed fail in turn. One that saves in @saved may find another way: what it left must be right.
static void each_allocation_fails(const char *what, Deed which, bool saves)
{
    deed = which;
    fail_at = 0;
    int status = counted(counted_deed);
    if (status == 10 && saves) status = counted(counted_deed); // over an older save, as all that follow
    int64_t all = *requests, stride = stride_of(all), refused = 0;
    EXPECT(status == 10 && all >= 3, "%s, without a fault: status %d after %" PRId64 " requests, said: %s", what, status, all, said);
    if (saves) copy_directory(in_root("saved"), in_root("right"));
    for (fail_at = 1; fail_at <= all; fail_at += stride) {
        status = counted(counted_deed);
        if (status == 10 && saves) EXPECT(same_directory(in_root("right"), in_root("saved")), "%s, request %" PRId64 " fails, nobody says so, and %s", what, fail_at, message);
        if (status == 10 && saves) continue;
        refused++;
        EXPECT(status == 1 || status == 11, "%s, request %" PRId64 " fails: %s, said: %s", what, fail_at,
               status < 0 ? "it crashed" : status == 12 ? "a leak" : status == 10 ? "nobody noticed" : "an unexpected status", said);
        EXPECT(one_line(said) && strstr(said, "memory"), "%s, request %" PRId64 " fails: not one line that speaks of memory: %s", what, fail_at, said);
    }
    EXPECT(refused > all / stride * 9 / 10, "%s: of %" PRId64 " requests, every %" PRId64 "., %" PRId64 " that failed were an error", what, all, stride, refused);
    fail_at = 0;
}

TEST(every_allocation_of_a_step_fails_in_turn) { each_allocation_fails("two training steps", step_deed, false); }
TEST(every_allocation_of_reading_a_text_fails_in_turn) { each_allocation_fails("reading a text", text_deed, false); each_allocation_fails("making a text", builtin_deed, false); }
TEST(every_allocation_of_a_model_file_fails_in_turn) { each_allocation_fails("loading and saving a model", model_deed, true); }
TEST(every_allocation_of_an_adapter_file_fails_in_turn) { each_allocation_fails("loading and saving an adapter", adapter_deed, true); }
TEST(every_allocation_of_a_state_file_fails_in_turn) { each_allocation_fails("loading and saving a state", state_deed, true); }

static void watched_program(void)
{
    watching = true;
    program_deed();
}

// What is in @run after a run that failed: a whole save, of the step that was there before or of a later one.
static void expect_a_save(const char *what)
{
    TrainingState state;
    bool good = state_load(in_root("run"), NULL, &state, error, sizeof error);
    EXPECT(good && state.step >= 2, "%s, request %" PRId64 " failed: %s", what, fail_at, good ? "a save of too early a step is there" : error);
    if (good) state_free(&state);
}

static void expect_a_model(const char *what)
{
    Vocabulary vocabulary = { 0 };
    Transformer *model = model_load(in_root("run"), &vocabulary, error, sizeof error);
    EXPECT(model != NULL && vocabulary.size > 0, "%s, request %" PRId64 " failed, and no whole model is there: %s", what, fail_at, error);
    vocabulary_free(&vocabulary);
    transformer_free(model);
}

static const char *program_of(int (*main_)(int argc, char **argv)) // as a message begins
{
    return main_ == train_main ? "train: " : main_ == sample_main ? "sample: " : "adapter: ";
}

// The programs, as a user calls them, on a directory @run that holds the save `start`. Whichever request fails, either there is one
// line that says so and what was in the directory is whole, or the program found another way and left what it should.
static void each_allocation_of_a_program_fails(const char *what, int (*main_)(int argc, char **argv), const char *start, const char *line)
{
    program = main_;
    arguments_are(line);
    copy_directory(in_root(start), in_root("run"));
    fail_at = 0;
    int status = counted(watched_program);
    int64_t all = *requests, stride = stride_of(10 * all), refused = 0;
    EXPECT(status == 0 && all > 100, "%s, without a fault: status %d after %" PRId64 " requests, said: %s", what, status, all, said);
    copy_directory(in_root("run"), in_root("right"));
    for (fail_at = 1; fail_at <= all; fail_at += stride) {
        copy_directory(in_root(start), in_root("run"));
        status = counted(watched_program);
        refused += status == 1;
        if (status == 0) EXPECT(same_directory(in_root("right"), in_root("run")), "%s, request %" PRId64 " fails, nobody says so, and %s", what, fail_at, message);
        else EXPECT(status == 1 && one_line(said) && strstr(said, "memory") && strncmp(said, program_of(main_), 6) == 0, "%s, request %" PRId64 " fails: status %d, said: %s", what, fail_at, status, said);
        if (main_ == train_main) expect_a_save(what);
        else expect_a_model(what);
    }
    EXPECT(refused > all / stride / 2, "%s: of %" PRId64 " requests, every %" PRId64 "., %" PRId64 " that failed were an error", what, all, stride, refused);
    fail_at = 0;
    program = train_main;
}

static const char *const resumed = "--data @text.txt --resume --out @run --max-iters 4 --eval-interval 2 --batch-size 2 --threads 1";

TEST(every_allocation_of_a_new_run_fails_in_turn)
{
    each_allocation_of_a_program_fails("train", train_main, "full", "--data @text.txt --out @run --overwrite --n-layer 2 --n-head 2 --n-embd 8 --block-size 8 --batch-size 2 --max-iters 3 "
                                       "--eval-interval 3 --threads 1");
}
TEST(every_allocation_of_a_new_run_of_lora_fails_in_turn)
{
    each_allocation_of_a_program_fails("train with LoRA", train_main, "lora", "--data @text.txt --init @full --lora-r 2 --out @run --overwrite --batch-size 2 --max-iters 3 --eval-interval 3 --threads 1");
}
TEST(every_allocation_of_a_new_run_on_codes_fails_in_turn)
{
    each_allocation_of_a_program_fails("train on codes", train_main, "lora", "--data @text.txt --init @full --lora-r 2 --base-type nf4 --out @run --overwrite --batch-size 2 --max-iters 3 --eval-interval 3 --threads 1");
}
TEST(every_allocation_of_a_resumed_run_fails_in_turn) { each_allocation_of_a_program_fails("train --resume", train_main, "full", resumed); }
TEST(every_allocation_of_a_resumed_run_of_lora_fails_in_turn) { each_allocation_of_a_program_fails("train --resume with LoRA", train_main, "lora", resumed); }
TEST(every_allocation_of_sampling_fails_in_turn)
{
    each_allocation_of_a_program_fails("sample", sample_main, "full", "--model @run --adapter @lora --prompt The --length 3 --threads 1");
}
TEST(every_allocation_of_the_adapter_program_fails_in_turn)
{
    each_allocation_of_a_program_fails("adapter merge", adapter_main, "full", "merge @lora --out @run --overwrite");
    each_allocation_of_a_program_fails("adapter merge into codes", adapter_main, "full", "merge @lora --out @run --base-type int8 --overwrite");
    each_allocation_of_a_program_fails("adapter info", adapter_main, "full", "info @lora --model @run");
    each_allocation_of_a_program_fails("adapter info of codes", adapter_main, "full", "info @lora --model @run --base-type nf4");
    each_allocation_of_a_program_fails("adapter diff", adapter_main, "full", "diff @lora @lora --model @run");
}

// What a run holds depends neither on how many steps it has made nor on how many are to come.
TEST(memory_does_not_grow_with_the_steps)
{
    static const struct { const char *iters; int64_t stop; } cases[] = { { "100", 60 }, { "10000000000", 60 }, { "10000000000", 3000 } };
    int64_t most[3];
    fail_at = 0;
    for (int i = 0; i < 3; i++) {
        char line[300];
        remove_all(in_root("run"));
        snprintf(line, sizeof line, "--data @text.txt --out @run --n-layer 1 --n-head 1 --n-embd 4 --block-size 4 --batch-size 1 --threads 1 "
                 "--max-iters %s --eval-interval %s", cases[i].iters, cases[i].iters);
        arguments_are(line);
        stop_step = cases[i].stop;
        int status = counted(watched_program);
        stop_step = -1;
        most[i] = requests[1];
        EXPECT(status == 128 + SIGTERM && most[i] > 10000, "status %d, at most %" PRId64 " bytes, said: %s", status, most[i], said);
    }
    EXPECT(most[1] < most[0] + 1000 && most[2] < most[1] + 1000, "at most %" PRId64 " bytes in a short run, %" PRId64 " in a long one, %" PRId64 " after more steps",
           most[0], most[1], most[2]);
}

// Asked to stop between two saves: it saves, and goes on as if nothing had happened.
TEST(a_resumed_run_ends_as_one_that_was_not_stopped)
{
    static const char *const starts[] = { "--n-layer 1 --n-head 2 --n-embd 8 --block-size 8 --dropout 0.1", "--init @full --lora-r 2 --lora-targets q,v" };
    for (int i = 0; i < 2; i++) {
        char line[400];
        remove_all(in_root("whole"));
        snprintf(line, sizeof line, "--data @text.txt %s --batch-size 2 --max-iters 9 --eval-interval 9 --warmup-iters 6 --out @whole", starts[i]);
        int status = train(line);
        EXPECT(status == 0, "status %d, said: %s", status, said);
        strcpy(strstr(line, "@whole"), "@run");
        remove_all(in_root("run"));
        stop_step = 3;
        status = train(line);
        stop_step = -1;
        EXPECT(status == 128 + SIGTERM, "asked to stop: status %d, said: %s", status, said);
        TrainingState state;
        bool good = state_load(in_root("run"), NULL, &state, error, sizeof error);
        EXPECT(good && state.step == 4, "stopped after step %" PRId64 ", not 4: %s", good ? state.step : -1, error);
        if (good) state_free(&state);
        status = train("--resume --out @run");
        EXPECT(status == 0 && same_directory(in_root("whole"), in_root("run")), "form %d: status %d, %s", i, status, status ? said : message);
    }
}

static void without_threads(void)
{
    no_threads = true;
    program_deed();
}

TEST(threads_that_cannot_be_started)
{
    parallel_set_threads(3);
    int threads = parallel_threads();
    parallel_set_threads(0);
    EXPECT(threads == 1 || threads == 3, "%d threads", threads);
    if (threads == 1) return; // the plain build starts none
    copy_directory(in_root("wide"), in_root("run"));
    arguments_are("--data @text.txt --out @run --overwrite --max-iters 4 --eval-interval 2 --batch-size 64 --threads 3");
    int status = in_child(without_threads);
    EXPECT(status == 1 && one_line(said) && strstr(said, "cannot start thread 2 of 3; try fewer --threads"), "status %d, said: %s", status, said);
    EXPECT(same_directory(in_root("wide"), in_root("run")), "the older run: %s", message);
    // going on, it saves first that it is to go further
    arguments_are("--data @text.txt --resume --out @run --max-iters 2 --threads 3");
    status = in_child(without_threads);
    EXPECT(status == 1 && one_line(said) && strstr(said, "cannot start thread 2 of 3; try fewer --threads"), "status %d, said: %s", status, said);
    TrainingState older, now;
    must(state_load(in_root("wide"), NULL, &older, message, sizeof message));
    bool good = state_load(in_root("run"), NULL, &now, error, sizeof error);
    EXPECT(good && now.step == 1 && transformer_hash(now.model) == transformer_hash(older.model), "the older run is lost: %s", good ? "other weights, or another step" : error);
    if (good) state_free(&now);
    state_free(&older);
}

// ---------------------------------------------------------------------------------------------- disks and directories that say no

static int64_t room; // bytes that a file may have
static void on_a_full_disk(void)
{
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){ (rlim_t)room, (rlim_t)room });
    program_deed();
}

TEST(a_full_disk_while_saving_leaves_the_last_checkpoint)
{
    static const char *const starts[] = { "full", "lora" };
    static const int64_t rooms[] = { 0, 100, 1000, 3000, 6000, 9000 };
    for (int i = 0; i < 2; i++)
        for (int r = 0; r < 6; r++) {
            copy_directory(in_root(starts[i]), in_root("run"));
            room = rooms[r];
            arguments_are("--data @text.txt --resume --out @run --max-iters 4 --eval-interval 2 --batch-size 2");
            int status = in_child(on_a_full_disk);
            if (i == 1 && status == 0 && r > 2) continue; // an adapter is small
            EXPECT(status == 1 && one_line(said) && strstr(said, "File too large") && strstr(said, "free some space"), "%s, room for %" PRId64 " bytes: status %d, said: %s", starts[i], room, status, said);
            TrainingState state;
            bool good = state_load(in_root("run"), NULL, &state, error, sizeof error);
            EXPECT(good && state.step == 2, "%s, room for %" PRId64 " bytes: the state is lost: %s", starts[i], room, good ? "another step" : error);
            if (good) state_free(&state);
            EXPECT(same_directory(in_root(starts[i]), in_root("run")), "%s, room for %" PRId64 " bytes: %s", starts[i], room, message);
        }
}

// The same for `adapter merge` over an older model.
TEST(a_full_disk_while_merging_leaves_the_older_model)
{
    static const int64_t rooms[] = { 0, 100, 1000, 3000, 6000, 9000 };
    Vocabulary vocabulary;
    Transformer *model = model_load(in_root("full"), &vocabulary, message, sizeof message);
    must(model != NULL && model_save(model, &vocabulary, in_root("whole-model"), message, sizeof message));
    vocabulary_free(&vocabulary);
    transformer_free(model);
    program = adapter_main;
    for (int r = 0; r < 6; r++) {
        copy_directory(in_root("whole-model"), in_root("run"));
        room = rooms[r];
        arguments_are("merge @lora --out @run --overwrite");
        int status = in_child(on_a_full_disk);
        EXPECT(status == 1 && one_line(said) && strstr(said, "File too large") && strstr(said, "free some space"), "room for %" PRId64 " bytes: status %d, said: %s", room, status, said);
        EXPECT(same_directory(in_root("whole-model"), in_root("run")), "room for %" PRId64 " bytes: %s", room, message);
    }
    program = train_main;
}

// A file system of its own, of 400 kB. Only root may make one, and not everywhere.
static bool small_disk(void)
{
#ifdef __linux__
    return file_make_directories(in_root("small"), message, sizeof message) && mount("tmpfs", in_root("small"), "tmpfs", 0, "size=400k,mode=755") == 0;
#else
    return false;
#endif
}

static void take_small_disk_away(void)
{
#ifdef __linux__
    if (umount2(in_root("small"), MNT_DETACH) != 0) perror(in_root("small"));
#endif
}

TEST(a_disk_that_is_really_full_leaves_the_last_checkpoint)
{
    copy_directory(in_root("full"), in_root("small/run"));
    FILE *rest = fopen(in_root("small/rest"), "w"); // takes what is left
    for (int i = 0; rest && i < 1 << 19; i++) fputc(0, rest);
    EXPECT(rest && fclose(rest) != 0, "there is room for half a megabyte on a disk of 400 kB");
    arguments_are("--data @text.txt --resume --out @small/run --max-iters 4 --eval-interval 2 --batch-size 2");
    int status = in_child(program_deed);
    EXPECT(status == 1 && one_line(said) && strstr(said, "No space left on device"), "status %d, said: %s", status, said);
    EXPECT(same_directory(in_root("full"), in_root("small/run")), "%s", message);
}

static void as_nobody(void) // root may write everywhere
{
    if (geteuid() == 0 && seteuid(65534) != 0) _exit(99);
    program_deed();
}

TEST(directories_that_cannot_be_written)
{
    static const char *const more = "--data @text.txt --n-layer 1 --n-head 1 --n-embd 8 --block-size 8 --batch-size 2 --max-iters 2 --eval-interval 2 --out";
    static const struct { const char *out, *word; } cases[] = {
        { "@closed/below", "Permission denied" }, { "@closed", "Permission denied" }, { "@text.txt/below", "Not a directory" }, { "/proc/nowhere", "cannot make the directory" },
    };
    must(file_make_directories(in_root("closed"), message, sizeof message));
    chmod(in_root("closed"), 0555);
    chmod(root, 0755);
    for (int i = 0; i < 4; i++) {
        char line[400];
        snprintf(line, sizeof line, "%s %s", more, cases[i].out);
        arguments_are(line);
        int status = in_child(as_nobody);
        EXPECT(status == 1 && one_line(said) && strstr(said, cases[i].word), "%s: status %d, said: %s", cases[i].out, status, said);
    }
    program = adapter_main; // merging is saving too
    arguments_are("merge @lora --out @closed/below");
    int status = in_child(as_nobody);
    program = train_main;
    EXPECT(status == 1 && one_line(said) && strstr(said, "Permission denied"), "merge: status %d, said: %s", status, said);
    // a directory that can be read but not written, with a checkpoint in it
    copy_directory(in_root("full"), in_root("run"));
    chmod(in_root("run"), 0555);
    arguments_are("--data @text.txt --resume --out @run --max-iters 4 --eval-interval 2 --batch-size 2");
    status = in_child(as_nobody);
    chmod(in_root("run"), 0755);
    EXPECT(status == 1 && one_line(said) && strstr(said, "Permission denied"), "status %d, said: %s", status, said);
    EXPECT(same_directory(in_root("full"), in_root("run")), "%s", message);
}

static void output_is_lost(void)
{
    int full = open("/dev/full", O_WRONLY);
    if (full < 0) _exit(77);
    dup2(full, STDOUT_FILENO);
    exit(train_main(count_arguments(), vector));
}

TEST(output_that_cannot_be_written_is_a_failure)
{
    copy_directory(in_root("full"), in_root("run"));
    arguments_are("--data @text.txt --resume --out @run --max-iters 4 --eval-interval 2 --batch-size 2");
    int status = in_child(output_is_lost);
    EXPECT((status == 1 && one_line(said) && strstr(said, "could not all be written")) || status == 77, "status %d, said: %s", status, said);
}

// ------------------------------------------------------------------------------------------------------------------- NaN and infinity

static void save_with(const char *name, const char *tensor, int64_t index, double value)
{
    copy_directory(in_root("full"), in_root(name));
    Vocabulary vocabulary;
    Transformer *model = model_load(in_root(name), &vocabulary, message, sizeof message);
    must(model != NULL);
    for (int i = 0; i < model->base_count; i++)
        if (strcmp(model->parameters[i]->name, tensor) == 0) model->parameters[i]->data[index] = (real)value;
    must(model_save(model, &vocabulary, in_root(name), message, sizeof message));
    vocabulary_free(&vocabulary);
    transformer_free(model);
}

TEST(a_weight_that_is_not_finite_stops_training)
{
    static const struct { const char *tensor; int64_t index; double value; const char *said; } cases[] = {
        { "transformer.h.1.mlp.c_fc.weight", 7, (double)NAN, "the weight transformer.h.1.mlp.c_fc.weight[7] is nan" },
        { "transformer.h.0.ln_1.bias", 3, (double)INFINITY, "the weight transformer.h.0.ln_1.bias[3] is inf" },
        { "transformer.wpe.weight", 0, -(double)INFINITY, "the weight transformer.wpe.weight[0] is -inf" },
    };
    for (int i = 0; i < 3; i++)
        for (int adapter = 0; adapter < 2; adapter++) {
            save_with("bad", cases[i].tensor, cases[i].index, cases[i].value);
            copy_directory(in_root(adapter ? "lora" : "full"), in_root("run"));
            int status = train(adapter ? "--data @text.txt --init @bad --lora-r 2 --out @run --overwrite --max-iters 4 --eval-interval 2 --batch-size 2"
                                       : "--data @text.txt --init @bad --out @run --overwrite --max-iters 4 --eval-interval 2 --batch-size 2");
            EXPECT(status == 1 && one_line(said) && strstr(said, "step 0") && strstr(said, cases[i].said), "status %d, said: %s", status, said);
            EXPECT(same_directory(in_root(adapter ? "lora" : "full"), in_root("run")), "the older checkpoint: %s", message);
        }
}

static bool all_finite(const char *directory)
{
    TrainingState state;
    must(state_load(directory, NULL, &state, message, sizeof message));
    bool bad = find_bad_number(state.model, message, sizeof message) || state.step != 4;
    for (int i = 0; i < state.optimizer->count; i++)
        for (int64_t j = 0; state.optimizer->m[i] && j < state.optimizer->parameters[i]->size; j++)
            bad |= !isfinite((double)state.optimizer->m[i][j]) || !isfinite((double)state.optimizer->v[i][j]);
    state_free(&state);
    return !bad;
}

TEST(a_gradient_that_is_not_finite_stops_training)
{
    static const struct { const char *start, *tensor; int64_t index; double value; const char *said; } cases[] = {
        { "full", "h.1.attn.c_attn.weight", 5, (double)NAN, "step 5: the loss is %, the gradient of transformer.h.1.attn.c_attn.weight[5] is nan" },
        { "full", "transformer.wte.weight", 9, (double)INFINITY, "the gradient of transformer.wte.weight[9] is inf" },
        { "full", "ln_f.bias", 2, -(double)INFINITY, "the gradient of transformer.ln_f.bias[2] is -inf" },
        { "lora", "h.0.attn.c_attn.A", 1, (double)NAN, "h.0.attn.c_attn.A[1] is nan" },
        { "lora", "h.1.attn.c_attn.B", 8, (double)INFINITY, "h.1.attn.c_attn.B[8] is inf" },
        { "full", NULL, 0, (double)NAN, "step 5: the loss is nan" },
        { "lora", NULL, 0, (double)INFINITY, "step 5: the loss is inf" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        copy_directory(in_root(cases[i].start), in_root("run"));
        poison_step = 3, poison_tensor = cases[i].tensor, poison_index = cases[i].index, poison_value = (real)cases[i].value; // the fourth after resuming at 2
        int status = train("--data @text.txt --resume --out @run --max-iters 8 --eval-interval 2 --batch-size 2");
        poison_step = -1;
        const char *percent = strchr(cases[i].said, '%'); // two pieces, if the loss stands between them
        bool good = percent ? strncmp(said, "train: step 5: the loss is ", 27) == 0 && strstr(said, percent + 3) : strstr(said, cases[i].said) != NULL;
        EXPECT(status == 1 && one_line(said) && good && strstr(said, "step 5:"), "case %d: status %d, said: %s", (int)i, status, said);
        EXPECT(all_finite(in_root("run")), "case %d: the last checkpoint is not that of step 4, all finite: %s", (int)i, message);
    }
}

int main(void)
{
    parallel_set_threads(1); // so that children may start threads of their own
    if (!make_root("faults")) return 1;
    int counter = open(in_root("requests"), O_RDWR | O_CREAT, 0600);
    if (counter < 0 || ftruncate(counter, 2 * sizeof *requests) != 0 ||
        (requests = mmap(NULL, 2 * sizeof *requests, PROT_READ | PROT_WRITE, MAP_SHARED, counter, 0)) == MAP_FAILED) { perror(root); return 1; }
    int status = train("--data @text.txt --out @full --n-layer 2 --n-head 2 --n-embd 8 --block-size 8 --batch-size 2 --max-iters 2 --eval-interval 2 --warmup-iters 1");
    if (status == 0) status = train("--data @text.txt --init @full --lora-r 2 --out @lora --batch-size 2 --max-iters 2 --eval-interval 2 --warmup-iters 1");
    if (status == 0) status = train("--data @text.txt --out @wide --batch-size 64 --n-layer 1 --n-head 1 --n-embd 8 --block-size 8 --max-iters 1 --eval-interval 1");
    if (status != 0) { printf("nothing to start from: %s", said); return 1; }

    RUN(every_allocation_of_a_step_fails_in_turn);
    RUN(every_allocation_of_reading_a_text_fails_in_turn);
    RUN(every_allocation_of_a_model_file_fails_in_turn);
    RUN(every_allocation_of_an_adapter_file_fails_in_turn);
    RUN(every_allocation_of_a_state_file_fails_in_turn);
    RUN(every_allocation_of_a_new_run_fails_in_turn);
    RUN(every_allocation_of_a_new_run_of_lora_fails_in_turn);
    RUN(every_allocation_of_a_new_run_on_codes_fails_in_turn);
    RUN(every_allocation_of_a_resumed_run_fails_in_turn);
    RUN(every_allocation_of_a_resumed_run_of_lora_fails_in_turn);
    RUN(every_allocation_of_sampling_fails_in_turn);
    RUN(every_allocation_of_the_adapter_program_fails_in_turn);
    RUN(memory_does_not_grow_with_the_steps);
    RUN(a_resumed_run_ends_as_one_that_was_not_stopped);
    RUN(threads_that_cannot_be_started);
    RUN(a_full_disk_while_saving_leaves_the_last_checkpoint);
    RUN(a_full_disk_while_merging_leaves_the_older_model);
    if (small_disk()) { // else the limit on the size of a file stands for it
        RUN(a_disk_that_is_really_full_leaves_the_last_checkpoint);
        take_small_disk_away();
    }
    RUN(directories_that_cannot_be_written);
    RUN(output_that_cannot_be_written_is_a_failure);
    RUN(a_weight_that_is_not_finite_stops_training);
    RUN(a_gradient_that_is_not_finite_stops_training);
    remove_all(root);
    return test_summary();
}
