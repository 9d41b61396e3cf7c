#!/usr/bin/env bash
# tests/faults.sh [VERB...] - calls on files that fail, are interrupted or do half of their work; kills before a
# call; power failures on a disk that forgets what was not synced. prepare, capture and the checkpoints of train name
# the file, leave nothing half-written, lose no more than the publication under way, and end in the same bytes when
# run again.
#
# FAULTS=all: every call of every kind (check-long); else a sample. FAULT_SO: tests/fault built (see fault.h there).
set -u
cd "$(dirname "$0")/.." || exit 1
program=${DRAFTSMITH:-./draftsmith} preload=${FAULT_SO:-build/release-cpu/tests/fault/fault.so}
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive
ulimit -c 0
[ -e "$preload" ] || { echo "FAIL  no $preload"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }

sed -n 1,40p configs/demo/prompts/german-facts.eval.jsonl >"$work/train.jsonl"
sed -n 41,60p configs/demo/prompts/german-facts.eval.jsonl >"$work/eval.jsonl"
settings=(-q -c tests/smoke.json data.train="$work/train.jsonl" data.eval="$work/eval.jsonl" data.max_samples=12 capture.shard_mib=1
    data.dev_samples=2 data.eval_samples=2 data.max_length=300 regenerate.max_new_tokens=8 train.steps=2 train.k=2
    train.anchors=8 train.batch_sequences=2 train.save_every=1 train.dev_every=1 train.keep=9 train.dtype=f32
    train.freeze='*embed*,*mlp*,*proj*' runtime.threads=1 eval.select_k=2 eval.draft_tokens=2)
verbs=("$@")
[ $# -gt 0 ] || verbs=(prepare capture train)

results() { ( # VERB DIR: what an undisturbed run ends in
    cd "$2" 2>/dev/null || exit
    case $1 in
    prepare) sha256sum data/*.jsonl data/prepare.json ;;
    capture) sha256sum shards/*/*.h5 shards/*/*.json ;;
    train) sha256sum ckpt/step-000002/*.safetensors; readlink ckpt/latest ckpt/best ;;
    esac 2>/dev/null); }
pieces() { ( # VERB DIR: what may be there at any time, but only whole
    cd "$2" 2>/dev/null || exit
    case $1 in
    prepare) sha256sum data/*.jsonl data/prepare.json ;;
    capture) sha256sum shards/*/*.h5 ;;
    train) sha256sum ckpt/step-??????/*.safetensors ;;
    esac 2>/dev/null); }

# Published names in one tree that another lacks or has otherwise; a folder published as a whole counts once.
lost() { # LIVE CRASHED
    (cd "$1" 2>/dev/null && find . \( -type f -o -type l \) ! -path '*.tmp*' ! -name '*lock' ! -path './tb/*' \
        ! -name metrics.jsonl) | while read -r f; do
        if [ -L "$1/$f" ]; then [ "$(readlink "$1/$f")" = "$(readlink "$2/$f")" ]
        else cmp -s "$1/$f" "$2/$f"; fi || echo "$f" | sed -E 's|(step-[0-9]+)/.*|\1|'
    done | sort -u
}

one_case() { # WORKER VERB FAULT: prints what is wrong
    local at=$work/$1 verb=$2 fault=$3 how=${3##*:} status run problem= left named
    run=$at/run
    rm -rf "$at"
    mkdir -p "$at/disk"
    [ ! -e "$work/before-$verb" ] || cp -a "$work/before-$verb" "$run"
    FAULT_SEED=$RANDOM FAULT_DISK=$at/disk FAULT_UNDER=$run FAULT=$fault FAULT_COUNT=$at/count LD_PRELOAD=$preload \
        "$program" "$verb" "${settings[@]}" output_dir="$run" >/dev/null 2>"$at/err" </dev/null
    status=$?
    case $how in
    kill) [ $status -eq 137 ] || problem="exit code $status, expected 137" ;;
    drop | mix)
        [ $status -eq 97 ] || problem="exit code $status, expected 97"
        left=$(lost "$run" "$at/disk/crashed")
        [ "$(wc -l <<<"$left")" -le 1 ] || problem="$problem; more is lost than the last publication: $left"
        rm -rf "$run"
        [ ! -e "$at/disk/crashed" ] || mv "$at/disk/crashed" "$run" ;;
    *)
        case $how.$status in
        short.0 | EINTR.0 | EIO.[01] | ENOSPC.[01] | ENOMEM.[012]) ;; # 2: the configuration was not read
        *) problem="exit code $status" ;;
        esac
        grep -q '^fired [1-9]' "$at/count" 2>/dev/null || [ "$how.$status" = ENOMEM.1 ] || problem="$problem; nothing failed"
        if [ $status -eq 0 ]; then [ "$(results "$verb" "$run")" = "$(cat "$work/want-$verb")" ] || problem="$problem; done with other bytes"; fi
        if [ $status -eq 1 ]; then
            [ "$(grep -vc '^warning: ' "$at/err")" -eq 1 ] || problem="$problem; not one line on stderr"
            named="$run|$work/"
            [ "$how" != ENOMEM ] || named="$named|out of memory|no memory (for|to) |Cannot allocate"
            grep -v '^warning: ' "$at/err" | grep -qE "$named" || problem="$problem; nothing is named"
        fi
        left=$(find "$run" -name '*.tmp*' 2>/dev/null)
        [ -z "$left" ] || [ "$how" = ENOMEM ] || problem="$problem; left behind: $left"
        left=$(pieces "$verb" "$run" | grep -vxFf "$work/pieces-$verb")
        [ -z "$left" ] || problem="$problem; half-written: $left" ;;
    esac
    "$program" "$verb" "${settings[@]}" output_dir="$run" >/dev/null 2>"$at/again" </dev/null || problem="$problem; run again: exit code $?"
    ! grep -q 'falling back' "$at/again" || problem="$problem; a published checkpoint was damaged"
    [ "$(results "$verb" "$run")" = "$(cat "$work/want-$verb")" ] || problem="$problem; run again: other bytes"
    [ -z "$problem" ] || { echo "FAIL  $verb, $fault: ${problem#; }"; sed 's/^/      /' "$at/err" "$at/again" | head -n 6; }
}

few() { # N OF: N numbers of 1..OF spread over it, the first and the last among them; all of them for FAULTS=all
    [ "${FAULTS:-}" = all ] && { seq "$2"; return; }
    awk -v n="$1" -v of="$2" 'BEGIN { for (i = 0; i < n && i < of; i++) print n == 1 || of <= n ? i + 1 : int(1 + i * (of - 1) / (n - 1) + 0.5) }'
}
cases() { # VERB
    local kind of n seed
    while read -r kind of; do
        case $kind in
        open | read) for n in $(few 4 "$of"); do echo "$1 $kind:$n:EIO"; done ;;
        write) for n in $(few 4 "$of"); do echo "$1 $kind:$n:EIO"; done
            for n in $(few 3 "$of"); do echo "$1 $kind:$n+:ENOSPC"; done ;;
        fsync | rename) for n in $(few 3 "$of"); do echo "$1 $kind:$n:EIO"; done ;;
        close | unlink | mkdir | symlink | truncate | lock) for n in $(few 1 "$of"); do echo "$1 $kind:$n:EIO"; done ;;
        malloc) # nearly all of them are the tokenizer's, alike; the last ones are the verb's own
            for n in $(few 3 "$of" | awk -v of="$of" 'NR < 4 || NR % 211 == 0 || (NR > of - 400 && NR % 7 == 0)'); do
                echo "$1 $kind:$n:ENOMEM"; done ;;
        any) for n in $(few 6 "$of"); do echo "$1 any:$n:kill"; echo "$1 any:$n:drop"; echo "$1 any:$n:mix"; done ;;
        esac
    done <"$work/count-$1"
    for kind in read write; do echo "$1 $kind:1+:short"; echo "$1 $kind:1+:EINTR"; done
}

give_up() { echo "FAIL  $1"; cat "$work/err"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
run=$work/run
for verb in prepare regenerate capture train; do
    [ ! -e "$run" ] || cp -a "$run" "$work/before-$verb"
    FAULT_UNDER=$run FAULT_COUNT=$work/count-$verb LD_PRELOAD=$preload \
        "$program" $verb "${settings[@]}" output_dir="$run" >/dev/null 2>"$work/err" || give_up "$verb, undisturbed"
    results $verb "$run" >"$work/want-$verb"
    pieces $verb "$run" >"$work/pieces-$verb"
done
for verb in "${verbs[@]}"; do cases "$verb"; done >"$work/cases"
for kind in open read write fsync close rename unlink mkdir truncate lock malloc; do
    for verb in "${verbs[@]}"; do grep -q "^$verb $kind:" "$work/cases" || give_up "$verb: no call of kind $kind was counted"; done
done
for worker in 0 1; do
    RANDOM=$worker
    while read -r verb fault; do one_case $worker "$verb" "$fault"; done \
        < <(awk -v w=$worker 'NR % 2 == w' "$work/cases") >"$work/found-$worker" 2>/dev/null &
done
wait
cat "$work"/found-*
total=$(wc -l <"$work/cases") failed=$(cat "$work"/found-* | grep -c '^FAIL')
for verb in "${verbs[@]}"; do echo "$(grep -c "^$verb" "$work/cases") faults in $verb, of $(awk '{ n += $2 } END { print n }' "$work/count-$verb") calls"; done
echo "$((total - failed)) passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
