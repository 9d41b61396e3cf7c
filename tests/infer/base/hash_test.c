// tests/infer/base/hash_test.c
#include "infer/base/hash.h"

#include <string.h>

#include "infer/base/file.h"
#include "tests/testing.h"

static void sha256_of_known_texts(void **state) { // FIPS 180-4 examples
    (void)state;
    Err err = {0};
    Sha256 h;
    assert_ok(sha256_bytes(&h, "abc", 3, &err), err);
    assert_string_equal(h.hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_ok(sha256_bytes(&h, "", 0, &err), err);
    assert_string_equal(h.hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void files_streams_and_bytes_agree(void **state) {
    (void)state;
    Err err = {0};
    static char data[2500000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 31 + i / 977);
    char path[PATH_ROOM];
    path_join(path, test_dir(), "data.bin");
    assert_ok(file_write(path, data, sizeof data, &err), err);
    Sha256 whole, file, parts;
    assert_ok(sha256_bytes(&whole, data, sizeof data, &err), err);
    assert_ok(sha256_file(&file, path, &err), err);
    Hasher *h = hasher_new();
    assert_non_null(h);
    for (size_t at = 0; at < sizeof data; at += 12345)
        hasher_add(h, data + at, sizeof data - at < 12345 ? sizeof data - at : 12345);
    hasher_finish(h, &parts);
    assert_string_equal(whole.hex, file.hex);
    assert_string_equal(whole.hex, parts.hex);
    assert_false(sha256_file(&file, "/nonexistent", &err));
    assert_int_equal(err.code, ERR_FAILED);
}

static void xxh3_is_the_published_function(void **state) {
    (void)state;
    assert_true(xxh3_64("", 0) == 0x2d06800538d394c2u);
    assert_true(xxh3_64("a", 1) != xxh3_64("b", 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_of_known_texts),
        cmocka_unit_test(files_streams_and_bytes_agree),
        cmocka_unit_test(xxh3_is_the_published_function),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
