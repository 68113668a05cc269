#!/bin/sh
# handout_bugs.sh - writes the tree for L3.3: the project with Labs 1 and 2 solved and bug number BUG of assignments/bugs.txt in it; Lab 3
# and the homework are stubs. `make handout-bugs` runs it, from the project's root.
#
# To be released when Labs 1 and 2 are over, for it shows their solutions. Two such trees with different bugs, compared, show both bugs:
# give one number to a class.
set -u
BUG=${BUG:-1}
OUT=${OUT:-build/handout-bugs}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
die() { echo "handout-bugs: $*" >&2; exit 1; }

awk -v number="${BUG:-1}" -f assignments/bug.awk assignments/bugs.txt tests/mutants/*.txt > "$dir/bug" || die "BUG=$BUG"
file=$(sed -n 's/^file: //p' "$dir/bug")
sed '/^file: /d' "$dir/bug" > "$dir/hunks"
OUT=$OUT TASKS=$(awk '$1 ~ /^(H|L3)/ { printf "%s ", $1 }' assignments/tasks.txt) sh assignments/handout.sh || exit 1
awk -v mode=apply -v hunks="$dir/hunks" -f assignments/bug.awk "$OUT/$file" > "$dir/with" && cp "$dir/with" "$OUT/$file" || die "the bug does not apply to $file"
echo "$OUT: bug $BUG is in it"
