#!/usr/bin/env python3
"""How fast ggml's own quantiser encodes tensors: the yardstick of our codecs.

    peer_quantise.py WEIGHTS.f32 LIST THREADS REPEATS [libggml-base.so]

Each line of LIST is "MIX TYPE OFFSET ROWS COLUMNS": rows of floats at that byte of WEIGHTS.f32, the ggml
type's number. Calls ggml_quantize_chunk of the library that llama-cpp-python brings (or of the one named)
on chunks of rows, THREADS at a time. Prints one JSON object: the best seconds of each mix, and the library.
Ends with status 77 when there is no such library.
"""
import concurrent.futures
import ctypes
import glob
import importlib.util
import json
import os
import sys
import time

LEAST_SECONDS = 1.0  # other users of the machine only ever add to a time: short passes are repeated


def library():
    if len(sys.argv) == 6:
        return sys.argv[5] if os.path.exists(sys.argv[5]) else None
    spec = importlib.util.find_spec("llama_cpp")
    for folder in spec.submodule_search_locations if spec else []:
        for path in sorted(glob.glob(os.path.join(folder, "lib", "libggml-base*"))):
            return path
    return None


def main():
    if len(sys.argv) not in (5, 6):
        print(__doc__, file=sys.stderr)
        return 2
    path = library()
    if path is None:
        where = sys.argv[5] if len(sys.argv) == 6 else "the Python package llama-cpp-python"
        print("peer_quantise.py: SKIPPED, %s is missing" % where, file=sys.stderr)
        return 77
    ggml = ctypes.CDLL(path)
    quantise = ggml.ggml_quantize_chunk
    quantise.restype = ctypes.c_size_t
    quantise.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    ggml.ggml_row_size.restype = ctypes.c_size_t
    ggml.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    threads, repeats = int(sys.argv[3]), int(sys.argv[4])
    with open(sys.argv[1], "rb") as f:
        weights = bytearray(f.read())
    jobs = [line.split() for line in open(sys.argv[2])]
    source = ctypes.addressof(ctypes.c_char.from_buffer(weights))
    room = bytearray(b"\1") * max(int(j[3]) * ggml.ggml_row_size(int(j[1]), int(j[4])) for j in jobs)
    target = ctypes.addressof(ctypes.c_char.from_buffer(room))
    best = {}
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:

        def encode(kind, offset, rows, cols):
            chunk = max(1, rows // (8 * threads))
            parts = [
                pool.submit(quantise, kind, source + offset, target, r * cols, min(chunk, rows - r), cols, None)
                for r in range(0, rows, chunk)
            ]
            if sum(p.result() for p in parts) != rows * ggml.ggml_row_size(kind, cols):
                raise RuntimeError("wrong number of bytes of type %d" % kind)

        for mix in dict.fromkeys(j[0] for j in jobs):
            passes, spent = 0, 0.0
            while passes < repeats or spent < LEAST_SECONDS:
                begin = time.perf_counter()
                for job in jobs:
                    if job[0] == mix:
                        encode(*map(int, job[1:]))
                seconds = time.perf_counter() - begin
                best[mix] = min(best.get(mix, seconds), seconds)
                passes, spent = passes + 1, spent + seconds
    print(json.dumps(dict(best, library=os.path.basename(os.path.realpath(path)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
