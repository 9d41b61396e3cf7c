// infer/format/ggml_decode.c - blocks to floats. Every byte pattern has a value.
#include "infer/format/block_search.h"
#include "infer/format/ggml_parts.h"

void decode_f32(float *out, const uint8_t *q, int64_t blocks) {
    memcpy(out, q, (size_t)blocks * sizeof *out);
}
typedef uint16_t Bits __attribute__((aligned(1), may_alias));
KERNEL void decode_f16(float *restrict out, const uint8_t *q, int64_t blocks) {
    const Bits *restrict half = (const Bits *)q;
    for (int64_t i = 0; i < blocks; i++) out[i] = f16_to_f32((f16){half[i]});
}
KERNEL void decode_bf16(float *restrict out, const uint8_t *q, int64_t blocks) {
    const Bits *restrict half = (const Bits *)q;
    for (int64_t i = 0; i < blocks; i++) out[i] = bf16_to_f32((bf16){half[i]});
}

KERNEL void decode_q8_0(float *out, const uint8_t *q, int64_t blocks) {
    for (; blocks > 0; blocks--, q += 34, out += 32) {
        const float d = half_at(q);
        EACH_ELEMENT (i, 32) out[i] = d * (float)(int8_t)q[2 + i];
    }
}

KERNEL void decode_mxfp4(float *out, const uint8_t *q, int64_t blocks) {
    static const float LEVEL[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (; blocks > 0; blocks--, q += 17, out += 32) {
        const float d = half_e8m0(q[0]);
        for (int i = 0; i < 16; i++) {
            out[i] = LEVEL[q[1 + i] & 15] * d;
            out[i + 16] = LEVEL[q[1 + i] >> 4] * d;
        }
    }
}

// Nibbles at q, fifth bits in `high`.
LANE_FN void small_codes(int *code, const uint8_t *q, const uint8_t *high) {
    uint32_t bits = 0;
    if (high != NULL) memcpy(&bits, high, sizeof bits);
    EACH_ELEMENT (i, 16) {
        code[i] = (q[i] & 15) | (int)(bits >> i & 1) << 4;
        code[i + 16] = q[i] >> 4 | (int)(bits >> (i + 16) & 1) << 4;
    }
}
KERNEL void decode_q4_0(float *out, const uint8_t *q, int64_t blocks) {
    int code[32];
    for (; blocks > 0; blocks--, q += 18, out += 32) {
        const float d = half_at(q);
        small_codes(code, q + 2, NULL);
        EACH_ELEMENT (i, 32) out[i] = (float)(code[i] - 8) * d;
    }
}
KERNEL void decode_q5_0(float *out, const uint8_t *q, int64_t blocks) {
    int code[32];
    for (; blocks > 0; blocks--, q += 22, out += 32) {
        const float d = half_at(q);
        small_codes(code, q + 6, q + 2);
        EACH_ELEMENT (i, 32) out[i] = (float)(code[i] - 16) * d;
    }
}
KERNEL void decode_q4_1(float *out, const uint8_t *q, int64_t blocks) {
    int code[32];
    for (; blocks > 0; blocks--, q += 20, out += 32) {
        const float d = half_at(q), low = half_at(q + 2);
        small_codes(code, q + 4, NULL);
        EACH_ELEMENT (i, 32) out[i] = (float)code[i] * d + low;
    }
}
KERNEL void decode_q5_1(float *out, const uint8_t *q, int64_t blocks) {
    int code[32];
    for (; blocks > 0; blocks--, q += 24, out += 32) {
        const float d = half_at(q), low = half_at(q + 2);
        small_codes(code, q + 8, q + 4);
        EACH_ELEMENT (i, 32) out[i] = (float)code[i] * d + low;
    }
}

KERNEL void decode_q3_k(float *out, const uint8_t *q, int64_t blocks) {
    for (; blocks > 0; blocks--, q += 110, out += 256) {
        const float d = half_at(q + 108);
        for (int j = 0; j < 16; j++) {
            const float step = d * (float)(q3_k_scale(q + 96, j) - 32);
            const int half = j / 8, part = j / 2 % 4, from = 16 * (j % 2);
            const uint8_t *low = q + 32 + 32 * half + from, *high = q + from;
            EACH_ELEMENT (i, 16) {
                const int two = low[i] >> 2 * part & 3, top = high[i] >> (4 * half + part) & 1;
                out[16 * j + i] = step * (float)(two + 4 * top - 4);
            }
        }
    }
}

KERNEL void decode_q4_k(float *out, const uint8_t *q, int64_t blocks) {
    for (; blocks > 0; blocks--, q += 144, out += 256) {
        const float d = half_at(q), dmin = half_at(q + 2);
        for (int j = 0; j < 8; j++) {
            int scale, low;
            six_bits(q + 4, j, &scale, &low);
            const float step = d * (float)scale, below = dmin * (float)low;
            const uint8_t *c = q + 16 + 32 * (j / 2);
            EACH_ELEMENT (i, 32) {
                out[32 * j + i] = step * (float)(c[i] >> 4 * (j % 2) & 15) - below;
            }
        }
    }
}

KERNEL void decode_q5_k(float *out, const uint8_t *q, int64_t blocks) {
    for (; blocks > 0; blocks--, q += 176, out += 256) {
        const float d = half_at(q), dmin = half_at(q + 2);
        for (int j = 0; j < 8; j++) {
            int scale, low;
            six_bits(q + 4, j, &scale, &low);
            const float step = d * (float)scale, below = dmin * (float)low;
            const uint8_t *c = q + 48 + 32 * (j / 2), *high = q + 16;
            EACH_ELEMENT (i, 32) {
                const int code = (c[i] >> 4 * (j % 2) & 15) + 16 * (high[i] >> j & 1);
                out[32 * j + i] = step * (float)code - below;
            }
        }
    }
}

KERNEL void decode_q6_k(float *out, const uint8_t *q, int64_t blocks) {
    for (; blocks > 0; blocks--, q += 210, out += 256) {
        const float d = half_at(q + 208);
        for (int j = 0; j < 16; j++) {
            const float step = d * (float)(int8_t)q[192 + j];
            const int half = j / 8, part = j / 2 % 4, from = 16 * (j % 2);
            const uint8_t *low = q + 64 * half + 32 * (part % 2) + from,
                          *high = q + 128 + 32 * half + from;
            EACH_ELEMENT (i, 16) {
                const int four = low[i] >> 4 * (part / 2) & 15, two = high[i] >> 2 * part & 3;
                out[16 * j + i] = step * (float)((four | two << 4) - 32);
            }
        }
    }
}

LANE_FN void iq4_values(float *out, const uint8_t *q, float d) {
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)IQ4_LEVEL[q[i] & 15];
        out[i + 16] = d * (float)IQ4_LEVEL[q[i] >> 4];
    }
}
KERNEL void decode_iq4_nl(float *out, const uint8_t *q, int64_t blocks) {
    for (; blocks > 0; blocks--, q += 18, out += 32) iq4_values(out, q + 2, half_at(q));
}
KERNEL void decode_iq4_xs(float *out, const uint8_t *q, int64_t blocks) {
    for (; blocks > 0; blocks--, q += 136, out += 256) {
        const float d = half_at(q);
        for (int j = 0; j < 8; j++)
            iq4_values(out + 32 * j, q + 8 + 16 * j, d * (float)(iq4_xs_scale(q + 2, j) - 32));
    }
}
