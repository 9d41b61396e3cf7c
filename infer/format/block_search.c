// infer/format/block_search.c - each search as one scalar program written for lane l.
#include "infer/format/block_search.h"

// Weighted least squares of the codes that `inverse` gives.
LANE_FN void signed_sums(int n, int nmax, const Lanes *x, const Lanes *w, const Lanes *wx,
                         const float *inverse, float *sum_xl, float *sum_l2) {
    const float low = (float)-nmax, high = (float)(nmax - 1);
    EACH_LANE (l) sum_xl[l] = sum_l2[l] = 0.0f;
    for (int i = 0; i < n; i++)
        EACH_LANE (l) {
            const float code = clamp_float(nearest(inverse[l] * x[i][l]), low, high);
            sum_xl[l] += wx[i][l] * code;
            sum_l2[l] += w[i][l] * code * code;
        }
}

LANE_FN void signed_search(int n, int nmax, const Lanes *x, const Lanes *w, float *scale,
                           float *inverse) {
    enum { TRIES = 9 };
    Lanes wx[32], peak, size, best, now, sum_xl, sum_l2;
    largest(peak, size, x, n);
    EACH_LANE (l) peak[l] = size[l] < BLOCK_ZERO ? 1.0f : peak[l];
    for (int i = 0; i < n; i++)
        EACH_LANE (l) wx[i][l] = w[i][l] * x[i][l];
    EACH_LANE (l) now[l] = (float)-nmax / peak[l];
    signed_sums(n, nmax, x, w, wx, now, sum_xl, sum_l2);
    EACH_LANE (l) {
        inverse[l] = now[l];
        scale[l] = sum_l2[l] != 0.0f ? sum_xl[l] / sum_l2[l] : 0.0f;
        best[l] = scale[l] * sum_xl[l];
    }
    for (int i = -TRIES; i <= TRIES; i++) {
        if (i == 0) continue;
        const float top = -((float)nmax + 0.1f * (float)i);
        EACH_LANE (l) now[l] = top / peak[l];
        signed_sums(n, nmax, x, w, wx, now, sum_xl, sum_l2);
        EACH_LANE (l) {
            const bool better = (sum_l2[l] > 0.0f) & (sum_xl[l] * sum_xl[l] > best[l] * sum_l2[l]);
            const float fit = sum_xl[l] / sum_l2[l];
            inverse[l] = better ? now[l] : inverse[l];
            scale[l] = better ? fit : scale[l];
            best[l] = better ? fit * sum_xl[l] : best[l];
        }
    }
    EACH_LANE (l) {
        inverse[l] = size[l] < BLOCK_ZERO ? 0.0f : inverse[l];
        scale[l] = size[l] < BLOCK_ZERO ? 0.0f : scale[l];
    }
}
KERNEL void search_signed(int n, int nmax, const Lanes *x, const Lanes *w, float *scale,
                          float *inverse) {
    if (n == 16)
        signed_search(16, nmax, x, w, scale, inverse);
    else
        signed_search(32, nmax, x, w, scale, inverse);
}

// One pass over the codes; returns whether one changed in any lane.
LANE_FN bool descend(int n, int nmax, const Lanes *x, Lanes *code, float *sum_xl, float *sum_l2) {
    int changed = 0;
    for (int i = 0; i < n; i++) {
        int moved[LANES];
        EACH_LANE (l) {
            const float v = x[i][l], w = v * v, wx = w * v, old = code[i][l];
            float xl = sum_xl[l] - wx * old, l2 = sum_l2[l] - w * old * old;
            bool move = xl > 0.0f;
            const float to = (float)clamp_int(nearest_int(v * l2 / xl), -nmax, nmax - 1);
            xl += wx * to;
            l2 += w * to * to;
            move = move & (to != old) & (l2 > 0.0f) &
                   (xl * xl * sum_l2[l] > sum_xl[l] * sum_xl[l] * l2);
            code[i][l] = move ? to : old;
            sum_xl[l] = move ? xl : sum_xl[l];
            sum_l2[l] = move ? l2 : sum_l2[l];
            moved[l] = move;
        }
        for (int l = 0; l < LANES; l++) changed |= moved[l];
    }
    return changed != 0;
}

KERNEL void search_descent(int n, int nmax, const Lanes *x, float *scale, LaneCodes *stored) {
    enum { PASSES = 5 };
    const float low = (float)-nmax, high = (float)(nmax - 1);
    Lanes peak, size, code[32], sum_xl, sum_l2;
    largest(peak, size, x, n);
    EACH_LANE (l) {
        peak[l] = size[l] < BLOCK_ZERO ? 1.0f : peak[l];
        sum_xl[l] = sum_l2[l] = 0.0f;
    }
    for (int i = 0; i < n; i++)
        EACH_LANE (l) {
            const float w = x[i][l] * x[i][l], inverse = (float)-nmax / peak[l];
            code[i][l] = clamp_float(nearest(inverse * x[i][l]), low, high);
            sum_xl[l] += w * x[i][l] * code[i][l];
            sum_l2[l] += w * code[i][l] * code[i][l];
        }
    for (int pass = 0; pass < PASSES; pass++)
        if (!descend(n, nmax, x, code, sum_xl, sum_l2)) break;
    EACH_LANE (l) {
        const bool any = (size[l] >= BLOCK_ZERO) & (sum_l2[l] > 0.0f);
        scale[l] = any ? sum_xl[l] / sum_l2[l] : 0.0f;
    }
    for (int i = 0; i < n; i++)
        EACH_LANE (l) stored[i][l] = size[l] < BLOCK_ZERO ? 0 : (uint8_t)((int)code[i][l] + nmax);
}

// The codes that `inverse` gives above `base`, and their weighted moments.
LANE_FN void affine_codes(int nmax, const Lanes *x, const Lanes *w, const float *inverse,
                          const float *base, Lanes *code, float *sum_l, float *sum_l2,
                          float *sum_xl) {
    const float high = (float)nmax;
    EACH_LANE (l) sum_l[l] = sum_l2[l] = sum_xl[l] = 0.0f;
    for (int i = 0; i < AFFINE_BLOCK; i++)
        EACH_LANE (l) {
            const float c = clamp_float(nearest(inverse[l] * (x[i][l] - base[l])), 0.0f, high);
            const float wc = w[i][l] * c;
            code[i][l] = c;
            sum_l[l] += wc;
            sum_l2[l] += wc * c;
            sum_xl[l] += wc * x[i][l];
        }
}
LANE_FN void affine_error(const Lanes *x, const Lanes *w, const Lanes *code, const float *scale,
                          const float *low, float *error) {
    EACH_LANE (l) error[l] = 0.0f;
    for (int i = 0; i < AFFINE_BLOCK; i++)
        EACH_LANE (l) {
            const float d = scale[l] * code[i][l] + low[l] - x[i][l];
            error[l] += w[i][l] * (d * d);
        }
}

typedef struct {
    Lanes low, high, sum_w, sum_x; // low is moved by every fit that is kept
} AffineRange;
LANE_FN void affine_range(AffineRange *r, const Lanes *x, const Lanes *w) {
    EACH_LANE (l) {
        r->low[l] = r->high[l] = x[0][l];
        r->sum_w[l] = w[0][l];
        r->sum_x[l] = w[0][l] * x[0][l];
    }
    for (int i = 1; i < AFFINE_BLOCK; i++)
        EACH_LANE (l) {
            r->low[l] = x[i][l] < r->low[l] ? x[i][l] : r->low[l];
            r->high[l] = x[i][l] > r->high[l] ? x[i][l] : r->high[l];
            r->sum_w[l] += w[i][l];
            r->sum_x[l] += w[i][l] * x[i][l];
        }
    EACH_LANE (l) r->low[l] = r->low[l] > 0.0f ? 0.0f : r->low[l];
}

KERNEL void search_affine(const AffineSearch *s, const Lanes *x, const Lanes *w, float *scale,
                          float *below, float *inverse, float *base) {
    Lanes code[AFFINE_BLOCK], now, fit, low, best, error, sum_l, sum_l2, sum_xl, bottom;
    AffineRange r;
    affine_range(&r, x, w);
    EACH_LANE (l) {
        bottom[l] = r.low[l];
        inverse[l] = (float)s->nmax / (r.high[l] - r.low[l]);
        scale[l] = 1.0f / inverse[l];
        base[l] = r.low[l];
    }
    affine_codes(s->nmax, x, w, inverse, base, code, sum_l, sum_l2, sum_xl);
    affine_error(x, w, code, scale, base, best);
    for (int i = 0; i <= s->steps; i++) {
        const float top = s->first + s->step * (float)i + (float)s->nmax;
        EACH_LANE (l) now[l] = top / (r.high[l] - r.low[l]);
        affine_codes(s->nmax, x, w, now, r.low, code, sum_l, sum_l2, sum_xl);
        EACH_LANE (l) {
            const float det = r.sum_w[l] * sum_l2[l] - sum_l[l] * sum_l[l];
            fit[l] = (r.sum_w[l] * sum_xl[l] - r.sum_x[l] * sum_l[l]) / det;
            low[l] = (sum_l2[l] * r.sum_x[l] - sum_l[l] * sum_xl[l]) / det;
            fit[l] = low[l] > 0.0f ? sum_xl[l] / sum_l2[l] : fit[l];
            low[l] = low[l] > 0.0f ? 0.0f : low[l];
            fit[l] = det > 0.0f ? fit[l] : NAN; // no fit: its error is less than nothing's
        }
        affine_error(x, w, code, fit, low, error);
        EACH_LANE (l) {
            const bool better = error[l] < best[l];
            best[l] = better ? error[l] : best[l];
            scale[l] = better ? fit[l] : scale[l];
            inverse[l] = better ? now[l] : inverse[l];
            base[l] = better ? r.low[l] : base[l];
            r.low[l] = better ? low[l] : r.low[l];
        }
    }
    EACH_LANE (l) { // where all are equal, and none above 0, the above was NaN
        const bool constant = r.high[l] == bottom[l];
        scale[l] = constant ? 0.0f : scale[l];
        inverse[l] = constant ? 0.0f : inverse[l];
        base[l] = constant ? bottom[l] : base[l];
        below[l] = -(constant ? bottom[l] : r.low[l]);
    }
}
// Which of the inverse scales leaves the least error.
LANE_FN void positive_inverse(int n, int nmax, const Lanes *x, const Lanes *w, const float *peak,
                              float *inverse) {
    enum { TRIES = 4 };
    Lanes best = {0}, error, now, step;
    for (int t = -TRIES - 1; t <= TRIES; t++) { // the first time: the plain inverse, not clamped
        if (t == 0) continue;
        const bool plain = t < -TRIES;
        const float top = plain ? (float)nmax : 0.1f * (float)t + (float)nmax;
        EACH_LANE (l) {
            now[l] = top / peak[l];
            step[l] = 1.0f / now[l];
            error[l] = 0.0f;
        }
        for (int i = 0; i < n; i++)
            EACH_LANE (l) {
                const int c = nearest_int(now[l] * x[i][l]);
                const int code = plain ? c & 255 : c < nmax ? c : nmax;
                const float d = x[i][l] - step[l] * (float)code;
                error[l] += w[i][l] * d * d;
            }
        EACH_LANE (l) {
            const bool better = plain | (error[l] < best[l]);
            best[l] = better ? error[l] : best[l];
            inverse[l] = better ? now[l] : inverse[l];
        }
    }
}

KERNEL void search_positive(int n, int nmax, const Lanes *x, const Lanes *w, float *scale,
                            LaneCodes *code) {
    enum { PASSES = 5 };
    Lanes peak, divisor, inverse, sum_xl, sum_l2;
    EACH_LANE (l) peak[l] = 0.0f;
    for (int i = 0; i < n; i++)
        EACH_LANE (l) peak[l] = x[i][l] > peak[l] ? x[i][l] : peak[l];
    EACH_LANE (l) divisor[l] = peak[l] < BLOCK_ZERO ? 1.0f : peak[l];
    positive_inverse(n, nmax, x, w, divisor, inverse);
    EACH_LANE (l) sum_xl[l] = sum_l2[l] = 0.0f;
    for (int i = 0; i < n; i++)
        EACH_LANE (l) {
            const int c = nearest_int(inverse[l] * x[i][l]), kept = c < nmax ? c : nmax;
            code[i][l] = (uint8_t)kept;
            sum_xl[l] += w[i][l] * x[i][l] * (float)kept;
            sum_l2[l] += w[i][l] * (float)kept * (float)kept;
        }
    for (int pass = 0, changed = 1; pass < PASSES && changed; pass++) {
        changed = 0;
        for (int i = 0; i < n; i++) {
            int moved[LANES];
            EACH_LANE (l) {
                const float old = (float)code[i][l], wx = w[i][l] * x[i][l];
                float xl = sum_xl[l] - wx * old, l2 = sum_l2[l] - w[i][l] * old * old;
                bool move = (xl > 0.0f) & (l2 > 0.0f);
                const int c = nearest_int(x[i][l] * l2 / xl), next = c < nmax ? c : nmax;
                const float to = (float)next;
                xl += wx * to;
                l2 += w[i][l] * to * to;
                move = move & (to != old) & (xl * xl * sum_l2[l] > sum_xl[l] * sum_xl[l] * l2);
                code[i][l] = move ? (uint8_t)next : code[i][l];
                sum_xl[l] = move ? xl : sum_xl[l];
                sum_l2[l] = move ? l2 : sum_l2[l];
                moved[l] = move;
            }
            for (int l = 0; l < LANES; l++) changed |= moved[l];
        }
    }
    EACH_LANE (l)
        scale[l] = ((peak[l] >= BLOCK_ZERO) & (sum_l2[l] > 0.0f)) ? sum_xl[l] / sum_l2[l] : 0.0f;
    for (int i = 0; i < n; i++)
        EACH_LANE (l) code[i][l] = peak[l] < BLOCK_ZERO ? 0 : code[i][l];
}

const int8_t IQ4_LEVEL[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                              1,    13,   25,  38,  53,  69,  89,  113};

LANE_FN float iq4_level(float v) {
    float q = -127.0f;
    q += v >= -115.5f ? 23.0f : 0.0f;
    q += v >= -93.5f ? 21.0f : 0.0f;
    q += v >= -74.0f ? 18.0f : 0.0f;
    q += v >= -57.0f ? 16.0f : 0.0f;
    q += v >= -42.0f ? 14.0f : 0.0f;
    q += v >= -28.5f ? 13.0f : 0.0f;
    q += v >= -16.0f ? 12.0f : 0.0f;
    q += v >= -4.5f ? 11.0f : 0.0f;
    q += v >= 7.0f ? 12.0f : 0.0f;
    q += v >= 19.0f ? 12.0f : 0.0f;
    q += v >= 31.5f ? 13.0f : 0.0f;
    q += v >= 45.5f ? 15.0f : 0.0f;
    q += v >= 61.0f ? 16.0f : 0.0f;
    q += v >= 79.0f ? 20.0f : 0.0f;
    q += v >= 101.0f ? 24.0f : 0.0f;
    return q;
}

KERNEL void search_iq4(int n, const Lanes *x, const Lanes *w, float *scale) {
    enum { TRIES = 7 };
    Lanes peak, size, best = {0}, now, sum_xl, sum_l2;
    largest(peak, size, x, n);
    EACH_LANE (l) peak[l] = size[l] < BLOCK_ZERO ? 1.0f : peak[l];
    for (int t = -TRIES - 1; t <= TRIES; t++) {
        const bool plain = t < -TRIES; // the largest element takes the lowest level
        EACH_LANE (l) {
            now[l] = plain ? 1.0f / (peak[l] / 127.0f) : ((float)t - 127.0f) / peak[l];
            sum_xl[l] = sum_l2[l] = 0.0f;
        }
        for (int i = 0; i < n; i++)
            EACH_LANE (l) {
                const float q = iq4_level(now[l] * x[i][l]), wq = w[i][l] * q;
                sum_xl[l] += wq * x[i][l];
                sum_l2[l] += wq * q;
            }
        EACH_LANE (l) {
            const bool better =
                plain | ((sum_l2[l] > 0.0f) & (sum_xl[l] * sum_xl[l] > best[l] * sum_l2[l]));
            const float fit = sum_l2[l] > 0.0f ? sum_xl[l] / sum_l2[l] : 0.0f;
            scale[l] = better ? fit : scale[l];
            best[l] = better ? fit * sum_xl[l] : best[l];
        }
    }
    EACH_LANE (l) scale[l] = size[l] < BLOCK_ZERO ? 0.0f : scale[l];
}
