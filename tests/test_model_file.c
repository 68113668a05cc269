// test_model_file.c - models to disk and back without losing a bit, the names and shapes that other libraries expect, and files that
// others wrote, right and wrong.

#include "checkpoint.h"

TEST(models_return_to_the_bit)
{
    Transformer *model = new_model(1);
    Vocabulary v = letters(V), back;
    real odd[] = { (real)NAN, (real)INFINITY, -(real)INFINITY, (real)-0.0, (real)1e-42 };
    memcpy(model->blocks[1].linear[C_FC].weight->data, odd, sizeof odd);
    char *dir = in_root("deep/er/model/");
    EXPECT(model_save(model, &v, dir, error, sizeof error), "%s", error);
    EXPECT(files_in(dir) == 4, "%d files", files_in(dir));
    Transformer *copy = model_load(dir, &back, error, sizeof error);
    EXPECT(copy && same_base(model, copy), "%s", error);
    EXPECT(vocabulary_equal(&v, &back), "%d characters", back.size);
    EXPECT(copy && transformer_hash(model) == transformer_hash(copy), "%s", error);
    if (copy != NULL) {
        const Config *c = &copy->config;
        EXPECT(c->vocab_size == V && c->block_size == T && c->n_layer == L && c->n_head == H && c->n_embd == C
                   && c->dropout == 0,
               "another configuration");
    }
    for (int i = 0; copy && i < copy->base_count; i++)
        EXPECT(copy->parameters[i]->requires_grad, "%s is frozen", copy->parameters[i]->name);
    EXPECT(copy && model_save(copy, &back, in_root("again"), error, sizeof error), "%s", error);
    EXPECT(same_bytes(in_root("again/model.safetensors"), in_root("deep/er/model/model.safetensors")),
           "saved again it is another file");
    EXPECT(same_bytes(in_root("again/tokenizer.json"), in_root("deep/er/model/tokenizer.json")),
           "saved again it is another vocabulary");
    vocabulary_free(&back);
    transformer_free(copy);

    EXPECT(model_save(model, NULL, in_root("mute"), error, sizeof error), "%s", error);
    EXPECT(files_in(in_root("mute")) == 2, "%d files without a vocabulary", files_in(in_root("mute")));
    copy = model_load(in_root("mute"), &back, error, sizeof error);
    EXPECT(copy != NULL && back.size == 0, "%s", error);
    EXPECT(!vocabulary_load(in_root("mute"), V, &back, error, sizeof error) && one_line("tokenizer.json"), "%s", error);
    transformer_free(copy);

    LoraConfig lora = {
        .r = 2, .alpha = 4, .targets = 1, .last_block = -1
    }; // a merged adapter is part of the base that is saved, another is not
    new_adapter(model, "x", lora, 5);
    EXPECT(model_save(model, NULL, in_root("beside"), error, sizeof error)
               && same_bytes(in_root("beside/model.safetensors"), in_root("mute/model.safetensors")),
           "%s", error);
    transformer_merge(model);
    EXPECT(model_save(model, NULL, in_root("merged"), error, sizeof error)
               && !same_bytes(in_root("merged/model.safetensors"), in_root("mute/model.safetensors")),
           "%s", error);
    transformer_free(model);
    vocabulary_free(&v);
}

TEST(names_and_shapes_are_those_of_gpt2)
{
    static const struct { const char *name; int ndim, shape[2]; } block[] = {
        { "ln_1.weight", 1, { C } },
        { "ln_1.bias", 1, { C } },
        { "attn.c_attn.weight", 2, { C, 3 * C } },
        { "attn.c_attn.bias", 1, { 3 * C } },
        { "attn.c_proj.weight", 2, { C, C } },
        { "attn.c_proj.bias", 1, { C } },
        { "ln_2.weight", 1, { C } },
        { "ln_2.bias", 1, { C } },
        { "mlp.c_fc.weight", 2, { C, 4 * C } },
        { "mlp.c_fc.bias", 1, { 4 * C } },
        { "mlp.c_proj.weight", 2, { 4 * C, C } },
        { "mlp.c_proj.bias", 1, { C } },
    };
    static const char *const settings[] = {
        "\"architectures\": [\"GPT2LMHeadModel\"]",
        "\"model_type\": \"gpt2\"",
        "\"vocab_size\": 13",
        "\"n_positions\": 8",
        "\"n_ctx\": 8",
        "\"n_embd\": 8",
        "\"n_layer\": 3",
        "\"n_head\": 2",
        "\"n_inner\": null",
        "\"activation_function\": \"gelu_new\"",
        "\"resid_pdrop\": 0.0",
        "\"embd_pdrop\": 0.0",
        "\"attn_pdrop\": 0.0",
        "\"layer_norm_epsilon\": 1e-05",
        "\"initializer_range\": 0.02",
        "\"scale_attn_weights\": true",
        "\"scale_attn_by_inverse_layer_idx\": false",
        "\"reorder_and_upcast_attn\": false",
        "\"use_cache\": true",
        "\"tie_word_embeddings\": true",
        "\"bos_token_id\": null",
        "\"eos_token_id\": null",
    };
    Transformer *model = new_model(2);
    Vocabulary v = letters(V);
    EXPECT(model_save(model, &v, in_root("gpt2"), error, sizeof error), "%s", error);
    Safetensors *file;
    const SafetensorsEntry *e;
    if (safetensors_open(in_root("gpt2/model.safetensors"), &file, error, sizeof error)) give_up("names");
    EXPECT(file->count == 4 + 12 * L, "%zu tensors", file->count);
    for (int i = 0; i < L; i++)
        for (size_t k = 0; k < sizeof block / sizeof *block; k++) {
            char name[80];
            snprintf(name, sizeof name, "transformer.h.%d.%s", i, block[k].name);
            EXPECT(!safetensors_find(file, name, &e, error, sizeof error) && e->dtype == own
                       && safetensors_shape_is(e, block[k].ndim, block[k].shape),
                   "%s", name);
        }
    EXPECT(!safetensors_find(file, "transformer.wte.weight", &e, error, sizeof error)
               && safetensors_shape_is(e, 2, (int[]){ V, C }),
           "wte");
    EXPECT(!safetensors_find(file, "transformer.wpe.weight", &e, error, sizeof error)
               && safetensors_shape_is(e, 2, (int[]){ T, C }),
           "wpe");
    EXPECT(!safetensors_find(file, "transformer.ln_f.weight", &e, error, sizeof error)
               && safetensors_shape_is(e, 1, (int[]){ C }),
           "ln_f");
    EXPECT(!safetensors_find(file, "transformer.ln_f.bias", &e, error, sizeof error)
               && safetensors_shape_is(e, 1, (int[]){ C }),
           "ln_f");
    const char *format = safetensors_metadata(file, "format");
    EXPECT(format && strcmp(format, "pt") == 0, "metadata");
    safetensors_close(file);

    char *config = read_text(in_root("gpt2/config.json"), NULL), *tokenizer = read_text(in_root("gpt2/tokenizer.json"), NULL);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        EXPECT(strstr(config, settings[i]), "%s is missing", settings[i]);
    EXPECT(strstr(config, own == SAFETENSORS_F64 ? "\"torch_dtype\": \"float64\"" : "\"torch_dtype\": \"float32\""), "%s",
           config);
    EXPECT(strstr(tokenizer, "\"pattern\":{\"Regex\":\"[\\\\s\\\\S]\"},\"behavior\":\"Isolated\""), "%s", tokenizer);
    EXPECT(strstr(tokenizer, "\"vocab\":{\"\\u0000\":0,\"\\n\":1,\"\\\"\":2,\"\\\\\":3,"), "%s", tokenizer);
    free(config), free(tokenizer);
    tokenizer = read_text(in_root("gpt2/tokenizer_config.json"), NULL);
    EXPECT(
        strstr(tokenizer,
               "\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"model_max_length\":8,\"clean_up_tokenization_spaces\":false"),
        "%s", tokenizer);
    free(tokenizer);
    transformer_free(model);
    vocabulary_free(&v);
}

TEST(other_peoples_model_files)
{
    static Item items[100];
    Safetensors *file;
    Transformer *model = new_model(3), *copy;
    if (!model_save(model, NULL, in_root("theirs"), error, sizeof error)) give_up("theirs");
    char *path = in_root("theirs/model.safetensors");
    size_t n = items_of(path, items, &file);
    for (size_t i = 0; i < n; i++) items[i].name += strlen("transformer."); // as OpenAI's file has them
    items[n] = (Item){ "h.0.attn.bias", 3, { 1, T, T } };
    items[n + 1] = (Item){ "h.2.attn.masked_bias", 0, { 1 } };
    items[n + 2] = (Item){ "lm_head.weight", 2, { V, C } };
    write_items(path, items, n + 3, SAFETENSORS_F32);
    copy = model_load(in_root("theirs"), NULL, error, sizeof error);
    EXPECT(copy != NULL, "%s", error);
    for (int i = 0; copy && i < copy->base_count; i++)
        for (int64_t j = 0; j < copy->parameters[i]->size; j++)
            EXPECT((float)copy->parameters[i]->data[j] == (float)(0.01 * (double)j), "%s[%" PRId64 "] is %g", copy->parameters[i]->name,
                   j, (double)copy->parameters[i]->data[j]);
    transformer_free(copy);
    write_items(path, items, n + 2, other); // the other type is read as well, and no head is needed
    copy = model_load(in_root("theirs"), NULL, error, sizeof error);
    EXPECT(copy != NULL && (float)copy->wte->data[7] == 0.07f, "%s", error);
    transformer_free(copy);

    items[n + 2] = (Item){ "lm_head.weight", 2, { V - 1, C } };
    write_items(path, items, n + 3, SAFETENSORS_F32);
    EXPECT(!model_load(in_root("theirs"), NULL, error, sizeof error) && one_line("lm_head.weight"), "%s", error);
    items[n] = (Item){ "transformer.wte.weight", 2, { V, C } }; // with and without prefix in one file
    write_items(path, items, n + 1, SAFETENSORS_F32);
    EXPECT(!model_load(in_root("theirs"), NULL, error, sizeof error) && one_line("1 tensor unknown")
               && strstr(error, "wte.weight"),
           "%s", error);
    items[n] = (Item){ "h.0.attn.c_attn.masked_bias", 1, { 1 } }; // not a mask
    write_items(path, items, n + 1, SAFETENSORS_F32);
    EXPECT(!model_load(in_root("theirs"), NULL, error, sizeof error) && one_line("1 tensor unknown"), "%s", error);
    safetensors_close(file);
    transformer_free(model);
}

TEST(missing_unknown_and_misshaped_tensors)
{
    static Item items[100];
    Safetensors *file;
    Transformer *model = new_model(4);
    if (!model_save(model, NULL, in_root("unfit"), error, sizeof error)) give_up("unfit");
    char *path = in_root("unfit/model.safetensors");
    size_t n = items_of(path, items, &file);
    int64_t held = ledger.total;
    for (size_t i = 0; i < n; i++) { // each tensor in turn: away, transposed or longer, under another name
        Item original = items[i];
        items[i] = items[n - 1];
        write_items(path, items, n - 1, own);
        EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line(": 1 tensor missing (\"")
                   && strstr(error, original.name + 12),
               "%s: %s", original.name, error);
        items[i] = original;
        if (original.ndim == 2 && original.shape[0] != original.shape[1])
            items[i].shape[0] = original.shape[1], items[i].shape[1] = original.shape[0];
        else items[i].shape[0]++;
        write_items(path, items, n, own);
        EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line(": 1 tensor of another shape (\"")
                   && strstr(error, original.name),
               "%s: %s", original.name, error);
        items[i] = original;
        items[i].name = "transformer.h.3.new\n\"name\"";
        write_items(path, items, n, own);
        EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line("1 tensor missing")
                   && strstr(error, "; 1 tensor unknown (\"transformer.h.3.new\\n"),
               "%s: %s", original.name, error);
        items[i] = original;
    }
    write_items(path, items, n - 20, own);
    EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line("20 tensors missing")
               && strstr(error, ", ...)"),
           "%s", error);
    char *config = read_text(in_root("unfit/config.json"), NULL),
         *changed = replaced(config, "\"n_layer\": 3", "\"n_layer\": 4");
    write_items(path, items, n, own);
    write_text(in_root("unfit/config.json"), changed, strlen(changed));
    EXPECT(!model_load(in_root("unfit"), NULL, error, sizeof error) && one_line("12 tensors missing"), "%s", error);
    EXPECT(ledger.total == held, "%" PRId64 " bytes are left", ledger.total - held);
    free(config), free(changed);
    safetensors_close(file);
    transformer_free(model);
}

TEST(hostile_configurations)
{
    static const struct { const char *old, *new, *word; } cases[] = {
        { "\"n_layer\": 3", "\"n_layer\": 4096", "missing" },
        { "\"n_layer\": 3", "\"n_layer\": 5000", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": -1", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": 0", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": \"3\"", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": 3.5", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": null", "n_layer" },
        { "\"n_layer\": 3", "\"n_layers\": 3", "n_layer" },
        { "\"n_layer\": 3", "\"n_layer\": 99999999999999999999999", "n_layer" },
        { "\"n_embd\": 8", "\"n_embd\": 65536", "another shape" },
        { "\"n_embd\": 8", "\"n_embd\": 2147483647", "n_embd" },
        { "\"n_embd\": 8", "\"n_embd\": 9", "multiple" },
        { "\"n_head\": 2", "\"n_head\": 0", "n_head" },
        { "\"n_head\": 2", "\"n_head\": 16", "n_head" },
        { "\"n_head\": 2", "\"n_head\": 3", "multiple" },
        { "\"vocab_size\": 13", "\"vocab_size\": 268435456", "another shape" },
        { "\"vocab_size\": 13", "\"vocab_size\": 4294967309", "vocab_size" },
        { "\"n_positions\": 8", "\"n_positions\": 268435456", "another shape" },
        { "\"n_positions\": 8", "\"n_positions\": 9", "another shape" },
        { "\"n_inner\": null", "\"n_inner\": 31", "n_inner" },
        { "\"n_inner\": null", "\"n_inner\": true", "n_inner" },
        { "gelu_new", "gelu", "activation_function" },
        { "\"gelu_new\"", "7", "activation_function" },
        { "1e-05", "1e-06", "layer_norm_epsilon" },
        { "1e-05", "\"x\"", "layer_norm_epsilon" },
        { "\"scale_attn_weights\": true", "\"scale_attn_weights\": false", "scale_attn_weights" },
        { "idx\": false", "idx\": true", "scale_attn_by_inverse_layer_idx" },
        { "embeddings\": true", "embeddings\": false", "tie_word_embeddings" },
        { "embeddings\": true", "embeddings\": 1", "tie_word_embeddings" },
        { "\"gpt2\"", "\"llama\"", "model_type" },
        { "\"model_type\"", "\"type\"", "model_type" },
        { "\"use_cache\": true", "\"add_cross_attention\": true", "add_cross_attention" },
        { "\"use_cache\": true", "\"pruned_heads\": {\"0\": [1]}", "pruned_heads" },
        { "\"use_cache\": true", "\"quantization_config\": {\"bits\": 4}", "quantization_config" },
        { "\"use_cache\": true", "\"n_layer\": 3", "config.json" },
        { "\"use_cache\": true", "\"hidden_size\": 16", "\"n_embd\" is 8, and \"hidden_size\", which means the same, 16" },
        { "\"use_cache\": true", "\"num_attention_heads\": 4", "num_attention_heads" },
        { "\"use_cache\": true", "\"num_hidden_layers\": 2", "num_hidden_layers" },
        { "\"use_cache\": true", "\"max_position_embeddings\": 4", "max_position_embeddings" },
        { "\"use_cache\": true", "\"hidden_size\": null", "hidden_size" },
        { "\"n_head\": 2", "\"num_attention_heads\": 3", "multiple" },
        { "\"use_cache\": true", "\"rope_theta\": 10000.0", "\"rope_theta\" is in use" },
        { "\"use_cache\": true", "\"is_decoder\": true", "\"is_decoder\" is in use" },
        { "\"use_cache\": true", "\"auto_map\": {\"AutoModel\": \"m.py\"}", "\"auto_map\" is in use" },
        { "\"use_cache\": true", "\"new_feature\": 0", "\"new_feature\" is in use" },
        { "\"scale_attn_weights\": true", "\"scale_attn_weights\": null", "scale_attn_weights" },
        { "embeddings\": true", "embeddings\": null", "tie_word_embeddings" },
        { "1e-05", "null", "layer_norm_epsilon" },
        { "1e-05", "NaN", "Python" },
        { "\"gelu_new\"", "null", "activation_function" },
        { "\"gelu_new\"", "\"gelu_fast\"", "activation_function" },
        { "{", "[", "config.json" },
        { "{", "", "config.json" },
    };
    Transformer *model = new_model(5), *copy;
    if (!model_save(model, NULL, in_root("hostile"), error, sizeof error)) give_up("hostile");
    char *path = in_root("hostile/config.json"), *config = read_text(path, NULL);
    int64_t held = ledger.total, mallocs = ledger.mallocs;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replaced(config, cases[i].old, cases[i].new);
        write_text(path, changed, strlen(changed));
        copy = model_load(in_root("hostile"), NULL, error, sizeof error);
        EXPECT(copy == NULL && one_line(cases[i].word), "%s: %s", cases[i].new, error);
        transformer_free(copy);
        free(changed);
    }
    EXPECT(ledger.total == held && ledger.mallocs == mallocs, "memory was asked for: %" PRId64 " bytes, %" PRId64 " buffers",
           ledger.total - held, ledger.mallocs - mallocs);
    static const char *const kind[] = { "{}", "[]", "\"gpt2\"", "3", "" };
    for (int i = 0; i < 5; i++) {
        write_text(path, kind[i], strlen(kind[i]));
        EXPECT(!model_load(in_root("hostile"), NULL, error, sizeof error) && one_line("config.json"), "%s: %s", kind[i], error);
    }
    static const char *const same[] = {
        "{\"model_type\":\"gpt2\",\"vocab_size\":13,\"n_positions\":8,\"n_embd\":8,\"n_layer\":3,\"n_head\":2,\"n_inner\":32}",
        "{\"model_type\":\"gpt2\",\"vocab_size\":13,\"max_position_embeddings\":8,\"hidden_size\":8,\"num_hidden_layers\":3,"
        "\"num_attention_heads\":2,\"reorder_and_upcast_attn\":true,\"activation_function\":\"gelu_pytorch_tanh\"}",
        "{\"model_type\":\"gpt2\",\"vocab_size\":13,\"n_positions\":8,\"n_embd\":8,\"hidden_size\":8,\"n_layer\":3,\"n_head\":2,"
        "\"num_attention_heads\":2,\"rope_theta\":null,\"is_decoder\":false,\"quantization_config\":{}}",
    };
    for (int i = 0; i < 3; i++) {
        write_text(path, same[i], strlen(same[i]));
        copy = model_load(in_root("hostile"), NULL, error, sizeof error);
        EXPECT(copy != NULL && same_base(copy, model) && copy->config.n_head == H, "%s: %s", same[i], error);
        transformer_free(copy);
    }
    remove(path);
    EXPECT(!model_load(in_root("hostile"), NULL, error, sizeof error) && one_line("config.json"), "%s", error);
    free(config);
    transformer_free(model);
}

TEST(other_tokenizers)
{
    static const struct { const char *old, *new; } cases[] = {
        { "WordLevel", "BPE" },
        { "Isolated", "Removed" },
        { "[\\\\s\\\\S]", "." },
        { "Fuse", "ByteLevel" },
        { "\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}" },
        { "\"added_tokens\":[]", "\"added_tokens\":[{\"id\":0}]" },
        { "\"post_processor\":null", "\"post_processor\":{\"type\":\"TemplateProcessing\",\"special_tokens\":{\"x\":1}}" },
        { "\"\\n\":1", "\"\\n\":2" },
        { "\"\\n\":1", "\"\\n\":-1" },
        { "\"\\n\":1", "\"\\n\":13" },
        { "\"\\n\":1", "\"\\n\":1.0" },
        { "\"\\n\":1", "\"\\n\":\"1\"" },
        { "\"\\n\":1", "\"\\n\\n\":1" },
        { "\"\\n\":1", "\"\":1" },
        { "\"\\n\":1,\"\\\"\":2", "\"\\n\":2,\"\\\"\":1" },
        { "\"\\n\":1,", "" },
        { "\"vocab\":{", "\"vocab\":[" },
        { "\"vocab\"", "\"words\"" },
        { "\"truncation\":null", "\"truncation\":{\"max_length\":4}" },
        { "\"padding\":null", "\"padding\":{\"pad_id\":0}" },
        { "\"version\"", "\"new\":1,\"version\"" },
        { "\"invert\":false", "\"invert\":true" },
        { "\"post_processor\":null", "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},"
          "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{}}" },
        { "\"post_processor\":null", "\"post_processor\":{\"type\":\"ByteLevel\"}" },
    };
    static const char *const named[] = { "truncation", "padding", "normalizer", "added_tokens", "post_processor", "invert", "new" };
    Transformer *model = new_model(6), *copy;
    Vocabulary v = letters(V), back;
    if (!model_save(model, &v, in_root("tokens"), error, sizeof error)) give_up("tokens");
    char *path = in_root("tokens/tokenizer.json"), *tokenizer = read_text(path, NULL), *changed;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        changed = replaced(tokenizer, cases[i].old, cases[i].new);
        write_text(path, changed, strlen(changed));
        EXPECT(!vocabulary_load(in_root("tokens"), V, &back, error, sizeof error) && one_line("tokenizer.json")
                   && back.size == 0,
               "%s: %s", cases[i].new, error);
        for (size_t k = 0; k < sizeof named / sizeof *named; k++) { // what changes the tokens is called by its name
            char quoted[40];
            snprintf(quoted, sizeof quoted, "\"%s\":", named[k]);
            if (strncmp(cases[i].new, quoted, strlen(quoted)) != 0) continue;
            quoted[strlen(quoted) - 1] = '\0';
            EXPECT(strstr(error, quoted), "%s: %s", cases[i].new, error);
        }
        copy = model_load(in_root("tokens"), &back, error, sizeof error); // the model is good without
        EXPECT(copy != NULL && back.size == 0, "%s", cases[i].new);
        transformer_free(copy);
        free(changed);
    }
    changed = replaced(tokenizer, "\"post_processor\":null",
                       "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],"
                       "\"special_tokens\":{}}"); // what transformers adds
    write_text(path, changed, strlen(changed));
    EXPECT(vocabulary_load(in_root("tokens"), V, &back, error, sizeof error) && vocabulary_equal(&v, &back), "%s", error);
    vocabulary_free(&back);
    EXPECT(!vocabulary_load(in_root("tokens"), V - 1, &back, error, sizeof error) && one_line("13 tokens"), "%s", error);
    EXPECT(vocabulary_load(in_root("tokens"), V + 3, &back, error, sizeof error) && vocabulary_equal(&v, &back), "%s", error);
    vocabulary_free(&back); // three rows that no text means
    free(changed), free(tokenizer);
    vocabulary_free(&v);
    transformer_free(model);
}

// The configurations that transformers writes, and wrote, for a GPT-2: none may be refused.
TEST(what_transformers_writes)
{
    static const char *const texts[] = {
        // 5, with every default
        "{\"activation_function\":\"gelu_new\",\"add_cross_attention\":false,\"architectures\":[\"GPT2LMHeadModel\"],\"attn_pdrop\":0.1,"
        "\"bos_token_id\":0,\"dtype\":\"float32\",\"embd_pdrop\":0.1,\"eos_token_id\":[0,1],\"initializer_range\":0.02,"
        "\"layer_norm_epsilon\":1e-05,\"model_type\":\"gpt2\",\"n_embd\":16,\"n_head\":2,\"n_inner\":null,\"n_layer\":2,\"n_positions\":16,"
        "\"pad_token_id\":null,\"reorder_and_upcast_attn\":false,\"resid_pdrop\":0.1,\"scale_attn_by_inverse_layer_idx\":false,"
        "\"scale_attn_weights\":true,\"summary_activation\":null,\"summary_first_dropout\":0.1,\"summary_proj_to_labels\":true,"
        "\"summary_type\":\"cls_index\",\"summary_use_proj\":true,\"tie_word_embeddings\":true,\"transformers_version\":\"5.24.0\","
        "\"use_cache\":true,\"vocab_size\":20}",
        // OpenAI's model as it has been stored for years
        "{\"activation_function\":\"gelu_new\",\"architectures\":[\"GPT2LMHeadModel\"],\"attn_pdrop\":0.1,\"bos_token_id\":50256,"
        "\"embd_pdrop\":0.1,\"eos_token_id\":50256,\"initializer_range\":0.02,\"layer_norm_epsilon\":1e-05,\"model_type\":\"gpt2\","
        "\"n_ctx\":1024,\"n_embd\":768,\"n_head\":12,\"n_layer\":12,\"n_positions\":1024,\"resid_pdrop\":0.1,\"summary_activation\":null,"
        "\"summary_first_dropout\":0.1,\"summary_proj_to_labels\":true,\"summary_type\":\"cls_index\",\"summary_use_proj\":true,"
        "\"task_specific_params\":{\"text-generation\":{\"do_sample\":true,\"max_length\":50}},\"vocab_size\":50257}",
        // 2, with everything that every model had
        "{\"activation_function\":\"gelu_new\",\"attn_pdrop\":0.0,\"embd_pdrop\":0.0,\"finetuning_task\":null,\"id2label\":{\"0\":\"LABEL_0\"},"
        "\"initializer_range\":0.02,\"is_decoder\":false,\"label2id\":{\"LABEL_0\":0},\"layer_norm_epsilon\":1e-05,\"length_penalty\":1.0,"
        "\"max_length\":20,\"model_type\":\"gpt2\",\"n_ctx\":64,\"n_embd\":16,\"n_head\":2,\"n_layer\":2,\"n_positions\":64,\"num_beams\":1,"
        "\"num_labels\":1,\"num_return_sequences\":1,\"output_attentions\":false,\"output_hidden_states\":false,\"output_past\":true,"
        "\"pad_token_id\":null,\"pruned_heads\":{},\"repetition_penalty\":1.0,\"resid_pdrop\":0.0,\"temperature\":1.0,\"top_k\":50,"
        "\"top_p\":1.0,\"torchscript\":false,\"use_bfloat16\":false,\"vocab_size\":20,\"gradient_checkpointing\":false,"
        "\"_name_or_path\":\"gpt2\",\"torch_dtype\":\"float16\",\"transformers_version\":\"4.30.0\",\"predict_special_tokens\":true}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Config c;
        Json *json = json_parse(texts[i], strlen(texts[i]), error, sizeof error);
        EXPECT(json && model_parse_config(json, &c, NULL, error, sizeof error) && c.n_embd == (i == 1 ? 768 : 16), "%zu: %s", i, error);
        json_free(json);
    }
}

static char *member_text(const Json *object, const char *key) // the caller's
{
    Document d;
    const Json *member = json_get(object, key);
    if (member == NULL) return strdup("nothing");
    document_open(&d);
    json_put(d.out, member);
    if (!document_close(&d, error, sizeof error)) give_up(key);
    return d.text;
}

static const char their_settings[] =
    "{\"model_type\":\"gpt2\",\"vocab_size\":13,\"n_positions\":8,\"hidden_size\":8,\"n_layer\":3,\"num_attention_heads\":2,"
    "\"n_inner\":32,\"activation_function\":\"gelu_pytorch_tanh\",\"eos_token_id\":3,\"bos_token_id\":1,\"pad_token_id\":null,"
    "\"resid_pdrop\":0.1,\"embd_pdrop\":0.2,\"attn_pdrop\":0.3,\"initializer_range\":0.05,\"layer_norm_epsilon\":1e-05,"
    "\"dtype\":\"bfloat16\",\"architectures\":[\"GPT2Model\"],\"task_specific_params\":{\"a b\":{\"max_length\":50,\"x\":[1.0,true]}},"
    "\"transformers_version\":\"5.24.0\",\"scale_attn_weights\":true,\"reorder_and_upcast_attn\":true,\"use_cache\":false,\"n_ctx\":8}";
static const char their_generation[] = "{\"_from_model_config\": true, \"eos_token_id\": 3, \"temperature\": 0.7}";

// What a model's files say besides stays with whatever is made of it, through a training state, too; what the model decides is
// written anew.
TEST(settings_of_a_model_are_kept)
{
    static const char *const decided[] = { "hidden_size", "num_attention_heads", "dtype", "architectures", NULL };
    Transformer *model = new_model(8);
    Settings settings;
    if (!model_save(model, NULL, in_root("with"), error, sizeof error)) give_up("with");
    write_text(in_root("with/config.json"), their_settings, strlen(their_settings));
    write_text(in_root("with/generation_config.json"), their_generation, strlen(their_generation));
    Json *theirs = json_read(in_root("with"), "config.json", 10000, error, sizeof error);
    for (int way = 0; way < 2; way++) { // saved as a model, and by way of a state
        EXPECT(settings_load(in_root("with"), &settings, error, sizeof error), "%s", error);
        const char *dir = in_root(way == 0 ? "kept" : "kept-state");
        if (way == 0) EXPECT(model_save_with(model, NULL, &settings, dir, error, sizeof error), "%s", error);
        else {
            AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0, 1 });
            TrainingState state = { .model = model, .optimizer = optimizer, .settings = settings, .options = train_options_default() }, again;
            EXPECT(state_save(in_root("on-the-way"), &state, error, sizeof error), "%s", error);
            EXPECT(state_load(in_root("on-the-way"), NULL, &again, error, sizeof error), "%s", error);
            EXPECT(state_save(dir, &again, error, sizeof error), "%s", error);
            state_free(&again);
            adamw_free(optimizer);
        }
        settings_free(&settings);
        Json *ours = json_read(dir, "config.json", 10000, error, sizeof error);
        EXPECT(ours != NULL, "%s", error);
        int kept = 0;
        for (const Json *item = theirs->child; item != NULL; item = item->next) {
            bool anew = false;
            for (int i = 0; decided[i] != NULL; i++) anew |= strcmp(decided[i], item->key) == 0;
            char *is = member_text(ours, item->key), *was = member_text(theirs, item->key);
            kept += !anew;
            EXPECT((strcmp(is, was) == 0) == !anew, "%s is %s, was %s", item->key, is, was);
            free(is), free(was);
        }
        EXPECT(kept == 20, "%d members", kept);
        EXPECT(json_get(ours, "hidden_size") == NULL && json_get(ours, "n_embd")->int_value == C && json_get(ours, "n_head")->int_value == H
                   && json_is_string(json_get(ours, "torch_dtype"), own == SAFETENSORS_F64 ? "float64" : "float32"),
               "what the model decides");
        EXPECT(ours->count == theirs->count, "%zu members, of %zu", ours->count, theirs->count); // dtype is torch_dtype now
        json_free(ours);
        char path[900];
        snprintf(path, sizeof path, "%s/generation_config.json", dir);
        char *generation = read_text(path, NULL);
        EXPECT(strncmp(generation, their_generation, strlen(their_generation)) == 0, "%s", generation);
        free(generation);
        Transformer *copy = model_load(dir, NULL, error, sizeof error);
        EXPECT(copy != NULL && same_base(copy, model), "%s", error);
        transformer_free(copy);
    }
    json_free(theirs);
    EXPECT(model_save(model, NULL, in_root("kept"), error, sizeof error), "%s", error); // a model that comes from nowhere
    EXPECT(!directory_holds(in_root("kept"), "generation_config.json"), "an older model's generation_config.json is still there");
    write_text(in_root("with/generation_config.json"), "{\"temperature\": NaN}", 20);
    EXPECT(!settings_load(in_root("with"), &settings, error, sizeof error) && one_line("generation_config.json") && settings.config == NULL,
           "%s", error);
    transformer_free(model);
}

// Saved in each type: every number is the nearest there is, and the configuration says the type.
TEST(models_in_other_types)
{
    static const struct { SafetensorsDtype type; const char *name; size_t bytes; } types[] = {
        { SAFETENSORS_F16, "float16", 2 }, { SAFETENSORS_BF16, "bfloat16", 2 }, { SAFETENSORS_F32, "float32", 4 }, { SAFETENSORS_F64, "float64", 8 },
    };
    Transformer *model = new_model(9);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        Settings settings = { .dtype = types[i].type };
        SafetensorsDtype type;
        char *dir = in_root("typed"), said[80];
        EXPECT(model_save_with(model, NULL, &settings, dir, error, sizeof error), "%s", error);
        EXPECT(model_dtype(dir, &type, error, sizeof error) && type == types[i].type, "%s", safetensors_dtype_name(type));
        EXPECT(strcmp(model_dtype_name(type), types[i].name) == 0, "%s", model_dtype_name(type));
        char *config = read_text(in_root("typed/config.json"), NULL);
        snprintf(said, sizeof said, "\"torch_dtype\": \"%s\"", types[i].name);
        EXPECT(strstr(config, said), "%s", config);
        free(config);
        Transformer *copy = model_load(dir, NULL, error, sizeof error);
        EXPECT(copy != NULL, "%s", error);
        int64_t wrong = 0, rounded = 0;
        for (int p = 0; copy && p < copy->base_count; p++)
            for (int64_t j = 0; j < copy->parameters[p]->size; j++) {
                double was = (double)model->parameters[p]->data[j], is = (double)copy->parameters[p]->data[j];
                int exponent, digits = types[i].type == SAFETENSORS_F16 ? 11 : types[i].type == SAFETENSORS_BF16 ? 8 : types[i].type == SAFETENSORS_F32 ? 24 : 53;
                frexp(was, &exponent);
                if (types[i].type == SAFETENSORS_F16 && exponent < -13) exponent = -13; // subnormal
                wrong += fabs(is - was) > ldexp(1, exponent - digits - 1);
                rounded += is != was;
            }
        EXPECT(wrong == 0, "%s: %" PRId64 " numbers are not the nearest", types[i].name, wrong);
        EXPECT((rounded > 0) == (types[i].bytes < sizeof(real)), "%s: %" PRId64 " numbers were rounded", types[i].name, rounded);
        transformer_free(copy);
    }
    static Item items[100];
    Safetensors *file;
    char *path = in_root("typed/model.safetensors");
    size_t n = items_of(path, items, &file);
    EXPECT(file->size < 8 * (size_t)transformer_base_size(model) + 20000, "%zu bytes", file->size);
    safetensors_close(file);
    EXPECT(n > 2, "%zu tensors", n);

    static const real one[] = { 1 };
    static const uint16_t half[] = { 0x3F80 };
    SafetensorsDtype type;
    SafetensorsTensor mixed[] = { { "a", SAFETENSORS_BF16, 1, (int[]){ 1 }, half }, { "b", own, 1, (int[]){ 1 }, one } };
    for (int count = 1; count <= 2; count++) {
        EXPECT(!safetensors_write(path, mixed, (size_t)count, NULL, 0, error, sizeof error), "%s", error);
        EXPECT(model_dtype(in_root("typed"), &type, error, sizeof error) && type == (count == 1 ? SAFETENSORS_BF16 : 0), "%d tensors", count);
    }
    EXPECT(strcmp(model_dtype_name(type), "several types") == 0, "%s", model_dtype_name(type));
    static const char with_mask[] = "{\"a\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]}}";
    char image[8 + sizeof with_mask + 2] = { (char)(sizeof with_mask - 1) };
    memcpy(image + 8, with_mask, sizeof with_mask);
    write_text(path, image, 8 + sizeof with_mask - 1 + 3);
    EXPECT(model_dtype(in_root("typed"), &type, error, sizeof error) && type == SAFETENSORS_BF16, "%s", error);
    transformer_free(model);
}

// Tensors in a file of another kind: which, and what to do.
TEST(tensors_in_other_files)
{
    static const char *const others[] = { "pytorch_model.bin", "pytorch_model.bin.index.json" };
    Transformer *model = new_model(10);
    if (!model_save(model, NULL, in_root("kinds"), error, sizeof error)) give_up("kinds");
    remove(in_root("kinds/model.safetensors"));
    EXPECT(!model_load(in_root("kinds"), NULL, error, sizeof error) && one_line("model.safetensors") && !strstr(error, "convert"), "%s", error);
    for (int i = 0; i < 2; i++) {
        char path[800];
        snprintf(path, sizeof path, "%s/%s", in_root("kinds"), others[i]);
        write_text(path, "x", 1);
        EXPECT(!model_load(in_root("kinds"), NULL, error, sizeof error) && one_line(others[i]) && strstr(error, "python3 -c"), "%s", error);
        remove(path);
    }
    transformer_free(model);
}

// Tensors in three files and an index: the same model; and what is wrong with such files.
TEST(tensors_in_several_files)
{
    static const char *const names[] = { "model-1.safetensors", "model-2.safetensors", "model-3.safetensors" };
    static const struct { const char *index, *word; } wrong[] = {
        { "{}", "weight_map" }, { "{\"weight_map\":{}}", "weight_map" }, { "{\"weight_map\":[\"x\"]}", "weight_map" }, { "[", "not JSON" },
        { "{\"weight_map\":{\"a\":1}}", "weight_map" }, { "{\"weight_map\":{\"a\":\"../x/model.safetensors\"}}", "weight_map" },
        { "{\"weight_map\":{\"a\":\"model-1.safetensors\",\"b\":\"model-4.safetensors\"}}", "model-4.safetensors" },
        { "{\"weight_map\":{\"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\"}}", "missing" },
        { "{\"weight_map\":{\"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\",\"c\":\"model-3.safetensors\",\"d\":\"twice.safetensors\"}}", "1 tensor unknown" },
        { "{\"weight_map\":{\"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\",\"c\":\"model-3.safetensors\",\"d\":\"head.safetensors\"}}", "lm_head" },
        { "{\"weight_map\":{\"d\":\"head.safetensors\",\"a\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\",\"c\":\"model-3.safetensors\"}}", "lm_head" },
    };
    static SafetensorsTensor parts[3][100];
    int counts[3] = { 0 };
    char path[800], index[8000] = "{\"metadata\":{\"total_size\":1},\"weight_map\":{";
    Transformer *model = new_model(11);
    if (!model_save(model, NULL, in_root("several"), error, sizeof error)) give_up("several");
    remove(in_root("several/model.safetensors"));
    for (int i = 0; i < model->base_count; i++) {
        const Tensor *t = model->parameters[i];
        int part = i * 7 % 3; // no part holds what lies together
        parts[part][counts[part]++] = (SafetensorsTensor){ t->name, own, t->ndim, t->shape, t->data };
        sprintf(index + strlen(index), "%s\"%s\":\"%s\"", i ? "," : "", t->name, names[part]);
    }
    strcat(index, "}}");
    for (int part = 0; part < 3; part++) {
        snprintf(path, sizeof path, "%s/%s", in_root("several"), names[part]);
        EXPECT(!safetensors_write(path, parts[part], (size_t)counts[part], NULL, 0, error, sizeof error), "%s", error);
    }
    static const real other_head[V * C];
    SafetensorsTensor head = { "lm_head.weight", own, 2, model->wte->shape, other_head };
    EXPECT(!safetensors_write(in_root("several/twice.safetensors"), parts[1], 1, NULL, 0, error, sizeof error), "%s", error);
    EXPECT(!safetensors_write(in_root("several/head.safetensors"), &head, 1, NULL, 0, error, sizeof error), "%s", error);
    char *where = in_root("several/model.safetensors.index.json");
    write_text(where, index, strlen(index));
    Transformer *copy = model_load(in_root("several"), NULL, error, sizeof error);
    SafetensorsDtype type = 0;
    EXPECT(copy != NULL && same_base(copy, model), "%s", error);
    EXPECT(model_dtype(in_root("several"), &type, error, sizeof error) && type == own, "%s", error);
    transformer_free(copy);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_text(where, wrong[i].index, strlen(wrong[i].index));
        copy = model_load(in_root("several"), NULL, error, sizeof error);
        EXPECT(copy == NULL && one_line(wrong[i].word), "%s: %s", wrong[i].index, copy ? "accepted" : error);
        transformer_free(copy);
    }
    EXPECT(model_save(model, NULL, in_root("several"), error, sizeof error), "%s", error); // one file comes before the index
    copy = model_load(in_root("several"), NULL, error, sizeof error);
    EXPECT(copy != NULL && same_base(copy, model), "%s", error);
    transformer_free(copy);
    transformer_free(model);
}

// Runs last.
TEST(nothing_is_left_in_memory)
{
    scratch_release();
    EXPECT(ledger.total == 0, "%" PRId64 " bytes", ledger.total);
}

int main(void)
{
    if (!make_root()) return 1;
    RUN(models_return_to_the_bit);
    RUN(names_and_shapes_are_those_of_gpt2);
    RUN(other_peoples_model_files);
    RUN(missing_unknown_and_misshaped_tensors);
    RUN(hostile_configurations);
    RUN(other_tokenizers);
    RUN(what_transformers_writes);
    RUN(settings_of_a_model_are_kept);
    RUN(models_in_other_types);
    RUN(tensors_in_other_files);
    RUN(tensors_in_several_files);
    RUN(nothing_is_left_in_memory);
    remove_all(root);
    return test_summary();
}
