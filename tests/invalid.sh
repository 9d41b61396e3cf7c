#!/usr/bin/env bash
# tests/invalid.sh - what people get wrong: one line on stderr that names it, the exit code, and nothing left behind.
#
# A case is: refuse EXIT_CODE 'what stderr must say' VERB ARGUMENTS... It runs `draftsmith VERB --quiet ARGUMENTS`
# with $out as a place for output. Afterwards no file may be new but $out/config.json.
set -u
cd "$(dirname "$0")/.." || exit 1
program=${DRAFTSMITH:-./draftsmith}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
out=$work/out
passed=0 failed=0 skipped=0
limit=unlimited # of file sizes, KiB: what a full disk looks like without being root

files() { find "$work" -type f ! -path "$out/config.json" ! -name stderr ! -name stdout -printf '%p %s\n' | sort; }

refuse() {
    local code=$1 says=$2 before after status problem=
    shift 2
    before=$(files)
    (ulimit -c 0; ulimit -f "$limit"; exec "$program" "$1" --quiet "${@:2}") >"$work/stdout" 2>"$work/stderr" </dev/null
    status=$?
    after=$(files)
    [ "$status" -eq "$code" ] || problem="exit code $status, expected $code"
    [ "$(wc -l <"$work/stderr")" -eq 1 ] || problem="$problem; not one line on stderr"
    grep -qF -- "$says" "$work/stderr" || problem="$problem; stderr does not say: $says"
    [ "$before" = "$after" ] || problem="$problem; files changed: $(diff <(echo "$before") <(echo "$after"))"
    if [ -z "$problem" ]; then passed=$((passed + 1)); return; fi
    failed=$((failed + 1))
    echo "FAIL  draftsmith $*"
    echo "      ${problem#; }"
    sed 's/^/      stderr: /' "$work/stderr" | head -n 5
}
config() { printf '%s\n' "$1" >"$work/demo.json"; } # then: -c "$work/demo.json"

# The command line
refuse 2 'unknown verb "trian", did you mean "train"?' trian
refuse 2 'unknown verb "frobnicate"' frobnicate
refuse 2 'unknown option "--dry-rum", did you mean "--dry-run"?' doctor --dry-rum
refuse 2 'did you mean "train.warmup"?' doctor --wramup 3
refuse 2 '"seed" is ambiguous: "data.seed" or "train.seed"?' doctor --seed 3
refuse 2 'option --show needs a value' doctor --show
refuse 2 '--show is "many"' doctor --show many
refuse 2 'doctor takes no arguments, got "now"' doctor now

# Settings
config '{"train": {"lrr": 1}}'
refuse 2 'demo.json: unknown key "train.lrr", did you mean "train.lr"?' doctor -c "$work/demo.json"
config '{"trian": {"lr": 1}}'
refuse 2 'unknown key "trian", did you mean "train"?' doctor -c "$work/demo.json"
config '{"train": {"k": 17}}'
refuse 2 'train.k is 17, allowed 1 to 16' doctor -c "$work/demo.json"
config '{"train": {"k": 7.5}}'
refuse 2 'train.k is 7.5, expected an integer' doctor -c "$work/demo.json"
config '{"train": {"k": 7}, "train": {"k": 8}}'
refuse 2 'demo.json:1:' doctor -c "$work/demo.json"
config '{"train": {"k": 7}'
refuse 2 'not valid JSON' doctor -c "$work/demo.json"
config '{"data": {"train": "prompts.jsonl"}}'
refuse 2 'data.train is "prompts.jsonl", expected an array of strings' doctor -c "$work/demo.json"
refuse 2 'missing.json: No such file or directory' doctor -c "$work/missing.json"
refuse 2 'unknown key "train.lrr", did you mean "train.lr"?' doctor train.lrr=1
refuse 2 'train.loss is "kl", allowed fkl|' doctor train.loss=kl
refuse 2 'train.lr is "nan", expected a number' doctor train.lr=nan
refuse 2 'regenerate.samples is 4 while regenerate.temperature is 0' doctor regenerate.samples=4
refuse 2 'eval.select_k is 7, eval.draft_tokens only 3' doctor eval.draft_tokens=3 eval.select_k=7
refuse 2 'output_dir is empty' doctor output_dir=

# The output folder
: >"$work/plain"
refuse 1 'plain' prepare output_dir="$work/plain"
refuse 1 'plain/sub' prepare output_dir="$work/plain/sub"
mkdir -p "$out"
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _ </proc/$$/stat
echo "$$ $start $(uname -n)" >"$out/run.lock"
refuse 1 "held by process $$" prepare output_dir="$out"
rm -rf "$out"

# Prompts
small=(data.max_samples=6 data.dev_samples=2 data.eval_samples=2 data.max_length=300 data.dev_fraction=0.2
    regenerate.max_new_tokens=8 train.k=2 train.steps=2 train.batch_sequences=2 train.anchors=8 train.dtype=f32
    eval.bootstrap=100 eval.audit_prompts=0)
good='{"id": "a", "messages": [{"role": "user", "content": "Hallo"}]}'
: >"$work/empty.jsonl"
refuse 3 'empty.jsonl: no prompts' prepare output_dir="$out" data.train="$work/empty.jsonl"
printf '%s\n%s\n' "$good" 'not json' >"$work/bad.jsonl"
refuse 3 'bad.jsonl:2: not a JSON object' prepare output_dir="$out" data.train="$work/bad.jsonl"
refuse 3 'bad.jsonl:2: not a JSON object' prepare output_dir="$out" data.eval="$work/bad.jsonl"
printf '%s\n%s\n' "$good" '[1, 2]' >"$work/list.jsonl"
refuse 3 'list.jsonl:2' prepare output_dir="$out" data.train="$work/list.jsonl"
head -c 3000 configs/demo/prompts/german-facts.train.jsonl.zst >"$work/cut.jsonl.zst"
refuse 3 'cut.jsonl.zst' prepare output_dir="$out" data.train="$work/cut.jsonl.zst"
refuse 3 'missing.jsonl: no such file' prepare output_dir="$out" data.train="$work/missing.jsonl"
refuse 2 'the weight of' prepare output_dir="$out" data.train="$work/bad.jsonl=0"
refuse 2 'data.turns is "all", allowed last|every' prepare output_dir="$out" data.turns=all
printf 'PAR1....PAR1' >"$work/hub.parquet"
refuse 3 "load_dataset('parquet', data_files='$work/hub.parquet'" prepare output_dir="$out" data.train="$work/hub.parquet"
mkdir "$work/folder"
refuse 3 'a folder without train.jsonl' prepare output_dir="$out" data.train="$work/folder"
printf '%s\n' "$good" >"$work/folder/train.jsonl"
tar -cf "$work/outer.tar" -C "$work" cut.jsonl.zst
refuse 3 'outer.tar(cut.jsonl.zst): packed inside of a pack' prepare output_dir="$out" data.train="$work/outer.tar"
printf '[%s]\n' "$good" >"$work/array.json"
refuse 3 "jq -c '.[]'" prepare output_dir="$out" data.train="$work/array.json"
rm -rf "$out"

# The pair
"$program" prepare --quiet "${small[@]}" output_dir="$work/ok" >/dev/null &&
    "$program" regenerate --quiet "${small[@]}" output_dir="$work/ok" >/dev/null &&
    "$program" capture --quiet "${small[@]}" output_dir="$work/ok" >/dev/null || { failed=$((failed + 1)); echo 'FAIL  no run to spoil'; }
target() { # FILE: a copy of the demo target in $work/target without FILE
    rm -rf "$work/target"
    mkdir "$work/target"
    for f in configs/demo/base-target/*; do [ "$(basename "$f")" = "$1" ] || cp "$f" "$work/target/"; done
}
target tokenizer.json
sed 's/"vocab": {/"vocab": {"\xe2\x96\x81zq": 8192, /' configs/demo/base-target/tokenizer.json >"$work/target/tokenizer.json"
refuse 3 'a tokenizer of 8193 ids, config.json of the target has a vocabulary of 8192' \
    prepare "${small[@]}" output_dir="$out" model.target_path="$work/target"
target model.safetensors
head -c 5000000 configs/demo/base-target/model.safetensors >"$work/target/model.safetensors"
cp -r "$work/ok" "$out"
rm -rf "$out/regen" "$out/shards"
refuse 3 'header describes 22174800 bytes of data, the file holds 4982416' \
    regenerate "${small[@]}" output_dir="$out" model.target_path="$work/target"
head -c 100 configs/demo/base-target/model.safetensors >"$work/target/model.safetensors"
refuse 3 'model.safetensors' regenerate "${small[@]}" output_dir="$out" model.target_path="$work/target"
rm -rf "$out"
cp -r "$work/ok" "$out"
for verb in train eval; do
    refuse 3 "embedding is 8192 x 256, the assistant expects 256 x 48" \
        $verb "${small[@]}" output_dir="$out" model.assistant_path=tests/golden/e2b/assistant
    refuse 3 "shards/" $verb "${small[@]}" output_dir="$out" model.adapter_path= # shards from another target
done
refuse 1 'missing/config.json: No such file' generate --prompt Hallo model.target_path="$work/missing"

# A full disk
rm -rf "$out"
limit=4
refuse 1 '/data: cannot put samples aside' prepare "${small[@]}" output_dir="$out"
rm -rf "$out"
cp -r "$work/ok" "$out"
rm -rf "$out/shards"
limit=100
refuse 1 'shards/train/shard-00000.h5' capture "${small[@]}" output_dir="$out"
limit=unlimited

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
