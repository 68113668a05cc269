#!/bin/sh
# run.sh - runs the fuzz targets (libFuzzer, so clang is needed), each for SECONDS_EACH, or RUNS times. BIN: where their programs
# and train are; WORK: where inputs are kept, and those that failed. With REPORT=FILE the figures are written there.
# TARGETS: some of them. Ends with `N passed, N failed`.

BIN=${BIN:?} WORK=${WORK:-build/fuzz} TARGETS=${TARGETS:-json safetensors config tokenizer text}
here=$(dirname "$0")
passed=0
failed=0
if [ -n "$RUNS" ]; then limit="-runs=$RUNS"; else limit="-max_total_time=${SECONDS_EACH:-30}"; fi
mkdir -p "$WORK/found" || exit 1
sh "$here/seeds.sh" "$WORK/seeds" || { echo 'the seeds could not be made'; exit 1; }
if [ -n "$REPORT" ]; then
    {
        echo 'Fuzzing, by make fuzz-long: libFuzzer with AddressSanitizer (leaks, too) and UndefinedBehaviorSanitizer,'
        echo "$(clang --version | head -n 1). A hang is 60 s for one input; inputs are those that reached something new."
        printf '%-12s %7s %12s %9s %9s %7s %7s %8s  %s\n' target longest executions seconds 'a second' edges inputs 'peak MB' result
    } > "$REPORT.new"
fi
for target in $TARGETS; do
    corpus="$WORK/corpus/$target"
    mkdir -p "$corpus"
    case $target in safetensors | config) longest=2048 ;; text) longest=256 ;; *) longest=512 ;; esac
    # shellcheck disable=SC2086
    "$BIN/fuzz_$target" $limit -seed=1337 -max_len=$longest -timeout=60 -rss_limit_mb=2048 -print_final_stats=1 \
        -dict="$WORK/seeds/words.dict" -artifact_prefix="$WORK/found/$target-" "$corpus" "$WORK/seeds/$target" \
        > "$WORK/$target.log" 2>&1
    status=$?
    stat() { sed -n "s/^stat::$1: *//p" "$WORK/$target.log"; }
    executions=$(stat number_of_executed_units)
    seconds=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$WORK/$target.log")
    edges=$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$WORK/$target.log" | tail -n 1)
    if [ $status -eq 0 ] && [ "${executions:-0}" -ge "${RUNS:-1}" ]; then
        passed=$((passed + 1))
        result='no crash, leak, hang or report'
    else
        failed=$((failed + 1))
        result="FAILED, status $status: see $WORK/$target.log"
        grep -aE 'ERROR|SUMMARY|runtime error|Test unit written|^tests/fuzz' "$WORK/$target.log" | tail -n 5
    fi
    line=$(printf '%-12s %7s %12s %9s %9s %7s %7s %8s  %s' "$target" $longest "${executions:-0}" "${seconds:-?}" \
        "$(stat average_exec_per_sec)" "${edges:-?}" "$(find "$corpus" -type f | wc -l)" "$(stat peak_rss_mb)" "$result")
    echo "$line"
    if [ -n "$REPORT" ]; then echo "$line" >> "$REPORT.new"; fi
done
if [ -n "$REPORT" ] && [ $failed -eq 0 ]; then mv "$REPORT.new" "$REPORT"; fi
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
