// measure.c - runs the engine for the plots: writes CSV files that gnuplot, a spreadsheet or a reader can open, and draws the
// README's picture.
//
//     measure [--threads N] DIR     timeline_*.csv, bytes.csv, context.csv, crossover.csv, flow.csv, learning.csv, floor.csv,
//                                   grid.csv
//     measure --picture             the picture as SVG on stdout
//
// All runs are of the demo's model. Bytes and counts are the same wherever they are measured: they are for two threads, as in
// the README (workspace is per thread); losses differ a little between compilers.

#include "io/evaluation.h"
#include "io/options.h"
#include "io/progress.h"
#include "predict.h"
#include "training.h"

#include <errno.h>
#include <stdlib.h>

enum { BATCH = 12, CONTEXT = 64, BASE_STEPS = 500, TUNE_STEPS = 150, GRID_STEPS = 60 };
enum { SMALL = 4, EVERY = 25 }; // windows a batch of the grid's runs and of evaluations; steps between these
enum { BLOCKS = 4, MATRICES = BLOCKS * LINEARS + 1 }; // the tied head is the last
static const uint64_t seed = 1337;
static const LoraConfig on_c_attn = { .r = 8, .alpha = 16, .targets = 1u << C_ATTN, .last_block = -1 };
static const LoraConfig on_all = { .r = 8, .alpha = 16, .targets = (1u << LINEARS) - 1, .last_block = -1 };
static const LoraConfig on_top = { .r = 8, .alpha = 16, .targets = 1u << C_ATTN, .first_block = BLOCKS - 1, .last_block = -1 };

static const char *directory;
static FILE *open_csv(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    if (file == NULL) die(EXIT_FAILED, "cannot write %s: %s", path, strerror(errno));
    return file;
}

static void close_csv(FILE *file, const char *name)
{
    bool broken = ferror(file) != 0;
    if (fclose(file) != 0 || broken) die(EXIT_FAILED, "cannot write all of %s/%s: is the disk full?", directory, name);
}

static Text read_text(const char *name, long characters)
{
    Text text;
    char error[256];
    if (!text_read(name, characters, NULL, CONTEXT, &text, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    return text;
}

static Transformer *new_model(const Text *text)
{
    char error[256];
    Config config = { text->vocabulary.size, CONTEXT, BLOCKS, 4, 128, 0 };
    Transformer *model = transformer_new(config, seed, error, sizeof error);
    if (model == NULL) die(EXIT_FAILED, "%s", error);
    return model;
}

// What trains from now on: all of the base (NULL), or a fresh adapter on the frozen base.
static void train_what(Transformer *model, const LoraConfig *lora)
{
    char error[256];
    while (model->adapters != NULL) transformer_remove_adapter(model, model->adapters);
    transformer_train_base(model, lora == NULL);
    if (lora == NULL) return;
    if (transformer_add_adapter(model, "adapter", *lora, seed, error, sizeof error) == NULL) die(EXIT_FAILED, "%s", error);
}

static AdamW *new_optimizer(const Transformer *model)
{
    return adamw_new(model->parameters, model->parameter_count, (AdamWConfig){ 0.9, 0.99, 0.1, 1.0 });
}

// ----------------------------------------------------------------------------- one step: bytes, and where gradients flow

typedef enum Kind { NOT_RECORDED, SKIPPED, RUN } Kind; // of a gradient kernel
static const char *const kind_names[] = { "not recorded", "skipped", "run" };
typedef struct Flow { Kind dgrad[MATRICES], wgrad[MATRICES]; int adapter[MATRICES]; } Flow; // adapter: how many of dA and dB

static Flow *watched;
static const Transformer *watched_model;

// Which matrix of the base, or of an adapter's layer, t is; -1: none.
static int matrix_of(const Tensor *t)
{
    for (int i = 0; i < MATRICES - 1; i++) {
        const Linear *linear = &watched_model->blocks[i / LINEARS].linear[i % LINEARS];
        if (t == linear->weight || (linear->lora != NULL && (t == linear->lora->A || t == linear->lora->B))) return i;
    }
    return t == watched_model->wte ? MATRICES - 1 : -1;
}

static bool is_product(const Node *n) { return n->op == OP_LINEAR || n->op == OP_LM_HEAD; }

// backward asks before each gradient kernel whether to cut it off: nothing is cut, but seen.
static bool see(const Node *n, int input)
{
    const Tensor *in = n->in[input];
    if (is_product(n) && input == 0) watched->dgrad[matrix_of(n->in[1])] = RUN;
    if (is_product(n) && input == 1) watched->wgrad[matrix_of(in)] = RUN;
    if (in->kind == MEMORY_ADAPTERS) watched->adapter[matrix_of(in)]++;
    return false;
}

typedef struct Step { Ledger ledger; Counts counts; Flow flow; } Step;

// The second step (the moments exist), with its timeline written to `timeline` if that is not NULL.
static Step one_step(Transformer *model, const Text *text, bool recompute, FILE *timeline)
{
    static int batch[2 * BATCH * CONTEXT];
    text_batch(text, BATCH, CONTEXT, seed, 0, batch, batch + BATCH * CONTEXT);
    AdamW *optimizer = new_optimizer(model);
    Tape *tape = tape_new();
    Step step = { 0 };
    model->recompute = recompute;
    for (int i = 0; i < 2; i++) {
        tape_clear(tape);
        tape->counts = (Counts){ 0 };
        memory_reset_peaks();
        if (i == 1) memory_timeline(timeline);
        Tensor *loss = transformer_loss(model, tape, batch, batch + BATCH * CONTEXT, BATCH, CONTEXT);
        if (i == 1 && !recompute) {
            watched = &step.flow;
            watched_model = model;
            for (int n = 0; n < tape->count; n++) {
                const Node *node = &tape->nodes[n];
                int matrix = is_product(node) ? matrix_of(node->in[1]) : -1;
                if (matrix >= 0) step.flow.dgrad[matrix] = step.flow.wgrad[matrix] = SKIPPED; // until it is seen to run
            }
            tape->cut = see;
        }
        backward(tape, loss);
        adamw_step(optimizer, 0);
        zero_grads(model);
        memory_timeline(NULL);
    }
    model->recompute = false;
    step.ledger = ledger;
    step.counts = tape->counts;
    long dgrad = 0, wgrad = 0, adapter = 0;
    for (int i = 0; i < MATRICES; i++) {
        dgrad += step.flow.dgrad[i] == RUN;
        wgrad += step.flow.wgrad[i] == RUN;
        adapter += step.flow.adapter[i];
    }
    check(recompute || (dgrad == step.counts.dgrad && wgrad == step.counts.wgrad && adapter == step.counts.adapter_gradients),
          "one_step: saw %ld dgrad, %ld wgrad and %ld adapter gradients, the tape counted %ld, %ld and %ld", dgrad, wgrad,
          adapter, step.counts.dgrad, step.counts.wgrad, step.counts.adapter_gradients);
    tape_free(tape);
    adamw_free(optimizer);
    return step;
}

static void write_step(Transformer *model, const Text *text)
{
    const struct { const char *name; const LoraConfig *lora; bool recompute; } ways[] = {
        { "timeline_full.csv", NULL, false },
        { "timeline_lora.csv", &on_c_attn, false },
        { "timeline_recompute.csv", &on_c_attn, true },
    };
    Step steps[3];
    for (int i = 0; i < 3; i++) {
        FILE *file = open_csv(ways[i].name);
        train_what(model, ways[i].lora);
        steps[i] = one_step(model, text, ways[i].recompute, file);
        close_csv(file, ways[i].name);
    }
    FILE *file = open_csv("bytes.csv");
    fprintf(file, "kind,full_predicted,full_measured,lora_predicted,lora_measured\n");
    Prediction full = predict_step(&model->config, NULL, BATCH, CONTEXT, false, parallel_threads(), (int)sizeof(real));
    Prediction lora = predict_step(&model->config, &on_c_attn, BATCH, CONTEXT, false, parallel_threads(), (int)sizeof(real));
    for (int k = 0; k < MEMORY_KINDS; k++)
        fprintf(file, "%s,%ld,%ld,%ld,%ld\n", memory_kind_names[k], full.at_peak[k], steps[0].ledger.at_peak[k],
                lora.at_peak[k], steps[1].ledger.at_peak[k]);
    close_csv(file, "bytes.csv");
}

static void write_flow(Transformer *model, const Text *text)
{
    const struct { const char *name; const LoraConfig *lora; } ways[] = {
        { "full", NULL }, { "LoRA on c_attn", &on_c_attn }, { "LoRA on the top block", &on_top } };
    FILE *file = open_csv("flow.csv");
    fprintf(file, "training,matrix,forward,dgrad,wgrad,adapter_gradients\n");
    for (int w = 0; w < 3; w++) {
        train_what(model, ways[w].lora);
        Step step = one_step(model, text, false, NULL);
        for (int i = 0; i < MATRICES; i++) {
            if (i < MATRICES - 1) fprintf(file, "%s,h.%d.%s", ways[w].name, i / LINEARS, linear_names[i % LINEARS]);
            else fprintf(file, "%s,head (wte)", ways[w].name);
            fprintf(file, ",run,%s,%s,%d\n", kind_names[step.flow.dgrad[i]], kind_names[step.flow.wgrad[i]],
                    step.flow.adapter[i]);
        }
    }
    close_csv(file, "flow.csv");
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

static void write_context(void)
{
    FILE *file = open_csv("context.csv"), *crossings = open_csv("crossover.csv");
    fprintf(file, "shape,windows,context,kept_full,kept_lora,saved_by_lora\n");
    fprintf(crossings, "shape,windows,context,bytes\n");
    for (int i = 0; i < SHAPES; i++) {
        const struct Shape *s = &shapes[i];
        for (int j = 1; j <= POINTS; j++) {
            int T = s->longest / POINTS * j;
            AtContext at = at_context(s, T);
            fprintf(file, "%s,%d,%d,%.0f,%.0f,%.0f\n", s->name, s->B, T, at.full, at.lora, at.saved);
        }
        int below = 1, above = s->longest; // the shortest context whose activations outweigh what is saved
        while (above - below > 1) {
            int middle = (below + above) / 2;
            AtContext at = at_context(s, middle);
            if (at.lora > at.saved) above = middle;
            else below = middle;
        }
        check(at_context(s, above).lora > at_context(s, above).saved, "%s: no crossover up to a context of %d", s->name,
              s->longest);
        fprintf(crossings, "%s,%d,%d,%.0f\n", s->name, s->B, above, at_context(s, above).lora);
    }
    close_csv(file, "context.csv");
    close_csv(crossings, "crossover.csv");
}

// -------------------------------------------------------------------------------------------------------------------- learning

// Trains what requires grad. With a log: a row for each step, with the validation loss before each EVERY-th, the 11th (early
// steps change most), and after the last.
static void train(Transformer *model, const Text *text, const char *what, int B, long steps, double rate, FILE *log)
{
    Schedule schedule = { rate, rate / 10, steps / 10, steps };
    AdamW *optimizer = new_optimizer(model);
    Tape *tape = tape_new();
    static int batch[2 * BATCH * CONTEXT];
    int T = model->config.block_size;
    for (long step = 0; step < steps; step++) {
        if (log != NULL) fprintf(log, "%s,%ld,", what, step);
        if (log != NULL && (step % EVERY == 0 || step == 10)) fprintf(log, "%.6f", estimate_validation(model, text, SMALL));
        double now = schedule_rate(&schedule, step);
        text_batch(text, B, T, seed, step, batch, batch + B * T);
        StepResult result = training_step(model, tape, optimizer, batch, batch + B * T, B, T, seed, step, now);
        if (!isfinite(result.loss) || !isfinite(result.gradient_norm))
            die(EXIT_FAILED, "%s: step %ld is not finite", what, step);
        if (log != NULL) fprintf(log, ",%.6f\n", result.loss);
    }
    if (log != NULL) fprintf(log, "%s,%ld,%.6f,\n", what, steps, estimate_validation(model, text, SMALL));
    tape_free(tape);
    adamw_free(optimizer);
}

static void write_learning(Transformer *model, const Text *tales)
{
    Text pirate = read_text("builtin:pirate", 100000);
    FILE *log = open_csv("learning.csv"), *floors = open_csv("floor.csv");
    fprintf(floors, "text,floor\ntales,%.6f\npirate,%.6f\n", tales->val_floor, pirate.val_floor);
    close_csv(floors, "floor.csv");
    fprintf(log, "run,step,val_loss,train_loss\n");
    train_what(model, NULL);
    train(model, tales, "base", BATCH, BASE_STEPS, 3e-3, log);

    real **base = allocate((size_t)model->base_count, sizeof *base, "a copy of the base"); // full fine-tuning changes it
    for (int i = 0; i < model->base_count; i++) {
        const Tensor *t = model->parameters[i];
        base[i] = allocate((size_t)t->size, sizeof(real), "a copy of the base");
        memcpy(base[i], t->data, (size_t)t->size * sizeof(real));
    }
    train(model, &pirate, "full", BATCH, TUNE_STEPS, 2e-3, log);
    for (int i = 0; i < model->base_count; i++) {
        memcpy(model->parameters[i]->data, base[i], (size_t)model->parameters[i]->size * sizeof(real));
        free(base[i]);
    }
    free(base);
    train_what(model, &on_c_attn);
    train(model, &pirate, "LoRA c_attn", BATCH, TUNE_STEPS, 2e-2, log);
    train_what(model, &on_all);
    train(model, &pirate, "LoRA all 4", BATCH, TUNE_STEPS, 1e-2, log);
    close_csv(log, "learning.csv");

    static const int ranks[] = { 1, 2, 4, 8, 16 };
    static const double scales[] = { 0.5, 1, 2, 4, 8 };
    FILE *grid = open_csv("grid.csv");
    fprintf(grid, "rank,scale,alpha,val_loss\n");
    for (int r = 0; r < 5; r++)
        for (int s = 0; s < 5; s++) {
            LoraConfig lora = on_c_attn;
            lora.r = ranks[r];
            lora.alpha = scales[s] * ranks[r];
            train_what(model, &lora);
            train(model, &pirate, "grid", SMALL, GRID_STEPS, 1e-2, NULL);
            fprintf(grid, "%d,%g,%g,%.6f\n", ranks[r], scales[s], lora.alpha, evaluate_validation(model, &pirate));
        }
    close_csv(grid, "grid.csv");
    text_free(&pirate);
}

// ----------------------------------------------------------------------------------------------------------------- the picture

// From the bottom up: what stays, then what comes and goes. The colours are those of style.gp.
static const MemoryKind layers[MEMORY_KINDS] = { MEMORY_WEIGHTS, MEMORY_ADAPTERS, MEMORY_MOMENTS, MEMORY_KEPT_ACTIVATIONS,
    MEMORY_LIVE_ACTIVATIONS, MEMORY_ACTIVATION_GRADIENTS, MEMORY_WORKSPACE, MEMORY_PARAMETER_GRADIENTS };
static const char *const colours[MEMORY_KINDS] = { "#a9cbe6", "#d55e00", "#b5478b", "#6a4c93", "#12806a", "#5aa9dc", "#e0a100",
                                                   "#8a8f98" };
enum { PANEL = 400, TOP = 96, BOTTOM = 316, MOST = 40000000, ROWS = 2000 };

static double height(long bytes) { return BOTTOM - (double)(BOTTOM - TOP) * (double)bytes / MOST; }

typedef struct Timeline { long bytes[ROWS][MEMORY_KINDS], total[ROWS]; int rows, backward, peak; } Timeline;

static void read_timeline(FILE *file, Timeline *t)
{
    char line[512];
    *t = (Timeline){ .backward = -1 };
    rewind(file);
    if (fgets(line, sizeof line, file) == NULL) die(EXIT_FAILED, "the timeline is empty");
    for (; fgets(line, sizeof line, file) != NULL; t->rows++) {
        check(t->rows < ROWS, "the timeline has more than %d rows", ROWS);
        if (t->backward < 0 && strncmp(line, "backward", 8) == 0) t->backward = t->rows;
        char *at = strchr(strchr(line, ',') + 1, ',');
        for (int k = 0; k < MEMORY_KINDS; k++) t->total[t->rows] += t->bytes[t->rows][k] = strtol(at + 1, &at, 10);
        if (t->total[t->rows] > t->total[t->peak]) t->peak = t->rows;
    }
}

static void label(double x, double y, const char *style, const char *text)
{
    printf("<text x=\"%.1f\" y=\"%.1f\"%s%s>%s</text>\n", x, y, *style ? " " : "", style, text);
}

static void draw_panel(double left, const char *title, const Step *step, const Timeline *t)
{
    char text[160];
    label(left, 64, "class=\"h\"", title);
    for (int mb = 0; mb <= 40; mb += 10) {
        double y = height(1000000l * mb);
        printf("<path class=\"grid\" d=\"M%.1f %.1fh%d\"/>\n", left, y, PANEL);
        snprintf(text, sizeof text, mb == 40 ? "%d MB" : "%d", mb);
        label(left - 6, y + 4, "class=\"end\"", text);
    }
    double each = (double)PANEL / t->rows; // pixels an event
    for (int l = MEMORY_KINDS - 1; l >= 0; l--) { // each area down to the axis; the next ones cover what is not its own
        printf("<path fill=\"%s\" d=\"M%.1f %d", colours[layers[l]], left, BOTTOM);
        double y = BOTTOM;
        for (int i = 0; i < t->rows; i++) {
            long under = 0;
            for (int j = 0; j <= l; j++) under += t->bytes[i][layers[j]];
            if (fabs(height(under) - y) < 0.05) continue;
            y = height(under);
            printf("H%.1fV%.1f", left + i * each, y);
        }
        printf("H%.1fV%dz\"/>\n", left + PANEL, BOTTOM);
    }
    // labels in the areas that have room for one, at the end of forward; the bytes are those at the peak
    long under = 0;
    for (int l = 0; l < MEMORY_KINDS; l++) {
        MemoryKind k = layers[l];
        long bytes = t->bytes[t->backward][k];
        if (bytes > 2500000) {
            const char *what = k == MEMORY_KEPT_ACTIVATIONS ? "activations kept" : memory_kind_names[k];
            snprintf(text, sizeof text, "%s%s %s", k == MEMORY_WEIGHTS && step->counts.wgrad == 0 ? "frozen " : "", what,
                     bytes_text((double)step->ledger.at_peak[k]));
            double y = (height(under) + height(under + bytes)) / 2 + 5;
            label(left + (t->peak + 0.5) * each, y, k == MEMORY_WEIGHTS ? "class=\"mid\"" : "class=\"mid on\"", text);
        }
        under += bytes;
    }
    double x = left + (t->peak + 0.5) * each, y = height(t->total[t->peak]);
    printf("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"#1b2430\"/>\n", x, y);
    snprintf(text, sizeof text, "peak %s bytes", thousands(step->ledger.peak));
    label(x, y - 9, "class=\"mid b\"", text);
    printf("<path class=\"axis\" d=\"M%.1f %dh%d\"/>\n<path class=\"axis\" d=\"M%.1f %dv8\"/>\n", left, BOTTOM, PANEL,
           left + t->backward * each, BOTTOM);
    label(left + t->backward * each / 2, BOTTOM + 17, "class=\"mid\"", "forward");
    label(left + (t->backward + t->rows) * each / 2, BOTTOM + 17, "class=\"mid\"", "backward, optimizer");

    // what is too thin for a label of its own
    typedef struct Key { MemoryKind kind; const char *name; } Key;
    static const Key full_key[] = { { MEMORY_LIVE_ACTIVATIONS, "activations in passing" },
                                    { MEMORY_ACTIVATION_GRADIENTS, "activation gradients" },
                                    { MEMORY_PARAMETER_GRADIENTS, "weight gradients" } };
    static const Key lora_key[] = { { MEMORY_MOMENTS, "moments" }, { MEMORY_ADAPTERS, "adapters A, B" } };
    for (int i = 0; i < (step->counts.wgrad > 0 ? 3 : 2); i++) {
        MemoryKind k = step->counts.wgrad > 0 ? full_key[i].kind : lora_key[i].kind;
        double at = TOP + 22 + 18 * i;
        printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/>\n", left + 250, at - 10, colours[k]);
        if (step->counts.wgrad > 0) snprintf(text, sizeof text, "%s", full_key[i].name);
        else snprintf(text, sizeof text, "%s %s", lora_key[i].name, bytes_text((double)step->ledger.at_peak[k]));
        label(left + 266, at, "", text);
    }

    // the matrices from the bottom (left) to the head, where the loss is
    const double cell = (double)(PANEL - 78) / MATRICES, first = left + 78;
    const char *const names[] = { "through W", "of W", "of A and B" };
    for (int row = 0; row < 3; row++) {
        double top = 372 + 26 * row;
        label(first - 8, top + 14, "class=\"end\"", names[row]);
        for (int i = 0; i < MATRICES; i++) {
            const Flow *f = &step->flow;
            bool run = row == 0 ? f->dgrad[i] == RUN : row == 1 ? f->wgrad[i] == RUN : f->adapter[i] > 0;
            double at = first + i * cell;
            if (row == 2 && !run) continue;
            printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"20\" rx=\"3\" class=\"%s\"/>\n", at + 1, top, cell - 2,
                   run && row > 0 ? "warm" : "ice");
            static const char *const styles[] = { "class=\"mid b\"", "class=\"mid on\"", "class=\"mid on small\"" };
            static const char *const signs[] = { "←", "W", "AB" };
            if (run) label(at + cell / 2, top + 15, styles[row], signs[row]);
        }
    }
    snprintf(text, sizeof text, "through %ld of %d %smatrices; %ld weight gradients", step->counts.dgrad,
             MATRICES, step->counts.wgrad > 0 ? "" : "frozen ", step->counts.wgrad);
    label(left, 362, "class=\"b\"", text);
}

static void draw_picture(Transformer *model, const Text *text)
{
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 920 484\" "
           "font-family=\"system-ui,Helvetica,Arial,sans-serif\" font-size=\"13\" fill=\"#1b2430\">\n"
           "<title>One training step, full and with LoRA: bytes, and where gradients flow</title>\n"
           "<style>.h{font-size:16px;font-weight:700}.b{font-weight:700}.mid{text-anchor:middle}.end{text-anchor:end}"
           ".on{fill:#fff}.small{font-size:10px}"
           ".grid{stroke:#d6dbe1}.axis{stroke:#1b2430}.ice{fill:#e3eff8;stroke:#4f86b3}.warm{fill:#c2500f}</style>\n"
           "<rect width=\"920\" height=\"484\" rx=\"10\" fill=\"#fcfcfa\" stroke=\"#d6dbe1\"/>\n");
    label(52, 32, "class=\"h\"", "One training step, measured: bytes in memory, and where gradients flow");
    const LoraConfig *const ways[] = { NULL, &on_c_attn };
    const char *const titles[] = { "full: all weights train", "LoRA: the base is frozen, adapters A, B train" };
    for (int i = 0; i < 2; i++) {
        static Timeline timeline;
        FILE *file = tmpfile();
        if (file == NULL) die(EXIT_FAILED, "no temporary file can be made: %s", strerror(errno));
        train_what(model, ways[i]);
        Step step = one_step(model, text, false, file);
        read_timeline(file, &timeline);
        fclose(file);
        check(timeline.total[timeline.peak] == step.ledger.peak, "the timeline's peak is %ld, the ledger's %ld",
              timeline.total[timeline.peak], step.ledger.peak);
        draw_panel(52 + i * (PANEL + 52), titles[i], &step, &timeline);
    }
    label(52, 470, "", "Each box is a weight matrix W, from the first layer (left) to the head: gradients flow through the "
                       "frozen ones to reach A and B.");
    printf("</svg>\n");
}

int main(int argc, char **argv)
{
    program_name = "measure";
    bool picture = argc == 2 && strcmp(argv[1], "--picture") == 0;
    if (!picture && !(argc == 2 || (argc == 4 && strcmp(argv[1], "--threads") == 0)))
        die(EXIT_USAGE, "measure [--threads N] DIR, or measure --picture");
    int threads = argc == 4 ? (int)option_int("threads", argv[2], 1, MAX_THREADS) : parallel_threads();
    directory = argv[argc - 1];
    Text tales = read_text("builtin:tales", picture ? 20000 : 400000);
    Transformer *model = new_model(&tales);
    parallel_set_threads(2); // whose workspace the README's bytes contain
    if (picture) draw_picture(model, &tales);
    else {
        write_step(model, &tales);
        write_flow(model, &tales);
        write_context();
        parallel_set_threads(threads);
        write_learning(model, &tales);
    }
    transformer_free(model);
    text_free(&tales);
    return output_status();
}
