#!/bin/sh
# walk.sh - prints gdb/walk.txt with the file and line of each function's definition; `make walk` runs it, from the project's
# root.
# A function that no file defines, or more than one, is an error.

awk '
    # A definition begins in the first column, has the name before its first parenthesis, and does not end there.
    FNR == 1 { list = FILENAME ~ /walk.txt$/ }
    !list && /^[A-Za-z_]/ && !/^#|^typedef|;[ \t]*$/ {
        head = $0
        sub(/^__attribute__\(\([a-z]*\)\) /, "", head)
        if (match(head, /[ *][A-Za-z_0-9]+\(/)) {
            name = substr(head, RSTART + 1, RLENGTH - 2)
            found[name]++
            file[name] = FILENAME
            place[name] = FILENAME ":" FNR
        }
    }
    list && /^= / { print (n ? "\n" : "") substr($0, 3) }
    list && /^[a-z]/ {
        name = $1
        phrase = $0
        sub(/^[^ ]+ +/, "", phrase)
        if (found[name] != 1) {
            printf "walk: %s is defined in %d files, not in one: gdb/walk.txt is out of date\n", name, found[name] | "cat >&2"
            bad = 1
            next
        }
        printf "%3d  %-24s %-18s %s\n", ++n, name, place[name], phrase
    }
    END { exit bad || n == 0 }
' tensor.c memory.c quantise.c kernels.c autograd.c ops.c ops_gpt.c recompute.c lora.c transformer.c adapters.c adamw.c meter.c gdb/step.c \
    gdb/walk.txt
