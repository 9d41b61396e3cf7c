// tests/infer/tensor/geglu_test.c - gelu_tanh(a) * b, with its products too, and its gradients.
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};

static double gelu(double a) { // in the form that keeps its digits below zero
    return a / (1.0 + exp(-2.0 * sqrt(2.0 / M_PI) * (a + 0.044715 * a * a * a)));
}

static void geglu_matches_the_formula(void **state) {
    (void)state;
    const int64_t rows[] = {1, 3, 17}, cols[] = {1, 50, 257, 2100};
    for (int i = 0; i < 12; i++)
        for (int mix = 0; mix < 8; mix++) {
            const int64_t r0 = rows[i / 4], n = cols[i % 4];
            Tensor a = strided(FLOATS[mix & 1], r0, n), b = strided(FLOATS[mix >> 1 & 1], r0, n);
            Tensor m = strided(FLOATS[mix >> 2], r0, n), want = test_zeros(DT_F32, r0, n);
            for (int64_t r = 0; r < r0; r++)
                for (int64_t c = 0; c < n; c++) {
                    set_float(a, r, c, 3.0 * test_get(a, r, c));
                    set_float(want, r, c, gelu(test_get(a, r, c)) * test_get(b, r, c));
                }
            op_geglu(test_env()->dev, m, a, b);
            // e^-2u is as exact as u: relative errors grow with |u|, up to about 40
            assert_close("geglu", m, want, 2e-7, rounding(m.dtype, 2e-6));
        }
}

static void geglu_of_extremes(void **state) {
    (void)state;
    const float a[] = {1e4f, -1e4f, 1e15f, -1e15f, 0.0f, -30.0f},
                want[] = {1e4f, 0, 1e15f, 0, 0, 0};
    Tensor x = test_zeros(DT_F32, 1, 6), one = test_zeros(DT_F32, 1, 6),
           m = test_zeros(DT_F32, 1, 6);
    Tensor da = test_zeros(DT_F32, 1, 6), db = test_zeros(DT_F32, 1, 6);
    for (int i = 0; i < 6; i++) set_float(x, 0, i, a[i]), set_float(one, 0, i, 1.0);
    op_geglu(test_env()->dev, m, x, one);
    op_geglu_back(test_env()->dev, da, db, one, x, one);
    for (int i = 0; i < 6; i++) {
        assert_true(test_get(m, 0, i) == want[i]);
        assert_true(test_get(db, 0, i) == want[i]);
        assert_true(test_get(da, 0, i) == (i == 4 ? 0.5f : a[i] > 0 ? 1.0f : 0.0f));
    }
}

typedef struct {
    Tensor m, a, b, dm;
} Case;

static double loss(void *ctx) {
    Case *c = ctx;
    op_geglu(test_env()->dev, c->m, c->a, c->b);
    return test_dot(c->m, c->dm);
}

static void geglu_back_matches_finite_differences(void **state) {
    (void)state;
    Case c = {.m = test_zeros(DT_F32, 3, 50),
              .a = strided(DT_F32, 3, 50),
              .b = strided(DT_F32, 3, 50),
              .dm = strided(DT_F32, 3, 50)};
    Tensor da = test_zeros(DT_F32, 3, 50), db = test_zeros(DT_F32, 3, 50);
    op_geglu_back(test_env()->dev, da, db, c.dm, c.a, c.b);
    assert_gradient(loss, &c, c.a, da, 1e-4);
    assert_gradient(loss, &c, c.b, db, 1e-4);
}

static void geglu_back_adds_and_takes_bf16(void **state) {
    (void)state;
    const int64_t rows = 3, n = 1100;
    Device *dev = test_env()->dev;
    Tensor t[3], f[3], d[4];
    for (int i = 0; i < 3; i++) {
        t[i] = strided(DT_BF16, rows, n), f[i] = test_zeros(DT_F32, rows, n);
        op_copy(dev, f[i], t[i]);
    }
    for (int i = 0; i < 4; i++) d[i] = test_zeros(DT_F32, rows, n);
    op_geglu_back(dev, d[0], d[1], f[0], f[1], f[2]);
    for (int i = 0; i < 2; i++) op_geglu_back(dev, d[2], d[3], t[0], t[1], t[2]);
    for (int i = 0; i < 2; i++) op_axpby(dev, d[i], d[i], 2.0f, 0.0f);
    assert_close("da", d[2], d[0], 1e-6, 1e-6);
    assert_close("db", d[3], d[1], 1e-6, 1e-6);
    Tensor narrow = test_zeros(DT_BF16, rows, n), wide = test_zeros(DT_F32, rows, n);
    op_geglu_back(dev, narrow, wide, f[0], f[1], f[2]);
    op_axpby(dev, d[0], d[0], 0.5f, 0.0f);
    assert_close("bf16 da", narrow, d[0], 1e-6, 1.0 / 256);
}

// In one piece or by its parts: the same bits, whatever a and b are rounded to, kept or not.
static void gated_is_products_and_geglu(void **state) {
    (void)state;
    const int64_t shape[][3] = {{1, 50, 33},  {16, 96, 256}, {17, 48, 256}, {70, 272, 64},
                                {33, 50, 84}, {300, 64, 96}, {40, 96, 700}, {21, 48, 1300}};
    Device *dev = test_env()->dev;
    for (int i = 0; i < 8; i++)
        for (int mix = 0; mix < 32; mix++) {
            const int64_t rows = shape[i][0], n = shape[i][1], k = shape[i][2];
            const DType ab = FLOATS[mix >> 2 & 1], m = FLOATS[mix >> 3 & 1];
            const bool keep = mix >> 4, gaps = i % 2;
            Tensor x = (gaps ? strided : test_random)(FLOATS[mix & 1], rows, k),
                   w = strided(FLOATS[mix >> 1 & 1], 2 * n, k);
            const int64_t least = op_gated_room(dev, rows, n, k, x.dtype, w.dtype);
            Tensor want = strided(m, rows, n), parts = strided(ab, rows, 2 * n);
            Tensor got = strided(m, rows, n),
                   room = strided(ab, keep || gaps ? rows : least, 2 * n);
            assert_true(least <= rows);
            op_matmul_nt(dev, parts, x, w, 0.0f);
            op_geglu(dev, want, tensor_cols(parts, 0, n), tensor_cols(parts, n, n));
            op_gated(dev, got, room, x, w, keep);
            assert_same_bits("gated", got, want);
            if (keep) assert_same_bits("products", room, parts);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geglu_matches_the_formula),
        cmocka_unit_test(geglu_of_extremes),
        cmocka_unit_test(geglu_back_matches_finite_differences),
        cmocka_unit_test(geglu_back_adds_and_takes_bf16),
        cmocka_unit_test(gated_is_products_and_geglu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
