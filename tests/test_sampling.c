// test_sampling.c - which token is drawn: by its probability, by one random number, and the largest wherever it is.

#include "../generate.h"
#include "small_model.h"
#include "test.h"

TEST(tokens_are_drawn_by_their_probability)
{
    static const double p[] = { 0.05, 0.4, 0.1, 0.25, 0.2 };
    static const struct { double temperature; int top_k; double expected[5]; } forms[] = {
        { 1, 0, { 0.05, 0.4, 0.1, 0.25, 0.2 } },
        { 1, 5, { 0.05, 0.4, 0.1, 0.25, 0.2 } },
        { 1, 99, { 0.05, 0.4, 0.1, 0.25, 0.2 } },
        { 1, 2, { 0, 0.4 / 0.65, 0, 0.25 / 0.65, 0 } },
        { 1, 3, { 0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85 } },
        { 1, 1, { 0, 1, 0, 0, 0 } },
        { 0.5, 0, { 0.0025 / 0.275, 0.16 / 0.275, 0.01 / 0.275, 0.0625 / 0.275, 0.04 / 0.275 } },
        { 0, 0, { 0, 1, 0, 0, 0 } },
        { 0, 3, { 0, 1, 0, 0, 0 } },
    };
    enum { DRAWS = 6000 };
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        double share_[5] = { 0 };
        int64_t differ = 0;
        for (int i = 0; i < DRAWS; i++) {
            real logits[5], again[5];
            for (int v = 0; v < 5; v++) logits[v] = again[v] = (real)(log(p[v]) + 7);
            int token = sample_token(logits, 5, forms[f].temperature, forms[f].top_k, 42, (uint64_t)i);
            differ += token != sample_token(again, 5, forms[f].temperature, forms[f].top_k, 42, (uint64_t)i);
            if (token < 0 || token > 4) differ++;
            else share_[token] += 1.0 / DRAWS;
        }
        EXPECT(differ == 0, "form %d: %" PRId64 " draws are out of range or differ when repeated", (int)f, differ);
        for (int v = 0; v < 5; v++) {
            double q = forms[f].expected[v], bound = 4.5 * sqrt(q * (1 - q) / DRAWS);
            EXPECT(fabs(share_[v] - q) <= bound + 1e-12, "temperature %g, top_k %d: token %d comes with %g, not %g",
                    forms[f].temperature, forms[f].top_k, v, share_[v], q);
        }
    }
    real broken[] = { (real)NAN, 1, 3, (real)NAN, 2 };
    EXPECT(sample_token(broken, 5, 0, 0, 1, 1) == 2, "the largest of NaN, 1, 3, NaN, 2");
    for (int i = 0; i < 50; i++) { // extreme values
        real high[3] = { -1000, 1000, 999 };
        EXPECT(sample_token(high, 3, 0.01, 0, 1, (uint64_t)i) == 1, "logits of 1000 at a low temperature");
        real tied[4] = { 2, 5, 5, 1 };
        int token = sample_token(tied, 4, 1, 1, 1, (uint64_t)i);
        EXPECT(token == 1 || token == 2, "top_k 1 with two largest gives %d", token);
        real pair[4] = { (real)4.9, 5, 1, 5 };
        token = sample_token(pair, 4, 1, 2, 1, (uint64_t)i);
        EXPECT(token == 1 || token == 3, "top_k 2: two are largest, and %d comes", token);
        real three[5] = { 4, 5, 4, 5, (real)3.9 };
        token = sample_token(three, 5, 1, 3, 1, (uint64_t)i);
        EXPECT(token < 4, "top_k 3, with a tie for the third place: %d comes", token);
    }
}

// The token that the i-th number of the seed draws, in double: the first at which the probabilities, added up in the order of the
// vocabulary, are above it. -1: too close to the edge between two.
static int drawn_by_softmax(const real *logits, int vocabulary, double temperature, int top_k, double u)
{
    double p[64], sum = 0, largest = number(logits[0]), least = -(double)INFINITY;
    for (int v = 0; v < vocabulary; v++) {
        int above = 0; // how many are larger: with top_k or more of them, v is hidden
        for (int w = 0; w < vocabulary; w++) above += logits[w] > logits[v];
        if (top_k == 0 || above < top_k) continue;
        least = fmax(least, number(logits[v]));
    }
    for (int v = 0; v < vocabulary; v++) largest = fmax(largest, number(logits[v]));
    for (int v = 0; v < vocabulary; v++) sum += p[v] = number(logits[v]) <= least ? 0 : exp((number(logits[v]) - largest) / temperature);
    double below = 0;
    for (int v = 0; v < vocabulary; v++) {
        below += p[v] / sum;
        if (fabs(below - u) < 1e-12) return -1;
        if (u < below) return v;
    }
    return -1;
}

TEST(a_token_is_drawn_by_one_number)
{
    static const double temperatures[] = { 0.3, 1, 2.5 };
    static const int sizes[] = { 1, 2, 33, 40 }, tops[] = { 0, 1, 2, 5, 11, 12, 32, 33, 34, 100 };
    enum { DRAWS = 40 };
    int drawn[64] = { 0 };
    for (int form = 0; form < 4 * 3 * 10; form++) {
        const int vocabulary = sizes[form % 4], top_k = tops[form / 12];
        const double temperature = temperatures[form / 4 % 3];
        for (int i = 0; i < DRAWS; i++) {
            real logits[64], given[64];
            for (int v = 0; v < vocabulary; v++) logits[v] = given[v] = (real)(2 * irregular(9, 64 * i + v, 1));
            for (int v = 5; v < vocabulary; v += 11) logits[v] = given[v] = logits[4]; // ties
            const uint64_t seed = (uint64_t)(form * 2 + i % 2);
            int expected = drawn_by_softmax(given, vocabulary, temperature, top_k, random_uniform(seed, (uint64_t)i));
            int token = sample_token(logits, vocabulary, temperature, top_k, seed, (uint64_t)i);
            EXPECT(expected < 0 || token == expected, "%d tokens, temperature %g, top_k %d, draw %d: %d, not %d", vocabulary, temperature, top_k, i, token, expected);
            if (vocabulary == 33) drawn[token]++;
        }
    }
    for (int v = 0; v < 33; v++) EXPECT(drawn[v] > 0, "token %d never comes", v);
}

// Wherever it is. Of several that are equal, the first: else what is repeated would depend on more than the logits.
TEST(the_largest_token_at_every_place)
{
    for (int vocabulary = 1; vocabulary <= 33; vocabulary++)
        for (int place = 0; place < vocabulary; place++) {
            real logits[33];
            for (int v = 0; v < vocabulary; v++) logits[v] = (real)-3 - (real)(v * 7 % 5);
            logits[place] = -1;
            EXPECT(sample_token(logits, vocabulary, 0, 0, 1, 1) == place, "the largest of %d at %d, and %d comes", vocabulary, place, sample_token(logits, vocabulary, 0, 0, 1, 1));
            EXPECT(sample_token(logits, vocabulary, 1, 1, 1, 1) == place, "top_k 1, the largest of %d at %d", vocabulary, place);
            for (int v = place; v < vocabulary; v++) logits[v] = -1;
            EXPECT(sample_token(logits, vocabulary, 0, 0, 1, 1) == place, "of %d, those from %d on are equal, and %d comes", vocabulary, place, sample_token(logits, vocabulary, 0, 0, 1, 1));
        }
}

int main(void)
{
    RUN(tokens_are_drawn_by_their_probability);
    RUN(a_token_is_drawn_by_one_number);
    RUN(the_largest_token_at_every_place);
    return test_summary();
}
