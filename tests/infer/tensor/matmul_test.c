// tests/infer/tensor/matmul_test.c - every transposition, type mix, beta and row gap; bits repeat.
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};
typedef void (*Product)(Device *, Tensor, Tensor, Tensor, float);

static Product product(int op) {
    const Ops *o = test_env()->dev->ops;
    return op == 0 ? o->matmul_nt : op == 1 ? o->matmul_nn : o->matmul_tn;
}

static double a_of(int op, Tensor a, int64_t i, int64_t p) {
    return op == 2 ? test_get(a, p, i) : test_get(a, i, p);
}
static double b_of(int op, Tensor b, int64_t p, int64_t j) {
    return op == 0 ? test_get(b, j, p) : test_get(b, p, j);
}

static Tensor operand(int op, int which, DType t, int64_t m, int64_t n, int64_t k) {
    if (which == 0) return op == 2 ? strided(t, k, m) : strided(t, m, k);
    return op == 0 ? strided(t, n, k) : strided(t, k, n);
}

// |error| of a sum of k products stays well below 1e-6 of the sum of magnitudes.
static void expect_product(int op, Tensor c, Tensor a, Tensor b, Tensor old, float beta) {
    const int64_t k = op == 2 ? a.rows : a.cols;
    for (int64_t i = 0; i < c.rows; i++)
        for (int64_t j = 0; j < c.cols; j++) {
            double sum = beta == 0.0f ? 0.0 : test_get(old, i, j), size = fabs(sum);
            for (int64_t p = 0; p < k; p++) {
                const double v = a_of(op, a, i, p) * b_of(op, b, p, j);
                sum += v, size += fabs(v);
            }
            const double allowed = 1e-6 * size + (c.dtype == DT_BF16 ? fabs(sum) / 256 : 0.0);
            if (!(fabs(test_get(c, i, j) - sum) <= allowed))
                fail_msg(
                    "op %d, %s = %s x %s, %lld x %lld x %lld at (%lld, %lld): %.9g, expected %.9g",
                    op, dtype_name(c.dtype), dtype_name(a.dtype), dtype_name(b.dtype),
                    (long long)c.rows, (long long)c.cols, (long long)k, (long long)i, (long long)j,
                    test_get(c, i, j), sum);
        }
}

static void every_product_matches_a_double_sum(void **state) {
    (void)state;
    const int64_t shape[][3] = {{1, 1, 1},    {1, 257, 50},  {2, 50, 257}, {3, 17, 130},
                                {4, 130, 64}, {5, 64, 300},  {17, 50, 33}, {33, 129, 96},
                                {64, 64, 64}, {21, 70, 1300}};
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int i = 0; i < 3 * 8 * 2; i++) {
            const int op = i % 3, mix = i / 3 % 8;
            const int64_t m = shape[s][0], n = shape[s][1], k = shape[s][2];
            const float beta = i / 24 ? 1.0f : 0.0f;
            Tensor a = operand(op, 0, FLOATS[mix & 1], m, n, k);
            Tensor b = operand(op, 1, FLOATS[mix >> 1 & 1], m, n, k);
            Tensor c = strided(FLOATS[mix >> 2], m, n);
            if (beta == 0.0f) set_float(c, 0, 0, NAN);
            const Tensor old = same_copy(c);
            product(op)(test_env()->dev, c, a, b, beta);
            expect_product(op, c, a, b, old, beta);
        }
}

// More rows, columns and products than any kernel takes at once.
static void a_gradient_of_a_long_batch(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        const int64_t m = 130, n = 272, k = 1030;
        const Tensor a = operand(2, 0, FLOATS[i], m, n, k), b = operand(2, 1, FLOATS[i], m, n, k);
        Tensor c = strided(DT_F32, m, n);
        const Tensor old = same_copy(c);
        op_matmul_tn(test_env()->dev, c, a, b, 1.0f);
        expect_product(2, c, a, b, old, 1.0f);
    }
}

static void products_keep_to_their_view(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++) {
        Tensor whole = test_random(FLOATS[t], 5, 40), before = same_copy(whole);
        Tensor a = test_random(FLOATS[t], 5, 64), b = test_random(FLOATS[t], 30, 64);
        op_matmul_nt(test_env()->dev, tensor_cols(whole, 5, 30), a, b, 0.0f);
        assert_same_bits("left", tensor_cols(whole, 0, 5), tensor_cols(before, 0, 5));
        assert_same_bits("right", tensor_cols(whole, 35, 5), tensor_cols(before, 35, 5));
    }
}

static void an_empty_sum_is_zero(void **state) {
    (void)state;
    Tensor c = test_random(DT_F32, 3, 7), a = test_zeros(DT_F32, 3, 0),
           b = test_zeros(DT_F32, 7, 0);
    op_matmul_nt(test_env()->dev, c, a, b, 1.0f);
    assert_true(test_get(c, 1, 1) != 0.0f);
    op_matmul_nt(test_env()->dev, c, a, b, 0.0f);
    assert_true(test_get(c, 1, 1) == 0.0f);
}

static void products_repeat_on_any_number_of_threads(void **state) {
    (void)state;
    const int64_t shape[][3] = {
        {1, 512, 256}, {4, 300, 256}, {6, 512, 100}, {70, 257, 300}, {256, 256, 256}};
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int i = 0; i < 12; i++) {
            const int op = i % 3;
            const int64_t m = shape[s][0], n = shape[s][1], k = shape[s][2];
            Tensor a = operand(op, 0, FLOATS[i / 3 & 1], m, n, k);
            Tensor b = operand(op, 1, FLOATS[i / 6], m, n, k), c[3];
            for (int run = 0; run < 3; run++) {
                c[run] = test_zeros(DT_F32, m, n);
                product(op)(device_with(run ? 2 : 1), c[run], a, b, 0.0f);
                assert_same_bits("product", c[run], c[0]);
            }
        }
}

// What makes greedy verification exact: drafts are checked in batches, plain decoding goes one by
// one.
static void a_row_has_the_same_bits_alone(void **state) {
    (void)state;
    skip_unless_rows_are_independent();
    const int64_t shape[][2] = {{256, 256}, {1024, 256}, {256, 768},
                                {50, 257},  {300, 4096}, {17, 3000}};
    for (size_t s = 0; s < sizeof shape / sizeof *shape; s++)
        for (int mix = 0; mix < 8; mix++) {
            const int64_t n = shape[s][0], k = shape[s][1];
            Tensor a = strided(FLOATS[mix & 1], 65, k), b = strided(FLOATS[mix >> 1 & 1], n, k);
            Tensor c = test_zeros(FLOATS[mix >> 2], 65, n);
            op_matmul_nt(test_env()->dev, c, a, b, 0.0f);
            for (int64_t m = 1; m < 65; m += m < 18 ? 1 : 11) {
                Tensor part = strided(c.dtype, m, n);
                op_matmul_nt(device_with(m % 2 + 1), part, tensor_rows(a, 65 - m, m), b, 0.0f);
                assert_same_bits("rows", part, tensor_rows(c, 65 - m, m));
            }
        }
}

// Larger products are made by another library than those of some rows, and some of a few.
static void a_row_has_the_same_bits_in_a_large_product(void **state) {
    (void)state;
    skip_unless_rows_are_independent();
    enum { M = 900, N = 700, K = 1030 };
    Device *dev = device_with(1);
    for (int op = 0; op < 2; op++)
        for (int mix = 0; mix < 4; mix++) {
            Tensor a = operand(op, 0, FLOATS[mix & 1], M, N, K);
            Tensor b = operand(op, 1, FLOATS[mix >> 1], M, N, K), c = test_zeros(DT_F32, M, N);
            product(op)(dev, c, a, b, 0.0f);
            for (int64_t m = 7; m < 140; m += 63) {
                Tensor part = test_zeros(DT_F32, m, N);
                product(op)(dev, part, tensor_rows(a, 300, m), b, 0.0f);
                assert_same_bits("rows", part, tensor_rows(c, 300, m));
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_product_matches_a_double_sum),
        cmocka_unit_test(a_gradient_of_a_long_batch),
        cmocka_unit_test(products_keep_to_their_view),
        cmocka_unit_test(an_empty_sum_is_zero),
        cmocka_unit_test(a_row_has_the_same_bits_alone),
        cmocka_unit_test(a_row_has_the_same_bits_in_a_large_product),
        cmocka_unit_test(products_repeat_on_any_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
