// table.c - the rows, their medians and spreads, and the verdicts; see regret.h.
//
// The rules, which stood here before the numbers did (but after a short pilot, by which grids and lengths were chosen). Each is
// asked of each seed, of the best rate of each way, of the knee's of its one rate:
//
//   in all five seeds: "holds here"        in none: "did not replicate here"        else: "undecided: the spread covers it"
//
// and, where it is asked of several ranks or budgets, of each of them; if these words differ: "it depends", and the counts tell.
//
//   rates     ten times: the middle one of the ranks' best rates is 5 to 20 times full training's (on this grid: 3, 4 or 5
//             quarters of a decade above it); short runs: the factor with 100 steps is larger than with 400
//             the rank: the highest of the ranks' best rates is at most sqrt(10) times the lowest
//   where     for each budget: the net's loss is lower than attention's; and that on all layers lower than both
//   knee      an adapter holds a text if it takes in at least 80 % of the nats that full training takes in
//             a knee: each rank holds the shortest of its texts and not the longest, while full training takes in 80 % of its nats
//             in proportion: the nats at the knee (where the share crosses 80 %, between two texts by the text's logarithm), for
//             each number, differ between ranks by a factor of 2 at most
//             two bits: the most that an adapter took in, for each number, is 1 to 4 bits (the middle one of the ranks)
//             the grammar: the floor's nats at the pirate's knee are half to twice those at the letters' knee, at rank 4
//   forget    learns less: the loss is higher than full training's; forgets less: the tales' loss is lower;
//             for the same lesson: lower than full training's at the step where that had the adapter's loss (added after the
//             numbers: a seed where it never had it counts as not held)
//   batch     the adapter's loss minus full training's is larger with batches of 64 than with batches of 4
//   variants  rsLoRA at one rate, that which is best at rank 4: at rank 32 its loss is lower than LoRA's; and at its own best rate
//             LoRA+, DoRA: at each rank the loss is lower than LoRA's; LoRA-FA: its regret is at most 1.05 times LoRA's

#include "regret.h"

#include "io/options.h"

#include <errno.h>
#include <stdlib.h>

// ----------------------------------------------------------------------------------------------------------------------- rows

void print_row(FILE *file, const Row *r)
{
    fprintf(file, "%s,%s,%d,%d,%d,%d,%" PRId64 ",%.5f,%.5f\n", r->claim, r->way, r->x, r->step, r->quarter, r->seed, r->numbers,
            r->loss, r->old);
}

static void read_file(Rows *rows, const char *path)
{
    char line[256];
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        die(EXIT_FAILED, "%s: cannot be read: %s; run this in the project's directory", path, strerror(errno));
    for (int number = 2; fgets(line, sizeof line, file) != NULL; number++) {
        rows->row = reallocate(rows->row, (size_t)rows->count + 1, sizeof *rows->row, "the rows");
        Row *r = &rows->row[rows->count++];
        if (sscanf(line, "%23[^,],%23[^,],%d,%d,%d,%d,%" SCNd64 ",%lf,%lf", r->claim, r->way, &r->x, &r->step, &r->quarter, &r->seed,
                   &r->numbers, &r->loss, &r->old) != 9)
            die(EXIT_FAILED, "%s: line %d is no row: %s", path, number, line);
    }
    fclose(file);
}

Rows rows_read(const char *directory)
{
    Rows rows = { 0 };
    for (int seed = 1; seed <= CHOSEN_SEEDS; seed++) {
        char path[256];
        snprintf(path, sizeof path, "%s/seed%d.csv", directory, seed);
        read_file(&rows, path);
    }
    return rows;
}

static bool is_of(const Row *r, const char *claim, const char *way, int x, int seed)
{
    return r->seed == seed && r->x == x && strcmp(r->claim, claim) == 0 && strcmp(r->way, way) == 0;
}

const Row *best_row(const Rows *rows, const char *claim, const char *way, int x, int seed)
{
    const Row *best = NULL;
    for (int i = 0; i < rows->count; i++)
        if (is_of(&rows->row[i], claim, way, x, seed) && (best == NULL || rows->row[i].loss < best->loss)) best = &rows->row[i];
    if (best == NULL) die(EXIT_FAILED, "there is no row of %s, %s, %d, seed %d", claim, way, x, seed);
    return best;
}

const Row *row_at(const Rows *rows, const char *claim, const char *way, int x, int seed, int step, int quarter)
{
    for (int i = 0; i < rows->count; i++)
        if (is_of(&rows->row[i], claim, way, x, seed) && (step < 0 || rows->row[i].step == step)
            && (quarter > 0 || rows->row[i].quarter == quarter)) return &rows->row[i];
    return NULL;
}

Spread spread_of(const double values[CHOSEN_SEEDS])
{
    double sorted[CHOSEN_SEEDS];
    memcpy(sorted, values, sizeof sorted);
    double middle = median(sorted, CHOSEN_SEEDS);
    return (Spread){ middle, sorted[0], sorted[CHOSEN_SEEDS - 1] };
}

double pirate_floor(void)
{
    Text text = open_text("builtin:pirate", CHARACTERS, REACH);
    double floor = text.val_floor;
    text_free(&text);
    return floor;
}

// ------------------------------------------------------------------------------------------------------------------- verdicts

// One claim in up to MOST_CASES cases (ranks, budgets): in how many seeds it held, for each. Gathered by `ask`, printed by `verdict`.
enum { MOST_CASES = 4 };
static int cases, counts[MOST_CASES];

static void ask(const bool held[CHOSEN_SEEDS])
{
    check(cases < MOST_CASES, "more than %d cases", MOST_CASES);
    counts[cases] = 0;
    for (int s = 0; s < CHOSEN_SEEDS; s++) counts[cases] += held[s];
    cases++;
}

static const char *word_for(int count)
{
    return count == CHOSEN_SEEDS ? "holds here" : count == 0 ? "did not replicate here" : "undecided: the spread covers it";
}

// The word for all cases, or "it depends" where theirs differ: which, the counts tell.
static void verdict(const char *claim)
{
    const char *word = word_for(counts[0]);
    char text[40] = "";
    for (int i = 0; i < cases; i++) {
        if (strcmp(word, word_for(counts[i])) != 0) word = "it depends";
        snprintf(text + strlen(text), sizeof text - strlen(text), "%d ", counts[i]);
    }
    printf("  %-31s  %-8sof 5  %s\n", word, text, claim);
    cases = 0;
}

#define FOR_SEEDS for (int s = 0; s < CHOSEN_SEEDS; s++)
static bool held[CHOSEN_SEEDS]; // of the verdict that comes next

static double loss_of(const Rows *rows, const char *claim, const char *way, int x, int s)
{
    return best_row(rows, claim, way, x, s + 1)->loss;
}

static int quarter_of(const Rows *rows, const char *way, int x, int s) { return best_row(rows, "rates", way, x, s + 1)->quarter; }

// The quarters of the best rates of the ranks 1, step, step^2, ..., sorted; returns how many.
static int quarters_of(const Rows *rows, const char *way, int step, int most, int s, double quarters[8])
{
    int n = 0;
    for (int r = 1; r <= most; r *= step) quarters[n++] = quarter_of(rows, way, r, s);
    (void)median(quarters, n);
    return n;
}

static void verdicts_rates(const Rows *rows)
{
    static const struct { const char *way; int step, most; } kinds[] = { { "alpha 32", 2, 32 }, { "scale 2", 4, 16 } };
    double q[8];
    for (int k = 0; k < 2; k++) {
        FOR_SEEDS {
            int n = quarters_of(rows, kinds[k].way, kinds[k].step, kinds[k].most, s, q);
            double above = q[n / 2] - quarter_of(rows, "full", 0, s);
            held[s] = above >= 3 && above <= 5;
        }
        ask(held);
    }
    verdict("LoRA's best rate is about ten times full training's (alpha 32; scale 2)");
    FOR_SEEDS held[s] = quarter_of(rows, "alpha 32 short", 4, s) - quarter_of(rows, "full short", 0, s)
                        > quarter_of(rows, "alpha 32", 4, s) - quarter_of(rows, "full", 0, s);
    ask(held);
    verdict("the factor is larger in a short run (rank 4, alpha 32)");
    for (int k = 0; k < 2; k++) {
        FOR_SEEDS {
            int n = quarters_of(rows, kinds[k].way, kinds[k].step, kinds[k].most, s, q);
            held[s] = q[n - 1] - q[0] <= 2;
        }
        ask(held);
    }
    verdict("the best rate hardly depends on rank (alpha 32; scale 2)");
}

static void verdicts_where(const Rows *rows)
{
    for (int budget = 30; budget <= 120; budget *= 2) {
        FOR_SEEDS held[s] = loss_of(rows, "where", "net", budget, s) < loss_of(rows, "where", "attention", budget, s);
        ask(held);
    }
    verdict("adapters on the net beat those on attention (30, 60, 120 C numbers a block)");
    for (int budget = 30; budget <= 120; budget *= 2) {
        FOR_SEEDS held[s] = loss_of(rows, "where", "all", budget, s) < loss_of(rows, "where", "net", budget, s)
                            && loss_of(rows, "where", "all", budget, s) < loss_of(rows, "where", "attention", budget, s);
        ask(held);
    }
    verdict("adapters on all layers beat both (30, 60, 120 C)");
}

// The tales' loss of full training at the first step where its loss on the pirate's is no higher than `loss`; between two rows, by
// their losses. NAN if that never comes: the adapter has learned more than full training.
static double old_at(const Rows *rows, double loss, int s)
{
    double before = HUGE_VAL, old = 0;
    for (int step = 25; step <= 400; step += 25) {
        const Row *r = row_at(rows, "forget", "full", 0, s + 1, step, 1);
        if (r == NULL) die(EXIT_FAILED, "there is no row of forget, full, seed %d, step %d", s + 1, step);
        if (r->loss <= loss) return isinf(before) ? r->old : old + (r->old - old) * (before - loss) / (before - r->loss);
        before = r->loss;
        old = r->old;
    }
    return (double)NAN;
}

static void verdicts_forget(const Rows *rows)
{
    for (int r = 1; r <= 16; r *= 4) {
        FOR_SEEDS held[s] = loss_of(rows, "rates", "alpha 32", r, s) > loss_of(rows, "rates", "full", 0, s);
        ask(held);
    }
    verdict("LoRA learns less than full training (ranks 1, 4, 16)");
    for (int r = 1; r <= 16; r *= 4) {
        FOR_SEEDS held[s] = best_row(rows, "rates", "alpha 32", r, s + 1)->old < best_row(rows, "rates", "full", 0, s + 1)->old;
        ask(held);
    }
    verdict("it forgets less (ranks 1, 4, 16)");
    for (int r = 1; r <= 16; r *= 4) {
        FOR_SEEDS {
            const Row *lora = best_row(rows, "rates", "alpha 32", r, s + 1);
            held[s] = lora->old < old_at(rows, lora->loss, s);
        }
        ask(held);
    }
    verdict("it forgets less for the same lesson (ranks 1, 4, 16)");
}

static double gap(const Rows *rows, int rank, int B, int s)
{
    char way[WORD];
    snprintf(way, sizeof way, "rank %d", rank);
    return loss_of(rows, "batch", way, B, s) - loss_of(rows, "batch", "full", B, s);
}

static void verdicts_batch(const Rows *rows)
{
    for (int r = 4; r <= 16; r *= 4) {
        FOR_SEEDS held[s] = gap(rows, r, 64, s) > gap(rows, r, 4, s);
        ask(held);
    }
    verdict("large batches hurt LoRA more (ranks 4, 16)");
}

// At rank 4's best rate, which is LoRA's and rsLoRA's.
static bool better_at_rate_of_4(const Rows *rows, int s)
{
    int quarter = best_row(rows, "rates", "alpha 32", 4, s + 1)->quarter;
    const Row *rs = row_at(rows, "variants", "rsLoRA", 32, s + 1, -1, quarter);
    const Row *lora = row_at(rows, "rates", "alpha 32", 32, s + 1, -1, quarter);
    if (rs == NULL || lora == NULL) die(EXIT_FAILED, "rank 32 was not tried at rank 4's best rate, seed %d", s + 1);
    return rs->loss < lora->loss;
}

static void verdicts_variants(const Rows *rows)
{
    double floor = pirate_floor();
    FOR_SEEDS held[s] = better_at_rate_of_4(rows, s);
    ask(held);
    verdict("rsLoRA is better than LoRA at rank 32, at rank 4's best rate");
    FOR_SEEDS held[s] = loss_of(rows, "variants", "rsLoRA", 32, s) < loss_of(rows, "rates", "alpha 32", 32, s);
    ask(held);
    verdict("rsLoRA is better than LoRA at rank 32, each at its best rate");
    for (int i = 0; i < 2; i++) {
        for (int r = 4; r <= 16; r *= 2) {
            FOR_SEEDS held[s] = loss_of(rows, "variants", i ? "DoRA" : "LoRA+", r, s) < loss_of(rows, "rates", "alpha 32", r, s);
            ask(held);
        }
        verdict(i ? "DoRA is better than LoRA (ranks 4, 8, 16)" : "LoRA+ is better than LoRA (ranks 4, 8, 16)");
    }
    for (int r = 4; r <= 16; r *= 2) {
        FOR_SEEDS held[s] = loss_of(rows, "variants", "LoRA-FA", r, s) - floor
                            <= 1.05 * (loss_of(rows, "rates", "alpha 32", r, s) - floor);
        ask(held);
    }
    verdict("LoRA-FA is as good as LoRA (ranks 4, 8, 16)");
}

// ----------------------------------------------------------------------------------------------------------------------- knee

enum { KNEE_T = 32, LONGEST = 256 };

double knee_taken(const Row *row) { return row->old - row->loss * row->x * KNEE_T; }

const Row *knee_row(const Rows *rows, const char *text, int rank, int x, int seed)
{
    char way[WORD];
    snprintf(way, sizeof way, rank ? "%s rank %d" : "%s full", text, rank);
    return row_at(rows, "knee", way, x, seed, -1, rank ? KNEE_RATE : KNEE_FULL_RATE);
}

// Of the nats that full training takes in, the share that this adapter takes in.
static double knee_share(const Rows *rows, const char *text, int rank, int x, int s)
{
    return knee_taken(knee_row(rows, text, rank, x, s + 1)) / knee_taken(knee_row(rows, text, 0, x, s + 1));
}

static bool knee_next(const Rows *rows, const char *text, int rank, int s, int *x)
{
    do *x *= 2;
    while (*x <= LONGEST && knee_row(rows, text, rank, *x, s + 1) == NULL);
    return *x <= LONGEST;
}

double knee_nats(const Rows *rows, const char *text, int rank, int seed)
{
    int s = seed - 1, before = 0;
    double share_before = 0;
    for (int x = 4; knee_next(rows, text, rank, s, &x); before = x) {
        double share = knee_share(rows, text, rank, x, s);
        if (share < 0.8) {
            if (before == 0) break;
            double at = (share_before - 0.8) / (share_before - share);
            double per_window = knee_row(rows, text, rank, x, s + 1)->old / x;
            return per_window * exp(log(before) + at * (log(x) - log(before)));
        }
        share_before = share;
    }
    return (double)NAN;
}

// The most that an adapter of this rank took in, in bits for each number; and the nats at its knee, for each.
static double most_bits(const Rows *rows, int rank, int s)
{
    double most = 0;
    for (int x = 4; knee_next(rows, "letters", rank, s, &x); ) {
        const Row *r = knee_row(rows, "letters", rank, x, s + 1);
        most = fmax(most, knee_taken(r) / (double)r->numbers / log(2));
    }
    return most;
}

static double knee_per_number(const Rows *rows, int rank, int s)
{
    int x = 4;
    knee_next(rows, "letters", rank, s, &x);
    return knee_nats(rows, "letters", rank, s + 1) / (double)knee_row(rows, "letters", rank, x, s + 1)->numbers;
}

static void verdicts_knee(const Rows *rows)
{
    double v[8];
    FOR_SEEDS {
        held[s] = true;
        for (int r = 1; r <= 8; r *= 2) {
            const Row *full = knee_row(rows, "letters", 0, 32 * r, s + 1);
            held[s] &= !isnan(knee_nats(rows, "letters", r, s + 1)) && knee_taken(full) >= 0.8 * full->old;
        }
    }
    ask(held);
    verdict("each rank has a knee, where full training has none yet (letters)");
    FOR_SEEDS {
        int n = 0;
        for (int r = 1; r <= 8; r *= 2) v[n++] = knee_per_number(rows, r, s);
        held[s] = !isnan(v[0] + v[1] + v[2] + v[3]);
        (void)median(v, n);
        held[s] &= v[n - 1] <= 2 * v[0];
    }
    ask(held);
    verdict("the nats at the knee are in proportion to the adapter's numbers (letters)");
    FOR_SEEDS {
        int n = 0;
        for (int r = 1; r <= 8; r *= 2) v[n++] = most_bits(rows, r, s);
        double middle = median(v, n);
        held[s] = middle >= 1 && middle <= 4;
    }
    ask(held);
    verdict("a number holds about two bits: from 1 to 4 (letters)");
    FOR_SEEDS {
        double pirate = knee_nats(rows, "pirate", 4, s + 1), letters = knee_nats(rows, "letters", 4, s + 1);
        held[s] = pirate >= letters / 2 && pirate <= letters * 2;
    }
    ask(held);
    verdict("the pirate's knee comes at as many nats, of its floor, as the letters' (rank 4)");
}

static void print_spread(const char *format, double scale, const double values[CHOSEN_SEEDS])
{
    char text[3][32], all[128];
    int missing = 0;
    FOR_SEEDS missing += isnan(values[s]) != 0;
    if (missing > 0) {
        snprintf(all, sizeof all, "none in %d of 5 seeds", missing);
        printf(" %-24s", all);
        return;
    }
    Spread s = spread_of(values);
    snprintf(text[0], 32, format, scale * s.middle);
    snprintf(text[1], 32, format, scale * s.least);
    snprintf(text[2], 32, format, scale * s.most);
    snprintf(all, sizeof all, "%s (%s to %s)", text[0], text[1], text[2]);
    printf(" %-24s", all);
}

static void table_knee(const Rows *rows)
{
    printf("  %-9s %5s %8s  %-24s %-24s %s\n", "text", "rank", "numbers", "the knee, in nats", "for each number",
           "most taken in, bits each");
    for (int r = 1; r <= 8; r *= 2) {
        double nats[CHOSEN_SEEDS], each[CHOSEN_SEEDS], bits[CHOSEN_SEEDS];
        FOR_SEEDS {
            nats[s] = knee_nats(rows, "letters", r, s + 1);
            each[s] = knee_per_number(rows, r, s);
            bits[s] = most_bits(rows, r, s);
        }
        printf("  %-9s %5d %8d ", "letters", r, (int)knee_row(rows, "letters", r, 8 * r, 1)->numbers);
        print_spread("%.0f", 1, nats);
        print_spread("%.2f", 1, each);
        print_spread("%.2f", 1, bits);
        printf("\n");
    }
    double nats[CHOSEN_SEEDS], each[CHOSEN_SEEDS];
    FOR_SEEDS {
        nats[s] = knee_nats(rows, "pirate", 4, s + 1);
        each[s] = nats[s] / (double)knee_row(rows, "pirate", 4, 8, s + 1)->numbers;
    }
    printf("  %-9s %5d %8d ", "pirate", 4, (int)knee_row(rows, "pirate", 4, 8, 1)->numbers);
    print_spread("%.0f", 1, nats);
    print_spread("%.2f", 1, each);
    double more = 0;
    for (int r = 1; r <= 8; r *= 2)
        for (int x = 4; knee_next(rows, "letters", r, 0, &x); ) {
            const Row *row = knee_row(rows, "letters", r, x, 1);
            more = fmax(more, knee_taken(best_row(rows, "knee", row->way, x, 1)) / knee_taken(row) - 1);
        }
    printf("\n  (one rate for all; with the best for each text, seed 1's adapters take in %.0f %% more at most)\n", 100 * more);
}

// --------------------------------------------------------------------------------------------------------------------- tables

// A line for each way: the best rate, the regret with it, and how much the loss on the tales rose.
static void table_of_ways(const Rows *rows, const char *claim)
{
    static const char *const letters[] = { "rates", "rank", "where", "x C", "batch", "batch", "variants", "rank" };
    const char *x = "";
    for (int i = 0; i < 8; i += 2)
        if (strcmp(letters[i], claim) == 0) x = letters[i + 1];
    Way ways[MOST_WAYS];
    int count = all_ways(1, ways);
    double floor = pirate_floor();
    printf("  %-15s %5s %8s  %-24s %-24s %s\n", "way", x, "numbers", "best rate, thousandths", "regret, nats a character", "tales forgotten, nats");
    for (int i = 0; i < count; i++) {
        if (strcmp(ways[i].claim, claim) != 0) continue;
        double rate[CHOSEN_SEEDS], regret[CHOSEN_SEEDS], forgotten[CHOSEN_SEEDS];
        FOR_SEEDS {
            const Row *r = best_row(rows, claim, ways[i].name, ways[i].x, s + 1);
            rate[s] = rate_of(r->quarter);
            regret[s] = r->loss - floor;
            forgotten[s] = r->old - best_row(rows, "base", "base", 0, s + 1)->old;
        }
        printf("  %-15s %5d %8d ", ways[i].name, ways[i].x, (int)best_row(rows, claim, ways[i].name, ways[i].x, 1)->numbers);
        print_spread("%.2g", 1000, rate);
        print_spread("%.3f", 1, regret);
        print_spread("%.2f", 1, forgotten);
        printf("\n");
    }
}

// What an adapter has forgotten in the end, and full training where it had learned as much.
static void table_forget(const Rows *rows)
{
    printf("  %5s  %-24s %-24s %s\n", "rank", "regret, nats a character", "tales forgotten, nats", "by full training there");
    for (int r = 1; r <= 16; r *= 4) {
        double regret[CHOSEN_SEEDS], own[CHOSEN_SEEDS], full[CHOSEN_SEEDS], floor = pirate_floor();
        FOR_SEEDS {
            const Row *lora = best_row(rows, "rates", "alpha 32", r, s + 1);
            double base = best_row(rows, "base", "base", 0, s + 1)->old;
            regret[s] = lora->loss - floor;
            own[s] = lora->old - base;
            full[s] = old_at(rows, lora->loss, s) - base;
        }
        printf("  %5d ", r);
        print_spread("%.3f", 1, regret);
        print_spread("%.2f", 1, own);
        print_spread("%.2f", 1, full);
        printf("\n");
    }
}

typedef void Part_of(const Rows *rows);
static const struct { const char *name; Part_of *table, *verdicts; } claims[] = {
    { "rates", NULL, verdicts_rates }, { "where", NULL, verdicts_where }, { "knee", table_knee, verdicts_knee },
    { "forget", table_forget, verdicts_forget }, { "batch", NULL, verdicts_batch }, { "variants", NULL, verdicts_variants },
};
enum { CLAIMS = sizeof claims / sizeof *claims };

int print_table(const Rows *rows, const char *claim)
{
    bool all = strcmp(claim, "verdicts") == 0;
    int shown = 0;
    for (int i = 0; i < CLAIMS; i++) {
        if (!all && strcmp(claims[i].name, claim) != 0) continue;
        if (!all) printf("%s: five seeds, the middle one (and the least to the most)\n", claim);
        if (!all && claims[i].table != NULL) claims[i].table(rows);
        else if (!all) table_of_ways(rows, claim);
        printf(all ? "%s\n" : "\n", claims[i].name);
        claims[i].verdicts(rows);
        shown++;
    }
    if (shown == 0) die(EXIT_USAGE, "there is no claim %s; there are " ALL_CLAIMS, claim);
    return EXIT_SUCCESS;
}
