# check.sh - for scripts that add up checks; sourced. check NAME COMMAND... runs a command and takes its `N passed, N failed`, if it ends with
# such a line, else its exit status, as the result. summary prints the total, and is false if anything failed or nothing ran.

passed=0
failed=0
log=$(mktemp) || exit 1
trap 'rm -f "$log" "$log".*' EXIT

check() {
    local name=$1 status counts start=$SECONDS; shift
    echo "== $name"
    "$@" > "$log" 2>&1
    status=$?
    counts=$(tail -n 1 "$log" | sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p')
    if [ -n "$counts" ] && [ $status -eq 0 ]; then passed=$((passed + ${counts% *}))
    elif [ $status -eq 0 ]; then passed=$((passed + 1))
    else failed=$((failed + 1)); tail -n 60 "$log"; fi
    echo "$(tail -n 1 "$log") [$((SECONDS - start)) s]"
}

# A tool that is not there is no failure, unless REQUIRE_ALL says so.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" > /dev/null && continue
        echo "== $tool is not there: skipped what needs it"
        [ -z "${REQUIRE_ALL:-}" ] || failed=$((failed + 1))
        return 1
    done
}

summary() {
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ] && [ $passed -gt 0 ]
}
