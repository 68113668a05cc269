// report.c - see report.h. The probe goes over the same net twice: once with every leaf requiring a gradient, so that every op is
// recorded and shows its inputs; and once as the mode wants it, forward and backward, as the watcher of the tape.

#include "io/report.h"

#include "io/file.h"
#include "meter.h"
#include "predict.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct Report {
    FileWriter *file;
    FILE  *json;         // the data, in memory
    char  *text;
    size_t size;
    bool   begun;        // a member stands before the next
};

Report *report_begin(const char *path, char *error, size_t size)
{
    Report *report = calloc(1, sizeof *report);
    if (report == NULL) { fail(error, size, "%s: out of memory", path); return NULL; }
    report->file = file_write_begin(path, error, size);
    if (report->file != NULL) report->json = open_memstream(&report->text, &report->size);
    if (report->json == NULL) {
        if (report->file != NULL) fail(error, size, "%s: out of memory", path);
        report_abort(report);
        return NULL;
    }
    return report;
}

void report_abort(Report *report)
{
    if (report == NULL) return;
    if (report->json != NULL) fclose(report->json);
    free(report->text);
    file_write_abort(report->file);
    free(report);
}

FILE *report_member(Report *report, const char *key)
{
    fputs(report->begun ? ",\n" : "{", report->json);
    json_put_text(report->json, key);
    fputc(':', report->json);
    report->begun = true;
    return report->json;
}

bool report_file(Report *report, const char *key, const char *path, char *error, size_t size)
{
    char *bytes;
    size_t length;
    if (!file_read(path, 1 << 24, &bytes, &length, error, size)) return false;
    json_put_string(report_member(report, key), bytes, length);
    free(bytes);
    return true;
}

bool report_end(Report *report, char *error, size_t size)
{
    static const char place[] = "/*DATA*/"; // stands once in the page
    size_t at = 0, behind;
    while (at + sizeof place - 1 < report_page_size && memcmp(report_page + at, place, sizeof place - 1) != 0) at++;
    behind = at + sizeof place - 1;
    fputs(report->begun ? "}\n" : "{}\n", report->json);
    bool whole = fclose(report->json) == 0;
    report->json = NULL;
    if (!whole || behind >= report_page_size) {
        fail(error, size, "the report: %s", whole ? "its page has no place for the data" : "out of memory");
        report_abort(report);
        return false;
    }
    file_write(report->file, report_page, at);
    // A "</script>" inside a string would end the data: '<' stands in strings only, where it may be written as an escape.
    for (size_t from = 0, to; from < report->size; from = to) {
        to = from + strcspn(report->text + from, "<");
        file_write(report->file, report->text + from, to - from);
        if (to < report->size) file_write(report->file, "\\u003c", 6), to++;
    }
    file_write(report->file, report_page + behind, report_page_size - behind);
    bool written = file_write_commit(report->file, error, size);
    report->file = NULL;
    report_abort(report);
    return written;
}

// ------------------------------------------------------------------------------------------------------------------ watching

// A net with its leaves; `loss` builds the graph.
typedef struct Net {
    Tensor *(*loss)(void *context, Tape *tape);
    void    *context;
    Tensor **leaves;
    int      count;
    bool     values; // write the numbers themselves, and not the norms alone
} Net;

enum { SHOWN_ROWS = 6, SHOWN_COLUMNS = 8 };

static void put_norm(FILE *f, const real *numbers, int64_t count)
{
    if (numbers == NULL) fputs("null", f);
    else fprintf(f, "%.4g", norm_of(numbers, count));
}

// {"norm":..,"v":[[..],..]}: the upper left corner of [rows, columns]; null if there are no numbers.
static void put_values(FILE *f, const real *numbers, const Tensor *t)
{
    if (numbers == NULL) { fputs("null", f); return; }
    int columns = last_dim(t);
    int64_t count = rows_of(t);
    fputs("{\"norm\":", f);
    put_norm(f, numbers, t->size);
    fputs(",\"v\":[", f);
    for (int64_t i = 0; i < count && i < SHOWN_ROWS; i++) {
        for (int j = 0; j < columns && j < SHOWN_COLUMNS; j++)
            fprintf(f, "%s%.3g", j ? "," : i ? ",[" : "[", (double)numbers[i * columns + j]);
        fputc(']', f);
    }
    fputs("]}", f);
}

static void put_live(FILE *f, const int64_t live[MEMORY_KINDS], const int64_t base[MEMORY_KINDS])
{
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s%" PRId64, k ? "," : "[", live[k] - base[k]);
    fputc(']', f);
}

static int index_of(const Tensor *result) { return atoi(strrchr(result->name, '#') + 1); } // "gelu#17" is result 17

// Every op of the net, as if all trained: nodes[i] made result i. The tape holds them until it is freed.
static Tape *structure_of(const Net *net)
{
    bool *flags = allocate((size_t)net->count, sizeof *flags, "flags");
    for (int i = 0; i < net->count; i++) {
        flags[i] = net->leaves[i]->requires_grad;
        net->leaves[i]->requires_grad = true;
    }
    Tape *tape = tape_new();
    net->loss(net->context, tape);
    for (int i = 0; i < net->count; i++) net->leaves[i]->requires_grad = flags[i];
    free(flags);
    check(tape->count == tape->result_count, "report: %d of %d ops were recorded", tape->count, tape->result_count);
    return tape;
}

// The results' numbers, by the kernels themselves: most are no longer there when forward has ended. The caller frees each.
static real **values_of(const Tape *structure)
{
    real **list = allocate((size_t)structure->count, sizeof *list, "values");
    for (int i = 0; i < structure->count; i++) {
        Node n = structure->nodes[i];
        Tensor in[MAX_INPUTS], out = *n.out;
        for (int j = 0; j < MAX_INPUTS && n.in[j] != NULL; j++) {
            in[j] = *n.in[j];
            if (!is_leaf(&in[j])) in[j].data = list[index_of(&in[j])];
            n.in[j] = &in[j];
        }
        out.data = list[i] = allocate((size_t)out.size, sizeof *list[i], "values");
        n.out = &out;
        n.saved = NULL;
        n.op->forward(&n, WHOLE);
    }
    return list;
}

// A tensor's number in the page: the leaves first, then the results.
static int number_of(const Net *net, const Tensor *t)
{
    if (!is_leaf(t)) return net->count + index_of(t);
    for (int i = 0; i < net->count; i++)
        if (net->leaves[i] == t) return i;
    check(false, "report: %s is no leaf of the net", t->name);
    return -1;
}

static void put_shape(FILE *f, const Tensor *t)
{
    for (int i = 0; i < t->ndim; i++) fprintf(f, "%s%d", i ? "," : "[", t->shape[i]);
    fputc(']', f);
}

static void put_tensors(FILE *f, const Net *net, const Tape *structure, real **results)
{
    fputs("\"tensors\":[", f);
    for (int i = 0; i < net->count + structure->count; i++) {
        const Tensor *t = i < net->count ? net->leaves[i] : structure->nodes[i - net->count].out;
        fprintf(f, "%s{\"name\":\"%s\",\"shape\":", i ? ",\n" : "", t->name);
        put_shape(f, t);
        if (i < net->count) fprintf(f, ",\"leaf\":\"%s\",\"trains\":%s", memory_kind_names[t->kind], t->requires_grad ? "true" : "false");
        if (net->values) fputs(",\"value\":", f);
        if (net->values) put_values(f, i < net->count ? t->data : results[i - net->count], t);
        fputc('}', f);
    }
    fputs("],\n", f);
}

static void put_inputs(FILE *f, const Net *net, const Node *n)
{
    fprintf(f, "{\"op\":\"%s\",\"in\":", n->op->name);
    for (int j = 0; j < MAX_INPUTS && n->in[j] != NULL; j++) fprintf(f, "%s%d", j ? "," : "[", number_of(net, n->in[j]));
    fputc(']', f);
}

// The watcher of one step.
typedef struct Probe {
    FILE    *out;
    Meter    meter;                 // counts, and drops the gradients that its cut names
    Watch   *count;                 // what it does when it is told of an event
    int64_t  base[MEMORY_KINDS];    // bytes that are not the net's
    int64_t (*live)[MEMORY_KINDS];  // before each op of forward, and after the last
    int      ops, room;             // how many have run; and of the list above, without its end
    bool     begun, open;           // of backward: a node was written; its list is not yet closed
    int      node;                  // the node at hand
} Probe;

static void close_node(Probe *p)
{
    if (!p->open) return;
    fputs("],\"live\":", p->out);
    put_live(p->out, ledger.live, p->base);
    fputc('}', p->out);
    p->open = false;
}

static void open_node(Probe *p, const Node *n)
{
    fprintf(p->out, "%s{\"op\":%d,\"dy\":", p->begun ? ",\n" : "", index_of(n->out));
    put_values(p->out, n->out->grad, n->out);
    fputs(",\"did\":[", p->out);
    p->begun = p->open = true;
    p->node = index_of(n->out);
}

static void before_gradient(Probe *p, const Node *n, int input, bool runs)
{
    if (p->open && index_of(n->out) == p->node) fputc(',', p->out);
    else {
        close_node(p);
        open_node(p, n);
    }
    fprintf(p->out, "{\"in\":%d,\"cut\":%s,\"flops\":%" PRId64, input, runs ? "false" : "true", runs ? flops_of(n, input) : 0);
    if (!runs) fputc('}', p->out);
}

static void after_gradient(Probe *p, const Tensor *into)
{
    fputs(",\"norm\":", p->out);
    put_norm(p->out, into->grad, into->size);
    fputc('}', p->out);
}

static bool probe_watch(void *watcher, const Tape *tape, const Node *n, int input, Event event)
{
    Probe *p = watcher;
    bool runs = p->count(&p->meter, tape, n, input, event);
    if (event == BEFORE && input == FORWARD) {
        check(p->ops < p->room, "report: the net has %d ops in one run and more in another", p->room);
        memcpy(p->live[p->ops++], ledger.live, sizeof ledger.live);
    }
    if (event == BEFORE && input != FORWARD) before_gradient(p, n, input, runs);
    if (event == AFTER && input != FORWARD) after_gradient(p, n->in[input]);
    return runs;
}

static void probe_begin(Probe *p, Tape *tape)
{
    p->live = allocate((size_t)p->room + 1, sizeof *p->live, "live bytes");
    meter_watch(&p->meter, tape);
    p->count = tape->watch;
    tape->watch = probe_watch;
    tape->watcher = p;
}

// What the engine says to backward(loss) where nothing trains: it stops the program, so a child asks.
static void put_refusal(FILE *f, Tape *tape, Tensor *loss)
{
    char said[512] = "";
    int ends[2];
    fflush(stdout);
    check(pipe(ends) == 0, "report: no pipe");
    pid_t child = fork();
    check(child >= 0, "report: no child process");
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        backward(tape, loss);
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t got; length < sizeof said - 1 && (got = read(ends[0], said + length, sizeof said - 1 - length)) > 0;)
        length += (size_t)got;
    close(ends[0]);
    waitpid(child, NULL, 0);
    const char *sentence = strstr(said, "backward(");
    check(sentence != NULL, "report: backward was not refused, but said: %s", said);
    said[strcspn(said, "\n")] = '\0';
    json_put_text(f, sentence);
}

static const Node *node_of(const Tape *tape, const Tensor *result) // NULL: not recorded
{
    for (int i = 0; i < tape->count; i++)
        if (tape->nodes[i].out == result) return &tape->nodes[i];
    return NULL;
}

// Op i of forward: n as it is in the structure, and what became of it on the tape.
static void put_op(FILE *f, const Net *net, const Node *n, const Tape *tape, int i)
{
    const Node *recorded = node_of(tape, tape->results[i]);
    put_inputs(f, net, n);
    fprintf(f, ",\"recorded\":%s,\"flops\":%" PRId64 ",\"kept\":[", recorded ? "true" : "false", flops_of(n, FORWARD));
    bool first = true;
    for (int j = 0; j < MAX_INPUTS && recorded != NULL; j++)
        if (recorded->kept & KEEP(j)) fprintf(f, "%s%d", first ? "" : ",", number_of(net, n->in[j])), first = false;
    fputs("],\"needs\":[", f); // which inputs require a gradient
    for (int j = 0; j < MAX_INPUTS && n->in[j] != NULL; j++) {
        const Tensor *in = is_leaf(n->in[j]) ? n->in[j] : tape->results[index_of(n->in[j])];
        fprintf(f, "%s%s", j ? "," : "", in->requires_grad ? "true" : "false");
    }
    fputs("],\"work\":[", f);  // FLOPs of each gradient
    for (int j = 0; j < MAX_INPUTS && n->in[j] != NULL; j++) fprintf(f, "%s%" PRId64, j ? "," : "", flops_of(n, j));
    fputc(']', f);
}

// Runs the step, and writes what it did.
static void put_step(FILE *f, const Net *net, const Tape *structure, Probe *p)
{
    Tape *tape = tape_new();
    probe_begin(p, tape);
    Tensor *loss = net->loss(net->context, tape);
    check(p->ops == p->room, "report: the net has %d ops in one run and %d in another", p->ops, p->room);
    memcpy(p->live[p->ops], ledger.live, sizeof ledger.live);
    fputs("\"ops\":[", f);
    for (int i = 0; i < p->ops; i++) {
        fputs(i ? ",\n" : "", f);
        put_op(f, net, &structure->nodes[i], tape, i);
        fputs(",\"live\":", f);
        put_live(f, p->live[i + 1], p->base);
        fputc('}', f);
    }
    fputs("],\n\"refused\":", f);
    if (!loss->requires_grad) put_refusal(f, tape, loss);
    else fputs("null", f);
    fputs(",\"back\":[", f);
    if (loss->requires_grad) backward(tape, loss);
    close_node(p);
    fputs("],\n", f);
    tape_free(tape);
    free(p->live);
}

static void put_grads(FILE *f, const Net *net)
{
    fputs("\"grads\":[", f);
    for (int i = 0; i < net->count; i++) {
        if (i > 0) fputc(',', f);
        put_values(f, net->leaves[i]->grad, net->leaves[i]);
        tensor_drop_grad(net->leaves[i]);
    }
    fputs("],", f);
}

static void put_counts(FILE *f, const Meter *m)
{
    fprintf(f, "\"counts\":{\"dgrad\":%" PRId64 ",\"wgrad\":%" PRId64 ",\"wgrad_skipped\":%" PRId64, m->dgrad, m->wgrad, m->wgrad_skipped);
    fprintf(f, ",\"wgrad_never_recorded\":%" PRId64 ",\"adapter_gradients\":%" PRId64 "}", m->wgrad_never_recorded, m->adapter_gradients);
}

// One step of the net as its leaves' flags want it: an object for the page.
static void put_mode(FILE *f, const char *mode, const Net *net, bool (*cut)(const Node *, int), const int64_t base[MEMORY_KINDS])
{
    int64_t before[MEMORY_KINDS];
    memcpy(before, ledger.live, sizeof before);
    Tape *structure = structure_of(net);
    real **results = values_of(structure);
    fprintf(f, "{\"mode\":\"%s\",", mode);
    put_tensors(f, net, structure, results);
    Probe probe = { .out = f, .meter.cut = cut, .room = structure->count };
    for (int k = 0; k < MEMORY_KINDS; k++) probe.base[k] = base[k] + ledger.live[k] - before[k]; // the structure's do not count
    put_step(f, net, structure, &probe);
    put_grads(f, net);
    put_counts(f, &probe.meter);
    fputc('}', f);
    for (int i = 0; i < structure->count; i++) free(results[i]);
    free(results);
    tape_free(structure);
}

// The misreading "the derivative of a constant is 0": nothing passes a frozen weight. `head`: nor the frozen output head.
static bool cut_linear(const Node *n, int input) { return input == 0 && n->op == &linear_op && !n->in[1]->requires_grad; }
static bool cut_head(const Node *n, int input)
{
    return cut_linear(n, input) || (input == 0 && n->op == &lm_head_op && !n->in[1]->requires_grad);
}

typedef enum Mode { MODE_FULL, MODE_LORA, MODE_TOP, MODE_FROZEN, MODE_CUT, MODE_CUT_HEAD, MODES } Mode;
static const char *const mode_names[MODES] = { "full", "lora", "top", "frozen", "cut", "cuthead" };
static bool (*const cuts[MODES])(const Node *, int) = { [MODE_CUT] = cut_linear, [MODE_CUT_HEAD] = cut_head };

// ------------------------------------------------------------------------------------------------------- the two small nets

enum { LAYERS = 4, WIDTH = 6, ROWS = 4, RANK = 2 };
typedef struct Chain { Tensor *x; Linear layer[LAYERS]; } Chain;

static Tensor *chain_loss(void *context, Tape *tape)
{
    Chain *chain = context;
    Tensor *x = chain->x;
    for (int i = 0; i < LAYERS; i++) {
        Tensor *y = linear_apply(tape, &chain->layer[i], x);
        if (i > 0) tensor_drop(x);
        x = y;
    }
    Tensor *square = op_mul(tape, x, x), *loss = op_mean(tape, square);
    tensor_drop(x);
    tensor_drop(square);
    return loss;
}

static void put_chain(FILE *f, Mode mode)
{
    int64_t base[MEMORY_KINDS];
    memcpy(base, ledger.live, sizeof base);
    Chain chain = { .x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(ROWS, WIDTH)) };
    Tensor *leaves[1 + 4 * LAYERS];
    int count = 0;
    Lora lora[LAYERS] = { { 0 } };
    fill_normal(chain.x, 1, 1);
    leaves[count++] = chain.x;
    for (int i = 0; i < LAYERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "W%d", i + 1);
        chain.layer[i].weight = leaves[count++] = tensor_new(name, MEMORY_WEIGHTS, SHAPE(WIDTH, WIDTH));
        fill_normal(chain.layer[i].weight, 0.4, (uint64_t)(2 + i));
        name[0] = 'b';
        chain.layer[i].bias = leaves[count++] = tensor_new(name, MEMORY_WEIGHTS, SHAPE(WIDTH));
        chain.layer[i].weight->requires_grad = chain.layer[i].bias->requires_grad = mode == MODE_FULL;
        if (mode == MODE_FULL || (mode == MODE_TOP && i < LAYERS - 1)) continue;
        snprintf(name, sizeof name, "lora%d", i + 1);
        lora[i] = lora_new(name, WIDTH, WIDTH, RANK, 1, (uint64_t)(10 + i));
        lora[i].A->requires_grad = lora[i].B->requires_grad = mode != MODE_FROZEN;
        chain.layer[i].lora = &lora[i];
        leaves[count++] = lora[i].A;
        leaves[count++] = lora[i].B;
    }
    put_mode(f, mode_names[mode], &(Net){ chain_loss, &chain, leaves, count, true }, cuts[mode], base);
    tensor_drop(chain.x);
    for (int i = 0; i < LAYERS; i++) {
        tensor_drop(chain.layer[i].weight);
        tensor_drop(chain.layer[i].bias);
        if (lora[i].A != NULL) lora_free(&lora[i]);
    }
}

// Eight letters, m e l t w a r and a space between nothing: "meltwate" predicts "eltwater".
enum { LETTERS = 8 };
static const int letters[LETTERS + 1] = { 0, 1, 2, 3, 4, 5, 3, 1, 6 };

static Tensor *small_loss(void *context, Tape *tape)
{
    return transformer_loss(context, tape, letters, letters + 1, 1, LETTERS);
}

static void put_transformer(FILE *f, Mode mode)
{
    int64_t base[MEMORY_KINDS];
    memcpy(base, ledger.live, sizeof base);
    char error[256];
    Transformer *model = transformer_new((Config){ 7, LETTERS, 2, 2, 8, 0 }, 1337, error, sizeof error);
    if (model == NULL) { fprintf(stderr, "report: %s\n", error); exit(1); }
    transformer_train_base(model, mode == MODE_FULL);
    LoraConfig lora = { .r = RANK, .alpha = 2 * RANK, .targets = (1u << LINEARS) - 1, .first_block = mode == MODE_TOP, .last_block = -1 };
    if (mode != MODE_FULL) check(transformer_add_adapter(model, "lora", lora, 1337, error, sizeof error) != NULL, "report: %s", error);
    if (mode == MODE_FROZEN)
        for (int i = 0; i < model->parameter_count; i++) model->parameters[i]->requires_grad = false;
    put_mode(f, mode_names[mode], &(Net){ small_loss, model, model->parameters, model->parameter_count, true }, cuts[mode], base);
    transformer_free(model);
}

void report_tape(Report *report)
{
    FILE *f = report_member(report, "nets");
    fputs("{\"chain\":[", f);
    for (int mode = 0; mode <= MODE_CUT; mode++) {
        if (mode > 0) fputs(",\n", f);
        put_chain(f, (Mode)mode);
    }
    fputs("],\n\"transformer\":[", f);
    for (int mode = 0; mode < MODES; mode++) {
        if (mode > 0) fputs(",\n", f);
        put_transformer(f, (Mode)mode);
    }
    fputs("]}", f);
}

// --------------------------------------------------------------------------------------------------- a large model, for names

typedef struct Windows { Transformer *model; int *ids, B, T; } Windows;

static Tensor *windows_loss(void *context, Tape *tape)
{
    Windows *w = context;
    return transformer_loss(w->model, tape, w->ids, w->ids, w->B, w->T);
}

void report_ops(Report *report, const char *key, Transformer *model, int B, int T)
{
    Windows windows = { model, allocate((size_t)B * (size_t)T, sizeof(int), "a batch"), B, T };
    Net net = { windows_loss, &windows, model->parameters, model->parameter_count, false };
    FILE *f = report_member(report, key);
    fputc('{', f);
    Tape *structure = structure_of(&net);
    put_tensors(f, &net, structure, NULL);
    fputs("\"ops\":[", f);
    for (int i = 0; i < structure->count; i++) {
        fputs(i ? ",\n" : "", f);
        put_inputs(f, &net, &structure->nodes[i]);
        fputc('}', f);
    }
    fputs("]}", f);
    tape_free(structure);
    free(windows.ids);
}

// ---------------------------------------------------------------------------------------------------- the page's arithmetic

void report_checks(Report *report, int count, uint64_t seed)
{
    FILE *f = report_member(report, "checks");
    uint64_t turn = 0; // T and the size of a head reach beyond every bound in the threads' scratch
    for (int i = 0; i < count; i++) {
        #define PICK(n) (int)(random_bits(seed, turn++) % (unsigned)(n))
        int heads = 1 + PICK(8), T = 1 + PICK(1024), B = 1 + PICK(24), threads = 1 + PICK(4);
        int vocabulary = 2 + PICK(300), block_size = T + PICK(64), layers = 1 + PICK(9), width = heads * (1 + PICK(160));
        Config config = { vocabulary, block_size, layers, heads, width, 0 };
        LoraConfig lora = { .r = 1 + PICK(64), .alpha = 1, .last_block = -1 };
        lora.targets = 1u + (unsigned)PICK((1 << LINEARS) - 1);
        lora.first_block = PICK(config.n_layer);
        lora.freeze_A = PICK(4) == 0;
        bool full = PICK(3) == 0, recompute = PICK(3) == 0;
        #undef PICK
        Prediction p = predict_step(&config, full ? NULL : &lora, B, T, recompute, threads, (int)sizeof(real));
        fprintf(f, "%s{\"config\":{\"vocab_size\":%d,\"block_size\":%d,\"n_layer\":%d,\"n_head\":%d,\"n_embd\":%d},\"lora\":", i ? ",\n" : "[",
                config.vocab_size, config.block_size, config.n_layer, config.n_head, config.n_embd);
        if (full) fputs("null", f);
        else fprintf(f, "{\"r\":%d,\"targets\":%u,\"first_block\":%d,\"last_block\":-1,\"freeze_A\":%s,\"r_by_block\":null}", lora.r,
                     lora.targets, lora.first_block, lora.freeze_A ? "true" : "false");
        fprintf(f, ",\"B\":%d,\"T\":%d,\"recompute\":%s,\"threads\":%d,\"real_bytes\":%d,\"peak\":%" PRId64, B, T, recompute ? "true" : "false", threads,
                (int)sizeof(real), p.peak);
        for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s%" PRId64, k ? "," : ",\"at_peak\":[", p.at_peak[k]);
        for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s%" PRId64, k ? "," : "],\"own_peak\":[", p.own_peak[k]);
        fputs("]}", f);
    }
    fputs(count > 0 ? "]" : "[]", f);
}
