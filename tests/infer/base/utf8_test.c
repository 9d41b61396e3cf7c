// tests/infer/base/utf8_test.c - names made fit to print, and what counts as valid.
#include <string.h>

#include "infer/base/utf8.h"
#include "tests/testing.h"

static void a_name_is_cut_between_characters_only(void **state) {
    (void)state;
    const char *name = "a\u00e9\u20ac\U0001F600z"; // 1 + 2 + 3 + 4 + 1 bytes
    const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};
    for (size_t room = 1; room <= 13; room++) {
        char out[16];
        memset(out, 'x', sizeof out);
        assert_ptr_equal(utf8_fit(out, room, name), out);
        assert_int_equal(strlen(out), whole[room - 1]);
        assert_memory_equal(out, name, whole[room - 1]);
        assert_true(out[room] == 'x');
    }
}

static void what_no_terminal_should_see_becomes_a_question_mark(void **state) {
    (void)state;
    char out[32];
    assert_string_equal(utf8_fit(out, sizeof out, "a\x1b[2J\n\x7f\xc2\x85\u00a0"),
                        "a?[2J???\u00a0");
    assert_string_equal(utf8_fit(out, sizeof out, "\xe9t\xe9 \xe2\x82"), "?t? ?");
    assert_string_equal(utf8_fit(out, sizeof out, "\xed\xa0\x80\xc0\xaf"),
                        "?????"); // surrogate, overlong
    assert_string_equal(utf8_fit(out, sizeof out, ""), "");
}

static void every_scalar_reads_back_and_surrogates_do_not(void **state) {
    (void)state;
    for (uint32_t c = 0; c < SCALAR_LIMIT; c += c < 0x3000 ? 1 : 61) {
        char bytes[4];
        uint32_t back;
        bool valid;
        const size_t n = utf8_write(c, bytes);
        const unsigned char *p = (const unsigned char *)bytes;
        const bool surrogate = c >= 0xD800 && c < 0xE000;
        const size_t read = utf8_read(p, p + n, &back, &valid);
        assert_int_equal(valid, !surrogate);
        assert_int_equal(utf8_valid(bytes, n), !surrogate);
        if (!surrogate) assert_true(read == n && back == c);
        for (size_t cut = 1; cut < n; cut++) assert_false(utf8_valid(bytes, cut));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_cut_between_characters_only),
        cmocka_unit_test(what_no_terminal_should_see_becomes_a_question_mark),
        cmocka_unit_test(every_scalar_reads_back_and_surrogates_do_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
