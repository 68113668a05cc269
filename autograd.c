// autograd.c - see autograd.h. Recording first: what every op goes through. Then backward, with the guard.
//
// Read next: ops.c, `mul` and `linear`.

#include "autograd.h"

#include <stdlib.h>

enum { SMALL_WORK = 20000 }; // multiplications, or elements: below this, waking the other threads costs more than it brings

// ---------------------------------------------------------------------------------------------------------------- recording

static void *grow(void *array, int *capacity, size_t element)
{
    *capacity = *capacity ? 2 * *capacity : 64;
    return reallocate(array, (size_t)*capacity, element, "the nodes of a tape");
}

Tape *tape_new(void) { return allocate(1, sizeof(Tape), "a tape"); }

int64_t flops_of(const Node *n, int input)
{
    return n->op->flops ? n->op->flops(n) * (input == FORWARD ? 1 : n->op->input[input].work) : 0;
}

static int64_t saved_size(const Node *n) { return n->op->saved ? n->op->saved(n) : 0; }

// Tells the observer, if there is one; false: it wants this gradient dropped.
static bool tell(const Tape *tape, const Node *n, int input, Event event)
{
    return tape == NULL || tape->watch == NULL || tape->watch(tape->watcher, tape, n, input, event);
}

typedef struct Call { const Node *node; Kernel *kernel; } Call;

static void call_part(void *context, Part part)
{
    const Call *call = context;
    call->kernel(call->node, part);
}

static void on_all_cores(const Node *n, Kernel *kernel) { parallel_run(call_part, &(Call){ n, kernel }); }

static bool is_small(const Node *n, int input)
{
    int64_t size = n->out->size;
    for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++) size += n->in[i]->size;
    return parallel_threads() == 1 || flops_of(n, input) / 2 + size < SMALL_WORK;
}

static void run_forward(const Node *n)
{
    if (is_small(n, FORWARD)) n->op->forward(n, WHOLE);
    else on_all_cores(n, n->op->forward);
}

// What the gradients of the first `inputs` inputs read, of those that require one. A node, once recorded, must hold this for
// all of its inputs, and nothing more; and in backward less and less.
static unsigned keeps_of(const Node *n, int inputs)
{
    unsigned keeps = KEEP_NONE;
    for (int i = 0; i < inputs && n->in[i] != NULL; i++)
        if (n->in[i]->requires_grad) keeps |= n->op->input[i].keeps;
    return keeps;
}

static void check_input(const Tape *tape, const Node *n, int i)
{
    const Tensor *in = n->in[i];
    tensor_check(in, n->op->name);
    check(has_numbers(in), "%s: input %d, %s %s, has no data: it was dropped", n->op->name, i, in->name, shape_text(in));
    check(in->codes == NULL || (i > 0 && i == n->op->weight), "%s: input %d, %s, is in codes, which only the weight of a "
          "linear layer may be; tensor_unpack makes numbers of them", n->op->name, i, in->name);
    check(in->codes == NULL || !in->requires_grad, "%s: %s is in codes, which cannot train: freeze it, or tensor_unpack it first",
          n->op->name, in->name);
    check(tape == NULL || !in->requires_grad || !in->spent,
          "%s: input %d, %s, was made on a tape that backward has consumed", n->op->name, i, in->name);
    check(tape == NULL || in->tape == NULL || in->tape == tape || in->tape == tape->outer,
          "%s: input %d, %s, was made on another tape", n->op->name, i, in->name);
}

// Holds what the node's gradients will read, and appends it. With its first input there anyway, its output need not be kept by
// others, if it can be made again.
static void append(Tape *tape, Node n)
{
    n.out->again = n.kept & KEEP(0) && n.op->again != KEEP_NONE;
    if (n.out->again) n.kept |= n.op->again;
    for (int i = 0; i < MAX_INPUTS && n.in[i] != NULL; i++) {
        tensor_use(n.in[i]);
        if (n.kept & KEEP(i)) tensor_keep(n.in[i]);
    }
    if (n.kept & KEEP_OUT) tensor_keep(n.out);
    n.out->requires_grad = true;
    // After its inputs were appended: so walking from the last node to the first meets every consumer of a tensor before the
    // node that made it, and its gradient is complete when its turn comes.
    if (tape->count == tape->capacity) tape->nodes = grow(tape->nodes, &tape->capacity, sizeof *tape->nodes);
    tape->nodes[tape->count++] = n;
}

static Tensor *new_result(Tape *tape, const Node *n, Tensor *place, int ndim, const int *shape)
{
    char name[MAX_NAME];
    snprintf(name, sizeof name, "%s#%d", n->op->name, tape ? tape->result_count : 0);
    Tensor *out = tensor_result(name, tape, place, ndim, shape);
    if (tape == NULL) return out;
    if (tape->result_count == tape->result_capacity)
        tape->results = grow(tape->results, &tape->result_capacity, sizeof *tape->results);
    return tape->results[tape->result_count++] = out;
}

Tensor *record(Tape *tape, Node n, Tensor *place, int ndim, const int *shape)
{
    bool requires_grad = false;
    for (int i = 0; i < MAX_INPUTS && n.in[i] != NULL; i++) {
        check_input(tape, &n, i);
        requires_grad |= n.in[i]->requires_grad;
    }
    bool recorded = tape != NULL && requires_grad;
    bool in_place = place != NULL && place->kind == MEMORY_LIVE_ACTIVATIONS && place->kept == 0;

    tell(tape, &n, FORWARD, BEFORE);
    n.out = new_result(tape, &n, in_place ? place : NULL, ndim, shape);
    n.kept = recorded ? keeps_of(&n, MAX_INPUTS) : KEEP_NONE;
    if (n.kept & KEEP_SAVED) n.saved = memory_take(MEMORY_KEPT_ACTIVATIONS, saved_size(&n));
    run_forward(&n);
    tell(tape, &n, FORWARD, AFTER);

    if (recorded) append(tape, n);
    else tell(tape, &n, FORWARD, NOT_RECORDED);
    if (in_place) tensor_give_up(place);
    else tensor_drop(place);
    return n.out;
}

// Lets go of some of what a node holds.
static void unkeep(Node *n, unsigned what)
{
    for (int i = 0; i < MAX_INPUTS; i++)
        if (what & KEEP(i)) tensor_unkeep(n->in[i]);
    if (what & KEEP_OUT) tensor_unkeep(n->out);
    if (what & KEEP_SAVED) {
        memory_give(MEMORY_KEPT_ACTIVATIONS, n->saved, saved_size(n));
        n->saved = NULL;
    }
    n->kept &= ~what;
}

// Lets go of all that a node holds. Its output can feed nothing any more.
static void release(Node *n)
{
    unkeep(n, n->kept);
    tensor_drop_grad(n->out);
    n->out->spent = true;
    for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++) tensor_unuse(n->in[i]);
}

void tape_forget(Tape *tape)
{
    for (int i = tape->count - 1; i >= 0; i--) release(&tape->nodes[i]);
    tape->count = 0;
}

void tape_clear(Tape *tape)
{
    tape_forget(tape);
    for (int i = 0; i < tape->result_count; i++) tensor_free(tape->results[i]);
    tape->result_count = 0;
    tape->dropout_calls = 0;
}

void tape_free(Tape *tape)
{
    if (tape == NULL) return;
    tape_clear(tape);
    tape_free(tape->inner);
    free(tape->nodes);
    free(tape->results);
    free(tape);
}

// ----------------------------------------------------------------------------------------------------------------- backward

static MemoryKind grad_kind(const Tensor *t) { return is_leaf(t) ? MEMORY_PARAMETER_GRADIENTS : MEMORY_ACTIVATION_GRADIENTS; }

static void clear_part(void *context, Part part)
{
    Tensor *t = context;
    Share s = share(part, t->size, 64 * GRAIN);
    memset(t->grad + s.begin, 0, (size_t)(s.end - s.begin) * sizeof(real));
}

// Gives t a gradient for a kernel to add to: of zeros; or left empty, for a product, which takes it as zeros and stores.
static void need_grad(Tensor *t, bool product)
{
    t->grad = memory_take(grad_kind(t), t->size);
    t->grad_empty = product;
    if (product) return;
    if (t->size < SMALL_WORK) clear_part(t, WHOLE);
    else parallel_run(clear_part, t);
}

typedef struct Pass { real *dx; const real *dy; int64_t size; bool first; } Pass;

static void pass_part(void *context, Part part)
{
    const Pass *p = context;
    Share s = share(part, p->size, GRAIN);
    if (p->first) memcpy(p->dx + s.begin, p->dy + s.begin, (size_t)(s.end - s.begin) * sizeof(real));
    else for (int64_t i = s.begin; i < s.end; i++) p->dx[i] += p->dy[i];
}

// dx += dy, where the gradient of an input is the output's own. Input 0 is the last to read it: its first gradient takes the
// buffer over.
static void pass_on(Node *n, int i)
{
    Tensor *in = n->in[i], *out = n->out;
    bool first = in->grad == NULL;
    if (first && i == 0) {
        in->grad = out->grad;
        out->grad = NULL;
        memory_move(MEMORY_ACTIVATION_GRADIENTS, grad_kind(in), in->size);
        return;
    }
    if (first) in->grad = memory_take(grad_kind(in), in->size);
    Pass pass = { in->grad, out->grad, in->size, first };
    if (in->size < SMALL_WORK) pass_part(&pass, WHOLE);
    else parallel_run(pass_part, &pass);
}

// The one place where a result is made again. The node that made it stands below on the same tape, and holds what forward reads.
void make_again(const Tape *tape, const Node *n, unsigned reads)
{
    for (int i = 0; i < MAX_INPUTS; i++) {
        if (!(reads & KEEP(i)) || has_numbers(n->in[i])) continue;
        const Node *maker = n;
        for (; maker->out != n->in[i]; maker--) check(maker > tape->nodes, "%s: no node made %s", n->op->name, n->in[i]->name);
        make_again(tape, maker, maker->op->again);
        tensor_return(maker->out);
        run_forward(maker);
        tell(tape, maker, FORWARD, MADE_AGAIN);
    }
}

static void run_gradient(Tape *tape, Node *n, int i)
{
    Tensor *in = n->in[i];
    Kernel *kernel = n->op->input[i].grad;
    bool passes = kernel == NULL || n->op->input[i].in_place;
    check((n->op->input[i].keeps & ~n->kept) == 0,
          "backward: %s was frozen when %s used it, and is not now: set requires_grad before the forward pass",
          in->name, n->out->name);
    if (!tell(tape, n, i, BEFORE)) return;
    make_again(tape, n, n->op->input[i].keeps);
    if (in->grad == NULL && !passes) need_grad(in, n->op->input[i].work > 0);
    if (kernel != NULL) {
        if (is_small(n, i)) kernel(n, WHOLE);
        else on_all_cores(n, kernel);
    }
    if (passes) pass_on(n, i);
    in->grad_empty = false;
    tell(tape, n, i, AFTER);
    unkeep(n, n->kept & ~keeps_of(n, i)); // X goes once dW has read it: dX may take its place
}

// From the last node to the first; every node has its output's whole gradient when its turn comes (see append). One whose
// result did not lead to the loss has none, and is passed over.
void run_backward(Tape *tape)
{
    for (int number = tape->count - 1; number >= 0; number--) {
        Node *n = &tape->nodes[number];
        if (n->op->program != NULL && n->out->grad != NULL) n->op->program(tape, n);
        for (int i = MAX_INPUTS - 1; i >= 0 && n->out->grad != NULL; i--) {
            if (n->in[i] == NULL) continue;
            if (!n->in[i]->requires_grad) { tell(tape, n, i, SKIPPED); continue; } // the guard: all that freezing is
            run_gradient(tape, n, i);
        }
        release(n);
    }
    tape->count = 0;
}

void backward(Tape *tape, Tensor *loss)
{
    tensor_check(loss, "backward");
    check(loss->size == 1, "backward(%s): the loss has shape %s, not one number; op_mean or op_sum makes one", loss->name,
          shape_text(loss));
    check(!loss->spent, "backward(%s): backward has been called on this tape; build the graph again", loss->name);
    check(loss->requires_grad, "backward(%s): nothing trainable feeds the loss; did you attach an adapter?", loss->name);
    check(loss->tape == tape && tape->count > 0, "backward(%s): the loss was not made on this tape", loss->name);
    need_grad(loss, false);
    loss->grad[0] = 1; // d(loss)/d(loss)
    run_backward(tape);
}
