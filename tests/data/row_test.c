// tests/data/row_test.c - every shape of a row, and every refusal with its words.
#include <stdlib.h>
#include <string.h>

#include "data/row.h"
#include "infer/text/chat_json.h"
#include "tests/testing.h"

typedef struct {
    const char *row, *want;
} Case;

// "id [category] text" of what was read: messages and tools as JSON, a text, ids and mask; else
// "media: why" or "refused: why".
static char *told(const char *text, const RowOptions *opt) {
    static char out[4096];
    Err err = {0};
    CorpusLine line = {.line = 7, .where = "x.jsonl:7"};
    Row row;
    line.value = chat_json_read(text, strlen(text), &err);
    if (!line.value) fail_msg("%s: %s", text, err.text);
    const RowVerdict verdict = row_read(&row, &line, opt, &err);
    if (verdict != ROW_READ) {
        assert_int_equal(err.code, ERR_INPUT);
        snprintf(out, sizeof out, "%s: %s", verdict == ROW_MEDIA ? "media" : "refused", err.text);
    } else {
        char *messages = json_dumps(row.messages, JSON_COMPACT);
        char *tools = row.tools ? json_dumps(row.tools, JSON_COMPACT) : NULL;
        snprintf(out, sizeof out, "%s [%s]%s%s %s%s%s", row.id, row.category,
                 row.reasoned ? " reasoned" : "", row.unanswered ? " unanswered" : "",
                 row.form == ROW_CHAT   ? messages
                 : row.form == ROW_TEXT ? row.text
                                        : "ids",
                 tools ? " tools " : "", tools ? tools : "");
        free(messages);
        free(tools);
    }
    row_free(&row);
    json_decref(line.value);
    return out;
}

static void check(const Case *c, size_t n) {
    const RowOptions opt = {0};
    for (size_t i = 0; i < n; i++) {
        const char *got = told(c[i].row, &opt);
        if (strcmp(got, c[i].want) != 0)
            fail_msg("%s\n  gives %s\n  not   %s", c[i].row, got, c[i].want);
    }
}
#define CHECK_CASES(cases) check(cases, sizeof cases / sizeof *(cases))

#define HI "{\"role\":\"user\",\"content\":\"Hi\"}"
#define YO "{\"role\":\"assistant\",\"content\":\"Yo\"}"

static void every_shape_is_found_from_its_keys(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"messages\":[" HI "," YO "]}", "x.jsonl:7 [] [" HI "," YO "]"},
        {"{\"conversations\":[" HI "," YO "],\"score\":3}", "x.jsonl:7 [] [" HI "," YO "]"},
        {"{\"id\":\"a\",\"conversations\":[{\"from\":\"system\",\"value\":\"S\"},"
         "{\"from\":\"human\",\"value\":\"Hi\"},{\"from\":\"gpt\",\"value\":\"Yo\"}]}",
         "a [] [{\"role\":\"system\",\"content\":\"S\"}," HI "," YO "]"},
        {"{\"conversations\":[{\"from\":\"user\",\"value\":\"Hi\"},"
         "{\"from\":\"assistant\",\"value\":\"Yo\"}]}",
         "x.jsonl:7 [] [" HI "," YO "]"},
        {"{\"messages\":[{\"role\":\"developer\",\"content\":\"D\"}," HI
         ",{\"role\":\"model\",\"content\":\"Yo\"}]}",
         "x.jsonl:7 [] [{\"role\":\"developer\",\"content\":\"D\"}," HI "," YO "]"},
        {"{\"prompt\":\"Hi\"}", "x.jsonl:7 [] [" HI "]"},
        {"{\"prompt\":\"Hi\",\"completion\":\"Yo\"}", "x.jsonl:7 [] [" HI "," YO "]"},
        {"{\"prompt\":[" HI "],\"completion\":[" YO "]}", "x.jsonl:7 [] [" HI "," YO "]"},
        {"{\"text\":\"<bos>t\"}", "x.jsonl:7 [] <bos>t"},
        {"{\"input_ids\":[1,2],\"loss_mask\":[0,1]}", "x.jsonl:7 [] ids"},
        {"{\"messages\":null,\"prompt\":\"Hi\",\"text\":\"not this\"}", "x.jsonl:7 [] [" HI "]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]}]}",
         "x.jsonl:7 [] [{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]}]"},
    };
    CHECK_CASES(cases);
}

static void suites_have_turns_names_and_categories(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"question_id\":81,\"category\":\"writing\",\"turns\":[\"One\",\"Two\"]}",
         "81 [writing] unanswered [{\"role\":\"user\",\"content\":\"One\"},"
         "{\"role\":\"assistant\",\"content\":\"-\"},{\"role\":\"user\",\"content\":\"Two\"}]"},
        {"{\"question_id\":\"q\",\"category\":\"code\",\"sub_category\":\"C\",\"turns\":[\"One\"]}",
         "q [code/C] unanswered [{\"role\":\"user\",\"content\":\"One\"}]"},
        {"{\"id\":\"m1\",\"prompt\":\"Hi\",\"category\":3}", "m1 [3] [" HI "]"},
        {"{\"prompt_id\":\"p\",\"messages\":[" HI "]}", "p [] [" HI "]"},
    };
    CHECK_CASES(cases);
}

static void keys_of_completions_can_be_named(void **state) {
    (void)state;
    const RowOptions opt = {.prompt_key = "question", .completion_key = "answer"};
    assert_string_equal(told("{\"question\":\"Hi\",\"answer\":\"Yo\",\"prompt\":\"no\"}", &opt),
                        "x.jsonl:7 [] [" HI "," YO "]");
    assert_non_null(strstr(told("{\"prompt\":\"Hi\"}", &opt), "none of messages"));
}

#define F(args) "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":" args "}}"
#define CALLED(args) "{\"function\":{\"name\":\"f\",\"arguments\":" args "}}"

static void calls_have_names_and_arguments_that_are_objects(void **state) {
    (void)state;
#define ROW(call) "{\"messages\":[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" call "]}]}"
#define WANT(call) "x.jsonl:7 [] [" HI ",{\"role\":\"assistant\",\"tool_calls\":[" call "]}]"
    static const Case cases[] = {
        {ROW(F("{\"a\":1}")), WANT(CALLED("{\"a\":1}"))},
        {ROW(F("\"{\\\"a\\\":1}\"")), WANT(CALLED("{\"a\":1}"))},
        {ROW(F("\"\"")), WANT(CALLED("{}"))},
        {ROW(F("null")), WANT(CALLED("{}"))},
        {ROW(F("\"null\"")), WANT(CALLED("{}"))},
        {ROW("{\"name\":\"f\",\"arguments\":{\"a\":1}}"), WANT(CALLED("{\"a\":1}"))},
        {ROW(F("\"[1]\"")), "refused: messages[1].tool_calls[0] has arguments that are no JSON "
                            "object"},
        {ROW(F("7")), "refused: messages[1].tool_calls[0] has arguments that are no JSON object"},
        {ROW("{\"function\":{}}"), "refused: messages[1].tool_calls[0] has no function name"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":{}}]}",
         "refused: messages[0].tool_calls is not a list"},
    };
    CHECK_CASES(cases);
    const RowOptions opt = {0};
    assert_non_null(strstr(told(ROW(F("\"{oops\"")), &opt),
                           "has arguments that are no JSON object: not valid JSON at column "));
#undef ROW
#undef WANT
}

// Tool messages get the name of the call they answer; text beside calls follows the responses.
static void responses_follow_their_calls_by_name(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"messages\":[" HI ",{\"role\":\"assistant\",\"content\":\"Wait\",\"tool_calls\":["
         "{\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":{}}},"
         "{\"id\":\"2\",\"function\":{\"name\":\"g\",\"arguments\":{}}}]},"
         "{\"role\":\"tool\",\"tool_call_id\":\"2\",\"content\":{\"r\":2}},"
         "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"one\"}," YO "]}",
         "x.jsonl:7 [] [" HI ",{\"role\":\"assistant\",\"tool_calls\":["
         "{\"function\":{\"name\":\"f\",\"arguments\":{}},\"id\":\"1\"},"
         "{\"function\":{\"name\":\"g\",\"arguments\":{}},\"id\":\"2\"}],"
         "\"content\":\"Wait\"},"
         "{\"role\":\"tool\",\"name\":\"g\",\"content\":{\"r\":2}},"
         "{\"role\":\"tool\",\"name\":\"f\",\"content\":\"one\"}," YO "]"},
        {"{\"messages\":[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" F(
             "{}") "]},"
                   "{\"role\":\"tool\",\"name\":\"h\",\"tool_call_id\":\"9\",\"content\":["
                   "{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}]}",
         "x.jsonl:7 [] [" HI ",{\"role\":\"assistant\",\"tool_calls\":[" CALLED(
             "{}") "]},"
                   "{\"role\":\"tool\",\"name\":\"h\",\"content\":\"ab\"}]"},
        {"{\"messages\":[" HI ",{\"role\":\"assistant\",\"content\":\"Ok\",\"tool_calls\":[" F(
             "{}") "],\"tool_responses\":[{\"name\":\"f\",\"response\":{\"a\":1}},"
                   "{\"response\":null}]}]}",
         "x.jsonl:7 [] [" HI ",{\"role\":\"assistant\",\"tool_calls\":[" CALLED(
             "{}") "]},"
                   "{\"role\":\"tool\",\"name\":\"f\",\"content\":{\"a\":1}},"
                   "{\"role\":\"tool\",\"name\":\"unknown\",\"content\":null},"
                   "{\"role\":\"assistant\",\"content\":\"Ok\"}]"},
        // nobody answers: text and calls stay together
        {"{\"messages\":[" HI
         ",{\"role\":\"assistant\",\"content\":\"Ok\",\"tool_calls\":[" F("{}") "]}," HI "]}",
         "x.jsonl:7 [] [" HI
         ",{\"role\":\"assistant\",\"tool_calls\":[" CALLED("{}") "],"
                                                                  "\"content\":\"Ok\"}," HI "]"},
        {"{\"messages\":[" HI "," YO ",{\"role\":\"tool\",\"content\":\"r\"}]}",
         "refused: messages[2] (tool) answers no call: none stands before it"},
        {"{\"messages\":[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" F(
             "{}") "]}," HI ",{\"role\":\"tool\",\"content\":\"r\"}]}",
         "refused: messages[3] (tool) answers no call: none stands before it"},
    };
    CHECK_CASES(cases);
}

static void reasoning_has_one_name_and_can_be_dropped(void **state) {
    (void)state;
    static const char row[] = "{\"messages\":[" HI ",{\"role\":\"assistant\",\"content\":\"Yo\","
                              "\"reasoning_content\":\"hm\"}]}";
    static const Case cases[] = {
        {row, "x.jsonl:7 [] reasoned [" HI ",{\"role\":\"assistant\",\"reasoning\":\"hm\","
              "\"content\":\"Yo\"}]"},
        {"{\"messages\":[" HI ",{\"role\":\"assistant\",\"content\":\"Yo\",\"thinking\":\"\","
         "\"reasoning\":null}]}",
         "x.jsonl:7 [] [" HI "," YO "]"},
        {"{\"messages\":[" HI ",{\"role\":\"assistant\",\"content\":\"Yo\",\"reasoning\":[1]}]}",
         "refused: messages[1].reasoning is not a text"},
    };
    CHECK_CASES(cases);
    const RowOptions off = {.drop_reasoning = true};
    assert_string_equal(told(row, &off), "x.jsonl:7 [] [" HI "," YO "]");
}

static void tools_are_a_list_or_the_text_of_one(void **state) {
    (void)state;
#define TOOL "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"
    static const Case cases[] = {
        {"{\"messages\":[" HI "],\"tools\":[" TOOL "]}", "x.jsonl:7 [] [" HI "] tools [" TOOL "]"},
        {"{\"messages\":[" HI "],\"tools\":[{\"name\":\"f\"}]}",
         "x.jsonl:7 [] [" HI "] tools [" TOOL "]"},
        {"{\"messages\":[" HI "],\"tools\":\"[{\\\"name\\\":\\\"f\\\"}]\"}",
         "x.jsonl:7 [] [" HI "] tools [" TOOL "]"},
        {"{\"messages\":[" HI "],\"tools\":\"\"}", "x.jsonl:7 [] [" HI "]"},
        {"{\"messages\":[" HI "],\"tools\":\"null\"}", "x.jsonl:7 [] [" HI "]"},
        {"{\"messages\":[" HI "],\"tools\":{}}", "refused: \"tools\" is not a list"},
        {"{\"messages\":[" HI "],\"tools\":\"{}\"}", "refused: \"tools\" is not a list"},
    };
    CHECK_CASES(cases);
#undef TOOL
}

static void media_are_told_from_what_is_unknown(void **state) {
    (void)state;
#define PART(part) "{\"messages\":[{\"role\":\"user\",\"content\":[" part "]}]}"
    static const Case cases[] = {
        {PART("{\"type\":\"image_url\",\"image_url\":{}}"),
         "media: messages[0].content[0] is an image"},
        {PART("{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"input_audio\"}"),
         "media: messages[0].content[1] is sound"},
        {PART("{\"type\":\"video\"}"), "media: messages[0].content[0] is video"},
        {PART("{\"type\":\"file\"}"),
         "refused: messages[0].content[0] has the unknown type \"file\""},
        {PART("{\"type\":\"text\"}"), "refused: messages[0].content[0] has no text"},
        {PART("\"a\""), "refused: messages[0].content[0] is not a part with a type"},
        {"{\"messages\":[" HI "],\"images\":[\"a.png\"]}", "media: \"images\" holds images"},
        {"{\"messages\":[" HI "],\"image\":\"a.png\"}", "media: \"image\" holds an image"},
        {"{\"messages\":[" HI "],\"images\":[]}", "x.jsonl:7 [] [" HI "]"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"images\":[\"b\"]}]}",
         "media: messages[0] holds images"},
        {"{\"messages\":[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" F(
             "{}") "]},"
                   "{\"role\":\"tool\",\"content\":[{\"type\":\"image\"}]}]}",
         "media: messages[2].content[0] is an image"},
    };
    CHECK_CASES(cases);
#undef PART
    CorpusLine line = {.where = "a.tar(1.json)", .media = true};
    Err err = {0};
    Row row;
    line.value = chat_json_read("{\"prompt\":\"a\"}", 14, &err);
    assert_int_equal(row_read(&row, &line, &(RowOptions){0}, &err), ROW_MEDIA);
    assert_string_equal(row.id, "a.tar(1.json)");
    row_free(&row);
    json_decref(line.value);
}

static void what_is_no_conversation_is_refused_by_name(void **state) {
    (void)state;
    static const Case cases[] = {
        {"{\"a\":1}", "refused: no shape that is known: none of messages, conversations, turns, "
                      "input_ids, prompt, text"},
        {"{\"messages\":[]}", "refused: no messages in it"},
        {"{\"messages\":\"text\"}", "refused: \"messages\" is not a list"},
        {"{\"conversations\":{}}", "refused: \"conversations\" is not a list"},
        {"{\"messages\":[1]}", "refused: messages[0] is not an object"},
        {"{\"messages\":[{\"content\":\"a\"}]}", "refused: messages[0] has no role"},
        {"{\"messages\":[" HI ",{\"role\":\"critic\",\"content\":\"a\"}]}",
         "refused: messages[1] has the unknown role \"critic\""},
        {"{\"conversations\":[{\"from\":\"bard\",\"value\":\"a\"}]}",
         "refused: conversations[0] has the unknown role \"bard\""},
        {"{\"messages\":[{\"role\":\"user\"}]}", "refused: messages[0] (user) has no content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":3}]}",
         "refused: messages[0] (user) has content that is neither a text nor a list of parts"},
        {"{\"turns\":[\"a\",2]}", "refused: turns[1] is not a text"},
        {"{\"prompt\":3}", "refused: \"prompt\" is neither a text nor a list of messages"},
        {"{\"prompt\":\"a\",\"completion\":3}",
         "refused: \"completion\" is neither a text nor a list of messages"},
        {"{\"input_ids\":3}", "refused: \"input_ids\" is not a list"},
        {"{\"input_ids\":[1,2],\"loss_mask\":[1]}",
         "refused: \"loss_mask\" has 1 entries, \"input_ids\" 2"},
        {"{\"id\":[],\"messages\":[" HI "]}", "refused: \"id\" is neither a text nor a number"},
    };
    CHECK_CASES(cases);
}

static void long_names_stay_different(void **state) {
    (void)state;
    char row[2][512], name[2][256];
    const RowOptions opt = {0};
    for (int i = 0; i < 2; i++) {
        snprintf(row[i], sizeof row[i], "{\"id\":\"%0200d%d\",\"prompt\":\"a\"}", 0, i);
        snprintf(name[i], sizeof name[i], "%s", told(row[i], &opt));
        assert_int_equal(strcspn(name[i], " "), 127);
    }
    assert_string_not_equal(name[0], name[1]);
}

static void rendered_messages_carry_the_responses(void **state) {
    (void)state;
    static const char row[] = "{\"messages\":[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" F(
        "{}") "]},"
              "{\"role\":\"tool\",\"content\":{\"a\":1}},{\"role\":\"tool\",\"content\":\"b\"}," YO
              "]}";
    Err err = {0};
    CorpusLine line = {.where = "x"};
    Row r;
    line.value = chat_json_read(row, strlen(row), &err);
    assert_int_equal(row_read(&r, &line, &(RowOptions){0}, &err), ROW_READ);
    static const char *const want[] = {
        "[]", "[" HI "]", "[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" CALLED("{}") "]}]",
        "[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" CALLED(
            "{}") "],\"tool_responses\":["
                  "{\"name\":\"f\",\"response\":{\"a\":1}}]}]",
        "[" HI ",{\"role\":\"assistant\",\"tool_calls\":[" CALLED(
            "{}") "],\"tool_responses\":["
                  "{\"name\":\"f\",\"response\":{\"a\":1}},{\"name\":\"f\",\"response\":\"b\"}]}]"};
    for (size_t n = 0; n < 5; n++) {
        json_t *m = row_rendered(&r, n);
        char *text = json_dumps(m, JSON_COMPACT);
        assert_string_equal(text, want[n]);
        free(text);
        json_decref(m);
    }
    row_free(&r);
    json_decref(line.value);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_is_found_from_its_keys),
        cmocka_unit_test(suites_have_turns_names_and_categories),
        cmocka_unit_test(keys_of_completions_can_be_named),
        cmocka_unit_test(calls_have_names_and_arguments_that_are_objects),
        cmocka_unit_test(responses_follow_their_calls_by_name),
        cmocka_unit_test(reasoning_has_one_name_and_can_be_dropped),
        cmocka_unit_test(tools_are_a_list_or_the_text_of_one),
        cmocka_unit_test(media_are_told_from_what_is_unknown),
        cmocka_unit_test(what_is_no_conversation_is_refused_by_name),
        cmocka_unit_test(long_names_stay_different),
        cmocka_unit_test(rendered_messages_carry_the_responses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
