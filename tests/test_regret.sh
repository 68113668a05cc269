#!/bin/sh
# The committed tables of experiments/regret are what a run gives: some of their rows are trained again (half a minute), no best
# rate lies at the edge of what was tried, and the pictures are, to the byte, what the tables draw.

. tests/ok.sh
regret=build/cc-float/experiments/regret/regret
make -s $regret || exit 1

check_of() { # DIR: $dir/out gets what it prints, and its counts are added
    "$regret" check "$1" > "$dir/out" 2>&1
    status=$?
}

check_of experiments/regret
if [ $status -eq 0 ] && tail -n 1 "$dir/out" | grep -q ', 0 failed$'; then ok
else fail "the committed rows are not what a run gives:"; grep -e FAIL -e difference "$dir/out" || tail -n 3 "$dir/out"; fi

# A loss made up, and a best rate without a neighbour, are noticed.
mkdir "$dir/changed" && cp experiments/regret/*.csv "$dir/changed/"
awk -F, -v OFS=, '$1 == "where" && $2 == "net" && $3 == 30 { $8 -= 0.2 }
                  $1 == "batch" && $2 == "full" && $3 == 4 { if ($5 < best || best == "") best = $5; if ($5 != best) next }
                  { print }' experiments/regret/seed1.csv > "$dir/changed/seed1.csv"
check_of "$dir/changed"
if [ $status -ne 0 ] && grep -q 'FAIL where, net, 30: trained again' "$dir/out" && grep -q 'FAIL seed 1, batch, full, 4: .*edge' "$dir/out"; then ok
else fail "changed rows are not noticed"; tail -n 3 "$dir/out"; fi

for claim in rates where knee forget batch variants; do
    if "$regret" draw $claim > "$dir/$claim.svg" && cmp -s "$dir/$claim.svg" plots/regret_$claim.svg; then ok
    else fail "plots/regret_$claim.svg is not what experiments/regret draws"; fi
    if grep -q "(plots/regret_$claim.svg)" TUTORIAL.md; then ok; else fail "TUTORIAL.md does not show plots/regret_$claim.svg"; fi
done

finish
