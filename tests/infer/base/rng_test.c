// tests/infer/base/rng_test.c
#include "infer/base/rng.h"

#include <math.h>
#include <stdlib.h>

#include "tests/testing.h"

// Seed that makes the Philox key of RNG_TEST equal to `key`.
static uint64_t seed_for(uint64_t key) {
    return key - (uint64_t)RNG_TEST * RNG_STREAM_STEP;
}

static void philox_matches_its_known_answers(void **state) { // kat_vectors of Random123 1.14
    (void)state;
    assert_true(rng_u64(seed_for(0), RNG_TEST, 0, 0) == 0xe169c58d6627e8d5u);
    assert_true(rng_u64(seed_for(~0ull), RNG_TEST, ~0ull, ~0ull) == 0x41c83b0e408f276du);
    assert_true(rng_u64(seed_for(0x299f31d0a4093822u), RNG_TEST, 0x85a308d3243f6a88u,
                        0x0370734413198a2eu) == 0x94fdccebd16cfe09u);
}

static void streams_and_counters_differ(void **state) {
    (void)state;
    const uint64_t x = rng_u64(5, RNG_SAMPLE, 1, 2);
    assert_true(x == rng_u64(5, RNG_SAMPLE, 1, 2));
    assert_true(x != rng_u64(6, RNG_SAMPLE, 1, 2));
    assert_true(x != rng_u64(5, RNG_INIT, 1, 2));
    assert_true(x != rng_u64(5, RNG_SAMPLE, 2, 2));
    assert_true(x != rng_u64(5, RNG_SAMPLE, 1, 3));
}

static void uniforms_and_normals_have_their_moments(void **state) {
    (void)state;
    enum { N = 200000 };
    double sum = 0, square = 0, u = 0;
    for (int i = 0; i < N; i++) {
        const double z = rng_normal(1, RNG_TEST, 7, (uint64_t)i);
        const double v = rng_uniform(1, RNG_TEST, 8, (uint64_t)i);
        assert_true(v >= 0.0 && v < 1.0 && isfinite(z));
        sum += z, square += z * z, u += v;
    }
    assert_true(fabs(sum / N) < 0.01); // 4.5 standard errors
    assert_true(fabs(square / N - 1.0) < 0.015);
    assert_true(fabs(u / N - 0.5) < 0.003);
}

static void below_stays_below_and_is_even(void **state) {
    (void)state;
    int count[6] = {0};
    for (uint64_t i = 0; i < 60000; i++) {
        const uint64_t x = rng_below(3, RNG_TEST, 0, i, 6);
        assert_true(x < 6);
        count[x]++;
    }
    for (int i = 0; i < 6; i++) assert_in_range(count[i], 9600, 10400); // 4.4 sigma
    assert_true(rng_below(3, RNG_TEST, 0, 0, 1) == 0);
}

static void a_permutation_holds_every_index_once(void **state) {
    (void)state;
    enum { N = 1001 };
    int64_t a[N], b[N];
    char seen[N] = {0};
    rng_permutation(9, RNG_SHUFFLE, 0, a, N);
    rng_permutation(9, RNG_SHUFFLE, 1, b, N);
    int fixed = 0, equal = 0;
    for (int i = 0; i < N; i++) {
        assert_in_range(a[i], 0, N - 1);
        assert_false(seen[a[i]]++);
        fixed += a[i] == i;
        equal += a[i] == b[i];
    }
    assert_true(fixed < 10 && equal < 10); // both about 1 on average
    rng_permutation(9, RNG_SHUFFLE, 0, a, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_matches_its_known_answers),
        cmocka_unit_test(streams_and_counters_differ),
        cmocka_unit_test(uniforms_and_normals_have_their_moments),
        cmocka_unit_test(below_stays_below_and_is_even),
        cmocka_unit_test(a_permutation_holds_every_index_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
