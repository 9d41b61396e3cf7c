// tests/infer/format/quant_edges.h - rows that quantisers stumble over, and many random ones.
#ifndef TESTS_QUANT_EDGES_H
#define TESTS_QUANT_EDGES_H

#include <float.h>
#include <math.h>

#include "infer/base/fp.h"
#include "infer/base/rng.h"
#include "tests/testing.h"

enum { EDGE_KINDS = 14 };

static inline float edge_normal(uint64_t i) { // out of 4099 numbers: drawing more takes long
    enum { POOL = 4099 };
    static float pool[POOL];
    if (pool[0] == 0.0f)
        for (int k = 0; k < POOL; k++) pool[k] = rng_normal(11, RNG_TEST, 39, (uint64_t)k);
    return pool[i * 0x9e3779b97f4a7c15u % POOL];
}
static inline const char *edge_name(int kind) {
    static const char *const NAME[EDGE_KINDS] = {
        "all zero",         "all -0",       "constant",  "negative constant",
        "one outlier",      "ramp",         "subnormal", "smallest bf16",
        "tie of both ends", "huge outlier", "all above", "mixed zeros",
        "alternating",      "normal"};
    return NAME[kind];
}
// Element i of a row of that kind; every value is a bf16.
static inline float edge_value(int kind, int64_t row, int64_t i) {
    const uint64_t at = (uint64_t)(row * 100003 + i);
    const float r = edge_normal(at);
    float v = r;
    switch (kind) {
    case 0:
        v = 0.0f;
        break;
    case 1:
        v = -0.0f;
        break;
    case 2:
        v = 0.37f;
        break;
    case 3:
        v = -1.5f;
        break;
    case 4:
        v = i == 77 % (16 + row) ? -7.0f : 1e-3f * r;
        break;
    case 5:
        v = (float)(i - 100) / 64.0f;
        break;
    case 6:
        v = 1e-39f * r;
        break;
    case 7:
        v = i % 3 == 0 ? 0x1p-133f : -0x1p-133f;
        break;
    case 8:
        v = i % 32 == 0 ? 1.0f : i % 32 == 1 ? -1.0f : 0.1f * r;
        break;
    case 9:
        v = i == 3 ? 30000.0f : r;
        break;
    case 10:
        v = 2.0f + 0.01f * r;
        break;
    case 11:
        v = i % 2 == 0 ? 0.0f : i % 4 == 1 ? -0.0f : r;
        break;
    case 12:
        v = i % 2 == 0 ? 1.0f : -1.0f;
        break;
    default:
        break;
    }
    return round_bf16(v);
}

// Element i of many random groups: normal, at a size of its group of 32 between 2^-6 and 2^5, three
// in four groups with one value in eight far out.
static inline float edge_random(uint64_t i) {
    const uint64_t group = i / 32 * 0xbf58476d1ce4e5b9u;
    const float size = ldexpf(1.0f, (int)(group >> 40 & 11) - 6);
    const bool far = (group >> 50 & 3) != 0 && (i ^ i >> 7) % 8 == 0;
    return round_bf16(size * edge_normal(i) * (far ? 10.0f : 1.0f));
}

// Bytes without a pattern; pass 0: all ones.
static inline void edge_bytes(void *out, size_t n, int pass) {
    uint64_t v = 0x9e3779b97f4a7c15u * (uint64_t)(pass + 1);
    for (size_t i = 0; i < n; i++) {
        v ^= v << 13;
        v ^= v >> 7;
        v ^= v << 17;
        ((uint8_t *)out)[i] = pass == 0 ? 255 : (uint8_t)(v >> 32);
    }
}

#endif
