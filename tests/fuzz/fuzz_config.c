// fuzz_config.c - any JSON as config.json, as adapter_config.json for a small model, or as the text of a training state; the
// first byte says which. What is accepted must be possible, and come back equal when it is written and read again.

#include "io/state_file.c" // for parse_state

#include "fuzz.h"

static const Config small = { .vocab_size = 5, .block_size = 4, .n_layer = 3, .n_head = 1, .n_embd = 2 };

static Json *read_back(Document *d)
{
    char error[300];
    check(document_close(d, error, sizeof error), "%s", error);
    Json *json = json_parse(d->text, d->length, error, sizeof error);
    check(json != NULL, "%s: %s", d->text, error);
    free(d->text);
    return json;
}

static void model_config(const Json *json)
{
    char error[600] = "";
    Config config, again;
    BaseType type, type_again;
    if (!model_parse_config(json, &config, &type, error, sizeof error)) { check_message(error); return; }
    check(config.n_head > 0 && config.n_embd % config.n_head == 0 && config.n_layer > 0, "an impossible configuration");
    Document d;
    document_open(&d);
    Settings settings = settings_of(json, NULL); // all that it said besides comes along
    model_put_config(d.out, &config, type, &settings);
    settings_free(&settings);
    Json *copy = read_back(&d);
    check(model_parse_config(copy, &again, &type_again, error, sizeof error), "%s", error);
    check(config.vocab_size == again.vocab_size && config.block_size == again.block_size && config.n_layer == again.n_layer
          && config.n_head == again.n_head && config.n_embd == again.n_embd && type == type_again, "another configuration");
    json_free(copy);
}

static void adapter_config(const Json *json)
{
    char error[600] = "";
    AdapterPlan plan, again;
    if (!peft_parse_config(json, &small, &plan, error, sizeof error)) { check_message(error); return; }
    Document d;
    document_open(&d);
    peft_put_config(d.out, &small, &plan, "base");
    Json *copy = read_back(&d);
    check(peft_parse_config(copy, &small, &again, error, sizeof error), "%s", error);
    bool any = false;
    for (int i = 0; i < small.n_layer * LINEARS; i++) {
        check(plan.layers[i].r == again.layers[i].r, "layer %d: rank %d became %d", i, plan.layers[i].r, again.layers[i].r);
        check((real)plan.layers[i].scale == (real)again.layers[i].scale, "layer %d: scale %g became %g", i,
              plan.layers[i].scale, again.layers[i].scale);
        any |= plan.layers[i].r > 0;
    }
    check(any, "an adapter of nothing");
    json_free(copy);
    free(plan.layers);
    free(again.layers);
}

static void training_state(const Json *json)
{
    char error[600] = "";
    TrainingState state = { 0 };
    const TrainOptions *s = &state.options;
    int64_t optimizer_step;
    if (!parse_state(json, &state, &optimizer_step, error, sizeof error)) check_message(error);
    else check(state.step >= 0 && optimizer_step >= 0 && s->config.dropout >= 0 && s->config.dropout < 1 && s->batch_size > 0
               && s->eval_interval > 0 && s->schedule.min_lr <= s->schedule.learning_rate, "an impossible state");
    state_free(&state);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char error[300];
    if (n == 0) return 0;
    char *text = exact_copy(bytes + 1, n - 1);
    Json *json = json_parse(text, n - 1, error, sizeof error);
    if (json != NULL) (bytes[0] % 3 == 0 ? model_config : bytes[0] % 3 == 1 ? adapter_config : training_state)(json);
    json_free(json);
    free(text);
    return 0;
}
