// data/row.h - one object of people's data, in whatever shape, as a conversation, a text or tokens.
//
// The shape is found from the keys, first match wins: messages, conversations (role/content or
// from/value), turns (user turns of a suite), input_ids with loss_mask, prompt with or without a
// completion (text or messages), text (rendered already). Other keys are ignored.
#ifndef DATA_ROW_H
#define DATA_ROW_H

#include "data/corpus.h"

typedef struct {
    const char *prompt_key, *completion_key; // of completions; NULL: "prompt", "completion"
    bool drop_reasoning;                     // thinking is off: it is not what the model writes
} RowOptions;

typedef enum { ROW_CHAT, ROW_TEXT, ROW_TOKENS } RowForm;

typedef struct {
    char id[128], category[64]; // category: with "/" and the sub_category where there is one
    RowForm form;
    // ROW_CHAT. Roles are system, developer, user, assistant and tool. Reasoning is "reasoning",
    // arguments of calls are objects, calls have names; a tool message follows an assistant message
    // with calls and has the name of the call it answers. Keys that nothing here reads are kept.
    json_t *messages, *tools; // owned; tools may be NULL
    bool reasoned;            // some message has reasoning
    bool unanswered;          // turns: the assistant messages are placeholders
    const char *text;         // ROW_TEXT; borrowed from the line
    size_t text_size;
    const json_t *ids, *mask; // ROW_TOKENS; borrowed; mask may be NULL
} Row;

typedef enum {
    ROW_READ,
    ROW_MEDIA,   // images, sound or video belong to it: err says where
    ROW_REFUSED, // no conversation: err says why
} RowVerdict;

RowVerdict row_read(Row *out, const CorpusLine *line, const RowOptions *opt, Err *err);
void row_free(Row *r);
// The first n messages as the templates take them: responses in their call's message. New
// reference.
json_t *row_rendered(const Row *r, size_t n);

// Of row_messages.c: a list in any known spelling, appended to out in the form above.
RowVerdict messages_read(Row *out, const json_t *list, const char *name, const RowOptions *opt,
                         Err *err);
// null, or a text that says nothing: "", "null".
bool says_nothing(const json_t *v);
// Image, sound or video: "an image"; NULL for other types of content.
const char *media_name(const char *type);

#endif
