#!/bin/sh
# The recipe "Your own op" of TUTORIAL.md works as written: in a copy of the tree its blocks are put where the text says, step by
# step. Without the last one the tests of ops must fail, and say what is missing; with it they pass; with a wrong gradient they say
# so.

unset CC MAKELEVEL MFLAGS MAKEFLAGS
. tests/ok.sh
tree=$dir/tree
mkdir "$tree" && tar -cf - --exclude ./build --exclude ./out --exclude ./.git . | tar -xf - -C "$tree" || exit 1

# The block that TUTORIAL.md shows for FILE.
block() {
    awk -v mark="puts it there: $1 -->" '
        index($0, mark) && substr($0, length($0) - length(mark) + 1) == mark { on = 1; next }
        on == 1 && /^```c$/ { on = 2; next }
        on == 2 && /^```$/ { exit }
        on == 2' TUTORIAL.md
}

# put FILE BEFORE BLOCK: the block's lines, before the first line that matches.
put() {
    block "$3" > "$dir/block"
    [ -s "$dir/block" ] || { fail "TUTORIAL.md has no block for $3"; return; }
    awk -v before="$2" -v file="$dir/block" '
        !done && $0 ~ before { while ((getline line < file) > 0) print line; print ""; done = 1 }
        { print }' "$tree/$1" > "$dir/changed" && cp "$dir/changed" "$tree/$1"
}

ops_tests() { make -s -C "$tree" BUILD=build/own OPTIMISE=-O1 build/own/test_ops > "$dir/log" 2>&1 && "$tree/build/own/test_ops" >> "$dir/log" 2>&1; }
says() { if grep -q "$1" "$dir/log"; then ok; else fail "$2"; tail -n 5 "$dir/log"; fi; }

put ops.c '^// ---- scale' ops.c
put ops.h '^#endif' ops.h
sed 's/&mul_op,/& \&square_op,/' "$tree/ops_gpt.c" > "$dir/changed" && cp "$dir/changed" "$tree/ops_gpt.c"
if ops_tests; then fail "an op without a test passes"; else says 'square: its gradients are checked nowhere' "the message is another"; fi

put tests/op_cases.h '^static const Case cases\[\]' tests/op_cases.h
put tests/op_cases.h '^    { &scale_op' cases
if ops_tests; then ok; else fail "the recipe does not work as written"; tail -n 20 "$dir/log"; fi

sed 's/dy\[i\] \* 2 \* x\[i\]/dy[i] * x[i]/' "$tree/ops.c" > "$dir/changed" && cp "$dir/changed" "$tree/ops.c"
if ops_tests; then fail "half the gradient passes"; else says 'square, .*ratio 0.5$' "a gradient that is half is not called so"; fi
finish
