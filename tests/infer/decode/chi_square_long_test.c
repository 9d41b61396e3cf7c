// tests/infer/decode/chi_square_long_test.c - 40 settings at the number of rounds that finds a
// total variation of 1e-3.
#include <stdio.h>

#include "tests/infer/decode/chi_square.h"

static void sampled_rounds_follow_the_target_closely(void **state) {
    (void)state;
    const double worst = chi_worst(PLANT_NONE, 25000000);
    print_message("worst chi-square: %.2f of the critical value\n", worst);
    assert_true(worst > 0.0 && worst < 1.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sampled_rounds_follow_the_target_closely)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
