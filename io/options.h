// options.h - what the command lines of the programs have in common: strict values, and errors of one line.
//
//     program_name = "train";
//     const Option table[] = {
//         { "out", .text = &out }, { "threads", .whole = &threads, .least = 1, .most = MAX_THREADS },
//         { "help", .show = help }, { 0 }
//     };
//     int first_word = options_read(argc, argv, table);
//     if (model == NULL) die(EXIT_FAILED, "%s", error);
//     return output_status();
//
// Every error is one line on stderr: the program, what is wrong, why, what to do. 1: it failed; 2: it was called wrongly.

#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

// Exit statuses of all programs.
enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

// The name that messages begin with; set first in main.
extern const char *program_name; // memory.h has it

// Prints "program: message" on stderr and exits with the status.
#if defined __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
_Noreturn void die(int status, const char *format, ...);

// The status for main to end with: 0 if all that was printed has arrived, else EXIT_FAILED after a line on stderr.
int output_status(void);

// The value of --NAME as a whole number in [least, most], or as a finite number in it. Anything else, a trailing letter too, is
// wrong usage: the message names option, value and range.
int64_t  option_int(const char *name, const char *value, int64_t least, int64_t most);
double   option_double(const char *name, const char *value, double least, double most);
uint64_t option_seed(const char *value);
// For getopt_long's '?' and ':': says which word, and points at --help.
_Noreturn void option_unknown(char **argv, int index);

// One option of a program: its name, and where its value goes, one pointer of these; the others are NULL.
typedef struct Option {
    const char  *name;
    const char **text;
    bool        *flag;      // has no value
    int         *whole;     // a whole number, from least to most; so is
    int64_t     *count;     // ... this
    double      *number;    // a finite one
    double       least, most;
    uint64_t    *seed;
    void       (*take)(const char *value, void *to); // what else can be done with a value,
    void        *to;                                 // ... and where it goes
    void       (*show)(void); // has no value: prints, and the program ends
    bool        *given;     // not NULL: set true if the option is there
    bool         settled;   // for the caller: a run that goes on cannot have another value
} Option;

// Reads a command line, getopt_long's way (--name value, --name=value, unique beginnings of names), into what the table points
// at; the table ends with a row without name, after at most 32. Words that are no options are moved to the end of argv: the
// index of the first of them is returned. What is wrong ends the program with EXIT_USAGE.
int options_read(int argc, char **argv, const Option *table);

#endif
