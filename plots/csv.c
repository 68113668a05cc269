// csv.c - runs the engine for the plots: writes CSV files that gnuplot, a spreadsheet or a reader can open.
//
//     csv [--threads N] DIR     timeline_*.csv, bytes.csv, flow.csv, context.csv, crossover.csv, learning.csv, floor.csv, grid.csv
//
// All runs are of the demo's model. Bytes and counts are the same wherever they are measured: they are for two threads, as in
// the README (workspace is per thread); losses differ a little between compilers.

#include "plots/flow.h"

enum { BASE_STEPS = 500, TUNE_STEPS = 150 };
enum { SMALL = 4, EVERY = 25 }; // windows a batch of evaluations; steps between these

static const char *directory;

// ------------------------------------------------------------------------------------------------------- where gradients flow

static void write_flow(Transformer *model, const Text *text)
{
    const LoraConfig on_top = { .r = 8, .alpha = 16, .targets = 1u << C_ATTN, .first_block = BLOCKS - 1, .last_block = -1 };
    const struct { const char *name; const LoraConfig *lora; } ways[] = {
        { "full", NULL }, { "LoRA on c_attn", &on_c_attn }, { "LoRA on the top block", &on_top } };
    FILE *file = open_file(directory, "flow.csv");
    fprintf(file, "training,matrix,forward,dgrad,wgrad,adapter_gradients\n");
    for (int w = 0; w < 3; w++) {
        Flow flow;
        adapt(model, ways[w].lora, SEED);
        measure_flow(model, text, &flow, NULL);
        for (int i = 0; i < MATRICES; i++) {
            if (i < MATRICES - 1) fprintf(file, "%s,h.%d.%s", ways[w].name, i / LINEARS, linear_names[i % LINEARS]);
            else fprintf(file, "%s,head (wte)", ways[w].name);
            fprintf(file, ",run,%s,%s,%d\n", kind_names[flow.dgrad[i]], kind_names[flow.wgrad[i]], flow.adapter[i]);
        }
    }
    close_file(file, directory, "flow.csv");
}

// ----------------------------------------------------------------------------------------------------------- length of context

static const struct Shape { const char *name; Config config; int B, longest; } shapes[] = {
    { "this demo's model", { 43, 0, BLOCKS, 4, 128, 0 }, BATCH, 128 },
    { "gpt2-124m", { 50257, 0, 12, 12, 768, 0 }, 1, 8192 },
    { "gpt-7b", { 50257, 0, 32, 32, 4096, 0 }, 1, 32768 },
    { "gpt-65b", { 50257, 0, 80, 64, 8192, 0 }, 1, 65536 },
    { "gpt3-175b", { 50257, 0, 96, 96, 12288, 0 }, 1, 98304 },
};
enum { SHAPES = sizeof shapes / sizeof *shapes, POINTS = 32 };

// Activations kept for backward by full training and by LoRA, and the gradients and moments that LoRA saves, in bytes.
typedef struct AtContext { double full, lora, saved; } AtContext;
static AtContext at_context(const struct Shape *s, int T)
{
    Config config = s->config;
    config.block_size = T;
    Prediction full = predict_step(&config, NULL, s->B, T, false, 1, 4);
    Prediction lora = predict_step(&config, &on_c_attn, s->B, T, false, 1, 4);
    const MemoryKind g = MEMORY_PARAMETER_GRADIENTS, m = MEMORY_MOMENTS, a = MEMORY_KEPT_ACTIVATIONS;
    return (AtContext){ (double)full.own_peak[a], (double)lora.own_peak[a],
                        (double)(full.own_peak[g] + full.own_peak[m] - lora.own_peak[g] - lora.own_peak[m]) };
}

// The shortest context whose activations outweigh what is saved.
static int crossover(const struct Shape *s)
{
    int below = 1, above = s->longest;
    while (above - below > 1) {
        int middle = (below + above) / 2;
        AtContext at = at_context(s, middle);
        if (at.lora > at.saved) above = middle;
        else below = middle;
    }
    check(at_context(s, above).lora > at_context(s, above).saved, "%s: no crossover up to a context of %d", s->name, s->longest);
    return above;
}

static void write_context(void)
{
    FILE *file = open_file(directory, "context.csv"), *crossings = open_file(directory, "crossover.csv");
    fprintf(file, "shape,windows,context,kept_full,kept_lora,saved_by_lora\n");
    fprintf(crossings, "shape,windows,context,bytes\n");
    for (int i = 0; i < SHAPES; i++) {
        const struct Shape *s = &shapes[i];
        for (int j = 1; j <= POINTS; j++) {
            int T = s->longest / POINTS * j;
            AtContext at = at_context(s, T);
            fprintf(file, "%s,%d,%d,%.0f,%.0f,%.0f\n", s->name, s->B, T, at.full, at.lora, at.saved);
        }
        int T = crossover(s);
        fprintf(crossings, "%s,%d,%d,%.0f\n", s->name, s->B, T, at_context(s, T).lora);
    }
    close_file(file, directory, "context.csv");
    close_file(crossings, directory, "crossover.csv");
}

// -------------------------------------------------------------------------------------------------------------------- learning

// A row for each step: the validation loss before it (each EVERY-th and the 11th, for early steps change most), then its own.
typedef struct Log { FILE *file; const char *what; Transformer *model; const Text *text; int64_t steps; } Log;

static void begin_row(const Log *log, int64_t step)
{
    fprintf(log->file, "%s,%" PRId64 ",", log->what, step);
    if (step % EVERY == 0 || step == 10 || step == log->steps)
        fprintf(log->file, "%.6f", estimate_validation(log->model, log->text, SMALL, SMALL));
}

static void after_step(void *context, int64_t done, const StepResult *result)
{
    const Log *log = context;
    if (!isfinite(result->loss) || !isfinite(result->gradient_norm))
        die(EXIT_FAILED, "%s: step %" PRId64 " is not finite", log->what, done - 1);
    fprintf(log->file, ",%.6f\n", result->loss);
    begin_row(log, done);
}

static void train_logged(FILE *file, Transformer *model, const Text *text, const char *what, int64_t steps, double rate)
{
    Log log = { file, what, model, text, steps };
    begin_row(&log, 0);
    train(model, text, &(Training){ .B = BATCH, .schedule = usual_schedule(rate, steps), .weight_decay = 0.1, .seed = SEED,
                                    .after = after_step, .context = &log });
    fprintf(file, ",\n"); // after the last step there is no loss of another
}

static void write_learning(Transformer *model, const Text *tales, const Text *pirate)
{
    FILE *log = open_file(directory, "learning.csv"), *floors = open_file(directory, "floor.csv");
    fprintf(floors, "text,floor\ntales,%.6f\npirate,%.6f\n", tales->val_floor, pirate->val_floor);
    close_file(floors, directory, "floor.csv");
    fprintf(log, "run,step,val_loss,train_loss\n");
    adapt(model, NULL, SEED);
    train_logged(log, model, tales, "base", BASE_STEPS, 3e-3);
    real **base = copy_base(model);
    train_logged(log, model, pirate, "full", TUNE_STEPS, 2e-3);
    restore_base(model, base);
    adapt(model, &on_c_attn, SEED);
    train_logged(log, model, pirate, "LoRA c_attn", TUNE_STEPS, 2e-2);
    adapt(model, &on_all, SEED);
    train_logged(log, model, pirate, "LoRA all 4", TUNE_STEPS, 1e-2);
    close_file(log, directory, "learning.csv");
}

static void write_grid(Transformer *model, const Text *pirate)
{
    static const int ranks[] = { 1, 2, 4, 8, 16 };
    static const double scales[] = { 0.5, 1, 2, 4, 8 };
    FILE *grid = open_file(directory, "grid.csv");
    fprintf(grid, "rank,scale,alpha,val_loss\n");
    for (int i = 0; i < 25; i++) {
        int rank = ranks[i / 5];
        double scale = scales[i % 5];
        train_cell(model, pirate, rank, scale);
        fprintf(grid, "%d,%g,%g,%.6f\n", rank, scale, scale * rank, evaluate_validation(model, pirate));
    }
    close_file(grid, directory, "grid.csv");
}

typedef struct Asked { int threads; } Asked;
static const Option csv_options[] = {
    { "threads", "N", NULL, "(one for each core)", INT_OPTION(Asked, threads, 1, MAX_THREADS) }, { 0 }
};
static const OptionTable csv_table = {
    .head = "csv: writes what the plots show", csv_options, "Example: build/cc-float/plots/csv --threads 2 out/plots",
    .takes_words = true
};

int main(int argc, char **argv)
{
    program_begin("csv");
    Asked asked = { 0 };
    if (options_read(argc, argv, &csv_table, &asked, NULL) != argc - 1) die(EXIT_USAGE, "csv [--threads N] DIR");
    int threads = asked.threads > 0 ? asked.threads : parallel_threads();
    directory = argv[argc - 1];
    Text tales = open_text("builtin:tales", 400000, CONTEXT), pirate = open_text("builtin:pirate", 100000, CONTEXT);
    Transformer *model = new_model(small_shape(tales.vocabulary.size), SEED);
    parallel_set_threads(2); // whose workspace the README's bytes contain
    write_step(model, small_batch(&tales), directory);
    write_flow(model, &tales);
    write_context();
    parallel_set_threads(threads);
    write_learning(model, &tales, &pirate);
    write_grid(model, &pirate);
    transformer_free(model);
    text_free(&tales);
    text_free(&pirate);
    return output_status();
}
