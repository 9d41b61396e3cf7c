// tests/infer/export/export_cmd_test.c - the verb: gate, untouched bytes, what a repository holds.
#include "tests/infer/export/export_run.h"

#include "infer/base/hash.h"
#include "infer/base/log.h"

static void same_file(const char *a, const char *b) {
    Sha256 x, y;
    Err err = {0};
    assert_ok(sha256_file(&x, a, &err) && sha256_file(&y, b, &err), err);
    assert_string_equal(x.hex, y.hex);
}

static void zero_training_steps_export_byte_for_byte(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *out = new_run(0.0, NULL);
    const char *const hf[] = {"export.to=hf", NULL};
    assert_ok(export_to(out, hf, &err), err);
    const char *const same[] = {"model.safetensors", "config.json", "generation_config.json"};
    for (int i = 0; i < 3; i++) {
        char stock[PATH_ROOM], sub[128];
        snprintf(sub, sizeof sub, "export/hf/%s", same[i]);
        same_file(path_join(path, out, sub), path_join(stock, STOCK, same[i]));
    }
    same_file(path_join(path, out, "export/hf/tokenizer.json"),
              "configs/demo/base-target/tokenizer.json");
    same_file(path_join(path, out, "export/hf/chat_template.jinja"),
              "configs/demo/base-target/chat_template.jinja");
    assert_false(dir_exists(path_join(path, out, "export/hf.tmp")));
}

static void draft_tokens_are_the_only_change_of_the_configuration(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM], want[4096];
    size_t size;
    const char *out = new_run(0.25, NULL);
    const char *const k1[] = {"export.to=hf,mlx", "export.draft_tokens=1", NULL};
    assert_ok(export_to(out, k1, &err), err);
    char *stock = file_read(STOCK "/generation_config.json", 1 << 20, &size, &err);
    char *got =
        file_read(path_join(path, out, "export/hf/generation_config.json"), 1 << 20, &size, &err);
    char *at = strstr(stock, "\"num_assistant_tokens\": 6");
    assert_non_null(at);
    snprintf(want, sizeof want, "%.*s\"num_assistant_tokens\": 1%s", (int)(at - stock), stock,
             at + 25);
    assert_string_equal(got, want);
    free(stock);
    free(got);
    json_t *mlx = json_read_file(path_join(path, out, "export/mlx/config.json"), 1 << 20, &err);
    assert_int_equal(json_integer_value(json_object_get(mlx, "block_size")), 2);
    assert_true(json_is_null(
        json_object_get(json_object_get(mlx, "text_config"), "moe_intermediate_size")));
    json_decref(mlx);
}

static void the_card_holds_the_measured_table(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    size_t size;
    const char *out = new_run(0.25, NULL);
    const char *const hf[] = {"export.to=hf", NULL};
    assert_ok(export_to(out, hf, &err), err);
    char *card = file_read(path_join(path, out, "export/hf/README.md"), 1 << 20, &size, &err);
    assert_non_null(card);
    assert_int_equal(strncmp(card, "---\nlicense: apache-2.0\n", 24), 0);
    assert_non_null(strstr(card, "| 6 | 2.000 | 2.500 | +25.0 % | +15.0 to +35.0 % |"));
    assert_non_null(strstr(card, "\"num_speculative_tokens\":6"));
    free(card);
}

static void refused(const char *out, const char *const *more, const char *said) {
    Err err = {0};
    char path[PATH_ROOM];
    assert_false(export_to(out, more, &err));
    assert_int_equal(err.code, ERR_GATE);
    if (strstr(err.text, said) == NULL) fail_msg("%s", err.text);
    assert_false(dir_exists(path_join(path, out, "export/hf")));
}

static void the_gate_refuses_what_is_below_stock_unmeasured_or_another_drafter(void **state) {
    (void)state;
    Err err = {0};
    const char *const hf[] = {"export.to=hf", NULL},
                      *const force[] = {"export.to=hf", "export.force=true", NULL},
                      *const k9[] = {"export.to=hf", "export.draft_tokens=9", NULL};
    refused(new_run(-0.02, NULL), hf, "tau(6) is 1.960, the stock's is 2.000");
    refused(new_run(-2, NULL), hf, "never measured");
    refused(new_run(0.5, NULL), k9, "9 draft tokens");
    refused(new_run(0.5, "0123"), hf, "another drafter");
    assert_ok(export_to(new_run(-0.02, NULL), force, &err), err);
    assert_ok(export_to(new_run(-2, NULL), force, &err), err);
}

static void a_missing_checkpoint_is_named(void **state) {
    (void)state;
    Err err = {0};
    const char *const hf[] = {"export.to=hf", "export.checkpoint=no/such/step", NULL};
    assert_false(export_to(new_run(0.1, NULL), hf, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "no/such/step"));
}

static void a_new_export_replaces_the_old_one_whole(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *out = new_run(0.1, NULL);
    const char *const hf[] = {"export.to=hf", NULL}, *const k1[] = {"export.to=hf",
                                                                    "export.draft_tokens=1", NULL};
    assert_ok(export_to(out, hf, &err), err);
    assert_ok(file_write(path_join(path, out, "export/hf/stray.safetensors"), "x", 1, &err), err);
    assert_ok(export_to(out, hf, &err), err); // nothing changed: left alone
    assert_true(file_exists(path));
    assert_ok(export_to(out, k1, &err), err);
    assert_false(file_exists(path));
    assert_false(dir_exists(path_join(path, out, "export/hf.old")));
}

// The measurement of a quantised artifact is found by the hash of its weights.
static void a_quantised_card_tells_whether_it_was_measured(void **state) {
    (void)state;
    Err err = {0};
    Sha256 sha;
    char path[PATH_ROOM];
    size_t size;
    const char *out = new_run(0.25, NULL);
    const char *const q4[] = {"export.to=mlx:q4", NULL};
    assert_ok(export_to(out, q4, &err), err);
    char *card = file_read(path_join(path, out, "export/mlx-q4/README.md"), 1 << 20, &size, &err);
    assert_non_null(strstr(card, "This quantised artifact itself was not measured"));
    assert_non_null(strstr(card, "base_model_relation: quantized\nlibrary_name: mlx\n"));
    assert_non_null(strstr(card, "affine, 4 bits, groups of 64"));
    assert_non_null(strstr(card, "--draft-block-size 7"));
    assert_null(strstr(card, "cannot draft from it"));
    free(card);
    assert_ok(sha256_file(&sha, path_join(path, out, "export/mlx-q4/model.safetensors"), &err),
              err);
    path_join(path, out, "eval/acceptance.json");
    json_t *a = json_read_file(path, 1 << 20, &err);
    json_object_set_new(json_object_get(a, "drafters"), "small",
                        json_pack("{s:s, s:{s:[f,f], s:[[f,f],[f,f]]}}", "sha256", sha.hex,
                                  "greedy", "tau", 1.4, 2.25, "tau_ci", 1.3, 1.5, 2.125, 2.375));
    assert_ok(json_write_file(path, a, &err), err);
    json_decref(a);
    assert_ok(export_to(out, q4, &err), err);
    card = file_read(path_join(path, out, "export/mlx-q4/README.md"), 1 << 20, &size, &err);
    assert_null(strstr(card, "was not measured"));
    assert_non_null(strstr(card, "| 6 | 2.500 | 2.250 | 2.125 to 2.375 |"));
    assert_non_null(strstr(card, sha.hex));
    free(card);
    const char *const heads[] = {"export.to=mlx:q4", "export.heads=true", NULL};
    assert_ok(export_to(out, heads, &err), err);
    card = file_read(path_join(path, out, "export/mlx-q4/README.md"), 1 << 20, &size, &err);
    assert_non_null(strstr(card, "mlx-vlm (0.7.10) cannot draft from it"));
    assert_null(strstr(card, "--draft-block-size"));
    free(card);
}

static void formats_that_do_not_exist_are_refused_before_anything_is_written(void **state) {
    (void)state;
    static const char *const CASE[][2] = {{"mlx:q7", "q7"},
                                          {"mlx:", "mlx takes q8"},
                                          {"target-mlx:fp8", "fp8"},
                                          {"mtplx:fast", "fast"},
                                          {"mlx:mixed", "export.mix"}};
    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++) {
        Err err = {0};
        char to[64], path[PATH_ROOM];
        const char *out = new_run(0.25, NULL), *const set[] = {to, NULL};
        snprintf(to, sizeof to, "export.to=hf,%s", CASE[i][0]);
        assert_false(export_to(out, set, &err));
        assert_int_equal(err.code, ERR_USAGE);
        if (strstr(err.text, CASE[i][1]) == NULL) fail_msg("%s", err.text);
        assert_false(dir_exists(path_join(path, out, "export")));
    }
}

static void a_drafter_of_another_target_is_refused(void **state) {
    (void)state;
    Err err = {0};
    const char *const set[] = {"export.to=mlx:q4", "model.target_path=tests/golden/e2b/target",
                               NULL};
    assert_false(export_to(new_run(0.25, NULL), set, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.text, "256")); // the width of the pair's hidden states
}

static void targets_have_cards_and_need_no_drafter(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    size_t size;
    const char *out = test_dir();
    const char *const both[] = {"export.to=target-hf,target-mlx:q4", NULL};
    assert_ok(export_to(out, both, &err), err);
    char *hf = file_read(path_join(path, out, "export/target-hf/README.md"), 1 << 20, &size, &err),
         *mlx = file_read(path_join(path, out, "export/target-mlx-q4/README.md"), 1 << 20, &size,
                          &err);
    assert_non_null(strstr(hf, "| adapter merged into it | `adapter-german-facts` |"));
    assert_null(strstr(hf, "## Measured"));
    assert_non_null(strstr(mlx, "affine, 4 bits, groups of 64"));
    assert_non_null(strstr(mlx, "| `model.safetensors.index.json` | `"));
    free(hf);
    free(mlx);
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_training_steps_export_byte_for_byte),
        cmocka_unit_test(draft_tokens_are_the_only_change_of_the_configuration),
        cmocka_unit_test(the_card_holds_the_measured_table),
        cmocka_unit_test(the_gate_refuses_what_is_below_stock_unmeasured_or_another_drafter),
        cmocka_unit_test(a_missing_checkpoint_is_named),
        cmocka_unit_test(a_new_export_replaces_the_old_one_whole),
        cmocka_unit_test(a_quantised_card_tells_whether_it_was_measured),
        cmocka_unit_test(formats_that_do_not_exist_are_refused_before_anything_is_written),
        cmocka_unit_test(targets_have_cards_and_need_no_drafter),
        cmocka_unit_test(a_drafter_of_another_target_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
