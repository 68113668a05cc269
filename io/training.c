// training.c - see training.h. The machine first (memory, time), then the step, then evaluation and sampling.

#include "io/training.h"

#include "io/progress.h"
#include "predict.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

long resident_peak(void)
{
    FILE *status = fopen("/proc/self/status", "r"); // Linux: getrusage there counts what the parent had before exec, too
    char line[256];
    long kilobytes = 0;
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kilobytes) == 1) break;
    if (status != NULL) fclose(status);
    struct rusage usage;
    if (kilobytes == 0 && getrusage(RUSAGE_SELF, &usage) == 0) kilobytes = usage.ru_maxrss;
    return 1024 * kilobytes;
}

double weight_bytes(const Config *c)
{
    return sizeof(real) * base_parameters(c->vocab_size, c->block_size, c->n_layer, c->n_embd);
}

bool memory_holds(double bytes, char *error, size_t size)
{
#ifdef _SC_PHYS_PAGES
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (memory > 0 && bytes > memory)
        return fail(error, size, "%s are needed at least, and this machine has %s of memory; take a smaller model",
                    bytes_text(bytes), bytes_text(memory));
#else
    (void)bytes, (void)error, (void)size;
#endif
    return true;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *values, long count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[count / 2];
}

double schedule_rate(const Schedule *s, long step)
{
    if (step < s->warmup_iters) return s->learning_rate * (double)(step + 1) / (double)(s->warmup_iters + 1);
    if (step >= s->max_iters) return s->min_lr;
    double done = (double)(step - s->warmup_iters) / (double)(s->max_iters - s->warmup_iters);
    return s->min_lr + 0.5 * (1 + cos(3.141592653589793 * done)) * (s->learning_rate - s->min_lr);
}

StepResult training_step(Transformer *model, Tape *tape, AdamW *optimizer, const Text *text, int B, uint64_t seed, long step,
                         double learning_rate, int *batch)
{
    const Adapter *adapter = model->active;
    check(adapter == NULL || adapter->config.dropout == 0,
          "training_step: %s was trained with lora_dropout %g, which this engine does not compute; it can be used, "
          "not trained",
          adapter->name, adapter->config.dropout);
    double start = seconds_now();
    int T = model->config.block_size, *ids = batch, *targets = batch + B * T;
    text_batch(text, B, T, seed, step, ids, targets);

    tape_clear(tape);
    tape->dropout_seed = random_bits(seed + 1, (uint64_t)step);
    Tensor *loss = transformer_loss(model, tape, ids, targets, B, T);
    StepResult result = { .loss = (double)loss->data[0] };
    backward(tape, loss);
    result.gradient_norm = isfinite(result.loss) ? adamw_step(optimizer, learning_rate) : (double)NAN;
    if (isfinite(result.loss) && isfinite(result.gradient_norm)) zero_grads(model);

    result.seconds = seconds_now() - start;
    return result;
}

uint64_t text_fingerprint(const Text *text)
{
    return hash_bytes(HASH_START, text->tokens, (size_t)text->count * sizeof *text->tokens);
}

bool find_bad_number(const Transformer *model, char *where, size_t size)
{
    for (int gradient = 0; gradient < 2; gradient++)
        for (int i = 0; i < model->parameter_count; i++) {
            const Tensor *t = model->parameters[i];
            const real *values = gradient ? t->grad : t->data;
            for (long j = 0; values != NULL && j < t->size; j++)
                if (!isfinite((double)values[j])) {
                    snprintf(where, size, "the %s %s[%ld] is %g", gradient ? "gradient of" : "weight", t->name, j, (double)values[j]);
                    return true;
                }
        }
    return false;
}

static double window_loss(const Transformer *model, const int *ids, const int *targets, int B, int T)
{
    Tensor *loss = transformer_loss(model, NULL, ids, targets, B, T);
    double value = (double)loss->data[0];
    tensor_drop(loss);
    return value;
}

double evaluate_all(const Transformer *model, const int *tokens, long count)
{
    enum { WINDOWS = 16 }; // at a time
    int T = model->config.block_size;
    long targets = count - 1, done = 0;
    double sum = 0;
    while (done < targets) {
        long windows = (targets - done) / T; // whole ones that are left
        int B = windows > WINDOWS ? WINDOWS : windows > 0 ? (int)windows : 1;
        int length = windows > 0 ? T : (int)(targets - done);
        sum += window_loss(model, tokens + done, tokens + done + 1, B, length) * B * length;
        done += (long)B * length;
    }
    return sum / (double)targets;
}

double evaluate_validation(const Transformer *model, const Text *text)
{
    return evaluate_all(model, text->tokens + text->train_count, text->count - text->train_count);
}

bool validation_leaks(const Text *text, double loss)
{
    double targets = (double)(text->count - text->train_count - 1);
    return (text->val_floor - loss) * targets > 20;
}

double evaluate_training(const Transformer *model, const Text *text)
{
    long count = text->count - text->train_count;
    if (count > text->train_count) count = text->train_count;
    return evaluate_all(model, text->tokens + text->train_count - count, count);
}

double evaluate_quickly(const Transformer *model, const Text *text, int B)
{
    enum { BATCHES = 20 };
    int T = model->config.block_size;
    const int *tokens = text->tokens + text->train_count;
    long starts = text->count - text->train_count - T; // where a window and the target after it fit
    int *ids = allocate(2 * (size_t)(B * T), sizeof *ids, "a batch"), *targets = ids + B * T;
    double sum = 0;
    for (int i = 0; i < BATCHES; i++) {
        for (int b = 0; b < B; b++) {
            long start = (long)(random_bits(1, (uint64_t)(i * B + b)) % (uint64_t)starts);
            memcpy(ids + b * T, tokens + start, (size_t)T * sizeof *ids);
            memcpy(targets + b * T, tokens + start + 1, (size_t)T * sizeof *ids);
        }
        sum += window_loss(model, ids, targets, B, T);
    }
    free(ids);
    return sum / BATCHES;
}

void generate(const Transformer *model, int *tokens, int prompt_length, int length, double temperature, int top_k,
              uint64_t seed)
{
    int V = model->config.vocab_size, longest = model->config.block_size;
    int start = prompt_length > longest ? prompt_length - longest : 0; // the context is tokens[start] to the last one
    real *logits = memory_take(MEMORY_WORKSPACE, V);
    Cache cache = cache_new(model);
    for (int i = 0; i < length; i++) {
        int end = prompt_length + i;
        if (end - start > longest) { // full: every position would change, so all that is kept must be read again
            start = end - (longest + 1) / 2;
            cache.count = 0;
        }
        int seen = start + cache.count;
        transformer_next(model, &cache, tokens + seen, end - seen, logits);
        tokens[end] = sample_token(logits, V, temperature, top_k, seed, (uint64_t)i);
    }
    cache_free(&cache);
    memory_give(MEMORY_WORKSPACE, logits, V);
}
