// infer/format/ggml_small.c - one number each, and blocks of 32 weights: Q8_0, MXFP4, and what a
// mix falls back to where a row is no multiple of 256 (Q4_0, Q4_1, Q5_0, Q5_1).
#include "infer/format/block_search.h"
#include "infer/format/ggml_parts.h"

enum { BLOCK = 32, HALF = BLOCK / 2 };

void encode_f32(const BlockRun *r) {
    memcpy(r->out, r->x, (size_t)r->blocks * sizeof *r->x);
}
typedef uint16_t Bits __attribute__((aligned(1), may_alias));
KERNEL void encode_f16(const BlockRun *r) {
    const float *restrict x = r->x;
    Bits *restrict out = (Bits *)r->out;
    const int64_t n = r->blocks;
    for (int64_t i = 0; i < n; i++) out[i] = f16_from_f32(x[i]).bits;
}
KERNEL void encode_bf16(const BlockRun *r) {
    const float *restrict x = r->x;
    Bits *restrict out = (Bits *)r->out;
    const int64_t n = r->blocks;
    for (int64_t i = 0; i < n; i++) out[i] = bf16_from_f32(x[i]).bits;
}

LANE_FN float block_peak(const float *x) { // largest magnitude
    int32_t peak = 0;
    for (int i = 0; i < BLOCK; i++) {
        int32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffff; // of one sign, floats are in the order of their bits
        peak = bits > peak ? bits : peak;
    }
    float f;
    memcpy(&f, &peak, sizeof f);
    return f;
}

KERNEL void encode_q8_0(const BlockRun *r) {
    for (int64_t b = 0; b < r->blocks; b++) {
        const float *x = r->x + b * BLOCK;
        uint8_t *out = r->out + b * 34;
        const float d = block_peak(x) / 127.0f, inverse = d != 0.0f ? 1.0f / d : 0.0f;
        put_half(out, d);
        EACH_ELEMENT (i, BLOCK) { // to the nearest, halves away from zero
            const float v = x[i] * inverse;
            const int whole = (int)v;
            const float rest = v - (float)whole;
            out[2 + i] = (uint8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
        }
    }
}

// Nearest level, the lower of two equally near, and never -0: it is past the middle between two
// levels exactly where the distances say so, since near a middle both are exact in f32.
LANE_FN int mxfp4_code(float x, float d) {
    const float v = fabsf(x);
    const int code = (v > 0.5f * d) + (v > 1.5f * d) + (v > 2.5f * d) + (v > 3.5f * d) +
                     (v > 5.0f * d) + (v > 7.0f * d) + (v > 10.0f * d);
    return code | ((code != 0) & (x < 0.0f)) << 3;
}

KERNEL void encode_mxfp4(const BlockRun *r) {
    for (int64_t b = 0; b < r->blocks; b++) {
        const float *x = r->x + b * BLOCK, peak = block_peak(x);
        uint8_t *out = r->out + b * 17;
        // log2f, not the exponent's bits: just below a power of two it rounds up to it
        const int e = peak > 0.0f ? (int)floorf(log2f(peak)) - 2 + 127 : 0;
        out[0] = (uint8_t)(e > 0 ? e : 0);
        const float d = half_e8m0(out[0]);
        EACH_ELEMENT (i, HALF) {
            out[1 + i] = (uint8_t)(mxfp4_code(x[i], d) | mxfp4_code(x[i + HALF], d) << 4);
        }
    }
}

// Low nibbles at `out`; the fifth bits, where there are any, at `high`.
LANE_FN void pack_nibbles(uint8_t *out, uint8_t *high, const uint8_t *code) {
    EACH_ELEMENT (i, HALF) out[i] = (uint8_t)((code[i] & 15) | (code[i + HALF] & 15) << 4);
    if (high == NULL) return;
    uint32_t bits = 0;
    for (int i = 0; i < BLOCK; i++) bits |= (uint32_t)(code[i] >> 4) << i;
    memcpy(high, &bits, sizeof bits);
}

// The fallback types weigh by the mean square of the whole row.
typedef struct {
    int64_t row;
    float mean_square;
} RowWeight;
LANE_FN float row_mean_square(const BlockRun *r, int64_t block, RowWeight *known) {
    const int64_t row = block * BLOCK / r->n;
    if (row == known->row) return known->mean_square;
    const float *x = r->x + row * r->n;
    float sum = 0.0f;
    for (int64_t i = 0; i < r->n; i++) sum += x[i] * x[i];
    *known = (RowWeight){row, sum / (float)r->n};
    return known->mean_square;
}
LANE_FN void row_weights(Lanes *w, const BlockRun *r, const Batch *b, int64_t first, const Lanes *x,
                         RowWeight *known) {
    Lanes mean;
    for (int l = 0; l < LANES; l++)
        mean[l] = l < b->used ? row_mean_square(r, first + l, known) : 0.0f;
    important_weights(w, b, 0, x, mean, BLOCK);
}

// Q4_0, Q5_0: x ~ d * (code - nmax)
LANE_FN void encode_signed(const BlockRun *r, int nmax, int bytes) {
    const int fifth = nmax == 16 ? 4 : 0;
    RowWeight known = {.row = -1};
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, BLOCK, bytes);
        Lanes x[BLOCK], w[BLOCK], scale, inverse, magnitude;
        gather(x, b.x, 0, BLOCK);
        if (r->importance != NULL) {
            row_weights(w, r, &b, first, x, &known);
            search_signed(BLOCK, nmax, x, w, scale, inverse);
        } else {
            largest(scale, magnitude, x, BLOCK);
            EACH_LANE (l) scale[l] = scale[l] / (float)-nmax, inverse[l] = 0.0f;
        }
        for (int l = 0; l < b.used; l++) {
            uint8_t code[BLOCK], *out = b.out[l];
            const float *v = b.x[l], d = scale[l], over = d != 0.0f ? 1.0f / d : 0.0f;
            const float kept = inverse[l], middle = (float)nmax + 0.5f;
            put_half(out, d);
            if (r->importance != NULL)
                EACH_ELEMENT (i, BLOCK) code[i] = (uint8_t)signed_code(v[i], kept, nmax);
            else
                EACH_ELEMENT (i, BLOCK) {
                    const int c = (int)(v[i] * over + middle);
                    code[i] = (uint8_t)(c < 2 * nmax - 1 ? c : 2 * nmax - 1);
                }
            pack_nibbles(out + 2 + fifth, fifth != 0 ? out + 2 : NULL, code);
        }
    }
}
KERNEL void encode_q4_0(const BlockRun *r) {
    encode_signed(r, 8, 18);
}
KERNEL void encode_q5_0(const BlockRun *r) {
    encode_signed(r, 16, 22);
}

// Q4_1, Q5_1: x ~ d * code + low
LANE_FN void encode_affine(const BlockRun *r, int nmax, int bytes) {
    const AffineSearch how = {nmax, -0.9f, 0.05f, 36};
    const int fifth = nmax == 31 ? 4 : 0;
    RowWeight known = {.row = -1};
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, BLOCK, bytes);
        Lanes x[BLOCK], w[BLOCK], scale, low, inverse, base;
        gather(x, b.x, 0, BLOCK);
        if (r->importance != NULL) {
            row_weights(w, r, &b, first, x, &known);
            search_affine(&how, x, w, scale, low, inverse, base);
            EACH_LANE (l) low[l] = -low[l];
        } else {
            Lanes high;
            EACH_LANE (l) low[l] = high[l] = x[0][l];
            for (int i = 1; i < BLOCK; i++)
                EACH_LANE (l) {
                    low[l] = x[i][l] < low[l] ? x[i][l] : low[l];
                    high[l] = x[i][l] > high[l] ? x[i][l] : high[l];
                }
            EACH_LANE (l) {
                scale[l] = (high[l] - low[l]) / (float)nmax;
                inverse[l] = scale[l] != 0.0f ? 1.0f / scale[l] : 0.0f;
                base[l] = low[l];
            }
        }
        for (int l = 0; l < b.used; l++) {
            uint8_t code[BLOCK], *out = b.out[l];
            const float *v = b.x[l], over = inverse[l], from = base[l];
            put_half(out, scale[l]);
            put_half(out + 2, low[l]);
            if (r->importance != NULL)
                EACH_ELEMENT (i, BLOCK) code[i] = (uint8_t)affine_code(v[i], over, from, nmax);
            else
                EACH_ELEMENT (i, BLOCK) {
                    const int c = (int)((v[i] - from) * over + 0.5f);
                    code[i] = (uint8_t)(c < nmax ? c : nmax);
                }
            pack_nibbles(out + 4 + fifth, fifth != 0 ? out + 4 : NULL, code);
        }
    }
}
KERNEL void encode_q4_1(const BlockRun *r) {
    encode_affine(r, 15, 20);
}
KERNEL void encode_q5_1(const BlockRun *r) {
    encode_affine(r, 31, 24);
}
