// main.c - through which functions the page drives the engine (see page.h): predictions; a model that trains on a text, with its
// samples and adapters; the bytes of a step, measured; the eleven claims.

#include "experiments/comparison.h"
#include "io/corpus.h"
#include "io/file.h"
#include "training.h"
#include "web/page.h"

// ----------------------------------------------------------------------------------------------------------------- answers

char *handed;
static char  *said;
static size_t said_size;
static FILE  *saying;

FILE *answer_begin(void)
{
    free(said);
    saying = open_memstream(&said, &said_size);
    check(saying != NULL, "no room for an answer");
    return saying;
}

const char *answer_end(void)
{
    fclose(saying);
    return said;
}

const char *answer_error(const char *why)
{
    FILE *f = answer_begin();
    fputs("{\"error\":", f);
    json_put_text(f, why);
    fputc('}', f);
    return answer_end();
}

void put_kinds(FILE *f, const char *key, const int64_t bytes[MEMORY_KINDS])
{
    fprintf(f, "\"%s\":[", key);
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s%" PRId64, k ? "," : "", bytes[k]);
    fputc(']', f);
}

static void put_hash(FILE *f, const char *key, uint64_t hash) { fprintf(f, "\"%s\":\"%016" PRIx64 "\"", key, hash); }

// Room for a text of so many bytes, for the page to write into; it stays until the next call.
char *EXPORT(room)(int bytes)
{
    free(handed);
    return handed = allocate((size_t)bytes + 1, 1, "a text");
}

// The one file there is here: what the page has handed over.
bool file_read(const char *path, size_t max_bytes, char **bytes, size_t *size, char *error, size_t error_size)
{
    *bytes = NULL;
    *size = 0;
    size_t length = handed == NULL ? 0 : strlen(handed);
    if (length == 0 || length > max_bytes) return fail(error, error_size, "%s: there is no text", path);
    *bytes = allocate(length + 1, 1, "a text");
    memcpy(*bytes, handed, length);
    *size = length;
    return true;
}

// -------------------------------------------------------------------------------------------------------------- predictions

// What is there to choose: kinds of bytes, layers of a block, built-in texts, published shapes, and the small model's own.
const char *EXPORT(choices)(void)
{
    FILE *f = answer_begin();
    fputs("{\"kinds\":[", f);
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s\"%s\"", k ? "," : "", memory_kind_names[k]);
    fputs("],\"linears\":[", f);
    for (int k = 0; k < LINEARS; k++) fprintf(f, "%s\"%s\"", k ? "," : "", linear_names[k]);
    fputs("],\"texts\":[", f);
    for (const char *const *name = corpus_names(); *name != NULL; name++) fprintf(f, "%s\"%s\"", name == corpus_names() ? "" : ",", *name);
    Text text = open_text("builtin:tales", 1000, CONTEXT);
    Config c = small_shape(text.vocabulary.size);
    text_free(&text);
    fprintf(f, "],\"here\":{\"V\":%d,\"T\":%d,\"L\":%d,\"H\":%d,\"C\":%d,\"B\":%d},\"r\":%d,\"shapes\":", c.vocab_size, c.block_size,
            c.n_layer, c.n_head, c.n_embd, BATCH, on_all.r);
    put_shapes(f);
    fprintf(f, ",\"threads\":%d,\"real_bytes\":%d}", parallel_threads(), (int)sizeof(real));
    return answer_end();
}

static void put_prediction(FILE *f, const Config *config, const LoraConfig *lora, int B, int T, bool recompute)
{
    Prediction p = predict_step(config, lora, B, T, recompute, 1, (int)sizeof(real));
    fprintf(f, "{\"peak\":%" PRId64 ",", p.peak);
    put_kinds(f, "own", p.own_peak);
    fputc(',', f);
    put_kinds(f, "at", p.at_peak);
    fprintf(f, ",\"base\":%.0f,\"adapter\":%" PRId64 "}", base_parameters(config->vocab_size, config->block_size, config->n_layer, config->n_embd),
            lora ? lora_parameters(config, lora) : 0);
}

// A step by predict.c. targets 0: all of the base trains.
const char *EXPORT(predict)(int V, int L, int H, int C, int B, int T, int r, int targets, int recompute)
{
    Config config = { V, T, L, H, C, 0 };
    LoraConfig lora = { .r = r, .alpha = 2 * r, .targets = (unsigned)targets, .last_block = -1 };
    put_prediction(answer_begin(), &config, targets ? &lora : NULL, B, T, recompute);
    return answer_end();
}

static void put_ledger(FILE *f, const Ledger *l)
{
    fprintf(f, "{\"peak\":%" PRId64 ",", l->peak);
    put_kinds(f, "own", l->own_peak);
    fputc(',', f);
    put_kinds(f, "at", l->at_peak);
    fputc('}', f);
}

// Four ways to train the small model, some steps of each in turn, `rounds` times: bytes measured and predicted, and the least
// time of a step.
const char *EXPORT(measure)(int rounds)
{
    static const LoraConfig *const adapters[] = { NULL, &on_c_attn, &on_all, &on_all };
    enum { MEASURED_WAYS = sizeof adapters / sizeof *adapters };
    Measured m[MEASURED_WAYS] = { { 0 } };
    Text text = open_text("builtin:tales", 4000, CONTEXT);
    Transformer *model = new_model(small_shape(text.vocabulary.size), SEED);
    for (int i = 0; i < rounds * MEASURED_WAYS; i++) {
        int way = i % MEASURED_WAYS;
        adapt(model, adapters[way], SEED);
        model->recompute = way == MEASURED_WAYS - 1;
        Measured next = measure_steps(model, (Steps){ .batch = small_batch(&text), .count = 2, .optimizer = true });
        keep_least(&m[way], &next);
    }
    FILE *f = answer_begin();
    for (int way = 0; way < MEASURED_WAYS; way++) {
        fprintf(f, "%s{\"ms\":%.2f,\"flops\":%.0f,\"measured\":", way ? "," : "[", 1e3 * m[way].seconds, all_flops(&m[way]));
        put_ledger(f, &m[way].ledger);
        fputs(",\"predicted\":", f);
        put_prediction(f, &model->config, adapters[way], BATCH, CONTEXT, way == MEASURED_WAYS - 1);
        fputc('}', f);
    }
    fputc(']', f);
    transformer_free(model);
    text_free(&text);
    return answer_end();
}

// ------------------------------------------------------------------------------------------------------- a model that trains

static Text         text;
static Transformer *model;
static AdamW       *optimizer;
static Tape        *tape;
static Schedule     schedule;
static int          windows, *batch;  // in a batch; its ids and targets
static int64_t      done;             // steps of this training

static void stop(void)
{
    adamw_free(optimizer);
    tape_free(tape);
    optimizer = NULL;
    tape = NULL;
}

// The text that was handed over: a built-in one's name ("builtin:pirate") or itself (`pasted`). A built-in one keeps the model.
const char *EXPORT(text_choose)(int pasted, int context)
{
    char error[512];
    Text next;
    if (!text_read(pasted ? "the pasted text" : handed, 100000, NULL, context, &next, error, sizeof error)) return answer_error(error);
    bool same = text.tokens != NULL && vocabulary_equal(&next.vocabulary, &text.vocabulary);
    text_free(&text);
    text = next;
    FILE *f = answer_begin();
    fprintf(f, "{\"characters\":%" PRId64 ",\"vocabulary\":%d,\"same\":%d,\"floor\":", text.count, text.vocabulary.size, same);
    if (isfinite(text.train_floor)) json_put_number(f, text.train_floor);
    else fputs("null", f);
    fputc('}', f);
    return answer_end();
}

// A fresh model for the text: layers, heads, width, context.
const char *EXPORT(model_make)(int L, int H, int C, int T)
{
    char error[512];
    stop();
    transformer_free(model);
    model = transformer_new((Config){ text.vocabulary.size, T, L, H, C, 0 }, SEED, error, sizeof error);
    if (model == NULL) return answer_error(error);
    FILE *f = answer_begin();
    fprintf(f, "{\"parameters\":%" PRId64 "}", transformer_base_size(model));
    return answer_end();
}

// Training begins: all of the base (targets 0), or a fresh adapter with the name that was handed over; one that had it goes.
const char *EXPORT(train_begin)(int r, int targets, int steps, double rate, int B)
{
    char error[512];
    stop();
    transformer_unmerge(model);
    transformer_use_adapter(model, NULL);
    transformer_train_base(model, targets == 0);
    if (targets != 0) {
        for (Adapter *a = model->adapters; a != NULL; a = a->next)
            if (strcmp(a->name, handed) == 0) { transformer_remove_adapter(model, a); break; }
        LoraConfig lora = { .r = r, .alpha = 2 * r, .targets = (unsigned)targets, .last_block = -1 };
        if (transformer_add_adapter(model, handed, lora, SEED, error, sizeof error) == NULL) return answer_error(error);
    }
    windows = B;
    done = 0;
    schedule = usual_schedule(rate, steps);
    optimizer = new_optimizer(model, 0.1);
    tape = tape_new();
    free(batch);
    batch = allocate(2 * (size_t)(B * model->config.block_size), sizeof *batch, "a batch");
    memory_reset_peaks();
    FILE *f = answer_begin();
    fprintf(f, "{\"trainable\":%" PRId64 ",\"base\":%" PRId64 "}", transformer_trainable_size(model), transformer_base_size(model));
    return answer_end();
}

// One step more.
const char *EXPORT(train_step)(void)
{
    int T = model->config.block_size;
    text_batch(&text, windows, T, SEED, done, batch, batch + windows * T);
    StepResult result = training_step(model, tape, optimizer, batch, batch + windows * T, windows, T, SEED, done, schedule_rate(&schedule, done));
    if (!isfinite(result.loss) || !isfinite(result.gradient_norm)) return answer_error("the loss is not finite; train again, with smaller steps");
    done++;
    FILE *f = answer_begin();
    fprintf(f, "{\"step\":%" PRId64 ",\"loss\":%.6f,\"ms\":%.3f,\"ledger\":", done, result.loss, 1e3 * result.seconds);
    put_ledger(f, &ledger);
    fputc('}', f);
    return answer_end();
}

static uint64_t hash_of_all(void)
{
    uint64_t hash = HASH_START;
    for (int i = 0; i < model->parameter_count; i++)
        hash = hash_bytes(hash, model->parameters[i]->data, (size_t)model->parameters[i]->size * sizeof(real));
    return hash;
}

// What there is: the adapters, the one in use, whether it is merged, and the hash of the base's bytes and of all weights'.
const char *EXPORT(state)(void)
{
    FILE *f = answer_begin();
    fputs("{\"adapters\":[", f);
    for (Adapter *a = model->adapters; a != NULL; a = a->next) {
        fputs(a == model->adapters ? "" : ",", f);
        fputs("{\"name\":", f);
        json_put_text(f, a->name);
        fprintf(f, ",\"size\":%" PRId64 "}", adapter_size(a));
    }
    fputs("],\"active\":", f);
    if (model->active != NULL) json_put_text(f, model->active->name);
    else fputs("null", f);
    fprintf(f, ",\"merged\":%d,", transformer_is_merged(model));
    put_hash(f, "hash", transformer_hash(model));
    fputc(',', f);
    put_hash(f, "all", hash_of_all());
    fputc('}', f);
    return answer_end();
}

// The adapter with the name that was handed over is the one in use; "": the base alone. 1: done.
int EXPORT(use)(void)
{
    stop();
    Adapter *a = model->adapters;
    while (a != NULL && strcmp(a->name, handed) != 0) a = a->next;
    if (transformer_is_merged(model)) transformer_unmerge(model);
    transformer_use_adapter(model, a);
    return a != NULL;
}

void EXPORT(merge)(int on)
{
    stop();
    if (on) transformer_merge(model);
    else transformer_unmerge(model);
}

// A sample of the model as it is, after an empty line, or where the text has none after its first character.
const char *EXPORT(sample)(int length, double temperature)
{
    char error[256], character[5];
    int *tokens = allocate((size_t)(2 + length), sizeof *tokens, "a sample"), prompt = 2;
    if (vocabulary_encode(&text.vocabulary, "\n\n", 2, tokens, error, sizeof error) < 0) tokens[0] = text.tokens[0], prompt = 1;
    generate(model, tokens, prompt, length, temperature, 0, SEED + (uint64_t)done);
    FILE *f = answer_begin();
    fputs("{\"text\":[", f);
    for (int i = prompt; i < prompt + length; i++) {
        vocabulary_decode(&text.vocabulary, tokens[i], character);
        fputs(i > prompt ? "," : "", f);
        json_put_text(f, character);
    }
    fputs("]}", f);
    free(tokens);
    return answer_end();
}

// ------------------------------------------------------------------------------------------------------------------ claims

// The eleven claims (experiments/claims.c), measured with the small model: they print what they find, and the page takes it from
// there. The adapters train for `steps` steps, so that B is not 0.
int EXPORT(claims)(int steps)
{
    static LoraConfig on_nf4;
    static Comparison all = { .run = { { .name = "full" }, { .name = "c_attn", .lora = &on_c_attn },
                                       { .name = "c_attn_codes", .lora = &on_nf4 }, { .name = "all", .lora = &on_all } } };
    on_nf4 = on_c_attn;
    on_nf4.base_type = BASE_NF4;
    all.pirate = open_text("builtin:pirate", 20000, CONTEXT);
    all.robot = open_text("builtin:robot", 20000, CONTEXT);
    all.model = new_model(small_shape(all.pirate.vocabulary.size), SEED);
    all.hash = transformer_hash(all.model);
    for (int i = 0; i < RUNS; i++) {
        Run *run = &all.run[i];
        real **base = copy_base(all.model);
        all.pirate_adapter = adapt(all.model, run->lora, SEED);
        run->trainable = transformer_trainable_size(all.model);
        run->measured = measure_steps(all.model, (Steps){ .batch = small_batch(&all.pirate), .count = 2, .optimizer = true });
        run->val_task = evaluate_validation(all.model, &all.pirate);
        restore_base(all.model, base);
    }
    Training training = { .B = BATCH, .schedule = usual_schedule(1e-2, steps), .weight_decay = 0.1, .seed = SEED };
    train(all.model, &all.pirate, &training);
    all.robot_adapter = add_adapter(all.model, "robot", &on_all, SEED);
    train(all.model, &all.robot, &training);
    bool found = print_claims(&all);
    fflush(stdout);
    transformer_free(all.model);
    text_free(&all.pirate);
    text_free(&all.robot);
    return found;
}
