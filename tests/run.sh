#!/usr/bin/env bash
# tests/run.sh PROGRAM... - runs cmocka programs and counting scripts, adds up what they report.
# A script's own last line is "N passed, N failed, N skipped". Last line here: the same, over all.
# Skips and counted comparisons are said aloud; the whole output of a program is shown when it fails.
set -u
# Threads that wait must not keep a core from those that work: short tests, often on shared cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
passed=0 failed=0 skipped=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

count() { # PATTERN: the number in the last matching line of the log
    sed -nE "s/$1/\1/p" "$log" | tail -n 1 | grep . || echo 0
}

[ $# -gt 0 ] || { echo "no tests were named"; failed=1; }
for program in "$@"; do
    start=$(date +%s.%N)
    case $program in /*) run=$program ;; *) run=./$program ;; esac
    case $program in *_on_cuda_test) on=cuda ;; *) on=${DEVICE:-} ;; esac
    DEVICE=$on "$run" >"$log" 2>&1
    status=$?
    case $program in
    *.sh) p=$(count '^([0-9]+) passed, [0-9]+ failed, [0-9]+ skipped$')
          f=$(count '^[0-9]+ passed, ([0-9]+) failed, [0-9]+ skipped$')
          s=$(count '^[0-9]+ passed, [0-9]+ failed, ([0-9]+) skipped$') ;;
    *)    p=$(count '^\[  PASSED  \] ([0-9]+) test.*')
          f=$(count '^\[  FAILED  \] ([0-9]+) test.*')
          s=$(count '^\[  SKIPPED \] ([0-9]+) test.*') ;;
    esac
    # A crash, a sanitizer's report or an empty program is a failure even where no test says so.
    if [ "$f" -eq 0 ] && { [ "$status" -ne 0 ] || [ $((p + s)) -eq 0 ]; }; then f=1; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-58s %4d passed %s%s%6.1f s\n' "${program#build/}" "$p" \
        "$([ "$f" -gt 0 ] && echo "$f FAILED ")" "$([ "$s" -gt 0 ] && echo "$s skipped ")" \
        "$(echo "$(date +%s.%N) $start" | awk '{print $1 - $2}')"
    if [ "$f" -gt 0 ]; then
        echo "--- exit status $status, output:"
        grep -vE '^\[ RUN      \]|^\[       OK \]' "$log" | tail -n 200
        echo "---"
    else
        grep -iE '^ *(skipped|compared)' "$log" | sed 's/^/    /'
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
