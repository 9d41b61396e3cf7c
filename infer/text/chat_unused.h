// infer/text/chat_unused.h - what a conversation holds and the template does not write.
#ifndef TEXT_CHAT_UNUSED_H
#define TEXT_CHAT_UNUSED_H

#include "infer/text/chat.h"

// Published templates pass over what they do not know, without a word. note is called once for each
// thing passed over in messages[from..], maybe with the same words again; they are printable and
// end nowhere in particular: `the message key "function_call"`. messages: what chat_encode accepts;
// those before `from` only say what the others follow.
typedef void UnusedNote(void *ctx, const char *what);
void chat_unused(const json_t *messages, size_t from, ChatTemplate tmpl, UnusedNote *note,
                 void *ctx);

#endif
