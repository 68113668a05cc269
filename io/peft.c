// peft.c - see peft.h. Writing first, then PEFT's rules for reading.

#include "peft.h"

#include <stdlib.h>

static const char for_config[] = "an adapter's configuration";

static void module_name(char name[80], int index) // "transformer.h.2.mlp.c_fc" for [block][kind]
{
    snprintf(name, 80, "transformer.h.%d.%s", index / LINEARS, linear_names[index % LINEARS]);
}

static double scale_of(double alpha, int r, bool rank_stabilized)
{
    return alpha / (rank_stabilized ? sqrt((double)r) : (double)r);
}

// The reverse: the alpha that gives this scale, to the bit if there is one.
static double alpha_of(double scale, int r, bool rank_stabilized)
{
    double product = scale * (rank_stabilized ? sqrt((double)r) : (double)r);
    double near[] = { product, nextafter(product, 0), nextafter(product, 2 * product) }; // rounding may have led one step aside
    for (int i = 0; i < 3; i++)
        if (scale_of(near[i], r, rank_stabilized) == scale) return near[i];
    return product;
}

// Whether this alpha gives the layer its scale, as far as `real` can tell.
static bool has_scale(const LoraLayer *layer, const LoraConfig *l)
{
    return (real)scale_of(l->alpha, layer->r, l->rank_stabilized) == (real)layer->scale;
}

AdapterPlan peft_plan(const Adapter *adapter, const Config *model)
{
    int count = model->n_layer * LINEARS;
    AdapterPlan plan = { .config = adapter->config, .layers = allocate((size_t)count, sizeof *plan.layers, for_config) };
    const LoraLayer *general = NULL; // a layer of the adapter's own rank and alpha, or the next best
    for (int i = 0; i < count; i++) {
        const Lora *lora = &adapter->lora[i];
        LoraLayer *layer = &plan.layers[i];
        if (lora->A == NULL) continue;
        *layer = (LoraLayer){ last_dim(lora->A), (double)lora->scale };
        bool fits = layer->r == adapter->config.r && has_scale(layer, &adapter->config);
        if (general == NULL || fits) general = layer;
    }
    if (general == NULL) return plan;
    double times = (double)general->r / (plan.config.r > 0 ? plan.config.r : 1); // where q and v share an A, twice
    plan.config.r = general->r;
    if (!has_scale(general, &plan.config)) plan.config.alpha *= plan.config.rank_stabilized ? sqrt(times) : times;
    if (!has_scale(general, &plan.config))
        plan.config.alpha = alpha_of(general->scale, general->r, plan.config.rank_stabilized);
    return plan;
}

// The kinds of layers of a block that have an adapter, one bit each.
static unsigned kinds_of(const AdapterPlan *plan, int block)
{
    unsigned kinds = 0;
    for (int k = 0; k < LINEARS; k++) kinds |= plan->layers[block * LINEARS + k].r > 0 ? 1u << k : 0;
    return kinds;
}

// Which layers have adapters. If `even`, all blocks that have any have them on the same kinds of layers: then kinds and blocks
// say it all, else full names must.
typedef struct Coverage { unsigned kinds; int blocks; bool even; } Coverage;

static Coverage coverage_of(const AdapterPlan *plan, const Config *c)
{
    Coverage coverage = { .even = true };
    for (int i = 0; i < c->n_layer; i++) coverage.kinds |= kinds_of(plan, i);
    for (int i = 0; i < c->n_layer; i++) {
        unsigned here = kinds_of(plan, i);
        coverage.blocks += here != 0;
        coverage.even = coverage.even && (here == 0 || here == coverage.kinds);
    }
    return coverage;
}

static void put_blocks(FILE *out, const Config *c, const AdapterPlan *plan, Coverage coverage)
{
    const char *comma = "[";
    if (!coverage.even || coverage.blocks == c->n_layer) { fputs("null", out); return; }
    for (int i = 0; i < c->n_layer; i++)
        if (kinds_of(plan, i)) fprintf(out, "%s%d", comma, i), comma = ", ";
    fputs("]", out);
}

static void put_targets(FILE *out, const Config *c, const AdapterPlan *plan, Coverage coverage)
{
    char name[80];
    const char *comma = "[";
    for (int k = 0; k < LINEARS && coverage.even; k++)
        if (coverage.kinds & 1u << k) fprintf(out, "%s\"%s\"", comma, lora_targets_text(1u << k)), comma = ", ";
    for (int i = 0; i < c->n_layer * LINEARS && !coverage.even; i++) {
        if (plan->layers[i].r == 0) continue;
        module_name(name, i);
        fprintf(out, "%s\n    \"%s\"", comma, name);
        comma = ",";
    }
    fputs("]", out);
}

// What differs from the general rank, or alpha: {"h.0.mlp.c_fc": 4}
static void put_exceptions(FILE *out, const Config *c, const AdapterPlan *plan, bool ranks)
{
    const char *comma = "{";
    for (int i = 0; i < c->n_layer * LINEARS; i++) {
        const LoraLayer *layer = &plan->layers[i];
        if (layer->r == 0 || (ranks ? layer->r == plan->config.r : has_scale(layer, &plan->config))) continue;
        fprintf(out, "%s\n    \"h.%d.%s\": ", comma, i / LINEARS, linear_names[i % LINEARS]);
        json_put_number(out, ranks ? layer->r : alpha_of(layer->scale, layer->r, plan->config.rank_stabilized));
        comma = ",";
    }
    fputs(comma[0] == '{' ? "{}" : "}", out);
}

void peft_put_config(FILE *out, const Config *model, const AdapterPlan *plan, const char *base_dir)
{
    Coverage coverage = coverage_of(plan, model);
    fputs("{\n  \"alpha_pattern\": ", out); // keys in the order of the alphabet
    put_exceptions(out, model, plan, false);
    fputs(",\n  \"auto_mapping\": null,\n  \"base_model_name_or_path\": ", out);
    json_put_text(out, base_dir);
    fputs(",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": true,\n  \"inference_mode\": true,\n", out);
    fputs("  \"init_lora_weights\": true,\n  \"layers_pattern\": null,\n  \"layers_to_transform\": ", out);
    put_blocks(out, model, plan, coverage);
    fputs(",\n  \"lora_alpha\": ", out);
    json_put_number(out, plan->config.alpha);
    fputs(",\n  \"lora_dropout\": ", out);
    json_put_number(out, plan->config.dropout);
    fprintf(out, ",\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": %d,\n", plan->config.r);
    fputs("  \"rank_pattern\": ", out);
    put_exceptions(out, model, plan, true);
    fputs(",\n  \"revision\": null,\n  \"target_modules\": ", out);
    put_targets(out, model, plan, coverage);
    fprintf(out, ",\n  \"task_type\": \"CAUSAL_LM\",\n  \"use_dora\": false,\n  \"use_rslora\": %s\n}\n",
            plan->config.rank_stabilized ? "true" : "false");
}

// ------------------------------------------------------------------------------------------------------------------- reading

// PEFT's regular expressions, which are Python's, as far as they are simple: characters, . [a-z] [^a-z] \\. \\d \\w ^ $ (...)
// (?:...) a|b a* a+ a?. Where others try one way after another, a Matcher goes all ways at once: each function below takes the
// set of places in the text at which its part of the pattern may begin, and returns those at which it may end. So the time has
// a bound, whatever the pattern says; what is repeated is read again until no place is new.
typedef uint64_t Places; // bit i: before text[i]; names are shorter than 64

typedef struct Matcher {
    const char *at;          // in the pattern
    const char *text;
    int  length, depth;      // of the text; parentheses that are open
    bool bad;                // not one of these expressions
} Matcher;

enum { DEEPEST = 3, LONGEST_PATTERN = 256 };

static Places match_alternatives(Matcher *m, Places from);

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// One character of the pattern, or an escape, at m->at, which moves behind it: whether c is one of those that it stands for.
static bool stands_for(Matcher *m, char c)
{
    char p = *m->at++;
    if (p != '\\') return p == c;
    p = *m->at;
    if (p != '\0') m->at++;
    if (p == 'd') return is_digit(c);
    if (p == 'w') return is_word(c);
    if (p == '\0' || is_word(p)) m->bad = true;
    return p == c;
}

// The same for a set, behind its '['.
static bool in_set(Matcher *m, char c)
{
    bool negated = *m->at == '^', in = false;
    if (negated) m->at++;
    if (*m->at == ']') m->bad = true; // as a first character it would be one of the set
    while (*m->at != ']' && !m->bad) {
        char first = *m->at;
        m->bad = first == '\0' || first == '[';
        if (m->bad) break; // nothing is read behind the pattern's end
        in |= stands_for(m, c);
        if (*m->at != '-' || m->at[1] == ']') continue;
        char last = m->at[1]; // a range of single characters
        m->bad |= last == '\0' || first == '\\' || last == '\\' || last < first;
        in |= c >= first && c <= last;
        if (!m->bad) m->at += 2;
    }
    if (!m->bad) m->at++;
    return in != negated;
}

static Places match_atom(Matcher *m, Places from)
{
    Places to = 0;
    const char *start = m->at;
    switch (*start) {
    case '(':
        m->at += m->at[1] == '?' && m->at[2] == ':' ? 3 : 1;
        if (++m->depth > DEEPEST) m->bad = true;
        else to = match_alternatives(m, from);
        m->depth--;
        if (*m->at == ')') m->at++;
        else m->bad = true;
        return to;
    case '^': m->at++; return from & 1;
    case '$': m->at++; return from & (Places)1 << m->length;
    case '*': case '+': case '?': case '{': case '}': case ']': m->bad = true; return 0;
    default: break;
    }
    for (int i = 0; i <= m->length && !m->bad; i++) { // at the end of the text there is no character, but the pattern is read
        char c = m->text[i];
        m->at = start + (*start == '[');
        bool fits = *start == '[' ? in_set(m, c) : *start == '.' ? m->at++, true : stands_for(m, c);
        if (fits && i < m->length) to |= (from >> i & 1) << (i + 1);
    }
    return to;
}

static Places match_repetition(Matcher *m, Places from)
{
    const char *start = m->at;
    Places once = match_atom(m, from), all = from;
    char how = *m->at;
    if (m->bad || how == '\0' || !strchr("*+?", how)) return once;
    const char *end = m->at + 1;
    if (*start == '^' || *start == '$') m->bad = true;
    if (how == '?') all |= once;
    else {
        for (Places next = once, new = once; new != 0 && !m->bad; next = match_atom(m, new)) {
            new = next & ~all;
            all |= new;
            m->at = start;
        }
        if (how == '+') {
            m->at = start;
            all = match_atom(m, all);
        }
    }
    m->at = end + (*end == '?'); // a*? tries other ways first, but goes the same ways
    if (*m->at != '\0' && strchr("*+?", *m->at)) m->bad = true;
    return all;
}

static Places match_alternatives(Matcher *m, Places from)
{
    Places to = 0;
    for (;; m->at++) {
        Places here = from;
        while (*m->at != '\0' && *m->at != '|' && *m->at != ')' && !m->bad) here = match_repetition(m, here);
        to |= here;
        if (*m->at != '|' || m->bad) return to;
    }
}

bool peft_match(const char *pattern, bool suffix, const char *name, bool *matches, char *error, size_t size)
{
    Matcher m = { .at = pattern, .text = name, .length = (int)strlen(name) };
    Places from = 1;
    for (int i = 0; suffix && i < m.length; i++) from |= (Places)(name[i] == '.') << (i + 1);
    m.bad = m.length >= 64 || strlen(pattern) > LONGEST_PATTERN;
    for (const char *p = pattern; *p != '\0'; p++) m.bad |= (unsigned char)*p >= 128; // one character of several bytes
    Places to = m.bad ? 0 : match_alternatives(&m, from);
    *matches = to >> m.length & 1;
    if (!m.bad && *m.at == '\0') return true;
    return fail(error, size, "the regular expression %s is not one of the simple ones that are understood here; name the "
                "layers instead", json_quoted(pattern, strlen(pattern)).text);
}

static bool is_path_end(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return m < n && name[n - m - 1] == '.' && strcmp(name + n - m, end) == 0;
}

static bool block_chosen(const Json *blocks, int block)
{
    if (json_is_empty(blocks)) return true;
    if (blocks->type != JSON_ARRAY) return blocks->is_int && blocks->int_value == block;
    for (const Json *item = blocks->child; item != NULL; item = item->next)
        if (item->is_int && item->int_value == block) return true;
    return false;
}

// What PEFT demands of the keys that choose layers.
static bool check_choice(const Json *json, char *error, size_t size)
{
    const Json *targets = json_get(json, "target_modules"), *blocks = json_get(json, "layers_to_transform");
    const Json *where = json_get(json, "layers_pattern");
    bool list = json_given(json, "target_modules") && targets->type == JSON_ARRAY, good = true;
    if (json_given(json, "target_modules") && (json_is_empty(targets) || (!list && targets->type != JSON_STRING)))
        return fail(error, size, "\"target_modules\" is neither a list of names nor a string, or it is empty");
    for (const Json *item = list ? targets->child : NULL; item != NULL; item = item->next) good &= item->type == JSON_STRING;
    if (!good) return fail(error, size, "\"target_modules\" has something that is no name");
    if (!json_is_empty(where) && !json_given(json, "layers_to_transform"))
        return fail(error, size, "\"layers_pattern\" is given without \"layers_to_transform\"");
    if (!json_is_empty(where) && !json_is_string(where, "h")
        && !(where->type == JSON_ARRAY && where->count == 1 && json_is_string(where->child, "h")))
        return fail(error, size, "\"layers_pattern\" is not \"h\", as the blocks of this model are called");
    if (!json_given(json, "layers_to_transform")) return true;
    if (targets != NULL && targets->type == JSON_STRING)
        return fail(error, size, "\"layers_to_transform\" is given, and \"target_modules\" is a string; PEFT "
                    "takes one or the other");
    for (const Json *item = blocks->child; item != NULL; item = item->next) good &= item->is_int;
    return (good && (blocks->is_int || blocks->type == JSON_ARRAY))
        || fail(error, size, "\"layers_to_transform\" is neither a number nor a list of numbers");
}

// Marks the layers that PEFT would give an adapter: chosen [n_layer][LINEARS].
static bool choose_layers(const Json *json, const Config *c, bool *chosen, char *error, size_t size)
{
    const Json *targets = json_get(json, "target_modules"), *blocks = json_get(json, "layers_to_transform");
    bool by_default = json_is_empty(targets), all = json_is_string(targets, "all-linear"), any = false;
    bool by_pattern = !by_default && !all && targets->type == JSON_STRING;
    if (!check_choice(json, error, size)) return false;
    for (int i = 0; i < c->n_layer * LINEARS; i++) {
        char name[80];
        module_name(name, i);
        bool here = block_chosen(blocks, i / LINEARS);
        chosen[i] = (by_default && i % LINEARS == C_ATTN && here) || all;
        if (by_pattern && !peft_match(targets->string, false, name, &chosen[i], error, size)) return false;
        for (const Json *item = by_default || all || by_pattern ? NULL : targets->child; item != NULL; item = item->next)
            chosen[i] |= strcmp(name, item->string) == 0 || (is_path_end(name, item->string) && here);
        any |= chosen[i];
    }
    return any || fail(error, size, "\"target_modules\" and \"layers_to_transform\" name no linear layer of this model's "
                       "%d blocks", c->n_layer);
}

// Gives each layer the value of the first pattern that its name matches: value[n_layer][LINEARS].
static bool apply_patterns(const Json *json, const char *key, const Config *c, double *value, char *error, size_t size)
{
    const Json *patterns = json_get(json, key);
    if (patterns == NULL) return true;
    if (patterns->type != JSON_OBJECT) return fail(error, size, "\"%s\" is not an object", key);
    bool *decided = allocate((size_t)c->n_layer * LINEARS, sizeof *decided, for_config), good = true;
    for (const Json *item = patterns->child; item != NULL && good; item = item->next) {
        good = item->type == JSON_NUMBER || fail(error, size, "a value of \"%s\" is not a number", key);
        for (int i = 0; i < c->n_layer * LINEARS && good; i++) {
            char name[80];
            bool matches;
            module_name(name, i);
            good = peft_match(item->key, true, name, &matches, error, size);
            if (!good || !matches || decided[i]) continue;
            decided[i] = true;
            value[i] = item->number;
        }
    }
    free(decided);
    return good;
}

// How A and B began is no matter of what they are now, except where the base was changed as well: then W - s A0 B0 is what the
// adapter belongs to, and PEFT, which finds A0 and B0 anew, puts it there.
static bool check_beginning(const Json *json, char *error, size_t size)
{
    static const char *const harmless[] = { "gaussian", "orthogonal", "eva", "mica" };
    const Json *how = json_get(json, "init_lora_weights");
    if (how == NULL || how->type == JSON_NULL || how->type == JSON_BOOL) return true;
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (json_is_string(how, harmless[i])) return true;
    if (how->type != JSON_STRING) return fail(error, size, "\"init_lora_weights\" is neither true, false nor a name");
    return fail(error, size, "\"init_lora_weights\" is %s: this adapter belongs to a base that its beginning has changed; "
                "convert it with PEFT: save_pretrained(DIR, path_initial_model_for_weight_conversion=FIRST), where FIRST is the "
                "adapter as it began, or merge it there",
                json_quoted(how->string, how->length).text);
}

// Keys whose values a check reads by itself: each is absent, or what the engine computes.
static bool check_keys(const Json *json, char *error, size_t size)
{
    static const char *const known[] = {
        // read here and below
        "peft_type", "task_type", "bias", "init_lora_weights", "r", "lora_alpha", "lora_dropout", "use_rslora",
        "target_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
        // of no effect on what a trained adapter computes, whatever they say
        "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "fan_in_fan_out",
        "inference_mode", "loftq_config", "lora_ga_config", "megatron_core", "peft_version", "qalora_group_size", "revision",
        "runtime_config", NULL
    };
    const Json *bias = json_get(json, "bias"), *task = json_get(json, "task_type");
    if (!json_is_string(json_get(json, "peft_type"), "LORA")) return fail(error, size, "\"peft_type\" is not \"LORA\"");
    if (bias != NULL && !json_is_string(bias, "none"))
        return fail(error, size, "\"bias\" is not \"none\"; adapters have no biases here");
    if (json_given(json, "task_type") && !json_is_string(task, "CAUSAL_LM") && !json_is_string(task, "FEATURE_EXTRACTION"))
        return fail(error, size, "\"task_type\" is not \"CAUSAL_LM\": the adapter belongs to a model with another end");
    return json_is_known(json, known, error, size) && check_beginning(json, error, size);
}

bool peft_parse_config(const Json *json, const Config *model, AdapterPlan *plan, char *error, size_t size)
{
    size_t count = (size_t)model->n_layer * LINEARS;
    LoraConfig *l = &plan->config;
    int64_t r = 8;
    *plan = (AdapterPlan){ .config.alpha = 8 };
    if (!check_keys(json, error, size)
        || (json_get(json, "r") && !json_get_int(json, "r", 1, PEFT_LARGEST_RANK, &r, error, size))
        || (json_get(json, "lora_alpha") && !json_get_number(json, "lora_alpha", &l->alpha, error, size))
        || (json_get(json, "lora_dropout") && !json_get_number(json, "lora_dropout", &l->dropout, error, size))
        || !json_optional_bool(json, "use_rslora", false, &l->rank_stabilized, error, size)) return false;
    if (!(l->dropout >= 0 && l->dropout <= 1)) return fail(error, size, "\"lora_dropout\" is %g", l->dropout);
    l->r = (int)r;

    bool *chosen = allocate(count, sizeof *chosen, for_config);
    double *ranks = allocate(count, sizeof *ranks, for_config), *alphas = allocate(count, sizeof *alphas, for_config);
    for (size_t i = 0; i < count; i++) ranks[i] = (double)r, alphas[i] = l->alpha;
    bool good = choose_layers(json, model, chosen, error, size)
             && apply_patterns(json, "rank_pattern", model, ranks, error, size)
             && apply_patterns(json, "alpha_pattern", model, alphas, error, size);
    l->first_block = model->n_layer;
    plan->layers = allocate(count, sizeof *plan->layers, for_config);
    for (int i = 0; i < (int)count && good; i++) {
        if (!chosen[i]) continue;
        good = (ranks[i] >= 1 && ranks[i] <= PEFT_LARGEST_RANK && ranks[i] == floor(ranks[i]))
            || fail(error, size, "\"rank_pattern\" has %g; a rank is a whole number from 1 to %d", ranks[i], PEFT_LARGEST_RANK);
        if (!good) break;
        plan->layers[i] = (LoraLayer){ (int)ranks[i], scale_of(alphas[i], (int)ranks[i], l->rank_stabilized) };
        l->targets |= 1u << i % LINEARS;
        if (i / LINEARS < l->first_block) l->first_block = i / LINEARS;
        l->last_block = i / LINEARS;
    }
    free(chosen);
    free(ranks);
    free(alphas);
    if (!good) free(plan->layers), plan->layers = NULL;
    return good;
}
