// infer/format/mlx_float.c - mxfp4, mxfp8, nvfp4: small floats with a scale of one byte.
//
// MLX's CPU backend works in bf16 there. Weights have 8 bits, scales 4 or none, the bounds between
// codes 3: quotients that fall on either side of a bound in f32 do so in bf16.
#include "infer/format/mlx_parts.h"

// E4M3 without infinities: the largest is 448, 0x7f is NaN. To nearest even, saturating.
LANE_FN uint8_t e4m3_from_f32(float f) {
    uint32_t u, small;
    memcpy(&u, &f, sizeof u);
    const uint32_t sign = u >> 24 & 0x80, rest = u & 0x7fffffff;
    // Above 2^14 floats are 2^-9 apart, as E4M3 is below 2^-6: the sum rounds as it does.
    const float sum = fabsf(f) + 16384.0f, base = 16384.0f;
    uint32_t from;
    memcpy(&small, &sum, sizeof small);
    memcpy(&from, &base, sizeof from);
    uint32_t v = (rest + 0x7ffff + (rest >> 20 & 1) - (120u << 23)) >> 20;
    if (rest < 121u << 23) v = small - from;
    if (rest >= 0x43e00000) v = 0x7e; // 448 and more
    return (uint8_t)(sign | v);
}
LANE_FN float f32_from_e4m3(uint8_t v) {
    const uint32_t sign = (uint32_t)(v & 0x80) << 24, rest = v & 0x7f;
    const float tiny = (float)rest * 0x1p-9f;
    uint32_t u = (rest << 20) + (120u << 23);
    if (rest < 8) memcpy(&u, &tiny, sizeof u);
    if (rest == 0x7f) u = 0x7fc00000;
    u |= sign;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
// 2^(e - 127); 255 is beyond: infinity.
LANE_FN float f32_from_e8m0(uint8_t e) {
    const uint32_t u = e == 0 ? 0x00400000u : (uint32_t)e << 23;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

// Nearest of 0 .5 1 1.5 2 3 4 6, the lower of two equally near; a magnitude of 0 has no sign.
LANE_FN uint8_t e2m1_from_f32(float f) {
    const float v = fabsf(f);
    const int c = (v > 0.25f) + (v > 0.75f) + (v > 1.25f) + (v > 1.75f) + (v > 2.5f) + (v > 3.5f) +
                  (v > 5.0f);
    return (uint8_t)(c | ((c != 0) & (f < 0.0f)) << 3);
}
LANE_FN float f32_from_e2m1(int c) {
    static const float LEVEL[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                    -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    return LEVEL[c & 15];
}

LANE_FN float group_peak(const bf16 *w, int group) { // largest magnitude
    int peak = 0;
    for (int i = 0; i < group; i++) {
        const int v = w[i].bits & 0x7fff;
        peak = v > peak ? v : peak;
    }
    return bf16_to_f32((bf16){(uint16_t)peak});
}
// The power of two at or above it, so that nothing saturates; 2^0 for a group of zeros.
LANE_FN uint8_t e8m0_scale(float scale) {
    int e;
    if (scale == 0.0f) return 127;
    if (frexpf(scale, &e) == 0.5f) e--;
    return (uint8_t)((e < -127 ? -127 : e) + 127);
}

// The largest code of a group as it comes back: near the end of bf16 it may round up to infinity.
static bool comes_back(const MlxScheme *s, const uint8_t *code, float scale) {
    float most = 0.0f;
    for (int i = 0; i < s->group; i++)
        most = fmaxf(most, fabsf(s->bits == 4 ? f32_from_e2m1(code[i]) : f32_from_e4m3(code[i])));
    return isfinite(bf16_to_f32(bf16_from_f32(scale * most)));
}

KERNEL bool mlx_float_row(const MlxScheme *s, uint8_t *words, uint8_t *scales, const bf16 *w,
                          int64_t n) {
    const float largest_value = s->bits == 4 ? 6.0f : 448.0f;
    const int group = s->group;
    uint8_t code[32];
    bool ok = true;
    for (int64_t at = 0; at < n; at += group, words += group * s->bits / 8) {
        const float largest = group_peak(w + at, group), peak = largest / largest_value;
        const bool nv = s->mode == MLX_NVFP4;
        const uint8_t stored = nv ? e4m3_from_f32(peak) : e8m0_scale(peak);
        const float scale = nv ? f32_from_e4m3(stored) : f32_from_e8m0(stored);
        *scales++ = stored;
        if (scale == 0.0f) { // nvfp4: too small for its scale
            memset(code, 0, sizeof code);
        } else if (s->bits == 4) {
            EACH_ELEMENT (i, group) code[i] = e2m1_from_f32(bf16_to_f32(w[at + i]) / scale);
        } else {
            EACH_ELEMENT (i, group) code[i] = e4m3_from_f32(bf16_to_f32(w[at + i]) / scale);
        }
        if (largest > 0x1p127f) ok = ok && comes_back(s, code, scale);
        pack_codes(words, code, group, s->bits);
    }
    return ok;
}

KERNEL void mlx_float_row_back(const MlxScheme *s, bf16 *out, const uint8_t *words,
                               const uint8_t *scales, int64_t n) {
    uint8_t code[32];
    for (int64_t at = 0; at < n; at += s->group, words += s->group * s->bits / 8) {
        const float scale =
            s->mode == MLX_NVFP4 ? f32_from_e4m3(*scales++) : f32_from_e8m0(*scales++);
        unpack_codes(code, words, s->group, s->bits);
        for (int i = 0; i < s->group; i++)
            out[at + i] = bf16_from_f32(
                scale * (s->bits == 4 ? f32_from_e2m1(code[i]) : f32_from_e4m3(code[i])));
    }
}
