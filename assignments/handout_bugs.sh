#!/bin/sh
# handout_bugs.sh - writes the tree for L3.3: the project with Labs 1 and 2 solved and bug number BUG of assignments/bugs.txt in it; Lab 3
# and the homework are stubs. `make handout-bugs` runs it, from the project's root.
#
# To be released when Labs 1 and 2 are over, for it shows their solutions. Hundreds of lines say the same as in the first handout in other
# words (disguise.awk), so that a comparison of the two does not show the bug. Two such trees with different bugs, compared, would show
# both: give one number to a class. COURSE=TEXT words it anew for another term.
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
seed=$(printf '%s' "${COURSE:-}$BUG" | cksum | awk '{ print $1 % 1000 }')
for path in "$OUT"/*.c; do
    awk -v seed="$seed" -f assignments/disguise.awk "$path" > "$dir/other" && cp "$dir/other" "$path" || die "$path cannot be reworded"
    given=$OUT/assignments/given/${path##*/}
    [ ! -f "$given" ] || cp "$path" "$given"
done
echo "$OUT: bug $BUG is in it"
