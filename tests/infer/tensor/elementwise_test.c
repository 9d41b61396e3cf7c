// tests/infer/tensor/elementwise_test.c - zero, copy, axpby, softcap, sumsq and the bf16
// conversions.
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};
static const int64_t ROWS[] = {1, 3, 17}, COLS[] = {1, 50, 257, 2100};

#define EACH_SHAPE(i, j)                                                                           \
    for (int i = 0; i < 3; i++)                                                                    \
        for (int j = 0; j < 4; j++)

static void copy_converts_every_mix(void **state) {
    (void)state;
    Device *dev = test_env()->dev;
    EACH_SHAPE(i, j)
    for (int mix = 0; mix < 4; mix++) {
        Tensor x = strided(FLOATS[mix & 1], ROWS[i], COLS[j]);
        Tensor y = strided(FLOATS[mix >> 1], ROWS[i], COLS[j]);
        op_copy(dev, y, x);
        for (int64_t r = 0; r < x.rows; r++)
            for (int64_t c = 0; c < x.cols; c++) {
                const float v = test_get(x, r, c);
                assert_true(test_get(y, r, c) == (y.dtype == DT_BF16 ? round_bf16(v) : v));
            }
    }
    const int32_t id[] = {3, -1, 7};
    Tensor a = test_ids(id, 3), b = test_zeros(DT_I32, 1, 3);
    op_copy(dev, b, a);
    assert_memory_equal(b.data, id, sizeof id);
}

static void bf16_rounding_of_extremes(void **state) {
    (void)state;
    const float value[] = {0.0f,    -0.0f,       INFINITY,    -INFINITY,
                           3.4e38f, 1.00390625f, 1.01171875f, 1e-40f};
    Tensor x = test_zeros(DT_F32, 1, 21), y = test_zeros(DT_BF16, 1, 21);
    for (int i = 0; i < 21; i++) set_float(x, 0, i, value[i % 8]);
    set_float(x, 0, 19, NAN);
    op_copy(test_env()->dev, y, x);
    for (int i = 0; i < 21; i++)
        assert_int_equal(((bf16 *)y.data)[i].bits, bf16_from_f32(((float *)x.data)[i]).bits);
    assert_true(isnan(test_get(y, 0, 19)));
}

// All signs and exponents (denormal numbers, infinities, NaN), and mantissas around what rounds up,
// down and to even.
static void bf16_rounding_of_every_exponent(void **state) {
    (void)state;
    enum { EXPONENTS = 512, LOW = 9, HIGH = 6, N = EXPONENTS * LOW * HIGH };
    const uint32_t low[LOW] = {0, 1, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff, 0x4321},
                   high[HIGH] = {0, 1, 2, 0x3f, 0x7e, 0x7f};
    Tensor x = test_zeros(DT_F32, 1, N), y = test_zeros(DT_BF16, 1, N);
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t bits = (i / (LOW * HIGH)) << 23 | high[i / LOW % HIGH] << 16 | low[i % LOW];
        memcpy((float *)x.data + i, &bits, sizeof bits);
    }
    op_copy(test_env()->dev, y, x);
    for (int i = 0; i < N; i++)
        assert_int_equal(((bf16 *)y.data)[i].bits, bf16_from_f32(((float *)x.data)[i]).bits);
}

static void zero_leaves_the_gaps(void **state) {
    (void)state;
    Tensor whole = test_random(DT_BF16, 3, 60), x = tensor_cols(whole, 3, 50);
    const float before = test_get(whole, 1, 2), after = test_get(whole, 1, 53);
    op_zero(test_env()->dev, x);
    for (int64_t r = 0; r < 3; r++)
        for (int64_t c = 0; c < 50; c++) assert_true(test_get(x, r, c) == 0.0f);
    assert_true(test_get(whole, 1, 2) == before && test_get(whole, 1, 53) == after);
}

static void axpby_adds(void **state) {
    (void)state;
    EACH_SHAPE(i, j)
    for (int mix = 0; mix < 4; mix++) {
        Tensor x = strided(FLOATS[mix & 1], ROWS[i], COLS[j]);
        Tensor y = strided(FLOATS[mix >> 1], ROWS[i], COLS[j]);
        Tensor want = test_zeros(DT_F32, y.rows, y.cols);
        for (int64_t r = 0; r < y.rows; r++)
            for (int64_t c = 0; c < y.cols; c++)
                set_float(want, r, c, 1.5 * test_get(x, r, c) - 0.25 * test_get(y, r, c));
        op_axpby(test_env()->dev, y, x, 1.5f, -0.25f);
        assert_close("axpby", y, want, 1e-6, rounding(y.dtype, 1e-6));
    }
}

static void axpby_with_beta_0_overwrites_nan(void **state) {
    (void)state;
    Tensor x = test_random(DT_F32, 2, 50), y = test_zeros(DT_F32, 2, 50);
    set_float(y, 1, 7, NAN);
    op_axpby(test_env()->dev, y, x, 1.0f, 0.0f);
    assert_same_bits("axpby", y, x);
}

static void softcap_caps(void **state) {
    (void)state;
    EACH_SHAPE(i, j)
    for (int t = 0; t < 2; t++) {
        Tensor z = strided(FLOATS[t], ROWS[i], COLS[j]);
        set_float(z, 0, 0, 1e4);
        Tensor want = test_zeros(DT_F32, z.rows, z.cols), same = same_copy(z);
        for (int64_t r = 0; r < z.rows; r++)
            for (int64_t c = 0; c < z.cols; c++) {
                set_float(z, r, c, 20.0 * test_get(z, r, c));
                set_float(same, r, c, test_get(z, r, c));
                set_float(want, r, c, 30.0 * tanh(test_get(z, r, c) / 30.0));
            }
        op_softcap(test_env()->dev, same, 0.0f);
        assert_same_bits("no cap", same, same_copy(z));
        op_softcap(test_env()->dev, z, 30.0f);
        assert_close("softcap", z, want, 1e-7, rounding(z.dtype, 4e-7));
    }
}

static void sumsq_is_exact_and_repeats(void **state) {
    (void)state;
    Tensor x = strided(DT_F32, 3, 150001), one = test_zeros(DT_F64, 1, 1),
           two = test_zeros(DT_F64, 1, 1);
    double want = 0.0;
    for (int64_t r = 0; r < x.rows; r++)
        for (int64_t c = 0; c < x.cols; c++) want += (double)test_get(x, r, c) * test_get(x, r, c);
    op_sumsq(device_with(1), one, x);
    op_sumsq(device_with(2), two, x);
    assert_same_bits("1 and 2 threads", one, two);
    assert_true(fabs(*(double *)one.data - want) < 1e-12 * want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy_converts_every_mix),
        cmocka_unit_test(bf16_rounding_of_extremes),
        cmocka_unit_test(bf16_rounding_of_every_exponent),
        cmocka_unit_test(zero_leaves_the_gaps),
        cmocka_unit_test(axpby_adds),
        cmocka_unit_test(axpby_with_beta_0_overwrites_nan),
        cmocka_unit_test(softcap_caps),
        cmocka_unit_test(sumsq_is_exact_and_repeats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
