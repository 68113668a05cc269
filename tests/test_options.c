// test_options.c - the tables of options, and every option in them: given another value it changes what it should, and nothing
// else. The programs run in a child each; what they should have done is computed here by a plain loop, from fields that this
// file names itself, so that an option which is forgotten, or two which are confused, give other bits.

#include "programs.h"

#include <ctype.h>

static char error[1024];

// ------------------------------------------------------------------------------------------------- what train should have done

static TrainOptions want; // what the plain loop trains with

#define FULL "--n-layer 1 --n-head 2 --n-embd 8 --block-size 8 --batch-size 2 --max-iters 6 --eval-interval 3 --threads 1 " \
    "--learning-rate 0.05 --min-lr 0.01 --warmup-iters 2 --weight-decay 0.2 --beta1 0.8 --beta2 0.9 --grad-clip 0.7 --dropout 0.1 " \
    "--seed 5 --data @text.txt"
#define LORA "--init @base --lora-r 2 --batch-size 2 --max-iters 6 --eval-interval 3 --threads 1 --learning-rate 0.05 --min-lr " \
    "0.01 --warmup-iters 2 --weight-decay 0.2 --beta1 0.8 --beta2 0.9 --grad-clip 0.7 --seed 5 --data @text.txt"

static void want_baseline(bool lora)
{
    want = (TrainOptions){ .data = "text.txt", .init = lora ? "base" : NULL, .batch_size = 2, .micro_batches = 1, .seed = 5, .eval_interval = 3,
                       .config = { .n_layer = 1, .n_head = 2, .n_embd = 8, .block_size = 8, .dropout = lora ? 0 : 0.1 },
                       .lora = { .r = lora ? 2 : 0, .alpha = 4, .targets = 1u << C_ATTN, .last_block = -1 },
                       .schedule = { .learning_rate = 0.05, .min_lr = 0.01, .warmup_iters = 2, .max_iters = 6 },
                       .adamw = { .beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.2, .grad_clip = 0.7 } };
}

static uint64_t hash_of(const Transformer *model)
{
    uint64_t hash = transformer_hash(model); // the base's, perhaps in codes
    for (int i = model->base_count; i < model->parameter_count; i++)
        hash = hash_bytes(hash, model->parameters[i]->data, (size_t)model->parameters[i]->size * sizeof(real));
    return hash;
}

static uint64_t plain_training(void)
{
    const TrainOptions *s = &want;
    Text text;
    Vocabulary vocabulary = { 0 };
    Transformer *model = NULL;
    if (s->init != NULL) must((model = model_load(in_root(s->init), &vocabulary, message, sizeof message)) != NULL);
    Config config = model ? model->config : s->config;
    must(text_read(in_root(s->data), 0, model ? &vocabulary : NULL, config.block_size, &text, message, sizeof message));
    config.vocab_size = text.vocabulary.size;
    if (model == NULL) must((model = transformer_new(config, s->seed, message, sizeof message)) != NULL);
    model->config.dropout = s->config.dropout;
    if (s->lora.r > 0) {
        transformer_train_base(model, false);
        must(transformer_add_adapter(model, "a", s->lora, s->seed, message, sizeof message) != NULL);
        transformer_hold_base(model, s->lora.base_type);
    }
    AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, s->adamw);
    Tape *tape = tape_new();
    int B = s->batch_size, T = config.block_size, *ids = calloc(2 * (size_t)(B * T), sizeof *ids);
    for (int64_t step = 0; step < s->schedule.max_iters; step++) {
        text_batch(&text, B, T, s->seed, step, ids, ids + B * T);
        training_step_in_parts(model, tape, optimizer, ids, ids + B * T, B, T, s->seed, step, schedule_rate(&s->schedule, step),
                               &(Parts){ .count = s->micro_batches, .end = s->micro_batches });
    }
    uint64_t hash = hash_of(model);
    free(ids);
    tape_free(tape);
    adamw_free(optimizer);
    transformer_free(model);
    text_free(&text);
    vocabulary_free(&vocabulary);
    return hash;
}

// The weights that train has saved in @run.
static uint64_t trained(const char *base)
{
    Transformer *model = model_load(in_root(base ? base : "run"), NULL, error, sizeof error);
    if (model != NULL && base != NULL && adapter_load(model, in_root("run"), "a", false, error, sizeof error) == NULL) {
        transformer_free(model);
        model = NULL;
    }
    EXPECT(model != NULL, "%s", error);
    if (model != NULL && base != NULL) {
        EXPECT(model->active->config.base_type == want.lora.base_type, "another type of base");
        transformer_hold_base(model, want.lora.base_type);
    }
    uint64_t hash = model ? hash_of(model) : 0;
    transformer_free(model);
    return hash;
}

// ------------------------------------------------------------------------------------------- effects other than on the weights

static bool file_has(const char *name, const char *words)
{
    char *text = text_of(in_root(name));
    bool found = strstr(text, words) != NULL;
    free(text);
    return found;
}

static int64_t metric(const char *key) // the whole number behind the last such key of @run/metrics.json
{
    char quoted[60], *text = text_of(in_root("run/metrics.json")), *at = text, *last = NULL;
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    while ((at = strstr(at, quoted)) != NULL) last = at += strlen(quoted);
    int64_t value = last ? strtoll(last, NULL, 10) : -1;
    free(text);
    return value;
}

static int64_t workspace; // of the run with one thread
static bool evaluated_each_second_step(void)
{
    char *log = text_of(in_root("run/log.csv"));
    int rows = 0, good = 0;
    for (char *row = log; (row = strchr(row, '\n')) != NULL && *++row != '\0';) {
        const char *val = strchr(strchr(row, ',') + 1, ',');
        rows += val[1] != ',';
        good += val[1] != ',' && strtoll(row, NULL, 10) % 2 == 0;
    }
    free(log);
    return rows == 3 && good == 3;
}
static bool three_threads(void) // of which each has scratch of its own; the plain build starts none
{
    parallel_set_threads(3);
    bool plain = parallel_threads() == 1;
    parallel_set_threads(1);
    return plain || metric("workspace") > workspace;
}
static bool one_thread(void) { workspace = metric("workspace"); return true; }
static bool recomputed(void) { return metric("recompute") > 0; }
static bool traced(void) { return file_has("printed", "c_attn.weight"); }
static bool helped(void) { return access(in_root("elsewhere/model.safetensors"), F_OK) == 0; }

// ------------------------------------------------------------------------------------------------------------------- the options

typedef struct Change {
    const char *option, *value;
    bool lora;
    const char **text;                 // the field of `want` that it should change: one of these,
    int *whole;
    int64_t *count;
    double *number;
    unsigned *targets, target_bits;
    BaseType type;
    uint64_t *seed;
    bool (*seen)(void);                // ... or what else it should do
} Change;

static const Change changes[] = {
    { "data", "@other.txt", .text = &want.data },
    { "n-layer", "2", .whole = &want.config.n_layer },
    { "n-head", "4", .whole = &want.config.n_head },
    { "n-embd", "12", .whole = &want.config.n_embd },
    { "block-size", "5", .whole = &want.config.block_size },
    { "dropout", "0.4", .number = &want.config.dropout },
    { "dropout", "0.3", .lora = true, .number = &want.config.dropout },
    { "lora-r", "3", .lora = true, .whole = &want.lora.r },
    { "lora-alpha", "9", .lora = true, .number = &want.lora.alpha },
    { "lora-targets", "c_fc,v", .lora = true, .targets = &want.lora.targets, .target_bits = 1u << C_FC | TARGET_V },
    { "base-type", "nf4", .lora = true, .type = BASE_NF4 },
    { "base-type", "int8", .lora = true, .type = BASE_INT8 },
    { "init", "@second", .lora = true, .text = &want.init },
    { "max-iters", "5", .count = &want.schedule.max_iters },
    { "batch-size", "3", .whole = &want.batch_size },
    { "learning-rate", "0.07", .number = &want.schedule.learning_rate },
    { "min-lr", "0.03", .number = &want.schedule.min_lr },
    { "warmup-iters", "4", .count = &want.schedule.warmup_iters },
    { "weight-decay", "0.9", .number = &want.adamw.weight_decay },
    { "beta1", "0.3", .number = &want.adamw.beta1 },
    { "beta2", "0.4", .number = &want.adamw.beta2 },
    { "grad-clip", "0.01", .number = &want.adamw.grad_clip },
    { "seed", "4611686018427387904", .seed = &want.seed },
    { "micro-batches", "2", .whole = &want.micro_batches },
    { "threads", "1", .seen = one_thread },
    { "threads", "3", .seen = three_threads },
    { "eval-interval", "2", .seen = evaluated_each_second_step },
    { "recompute", NULL, .seen = recomputed },
    { "trace", NULL, .seen = traced },
    { "out", "@elsewhere", .seen = helped },
};
enum { CHANGES = sizeof changes / sizeof *changes };

static void want_changed(const Change *c)
{
    if (c->text) *c->text = c->value + 1;
    if (c->whole) *c->whole = atoi(c->value);
    if (c->count) *c->count = atoll(c->value);
    if (c->number) *c->number = atof(c->value);
    if (c->targets) *c->targets = c->target_bits;
    want.lora.base_type = c->type;
    if (c->seed) *c->seed = strtoull(c->value, NULL, 10);
    if (c->whole == &want.lora.r) want.lora.alpha = 2 * want.lora.r;
}

TEST(each_option_of_train_does_what_it_says)
{
    static const char *const elsewhere[] = { "resume", "overwrite" }; // tests of their own
    char line[900];
    want_baseline(false);
    uint64_t full = plain_training();
    want_baseline(true);
    uint64_t adapter = plain_training();
    for (const Option *o = train_table.rows; o->name || o->meaning; o++) {
        bool known = o->name == NULL;
        for (int i = 0; i < CHANGES && !known; i++) known = strcmp(o->name, changes[i].option) == 0;
        for (int i = 0; i < 2 && !known; i++) known = strcmp(o->name, elsewhere[i]) == 0;
        EXPECT(known, "nothing says what --%s changes", o->name);
    }
    for (int i = 0; i < CHANGES; i++) {
        const Change *c = &changes[i];
        want_baseline(c->lora);
        want_changed(c);
        uint64_t expected = plain_training();
        EXPECT((expected != (c->lora ? adapter : full)) == (c->seen == NULL), "--%s %s: the weights show nothing", c->option, c->value);
        remove_all(in_root("run"));
        snprintf(line, sizeof line, "--out @run %s --%s%s%s", c->lora ? LORA : FULL, c->option, c->value ? " " : "", c->value ? c->value : "");
        int status = train(line);
        EXPECT(status == 0 && said[0] == '\0', "--%s %s: status %d, said: %s", c->option, c->value, status, said);
        if (c->seen) EXPECT(c->seen(), "--%s %s: it did not do what it should", c->option, c->value);
        if (strcmp(c->option, "out") != 0)
            EXPECT(trained(want.init) == expected, "--%s %s: other weights than those of a plain loop", c->option, c->value);
    }
}

// Not given, some values follow from others.
TEST(what_is_not_given_follows)
{
    remove_all(in_root("run"));
    EXPECT(train("--out @run --data @text.txt --init @base --lora-r 3 --max-iters 1 --learning-rate 1e-5 --batch-size 2") == 0, "%s", said);
    TrainingState state;
    must(state_load(in_root("run"), NULL, &state, message, sizeof message));
    const TrainOptions *s = &state.options;
    EXPECT(s->lora.alpha == 6 && s->schedule.min_lr == 1e-5, "alpha %g, min_lr %g", s->lora.alpha, s->schedule.min_lr);
    EXPECT(s->config.n_embd == 8 && s->config.block_size == 8 && s->config.dropout == 0, "%d %d %g", s->config.n_embd,
           s->config.block_size, s->config.dropout);
    state_free(&state);

    // dropout is the base's
    copy_directory(in_root("base"), in_root("dropping"));
    char *config = text_of(in_root("base/config.json")), *at = strstr(config, "\"resid_pdrop\": 0.0");
    must(at != NULL);
    memcpy(at, "\"resid_pdrop\": 0.3", 18);
    FILE *file = fopen(in_root("dropping/config.json"), "w");
    must(file != NULL && fputs(config, file) >= 0 && fclose(file) == 0);
    free(config);
    for (int given = 0; given < 2; given++) {
        char line[900];
        want_baseline(true);
        want.init = "dropping";
        want.config.dropout = given ? 0 : 0.3;
        remove_all(in_root("run"));
        snprintf(line, sizeof line, "--out @run %s --init @dropping%s", LORA, given ? " --dropout 0" : "");
        EXPECT(train(line) == 0, "%s", said);
        EXPECT(trained("dropping") == plain_training(), "other weights than those of a plain loop");
        EXPECT(file_has("printed", ", dropout 0.3\n") == !given, "whether it is printed");
        must(state_load(in_root("run"), NULL, &state, message, sizeof message));
        EXPECT(s->config.dropout == want.config.dropout && state.model->config.dropout == want.config.dropout, "%g", s->config.dropout);
        state_free(&state);
    }
}

// Goes on with one option more: refused, or obeyed.
static void expect_resume(const Option *o, const char *value, bool obeyed, const TrainOptions *saved)
{
    char line[300], was[100] = "";
    copy_directory(in_root("stopped"), in_root("run"));
    snprintf(line, sizeof line, "--resume --out @run --%s%s%s", o->name, value ? " " : "", value ? value : "");
    int status = train(line);
    if (obeyed) {
        EXPECT(status == 0, "%s: status %d, said: %s", line, status, said);
        return;
    }
    const char *text = option_text(o, saved);
    snprintf(was, sizeof was, " has %s;", text);
    EXPECT(status == EXIT_USAGE && one_line(said) && strstr(said, o->name) && strstr(said, was), "%s: status %d, said: %s", line, status, said);
    EXPECT(same_directory(in_root("stopped"), in_root("run")), "%s: %s", line, message);
}

// What changes the weights is settled with the first step; but for how many there are, and where things lie.
TEST(a_resumed_run_keeps_what_is_settled)
{
    static const char *const free_to_change[] = { "data", "init", "max-iters", "eval-interval", "micro-batches", "threads", "recompute", "trace" };
    for (int form = 0; form < 2; form++) {
        char line[900];
        remove_all(in_root("stopped"));
        snprintf(line, sizeof line, "--out @stopped %s", form ? LORA : FULL);
        EXPECT(train(line) == 0, "%s", said);
        TrainingState state;
        must(state_load(in_root("stopped"), NULL, &state, message, sizeof message));
        for (int i = 0; i < CHANGES; i++) {
            const Change *c = &changes[i];
            const Option *o = train_table.rows;
            while (o->name == NULL || strcmp(o->name, c->option) != 0) o++;
            bool may = o->on_resume == ANEW || o->on_resume == KEPT, known = strcmp(o->name, "out") == 0;
            for (int k = 0; k < 8 && !known; k++) known = strcmp(o->name, free_to_change[k]) == 0;
            EXPECT(may == known, "--%s: the table has it the other way", o->name);
            if (c->lora != form || c->text || c->seen == helped) continue;
            expect_resume(o, c->value, may, &state.options);
            if (!may) expect_resume(o, option_text(o, &state.options), true, &state.options);
        }
        state_free(&state);
    }
    copy_directory(in_root("stopped"), in_root("run"));
    EXPECT(train("--resume --out @run --max-iters 8") == 0, "%s", said);
    want_baseline(true);
    want.schedule.max_iters = 6;
    EXPECT(file_has("run/log.csv", "\n8,"), "--max-iters 8 is not obeyed");
    EXPECT(train("--resume --out @run --data @other.txt") == 1 && strstr(said, "is not the text of the run"), "%s", said);
    EXPECT(train("--resume --out @run --init @second") == 1 && strstr(said, "fingerprint"), "%s", said);
    EXPECT(train("--resume --overwrite --out @run") == 2 && strstr(said, "choose one"), "%s", said);
}

// As many parts as there are windows, but not more; and a run that goes on takes as many as before.
TEST(a_batch_has_parts_enough)
{
    remove_all(in_root("run"));
    EXPECT(train("--out @run --micro-batches 3 " FULL) == 2 && one_line(said) && strstr(said, "3 parts of a batch of 2 windows"), "%s", said);
    EXPECT(access(in_root("run"), F_OK) != 0, "it has begun");
    EXPECT(train("--out @run --micro-batches 2 " FULL) == 0 && metric("micro_batches") == 2, "%" PRId64 ", said: %s", metric("micro_batches"), said);
    EXPECT(train("--resume --out @run --max-iters 8") == 0 && metric("micro_batches") == 2, "%" PRId64 ", said: %s", metric("micro_batches"), said);
    EXPECT(metric("ranks") == 1 && metric("wire_bytes") == 0, "%" PRId64 " processes, %" PRId64 " bytes", metric("ranks"), metric("wire_bytes"));
}

// ------------------------------------------------------------------------------------------------------------------------ sampling

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

// A token by the definition: of the k most probable, with probability p^(1/temperature) each.
static int plain_draw(const real *logits, int V, double temperature, int k, double u)
{
    double sorted[300], p[300], sum = 0;
    int best = 0;
    for (int v = 0; v < V; v++) sorted[v] = (double)logits[v];
    qsort(sorted, (size_t)V, sizeof *sorted, descending);
    for (int v = V; v-- > 0;)
        if ((double)logits[v] == sorted[0]) best = v;
    if (temperature == 0) return best;
    for (int v = 0; v < V; v++) {
        p[v] = k > 0 && (double)logits[v] < sorted[k - 1] ? 0 : exp(((double)logits[v] - sorted[0]) / temperature);
        sum += p[v];
    }
    for (int v = 0; v < V; v++)
        if ((u -= p[v] / sum) < 0) return v;
    return best;
}

static BaseType sampled_type; // in which plain_sample holds the model

// The prompt and what follows it: without a cache, the whole context read anew for each character. Full, it keeps its later half.
static void plain_sample(const char *model_dir, const char *adapter, const char *prompt, int length, double temperature, int k,
                         uint64_t seed, char *text)
{
    Vocabulary vocabulary;
    Transformer *model = model_load(in_root(model_dir), &vocabulary, message, sizeof message);
    must(model != NULL);
    if (adapter) must(adapter_load(model, in_root(adapter), "a", true, message, sizeof message) != NULL);
    transformer_hold_base(model, sampled_type);
    int tokens[1000], T = model->config.block_size, V = vocabulary.size;
    int n = (int)vocabulary_encode(&vocabulary, prompt, strlen(prompt), tokens, message, sizeof message), start = n > T ? n - T : 0;
    must(n > 0);
    for (int i = 0; i < length; i++, n++) {
        if (n - start > T) start = n - (T + 1) / 2;
        Tensor *logits = transformer_logits(model, NULL, tokens + start, 1, n - start);
        tokens[n] = plain_draw(logits->data + (int64_t)(n - start - 1) * V, V, temperature, k, random_uniform(seed, (uint64_t)i));
        tensor_drop(logits);
    }
    for (int i = 0; i < n; i++) text += vocabulary_decode(&vocabulary, tokens[i], text);
    strcpy(text, "\n");
    vocabulary_free(&vocabulary);
    transformer_free(model);
}

static void expect_sample(const char *line, const char *model, const char *adapter, const char *prompt, int length,
                          double temperature, int k, uint64_t seed)
{
    char expected[4000];
    plain_sample(model, adapter, prompt, length, temperature, k, seed, expected);
    int status = run(sample_main, line);
    char *printed = text_of(in_root("printed"));
    EXPECT(status == 0 && strcmp(printed, expected) == 0, "%s: status %d, \"%s\", and by a plain loop \"%s\"; said: %s", line, status,
           printed, expected, said);
    free(printed);
}

TEST(each_option_of_sample_does_what_it_says)
{
    static const char *const tested = " model adapter base-type any-base prompt interactive length temperature top-k seed threads ";
    for (const Option *o = sample_options; o->name; o++) {
        char word[40];
        snprintf(word, sizeof word, " %s ", o->name);
        EXPECT(strstr(tested, word), "nothing says what --%s changes", o->name);
    }
    expect_sample("--model @base --length 40 --threads 1", "base", NULL, "\n", 40, 0.8, 0, 1337);
    expect_sample("--model @second --length 40 --threads 3", "second", NULL, "\n", 40, 0.8, 0, 1337);
    expect_sample("--model @base --prompt cats --length 41", "base", NULL, "cats", 41, 0.8, 0, 1337);
    expect_sample("--model @base --prompt cats --length 41 --seed 7", "base", NULL, "cats", 41, 0.8, 0, 7);
    expect_sample("--model @base --prompt cats --length 41 --temperature 1.7", "base", NULL, "cats", 41, 1.7, 0, 1337);
    expect_sample("--model @base --prompt cats --length 30 --temperature 0", "base", NULL, "cats", 30, 0, 0, 1337);
    for (int k = 1; k <= 5; k++) {
        char line[200];
        snprintf(line, sizeof line, "--model @base --prompt cats --length 40 --temperature 2 --top-k %d", k);
        expect_sample(line, "base", NULL, "cats", 40, 2, k, 1337);
    }
    expect_sample("--model @base --prompt Thecatssatonamatsatonacat --length 20", "base", NULL, "Thecatssatonamatsatonacat", 20, 0.8, 0, 1337);
    expect_sample("--model @base --adapter @adapter --length 40", "base", "adapter", "\n", 40, 0.8, 0, 1337);
    EXPECT(run(sample_main, "--model @second --adapter @adapter --length 5") == 1 && strstr(said, "fingerprint"), "%s", said);
    expect_sample("--model @second --adapter @adapter --any-base --length 40", "second", "adapter", "\n", 40, 0.8, 0, 1337);
    char with[4000], both[9000], in_floats[4000];
    plain_sample("base", "adapter", "\n", 90, 0.8, 0, 1337, in_floats);
    for (sampled_type = BASE_FLOAT; sampled_type < BASE_TYPES; sampled_type++) {
        char line[200];
        snprintf(line, sizeof line, "--model @base --adapter @adapter --length 90 --base-type %s", base_type_names[sampled_type]);
        expect_sample(line, "base", "adapter", "\n", 90, 0.8, 0, 1337);
        if (sampled_type != BASE_INT8) // whose values are too near
            EXPECT(file_has("printed", in_floats) == (sampled_type == BASE_FLOAT), "--base-type %s: whether the text is another",
                   base_type_names[sampled_type]);
    }
    sampled_type = BASE_FLOAT;
    EXPECT(run(sample_main, "--model @base --adapter @adapter --adapter @adapter --length 9") == 0, "%s", said);
    plain_sample("base", "adapter", "\n", 9, 0.8, 0, 1337, with);
    snprintf(both, sizeof both, "== %s\n%s\n== %s\n%s", in_root("adapter"), with, in_root("adapter"), with);
    EXPECT(file_has("printed", both), "two adapters give two texts, each under its name");
}

TEST(each_option_of_adapter_does_what_it_says)
{
    for (const Option *o = adapter_options; o->name; o++)
        EXPECT(strstr(" model any-base out dtype base-type overwrite ", o->name), "nothing says what --%s changes", o->name);
    EXPECT(run(adapter_main, "info @adapter --model @second") == 1 && strstr(said, "fingerprint"), "%s", said);
    EXPECT(run(adapter_main, "info @adapter --model @second --any-base") == 0, "%s", said);
    EXPECT(run(adapter_main, "merge @adapter --out @merged") == 0 && file_has("printed", in_root("base")), "%s", said);
    EXPECT(run(adapter_main, "merge @adapter --out @merged16 --dtype bfloat16") == 0 && file_has("printed", "of bfloat16")
               && file_has("merged16/config.json", "\"bfloat16\""), "%s", said);
    EXPECT(run(adapter_main, "merge @adapter --out @merged8 --dtype int8") == 2 && strstr(said, "--dtype int8"), "%s", said);
    char expected[4000];
    plain_sample("base", "adapter", "cats", 30, 0, 0, 1, expected); // at temperature 0 the merged model says the same
    EXPECT(run(sample_main, "--model @merged --prompt cats --length 30 --temperature 0") == 0 && file_has("printed", expected), "%s", said);
    for (sampled_type = BASE_NF4; sampled_type < BASE_TYPES; sampled_type++) {
        const char *type = base_type_names[sampled_type];
        char line[200], words[200];
        snprintf(line, sizeof line, "info @adapter --base-type %s", type);
        snprintf(words, sizeof words, "here the base's linear layers are %s\n", type);
        EXPECT(run(adapter_main, line) == 0 && file_has("printed", words), "%s: %s", line, said);
        snprintf(line, sizeof line, "merge @adapter --out @codes --base-type %s --overwrite", type);
        snprintf(words, sizeof words, ": %s in its linear layers, the rest %s; the base is in", type, model_dtype_name(REAL_DTYPE));
        EXPECT(run(adapter_main, line) == 0 && file_has("printed", words), "%s: %s", line, said);
        plain_sample("merged", NULL, "cats", 60, 0.8, 0, 1, expected); // held in codes
        EXPECT(run(sample_main, "--model @codes --prompt cats --length 60 --seed 1") == 0 && file_has("printed", expected), "%s: %s", type, said);
        EXPECT(run(adapter_main, "merge @adapter --out @from_codes --model @codes --any-base --overwrite") == 0
                   && file_has("printed", "and its linear layers, rounded before, in") && file_has("printed", type)
                   && !file_has("from_codes/config.json", "quantization_config"), "%s: %s", type, said);
    }
    sampled_type = BASE_FLOAT;
    copy_directory(in_root("merged"), in_root("run"));
    EXPECT(run(adapter_main, "merge @adapter --out @merged --model @second --any-base") == 2 && strstr(said, "a model of") && strstr(said, "--overwrite"),
           "%s", said);
    EXPECT(same_directory(in_root("run"), in_root("merged")), "%s", message);
    EXPECT(run(adapter_main, "merge @adapter --out @merged --model @second --any-base --overwrite") == 0, "%s", said);
    EXPECT(!same_directory(in_root("run"), in_root("merged")), "nothing was replaced");
    EXPECT(run(adapter_main, "info @adapter --out @x") == 2 && strstr(said, "leave out --out"), "%s", said);
}

// ----------------------------------------------------------------------------------------------------------- help and wrong usage

static void expect_help(const char *name, int (*main_)(int argc, char **argv), const OptionTable *table)
{
    const char *const ways[] = { "--help", "-h" };
    for (int i = 0; i < 2; i++) EXPECT(run(main_, ways[i]) == 0 && file_has("printed", table->tail), "%s %s: %s", name, ways[i], said);
    char *help = text_of(in_root("printed")), *flat = strdup(help), *out = flat;
    for (const char *at = help; *at != '\0'; at++) // words apart by one space, as in the table
        if (!isspace((unsigned char)*at) || (out > flat && out[-1] != ' ')) *out++ = (char)(isspace((unsigned char)*at) ? ' ' : *at);
    *out = '\0';
    for (const Option *o = table->rows; o->name || o->meaning; o++) {
        char row[1000];
        if (o->name == NULL || o->meaning == NULL) continue;
        snprintf(row, sizeof row, "--%s%s%s %s%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "", o->meaning,
                 o->initial ? " (" : "", o->initial ? o->initial : "", o->initial ? ")" : "");
        EXPECT(strstr(flat, row), "%s --help lacks: %s", name, row);
    }
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n")) EXPECT(strlen(line) < 80, "%s: %s", name, line);
    free(help);
    free(flat);
    EXPECT(run(main_, "--version") == 0 && file_has("printed", VERSION) && file_has("printed", name), "%s --version: %s", name, said);
}

TEST(help_and_version)
{
    expect_help("train", train_main, &train_table);
    expect_help("sample", sample_main, &sample_table);
    expect_help("adapter", adapter_main, &adapter_table);
    EXPECT(run(adapter_main, "") == 0 && file_has("printed", adapter_table.tail) && said[0] == '\0', "adapter alone: %s", said);
}

TEST(wrong_usage_is_told_apart)
{
    static const struct { const char *line, *said; } cases[] = {
        { "--lerning-rate 1", "train: --lerning-rate: no such option; is --learning-rate meant? --help lists them all\n" },
        { "--batchsize=3", "train: --batchsize: no such option; is --batch-size meant? --help lists them all\n" },
        { "--beta3 1", "train: --beta3: no such option; is --beta1 meant? --help lists them all\n" },
        { "--quick", "train: --quick: no such option; --help lists them all\n" },
        { "-q", "train: -q: no such option; --help lists them all\n" },
        { "--learning-rate", "train: --learning-rate: its value is missing: a number from 0 to 100\n" },
        { "--max-it", "train: --max-iters: its value is missing: a whole number from 1 to 1099511627776\n" },
        { "--out", "train: --out: its value is missing: DIR\n" },
        { "--init --resume", "train: --init: its value is missing: DIR\n" },
        { "--beta 0.5", "train: --beta: which of --beta1, --beta2?\n" },
        { "--trace=1", "train: --trace takes no value\n" },
        { "--max-iters 3x", "train: --max-iters 3x: a whole number from 1 to 1099511627776 is needed\n" },
        { "--max-iters 0", "train: --max-iters 0: a whole number from 1 to 1099511627776 is needed\n" },
        { "--max-iters 99999999999999999999", "train: --max-iters 99999999999999999999: a whole number from 1 to 1099511627776 is needed\n" },
        { "--beta1 1", "train: --beta1 1: a number from 0 to 0.999999 is needed\n" },
        { "--dropout nan", "train: --dropout nan: a number from 0 to 0.99 is needed\n" },
        { "--base-type nf5", "train: --base-type nf5: there are float, nf4 and int8\n" },
        { "--base-type nf4", "train: --base-type nf4 needs --lora-r N: codes cannot train, only adapters on them\n" },
        { "words", "train: words: train takes options only; --help lists them\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = train(cases[i].line);
        EXPECT(status == EXIT_USAGE && strcmp(said, cases[i].said) == 0, "%s: status %d, said: %s", cases[i].line, status, said);
    }
}

// What is written as text is read back to the bit.
TEST(values_as_text)
{
    typedef struct Values { double x; int64_t n; } Values;
    static const Option rows[] = { { "x", "X", NULL, "a number", KEPT, DOUBLE_OPTION(Values, x, -1e300, 1e300) },
                                   { "n", "N", NULL, "a count", KEPT, INT64_OPTION(Values, n, 0, 0x1p62) }, { 0 } };
    static const double numbers[] = { 0, 1, 0.1, 1.0 / 3, 1e-5, 6.02e23, 0.30000000000000004, -123456789.125 };
    for (int i = 0; i < 8; i++) {
        Values a = { numbers[i], (int64_t)1 << 8 * i }, b;
        EXPECT(option_set(&rows[0], &b, option_text(&rows[0], &a), error, sizeof error) && a.x == b.x, "%.17g, %.17g", a.x, b.x);
        EXPECT(option_set(&rows[1], &b, option_text(&rows[1], &a), error, sizeof error) && a.n == b.n, "%" PRId64, b.n);
    }
    Values tenth = { 0.1, 0 };
    EXPECT(strcmp(option_text(&rows[0], &tenth), "0.1") == 0, "%s", option_text(&rows[0], &tenth));
}

// What a state says is read back as it was, at both ends of each range, and where there is no text.
TEST(a_state_holds_every_value_of_its_range)
{
    for (const Option *o = train_table.rows; o->name || o->meaning; o++)
        for (int end = 0; end < 3; end++) {
            TrainOptions was = train_options_default(), is = { .data = "what was there" };
            char number[40], *json;
            size_t n;
            if (o->on_resume != KEPT && o->on_resume != SETTLED) continue;
            snprintf(number, sizeof number, o->type == OPTION_DOUBLE ? "%.17g" : "%.0f", end ? o->most : o->least);
            if (end < 2 && o->type != OPTION_TEXT && o->type != OPTION_WORDS) EXPECT(option_set(o, &was, number, error, sizeof error), "--%s %s: %s", o->name, number, error);
            if (end == 2 && o->type == OPTION_TEXT) was.data = is.data = NULL;
            if (end == 2 && o->type == OPTION_WORDS) was.lora.targets = TARGET_Q | 1u << MLP_C_PROJ, was.lora.base_type = BASE_INT8;
            FILE *out = open_memstream(&json, &n);
            fputs("{\"step\":0", out);
            options_put(out, train_table.rows, &was);
            fputs("}", out);
            fclose(out);
            Json *tree = json_parse(json, n, error, sizeof error);
            EXPECT(tree != NULL && options_get(tree, train_table.rows, &is, error, sizeof error), "--%s %s: %s", o->name, number, error);
            for (const Option *p = train_table.rows; tree && (p->name || p->meaning); p++) {
                if (p->on_resume != KEPT && p->on_resume != SETTLED) continue;
                const char *a = option_text(p, &was), *b = option_text(p, &is);
                EXPECT(a == b || (a && b && strcmp(a, b) == 0), "--%s was %s, and is %s", p->name, a, b);
            }
            json_free(tree);
            free(json);
        }
}

int main(void)
{
    parallel_set_threads(1); // so that children may start threads of their own
    if (!make_root("options")) return 1;
    prints_to = strdup(in_root("printed"));
    FILE *other = fopen(in_root("other.txt"), "w");
    for (int i = 0; other && i < 40; i++) fprintf(other, "The %d mats sat on \xc3\xa4 cat.\n", i * i % 89);
    if (other == NULL || fclose(other) != 0) { perror(root); return 1; }
    int status = train("--out @base --data @text.txt --n-layer 2 --n-head 2 --n-embd 8 --block-size 8 --max-iters 9 --learning-rate 0.05 --warmup-iters 1");
    if (status == 0) status = train("--out @second --data @text.txt --n-layer 2 --n-head 2 --n-embd 8 --block-size 8 --max-iters 9 --learning-rate 0.05 --warmup-iters 1 --seed 3");
    if (status == 0) status = train("--out @adapter --data @text.txt --init @base --lora-r 2 --lora-targets c_attn,c_fc --max-iters 20 --learning-rate 0.3 --warmup-iters 1");
    if (status != 0) { printf("nothing to start from: %s", said); return 1; }
    RUN(each_option_of_train_does_what_it_says);
    RUN(what_is_not_given_follows);
    RUN(a_resumed_run_keeps_what_is_settled);
    RUN(a_batch_has_parts_enough);
    RUN(each_option_of_sample_does_what_it_says);
    RUN(each_option_of_adapter_does_what_it_says);
    RUN(help_and_version);
    RUN(wrong_usage_is_told_apart);
    RUN(values_as_text);
    RUN(a_state_holds_every_value_of_its_range);
    remove_all(root);
    return test_summary();
}
