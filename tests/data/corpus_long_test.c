// tests/data/corpus_long_test.c - hostile_test.c in large: a million lines and some blank ones,
// gigabytes unpacked.
#include "tests/data/hostile.h"

int main(void) {
    Hostile size = {.scale = 12, .lines = 1001000};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(bombs_are_refused_within_bounded_memory, &size),
        cmocka_unit_test_prestate(spoiled_lines_are_all_accounted_for, &size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
