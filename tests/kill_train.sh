#!/usr/bin/env bash
# tests/kill_train.sh [KILLS] - the program itself, killed at random moments of training on the demo pair: every
# resume continues, and the last checkpoint is bit for bit that of an unbroken run. SIGTERM, SIGUSR1 and SIGINT:
# exit 75. Another BLAS core: a warning.
set -u
cd "$(dirname "$0")/.." || exit 1
kills=${1:-20}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive
RANDOM=20261121

. tests/verdict.sh
small=(data.max_samples=20 data.dev_samples=4 data.eval_samples=2 data.dev_fraction=0.1
       regenerate.max_new_tokens=24 train.k=3 train.steps=40 train.batch_sequences=2 train.anchors=12
       train.save_every=1 train.dev_every=10 train.step_weights=reach train.ema=0.9 eval.select_k=3)
run() { # DIR VERB...
    local dir=$1
    shift
    ./draftsmith "$@" output_dir="$dir" "${small[@]}" >"$dir.log" 2>&1
}
sums() { # DIR
    (cd "$1/ckpt/step-000040" && sha256sum model.safetensors state.safetensors)
}

run "$work/a" prepare && run "$work/a" regenerate && run "$work/a" capture
ran "the demo pair is prepared and captured" $?
[ "$failed" -eq 0 ] || { tail -n 5 "$work/a.log"; finish; }
cp -r "$work/a" "$work/b"
start=$(date +%s%N)
run "$work/a" train
ran "an unbroken run ends" $?
[ "$failed" -eq 0 ] || { tail -n 5 "$work/a.log"; finish; }
took_ms=$((($(date +%s%N) - start) / 1000000))

struck=0 bad=0
for ((i = 0; struck < kills && i < 4 * kills; i++)); do
    ./draftsmith train output_dir="$work/b" "${small[@]}" >"$work/b.log" 2>&1 &
    pid=$!
    sleep "$(awk -v r=$RANDOM -v t=$took_ms 'BEGIN { print (50 + t * r / 32768 / 2) / 1000 }')"
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    status=$?
    if [ "$status" -eq 137 ]; then
        struck=$((struck + 1))
    elif [ "$status" -eq 0 ]; then # it was faster than the signal: compare, begin again
        diff <(sums "$work/a") <(sums "$work/b") >/dev/null || bad=$((bad + 1))
        rm -rf "$work/b/ckpt"
    else
        bad=$((bad + 1))
        tail -n 1 "$work/b.log"
    fi
done
ran "$struck of $kills kills, each followed by a resume" "$((struck < kills || bad > 0))"
run "$work/b" train && diff <(sums "$work/a") <(sums "$work/b")
ran "weights and state after them equal the unbroken run's" $?

rm -rf "$work/b/ckpt"
n=0
for signal in TERM USR1 INT; do # each a few steps behind the one before
    n=$((n + 3))
    # A shell starts background jobs with SIGINT ignored; the program asks for it again.
    ./draftsmith train output_dir="$work/b" "${small[@]}" >"$work/b.log" 2>&1 &
    pid=$!
    until [ -e "$work/b/ckpt/step-00000$n" ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    kill -$signal "$pid"
    wait "$pid"
    ran "SIG$signal ends with a checkpoint and exit 75" "$(($? != 75))"
done
cp -r "$work/b" "$work/c"
run "$work/b" train && diff <(sums "$work/a") <(sums "$work/b")
ran "and the run goes on to the same bytes" $?

# The kernels of another core round otherwise: that is said, with both names, and the run goes on.
own=$(./draftsmith doctor --json | sed -n 's/.*"OpenBLAS core": "\([^"]*\)".*/\1/p')
case $(uname -m).$own in
x86_64.Nehalem) other=Prescott ;;
x86_64.*) other=Nehalem ;;
*) other= ;;
esac
if [ -n "$other" ]; then
    OPENBLAS_CORETYPE=$other run "$work/c" train
    status=$?
    says=$(grep '^warning: .*was written with OpenBLAS core' "$work/c.log")
    [ "$status" -eq 0 ] && [ "$(grep -c '^warning: .*was written with' "$work/c.log")" -eq 1 ] &&
        [[ $says == *"OpenBLAS core \"$own\", here it is \"$other\": the run goes on, but not bit for bit" ]]
    ran "another BLAS core is warned about with both names" $?
else
    skip "no other OpenBLAS core is known for $(uname -m)"
fi
finish
