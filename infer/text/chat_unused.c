// infer/text/chat_unused.c - the other side of chat_render.c: every branch there that writes
// nothing.
#include "infer/text/chat_unused.h"

#include <stdio.h>
#include <string.h>

#include "infer/base/utf8.h"
#include "infer/text/chat_turn.h"
#include "infer/text/chat_value.h"

typedef struct {
    const json_t *messages;
    bool april;
    int64_t last_user;
    UnusedNote *note;
    void *ctx;
} Look;

static void say_quoted(const Look *l, const char *before, const char *name) {
    char shown[48], what[128];
    snprintf(what, sizeof what, "%s \"%s\"", before, utf8_fit(shown, sizeof shown, name));
    l->note(l->ctx, what);
}

static void look_at_keys(const Look *l, const json_t *message, bool tool) {
    static const char *const written[] = {"role",     "content",           "tool_calls",
                                          "thinking", "reasoning",         "tool_call_id",
                                          "name",     "reasoning_content", "tool_responses"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)message, key, value) {
        bool known = !value_true(value); // nothing in it
        for (size_t i = 0; i < sizeof written / sizeof *written; i++)
            known = known || strcmp(key, written[i]) == 0;
        if (!known || (!tool && value_true(value) && strcmp(key, "name") == 0))
            say_quoted(l, "the message key", key);
    }
}

static void look_at_text(const Look *l, const json_t *text, bool model) {
    if (model && value_is_string(text) && strstr(json_string_value(text), "<|channel>") != NULL)
        l->note(l->ctx, "<|channel> blocks within the text of a model turn");
}

static void look_at_part(const Look *l, const json_t *part, bool model) {
    const json_t *type = value_get(part, "type");
    if (value_equals(type, "text"))
        look_at_text(l, value_get(part, "text"), model);
    else if (turn_media(type, l->april) != NULL)
        l->note(l->ctx, "images, audio and video: only their placeholders are written");
    else if (value_is_string(type))
        say_quoted(l, "content parts of type", json_string_value(type));
    else
        l->note(l->ctx, "content parts without a type");
}

static void look_at_content(const Look *l, const json_t *v, bool model) {
    size_t i;
    json_t *part;
    if (value_is_string(v))
        look_at_text(l, v, model);
    else if (json_is_array(v))
        json_array_foreach((json_t *)v, i, part) look_at_part(l, part, model);
    else if (value_true(v))
        l->note(l->ctx, "content that is neither a text nor a list of parts");
}

static bool any_reasoning(const json_t *message) {
    return value_true(value_get(message, "reasoning")) ||
           value_true(value_get(message, "reasoning_content")) ||
           value_true(value_get(message, "thinking"));
}

static void look_at_reasoning(const Look *l, const json_t *message, int64_t i) {
    const bool late = i > l->last_user;
    if (!any_reasoning(message)) return;
    if (!late)
        l->note(l->ctx, "the reasoning of earlier turns");
    else if (l->april && !value_true(value_get(message, "tool_calls")))
        l->note(l->ctx, "the reasoning of an answer without tool calls");
}

// A tool message is written with the calls of the nearest message before it.
static bool is_answered_call(const Look *l, int64_t i) {
    const json_t *m = NULL;
    for (int64_t k = i - 1; k >= 0; k--) {
        m = json_array_get(l->messages, (size_t)k);
        if (!value_equals(value_get(m, "role"), "tool")) break;
        m = NULL;
    }
    return value_true(value_get(m, "tool_calls")) && !value_true(value_get(m, "tool_responses"));
}

void chat_unused(const json_t *messages, size_t from, ChatTemplate tmpl, UnusedNote *note,
                 void *ctx) {
    Look l = {messages, tmpl == CHAT_LARGE_2026_04, -1, note, ctx};
    const int64_t n = (int64_t)json_array_size(messages);
    for (int64_t i = 0; i < n; i++)
        if (value_equals(value_get(json_array_get(messages, (size_t)i), "role"), "user"))
            l.last_user = i;
    for (int64_t i = (int64_t)from; i < n; i++) {
        const json_t *m = json_array_get(messages, (size_t)i), *role = value_get(m, "role");
        const bool tool = value_equals(role, "tool");
        const bool model = value_equals(role, "assistant") || value_equals(role, "model");
        look_at_keys(&l, m, tool);
        if (tool && !is_answered_call(&l, i))
            note(ctx, "tool messages behind no tool call");
        else if (!tool || json_is_array(value_get(m, "content"))) // any response is written
            look_at_content(&l, value_get(m, "content"), model);
        look_at_reasoning(&l, m, i);
    }
}
