// tests/infer/tensor/adamw_test.c - ten steps of AdamW against the same in double, and no gradient.
#include "tests/infer/tensor/op_testing.h"

enum { N = 1357 };
static const double LR = 3e-3, B1 = 0.9, B2 = 0.999, EPS = 1e-8, DECAY = 0.1, GSCALE = 0.37;

static void reference(double *w, double *m, double *v, Tensor g, int step) {
    for (int i = 0; i < N; i++) {
        const double x = GSCALE * test_get(g, 0, i);
        w[i] -= LR * DECAY * w[i];
        m[i] = B1 * m[i] + (1 - B1) * x;
        v[i] = B2 * v[i] + (1 - B2) * x * x;
        w[i] -= LR * (m[i] / (1 - pow(B1, step))) / (sqrt(v[i] / (1 - pow(B2, step))) + EPS);
    }
}

static void ten_steps_match_double(void **state) {
    (void)state;
    static double dw[N], dm[N], dv[N];
    Tensor w[2], m[2], v[2], copy[2];
    w[0] = test_random(DT_F32, 1, N), w[1] = same_copy(w[0]);
    for (int i = 0; i < N; i++) dw[i] = test_get(w[0], 0, i);
    for (int i = 0; i < 2; i++)
        m[i] = test_zeros(DT_F32, 1, N), v[i] = test_zeros(DT_F32, 1, N),
        copy[i] = test_zeros(DT_BF16, 1, N);
    for (int step = 1; step <= 10; step++) {
        Tensor g = test_random(DT_F32, 1, N);
        if (step == 4) op_zero(test_env()->dev, g);
        for (int i = 0; i < N; i++) set_float(g, 0, i, test_get(g, 0, i) * pow(10.0, i % 9 - 7));
        reference(dw, dm, dv, g, step);
        for (int i = 0; i < 2; i++)
            op_adamw(device_with(i + 1), w[i], m[i], v[i], copy[i], g, (float)GSCALE, (float)LR,
                     (float)B1, (float)B2, (float)EPS, (float)DECAY, step);
    }
    assert_same_bits("1 and 2 threads", w[0], w[1]);
    for (int i = 0; i < N; i++) {
        if (!(fabs(test_get(w[0], 0, i) - dw[i]) < 2e-6))
            fail_msg("weight %d: %.9g, expected %.9g", i, test_get(w[0], 0, i), dw[i]);
        assert_true(test_get(copy[0], 0, i) == round_bf16(test_get(w[0], 0, i)));
    }
}

static void a_zero_gradient_only_decays(void **state) {
    (void)state;
    Tensor w = test_random(DT_F32, 1, 50), old = same_copy(w), g = test_zeros(DT_F32, 1, 50);
    op_adamw(test_env()->dev, w, test_zeros(DT_F32, 1, 50), test_zeros(DT_F32, 1, 50), NO_TENSOR, g,
             1.0f, 0.01f, 0.9f, 0.999f, 1e-8f, 0.0f, 1);
    assert_same_bits("no decay", w, old);
    op_adamw(test_env()->dev, w, test_zeros(DT_F32, 1, 50), test_zeros(DT_F32, 1, 50), NO_TENSOR, g,
             1.0f, 0.01f, 0.9f, 0.999f, 1e-8f, 0.5f, 1);
    op_axpby(test_env()->dev, old, old, 0.995f, 0.0f);
    assert_close("decay", w, old, 1e-7, 1e-6);
}

// Rounded as other numbers are, the last denormal one would stay for ever.
static void moments_fade_to_zero(void **state) {
    (void)state;
#ifndef __x86_64__
    skip();
#endif
    Tensor w = test_random(DT_F32, 1, 2000), g = test_zeros(DT_F32, 1, 2000);
    Tensor m = test_zeros(DT_F32, 1, 2000), v = test_zeros(DT_F32, 1, 2000);
    for (int i = 0; i < 2000; i++) set_float(m, 0, i, 2e-37), set_float(v, 0, i, 1.2e-38);
    for (int step = 1; step <= 60; step++)
        op_adamw(device_with(2), w, m, v, NO_TENSOR, g, 1.0f, 0.01f, 0.9f, 0.999f, 1e-8f, 0.0f,
                 step);
    for (int i = 0; i < 2000; i++)
        assert_true(test_get(m, 0, i) == 0.0 && test_get(v, 0, i) == 0.0);
    volatile float tenth = 0.1f, small = 2e-38f; // and only there
    assert_true(tenth * small > 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_steps_match_double),
        cmocka_unit_test(a_zero_gradient_only_decays),
        cmocka_unit_test(moments_fade_to_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
