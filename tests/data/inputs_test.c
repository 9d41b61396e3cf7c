// tests/data/inputs_test.c - files, folders and weights behind data.train and data.eval.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/inputs.h"
#include "tests/testing.h"

static char *put(const char *name, const char *text) {
    static char path[8][PATH_ROOM];
    static int turn;
    char dir[PATH_ROOM];
    Err err = {0};
    char *p = path_join(path[turn++ % 8], test_dir(), name);
    strcpy(dir, p);
    *strrchr(dir, '/') = '\0';
    assert_ok(dir_make(dir, &err) && file_write(p, text, strlen(text), &err), err);
    return p;
}

static char *in_dir(const char *name) {
    static char path[8][PATH_ROOM];
    static int turn;
    return path_join(path[turn++ % 8], test_dir(), name);
}

// "label*weight: file file" of every source, paths without the test's folder; or the refusal.
static char *told(bool held_out, char *const *entry, int n, ErrCode *code) {
    static char out[4096];
    size_t used = 0;
    Err err = {0};
    Sources s;
    const StrList list = {(char **)entry, n};
    const size_t root = strlen(test_dir()) + 1;
    out[0] = '\0';
    if (!sources_open(&s, "data.train", &list, held_out, &err)) {
        *code = err.code;
        snprintf(out, sizeof out, "%s", err.text);
        return out;
    }
    *code = ERR_NONE;
    for (int i = 0; i < s.n; i++) {
        used += (size_t)snprintf(out + used, sizeof out - used, "%s%s*%g:", i ? "\n" : "",
                                 s.item[i].label, s.item[i].weight);
        for (int k = 0; k < s.item[i].files; k++)
            used +=
                (size_t)snprintf(out + used, sizeof out - used, " %s", s.item[i].file[k] + root);
    }
    if (s.weighted) snprintf(out + used, sizeof out - used, " weighted");
    sources_free(&s);
    return out;
}

static void weights_stand_behind_the_path(void **state) {
    (void)state;
    ErrCode code;
    char a[PATH_ROOM + 16], b[PATH_ROOM + 8], odd[PATH_ROOM + 8];
    snprintf(a, sizeof a, "%s=3", put("a.jsonl", "{}\n"));
    snprintf(b, sizeof b, "%s", put("b.jsonl", "{}\n"));
    snprintf(odd, sizeof odd, "%s", put("lr=3", "{}\n"));
    char *const two[] = {a, b};
    assert_string_equal(told(false, two, 2, &code),
                        "a.jsonl*3: a.jsonl\nb.jsonl*1: b.jsonl weighted");
    char *const named[] = {odd}; // a file of that very name
    assert_string_equal(told(false, named, 1, &code), "lr=3*1: lr=3");
    const char *bad[] = {"=0", "=-1", "=inf", "=nan"};
    for (int i = 0; i < 4; i++) {
        snprintf(a, sizeof a, "%s%s", b, bad[i]);
        char *const one[] = {a};
        char *said = told(false, one, 1, &code);
        assert_int_equal(code, ERR_USAGE);
        if (!strstr(said, "expected a number above 0")) fail_msg("%s", said);
    }
    strcpy(a, b);
    strcat(a, "=x");
    char *const one[] = {a};
    assert_non_null(strstr(told(false, one, 1, &code), "b.jsonl=x: no such file"));
    assert_int_equal(code, ERR_INPUT);
}

static void folders_hold_train_valid_and_test(void **state) {
    (void)state;
    ErrCode code;
    put("d/train.jsonl", "{}\n");
    put("d/valid.jsonl.zst", "");
    put("d/training-notes.jsonl", "{}\n");
    put("d/README.md", "");
    char *const d[] = {in_dir("d")};
    assert_string_equal(told(false, d, 1, &code), "d*1: d/train.jsonl");
    assert_string_equal(told(true, d, 1, &code), "d*1: d/valid.jsonl.zst");
    put("d/test.tar.gz", "");
    assert_string_equal(told(true, d, 1, &code), "d*1: d/test.tar.gz");
    put("s/train-00001-of-00002.jsonl", "{}\n");
    put("s/train-00000-of-00002.jsonl", "{}\n");
    char *const s[] = {in_dir("s/")};
    assert_string_equal(told(false, s, 1, &code),
                        "s*1: s/train-00000-of-00002.jsonl s/train-00001-of-00002.jsonl");
    put("any/b.zip", "");
    put("any/a.ndjson", "{}\n");
    put("any/.hidden.jsonl", "{}\n");
    put("any/sub/c.jsonl", "{}\n");
    char *const any[] = {in_dir("any")};
    assert_string_equal(told(false, any, 1, &code), "any*1: any/a.ndjson any/b.zip");
    put("none/x.txt", "");
    char *const none[] = {in_dir("none")};
    char *said = told(false, none, 1, &code);
    assert_int_equal(code, ERR_INPUT);
    assert_non_null(strstr(said, "none: a folder without train.jsonl or another corpus"));
}

static void labels_are_short_and_different(void **state) {
    (void)state;
    ErrCode code;
    char *const list[] = {put("x/train.jsonl", "{}\n"), put("y/train.jsonl", "{}\n"),
                          in_dir("x/train.jsonl")};
    char first[PATH_ROOM];
    snprintf(first, sizeof first, "%s", list[0]);
    char *const three[] = {first, list[1], first};
    char *said = told(false, three, 3, &code);
    assert_int_equal(
        strncmp(said, "train.jsonl*1: x/train.jsonl\ny/train.jsonl*1: y/train.jsonl\n", 59), 0);
    assert_non_null(strstr(said, "\nx/train.jsonl*1: x/train.jsonl"));
}

static void columnar_files_are_refused_with_the_command(void **state) {
    (void)state;
    ErrCode code;
    const struct {
        const char *name, *text, *said;
    } bad[] = {
        {"p.parquet", "PAR1....PAR1", "Parquet is not read"},
        {"renamed.jsonl", "PAR1....PAR1", "datasets.load_dataset('parquet', data_files='"},
        {"empty.parquet", "", ".to_json('"},
        {"t.arrow", "ARROW1..", "Arrow is not read"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *const one[] = {put(bad[i].name, bad[i].text)};
        char *said = told(false, one, 1, &code);
        assert_int_equal(code, ERR_INPUT);
        if (!strstr(said, bad[i].said)) fail_msg("%s", said);
    }
    put("q/train-0.parquet", "PAR1");
    char *const folder[] = {in_dir("q")};
    char *said = told(false, folder, 1, &code);
    assert_non_null(strstr(said, "q/train-0.parquet: Parquet is not read"));
    assert_non_null(strstr(said, "q/train-0.jsonl')"));
}

static void hashes_are_of_contents(void **state) {
    (void)state;
    Err err = {0};
    char *const a[] = {put("h1.jsonl", "{}\n")}, *const b[] = {put("h2.jsonl", "{}\n")},
                *const c[] = {put("h3.jsonl", "{} \n")};
    char *const *all[] = {a, b, c};
    json_t *hash[3];
    for (int i = 0; i < 3; i++) {
        Sources s;
        const StrList list = {(char **)all[i], 1};
        assert_ok(sources_open(&s, "data.train", &list, false, &err), err);
        hash[i] = sources_hashes(&s, &err);
        assert_int_equal(json_array_size(hash[i]), 1);
        json_t *weights = sources_weights(&s);
        assert_true(json_is_null(weights));
        sources_free(&s);
    }
    assert_true(json_equal(hash[0], hash[1]));
    assert_false(json_equal(hash[0], hash[2]));
    for (int i = 0; i < 3; i++) json_decref(hash[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_stand_behind_the_path),
        cmocka_unit_test(folders_hold_train_valid_and_test),
        cmocka_unit_test(labels_are_short_and_different),
        cmocka_unit_test(columnar_files_are_refused_with_the_command),
        cmocka_unit_test(hashes_are_of_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
