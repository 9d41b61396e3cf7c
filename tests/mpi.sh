#!/usr/bin/env bash
# tests/mpi.sh [KILLS] - several ranks under mpirun: the whole pipeline, the shards and the loss curve of one rank,
# killed ranks whose job goes on to the same bytes, stuck ones that end it with 76, and parallel efficiency.
set -u
cd "$(dirname "$0")/.." || exit 1
kills=${1:-2}
. tests/verdict.sh
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
RANDOM=20261121
export OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

command -v mpirun >/dev/null || { skip 'no mpirun (openmpi-bin)'; finish; }
ldd ./draftsmith | grep -q libmpi || { skip 'built without MPI (libopenmpi-dev)'; finish; }

small=(data.max_samples=20 data.dev_samples=4 data.eval_samples=2 data.dev_fraction=0.1 regenerate.max_new_tokens=24 regenerate.batch=1
    capture.shard_mib=1 capture.chunk=256 train.k=3 train.steps=50 train.anchors=24 train.lr=0.0003 train.dtype=f32
    train.step_weights=reach train.ema=0.9 train.dev_every=10 train.save_every=10 eval.select_k=3 eval.draft_tokens=3
    eval.bootstrap=100 eval.audit_prompts=1 eval.audit_draws=0 eval.cost=none export.to=hf export.force=true
    runtime.threads=1)
one() { # VERB DIR SETTINGS...: as a rank of one, four sequences a step
    ./draftsmith "$1" output_dir="$2" "${small[@]}" train.batch_sequences=4 "${@:3}" >"$2.out" 2>"$2.err" </dev/null
}
patience=1
two() { # the same by two ranks; patience: seconds between SIGTERM and SIGKILL when mpirun ends them
    exec mpirun --oversubscribe --mca odls_base_sigkill_timeout $patience -np 2 ./draftsmith "$1" output_dir="$2" "${small[@]}" train.batch_sequences=2 "${@:3}" \
        >"$2.out" 2>"$2.err" </dev/null
}
expect() { # EXIT_CODE one|two VERB DIR...: prints what went wrong
    ("${@:2}")
    local status=$?
    [ "$status" -eq "$1" ] || { echo "exit code $status, expected $1"; tail -n 20 "$4.err"; }
}
files() { (cd "$1" && find "${@:2}" -type f | LC_ALL=C sort | xargs sha256sum); }
weights() { (cd "$1/ckpt/step-000050" && sha256sum model.safetensors state.safetensors); }
losses() { sed -n 's/.*"step":\([0-9]*\),"train\/loss":\([^,]*\),.*/\1 \2/p' "$1/metrics.jsonl"; }
same_curve() { # A B: all 50 losses within 1e-5
    join <(losses "$1" | sort) <(losses "$2" | sort) | awk '
        { d = $2 / $3 - 1; if (d < 0) d = -d; if (d > worst) worst = d; n++ }
        END { if (n != 50 || worst > 1e-5) print n " losses of 50, largest difference " worst
              else print "      largest difference of 50 losses: " worst >"/dev/stderr" }'
}
said() { grep -c '^draftsmith' "$1.err"; }

a=$work/a b=$work/b c=$work/c
verdict 'one rank: prompts, answers, shards' "$(for v in prepare regenerate capture train; do expect 0 one $v "$a"; done)"
verdict 'two ranks: the whole pipeline' "$(expect 0 two run "$b")"
verdict 'stages of rank 0 are named' "$(for v in prepare eval export; do
    grep -q "^$v: rank 0 works, the others wait" "$b.err" || echo "$v"; done)"
verdict 'its data, answers and shards are those of one rank' "$(diff <(files "$a" data regen shards) <(files "$b" data regen shards))"
verdict 'its loss curve is that of one rank with the batch doubled' "$(same_curve "$a" "$b")"
cp -r "$b" "$c" && rm -rf "$c/ckpt" "$c/metrics.jsonl" "$c/tb" "$c/eval" "$c/export"
verdict 'again, to the same bytes' "$(expect 0 two train "$c"
    diff <(weights "$b") <(weights "$c"))"
verdict 'a finished run is found done, by any number of ranks' "$(before=$(files "$b" ckpt)
    expect 0 two train "$b"
    grep -q 'done before' "$b.err" || echo 'two ranks trained again'
    expect 0 one train "$b"
    grep -q 'done before' "$b.err" || echo 'one rank trained again'
    diff <(echo "$before") <(files "$b" ckpt))"

# Strikes a rank once a file of the run is there; its exit code is in $status, the time it took in $took_ms.
strike() { # SIGNAL RANK VERB DIR FILE SETTINGS...
    (two "$3" "$4" "${@:6}") &
    local job=$! pid from
    until [ -e "$4/$5" ] || ! kill -0 $job 2>/dev/null; do sleep 0.02; done
    [ -n "${at_once:-}" ] || sleep 0.0$((RANDOM % 10))
    for pid in $(pgrep -P $job); do # its own children alone
        grep -qz "^OMPI_COMM_WORLD_RANK=$2$" "/proc/$pid/environ" && break
    done
    from=$(date +%s%N)
    kill -"$1" "$pid"
    wait $job
    status=$?
    took_ms=$((($(date +%s%N) - from) / 1000000))
}
for ((i = 0; i < kills; i++)); do
    rank=$(((i + 1) % 2))
    rm -rf "$c/ckpt" "$c/metrics.jsonl"
    [ $rank -eq 0 ] || patience=4 # rank 0 saves meanwhile, on whatever disk and load there is
    strike KILL $rank train "$c" ckpt/step-0000$((10 + 10 * (i % 3)))
    patience=1
    verdict "rank $rank killed: the job ended in $took_ms ms, and goes on to the same bytes" "$(
        [ $status -eq 137 ] || echo "exit code $status, expected 137"
        [ $rank -eq 0 ] || grep -q '^draftsmith train: saved at step' "$c.err" || cat "$c.err"
        [ ! -e "$c/ckpt/step-000050" ] || echo 'it was done before the kill'
        expect 0 two train "$c"
        grep -q '^continuing behind step' "$c.err" || echo 'it began anew'
        diff <(weights "$b") <(weights "$c")
        same_curve "$b" "$c" 2>/dev/null)"
done
for rank in 1 0; do
    rm -rf "$c/ckpt" "$c/metrics.jsonl"
    strike STOP $rank train "$c" ckpt/step-000010 runtime.watchdog=2
    verdict "rank $rank stopped: exit 76 after $took_ms ms, naming it and the step" "$(
        [ $status -eq 76 ] || echo "exit code $status, expected 76"
        grep -qE "^draftsmith train: .*rank $((1 - rank)) of 2: stuck at step [0-9]+ of train: rank $rank has not answered" \
            "$c.err" || cat "$c.err")"
done
verdict 'and it goes on to the same bytes' "$(expect 0 two train "$c"
    diff <(weights "$b") <(weights "$c"))"
rm -rf "$c/ckpt" "$c/metrics.jsonl"
strike USR1 1 train "$c" ckpt/step-000010
verdict 'a signal to one rank stops all at one step: exit 75' "$([ $status -eq 75 ] || echo "exit code $status"
    grep -q '^draftsmith train: stopped by a signal at step' "$c.err" || cat "$c.err")"
verdict 'one rank goes on where two were, and says what that means' "$(expect 0 one train "$c"
    grep -q '^warning: .*was written with ranks "2", here it is "1"' "$c.err" || cat "$c.err"
    same_curve "$a" "$c" 2>/dev/null)"
rm -rf "$c/ckpt/step-000050" "$c/ckpt/train.json" "$c/ckpt/latest"
verdict 'another number of sequences a step is refused by name' "$(expect 2 two train "$c" train.batch_sequences=3
    grep -q 'train.batch_sequences was 4, now it is 6' "$c.err" || cat "$c.err"
    [ "$(said "$c")" -eq 1 ] || echo "$(said "$c") lines")"
verdict 'a wrong setting is said once' "$(expect 2 two train "$c" train.nothing=1
    [ "$(said "$c")" -eq 1 ] || cat "$c.err")"

for ((i = 0; i < 20; i++)); do # it may be faster than the signal
    rm -rf "$c/shards/train"
    at_once=1 strike KILL 1 capture "$c" shards/train/manifest.json
    [ $status -eq 0 ] || break
done
verdict 'a rank killed in capture: the shards end in the same bytes' "$([ $status -eq 137 ] || echo "exit code $status"
    expect 0 two capture "$c"
    grep -qE 'train: (.* shards were there|done before)' "$c.err" || echo 'it began anew'
    diff <(files "$a" shards) <(files "$c" shards))"

# A single process that hangs: its metrics are a pipe that nobody reads.
rm -rf "$c/ckpt" "$c/metrics.jsonl" && mkfifo "$c/metrics.jsonl"
verdict 'a single process that hangs ends with 76, too' "$(expect 76 one train "$c" runtime.watchdog=2
    grep -q '^draftsmith train: stuck at .* of train: no progress for 2 s' "$c.err" || cat "$c.err")"

verdict 'bench prints parallel efficiency' "$(expect 0 two bench "$work/bench" bench.shapes=demo bench.k=1 bench.repeat=1
    grep -qE 'parallel efficiency [0-9.]+ %' "$work/bench.out" || cat "$work/bench.out")"
sed -n 's/^ranks/      ranks/p' "$work/bench.out"

finish
