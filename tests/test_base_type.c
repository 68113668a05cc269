// test_base_type.c - --base-type float|nf4|int8: models in codes to disk and back, damaged ones, and training on them: what it is equal
// to, how it goes on after a stop, and what is refused.

#include "programs.h"

static char why[1024];

static Transformer *loaded(const char *name)
{
    Transformer *model = model_load(in_root(name), NULL, why, sizeof why);
    EXPECT(model != NULL, "%s", why);
    return model;
}

// Of width 5, so that codes are odd in number, and blocks of 64 end in the middle of rows and of weights.
static Transformer *narrow(BaseType type)
{
    Transformer *model = transformer_new((Config){ 7, 4, 2, 1, 5, 0 }, 3, why, sizeof why);
    for (int i = 0; i < model->base_count; i++) fill_normal(model->parameters[i], 0.3, 50 + (uint64_t)i);
    transformer_hold_base(model, type);
    return model;
}

static void store(const Transformer *model, const char *name, SafetensorsDtype dtype)
{
    Settings settings = { .dtype = dtype };
    EXPECT(model_save_with(model, NULL, &settings, in_root(name), why, sizeof why), "%s", why);
}

static bool same_files(const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t m = 0, n = 0;
    bool same = file_read(in_root(a), 1 << 20, &x, &m, why, sizeof why) && file_read(in_root(b), 1 << 20, &y, &n, why, sizeof why)
             && m == n && memcmp(x, y, n) == 0;
    free(x), free(y);
    return same;
}

static bool same_numbers(const Tensor *a, const Tensor *b)
{
    const Codes *c = a->codes, *d = b->codes;
    if ((c == NULL) != (d == NULL)) return false;
    if (c == NULL) return memcmp(a->data, b->data, (size_t)a->size * sizeof(real)) == 0;
    return c->type == d->type && c->columns == d->columns && c->scale_count == d->scale_count && c->code_count == d->code_count
        && memcmp(c->scales, d->scales, (size_t)c->scale_count * sizeof(float)) == 0 && memcmp(c->codes, d->codes, (size_t)c->code_count) == 0;
}

TEST(codes_return_to_the_bit)
{
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        Transformer *model = narrow(type);
        const float odd[] = { NAN, INFINITY, -2, -0.0f, 1e-42f }; // as scales: numbers like others
        memcpy(model->blocks[0].linear[C_FC].weight->codes->scales, odd, (size_t)(type == BASE_NF4 ? 2 : 5) * sizeof *odd);
        store(model, "codes", 0);
        Transformer *copy = loaded("codes");
        for (int i = 0; copy && i < copy->base_count; i++) {
            const Tensor *t = copy->parameters[i];
            bool weight = t->ndim == 2 && strstr(t->name, ".h.") != NULL;
            EXPECT(same_numbers(t, model->parameters[i]), "%s: %s has changed", base_type_names[type], t->name);
            EXPECT((t->codes != NULL) == weight && t->requires_grad == !weight, "%s: %s", base_type_names[type], t->name);
        }
        EXPECT(copy && copy->base_type == type && transformer_hash(copy) == transformer_hash(model), "%s", base_type_names[type]);
        if (copy) store(copy, "again", 0);
        EXPECT(same_files("codes/model.safetensors", "again/model.safetensors") && same_files("codes/config.json", "again/config.json"),
               "%s: saved again it is another file", base_type_names[type]);
        transformer_free(copy);
        transformer_free(model);
    }
}

// All that is not in codes may be of another type; and the fingerprint of what is read is that of its values.
TEST(the_rest_is_of_any_type)
{
    static const SafetensorsDtype types[] = { SAFETENSORS_F16, SAFETENSORS_BF16, SAFETENSORS_F32, SAFETENSORS_F64 };
    for (int i = 0; i < 4; i++) {
        SafetensorsDtype dtype = 0;
        Transformer *model = narrow(BASE_NF4), *copy;
        store(model, "typed", types[i]);
        EXPECT(model_dtype(in_root("typed"), &dtype, why, sizeof why) && dtype == types[i], "%s", model_dtype_name(dtype));
        copy = loaded("typed");
        EXPECT(copy && same_numbers(copy->blocks[1].linear[0].weight, model->blocks[1].linear[0].weight), "the codes have changed");
        EXPECT(copy && fabs((double)(copy->wte->data[5] - model->wte->data[5])) < 0.01, "%g, was %g", (double)copy->wte->data[5], (double)model->wte->data[5]);
        uint64_t codes = copy ? transformer_fingerprint(copy) : 0;
        EXPECT(copy && model_hold(copy, BASE_FLOAT, "typed", why, sizeof why) && transformer_fingerprint(copy) == codes, "another fingerprint");
        for (int p = 0; copy && p < copy->base_count; p++)
            EXPECT(copy->parameters[p]->requires_grad && copy->parameters[p]->codes == NULL, "%s", copy->parameters[p]->name);
        transformer_free(copy);
        transformer_free(model);
    }
}

TEST(files_say_what_they_are)
{
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        Transformer *model = narrow(type);
        Safetensors *file;
        store(model, "codes", 0);
        must(safetensors_open(in_root("codes/model.safetensors"), &file, message, sizeof message) == 0);
        const char *name = safetensors_metadata(file, "base_type");
        EXPECT(name && strcmp(name, base_type_names[type]) == 0, "metadata say %s", name ? name : "nothing");
        EXPECT(file->count == (size_t)model->base_count + 2 * LINEARS, "%zu tensors", file->count);
        for (int k = 0; k < LINEARS; k++) {
            const Tensor *W = model->blocks[1].linear[k].weight;
            const SafetensorsEntry *codes, *scales;
            char of[200];
            int n = (int)W->size, count = type == BASE_NF4 ? (n + 63) / 64 : W->shape[1], half = (n + 1) / 2;
            snprintf(of, sizeof of, "%s.codes", W->name);
            must(safetensors_find(file, of, &codes, message, sizeof message) == 0);
            snprintf(of, sizeof of, "%s.scales", W->name);
            must(safetensors_find(file, of, &scales, message, sizeof message) == 0);
            EXPECT(codes->dtype == (type == BASE_NF4 ? SAFETENSORS_U8 : SAFETENSORS_I8), "%s", safetensors_dtype_name(codes->dtype));
            EXPECT(type == BASE_NF4 ? safetensors_shape_is(codes, 1, &half) : safetensors_shape_is(codes, 2, W->shape), "%s", of);
            EXPECT(scales->dtype == SAFETENSORS_F32 && safetensors_shape_is(scales, 1, &count), "%s", of);
            EXPECT(safetensors_find(file, W->name, &codes, message, sizeof message) == SAFETENSORS_TENSOR_NOT_FOUND, "%s has numbers, too", W->name);
        }
        safetensors_close(file);
        char *config = text_of(in_root("codes/config.json"));
        EXPECT(strstr(config, type == BASE_NF4 ? "\"quantization_config\": {\"base_type\": \"nf4\"}" : "\"quantization_config\": {\"base_type\": \"int8\"}")
                   && !strstr(config, "quant_method"), "%s", config); // which transformers would look up, warn of, and then do without
        free(config);
        transformer_free(model);
    }
}

// ------------------------------------------------------------------------------------------------------------------ damaged files

enum { MOST = 100 };

// Writes @bad from @codes, with one tensor changed: `how` is given it.
static void damage(void (*how)(SafetensorsTensor *t, int *shape, size_t *count))
{
    static unsigned char bytes[MOST][800];
    static char names[MOST][200];
    SafetensorsTensor list[MOST];
    int shapes[MOST][2];
    Safetensors *file;
    copy_directory(in_root("codes"), in_root("bad"));
    must(safetensors_open(in_root("codes/model.safetensors"), &file, message, sizeof message) == 0);
    size_t count = file->count, first = 0;
    for (size_t i = 0; i < count; i++) {
        const SafetensorsEntry *e = &file->entries[i];
        SafetensorsDtype as = e->dtype == SAFETENSORS_F64 ? SAFETENSORS_F64 : e->dtype;
        must(safetensors_read(file, e, bytes[i], as, message, sizeof message) == 0);
        strcpy(names[i], e->name);
        for (size_t d = 0; d < 2; d++) shapes[i][d] = d < e->ndim ? (int)e->shape[d] : 1;
        list[i] = (SafetensorsTensor){ names[i], as, (int)e->ndim, shapes[i], bytes[i] };
        if (strcmp(e->name, "transformer.h.1.attn.c_attn.weight.codes") == 0) first = i;
    }
    safetensors_close(file);
    how(&list[first], shapes[first], &count);
    must(safetensors_write(in_root("bad/model.safetensors"), list, count, NULL, 0, message, sizeof message) == 0);
}

static void other_type(SafetensorsTensor *t, int *shape, size_t *count)
{
    (void)shape, (void)count;
    t->dtype = t->dtype == SAFETENSORS_U8 ? SAFETENSORS_I8 : SAFETENSORS_U8;
}
static void shorter(SafetensorsTensor *t, int *shape, size_t *count) { (void)t, (void)count, shape[0]--; }
static void renamed(SafetensorsTensor *t, int *shape, size_t *count) { (void)shape, (void)count, t->name = "transformer.h.1.attn.c_attn.weight"; }
static void nothing(SafetensorsTensor *t, int *shape, size_t *count) { (void)t, (void)shape, (void)count; }
static void below(SafetensorsTensor *t, int *shape, size_t *count)
{
    (void)shape, (void)count;
    memset((unsigned char *)t->data + 4, 0x80, 1); // -128; in nf4 the numbers 0 and 8
}

static void expect_refused(const char *words)
{
    char line[1100];
    Transformer *model = model_load(in_root("bad"), NULL, why, sizeof why);
    EXPECT(model == NULL && strchr(why, '\n') == NULL && strstr(why, words), "%s: %s", words, model ? "it was taken" : why);
    transformer_free(model);
    snprintf(line, sizeof line, "sample: %s\n", why); // the programs say it, too, and go
    EXPECT(run(sample_main, "--model @bad --length 5") == EXIT_FAILED && strcmp(said, line) == 0, "%s", said);
}

static void configure(const char *old, const char *new)
{
    char *text = text_of(in_root("bad/config.json")), *at = strstr(text, old);
    FILE *out = fopen(in_root("bad/config.json"), "w");
    must(at != NULL && out != NULL && fprintf(out, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old)) > 0 && fclose(out) == 0);
    free(text);
}

TEST(damaged_files_are_refused)
{
    int64_t held = ledger.total;
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        const char *const *names = base_type_names;
        char old[60], other[200];
        Transformer *model = narrow(type);
        store(model, "codes", 0);
        transformer_free(model);
        damage(nothing);
        transformer_free(loaded("bad"));
        damage(other_type), expect_refused(type == BASE_NF4 ? "1 tensor of another type (\"transformer.h.1.attn.c_attn.weight.codes\" is I8, not U8)"
                                                            : "1 tensor of another type (\"transformer.h.1.attn.c_attn.weight.codes\" is U8, not I8)");
        damage(shorter), expect_refused(type == BASE_NF4 ? "1 tensor of another shape (\"transformer.h.1.attn.c_attn.weight.codes\" is [37], not [38])"
                                                         : "1 tensor of another shape (\"transformer.h.1.attn.c_attn.weight.codes\" is [4,15], not [5,15])");
        damage(renamed), expect_refused("1 tensor missing (\"h.1.attn.c_attn.weight.codes\"); 1 tensor unknown (\"transformer.h.1.attn.c_attn.weight\")");
        damage(below);
        if (type == BASE_INT8) expect_refused("weight.codes: byte 4 is -128, but codes are from -127 to 127");
        else transformer_free(loaded("bad"));
        snprintf(old, sizeof old, "{\"base_type\": \"%s\"}", names[type]);
        snprintf(other, sizeof other, "{\"base_type\": \"%s\"}", names[BASE_NF4 + BASE_INT8 - type]);
        for (int i = 0; i < 2; i++) { // as they were saved: the file says its type, too
            char words[200];
            snprintf(words, sizeof words, "bad/model.safetensors holds \"%s\" codes, but config.json says %s; ", names[type],
                     i ? "float" : names[BASE_NF4 + BASE_INT8 - type]);
            copy_directory(in_root("codes"), in_root("bad"));
            configure(old, i ? "{}" : other), expect_refused(words);
        }
        damage(nothing); // without metadata
        configure(old, other), expect_refused("8 tensors of another type (");
        configure(other, "{}"), expect_refused("8 tensors missing (\"h.0.attn.c_attn.weight\", ");
        static const char *const wrong[] = { "{\"base_type\": \"nf5\"}", "{\"base_type\": \"float\"}", "{\"base_type\": 4}", "{\"bits\": 4}", "\"nf4\"",
                                             "{\"base_type\": \"nf4\", \"double_quant\": true}" };
        configure("{}", wrong[0]);
        for (int i = 0; i < 6; i++) {
            expect_refused("bad/config.json: \"quantization_config\" is not {\"base_type\": \"nf4\"}, or \"int8\", and nothing else");
            configure(wrong[i], i < 5 ? wrong[i + 1] : "{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}");
        }
        expect_refused("\"quantization_config\" has \"quant_method\" \"bitsandbytes\", which is not known here");
        configure("{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}", old);
        configure("\"n_embd\": 5", "\"n_embd\": 32768"), expect_refused("\"n_embd\" is 32768, but a model in codes has 16384 at most");
    }
    Transformer *model = narrow(BASE_FLOAT);
    store(model, "bad", 0);
    transformer_free(model);
    configure("\"torch_dtype\"", "\"quantization_config\": {\"base_type\": \"int8\"}, \"torch_dtype\"");
    expect_refused("16 tensors missing (\"h.0.attn.c_attn.weight.codes\", ");
    EXPECT(ledger.total == held, "%" PRId64 " bytes are left", ledger.total - held);
}

// ------------------------------------------------------------------------------------------------------------------------ training

#define STEPS "--data @text.txt --lora-r 2 --lora-targets c_attn,c_fc --batch-size 2 --threads 1 --learning-rate 0.05 --max-iters 6 --eval-interval 3 "

static uint64_t hash_of_adapter(const char *base, const char *name, BaseType trained)
{
    Transformer *model = loaded(base);
    Adapter *adapter = model ? adapter_load(model, in_root(name), "a", false, why, sizeof why) : NULL;
    EXPECT(adapter != NULL, "%s", why);
    if (adapter == NULL) return 0;
    EXPECT(adapter->config.base_type == trained, "%s was trained on %s", name, base_type_names[adapter->config.base_type]);
    uint64_t hash = HASH_START;
    for (int i = model->base_count; i < model->parameter_count; i++)
        hash = hash_bytes(hash, model->parameters[i]->data, (size_t)model->parameters[i]->size * sizeof(real));
    transformer_free(model);
    return hash;
}

// Stopped and resumed, on a base that is held in codes or stored so.
TEST(a_stop_changes_no_bit)
{
    static const char *const bases[] = { "--init @base --base-type nf4", "--init @base --base-type int8", "--init @base-nf4" };
    for (int i = 0; i < 3; i++) {
        char line[600];
        remove_all(in_root("whole")), remove_all(in_root("stopped"));
        snprintf(line, sizeof line, STEPS "--out @stopped %s --max-iters 3 --min-lr 0.05 --warmup-iters 0", bases[i]);
        EXPECT(train(line) == 0, "%s: %s", line, said);
        snprintf(line, sizeof line, STEPS "--out @whole %s --min-lr 0.05 --warmup-iters 0", bases[i]);
        EXPECT(train(line) == 0, "%s: %s", line, said);
        EXPECT(!same_files("whole/adapter_model.safetensors", "stopped/adapter_model.safetensors"), "three steps are as good as six");
        EXPECT(train("--resume --out @stopped --max-iters 6") == 0, "%s", said);
        EXPECT(same_directory(in_root("whole"), in_root("stopped")), "%s: %s", bases[i], message);
        char *metrics = text_of(in_root("stopped/metrics.json"));
        EXPECT(strstr(metrics, i == 1 ? "\"base_type\": \"int8\"" : "\"base_type\": \"nf4\""), "%s", metrics);
        free(metrics);
    }
}

// The same bits as on floats that hold the codes' values. And whatever the base is held as, adapters fit: its fingerprint stays.
TEST(training_on_codes_is_training_on_their_values)
{
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        char line[600], stored[40];
        snprintf(stored, sizeof stored, "base-%s", base_type_names[type]);
        remove_all(in_root("coded")), remove_all(in_root("values")), remove_all(in_root("beside"));
        snprintf(line, sizeof line, STEPS "--out @coded --init @%s", stored);
        EXPECT(train(line) == 0, "%s", said);
        snprintf(line, sizeof line, STEPS "--out @values --init @%s --base-type float", stored);
        EXPECT(train(line) == 0, "%s", said);
        EXPECT(run(adapter_main, "info @values") == 0, "%s", said); // as stored: "floats" of the codes, the same numbers
        snprintf(line, sizeof line, "trained on a base of float; here the base's linear layers are %s, the same values\n", base_type_names[type]);
        char *same = text_of(in_root("printed"));
        EXPECT(strstr(same, line), "%s", same);
        free(same);
        uint64_t coded = hash_of_adapter(stored, "coded", type);
        EXPECT(coded == hash_of_adapter(stored, "values", BASE_FLOAT), "%s: other bits than on floats", base_type_names[type]);
        snprintf(line, sizeof line, STEPS "--out @beside --init @base --base-type %s", base_type_names[type]);
        EXPECT(train(line) == 0, "%s", said);
        char *trained = text_of(in_root("printed"));
        uint64_t beside = hash_of_adapter("base", "beside", type); // opens on the base in floats
        EXPECT(beside != coded && beside != 0, "another base gives the same adapter");
        EXPECT(run(adapter_main, "info @beside") == 0, "%s", said);
        char *info = text_of(in_root("printed"));
        snprintf(line, sizeof line, "it was trained on a base of %s; here the base's linear layers are float\n", base_type_names[type]);
        EXPECT(strstr(info, line), "%s", info);
        free(info);
        snprintf(line, sizeof line, "--adapter %s --base-type %s\n", in_root("beside"), base_type_names[type]);
        EXPECT(strstr(trained, line), "%s", trained);
        snprintf(line, sizeof line, "was trained on a base held in %s, and this one is in floats: --base-type %s holds it so\n",
                 base_type_names[type], base_type_names[type]);
        EXPECT(run(sample_main, "--model @base --adapter @beside --length 5") == 0 && strstr(said, line), "%s", said);
        static const char *const silent[] = { "--model @base --adapter @beside --base-type ", "--model @base --adapter @beside --base-type float ",
                                              "--model @base --adapter @adapter ", "--model @base-nf4 --adapter @coded4 " };
        for (int i = 0; i < 4; i++) {
            snprintf(line, sizeof line, "%s%s --length 5", silent[i], i == 0 ? base_type_names[type] : "");
            EXPECT(run(sample_main, line) == 0 && one_line(said), "%s: %s", line, said);
        }
        snprintf(line, sizeof line, "--model @%s --adapter @beside --length 5", stored);
        EXPECT(run(sample_main, line) == 1 && strstr(said, "fingerprint"), "rounded values are another base: %s", said);
        free(trained);
    }
}

// The printed norms of W and bytes of the base are those of codes.
TEST(info_is_of_the_codes)
{
    Transformer *model = loaded("base-nf4");
    const Tensor *W = model->blocks[0].linear[C_ATTN].weight;
    real numbers[8 * 24];
    unpack(W->codes, 0, W->size, numbers, 1);
    Adapter *adapter = adapter_load(model, in_root("coded4"), "a", false, why, sizeof why);
    EXPECT(adapter != NULL, "%s", why);
    Tensor *delta = op_matmul(NULL, adapter->lora[0].A, adapter->lora[0].B);
    char line[200];
    double size = norm_of(delta->data, delta->size) * (double)adapter->lora[0].scale;
    snprintf(line, sizeof line, "%11.4g%9.2f%%\n", size, 100 * size / norm_of(numbers, W->size));
    EXPECT(run(adapter_main, "info @coded4") == 0, "%s", said);
    char *printed = text_of(in_root("printed"));
    EXPECT(strstr(printed, line), "%s is not in %s", line, printed);
    snprintf(line, sizeof line, " numbers, %s (", bytes_text((double)(transformer_base_size(model) * (int64_t)sizeof(real)
             - transformer_linear_bytes(model, BASE_FLOAT) + 768 / 2 + 768 / 64 * 4)));
    EXPECT(strstr(printed, line), "%s is not in %s", line, printed);
    free(printed);
    tensor_drop(delta);
    transformer_free(model);
}

// A merged model is what arithmetic in floats gives, rounded once.
TEST(a_merge_rounds_once)
{
    static const char *const from[] = { "base", "base-nf4" };
    for (int i = 0; i < 2; i++)
        for (BaseType type = BASE_FLOAT; type < BASE_TYPES; type++) {
            char line[300];
            remove_all(in_root("merged"));
            snprintf(line, sizeof line, "merge @%s --out @merged --base-type %s", i ? "coded4" : "adapter", base_type_names[type]);
            EXPECT(run(adapter_main, line) == 0, "%s", said);
            Transformer *model = loaded(from[i]), *merged = loaded("merged");
            transformer_hold_base(model, BASE_FLOAT);
            EXPECT(adapter_load(model, in_root(i ? "coded4" : "adapter"), "a", false, why, sizeof why), "%s", why);
            transformer_merge(model);
            transformer_forget_original(model);
            transformer_hold_base(model, type);
            EXPECT(merged && merged->base_type == type && transformer_hash(model) == transformer_hash(merged), "%s: other numbers", line);
            transformer_free(model), transformer_free(merged);
        }
    EXPECT(run(adapter_main, "merge @adapter --out @half --base-type int8 --dtype float16") == 0, "%s", said);
    SafetensorsDtype dtype = 0;
    EXPECT(model_dtype(in_root("half"), &dtype, why, sizeof why) && dtype == SAFETENSORS_F16, "%s", model_dtype_name(dtype));
    // in double and in float, what cannot be held in codes is not saved
    Transformer *model = loaded("base");
    model->blocks[0].linear[C_FC].weight->data[7] = (real)INFINITY;
    EXPECT(model_save(model, NULL, in_root("broken"), why, sizeof why), "%s", why);
    transformer_free(model);
    EXPECT(run(adapter_main, "merge @adapter --any-base --model @broken --out @x --base-type nf4") == 1 && one_line(said)
               && strstr(said, "the codes of transformer.h.0.mlp.c_fc.weight is") && access(in_root("x"), F_OK) != 0, "%s", said);
}

// An adapter that was trained on codes of a base in floats is added to the codes' values, beside which it was trained.
TEST(a_merge_adds_to_what_was_trained_on)
{
    static const int ids[] = { 0, 1, 2, 3, 4, 3, 2, 1 };
    for (BaseType type = BASE_NF4; type < BASE_TYPES; type++) {
        char line[600];
        remove_all(in_root("beside")), remove_all(in_root("merged"));
        snprintf(line, sizeof line, STEPS "--out @beside --init @base --base-type %s", base_type_names[type]);
        EXPECT(train(line) == 0, "%s", said);
        EXPECT(run(adapter_main, "merge @beside --out @merged") == 0, "%s", said);
        snprintf(line, sizeof line, "the base is in %s, and its linear layers were rounded to %s first, as in training\n",
                 model_dtype_name(REAL_DTYPE), base_type_names[type]);
        char *printed = text_of(in_root("printed"));
        EXPECT(strstr(printed, line), "%s", printed);
        free(printed);
        Transformer *model = loaded("base"), *merged = loaded("merged");
        EXPECT(adapter_load(model, in_root("beside"), "a", false, why, sizeof why), "%s", why);
        transformer_hold_base(model, type);
        Tensor *unmerged = transformer_loss(model, NULL, ids, ids, 1, 8), *after = transformer_loss(merged, NULL, ids, ids, 1, 8);
        double apart = fabs((double)(unmerged->data[0] - after->data[0]));
        EXPECT(apart < 1e-5, "%s: the loss was %g, merged it is %g", base_type_names[type], (double)unmerged->data[0], (double)after->data[0]);
        tensor_drop(unmerged), tensor_drop(after);
        transformer_hold_base(model, BASE_FLOAT);
        transformer_merge(model);
        transformer_forget_original(model);
        EXPECT(transformer_hash(model) == transformer_hash(merged), "%s: other numbers", base_type_names[type]);
        transformer_free(model), transformer_free(merged);
    }
}

TEST(what_cannot_be_is_refused)
{
    static const struct { int (*main_)(int argc, char **argv); const char *line; int status; const char *words; } cases[] = {
        { train_main, "--out @x --data @text.txt --init @base-nf4", EXIT_USAGE,
          "it is stored in nf4, and codes cannot train; --base-type float makes numbers of them, or train an adapter with --lora-r N" },
        { train_main, "--out @x --data @text.txt --init @base-int8 --base-type int8", EXIT_USAGE, "--base-type int8 needs --lora-r N" },
        { train_main, "--out @x --data @text.txt --init @base-nf4 --lora-r 2 --base-type int8", EXIT_FAILED,
          "is stored in nf4, and int8 of that would be rounded twice; take --base-type nf4, or float" },
        { sample_main, "--model @base-int8 --base-type nf4 --length 5", EXIT_FAILED, "is stored in int8, and nf4 of that" },
        { sample_main, "--model @base --base-type int4 --length 5", EXIT_USAGE, "there are float, nf4 and int8" },
        { adapter_main, "info @coded4 --base-type int8", EXIT_FAILED, "is stored in nf4, and int8 of that" },
        { adapter_main, "diff @coded4 @coded4 --base-type nf4", EXIT_USAGE, "whatever the base is held in: leave out --base-type" },
        { adapter_main, "merge @coded4 --out @x --dtype nf4", EXIT_USAGE, "--dtype nf4: there are float32" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = run(cases[i].main_, cases[i].line);
        EXPECT(status == cases[i].status && one_line(said) && strstr(said, cases[i].words), "%s: status %d: %s", cases[i].line, status, said);
        EXPECT(access(in_root("x"), F_OK) != 0, "%s: it left something", cases[i].line);
    }
    EXPECT(train("--out @x --data @text.txt --init @base-nf4 --base-type float --max-iters 2 --batch-size 2 --threads 1") == 0, "%s", said);
    Transformer *model = loaded("x");
    EXPECT(model && model->base_type == BASE_FLOAT, "the numbers that trained are not saved as such");
    transformer_free(model);
    EXPECT(train("--resume --out @x --max-iters 3") == 0, "%s", said);
    EXPECT(train("--resume --out @x --max-iters 4 --base-type nf4") == EXIT_USAGE && strstr(said, "--base-type nf4: the run in"), "%s", said);
    char *config = text_of(in_root("x/config.json"));
    EXPECT(!strstr(config, "quantization_config"), "%s", config);
    free(config);
    remove_all(in_root("x"));
}

// A state is believed no further than it was checked.
TEST(a_state_that_says_codes_train)
{
    static const char *const changes[3][3] = {
        { "\"base_type\":\"float\"", "\"base_type\":\"int8\" ", "\"base_type\" is int8, but all of the model trains, and codes cannot" },
        { "\"base_type\":\"float\"", "\"base_type\":\"flint\"", "\"base_type\" is flint: there are float, nf4 and int8" },
        { "\"base_type\":\"float\"", "\"bass_type\":\"float\"", "" }, // an older run has none, and was on floats
    };
    EXPECT(train("--out @full --data @text.txt --n-layer 1 --n-head 2 --n-embd 8 --block-size 8 --batch-size 2 --max-iters 2 --threads 1") == 0, "%s", said);
    for (int i = 0; i < 3; i++) {
        char *bytes, was[60], is[60];
        size_t n;
        copy_directory(in_root("full"), in_root("bad"));
        must(file_read(in_root("full/training_state.safetensors"), 1 << 24, &bytes, &n, message, sizeof message));
        for (int k = 0; k < 2; k++) { // as it stands within a string
            char *to = k ? is : was;
            for (const char *at = changes[i][k]; *at != '\0'; at++) {
                if (*at == '"') *to++ = '\\';
                *to++ = *at;
            }
            *to = '\0';
        }
        char *at = NULL;
        for (size_t b = 0; b + strlen(was) < n && at == NULL; b++)
            if (memcmp(bytes + b, was, strlen(was)) == 0) at = bytes + b;
        must(at != NULL && strlen(was) == strlen(is));
        memcpy(at, is, strlen(is));
        must(file_write_all(in_root("bad/training_state.safetensors"), bytes, n, message, sizeof message));
        if (i == 2) EXPECT(train("--resume --out @bad --max-iters 3") == 0, "%s", said);
        else EXPECT(train("--resume --out @bad") == EXIT_FAILED && one_line(said) && strstr(said, changes[i][2]), "%s", said);
        free(bytes);
    }
}

int main(void)
{
    if (!make_root("codes")) return 1;
    RUN(codes_return_to_the_bit);
    RUN(the_rest_is_of_any_type);
    RUN(files_say_what_they_are);
    RUN(damaged_files_are_refused);

    must(train("--out @base --data @text.txt --n-layer 1 --n-head 2 --n-embd 8 --block-size 8 --batch-size 2 --max-iters 9 --threads 1 --learning-rate 0.1") == 0);
    must(train(STEPS "--out @adapter --init @base") == 0);
    must(run(adapter_main, "merge @adapter --out @base-nf4 --base-type nf4") == 0);
    must(run(adapter_main, "merge @adapter --out @base-int8 --base-type int8") == 0);
    must(train(STEPS "--out @coded4 --init @base-nf4") == 0);
    char printed[600];
    strcpy(printed, in_root("printed"));
    prints_to = printed;
    RUN(a_stop_changes_no_bit);
    RUN(training_on_codes_is_training_on_their_values);
    RUN(info_is_of_the_codes);
    RUN(a_merge_rounds_once);
    RUN(a_merge_adds_to_what_was_trained_on);
    RUN(what_cannot_be_is_refused);
    RUN(a_state_that_says_codes_train);
    remove_all(root);
    return test_summary();
}
