// tests/eval/quant/quant_pair.h - what tests of quantised drafters count on.
#ifndef TESTS_QUANT_PAIR_H
#define TESTS_QUANT_PAIR_H

#include <stdint.h>

#include "tests/data/mini_source.h"

// Anchors of sequence i, and the first one.
static inline int64_t anchors_of(int i) {
    return length[i] - prompt[i] - 1;
}

static inline void near(const char *what, double a, double b, double tolerance) {
    const double d = a - b;
    if (!(d <= tolerance && -d <= tolerance)) fail_msg("%s: %.12g, expected %.12g", what, a, b);
}

#endif
