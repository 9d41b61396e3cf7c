// tests/testing.h - what every test needs: seeded tensors, comparisons that say where, gradient
// checks.
#ifndef TESTS_TESTING_H
#define TESTS_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/base/err.h"
#include "infer/tensor/ops.h"

// The device named by $DEVICE (cpu where it is unset) and an arena of host memory that it can read
// and write, which lives until the test program ends.
typedef struct {
    Device *dev;
    Arena arena;
} Env;
Env *test_env(void);

// Tensors in the env's arena (host memory). Random values are N(0,1) from a running test counter.
Tensor test_zeros(DType t, int64_t rows, int64_t cols);
Tensor test_random(DType t, int64_t rows, int64_t cols);
Tensor test_ids(const int32_t *id, int64_t n);
Tensor test_host(Tensor t); // t itself where the host can read it, else a packed copy
float test_get(Tensor t, int64_t r, int64_t c); // any float dtype
double test_dot(Tensor a, Tensor b);

// Fails naming the worst element when |a - b| > atol + rtol |b| anywhere.
void assert_close(const char *what, Tensor a, Tensor b, double atol, double rtol);
void assert_floats(const char *what, const float *a, const float *b, int64_t n, double atol);
double relative_l2(const float *a, const float *b, int64_t n); // |a-b| / |b|
#define assert_ok(call, err)                                                                       \
    do {                                                                                           \
        if (!(call)) fail_msg("%s: %s", #call, (err).text);                                        \
    } while (0)

// dx holds the gradient that backward returned for x; loss(ctx) recomputes the scalar from x.
// Compares with the central difference along several random directions; the second difference tells
// noise.
void assert_gradient(double (*loss)(void *), void *ctx, Tensor x, Tensor dx, double tolerance);

const char *test_dir(void);               // a fresh temporary folder, removed at exit
const char *test_golden(const char *sub); // tests/golden/sub, or $GOLDEN/sub; static buffer of 8

#endif
