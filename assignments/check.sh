#!/bin/sh
# check.sh - the proof that the course grades fairly; `make course-check` runs it, from the project's root. Ends with `N passed, N failed`.
#
#   PARTS="table handout grading archive"   some of its parts
#   TASK="L1.2 L1.3"                        these tasks alone, in seconds: stub, solution and wrong solutions
#
#   the table       each way to get it wrong is an error with file and line, and a student's body is found in any layout
#   the handout     holds no line of a solution, compiles without a warning, grades itself, and scores zero on every task without a crash
#   independence    with one solution filled in exactly that task scores, in full; with the first k, exactly those; with all, everything
#   wrong.txt       each wrong solution gets the points that stand beside it, and hears why
#   the bugs        each tree of the search for a bug compiles, and neither "always right" nor "always wrong" scores
#   Gradescope      the archive grades a submission where Gradescope puts it
set -u
only=${TASK:-}
PARTS=${PARTS:-$([ -n "$only" ] && echo grading || echo table handout grading archive)}
unset MAKEFLAGS MFLAGS MAKELEVEL STUDENT TASK TASKS SEED BUG JSON OUT STUBS EXAMPLES
CC=${CC:-cc}
export CC
. tests/ok.sh
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 1)}
seed=20 # not the one that a handout's published numbers are for
table=assignments/tasks.txt
part() { case " $PARTS " in *" $1 "*) ;; *) false ;; esac; }
points_of() { awk -v task="$1" '$1 == task { print $2 }' $table; }
sum_of() { awk -v kind="$1" 'index($1, kind) == 1 { sum += $2 } END { print sum }' $table; }

if part table; then # ---- the table, and how a body is found

# error WHERE TEXT ARGUMENT...: bodies.awk on this table refuses, at this place, with this text
bodies() { awk "$@" -f assignments/bodies.awk "$dir/tasks.txt"; }
error() {
    where=$1 text=$2
    shift 2
    if bodies "$@" > /dev/null 2> "$dir/errors"; then fail "accepted, instead of \"$text\": $(cat "$dir/tasks.txt")"
    elif grep -q "$where: .*$text" "$dir/errors"; then ok
    else fail "instead of \"$text\" at $where: $(cat "$dir/errors")"; fi
}
# row_error LINE TEXT TABLE
row_error() { printf '%s\n' "$3" > "$dir/tasks.txt"; error "tasks.txt:$1" "$2" -v mode=list; }
right="L1.1 8 assignments/chain.c chain_gradient x"
row_error 1 'write NUMBER POINTS' "L1.1 eight assignments/chain.c chain_gradient x"
row_error 1 'write NUMBER POINTS' "M1.1 8 assignments/chain.c chain_gradient x"
row_error 1 'write NUMBER POINTS' "L1.1 8 assignments/chain.c chain_gradient"
row_error 3 'write NUMBER POINTS' "# a remark
$right
L1.2 8 assignments/chain.c"
row_error 2 'task L1.1 is there twice' "$right
L1.1 8 assignments/chain.c chain_loss x"
row_error 2 'chain_gradient() is task L1.1 already' "$right
L1.2 8 assignments/chain.c chain_gradient x"
row_error 1 'there is no task' "# a remark"
printf '%s\n' "$right" "L1.2 8 assignments/chain.c no_such x" > "$dir/tasks.txt"
error 'chain.c:[0-9]*' 'no_such() is not in this file' -v mode=list
printf '%s\n' "$right" "L1.2 8 assignments/no_such.c f x" > "$dir/tasks.txt"
error 'no_such.c:0' 'cannot be read' -v mode=list
printf '%s\n' "$right" > "$dir/tasks.txt"
error 'tasks.txt:1' 'there is no task L7.7' -v mode=splice -v task=L7.7 -v from=assignments/chain.c

# body EXPECTED SOURCE: the body of chain_gradient that is taken from this source; refused LINE TEXT SOURCE: none is
body() {
    printf '%s\n' "$2" > "$dir/student.c"
    bodies -v mode=splice -v task=L1.1 -v from="$dir/student.c" > "$dir/spliced" 2> "$dir/errors" || { fail "refused: $2: $(cat "$dir/errors")"; return; }
    sed '1,/^Chain chain_gradient/d' "$dir/spliced" > "$dir/got"
    printf '{\n%s\n}\n' "$1" | cmp -s - "$dir/got" && ok || fail "from $2: $(cat "$dir/got")"
}
refused() { printf '%s\n' "$3" > "$dir/student.c"; error "student.c:$1" "$2" -v mode=splice -v task=L1.1 -v from="$dir/student.c"; }
body '    return c;' 'Chain chain_gradient(Chain c)
{
    return c;
}'
body ' return c; ' 'Chain chain_gradient(Chain c) { return c; } // on one line'
body '  return c; ' 'Chain chain_gradient(
    Chain c) {
  return c; }
int more;'
body 'if (1) {
}
return c;' 'Chain chain_gradient(Chain c); // a prototype, and a call
int f(void) { return chain_gradient(0); }
int chain_gradients(void) { return 0; }
/*
Chain chain_gradient(Chain c)
{
    an older one
*/
static Chain chain_gradient(Chain c)
{
if (1) {
}
return c;
}'
body '    x = "}" "\"}"; // }
    y = '"'}' + '\\'' + '\\\\'"'; /* }
} */ return c;' 'Chain chain_gradient(Chain c)
{
    x = "}" "\"}"; // }
    y = '"'}' + '\\'' + '\\\\'"'; /* }
} */ return c;
}'
refused 1 'chain_gradient() is not in this file' 'Chain chain_loss(Chain c) { return c; }'
refused 2 'is there twice; the first is at line 1' 'Chain chain_gradient(Chain c) { return c; }
Chain chain_gradient(Chain c) { return c; }'
refused 1 'leaves a brace open' 'Chain chain_gradient(Chain c)
{
    if (1) {
    return c;
}'
refused 1 'leaves a comment open' 'Chain chain_gradient(Chain c)
{
    return c; /*
}'
refused 3 'no preprocessor lines' 'Chain chain_gradient(Chain c)
{
  # define x y
}'
refused 3 'end in a backslash' 'Chain chain_gradient(Chain c)
{
    // \
}'
refused 3 'write braces as' 'Chain chain_gradient(Chain c)
{
    %> int f(void) <%
}'
unset -f bodies
fi
if part handout; then # ---- what stops a handout

# a task without a stub, a stub without a task, an unknown task, and a directory that is no handout
stopped() {
    text=$1
    shift
    if env "$@" OUT="$dir/refused" sh assignments/handout.sh > "$dir/out" 2>&1; then fail "handout with $*: accepted"
    elif grep -q "$text" "$dir/out"; then ok
    else fail "handout with $*: $(cat "$dir/out")"; fi
}
cp -r assignments/stubs "$dir/stubs"
rm "$dir/stubs/L2.2.c"
stopped 'lora.c:[0-9]*: task L2.2 has no stub' STUBS="$dir/stubs"
cp -r assignments/stubs/. "$dir/stubs"
touch "$dir/stubs/L9.9.c"
stopped 'L9.9.c:1: a stub without a task' STUBS="$dir/stubs"
rm "$dir/stubs/L9.9.c"
stopped 'there is no task L7.7' TASKS="L7.7"
# a stub that holds a line of a solution is found: so would be any other file
cp assignments/stubs/L1.2.c "$dir/stubs/L1.2.c"
echo '    // what about  product(dA, dY,   transposed(B), part);  then?' >> "$dir/stubs/L1.2.c"
awk -v mode=lines -f assignments/bodies.awk assignments/tasks.txt | sed -n 's/^L2.1 /    \/\/ /p' >> "$dir/stubs/L1.3.c"
stopped 'a line of the solution of task L2.1' STUBS="$dir/stubs"
rm -rf "$dir/refused"; mkdir "$dir/refused" && touch "$dir/refused/mine"
stopped 'is no handout' TASKS=L1.1
[ -f "$dir/refused/mine" ] && ok || fail "a directory that is no handout was emptied"
fi

handout=$dir/handout
if [ "$PARTS" != table ]; then
    if OUT=$handout sh assignments/handout.sh > "$dir/out" 2>&1; then ok; else fail "make handout: $(cat "$dir/out")"; finish; fi
fi
if part handout; then # ---- the handout

for name in lab3.c:predict.h stubs wrong.txt student bugs.txt ../tests/mutants ../predict.c:own_peak ../.git ../TUTORIAL.md ../notebooks ../demo.c ../fast ../tests/test_kernels.c; do
    path=$handout/assignments/${name%%:*}
    case $name in
    *:*) if grep -q "${name#*:}" "$path"; then fail "the handout's ${name%%:*} gives an answer away"; else ok; fi ;;
    *) if [ -e "$path" ]; then fail "the handout has $name"; else ok; fi ;;
    esac
done
for compiler in gcc clang; do
    command -v $compiler > /dev/null || continue
    for real in float double; do
        if make -s -C "$handout" CC=$compiler REAL=$real CFLAGS=-O0 programs > "$dir/out" 2>&1 && ! grep -q 'warning' "$dir/out"; then ok
        else fail "the handout, $compiler, $real: $(grep -m 3 -e warning -e error "$dir/out")"; fi
    done
done
if make -s -C "$handout" grade > "$dir/out" 2>&1 && grep -q "^labs  *0 of $(sum_of L)\$" "$dir/out" && grep -q "^extra  *homework  *0 of $(sum_of H)\$" "$dir/out"; then ok
else fail "make grade in the handout: $(tail -n 3 "$dir/out")"; fi
if command -v gdb > /dev/null; then
    for task in L1.1 L1.4 L1.5 L2.8 L3.1 H7; do
        if make -s -C "$handout" gdb TASK=$task GDBFLAGS='-batch' 2>&1 | grep -q '^Breakpoint 1, '; then ok; else fail "make gdb TASK=$task in the handout"; fi
    done
fi
fi

# fill TREE TASK: puts this project's solution of one task into the tree
fill() {
    file=$(awk -v task="$2" '$1 == task { print $3 }' $table)
    awk -v mode=splice -v task="$2" -v from="$file" -v into="$1/$file" -f assignments/bodies.awk $table > "$dir/filled" && cp "$dir/filled" "$1/$file"
}
# tree TO FROM: a tree that holds the files with tasks alone
tree() { mkdir -p "$1/assignments"; for file in $(awk '/^[LH]/ { print $3 }' $table | sort -u); do cp "$2/$file" "$1/$file"; done; }

if part grading; then # ---- grading, in JOBS processes

tasks=${only:-$(awk '/^[LH]/ { print $1 }' $table)}
mkdir "$dir/jobs"

# job NAME TREE SEED BUG TASKS: to be graded; job_expects NAME TASK POINTS
job() { mkdir "$dir/jobs/$1"; printf '%s\n%s\n%s\n%s\n' "$2" "$3" "$4" "$5" > "$dir/jobs/$1/what"; }
job_expects() { echo "$2 $3" >> "$dir/jobs/$1/expected"; }

job bare "$handout" $seed 1 "$only"
for task in $tasks; do job_expects bare "$task" 0; done
for task in $tasks; do
    [ -n "$(points_of "$task")" ] || { fail "TASK: there is no task $task"; finish; }
    tree "$dir/only-$task" "$handout"
    fill "$dir/only-$task" "$task"
    job "only-$task" "$dir/only-$task" $seed 1 "$only"
    for other in $tasks; do job_expects "only-$task" "$other" "$([ "$other" = "$task" ] && points_of "$task" || echo 0)"; done
done
before=$handout k=0
[ -n "$only" ] || for task in $tasks; do
    k=$((k + 1))
    tree "$dir/first-$k" "$before"
    before=$dir/first-$k
    fill "$before" "$task"
    job "first-$k" "$before" $seed 1 ""
    done_before=yes
    for other in $tasks; do
        job_expects "first-$k" "$other" "$([ $done_before = yes ] && points_of "$other" || echo 0)"
        [ "$other" != "$task" ] || done_before=no
    done
done
for s in $([ -n "$only" ] && echo 1 || echo 1 2 3 4); do
    job "reference-$s" . "$s" 1 "$only"
    for task in $tasks; do job_expects "reference-$s" "$task" "$(points_of "$task")"; done
done

# wrong.txt: a submission needs no more than the function, and of its head no more than the name
awk -v dir="$dir" -v table=$table -v only="$only" '
    BEGIN { while ((getline line < table) > 0) { split(line, field, " "); file[field[1]] = field[3]; function_of[field[1]] = field[4] } }
    function end() { if (path != "") { print "}" > path; close(path) } name = path = "" }
    /^#/ { next }
    /^$/ { end(); next }
    name == "" { name = $0; next }
    /^task: / {
        task = $2
        if (only != "" && !index(" " only " ", " " task " ")) next
        system("mkdir -p " dir "/wrong-" name "/assignments")
        path = dir "/wrong-" name "/" file[task]
        print "void " function_of[task] "()\n{" > path
        next
    }
    path == "" { next }
    /^points: / { print name, task, $2 > (dir "/wrong"); next }
    /^says: / { print substr($0, 7) > (dir "/wrong-" name "/says"); close(dir "/wrong-" name "/says"); next }
    /^\+ / { print substr($0, 3) > path }
    END { end() }
' assignments/wrong.txt
touch "$dir/wrong"
while read -r name task points; do
    job "wrong-$name" "$dir/wrong-$name" $seed 1 "$task"
    job_expects "wrong-$name" "$task" "$points"
done < "$dir/wrong"

if [ -z "$only" ]; then
[ "$(wc -l < "$dir/wrong")" -ge 30 ] && ok || fail "assignments/wrong.txt has fewer than thirty"

# a file from another system: carriage returns, tabs, and the brace on the head's line
mkdir -p "$dir/carriage/assignments"
awk '{ gsub(/    /, "\t"); printf "%s%s", $0, /^Chain chain_gradient/ ? " " : "\r\n" }' assignments/chain.c > "$dir/carriage/assignments/chain.c"
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
fi

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
if grep -l 'crashed with\|processor time\|not at its end' "$dir"/jobs/bare/out "$dir"/jobs/only-*/out "$dir"/jobs/first-*/out 2> /dev/null; then fail "a stub crashes"; else ok; fi
if [ -s /tmp/grade.json ]; then fail "a student's code could write a file"; else ok; fi

if [ -z "$only" ]; then
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
fi
fi
if part archive; then # ---- Gradescope: the archive unpacked as source/, a submission beside it, results where they are looked for

first=$(awk '/^[LH]/ { print $1 }' $table | head -n 3)
sum=0
tree "$dir/submission" "$handout"
for task in $first; do
    fill "$dir/submission" "$task"
    sum=$((sum + $(points_of "$task")))
done
if OUT=$dir/archive sh assignments/autograder.sh > "$dir/out" 2>&1; then
    mkdir -p "$dir/autograder/submission" "$dir/autograder/results"
    for task in $first; do # single files, without their directory
        cp "$dir/submission/$(awk -v task="$task" '$1 == task { print $3 }' $table)" "$dir/autograder/submission/"
    done
    cp -r "$dir/archive" "$dir/autograder/source"
    cp "$dir/autograder/source/run_autograder" "$dir/autograder/run_autograder"
    if AUTOGRADER=$dir/autograder SEED=$seed sh "$dir/autograder/run_autograder" > "$dir/out" 2>&1 &&
        grep -q "\"score\": $sum," "$dir/autograder/results/results.json" && [ "$(grep -c '"number"' "$dir/autograder/results/results.json")" -eq "$(grep -c '^[LH]' $table)" ]; then ok
    else fail "the archive does not grade: $(tail -n 3 "$dir/out")"; fi
    if command -v python3 > /dev/null; then
        if python3 -m json.tool "$dir/autograder/results/results.json" > /dev/null; then ok; else fail "results.json is no JSON"; fi
    fi
else fail "make autograder: $(cat "$dir/out")"; fi
fi
finish
