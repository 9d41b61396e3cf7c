// tests/infer/text/chat_cases_test.c - recorded conversations render and tokenise as the templates
// do.
//
// CASES and TOKENIZER name other files: `make check-template CASES=... TOKENIZER=...`.
#include "tests/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat.h"
#include "infer/text/tokenizer_file.h"

enum { CASES_LIMIT = 1 << 28 };

static const char *setting(const char *name, const char *fallback) {
    const char *value = getenv(name);
    return value && *value ? value : test_golden(fallback);
}

static bool option(const json_t *options, const char *key) {
    return json_is_true(json_object_get(options, key));
}

// A token spelled as an added one inside any text of the conversation.
static bool spells_added(const Tokenizer *t, const json_t *v) {
    const char *key;
    json_t *value;
    size_t i, length;
    if (json_is_string(v)) {
        const char *text = json_string_value(v);
        const size_t size = json_string_length(v);
        for (i = 0; i < size; i++)
            if (tokenizer_added(t, text + i, size - i, &length) >= 0) return true;
    }
    json_object_foreach((json_t *)v, key, value) if (spells_added(t, value)) return true;
    json_array_foreach((json_t *)v, i, value) if (spells_added(t, value)) return true;
    return false;
}

static bool same_ids(const Ids *ids, const json_t *want) {
    if (json_array_size(want) != ids->n) return false;
    for (size_t i = 0; i < ids->n; i++)
        if (json_integer_value(json_array_get(want, i)) != ids->id[i]) return false;
    return true;
}

typedef struct {
    size_t rendered, encoded, refused, wrong, marked;
} Tally;

// The kinds that the renderer gave are those that the control tokens alone tell.
static bool kinds_fit(const Tokenizer *t, const json_t *c, ChatTemplate tmpl, const ChatTokens *out,
                      Tally *tally) {
    if (spells_added(t, json_object_get(c, "messages"))) return true;
    uint8_t *kind = malloc(out->ids.n);
    chat_kinds(t, tmpl, out->ids.id, out->ids.n, kind);
    size_t i = 0;
    while (i < out->ids.n && kind[i] == out->kind[i]) i++;
    if (i < out->ids.n)
        fprintf(stderr, "token %zu of %zu is %s, by its control tokens %s\n", i, out->ids.n,
                token_kind_name((TokenKind)out->kind[i]), token_kind_name((TokenKind)kind[i]));
    free(kind);
    tally->marked++;
    return i == out->ids.n;
}

// Content spelled without added tokens: the ids of the case. Else: the same text, fewer added ids.
static bool ids_fit(const Tokenizer *t, const json_t *c, const ChatTokens *out, Tally *tally) {
    const json_t *want = json_object_get(c, "ids");
    if (!spells_added(t, json_object_get(c, "messages")) &&
        !spells_added(t, json_object_get(c, "tools"))) {
        tally->encoded++;
        return same_ids(&out->ids, want);
    }
    size_t size, mine = 0, theirs = 0;
    char *text = tokenizer_decode(t, out->ids.id, out->ids.n, false, &size);
    const char *rendered = json_string_value(json_object_get(c, "rendered"));
    const bool same = size == strlen(rendered) && memcmp(text, rendered, size) == 0;
    free(text);
    for (size_t i = 0; i < out->ids.n; i++) mine += tokenizer_is_special(t, out->ids.id[i]);
    for (size_t i = 0; i < json_array_size(want); i++)
        theirs += tokenizer_is_special(t, (int32_t)json_integer_value(json_array_get(want, i)));
    return same && mine <= theirs;
}

static bool case_holds(const Tokenizer *t, const json_t *c, Tally *tally) {
    const json_t *options = json_object_get(c, "options"),
                 *messages = json_object_get(c, "messages");
    const json_t *tools = json_object_get(c, "tools"), *want = json_object_get(c, "rendered");
    ChatOptions opt = {.generation_prompt = option(options, "add_generation_prompt"),
                       .thinking = option(options, "enable_thinking"),
                       .preserve_thinking = option(options, "preserve_thinking")};
    Err err = {0};
    if (!chat_template_load(&opt.tmpl, "", json_string_value(json_object_get(c, "template")),
                            &err)) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    size_t size = 0;
    char *text = chat_render(messages, tools, opt, &size, &err);
    ChatTokens out = {0};
    Err encode_err = {0};
    const bool encoded = chat_encode(&out, t, messages, tools, opt, &encode_err);
    bool ok;
    if (want == NULL) {
        tally->refused++;
        ok = text == NULL && !encoded && err.code == ERR_INPUT && encode_err.code == ERR_INPUT;
    } else {
        tally->rendered++;
        ok = text != NULL && encoded && size == json_string_length(want) &&
             memcmp(text, json_string_value(want), size) == 0 && ids_fit(t, c, &out, tally);
        // The ids of the rendered string itself, added tokens matched everywhere.
        Ids whole = {0};
        if (text != NULL) tokenizer_encode(t, text, size, true, &whole);
        ok = ok && same_ids(&whole, json_object_get(c, "ids")) &&
             kinds_fit(t, c, opt.tmpl, &out, tally);
        ids_free(&whole);
    }
    if (!ok)
        fprintf(stderr, "  got  %s\n  want %s\n", text ? text : err.text,
                want ? json_string_value(want) : "a refusal");
    free(text);
    chat_tokens_free(&out);
    return ok;
}

static void every_recorded_case_renders_and_tokenises_alike(void **state) {
    (void)state;
    Err err = {0};
    Tokenizer *t =
        tokenizer_load(setting("TOKENIZER", "tokenizer/gemma4-tokenizer.json.zst"), &err);
    assert_ok(t != NULL, err);
    size_t size;
    char *text =
        unpacked_read(setting("CASES", "tokenizer/chat-cases.jsonl.zst"), CASES_LIMIT, &size, &err);
    assert_ok(text != NULL, err);
    Tally tally = {0};
    for (char *p = text, *end = text + size; p < end;) {
        char *stop = memchr(p, '\n', (size_t)(end - p));
        if (stop == NULL) stop = end;
        if (stop > p) {
            json_t *c = chat_json_read(p, (size_t)(stop - p), &err);
            assert_ok(c != NULL, err);
            if (!case_holds(t, c, &tally)) {
                tally.wrong++;
                fprintf(stderr, "case %s, %s\n", json_string_value(json_object_get(c, "name")),
                        json_string_value(json_object_get(c, "template")));
            }
            json_decref(c);
        }
        p = stop + 1;
    }
    printf("%zu rendered (%zu compared id by id, %zu kind by kind), %zu refused, %zu wrong\n",
           tally.rendered, tally.encoded, tally.marked, tally.refused, tally.wrong);
    free(text);
    tokenizer_free(t);
    assert_true(tally.encoded > 0);
    assert_int_equal(tally.wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recorded_case_renders_and_tokenises_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
