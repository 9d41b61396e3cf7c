// infer/text/chat.c - conversations to ids with kinds; which template a model folder carries.
#include "infer/text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/text/chat_render.h"

enum { TEMPLATE_LIMIT = 1 << 20 };

static const struct {
    const char *name, *sha256;
} TEMPLATES[] = {
    [CHAT_SMALL_2026_07] = {"small-2026-07-09",
                            "0a2c8073c878ab1da004bee933a998606537bbb62016310352c7285c3f01c5b5"},
    [CHAT_LARGE_2026_07] = {"large-2026-07-09",
                            "ae53464bf3be25802b3a5b37def7fd89667067d7577049b3b2d74c4d8de4c6d4"},
    [CHAT_LARGE_2026_04] = {"large-2026-04",
                            "85a08664d16d8f3be4416c92427b3ac10df1024ac566cc0b4bc3bab409393f98"},
};
enum { N_TEMPLATES = sizeof TEMPLATES / sizeof *TEMPLATES };

const char *chat_template_name(ChatTemplate t) {
    CHECK((unsigned)t < N_TEMPLATES, "template %d", (int)t);
    return TEMPLATES[t].name;
}

typedef struct {
    char text[128];
} Names;

static Names accepted(void) {
    Names names = {"auto"};
    for (size_t i = 0, n = strlen(names.text); i < N_TEMPLATES; i++)
        n += (size_t)snprintf(names.text + n, sizeof names.text - n, ", %s", TEMPLATES[i].name);
    return names;
}

bool chat_template_load(ChatTemplate *out, const char *dir, const char *name, Err *err) {
    const bool by_hash = strcmp(name, "auto") == 0;
    Sha256 hash = {""};
    char path[PATH_ROOM];
    if (by_hash) {
        size_t size;
        char *text =
            file_read(path_join(path, dir, "chat_template.jinja"), TEMPLATE_LIMIT, &size, err);
        const bool ok = text != NULL && sha256_bytes(&hash, text, size, err);
        free(text);
        if (!ok) return err_wrap(err, "data.chat_template auto (accepted: %s)", accepted().text);
    }
    for (int i = 0; i < N_TEMPLATES; i++) {
        if (strcmp(by_hash ? hash.hex : name, by_hash ? TEMPLATES[i].sha256 : TEMPLATES[i].name) !=
            0)
            continue;
        *out = (ChatTemplate)i;
        return true;
    }
    if (by_hash)
        return err_set(err, ERR_INPUT,
                       "%s: SHA-256 %s is no template known here; name the one to use "
                       "in data.chat_template (%s)",
                       path, hash.hex, accepted().text);
    return err_set(err, ERR_USAGE, "data.chat_template is \"%s\"; accepted: %s", name,
                   accepted().text);
}

void chat_tokens_free(ChatTokens *c) {
    ids_free(&c->ids);
    free(c->kind);
    *c = (ChatTokens){0};
}

char *chat_render(const json_t *messages, const json_t *tools, ChatOptions opt, size_t *size,
                  Err *err) {
    ChatText c = {0};
    char *text =
        render_conversation(&c, messages, tools, opt, err) ? chat_text_take(&c, size) : NULL;
    chat_text_free(&c);
    return text;
}

// Walks the spans beside the text while ids are appended.
typedef struct {
    ChatTokens *out;
    const Tokenizer *tok;
    const ChatText *c;
    size_t span;      // the one that holds the byte looked at last
    size_t keep_from; // bytes before are context whatever their span says
} Encoder;

// Kinds of the ids from `from` on, the first of which begins at byte `at`.
static void note_kinds(Encoder *e, size_t from, size_t at) {
    ChatTokens *out = e->out;
    if (out->ids.n > out->kind_room) {
        out->kind_room = out->ids.room;
        out->kind = realloc(out->kind, out->kind_room);
        CHECK_MEMORY(out->kind);
    }
    for (size_t i = from; i < out->ids.n; i++) {
        CHECK(at < e->c->size, "token %zu begins behind the text", i);
        while (e->c->span[e->span].end <= at) e->span++;
        out->kind[i] = at < e->keep_from ? TOKEN_CONTEXT : e->c->span[e->span].kind;
        const size_t left = e->c->size - at;
        at += tokenizer_is_special(e->tok, out->ids.id[i])
                  ? left
                  : tokenizer_span(e->tok, out->ids.id[i], e->c->text + at, left);
    }
}

// Text between two added tokens is one run, whoever wrote it: merges cross from markup into content
// exactly as they do when the whole string is tokenised.
static void encode_between(Encoder *e, size_t from, size_t to) {
    const size_t n = e->out->ids.n;
    tokenizer_encode(e->tok, e->c->text + from, to - from, false, &e->out->ids);
    note_kinds(e, n, from);
}

static void encode_text(Encoder *e) {
    size_t from = 0, at = 0;
    for (size_t s = 0; s < e->c->n_spans; at = e->c->span[s++].end) {
        const size_t end = e->c->span[s].end;
        while (e->c->span[s].markup && at < end) {
            size_t length;
            const int32_t id = tokenizer_added(e->tok, e->c->text + at, end - at, &length);
            if (id < 0) {
                at++;
                continue;
            }
            encode_between(e, from, at);
            ids_push(&e->out->ids, id);
            note_kinds(e, e->out->ids.n - 1, at);
            from = at += length;
        }
    }
    encode_between(e, from, e->c->size);
}

// Without these as added tokens the markup would be spelled out as text.
static bool tokens_known(const Tokenizer *tok, Err *err) {
    static const char *const names[] = {
        "<bos>",        "<|turn>",      "<turn|>",          "<|think|>",
        "<|channel>",   "<channel|>",   "<|tool>",          "<tool|>",
        "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>",
        "<|\"|>",       "<|image|>",    "<|audio|>",        "<|video|>"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!tokenizer_is_special(tok, tokenizer_id(tok, names[i])))
            return err_set(err, ERR_INPUT, "the tokenizer has no added token %s", names[i]);
    return true;
}

bool chat_encode(ChatTokens *out, const Tokenizer *tok, const json_t *messages, const json_t *tools,
                 ChatOptions opt, Err *err) {
    ChatText c = {0};
    out->ids.n = 0;
    const bool ok = tokens_known(tok, err) && render_conversation(&c, messages, tools, opt, err);
    out->too_long = ok && opt.max_bytes > 0 && c.size > opt.max_bytes;
    if (ok && !out->too_long) {
        Encoder e = {
            .out = out, .tok = tok, .c = &c, .keep_from = opt.last_turn_only ? c.last_turn : 0};
        encode_text(&e);
    }
    chat_text_free(&c);
    return ok;
}
