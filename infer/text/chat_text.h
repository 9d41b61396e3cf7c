// infer/text/chat_text.h - rendered text in the making: bytes, and who owns each of them.
#ifndef TEXT_CHAT_TEXT_H
#define TEXT_CHAT_TEXT_H

#include "infer/text/chat.h"

// Bytes up to `end` (from the end of the span before) share kind and origin.
typedef struct {
    size_t end;
    TokenKind kind;
    bool markup; // written by the template: added tokens count here, and only here
} ChatSpan;

typedef struct {
    char *text; // not 0-terminated until chat_text_take
    size_t size, room;
    ChatSpan *span;
    size_t n_spans, span_room;
    TokenKind kind;   // of what is written next
    size_t last_turn; // where the last model turn opens
} ChatText;

void chat_markup(ChatText *c, const char *literal); // one added token never spans two calls
void chat_content(ChatText *c, const char *text, size_t size);
char *chat_text_take(ChatText *c, size_t *size); // the text, 0-terminated; the caller frees it
void chat_text_free(ChatText *c);

#endif
