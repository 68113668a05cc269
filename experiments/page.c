// page.c - the comparison as data for one web page (io/report.h): what is collected on the way, and the rest at the end.

#include "experiments/comparison.h"
#include "io/report.h"

static Report *report;         // NULL: nobody asked for a page
static const char *page_path;
static FILE *samples, *claims; // JSON lists, without their brackets
static char *samples_text, *claims_text;
static size_t samples_size, claims_size;

void page_begin(const char *path)
{
    char error[512];
    report = report_begin(path, error, sizeof error);
    if (report == NULL) die(EXIT_FAILED, "--html %s", error);
    page_path = path;
    samples = open_memstream(&samples_text, &samples_size);
    claims = open_memstream(&claims_text, &claims_size);
    if (samples == NULL || claims == NULL) die(EXIT_FAILED, "out of memory");
}

void page_sample(const Comparison *c, const char *run, int64_t step, int length)
{
    if (report == NULL) return;
    char *words = sample_text(c->model, &c->pirate, length);
    fprintf(samples, "%s{\"run\":\"%s\",\"step\":%" PRId64 ",\"text\":", ftell(samples) > 0 ? ",\n" : "", run, step);
    json_put_text(samples, words);
    fputc('}', samples);
    free(words);
}

void page_claim(const char *words, const char *verdict, bool found)
{
    if (report == NULL) return;
    fprintf(claims, "%s{\"words\":", ftell(claims) > 0 ? "\"},\n" : "");
    json_put_text(claims, words);
    fprintf(claims, ",\"verdict\":\"%s\",\"found\":%s,\"text\":\"", verdict, found ? "true" : "false");
}

void page_say(const char *words)
{
    if (report == NULL) return;
    char escaped[2048];
    size_t n = json_escape(escaped, sizeof escaped, words, strlen(words));
    fwrite(escaped + 1, 1, n - 2, claims); // without its quotes
}

static void put_setup(const Comparison *c)
{
    FILE *f = report_member(report, "setup");
    const Config *config = &c->model->config;
    fprintf(f, "{\"config\":{\"vocab_size\":%d,\"block_size\":%d,\"n_layer\":%d,\"n_head\":%d,\"n_embd\":%d},\"B\":%d,\"T\":%d",
            config->vocab_size, config->block_size, config->n_layer, config->n_head, config->n_embd, BATCH, CONTEXT);
    fprintf(f, ",\"threads\":%d,\"real_bytes\":%d,\"base_steps\":%d,\"tune_steps\":%d,\"train_floor\":%.6f,\"kinds\":[",
            parallel_threads(), (int)sizeof(real), c->base_steps, c->tune_steps, c->pirate.train_floor);
    for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s\"%s\"", k ? "," : "", memory_kind_names[k]);
    fputs("]}", f);
}

static void put_runs(const Comparison *c)
{
    FILE *f = report_member(report, "runs");
    for (int r = 0; r < RUNS; r++) {
        const Run *run = &c->run[r];
        const Measured *m = &run->measured;
        fprintf(f, "%s{\"name\":\"%s\",\"heading\":\"%s\",\"learning_rate\":%g,\"r\":%d,\"targets\":%u,\"ms\":[", r ? ",\n" : "[",
                run->name, run->heading, run->learning_rate, run->lora ? run->lora->r : 0, run->lora ? run->lora->targets : 0);
        for (int p = 0; p < PHASE_RECOMPUTE; p++) fprintf(f, "%.15g,", 1e3 * m->phase[p].seconds);
        fprintf(f, "%.15g],\"predicted\":", 1e3 * m->optimizer_seconds);
        for (int k = 0; k < MEMORY_KINDS; k++) fprintf(f, "%s%" PRId64, k ? "," : "[", (int64_t)run->predicted.at_peak[k]);
        fputs("]}", f);
    }
    fputc(']', f);
    f = report_member(report, "recompute");
    for (int r = 0; r < 2; r++) {
        const Measured *m = c->recompute[r];
        fprintf(f, "%s{\"peak\":[%" PRId64 ",%" PRId64 "],\"ms\":[%.3f,%.3f]}", r ? "," : "[", (int64_t)m[0].ledger.peak,
                (int64_t)m[1].ledger.peak, 1e3 * m[0].seconds, 1e3 * m[1].seconds);
    }
    fputc(']', f);
}

// What was collected on the way, as one list.
static void put_collected(const char *key, FILE *collected, char **text, const char *end)
{
    fclose(collected);
    fprintf(report_member(report, key), "[%s%s]", *text, end);
    free(*text);
}

// Rank against scale: the loss after the same short training of each.
static void put_grid(Comparison *c)
{
    static const int ranks[] = { 1, 2, 4, 8, 16 };
    static const double scales[] = { 0.25, 1, 2, 4, 16 };
    printf("\nFor the page: rank against scale, 25 short runs ...\n");
    fflush(stdout);
    FILE *f = report_member(report, "grid");
    fprintf(f, "{\"steps\":%d,\"batch\":%d,\"learning_rate\":%g,\"cells\":[", CELL_STEPS, CELL_BATCH, CELL_RATE);
    for (int i = 0; i < 25; i++) {
        train_cell(c->model, &c->pirate, ranks[i / 5], scales[i % 5]);
        double loss = estimate_validation(c->model, &c->pirate, CELL_BATCH);
        fprintf(f, "%s{\"r\":%d,\"scale\":%g,\"loss\":", i ? "," : "", ranks[i / 5], scales[i % 5]);
        if (isfinite(loss)) json_put_number(f, loss);
        else fputs("null", f);
        fputc('}', f);
    }
    fputs("]}", f);
}

void page_end(Comparison *c)
{
    if (report == NULL) return;
    static const char *const files[][2] = { { "metrics", "metrics.json" }, { "loss", "loss.csv" },
        { "timeline_full", "timeline_full.csv" }, { "timeline_lora", "timeline_lora.csv" },
        { "timeline_recompute", "timeline_recompute.csv" } };
    char error[512], name[64];
    put_setup(c);
    put_runs(c);
    put_collected("samples", samples, &samples_text, "");
    put_collected("claims", claims, &claims_text, "\"}");
    put_shapes(report_member(report, "shapes"));
    put_formats(report_member(report, "formats"));
    report_ops(report, "ops_lora", c->model, BATCH, CONTEXT); // the adapter of the timelines is still in use
    transformer_use_adapter(c->model, NULL);
    report_ops(report, "ops_full", c->model, BATCH, CONTEXT);
    put_grid(c);
    report_tape(report);
    report_checks(report, 120, SEED);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(name, sizeof name, OUT "/%s", files[i][1]);
        if (!report_file(report, files[i][0], name, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    }
    if (!report_end(report, error, sizeof error)) die(EXIT_FAILED, "--html %s", error);
    printf("The page is %s: open it in a browser.\n", page_path);
}
