#!/bin/sh
# autograder.sh - writes what Gradescope wants: a directory with setup.sh and run_autograder at its top and the project below, and the same
# as an archive. `make autograder` runs it, from the project's root. It holds the solutions: upload it, and publish it nowhere.
#
#   SECRET=TEXT   what makes each student's seed, with the name; without it one is made up. It stands in run_autograder
#   BUG=N         which bug of assignments/bugs.txt the tree for L3.3 had (1)
set -u
OUT=${OUT:-build/autograder}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
die() { echo "autograder: $*" >&2; exit 1; }

BUG=${BUG:-1} SECRET=${SECRET:-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')}
case $SECRET in *[!A-Za-z0-9._-]*) die "SECRET: write letters, digits, . _ -" ;; esac
case $BUG in *[!0-9]*) die "BUG=$BUG is not a number" ;; esac
case $OUT in / | . | .. | "") die "OUT=$OUT: no" ;; esac
[ ! -e "$OUT" ] || [ -f "$OUT/run_autograder" ] || die "$OUT is there and is no autograder: move it away"
rm -rf "$OUT" "$OUT.zip"
mkdir -p "$OUT/assignments" "$OUT/tests/mutants" || exit 1
cp ./*.c ./*.h "$OUT/" && cp assignments/*.[ch] assignments/*.awk assignments/grade.sh assignments/collect.sh assignments/tasks.txt assignments/bugs.txt "$OUT/assignments/" &&
    cp tests/gradcheck.h "$OUT/tests/" && cp tests/mutants/*.txt "$OUT/tests/mutants/" &&
    cp -r assignments/stubs "$OUT/assignments/" && cp assignments/gradescope/setup.sh assignments/gradescope/Dockerfile "$OUT/" &&
    sed "s/^SECRET=.*/SECRET='$SECRET'/; s/^BUG=.*/BUG=$BUG/" assignments/gradescope/run_autograder > "$OUT/run_autograder" && chmod +x "$OUT/setup.sh" "$OUT/run_autograder" || die "cannot copy"
if command -v zip > /dev/null; then
    (cd "$OUT" && zip -q -r "$dir/autograder.zip" .) && mv "$dir/autograder.zip" "$OUT.zip" || die "zip failed"
elif command -v python3 > /dev/null; then
    (cd "$OUT" && python3 -m zipfile -c "$dir/autograder.zip" ./*) && mv "$dir/autograder.zip" "$OUT.zip" || die "python3 -m zipfile failed"
else
    echo "$OUT: ready; there is no zip here: make an archive of what is in it, with setup.sh at its top"
    exit
fi
echo "$OUT.zip: upload it to Gradescope"
