// infer/format/ggml_k_low.c - Q4_K and Q5_K: 256 weights in eight sub-blocks, each with a scale and
// a minimum of 6 bits.
#include "infer/format/block_search.h"
#include "infer/format/ggml_parts.h"

enum { BLOCK = 256, SUB = 32, SUBS = BLOCK / SUB };

// What the search found for sixteen blocks: scales and minima, the codes of both, their units, and
// which codes the search ended with.
typedef struct {
    Lanes scale[SUBS], below[SUBS], inverse[SUBS], base[SUBS], d, dmin;
    LaneCodes scale_code[SUBS], below_code[SUBS];
} Found;

LANE_FN void plain_codes(LaneCodes *code, float *unit, const Lanes *v) {
    Lanes peak, over;
    EACH_LANE (l) peak[l] = 0.0f;
    for (int j = 0; j < SUBS; j++)
        EACH_LANE (l) peak[l] = v[j][l] > peak[l] ? v[j][l] : peak[l];
    EACH_LANE (l) {
        over[l] = peak[l] > 0.0f ? 63.0f / peak[l] : 0.0f;
        unit[l] = peak[l] / 63.0f;
    }
    for (int j = 0; j < SUBS; j++)
        EACH_LANE (l) {
            const int c = nearest_int(over[l] * v[j][l]) & 255;
            code[j][l] = (uint8_t)(c < 63 ? c : 63);
        }
}

// Without an importance: weights are |x| and the sub-block's root mean square.
LANE_FN void search_plain(Found *f, const Batch *b, const AffineSearch *s) {
    Lanes x[SUB], w[SUB], rms;
    for (int j = 0; j < SUBS; j++) {
        gather(x, b->x, SUB * j, SUB);
        EACH_LANE (l) rms[l] = 0.0f;
        add_squares(rms, x, SUB);
        EACH_LANE (l) rms[l] = sqrtf(rms[l] / (float)SUB);
        for (int i = 0; i < SUB; i++)
            EACH_LANE (l) w[i][l] = rms[l] + fabsf(x[i][l]);
        // cppcheck-suppress uninitvar ; these are what it fills
        search_affine(s, x, w, f->scale[j], f->below[j], f->inverse[j], f->base[j]);
    }
    plain_codes(f->scale_code, f->d, f->scale);
    plain_codes(f->below_code, f->dmin, f->below);
}

LANE_FN void search_important(Found *f, const Batch *b, const AffineSearch *s) {
    Lanes x[SUB], w[SUB], weight[SUBS], sigma2;
    block_sigma2(sigma2, b, BLOCK);
    for (int j = 0; j < SUBS; j++) {
        gather(x, b->x, SUB * j, SUB);
        important_weights(w, b, SUB * j, x, sigma2, SUB);
        sum_weights(weight[j], w, SUB);
        search_affine(s, x, w, f->scale[j], f->below[j], f->inverse[j], f->base[j]);
    }
    search_positive(SUBS, 63, f->scale, weight, f->d, f->scale_code);
    search_positive(SUBS, 63, f->below, weight, f->dmin, f->below_code);
}

LANE_FN void pack_six_bits(uint8_t *s, int j, int scale, int low) {
    if (j < 4) {
        s[j] = (uint8_t)scale;
        s[j + 4] = (uint8_t)low;
    } else {
        s[j + 4] = (uint8_t)((scale & 15) | (low & 15) << 4);
        s[j - 4] |= (uint8_t)(scale >> 4 << 6);
        s[j] |= (uint8_t)(low >> 4 << 6);
    }
}

// d, dmin, scales[12] at out; the 256 codes of lane l's block.
LANE_FN void finish_codes(uint8_t *out, uint8_t *code, const float *x, const Found *f, int l,
                          int nmax) {
    const float d = put_half(out, f->d[l]), dmin = put_half(out + 2, f->dmin[l]);
    for (int j = 0; j < SUBS; j++)
        pack_six_bits(out + 4, j, f->scale_code[j][l], f->below_code[j][l]);
    for (int j = 0; j < SUBS; j++) {
        int scale, low;
        six_bits(out + 4, j, &scale, &low);
        const float step = d * (float)scale, below = dmin * (float)low;
        const float inverse = f->inverse[j][l], base = f->base[j][l];
        const float *v = x + SUB * j;
        uint8_t *c = code + SUB * j;
        if (step != 0.0f)
            EACH_ELEMENT (i, SUB) {
                c[i] = (uint8_t)clamp_int(nearest_int((v[i] + below) / step), 0, nmax);
            }
        else // a sub-block without a scale keeps the codes of its search
            EACH_ELEMENT (i, SUB) c[i] = (uint8_t)affine_code(v[i], inverse, base, nmax);
    }
}

KERNEL void encode_q4_k(const BlockRun *r) {
    const AffineSearch plain = {15, -1.0f, 0.1f, 20}, important = {15, -0.9f, 0.05f, 36};
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, BLOCK, 144);
        Found f;
        if (r->importance != NULL)
            search_important(&f, &b, &important);
        else
            search_plain(&f, &b, &plain);
        for (int l = 0; l < b.used; l++) {
            uint8_t code[BLOCK], *out = b.out[l];
            finish_codes(out, code, b.x[l], &f, l, 15);
            for (int c = 0; c < 4; c++)
                EACH_ELEMENT (i, 32) {
                    out[16 + 32 * c + i] = (uint8_t)(code[64 * c + i] | code[64 * c + 32 + i] << 4);
                }
        }
    }
}

KERNEL void encode_q5_k(const BlockRun *r) {
    const AffineSearch plain = {31, -0.5f, 0.1f, 15}, important = {31, -0.9f, 0.05f, 36};
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, BLOCK, 176);
        Found f;
        if (r->importance != NULL)
            search_important(&f, &b, &important);
        else
            search_plain(&f, &b, &plain);
        for (int l = 0; l < b.used; l++) {
            uint8_t code[BLOCK], *out = b.out[l];
            finish_codes(out, code, b.x[l], &f, l, 31);
            memset(out + 16, 0, 32);
            for (int c = 0; c < 4; c++)
                EACH_ELEMENT (i, 32) {
                    const uint8_t a = code[64 * c + i], z = code[64 * c + 32 + i];
                    out[16 + i] |= (uint8_t)(a >> 4 << 2 * c | z >> 4 << (2 * c + 1));
                    out[48 + 32 * c + i] = (uint8_t)((a & 15) | (z & 15) << 4);
                }
        }
    }
}
