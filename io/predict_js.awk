# predict_js.awk - predict.c in JavaScript, so that the page's sliders and the engine share one statement of the formulas.
#
#     awk -f io/predict_js.awk fast/fast.h fast/*.c predict.c      or, in the plain build, kernels.c predict.c
#
# No compiler, but enough for that file: types, casts and pointers go, initialisers become objects, a division of whole numbers
# stays one. Of the files before it come scratch_size and what that is made of. What else predict.c takes from its headers
# (kinds, layers, sizes of a layer) stands in io/report.html before this. A test runs both on many configurations; a line of
# predict.c that these rules do not know fails there.

BEGIN {
    type = "(static )?(inline )?(const )?(void|bool|int|int64_t|double|Paper|Flow|Config|LoraConfig|Prediction|MemoryKind) \\**"
    word = "[A-Za-z_0-9]+"
    scratch = "(scratch_size|attention_scratch|behind_products|block_room|whole_lanes|product_scratch|smaller|larger)"
}

FILENAME !~ /predict\.c$/ {
    if ($0 ~ "^" type scratch "\\(.*\\)( \\{.*)?$") wanted = 1 # a definition: its end is a brace, on this line or on one of its own
    if (!wanted && !/^enum \{ (LANES|DEPTH|QUERIES) = /) next
    if (/\}( *\/\/.*)?$/) wanted = 0
}
/^#include/                    { next }
/^typedef struct.*}/           { next } # objects need no declaration
/^typedef struct/              { declaring = 1 }
declaring                      { if (/^}/) declaring = 0; next }

{
    comment = ""
    if (match($0, / *\/\//)) { comment = substr($0, RSTART); $0 = substr($0, 1, RSTART - 1) }
    gsub(/\((LinearKind|double|int|int64_t|void)\)/, "")
    gsub(/NULL/, "null")
    gsub(/1u/, "1")
    gsub(/&paper/, "paper")
    gsub(/memcpy\(p->at_peak, p->live, sizeof p->live\)/, "p.at_peak = p.live.slice()")
    gsub(/->/, ".")
    gsub(/for \((int|int64_t) /, "for (let ")
    sub(/bool a\[LINEARS\]/, "let a = []")
    if (/^enum/) { sub(/enum \{/, "const"); sub(/ \};/, ";") }

    if ($0 ~ "^" type word "\\(") { # a function's head: static int64_t f(const Config *config, int B)
        sub("^" type, "")
        gsub(type, "")
        $0 = "function " $0
    }
    if (match($0, /(Paper|Prediction) [a-z]+ = \{[^}]*\}/)) { # zeros, and what is given
        initialiser = substr($0, RSTART, RLENGTH)
        split(initialiser, part, / /)
        sub(/^[^{]*/, "", initialiser)
        $0 = substr($0, 1, RSTART - 1) "let " part[2] " = Object.assign(" part[1] "(), " initialiser ")" substr($0, RSTART + RLENGTH)
    }
    if (match($0, "^ *" type word)) { # a local variable
        match($0, /^ */)
        indent = substr($0, 1, RLENGTH)
        sub("^ *" type, indent "let ")
    }
    while (match($0, "[{,] *\\." word " = ")) { # { .peak = x } is { peak: x }
        field = substr($0, RSTART, RLENGTH)
        sub(/\./, "", field)
        sub(/ = /, ": ", field)
        $0 = substr($0, 1, RSTART - 1) field substr($0, RSTART + RLENGTH)
    }
    done = ""
    while (match($0, /(\([^()]*\)|[A-Za-z0-9_.]+) \/ [A-Za-z0-9_.]+/)) { # all of predict.c's quotients are of whole numbers
        done = done substr($0, 1, RSTART - 1) "Math.floor(" substr($0, RSTART, RLENGTH) ")"
        $0 = substr($0, RSTART + RLENGTH)
    }
    $0 = done $0
    done = ""
    while (match($0, /(^|[^A-Za-z0-9_.])in($|[^A-Za-z0-9_:])/)) { # `in` is a word of JavaScript's own
        found = substr($0, RSTART, RLENGTH)
        sub(/in/, "in_", found)
        done = done substr($0, 1, RSTART - 1) substr(found, 1, length(found) - 1)
        $0 = substr(found, length(found)) substr($0, RSTART + RLENGTH)
    }
    print done $0 comment
}
