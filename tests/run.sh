#!/bin/sh
# run.sh PROGRAM... - runs test programs, one line for each; shows the output of those that fail. JOBS=N runs N at a time.
#
# A program ends with a line `N passed, N failed`; these are added up in the last line. One that crashes, fails without counting a
# failure, or prints no such line counts as one failure more. No test at all is a failure too.

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

if [ -z "${RESULTS:-}" ]; then
    RESULTS=$work/results # a line for each program: how many tests passed, how many failed
    export RESULTS
    : >"$RESULTS"
    [ $# -eq 0 ] || printf '%s\n' "$@" | xargs -n 1 -P "${JOBS:-1}" sh "$0"
    # a program without its line was lost on the way: a failure
    awk -v programs=$# '{ passed += $1; failed += $2 } END {
        failed += programs - NR
        if (passed + failed == 0) { failed = 1; print "no test was run" }
        printf "%d passed, %d failed\n", passed, failed
        exit failed > 0
    }' "$RESULTS"
    exit
fi

# One program. What is to be shown is printed at once, so that programs which end together do not mix their lines.
program=$1
results=$RESULTS
unset RESULTS # the program may run this script
output=$work/output
start=$(date +%s)
"$program" >"$output" 2>&1
status=$?
seconds=$(($(date +%s) - start))
last=$(tail -n 1 "$output")
counts=$(printf '%s\n' "$last" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p')
why=
if [ -n "$counts" ]; then
    ok=${counts% *}
    bad=${counts#* }
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
echo "$ok $bad" >>"$results"
if [ "$bad" -gt 0 ]; then
    printf 'FAIL %s: %d passed, %d failed%s, %d s\n' "${program##*/}" "$ok" "$bad" "$why" "$seconds" >>"$output"
    cat "$output"
else
    printf 'ok   %s: %d passed, %d s\n' "${program##*/}" "$ok" "$seconds"
fi
