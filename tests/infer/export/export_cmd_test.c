// tests/infer/export/export_cmd_test.c - the verb: gate, untouched bytes, what a repository holds.
#include "tests/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/base/json.h"
#include "infer/base/log.h"
#include "infer/export/export_cmd.h"

#define STOCK "configs/demo/stock-assistant"

// Runs the verb on an output folder; its stdout goes to /dev/null.
static bool export_to(const char *out, const char *const *more, Err *err) {
    char output[PATH_ROOM];
    char *set[12] = {output};
    int n = 1;
    while (more != NULL && *more != NULL) set[n++] = (char *)*more++;
    snprintf(output, sizeof output, "output_dir=%s", out);
    Cli cli = {.verb = "export"};
    assert_ok(settings_load(&cli.s, NULL, set, n, err), *err);
    fflush(stdout);
    const int saved = dup(1);
    assert_non_null(freopen("/dev/null", "w", stdout));
    const bool ok = export_verb.run(&cli, err);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    settings_free(&cli.s);
    return ok;
}

// An output folder whose best checkpoint is the stock assistant; gain < -1: never measured.
static const char *new_run(double gain, const char *sha) {
    static char out[PATH_ROOM];
    static int count;
    char name[32], path[PATH_ROOM], command[4 * PATH_ROOM];
    Err err = {0};
    snprintf(name, sizeof name, "run%d", count++);
    path_join(out, test_dir(), name);
    snprintf(command, sizeof command, "mkdir -p %s/ckpt %s/eval && cp -r " STOCK " %s/ckpt/best",
             out, out, out);
    assert_int_equal(system(command), 0);
    if (gain < -1) return out;
    json_t *o = json_pack("{s:[i,i], s:i, s:i, s:{s:{s:{s:s, s:[f,f]}}, s:{s:{s:s, s:[f,f]}}}, "
                          "s:{s:{s:[f,f], s:[[f,f],[f,f]]}}}",
                          "draft_tokens", 1, 6, "prompts", 200, "tokens", 9000, "drafters", "stock",
                          "greedy", "head", "centroid", "tau", 1.5, 2.0, "trained", "greedy",
                          "head", "centroid", "tau", 1.5, 2.0 * (1 + gain), "paired", "greedy",
                          "gain", 0.0, gain, "ci", -0.1, 0.1, gain - 0.1, gain + 0.1);
    assert_non_null(o);
    if (sha != NULL)
        json_object_set_new(json_object_get(json_object_get(o, "drafters"), "trained"), "sha256",
                            json_string(sha));
    assert_ok(json_write_file(path_join(path, out, "eval/acceptance.json"), o, &err), err);
    json_decref(o);
    return out;
}

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

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_training_steps_export_byte_for_byte),
        cmocka_unit_test(draft_tokens_are_the_only_change_of_the_configuration),
        cmocka_unit_test(the_card_holds_the_measured_table),
        cmocka_unit_test(the_gate_refuses_what_is_below_stock_unmeasured_or_another_drafter),
        cmocka_unit_test(a_missing_checkpoint_is_named),
        cmocka_unit_test(a_new_export_replaces_the_old_one_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
