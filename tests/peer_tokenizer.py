#!/usr/bin/env python3
"""How fast Hugging Face `tokenizers` encodes a file on one thread: the yardstick of our tokenizer.

    peer_tokenizer.py TOKENIZER.json[.zst] TEXT [REPEATS] [--lines]

Prints one JSON object: seconds (best of REPEATS, default 3), tokens, bytes, version. The whole file is
one call to encode, or with --lines every line is one; added tokens are matched.
"""
import os

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import json
import subprocess
import sys
import time


def main():
    try:
        import tokenizers
    except ImportError:
        print("peer_tokenizer.py: SKIPPED, the Python package `tokenizers` is missing", file=sys.stderr)
        return 77
    arguments = [a for a in sys.argv[1:] if a != "--lines"]
    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    path, text_path = arguments[:2]
    if path.endswith(".zst"):
        data = subprocess.run(["zstd", "-dc", path], check=True, capture_output=True).stdout
    else:
        with open(path, "rb") as f:
            data = f.read()
    tokenizer = tokenizers.Tokenizer.from_str(data.decode("utf-8"))
    with open(text_path, "rb") as f:
        raw = f.read()
    text = raw.decode("utf-8", errors="replace")
    texts = text.split("\n") if "--lines" in sys.argv else [text]
    best, tokens = float("inf"), 0
    for _ in range(int(arguments[2]) if len(arguments) == 3 else 3):
        start = time.perf_counter()
        tokens = sum(len(tokenizer.encode(t, add_special_tokens=False).ids) for t in texts)
        best = min(best, time.perf_counter() - start)
    print(json.dumps({"seconds": best, "tokens": tokens, "bytes": len(raw), "version": tokenizers.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
