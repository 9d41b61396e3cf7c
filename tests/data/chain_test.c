// tests/data/chain_test.c - conversations that go on: JSON, the next prompt, shared sequences.
#include <stdlib.h>
#include <string.h>

#include "data/chain.h"
#include "infer/base/json.h"
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

static Ids encoded(const char *text) {
    Ids ids = {0};
    tokenizer_encode(tok, text, strlen(text), true, &ids);
    return ids;
}

// An open prompt, or one with an answer whose kinds are told from its tokens.
static Sample sample(const char *prompt, const char *answer) {
    Ids ids = encoded(prompt), own = encoded(answer);
    Sample s = {.prompt = (int64_t)ids.n, .min_margin = 0.5, .sample = 2};
    for (size_t i = 0; i < own.n; i++) ids_push(&ids, own.id[i]);
    strcpy(s.id, "a");
    s.ids = ids.id;
    s.n = (int64_t)ids.n;
    s.kind = calloc(ids.n, 1);
    chat_answer_kinds(tok, s.ids, (size_t)s.prompt, ids.n, s.kind);
    s.stopped = own.n > 0 && tokenizer_is_special(tok, own.id[own.n - 1]);
    ids_free(&own);
    return s;
}

static Follow follow(int64_t drop, bool answer, const char *text) {
    const Ids ids = encoded(text);
    return (Follow){.drop = drop, .answer = answer, .ids = ids.id, .n = (int64_t)ids.n};
}

static void chains_come_back_as_they_were(void **state) {
    (void)state;
    Err err = {0};
    Chain c = {.sample = sample("<bos>Hi", ""), .follow = calloc(3, sizeof(Follow)), .follows = 3};
    c.follow[0] = follow(0, true, "<turn|>\nmore");
    c.follow[1] = follow(1, false, "x");
    c.follow[2] = follow(-1, false, "<bos>all of it");
    json_t *o = chain_json(&c), *again;
    Chain back;
    assert_non_null(o);
    assert_ok(chain_read(&back, o, 8192, "here", &err), err);
    again = chain_json(&back);
    assert_true(json_equal(o, again));
    assert_int_equal(back.follows, 3);
    assert_int_equal(back.follow[2].drop, -1);
    assert_true(back.follow[0].answer);
    chain_free(&back);
    assert_false(chain_read(&back, o, 100, "here", &err)); // ids of another vocabulary
    chain_free(&c);
    json_decref(o);
    json_decref(again);
}

static void chains_out_of_range_are_refused(void **state) {
    (void)state;
#define LINE(prompt, follow)                                                                       \
    "{\"id\":\"a\",\"category\":\"\",\"source\":\"\",\"sampler\":\"\",\"sample\":0,"               \
    "\"prompt\":" prompt ",\"ids\":[1,2,3],\"kinds\":[[0,3]],\"follow\":[" follow "]}"
    const char *bad[] = {LINE("3", "{\"drop\":0,\"ids\":[]}"),
                         LINE("3", "{\"drop\":0}"),
                         LINE("3", "{\"drop\":3,\"ids\":[1]}"),
                         LINE("3", "{\"drop\":-2,\"ids\":[1]}"),
                         LINE("3", "{\"drop\":-1,\"answer\":true,\"ids\":[1]}"),
                         LINE("3", "{\"drop\":0.5,\"ids\":[1]}"),
                         LINE("3", "{\"drop\":0,\"ids\":[99999]}"),
                         LINE("3", "{\"drop\":0,\"ids\":[true]}"),
                         LINE("3", "7"),
                         LINE("2", "{\"drop\":0,\"ids\":[1]}")};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Err err = {0};
        Chain c;
        json_t *o = json_read_text(bad[i], strlen(bad[i]), &err);
        assert_non_null(o);
        if (chain_read(&c, o, 8192, "here", &err)) fail_msg("accepted: %s", bad[i]);
        assert_int_equal(err.code, ERR_INPUT);
        assert_int_equal(strncmp(err.text, "here: \"follow\": ", 16), 0);
        json_decref(o);
    }
#undef LINE
}

static char *asked(const Follow *f, const char *prompt, const char *answer) {
    static char out[1024];
    Sample s = sample(prompt, answer), next;
    size_t size;
    strcpy(out, "ended");
    if (chain_next(&next, f, &s, tok)) {
        char *text = tokenizer_decode(tok, next.ids, (size_t)next.n, false, &size);
        snprintf(out, sizeof out, "%s", text);
        free(text);
        assert_int_equal(next.prompt, next.n);
        assert_int_equal(next.sample, 2);
        assert_false(next.stopped);
        for (int64_t i = 0; i < next.n; i++) assert_int_equal(next.kind[i], TOKEN_CONTEXT);
    }
    sample_free(&next);
    sample_free(&s);
    return out;
}

#define M "<|turn>model\n"
#define NEXT "<turn|>\n<|turn>user\nGo<turn|>\n" M

static void the_next_prompt_shows_what_was_answered(void **state) {
    (void)state;
    Follow f = follow(0, true, NEXT);
    assert_string_equal(asked(&f, "<bos>" M, "Yo<turn|>"), "<bos>" M "Yo" NEXT);
    assert_string_equal(asked(&f, "<bos>" M, " Yo\n\n<turn|>"), "<bos>" M "Yo" NEXT);
    assert_string_equal(asked(&f, "<bos>" M, "<|channel>thought\nhm\n<channel|>Yo<turn|>"),
                        "<bos>" M "Yo" NEXT);
    assert_string_equal(asked(&f, "<bos>" M, "<turn|>"), "<bos>" M NEXT);
    free(f.ids);
    // the large models' empty channel is no part of history
    f = follow(3, true, NEXT);
    const Ids channel = encoded("<|channel>thought\n<channel|>");
    f.drop = (int64_t)channel.n;
    assert_string_equal(asked(&f, "<bos>" M "<|channel>thought\n<channel|>", "Yo<turn|>"),
                        "<bos>" M "Yo" NEXT);
    free(channel.id);
    free(f.ids);
    f = follow(0, false, "<|tool_call>call:f{}<tool_call|>");
    assert_string_equal(asked(&f, "<bos>" M, "something else<turn|>"),
                        "<bos>" M "<|tool_call>call:f{}<tool_call|>");
    free(f.ids);
    f = follow(-1, false, "<bos>anew");
    assert_string_equal(asked(&f, "<bos>" M, "Yo<turn|>"), "<bos>anew");
    free(f.ids);
}

static void a_conversation_ends_where_the_answer_does_not_fit(void **state) {
    (void)state;
    Follow f = follow(0, true, NEXT);
    assert_string_equal(asked(&f, "<bos>" M, "cut at a limit"), "ended");
    assert_string_equal(asked(&f, "<bos>" M, "Yo<|tool_response>"), "ended");
    assert_string_equal(asked(&f, "<bos>" M, "<|tool_call>call:f{}<tool_call|><|tool_response>"),
                        "ended");
    assert_string_equal(asked(&f, "<bos>" M, "<|tool_call>call:f{}<tool_call|><turn|>"), "ended");
    assert_string_equal(asked(&f, "<bos>" M, ""), "ended");
    f.drop = 1000;
    assert_string_equal(asked(&f, "<bos>" M, "Yo<turn|>"), "ended");
    free(f.ids);
}

static void a_sample_takes_up_what_begins_with_it(void **state) {
    (void)state;
    Sample a = sample("<bos>" M, "Yo<turn|>"), b = sample("<bos>" M "Yo" NEXT, "Ok<turn|>"),
           c = sample("<bos>" M "Na" NEXT, "Ok<turn|>");
    const int64_t n = a.n, first = a.prompt;
    assert_false(sample_extend(&a, &c));
    assert_int_equal(a.n, n);
    b.min_margin = 0.25;
    assert_true(sample_extend(&a, &b));
    assert_int_equal(a.n, b.n);
    assert_int_equal(a.prompt, b.prompt);
    assert_true(a.stopped && a.min_margin == 0.25);
    assert_memory_equal(a.ids, b.ids, (size_t)b.n * 4);
    for (int64_t i = 0; i < a.n; i++)
        assert_int_equal(a.kind[i],
                         (i >= first && i < n) || i >= b.prompt ? TOKEN_MODEL : TOKEN_CONTEXT);
    sample_free(&a);
    sample_free(&b);
    sample_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_come_back_as_they_were),
        cmocka_unit_test(chains_out_of_range_are_refused),
        cmocka_unit_test(the_next_prompt_shows_what_was_answered),
        cmocka_unit_test(a_conversation_ends_where_the_answer_does_not_fit),
        cmocka_unit_test(a_sample_takes_up_what_begins_with_it),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, free_tokenizer);
}
