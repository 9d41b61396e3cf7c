// infer/text/chat_render.c - the message loop of the published templates.
#include "infer/text/chat_render.h"

#include <stdlib.h>

#include "infer/text/chat_turn.h"
#include "infer/text/chat_value.h"

static const json_t *message_at(const Render *r, size_t i) {
    return json_array_get(r->messages, i);
}
static const json_t *role_at(const Render *r, size_t i) {
    return value_get(message_at(r, i), "role");
}

// reasoning, else the first of reasoning_content, thinking, reasoning that is not null
// (transformers copies those into reasoning_content before the template sees them).
static const json_t *reasoning_of(const json_t *message) {
    const json_t *own = value_get(message, "reasoning");
    if (value_true(own)) return own;
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = value_get(message, names[i]);
        if (v != NULL && !json_is_null(v)) return value_true(v) ? v : NULL;
    }
    return NULL;
}

static bool thought(Render *r, const json_t *message, size_t i) {
    const json_t *text = reasoning_of(message);
    const bool calls = value_true(value_get(message, "tool_calls"));
    const bool late = (int64_t)i > r->last_user;
    const bool shown = r->april ? late && calls : late || (r->opt.preserve_thinking && calls);
    if (text == NULL || !shown) return true;
    if (!value_is_string(text)) return turn_refuse(r, "the reasoning of a message is not a string");
    const TokenKind kind = r->c->kind;
    const bool own = kind != TOKEN_CONTEXT;
    if (own) r->c->kind = TOKEN_CHANNEL;
    chat_markup(r->c, "<|channel>");
    chat_markup(r->c, "thought\n");
    if (own) r->c->kind = TOKEN_THOUGHT;
    chat_content(r->c, json_string_value(text), json_string_length(text));
    chat_markup(r->c, "\n");
    if (own) r->c->kind = TOKEN_CHANNEL;
    chat_markup(r->c, "<channel|>");
    r->c->kind = kind;
    return true;
}

static bool one_call(Render *r, const json_t *call) {
    const json_t *function = value_get(call, "function"), *name = value_get(function, "name");
    const json_t *arguments = value_get(function, "arguments");
    if (!value_is_string(name)) return turn_refuse(r, "a tool call without function.name");
    chat_markup(r->c, "<|tool_call>");
    chat_markup(r->c, "call:");
    chat_content(r->c, json_string_value(name), json_string_length(name));
    chat_markup(r->c, "{");
    if (json_is_object(arguments)) {
        render_members(r->c, arguments, r->april);
    } else if (r->april) {
        if (value_is_string(arguments))
            chat_content(r->c, json_string_value(arguments), json_string_length(arguments));
    } else if (!json_is_null(arguments)) {
        return turn_refuse(r,
                           "tool_calls[].function.arguments must be a JSON object (mapping), not a "
                           "string; deserialize arguments before passing them to the template");
    }
    chat_markup(r->c, "}");
    chat_markup(r->c, "<tool_call|>");
    return true;
}

static bool calls(Render *r, const json_t *list) {
    if (!value_true(list)) return true;
    if (!json_is_array(list)) return turn_refuse(r, "tool_calls is not a list");
    const TokenKind kind = r->c->kind;
    if (kind != TOKEN_CONTEXT) r->c->kind = TOKEN_CALL;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!one_call(r, json_array_get(list, i))) return false;
    r->c->kind = kind;
    r->previous = PREV_CALL;
    return true;
}

// The model stops by opening the first response to its calls; everything behind is given to it.
static bool response(Render *r, const json_t *name, const json_t *body) {
    const TokenKind kind = r->c->kind;
    r->c->kind = r->previous == PREV_CALL && kind != TOKEN_CONTEXT ? TOKEN_CALL : TOKEN_CONTEXT;
    chat_markup(r->c, "<|tool_response>");
    r->c->kind = TOKEN_CONTEXT;
    const bool ok = render_response(r->c, name, body, r->april, r->err);
    r->c->kind = kind;
    r->previous = PREV_RESPONSE;
    return ok;
}

// Older form: responses on the assistant message itself.
static bool own_responses(Render *r, const json_t *list) {
    if (!json_is_array(list)) return turn_refuse(r, "tool_responses is not a list");
    json_t *unknown = json_string("unknown");
    bool ok = true;
    for (size_t i = 0; i < json_array_size(list) && ok; i++) {
        const json_t *item = json_array_get(list, i), *name = value_get(item, "name");
        if (r->april ? name == NULL : !value_true(name)) name = unknown;
        ok = response(r, name, value_get(item, "response"));
    }
    json_decref(unknown);
    return ok;
}

// The name a tool message answers for: that of the last call with its id, else its own.
static const json_t *response_name(const Render *r, const json_t *message, const json_t *follow,
                                   const json_t *unknown) {
    const json_t *list = value_get(message, "tool_calls"),
                 *wanted = value_get(follow, "tool_call_id");
    const json_t *name = value_get(follow, "name"), *none = json_null();
    if (r->april && name == NULL) name = none;
    if (!r->april && !value_true(name)) name = unknown;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *call = json_array_get(list, i), *id = value_get(call, "id");
        if (json_equal(id ? id : none, wanted ? wanted : none))
            name = value_get(value_get(call, "function"), "name");
    }
    return name;
}

// All text parts of a tool message joined, then the placeholders of its media (July).
static bool response_parts(Render *r, const json_t *name, const json_t *parts) {
    json_t *items = value_items(parts);
    Bytes text = {0};
    bool ok = true;
    bytes_add(&text, "", 0);
    for (size_t i = 0; i < json_array_size(items) && ok; i++) {
        const json_t *part = json_array_get(items, i), *t = value_get(part, "text");
        if (!json_is_object(part)) {
            ok = turn_refuse(
                r, "the content of a tool message is a mapping, or one of its parts is not; "
                   "give a string, or the mapping in tool_responses");
        } else if (value_equals(value_get(part, "type"), "text")) {
            if (value_is_string(t))
                bytes_add(&text, json_string_value(t), json_string_length(t));
            else
                ok = turn_refuse(r, "a text part of a tool message has no text");
        }
    }
    json_t *joined = json_stringn(text.text, text.size);
    ok = ok && response(r, name, joined);
    const TokenKind kind = r->c->kind;
    r->c->kind = TOKEN_CONTEXT;
    for (size_t i = 0; i < json_array_size(items) && ok && !r->april; i++) {
        const char *place = turn_media(value_get(json_array_get(items, i), "type"), false);
        if (place != NULL) chat_markup(r->c, place);
    }
    r->c->kind = kind;
    json_decref(joined);
    json_decref(items);
    free(text.text);
    return ok;
}

// Tool messages that follow message i, written inside its turn. *any: there was one.
static bool following_responses(Render *r, const json_t *message, size_t i, bool *any) {
    json_t *unknown = json_string("unknown");
    bool ok = true;
    for (size_t k = i + 1; k < r->n && ok && value_equals(role_at(r, k), "tool"); k++) {
        const json_t *follow = message_at(r, k), *body = value_get(follow, "content");
        const json_t *name = response_name(r, message, follow, unknown);
        if (json_is_array(body) || json_is_object(body))
            ok = response_parts(r, name, body);
        else
            ok = response(r, name, body ? body : json_null());
        *any = true;
    }
    json_decref(unknown);
    return ok;
}

// Role of the nearest message in a direction that is no tool message, NULL = none.
static const json_t *neighbour_role(const Render *r, size_t i, int step) {
    for (size_t k = i; step > 0 ? k + 1 < r->n : k > r->first;) {
        k = step > 0 ? k + 1 : k - 1;
        if (!value_equals(role_at(r, k), "tool")) return role_at(r, k);
    }
    return NULL;
}

// Does anything but white space stand in the text from `from` on?
static bool written_since(const ChatText *c, size_t from) {
    const char *text = c->text + from;
    size_t size = c->size - from;
    if (size > 0) strip(&text, &size);
    return size > 0;
}

static void end_of_turn(Render *r, const json_t *message, size_t i, bool model, bool responded,
                        size_t content_at) {
    const json_t *next = neighbour_role(r, i, 1);
    const bool has_calls = value_true(value_get(message, "tool_calls"));
    bool open;
    if (r->previous == PREV_CALL && !responded) {
        if (r->c->kind != TOKEN_CONTEXT) r->c->kind = TOKEN_CALL;
        chat_markup(r->c, "<|tool_response>");
        return;
    }
    if (r->april) {
        open = responded && !value_true(value_get(message, "content"));
    } else {
        const bool continued =
            model && value_equals(next, "assistant") && (!has_calls || responded);
        open = continued || (responded && !written_since(r->c, content_at) && next == NULL);
    }
    if (open) return;
    chat_markup(r->c, "<turn|>");
    r->open = false;
    r->c->kind = TOKEN_CONTEXT;
    chat_markup(r->c, "\n");
}

static bool turn(Render *r, size_t i) {
    const json_t *message = message_at(r, i), *role = role_at(r, i);
    const bool assistant = value_equals(role, "assistant");
    const bool model = assistant || value_equals(role, "model");
    r->previous = PREV_NONE;
    r->c->kind = TOKEN_CONTEXT;
    if (!model || !value_equals(neighbour_role(r, i, -1), "assistant")) {
        if (model) r->c->last_turn = r->c->size;
        chat_markup(r->c, "<|turn>");
        if (model)
            chat_markup(r->c, "model");
        else
            chat_content(r->c, json_string_value(role), json_string_length(role));
        chat_markup(r->c, "\n");
        r->open = true;
    }
    // "model" behind "assistant": the templates close the one turn and do not open the other
    if (model && r->open) r->c->kind = TOKEN_MODEL;
    if (!thought(r, message, i) || !calls(r, value_get(message, "tool_calls"))) return false;
    const json_t *own = value_get(message, "tool_responses");
    bool responded = false;
    if (value_true(own)) {
        responded = true;
        if (!own_responses(r, own)) return false;
    } else if (value_true(value_get(message, "tool_calls"))) {
        if (!following_responses(r, message, i, &responded)) return false;
    }
    const size_t content_at = r->c->size;
    if (!turn_content(r, message, model)) return false;
    end_of_turn(r, message, i, model, responded, content_at);
    return true;
}

static bool system_turn(Render *r, const json_t *tools) {
    const json_t *role = role_at(r, 0);
    const bool given = value_equals(role, "system") || value_equals(role, "developer");
    if (r->april && r->n == 0) return turn_refuse(r, "no messages");
    if (!r->opt.thinking && !value_true(tools) && !given) return true;
    chat_markup(r->c, "<|turn>");
    chat_markup(r->c, "system\n");
    if (r->opt.thinking) chat_markup(r->c, "<|think|>");
    if (r->opt.thinking) chat_markup(r->c, "\n");
    if (given) turn_system(r, value_get(message_at(r, 0), "content"));
    r->first = given;
    for (size_t i = 0; i < json_array_size(tools); i++) {
        chat_markup(r->c, "<|tool>");
        if (!render_declaration(r->c, json_array_get(tools, i), r->april, r->err))
            return err_wrap(r->err, "tools[%zu]", i);
        chat_markup(r->c, "<tool|>");
    }
    chat_markup(r->c, "<turn|>");
    chat_markup(r->c, "\n");
    return true;
}

static void generation_prompt(Render *r) {
    r->c->kind = TOKEN_CONTEXT;
    if (r->previous != PREV_RESPONSE && r->previous != PREV_CALL) {
        chat_markup(r->c, "<|turn>");
        chat_markup(r->c, "model\n");
        if (r->opt.tmpl == CHAT_SMALL_2026_07 || r->opt.thinking) return;
        chat_markup(r->c, "<|channel>");
        chat_markup(r->c, "thought\n");
        chat_markup(r->c, "<channel|>");
    } else if (!r->april && r->previous == PREV_RESPONSE && r->opt.thinking) {
        chat_markup(r->c, "<|channel>");
        chat_markup(r->c, "thought\n");
    }
}

bool render_conversation(ChatText *c, const json_t *messages, const json_t *tools, ChatOptions opt,
                         Err *err) {
    Render r = {.c = c,
                .opt = opt,
                .april = opt.tmpl == CHAT_LARGE_2026_04,
                .messages = messages,
                .n = json_array_size(messages),
                .last_user = -1,
                .err = err};
    if (!json_is_array(messages)) return turn_refuse(&r, "messages is not a list");
    if (tools != NULL && !json_is_array(tools) && !json_is_null(tools))
        return turn_refuse(&r, "tools is not a list");
    for (size_t i = 0; i < r.n; i++) {
        if (!value_is_string(role_at(&r, i)))
            return err_set(err, ERR_INPUT, "messages[%zu] has no role", i);
        if (value_equals(role_at(&r, i), "user")) r.last_user = (int64_t)i;
    }
    chat_markup(c, "<bos>");
    if (!system_turn(&r, tools)) return false;
    for (size_t i = r.first; i < r.n; i++) {
        if (value_equals(role_at(&r, i), "tool")) continue;
        if (!turn(&r, i)) return err_wrap(err, "messages[%zu]", i);
    }
    if (opt.generation_prompt) generation_prompt(&r);
    return true;
}
