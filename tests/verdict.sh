# tests/verdict.sh - what scripts of tests count and say; to be sourced from the repository's root.
# shellcheck shell=bash
passed=0 failed=0

verdict() { # NAME PROBLEM: an empty problem is a pass
    if [ -z "$2" ]; then passed=$((passed + 1)); echo "ok    $1"; return; fi
    failed=$((failed + 1))
    echo "FAIL  $1"
    printf '%s\n' "$2" | tail -n 30 | sed 's/^/      /'
}
