// tests/data/prepare_show_test.c - `prepare --show`: the rendered sample, and what is learned from.
#include <unistd.h>

#include "data/prepare_cmd.h"
#include "infer/base/log.h"
#include "tests/data/prepare_helper.h"

// What the verb prints with these settings.
static char *shown(const char *rows, int n, const char *const *more) {
    static char out[1 << 14];
    char path[PATH_ROOM];
    Err err = {0};
    Cli cli = {.verb = "prepare", .s = settings(save("t.jsonl", rows), NULL, more), .show = n};
    fflush(stdout);
    const int saved = dup(STDOUT_FILENO);
    assert_non_null(freopen(path_join(path, test_dir(), "shown"), "w", stdout));
    const bool ok = prepare_verb.run(&cli, &err);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    assert_ok(ok, err);
    assert_false(dir_exists(cli.s.output_dir)); // nothing is written
    size_t size;
    char *text = file_read(path, sizeof out - 1, &size, &err);
    assert_ok(text, err);
    strcpy(out, text);
    free(text);
    settings_free(&cli.s);
    return out;
}

static const char ROW[] =
    "{\"id\":\"a\",\"category\":\"tool\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi "
    "<turn|>\"},"
    "{\"role\":\"assistant\",\"reasoning\":\"hm\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
    "\"arguments\":{\"k\":\"v\"}}}]},{\"role\":\"tool\",\"content\":\"r\"},"
    "{\"role\":\"assistant\",\"content\":\"Yo\"}]}\n";

static void a_given_answer_is_marked_by_kind(void **state) {
    (void)state;
    const char *more[] = {"model.target_path=" TARGET, "regenerate.answers=reference",
                          "data.turns=every", "data.dev_fraction=0", NULL};
    const char *text = shown(ROW, 1, more);
    static const char *const want[] = {
        "=== a  category tool  source t.jsonl  ",
        "\n--- context, ",
        "Hi <turn|><turn|>\n",
        "\n+++ channel, ",
        "\n<|channel>thought\n",
        "\n+++ thought, ",
        "\nhm\n",
        "\n+++ call, ",
        "\n<|tool_call>call:f{k:<|\"|>v<|\"|>}<tool_call|><|tool_response>\n",
        "\n--- context, ",
        "\nresponse:f{value:<|\"|>r<|\"|>}<tool_response|>\n",
        "\n+++ model, ",
        "\nYo<turn|>\n"};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const char *at = strstr(text, want[i]);
        if (!at) fail_msg("\"%s\" is not in or not behind it:\n%s", want[i], text);
        text = at + 1;
    }
}

static void what_is_to_be_answered_is_said(void **state) {
    (void)state;
    const char *more[] = {"model.target_path=" TARGET, "data.turns=every", "data.dev_fraction=0",
                          NULL};
    const char *text = shown(ROW, 1, more);
    assert_non_null(strstr(text, " 0 supervised"));
    const char *first = strstr(text, "??? the target's answer\n--- then behind the recorded calls");
    if (!first || !strstr(first + 1, "??? the target's answer")) fail_msg("%s", text);
}

static void as_many_are_shown_as_asked_for(void **state) {
    (void)state;
    char rows[4096], *at = rows, id[16];
    for (int i = 0; i < 5; i++) {
        snprintf(id, sizeof id, "q%d", i);
        at = item(at, id, id, NULL);
    }
    const char *more[] = {"model.target_path=" TARGET, NULL};
    const char *text = shown(rows, 3, more);
    int n = 0;
    for (const char *p = text; (p = strstr(p, "=== q")) != NULL; p++) n++;
    assert_int_equal(n, 3);
}

int main(void) {
    log_set_quiet(true);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_given_answer_is_marked_by_kind),
        cmocka_unit_test(what_is_to_be_answered_is_said),
        cmocka_unit_test(as_many_are_shown_as_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
