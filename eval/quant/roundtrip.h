// eval/quant/roundtrip.h - what is left of a matrix that was stored in a type and read back.
#ifndef EVAL_ROUNDTRIP_H
#define EVAL_ROUNDTRIP_H

#include "infer/export/mix.h"

// w [rows, cols] in place: rounded to bf16 (what exporters encode), encoded, decoded. importance:
// [cols] or NULL.
MUST_CHECK bool roundtrip(const MixType *t, float *w, int64_t rows, int64_t cols,
                          const float *importance, Err *err);

enum { ROUNDTRIP_TYPES = 8 };
// The types that modules are measured in, for rows of `cols`, smallest first; mlx: 2, 3, 4, 5, 6, 8
// bits, group 64; gguf: Q3_K, IQ4_XS, Q4_K, Q5_K, Q6_K, Q8_0, or what llama.cpp falls back to where
// the rows are no multiple of 256. Those that do not fit are left out; returns their number.
int roundtrip_types(MixFormat format, int64_t cols, MixType out[ROUNDTRIP_TYPES]);

#endif
