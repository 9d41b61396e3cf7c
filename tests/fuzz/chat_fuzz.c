// tests/fuzz/chat_fuzz.c - libFuzzer: conversations, made from the bytes or spelled in them as
// JSON.
//
// Held: rendered and encoded, or refused by both with one line; the ids decode to the rendered
// text; every supervised id is the model's own (text and its <turn|>, a closed reasoning channel, a
// call and the stop behind it), and in made conversations nothing of the model's is left out; a
// generation prompt only appends context; last_turn_only only turns earlier turns into context.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/utf8.h"
#include "infer/text/chat.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static Tokenizer *tok;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    Err err = {0};
    tok = tokenizer_load("configs/demo/base-target/tokenizer.json", &err);
    if (tok != NULL) return 0;
    fprintf(stderr, "%s\n", err.text);
    exit(1);
}

// Making a conversation: every choice takes a byte, none left chooses 0.
typedef struct {
    const uint8_t *at, *end;
} Choices;

static int choose(Choices *c, int n) {
    return c->at < c->end ? *c->at++ % n : 0;
}

static json_t *text(Choices *c) {
    static const char *const pieces[] = {
        "Hallo",           " ",          "\n",           "<turn|>",
        "<|turn>",         "<|channel>", "<channel|>",   "<|\"|>",
        "<bos>",           "<|image|>",  "<|tool_call>", "<tool_call|>",
        "<|think|>",       "model\n",    "thought\n",    "\u2581",
        "<0x0A>",          "\n\n\n",     "\t\u00a0",     "\U0001F600",
        "e\u0301",         "1{2}",       ",:\"'\\",      "<|tool_response>",
        "<tool_response|>"};
    enum { PIECES = sizeof pieces / sizeof *pieces };
    char out[256] = "";
    for (int n = choose(c, 5); n > 0; n--) {
        const int i = choose(c, PIECES + 4);
        if (i < PIECES) {
            strcat(out, pieces[i]);
            continue;
        }
        for (int k = 0; k < 8 && c->at < c->end; k++) { // bytes as they come, made valid
            uint32_t scalar;
            bool valid;
            char utf8[5] = "";
            c->at += utf8_read(c->at, c->end, &scalar, &valid);
            utf8_write(scalar ? scalar : ' ', utf8);
            strcat(out, utf8);
        }
    }
    return json_string(out);
}

static json_t *value(Choices *c, int depth) {
    json_t *v;
    switch (choose(c, depth > 0 ? 9 : 6)) {
    case 0:
    case 1:
        return text(c);
    case 2:
        return json_null();
    case 3:
        return json_boolean(choose(c, 2));
    case 4:
        return json_integer(choose(c, 256) - 128);
    case 5:
        return json_real((choose(c, 256) - 128) / 16.0);
    case 6:
    case 7:
        v = json_object();
        for (int n = choose(c, 4); n > 0; n--) {
            json_t *key = text(c);
            json_object_set_new(v, json_string_value(key), value(c, depth - 1));
            json_decref(key);
        }
        return v;
    default:
        v = json_array();
        for (int n = choose(c, 4); n > 0; n--) json_array_append_new(v, value(c, depth - 1));
        return v;
    }
}

static void set(json_t *o, const char *key, json_t *v) {
    json_object_set_new(o, key, v);
}

static json_t *call(Choices *c) {
    json_t *o = json_object(), *function = json_object();
    set(function, "name", choose(c, 8) ? json_string("f") : value(c, 1));
    set(function, "arguments", choose(c, 8) ? json_object() : value(c, 3));
    if (choose(c, 2)) set(json_object_get(function, "arguments"), "key", value(c, 2));
    set(o, "function", function);
    if (choose(c, 2)) set(o, "id", json_integer(choose(c, 3)));
    return o;
}

static json_t *content(Choices *c) {
    static const char *const types[] = {"text", "image", "audio", "video", "image_url", "other"};
    if (choose(c, 4)) return text(c);
    if (choose(c, 4) == 0) return value(c, 2);
    json_t *parts = json_array();
    for (int n = choose(c, 4); n > 0; n--) {
        json_t *part = json_object();
        set(part, "type", json_string(types[choose(c, 6)]));
        set(part, "text", text(c));
        json_array_append_new(parts, part);
    }
    return parts;
}

static json_t *message(Choices *c) {
    static const char *const roles[] = {"user", "assistant", "model",     "system",
                                        "tool", "assistant", "developer", "critic"};
    json_t *o = json_object();
    set(o, "role", json_string(roles[choose(c, 8)]));
    if (choose(c, 8) != 1) set(o, "content", content(c));
    if (choose(c, 8) == 1) set(o, "reasoning_content", text(c));
    if (choose(c, 8) == 1) set(o, "thinking", value(c, 1));
    if (choose(c, 8) == 1) set(o, "tool_call_id", json_integer(choose(c, 3)));
    if (choose(c, 8) == 1) set(o, "name", text(c));
    if (choose(c, 4) == 1) {
        json_t *list = json_array();
        for (int n = choose(c, 3); n >= 0; n--) json_array_append_new(list, call(c));
        set(o, "tool_calls", list);
    }
    if (choose(c, 8) == 1) set(o, "tool_responses", json_pack("[{so}]", "response", value(c, 2)));
    return o;
}

static json_t *made_tools(Choices *c) {
    static const char *const types[] = {"object", "STRING", "array", "string", "number", ""};
    if (choose(c, 2) == 0) return NULL;
    json_t *property = json_pack("{ssso}", "type", types[choose(c, 6)], "description", text(c));
    if (choose(c, 2)) set(property, "enum", value(c, 2));
    if (choose(c, 2)) set(property, "items", value(c, 2));
    if (choose(c, 2)) set(property, "properties", value(c, 2));
    return json_pack("[{s{sosos{sss{so}so}}}]", "function", "name", text(c), "description", text(c),
                     "parameters", "type", types[choose(c, 6)], "properties", "p", property,
                     "required", value(c, 1));
}

// Where the walk through the ids stands.
typedef struct {
    bool model, head, called; // in a turn of the model; in its first line; behind a call
    enum { PLAIN, CHANNEL, CALL, RESPONSE } in;
} Place;

static bool is(int32_t id, const char *name) {
    return id == tokenizer_id(tok, name);
}

// Whether the text behind id i begins so.
static bool followed_by(const Ids *ids, size_t i, const char *start) {
    size_t size;
    const size_t left = ids->n - i - 1;
    char *line = tokenizer_decode(tok, ids->id + i + 1, left < 9 ? left : 9, false, &size);
    const bool so = strncmp(line, start, strlen(start)) == 0;
    free(line);
    return so;
}

static bool opens_model(const Ids *ids, size_t i) {
    return is(ids->id[i], "<|turn>") && followed_by(ids, i, "model\n");
}

static void enter(Place *p, const Ids *ids, size_t i) {
    if (is(ids->id[i], "<|turn>")) *p = (Place){.model = opens_model(ids, i), .head = true};
    if (is(ids->id[i], "<|channel>")) p->in = CHANNEL;
    if (is(ids->id[i], "<|tool_call>")) p->in = CALL;
}

static void leave(Place *p, const Ids *ids, size_t i) {
    size_t size;
    const int32_t id = ids->id[i];
    char *piece = tokenizer_decode(tok, &id, 1, false, &size);
    if (memchr(piece, '\n', size) != NULL) p->head = false;
    free(piece);
    if (is(id, "<channel|>") || is(id, "<tool_call|>") || is(id, "<tool_response|>")) p->in = PLAIN;
    if (is(id, "<tool_call|>")) p->called = true;
    if (is(id, "<|tool_response>")) p->called = false;
    if (is(id, "<|tool_response>")) // nobody answers it: the model goes on
        p->in = followed_by(ids, i, "response:") ? RESPONSE : PLAIN;
    if (is(id, "<turn|>")) *p = (Place){0};
}

static bool is_media(int32_t id) {
    return is(id, "<|image|>") || is(id, "<|audio|>") || is(id, "<|video|>");
}

// made: by this file, so that no role or name imitates a turn of the model.
static void mask_holds(const ChatTokens *c, bool made) {
    Place p = {0};
    for (size_t i = 0; i < c->ids.n; i++) {
        const int32_t id = c->ids.id[i];
        const TokenKind kind = (TokenKind)c->kind[i];
        CHECK(id >= 0 && id < tokenizer_vocab(tok) && kind < TOKEN_KINDS, "(id %d)", id);
        enter(&p, &c->ids, i);
        const bool stop = is(id, "<|tool_response>");
        CHECK(kind == TOKEN_CONTEXT || (p.model && !p.head), "(token %zu, kind %d)", i, (int)kind);
        if (kind == TOKEN_MODEL)
            CHECK((p.in == PLAIN || !made) && (!tokenizer_is_special(tok, id) || is(id, "<turn|>")),
                  "(token %zu)", i);
        if (kind == TOKEN_THOUGHT || kind == TOKEN_CHANNEL)
            CHECK(p.in == CHANNEL, "(token %zu)", i);
        if (kind == TOKEN_CALL) CHECK(p.in == CALL || (stop && p.called), "(token %zu)", i);
        if (made && p.model && !p.head && p.in != RESPONSE && !is_media(id) && !stop)
            CHECK(kind != TOKEN_CONTEXT, "(token %zu of the model is not supervised)", i);
        leave(&p, &c->ids, i);
    }
}

static ChatTokens encode(const json_t *messages, const json_t *tools, ChatOptions opt, bool want) {
    ChatTokens c = {0};
    Err err = {0};
    const bool ok = chat_encode(&c, tok, messages, tools, opt, &err);
    CHECK(ok == want, "(%s)", err.text);
    CHECK(ok || (err.code == ERR_INPUT && err.text[0] != '\0'));
    return c;
}

static void text_comes_back(const Ids *ids, char *rendered, size_t size) {
    size_t back_size, n = 0;
    char *back = tokenizer_decode(tok, ids->id, ids->n, false, &back_size);
    for (size_t i = 0; i < size;) { // U+2581 decodes to a blank
        const bool blank = size - i >= 3 && memcmp(rendered + i, "\u2581", 3) == 0;
        rendered[n++] = blank ? ' ' : rendered[i];
        i += blank ? 3 : 1;
    }
    CHECK(back_size == n && memcmp(back, rendered, n) == 0, "the text does not come back");
    free(back);
}

static size_t last_model_turn(const Ids *ids) {
    size_t at = 0;
    for (size_t i = 0; i < ids->n; i++)
        if (opens_model(ids, i)) at = i;
    return at;
}

static void check(const json_t *messages, const json_t *tools, ChatOptions opt, bool made) {
    Err err = {0};
    size_t size = 0;
    char *rendered = chat_render(messages, tools, opt, &size, &err);
    CHECK(rendered != NULL || (err.code == ERR_INPUT && err.text[0] != '\0'));
    ChatTokens all = encode(messages, tools, opt, rendered != NULL);
    opt.generation_prompt = true;
    ChatTokens open = encode(messages, tools, opt, rendered != NULL);
    opt.generation_prompt = false, opt.last_turn_only = true;
    ChatTokens last = encode(messages, tools, opt, rendered != NULL);
    if (rendered != NULL) {
        text_comes_back(&all.ids, rendered, size);
        mask_holds(&all, made);
        CHECK(open.ids.n >= all.ids.n && last.ids.n == all.ids.n);
        CHECK(memcmp(open.ids.id, all.ids.id, all.ids.n * sizeof(int32_t)) == 0);
        CHECK(memcmp(last.ids.id, all.ids.id, all.ids.n * sizeof(int32_t)) == 0);
        CHECK(memcmp(open.kind, all.kind, all.ids.n) == 0);
        for (size_t i = all.ids.n; i < open.ids.n; i++) CHECK(open.kind[i] == TOKEN_CONTEXT);
        const size_t from = last_model_turn(&all.ids);
        for (size_t i = 0; i < all.ids.n; i++) {
            const bool kept = last.kind[i] == all.kind[i], context = last.kind[i] == TOKEN_CONTEXT;
            CHECK(made ? (i < from ? context : kept) : kept || context, "(token %zu)", i);
        }
    }
    chat_tokens_free(&all);
    chat_tokens_free(&open);
    chat_tokens_free(&last);
    free(rendered);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    const ChatOptions opt = {.tmpl = (ChatTemplate)(data[0] % 3),
                             .thinking = data[0] & 16,
                             .preserve_thinking = data[0] & 32};
    json_t *messages = NULL, *tools = NULL, *line = NULL;
    Err err = {0};
    const bool made = data[1] != '{';
    if (made) {
        Choices c = {data + 1, data + size};
        tools = made_tools(&c);
        messages = json_array();
        while (c.at < c.end && json_array_size(messages) < 12)
            json_array_append_new(messages, message(&c));
    } else if ((line = chat_json_read((const char *)data + 1, size - 1, &err)) != NULL) {
        messages = json_incref(json_object_get(line, "messages"));
        tools = json_incref(json_object_get(line, "tools"));
    }
    if (messages != NULL) check(messages, tools, opt, made);
    json_decref(messages);
    json_decref(tools);
    json_decref(line);
    return 0;
}
