// tests/data/hostile_test.c - archive bombs and spoiled lines, in small; corpus_long_test.c has
// them in large.
#include "tests/data/hostile.h"

int main(void) {
    Hostile size = {.scale = 1, .lines = 8000};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(bombs_are_refused_within_bounded_memory, &size),
        cmocka_unit_test_prestate(spoiled_lines_are_all_accounted_for, &size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
