#!/usr/bin/env bash
# tests/kill_capture.sh [ROUNDS] - kill -9 at random moments of capture: the shards end in the same bytes.
set -u
cd "$(dirname "$0")/.." || exit 1
bin=${DRAFTSMITH:-./draftsmith} rounds=${1:-20}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
settings=(output_dir="$work/run" data.max_samples=16 data.dev_samples=2 data.eval_samples=2
    data.max_length=300 regenerate.max_new_tokens=24 capture.shard_mib=1 capture.chunk=256 runtime.threads=1 --quiet)

run() { "$bin" "$@" "${settings[@]}" >"$work/out" 2>"$work/err"; }
shards() { (cd "$work/run/shards" && find . -type f ! -name '*.lock' ! -name lock | LC_ALL=C sort | xargs sha256sum); }
give_up() { echo "FAIL  $1"; cat "$work/err"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

run prepare || give_up "prepare"
run regenerate || give_up "regenerate"
from=$(date +%s%N)
run capture || give_up "capture, unbroken"
whole=$((($(date +%s%N) - from) / 1000000))
want=$(shards)
killed=0 kept=0
for ((i = 1; i <= rounds; i++)); do
    rm -rf "$work/run/shards"
    ms=$(awk -v seed="$i" -v top="$whole" 'BEGIN { srand(seed); print int(rand() * top) + 1 }')
    "$bin" capture "${settings[@]}" >"$work/out" 2>"$work/err" &
    pid=$!
    sleep "$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))"
    if kill -9 "$pid" 2>/dev/null; then killed=$((killed + 1)); fi
    wait "$pid" 2>/dev/null
    left=$(find "$work/run/shards" -name 'shard-*.h5' 2>/dev/null | wc -l)
    if [ "$left" -gt 0 ]; then kept=$((kept + 1)); fi
    run capture || give_up "round $i: the capture does not go on after a kill at $ms ms"
    [ "$(shards)" = "$want" ] || give_up "round $i: other bytes after a kill at $ms ms"
done
[ "$killed" -gt 0 ] || give_up "no run was still alive when it was to be killed"
echo "$killed kills in $rounds rounds (a run takes $whole ms), $kept left shards behind: same bytes each time"
echo "1 passed, 0 failed, 0 skipped"
