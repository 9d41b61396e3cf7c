#!/usr/bin/env bash
# tests/on_cuda.sh - the program on the emulated CUDA device (tests/cuda_host) beside the program on the CPU: the whole
# pipeline on a handful of prompts gives the same texts, but where the target was as good as undecided, and every tau
# within 1 %; the pair passes its audit; generate with a drafter gives the same text, with CUDA graphs and without.
# In f32, where both agree closely.
set -u
cd "$(dirname "$0")/.." || exit 1
cpu=${DRAFTSMITH:-./draftsmith} cuda=${ON_CUDA_PROGRAM:-build/release-cpu/draftsmith_on_cuda}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
. tests/verdict.sh

small=(-c tests/smoke.json runtime.dtype=f32 data.max_samples=6 data.dev_samples=2 data.eval_samples=3
    data.dev_fraction=0.3 regenerate.max_new_tokens=24 regenerate.batch=4 train.k=2 train.steps=2 train.batch_sequences=2
    train.anchors=24 train.dtype=f32 train.dev_every=1 train.save_every=1 eval.draft_tokens=3 eval.select_k=2 eval.bootstrap=100
    eval.audit_prompts=1 eval.audit_draws=0 export.to=hf)
on() { # cpu|cuda VERB ARGUMENT...: prints what went wrong
    local device=$1 program=${!1} status
    shift
    "$program" "$@" runtime.device="$device" >"$work/stdout" 2>"$work/stderr" </dev/null
    status=$?
    [ "$status" -eq 0 ] || { echo "$1 on $device: exit code $status"; tail -n 20 "$work/stderr"; }
}
answers() { # FOLDER: id, margin of the least sure token, ids
    sed -nE 's/.*"id":"([^"]*)".*"margin":([-+.e0-9]+),"ids":\[([0-9,]*)\].*/\1 \2 \3/p' "$1"/regen/{train,dev,eval}.jsonl
}
# Texts that part are named with the margin; beyond 1e-3 that is a finding.
compare_texts() {
    [ "$(answers "$work/cpu" | wc -l)" -ge 6 ] || echo 'there are no texts'
    paste -d ' ' <(answers "$work/cpu") <(answers "$work/cuda") | awk '
        $1 != $4 {print "rows differ: " $1 ", " $4; next}
        $3 != $6 {n++; if ($2 > 1e-3) print "text of " $1 " differs, smallest margin " $2
                  else print "skipped: " $1 " parts at a near tie, margin " $2 >"/dev/stderr"}'
}
taus() { # FOLDER: drafter/head/k and tau, of every table
    awk '/^    "[^"]*": \{/ {drafter = $1} /^      "[^"]*": \{/ {head = $1; k = 0}
         /"tau": \[/ {on = 1; next} on && /\]/ {on = 0} on {gsub(",", ""); print drafter head ++k, $1}' "$1/eval/acceptance.json"
}
compare_taus() {
    paste -d ' ' <(taus "$work/cpu") <(taus "$work/cuda") | awk '
        $1 != $3 {print "rows differ: " $0; next}
        {n++; d = $2 - $4; if (d < 0) d = -d; if (!(d <= 0.01 * $2)) print $1 ": " $2 " on the CPU, " $4 " on the device"}
        END {if (n < 6) print n " values of tau"; else print "compared " n " values of tau" >"/dev/stderr"}'
}
# The target's weights, the stock size, other bytes than the stock's.
compare_exports() {
    local f stock=configs/demo/stock-assistant/model.safetensors
    for f in cpu cuda; do
        [ "$(stat -c %s "$work/$f/export/hf/model.safetensors")" = "$(stat -c %s $stock)" ] || echo "$f: not of the stock's size"
        ! cmp -s "$work/$f/export/hf/model.safetensors" $stock || echo "$f: nothing was trained"
    done
}
text() { # DEVICE ARGUMENT...: of generate, without its times
    local device=$1
    shift
    on "$device" generate --json "${small[@]}" generate.max_new_tokens=40 generate.draft_tokens=3 "$@" 'Gib als JSON aus: paket.'
    grep -vE '_s"' "$work/stdout"
}

[ -x "$cuda" ] || { echo "no $cuda: make $cuda"; echo '0 passed, 1 failed, 0 skipped'; exit 1; }
verdict 'the pipeline runs on the CPU' "$(on cpu run "${small[@]}" output_dir="$work/cpu")"
verdict 'and on the device' "$(on cuda run "${small[@]}" output_dir="$work/cuda")"
verdict 'texts are the same' "$(compare_texts)"
verdict 'tau of every k is within 1 %' "$(compare_taus)"
verdict 'a drafter of the stock size was trained' "$(compare_exports)"
verdict 'the pair passes its audit on the device' "$(on cuda audit "${small[@]}" eval.draft_tokens=2 output_dir="$work/cuda"
    grep -q '^Audit: passed' "$work/stdout" || tail -n 20 "$work/stdout")"
for drawn in temperature=0 temperature=0.8; do
    text cpu regenerate.$drawn data.seed=5 >"$work/text.cpu"
    for graphs in true false; do
        verdict "generate with a drafter, $drawn, graphs $graphs, gives the CPU's text" "$(
            grep -qE '"drafted": [1-9]' "$work/text.cpu" || echo 'nothing was drafted'
            diff "$work/text.cpu" <(text cuda regenerate.$drawn data.seed=5 runtime.graphs=$graphs))"
    done
done
finish
