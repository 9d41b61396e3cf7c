// infer/text/chat_kinds.c - kinds of tokens from the control tokens among them: a walk through the
// turns, channels, calls and responses of text that was already rendered or generated.
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat.h"

const char *token_kind_name(TokenKind kind) {
    static const char *const names[TOKEN_KINDS] = {"context", "model", "thought", "call",
                                                   "channel"};
    CHECK((unsigned)kind < TOKEN_KINDS, "kind %d", (int)kind);
    return names[kind];
}

typedef enum { OUTSIDE, ROLE, MODEL, CHANNEL, THOUGHT, CALL, RESPONSE } Where;

typedef struct {
    const Tokenizer *tok;
    int32_t turn, turn_end, think, channel, channel_end, call, call_end, response, response_end,
        quote, media[3];
    Where where;
    bool called;   // a call was made and its response not opened
    bool fresh;    // the turn of the model holds nothing yet
    bool thinking; // <|think|> was seen
    char role[16]; // of the turn being opened, as far as read
} Walk;

static Walk walk_start(const Tokenizer *t) {
    return (Walk){.tok = t,
                  .turn = tokenizer_id(t, "<|turn>"),
                  .turn_end = tokenizer_id(t, "<turn|>"),
                  .think = tokenizer_id(t, "<|think|>"),
                  .channel = tokenizer_id(t, "<|channel>"),
                  .channel_end = tokenizer_id(t, "<channel|>"),
                  .call = tokenizer_id(t, "<|tool_call>"),
                  .call_end = tokenizer_id(t, "<tool_call|>"),
                  .response = tokenizer_id(t, "<|tool_response>"),
                  .response_end = tokenizer_id(t, "<tool_response|>"),
                  .quote = tokenizer_id(t, "<|\"|>"),
                  .media = {tokenizer_id(t, "<|image|>"), tokenizer_id(t, "<|audio|>"),
                            tokenizer_id(t, "<|video|>")}};
}

static bool begins_line(const Walk *w, int32_t id, char *text, size_t room) {
    size_t size;
    char *piece = tokenizer_decode(w->tok, &id, 1, false, &size);
    const bool line = size > 0 && piece[0] == '\n';
    const size_t used = strlen(text), n = size < room - used - 1 ? size : room - used - 1;
    memcpy(text + used, piece, n);
    text[used + n] = '\0';
    free(piece);
    return line;
}

// "model" behind <|turn>, up to the line break.
static void read_role(Walk *w, int32_t id) {
    char before[sizeof w->role];
    strcpy(before, w->role);
    if (begins_line(w, id, w->role, sizeof w->role)) {
        w->where = strcmp(before, "model") == 0 ? MODEL : OUTSIDE;
        w->fresh = true;
    }
}

// One token of a model's turn.
static TokenKind inside(Walk *w, int32_t id) {
    char none[2] = "";
    w->fresh = w->fresh && (id == w->channel || id == w->channel_end || w->where == CHANNEL);
    if (id == w->turn_end) {
        w->where = OUTSIDE;
        w->called = false;
        return TOKEN_MODEL;
    }
    switch (w->where) {
    case CHANNEL:
        if (id == w->channel_end)
            w->where = MODEL;
        else if (begins_line(w, id, none, sizeof none))
            w->where = THOUGHT;
        return TOKEN_CHANNEL;
    case THOUGHT:
        if (id != w->channel_end) return TOKEN_THOUGHT;
        w->where = MODEL;
        return TOKEN_CHANNEL;
    case CALL:
        w->called = id == w->call_end;
        if (w->called) w->where = MODEL;
        return TOKEN_CALL;
    case RESPONSE:
        if (id == w->response_end) w->where = MODEL;
        return TOKEN_CONTEXT;
    default:
        break;
    }
    for (int i = 0; i < 3; i++)
        if (id == w->media[i]) return TOKEN_CONTEXT; // no target writes these
    if (id == w->channel) w->where = CHANNEL;
    if (id == w->call) w->where = CALL;
    if (id == w->response) {
        const bool stop = w->called; // the first behind a call: the model stops by writing it
        w->where = RESPONSE;
        w->called = false;
        return stop ? TOKEN_CALL : TOKEN_CONTEXT;
    }
    if (id == w->channel) return TOKEN_CHANNEL;
    return id == w->call || id == w->quote ? TOKEN_CALL : TOKEN_MODEL;
}

static TokenKind step(Walk *w, int32_t id) {
    if (id == w->turn) {
        w->where = ROLE;
        w->called = false;
        w->role[0] = '\0';
        return TOKEN_CONTEXT;
    }
    if (id == w->think) w->thinking = true;
    if (w->where == ROLE) {
        read_role(w, id);
        return TOKEN_CONTEXT;
    }
    return w->where == OUTSIDE ? TOKEN_CONTEXT : inside(w, id);
}

bool chat_kinds(const Tokenizer *tok, ChatTemplate tmpl, const int32_t *ids, size_t n,
                uint8_t *kind) {
    Walk w = walk_start(tok);
    size_t channel = 0; // where the last one opened
    for (size_t i = 0; i < n; i++) {
        const bool was_channel = w.where == CHANNEL || w.where == THOUGHT;
        kind[i] = (uint8_t)step(&w, ids[i]);
        if (!was_channel && kind[i] == TOKEN_CHANNEL) channel = i;
        // An empty channel at the start of a turn: the large models do not write it, it is given.
        const bool empty = was_channel && ids[i] == w.channel_end && w.fresh;
        if (empty && !w.thinking && tmpl != CHAT_SMALL_2026_07)
            memset(kind + channel, TOKEN_CONTEXT, i - channel + 1);
    }
    // Opened at the very end: a generation prompt behind a tool's response.
    const bool in_channel = w.where == CHANNEL || w.where == THOUGHT;
    if (in_channel && kind[n - 1] == TOKEN_CHANNEL)
        memset(kind + channel, TOKEN_CONTEXT, n - channel);
    return (in_channel || w.where == MODEL) && kind[n - 1] == TOKEN_CONTEXT;
}

void chat_answer_kinds(const Tokenizer *tok, const int32_t *ids, size_t first, size_t n,
                       uint8_t *kind) {
    Walk w = walk_start(tok);
    for (size_t i = 0; i < n; i++) {
        if (i == first && (w.where == OUTSIDE || w.where == ROLE || w.where == RESPONSE))
            w.where = MODEL; // a prompt without turns
        const TokenKind k = step(&w, ids[i]);
        if (i < first) continue;
        if (k == TOKEN_CONTEXT) w.where = MODEL; // whatever it wrote, it wrote it
        kind[i] = (uint8_t)(k != TOKEN_CONTEXT     ? k
                            : ids[i] == w.response ? TOKEN_CALL
                                                   : TOKEN_MODEL);
    }
}
