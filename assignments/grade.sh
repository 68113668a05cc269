#!/bin/sh
# grade.sh - grades a student's tree; `make grade` runs it, from the project's root.
#
#   STUDENT=DIR   the tree with the student's solutions; this tree without it
#   TASK=L1.2     one task, or several; without it all of assignments/tasks.txt
#   SEED=N        other numbers and shapes (1)
#   BUG=N         which bug of assignments/bugs.txt the tree for L3.3 had (1)
#   JSON=FILE     where the results go, in Gradescope's form (build/grade.json)
#
# For each task the body of its function in the student's file is put into this tree's file, and nothing else of the student's is
# compiled. So each program is the reference but for one solution, and no task's points can depend on another's. What is compiled is named
# after a checksum of what it was made from: the same solution is not compiled twice, and never mistaken for another.
set -u
STUDENT=${STUDENT:-.}
TASK=${TASK:-}
SEED=${SEED:-1}
BUG=${BUG:-1}
JSON=${JSON:-build/grade.json}
CC=${CC:-cc}
FLAGS="-std=c11 -D_POSIX_C_SOURCE=200809L -DREAL=double -DPOISON -I. -Iassignments -Wall -Wextra -g"
BOOK="tensor memory kernels autograd ops ops_gpt recompute lora transformer adapters adamw meter" # the plain house: nothing of fast/
root=$(pwd)/build/grade

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
die() { echo "grade: $*" >&2; exit 1; }

[ -d "$STUDENT" ] || die "STUDENT=$STUDENT is no directory"
case $SEED in '' | *[!0-9]*) die "SEED=$SEED is not a number" ;; esac
case $BUG in '' | *[!0-9]*) die "BUG=$BUG is not a number" ;; esac
mkdir -p "$root" || exit 1
bodies() { awk "$@" -f assignments/bodies.awk assignments/tasks.txt; }
bodies -v mode=list > "$dir/all" || die "assignments/tasks.txt is not in order"
if [ -z "$TASK" ]; then cp "$dir/all" "$dir/tasks"; else
    for task in $TASK; do grep "^$task " "$dir/all" || die "TASK: there is no task $task; make tasks lists them"; done > "$dir/tasks" || exit 1
fi
headers=$(cat ./*.h assignments/*.h tests/gradcheck.h | cksum | tr ' ' -)

# compiled FILE [OPTION]: sets $object; false with the compiler's words in $dir/errors
compiled() {
    object=$root/$(basename "$1" .c)-$headers-$( { echo "$CC $FLAGS ${2:-}"; cat "$1"; } | cksum | tr ' ' -).o
    [ -f "$object" ] && return
    $CC $FLAGS ${2:-} -c "$1" -o "$object.$$" 2> "$dir/errors" && mv "$object.$$" "$object"
}

# linked NAME OBJECT...: sets $program
linked() {
    name=$1
    shift
    program=$root/$name-$(echo "$*" | cksum | tr ' ' -)
    [ -f "$program" ] && return
    $CC "$@" -o "$program.$$" -lm -lpthread 2> "$dir/errors" && mv "$program.$$" "$program"
}

reference=
for file in $BOOK assignments/chain assignments/claims assignments/found assignments/runner assignments/bytes_runner; do
    compiled "$file.c" || { cat "$dir/errors" >&2; die "$file.c does not compile"; }
    reference="$reference $file:$object"
done
object_of() { for pair in $reference; do [ "${pair%%:*}" != "$1" ] || echo "${pair#*:}"; done; }

# program_with FILE SOURCE: sets $program to the reference with SOURCE in the place of FILE
program_with() {
    compiled "$2" || return 1
    replaced=$object
    case $1 in assignments/bytes) linked bytes "$(object_of assignments/bytes_runner)" "$replaced"; return ;; esac
    all=$replaced
    for pair in $reference; do
        case ${pair%%:*} in "$1" | assignments/bytes_runner | "${3:--}") ;; *) all="$all ${pair#*:}" ;; esac
    done
    linked "runner" $all ${4:-}
}

# the engine with the bug of L3.3, where this tree knows it
buggy_file=
if [ -f assignments/bugs.txt ]; then
    awk -v number="$BUG" -f assignments/bug.awk assignments/bugs.txt tests/mutants/*.txt > "$dir/bug" || die "BUG=$BUG"
    buggy_file=$(sed -n 's/^file: //p' "$dir/bug")
fi

while read -r task points file line function title; do
    place="$file:$line"
    student=$STUDENT/$file
    program=- buggy=- reason=
    if [ ! -f "$student" ]; then reason="$file is not in the student's tree"
    elif ! bodies -v mode=splice -v task="$task" -v from="$student" > "$dir/$(basename "$file")" 2> "$dir/errors"; then
        reason=$(sed "1!d; s|^$STUDENT/||" "$dir/errors")
    elif ! program_with "${file%.c}" "$dir/$(basename "$file")"; then
        program=-
        reason="it does not compile or link: $(grep -m 1 -e error -e "undefined reference" "$dir/errors" | sed "s|$dir/||")"
    fi
    if [ "$task" = L3.3 ] && [ "$program" != - ] && [ -n "$buggy_file" ]; then
        right=$program
        sed '/^file: /d' "$dir/bug" > "$dir/hunks"
        awk -v mode=apply -v hunks="$dir/hunks" -f assignments/bug.awk "$buggy_file" > "$dir/bug-$(basename "$buggy_file")" || die "the bug does not apply"
        compiled "$dir/bug-$(basename "$buggy_file")" || die "the bug does not compile"
        program_with assignments/found "$dir/found.c" "${buggy_file%.c}" "$object" || die "the bug does not link"
        buggy=$program program=$right
    fi
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$task" "$points" "$function" "$place" "$title" "$program" "$buggy" "$(echo "$reason" | tr '\t' ' ')"
done < "$dir/tasks" > "$dir/list" || exit 1

# the judge
all=
for file in assignments/grade assignments/judge assignments/judge_kernels assignments/judge_labs assignments/lab3 $BOOK predict; do
    compiled "$file.c" -O2 || { cat "$dir/errors" >&2; die "$file.c does not compile"; }
    all="$all $object"
done
linked grade $all || { cat "$dir/errors" >&2; die "grade does not link"; }
if [ -n "${EXAMPLES:-}" ]; then "$program" --examples "$SEED"; exit; fi
mkdir -p "$(dirname "$JSON")"
"$program" --seed "$SEED" --json "$JSON" "$dir/list"
