// draw.c - each claim's numbers as a picture, SVG on stdout; see regret.h.
//
// A point is the middle one of five seeds, the bar through it goes from the least to the most.

#include "regret.h"

#include "io/options.h"

#include <stdlib.h>

enum { LEFT = 62, TOP = 66, WIDE = 460, HIGH = 250, FULL_WIDE = 712, MOST_POINTS = 20, MOST_LINES = 8 };

typedef struct Point { double x; Spread y; } Point;
typedef struct Line { char name[WORD + 8]; int count; Point point[MOST_POINTS]; } Line;

typedef struct Chart {
    const char *title, *below, *across, *up; // the title, the line under it, and the axes
    bool log_x, log_y;
    double dodge;                            // lines stand beside each other by this factor of x, so that their bars can be told apart
    double x0, x1, y0, y1;                   // what is shown of the axes
    const double *x_ticks, *y_ticks;         // ended by NAN
    const char *x_format, *y_format;
    int  count;
    Line line[MOST_LINES];
} Chart;

static double along(double v, double a, double b, bool is_log)
{
    return is_log ? (log(v) - log(a)) / (log(b) - log(a)) : (v - a) / (b - a);
}
static double at_x(const Chart *c, double x) { return LEFT + WIDE * along(x, c->x0, c->x1, c->log_x); }
static double at_y(const Chart *c, double y)
{
    return TOP + HIGH * (1 - along(fmax(y, c->log_y ? 1e-9 : y), c->y0, c->y1, c->log_y));
}

static void write_text(double x, double y, const char *class, const char *words)
{
    printf("<text x=\"%.0f\" y=\"%.0f\" class=\"%s\">%s</text>\n", x, y, class, words);
}

static void draw_axes(const Chart *c)
{
    char words[40];
    for (const double *t = c->y_ticks; !isnan(*t); t++) {
        printf("<path class=\"grid\" d=\"M%d %.1fh%d\"/>\n", LEFT, at_y(c, *t), WIDE);
        snprintf(words, sizeof words, c->y_format, *t);
        write_text(LEFT - 8, at_y(c, *t) + 4, "end", words);
    }
    for (const double *t = c->x_ticks; !isnan(*t); t++) {
        printf("<path class=\"grid\" d=\"M%.1f %dv%d\"/>\n", at_x(c, *t), TOP, HIGH);
        snprintf(words, sizeof words, c->x_format, *t);
        write_text(at_x(c, *t), TOP + HIGH + 18, "mid", words);
    }
    write_text(LEFT + WIDE / 2.0, TOP + HIGH + 38, "mid", c->across);
    printf("<text transform=\"translate(16 %d) rotate(-90)\" class=\"mid\">%s</text>\n", TOP + HIGH / 2, c->up);
}

// Colour is not all that tells the lines apart.
static void draw_mark(int i, double x, double y)
{
    switch (i % 3) {
    case 0: printf("<circle class=\"p%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n", i, x, y); break;
    case 1: printf("<rect class=\"p%d\" x=\"%.1f\" y=\"%.1f\" width=\"7\" height=\"7\"/>\n", i, x - 3.5, y - 3.5); break;
    default: printf("<path class=\"p%d\" d=\"M%.1f %.1fl5 9h-10z\"/>\n", i, x, y - 5.5);
    }
}

static void draw_line(const Chart *c, int i)
{
    const Line *l = &c->line[i];
    double aside = c->dodge > 0 ? pow(c->dodge, i - (c->count - 1) / 2.0) : 1;
    printf("<g clip-path=\"url(#inside)\"><path class=\"l%d\" d=\"", i);
    for (int p = 0; p < l->count; p++)
        printf("%c%.1f %.1f", p ? 'L' : 'M', at_x(c, aside * l->point[p].x), at_y(c, l->point[p].y.middle));
    printf("\"/>\n");
    for (int p = 0; p < l->count; p++) {
        const Point *q = &l->point[p];
        double x = at_x(c, aside * q->x);
        printf("<path class=\"l%d\" d=\"M%.1f %.1fV%.1f\"/>", i, x, at_y(c, q->y.least), at_y(c, q->y.most));
        draw_mark(i, x, at_y(c, q->y.middle));
    }
    double y = TOP + 10 + 22 * i;
    printf("</g><path class=\"l%d\" d=\"M%d %.1fh22\"/>", i, LEFT + WIDE + 16, y);
    draw_mark(i, LEFT + WIDE + 27, y);
    write_text(LEFT + WIDE + 46, y + 4, "name", l->name);
}

static int draw(const Chart *c)
{
    static const char *const light[MOST_LINES] = { "#172230", "#c2500f", "#12806a", "#2f6fb0", "#8a4fa3", "#a8791b" };
    static const char *const dark[MOST_LINES] = { "#e7ecf2", "#e0762f", "#37b294", "#6ba3d4", "#bd8ad3", "#d9b04f" };
    int height = TOP + HIGH + 52;
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"system-ui,Helvetica,Arial,sans-serif\" "
           "font-size=\"13\">\n<title>%s</title>\n<style>svg{--page:#fcfcfa;--ink:#172230;--soft:#536070;--line:#d6dbe1", FULL_WIDE,
           height, c->title);
    for (int i = 0; i < c->count; i++) printf(";--c%d:%s", i, light[i]);
    printf("}@media(prefers-color-scheme:dark){svg{--page:#10161d;--ink:#e7ecf2;--soft:#a8b3c1;--line:#2c3743");
    for (int i = 0; i < c->count; i++) printf(";--c%d:%s", i, dark[i]);
    printf("}}text{fill:var(--ink)}.h{font-size:15px;font-weight:700}.mid{text-anchor:middle;fill:var(--soft)}.end{text-anchor:end;"
           "fill:var(--soft)}.soft{font-size:12px;fill:var(--soft)}.back{fill:var(--page);stroke:var(--line)}"
           ".grid{stroke:var(--line);fill:none}");
    for (int i = 0; i < c->count; i++)
        printf(".l%d{fill:none;stroke:var(--c%d);stroke-width:1.8}.p%d{fill:var(--c%d)}", i, i, i, i);
    printf("</style>\n<rect x=\"0.5\" y=\"0.5\" width=\"%d\" height=\"%d\" rx=\"10\" class=\"back\"/>\n", FULL_WIDE - 1, height - 1);
    printf("<clipPath id=\"inside\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>\n", LEFT, TOP - 6, WIDE, HIGH + 12);
    write_text(16, 26, "h", c->title);
    write_text(16, 46, "soft", c->below);
    draw_axes(c);
    for (int i = 0; i < c->count; i++) draw_line(c, i);
    printf("</svg>\n");
    return EXIT_SUCCESS;
}

// ------------------------------------------------------------------------------------------------------------------ the claims

static Line *new_line(Chart *c, const char *name)
{
    check(c->count < MOST_LINES, "no room for the line %s", name);
    Line *l = &c->line[c->count++];
    snprintf(l->name, sizeof l->name, "%s", name);
    return l;
}

static void add_point(Line *l, double x, const double values[CHOSEN_SEEDS])
{
    check(l->count < MOST_POINTS, "no room for a point of %s", l->name);
    l->point[l->count++] = (Point){ x, spread_of(values) };
}

// The regret of the best rate of each x of this claim.
static void line_of_ways(Chart *c, const Rows *rows, const char *claim, const char *way, const char *name)
{
    Way ways[MOST_WAYS];
    int count = all_ways(1, ways);
    Line *l = new_line(c, name);
    for (int i = 0; i < count; i++) {
        if (strcmp(ways[i].claim, claim) != 0 || strcmp(ways[i].name, way) != 0) continue;
        double v[CHOSEN_SEEDS];
        for (int s = 0; s < CHOSEN_SEEDS; s++) v[s] = best_row(rows, claim, way, ways[i].x, s + 1)->loss - pirate_floor();
        add_point(l, ways[i].x, v);
    }
}

static const char five[] = "Points: the middle one of five seeds. Bars: from the least to the most.";
#define TICKS(...) (const double[]){ __VA_ARGS__, (double)NAN }

static int draw_rates(const Rows *rows)
{
    static Chart c = { "The valley of the learning rate", five, "learning rate", "regret, nats a character", .log_x = true,
                       .x0 = 2.2e-4, .x1 = 4.5e-2, .y0 = 0, .y1 = 1.6, .x_format = "%g", .y_format = "%.1f" };
    static const struct { const char *name, *way; int x; } lines[] = { { "everything trains", "full", 0 },
        { "rank 1, alpha 32", "alpha 32", 1 }, { "rank 4, alpha 32", "alpha 32", 4 }, { "rank 32, alpha 32", "alpha 32", 32 },
        { "rank 1, scale 2", "scale 2", 1 }, { "rank 4, scale 2", "scale 2", 4 } };
    c.x_ticks = TICKS(3e-4, 1e-3, 3e-3, 1e-2, 3e-2);
    c.y_ticks = TICKS(0, 0.4, 0.8, 1.2, 1.6);
    double floor = pirate_floor();
    for (int i = 0; i < 6; i++) {
        Line *l = new_line(&c, lines[i].name);
        for (int quarter = -15; quarter <= -4; quarter++) {
            double v[CHOSEN_SEEDS];
            int have = 0;
            for (int s = 0; s < CHOSEN_SEEDS; s++) {
                const Row *r = row_at(rows, "rates", lines[i].way, lines[i].x, s + 1, -1, quarter);
                if (r != NULL) v[have++] = r->loss - floor;
            }
            if (have == CHOSEN_SEEDS) add_point(l, rate_of(quarter), v);
        }
    }
    return draw(&c);
}

static int draw_where(const Rows *rows)
{
    static Chart c = { "The same number of numbers, on different layers", five, "numbers a block, in units of the width",
                       "regret, nats a character", .log_x = true, .dodge = 1.03, .x0 = 25, .x1 = 145, .y0 = 0, .y1 = 1.2, .x_format = "%g",
                       .y_format = "%.1f" };
    c.x_ticks = TICKS(30, 60, 120);
    c.y_ticks = TICKS(0, 0.4, 0.8, 1.2);
    line_of_ways(&c, rows, "where", "attention", "on attention");
    line_of_ways(&c, rows, "where", "net", "on the net (MLP)");
    line_of_ways(&c, rows, "where", "all", "on all layers");
    return draw(&c);
}

static int draw_batch(const Rows *rows)
{
    static Chart c = { "3,200 windows, in small and in large batches", five, "windows in a batch", "regret, nats a character",
                       .log_x = true, .dodge = 1.05, .x0 = 3.3, .x1 = 78, .y0 = 0, .y1 = 0.8, .x_format = "%g", .y_format = "%.1f" };
    c.x_ticks = TICKS(4, 16, 64);
    c.y_ticks = TICKS(0, 0.2, 0.4, 0.6, 0.8);
    line_of_ways(&c, rows, "batch", "full", "everything trains");
    line_of_ways(&c, rows, "batch", "rank 4", "LoRA, rank 4");
    line_of_ways(&c, rows, "batch", "rank 16", "LoRA, rank 16");
    return draw(&c);
}

static int draw_variants(const Rows *rows)
{
    static Chart c = { "LoRA's relatives, each at its best rate", five, "rank", "regret, nats a character", .log_x = true, .dodge = 1.03, .x0 = 0.85,
                       .x1 = 38, .y0 = 0, .y1 = 1.2, .x_format = "%g", .y_format = "%.1f" };
    c.x_ticks = TICKS(1, 2, 4, 8, 16, 32);
    c.y_ticks = TICKS(0, 0.4, 0.8, 1.2);
    line_of_ways(&c, rows, "rates", "alpha 32", "LoRA");
    line_of_ways(&c, rows, "variants", "rsLoRA", "rsLoRA");
    line_of_ways(&c, rows, "variants", "LoRA+", "LoRA+");
    line_of_ways(&c, rows, "variants", "LoRA-FA", "LoRA-FA");
    line_of_ways(&c, rows, "variants", "DoRA", "DoRA");
    return draw(&c);
}

static int draw_forget(const Rows *rows)
{
    static Chart c = { "Learned against forgotten, every 50 steps", "From right to left: 50 to 400 steps at the best rate. "
                       "Points: the middle one of five seeds. Bars: least to most.", "regret on the pirate's tales: learned",
                       "loss on the tales above the base's", .x0 = 0.35, .x1 = 1.6, .y0 = 0.6, .y1 = 1.6, .x_format = "%.1f",
                       .y_format = "%.1f" };
    static const struct { const char *name, *way; int x; } lines[] = { { "everything trains", "full", 0 },
        { "rank 1", "alpha 32", 1 }, { "rank 4", "alpha 32", 4 }, { "rank 16", "alpha 32", 16 } };
    c.x_ticks = TICKS(0.4, 0.8, 1.2, 1.6);
    c.y_ticks = TICKS(0.6, 0.8, 1.0, 1.2, 1.4, 1.6);
    double floor = pirate_floor();
    for (int i = 0; i < 4; i++) {
        Line *l = new_line(&c, lines[i].name);
        for (int step = 50; step <= 400; step += 50) {
            double regret[CHOSEN_SEEDS], old[CHOSEN_SEEDS];
            for (int s = 0; s < CHOSEN_SEEDS; s++) {
                const Row *r = row_at(rows, "forget", lines[i].way, lines[i].x, s + 1, step, 1);
                if (r == NULL) die(EXIT_FAILED, "there is no row of forget, %s, seed %d, step %d", lines[i].way, s + 1, step);
                regret[s] = r->loss - floor;
                old[s] = r->old - best_row(rows, "base", "base", 0, s + 1)->old;
            }
            add_point(l, spread_of(regret).middle, old);
        }
    }
    return draw(&c);
}

static int draw_knee(const Rows *rows)
{
    static Chart c = { "What an adapter can hold", "Random letters, learned by heart. Points: the middle one "
                       "of five seeds. Bars: least to most.", "the text's nats", "nats taken in", .log_x = true, .log_y = true,
                       .x0 = 600, .x1 = 27000, .y0 = 300, .y1 = 27000, .x_format = "%g", .y_format = "%g" };
    c.x_ticks = TICKS(1000, 3000, 10000);
    c.y_ticks = TICKS(300, 1000, 3000, 10000);
    for (int r = 0; r <= 8; r = r ? 2 * r : 1) {
        char name[WORD];
        snprintf(name, sizeof name, r ? "rank %d" : "everything trains", r);
        Line *l = new_line(&c, name);
        for (int x = 8; x <= 256; x *= 2) {
            double v[CHOSEN_SEEDS], nats = 0;
            if (knee_row(rows, "letters", r, x, 1) == NULL) continue;
            for (int s = 0; s < CHOSEN_SEEDS; s++) {
                const Row *row = knee_row(rows, "letters", r, x, s + 1);
                if (row == NULL) die(EXIT_FAILED, "there is no row of the knee, rank %d, %d windows, seed %d", r, x, s + 1);
                nats = row->old;
                v[s] = knee_taken(row);
            }
            add_point(l, nats, v);
        }
    }
    return draw(&c);
}

int draw_claim(const Rows *rows, const char *claim)
{
    static const struct { const char *name; int (*draw)(const Rows *); } claims[] = { { "rates", draw_rates },
        { "where", draw_where }, { "knee", draw_knee }, { "forget", draw_forget }, { "batch", draw_batch },
        { "variants", draw_variants } };
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++)
        if (strcmp(claims[i].name, claim) == 0) return claims[i].draw(rows);
    die(EXIT_USAGE, "there is no claim %s; there are " ALL_CLAIMS, claim);
}
