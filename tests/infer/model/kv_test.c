// tests/infer/model/kv_test.c - rows are found at their absolute positions through moving windows
// and rewinds; the memory is what was said.
#include <string.h>

#include "infer/model/kv.h"
#include "infer/tensor/ops.h"
#include "tests/testing.h"

enum { WINDOW = 6, CHUNK = 4, CAPACITY = 64, SLOTS = 2 };

// sliding, full, sliding own K/V; full and sliding share it.
static TextConfig small_config(void) {
    TextConfig c = {.layers = 5,
                    .kv_shared = 2,
                    .heads = 4,
                    .kv_heads = 2,
                    .global_kv_heads = 1,
                    .head_dim = 4,
                    .global_head_dim = 6,
                    .window = WINDOW,
                    .hidden = 8};
    c.kind[0] = c.kind[2] = c.kind[4] = LAYER_SLIDING;
    c.kind[1] = c.kind[3] = LAYER_FULL;
    return c;
}

static float mark(int slot, int layer, int64_t pos, int version) {
    return (float)(slot * 100000 + layer * 10000 + version * 1000) + (float)pos;
}

static void fill(Tensor t, float value) {
    float row[8];
    assert_true(t.rows == 1 && t.cols <= 8);
    for (int64_t i = 0; i < t.cols; i++) row[i] = value;
    dev_upload(test_env()->dev, t, row);
}

static void append(KvCache *kv, int slot, int64_t n, int version) {
    const int64_t at = kv_length(kv, slot);
    kv_reserve(kv, slot, n);
    for (int l = 0; l < 3; l++)
        for (int64_t i = 0; i < n; i++) {
            const KvView row = kv_rows(kv, slot, l, at + i, 1);
            fill(row.k, mark(slot, l, at + i, version));
            fill(row.v, -mark(slot, l, at + i, version));
        }
    kv_commit(kv, slot);
    assert_int_equal(kv_length(kv, slot), at + n);
}

// Every row still held must carry its own position; the window must be there.
static void check(const KvCache *kv, int slot, int version_before, int64_t changed,
                  int version_after) {
    const int64_t n = kv_length(kv, slot);
    const TextConfig c = small_config();
    for (int l = 0; l < 5; l++) {
        const KvView v = kv_view(kv, slot, l);
        const int owner = layer_kv_source(&c, l);
        assert_int_equal(v.first + v.k.rows, n);
        if (c.kind[l] == LAYER_FULL) assert_int_equal(v.first, 0);
        assert_true(v.first == 0 || n - v.first >= WINDOW - 1);
        assert_int_equal(v.k.cols, layer_kv_heads(&c, l) * layer_head_dim(&c, l));
        const size_t before = arena_mark(&test_env()->arena);
        const Tensor k = test_host(v.k), vs = test_host(v.v);
        for (int64_t i = 0; i < v.k.rows; i++) {
            const int64_t pos = v.first + i;
            const float want =
                mark(slot, owner, pos, pos < changed ? version_before : version_after);
            assert_true(test_get(k, i, 0) == want && test_get(vs, i, vs.cols - 1) == -want);
        }
        arena_reset(&test_env()->arena, before);
    }
}

static void rows_stay_at_their_positions_while_windows_move(void **state) {
    (void)state;
    const TextConfig c = small_config();
    Err err = {0};
    for (int keep_all = 0; keep_all < 2; keep_all++) {
        KvCache *kv = kv_open(test_env()->dev, &c, SLOTS, CAPACITY, CHUNK, keep_all, DT_F32, &err);
        assert_ok(kv != NULL, err);
        for (int i = 0; kv_length(kv, 0) + CHUNK <= CAPACITY; i++) {
            append(kv, 0, 1 + i % CHUNK, 0);
            if (i % 3 == 0) append(kv, 1, 1, 0);
            check(kv, 0, 0, CAPACITY, 0);
            check(kv, 1, 0, CAPACITY, 0);
        }
        assert_true((kv_view(kv, 0, 0).first == 0) == (keep_all == 1));
        kv_clear(kv, 0);
        assert_int_equal(kv_length(kv, 0), 0);
        append(kv, 0, 2, 3);
        check(kv, 0, 3, CAPACITY, 3);
        check(kv, 1, 0, CAPACITY, 0);
        kv_close(kv);
    }
}

static void rejected_rows_are_overwritten(void **state) {
    (void)state;
    const TextConfig c = small_config();
    Err err = {0};
    KvCache *kv = kv_open(test_env()->dev, &c, 1, CAPACITY, CHUNK, false, DT_F32, &err);
    assert_ok(kv != NULL, err);
    append(kv, 0, 3, 0);
    while (kv_length(kv, 0) + CHUNK <= CAPACITY) { // a round: CHUNK rows, 1..3 of them stay
        const int64_t before = kv_length(kv, 0), kept = 1 + before % 3;
        append(kv, 0, CHUNK, 1);
        check(kv, 0, 0, before, 1);
        kv_rewind(kv, 0, before);
        check(kv, 0, 0, CAPACITY, 0);
        append(kv, 0, kept, 0);
        check(kv, 0, 0, CAPACITY, 0);
    }
    kv_close(kv);
}

static void reserved_rows_are_visible_but_do_not_count(void **state) {
    (void)state;
    const TextConfig c = small_config();
    Err err = {0};
    KvCache *kv = kv_open(test_env()->dev, &c, 1, CAPACITY, CHUNK, false, DT_BF16, &err);
    assert_ok(kv != NULL, err);
    kv_reserve(kv, 0, 3);
    assert_int_equal(kv_length(kv, 0), 0);
    assert_int_equal(kv_view(kv, 0, 1).k.rows, 3);
    assert_int_equal(kv_view(kv, 0, 1).k.dtype, DT_BF16);
    kv_rewind(kv, 0, 0);
    assert_int_equal(kv_view(kv, 0, 1).k.rows, 0);
    kv_close(kv);
}

static void memory_follows_the_window_not_the_capacity(void **state) {
    (void)state;
    const TextConfig c = small_config();
    // K and V of two sliding owners of 8 values and one full owner of 6; sizes are multiples of 64
    const int64_t room = 2 * (WINDOW - 1) + CHUNK;
    assert_int_equal(kv_bytes(&c, 1, 1024, CHUNK, false, DT_F32),
                     4 * room * 8 * 4 + 2 * 1024 * 6 * 4);
    assert_int_equal(kv_bytes(&c, 3, 1024, CHUNK, true, DT_BF16),
                     3 * (4 * 1024 * 8 * 2 + 2 * 1024 * 6 * 2));
    assert_true(kv_bytes(&c, 1, room, CHUNK, false, DT_F32) ==
                kv_bytes(&c, 1, room, CHUNK, true, DT_F32));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_stay_at_their_positions_while_windows_move),
        cmocka_unit_test(rejected_rows_are_overwritten),
        cmocka_unit_test(reserved_rows_are_visible_but_do_not_count),
        cmocka_unit_test(memory_follows_the_window_not_the_capacity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
