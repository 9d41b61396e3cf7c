// tests/infer/tensor/norm_test.c - RMSNorm with and without weight, residual and scale; its
// gradients.
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};
static const int64_t ROWS[] = {1, 3, 17}, COLS[] = {50, 257, 2100};
static const float EPS = 1e-6f;

static Tensor reference(Tensor x, Tensor w, Tensor res, double scale) {
    Tensor y = test_zeros(DT_F32, x.rows, x.cols);
    for (int64_t r = 0; r < x.rows; r++) {
        double sum = 0.0;
        for (int64_t c = 0; c < x.cols; c++) sum += (double)test_get(x, r, c) * test_get(x, r, c);
        const double s = pow(sum / (double)x.cols + EPS, -0.5);
        for (int64_t c = 0; c < x.cols; c++)
            set_float(y, r, c,
                      scale * ((res.data ? test_get(res, r, c) : 0.0) +
                               test_get(x, r, c) * s * (w.data ? test_get(w, 0, c) : 1.0)));
    }
    return y;
}

static void norm_matches_the_formula(void **state) {
    (void)state;
    for (int i = 0; i < 9; i++)
        for (int mix = 0; mix < 32; mix++) {
            const int64_t rows = ROWS[i / 3], cols = COLS[i % 3];
            Tensor x = strided(FLOATS[mix & 1], rows, cols),
                   y = strided(FLOATS[mix >> 1 & 1], rows, cols);
            Tensor w = mix & 4 ? strided(FLOATS[mix & 1], 1, cols) : NO_TENSOR;
            Tensor res = mix & 8 ? strided(FLOATS[mix >> 2 & 1], rows, cols) : NO_TENSOR;
            Tensor rstd = mix & 16 ? test_zeros(DT_F32, 1, rows) : NO_TENSOR;
            const Tensor want = reference(x, w, res, 0.5);
            op_norm(test_env()->dev, y, rstd, res, x, w, EPS, 0.5f);
            assert_close("norm", y, want, 1e-6, rounding(y.dtype, 2e-6));
            if (mix & 16) assert_true(test_get(rstd, 0, rows - 1) > 0.0f);
        }
}

static void norm_works_in_place(void **state) {
    (void)state;
    Tensor x = test_random(DT_F32, 3, 2100), w = test_random(DT_F32, 1, 2100);
    Tensor res = test_random(DT_F32, 3, 2100);
    const Tensor want = reference(x, w, res, 1.0), again = same_copy(x);
    op_norm(test_env()->dev, x, NO_TENSOR, res, x, w, EPS, 1.0f);
    assert_close("over x", x, want, 1e-6, 1e-6);
    op_norm(test_env()->dev, res, NO_TENSOR, res, again, w, EPS, 1.0f);
    assert_close("over res", res, want, 1e-6, 1e-6);
}

static void norm_of_zeros_is_zero(void **state) {
    (void)state;
    Tensor x = test_zeros(DT_F32, 2, 50), y = test_random(DT_F32, 2, 50);
    op_norm(test_env()->dev, y, NO_TENSOR, NO_TENSOR, x, NO_TENSOR, EPS, 1.0f);
    assert_same_bits("zeros", y, x);
}

typedef struct {
    Tensor y, rstd, res, x, w, dy;
} Case;

static double loss(void *ctx) {
    Case *c = ctx;
    op_norm(test_env()->dev, c->y, c->rstd, c->res, c->x, c->w, EPS, 0.75f);
    return test_dot(c->y, c->dy);
}

static void norm_back_matches_finite_differences(void **state) {
    (void)state;
    const int64_t rows = 3, n = 50;
    for (int with = 0; with < 4; with++) {
        Case c = {.y = test_zeros(DT_F32, rows, n),
                  .rstd = test_zeros(DT_F32, 1, rows),
                  .x = strided(DT_F32, rows, n),
                  .dy = strided(DT_F32, rows, n)};
        if (with & 1) c.w = test_random(DT_F32, 1, n);
        if (with & 2) c.res = strided(DT_F32, rows, n);
        Tensor dx = test_zeros(DT_F32, rows, n);
        Tensor dw = with & 1 ? test_zeros(DT_F32, 1, n) : NO_TENSOR;
        Tensor dres = with & 2 ? test_zeros(DT_F32, rows, n) : NO_TENSOR;
        loss(&c);
        op_norm_back(test_env()->dev, dx, dw, dres, c.dy, c.x, c.rstd, c.w, 0.75f);
        assert_gradient(loss, &c, c.x, dx, 1e-4);
        if (with & 1) assert_gradient(loss, &c, c.w, dw, 1e-4);
        if (with & 2) assert_gradient(loss, &c, c.res, dres, 1e-4);
    }
}

static void norm_back_adds_and_takes_bf16(void **state) {
    (void)state;
    const int64_t rows = 5, n = 1300;
    Tensor x = strided(DT_BF16, rows, n), dy = strided(DT_BF16, rows, n),
           w = strided(DT_BF16, 1, n);
    Tensor xf = test_zeros(DT_F32, rows, n), df = test_zeros(DT_F32, rows, n),
           wf = test_zeros(DT_F32, 1, n);
    Tensor rstd = test_zeros(DT_F32, 1, rows), y = test_zeros(DT_F32, rows, n);
    Device *dev = test_env()->dev;
    op_copy(dev, xf, x), op_copy(dev, df, dy), op_copy(dev, wf, w);
    op_norm(dev, y, rstd, NO_TENSOR, x, w, EPS, 1.0f);
    Tensor dx = test_zeros(DT_F32, rows, n), twice = test_zeros(DT_F32, rows, n);
    Tensor dw = test_zeros(DT_F32, 1, n), dw2 = test_zeros(DT_F32, 1, n);
    op_norm_back(dev, dx, dw, NO_TENSOR, df, xf, rstd, wf, 1.0f);
    for (int i = 0; i < 2; i++) op_norm_back(dev, twice, dw2, NO_TENSOR, dy, x, rstd, w, 1.0f);
    op_axpby(dev, dx, dx, 2.0f, 0.0f), op_axpby(dev, dw, dw, 2.0f, 0.0f);
    assert_close("dx", twice, dx, 1e-6, 1e-5);
    assert_close("dw", dw2, dw, 1e-5, 1e-5);
}

static void norm_back_repeats_on_any_number_of_threads(void **state) {
    (void)state;
    const int64_t rows = 1500, n = 130;
    Tensor x = test_random(DT_F32, rows, n), dy = test_random(DT_F32, rows, n);
    Tensor w = test_random(DT_F32, 1, n), rstd = test_zeros(DT_F32, 1, rows), dx[3], dw[3];
    op_norm(device_with(1), dx[0] = test_zeros(DT_F32, rows, n), rstd, NO_TENSOR, x, w, EPS, 1.0f);
    for (int i = 0; i < 3; i++) {
        dx[i] = test_zeros(DT_F32, rows, n), dw[i] = test_zeros(DT_F32, 1, n);
        op_norm_back(device_with(i ? 2 : 1), dx[i], dw[i], NO_TENSOR, dy, x, rstd, w, 1.0f);
        assert_same_bits("dx", dx[i], dx[0]);
        assert_same_bits("dw", dw[i], dw[0]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_matches_the_formula),
        cmocka_unit_test(norm_works_in_place),
        cmocka_unit_test(norm_of_zeros_is_zero),
        cmocka_unit_test(norm_back_matches_finite_differences),
        cmocka_unit_test(norm_back_adds_and_takes_bf16),
        cmocka_unit_test(norm_back_repeats_on_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
