// regret.h - claims about LoRA from papers and forums, tried where the best possible loss is known.
//
//     build/cc-float/experiments/regret/regret run 3 FILE   all trainings of seed 3, as rows of a CSV file
//     .../regret table knee        medians and spreads over the committed seeds, the rule, and the verdict that it gives
//     .../regret table bytes       the variants' bytes by kind and work in one step, measured now
//     .../regret draw knee         the same numbers as a picture, SVG, on stdout
//     .../regret check             some rows of seed 1, trained again: are they those of the file?
//
// A way is what trains, on what, for how long; a claim is about a few ways. Each way is trained at rates 10^(k/4), from its
// first guess on, until the best rate stands between two worse ones, so that no best rate lies at the edge of what was tried.
// (But for the knee: see ways.c.)
//
//     base     2 blocks, width 32, context 64, that have read the tales for 2,000 steps; a new one for each seed
//     task     the pirate's tales: each character is read about once, so the training loss is no better than the validation loss
//     regret   validation loss minus the floor: nats a character above what a reader who knows the grammar gets
//
// A row of seedN.csv is one training: claim, way, x (rank, budget, batch or windows), steps, rate as k of 10^(k/4), seed, numbers that
// train, loss (the knee's: of its own windows), and the loss on the tales (the knee's: the nats of its windows). Rows of `forget`
// are a training of `rates` on its way, every 25 steps.
//
// Files: regret.c (the program), ways.c (which ways), train.c (training one), variants.c (LoRA's relatives), table.c (rows, medians,
// verdicts), draw.c (pictures).

#ifndef REGRET_H
#define REGRET_H

#include "experiments/measure.h"

enum { KNEE_RATE = -10, KNEE_FULL_RATE = -9 }; // of the knee, in quarters: an adapter's, and full training's
enum { CHOSEN_SEEDS = 5, BASE_STEPS = 2000, BLOCKS = 2, WIDTH = 32, REACH = 64, CHARACTERS = 120000, WORD = 24 };

typedef enum Kind { FULL, LORA, RSLORA, LORA_PLUS, LORA_FA, DORA } Kind;

typedef struct Way {
    const char *claim;      // "rates", "where", "batch", "variants", "knee"
    char   name[WORD];      // what a table calls it: "LoRA", "attention", ...
    int    x;               // what the claim varies: rank, budget, batch, windows
    Kind   kind;
    int    rank[LINEARS];   // of the adapter on each linear layer of a block; 0: none there
    double alpha;           // scale = alpha / rank of the layer
    int    B, T, steps;
    int    first, stride, half; // the first rates tried are 10^(k / 4), k = first - half * stride .. first + half * stride
    bool   random;          // knee: letters drawn at random instead of the pirate's tales
} Way;

#define ALL_CLAIMS "rates, where, knee, forget, batch, variants" // for messages; the rows of forget come with a run of rates

enum { MOST_WAYS = 160 };
// All of them, in the order in which they run; returns how many.
int  all_ways(uint64_t seed, Way ways[MOST_WAYS]);
double rate_of(int quarter); // 10^(quarter / 4)

// What a training left behind. `loss`: of the validation part; for the knee, of the windows it was trained on. `old`: of the tales.
typedef struct Outcome { double loss, old; int64_t numbers; } Outcome;

// The base and the texts of one seed.
typedef struct Bench {
    Transformer *model;
    Text     tales, pirate;
    real   **base;          // what training goes back to
    uint64_t seed;
    double   base_loss, base_old;
} Bench;
Bench bench_open(uint64_t seed);
void  bench_close(Bench *bench);

// After each of these many steps a row of its own: for what is learned and forgotten on the way. NULL: none.
typedef void Trace(void *context, int step, Outcome outcome);
Outcome train_way(Bench *bench, const Way *way, double rate, Trace *trace, void *context);
// The knee's windows: ids and targets [count * T], the caller's to free; and the information in the targets, in nats, for one who
// knows how they were drawn.
int  *knee_windows(const Bench *bench, const Way *way, double *nats);

// ------------------------------------------------------------------------------------------------------------- variants.c

// What trains a model in some way: learner_begin attaches it, in the place of what was there.
typedef struct Learner {
    Transformer *model;
    AdamW *optimizer[2];
    double factor[2];       // of the rate
    Tape  *tape;
    struct Dora *dora;      // or NULL
} Learner;

Learner learner_begin(Transformer *model, const Way *way, uint64_t seed);
double  learner_step(Learner *learner, const int *ids, const int *targets, int B, int T, double rate); // the loss before it
double  learner_loss(Learner *learner, const int *tokens, int64_t count);                              // evaluate_all, as it is now
void    learner_end(Learner *learner);
int64_t learner_numbers(const Learner *learner); // that train

// --------------------------------------------------------------------------------------------------------- table.c, draw.c

typedef struct Row { char claim[WORD], way[WORD]; int x, step, quarter, seed; int64_t numbers; double loss, old; } Row;
typedef struct Rows { Row *row; int count; } Rows;
Rows rows_read(const char *directory);
void print_row(FILE *file, const Row *row);
// The row of this way and seed with the lowest loss. And that with this step and quarter (step -1, quarter 1: any); NULL: none.
const Row *best_row(const Rows *rows, const char *claim, const char *way, int x, int seed);
const Row *row_at(const Rows *rows, const char *claim, const char *way, int x, int seed, int step, int quarter);
// The middle one of five, the least and the most.
typedef struct Spread { double middle, least, most; } Spread;
Spread spread_of(const double values[CHOSEN_SEEDS]);
double pirate_floor(void);
// Of the knee: the nats that a way took in of its text; and at the knee of an adapter, or NAN where it has none.
const Row *knee_row(const Rows *rows, const char *text, int rank, int x, int seed); // NULL: this rank was not given this text
double knee_taken(const Row *row);
double knee_nats(const Rows *rows, const char *text, int rank, int seed);
int    print_table(const Rows *rows, const char *claim); // exit statuses
int    draw_claim(const Rows *rows, const char *claim);

#endif
