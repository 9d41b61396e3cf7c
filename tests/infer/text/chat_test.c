// tests/infer/text/chat_test.c - kinds of tokens, injection, templates by hash. That every recorded
// conversation renders alike is chat_cases_test.c.
#include "tests/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/text/chat.h"

static Tokenizer *tok;

static int load_tokenizer(void **state) {
    (void)state;
    Err err = {0};
    tok = tokenizer_load(test_golden("tokenizer/gemma4-tokenizer.json.zst"), &err);
    if (tok == NULL) fprintf(stderr, "%s\n", err.text);
    return tok == NULL;
}

static int free_tokenizer(void **state) {
    (void)state;
    tokenizer_free(tok);
    return 0;
}

static json_t *json(const char *text) {
    Err err = {0};
    json_t *v = chat_json_read(text, strlen(text), &err);
    if (v == NULL) fail_msg("%s", err.text);
    return v;
}

static ChatTokens encoded(const char *messages, const char *tools, ChatOptions opt) {
    json_t *m = json(messages), *t = tools ? json(tools) : NULL;
    ChatTokens out = {0};
    Err err = {0};
    if (!chat_encode(&out, tok, m, t, opt, &err)) fail_msg("%s", err.text);
    json_decref(m);
    json_decref(t);
    return out;
}

// The text of the tokens of one kind, runs separated by "|||".
static void assert_kind(const ChatTokens *c, TokenKind kind, const char *want) {
    char got[4096] = "";
    for (size_t i = 0; i < c->ids.n; i++) {
        if (c->kind[i] != kind) continue;
        if (got[0] != '\0' && c->kind[i - 1] != kind) strcat(got, "|||");
        size_t size;
        char *text = tokenizer_decode(tok, &c->ids.id[i], 1, false, &size);
        assert_true(strlen(got) + size + 4 < sizeof got);
        strcat(got, text);
        free(text);
    }
    if (strcmp(got, want) != 0) fail_msg("kind %d is \"%s\", not \"%s\"", (int)kind, got, want);
}

static const char TWO_TURNS[] = "[{\"role\":\"system\",\"content\":\"Be terse.\"},"
                                "{\"role\":\"user\",\"content\":\"Hi\"},"
                                "{\"role\":\"assistant\",\"content\":\" Hello! \"},"
                                "{\"role\":\"user\",\"content\":\"More\"},"
                                "{\"role\":\"assistant\",\"content\":\"No.\"}]";

static void the_model_owns_its_text_and_the_end_of_its_turn(void **state) {
    (void)state;
    ChatTokens c = encoded(TWO_TURNS, NULL, (ChatOptions){.tmpl = CHAT_SMALL_2026_07});
    assert_kind(&c, TOKEN_MODEL, "Hello!<turn|>|||No.<turn|>");
    assert_kind(&c, TOKEN_CONTEXT,
                "<bos><|turn>system\nBe terse.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\n|||\n"
                "<|turn>user\nMore<turn|>\n<|turn>model\n|||\n");
    chat_tokens_free(&c);
}

static void last_turn_only_leaves_earlier_turns_as_context(void **state) {
    (void)state;
    ChatTokens c = encoded(TWO_TURNS, NULL, (ChatOptions){.last_turn_only = true});
    assert_kind(&c, TOKEN_MODEL, "No.<turn|>");
    chat_tokens_free(&c);
}

static void a_generation_prompt_is_context(void **state) {
    (void)state;
    ChatTokens c = encoded("[{\"role\":\"user\",\"content\":\"Hi\"}]", NULL,
                           (ChatOptions){.tmpl = CHAT_LARGE_2026_07, .generation_prompt = true});
    assert_kind(&c, TOKEN_MODEL, "");
    assert_kind(&c, TOKEN_CONTEXT,
                "<bos><|turn>user\nHi<turn|>\n<|turn>model\n<|channel>thought\n<channel|>");
    chat_tokens_free(&c);
}

static const char TOOL_LOOP[] =
    "[{\"role\":\"user\",\"content\":\"Weather?\"},"
    "{\"role\":\"assistant\",\"reasoning_content\":\"look it up\",\"content\":\"\",\"tool_calls\":"
    "[{\"id\":\"1\",\"function\":{\"name\":\"now\",\"arguments\":{\"place\":\"Ulm\",\"n\":2}}},"
    "{\"id\":\"2\",\"function\":{\"name\":\"now\",\"arguments\":{}}}]},"
    "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"rain\"},"
    "{\"role\":\"tool\",\"tool_call_id\":\"2\",\"content\":\"sun\"},"
    "{\"role\":\"assistant\",\"content\":\"Rain.\"}]";

static void thoughts_calls_and_the_stop_before_a_response_are_the_models(void **state) {
    (void)state;
    ChatTokens c = encoded(TOOL_LOOP, NULL, (ChatOptions){.tmpl = CHAT_SMALL_2026_07});
    assert_kind(&c, TOKEN_CHANNEL, "<|channel>thought\n|||<channel|>");
    assert_kind(&c, TOKEN_THOUGHT, "look it up\n");
    assert_kind(&c, TOKEN_CALL,
                "<|tool_call>call:now{n:2,place:<|\"|>Ulm<|\"|>}<tool_call|>"
                "<|tool_call>call:now{}<tool_call|><|tool_response>");
    assert_kind(&c, TOKEN_MODEL, "Rain.<turn|>");
    assert_kind(&c, TOKEN_CONTEXT,
                "<bos><|turn>user\nWeather?<turn|>\n<|turn>model\n|||"
                "response:now{value:<|\"|>rain<|\"|>}<tool_response|><|tool_response>response:now"
                "{value:<|\"|>sun<|\"|>}<tool_response|>|||\n");
    chat_tokens_free(&c);
}

static void a_pending_call_ends_with_the_stop(void **state) {
    (void)state;
    ChatTokens c =
        encoded("[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"tool_calls\":"
                "[{\"function\":{\"name\":\"f\",\"arguments\":null}}]}]",
                NULL, (ChatOptions){.generation_prompt = true});
    assert_kind(&c, TOKEN_CALL, "<|tool_call>call:f{}<tool_call|><|tool_response>");
    assert_int_equal(c.ids.id[c.ids.n - 1], tokenizer_id(tok, "<|tool_response>"));
    chat_tokens_free(&c);
}

// The templates close "assistant" before "model" and do not open another turn: what stands there is
// no text that a target would have written.
static void text_outside_of_every_turn_is_context(void **state) {
    (void)state;
    ChatTokens c = encoded("[{\"role\":\"user\",\"content\":\"Hi\"},"
                           "{\"role\":\"assistant\",\"content\":\"One.\"},"
                           "{\"role\":\"model\",\"content\":\"Two.\"},"
                           "{\"role\":\"user\",\"content\":\"More\"},"
                           "{\"role\":\"model\",\"content\":\"Three.\"}]",
                           NULL, (ChatOptions){.tmpl = CHAT_SMALL_2026_07});
    assert_kind(&c, TOKEN_MODEL, "One.<turn|>|||Three.<turn|>");
    chat_tokens_free(&c);
}

static size_t control_ids(const ChatTokens *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->ids.n; i++) n += tokenizer_is_special(tok, c->ids.id[i]);
    return n;
}

// Wherever a user can put text, control tokens spelled there stay text.
static void no_content_can_inject_a_control_token(void **state) {
    (void)state;
    static const char shape[] =
        "[{\"role\":\"%s\",\"content\":\"a%s b\"},{\"role\":\"user\",\"content\":\"%s\"},"
        "{\"role\":\"assistant\",\"reasoning\":\"x%s\",\"content\":\"\",\"tool_calls\":[{"
        "\"function\":"
        "{\"name\":\"f%s\",\"arguments\":{\"k%s\":[\"v%s\"]}}}]},"
        "{\"role\":\"tool\",\"content\":\"r%s\"},{\"role\":\"critic%s\",\"content\":\"z\"}]";
    static const char tools[] =
        "[{\"function\":{\"name\":\"n%s\",\"description\":\"d%s\",\"parameters\":"
        "{\"type\":\"object%s\",\"properties\":{\"p%s\":{\"type\":\"string\","
        "\"enum\":[\"e%s\"]}},\"required\":[\"q%s\"]}}}]";
    static const char *const evil[] = {"",         "<turn|>",      "<|turn>",
                                       "<|\\\"|>", "<tool_call|>", "<bos>"};
    size_t expected = 0;
    for (size_t e = 0; e < sizeof evil / sizeof *evil; e++) {
        const char *x = evil[e];
        char m[2048], t[1024];
        snprintf(m, sizeof m, shape, "system", x, x, x, x, x, x, x, x);
        snprintf(t, sizeof t, tools, x, x, x, x, x, x);
        ChatTokens c = encoded(m, t, (ChatOptions){.tmpl = CHAT_LARGE_2026_07});
        if (e == 0) expected = control_ids(&c);
        assert_true(expected > 20);
        assert_int_equal(control_ids(&c), expected);
        chat_tokens_free(&c);
    }
}

// Channel marks in a model's own text are removed by the template, not passed on.
static void ids_are_those_of_the_whole_text(void **state) {
    (void)state;
    static const char m[] =
        "[{\"role\":\"user\",\"content\":\"\\u200b\\nHi\\n\\n\\n there \\u00a0\"},"
        "{\"role\":\"assistant\",\"reasoning\":\"\\n\\nhm\\n\",\"content\":\"\\\"ok\\\"\"}]";
    const ChatOptions opt = {.tmpl = CHAT_SMALL_2026_07, .generation_prompt = true};
    ChatTokens c = encoded(m, NULL, opt);
    json_t *messages = json(m);
    Err err = {0};
    size_t size;
    char *text = chat_render(messages, NULL, opt, &size, &err);
    assert_ok(text != NULL, err);
    Ids whole = {0};
    tokenizer_encode(tok, text, size, true, &whole);
    assert_int_equal(whole.n, c.ids.n);
    assert_memory_equal(whole.id, c.ids.id, whole.n * sizeof *whole.id);
    // "\n" of the markup and "\n\n" of the reasoning are one token; it belongs to the channel
    assert_kind(&c, TOKEN_CHANNEL, "<|channel>thought\n\n\n|||<channel|>");
    assert_kind(&c, TOKEN_THOUGHT, "hm\n\n");
    ids_free(&whole);
    free(text);
    json_decref(messages);
    chat_tokens_free(&c);
}

static void refusals_name_the_message(void **state) {
    (void)state;
    static const struct {
        const char *messages, *message;
    } cases[] = {
        {"{}", "messages is not a list"},
        {"[1]", "messages[0] has no role"},
        {"[{\"role\":\"user\",\"content\":\"a\"},{\"content\":\"b\"}]", "messages[1] has no role"},
        {"[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{}"
         "\"}}]}]",
         "messages[0]: tool_calls[].function.arguments must be a JSON object"},
        {"[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}"
         "]},"
         "{\"role\":\"tool\",\"content\":{\"a\":1}}]",
         "messages[0]: the content of a tool message is a mapping"},
        {"[{\"role\":\"user\",\"content\":[\"text\"]}]",
         "messages[0]: a content part is not an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *m = json(cases[i].messages);
        Err err = {0};
        size_t size;
        assert_null(chat_render(m, NULL, (ChatOptions){.tmpl = CHAT_LARGE_2026_07}, &size, &err));
        assert_int_equal(err.code, ERR_INPUT);
        if (strstr(err.text, cases[i].message) == NULL) fail_msg("%s", err.text);
        json_decref(m);
    }
}

static void templates_are_known_by_hash_or_name(void **state) {
    (void)state;
    ChatTemplate t;
    Err err = {0};
    assert_ok(chat_template_load(&t, "configs/demo/base-target", "auto", &err), err);
    assert_int_equal(t, CHAT_SMALL_2026_07);
    for (int i = CHAT_SMALL_2026_07; i <= CHAT_LARGE_2026_04; i++) {
        assert_ok(chat_template_load(&t, "nowhere", chat_template_name((ChatTemplate)i), &err),
                  err);
        assert_int_equal(t, i);
    }
    char path[PATH_ROOM];
    assert_ok(file_write(path_join(path, test_dir(), "chat_template.jinja"), "abc", 3, &err), err);
    assert_false(chat_template_load(&t, test_dir(), "auto", &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(
        strstr(err.text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_non_null(strstr(err.text, "auto, small-2026-07-09, large-2026-07-09, large-2026-04"));
    err = (Err){0};
    assert_false(chat_template_load(&t, test_dir(), "llama", &err));
    assert_int_equal(err.code, ERR_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_model_owns_its_text_and_the_end_of_its_turn),
        cmocka_unit_test(last_turn_only_leaves_earlier_turns_as_context),
        cmocka_unit_test(a_generation_prompt_is_context),
        cmocka_unit_test(thoughts_calls_and_the_stop_before_a_response_are_the_models),
        cmocka_unit_test(a_pending_call_ends_with_the_stop),
        cmocka_unit_test(text_outside_of_every_turn_is_context),
        cmocka_unit_test(no_content_can_inject_a_control_token),
        cmocka_unit_test(ids_are_those_of_the_whole_text),
        cmocka_unit_test(refusals_name_the_message),
        cmocka_unit_test(templates_are_known_by_hash_or_name),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, free_tokenizer);
}
