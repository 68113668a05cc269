// test_bench.c - runs `bench --quick`, and reads its JSON: the keys are there, the numbers can be, and the FLOPs are those of
// the formulas, computed here anew.

#include "io/file.h"
#include "io/json.h"
#include "kernels.h"
#include "memory.h"
#include "tests/test.h"

#include <stdlib.h>
#include <unistd.h>

static const char *program, *directory; // the bench; where it writes
static char error[512];

// Exit status of the bench with these arguments; its output goes to DIRECTORY/log.
static int run(const char *arguments)
{
    char command[1024];
    snprintf(command, sizeof command, "'%s' %s > '%s/log' 2>&1", program, arguments, directory);
    int status = system(command);
    return status >> 8 & 255;
}

// 1 if the last output has the text.
static int printed(const char *text)
{
    char path[512], *bytes;
    size_t size;
    snprintf(path, sizeof path, "%s/log", directory);
    if (!file_read(path, 1 << 20, &bytes, &size, error, sizeof error)) return 0;
    int found = strstr(bytes, text) != NULL;
    free(bytes);
    return found;
}

static Json *json_of_run(const char *arguments)
{
    char path[512], *bytes = NULL, all[512];
    size_t size = 0;
    snprintf(all, sizeof all, "--quick --out '%s' %s", directory, arguments);
    int status = run(all);
    EXPECT(status == 0, "bench %s: exit status %d", all, status);
    snprintf(path, sizeof path, "%s/bench.json", directory);
    if (!file_read(path, 1 << 20, &bytes, &size, error, sizeof error)) return NULL;
    Json *json = json_parse(bytes, size, error, sizeof error);
    free(bytes);
    return json;
}

static double number(const Json *object, const char *key)
{
    double value = -1;
    bool found = json_get_number(object, key, &value, error, sizeof error);
    EXPECT(found, "%s", error);
    return value;
}

// 2 m n k for each product, 2 D for each head and pair in both products of attention; in[], out[]: the four linears of a block.
typedef struct Flops { double forward, dgrad, wgrad; } Flops;

static Flops formula(const Json *shape, unsigned adapted, int r)
{
    double L = number(shape, "n_layer"), C = number(shape, "n_embd"), V = number(shape, "vocab_size");
    double T = number(shape, "block_size"), B = number(shape, "batch_size");
    double N = B * T, in[4] = { C, C, C, 4 * C }, out[4] = { 3 * C, C, 4 * C, C };
    double pairs = L * B * T * (T + 1) / 2, attention = 2 * pairs * 2 * C; // q k and p v over all heads: C numbers a pair, each
    double head = 2 * N * C * V;
    Flops f = { head + attention, head + 2 * attention, adapted ? 0 : head };
    for (int block = 0; block < (int)L; block++)
        for (int k = 0; k < 4; k++) {
            double base = 2 * N * in[k] * out[k], adapter = adapted & 1u << k ? 2 * N * r * (in[k] + out[k]) : 0;
            f.forward += base + adapter;
            f.wgrad += adapted ? adapter : base;
            // through the lowest adapted layer's own input nothing passes: no one below trains
            bool needed = !adapted || block > 0 || k > 0;
            f.dgrad += needed ? base + adapter : adapter > 0 ? 2 * N * r * out[k] : 0;
        }
    return f;
}

static void expect_flops(const char *name, const Json *run_, Flops f)
{
    const Json *phases = json_get(run_, "phases");
    double forward = number(json_get(phases, "forward"), "flops"), dgrad = number(json_get(phases, "dgrad"), "flops");
    double wgrad = number(json_get(phases, "wgrad"), "flops");
    EXPECT(forward == f.forward, "%s: forward %.0f, by the formula %.0f", name, forward, f.forward);
    EXPECT(dgrad == f.dgrad, "%s: dgrad %.0f, by the formula %.0f", name, dgrad, f.dgrad);
    EXPECT(wgrad == f.wgrad, "%s: wgrad %.0f, by the formula %.0f", name, wgrad, f.wgrad);
    EXPECT(number(run_, "flops") == forward + dgrad + wgrad, "%s: in all %.0f", name, number(run_, "flops"));
}

static const struct { const char *shape, *key; unsigned adapted; } runs[] = {
    { "small", "full", 0 }, { "small", "lora_c_attn", 1 }, { "small", "lora_all", 15 }, { "large", "full", 0 },
};

TEST(flops_and_keys)
{
    Json *json = json_of_run("--threads 2");
    EXPECT(json != NULL, "%s", error);
    if (json == NULL) return;
    for (int i = 0; i < 4; i++) {
        const Json *shape = json_get(json, runs[i].shape), *r = json_get(shape, runs[i].key), *phases = json_get(r, "phases");
        EXPECT(r != NULL && phases != NULL, "there is no %s.%s with phases", runs[i].shape, runs[i].key);
        if (phases == NULL) continue;
        expect_flops(runs[i].key, r, formula(shape, runs[i].adapted, 8));
        double ms = number(r, "ms"), least = number(r, "ms_least"), share = number(r, "percent_of_peak"), sum = 0;
        EXPECT(least > 0 && least <= ms, "%s: %g ms, at least %g", runs[i].key, ms, least);
        EXPECT(share > 0 && share < 100, "%s: %g %% of the peak", runs[i].key, share);
        EXPECT(number(r, "mallocs") == 0, "%s: %g buffers asked of the system", runs[i].key, number(r, "mallocs"));
        double bytes = number(r, "peak_bytes"), predicted = number(r, "predicted_bytes");
        EXPECT(bytes == predicted, "%s: %.0f bytes, predicted %.0f", runs[i].key, bytes, predicted);
        EXPECT(number(r, "ratio_one_thread") > 0 && number(r, "ratio_full") > 0, "%s: ratios", runs[i].key);
        for (const Json *phase = phases->child; phase != NULL; phase = phase->next) sum += number(phase, "ms");
        EXPECT(sum > 0, "%s: %g ms in phases", runs[i].key, sum);
    }
    parallel_set_threads(2); // the plain build has one
    EXPECT(number(json, "threads") == parallel_threads(), "%g threads", number(json, "threads"));
    EXPECT(number(json_get(json, "peak_gflops_per_second"), "all_threads") > 0.01, "no peak");
    EXPECT(number(json_get(json, "memory_gb_per_second"), "one_thread") > 0.01, "no bandwidth");
    EXPECT(number(json_get(json, "sampling"), "characters_per_second") > 0, "no sampling");
    EXPECT(number(json_get(json, "handshake"), "us") > 0 && number(json_get(json, "handshake"), "us_waking") > 0, "no handshake");
    const Json *slow = json_get(json, "slow_rounds"), *target = json_get(json_get(json, "targets"), "full_bytes");
    EXPECT(number(slow, "of_small") == 2 && number(slow, "small") >= 0 && number(slow, "small") <= 2, "slow rounds");
    double asked = number(target, "target"), bytes = number(json_get(json_get(json, "small"), "full"), "peak_bytes");
    EXPECT(number(target, "measured") == bytes && asked == 29e6, "a target of %g bytes: measured %g", asked, number(target, "measured"));
    bool met = false;
    EXPECT(json_get_bool(target, "met", &met, error, sizeof error) && met, "%.0f bytes are not below %.0f, or: %s", bytes, asked, error);
    EXPECT(number(json_get(json_get(json, "story"), "naive"), "gflops_per_second") > 0, "no story");
    json_free(json);
}

// There is an object of that key which says why something was skipped, with this text in it.
static void expect_skipped(const Json *object, const char *key, const char *text)
{
    const char *why = "";
    bool skipped = json_get_string(json_get(object, key), "skipped", &why, error, sizeof error);
    EXPECT(skipped, "%s: %s", key, error);
    EXPECT(strstr(why, text) != NULL, "%s: skipped because: %s, not: %s", key, why, text);
}

// One that is not there is skipped with its reason, in the tables and in the JSON; nothing else breaks.
TEST(others_are_skipped)
{
    Json *json = json_of_run("--python /nowhere/python3 --jax /nowhere/jax --llmc /nowhere/llmc");
    const Json *peers = json_get(json, "peers");
    bool compare = sizeof(real) == sizeof(float);
    expect_skipped(peers, "torch", compare ? "/nowhere/python3" : "this is a build in double");
    expect_skipped(peers, "torch_full", "");
    expect_skipped(peers, "torch_products", "");
    expect_skipped(peers, "torch_products_large", "");
    expect_skipped(peers, "jax_full", compare ? "/nowhere/jax" : "this is a build in double");
    expect_skipped(peers, "torch_bf16", "");
    expect_skipped(peers, "llmc_full", compare ? "/nowhere/llmc" : "this is a build in double");
    expect_skipped(json, "text", "DATA=FILE");
    EXPECT(printed("skipped: "), "no line that says so");
    json_free(json);
}

// A peer that is not the same model is found out, and one that ends in the middle does no harm.
TEST(others_are_checked)
{
    if (sizeof(real) != sizeof(float)) { EXPECT(true, "in double, no peer is started"); return; }
    char path[512], arguments[640];
    snprintf(path, sizeof path, "%s/fake", directory);
    const char *fake = "#!/bin/sh\necho a line that means nothing\necho ready fake\nwhile read word kind; do\n"
                       "  case $word$kind in\n    openfull) echo loss 1 2 3 4 ;;\n    opencompile) exit 0 ;;\n"
                       "    *) echo skipped nothing ;;\n  esac\ndone\n";
    EXPECT(file_write_all(path, fake, strlen(fake), error, sizeof error), "%s", error);
    snprintf(arguments, sizeof arguments, "--python /bin/sh --peer '%s'", path);
    Json *json = json_of_run(arguments);
    const Json *peers = json_get(json, "peers");
    expect_skipped(peers, "torch_full", "not the same model");
    expect_skipped(peers, "torch_compile", "it ended");
    json_free(json);
}

TEST(wrong_usage)
{
    EXPECT(run("--no-such-option") == 2, "an unknown option");
    EXPECT(printed("no such option"), "what was wrong");
    EXPECT(run("--threads 0") == 2 && run("word") == 2, "no threads; a word");
    EXPECT(run("--data /nowhere/text") == 1 && printed("/nowhere/text"), "a text that is not there");
}

int main(int argc, char **argv)
{
    (void)argc;
    static char path[512], template[] = "/tmp/meltwater-bench-XXXXXX";
    const char *slash = strrchr(argv[0], '/');
    snprintf(path, sizeof path, "%.*sbench/bench", slash ? (int)(slash - argv[0] + 1) : 0, argv[0]);
    program = path;
    directory = mkdtemp(template);
    if (directory == NULL) { printf("cannot make a directory below /tmp\n"); return 1; }
    RUN(flops_and_keys);
    RUN(others_are_skipped);
    RUN(others_are_checked);
    RUN(wrong_usage);
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    if (system(command) != 0) printf("cannot remove %s\n", directory);
    return test_summary();
}
