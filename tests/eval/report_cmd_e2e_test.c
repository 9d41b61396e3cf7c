// tests/eval/report_cmd_e2e_test.c - the verb `report` on runs, eval folders and files.
#include "tests/eval/report/report_made.h"
#include "tests/eval/verb_run.h"

static const MadeDrafter a[] = {{"stock", "aa", 2}, {"trained", "bb", 4}},
                         b[] = {{"stock", "aa", 2}, {"trained", "cc", 3}};

// test_dir()/NAME/eval/acceptance.json
static void make_run(const char *name, const MadeDrafter *d, bool sampled) {
    char dir[PATH_ROOM], file[PATH_ROOM];
    Err err = {0};
    snprintf(dir, sizeof dir, "%.2000s/%s/eval", test_dir(), name);
    json_t *o = made_report(d, 2, sampled, true);
    assert_ok(dir_make(dir, &err), err);
    assert_ok(json_write_file(path_join(file, dir, "acceptance.json"), o, &err), err);
    json_decref(o);
}

static bool there(const char *name) {
    char path[PATH_ROOM];
    return file_exists(path_join(path, test_dir(), name));
}

static void one_run_is_written_beside_its_file(void **state) {
    (void)state;
    const char *dir = test_dir();
    make_run("one", a, false);
    Said said = run("report -q %s/one", dir);
    assert_status(said, 0);
    assert_non_null(strstr(said.out, "| k |"));
    const char *const files[] = {"report.html", "report.md", "acceptance.csv", "mtplx.json"};
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "one/eval/%s", files[i]);
        assert_true(there(name));
    }
    assert_status(run("report -q %s/one/eval/acceptance.json report.out=%s/elsewhere", dir, dir),
                  0);
    assert_true(there("elsewhere/report.html") && there("elsewhere/acceptance.json"));
    said = run("report -q --json %s/one/eval", dir);
    assert_status(said, 0);
    json_t *all = documents(said.out);
    assert_true(number(all, "0.select_k") == 3);
    json_decref(all);
    assert_status(run("report -q --dry-run %s/one report.out=%s/planned", dir, dir), 0);
    assert_false(there("planned/report.html"));
}

static void several_runs_are_named_by_their_folders(void **state) {
    (void)state;
    const char *dir = test_dir();
    make_run("x/run", a, false);
    make_run("y/run", b, false);
    assert_status(run("report -q %s/x/run %s/y/run/eval report.out=%s/both", dir, dir, dir), 0);
    char path[PATH_ROOM];
    json_t *o = read_json(path_join(path, dir, "both"), "acceptance.json");
    const json_t *drafters = json_object_get(o, "drafters");
    assert_int_equal(json_object_size(drafters), 3);
    assert_non_null(json_object_get(drafters, "x/run"));
    assert_non_null(json_object_get(drafters, "y/run"));
    json_decref(o);
    assert_true(there("both/report.html") && there("both/mtplx.json"));
    // what was merged is a file like any other
    assert_status(run("report -q %s/both report.out=%s/again", dir, dir), 0);
    const Said help = run("report --help");
    assert_status(help, 0);
    assert_non_null(strstr(help.out, "report.out"));
}

static void refusals(void **state) {
    (void)state;
    const char *dir = test_dir();
    make_run("p", a, false);
    make_run("q", b, false);
    make_run("s", b, true);
    assert_status(run("report"), 2);
    Said said = run("report -q %s/p %s/p", dir, dir);
    assert_status(said, 2);
    assert_non_null(strstr(said.err, "named twice"));
    said = run("report -q %s/p %s/q report.out=%s/q/eval", dir, dir, dir);
    assert_status(said, 2);
    assert_non_null(strstr(said.err, "would replace"));
    said = run("report -q %s/p %s/s report.out=%s/no", dir, dir, dir);
    assert_status(said, 3);
    assert_non_null(strstr(said.err, "sampler"));
    assert_non_null(strstr(said.err, "/s/eval/acceptance.json"));
    assert_false(there("no/report.html"));
    assert_status(run("report -q %s/nothing", dir), 3);
    said = run("report -q %s", dir);
    assert_status(said, 3);
    assert_non_null(strstr(said.err, "`eval` makes one"));
    char path[PATH_ROOM];
    FILE *f = fopen(path_join(path, dir, "bad.json"), "w");
    fputs("{\"draft_tokens\": []}", f);
    fclose(f);
    said = run("report -q %s/bad.json", dir);
    assert_status(said, 3);
    assert_non_null(strstr(said.err, "bad.json"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_run_is_written_beside_its_file),
        cmocka_unit_test(several_runs_are_named_by_their_folders),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
