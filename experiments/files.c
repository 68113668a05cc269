// files.c - what ./demo leaves in out/demo/ beside the step's own files (write_step): metrics.json, and pictures of it all.

#include "experiments/comparison.h"

#include <errno.h>
#include <sys/stat.h>

void make_directories(void)
{
    if ((mkdir("out", 0777) != 0 && errno != EEXIST) || (mkdir(OUT, 0777) != 0 && errno != EEXIST))
        die(EXIT_FAILED, OUT ": cannot be made: %s; run the demo in a directory of your own", strerror(errno));
}

static void write_run(FILE *f, const Run *run)
{
    const Measured *m = &run->measured;
    fprintf(f, ",\n  \"%s\": {\n    \"val_pirate\": %.6f, \"val_tales\": %.6f, \"trainable_parameters\": %" PRId64, run->name,
            run->val_task, run->val_tales, run->trainable);
    fprintf(f, ", \"base_type\": \"%s\"", base_type_names[run->lora ? run->lora->base_type : BASE_FLOAT]);
    fprintf(f, ", \"step_ms_median\": %.3f,\n    \"dgrad\": %" PRId64 ", \"wgrad\": %" PRId64, 1e3 * m->seconds, m->dgrad,
            m->wgrad);
    fprintf(f, ", \"wgrad_skipped\": %" PRId64 ", \"wgrad_never_recorded\": %" PRId64 ", \"adapter_gradients\": %" PRId64,
            m->wgrad_skipped, m->wgrad_never_recorded, m->adapter_gradients);
    fprintf(f, ",\n    \"flops\": {");
    for (int p = 0; p < PHASES; p++)
        fprintf(f, "%s\"%s\": %" PRId64, p ? ", " : "", phase_names[p], (int64_t)m->phase[p].flops);
    fprintf(f, "},\n    \"peak_bytes\": {\"total\": %" PRId64 ", \"predicted\": %" PRId64 ", \"resident\": %" PRId64,
            (int64_t)m->ledger.peak, (int64_t)run->predicted.peak, run->resident);
    for (int k = 0; k < MEMORY_KINDS; k++)
        fprintf(f, ", \"%s\": %" PRId64, memory_kind_names[k], (int64_t)m->ledger.at_peak[k]);
    fprintf(f, "}\n  }");
}

void write_metrics(const Comparison *c)
{
    FILE *f = open_file(OUT, "metrics.json");
    fprintf(f, "{\n  \"base_hash\": \"%016" PRIx64 "\",\n  \"floor\": {\"pirate\": %.6f, \"tales\": %.6f},\n", c->hash,
            c->pirate.val_floor, c->tales.val_floor);
    fprintf(f, "  \"base\": {\"val_pirate\": %.6f, \"val_tales\": %.6f}", c->base_task, c->base_tales);
    for (int r = 0; r < RUNS; r++) write_run(f, &c->run[r]);
    fprintf(f, "\n}\n");
    close_file(f, OUT, "metrics.json");
}

static void bar(const char *name, int64_t bytes, int64_t most)
{
    int width = most > 0 ? (int)(44 * bytes / most) : 0;
    printf("  %-24s%9s ", name, bytes_text((double)bytes));
    for (int i = 0; i < width; i++) putchar('#');
    putchar('\n');
}

void draw_bytes(const Comparison *c)
{
    if (system("command -v gnuplot > /dev/null 2>&1 && [ -f plots/draw.sh ]") == 0 &&
        system("sh plots/draw.sh " OUT " bytes timeline loss > /dev/null") == 0) {
        printf("\nPlots: bytes.svg, timeline.svg, loss.svg in " OUT "/, beside their CSV files.\n");
        return;
    }
    printf("\nAt the peak of a step (install gnuplot for plots in " OUT "/):\n");
    for (int r = 0; r < RUNS; r++) {
        const Ledger *l = &c->run[r].measured.ledger;
        printf("%s\n", c->run[r].heading);
        for (int k = 0; k < MEMORY_KINDS; k++)
            if (l->at_peak[k] > 0) bar(memory_kind_names[k], l->at_peak[k], c->run[FULL].measured.ledger.peak);
    }
}
