#!/usr/bin/env bash
# all.sh - what `make test-all` runs: sanitizers, static checks, PyTorch and PEFT, a tenth of the mutants. Ends with `N passed, N failed`.
# PYTHON is an interpreter that has the packages (requirements are in tests/against_torch.py and tests/interop.py); a tool that is not
# there is skipped with a line that says so, and with REQUIRE_ALL=1 a failure.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
python=${PYTHON:-python3}

# Threads and what they share: the kernels, the engine, whole models.
threads_clean() {
    make -s CC=gcc TSAN=1 tests &&
        TSAN_OPTIONS='halt_on_error=1' sh tests/run.sh build/gcc-float-tsan/test_ops build/gcc-float-tsan/test_engine build/gcc-float-tsan/test_model
}

# In float; the double build differs in nothing that a sanitizer sees.
memory_clean() {
    make -s CC=gcc SANITIZE=1 tests programs &&
        BIN=build/gcc-float-sanitize sh tests/run.sh build/gcc-float-sanitize/test_* tests/test_programs.sh
}

need gcc && check "AddressSanitizer and UndefinedBehaviorSanitizer" memory_clean
need gcc && check "ThreadSanitizer" threads_clean
need clang-tidy && check "clang-tidy" sh tests/lint.sh clang-tidy
need cppcheck && check "cppcheck" sh tests/lint.sh cppcheck
need clang && check "fuzzing, 30 seconds each" make fuzz SECONDS=30
if need "$python"; then
    check "against transformers and PEFT" "$python" tests/interop.py
    check "against PyTorch: every gradient, and fifty steps" "$python" tests/against_torch.py
    check "a tenth of the mutants" "$python" tests/mutants.py --tenth
fi
need awk cksum xargs && check "the course grades fairly" make -s course-check
summary
