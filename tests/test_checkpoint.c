// test_checkpoint.c - training states to disk and back, and what must be refused without leaving anything behind; damage to any
// byte, files too large for any memory, and a death at any moment of a save.

#include "checkpoint.h"

// --- states ---

static bool same_moments(const AdamW *a, const AdamW *b)
{
    bool same = a->count == b->count && a->step == b->step;
    for (int i = 0; i < a->count && same; i++) {
        same = (a->m[i] == NULL) == (b->m[i] == NULL);
        size_t n = (size_t)a->parameters[i]->size * sizeof(real);
        if (a->m[i] && same) same = memcmp(a->m[i], b->m[i], n) == 0 && memcmp(a->v[i], b->v[i], n) == 0;
    }
    return same;
}

// Of a run with an adapter of rank 2 on all layers.
static TrainOptions small_options(void)
{
    TrainOptions s = train_options_default();
    s.data = NULL;
    s.seed = 1;
    s.lora = everywhere(2, 4);
    return s;
}

TEST(states_go_on_as_if_nothing_had_happened)
{
    AdamWConfig adamw = { 0.9, 0.99, 0.1, 1.0 / 3 };
    Vocabulary v = letters(V);
    Transformer *base = new_model(20);
    if (!model_save(base, &v, in_root("base"), error, sizeof error)) give_up("base");
    transformer_free(base);
    for (int variant = 0; variant < 7;
         variant++) { // all; adapters: everywhere, B alone, ranks by block, q and v; and both before their first step
        bool lora = variant >= 1 && variant <= 5;
        int64_t steps = variant >= 5 ? 0 : 5;
        TrainingState state = { .step = 123456789, .vocabulary = v, .text_hash = UINT64_MAX - 1,
                                .options = train_options_default() }, back;
        TrainOptions *s = &state.options;
        s->seed = UINT64_C(0x3edcba9876543210);
        s->data = "a\n\"\\ \xe2\x82\xac";
        s->batch_size = 77;
        s->schedule = (Schedule){ 1.0 / 3, 1.0 / 7, 11, 123456790 };
        s->eval_interval = INT64_C(1) << 40;
        s->adamw = adamw;
        s->config.dropout = 0.1;
        state.model = lora ? model_load(in_root("base"), NULL, error, sizeof error) : new_model(20);
        state.model->config.dropout = 0.1;
        int by_block[L] = { 3, 0, 1 };
        LoraConfig config = everywhere(2, 3.3);
        config.freeze_A = variant == 2;
        if (variant == 3) config.r_by_block = by_block, config.rank_stabilized = true;
        if (variant == 4) config.targets = TARGET_Q | TARGET_V | 1u << C_FC;
        if (lora) {
            transformer_train_base(state.model, false);
            new_adapter(state.model, "my adapter", config, 77);
            state.base_dir = in_root("base");
            s->lora = config;
        }
        state.optimizer = adamw_new(state.model->parameters, state.model->parameter_count, adamw);
        train(state.model, state.optimizer, 0, steps);
        EXPECT(state_save(in_root("run/state"), &state, error, sizeof error), "variant %d: %s", variant, error);
        EXPECT(files_in(in_root("run/state")) == (variant == 0 ? 5 : 7), "%d files",
               files_in(in_root("run/state"))); // state and model; then an adapter, too
        Transformer *seen = lora ? model_load(in_root("base"), NULL, error, sizeof error)
                                 : model_load(in_root("run/state"), NULL, error, sizeof error);
        EXPECT(seen && same_base(seen, state.model), "variant %d: what others read: %s", variant, error);
        EXPECT(!lora
                   || (adapter_load(seen, in_root("run/state"), "x", false, error, sizeof error)
                       && same_adapter(seen->active, state.model->active)),
               "variant %d: %s", variant, error);
        transformer_free(seen);

        bool good = state_load(in_root("run/state"), NULL, &back, error, sizeof error);
        EXPECT(good, "variant %d: %s", variant, error);
        if (!good) continue;
        EXPECT(back.step == state.step && back.text_hash == state.text_hash, "%" PRId64 " %" PRIx64, back.step, back.text_hash);
        for (const Option *o = train_table.rows; o->name || o->meaning; o++) {
            if (o->on_resume != KEPT && o->on_resume != SETTLED) continue;
            const char *was = option_text(o, s), *is = option_text(o, &back.options);
            EXPECT(strcmp(was, is) == 0, "variant %d: %s was %s, and is %s", variant, o->name, was, is);
        }
        EXPECT(back.options.data == back.data && memcmp(&back.options.schedule, &s->schedule, sizeof s->schedule) == 0, "to the bit");
        EXPECT(vocabulary_equal(&back.vocabulary, &v), "variant %d: vocabulary", variant);
        EXPECT(memcmp(&back.optimizer->config, &adamw, sizeof adamw) == 0 && back.optimizer->step == steps,
               "variant %d: the optimizer's settings", variant);
        EXPECT(back.model->config.dropout == state.model->config.dropout, "dropout %g", back.model->config.dropout);
        EXPECT(lora ? strcmp(back.base_dir, state.base_dir) == 0 : back.base_dir == NULL, "base_dir");
        EXPECT(same_base(back.model, state.model), "variant %d: the base", variant);
        EXPECT(!lora
                   || (same_adapter(back.model->active, state.model->active)
                       && strcmp(back.model->active->name, "my adapter") == 0),
               "variant %d: the adapter", variant);
        const LoraConfig *was = lora ? &state.model->active->config : NULL, *now = lora ? &back.model->active->config : NULL;
        EXPECT(!lora || (now->r == was->r && now->alpha == was->alpha && now->targets == was->targets
                         && now->freeze_A == was->freeze_A), "variant %d: what was asked for", variant);
        EXPECT(back.model->parameter_count == state.model->parameter_count, "variant %d", variant);
        for (int i = 0; i < back.model->parameter_count; i++)
            EXPECT(back.model->parameters[i]->requires_grad == state.model->parameters[i]->requires_grad
                       && strcmp(back.model->parameters[i]->name, state.model->parameters[i]->name) == 0,
                   "variant %d: %s", variant, state.model->parameters[i]->name);
        EXPECT(same_moments(back.optimizer, state.optimizer), "variant %d: the moments", variant);
        EXPECT(
            state_save(in_root("run/again"), &back, error, sizeof error)
                && same_bytes(in_root("run/again/training_state.safetensors"), in_root("run/state/training_state.safetensors")),
            "variant %d: saved again it is another file %s", variant, error);
        train(state.model, state.optimizer, steps, steps + 3);
        train(back.model, back.optimizer, steps, steps + 3);
        EXPECT(same_base(back.model, state.model) && same_moments(back.optimizer, state.optimizer),
               "variant %d: three steps later", variant);
        EXPECT(!lora || same_adapter(back.model->active, state.model->active), "variant %d: three steps later", variant);
        state_free(&back);
        adamw_free(state.optimizer);
        transformer_free(state.model);
    }
    vocabulary_free(&v);
}

static bool loads(const Item *items, size_t n, const char *text, TrainingState *back)
{
    SafetensorsTensor tensors[100];
    static real zeros[400];
    for (size_t k = 0; k < n; k++)
        tensors[k] = (SafetensorsTensor){ items[k].name, own, items[k].ndim, items[k].shape, zeros };
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { "meltwater_state", text } };
    if (safetensors_write(in_root("refused/training_state.safetensors"), tensors, n, metadata, text ? 2 : 1, error, sizeof error))
        give_up("state");
    return state_load(in_root("refused"), NULL, back, error, sizeof error);
}

static void expect_refused(const Item *items, size_t n, const char *text, const char *what, const char *word)
{
    TrainingState back;
    EXPECT(!loads(items, n, text, &back) && one_line(word), "%s: %s", what, error);
}

// A state of an earlier version, which lacks this: it is the default.
static void expect_default(const Item *items, size_t n, const char *text, const Option *o)
{
    TrainingState back;
    const TrainOptions usual = train_options_default();
    bool good = loads(items, n, text, &back);
    EXPECT(good && strcmp(option_text(o, &back.options), option_text(o, &usual)) == 0, "without %s: %s", o->name, good ? "another value" : error);
    if (good) state_free(&back);
}

// A setting that is out of the option's range, or no value of its kind, in the state's text; and one that is missing.
static void expect_range(const Item *items, size_t n, const char *text, const Option *o, const TrainOptions *options)
{
    char key[60], old[240], new[240], bad[4][40] = { "[]", "true" };
    bool words = o->type == OPTION_TEXT || o->type == OPTION_WORDS;
    snprintf(key, sizeof key, "%s", o->name);
    for (char *at = key; (at = strchr(at, '-')) != NULL;) *at = '_';
    const char *value = option_text(o, options);
    snprintf(old, sizeof old, words && value ? "\"%s\":\"%s\"" : "\"%s\":%s", key, value ? value : "null");
    if (!words) {
        bool whole = o->type != OPTION_DOUBLE;
        snprintf(bad[2], sizeof *bad, whole ? "%.0f" : "%.17g", o->least - (whole ? 1 : 1e-9));
        snprintf(bad[3], sizeof *bad, whole ? "%.0f" : "%.17g", whole ? o->most + fmax(1, o->most * 0x1p-52) : 1.001 * o->most);
        if (whole) snprintf(bad[1], sizeof *bad, "%g", o->least + 1.5);
    }
    for (int i = 0; i < 5; i++) {
        if (i < 4 && bad[i][0] == '\0') continue;
        if (i < 4) snprintf(new, sizeof new, "\"%s\":%s", key, bad[i]);
        else snprintf(new, sizeof new, "\"missing\":0");
        char *changed = replaced(text, old, new);
        if (i < 4 || !o->later) expect_refused(items, n, changed, new, key);
        else expect_default(items, n, changed, o);
        free(changed);
    }
}

TEST(states_that_are_refused)
{
    TrainingState state = { .options = small_options() }, back;
    Transformer *base = new_model(21), *stranger = new_model(22);
    if (!model_save(base, NULL, in_root("base"), error, sizeof error)
        || !model_save(stranger, NULL, in_root("strange"), error, sizeof error))
        give_up("base");
    state.model = base;
    transformer_train_base(base, false);
    new_adapter(base, "a", everywhere(2, 4), 1);
    state.base_dir = in_root("base");
    state.optimizer = adamw_new(base->parameters, base->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
    train(base, state.optimizer, 0, 2);
    if (!state_save(in_root("refused"), &state, error, sizeof error)) give_up("state");
    int64_t held = ledger.total;
    EXPECT(state_load(in_root("refused"), in_root("base"), &back, error, sizeof error), "%s", error);
    state_free(&back);
    EXPECT(!state_load(in_root("refused"), in_root("strange"), &back, error, sizeof error) && one_line("another base"), "%s",
           error);
    EXPECT(!state_load(in_root("refused"), in_root("nowhere"), &back, error, sizeof error) && one_line("nowhere/config.json"),
           "%s", error);
    EXPECT(!state_load(in_root("nowhere"), NULL, &back, error, sizeof error) && one_line("training_state.safetensors"), "%s",
           error);
    EXPECT(back.model == NULL && back.optimizer == NULL && back.base_dir == NULL, "something is left");

    static Item items[100];
    Safetensors *file;
    char *path = in_root("refused/training_state.safetensors");
    size_t n = items_of(path, items, &file);
    EXPECT(n == 3 * 24, "%zu tensors", n);
    const char *text = safetensors_metadata(file, "meltwater_state");
    static const struct { const char *old, *new, *word; } cases[] = {
        { "\"version\":2", "\"version\":3", "version" },
        { "\"step\":0", "\"step\":-1", "step" },
        { "\"step\":0", "\"step\":1099511627777", "step" },
        { "\"optimizer_step\":2", "\"optimizer_step\":2.5", "optimizer_step" },
        { "\"optimizer_step\":2", "\"optimizer_step\":0", "48 tensors unknown" },
        { "\"beta1\":0.9", "\"beta3\":0.9", "beta1" },
        { "\"freeze_A\":false", "\"freeze_A\":true", "24 tensors unknown" },
        { "\"freeze_A\":false", "\"freeze_B\":true", "freeze_A" },
        { "\"lora_dropout\": 0,", "\"lora_dropout\": 0.1,", "lora_dropout" },
        { "\"lora_r\":2", "\"lora_r\":0", "lora_r" },
        { "\"lora_alpha\":4", "\"lora_alfa\":4", "lora_alpha" },
        { "\"lora_targets\":\"c_attn,attn.c_proj,c_fc,mlp.c_proj", "\"lora_targets\":\"q,k,v", "shared" },
        { "\"lora_targets\":\"c_attn,attn.c_proj,c_fc,mlp.c_proj\"", "\"lora_targets\":null", "lora_targets" },
        { "\"r\": 2", "\"r\": 3", "another shape" },
        { "\"r\": 2", "\"r\": 0", "\"r\"" },
        { "\"adapter\":", "\"adapters\":", "model_type" },
        { "\"data\":null", "\"tokenizer\":{},\"data\":null", "vocabulary" },
        { "\"data\":null", "\"data\":3", "data" },
        { "\"learning_rate\":0.001", "\"learning_rate\":0.00001", "min_lr" },
        { "\"text_hash\":0", "\"text_hash\":0.5", "text_hash" },
        { "{", "[", "no training state" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replaced(text, cases[i].old, cases[i].new);
        expect_refused(items, n, changed, cases[i].new, cases[i].word);
        free(changed);
    }
    expect_refused(items, n, NULL, "no such metadata at all", "meltwater_state");
    for (const Option *o = train_table.rows; o->name || o->meaning; o++)
        if (o->on_resume == KEPT || o->on_resume == SETTLED) expect_range(items, n, text, o, &state.options);
    write_items(path, items, n, other);
    EXPECT(!state_load(in_root("refused"), NULL, &back, error, sizeof error) && one_line("training_state.safetensors"), "%s",
           error);
    SafetensorsTensor wrong = { "x", other, 0, NULL, (double[]){ 0 } };
    SafetensorsMetadata metadata = { "meltwater_state", text };
    if (safetensors_write(path, &wrong, 1, &metadata, 1, error, sizeof error)) give_up("state");
    EXPECT(!state_load(in_root("refused"), NULL, &back, error, sizeof error) && one_line("REAL="), "%s", error);
    EXPECT(ledger.total == held, "%" PRId64 " bytes are left", ledger.total - held);
    safetensors_close(file);
    adamw_free(state.optimizer);
    transformer_free(base);
    transformer_free(stranger);
}

// --- damage ---

// Cuts the file short at many places; `load` must fail each time, with one line.
static void truncate_everywhere(const char *path, bool (*load)(void))
{
    size_t n;
    char *bytes = read_text(path, &n);
    while (n > 0 && strchr("\n ", bytes[n - 1])) n--; // white space at the end of JSON is not missed
    int64_t held = ledger.total;
    for (size_t length = 0; length < n; length += length < 300 || length + 50 > n ? 7 : 1 + n / 40) {
        write_text(path, bytes, length);
        error[0] = '\0';
        EXPECT(!load() && one_line(strrchr(path, '/') + 1), "%zu of %zu bytes of %s: %s", length, n, path, error);
    }
    EXPECT(ledger.total == held, "%" PRId64 " bytes are left", ledger.total - held);
    write_text(path, bytes, n);
    EXPECT(load(), "%s", error);
    free(bytes);
}

static Transformer *victim;
static bool load_model(void)
{
    Transformer *model = model_load(in_root("cut"), NULL, error, sizeof error);
    transformer_free(model);
    return model != NULL;
}
static bool load_vocabulary(void)
{
    Vocabulary v;
    bool good = vocabulary_load(in_root("cut"), V, &v, error, sizeof error);
    vocabulary_free(&v);
    return good;
}
static bool load_adapter(void)
{
    Adapter *before = victim->active, *adapter = adapter_load(victim, in_root("cut"), "loaded", false, error, sizeof error);
    if (adapter) transformer_remove_adapter(victim, adapter), transformer_use_adapter(victim, before);
    return adapter != NULL;
}
static bool load_state(void)
{
    TrainingState state;
    bool good = state_load(in_root("cut"), NULL, &state, error, sizeof error);
    state_free(&state);
    return good;
}

TEST(truncated_files)
{
    Vocabulary v = letters(V);
    victim = new_model(30);
    LoraConfig config = { .r = 2, .alpha = 4, .targets = 1, .last_block = -1 };
    Adapter *adapter = new_adapter(victim, "a", config, 1);
    TrainingState state = { .options = small_options(), .base_dir = in_root("cut"), .model = victim };
    transformer_train_base(victim, false);
    state.optimizer = adamw_new(victim->parameters, victim->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    train(victim, state.optimizer, 0, 1);
    if (!model_save(victim, &v, in_root("cut"), error, sizeof error)
        || !adapter_save(victim, adapter, ".", in_root("cut"), error, sizeof error)
        || !state_save(in_root("cut"), &state, error, sizeof error))
        give_up("cut");
    truncate_everywhere(in_root("cut/config.json"), load_model);
    truncate_everywhere(in_root("cut/model.safetensors"), load_model);
    truncate_everywhere(in_root("cut/tokenizer.json"), load_vocabulary);
    truncate_everywhere(in_root("cut/adapter_config.json"), load_adapter);
    truncate_everywhere(in_root("cut/adapter_model.safetensors"), load_adapter);
    truncate_everywhere(in_root("cut/training_state.safetensors"), load_state);
    adamw_free(state.optimizer);
    transformer_free(victim);
    vocabulary_free(&v);
}

TEST(a_failed_save_harms_nothing)
{
    static const char *const names[] = { "config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "model.safetensors",
                                         "adapter_config.json",
                                         "adapter_model.safetensors",
                                         "training_state.safetensors" };
    enum { NAMES = sizeof names / sizeof *names };
    Vocabulary v = letters(V);
    Transformer *model = new_model(40);
    LoraConfig config = { .r = 2, .alpha = 4, .targets = 15, .last_block = -1 };
    Adapter *adapter = new_adapter(model, "a", config, 1);
    TrainingState state = { .options = small_options(), .base_dir = ".", .model = model };
    transformer_train_base(model, false);
    state.optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });

    write_text(in_root("a file"), "x", 1); // no directory can be made here
    char *blocked[] = { in_root("a file"), in_root("a file/below"), "/proc/nowhere/below" };
    for (int i = 0; i < 3; i++) {
        EXPECT(!model_save(model, &v, blocked[i], error, sizeof error) && one_line("cannot make the directory"), "%s", error);
        EXPECT(!adapter_save(model, adapter, ".", blocked[i], error, sizeof error) && one_line("cannot make the directory"),
               "%s", error);
        EXPECT(!state_save(blocked[i], &state, error, sizeof error) && one_line("cannot make the directory"), "%s", error);
    }
    for (int i = 0; i < NAMES; i++) { // a directory is where the file should be
        char *dir = in_root("blocked"), file[900];
        remove_all(dir);
        mkdir(dir, 0777);
        snprintf(file, sizeof file, "%s/%s", dir, names[i]);
        mkdir(file, 0777);
        bool good = i < 4   ? model_save(model, &v, dir, error, sizeof error)
                    : i < 6 ? adapter_save(model, adapter, ".", dir, error, sizeof error)
                            : state_save(dir, &state, error, sizeof error);
        EXPECT(!good && one_line(names[i]), "%s: %s", names[i], error);
        EXPECT(files_in(dir) == 1, "%s: %d files", names[i], files_in(dir)); // all or nothing
    }

    char *dir = in_root("old"), copies[NAMES][900], files[NAMES][900];
    if (!model_save(model, &v, dir, error, sizeof error) || !adapter_save(model, adapter, ".", dir, error, sizeof error)
        || !state_save(dir, &state, error, sizeof error))
        give_up("old");
    mkdir(in_root("copies"), 0777);
    for (int i = 0; i < NAMES; i++) {
        size_t n;
        snprintf(files[i], sizeof files[i], "%s/%s", in_root("old"), names[i]);
        snprintf(copies[i], sizeof copies[i], "%s/%s", in_root("copies"), names[i]);
        char *bytes = read_text(files[i], &n);
        write_text(copies[i], bytes, n);
        free(bytes);
    }
    for (int i = 0; i < model->parameter_count; i++) disturb(model->parameters[i], (uint64_t)i);
    signal(SIGXFSZ, SIG_IGN); // the disk is full after 1,600 bytes: room for the small files, not for the tensors
    struct rlimit unlimited, full;
    getrlimit(RLIMIT_FSIZE, &unlimited);
    full = unlimited;
    full.rlim_cur = 1600;
    setrlimit(RLIMIT_FSIZE, &full);
    bool model_saved = model_save(model, &v, dir, error, sizeof error), said = one_line("model.safetensors");
    bool adapter_saved = adapter_save(model, adapter, ".", dir, error, sizeof error),
         adapter_said = one_line("adapter_model.safetensors");
    bool state_saved = state_save(dir, &state, error, sizeof error), state_said = one_line("training_state.safetensors");
    setrlimit(RLIMIT_FSIZE, &unlimited);
    EXPECT(!model_saved && said && !adapter_saved && adapter_said && !state_saved && state_said, "%s", error);
    for (int i = 0; i < NAMES; i++) EXPECT(same_bytes(files[i], copies[i]), "%s has changed", names[i]);
    EXPECT(files_in(dir) == NAMES, "%d files", files_in(dir));
    adamw_free(state.optimizer);
    transformer_free(model);
    vocabulary_free(&v);
}

TEST(a_failed_save_of_another_shape_leaves_what_can_be_loaded)
{
    Vocabulary v = letters(V);
    Transformer *model = new_model(41), *larger = transformer_new((Config){ V, T, L + 1, H, C, 0 }, 1, error, sizeof error);
    LoraConfig config = { .r = 1, .alpha = 4, .targets = 1, .last_block = -1 },
               wider = { .r = 9, .alpha = 1, .targets = 15, .last_block = -1 };
    Adapter *adapter = new_adapter(model, "a", config, 1), *other_adapter = new_adapter(larger, "b", wider, 1);
    char *dir = in_root("shape");
    if (!model_save(model, &v, dir, error, sizeof error) || !adapter_save(model, adapter, ".", dir, error, sizeof error))
        give_up("shape");
    int files = files_in(dir);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit unlimited, full;
    getrlimit(RLIMIT_FSIZE, &unlimited);
    full = unlimited;
    full.rlim_cur = 1600;
    setrlimit(RLIMIT_FSIZE, &full);
    bool model_saved = model_save(larger, NULL, dir, error, sizeof error);
    bool adapter_saved = adapter_save(larger, other_adapter, ".", dir, error, sizeof error);
    setrlimit(RLIMIT_FSIZE, &unlimited);
    EXPECT(!model_saved && !adapter_saved && files_in(dir) == files, "%d files", files_in(dir));
    Transformer *again = model_load(dir, NULL, error, sizeof error); // configuration and tensors still belong together
    EXPECT(again != NULL && transformer_hash(again) == transformer_hash(model), "%s", error);
    if (again != NULL) {
        EXPECT(adapter_load(again, dir, "a", false, error, sizeof error) != NULL, "%s", error);
        transformer_free(again);
    }
    EXPECT(!model_save(model, &v, "", error, sizeof error) && one_line("empty"), "%s",
           error); // not the root of the file system
    EXPECT(!adapter_save(model, adapter, ".", "", error, sizeof error) && one_line("empty"), "%s", error);
    transformer_free(model);
    transformer_free(larger);
    vocabulary_free(&v);
}

// --- too large for any memory ---

// Files whose headers promise terabytes, with as many bytes behind them: holes, which take no room on the disk.
TEST(terabytes_are_refused)
{
    Config huge = { .vocab_size = 1 << 28, .block_size = T, .n_layer = 1, .n_head = 1, .n_embd = 4096 };
    long long V_ = huge.vocab_size, C_ = huge.n_embd, L_ = huge.n_layer, at = 0;
    char *header, text[1000];
    size_t n;
    FILE *out = open_memstream(&header, &n);
    const struct { const char *name; long long rows, columns; } tensors[] = {
        // in the order of the names
        { "h.0.attn.c_attn.bias", 3 * C_, 0 },
        { "h.0.attn.c_attn.weight", C_, 3 * C_ },
        { "h.0.attn.c_proj.bias", C_, 0 },
        { "h.0.attn.c_proj.weight", C_, C_ },
        { "h.0.ln_1.bias", C_, 0 },
        { "h.0.ln_1.weight", C_, 0 },
        { "h.0.ln_2.bias", C_, 0 },
        { "h.0.ln_2.weight", C_, 0 },
        { "h.0.mlp.c_fc.bias", 4 * C_, 0 },
        { "h.0.mlp.c_fc.weight", C_, 4 * C_ },
        { "h.0.mlp.c_proj.bias", C_, 0 },
        { "h.0.mlp.c_proj.weight", 4 * C_, C_ },
        { "ln_f.bias", C_, 0 },
        { "ln_f.weight", C_, 0 },
        { "wpe.weight", T, C_ },
        { "wte.weight", V_, C_ },
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        long long bytes = 4 * tensors[i].rows * (tensors[i].columns ? tensors[i].columns : 1);
        fprintf(out, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld", i ? "," : "{", tensors[i].name, tensors[i].rows);
        if (tensors[i].columns) fprintf(out, ",%lld", tensors[i].columns);
        fprintf(out, "],\"data_offsets\":[%lld,%lld]}", at, at + bytes);
        at += bytes;
    }
    fprintf(out, "}");
    fclose(out);
    mkdir(in_root("huge"), 0777);
    snprintf(text, sizeof text,
             "{\"model_type\":\"gpt2\",\"vocab_size\":%lld,\"n_positions\":%d,\"n_embd\":%lld,\"n_layer\":%lld,\"n_head\":1}",
             V_, T, C_, L_);
    write_text(in_root("huge/config.json"), text, strlen(text));
    char *path = in_root("huge/model.safetensors");
    FILE *file = fopen(path, "wb");
    for (int i = 0; i < 8; i++) fputc((int)(n >> 8 * i & 255), file);
    fwrite(header, 1, n, file);
    fclose(file);
    int64_t mallocs = ledger.mallocs;
    EXPECT(!model_load(in_root("huge"), NULL, error, sizeof error) && one_line("incomplete metadata"), "%s",
           error); // nothing behind the header
    if (truncate(path, (off_t)(8 + (long long)n + at)) == 0) // not every file system allows such a hole
        EXPECT(!model_load(in_root("huge"), NULL, error, sizeof error) && one_line("of memory"), "%s", error);
    EXPECT(ledger.mallocs == mallocs, "%" PRId64 " buffers were asked for", ledger.mallocs - mallocs);
    free(header);
}

// --- sudden death ---

// Every number in the state of step n is n, or n + 1 / 2 and n + 1 / 4 in the moments.
static void set_numbers(TrainingState *state, int64_t n)
{
    AdamW *o = state->optimizer;
    state->step = n;
    for (int i = 0; i < o->count; i++)
        for (int64_t j = 0; j < o->parameters[i]->size; j++) {
            o->parameters[i]->data[j] = (real)n;
            o->m[i][j] = (real)n + (real)0.5;
            o->v[i][j] = (real)n + (real)0.25;
        }
}

static bool all_are(const real *values, int64_t count, real value)
{
    for (int64_t i = 0; i < count; i++)
        if (values[i] != value) return false;
    return true;
}

static bool model_is_of_step(const Transformer *model, int64_t n)
{
    bool good = true;
    for (int i = 0; i < model->base_count; i++)
        good = good && all_are(model->parameters[i]->data, model->parameters[i]->size, (real)n);
    return good;
}

static bool state_is_whole(const TrainingState *state)
{
    const AdamW *o = state->optimizer;
    bool good = model_is_of_step(state->model, state->step);
    for (int i = 0; i < o->count; i++)
        good = good && all_are(o->m[i], o->parameters[i]->size, (real)state->step + (real)0.5)
               && all_are(o->v[i], o->parameters[i]->size, (real)state->step + (real)0.25);
    return good;
}

// A run that does nothing but save, one step after the other, with two states in turn of two shapes and vocabularies.
static void save_until_killed(const char *dir, TrainingState *states, int shapes, int64_t step)
{
    for (;; step++) {
        TrainingState *state = &states[step % shapes];
        set_numbers(state, step);
        if (!state_save(dir, state, error, sizeof error)) _exit(1);
    }
}

static TrainingState state_to_kill(Config config)
{
    TrainingState state = { .options = small_options(),
                            .vocabulary = letters(config.vocab_size),
                            .model = transformer_new(config, 1, error, sizeof error) };
    state.optimizer = adamw_new(state.model->parameters, state.model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 0 });
    for (int i = 0; i < state.optimizer->count; i++) {
        int64_t size = state.model->parameters[i]->size;
        state.optimizer->m[i] = memory_take(MEMORY_MOMENTS, size);
        state.optimizer->v[i] = memory_take(MEMORY_MOMENTS, size);
    }
    state.optimizer->step = 1;
    return state;
}

static void free_states(TrainingState states[2])
{
    for (int i = 0; i < 2; i++) {
        vocabulary_free(&states[i].vocabulary);
        adamw_free(states[i].optimizer);
        transformer_free(states[i].model);
    }
}

enum { OF_THIS_STEP, OF_THE_LAST, MISSING }; // what the model beside a state is

// Loads what a killed run has left: a whole state, and what model is beside it. Then does what --resume does, after which the
// model must be of the state's step. Returns that step.
static int64_t look(const char *dir, const TrainingState *states, int shapes, int *model_is)
{
    TrainingState left;
    Vocabulary v = { 0 };
    bool good = state_load(dir, NULL, &left, error, sizeof error);
    EXPECT(good && state_is_whole(&left), "%s", good ? "numbers of several steps in one state" : error);
    if (!good) return -1;
    int64_t step = left.step;
    Transformer *model = model_load(dir, &v, error, sizeof error);
    if (model == NULL) {
        *model_is = MISSING;
        EXPECT(one_line("model.safetensors: cannot open"), "step %" PRId64 ": %s", step, error);
    } else {
        *model_is = model_is_of_step(model, step) ? OF_THIS_STEP : OF_THE_LAST;
        int64_t its_step = step - (*model_is == OF_THE_LAST);
        EXPECT(model_is_of_step(model, its_step), "the model is neither of step %" PRId64 " nor of the step before", step);
        EXPECT(vocabulary_equal(&v, &states[its_step % shapes].vocabulary), "the vocabulary is not that of the model");
    }
    transformer_free(model);
    vocabulary_free(&v);
    if (*model_is != OF_THIS_STEP) {
        EXPECT(state_save(dir, &left, error, sizeof error) && (model = model_load(dir, NULL, error, sizeof error)), "%s",
               error);
        EXPECT(model && model_is_of_step(model, step), "the model is still not of step %" PRId64, step);
        transformer_free(model);
    }
    state_free(&left);
    return step;
}

// Kills a run that saves all the time, at random moments.
static void kill_many_times(const char *name, int kills, int shapes)
{
    TrainingState states[2] = { state_to_kill(small), state_to_kill((Config){ V + 2, T, L + 1, H, C, 0 }) };
    char *dir = in_root(name);
    set_numbers(&states[0], 0);
    EXPECT(state_save(dir, &states[0], error, sizeof error), "%s", error);
    double start = seconds_now();
    for (int i = 0; i < 5; i++) state_save(dir, &states[0], error, sizeof error);
    double span = 6 * (seconds_now() - start) / 5; // kills fall into the time of about six saves
    int64_t step = 0;
    int found[3] = { 0 };
    for (int i = 0; i < kills && step >= 0; i++) {
        pid_t child = fork();
        if (child == 0) save_until_killed(dir, states, shapes, step + 1);
        int64_t wait = (int64_t)(1e9 * span * random_uniform(3, (uint64_t)i));
        nanosleep(&(struct timespec){ wait / 1000000000, wait % 1000000000 }, NULL);
        int status, model_is = OF_THIS_STEP;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        EXPECT(WIFSIGNALED(status), "kill %d: the run ended by itself", i);
        int64_t before = step;
        step = look(dir, states, shapes, &model_is);
        EXPECT(step >= before, "kill %d: step %" PRId64 " after step %" PRId64, i, step, before);
        span *= step == before ? 1.1 : 0.95; // how long a save takes depends on what else the machine does: about half of the
                                             // kills shall come before the first one is done
        found[model_is]++;
    }
    printf("     %d kills during %" PRId64 " saves: the model was of the state's step %d times, of the one before %d times, missing %d "
           "times\n",
           kills, step, found[OF_THIS_STEP], found[OF_THE_LAST], found[MISSING]);
    EXPECT(step > kills / 4, "only %" PRId64 " saves: the kills came too early to test anything", step);
    EXPECT(state_save(dir, &states[0], error, sizeof error) && files_in(dir) == 5, "temporary files are left: %d files",
           files_in(dir));
    free_states(states);
}

static int steps_to_live;
static void die_there(int done) { if (done == steps_to_live) raise(SIGKILL); }

// Kills a run between each two of the renames of one save, from the first to the last.
static void kill_between_renames(const char *name, int shapes)
{
    TrainingState states[2] = { state_to_kill(small), state_to_kill((Config){ V + 2, T, L + 1, H, C, 0 }) };
    char *dir = in_root(name);
    set_numbers(&states[0], 0);
    EXPECT(state_save(dir, &states[0], error, sizeof error), "%s", error);
    int64_t step = 0;
    bool finished = false;
    for (steps_to_live = 0; !finished && steps_to_live < 20; steps_to_live++) {
        pid_t child = fork();
        if (child == 0) {
            TrainingState *state = &states[(step + 1) % shapes];
            file_commit_step = die_there;
            set_numbers(state, step + 1);
            state_save(dir, state, error, sizeof error);
            _exit(0);
        }
        int status, model_is = OF_THIS_STEP;
        waitpid(child, &status, 0);
        finished = WIFEXITED(status);
        int64_t now = look(dir, states, shapes, &model_is);
        // the state first; where the shape stays nothing else happens but the model's rename, where it changes the model goes
        // first
        EXPECT(now == step + (steps_to_live > 0), "killed before rename %d: state of step %" PRId64, steps_to_live, now);
        int expected = steps_to_live == 0 || finished ? OF_THIS_STEP : shapes == 1 || steps_to_live < 2 ? OF_THE_LAST : MISSING;
        EXPECT(model_is == expected, "killed before rename %d of %d shapes: the model is %d, not %d", steps_to_live, shapes,
               model_is, expected);
        step = now;
    }
    EXPECT(finished && steps_to_live > (shapes == 1 ? 2 : 5), "%d renames", steps_to_live);
    free_states(states);
}

TEST(a_killed_run_leaves_a_whole_save) { kill_many_times("killed", sizeof(real) == sizeof(float) ? 200 : 20, 1); }
TEST(a_kill_between_two_renames) { kill_between_renames("between", 1); }
TEST(a_kill_between_two_renames_of_another_shape) { kill_between_renames("between two", 2); }
TEST(a_killed_run_leaves_no_mixture) { kill_many_times("mixed", sizeof(real) == sizeof(float) ? 50 : 10, 2); }

// Runs last.
TEST(nothing_is_left_in_memory)
{
    scratch_release();
    EXPECT(ledger.total == 0, "%" PRId64 " bytes", ledger.total);
}

int main(void)
{
    if (!make_root()) return 1;
    RUN(states_go_on_as_if_nothing_had_happened);
    RUN(states_that_are_refused);
    RUN(truncated_files);
    RUN(a_failed_save_harms_nothing);
    RUN(a_failed_save_of_another_shape_leaves_what_can_be_loaded);
    RUN(terabytes_are_refused);
    RUN(a_killed_run_leaves_a_whole_save);
    RUN(a_killed_run_leaves_no_mixture);
    RUN(a_kill_between_two_renames);
    RUN(a_kill_between_two_renames_of_another_shape);
    RUN(nothing_is_left_in_memory);
    remove_all(root);
    return test_summary();
}
