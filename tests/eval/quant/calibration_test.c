// tests/eval/quant/calibration_test.c - which sequences are calibrated on.
#include "eval/quant/calibration.h"

#include <stdbool.h>
#include <string.h>

#include "tests/testing.h"

enum { MOST = 12 };

static void expect(const char *categories, const char *usable, int64_t want, const char *chosen) {
    char category[MOST][64] = {{0}}, got[MOST + 1] = "";
    int64_t use[MOST] = {0}, index[MOST];
    int classes;
    const int64_t n = (int64_t)strlen(categories);
    for (int64_t i = 0; i < n; i++) {
        category[i][0] = categories[i];
        use[i] = usable[i] - '0';
    }
    const int64_t m = balanced_choice((const char(*)[64])category, use, n, want, index, &classes);
    memset(got, '.', (size_t)n);
    for (int64_t i = 0; i < m; i++) {
        assert_true(i == 0 || index[i] > index[i - 1]);
        got[index[i]] = 'x';
    }
    assert_string_equal(got, chosen);
    int distinct = 0;
    for (int64_t i = 0; i < n; i++) {
        bool first = use[i] > 0;
        for (int64_t k = 0; k < i; k++) first &= use[k] == 0 || categories[k] != categories[i];
        distinct += first;
    }
    assert_int_equal(classes, distinct);
}

static void categories_take_turns(void **state) {
    (void)state;
    expect("aaaaaaaabbcc", "111111111111", 6, "xx......xxxx");
    expect("aaaaaaaabbcc", "111111111111", 4, "xx......x.x.");
    expect("abcabcabc", "111111111", 3, "xxx......");
    expect("aaaabbbb", "11111111", 100, "xxxxxxxx");
    expect("aaaa", "1111", 2, "xx..");
}

static void sequences_without_a_round_are_left_out(void **state) {
    (void)state;
    expect("aaabb", "01211", 3, ".xxx.");
    expect("", "", 5, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(categories_take_turns),
        cmocka_unit_test(sequences_without_a_round_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
