// tests/infer/tensor/simd_test.c - exp, tanh, sin and cos of the operators against libm in double.
#include "infer/tensor/cpu/simd.h"

#include "tests/infer/tensor/op_testing.h"

// Same code in the instruction set of this program; KERNELs differ in the set only.
static float exp1(float x) {
    return exp16(lanes(x))[5];
}
static float exp_low1(float x) {
    return exp16_low(lanes(x))[3];
}
static float tanh1(float x) {
    return tanh16(lanes(x))[11];
}

static void exp_is_within_2e_7(void **state) {
    (void)state;
    double worst = 0.0;
    for (int i = -440000; i <= 883000; i++) {
        const float x = (float)i * 1e-4f;
        const double e = exp((double)x), d = fabs(exp1(x) - e) / e;
        if (d > worst) worst = d;
        if (i <= 880000) assert_true(exp_low1(x) == exp1(x));
    }
    if (!(worst < 2e-7)) fail_msg("relative error %.3g", worst);
    assert_true(exp1(0.0f) == 1.0f);
}

static void exp_of_extremes(void **state) {
    (void)state;
    assert_true(exp1(-44.1f) == 0.0f && exp1(-1e30f) == 0.0f && exp1(-INFINITY) == 0.0f);
    assert_true(exp1(89.0f) == INFINITY && exp1(INFINITY) == INFINITY);
    assert_true(isnan(exp1(NAN)));
    for (float x = 44.01f; x < 1e38f; x *= x < 100.0f ? 1.01f : 1.7f)
        assert_true(exp_low1(-x) == 0.0f);
    assert_true(exp_low1(-INFINITY) == 0.0f && isnan(exp_low1(NAN)));
}

static void tanh_is_within_2e_7(void **state) {
    (void)state;
    double worst = 0.0;
    for (int i = 1; i <= 1200000; i++) {
        const float x = (float)i * 1e-5f;
        const double e = tanh((double)x), d = fabs(tanh1(x) - e) / e;
        if (d > worst) worst = d;
        assert_true(tanh1(-x) == -tanh1(x));
    }
    if (!(worst < 2e-7)) fail_msg("relative error %.3g", worst);
}

static void tanh_of_extremes(void **state) {
    (void)state;
    assert_true(tanh1(0.0f) == 0.0f && tanh1(1e-30f) == 1e-30f);
    assert_true(tanh1(1e30f) == 1.0f && tanh1(-INFINITY) == -1.0f && isnan(tanh1(NAN)));
}

static void sin_and_cos_are_rounded(void **state) {
    (void)state;
    for (int i = -2000000; i <= 2000000; i++) {
        const float x = i % 2 ? (float)i * 1e-5f : (float)i * 0.37f;
        f32x16 s, c;
        sincos16(lanes(x), &s, &c);
        const double ds = fabs((double)s[2] - sin((double)x)),
                     dc = fabs((double)c[9] - cos((double)x));
        if (!(ds < 3.1e-8 && dc < 3.1e-8)) fail_msg("%.9g: %.3g and %.3g off", x, ds, dc);
    }
    f32x16 s, c;
    sincos16(lanes(0.0f), &s, &c);
    assert_true(s[0] == 0.0f && c[0] == 1.0f);
    sincos16(lanes(NAN), &s, &c);
    assert_true(isnan(s[0]) && isnan(c[0]));
}

// The library's kernels, whichever instruction set they picked, give the bits of this plain build.
static void kernels_give_the_same_bits_on_every_machine(void **state) {
    (void)state;
    Device *dev = test_env()->dev;
    Tensor z = test_random(DT_F32, 3, 257), y = same_copy(z);
    op_softcap(dev, z, 0.75f);
    const float inverse = 1.0f / 0.75f;
    for (int64_t i = 0; i < 3 * 257; i++)
        ((float *)y.data)[i] = 0.75f * tanh1(((float *)y.data)[i] * inverse);
    assert_same_bits("softcap", z, y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_2e_7),
        cmocka_unit_test(exp_of_extremes),
        cmocka_unit_test(tanh_is_within_2e_7),
        cmocka_unit_test(tanh_of_extremes),
        cmocka_unit_test(sin_and_cos_are_rounded),
        cmocka_unit_test(kernels_give_the_same_bits_on_every_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
