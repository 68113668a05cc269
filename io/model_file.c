// model_file.c - see model_file.h. The configuration, then the vocabulary, then both with the tensors.

#include "model_file.h"

#include "machine.h"
#include "predict.h"
#include "slots.h"

#include <stdlib.h>
#include <sys/stat.h>

enum {
    LONGEST_CONFIG = 1 << 20, LONGEST_TOKENIZER = 1 << 26, // bytes of the files that are read
    LARGEST_WIDTH = 1 << 16, LARGEST_DEPTH = 1 << 12,      // the transformer's own limits are about the same
};

static const char for_model[] = "what is saved or loaded";

double weight_bytes(const Config *c)
{
    return sizeof(real) * base_parameters(c->vocab_size, c->block_size, c->n_layer, c->n_embd);
}

void model_put_config(FILE *out, const Config *c)
{
    fputs("{\n  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"model_type\": \"gpt2\",\n", out);
    fprintf(out, "  \"vocab_size\": %d,\n  \"n_positions\": %d,\n", c->vocab_size, c->block_size);
    fprintf(out, "  \"n_ctx\": %d,\n", c->block_size);
    fprintf(out, "  \"n_embd\": %d,\n  \"n_layer\": %d,\n  \"n_head\": %d,\n", c->n_embd, c->n_layer, c->n_head);
    fputs("  \"n_inner\": null,\n  \"activation_function\": \"gelu_new\",\n", out);
    fputs("  \"resid_pdrop\": 0.0,\n  \"embd_pdrop\": 0.0,\n  \"attn_pdrop\": 0.0,\n", out);
    fputs("  \"layer_norm_epsilon\": 1e-05,\n  \"initializer_range\": 0.02,\n  \"scale_attn_weights\": true,\n", out);
    fputs("  \"scale_attn_by_inverse_layer_idx\": false,\n  \"reorder_and_upcast_attn\": false,\n", out);
    // no token begins or ends a text: GPT-2's own, 50256, would lie outside of a vocabulary of characters
    fputs("  \"use_cache\": true,\n  \"tie_word_embeddings\": true,\n", out);
    fputs("  \"bos_token_id\": null,\n  \"eos_token_id\": null,\n", out);
    fprintf(out, "  \"torch_dtype\": \"%s\"\n}\n", REAL_DTYPE == SAFETENSORS_F64 ? "float64" : "float32");
}

bool model_parse_config(const Json *json, Config *config, char *error, size_t size)
{
    static const struct { const char *key; bool value; } flags[] = {
        // what the engine computes; also what GPT-2 does when nothing is said
        { "scale_attn_weights", true },       { "scale_attn_by_inverse_layer_idx", false },
        { "reorder_and_upcast_attn", false }, { "tie_word_embeddings", true },
        { "add_cross_attention", false },
    };
    static const char *const features[] = { "pruned_heads", "quantization_config" };
    int64_t V, T, C, L, H, inner;
    double epsilon;
    if (!json_is_string(json_get(json, "model_type"), "gpt2"))
        return fail(error, size, "\"model_type\" is not \"gpt2\", the one kind of model that this engine computes");
    if (!json_get_int(json, "vocab_size", 1, MODEL_LARGEST_TABLE, &V, error, size)
        || !json_get_int(json, "n_positions", 1, MODEL_LARGEST_TABLE, &T, error, size)
        || !json_get_int(json, "n_embd", 1, LARGEST_WIDTH, &C, error, size)
        || !json_get_int(json, "n_layer", 1, LARGEST_DEPTH, &L, error, size)
        || !json_get_int(json, "n_head", 1, C, &H, error, size))
        return false;
    if (C % H != 0) return fail(error, size, "\"n_embd\" %d is not a multiple of \"n_head\" %d", (int)C, (int)H);
    if (json_given(json, "n_inner") && !json_get_int(json, "n_inner", 4 * C, 4 * C, &inner, error, size)) return false;
    if (json_given(json, "activation_function") && !json_is_string(json_get(json, "activation_function"), "gelu_new"))
        return fail(error, size, "\"activation_function\" is not \"gelu_new\", the one that this engine computes");
    if (!json_optional_number(json, "layer_norm_epsilon", 1e-5, &epsilon, error, size)) return false;
    if (fabs(epsilon - 1e-5) > 1e-12)
        return fail(error, size, "\"layer_norm_epsilon\" is %g; this engine computes with 1e-05 only", epsilon);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool value;
        if (!json_optional_bool(json, flags[i].key, flags[i].value, &value, error, size)) return false;
        if (value != flags[i].value)
            return fail(error, size, "\"%s\" is %s; this engine computes the opposite only", flags[i].key,
                        value ? "true" : "false");
    }
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (!json_is_empty(json_get(json, features[i])))
            return fail(error, size, "\"%s\" is in use, which this engine does not know", features[i]);
    *config = (Config){ .vocab_size = (int)V, .block_size = (int)T, .n_layer = (int)L, .n_head = (int)H, .n_embd = (int)C };
    return true;
}

// A vocabulary of the tokenizers library: text is split into characters, and each is looked up.
void vocabulary_put(FILE *out, const Vocabulary *vocabulary)
{
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[],\"normalizer\":null,\n"
          " \"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\s\\\\S]\"},\"behavior\":\"Isolated\","
          "\"invert\":false},\n"
          " \"post_processor\":null,\"decoder\":{\"type\":\"Fuse\"},\n \"model\":{\"type\":\"WordLevel\",\"vocab\":{",
          out);
    for (int token = 0; token < vocabulary->size; token++) {
        char character[5];
        int length = vocabulary_decode(vocabulary, token, character);
        if (token > 0) fputc(',', out);
        json_put_string(out, character, (size_t)length);
        fprintf(out, ":%d", token);
    }
    fputs("},\"unk_token\":\"<unk>\"}}\n", out);
}

bool vocabulary_parse(const Json *json, int vocab_size, Vocabulary *vocabulary, char *error, size_t size)
{
    const Json *model = json_get(json, "model"), *vocab = json_get(model, "vocab"), *split = json_get(json, "pre_tokenizer");
    const Json *pattern = json_get(split, "pattern"), *after = json_get(json, "post_processor");
    bool by_character =
        json_is_string(json_get(split, "type"), "Split") && json_is_string(json_get(split, "behavior"), "Isolated")
        && (json_is_string(json_get(pattern, "Regex"), "[\\s\\S]") || json_is_string(json_get(pattern, "String"), ""));
    bool adds_nothing =
        json_is_empty(after)
        || (json_is_string(json_get(after, "type"), "TemplateProcessing") && json_is_empty(json_get(after, "special_tokens")));
    if (!json_is_string(json_get(model, "type"), "WordLevel") || vocab == NULL || vocab->type != JSON_OBJECT || !by_character
        || !json_is_string(json_get(json_get(json, "decoder"), "type"), "Fuse") || !json_is_empty(json_get(json, "normalizer"))
        || !json_is_empty(json_get(json, "added_tokens")) || !adds_nothing)
        return fail(error, size, "not a tokenizer whose tokens are single characters, the only kind that this program knows");
    if (vocab->count != (size_t)vocab_size)
        return fail(error, size, "it has %zu tokens, but the model %d", vocab->count, vocab_size);
    uint32_t *list = allocate((size_t)vocab_size, sizeof *list, for_model);
    bool *taken = allocate((size_t)vocab_size, sizeof *taken, for_model), good = true;
    for (const Json *item = vocab->child; item != NULL && good; item = item->next) {
        const char *end = item->key;
        uint32_t c = item->key_length > 0 ? utf8_next(&end) : 0;
        good = item->key_length > 0 && end == item->key + item->key_length && item->is_int && item->int_value >= 0
            && item->int_value < vocab_size && !taken[item->int_value];
        if (!good) break;
        list[item->int_value] = c;
        taken[item->int_value] = true;
    }
    for (int i = 1; i < vocab_size && good; i++) good = list[i - 1] < list[i];
    free(taken);
    if (good) *vocabulary = (Vocabulary){ vocab_size, list };
    else free(list);
    return good || fail(error, size, "its tokens are not single characters, numbered from 0 in the order of their code points");
}

bool vocabulary_load(const char *dir, int vocab_size, Vocabulary *vocabulary, char *error, size_t size)
{
    char why[512];
    *vocabulary = (Vocabulary){ 0 };
    Json *json = json_read(dir, "tokenizer.json", LONGEST_TOKENIZER, error, size);
    if (json == NULL) return false;
    bool good = vocabulary_parse(json, vocab_size, vocabulary, why, sizeof why);
    json_free(json);
    return good || fail(error, size, "%s/tokenizer.json: %s", dir, why);
}

bool model_add_files(Save *save, const Transformer *model, const Vocabulary *vocabulary)
{
    const Config *c = &model->config;
    bool text = vocabulary != NULL && vocabulary->size > 0, good = true;
    check(!text || vocabulary->size == c->vocab_size, "model_save: %d characters for a vocab_size of %d", vocabulary->size,
          c->vocab_size);
    int mark = save_mark(save);
    Document d;
    if (text) {
        document_open(&d);
        vocabulary_put(d.out, vocabulary);
        good = save_document(save, "tokenizer.json", &d);
    }
    if (text && good) { // the class is what keeps transformers from taking GPT-2's own tokenizer
        document_open(&d);
        fprintf(d.out, "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"model_max_length\":%d,"
                "\"clean_up_tokenization_spaces\":false}\n", c->block_size);
        good = save_document(save, "tokenizer_config.json", &d);
    }
    if (good) {
        document_open(&d);
        model_put_config(d.out, c);
        good = save_document(save, "config.json", &d);
    }
    Slots slots = { 0 };
    slots_list_base(&slots, c);
    slots_point_at_base(&slots, model);
    SafetensorsMetadata format = { "format", "pt" };
    good = good && save_replace(save, mark, "model.safetensors")
        && slots_save(save, "model.safetensors", MODEL_PREFIX, &slots, &format, 1);
    free(slots.list);
    return good;
}

bool model_save(const Transformer *model, const Vocabulary *vocabulary, const char *dir, char *error, size_t size)
{
    Save save;
    return save_begin(&save, dir, error, size) && save_end(&save, model_add_files(&save, model, vocabulary));
}

// If the file has an output head of its own, it must be the token embedding once more.
static bool tied_head(const Safetensors *file, const Transformer *model, char *error, size_t size)
{
    for (size_t e = 0; e < file->count; e++) {
        const SafetensorsEntry *entry = &file->entries[e];
        if (strcmp(bare_name(entry->name), "lm_head.weight") != 0) continue;
        bool same = safetensors_shape_is(entry, 2, model->wte->shape);
        real *head = same ? allocate(entry->elements, sizeof *head, for_model) : NULL;
        bool good = !same || safetensors_read(file, entry, head, REAL_DTYPE, error, size) == SAFETENSORS_OK;
        same = same && good && memcmp(head, model->wte->data, entry->elements * sizeof *head) == 0;
        free(head);
        if (!good) return false;
        if (!same)
            return fail(error, size, "%s: lm_head.weight is not the same as wte.weight; this engine ties the two", file->path);
    }
    return true;
}

static bool holds(const char *dir, const char *name)
{
    char path[FILE_PATH];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct stat status;
    return stat(path, &status) == 0;
}

Transformer *model_load(const char *dir, Vocabulary *vocabulary, char *error, size_t size)
{
    char why[512];
    if (vocabulary != NULL) *vocabulary = (Vocabulary){ 0 };
    if (!holds(dir, "config.json") && holds(dir, "adapter_config.json")) {
        fail(error, size, "%s holds an adapter, and no model: name the model that it belongs to", dir);
        return NULL;
    }
    Json *json = json_read(dir, "config.json", LONGEST_CONFIG, error, size);
    if (json == NULL) return NULL;
    Config config;
    bool good = model_parse_config(json, &config, why, sizeof why) || fail(error, size, "%s/config.json: %s", dir, why);
    json_free(json);

    Safetensors *file = NULL;
    Slots slots = { 0 };
    Transformer *model = NULL;
    if (good && slots_open(dir, "model.safetensors", &file, error, size)) {
        slots_list_base(&slots, &config);
        if (slots_match(file, &slots, true, error, size) && (!memory_holds(weight_bytes(&config), why, sizeof why)
                                                       || (model = transformer_new(config, 0, why, sizeof why)) == NULL))
            fail(error, size, "%s/config.json: %s", dir, why);
    }
    if (model != NULL) {
        slots_point_at_base(&slots, model);
        if (!slots_read(file, &slots, error, size) || !tied_head(file, model, error, size)) {
            transformer_free(model);
            model = NULL;
        }
    }
    free(slots.list);
    safetensors_close(file);
    if (model != NULL && vocabulary != NULL) vocabulary_load(dir, config.vocab_size, vocabulary, why, sizeof why);
    return model;
}
