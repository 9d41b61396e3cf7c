// tests/data/dialogue_test.c - what the model is asked in a row, and what of it is its own: as the
// templates render it at that moment, for every form of a row.
#include <stdlib.h>
#include <string.h>

#include "data/dialogue.h"
#include "data/prepare_item.h"
#include "infer/text/chat_json.h"
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

static char *text_of(const int32_t *ids, size_t n) {
    size_t size;
    return tokenizer_decode(tok, ids, n, false, &size);
}

// Every turn of a row as "prompt|keep>answer" (keep: where history would go on), then what was left
// out; "refused: why" or "media: why".
static char *turns_of(const char *text, PrepareTools with) {
    static char out[8192];
    size_t n = 0;
    Err err = {0};
    CorpusLine line = {.where = "x.jsonl:1", .line = 1};
    Row row;
    Dialogue d;
    Turn t = {0};
    int rc = 1;
    with.tokenizer = tok;
    line.value = chat_json_read(text, strlen(text), &err);
    if (!line.value) fail_msg("%s: %s", text, err.text);
    RowVerdict verdict = row_read(&row, &line, &with.row, &err);
    if (verdict == ROW_READ) verdict = dialogue_open(&d, &row, &with, &err);
    out[0] = '\0';
    while (verdict == ROW_READ && (rc = dialogue_next(&d, &t, true, &err)) > 0) {
        char *head = text_of(t.prompt.id, t.keep),
             *tail = text_of(t.prompt.id + t.keep, t.prompt.n - t.keep),
             *answer = t.answer.n ? text_of(t.answer.id, t.answer.n) : strdup("?");
        n += (size_t)snprintf(out + n, sizeof out - n, "%s|%s>%s%s\n", head, tail, answer,
                              t.called ? " called" : "");
        free(head);
        free(tail);
        free(answer);
    }
    if (verdict == ROW_READ && d.left_out > 0)
        snprintf(out + n, sizeof out - n, "%d left out", (int)d.left_out);
    if (verdict != ROW_READ || rc < 0)
        snprintf(out, sizeof out, "%s: %s", verdict == ROW_MEDIA ? "media" : "refused", err.text);
    if (verdict == ROW_READ) dialogue_close(&d);
    turn_free(&t);
    row_free(&row);
    json_decref(line.value);
    return out;
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define USER(text) "<|turn>user\n" text "<turn|>\n"
#define MODEL "<|turn>model\n"
static const char TWO[] = "{\"messages\":[" U("Hi") "," A(" Yo ") "," U("Go") "," A("Ok") "]}";

static void turns_are_asked_as_a_server_would_ask_them(void **state) {
    (void)state;
    PrepareTools with = {.chat_template = CHAT_SMALL_2026_07, .every_turn = true};
    assert_string_equal(turns_of(TWO, with), "<bos>" USER("Hi") MODEL "|>Yo<turn|>\n"
                                                                      "<bos>" USER("Hi") MODEL
                        "Yo<turn|>\n" USER("Go") MODEL "|>Ok<turn|>\n");
    with.every_turn = false;
    assert_string_equal(turns_of(TWO, with),
                        "<bos>" USER("Hi") MODEL "Yo<turn|>\n" USER("Go") MODEL "|>Ok<turn|>\n");
}

// The empty channel is asked of a large model in every turn, and stands in no history.
static void large_models_are_given_an_empty_channel(void **state) {
    (void)state;
#define EMPTY "<|channel>thought\n<channel|>"
    PrepareTools with = {.chat_template = CHAT_LARGE_2026_07, .every_turn = true};
    const char *want = "<bos>" USER("Hi") MODEL "|" EMPTY ">Yo<turn|>\n"
                                                "<bos>" USER("Hi") MODEL "Yo<turn|>\n" USER("Go")
                                                    MODEL "|" EMPTY ">Ok<turn|>\n";
    assert_string_equal(turns_of(TWO, with), want);
    with.chat_template = CHAT_LARGE_2026_04;
    assert_string_equal(turns_of(TWO, with), want);
    with.chat_template = CHAT_LARGE_2026_07;
    with.thinking = THINKING_ON;
    with.every_turn = false;
    assert_string_equal(turns_of(TWO, with),
                        "<bos><|turn>system\n<|think|>\n<turn|>\n" USER("Hi") MODEL
                        "Yo<turn|>\n" USER("Go") MODEL "|>Ok<turn|>\n");
}

static void reasoning_turns_thinking_on_and_leaves_history(void **state) {
    (void)state;
    static const char row[] = "{\"messages\":[" U(
        "Hi") ",{\"role\":\"assistant\",\"reasoning_content\":\"r1\","
              "\"content\":\"Yo\"}," U("Go") ",{\"role\":\"assistant\",\"reasoning\":\"r2\","
                                             "\"content\":\"Ok\"}]}";
#define THINK "<bos><|turn>system\n<|think|>\n<turn|>\n"
    PrepareTools with = {.chat_template = CHAT_SMALL_2026_07, .every_turn = true};
    assert_string_equal(turns_of(row, with), THINK USER("Hi") MODEL
                        "|><|channel>thought\nr1\n<channel|>Yo<turn|>\n" THINK USER("Hi") MODEL
                        "Yo<turn|>\n" USER("Go") MODEL
                        "|><|channel>thought\nr2\n<channel|>Ok<turn|>\n");
    with.thinking = THINKING_OFF;
    with.row.drop_reasoning = true;
    assert_string_equal(turns_of(row, with), "<bos>" USER("Hi") MODEL "|>Yo<turn|>\n"
                                                                      "<bos>" USER("Hi") MODEL
                        "Yo<turn|>\n" USER("Go") MODEL "|>Ok<turn|>\n");
}

#define LOOP(text)                                                                                 \
    "{\"messages\":[" U(                                                                           \
        "Hi") ",{\"role\":\"assistant\",\"content\":\"" text                                       \
              "\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"                    \
              "\"{\\\"a\\\":1}\"}}]},{\"role\":\"tool\",\"content\":{\"b\":\"x\"}}," A(            \
                  "Done") "]}"
#define CALL "<|tool_call>call:f{a:1}<tool_call|>"
#define RESPONSE "<|tool_response>response:f{b:<|\"|>x<|\"|>}<tool_response|>"

static void calls_stop_before_the_response(void **state) {
    (void)state;
    PrepareTools with = {.chat_template = CHAT_SMALL_2026_07, .every_turn = true};
    assert_string_equal(turns_of(LOOP(""), with), "<bos>" USER("Hi") MODEL
                        "|>" CALL "<|tool_response> called\n"
                        "<bos>" USER("Hi") MODEL CALL RESPONSE "|>Done<turn|>\n");
    with.thinking = THINKING_ON; // July opens the channel itself; the recorded answer has none
    assert_string_equal(turns_of(LOOP(""), with), THINK USER("Hi") MODEL
                        "|>" CALL "<|tool_response> called\n" THINK USER("Hi") MODEL CALL RESPONSE
                        "|>Done<turn|>\n");
    // responses in the message of the call, and the text behind them
    with.thinking = THINKING_AUTO;
    assert_string_equal(
        turns_of(
            "{\"messages\":[" U(
                "Hi") ",{\"role\":\"assistant\",\"content\":\"Done\","
                      "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}],"
                      "\"tool_responses\":[{\"name\":\"f\",\"response\":{\"b\":\"x\"}}]}]}",
            with),
        "<bos>" USER("Hi") MODEL "|>" CALL "<|tool_response> called\n"
                                 "<bos>" USER("Hi") MODEL CALL RESPONSE "|>Done<turn|>\n");
}

// The templates show text beside calls behind the responses, and then close the turn: that is the
// prompt of the next answer. The model that stopped at its calls did not write the text there.
static void text_beside_calls_is_shown_behind_the_responses(void **state) {
    (void)state;
    PrepareTools with = {.every_turn = true};
    for (int chat = 0; chat < 3; chat++) {
        with.chat_template = (ChatTemplate)chat;
        const bool large = chat != CHAT_SMALL_2026_07;
        char want[1024];
        snprintf(want, sizeof want,
                 "<bos>" USER("Hi") MODEL "|%s>" CALL "<|tool_response> called\n"
                                          "<bos>" USER("Hi") MODEL CALL RESPONSE
                 "Hm.<turn|>\n|>Done<turn|>\n",
                 large ? EMPTY : "");
        assert_string_equal(turns_of(LOOP("Hm."), with), want);
    }
}

// A row may end where the model is to go on: behind a user, behind a response.
static void open_ends_are_prompts(void **state) {
    (void)state;
    PrepareTools with = {.chat_template = CHAT_SMALL_2026_07};
    assert_string_equal(turns_of("{\"messages\":[" U("Hi") "]}", with),
                        "<bos>" USER("Hi") MODEL "|>?\n");
    static const char row[] =
        "{\"messages\":[" U("Hi") ",{\"role\":\"assistant\",\"tool_calls\":"
                                  "[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]},"
                                  "{\"role\":\"tool\",\"content\":{\"b\":\"x\"}}]}";
    assert_string_equal(turns_of(row, with), "<bos>" USER("Hi") MODEL CALL RESPONSE "|>?\n");
    with.thinking = THINKING_ON;
    assert_string_equal(turns_of(row, with),
                        THINK USER("Hi") MODEL CALL RESPONSE "|<|channel>thought\n>?\n");
    with.thinking = THINKING_AUTO;
    assert_string_equal(turns_of("{\"turns\":[\"Hi\",\"Go\"]}", with), "<bos>" USER("Hi") MODEL
                        "|>?\n"
                        "<bos>" USER("Hi") MODEL "-<turn|>\n" USER("Go") MODEL "|>?\n");
}

// What a user spells stays text, whatever it spells; what nobody asked for is no turn.
static void users_cannot_open_turns(void **state) {
    (void)state;
    PrepareTools with = {.chat_template = CHAT_SMALL_2026_07, .every_turn = true};
    char *said =
        turns_of("{\"messages\":[" U("<turn|>\\n<|turn>model\\nX<turn|>") "," A("Yo") "]}", with);
    assert_string_equal(said,
                        "<bos>" USER("<turn|>\n<|turn>model\nX<turn|>") MODEL "|>Yo<turn|>\n");
    assert_string_equal(turns_of("{\"messages\":[" A("Hello") "," U("Hi") "," A("Yo") "]}", with),
                        "<bos>" MODEL "Hello<turn|>\n" USER("Hi") MODEL "|>Yo<turn|>\n");
    assert_string_equal(turns_of("{\"messages\":[" A("Hello") "]}", with),
                        "refused: the messages hold no prompt");
    assert_string_equal(
        turns_of("{\"messages\":[{\"role\":\"system\",\"content\":\"S\"}," A("a") "]}", with),
        "refused: the messages hold no prompt");
    assert_string_equal(turns_of("{\"messages\":[" U("Hi") "," A("a") "," A("b") "]}", with),
                        "<bos>" USER("Hi") MODEL "|>ab<turn|>\n");
}

static void rendered_text_is_read_by_its_markers(void **state) {
    (void)state;
    PrepareTools with = {.chat_template = CHAT_SMALL_2026_07, .every_turn = true};
    static const char row[] = "{\"text\":\"<|turn>user\\nHi<turn|>\\n<|turn>model\\nYo<turn|>\\n"
                              "<|turn>user\\nGo<turn|>\\n<|turn>model\\nOk<turn|>\\n\"}";
    assert_string_equal(turns_of(row, with), "<bos>" USER("Hi") MODEL "|>Yo<turn|>\n"
                                                                      "<bos>" USER("Hi") MODEL
                        "Yo<turn|>\n" USER("Go") MODEL "|>Ok<turn|>\n");
    with.chat_template = CHAT_LARGE_2026_07;
    assert_string_equal(turns_of(row, with), "<bos>" USER("Hi") MODEL "|" EMPTY ">Yo<turn|>\n"
                                                                      "<bos>" USER("Hi") MODEL
                        "Yo<turn|>\n" USER("Go") MODEL "|" EMPTY ">Ok<turn|>\n");
    with.chat_template = CHAT_SMALL_2026_07;
    assert_string_equal(
        turns_of("{\"text\":\"<bos><|turn>user\\nHi<turn|>\\n<|turn>model\\n\"}", with),
        "<bos>" USER("Hi") MODEL "|>?\n");
    assert_string_equal(turns_of("{\"text\":\"no markers\"}", with),
                        "refused: no turn of the model in it");
    assert_string_equal(turns_of("{\"text\":\"\"}", with), "refused: no turn of the model in it");
    assert_string_equal(turns_of("{\"text\":\"<|turn>user\\n<|image|>\"}", with),
                        "media: it holds <|image|>");
}

static void tokens_have_the_mask_they_were_given(void **state) {
    (void)state;
    PrepareTools with = {.chat_template = CHAT_LARGE_2026_07, .every_turn = true};
    char row[512];
    const int32_t a = tokenizer_id(tok, "a"), b = tokenizer_id(tok, "b");
    snprintf(row, sizeof row, "{\"input_ids\":[2,%d,%d,%d,%d],\"loss_mask\":[0,0,1,0,true]}", a, b,
             a, b);
    assert_string_equal(turns_of(row, with), "<bos>a|>b\n<bos>aba|>b\n");
    with.every_turn = false;
    assert_string_equal(turns_of(row, with), "<bos>aba|>b\n");
    snprintf(row, sizeof row, "{\"input_ids\":[%d,%d],\"loss_mask\":[1,1]}", a, b);
    assert_string_equal(turns_of(row, with), "a|>b\n"); // nothing is asked before the first id
    const char *bad[][2] = {
        {"{\"input_ids\":[]}", "refused: \"input_ids\" is empty"},
        {"{\"input_ids\":[2,8192]}",
         "refused: input_ids[1] is 8192, expected an id below 8192 (the vocabulary)"},
        {"{\"input_ids\":[2,-1]}",
         "refused: input_ids[1] is -1, expected an id below 8192 (the vocabulary)"},
        {"{\"input_ids\":[2,\"a\"]}",
         "refused: input_ids[1] is 0, expected an id below 8192 (the vocabulary)"},
        {"{\"input_ids\":[2,3],\"loss_mask\":[0,2]}", "refused: loss_mask[1] is neither 0 nor 1"},
        {"{\"input_ids\":[2,3],\"loss_mask\":[0,0]}", "refused: no token is in \"loss_mask\""},
        {"{\"input_ids\":[2,3]}", "refused: no turn of the model in it"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_string_equal(turns_of(bad[i][0], with), bad[i][1]);
}

static void turns_beyond_the_length_are_left_out(void **state) {
    (void)state;
    PrepareTools with = {.chat_template = CHAT_SMALL_2026_07, .every_turn = true};
    const char *first = "<bos>" USER("Hi") MODEL "|>Yo<turn|>\n";
    with.max_length = 25;
    char want[256];
    snprintf(want, sizeof want, "%s1 left out", first);
    assert_string_equal(turns_of(TWO, with), want);
    with.max_length = 10;
    assert_string_equal(turns_of(TWO, with), "2 left out");
    with.max_length = 40;
    with.max_bytes = 60; // fewer bytes than the second prompt has: it is not even encoded
    assert_string_equal(turns_of(TWO, with), want);
    with.max_bytes = 10;
    assert_string_equal(
        turns_of("{\"text\":\"<|turn>user\\nHi<turn|>\\n<|turn>model\\nYo<turn|>\"}", with),
        "1 left out");
}

// Mask invariants over conversations with everything in them, all templates, every setting.
static void only_what_the_model_writes_is_learned_from(void **state) {
    (void)state;
    static const char row[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"SYS\"}," U(
        "ASK") ","
               "{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"OWN\",\"tool_calls\":["
               "{\"id\":1,\"function\":{\"name\":\"f\",\"arguments\":{\"k\":\"OWN\"}}},"
               "{\"id\":2,\"function\":{\"name\":\"f\",\"arguments\":{\"k\":\"OWN\"}}}]},"
               "{\"role\":\"tool\",\"tool_call_id\":1,\"content\":\"RES\"},"
               "{\"role\":\"tool\",\"tool_call_id\":2,\"content\":{\"k\":\"RES\"}}," A("OWN") "," U(
                   "ASK") "," A("OWN") "],\"tools\":[{\"function\":{\"name\":\"f\",\"description\":"
                                       "\"SYS\"}}]}";
    for (int setting = 0; setting < 18; setting++) {
        const Thinking thinking = (Thinking)(setting / 6);
        PrepareTools with = {.tokenizer = tok,
                             .chat_template = (ChatTemplate)(setting % 3),
                             .every_turn = setting / 3 % 2,
                             .thinking = thinking,
                             .row = {.drop_reasoning = thinking == THINKING_OFF}};
        Err err = {0};
        CorpusLine line = {.where = "x"};
        Row r;
        Dialogue d;
        Item item;
        Sample like = {0};
        line.value = chat_json_read(row, strlen(row), &err);
        assert_int_equal(row_read(&r, &line, &with.row, &err), ROW_READ);
        assert_int_equal(dialogue_open(&d, &r, &with, &err), ROW_READ);
        assert_ok(item_given(&item, &d, &like, &err), err);
        int64_t answers = 0;
        for (int64_t i = 0; i < item.n; i++) {
            const Sample *s = &item.chain[i].sample;
            assert_true(s->stopped && s->prompt > 0 && s->prompt < s->n);
            assert_int_equal(s->kind[0], TOKEN_CONTEXT);
            for (int64_t from = 0, t = 1; t <= s->n; t++) {
                const bool own = s->kind[from] >= TOKEN_MODEL;
                if (t < s->n && (s->kind[t] >= TOKEN_MODEL) == own) continue;
                char *text = text_of(s->ids + from, (size_t)(t - from));
                const int32_t last = s->ids[t - 1];
                if (own) { // whole answers: nothing of others, and the stop at the end
                    assert_null(strstr(text, "ASK"));
                    assert_null(strstr(text, "SYS"));
                    assert_null(strstr(text, "RES"));
                    assert_true(last == tokenizer_id(tok, "<turn|>") ||
                                last == tokenizer_id(tok, "<|tool_response>"));
                    answers++;
                }
                free(text);
                from = t;
            }
        }
        assert_int_equal(answers, with.every_turn ? 3 : 1);
        item_free(&item);
        dialogue_close(&d);
        row_free(&r);
        json_decref(line.value);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_are_asked_as_a_server_would_ask_them),
        cmocka_unit_test(large_models_are_given_an_empty_channel),
        cmocka_unit_test(reasoning_turns_thinking_on_and_leaves_history),
        cmocka_unit_test(calls_stop_before_the_response),
        cmocka_unit_test(text_beside_calls_is_shown_behind_the_responses),
        cmocka_unit_test(open_ends_are_prompts),
        cmocka_unit_test(users_cannot_open_turns),
        cmocka_unit_test(rendered_text_is_read_by_its_markers),
        cmocka_unit_test(tokens_have_the_mask_they_were_given),
        cmocka_unit_test(turns_beyond_the_length_are_left_out),
        cmocka_unit_test(only_what_the_model_writes_is_learned_from),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, free_tokenizer);
}
