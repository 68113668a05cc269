// bench.c - how fast this machine can multiply and add, how much of that a training step uses, and how others do beside it.
//
// Whatever is compared takes turns in the same process, or in a child that waits on a pipe while it is not asked, so that all
// see the same machine: A B C, C B A, A B C, ... Each turn begins with one step that is not timed. A ratio is taken between two
// turns of the same round, and the median over the rounds is shown: a round that something else disturbed does not count.
// The peak is measured anew before every step of ours. Only the products of PyTorch have no turn of ours: medians are divided.
//
// FLOPs are those of the formulas: 2 m n k for each matrix product, attention over T (T + 1) / 2 pairs. Elementwise work,
// padding and what is computed a second time take time and count for nothing.
//
// From the top: times, the machine, the story of one product, our training, the peers, the rounds, tables and JSON, main.

#include "generate.h"
#include "io/adapter_file.h"
#include "io/evaluation.h"
#include "io/file.h"
#include "io/json.h"
#include "io/machine.h"
#include "io/model_file.h"
#include "io/options.h"
#include "io/progress.h"
#include "matmul.h"
#include "predict.h"
#include "training.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

// --------------------------------------------------------------------------------------------------------------------- times

enum { MOST_SAMPLES = 256 };
typedef struct Samples { double value[MOST_SAMPLES]; int count; } Samples;

static void add(Samples *s, double value)
{
    if (s->count < MOST_SAMPLES) s->value[s->count++] = value;
}

// 0 where nothing was measured.
static double middle(const Samples *s)
{
    double copy[MOST_SAMPLES];
    memcpy(copy, s->value, sizeof copy);
    return s->count > 0 ? median(copy, s->count) : 0;
}

static double ms(const Samples *s) { return 1e3 * middle(s); }
static double giga(const Samples *s) { return 1e-9 * middle(s); }

static double least(const Samples *s)
{
    double result = s->count > 0 ? s->value[0] : 0;
    for (int i = 1; i < s->count; i++) result = s->value[i] < result ? s->value[i] : result;
    return result;
}

// The median over the rounds of a's turn by b's turn.
static double ratio(const Samples *a, const Samples *b)
{
    Samples quotient = { 0 };
    for (int i = 0; i < a->count && i < b->count; i++) add(&quotient, a->value[i] / b->value[i]);
    return middle(&quotient);
}

// What is going on, on stderr: a line that is rewritten on a terminal, else one for each `what`.
static void progress(const char *what, int done, int total)
{
    static const char *last;
    if (isatty(STDERR_FILENO)) fprintf(stderr, done < total ? "\r\033[K%s: %d of %d" : "\r\033[K", what, done + 1, total);
    else if (what != last) fprintf(stderr, "%s ...\n", what);
    last = what;
}

// --------------------------------------------------------------------------------------------------------------- the machine

// Twelve or sixteen vector registers full of sums: more than enough to hide the latency of a multiply-add, few enough to leave
// some free. (gcc keeps an array in registers only if it unrolls the loop over it altogether: at most 16 vectors.)
#if defined __AVX512F__
enum { SUMS = 16 * 64 / sizeof(real) };
#elif defined __AVX__
enum { SUMS = 12 * 32 / sizeof(real) };
#elif defined __ARM_NEON
enum { SUMS = 16 * 16 / sizeof(real) };
#else
enum { SUMS = 12 * 16 / sizeof(real) };
#endif

// 2 SUMS count FLOPs, and no memory.
__attribute__((noinline)) static void multiply_add(real *values, long count, real factor, real term)
{
    real sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = values[i];
    for (long p = 0; p < count; p++)
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * factor + term;
    for (int i = 0; i < SUMS; i++) values[i] = sum[i];
}

static long peak_count = 1000; // repetitions in one measurement
static double part_rate[MAX_THREADS];
static volatile real part_result[MAX_THREADS]; // a result that nobody reads would not be computed

static void peak_part(void *context, Part part)
{
    (void)context;
    real values[SUMS] = { 0 };
    double start = seconds_now();
    multiply_add(values, peak_count, (real)0.5, 1);
    part_result[part.index] = values[0];
    part_rate[part.index] = 2.0 * SUMS * (double)peak_count / (seconds_now() - start);
}

// FLOP/s of all threads in use, for about two milliseconds: the sum of what each reaches by its own clock.
static double measure_peak(void)
{
    parallel_run(peak_part, NULL);
    double sum = 0;
    for (int i = 0; i < parallel_threads(); i++) sum += part_rate[i];
    return sum;
}

static void choose_peak_count(void)
{
    double seconds = 0;
    while (seconds < 1e-3) {
        peak_count *= 2;
        double start = seconds_now();
        peak_part(NULL, (Part){ 0, 1 });
        seconds = seconds_now() - start;
    }
    peak_count = (long)((double)peak_count * 2e-3 / seconds);
}

enum { STREAM = 1 << 24 }; // numbers in each of three arrays, well beyond the caches
static real *stream[3];
static long stream_length;

static void stream_part(void *context, Part part)
{
    (void)context;
    Share s = share(part, stream_length, 64);
    real *restrict a = stream[0];
    const real *restrict b = stream[1], *restrict c = stream[2];
    for (long i = s.begin; i < s.end; i++) a[i] = b[i] + (real)0.5 * c[i];
}

// Bytes read and written in a second.
static double measure_bandwidth(void)
{
    double start = seconds_now();
    parallel_run(stream_part, NULL);
    return 3.0 * sizeof(real) * (double)stream_length / (seconds_now() - start);
}

typedef struct Machine { int threads; Samples peak[2], bandwidth[2]; } Machine; // [0] with all threads, [1] with one
static Machine machine;
static const char *const real_name = sizeof(real) == sizeof(float) ? "float" : "double";

static void use_threads(int which) { parallel_set_threads(which == 0 ? machine.threads : 1); }

static void measure_machine(int rounds, bool quick)
{
    choose_peak_count();
    stream_length = quick ? STREAM / 64 : STREAM;
    for (int i = 0; i < 3; i++) {
        stream[i] = memory_take(MEMORY_WORKSPACE, stream_length);
        for (long j = 0; j < stream_length; j++) stream[i][j] = 1;
    }
    for (int r = 0; r < rounds; r++)
        for (int which = 0; which < 2; which++) {
            progress("the machine", r, rounds);
            use_threads(which);
            for (int i = 0; i < 4; i++) add(&machine.peak[which], measure_peak());
            add(&machine.bandwidth[which], measure_bandwidth());
        }
    for (int i = 0; i < 3; i++) memory_give(MEMORY_WORKSPACE, stream[i], stream_length);
    memory_release_pool();
}

// ---------------------------------------------------------------------------------------------------- the story of one product

// C = A B with the shape of a c_fc in forward, first as it is written on paper, then better and better.
typedef struct Product { int m, n, k; real *a, *b, *c, *work; } Product; // work: every thread's scratch

static void naive_product(const Product *p)
{
    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            real sum = 0;
            for (int l = 0; l < p->k; l++) sum += p->a[i * p->k + l] * p->b[l * p->n + j];
            p->c[i * p->n + j] = sum;
        }
}

// The inner loop runs along rows of B and C, so that the compiler can use vectors.
static void reordered_product(const Product *p)
{
    for (int i = 0; i < p->m; i++) {
        real *restrict c = p->c + (long)i * p->n;
        for (int j = 0; j < p->n; j++) c[j] = 0;
        for (int l = 0; l < p->k; l++) {
            const real *restrict b = p->b + (long)l * p->n;
            real a = p->a[i * p->k + l];
            for (int j = 0; j < p->n; j++) c[j] += a * b[j];
        }
    }
}

// A tile of C stays in registers while k runs; B is read where it lies.
#if defined __AVX512F__
enum { ROWS = 8, COLUMNS = 32 };
#elif defined __AVX__ || defined __aarch64__
enum { ROWS = 6, COLUMNS = 16 };
#else
enum { ROWS = 6, COLUMNS = 8 };
#endif

__attribute__((noinline)) static void product_tile(int k, const real *restrict a, const real *restrict b, int n, real *c)
{
    real sum[ROWS][COLUMNS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = c[i * n + j];
    for (int l = 0; l < k; l++)
        for (int i = 0; i < ROWS; i++)
            VECTOR_LOOP for (int j = 0; j < COLUMNS; j++) sum[i][j] += a[i * k + l] * b[l * n + j];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) c[i * n + j] = sum[i][j];
}

static void tiled_product(const Product *p) // m a multiple of ROWS, n of COLUMNS
{
    memset(p->c, 0, sizeof(real) * (size_t)(p->m * p->n));
    for (int j = 0; j < p->n; j += COLUMNS)
        for (int i = 0; i < p->m; i += ROWS)
            product_tile(p->k, p->a + (long)i * p->k, p->b + j, p->n, p->c + (long)i * p->n + j);
}

static void engine_part(void *context, Part part)
{
    const Product *p = context;
    matmul((Matmul){ .m = p->m, .n = p->n, .k = p->k, .a = matrix(p->a, p->k), .b = matrix(p->b, p->n), .scale = 1,
                     .c = p->c, .c_row = p->n, .work = p->work + part.index * matmul_scratch(p->n, p->k) }, part);
}

static void engine_product(const Product *p)
{
    Product copy = *p;
    parallel_run(engine_part, &copy);
}

enum { STORY = 5 };
static const struct { const char *name, *key; void (*product)(const Product *p); int which; } story[STORY] = {
    { "naive: three loops, sums along a column of B", "naive", naive_product, 1 },
    { "reordered: along the rows", "reordered", reordered_product, 1 },
    { "tiled: sums in registers", "tiled", tiled_product, 1 },
    { "the engine's: tiled and packed, one thread", "packed", engine_product, 1 },
    { "the engine's, all threads", "threads", engine_product, 0 },
};
static Samples story_rate[STORY], exp_libm, exp_fast; // FLOP/s; seconds for each number

__attribute__((noinline)) static void exp_by_libm(real *y, const real *x, int n)
{
    for (int i = 0; i < n; i++) y[i] = sizeof(real) == sizeof(float) ? (real)expf((float)x[i]) : (real)exp((double)x[i]);
}

__attribute__((noinline)) static void exp_by_polynomial(real *y, const real *x, int n)
{
    for (int i = 0; i < n; i++) y[i] = fast_exp(x[i]);
}

static void tell_story(int rounds, bool quick)
{
    Product p = { .m = quick ? 48 : 768, .n = quick ? 64 : 512, .k = 128 };
    enum { ARRAYS = 4 };
    long scratch = matmul_scratch(p.n, p.k) * machine.threads;
    long sizes[ARRAYS] = { (long)p.m * p.k, (long)p.k * p.n, (long)p.m * p.n, scratch > 0 ? scratch : 1 };
    real **arrays[ARRAYS] = { &p.a, &p.b, &p.c, &p.work };
    for (int i = 0; i < ARRAYS; i++) {
        *arrays[i] = memory_take(MEMORY_WORKSPACE, sizes[i]);
        for (long j = 0; j < sizes[i]; j++) (*arrays[i])[j] = (real)(random_uniform(1, (uint64_t)j) - 0.5);
    }
    double flops = 2.0 * p.m * p.n * p.k;
    for (int r = 0; r < rounds; r++) {
        progress("one product", r, rounds);
        for (int s = 0; s < STORY; s++) {
            use_threads(story[s].which);
            story[s].product(&p);
            int repeats = s < 2 ? 1 : 5;
            double start = seconds_now();
            for (int i = 0; i < repeats; i++) story[s].product(&p);
            add(&story_rate[s], flops * repeats / (seconds_now() - start));
        }
        int n = p.m * (p.k < p.n ? p.k : p.n);
        double start = seconds_now();
        exp_by_libm(p.c, p.a, n);
        double between = seconds_now();
        exp_by_polynomial(p.c, p.a, n);
        add(&exp_libm, (between - start) / n);
        add(&exp_fast, (seconds_now() - between) / n);
    }
    for (int i = 0; i < ARRAYS; i++) memory_give(MEMORY_WORKSPACE, *arrays[i], sizes[i]);
}

// --------------------------------------------------------------------------------------------------------------- our training

// The steps go round BATCHES fixed batches; the losses of the first CHECKED are compared.
enum { BATCHES = 16, CHECKED = 4, SEED = 1337, RANK = 8 };
static const AdamWConfig adamw_config = { .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1, .grad_clip = 1 };
static const double learning_rate = 1e-3;

typedef struct Shape { const char *name; Config config; int B; Text text; } Shape;

typedef struct Timing { // of every timed step with one number of threads
    Samples step, optimizer, rest, phase[PHASES], op[OP_KINDS][PHASES];
    long flops[PHASES], op_flops[OP_KINDS][PHASES];
} Timing;

typedef struct Trainer {
    const Shape *shape;
    Transformer *model;
    Tape *tape;
    AdamW *optimizer;
    int *batch;
    long step;
    double loss[CHECKED];
    long mallocs;             // buffers asked of the system in timed steps
    long peak_bytes, predicted_bytes;
    Timing timing[2];         // [0] with all threads, [1] with one
} Trainer;

// Text of random characters: its statistics do not matter for time, and nothing is learned that would change it.
static void shape_begin(Shape *shape)
{
    shape->text.count = shape->text.train_count = 100000;
    shape->text.tokens = allocate((size_t)shape->text.count, sizeof *shape->text.tokens, "a text");
    for (long i = 0; i < shape->text.count; i++)
        shape->text.tokens[i] = (int)(random_bits(SEED, (uint64_t)i) % (uint64_t)shape->config.vocab_size);
}

static double train_once(Trainer *t, StepResult *result)
{
    double optimizer = t->optimizer->seconds;
    memset(&t->tape->counts, 0, sizeof t->tape->counts);
    int B = t->shape->B, T = t->model->config.block_size;
    text_batch(&t->shape->text, B, T, SEED, t->step % BATCHES, t->batch, t->batch + B * T);
    *result = training_step(t->model, t->tape, t->optimizer, t->batch, t->batch + B * T, B, T, SEED, t->step % BATCHES,
                            learning_rate);
    t->step++;
    return t->optimizer->seconds - optimizer;
}

// A model whose weights are large enough that every part of it shows in its loss: with those that training starts from, the
// loss hardly depends on the kind of GELU.
static Transformer *model_new(const Shape *shape, const LoraConfig *lora)
{
    char error[512];
    Transformer *model = transformer_new(shape->config, SEED, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    if (lora != NULL) {
        transformer_train_base(model, false);
        if (transformer_add_adapter(model, "bench", *lora, SEED, error, sizeof error) == NULL) die(EXIT_FAILED, "%s", error);
    }
    for (int i = 0; i < model->parameter_count; i++) {
        Tensor *t = model->parameters[i];
        bool matrix = t->ndim == 2 && i < model->base_count; // else a bias, a gain, or of the adapter
        for (long j = 0; j < t->size; j++)
            t->data[j] = matrix ? 6 * t->data[j] : t->data[j] + (real)(0.1 * random_normal(SEED + (uint64_t)i, (uint64_t)j));
    }
    return model;
}

// Makes the model and takes the first steps, whose losses others must reproduce. Before that, the weights, or those of the
// adapter, go to `dir` (NULL: they do not).
static Trainer *trainer_new(const Shape *shape, const LoraConfig *lora, const char *dir)
{
    long held = ledger.total;
    char error[512];
    Trainer *t = allocate(1, sizeof *t, "a trainer");
    *t = (Trainer){ .shape = shape, .model = model_new(shape, lora), .tape = tape_new(),
                    .batch = allocate(2 * (size_t)(shape->B * shape->config.block_size), sizeof(int), "a batch") };
    bool saved = dir == NULL   ? true
                 : lora == NULL ? model_save(t->model, NULL, dir, error, sizeof error)
                                : adapter_save(t->model, t->model->active, "..", dir, error, sizeof error);
    if (!saved) die(EXIT_FAILED, "%s", error);
    t->optimizer = adamw_new(t->model->parameters, t->model->parameter_count, adamw_config);
    use_threads(0);
    for (int i = 0; i < CHECKED; i++) {
        memory_reset_peaks();
        StepResult result;
        train_once(t, &result);
        t->loss[i] = result.loss;
    }
    t->peak_bytes = ledger.peak - held;
    int T = shape->config.block_size;
    t->predicted_bytes = predict_step(&shape->config, lora, shape->B, T, false, machine.threads, (int)sizeof(real)).peak;
    return t;
}

static void trainer_free(Trainer *t)
{
    if (t == NULL) return;
    tape_free(t->tape);
    adamw_free(t->optimizer);
    transformer_free(t->model);
    free(t->batch);
    free(t);
}

static double all_flops(const Timing *timing)
{
    return (double)(timing->flops[PHASE_FORWARD] + timing->flops[PHASE_DGRAD] + timing->flops[PHASE_WGRAD]);
}

// `count` timed steps, with the peak measured before each: their times, and what share of that peak they reached.
static Samples train_turn(Trainer *t, int which, int count, double *of_peak)
{
    use_threads(which);
    Timing *timing = &t->timing[which];
    Samples seconds = { 0 }, peak = { 0 };
    StepResult result;
    train_once(t, &result);
    for (int i = 0; i < count; i++) {
        add(&peak, measure_peak());
        add(&peak, measure_peak());
        long mallocs = ledger.mallocs;
        double optimizer = train_once(t, &result), rest = result.seconds - optimizer;
        t->mallocs += ledger.mallocs - mallocs;
        if (!isfinite(result.loss)) die(EXIT_FAILED, "a loss is not finite: nothing that follows would mean anything");
        const Counts *counts = &t->tape->counts;
        for (int p = 0; p < PHASES; p++) {
            Work work = counts_phase(counts, (Phase)p);
            timing->flops[p] = work.flops;
            add(&timing->phase[p], work.seconds);
            rest -= work.seconds;
            for (int op = 0; op < OP_KINDS; op++) {
                timing->op_flops[op][p] = counts->work[op][p].flops;
                add(&timing->op[op][p], counts->work[op][p].seconds);
            }
        }
        add(&timing->optimizer, optimizer);
        add(&timing->rest, rest);
        add(&timing->step, result.seconds);
        add(&seconds, result.seconds);
    }
    *of_peak = all_flops(timing) / middle(&seconds) / middle(&peak);
    return seconds;
}

// ------------------------------------------------------------------------------------------------------------------ the peers

// A program that does the same as we do, and waits at a pipe. A question is one line, the answer another:
//     open KIND            loss X X X X      of the first steps; KIND: full, compile, lora_c_attn, lora_all, large
//     step KIND COUNT      seconds S S ...   of COUNT steps, after one that is not timed; or KIND: products, products_large
//     sample COUNT         seconds S         for COUNT characters
//     bytes KIND           bytes N           the most held during a step
// or `skipped REASON`. It begins with `ready NAME`. Other lines are passed over.
typedef struct Peer {
    const char *key;         // in JSON
    char  name[128];         // what it calls itself; empty: it has not started
    char  why[256];          // not empty: it does not run, because
    pid_t pid;               // 0: it does not run
    int   to, from;          // pipes
    char  line[8192];        // of its answers: `filled` bytes, of which the first `taken` are done with
    int   filled, taken;
} Peer;

static void peer_end(Peer *peer)
{
    if (peer->pid == 0) return;
    close(peer->to);
    close(peer->from);
    kill(peer->pid, SIGTERM);
    waitpid(peer->pid, NULL, 0);
    peer->pid = 0;
}

__attribute__((format(printf, 2, 3))) static void peer_fails(Peer *peer, const char *format, ...)
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
            long count = read(peer->from, peer->line + peer->filled, sizeof peer->line - (size_t)peer->filled);
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

// Starts a program whose stderr goes to the file `log`.
static void peer_begin(Peer *peer, const char *const arguments[], const char *log)
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

// Asks, and reads up to `most` numbers. Returns how many there were; 0: `why` says why not. One that cannot do this goes on.
static int peer_ask(Peer *peer, const char *expected, double *values, int most, char *why, size_t size, const char *format, ...)
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

// llm.c's checkpoint, version 3: 256 ints, then all tensors of a kind together; its linear weights are [out, in].
static bool write_llmc(const Transformer *model, const char *path, char *error, size_t size)
{
    const Config *c = &model->config;
    FileWriter *w = file_write_begin(path, error, size);
    if (w == NULL) return false;
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
    return file_write_commit(w, error, size);
}

// ids [B*T] and targets [B*T] of every batch, as ints.
static bool write_batches(const Shape *shape, const char *path, char *error, size_t size)
{
    int T = shape->config.block_size, n = shape->B * T;
    int *batch = allocate(2 * (size_t)n, sizeof *batch, "a batch");
    FileWriter *w = file_write_begin(path, error, size);
    for (int i = 0; w != NULL && i < BATCHES; i++) {
        text_batch(&shape->text, shape->B, T, SEED, i, batch, batch + n);
        file_write(w, batch, 2 * sizeof *batch * (size_t)n);
    }
    free(batch);
    return w != NULL && file_write_commit(w, error, size);
}

// ----------------------------------------------------------------------------------------------------------------- the rounds

typedef struct Contender {
    const char *name, *key;   // in tables; in JSON, and what a peer calls it
    Trainer *trainer;         // ours, with all threads (`which` 0) or with one (1)
    int which;
    Peer *peer;               // or theirs,
    const struct Contender *ours; // to be compared with this one
    bool samples;             // characters instead of steps
    bool products;            // a step's products alone, without attention's
    int count;                // in one turn
    bool runs;
    char why[256];            // it does not run
    double difference[2];     // a peer's losses from ours, relative: the first, and the largest of the first CHECKED
    double bytes;             // a peer's
    Samples turns, of_peak;   // seconds of one step (or of all characters), one for each round
    double shortest;
} Contender;

static void sample_ours(const Transformer *model, int count)
{
    int *tokens = allocate((size_t)(1 + count), sizeof *tokens, "the characters");
    tokens[0] = 0;
    generate(model, tokens, 1, count, 0.8, 0, SEED);
    free(tokens);
}

static void take_turn(Contender *c)
{
    double seconds[MOST_SAMPLES], of_peak = 0;
    Samples turn = { 0 };
    if (c->peer != NULL) {
        size_t size = sizeof c->why;
        int got = c->samples ? peer_ask(c->peer, "seconds", seconds, 1, c->why, size, "sample %d", c->count)
                             : peer_ask(c->peer, "seconds", seconds, c->count, c->why, size, "step %s %d", c->key, c->count);
        for (int i = 0; i < got; i++) add(&turn, seconds[i]);
        if (got == 0) { c->runs = false; return; }
    } else if (c->samples) {
        use_threads(c->which);
        sample_ours(c->trainer->model, 2);
        double start = seconds_now();
        sample_ours(c->trainer->model, c->count);
        add(&turn, seconds_now() - start);
    } else {
        turn = train_turn(c->trainer, c->which, c->count, &of_peak);
        add(&c->of_peak, of_peak);
    }
    add(&c->turns, middle(&turn));
    if (c->turns.count == 1 || least(&turn) < c->shortest) c->shortest = least(&turn);
}

// At most `rounds`; after three, no more once `limit` seconds have passed.
static void run_rounds(const char *what, Contender *contenders, int count, int rounds, double limit)
{
    double start = seconds_now();
    for (int r = 0; r < rounds && (r < 3 || seconds_now() - start < limit); r++)
        for (int i = 0; i < count; i++) {
            progress(what, r, rounds);
            Contender *c = &contenders[r % 2 == 0 ? i : count - 1 - i];
            if (c->runs) take_turn(c);
        }
}

// Lets a peer build its model, and holds its first `compared` losses against ours.
static void open_peer(Contender *c, int compared)
{
    if (c->products) { c->runs = c->peer->pid != 0; return; }
    double loss[CHECKED];
    const double *ours = c->ours->trainer->loss;
    int got = peer_ask(c->peer, "loss", loss, CHECKED, c->why, sizeof c->why, "open %s", c->key);
    if (got < compared) return;
    for (int i = 0; i < compared; i++) {
        double difference = fabs(loss[i] - ours[i]) / ours[i];
        if (i == 0) c->difference[0] = difference;
        if (!(difference <= c->difference[1])) c->difference[1] = difference;
    }
    c->runs = c->difference[0] <= 1e-6 && c->difference[1] <= 1e-5; // a GELU without tanh: 5e-6
    if (!c->runs)
        snprintf(c->why, sizeof c->why, "not the same model: its losses begin with %.7f and %.7f, ours with %.7f and %.7f",
                 loss[0], loss[1], ours[0], ours[1]);
}

// -------------------------------------------------------------------------------------------------------- all that is compared

enum { OURS = 6, PEERS = 6, STEPS = OURS + PEERS, LARGE_OURS = 2, LARGES = LARGE_OURS + 2 };

static Peer torch = { .key = "torch" }, llm = { .key = "llmc" };
static Contender steps[STEPS] = { // ours with all threads at an even index, and with one at the next
    { .name = "full", .key = "full" },
    { .name = "full", .key = "full", .which = 1 },
    { .name = "LoRA c_attn", .key = "lora_c_attn" },
    { .name = "LoRA c_attn", .key = "lora_c_attn", .which = 1 },
    { .name = "LoRA all 4", .key = "lora_all" },
    { .name = "LoRA all 4", .key = "lora_all", .which = 1 },
    { .name = "PyTorch, eager", .key = "full", .peer = &torch, .ours = &steps[0] },
    { .name = "PyTorch, torch.compile", .key = "compile", .peer = &torch, .ours = &steps[0] },
    { .name = "PEFT, LoRA c_attn", .key = "lora_c_attn", .peer = &torch, .ours = &steps[2] },
    { .name = "PEFT, LoRA all 4", .key = "lora_all", .peer = &torch, .ours = &steps[4] },
    { .name = "llm.c", .key = "full", .peer = &llm, .ours = &steps[0] },
    { .name = "PyTorch, products", .key = "products", .products = true, .peer = &torch, .ours = &steps[0] },
};
static Contender larges[LARGES] = {
    { .name = "full", .key = "full" },
    { .name = "full", .key = "full", .which = 1 },
    { .name = "PyTorch, eager, larger", .key = "large", .peer = &torch, .ours = &larges[0] },
    { .name = "PyTorch, products, larger", .key = "products_large", .products = true, .peer = &torch, .ours = &larges[0] },
};
static Contender sampling[2] = {
    { .name = "sampling", .key = "sampling", .samples = true },
    { .name = "PyTorch, sampling", .key = "sampling", .samples = true, .peer = &torch, .ours = &sampling[0] },
};
static const Contender *const others[] = { &steps[6], &steps[7], &steps[8], &steps[9], &larges[2], &sampling[1], &steps[11],
                                           &larges[3], &steps[10] };
enum { OTHERS = sizeof others / sizeof *others };

static double plain_ms;                               // a step with the naive kernel; 0: not measured
static double text_loss, text_seconds;                // training on a text; 0: not given
static const char *const no_plain = "no --plain given", *const no_text = "no text given (make bench DATA=FILE)";

// ------------------------------------------------------------------------------------------------------------ tables and JSON

static void print_steps(const Contender *c, int ours)
{
    const Shape *s = c[0].trainer->shape;
    const Config *config = &s->config;
    printf("\nOne training step: %d layers, %d heads, width %d, context %d, batch %d, %d characters\n", config->n_layer,
           config->n_head, config->n_embd, config->block_size, s->B, config->vocab_size);
    printf("%-14s%9s%9s%9s%9s%8s", "", "MFLOP", "ms", "least", "GFLOP/s", "% peak");
    printf("%13s%8s%7s%11s%13s%9s\n", "ms 1 thread", "% peak", "ratio", "full/this", "peak bytes", "mallocs");
    for (int i = 0; i < ours; i += 2) {
        const Contender *all = &c[i], *one = &c[i + 1];
        const Trainer *t = all->trainer;
        double flops = all_flops(&t->timing[0]);
        double of_threads = ratio(&one->turns, &all->turns), of_full = ratio(&c[0].turns, &all->turns);
        printf("%-14s%9.1f%9.2f%9.2f%9.1f%8.1f", all->name, 1e-6 * flops, ms(&all->turns), 1e3 * all->shortest,
               1e-6 * flops / ms(&all->turns), 100 * middle(&all->of_peak));
        printf("%13.2f%8.1f%7.2f%11.2f%13s%9ld\n", ms(&one->turns), 100 * middle(&one->of_peak), of_threads, of_full,
               thousands(t->peak_bytes), t->mallocs);
    }
}

// The multiply-add peak as the turns saw it, in FLOPs a second.
static double peak_of(const Contender *c)
{
    return all_flops(&c->trainer->timing[c->which]) / middle(&c->turns) / middle(&c->of_peak);
}

// One line of the table of phases: a phase, or an op in one.
static void print_part(const char *name, const Samples *part, double flops, const Contender *c)
{
    const Timing *timing = &c->trainer->timing[c->which];
    double seconds = middle(part);
    printf("%-24s%8.2f%9.1f", name, 1e3 * seconds, 100 * seconds / middle(&timing->step));
    if (flops > 0) printf("%10.1f%9.1f%8.1f", 1e-6 * flops, 1e-9 * flops / seconds, 100 * flops / seconds / peak_of(c));
    printf("\n");
}

// The median of each line by itself: they add up to the step's only nearly.
static void print_phases(const Contender *c)
{
    const Timing *timing = &c->trainer->timing[c->which];
    printf("\n%s, %s: phases, and in each the ops of more than 3 %% of the step\n", c->trainer->shape->name, c->name);
    printf("%-24s%8s%9s%10s%9s%8s\n", "", "ms", "% step", "MFLOP", "GFLOP/s", "% peak");
    for (int p = 0; p < PHASES; p++) {
        if (middle(&timing->phase[p]) <= 0) continue;
        print_part(phase_names[p], &timing->phase[p], (double)timing->flops[p], c);
        for (int op = 0; op < OP_KINDS; op++) {
            if (middle(&timing->op[op][p]) < 0.03 * middle(&timing->step)) continue;
            char name[64];
            snprintf(name, sizeof name, "  %s", ops[op].name);
            print_part(name, &timing->op[op][p], (double)timing->op_flops[op][p], c);
        }
    }
    print_part("optimizer", &timing->optimizer, 0, c);
    print_part("rest", &timing->rest, 0, c);
}

static const char *why_not(const Contender *c) { return c->peer->name[0] == '\0' || c->why[0] == '\0' ? c->peer->why : c->why; }

// What a peer's seconds are held against: our step, our characters, or the linear layers (with their biases) and the head
// within our step.
static double our_seconds(const Contender *c)
{
    if (!c->products) return middle(&c->ours->turns);
    const Timing *timing = &c->ours->trainer->timing[0];
    double seconds = 0;
    for (int p = PHASE_FORWARD; p <= PHASE_WGRAD; p++)
        seconds += middle(&timing->op[OP_LINEAR][p]) + middle(&timing->op[OP_LM_HEAD][p]);
    return seconds;
}

static double peer_ratio(const Contender *c)
{
    return c->products ? middle(&c->turns) / our_seconds(c) : ratio(&c->turns, &c->ours->turns);
}

// Of the multiply-add peak, when these products take these seconds.
static double products_of_peak(const Contender *c, double seconds)
{
    const Timing *timing = &c->ours->trainer->timing[0];
    double flops = 0;
    for (int p = PHASE_FORWARD; p <= PHASE_WGRAD; p++)
        flops += (double)(timing->op_flops[OP_LINEAR][p] + timing->op_flops[OP_LM_HEAD][p]);
    return flops / seconds / peak_of(c->ours);
}

static void print_peer(const Contender *c)
{
    printf("%-26s", c->name);
    if (c->turns.count == 0) { printf("skipped: %s\n", why_not(c)); return; }
    double scale = c->samples ? 1e3 / c->count : 1e3; // ms of a step, or of a character
    printf("%9.2f%9.2f%9.2f%8.2f", scale * middle(&c->turns), scale * c->shortest, scale * our_seconds(c),
           peer_ratio(c));
    if (c->products)
        printf("   %.1f %% of the peak, ours %.1f %%", 100 * products_of_peak(c, middle(&c->turns)),
               100 * products_of_peak(c, our_seconds(c)));
    else if (!c->samples) printf("%9.0e", c->difference[1]);
    if (c->bytes > 0) printf("%15s%15s", thousands((long)c->bytes), thousands(c->ours->trainer->peak_bytes));
    printf("\n");
}

static void print_all(void)
{
    const char *plural = machine.threads > 1 ? "s" : "";
    printf("%d thread%s, %s; multiply-add peak %.1f GFLOP/s with one thread, %.1f with all; ", machine.threads, plural,
           real_name, giga(&machine.peak[1]), giga(&machine.peak[0]));
    printf("memory %.1f GB/s with one, %.1f with all\n", giga(&machine.bandwidth[1]), giga(&machine.bandwidth[0]));
    print_steps(steps, OURS);
    print_steps(larges, LARGE_OURS);
    printf("`ms` with all threads, median of %d and of %d rounds; `ratio`: one thread's time by that;\n"
           "`mallocs`: buffers asked of the system while steps were timed\n", steps[0].turns.count, larges[0].turns.count);
    for (int i = 0; i < OURS; i += 2) print_phases(&steps[i]);
    print_phases(&larges[0]);

    printf("\nOne product as it becomes fast%40s\n", "GFLOP/s");
    for (int s = 0; s < STORY; s++) printf("%-54s%16.1f\n", story[s].name, giga(&story_rate[s]));
    printf("exp: %.2f ns a number with libm, %.2f with the polynomial of tensor.h\n", 1e6 * ms(&exp_libm), 1e6 * ms(&exp_fast));
    printf("a whole step with the naive product (PLAIN=1): ");
    if (plain_ms > 0) printf("%.0f ms, %.1f times this build's\n", plain_ms, plain_ms / (ms(&steps[0].turns)));
    else printf("skipped: %s\n", no_plain);
    printf("sampling: %.0f characters a second\n", sampling[0].count / middle(&sampling[0].turns));

    printf("\nIn turn with others, %d thread%s each\n", machine.threads, plural);
    printf("%-26s%9s%9s%9s%8s%9s%15s%15s\n", "", "ms", "least", "ours", "ratio", "losses", "peak bytes", "ours");
    if (torch.name[0] == '\0') printf("PyTorch                   skipped: %s\n", torch.why);
    for (int i = 0; i < OTHERS; i++)
        if (others[i]->peer != &torch || torch.name[0] != '\0') print_peer(others[i]);
    if (torch.name[0] != '\0')
        printf("(%s; `losses`: relative difference from ours in the first %d steps; sampling: ms a character,\n"
               "theirs as in nanoGPT, with the whole context again for each; ours remembers q, k and v of what it has read;\n"
               "products: those of the full step's linear layers and head; theirs by themselves, ours within the step, with\n"
               "biases)\n",
               torch.name, CHECKED);
    printf("\nTraining on a text: ");
    if (text_seconds > 0) printf("2000 iterations, validation loss %.4f, %.1f s in all\n", text_loss, text_seconds);
    else printf("skipped: %s\n", no_text);
}

static void json_run(FileWriter *w, const Contender *all, const Contender *one, const Contender *full)
{
    const Trainer *t = all->trainer;
    const Timing *timing = &t->timing[0];
    double flops = all_flops(timing);
    file_printf(w, "      \"flops\": %.0f, \"ms\": %.4f, \"ms_least\": %.4f,\n", flops, ms(&all->turns), 1e3 * all->shortest);
    file_printf(w, "      \"gflops_per_second\": %.2f, \"percent_of_peak\": %.2f, \"percent_of_peak_one_thread\": %.2f,\n",
                1e-6 * flops / ms(&all->turns), 100 * middle(&all->of_peak), 100 * middle(&one->of_peak));
    file_printf(w, "      \"ms_one_thread\": %.4f, \"ratio_one_thread\": %.4f, \"ratio_full\": %.4f,\n", ms(&one->turns),
                ratio(&one->turns, &all->turns), ratio(&full->turns, &all->turns));
    file_printf(w, "      \"peak_bytes\": %ld, \"predicted_bytes\": %ld, \"mallocs\": %ld,\n", t->peak_bytes,
                t->predicted_bytes, t->mallocs);
    file_printf(w, "      \"first_loss\": %.8f,\n      \"phases\": {\n", t->loss[0]);
    for (int p = 0; p < PHASES; p++) {
        file_printf(w, "        \"%s\": {\"ms\": %.4f, \"flops\": %ld, \"ops\": {", phase_names[p], ms(&timing->phase[p]),
                    timing->flops[p]);
        const char *comma = "";
        for (int op = 0; op < OP_KINDS; op++) {
            if (middle(&timing->op[op][p]) <= 0) continue;
            file_printf(w, "%s\n          \"%s\": {\"ms\": %.4f, \"flops\": %ld}", comma, ops[op].name, ms(&timing->op[op][p]),
                        timing->op_flops[op][p]);
            comma = ",";
        }
        file_printf(w, "}},\n");
    }
    file_printf(w, "        \"optimizer\": {\"ms\": %.4f},\n", ms(&timing->optimizer));
    file_printf(w, "        \"rest\": {\"ms\": %.4f}\n      }\n", ms(&timing->rest));
}

static void json_shape(FileWriter *w, const Contender *c, int ours)
{
    const Shape *s = c[0].trainer->shape;
    const Config *config = &s->config;
    file_printf(w, "  \"%s\": {\n    \"n_layer\": %d, \"n_head\": %d, \"n_embd\": %d, \"block_size\": %d,\n", s->name,
                config->n_layer, config->n_head, config->n_embd, config->block_size);
    file_printf(w, "    \"batch_size\": %d, \"vocab_size\": %d, \"rounds\": %d", s->B, config->vocab_size, c[0].turns.count);
    for (int i = 0; i < ours; i += 2) {
        file_printf(w, ",\n    \"%s\": {\n", c[i].key);
        json_run(w, &c[i], &c[i + 1], &c[0]);
        file_printf(w, "    }");
    }
    file_printf(w, "\n  },\n");
}

static void json_text(FileWriter *w, const char *key, const char *text)
{
    char escaped[1024];
    json_escape(escaped, sizeof escaped, text, strlen(text));
    file_printf(w, "{\"%s\": %s}", key, escaped);
}

static void json_peer(FileWriter *w, const Contender *c)
{
    file_printf(w, ",\n    \"%s_%s\": ", c->peer->key, c->key);
    if (c->turns.count == 0) { json_text(w, "skipped", why_not(c)); return; }
    file_printf(w, "{\"ms\": %.4f, \"ms_least\": %.4f, \"ours_ms\": %.4f, \"ratio\": %.4f", ms(&c->turns), 1e3 * c->shortest,
                1e3 * our_seconds(c), peer_ratio(c));
    if (c->products)
        file_printf(w, ", \"percent_of_peak\": %.2f, \"ours_percent_of_peak\": %.2f",
                    100 * products_of_peak(c, middle(&c->turns)), 100 * products_of_peak(c, our_seconds(c)));
    else if (c->samples) file_printf(w, ", \"characters\": %d", c->count);
    else file_printf(w, ", \"loss_difference_first\": %.3e, \"loss_difference\": %.3e", c->difference[0], c->difference[1]);
    if (c->bytes > 0)
        file_printf(w, ", \"peak_bytes\": %.0f, \"ours_peak_bytes\": %ld", c->bytes, c->ours->trainer->peak_bytes);
    file_printf(w, "}");
}

static void json_pair(FileWriter *w, const char *key, const Samples both[2]) // with one thread, and with all
{
    file_printf(w, "  \"%s\": {\"one_thread\": %.2f, \"all_threads\": %.2f},\n", key, giga(&both[1]), giga(&both[0]));
}

static void write_json(const char *path)
{
    char error[512];
    FileWriter *w = file_write_begin(path, error, sizeof error);
    if (w == NULL) die(EXIT_FAILED, "%s", error);
    file_printf(w, "{\n  \"threads\": %d, \"real\": \"%s\",\n", machine.threads, real_name);
    json_pair(w, "peak_gflops_per_second", machine.peak);
    json_pair(w, "memory_gb_per_second", machine.bandwidth);
    json_shape(w, steps, OURS);
    json_shape(w, larges, LARGE_OURS);
    file_printf(w, "  \"story\": {\n");
    for (int s = 0; s < STORY; s++)
        file_printf(w, "    \"%s\": {\"gflops_per_second\": %.2f},\n", story[s].key, giga(&story_rate[s]));
    file_printf(w, "    \"exp_libm\": {\"ns\": %.3f},\n    \"exp_fast\": {\"ns\": %.3f}\n  },\n", 1e6 * ms(&exp_libm),
                1e6 * ms(&exp_fast));
    file_printf(w, "  \"plain_step\": ");
    if (plain_ms > 0) file_printf(w, "{\"ms\": %.2f}", plain_ms);
    else json_text(w, "skipped", no_plain);
    file_printf(w, ",\n  \"sampling\": {\"characters\": %d, \"characters_per_second\": %.1f},\n", sampling[0].count,
                sampling[0].count / middle(&sampling[0].turns));
    file_printf(w, "  \"peers\": {\n    \"torch\": ");
    json_text(w, torch.name[0] ? "version" : "skipped", torch.name[0] ? torch.name : torch.why);
    for (int i = 0; i < OTHERS; i++) json_peer(w, others[i]);
    file_printf(w, "\n  },\n  \"text\": ");
    if (text_seconds <= 0) json_text(w, "skipped", no_text);
    else file_printf(w, "{\"iterations\": 2000, \"val_loss\": %.5f, \"seconds\": %.2f}", text_loss, text_seconds);
    file_printf(w, "\n}\n");
    if (!file_write_commit(w, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    printf("\nAll of it as JSON: %s\n", path);
}

// ----------------------------------------------------------------------------------------------------------------------- main

static void help(void)
{
    printf("bench: measures this machine, then training on it, in turn with others where they are given\n\n"
           "  --out DIR          bench.json goes there, and below DIR/bench what the others read (out)\n"
           "  --python PROGRAM   an interpreter with torch, and for LoRA peft: runs bench/peer.py in turn\n"
           "  --peer FILE        where that is (bench/peer.py)\n"
           "  --llmc PROGRAM     bench/llmc.c built with llm.c: runs in turn too\n"
           "  --plain PROGRAM    this program built with PLAIN=1, for a step with the naive product\n"
           "  --data FILE        also trains on this text: 2000 iterations with train's defaults\n"
           "  --threads N        one for each core\n"
           "  --quick            tiny shapes and few rounds: a test of this program, not of the machine\n"
           "  --step-only N      prints the median milliseconds of N steps of the small shape, and nothing else\n\n"
           "Example: make bench PYTHON=build/venv/bin/python\n");
}

// train's defaults on a text: the loss over the whole validation part, and the seconds from reading the file to that.
static void train_on_text(const char *path)
{
    enum { ITERATIONS = 2000, B = 12, T = 64 };
    double start = seconds_now();
    char error[512];
    Text text;
    if (!text_read(path, 0, NULL, T, &text, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    Transformer *model = transformer_new((Config){ text.vocabulary.size, T, 4, 4, 128, 0 }, SEED, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, adamw_config);
    Tape *tape = tape_new();
    static int batch[2 * B * T];
    const Schedule schedule = { 1e-3, 1e-4, 100, ITERATIONS };
    for (int step = 0; step < ITERATIONS; step++) {
        if (step % 50 == 0) progress("training on the text", step, ITERATIONS);
        text_batch(&text, B, T, SEED, step, batch, batch + B * T);
        training_step(model, tape, optimizer, batch, batch + B * T, B, T, SEED, step, schedule_rate(&schedule, step));
    }
    text_loss = evaluate_validation(model, &text);
    text_seconds = seconds_now() - start;
    tape_free(tape);
    adamw_free(optimizer);
    transformer_free(model);
    text_free(&text);
}

static void step_only(const Shape *shape, int count)
{
    Trainer *t = trainer_new(shape, NULL, NULL);
    Samples seconds = { 0 };
    for (int i = 0; i < count; i++) {
        StepResult result;
        train_once(t, &result);
        add(&seconds, result.seconds);
    }
    printf("%.4f\n", ms(&seconds));
    trainer_free(t);
}

// What `PROGRAM --step-only` prints, or 0.
static double step_of(const char *program)
{
    char command[1024], answer[64] = "";
    snprintf(command, sizeof command, "'%s' --step-only 3 --threads %d", program, machine.threads);
    FILE *pipe = strchr(program, '\'') == NULL ? popen(command, "r") : NULL;
    if (pipe == NULL) return 0;
    if (fgets(answer, sizeof answer, pipe) == NULL) answer[0] = '\0';
    pclose(pipe);
    return atof(answer);
}

typedef struct Path { char text[512]; } Path;

static Path path_in(const char *dir, const char *name)
{
    Path path;
    int length = snprintf(path.text, sizeof path.text, "%s/%s", dir, name);
    if (length >= (int)sizeof path.text) die(EXIT_USAGE, "%.64s...: the name is too long", dir);
    return path;
}

int main(int argc, char **argv)
{
    program_name = "bench";
    enum { OUT = 1, PYTHON, PEER, LLMC, PLAIN_BUILD, DATA, THREADS, QUICK, STEP_ONLY, HELP };
    static const struct option options[] = {
        { "out", 1, NULL, OUT }, { "python", 1, NULL, PYTHON }, { "peer", 1, NULL, PEER }, { "llmc", 1, NULL, LLMC },
        { "plain", 1, NULL, PLAIN_BUILD }, { "data", 1, NULL, DATA }, { "threads", 1, NULL, THREADS },
        { "quick", 0, NULL, QUICK }, { "step-only", 1, NULL, STEP_ONLY }, { "help", 0, NULL, HELP }, { 0 },
    };
    const char *out = "out", *python = NULL, *script = "bench/peer.py", *llmc = NULL, *plain = NULL, *data = NULL;
    bool quick = false;
    int only = 0;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":", options, NULL)) != -1;)
        switch (option) {
        case OUT: out = optarg; break;
        case PYTHON: python = optarg; break;
        case PEER: script = optarg; break;
        case LLMC: llmc = optarg; break;
        case PLAIN_BUILD: plain = optarg; break;
        case DATA: data = optarg; break;
        case THREADS: parallel_set_threads((int)option_int("threads", optarg, 1, MAX_THREADS)); break;
        case QUICK: quick = true; break;
        case STEP_ONLY: only = (int)option_int("step-only", optarg, 1, MOST_SAMPLES); break;
        case HELP: help(); return 0;
        default: option_unknown(argv, optind - 1);
        }
    if (optind < argc) die(EXIT_USAGE, "%s: bench takes options only; --help lists them", argv[optind]);
    if (data != NULL && access(data, R_OK) != 0) die(EXIT_FAILED, "--data %s: %s", data, strerror(errno)); // not minutes later
    machine.threads = parallel_threads();
    signal(SIGPIPE, SIG_IGN); // a peer that has ended is noticed when its answer is missing

    static Shape small = { "small", { 65, 64, 4, 4, 128, 0 }, 12, { .count = 0 } };
    static Shape large = { "large", { 65, 256, 6, 6, 384, 0 }, 8, { .count = 0 } };
    if (quick) {
        small.config = (Config){ 11, 16, 2, 2, 32, 0 }, small.B = 3;
        large.config = (Config){ 11, 24, 2, 3, 48, 0 }, large.B = 2;
    }
    shape_begin(&small);
    shape_begin(&large);
    if (only > 0) {
        step_only(&small, only);
        return 0;
    }

    char error[512];
    const Path files = path_in(out, "bench"), json = path_in(out, "bench.json");
    const Path small_files = path_in(files.text, "small"), large_files = path_in(files.text, "large");
    if (!file_make_directories(small_files.text, error, sizeof error) ||
        !file_make_directories(large_files.text, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    measure_machine(quick ? 1 : 5, quick);
    tell_story(quick ? 1 : 7, quick);

    // Our models, one after the other: the ledger sees each alone. And what the others read.
    progress("our models", 0, 1);
    const LoraConfig on_c_attn = { .r = RANK, .alpha = 2 * RANK, .targets = 1u << C_ATTN, .last_block = -1 };
    const LoraConfig on_all = { .r = RANK, .alpha = 2 * RANK, .targets = (1u << LINEARS) - 1, .last_block = -1 };
    Trainer *full = trainer_new(&small, NULL, small_files.text);
    Trainer *lora_c_attn = trainer_new(&small, &on_c_attn, path_in(small_files.text, "lora_c_attn").text);
    Trainer *lora_all = trainer_new(&small, &on_all, path_in(small_files.text, "lora_all").text);
    Trainer *large_full = trainer_new(&large, NULL, large_files.text);
    if (!write_batches(&small, path_in(small_files.text, "batches").text, error, sizeof error) ||
        !write_batches(&large, path_in(large_files.text, "batches").text, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    steps[0].trainer = steps[1].trainer = sampling[0].trainer = full;
    steps[2].trainer = steps[3].trainer = lora_c_attn;
    steps[4].trainer = steps[5].trainer = lora_all;
    larges[0].trainer = larges[1].trainer = large_full;

    // The others start, build the same models, and wait.
    progress("starting the others", 0, 1);
    char threads[16], B[16];
    const Path torch_log = path_in(files.text, "torch.log"), llmc_log = path_in(files.text, "llmc.log");
    snprintf(threads, sizeof threads, "%d", machine.threads);
    snprintf(B, sizeof B, "%d", small.B);
    setenv("OMP_NUM_THREADS", threads, 1);
    if (sizeof(real) != sizeof(float)) {
        peer_fails(&torch, "it computes in float, and this is a build in double");
        peer_fails(&llm, "%s", torch.why);
    } else {
        if (python == NULL) peer_fails(&torch, "no --python given");
        else peer_begin(&torch, (const char *[]){ python, script, files.text, threads, NULL }, torch_log.text);
        if (llmc == NULL) peer_fails(&llm, "not given (make bench LLMC=DIR, the directory of llm.c's train_gpt2.c)");
        else {
            Transformer *fresh = model_new(&small, NULL); // `full` before its first step
            bool written = write_llmc(fresh, path_in(small_files.text, "llmc.bin").text, error, sizeof error);
            if (!written) die(EXIT_FAILED, "%s", error);
            transformer_free(fresh);
            peer_begin(&llm, (const char *[]){ llmc, small_files.text, B, NULL }, llmc_log.text);
        }
    }
    for (int i = 0; i < STEPS; i++) {
        progress("opening the others' models", i, STEPS + 1);
        steps[i].count = quick ? 2 : 4;
        steps[i].runs = i < OURS;
        if (i >= OURS) open_peer(&steps[i], steps[i].peer == &llm ? 1 : CHECKED); // llm.c's optimizer is not ours
    }
    for (int i = 0; i < LARGES; i++) larges[i].count = 1, larges[i].runs = i < LARGE_OURS;
    for (int i = LARGE_OURS; i < LARGES; i++) open_peer(&larges[i], CHECKED);
    sampling[0].count = sampling[1].count = quick ? 4 : 200;
    sampling[0].runs = true;
    sampling[1].runs = steps[OURS].runs;

    run_rounds("steps of the small shape", steps, STEPS, quick ? 2 : 15, 45);
    run_rounds("sampling", sampling, 2, quick ? 2 : 9, 15);
    run_rounds("steps of the larger shape", larges, LARGES, quick ? 2 : 7, 35);
    for (int i = OURS; i < STEPS; i++)
        if (steps[i].runs && !steps[i].products)
            peer_ask(steps[i].peer, "bytes", &steps[i].bytes, 1, steps[i].why, sizeof steps[i].why, "bytes %s", steps[i].key);
    peer_end(&torch);
    peer_end(&llm);
    progress("a step with the naive product", 0, 1);
    if (plain != NULL) plain_ms = step_of(plain);
    use_threads(0);
    if (data != NULL) train_on_text(data);
    progress("done", 1, 1);

    print_all();
    write_json(json.text);
    Trainer *trainers[] = { full, lora_c_attn, lora_all, large_full };
    for (int i = 0; i < 4; i++) trainer_free(trainers[i]);
    free(small.text.tokens);
    free(large.text.tokens);
    memory_release_pool();
    return 0;
}
