// q25_merge_again.c - an adapter was trained on a base in four bits: may one merge it, and hold the sum in four bits again?
//
// Over five seeds, each with a base of its own: the loss of an adapter on floats; of one on nf4, as it was trained; the same one
// on the floats from which the codes were made; merged into floats of the codes' values; and that sum in eight and in four bits.
// Then how large the last rounding is beside what the adapter had added.
// Look at: linear_merge in lora.c, transformer_hold_base in transformer.c, transformer_forget_original in adapters.c.

#include "tiny.h"

enum { BASES = 5, STEPS = 150 };
enum { ON_FLOATS, ON_CODES, MOVED, MERGED, AGAIN_INT8, AGAIN_NF4, WAYS };
static const char *const way_names[WAYS] = { "adapter trained and used on floats", "trained and used on nf4",
    "trained on nf4, used on the floats", "merged into floats of the codes' values", "merged, then int8", "merged, then nf4 again" };

// sqrt of the sum of all (a - b)^2.
static double apart(const Transformer *model, real **a, real **b)
{
    double sum = 0;
    for (int i = 0; i < model->base_count; i++)
        for (int64_t j = 0; j < model->parameters[i]->size; j++) sum += pow((double)a[i][j] - (double)b[i][j], 2);
    return sqrt(sum);
}

// Returns the last rounding over what the adapter had added.
static double measure_ways(const Text *tales, const Text *pirate, uint64_t seed, double loss[WAYS])
{
    Transformer *model = well_read_base(tales, seed);
    LoraConfig lora = lora_on(ON_ALL, 4), on_nf4 = lora;
    on_nf4.base_type = BASE_NF4;
    real **exact = copy_base(model);
    attach(model, lora, seed);
    loss[ON_FLOATS] = learn_slowly(model, pirate, STEPS, 1e-2, seed);
    attach(model, on_nf4, seed);
    loss[ON_CODES] = learn_slowly(model, pirate, STEPS, 1e-2, seed);
    restore_base(model, exact);
    loss[MOVED] = evaluate_validation(model, pirate);

    transformer_hold_base(model, BASE_NF4); // the codes that it was trained on,
    transformer_hold_base(model, BASE_FLOAT); // and their values
    real **values = copy_base(model);
    transformer_merge(model);
    transformer_forget_original(model);
    loss[MERGED] = evaluate_validation(model, pirate);
    real **merged = copy_base(model), **kept = copy_base(model);
    transformer_hold_base(model, BASE_INT8);
    loss[AGAIN_INT8] = evaluate_validation(model, pirate);
    restore_base(model, kept);
    transformer_hold_base(model, BASE_NF4);
    loss[AGAIN_NF4] = evaluate_validation(model, pirate);
    transformer_hold_base(model, BASE_FLOAT);
    real **again = copy_base(model);
    double rounding = apart(model, again, merged) / apart(model, merged, values);
    restore_base(model, values), restore_base(model, merged), restore_base(model, again); // which frees them
    transformer_free(model);
    return rounding;
}

int main(void)
{
    question("An adapter was trained on a base in four bits. May one merge it into four bits again?");
    predict("Merged, s A B is rounded to the grid of 16 values. How much of what the adapter learned is left: all, most, nothing?");

    Text tales = tiny_text("builtin:tales"), pirate = tiny_text("builtin:pirate");
    static double loss[BASES][WAYS];
    double rounding[BASES];
    bool same = true, costs = true, eight = true, moved = true;
    for (int s = 0; s < BASES; s++) {
        const double *l = loss[s];
        rounding[s] = measure_ways(&tales, &pirate, (uint64_t)s + 1, loss[s]);
        same &= fabs(l[MERGED] - l[ON_CODES]) < 1e-4;
        moved &= l[MOVED] > l[ON_CODES];
        costs &= l[AGAIN_NF4] > l[MERGED];
        eight &= fabs(l[AGAIN_INT8] - l[MERGED]) < (l[AGAIN_NF4] - l[MERGED]) / 4;
    }
    printf("  %-42s %8s %8s %8s\n", "loss on the pirate's text", "least", "median", "most");
    for (int w = 0; w < WAYS; w++) {
        double values[BASES];
        for (int s = 0; s < BASES; s++) values[s] = loss[s][w];
        double middle = median(values, BASES);
        printf("  %-42s %8.4f %8.4f %8.4f\n", way_names[w], values[0], middle, values[BASES - 1]);
    }
    double more[BASES];
    for (int s = 0; s < BASES; s++) more[s] = loss[s][AGAIN_NF4] - loss[s][MERGED];
    double middle = median(more, BASES);
    measured("nf4 again costs, of the same seed", "%+.4f (%+.4f to %+.4f)", middle, more[0], more[BASES - 1]);
    measured("its rounding, of what the adapter had added", "%.0f %%", 100 * median(rounding, BASES));

    why("The adapter was trained beside the rounded base and made up for its rounding. After the second rounding nobody trains. The "
        "exact floats are another base than the one that the adapter knows, too.");
    finding(same, "merged into floats: the loss is what it was apart, to four digits");
    finding(eight, "and in int8 after that: less than a quarter of what nf4 costs");
    finding(costs, "merged and in nf4 again: worse than in floats, with each of five seeds");
    finding(moved, "on the floats from which the codes were made the adapter is worse than on the codes, with each seed");
    text_free(&tales);
    text_free(&pirate);
    return answered();
}
