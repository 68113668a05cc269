#!/bin/sh
# The programs as a user calls them: small runs that must work, and wrong calls that must be refused in one line, with the right
# status, and without touching what is there.

BIN=${BIN:-.} # where the programs are
. tests/ok.sh
fail() { failed=$((failed + 1)); echo "FAIL $1"; [ -f "$dir/log" ] && sed 's/^/     /' "$dir/log" | tail -5; }

# runs WHAT COMMAND...: it must succeed
runs() { what=$1; shift; if "$@" > "$dir/log" 2>&1; then ok; else fail "$what (status $?)"; fi; }
# prints PATTERN: what the last command printed
prints() { if grep -q -e "$1" "$dir/log"; then ok; else fail "no line with: $1"; fi; }
# refuses STATUS PATTERN COMMAND...: one line on stderr that says why, and the status
refuses() {
    status=$1 pattern=$2; shift 2
    "$@" > "$dir/log.out" 2> "$dir/log"
    got=$?
    if [ $got -eq "$status" ] && [ "$(wc -l < "$dir/log")" -eq 1 ] && grep -q -e "$pattern" "$dir/log"; then ok
    else fail "$* : status $got, not $status with one line like: $pattern"; fi
}

small="--n-layer 2 --n-head 2 --n-embd 16 --block-size 16 --batch-size 2 --eval-interval 10 --warmup-iters 5"
awk 'BEGIN { for (i = 0; i < 400; i++) printf "The %d cats sat on \303\244 mat.\n", i * i % 97 }' > "$dir/text.txt"

runs "training on a file" $BIN/train --data "$dir/text.txt" --out "$dir/base" --max-iters 20 $small
prints '^final: train loss [0-9.]*, val loss [0-9.]*, [0-9]* tokens/s, peak [0-9]* bytes$'
for key in val_loss train_loss step_ms_median tokens_per_second trainable_parameters all_parameters dgrad wgrad wgrad_skipped peak_bytes flops; do
    if grep -q "\"$key\"" "$dir/base/metrics.json"; then ok; else fail "metrics.json lacks $key"; fi
done
runs "LoRA on it" $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-r 2 --lora-targets c_attn,c_proj --out "$dir/adapter" --max-iters 10 --eval-interval 10 --batch-size 2
prints 'train$'
runs "sampling" $BIN/sample --model "$dir/base" --length 20 --prompt "The ä"
# Each line is a prompt, one that cannot be read says so, and the next is taken.
printf 'The \n\n@@\nThe ä\n' | $BIN/sample --model "$dir/base" --interactive --length 20 > "$dir/talk" 2> "$dir/said"
if [ $? -eq 0 ] && [ "$(grep -c '^The ' "$dir/talk")" -eq 2 ] && [ "$(wc -l < "$dir/talk")" -ge 2 ] && grep -q 'sample: .*not among' "$dir/said"; then ok
else fail "prompts one after the other: $(cat "$dir/talk" "$dir/said")"; fi
runs "sampling with an adapter" $BIN/sample --model "$dir/base" --adapter "$dir/adapter" --length 20
runs "adapter info" $BIN/adapter info "$dir/adapter"
prints 'h.1.mlp.c_proj'
prints 'one more adapter like this on the same base takes [0-9.]* [kM]*B$'
prints '^switching takes [0-9]* nanoseconds$'
runs "adapter merge" $BIN/adapter merge "$dir/adapter" --out "$dir/merged"
runs "sampling from the merged model" $BIN/sample --model "$dir/merged" --length 20
runs "LoRA on q and v" $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-r 2 --lora-targets q,v --out "$dir/qv" --max-iters 10 --eval-interval 10 --batch-size 2
prints 'of which 256 ' # two blocks, of them q and v with A [16,2] and B [2,16] each
runs "and on" $BIN/train --resume --out "$dir/qv" --max-iters 12 --lora-targets q,v --lora-r 2
refuses 2 'c_attn is q, k and v in one' $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-r 2 --lora-targets q,c_attn --out "$dir/x"
runs "adapter diff" $BIN/adapter diff "$dir/adapter" "$dir/adapter"
prints '1.0000'
runs "micro-batches" $BIN/train --data "$dir/text.txt" --out "$dir/micro" --max-iters 20 $small --micro-batches 2
prints '^each step: 2 windows in 2 parts; 1 process with 2 each$'
if grep -q '"micro_batches": 2' "$dir/micro/metrics.json" && grep -q '"wire_bytes": 0' "$dir/micro/metrics.json"; then ok; else fail "metrics.json does not say how many"; fi
# the losses of the log are those of whole batches, but for rounding
if paste -d, "$dir/micro/log.csv" "$dir/base/log.csv" | awk -F, 'NR > 1 { n++; d = $2 - $8; if (d * d > 1e-6) bad = 1 } END { exit bad || n < 4 }'; then ok; else fail "micro-batches have another loss curve"; fi
# the peak falls with the parts, to the last: an evaluation between steps takes no more windows at once than a step
for k in 4 16 32; do
    runs "32 windows in $k parts" $BIN/train --data "$dir/text.txt" --out "$dir/in$k" --max-iters 4 --eval-interval 2 --batch-size 32 --micro-batches $k --n-layer 2 --n-head 2 --n-embd 16 --block-size 16
done
peak_of() { sed -n 's/.*"peak_bytes": {"total": \([0-9]*\).*/\1/p' "$dir/in$1/metrics.json"; }
if [ "$(peak_of 32)" -lt "$(peak_of 16)" ] && [ "$(peak_of 16)" -lt "$(peak_of 4)" ]; then ok; else fail "peaks in 4, 16 and 32 parts: $(peak_of 4), $(peak_of 16), $(peak_of 32)"; fi
refuses 2 'micro-batches 3, in 1 process: 3 parts of a batch of 2 windows; some would be empty' $BIN/train --data "$dir/text.txt" --out "$dir/x" --micro-batches 3 $small
refuses 2 'micro-batches 3, in 1 process' $BIN/train --resume --out "$dir/base" --micro-batches 3
runs "the same run with 1 thread" $BIN/train --data "$dir/text.txt" --out "$dir/one" --max-iters 20 --threads 1 $small
runs "and with 3" $BIN/train --data "$dir/text.txt" --out "$dir/three" --max-iters 20 --threads 3 $small
runs "gives the same bytes" cmp "$dir/one/model.safetensors" "$dir/three/model.safetensors"

# Going on: whole runs that were stopped, killed and resumed must give the bytes of those that were not.
runs "a whole run" $BIN/train --data "$dir/text.txt" --out "$dir/whole" --max-iters 60 --dropout 0.1 $small
runs "a whole run of LoRA" $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-r 2 --out "$dir/whole-lora" --max-iters 60 --batch-size 2 --eval-interval 10
# killed OUT COMMAND...: starts a run that saves after every step, kills it several times, lets it go on each time with another number of threads
killed() {
    out=$1; shift
    "$@" --out "$out" --max-iters 60 --eval-interval 1 --threads 2 > "$dir/log" 2>&1 &
    for seconds in 0.2 0.03 0.1 0.07 0.15 0.05; do
        child=$!
        sleep $seconds
        kill -KILL $child 2> /dev/null
        wait $child 2> /dev/null
        if [ -f "$out/training_state.safetensors" ]; then $BIN/train --resume --out "$out" --threads $((1 + turn % 3)) > "$dir/log" 2>&1 &
        else "$@" --out "$out" --max-iters 60 --eval-interval 1 > "$dir/log" 2>&1 &
        fi
        turn=$((turn + 1))
    done
    wait $!
}
turn=0
killed "$dir/killed" $BIN/train --data "$dir/text.txt" --dropout 0.1 $small
prints '^final: '
killed "$dir/killed-lora" $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-r 2 --batch-size 2
prints '^final: '
runs "its model has the bytes of the whole run's" cmp "$dir/killed/model.safetensors" "$dir/whole/model.safetensors"
runs "and so has its adapter" cmp "$dir/killed-lora/adapter_model.safetensors" "$dir/whole-lora/adapter_model.safetensors"
for kind in killed killed-lora; do # a row for each step, once: at eval-interval 1
    if awk -F, 'NR > 1 && $1 != NR - 1 { bad = 1 } END { exit bad || NR != 61 }' "$dir/$kind/log.csv"; then ok; else fail "$kind/log.csv has rows twice, or lacks some"; fi
    if [ -z "$(find "$dir/$kind" -name '.meltwater-*')" ]; then ok; else fail "$kind holds temporary files"; fi
done
runs "half of it" $BIN/train --data "$dir/text.txt" --out "$dir/half" --max-iters 10 --threads 2 $small --min-lr 1e-3
cp "$dir/half/model.safetensors" "$dir/older"
runs "then the rest, with a larger total" $BIN/train --out "$dir/half" --resume --max-iters 20
runs "all at once" $BIN/train --data "$dir/text.txt" --out "$dir/full" --max-iters 20 $small --min-lr 1e-3
runs "gives the same bytes" cmp "$dir/half/model.safetensors" "$dir/full/model.safetensors"
cp "$dir/older" "$dir/half/model.safetensors" # as if it had been killed between the state and the model
cp "$dir/half/metrics.json" "$dir/metrics"
runs "resuming where nothing is left to do" $BIN/train --out "$dir/half" --resume
prints '^final: train loss [0-9.]*, val loss [0-9.]*$'
runs "leaves what was measured" cmp "$dir/half/metrics.json" "$dir/metrics"
runs "brings an older model to the state's step" cmp "$dir/half/model.safetensors" "$dir/full/model.safetensors"
runs "options that are what they were" $BIN/train --resume --out "$dir/half" --batch-size 2 --min-lr 0.001 --seed 1337 --n-layer 2
refuses 2 'batch-size 3: the run in .* has 2' $BIN/train --resume --out "$dir/half" --batch-size 3
refuses 2 'min-lr 0.0005: the run in .* has 0.001' $BIN/train --resume --out "$dir/half" --min-lr 5e-4
refuses 2 'n-layer 3: the run in .* has 2' $BIN/train --resume --out "$dir/half" --n-layer 3
refuses 2 'seed 7: the run in .* has 1337' $BIN/train --resume --out "$dir/half" --seed 7
refuses 2 'lora-r 4: the run in .* has 0' $BIN/train --resume --out "$dir/half" --lora-r 4
refuses 2 'lora-targets c_fc: the run in .* has c_attn' $BIN/train --resume --out "$dir/killed-lora" --lora-targets c_fc
refuses 2 'leave out --init' $BIN/train --resume --out "$dir/half" --init "$dir/base"
refuses 1 'training_state.safetensors' $BIN/train --resume --out "$dir/nothing.here"
tr 'T' 't' < "$dir/text.txt" > "$dir/other.txt"
refuses 1 'not the text of the run' $BIN/train --resume --out "$dir/half" --data "$dir/other.txt"
cp "$dir/text.txt" "$dir/moved.txt"
runs "the same text elsewhere" $BIN/train --resume --out "$dir/half" --data "$dir/moved.txt"
cp -r "$dir/base" "$dir/base-moved"
runs "the same base elsewhere" $BIN/train --resume --out "$dir/killed-lora" --init "$dir/base-moved"
refuses 1 'another base: its fingerprint is .*, that of this one is' $BIN/train --resume --out "$dir/killed-lora" --init "$dir/whole"
runs "the built-in tales" $BIN/train --out "$dir/tales" --max-iters 2 $small
prints 'no model can beat'
runs "a large shape" $BIN/demo --shape gpt3-175b
prints 'moments'
runs "a trace" $BIN/demo --trace
prints 'frozen: saves'
prints 'passed through 15 of 16 frozen linears and the head;$'
prints '^16 weight gradients skipped, 1 never recorded; 8 adapter gradients computed'
refuses 2 'base-type nf3: there are float, nf4 and int8' $BIN/demo --base-type nf3
# What the system says of a process whose base is in four bits: of its 16 linear layers 3.1 MB of floats are gone. It may not say;
# and a sanitizer gives nothing back.
resident() { $BIN/demo --threads 1 "$@" --measure-resident c_attn_codes:43; }
floats=$(resident --base-type float) codes=$(resident --base-type nf4)
case $BIN in *sanitize*) codes=0 ;; esac
if [ "$floats" -eq 0 ] || [ $((floats - codes)) -gt 1500000 ]; then ok; else fail "resident: $codes bytes on nf4, $floats on floats"; fi
for program in train sample adapter demo; do
    runs "$program --version" $BIN/$program --version
    prints "^$program [0-9.]* of meltwater"
    runs "$program -h" $BIN/$program -h
    cp "$dir/log" "$dir/help"
    runs "$program --help" $BIN/$program --help
    prints 'Example'
    if cmp -s "$dir/log" "$dir/help"; then ok; else fail "$program: -h and --help differ"; fi
done
for shape in $($BIN/demo --shape huge 2>&1 | sed 's/.*there are://'); do
    if grep -q -e "$shape" "$dir/help"; then ok; else fail "demo --help lacks the shape $shape"; fi
done
runs "adapter alone" $BIN/adapter
prints 'adapter merge DIR --out OUT'

# What a terminal shows, and what a pipe gets. `script` lends a terminal.
# on_terminal COLUMNS VARIABLE=VALUE...: a short training on one of that width, whose output goes to $dir/log as it came
on_terminal() {
    columns=$1; shift
    env -u NO_COLOR TERM=xterm LC_ALL=C.UTF-8 "$@" script -qec "stty cols $columns; $BIN/train --out '$dir/seen' --overwrite --max-iters 40 $small" /dev/null \
        < /dev/null > "$dir/log" 2>&1
}
escape=$(printf '\033')
narrow() { # narrow COLUMNS PATTERN: no line with it, nor what overwrites one, is wider than that
    if LC_ALL=C tr -d '\200-\277' < "$dir/log" | LC_ALL=C tr '\r' '\n' | LC_ALL=C sed "s/$escape\[[0-9;]*m//g" |
        LC_ALL=C awk -v most="$1" -v pattern="$2" '$0 ~ pattern { n++; if (length > most) bad = 1 } END { exit bad || !n }'; then ok
    else fail "a line of more than $1 columns"; fi
}
if script -qec true /dev/null < /dev/null > /dev/null 2>&1; then
    on_terminal 80
    prints "$(printf '\r')training 40/40  .*loss [0-9.]*.*floor [0-9.]*.*val [0-9.]*.*[0-9]k chars/s  [0-9]* s left"
    prints "$escape"
    prints '▀'
    prints 'step 1 to 40; loss ▀, validation ○, floor ─'
    narrow 79 '^[^s]'
    on_terminal 60 NO_COLOR=1 LC_ALL=C
    prints "step 1 to 40; loss ', validation o, floor -"
    if grep -q -e "$escape" -e '▀' "$dir/log"; then fail "colours, or characters that the locale lacks"; else ok; fi
    narrow 59 '^training|^ .*[|+]|step'
    on_terminal 80 TERM=dumb
    if grep -q -e "$escape" -e 'step 1 to' "$dir/log" || [ "$(grep -c '^training' "$dir/log")" -ne 10 ]; then fail "no plain lines where TERM is dumb"; else ok; fi
else
    echo "no \`script\` that lends a terminal: what one shows is not tested"
fi
env TERM=xterm $BIN/train --out "$dir/seen" --overwrite --max-iters 40 $small > "$dir/log" 2>&1
if grep -q -e "$escape" -e "$(printf '\r')" "$dir/log" || [ "$(grep -c '^training' "$dir/log")" -ne 10 ]; then fail "a pipe gets more than ten plain lines"; else ok; fi
prints '^training 40/40  loss [0-9.]*  floor [0-9.]*  val [0-9.]*  [0-9]*k chars/s  [0-9]* s left$'
narrow 79 '^[^s]' # but for where it was saved
for words in "train --help" "sample --help" "adapter --help" "demo --help" "demo --shape gpt3-175b" "demo --shape llama-65b"; do
    $BIN/$words > "$dir/log" 2>&1
    narrow 80 .
done

cp "$dir/one/model.safetensors" "$dir/before"
cp "$dir/one/log.csv" "$dir/before.csv"
$BIN/train --data "$dir/text.txt" --out "$dir/one" --overwrite --max-iters 1000000 $small --eval-interval 1000000 > "$dir/log" 2>&1 &
child=$!
sleep 1
kill -KILL $child
wait $child 2> /dev/null
runs "a run that is killed early leaves an older model alone" cmp "$dir/one/model.safetensors" "$dir/before"
runs "and its log" cmp "$dir/one/log.csv" "$dir/before.csv"
runs "one that saves replaces both" $BIN/train --data "$dir/text.txt" --out "$dir/one" --overwrite --max-iters 4 $small
if [ "$(tail -n 1 "$dir/one/log.csv" | cut -d, -f1)" = 4 ]; then ok; else fail "the log is not of the new run"; fi
$BIN/train --data "$dir/text.txt" --out "$dir/stopped" --max-iters 1099511627776 $small --eval-interval 1000000 > "$dir/log" 2>&1 &
child=$!
sleep 1
kill -TERM $child
wait $child
prints 'go on with: ./train --resume'
runs "a run that is asked to stop saves first" $BIN/sample --model "$dir/stopped" --length 5
refuses 1 'make the directory' $BIN/train --data "$dir/text.txt" --out "$dir/text.txt/below" $small

printf 'abc\377def' > "$dir/bad.txt"
: > "$dir/empty.txt"
printf 'short' > "$dir/short.txt"
refuses 1 'offset 3' $BIN/train --data "$dir/bad.txt" --out "$dir/x"
refuses 1 'empty' $BIN/train --data "$dir/empty.txt" --out "$dir/x"
refuses 1 'short.txt' $BIN/train --data "$dir/short.txt" --out "$dir/x"
refuses 1 'nowhere.txt' $BIN/train --data "$dir/nowhere.txt" --out "$dir/x"
refuses 1 'tales' $BIN/train --data builtin:nothing --out "$dir/x"
refuses 2 'needs --init' $BIN/train --lora-r 4
refuses 2 'max-iters' $BIN/train --max-iters 10x
refuses 2 'no layer' $BIN/train --lora-targets c_attn,q_proj
refuses 2 'multiple of n_head' $BIN/train --n-embd 30 --n-head 4 --out "$dir/x"
refuses 2 'learning-rate: its value is missing: a number from 0 to 100$' $BIN/train --learning-rat
refuses 2 'no such option; is --learning-rate meant' $BIN/train --lerning-rate 1
refuses 2 'which of --lora-r, --lora-alpha, --lora-targets' $BIN/train --lora 1
refuses 2 'resume takes no value' $BIN/train --resume=1
refuses 2 'no such option; --help' $BIN/train --fast
refuses 2 'choose one' $BIN/train --resume --overwrite
refuses 2 'of memory' $BIN/train --n-layer 4096 --n-embd 65536 --out "$dir/x"
refuses 2 'shape' $BIN/train --init "$dir/base" --n-layer 3
refuses 1 'none.d' $BIN/sample --model "$dir/none.d"
refuses 1 'holds an adapter, and no model' $BIN/sample --model "$dir/adapter"
refuses 1 'holds an adapter, and no model' $BIN/train --data "$dir/text.txt" --init "$dir/adapter" --out "$dir/x"
refuses 1 'prompt' $BIN/sample --model "$dir/base" --prompt '@@'
refuses 2 'info, merge or diff' $BIN/adapter nothing
refuses 2 'no such shape' $BIN/demo --shape huge
runs "another base" $BIN/train --data "$dir/text.txt" --out "$dir/other" --max-iters 2 $small --seed 7
refuses 1 'its fingerprint is' $BIN/sample --model "$dir/other" --adapter "$dir/adapter" --adapter "$dir/adapter"

# What would replace somebody's work
refuses 2 'holds a model of 60 steps, validation loss [0-9.]*, of 20[0-9: -]*; go on with it by --resume, choose another --out, or replace it with --overwrite$' \
    $BIN/train --data "$dir/text.txt" --out "$dir/whole" --max-iters 20 $small
refuses 2 'holds a model of .*; choose another directory, or replace it with --overwrite$' $BIN/adapter merge "$dir/adapter" --out "$dir/merged"
runs "merging once more" $BIN/adapter merge "$dir/adapter" --out "$dir/merged" --overwrite

# What would replace a base, or put a model and an adapter into one directory
sum=$(cat "$dir/base/"* "$dir/adapter/"* | cksum)
refuses 2 'is the base itself' $BIN/adapter merge "$dir/adapter" --out "$dir/adapter/../base"
refuses 2 'holds a whole model' $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-r 2 --out "$dir/base"
refuses 2 'holds an adapter' $BIN/train --data "$dir/text.txt" --init "$dir/base" --out "$dir/adapter"
refuses 2 'holds an adapter' $BIN/adapter merge "$dir/adapter" --out "$dir/adapter"
latin="$dir/$(printf 'b\351')" # a path that is not UTF-8 cannot stand in an adapter's configuration
cp -r "$dir/base" "$latin"
refuses 2 'not UTF-8' $BIN/train --data "$dir/text.txt" --init "$latin" --lora-r 2 --out "$dir/latin"
refuses 2 'not UTF-8' $BIN/train --resume --out "$dir/killed-lora" --init "$latin"
if [ -e "$dir/latin" ]; then fail "a refused call made a directory"; else ok; fi
runs "adapter alone" $BIN/adapter
prints 'Example'
refuses 2 'needs --lora-r' $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-alpha 8 --out "$dir/x"
refuses 2 'needs --lora-r' $BIN/train --data "$dir/text.txt" --init "$dir/base" --lora-targets c_attn --out "$dir/x"
if [ "$(cat "$dir/base/"* "$dir/adapter/"* | cksum)" = "$sum" ]; then ok; else fail "a refused call changed a base or an adapter"; fi

refuses 2 '-a: no such option' $BIN/train -abc
refuses 2 'more than 2^30' $BIN/train --data builtin:tales --out "$dir/x" --n-embd 2 --n-head 1 --block-size 2048 --batch-size 1048576
refuses 1 'saved nothing' $BIN/train --data "$dir/text.txt" --out "$dir/diverged" --max-iters 40 $small --eval-interval 40 --learning-rate 100 --grad-clip 0
refuses 2 'no such option' $BIN/demo --shape gpt-7b --bogus
refuses 2 'no such option' $BIN/demo --trace --bogus
if [ -e "$dir/x" ]; then fail "a refused run left $dir/x"; else ok; fi

finish
