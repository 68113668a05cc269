#!/bin/sh
# grade.sh - grades a student's work; `make grade` runs it, from the project's root.
#
#   STUDENT=PATH  a tree, single files in a directory, or a .zip of either; this tree without it
#   TASK=L1.2     one task, or several; without it all of assignments/tasks.txt
#   SEED=N        other numbers and shapes (1); or NAME=TEXT and SECRET=TEXT: those of one student, which no message tells
#   BUG=N         which bug of assignments/bugs.txt the tree for L3.3 had (1)
#   JSON=FILE     where the results go, in Gradescope's form (build/grade.json): zeros at once, points at the end
#   REGIONS=DIR   where each task's function goes by itself, without comments (for grade-all)
#   CACHE=DIR     programs to be kept, for course-check
#
# For each task its function is taken from the student's file and put into the project's (splice.c), and nothing else of the student's is
# compiled. In the project that is the reference, so no task's points can depend on another's. In a handout, which has no reference, it is
# assignments/given with the student's other functions. All else is the same: what is taken and refused, how it is compiled and run, what
# is asked of it. The reference is compiled once and kept in build/grade, by a checksum of what it was made from.
set -u
umask 022
STUDENT=${STUDENT:-.} TASK=${TASK:-} SEED=${SEED:-} NAME=${NAME:-} SECRET=${SECRET:-} BUG=${BUG:-1} JSON=${JSON:-build/grade.json} CACHE=${CACHE:-} REGIONS=${REGIONS:-}
CC=${CC:-cc}
FLAGS="-std=c11 -D_POSIX_C_SOURCE=200809L -DREAL=double -DPOISON -I. -Iassignments -w" # as in judge.c
BOOK="tensor memory quantise kernels autograd ops ops_gpt recompute lora transformer adapters adamw meter" # the plain house: nothing of fast/
JUDGE="grade judge judge_kernels judge_labs sandbox lab3"
root=$(pwd)/build/grade
dir=$(mktemp -d) || exit 1
new=
trap 'rm -rf "$dir" ${new:+"$new"}' EXIT
die() { echo "grade: $*" >&2; exit 1; }

mkdir -p "$(dirname "$JSON")"
echo '{ "score": 0, "output": "The grading did not come to its end: this is what was written before it began." }' > "$JSON" || die "JSON=$JSON cannot be written"
[ -d "$STUDENT" ] || [ -f "$STUDENT" ] || die "STUDENT=$STUDENT is not there"
case $SEED in *[!0-9]*) die "SEED=$SEED is not a number" ;; esac
case $BUG in '' | *[!0-9]*) die "BUG=$BUG is not a number" ;; esac
mkdir -p "$root" && chmod 700 "$root" || exit 1
given=.
[ ! -d assignments/given ] || given=assignments/given
compiler=$(command -v "$CC") || die "CC=$CC: there is no such compiler"
bodies() { awk "$@" -f assignments/bodies.awk assignments/tasks.txt; }

bodies -v mode=table > "$dir/all" || die "assignments/tasks.txt is not in order"
if [ -z "$TASK" ]; then cp "$dir/all" "$dir/tasks"; else
    for task in $TASK; do grep "^$task " "$dir/all" || die "TASK: there is no task $task; make tasks lists them"; done > "$dir/tasks" || exit 1
fi
files=$(awk '{ print $3 }' "$dir/all" | sort -u)
sh assignments/collect.sh "$STUDENT" "$dir/student" $files && chmod 700 "$dir/student" || exit 1

# settle NEW PLACE: unless somebody else was first
settle() { if [ -d "$2" ]; then rm -rf "$1"; else mv "$1" "$2" 2> /dev/null || [ -f "$2/ready" ] || die "$2 cannot be made"; fi; }
# object FROM TO [OPTION]: compiles, or says why not
object() { $CC $FLAGS ${3:-} -c -x c "$1" -o "$2" 2> "$dir/errors"; }

# tools: what neither the reference nor the student's work is needed for
tools=$root/tools-$( { echo "$compiler $FLAGS"; for f in $JUDGE splice; do cat "assignments/$f.c"; done; cat ./*.h assignments/*.h tests/gradcheck.h; for f in $BOOK predict; do cat "$given/$f.c" 2> /dev/null || cat $f.c; done; } | cksum | tr ' ' -)
if [ ! -f "$tools/ready" ]; then
    new=$(mktemp -d "$root/new.XXXXXX") || exit 1
    $CC $FLAGS -O1 assignments/splice.c -o "$new/splice" 2> "$dir/errors" || { cat "$dir/errors" >&2; die "splice.c does not compile"; }
    list=
    for f in $JUDGE; do list="$list assignments/$f.c"; done
    for f in $BOOK predict; do if [ -f "$given/$f.c" ]; then list="$list $given/$f.c"; else list="$list $f.c"; fi; done
    for f in $list; do
        o=$new/$(basename "$f" .c).o
        object "$f" "$o" -O2 || { cat "$dir/errors" >&2; die "$f does not compile"; }
    done
    $CC "$new"/*.o -o "$new/grade" -lm -lpthread 2> "$dir/errors" || { cat "$dir/errors" >&2; die "the judge does not link"; }
    rm -f "$new"/*.o
    echo 'int main(void) { return 0; }' > "$new/try.c"
    : > "$new/static"
    if $CC -static "$new/try.c" -o "$new/try" -lm 2> /dev/null; then echo --static > "$new/static"; fi
    if $CC -static -fuse-ld=gold "$new/try.c" -o "$new/try" -lm 2> /dev/null && "$new/try"; then echo --gold >> "$new/static"; fi # a third faster
    touch "$new/ready"
    settle "$new" "$tools"
fi
if [ -n "${EXAMPLES:-}" ]; then "$tools/grade" --examples; exit; fi
if [ -n "${ESCAPE:-}" ]; then chmod 711 "$dir"; "$tools/grade" --work "$dir" ${ESCAPE_LINKED:-} --escape "$ESCAPE"; exit; fi

# splice TASK FUNCTION FILE BASE TO: the student's function in a file of the project; false with one line in $dir/errors
splice() {
    if [ ! -f "$dir/student/$3" ]; then
        reason=$(awk -F '\t' -v file="$3" '$1 == file || $1 == "*" { print ($1 == file ? file " " : "") $2; exit }' "$dir/student/refused")
        echo "${reason:-$3 is not there}" > "$dir/errors"
        return 1
    fi
    "$tools/splice" "$2" "$dir/student/$3" "$4" "$3" > "$5" 2> "$dir/errors"
}

# The engine's files: whole/FILE, and alone/FILE with stubs for the kernels of other tasks.
mkdir -p -m 700 "$dir/whole" "$dir/alone" "$dir/spliced" && mkdir "$dir/whole/assignments" "$dir/alone/assignments" "$dir/work"
grads=$(awk '$4 ~ /grad/ { printf "%s ", $1 }' "$dir/all")
for file in $files; do
    if [ "$given" = . ]; then
        cp "$file" "$dir/whole/$file"
        bodies -v mode=stub -v into="$file" -v stubs=assignments/stubs -v tasks="$grads" > "$dir/alone/$file" || die "$file"
    else # with what the student has done, as far as it compiles
        cp "$given/$file" "$dir/whole/$file"
        cp "$given/$file" "$dir/alone/$file"
        awk -v file="$file" '$3 == file { print $1, $4 }' "$dir/all" > "$dir/of_file"
        while read -r task function; do
            splice "$task" "$function" "$file" "$dir/whole/$file" "$dir/more" && object "$dir/more" "$dir/more.o" || continue
            cp "$dir/more" "$dir/whole/$file"
            case $function in *grad*) ;; *) splice "$task" "$function" "$file" "$dir/alone/$file" "$dir/more" && cp "$dir/more" "$dir/alone/$file" ;; esac
        done < "$dir/of_file"
    fi
done
base=$root/base-$( { echo "$compiler $FLAGS"; cat assignments/grade.sh ./*.h assignments/*.h assignments/runner.c assignments/bytes_runner.c tests/gradcheck.h; for f in $BOOK; do cat $f.c; done
    for f in $files; do cat "$dir/whole/$f" "$dir/alone/$f"; done; } | cksum | tr ' ' -)
if [ ! -f "$base/ready" ]; then
    new=$(mktemp -d "$root/new.XXXXXX") || exit 1
    mkdir -p "$new/include/assignments" "$new/whole" "$new/alone"
    for h in ./*.h; do case $h in ./predict.h) ;; *) cp "$h" "$new/include/" ;; esac; done
    for h in bytes chain claims found; do cp assignments/$h.h "$new/include/assignments/"; done
    for f in $BOOK; do [ -f "$dir/whole/$f.c" ] || cp $f.c "$dir/whole/"; done
    for f in $BOOK assignments/chain assignments/claims assignments/found; do
        o=$(basename "$f").o
        object "$dir/whole/$f.c" "$new/whole/$o" || { cat "$dir/errors" >&2; die "$f.c does not compile"; }
        if cmp -s "$dir/whole/$f.c" "$dir/alone/$f.c" || [ ! -f "$dir/alone/$f.c" ]; then cp "$new/whole/$o" "$new/alone/$o"
        else object "$dir/alone/$f.c" "$new/alone/$o" || { cat "$dir/errors" >&2; die "$f.c does not compile with stubs"; }; fi
    done
    ar rc "$new/engine.a" "$new"/whole/*.o && ar rc "$new/alone.a" "$new"/alone/*.o || die "ar failed"
    object "$dir/whole/assignments/bytes.c" "$new/bytes.o" || { cat "$dir/errors" >&2; die "bytes.c does not compile"; }
    nm -P -g "$new/engine.a" "$new/bytes.o" 2> /dev/null | awk '$2 != "U"' > "$new/symbols"
    for f in runner bytes_runner; do object assignments/$f.c "$new/$f.o" || { cat "$dir/errors" >&2; die "$f.c does not compile"; }; done
    touch "$new/ready"
    settle "$new" "$base"
    ls -dt "$root"/base-* | tail -n +21 | while read -r old; do rm -rf "$old"; done
fi

# L3.3: right engines, and some with the bug, each compiled in several ways
bugs=$dir/no_bugs
if [ -f assignments/bugs.txt ] && grep -q '^L3.3 ' "$dir/tasks"; then
    awk -v number="$BUG" -f assignments/bug.awk assignments/bugs.txt tests/mutants/*.txt > "$dir/bug" || die "BUG=$BUG"
    buggy=$(sed -n 's/^file: //p' "$dir/bug")
    sed '/^file: /d' "$dir/bug" > "$dir/hunks"
    awk -v mode=apply -v hunks="$dir/hunks" -f assignments/bug.awk "$buggy" > "$dir/with_bug" || die "the bug does not apply"
    bugs=$root/bug-$( { echo "$base"; cat "$buggy" "$dir/with_bug"; } | cksum | tr ' ' -)
    if [ ! -f "$bugs/ready" ]; then
        new=$(mktemp -d "$root/new.XXXXXX") || exit 1
        tree=0
        for option in -O0 -O1 -O2; do
            for source in "$buggy" "$dir/with_bug"; do
                object "$source" "$new/bug-$tree.o" $option || die "the bug does not compile"
                tree=$((tree + 1))
            done
        done
        touch "$new/ready"
        settle "$new" "$bugs"
    fi
fi

while read -r task points file function title; do
    line=$(grep -n "$function(" "$file" 2> /dev/null | head -n 1)
    whole=whole
    case $function in *grad*) whole=alone ;; esac
    if splice "$task" "$function" "$file" "$dir/$whole/$file" "$dir/spliced/$task.c"; then
        source=$dir/spliced/$task.c reason=
        [ -z "$REGIONS" ] || { mkdir -p "$REGIONS" && "$tools/splice" --region "$function" "$dir/student/$file" "$given/$file" "$file" > "$REGIONS/$task.c"; }
    else source=- reason=$(head -n 1 "$dir/errors" | tr '\t' ' '); fi
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$task" "$points" "$function" "$file:${line%%:*}" "$title" "$source" "$reason"
done < "$dir/tasks" > "$dir/list" || exit 1
chmod 711 "$dir"

set -- --base "$base" --bugs "$bugs" --work "$dir/work" --cc "$compiler" $(cat "$tools/static") --json "$JSON"
[ -z "$CACHE" ] || set -- "$@" --cache "$CACHE"
if [ -n "$NAME" ] && [ -z "$SEED" ]; then set -- "$@" --name "$NAME" --secret "$SECRET"; else set -- "$@" --seed "${SEED:-1}"; fi
"$tools/grade" "$@" "$dir/list"
