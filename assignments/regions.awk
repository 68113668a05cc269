# regions.awk - finds the solutions that are marked in the sources, and puts something else in their place.
#
#     // task L1.2 (10 points): matmul, the gradient of its first factor
#     ... the solution: whole statements inside one function
#     // end task
#
#   awk -v mode=list                          -f regions.awk FILE...       one line each: TASK POINTS FILE LINE FUNCTION TITLE
#   awk -v mode=lines                         -f regions.awk FILE...       TASK and a line of its solution, without spaces around it
#   awk -v mode=stub -v stubs=DIR -v tasks=T  -f regions.awk FILE          the file with DIR/TASK.c in the place of each task in T ("": all)
#   awk -v mode=splice -v task=TASK -v from=F -f regions.awk FILE          the file with F's solution of one task in the place of its own
#   awk -v mode=unmark                        -f regions.awk FILE          the file without the markers
#
# A marker that is misspelt, nested, not closed or there twice, and a solution that does not stay inside its function, is an error: one line
# on stderr with file and line, and exit status 1.

function wrong(file, line, why)
{
    printf "%s:%d: %s\n", file, line, why | "cat >&2"
    bad = 1
}

# Sets kind to "begin", "end" or "" for one line; for "begin" also id, points, title. Complains about what only looks like a marker.
function look(text, file, line,    rest)
{
    kind = ""
    if (text ~ /^[ \t]*\/\/ end task[ \t]*$/) { kind = "end"; return }
    if (text ~ /^[ \t]*\/\/ task [LH][0-9]+(\.[0-9]+)? \([0-9]+ points\): [^ ]/) {
        kind = "begin"
        rest = text
        sub(/^[ \t]*\/\/ task /, "", rest)
        id = rest; sub(/ .*/, "", id)
        points = rest; sub(/^[^(]*\(/, "", points); sub(/ points.*/, "", points)
        title = rest; sub(/^[^:]*: /, "", title)
        return
    }
    rest = tolower(text)
    if (rest ~ /^[ \t]*\/[\/*]+[ \t]*tasks?[ \t:]*[lh]?[0-9]/ || rest ~ /^[ \t]*\/[\/*]+[ \t]*end[ \t_-]*(of[ \t]*)?(the[ \t]*)?tasks?[ \t.]*$/ ||
        rest ~ /\/[\/*].*\([0-9]+ *points?\)/ || text ~ /[^ ].*\/\/ end task/)
        wrong(file, line, "this looks like a marker and is none; write `// task L1.2 (10 points): title` or `// end task`")
}

# Follows braces, strings and comments; depth and comment last from line to line. Sets low, the lowest depth that the line reached.
function follow(text,    i, c, next_c, quote)
{
    low = depth
    quote = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        next_c = substr(text, i + 1, 1)
        if (comment) { if (c == "*" && next_c == "/") { comment = 0; i++ } continue }
        if (quote != "") { if (c == "\\") i++; else if (c == quote) quote = ""; continue }
        if (c == "/" && next_c == "/") return
        if (c == "/" && next_c == "*") { comment = 1; i++; continue }
        if (c == "\"" || c == "'") { quote = c; continue }
        if (c == "{") depth++
        if (c == "}" && --depth < low) low = depth
    }
}

# The student's solution of `task` in file `from`, or an error: each line must be one that could stand in the middle of a function.
function read_solution(from,    line, status, inside)
{
    inside = found = depth = comment = 0
    solution = ""
    while ((status = (getline text < from)) > 0) {
        line++
        sub(/\r$/, "", text)
        look(text, from, line)
        if (kind == "begin") {
            if (inside) wrong(from, line, "task " id " begins inside task " task)
            if (id == task && found++) wrong(from, line, "task " task " is there twice")
            if (id == task) { inside = 1; start = line }
        } else if (kind == "end") inside = 0
        else if (inside) {
            if (text ~ /^[ \t]*(#|%:|\?\?=)/) wrong(from, line, "no preprocessor lines inside a task")
            if (text ~ /\\$/) wrong(from, line, "no line of a task may end in a backslash")
            follow(text)
            if (low < 0) wrong(from, line, "this closes a brace that was opened outside task " task)
            solution = solution text "\n"
        }
    }
    close(from)
    if (status < 0) wrong(from, 0, "cannot be read")
    else if (!found) wrong(from, line, "the markers of task " task " are missing")
    else if (inside) wrong(from, start, "task " task " has no `// end task`")
    else if (depth > 0) wrong(from, start, "task " task " leaves a brace open")
    else if (comment) wrong(from, start, "task " task " leaves a comment open")
}

function print_file(name,    count, line)
{
    while ((getline line < name) > 0) { print line; count++ }
    close(name)
    if (!count) wrong(FILENAME, FNR, "task " id " has no stub " name)
}

FNR == 1 {
    if (open != "") wrong(last_file, open_line, "task " open " has no `// end task`")
    open = ""
    hidden = 0
    function_name = "-"
    if (mode == "splice") { read_solution(from); depth = comment = 0 }
    last_file = FILENAME
}

/^[A-Za-z_].*\(/ && !/;[ \t]*$/ && !/^typedef|^#/ { # the head of a function
    function_name = $0
    sub(/^__attribute__\(\([a-z]*\)\) /, "", function_name)
    sub(/\(.*/, "", function_name)
    sub(/.*[ *]/, "", function_name)
}

{
    look($0, FILENAME, FNR)
    if (kind == "begin") {
        if (open != "") wrong(FILENAME, FNR, "task " id " begins inside task " open)
        if (id in where) wrong(FILENAME, FNR, "task " id " is there twice; the first is at " where[id])
        where[id] = FILENAME ":" FNR
        open = id
        open_line = FNR
        if (mode == "list") print id, points, FILENAME, FNR, function_name, title
        if (mode != "lines" && mode != "unmark" && mode != "list") print
        depth = comment = 0
        if (mode == "stub" && (tasks == "" || index(" " tasks " ", " " id " "))) { print_file(stubs "/" id ".c"); hidden = 1 }
        if (mode == "splice" && id == task) { printf "%s", solution; hidden = 1; spliced = 1 }
        next
    }
    if (kind == "end") {
        if (open == "") wrong(FILENAME, FNR, "`// end task` without a task")
        else if (depth != 0 || comment) wrong(FILENAME, open_line, "task " open " leaves a brace or a comment open")
        open = ""
        hidden = 0
        if (mode == "stub" || mode == "splice") print
        next
    }
    if (open != "") {
        follow($0)
        if (low < 0) { wrong(FILENAME, FNR, "this closes a brace that was opened outside task " open); depth = 0 }
        if (mode == "lines") { line = $0; gsub(/^[ \t]+|[ \t]+$/, "", line); print open, line }
    }
    if ((mode == "stub" || mode == "splice" || mode == "unmark") && !hidden) print
}

END {
    if (open != "") wrong(last_file, open_line, "task " open " has no `// end task`")
    if (mode == "splice" && !spliced && !bad) wrong(last_file, FNR, "there is no task " task)
    exit bad
}
