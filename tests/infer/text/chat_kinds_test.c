// tests/infer/text/chat_kinds_test.c - kinds told from control tokens alone. That they are those
// of the renderer is part of chat_cases_test.c.
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat.h"
#include "tests/testing.h"

static Tokenizer *tok;

static int load_tokenizer(void **state) {
    (void)state;
    Err err = {0};
    tok = tokenizer_load("configs/demo/base-target/tokenizer.json", &err);
    return tok == NULL;
}

static int free_tokenizer(void **state) {
    (void)state;
    tokenizer_free(tok);
    return 0;
}

// Runs of one kind as "kind(text)", the text of control tokens included.
static char *spelled(const Ids *ids, const uint8_t *kind, size_t first) {
    static char out[4096];
    size_t n = 0;
    for (size_t from = first, i = first + 1; i <= ids->n; i++) {
        if (i < ids->n && kind[i] == kind[from]) continue;
        size_t size;
        char *text = tokenizer_decode(tok, ids->id + from, i - from, false, &size);
        n += (size_t)snprintf(out + n, sizeof out - n, "%s(%s)",
                              token_kind_name((TokenKind)kind[from]), text);
        free(text);
        from = i;
    }
    return out;
}

static char *kinds_of(const char *text, ChatTemplate tmpl) {
    uint8_t kind[512];
    Ids ids = {0};
    tokenizer_encode(tok, text, strlen(text), true, &ids);
    assert_in_range(ids.n, 1, sizeof kind);
    chat_kinds(tok, tmpl, ids.id, ids.n, kind);
    char *said = spelled(&ids, kind, 0);
    ids_free(&ids);
    return said;
}

// prompt and answer are encoded apart, as they are generated.
static char *answer_of(const char *prompt, const char *answer) {
    uint8_t kind[512];
    Ids ids = {0};
    tokenizer_encode(tok, prompt, strlen(prompt), true, &ids);
    const size_t first = ids.n;
    tokenizer_encode(tok, answer, strlen(answer), true, &ids);
    chat_answer_kinds(tok, ids.id, first, ids.n, kind);
    char *said = spelled(&ids, kind, first);
    ids_free(&ids);
    return said;
}

static void turns_calls_and_responses_are_told_apart(void **state) {
    (void)state;
    assert_string_equal(
        kinds_of("<bos><|turn>user\nmodel\nHi<turn|>\n<|turn>model\n<|channel>thought\nhm\n"
                 "<channel|><|tool_call>call:f{x:<|\"|>y<|\"|>}<tool_call|><|tool_response>"
                 "response:f{}<tool_response|><|tool_response>response:g{}<tool_response|>"
                 "Done.<turn|>\n<|turn>user\nMore<turn|>\n",
                 CHAT_SMALL_2026_07),
        "context(<bos><|turn>user\nmodel\nHi<turn|>\n<|turn>model\n)channel(<|channel>thought\n)"
        "thought(hm\n)channel(<channel|>)call(<|tool_call>call:f{x:<|\"|>y<|\"|>}<tool_call|>"
        "<|tool_response>)context(response:f{}<tool_response|><|tool_response>response:g{}"
        "<tool_response|>)model(Done.<turn|>)context(\n<|turn>user\nMore<turn|>\n)");
}

static void only_turns_of_the_model_count(void **state) {
    (void)state;
    assert_string_equal(kinds_of("plain text", CHAT_SMALL_2026_07), "context(plain text)");
    assert_string_equal(kinds_of("<|turn>models\na<turn|>", CHAT_SMALL_2026_07),
                        "context(<|turn>models\na<turn|>)");
    assert_string_equal(kinds_of("<|turn>model\na<|image|>b<turn|>", CHAT_SMALL_2026_07),
                        "context(<|turn>model\n)model(a)context(<|image|>)model(b<turn|>)");
}

// What the generation prompts of the templates end with is not the model's.
static void an_empty_channel_is_the_large_models_prompt(void **state) {
    (void)state;
    const char *text = "<|turn>model\n<|channel>thought\n<channel|>Hi<turn|>";
    assert_string_equal(kinds_of(text, CHAT_LARGE_2026_07),
                        "context(<|turn>model\n<|channel>thought\n<channel|>)model(Hi<turn|>)");
    assert_string_equal(
        kinds_of(text, CHAT_SMALL_2026_07),
        "context(<|turn>model\n)channel(<|channel>thought\n<channel|>)model(Hi<turn|>)");
    const char *thinking =
        "<|turn>system\n<|think|>\n<turn|>\n<|turn>model\n<|channel>thought\n<channel|>Hi<turn|>";
    assert_string_equal(kinds_of(thinking, CHAT_LARGE_2026_07),
                        "context(<|turn>system\n<|think|>\n<turn|>\n<|turn>model\n)"
                        "channel(<|channel>thought\n<channel|>)model(Hi<turn|>)");
    assert_string_equal(kinds_of("<|turn>model\nHi<|channel>thought\n<channel|>", 1),
                        "context(<|turn>model\n)model(Hi)channel(<|channel>thought\n<channel|>)");
    assert_string_equal(kinds_of("<|turn>model\n<|channel>thought\n", CHAT_SMALL_2026_07),
                        "context(<|turn>model\n<|channel>thought\n)");
}

static void everything_in_an_answer_is_the_models(void **state) {
    (void)state;
    const char *open = "<bos><|turn>user\nq<turn|>\n<|turn>model\n";
    assert_string_equal(
        answer_of(open, "a<|channel>thought\nhm<channel|>b<|tool_call>call:f{x:<|\"|>y<|\"|>}"
                        "<tool_call|><|tool_response>"),
        "model(a)channel(<|channel>thought\n)thought(hm)channel(<channel|>)model(b)"
        "call(<|tool_call>call:f{x:<|\"|>y<|\"|>}<tool_call|><|tool_response>)");
    assert_string_equal(answer_of(open, "a<|tool_response>"), "model(a)call(<|tool_response>)");
    assert_string_equal(answer_of(open, "a<turn|><|turn>model\nb"),
                        "model(a<turn|><|turn>model\nb)");
    assert_string_equal(answer_of("no turns at all", "a<|\"|>b"), "model(a)call(<|\"|>)model(b)");
    // behind a response the July templates open the channel themselves
    const char *loop = "<|turn>model\n<|tool_call>call:f{}<tool_call|><|tool_response>response:f{}"
                       "<tool_response|><|channel>thought\n";
    assert_string_equal(answer_of(loop, "hm\n<channel|>Ok<turn|>"),
                        "thought(hm\n)channel(<channel|>)model(Ok<turn|>)");
}

static void structured_output_is_calls_and_channels(void **state) {
    (void)state;
    int n = 0;
    for (int k = 0; k < TOKEN_KINDS; k++) n += token_structured((TokenKind)k);
    assert_int_equal(n, 2);
    assert_true(token_structured(TOKEN_CALL) && token_structured(TOKEN_CHANNEL));
}

static void the_visible_text_has_no_channels(void **state) {
    (void)state;
    const char *text[][2] = {{" a ", "a"},
                             {"<|channel>thought\nhm\n<channel|>\n Yes. ", "Yes."},
                             {"a<|channel>x<channel|>b<|channel>y", "ab"},
                             {"", ""},
                             {"<channel|>a", "a"}};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        size_t size;
        char *seen = chat_visible(text[i][0], strlen(text[i][0]), &size);
        assert_string_equal(seen, text[i][1]);
        assert_int_equal(size, strlen(seen));
        free(seen);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_calls_and_responses_are_told_apart),
        cmocka_unit_test(only_turns_of_the_model_count),
        cmocka_unit_test(an_empty_channel_is_the_large_models_prompt),
        cmocka_unit_test(everything_in_an_answer_is_the_models),
        cmocka_unit_test(structured_output_is_calls_and_channels),
        cmocka_unit_test(the_visible_text_has_no_channels),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, free_tokenizer);
}
