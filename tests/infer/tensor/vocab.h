// tests/infer/tensor/vocab.h - reference in double for whole rows of student and teacher logits.
#ifndef TESTS_VOCAB_H
#define TESTS_VOCAB_H

#include <stdlib.h>

#include "tests/infer/tensor/op_testing.h"

// ln softmax(z[r] / temp), to be freed
static inline double *log_softmax(Tensor z, int64_t r, double temp) {
    double *l = malloc((size_t)z.cols * sizeof *l), max = -INFINITY, sum = 0.0;
    for (int64_t c = 0; c < z.cols; c++) max = fmax(max, test_get(z, r, c) / temp);
    for (int64_t c = 0; c < z.cols; c++) sum += exp(test_get(z, r, c) / temp - max);
    for (int64_t c = 0; c < z.cols; c++) l[c] = test_get(z, r, c) / temp - max - log(sum);
    return l;
}

#endif
