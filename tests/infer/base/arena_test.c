// tests/infer/base/arena_test.c
#include "infer/base/arena.h"

#include <math.h>

#include "infer/base/checked.h"
#include "infer/base/fp.h"
#include "tests/testing.h"

static void layout(Arena *a, void **first, void **second) {
    *first = arena_take(a, 1);
    *second = arena_take(a, 130);
}

static void a_plan_costs_what_filling_it_takes(void **state) {
    (void)state;
    _Alignas(ARENA_ALIGN) static char block[256];
    void *x, *y;
    Arena plan, real;
    arena_open(&plan, NULL, 0);
    layout(&plan, &x, &y);
    assert_null(x);
    assert_int_equal(plan.peak, 256);
    arena_open(&real, block, plan.peak);
    layout(&real, &x, &y);
    assert_ptr_equal(x, block);
    assert_ptr_equal(y, block + ARENA_ALIGN);
    assert_int_equal(real.used, 256);
}

static void reset_forgets_and_peak_remembers(void **state) {
    (void)state;
    Arena a;
    arena_open(&a, NULL, 0);
    arena_take(&a, 64);
    const size_t mark = arena_mark(&a);
    arena_take(&a, 640);
    arena_reset(&a, mark);
    arena_take(&a, 64);
    assert_int_equal(a.used, 128);
    assert_int_equal(a.peak, 704);
}

static void sizes_that_overflow_are_noticed(void **state) {
    (void)state;
    int64_t out = 7;
    assert_true(mul_fits(1 << 20, 1 << 20, &out));
    assert_int_equal(out, 1ll << 40);
    assert_false(mul_fits(INT64_MAX / 2, 3, &out));
    assert_false(add_fits(INT64_MAX, 1, &out));
    assert_true(add_fits(INT64_MAX, -1, &out));
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    assert_int_equal(bf16_from_f32(1.0f).bits, 0x3f80);
    assert_int_equal(bf16_from_f32(0x1.01p0f).bits, 0x3f80); // half way: to even
    assert_int_equal(bf16_from_f32(0x1.03p0f).bits, 0x3f82);
    assert_int_equal(bf16_from_f32(0x1.010002p0f).bits, 0x3f81);
    assert_int_equal(bf16_from_f32(-INFINITY).bits, 0xff80);
    assert_int_equal(bf16_from_f32(3.4e38f).bits, 0x7f80); // above the largest: infinity
    assert_true(isnan(round_bf16(NAN)));
    for (uint32_t b = 0; b < 0x10000; b++) { // every pattern survives the way out and back
        const bf16 h = {(uint16_t)b};
        if (!isnan(bf16_to_f32(h))) assert_int_equal(bf16_from_f32(bf16_to_f32(h)).bits, b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_costs_what_filling_it_takes),
        cmocka_unit_test(reset_forgets_and_peak_remembers),
        cmocka_unit_test(sizes_that_overflow_are_noticed),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
