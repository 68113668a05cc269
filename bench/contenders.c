// contenders.c - see bench.h: all that is compared, its turns and rounds, and what one is held against.

#include "bench/bench.h"

Peer torch = { .key = "torch" }, jax = { .key = "jax" }, llm = { .key = "llmc" };
Contender steps[STEPS] = {
    { .name = "full", .key = "full" },
    { .name = "full", .key = "full", .which = 1 },
    { .name = "LoRA c_attn", .key = "lora_c_attn" },
    { .name = "LoRA c_attn", .key = "lora_c_attn", .which = 1 },
    { .name = "LoRA all 4", .key = "lora_all" },
    { .name = "LoRA all 4", .key = "lora_all", .which = 1 },
    { .name = "PyTorch, eager", .key = "full", .peer = &torch, .ours = &steps[0] },
    { .name = "PyTorch, torch.compile", .key = "compile", .peer = &torch, .ours = &steps[0] },
    { .name = "PEFT, LoRA c_attn", .key = "lora_c_attn", .peer = &torch, .ours = &steps[2] },
    { .name = "PEFT, LoRA all 4", .key = "lora_all", .peer = &torch, .ours = &steps[4] },
    { .name = "llm.c", .key = "full", .peer = &llm, .ours = &steps[0] },
    { .name = "PyTorch, products", .key = "products", .products = true, .peer = &torch, .ours = &steps[0] },
    { .name = "PyTorch, eager, bf16", .key = "bf16", .tolerance = 1e-2, .peer = &torch, .ours = &steps[0] },
    { .name = "JAX, jit", .key = "full", .peer = &jax, .ours = &steps[0] },
};
Contender larges[LARGES] = {
    { .name = "full", .key = "full" },
    { .name = "full", .key = "full", .which = 1 },
    { .name = "PyTorch, eager, larger", .key = "large", .peer = &torch, .ours = &larges[0] },
    { .name = "PyTorch, products, larger", .key = "products_large", .products = true, .peer = &torch, .ours = &larges[0] },
};
Contender sampling[SAMPLINGS] = {
    { .name = "sampling", .key = "sampling", .samples = true },
    { .name = "PyTorch, sampling", .key = "sampling", .samples = true, .peer = &torch, .ours = &sampling[0] },
};
const Contender *const others[OTHERS] = { &steps[6], &steps[7], &steps[12], &steps[8], &steps[9], &larges[2], &sampling[1],
                                          &steps[11], &larges[3], &steps[13], &steps[10] };

// ----------------------------------------------------------------------------------------------------------- turns and rounds

static void sample_ours(const Transformer *model, int count)
{
    int *tokens = allocate((size_t)(1 + count), sizeof *tokens, "the characters");
    tokens[0] = 0;
    generate(model, tokens, 1, count, 0.8, 0, SEED);
    free(tokens);
}

static void take_turn(Contender *c)
{
    double seconds[MOST_SAMPLES];
    Samples turn = { 0 };
    if (c->peer != NULL) {
        size_t size = sizeof c->why;
        int got = c->samples ? peer_ask(c->peer, "seconds", seconds, 1, c->why, size, "sample %d", c->count)
                             : peer_ask(c->peer, "seconds", seconds, c->count, c->why, size, "step %s %d", c->key, c->count);
        for (int i = 0; i < got; i++) add(&turn, seconds[i]);
        if (got == 0) { c->runs = false; return; }
    } else if (c->samples) {
        use_threads(c->which);
        sample_ours(c->trainer->model, 2);
        double start = seconds_now();
        sample_ours(c->trainer->model, c->count);
        add(&turn, seconds_now() - start);
    } else {
        Turn ours = train_turn(c->trainer, c->which, c->count);
        turn = ours.seconds;
        add(&c->of_peak, ours.of_peak);
        add(&c->peak, ours.peak);
        add(&c->got, ours.got);
    }
    add(&c->turns, middle(&turn));
    if (c->turns.count == 1 || least(&turn) < c->shortest) c->shortest = least(&turn);
}

// At most `rounds`; after three, no more once `limit` seconds have passed.
static void run_rounds(const char *what, Contender *contenders, int count, int rounds, double limit)
{
    double start = seconds_now();
    for (int r = 0; r < rounds && (r < 3 || seconds_now() - start < limit); r++)
        for (int i = 0; i < count; i++) {
            progress(what, r, rounds);
            Contender *c = &contenders[r % 2 == 0 ? i : count - 1 - i];
            if (c->runs) take_turn(c);
        }
}

// Was the machine busy with something else in this round?
static bool slow_round(const Contender *contenders, int count, int round)
{
    for (int i = 0; i < count; i++) {
        const Samples *peak = &contenders[i].peak, *got = &contenders[i].got;
        if (round < peak->count && (peak->value[round] < 0.9 * most(peak) || got->value[round] < 0.9)) return true;
    }
    return false;
}

// Throws out slow rounds, everybody's; but keeps all if fewer than three would be left.
static Rounds throw_out_slow_rounds(Contender *contenders, int count)
{
    bool slow[MOST_SAMPLES] = { false };
    Rounds rounds = { .all = contenders[0].turns.count };
    for (int r = 0; r < rounds.all; r++) rounds.slow += slow[r] = slow_round(contenders, count, r);
    rounds.kept = rounds.all - rounds.slow < 3;
    for (int i = 0; i < count && !rounds.kept; i++) {
        keep_but(&contenders[i].turns, slow);
        keep_but(&contenders[i].of_peak, slow);
    }
    return rounds;
}

// Lets a peer build its model, and holds its first `compared` losses against ours.
static void open_peer(Contender *c, int compared)
{
    if (c->products) { c->runs = c->peer->pid != 0; return; }
    double loss[CHECKED];
    const double *ours = c->ours->trainer->loss;
    int got = peer_ask(c->peer, "loss", loss, CHECKED, c->why, sizeof c->why, "open %s", c->key);
    if (got < compared) return;
    for (int i = 0; i < compared; i++) {
        double difference = fabs(loss[i] - ours[i]) / ours[i];
        if (i == 0) c->difference[0] = difference;
        if (!(difference <= c->difference[1])) c->difference[1] = difference;
    }
    double first = c->tolerance > 0 ? c->tolerance : 1e-6, all = c->tolerance > 0 ? c->tolerance : 1e-5;
    c->runs = c->difference[0] <= first && c->difference[1] <= all; // a GELU without tanh: 5e-6
    if (!c->runs)
        snprintf(c->why, sizeof c->why, "not the same model: its losses begin with %.7f and %.7f, ours with %.7f and %.7f",
                 loss[0], loss[1], ours[0], ours[1]);
}

void open_contenders(bool quick)
{
    for (int i = 0; i < STEPS; i++) {
        progress("opening the others' models", i, STEPS + 1);
        steps[i].count = quick ? 2 : 4;
        steps[i].runs = i < OURS;
        if (i >= OURS) open_peer(&steps[i], steps[i].peer == &llm ? 1 : CHECKED); // llm.c's optimizer is not ours
    }
    for (int i = 0; i < LARGES; i++) {
        larges[i].count = 1;
        larges[i].runs = i < LARGE_OURS;
        if (i >= LARGE_OURS) open_peer(&larges[i], CHECKED);
    }
    sampling[0].count = sampling[1].count = quick ? 4 : 200;
    sampling[0].runs = true;
    sampling[1].runs = steps[OURS].runs;
}

Rounds step_rounds, large_rounds;

void run_contenders(bool quick)
{
    run_rounds("steps of the small shape", steps, STEPS, quick ? 2 : 21, 60);
    run_rounds("sampling", sampling, SAMPLINGS, quick ? 2 : 9, 15);
    run_rounds("steps of the larger shape", larges, LARGES, quick ? 2 : 7, 35);
    step_rounds = throw_out_slow_rounds(steps, STEPS);
    large_rounds = throw_out_slow_rounds(larges, LARGES);
    for (int i = OURS; i < STEPS; i++) {
        Contender *c = &steps[i];
        if (c->runs && !c->products && c->peer != &jax) peer_ask(c->peer, "bytes", &c->bytes, 1, c->why, sizeof c->why, "bytes %s", c->key);
    }
}

// ----------------------------------------------------------------------------------------------------------------- comparisons

double peak_of(const Contender *c)
{
    return all_step_flops(&c->trainer->timing[c->which]) / middle(&c->turns) / middle(&c->of_peak);
}

const char *why_not(const Contender *c) { return c->peer->name[0] == '\0' || c->why[0] == '\0' ? c->peer->why : c->why; }

// The products of a step of ours: the linear layers (with their biases) and the head. Adds up their times and FLOPs.
static void add_products(const Timing *timing, double *seconds, double *flops)
{
    for (int op = 0; op < MEASURED_OPS && timing->last.op[op].name != NULL; op++) {
        const char *name = timing->last.op[op].name;
        if (strcmp(name, "linear") != 0 && strcmp(name, "lm_head") != 0) continue;
        for (int p = PHASE_FORWARD; p <= PHASE_WGRAD; p++) {
            *seconds += middle(&timing->op[op][p]);
            *flops += (double)timing->last.op[op].phase[p].flops;
        }
    }
}

double our_seconds(const Contender *c)
{
    double seconds = 0, flops = 0;
    if (!c->products) return middle(&c->ours->turns);
    add_products(&c->ours->trainer->timing[0], &seconds, &flops);
    return seconds;
}

double peer_ratio(const Contender *c)
{
    return c->products ? middle(&c->turns) / our_seconds(c) : ratio(&c->turns, &c->ours->turns);
}

double products_of_peak(const Contender *c, double seconds)
{
    double ours = 0, flops = 0;
    add_products(&c->ours->trainer->timing[0], &ours, &flops);
    return flops / seconds / peak_of(c->ours);
}
