// tests/infer/tensor/vocab.h - reference in double for whole rows of student and teacher logits.
#ifndef TESTS_VOCAB_H
#define TESTS_VOCAB_H

#include <stdlib.h>

#include "tests/infer/tensor/op_testing.h"

// ln softmax(softcap(z[r]) / temp), to be freed
static inline double *log_softmax(Tensor z, int64_t r, double temp, double cap) {
    double *l = malloc((size_t)z.cols * sizeof *l), max = -INFINITY, sum = 0.0;
    for (int64_t c = 0; c < z.cols; c++) {
        const double x = test_get(z, r, c);
        l[c] = (cap != 0.0 ? cap * tanh(x / cap) : x) / temp;
        max = fmax(max, l[c]);
    }
    for (int64_t c = 0; c < z.cols; c++) sum += exp(l[c] - max);
    for (int64_t c = 0; c < z.cols; c++) l[c] -= max + log(sum);
    return l;
}

#endif
