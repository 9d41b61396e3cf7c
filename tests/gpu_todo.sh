#!/usr/bin/env bash
# tests/gpu_todo.sh - what no GPU has shown yet (tests/gpu.todo) is said aloud, as skipped; every part of tests/gpu.sh
# that it names is there to be run.
cd "$(dirname "$0")/.." || exit 1
. tests/verdict.sh
todo=tests/gpu.todo why='no GPU here'
[ -e /dev/nvidiactl ] && why='tests/gpu.sh CARRY runs it'
parts_missing() {
    local named part
    named=$(grep -oE 'gpu\.sh CARRY( [a-z]+)+' $todo | cut -d ' ' -f 3- | tr ' ' '\n' | sort -u)
    [ -n "$named" ] || ! grep -q '^[a-z]' $todo || echo "$todo names no part"
    for part in $named; do
        grep -qE "^    ([a-z]+ \\| )*$part( \\| [a-z]+)*\\)" tests/gpu.sh || echo "tests/gpu.sh has no part $part"
    done
}
verdict 'what is open can be run' "$([ -r $todo ] && parts_missing || echo "no $todo")"
while IFS= read -r line; do
    case $line in '' | '#'* | ' '* | 'not built'*) continue ;; esac
    skip "$(tr -s ' ' <<<"$line") ($why)"
done <$todo
finish
