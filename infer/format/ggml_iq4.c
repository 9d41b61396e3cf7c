// infer/format/ggml_iq4.c - IQ4_NL and IQ4_XS: sixteen uneven levels; 32 weights with a scale, or
// 256 with eight scales of 6 bits.
#include "infer/format/block_search.h"
#include "infer/format/ggml_parts.h"

enum { SUB = 32, SUBS = 8, BLOCK = SUB * SUBS };

LANE_FN void search(const BlockRun *r, const Batch *b, int at, const float *sigma2, float *scale) {
    Lanes x[SUB], w[SUB];
    gather(x, b->x, at, SUB);
    if (r->importance != NULL)
        important_weights(w, b, at, x, sigma2, SUB);
    else
        square_weights(w, x, SUB);
    search_iq4(SUB, x, w, scale);
}

LANE_FN void pack_levels(uint8_t *out, const float *x, float scale) {
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    EACH_ELEMENT (i, SUB / 2) {
        out[i] = (uint8_t)(iq4_code(inverse * x[i]) | iq4_code(inverse * x[i + SUB / 2]) << 4);
    }
}

KERNEL void encode_iq4_nl(const BlockRun *r) {
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, SUB, 18);
        Lanes sigma2, scale;
        block_sigma2(sigma2, &b, SUB);
        search(r, &b, 0, sigma2, scale);
        for (int l = 0; l < b.used; l++) {
            put_half(b.out[l], scale[l]);
            pack_levels(b.out[l] + 2, b.x[l], scale[l]);
        }
    }
}

KERNEL void encode_iq4_xs(const BlockRun *r) {
    for (int64_t first = 0; first < r->blocks; first += LANES) {
        const Batch b = batch_at(r, first, BLOCK, 136);
        Lanes sigma2, scale[SUBS], peak, magnitude;
        if (r->importance != NULL) block_sigma2(sigma2, &b, BLOCK);
        for (int j = 0; j < SUBS; j++) search(r, &b, SUB * j, sigma2, scale[j]);
        largest(peak, magnitude, scale, SUBS);
        for (int l = 0; l < b.used; l++) {
            uint8_t *out = b.out[l];
            const float d = -peak[l] / 32.0f, over = d != 0.0f ? 1.0f / d : 0.0f;
            int high = 0;
            put_half(out, d);
            memset(out + 4, 0, 4);
            for (int j = 0; j < SUBS; j++) {
                const int s = clamp_int(nearest_int(over * scale[j][l]), -32, 31);
                pack_levels(out + 8 + 16 * j, b.x[l] + SUB * j, d * (float)s);
                out[4 + j / 2] |= (uint8_t)(((s + 32) & 15) << 4 * (j % 2));
                high |= (s + 32) >> 4 << 2 * j;
            }
            out[2] = (uint8_t)high;
            out[3] = (uint8_t)(high >> 8);
        }
    }
}
