#!/bin/sh
# run.sh [TARGET] - runs the fuzz targets (libFuzzer, so clang is needed), each for SECONDS_EACH, or RUNS times, JOBS at once;
# with an argument only that one. BIN: where their programs, train and adapter are; WORK: where inputs are kept, and those that failed;
# TARGETS: some of them; TIMEOUT: how many seconds of the clock, which runs on while a process is stopped, are called a hang.
# With REPORT=FILE the figures are written there. Ends with `N passed, N failed`.

export BIN="${BIN:?}" WORK="${WORK:-build/fuzz}" TIMEOUT="${TIMEOUT:-60}"
here=$(dirname "$0")

row() { printf '%-12s %7s %12s %9s %9s %7s %7s %8s  %s\n' "$@"; }

# The line of a target in the table; what libFuzzer says is in WORK/TARGET.log.
fuzz() {
    target=$1
    corpus="$WORK/corpus/$target"
    mkdir -p "$corpus" "$WORK/found" || return 1
    if [ -n "$RUNS" ]; then limit="-runs=$RUNS"; else limit="-max_total_time=${SECONDS_EACH:-30}"; fi
    case $target in safetensors | config) longest=2304 ;; text) longest=256 ;; *) longest=512 ;; esac
    "$BIN/fuzz_$target" "$limit" -seed=1337 -max_len=$longest -timeout="$TIMEOUT" -rss_limit_mb=2048 -print_final_stats=1 \
        -dict="$WORK/seeds/words.dict" -artifact_prefix="$WORK/found/$target-" "$corpus" "$WORK/seeds/$target" \
        > "$WORK/$target.log" 2>&1
    status=$?
    stat() { sed -n "s/^stat::$1: *//p" "$WORK/$target.log"; }
    executions=$(stat number_of_executed_units)
    seconds=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$WORK/$target.log")
    edges=$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$WORK/$target.log" | tail -n 1)
    if [ $status -eq 0 ] && [ "${executions:-0}" -ge "${RUNS:-1}" ]; then result='no crash, leak, hang or report'
    else result="FAILED, status $status: see $WORK/$target.log"
    fi
    row "$target" $longest "${executions:-0}" "${seconds:-?}" \
        "$(stat average_exec_per_sec)" "${edges:-?}" "$(find "$corpus" -type f | wc -l)" "$(stat peak_rss_mb)" "$result"
    case $result in FAILED*)
        grep -aE 'ERROR|SUMMARY|runtime error|Test unit written|^tests/fuzz' "$WORK/$target.log" | tail -n 5 ;;
    esac
}

if [ $# -gt 0 ]; then fuzz "$1"; exit; fi
mkdir -p "$WORK" && sh "$here/seeds.sh" "$WORK/seeds" || { echo 'the seeds could not be made'; exit 1; }
table="$WORK/table"
echo "${TARGETS:-text config safetensors json tokenizer}" | xargs -n 1 -P "${JOBS:-2}" sh "$0" > "$table"
cat "$table"
failed=$(grep -c ' FAILED, ' "$table")
passed=$(grep -c ' no crash, ' "$table")
if [ -n "$REPORT" ] && [ "$failed" -eq 0 ]; then
    {
        echo "Fuzzing, by make fuzz-long at commit $(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ', with changes'):"
        echo "libFuzzer with AddressSanitizer (leaks, too) and UndefinedBehaviorSanitizer, $(clang --version | head -n 1)."
        echo "A hang is $TIMEOUT s for one input; inputs are those that reached something new."
        row target longest executions seconds 'a second' edges inputs 'peak MB' result
        sort "$table"
    } > "$REPORT"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
