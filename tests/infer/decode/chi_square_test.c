// tests/infer/decode/chi_square_test.c - 40 settings at the number of rounds that finds a total
// variation of 1e-2; five bugs found in the wild are found here.
#include <stdio.h>

#include "tests/infer/decode/chi_square.h"

enum { ROUNDS = 250000 };

static void sampled_rounds_follow_the_target(void **state) {
    (void)state;
    const double worst = chi_worst(PLANT_NONE, ROUNDS);
    print_message("worst chi-square: %.2f of the critical value\n", worst);
    assert_true(worst > 0.0 && worst < 1.0);
}

static void planted_bugs_are_found(void **state) {
    (void)state;
    for (int plant = 1; plant < PLANTS; plant++) {
        const double worst = chi_worst((Plant)plant, ROUNDS / 5);
        print_message("planted bug %d: %.1f times the critical value\n", plant, worst);
        assert_true(worst > 1.0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampled_rounds_follow_the_target),
        cmocka_unit_test(planted_bugs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
