// infer/text/tokenizer.c - the public face: ids of text with added tokens, text of ids, lookups.
#include "infer/text/tokenizer.h"

#include <stdlib.h>

#include "infer/text/tokenizer_table.h"

int32_t tokenizer_vocab(const Tokenizer *t) {
    return t->n;
}
const Sha256 *tokenizer_hash(const Tokenizer *t) {
    return &t->hash;
}

size_t tokenizer_longest(const Tokenizer *t) {
    size_t most = 4; // a byte piece is less than the scalar it belongs to
    for (int32_t i = 0; i < t->n; i++)
        if (t->piece[i].size > most) most = t->piece[i].size;
    return most;
}

int32_t tokenizer_id(const Tokenizer *t, const char *piece) {
    return table_piece(t, piece, strlen(piece));
}

bool tokenizer_is_special(const Tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n && t->flag[id] & PIECE_SPECIAL;
}

void ids_push(Ids *ids, int32_t id) {
    if (ids->n == ids->room)
        ids->id = memory_for(ids->id, ids->room = 2 * ids->room + 64, sizeof *ids->id);
    ids->id[ids->n++] = id;
}

void ids_free(Ids *ids) {
    free(ids->id);
    *ids = (Ids){0};
}

int32_t tokenizer_added(const Tokenizer *t, const char *text, size_t size, size_t *length) {
    if (size == 0 || !t->added_first[(unsigned char)*text]) return -1;
    for (int i = 0; i < t->n_added; i++) {
        const Added *a = &t->added[i];
        if (a->size > size || a->text[a->size - 1] != text[a->size - 1]) continue;
        if (memcmp(a->text, text, a->size) != 0) continue;
        *length = a->size;
        return a->id;
    }
    return -1;
}

void tokenizer_encode(const Tokenizer *t, const char *text, size_t size, bool special, Ids *out) {
    size_t from = 0;
    for (size_t at = 0; special && at < size;) {
        size_t length;
        const int32_t id = tokenizer_added(t, text + at, size - at, &length);
        if (id < 0) {
            at++;
            continue;
        }
        encode_run(t, text + from, at - from, out);
        ids_push(out, id);
        from = at += length;
    }
    encode_run(t, text + from, size - from, out);
}

size_t tokenizer_span(const Tokenizer *t, int32_t id, const char *text, size_t size) {
    const unsigned char *p = (const unsigned char *)text, *end = p + size;
    uint32_t scalar;
    bool valid;
    if (size == 0 || id < 0 || id >= t->n) return 0;
    // A byte piece is one byte where the scalar has no piece of its own, else six spelled
    // characters.
    if (t->flag[id] & PIECE_BYTE) {
        (void)utf8_read(p, end, &scalar, &valid);
        if (!valid || table_scalar(t, scalar == ' ' ? SCALAR_BLANK : scalar) < 0) return 1;
    }
    const unsigned char *s = (const unsigned char *)t->bytes + t->piece[id].at;
    for (const unsigned char *stop = s + t->piece[id].size; s < stop && p < end;) {
        s += utf8_read(s, stop, &scalar, &valid);
        p += utf8_read(p, end, &scalar, &valid);
    }
    return (size_t)(p - (const unsigned char *)text);
}

typedef struct {
    char *text;
    size_t size, room;
    unsigned char *byte; // byte pieces seen in a row and not yet written
    size_t bytes, byte_room;
} Decoder;

static void put(Decoder *d, const char *text, size_t size) {
    if (d->size + size + 1 > d->room)
        d->text = memory_for(d->text, d->room = 2 * (d->size + size) + 64, 1);
    if (size > 0) memcpy(d->text + d->size, text, size);
    d->size += size;
}

// Byte pieces in a row are text when all of them together are UTF-8, else one U+FFFD each.
static void put_bytes(Decoder *d) {
    if (utf8_valid((const char *)d->byte, d->bytes)) {
        put(d, (const char *)d->byte, d->bytes);
    } else {
        for (size_t i = 0; i < d->bytes; i++) put(d, "\uFFFD", 3);
    }
    d->bytes = 0;
}

// Every U+2581 of a piece is a blank.
static void put_piece(Decoder *d, const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        const bool blank = size - at >= 3 && memcmp(text + at, "\u2581", 3) == 0;
        put(d, blank ? " " : text + at, 1);
        at += blank ? 3 : 1;
    }
}

char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                       size_t *size) {
    Decoder d = {0};
    for (size_t i = 0; i < n; i++) {
        const int32_t id = ids[i];
        if (id < 0 || id >= t->n || (skip_special && tokenizer_is_special(t, id))) continue;
        const Piece p = t->piece[id];
        if (t->flag[id] & PIECE_BYTE) {
            if (d.bytes == d.byte_room)
                d.byte = memory_for(d.byte, d.byte_room = 2 * d.bytes + 64, 1);
            d.byte[d.bytes++] = (unsigned char)byte_piece_value(t->bytes + p.at, p.size);
            continue;
        }
        put_bytes(&d);
        put_piece(&d, t->bytes + p.at, p.size);
    }
    put_bytes(&d);
    put(&d, "", 0);
    d.text[d.size] = '\0';
    *size = d.size;
    free(d.byte);
    return d.text;
}
