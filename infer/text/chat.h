// infer/text/chat.h - Gemma 4's chat turns: a conversation to ids, with the kind of every token.
//
// The renderer writes what Google's template writes (the published ones are known by hash, see
// chat_template_load). Control tokens spelled inside content stay text: content is encoded apart
// from the markup around it.
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include <jansson.h>

#include "infer/text/chat_json.h"
#include "infer/text/tokenizer.h"

// What a token is; the loss is on every kind from TOKEN_MODEL up. Stored in shards: never renumber.
typedef enum {
    TOKEN_CONTEXT = 0, // prompt, markup, tool responses
    TOKEN_MODEL = 1,   // text the target itself emits, <turn|> included
    TOKEN_THOUGHT = 2, // reasoning inside its channel
    TOKEN_CALL = 3,    // tool call, string delimiters, the stop before a response
    TOKEN_CHANNEL = 4, // what opens and closes a channel: <|channel>thought\n, <channel|>
    TOKEN_KINDS
} TokenKind;

const char *token_kind_name(TokenKind kind); // "context", "model", ...
// Structured output, which agents are made of: a category of its own in evaluation.
static inline bool token_structured(TokenKind kind) {
    return kind == TOKEN_CALL || kind == TOKEN_CHANNEL;
}

typedef enum { CHAT_SMALL_2026_07 = 0, CHAT_LARGE_2026_07, CHAT_LARGE_2026_04 } ChatTemplate;

// By the SHA-256 of `dir`/chat_template.jinja, or by name when `name` is not "auto". An unknown
// hash is refused with the names that data.chat_template accepts.
MUST_CHECK bool chat_template_load(ChatTemplate *out, const char *dir, const char *name, Err *err);
const char *chat_template_name(ChatTemplate t);

typedef struct {
    Ids ids;
    uint8_t *kind; // TokenKind per id
    size_t kind_room;
    bool too_long; // beyond ChatOptions.max_bytes: not encoded, no ids
} ChatTokens;
void chat_tokens_free(ChatTokens *c);

typedef struct {
    ChatTemplate tmpl;
    bool generation_prompt; // end with an opened model turn
    bool thinking;
    bool last_turn_only;    // only the last model turn counts as TOKEN_MODEL
    bool preserve_thinking; // July templates: reasoning of earlier turns that call tools stays
    size_t max_bytes;       // of rendered text that chat_encode encodes; 0 = any
} ChatOptions;

// Replaces what `out` held. A token's kind is that of the span that wrote its first byte; the ids
// are those of the whole rendered string, except that added tokens spelled inside content stay
// text.
// Model turns: text and <turn|> TOKEN_MODEL (the line break behind it is context), reasoning
// TOKEN_THOUGHT and the brackets of its channel TOKEN_CHANNEL, calls and the first <|tool_response>
// behind them TOKEN_CALL.
// messages: JSON array of {role, content}, read by chat_json_read where integers beyond 64 bits may
// occur; tools: JSON array or NULL. What the template refuses is ERR_INPUT with its reason.
MUST_CHECK bool chat_encode(ChatTokens *out, const Tokenizer *tok, const json_t *messages,
                            const json_t *tools, ChatOptions opt, Err *err);

// The same from ids alone, for text that was rendered elsewhere: kinds by its control tokens.
// What a template's generation prompt holds (the large models' empty channel) is context.
// true: the text ends where the model is to write.
bool chat_kinds(const Tokenizer *tok, ChatTemplate tmpl, const int32_t *ids, size_t n,
                uint8_t *kind);
// Kinds of ids[first..n), all of them the model's own; ids[0..first) is what it was asked.
void chat_answer_kinds(const Tokenizer *tok, const int32_t *ids, size_t first, size_t n,
                       uint8_t *kind);
// What the templates keep of a model's text: without reasoning channels, trimmed. Caller frees.
MUST_CHECK char *chat_visible(const char *text, size_t size, size_t *kept);

// The rendered text (markup and content in one string), caller frees. For display and golden tests.
MUST_CHECK char *chat_render(const json_t *messages, const json_t *tools, ChatOptions opt,
                             size_t *size, Err *err);

#endif
