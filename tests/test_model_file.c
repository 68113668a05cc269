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
        { "upcast_attn\": false", "upcast_attn\": true", "reorder_and_upcast_attn" },
        { "embeddings\": true", "embeddings\": false", "tie_word_embeddings" },
        { "embeddings\": true", "embeddings\": 1", "tie_word_embeddings" },
        { "\"gpt2\"", "\"llama\"", "model_type" },
        { "\"model_type\"", "\"type\"", "model_type" },
        { "\"use_cache\": true", "\"add_cross_attention\": true", "add_cross_attention" },
        { "\"use_cache\": true", "\"pruned_heads\": {\"0\": [1]}", "pruned_heads" },
        { "\"use_cache\": true", "\"quantization_config\": {\"bits\": 4}", "quantization_config" },
        { "\"use_cache\": true", "\"n_layer\": 3", "config.json" },
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
    static const char least[] =
        "{\"model_type\":\"gpt2\",\"vocab_size\":13,\"n_positions\":8,\"n_embd\":8,\"n_layer\":3,\"n_head\":2,\"n_inner\":32}";
    write_text(path, least, strlen(least));
    copy = model_load(in_root("hostile"), NULL, error, sizeof error);
    EXPECT(copy != NULL && same_base(copy, model), "%s", error);
    transformer_free(copy);
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
    };
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
        copy = model_load(in_root("tokens"), &back, error, sizeof error); // the model is good without
        EXPECT(copy != NULL && back.size == 0, "%s", cases[i].new);
        transformer_free(copy);
        free(changed);
    }
    changed = replaced(tokenizer, "\"post_processor\":null",
                       "\"post_processor\":{\"type\":\"TemplateProcessing\",\"special_tokens\":{}}"); // what transformers adds
    write_text(path, changed, strlen(changed));
    EXPECT(vocabulary_load(in_root("tokens"), V, &back, error, sizeof error) && vocabulary_equal(&v, &back), "%s", error);
    vocabulary_free(&back);
    EXPECT(!vocabulary_load(in_root("tokens"), V + 1, &back, error, sizeof error) && one_line("13 tokens"), "%s", error);
    free(changed), free(tokenizer);
    vocabulary_free(&v);
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
    RUN(nothing_is_left_in_memory);
    remove_all(root);
    return test_summary();
}
