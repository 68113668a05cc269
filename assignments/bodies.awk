# bodies.awk - finds the bodies of the functions that assignments/tasks.txt names, and puts something else in their place.
#
#   awk -v mode=table                                   -f bodies.awk tasks.txt   the table alone: TASK POINTS FILE FUNCTION TITLE
#   awk -v mode=list                                    -f bodies.awk tasks.txt   one line each: TASK POINTS FILE LINE FUNCTION TITLE
#   awk -v mode=lines                                   -f bodies.awk tasks.txt   TASK and a line of its body
#   awk -v mode=stub -v into=FILE -v stubs=D -v tasks=T -f bodies.awk tasks.txt   FILE with D/TASK.c as the body of each task in T ("": all)
#
# A body is what stands between a function's braces, however the file is laid out: braces in strings and comments do not count. A table
# that is not in order, a function that is missing, there twice or not closed, and a body from F that would not stay inside its function
# is an error: one line on stderr with file and line, and exit status 1.

function wrong(file, at, why)
{
    printf "%s:%d: %s\n", file, at, why | "cat >&2"
    bad = 1
}

# The line with blanks in the place of strings and comments, so that each brace in it is one; `comment` lasts from line to line.
function code(text,    i, c, two, quote, out)
{
    if (!comment && text !~ /["'\/]/) return text
    quote = out = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        two = substr(text, i, 2)
        if (comment) { if (two == "*/") { comment = 0; out = out " "; i++ } c = " " }
        else if (quote != "") { if (c == "\\") { out = out " "; i++ } else if (c == quote) quote = ""; c = " " }
        else if (two == "//") return out
        else if (two == "/*") { comment = 1; out = out " "; i++; c = " " }
        else if (c == "\"" || c == "'") { quote = c; c = " " }
        out = out c
    }
    return out
}

# Reads a file into line[1..count]; false if it cannot be read.
function read_file(file,    status, text)
{
    count = 0
    while ((status = (getline text < file)) > 0) {
        sub(/\r$/, "", text)
        line[++count] = text
    }
    close(file)
    return status == 0
}

# Finds the function `name` in line[]: its head begins in line `head`, its first brace is line `first`, character first_at, its last one
# line `last`, character last_at. A definition begins in the first column, has the name before its first parenthesis, and a brace comes
# before a semicolon.
function find(file, name,    i, text, at, state, depth, pattern, offset, start)
{
    pattern = "^(__attribute__\\(\\([^)]*\\)\\))?([^(]*[^A-Za-z0-9_(])?" name "[ \t]*\\("
    state = head = comment = 0
    for (i = 1; i <= count; i++) {
        text = code(line[i])
        if (state == 0 && text ~ /^[A-Za-z_]/ && text ~ pattern && text !~ /^(if|else|for|while|do|switch|return)[^A-Za-z0-9_]/) {
            state = 1
            start = i
        }
        offset = 0
        while (state > 0 && match(text, state == 1 ? "[{;]" : "[{}]")) {
            at = substr(text, RSTART, 1)
            offset += RSTART
            text = substr(text, RSTART + 1)
            if (state == 1) {
                state = at == "{" ? 2 : 0
                if (state == 0) break
                if (head) wrong(file, i, name "() is there twice; the first is at line " head)
                head = start
                first = i
                first_at = offset
                depth = 1
            } else if (at == "{") depth++
            else if (--depth == 0) {
                last = i
                last_at = offset
                state = 0
            }
        }
    }
    if (!head) wrong(file, count, name "() is not in this file")
    else if (state) wrong(file, head, name "() leaves a " (comment ? "comment" : "brace") " open")
    return head && !state
}

# The lines of the body that find() found: body[1..return value].
function take_body(    i, n, text)
{
    n = 0
    for (i = first; i <= last; i++) {
        text = line[i]
        if (i == last) text = substr(text, 1, last_at - 1)
        if (i == first) text = substr(text, first_at + 1)
        if ((i == first || i == last) && text !~ /[^ \t]/) continue
        body[++n] = text
        body_line[n] = i
    }
    return n
}

# The stub of a task, under a line that names it.
function stub_of(id,    text, all)
{
    all = "    // task " id " (" points_of[id] " points): " title_of[id] "\n"
    if ((getline text < (stubs "/" id ".c")) <= 0) wrong(into, 0, "task " id " has no stub " stubs "/" id ".c")
    else do all = all text "\n"; while ((getline text < (stubs "/" id ".c")) > 0)
    close(stubs "/" id ".c")
    return all
}

# Prints line[] with new bodies: by_line[] says where one begins.
function print_file(    i, id)
{
    for (i = 1; i <= count; i++) {
        if (!(i in by_line)) { print line[i]; continue }
        id = by_line[i]
        printf "%s\n%s", substr(line[i], 1, opens_at[id]), new_body[id]
        i = closes[id]
        print substr(line[i], closes_at[id])
    }
}

# Its body is to be replaced; find() has found it.
function replace(id, text)
{
    by_line[first] = id
    opens_at[id] = first_at
    closes[id] = last
    closes_at[id] = last_at
    new_body[id] = text
}

/^#/ || /^[ \t]*$/ { next }

{ # a row of the table
    if ($0 !~ /^[LH][0-9]+(\.[0-9]+)? +[0-9]+ +[^ ]+\.c +[A-Za-z_][A-Za-z0-9_]* +[^ ]/) {
        wrong(FILENAME, FNR, "write NUMBER POINTS FILE FUNCTION TITLE, as in: L1.2 3 ops.c matmul_grad_a the gradient of a")
        next
    }
    if ($1 in name_of) wrong(FILENAME, FNR, "task " $1 " is there twice")
    if (($3 " " $4) in owner) wrong(FILENAME, FNR, $4 "() is task " owner[$3 " " $4] " already")
    owner[$3 " " $4] = $1
    order[++rows] = $1
    points_of[$1] = $2 + 0
    file_of[$1] = $3
    name_of[$1] = $4
    title = $0
    for (i = 1; i <= 4; i++) sub(/^[^ ]+ +/, "", title)
    title_of[$1] = title
}

END {
    if (!rows) wrong(FILENAME, FNR, "there is no task")
    if (bad) exit 1
    if (mode == "table") {
        for (k = 1; k <= rows; k++) print order[k], points_of[order[k]], file_of[order[k]], name_of[order[k]], title_of[order[k]]
    } else if (mode == "stub") {
        if (!read_file(into)) wrong(into, 0, "cannot be read")
        for (k = 1; k <= rows; k++) {
            id = order[k]
            if (file_of[id] == into && (tasks == "" || index(" " tasks " ", " " id " ")) && find(into, name_of[id])) replace(id, stub_of(id))
        }
        if (!bad) print_file()
    } else for (k = 1; k <= rows; k++) {
        id = order[k]
        if (file_of[id] != file && !read_file(file_of[id])) { wrong(file_of[id], 0, "task " id ": cannot be read"); continue }
        file = file_of[id]
        if (!find(file, name_of[id])) continue
        if (mode == "list") print id, points_of[id], file, head, name_of[id], title_of[id]
        if (mode == "lines") {
            n = take_body()
            for (i = 1; i <= n; i++) { gsub(/^[ \t]+|[ \t]+$/, "", body[i]); print id, body[i] }
        }
    }
    exit bad
}
