// test_shares.c - who computes what: each part of a kernel its share of the numbers, each thread its part, and two threads share
// all that is large.

#include "../adamw.h"
#include "../adapters.h"
#include "../generate.h"
#include "op_cases.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

// ------------------------------------------------------------------------------------------------------------------ shared work

// How many of `count` numbers have changed, of which `was` is a copy; sets how many changed that `owner` says another part changed.
static int64_t changed(const real *now, const real *was, int64_t count, unsigned char *owner, int64_t *twice)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        if (same_bits(&now[i], &was[i], 1)) continue;
        sum++;
        *twice += owner[i]++ > 0;
    }
    return sum;
}

// Runs a kernel on each of `parts` parts, each time on numbers that are as before, and counts what each writes to `to`.
static void check_shares(const char *what, Node *n, Kernel *kernel, real *to, int64_t size, int parts)
{
    real *was = copy_of(to, size);
    unsigned char *owner = calloc((size_t)size, 1);
    int64_t twice = 0, all = 0, least = size, most = 0;
    for (int i = 0; i < parts; i++) {
        memcpy(to, was, (size_t)size * sizeof *to);
        kernel(n, (Part){ i, parts });
        int64_t own = changed(to, was, size, owner, &twice);
        all += own;
        least = own < least ? own : least;
        most = own > most ? own : most;
    }
    EXPECT(twice == 0 && all > size / 4, "%s, %d parts: %" PRId64 " of %" PRId64 " numbers are written, %" PRId64 " by two parts", what, parts, all, size, twice);
    EXPECT(3 * most * parts <= 5 * all && 3 * least * parts >= all, "%s, %d parts: of %" PRId64 " numbers one part writes %" PRId64 ", another %" PRId64, what, parts, all, most,
           least);
    free(was), free(owner);
}

static void fill_gradient(Tensor *t, uint64_t seed)
{
    t->grad = memory_take(is_leaf(t) ? MEMORY_PARAMETER_GRADIENTS : MEMORY_ACTIVATION_GRADIENTS, t->size);
    for (int64_t i = 0; i < t->size; i++) t->grad[i] = (real)irregular(seed, i, 1);
}

// Shapes of which every side is long enough for three parts, of ops that share more than rows; the others have their large case.
static const Case shared_cases[] = {
    { &matmul_op, do_matmul, NULL, { { "a", 2, { 200, 256 } }, { "b", 2, { 256, 250 } } }, .large = true },
    { &embedding_op, do_embedding, NULL, { { "wte", 2, { 11, 200 } }, { "wpe", 2, { 32, 200 } } }, .large = true },
    { &layernorm_op, do_layernorm, NULL, { { "x", 2, { 30, 200 } }, { "gain", 1, { 200 } }, { "bias", 1, { 200 } } }, .large = true },
    { &linear_op, do_linear, NULL, { { "x", 2, { 200, 256 } }, { "W", 2, { 256, 250 } }, { "b", 1, { 250 } } }, .large = true },
    { &linear_op, do_linear, NULL, { { "x", 2, { 8, 250 } }, { "W", 2, { 250, 256 } }, { "b", 1, { 256 } } }, .large = true },
    { &lm_head_op, do_lm_head, NULL, { { "x", 2, { 200, 256 } }, { "wte", 2, { 250, 256 } } }, .large = true },
    { &attention_op, do_attention_3, NULL, { { "qkv", 3, { 2, 20, 54 } } }, .large = true },
    { &cross_entropy_op, do_cross_entropy, NULL, { { "logits", 2, { 200, 30 } } }, .large = true },
    { &matmul_add_op, do_matmul_add_kept, NULL, { { "y", 2, { 200, 250 } }, { "h", 2, { 200, 64 } }, { "B", 2, { 64, 250 } } }, .large = true },
};
enum { SHARED_CASES = sizeof shared_cases / sizeof *shared_cases };

// A kernel that gives all of its work to one part is right, and as slow as with one thread. Counted in numbers that each part writes.
static void share_out(const Case *c, int parts)
{
    Graph g = graph_new(c, PLAIN_USE);
    graph_forward(&g);
    Node *n = node_of(&g);
    char what[MAX_NAME + 40];
    fill_gradient(n->out, 7);
    for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++) {
        Tensor *in = n->in[i];
        if (n->op->input[i].grad == NULL) continue;
        snprintf(what, sizeof what, "%s, d/d %s", n->op->name, in->name);
        if (n->op->input[i].in_place) { check_shares(what, n, n->op->input[i].grad, n->out->grad, n->out->size, parts); continue; }
        if (in->grad == NULL) fill_gradient(in, 8);
        check_shares(what, n, n->op->input[i].grad, in->grad, in->size, parts);
    }
    for (int64_t i = 0; i < n->out->size; i++) n->out->data[i] = (real)-77; // the forward last: gradients read what it made
    snprintf(what, sizeof what, "%s, forward", n->op->name);
    if (n->out->size > 1) check_shares(what, n, n->op->forward, n->out->data, n->out->size, parts);
    graph_free(&g);
}

TEST(each_part_of_a_kernel_has_its_share)
{
    bool seen[MOST_OPS] = { [0] = false };
    seen[number_of(&recompute_op)] = true; // its block's ops are
    for (int c = 0; c < SHARED_CASES + CASES; c++) {
        const Case *one = c < SHARED_CASES ? &shared_cases[c] : &cases[c - SHARED_CASES];
        if (!one->large || (c >= SHARED_CASES && seen[number_of(one->op)])) continue;
        for (int parts = 2; parts <= 3; parts++) share_out(one, parts);
        seen[number_of(one->op)] = true;
    }
    for (int op = 0; all_ops[op] != NULL; op++) EXPECT(seen[op], "%s is not among the cases", all_ops[op]->name);
}

// ---- on threads of their own

enum { MOST_PARTS = 8 };
static struct { pthread_t thread[MOST_PARTS]; int calls[MOST_PARTS], count; } who; // computed which part, of how many

static void note(Part part)
{
    if (part.index >= MOST_PARTS) return;
    who.thread[part.index] = pthread_self();
    who.calls[part.index]++;
    if (part.index == 0) who.count = part.count;
}

// Whether `parts` parts ran once each, each on another thread, the first on the caller's.
static bool on_threads(int parts)
{
    bool good = who.count == parts && pthread_equal(who.thread[0], pthread_self());
    for (int i = 0; i < MOST_PARTS; i++) {
        good &= who.calls[i] == (i < parts);
        for (int j = 0; j < i && i < parts; j++) good &= !pthread_equal(who.thread[i], who.thread[j]);
    }
    memset(&who, 0, sizeof who);
    return good;
}

static void noted_work(void *context, Part part) { (void)context, note(part); }

static void noted_forward(const Node *n, Part part)
{
    Share s = elements(n, part);
    note(part);
    for (int64_t i = s.begin; i < s.end; i++) n->out->data[i] = n->in[0]->data[i];
}

static void noted_grad(const Node *n, Part part) { (void)n, note(part); }
static int64_t noted_flops(const Node *n) { return n->heads; }

static bool gradients_on_threads;
static int gradients_seen;
static bool look_at_gradient(void *watcher, const Tape *tape, const Node *n, int input, Event event)
{
    (void)tape;
    if (event != AFTER || input == FORWARD || strcmp(n->op->name, "noted") != 0) return true;
    gradients_seen++;
    gradients_on_threads &= on_threads(*(const int *)watcher);
    return true;
}

// Elementwise work of many numbers, and a product of few numbers and many FLOPs: both are worth the threads, forward and backward.
TEST(kernels_run_on_as_many_threads_as_were_asked_for)
{
    const Op elementwise = { .name = "noted", .forward = noted_forward, .input = { { .grad = noted_grad }, { .grad = noted_grad } } };
    const Op heavy = { .name = "noted", .forward = noted_forward, .flops = noted_flops, .input = { { .grad = noted_grad, .work = 1 }, { .grad = noted_grad, .work = 1 } } };
    static const int counts[] = { 2, 1, 3, 2, 5 };
    for (int k = 0; k < 5; k++) {
        parallel_set_threads(counts[k]);
        int threads = parallel_threads(); // the plain build has one
        for (int round = 0; round < 20; round++) {
            parallel_run(noted_work, NULL);
            EXPECT(on_threads(threads), "%d threads, round %d: the parts did not run on a thread each", threads, round);
        }
        for (int form = 0; form < 2; form++) {
            Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(form ? 2 : 300, 200)), *w = tensor_new("w", MEMORY_WEIGHTS, SHAPE(3));
            x->requires_grad = w->requires_grad = true;
            Tape *tape = tape_new();
            memset(&who, 0, sizeof who);
            Tensor *y = record(tape, (Node){ .op = form ? &heavy : &elementwise, .in = { x, w }, .heads = 1000000 }, NULL, x->ndim, x->shape);
            EXPECT(on_threads(threads), "%d threads, %s: forward does not run on all of them", threads, form ? "a product" : "elements");
            tape->watch = look_at_gradient, tape->watcher = &threads;
            gradients_on_threads = true, gradients_seen = 0;
            backward(tape, op_sum(tape, y));
            EXPECT(gradients_on_threads && gradients_seen == 2, "%d threads, %s: %d gradients, not on all of them", threads, form ? "a product" : "elements", gradients_seen);
            tape_free(tape);
            tensor_drop(x), tensor_drop(w);
        }
    }
    parallel_set_threads(2);
}

// ---- who computed a number? Every thread has a rounding mode of its own: the second one rounds up, so what it computes has other bits.

static void round_up(void *context, Part part) { (void)context, fesetround(part.index > 0 ? FE_UPWARD : FE_TONEAREST); }
static void round_as_usual(void *context, Part part) { (void)context, (void)part, fesetround(FE_TONEAREST); }

static bool can_round_up(void) // valgrind cannot
{
    volatile double one = 1, little = 1e-20, sum;
    fesetround(FE_UPWARD);
    sum = one + little;
    fesetround(FE_TONEAREST);
    return sum > 1;
}

enum { SLICES = 16 };
// Of 16 slices of a matrix, how many have other bits: slices across its rows or its columns, whichever are fewer. columns 1: a list.
static int slices_that_differ(const real *a, const real *b, int64_t size, int columns)
{
    bool differ[2][SLICES] = { { false } };
    int count[2] = { 0 };
    for (int64_t i = 0; i < size; i++)
        if (!same_bits(&a[i], &b[i], 1)) differ[0][i * SLICES / size] = differ[1][i % columns * SLICES / columns] = true;
    for (int k = 0; k < 2 * SLICES; k++) count[k / SLICES] += differ[k / SLICES][k % SLICES];
    return columns > 1 && count[1] < count[0] ? count[1] : count[0];
}

// Each deed, once with all threads rounding alike and once with one rounding up, leaves its numbers for comparison.
static void expect_shared(const char *what, real *(*deed)(int64_t *size), int columns)
{
    int64_t size;
    real *alone = deed(&size);
    parallel_run(round_up, NULL);
    real *shared = deed(&size);
    parallel_run(round_as_usual, NULL);
    real *again = deed(&size);
    int slices = slices_that_differ(alone, shared, size, columns);
    EXPECT(same_bits(alone, again, size), "%s: other bits the second time", what);
    EXPECT(slices >= SLICES / 2 - 2 && slices <= SLICES / 2 + 2, "%s: of %d slices the second thread computes %d", what, SLICES, slices);
    free(alone), free(shared), free(again);
}

enum { EACH = 40 * 16 * SLICES }; // numbers of a tensor: in each slice many that a rounding changes

static Tensor *some_weights(const char *name, int rows_, int columns, uint64_t seed)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE(rows_, columns));
    for (int64_t i = 0; i < t->size; i++) t->data[i] = (real)((random_uniform(seed, (uint64_t)i) - 0.5) / 3); // no sum of two is exact
    t->requires_grad = true;
    return t;
}

static void fill_rough_gradient(Tensor *t, uint64_t seed)
{
    fill_gradient(t, seed);
    for (int64_t i = 0; i < t->size; i++) t->grad[i] /= 3;
}

static real *deed_adamw(int64_t *size)
{
    Tensor *t = some_weights("t", 80, EACH / 80, 1);
    AdamW *optimizer = adamw_new(&t, 1, (AdamWConfig){ 0.9, 0.97, 0.1, 0 }); // no clipping: it would depend on the norm's bits
    fill_rough_gradient(t, 2);
    adamw_step(optimizer, 0.01);
    real *copy = copy_of(t->data, *size = t->size);
    adamw_free(optimizer);
    tensor_drop(t);
    return copy;
}

static real *deed_squares(int64_t *size) // in 16 pieces, one number each
{
    Tensor *t[SLICES];
    for (int i = 0; i < SLICES; i++) t[i] = some_weights("t", 30, 40, (uint64_t)i), fill_rough_gradient(t[i], 30 + (uint64_t)i);
    AdamW *optimizer = adamw_new(t, SLICES, (AdamWConfig){ 0.9, 0.97, 0.1, 0 });
    adamw_step(optimizer, 0.01);
    real *copy = calloc(2 * SLICES, sizeof *copy); // a slice has room for a double
    _Static_assert((int)NORM_PIECES == (int)SLICES, "a slice for each piece");
    for (int i = 0; i < SLICES; i++) memcpy(copy + 2 * i, &optimizer->squares[i], sizeof *optimizer->squares);
    *size = 2 * SLICES;
    adamw_free(optimizer);
    for (int i = 0; i < SLICES; i++) tensor_drop(t[i]);
    return copy;
}

static real *deed_merge(int64_t *size)
{
    Lora lora = lora_new("lora", 256, 64, 4, 0.7, 3);
    Tensor *W = some_weights("W", 256, 64, 4);
    for (int64_t i = 0; i < lora.B->size; i++) lora.B->data[i] = (real)(random_uniform(5, (uint64_t)i) - 0.5);
    Linear linear = { .weight = W, .lora = &lora };
    linear_merge(&linear);
    real *copy = copy_of(W->data, *size = W->size);
    linear_unmerge(&linear);
    lora_free(&lora);
    tensor_drop(W);
    return copy;
}

static real *deed_pass(int64_t *size) // x's gradient: d from the second product, and then c, which the addition passes on
{
    Tensor *x = some_weights("x", 300, 160, 1), *w = some_weights("w", 300, 160, 2), *c = some_weights("c", 300, 160, 3), *d = some_weights("d", 300, 160, 4);
    w->requires_grad = c->requires_grad = d->requires_grad = false;
    Tape *tape = tape_new();
    Tensor *first = op_mul(tape, op_add(tape, x, w), c), *second = op_mul(tape, x, d);
    backward(tape, op_sum(tape, op_add(tape, first, second)));
    real *copy = copy_of(x->grad, *size = x->size);
    tape_free(tape);
    tensor_drop(x), tensor_drop(w), tensor_drop(c), tensor_drop(d);
    return copy;
}

static real *deed_products(int64_t *size)
{
    Tensor *a = some_weights("a", 160, 60, 1), *b = some_weights("b", 60, 64, 2), *y = op_matmul(NULL, a, b);
    real *copy = copy_of(y->data, *size = y->size);
    tensor_drop(a), tensor_drop(b), tensor_drop(y);
    return copy;
}

// The heads of which the second thread computes the attention of new tokens: only one at a time reaches the logits.
static void expect_shared_heads(void)
{
    enum { HEADS = 4, WIDTH = 16, LENGTH = 12 };
    char error[200];
    Transformer *model = transformer_new((Config){ 11, LENGTH, 1, HEADS, WIDTH, 0 }, 5, error, sizeof error);
    for (int i = 0; i < model->parameter_count; i++) fill_irregular(model->parameters[i], 70 + (uint64_t)i, 1);
    Tensor *proj = model->blocks[0].linear[ATTN_C_PROJ].weight;
    for (int head = 0; head < HEADS; head++) {
        real *logits[2];
        for (int64_t i = 0; i < proj->size; i++) proj->data[i] = i / WIDTH / (WIDTH / HEADS) == head ? (real)irregular(3, i, 1) : 0;
        for (int up = 0; up < 2; up++) {
            Cache cache = cache_new(model);
            parallel_run(up ? round_up : round_as_usual, NULL);
            Tensor *next = transformer_next(model, &cache, ids_below(11, LENGTH), LENGTH);
            logits[up] = copy_of(next->data, next->size);
            tensor_drop(next);
            cache_free(&cache);
        }
        parallel_run(round_as_usual, NULL);
        EXPECT(same_bits(logits[0], logits[1], 11) == (head < HEADS / 2), "head %d of new tokens is computed by the %s thread", head, head < HEADS / 2 ? "second" : "first");
        free(logits[0]), free(logits[1]);
    }
    transformer_free(model);
}

TEST(two_threads_share_what_is_not_an_op)
{
    EXPECT(parallel_threads() <= 2, "%d threads", parallel_threads());
    if (parallel_threads() == 1 || !can_round_up()) return; // the plain build has one thread
    expect_shared("adamw's update", deed_adamw, 1);
    expect_shared("the squares of adamw's norm", deed_squares, 1);
    expect_shared("merging", deed_merge, 64);
    expect_shared("a gradient passed on", deed_pass, 1);
    expect_shared("a product", deed_products, 64);
    expect_shared_heads();
}

// ---- who wrote a zero, or a copy? These have the same bits whoever writes them: so the pages of their buffer are closed, and the thread
// that comes to a page first is noted when it is stopped there.

enum { MOST_PAGES = 512 };
static struct { char *begin; size_t page; int count; pthread_t by[MOST_PAGES]; bool touched[MOST_PAGES]; } closed;

static void on_touch(int number, siginfo_t *info, void *context)
{
    (void)context;
    int64_t i = ((char *)info->si_addr - closed.begin) / (int64_t)closed.page;
    if ((char *)info->si_addr < closed.begin || i >= closed.count) { signal(number, SIG_DFL); return; } // another fault: it comes again, and is the end
    closed.by[i] = pthread_self();
    closed.touched[i] = true;
    mprotect(closed.begin + i * (int64_t)closed.page, closed.page, PROT_READ | PROT_WRITE);
}

// Closes the whole pages of the buffer that the `turn`-th request of `size` numbers will get.
static void close_pages(int64_t size, int turn)
{
    real *buffer[2];
    for (int i = 0; i < turn; i++) buffer[i] = memory_take(MEMORY_WORKSPACE, size);
    closed.page = (size_t)sysconf(_SC_PAGESIZE);
    closed.begin = (char *)(((uintptr_t)buffer[turn - 1] + closed.page) / closed.page * closed.page); // the pool writes in front
    closed.count = (int)((uintptr_t)((char *)(buffer[turn - 1] + size) - closed.begin) / closed.page);
    if (closed.count > MOST_PAGES) closed.count = MOST_PAGES;
    memset(closed.touched, 0, sizeof closed.touched);
    for (int i = turn - 1; i >= 0; i--) memory_give(MEMORY_WORKSPACE, buffer[i], size);
    mprotect(closed.begin, (size_t)closed.count * closed.page, PROT_NONE);
}

static void nothing(const Node *n, Part part) { (void)n, (void)part; }
static const Op swallow = { .name = "swallow", .forward = nothing, .input = { { .grad = nothing } } }; // x of any size -> [1]

// The gradient of x is cleared for the kernel; or, with `passes`, copied from that of w + x.
static void check_pages(bool passes)
{
    Tensor *x = tensor_new("x", MEMORY_WEIGHTS, SHAPE(200, 400)), *w = tensor_new("w", MEMORY_WEIGHTS, SHAPE(200, 400));
    x->requires_grad = true;
    Tape *tape = tape_new();
    Tensor *loss = record(tape, (Node){ .op = &swallow, .in = { passes ? op_add(tape, w, x) : x } }, NULL, SHAPE(1));
    struct sigaction act = { .sa_sigaction = on_touch, .sa_flags = SA_SIGINFO }, segv, bus;
    sigaction(SIGSEGV, &act, &segv), sigaction(SIGBUS, &act, &bus);
    close_pages(x->size, passes ? 2 : 1);
    backward(tape, loss);
    mprotect(closed.begin, (size_t)closed.count * closed.page, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &segv, NULL), sigaction(SIGBUS, &bus, NULL);
    int touched = 0, second = 0;
    for (int i = 0; i < closed.count; i++) {
        touched += closed.touched[i];
        second += closed.touched[i] && !pthread_equal(closed.by[i], pthread_self());
    }
    EXPECT(touched == closed.count && touched > 4, "passes %d: %d of %d pages of a gradient are written", passes, touched, closed.count);
    EXPECT(4 * second >= touched && 4 * second <= 3 * touched, "passes %d: of %d pages the second thread writes %d", passes, touched, second);
    tape_free(tape);
    tensor_drop(x), tensor_drop(w);
}

TEST(two_threads_share_zeros_and_copies)
{
    EXPECT(parallel_threads() <= 2, "%d threads", parallel_threads());
#ifdef POISON // the caller writes into each buffer that it takes
    const bool first_come = false;
#else
    const bool first_come = true;
#endif
    for (int passes = 0; passes < 2 && parallel_threads() == 2 && first_come; passes++) check_pages(passes);
}

int main(void)
{
    parallel_set_threads(2);
    RUN(each_part_of_a_kernel_has_its_share);
    RUN(kernels_run_on_as_many_threads_as_were_asked_for);
    RUN(two_threads_share_what_is_not_an_op);
    RUN(two_threads_share_zeros_and_copies);
    return test_summary();
}
