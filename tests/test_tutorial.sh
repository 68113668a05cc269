#!/bin/sh
# Runs what TUTORIAL.md and README.md show, and compares it with what they say it prints; and follows every link in them.
#
# A block in a text, and what becomes of it here:
#   ```c            a program: saved as lesson.c, built and run as the text says
#   ```sh           commands: run with `sh -e`
#   ```python       run where $PYTHON (that of build/venv, else python3) has transformers and PEFT; else skipped, with a line
#   ```             the whole output of the program or the commands before it; a line `...` stands for lines left out
# Spaces and blank lines at the end do not count. All else must be equal, but for what a mark, an HTML comment which no reader
# sees, allows or changes. Marks stand before the block that they are about:
#   from: FILE               the ```c block is no program but a piece of FILE
#   instead: COMMANDS        a shortened run: these are run in place of the block's
#   not run: REASON          not run, and nothing is compared with it
#   output of: COMMANDS      what the next ``` block shows
#   varies: REGEX by BOUND   numbers that may differ: by 0.1, by a factor (3x), or by one in their last digit (`last digit`:
#                            compilers and processors round sums differently). The line must match, with the number in question
#                            between < and >: `loss <` is what follows "loss", `naive` all numbers of a line with "naive"
#   answer: SED => REGEX => WORDS   the answer to an exercise: the last program, changed so, prints a line that matches REGEX,
#                            and the answers at the text's end say WORDS (without: something that matches REGEX)
#   number: N = EXPRESSION   a number of the chapter's prose that no block shows, computed from numbers that blocks show
#   given: N N ...           numbers of the chapter's prose that are nobody's result: an exercise's, a cache's size
# Each number of two digits or more in the prose must stand in a block of its chapter (of any, for the answers), or in one of
# these two marks.
# A link [`name`](file) must lead to a file in which that name is defined: a function, a table, or for a header any word.
#
# All runs in a copy of the tree made of links, so out/ and the programs of this directory stay as they are. What takes long in
# README.md is shortened by the table at `readme_instead`. With DEMO=FILE, the output of a whole `make demo`, the losses that
# README.md shows are compared too.

root=$(pwd)
. tests/ok.sh
unset CC MAKELEVEL MFLAGS # the texts say cc and make
export MAKEFLAGS=-j2

# A tree of links to the sources and to the objects that are built already.
mkdir "$dir/tree" "$dir/blocks" || exit 1
for entry in Makefile *.c *.h */; do
    case $entry in out/ | build/ | lesson.c | short_demo.c) ;; *) ln -s "$root/${entry%/}" "$dir/tree/${entry%/}" ;; esac
done
find build -name '*.[od]' 2> /dev/null | grep -v 'lesson' | while read -r object; do
    mkdir -p "$dir/tree/${object%/*}" && ln -s "$root/$object" "$dir/tree/$object"
done
awk 'BEGIN { for (i = 0; i < 400; i++) printf "Once upon a time %d cats sat on a mat.\n", i * i % 97 }' > "$dir/tree/book.txt"
awk 'BEGIN { for (i = 0; i < 400; i++) printf "%d mats sat on a cat.\n", i * i % 89 }' > "$dir/tree/other.txt"

# README.md's long commands: what is run in place of a line that begins so. Its demo: the same program with few steps on short
# texts, which measures the same bytes, counts and work.
few='--max-iters 4 --eval-interval 4 --batch-size 2'
small='--n-layer 1 --n-head 2 --n-embd 16 --block-size 16'
short_demo='sed "s/BASE_STEPS = [0-9]*, TUNE_STEPS = [0-9]*/BASE_STEPS = 2, TUNE_STEPS = 2/; s/SAMPLE = 240/SAMPLE = 8/
                 s/\", [14]00000,/\", 4000,/g" demo.c > short_demo.c
cmp -s demo.c short_demo.c && echo "the demo has no such steps any more"
make -s build/cc-float/short_demo && build/cc-float/short_demo --threads 2'
readme_instead() {
    sed "s| *#.*||; s|^make.*|& -n > make.txt|
         s|^\./train --data book.txt.*|& $few $small|; s|--learning-rate [^ ]* --out out/other|& $few|
         s|^\(\./train --resume.*\)--max-iters.*|\1 --max-iters 6 --eval-interval 6|
         s|--length 300||; s|^\./sample .*|& --length 9|"
}

# Cuts a text into blocks: N.c, N.sh, N.python or N.text, and N.marks, N.line. Lists them in order.
cut_blocks() {
    rm -f "$dir"/blocks/*
    awk -v dir="$dir/blocks/" '
        /^<!-- (number|given): / { next }
        fence == "" && /^<!-- .* -->$/ { marks = marks substr($0, 6, length($0) - 9) "\n"; next }
        /^ *```/ && fence == "" {
            n++
            kind = $0; sub(/^ *```/, "", kind); if (kind == "") kind = "text"
            fence = dir n "." kind
            printf "" > fence
            printf "%s", marks > (dir n ".marks"); print NR > (dir n ".line"); print n, kind
            marks = ""; next
        }
        /^ *```$/ { close(fence); fence = ""; next }
        fence != "" { print > fence; next }
        /^[^ ]/ && marks ~ /^answer: / {
            n++
            printf "%s", marks > (dir n ".marks"); print NR > (dir n ".line"); print n, "answer"
            marks = ""
        }
    ' "$1"
}

# mark N NAME: the values of the block's marks of that name, one a line.
mark() { sed -n "s/^$2: *//p" "$dir/blocks/$1.marks"; }

# compare WHERE EXPECTED GOT MARKS LOOSE: says where they differ. Loose: an excerpt; a blank line in it may stand for any lines.
compare() {
    awk -v where="$1" -v marks="$4" -v loose="$5" '
        function squeeze(s) { gsub(/[ \t]+/, " ", s); sub(/^ /, "", s); sub(/ $/, "", s); return s }
        function number(s) { gsub(/,/, "", s); return s + 0 }
        function magnitude(x) { return x < 0 ? -x : x }
        function within(a, b, bound,    x, y, d, unit) {
            x = number(a); y = number(b); d = magnitude(x - y)
            if (bound == "last digit") {
                unit = 1
                if (match(a, /\.[0-9]+/)) unit = 10 ^ -(RLENGTH - 1)
                if (match(a, /e[-+]?[0-9]+/)) unit *= 10 ^ substr(a, RSTART + 1, RLENGTH - 1)
                return d <= 1.01 * unit
            }
            if (bound ~ /x$/) { sub(/x$/, "", bound); return x > 0 && y > 0 && x <= y * bound && y <= x * bound }
            return d <= bound + 1e-12
        }
        function same(e, g,    i) {
            e = squeeze(e); g = squeeze(g)
            if (e == g) return 1
            ne = split(e, E, " "); ng = split(g, G, " ")
            if (ne != ng) return 0
            for (i = 1; i <= ne; i++)
                if (E[i] != G[i] && !(split_number(E[i]) && allowed(i, G[i]))) return 0
            return 1
        }
        function split_number(word) { # into ahead, digits, behind
            if (!match(word, NUMBER)) return 0
            ahead = substr(word, 1, RSTART - 1); digits = substr(word, RSTART, RLENGTH); behind = substr(word, RSTART + RLENGTH)
            return 1
        }
        function allowed(i, word,    a, b, c, k, m, text) { # may the i-th word of the expected line be `word`?
            a = ahead; b = digits; c = behind
            if (!split_number(word) || a != ahead || c != behind) return 0
            for (k = 1; k <= ne; k++) text = text (k > 1 ? " " : "") (k == i ? "<" E[k] ">" : E[k])
            for (m = 1; m <= rules; m++)
                if (text ~ regex[m] && within(b, digits, by[m])) return 1
            return 0
        }
        BEGIN {
            NUMBER = "[-+]?[0-9][0-9,]*(\\.[0-9]+)?(e[-+]?[0-9]+)?"
            lines = split(marks, line, "\n")
            for (i = 1; i <= lines; i++)
                if (match(line[i], / by [^ ]+( digit)?$/)) {
                    regex[++rules] = substr(line[i], 1, RSTART - 1); by[rules] = substr(line[i], RSTART + 4)
                }
        }
        NR == FNR { expected[++n] = $0; next }
        { got[++m] = $0 }
        END {
            while (n > 0 && expected[n] ~ /^[ \t]*$/) n--
            while (m > 0 && got[m] ~ /^[ \t]*$/) m--
            at = 1; gap = loose
            for (i = 1; i <= n; i++) {
                if (expected[i] ~ /^ *\.\.\.$/ || (loose && expected[i] ~ /^ *$/)) { gap = 1; continue }
                from = at
                if (gap) while (at <= m && !same(expected[i], got[at])) at++
                if (at > m || !same(expected[i], got[at])) {
                    print where ": it says  " expected[i]
                    printed = gap ? "no such line after line " from - 1 : at > m ? "nothing more" : got[at]
                    print "     and the run printed  " printed
                    exit 1
                }
                at++; gap = 0
            }
            if (!gap && !loose && at <= m) { print where ": the run printed more  " got[at]; exit 1 }
        }
    ' "$2" "$3"
}

# in_tree COMMANDS: runs them; their whole output is then in $dir/out.
in_tree() { (cd "$dir/tree" && sh -ec "$1") > "$dir/out" 2>&1 < /dev/null; }

lesson='make -s build/cc-float/lesson && build/cc-float/lesson'
PYTHON=${PYTHON:-$([ -x build/venv/bin/python ] && echo "$root/build/venv/bin/python" || echo python3)}

# check_blocks FILE: every block of a text.
check_blocks() {
    text=$1
    cut_blocks "$text" > "$dir/list" # into a file: a pipe would count in a shell of its own
    comparable= demo_out=
    awk '/^## Answers/ { on = 1 } on { printf "%s ", $0 } END { print "" }' "$text" | tr -s ' ' > "$dir/answers"
    while read -r n kind; do
        block=$dir/blocks/$n.$kind where="$text:$(cat "$dir/blocks/$n.line")"
        not_run=$(mark "$n" 'not run') instead=$(mark "$n" instead) of=$(mark "$n" 'output of')
        case $kind in
        c)
            file=$(mark "$n" from)
            if [ -n "$file" ]; then
                if awk 'NR == FNR { want = want $0 "\n"; next } { all = all $0 "\n" } END { exit !index(all, want) }' \
                    "$block" "$file"; then ok
                else fail "$where: these lines are not in $file"; fi
                continue
            fi
            [ -n "$not_run" ] && continue
            cp "$block" "$dir/tree/lesson.c"; cp "$block" "$dir/lesson.c"
            if in_tree "$lesson"; then comparable=yes
            else comparable=; fail "$where: the program fails:"; tail -n 5 "$dir/out"; fi ;;
        sh)
            comparable=yes
            [ -n "$not_run" ] && { comparable=; continue; }
            [ "$text" = README.md ] && [ -z "$instead" ] && instead=$(readme_instead < "$block")
            if in_tree "${instead:-$(cat "$block")}"; then ok
            else comparable=; fail "$where: a command fails:"; tail -n 5 "$dir/out"; fi ;;
        python)
            if "$PYTHON" -c 'import transformers, peft' 2> /dev/null; then
                cp "$block" "$dir/tree/lesson.py"
                if in_tree "'$PYTHON' lesson.py 2> /dev/null"; then comparable=yes
                else comparable=; fail "$where: the Python lines fail:"; tail -n 5 "$dir/out"; fi
            else
                comparable=; not_run=yes
                echo "skipped: $where needs the Python packages transformers and peft"
            fi ;;
        text)
            loose=0
            if [ "$text" = README.md ]; then
                loose=1 comparable=yes
                grep -q 'passed through' "$block" && of='./demo --trace'
                grep -q "at the step's peak" "$block" && of='make demo'
            fi
            case $of in
            'make demo')
                comparable=yes not_run=
                if [ -n "$DEMO" ]; then cp "$DEMO" "$dir/out"
                else
                    [ -n "$demo_out" ] || { in_tree "$short_demo"; cp "$dir/out" "$dir/demo_out"; demo_out=yes; }
                    cp "$dir/demo_out" "$dir/out"
                    # few steps learn nothing
                    sed '/^validation loss/,$d; /What was learned/,$d; /^pirate/,$d' "$block" > "$dir/part"
                    mv "$dir/part" "$block"
                fi ;;
            '') ;;
            *) comparable=yes not_run=; in_tree "make -s; $of" || fail "$where: fails: $of" ;;
            esac
            if [ -n "$not_run" ]; then :
            elif [ -z "$comparable" ]; then [ -n "$skipping" ] || fail "$where: nothing that ran printed this block"
            elif rules=$(mark "$n" varies; [ "$text" != README.md ] || readme_varies)
                compare "$where" "$block" "$dir/out" "$rules" $loose > "$dir/why"; then ok
            else fail "$(cat "$dir/why")"; fi ;;
        answer)
            mark "$n" answer > "$dir/wanted"
            while read -r answer; do
                script=${answer%% => *} words=${answer##* => } pattern=${answer#* => }
                pattern=${pattern%% => *}
                sed "$script" "$dir/lesson.c" > "$dir/tree/lesson.c"
                if cmp -s "$dir/lesson.c" "$dir/tree/lesson.c"; then fail "$where: this changes nothing: $script"; continue; fi
                in_tree "$lesson"
                if ! grep -q -e "$pattern" "$dir/out"; then
                    fail "$where: the exercise prints no $pattern, but"; tail -n 3 "$dir/out"
                elif ! grep -q -e "$words" "$dir/answers"; then fail "$where: the answers do not say $words"
                else ok; fi
            done < "$dir/wanted" ;;
        *) fail "$where: a block of a kind unknown to this test: $kind" ;;
        esac
        skipping=; [ -n "$not_run" ] && skipping=yes
    done < "$dir/list"
}

# What may differ in README.md's excerpts: what the system says of a process, times, norms, and what was learned.
readme_varies() {
    printf '%s\n' '^resident by 1.3x' '\|g\| by last digit' '^(pirate|tales) .new|old. by 0.15' '^ms|ms$ by 20x'
}

# Every link leads to a file, and if its text is a name in backquotes, to where that is defined.
check_links() {
    awk '
        /^ *```/ { fence = !fence; next }
        fence { next }
        { line = line " " $0 }
        /^$/ || /[.:|]$/ { flush() }
        END { flush() }
        function flush(    s) {
            s = line; line = ""
            while (match(s, /\[[^]]*\]\([^)]*\)/)) {
                link = substr(s, RSTART, RLENGTH); s = substr(s, RSTART + RLENGTH)
                name = link; sub(/\]\(.*/, "", name); sub(/^\[/, "", name); gsub(/ /, "\001", name)
                to = link; sub(/.*\]\(/, "", to); sub(/\)$/, "", to)
                print name, to
            }
        }
    ' "$1" | sort -u > "$dir/links"
    links=0
    while read -r name to; do
        links=$((links + 1))
        name=$(printf '%s' "$name" | tr '\001' ' ')
        case $to in
        http*) continue ;;
        '#'*)
            if sed -n 's/^##* //p' "$1" | tr 'A-Z' 'a-z' | tr -cd 'a-z0-9 \n-' | tr ' ' '-' | grep -qx -e "${to#?}"; then ok
            else fail "$1: no heading for the link $to"; fi
            continue ;;
        esac
        [ -e "$to" ] || { fail "$1: the link to $to leads nowhere"; continue; }
        case $name in
        '`'*'`')
            name=$(printf '%s' "$name" | tr -d '`')
            case $to in */ | *.md | *.ipynb | "$name") ok; continue ;; esac
            # A definition begins in the first column and does not end there; an op's row is Op NAME =.
            if sed 's|//.*||' "$to" | awk -v name="$name" -v header="$to" '
                header ~ /\.h$/ && $0 ~ "(^|[^A-Za-z0-9_])" name "([^A-Za-z0-9_]|$)" { found = 1 }
                /^[A-Za-z_]/ && !/;[ \t]*$/ && $0 ~ "(^|[ *])" name "[(\\[]" { found = 1 }
                /^#define/ && $2 == name { found = 1 }
                index($0, "Op " name " = {") { found = 1 }
                END { exit !found }'; then ok
            else fail "$1: $to does not define $name"; fi ;;
        *) ok ;;
        esac
    done < "$dir/links"
}

# No number in prose without a source. Numbers of chapters, exercises and experiments, and what links lead to, do not count.
check_numbers() {
    awk '
        function plain(s) { gsub(/,/, "", s); return s + 0 }
        function unit(s,    u) { # of the last digit that is not 0
            gsub(/,/, "", s)
            if (match(s, /\.[0-9]+$/)) return 10 ^ (1 - RLENGTH)
            for (u = 1; s ~ /[1-9]0+$/; u *= 10) s = substr(s, 1, length(s) - 1)
            return u
        }
        function value(expression,    command, result) {
            command = "awk \"BEGIN { printf \\\"%.12g\\\", " expression " }\""
            command | getline result
            close(command)
            return result
        }
        function numbers_of(s, into, name,    n) {
            while (match(s, /[0-9][0-9,]*(\.[0-9]+)?/)) {
                n = substr(s, RSTART, RLENGTH); s = substr(s, RSTART + RLENGTH); sub(/,+$/, "", n)
                if (length(n) > 1) into[++into[0]] = n
            }
        }
        BEGIN { chapter = 0 }
        NR == FNR && /^## / { chapter++ }
        NR == FNR && /^ *```/ { fence = !fence; next }
        NR == FNR && fence {
            split("", found); numbers_of($0, found)
            for (i = 1; i <= found[0]; i++) shown[chapter, plain(found[i])] = shown["any", plain(found[i])] = 1
        }
        NR == FNR && /^<!-- given: / { n = split($0, word, " "); for (i = 3; i < n; i++) sourced[chapter, plain(word[i])] = 1 }
        NR == FNR && /^<!-- answer: / {
            split("", found); sub(/.* => /, ""); numbers_of($0, found)
            for (i = 1; i <= found[0]; i++) shown["any", plain(found[i])] = 1
        }
        NR == FNR && /^<!-- number: / {
            line = substr($0, 14, length($0) - 17); at = index(line, " = ")
            computed[++marks] = substr(line, 1, at - 1); from[marks] = substr(line, at + 3); of[marks] = chapter
        }
        NR == FNR { next }
        FNR == 1 {
            chapter = fence = 0
            for (m = 1; m <= marks; m++) {
                split("", found); numbers_of(from[m], found)
                for (i = 1; i <= found[0]; i++)
                    if (length(found[i]) > 3 && !(("any", plain(found[i])) in shown))
                        print FILENAME ": " computed[m] " is said to come of " found[i] ", which no block shows"
                got = value(from[m]) - plain(computed[m])
                if (got < 0) got = -got
                if (got > 0.501 * unit(computed[m])) print FILENAME ": " computed[m] " is not " from[m]
                sourced[of[m], plain(computed[m])] = 1
            }
        }
        /^## / { chapter++; answers = /^## Answers/; exercise = 0; next }
        /^ *```/ { fence = !fence; next }
        fence || /^<!--/ || /^\| [0-9]+ \|/ { next }
        /^$/ { exercise = 0 }
        /^\*\*Exercises/ { exercise = 1 }
        {
            gsub(/\]\([^)]*\)/, "]"); gsub(/q[0-9][0-9]|[LH][0-9](\.[0-9])?|\*\*[0-9]+\.[0-9]\*\*/, "")
            gsub(/[Cc]hapters? [0-9]+( and [0-9]+)?|exercise [0-9.]+|\[[a-z]* [0-9]+\]/, "")
            if (exercise) gsub(/(^| )[0-9]+\.[12]( |$)/, " ")
            split("", found); numbers_of($0, found)
            for (i = 1; i <= found[0]; i++)
                if (!((chapter, plain(found[i])) in shown) &&
                    !((chapter, plain(found[i])) in sourced) &&
                    !(answers && ("any", plain(found[i])) in shown))
                    print FILENAME ":" FNR ": no command of this chapter prints the number " found[i]
        }
    ' "$1" "$1" > "$dir/numbers"
    if [ -s "$dir/numbers" ]; then while read -r line; do fail "$line"; done < "$dir/numbers"; else ok; fi
}

(cd "$dir/tree" && make -s) > "$dir/out" 2>&1 || { cat "$dir/out"; fail "make fails"; }
for text in TUTORIAL.md README.md; do
    check_blocks "$text"
    check_links "$text"
    check_numbers "$text"
done

# The README's picture is, to the byte, what a run of the engine draws now, and the words for it say its numbers.
picture() { sed -n 's|<[^>]*>||gp' "$1" | grep -e 'peak' -e 'through [0-9]' | grep -o '[0-9][0-9,.]*'; }
if in_tree 'make -s build/cc-float/plots/picture && build/cc-float/plots/picture'; then
    if cmp -s "$dir/out" plots/first_step.svg; then ok
    else fail "plots/first_step.svg is not what a run draws now; make picture: $(picture "$dir/out" | tr '\n' ' ')"; fi
    if [ "$(picture "$dir/out" | wc -l)" -eq 8 ]; then ok; else fail "the picture has no two peaks and no two counts of gradients"; fi
    words=$(sed -n '/^!\[/,/first_step/p' README.md | tr '\n' ' ')
    for number in $(picture "$dir/out"); do
        case $words in *" $number "*) ok ;; *) fail "README.md's words for the picture do not say $number" ;; esac
    done
else fail "the picture cannot be drawn"; fi
# So are the tutorial's tapes.
for tape in plots/tape_*.svg; do
    name=${tape#plots/tape_}
    if in_tree "make -s build/cc-float/plots/tape && build/cc-float/plots/tape ${name%.svg}" && cmp -s "$dir/out" "$tape"; then ok
    else fail "$tape is not what a run draws now; make picture"; fi
    if grep -q "($tape)" TUTORIAL.md; then ok; else fail "TUTORIAL.md does not show $tape"; fi
done

finish
