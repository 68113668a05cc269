// test_every_graph.c - the engine's rules, proved by exhaustion: not on chosen graphs, but on every small one.
//
// A graph here has two leaves, a and b, and up to five nodes. Each node adds or multiplies any two of the tensors before it, or
// one of them by itself. What the engine must do with it follows from paths alone, found here by sets of tensors, without the
// engine's help:
//
//   which gradients run    that of input i of node n, if a path leads from a leaf that trains to the input, and one from n to the
//                          loss; each once, from the last node to the first, input 1 before input 0
//   what is kept           what the gradients of inputs that require one read: mul reads the other input, add nothing; it goes as
//                          soon as no gradient to come reads it
//   what is left           nothing: no node, no gradient of a result, no kept data
//   what a leaf gets       nothing if it is frozen; else the same bits as when all leaves train, and the derivative by the
//                          formula, where whole numbers hold it exactly
//
// Covered: all graphs of one to three nodes, with all kinds of nodes, every node as the loss, every set of leaves that train, and
// every way of letting go of handles; all graphs of four nodes, with all kinds; all 518,400 graphs of five, with kinds and ways
// drawn by the graph's number. A part of the graphs of five nodes that all add, or all multiply. The float build, and slow builds,
// take a part of those of four and five nodes: see one_in.

#include "../meter.h"
#include "../ops.h"
#include "gradcheck.h"
#include "test.h"

enum { LEAVES = 2, MOST_NODES = 5, MOST = LEAVES + MOST_NODES };

typedef unsigned Set; // of tensors, or of gradients: bit t is tensor t, bit 2 t + i the gradient of input i of node t
static Set bit(int t) { return 1u << t; }
static const Set leaf_bits = (1u << LEAVES) - 1;

static bool gradient_begins(int node, int input);

// --------------------------------------------------------------------------------------- all that knows the engine's insides

static Tape *tape;
static Meter meter;
static Tensor *tensors[MOST]; // 0 and 1 are a and b; node t makes tensor t
static const double leaf_values[LEAVES] = { 2, -3 };

static Tensor *new_leaf(int t)
{
    return tensor_from(t == 0 ? "a" : "b", (real[]){ (real)leaf_values[t] }, SHAPE(1));
}

static int number_of(const Tensor *t)
{
    for (int i = 0; i < MOST; i++)
        if (tensors[i] == t) return i;
    return -1;
}

// Called before each gradient that the guard lets pass.
static bool cut(const Node *n, int input) { return !gradient_begins(number_of(n->out), input); }

static void watch_tape(void)
{
    meter = (Meter){ .cut = cut };
    meter_watch(&meter, tape);
}

static void make_node(int t, bool multiplies, int left, int right)
{
    tensors[t] = (multiplies ? op_mul : op_add)(tape, tensors[left], tensors[right]);
}

static const Op *op_of(bool multiplies) { return multiplies ? &mul_op : &add_op; }

// How many kernels of one kind of node ran: forward, gradients of results, and of leaves.
static int64_t kernels_run(bool multiplies, Phase phase) { return meter_op(&meter, op_of(multiplies), phase).kernels; }

static int nodes_on_tape(void) { return tape->count; }
static int results_on_tape(void) { return tape->result_count; }
static const Node *recorded(int index) { return &tape->nodes[index]; }

static bool node_is(const Node *n, int t, bool multiplies, int left, int right)
{
    return n->op == op_of(multiplies) && n->out == tensors[t] && n->in[0] == tensors[left] && n->in[1] == tensors[right] &&
           n->in[2] == NULL;
}

// What a node holds: bit i is the data of input i.
static unsigned node_keeps(const Node *n) { return n->kept; }

// Who needs a tensor: its data, the caller or a node that keeps it; its header, a node.
static int holders_of(int t) { return tensors[t]->held + tensors[t]->kept; }
static int nodes_of(int t) { return tensors[t]->used; }

static int64_t live_bytes(int kind) { return ledger.live[kind]; }

// ---------------------------------------------------------------------------------------------------------------- the cases

// How the caller lets go of results: not before the tape is cleared; after backward; before it; each as soon as no further node
// uses it; before backward, with the leaves that are frozen. These show all gradients. Then: before backward, with all leaves; and
// before the tape is cleared, without backward.
typedef enum Way { HELD, AFTER_BACKWARD, AT_ONCE, AFTER_LAST_USE, FROZEN_TOO, LEAVES_TOO, ABANDONED, WAYS } Way;
enum { SHOWING = FROZEN_TOO + 1 };
static const char *const way_texts[WAYS] = { "held", "let go after backward", "let go before backward", "let go after the last use",
                                             "let go before backward, frozen leaves too", "let go before backward, all leaves too",
                                             "let go, and no backward" };

typedef struct Case {
    int number, count; // of the graph; of tensors, the leaves among them
    int in[MOST][2];
    Set multiply;      // which nodes do; the others add
    Set trains;        // which leaves
    int loss;
    Way way;
} Case;

static int graphs_of(int nodes)
{
    int graphs = 1;
    for (int t = LEAVES; t < LEAVES + nodes; t++) graphs *= t * t;
    return graphs;
}

static Case graph_of(int nodes, int number)
{
    Case c = { .number = number, .count = LEAVES + nodes, .loss = LEAVES + nodes - 1 };
    for (int t = LEAVES; t < c.count; t++) {
        c.in[t][0] = number % t, number /= t;
        c.in[t][1] = number % t, number /= t;
    }
    return c;
}

static const char *text_of(const Case *c)
{
    static char text[400];
    int n = snprintf(text, sizeof text, "graph %d of %d nodes:", c->number, c->count - LEAVES);
    for (int t = LEAVES; t < c->count; t++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %c = %c %c %c;", 'a' + t, 'a' + c->in[t][0], c->multiply & bit(t) ? '*' : '+',
                      'a' + c->in[t][1]);
    static const char *const who[] = { "nothing trains", "a trains", "b trains", "a and b train" };
    snprintf(text + n, sizeof text - (size_t)n, " the loss is %c; %s; handles are %s", 'a' + c->loss, who[c->trains], way_texts[c->way]);
    return text;
}

// What paths say of a case.
typedef struct Expected {
    Set  below[MOST];           // the tensors from which a path leads to t, and t itself
    Set  needs;                 // the tensors that require a gradient
    Set  gradients;             // those that must run
    int64_t kernels[2][PHASES]; // how many, of nodes that add and of those that multiply
    unsigned keeps[MOST];       // which inputs node t holds
    int  keepers[MOST];         // how many hold tensor t
    Set  held[2 * MOST];        // the tensors that gradients up to this one read, in nodes that are recorded
    int  recorded;              // nodes
} Expected;

static void expect_paths(const Case *c, Expected *e)
{
    for (int t = 0; t < c->count; t++) {
        e->below[t] = bit(t);
        if (t >= LEAVES) e->below[t] |= e->below[c->in[t][0]] | e->below[c->in[t][1]];
        if (e->below[t] & c->trains) e->needs |= bit(t);
    }
}

static Expected expected_of(const Case *c)
{
    Expected e = { .needs = 0 };
    expect_paths(c, &e);
    Set held = 0;
    for (int t = LEAVES; t < c->count; t++) {
        bool multiplies = c->multiply & bit(t), feeds = e.below[c->loss] & bit(t);
        if (e.needs & bit(t)) e.recorded++;
        e.kernels[multiplies][PHASE_FORWARD]++;
        for (int i = 0; i < 2; i++) {
            int in = c->in[t][i], other = c->in[t][1 - i];
            if (e.needs & bit(in)) {
                if (multiplies) e.keeps[t] |= bit(1 - i), e.keepers[other]++, held |= bit(other);
                if (feeds) e.gradients |= bit(2 * t + i), e.kernels[multiplies][in < LEAVES ? PHASE_WGRAD : PHASE_DGRAD]++;
            }
            e.held[2 * t + i] = held;
        }
    }
    return e;
}

// The derivatives of the loss by the formula: carried along from the leaves, in whole numbers.
typedef struct Derivative { int64_t value, by[LEAVES], size; } Derivative; // size: of the value, if every number were positive

static Derivative derivative_of(const Case *c)
{
    Derivative d[MOST];
    for (int t = 0; t < LEAVES; t++)
        d[t] = (Derivative){ .value = (int64_t)leaf_values[t], .by = { t == 0, t == 1 }, .size = (int64_t)fabs(leaf_values[t]) };
    for (int t = LEAVES; t < c->count; t++) {
        const Derivative *l = &d[c->in[t][0]], *r = &d[c->in[t][1]];
        if (c->multiply & bit(t))
            d[t] = (Derivative){ l->value * r->value, { l->by[0] * r->value + l->value * r->by[0], l->by[1] * r->value + l->value * r->by[1] },
                                 l->size * r->size };
        else
            d[t] = (Derivative){ l->value + r->value, { l->by[0] + r->by[0], l->by[1] + r->by[1] }, l->size + r->size };
    }
    return d[c->loss];
}

// A product of five nodes has at most 32 factors, so no number that a gradient is made of is more than 32 times the size.
static bool exact(const Derivative *d) { return d->size <= (int64_t)(IN_DOUBLE ? 0x1p53 : 0x1p24) / 32; }

// ----------------------------------------------------------------------------------------------------------------- one case

static struct {
    const Case *c;
    Expected e;
    int64_t before[MEMORY_KINDS]; // the ledger
    Set  dropped;                 // handles that the caller has let go of
    Set  ran, reached;            // gradients that ran, and tensors that they were for
    int  last;                    // the gradient that ran last
    char wrong[240];              // what differs; empty: nothing
} now;

static struct { bool there; real value; } all_train[LEAVES]; // the gradients when both leaves train

typedef struct Seen { // what was met on the way, so that no rule goes untried unnoticed
    int64_t cases, backwards, exact, never_recorded, loss_is_frozen, useless_nodes_that_keep, skipped, both_inputs_the_same, used_twice, held_no_more;
} Seen;
static Seen seen;

#define MUST(condition, ...)                                         \
    do {                                                             \
        if (!(condition)) {                                          \
            snprintf(now.wrong, sizeof now.wrong, __VA_ARGS__);      \
            return false;                                            \
        }                                                            \
    } while (0)

static int64_t count_of(Set set)
{
    int64_t count = 0;
    for (; set != 0; set &= set - 1) count++;
    return count;
}

// How many numbers of a kind this case has on the ledger.
static int64_t on_ledger(MemoryKind kind) { return (live_bytes(kind) - now.before[kind]) / (int64_t)sizeof(real); }

static const char *gradients_text(Set set)
{
    static char texts[2][200];
    static int turn;
    char *text = texts[turn = !turn];
    int n = snprintf(text, sizeof texts[0], set ? "" : " none");
    for (int g = 2 * MOST - 1; g >= 0; g--)
        if (set & bit(g)) n += snprintf(text + n, sizeof texts[0] - (size_t)n, " d%c/d(%s)", 'a' + g / 2, g % 2 ? "right" : "left");
    return text;
}

// From inside backward, before a gradient runs: is it its turn, and is memory as small as it can be?
static bool right_so_far(int node, int input)
{
    int g = 2 * node + input;
    MUST(node >= LEAVES && node < now.c->count && (input == 0 || input == 1), "a gradient of input %d of tensor %d", input, node);
    MUST(g < now.last, "d%c/d(%s) runs after a gradient of %c", 'a' + node, input ? "right" : "left", 'a' + now.last / 2);
    const Tensor *other = tensors[now.c->in[node][1 - input]];
    MUST(!(now.c->multiply & bit(node)) || other->data != NULL, "d%c/d(%s) finds nothing to read", 'a' + node, input ? "right" : "left");
    int64_t kept = on_ledger(MEMORY_KEPT_ACTIVATIONS), gradients = on_ledger(MEMORY_ACTIVATION_GRADIENTS);
    int64_t results = count_of(now.e.held[g] & ~leaf_bits);
    MUST(kept == results, "before d%c/d(%s) %" PRId64 " results are kept; %" PRId64 " will be read", 'a' + node, input ? "right" : "left",
         kept, results);
    int64_t waiting = count_of((now.reached | bit(node)) & (bit(node + 1) - 1) & ~leaf_bits);
    MUST(gradients == waiting, "before d%c/d(%s) %" PRId64 " results have gradients, not %" PRId64, 'a' + node, input ? "right" : "left",
         gradients, waiting);
    now.last = g;
    now.ran |= bit(g);
    now.reached |= bit(now.c->in[node][input]);
    return true;
}

static bool gradient_begins(int node, int input) { return now.wrong[0] != '\0' || right_so_far(node, input); }

static void let_go(int t)
{
    tensor_drop(tensors[t]);
    now.dropped |= bit(t);
}

static void run_forward(void)
{
    const Case *c = now.c;
    for (int t = LEAVES; t < c->count; t++) {
        make_node(t, c->multiply & bit(t), c->in[t][0], c->in[t][1]);
        if (c->way != AFTER_LAST_USE) continue;
        for (int u = LEAVES; u <= t; u++) {
            bool used_later = false;
            for (int v = t + 1; v < c->count; v++) used_later |= c->in[v][0] == u || c->in[v][1] == u;
            if (!used_later && !(now.dropped & bit(u))) let_go(u);
        }
    }
}

static bool check_record(void)
{
    const Case *c = now.c;
    const Expected *e = &now.e;
    MUST(nodes_on_tape() == e->recorded, "%d nodes are recorded, not %d", nodes_on_tape(), e->recorded);
    int index = 0;
    for (int t = LEAVES; t < c->count; t++) {
        MUST(tensors[t]->requires_grad == ((e->needs & bit(t)) != 0), "%c's flag is %d", 'a' + t, tensors[t]->requires_grad);
        if (!(e->needs & bit(t))) continue;
        const Node *n = recorded(index);
        MUST(node_is(n, t, c->multiply & bit(t), c->in[t][0], c->in[t][1]), "node %d on the tape is not %c", index, 'a' + t);
        MUST(node_keeps(n) == e->keeps[t], "%c's node keeps inputs %#x, not %#x (1: left, 2: right)", 'a' + t, node_keeps(n), e->keeps[t]);
        index++;
    }
    return true;
}

// After forward, and after the caller let go of what the case says.
static bool check_kept(void)
{
    const Expected *e = &now.e;
    int64_t kept = 0, live = 0, leaves = 0;
    for (int t = 0; t < now.c->count; t++) {
        bool handle = !(now.dropped & bit(t));
        if (t < LEAVES) leaves += handle + e->keepers[t] > 0;
        else if (e->keepers[t] > 0) kept++;
        else live += handle;
        if (t < LEAVES && !handle) continue; // its header may be gone
        MUST(holders_of(t) == handle + e->keepers[t], "%c has %d holders, not %d", 'a' + t, holders_of(t), handle + e->keepers[t]);
        MUST((tensors[t]->data != NULL) == (handle + e->keepers[t] > 0), "%c %s its data", 'a' + t, tensors[t]->data ? "has" : "has lost");
    }
    MUST(on_ledger(MEMORY_KEPT_ACTIVATIONS) == kept, "the ledger has %" PRId64 " results kept, not %" PRId64,
         on_ledger(MEMORY_KEPT_ACTIVATIONS), kept);
    MUST(on_ledger(MEMORY_LIVE_ACTIVATIONS) == live, "the ledger has %" PRId64 " results live, not %" PRId64,
         on_ledger(MEMORY_LIVE_ACTIVATIONS), live);
    MUST(on_ledger(MEMORY_WEIGHTS) == leaves - LEAVES, "the ledger has %" PRId64 " leaves, not %" PRId64, LEAVES + on_ledger(MEMORY_WEIGHTS), leaves);
    return true;
}

static bool check_gradients_run(void)
{
    static const char *const kinds[] = { "add", "mul" };
    MUST(now.ran == now.e.gradients, "gradients that ran:%s; must run:%s", gradients_text(now.ran), gradients_text(now.e.gradients));
    for (int kind = 0; kind < 2; kind++)
        for (int phase = 0; phase < PHASES; phase++)
            MUST(kernels_run(kind, phase) == now.e.kernels[kind][phase], "%" PRId64 " kernels of %s, %s; must be %" PRId64,
                 kernels_run(kind, phase), kinds[kind], phase_names[phase], now.e.kernels[kind][phase]);
    return true;
}

static bool check_nothing_left(void)
{
    int64_t results = 0;
    MUST(nodes_on_tape() == 0, "%d nodes are left on the tape", nodes_on_tape());
    for (int t = LEAVES; t < now.c->count; t++) {
        int handle = !(now.dropped & bit(t));
        MUST(tensors[t]->grad == NULL, "%c's gradient is left", 'a' + t);
        MUST(holders_of(t) == handle && nodes_of(t) == 0 && (tensors[t]->data != NULL) == handle, "%c has %d holders and %d nodes",
             'a' + t, holders_of(t), nodes_of(t));
        results += handle;
    }
    MUST(on_ledger(MEMORY_ACTIVATION_GRADIENTS) == 0, "%" PRId64 " gradients of results are left", on_ledger(MEMORY_ACTIVATION_GRADIENTS));
    MUST(on_ledger(MEMORY_KEPT_ACTIVATIONS) == 0, "%" PRId64 " results are still kept", on_ledger(MEMORY_KEPT_ACTIVATIONS));
    MUST(on_ledger(MEMORY_LIVE_ACTIVATIONS) == results, "%" PRId64 " results are live, not %" PRId64, on_ledger(MEMORY_LIVE_ACTIVATIONS), results);
    return true;
}

// d: by the formula; NULL: no backward ran.
static bool check_leaves(const Derivative *d)
{
    const Case *c = now.c;
    int64_t gradients = 0;
    for (int t = 0; t < LEAVES; t++) {
        if (now.dropped & bit(t)) continue;
        const real *grad = tensors[t]->grad;
        bool there = d != NULL && c->trains & bit(t) && now.e.below[c->loss] & bit(t);
        MUST((grad != NULL) == there, "%c has %s gradient", 'a' + t, grad ? "a" : "no");
        gradients += there;
        if (!there) continue;
        if (exact(d)) MUST((double)grad[0] == (double)d->by[t], "d(loss)/d%c is %.17g, not %.17g", 'a' + t, (double)grad[0], (double)d->by[t]);
        if (c->trains == leaf_bits) all_train[t].there = true, all_train[t].value = grad[0];
        MUST(all_train[t].there && same_bits(grad, &all_train[t].value, 1), "d(loss)/d%c is %.17g, and %.17g if all leaves train", 'a' + t, (double)grad[0],
             all_train[t].there ? (double)all_train[t].value : (double)NAN);
    }
    MUST(on_ledger(MEMORY_PARAMETER_GRADIENTS) == gradients, "the ledger has %" PRId64 " gradients of leaves, not %" PRId64,
         on_ledger(MEMORY_PARAMETER_GRADIENTS), gradients);
    return true;
}

// After the tape is cleared: all as before, and the leaves free again. Those that were let go are made anew.
static bool check_cleared(void)
{
    for (int t = 0; t < LEAVES; t++) {
        if (now.dropped & bit(t)) tensors[t] = new_leaf(t);
        tensor_drop_grad(tensors[t]);
        MUST(holders_of(t) == 1 && nodes_of(t) == 0, "%c has %d holders and %d nodes, the tape cleared", 'a' + t, holders_of(t),
             nodes_of(t));
    }
    MUST(nodes_on_tape() == 0 && results_on_tape() == 0, "%d nodes and %d results on a cleared tape", nodes_on_tape(), results_on_tape());
    for (int kind = 0; kind < MEMORY_KINDS; kind++)
        MUST(on_ledger(kind) == 0, "%" PRId64 " numbers of %s more than before", on_ledger(kind), memory_kind_names[kind]);
    return true;
}

static void let_go_before_backward(void)
{
    const Case *c = now.c;
    if (c->way == HELD || c->way == AFTER_BACKWARD || c->way == AFTER_LAST_USE) return;
    for (int t = LEAVES; t < c->count; t++) let_go(t);
    for (int t = 0; t < LEAVES; t++)
        if (c->way == LEAVES_TOO || (c->way == FROZEN_TOO && !(c->trains & bit(t)))) let_go(t);
}

static bool run_case(const Case *c, const Derivative *d)
{
    now.c = c;
    now.e = expected_of(c);
    for (int kind = 0; kind < MEMORY_KINDS; kind++) now.before[kind] = live_bytes(kind);
    now.dropped = now.ran = now.reached = 0;
    now.last = 2 * MOST;
    now.wrong[0] = '\0';
    watch_tape();
    for (int t = 0; t < LEAVES; t++) tensors[t]->requires_grad = c->trains & bit(t);
    for (int t = LEAVES; t < MOST; t++) tensors[t] = NULL;

    run_forward();
    if (!check_record()) return false;
    let_go_before_backward();
    if (!check_kept()) return false;

    bool runs = now.e.needs & bit(c->loss) && c->way != ABANDONED;
    if (runs) {
        backward(tape, tensors[c->loss]);
        if (now.wrong[0] != '\0' || !check_gradients_run() || !check_nothing_left()) return false;
        if (c->way == AFTER_BACKWARD)
            for (int t = LEAVES; t < c->count; t++) let_go(t);
        MUST(c->way == HELD || on_ledger(MEMORY_LIVE_ACTIVATIONS) == 0, "results are live, and nobody holds them");
    }
    if (!check_leaves(runs ? d : NULL)) return false;
    tape_clear(tape);
    return check_cleared();
}

static void look_at(const Case *c, const Derivative *d)
{
    const Expected *e = &now.e;
    seen.cases++;
    seen.never_recorded += c->trains == 0;
    seen.loss_is_frozen += c->trains != 0 && !(e->needs & bit(c->loss));
    if (!(e->needs & bit(c->loss)) || c->way == ABANDONED) return;
    seen.backwards++;
    seen.exact += exact(d);
    Set used = 0, twice = 0;
    bool useless = false, skipped = false, same = false, less = false;
    for (int t = LEAVES; t < c->count; t++) {
        bool feeds = e->below[c->loss] & bit(t);
        useless |= !feeds && e->keeps[t] != 0;
        same |= feeds && e->needs & bit(t) && c->in[t][0] == c->in[t][1];
        less |= feeds && e->held[2 * t + 1] != e->held[2 * t];
        for (int i = 0; i < 2; i++) {
            Set in = bit(c->in[t][i]);
            skipped |= feeds && e->needs & bit(t) && !(e->needs & in);
            if (!(e->gradients & bit(2 * t + i))) continue;
            twice |= used & in & ~leaf_bits;
            used |= in;
        }
    }
    seen.useless_nodes_that_keep += useless;
    seen.skipped += skipped;
    seen.both_inputs_the_same += same;
    seen.used_twice += twice != 0;
    seen.held_no_more += less;
}

// ------------------------------------------------------------------------------------------------------------ all of them

static int failures;
enum { ENOUGH = 3 };

static void new_tape_and_leaves(void)
{
    tape = tape_new();
    for (int t = 0; t < LEAVES; t++) tensors[t] = new_leaf(t);
}

static void try_case(const Case *c, const Derivative *d)
{
    bool right = run_case(c, d);
    EXPECT(right, "%s:\n       %s", text_of(c), now.wrong);
    look_at(c, d);
    if (right) return;
    failures++;
    new_tape_and_leaves(); // what the old ones hold is not to be trusted
}

// Every set of leaves that train, beginning with both. way < 0: drawn.
static void try_leaves(Case *c, int way)
{
    Derivative d = derivative_of(c);
    for (int t = 0; t < LEAVES; t++) all_train[t].there = false;
    for (Set frozen = 0; frozen <= leaf_bits && failures < ENOUGH; frozen++) {
        c->trains = leaf_bits & ~frozen;
        c->way = (Way)way;
        if (way < 0) c->way = (Way)(random_bits(frozen + 1, (uint64_t)c->number) % SHOWING);
        try_case(c, &d);
    }
}

// The engine may end the program, by a check or by reading what is gone: then too the graph is named.
static struct sigaction handler_before[2];
static const int ends[2] = { SIGABRT, SIGSEGV };

static void name_the_case(int number)
{
    printf("     %s:\n       the engine stopped here\n", text_of(now.c));
    fflush(stdout);
    for (int i = 0; i < 2; i++)
        if (ends[i] == number) sigaction(number, &handler_before[i], NULL);
    raise(number);
}

static void begin_cases(void)
{
    struct sigaction action = { .sa_handler = name_the_case };
    for (int i = 0; i < 2; i++) sigaction(ends[i], &action, &handler_before[i]);
    seen = (Seen){ 0 };
    failures = 0;
    new_tape_and_leaves();
}

static void end_cases(void)
{
    for (int i = 0; i < 2; i++) sigaction(ends[i], &handler_before[i], NULL);
    if (failures > 0) return;
    tape_free(tape);
    for (int t = 0; t < LEAVES; t++) tensor_drop(tensors[t]);
    for (int kind = 0; kind < MEMORY_KINDS; kind++)
        EXPECT(live_bytes(kind) == 0, "%" PRId64 " bytes of %s are still live", live_bytes(kind), memory_kind_names[kind]);
    EXPECT(seen.never_recorded > 0 && seen.loss_is_frozen > 0 && seen.useless_nodes_that_keep > 0 && seen.skipped > 0,
           "%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64, seen.never_recorded, seen.loss_is_frozen, seen.useless_nodes_that_keep, seen.skipped);
    EXPECT(seen.both_inputs_the_same > 0 && seen.used_twice > 0 && seen.held_no_more > 0, "%" PRId64 ", %" PRId64 ", %" PRId64,
           seen.both_inputs_the_same, seen.used_twice, seen.held_no_more);
    EXPECT(seen.exact > seen.backwards / 100 * 99, "only %" PRId64 " of %" PRId64 " are compared with the formula", seen.exact, seen.backwards);
}

TEST(every_graph_of_up_to_three_nodes)
{
    begin_cases();
    for (int nodes = 1; nodes <= 3; nodes++)
        for (int number = 0; number < graphs_of(nodes); number++)
            for (Set kinds = 0; kinds < bit(nodes); kinds++)
                for (int loss = LEAVES; loss < LEAVES + nodes; loss++)
                    for (int way = HELD; way < WAYS && failures < ENOUGH; way++) {
                        Case c = graph_of(nodes, number);
                        c.multiply = kinds << LEAVES;
                        c.loss = loss;
                        try_leaves(&c, way);
                    }
    if (failures == 0) EXPECT(seen.cases == 4 * WAYS * (4 * 2 * 1 + 36 * 4 * 2 + 576 * 8 * 3), "%" PRId64 " cases", seen.cases);
    end_cases();
}

// Of the larger graphs, one in so many: all of them in double, but for slow builds. Primes let every choice of inputs turn up.
static int one_in(void)
{
    if (EVERY > 1) return 53;
    return IN_DOUBLE ? 1 : 7;
}

TEST(every_graph_of_four_nodes)
{
    begin_cases();
    for (int number = 0; number < graphs_of(4); number += one_in())
        for (Set kinds = 0; kinds < bit(4) && failures < ENOUGH; kinds++) {
            Case c = graph_of(4, number);
            c.multiply = kinds << LEAVES;
            try_leaves(&c, -1);
        }
    if (failures == 0 && one_in() == 1) EXPECT(seen.cases == 4 * 16 * 4 * 9 * 16 * 25, "%" PRId64 " cases", seen.cases);
    end_cases();
}

TEST(every_graph_of_five_nodes)
{
    begin_cases();
    for (int number = 0; number < graphs_of(5) && failures < ENOUGH; number += one_in()) {
        Case c = graph_of(5, number);
        c.multiply = (Set)(random_bits(0, (uint64_t)number) % bit(5)) << LEAVES;
        try_leaves(&c, -1);
    }
    if (failures == 0 && one_in() == 1) EXPECT(seen.cases == 4 * 4 * 9 * 16 * 25 * 36, "%" PRId64 " cases", seen.cases);
    end_cases();
}

// One graph in twenty-three: these two kinds of graph are rare among those drawn above.
TEST(five_nodes_that_all_add_or_all_multiply)
{
    begin_cases();
    for (int number = 0; number < graphs_of(5); number += 23 * one_in())
        for (int multiply = 0; multiply < 2 && failures < ENOUGH; multiply++) {
            Case c = graph_of(5, number);
            c.multiply = multiply ? (bit(5) - 1) << LEAVES : 0;
            try_leaves(&c, -1);
        }
    end_cases();
}

int main(void)
{
    RUN(every_graph_of_up_to_three_nodes);
    RUN(every_graph_of_four_nodes);
    RUN(every_graph_of_five_nodes);
    RUN(five_nodes_that_all_add_or_all_multiply);
    return test_summary();
}
