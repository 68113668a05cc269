// options.c - see options.h. A value is taken whole or not at all: "12x", "", an overflow and a NaN are wrong usage, and the
// message says what would have been right. Messages go to stderr after what was printed so far.

#include "io/options.h"

#include "quantise.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void program_begin(const char *name)
{
    program_name = name;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0) open("/dev/null", O_RDWR); // gets the lowest number that is free: this one
}

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

// -------------------------------------------------------------------------------------------------------------- one value

static bool is_whole(const Option *o) { return o->type == OPTION_INT || o->type == OPTION_INT64; }

// What a value of this kind must be.
static const char *needed(const Option *o)
{
    static char text[100];
    if (is_whole(o))
        snprintf(text, sizeof text, "a whole number from %" PRId64 " to %" PRId64, (int64_t)o->least, (int64_t)o->most);
    else if (o->type == OPTION_DOUBLE) snprintf(text, sizeof text, "a number from %g to %g", o->least, o->most);
    else snprintf(text, sizeof text, "%s", o->value);
    return text;
}

bool option_set(const Option *o, void *values, const char *text, char *why, size_t size)
{
    void *at = (char *)values + o->offset;
    char *end;
    errno = 0;
    if (o->type == OPTION_FLAG) *(bool *)at = true;
    else if (o->type == OPTION_TEXT) *(const char **)at = text;
    else if (text == NULL) return fail(why, size, "a value is needed");
    else if (o->type == OPTION_WORDS) return o->words.read(text, at, why, size);
    else if (is_whole(o)) {
        long long number = strtoll(text, &end, 10);
        if (end == text || *end != '\0' || errno != 0 || number < (int64_t)o->least || number > (int64_t)o->most)
            return fail(why, size, "%s is needed", needed(o));
        if (o->type == OPTION_INT) *(int *)at = (int)number;
        else *(int64_t *)at = number;
    } else {
        double number = strtod(text, &end);
        if (end == text || *end != '\0' || !isfinite(number) || number < o->least || number > o->most)
            return fail(why, size, "%s is needed", needed(o));
        *(double *)at = number;
    }
    return true;
}

// In as few digits as give the same number.
static const char *number_text(double number, char text[32])
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    return text;
}

const char *option_text(const Option *o, const void *values)
{
    static char texts[2][32];
    static int turn;
    const void *at = (const char *)values + o->offset;
    if (o->type == OPTION_TEXT) return *(const char *const *)at;
    if (o->type == OPTION_WORDS) return o->words.write(at);
    char *text = texts[turn = 1 - turn];
    if (o->type == OPTION_DOUBLE) return number_text(*(const double *)at, text);
    snprintf(text, sizeof *texts, "%" PRId64, o->type == OPTION_INT ? *(const int *)at : *(const int64_t *)at);
    return text;
}

// ---------------------------------------------------------------------------------------------------- all values of a table

static bool is_last(const Option *o) { return o->name == NULL && o->meaning == NULL; }

void options_default(const Option *rows, void *values)
{
    char why[100] = "";
    for (const Option *o = rows; !is_last(o); o++)
        if (o->initial != NULL)
            check(option_set(o, values, o->initial, why, sizeof why), "--%s: its default %s: %s", o->name, o->initial, why);
}

// The row of that name; -1: there is none.
static int row_of(const Option *rows, const char *name)
{
    for (int i = 0; !is_last(&rows[i]); i++)
        if (rows[i].name != NULL && strcmp(rows[i].name, name) == 0) return i;
    return -1;
}

bool option_given(const Option *rows, uint64_t given, const char *name)
{
    int i = row_of(rows, name);
    check(i >= 0, "option_given: there is no --%s", name);
    return i >= 0 && given >> i & 1;
}

void options_resume(const Option *rows, void *values, uint64_t given, const void *saved, const char *dir)
{
    char why[100];
    for (int i = 0; !is_last(&rows[i]); i++) {
        const Option *o = &rows[i];
        if (o->on_resume == ANEW) continue;
        const char *was = option_text(o, saved), *is = option_text(o, values);
        if (!(given >> i & 1)) option_set(o, values, was, why, sizeof why);
        else if (o->on_resume != KEPT && strcmp(was, is) != 0)
            die(EXIT_USAGE, "--%s %s: the run in %s has %s; leave it out to go on as before, or start a new run with --init "
                "and another --out", o->name, is, dir, was);
    }
}

static bool is_saved(const Option *o) { return o->on_resume == KEPT || o->on_resume == SETTLED; }

static const char *key_of(const Option *o, char key[40])
{
    snprintf(key, 40, "%s", o->name);
    for (char *at = key; (at = strchr(at, '-')) != NULL;) *at = '_';
    return key;
}

void options_put(FILE *out, const Option *rows, const void *values)
{
    char key[40];
    for (const Option *o = rows; !is_last(o); o++) {
        if (!is_saved(o)) continue;
        fprintf(out, ",\"%s\":", key_of(o, key));
        if (o->type == OPTION_TEXT || o->type == OPTION_WORDS) json_put_text(out, option_text(o, values));
        else fputs(option_text(o, values), out);
    }
}

bool options_get(const Json *json, const Option *rows, void *values, char *error, size_t size)
{
    char key[40], why[256];
    for (const Option *o = rows; !is_last(o); o++) {
        if (!is_saved(o)) continue;
        bool text = o->type == OPTION_TEXT || o->type == OPTION_WORDS;
        const Json *member = json_get(json, key_of(o, key));
        if (member != NULL && member->type == JSON_NULL && o->type == OPTION_TEXT) continue; // it had none
        if (member == NULL && o->later) continue;
        if (member == NULL || member->type != (text ? JSON_STRING : JSON_NUMBER) || (is_whole(o) && !member->is_int)
            || (text && strlen(member->string) != member->length))
            return fail(error, size, "\"%s\" is missing, or not %s", key, needed(o));
        char number[32] = "";
        const char *value = text ? member->string : number;
        if (is_whole(o)) snprintf(number, sizeof number, "%" PRId64, member->int_value);
        else if (!text) number_text(member->number, number);
        if (!option_set(o, values, value, why, sizeof why))
            return fail(error, size, "\"%s\" is %.100s: %s", key, value, why);
    }
    return true;
}

bool base_type_read(const char *text, void *type, char *why, size_t size)
{
    for (BaseType t = 0; t < BASE_TYPES; t++)
        if (strcmp(text, base_type_names[t]) == 0) {
            *(BaseType *)type = t;
            return true;
        }
    return fail(why, size, "there are float, nf4 and int8");
}

const char *base_type_write(const void *type) { return base_type_names[*(const BaseType *)type]; }

// -------------------------------------------------------------------------------------------------------- the command line

enum { HELP_LINE = 79, MEANINGS = 28, FIRST_CODE = 256 }; // codes that are no letters

// Words from the column on, in which the line is now.
static void put_wrapped(const char *text, int column)
{
    for (const char *word = text; *word != '\0';) {
        int length = (int)strcspn(word, " ");
        if (column > MEANINGS && column + 1 + length > HELP_LINE) printf("\n%*s", column = MEANINGS, "");
        column += printf("%s%.*s", column > MEANINGS ? " " : "", length, word);
        word += length + (int)strspn(word + length, " ");
    }
    printf("\n");
}

static void put_row(const char *name, const char *value, const char *meaning, const char *initial)
{
    char all[1000];
    snprintf(all, sizeof all, initial ? "%s%s(%s)" : "%s", meaning, *meaning ? " " : "", initial);
    int column = printf("  --%s%s%s", name, value ? " " : "", value ? value : "");
    if (column > MEANINGS - 2) printf("\n"), column = 0;
    printf("%*s", MEANINGS - column, "");
    put_wrapped(all, MEANINGS);
}

void options_help(const OptionTable *table)
{
    printf("%s\n\n", table->head);
    for (const Option *o = table->rows; !is_last(o); o++)
        if (o->name == NULL) printf("%s%s:\n", o == table->rows ? "" : "\n", o->meaning);
        else if (o->meaning != NULL) put_row(o->name, o->value, o->meaning, o->initial);
    put_row("help", NULL, "or -h: this; --version: which one this is", NULL);
    printf("\n%s\n", table->tail);
}

// How long the stretch is in which two words differ: what lies between their common beginning and their common end.
static int distance(const char *a, const char *b)
{
    int m = (int)strlen(a), n = (int)strlen(b), same = 0, end = 0;
    while (same < m && same < n && a[same] == b[same]) same++;
    while (end < m - same && end < n - same && a[m - 1 - end] == b[n - 1 - end]) end++;
    return (m > n ? m : n) - same - end;
}

// A word that getopt_long does not know: the beginning of several options, or near to one, or nothing.
_Noreturn static void unknown(const Option *rows, const char *word)
{
    char name[64], which[400] = "";
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
    const Option *nearest = NULL;
    int beginnings = 0;
    for (const Option *o = rows; !is_last(o); o++) {
        if (o->name == NULL) continue;
        if (strncmp(o->name, name, strlen(name)) == 0 && ++beginnings)
            snprintf(which + strlen(which), sizeof which - strlen(which), "%s--%s", *which ? ", " : "", o->name);
        if (nearest == NULL || distance(name, o->name) < distance(name, nearest->name)) nearest = o;
    }
    if (beginnings > 1 && *name != '\0') die(EXIT_USAGE, "--%s: which of %s?", name, which);
    if (nearest != NULL && distance(name, nearest->name) <= (int)strlen(name) / 3)
        die(EXIT_USAGE, "--%s: no such option; is --%s meant? --help lists them all", name, nearest->name);
    die(EXIT_USAGE, "--%s: no such option; --help lists them all", name);
}

int options_read(int argc, char **argv, const OptionTable *table, void *values, uint64_t *given)
{
    struct option options[MOST_OPTIONS + 3] = { { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'v' } };
    const Option *rows = table->rows;
    char why[512];
    uint64_t seen = 0;
    int count = 0, used = 2;
    options_default(rows, values);
    for (; !is_last(&rows[count]); count++) {
        check(count < MOST_OPTIONS, "options_read: more than %d rows", MOST_OPTIONS);
        int argument = rows[count].type == OPTION_FLAG ? no_argument : required_argument;
        if (rows[count].name != NULL)
            options[used++] = (struct option){ rows[count].name, argument, NULL, FIRST_CODE + count };
    }
    opterr = 0;
    optind = 1;
    for (int code; (code = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
        if (code == 'h' || code == 'v') {
            if (code == 'h') options_help(table);
            else printf("%s %s of meltwater, whose numbers have %zu bits\n", program_name, VERSION, 8 * sizeof(real));
            exit(output_status());
        }
        int number = (code >= FIRST_CODE ? code : optopt) - FIRST_CODE;
        const Option *o = number >= 0 ? &rows[number] : NULL;
        bool next = code >= FIRST_CODE && optarg != NULL && strncmp(optarg, "--", 2) == 0 && row_of(rows, optarg + 2) >= 0;
        if (code == ':' || next) // the next option stands in its place
            die(EXIT_USAGE, "--%s: its value is missing: %s", o->name, needed(o));
        if (code == '?' && o != NULL) die(EXIT_USAGE, "--%s takes no value", o->name);
        if (code == '?' && optopt > ' ') die(EXIT_USAGE, "-%c: no such option; --help lists them all", optopt);
        if (code == '?') unknown(rows, argv[optind - 1]);
        if (!option_set(o, values, optarg, why, sizeof why)) die(EXIT_USAGE, "--%s %s: %s", o->name, optarg, why);
        seen |= (uint64_t)1 << number;
    }
    if (optind < argc && !table->takes_words)
        die(EXIT_USAGE, "%s: %s takes options only; --help lists them", argv[optind], program_name);
    if (given != NULL) *given = seen;
    return optind;
}
