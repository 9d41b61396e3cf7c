// infer/text/chat_render.h - the published templates, written out in C: a conversation to ChatText.
//
// Every branch follows the Jinja text of the three templates (April and July 2026), down to what
// they do with values of an unexpected type; where Jinja raises, these functions return ERR_INPUT.
#ifndef TEXT_CHAT_RENDER_H
#define TEXT_CHAT_RENDER_H

#include "infer/text/chat_text.h"

MUST_CHECK bool render_conversation(ChatText *c, const json_t *messages, const json_t *tools,
                                    ChatOptions opt, Err *err);

// "declaration:NAME{...}" of one tool.
MUST_CHECK bool render_declaration(ChatText *c, const json_t *tool, bool april, Err *err);
// A value in the templates' notation: strings between <|"|>, keys sorted.
void render_argument(ChatText *c, const json_t *v, bool escape_keys, bool april);
// key:value,... of a mapping, keys bare.
void render_members(ChatText *c, const json_t *object, bool april);
// name: what the template would glue in; anything but a string is refused.
MUST_CHECK bool render_response(ChatText *c, const json_t *name, const json_t *response, bool april,
                                Err *err);
// str(v) as content
void render_value(ChatText *c, const json_t *v);

#endif
