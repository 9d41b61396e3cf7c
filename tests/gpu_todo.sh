#!/usr/bin/env bash
# tests/gpu_todo.sh - says aloud, as skipped, what only a GPU can show and none has shown yet (tests/gpu.todo).
cd "$(dirname "$0")/.." || exit 1
skipped=0
why='no GPU here'
[ -e /dev/nvidiactl ] && why='tests/gpu.sh CARRY runs it'
while IFS= read -r line; do
    case $line in '' | '#'* | ' '* | 'not built'*) continue ;; esac
    skipped=$((skipped + 1))
    echo "skipped: $(tr -s ' ' <<<"$line") ($why)"
done <tests/gpu.todo
if [ $skipped -gt 0 ]; then echo "0 passed, 0 failed, $skipped skipped"; else echo "1 passed, 0 failed, 0 skipped"; fi
