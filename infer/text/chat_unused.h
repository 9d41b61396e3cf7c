// infer/text/chat_unused.h - what a conversation holds and the template does not write.
#ifndef TEXT_CHAT_UNUSED_H
#define TEXT_CHAT_UNUSED_H

#include "infer/text/chat.h"

// Published templates pass over what they do not know, without a word. note is called once for each
// thing passed over, maybe with the same words again; they are printable and end nowhere in
// particular: `the message key "function_call"`. messages: what chat_encode accepts.
void chat_unused(const json_t *messages, ChatTemplate tmpl,
                 void (*note)(void *ctx, const char *what), void *ctx);

#endif
