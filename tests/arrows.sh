#!/usr/bin/env bash
# tests/arrows.sh - who may include whom, unique file names, and rules a grep can hold.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/verdict.sh

# FOLDER may include files whose path matches the pattern, its own folder included.
allowed() {
    case $1 in
    infer/base) echo '^infer/base/' ;;
    infer/text) echo '^infer/(base|text)/' ;;
    infer/tensor*) echo '^infer/(base|tensor)/' ;;
    infer/format) echo '^infer/(base|tensor|format)/' ;;
    infer/model) echo '^infer/(base|tensor|format|model)/' ;;
    infer/decode) echo '^infer/(base|text|tensor|format|model|decode)/' ;;
    infer/export) echo '^infer/' ;;
    data) echo '^(infer|data)/' ;;
    train) echo '^(infer|data|train)/' ;;
    eval) echo '^(infer|data|eval)/' ;;
    eval/count | eval/audit) echo "^(infer|data|$1)/" ;;
    eval/cost) echo '^(infer|data|eval/(count|cost))/' ;;
    eval/bench) echo '^(infer|data|eval/cost|eval/bench)/' ;;
    eval/quant) echo '^(infer|data|eval/(count|quant))/' ;;
    eval/report) echo '^(infer|data|eval/(count|cost|audit|report))/' ;;
    .) echo '^infer/base/|^infer/tensor/device\.h$|(_cmd|_bench)\.h$' ;;
    tests*) echo '^' ;;
    *) echo '^$' ;;
    esac
}

files=$(find main.c infer data train eval tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | sort)
bad=$(for f in $files; do
    grep -hoE '^ *# *include +"[^"]+"' "$f" | sed -E 's/.*"(.*)"/\1/' |
        grep -vE "$(allowed "$(dirname "$f")")" | sed "s|^|$f includes |"
done)
verdict 'includes go left only' "$bad"
verdict 'file names are unique' "$(for f in $files; do basename "$f"; done | sort | uniq -d)"
verdict 'every include names a file from the top of the tree' "$(for f in $files; do
    grep -hoE '^ *# *include +"[^"]+"' "$f" | sed -E 's/.*"(.*)"/\1/' | while read -r i; do
        [ -e "$i" ] || echo "$f: $i"; done; done)"
verdict 'CUDA is known to one C file' "$(grep -lE '^ *# *if.*WITH_CUDA' $files |
    grep -v '^infer/tensor/device\.c$')"
verdict 'nobody sets a locale' "$(grep -nE '\bsetlocale *\(' $files)"
verdict 'nothing ends the program but main.c' "$(grep -nE '(^|[^_a-z])exit *\(' $files |
    grep -vE '^(main\.c|tests/)')"
verdict 'files begin with their own name' "$(for f in $files; do
    head -n 1 "$f" | grep -qF "// $f" || echo "$f"; done)"
verdict 'no file beyond 600 lines' "$(wc -l $files | awk '$2 != "total" && $1 > 600 {print $2": "$1}')"
finish
