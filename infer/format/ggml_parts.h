// infer/format/ggml_parts.h - the encoders and decoders behind ggml_blocks.h, one of each for a
// type.
#ifndef FORMAT_GGML_PARTS_H
#define FORMAT_GGML_PARTS_H

#include "infer/base/fp.h"
#include "infer/format/block_lanes.h"

typedef void BlockEncoder(const BlockRun *run);
BlockEncoder encode_f32, encode_f16, encode_bf16, encode_q8_0, encode_mxfp4;
BlockEncoder encode_q4_0, encode_q4_1, encode_q5_0, encode_q5_1;
BlockEncoder encode_q3_k, encode_q4_k, encode_q5_k, encode_q6_k, encode_iq4_nl, encode_iq4_xs;

// `blocks` blocks of any bytes
typedef void BlockDecoder(float *out, const uint8_t *q, int64_t blocks);
BlockDecoder decode_f32, decode_f16, decode_bf16, decode_q8_0, decode_mxfp4;
BlockDecoder decode_q4_0, decode_q4_1, decode_q5_0, decode_q5_1;
BlockDecoder decode_q3_k, decode_q4_k, decode_q5_k, decode_q6_k, decode_iq4_nl, decode_iq4_xs;

// Scales in a block: halves at any address.
LANE_FN float half_at(const uint8_t *p) {
    f16 h;
    memcpy(&h, p, sizeof h);
    return f16_to_f32(h);
}
// Stores and returns what was stored.
LANE_FN float put_half(uint8_t *p, float v) {
    const f16 h = f16_from_f32(v);
    memcpy(p, &h, sizeof h);
    return f16_to_f32(h);
}
// 2^(e - 128): the scale of doubled E2M1 levels
LANE_FN float half_e8m0(uint8_t e) {
    const uint32_t u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
// Sub-block j's 6-bit scale and minimum of Q4_K and Q5_K.
LANE_FN void six_bits(const uint8_t *s, int j, int *scale, int *low) {
    if (j < 4) {
        *scale = s[j] & 63;
        *low = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *low = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}
// Sub-block j's 6-bit scale of Q3_K, still without its sign: minus 32.
LANE_FN int q3_k_scale(const uint8_t *s, int j) {
    return (j < 8 ? s[j] & 15 : s[j - 8] >> 4) | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4;
}
// Sub-block j's 6-bit scale of IQ4_XS, minus 32; s: the block from its scales_h on.
LANE_FN int iq4_xs_scale(const uint8_t *s, int j) {
    const int high = s[0] | s[1] << 8;
    return (s[2 + j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4;
}

#endif
