// infer/format/mlx_blocks.h - weights as MLX quantises them: packed words, scales, biases.
//
// A row of n weights becomes n * bits / 32 words (element i at bits [i * bits, (i + 1) * bits) of
// the row, lowest first) and n / group scales. Affine scales and biases are bf16 and decode as
// bf16(bf16(scale * code) + bias), as MLX on a CPU does; the float modes have one byte for a scale
// and no bias. Bytes and values are those of MLX's CPU backend.
#ifndef FORMAT_MLX_BLOCKS_H
#define FORMAT_MLX_BLOCKS_H

#include <stdint.h>

#include "infer/base/err.h"
#include "infer/base/fp.h"

typedef enum { MLX_AFFINE, MLX_MXFP4, MLX_MXFP8, MLX_NVFP4 } MlxMode;

typedef struct {
    MlxMode mode;
    int bits, group;
    // Affine: codes are chosen for the scale as it is stored, in bf16. Same format, less error,
    // other bytes than mx.quantize.
    bool requant;
} MlxScheme;

const char *mlx_mode_name(MlxMode mode);                        // "affine", "mxfp4", ...
bool mlx_mode_named(const char *name, MlxMode *mode);           // false = no such mode
MlxScheme mlx_scheme(MlxMode mode);                             // its default bits and group
MUST_CHECK bool mlx_scheme_check(const MlxScheme *s, Err *err); // ERR_USAGE names what is wrong
bool mlx_has_biases(const MlxScheme *s);
// Of a scheme that passes the check. -1: n is negative, no multiple of the group, or too large.
int64_t mlx_row_words(const MlxScheme *s, int64_t n);
int64_t mlx_row_groups(const MlxScheme *s, int64_t n);
int64_t mlx_row_scale_bytes(const MlxScheme *s, int64_t n);

// w: [rows, n]; words: [rows, mlx_row_words]; scales: [rows, mlx_row_groups] of bf16, or of bytes
// in a float mode; biases: [rows, mlx_row_groups], NULL in a float mode. All cores. ERR_INPUT names
// row and column of a NaN or infinity, and the row of a scale or bias that is not finite in bf16.
MUST_CHECK bool mlx_encode(const MlxScheme *s, uint32_t *words, void *scales, bf16 *biases,
                           const bf16 *w, int64_t rows, int64_t n, Err *err);
// Any words, scales and biases; the same shapes.
MUST_CHECK bool mlx_decode(const MlxScheme *s, bf16 *out, const uint32_t *words, const void *scales,
                           const bf16 *biases, int64_t rows, int64_t n, Err *err);

#endif
