#!/bin/sh
# handout.sh - writes the student's tree: the project with its solutions replaced by stubs. `make handout` runs it, from the project's root.
#
#   TASKS="L1.1 L1.2"  replaces these alone and leaves the others solved; without it, all tasks
#   OUT=DIR            where to; build/handout without it. What was there before goes.
#   STUBS=DIR          other stubs than assignments/stubs
#
# Only what the list below names is copied, so a new file of the project is not handed out by accident. At the end every line of every
# solution that was taken out is searched for in the tree.
set -u
OUT=${OUT:-build/handout}
TASKS=${TASKS:-}
STUBS=${STUBS:-assignments/stubs}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
die() { echo "handout: $*" >&2; exit 1; }

handed_out() {
    case $1 in
    demo.c | predict.[ch] | meltwater.c | web/* | assignments/lab3.c | assignments/escape.c) false ;; # they hold what the tasks ask for
    tests/gradcheck.h | LICENSE | .gitignore) ;;
    assignments/grade.sh | assignments/collect.sh | assignments/bodies.awk | assignments/tasks.txt) ;;
    *.[ch]) case $1 in io/*/* | assignments/*/*) false ;; io/* | assignments/*) ;; */*) false ;; esac ;; # not fast/, which has the kernels once more
    *) false ;;
    esac
}

git ls-files --cached --others --exclude-standard > "$dir/tracked" 2> /dev/null && [ -s "$dir/tracked" ] || die "this is not a git clone: no list of files"
while read -r file; do
    if [ -f "$file" ] && handed_out "$file"; then echo "$file"; fi
done < "$dir/tracked" > "$dir/files"
grep '\.c$' "$dir/files" > "$dir/sources"

bodies() { awk "$@" -f assignments/bodies.awk assignments/tasks.txt; }

# every task's function in its place and handed out, every task with a stub, every stub with a task, and all that TASKS names
bodies -v mode=list > "$dir/tasks" || die "assignments/tasks.txt is not in order"
while read -r task points file line rest; do
    grep -qxF "$file" "$dir/sources" || die "$file:$line: task $task is in a file that is not handed out"
    [ -f "$STUBS/$task.c" ] || die "$file:$line: task $task has no stub $STUBS/$task.c"
done < "$dir/tasks" || exit 1
for stub in "$STUBS"/*; do
    name=${stub##*/}
    grep -q "^${name%.c} " "$dir/tasks" || die "$stub:1: a stub without a task: assignments/tasks.txt has no ${name%.c}"
done
for task in $TASKS; do grep -q "^$task " "$dir/tasks" || die "TASKS: there is no task $task"; done

case $OUT in / | . | .. | "") die "OUT=$OUT: no" ;; esac
[ ! -e "$OUT" ] || [ -f "$OUT/assignments/bodies.awk" ] || [ -z "$(ls -A "$OUT")" ] || die "$OUT is there and is no handout: move it away"
rm -rf "$OUT"
while read -r file; do
    case $file in */*) mkdir -p "$OUT/${file%/*}" ;; *) mkdir -p "$OUT" ;; esac
    case $file in
    *.c) bodies -v mode=stub -v into="$file" -v stubs="$STUBS" -v tasks="$TASKS" > "$OUT/$file" || die "$file" ;;
    *) cp "$file" "$OUT/$file" ;;
    esac
done < "$dir/files"
for file in README.md Makefile predict.c predict.h; do cp "assignments/student/$file" "$OUT/$file" || die "assignments/student/$file"; done
# Comments name no file that is not here: it becomes "another file", a directory "another folder".
awk '{ print; if (sub(/\/.*/, "/")) print }' "$dir/tracked" | sort -u | while read -r name; do [ -e "$OUT/$name" ] || echo "$name"; done > "$dir/lacking"
for file in $(grep '\.[ch]$' "$dir/files"); do
    awk -v lacking="$dir/lacking" '
        BEGIN { while ((getline name < lacking) > 0) { gone[name]; sub(/.*\//, "", name); if (name ~ /\./) gone[name] } }
        function known(name) { sub(/[.]+$/, "", name); if (name in gone) return 1; if (!sub(/\/.*/, "/", name)) return 0; return name in gone }
        {
            at = index($0, "//")
            if (!at) { print; next }
            out = substr($0, 1, at - 1)
            text = substr($0, at)
            gsub(/make PLAIN=1/, "make", text)
            while (match(text, /[A-Za-z0-9_.\/-]*[A-Za-z0-9_\/][A-Za-z0-9_.\/-]*/)) {
                word = substr(text, RSTART, RLENGTH)
                stop = word ~ /[.]$/ ? "." : ""
                if (word !~ /^\/\// && word ~ /[.\/]/ && known(word)) word = (word ~ /[.][a-z]+[.]?$/ ? "another file" : "another folder") stop
                out = out substr(text, 1, RSTART - 1) word
                text = substr(text, RSTART + RLENGTH)
            }
            print out text
        }' "$OUT/$file" > "$dir/named" && cp "$dir/named" "$OUT/$file" || die "$file"
done
# what `make grade` takes for everything that is not the student's own
awk '/^[LH]/ { print $3 }' assignments/tasks.txt | sort -u | while read -r file; do
    mkdir -p "$OUT/assignments/given/$(dirname "$file")" && cp "$OUT/$file" "$OUT/assignments/given/$file" || exit 1
done || die "assignments/given"
cp assignments/student/lab3.c "$OUT/assignments/lab3.c" || die "assignments/student/lab3.c"
EXAMPLES=1 JSON="$dir/none.json" sh assignments/grade.sh > "$OUT/assignments/examples.txt" || die "no published numbers for Lab 3"

# No line of a solution that was taken out: spaces do not count; short lines, heads of loops
# and lines that also stand in provided code do not either.
bodies -v mode=lines > "$dir/lines"
while read -r file; do bodies -v mode=stub -v into="$file" -v stubs="$STUBS"; done < "$dir/sources" > "$dir/provided"
find "$OUT" -type f > "$dir/written"
awk -v tasks=" $TASKS " '
    function squeezed(text) { gsub(/[ \t\r]+/, "", text); return text }
    function code(text) { text = squeezed(text); sub(/\/\/.*/, "", text); return text }
    FILENAME ~ /\/provided$/ { given[code($0)]; next }
    FILENAME ~ /\/lines$/ {
        task = $1
        $1 = ""
        line = code($0)
        if (length(line) < 20 || line ~ /^for\(.*[{)]$/ || (tasks != "  " && !index(tasks, " " task " "))) next
        if (line in given) { also++; next }
        if (!(line in of)) { order[++count] = line; of[line] = task }
        next
    }
    { # a file of the handout, line by line; a solution line may be a part of one
        text = squeezed($0)
        for (i = 1; i <= count; i++)
            if (index(text, order[i])) { printf "%s:%d: a line of the solution of task %s: %s\n", FILENAME, FNR, of[order[i]], order[i] | "cat >&2"; bad = 1 }
    }
    END { printf "%d lines of solutions are nowhere in it; %d more stand in provided code too\n", count, also; exit bad || count == 0 }
' "$dir/provided" "$dir/lines" $(cat "$dir/written") > "$dir/said" || die "a solution is in $OUT"

echo "$OUT: $(wc -l < "$dir/written") files, $(awk -v t=" $TASKS " 't == "  " || index(t, " " $1 " ")' "$dir/tasks" | wc -l) tasks to do; $(cat "$dir/said")"
