// options.h - what the programs have in common: one table of options each, a beginning and an end, and errors of one line.
//
//     typedef struct Asked { const char *out; int threads; } Asked;
//     static const Option rows[] = {
//         { "out", "DIR", "out", "where the model goes", TEXT_OPTION(Asked, out) },
//         { "threads", "N", NULL, "(one for each core)", INT_OPTION(Asked, threads, 1, MAX_THREADS) }, { 0 }
//     };
//     static const OptionTable table = { .head = "train: trains a model", .rows = rows, .tail = "Example: ./train --threads 2" };
//
//     program_begin("train");
//     Asked asked = { 0 };
//     options_read(argc, argv, &table, &asked, NULL);
//     if (model == NULL) die(EXIT_FAILED, "%s", error);
//     return output_status();
//
// A row says all about an option. From it are made: reading the command line, the range, the default, the help; for a run that
// goes on, whether another value is refused; and what its state says of it, read through the same range.
//
// Every error is one line on stderr: the program, what is wrong, why, what to do. 1: it failed; 2: it was called wrongly.

#ifndef OPTIONS_H
#define OPTIONS_H

#include "io/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Exit statuses of all programs.
enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define VERSION "1.0" // what --version prints, behind the program's name

// The first thing that main does: the name that messages begin with; and where standard input, output or error is closed it
// becomes /dev/null, for else the next file that is opened would get what is printed.
void program_begin(const char *name);
extern const char *program_name; // memory.h has it

// Prints "program: message" on stderr and exits with the status.
#if defined __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
_Noreturn void die(int status, const char *format, ...);

// The status for main to end with: 0 if all that was printed has arrived, else EXIT_FAILED after a line on stderr.
int output_status(void);

typedef enum OptionType { OPTION_FLAG, OPTION_TEXT, OPTION_INT, OPTION_INT64, OPTION_DOUBLE, OPTION_WORDS } OptionType;

// What a value that is nothing of the common types is read and written with.
typedef struct Words {
    bool (*read)(const char *text, void *to, char *why, size_t size); // false: it is none, after `why`
    const char *(*write)(const void *from);                           // NULL: it is never saved
} Words;

// Whose word counts when a run goes on: that of the new call; the run's, unless it is given anew; the run's, and another one is
// refused; the same, where the model says it. The two in the middle are in the run's state.
typedef enum OnResume { ANEW, KEPT, SETTLED, OF_MODEL } OnResume;

typedef struct Option {
    const char *name;          // NULL: `meaning` is the heading of a group
    const char *value;         // what stands for a value in the help: "DIR"
    const char *initial;       // what it is if it is not given; NULL: 0, or what `meaning` says
    const char *meaning;       // for the help, which adds the default
    OnResume    on_resume;     // left out: ANEW
    OptionType  type;          // these by one of the macros below
    size_t      offset;        // of the value in the program's struct: bool, const char *, int, int64_t (or uint64_t), double
    double      least, most;   // of a number; integers up to 2^62 are exact
    Words       words;
    bool        later;         // states of earlier versions lack it, and mean its default
} Option;

#define OPTION_AT(struct_, member, kind)              .type = (kind), .offset = offsetof(struct_, member)
#define FLAG_OPTION(struct_, member)                  OPTION_AT(struct_, member, OPTION_FLAG)
#define TEXT_OPTION(struct_, member)                  OPTION_AT(struct_, member, OPTION_TEXT)
#define INT_OPTION(struct_, member, from, to)         OPTION_AT(struct_, member, OPTION_INT), .least = (from), .most = (to)
#define INT64_OPTION(struct_, member, from, to)       OPTION_AT(struct_, member, OPTION_INT64), .least = (from), .most = (to)
#define DOUBLE_OPTION(struct_, member, from, to)      OPTION_AT(struct_, member, OPTION_DOUBLE), .least = (from), .most = (to)
#define WORDS_OPTION(struct_, member, read_, write_)  OPTION_AT(struct_, member, OPTION_WORDS), .words = { read_, write_ }

// A BaseType (quantise.h), for WORDS_OPTION: --base-type float|nf4|int8.
bool        base_type_read(const char *text, void *type, char *why, size_t size);
const char *base_type_write(const void *type);

enum { MOST_OPTIONS = 64 };
#define LARGEST_SEED 0x1p62

// A program's options: what the help begins with, the rows, which end with one of zeros, and what the help ends with.
typedef struct OptionTable {
    const char *head;
    const Option *rows;
    const char *tail;
    bool takes_words;          // that are no options
} OptionTable;

// Sets each value that has a default; the others stay.
void options_default(const Option *rows, void *values);

// Sets the defaults, then reads a command line, getopt_long's way (--name value, --name=value, unique beginnings of names), into
// `values`; bit i of *given, if that is not NULL, says that row i was there. Words that are no options are moved to the end of
// argv: the index of the first of them is returned. --help, -h and --version print, and end the program; what is wrong ends it
// with EXIT_USAGE.
int  options_read(int argc, char **argv, const OptionTable *table, void *values, uint64_t *given);
bool option_given(const Option *rows, uint64_t given, const char *name);
void options_help(const OptionTable *table); // on stdout, in 80 columns

// For a run in `dir` that goes on: values that were not given become those of `saved`, which must last; one that is settled and
// was given as another ends the program with EXIT_USAGE.
void options_resume(const Option *rows, void *values, uint64_t given, const void *saved, const char *dir);

// A value as text that option_set reads back to the bit: one of two buffers used in turn, or the text itself. And the reverse;
// false: it is out of range, or no such value, and `why` says what is needed.
const char *option_text(const Option *o, const void *values);
bool option_set(const Option *o, void *values, const char *text, char *why, size_t size);

// Members of a JSON object, which begin with a comma, for all rows that a state holds: "batch_size" for --batch-size. And the
// reverse; false after one line in `error`. Texts belong to the tree.
void options_put(FILE *out, const Option *rows, const void *values);
bool options_get(const Json *json, const Option *rows, void *values, char *error, size_t size);

#endif
