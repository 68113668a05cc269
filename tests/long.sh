#!/usr/bin/env bash
# long.sh - what `make test-long` runs: all mutants, the long run, coverage of the book, fuzzing. Its report, with the commit that
# it belongs to, goes to tests/REPORT.md. Ends with `N passed, N failed`.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
python=${PYTHON:-python3}
report=$log.report
commit="$(git rev-parse --short HEAD)$(git diff --quiet HEAD || echo ', with changes')"

# check, with all that it printed into the report as well
reported() {
    check "$@"
    { echo; echo "## $1"; echo; echo '```'; cat "$log"; echo '```'; } >> "$report"
}

reported "Mutants: which test notices which fault" "$python" tests/mutants.py
reported "The long run: 40,000 steps with 1, 2 and 3 threads" make -s long-run
reported "Coverage: lines of the book that the tests run" sh tests/coverage.sh
reported "Fuzzing: 10 million inputs for each reader of foreign files" make -s fuzz-long
{
    echo "# The last long test"
    echo
    echo "Written by \`make test-long\` at commit $commit: $passed passed, $failed failed."
    cat "$report"
} > tests/REPORT.md
summary
