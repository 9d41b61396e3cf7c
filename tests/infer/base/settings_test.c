// tests/infer/base/settings_test.c
#include "infer/base/settings.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/base/nearest.h"
#include "infer/base/settings_table.h"
#include "tests/testing.h"

static const char *config(const char *text) {
    static char path[PATH_ROOM];
    Err err = {0};
    path_join(path, test_dir(), "demo.json");
    assert_ok(file_write(path, text, strlen(text), &err), err);
    return path;
}

static void assert_refused(const char *text, char *override, const char *const part[], int parts) {
    Err err = {0};
    Settings s;
    if (settings_load(&s, config(text), &override, override != NULL, &err))
        fail_msg("accepted: %s %s", text, override ? override : "");
    if (err.code != ERR_USAGE) fail_msg("code %d: %s", err.code, err.text);
    for (int i = 0; i < parts; i++)
        if (!strstr(err.text, part[i])) fail_msg("\"%s\" does not say \"%s\"", err.text, part[i]);
    assert_null(s.output_dir); // nothing half-open is left
}
#define REFUSED(text, override, ...)                                                               \
    do {                                                                                           \
        const char *const part[] = {__VA_ARGS__};                                                  \
        assert_refused(text, override, part, (int)(sizeof part / sizeof part[0]));                 \
    } while (0)

static void unknown_keys_are_named_with_the_nearest(void **state) {
    (void)state;
    REFUSED("{\"train\": {\"lrr\": 1}}", NULL,
            "demo.json: unknown key \"train.lrr\", did you mean \"train.lr\"?");
    REFUSED("{\"trian\": {\"lr\": 1}}", NULL, "unknown key \"trian\", did you mean \"train\"?");
    REFUSED("{\"lr\": 1}", NULL, "unknown key \"lr\", did you mean \"train.lr\"?");
    REFUSED("{\"outputdir\": \"x\"}", NULL, "did you mean \"output_dir\"?");
    REFUSED("{\"train.lr\": 1}", NULL,
            "\"train.lr\" stands in a file as {\"train\": {\"lr\": ...}}");
    REFUSED("{\"completely_else\": 1}", NULL, "unknown key \"completely_else\"");
    REFUSED("{}", (char[]){"train.stepz=3"},
            "unknown key \"train.stepz\", did you mean \"train.steps\"?");
}

static void values_out_of_range_are_shown_with_the_range(void **state) {
    (void)state;
    REFUSED("{\"train\": {\"k\": 17}}", NULL, "train.k is 17, allowed 1 to 16");
    REFUSED("{\"train\": {\"lr\": -0.5}}", NULL, "train.lr is -0.5, allowed 0 to 1");
    REFUSED("{}", (char[]){"train.k=0"}, "train.k is 0, allowed 1 to 16");
    REFUSED("{}", (char[]){"train.k=99999999999999999999"}, "expected an integer");
    REFUSED("{}", (char[]){"train.loss=kl"}, "train.loss is \"kl\"", "fkl|ce_argmax");
    REFUSED("{}", (char[]){"runtime.device=gpu"}, "runtime.device is \"gpu\"", "cuda");
    REFUSED("{}", (char[]){"export.to=hf,gguf"}, "export.to is \"gguf\"", "hf|mlx|mlx:*");
}

static void wrong_types_are_named(void **state) {
    (void)state;
    REFUSED("{\"train\": {\"k\": 1.5}}", NULL, "train.k is 1.5, expected an integer");
    REFUSED("{\"train\": {\"k\": null}}", NULL, "train.k is null, expected an integer");
    REFUSED("{\"train\": {\"lr\": \"x\"}}", NULL, "train.lr is \"x\", expected a number");
    REFUSED("{\"train\": {\"stream\": 1}}", NULL, "expected true or false");
    REFUSED("{\"data\": {\"train\": \"a\"}}", NULL,
            "data.train is \"a\", expected an array of strings");
    REFUSED("{\"data\": {\"train\": [\"a\", 2]}}", NULL, "expected an array of strings");
    REFUSED("{\"train\": 3}", NULL, "\"train\" must be an object");
    REFUSED("[]", NULL, "not a JSON object");
    REFUSED("{", NULL, "demo.json", "not valid JSON");
    REFUSED("{}", (char[]){"train.lr=nan"}, "train.lr is \"nan\", expected a number");
    REFUSED("{}", (char[]){"train.lr=0,5"}, "train.lr is \"0,5\"");
    REFUSED("{}", (char[]){"train.stream=yes"}, "expected true or false");
    REFUSED("{}", (char[]){"data.train=a,,b"}, "data.train has an empty item");
    REFUSED("{}", (char[]){"data.train=a,"}, "data.train ends with a comma");
}

static void settings_must_fit_together(void **state) {
    (void)state;
    REFUSED("{\"regenerate\": {\"samples\": 4}}", NULL, "regenerate.samples is 4",
            "temperature is 0");
    REFUSED("{\"regenerate\": {\"held_out\": \"sampled\"}}", NULL, "regenerate.held_out is sampled",
            "temperature is 0");
    REFUSED("{\"eval\": {\"draft_tokens\": 4, \"select_k\": 5}}", NULL,
            "eval.select_k is 5, eval.draft_tokens only 4");
    REFUSED("{}", (char[]){"output_dir="}, "output_dir is empty");
}

static void later_overrides_win_over_file_and_defaults(void **state) {
    (void)state;
    Err err = {0};
    Settings s;
    char *over[] = {(char[]){"train.lr=0.25"},        (char[]){"lr=0.5"},
                    (char[]){"data.train=a,b"},       (char[]){"data.eval="},
                    (char[]){"train.stream=true"},    (char[]){"data.template=large-2026-04"},
                    (char[]){"runtime.device=cuda:1"}};
    const char *path =
        config("{\"train\": {\"lr\": 0.125, \"clip\": 2}, \"data\": {\"eval\": [\"e\"]},"
               " \"export\": {\"to\": [\"mlx\"]}}");
    assert_ok(settings_load(&s, path, over, 7, &err), err);
    assert_true(s.train.lr == 0.5 && s.train.clip == 2.0 && s.train.beta1 == 0.9);
    assert_true(s.train.stream);
    assert_int_equal(s.data.train.n, 2);
    assert_string_equal(s.data.train.item[1], "b");
    assert_int_equal(s.data.eval.n, 0);
    assert_string_equal(s.data.chat_template, "large-2026-04");
    assert_int_equal(s.export_.to.n, 1);
    assert_string_equal(s.runtime.device, "cuda:1");
    settings_free(&s);
}

static void the_resolved_configuration_loads_to_itself(void **state) {
    (void)state;
    Err err = {0};
    Settings s, t;
    char path[PATH_ROOM];
    char *over[] = {(char[]){"train.lr=0.00123456789"}, (char[]){"train.eps=1e-12"},
                    (char[]){"train.freeze=a*,b"}};
    assert_ok(settings_load(&s, NULL, over, 3, &err), err);
    assert_string_equal(s.output_dir, "runs/demo"); // NULL: the built-in demo
    json_t *o = settings_json(&s);
    path_join(path, test_dir(), "config.json");
    assert_ok(json_write_file(path, o, &err), err);
    assert_ok(settings_load(&t, path, NULL, 0, &err), err);
    json_t *p = settings_json(&t);
    assert_true(json_equal(o, p));
    assert_true(t.train.lr == 0.00123456789 && t.train.eps == 1e-12);
    assert_non_null(json_object_get(json_object_get(o, "data"), "template"));
    json_decref(o);
    json_decref(p);
    settings_free(&s);
    settings_free(&t);
}

static void every_default_lies_in_its_own_range(void **state) {
    (void)state;
    Err err = {0};
    Settings s;
    assert_ok(settings_load(&s, config("{}"), NULL, 0, &err), err);
    settings_free(&s);
    for (int i = 0; i < settings_field_count; i++)
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(settings_fields[i].name, settings_fields[j].name);
            assert_int_not_equal(settings_fields[i].offset, settings_fields[j].offset);
        }
}

static void short_names_must_be_unique(void **state) {
    (void)state;
    Err err = {0};
    char full[96];
    assert_ok(settings_find("lr", full, &err), err);
    assert_string_equal(full, "train.lr");
    assert_ok(settings_find("adapter-path", full, &err), err);
    assert_string_equal(full, "model.adapter_path");
    assert_ok(settings_find("output_dir", full, &err), err);
    assert_false(settings_find("seed", full, &err));
    assert_string_equal(err.text, "\"seed\" is ambiguous: \"data.seed\" or \"train.seed\"?");
    err = (Err){0};
    assert_false(settings_find("wramup", full, &err));
    assert_string_equal(err.text, "unknown key \"wramup\", did you mean \"train.warmup\"?");
}

// The resolved configuration is JSON: what it cannot hold would be missing from it without a word.
static void text_that_is_not_utf8_is_refused(void **state) {
    (void)state;
    char *const given[] = {"output_dir=runs/caf\xe9", "data.train=a.jsonl,\xff", "train.lr=\x80"};
    const char *const said[] = {"output_dir is \"runs/caf?\", which is not UTF-8",
                                "data.train is \"a.jsonl,?\", which is not UTF-8",
                                "train.lr is \"?\", which is not UTF-8"};
    for (int i = 0; i < 3; i++) {
        Err err = {0};
        Settings s;
        assert_false(settings_load(&s, NULL, &given[i], 1, &err));
        assert_int_equal(err.code, ERR_USAGE);
        assert_string_equal(err.text, said[i]);
    }
}

static void a_missing_file_is_a_usage_error(void **state) {
    (void)state;
    Err err = {0};
    Settings s;
    assert_false(settings_load(&s, "/nonexistent/x.json", NULL, 0, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "config /nonexistent/x.json"));
}

static void edit_distance_counts_edits(void **state) {
    (void)state;
    assert_int_equal(edit_distance("kitten", "sitting"), 3);
    assert_int_equal(edit_distance("abc", "acb"), 1);
    assert_int_equal(edit_distance("", "abc"), 3);
    assert_int_equal(edit_distance("same", "same"), 0);
}

static void help_lists_every_setting(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    settings_help(f, NULL);
    fclose(f);
    for (int i = 0; i < settings_field_count; i++)
        assert_non_null(strstr(text, settings_fields[i].name));
    free(text);
    f = open_memstream(&text, &n);
    settings_help(f, "capture");
    fclose(f);
    assert_non_null(strstr(text, "capture.chunk"));
    assert_null(strstr(text, "train.lr"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_keys_are_named_with_the_nearest),
        cmocka_unit_test(values_out_of_range_are_shown_with_the_range),
        cmocka_unit_test(wrong_types_are_named),
        cmocka_unit_test(settings_must_fit_together),
        cmocka_unit_test(later_overrides_win_over_file_and_defaults),
        cmocka_unit_test(the_resolved_configuration_loads_to_itself),
        cmocka_unit_test(every_default_lies_in_its_own_range),
        cmocka_unit_test(short_names_must_be_unique),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
        cmocka_unit_test(a_missing_file_is_a_usage_error),
        cmocka_unit_test(edit_distance_counts_edits),
        cmocka_unit_test(help_lists_every_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
