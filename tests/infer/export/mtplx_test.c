// tests/infer/export/mtplx_test.c - the pair bundle: what is in it, what its own check finds, and
// which pairs MTPLX takes.
#include "tests/infer/export/export_run.h"

#include <archive.h>
#include <archive_entry.h>

#include "infer/base/hash.h"
#include "infer/base/log.h"
#include "infer/export/describe.h"
#include "infer/export/mtplx_check.h"
#include "infer/export/tree.h"
#include "infer/text/chat.h"

// Two prompts as `prepare` writes them: plain turns, and one with a token that no text gives.
static void write_samples(const char *path) {
    Err err = {0};
    OutFile f;
    ChatTokens t = {0};
    Tokenizer *tok = tokenizer_load("configs/demo/base-target/tokenizer.json", &err);
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "role", "user", "content",
                                 "Wie viel Platz braucht es?", "role", "assistant", "content",
                                 "933 kB.", "role", "user", "content", "Und die Version?");
    ChatOptions opt = {.generation_prompt = true};
    assert_ok(chat_template_load(&opt.tmpl, "configs/demo/base-target", "auto", &err), err);
    assert_ok(chat_encode(&t, tok, messages, NULL, opt, &err), err);
    assert_ok(out_open(&f, path, &err), err);
    for (int i = 0; i < 2; i++) {
        out_printf(&f, "{\"id\": \"%c\", \"category\": \"short\", \"prompt\": %zu, \"ids\": [2",
                   'a' + i, t.ids.n);
        for (size_t k = 1; k < t.ids.n; k++)
            out_printf(&f, ", %d", i == 1 && k == 5 ? 20 : t.ids.id[k]);
        out_printf(&f, "]}\n");
    }
    assert_ok(out_commit(&f, &err), err);
    json_decref(messages);
    chat_tokens_free(&t);
    tokenizer_free(tok);
}

// The run with everything that a bundle carries: samples of the held-out prompts and eval's file.
static const char *full_run(void) {
    Err err = {0};
    char path[PATH_ROOM];
    const char *out = new_run(0.25, NULL);
    assert_ok(file_write(path_join(path, out, "eval/mtplx.json"), "{\"depths\": []}\n", 15, &err),
              err);
    assert_ok(dir_make(path_join(path, out, "data"), &err), err);
    write_samples(path_join(path, out, "data/eval.jsonl"));
    return out;
}

static const char *bundle(void) { // made once
    static char dir[PATH_ROOM];
    Err err = {0};
    const char *const mtplx[] = {"export.to=mtplx", NULL};
    if (dir[0] != '\0') return dir;
    const char *out = full_run();
    assert_ok(export_to(out, mtplx, &err), err);
    return path_join(dir, out, "export/mtplx");
}

static const json_t *at(const json_t *o, const char *a, const char *b) {
    const json_t *v = json_object_get(json_object_get(o, a), b);
    if (v == NULL) fail_msg("no %s.%s", a, b);
    return v;
}

static void the_marker_says_what_the_bundle_is(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *dir = bundle();
    assert_ok(mtplx_check_bundle(dir, &err), err);
    json_t *m = json_read_file(path_join(path, dir, "mtplx_pair.json"), 1 << 20, &err);
    assert_string_equal(json_string_value(at(m, "layout", "target")), "target");
    assert_string_equal(json_string_value(at(m, "layout", "assistant")), "assistant");
    assert_string_equal(json_string_value(json_object_get(m, "variant")), "quality");
    assert_int_equal(json_integer_value(json_object_get(at(m, "target", "quantization"), "bits")),
                     8);
    assert_int_equal(
        json_integer_value(json_object_get(at(m, "assistant", "quantization"), "group_size")), 64);
    assert_int_equal(json_integer_value(at(m, "benchmark", "block_size")), 7);
    assert_true(json_number_value(at(m, "benchmark", "top_p")) == 0.95);
    assert_true(json_number_value(at(m, "benchmark", "tokens_per_target_step")) == 2.5);
    assert_true(json_is_false(at(m, "provenance", "mtplx_runnable")));
    assert_non_null(strstr(json_string_value(at(m, "provenance", "mtplx_reason")), "hidden_size"));
    assert_int_equal(json_object_size(at(m, "provenance", "sha256")), 2);
    json_decref(m);
    static const char *const FILES[] = {"README.md",
                                        "target/tokenizer.json",
                                        "assistant/tokenizer.json",
                                        "benchmarks/acceptance.json",
                                        "benchmarks/held_out-b7.json",
                                        "target/model.safetensors.index.json",
                                        "assistant/model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++)
        assert_true(file_exists(path_join(path, dir, FILES[i])));
    assert_false(file_exists(path_join(path, dir, "config.json")));
}

static void the_suite_has_the_keys_that_mtplx_reads_and_no_others(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    size_t size;
    const char *dir = bundle();
    char *text = file_read(path_join(path, dir, "benchmarks/held_out.jsonl"), 1 << 20, &size, &err);
    assert_non_null(text);
    json_t *line = json_read_text(text, size, &err); // one: the other is no plain text
    if (line == NULL) fail_msg("%s: %s", err.text, text);
    assert_int_equal(json_object_size(line), 4);
    assert_string_equal(json_string_value(json_object_get(line, "id")), "a");
    assert_string_equal(json_string_value(json_object_get(line, "category")), "short");
    assert_true(json_integer_value(json_object_get(line, "max_tokens")) > 0);
    const json_t *turn = json_array_get(json_object_get(line, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(turn, "role")), "user");
    assert_string_equal(json_string_value(json_object_get(turn, "content")),
                        "Wie viel Platz braucht es?");
    assert_int_equal(json_array_size(json_object_get(line, "messages")), 3);
    json_decref(line);
    free(text);
}

static void damage(const char *command, const char *said) {
    Err err = {0};
    static int count;
    char line[3 * PATH_ROOM], dir[PATH_ROOM], name[32];
    snprintf(name, sizeof name, "damaged%d", count++);
    path_join(dir, test_dir(), name);
    snprintf(line, sizeof line, "cp -r %s %s && cd %s && %s", bundle(), dir, dir, command);
    assert_int_equal(system(line), 0);
    assert_false(mtplx_check_bundle(dir, &err));
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, said) == NULL) fail_msg("\"%s\" is not in \"%s\"", said, err.text);
}

static void the_check_finds_what_is_missing(void **state) {
    (void)state;
    damage("rm -r target", "target: no such folder");
    damage("rm assistant/config.json", "assistant/config.json: missing");
    damage("rm target/tokenizer.json", "tokenizer.json: missing");
    damage("mv target/model.safetensors target/weights.bin", "the index names it");
    damage("echo '[1]' > mtplx_pair.json", "no JSON object");
    damage("cp target/model.safetensors assistant/", "no tensor");
    damage("sed -i 's/\"bits\": 8/\"bits\": 4/' target/config.json", "are not 4 bits");
    damage("sed -i 's/\"num_hidden_layers\": 4/\"num_hidden_layers\": 5/' assistant/config.json",
           "layer");
}

static void inspect_tells_and_checks_a_bundle(void **state) {
    (void)state;
    Err err = {0};
    json_t *o = describe(bundle(), &err);
    if (o == NULL) fail_msg("%s", err.text);
    assert_string_equal(json_string_value(json_object_get(o, "kind")), "bundle");
    assert_true(json_is_true(json_object_get(o, "complete")));
    assert_true(json_is_false(json_object_get(o, "mtplx_runnable")));
    const json_t *count = at(o, "assistant", "quantised_modules");
    assert_int_equal(json_integer_value(json_object_get(count, "Q8 g64")), 22);
    assert_int_equal(json_integer_value(at(o, "assistant", "kept_modules")), 2);
    assert_non_null(strstr(json_string_value(at(o, "target", "quantization")), "affine, 8 bits"));
    json_decref(o);
}

static void configs(const char *dir, const char *target, const char *assistant) {
    Err err = {0};
    char path[PATH_ROOM];
    assert_ok(dir_make(path_join(path, dir, "target"), &err), err);
    assert_ok(dir_make(path_join(path, dir, "assistant"), &err), err);
    path_join(path, dir, "target/config.json");
    assert_ok(file_write(path, target, strlen(target), &err), err);
    path_join(path, dir, "assistant/config.json");
    assert_ok(file_write(path, assistant, strlen(assistant), &err), err);
}

static void the_dense_31b_pair_is_the_one_that_mtplx_takes(void **state) {
    (void)state;
    static const char TARGET[] =
        "{\"model_type\": \"gemma4\", \"text_config\": {\"hidden_size\": 5376, "
        "\"num_hidden_layers\": 60, \"hidden_size_per_layer_input\": 0, \"enable_moe_block\": "
        "false}}";
    static const char ASSISTANT[] =
        "{\"model_type\": \"gemma4_assistant\", \"backbone_hidden_size\": %d, "
        "\"use_ordered_embeddings\": %s, \"text_config\": {\"hidden_size\": 1024, "
        "\"num_hidden_layers\": 4, \"num_kv_shared_layers\": 4, \"layer_types\": "
        "[\"sliding_attention\", \"sliding_attention\", \"sliding_attention\", \"%s\"]}}";
    static const struct {
        int width;
        const char *ordered, *last, *why;
    } CASE[] = {{5376, "false", "full_attention", ""},
                {2816, "false", "full_attention", "backbone_hidden_size is 2816"},
                {5376, "true", "full_attention", "use_ordered_embeddings is 1"},
                {5376, "false", "sliding_attention", "layer_types"}};
    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++) {
        Err err = {0};
        char why[256], text[1024], dir[PATH_ROOM];
        snprintf(text, sizeof text, ASSISTANT, CASE[i].width, CASE[i].ordered, CASE[i].last);
        configs(path_join(dir, test_dir(), "pair"), TARGET, text);
        assert_ok(mtplx_runnable(dir, why, sizeof why, &err), err);
        if (CASE[i].why[0] == '\0')
            assert_string_equal(why, "");
        else if (strstr(why, CASE[i].why) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", CASE[i].why, why);
    }
}

static void other_variants_have_their_widths(void **state) {
    (void)state;
    Err err = {0};
    char path[PATH_ROOM];
    const char *const two[] = {"export.to=mtplx:speed,mtplx:bf16", NULL}, *out = full_run();
    assert_ok(export_to(out, two, &err), err);
    json_t *m =
        json_read_file(path_join(path, out, "export/mtplx-speed/mtplx_pair.json"), 1 << 20, &err);
    assert_string_equal(json_string_value(json_object_get(m, "variant")), "speed");
    assert_int_equal(json_integer_value(json_object_get(at(m, "target", "quantization"), "bits")),
                     4);
    assert_int_equal(
        json_integer_value(json_object_get(at(m, "assistant", "quantization"), "bits")), 6);
    json_decref(m);
    m = json_read_file(path_join(path, out, "export/mtplx-bf16/mtplx_pair.json"), 1 << 20, &err);
    assert_null(json_object_get(json_object_get(m, "target"), "quantization"));
    json_decref(m);
}

// The entry's bytes are those of the file.
static void same_bytes(struct archive *a, const char *path) {
    const void *block;
    size_t size, all;
    la_int64_t at;
    int64_t seen = 0;
    Err err = {0};
    char *file = file_read(path, INT64_C(1) << 30, &all, &err);
    if (file == NULL) fail_msg("%s", err.text);
    while (archive_read_data_block(a, &block, &size, &at) == ARCHIVE_OK) {
        assert_true(at == seen && (size_t)at + size <= all);
        assert_memory_equal(file + at, block, size);
        seen += (int64_t)size;
    }
    assert_int_equal(seen, all);
    free(file);
}

static void holds_the_bundle(const char *path) {
    Err err = {0};
    char file[PATH_ROOM];
    int n = 0;
    struct archive_entry *e;
    struct archive *a = archive_read_new();
    archive_read_support_format_tar(a);
    archive_read_support_format_zip(a);
    assert_int_equal(archive_read_open_filename(a, path, 1 << 16), ARCHIVE_OK);
    char **names = tree_list(bundle(), &n, &err);
    assert_non_null(names);
    assert_true(n > 15);
    for (int i = 0; i < n; i++) {
        assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
        assert_memory_equal(archive_entry_pathname(e), "mtplx/", 6);
        assert_string_equal(archive_entry_pathname(e) + 6, names[i]);
        same_bytes(a, path_join(file, bundle(), names[i]));
    }
    assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_EOF);
    archive_read_free(a);
    dir_list_free(names, n);
}

static void an_archive_holds_the_whole_bundle_in_the_same_bytes(void **state) {
    (void)state;
    static const char *const TAIL[] = {"tar", "zip"};
    Err err = {0};
    char out[PATH_ROOM], path[PATH_ROOM], set[PATH_ROOM + 32], name[16];
    path_join(out, "", bundle());
    out[strlen(out) - strlen("/export/mtplx")] = '\0';
    for (int k = 0; k < 2; k++) {
        Sha256 sha[2];
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "%d.%s", i, TAIL[k]);
            snprintf(set, sizeof set, "export.archive=%s", path_join(path, out, name));
            const char *const more[] = {"export.to=mtplx", set, NULL};
            assert_ok(export_to(out, more, &err), err);
            assert_ok(sha256_file(&sha[i], path, &err), err);
        }
        assert_string_equal(sha[0].hex, sha[1].hex);
        holds_the_bundle(path);
    }
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_marker_says_what_the_bundle_is),
        cmocka_unit_test(the_suite_has_the_keys_that_mtplx_reads_and_no_others),
        cmocka_unit_test(the_check_finds_what_is_missing),
        cmocka_unit_test(the_dense_31b_pair_is_the_one_that_mtplx_takes),
        cmocka_unit_test(other_variants_have_their_widths),
        cmocka_unit_test(inspect_tells_and_checks_a_bundle),
        cmocka_unit_test(an_archive_holds_the_whole_bundle_in_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
