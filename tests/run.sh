#!/bin/sh
# run.sh PROGRAM... - runs test programs, one line for each; shows the output of those that fail.
#
# A program ends with a line `N passed, N failed`; these are added up in the last line. One that crashes, fails without counting a
# failure, or prints no such line counts as one failure more. No test at all is a failure too.

passed=0
failed=0
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
trap 'exit 1' HUP INT TERM

for program in "$@"; do
    start=$(date +%s)
    "$program" >"$output" 2>&1
    status=$?
    seconds=$(($(date +%s) - start))
    last=$(tail -n 1 "$output")
    counts=$(printf '%s\n' "$last" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p')
    if [ -n "$counts" ]; then
        ok=${counts% *}
        bad=${counts#* }
        why=
        if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
            bad=1
            why=" (exit status $status)"
        elif [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ]; then
            bad=1
            why=" (it ran no test)"
        fi
    else
        ok=$(grep -c '^ok ' "$output")
        bad=1
        why=" (it ended early, exit status $status)"
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    if [ "$bad" -gt 0 ]; then
        cat "$output"
        printf 'FAIL %s: %d passed, %d failed%s, %d s\n' "${program##*/}" "$ok" "$bad" "$why" "$seconds"
    else
        printf 'ok   %s: %d passed, %d s\n' "${program##*/}" "$ok" "$seconds"
    fi
done

if [ $((passed + failed)) -eq 0 ]; then
    failed=1
    echo 'no test was run'
fi
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
