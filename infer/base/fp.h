// infer/base/fp.h - bf16 and f16 as 16-bit patterns; conversions round to nearest even.
#ifndef BASE_FP_H
#define BASE_FP_H

#include <stdint.h>
#include <string.h>

typedef struct {
    uint16_t bits;
} bf16;

static inline float bf16_to_f32(bf16 h) {
    const uint32_t u = (uint32_t)h.bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline bf16 bf16_from_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    // A NaN must not be rounded into an infinity: keep it a quiet NaN.
    if ((u & 0x7fffffffu) > 0x7f800000u) return (bf16){(uint16_t)((u >> 16) | 0x40u)};
    return (bf16){(uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

static inline float round_bf16(float f) {
    return bf16_to_f32(bf16_from_f32(f));
}

typedef struct {
    uint16_t bits;
} f16;

static inline float f16_to_f32(f16 h) {
    const uint32_t sign = (uint32_t)(h.bits & 0x8000) << 16, rest = h.bits & 0x7fff;
    const float small = (float)rest * 0x1p-24f; // below 2^-14 the bits count steps of 2^-24
    uint32_t tiny, u = (rest << 13) + (112u << 23);
    memcpy(&tiny, &small, sizeof tiny);
    u += rest >= 0x7c00 ? 112u << 23 : 0;           // infinity, NaN
    const uint32_t mask = rest < 0x0400 ? ~0u : 0u; // no branch: loops over halves are vectors
    u = (tiny & mask) | (u & ~mask) | sign;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline f16 f16_from_f32(float f) {
    uint32_t u, small;
    memcpy(&u, &f, sizeof u);
    const uint32_t sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
    // Above 0.5 floats are 2^-24 apart, as halves are below 2^-14: the sum rounds as they do.
    float abs;
    memcpy(&abs, &rest, sizeof abs);
    const float sum = abs + 0.5f;
    memcpy(&small, &sum, sizeof small);
    uint32_t h = (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13;
    if (rest < 113u << 23) h = small - (126u << 23);
    if (rest >= 0x477ff000) h = 0x7c00; // 65520 and more round to infinity
    if (rest > 0x7f800000) h = 0x7e00 | (rest >> 13 & 0x1ff);
    return (f16){(uint16_t)(sign | h)};
}

#endif
