// data/row.c - the shape of an object, found from its keys; names, media, tools.
#include "data/row.h"

#include <stdio.h>
#include <string.h>

#include "infer/base/hash.h"
#include "infer/base/utf8.h"
#include "infer/text/chat_json.h"

static json_t *find(const json_t *o, const char *key) {
    json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

// A name that is too long keeps its beginning and a hash of the whole.
static void fit(char *out, size_t room, const char *text) {
    if (strlen(text) < room) {
        utf8_fit(out, room, text);
        return;
    }
    char tail[20];
    snprintf(tail, sizeof tail, "~%016llx", (unsigned long long)xxh3_64(text, strlen(text)));
    utf8_fit(out, room - strlen(tail), text);
    strcat(out, tail);
}

// The first of the keys that is there, as text; false: it is neither text nor number.
static bool label(char *out, size_t room, const json_t *o, const char *const *keys, Err *err) {
    const json_t *v = NULL;
    char number[32];
    for (; *keys && !v; keys++) v = find(o, *keys);
    if (json_is_string(v)) {
        fit(out, room, json_string_value(v));
    } else if (json_is_integer(v)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        fit(out, room, number);
    } else if (v) {
        return err_set(err, ERR_INPUT, "\"%s\" is neither a text nor a number", keys[-1]);
    }
    return true;
}

static bool read_labels(Row *r, const CorpusLine *line, Err *err) {
    static const char *const ids[] = {"id", "question_id", "prompt_id", NULL};
    static const char *const categories[] = {"category", NULL};
    static const char *const subs[] = {"sub_category", "subcategory", NULL};
    char sub[64] = "", both[130];
    fit(r->id, sizeof r->id, line->where); // a name even where the row has none
    if (!label(r->id, sizeof r->id, line->value, ids, err)) return false;
    if (!label(r->category, sizeof r->category, line->value, categories, err) ||
        !label(sub, sizeof sub, line->value, subs, err))
        return false;
    if (sub[0]) {
        snprintf(both, sizeof both, "%s/%s", r->category, sub);
        fit(r->category, sizeof r->category, both);
    }
    return true;
}

static bool is_filled(const json_t *v) {
    return json_array_size(v) > 0 || json_string_length(v) > 0 || json_object_size(v) > 0;
}

static bool has_media(const CorpusLine *line, Err *err) {
    static const char *const keys[] = {"image", "images", "audio", "audios", "video", "videos"};
    if (line->media) {
        err_set(err, ERR_INPUT, "its group in the archive holds images, sound or video");
        return true;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (!is_filled(json_object_get(line->value, keys[i]))) continue;
        err_set(err, ERR_INPUT, "\"%s\" holds %s", keys[i], media_name(keys[i]));
        return true;
    }
    return false;
}

// A list, or the text of one; functions with or without their envelope.
static bool read_tools(Row *r, const json_t *v, Err *err) {
    Err why = {0};
    size_t i;
    json_t *tool, *list = NULL;
    if (says_nothing(v)) return true;
    if (json_is_string(v))
        list = chat_json_read(json_string_value(v), json_string_length(v), &why);
    else
        list = json_incref((json_t *)v);
    if (!json_is_array(list)) {
        json_decref(list);
        return err_set(err, ERR_INPUT, "\"tools\" is not a list%s%.200s", why.code ? ": " : "",
                       why.text);
    }
    r->tools = json_array();
    json_array_foreach(list, i, tool) {
        const bool bare = !json_object_get(tool, "function") && json_object_get(tool, "name");
        json_array_append_new(r->tools,
                              bare ? json_pack("{s:s, s:O}", "type", "function", "function", tool)
                                   : json_incref(tool));
    }
    json_decref(list);
    return true;
}

// User turns of a suite: the answers between them are still to be given.
static bool read_turns(Row *r, const json_t *turns, Err *err) {
    size_t i;
    json_t *turn;
    json_array_foreach((json_t *)turns, i, turn) {
        if (!json_is_string(turn)) return err_set(err, ERR_INPUT, "turns[%zu] is not a text", i);
        if (i > 0)
            json_array_append_new(r->messages,
                                  json_pack("{s:s, s:s}", "role", "assistant", "content", "-"));
        json_array_append_new(r->messages,
                              json_pack("{s:s, s:O}", "role", "user", "content", turn));
    }
    r->unanswered = true;
    return true;
}

// One half of a completion: a text, or messages.
static RowVerdict read_half(Row *r, const char *key, json_t *v, const char *role,
                            const RowOptions *opt, Err *err) {
    if (json_is_array(v)) return messages_read(r, v, key, opt, err);
    if (!json_is_string(v)) {
        err_set(err, ERR_INPUT, "\"%s\" is neither a text nor a list of messages", key);
        return ROW_REFUSED;
    }
    json_array_append_new(r->messages, json_pack("{s:s, s:O}", "role", role, "content", v));
    return ROW_READ;
}

static bool read_tokens(Row *r, const json_t *o, const json_t *ids, Err *err) {
    r->form = ROW_TOKENS;
    r->ids = ids;
    r->mask = find(o, "loss_mask");
    if (!json_is_array(ids)) return err_set(err, ERR_INPUT, "\"input_ids\" is not a list");
    if (r->mask && json_array_size(r->mask) != json_array_size(ids))
        return err_set(err, ERR_INPUT, "\"loss_mask\" has %zu entries, \"input_ids\" %zu",
                       json_array_size(r->mask), json_array_size(ids));
    return true;
}

static RowVerdict read_shape(Row *r, const json_t *o, const RowOptions *opt, Err *err) {
    const char *ask = opt->prompt_key ? opt->prompt_key : "prompt",
               *say = opt->completion_key ? opt->completion_key : "completion";
    json_t *v;
    if ((v = find(o, "messages")) != NULL) return messages_read(r, v, "messages", opt, err);
    if ((v = find(o, "conversations")) != NULL)
        return messages_read(r, v, "conversations", opt, err);
    if (json_is_array(v = find(o, "turns"))) return read_turns(r, v, err) ? ROW_READ : ROW_REFUSED;
    if ((v = find(o, "input_ids")) != NULL)
        return read_tokens(r, o, v, err) ? ROW_READ : ROW_REFUSED;
    if ((v = find(o, ask)) != NULL) {
        const RowVerdict verdict = read_half(r, ask, v, "user", opt, err);
        if (verdict != ROW_READ || !(v = find(o, say))) return verdict;
        return read_half(r, say, v, "assistant", opt, err);
    }
    if (json_is_string(v = find(o, "text"))) {
        r->form = ROW_TEXT;
        r->text = json_string_value(v);
        r->text_size = json_string_length(v);
        return ROW_READ;
    }
    err_set(err, ERR_INPUT,
            "no shape that is known: none of messages, conversations, turns, input_ids, %s, text",
            ask);
    return ROW_REFUSED;
}

RowVerdict row_read(Row *out, const CorpusLine *line, const RowOptions *opt, Err *err) {
    *out = (Row){.messages = json_array()};
    RowVerdict verdict = ROW_REFUSED;
    if (read_labels(out, line, err) && read_tools(out, find(line->value, "tools"), err))
        verdict = has_media(line, err) ? ROW_MEDIA : read_shape(out, line->value, opt, err);
    if (verdict == ROW_READ && out->form == ROW_CHAT && json_array_size(out->messages) == 0) {
        err_set(err, ERR_INPUT, "no messages in it");
        verdict = ROW_REFUSED;
    }
    return verdict;
}

void row_free(Row *r) {
    json_decref(r->messages);
    json_decref(r->tools);
    r->messages = r->tools = NULL;
}
