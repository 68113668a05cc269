# disguise.awk - says most lines of a C file in other words that mean the same:  awk -v seed=N -f disguise.awk FILE
#
# For L3.3: the tree with the bug differs from the first handout in hundreds of lines, of which one is the bug. Lines with strings, macros
# and comments are left alone; which of the others change, `seed` says.

# the parts of `text` before and after the first match of `pattern`, and the match
function find(text, pattern)
{
    if (!match(text, pattern)) return 0
    before = substr(text, 1, RSTART - 1)
    found = substr(text, RSTART, RLENGTH)
    after = substr(text, RSTART + RLENGTH)
    return 1
}

function reworded(text,    name, rest, op)
{
    if (find(text, "; [a-z]+\\+\\+\\)")) { name = substr(found, 3, length(found) - 5); text = before (FNR % 2 ? "; " name " += 1)" : "; ++" name ")") after }
    if (find(text, "; [a-z]+ < [A-Za-z_0-9.]+(->[a-z_]+)?;")) {
        name = rest = found
        sub(/^; /, "", name); sub(/ < .*/, "", name)
        sub(/^; [a-z]+ < /, "", rest); sub(/;$/, "", rest)
        text = before "; " rest " > " name ";" after
    }
    gsub(/ == NULL/, " == 0", text)
    gsub(/ != NULL/, " != 0", text)
    if (text ~ /^ *return [^;]*;[ ]*$/) { sub(/return /, "return (", text); sub(/;[ ]*$/, ");", text) }
    if (find(text, "^ *[a-z_]+ [-+*|&]= ") && after ~ /^[^;=]*;[ ]*$/) {
        name = found
        sub(/ [-+*|&]= $/, "", name)
        op = substr(found, length(found) - 2, 1)
        rest = name
        sub(/^ */, "", rest)
        sub(/;[ ]*$/, "", after)
        text = name " = " rest " " op " (" after ");"
    }
    return text
}

/^[ \t]*(\/\/|#)/ || /"/ || /\\$/ { print; next }
(FNR * 7919 + seed * 104729 + length($0) * 31) % 10 < 3 { print; next }
{
    at = index($0, "//")
    if (!at) print reworded($0)
    else { tail = substr($0, at); text = substr($0, 1, at - 1); spaces = text; sub(/ +$/, "", text); spaces = substr(spaces, length(text) + 1); print reworded(text) spaces tail }
}
