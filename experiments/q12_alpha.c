// q12_alpha.c - what is alpha, and why divide it by r, or by its square root?
//
// A transformer that has read some tales learns to tell them as a pirate would, with adapters of rank 1 to 32, at one rate.
// y = x W + s (x A) B with s constant, s = alpha / r, and s = alpha / sqrt(r), all equal at r = 8.
// Asked in microsoft/LoRA#101, bitsandbytes#762. Look at: transformer_add_adapter in transformer.c, where scale is set.

#include "tiny.h"

enum { STEPS = 200, RANKS = 6, RULES = 3, MIDDLE = 8 };
enum { CONSTANT, BY_R, BY_ROOT };
static const int ranks[RANKS] = { 1, 2, 4, 8, 16, 32 };
static const char *const rules[RULES] = { "s constant", "alpha / r", "alpha / sqrt(r)" };

static LoraConfig config(int rule, int r)
{
    LoraConfig lora = lora_on(ON_ALL, r);
    double s = 2;
    lora.alpha = rule == BY_R ? s * MIDDLE : rule == BY_ROOT ? s * sqrt(MIDDLE) : s * r;
    lora.rank_stabilized = rule == BY_ROOT;
    return lora;
}

// |s A B|, over all layers.
static double change(const Adapter *adapter)
{
    double squares = 0;
    for (int i = 0; i < BASE_BLOCKS * LINEARS; i++) {
        const Lora *lora = &adapter->lora[i];
        Tensor *AB = op_matmul(NULL, lora->A, lora->B);
        squares += pow((double)lora->scale * norm_of(AB->data, AB->size), 2);
        tensor_drop(AB);
    }
    return sqrt(squares);
}

int main(void)
{
    question("What does alpha do, and why is it divided by r?");
    predict("From r = 1 to 32 with s constant: how many times larger is the change |s A B| after training?");

    Text tales = tiny_text("builtin:tales"), pirate = tiny_text("builtin:pirate");
    bool doubles = true, grows = true, too_much = true, even = true;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        Transformer *model = tiny_base(&tales, seed);
        if (seed == 1) {
            printf("  %-15s", "|s A B|, loss");
            for (int r = 0; r < RANKS; r++) printf("   r = %-3d", ranks[r]);
            printf("\n");
        }
        double norm[RULES][RANKS], first[2];
        for (int rule = 0; rule < RULES; rule++) {
            if (seed == 1) printf("  %-15s", rules[rule]);
            for (int r = 0; r < RANKS; r += seed == 1 ? 1 : RANKS - 1) { // of the other seeds the ends alone
                Adapter *adapter = attach(model, config(rule, ranks[r]), seed);
                double loss = learn(model, &pirate, STEPS, 3e-3, seed);
                norm[rule][r] = change(adapter);
                if (seed == 1) printf(" %4.1f %4.2f", norm[rule][r], loss);
                fflush(stdout);
            }
            if (seed == 1) printf("\n");
        }
        for (int twice = 0; twice < 2; twice++) { // one step, with alpha and with twice as much
            LoraConfig lora = config(BY_R, 8);
            lora.alpha *= 1 + twice;
            Adapter *adapter = attach(model, lora, seed);
            learn(model, &pirate, 1, 3e-3, seed);
            first[twice] = change(adapter);
        }
        if (seed == 1) measured("one step with alpha, with twice alpha: |s A B|", "%.4f, %.4f", first[0], first[1]);
        double growth[RULES]; // of the change, from r = 1 to r = 32
        for (int rule = 0; rule < RULES; rule++) growth[rule] = norm[rule][RANKS - 1] / norm[rule][0];
        measured("|s A B| at r = 32 over r = 1, by the three rules", "%.2f, %.2f, %.2f (seed %d)", growth[CONSTANT],
                 growth[BY_R], growth[BY_ROOT], (int)seed);
        doubles &= fabs(first[1] / first[0] - 2) < 1e-3;
        grows &= growth[CONSTANT] > 1.4;
        too_much &= growth[BY_R] < 0.7;
        even &= growth[BY_ROOT] > 0.7 && growth[BY_ROOT] < 1.4;
        transformer_free(model);
    }

    why("Adam moves each number of B by about the learning rate, however small its gradient: s is then a factor of the "
        "step. |A B| grows with r, but less than r does: alpha / r overcorrects, alpha / sqrt(r) comes out about even.");
    finding(doubles, "twice alpha, twice the first step of s A B: under Adam alpha acts as a factor of the learning rate");
    finding(grows, "s constant: the change at r = 32 is more than 1.4 times that at r = 1, over three seeds");
    finding(too_much,
            "alpha / r does not keep it even, though often said to: at r = 32 less than 0.7 of r = 1's, over three seeds");
    finding(even, "alpha / sqrt(r) does, between 0.7 and 1.4, over three seeds");
    text_free(&tales);
    text_free(&pirate);
    return answered();
}
