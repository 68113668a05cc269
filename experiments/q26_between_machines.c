// q26_between_machines.c - a batch in parts: what do micro-batches save, and what must machines tell each other in each step?
//
// At the demo's shape: one process that takes a batch of 12 windows in K parts, one after the other; two processes that take one
// part each and add up their gradients (pair.h); and the time for that at the shapes of large models.
// Look at: training_step_in_parts in training.c. With an MPI: make MPI=1, mpirun -n 2 ./train.

#include "comparison.h"
#include "pair.h"
#include "question.h"

enum { WAYS = 2, CUTS = 4, STEPS = 3 };
static const int cuts[CUTS] = { 1, 2, 4, 12 };
static const struct { const char *name; const LoraConfig *lora; } ways[WAYS] = { { "full", NULL }, { "LoRA", &on_c_attn } };

typedef struct Outcome { double loss[STEPS]; uint64_t hash; Ledger ledger; } Outcome; // of the last step

// A new model, so that every training begins with the same.
static Outcome train_in_parts(int way, const Text *text, const Parts *parts)
{
    static int ids[2 * BATCH * CONTEXT], *const targets = ids + BATCH * CONTEXT;
    Outcome outcome = { .hash = HASH_START };
    Transformer *model = new_model(small_shape(text->vocabulary.size), SEED);
    adapt(model, ways[way].lora, SEED);
    AdamW *optimizer = new_optimizer(model, 0.1);
    Tape *tape = tape_new();
    for (int i = 0; i < STEPS; i++) {
        text_batch(text, BATCH, CONTEXT, SEED, i, ids, targets);
        tape_clear(tape);
        memory_reset_peaks();
        outcome.loss[i] = training_step_in_parts(model, tape, optimizer, ids, targets, BATCH, CONTEXT, SEED, i, 1e-3, parts).loss;
    }
    outcome.ledger = ledger;
    for (int i = 0; i < model->parameter_count; i++)
        outcome.hash = hash_bytes(outcome.hash, model->parameters[i]->data, (size_t)model->parameters[i]->size * sizeof(real));
    tape_free(tape);
    adamw_free(optimizer);
    transformer_free(model);
    return outcome;
}

int main(void)
{
    question("What do micro-batches save, and what must machines that train together tell each other in each step?");
    predict("Full training and LoRA, a batch in one part or in twelve: which bytes fall, which rise? How much less does LoRA send?");
    static Outcome outcomes[WAYS][CUTS];
    Text text = open_text("builtin:tales", 100000, CONTEXT);
    const Config config = small_shape(text.vocabulary.size);
    bool predicted = true, kept = true, states = true, sends = true, same = true;
    double apart = 0, sent[WAYS], trained[WAYS];
    printf("  %-6s %5s %12s %12s %12s %12s %10s\n", "bytes", "parts", "peak", "predicted", "kept", "gradients", "moments");
    for (int w = 0; w < WAYS; w++)
        for (int c = 0; c < CUTS; c++) {
            Outcome *o = &outcomes[w][c], *whole = &outcomes[w][0];
            *o = train_in_parts(w, &text, &(Parts){ .count = cuts[c], .end = cuts[c] });
            Prediction p = predict_step_in_parts(&config, ways[w].lora, BATCH, CONTEXT, false, 1, (int)sizeof(real), cuts[c]);
            const int64_t *own = o->ledger.own_peak, *own_whole = whole->ledger.own_peak;
            predicted &= p.peak == o->ledger.peak && memcmp(p.own_peak, own, sizeof p.own_peak) == 0;
            kept &= own[MEMORY_KEPT_ACTIVATIONS] * cuts[c] == own_whole[MEMORY_KEPT_ACTIVATIONS];
            states &= own[MEMORY_PARAMETER_GRADIENTS] == (c > 0 ? 2 : 1) * own_whole[MEMORY_PARAMETER_GRADIENTS]
                   && own[MEMORY_MOMENTS] == own_whole[MEMORY_MOMENTS];
            for (int i = 0; i < STEPS; i++) apart = fmax(apart, fabs(o->loss[i] - whole->loss[i]) / whole->loss[i]);
            printf("  %-6s %5d %12" PRId64 " %12" PRId64 " %12" PRId64 " %12" PRId64 " %10" PRId64 "\n", ways[w].name, cuts[c],
                   o->ledger.peak, p.peak, own[MEMORY_KEPT_ACTIVATIONS], own[MEMORY_PARAMETER_GRADIENTS], own[MEMORY_MOMENTS]);
        }
    printf("\n");
    for (int w = 0; w < WAYS; w++) {
        trained[w] = w ? (double)lora_parameters(&config, &on_c_attn) : base_parameters(config.vocab_size, CONTEXT, config.n_layer, config.n_embd);
        Link link = pair_begin();
        Outcome o = train_in_parts(w, &text, &(Parts){ 2, link.index, link.index + 1, pair_add_up, &link });
        same &= pair_end(&link, o.hash) && o.hash == outcomes[w][1].hash && o.loss[STEPS - 1] == outcomes[w][1].loss[STEPS - 1];
        sent[w] = (double)link.sent / STEPS;
        sends &= sent[w] == trained[w] * (double)sizeof(real);
        printf("  %-6s each of two processes sends in a step: %9.0f bytes, predicted %9.0f\n", ways[w].name, sent[w],
               trained[w] * (double)sizeof(real));
    }
    printf("\n");
    print_wire(trained[0], trained[1]);
    why("A part's activations are gone when the next one begins. Gradients double, for the sum stands beside the part's own, and "
        "moments do not care for the batch. Of two processes each sends one half of its gradients, and the sums of the other half: "
        "P numbers; each of n sends 2 P (n - 1) / n. What is frozen has neither gradient nor moments.");
    finding(kept, "kept activations fall to 1/K, full and LoRA, to the byte");
    finding(states, "moments stay; gradients are there twice as soon as there are two parts");
    finding(predicted, "every peak is, to the byte, what predict.c computes on paper");
    finding(apart < 1e-5, "the losses are those of the whole batch, but for rounding");
    finding(sends, "what is sent is one number for each one that trains, to the byte");
    finding(same, "two processes end with the same bits, and with those of two micro-batches");
    finding(sent[0] > 49 * sent[1], "with LoRA less than 1/49 is sent of what full training sends");
    text_free(&text);
    return answered();
}
