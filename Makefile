# make            the four programs: train, sample, adapter, demo (V=1: shows the commands); make help: this list
# make demo       full fine-tuning against LoRA, on built-in texts: bytes, work, time, samples (under a minute)
# make page       one web page with the engine inside: out/page.html (clang with wasm32, lld and wasi-libc, or python3 -m ziglang)
# make test       all tests that need nothing but a C compiler (under two minutes)
# make test-all   what goes beyond that: sanitizers, static checks, PyTorch, a tenth of the mutants, the
#                 course (under twenty minutes; THOROUGH=1: more of it; skips tools that are not there)
# make test-long  all mutants, 40,000 steps, coverage; writes tests/REPORT.md (under an hour)
# make cross      other systems: built with zig, and run where an emulator can (PORTING.md; ziglang from PyPI, qemu-user)
# make mutants    one fault at a time, and which test notices
# make gdb        a small full-then-LoRA step, stopped at its first gradient kernel (gdb/README.md)
# make walk       the functions of the book in the order in which a first step meets them
# make bench      how fast this machine is, and how much of it training uses (three minutes); beside PyTorch, where python3 or
#                 PYTHON=... has it, JAX (JAX=PYTHON), llm.c (LLMC=DIR) and a training on a text (DATA=FILE)
# make plots      pictures of a step, of bytes by context, of gradients and of learning, as SVG, PNG and CSV in out/plots/ (gnuplot)
# make picture    the picture in README.md, and the tapes in TUTORIAL.md
# make q01        one of the learners' questions of experiments/, measured (q02, ...); make questions: all of them
# make regret     what papers claim about LoRA, tried with five seeds (ten minutes on two cores)
#                 into experiments/regret/ and plots/; make regret-verdicts: what was found so far
# make handout    the course: a student's tree without the solutions; make grade marks one, make course-check proves that it is fair
#                 (assignments/README.md; its other targets are in assignments/course.mk)
# make fuzz       libFuzzer on every reader of foreign files (clang), SECONDS=30 each
# make fuzz-long  the same, 10 million inputs each; the figures go to tests/fuzz/report.txt
#
# REAL=double     all of it in double           PLAIN=1      the plain loops of kernels.c instead of fast/
# DEBUG=1         -O0, freed memory poisoned     PORTABLE=1   no -march=native
# MPI=1           train in several processes: mpirun -n 4 ./train (Open MPI or MPICH; PORTING.md)
# SANITIZE=1      AddressSanitizer and UndefinedBehaviorSanitizer
# Each combination builds in a directory of its own below build/.

CC ?= cc
ifdef MPI # train in several processes: io/mpi/ranks.c in the place of io/ranks.c
  CC = mpicc
  ifeq ($(shell command -v $(firstword $(CC)) 2> /dev/null),)
    $(error make MPI=1 needs an MPI and its mpicc: apt-get install openmpi-bin libopenmpi-dev, or mpich libmpich-dev)
  endif
endif
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),all)),)
ifeq ($(shell command -v $(firstword $(CC)) 2> /dev/null),)
  $(error there is no C compiler "$(firstword $(CC))" here; install gcc or clang, or name one: make CC=gcc)
endif
endif
MACROS := $(shell $(CC) -dM -E -x c /dev/null) # what the compiler defines: which one it is, and for what
PYTHON ?= $(firstword $(wildcard build/venv/bin/python) python3)
REAL = float
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wdouble-promotion
# -std=c11 alone would forbid fused multiply-add. Nothing here reads errno after a square root, or traps on a NaN; without the
# two the square root and the clamps of the exponential vectorise (gcc 12: without the second an exponential takes 3 to 5 times
# as long with 4 or 8 lanes, and 8 % longer with 16).
OPTIMISE = -O3 -ffp-contract=fast -fno-math-errno -fno-trapping-math

# gcc, left to itself, gives the two clamps of the exponential branches of their own, with a division in each: 3 times as slow.
# And it takes the loops that begin and end a tile of a product for copies of memory, and keeps the tile there: 3 % of a step.
ifeq ($(filter __clang__,$(MACROS)),)
  OPTIMISE += -fno-thread-jumps -fno-tree-loop-distribute-patterns
endif

ifndef PORTABLE
  NATIVE := $(if $(filter aarch64 arm64,$(shell uname -m)),-mcpu=native,-march=native)
  OPTIMISE += $(shell $(CC) $(NATIVE) -E -x c /dev/null > /dev/null 2>&1 && echo $(NATIVE)) # not every compiler has it
  # 512-bit registers, where there are any: the compilers prefer 256 by default
  ifneq ($(shell $(CC) -march=native -dM -E -x c /dev/null 2>/dev/null | grep -c __AVX512F__),0)
    OPTIMISE += -mprefer-vector-width=512
  endif
else
  SUFFIX := $(SUFFIX)-portable
endif
ifdef DEBUG
  OPTIMISE = -O0 -DPOISON
  SUFFIX := $(SUFFIX)-debug
endif
ifdef PLAIN
  SUFFIX := $(SUFFIX)-plain
endif
ifdef SANITIZE
  OPTIMISE += -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
  SUFFIX := $(SUFFIX)-sanitize
endif

ifdef FUZZ # for libFuzzer's targets
  OPTIMISE = -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
  SUFFIX := $(SUFFIX)-fuzz
endif
ifdef TSAN
  OPTIMISE = -O1 -fsanitize=thread
  SUFFIX := $(SUFFIX)-tsan
endif
ifdef COVERAGE
  OPTIMISE = -O1
  SUFFIX := $(SUFFIX)-coverage
endif

DEPENDENCIES = -MMD -MP
ifeq ($(filter __GNUC__,$(MACROS)),) # any other C11 compiler (tcc): no options but those that all have, and PLAIN=1
  OPTIMISE = $(if $(DEBUG),-DPOISON)
  DEPENDENCIES =
endif

# macOS and FreeBSD hide the number of cores, the bytes of memory and more from who asks for POSIX alone. Windows and WASI lack
# a part of it, and the programs that need processes.
SYSTEM = -D_POSIX_C_SOURCE=200809L -D_DARWIN_C_SOURCE -D__BSD_VISIBLE=1 -D__XSI_VISIBLE=700 $(if $(filter __LP64__,$(MACROS)),,-D_FILE_OFFSET_BITS=64)
WINDOWS = $(filter _WIN32,$(MACROS))
ifneq ($(filter _WIN32 __wasi__,$(MACROS)),)
  SYSTEM += -include io/posix.h $(if $(WINDOWS),,-D_WASI_EMULATED_SIGNAL -D_WASI_EMULATED_GETPID)
  FORKS = demo.c
endif

CFLAGS ?= -g
FLAGS = -std=c11 $(SYSTEM) -DREAL=$(REAL) $(DEFINES) -I. $(WARNINGS) $(OPTIMISE) $(CFLAGS)
LIBS = -lm $(if $(filter __wasi__,$(MACROS)),-lwasi-emulated-signal -lwasi-emulated-getpid,-lpthread)
empty =
variant = $(subst $(empty) $(empty),-,$(notdir $(CC)))-$(1)$(SUFFIX)
BUILD = build/$(call variant,$(REAL))

PROGRAMS = $(basename $(filter-out $(FORKS),$(wildcard train.c sample.c adapter.c demo.c)))
BOOK = tensor memory quantise autograd ops ops_gpt recompute lora transformer adapters adamw training generate meter predict
# kernels.c says the verbs plainly; fast/, where it is there, says them for the machine.
FAST = $(basename $(wildcard fast/*.c))
KERNELS = $(if $(PLAIN),kernels,$(or $(FAST),kernels))
IO = $(basename $(filter-out $(FORKS) $(if $(MPI),io/ranks.c),$(wildcard io/*.c)) $(if $(WINDOWS),io/windows/posix.c) $(if $(MPI),io/mpi/ranks.c))
OBJECTS = $(patsubst %,$(BUILD)/%.o,$(BOOK) $(KERNELS) $(IO))
TESTS = $(patsubst tests/%.c,$(BUILD)/%,$(filter-out $(if $(filter kernels,$(KERNELS)),tests/test_fast.c),$(wildcard tests/test_*.c)))
QUESTIONS = $(patsubst %.c,$(BUILD)/%,$(wildcard experiments/q*.c))
NUMBERS = $(foreach q,$(QUESTIONS),$(firstword $(subst _, ,$(notdir $q)))) # q01, q02, ...

# What demo, questions, plots and bench share, and the parts of the demo.
MEASURE = $(BUILD)/experiments/measure.o
SHARED = $(patsubst %.c,$(BUILD)/%.o,$(filter-out experiments/q%,$(wildcard experiments/*.c)))

FUZZERS = $(patsubst tests/fuzz/%.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
SECONDS = 30
RUNS = 10000000

.PHONY: all bench clean cross demo help fuzz fuzz-long fuzzers gdb long-run mutants page picture plots programs questions regret test test-all test-long tests walk $(NUMBERS)
.DELETE_ON_ERROR:
.SECONDARY:

# A line for each file that is compiled; V=1: the whole command; make -s: nothing.
SILENT = $(findstring s,$(firstword -$(MAKEFLAGS)))
Q = $(if $(V),,@)
say = $(if $(V)$(SILENT),,@printf '  %-5s%s\n' $(1) $(2))

all: programs
	@for p in $(PROGRAMS); do cmp -s $(BUILD)/$$p $$p || cp $(BUILD)/$$p $$p; done
	$(if $(SILENT),,@echo 'Built: $(PROGRAMS). Next: `make demo` compares full training with LoRA, `make help` lists the rest.')

programs: $(addprefix $(BUILD)/,$(PROGRAMS))

ifdef COVERAGE # of the book alone: two threads that count each turn of a product's loops take minutes for one
$(patsubst %,$(BUILD)/%.o,$(BOOK) $(BOOK:%=wrapped/%)): OPTIMISE = -O0 --coverage -fprofile-update=atomic
LIBS += --coverage
endif

ifdef SANITIZE # a number that fits no code becomes some other one without a word
$(BUILD)/quantise.o: OPTIMISE += -fsanitize=float-cast-overflow
endif

# gcc may cut the triple loop's sum into a part with multiply-adds and one without, by its length: then zeros at its end change bits
$(BUILD)/kernels.o: FLAGS += -ffp-contract=off
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(FLAGS) $(DEPENDENCIES) -c $< -o $@

# The web page: the engine, compiled to WebAssembly, and web/*.html, *.css and *.js, all in one file. The bits are those of a
# build without fused multiply-add, which WebAssembly does not have.
WASM_CC = $(or $(shell echo 'int main(void){return 0;}' | clang --target=wasm32-wasi -x c - -o /dev/null 2> /dev/null && echo clang --target=wasm32-wasi),\
               $(shell $(PYTHON) -m ziglang version > /dev/null 2>&1 && echo $(PYTHON) -m ziglang cc -target wasm32-wasi))
WASM_FLAGS = -std=c11 -D_POSIX_C_SOURCE=200809L -DREAL=float -DNO_PROCESSES -I. $(WARNINGS) -O3 -msimd128 -ffp-contract=off \
             -fno-math-errno -fno-trapping-math -ffunction-sections -fdata-sections
WASM_LINK = -mexec-model=reactor -Wl,--gc-sections -Wl,--strip-all -Wl,-z,stack-size=262144
WASM_KERNELS = $(if $(FAST),fast/product fast/rows fast/attention web/alone,kernels)
WASM_SOURCES = $(BOOK) $(WASM_KERNELS) io/text io/corpus io/json io/options io/progress io/evaluation io/machine \
               experiments/measure experiments/claims experiments/shapes experiments/tables web/lane web/main
WASM = $(WASM_SOURCES:%=build/wasm/%.o)

build/wasm/%.o: %.c
	@mkdir -p $(@D)
	$(call say,WASM,$<)
	$(Q)$(WASM_CC) $(WASM_FLAGS) -MMD -MP -c $< -o $@

build/wasm/engine.wasm: $(WASM)
	$(call say,LINK,$@)
	$(Q)$(WASM_CC) $^ $(WASM_LINK) -o $@

# Each line of page.html that is `INSERT file` becomes that file.
WEB = web/page.css web/worker.js $(wildcard web/page*.js)
out/page.html: web/page.html $(WEB) build/wasm/engine.wasm
	@mkdir -p $(@D)
	@gzip -9 -n -c build/wasm/engine.wasm | base64 | tr -d '\n' > build/wasm/engine.base64
	@awk '$$1 == "INSERT" { while ((got = (getline line < $$2)) > 0) print line; if (got < 0) { print $$2 ": cannot be read" > "/dev/stderr"; exit 1 }; next } { print }' $< > $@
	@ls -l $@ | awk '{ print "$@: " $$5 " bytes, with the engine inside; open it in a browser" }'

# What runs long is the engine: the tests' own code is built in a third of the time at -O1.
$(BUILD)/tests/%.o: FLAGS += $(if $(filter -O3,$(OPTIMISE)),-O1)

$(BUILD)/test_%: $(BUILD)/tests/test_%.o $(OBJECTS)
	$(call say,LINK,$@)
	$(Q)$(CC) $(FLAGS) $(filter-out $(INCLUDED),$^) -o $@ $(LIBS)

# The whole idea in one file, beside the book.
$(BUILD)/test_meltwater: $(BUILD)/tests/one_file.o
$(BUILD)/tests/one_file.o: FLAGS += $(if $(filter -O3,$(OPTIMISE)),-O3)

# Two tests stand in for malloc and its like, and what else wrap.h names: the files that call these are built a second time.
CALLS = malloc|calloc|realloc|aligned_alloc|strdup|free|fsync|pthread_create
CALLERS := $(basename $(shell grep -slwE '$(CALLS)' $(addsuffix .c,$(BOOK) $(KERNELS) $(IO))))
WRAPPED = $(CALLERS:%=$(BUILD)/wrapped/%.o) $(filter-out $(CALLERS:%=$(BUILD)/%.o),$(OBJECTS))
$(BUILD)/wrapped/%.o: FLAGS += -include tests/wrap.h
$(BUILD)/wrapped/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(FLAGS) $(if $(filter -O3,$(OPTIMISE)),-O1) $(DEPENDENCIES) -c $< -o $@

# Others include the one file whose calls they watch, as the fuzzers' targets do.
$(BUILD)/test_faults: INCLUDED = $(BUILD)/wrapped/training.o
$(BUILD)/test_formats: INCLUDED = $(BUILD)/io/file.o
$(BUILD)/test_peft: INCLUDED = $(BUILD)/lora.o
$(BUILD)/test_runs: INCLUDED = $(BUILD)/io/file.o $(BUILD)/io/progress.o $(BUILD)/training.o
$(BUILD)/test_faults $(BUILD)/test_bytes: $(BUILD)/test_%: $(BUILD)/tests/test_%.o $(WRAPPED)
	$(call say,LINK,$@)
	$(Q)$(CC) $(FLAGS) $(filter-out $(INCLUDED),$^) -o $@ $(LIBS)

$(BUILD)/demo $(BUILD)/short_demo $(QUESTIONS): $(SHARED)
$(BUILD)/plots/csv $(BUILD)/plots/picture: $(MEASURE) $(BUILD)/plots/flow.o
$(BUILD)/plots/picture: $(BUILD)/plots/palette.o
$(BUILD)/%: $(BUILD)/%.o $(OBJECTS)
	$(call say,LINK,$@)
	$(Q)$(CC) $(FLAGS) $^ -o $@ $(LIBS)

BENCH = $(patsubst %.c,$(BUILD)/%.o,$(filter-out bench/llmc.c,$(wildcard bench/*.c)))
$(BUILD)/bench/bench: $(BENCH) $(MEASURE) $(OBJECTS)
	$(call say,LINK,$@)
	$(Q)$(CC) $(FLAGS) $^ -o $@ $(LIBS)

# One test runs the bench.
$(BUILD)/test_bench: | $(BUILD)/bench/bench

# A target that includes a file, to reach its static functions, takes the place of that file.
$(BUILD)/fuzz_config: INCLUDED = $(BUILD)/io/state_file.o
$(BUILD)/fuzz_text: INCLUDED = $(BUILD)/io/text.o
$(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(OBJECTS)
	$(call say,LINK,$@)
	$(Q)$(CC) $(FLAGS) -fsanitize=fuzzer $(filter-out $(INCLUDED),$^) -o $@ $(LIBS)

tests: $(TESTS)

demo:
	@$(MAKE) -q --no-print-directory programs 2> /dev/null || echo 'Building the programs ...'
	@$(MAKE) -s --no-print-directory $(PARALLEL) all
	@./demo

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

page:
	@if [ -z "$(WASM_CC)" ]; then \
	    echo "make page needs a compiler for WebAssembly: apt-get install clang lld wasi-libc and the libclang-rt-...-dev-wasm32 of your clang; or pip install ziglang"; exit 1; \
	else $(MAKE) -s --no-print-directory out/page.html WASM_CC='$(WASM_CC)'; fi

# Every test in float and in double; then the programs on small texts, as a user calls them. One job for each core;
# `make -j1 JOBS=1 test`: one at a time.
JOBS = $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS))
test:
	@$(MAKE) -s $(PARALLEL) REAL=float tests programs
	@$(MAKE) -s $(PARALLEL) REAL=double tests
	@JOBS=$(JOBS) BIN=build/$(call variant,float) sh tests/run.sh build/$(call variant,float)/test_* build/$(call variant,double)/test_* \
		$(wildcard tests/test_programs.sh tests/test_gdb.sh tests/test_walk.sh)

# A small step, stopped in the debugger at its first gradient kernel (gdb/README.md). Built apart: unoptimised, the plain loop.
GDB = gdb -q
ifdef TASK # assignments/course.mk
else ifeq ($(DEBUG)$(PLAIN),11)
gdb: $(BUILD)/gdb/step
	$(GDB) -x gdb/step.gdb $(GDBFLAGS) $<
else
gdb:
	@$(MAKE) -s --no-print-directory DEBUG=1 PLAIN=1 gdb
endif

# The functions of the book in the order in which a first step meets them.
walk:
	@sh gdb/walk.sh

# llm.c's program is compiled with the options of its own Makefile.
bench: $(BUILD)/bench/bench
	$(if $(PLAIN),,@$(MAKE) -s PLAIN=1 $(BUILD)-plain/bench/bench)
	$(if $(LLMC),$(CC) -Ofast -march=native -fopenmp -DOMP -w -I'$(LLMC)' bench/llmc.c -o $(BUILD)/bench/llmc -lm)
	@$(BUILD)/bench/bench --python '$(PYTHON)' $(if $(PLAIN),,--plain $(BUILD)-plain/bench/bench) \
	    $(if $(JAX),--jax '$(JAX)') $(if $(LLMC),--llmc $(BUILD)/bench/llmc) $(if $(DATA),--data '$(DATA)')

# The CSV files come from a run of the engine; gnuplot, where there is one, draws them.
plots: $(BUILD)/plots/csv
	@mkdir -p out/plots
	@$< out/plots
	@sh plots/draw.sh out/plots

TAPES = chain guard freezing lora
picture: $(BUILD)/plots/picture $(BUILD)/plots/tape
	@$< > $(BUILD)/picture.svg
	@mv $(BUILD)/picture.svg plots/first_step.svg
	@for t in $(TAPES); do $(BUILD)/plots/tape $$t > $(BUILD)/tape.svg && mv $(BUILD)/tape.svg plots/tape_$$t.svg; done

# q07 builds and runs the one program whose name begins with q07_.
$(NUMBERS):
	@$(MAKE) -s $(filter $(BUILD)/experiments/$@_%,$(QUESTIONS))
	@$(filter $(BUILD)/experiments/$@_%,$(QUESTIONS))

questions: $(QUESTIONS)
	@sh tests/run.sh $(sort $^)

# The seeds run two at a time, each on one thread. A seed's file takes its place when it is whole.
REGRET = $(BUILD)/experiments/regret/regret
$(REGRET): $(patsubst %.c,$(BUILD)/%.o,$(wildcard experiments/regret/*.c)) $(MEASURE)

regret: $(REGRET)
	@echo 'Five seeds, two at a time: about ten minutes on two idle cores. Ctrl-C leaves the files of seeds that are not done as they were.'
	@for s in 1 2 3 4 5; do echo $$s; done | xargs -P 2 -I SEED sh -c '$< run SEED $(BUILD)/seedSEED.csv && mv $(BUILD)/seedSEED.csv experiments/regret/'
	@for c in rates where knee forget batch variants; do \
	    $< draw $$c > $(BUILD)/regret.svg && mv $(BUILD)/regret.svg plots/regret_$$c.svg || exit 1; done
	@$< table verdicts

regret-%: $(REGRET)
	@$< table $*

fuzzers: $(FUZZERS) $(BUILD)/train $(BUILD)/adapter

fuzz:
	@$(MAKE) -s CC=clang FUZZ=1 fuzzers
	@BIN=build/clang-$(REAL)-fuzz SECONDS_EACH=$(SECONDS) sh tests/fuzz/run.sh

fuzz-long:
	@$(MAKE) -s CC=clang FUZZ=1 fuzzers
	@BIN=build/clang-$(REAL)-fuzz RUNS=$(RUNS) REPORT=tests/fuzz/report.txt sh tests/fuzz/run.sh

test-all:
	@PYTHON='$(PYTHON)' bash tests/all.sh

test-long:
	@PYTHON='$(PYTHON)' bash tests/long.sh

cross:
	@PYTHON='$(PYTHON)' bash tests/cross.sh

mutants:
	@$(PYTHON) tests/mutants.py

long-run: $(BUILD)/tests/long_run
	@$<

clean:
	rm -rf build $(PROGRAMS)

-include assignments/course.mk
-include $(shell find build -name '*.d' 2>/dev/null)
