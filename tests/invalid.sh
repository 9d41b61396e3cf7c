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

files() { find "$work" -type f ! -path "$out/config.json" ! -name stderr ! -name stdout -printf '%p %s\n' | sort; }

refuse() {
    local code=$1 says=$2 before after status problem=
    shift 2
    before=$(files)
    "$program" "$1" --quiet "${@:2}" >"$work/stdout" 2>"$work/stderr" </dev/null
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

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
