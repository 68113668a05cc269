#!/bin/sh
# mpi.sh - training in several processes on this machine (make MPI=1): each number of them gives the bits of so many micro-batches
# in one process of a build without MPI; each ends as it should. Needs mpicc and mpirun of Open MPI or MPICH; without, one line says
# that it is skipped.

cd "$(dirname "$0")/.." || exit 1
for tool in mpicc mpirun; do
    command -v $tool > /dev/null || { echo "skipped: no $tool here (apt-get install openmpi-bin libopenmpi-dev, or mpich libmpich-dev)"; exit 0; }
done
. tests/ok.sh
fail() { failed=$((failed + 1)); echo "FAIL $1"; [ -f "$dir/log" ] && sed 's/^/     /' "$dir/log" | tail -n 5; }
expect() { what=$1; shift; if "$@"; then ok; else fail "$what"; fi; }

# What Open MPI asks for where it runs as root, or with more processes than cores; MPICH does not read these.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
unset CC # the two builds below are those of cc and mpicc
make -s programs && make -s MPI=1 programs || exit 1
alone=build/cc-float/train among=build/mpicc-float/train
small="--n-layer 2 --n-head 2 --n-embd 32 --block-size 16 --batch-size 5 --max-iters 8 --eval-interval 4 --warmup-iters 2"
awk 'BEGIN { for (i = 0; i < 400; i++) printf "The %d cats sat on a mat.\n", i * i % 97 }' > "$dir/text.txt"

runs() { what=$1; shift; if timeout 120 "$@" > "$dir/log" 2>&1; then ok; else fail "$what (status $?)"; fi; }
ranks() { n=$1; shift; runs "$n processes: $*" mpirun -n "$n" $among --data "$dir/text.txt" "$@"; }
micro() { n=$1; shift; runs "$n micro-batches: $*" $alone --data "$dir/text.txt" --micro-batches "$n" "$@"; }
same() { expect "$1 and $2 differ" cmp -s "$dir/$1" "$dir/$2"; }
metric() { sed -n "s/.*\"$2\": \([0-9]*\).*/\1/p" "$dir/$1/metrics.json"; }
# What the formula says that each process sends: 2 (n - 1) ceil(P / n) numbers of 4 bytes.
wire() {
    expect "$1: $(metric "$1" wire_bytes) bytes on the wire" awk "BEGIN { n = $2; P = $(metric "$1" trainable_parameters)
        exit !($(metric "$1" ranks) == n && $(metric "$1" wire_bytes) == 2 * (n - 1) * int((P + n - 1) / n) * 4) }"
}

# ------------------------------------------------------------------------------------------------------------- the same bits

for n in 2 4; do
    ranks $n --out "$dir/full$n" $small --dropout 0.1
    micro $n --out "$dir/full-alone$n" $small --dropout 0.1
    same full$n/model.safetensors full-alone$n/model.safetensors
    for kind in full$n full-alone$n; do cut -d , -f 1-5 "$dir/$kind/log.csv" > "$dir/$kind.losses"; done # without the times
    same full$n.losses full-alone$n.losses
    wire full$n $n
    ranks $n --out "$dir/lora$n" --init "$dir/full2" --lora-r 3 --batch-size 5 --max-iters 8 --eval-interval 4 --lora-targets c_attn,c_fc
    micro $n --out "$dir/lora-alone$n" --init "$dir/full2" --lora-r 3 --batch-size 5 --max-iters 8 --eval-interval 4 --lora-targets c_attn,c_fc
    same lora$n/adapter_model.safetensors lora-alone$n/adapter_model.safetensors
    wire lora$n $n
done
# Codes of four bits are the same in each process, and so are the gradients that pass through them.
frozen="--init $dir/full2 --base-type nf4 --lora-r 3 --lora-targets c_attn,c_fc --batch-size 5 --max-iters 8 --eval-interval 4"
ranks 2 --out "$dir/nf4" $frozen
micro 2 --out "$dir/nf4-alone" $frozen
same nf4/adapter_model.safetensors nf4-alone/adapter_model.safetensors
expect "nf4 learns what floats do" eval '! cmp -s "$dir/nf4/adapter_model.safetensors" "$dir/lora2/adapter_model.safetensors"'
# More numbers than are exchanged at once; and three processes, which no length here is a multiple of.
ranks 3 --out "$dir/large" --n-layer 2 --n-head 2 --n-embd 96 --block-size 16 --batch-size 4 --max-iters 3
micro 3 --out "$dir/large-alone" --n-layer 2 --n-head 2 --n-embd 96 --block-size 16 --batch-size 4 --max-iters 3
same large/model.safetensors large-alone/model.safetensors
wire large 3
# One process of this build, with mpirun and without; both together: each process takes its part in two passes.
runs "without mpirun" $among --data "$dir/text.txt" --out "$dir/single" --micro-batches 2 $small --dropout 0.1
same single/model.safetensors full-alone2/model.safetensors
ranks 2 --out "$dir/both" $small --micro-batches 2
micro 4 --out "$dir/both-alone" $small
expect "two processes of two micro-batches learn otherwise than four micro-batches" awk -F, 'NR == FNR { loss[FNR] = $2; next }
    FNR > 1 { n++; d = $2 - loss[FNR]; if (d * d > 1e-6) bad = 1 } END { exit bad || n < 2 }' "$dir/both/log.csv" "$dir/both-alone/log.csv"
wire both 2

# What the network's counters say, where there can be one of our own (Linux, root): headers, losses and flags
# come on top, and the two runs differ a little in what they say at their start.
if command -v ip > /dev/null && command -v unshare > /dev/null && unshare -n ip link set lo up 2> /dev/null &&
    mpirun --version | grep -q 'Open MPI'; then
    sent() { # STEPS OPTION...: bytes on the loopback device
        steps=$1; shift
        timeout 120 unshare -n sh -c 'ip link set lo up && "$@" > /dev/null 2>&1 && awk "/lo:/ { print \$10 }" /proc/net/dev' sh \
            mpirun --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include lo --mca oob_tcp_if_include lo -n 2 $among \
            --data "$dir/text.txt" --out "$dir/wire$kind" --overwrite --max-iters "$steps" --eval-interval 1000 "$@"
    }
    for kind in full lora; do
        what="--n-embd 96 --n-layer 2"; [ $kind = lora ] && what="--init $dir/large --lora-r 64"
        few=$(sent 2 $what) many=$(sent 102 $what)
        expect "$kind: on the wire ${few:-nothing}, then ${many:-nothing}" awk "BEGIN { ratio = (${many:-0} - ${few:-0}) / 100 / 2 / $(metric wire$kind wire_bytes)
            printf \"a step's bytes on the wire are %.3f times those predicted\n\", ratio; exit !(ratio > 0.998 && ratio < 1.1) }"
    done
else echo "skipped: bytes on the wire (no network namespace of our own, or not Open MPI)"; fi

# Going on with another number of processes, and with one.
for kind in full lora; do
    for n in 4 1; do
        rm -rf "$dir/on" "$dir/on-alone"
        cp -r "$dir/${kind}2" "$dir/on" && cp -r "$dir/$kind-alone2" "$dir/on-alone"
        ranks $n --resume --out "$dir/on" --max-iters 12
        micro $n --resume --out "$dir/on-alone" --max-iters 12
        file=model.safetensors; [ $kind = lora ] && file=adapter_model.safetensors
        same on/$file on-alone/$file
        expect "$kind, $n: it did not go on" grep -q '^12,' "$dir/on/log.csv"
    done
done

# ------------------------------------------------------------------------------------------------------------- how it ends

# refuses STATUS WORDS COMMAND...: one line of train's, whatever mpirun adds.
refuses() {
    status=$1 words=$2; shift 2
    timeout 120 "$@" > "$dir/log.out" 2> "$dir/log"
    got=$?
    if [ $got -eq "$status" ] && [ "$(grep -c '^train: ' "$dir/log")" -eq 1 ] && grep -q "^train: .*$words" "$dir/log"; then ok
    else fail "$*: status $got, not $status with one line like: $words"; fi
}
refuses 2 'no such option' mpirun -n 4 $among --nonsense
refuses 1 'nowhere' mpirun -n 3 $among --data "$dir/nowhere" --out "$dir/x"
refuses 2 'in 3 processes: 6 parts of a batch of 5 windows' mpirun -n 3 $among --data "$dir/text.txt" --out "$dir/x" --micro-batches 2 $small
expect "refused runs have left something" [ ! -e "$dir/x" ]
runs "help" mpirun -n 3 $among --help
expect "the help is there once" [ "$(grep -c 'micro-batches K' "$dir/log")" -eq 1 ]
# An error of one process alone is said by that one; weights that differ stop the run, at its start and at a save.
each="$among --data $dir/text.txt --out $dir/apart $small"
refuses 1 'nowhere' mpirun -n 1 $each : -n 1 $among --data "$dir/nowhere" --out "$dir/apart" $small
refuses 1 'step 0: process 2 has other weights.*has saved nothing' mpirun -n 2 $each : -n 1 $each --seed 3
runs "two that are alike" mpirun -n 2 $each --max-iters 4
cp "$dir/apart/model.safetensors" "$dir/before"
refuses 1 'step 8: process 1 has other weights.*saved before is intact' mpirun -n 1 $each --resume --max-iters 12 : -n 1 $each --resume --max-iters 13
same before apart/model.safetensors

# processes_of OUT: the trainings, without mpirun itself.
processes_of() {
    for p in /proc/[0-9]*; do
        { read -r name < "$p/comm"; } 2> /dev/null && [ "$name" = train ] || continue
        { tr '\0' ' ' < "$p/cmdline"; } 2> /dev/null | grep -qF -- "--out $1 " && echo "${p#/proc/}"
    done | sort -n
}
# started OUT: three processes that would take long, after their first save.
started() {
    mpirun -n 3 $among --data "$dir/text.txt" --out "$1" $small --max-iters 100000 > "$dir/log" 2>&1 &
    mpirun=$!
    for i in $(seq 300); do [ -f "$1/model.safetensors" ] && break; sleep 0.1; done
}
ended() { for i in $(seq 300); do kill -0 $mpirun 2> /dev/null || { wait $mpirun; return; }; sleep 0.1; done; kill -KILL $mpirun; fail "$1: it does not end"; }

# One is killed: all end, the last save is whole, and two go on with it.
started "$dir/killed"
kill -KILL "$(processes_of "$dir/killed" | tail -n 1)"
ended "one of three is killed" && fail "one of three is killed, and mpirun ends with 0"
expect "processes are left" [ -z "$(processes_of "$dir/killed")" ]
steps=$(sed -n '$s/,.*//p' "$dir/killed/log.csv")
ranks 2 --resume --out "$dir/killed" --max-iters $((steps / 4 * 4 + 4))
expect "it did not go on" grep -q "^$((steps / 4 * 4 + 4))," "$dir/killed/log.csv"
# A signal to one of them stops all after the same step, and is saved; so does one to mpirun.
for whom in one mpirun; do
    started "$dir/asked-$whom"
    [ $whom = one ] && kill -INT "$(processes_of "$dir/asked-$whom" | tail -n 1)" || kill -INT $mpirun
    ended "a signal to $whom" && fail "a signal to $whom, and mpirun ends with 0"
    expect "a signal to $whom: nothing is saved" grep -q '^stopped after step [0-9]* and saved' "$dir/log"
    ranks 2 --resume --out "$dir/asked-$whom" --max-iters 1
done

# -------------------------------------------------------------------------------------------------- nothing of it elsewhere

expect "a book's file or program speaks of MPI" [ -z "$(grep -l 'MPI\|mpi\.h' ./*.c ./*.h io/*.c)" ]
expect "a build without MPI has it" [ -z "$(nm $alone | grep -i 'mpi_')" ]
finish
