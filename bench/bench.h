// bench.h - how fast this machine can multiply and add, how much of that a training step uses, and how others do beside it.
//
// Whatever is compared takes turns in the same process, or in a child that waits on a pipe while it is not asked, so that all
// see the same machine: A B C, C B A, A B C, ... Each turn begins with one step that is not timed. A ratio is taken between two
// turns of the same round, and the median over the rounds is shown: a round that something else disturbed does not count.
// The peak is measured anew before every step of ours. Rounds in which the host was slow are thrown out, and counted: the peak was
// below nine tenths of the best, or a step of ours was kept from the cores for more than a tenth of its time. Only the
// products of PyTorch have no turn of ours: medians are divided.
//
// FLOPs are those of the formulas: 2 m n k for each matrix product, attention over T (T + 1) / 2 pairs. Elementwise work,
// padding and what is computed a second time take time and count for nothing.
//
//     machine.c      times, the peak of multiply-adds, memory
//     products.c     the story of one product, from three loops to the engine's
//     steps.c        our training
//     peers.c        other programs that do the same
//     contenders.c   all that is compared, in turn
//     targets.c      what is asked of this build, and whether it was reached
//     report.c       tables and JSON
//     main.c         options; in which order all of it is done

#ifndef BENCH_H
#define BENCH_H

#include "experiments/measure.h"
#include "io/file.h"

#include <sys/types.h>

// ------------------------------------------------------------------------------------------------------------------- machine.c

enum { MOST_SAMPLES = 256 };
typedef struct Samples { double value[MOST_SAMPLES]; int count; } Samples;

void   add(Samples *s, double value);
double middle(const Samples *s);                         // the median; 0 where nothing was measured
double least(const Samples *s);
double most(const Samples *s);
void   keep_but(Samples *s, const bool *thrown_out);     // without those samples
double ratio(const Samples *a, const Samples *b);        // the median over the rounds of a's turn by b's turn
static inline double ms(const Samples *s) { return 1e3 * middle(s); }
static inline double giga(const Samples *s) { return 1e-9 * middle(s); }

// What is going on, on stderr: a line that is rewritten on a terminal, else one for each `what`.
void progress(const char *what, int done, int total);

typedef struct Machine {
    int threads;
    Samples peak[2], bandwidth[2]; // [0] with all threads, [1] with one
    Samples handshake, waking;     // seconds of a kernel that does nothing, on all threads: at once after another; and when they sleep
} Machine;
extern Machine machine;
extern const char *const real_name;

void   use_threads(int which);                           // 0: all, 1: one
double measure_peak(void);                               // FLOP/s of the threads in use, for about two milliseconds
void   measure_machine(int rounds, bool quick);

// ------------------------------------------------------------------------------------------------------------------ products.c

// C = A B with the shape of a c_fc in forward, first as it is written on paper, then better and better.
enum { STORY = 5 };
typedef struct Chapter { const char *name, *key; Samples rate; } Chapter; // FLOP/s
extern Chapter story[STORY];
extern Samples exp_libm, exp_fast;                       // seconds for each number
void tell_story(int rounds, bool quick);

// --------------------------------------------------------------------------------------------------------------------- steps.c

// The steps go round BATCHES fixed batches; the losses of the first CHECKED are compared.
enum { BATCHES = 16, CHECKED = 4 };

typedef struct Shape { const char *name; Config config; int B; Text text; } Shape;

typedef struct Timing { // of every timed step with one number of threads
    Samples  step, optimizer, rest, phase[PHASES], op[MEASURED_OPS][PHASES];
    Measured last;            // names of ops, and FLOPs, which are those of every step
} Timing;

typedef struct Trainer {
    const Shape *shape;
    Transformer *model;
    Tape *tape;
    AdamW *optimizer;
    int *batch;
    int64_t step;
    double  loss[CHECKED];
    int64_t mallocs;          // buffers asked of the system in timed steps
    int64_t peak_bytes, predicted_bytes;
    Timing  timing[2];        // [0] with all threads, [1] with one
} Trainer;

void         shape_begin(Shape *shape);
Transformer *bench_model(const Shape *shape, const LoraConfig *lora);
// Makes the model and takes the first steps, whose losses others must reproduce. Before that, the weights, or those of the
// adapter, go to `dir` (NULL: they do not).
Trainer     *trainer_new(const Shape *shape, const LoraConfig *lora, const char *dir);
void         trainer_free(Trainer *t);
// `count` timed steps, with the peak measured before each: their times, what share of the peak they reached, that peak, and the
// share of its cores' time that the process got (1: nobody else ran on them).
typedef struct Turn { Samples seconds; double of_peak, peak, got; } Turn;
Turn         train_turn(Trainer *t, int which, int count);
void         print_step_only(const Shape *shape, int count);
// train's defaults on a text: the loss over the whole validation part, and the seconds from reading the file to that.
enum { TEXT_STEPS = 2000 };
void         train_on_text(const char *path, double *loss, double *seconds);

// --------------------------------------------------------------------------------------------------------------------- peers.c

// A program that does the same as we do, and waits at a pipe. A question is one line, the answer another:
//     open KIND            loss X X X X      of the first steps; KIND: full, compile, bf16, lora_c_attn, lora_all, large
//     step KIND COUNT      seconds S S ...   of COUNT steps, after one that is not timed; or KIND: products, products_large
//     sample COUNT         seconds S         for COUNT characters
//     bytes KIND           bytes N           the most held during a step
// or `skipped REASON`. It begins with `ready NAME`. Other lines are passed over. bench/peer.py, bench/peer_jax.py and
// bench/llmc.c are such programs.
typedef struct Peer {
    const char *key;         // in JSON
    char  name[128];         // what it calls itself; empty: it has not started
    char  why[256];          // not empty: it does not run, because
    pid_t pid;               // 0: it does not run
    int   to, from;          // pipes
    char  line[8192];        // of its answers: `filled` bytes, of which the first `taken` are done with
    int   filled, taken;
} Peer;

#define FORMAT(string, first) __attribute__((format(printf, string, first)))
FORMAT(2, 3) void peer_fails(Peer *peer, const char *format, ...);
// Starts a program whose stderr goes to the file `log`.
void peer_begin(Peer *peer, const char *const arguments[], const char *log);
// Asks, and reads up to `most` numbers. Returns how many there were; 0: `why` says why not. One that cannot do this goes on.
FORMAT(7, 8)
int  peer_ask(Peer *peer, const char *expected, double *values, int most, char *why, size_t size, const char *format, ...);
void peer_end(Peer *peer);

// What they read: llm.c's checkpoint of the model; ids [B*T] and targets [B*T] of every batch, as ints.
void write_llmc(const Transformer *model, const char *path);
void write_batches(const Shape *shape, const char *path);

// ---------------------------------------------------------------------------------------------------------------- contenders.c

typedef struct Contender {
    const char *name, *key;   // in tables; in JSON, and what a peer calls it
    Trainer *trainer;         // ours,
    Peer *peer;               // or theirs,
    const struct Contender *ours; // to be compared with this one
    int which;                // ours: with all threads (0) or with one (1)
    int count;                // in one turn
    bool samples;             // characters instead of steps
    bool products;            // a step's products alone, without attention's
    bool runs;
    char why[256];            // it does not run
    double difference[2];     // a peer's losses from ours, relative: the first, and the largest of the first CHECKED
    double tolerance;         // of them, where a peer computes in another format; 0: as float32 allows
    double bytes;             // a peer's
    Samples turns, of_peak;   // seconds of one step (or of all characters), one for each round
    Samples peak, got;        // ours, in each round: the multiply-add peak, in FLOPs a second; the share of its cores' time that it got
    double shortest;
} Contender;

enum { OURS = 6, PEERS = 8, STEPS = OURS + PEERS, LARGE_OURS = 2, LARGES = LARGE_OURS + 2, SAMPLINGS = 2, OTHERS = 11 };
extern Peer torch, jax, llm;
// Ours with all threads at an even index, and with one at the next; then the others.
extern Contender steps[STEPS], larges[LARGES], sampling[SAMPLINGS];
extern const Contender *const others[OTHERS];

void open_contenders(bool quick); // sets how long their turns are, and lets the peers build their models
void run_contenders(bool quick);

typedef struct Rounds { int all, slow; bool kept; } Rounds; // how many there were, how many were slow; kept all the same
extern Rounds step_rounds, large_rounds;

double all_step_flops(const Timing *timing);
double peak_of(const Contender *c);             // the multiply-add peak as the turns saw it, in FLOPs a second
double our_seconds(const Contender *c);         // what a peer's are held against: our step, characters, or products
double peer_ratio(const Contender *c);
double products_of_peak(const Contender *c, double seconds); // of the multiply-add peak, when these products take these seconds
const char *why_not(const Contender *c);

// ------------------------------------------------------------------------------------------------------------------- targets.c

void print_targets(void);
void json_targets(FileWriter *w); // the fields of an object

// -------------------------------------------------------------------------------------------------------------------- report.c

typedef struct Extras { double plain_ms, text_loss, text_seconds; } Extras; // a step with the naive kernel; 0: not measured
void print_report(const Extras *extras);
void write_json(const char *path, const Extras *extras);

#endif
