// options.h - what the command lines of the programs have in common: strict values, and errors of one line.
//
//     program_name = "train";
//     case THREADS: threads = (int)option_int("threads", optarg, 1, MAX_THREADS); break;      // in a loop of getopt_long
//     if (model == NULL) die(EXIT_FAILED, "%s", error);
//     return output_status();
//
// Every error is one line on stderr: the program, what is wrong, why, what to do. 1: it failed; 2: it was called wrongly.

#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdint.h>

// Exit statuses of all programs.
enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

// The name that messages begin with; set first in main.
extern const char *program_name;

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

#endif
