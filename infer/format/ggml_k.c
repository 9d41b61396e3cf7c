// infer/format/ggml_k.c - Q6_K and Q3_K: 256 weights in sixteen sub-blocks, scales of both signs.
//
// The search sees sixteen blocks at once; what follows goes along one block.
#include "infer/format/block_search.h"
#include "infer/format/ggml_parts.h"

enum { BLOCK = 256, SUB = 16, SUBS = BLOCK / SUB };

// The scale of largest magnitude, the first of several.
LANE_FN float largest_scale(const float *scale) {
    float value = 0.0f, magnitude = 0.0f;
    for (int j = 0; j < SUBS; j++)
        if (fabsf(scale[j]) > magnitude) {
            magnitude = fabsf(scale[j]);
            value = scale[j];
        }
    return value;
}

// ---- Q6_K: ql[128] qh[64] scales[16] d

LANE_FN void pack_q6_k(uint8_t *out, const uint8_t *code) {
    for (int h = 0; h < 2; h++)
        EACH_ELEMENT (i, 32) {
            const uint8_t *c = code + 128 * h + i;
            out[64 * h + i] = (uint8_t)((c[0] & 15) | (c[64] & 15) << 4);
            out[64 * h + 32 + i] = (uint8_t)((c[32] & 15) | (c[96] & 15) << 4);
            out[128 + 32 * h + i] =
                (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
        }
}

LANE_FN void finish_q6_k(uint8_t *out, const float *x, const float *scale, const float *inverse) {
    uint8_t code[BLOCK];
    const float peak = largest_scale(scale);
    if (fabsf(peak) < BLOCK_ZERO) {
        memset(out, 0, 210);
        return;
    }
    const float over = -128.0f / peak, d = put_half(out + 208, 1.0f / over);
    for (int j = 0; j < SUBS; j++) {
        const int whole = nearest_int(over * scale[j]);
        const int8_t s = (int8_t)(whole < 127 ? whole : 127);
        out[192 + j] = (uint8_t)s;
        const float step = d * (float)s, *v = x + SUB * j, over_j = inverse[j];
        uint8_t *c = code + SUB * j;
        if (step != 0.0f)
            EACH_ELEMENT (i, SUB)
                c[i] = (uint8_t)(clamp_int(nearest_int(v[i] / step), -32, 31) + 32);
        else // a sub-block without a scale keeps the codes of its search
            EACH_ELEMENT (i, SUB) c[i] = (uint8_t)signed_code(v[i], over_j, 32);
    }
    pack_q6_k(out, code);
}

KERNEL void encode_q6_k(const BlockRun *r) {
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, BLOCK, 210);
        Lanes x[SUB], w[SUB], scale[SUBS], inverse[SUBS];
        for (int j = 0; j < SUBS; j++) {
            gather(x, b.x, SUB * j, SUB);
            if (r->importance != NULL)
                gather(w, b.importance, SUB * j, SUB);
            else
                square_weights(w, x, SUB);
            search_signed(SUB, 32, x, w, scale[j], inverse[j]);
        }
        for (int l = 0; l < b.used; l++) {
            float s[SUBS], inv[SUBS];
            for (int j = 0; j < SUBS; j++) {
                s[j] = scale[j][l];
                inv[j] = inverse[j][l];
            }
            finish_q6_k(b.out[l], b.x[l], s, inv);
        }
    }
}

// ---- Q3_K: hmask[32] qs[64] scales[12] d

LANE_FN void pack_q3_k(uint8_t *out, const uint8_t *code, const uint8_t *scale) {
    memset(out, 0, 110);
    for (int k = 0; k < BLOCK / 32; k++)
        EACH_ELEMENT (i, 32) out[i] |= (uint8_t)(code[32 * k + i] >> 2 << k);
    for (int h = 0; h < 2; h++)
        EACH_ELEMENT (i, 32) {
            const uint8_t *c = code + 128 * h + i;
            out[32 + 32 * h + i] =
                (uint8_t)((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
        }
    for (int j = 0; j < SUBS; j++) {
        out[96 + j % 8] |= (uint8_t)((scale[j] & 15) << 4 * (j / 8));
        out[104 + j % 4] |= (uint8_t)(scale[j] >> 4 << 2 * (j / 4));
    }
}

// scale: stored, 0 .. 63; found: the codes of the search
LANE_FN void finish_q3_k(uint8_t *out, const float *x, float d, const uint8_t *scale,
                         const uint8_t *found) {
    uint8_t code[BLOCK];
    const float stored = f16_to_f32(f16_from_f32(d));
    for (int j = 0; j < SUBS; j++) {
        const float step = stored * (float)(scale[j] - 32), *v = x + SUB * j;
        uint8_t *c = code + SUB * j;
        if (step != 0.0f)
            EACH_ELEMENT (i, SUB) c[i] = (uint8_t)(clamp_int(nearest_int(v[i] / step), -4, 3) + 4);
        else
            memcpy(c, found + SUB * j, SUB);
    }
    pack_q3_k(out, code, scale);
    put_half(out + 108, d);
}

// With an importance the scales are searched in their turn, weighted by their sub-blocks.
LANE_FN void important_q3_k(const Batch *b, LaneCodes *found, LaneCodes *scale_code, float *d) {
    Lanes x[SUB], w[SUB], scale[SUBS], weight[SUBS], sigma2, inverse;
    block_sigma2(sigma2, b, BLOCK);
    for (int j = 0; j < SUBS; j++) {
        gather(x, b->x, SUB * j, SUB);
        important_weights(w, b, SUB * j, x, sigma2, SUB);
        sum_weights(weight[j], w, SUB);
        search_signed(SUB, 4, x, w, scale[j], inverse);
        for (int i = 0; i < SUB; i++)
            EACH_LANE (l) found[SUB * j + i][l] = (uint8_t)signed_code(x[i][l], inverse[l], 4);
    }
    search_signed(SUBS, 32, scale, weight, d, inverse);
    for (int j = 0; j < SUBS; j++)
        EACH_LANE (l) scale_code[j][l] = (uint8_t)signed_code(scale[j][l], inverse[l], 32);
}
LANE_FN void plain_q3_k(const Batch *b, LaneCodes *found, LaneCodes *scale_code, float *d) {
    Lanes x[SUB], scale[SUBS], peak, magnitude, over;
    for (int j = 0; j < SUBS; j++) {
        gather(x, b->x, SUB * j, SUB);
        search_descent(SUB, 4, x, scale[j], found + SUB * j);
    }
    largest(peak, magnitude, scale, SUBS);
    EACH_LANE (l) {
        over[l] = peak[l] != 0.0f ? -32.0f / peak[l] : 0.0f;
        d[l] = peak[l] != 0.0f ? 1.0f / over[l] : 0.0f;
    }
    for (int j = 0; j < SUBS; j++)
        EACH_LANE (l) {
            const int c = clamp_int(nearest_int(over[l] * scale[j][l]), -32, 31) + 32;
            scale_code[j][l] = (uint8_t)(peak[l] != 0.0f ? c : 0);
        }
}

KERNEL void encode_q3_k(const BlockRun *r) {
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, BLOCK, 110);
        LaneCodes found[BLOCK], scale_code[SUBS];
        Lanes d;
        if (r->importance != NULL)
            important_q3_k(&b, found, scale_code, d);
        else
            plain_q3_k(&b, found, scale_code, d);
        for (int l = 0; l < b.used; l++) {
            uint8_t s[SUBS], f[BLOCK];
            for (int j = 0; j < SUBS; j++) s[j] = scale_code[j][l];
            for (int i = 0; i < BLOCK; i++) f[i] = found[i][l];
            finish_q3_k(b.out[l], b.x[l], d[l], s, f);
        }
    }
}
