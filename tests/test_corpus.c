// test_corpus.c - the built-in texts: their floors are exact, and tasks use only characters that the tales teach.

#include "../io/corpus.h"
#include "test.h"

#include <inttypes.h>

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

enum { LENGTH = 200000, TALES = 400, MAX_WORDS = 4096, WORD = 24 };

static Corpus write_text(const char *name, uint64_t seed, int64_t length)
{
    Corpus corpus;
    if (!corpus_write(name, seed, length, &corpus)) {
        printf("no text is called %s\n", name);
        exit(1);
    }
    return corpus;
}

// Copies the tale at `from` without the blank line after it; returns where the next one begins, or -1 after the last.
static int64_t next_tale(const Corpus *corpus, int64_t from, char tale[512])
{
    const char *end = from < corpus->length ? strstr(corpus->text + from, "\n\n") : NULL;
    if (!end || end - (corpus->text + from) >= 512) return -1;
    size_t length = (size_t)(end - (corpus->text + from));
    memcpy(tale, corpus->text + from, length);
    tale[length] = 0;
    return from + (int64_t)length + 2;
}

static int64_t count(const char *text, const char *part)
{
    int64_t found = 0;
    for (const char *p = text; (p = strstr(p, part)) != NULL; p++) found++;
    return found;
}

TEST(a_seed_is_a_text)
{
    for (const char *const *name = corpus_names(); *name; name++) {
        Corpus a = write_text(*name, 1, 5000), b = write_text(*name, 1, 5000), c = write_text(*name, 2, 5000);
        Corpus longer = write_text(*name, 1, 9000);
        EXPECT(a.length == b.length && memcmp(a.text, b.text, (size_t)a.length) == 0, "%s", *name);
        EXPECT(memcmp(a.nats, b.nats, (size_t)a.length * sizeof *a.nats) == 0, "%s", *name);
        EXPECT(strncmp(a.text, c.text, 200) != 0, "%s", *name);
        EXPECT(strncmp(longer.text, a.text, (size_t)a.length) == 0, "%s", *name);
        corpus_free(&a), corpus_free(&b), corpus_free(&c), corpus_free(&longer);
    }
}

TEST(length_is_kept_and_tales_are_whole)
{
    static const int64_t lengths[] = {0, 1, 300, 4096, 100001};
    for (const char *const *name = corpus_names(); *name; name++)
        for (int i = 0; i < 5; i++) {
            Corpus c = write_text(*name, 7, lengths[i]);
            EXPECT(c.length >= lengths[i] && c.length < lengths[i] + 400, "%s: %" PRId64 " for %" PRId64, *name, c.length, lengths[i]);
            EXPECT(c.length == (int64_t)strlen(c.text) && strcmp(c.text + c.length - 2, "\n\n") == 0, "%s", *name);
            corpus_free(&c);
            EXPECT(c.text == NULL && c.length == 0, "%" PRId64, c.length);
        }
    Corpus none;
    EXPECT(!corpus_write("no such text", 1, 100, &none) && none.text == NULL, "%" PRId64, none.length);
    corpus_free(&none);
}

TEST(tales_are_short)
{
    for (const char *const *name = corpus_names(); *name; name++) {
        Corpus c = write_text(*name, 3, LENGTH);
        char tale[512];
        int64_t tales = 0;
        for (int64_t at = 0, next; (next = next_tale(&c, at, tale)) > 0; at = next, tales++) {
            EXPECT(next - at > 70 && next - at < 350, "%" PRId64 ": %s", next - at, tale);
            EXPECT(!strchr(tale, '\n') && !strstr(tale, "  ") && !strstr(tale, " ."), "%s", tale);
        }
        EXPECT(tales > LENGTH / 350, "%s: %" PRId64, *name, tales);
        corpus_free(&c);
    }
}

TEST(each_tale_has_one_derivation)
{
    for (const char *const *name = corpus_names(); *name; name++) {
        Corpus c = write_text(*name, 11, 350 * TALES);
        char tale[512];
        int64_t at = 0, next;
        for (int i = 0; i < TALES && (next = next_tale(&c, at, tale)) > 0; i++, at = next) {
            double nats = 0.0, written = corpus_floor(&c, at, next) * (double)(next - at);
            int ways = corpus_derivations(*name, tale, &nats);
            EXPECT(ways == 1, "%s: %d ways: %s", *name, ways, tale);
            EXPECT(fabs(nats - written) < 1e-4, "%s: read %.9g, written %.9g: %s", *name, nats, written, tale);
            EXPECT(nats > 10.0, "%g", nats);
        }
        corpus_free(&c);
    }
}

// The checks above can fail: what is no tale is refused, and a table with two ways to one text is found out.
TEST(derivations_can_be_zero_or_two)
{
    Corpus c = write_text("tales", 5, 1);
    char tale[512], altered[520];
    double nats = -1.0;
    next_tale(&c, 0, tale);
    EXPECT(corpus_derivations("tales", tale, NULL) == 1, "%s", tale);
    for (size_t i = 0; tale[i]; i++) {
        strcpy(altered, tale);
        altered[i] = '#';
        EXPECT(corpus_derivations("tales", altered, &nats) == 0 && nats < 0.0, "%s", altered);
    }
    snprintf(altered, sizeof altered, "%s\n", tale);
    EXPECT(corpus_derivations("tales", altered, NULL) == 0, "%s", altered);
    tale[strlen(tale) - 1] = 0;
    EXPECT(corpus_derivations("tales", tale, NULL) == 0, "%s", tale);
    EXPECT(corpus_derivations("pirate", c.text, NULL) == 0, "%s", c.text);
    EXPECT(corpus_derivations("no such text", "x", NULL) == 0, "it has no tales");
    corpus_free(&c);

    static const GrammarRule twice[] = {{"tale", "a {ab}{bc}"}, {"ab", "|b"}, {"bc", "bb|b"}, {NULL, NULL}};
    EXPECT(grammar_derivations(twice, "a bb", NULL) == 2, "%d", grammar_derivations(twice, "a bb", NULL));
    EXPECT(grammar_derivations(twice, "a b", NULL) == 1, "%d", grammar_derivations(twice, "a b", NULL));
}

TEST(tables_mean_what_the_header_says)
{
    static const GrammarRule table[] = {
        {"tale", "{who}: ^{he/she} has {c=pet}, {c} and {pet}"},
        {"who", "3:{male}Tom|{female}Ada"},
        {"pet", "cat|dog"},
        {NULL, NULL},
    };
    double nats = 0.0;
    EXPECT(grammar_derivations(table, "Tom: He has cat, cat and dog", &nats) == 1, "%g", nats);
    EXPECT(fabs(nats - log(4.0 / 3.0) - 2.0 * log(2.0)) < 1e-12, "%.15g", nats);
    EXPECT(grammar_derivations(table, "Ada: She has dog, dog and dog", &nats) == 1, "%g", nats);
    EXPECT(fabs(nats - log(4.0) - 2.0 * log(2.0)) < 1e-12, "%.15g", nats);
    EXPECT(grammar_derivations(table, "Ada: He has dog, dog and dog", NULL) == 0, "a pronoun must agree");
    EXPECT(grammar_derivations(table, "Tom: He has dog, cat and dog", NULL) == 0, "a repeated word must agree");
    EXPECT(grammar_derivations(table, "Tom: he has dog, dog and dog", NULL) == 0, "a capital is wanted");
}

// Embeddings of characters that the base never saw stay as they were born, and a frozen model cannot learn them.
TEST(tasks_use_characters_that_the_tales_teach)
{
    Corpus tales = write_text("tales", 1, 5 * LENGTH);
    int64_t in_tales[256] = {0};
    for (int64_t i = 0; i < tales.length; i++) in_tales[(unsigned char)tales.text[i]]++;
    for (const char *const *name = corpus_names(); *name; name++) {
        Corpus task = write_text(*name, 1, 5 * LENGTH);
        int64_t in_task[256] = {0};
        for (int64_t i = 0; i < task.length; i++) in_task[(unsigned char)task.text[i]]++;
        for (int c = 0; c < 256; c++) {
            double here = 100.0 * (double)in_task[c] / (double)task.length;
            double there = 100.0 * (double)in_tales[c] / (double)tales.length;
            EXPECT(in_task[c] == 0 || isprint(c) || c == '\n', "%s: character %d", *name, c);
            EXPECT(in_task[c] == 0 || in_tales[c] > 0, "%s: '%c' is not in the tales", *name, c);
            EXPECT(here <= 0.3 || there >= 0.1, "%s: '%c' is %.3f %%, in the tales %.3f %%", *name, c, here, there);
        }
        corpus_free(&task);
    }
    corpus_free(&tales);
}

TEST(floors_are_interesting_and_below_simple_models)
{
    for (const char *const *name = corpus_names(); *name; name++) {
        Corpus c = write_text(*name, 1, LENGTH);
        bool base = name == corpus_names();
        double floor = corpus_floor(&c, 0, c.length), low = base ? 0.22 : 0.20;
        EXPECT(floor > low && floor < 0.38, "%s: %.4f", *name, floor);
        double first = corpus_floor(&c, 0, c.length / 2), second = corpus_floor(&c, c.length / 2, c.length);
        EXPECT(fabs(first - second) < 0.02, "%s: %.4f and %.4f", *name, first, second);
        EXPECT(corpus_floor(&c, 5, 5) == 0.0, "an empty stretch");

        // The entropy of a character given the one before it: H(pair) - H(one).
        static int64_t pairs[128][128];
        int64_t ones[128] = {0};
        memset(pairs, 0, sizeof pairs);
        for (int64_t i = 0; i + 1 < c.length; i++) {
            pairs[(int)c.text[i]][(int)c.text[i + 1]]++;
            ones[(int)c.text[i]]++;
        }
        double one = 0.0, pair = 0.0, n = (double)(c.length - 1);
        for (int a = 0; a < 128; a++) {
            if (ones[a]) one -= (double)ones[a] / n * log((double)ones[a] / n);
            for (int b = 0; b < 128; b++)
                if (pairs[a][b]) pair -= (double)pairs[a][b] / n * log((double)pairs[a][b] / n);
        }
        EXPECT(one > pair - one && pair - one > floor + 0.5, "%s: %.3f, %.3f, floor %.3f", *name, one, pair - one, floor);
        corpus_free(&c);
    }
}

TEST(nothing_is_looked_up_far_back)
{
    for (const char *const *name = corpus_names(); *name; name++) {
        int far = 0, longest = 0;
        for (uint64_t seed = 0; seed < 1000; seed++) {
            Corpus c = write_text(*name, seed, 0);
            far += c.reach > 40;
            if (c.reach > longest) longest = c.reach;
            corpus_free(&c);
        }
        EXPECT(far <= 500 && longest <= 60, "%s: %d of 1000 tales look back over 40, the farthest %d", *name, far, longest);
        EXPECT(longest > 10 || strcmp(*name, "robot") == 0, "%s: %d", *name, longest); // a robot repeats nothing
    }
}

TEST(english_has_a_few_rules)
{
    for (const char *const *name = corpus_names(); *name; name++) {
        Corpus c = write_text(*name, 9, LENGTH);
        for (int64_t i = 2; i + 4 < c.length; i++) {
            const char *p = c.text + i;
            bool vowel = strchr("aeiou", p[0]) != NULL;
            bool after_a = p[-1] == ' ' && tolower((unsigned char)p[-2]) == 'a'
                           && (i == 2 || !isalpha((unsigned char)p[-3]));
            bool after_an = i > 3 && strncmp(p - 4, " an ", 4) == 0;
            EXPECT(!(after_a && vowel) && !(after_an && !vowel), "%s: article before %.12s", *name, p);
            bool small = strchr(".!?", p[0]) && p[1] == ' ' && islower((unsigned char)p[2]);
            EXPECT(!small, "%s: a sentence begins small: %.12s", *name, p);
        }
        corpus_free(&c);
    }
}

TEST(weights_are_frequencies)
{
    Corpus c = write_text("pirate", 21, 5 * LENGTH);     // `arr` is "4:Arr|2:Aye|Ahoy"
    double all = 0.0, arr = 0.0, aye = 0.0;
    char tale[512];
    for (int64_t at = 0, next; (next = next_tale(&c, at, tale)) > 0; at = next, all++) {
        arr += strncmp(tale, "Arr,", 4) == 0;
        aye += strncmp(tale, "Aye,", 4) == 0;
    }
    EXPECT(fabs(arr / all - 4.0 / 7.0) < 0.03, "%.3f", arr / all);
    EXPECT(fabs(aye / all - 2.0 / 7.0) < 0.03, "%.3f", aye / all);
    corpus_free(&c);
}

TEST(tales_have_many_words_and_tasks_share_them)
{
    static char words[MAX_WORDS][WORD];
    int known = 0;
    for (const char *const *name = corpus_names(); *name; name++) {
        Corpus c = write_text(*name, 1, 2 * LENGTH);
        bool base = name == corpus_names();
        int64_t all = 0, shared = 0;
        for (char *p = c.text; *p && known < MAX_WORDS;) {
            size_t length = 0;
            while (isalpha((unsigned char)p[length]) || p[length] == '\'') length++;
            if (length == 0 || length >= WORD) {
                p += length + 1;
                continue;
            }
            char word[WORD] = {0};
            memcpy(word, p, length);
            p += length;
            int i = 0;
            while (i < known && strcmp(words[i], word) != 0) i++;
            if (i == known && base) strcpy(words[known++], word);
            all++, shared += i < known;
        }
        if (base) EXPECT(known >= 150 && known < MAX_WORDS, "%d words", known);
        EXPECT((double)shared > 0.55 * (double)all, "%s: %" PRId64 " of %" PRId64 " words are in the tales", *name, shared, all);
        corpus_free(&c);
    }
}

TEST(voices_are_recognised)
{
    static const struct { const char *name, *mark; } marks[] = {
        {"pirate", "Arr,"}, {"pirate", " ye "}, {"pirate", " an' "}, {"robot", "Log: "},
        {"robot", "eep."}, {"ghost", "Oooh"}, {"ghost", " I "},
    };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *mark = marks[i].mark;
        Corpus task = write_text(marks[i].name, 1, LENGTH), tales = write_text("tales", 1, LENGTH);
        int64_t here = count(task.text, mark), there = count(tales.text, mark);
        EXPECT(here > LENGTH / 800 && here > 8 * there, "%s: \"%s\" %" PRId64 " and %" PRId64, marks[i].name, mark, here, there);
        corpus_free(&task), corpus_free(&tales);
    }
}

int main(void)
{
    RUN(a_seed_is_a_text);
    RUN(length_is_kept_and_tales_are_whole);
    RUN(tales_are_short);
    RUN(each_tale_has_one_derivation);
    RUN(derivations_can_be_zero_or_two);
    RUN(tables_mean_what_the_header_says);
    RUN(tasks_use_characters_that_the_tales_teach);
    RUN(floors_are_interesting_and_below_simple_models);
    RUN(nothing_is_looked_up_far_back);
    RUN(english_has_a_few_rules);
    RUN(weights_are_frequencies);
    RUN(tales_have_many_words_and_tasks_share_them);
    RUN(voices_are_recognised);
    return test_summary();
}
