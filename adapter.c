// adapter.c - what is in an adapter; folding it into a base; comparing two.
//
//     ./adapter info out/other                           for each layer: rank, scale, |A|, |B|, and how large s A B is beside W
//     ./adapter merge out/other --out out/merged         W + s A B in W's place: a model like any other, which needs no adapter
//     ./adapter diff out/other out/third                 do two adapters change the same layers, in the same direction?
//
// What an adapter does to a layer is one matrix, s A B, as large as W but of rank r: change() makes it, with the engine's own
// ops and no tape. info says so if every B is still 0: such an adapter has learned nothing. merge saves nothing if a number
// came out NaN or infinite; it keeps what else the base's files say, and rounds once to the type of the base's numbers. Without
// --model the base is the one that the adapter's file names, and another one is refused (but for --any-base).
//
// With --base-type the base is held in codes (quantise.h): info says what a W of those is, and merge adds to numbers, as always,
// and makes codes of the sums. A base that is stored in codes becomes numbers first, and without --base-type the sums stay so. So
// does one in floats whose adapter was trained on codes of it: the numbers are then the codes' values, the W of the training.
//
// Read next: lora.c (linear_merge), and demo.c, which puts it all together.

#include "io/adapter_file.h"
#include "io/model_file.h"
#include "io/options.h"
#include "io/progress.h"
#include "io/slots.h"
#include "io/state_file.h"
#include "training.h"

#include <stdlib.h>
#include <sys/stat.h>

// The change that layer k of block i gets: s A B, [I,O]; NULL if there is none. The caller drops it.
static Tensor *change(const Adapter *adapter, int block, int kind)
{
    const Lora *lora = &adapter->lora[block * LINEARS + kind];
    if (lora->A == NULL) return NULL;
    Tensor *product = op_matmul(NULL, lora->A, lora->B), *scaled = op_scale(NULL, product, lora->scale);
    tensor_drop(product);
    return scaled;
}

static double norm_of_weight(const Tensor *W)
{
    if (W->codes == NULL) return norm_of(W->data, W->size);
    real *numbers = allocate((size_t)W->size, sizeof *numbers, W->name);
    unpack(W->codes, 0, W->size, numbers, 1);
    double norm = norm_of(numbers, W->size);
    free(numbers);
    return norm;
}

// `stored`: what the base is in its files, whose values it has in codes and in floats.
static void info(Transformer *model, Adapter *adapter, const char *directory, BaseType stored)
{
    const Config *c = &model->config;
    int64_t base = transformer_base_size(model), size = adapter_size(adapter);
    double bytes = (double)size * sizeof(real), held = (double)base * sizeof(real);
    BaseType trained = adapter->config.base_type, type = model->base_type;
    held -= (double)(transformer_linear_bytes(model, BASE_FLOAT) - transformer_linear_bytes(model, type));
    printf("%s: %s numbers, %s, on a base of %s numbers, %s (%.2f %%)\n", directory, thousands(size),
           bytes_text(bytes), thousands(base), bytes_text(held), 100.0 * (double)size / (double)base);
    if (trained != BASE_FLOAT || type != BASE_FLOAT)
        printf("it was trained on a base of %s; here the base's linear layers are %s%s\n", base_type_names[trained], base_type_names[type],
               stored != BASE_FLOAT && trained != type ? ", the same values" : "");
    printf("\n");
    printf("%-20s%6s%11s%11s%11s%11s%10s\n", "layer", "r", "scale", "|A|", "|B|", "|s A B|", "/ |W|");
    bool untrained = true;
    for (int i = 0; i < c->n_layer; i++)
        for (int k = 0; k < LINEARS; k++) {
            const Lora *lora = &adapter->lora[i * LINEARS + k];
            Tensor *delta = change(adapter, i, k);
            if (delta == NULL) continue;
            const Tensor *W = model->blocks[i].linear[k].weight;
            double b = norm_of(lora->B->data, lora->B->size), d = norm_of(delta->data, delta->size),
                   w = norm_of_weight(W);
            untrained &= b == 0;
            char name[32];
            snprintf(name, sizeof name, "h.%d.%s", i, linear_names[k]);
            printf("%-20s%6d%11.4g%11.4g%11.4g%11.4g%9.2f%%\n", name, lora->A->shape[1], (double)lora->scale,
                   norm_of(lora->A->data, lora->A->size), b, d, 100 * d / w);
            tensor_drop(delta);
        }
    if (adapter->config.dropout > 0)
        printf("it was trained with lora_dropout %g, which use passes over; it cannot be trained here\n",
               adapter->config.dropout);
    if (untrained) printf("every B is exactly 0: this adapter has not been trained, and changes nothing\n");
    enum { SWITCHES = 1000 };
    double start = seconds_now();
    for (int i = 0; i < SWITCHES; i++) transformer_use_adapter(model, i % 2 ? adapter : NULL);
    printf("\none more adapter like this on the same base takes %s\nswitching takes %.0f nanoseconds\n",
           bytes_text(bytes), 1e9 * (seconds_now() - start) / SWITCHES);
}

static void diff(Transformer *model, const Adapter *a, const Adapter *b)
{
    printf("%-24s%12s%12s%12s%12s\n", "layer", "|first|", "|second|", "|a - b|", "cosine");
    for (int i = 0; i < model->config.n_layer; i++)
        for (int k = 0; k < LINEARS; k++) {
            Tensor *x = change(a, i, k), *y = change(b, i, k);
            if (x == NULL && y == NULL) continue;
            char name[32];
            snprintf(name, sizeof name, "h.%d.%s", i, linear_names[k]);
            int64_t size = x ? x->size : y->size;
            double xx = 0, yy = 0, xy = 0;
            for (int64_t j = 0; j < size; j++) {
                double u = x ? (double)x->data[j] : 0, v = y ? (double)y->data[j] : 0;
                xx += u * u, yy += v * v, xy += u * v;
            }
            double apart = xx + yy - 2 * xy;
            printf("%-24s%12.4g%12.4g%12.4g%12.4f\n", name, sqrt(xx), sqrt(yy), sqrt(apart > 0 ? apart : 0),
                   xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0);
            tensor_drop(x);
            tensor_drop(y);
        }
}

static int bytes_of(SafetensorsDtype dtype) { return dtype == SAFETENSORS_F64 ? 8 : dtype == SAFETENSORS_F32 ? 4 : 2; }

// What is asked for: a command, one directory or two, where the base is, and the type of a merged model's numbers (0: the
// base's).
typedef struct Task {
    const char *command, *first, *second, *base, *out, *dtype_name;
    SafetensorsDtype dtype;
    BaseType base_type;
    bool any_base, overwrite;
    uint64_t given; // the rows that were on the command line
    char named[4096];
} Task;

// float16 ends at 65504; what would be rounded to more becomes infinite.
static bool fits_float16(const Transformer *model)
{
    for (int i = 0; i < model->base_count; i++)
        for (int64_t j = 0; model->parameters[i]->data != NULL && j < model->parameters[i]->size; j++)
            if (fabs((double)model->parameters[i]->data[j]) >= 65520) return false;
    return true;
}

// What was saved: all of it as `type`, but for linear layers in codes; the base is in `dtype`, its
// linear layers in `stored`, and the adapter was trained on `trained`.
static void print_merged(const Transformer *model, const Task *task, BaseType stored, BaseType trained, SafetensorsDtype type,
                         SafetensorsDtype dtype)
{
    BaseType codes = model->base_type;
    int64_t linear = transformer_linear_bytes(model, BASE_FLOAT) / (int64_t)sizeof(real), numbers = transformer_base_size(model);
    double bytes = (double)(numbers - linear) * bytes_of(type);
    bytes += codes == BASE_FLOAT ? (double)linear * bytes_of(type) : (double)transformer_linear_bytes(model, codes);
    printf("%s with %s folded in: saved in %s, %s", task->base, task->first, task->out, bytes_text(bytes));
    if (codes == BASE_FLOAT) printf(" of ");
    else printf(": %s in its linear layers, the rest ", base_type_names[codes]);
    printf("%s; the base is in %s", model_dtype_name(type), model_dtype_name(dtype));
    if (stored != BASE_FLOAT) printf(", and its linear layers, rounded before, in %s", base_type_names[stored]);
    else if (trained != BASE_FLOAT) printf(", and its linear layers were rounded to %s first, as in training", base_type_names[trained]);
    printf("\n");
}

static void merge(Transformer *model, Vocabulary *vocabulary, const Task *task)
{
    char error[1024], where[256];
    const char *base = task->base, *out = task->out;
    Settings settings;
    SafetensorsDtype dtype;
    BaseType stored = model->base_type, trained = model->active->config.base_type;
    if (stored == BASE_FLOAT) transformer_hold_base(model, trained); // W is what the adapter was trained beside
    transformer_hold_base(model, BASE_FLOAT);
    transformer_merge(model);
    transformer_forget_original(model);
    transformer_hold_base(model, task->base_type); // float, if nothing was said
    if (find_bad_number(model, where, sizeof where))
        die(EXIT_FAILED, "merging %s into %s: %s; nothing was saved: the adapter, or the base, is broken", task->first, base,
            where);
    if (vocabulary->size == 0 && !vocabulary_load(base, model->config.vocab_size, vocabulary, error, sizeof error))
        fprintf(stderr, "adapter: %s; so %s gets no characters either\n", error, out);
    if (!settings_load(base, &settings, error, sizeof error) || !model_dtype(base, &dtype, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    settings.dtype = task->dtype ? task->dtype : dtype == 0 || dtype == SAFETENSORS_F64 ? REAL_DTYPE : dtype; // or as computed
    if (settings.dtype == SAFETENSORS_F16 && !fits_float16(model))
        die(EXIT_FAILED, "merging %s into %s: a number is too large for float16; nothing was saved; take --dtype bfloat16 or "
            "float32", task->first, base);
    if (!model_save_with(model, vocabulary, &settings, out, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    print_merged(model, task, stored, trained, settings.dtype, dtype);
    settings_free(&settings);
}

static bool same_place(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

static SafetensorsDtype dtype_of(const char *name)
{
    static const SafetensorsDtype types[] = { SAFETENSORS_F32, SAFETENSORS_F16, SAFETENSORS_BF16, SAFETENSORS_F64 };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(model_dtype_name(types[i]), name) == 0) return types[i];
    die(EXIT_USAGE, "--dtype %s: there are float32, float16, bfloat16 and float64", name);
}

static const Option adapter_options[] = {
    { "model", "BASE", NULL, "the base; without it, the one that the adapter names", TEXT_OPTION(Task, base) },
    { "any-base", NULL, NULL, "although the adapter was trained on another base", FLAG_OPTION(Task, any_base) },
    { "out", "OUT", NULL, "where the merged model goes", TEXT_OPTION(Task, out) },
    { "dtype", "TYPE", NULL, "of a merged model's numbers: float32, float16, bfloat16 or float64; without it, the base's",
      TEXT_OPTION(Task, dtype_name) },
    { "base-type", "float|nf4|int8", NULL, "info: hold the weights of the base's linear layers so (as its files do); merge: save "
      "those of the merged model so (float)", WORDS_OPTION(Task, base_type, base_type_read, base_type_write) },
    { "overwrite", NULL, NULL, "replace the model that is there", FLAG_OPTION(Task, overwrite) },
    { 0 }
};

static const OptionTable adapter_table = {
    .head = "adapter: looks into LoRA adapters, merges and compares them\n\n"
    "  ./adapter info  DIR [--model BASE]\n"
    "      ranks, sizes, |A|, |B| and the change they make to each weight\n"
    "  ./adapter merge DIR --out OUT [--model BASE] [--dtype T] [--base-type TYPE]\n"
    "      writes BASE with the adapter folded in: W + s A B\n"
    "  ./adapter diff  DIR OTHER [--model BASE]\n"
    "      how far the two adapters' changes are apart, layer by layer",
    .rows = adapter_options,
    .tail = "Example: ./adapter merge out/pirate --out out/merged", .takes_words = true
};

static bool is(const char *command, const char *name) { return strcmp(command, name) == 0; }

static void read_task(int argc, char **argv, Task *task)
{
    char error[1024], what[200];
    bool has_state;
    *task = (Task){ 0 };
    int word = options_read(argc, argv, &adapter_table, task, &task->given), words = argc - word - 1;
    if (argc == 1) options_help(&adapter_table), exit(output_status());
    const char *command = task->command = word < argc ? argv[word] : "";
    int wanted = is(command, "diff") ? 2 : 1;
    if (!is(command, "info") && !is(command, "merge") && !is(command, "diff"))
        die(EXIT_USAGE, "\"%s\": the first word is info, merge or diff; --help shows how", command);
    if (words != wanted)
        die(EXIT_USAGE, "%s takes %d adapter director%s, not %d; --help shows how", command, wanted, wanted == 1 ? "y" : "ies",
            words);
    if (is(command, "merge") != (task->out != NULL))
        die(EXIT_USAGE, task->out ? "%s writes nothing: leave out --out" : "%s needs --out DIR for the merged model", command);
    if (is(command, "diff") && option_given(adapter_options, task->given, "base-type"))
        die(EXIT_USAGE, "diff compares what two adapters add, whatever the base is held in: leave out --base-type");
    if (task->dtype_name != NULL) task->dtype = dtype_of(task->dtype_name);
    task->first = argv[word + 1];
    task->second = wanted == 2 ? argv[word + 2] : NULL;
    if (task->base == NULL) {
        if (!adapter_base(task->first, task->named, sizeof task->named, error, sizeof error)) die(EXIT_FAILED, "%s", error);
        task->base = task->named;
    }
    if (task->out == NULL) return;
    if (same_place(task->base, task->out))
        die(EXIT_USAGE, "--out %s is the base itself, which its adapters need as it is; choose another directory", task->out);
    if (directory_holds(task->out, "adapter_config.json") || directory_holds(task->out, "adapter_model.safetensors"))
        die(EXIT_USAGE, "--out %s holds an adapter; a whole model needs a directory of its own: choose another --out", task->out);
    if (!task->overwrite && state_describe(task->out, what, sizeof what, &has_state))
        die(EXIT_USAGE, "--out %s holds %s; choose another directory, or replace it with --overwrite", task->out, what);
}

static Adapter *load(Transformer *model, const char *directory, const char *name, bool any_base)
{
    char error[1024];
    Adapter *adapter = adapter_load(model, directory, name, any_base, error, sizeof error);
    if (adapter == NULL) die(EXIT_FAILED, "%s", error);
    return adapter;
}

int main(int argc, char **argv)
{
    program_begin("adapter");
    char error[1024];
    Vocabulary vocabulary = { 0 };
    Task task;
    read_task(argc, argv, &task);
    Transformer *model = model_load(task.base, &vocabulary, error, sizeof error);
    BaseType stored = model ? model->base_type : BASE_FLOAT;
    if (model == NULL || (option_given(adapter_options, task.given, "base-type") && !is(task.command, "merge")
                          && !model_hold(model, task.base_type, task.base, error, sizeof error))) die(EXIT_FAILED, "%s", error);
    Adapter *first = load(model, task.first, "first", task.any_base);
    if (task.second != NULL) diff(model, first, load(model, task.second, "second", task.any_base));
    else if (is(task.command, "info")) info(model, first, task.first, stored);
    else merge(model, &vocabulary, &task);
    vocabulary_free(&vocabulary);
    transformer_free(model);
    memory_release_pool();
    return output_status();
}
