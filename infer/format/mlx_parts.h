// infer/format/mlx_parts.h - one row of MLX's layouts; mlx_blocks.h hands out rows.
#ifndef FORMAT_MLX_PARTS_H
#define FORMAT_MLX_PARTS_H

#include <string.h>

#include "infer/format/block_lanes.h"
#include "infer/format/mlx_blocks.h"

// Codes of `count` elements, one a byte, to the little-endian bit stream and back. count is a
// multiple of 8: eight codes are `bits` bytes.
LANE_FN void pack_codes(uint8_t *out, const uint8_t *code, int64_t count, int bits) {
    const uint64_t two = 0x00ff00ff00ff00ffu, four = 0x0000ffff0000ffffu, half = 0xffffffffu;
    for (int64_t i = 0; i < count; i += 8, out += bits) {
        uint64_t v;
        memcpy(&v, code + i, sizeof v);
        v = (v & two) | (v >> 8 & two) << bits;
        v = (v & four) | (v >> 16 & four) << 2 * bits;
        v = bits == 8 ? (v & half) | v >> 32 << 32 : (v & half) | v >> 32 << 4 * bits;
        memcpy(out, &v, (size_t)bits);
    }
}
LANE_FN void unpack_codes(uint8_t *code, const uint8_t *in, int64_t count, int bits) {
    const uint64_t mask = (1u << bits) - 1;
    for (int64_t i = 0; i < count; i += 8, in += bits) {
        uint64_t v = 0;
        memcpy(&v, in, (size_t)bits);
        for (int k = 0; k < 8; k++) code[i + k] = (uint8_t)(v >> k * bits & mask);
    }
}

// false = the row has a scale or bias that bf16 cannot hold
bool mlx_affine_row(const MlxScheme *s, uint8_t *words, bf16 *scales, bf16 *biases, const bf16 *w,
                    int64_t n);
void mlx_affine_row_back(const MlxScheme *s, bf16 *out, const uint8_t *words, const bf16 *scales,
                         const bf16 *biases, int64_t n);
// False: a value read back is beyond bf16.
bool mlx_float_row(const MlxScheme *s, uint8_t *words, uint8_t *scales, const bf16 *w, int64_t n);
void mlx_float_row_back(const MlxScheme *s, bf16 *out, const uint8_t *words, const uint8_t *scales,
                        int64_t n);

#endif
