// tests/infer/tensor/gather_test.c - rows by id, and rows added back in order.
#include "tests/infer/tensor/op_testing.h"

static const DType FLOATS[] = {DT_F32, DT_BF16};

static void gather_scales_and_skips(void **state) {
    (void)state;
    const int32_t id[] = {4, -1, 0, 4, 6, 2, -1};
    const int64_t cols[] = {50, 257, 2100};
    for (int i = 0; i < 3; i++)
        for (int mix = 0; mix < 4; mix++) {
            Tensor table = strided(FLOATS[mix & 1], 7, cols[i]),
                   y = strided(FLOATS[mix >> 1], 7, cols[i]);
            op_gather(test_env()->dev, y, table, test_ids(id, 7), 39.25f);
            for (int64_t r = 0; r < 7; r++)
                for (int64_t c = 0; c < cols[i]; c++) {
                    const float v = id[r] < 0 ? 0.0f : 39.25f * test_get(table, id[r], c);
                    assert_true(test_get(y, r, c) == (mix >> 1 ? round_bf16(v) : v));
                }
        }
}

static void gather_back_adds_rows_in_order(void **state) {
    (void)state;
    enum { ROWS = 600, N = 257, TABLE = 5 };
    int32_t id[ROWS];
    for (int r = 0; r < ROWS; r++) id[r] = r * 7 % (TABLE + 1) - 1;
    for (int t = 0; t < 2; t++) {
        Tensor dy = strided(FLOATS[t], ROWS, N), want = strided(DT_F32, TABLE, N), got[2];
        for (int i = 0; i < 2; i++) {
            got[i] = same_copy(want);
            op_gather_back(device_with(i + 1), got[i], dy, test_ids(id, ROWS), 0.5f);
        }
        for (int r = 0; r < ROWS; r++)
            for (int c = 0; id[r] >= 0 && c < N; c++)
                ((float *)want.data)[id[r] * want.ld + c] += 0.5f * test_get(dy, r, c);
        assert_same_bits("in order", got[0], same_copy(want));
        assert_same_bits("1 and 2 threads", got[0], got[1]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gather_scales_and_skips),
        cmocka_unit_test(gather_back_adds_rows_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
