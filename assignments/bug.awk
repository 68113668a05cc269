# bug.awk - the faults of tests/mutants/, for a shell.
#
#   awk -v number=N   -f bug.awk assignments/bugs.txt tests/mutants/*.txt     prints one fault's file:, in:, - and + lines
#   awk -v mode=apply -v hunks=F -f bug.awk FILE                              the file with them applied; each must fit exactly once
#
# The form of the faults is told in tests/mutants.py.

function wrong(why) { print "bug: " why | "cat >&2"; bad = 1; exit }

# how often `part` is in `text`
function times(text, part,    count, at) { while ((at = index(text, part)) > 0) { count++; text = substr(text, at + 1) } return count + 0 }

# Replaces `before` by `after` in the file's text, within the part that `within` names.
function replace(    begin, end, head, middle, tail) {
    if (before == "") return
    begin = 1
    end = length(text)
    if (within != "") {
        begin = index(text, "\n" within)
        if (!begin) wrong("\"" within "\" begins no line of " FILENAME)
        end = begin + index(substr(text, begin + 1), "\n}")
    }
    head = substr(text, 1, begin - 1)
    middle = substr(text, begin, end - begin + 1)
    tail = substr(text, end + 1)
    if (times(middle, before) != 1) wrong("\"" before "\" is in " FILENAME " " times(middle, before) " times, not once")
    at = index(middle, before)
    text = head substr(middle, 1, at - 1) after substr(middle, at + length(before)) tail
    before = after = ""
}

mode == "apply" { text = text $0 "\n"; next }
/^#/ { next }
FILENAME ~ /\/bugs\.txt$/ { if ($1 == number) name = $2; next }
name == "" { wrong("there is no bug number " number " in assignments/bugs.txt") }
$0 == name { found = inside = 1; next }
/^[ \t]*$/ { inside = 0 }
inside && /^(file: |in: |- |\+)/ { print }

END {
    if (mode == "apply" && !bad) {
        while ((getline line < hunks) > 0) {
            if (line ~ /^in: /) within = substr(line, 5)
            else if (line ~ /^- /) {
                if (after != "") replace()
                before = before (before == "" ? "" : "\n") substr(line, 3)
            } else if (line ~ /^\+/) after = after (after == "" ? "" : "\n") substr(line, 3)
        }
        replace()
        printf "%s", text
    } else if (!bad && !found) wrong("no fault is called " name)
    if (bad) exit 1
}
