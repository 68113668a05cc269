// report.c - see bench.h: what was measured, as tables and as JSON.

#include "bench/bench.h"
#include "io/json.h"
#include "io/progress.h"

static const char *const no_plain = "no --plain given", *const no_text = "no text given (make bench DATA=FILE)";

static void print_steps(const Contender *c, int ours)
{
    const Shape *s = c[0].trainer->shape;
    const Config *config = &s->config;
    printf("\nOne training step: %d layers, %d heads, width %d, context %d, batch %d, %d characters\n", config->n_layer,
           config->n_head, config->n_embd, config->block_size, s->B, config->vocab_size);
    printf("%-14s%9s%9s%9s%9s%8s", "", "MFLOP", "ms", "least", "GFLOP/s", "% peak");
    printf("%13s%8s%7s%11s%13s%9s\n", "ms 1 thread", "% peak", "ratio", "full/this", "peak bytes", "mallocs");
    for (int i = 0; i < ours; i += 2) {
        const Contender *all = &c[i], *one = &c[i + 1];
        const Trainer *t = all->trainer;
        double flops = all_step_flops(&t->timing[0]);
        double of_threads = ratio(&one->turns, &all->turns), of_full = ratio(&c[0].turns, &all->turns);
        printf("%-14s%9.1f%9.2f%9.2f%9.1f%8.1f", all->name, 1e-6 * flops, ms(&all->turns), 1e3 * all->shortest,
               1e-6 * flops / ms(&all->turns), 100 * middle(&all->of_peak));
        printf("%13.2f%8.1f%7.2f%11.2f%13s%9" PRId64 "\n", ms(&one->turns), 100 * middle(&one->of_peak), of_threads, of_full,
               thousands(t->peak_bytes), t->mallocs);
    }
}

// One line of the table of phases: a phase, or an op in one.
static void print_part(const char *name, const Samples *part, double flops, const Contender *c)
{
    const Timing *timing = &c->trainer->timing[c->which];
    double seconds = middle(part);
    printf("%-24s%8.2f%9.1f", name, 1e3 * seconds, 100 * seconds / middle(&timing->step));
    if (flops > 0) printf("%10.1f%9.1f%8.1f", 1e-6 * flops, 1e-9 * flops / seconds, 100 * flops / seconds / peak_of(c));
    printf("\n");
}

// The median of each line by itself: they add up to the step's only nearly.
static void print_phases(const Contender *c)
{
    const Timing *timing = &c->trainer->timing[c->which];
    printf("\n%s, %s: phases, and in each the ops of more than 3 %% of the step\n", c->trainer->shape->name, c->name);
    printf("%-24s%8s%9s%10s%9s%8s\n", "", "ms", "% step", "MFLOP", "GFLOP/s", "% peak");
    for (int p = 0; p < PHASES; p++) {
        if (middle(&timing->phase[p]) <= 0) continue;
        print_part(phase_names[p], &timing->phase[p], (double)timing->last.phase[p].flops, c);
        for (int op = 0; op < MEASURED_OPS && timing->last.op[op].name != NULL; op++) {
            if (middle(&timing->op[op][p]) < 0.03 * middle(&timing->step)) continue;
            char name[64];
            snprintf(name, sizeof name, "  %s", timing->last.op[op].name);
            print_part(name, &timing->op[op][p], (double)timing->last.op[op].phase[p].flops, c);
        }
    }
    print_part("optimizer", &timing->optimizer, 0, c);
    print_part("rest", &timing->rest, 0, c);
}

static void print_peer(const Contender *c)
{
    printf("%-26s", c->name);
    if (c->turns.count == 0) { printf("skipped: %s\n", why_not(c)); return; }
    double scale = c->samples ? 1e3 / c->count : 1e3; // ms of a step, or of a character
    printf("%9.2f%9.2f%9.2f%8.2f", scale * middle(&c->turns), scale * c->shortest, scale * our_seconds(c),
           peer_ratio(c));
    if (c->products)
        printf("   %.1f %% of the peak, ours %.1f %%", 100 * products_of_peak(c, middle(&c->turns)),
               100 * products_of_peak(c, our_seconds(c)));
    else if (!c->samples) printf("%9.0e", c->difference[1]);
    if (c->bytes > 0) printf("%15s%15s", thousands((int64_t)c->bytes), thousands(c->ours->trainer->peak_bytes));
    printf("\n");
}

static void print_story(const Extras *extras)
{
    printf("\nOne product as it becomes fast%40s\n", "GFLOP/s");
    for (int i = 0; i < STORY; i++) printf("%-54s%16.1f\n", story[i].name, giga(&story[i].rate));
    printf("exp: %.2f ns a number with libm, %.2f with the polynomial of tensor.h\n", 1e6 * ms(&exp_libm), 1e6 * ms(&exp_fast));
    printf("a whole step by the plain loops (PLAIN=1): ");
    if (extras->plain_ms > 0)
        printf("%.0f ms, %.1f times this build's\n", extras->plain_ms, extras->plain_ms / ms(&steps[0].turns));
    else printf("skipped: %s\n", no_plain);
    printf("sampling: %.0f characters a second\n", sampling[0].count / middle(&sampling[0].turns));
}

static void print_peers(const char *plural)
{
    printf("\nIn turn with others, %d thread%s each, %s but where it says bf16\n", machine.threads, plural, real_name);
    printf("%-26s%9s%9s%9s%8s%9s%15s%15s\n", "", "ms", "least", "ours", "ratio", "losses", "peak bytes", "ours");
    if (torch.name[0] == '\0') printf("PyTorch                   skipped: %s\n", torch.why);
    for (int i = 0; i < OTHERS; i++)
        if (others[i]->peer != &torch || torch.name[0] != '\0') print_peer(others[i]);
    if (torch.name[0] != '\0')
        printf("(%s; `losses`: relative difference from ours in the first %d steps; sampling: ms a character,\n"
               "theirs as in nanoGPT, with the whole context again for each; ours remembers q, k and v of what it has read;\n"
               "products: those of the full step's linear layers and head; theirs by themselves, ours within the step, with\n"
               "biases)\n", torch.name, CHECKED);
    if (jax.name[0] != '\0') printf("(%s)\n", jax.name);
}

static void print_rounds(const char *shape, Rounds r)
{
    printf("%s: in %d of %d rounds the host was slow; %s\n", shape, r.slow, r.all,
           r.slow == 0 ? "all count" : r.kept ? "all count nevertheless, for too few would be left: trust no time here" : "they do not count");
}

void print_report(const Extras *extras)
{
    const char *plural = machine.threads > 1 ? "s" : "";
    printf("%d thread%s, %s; multiply-add peak %.1f GFLOP/s with one thread, %.1f with all; ", machine.threads, plural,
           real_name, giga(&machine.peak[1]), giga(&machine.peak[0]));
    printf("memory %.1f GB/s with one, %.1f with all\n", giga(&machine.bandwidth[1]), giga(&machine.bandwidth[0]));
    printf("a handshake of the threads (they begin a kernel together, and end it): %.1f us, or %.1f us when it must wake them\n",
           1e3 * ms(&machine.handshake), 1e3 * ms(&machine.waking));
    print_steps(steps, OURS);
    print_steps(larges, LARGE_OURS);
    printf("`ms` with all threads, median of %d and of %d rounds; `ratio`: one thread's time by that;\n"
           "`mallocs`: buffers asked of the system while steps were timed\n", steps[0].turns.count, larges[0].turns.count);
    print_rounds("small", step_rounds);
    print_rounds("larger", large_rounds);
    print_targets();
    for (int i = 0; i < OURS; i += 2) print_phases(&steps[i]);
    print_phases(&larges[0]);
    print_story(extras);
    print_peers(plural);
    printf("\nTraining on a text: ");
    if (extras->text_seconds > 0)
        printf("%d iterations, validation loss %.4f, %.1f s in all\n", TEXT_STEPS, extras->text_loss, extras->text_seconds);
    else printf("skipped: %s\n", no_text);
}

// ------------------------------------------------------------------------------------------------------------------------ JSON

static void json_phases(FileWriter *w, const Timing *timing)
{
    for (int p = 0; p < PHASES; p++) {
        file_printf(w, "        \"%s\": {\"ms\": %.4f, \"flops\": %" PRId64 ", \"ops\": {", phase_names[p],
                    ms(&timing->phase[p]), (int64_t)timing->last.phase[p].flops);
        const char *comma = "";
        for (int op = 0; op < MEASURED_OPS && timing->last.op[op].name != NULL; op++) {
            if (middle(&timing->op[op][p]) <= 0) continue;
            file_printf(w, "%s\n          \"%s\": {\"ms\": %.4f, \"flops\": %" PRId64 "}", comma, timing->last.op[op].name,
                        ms(&timing->op[op][p]), (int64_t)timing->last.op[op].phase[p].flops);
            comma = ",";
        }
        file_printf(w, "}},\n");
    }
    file_printf(w, "        \"optimizer\": {\"ms\": %.4f},\n", ms(&timing->optimizer));
    file_printf(w, "        \"rest\": {\"ms\": %.4f}\n      }\n", ms(&timing->rest));
}

static void json_run(FileWriter *w, const Contender *all, const Contender *one, const Contender *full)
{
    const Trainer *t = all->trainer;
    const Timing *timing = &t->timing[0];
    double flops = all_step_flops(timing);
    file_printf(w, "      \"flops\": %.0f, \"ms\": %.4f, \"ms_least\": %.4f,\n", flops, ms(&all->turns), 1e3 * all->shortest);
    file_printf(w, "      \"gflops_per_second\": %.2f, \"percent_of_peak\": %.2f, \"percent_of_peak_one_thread\": %.2f,\n",
                1e-6 * flops / ms(&all->turns), 100 * middle(&all->of_peak), 100 * middle(&one->of_peak));
    file_printf(w, "      \"ms_one_thread\": %.4f, \"ratio_one_thread\": %.4f, \"ratio_full\": %.4f,\n", ms(&one->turns),
                ratio(&one->turns, &all->turns), ratio(&full->turns, &all->turns));
    file_printf(w, "      \"peak_bytes\": %" PRId64 ", \"predicted_bytes\": %" PRId64 ", \"mallocs\": %" PRId64 ",\n",
                t->peak_bytes, t->predicted_bytes, t->mallocs);
    file_printf(w, "      \"first_loss\": %.8f,\n      \"phases\": {\n", t->loss[0]);
    json_phases(w, timing);
}

static void json_shape(FileWriter *w, const Contender *c, int ours)
{
    const Shape *s = c[0].trainer->shape;
    const Config *config = &s->config;
    file_printf(w, "  \"%s\": {\n    \"n_layer\": %d, \"n_head\": %d, \"n_embd\": %d, \"block_size\": %d,\n", s->name,
                config->n_layer, config->n_head, config->n_embd, config->block_size);
    file_printf(w, "    \"batch_size\": %d, \"vocab_size\": %d, \"rounds\": %d", s->B, config->vocab_size, c[0].turns.count);
    for (int i = 0; i < ours; i += 2) {
        file_printf(w, ",\n    \"%s\": {\n", c[i].key);
        json_run(w, &c[i], &c[i + 1], &c[0]);
        file_printf(w, "    }");
    }
    file_printf(w, "\n  },\n");
}

static void json_text(FileWriter *w, const char *key, const char *text)
{
    char escaped[1024];
    json_escape(escaped, sizeof escaped, text, strlen(text));
    file_printf(w, "{\"%s\": %s}", key, escaped);
}

static void json_peer(FileWriter *w, const Contender *c)
{
    file_printf(w, ",\n    \"%s_%s\": ", c->peer->key, c->key);
    if (c->turns.count == 0) { json_text(w, "skipped", why_not(c)); return; }
    file_printf(w, "{\"ms\": %.4f, \"ms_least\": %.4f, \"ours_ms\": %.4f, \"ratio\": %.4f", ms(&c->turns), 1e3 * c->shortest,
                1e3 * our_seconds(c), peer_ratio(c));
    if (c->products)
        file_printf(w, ", \"percent_of_peak\": %.2f, \"ours_percent_of_peak\": %.2f",
                    100 * products_of_peak(c, middle(&c->turns)), 100 * products_of_peak(c, our_seconds(c)));
    else if (c->samples) file_printf(w, ", \"characters\": %d", c->count);
    else file_printf(w, ", \"loss_difference_first\": %.3e, \"loss_difference\": %.3e", c->difference[0], c->difference[1]);
    if (c->bytes > 0)
        file_printf(w, ", \"peak_bytes\": %.0f, \"ours_peak_bytes\": %" PRId64, c->bytes, c->ours->trainer->peak_bytes);
    file_printf(w, "}");
}

static void json_pair(FileWriter *w, const char *key, const Samples both[2]) // with one thread, and with all
{
    file_printf(w, "  \"%s\": {\"one_thread\": %.2f, \"all_threads\": %.2f},\n", key, giga(&both[1]), giga(&both[0]));
}

void write_json(const char *path, const Extras *extras)
{
    char error[512];
    FileWriter *w = file_write_begin(path, error, sizeof error);
    if (w == NULL) die(EXIT_FAILED, "%s", error);
    file_printf(w, "{\n  \"threads\": %d, \"real\": \"%s\",\n", machine.threads, real_name);
    json_pair(w, "peak_gflops_per_second", machine.peak);
    json_pair(w, "memory_gb_per_second", machine.bandwidth);
    file_printf(w, "  \"handshake\": {\"us\": %.3f, \"us_waking\": %.3f},\n", 1e3 * ms(&machine.handshake), 1e3 * ms(&machine.waking));
    file_printf(w, "  \"slow_rounds\": {\"small\": %d, \"of_small\": %d, \"large\": %d, \"of_large\": %d},\n", step_rounds.slow,
                step_rounds.all, large_rounds.slow, large_rounds.all);
    file_printf(w, "  \"targets\": {");
    json_targets(w);
    file_printf(w, "\n  },\n");
    json_shape(w, steps, OURS);
    json_shape(w, larges, LARGE_OURS);
    file_printf(w, "  \"story\": {\n");
    for (int i = 0; i < STORY; i++)
        file_printf(w, "    \"%s\": {\"gflops_per_second\": %.2f},\n", story[i].key, giga(&story[i].rate));
    file_printf(w, "    \"exp_libm\": {\"ns\": %.3f},\n    \"exp_fast\": {\"ns\": %.3f}\n  },\n", 1e6 * ms(&exp_libm),
                1e6 * ms(&exp_fast));
    file_printf(w, "  \"plain_step\": ");
    if (extras->plain_ms > 0) file_printf(w, "{\"ms\": %.2f}", extras->plain_ms);
    else json_text(w, "skipped", no_plain);
    file_printf(w, ",\n  \"sampling\": {\"characters\": %d, \"characters_per_second\": %.1f},\n", sampling[0].count,
                sampling[0].count / middle(&sampling[0].turns));
    file_printf(w, "  \"peers\": {\n    \"torch\": ");
    json_text(w, torch.name[0] ? "version" : "skipped", torch.name[0] ? torch.name : torch.why);
    for (int i = 0; i < OTHERS; i++) json_peer(w, others[i]);
    file_printf(w, "\n  },\n  \"text\": ");
    if (extras->text_seconds <= 0) json_text(w, "skipped", no_text);
    else file_printf(w, "{\"iterations\": %d, \"val_loss\": %.5f, \"seconds\": %.2f}", TEXT_STEPS, extras->text_loss,
                     extras->text_seconds);
    file_printf(w, "\n}\n");
    if (!file_write_commit(w, error, sizeof error)) die(EXIT_FAILED, "%s", error);
    printf("\nAll of it as JSON: %s\n", path);
}
