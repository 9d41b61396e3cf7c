// tests/infer/base/err_test.c
#include "infer/base/err.h"

#include <errno.h>
#include <string.h>

#include "tests/testing.h"

static void the_first_error_wins(void **state) {
    (void)state;
    Err err = {0};
    assert_false(err_set(&err, ERR_INPUT, "width %d, model has %d", 3, 4));
    assert_false(err_set(&err, ERR_FAILED, "later"));
    assert_int_equal(err.code, ERR_INPUT);
    assert_string_equal(err.text, "width 3, model has 4");
    assert_false(err_set(NULL, ERR_FAILED, "nobody listens"));
}

static void context_goes_in_front(void **state) {
    (void)state;
    Err err = {0};
    err_wrap(&err, "no error yet");
    assert_string_equal(err.text, "");
    err_set(&err, ERR_INPUT, "truncated");
    err_wrap(&err, "shard %s", "a.h5");
    assert_string_equal(err.text, "shard a.h5: truncated");
    assert_int_equal(err.code, ERR_INPUT);
}

static void long_texts_are_cut_not_overrun(void **state) {
    (void)state;
    Err err = {0};
    char word[2000];
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    err_set(&err, ERR_FAILED, "%s", word);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    err_wrap(&err, "%s", word);
    err_wrap(&err, "front");
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_memory_equal(err.text, "front: xxx", 10);
}

static void errno_is_spelled_out(void **state) {
    (void)state;
    Err err = {0};
    errno = ENOSPC;
    err_errno(&err, "shard %d", 7);
    assert_int_equal(err.code, ERR_FAILED);
    assert_string_equal(err.text, "shard 7: No space left on device");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_error_wins),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(long_texts_are_cut_not_overrun),
        cmocka_unit_test(errno_is_spelled_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
