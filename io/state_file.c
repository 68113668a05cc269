// state_file.c - see state_file.h. Metadata of the file holds all but the tensors, as JSON.

#include "state_file.h"

#include "adapter_file.h"
#include "json.h"
#include "machine.h"
#include "peft.h"
#include "slots.h"

#include <inttypes.h>
#include <stdlib.h>

#define STATE      "meltwater_state"   // its key in metadata
#define STATE_FILE "training_state.safetensors"

enum { STATE_VERSION = 1 };

static char *copy_text(const char *text) // NULL stays NULL
{
    char *copy = text == NULL ? NULL : allocate(strlen(text) + 1, 1, "a training state");
    return copy == NULL ? NULL : strcpy(copy, text);
}

// Everything but the numbers in tensors, as one JSON object.
static void put_state(FILE *out, const TrainingState *state, const AdapterPlan *plan)
{
    const Transformer *model = state->model;
    const AdamW *o = state->optimizer;
    const struct { const char *key; double value; } numbers[] = {
        { "beta1", o->config.beta1 }, { "beta2", o->config.beta2 }, { "weight_decay", o->config.weight_decay },
        { "grad_clip", o->config.grad_clip }, { "dropout", model->config.dropout },
        { "learning_rate", state->schedule.learning_rate }, { "min_lr", state->schedule.min_lr },
    };
    fprintf(out, "{\"version\":%d,\"step\":%" PRId64 ",\"seed\":%" PRIu64 ",\"optimizer_step\":%" PRId64, STATE_VERSION,
            state->step, state->seed, (int64_t)o->step);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        fprintf(out, ",\"%s\":", numbers[i].key);
        json_put_number(out, numbers[i].value);
    }
    fprintf(out, ",\"warmup_iters\":%" PRId64 ",\"max_iters\":%" PRId64 ",\"eval_interval\":%" PRId64 ",\"batch_size\":%d",
            state->schedule.warmup_iters, state->schedule.max_iters, state->eval_interval, state->batch_size);
    fprintf(out, ",\"text_hash\":%" PRIu64 ",\"data\":", state->text_hash);
    json_put_text(out, state->data);
    if (state->vocabulary.size > 0) {
        fputs(",\"tokenizer\":", out);
        vocabulary_put(out, &state->vocabulary);
    }
    if (model->active == NULL) {
        fputs(",\"config\":", out);
        model_put_config(out, &model->config, &state->settings);
        if (state->settings.generation != NULL) fprintf(out, ",\"generation_config\":%s", state->settings.generation);
    } else {
        fputs(",\"adapter_name\":", out);
        json_put_text(out, model->active->name);
        const LoraConfig *l = &model->active->config;
        fprintf(out, ",\"lora_r\":%d,\"lora_alpha\":", l->r);
        json_put_number(out, l->alpha);
        fprintf(out, ",\"lora_targets\":\"%s\",\"freeze_A\":%s,\"" FINGERPRINT "\":\"%s\",\"base_dir\":",
                lora_targets_text(l->targets), l->freeze_A ? "true" : "false", fingerprint_of(model).text);
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
        slots_list_base(&slots, c);
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

bool state_save(const char *dir, const TrainingState *state, char *error, size_t size)
{
    Save save;
    const Transformer *model = state->model;
    return save_begin(&save, dir, error, size)
        && save_end(&save, save_state(&save, state) // first, for it is what --resume goes by
                           && (model->active == NULL ? model_add_files(&save, model, &state->vocabulary, &state->settings)
                                                     : adapter_add_files(&save, model, model->active, state->base_dir)));
}

static bool get_uint64(const Json *json, const char *key, uint64_t *value, char *error, size_t size)
{
    const Json *number = json_get(json, key);
    if (number == NULL || !number->is_uint) return fail(error, size, "\"%s\" is missing or not a whole number", key);
    *value = number->uint_value;
    return true;
}

// What a state says besides its tensors, and besides what build_model and build_adapter read.
static bool parse_state(const Json *json, TrainingState *state, AdamWConfig *adamw, int64_t *optimizer_step, double *dropout,
                        char *error, size_t size)
{
    Schedule *s = &state->schedule;
    int64_t version, batch_size;
    const char *data = NULL;
    const struct { const char *key; int64_t least, most, *value; } whole[] = {
        { "version", STATE_VERSION, STATE_VERSION, &version }, { "step", 0, INT64_MAX, &state->step },
        { "optimizer_step", 0, INT64_MAX, optimizer_step }, { "warmup_iters", 0, INT64_MAX, &s->warmup_iters },
        { "max_iters", 0, INT64_MAX, &s->max_iters }, { "eval_interval", 0, INT64_MAX, &state->eval_interval },
        { "batch_size", 0, MODEL_LARGEST_TABLE, &batch_size },
    };
    const struct { const char *key; double *value; } numbers[] = {
        { "beta1", &adamw->beta1 },         { "beta2", &adamw->beta2 }, { "weight_decay", &adamw->weight_decay },
        { "grad_clip", &adamw->grad_clip }, { "dropout", dropout },     { "learning_rate", &s->learning_rate },
        { "min_lr", &s->min_lr },
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!json_get_int(json, whole[i].key, whole[i].least, whole[i].most, whole[i].value, error, size)) return false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!json_get_number(json, numbers[i].key, numbers[i].value, error, size)) return false;
    if (!get_uint64(json, "seed", &state->seed, error, size) || !get_uint64(json, "text_hash", &state->text_hash, error, size)
        || (json_given(json, "data") && !json_get_string(json, "data", &data, error, size))) return false;
    if (!(*dropout >= 0 && *dropout < 1)) return fail(error, size, "\"dropout\" is %g", *dropout);
    state->batch_size = (int)batch_size;
    state->data = copy_text(data);
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
    return true;
}

// Builds the model of a state, as far as it can be before the tensors are read; *slots lists these and is matched with the file.
// First where everything trains.
static bool build_model(const Safetensors *file, const Json *json, bool moments, TrainingState *state, Slots *slots,
                        char *error, size_t size)
{
    char why[512];
    Config config;
    if (!model_parse_config(json_get(json, "config"), &config, why, sizeof why))
        return fail(error, size, "%s: %s", file->path, why);
    slots_list_base(slots, &config);
    if (moments) slots_list_moments(slots);
    if (!slots_match(file, slots, false, error, size) || !memory_holds(3 * weight_bytes(&config), error, size) // and two moments
        || (state->model = transformer_new(config, 0, error, size)) == NULL) return false;
    slots_point_at_base(slots, state->model);
    return true;
}

// What a state says about its adapter besides PEFT's configuration: `lora` is how it was asked for. The strings are the tree's.
typedef struct AdapterState { const char *name, *base_dir, *fingerprint; LoraConfig lora; } AdapterState;

static bool parse_adapter(const Json *json, AdapterState *adapter, char *error, size_t size)
{
    const char *targets, *bad;
    int64_t r;
    *adapter = (AdapterState){ 0 };
    LoraConfig *lora = &adapter->lora;
    if (!json_get_string(json, "adapter_name", &adapter->name, error, size)
        || !json_get_string(json, "base_dir", &adapter->base_dir, error, size)
        || !json_get_string(json, FINGERPRINT, &adapter->fingerprint, error, size)
        || !json_get_bool(json, "freeze_A", &lora->freeze_A, error, size)
        || !json_get_int(json, "lora_r", 0, PEFT_LARGEST_RANK, &r, error, size)
        || !json_get_number(json, "lora_alpha", &lora->alpha, error, size)
        || !json_get_string(json, "lora_targets", &targets, error, size)) return false;
    lora->r = (int)r;
    lora->targets = lora_targets(targets, &bad);
    return lora->targets != 0 || fail(error, size, "\"lora_targets\" names no layer");
}

// The same where an adapter trains: its base is loaded, whole, from base_dir, or if that is NULL from where it was.
static bool build_adapter(const Safetensors *file, const Json *json, const char *base_dir, bool moments, TrainingState *state,
                          Slots *slots, char *error, size_t size)
{
    char why[512];
    AdapterState adapter;
    AdapterPlan plan = { 0 };
    if (!parse_adapter(json, &adapter, why, sizeof why)) return fail(error, size, "%s: %s", file->path, why);
    state->base_dir = copy_text(base_dir ? base_dir : adapter.base_dir);
    Transformer *model = state->model = model_load(state->base_dir, NULL, error, size);
    if (model == NULL
        || !fingerprint_fits(model, adapter.fingerprint, file->path, "the base must be the one it was", error, size))
        return false;
    bool good = (peft_parse_config(json_get(json, "adapter"), &model->config, &plan, why, sizeof why)
                 && take_over(&model->config, &plan, &adapter.lora, why, sizeof why))
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
    AdamWConfig adamw = { 0 };
    int64_t optimizer_step = 0;
    double dropout = 0;
    bool good = json != NULL || fail(error, size, "%s is no training state: %s", file->path,
                                     text == NULL ? "its metadata lacks " STATE : why);
    for (size_t e = 0; e < file->count && good; e++)
        if (file->entries[e].dtype != REAL_DTYPE)
            good = fail(error, size,
                        "%s holds %s, but this build computes in %s; go on with the build that wrote it (make REAL=%s)",
                        file->path, safetensors_dtype_name(file->entries[e].dtype), safetensors_dtype_name(REAL_DTYPE),
                        REAL_DTYPE == SAFETENSORS_F64 ? "float" : "double");
    if (good && !parse_state(json, state, &adamw, &optimizer_step, &dropout, why, sizeof why))
        good = fail(error, size, "%s: %s", file->path, why);
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
        state->model->config.dropout = dropout;
        state->optimizer = adamw_new(state->model->parameters, state->model->parameter_count, adamw);
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
