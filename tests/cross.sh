#!/usr/bin/env bash
# cross.sh [TARGET...] - other systems: builds programs and tests for each target without a warning, and runs what qemu-user or
# node can run: a few tests of the book; tests/bits.c, which must print the same everywhere; and train and sample, whose files and
# text must be the same. Ends with `N passed, N failed`.
#
# The compiler is zig, of the package ziglang from PyPI (PYTHON=...: the one that has it). ALL=1 takes all targets and builds every
# test for each (seven minutes), not only those that run. What is not installed is skipped with one line.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh

cores=$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 2)
out=build/cross
mkdir -p $out
export ZIG_GLOBAL_CACHE_DIR=${ZIG_GLOBAL_CACHE_DIR:-$PWD/$out/zig}
export ZIG_LOCAL_CACHE_DIR=$ZIG_GLOBAL_CACHE_DIR
python=${PYTHON:-python3}
zig=$($python -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))' 2> /dev/null)
tests_of() { case $1 in *-wasi) echo kernels adapters ;; *) echo engine adapters ;; esac; } # those that are quick, and possible

# target, what runs its programs ("": nothing here)
targets='aarch64-macos
x86_64-windows-gnu
wasm32-wasi wasi
x86_64-freebsd
x86_64-linux-musl run
aarch64-linux-musl qemu-aarch64
arm-linux-musleabihf qemu-arm
riscv64-linux-musl qemu-riscv64
s390x-linux-musl qemu-s390x'
more='x86_64-macos
x86_64-linux-gnu run
aarch64-linux-gnu
powerpc64-linux-musl qemu-ppc64' # with ALL=1, or when asked for: what they add takes minutes
[ $# -eq 0 ] && [ -z "${ALL:-}" ] || targets="$targets
$more"

# -ffp-contract=off: no fused multiply-add, which not every machine has. All else may differ; the order of sums is that of the code.
compile() { # BUILD GOAL... with make's variables
    local build=$1; shift
    if make -k -j"$cores" PORTABLE=1 BUILD="$build" OPTIMISE='-O1 -ffp-contract=off' CFLAGS= "$@" > "$build.log" 2>&1 &&
        ! grep -q 'warning' "$build.log"; then return; fi
    grep -A 3 -E 'warning|error' "$build.log" | head -n 40
    return 1
}

goals() { # BUILD
    local name
    if [ -n "${ALL:-}" ] && [[ $1 != *-wasi && $1 != *-windows-* ]]; then printf 'tests '
    else for name in $(tests_of "$1"); do printf '%s ' "$1/test_$name"; done; fi
    printf 'programs %s' "$1/tests/bits"
}

run() { "$@"; }
wasi() { node --no-warnings tests/wasi.mjs "$@"; }

same_bits() { # COMMAND... prints the expected lines
    "$@" > "$log.bits" || return 1
    cat "$log.bits"
    cmp -s $out/bits "$log.bits"
}

# A model, an adapter on it, and what it says; both of them merged, in codes of four bits, and what that says. The directories are named alike, for adapters hold the name of their base.
little="--data LICENSE --max-iters 20 --eval-interval 10 --n-layer 1 --n-head 2 --n-embd 16 --block-size 16 --batch-size 4"
runs() { # BUILD COMMAND
    local build=$1 program=$2
    rm -rf $out/model $out/adapter $out/codes
    $program "$build/train" $little --out $out/model > "$log.train" 2>&1 &&
        $program "$build/train" --data LICENSE --max-iters 10 --eval-interval 10 --batch-size 4 --init $out/model --lora-r 2 --out $out/adapter > "$log.train" 2>&1 &&
        $program "$build/sample" --model $out/model --adapter $out/adapter --length 60 > $out/model/said 2> "$log.train" &&
        $program "$build/adapter" merge $out/adapter --base-type nf4 --out $out/codes > "$log.train" 2>&1 &&
        $program "$build/sample" --model $out/codes --length 60 > $out/codes/said 2> "$log.train" || { tail -n 5 "$log.train"; return 1; }
}

same_files() { # BUILD COMMAND
    local name bad=0
    runs "$@" || return 1
    for name in model/{config.json,model.safetensors,training_state.safetensors,tokenizer.json,said} adapter/{adapter_config.json,adapter_model.safetensors} codes/{config.json,model.safetensors,said}; do
        cmp "$out/expected/$name" "$out/$name" || bad=1
    done
    return $bad
}

expect_files() { runs "$@" && rm -rf $out/expected && mkdir $out/expected && mv $out/model $out/adapter $out/codes $out/expected; }

some_tests() { # BUILD COMMAND
    local name
    for name in $(tests_of "$1"); do $2 "$1/test_$name" || echo "$name: 0 passed, 1 failed"; done > "$log.tests" 2>&1
    grep -v '^ok' "$log.tests"
    awk '/[0-9] passed, / { sub(/^[a-z]*: /, ""); passed += $1; failed += $3 } END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 }' "$log.tests"
}

target() { # TARGET [COMMAND]
    local build=$out/$1 program=${2:-}
    # shellcheck disable=SC2046
    check "$1: programs and tests build" compile "$build" CC="$zig cc -target $1" $(goals "$build")
    [ -n "$program" ] && [ -x "$build/tests/bits" ] || return
    case $program in
        wasi) need node || return ;;
        qemu*) need "$program" || return ;;
    esac
    check "$1: the same bits after 30 steps" same_bits "$program" "$build/tests/bits"
    check "$1: the same model, adapter and text" same_files "$build" "$program"
    check "$1: tests of the book" some_tests "$build" "$program"
}

# What this machine's own compiler makes of it is what all others are held to.
check "here: programs and bits build" compile $out/here programs $out/here/tests/bits
check "here: 30 steps" $out/here/tests/bits && cp "$log" $out/bits
check "here: a model, an adapter and a text" expect_files $out/here run
if need tcc; then
    check "tcc: the plain loops build" compile $out/tcc CC=tcc PLAIN=1 OPTIMISE= programs $out/tcc/test_engine
    check "tcc: tests of the engine" $out/tcc/test_engine
fi
if [ ! -x "$zig" ]; then
    echo "== ziglang is not there (pip install ziglang, PYTHON=...): skipped all other systems"
    [ -z "${REQUIRE_ALL:-}" ] || failed=$((failed + 1))
else
    while read -r name program; do
        [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
        target "$name" "$program" < /dev/null
    done <<< "$targets"
fi
summary
