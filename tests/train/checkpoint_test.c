// tests/train/checkpoint_test.c - checkpoints appear whole, damage is found, old ones go.
#include "tests/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "train/checkpoint.h"

static const char *const NAMES[] = {"config.json", "model.safetensors", "state.json",
                                    "state.safetensors"};

static char *new_root(char out[PATH_ROOM]) {
    static int count;
    char name[32];
    snprintf(name, sizeof name, "ckpt%d", count++);
    return path_join(out, test_dir(), name);
}

// A checkpoint whose files are small and differ by step.
static void make(const char *root, int64_t step) {
    char tmp[PATH_ROOM], path[PATH_ROOM], text[200];
    Err err = {0};
    assert_ok(ckpt_begin(root, step, tmp, &err), err);
    for (int i = 0; i < 4; i++) {
        const int n =
            snprintf(text, sizeof text, "{\"%s of step\": %lld}\n", NAMES[i], (long long)step);
        assert_ok(file_write(path_join(path, tmp, NAMES[i]), text, (size_t)n, &err), err);
    }
    assert_ok(ckpt_commit(root, step, &err), err);
}

static bool there(const char *root, int64_t step) {
    char dir[PATH_ROOM];
    return dir_exists(ckpt_path(dir, root, step));
}

static void newest_is_found_and_verifies(void **state) {
    (void)state;
    char root[PATH_ROOM], dir[PATH_ROOM];
    Err err = {0};
    int64_t step = 7;
    new_root(root);
    assert_ok(ckpt_find(root, &step, &err), err);
    assert_int_equal(step, -1);
    make(root, 0), make(root, 20), make(root, 3000000);
    assert_ok(ckpt_find(root, &step, &err), err);
    assert_int_equal(step, 3000000);
    assert_int_equal(ckpt_pointed(root, "latest"), 3000000);
    assert_int_equal(ckpt_pointed(root, "best"), -1);
    assert_ok(ckpt_verify(ckpt_path(dir, root, 20), &err), err);
}

static void unfinished_folders_do_not_exist(void **state) {
    (void)state;
    char root[PATH_ROOM], tmp[PATH_ROOM];
    Err err = {0};
    int64_t step;
    make(new_root(root), 5);
    assert_ok(ckpt_begin(root, 6, tmp, &err), err);
    assert_ok(ckpt_find(root, &step, &err), err);
    assert_int_equal(step, 5);
    ckpt_prune(root, 0, -1);
    assert_false(dir_exists(tmp));
    // published but never acknowledged by `latest`: the acknowledged one counts, and N can be saved
    // again
    make(root, 6);
    assert_ok(ckpt_point(root, "latest", 5, &err), err);
    assert_ok(ckpt_find(root, &step, &err), err);
    assert_int_equal(step, 5);
    make(root, 6);
    assert_ok(ckpt_find(root, &step, &err), err);
    assert_int_equal(step, 6);
}

static void pruning_keeps_newest_two_best_and_as_many_more(void **state) {
    (void)state;
    char root[PATH_ROOM];
    new_root(root);
    for (int64_t s = 0; s < 8; s++) make(root, s);
    ckpt_prune(root, 1, 2);
    const bool want[8] = {0, 0, 1, 0, 0, 1, 1, 1};
    for (int64_t s = 0; s < 8; s++) assert_int_equal(there(root, s), want[s]);
    ckpt_prune(root, 0, 2);
    assert_false(there(root, 5));
    assert_true(there(root, 2) && there(root, 6) && there(root, 7));
}

static char *slurp(const char *path, size_t *size) {
    Err err = {0};
    char *data = file_read(path, 1 << 20, size, &err);
    assert_non_null(data);
    return data;
}

static void overwrite_raw(const char *path, const char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void assert_refused(const char *dir, const char *what, size_t at) {
    Err err = {0};
    if (ckpt_verify(dir, &err)) fail_msg("%s accepted after damage at %zu", what, at);
    assert_true(err.text[0] != '\0');
}

// Every bit of every file, the manifest included, and every length.
static void every_flipped_bit_and_every_truncation_is_found(void **state) {
    (void)state;
    char root[PATH_ROOM], dir[PATH_ROOM], path[PATH_ROOM];
    Err err = {0};
    make(new_root(root), 12);
    ckpt_path(dir, root, 12);
    int cases = 0;
    for (int i = 0; i < 5; i++) {
        const char *name = i < 4 ? NAMES[i] : "MANIFEST.json";
        size_t size;
        char *data = slurp(path_join(path, dir, name), &size);
        for (size_t bit = 0; bit < 8 * size; bit++, cases++) {
            data[bit / 8] ^= (char)(1 << bit % 8);
            overwrite_raw(path, data, size);
            assert_refused(dir, name, bit);
            data[bit / 8] ^= (char)(1 << bit % 8);
        }
        // the newline that ends the manifest carries nothing
        const size_t lengths = i < 4 ? size : size - 1;
        for (size_t cut = 0; cut < lengths; cut++, cases++) {
            overwrite_raw(path, data, cut);
            assert_refused(dir, name, cut);
        }
        overwrite_raw(path, data, size);
        free(data);
    }
    assert_ok(ckpt_verify(dir, &err), err);
    print_message("%d damaged checkpoints, none accepted\n", cases);
}

static void swapped_files_and_folders_are_found_and_the_older_one_serves(void **state) {
    (void)state;
    char root[PATH_ROOM], a[PATH_ROOM], b[PATH_ROOM], c[PATH_ROOM];
    Err err = {0};
    int64_t step;
    new_root(root);
    make(root, 1), make(root, 2), make(root, 3);
    char two[PATH_ROOM], three[PATH_ROOM];
    ckpt_path(two, root, 2);
    ckpt_path(three, root, 3);
    for (int i = 0; i < 4; i++) {
        path_join(a, two, NAMES[i]), path_join(b, three, NAMES[i]), path_join(c, root, "aside");
        assert_int_equal(rename(a, c) | rename(b, a) | rename(c, b), 0);
        Err e = {0};
        assert_false(ckpt_verify(three, &e));
        assert_non_null(strstr(e.text, NAMES[i])); // the file is named
        assert_refused(two, NAMES[i], 0);
        assert_int_equal(rename(a, c) | rename(b, a) | rename(c, b), 0);
    }
    path_join(c, root, "aside");
    assert_int_equal(rename(two, c) | rename(three, two) | rename(c, three), 0);
    assert_refused(two, "folder", 0);
    assert_refused(three, "folder", 0);
    assert_ok(ckpt_find(root, &step, &err), err);
    assert_int_equal(step, 1);
    unlink(path_join(a, ckpt_path(b, root, 1), "state.json"));
    assert_false(ckpt_find(root, &step, &err));
    assert_int_equal(err.code, ERR_INPUT);
}

static void a_save_that_fails_leaves_latest_alone(void **state) {
    (void)state;
    char root[PATH_ROOM], tmp[PATH_ROOM];
    Err err = {0};
    int64_t step;
    make(new_root(root), 1);
    assert_ok(ckpt_begin(root, 2, tmp, &err), err);
    assert_int_equal(rmdir(tmp), 0); // the folder vanishes under the writer
    assert_false(ckpt_commit(root, 2, &err));
    err = (Err){0};
    assert_ok(ckpt_find(root, &step, &err), err);
    assert_int_equal(step, 1);
    assert_false(dir_exists(tmp));
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(newest_is_found_and_verifies),
        cmocka_unit_test(unfinished_folders_do_not_exist),
        cmocka_unit_test(pruning_keeps_newest_two_best_and_as_many_more),
        cmocka_unit_test(every_flipped_bit_and_every_truncation_is_found),
        cmocka_unit_test(swapped_files_and_folders_are_found_and_the_older_one_serves),
        cmocka_unit_test(a_save_that_fails_leaves_latest_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
