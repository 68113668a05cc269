// test_adapter_file.c - adapters to disk and back without losing a bit, in the form of PEFT, and what must be refused.

#include "checkpoint.h"

TEST(adapters_return_to_the_bit)
{
    Transformer *model = new_model(7), *twin = new_model(7);
    int by_block[L], saved = 0;
    for (unsigned targets = 1; targets < 16; targets++)
        for (int first = 0; first < L; first++)
            for (int last = first; last < L; last++) {
                int variant = (int)(targets + (unsigned)saved) % 4; // each kind of rank in turn
                LoraConfig config = { .r = 3 + variant,
                                      .alpha = variant == 1 ? 0.1 : 7,
                                      .targets = targets,
                                      .first_block = first,
                                      .last_block = last,
                                      .rank_stabilized = variant & 1 };
                for (int i = 0; i < L; i++) by_block[i] = i == first ? 2 : (i * 3 + variant) % 4; // 0: none in that block
                if (variant >= 2) config.r_by_block = by_block;
                Adapter *adapter = new_adapter(model, "a", config, targets);
                EXPECT(adapter_save(model, adapter, "a/base \"dir\"", in_root("adapter"), error, sizeof error), "%s", error);
                Adapter *back = adapter_load(twin, in_root("adapter"), "b", false, error, sizeof error);
                EXPECT(back && same_adapter(adapter, back), "targets %u, blocks %d to %d, variant %d: %s", targets, first, last,
                       variant, error);
                EXPECT(back == NULL
                           || (twin->active == back && back->config.rank_stabilized == config.rank_stabilized
                               && back->config.alpha == config.alpha),
                       "its settings");
                EXPECT(back == NULL || adapter_size(back) == adapter_size(adapter), "its size");
                EXPECT(twin->parameter_count == model->parameter_count, "%d and %d parameters", twin->parameter_count,
                       model->parameter_count);
                for (int i = model->base_count; i < model->parameter_count; i++) // the one list: the same, in the same order
                    EXPECT(strcmp(model->parameters[i]->name + 1, twin->parameters[i]->name + 1) == 0
                               && same_bits(model->parameters[i], twin->parameters[i]) && twin->parameters[i]->requires_grad,
                           "%s and %s", model->parameters[i]->name, twin->parameters[i]->name);
                saved++;
                transformer_remove_adapter(model, adapter);
                if (back) transformer_remove_adapter(twin, back);
            }
    EXPECT(saved == 15 * 6, "%d adapters", saved);
    char base[100];
    EXPECT(adapter_base(in_root("adapter"), base, sizeof base, error, sizeof error) && strcmp(base, "a/base \"dir\"") == 0,
           "%s", error);
    EXPECT(!adapter_base(in_root("adapter"), base, 5, error, sizeof error) && one_line("too long"), "%s", error);
    EXPECT(files_in(in_root("adapter")) == 2, "%d files", files_in(in_root("adapter")));

    Adapter *adapter = new_adapter(model, "odd", everywhere(2, 4), 9); // NaN and infinity, and another adapter beside it
    adapter->lora[3].A->data[1] = (real)NAN;
    adapter->lora[3].B->data[2] = (real)INFINITY;
    Adapter *first = new_adapter(twin, "first", everywhere(1, 1), 3);
    EXPECT(adapter_save(model, adapter, ".", in_root("adapter"), error, sizeof error), "%s", error);
    Adapter *back = adapter_load(twin, in_root("adapter"), "second", false, error, sizeof error);
    EXPECT(back && same_adapter(adapter, back) && twin->active == back && back->next == first, "%s", error);
    EXPECT(!first->lora[0].A->requires_grad && first->lora[0].A->data != NULL, "the other adapter");
    EXPECT(!adapter_load(twin, in_root("adapter"), "first", false, error, sizeof error) && one_line("first")
               && twin->active == back,
           "%s", error);
    EXPECT(!adapter_save(model, adapter, "\xff", in_root("adapter"), error, sizeof error) && one_line("UTF-8"), "%s", error);
    transformer_free(model);
    transformer_free(twin);
}

TEST(names_and_shapes_are_those_of_peft)
{
    Transformer *model = new_model(8);
    int by_block[L] = { 4, 0, 6 };
    LoraConfig config = everywhere(4, 8);
    config.r_by_block = by_block;
    Adapter *adapter = new_adapter(model, "a", config, 1);
    EXPECT(adapter_save(model, adapter, "./base", in_root("peft"), error, sizeof error), "%s", error);
    static const struct { const char *name; int I, O; } layers[] = {
        { "attn.c_attn", C, 3 * C }, { "attn.c_proj", C, C }, { "mlp.c_fc", C, 4 * C }, { "mlp.c_proj", 4 * C, C },
    };
    Safetensors *file;
    if (safetensors_open(in_root("peft/adapter_model.safetensors"), &file, error, sizeof error)) give_up("peft");
    EXPECT(file->count == 16, "%zu tensors", file->count);
    for (int i = 0; i < L; i += 2)
        for (int k = 0; k < LINEARS; k++)
            for (int half = 0; half < 2; half++) {
                const SafetensorsEntry *e;
                char name[120];
                int r = by_block[i], rows = half ? layers[k].O : r, columns = half ? r : layers[k].I;
                snprintf(name, sizeof name, "base_model.model.transformer.h.%d.%s.lora_%c.weight", i, layers[k].name,
                         "AB"[half]);
                bool found = !safetensors_find(file, name, &e, error, sizeof error)
                             && safetensors_shape_is(e, 2, (int[]){ rows, columns });
                EXPECT(found, "%s", name);
                if (!found) continue;
                real values[400]; // transposed
                const Tensor *t = half ? adapter->lora[i * LINEARS + k].B : adapter->lora[i * LINEARS + k].A;
                EXPECT(e->elements <= 400 && !safetensors_read(file, e, values, own, error, sizeof error), "%s", error);
                for (int row = 0; row < rows; row++)
                    for (int column = 0; column < columns; column++)
                        EXPECT(memcmp(&values[row * columns + column], &t->data[column * rows + row], sizeof(real)) == 0,
                               "%s[%d][%d]", name, row, column);
            }
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)transformer_fingerprint(model));
    EXPECT(strcmp(safetensors_metadata(file, "format"), "pt") == 0
               && strcmp(safetensors_metadata(file, "base_fingerprint"), hash) == 0,
           "metadata");
    safetensors_close(file);
    char *json = read_text(in_root("peft/adapter_config.json"), NULL);
    static const char *const settings[] = {
        "\"base_model_name_or_path\": \"./base\"",
        "\"bias\": \"none\"",
        "\"fan_in_fan_out\": true",
        "\"inference_mode\": true",
        "\"layers_to_transform\": [0, 2]",
        "\"lora_alpha\": 8,",
        "\"lora_dropout\": 0,",
        "\"peft_type\": \"LORA\"",
        "\"r\": 4",
        "\"h.2.attn.c_proj\": 6",
        "\"alpha_pattern\": {}",
        "\"task_type\": \"CAUSAL_LM\"",
        "\"target_modules\": [\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]",
        "\"use_dora\": false",
        "\"use_rslora\": false",
        "\"modules_to_save\": null",
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        EXPECT(strstr(json, settings[i]), "%s is missing in %s", settings[i], json);
    EXPECT(!strstr(json, "h.0."), "%s", json);
    free(json);
    transformer_free(model);
}

// Writes an adapter's configuration and tensors: layers "0:attn.c_attn:4 ..." as block, name and rank.
static void write_adapter(const char *json, const char *layers)
{
    static char names[60][120];
    Item items[60];
    size_t n = 0;
    int block, r, used;
    char name[40];
    for (; sscanf(layers, " %d:%39[^:]:%d%n", &block, name, &r, &used) == 3; layers += used, n += 2) {
        int k = 0;
        while (strcmp(linear_names[k], name) != 0) k++;
        snprintf(names[n], sizeof names[n], "base_model.model.transformer.h.%d.%s.lora_A.weight", block, name);
        snprintf(names[n + 1], sizeof names[n], "base_model.model.transformer.h.%d.%s.lora_B.weight", block, name);
        items[n] = (Item){ names[n], 2, { r, linear_inputs(&small, (LinearKind)k) } };
        items[n + 1] = (Item){ names[n + 1], 2, { linear_outputs(&small, (LinearKind)k), r } };
    }
    mkdir(in_root("by_hand"), 0777);
    write_text(in_root("by_hand/adapter_config.json"), json, strlen(json));
    write_items(in_root("by_hand/adapter_model.safetensors"), items, n, SAFETENSORS_F32);
}

TEST(other_peoples_adapters)
{
    static const struct { const char *json, *layers; double alpha_of_first; bool root; } cases[] = {
        { "{\"peft_type\":\"LORA\"}", "0:attn.c_attn:8 1:attn.c_attn:8 2:attn.c_attn:8", 8, false }, // PEFT's defaults
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"c_proj\"],\"layers_to_transform\":1}",
          "1:attn.c_proj:2 1:mlp.c_proj:2", 8, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"c_attn\",\"c_proj\",\"c_fc\"],\"layers_to_transform\":[2,0,9],"
          "\"layers_pattern\":[\"h\"]}",
          "0:attn.c_attn:2 0:attn.c_proj:2 0:mlp.c_fc:2 0:mlp.c_proj:2 2:attn.c_attn:2 2:attn.c_proj:2 2:mlp.c_fc:2 "
          "2:mlp.c_proj:2",
          8, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3,\"target_modules\":[\"h.2.mlp.c_fc\",\"transformer.h.0.attn.c_"
          "proj\",\"nowhere\"]}",
          "0:attn.c_proj:2 2:mlp.c_fc:2", 3, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\".*[02]\\\\.(mlp|attn)\\\\.c_(fc|attn)\",\"use_rslora\":true}",
          "0:attn.c_attn:2 0:mlp.c_fc:2 2:attn.c_attn:2 2:mlp.c_fc:2", 8, true },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\"(?:transformer\\\\.)?h?\\\\.?[a-z]?\\\\.[1-2]+\\\\.(mlp|none)*"
          "\\\\.c_fc\"}",
          "1:mlp.c_fc:2 2:mlp.c_fc:2", 8, false },
        { "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\"transformer\\\\.h\\\\.\\\\d\\\\.(?:mlp\\\\.c_fc|attn\\\\.c_"
          "attn)\",\"bias\":\"none\",\"lora_dropout\":0.5,\"fan_in_fan_out\":false,"
          "\"rank_pattern\":{\"c_fc\":5,\"h.0.mlp.c_fc\":7,\"^transformer.h.1.attn.c_attn\":3},\"alpha_pattern\":{\"h\\\\."
          "0\\\\..*\":1.5},\"unknown\":[],\"loftq_config\":{}}",
          "0:attn.c_attn:2 0:mlp.c_fc:5 1:attn.c_attn:3 1:mlp.c_fc:5 2:attn.c_attn:2 2:mlp.c_fc:5", 1.5,
          false }, // the first pattern that fits decides
    };
    Transformer *model = new_model(9), *twin = new_model(9);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_adapter(cases[i].json, cases[i].layers);
        Adapter *adapter = adapter_load(model, in_root("by_hand"), "a", false, error, sizeof error);
        EXPECT(adapter != NULL, "%s: %s", cases[i].json, error);
        if (adapter == NULL) continue;
        const Lora *lora = adapter->lora;
        while (lora->A == NULL) lora++;
        int r = lora->A->shape[1];
        EXPECT(lora->scale == (real)(cases[i].alpha_of_first / (cases[i].root ? sqrt(r) : r)), "%s: scale %g", cases[i].json,
               (double)lora->scale);
        EXPECT((float)lora->A->data[1] == (float)(0.01 * lora->A->shape[0]) && (float)lora->A->data[r] == 0.01f,
               "transposed: %g %g", (double)lora->A->data[1], (double)lora->A->data[r]);
        EXPECT(adapter->config.dropout == (strstr(cases[i].json, "lora_dropout") ? 0.5 : 0), "lora_dropout %g",
               adapter->config.dropout);
        EXPECT(adapter_save(model, adapter, ".", in_root("adapter"), error, sizeof error), "%s",
               error); // layers of any kind and rank survive
        Adapter *back = adapter_load(twin, in_root("adapter"), "b", false, error, sizeof error);
        EXPECT(back && same_adapter(adapter, back) && back->config.dropout == adapter->config.dropout, "%s: %s", cases[i].json,
               error);
        transformer_merge(model);
        transformer_unmerge(model);
        transformer_remove_adapter(model, adapter);
        if (back) transformer_remove_adapter(twin, back);
    }
    transformer_free(model);
    transformer_free(twin);
}

TEST(regular_expressions)
{
    static const struct { const char *pattern, *name; int suffix, whole; } cases[] = {
        // 1: it matches, 0: it does not, -1: refused
        { "a", "a", 1, 1 },
        { "a", "ab", 0, 0 },
        { "", "", 1, 1 },
        { "", "a", 0, 0 },
        { "a.c", "abc", 1, 1 },
        { "a\\.c", "abc", 0, 0 },
        { "a\\.c", "a.c", 1, 1 },
        { "c", "a.c", 1, 0 },
        { "b.c", "a.b.c", 1, 0 },
        { ".c", "a.b.c", 0, 0 },
        { "^a.b", "a.b", 1, 1 },
        { "^b", "a.b", 0, 0 },
        { "a$", "a", 1, 1 },
        { "a$b", "ab", 0, 0 },
        { "a|bc", "bc", 1, 1 },
        { "a|bc", "ac", 0, 0 },
        { "(a|b)c", "bc", 1, 1 },
        { "(?:a|)c", "c", 1, 1 },
        { "a*", "", 1, 1 },
        { "a*", "aaaa", 1, 1 },
        { "a+", "", 0, 0 },
        { "a+", "aaa", 1, 1 },
        { "a?b", "b", 1, 1 },
        { "a?b", "aab", 0, 0 },
        { "(ab)*", "abab", 1, 1 },
        { "(ab)+", "aba", 0, 0 },
        { "(ab)+", "", 0, 0 },
        { ".*?b", "aab", 1, 1 },
        { "((a|b)+c)*", "abcac", 1, 1 },
        { "((a|b)+c)*", "abca", 0, 0 },
        { "[a-c]", "b", 1, 1 },
        { "[a-c]", "d", 0, 0 },
        { "[^a-c]", "d", 1, 1 },
        { "[^a-c]", "b", 0, 0 },
        { "[a-]", "-", 1, 1 },
        { "[-a]", "-", 1, 1 },
        { "[.x]", "y", 0, 0 },
        { "[\\d_]+", "12_", 1, 1 },
        { "\\d", "x", 0, 0 },
        { "\\w+", "aZ_9", 1, 1 },
        { "\\w", ".", 0, 0 },
        { "h\\.(0|2)\\..*", "transformer.h.2.mlp.c_fc", 1, 0 },
        { "(a*)*", "aaa", 1, 1 },
        { "(a*)+b", "aab", 1, 1 },
        { "(|a)+", "aa", 1, 1 },
        { "*", "a", -1, -1 },
        { "a**", "a", -1, -1 },
        { "a*+", "a", -1, -1 },
        { "(a", "a", -1, -1 },
        { "a)", "a", -1, -1 },
        { "[a", "a", -1, -1 },
        { "[", "a", -1, -1 },
        { "[a-", "a", -1, -1 },
        { "[\xc3\xa9-", "a", -1, -1 },
        { "\xc3\xa9?a", "a", -1, -1 },
        { "[^", "a", -1, -1 },
        { "[]a]", "a", -1, -1 },
        { "[b-a]", "a", -1, -1 },
        { "a{2}", "aa", -1, -1 },
        { "(?=a)a", "a", -1, -1 },
        { "(?i)a", "a", -1, -1 },
        { "\\1", "a", -1, -1 },
        { "\\s", " ", -1, -1 },
        { "a\\", "a", -1, -1 },
        { "[a\\", "a", -1, -1 },
        { "|*", "a", -1, -1 },
        { "((((a))))", "a", -1, -1 },
        { "[[:digit:]]", "1", -1, -1 },
        { "[a-\\d]", "1", -1, -1 },
        { "(*)", "a", -1, -1 },
        { "a]", "a]", -1, -1 },
        { "a^*", "a", -1, -1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int suffix = 0; suffix < 2; suffix++) {
            bool matches = false;
            int expected = suffix ? cases[i].suffix : cases[i].whole;
            char *exact = strdup(cases[i].pattern); // so that a sanitizer sees what is read behind its end
            bool good = peft_match(exact, suffix, cases[i].name, &matches, error, sizeof error);
            free(exact);
            EXPECT(good == (expected >= 0) && (!good || matches == expected) && (good || one_line("regular expression")),
                   "%s, %s, suffix %d: %d, matches %d", cases[i].pattern, cases[i].name, suffix, good, matches);
        }
    static const char *const bombs[] = {
        "(a|)*", "(a*)*", "((a+)+)+", "(.*a|.*b)*", ".*", "(((a?)*)+)*"
    }; // with other matchers a matter of years, or of gigabytes
    char text[257], name[64];
    memset(name, 'a', 63), name[63] = '\0';
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        bool matches;
        double start = seconds_now();
        text[0] = '\0';
        while (strlen(text) + strlen(bombs[i]) <= 256) strcat(text, bombs[i]);
        EXPECT(peft_match(text, true, name, &matches, error, sizeof error) && matches, "%s: %s", text, error);
        EXPECT(seconds_now() - start < 5, "%s: %.1f s", text, seconds_now() - start);
    }
}

TEST(adapters_that_are_refused)
{
    static const struct { const char *old, *new, *word; } cases[] = {
        { "\"r\": 4", "\"r\": 0", "\"r\"" },
        { "\"r\": 4", "\"r\": -4", "\"r\"" },
        { "\"r\": 4", "\"r\": \"4\"", "\"r\"" },
        { "\"r\": 4", "\"r\": 65537", "\"r\"" },
        { "\"r\": 4", "\"r\": 65536", "another shape" },
        { "\"r\": 4", "\"r\": 5", "another shape" },
        { "\"lora_alpha\": 8", "\"lora_alpha\": \"8\"", "lora_alpha" },
        { "\"lora_alpha\": 8", "\"lora_alpha\": 1e999", "adapter_config.json" },
        { "\"LORA\"", "\"IA3\"", "peft_type" },
        { "\"peft_type\"", "\"type\"", "peft_type" },
        { "\"none\"", "\"all\"", "bias" },
        { "\"use_dora\": false", "\"use_dora\": true", "use_dora" },
        { "\"modules_to_save\": null", "\"modules_to_save\": [\"wte\"]", "modules_to_save" },
        { "\"use_rslora\": false", "\"use_rslora\": 1", "use_rslora" },
        { "\"revision\": null", "\"exclude_modules\": [\"c_attn\"]", "exclude_modules" },
        { "\"revision\": null", "\"lora_bias\": true", "lora_bias" },
        { "\"revision\": null", "\"layer_replication\": [[0,1]]", "layer_replication" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "[\"q_proj\"]", "target_modules" },
        { "[\"c_attn\", ", "[", "6 tensors unknown" },
        { "\"c_fc\", ", "", "6 tensors unknown" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "7", "target_modules" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(a\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"a{9999}{9999}\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]",
          "\"o+++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]",
          "\"(((((((((((((((((((((((((((((((o+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+)+\"",
          "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\".*+c_attn\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"*c_attn\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"[[:alpha:]]*\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(?=a).*\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(?!a).*\"", "regular expression" },
        { "[\"c_attn\", \"attn.c_proj\", \"c_fc\", \"mlp.c_proj\"]", "\"(.)\\\\1\"", "regular expression" },
        { "\"layers_to_transform\": null", "\"layers_to_transform\": [1]", "16 tensors unknown" },
        { "\"layers_to_transform\": null", "\"layers_to_transform\": 3", "target_modules" },
        { "\"layers_to_transform\": null", "\"layers_to_transform\": \"1\"", "layers_to_transform" },
        { "\"layers_pattern\": null", "\"layers_pattern\": \"layers\"", "layers_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 2", "another shape" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 0", "rank_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 2.5", "rank_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": \"x\"", "rank_pattern" },
        { "\"rank_pattern\": {", "\"rank_pattern\": {\"c_attn\": 1e300", "rank_pattern" },
        { "\"rank_pattern\": {}", "\"rank_pattern\": [1]", "rank_pattern" },
        { "\"alpha_pattern\": {", "\"alpha_pattern\": {\"*\": 1", "" },
        { "{", "[", "adapter_config.json" },
    };
    static Item items[40];
    Safetensors *file;
    Transformer *model = new_model(10), *stranger = new_model(11);
    Adapter *adapter = new_adapter(model, "a", everywhere(4, 8), 1), *first = new_adapter(model, "first", everywhere(1, 1), 2);
    if (!adapter_save(model, adapter, ".", in_root("bad"), error, sizeof error)) give_up("bad");
    char *path = in_root("bad/adapter_config.json"), *json = read_text(path, NULL);
    int parameters = model->parameter_count;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *changed = replaced(json, cases[i].old, cases[i].new);
        write_text(path, changed, strlen(changed));
        Adapter *loaded = adapter_load(model, in_root("bad"), "b", false, error, sizeof error);
        // an expression that only a part of the C libraries accepts may do no harm either
        EXPECT(cases[i].word[0] == '\0' || (loaded == NULL && one_line(cases[i].word)), "%s: %s", cases[i].new,
               loaded ? "is accepted" : error);
        if (loaded) transformer_remove_adapter(model, loaded), transformer_use_adapter(model, first);
        EXPECT(model->active == first && model->adapters == first && first->next == adapter, "%s: something is left",
               cases[i].new);
        free(changed);
    }
    write_text(path, json, strlen(json));

    EXPECT(!adapter_load(stranger, in_root("bad"), "b", false, error, sizeof error) && one_line("another base"), "%s", error);
    for (int i = 0; i < 2; i++) {
        char hash[20];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)transformer_fingerprint(i ? stranger : model));
        EXPECT(strstr(error, hash), "%s is not in: %s", hash, error);
    }
    EXPECT(stranger->adapters == NULL && stranger->parameter_count == stranger->base_count, "half attached");
    Adapter *loaded = adapter_load(stranger, in_root("bad"), "b", true, error, sizeof error);
    EXPECT(loaded && same_adapter(loaded, adapter), "%s", error);
    transformer_free(stranger);

    char *tensors = in_root("bad/adapter_model.safetensors");
    size_t n = items_of(tensors, items, &file);
    EXPECT(n == 24, "%zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        Item original = items[i];
        items[i] = items[n - 1];
        write_items(tensors, items, n - 1, own);
        EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line(": 1 tensor missing"),
               "%s: %s", original.name, error);
        items[i] = original;
        items[i].shape[1]++;
        write_items(tensors, items, n, own);
        EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line(": 1 tensor of another shape")
                   && strstr(error, original.name),
               "%s", error);
        items[i] = original;
    }
    items[n] = (Item){ "base_model.model.lm_head.weight", 2, { V, C } };
    write_items(tensors, items, n + 1, own);
    EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line(": 1 tensor unknown"), "%s",
           error);
    EXPECT(model->active == first && model->parameter_count == parameters, "something is left");
    remove(tensors);
    EXPECT(!adapter_load(model, in_root("bad"), "b", false, error, sizeof error) && one_line("adapter_model.safetensors"), "%s",
           error);
    safetensors_close(file);
    free(json);
    transformer_free(model);
}


// Key by key what PEFT 0.21 does with it, measured there: 1: the adapter computes what it did with its own configuration, 0: it
// is refused, or computes something else.
TEST(every_key_means_what_it_does_in_peft)
{
    static const struct { const char *key, *value; int good; } cases[] = {
        { "init_lora_weights", "true", 1 }, { "init_lora_weights", "false", 1 }, { "init_lora_weights", "null", 1 },
        { "init_lora_weights", "\"gaussian\"", 1 }, { "init_lora_weights", "\"eva\"", 1 }, { "init_lora_weights", "\"orthogonal\"", 1 },
        { "init_lora_weights", "\"mica\"", 1 }, { "init_lora_weights", "\"pissa\"", 0 }, { "init_lora_weights", "\"pissa_niter_4\"", 0 },
        { "init_lora_weights", "\"olora\"", 0 }, { "init_lora_weights", "\"corda\"", 0 }, { "init_lora_weights", "\"loftq\"", 0 },
        { "init_lora_weights", "\"lora_ga\"", 0 }, { "init_lora_weights", "\"what comes\"", 0 }, { "init_lora_weights", "1", 0 },
        { "lora_alpha", "null", 0 }, { "lora_alpha", "\"8\"", 0 }, { "target_modules", "[]", 0 }, { "target_modules", "\"\"", 0 },
        { "target_modules", "7", 0 }, { "target_modules", "null", 1 }, { "target_modules", "[\"c_attn\", 7]", 0 }, { "rank_pattern", "null", 0 },
        { "rank_pattern", "[]", 0 }, { "alpha_pattern", "null", 0 }, { "alpha_pattern", "[]", 0 }, { "r", "null", 0 }, { "r", "4.0", 0 },
        { "r", "true", 0 }, { "use_rslora", "null", 1 }, { "use_rslora", "1", 0 }, { "use_rslora", "\"no\"", 0 }, { "bias", "null", 0 },
        { "bias", "\"\"", 0 }, { "bias", "\"all\"", 0 }, { "layers_to_transform", "[]", 1 }, { "layers_to_transform", "[0,1,2,7]", 1 },
        { "layers_to_transform", "[0,1]", 0 }, { "layers_to_transform", "-1", 0 }, { "layers_to_transform", "[\"0\"]", 0 },
        { "layers_to_transform", "{\"0\":0}", 0 }, { "layers_to_transform", "\"\"", 0 }, { "layers_to_transform", "{}", 0 },
        { "layers_to_transform", "false", 0 }, { "task_type", "\"\"", 0 }, { "task_type", "false", 0 }, { "layers_pattern", "\"h\"", 0 }, { "layers_pattern", "[\"h\"]", 0 },
        { "layers_pattern", "[]", 1 }, { "lora_dropout", "null", 0 }, { "lora_dropout", "1.5", 0 }, { "lora_dropout", "-0.5", 0 },
        { "lora_dropout", "0.1", 1 }, { "task_type", "null", 1 }, { "task_type", "\"FEATURE_EXTRACTION\"", 1 }, { "task_type", "\"SEQ_CLS\"", 0 },
        { "task_type", "\"x\"", 0 }, { "fan_in_fan_out", "false", 1 }, { "fan_in_fan_out", "true", 1 }, { "inference_mode", "false", 1 },
        { "ensure_weight_tying", "true", 1 }, { "megatron_core", "\"x\"", 1 }, { "qalora_group_size", "3", 1 }, { "peft_type", "\"lora\"", 0 },
        { "runtime_config", "{\"ephemeral_gpu_offload\":true}", 1 }, { "revision", "\"main\"", 1 }, { "auto_mapping", "{\"base_model_class\":\"x\"}", 1 },
        { "loftq_config", "{\"loftq_bits\":4}", 1 }, { "eva_config", "{\"rho\":2.0}", 1 }, { "peft_version", "\"0.21.2\"", 1 },
        { "use_dora", "true", 0 }, { "modules_to_save", "[\"wte\"]", 0 }, { "exclude_modules", "[\"x\"]", 0 }, { "lora_bias", "true", 0 },
        { "layer_replication", "[[0,1]]", 0 }, { "trainable_token_indices", "[1]", 0 }, { "alora_invocation_tokens", "[1]", 0 },
        { "target_parameters", "[\"x\"]", 0 }, { "use_qalora", "true", 0 }, { "arrow_config", "{\"a\":1}", 0 }, { "kasa_config", "{\"a\":1}", 0 },
        { "megatron_config", "{\"a\":1}", 0 }, { "what_comes", "1", 0 }, { "what_comes", "null", 1 }, { "enable_lora", "[true,false,true]", 0 },
        { "merge_weights", "false", 1 },
    };
    static const char *const together[] = { // a string for targets, and blocks
        "\"all-linear\"", "\".*c_attn\"",
    };
    Transformer *model = new_model(12);
    Adapter *first = new_adapter(model, "first", everywhere(1, 1), 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[700] = "{", quoted[60], all[][2][40] = {
            { "peft_type", "\"LORA\"" }, { "r", "4" }, { "lora_alpha", "6" }, { "target_modules", "[\"c_attn\"]" }, { "bias", "\"none\"" },
            { "task_type", "\"CAUSAL_LM\"" }, { "rank_pattern", "{}" }, { "use_dora", "false" },
        };
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            if (strcmp(all[k][0], cases[i].key) != 0) sprintf(json + strlen(json), "\"%s\":%s,", all[k][0], all[k][1]);
        sprintf(json + strlen(json), "\"%s\":%s}", cases[i].key, cases[i].value);
        write_adapter(json, "0:attn.c_attn:4 1:attn.c_attn:4 2:attn.c_attn:4");
        Adapter *loaded = adapter_load(model, in_root("by_hand"), "b", false, error, sizeof error);
        snprintf(quoted, sizeof quoted, "\"%s\"", cases[i].key);
        bool by_shape = strcmp(cases[i].value, "[0,1]") == 0; // two layers of the three that the file has
        EXPECT((loaded != NULL) == cases[i].good, "%s: %s: %s", cases[i].key, cases[i].value, loaded ? "accepted" : error);
        EXPECT(loaded != NULL || one_line(by_shape ? "2 tensors unknown" : quoted), "%s: %s: %s", cases[i].key, cases[i].value, error);
        EXPECT(loaded == NULL || loaded->lora[C_ATTN].scale == (real)1.5, "%s: %s: scale %g", cases[i].key, cases[i].value,
               (double)loaded->lora[C_ATTN].scale);
        if (loaded) transformer_remove_adapter(model, loaded), transformer_use_adapter(model, first);
    }
    for (int i = 0; i < 2; i++) {
        char json[200];
        snprintf(json, sizeof json, "{\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":%s,\"layers_to_transform\":[0,1,2]}", together[i]);
        write_adapter(json, "0:attn.c_attn:4 1:attn.c_attn:4 2:attn.c_attn:4");
        EXPECT(!adapter_load(model, in_root("by_hand"), "b", false, error, sizeof error) && one_line("one or the other"), "%s: %s", json, error);
    }
    transformer_free(model);
}

// What PEFT 0.21 writes for a plain adapter, whole; and what 0.3 wrote.
TEST(what_peft_writes)
{
    static const char *const texts[] = {
        "{\"alora_invocation_tokens\":null,\"alpha_pattern\":{},\"arrow_config\":null,\"auto_mapping\":null,\"base_model_name_or_path\":\"gpt2\","
        "\"bias\":\"none\",\"corda_config\":null,\"ensure_weight_tying\":false,\"eva_config\":null,\"exclude_modules\":null,"
        "\"fan_in_fan_out\":true,\"inference_mode\":true,\"init_lora_weights\":true,\"kasa_config\":null,\"layer_replication\":null,"
        "\"layers_pattern\":null,\"layers_to_transform\":null,\"loftq_config\":{},\"lora_alpha\":6,\"lora_bias\":false,\"lora_dropout\":0.0,"
        "\"lora_ga_config\":null,\"megatron_config\":null,\"megatron_core\":\"megatron.core\",\"modules_to_save\":null,"
        "\"monteclora_config\":null,\"peft_type\":\"LORA\",\"peft_version\":\"0.21.2\",\"qalora_group_size\":16,\"r\":4,\"rank_pattern\":{},"
        "\"revision\":null,\"target_modules\":[\"c_attn\"],\"target_parameters\":null,\"task_type\":\"CAUSAL_LM\","
        "\"trainable_token_indices\":null,\"use_bdlora\":null,\"use_dora\":false,\"use_qalora\":false,\"use_rslora\":false,\"velora_config\":null}",
        "{\"base_model_name_or_path\":\"gpt2\",\"bias\":\"none\",\"enable_lora\":null,\"fan_in_fan_out\":true,\"inference_mode\":true,"
        "\"init_lora_weights\":true,\"lora_alpha\":6,\"lora_dropout\":0.05,\"merge_weights\":false,\"modules_to_save\":null,"
        "\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"c_attn\"],\"task_type\":\"CAUSAL_LM\"}",
    };
    Transformer *model = new_model(12);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_adapter(texts[i], "0:attn.c_attn:4 1:attn.c_attn:4 2:attn.c_attn:4");
        Adapter *loaded = adapter_load(model, in_root("by_hand"), "b", false, error, sizeof error);
        EXPECT(loaded != NULL && loaded->lora[C_ATTN].scale == (real)1.5, "%zu: %s", i, error);
        if (loaded) transformer_remove_adapter(model, loaded);
    }
    transformer_free(model);
}

// A file that fails only when its numbers are read: the adapter was attached by then, and must be gone; the one in use still is.
TEST(a_refused_adapter_leaves_the_one_in_use)
{
    Transformer *model = new_model(13);
    write_adapter("{\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"c_attn\"]}", "0:attn.c_attn:4 1:attn.c_attn:4 2:attn.c_attn:4");
    size_t n;
    char *path = in_root("by_hand/adapter_model.safetensors"), *bytes = read_text(path, &n), *last = NULL;
    for (char *at = bytes + 8; (at = strstr(at, "\"F32\"")) != NULL; at++) last = at; // one tensor of whole numbers
    memcpy(last, "\"I32\"", 5);
    write_text(path, bytes, n);
    free(bytes);
    for (int in_use = 0; in_use < 2; in_use++) {
        Adapter *first = in_use ? new_adapter(model, "first", everywhere(1, 1), 2) : NULL;
        int parameters = model->parameter_count, ids[T] = { 1, 2, 3, 4, 5, 6, 7, 8 };
        Tensor *before = transformer_logits(model, NULL, ids, 1, T);
        EXPECT(!adapter_load(model, in_root("by_hand"), "b", false, error, sizeof error) && one_line("cannot be read"), "%s", error);
        EXPECT(model->active == first && model->adapters == first && model->parameter_count == parameters, "something is left");
        EXPECT(first == NULL || first->lora[0].A->requires_grad, "the adapter in use is frozen now");
        Tensor *after = transformer_logits(model, NULL, ids, 1, T);
        EXPECT(same_bits(before, after), "the model computes something else");
        tensor_drop(before), tensor_drop(after);
    }
    transformer_free(model);
}

// The fingerprint is of the file's numbers, as 32-bit ones: that of both builds, by plain loops over the file's bytes.
TEST(fingerprints_are_of_the_numbers)
{
    Transformer *model = new_model(14);
    Settings single = { .dtype = SAFETENSORS_F32 };
    if (!model_save_with(model, NULL, &single, in_root("single"), error, sizeof error)) give_up("single");
    Transformer *back = model_load(in_root("single"), NULL, error, sizeof error);
    if (back == NULL) give_up("single");
    Safetensors *file;
    if (safetensors_open(in_root("single/model.safetensors"), &file, error, sizeof error)) give_up("single");
    uint64_t hash = 14695981039346656037u; // FNV-1a
    for (int i = 0; i < back->base_count; i++) {
        const SafetensorsEntry *e;
        static unsigned char bytes[4 * 4096];
        if (safetensors_find(file, back->parameters[i]->name, &e, error, sizeof error) || e->end - e->begin > sizeof bytes) give_up("entry");
        if (pread(file->fd, bytes, e->end - e->begin, (off_t)(file->data_start + e->begin)) < 0) give_up("pread");
        for (size_t j = 0; j < e->end - e->begin; j++) hash = (hash ^ bytes[j]) * 1099511628211u;
    }
    EXPECT(transformer_fingerprint(back) == hash, "%016" PRIx64 ", not %016" PRIx64, transformer_fingerprint(back), hash);
    EXPECT(strtoull(fingerprint_of(back).text, NULL, 16) == hash, "%s", fingerprint_of(back).text);
    safetensors_close(file);

    // and an adapter that has this fingerprint, with numbers of the other build's type, is taken
    Adapter *adapter = new_adapter(back, "a", everywhere(2, 4), 1);
    if (!adapter_save(back, adapter, in_root("single"), in_root("elsewhere"), error, sizeof error)) give_up("elsewhere");
    static Item items[60];
    size_t n = items_of(in_root("elsewhere/adapter_model.safetensors"), items, &file);
    static double numbers[4096];
    static SafetensorsTensor tensors[60];
    for (size_t i = 0; i < n; i++) tensors[i] = (SafetensorsTensor){ items[i].name, other, items[i].ndim, items[i].shape, numbers };
    Fingerprint fingerprint = fingerprint_of(back);
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { FINGERPRINT, fingerprint.text } };
    EXPECT(!safetensors_write(in_root("elsewhere/adapter_model.safetensors"), tensors, n, metadata, 2, error, sizeof error), "%s", error);
    safetensors_close(file);
    EXPECT(adapter_load(back, in_root("elsewhere"), "b", false, error, sizeof error) != NULL, "%s", error);
    transformer_free(model);
    transformer_free(back);
}

// An adapter names its base by a path from where it was trained; from another directory it is found all the same.
TEST(bases_are_found_from_elsewhere)
{
    Transformer *model = new_model(15);
    Adapter *adapter = new_adapter(model, "a", everywhere(2, 4), 1);
    if (!model_save(model, NULL, in_root("work/out/base"), error, sizeof error)
        || !adapter_save(model, adapter, "out/base", in_root("work/out/deep/adapter"), error, sizeof error)) give_up("work");
    char base[600], wanted[700], slashed[700];
    snprintf(wanted, sizeof wanted, "%s/out/base", in_root("work"));
    snprintf(slashed, sizeof slashed, "%s//", in_root("work/out/deep/adapter"));
    EXPECT(adapter_base(in_root("work/out/deep/adapter"), base, sizeof base, error, sizeof error) && strcmp(base, wanted) == 0, "%s", base);
    EXPECT(adapter_base(slashed, base, sizeof base, error, sizeof error) && strcmp(base, wanted) == 0, "%s", base);
    char here[600];
    if (getcwd(here, sizeof here) == NULL || chdir(in_root("work")) != 0) give_up("work");
    EXPECT(adapter_base("out/deep/adapter", base, sizeof base, error, sizeof error) && strcmp(base, "out/base") == 0, "%s", base); // as it stands
    if (chdir(in_root("work/out/deep")) != 0) give_up("work");
    EXPECT(adapter_base("../deep/adapter", base, sizeof base, error, sizeof error), "%s", error);
    if (chdir(here) != 0) give_up("here");
    remove(in_root("work/out/base/config.json"));
    EXPECT(adapter_base(in_root("work/out/deep/adapter"), base, sizeof base, error, sizeof error) && strcmp(base, "out/base") == 0, "%s", base);
    EXPECT(adapter_can_name("a/b\xc3\xa9", error, sizeof error) && !adapter_can_name("a/b\xe9", error, sizeof error) && one_line("byte 3"), "%s", error);

    remove(in_root("work/out/deep/adapter/adapter_model.safetensors"));
    write_text(in_root("work/out/deep/adapter/adapter_model.bin"), "x", 1);
    EXPECT(!adapter_load(model, in_root("work/out/deep/adapter"), "b", false, error, sizeof error) && one_line("adapter_model.bin")
               && strstr(error, "python3 -c"), "%s", error);
    transformer_free(model);
}

static int64_t zeros_outside(const Lora *lora) // how many entries of B that the mask leaves out are 0
{
    int64_t zeros = 0;
    for (int64_t j = 0; j < lora->B->size; j++) zeros += lora->mask->data[j] == 0 && lora->B->data[j] == 0;
    return zeros;
}

// One backward pass of a fixed batch.
static void gradients(Transformer *model)
{
    Tape *tape = tape_new();
    int ids[2 * T], targets[2 * T];
    for (int i = 0; i < 2 * T; i++) ids[i] = (3 * i * i + i) % V, targets[i] = (5 * i + 2) % V;
    backward(tape, transformer_loss(model, tape, ids, targets, 2, T));
    tape_free(tape);
}

// An adapter of some of q, k and v is one of the whole c_attn with more rank whose B is kept zero in places: everything but
// what the mask holds back must be the same to the bit.
TEST(adapters_of_q_and_v)
{
    static const struct { unsigned targets; int parts; } cases[] = {
        { TARGET_Q | TARGET_V, 2 }, { TARGET_K, 1 }, { TARGETS_QKV, 3 }, { TARGET_V | 1u << C_FC, 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int r = 2, parts = cases[i].parts;
        Transformer *model = new_model(50), *plain = new_model(50);
        LoraConfig config = { .r = r, .alpha = 3.5, .targets = cases[i].targets, .last_block = -1 };
        transformer_train_base(model, false);
        Adapter *adapter = new_adapter(model, "some", config, 7);
        int64_t size = L * parts * (C * r + r * C)
                    + (cases[i].targets & 1u << C_FC ? L * (C * r + r * 4 * C) : 0); // as of separate layers
        EXPECT(transformer_trainable_size(model) == size && adapter_size(adapter) == size,
               "%" PRId64 " and %" PRId64 " numbers train, not %" PRId64, transformer_trainable_size(model), adapter_size(adapter), size);

        static const int which[8][3] = {
            [1] = { 0 }, [2] = { 1 }, [4] = { 2 }, [5] = { 0, 2 }, [7] = { 0, 1, 2 }
        }; // the part of each r rows of B
        int64_t misplaced = 0;
        for (int row = 0; row < parts * r; row++)
            for (int j = 0; j < 3 * C; j++)
                misplaced +=
                    adapter->lora[C_ATTN].mask->data[row * 3 * C + j] != (j / C == which[cases[i].targets >> LINEARS][row / r]);
        EXPECT(misplaced == 0, "%" PRId64 " entries of the mask", misplaced);

        EXPECT(adapter_save(model, adapter, "base", in_root("parts"), error, sizeof error), "%s", error);
        char *json = read_text(in_root("parts/adapter_config.json"), NULL), rank[40], alpha[40];
        bool alone = !(cases[i].targets & 1u << C_FC); // no other layer, whose rank would be the general one
        snprintf(rank, sizeof rank, "\"r\": %d,", parts * r);
        snprintf(alpha, sizeof alpha, "\"lora_alpha\": %g,", parts * 3.5);
        EXPECT(!alone || (strstr(json, rank) && strstr(json, alpha) && strstr(json, "\"alpha_pattern\": {}")), "%s", json);
        free(json);
        Adapter *whole = adapter_load(plain, in_root("parts"), "other", false, error, sizeof error);
        EXPECT(whole && same_adapter(adapter, whole), "%s", error);
        transformer_train_base(plain, false);
        gradients(model);
        gradients(plain);
        for (int k = 0; whole && k < L * LINEARS; k++) {
            const Lora *a = &adapter->lora[k], *b = &whole->lora[k];
            if (a->A == NULL) continue;
            EXPECT(memcmp(a->A->grad, b->A->grad, (size_t)a->A->size * sizeof(real)) == 0, "layer %d: dA", k);
            EXPECT((a->mask != NULL) == (k % LINEARS == C_ATTN), "layer %d: mask", k);
            int64_t held = 0, wrong = 0;
            for (int64_t j = 0; j < a->B->size; j++) {
                bool open = a->mask == NULL || a->mask->data[j] != 0;
                wrong += a->B->grad[j] != (open ? b->B->grad[j] : 0);
                held += !open && b->B->grad[j] != 0;
            }
            EXPECT(wrong == 0, "layer %d: %" PRId64 " numbers of dB are wrong", k, wrong);
            EXPECT(a->mask == NULL || held > 0, "layer %d: the mask holds nothing back", k);
        }
        zero_grads(model);
        AdamW *optimizer = adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1 });
        Tensor *before = tensor_from("before", adapter->lora[C_ATTN].B->data, SHAPE(parts * r, 3 * C));
        train(model, optimizer, 0, 5);
        EXPECT(!same_bits(before, adapter->lora[C_ATTN].B), "nothing was learned");
        for (int k = 0; k < L * LINEARS; k += LINEARS) {
            const Lora *lora = &adapter->lora[k];
            EXPECT(zeros_outside(lora) == lora->B->size - parts * r * C, "layer %d: only %" PRId64 " zeros", k, zeros_outside(lora));
        }
        Tensor *W = model->blocks[1].linear[C_ATTN].weight, *old = tensor_from("old", W->data, W->ndim, W->shape);
        transformer_merge(model);
        for (int part = 0; part < 3; part++) { // the columns of a part that is left out keep their bits
            int64_t changed = 0;
            for (int row = 0; row < C; row++)
                for (int j = part * C; j < (part + 1) * C; j++)
                    changed += W->data[row * 3 * C + j] != old->data[row * 3 * C + j];
            EXPECT((changed > 0) == ((cases[i].targets >> LINEARS >> part & 1) != 0), "part %d: %" PRId64 " weights have changed", part,
                   changed);
        }
        tensor_drop(before);
        tensor_drop(old);
        adamw_free(optimizer);
        transformer_free(model);
        transformer_free(plain);
    }
}

// A batch whose rows use different adapters: each row must get what it would get alone, to the bit, and nothing else may
// change.
TEST(rows_with_adapters_of_their_own)
{
    enum { B = 7 };
    Transformer *model = new_model(60);
    transformer_train_base(model, false);
    Adapter *a = new_adapter(model, "a", everywhere(2, 4), 1);
    Adapter *b =
        new_adapter(model, "b", (LoraConfig){ .r = 3, .alpha = 5, .targets = TARGET_Q | TARGET_V, .last_block = 1 }, 2);
    Adapter *c = new_adapter(
        model, "c", (LoraConfig){ .r = 1, .alpha = 9, .targets = 1u << MLP_C_PROJ, .first_block = 2, .last_block = -1 }, 3);
    const Adapter *rows[B] = { b, NULL, c, b, a, NULL, c };
    int ids[B * T];
    for (int i = 0; i < B * T; i++) ids[i] = (i * i + 3 * i) % V;
    gradients(model); // of c, which is in use
    for (int threads = 1; threads <= 3; threads++) {
        parallel_set_threads(threads);
        Tensor *mixed = transformer_logits_mixed(model, rows, ids, B, T), *at_once = NULL;
        EXPECT(model->active == c && c->lora[2 * LINEARS + MLP_C_PROJ].B->grad != NULL
                   && c->lora[2 * LINEARS + MLP_C_PROJ].B->requires_grad && !a->lora[0].B->requires_grad,
               "the adapter in use has changed");
        Tensor *after = transformer_logits(model, NULL, ids + 2 * T, 1, T);
        EXPECT(memcmp(after->data, mixed->data + 2 * T * V, T * V * sizeof(real)) == 0,
               "another adapter computes than the one in use");
        tensor_drop(after);
        for (int row = 0; row < B; row++) {
            size_t bytes = T * V * sizeof(real);
            transformer_use_adapter(model, (Adapter *)rows[row]);
            Tensor *alone = transformer_logits(model, NULL, ids + row * T, 1, T);
            EXPECT(memcmp(alone->data, mixed->data + row * T * V, bytes) == 0, "%d threads: row %d", threads, row);
            tensor_drop(alone);
            at_once = transformer_logits(model, NULL, ids, B, T);
            for (int i = 0; i < B; i++) // another adapter would have been seen
                EXPECT((memcmp(at_once->data + i * T * V, mixed->data + i * T * V, bytes) == 0) == (rows[i] == rows[row]),
                       "row %d as row %d", i, row);
            tensor_drop(at_once);
        }
        transformer_use_adapter(model, c);
        gradients(model);
        tensor_drop(mixed);
    }
    parallel_set_threads(1);
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
    RUN(adapters_return_to_the_bit);
    RUN(names_and_shapes_are_those_of_peft);
    RUN(other_peoples_adapters);
    RUN(regular_expressions);
    RUN(adapters_that_are_refused);
    RUN(every_key_means_what_it_does_in_peft);
    RUN(what_peft_writes);
    RUN(a_refused_adapter_leaves_the_one_in_use);
    RUN(fingerprints_are_of_the_numbers);
    RUN(bases_are_found_from_elsewhere);
    RUN(adapters_of_q_and_v);
    RUN(rows_with_adapters_of_their_own);
    RUN(nothing_is_left_in_memory);
    remove_all(root);
    return test_summary();
}
