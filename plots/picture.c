// picture.c - draws the README's picture as SVG on stdout: a step of full training beside one of LoRA, in bytes, and where
// gradients flow.

#include "io/progress.h"
#include "plots/flow.h"
#include "plots/palette.h"

#include <errno.h>

static Palette palette; // kinds of bytes, from the bottom up
enum { PANEL = 400, TOP = 96, BOTTOM = 316, MOST = 40000000, ROWS = 2000 };

static double height(int64_t bytes) { return BOTTOM - (double)(BOTTOM - TOP) * (double)bytes / MOST; }

typedef struct Timeline { int64_t bytes[ROWS][MEMORY_KINDS], total[ROWS]; int rows, backward, peak; } Timeline;

static void read_timeline(FILE *file, Timeline *t)
{
    char line[512];
    *t = (Timeline){ .backward = -1 };
    rewind(file);
    if (fgets(line, sizeof line, file) == NULL) die(EXIT_FAILED, "the timeline is empty");
    for (; fgets(line, sizeof line, file) != NULL; t->rows++) {
        check(t->rows < ROWS, "the timeline has more than %d rows", ROWS);
        if (t->backward < 0 && strncmp(line, "backward", 8) == 0) t->backward = t->rows;
        char *at = strchr(strchr(line, ',') + 1, ',');
        for (int k = 0; k < MEMORY_KINDS; k++) t->total[t->rows] += t->bytes[t->rows][k] = strtoll(at + 1, &at, 10);
        if (t->total[t->rows] > t->total[t->peak]) t->peak = t->rows;
    }
}

static void label(double x, double y, const char *style, const char *text)
{
    printf("<text x=\"%.1f\" y=\"%.1f\"%s%s>%s</text>\n", x, y, *style ? " " : "", style, text);
}

// One half of the picture: what it shows, and where it stands.
typedef struct Panel { double left, each; bool full; Measured m; Flow flow; Timeline *t; } Panel; // each: pixels an event

static void draw_grid(const Panel *p)
{
    char text[16];
    for (int mb = 0; mb <= 40; mb += 10) {
        double y = height((int64_t)1000000 * mb);
        printf("<path class=\"grid\" d=\"M%.1f %.1fh%d\"/>\n", p->left, y, PANEL);
        snprintf(text, sizeof text, mb == 40 ? "%d MB" : "%d", mb);
        label(p->left - 6, y + 4, "class=\"end\"", text);
    }
}

static void draw_areas(const Panel *p)
{
    for (int l = MEMORY_KINDS - 1; l >= 0; l--) { // each area down to the axis; the next ones cover what is not its own
        printf("<path class=\"k%d\" d=\"M%.1f %d", l, p->left, BOTTOM);
        double y = BOTTOM;
        for (int i = 0; i < p->t->rows; i++) {
            int64_t under = 0;
            for (int j = 0; j <= l; j++) under += p->t->bytes[i][j];
            if (fabs(height(under) - y) < 0.05) continue;
            y = height(under);
            printf("H%.1fV%.1f", p->left + i * p->each, y);
        }
        printf("H%.1fV%dz\"/>\n", p->left + PANEL, BOTTOM);
    }
}

// Labels in the areas that have room for one, at the end of forward; the bytes are those at the peak. Then peak and axis.
static void draw_labels(const Panel *p)
{
    char text[160];
    const Timeline *t = p->t;
    double x = p->left + (t->peak + 0.5) * p->each, y = height(t->total[t->peak]), turn = t->backward * p->each;
    int64_t under = 0;
    for (int l = 0; l < MEMORY_KINDS; l++) {
        int64_t bytes = t->bytes[t->backward][l];
        if (bytes > 2500000) {
            snprintf(text, sizeof text, "%s%s %s", l == MEMORY_WEIGHTS && !p->full ? "frozen " : "", palette.name[l],
                     bytes_text((double)p->m.ledger.at_peak[l]));
            double middle = (height(under) + height(under + bytes)) / 2 + 5;
            label(x, middle, l == MEMORY_WEIGHTS ? "class=\"mid\"" : "class=\"mid on\"", text);
        }
        under += bytes;
    }
    printf("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" class=\"dot\"/>\n", x, y);
    snprintf(text, sizeof text, "peak %s bytes", thousands(p->m.ledger.peak));
    label(x, y - 9, "class=\"mid b\"", text);
    printf("<path class=\"axis\" d=\"M%.1f %dh%d\"/>\n<path class=\"axis\" d=\"M%.1f %dv8\"/>\n", p->left, BOTTOM, PANEL,
           p->left + turn, BOTTOM);
    label(p->left + turn / 2, BOTTOM + 17, "class=\"mid\"", "forward");
    label(p->left + (t->backward + t->rows) * p->each / 2, BOTTOM + 17, "class=\"mid\"", "backward, optimizer");
}

// A key to what is too thin for a label of its own, with the most that it holds.
static void draw_key(const Panel *p)
{
    static const MemoryKind keys[2][5] = { { MEMORY_ADAPTERS, MEMORY_PARAMETER_GRADIENTS, MEMORY_MOMENTS, MEMORY_LIVE_ACTIVATIONS,
                                             MEMORY_ACTIVATION_GRADIENTS },
                                           { MEMORY_PARAMETER_GRADIENTS, MEMORY_LIVE_ACTIVATIONS, MEMORY_ACTIVATION_GRADIENTS } };
    char text[160];
    double at = TOP + 4;
    for (int i = 0; i < 5 && (i == 0 || keys[p->full][i] != 0); i++) {
        MemoryKind k = keys[p->full][i];
        printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" class=\"k%d\"/>\n", p->left + 206, at - 10, k);
        snprintf(text, sizeof text, "%s %s", palette.name[k], bytes_text((double)p->m.ledger.own_peak[k]));
        label(p->left + 222, at, "", text);
        at += 15;
    }
}

// The matrices from the bottom (left) to the head, where the loss is.
static void draw_flow(const Panel *p)
{
    static const char *const names[] = { "through W", "of W", "of A and B" };
    static const char *const styles[] = { "class=\"mid b\"", "class=\"mid on\"", "class=\"mid on small\"" };
    static const char *const signs[] = { "←", "W", "AB" };
    const double cell = (double)(PANEL - 78) / MATRICES, first = p->left + 78;
    for (int row = 0; row < 3; row++) {
        double top = 372 + 26 * row;
        label(first - 8, top + 14, "class=\"end\"", names[row]);
        for (int i = 0; i < MATRICES; i++) {
            const Flow *f = &p->flow;
            bool run = row == 0 ? f->dgrad[i] == FLOW_RUN : row == 1 ? f->wgrad[i] == FLOW_RUN : f->adapter[i] > 0;
            double at = first + i * cell;
            if (row == 2 && !run) continue;
            printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"20\" rx=\"3\" class=\"%s\"/>\n", at + 1, top, cell - 2,
                   run && row > 0 ? "warm" : "ice");
            if (run) label(at + cell / 2, top + 15, styles[row], signs[row]);
        }
    }
    char text[160];
    snprintf(text, sizeof text, "through %" PRId64 " of %d %smatrices; %" PRId64 " weight gradients", p->m.dgrad, MATRICES,
             p->full ? "" : "frozen ", p->m.wgrad);
    label(p->left, 362, "class=\"b\"", text);
}

static void draw_panel(Transformer *model, const Text *text, double left, const char *title, const LoraConfig *lora)
{
    static Timeline timeline;
    Panel p = { .left = left, .full = lora == NULL, .t = &timeline };
    FILE *file = tmpfile();
    if (file == NULL) die(EXIT_FAILED, "no temporary file can be made: %s", strerror(errno));
    adapt(model, lora, SEED);
    p.m = measure_flow(model, text, &p.flow, file);
    read_timeline(file, &timeline);
    fclose(file);
    check(timeline.total[timeline.peak] == p.m.ledger.peak, "the timeline's peak is %" PRId64 ", the ledger's %" PRId64,
          timeline.total[timeline.peak], (int64_t)p.m.ledger.peak);
    p.each = (double)PANEL / timeline.rows;
    label(left, 64, "class=\"h\"", title);
    draw_grid(&p);
    draw_areas(&p);
    draw_labels(&p);
    draw_key(&p);
    draw_flow(&p);
}

int main(void)
{
    program_begin("picture");
    Text text = open_text("builtin:tales", 20000, CONTEXT);
    Transformer *model = new_model(small_shape(text.vocabulary.size), SEED);
    parallel_set_threads(2); // whose workspace the README's bytes contain
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 920 484\" "
           "font-family=\"system-ui,Helvetica,Arial,sans-serif\" font-size=\"13\">\n"
           "<title>One training step, full and with LoRA: bytes, and where gradients flow</title>\n"
           "<style>svg{--ink:#172230;--page:#fcfcfa;--line:#d6dbe1;--ice:#dcecf8;--cold:#6fa3cc;--warm:#c2500f}"
           "@media(prefers-color-scheme:dark){svg{--ink:#e7ecf2;--page:#10161d;--line:#2c3743;--ice:#1b3a56;--cold:#6ba3d4;--warm:#b4480c}}"
           "text,.dot{fill:var(--ink)}.h{font-size:16px;font-weight:700}.b{font-weight:700}.mid{text-anchor:middle}.end{text-anchor:end}"
           ".on{fill:#fff}.small{font-size:11px}.back{fill:var(--page);stroke:var(--line)}"
           ".grid{stroke:var(--line)}.axis{stroke:var(--ink)}.ice{fill:var(--ice);stroke:var(--cold)}.warm{fill:var(--warm)}");
    palette = palette_read();
    palette_rules(&palette);
    printf("</style>\n<rect x=\"0.5\" y=\"0.5\" width=\"919\" height=\"483\" rx=\"10\" class=\"back\"/>\n");
    label(52, 32, "class=\"h\"", "One training step, measured: bytes in memory, and where gradients flow");
    draw_panel(model, &text, 52, "full: all weights train", NULL);
    draw_panel(model, &text, 52 + PANEL + 52, "LoRA on all four layers: A and B train", &on_all);
    label(52, 470, "", "Each box is a weight matrix W, from the first layer (left) to the head: gradients flow through the "
                       "frozen ones to reach A and B.");
    printf("</svg>\n");
    transformer_free(model);
    text_free(&text);
    return output_status();
}
