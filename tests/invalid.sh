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

# Logs and the journal of answers may grow, line by line: they are read back as far as they are whole;
# hashes.json remembers hashes of inputs.
files() { find "$work" -type f ! -path "$out/config.json" ! -path "$out/metrics.jsonl" ! -path "$out/hashes.json" ! -path "$out/tb/*" ! -name '*.journal' ! -name stderr ! -name stdout -printf '%p %s\n' | sort; }

refuse() {
    local code=$1 says=$2 before after status problem=
    shift 2 # what a warning says counts as said
    before=$(files)
    (ulimit -c 0; ulimit -f "$limit"; exec "$program" "$1" --quiet "${@:2}") >"$work/stdout" 2>"$work/stderr" </dev/null
    status=$?
    after=$(files)
    [ "$status" -eq "$code" ] || problem="exit code $status, expected $code"
    [ "$(grep -vc '^warning: ' "$work/stderr")" -eq 1 ] || problem="$problem; not one line on stderr"
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
refuse 2 'option --json takes no value, got "3"' doctor --json=3
refuse 2 'option --config needs a value' doctor --config
refuse 2 'unknown option "-x"' doctor -x
refuse 2 'inspect takes one path, got 0' inspect
refuse 2 'inspect takes at most 1 argument, "b" is one more' inspect a b
refuse 2 'no prompt: give it as an argument or as generate.prompt' generate

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
config '{"train.lr": 1}'
refuse 2 '"train.lr" stands in a file as {"train": {"lr": ...}}' doctor -c "$work/demo.json"
config '[]'
refuse 2 'demo.json: not a JSON object' doctor -c "$work/demo.json"
config '{"train": 5}'
refuse 2 '"train" must be an object' doctor -c "$work/demo.json"
config '{"train": {"lr": 1e999}}'
refuse 2 'demo.json:1:22: not valid JSON: real number overflow' doctor -c "$work/demo.json"
config "$(printf '%3000s' '' | tr ' ' '[')"
refuse 2 'maximum parsing depth reached' doctor -c "$work/demo.json"
config "$(printf '{"output_dir": "caf\xe9"}')"
refuse 2 'demo.json:1:19: not valid JSON: unable to decode byte 0xe9' doctor -c "$work/demo.json"
head -c 1100000 /dev/zero >"$work/demo.json"
refuse 2 'demo.json: 1100000 bytes, at most 1048576 are read' doctor -c "$work/demo.json"
refuse 2 'missing.json: No such file or directory' doctor -c "$work/missing.json"
refuse 2 'output_dir is "caf?", which is not UTF-8' doctor output_dir="$(printf 'caf\xe9')"
refuse 2 'data.train has an empty item before ",b"' doctor data.train=a,,b
refuse 2 'export.to is "gguf", allowed hf|mlx|' export export.to=gguf
refuse 2 'no GGUF type Q4_K: all, BF16, F16, ' export export.to=gguf:Q4_K
refuse 2 '"gguf-ik:", gguf-ik takes all|' export export.to=gguf-ik:
refuse 2 'gguf:mixed: export.gguf_mix names no mixture' export export.to=gguf:mixed
refuse 2 'export.archive is x.rar, its name must end in .tar or .zip' export export.archive=x.rar
refuse 2 'device cuda: ' doctor runtime.device=cuda
refuse 2 'unknown key "train.lrr", did you mean "train.lr"?' doctor train.lrr=1
refuse 2 'train.loss is "kl", allowed fkl|' doctor train.loss=kl
refuse 2 'train.lr is "nan", expected a number' doctor train.lr=nan
refuse 2 'regenerate.samples is 4 while regenerate.temperature is 0' doctor regenerate.samples=4
refuse 2 'regenerate.held_out is sampled while regenerate.temperature is 0' doctor regenerate.held_out=sampled
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
tar -cf "$work/outer.tar" -C "$work" cut.jsonl.zst
refuse 3 'outer.tar(cut.jsonl.zst): packed inside of a pack' prepare output_dir="$out" data.train="$work/outer.tar"
printf '[%s]\n' "$good" >"$work/array.json"
refuse 3 "jq -c '.[]'" prepare output_dir="$out" data.train="$work/array.json"
refuse 3 'configs/demo: a folder without train.jsonl' prepare output_dir="$out" data.train=configs/demo
refuse 3 '/dev/null: not a regular file' prepare output_dir="$out" data.train=/dev/null
refuse 3 "$(basename "$program"):1: not a JSON object" prepare output_dir="$out" data.train="$program"
printf '%s\n' '{"messages": [{"role": "user", "content": "\ud800"}]}' >"$work/half.jsonl"
refuse 3 'half.jsonl:1: not a JSON object: not valid JSON' prepare output_dir="$out" data.train="$work/half.jsonl"
printf '%s\n' '{"messages": [{"content": "a"}]}' '{"text": "b"}' >"$work/none.jsonl"
refuse 3 'none of the 2 prompts of data.train can be used: none.jsonl:1: messages[0] has no role' \
    prepare output_dir="$out" data.train="$work/none.jsonl" data.eval=
if command -v zstd >/dev/null; then
    yes '' | head -c 200000000 | zstd -q >"$work/bomb.jsonl.zst"
    refuse 3 'over the limit of 1000 : 1' prepare output_dir="$out" data.train="$work/bomb.jsonl.zst"
else
    skipped=$((skipped + 1)); echo 'skipped: no zstd to make a bomb with'
fi
rm -rf "$out"

# One stage without the one before
mkdir -p "$out"
refuse 3 'data/train.jsonl: not there; `prepare` makes it' regenerate output_dir="$out"
refuse 3 'regen/train.jsonl: not there; `regenerate` makes it' capture output_dir="$out"
refuse 3 'shards/dev: not there; `capture` makes it' train output_dir="$out"
refuse 3 'shards/eval: not there; `capture` makes it' eval output_dir="$out"
refuse 3 'ckpt/best: no trained drafter there; run `train` first' export output_dir="$out"
refuse 2 'eval.drafter: no folder ' eval output_dir="$out" eval.drafter="$work/nowhere"
rm -rf "$out"

# The pair
"$program" prepare --quiet "${small[@]}" output_dir="$work/ok" >/dev/null &&
    "$program" regenerate --quiet "${small[@]}" output_dir="$work/ok" >/dev/null &&
    "$program" capture --quiet "${small[@]}" output_dir="$work/ok" >/dev/null &&
    "$program" train --quiet "${small[@]}" output_dir="$work/ok" >/dev/null 2>&1 || { failed=$((failed + 1)); echo 'FAIL  no run to spoil'; }
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
refuse 3 'model.safetensors: header ' regenerate "${small[@]}" output_dir="$out" model.target_path="$work/target"
rm -rf "$out"
cp -r "$work/ok" "$out"
captured=$(sed -n 's/.*"target": "\([0-9a-f]*\)".*/\1/p' "$out/shards/eval/manifest.json")
for verb in eval train; do
    [ "$verb" = eval ] || rm -rf "$out/ckpt" # a run trained from another assistant is refused before
    refuse 3 "embedding is 8192 x 256, the assistant expects 256 x 48" \
        $verb "${small[@]}" output_dir="$out" model.assistant_path=tests/golden/e2b/assistant
    refuse 3 ": target $captured, expected " $verb "${small[@]}" output_dir="$out" model.adapter_path= # of another target
done
refuse 1 'missing/config.json: No such file' generate --prompt Hallo model.target_path="$work/missing"
refuse 3 'gemma4_assistant is an assistant where a target is needed' \
    generate --prompt Hallo model.target_path=configs/demo/stock-assistant
refuse 3 'gemma4 is a target where an assistant is needed' generate --prompt Hallo model.assistant_path=configs/demo/base-target
target chat_template.jinja
echo 'another' >"$work/target/chat_template.jinja"
refuse 3 "SHA-256 $(sha256sum "$work/target/chat_template.jinja" | cut -c 1-64) is no template known here" \
    prepare "${small[@]}" output_dir="$out" model.target_path="$work/target"
target tokenizer.json
head -c 2000 configs/demo/base-target/tokenizer.json >"$work/target/tokenizer.json"
rm "$out/data/prepare.json"
refuse 3 'tokenizer.json: ends at byte 2000' prepare "${small[@]}" output_dir="$out" model.target_path="$work/target"
target config.json
sed 's/"gemma4/"llama/' configs/demo/base-target/config.json >"$work/target/config.json"
refuse 3 'model_type llama is not supported (gemma4, ' generate --prompt Hallo model.target_path="$work/target"
sed 's/"hidden_size": 256/"hidden_size": 255/' configs/demo/base-target/config.json >"$work/target/config.json"
refuse 3 'is [8192, 256], config.json makes it [8192, 255]' generate --prompt Hallo model.target_path="$work/target"

# The adapter
adapter() { # SED: a copy of the demo adapter in $work/adapter, its configuration changed
    rm -rf "$work/adapter"
    cp -r configs/demo/adapter-german-facts "$work/adapter"
    sed -i "$1" "$work/adapter/adapter_config.json"
}
adapter 's/"use_dora": false/"use_dora": true/'
refuse 3 'use_dora is set: not supported' generate --prompt Hallo model.adapter_path="$work/adapter"
adapter 's/"modules_to_save": null/"modules_to_save": ["lm_head"]/'
refuse 3 'modules_to_save is set: not supported' generate --prompt Hallo model.adapter_path="$work/adapter"
adapter 's/"r": 16/"r": 8/'
refuse 3 'lora_A is [16, 768], lora_B [256, 16], the configured rank is 8' generate --prompt Hallo model.adapter_path="$work/adapter"
adapter ''
truncate -s 1000000 "$work/adapter/adapter_model.safetensors"
refuse 3 'header describes 2670592 bytes of data, the file holds 981448' generate --prompt Hallo model.adapter_path="$work/adapter"

# What an earlier stage left, damaged since
spoil() { # FILE OFFSET: a copy of the run in $out with one byte of FILE flipped
    rm -rf "$out"
    cp -r "$work/ok" "$out"
    [ -z "$1" ] || printf "\\x$(od -An -tx1 -j "$2" -N 1 "$out/$1" | awk '{ printf "%02x", $1 == "04" ? 5 : 4 }')" |
        dd of="$out/$1" bs=1 seek="$2" conv=notrunc status=none
}
spoil shards/eval/shard-00000.h5 200000
refuse 3 ': chunk 0 of 1 is damaged (its XXH3 differs)' eval "${small[@]}" output_dir="$out"
truncate -s 100000 "$out/shards/eval/shard-00000.h5"
refuse 3 "shard-00000.h5: 100000 bytes, the manifest says $(stat -c %s "$work/ok/shards/eval/shard-00000.h5")" \
    eval "${small[@]}" output_dir="$out"
sed -i 's/"complete": true/"complete": false/' "$out/shards/eval/manifest.json"
refuse 3 'shards/eval: the capture is not finished (1 shards so far)' eval "${small[@]}" output_dir="$out"
spoil regen/eval.jsonl 0
refuse 3 'eval.jsonl:1: not a JSON object' capture --overwrite "${small[@]}" output_dir="$out"
spoil '' 0
rm "$out/ckpt/train.json" "$out/ckpt/best"
rm -r "$out/ckpt/step-000000"
refuse 2 'train.lr was 0.0015, now it is 0.5' train "${small[@]}" output_dir="$out" train.lr=0.5
refuse 2 'train.steps was 2, now it is 3' train "${small[@]}" output_dir="$out" train.steps=3
truncate -s 5000 "$out/ckpt/step-000002/state.safetensors"
refuse 3 "state.safetensors: 5000 bytes, its manifest says $(stat -c %s "$work/ok/ckpt/step-000002/state.safetensors")" \
    train "${small[@]}" output_dir="$out"
spoil ckpt/step-000000/model.safetensors 50000
spoil_best=$(readlink "$out/ckpt/best")
[ "$spoil_best" = step-000000 ] || spoil "ckpt/$spoil_best/model.safetensors" 50000
refuse 3 'ckpt/best/model.safetensors: damaged: SHA-256 ' export "${small[@]}" output_dir="$out" export.force=true
spoil '' 0
printf '\0\0\0\0' >"$work/empty.imatrix"
refuse 3 'empty.imatrix: ' export "${small[@]}" output_dir="$out" export.force=true export.to=gguf:Q4_K_M \
    export.imatrix="$work/empty.imatrix"
printf 'GGUF\3\0\0\0\1\0\0\0\0\0\0\0' >"$work/short.gguf"
refuse 3 'short.gguf: the number of keys needs 8 bytes at byte 16, the file ends at 16' inspect "$work/short.gguf"
refuse 3 'short.gguf: the number of keys needs 8 bytes' generate "${small[@]}" generate.drafter="$work/short.gguf" \
    generate.prompt=x
refuse 4 'this drafter was never measured; run `eval` first' export "${small[@]}" output_dir="$out"

# A full disk
rm -rf "$out"
limit=4
refuse 1 '/data: cannot put samples aside' prepare "${small[@]}" output_dir="$out"
rm -rf "$out"
cp -r "$work/ok" "$out"
rm -rf "$out/shards"
limit=100
refuse 1 'shards/train/shard-00000.h5' capture "${small[@]}" output_dir="$out"
rm -rf "$out/ckpt"
cp -r "$work/ok/shards" "$out/"
refuse 1 'checkpoint of step 0: cannot write ' train "${small[@]}" output_dir="$out"
rm -rf "$out/ckpt"
cp -r "$work/ok/ckpt" "$out/"
refuse 1 'export/hf.tmp/' export "${small[@]}" output_dir="$out" export.force=true
refuse 1 'export/gguf-Q8_0.tmp/mtp-' export "${small[@]}" output_dir="$out" export.force=true export.to=gguf:Q8_0
limit=4
rm -rf "$out/regen"
refuse 1 'regen/' regenerate "${small[@]}" output_dir="$out"
limit=unlimited

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
