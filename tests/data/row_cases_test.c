// tests/data/row_cases_test.c - recorded conversations, read as rows, still render as the templates
// rendered the originals.
#include <stdlib.h>
#include <string.h>

#include "data/row.h"
#include "infer/text/chat.h"
#include "infer/text/tokenizer_file.h"
#include "tests/testing.h"

typedef struct {
    int same, skipped, refused, mended;
} Tally;

static bool is_one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (!strcmp(name, *list)) return true;
    return false;
}

// What rows do not take, although a template does.
static const char *const refused[] = {"unknown role",
                                      "tool message without a call",
                                      "parts unknown type",
                                      "no messages",
                                      "no messages with tools",
                                      "message without content key",
                                      NULL};
// What a template refuses, or prints as text, and rows bring into a form it takes.
static const char *const mended[] = {"call + tool mapping", "arguments as JSON string",
                                     "call + tool name unresolved", NULL};
// Its responses become messages: only a prompt behind the finished answer would look different.
static const char *const apart[] = {"legacy tool_responses", NULL};

static bool on(const json_t *c, const char *key) {
    return json_is_true(json_object_get(json_object_get(c, "options"), key));
}

static char *rendered(const json_t *c, const Row *r, Err *err) {
    ChatOptions opt = {.generation_prompt = on(c, "add_generation_prompt"),
                       .thinking = on(c, "enable_thinking"),
                       .preserve_thinking = on(c, "preserve_thinking")};
    size_t size;
    const char *chat = json_string_value(json_object_get(c, "template"));
    assert_ok(chat_template_load(&opt.tmpl, "", chat, err), *err);
    json_t *messages = row_rendered(r, json_array_size(r->messages));
    char *text = chat_render(messages, r->tools, opt, &size, err);
    json_decref(messages);
    return text;
}

static void check(const json_t *c, Tally *tally) {
    const char *name = json_string_value(json_object_get(c, "name"));
    const char *want = json_string_value(json_object_get(c, "rendered"));
    json_t *row =
        json_pack("{s:O, s:O}", "messages", json_object_get(c, "messages"), "tools",
                  json_object_get(c, "tools") ? json_object_get(c, "tools") : json_null());
    const CorpusLine line = {.value = row, .where = "case"};
    Err err = {0};
    Row r;
    const RowVerdict verdict = row_read(&r, &line, &(RowOptions){0}, &err);
    char *text = verdict == ROW_READ ? rendered(c, &r, &err) : NULL;
    if (verdict == ROW_MEDIA) {
        tally->skipped++;
    } else if (verdict == ROW_REFUSED) {
        if (want && !is_one_of(name, refused)) fail_msg("%s: %s", name, err.text);
        tally->refused++;
    } else if (text && want && !strcmp(text, want)) {
        tally->same++;
    } else if (is_one_of(name, mended) || is_one_of(name, apart)) {
        if (!text) fail_msg("%s: %s", name, err.text);
        tally->mended++;
    } else if (text || want) {
        fail_msg("%s\n%s\n--- instead of\n%s", name, text ? text : err.text, want ? want : "-");
    }
    free(text);
    row_free(&r);
    json_decref(row);
}

static void rows_render_as_their_originals(void **state) {
    (void)state;
    Err err = {0};
    size_t size;
    Tally tally = {0};
    char *all = unpacked_read(test_golden("tokenizer/chat-cases.jsonl.zst"), 1 << 28, &size, &err);
    assert_ok(all, err);
    for (char *p = all, *stop; p < all + size; p = stop + 1) {
        stop = memchr(p, '\n', (size_t)(all + size - p));
        json_t *c = chat_json_read(p, (size_t)(stop - p), &err);
        assert_ok(c, err);
        check(c, &tally);
        json_decref(c);
    }
    printf("compared: %d render alike, %d mended, %d refused, %d with media\n", tally.same,
           tally.mended, tally.refused, tally.skipped);
    assert_true(tally.same > 50 && tally.mended > 0 && tally.refused > 0 && tally.skipped > 0);
    free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_render_as_their_originals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
