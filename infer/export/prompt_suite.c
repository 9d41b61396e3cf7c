// infer/export/prompt_suite.c - token ids back to turns, kept where they render to the same ids.
#include "infer/export/prompt_suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/text/chat.h"

typedef struct {
    const Tokenizer *tok;
    ChatTemplate tmpl;
    int32_t open, close; // <|turn>, <turn|>
} Turns;

// "user\ntext" of a turn as a message; false: no role that a message can have.
static bool add_message(json_t *messages, const char *text, size_t size) {
    static const char *const ROLES[][2] = {
        {"system", "system"}, {"user", "user"}, {"model", "assistant"}};
    const char *line = memchr(text, '\n', size);
    if (line == NULL) return false;
    for (size_t i = 0; i < 3; i++) {
        const size_t n = strlen(ROLES[i][0]);
        if (n != (size_t)(line - text) || memcmp(text, ROLES[i][0], n) != 0) continue;
        json_t *content = json_stringn(line + 1, size - n - 1);
        if (content == NULL) return false; // not UTF-8
        json_array_append_new(messages,
                              json_pack("{s:s, s:o}", "role", ROLES[i][1], "content", content));
        return true;
    }
    return false;
}

// The closed turns of a prompt; the last one, open, is the model's to write. NULL: not plain turns.
static json_t *messages_of(const Turns *t, const int32_t *ids, size_t n) {
    json_t *messages = json_array();
    bool ok = true, opened = false;
    for (size_t i = 0; ok && i < n; i++) {
        size_t end = i + 1, size;
        if (ids[i] != t->open) continue;
        while (end < n && ids[end] != t->close && ids[end] != t->open) end++;
        opened = end == n;
        if (opened) break;
        char *text = tokenizer_decode(t->tok, ids + i + 1, end - i - 1, false, &size);
        CHECK_MEMORY(text);
        ok = ids[end] == t->close && add_message(messages, text, size);
        free(text);
        i = end;
    }
    if (ok && opened && json_array_size(messages) > 0) return messages;
    json_decref(messages);
    return NULL;
}

static bool renders_to(const Turns *t, const json_t *messages, const int32_t *ids, size_t n) {
    Err refused = {0};
    ChatTokens out = {0};
    const ChatOptions opt = {.tmpl = t->tmpl, .generation_prompt = true};
    const bool same = chat_encode(&out, t->tok, messages, NULL, opt, &refused) && out.ids.n == n &&
                      memcmp(out.ids.id, ids, n * sizeof *ids) == 0;
    chat_tokens_free(&out);
    return same;
}

// The prompt's ids of a sample; NULL with err set: not a line that `prepare` writes.
static int32_t *prompt_ids(const json_t *sample, size_t *n, Err *err) {
    const json_t *ids = json_object_get(sample, "ids");
    const json_int_t prompt = json_integer_value(json_object_get(sample, "prompt"));
    if (prompt < 1 || (size_t)prompt > json_array_size(ids)) {
        err_set(err, ERR_INPUT, "no \"prompt\" within \"ids\"");
        return NULL;
    }
    *n = (size_t)prompt;
    int32_t *out = malloc(*n * sizeof *out);
    CHECK_MEMORY(out);
    for (size_t i = 0; i < *n; i++) out[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    return out;
}

static bool write_line(OutFile *f, const json_t *sample, json_t *messages, const char *id,
                       int64_t max_tokens) {
    const char *category = json_string_value(json_object_get(sample, "category"));
    json_t *o = json_pack("{s:s, s:O, s:s, s:I}", "id", id, "messages", messages, "category",
                          category != NULL ? category : "", "max_tokens", (json_int_t)max_tokens);
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (text == NULL) return false;
    out_printf(f, "%s\n", text);
    free(text);
    return true;
}

typedef struct {
    OutFile *f;
    const Turns *turns;
    int64_t max_tokens;
    char last[160]; // id of the line before, and how often it has come
    int again;
    int64_t written, left_out;
} Suite;

static bool take(Suite *s, const json_t *sample, Err *err) {
    size_t n;
    char unique[192];
    const char *id = json_string_value(json_object_get(sample, "id"));
    int32_t *ids = prompt_ids(sample, &n, err);
    if (ids == NULL) return false;
    json_t *messages = messages_of(s->turns, ids, n);
    const bool plain = messages != NULL && renders_to(s->turns, messages, ids, n);
    free(ids);
    if (id == NULL) id = "";
    s->again = strcmp(id, s->last) == 0 ? s->again + 1 : 1;
    snprintf(s->last, sizeof s->last, "%s", id);
    snprintf(unique, sizeof unique, s->again > 1 ? "%.159s#%d" : "%.159s", id, s->again);
    bool ok = true;
    if (plain)
        ok = write_line(s->f, sample, messages, unique, s->max_tokens) ||
             err_set(err, ERR_FAILED, "%s: out of memory", unique);
    s->written += plain;
    s->left_out += !plain;
    json_decref(messages);
    return ok;
}

static bool each_line(Suite *s, const char *path, Err *err) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int64_t at = 0;
    bool ok = true;
    FILE *f = fopen(path, "r");
    if (f == NULL) return err_errno(err, "%s", path);
    while (ok && (n = getline(&line, &room, f)) > 0) {
        json_t *sample = json_read_text(line, (size_t)n, err);
        at++;
        ok = (sample != NULL && take(s, sample, err)) ||
             err_wrap(err, "%s:%lld", path, (long long)at);
        json_decref(sample);
    }
    free(line);
    fclose(f);
    return ok;
}

bool prompt_suite_write(const char *path, const SuiteInputs *in, int64_t *written,
                        int64_t *left_out, Err *err) {
    char file[PATH_ROOM];
    OutFile f = {.fd = -1};
    Turns turns = {0};
    Tokenizer *tok = tokenizer_load(path_join(file, in->target_dir, "tokenizer.json"), err);
    if (tok == NULL) return false;
    turns.tok = tok;
    turns.open = tokenizer_id(tok, "<|turn>");
    turns.close = tokenizer_id(tok, "<turn|>");
    Suite s = {.f = &f, .turns = &turns, .max_tokens = in->max_tokens};
    bool ok = chat_template_load(&turns.tmpl, in->target_dir, in->chat_template, err) &&
              out_open(&f, path, err) && each_line(&s, in->samples, err) && out_commit(&f, err);
    out_drop(&f);
    tokenizer_free(tok);
    *written = s.written;
    *left_out = s.left_out;
    return ok;
}
