#!/bin/sh
# check.sh - the proof that the course grades fairly; `make course-check` runs it, from the project's root. Ends with `N passed, N failed`.
#
#   PARTS="table sandbox handout grading class archive"   some of its parts
#   TASK="L1.2 L1.3"                        these tasks alone, in seconds: stub, solution and wrong solutions
#
#   the table       each way to get it wrong is an error with file and line, and a student's function is found in any layout
#   the sandbox     a program that tries to get out of it can do nothing but compute
#   the handout     holds no line of a solution, compiles without a warning, names no file that it lacks, and judges as the grading does
#   independence    of any two tasks one is solved and one is not somewhere: exactly what is solved scores, in full
#   wrong.txt       each wrong solution and each attack gets the points that stand beside it, and hears why
#   fair.txt        each right solution, however it is written, gets them all
#   the bugs        each tree of the search for a bug compiles, and neither "always right" nor "always wrong" scores
#   submissions     links, folders, archives: what is taken of them; a whole class; Gradescope's archive where Gradescope puts it
set -u
only=${TASK:-}
PARTS=${PARTS:-$([ -n "$only" ] && echo grading || echo table sandbox handout grading class archive)}
unset MAKEFLAGS MFLAGS MAKELEVEL STUDENT TASK TASKS SEED NAME SECRET BUG JSON OUT STUBS EXAMPLES ESCAPE SANDBOX_WITHOUT
CC=${CC:-cc}
export CC
. tests/ok.sh
JOBS=${JOBS:-$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 1)}
seed=20
mkdir "$dir/cache"
export CACHE="$dir/cache"
$CC -std=c11 -O1 -w assignments/splice.c -o "$dir/splice" || exit 1
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

# body EXPECTED SOURCE: what is taken from this source for chain_gradient, blanks aside; refused LINE TEXT SOURCE: nothing is
body() {
    printf '%s\n' "$2" > "$dir/student.c"
    "$dir/splice" --region chain_gradient "$dir/student.c" assignments/chain.c chain.c > "$dir/got" 2> "$dir/errors" || { fail "refused: $2: $(cat "$dir/errors")"; return; }
    [ "$(printf '%s' "$1" | tr -d ' \n\t')" = "$(tr -d ' \n\t' < "$dir/got")" ] && ok || fail "from $2: $(cat "$dir/got")"
}
refused() {
    printf '%s\n' "$3" > "$dir/student.c"
    if "$dir/splice" chain_gradient "$dir/student.c" assignments/chain.c chain.c > /dev/null 2> "$dir/errors"; then fail "accepted, instead of \"$2\": $3"
    elif grep -q "^chain.c:$1: .*$2" "$dir/errors"; then ok
    else fail "instead of \"$2\" at $1: $(cat "$dir/errors")"; fi
}
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
body '    x = "}" "\"}";
    y = '"'}' + '\\'' + '\\\\'"'; return c;' 'Chain chain_gradient(Chain c)
{
    x = "}" "\"}"; // }
    y = '"'}' + '\\'' + '\\\\'"'; /* }
} */ return c;
}'
body 'return c;' 'Chain chain_gradient(Chain c) <%
    // a comment that goes on ??/
    } and on \
    }
    return c; %>'
body 'enum { TWO = 2 }; static double half(double x) ; static double half(double x) { return x / 2; } c.x = half(TWO); return c;' '#include "x.h"
int other(void) { return 1; }
double half(double x) { return x / 2; }
Chain chain_gradient(Chain c) { c.x = half(TWO); return c; }
enum { TWO = 2 };'
refused 1 'chain_gradient() is not in this file' 'Chain chain_other(Chain c) { return c; }'
refused 2 'is there twice; the first is at line 1' 'Chain chain_gradient(Chain c) { return c; }
Chain chain_gradient(Chain c) { return c; }'
refused 1 'leaves a brace open' 'Chain chain_gradient(Chain c)
{
    if (1) {
    return c;
}'
refused 3 'a comment is left open' 'Chain chain_gradient(Chain c)
{
    return c; /*
}'
refused 3 'a string or a character is left open' 'Chain chain_gradient(Chain c)
{
    return "c;
}'
# in_body TEXT LINE SOURCE: refused, this text, on this line of the body
in_body() { refused "$2" "$1" "Chain chain_gradient(Chain c) {
$3
}"; }
pre='no preprocessor lines'
in_body "$pre" 2 '  # define x y'
in_body "$pre" 2 '/**/ #include <math.h>'
in_body "$pre" 3 '/* a
*/ # include <math.h>'
in_body "$pre" 2 '%:include <math.h>'
in_body "$pre" 2 '??=include <math.h>'
in_body "$pre" 3 '\
#include <math.h>'
in_body "$pre" 4 'int a;

#pragma GCC optimize 3'
in_body 'no trigraphs' 2 '?\
?=define x y'
in_body 'no trigraphs' 2 'char *s = "a?\
?/" "; x";'
in_body 'no asm' 2 'asm("nop");'
in_body 'no __asm__' 2 '__as\
m__("nop");'
in_body 'no __attribute__' 2 '__attribute__((constructor)) void early(void);'
in_body 'no __attribute__' 2 '__attribute??/
__((constructor)) void early(void); __attribute__((x));'
in_body 'no attributes' 2 '[[gnu::constructor]] void early(void);'
in_body 'no attributes' 2 '<:<:gnu::constructor:>:> void early(void);'
in_body 'no attributes' 2 '[ [gnu::constructor]] void early(void);'
in_body '_Pragma is for loops' 2 '_Pragma("weak tanh") c.x = 0;'
in_body '_Pragma is for loops' 2 '_Pragma("redefine_extname tanh write") c.x = 0;'
in_body 'has no place' 2 '__\u0061sm__("nop");'
in_body 'has no place' 2 'c.x = @;'
in_body 'letters, digits' 2 'int größe;'
in_body 'closes nothing' 3 '}
}'
# what the engine keeps the accounts with, in a file that has no account of its own
printf 'static void lora_init(const Lora *lora, uint64_t seed) {\n  memory_reset_peaks();\n}\n' > "$dir/student.c"
if "$dir/splice" lora_init "$dir/student.c" lora.c lora.c 2>&1 > /dev/null | grep -q 'lora.c:2: memory_reset_peaks keeps the accounts'; then ok; else fail "memory_reset_peaks is accepted"; fi
unset -f bodies
fi
if part sandbox; then # ---- what a program can do where a solution runs
escapes() { # WHAT COMMAND...: the program that tries to get out is run by this command
    what=$1
    shift
    if "$@" > "$dir/out" 2>&1 && grep -q '^it can do nothing but compute' "$dir/out"; then ok; else fail "the sandbox, $what: $(cat "$dir/out")"; fi
}
if [ "$(uname)" = Linux ]; then
    for how in -static ''; do
        $CC -std=c11 -O0 -w $how assignments/escape.c -o "$dir/escape" 2> /dev/null || continue
        escapes "${how:-shared}" env ESCAPE="$dir/escape" ESCAPE_LINKED="${how:+--static}" sh assignments/grade.sh
    done
    if $CC -std=c11 -O0 -w -static assignments/escape.c -o "$dir/escape" 2> /dev/null; then
        escapes "without namespaces" env SANDBOX_WITHOUT=namespaces ESCAPE="$dir/escape" ESCAPE_LINKED=--static sh assignments/grade.sh
        if grep -q 'NO namespaces' "$dir/out"; then ok; else fail "a system that refuses namespaces is not told of: $(cat "$dir/out")"; fi
    fi
fi
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

for name in lab3.c:predict.h stubs wrong.txt fair.txt student bugs.txt escape.c handout.sh ../tests/mutants ../predict.c:own_peak ../.git ../TUTORIAL.md ../notebooks ../demo.c ../fast ../tests/test_kernels.c; do
    path=$handout/assignments/${name%%:*}
    case $name in
    *:*) if grep -q "${name#*:}" "$path"; then fail "the handout's ${name%%:*} gives an answer away"; else ok; fi ;;
    *) if [ -e "$path" ]; then fail "the handout has $name"; else ok; fi ;;
    esac
done
for compiler in gcc clang; do
    command -v $compiler > /dev/null || continue
    for real in float double; do
        if make -s -j"$JOBS" -C "$handout" CC=$compiler REAL=$real CFLAGS=-O0 programs > "$dir/out" 2>&1 && ! grep -q 'warning' "$dir/out"; then ok
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
for target in $(sed -n 's/^make \([a-z-]*\) .*/\1/p' "$handout/README.md" && sed -n 's/^# make \([a-z-]*\)  .*/\1/p; s/^\([a-z]*\):.*/\1/p' "$handout/Makefile"); do
    if make -s -n -C "$handout" "$target" TASK=L1.2 > /dev/null 2> "$dir/errors"; then ok; else fail "the handout's \`make $target\`: $(cat "$dir/errors")"; fi
done
if grep -rnE '(TUTORIAL|demo|bench|fast|experiments|notebooks|mutants|plots|test_[a-z]*)(\.(md|c)|/)' "$handout" --include='*.[ch]' --include='*.md' > "$dir/out"; then fail "the handout names what it lacks: $(head -n 3 "$dir/out")"; else ok; fi
fi

# fill TREE TASK: puts this project's solution of one task into the tree
fill() {
    file=$(awk -v task="$2" '$1 == task { print $3 }' $table)
    "$dir/splice" "$(awk -v task="$2" '$1 == task { print $4 }' $table)" "$file" "$1/$file" "$file" > "$dir/filled" && sed '/^#line/d' "$dir/filled" > "$1/$file"
}
# tree TO FROM: a tree that holds the files with tasks alone
tree() { mkdir -p "$1/assignments"; for file in $(awk '/^[LH]/ { print $3 }' $table | sort -u); do cp "$2/$file" "$1/$file"; done; }

if part handout; then # ---- what is solved in a handout scores there as it does in the grading
solved=$dir/solved
cp -r "$handout" "$solved"
rm -rf "$solved/build"
for task in $(awk '/^[LH]/ { print $1 }' $table); do fill "$solved" "$task"; done
everything=$(($(sum_of L) - $(points_of L3.3))) # that one needs trees with the bug
if make -s -C "$solved" grade > "$dir/out" 2>&1 && grep -q "^labs  *$everything of $(sum_of L)\$" "$dir/out" && grep -q "^extra  *homework  *$(sum_of H) of $(sum_of H)\$" "$dir/out"; then ok
else fail "make grade in a handout that is solved: $(grep -A 3 FAIL "$dir/out" | head -n 8; tail -n 3 "$dir/out")"; fi
# there NAME: this solution of wrong.txt or fair.txt, in the place of the right one, gets there what it gets here
there() {
    awk -v name="$1" '$0 == "" { on = 0 } $0 == name { on = 1 } on' assignments/wrong.txt assignments/fair.txt > "$dir/entry"
    task=$(sed -n 's/^task: //p' "$dir/entry") points=$(sed -n 's/^points: //p' "$dir/entry")
    set -- "$1" $(awk -v task="$task" '$1 == task { print $3, $4, $2 }' $table)
    cp "$solved/$2" "$dir/right"
    { sed -n 's/^< //p' "$dir/entry"; echo "void $3() {"; sed -n 's/^+ //p' "$dir/entry"; echo "}"; sed -n 's/^> //p' "$dir/entry"; } > "$solved/$2"
    make -s -C "$solved" grade TASK="$task" > "$dir/out" 2>&1
    if grep -q "^$task .* ${points:-$4} of $4\$" "$dir/out"; then ok; else fail "$1, in a handout: $(head -n 4 "$dir/out")"; fi
    cp "$dir/right" "$solved/$2"
}
for name in overwrites sums_in_float calls_the_solution_of_another_task resets_the_peaks a_helper_after includes_the_reference ends_the_grader part_0_does_everything; do there "$name"; done
fi

if part grading; then # ---- grading, in JOBS processes

tasks=${only:-$(awk '/^[LH]/ { print $1 }' $table)}
mkdir "$dir/jobs"

# job NAME TREE SEED BUG TASKS: to be graded; job_expects NAME TASK POINTS
job() { mkdir "$dir/jobs/$1"; printf '%s\n%s\n%s\n%s\n' "$2" "$3" "$4" "$5" > "$dir/jobs/$1/what"; }
job_expects() { echo "$2 $3" >> "$dir/jobs/$1/expected"; }

# of tasks 0, 1, 2, ... those whose number has bit k are solved, or those whose number has not: so any two are told apart
job bare "$handout" $seed 1 "$only"
for task in $tasks; do
    [ -n "$(points_of "$task")" ] || { fail "TASK: there is no task $task"; finish; }
    job_expects bare "$task" 0
done
for bit in $([ -n "$only" ] && echo 1 || echo 1 2 4 8 16); do
    for has in 0 1; do
        name=bit-$bit-$has number=0
        tree "$dir/$name" "$handout"
        job "$name" "$dir/$name" $seed 1 "$only"
        for task in $tasks; do
            if [ $((number / bit % 2)) -eq $has ]; then fill "$dir/$name" "$task"; job_expects "$name" "$task" "$(points_of "$task")"
            else job_expects "$name" "$task" 0; fi
            number=$((number + 1))
        done
    done
done
for s in $([ -n "$only" ] && echo 1 || echo 1 2 3); do
    job "reference-$s" . "$s" 1 "$only"
    for task in $tasks; do job_expects "reference-$s" "$task" "$(points_of "$task")"; done
done

# wrong.txt and fair.txt: a submission needs no more than the function, and of its head no more than the name
for list in wrong fair; do
    awk -v dir="$dir" -v list=$list -v table=$table -v only="$only" '
        BEGIN { while ((getline line < table) > 0) { split(line, field, " "); file[field[1]] = field[3]; name_of[field[1]] = field[4]; all[field[1]] = field[2] } }
        function end() { if (path != "") { printf "%svoid %s()\n{\n%s}\n%s", before, name_of[task], body, after > path; close(path) } name = path = before = body = after = "" }
        /^#/ { next }
        /^$/ { end(); next }
        name == "" { name = $0; next }
        /^task: / {
            task = $2
            if (only != "" && !index(" " only " ", " " task " ")) next
            system("mkdir -p " dir "/" list "-" name "/assignments")
            path = dir "/" list "-" name "/" file[task]
            if (list == "fair") print name, task, all[task] > (dir "/fair")
            next
        }
        path == "" { next }
        /^points: / { print name, task, $2 > (dir "/wrong"); next }
        /^says: / { print substr($0, 7) > (dir "/" list "-" name "/says"); close(dir "/" list "-" name "/says"); next }
        /^\+ / { body = body substr($0, 3) "\n" }
        /^< / { before = before substr($0, 3) "\n" }
        /^> / { after = after substr($0, 3) "\n" }
        END { end() }
    ' assignments/$list.txt
    touch "$dir/$list"
    while read -r name task points; do
        job "$list-$name" "$dir/$list-$name" $seed 1 "$task"
        job_expects "$list-$name" "$task" "$points"
    done < "$dir/$list"
done

if [ -z "$only" ]; then
[ "$(wc -l < "$dir/wrong")" -ge 100 ] && ok || fail "assignments/wrong.txt has fewer than a hundred"
[ "$(wc -l < "$dir/fair")" -ge 20 ] && ok || fail "assignments/fair.txt has fewer than twenty"

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
done
awk '/^[0-9]/ { print $1 }' assignments/bugs.txt | xargs -P "$JOBS" -I {} sh -c '
    tree=$0/bugs-$1
    BUG=$1 OUT=$tree sh assignments/handout_bugs.sh > "$tree.out" 2>&1 && make -s -C "$tree" CFLAGS=-O0 programs > "$tree.out" 2>&1 || echo "error: it fails" >> "$tree.out"
' "$dir" {}
for bug in $(awk '/^[0-9]/ { print $1 }' assignments/bugs.txt); do
    if [ -f "$dir/bugs-$bug.out" ] && ! grep -q -e warning -e error "$dir/bugs-$bug.out"; then ok; else fail "make handout-bugs BUG=$bug: $(head -n 3 "$dir/bugs-$bug.out")"; fi
    file=$(awk -v number="$bug" -f assignments/bug.awk assignments/bugs.txt tests/mutants/*.txt | sed -n 's/^file: //p')
    differ=$(diff -w "$handout/$file" "$dir/bugs-$bug/$file" | grep -c '^> .*[;{]')
    if [ "$differ" -ge 12 ]; then ok; else fail "bug $bug shows in a comparison with the first handout: $differ lines of $file differ"; fi
done
fi

ls "$dir/jobs" | xargs -P "$JOBS" -I {} sh -c '
    job=$0/$1
    { read -r tree; read -r seed; read -r bug; read -r task; } < "$job/what"
    STUDENT=$tree SEED=$seed BUG=$bug TASK=$task JSON=$job/grade.json sh assignments/grade.sh > "$job/out" 2>&1 || echo "grade.sh failed" >> "$job/out"
' "$dir/jobs" {}

for name in $(ls "$dir/jobs"); do
    here=$dir/jobs/$name
    sed -n 's/^    { "number": "\([^"]*\)".* "score": \([0-9.]*\), "max_score".*/\1 \2/p' "$here/grade.json" 2> /dev/null > "$here/scores"
    if ! diff "$here/expected" "$here/scores" > "$here/difference"; then fail "$name: < expected, > scored: $(grep '^[<>]' "$here/difference" | head -n 6 | tr '\n' ' ') $(head -n 3 "$here/out")"
    elif [ -f "$dir/$name/says" ] && ! grep -qF -- "$(cat "$dir/$name/says")" "$here/out"; then fail "$name: the grader does not say \"$(cat "$dir/$name/says")\": $(head -n 5 "$here/out")"
    else ok; fi
done
if grep -l 'crashed with\|processor time\|not at its end' "$dir"/jobs/bare/out "$dir"/jobs/bit-*/out 2> /dev/null; then fail "a stub crashes"; else ok; fi

if [ -z "$only" ]; then
# the instructor's page quotes what the grader says to someone
sed -n 's/^| [^|]* | `\(.*\)` |$/\1/p' assignments/README.md > "$dir/quoted"
[ "$(wc -l < "$dir/quoted")" -ge 10 ] || fail "assignments/README.md quotes no messages"
while read -r line; do
    if cat "$dir"/jobs/*/out | grep -qF -- "$line"; then ok; else fail "assignments/README.md quotes what the grader says to nobody: $line"; fi
done < "$dir/quoted"
for target in $(sed -n 's/^make \([a-z-]*\) .*/\1/p' assignments/README.md assignments/student/README.md); do
    if make -s -n "$target" DIR=. > /dev/null 2>&1; then ok; else fail "a README names \`make $target\`, which there is not"; fi
done

# another seed asks for other numbers and other shapes
said() { env TASK=L1.2 STUDENT="$handout" JSON="$dir/1.json" "$@" sh assignments/grade.sh | grep ' at \['; }
said SEED=1 > "$dir/seed-1"
said SEED=2 > "$dir/seed-2"
if said NAME=ann SECRET=one | cmp -s - "$dir/seed-1" || ! said NAME=ann SECRET=one > "$dir/ann" || said NAME=bob SECRET=one | cmp -s - "$dir/ann" ||
    said NAME=ann SECRET=two | cmp -s - "$dir/ann" || ! said NAME=ann SECRET=one | cmp -s - "$dir/ann"; then fail "a name and a secret are no seed of their own"; else ok; fi
if [ -s "$dir/seed-1" ] && ! cmp -s "$dir/seed-1" "$dir/seed-2"; then ok; else fail "the seed changes nothing"; fi

# wrong usage says so
for bad in STUDENT=/nowhere SEED=x BUG=99 TASK=L9.9; do
    if env "$bad" JSON="$dir/bad.json" sh assignments/grade.sh > /dev/null 2> "$dir/errors" || ! grep -q "${bad%%=*}" "$dir/errors"; then fail "make grade $bad: $(cat "$dir/errors")"; else ok; fi
done
fi
fi
if part class; then # ---- submissions, and a class of them
files=$(awk '/^[LH]/ { print $3 }' $table | sort -u)
# taken WHAT SUBMISSION FILE...: exactly these files are taken of it
taken() {
    what=$1 from=$2
    shift 2
    rm -rf "$dir/taken"
    sh assignments/collect.sh "$from" "$dir/taken" $files > "$dir/out" 2>&1
    got=$(cd "$dir/taken" && find . -type f ! -name refused | sed 's|^\./||' | sort | tr '\n' ' ') want=$(printf '%s\n' "$@" | sed '/^$/d' | sort | tr '\n' ' ')
    [ "$got" = "$want" ] && ok || fail "of $what \"$got\" is taken, not \"$want\""
}
sub=$dir/submissions
mkdir -p "$sub/tree/assignments" "$sub/flat" "$sub/folder/lab kit" "$sub/links" "$sub/linked" "$sub/odd" "$sub/nested"
cp assignments/chain.c "$sub/tree/assignments/" && cp lora.c "$sub/tree/" && cp assignments/chain.c lora.c "$sub/flat/"
cp -r "$sub/tree/." "$sub/folder/lab kit/"
ln -s "$PWD/lora.c" "$sub/links/lora.c"
ln -s "$PWD/assignments" "$sub/links/assignments"
ln -s "$PWD" "$sub/linked/project"
mkfifo "$sub/odd/lora.c"
mkdir "$sub/odd/ops.c"
head -c 1000001 /dev/zero > "$sub/odd/adamw.c"
taken "a tree" "$sub/tree" assignments/chain.c lora.c
taken "single files" "$sub/flat" assignments/chain.c lora.c
taken "a folder in a folder" "$sub/folder" assignments/chain.c lora.c
taken "links to the reference" "$sub/links" ''
taken "a link to the project" "$sub/linked" ''
taken "what is no file" "$sub/odd" ''
if command -v python3 > /dev/null; then
    (cd "$sub/folder" && python3 -m zipfile -c ../folder.zip "lab kit")
    cp "$sub/folder.zip" "$sub/nested/"
    taken "a .zip of a folder" "$sub/folder.zip" assignments/chain.c lora.c
    taken "a .zip in a folder" "$sub/nested" assignments/chain.c lora.c
    python3 -c '
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as z:
    link = zipfile.ZipInfo("lora.c"); link.external_attr = 0o120777 << 16
    z.writestr(link, sys.argv[3] + "/lora.c"); z.writestr("../../ops.c", "x")
with zipfile.ZipFile(sys.argv[2], "w", zipfile.ZIP_DEFLATED) as z: z.writestr("ops.c", b"\0" * 100_000_000)
' "$sub/links.zip" "$sub/bomb.zip" "$PWD"
    rm -rf "$dir/taken"
    sh assignments/collect.sh "$sub/links.zip" "$dir/taken" lora.c > /dev/null 2>&1
    if [ -e "$dir/taken/lora.c" ] && grep -q op_matmul "$dir/taken/lora.c"; then fail "a link in a .zip is followed"; else ok; fi
    taken "a .zip that is larger than it looks" "$sub/bomb.zip" ''
    if grep -q 'more than it should' "$dir/taken/refused"; then ok; else fail "nobody says why a .zip is not opened"; fi
fi
if TASK="L1.1 L2.1 L2.3" STUDENT=$sub/links JSON=$dir/links.json sh assignments/grade.sh > "$dir/out" 2>&1 && grep -q '"score": 0,' "$dir/links.json" && [ "$(grep -c 'symbolic link' "$dir/out")" -eq 3 ]; then ok
else fail "links to the reference: $(head -n 4 "$dir/out")"; fi
echo '{ "score": 9 }' > "$dir/old.json"
STUDENT=/nowhere JSON=$dir/old.json sh assignments/grade.sh > /dev/null 2>&1
if grep -q '"score": 0, .*did not come to its end' "$dir/old.json"; then ok; else fail "a grading that ends early leaves other results: $(cat "$dir/old.json")"; fi

if command -v python3 > /dev/null; then # Gradescope's export, Canvas's, and a .zip of it all
    gs=$dir/export/assignment_7_export
    mkdir -p "$gs/submission_1" "$gs/submission_2" "$gs/submission_3" "$dir/canvas"
    printf 'submission_1:\n  :submitters:\n  - :name: Ann\n    :email: ann@x.org\nsubmission_2:\n  :submitters:\n  - :name: Bob\n    :email: bob@x.org\n' > "$gs/submission_metadata.yml"
    cp assignments/chain.c assignments/bytes.c "$gs/submission_1/"
    sed 's/tanh_u/other/g; s/\<dy\>/zz/g; s/\<du\>/yy/g' assignments/chain.c > "$gs/submission_2/chain.c"
    cp lora.c "$gs/submission_3/"
    cp assignments/chain.c "$dir/canvas/annex_12_99_chain-2.c" && cp lora.c "$dir/canvas/bobby_LATE_13_98_lora.c"
    (cd "$dir/canvas" && python3 -m zipfile -c ../canvas.zip ./*)
    row() { grep "^$2," "$dir/$1/grades.csv" | tr -d '\r'; }
    TASK="L1.1 L2.1 L3.1" python3 assignments/grade_all.py "$dir/export" "$dir/class" > "$dir/out" 2>&1
    if [ "$(row class ann@x.org)" = "ann@x.org,18,0,8,0,10" ] && [ "$(row class bob@x.org)" = "bob@x.org,8,0,8,0,0" ] && [ "$(row class submission_3)" = "submission_3,5,0,0,5,0" ] && [ -s "$dir/class/ann@x.org.txt" ]; then ok; else fail "Gradescope's export: $(cat "$dir/out" "$dir/class/grades.csv")"; fi
    if grep -q '^1.00,ann@x.org,bob@x.org,.*L1.1' "$dir/class/similar.csv" && ! grep -q submission_3 "$dir/class/similar.csv"; then ok; else fail "similar.csv: $(cat "$dir/class/similar.csv")"; fi
    TASK="L1.1 L2.1" python3 assignments/grade_all.py "$dir/canvas.zip" "$dir/class2" > "$dir/out" 2>&1
    if [ "$(row class2 annex_12)" = "annex_12,8,0,8,0" ] && [ "$(row class2 bobby_13)" = "bobby_13,5,0,0,5" ]; then ok; else fail "Canvas's archive: $(cat "$dir/out" "$dir/class2/grades.csv")"; fi
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
if OUT=$dir/archive SECRET=a-secret BUG=1 sh assignments/autograder.sh > "$dir/out" 2>&1; then
    mkdir -p "$dir/autograder/submission" "$dir/autograder/results"
    for task in $first; do # single files, without their directory
        cp "$dir/submission/$(awk -v task="$task" '$1 == task { print $3 }' $table)" "$dir/autograder/submission/"
    done
    cp -r "$dir/archive" "$dir/autograder/source"
    cp "$dir/autograder/source/run_autograder" "$dir/autograder/run_autograder"
    echo '{ "id": 7, "users": [ { "email": "ann@x.org", "name": "Ann" } ] }' > "$dir/autograder/submission_metadata.json"
    if AUTOGRADER=$dir/autograder sh "$dir/autograder/run_autograder" > "$dir/out" 2>&1 &&
        grep -q "\"score\": $sum," "$dir/autograder/results/results.json" && [ "$(grep -c '"number"' "$dir/autograder/results/results.json")" -eq "$(grep -c '^[LH]' $table)" ]; then ok
    else fail "the archive does not grade: $(tail -n 3 "$dir/out")"; fi
    if grep -q -e a-secret -e 'seed [0-9]' -e SEED= "$dir/out" "$dir/autograder/results/results.json"; then fail "the archive tells a seed"; else ok; fi
    if [ "$(stat -c %a "$dir/autograder/source" "$dir/autograder/results" 2> /dev/null | sort -u)" = 700 ]; then ok; else fail "others can read the archive, or write results"; fi
    if command -v python3 > /dev/null; then
        if python3 -m json.tool "$dir/autograder/results/results.json" > /dev/null; then ok; else fail "results.json is no JSON"; fi
    fi
else fail "make autograder: $(cat "$dir/out")"; fi
fi
finish
