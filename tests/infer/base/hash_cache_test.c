// tests/infer/base/hash_cache_test.c - a hash is remembered exactly as long as the file is the
// same.
#include "infer/base/hash_cache.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "tests/testing.h"

static char *in_dir(const char *name) {
    static char path[8][PATH_ROOM];
    static int turn;
    return path_join(path[turn++ % 8], test_dir(), name);
}

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "w"); // in place: the inode stays
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static Sha256 hash_of(const char *path, const char *cache) {
    Err err = {0};
    Sha256 h;
    assert_ok(sha256_remembered(&h, path, cache, &err), err);
    return h;
}

static void assert_true_hash(const char *path, const char *cache) {
    Err err = {0};
    Sha256 want;
    assert_ok(sha256_file(&want, path, &err), err);
    assert_string_equal(hash_of(path, cache).hex, want.hex);
}

// Puts a lie into the cache: what comes back tells whether the file was read.
static void lie(const char *cache, const char *hex) {
    Err err = {0};
    size_t size;
    char *text = file_read(cache, 1 << 20, &size, &err), *at;
    assert_ok(text, err);
    assert_non_null(at = strstr(text, "\"sha256\": \""));
    memcpy(at + strlen("\"sha256\": \""), hex, strlen(hex));
    assert_ok(file_write(cache, text, size, &err), err);
    free(text);
}

#define LIE "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// Files old enough to be remembered, after one wait for all tests.
static int make_files(void **state) {
    (void)state;
    static const char *const names[] = {"old", "changed", "other", "file"};
    for (int i = 0; i < 4; i++) put(in_dir(names[i]), i == 2 ? "two" : "one");
    assert_true_hash(in_dir("old"), in_dir("young.json"));
    assert_false(file_exists(in_dir("young.json"))); // a change right now might not show
    sleep(4);
    return 0;
}

static void an_untouched_file_is_not_read_again(void **state) {
    (void)state;
    const char *path = in_dir("old"), *cache = in_dir("cache-a.json");
    assert_true_hash(path, cache);
    assert_true(file_exists(cache));
    lie(cache, LIE);
    assert_string_equal(hash_of(path, cache).hex, LIE);
    assert_true_hash(path, NULL);
    Err err = {0};
    assert_int_equal(chdir(test_dir()), 0); // another spelling of the same file
    assert_string_equal(hash_of("./old", cache).hex, LIE);
    assert_false(sha256_remembered(&(Sha256){""}, in_dir("absent"), cache, &err));
    assert_non_null(strstr(err.text, "absent"));
}

// Same size, same mtime, same path each time: ctime or inode betray the change.
static void a_changed_file_is_hashed_again(void **state) {
    (void)state;
    const char *path = in_dir("changed"), *other = in_dir("other"), *cache = in_dir("cache-b.json");
    struct stat st;
    assert_true_hash(path, cache);
    lie(cache, LIE);
    assert_string_equal(hash_of(path, cache).hex, LIE);
    assert_int_equal(stat(path, &st), 0);
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    put(path, "six");
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_true_hash(path, cache);
    assert_int_equal(utimensat(AT_FDCWD, other, times, 0), 0);
    assert_int_equal(rename(other, path), 0);
    assert_true_hash(path, cache);
}

static void a_damaged_cache_costs_time_only(void **state) {
    (void)state;
    const char *path = in_dir("file"), *cache = in_dir("cache-c.json");
    put(cache, "{ not json");
    assert_true_hash(path, cache);
    lie(cache, "XYZ"); // no hash at all
    assert_true_hash(path, cache);
    put(cache, "[1, 2]");
    assert_true_hash(path, cache);
    assert_true_hash(path, in_dir("no-such-folder/cache.json"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_untouched_file_is_not_read_again),
        cmocka_unit_test(a_changed_file_is_hashed_again),
        cmocka_unit_test(a_damaged_cache_costs_time_only),
    };
    return cmocka_run_group_tests(tests, make_files, NULL);
}
