// infer/text/chat_content.c - what stands inside a turn: texts, parts, placeholders of media.
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat_turn.h"
#include "infer/text/chat_value.h"

bool turn_refuse(Render *r, const char *why) {
    return err_set(r->err, ERR_INPUT, "%s", why);
}

static void trimmed(ChatText *c, const json_t *v) {
    Bytes text = {0};
    value_str(&text, v);
    const char *from = text.text;
    size_t size = text.size;
    strip(&from, &size);
    chat_content(c, from, size);
    free(text.text);
}

// A block that is never closed goes, too.
char *chat_visible(const char *text, size_t size, size_t *left) {
    static const char OPEN[] = "<|channel>", CLOSE[] = "<channel|>";
    const char *p = text, *end = p + size;
    Bytes kept = {0};
    bytes_add(&kept, "", 0);
    while (p < end) {
        const char *close = memmem(p, (size_t)(end - p), CLOSE, strlen(CLOSE));
        const char *stop = close ? close : end;
        const char *open = memmem(p, (size_t)(stop - p), OPEN, strlen(OPEN));
        bytes_add(&kept, p, (size_t)((open ? open : stop) - p));
        p = close ? close + strlen(CLOSE) : end;
    }
    const char *from = kept.text;
    *left = kept.size;
    strip(&from, left);
    memmove(kept.text, from, *left);
    kept.text[*left] = '\0';
    return kept.text;
}

static bool without_thinking(Render *r, const json_t *v) {
    if (!value_is_string(v)) return turn_refuse(r, "the text of a model message is not a string");
    size_t size;
    char *text = chat_visible(json_string_value(v), json_string_length(v), &size);
    chat_content(r->c, text, size);
    free(text);
    return true;
}

static bool one_text(Render *r, const json_t *text, bool model) {
    if (model) return without_thinking(r, text);
    trimmed(r->c, text);
    return true;
}

const char *turn_media(const json_t *type, bool april) {
    if (value_equals(type, "image") || (!april && value_equals(type, "image_url")))
        return "<|image|>";
    if (value_equals(type, "audio") || (!april && value_equals(type, "input_audio")))
        return "<|audio|>";
    return value_equals(type, "video") ? "<|video|>" : NULL;
}

static bool content_parts(Render *r, const json_t *parts, bool model) {
    json_t *items = value_items(parts);
    bool ok = true;
    for (size_t i = 0; i < json_array_size(items) && ok; i++) {
        const json_t *item = json_array_get(items, i), *type = value_get(item, "type");
        const char *place = turn_media(type, r->april);
        if (!r->april && !json_is_object(item)) {
            ok = turn_refuse(r, "a content part is not an object");
        } else if (value_equals(type, "text")) {
            ok = one_text(r, value_get(item, "text"), model);
        } else if (place != NULL) {
            const TokenKind kind = r->c->kind;
            r->c->kind = TOKEN_CONTEXT; // no target writes these
            chat_markup(r->c, place);
            r->c->kind = kind;
            if (r->april) r->previous = PREV_MEDIA;
        }
    }
    json_decref(items);
    return ok;
}

bool turn_content(Render *r, const json_t *message, bool model) {
    const json_t *v = value_get(message, "content");
    if (value_is_string(v)) return one_text(r, v, model);
    if (v == NULL || json_is_array(v) || json_is_object(v)) return content_parts(r, v, model);
    return true;
}

void turn_system(Render *r, const json_t *v) {
    if (r->april || value_is_string(v)) {
        trimmed(r->c, v);
        return;
    }
    if (v != NULL && !json_is_array(v) && !json_is_object(v)) return;
    json_t *items = value_items(v);
    for (size_t i = 0; i < json_array_size(items); i++) {
        trimmed(r->c, value_get(json_array_get(items, i), "text"));
        chat_markup(r->c, " ");
    }
    json_decref(items);
}
