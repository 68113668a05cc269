// lane.c - one step of a small net, watched node by node: what a lane of the page shows. The net is built twice: once with every
// leaf requiring a gradient, so that every op is recorded and shows its inputs; and once as the lane wants it, trained for some
// steps, and then watched through one forward and backward.

#include "adamw.h"
#include "experiments/measure.h"
#include "web/page.h"

typedef enum Way { WAY_FULL, WAY_LORA, WAY_CUT, WAYS } Way;        // the lanes, from left to right
enum { NET_CHAIN, NET_BLOCK };

enum { LAYERS = 4, WIDTH = 16, ROWS = 8, RANK = 2, MOST_LEAVES = 64 };
enum { SHOWN_ROWS = 5, SHOWN_COLUMNS = 6 };                         // of a tensor's numbers

typedef struct Net {
    Tensor     *(*loss)(const struct Net *net, Tape *tape);
    Tensor      *leaf[MOST_LEAVES];
    int          count;
    Linear       layer[LAYERS];                                     // the chain's
    Lora         lora[LAYERS];
    Transformer *model;                                             // or the block's
} Net;

// ----------------------------------------------------------------------------------------------------------------- the nets

static Tensor *chain_loss(const Net *net, Tape *tape)
{
    Tensor *x = net->leaf[0];
    for (int i = 0; i < LAYERS; i++) {
        Tensor *y = linear_apply(tape, &net->layer[i], x);
        if (i > 0) tensor_drop(x);
        x = y;
    }
    Tensor *square = op_mul(tape, x, x), *loss = op_mean(tape, square);
    tensor_drop(x);
    tensor_drop(square);
    return loss;
}

static Tensor *chain_leaf(Net *net, const char *letter, int number, double deviation, int ndim, const int *shape)
{
    char name[16];
    snprintf(name, sizeof name, "%s%d", letter, number);
    Tensor *leaf = random_leaf(name, deviation, (uint64_t)(1 + net->count), ndim, shape);
    return net->leaf[net->count++] = leaf;
}

static void chain_new(Net *net, Way way)
{
    *net = (Net){ .loss = chain_loss };
    net->leaf[net->count++] = random_leaf("x", 1, 1, SHAPE(ROWS, WIDTH));
    for (int i = 0; i < LAYERS; i++) {
        Linear *layer = &net->layer[i];
        layer->weight = chain_leaf(net, "W", i + 1, 0.25, SHAPE(WIDTH, WIDTH));
        layer->bias = chain_leaf(net, "b", i + 1, 0.1, SHAPE(WIDTH));
        layer->weight->requires_grad = layer->bias->requires_grad = way == WAY_FULL;
    }
    for (int i = 0; way != WAY_FULL && i < LAYERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "lora%d", i + 1);
        net->lora[i] = lora_new(name, WIDTH, WIDTH, RANK, 1, (uint64_t)(10 + i));
        net->layer[i].lora = &net->lora[i];
        net->leaf[net->count++] = net->lora[i].A;
        net->leaf[net->count++] = net->lora[i].B;
    }
}

// "meltwate" predicts "eltwater": letters of m e l t w a r.
enum { LETTERS = 8 };
static const int letters[LETTERS + 1] = { 0, 1, 2, 3, 4, 5, 3, 1, 6 };

static Tensor *block_loss(const Net *net, Tape *tape)
{
    return transformer_loss(net->model, tape, letters, letters + 1, 1, LETTERS);
}

static void block_new(Net *net, Way way)
{
    *net = (Net){ .loss = block_loss, .model = new_model((Config){ 7, LETTERS, 1, 2, WIDTH, 0 }, SEED) };
    LoraConfig lora = { .r = RANK, .alpha = 2 * RANK, .targets = (1u << LINEARS) - 1, .last_block = -1 };
    adapt(net->model, way == WAY_FULL ? NULL : &lora, SEED);
    net->count = net->model->parameter_count;
    memcpy(net->leaf, net->model->parameters, (size_t)net->count * sizeof *net->leaf);
}

static void net_new(Net *net, int which, int way)
{
    if (which == NET_CHAIN) chain_new(net, (Way)way);
    else block_new(net, (Way)way);
}

static void net_free(Net *net)
{
    if (net->model != NULL) transformer_free(net->model);
    else for (int i = 0; i < net->count; i++) tensor_drop(net->leaf[i]);
}

// The misreading "the derivative of a constant is 0": nothing passes a layer whose matrix is frozen, neither through the matrix
// nor through the adapter that rides on it.
static bool cut_frozen_layers(const Node *n, int input)
{
    return cut_frozen_matrices(n, input) || (input == 0 && n->op == &matmul_op && n->in[1]->kind == MEMORY_ADAPTERS);
}

// What a click on a leaf has asked for: 0 as the lane has it, 1 trains, 2 frozen.
static char wishes[MOST_LEAVES];

void EXPORT(lane_wish)(int leaf, int wish)
{
    if (leaf >= 0 && leaf < MOST_LEAVES) wishes[leaf] = (char)wish;
}

static void grant_wishes(Net *net)
{
    for (int i = 0; i < net->count; i++)
        if (wishes[i] != 0) set_requires_grad(net->leaf[i], wishes[i] == 1);
}

// ---------------------------------------------------------------------------------------------------------- steps beforehand

static bool something_trains(const Net *net)
{
    for (int i = 0; i < net->count; i++)
        if (net->leaf[i]->requires_grad) return true;
    return false;
}

static void drop_grads(Net *net)
{
    for (int i = 0; i < net->count; i++) tensor_drop_grad(net->leaf[i]);
}

static void train_step(Net *net, AdamW *optimizer)
{
    Tape *tape = tape_new();
    backward(tape, net->loss(net, tape));
    adamw_step(optimizer, 0.05);
    drop_grads(net);
    tape_free(tape);
}

// `steps` steps, the last of them with what was wished for: so moments are there for what trains, and for nothing else. The
// caller frees the optimizer; NULL if there are none.
static AdamW *train_before(Net *net, int steps)
{
    AdamW *optimizer = adamw_new(net->leaf, net->count, (AdamWConfig){ 0.9, 0.99, 0, 1 });
    for (int i = 0; i < steps; i++) {
        if (i == steps - 1) grant_wishes(net);
        if (something_trains(net)) train_step(net, optimizer);
    }
    grant_wishes(net);
    if (steps > 0 && something_trains(net)) return optimizer;
    adamw_free(optimizer);
    return NULL;
}

// ------------------------------------------------------------------------------------------------------------------ as JSON

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

static int index_of(const Tensor *result) { return atoi(strrchr(result->name, '#') + 1); } // "gelu#17" is result 17

// A tensor's number on the page: the leaves first, then the results.
static int number_of(const Net *net, const Tensor *t)
{
    if (!is_leaf(t)) return net->count + index_of(t);
    for (int i = 0; i < net->count; i++)
        if (net->leaf[i] == t) return i;
    check(false, "lane: %s is no leaf of the net", t->name);
    return -1;
}

// Every op of the net, as if all trained: nodes[i] made result i. The tape holds them until it is freed.
static Tape *structure_of(Net *net)
{
    bool flags[MOST_LEAVES] = { 0 };
    for (int i = 0; i < net->count; i++) {
        flags[i] = net->leaf[i]->requires_grad;
        net->leaf[i]->requires_grad = true;
    }
    Tape *tape = tape_new();
    net->loss(net, tape);
    for (int i = 0; i < net->count; i++) net->leaf[i]->requires_grad = flags[i];
    check(tape->count == tape->result_count, "lane: %d of %d ops were recorded", tape->count, tape->result_count);
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

static void put_tensors(FILE *f, const Net *net, const Tape *structure, real **results)
{
    fputs("\"tensors\":[", f);
    for (int i = 0; i < net->count + structure->count; i++) {
        const Tensor *t = i < net->count ? net->leaf[i] : structure->nodes[i - net->count].out;
        fprintf(f, "%s{\"name\":\"%s\",\"shape\":[", i ? ",\n" : "", t->name);
        for (int d = 0; d < t->ndim; d++) fprintf(f, "%s%d", d ? "," : "", t->shape[d]);
        fputc(']', f);
        if (i < net->count) fprintf(f, ",\"leaf\":\"%s\",\"trains\":%d", memory_kind_names[t->kind], t->requires_grad);
        fputs(",\"value\":", f);
        put_values(f, i < net->count ? t->data : results[i - net->count], t);
        fputc('}', f);
    }
    fputs("],\n", f);
}

// ------------------------------------------------------------------------------------------------------- watching one step

typedef struct Probe {
    FILE    *out;
    Meter    meter;                // counts, and drops the gradients that its cut names
    Watch   *count;                // what it does when it is told of an event
    int64_t  base[MEMORY_KINDS];   // bytes that are not the net's
    int64_t (*live)[MEMORY_KINDS]; // before each op of forward, and after the last
    int      ops, room;            // how many have run; and of the list above, without its end
    bool     begun, open;          // of backward: a node was written; its list is not yet closed
    int      node;                 // the node at hand
} Probe;

static void put_live(const Probe *p, const char *key, const int64_t live[MEMORY_KINDS])
{
    int64_t own[MEMORY_KINDS];
    for (int k = 0; k < MEMORY_KINDS; k++) own[k] = k == MEMORY_WORKSPACE ? 0 : live[k] - p->base[k]; // that is no net's own
    put_kinds(p->out, key, own);
}

static void close_node(Probe *p)
{
    if (!p->open) return;
    fputs("],", p->out);
    put_live(p, "live", ledger.live);
    fputc('}', p->out);
    p->open = false;
}

static void before_gradient(Probe *p, const Node *n, int input, bool runs)
{
    if (p->open && index_of(n->out) == p->node) fputc(',', p->out);
    else {
        close_node(p);
        fprintf(p->out, "%s{\"op\":%d,\"dy\":", p->begun ? ",\n" : "", index_of(n->out));
        put_values(p->out, n->out->grad, n->out);
        fputs(",\"did\":[", p->out);
        p->begun = p->open = true;
        p->node = index_of(n->out);
    }
    fprintf(p->out, "{\"in\":%d,\"cut\":%d", input, !runs);
    if (!runs) fputc('}', p->out);
}

static void after_gradient(Probe *p, const Tensor *into)
{
    fputs(",\"norm\":", p->out);
    put_norm(p->out, into->grad, into->size);
    fputc(',', p->out);
    put_live(p, "live", ledger.live);
    fputc('}', p->out);
}

static bool probe_watch(void *watcher, const Tape *tape, const Node *n, int input, Event event)
{
    Probe *p = watcher;
    bool runs = p->count(&p->meter, tape, n, input, event);
    if (tape->outer != NULL) return runs; // something is made again
    if (event == BEFORE && input == FORWARD && p->ops < p->room) memcpy(p->live[p->ops++], ledger.live, sizeof ledger.live);
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
    fprintf(f, "%s{\"op\":\"%s\",\"recorded\":%d,\"flops\":%" PRId64 ",\"in\":[", i ? ",\n" : "", n->op->name, recorded != NULL,
            flops_of(n, FORWARD));
    for (int j = 0; j < MAX_INPUTS && n->in[j] != NULL; j++) fprintf(f, "%s%d", j ? "," : "", number_of(net, n->in[j]));
    fputs("],\"kept\":[", f);
    bool first = true;
    for (int j = 0; j < MAX_INPUTS && recorded != NULL; j++)
        if (recorded->kept & KEEP(j)) fprintf(f, "%s%d", first ? "" : ",", number_of(net, n->in[j])), first = false;
    if (recorded != NULL && recorded->kept & KEEP_OUT) fprintf(f, "%s%d", first ? "" : ",", number_of(net, n->out));
    fputs("],\"needs\":[", f); // which inputs require a gradient
    for (int j = 0; j < MAX_INPUTS && n->in[j] != NULL; j++) {
        const Tensor *in = is_leaf(n->in[j]) ? n->in[j] : tape->results[index_of(n->in[j])];
        fprintf(f, "%s%d", j ? "," : "", in->requires_grad);
    }
    fputs("],\"work\":[", f);  // FLOPs of each gradient
    for (int j = 0; j < MAX_INPUTS && n->in[j] != NULL; j++) fprintf(f, "%s%" PRId64, j ? "," : "", flops_of(n, j));
    fputs("],", f);
}

// Runs the step, and writes what it did.
static void put_step(FILE *f, Net *net, const Tape *structure, Probe *p)
{
    Tape *tape = tape_new();
    probe_begin(p, tape);
    put_live(p, "before", ledger.live);
    Tensor *loss = net->loss(net, tape);
    check(p->ops == p->room, "lane: the net has %d ops in one run and %d in another", p->ops, p->room);
    memcpy(p->live[p->ops], ledger.live, sizeof ledger.live);
    fputs(",\n\"ops\":[", f);
    for (int i = 0; i < p->ops; i++) {
        put_op(f, net, &structure->nodes[i], tape, i);
        put_live(p, "live", p->live[i + 1]);
        fputc('}', f);
    }
    fprintf(f, "],\n\"loss\":%.6g,\"refused\":%d,\"back\":[", (double)loss->data[0], !loss->requires_grad);
    if (loss->requires_grad) backward(tape, loss);
    close_node(p);
    fputs("],\n", f);
    tape_free(tape);
    free(p->live);
}

static void put_grads(FILE *f, Net *net)
{
    fputs("\"grads\":[", f);
    for (int i = 0; i < net->count; i++) {
        if (i > 0) fputc(',', f);
        put_values(f, net->leaf[i]->grad, net->leaf[i]);
    }
    fputs("],", f);
}

static void put_counts(FILE *f, const Meter *m)
{
    fprintf(f, "\"counts\":{\"dgrad\":%" PRId64 ",\"wgrad\":%" PRId64 ",\"wgrad_skipped\":%" PRId64, m->dgrad, m->wgrad, m->wgrad_skipped);
    fprintf(f, ",\"wgrad_never_recorded\":%" PRId64 ",\"adapter_gradients\":%" PRId64 "}", m->wgrad_never_recorded, m->adapter_gradients);
}

// One step of a net (0 the chain, 1 the block) in a lane (Way), after `steps` steps of training.
const char *EXPORT(lane_run)(int which, int way, int steps)
{
    Net net;
    Probe probe = { .meter.cut = way == WAY_CUT ? cut_frozen_layers : NULL };
    int64_t before[MEMORY_KINDS];
    memcpy(probe.base, ledger.live, sizeof before);
    net_new(&net, which, way);
    AdamW *optimizer = train_before(&net, steps);
    memcpy(before, ledger.live, sizeof before);
    Tape *structure = structure_of(&net);
    real **results = values_of(structure);
    for (int k = 0; k < MEMORY_KINDS; k++) probe.base[k] += ledger.live[k] - before[k]; // the structure's do not count
    FILE *f = probe.out = answer_begin();
    probe.room = structure->count;
    fputc('{', f);
    put_tensors(f, &net, structure, results);
    put_step(f, &net, structure, &probe);
    put_grads(f, &net);
    put_counts(f, &probe.meter);
    fputc('}', f);
    for (int i = 0; i < structure->count; i++) free(results[i]);
    free(results);
    tape_free(structure);
    drop_grads(&net);
    adamw_free(optimizer);
    net_free(&net);
    return answer_end();
}

// backward where nothing trains: the engine stops here, and says why.
void EXPORT(lane_refuse)(int which, int way)
{
    Net net;
    net_new(&net, which, way);
    grant_wishes(&net);
    Tape *tape = tape_new();
    backward(tape, net.loss(&net, tape));
}
