# tests/verdict.sh - what scripts of tests count and say; to be sourced from the repository's root.
# shellcheck shell=bash
passed=0 failed=0 skipped=0

verdict() { # NAME PROBLEM: an empty problem is a pass
    if [ -z "$2" ]; then passed=$((passed + 1)); echo "ok    $1"; return; fi
    failed=$((failed + 1))
    echo "FAIL  $1"
    printf '%s\n' "$2" | tail -n 30 | sed 's/^/      /'
}
ran() { # NAME STATUS OUTPUT: of a program whose last lines say what it saw
    if [ "$2" -ne 0 ]; then verdict "$1" "${3:-exit status $2}"; return; fi
    verdict "$1${3:+: $(tail -n 2 <<<"$3" | tr '\n' ' ')}" ''
}
skip() { skipped=$((skipped + 1)); echo "skipped: $1"; }
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}
