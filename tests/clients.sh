#!/usr/bin/env bash
# tests/clients.sh - exported files in the programs that users load them in. Not part of check: it
# needs their interpreters and builds.
#
# CLIENTS=DIR PYTHON=python3 [LLAMA_QUANTIZE=llama-quantize] [LLAMA_SERVER=llama-server
#     LLAMA_CONVERT=convert_hf_to_gguf.py] [RUN=runs/demo] [PAIRS="STOCK:TARGET ..."] [SHAPES="e2b:21 31b:7"]
#     [DRAFTSMITH=./draftsmith] [TYPES="BF16 Q8_0 ..."] tests/clients.sh
# CLIENTS holds load_gguf.py (PYTHON has the gguf package), load_safetensors.py, load_transformers.py
# and run_llama.sh. RUN is a finished run: its drafter is exported into a folder of its own, in every
# type and both dialects, and each file is loaded; so is the Hugging Face pair where PYTHON has
# transformers. With LLAMA_QUANTIZE every type that it knows is made from our BF16 file and compared with
# ours byte for byte. With LLAMA_SERVER and LLAMA_CONVERT the merged target is converted by llama.cpp's own
# converter, and each file drafts for it there: greedy text must be that without a drafter.
# PAIRS: folders of other assistants and their targets, exported untrained and loaded; where the target has
# weights, they draft there too. SHAPES: pairs of real shapes with random weights, made by tests/pairs.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
run=${RUN:-runs/demo} program=${DRAFTSMITH:-./draftsmith} python=${PYTHON:-python3}
types=${TYPES:-BF16 F16 Q8_0 Q6_K Q5_K_M Q5_K_S Q4_K_M Q4_K_S IQ4_NL IQ4_XS MXFP4 Q3_K_L}
. tests/verdict.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -f "${CLIENTS:-}/load_gguf.py" ] || { skip 'no CLIENTS=DIR with load_gguf.py'; finish; }
load() { # EXPORT_DIR FOLDER TYPE MIX MORE...
    local file=$1/$2/mtp-drafter-$3.gguf mix=()
    [ -n "$4" ] && mix=(--mix "$4")
    out=$("$python" "$CLIENTS/load_gguf.py" "$file" "${mix[@]}" "${@:5}" 2>&1)
    ran "load_gguf.py ${1#"$work"/} $2 $3" $? "$out"
}
# mixes.json knows no mix of that name: llama-quantize puts MXFP4 into experts only
mix_of() { if [ "$1" = MXFP4 ]; then echo; else echo "$1"; fi; }

convert() { # TARGET_DIR
    out=$(PYTHONPATH="$(dirname "$LLAMA_CONVERT")/gguf-py" "$python" "$LLAMA_CONVERT" \
        "$1" --outfile "$work/target.gguf" --outtype bf16 2>&1)
    ran "convert_hf_to_gguf.py ${1#"$work"/}" $? "$out"
}
draft() { # FILE MIN_ACCEPT
    out=$(MIN_ACCEPT=$2 "$CLIENTS/run_llama.sh" "$work/target.gguf" "$1" "${K:-3}" 2>&1)
    ran "run_llama.sh $(basename "$1" .gguf)" $? "$out"
}
has_llama() { [ -n "${LLAMA_SERVER:-}" ] && [ -n "${LLAMA_CONVERT:-}" ]; }

pair() { # STOCK TARGET: one dialect after the other, large pairs fill a disk
    local dir=$work/pair type to
    for to in gguf:all gguf-ik:all; do
        out=$("$program" export output_dir="$dir" model.assistant_path="$1" model.target_path="$2" \
            model.adapter_path= export.checkpoint="$1" export.force=true export.name=drafter \
            export.to=$to 2>&1)
        ran "export.to=$to of $1" $? "$out"
        for type in $types; do
            load "$dir/export" "${to/:/-}" "$type" "$(mix_of "$type")" --hf "$1" --tokenizer "$2/tokenizer.json"
        done
        if [ $to = gguf:all ] && has_llama && [ -f "$2/model.safetensors" ]; then
            convert "$2"
            for type in $types; do draft "$dir/export/gguf-all/mtp-drafter-$type.gguf" 0; done
            rm -f "$work/target.gguf"
        fi
        rm -rf "$dir"
    done
}
. tests/pairs.sh
for p in ${PAIRS:-}; do pair "${p%%:*}" "${p#*:}"; done
[ -d "$run/ckpt/best" ] || { skip "no finished run in $run (RUN=DIR)"; finish; }

# The finished run is only read: its checkpoint and its measurement are linked into ours.
mkdir "$work/run"
ln -s "$(realpath "$run/ckpt")" "$work/run/ckpt"
ln -s "$(realpath "$run/eval")" "$work/run/eval"
to=gguf:all,gguf-ik:all,gguf:MXFP4_MOE,gguf:Q4_K_M-head4,hf,target-hf
out=$("$program" export -c "$run/config.json" output_dir="$work/run" export.to=$to export.name=drafter 2>&1)
ran "export.to=$to" $? "$out"
[ "$failed" -eq 0 ] || finish
made=$work/run/export tokenizer=$work/run/export/target-hf/tokenizer.json

# The universal files of a drafter as wide as its target are widened, so that only the others can be
# held against the folder value by value.
for type in $types; do
    load "$made" gguf-all "$type" "$(mix_of "$type")" --tokenizer "$tokenizer"
    load "$made" gguf-ik-all "$type" "$(mix_of "$type")" --tokenizer "$tokenizer" --hf "$made/hf"
done
load "$made" gguf-MXFP4_MOE MXFP4_MOE MXFP4_MOE --tokenizer "$tokenizer"
load "$made" gguf-Q4_K_M-head4 Q4_K_M-head4 '' --tokenizer "$tokenizer"
if "$python" -c 'import transformers' 2>/dev/null; then
    out=$("$python" "$CLIENTS/load_safetensors.py" "$made/hf" 2>&1)
    ran 'load_safetensors.py hf' $? "$out"
    out=$("$python" "$CLIENTS/load_transformers.py" "$made/hf" "$made/target-hf" 2>&1)
    ran 'load_transformers.py hf, target-hf' $? "$out"
else
    skip "no transformers in $python"
fi

same_bytes() { # OURS THEIRS: every tensor, type and data
    "$python" - "$1" "$2" <<'PY'
import sys
import gguf
import numpy as np
ours, theirs = ({t.name: t for t in gguf.GGUFReader(f).tensors} for f in sys.argv[1:3])
bad = sorted(set(ours) ^ set(theirs))
total = 0
for name in set(ours) & set(theirs):
    a, b = ours[name], theirs[name]
    total += a.data.nbytes
    if a.tensor_type != b.tensor_type or not np.array_equal(a.data.view(np.uint8), b.data.view(np.uint8)):
        bad.append(name)
print(f"{total} bytes compared, {len(bad)} tensors differ {bad[:4]}")
sys.exit(bool(bad))
PY
}
if [ -n "${LLAMA_QUANTIZE:-}" ]; then
    for type in $types; do
        case $type in BF16 | MXFP4) continue ;; esac
        "$LLAMA_QUANTIZE" "$work/run/export/gguf-all/mtp-drafter-BF16.gguf" "$work/theirs.gguf" "$type" 1 >/dev/null 2>&1
        out=$(same_bytes "$work/run/export/gguf-all/mtp-drafter-$type.gguf" "$work/theirs.gguf" 2>&1)
        ran "llama-quantize $type" $? "$out"
    done
else
    skip 'no LLAMA_QUANTIZE: bytes are not compared'
fi

has_llama || { skip 'no LLAMA_SERVER and LLAMA_CONVERT: nothing drafts in llama.cpp'; finish; }
convert "$made/target-hf"
[ "$failed" -eq 0 ] || finish

# The shortest held-out prompt as text, without its <bos>: the server adds one.
prompt=$("$python" - "$run/data/eval.jsonl" "$tokenizer" <<'PY'
import json, sys
best = min((json.loads(l) for l in open(sys.argv[1])), key=lambda d: d["prompt"])
names = {i: p for p, i in json.load(open(sys.argv[2], encoding="utf-8"))["model"]["vocab"].items()}
text = b""
for i in best["ids"][1:best["prompt"]]:
    p = names[i]
    text += bytes([int(p[3:5], 16)]) if len(p) == 6 and p.startswith("<0x") else p.encode()
sys.stdout.write(text.decode("utf-8", "replace").replace("\u2581", " ") + ".")
PY
) || { skip "no prompt in $run/data/eval.jsonl"; finish; }
export PROMPT="${prompt%.}" N_PREDICT="${N_PREDICT:-40}"
for file in "$made"/gguf-all/*.gguf "$made"/gguf-Q4_K_M-head4/*.gguf; do draft "$file" 1; done
finish
