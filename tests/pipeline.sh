#!/usr/bin/env bash
# tests/pipeline.sh - the whole pipeline on a few prompts and steps (tests/smoke.json): every output is there, a
# second run does nothing, what was damaged is made again, another configuration is refused, killed runs end in the
# same bytes, and so do runs on other threads, in another locale and on memory that is not zero.
set -u
cd "$(dirname "$0")/.." || exit 1
program=${DRAFTSMITH:-./draftsmith}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
. tests/verdict.sh

draftsmith() { "$program" "$@" -c tests/smoke.json >"$work/stdout" 2>"$work/stderr" </dev/null; }
expect() { # EXIT_CODE ARGUMENTS: prints what went wrong
    local want=$1 status
    shift
    draftsmith "$@"
    status=$?
    [ "$status" -eq "$want" ] || { echo "exit code $status, expected $want"; tail -n 20 "$work/stderr"; }
}
# What hashes.json remembers of the demo's inputs; the run's own files may or may not be old enough to be there.
inputs_in() { grep -A 2 '/configs/demo/' "$1"; }
# What must not depend on time or interruptions: weights, shards, texts, measurements. Results name their
# folder, stage.json hashes such results: the name is taken out of the one, the other left out.
results() { (cd "$1" && find data regen shards eval export -type f ! -name stage.json | sort | while read -r f; do
    case $f in
    *.json | *.md | *.html) echo "$(sed "s|$1|OUTPUT|g" "$f" | sha256sum) $f" ;;
    *) sha256sum "$f" ;;
    esac; done); }
# All but the resolved configuration and the remembered hashes of files.
everything() { (cd "$1" && find . -type f -printf '%p %s %T@\n' | grep -vE '^./(config|hashes).json' | sort); }

a=$work/a
verdict 'a dry run prints a plan and writes nothing' "$(expect 0 run --dry-run output_dir="$a"
    [ ! -e "$a" ] || echo "$a exists"
    [ -s "$work/stdout" ] || echo 'no plan on stdout')"
start=$(date +%s%N)
verdict 'the pipeline runs from prompts to exports' "$(expect 0 run output_dir="$a")"
length=$((($(date +%s%N) - start) / 1000000)) # ms
verdict 'its table is on stdout' "$(grep -q 'trained' "$work/stdout" || cat "$work/stdout")"
verdict 'every output is there' "$(for f in config.json metrics.jsonl data/train.jsonl data/dev.jsonl data/eval.jsonl \
    regen/train.jsonl regen/dev.jsonl regen/eval.jsonl shards/train/manifest.json shards/dev/manifest.json \
    shards/eval/manifest.json eval/acceptance.json export/hf/model.safetensors export/hf/config.json \
    export/hf/generation_config.json export/hf/README.md export/mlx/config.json export/target-hf/config.json; do
        [ -s "$a/$f" ] || echo "missing: $f"; done
    ls "$a"/ckpt/* >/dev/null 2>&1 || echo 'missing: a checkpoint'
    ls "$a"/tb/events.out.tfevents.* >/dev/null 2>&1 || echo 'missing: TensorBoard events')"
verdict 'nothing temporary is left' "$(find "$a" -name '*.tmp*' -o -name '*.lock')"
verdict 'the export has the stock size and other values' "$(s=$(stat -c %s configs/demo/stock-assistant/model.safetensors)
    t=$(stat -c %s "$a/export/hf/model.safetensors")
    [ "$s" = "$t" ] || echo "model.safetensors: $t bytes, the stock has $s"
    ! cmp -s configs/demo/stock-assistant/model.safetensors "$a/export/hf/model.safetensors" || echo 'nothing was trained')"

before=$(everything "$a")
verdict 'a second run finds everything done' "$(expect 0 run output_dir="$a"
    diff <(echo "$before") <(everything "$a"))"
verdict 'and loads no weights of the target' "$(grep 'of weights' "$work/stderr")"
cp "$a/hashes.json" "$work/hashes.json"
sed -i '/base-target/,/sha256/ s/"sha256": "[0-9a-f]*"/"sha256": "'"$(printf '%064d' 0)"'"/' "$a/hashes.json"
verdict 'nor reads them: a remembered hash is believed' "$(expect 2 run output_dir="$a"
    grep -q 'made with target' "$work/stderr" || cat "$work/stderr")"
rm "$a/hashes.json"
verdict 'and made anew where it is lost' "$(expect 0 run output_dir="$a"
    diff <(echo "$before") <(everything "$a")
    diff <(inputs_in "$work/hashes.json") <(inputs_in "$a/hashes.json"))"
results "$a" >"$work/a.sums"
rm "$a/data/dev.jsonl" "$a/shards/eval/shard-00001.h5" "$a/export/mlx/config.json"
echo '{"drafters": 1}' >"$a/eval/acceptance.json"
verdict 'outputs that are gone or changed are made again, and only they' "$(expect 0 run output_dir="$a"
    for f in data/dev.jsonl eval/acceptance.json export/mlx/config.json; do
        grep -q "$a/$f is no longer there as it was written: done again" "$work/stderr" || echo "$f was not noticed"; done
    grep -q 'train: done before' "$work/stderr" || echo 'training was not skipped'
    diff "$work/a.sums" <(results "$a"))"
before=$(everything "$a")
verdict 'another configuration is refused by name' "$(expect 2 run output_dir="$a" train.lr=0.0005
    grep -q 'train.lr' "$work/stderr" && grep -q -- '--overwrite' "$work/stderr" || cat "$work/stderr"
    diff <(echo "$before") <(everything "$a"))"

# The trainer's own capture in place of the training shards; the other half of the run from shards again.
c=$work/c
mkdir -p "$c/shards"
cp -r "$a/data" "$a/regen" "$c/"
cp -r "$a/shards/dev" "$a/shards/eval" "$c/shards/"
weights() { (cd "$1/ckpt" && sha256sum step-*/model.safetensors step-*/state.safetensors); }
verdict 'training from a stream gives the weights of training from shards' "$(
    expect 0 train output_dir="$c" train.stream=true
    [ ! -e "$c/shards/train" ] || echo 'there are training shards'
    diff <(weights "$a") <(weights "$c"))"
rm -rf "$c/ckpt" "$c/metrics.jsonl" "$c/tb"
verdict 'and a run begun from a stream goes on from shards' "$(
    "$program" train -c tests/smoke.json output_dir="$c" train.stream=true >/dev/null 2>&1 </dev/null &
    pid=$!
    until [ -e "$c/ckpt/step-000003" ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
    kill -TERM "$pid" 2>/dev/null
    wait "$pid"
    [ $? -eq 75 ] || echo 'it was not stopped on its way'
    cp -r "$a/shards/train" "$c/shards/"
    expect 0 train output_dir="$c"
    diff <(weights "$a" | grep step-000009) <(weights "$c" | grep step-000009))"

# Killed again and again after a fifth of a whole run's time, resumed each time.
b=$work/b kills=0
while [ "$kills" -lt 8 ]; do
    timeout -s KILL "$(awk "BEGIN { print $length / 5000 }")" \
        "$program" run -c tests/smoke.json output_dir="$b" >/dev/null 2>&1 </dev/null
    [ $? -eq 137 ] || break
    kills=$((kills + 1))
done 2>/dev/null
verdict "a run killed and resumed ($kills kills) ends in the same bytes" "$(expect 0 run output_dir="$b"
    [ "$kills" -gt 0 ] || echo 'it was never killed'
    diff "$work/a.sums" <(results "$b") | head)"

c=$work/c
verdict 'another number of threads, a Turkish locale and spoilt memory give the same bytes' "$(
    export MALLOC_PERTURB_=165 LC_ALL=tr_TR.UTF-8
    expect 0 run output_dir="$c" runtime.threads=1
    diff "$work/a.sums" <(results "$c") | head
    diff <(cd "$a/ckpt" && sha256sum best/*.safetensors) <(cd "$c/ckpt" && sha256sum best/*.safetensors))"

finish
