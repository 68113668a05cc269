// adapter_file.c - see adapter_file.h.

#include "adapter_file.h"

#include "json.h"
#include "model_file.h"
#include "options.h"
#include "peft.h"
#include "slots.h"

#include <stdlib.h>

enum { LONGEST_CONFIG = 1 << 20 }; // bytes

Fingerprint fingerprint_of(const Transformer *model)
{
    Fingerprint f;
    snprintf(f.text, sizeof f.text, "%016llx", (unsigned long long)transformer_fingerprint(model));
    return f;
}

bool adapter_can_name(const char *base_dir, char *error, size_t size)
{
    size_t n = strlen(base_dir), good = json_valid_utf8(base_dir, n);
    return good == n || fail(error, size, "the base's path is not UTF-8 from byte %zu on, so it cannot be written into "
                             "adapter_config.json; rename it", good);
}

bool adapter_add_files(Save *save, const Transformer *model, const Adapter *adapter, const char *base_dir)
{
    check(!transformer_is_merged(model), "adapter_save: an adapter is merged into the base; unmerge it first");
    const Config *c = &model->config;
    if (!adapter_can_name(base_dir, save->error, save->size)) return false;
    AdapterPlan plan = peft_plan(adapter, c);
    Slots slots = { 0 };
    slots_list_adapter(&slots, c, &plan);
    slots_point_at_adapter(&slots, adapter, c);
    bool good =
        slots.count > 0 || fail(save->error, save->size, "adapter %s has no layer: there is nothing to save", adapter->name);
    int mark = save_mark(save);
    if (good) {
        Document d;
        document_open(&d);
        peft_put_config(d.out, c, &plan, base_dir);
        good = save_document(save, "adapter_config.json", &d);
    }
    Fingerprint fingerprint = fingerprint_of(model);
    BaseType type = adapter->config.base_type;
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { FINGERPRINT, fingerprint.text }, { BASE_TYPE, base_type_names[type] } };
    good = good && save_replace(save, mark, "adapter_model.safetensors")
        && slots_save(save, "adapter_model.safetensors", ADAPTER_PREFIX, &slots, metadata,
                      type == BASE_FLOAT ? 2 : 3);
    free(slots.list);
    free(plan.layers);
    return good;
}

bool adapter_save(const Transformer *model, const Adapter *adapter, const char *base_dir, const char *dir, char *error,
                  size_t size)
{
    Save save;
    return save_begin(&save, dir, error, size) && save_end(&save, adapter_add_files(&save, model, adapter, base_dir));
}

bool fingerprint_fits(const Transformer *model, const char *fingerprint, const char *path, const char *hint, char *error,
                      size_t size)
{
    if (fingerprint == NULL) return true;
    Fingerprint own = fingerprint_of(model);
    if (strcmp(own.text, fingerprint) == 0) return true;
    return fail(error, size, "%s was trained on another base: its fingerprint is %.32s, that of this one is %s; %s", path,
                fingerprint, own.text, hint);
}

// On which type of base the adapter was trained, if its file says that.
static bool trained_on(const Safetensors *file, BaseType *type, char *error, size_t size)
{
    char why[100];
    const char *name = safetensors_metadata(file, BASE_TYPE);
    *type = BASE_FLOAT;
    return name == NULL || base_type_read(name, type, why, sizeof why)
        || fail(error, size, "%s: its metadata has \"" BASE_TYPE "\" %s: %s", file->path, json_quoted(name, strlen(name)).text, why);
}

Adapter *adapter_load(Transformer *model, const char *dir, const char *name, bool any_base, char *error, size_t size)
{
    check(!transformer_is_merged(model), "adapter_load: an adapter is merged into the base; unmerge it first");
    char why[512];
    Json *json = json_read(dir, "adapter_config.json", LONGEST_CONFIG, error, size);
    if (json == NULL) return NULL;
    AdapterPlan plan = { 0 };
    bool good = peft_parse_config(json, &model->config, &plan, why, sizeof why)
             || fail(error, size, "%s/adapter_config.json: %s", dir, why);
    json_free(json);

    Safetensors *file = NULL;
    Slots slots = { 0 };
    Adapter *adapter = NULL, *before = model->active;
    if (good) slots_list_adapter(&slots, &model->config, &plan);
    if (good && slots_open(dir, "adapter_model.safetensors", &file, error, size)
        && (any_base || fingerprint_fits(model, safetensors_metadata(file, FINGERPRINT), file->path, "load that one", error, size))
        && trained_on(file, &plan.config.base_type, error, size) && slots_match(file, &slots, false, error, size))
        adapter = transformer_add_layers(model, name, plan.config, plan.layers, 0, error, size);
    if (adapter != NULL) {
        slots_point_at_adapter(&slots, adapter, &model->config);
        if (!slots_read(file, &slots, error, size)) {
            transformer_remove_adapter(model, adapter);
            transformer_use_adapter(model, before);
            adapter = NULL;
        }
    }
    safetensors_close(file);
    free(slots.list);
    free(plan.layers);
    return adapter;
}

// From the adapter's directory upwards: the first place from which the relative path leads to a model.
static void find_base(const char *dir, char *base, size_t base_size)
{
    char path[2 * FILE_PATH];
    int length = (int)strlen(dir); // of the place
    if (base[0] == '/' || directory_holds(base, "config.json")) return;
    for (; length > 0; length--) {
        if (dir[length] != '/' && dir[length] != '\0') continue; // not the end of a name
        int n = snprintf(path, sizeof path, "%.*s/%s", length, dir, base);
        if (n >= (int)base_size || n >= (int)sizeof path || !directory_holds(path, "config.json")) continue;
        strcpy(base, path);
        return;
    }
}

bool adapter_base(const char *dir, char *base, size_t base_size, char *error, size_t size)
{
    char why[512];
    const char *text;
    Json *json = json_read(dir, "adapter_config.json", LONGEST_CONFIG, error, size);
    if (json == NULL) return false;
    bool good = json_get_string(json, "base_model_name_or_path", &text, why, sizeof why);
    good = good
           && ((size_t)snprintf(base, base_size, "%s", text) < base_size
               || fail(why, sizeof why, "the path of the base is too long"));
    json_free(json);
    if (good) find_base(dir, base, base_size);
    return good || fail(error, size, "%s/adapter_config.json: %s", dir, why);
}
