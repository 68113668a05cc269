#!/bin/sh
# coverage.sh - which lines of the book do the tests run? Each that they do not must have its reason in tests/uncovered.txt: lines
# FILE, a part of the line's text, why; separated by tabs. Ends with `N passed, N failed`.
cd "$(dirname "$0")/.." || exit 1
book='tensor memory autograd ops ops_gpt recompute lora transformer adapters adamw training generate meter predict'
passed=0
failed=0
dir=build/gcc-float-coverage

tests='kernels fast ops op_values shares uses engine model sampling again adapters peft adamw recompute steps training predict checkpoint' # those that are about the book; unoptimised, the others take their time
rm -rf $dir
make -s CC=gcc COVERAGE=1 $(for t in $tests faults; do echo $dir/test_$t; done) || exit 1
sh tests/run.sh $(for t in $tests; do echo $dir/test_$t; done) > $dir/log || { cat $dir/log; exit 1; }
cat $dir/log
for t in every_allocation_of_a_step_fails_in_turn threads_that_cannot_be_started; do # the others let the counters' files fail, too
    TEST=$t $dir/test_faults > $dir/log || { cat $dir/log; exit 1; }
    head -n 1 $dir/log
done
for file in $book; do
    set -- $(for built in $dir/$file.gcda $dir/wrapped/$file.gcda; do [ ! -f $built ] || gcov -t -o $built $file.c; done | awk -F: -v file=$file.c -v reasons=tests/uncovered.txt '
        BEGIN { while ((getline line < reasons) > 0) if (split(line, part, "\t") == 3 && part[1] == file) { text[++n] = part[2]; why[n] = part[3] } }
        /^ *-: *0:Source:/ { here = $4 == file } # headers come along
        !here { next }
        $1 ~ /[0-9]/ { ran[$2 + 0] }
        $1 ~ /#####/ { left[$2 + 0] = $0 }
        END {
            for (line in ran) { run++; delete left[line] } # run in either build: the fault tests have one of their own
            for (line in left) {
                missed++
                source = left[line]; sub(/^[^:]*:[^:]*:/, "", source)
                found = 0
                for (i = 1; i <= n; i++) if (index(source, text[i])) found = i
                if (!found) { unexplained++; print file ":" line ": not run, and no reason given: " source > "/dev/stderr" }
            }
            printf "%d %d %d\n", run, missed, unexplained }')
    share=$(awk "BEGIN { printf \"%.1f\", 100 * $1 / ($1 + $2) }")
    if [ "$3" -eq 0 ]; then verdict=ok passed=$((passed + 1)); else verdict=FAIL failed=$((failed + 1)); fi
    printf '%-4s %-14s %5s %% of %4d lines; %d not run, %d of them without a reason\n' $verdict $file.c "$share" $(($1 + $2)) "$2" "$3"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
