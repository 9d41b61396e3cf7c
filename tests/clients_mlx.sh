#!/usr/bin/env bash
# tests/clients_mlx.sh - MLX exports in the programs that users load them in. Not part of check: it
# needs their packages.
#
# CLIENTS=DIR PYTHON=python3 [RUN=runs/demo] [PAIRS="STOCK:TARGET ..."] [SHAPES="e2b:21 31b:7"]
#     [DRAFTSMITH=./draftsmith] [TO=mlx,mlx:q8,...] tests/clients_mlx.sh
# CLIENTS holds load_safetensors.py and load_mlx.py (PYTHON has mlx-vlm). RUN is a finished run: its
# drafter, its merged target and their bundle are exported into a folder of their own and loaded.
# PAIRS: folders of other assistants and their targets, exported untrained; SHAPES: pairs made by
# tests/pairs.sh. Where PYTHON has mlx-lm, targets are loaded there, strictly.
set -u
cd "$(dirname "$0")/.." || exit 1
run=${RUN:-runs/demo} program=${DRAFTSMITH:-./draftsmith} python=${PYTHON:-python3}
drafters=mlx,mlx:q8,mlx:q6,mlx:q5,mlx:q4,mlx:q3,mlx:mxfp4,mlx:mxfp8,mlx:nvfp4
to=${TO:-$drafters,target-mlx,target-mlx:q8,target-mlx:q4,target-mlx:mxfp4,mtplx,mtplx:speed}
. tests/verdict.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -f "${CLIENTS:-}/load_mlx.py" ] || { skip 'no CLIENTS=DIR with load_mlx.py'; finish; }
"$python" -c 'import mlx_vlm' 2>/dev/null || { skip "no mlx-vlm in $python"; finish; }

drafter() { # NAME DIR
    out=$("$python" "$CLIENTS/load_safetensors.py" "$2" --mlx 2>&1)
    ran "load_safetensors.py $1" $? "$out"
    out=$("$python" "$CLIENTS/load_mlx.py" "$2" 2>&1)
    ran "load_mlx.py $1" $? "$out"
}
target() { # NAME DIR
    "$python" -c 'import mlx_lm' 2>/dev/null || { skip "no mlx-lm for $1"; return; }
    out=$("$python" - "$2" 2>&1 <<'PY'
import sys, pathlib, mlx.core as mx
mx.set_default_device(mx.cpu)
from mlx_lm.utils import load_model
from mlx.utils import tree_flatten
model, _ = load_model(pathlib.Path(sys.argv[1]))  # strict
logits = model(mx.array([[2, 7, 9, 200, 13, 3]]))
assert mx.all(mx.isfinite(logits)).item(), "logits are not finite"
names = [k for k, _ in tree_flatten(model.parameters())]
print(len(names), "arrays,", sum(k.endswith(".scales") for k in names), "quantized modules; ok")
PY
    )
    ran "mlx-lm $1" $? "$out"
}
all() { # NAME EXPORT_DIR
    for d in "$2"/mlx* "$2"/mtplx*/assistant; do [ -d "$d" ] && drafter "$1 ${d#"$2"/}" "$d"; done
    for d in "$2"/target-mlx* "$2"/mtplx*/target; do [ -d "$d" ] && target "$1 ${d#"$2"/}" "$d"; done
}

if [ -d "$run/ckpt/best" ]; then # only read: its checkpoint and measurement are linked into ours
    mkdir "$work/run"
    for part in ckpt eval data; do ln -s "$(realpath "$run/$part")" "$work/run/$part"; done
    out=$("$program" export -c "$run/config.json" output_dir="$work/run" export.to="$to" 2>&1)
    ran "export of $run" $? "$out"
    all run "$work/run/export"
else
    skip "no finished run in $run (RUN=DIR)"
fi
. tests/pairs.sh
n=0
for pair in ${PAIRS:-}; do
    n=$((n + 1)) stock=${pair%%:*} kinds=$to
    [ -f "${pair#*:}/model.safetensors" ] || kinds=${TO:-$drafters} # a target without weights
    out=$("$program" export output_dir="$work/$n" model.assistant_path="$stock" model.adapter_path= \
        model.target_path="${pair#*:}" export.checkpoint="$stock" export.force=true \
        export.to="$kinds" 2>&1)
    ran "export of $stock" $? "$out"
    all "${stock#"$work"/}" "$work/$n/export"
    rm -rf "${work:?}/$n"
done
finish
