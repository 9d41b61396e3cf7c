// tests/infer/base/fp_test.c - halves: every value there and back, and how numbers between two
// halves round.
#include "infer/base/fp.h"

#include <math.h>

#include "tests/testing.h"

static float value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float v = exponent == 31  ? mantissa == 0 ? INFINITY : NAN
                    : exponent == 0 ? ldexpf((float)mantissa, -24)
                                    : ldexpf((float)(mantissa + 1024), exponent - 25);
    return bits & 0x8000 ? -v : v;
}

static void every_half_comes_back(void **state) {
    (void)state;
    for (int i = 0; i < 65536; i++) {
        const float expected = value((uint16_t)i), got = f16_to_f32((f16){(uint16_t)i});
        const f16 back = f16_from_f32(got);
        if (isnan(expected)) {
            assert_true(isnan(got));
            assert_true((back.bits & 0x7fff) > 0x7c00);
            continue;
        }
        assert_memory_equal(&got, &expected, sizeof got);
        assert_int_equal(back.bits, i);
    }
}

static void numbers_between_halves_round_to_even(void **state) {
    (void)state;
    for (uint16_t i = 0; i < 0x7bff; i++) {
        const float low = value(i), high = value((uint16_t)(i + 1)), middle = (low + high) / 2.0f;
        const uint16_t even = (uint16_t)(i + (i & 1));
        assert_int_equal(f16_from_f32(middle).bits, even);
        assert_int_equal(f16_from_f32(-middle).bits, 0x8000 | even);
        assert_int_equal(f16_from_f32(nextafterf(middle, 0.0f)).bits, i);
        assert_int_equal(f16_from_f32(nextafterf(middle, INFINITY)).bits, i + 1);
    }
    assert_int_equal(f16_from_f32(65519.996f).bits, 0x7bff);
    assert_int_equal(f16_from_f32(65520.0f).bits, 0x7c00);
    assert_int_equal(f16_from_f32(3e38f).bits, 0x7c00);
    assert_int_equal(f16_from_f32(0x1p-25f).bits, 0);
    assert_int_equal(f16_from_f32(1e-40f).bits, 0);
    assert_true((f16_from_f32(NAN).bits & 0x7fff) > 0x7c00);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_comes_back),
        cmocka_unit_test(numbers_between_halves_round_to_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
