#!/usr/bin/env bash
# tests/gpu.sh CARRY [PART...] - everything that needs a GPU, in at most 9 minutes (GPU_SECONDS=540). CARRY: the folder
# that tests/gpu_carry.sh filled. PARTS, all of them where none is named, each callable alone:
#   build     once, for the card at hand     twins    every operator against its CPU body
#   parity    golden and model tests         repeat   200 steps of training twice: the same bits
#   graphs    text of the demo pair with CUDA graphs and without: the same, and how fast
#   demo      the pipeline; the same texts captured and measured on the CPU: every tau(k) within 1 %
#   memcheck, racecheck   compute-sanitizer over the twins      bench    rates, shares, memory, the peers beside them
# Logs lie in $OUT (build/gpu where it is unset). Last line: N passed, N failed, N skipped. GPU_DEVICE names another
# device, cuda:1 for example. GPU_KIND=host rehearses all this on the emulated device of the tests; GPU_SET="section.field=value
# ..." and GPU_STEPS=3 make the runs smaller for that.
set -u
cd "$(dirname "$0")/.." || exit 1
[ $# -ge 1 ] || { echo "usage: tests/gpu.sh CARRY [PART...]" >&2; exit 2; }
carry=$1
shift
parts=${*:-build twins parity repeat graphs demo memcheck racecheck bench}
logs=${OUT:-build/gpu} device=${GPU_DEVICE:-cuda} kind=${GPU_KIND:-cuda} seconds=${GPU_SECONDS:-540} steps=${GPU_STEPS:-200}
here=$PWD/build/carry build=build/release-$kind program=./build/release-$kind/draftsmith
passed=0 failed=0 skipped=0 begun=$(date +%s)
mkdir -p "$logs" build
export OMP_WAIT_POLICY=passive GPU_BUILD=$build

left() { echo $((seconds - $(date +%s) + begun)); }
say() { # PART ok|FAIL|skip TEXT
    case $2 in ok) passed=$((passed + 1)) ;; FAIL) failed=$((failed + 1)) ;; skip) skipped=$((skipped + 1)) ;; esac
    printf '%-10s %-4s %4d s  %s\n' "$1" "$2" $(($(date +%s) - at)) "$3" | tee -a "$logs/summary.txt"
}
# Runs a command with its output in a log; says how it ended.
step() { # PART NAME SECONDS COMMAND...
    local part=$1 name=$2 most=$(($3 * seconds / 540)) log=$logs/$1-${2//[^a-z0-9_]/-}.log status
    shift 3
    [ "$most" -le "$(left)" ] || most=$(left)
    if [ "$most" -lt 5 ]; then say "$part" skip "$name: no time is left"; return 1; fi
    timeout "$most" bash -c '"$@"' step "$@" >"$log" 2>&1
    status=$?
    case $status in
    0) say "$part" ok "$name  $(grep -E '^[0-9]+ passed, ' "$log" | tail -n 1)"; return 0 ;;
    124) say "$part" FAIL "$name: beyond $most s" ;;
    *) say "$part" FAIL "$name: exit status $status"; tail -n 25 "$log" | sed 's/^/    /' ;;
    esac
    return 1
}

unpack() {
    [ -e "$here/done" ] && return
    rm -rf "$here" && mkdir -p "$here" && tar -C "$here" -xJf "$carry/carry.tar.xz" &&
        gcc -O3 -fopenmp -march=native -I"$here/include" -c -o "$here/blas.o" tests/gpu_blas.c &&
        ar rcs "$here/lib/libopenblas.a" "$here/blas.o" && touch "$here/done"
}
compile() {
    unpack || return
    local arch
    arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
    PATH=$here/bin:$PATH make -j"$(nproc)" CUDA=$([ "$kind" = host ] && echo host || echo 1) CUDA_ARCH="${arch:-90}" \
        DNNL= MODE=release "$program" $(tests_of twins) $(tests_of parity)
}
tests_of() { # twins | parity
    case $1 in
    twins) find tests -name 'twins_*_test.c' ;;
    parity) printf 'tests/%s_test.c\n' infer/model/{kv,features,assistant,assistant_golden,target,target_golden,target_experts} \
        data/capture infer/decode/{simulate,verify,score,draft,suppress} train/{rollout,optimizer,gradients_golden} ;;
    esac | sort | sed "s|\(.*\)\.c|$build/\1|"
}

config() { # OUTPUT OVERRIDE...: a small run of the demo pair
    local to=$1
    shift
    echo -c tests/smoke.json output_dir="$to" runtime.device="$device" ${GPU_SET:-} "$@"
}
train_twice() {
    local run=$logs/repeat
    rm -rf "$run" "$run.first"
    "$program" run $(config "$run" train.steps=1 train.save_every=1 train.dev_every=1 eval.select_k=3) || return
    for turn in first second; do
        rm -rf "$run/ckpt"
        "$program" train --overwrite $(config "$run" train.steps="$steps" train.save_every="$steps" train.dev_every="$steps") || return
        (cd "$run/ckpt" && find . -name '*.safetensors' -print0 | sort -z | xargs -0 sha256sum) >"$logs/repeat.$turn" || return
    done
    cat "$logs/repeat.first"
    [ -s "$logs/repeat.first" ] && cmp "$logs/repeat.first" "$logs/repeat.second"
}
# Greedy and drawn text of the demo pair; the greedy one is longer, for its speed.
graphs_pair() {
    local how set
    for how in greedy drawn; do
        set=$([ $how = drawn ] && echo regenerate.temperature=0.8 data.seed=5 generate.max_new_tokens=60 ||
            echo generate.max_new_tokens=${GPU_TOKENS:-400})
        for on in true false; do
            "$program" generate --json $(config "$logs/graphs") $set runtime.graphs=$on generate.draft_tokens=4 \
                'Schreib mir alles, was du weißt.' >"$logs/graphs.$how.$on" || return
        done
        echo "$how: tokens, seconds of target and drafter with graphs, then without"
        grep -hE '"(tokens|target_s|drafter_s)"' "$logs/graphs.$how.true" "$logs/graphs.$how.false" | paste -s -d ' '
        grep -qE '"drafted": [1-9]' "$logs/graphs.$how.true" || { echo 'nothing was drafted'; return 1; }
        diff <(grep -vE '_s"' "$logs/graphs.$how.true") <(grep -vE '_s"' "$logs/graphs.$how.false") || return
    done
}
taus() { # FOLDER: drafter, k, tau of its evaluation
    python3 - "$1" <<'PY'
import json, sys
d = json.load(open(sys.argv[1] + '/eval/acceptance.json'))
def walk(x, path):
    if isinstance(x, dict):
        for k, v in sorted(x.items()): walk(v, path + [k])
    elif isinstance(x, list):
        for i, v in enumerate(x): walk(v, path + [str(i)])
    elif isinstance(x, (int, float)) and 'tau' in path:
        print('/'.join(path), x)
walk(d['drafters']['stock'], [])
PY
}
demo_pair() {
    local gpu=$logs/demo cpu=$logs/demo-cpu
    rm -rf "$gpu" "$cpu"
    "$program" run $(config "$gpu") || return
    mkdir -p "$cpu" && cp -r "$gpu/data" "$gpu/regen" "$cpu/" || return
    for verb in capture train eval; do
        "$program" $verb $(config "$cpu" runtime.device=cpu train.steps=1 train.save_every=1 train.dev_every=1) || return
    done
    taus "$gpu" >"$logs/tau.gpu" && taus "$cpu" >"$logs/tau.cpu" || return
    paste -d ' ' "$logs/tau.gpu" "$logs/tau.cpu" | awk '
        $1 != $3 {print "rows differ: " $0; bad = 1}
        {d = $2 - $4; if (d < 0) d = -d; print $0; n++; if (d > 0.01 * $4) {print "beyond 1 %"; bad = 1}}
        END {print n " values of tau compared"; exit bad || n == 0}'
}
sanitize() { # TOOL
    local tool ok=0
    tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    [ -n "$tool" ] || { say "$1" skip 'there is no compute-sanitizer'; return; }
    for t in $(tests_of twins); do
        at=$(date +%s)
        step "$1" "$(basename "$t")" "$2" "$tool" --tool "$1" --error-exitcode 9 "$t" || ok=1
    done
    return $ok
}

export carry logs steps device kind here build program
export -f unpack compile tests_of config train_twice graphs_pair taus demo_pair
echo "== $(date -u +%FT%TZ) $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)" |
    tee -a "$logs/summary.txt"
for part in $parts; do
    at=$(date +%s)
    if [ "$part" != build ] && [ ! -x "$program" ]; then say "$part" skip 'nothing is built'; continue; fi
    case $part in
    build) step build "$kind" 300 compile || break ;;
    twins) step twins 'operators against their CPU bodies' 120 tests/run.sh $(tests_of twins) ;;
    parity) DEVICE=$device step parity 'goldens and models' 150 tests/run.sh $(tests_of parity) ;;
    repeat) step repeat "$steps steps, twice" 100 train_twice ;;
    graphs) step graphs 'text with and without' 60 graphs_pair && grep -A 1 ': tokens' "$logs"/graphs-*.log | tee -a "$logs/summary.txt" ;;
    demo) step demo 'tau on GPU and CPU' 120 demo_pair ;;
    memcheck | racecheck) sanitize "$part" 60 ;;
    bench) step bench 'E4B shapes' 240 "$program" bench runtime.device="$device" bench.shapes=e4b bench.seq=2048 \
        bench.peers="$([ -n "$(ls "$here"/peers/*.py 2>/dev/null)" ] && python3 -c 'import torch' 2>/dev/null && echo true || echo false)" \
        bench.peer_rounds=1 bench.peer_path="$here/peers"
        grep -hE '^(ceiling|capture|decode|train|round|the same|\|)' "$logs"/bench-*.log | tee -a "$logs/summary.txt" ;;
    *) say "$part" FAIL 'no such part' ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped" | tee -a "$logs/summary.txt"
[ "$failed" -eq 0 ]
