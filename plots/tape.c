// tape.c - draws a tape as SVG on stdout, from a run of the engine: tape chain|guard|freezing|lora.
//
// The nodes stand in the order in which they were recorded, the loss at the bottom. A stream from a node up to the node that made
// its input: this gradient was computed. A chip beside a node is a leaf that it reads: filled if its gradient was computed, an
// empty one of ice if it is frozen, grey if it is a constant of the lesson. Between: the data that the node kept for backward.

#include "lora.h"
#include "meter.h"
#include "ops.h"
#include "io/machine.h"
#include "io/options.h"

enum { MOST = 32, ROW = 58, HIGH = 34, NODE = 250, WIDE = 150, CHIP = 420, TOP = 64 };

typedef struct Drawing {
    Node nodes[MOST]; // as they were before backward, which empties the tape
    char kept[MOST][96];
    bool computed[MOST][MAX_INPUTS];
    int  count;
} Drawing;
static Drawing drawing;

static bool see(void *watcher, const Tape *tape, const Node *n, int input, Event event)
{
    Drawing *d = watcher;
    if (input != FORWARD && event == AFTER) d->computed[n - tape->nodes][input] = true;
    return true;
}

// Remembers what is on the tape, and then goes back over it.
static void run(Tape *tape, Tensor *loss)
{
    Drawing *d = &drawing;
    d->count = tape->count;
    check(d->count <= MOST, "%d nodes, room for %d", d->count, MOST);
    for (int k = 0; k < d->count; k++) {
        const Node *n = &tape->nodes[k];
        d->nodes[k] = *n;
        for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++)
            if (n->kept & KEEP(i) && !is_leaf(n->in[i])) snprintf(d->kept[k], sizeof d->kept[k], "keeps %.60s", n->in[i]->name);
        if (n->kept & KEEP_OUT) snprintf(d->kept[k], sizeof d->kept[k], "keeps its result");
    }
    tape->watch = see;
    tape->watcher = d;
    backward(tape, loss);
}

static int maker_of(const Tensor *t)
{
    int k = drawing.count - 1;
    while (k >= 0 && drawing.nodes[k].out != t) k--;
    return k;
}

static double middle(int k) { return TOP + k * ROW + HIGH / 2.0; }

static void text(double x, double y, const char *class, const char *words)
{
    printf("<text x=\"%.0f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y, class, words);
}

// From node k's input down to it: straight from the one above, else around the left side.
static void draw_edge(int from, int to, bool computed)
{
    const char *class = computed ? "stream" : "quiet";
    double x = NODE + WIDE / 2.0, top = TOP + from * ROW + HIGH, bottom = TOP + to * ROW, bend = NODE - 34 - 6 * (to - from);
    if (to == from + 1) printf("<path class=\"%s\" d=\"M%.0f %.0fV%.0f\"/>\n", class, x, top, bottom);
    else printf("<path class=\"%s\" d=\"M%d %.0fC%.0f %.0f %.0f %.0f %d %.0f\"/>\n", class, NODE, middle(from), bend, middle(from),
                bend, middle(to), NODE, middle(to));
}

static void draw_chip(int k, int input, int place)
{
    const Tensor *t = drawing.nodes[k].in[input];
    char words[MAX_NAME + 64];
    bool computed = drawing.computed[k][input], weight = is_leaf(t) && t->ndim == 2 && strcmp(t->name, "input") != 0;
    double y = TOP + k * ROW + 17.0 * place;
    printf("<rect x=\"%d\" y=\"%.1f\" width=\"230\" height=\"16\" rx=\"3\" class=\"%s\"/>\n", CHIP, y - 1,
           computed ? "trains" : weight ? "ice" : "constant");
    if (computed) snprintf(words, sizeof words, "%s: gradient computed", t->name);
    else snprintf(words, sizeof words, weight ? "%s frozen: gradient not computed" : is_leaf(t) ? "%s, a constant"
                  : "%s: nothing below it trains", t->name);
    text(CHIP + 8, y + 11.5, computed ? "on" : "chip", words);
}

static void draw_node(int k)
{
    const Node *n = &drawing.nodes[k];
    int chips = 0;
    for (int i = 0; i < MAX_INPUTS && n->in[i] != NULL; i++) {
        int from = maker_of(n->in[i]);
        if (from >= 0) draw_edge(from, k, drawing.computed[k][i]);
        else draw_chip(k, i, chips++);
    }
    printf("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"5\" class=\"node\"/>\n", NODE, TOP + k * ROW, WIDE, HIGH);
    char words[160];
    snprintf(words, sizeof words, "#%d %s %s", k, n->op->name, shape_text(n->out));
    text(NODE + WIDE / 2.0, middle(k) + 4, "mid", words);
    text(16, middle(k) + 4, "kept", drawing.kept[k]);
}

static void draw(const char *title)
{
    int height = TOP + drawing.count * ROW + 8;
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 680 %d\" font-family=\"system-ui,Helvetica,Arial,sans-serif\" "
           "font-size=\"13\">\n<title>%s</title>\n<style>", height, title);
    printf("svg{--page:#fcfcfa;--ink:#172230;--soft:#536070;--line:#d6dbe1;--ice:#dcecf8;--cold:#6fa3cc;--warm:#c2500f;--kept:#12806a}"
           "@media(prefers-color-scheme:dark){svg{--page:#10161d;--ink:#e7ecf2;--soft:#a8b3c1;--line:#2c3743;--ice:#1b3a56;"
           "--cold:#6ba3d4;--warm:#e0762f;--kept:#37b294}}"
           "text{fill:var(--ink)}.h{font-size:15px;font-weight:700}.mid{text-anchor:middle}.chip{font-size:12px}.on{font-size:12px;"
           "fill:#fff}.kept{font-size:12px;fill:var(--kept)}.soft{font-size:12px;fill:var(--soft)}.back{fill:var(--page);"
           "stroke:var(--line)}.node{fill:var(--page);stroke:var(--ink)}.ice{fill:var(--ice);stroke:var(--cold)}.trains{fill:#c2500f}"
           ".constant{fill:none;stroke:var(--line)}.stream{fill:none;stroke:var(--warm);stroke-width:6}.quiet{fill:none;"
           "stroke:var(--cold);stroke-width:2;stroke-dasharray:4 4}</style>\n");
    printf("<rect x=\"0.5\" y=\"0.5\" width=\"679\" height=\"%d\" rx=\"10\" class=\"back\"/>\n", height - 1);
    text(16, 26, "h", title);
    text(16, 46, "soft", "Broad: a gradient that was computed, on its way up. Dashed: none was needed.");
    for (int k = 0; k < drawing.count; k++) draw_node(k);
    printf("</svg>\n");
}

static Tensor *leaf(const char *name, int rows, int columns, bool trains, uint64_t seed)
{
    Tensor *t = tensor_new(name, MEMORY_WEIGHTS, SHAPE(rows, columns));
    fill_normal(t, 0.3, seed);
    t->requires_grad = trains;
    return t;
}

// Chapter 1: y = 2a + 5a, a = 3x.
static const char *chain(Tape *tape)
{
    Tensor *x = tensor_from("x", (real[]){ 2 }, SHAPE(1));
    x->requires_grad = true;
    Tensor *a = op_scale(tape, x, 3);
    run(tape, op_add_scaled(tape, op_scale(tape, a, 2), a, 5));
    return "a = 3x, b = 2a, y = b + 5a: two paths lead to a";
}

// Chapter 4: y = w x + x, w frozen.
static const char *guard(Tape *tape)
{
    Tensor *x = leaf("x", 1, 1, true, 1), *w = leaf("w", 1, 1, false, 2);
    run(tape, op_add(tape, op_mul(tape, w, x), x));
    return "y = w x + x: the guard passes over w";
}

// Chapter 9: three layers, the middle one frozen.
static const char *freezing(Tape *tape)
{
    static const char *const names[] = { "W1", "W2", "W3" };
    Tensor *h = leaf("input", 4, 8, false, 1);
    for (int i = 0; i < 3; i++) h = op_tanh(tape, op_matmul(tape, h, leaf(names[i], 8, 8, i != 1, (uint64_t)(2 + i))));
    run(tape, op_mean(tape, h));
    return "Three layers, the middle one frozen";
}

// Chapter 10: three frozen layers, an adapter on the first and the last.
static const char *lora(Tape *tape)
{
    static const char *const names[] = { "W1", "W2", "W3" }, *const adapters[] = { "one", "", "three" };
    static Lora on[3];
    Tensor *h = leaf("input", 4, 8, false, 1);
    for (int i = 0; i < 3; i++) {
        on[i] = lora_new(adapters[i], 8, 8, 2, 1, (uint64_t)(5 + i));
        Linear layer = { .weight = leaf(names[i], 8, 8, false, (uint64_t)(2 + i)), .bias = tensor_new("b", MEMORY_WEIGHTS, SHAPE(8)),
                         .lora = i == 1 ? NULL : &on[i] };
        Tensor *y = linear_apply(tape, &layer, h);
        h = i == 2 ? y : op_tanh(tape, y);
    }
    run(tape, op_mean(tape, h));
    return "Three frozen layers, an adapter on the first and the last";
}

int main(int argc, char **argv)
{
    program_name = "tape";
    static const struct { const char *name; const char *(*build)(Tape *tape); } tapes[] = { { "chain", chain }, { "guard", guard },
        { "freezing", freezing }, { "lora", lora } };
    for (size_t i = 0; argc == 2 && i < sizeof tapes / sizeof *tapes; i++)
        if (strcmp(argv[1], tapes[i].name) == 0) {
            draw(tapes[i].build(tape_new()));
            return output_status();
        }
    die(EXIT_USAGE, "usage: tape chain|guard|freezing|lora");
}
