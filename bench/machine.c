// machine.c - see bench.h: samples of times and rates, and what this machine can do at best.

#include "bench/bench.h"

#include <time.h>
#include <unistd.h>

void add(Samples *s, double value)
{
    if (s->count < MOST_SAMPLES) s->value[s->count++] = value;
}

double middle(const Samples *s)
{
    double copy[MOST_SAMPLES];
    memcpy(copy, s->value, sizeof copy);
    return s->count > 0 ? median(copy, s->count) : 0;
}

double least(const Samples *s)
{
    double result = s->count > 0 ? s->value[0] : 0;
    for (int i = 1; i < s->count; i++) result = s->value[i] < result ? s->value[i] : result;
    return result;
}

double most(const Samples *s)
{
    double result = s->count > 0 ? s->value[0] : 0;
    for (int i = 1; i < s->count; i++) result = s->value[i] > result ? s->value[i] : result;
    return result;
}

void keep_but(Samples *s, const bool *thrown_out)
{
    int kept = 0;
    for (int i = 0; i < s->count; i++)
        if (!thrown_out[i]) s->value[kept++] = s->value[i];
    s->count = kept;
}

double ratio(const Samples *a, const Samples *b)
{
    Samples quotient = { 0 };
    for (int i = 0; i < a->count && i < b->count; i++) add(&quotient, a->value[i] / b->value[i]);
    return middle(&quotient);
}

void progress(const char *what, int done, int total)
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
__attribute__((noinline)) static void multiply_add(real *values, int64_t count, real factor, real term)
{
    real sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = values[i];
    for (int64_t p = 0; p < count; p++)
        for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * factor + term;
    for (int i = 0; i < SUMS; i++) values[i] = sum[i];
}

static int64_t peak_count = 1000; // repetitions in one measurement
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

// The sum of what each thread reaches by its own clock.
double measure_peak(void)
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
    peak_count = (int64_t)((double)peak_count * 2e-3 / seconds);
}

enum { STREAM = 1 << 24 }; // numbers in each of three arrays, well beyond the caches
static real *stream[3];
static int64_t stream_length;

static void stream_part(void *context, Part part)
{
    (void)context;
    Share s = share(part, stream_length, 64);
    real *restrict a = stream[0];
    const real *restrict b = stream[1], *restrict c = stream[2];
    for (int64_t i = s.begin; i < s.end; i++) a[i] = b[i] + (real)0.5 * c[i];
}

// Bytes read and written in a second.
static double measure_bandwidth(void)
{
    double start = seconds_now();
    parallel_run(stream_part, NULL);
    return 3.0 * sizeof(real) * (double)stream_length / (seconds_now() - start);
}

static void nothing(void *context, Part part) { (void)context, (void)part; }

// What it costs that all threads begin and end together: the threads look for the next kernel for a short while, and then sleep.
static void measure_handshake(void)
{
    enum { TIMES = 1000 };
    double start = seconds_now();
    for (int i = 0; i < TIMES; i++) parallel_run(nothing, NULL);
    add(&machine.handshake, (seconds_now() - start) / TIMES);
    for (int i = 0; i < 5; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        start = seconds_now();
        parallel_run(nothing, NULL);
        add(&machine.waking, seconds_now() - start);
    }
}

Machine machine;
const char *const real_name = sizeof(real) == sizeof(float) ? "float32" : "float64";

void use_threads(int which) { parallel_set_threads(which == 0 ? machine.threads : 1); }

void measure_machine(int rounds, bool quick)
{
    choose_peak_count();
    stream_length = quick ? STREAM / 64 : STREAM;
    for (int i = 0; i < 3; i++) {
        stream[i] = memory_take(MEMORY_WORKSPACE, stream_length);
        for (int64_t j = 0; j < stream_length; j++) stream[i][j] = 1;
    }
    for (int r = 0; r < rounds; r++)
        for (int which = 0; which < 2; which++) {
            progress("the machine", r, rounds);
            use_threads(which);
            for (int i = 0; i < 4; i++) add(&machine.peak[which], measure_peak());
            add(&machine.bandwidth[which], measure_bandwidth());
            if (which == 0) measure_handshake();
        }
    for (int i = 0; i < 3; i++) memory_give(MEMORY_WORKSPACE, stream[i], stream_length);
    memory_release_pool();
}
