// tests/infer/text/chat_unused_test.c - everything the templates pass over is told, nothing they
// write: a change of it changes the rendered text.
#include "infer/text/chat_unused.h"

#include <stdlib.h>
#include <string.h>

#include "tests/testing.h"

static json_t *parsed(const char *text) {
    Err err = {0};
    json_t *v = chat_json_read(text, strlen(text), &err);
    assert_ok(v != NULL, err);
    return v;
}

static void add(void *ctx, const char *what) {
    char *all = ctx;
    if (*all) strcat(all, " | ");
    strcat(all, what);
}

static void assert_unused(ChatTemplate t, const char *messages, const char *want) {
    char got[2048] = "";
    json_t *m = parsed(messages);
    chat_unused(m, 0, t, add, got);
    json_decref(m);
    if (strcmp(got, want) != 0) fail_msg("%s: \"%s\", expected \"%s\"", messages, got, want);
}

static char *rendered(ChatTemplate t, const char *messages) {
    Err err = {0};
    size_t size;
    json_t *m = parsed(messages);
    char *text = chat_render(m, NULL, (ChatOptions){.tmpl = t}, &size, &err);
    assert_ok(text, err);
    json_decref(m);
    return text;
}

// Both render to the same text, so `with` holds something unused, which is named.
static void assert_passed_over(ChatTemplate t, const char *with, const char *without,
                               const char *named) {
    char *a = rendered(t, with), *b = rendered(t, without);
    assert_string_equal(a, b);
    free(a);
    free(b);
    assert_unused(t, with, named);
    assert_unused(t, without, "");
}

#define USER "{\"role\":\"user\",\"content\":\"Hi\"}"
#define CALL "{\"function\":{\"name\":\"f\",\"arguments\":{}}}"

static void what_is_written_is_not_named(void **state) {
    (void)state;
    for (ChatTemplate t = CHAT_SMALL_2026_07; t <= CHAT_LARGE_2026_04; t++) {
        assert_unused(t, "[" USER "]", "");
        assert_unused(t,
                      "[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\","
                      "\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"assistant\","
                      "\"content\":null,\"tool_calls\":[" CALL "],\"reasoning\":\"hm\"},{\"role\":"
                      "\"tool\",\"name\":\"f\",\"tool_call_id\":\"1\",\"content\":\"2\"}]",
                      "");
        assert_unused(t, "[{\"role\":\"user\",\"content\":\"Hi\",\"name\":null,\"weight\":0}]", "");
    }
}

static void what_is_passed_over_is_named(void **state) {
    (void)state;
    for (ChatTemplate t = CHAT_SMALL_2026_07; t <= CHAT_LARGE_2026_04; t++) {
        assert_passed_over(t,
                           "[{\"role\":\"user\",\"content\":\"Hi\",\"function_call\":{\"a\":1}}]",
                           "[" USER "]", "the message key \"function_call\"");
        assert_passed_over(t, "[{\"role\":\"user\",\"content\":\"Hi\",\"name\":\"Ann\"}]",
                           "[" USER "]", "the message key \"name\"");
        assert_passed_over(t, "[{\"role\":\"user\",\"content\":7}]",
                           "[{\"role\":\"user\",\"content\":\"\"}]",
                           "content that is neither a text nor a list of parts");
        assert_passed_over(t,
                           "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"},"
                           "{\"type\":\"document\",\"text\":\"b\"},{\"text\":\"c\"}]}]",
                           "[" USER "]",
                           "content parts of type \"document\" | content parts without a type");
        assert_passed_over(t, "[" USER ",{\"role\":\"tool\",\"content\":\"lost\"}]", "[" USER "]",
                           "tool messages behind no tool call");
        assert_passed_over(
            t,
            "[" USER ",{\"role\":\"assistant\",\"content\":\"a\",\"reasoning\":\"hm\"}," USER "]",
            "[" USER ",{\"role\":\"assistant\",\"content\":\"a\"}," USER "]",
            "the reasoning of earlier turns");
        assert_passed_over(t,
                           "[" USER ",{\"role\":\"model\",\"content\":\"a<|channel>x<channel|>\"}]",
                           "[" USER ",{\"role\":\"model\",\"content\":\"a\"}]",
                           "<|channel> blocks within the text of a model turn");
    }
}

static void templates_differ(void **state) {
    (void)state;
    const char *answer =
        "[" USER ",{\"role\":\"assistant\",\"content\":\"a\",\"reasoning\":\"h\"}]";
    assert_unused(CHAT_LARGE_2026_07, answer, "");
    assert_passed_over(CHAT_LARGE_2026_04, answer,
                       "[" USER ",{\"role\":\"assistant\",\"content\":\"a\"}]",
                       "the reasoning of an answer without tool calls");
    const char *url = "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]";
    assert_unused(CHAT_SMALL_2026_07, url,
                  "images, audio and video: only their placeholders are written");
    assert_passed_over(CHAT_LARGE_2026_04, url, "[{\"role\":\"user\",\"content\":\"\"}]",
                       "content parts of type \"image_url\"");
}

static void names_are_made_printable(void **state) {
    (void)state;
    assert_unused(CHAT_SMALL_2026_07, "[{\"role\":\"user\",\"content\":\"Hi\",\"a\\u001bb\":1}]",
                  "the message key \"a?b\"");
    assert_unused(CHAT_SMALL_2026_07,
                  "[{\"role\":\"user\",\"content\":\"Hi\",\"0123456789012345678"
                  "9012345678901234567890123456789\":1}]",
                  "the message key \"01234567890123456789012345678901234567890123456\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_not_named),
        cmocka_unit_test(what_is_passed_over_is_named),
        cmocka_unit_test(templates_differ),
        cmocka_unit_test(names_are_made_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
