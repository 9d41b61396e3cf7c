// data/dialogue.c - where the model is asked in a row, and what it reads there.
#include "data/dialogue.h"

#include <stdlib.h>
#include <string.h>

void turn_free(Turn *t) {
    ids_free(&t->prompt);
    ids_free(&t->answer);
    free(t->kind);
    *t = (Turn){0};
}

static const json_t *message_at(const Dialogue *d, size_t i) {
    return json_array_get(d->row->messages, i);
}

static bool has_role(const Dialogue *d, size_t i, const char *role) {
    return !strcmp(json_string_value(json_object_get(message_at(d, i), "role")), role);
}

static size_t messages_of(const Dialogue *d) {
    return json_array_size(d->row->messages);
}

// The model is asked behind message i - 1: somebody asked, and the model has not begun to answer.
static bool asked_at(const Dialogue *d, size_t i) {
    const size_t n = messages_of(d);
    if (i <= d->first_user || i > n || has_role(d, i - 1, "assistant")) return false;
    return i == n || has_role(d, i, "assistant");
}

static bool find_turns(Dialogue *d, Err *err) {
    size_t last = messages_of(d);
    while (d->first_user < last && !has_role(d, d->first_user, "user")) d->first_user++;
    while (last > 0 && !asked_at(d, last)) last--;
    if (last == 0) return err_set(err, ERR_INPUT, "the messages hold no prompt");
    d->at = d->with->every_turn || d->row->unanswered ? 0 : last;
    return true;
}

// Ids that open a channel behind the last turn's head: they go when the turn becomes history.
static size_t history_of(const Tokenizer *t, const Ids *ids) {
    const int32_t open = tokenizer_id(t, "<|channel>"), close = tokenizer_id(t, "<channel|>");
    size_t i = ids->n;
    if (i > 0 && ids->id[i - 1] == close) i--;
    while (i > 0 && !tokenizer_is_special(t, ids->id[i - 1])) i--;
    return i > 0 && ids->id[i - 1] == open ? i - 1 : ids->n;
}

// messages: as rendered, taken over.
static bool encode(const Dialogue *d, ChatTokens *out, json_t *messages, bool open, Err *err) {
    const ChatOptions opt = {.tmpl = d->with->chat_template,
                             .generation_prompt = open,
                             .thinking = d->thinking,
                             .max_bytes = d->with->max_bytes};
    const bool ok = chat_encode(out, d->with->tokenizer, messages, d->row->tools, opt, err);
    json_decref(messages);
    return ok;
}

// The first n messages as their last one was written: text beside calls is shown behind the
// responses by the templates, a model that stops at its calls has not written it there.
static json_t *as_written(const Row *row, size_t n) {
    json_t *m = row_rendered(row, n), *last = json_array_get(m, json_array_size(m) - 1);
    if (json_object_get(last, "tool_calls")) json_object_del(last, "content");
    return m;
}

static bool begins_with(const Ids *ids, const Ids *start, size_t n) {
    return ids->n >= n && memcmp(ids->id, start->id, n * sizeof *ids->id) == 0;
}

static bool take_answer(Turn *t, const Ids *ids, const uint8_t *kind, size_t from, size_t to,
                        Err *err) {
    t->kind = malloc(to - from);
    if (!t->kind) return err_set(err, ERR_FAILED, "out of memory");
    for (size_t i = from; i < to; i++) ids_push(&t->answer, ids->id[i]);
    memcpy(t->kind, kind + from, to - from);
    return true;
}

// The recorded answer is what the whole has behind the prompt, up to the model's last token. false:
// the whole does not go on where the prompt ends, or nothing of the model's comes (err set only
// when memory is out).
static bool recorded(const Dialogue *d, Turn *t, const ChatTokens *whole, Err *err) {
    const int32_t close = tokenizer_id(d->with->tokenizer, "<channel|>");
    size_t from = t->keep, to = whole->ids.n;
    if (begins_with(&whole->ids, &t->prompt, t->prompt.n))
        from = t->prompt.n;
    else if (!begins_with(&whole->ids, &t->prompt, t->keep))
        return false;
    // A channel that the answer does not begin with: closed, the large models are given it; open,
    // it is not the prompt of this answer.
    else if (t->prompt.id[t->prompt.n - 1] != close)
        t->prompt.n = t->keep;
    while (to > from && whole->kind[to - 1] < TOKEN_MODEL) to--;
    return to > from && take_answer(t, &whole->ids, whole->kind, from, to, err);
}

// Behind text beside calls the templates close the turn for the prompt, and keep it open (July) or
// let the answer stand outside of turns (April): the answer is what it would be to another
// question.
static bool recorded_apart(const Dialogue *d, Turn *t, size_t first, size_t end, Err *err) {
    Row apart = {.messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "-")};
    ChatTokens prompt = {0}, whole = {0};
    Turn other = {0};
    for (size_t i = first; i < end; i++)
        json_array_append(apart.messages, json_array_get(d->row->messages, i));
    const size_t n = json_array_size(apart.messages);
    bool ok = encode(d, &prompt, row_rendered(&apart, 1), true, err) &&
              encode(d, &whole, as_written(&apart, n), false, err);
    other.prompt = prompt.ids;
    prompt.ids = (Ids){0};
    other.keep = history_of(d->with->tokenizer, &other.prompt);
    if (ok && !recorded(d, &other, &whole, err))
        ok = err_set(err, ERR_INPUT, "the answer does not continue the rendered prompt");
    t->answer = other.answer;
    t->kind = other.kind;
    other.answer = (Ids){0};
    other.kind = NULL;
    turn_free(&other);
    chat_tokens_free(&prompt);
    chat_tokens_free(&whole);
    row_free(&apart);
    return ok;
}

static bool chat_turn(Dialogue *d, Turn *t, size_t first, size_t end, bool answers, bool *too_long,
                      Err *err) {
    ChatTokens prompt = {0}, whole = {0};
    const bool wanted = answers && end > first && !d->row->unanswered;
    bool ok = encode(d, &prompt, row_rendered(d->row, first), true, err);
    *too_long = prompt.too_long;
    t->prompt = prompt.ids;
    prompt.ids = (Ids){0};
    t->keep = history_of(d->with->tokenizer, &t->prompt);
    if (ok && !*too_long && wanted) {
        Err why = {0};
        ok = encode(d, &whole, as_written(d->row, end), false, err);
        *too_long = whole.too_long;
        if (ok && !*too_long && !recorded(d, t, &whole, &why))
            ok = why.code ? err_set(err, why.code, "%s", why.text)
                          : recorded_apart(d, t, first, end, err);
    }
    t->called = end > first && end < messages_of(d) && has_role(d, end, "tool");
    chat_tokens_free(&prompt);
    chat_tokens_free(&whole);
    return ok;
}

// 1: [first, end) are the messages of the next answer (none: first == end), 0: no more.
static int next_asked(Dialogue *d, size_t *first, size_t *end) {
    const size_t n = messages_of(d);
    while (d->at <= n && !asked_at(d, d->at)) d->at++;
    if (d->at > n) return 0;
    *first = *end = d->at;
    while (*end < n && has_role(d, *end, "assistant")) ++*end;
    d->at = *end + 1;
    return 1;
}

// A run of the model's tokens; in rendered text the large models' empty channel is put before it.
static bool run_turn(Dialogue *d, Turn *t, size_t first, size_t end, bool answers, Err *err) {
    const Tokenizer *tok = d->with->tokenizer;
    static const char given[] = "<|channel>thought\n<channel|>";
    for (size_t i = 0; i < first; i++) ids_push(&t->prompt, d->ids.id[i]);
    t->keep = history_of(tok, &t->prompt);
    const bool large = d->with->chat_template != CHAT_SMALL_2026_07 && !d->thinking,
               head = d->ids.id[first - 1] != tokenizer_id(tok, "<tool_response|>");
    if (d->row->form == ROW_TEXT && large && head && t->keep == t->prompt.n)
        tokenizer_encode(tok, given, strlen(given), true, &t->prompt);
    t->called = end > first && d->ids.id[end - 1] == tokenizer_id(tok, "<|tool_response>");
    return !answers || end == first || take_answer(t, &d->ids, d->kind, first, end, err);
}

static int next_run(Dialogue *d, size_t *first, size_t *end) {
    const size_t n = d->ids.n;
    size_t at = d->at;
    while (at < n && d->kind[at] < TOKEN_MODEL) at++;
    *first = *end = at;
    while (*end < n && d->kind[*end] >= TOKEN_MODEL) ++*end;
    d->at = *end > at ? *end : n + 1; // n + 1: the open end was given out
    return at < n || (d->open && n > 0);
}

static int next_place(Dialogue *d, size_t *first, size_t *end) {
    if (d->row->form == ROW_CHAT) return next_asked(d, first, end);
    return d->at > d->ids.n ? 0 : next_run(d, first, end);
}

int dialogue_next(Dialogue *d, Turn *t, bool answers, Err *err) {
    size_t first, end;
    bool too_long = false;
    turn_free(t);
    if (d->too_much) d->left_out = 1;
    if (d->left_out > 0 || !next_place(d, &first, &end)) return 0;
    const bool ok = d->row->form == ROW_CHAT ? chat_turn(d, t, first, end, answers, &too_long, err)
                                             : run_turn(d, t, first, end, answers, err);
    if (!ok) return -1;
    const size_t rest = t->answer.n > 0 ? t->answer.n : ANSWER_ROOM;
    d->tokens = too_long ? 0 : (int64_t)(t->prompt.n + rest);
    if (!too_long && (d->with->max_length == 0 || d->tokens <= d->with->max_length)) return 1;
    for (d->left_out = 1; next_place(d, &first, &end);) d->left_out++;
    return 0;
}

// The whole text or token list, and which of it is the model's.
static bool read_text(Dialogue *d, Err *err) {
    const Row *row = d->row;
    const Tokenizer *tok = d->with->tokenizer;
    const int32_t bos = tokenizer_id(tok, "<bos>");
    size_t length;
    d->too_much = d->with->max_bytes > 0 && row->text_size > d->with->max_bytes;
    if (d->too_much) return true;
    if (tokenizer_added(tok, row->text, row->text_size, &length) != bos) ids_push(&d->ids, bos);
    tokenizer_encode(tok, row->text, row->text_size, true, &d->ids);
    for (size_t i = 0; i < d->ids.n; i++)
        d->thinking |= d->ids.id[i] == tokenizer_id(tok, "<|think|>");
    d->kind = malloc(d->ids.n);
    if (!d->kind) return err_set(err, ERR_FAILED, "out of memory");
    d->open = chat_kinds(tok, d->with->chat_template, d->ids.id, d->ids.n, d->kind);
    return true;
}

static bool read_ids(Dialogue *d, Err *err) {
    const size_t n = json_array_size(d->row->ids);
    const int32_t vocab = tokenizer_vocab(d->with->tokenizer);
    if (n == 0) return err_set(err, ERR_INPUT, "\"input_ids\" is empty");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(d->row->ids, i);
        const json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id >= vocab)
            return err_set(err, ERR_INPUT,
                           "input_ids[%zu] is %lld, expected an id below %d (the vocabulary)", i,
                           (long long)id, (int)vocab);
        ids_push(&d->ids, (int32_t)id);
    }
    d->kind = malloc(n);
    if (!d->kind) return err_set(err, ERR_FAILED, "out of memory");
    d->open = chat_kinds(d->with->tokenizer, d->with->chat_template, d->ids.id, n, d->kind);
    return true;
}

// The mask says what is the model's, the control tokens only what kind of it.
static bool apply_mask(Dialogue *d, Err *err) {
    const json_t *mask = d->row->mask;
    bool any = false;
    for (size_t i = 0; mask && i < d->ids.n; i++) {
        const json_t *v = json_array_get(mask, i);
        const bool on = json_is_true(v) || (json_is_integer(v) && json_integer_value(v) == 1);
        if (!on && !json_is_false(v) && !(json_is_integer(v) && json_integer_value(v) == 0))
            return err_set(err, ERR_INPUT, "loss_mask[%zu] is neither 0 nor 1", i);
        any |= on;
        if (!on || i == 0)
            d->kind[i] = TOKEN_CONTEXT; // nothing is asked before the first id
        else if (d->kind[i] == TOKEN_CONTEXT)
            d->kind[i] = TOKEN_MODEL;
    }
    if (mask) d->open = d->open && d->kind[d->ids.n - 1] == TOKEN_CONTEXT;
    return !mask || any || d->open || err_set(err, ERR_INPUT, "no token is in \"loss_mask\"");
}

static bool has_media(const Dialogue *d, Err *err) {
    static const char *const names[] = {"<|image|>", "<|audio|>", "<|video|>"};
    for (size_t k = 0; k < 3; k++) {
        const int32_t id = tokenizer_id(d->with->tokenizer, names[k]);
        for (size_t i = 0; i < d->ids.n; i++) {
            if (d->ids.id[i] != id) continue;
            err_set(err, ERR_INPUT, "it holds %s", names[k]);
            return true;
        }
    }
    return false;
}

int64_t dialogue_unused(Dialogue *d, int64_t n, bool answers, UnusedNote *note, void *ctx) {
    size_t first, end, from = 0;
    int64_t recorded = 0;
    if (d->row->form != ROW_CHAT) return 0;
    json_t *said = json_array();
    for (dialogue_rewind(d); n > 0 && next_asked(d, &first, &end); n--) {
        for (size_t i = json_array_size(said); i < (answers ? end : first); i++)
            json_array_append(said, json_array_get(d->row->messages, i));
        chat_unused(said, from, d->with->chat_template, note, ctx);
        recorded += end > first && !d->row->unanswered;
        from = end;
    }
    json_decref(said);
    return recorded;
}

static bool find_runs(Dialogue *d, Err *err) {
    size_t first = 0, end = 0, last = d->ids.n + 1;
    if (d->too_much) return true;
    while (next_place(d, &first, &end)) last = first;
    if (last > d->ids.n) return err_set(err, ERR_INPUT, "no turn of the model in it");
    d->at = d->with->every_turn ? 0 : last;
    return true;
}

RowVerdict dialogue_open(Dialogue *d, const Row *row, const PrepareTools *with, Err *err) {
    *d = (Dialogue){.row = row, .with = with};
    d->thinking =
        with->thinking == THINKING_ON || (with->thinking == THINKING_AUTO && row->reasoned);
    if (row->form == ROW_CHAT) return find_turns(d, err) ? ROW_READ : ROW_REFUSED;
    const bool read =
        row->form == ROW_TEXT ? read_text(d, err) : read_ids(d, err) && apply_mask(d, err);
    const bool media = read && has_media(d, err);
    if (read && !media && find_runs(d, err)) return ROW_READ;
    dialogue_close(d);
    return media ? ROW_MEDIA : ROW_REFUSED;
}

void dialogue_rewind(Dialogue *d) {
    Err unused = {0};
    d->left_out = 0;
    d->at = 0;
    CHECK(d->row->form == ROW_CHAT ? find_turns(d, &unused) : find_runs(d, &unused));
}

void dialogue_close(Dialogue *d) {
    ids_free(&d->ids);
    free(d->kind);
    d->kind = NULL;
}
