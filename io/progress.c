// progress.c - see progress.h. The training loss shown is smoothed (0.95 old, 0.05 new), for single batches differ much; speed
// and time left are means since the run began. Then numbers for people: thousands, bytes, counts.

#include "io/progress.h"

#include "io/machine.h"
#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

static bool can_rewrite(void)
{
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term != NULL && *term != '\0' && strcmp(term, "dumb") != 0;
}

const char *colour(Colour c)
{
    static const char *const sequences[] = { "\033[0m", "\033[1m", "\033[36m", "\033[33m" };
    const char *no = getenv("NO_COLOR");
    return can_rewrite() && (no == NULL || *no == '\0') ? sequences[c] : "";
}

// What fits into a line without reaching the last column, where some terminals go on to the next.
static int line_width(void)
{
    return terminal_columns() - 1;
}

void progress_begin(Progress *p, const char *what, int64_t first, int64_t total, double floor)
{
    *p = (Progress){ .what = what, .first = first, .total = total, .floor = floor, .start = seconds_now(), .loss = (double)NAN,
                     .val = (double)NAN, .terminal = can_rewrite() };
    int room = line_width() - 9;
    p->columns = room < CURVE_COLUMNS ? room : CURVE_COLUMNS;
    if (p->columns > total - first) p->columns = (int)(total - first);
    for (int i = 0; i < CURVE_COLUMNS; i++) p->vals[i] = (double)NAN;
}

// ------------------------------------------------------------------------------------------------------------ the line

typedef enum Field { STEP, LOSS, FLOOR, VAL, SPEED, LEFT, FIELDS } Field;
typedef struct Line { char field[FIELDS][48]; int gap; } Line; // a field that is left out is empty

static int length_of(const Line *line)
{
    int length = -line->gap;
    for (int i = 0; i < FIELDS; i++)
        if (line->field[i][0] != '\0') length += line->gap + (int)strlen(line->field[i]);
    return length;
}

static void write_time(char *text, size_t size, double seconds)
{
    if (seconds < 99.5) snprintf(text, size, "%.0f s left", seconds);
    else if (seconds < 99.5 * 60) snprintf(text, size, "%.0f min left", seconds / 60);
    else snprintf(text, size, "%.0f h left", seconds / 3600);
}

static void show(Progress *p, int64_t done, int64_t tokens_per_step)
{
    double seconds = seconds_now() - p->start, each = seconds / (double)(done - p->first);
    Line line = { .gap = 2 };
    int digits = snprintf(NULL, 0, "%" PRId64, p->total);
    snprintf(line.field[STEP], sizeof line.field[STEP], "%s %*" PRId64 "/%" PRId64, p->what, digits, done, p->total);
    if (!isnan(p->loss)) snprintf(line.field[LOSS], sizeof line.field[LOSS], "loss %.3f", p->loss);
    if (!isnan(p->floor)) snprintf(line.field[FLOOR], sizeof line.field[FLOOR], "floor %.3f", p->floor);
    if (!isnan(p->val)) snprintf(line.field[VAL], sizeof line.field[VAL], "val %.3f", p->val);
    snprintf(line.field[SPEED], sizeof line.field[SPEED], "%.0fk chars/s", 1e-3 * (double)tokens_per_step / each);
    write_time(line.field[LEFT], sizeof line.field[LEFT], each * (double)(p->total - done) + p->later);

    int width = line_width();
    if (length_of(&line) > width) line.gap = 1;
    static const Field expendable[] = { SPEED, FLOOR, VAL, LEFT, LOSS };
    for (size_t i = 0; i < sizeof expendable / sizeof *expendable && length_of(&line) > width; i++)
        line.field[expendable[i]][0] = '\0';
    int length = length_of(&line), rest = p->length - length; // of a longer line that stood there
    if (length > width) return;
    if (p->terminal) printf("\r");
    for (int i = 0; i < FIELDS; i++) {
        if (line.field[i][0] == '\0') continue;
        printf("%*s%s%s%s", i > 0 ? line.gap : 0, "", i == LOSS ? colour(WARM) : i == FLOOR ? colour(ICE) : "", line.field[i],
               i == LOSS || i == FLOOR ? colour(NORMAL) : "");
    }
    if (p->terminal) printf("%*s", rest > 0 && length + rest <= width ? rest : 0, "");
    else printf("\n");
    p->length = length;
    fflush(stdout);
}

static int column_of(const Progress *p, int64_t done)
{
    return (int)((done - 1 - p->first) * p->columns / (p->total - p->first));
}

void progress_step(Progress *p, int64_t done, double loss, int64_t tokens_per_step)
{
    p->loss = isnan(p->loss) ? loss : 0.95 * p->loss + 0.05 * loss;
    if (p->columns > 0) {
        int column = column_of(p, done);
        p->sum[column] += loss;
        p->steps[column]++;
        if (p->fresh_val) p->vals[column] = p->val;
        p->fresh_val = false;
    }
    int64_t tenth = (done - p->first) / ((p->total - p->first + 9) / 10);
    double now = seconds_now();
    bool due = p->terminal ? now - p->shown > 0.2 : tenth != p->tenth;
    p->tenth = tenth;
    if (now - p->start < p->patience || (!due && done != p->total)) return;
    p->shown = now;
    show(p, done, tokens_per_step);
}

void progress_validation(Progress *p, double val)
{
    p->val = val;
    p->fresh_val = true;
}

void progress_end(const Progress *p)
{
    if (p->terminal && p->length > 0) printf("\n");
}

// ----------------------------------------------------------------------------------------------------------- the curve

enum { CURVE_ROWS = 8 }; // of two halves each

static bool writes_utf8(void)
{
    const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" }; // the first that is set counts
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && *value != '\0') return strstr(value, "UTF-8") || strstr(value, "utf8") || strstr(value, "UTF8");
    }
    return false;
}

// Which half of a row, counted from the bottom, a loss is in.
static int half_of(double loss, double top)
{
    int half = (int)(2 * CURVE_ROWS * loss / top);
    return half < 0 ? 0 : half < 2 * CURVE_ROWS ? half : 2 * CURVE_ROWS - 1;
}

void progress_curve(const Progress *p)
{
    if (!p->terminal || p->columns < 2) return;
    double top = isnan(p->floor) ? 0 : p->floor;
    int64_t done = 0;
    for (int i = 0; i < p->columns; i++) {
        done += p->steps[i];
        if (p->steps[i] > 0) top = fmax(top, p->sum[i] / (double)p->steps[i]);
        if (!isnan(p->vals[i])) top = fmax(top, p->vals[i]);
    }
    if (!(top > 0) || !isfinite(top)) return;
    bool utf8 = writes_utf8();
    const char *lower = utf8 ? "▄" : ".", *upper = utf8 ? "▀" : "'", *line = utf8 ? "─" : "-", *val = utf8 ? "○" : "o";
    for (int row = CURVE_ROWS - 1; row >= 0; row--) {
        bool has_floor = !isnan(p->floor) && half_of(p->floor, top) / 2 == row;
        if (row == CURVE_ROWS - 1) printf("%7.3f |", top);
        else if (has_floor) printf("%s%7.3f%s |", colour(ICE), p->floor, colour(NORMAL));
        else printf("        |");
        Colour now = NORMAL;
        for (int i = 0; i < p->columns; i++) {
            int half = p->steps[i] > 0 ? half_of(p->sum[i] / (double)p->steps[i], top) : -1;
            bool has_val = !isnan(p->vals[i]) && half_of(p->vals[i], top) / 2 == row, has_loss = half >= 0 && half / 2 == row;
            Colour c = has_val ? STRONG : has_loss ? WARM : has_floor ? ICE : NORMAL;
            if (c != now) printf("%s%s", now != NORMAL ? colour(NORMAL) : "", c != NORMAL ? colour(c) : "");
            printf("%s", has_val ? val : has_loss ? (half % 2 ? upper : lower) : has_floor ? line : " ");
            now = c;
        }
        printf("%s\n", now != NORMAL ? colour(NORMAL) : "");
    }
    printf("      0 +");
    for (int i = 0; i < p->columns; i++) printf("-");
    printf("\n        step %" PRId64 " to %" PRId64 "; loss %s, validation %s", p->first + 1, p->first + done, upper, val);
    if (!isnan(p->floor)) printf(", floor %s", line);
    printf("\n");
}

// ------------------------------------------------------------------------------------------------------------ numbers

static char *next_buffer(void)
{
    static char buffers[16][32];
    static int turn;
    return buffers[turn = (turn + 1) % 16];
}

const char *thousands(int64_t number)
{
    char *text = next_buffer(), digits[24];
    int n = snprintf(digits, sizeof digits, "%" PRId64, number < 0 ? -number : number);
    char *out = text;
    if (number < 0) *out++ = '-';
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) *out++ = ',';
        *out++ = digits[i];
    }
    *out = '\0';
    return text;
}

static const char *scaled(double number, const char *const units[], int count)
{
    int unit = 0;
    for (; number >= 1000 && unit < count - 1; unit++) number /= 1000;
    char *text = next_buffer();
    snprintf(text, 32, unit == 0 || number >= 100 ? "%.0f%s" : number >= 10 ? "%.1f%s" : "%.2f%s", number, units[unit]);
    return text;
}

const char *bytes_text(double bytes)
{
    static const char *const units[] = { " B", " kB", " MB", " GB", " TB", " PB" };
    return scaled(bytes, units, 6);
}

const char *count_text(double number)
{
    static const char *const units[] = { "", " k", " M", " G", " T", " P" };
    return scaled(number, units, 6);
}
