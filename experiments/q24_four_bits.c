// q24_four_bits.c - what does a base in four bits cost in loss, and does the adapter make up for it?
//
// A base that has read tales is held in floats, in four bits (nf4) and in eight (int8). Its loss on tales as it is; then
// adapters of rank 4 on all layers learn on each, once more tales, and the pirate's. Over five seeds, each with a base of its own:
// medians, and how far the seeds are apart. A cost is always the loss on codes less that on floats with the same seed.
// Look at: nf4_values and to_nf4 in quantise.c, transformer_hold_base in transformer.c.

#include "tiny.h"

enum { BASES = 5, STEPS = 150 };
enum { ALONE, ON_TALES, ON_PIRATE, LOSSES };
static const char *const loss_names[LOSSES] = { "tales, no adapter", "tales, an adapter", "pirate, an adapter" };

// Adapters from one seed each time, on a base that comes back to floats afterwards.
static void measure_base(const Text *tales, const Text *pirate, uint64_t seed, double loss[BASE_TYPES][LOSSES])
{
    Transformer *model = well_read_base(tales, seed);
    for (BaseType type = BASE_FLOAT; type < BASE_TYPES; type++) {
        LoraConfig lora = lora_on(ON_ALL, 4);
        lora.base_type = type;
        real **floats = copy_base(model);
        transformer_use_adapter(model, NULL);
        transformer_hold_base(model, type);
        loss[type][ALONE] = evaluate_validation(model, tales);
        attach(model, lora, seed);
        loss[type][ON_TALES] = learn_slowly(model, tales, STEPS, 1e-2, seed);
        attach(model, lora, seed);
        loss[type][ON_PIRATE] = learn_slowly(model, pirate, STEPS, 1e-2, seed);
        restore_base(model, floats);
    }
    transformer_free(model);
}

typedef struct Spread { double least, middle, most; } Spread;

// Of one loss on a base of that type, or if `cost` is true of what it is more than on floats with the same seed.
static Spread over_seeds(double loss[BASES][BASE_TYPES][LOSSES], int type, int which, bool cost)
{
    double values[BASES];
    for (int s = 0; s < BASES; s++) values[s] = loss[s][type][which] - (cost ? loss[s][BASE_FLOAT][which] : 0);
    double middle = median(values, BASES); // sorts them
    return (Spread){ values[0], middle, values[BASES - 1] };
}

int main(void)
{
    question("What does a base in four bits cost in loss, and does the adapter make up for it?");
    predict("Weights are off by a tenth of their typical size. By how much does the loss rise? And with an adapter trained on it?");

    Text tales = tiny_text("builtin:tales"), pirate = tiny_text("builtin:pirate");
    static double loss[BASES][BASE_TYPES][LOSSES];
    for (int s = 0; s < BASES; s++) measure_base(&tales, &pirate, (uint64_t)s + 1, loss[s]);
    printf("  %-18s %6s %6s %6s %26s %8s\n", "medians", "float", "int8", "nf4", "nf4 costs (from, to)", "seeds");
    Spread floats[LOSSES], cost[LOSSES];
    bool within = true;
    for (int l = 0; l < LOSSES; l++) {
        cost[l] = over_seeds(loss, BASE_NF4, l, true);
        floats[l] = over_seeds(loss, BASE_FLOAT, l, false);
        double seeds = floats[l].most - floats[l].least;
        printf("  %-18s %6.4f %6.4f %6.4f %+7.4f (%+.4f, %+.4f) %8.4f\n", loss_names[l], floats[l].middle,
               over_seeds(loss, BASE_INT8, l, false).middle, over_seeds(loss, BASE_NF4, l, false).middle, cost[l].middle,
               cost[l].least, cost[l].most, seeds);
        within &= l == ALONE || fabs(cost[l].middle) < seeds / 2;
    }
    double int8 = over_seeds(loss, BASE_INT8, ALONE, true).middle;
    measured("int8 costs, no adapter", "%+.4f", int8);
    printf("  (seeds: the highest loss on floats less the lowest, of the five)\n");

    why("Rounding moves the base a little, in directions that have nothing to do with the text. The adapter sees the loss on the "
        "rounded base and nothing else, so what it learns contains the correction.");
    finding(cost[ALONE].least > 0, "without an adapter nf4 costs loss, with each of five seeds");
    finding(fabs(int8) < cost[ALONE].middle / 4, "int8 costs less than a quarter of that");
    finding(within, "with an adapter, on either text, nf4's cost is less than half of what seeds differ by: made up for");
    finding(over_seeds(loss, BASE_NF4, ON_TALES, false).middle < floats[ALONE].middle,
            "with an adapter, the base in nf4 is better than it was in floats without one");
    text_free(&tales);
    text_free(&pirate);
    return answered();
}
