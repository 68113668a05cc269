// progress.c - see progress.h. The training loss shown is smoothed (0.95 old, 0.05 new), for single batches differ much; speed
// and time left are means since the run began. Then numbers for people: thousands, bytes, counts.

#include "io/progress.h"

#include "io/training.h"

#include <unistd.h>

void progress_begin(Progress *p, const char *what, long first, long total, double floor)
{
    *p = (Progress){ .what = what, .first = first, .total = total, .floor = floor, .start = seconds_now(), .loss = (double)NAN, .val = (double)NAN, .terminal = isatty(STDOUT_FILENO) };
}

static void show(Progress *p, long done, long tokens_per_step)
{
    double seconds = seconds_now() - p->start, each = seconds / (double)(done - p->first);
    printf("%s%-12s %5ld/%ld  loss %.3f", p->terminal ? "\r" : "", p->what, done, p->total, p->loss);
    if (!isnan(p->floor)) printf("  floor %.3f", p->floor);
    if (!isnan(p->val)) printf("  val %.3f", p->val);
    printf("  %.0fk chars/s  %.0f s left%s", 1e-3 * (double)tokens_per_step / each, each * (double)(p->total - done), p->terminal ? " \033[K" : "\n");
    fflush(stdout);
}

void progress_step(Progress *p, long done, double loss, long tokens_per_step)
{
    p->loss = isnan(p->loss) ? loss : 0.95 * p->loss + 0.05 * loss;
    long tenth = (p->total - p->first + 9) / 10;
    bool due = p->terminal ? seconds_now() - p->shown > 0.2 : (done - p->first) % tenth == 0;
    if (!due && done != p->total) return;
    p->shown = seconds_now();
    show(p, done, tokens_per_step);
}

void progress_validation(Progress *p, double val) { p->val = val; }

void progress_end(Progress *p)
{
    if (p->terminal) printf("\n");
}

static char *next_buffer(void)
{
    static char buffers[16][32];
    static int turn;
    return buffers[turn = (turn + 1) % 16];
}

const char *thousands(long number)
{
    char *text = next_buffer(), digits[24];
    int n = snprintf(digits, sizeof digits, "%ld", number < 0 ? -number : number);
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
