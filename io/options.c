// options.c - see options.h. A value is taken whole or not at all: "12x", "", an overflow and a NaN are wrong usage, and the
// message says what would have been right. Messages go to stderr after what was printed so far.

#include "io/options.h"

#include "tensor.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void die(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    fprintf(stderr, "%s: ", program_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(status);
}

int output_status(void)
{
    bool lost = fflush(stdout) != 0;
    if (!lost && !ferror(stdout)) return 0;
    fprintf(stderr, "%s: what was printed could not all be written: is the disk full that it goes to?\n", program_name);
    return EXIT_FAILED;
}

int64_t option_int(const char *name, const char *value, int64_t least, int64_t most)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (end == value || *end != '\0' || errno != 0 || number < least || number > most)
        die(EXIT_USAGE, "--%s %s: a whole number from %" PRId64 " to %" PRId64 " is needed", name, value, least, most);
    return number;
}

double option_double(const char *name, const char *value, double least, double most)
{
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end != '\0' || !isfinite(number) || number < least || number > most)
        die(EXIT_USAGE, "--%s %s: a number from %g to %g is needed", name, value, least, most);
    return number;
}

uint64_t option_seed(const char *value) { return (uint64_t)option_int("seed", value, 0, INT64_C(1) << 62); }

void option_unknown(char **argv, int index)
{
    if (optopt > ' ') die(EXIT_USAGE, "-%c: no such option; --help lists them all", optopt); // long ones have no such code
    die(EXIT_USAGE, "%s: no such option, or its value is missing; --help lists them all", argv[index]);
}

static void take(const Option *o, const char *value)
{
    if (o->given != NULL) *o->given = true;
    if (o->text != NULL) *o->text = value;
    if (o->flag != NULL) *o->flag = true;
    if (o->whole != NULL) *o->whole = (int)option_int(o->name, value, (int64_t)o->least, (int64_t)o->most);
    if (o->count != NULL) *o->count = option_int(o->name, value, (int64_t)o->least, (int64_t)o->most);
    if (o->number != NULL) *o->number = option_double(o->name, value, o->least, o->most);
    if (o->seed != NULL) *o->seed = option_seed(value);
    if (o->take != NULL) o->take(value, o->to);
    if (o->show == NULL) return;
    o->show();
    exit(output_status());
}

int options_read(int argc, char **argv, const Option *table)
{
    enum { MOST = 32 }; // so that optopt tells a long option's number from a short one's letter
    struct option options[MOST + 1] = { 0 };
    int count = 0;
    for (; table[count].name != NULL; count++) {
        check(count < MOST, "options_read: more than %d options", MOST);
        bool alone = table[count].flag != NULL || table[count].show != NULL;
        options[count] = (struct option){ table[count].name, alone ? no_argument : required_argument, NULL, count + 1 };
    }
    opterr = 0;
    optind = 1;
    for (int number; (number = getopt_long(argc, argv, ":", options, NULL)) != -1;) {
        if (number > count) option_unknown(argv, optind - 1);
        take(&table[number - 1], optarg);
    }
    return optind;
}
