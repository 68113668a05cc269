// model_file.c - see model_file.h. The configuration, what is kept of one, the vocabulary, then all of it with the tensors.

#include "model_file.h"

#include "machine.h"
#include "options.h"
#include "predict.h"
#include "slots.h"

#include <stdlib.h>

enum {
    LONGEST_CONFIG = 1 << 20, LONGEST_TOKENIZER = 1 << 26, // bytes of the files that are read
    LARGEST_WIDTH = 1 << 16, LARGEST_DEPTH = 1 << 12,      // the transformer's own limits are about the same
    WIDEST_IN_CODES = 1 << 14,                             // 2 C^2 bytes of codes of one weight are an int
};

#define QUANTISED "quantization_config" // the key of config.json

static const char for_model[] = "what is saved or loaded";

double weight_bytes(const Config *c)
{
    return sizeof(real) * base_parameters(c->vocab_size, c->block_size, c->n_layer, c->n_embd);
}

// ------------------------------------------------------------------------------------------------------------- configuration

// Sizes have two names; where both are given, transformers takes the second.
typedef struct Size { const char *key, *alias; int64_t most; } Size;
enum { WIDTH, DEPTH, HEADS, POSITIONS, CHARACTERS, SIZES };
static const Size sizes[SIZES] = {
    [WIDTH] = { "n_embd", "hidden_size", LARGEST_WIDTH },
    [DEPTH] = { "n_layer", "num_hidden_layers", LARGEST_DEPTH },
    [HEADS] = { "n_head", "num_attention_heads", LARGEST_WIDTH },
    [POSITIONS] = { "n_positions", "max_position_embeddings", MODEL_LARGEST_TABLE },
    [CHARACTERS] = { "vocab_size", NULL, MODEL_LARGEST_TABLE },
};

static bool is_among(const char *const *list, const char *text)
{
    while (*list != NULL && strcmp(*list, text) != 0) list++;
    return *list != NULL;
}

static bool is_size(const char *key)
{
    for (int i = 0; i < SIZES; i++)
        if (strcmp(sizes[i].key, key) == 0 || (sizes[i].alias && strcmp(sizes[i].alias, key) == 0)) return true;
    return false;
}

void model_put_config(FILE *out, const Config *c, BaseType type, const Settings *settings)
{
    static const char *const anew[] = { "architectures", "model_type", "n_ctx", "dtype", "torch_dtype", QUANTISED, NULL };
    SafetensorsDtype dtype = settings && settings->dtype ? settings->dtype : REAL_DTYPE;
    fputs("{\n  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"model_type\": \"gpt2\",\n", out);
    fprintf(out, "  \"vocab_size\": %d,\n  \"n_positions\": %d,\n", c->vocab_size, c->block_size);
    fprintf(out, "  \"n_ctx\": %d,\n", c->block_size);
    fprintf(out, "  \"n_embd\": %d,\n  \"n_layer\": %d,\n  \"n_head\": %d,\n", c->n_embd, c->n_layer, c->n_head);
    char why[160];
    const char *kept = settings ? settings->config : NULL;
    Json *json = kept ? json_parse(kept, strlen(kept), why, sizeof why) : NULL;
    if (kept != NULL && json == NULL) die(EXIT_FAILED, "config.json: %s", why); // no memory: it was good when it was read
    for (const Json *item = json ? json->child : NULL; item != NULL; item = item->next) {
        if (is_among(anew, item->key) || is_size(item->key)) continue;
        fputs("  ", out);
        json_put_string(out, item->key, item->key_length);
        fputs(": ", out);
        json_put(out, item);
        fputs(",\n", out);
    }
    if (json == NULL) {
        fputs("  \"n_inner\": null,\n  \"activation_function\": \"gelu_new\",\n", out);
        fputs("  \"resid_pdrop\": 0.0,\n  \"embd_pdrop\": 0.0,\n  \"attn_pdrop\": 0.0,\n", out);
        fputs("  \"layer_norm_epsilon\": 1e-05,\n  \"initializer_range\": 0.02,\n  \"scale_attn_weights\": true,\n", out);
        fputs("  \"scale_attn_by_inverse_layer_idx\": false,\n  \"reorder_and_upcast_attn\": false,\n", out);
        // no token begins or ends a text: GPT-2's own, 50256, would lie outside of a vocabulary of characters
        fputs("  \"use_cache\": true,\n  \"tie_word_embeddings\": true,\n", out);
        fputs("  \"bos_token_id\": null,\n  \"eos_token_id\": null,\n", out);
    }
    json_free(json);
    if (type != BASE_FLOAT) fprintf(out, "  \"" QUANTISED "\": {\"base_type\": \"%s\"},\n", base_type_names[type]);
    fprintf(out, "  \"torch_dtype\": \"%s\"\n}\n", model_dtype_name(dtype));
}

// What the engine computes, key by key; a key that is absent means the same, as in transformers.
static bool check_features(const Json *json, char *error, size_t size)
{
    static const struct { const char *key; bool value; } flags[] = {
        { "scale_attn_weights", true }, { "scale_attn_by_inverse_layer_idx", false }, { "tie_word_embeddings", true },
        { "add_cross_attention", false },
    };
    static const char *const known[] = {
        // read here and below; reorder_and_upcast_attn is about the order in which 16-bit numbers are computed
        "model_type", "vocab_size", "n_positions", "max_position_embeddings", "n_embd", "hidden_size", "n_layer",
        "num_hidden_layers", "n_head", "num_attention_heads", "n_inner", "activation_function", "layer_norm_epsilon",
        "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings", "add_cross_attention",
        "reorder_and_upcast_attn", QUANTISED,
        // of training, of other heads, of what carries the model about: without effect on its logits, whatever they say
        "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "_num_labels",
        "architectures", "attn_implementation", "attn_pdrop", "chunk_size_feed_forward", "dtype", "embd_pdrop",
        "finetuning_task", "gradient_checkpointing", "id2label", "initializer_range", "label2id", "n_ctx", "n_special",
        "num_labels", "output_attentions", "output_hidden_states", "output_past", "predict_special_tokens", "problem_type",
        "resid_pdrop", "return_dict", "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
        "summary_use_proj", "task_specific_params", "tf_legacy_loss", "tokenizer_class", "torch_dtype", "torchscript",
        "transformers.js_config", "transformers_version", "use_bfloat16", "use_cache",
        // of how text is drawn
        "bad_words_ids", "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "diversity_penalty", "do_sample",
        "early_stopping", "encoder_no_repeat_ngram_size", "eos_token_id", "eos_token_ids", "exponential_decay_length_penalty",
        "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
        "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "pad_token_id", "pad_token_ids", "prefix",
        "remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "sep_token_id", "suppress_tokens",
        "temperature", "top_k", "top_p", "typical_p", NULL
    };
    const Json *activation = json_get(json, "activation_function");
    double epsilon = 1e-5;
    if (!json_is_string(json_get(json, "model_type"), "gpt2"))
        return fail(error, size, "\"model_type\" is not \"gpt2\", the one kind of model that this engine computes");
    if (activation != NULL && !json_is_string(activation, "gelu_new") && !json_is_string(activation, "gelu_pytorch_tanh"))
        return fail(error, size, "\"activation_function\" is not \"gelu_new\", the one that this engine computes");
    if (json_get(json, "layer_norm_epsilon") && !json_get_number(json, "layer_norm_epsilon", &epsilon, error, size))
        return false;
    if (fabs(epsilon - 1e-5) > 1e-12)
        return fail(error, size, "\"layer_norm_epsilon\" is %g; this engine computes with 1e-05 only", epsilon);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool value = flags[i].value;
        if (json_get(json, flags[i].key) && !json_get_bool(json, flags[i].key, &value, error, size)) return false;
        if (value != flags[i].value)
            return fail(error, size, "\"%s\" is %s; this engine computes the opposite only", flags[i].key,
                        value ? "true" : "false");
    }
    return json_is_known(json, known, error, size);
}

// Which type of codes, if any; "quant_method" is in the configurations of those who quantise in other ways.
static bool get_type(const Json *json, BaseType *type, char *error, size_t size)
{
    static const char *const known[] = { "base_type", NULL };
    const Json *codes = json_get(json, QUANTISED), *name = json_get(codes, "base_type"), *method = json_get(codes, "quant_method");
    *type = BASE_FLOAT;
    if (json_is_empty(codes)) return true;
    if (method != NULL)
        return fail(error, size, "\"" QUANTISED "\" has \"quant_method\" %s, which is not known here; convert the model to numbers first",
                    method->type == JSON_STRING ? json_quoted(method->string, method->length).text : "of another type");
    return (name != NULL && name->type == JSON_STRING && strlen(name->string) == name->length
            && base_type_read(name->string, type, error, size) && *type != BASE_FLOAT && json_is_known(codes, known, error, size))
        || fail(error, size, "\"" QUANTISED "\" is not {\"base_type\": \"nf4\"}, or \"int8\", and nothing else");
}

static bool get_size(const Json *json, const Size *s, int64_t *value, char *error, size_t size)
{
    int64_t other;
    bool two = s->alias != NULL && json_get(json, s->alias) != NULL, one = json_get(json, s->key) != NULL;
    if (two && !json_get_int(json, s->alias, 1, s->most, value, error, size)) return false;
    if (two && !one) return true;
    if (!json_get_int(json, s->key, 1, s->most, two ? &other : value, error, size)) return false;
    return !two || other == *value
        || fail(error, size, "\"%s\" is %d, and \"%s\", which means the same, %d", s->key, (int)other, s->alias, (int)*value);
}

bool model_parse_config(const Json *json, Config *config, BaseType *type, char *error, size_t size)
{
    int64_t n[SIZES], inner;
    BaseType codes;
    if (!check_features(json, error, size) || !get_type(json, &codes, error, size)) return false;
    if (type != NULL) *type = codes;
    else if (codes != BASE_FLOAT) return fail(error, size, "\"" QUANTISED "\" is %s, but codes cannot train", base_type_names[codes]);
    for (int i = 0; i < SIZES; i++)
        if (!get_size(json, &sizes[i], &n[i], error, size)) return false;
    if (n[WIDTH] % n[HEADS] != 0)
        return fail(error, size, "\"n_embd\" %d is not a multiple of \"n_head\" %d", (int)n[WIDTH], (int)n[HEADS]);
    if (json_given(json, "n_inner") && !json_get_int(json, "n_inner", 4 * n[WIDTH], 4 * n[WIDTH], &inner, error, size))
        return false;
    if (codes != BASE_FLOAT && n[WIDTH] > WIDEST_IN_CODES)
        return fail(error, size, "\"n_embd\" is %d, but a model in codes has %d at most", (int)n[WIDTH], WIDEST_IN_CODES);
    *config = (Config){ .vocab_size = (int)n[CHARACTERS], .block_size = (int)n[POSITIONS], .n_layer = (int)n[DEPTH],
                        .n_head = (int)n[HEADS], .n_embd = (int)n[WIDTH] };
    return true;
}

// ------------------------------------------------------------------------------------------------------------------- settings

static const char several[] = "several types";

const char *model_dtype_name(SafetensorsDtype dtype)
{
    switch (dtype) {
    case SAFETENSORS_F64:  return "float64";
    case SAFETENSORS_F32:  return "float32";
    case SAFETENSORS_F16:  return "float16";
    case SAFETENSORS_BF16: return "bfloat16";
    default:               return several;
    }
}

static char *text_of(const Json *json) // the caller's
{
    char why[160];
    Document d;
    if (json == NULL) return NULL;
    document_open(&d);
    json_put(d.out, json);
    if (!document_close(&d, why, sizeof why)) die(EXIT_FAILED, "%s", why);
    return d.text;
}

Settings settings_of(const Json *config, const Json *generation)
{
    return (Settings){ .config = text_of(config), .generation = text_of(generation) };
}

void settings_free(Settings *settings)
{
    free(settings->config);
    free(settings->generation);
    *settings = (Settings){ 0 };
}

bool settings_load(const char *dir, Settings *settings, char *error, size_t size)
{
    Json *config = json_read(dir, "config.json", LONGEST_CONFIG, error, size), *generation = NULL;
    bool good = config != NULL;
    if (good && directory_holds(dir, "generation_config.json"))
        good = (generation = json_read(dir, "generation_config.json", LONGEST_CONFIG, error, size)) != NULL;
    *settings = good ? settings_of(config, generation) : (Settings){ 0 };
    json_free(config);
    json_free(generation);
    return good;
}

// ----------------------------------------------------------------------------------------------------------------- vocabulary

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

// What a template puts around a text: nothing, if all it has is the text.
static bool adds_nothing(const Json *after)
{
    const Json *single = json_get(after, "single");
    if (json_is_empty(after)) return true;
    return json_is_string(json_get(after, "type"), "TemplateProcessing") && json_is_empty(json_get(after, "special_tokens"))
        && (single == NULL || (single->type == JSON_ARRAY && single->count == 1
                               && json_is_string(json_get(json_get(single->child, "Sequence"), "id"), "A")));
}

static bool check_tokenizer(const Json *json, char *error, size_t size)
{
    static const char *const known[] = { "version", "pre_tokenizer", "post_processor", "decoder", "model", NULL };
    static const char *const known_of_split[] = { "type", "pattern", "behavior", NULL };
    static const char *const known_of_model[] = { "type", "vocab", "unk_token", NULL };
    const Json *model = json_get(json, "model"), *vocab = json_get(model, "vocab"), *split = json_get(json, "pre_tokenizer");
    const Json *pattern = json_get(split, "pattern");
    bool by_character =
        json_is_string(json_get(split, "type"), "Split") && json_is_string(json_get(split, "behavior"), "Isolated")
        && (json_is_string(json_get(pattern, "Regex"), "[\\s\\S]") || json_is_string(json_get(pattern, "String"), ""));
    if (!json_is_string(json_get(model, "type"), "WordLevel") || vocab == NULL || vocab->type != JSON_OBJECT || !by_character
        || !json_is_string(json_get(json_get(json, "decoder"), "type"), "Fuse"))
        return fail(error, size, "not a tokenizer whose tokens are single characters, the only kind that this program knows");
    if (!adds_nothing(json_get(json, "post_processor")))
        return fail(error, size, "\"post_processor\" adds tokens to a text, which this engine does not");
    return json_is_known(json, known, error, size) && json_is_known(split, known_of_split, error, size)
        && json_is_known(model, known_of_model, error, size);
}

bool vocabulary_parse(const Json *json, int vocab_size, Vocabulary *vocabulary, char *error, size_t size)
{
    const Json *vocab = json_get(json_get(json, "model"), "vocab");
    if (!check_tokenizer(json, error, size)) return false;
    if (vocab->count == 0 || vocab->count > (size_t)vocab_size)
        return fail(error, size, "it has %zu tokens, but the model %d", vocab->count, vocab_size);
    vocab_size = (int)vocab->count; // the model may have more rows than there are characters: nothing means those
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

// ------------------------------------------------------------------------------------------------------------- whole models

// generation_config.json, or none: one that is there would be an older model's.
static bool add_generation(Save *save, const Settings *settings)
{
    static const char name[] = "generation_config.json";
    char path[FILE_PATH];
    Document d;
    if (settings == NULL || settings->generation == NULL)
        return !directory_holds(save->dir, name) || (file_path(path, save->dir, name, save->error, save->size)
                                                     && save_add(save, file_remove_begin(path, save->error, save->size)));
    document_open(&d);
    fprintf(d.out, "%s\n", settings->generation);
    return save_document(save, name, &d);
}

bool model_add_files(Save *save, const Transformer *model, const Vocabulary *vocabulary, const Settings *settings)
{
    const Config *c = &model->config;
    bool text = vocabulary != NULL && vocabulary->size > 0, good = add_generation(save, settings);
    check(!text || vocabulary->size <= c->vocab_size, "model_save: %d characters for a vocab_size of %d", vocabulary->size,
          c->vocab_size);
    int mark = save_mark(save);
    Document d;
    if (text && good) {
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
        model_put_config(d.out, c, model->base_type, settings);
        good = save_document(save, "config.json", &d);
    }
    Slots slots = { .stored = settings ? settings->dtype : 0 };
    slots_list_base(&slots, c, model->base_type);
    slots_point_at_base(&slots, model);
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { "base_type", base_type_names[model->base_type] } };
    good = good && save_replace(save, mark, "model.safetensors")
        && slots_save(save, "model.safetensors", MODEL_PREFIX, &slots, metadata, model->base_type == BASE_FLOAT ? 1 : 2);
    free(slots.list);
    return good;
}

bool model_save(const Transformer *model, const Vocabulary *vocabulary, const char *dir, char *error, size_t size)
{
    return model_save_with(model, vocabulary, NULL, dir, error, size);
}

bool model_save_with(const Transformer *model, const Vocabulary *vocabulary, const Settings *settings, const char *dir,
                     char *error, size_t size)
{
    Save save;
    return save_begin(&save, dir, error, size) && save_end(&save, model_add_files(&save, model, vocabulary, settings));
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
    return file->next == NULL || tied_head(file->next, model, error, size);
}

bool model_dtype(const char *dir, SafetensorsDtype *dtype, char *error, size_t size)
{
    Safetensors *file;
    if (!slots_open(dir, "model.safetensors", &file, error, size)) return false;
    bool mixed = false;
    *dtype = 0;
    for (const Safetensors *f = file; f != NULL; f = f->next)
        for (size_t e = 0; e < f->count; e++) {
            SafetensorsDtype type = f->entries[e].dtype;
            if (strcmp(model_dtype_name(type), several) == 0) continue; // a mask of old files, of truth values; or codes
            if (strstr(f->entries[e].name, ".weight.scales") != NULL) continue; // of codes
            mixed |= *dtype != 0 && *dtype != type;
            *dtype = type;
        }
    if (mixed) *dtype = 0;
    safetensors_close(file);
    return true;
}

bool model_hold(Transformer *model, BaseType type, const char *dir, char *error, size_t size)
{
    BaseType stored = model->base_type;
    if (type != stored && type != BASE_FLOAT && stored != BASE_FLOAT)
        return fail(error, size, "%s is stored in %s, and %s of that would be rounded twice; take --base-type %s, or float", dir,
                    base_type_names[stored], base_type_names[type], base_type_names[stored]);
    transformer_hold_base(model, type);
    if (type == BASE_FLOAT) transformer_train_base(model, true);
    memory_release_pool(); // of what it was before
    return true;
}

// Room for codes in the place of the linear layers' numbers, which are not read.
static void take_codes(Transformer *model, BaseType type)
{
    for (int i = 0; i < model->config.n_layer * LINEARS && type != BASE_FLOAT; i++) {
        Tensor *W = model->blocks[i / LINEARS].linear[i % LINEARS].weight;
        set_requires_grad(W, false);
        tensor_take_codes(W, type);
    }
    model->base_type = type;
    memory_release_pool();
}

// -128 is no code: they go to 127 on both sides.
static bool good_codes(const Slots *slots, char *error, size_t size)
{
    for (int s = 0; s < slots->count; s++) {
        const Slot *slot = &slots->list[s];
        const signed char *code = slot->data;
        for (size_t i = 0; slot->as == SAFETENSORS_I8 && i < slot->entry->elements; i++)
            if (code[i] == -128)
                return fail(error, size, "%s: %s: byte %zu is -128, but codes are from -127 to 127; the file is damaged, get it again",
                            slot->file->path, slot->entry->name, i);
    }
    return true;
}

// The file, where it says a type at all, says the same as config.json.
static bool same_type(const Safetensors *file, BaseType type, char *error, size_t size)
{
    const char *holds = safetensors_metadata(file, "base_type");
    return holds == NULL || strcmp(holds, base_type_names[type]) == 0
        || fail(error, size, "%s holds %s codes, but config.json says %s; the two are of different models: get both again", file->path,
                json_quoted(holds, strlen(holds)).text, base_type_names[type]);
}

Transformer *model_load(const char *dir, Vocabulary *vocabulary, char *error, size_t size)
{
    char why[512];
    if (vocabulary != NULL) *vocabulary = (Vocabulary){ 0 };
    if (!directory_holds(dir, "config.json") && directory_holds(dir, "adapter_config.json")) {
        fail(error, size, "%s holds an adapter, and no model: name the model that it belongs to", dir);
        return NULL;
    }
    Json *json = json_read(dir, "config.json", LONGEST_CONFIG, error, size);
    if (json == NULL) return NULL;
    Config config;
    BaseType type;
    bool good = model_parse_config(json, &config, &type, why, sizeof why) || fail(error, size, "%s/config.json: %s", dir, why);
    json_free(json);

    Safetensors *file = NULL;
    Slots slots = { 0 };
    Transformer *model = NULL;
    if (good && slots_open(dir, "model.safetensors", &file, error, size) && same_type(file, type, error, size)) {
        slots_list_base(&slots, &config, type);
        if (slots_match(file, &slots, true, error, size) && (!memory_holds(weight_bytes(&config), why, sizeof why)
                                                       || (model = transformer_new(config, 0, why, sizeof why)) == NULL))
            fail(error, size, "%s/config.json: %s", dir, why);
    }
    if (model != NULL) {
        take_codes(model, type);
        slots_point_at_base(&slots, model);
        if (!slots_read(file, &slots, error, size) || !good_codes(&slots, error, size) || !tied_head(file, model, error, size)) {
            transformer_free(model);
            model = NULL;
        }
    }
    free(slots.list);
    safetensors_close(file);
    if (model != NULL && vocabulary != NULL) vocabulary_load(dir, config.vocab_size, vocabulary, why, sizeof why);
    return model;
}
