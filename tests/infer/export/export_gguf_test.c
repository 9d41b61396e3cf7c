// tests/infer/export/export_gguf_test.c - the verb with GGUF formats: folder, card, archive, and
// what makes it write again.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/base/settings.h"
#include "infer/export/export_cmd.h"
#include "infer/format/gguf.h"
#include "tests/testing.h"

#define STOCK "configs/demo/stock-assistant"

// An output folder whose best checkpoint is the stock assistant.
static const char *new_run(void) {
    static char out[PATH_ROOM];
    char command[3 * PATH_ROOM];
    path_join(out, test_dir(), "run");
    snprintf(command, sizeof command, "mkdir -p %s/ckpt && cp -r " STOCK " %s/ckpt/best", out, out);
    assert_int_equal(system(command), 0);
    return out;
}

static bool export_with(const char *out, const char *to, const char *more, Err *err) {
    char output[PATH_ROOM + 16], formats[256], last[PATH_ROOM];
    char *set[] = {output, formats, "export.force=true", last};
    snprintf(output, sizeof output, "output_dir=%s", out);
    snprintf(formats, sizeof formats, "export.to=%s", to);
    snprintf(last, sizeof last, "%s", more);
    Cli cli = {.verb = "export"};
    assert_ok(settings_load(&cli.s, NULL, set, 4, err), *err);
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

static Sha256 hash_of(const char *out, const char *file) {
    char path[PATH_ROOM];
    Sha256 sha;
    Err err = {0};
    assert_ok(sha256_file(&sha, path_join(path, out, file), &err), err);
    return sha;
}

static void a_folder_has_its_file_and_a_card_that_names_it(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    char path[PATH_ROOM];
    const char *out = new_run();
    assert_ok(export_with(out, "gguf-ik:Q4_K_M,gguf:Q8_0", "export.name=tuned", &err), err);
    path_join(path, out, "export/gguf-ik-Q4_K_M/mtp-tuned-Q4_K_M.gguf");
    GgufFile *f = gguf_open(path, &err);
    if (f == NULL) fail_msg("%s", err.text);
    assert_int_equal(gguf_count(f), 48);
    gguf_close(f);
    assert_true(file_exists(path_join(path, out, "export/gguf-Q8_0/mtp-tuned-Q8_0.gguf")));
    char *card =
        file_read(path_join(path, out, "export/gguf-Q8_0/README.md"), 1 << 20, &size, &err);
    assert_non_null(card);
    assert_non_null(strstr(card, "library_name: llama.cpp"));
    assert_non_null(strstr(card, "llama-server -m T.gguf -md A.gguf --spec-type draft-mtp "
                                 "--spec-draft-n-max 6"));
    assert_non_null(strstr(card, hash_of(out, "export/gguf-Q8_0/mtp-tuned-Q8_0.gguf").hex));
    // the demo's assistant is as wide as its target: the file is not as it was trained
    assert_non_null(strstr(card,
                           "**Padded.** llama.cpp refuses an assistant as wide as its target, "
                           "and this one is: 256 channels both. The file therefore says 1024."));
    free(card);
    card = file_read(path_join(path, out, "export/gguf-ik-Q4_K_M/README.md"), 1 << 20, &size, &err);
    assert_non_null(card);
    assert_null(strstr(card, "Padded"));
    free(card);
    assert_false(dir_exists(path_join(path, out, "export/gguf-Q8_0.tmp")));
    // the same again is not written again, another name is
    const Sha256 before = hash_of(out, "export/stage.json");
    assert_ok(export_with(out, "gguf-ik:Q4_K_M,gguf:Q8_0", "export.name=tuned", &err), err);
    assert_string_equal(hash_of(out, "export/stage.json").hex, before.hex);
    assert_ok(export_with(out, "gguf-ik:Q4_K_M,gguf:Q8_0", "export.name=other", &err), err);
    assert_true(file_exists(path_join(path, out, "export/gguf-Q8_0/mtp-other-Q8_0.gguf")));
    assert_false(file_exists(path_join(path, out, "export/gguf-Q8_0/mtp-tuned-Q8_0.gguf")));
}

static void an_archive_of_the_same_export_has_the_same_bytes(void **state) {
    (void)state;
    Err err = {0};
    char set[2][PATH_ROOM + 32], archive[PATH_ROOM];
    const char *out = new_run();
    for (int i = 0; i < 2; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.tar", i);
        snprintf(set[i], sizeof set[i], "export.archive=%s", path_join(archive, out, name));
        assert_ok(export_with(out, "gguf:IQ4_NL", set[i], &err), err);
    }
    assert_string_equal(hash_of(out, "0.tar").hex, hash_of(out, "1.tar").hex);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_has_its_file_and_a_card_that_names_it),
        cmocka_unit_test(an_archive_of_the_same_export_has_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
