#!/bin/sh
# The tutorial's programs: each ```c block is compiled, run, and what it prints compared with the ``` block after it.

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0

awk -v dir="$dir" '
    /^```c$/   { n++; kind = "c"; next }
    /^```$/ && kind == "" && wait { kind = "txt"; wait = 0; next }
    /^```/     { if (kind == "c") wait = 1; kind = kind == "" ? "other" : ""; next }
    kind == "c" || kind == "txt" { print > (dir "/" n "." kind) }
' TUTORIAL.md

for program in "$dir"/*.c; do
    [ -f "$program" ] || break
    base=${program%.c}
    if ${CC:-cc} -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -ffp-contract=fast -I. "$program" tensor.c parallel.c matmul.c autograd.c lora.c -o "$base" -lm -lpthread &&
        "$base" > "$base.out" && diff "$base.txt" "$base.out"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL program ${base##*/} of TUTORIAL.md does not print what stands below it"
    fi
done

[ $passed -gt 0 ] || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
