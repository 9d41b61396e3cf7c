// tests/infer/export/export_plan_test.c - --dry-run: the sizes it tells are those of the files.
#include "infer/base/log.h"
#include "infer/export/export_job.h"
#include "infer/export/tree.h"
#include "tests/infer/export/export_run.h"

static bool is_weights(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot != NULL && (strcmp(dot, ".gguf") == 0 || strcmp(dot, ".safetensors") == 0);
}

static void holds_what_was_planned(const ExportJob *j, const char *item) {
    Err err = {0};
    char dir[PATH_ROOM], path[PATH_ROOM];
    const char *option;
    ExportPlan p = {0};
    int files = 0, weights = 0;
    const ExportFormat *f = export_format(item, &option, &err);
    assert_non_null(f);
    assert_ok(f->plan(j, option, &p, &err), err);
    export_folder(dir, j, item);
    for (int i = 0; i < p.n; i++) {
        int64_t bytes;
        assert_ok(file_size(path_join(path, dir, p.file[i].name), &bytes, &err), err);
        if (bytes != p.file[i].bytes)
            fail_msg("%s: %lld bytes, planned %lld", path, (long long)bytes,
                     (long long)p.file[i].bytes);
    }
    char **names = tree_list(dir, &files, &err);
    assert_non_null(names);
    for (int i = 0; i < files; i++) weights += is_weights(names[i]);
    assert_int_equal(weights, p.n); // none is forgotten
    assert_true(export_plan_bytes(&p) > 0);
    dir_list_free(names, files);
    export_plan_free(&p);
}

static void planned_sizes_are_those_of_the_files(void **state) {
    (void)state;
    static const char TO[] = "export.to=hf,mlx,mlx:q8,mlx:mxfp4,gguf:Q4_K_M,gguf:BF16,gguf-ik:Q8_0,"
                             "target-hf,target-mlx:q4,mtplx:speed";
    Err err = {0};
    char output[PATH_ROOM + 16];
    const char *const to[] = {TO, NULL}, *out = new_run(0.25, NULL);
    assert_ok(export_to(out, to, &err), err);
    snprintf(output, sizeof output, "output_dir=%s", out);
    char *set[] = {output, (char *)TO};
    Settings s;
    ExportJob j;
    assert_ok(settings_load(&s, NULL, set, 2, &err), err);
    assert_ok(export_job_open(&j, &s, &err), err);
    assert_int_equal(s.export_.to.n, 10);
    for (int i = 0; i < s.export_.to.n; i++) holds_what_was_planned(&j, s.export_.to.item[i]);
    export_job_close(&j);
    settings_free(&s);
}

static void a_dry_run_tells_sizes_and_writes_nothing(void **state) {
    (void)state;
    Err err = {0};
    char output[PATH_ROOM + 16], said[PATH_ROOM], path[PATH_ROOM];
    size_t size;
    const char *out = new_run(0.25, NULL);
    snprintf(output, sizeof output, "output_dir=%s", out);
    char *set[] = {output, "export.to=mlx:q4,gguf:Q4_K_M,mtplx", "export.archive=x.tar",
                   "export.name=tuned"};
    Cli cli = {.verb = "export", .dry_run = true};
    assert_ok(settings_load(&cli.s, NULL, set, 4, &err), err);
    fflush(stdout);
    const int saved = dup(1);
    assert_non_null(freopen(path_join(said, out, "said"), "w", stdout));
    const bool ok = export_verb.run(&cli, &err);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    settings_free(&cli.s);
    assert_ok(ok, err);
    char *text = file_read(said, 1 << 16, &size, &err);
    assert_non_null(text);
    static const char *const WANT[] = {"export/mlx-q4\n",
                                       " bytes  model.safetensors\n",
                                       " bytes  mtp-tuned-Q4_K_M.gguf\n",
                                       " bytes  target/model.safetensors\n",
                                       " bytes  assistant/model.safetensors\n",
                                       "would pack all of it into x.tar\n",
                                       " MB of weights, twice",
                                       "num_assistant_tokens 6\n"};
    for (size_t i = 0; i < sizeof WANT / sizeof *WANT; i++)
        if (strstr(text, WANT[i]) == NULL) fail_msg("\"%s\" is not in \"%s\"", WANT[i], text);
    free(text);
    assert_false(dir_exists(path_join(path, out, "export")) || file_exists("x.tar"));
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planned_sizes_are_those_of_the_files),
        cmocka_unit_test(a_dry_run_tells_sizes_and_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
