#!/bin/sh
# check.sh - the proof that the course grades fairly; `make course-check` runs it, from the project's root. Ends with `N passed, N failed`.
#
#   the markers     each way to get them wrong is an error with file and line
#   the handout     holds no line of a solution, compiles without a warning, grades itself, and scores zero on every task without a crash
#   independence    with one solution filled in exactly that task scores, in full; with the first k, exactly those; with all, everything
#   wrong.txt       each wrong solution gets the points that stand beside it, and hears why
#   the bugs        each tree of the search for a bug compiles, and neither "always right" nor "always wrong" scores
#   Gradescope      the archive grades a submission where Gradescope puts it
set -u
unset MAKEFLAGS MFLAGS MAKELEVEL STUDENT TASK TASKS SEED BUG JSON OUT STUBS EXAMPLES
CC=${CC:-cc}
export CC
. tests/ok.sh
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 1)}
seed=20 # not the one that a handout's published numbers are for

# ---- the markers

# marker_error WHERE TEXT SOURCE: the source is refused, at this place, with this text
marker_error() {
    printf '%s\n' "$3" > "$dir/marked.c"
    if awk -v mode=list -f assignments/regions.awk "$dir/marked.c" > /dev/null 2> "$dir/errors"; then fail "accepted: $3"
    elif grep -q "marked.c:$1: .*$2" "$dir/errors"; then ok
    else fail "instead of \"$2\" at line $1: $(cat "$dir/errors")"; fi
}
b='// task L1.2 (8 points): x'
e='// end task'
marker_error 1 'looks like a marker' '// tsak L1.2 (8 points): x
// end task'
marker_error 1 'looks like a marker' '// task L1.2 (eight points): x
// end task'
marker_error 1 'looks like a marker' '// Task L1.2 (8 points): x
// end task'
marker_error 1 'looks like a marker' '// task L1.2: x
// end task'
marker_error 1 'looks like a marker' '/* task L1.2 (8 points): x */
// end task'
marker_error 2 'looks like a marker' "$b
// end  task"
marker_error 2 'looks like a marker' "$b
// End of task"
marker_error 2 'looks like a marker' "$b
x = 1; // end task"
marker_error 1 'has no' "$b
x = 1;"
marker_error 1 'has no' "$b
// end tsk"
marker_error 1 'without a task' "$e"
marker_error 3 'without a task' "$b
$e
$e"
marker_error 2 'begins inside task L1.2' "$b
// task L1.3 (8 points): y
$e
$e"
marker_error 3 'is there twice' "$b
$e
$b
$e"
marker_error 2 'opened outside' "$b
}
$e"
marker_error 1 'leaves a brace' "$b
if (x) {
$e"
printf '%s\n' "$b" 'x = "}"; // }' "y = '}'; /* } */" "$e" > "$dir/marked.c"
if awk -v mode=list -f assignments/regions.awk "$dir/marked.c" > /dev/null; then ok; else fail "braces in strings and comments"; fi

# a marker without a stub, a stub without a marker, an unknown task, and a directory that is no handout
refused() {
    text=$1
    shift
    if env "$@" OUT="$dir/refused" sh assignments/handout.sh > "$dir/out" 2>&1; then fail "handout with $*: accepted"
    elif grep -q "$text" "$dir/out"; then ok
    else fail "handout with $*: $(cat "$dir/out")"; fi
}
cp -r assignments/stubs "$dir/stubs"
rm "$dir/stubs/L2.2.c"
refused 'transformer.c:[0-9]*: task L2.2 has no stub' STUBS="$dir/stubs"
cp -r assignments/stubs/. "$dir/stubs"
touch "$dir/stubs/L9.9.c"
refused 'L9.9.c:1: a stub without a task' STUBS="$dir/stubs"
rm "$dir/stubs/L9.9.c"
refused 'there is no task L7.7' TASKS="L7.7"
# a stub that holds a line of a solution is found: so would be any other file
cp assignments/stubs/L1.2.c "$dir/stubs/L1.2.c"
echo '    // what about  .a = matrix(dy, O),.b = transposed(b->data,   O),  then?' >> "$dir/stubs/L1.2.c"
awk -v mode=lines -f assignments/regions.awk lora.c | sed -n 's/^L2.1 /    \/\/ /p' >> "$dir/stubs/L1.3.c"
refused 'a line of the solution of task L2.1' STUBS="$dir/stubs"
rm -rf "$dir/refused"; mkdir "$dir/refused" && touch "$dir/refused/mine"
refused 'is no handout' TASKS=L1.1
[ -f "$dir/refused/mine" ] && ok || fail "a directory that is no handout was emptied"

# ---- the handout

handout=$dir/handout
if OUT=$handout sh assignments/handout.sh > "$dir/out" 2>&1; then ok; else fail "make handout: $(cat "$dir/out")"; finish; fi
for name in lab3.c:predict.h stubs wrong.txt student bugs.txt ../tests/mutants ../predict.c:own_peak ../.git ../TUTORIAL.md ../notebooks ../demo.c; do
    path=$handout/assignments/${name%%:*}
    case $name in
    *:*) if grep -q "${name#*:}" "$path"; then fail "the handout's ${name%%:*} gives an answer away"; else ok; fi ;;
    *) if [ -e "$path" ]; then fail "the handout has $name"; else ok; fi ;;
    esac
done
for compiler in gcc clang; do
    command -v $compiler > /dev/null || continue
    for real in float double; do
        if make -s -C "$handout" CC=$compiler REAL=$real CFLAGS=-O0 programs tests > "$dir/out" 2>&1 && ! grep -q 'warning' "$dir/out"; then ok
        else fail "the handout, $compiler, $real: $(grep -m 3 -e warning -e error "$dir/out")"; fi
    done
done
if make -s -C "$handout" grade > "$dir/out" 2>&1 && grep -q '^labs  *0 of 100$' "$dir/out" && grep -q '^extra  *homework  *0 of 51$' "$dir/out"; then ok
else fail "make grade in the handout: $(tail -n 3 "$dir/out")"; fi
if command -v gdb > /dev/null; then
    for task in L1.1 L1.4 L2.8 L3.1 H7; do
        if make -s -C "$handout" gdb TASK=$task GDBFLAGS='-batch' 2>&1 | grep -q '^Breakpoint 1, '; then ok; else fail "make gdb TASK=$task in the handout"; fi
    done
fi

# ---- grading, in JOBS processes

awk -v mode=list -f assignments/regions.awk ./*.c assignments/*.c > "$dir/tasks"
tasks=$({ grep '^L' "$dir/tasks" | sort; grep '^H' "$dir/tasks" | sort; } | awk '{ print $1 }')
mkdir "$dir/jobs"

# job NAME TREE SEED BUG TASKS: to be graded; job_expects NAME TASK POINTS
job() { mkdir "$dir/jobs/$1"; printf '%s\n%s\n%s\n%s\n' "$2" "$3" "$4" "$5" > "$dir/jobs/$1/what"; }
job_expects() { echo "$2 $3" >> "$dir/jobs/$1/expected"; }
points_of() { awk -v task="$1" '$1 == task { print $2 }' "$dir/tasks"; }

# fill TREE TASK: puts this project's solution of one task into the tree
fill() {
    file=$(awk -v task="$2" '$1 == task { print $3 }' "$dir/tasks")
    awk -v mode=splice -v task="$2" -v from="$file" -f assignments/regions.awk "$1/$file" > "$1/$file.new" && mv "$1/$file.new" "$1/$file"
}
# a tree that holds the files with tasks alone
tree() { mkdir -p "$1/assignments"; for file in $(awk '{ print $3 }' "$dir/tasks" | sort -u); do cp "$2/$file" "$1/$file"; done; }

job bare "$handout" $seed 1 ""
for task in $tasks; do job_expects bare "$task" 0; done
k=0
for task in $tasks; do
    k=$((k + 1))
    tree "$dir/only-$task" "$handout"
    fill "$dir/only-$task" "$task"
    job "only-$task" "$dir/only-$task" $seed 1 ""
    tree "$dir/first-$k" "$([ $k -eq 1 ] && echo "$handout" || echo "$dir/first-$((k - 1))")"
    fill "$dir/first-$k" "$task"
    job "first-$k" "$dir/first-$k" $seed 1 ""
    done_before=yes
    for other in $tasks; do
        job_expects "only-$task" "$other" "$([ "$other" = "$task" ] && points_of "$task" || echo 0)"
        job_expects "first-$k" "$other" "$([ $done_before = yes ] && points_of "$other" || echo 0)"
        [ "$other" != "$task" ] || done_before=no
    done
done
for s in 1 2 3 4; do
    job "reference-$s" . $s 1 ""
    for task in $tasks; do job_expects "reference-$s" "$task" "$(points_of "$task")"; done
done

# wrong.txt: a submission needs no more than the markers and what is between them
awk -v dir="$dir" -v tasks="$dir/tasks" '
    BEGIN { while ((getline line < tasks) > 0) { split(line, field, " "); file[field[1]] = field[3] } }
    function end() { if (name != "") { print "// end task" > path; close(path) } name = path = "" }
    /^#/ { next }
    /^$/ { end(); next }
    name == "" { name = $0; next }
    /^task: / {
        task = $2
        system("mkdir -p " dir "/wrong-" name "/assignments")
        path = dir "/wrong-" name "/" file[task]
        print "// task " task " (1 points): x" > path
        next
    }
    /^points: / { print name, task, $2 > (dir "/wrong"); next }
    /^says: / { print substr($0, 7) > (dir "/wrong-" name "/says"); close(dir "/wrong-" name "/says"); next }
    /^\+ / { print substr($0, 3) > path }
    END { end() }
' assignments/wrong.txt
while read -r name task points; do
    job "wrong-$name" "$dir/wrong-$name" $seed 1 "$task"
    job_expects "wrong-$name" "$task" "$points"
done < "$dir/wrong"
[ "$(wc -l < "$dir/wrong")" -ge 30 ] && ok || fail "assignments/wrong.txt has fewer than thirty"

# a file from another system: carriage returns, and tabs in front of the markers
mkdir -p "$dir/carriage/assignments"
awk '{ sub(/^    \/\/ /, "\t// "); printf "%s\r\n", $0 }' assignments/chain.c > "$dir/carriage/assignments/chain.c"
job carriage "$dir/carriage" $seed 1 L1.1
job_expects carriage L1.1 "$(points_of L1.1)"

# the bugs
for bug in $(awk '/^[0-9]/ { print $1 }' assignments/bugs.txt); do
    for name in a_test_that_cannot_fail a_test_that_always_fails; do
        job "bug-$bug-$name" "$dir/wrong-$name" $seed "$bug" L3.3
        job_expects "bug-$bug-$name" L3.3 0
    done
    if BUG=$bug OUT=$dir/bugs sh assignments/handout_bugs.sh > "$dir/out" 2>&1 &&
        make -s -C "$dir/bugs" CFLAGS=-O0 programs > "$dir/out" 2>&1 && ! grep -q warning "$dir/out"; then ok
    else fail "make handout-bugs BUG=$bug: $(head -n 3 "$dir/out")"; fi
done

ls "$dir/jobs" | xargs -P "$JOBS" -I NAME sh -c '
    { read -r tree; read -r seed; read -r bug; read -r task; } < "$0/NAME/what"
    STUDENT=$tree SEED=$seed BUG=$bug TASK=$task JSON=$0/NAME/grade.json sh assignments/grade.sh > "$0/NAME/out" 2>&1 || echo "grade.sh failed" >> "$0/NAME/out"
' "$dir/jobs"

for name in $(ls "$dir/jobs"); do
    here=$dir/jobs/$name
    sed -n 's/^    { "number": "\([^"]*\)".* "score": \([0-9.]*\), "max_score".*/\1 \2/p' "$here/grade.json" 2> /dev/null > "$here/scores"
    if ! diff "$here/expected" "$here/scores" > "$here/difference"; then fail "$name: < expected, > scored: $(grep '^[<>]' "$here/difference" | head -n 6 | tr '\n' ' ') $(head -n 3 "$here/out")"
    elif [ -f "$dir/$name/says" ] && ! grep -qF -- "$(cat "$dir/$name/says")" "$here/out"; then fail "$name: the grader does not say \"$(cat "$dir/$name/says")\": $(head -n 5 "$here/out")"
    else ok; fi
done
if grep -l 'crashed with\|processor time\|not at its end' "$dir"/jobs/bare/out "$dir"/jobs/only-*/out "$dir"/jobs/first-*/out; then fail "a stub crashes"; else ok; fi
if [ -s /tmp/grade.json ]; then fail "a student's code could write a file"; else ok; fi

# the instructor's page quotes what the grader says to someone
sed -n 's/^| [^|]* | `\(.*\)` |$/\1/p' assignments/README.md > "$dir/quoted"
[ "$(wc -l < "$dir/quoted")" -ge 10 ] || fail "assignments/README.md quotes no messages"
while read -r line; do
    if cat "$dir"/jobs/*/out | grep -qF -- "$line"; then ok; else fail "assignments/README.md quotes what the grader says to nobody: $line"; fi
done < "$dir/quoted"
for target in $(sed -n 's/^make \([a-z-]*\) .*/\1/p' assignments/README.md assignments/student/README.md); do
    if make -s -n "$target" > /dev/null 2>&1; then ok; else fail "a README names \`make $target\`, which there is not"; fi
done

# another seed asks for other numbers and other shapes
SEED=1 TASK=L1.2 STUDENT=$handout JSON=$dir/1.json sh assignments/grade.sh | grep ' at \[' > "$dir/seed-1"
SEED=2 TASK=L1.2 STUDENT=$handout JSON=$dir/2.json sh assignments/grade.sh | grep ' at \[' > "$dir/seed-2"
if [ -s "$dir/seed-1" ] && ! cmp -s "$dir/seed-1" "$dir/seed-2"; then ok; else fail "the seed changes nothing"; fi

# wrong usage says so
for bad in STUDENT=/nowhere SEED=x BUG=99 TASK=L9.9; do
    if env "$bad" JSON="$dir/bad.json" sh assignments/grade.sh > /dev/null 2> "$dir/errors" || ! grep -q "${bad%%=*}" "$dir/errors"; then fail "make grade $bad: $(cat "$dir/errors")"; else ok; fi
done

# ---- Gradescope: the archive unpacked as source/, a submission beside it, results where they are looked for
if OUT=$dir/archive sh assignments/autograder.sh > "$dir/out" 2>&1; then
    mkdir -p "$dir/autograder/submission" "$dir/autograder/results"
    cp -r "$dir/archive" "$dir/autograder/source"
    cp "$dir/autograder/source/run_autograder" "$dir/autograder/run_autograder"
    cp "$dir/first-3/autograd.c" "$dir/autograder/submission/autograd.c" # one file, without its directory
    cp "$dir/first-3/assignments/chain.c" "$dir/autograder/submission/chain.c"
    if AUTOGRADER=$dir/autograder SEED=$seed sh "$dir/autograder/run_autograder" > "$dir/out" 2>&1 &&
        grep -q '"score": 28,' "$dir/autograder/results/results.json" && [ "$(grep -c '"number"' "$dir/autograder/results/results.json")" -eq "$(wc -l < "$dir/tasks")" ]; then ok
    else fail "the archive does not grade: $(tail -n 3 "$dir/out")"; fi
    if command -v python3 > /dev/null; then
        if python3 -m json.tool "$dir/autograder/results/results.json" > /dev/null; then ok; else fail "results.json is no JSON"; fi
    fi
else fail "make autograder: $(cat "$dir/out")"; fi
finish
