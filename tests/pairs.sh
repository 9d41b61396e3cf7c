# tests/pairs.sh - pairs of real shapes for clients.sh and clients_mlx.sh, which source it.
# shellcheck shell=bash
# SHAPES="e2b:21 31b:7": shapes and seeds; each pair, random weights and the real tokenizer, joins PAIRS.
# TOKENIZER_DIR is a folder with gemma4-tokenizer.json.zst, tokenizer_config.json and chat_template.jinja.
for shape in ${SHAPES:-}; do
    tokenizer=${TOKENIZER_DIR:-$CLIENTS/../tokenizer} dir=$work/${shape%%:*} maker=build/release-cpu/tests/synthetic_pair
    out=$({ make -s "$maker" && "$maker" "${shape%%:*}" "${shape#*:}" "$dir" &&
        cp "$tokenizer/tokenizer_config.json" "$tokenizer/chat_template.jinja" "$dir/target" &&
        zstd -dq "$tokenizer/gemma4-tokenizer.json.zst" -o "$dir/target/tokenizer.json"; } 2>&1)
    ran "a pair of shape $shape" $? "$out"
    PAIRS="${PAIRS:-} $dir/assistant:$dir/target"
done
