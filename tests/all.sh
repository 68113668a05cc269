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

# Threads and what they share: the kernels, the engine, whole models.
threads_clean() {
    local dir=build/gcc-float-tsan tests
    tests="$dir/test_ops $dir/test_engine ${quick:+$dir/test_steps}"
    [ -n "$quick" ] || tests="$tests $dir/test_model"
    make -s CC=gcc TSAN=1 $tests && TSAN_OPTIONS='halt_on_error=1' sh tests/run.sh $tests
}

# In float all tests, in double those of the book.
memory_clean() {
    local dir=build/gcc-float-sanitize tests
    if [ -n "$quick" ]; then
        tests="$dir/test_ops $dir/test_engine $dir/test_peft $dir/test_steps $dir/test_formats"
        make -s CC=gcc SANITIZE=1 $tests programs && BIN=$dir sh tests/run.sh $tests tests/test_programs.sh
        return
    fi
    make -s CC=gcc SANITIZE=1 tests programs &&
        make -s CC=gcc SANITIZE=1 REAL=double build/gcc-double-sanitize/test_ops build/gcc-double-sanitize/test_engine build/gcc-double-sanitize/test_steps &&
        BIN=build/gcc-float-sanitize sh tests/run.sh build/gcc-float-sanitize/test_* build/gcc-double-sanitize/test_* tests/test_programs.sh
}

# The same answers from each compiler at each level of optimisation: four test programs for each.
every_level() {
    local cc level dir built=
    for cc in "$@"; do
        for level in 0 1 2 3; do
            dir=build/$cc-O$level
            make -s CC="$cc" OPTIMISE=-O$level BUILD=$dir $dir/test_ops $dir/test_engine $dir/test_peft $dir/test_steps || return 1
            built="$built $dir/test_ops $dir/test_engine $dir/test_peft $dir/test_steps"
        done
    done
    sh tests/run.sh $built
}

# A short training with all leaks, and four test programs; these have children that end in mid-work, so AddressSanitizer looks for their leaks.
valgrind_clean() {
    local dir=build/cc-float-portable t
    make -s PORTABLE=1 $dir/train || return 1
    [ -n "$quick" ] || make -s PORTABLE=1 $dir/test_ops $dir/test_engine $dir/test_peft $dir/test_steps || return 1
    valgrind -q --error-exitcode=9 --leak-check=full $dir/train --data README.md --out build/valgrind --threads 1 --max-iters 3 --n-layer 2 \
        --n-embd 32 --block-size 16 --batch-size 2 --eval-interval 2 > "$log.train" 2>&1 || { cat "$log.train"; return 1; }
    [ -z "$quick" ] || return 0
    for t in ops engine peft steps; do printf '#!/bin/sh\nexec valgrind -q --error-exitcode=9 %s\n' $dir/test_$t > $dir/valgrind_$t; chmod +x $dir/valgrind_$t; done
    sh tests/run.sh $dir/valgrind_*
}

every_request_fails() {
    make -s build/cc-float/test_faults && EVERY_REQUEST=1 sh tests/run.sh build/cc-float/test_faults
}

plots_drawn() { make -s plots > "$log.plots" 2>&1 && "$python" tests/test_plots.py || { cat "$log.plots"; return 1; }; }

need gcc && check "AddressSanitizer and UndefinedBehaviorSanitizer" memory_clean
need gcc && check "ThreadSanitizer: the tests that start threads" threads_clean
[ -z "$quick" ] && need gcc clang && check "gcc and clang, each at -O0, -O1, -O2 and -O3" every_level gcc clang
need valgrind && check "valgrind" valgrind_clean
[ -z "$quick" ] && check "every single allocation of the programs fails in turn" every_request_fails
need clang-tidy && check "clang-tidy" sh tests/lint.sh clang-tidy
need cppcheck && check "cppcheck" sh tests/lint.sh cppcheck
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
