// tests/infer/tensor/select_test.c - top 2 over tiles and top k, ties included.
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};

// Small integers, so that every row is full of ties.
static Tensor tied(DType t, int64_t rows, int64_t cols, int levels) {
    Tensor x = strided(t, rows, cols);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) set_float(x, r, c, round(test_get(x, r, c) * levels));
    return x;
}

static int64_t best_column(Tensor x, int64_t r, const bool *taken, const int32_t *token) {
    int64_t best = -1;
    for (int64_t c = 0; c < x.cols; c++) {
        if (taken[c]) continue;
        const bool wins =
            best < 0 || test_get(x, r, c) > test_get(x, r, best) ||
            (test_get(x, r, c) == test_get(x, r, best) && token && token[c] < token[best]);
        if (wins) best = c;
    }
    return best;
}

static void expect_top2(Tensor best, Tensor id, Tensor z, const int32_t *token) {
    static bool taken[5000];
    for (int64_t r = 0; r < z.rows; r++) {
        memset(taken, 0, sizeof taken);
        for (int i = 0; i < 2; i++) {
            const int64_t c = best_column(z, r, taken, token ? token + r * z.cols : NULL);
            taken[c] = true;
            assert_int_equal(get_id(id, r, i), token ? token[r * z.cols + c] : c);
            assert_true(test_get(best, r, i) == test_get(z, r, c));
        }
    }
}

static void top2_over_tiles_is_top2_of_the_row(void **state) {
    (void)state;
    const int64_t cols[] = {2, 50, 257, 4999}, width[] = {1, 17, 128, 1300, 4999};
    for (int i = 0; i < 20; i++)
        for (int kind = 0; kind < 4; kind++) {
            Tensor z = kind & 2 ? tied(FLOATS[kind & 1], 5, cols[i / 5], 3)
                                : strided(FLOATS[kind & 1], 5, cols[i / 5]);
            Tensor best = test_random(DT_F32, 5, 2), id = test_zeros(DT_I32, 5, 2);
            for (int64_t v0 = 0; v0 < z.cols; v0 += width[i % 5]) {
                const int64_t n = z.cols - v0 < width[i % 5] ? z.cols - v0 : width[i % 5];
                op_top2(test_env()->dev, best, id, tensor_cols(z, v0, n), NO_TENSOR, v0);
            }
            expect_top2(best, id, z, NULL);
        }
}

static void top2_of_listed_tokens_takes_the_lowest_id(void **state) {
    (void)state;
    enum { ROWS = 3, N = 300 };
    static int32_t token[ROWS * N];
    for (int i = 0; i < ROWS * N; i++) token[i] = i % N * 7919 % 100003 + 5;
    Tensor list = tensor_of(token, DT_I32, ROWS, N), z = tied(DT_F32, ROWS, N, 2);
    Tensor best = test_zeros(DT_F32, ROWS, 2), id = test_zeros(DT_I32, ROWS, 2);
    op_top2(test_env()->dev, best, id, z, list, 0);
    expect_top2(best, id, z, token);
}

static void top2_of_one_column_and_of_nan(void **state) {
    (void)state;
    Tensor z = test_zeros(DT_F32, 1, 1), best = test_zeros(DT_F32, 1, 2),
           id = test_zeros(DT_I32, 1, 2);
    op_top2(test_env()->dev, best, id, z, NO_TENSOR, 0);
    assert_int_equal(get_id(id, 0, 0), 0);
    assert_int_equal(get_id(id, 0, 1), -1);
    set_float(z, 0, 0, NAN);
    op_top2(test_env()->dev, best, id, z, NO_TENSOR, 0);
    assert_int_equal(get_id(id, 0, 0), -1);
}

static void topk_is_sorted_and_stable(void **state) {
    (void)state;
    static bool taken[5000];
    const int64_t cols[] = {32, 50, 257, 2049};
    const int ks[] = {1, 8, 32};
    for (int i = 0; i < 12; i++)
        for (int kind = 0; kind < 4; kind++) {
            const int k = ks[i % 3];
            Tensor x = kind & 2 ? tied(FLOATS[kind & 1], 4, cols[i / 3], 2)
                                : strided(FLOATS[kind & 1], 4, cols[i / 3]);
            Tensor idx = test_zeros(DT_I32, 4, k);
            op_topk(test_env()->dev, idx, x, k);
            for (int64_t r = 0; r < 4; r++) {
                memset(taken, 0, sizeof taken);
                for (int j = 0; j < k; j++) {
                    const int64_t c = best_column(x, r, taken, NULL);
                    assert_int_equal(get_id(idx, r, j), c);
                    taken[c] = true;
                }
            }
        }
}

static void topk_gives_k_columns_even_of_nan(void **state) {
    (void)state;
    Tensor x = test_zeros(DT_F32, 1, 9), idx = test_zeros(DT_I32, 1, 9);
    for (int c = 0; c < 9; c++) set_float(x, 0, c, c == 4 ? 1.0 : NAN);
    op_topk(test_env()->dev, idx, x, 9);
    unsigned seen = 0;
    for (int j = 0; j < 9; j++) seen |= 1u << get_id(idx, 0, j);
    assert_int_equal(seen, 0x1ff);
    assert_int_equal(get_id(idx, 0, 0), 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top2_over_tiles_is_top2_of_the_row),
        cmocka_unit_test(top2_of_listed_tokens_takes_the_lowest_id),
        cmocka_unit_test(top2_of_one_column_and_of_nan),
        cmocka_unit_test(topk_is_sorted_and_stable),
        cmocka_unit_test(topk_gives_k_columns_even_of_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
