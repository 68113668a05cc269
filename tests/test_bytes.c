// test_bytes.c - what the ledger says, held against what others see: the calls of malloc, and the process's resident size.
// The functions named wrap_ below stand in for those of libc wherever the engine calls them (wrap.h).

#include "tests/wrap.h"

#include "adamw.h"
#include "adapters.h"
#include "generate.h"
#include "meter.h"
#include "io/machine.h"
#include "io/text.h"
#include "training.h"
#include "tests/test.h"

#include <stdlib.h>

static int64_t calls, small_calls; // of malloc and its like: for more than a tensor's header, and for that at most

// A tensor's header is made and freed with it, so that a handle used too late is found; all else should be asked for once.
static void count(size_t bytes) { *(bytes > sizeof(Tensor) ? &calls : &small_calls) += 1; }

void *wrap_malloc(size_t size) { return count(size), (malloc)(size); }
void *wrap_calloc(size_t number, size_t size) { return count(number * size), (calloc)(number, size); }
void *wrap_realloc(void *old, size_t size) { return count(size), (realloc)(old, size); }
void *wrap_aligned_alloc(size_t alignment, size_t size) { return count(INT32_MAX), (aligned_alloc)(alignment, size); }
char *wrap_strdup(const char *text) { return count(strlen(text) + 1), (strdup)(text); }
void wrap_free(void *block) { (free)(block); }
int wrap_fsync(int file) { return (fsync)(file); }
int wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *context)
{
    return (pthread_create)(thread, attributes, start, context);
}

// The ways to train that differ in what they hold.
static const struct { const char *name; unsigned targets; bool recompute; double dropout; } ways[] = {
    { "full", 0, false, 0 }, { "full, recompute, dropout", 0, true, 0.1 }, { "LoRA c_attn", 1u << C_ATTN, false, 0 },
    { "LoRA all", (1u << LINEARS) - 1, false, 0.1 }, { "LoRA all, recompute", (1u << LINEARS) - 1, true, 0 },
};
enum { WAYS = sizeof ways / sizeof *ways };

typedef struct Run { Transformer *model; Tape *tape; AdamW *optimizer; Text text; int B, batch[2 * 4096]; } Run;

static void run_begin(Run *run, int way, Config config, int B)
{
    char error[256];
    config.dropout = ways[way].dropout;
    *run = (Run){ .model = transformer_new(config, 1, error, sizeof error), .tape = tape_new(), .B = B };
    if (ways[way].targets != 0) {
        transformer_train_base(run->model, false);
        const LoraConfig lora = { .r = 4, .alpha = 8, .targets = ways[way].targets, .last_block = -1 };
        transformer_add_adapter(run->model, "adapter", lora, 2, error, sizeof error);
    }
    run->model->recompute = ways[way].recompute;
    run->optimizer = adamw_new(run->model->parameters, run->model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    static int tokens[1000];
    for (int i = 0; i < 1000; i++) tokens[i] = i * i % config.vocab_size;
    run->text = (Text){ .tokens = tokens, .count = 1000, .train_count = 900 };
}

static void run_step(Run *run, int64_t step)
{
    int B = run->B, T = run->model->config.block_size, *ids = run->batch, *targets = ids + B * T;
    text_batch(&run->text, B, T, 3, step, ids, targets);
    training_step(run->model, run->tape, run->optimizer, ids, targets, B, T, 3, step, 1e-3);
}

static void run_end(Run *run)
{
    tape_free(run->tape);
    adamw_free(run->optimizer);
    transformer_free(run->model);
    memory_release_pool(); // the next run begins with nothing
}

// How many results a step makes again: in a block two layernorms and a gelu, if a gradient reads them and the block below trains;
// and the last layernorm, for the head.
static int made_again_in(int way, int blocks)
{
    if (ways[way].targets == 0) return 3 * blocks + 1;
    return ways[way].targets == 1u << C_ATTN ? blocks - 1 : 3 * blocks - 1;
}

// But for the headers of its results, one for each call of an op.
TEST(a_training_step_calls_no_malloc)
{
    static Run run;
    static const int depths[] = { 1, 4, 24 };
    for (int way = 0; way < WAYS; way++)
        for (int d = 0; d < 3; d++)
            for (int threads = 1; threads <= 3; threads += 2) {
                parallel_set_threads(threads);
                int64_t before = calls;
                run_begin(&run, way, (Config){ 11, 8, depths[d], 2, 16, 0 }, 2);
                EXPECT(calls - before > 5, "a new model made only %" PRId64 " calls: they are not counted", calls - before);
                for (int step = 0; step < 2; step++) run_step(&run, step);
                Meter meter = { 0 };
                meter_watch(&meter, run.tape);
                before = calls;
                int64_t headers = small_calls;
                for (int step = 2; step < 5; step++) run_step(&run, step);
                headers = small_calls - headers;
                EXPECT(calls == before, "%s, %d blocks, %d threads: %" PRId64 " calls in three steps", ways[way].name, depths[d],
                       threads, calls - before);
                int64_t again = 3 * (made_again_in(way, depths[d])); // results that have a header already
                int64_t made = meter_phase(&meter, PHASE_FORWARD).kernels + meter_phase(&meter, PHASE_RECOMPUTE).kernels - again;
                EXPECT(headers == made && headers > 0, "%s, %d blocks, %d threads: %" PRId64 " headers for %" PRId64 " results", ways[way].name, depths[d],
                       threads, headers, made);
                run_end(&run);
            }
}

TEST(a_character_calls_no_malloc)
{
    static Run run;
    int tokens[1 + 24] = { 0 };
    run_begin(&run, 0, (Config){ 11, 8, 4, 2, 16, 0 }, 2);
    generate(run.model, tokens, 1, 12, 0.8, 0, 1); // every length of context once
    int64_t before = calls;
    generate(run.model, tokens, 1, 24, 0.8, 0, 1);
    EXPECT(calls == before, "%" PRId64 " calls for 24 characters", calls - before);
    run_end(&run);
}

// --------------------------------------------------------------------------------------------------- what the system says

#if defined __SANITIZE_ADDRESS__
#define SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

static const Config wide = { 65, 64, 4, 4, 32, 0 };
enum { WIDE_B = 40 };

// In a process that does nothing else: prints the resident peak, and the most that the ledger and its pool ever held together.
static int child(int way)
{
    static Run run;
    if (way >= 0) {
        run_begin(&run, way, wide, WIDE_B);
        for (int step = 0; step < 2; step++) run_step(&run, step);
    }
    printf("%lld %" PRId64 "\n", (long long)resident_peak(), ledger.total + ledger.pool); // the pool only grows: this is the most
    return 0;
}

#ifndef SANITIZED // that holds memory of its own
static bool ask_child(const char *program, int way, int64_t *resident, int64_t *known)
{
    char command[512];
    snprintf(command, sizeof command, "'%s' %d", program, way);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL) return false;
    bool read = fscanf(pipe, "%" SCNd64 " %" SCNd64, resident, known) == 2;
    return pclose(pipe) == 0 && read;
}

static const char *self;

TEST(the_ledger_explains_the_process)
{
    int64_t empty, nothing;
    bool answered = ask_child(self, -1, &empty, &nothing);
    EXPECT(answered && empty > 0 && nothing == 0, "an empty process: resident %" PRId64 ", ledger %" PRId64, empty, nothing);
    for (int way = 0; way < WAYS && answered; way++) {
        int64_t resident, known;
        answered = ask_child(self, way, &resident, &known);
        EXPECT(answered, "%s: the child ended early", ways[way].name);
        double bound = 0.05 * (double)known > 2e6 ? 0.05 * (double)known : 2e6;
        EXPECT(fabs((double)(resident - empty - known)) <= bound,
               "%s: resident %" PRId64 ", less an empty process's %" PRId64 "; the ledger and its pool hold %" PRId64, ways[way].name, resident,
               empty, known);
        EXPECT(known > 8000000, "%s: %" PRId64 " bytes are too few to tell", ways[way].name, known);
    }
}
#endif

int main(int argc, char **argv)
{
    if (argc == 2) return child(atoi(argv[1]));
    RUN(a_training_step_calls_no_malloc);
    RUN(a_character_calls_no_malloc);
#ifndef SANITIZED
    self = argv[0];
    RUN(the_ledger_explains_the_process);
#endif
    return test_summary();
}
