// infer/format/block_search.h - how ggml's encoders look for a block's scale, sixteen blocks at a
// time.
//
// Every search tries a few scales, takes the codes each gives, fits the scale to the codes by
// weighted least squares and keeps what leaves the least error. x and w are [n][lane].
#ifndef FORMAT_BLOCK_SEARCH_H
#define FORMAT_BLOCK_SEARCH_H

#include <stdbool.h>

#include "infer/format/block_lanes.h"

// Codes -nmax .. nmax - 1 of both signs, x ~ scale * code. The codes kept are those of `inverse`
// (see signed_code), 0 where the block is all zero.
void search_signed(int n, int nmax, const Lanes *x, const Lanes *w, float *scale, float *inverse);
// What is stored for x: its code + nmax. An all-zero block stores 0, the code -nmax.
LANE_FN int signed_code(float x, float inverse, int nmax) {
    const int code = clamp_int(nearest_int(inverse * x), -nmax, nmax - 1) + nmax;
    return inverse == 0.0f ? 0 : code;
}

// The same kind of codes by descent: one code at a time moves while the fit gains. w = x^2.
void search_descent(int n, int nmax, const Lanes *x, float *scale, LaneCodes *stored);

// Codes 0 .. nmax and a minimum <= 0, x ~ scale * code + minimum. Codes kept: affine_code of
// `inverse` and `base`. `below` returns -minimum.
typedef struct {
    int nmax;
    float first, step; // candidates divide the range by nmax + first + i * step
    int steps;         // i = 0 .. steps
} AffineSearch;
enum { AFFINE_BLOCK = 32 }; // elements
void search_affine(const AffineSearch *s, const Lanes *x, const Lanes *w, float *scale,
                   float *below, float *inverse, float *base);
LANE_FN int affine_code(float x, float inverse, float base, int nmax) {
    return clamp_int(nearest_int(inverse * (x - base)), 0, nmax);
}

// Codes 0 .. nmax of numbers >= 0 (scales of scales).
void search_positive(int n, int nmax, const Lanes *x, const Lanes *w, float *scale,
                     LaneCodes *code);

// The 16 uneven levels of IQ4, x ~ scale * IQ4_LEVEL[code]; 0 where the block is all zero.
extern const int8_t IQ4_LEVEL[16];
void search_iq4(int n, const Lanes *x, const Lanes *w, float *scale);
// Nearest level, the upper one of two equally near: it is past the middle between two levels
// exactly where the distances say so, since near a middle both distances are exact in f32.
LANE_FN int iq4_code(float v) {
    return (v >= -115.5f) + (v >= -93.5f) + (v >= -74.0f) + (v >= -57.0f) + (v >= -42.0f) +
           (v >= -28.5f) + (v >= -16.0f) + (v >= -4.5f) + (v >= 7.0f) + (v >= 19.0f) +
           (v >= 31.5f) + (v >= 45.5f) + (v >= 61.0f) + (v >= 79.0f) + (v >= 101.0f);
}

#endif
