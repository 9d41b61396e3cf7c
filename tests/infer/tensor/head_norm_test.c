// tests/infer/tensor/head_norm_test.c - per-head norm with rotation, its gradient, and the table of
// angles.
#include "tests/infer/tensor/op_testing.h"

static const float EPS = 1e-6f;
static const DType FLOATS[] = {DT_F32, DT_BF16};

static Tensor table(int64_t rows, int hd, int first) {
    Tensor cs = test_zeros(DT_F32, rows, hd), inv = test_zeros(DT_F32, 1, hd / 2);
    Tensor pos = test_zeros(DT_I32, 1, rows);
    for (int i = 0; i < hd / 2; i++)
        set_float(inv, 0, i, i < hd / 3 ? pow(1e4, -2.0 * i / hd) : 0.0);
    for (int64_t r = 0; r < rows; r++) ((int32_t *)pos.data)[r] = first + (int32_t)(r * r);
    op_rope_table(test_env()->dev, cs, pos, inv);
    return cs;
}

static void rope_table_is_accurate(void **state) {
    (void)state;
    enum { HD = 50, ROWS = 17 };
    const Tensor cs = table(ROWS, HD, 131000);
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < HD / 2; i++) {
            const float inv = (float)(i < HD / 3 ? pow(1e4, -2.0 * i / HD) : 0.0);
            const float angle = (float)(131000 + r * r) * inv;
            assert_true(fabs(test_get(cs, r, i) - cos((double)angle)) < 1e-7);
            assert_true(fabs(test_get(cs, r, HD / 2 + i) - sin((double)angle)) < 1e-7);
        }
}

static Tensor reference(Tensor x, Tensor w, Tensor cs, int hd) {
    Tensor y = test_zeros(DT_F32, x.rows, x.cols);
    for (int64_t r = 0; r < x.rows; r++)
        for (int64_t h = 0; h < x.cols / hd; h++) {
            double sum = 0.0, n[512];
            for (int i = 0; i < hd; i++) sum += pow(test_get(x, r, h * hd + i), 2.0);
            for (int i = 0; i < hd; i++)
                n[i] = test_get(x, r, h * hd + i) * pow(sum / hd + EPS, -0.5) *
                       (w.data ? test_get(w, 0, i) : 1.0);
            for (int i = 0; i < hd; i++) {
                const int k = i % (hd / 2), j = i < hd / 2 ? i + hd / 2 : i - hd / 2;
                const double c = cs.data ? test_get(cs, r, k) : 1.0;
                const double s = cs.data ? test_get(cs, r, hd / 2 + k) : 0.0;
                set_float(y, r, h * hd + i, n[i] * c + (i < hd / 2 ? -1 : 1) * n[j] * s);
            }
        }
    return y;
}

static void head_norm_matches_the_formula(void **state) {
    (void)state;
    const int size[] = {2, 16, 50, 256, 512};
    for (int i = 0; i < 5; i++)
        for (int mix = 0; mix < 16; mix++) {
            const int hd = size[i], heads = 3;
            const int64_t rows = mix & 1 ? 17 : 1;
            Tensor x = strided(FLOATS[mix >> 1 & 1], rows, heads * hd);
            Tensor y = strided(FLOATS[mix >> 2 & 1], rows, heads * hd);
            Tensor w = mix & 1 ? strided(FLOATS[mix >> 2 & 1], 1, hd) : NO_TENSOR;
            Tensor cs = mix & 8 ? table(rows, hd, 7) : NO_TENSOR;
            const Tensor want = reference(x, w, cs, hd);
            op_head_norm(test_env()->dev, y, NO_TENSOR, x, w, cs, EPS, hd);
            assert_close("head_norm", y, want, rounding(y.dtype, 2e-6), rounding(y.dtype, 2e-6));
        }
}

static void head_norm_works_in_place(void **state) {
    (void)state;
    Tensor x = test_random(DT_F32, 5, 3 * 32), w = test_random(DT_F32, 1, 32), cs = table(5, 32, 3);
    const Tensor want = reference(x, w, cs, 32);
    op_head_norm(test_env()->dev, x, NO_TENSOR, x, w, cs, EPS, 32);
    assert_close("in place", x, want, 2e-6, 2e-6);
}

typedef struct {
    Tensor y, rstd, x, w, cs, dy;
    int hd;
} Case;

static double loss(void *ctx) {
    Case *c = ctx;
    op_head_norm(test_env()->dev, c->y, c->rstd, c->x, c->w, c->cs, EPS, c->hd);
    return test_dot(c->y, c->dy);
}

static void head_norm_back_matches_finite_differences(void **state) {
    (void)state;
    for (int with = 0; with < 4; with++) {
        const int hd = 18, heads = 3;
        const int64_t rows = 3;
        Case c = {.hd = hd, .rstd = test_zeros(DT_F32, rows, heads)};
        c.y = test_zeros(DT_F32, rows, heads * hd), c.x = strided(DT_F32, rows, heads * hd);
        c.dy = strided(DT_F32, rows, heads * hd);
        if (with & 1) c.w = test_random(DT_F32, 1, hd);
        if (with & 2) c.cs = table(rows, hd, 5);
        Tensor dx = test_zeros(DT_F32, rows, heads * hd);
        Tensor dw = with & 1 ? test_zeros(DT_F32, 1, hd) : NO_TENSOR;
        loss(&c);
        op_head_norm_back(test_env()->dev, dx, dw, c.dy, c.x, c.rstd, c.w, c.cs, hd);
        assert_gradient(loss, &c, c.x, dx, 1e-4);
        if (with & 1) assert_gradient(loss, &c, c.w, dw, 1e-4);
    }
}

static void head_norm_back_repeats_on_any_number_of_threads(void **state) {
    (void)state;
    const int64_t rows = 700;
    Tensor x = test_random(DT_F32, rows, 64), dy = test_random(DT_F32, rows, 64),
           w = test_random(DT_F32, 1, 32);
    Tensor rstd = test_zeros(DT_F32, rows, 2), cs = table(rows, 32, 0), dx[3], dw[3];
    op_head_norm(device_with(2), dx[0] = test_zeros(DT_F32, rows, 64), rstd, x, w, cs, EPS, 32);
    for (int i = 0; i < 3; i++) {
        dx[i] = test_zeros(DT_F32, rows, 64), dw[i] = test_zeros(DT_F32, 1, 32);
        op_head_norm_back(device_with(i ? 2 : 1), dx[i], dw[i], dy, x, rstd, w, cs, 32);
        assert_same_bits("dx", dx[i], dx[0]);
        assert_same_bits("dw", dw[i], dw[0]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rope_table_is_accurate),
        cmocka_unit_test(head_norm_matches_the_formula),
        cmocka_unit_test(head_norm_works_in_place),
        cmocka_unit_test(head_norm_back_matches_finite_differences),
        cmocka_unit_test(head_norm_back_repeats_on_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
