#!/usr/bin/env bash
# tests/run.sh PROGRAM... - runs cmocka programs and counting scripts, adds up what they report.
# A script's own last line is "N passed, N failed, N skipped". Last line here: the same, over all.
# Skips and counted comparisons are said aloud; the whole output of a program is shown when it fails.
set -u
# Threads that wait must not keep a core from those that work: short tests, often on shared cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
jobs=${TEST_JOBS:-$(nproc)} # programs at once; many use one core only
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

count() { # LOG PATTERN: the number in the last matching line of the log
    sed -nE "s/$2/\1/p" "$1" | tail -n 1 | grep . || echo 0
}

# PROGRAM LOG: runs it; its line, and what is to be said of it, as one piece of text; its counts behind LOG.
one() {
    local program=$1 log=$2 start run on status p f s
    start=$(date +%s.%N)
    case $program in /*) run=$program ;; *) run=./$program ;; esac
    case $program in *_on_cuda_test) on=cuda ;; *) on=${DEVICE:-} ;; esac
    DEVICE=$on "$run" >"$log" 2>&1 </dev/null
    status=$?
    case $program in
    *.sh) p=$(count "$log" '^([0-9]+) passed, [0-9]+ failed, [0-9]+ skipped$')
          f=$(count "$log" '^[0-9]+ passed, ([0-9]+) failed, [0-9]+ skipped$')
          s=$(count "$log" '^[0-9]+ passed, [0-9]+ failed, ([0-9]+) skipped$') ;;
    *)    p=$(count "$log" '^\[  PASSED  \] ([0-9]+) test.*')
          f=$(count "$log" '^\[  FAILED  \] ([0-9]+) test.*')
          s=$(count "$log" '^\[  SKIPPED \] ([0-9]+) test.*') ;;
    esac
    # A crash, a sanitizer's report or an empty program is a failure even where no test says so.
    if [ "$f" -eq 0 ] && { [ "$status" -ne 0 ] || [ $((p + s)) -eq 0 ]; }; then f=1; fi
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
    echo "$p $f $s" >"$log.counts"
}

[ $# -gt 0 ] || echo "no tests were named"
n=0
for program in "$@"; do
    [ "$(jobs -rp | wc -l)" -lt "$jobs" ] || wait -n
    n=$((n + 1))
    { text=$(one "$program" "$work/$n"); printf '%s\n' "$text"; } &
done
wait
# A program without counts never came to its end: one failure.
read -r passed failed skipped < <(for ((i = 1; i <= n; i++)); do cat "$work/$i.counts" 2>/dev/null || echo 0 1 0; done |
    awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0}')
[ "$n" -gt 0 ] || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
