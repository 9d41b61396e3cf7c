// infer/text/chat_turn.h - state of the message loop, and the texts inside a turn.
#ifndef TEXT_CHAT_TURN_H
#define TEXT_CHAT_TURN_H

#include "infer/text/chat_render.h"

// What the last written message ended with (the templates' prev_message_type).
typedef enum { PREV_NONE, PREV_CALL, PREV_RESPONSE, PREV_MEDIA } Previous;

typedef struct {
    ChatText *c;
    ChatOptions opt;
    bool april;
    const json_t *messages; // from `first` on: the turns behind the system message
    size_t first, n;
    int64_t last_user; // index of the last user message, -1 = none
    Previous previous;
    bool open; // a turn was opened and not closed
    Err *err;
} Render;

bool turn_refuse(Render *r, const char *why); // sets ERR_INPUT, returns false
// The content of a message: a string or parts; a model's is freed of its reasoning channels.
MUST_CHECK bool turn_content(Render *r, const json_t *message, bool model);
// The content of the leading system message.
void turn_system(Render *r, const json_t *content);
// The placeholder of an image, audio or video part; NULL for other types.
const char *turn_media(const json_t *type, bool april);

#endif
