// state_file.c - see state_file.h. Metadata of the file holds all but the tensors, as JSON.

#include "state_file.h"

#include "adapter_file.h"
#include "json.h"
#include "machine.h"
#include "peft.h"
#include "slots.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#define STATE      "meltwater_state"   // its key in metadata
#define STATE_FILE "training_state.safetensors"

enum { STATE_VERSION = 2 };

static char *copy_text(const char *text) // NULL stays NULL
{
    char *copy = text == NULL ? NULL : allocate(strlen(text) + 1, 1, "a training state");
    return copy == NULL ? NULL : strcpy(copy, text);
}

// Everything but the numbers in tensors, as one JSON object.
static void put_state(FILE *out, const TrainingState *state, const AdapterPlan *plan)
{
    const Transformer *model = state->model;
    fprintf(out, "{\"version\":%d,\"step\":%" PRId64 ",\"optimizer_step\":%" PRId64 ",\"text_hash\":%" PRIu64, STATE_VERSION,
            state->step, state->optimizer->step, state->text_hash);
    options_put(out, train_table.rows, &state->options);
    if (state->vocabulary.size > 0) {
        fputs(",\"tokenizer\":", out);
        vocabulary_put(out, &state->vocabulary);
    }
    if (model->active == NULL) {
        fputs(",\"config\":", out);
        model_put_config(out, &model->config, BASE_FLOAT, &state->settings);
        if (state->settings.generation != NULL) fprintf(out, ",\"generation_config\":%s", state->settings.generation);
    } else {
        fputs(",\"adapter_name\":", out);
        json_put_text(out, model->active->name);
        fprintf(out, ",\"freeze_A\":%s,\"" FINGERPRINT "\":\"%s\",\"base_dir\":",
                model->active->config.freeze_A ? "true" : "false", fingerprint_of(model).text);
        json_put_text(out, state->base_dir);
        fputs(",\"adapter\":", out);
        peft_put_config(out, &model->config, plan, state->base_dir);
    }
    fputs("}", out);
}

static bool save_state(Save *save, const TrainingState *state)
{
    Transformer *model = state->model;
    const Config *c = &model->config;
    check(!transformer_is_merged(model), "state_save: an adapter is merged into the base; unmerge it first");
    check((model->active != NULL) == (state->base_dir != NULL), "state_save: an adapter in use and base_dir go together");
    AdapterPlan plan = { 0 };
    Slots slots = { 0 };
    if (model->active == NULL) {
        slots_list_base(&slots, c, BASE_FLOAT);
        slots_point_at_base(&slots, model);
    } else {
        plan = peft_plan(model->active, c);
        slots_list_adapter(&slots, c, &plan);
        slots_point_at_adapter(&slots, model->active, c);
    }
    int trainable = 0;
    for (int i = 0; i < model->parameter_count; i++) trainable += model->parameters[i]->requires_grad;
    for (int i = 0; i < slots.count; i++) {
        const Slot *slot = &slots.list[i];
        check(slot->tensor->requires_grad == slot->trains, "state_save: %s %s", slot->tensor->name,
              slot->trains ? "is frozen; a state knows only training of everything or of the adapter in use"
                           : "trains, though the adapter's A is frozen");
        trainable -= slot->trains;
    }
    check(trainable == 0, "state_save: %d more tensors train than belong to the state", trainable);
    if (state->optimizer->step > 0) {
        slots_list_moments(&slots);
        slots_point_at_moments(&slots, state->optimizer, false);
    }
    Document d;
    document_open(&d);
    put_state(d.out, state, &plan);
    bool good = document_close(&d, save->error, save->size);
    SafetensorsMetadata metadata[] = { { "format", "pt" }, { STATE, d.text } };
    good = good && slots_save(save, STATE_FILE, MODEL_PREFIX, &slots, metadata, 2);
    free(d.text);
    free(slots.list);
    free(plan.layers);
    return good;
}

static bool add_all(Save *save, const TrainingState *state)
{
    const Transformer *model = state->model;
    return save_state(save, state) // first, for it is what --resume goes by
        && (model->active == NULL ? model_add_files(save, model, &state->vocabulary, &state->settings)
                                  : adapter_add_files(save, model, model->active, state->base_dir));
}

bool state_save(const char *dir, const TrainingState *state, char *error, size_t size)
{
    Save save;
    return save_begin(&save, dir, error, size) && save_end(&save, add_all(&save, state));
}

bool state_rehearse(const char *dir, const TrainingState *state, char *error, size_t size)
{
    Save save;
    return save_begin(&save, dir, error, size) && save_abort(&save, add_all(&save, state));
}

// What a state says besides its tensors, and besides what build_model and build_adapter read. Texts are the tree's.
static bool parse_state(const Json *json, TrainingState *state, int64_t *optimizer_step, char *error, size_t size)
{
    const int64_t most = (int64_t)MOST_STEPS;
    const Schedule *rate = &state->options.schedule;
    const Json *hash = json_get(json, "text_hash");
    int64_t version;
    state->options = train_options_default();
    state->options.data = NULL;
    if (!json_get_int(json, "version", 0, most, &version, error, size)) return false;
    if (version != STATE_VERSION)
        return fail(error, size, "\"version\" is %d, and only %d is known here; start a new run with --init", (int)version,
                    STATE_VERSION);
    if (!json_get_int(json, "step", 0, most, &state->step, error, size)
        || !json_get_int(json, "optimizer_step", 0, most, optimizer_step, error, size)
        || !options_get(json, train_table.rows, &state->options, error, size)) return false;
    if (rate->min_lr > rate->learning_rate) return fail(error, size, "\"min_lr\" is above \"learning_rate\"");
    if (hash == NULL || !hash->is_uint) return fail(error, size, "\"text_hash\" is missing or not a whole number");
    state->text_hash = hash->uint_value;
    return true;
}

// Takes over what PEFT's configuration does not say: what was asked for, and that only parts of c_attn are adapted.
static bool take_over(const Config *c, AdapterPlan *plan, const LoraConfig *lora, char *error, size_t size)
{
    unsigned parts = lora->targets >> LINEARS, count = (parts & 1) + (parts >> 1 & 1) + (parts >> 2 & 1);
    for (int i = 0; i < c->n_layer && count > 0; i++)
        if ((unsigned)plan->layers[i * LINEARS + C_ATTN].r % count != 0)
            return fail(error, size, "\"lora_targets\" are %u parts of c_attn, but its rank %d cannot be shared among them",
                        count, plan->layers[i * LINEARS + C_ATTN].r);
    if (plan->config.dropout != 0)
        return fail(error, size, "\"lora_dropout\" is %g; this engine trains adapters without", plan->config.dropout);
    plan->config.r = lora->r;
    plan->config.alpha = lora->alpha;
    plan->config.targets = lora->targets;
    plan->config.freeze_A = lora->freeze_A;
    plan->config.base_type = lora->base_type;
    return true;
}

// Builds the model of a state, as far as it can be before the tensors are read; *slots lists these and is matched with the file.
// First where everything trains.
static bool build_model(const Safetensors *file, const Json *json, bool moments, TrainingState *state, Slots *slots,
                        char *error, size_t size)
{
    char why[512];
    Config config;
    if (state->options.lora.base_type != BASE_FLOAT)
        return fail(error, size, "%s: \"base_type\" is %s, but all of the model trains, and codes cannot", file->path,
                    base_type_names[state->options.lora.base_type]);
    if (!model_parse_config(json_get(json, "config"), &config, NULL, why, sizeof why))
        return fail(error, size, "%s: %s", file->path, why);
    slots_list_base(slots, &config, BASE_FLOAT);
    if (moments) slots_list_moments(slots);
    if (!slots_match(file, slots, false, error, size) || !memory_holds(3 * weight_bytes(&config), error, size) // and two moments
        || (state->model = transformer_new(config, 0, error, size)) == NULL) return false;
    slots_point_at_base(slots, state->model);
    return true;
}

// What a state says about its adapter besides the options and PEFT's configuration. The strings are the tree's.
typedef struct AdapterState { const char *name, *base_dir, *fingerprint; } AdapterState;

static bool parse_adapter(const Json *json, AdapterState *adapter, LoraConfig *lora, char *error, size_t size)
{
    return json_get_string(json, "adapter_name", &adapter->name, error, size)
        && json_get_string(json, "base_dir", &adapter->base_dir, error, size)
        && json_get_string(json, FINGERPRINT, &adapter->fingerprint, error, size)
        && json_get_bool(json, "freeze_A", &lora->freeze_A, error, size)
        && (lora->r > 0 || fail(error, size, "\"lora_r\" is 0, but there is an adapter"));
}

// The same where an adapter trains: its base is loaded, whole, from base_dir, or if that is NULL from where it was.
static bool build_adapter(const Safetensors *file, const Json *json, const char *base_dir, bool moments, TrainingState *state,
                          Slots *slots, char *error, size_t size)
{
    char why[512];
    AdapterState adapter;
    AdapterPlan plan = { 0 };
    if (!parse_adapter(json, &adapter, &state->options.lora, why, sizeof why))
        return fail(error, size, "%s: %s", file->path, why);
    state->base_dir = copy_text(base_dir ? base_dir : adapter.base_dir);
    Transformer *model = state->model = model_load(state->base_dir, NULL, error, size);
    if (model == NULL
        || !fingerprint_fits(model, adapter.fingerprint, file->path, "the base must be the one it was", error, size)
        || !model_hold(model, state->options.lora.base_type, state->base_dir, error, size))
        return false;
    bool good = (peft_parse_config(json_get(json, "adapter"), &model->config, &plan, why, sizeof why)
                 && take_over(&model->config, &plan, &state->options.lora, why, sizeof why))
             || fail(error, size, "%s: %s", file->path, why);
    if (good) {
        slots_list_adapter(slots, &model->config, &plan);
        if (moments) slots_list_moments(slots);
        transformer_train_base(model, false);
        good = slots_match(file, slots, false, error, size)
            && transformer_add_layers(model, adapter.name, plan.config, plan.layers, 0, error, size) != NULL;
    }
    if (good) slots_point_at_adapter(slots, model->active, &model->config);
    free(plan.layers);
    return good;
}

bool state_load(const char *dir, const char *base_dir, TrainingState *state, char *error, size_t size)
{
    char why[512];
    Safetensors *file;
    *state = (TrainingState){ 0 };
    if (!slots_open(dir, STATE_FILE, &file, error, size)) return false;
    const char *text = safetensors_metadata(file, STATE);
    Json *json = text == NULL ? NULL : json_parse(text, strlen(text), why, sizeof why);
    Slots slots = { 0 };
    int64_t optimizer_step = 0;
    bool good = json != NULL || fail(error, size, "%s is no training state: %s", file->path,
                                     text == NULL ? "its metadata lacks " STATE : why);
    for (size_t e = 0; e < file->count && good; e++)
        if (file->entries[e].dtype != REAL_DTYPE)
            good = fail(error, size,
                        "%s holds %s, but this build computes in %s; go on with the build that wrote it (make REAL=%s)",
                        file->path, safetensors_dtype_name(file->entries[e].dtype), safetensors_dtype_name(REAL_DTYPE),
                        REAL_DTYPE == SAFETENSORS_F64 ? "float" : "double");
    if (good && !parse_state(json, state, &optimizer_step, why, sizeof why))
        good = fail(error, size, "%s: %s", file->path, why);
    if (good) state->options.data = state->data = copy_text(state->options.data);
    if (good && json_get(json, "adapter") == NULL) {
        state->settings = settings_of(json_get(json, "config"), json_get(json, "generation_config"));
        good = build_model(file, json, optimizer_step > 0, state, &slots, error, size);
    }
    else if (good)
        good = build_adapter(file, json, base_dir, optimizer_step > 0, state, &slots, error, size);
    const Json *tokenizer = json_get(json, "tokenizer");
    if (good && tokenizer != NULL
        && !vocabulary_parse(tokenizer, state->model->config.vocab_size, &state->vocabulary, why, sizeof why))
        good = fail(error, size, "%s: the vocabulary: %s", file->path, why);
    if (good) {
        Config *config = &state->model->config;
        config->dropout = state->options.config.dropout;
        state->options.config = *config;
        state->optimizer = adamw_new(state->model->parameters, state->model->parameter_count, state->options.adamw);
        state->optimizer->step = optimizer_step;
        slots_point_at_moments(&slots, state->optimizer, true);
        good = slots_read(file, &slots, error, size);
    }
    free(slots.list);
    json_free(json);
    safetensors_close(file);
    if (!good) state_free(state);
    return good;
}

// The last validation loss in DIR/log.csv that is not after `step`; NAN: there is none.
static double last_loss(const char *dir, int64_t step)
{
    char path[FILE_PATH], why[512], *log;
    size_t n;
    double loss = (double)NAN;
    if (!file_path(path, dir, "log.csv", why, sizeof why) || !file_read(path, (size_t)1 << 30, &log, &n, why, sizeof why))
        return loss;
    for (const char *row = log; (row = strchr(row, '\n')) != NULL && *++row != '\0';) {
        const char *val = strchr(row, ',');
        val = val == NULL ? NULL : strchr(val + 1, ',');
        if (val != NULL && val[1] != ',' && strtoll(row, NULL, 10) <= step) loss = strtod(val + 1, NULL);
    }
    free(log);
    return loss;
}

bool state_describe(const char *dir, char *text, size_t size, bool *has_state)
{
    char path[FILE_PATH], why[512], when[40] = "";
    struct stat status;
    Safetensors *file;
    int64_t step;
    *has_state = false;
    bool model = file_path(path, dir, "model.safetensors", why, sizeof why) && stat(path, &status) == 0;
    bool adapter = !model && file_path(path, dir, "adapter_model.safetensors", why, sizeof why) && stat(path, &status) == 0;
    if (!model && !adapter) return false;
    struct tm time;
    if (localtime_r(&status.st_mtime, &time) != NULL) strftime(when, sizeof when, "%Y-%m-%d %H:%M", &time);
    snprintf(text, size, "%s of %s", model ? "a model" : "an adapter", when);
    if (!slots_open(dir, STATE_FILE, &file, why, sizeof why)) return true;
    const char *state = safetensors_metadata(file, STATE);
    Json *json = state == NULL ? NULL : json_parse(state, strlen(state), why, sizeof why);
    *has_state = json_get_int(json, "step", 0, (int64_t)MOST_STEPS, &step, why, sizeof why);
    if (*has_state) {
        double loss = last_loss(dir, step);
        int length = snprintf(text, size, "%s of %" PRId64 " steps", model ? "a model" : "an adapter", step);
        if (!isnan(loss)) length += snprintf(text + length, size - (size_t)length, ", validation loss %.4f", loss);
        snprintf(text + length, size - (size_t)length, ", of %s", when);
    }
    json_free(json);
    safetensors_close(file);
    return true;
}

void state_free(TrainingState *state)
{
    adamw_free(state->optimizer); // first: it looks at the model's tensors
    transformer_free(state->model);
    vocabulary_free(&state->vocabulary);
    settings_free(&state->settings);
    free(state->data);
    free(state->base_dir);
    *state = (TrainingState){ 0 };
}
