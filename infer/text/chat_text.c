// infer/text/chat_text.c - growing text with spans.
#include "infer/text/chat_text.h"

#include <stdlib.h>
#include <string.h>

static void *grown(void *block, size_t n, size_t item) {
    block = realloc(block, n * item);
    CHECK_MEMORY(block);
    return block;
}

static void append(ChatText *c, const char *text, size_t size, bool markup) {
    if (size == 0) return;
    if (c->size + size + 1 > c->room) {
        c->room = 2 * (c->size + size) + 256;
        c->text = grown(c->text, c->room, 1);
    }
    memcpy(c->text + c->size, text, size);
    c->size += size;
    ChatSpan *last = c->n_spans ? &c->span[c->n_spans - 1] : NULL;
    if (last != NULL && last->kind == c->kind && last->markup == markup) {
        last->end = c->size;
        return;
    }
    if (c->n_spans == c->span_room) {
        c->span_room = 2 * c->span_room + 64;
        c->span = grown(c->span, c->span_room, sizeof *c->span);
    }
    c->span[c->n_spans++] = (ChatSpan){c->size, c->kind, markup};
}

void chat_markup(ChatText *c, const char *literal) {
    append(c, literal, strlen(literal), true);
}
void chat_content(ChatText *c, const char *text, size_t size) {
    append(c, text, size, false);
}

char *chat_text_take(ChatText *c, size_t *size) {
    char *text = grown(c->text, c->size + 1, 1);
    text[c->size] = '\0';
    *size = c->size;
    c->text = NULL;
    return text;
}

void chat_text_free(ChatText *c) {
    free(c->text);
    free(c->span);
    *c = (ChatText){0};
}
