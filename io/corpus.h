// corpus.h - built-in texts, so that nothing need be downloaded.
//
// `tales` is a language small enough to be learned in a minute: short tales in plain English, written by a grammar whose
// choices have known weights. The other texts are tasks for adapters: the same world in another voice.
//
//     Corpus corpus;
//     if (!corpus_write("tales", 1337, 1000000, &corpus)) ...                 // no text of that name
//     double best = corpus_floor(&corpus, 900000, corpus.length);             // what no model can beat, on average
//     corpus_free(&corpus);
//
// Why a floor can be known: each text has exactly one derivation (two different series of choices never write the same
// tale; a test counts them), so the probability of a text is the product of the probabilities of its choices. By the chain
// rule the sum of -log P over all choices is the loss, in nats, of a reader who knows the grammar and sees all that came
// before. A model that sees less than `reach` characters back cannot get there.
//
// Texts are ASCII: a character is a byte. They depend on name and seed alone, not on the machine. A call that runs out of
// memory says so on stderr and exits with status 1.

#ifndef CORPUS_H
#define CORPUS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Corpus {
    char   *text;     // [length] and a final 0; owned by the corpus
    int64_t length;   // characters
    float  *nats;     // [length] -log P of the choices made between the previous character and this one; owned
    int    reach;     // the farthest that a repeated word or a pronoun had to look back, in characters
} Corpus;

// The names of the texts, "tales" first, ended by NULL. They live as long as the program.
const char *const *corpus_names(void);

// Writes whole tales, each followed by a blank line, until there are at least `length` characters (one tale if
// length <= 0). The same name and seed give the same tales: a longer text begins with the shorter one.
// Returns false, with *corpus empty, if no text has that name. The caller frees with corpus_free.
bool corpus_write(const char *name, uint64_t seed, int64_t length, Corpus *corpus);

// Frees what corpus_write made and empties *corpus; an empty corpus may be freed again.
void corpus_free(Corpus *corpus);

// Mean nats per character over text[begin, end); 0 if that is empty. Bounds outside the text are the caller's error
// (assert).
double corpus_floor(const Corpus *corpus, int64_t begin, int64_t end);

// How many series of choices write exactly this tale (given without the blank line after it): 1 for a tale of that text,
// 0 for anything else and for an unknown name. *nats, if not NULL, gets -log P of the last one found (unchanged if none).
int corpus_derivations(const char *name, const char *tale, double *nats);

// The grammar's form. A table of rules ends with {NULL, NULL}; the rule called `tale` is the start. The choices of a
// rule are separated by '|'; "3:" before one makes it three times as likely as one without. Every space counts.
// In a choice
//
//     {rule}      stands for one choice of that rule (a rule's name has two letters or more)
//     {c=rule}    the same, and remembers what was written under the letter c
//     {c}         repeats it
//     {male}      tells whom {he/she}, {his/her}, {king/queen} speak of from here on; {female} likewise
//     ^           makes the next letter a capital
//
// A mistake in a table (an unknown rule, a missing brace) is a programmer's error (assert).
typedef struct GrammarRule {
    const char *name, *choices;
} GrammarRule;

// corpus_derivations for any table; for tests, and for trying a grammar of one's own.
int grammar_derivations(const GrammarRule *rules, const char *tale, double *nats);

#endif
