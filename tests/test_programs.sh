#!/bin/sh
# The programs as a user calls them: small runs that must work, and wrong calls that must be refused in one line, with the right
# status, and without touching what is there.

BIN=${BIN:-.} # where the programs are
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0
ok() { passed=$((passed + 1)); }
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
runs "sampling with an adapter" $BIN/sample --model "$dir/base" --adapter "$dir/adapter" --length 20
runs "adapter info" $BIN/adapter info "$dir/adapter"
prints 'h.1.mlp.c_proj'
runs "adapter merge" $BIN/adapter merge "$dir/adapter" --out "$dir/merged"
runs "sampling from the merged model" $BIN/sample --model "$dir/merged" --length 20
runs "adapter diff" $BIN/adapter diff "$dir/adapter" "$dir/adapter"
prints '1.0000'
runs "the same run with 1 thread" $BIN/train --data "$dir/text.txt" --out "$dir/one" --max-iters 20 --threads 1 $small
runs "and with 3" $BIN/train --data "$dir/text.txt" --out "$dir/three" --max-iters 20 --threads 3 $small
runs "gives the same bytes" cmp "$dir/one/model.safetensors" "$dir/three/model.safetensors"
runs "half of it" $BIN/train --data "$dir/text.txt" --out "$dir/half" --max-iters 10 --threads 2 $small --min-lr 1e-3
runs "then the rest" $BIN/train --data "$dir/text.txt" --out "$dir/half" --resume --max-iters 20 --batch-size 2 --eval-interval 10 --warmup-iters 5 --min-lr 1e-3
runs "all at once" $BIN/train --data "$dir/text.txt" --out "$dir/whole" --max-iters 20 $small --min-lr 1e-3
runs "resuming gives the same bytes" cmp "$dir/half/model.safetensors" "$dir/whole/model.safetensors"
runs "the built-in tales" $BIN/train --out "$dir/tales" --max-iters 2 $small
prints 'no model can beat'
runs "a large shape" $BIN/demo --shape gpt3-175b
prints 'moments'
runs "a trace" $BIN/demo --trace
prints 'frozen: skipped, saves'
prints 'passed through 15 of 16 frozen linears and the head; 16 weight gradients'
for program in train sample adapter demo; do runs "$program --help" $BIN/$program --help; prints 'Example'; done

cp "$dir/one/model.safetensors" "$dir/before"
$BIN/train --data "$dir/text.txt" --out "$dir/one" --max-iters 1000000 $small --eval-interval 1000000 > "$dir/log" 2>&1 &
child=$!
sleep 1
kill -KILL $child
wait $child 2> /dev/null
runs "a run that is killed early leaves an older model alone" cmp "$dir/one/model.safetensors" "$dir/before"
$BIN/train --data "$dir/text.txt" --out "$dir/stopped" --max-iters 1000000 $small --eval-interval 1000000 > "$dir/log" 2>&1 &
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
refuses 2 'no such option' $BIN/train --learning-rat
refuses 2 'shape' $BIN/train --init "$dir/base" --n-layer 3
refuses 1 'none.d' $BIN/sample --model "$dir/none.d"
refuses 1 'prompt' $BIN/sample --model "$dir/base" --prompt '@@'
refuses 2 'info, merge or diff' $BIN/adapter nothing
refuses 2 'no such shape' $BIN/demo --shape huge
runs "another base" $BIN/train --data "$dir/text.txt" --out "$dir/other" --max-iters 2 $small --seed 7
refuses 1 'its fingerprint is' $BIN/sample --model "$dir/other" --adapter "$dir/adapter" --adapter "$dir/adapter"
if [ -e "$dir/x" ]; then fail "a refused run left $dir/x"; else ok; fi

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
