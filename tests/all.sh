#!/usr/bin/env bash
# all.sh - what `make test-all` runs: sanitizers, valgrind, two compilers at each level, failing allocations, static checks,
# PyTorch and PEFT, gnuplot's drawings, a tenth of the mutants. Ends with `N passed, N failed`.
# PYTHON is an interpreter that has the packages (requirements are in tests/against_torch.py and tests/interop.py); a tool that is not
# there is skipped with a line that says so, and with REQUIRE_ALL=1 a failure. With THOROUGH=1 (about ten minutes
# more) the sanitizers and valgrind run more programs, and all levels of optimisation and every single failing allocation are tried.
# FUZZ_SECONDS=N fuzzes each reader so long instead of 30.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
python=${PYTHON:-python3} quick=$([ -n "${THOROUGH:-}" ] || echo 1)

# The test programs of the engine; those of the book that need no fast/; `in_dir DIR NAME...` puts a directory before each name.
engine="test_kernels test_fast test_quantise test_ops test_op_values test_shares test_uses test_engine test_recompute test_adamw test_steps test_micro_batches"
plain="test_kernels test_quantise test_ops test_op_values test_shares test_uses test_engine test_recompute test_adamw test_steps test_micro_batches test_peft"
in_dir() { local dir=$1; shift; printf "$dir/%s " "$@"; }

# Threads and what they share: the kernels, the engine, whole models.
threads_clean() {
    local dir=build/gcc-float-tsan tests
    tests=$(in_dir $dir $engine)
    [ -n "$quick" ] || tests="$tests $dir/test_model"
    make -s CC=gcc TSAN=1 $tests && TSAN_OPTIONS='halt_on_error=1' sh tests/run.sh $tests
}

# In float all tests, in double those of the book.
memory_clean() {
    local dir=build/gcc-float-sanitize tests
    if [ -n "$quick" ]; then
        tests=$(in_dir $dir $engine test_peft test_formats test_base_type)
        make -s CC=gcc SANITIZE=1 $tests programs && BIN=$dir sh tests/run.sh $tests tests/test_programs.sh
        return
    fi
    make -s CC=gcc SANITIZE=1 tests programs &&
        make -s CC=gcc SANITIZE=1 REAL=double $(in_dir build/gcc-double-sanitize $engine) &&
        BIN=build/gcc-float-sanitize sh tests/run.sh build/gcc-float-sanitize/test_* build/gcc-double-sanitize/test_* tests/test_programs.sh
}

# The same answers from each compiler at each level of optimisation: some test programs for each.
every_level() {
    local cc level dir built=
    for cc in "$@"; do
        for level in 0 1 2 3; do
            dir=build/$cc-O$level
            make -s CC="$cc" OPTIMISE=-O$level BUILD=$dir $(in_dir $dir $engine test_peft) || return 1
            built="$built $(in_dir $dir $engine test_peft)"
        done
    done
    sh tests/run.sh $built
}

# A short training with all leaks, and some test programs; these have children that end in mid-work, so AddressSanitizer looks for their leaks.
valgrind_clean() {
    local dir=build/cc-float-portable t
    make -s PORTABLE=1 $dir/train || return 1
    [ -n "$quick" ] || make -s PORTABLE=1 $(in_dir $dir $engine test_peft) || return 1
    valgrind -q --error-exitcode=9 --leak-check=full $dir/train --data README.md --out build/valgrind --overwrite --threads 1 --max-iters 3 --n-layer 2 \
        --n-embd 32 --block-size 16 --batch-size 2 --eval-interval 2 > "$log.train" 2>&1 || { cat "$log.train"; return 1; }
    [ -z "$quick" ] || return 0
    for t in $engine test_peft; do printf '#!/bin/sh\nexec valgrind -q --error-exitcode=9 %s\n' $dir/$t > $dir/valgrind_$t; chmod +x $dir/valgrind_$t; done
    sh tests/run.sh $dir/valgrind_*
}

# The plain loops in float and double; the debug build, which knows a handle whose tensor is gone; and a tree from which fast/ was
# deleted, which builds itself of the plain loops.
plain_loops() {
    local tree=build/without-fast
    make -s PLAIN=1 $(in_dir build/cc-float-plain $plain) && make -s PLAIN=1 REAL=double $(in_dir build/cc-double-plain $plain) &&
        make -s DEBUG=1 build/cc-float-debug/test_engine || return 1
    rm -rf $tree && mkdir -p $tree && tar -cf - --exclude ./build --exclude ./fast --exclude ./.git . | tar -xf - -C $tree &&
        make -s -C $tree programs $(in_dir build/cc-float test_kernels test_engine) &&
        sh tests/run.sh $(in_dir build/cc-float-plain $plain) $(in_dir build/cc-double-plain $plain) build/cc-float-debug/test_engine \
            $(in_dir $tree/build/cc-float test_kernels test_engine)
}

every_request_fails() {
    make -s build/cc-float/test_faults && EVERY_REQUEST=1 sh tests/run.sh build/cc-float/test_faults
}

plots_drawn() { make -s plots > "$log.plots" 2>&1 && "$python" tests/test_plots.py || { cat "$log.plots"; return 1; }; }

check "the plain loops, a tree without fast/, the debug build" plain_loops
need gcc && check "AddressSanitizer and UndefinedBehaviorSanitizer" memory_clean
need gcc && check "ThreadSanitizer: the tests that start threads" threads_clean
[ -z "$quick" ] && need gcc clang && check "gcc and clang, each at -O0, -O1, -O2 and -O3" every_level gcc clang
need valgrind && check "valgrind" valgrind_clean
[ -z "$quick" ] && check "every single allocation of the programs fails in turn" every_request_fails
need clang-tidy && check "clang-tidy" sh tests/lint.sh clang-tidy
need cppcheck && check "cppcheck" sh tests/lint.sh cppcheck
check "the tutorial's recipe for an op of one's own" sh tests/test_own_op.sh
need clang && check "fuzzing" make fuzz SECONDS="${FUZZ_SECONDS:-30}"
if need "$python"; then
    check "against transformers and PEFT" "$python" tests/interop.py
    check "against PyTorch: every gradient, and fifty steps" "$python" tests/against_torch.py
    check "a tenth of the mutants" "$python" tests/mutants.py --tenth
    head -n 1 "$log" # which
fi
need gnuplot "$python" && check "gnuplot draws every plot" plots_drawn
need awk cksum xargs && check "the course grades fairly" make -s course-check
summary
