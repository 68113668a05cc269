#!/bin/sh
# `make walk` names functions that exist, in the order in which a step meets them: the step is compiled so that it reports every
# function that it enters. Each op and each kernel that it meets must be named.

unset MAKEFLAGS MFLAGS MAKELEVEL REAL DEBUG PLAIN PORTABLE SANITIZE
. tests/ok.sh

if make -s walk > "$dir/walk" 2> "$dir/errors"; then ok; else fail "make walk: $(cat "$dir/errors")"; fi
awk '/^ *[0-9]+  / { print $2 }' "$dir/walk" > "$dir/named"
grep -c . "$dir/named" > "$dir/count"
if [ "$(cat "$dir/count")" -eq "$(grep -c '^[a-z]' gdb/walk.txt)" ]; then ok; else fail "make walk leaves out lines"; fi
# file and line are those of the definition
awk '/^ *[0-9]+  / { split($3, at, ":"); print $2, at[1], at[2] }' "$dir/walk" > "$dir/places"
while read -r name file line; do
    if sed -n "${line}p" "$file" | grep -q "[ *]$name("; then ok; else fail "$file:$line does not define $name"; fi
done < "$dir/places"

# README.md's map: no file of the book includes one of a later row, and the files' "Read next" lines go down it to the programs.
sed -n '/^| `tensor\.h`/,/^| `predict\.h`/p' README.md | cut -d '|' -f 2 |
    sed 's/`\([a-z]*\)\.h` `\.c`/\1.h \1.c/g; s/`//g' > "$dir/map"
if [ "$(wc -l < "$dir/map")" -ge 10 ]; then ok; else fail "README.md has no map of the book"; fi
earlier= done=
while read -r row; do
    earlier="$earlier $row"
    for file in $row; do
        for included in $(sed -n 's/^#include "\(.*\)"$/\1/p' "$file"); do
            case "$earlier " in
            *" $included "*) ok ;;
            *) fail "$file includes $included, which README.md's map has not yet" ;;
            esac
        done
        next=$(sed '/^$/q' "$file" | tr '\n' ' ' | sed -n 's/.*Read next:[^.]*[^a-z_.]\([a-z_]*\.[a-z]*\).*/\1/p')
        if [ ! -e "$next" ]; then fail "$file does not say at its head what to read next"; continue; fi
        case "$done " in *" $next "*) fail "$file says to read $next next, which came before" ;; *) ok ;; esac
    done
    done=$earlier
done < "$dir/map"

# Each file of the book and each program says at its head what it is; each experiment where to look, in 40 to 100 lines from which
# nothing but public headers is included.
says() { sed -n 1p "$1" | grep -q "^// ${1##*/} - ." && sed '/^$/q' "$1" | grep -q "$2"; }
for file in $(cat "$dir/map") train.c sample.c adapter.c demo.c; do
    if says "$file" 'Read next: '; then ok; else fail "$file does not say at its head what it is and what to read next"; fi
done
for file in io/*.h io/*.c; do
    if says "$file" .; then ok; else fail "$file does not say at its head what it is"; fi
done
for file in experiments/q*.c; do
    lines=$(wc -l < "$file")
    if says "$file" 'Look at' && [ "$lines" -ge 40 ] && [ "$lines" -le 100 ] && ! grep -q '^#include ".*\.c"' "$file"; then ok
    else fail "$file ($lines lines) does not say where to look, or is too long to be read at once"; fi
done

cat > "$dir/hook.c" <<'END'
#include <stdio.h>
#define HOOK __attribute__((no_instrument_function)) void
HOOK __cyg_profile_func_enter(void *function, void *site);
HOOK __cyg_profile_func_exit(void *function, void *site);
HOOK __cyg_profile_func_enter(void *function, void *site) { (void)site; fprintf(stderr, "%016lx\n", (unsigned long)function); }
HOOK __cyg_profile_func_exit(void *function, void *site) { (void)function, (void)site; }
END
echo 'int main(void) { return 0; }' > "$dir/empty.c"
flags="-std=c11 -D_POSIX_C_SOURCE=200809L -O0 -I. -finstrument-functions -fno-pie -no-pie"
CC=${CC:-cc}
if ! command -v nm > /dev/null || ! $CC $flags "$dir/empty.c" "$dir/hook.c" -o "$dir/empty" 2> /dev/null ||
    ! "$dir/empty" 2>&1 | grep -q '^00' || ! nm "$dir/empty" | grep -q ' main$'; then # macOS: _main, and elsewhere in each run
    echo "$CC cannot report the functions that a program enters, or nm is missing: the order is not tested"
    finish
fi
book="tensor.c memory.c quantise.c kernels.c autograd.c ops.c ops_gpt.c recompute.c lora.c transformer.c adapters.c adamw.c meter.c"
if $CC $flags gdb/step.c $book "$dir/hook.c" -o "$dir/step" -lm -lpthread &&
    "$dir/step" > "$dir/out" 2> "$dir/entered"; then ok; else fail "the step does not build or run"; fi

# met: each function once, in the order of its first call
nm "$dir/step" > "$dir/names"
awk 'NR == FNR { name[$1] = $3; next } !seen[$1]++ && $1 in name { print name[$1] }' "$dir/names" "$dir/entered" > "$dir/met"
awk 'NR == FNR { named[$1]; next } $1 in named && !seen[$1]++' "$dir/named" "$dir/met" > "$dir/order"
if diff "$dir/named" "$dir/order" > "$dir/difference"; then ok
else
    fail "gdb/walk.txt is not in the order in which a step meets the functions (< the list, > the step):"
    sed 's/^/     /' "$dir/difference"
fi
for name in $(grep -E '^op_|_forward$|_grad$|_grad_[a-zA-Z]*$' "$dir/met"); do
    case $name in tensor_drop_grad | set_requires_grad | count_grad* | need_grad) continue ;; esac # no kernels
    if grep -qx "$name" "$dir/named"; then ok; else fail "the step meets $name, which gdb/walk.txt does not name"; fi
done
finish
