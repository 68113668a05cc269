// main.c - options, and in which order it is all done. bench.h says how things are compared, and where each is.

#include "bench/bench.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

// What `PROGRAM --step-only` prints, or 0.
static double step_of(const char *program)
{
    char command[1024], answer[64] = "";
    snprintf(command, sizeof command, "'%s' --step-only 3 --threads %d", program, machine.threads);
    FILE *pipe = strchr(program, '\'') == NULL ? popen(command, "r") : NULL;
    if (pipe == NULL) return 0;
    if (fgets(answer, sizeof answer, pipe) == NULL) answer[0] = '\0';
    pclose(pipe);
    return atof(answer);
}

typedef struct Path { char text[512]; } Path;

static Path path_in(const char *dir, const char *name)
{
    Path path;
    int length = snprintf(path.text, sizeof path.text, "%s/%s", dir, name);
    if (length >= (int)sizeof path.text) die(EXIT_USAGE, "%.64s...: the name is too long", dir);
    return path;
}

typedef struct Options {
    const char *out, *python, *script, *jax, *llmc, *plain, *data;
    bool quick;
    int threads, step_only;
} Options;

static const Option bench_options[] = {
    { "out", "DIR", "out", "bench.json goes there, and below DIR/bench what the others read", TEXT_OPTION(Options, out) },
    { "python", "PROGRAM", NULL, "an interpreter with torch, and for LoRA peft: runs bench/peer.py in turn",
      TEXT_OPTION(Options, python) },
    { "peer", "FILE", "bench/peer.py", "where that is", TEXT_OPTION(Options, script) },
    { "jax", "PROGRAM", NULL, "an interpreter with jax: runs bench/peer_jax.py in turn too", TEXT_OPTION(Options, jax) },
    { "llmc", "PROGRAM", NULL, "bench/llmc.c built with llm.c: runs in turn too", TEXT_OPTION(Options, llmc) },
    { "plain", "PROGRAM", NULL, "this program built with PLAIN=1, for a step by the plain loops",
      TEXT_OPTION(Options, plain) },
    { "data", "FILE", NULL, "also trains on this text: 2000 iterations with train's defaults", TEXT_OPTION(Options, data) },
    { "threads", "N", NULL, "(one for each core)", INT_OPTION(Options, threads, 1, MAX_THREADS) },
    { "quick", NULL, NULL, "tiny shapes and few rounds: a test of this program, not of the machine",
      FLAG_OPTION(Options, quick) },
    { "step-only", "N", NULL, "prints the median milliseconds of N steps of the small shape, and nothing else",
      INT_OPTION(Options, step_only, 1, MOST_SAMPLES) },
    { 0 }
};

static const OptionTable bench_table = {
    .head = "bench: measures this machine, then training on it, in turn with others where\nthey are given",
    .rows = bench_options,
    .tail = "Example: make bench PYTHON=build/venv/bin/python"
};

static Options read_options(int argc, char **argv)
{
    Options o = { 0 };
    options_read(argc, argv, &bench_table, &o, NULL);
    if (o.threads > 0) parallel_set_threads(o.threads);
    if (o.data != NULL && access(o.data, R_OK) != 0) // not minutes later
        die(EXIT_FAILED, "--data %s: %s", o.data, strerror(errno));
    return o;
}

static Shape small = { "small", { 65, CONTEXT, 4, 4, 128, 0 }, BATCH, { .count = 0 } };
static Shape large = { "large", { 65, 256, 6, 6, 384, 0 }, 8, { .count = 0 } };

static void begin_shapes(bool quick)
{
    if (quick) {
        small.config = (Config){ 11, 16, 2, 2, 32, 0 }, small.B = 3;
        large.config = (Config){ 11, 24, 2, 3, 48, 0 }, large.B = 2;
    }
    shape_begin(&small);
    shape_begin(&large);
}

// Our models, one after the other: the ledger sees each alone. And what the others read, below `files`.
static void begin_ours(const char *files)
{
    char error[512];
    const Path small_files = path_in(files, "small"), large_files = path_in(files, "large");
    if (!file_make_directories(small_files.text, error, sizeof error) ||
        !file_make_directories(large_files.text, error, sizeof error))
        die(EXIT_FAILED, "%s", error);
    progress("our models", 0, 1);
    steps[0].trainer = steps[1].trainer = sampling[0].trainer = trainer_new(&small, NULL, small_files.text);
    steps[2].trainer = steps[3].trainer = trainer_new(&small, &on_c_attn, path_in(small_files.text, "lora_c_attn").text);
    steps[4].trainer = steps[5].trainer = trainer_new(&small, &on_all, path_in(small_files.text, "lora_all").text);
    larges[0].trainer = larges[1].trainer = trainer_new(&large, NULL, large_files.text);
    write_batches(&small, path_in(small_files.text, "batches").text);
    write_batches(&large, path_in(large_files.text, "batches").text);
}

// The others start; they build the same models when they are asked to, and wait.
static void begin_others(const Options *o, const char *files)
{
    progress("starting the others", 0, 1);
    char threads[16], B[16];
    const Path small_files = path_in(files, "small");
    const Path torch_log = path_in(files, "torch.log"), jax_log = path_in(files, "jax.log"), llmc_log = path_in(files, "llmc.log");
    snprintf(threads, sizeof threads, "%d", machine.threads);
    snprintf(B, sizeof B, "%d", small.B);
    setenv("OMP_NUM_THREADS", threads, 1);
    if (sizeof(real) != sizeof(float)) {
        peer_fails(&torch, "it computes in float, and this is a build in double");
        peer_fails(&jax, "%s", torch.why);
        peer_fails(&llm, "%s", torch.why);
        return;
    }
    if (o->python == NULL) peer_fails(&torch, "no --python given");
    else peer_begin(&torch, (const char *[]){ o->python, o->script, files, threads, NULL }, torch_log.text);
    if (o->jax == NULL) peer_fails(&jax, "not given (make bench JAX=PYTHON, an interpreter with jax)");
    else peer_begin(&jax, (const char *[]){ o->jax, "bench/peer_jax.py", files, threads, NULL }, jax_log.text);
    if (o->llmc == NULL) peer_fails(&llm, "not given (make bench LLMC=DIR, the directory of llm.c's train_gpt2.c)");
    else {
        Transformer *fresh = bench_model(&small, NULL); // our first one before its first step
        write_llmc(fresh, path_in(small_files.text, "llmc.bin").text);
        transformer_free(fresh);
        peer_begin(&llm, (const char *[]){ o->llmc, small_files.text, B, NULL }, llmc_log.text);
    }
}

int main(int argc, char **argv)
{
    program_begin("bench");
    Options o = read_options(argc, argv);
    machine.threads = parallel_threads();
    signal(SIGPIPE, SIG_IGN); // a peer that has ended is noticed when its answer is missing
    begin_shapes(o.quick);
    if (o.step_only > 0) {
        print_step_only(&small, o.step_only);
        return 0;
    }

    const Path files = path_in(o.out, "bench"), json = path_in(o.out, "bench.json");
    measure_machine(o.quick ? 1 : 5, o.quick);
    tell_story(o.quick ? 1 : 7, o.quick);
    begin_ours(files.text);
    begin_others(&o, files.text);
    open_contenders(o.quick);
    run_contenders(o.quick);
    peer_end(&torch);
    peer_end(&jax);
    peer_end(&llm);

    Extras extras = { 0 };
    progress("a step by the plain loops", 0, 1);
    if (o.plain != NULL) extras.plain_ms = step_of(o.plain);
    use_threads(0);
    if (o.data != NULL) train_on_text(o.data, &extras.text_loss, &extras.text_seconds);
    progress("done", 1, 1);

    print_report(&extras);
    write_json(json.text, &extras);
    for (int i = 0; i < OURS; i += 2) trainer_free(steps[i].trainer);
    trainer_free(larges[0].trainer);
    free(small.text.tokens);
    free(large.text.tokens);
    memory_release_pool();
    return 0;
}
