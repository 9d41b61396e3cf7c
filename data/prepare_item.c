// data/prepare_item.c - one conversation as ids, kinds and the place where its answer begins.
#include <stdlib.h>
#include <string.h>

#include "data/prepare.h"
#include "infer/base/hash.h"
#include "infer/base/utf8.h"

static bool label(char *out, size_t room, const json_t *o, const char *key, const char *absent,
                  Err *err) {
    const json_t *v = json_object_get(o, key);
    char number[32];
    const char *text = absent;
    if (json_is_string(v))
        text = json_string_value(v);
    else if (json_is_integer(v)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(v));
        text = number;
    } else if (v && !json_is_null(v)) {
        return err_set(err, ERR_INPUT, "\"%s\" is neither a text nor a number", key);
    }
    if (strlen(text) >= room)
        return err_set(err, ERR_INPUT, "\"%s\" has %zu bytes, the limit is %zu", key, strlen(text),
                       room - 1);
    strcpy(out, text);
    return true;
}

bool ends_with_answer(const json_t *messages) {
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    return role && (!strcmp(role, "assistant") || !strcmp(role, "model"));
}

static bool encode(ChatTokens *out, const json_t *messages, const json_t *tools,
                   const PrepareTools *with, bool open, Err *err) {
    const ChatOptions opt = {.tmpl = with->chat_template, .generation_prompt = open};
    return chat_encode(out, with->tokenizer, messages, tools, opt, err);
}

static bool take(Sample *s, const ChatTokens *c, int64_t n, Err *err) {
    s->ids = malloc((size_t)n * sizeof *s->ids);
    s->kind = malloc((size_t)n);
    if (!s->ids || !s->kind) return err_set(err, ERR_FAILED, "out of memory");
    memcpy(s->ids, c->ids.id, (size_t)n * sizeof *s->ids);
    memcpy(s->kind, c->kind, (size_t)n);
    s->n = n;
    return true;
}

// The prompt alone: whatever model turns it holds are history, not the target's own words.
static bool as_prompt(Sample *s, const ChatTokens *c, Err *err) {
    if (!take(s, c, (int64_t)c->ids.n, err)) return false;
    memset(s->kind, TOKEN_CONTEXT, (size_t)s->n);
    s->prompt = s->n;
    return true;
}

// The whole conversation up to the end of its last model turn; the answer begins behind the prompt.
static bool as_reference(Sample *s, const ChatTokens *whole, const ChatTokens *prompt, Err *err) {
    int64_t n = (int64_t)whole->ids.n;
    const int64_t p = (int64_t)prompt->ids.n;
    while (n > 0 && whole->kind[n - 1] < TOKEN_MODEL) n--;
    if (n <= p || memcmp(whole->ids.id, prompt->ids.id, (size_t)p * sizeof(int32_t)) != 0)
        return err_set(err, ERR_INPUT, "the answer does not continue the rendered prompt");
    if (!take(s, whole, n, err)) return false;
    s->prompt = p;
    s->stopped = true;
    strcpy(s->sampler, "reference");
    return true;
}

bool prepare_item(Sample *out, uint64_t *hash, const CorpusLine *line, const char *source,
                  const PrepareTools *with, bool keep_answer, Err *err) {
    char name[sizeof out->id], file[sizeof out->id - 24]; // room for ":" and a line number
    const json_t *messages = json_object_get(line->value, "messages");
    const json_t *tools = json_object_get(line->value, "tools");
    *out = (Sample){.min_margin = -1};
    utf8_fit(out->source, sizeof out->source, source);
    snprintf(name, sizeof name, "%s:%lld", utf8_fit(file, sizeof file, source),
             (long long)line->line);
    if (!label(out->id, sizeof out->id, line->value, "id", name, err) ||
        !label(out->category, sizeof out->category, line->value, "category", "", err))
        return false;
    if (!json_is_array(messages)) return err_set(err, ERR_INPUT, "no list of \"messages\"");
    if (json_is_null(tools)) tools = NULL;
    const bool answered = ends_with_answer(messages);
    json_t *asked = json_copy((json_t *)messages);
    if (answered) json_array_remove(asked, json_array_size(asked) - 1);
    ChatTokens prompt = {0}, whole = {0};
    bool ok = json_array_size(asked) > 0 || err_set(err, ERR_INPUT, "\"messages\" hold no prompt");
    ok = ok && encode(&prompt, asked, tools, with, true, err);
    if (ok) *hash = xxh3_64(prompt.ids.id, prompt.ids.n * sizeof(int32_t));
    if (ok && answered && keep_answer)
        ok = encode(&whole, messages, tools, with, false, err) &&
             as_reference(out, &whole, &prompt, err);
    else
        ok = ok && as_prompt(out, &prompt, err);
    chat_tokens_free(&prompt);
    chat_tokens_free(&whole);
    json_decref(asked);
    if (!ok) {
        free(out->ids);
        free(out->kind);
        out->ids = NULL;
        out->kind = NULL;
    }
    return ok;
}
