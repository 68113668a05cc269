#!/bin/sh
# The debugger's files: every function they break at exists, and a session in batch mode sees what gdb/README.md promises, with
# gdb's Python and without; so does one that reads its commands one by one, as from a keyboard (then gdb breaks long lines, if it
# is not told to leave that). Where gdb is missing, or may not run a program, only the first part is tested.

# Whatever `make test` was called with: gdb has a build of its own.
unset MAKEFLAGS MFLAGS MAKELEVEL REAL DEBUG PLAIN PORTABLE SANITIZE
. tests/ok.sh

breakpoints=$(sed -n 's/^ *t*break  *\([a-z_A-Z0-9]*\)\( .*\)*$/\1/p' gdb/*.gdb)
[ -n "$breakpoints" ] || fail "no breakpoint in gdb/*.gdb"
for name in $breakpoints; do
    if grep -q "^[a-zA-Z].*[ *]$name(.*[^;]\$" ./*.c; then ok; else fail "gdb/*.gdb stops at $name, which nothing defines"; fi
done
for name in $(sed -n 's/^skip -rfunction ^(\(.*\))\$$/\1/p' gdb/meltwater.gdb | tr '|' ' '); do
    if grep -q "^[a-zA-Z].*[ *]$name(.*[^;]\$" ./*.[ch]; then ok; else fail "gdb/meltwater.gdb skips $name, which nothing defines"; fi
done

if ! command -v gdb > /dev/null; then
    echo "gdb is not installed: its session is skipped"
    finish
fi
if ! gdb -batch -nx -ex run --args /bin/sh -c : 2> /dev/null | grep -q 'exited normally'; then
    echo "gdb may not run a program here: its session is skipped"
    finish
fi

# All that the commands print, from the first gradient kernel to the end, in sections.
cat > "$dir/session.gdb" <<'END'
echo == start\n
bt
tape
flow
ledger
tensor n->in[0]
printf "ledger.total is %ld\n", ledger.total
echo == words\n
p *n
p *n->in[0]
echo == there\n
product
echo == back\n
guard
echo == steps\n
END
for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do echo step; done >> "$dir/session.gdb"
cat >> "$dir/session.gdb" <<'END'
echo == deep\n
tbreak linear_grad_x
continue
tbreak product
continue
bt
delete
stop-frozen
echo == frozen\n
continue
flow
tape
tensor n->in[1]
END
# One by one: in a loop, gdb would run the breakpoints' own commands only after its end.
for round in 1 2 3 4 5 6 7 8 9 10 11; do echo continue; done >> "$dir/session.gdb"
cat >> "$dir/session.gdb" <<'END'
echo == guard\n
stop-guard
continue
up
echo == last\n
delete
tbreak adamw_step
continue
tensor optimizer->parameters[optimizer->count-1]
tensor optimizer->parameters[optimizer->count-2]
tensor optimizer->parameters[0]
echo == end\n
continue
END

session() { make -s gdb GDB="gdb -batch -nx $1" GDBFLAGS="-x $dir/session.gdb" > "$dir/$2" 2> "$dir/$2.err"; }
# The same, typed: gdb shows a prompt before each command, and takes only what `make gdb` loads.
typed() { make -s gdb GDB="gdb -q -nx" < "$dir/session.gdb" 2> "$dir/$1.err" | sed 's/^\((gdb) *\|> *\)*//' > "$dir/$1"; }
# section NAME: what was printed in it
section() { sed -n "/^== $1\$/,/^== /p" "$dir/$run"; }
# holds WHAT COUNT PATTERN SECTION: so many of the section's lines match
holds() {
    found=$(section "$4" | grep -c -e "$3")
    if [ "$found" -eq "$2" ]; then ok; return; fi
    fail "$run: $1: $found lines, not $2, of \`$4' match: $3"
    section "$4" | sed 's/^/     /' | head -12
}

# Without Python the commands call functions of the program, which gdb 13 cannot on a processor with AMX.
runs="with_python without_python typed"
if make -s gdb GDB="gdb -batch -nx" GDBFLAGS="-ex 'print shape_text(n->out)'" 2>&1 | grep -q 'Couldn.t write extended state'; then
    echo "this gdb cannot call a function on this processor: the session without Python is skipped"
    runs="with_python typed"
fi

for run in $runs; do
    case $run in
        with_python) session "" $run ;;
        without_python) session "-ex 'set \$\$without_python = 1'" $run ;;
        typed) typed $run ;;
    esac || fail "$run: make gdb ended with an error"
    if grep -i 'error\|no symbol\|not defined\|undefined\|cannot\|\[-W' "$dir/$run" "$dir/$run.err" > "$dir/errors"; then
        fail "$run: gdb complains"
        sed 's/^/     /' "$dir/errors"
    else ok; fi

    holds "it stops in the mean's gradient" 1 '^#0  mean_grad ' start
    holds "called by backward" 1 '^#[0-9]*  .* backward (' start
    holds "called by the step" 1 '^#[0-9]*  .*in step (what=.*"full"' start
    holds "tape: no node has run" 0 'has run' start
    holds "tape: the last node is at work" 1 '^-> #24  mean  *-> mean#24' start
    holds "tape: 25 nodes" 25 '^..  *#[0-9].* -> \|^-> #24.* -> ' start
    holds "flow: nothing is frozen" 1 '^0 gradients flow through frozen weight matrices; 0 frozen inputs' start
    holds "a gradient that is not there is not called zero" 1 'd/d transformer.wpe.weight .*grad: not computed$' start
    holds "ledger: the weights' bytes, 2024 floats" 1 '^weights  *8096  *8096  *8096$' start
    holds "ledger: the total" 1 "^total  *$(section start | sed -n 's/^ledger.total is //p') " start

    holds "one command to the first product" 1 '^a product: C \[27,8\] of A \[27,12\] and B \[12,8\], stored' there
    holds "and one back to the guard" 1 '^at the guard, node 22 (lm_head), input 0: layernorm#21 \[2,6,8\] requires grad' back
    # From the guard to the inner loop by `step`s: each prints the line that it stops at; a function that it enters, too.
    holds "18 steps, each at a line" 18 '^[0-9]' steps
    met=$(section steps | sed -n 's/^\([a-z_]*\) (.*/\1/p' | tr '\n' ' ')
    if [ "$met" = "run_gradient lm_head_grad_x product " ]; then ok; else fail "$run: steps meet $met"; fi
    down=$(section steps | sed -n '/^[0-9]/p' | grep -n 'Share rows = ' | cut -d: -f1)
    inner=$(section steps | sed -n '/^[0-9]/p' | grep -n 'sum += A.factor' | head -1 | cut -d: -f1)
    if [ "${down:-99}" -eq 13 ] && [ "${inner:-99}" -eq 17 ]; then ok
    else fail "$run: not 13 steps to the product and 17 to its inner loop, but ${down:-none} and ${inner:-none}"; fi

    for number in 0 1 2 3; do
        case $number in 0) name=product ;; 1) name=linear_grad_x ;; 2) name=run_gradient ;; 3) name=run_backward ;; esac
        holds "four functions from the loop to the product" 1 "^#$number  .*\\b$name (" deep
    done

    holds "the first frozen weight is the head" 1 '^through frozen transformer.wte.weight \[27,8\]' frozen
    holds "9 matrices, 8 of them with something that trains below" 8 '^through frozen .*\(wte\|attn\|mlp\)' frozen
    holds "and 4 layernorms" 4 '^through frozen .*ln_' frozen
    holds "not the lowest c_attn" 0 '^through frozen transformer.h.0.attn.c_attn' frozen
    holds "flow" 1 '^8 gradients flow through frozen weight matrices; 23 frozen inputs get none of their own$' frozen
    holds "tape: two nodes have run" 2 'has run' frozen
    holds "tensor: the frozen weight" 1 '^transformer.wte.weight \[27,8\] frozen, grad: not computed, |data| = 0' frozen
    holds "the guard, after the last of them" 1 '^the guard: linear#2 does not require grad' guard
    holds "and the line that it is" 1 '^[0-9].*if (!n->in\[i\]->requires_grad)' guard
    holds "B has a gradient" 1 '^lora.h.1.attn.c_attn.B \[2,24\] requires_grad, |grad| = 0\.[0-9]*[1-9]' last
    holds "A's is computed, and zero" 1 '^lora.h.1.attn.c_attn.A \[8,2\] requires_grad, |grad| = 0, ' last
    holds "a frozen weight's is not computed" 1 '^transformer.wte.weight \[27,8\] frozen, grad: not computed' last
    holds "the program ends well" 1 'exited normally' end
done

run=with_python
if gdb -batch -nx -ex 'python print("yes")' 2> /dev/null | grep -q yes; then
    holds "a node in words" 1 '^\$1 = mean(cross_entropy#23 \[12,1\]) -> mean#24 \[1\]$' words
    holds "a tensor in words" 1 '^\$2 = cross_entropy#23 \[12,1\] requires_grad, its data is gone, |grad| = 0$' words
    holds "arguments in words" 1 '^#0  mean_grad (n=0x[0-9a-f]* mean(cross_entropy#23' start

    # The session of gdb/README.md: its commands, and its lines in their order; addresses and line numbers aside.
    sed -n '/^## A session/,/^## lldb/p' gdb/README.md | sed -n '/^```$/,/^```$/p' | sed '/^```$/d' > "$dir/readme"
    general() { sed 's/0x[0-9a-f]*/0x/g; s/\.c:[0-9]*/.c/g'; }
    sed -n 's/^(gdb) //p' "$dir/readme" > "$dir/session.gdb"
    session "" output
    general < "$dir/output" > "$dir/left"
    grep -v '^(gdb) \|^ *\.\.\.$' "$dir/readme" | general > "$dir/promised"
    if [ -s "$dir/promised" ]; then ok; else fail "gdb/README.md has no session"; fi
    while IFS= read -r line; do
        at=$(grep -nxF -e "$line" "$dir/left" | head -1 | cut -d: -f1)
        if [ -z "$at" ]; then fail "gdb/README.md: a session does not print, or not in this order: $line"; continue; fi
        ok
        sed "1,${at}d" "$dir/left" > "$dir/rest"
        mv "$dir/rest" "$dir/left"
    done < "$dir/promised"
else
    echo "this gdb has no Python: its printing in words is skipped"
fi
run=without_python
case $runs in *without_python*) holds "without Python: bare fields" 1 'op = 0x[0-9a-f]* <mean_op>' words ;; esac
finish
