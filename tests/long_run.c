// long_run.c - tens of thousands of steps in miniature, full and then LoRA, with 1, 2 and 3 threads: flat memory, the same bits for any
// number of threads, and no loss below what the built-in texts allow. Part of `make test-long`.

#include "../adapters.h"
#include "../io/evaluation.h"
#include "gradcheck.h"
#include "test.h"

#include <sys/wait.h>

enum { STEPS = 20000, EACH = 1000, CHARACTERS = 100000, B = 4, MARKS = 2 * STEPS / EACH };
static const Config config = { .block_size = 32, .n_layer = 1, .n_head = 2, .n_embd = 32, .dropout = 0.05 };

// What a child hands over: one line for each thousand steps.
typedef struct Mark { uint64_t hash; double loss, val, floor, val_floor; int64_t total, pool, mallocs, resident; } Mark;

static char error[512];

static uint64_t hash_all(const Transformer *model)
{
    uint64_t hash = HASH_START;
    for (int i = 0; i < model->parameter_count; i++)
        hash = hash_bytes(hash, model->parameters[i]->data, (size_t)model->parameters[i]->size * sizeof(real));
    return hash;
}

static int64_t resident_now(void) // in bytes; 0 if the system does not tell
{
    FILE *file = fopen("/proc/self/statm", "r");
    int64_t pages = 0, resident = 0;
    if (file == NULL) return 0;
    if (fscanf(file, "%" SCNd64 " %" SCNd64, &pages, &resident) != 2) resident = 0;
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

static void run(int threads, int to)
{
    parallel_set_threads(threads);
    Transformer *model = NULL;
    int T = config.block_size, batch[2 * B * 32];
    for (int part = 0; part < 2; part++) { // all of it on the tales, then an adapter on a task
        Text text;
        if (!text_read(part == 0 ? "builtin:tales" : "builtin:pirate", CHARACTERS, NULL, config.block_size, &text, error, sizeof error)) _exit(3);
        if (part == 0) {
            Config full = config;
            full.vocab_size = text.vocabulary.size;
            model = transformer_new(full, 1, error, sizeof error);
        } else {
            transformer_train_base(model, false);
            if (!transformer_add_adapter(model, "a", (LoraConfig){ .r = 4, .alpha = 8, .targets = 15, .last_block = -1 }, 2, error, sizeof error)) _exit(4);
        }
        AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
        Tape *tape = tape_new();
        Schedule schedule = { .learning_rate = 3e-3, .min_lr = 1e-4, .warmup_iters = 100, .max_iters = STEPS };
        double sum = 0;
        for (int64_t step = 0; step < STEPS; step++) {
            text_batch(&text, B, T, 7, step, batch, batch + B * T);
            sum += training_step(model, tape, optimizer, batch, batch + B * T, B, T, 7, step, schedule_rate(&schedule, step)).loss;
            if ((step + 1) % EACH != 0) continue;
            Mark mark = { hash_all(model), sum / EACH, evaluate_validation(model, &text), text.train_floor, text.val_floor, ledger.total, ledger.pool, ledger.mallocs, resident_now() };
            if (write(to, &mark, sizeof mark) != (ssize_t)sizeof mark) _exit(5);
            sum = 0;
        }
        adamw_free(optimizer);
        tape_free(tape);
        text_free(&text);
    }
    _exit(0);
}

static Mark marks[3][MARKS];

static void collect(int threads)
{
    int ends[2], status = 0;
    if (pipe(ends) != 0) exit(1);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) run(threads, ends[1]);
    close(ends[1]);
    size_t got = 0;
    char *into = (char *)marks[threads - 1];
    for (ssize_t n; (n = read(ends[0], into + got, sizeof marks[0] - got)) > 0; ) got += (size_t)n;
    close(ends[0]);
    waitpid(child, &status, 0);
    EXPECT(got == sizeof marks[0] && status == 0, "%d threads: the run ended early, after %zu marks, status %d", threads, got / sizeof(Mark), status);
}

TEST(the_runs_come_to_their_end)
{
    for (int threads = 1; threads <= 3; threads++) collect(threads);
}

TEST(any_number_of_threads_gives_the_same_bits)
{
    for (int threads = 2; threads <= 3; threads++)
        for (int i = 0; i < MARKS; i++)
            EXPECT(marks[threads - 1][i].hash == marks[0][i].hash && marks[threads - 1][i].loss == marks[0][i].loss, "%d threads: other bits after %d steps", threads, (i + 1) * EACH);
    EXPECT(marks[0][0].hash != marks[0][1].hash, "the weights do not change");
}

TEST(memory_is_flat)
{
    for (int threads = 1; threads <= 3; threads++)
        for (int i = 0; i < MARKS; i++) {
            const Mark *m = &marks[threads - 1][i], *first = &marks[threads - 1][i < MARKS / 2 ? 0 : MARKS / 2]; // of the same part
            EXPECT(m->total == first->total && m->mallocs == first->mallocs && m->pool == first->pool, "%d threads, %d steps: %" PRId64 " bytes held, %" PRId64 " in the pool, %" PRId64 " buffers; at first %" PRId64 ", %" PRId64 ", %" PRId64,
                   threads, (i + 1) * EACH, m->total, m->pool, m->mallocs, first->total, first->pool, first->mallocs);
            EXPECT(m->resident <= first->resident + (1 << 20), "%d threads, %d steps: %" PRId64 " bytes resident, at first %" PRId64, threads, (i + 1) * EACH, m->resident, first->resident);
        }
}

TEST(no_loss_is_below_the_floor)
{
    for (int i = 0; i < MARKS; i++) {
        const Mark *m = &marks[0][i];
        EXPECT(m->val > m->val_floor && m->loss > m->floor, "after %d steps: %.4f of %.4f in validation, %.4f of %.4f in training", (i + 1) * EACH, m->val, m->val_floor, m->loss, m->floor);
    }
    const Mark *begin = &marks[0][0], *full = &marks[0][MARKS / 2 - 1], *lora = &marks[0][MARKS / 2], *end = &marks[0][MARKS - 1];
    EXPECT(full->val < begin->val && end->val < lora->val, "it did not learn: %.4f to %.4f, then %.4f to %.4f", begin->val, full->val, lora->val, end->val);
    printf("     full: loss %.4f to %.4f, validation %.4f above its floor; LoRA: %.4f to %.4f, %.4f above; %" PRId64 " bytes held\n", begin->loss, full->loss, full->val - full->val_floor,
           lora->loss, end->loss, end->val - end->val_floor, end->total);
}

int main(void)
{
    RUN(the_runs_come_to_their_end);
    RUN(any_number_of_threads_gives_the_same_bits);
    RUN(memory_is_flat);
    RUN(no_loss_is_below_the_floor);
    return test_summary();
}
