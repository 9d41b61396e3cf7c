// infer/format/mlx_affine.c - w ~ scale * code + bias, codes of 2, 3, 4, 5, 6 or 8 bits.
//
// The scale is such that the group's end of larger magnitude (the edge) and 0 are both values of a
// code, so it is negative where that end is above 0.
#include "infer/format/mlx_parts.h"

enum { STEP = 32 }; // elements packed at a time; every group is a multiple

// bf16 bits as integers in the order of the numbers, and back.
LANE_FN int16_t ordered(uint16_t bits) {
    const int16_t v = (int16_t)bits;
    return (int16_t)(v ^ (v < 0 ? 0x7fff : 0));
}

typedef struct {
    float scale, bias;
} Affine;

LANE_FN Affine group_affine(const bf16 *w, int group, int bits) {
    int16_t low = INT16_MAX, high = INT16_MIN;
    for (int i = 0; i < group; i++) {
        const int16_t v = ordered(w[i].bits);
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    const float min = bf16_to_f32((bf16){(uint16_t)ordered((uint16_t)low)}),
                max = bf16_to_f32((bf16){(uint16_t)ordered((uint16_t)high)});
    const bool side = fabsf(min) > fabsf(max);
    const float range = (max - min) / (float)((1 << bits) - 1),
                size = range > 1e-7f ? range : 1e-7f;
    const float edge = side ? min : max, signed_size = side ? size : -size;
    const float whole = rintf(edge / signed_size);
    if (whole == 0.0f) return (Affine){signed_size, 0.0f};
    return (Affine){edge / whole, edge};
}

LANE_FN bool affine_row(int bits, int group, bool requant, uint8_t *words, bf16 *scales,
                        bf16 *biases, const bf16 *w, int64_t n) {
    const float top = (float)((1 << bits) - 1);
    uint8_t code[STEP];
    bool ok = true;
    for (int64_t at = 0; at < n; at += group) {
        Affine a = group_affine(w + at, group, bits);
        const bf16 scale = bf16_from_f32(a.scale);
        *scales++ = scale;
        *biases++ = bf16_from_f32(a.bias);
        ok = ok && (scale.bits & 0x7f80) != 0x7f80;
        if (requant) a.scale = bf16_to_f32(scale);
        for (int64_t k = at; k < at + group; k += STEP, words += STEP * bits / 8) {
            EACH_ELEMENT (i, STEP) { // little beyond 0 .. top
                const float v = nearest((bf16_to_f32(w[k + i]) - a.bias) / a.scale);
                code[i] = (uint8_t)clamp_float(v, 0.0f, top);
            }
            pack_codes(words, code, STEP, bits);
        }
    }
    return ok;
}

// Widths are spelled out so that each has its own shifts.
#define BITS(b)                                                                                    \
    case b:                                                                                        \
        return affine_row(b, s->group, s->requant, words, scales, biases, w, n)
KERNEL bool mlx_affine_row(const MlxScheme *s, uint8_t *words, bf16 *scales, bf16 *biases,
                           const bf16 *w, int64_t n) {
    switch (s->bits) {
        BITS(2);
        BITS(3);
        BITS(4);
        BITS(5);
        BITS(6);
        BITS(8);
    }
    CHECK(false, "affine with %d bits", s->bits);
}
#undef BITS

LANE_FN void affine_row_back(int bits, int group, bf16 *out, const uint8_t *words,
                             const bf16 *scales, const bf16 *biases, int64_t n) {
    uint8_t code[STEP];
    for (int64_t at = 0; at < n; at += group) {
        const float scale = bf16_to_f32(*scales++), bias = bf16_to_f32(*biases++);
        for (int64_t k = at; k < at + group; k += STEP, words += STEP * bits / 8) {
            unpack_codes(code, words, STEP, bits);
            EACH_ELEMENT (i, STEP) {
                const float product = round_bf16(scale * (float)code[i]);
                out[k + i] = bf16_from_f32(product + bias);
            }
        }
    }
}

#define BITS(b)                                                                                    \
    case b:                                                                                        \
        affine_row_back(b, s->group, out, words, scales, biases, n);                               \
        break
KERNEL void mlx_affine_row_back(const MlxScheme *s, bf16 *out, const uint8_t *words,
                                const bf16 *scales, const bf16 *biases, int64_t n) {
    switch (s->bits) {
        BITS(2);
        BITS(3);
        BITS(4);
        BITS(5);
        BITS(6);
        BITS(8);
    default:
        CHECK(false, "affine with %d bits", s->bits);
    }
}
#undef BITS
