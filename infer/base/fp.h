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

#endif
