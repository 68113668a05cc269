// ways.c - which ways each claim compares; see regret.h.
//
// On a linear layer [I, O] rank r has r (I + O) numbers. For width C that is 4 C r on c_attn, 2 C r on attention's c_proj, 5 C r on
// each layer of the net (MLP): so 6 C r on attention, 10 C r on the net, 16 C r on all four.

#include "regret.h"

static Way *list;
static int  count;

// An adapter of one rank on all layers, or full training (rank 0).
static Way *add(const char *claim, const char *name, int x, Kind kind, int rank, int first)
{
    check(count < MOST_WAYS, "more than %d ways", MOST_WAYS);
    Way *w = &list[count++];
    *w = (Way){ .claim = claim, .x = x, .kind = kind, .rank = { rank, rank, rank, rank }, .alpha = 32, .B = 4, .T = REACH,
                .steps = 400, .first = first, .stride = 1, .half = 2 };
    snprintf(w->name, sizeof w->name, "%s", name);
    return w;
}

// Does the best rate depend on the rank? With alpha / r, alpha = 32, as in "LoRA without regret", and with a scale of 2 for
// each rank, as many recipes have it (alpha = 2 r). And with a quarter of the steps. Wide, for a picture of the whole valley.
static void rates(void)
{
    add("rates", "full", 0, FULL, 0, -11)->half = 3;
    for (int r = 1; r <= 32; r *= 2) add("rates", "alpha 32", r, LORA, r, -10)->half = 3;
    for (int r = 1; r <= 16; r *= 4) {
        Way *w = add("rates", "scale 2", r, LORA, r, -9);
        w->alpha = 2 * r;
        w->half = 3;
    }
    add("rates", "full short", 0, FULL, 0, -10)->steps = 100;
    add("rates", "alpha 32 short", 4, LORA, 4, -9)->steps = 100;
}

// x C numbers a block, to the last one, on attention, on the net, on all.
static void where(void)
{
    static const struct { int budget, attention, net, all[LINEARS]; } budgets[] = {
        { 30, 5, 3, { 2, 1, 2, 2 } }, { 60, 10, 6, { 5, 5, 3, 3 } }, { 120, 20, 12, { 10, 10, 6, 6 } },
    };
    for (int i = 0; i < 3; i++) {
        Way *attention = add("where", "attention", budgets[i].budget, LORA, budgets[i].attention, -9);
        attention->rank[C_FC] = attention->rank[MLP_C_PROJ] = 0;
        Way *net = add("where", "net", budgets[i].budget, LORA, budgets[i].net, -9);
        net->rank[C_ATTN] = net->rank[ATTN_C_PROJ] = 0;
        Way *all = add("where", "all", budgets[i].budget, LORA, 0, -10);
        memcpy(all->rank, budgets[i].all, sizeof all->rank);
    }
}

// 3,200 windows in batches of x.
static void batch(void)
{
    for (int B = 4; B <= 64; B *= 4)
        for (int r = 0; r <= 16; r = r ? 4 * r : 4) {
            char name[WORD] = "full";
            if (r) snprintf(name, sizeof name, "rank %d", r);
            Way *w = add("batch", name, B, r ? LORA : FULL, r, (r ? -10 : -11) + (B > 4) + (B > 16));
            w->B = B;
            w->steps = 3200 / B;
        }
}

// rsLoRA's alpha is such that at rank 4 its scale is that of LoRA in `rates`.
static void variants(void)
{
    for (int r = 1; r <= 32; r *= 2) {
        Way *w = add("variants", "rsLoRA", r, RSLORA, r, -10);
        w->alpha = 16;
    }
    for (int r = 4; r <= 16; r *= 2) {
        add("variants", "LoRA+", r, LORA_PLUS, r, -13);
        add("variants", "LoRA-FA", r, LORA_FA, r, -9);
        add("variants", "DoRA", r, DORA, r, -10);
    }
}

// x windows of 32 characters, over and over: letters drawn at random, of which nothing can be known beforehand, and the pirate's.
// The longest trainings: so each takes one rate, and seed 1 alone tries others too, to show what this costs.
static void knee(uint64_t seed)
{
    static const char *const names[2] = { "letters", "pirate" };
    for (int random = 1; random >= 0; random--)
        for (int r = 0; r <= 8; r = r ? 2 * r : 1)
            for (int x = 8; x <= 256; x *= random ? 2 : 4) {
                if (random ? r > 0 && (x < 8 * r || x > 32 * r) : r == 2 || r == 8) continue;
                char name[WORD];
                snprintf(name, sizeof name, r ? "%s rank %d" : "%s full", names[!random], r);
                Way *w = add("knee", name, x, r ? LORA : FULL, r, r ? KNEE_RATE : KNEE_FULL_RATE);
                w->random = random;
                w->B = 8;
                w->T = 32;
                w->steps = 4000;
                w->stride = 2;
                w->half = seed == 1;
            }
}

int all_ways(uint64_t seed, Way ways[MOST_WAYS])
{
    list = ways;
    count = 0;
    rates();
    where();
    batch();
    variants();
    knee(seed);
    return count;
}
