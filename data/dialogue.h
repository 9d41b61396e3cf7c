// data/dialogue.h - a row as the turns that a model is asked for: what it reads, what it wrote.
//
// Every turn is rendered as a server would render it at that moment. Whether a turn can share its
// sequence with the one before it is seen from the ids: it can when the template leaves what the
// model wrote as it is (the small models without thinking), and not when history looks different
// from what was generated (reasoning goes, the large models' empty channel goes).
#ifndef DATA_DIALOGUE_H
#define DATA_DIALOGUE_H

#include "data/row.h"
#include "data/token_sample.h"
#include "infer/text/chat_unused.h"

typedef enum { THINKING_AUTO, THINKING_ON, THINKING_OFF } Thinking; // auto: where a row reasons

typedef struct {
    const Tokenizer *tokenizer;
    ChatTemplate chat_template;
    bool every_turn; // else only the last one
    Thinking thinking;
    RowOptions row;
    int64_t max_length; // tokens of prompt and answer; 0 = any
    size_t max_bytes;   // of text that max_length tokens can stand for; 0 = any
} PrepareTools;
enum { ANSWER_ROOM = 2 }; // tokens that a prompt must leave: an answer of one token teaches nothing

typedef struct {
    Ids prompt;    // ends where the model is to write
    size_t keep;   // leading ids of it that stay when the turn is history; behind: a channel opened
    Ids answer;    // as recorded, its stop included; n = 0: none, or not asked for
    uint8_t *kind; // of the answer's ids
    bool called;   // recorded: it ends in calls, which the next turn's prompt answers
} Turn;
void turn_free(Turn *t);

typedef struct {
    const Row *row;
    const PrepareTools *with;
    bool thinking;
    size_t at;         // message or id from which the next turn is looked for
    size_t first_user; // index of the first user message
    bool too_much;     // more text than is looked at
    int64_t left_out;  // turns that would be too long, and those behind them
    int64_t tokens;    // of the first turn left out; 0: too much text to count them
    Ids ids;           // ROW_TEXT, ROW_TOKENS: the whole
    uint8_t *kind;
    bool open; // the whole ends where the model is to write
} Dialogue;

// ROW_REFUSED: no turn of the model in it, or out of memory (not ERR_INPUT). Borrows row and with.
RowVerdict dialogue_open(Dialogue *d, const Row *row, const PrepareTools *with, Err *err);
// The next turn (replaces what *t held): 1, 0 = no more, -1 = error. answers: recorded ones are
// wanted, and count towards max_length; else there must be ANSWER_ROOM.
int dialogue_next(Dialogue *d, Turn *t, bool answers, Err *err);
void dialogue_rewind(Dialogue *d);
// What the first n turns leave unsaid (chat_unused.h), their answers among it or not, told from the
// beginning; returns how many of them have a recorded answer. Only of ROW_CHAT.
int64_t dialogue_unused(Dialogue *d, int64_t n, bool answers, UnusedNote *note, void *ctx);
void dialogue_close(Dialogue *d);

#endif
