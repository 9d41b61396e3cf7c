// data/row_messages.c - messages as people write them to messages as the templates take them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/row.h"
#include "infer/text/chat_json.h"

typedef struct {
    const RowOptions *opt;
    Row *row;
    const char *name; // of the list
    size_t i;         // of the message
    json_t *calls;    // tool_calls that the next tool messages answer; borrowed
    json_t *late;     // text behind the responses in a message that holds them; owned
    bool media;
    Err *err;
} Reader;

static bool refuse(Reader *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool refuse(Reader *r, const char *fmt, ...) {
    char why[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    return err_set(r->err, ERR_INPUT, "%s[%zu]%s", r->name, r->i, why);
}

static bool given(const json_t *v) {
    return v && !json_is_null(v);
}

bool says_nothing(const json_t *v) {
    const char *text = json_string_value(v);
    return !given(v) || (text && (json_string_length(v) == 0 || !strcmp(text, "null")));
}

const char *media_name(const char *type) {
    static const struct {
        const char *type, *name;
    } known[] = {{"image", "an image"},  {"image_url", "an image"}, {"input_image", "an image"},
                 {"images", "images"},   {"audio", "sound"},        {"input_audio", "sound"},
                 {"audio_url", "sound"}, {"audios", "sound"},       {"video", "video"},
                 {"video_url", "video"}, {"videos", "video"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].type, type)) return known[i].name;
    return NULL;
}

// Who speaks, in the templates' words; NULL: nobody known here.
static const char *role_of(const char *role) {
    static const char *const known[][2] = {{"user", "user"},
                                           {"human", "user"},
                                           {"assistant", "assistant"},
                                           {"gpt", "assistant"},
                                           {"model", "assistant"},
                                           {"chatgpt", "assistant"},
                                           {"system", "system"},
                                           {"developer", "developer"},
                                           {"tool", "tool"},
                                           {"observation", "tool"},
                                           {"function_response", "tool"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i][0], role)) return known[i][1];
    return NULL;
}

// A list of parts: text alone is content; what is no text is skipped (media) or refused.
static bool check_parts(Reader *r, const json_t *parts) {
    size_t i;
    json_t *part;
    json_array_foreach((json_t *)parts, i, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!json_is_object(part) || !type)
            return refuse(r, ".content[%zu] is not a part with a type", i);
        if (media_name(type)) {
            r->media = true;
            return refuse(r, ".content[%zu] is %s", i, media_name(type));
        }
        if (strcmp(type, "text") != 0)
            return refuse(r, ".content[%zu] has the unknown type \"%.100s\"", i, type);
        if (!json_is_string(json_object_get(part, "text")))
            return refuse(r, ".content[%zu] has no text", i);
    }
    return true;
}

static bool check_content(Reader *r, const json_t *content, const char *role) {
    if (json_is_array(content)) return check_parts(r, content);
    if (!given(content) || json_is_string(content)) return true;
    return refuse(r, " (%s) has content that is neither a text nor a list of parts", role);
}

static bool is_empty(const json_t *content) {
    return !given(content) || (json_is_string(content) && json_string_length(content) == 0) ||
           (json_is_array(content) && json_array_size(content) == 0);
}

// Arguments as an object, whether they were one or the text of one. New reference.
static json_t *read_arguments(Reader *r, size_t k, json_t *v) {
    if (json_is_object(v)) return json_incref(v);
    if (says_nothing(v)) return json_object();
    Err why = {0};
    json_t *o = json_is_string(v)
                    ? chat_json_read(json_string_value(v), json_string_length(v), &why)
                    : NULL;
    if (json_is_object(o)) return o;
    json_decref(o);
    refuse(r, ".tool_calls[%zu] has arguments that are no JSON object%s%.200s", k,
           why.code ? ": " : "", why.text);
    return NULL;
}

static json_t *read_call(Reader *r, size_t k, json_t *call) {
    json_t *function = json_object_get(call, "function");
    if (!function && json_object_get(call, "name")) function = call; // without its envelope
    json_t *name = json_object_get(function, "name"), *id = json_object_get(call, "id");
    if (!json_is_string(name)) {
        refuse(r, ".tool_calls[%zu] has no function name", k);
        return NULL;
    }
    json_t *arguments = read_arguments(r, k, json_object_get(function, "arguments"));
    if (!arguments) return NULL;
    json_t *out = json_pack("{s:{s:O, s:o}}", "function", "name", name, "arguments", arguments);
    if (given(id)) json_object_set(out, "id", id);
    return out;
}

// New reference; NULL with err set.
static json_t *read_calls(Reader *r, const json_t *list) {
    size_t k;
    json_t *call, *out = json_array();
    bool ok = json_is_array(list) || refuse(r, ".tool_calls is not a list");
    json_array_foreach((json_t *)list, k, call) {
        json_t *one = ok ? read_call(r, k, call) : NULL;
        ok = one && json_array_append_new(out, one) == 0;
    }
    if (ok) return out;
    json_decref(out);
    return NULL;
}

static json_t *add(Reader *r, const char *role) {
    json_t *m = json_pack("{s:s}", "role", role);
    json_array_append_new(r->row->messages, m);
    return m;
}

// Keys that nobody here reads go along: chat_unused tells of them.
static void pass_on(json_t *to, const json_t *message) {
    static const char *const known[] = {"role",         "from",       "content",
                                        "value",        "reasoning",  "reasoning_content",
                                        "thinking",     "tool_calls", "tool_responses",
                                        "tool_call_id", "images"};
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)message, key, v) {
        bool read = json_object_get(to, key) != NULL;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            read = read || strcmp(key, known[i]) == 0;
        if (!read) json_object_set(to, key, v);
    }
}

// Text of a message that holds the responses to its own calls: said when they are there.
static void say_late(Reader *r) {
    if (r->late) json_object_set_new(add(r, "assistant"), "content", r->late);
    r->late = NULL;
    r->calls = NULL;
}

// The name of the call that a response answers: as the templates find it.
static const char *answered(const Reader *r, const json_t *message) {
    const json_t *wanted = json_object_get(message, "tool_call_id");
    const char *name = json_string_value(json_object_get(message, "name"));
    size_t k;
    json_t *call;
    if (!name || !*name) name = "unknown";
    json_array_foreach(r->calls, k, call) {
        const json_t *id = json_object_get(call, "id");
        if (given(id) ? json_equal((json_t *)id, (json_t *)wanted) : !given(wanted))
            name = json_string_value(json_object_get(json_object_get(call, "function"), "name"));
    }
    return name;
}

static json_t *joined(const json_t *parts) {
    size_t i, used = 0, room = 1;
    json_t *part;
    json_array_foreach((json_t *)parts, i, part) room +=
        json_string_length(json_object_get(part, "text"));
    char *text = malloc(room);
    CHECK_MEMORY(text);
    json_array_foreach((json_t *)parts, i, part) {
        const json_t *t = json_object_get(part, "text");
        memcpy(text + used, json_string_value(t), json_string_length(t));
        used += json_string_length(t);
    }
    json_t *out = json_stringn(text, used);
    free(text);
    return out;
}

static bool add_response(Reader *r, const char *name, json_t *content) {
    if (!r->calls) return refuse(r, " (tool) answers no call: none stands before it");
    if (json_is_array(content) && !check_parts(r, content)) return false;
    json_t *m = add(r, "tool");
    json_object_set_new(m, "name", json_string(name));
    json_object_set_new(m, "content",
                        json_is_array(content) ? joined(content)
                        : content              ? json_incref(content)
                                               : json_null());
    return true;
}

// Older form: the responses stand in the message that made the calls.
static bool own_responses(Reader *r, const json_t *list) {
    size_t k;
    json_t *item;
    if (!given(list)) return true;
    if (!json_is_array(list)) return refuse(r, ".tool_responses is not a list");
    json_array_foreach((json_t *)list, k, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!json_is_object(item)) return refuse(r, ".tool_responses[%zu] is not an object", k);
        if (!add_response(r, name && *name ? name : "unknown", json_object_get(item, "response")))
            return false;
    }
    return true;
}

static bool add_reasoning(Reader *r, json_t *to, const json_t *message) {
    static const char *const names[] = {"reasoning", "reasoning_content", "thinking"};
    for (size_t i = 0; i < 3 && !r->opt->drop_reasoning; i++) {
        json_t *v = json_object_get(message, names[i]);
        if (is_empty(v)) continue;
        if (!json_is_string(v)) return refuse(r, ".%s is not a text", names[i]);
        r->row->reasoned = true;
        return json_object_set(to, "reasoning", v) == 0;
    }
    return true;
}

static bool add_assistant(Reader *r, const json_t *message, json_t *content) {
    const json_t *list = json_object_get(message, "tool_calls"),
                 *responses = json_object_get(message, "tool_responses");
    json_t *m = add(r, "assistant");
    if (!add_reasoning(r, m, message)) return false;
    const bool calls = given(list) && !(json_is_array(list) && json_array_size(list) == 0);
    if (calls) {
        json_t *read = read_calls(r, list);
        if (!read) return false;
        json_object_set_new(m, "tool_calls", read);
        r->calls = read;
    }
    if (calls && given(responses) && !is_empty(content))
        r->late = json_incref(content);
    else if (!calls || !is_empty(content))
        json_object_set_new(m, "content", content ? json_incref(content) : json_null());
    return own_responses(r, responses);
}

static bool take_message(Reader *r, const json_t *message, const char *role, json_t *content) {
    if (!strcmp(role, "tool")) return add_response(r, answered(r, message), content);
    if (!check_content(r, content, role)) return false;
    if (!strcmp(role, "assistant")) return add_assistant(r, message, content);
    if (!given(content)) return refuse(r, " (%s) has no content", role);
    json_object_set(add(r, role), "content", content);
    return true;
}

static bool read_message(Reader *r, const json_t *message) {
    const bool spoken = !json_object_get(message, "role") && json_object_get(message, "from");
    const char *who = json_string_value(json_object_get(message, spoken ? "from" : "role"));
    json_t *content = json_object_get(message, spoken ? "value" : "content");
    if (!json_is_object(message)) return refuse(r, " is not an object");
    if (!who) return refuse(r, " has no role");
    const char *role = role_of(who);
    if (!role) return refuse(r, " has the unknown role \"%.100s\"", who);
    if (!is_empty(json_object_get(message, "images"))) {
        r->media = true;
        return refuse(r, " holds images");
    }
    if (strcmp(role, "tool") != 0) say_late(r);
    const size_t at = json_array_size(r->row->messages);
    if (!take_message(r, message, role, content)) return false;
    pass_on(json_array_get(r->row->messages, at), message);
    return true;
}

RowVerdict messages_read(Row *out, const json_t *list, const char *name, const RowOptions *opt,
                         Err *err) {
    Reader r = {.opt = opt, .row = out, .name = name, .err = err};
    if (!json_is_array(list)) {
        err_set(err, ERR_INPUT, "\"%s\" is not a list", name);
        return ROW_REFUSED;
    }
    bool ok = true;
    for (; r.i < json_array_size(list) && ok; r.i++) {
        ok = read_message(&r, json_array_get(list, r.i));
        if (!ok) break;
    }
    if (ok) say_late(&r);
    json_decref(r.late);
    return ok ? ROW_READ : r.media ? ROW_MEDIA : ROW_REFUSED;
}

json_t *row_rendered(const Row *r, size_t n) {
    json_t *out = json_array(), *caller = NULL;
    for (size_t i = 0; i < n; i++) {
        json_t *m = json_array_get(r->messages, i);
        if (strcmp(json_string_value(json_object_get(m, "role")), "tool") != 0) {
            caller = json_copy(m);
            json_array_append_new(out, caller);
            continue;
        }
        json_t *list = json_object_get(caller, "tool_responses");
        if (!list) json_object_set_new(caller, "tool_responses", list = json_array());
        json_array_append_new(list, json_pack("{s:O, s:O}", "name", json_object_get(m, "name"),
                                              "response", json_object_get(m, "content")));
    }
    return out;
}
