// infer/text/tokenizer_build.c - fills the tables of a Tokenizer, one checked item after another.
#include "infer/text/tokenizer_build.h"

#include <stdlib.h>

void *memory_for(void *old, size_t n, size_t item) {
    void *block = n > SIZE_MAX / item ? NULL : realloc(old, n * item);
    CHECK_MEMORY(block);
    return block;
}

// One more piece under an id that must be free.
bool build_piece(Tokenizer *t, int32_t id, const char *text, size_t size, Err *err) {
    if (size == 0) return err_set(err, ERR_INPUT, "id %d has an empty piece", id);
    if (id >= t->piece_room) {
        const int32_t room = id < TOKENIZER_ID_LIMIT / 2 ? 2 * id + 1024 : TOKENIZER_ID_LIMIT;
        t->piece = memory_for(t->piece, (size_t)room, sizeof *t->piece);
        memset(t->piece + t->piece_room, 0, (size_t)(room - t->piece_room) * sizeof *t->piece);
        t->piece_room = room;
    }
    if (t->piece[id].size != 0)
        return err_set(err, ERR_INPUT, "id %d is given to \"%.*s\" and to \"%.*s\"", id,
                       (int)t->piece[id].size, t->bytes + t->piece[id].at, (int)size, text);
    if (t->bytes_size + size > UINT32_MAX)
        return err_set(err, ERR_INPUT, "the pieces take more than %u bytes", UINT32_MAX);
    if (t->bytes_size + size > t->bytes_room) {
        t->bytes_room = 2 * (t->bytes_size + size) + (1 << 16);
        t->bytes = memory_for(t->bytes, t->bytes_room, 1);
    }
    memcpy(t->bytes + t->bytes_size, text, size);
    t->piece[id] = (Piece){(uint32_t)t->bytes_size, (uint32_t)size};
    t->bytes_size += size;
    if (id >= t->n) t->n = id + 1;
    return true;
}

static size_t table_size(size_t items) {
    size_t n = 16;
    while (n < 2 * items) n *= 2;
    return n;
}

static bool index_piece(Tokenizer *t, int32_t id, Err *err) {
    const Piece p = t->piece[id];
    const char *text = t->bytes + p.at;
    const int32_t other = table_piece(t, text, p.size);
    if (other >= 0)
        return err_set(err, ERR_INPUT, "piece \"%.*s\" has the ids %d and %d", (int)p.size, text,
                       other, id);
    size_t i = XXH3_64bits(text, p.size) & t->slot_mask;
    while (t->slot[i] != 0) i = (i + 1) & t->slot_mask;
    t->slot[i] = (uint32_t)id + 1;
    return true;
}

static void note_scalar(Tokenizer *t, int32_t id) {
    const Piece p = t->piece[id];
    const unsigned char *text = (const unsigned char *)t->bytes + p.at;
    uint32_t scalar;
    bool valid;
    if (utf8_read(text, text + p.size, &scalar, &valid) != p.size) return;
    int32_t **page = &t->page[scalar / SCALAR_PAGE];
    if (*page == NULL) {
        *page = memory_for(NULL, SCALAR_PAGE, sizeof **page);
        memset(*page, 0xFF, SCALAR_PAGE * sizeof **page);
    }
    (*page)[scalar % SCALAR_PAGE] = id;
}

int byte_piece_value(const char *text, size_t size) {
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        const char c = text[i];
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (c >= 'A' && c <= 'F')
            value = value * 16 + (c - 'A' + 10);
        else
            return -1;
    }
    return value;
}

static void grow_merges(Tokenizer *t) {
    const size_t old = t->merge ? t->merge_mask + 1 : 0, n = old ? 2 * old : 1 << 10;
    Merge *from = t->merge;
    t->merge = memory_for(NULL, n, sizeof *t->merge);
    memset(t->merge, 0xFF, n * sizeof *t->merge);
    t->merge_mask = n - 1;
    for (size_t k = 0; k < old; k++) {
        if (from[k].left == MERGE_EMPTY) continue;
        size_t i = merge_hash(from[k].left, from[k].right) & t->merge_mask;
        while (t->merge[i].left != MERGE_EMPTY) i = (i + 1) & t->merge_mask;
        t->merge[i] = from[k];
    }
    free(from);
}

// Hash table, one-scalar pieces, byte pieces. Every id below n must have a piece by now.
bool build_vocab(Tokenizer *t, Err *err) {
    const size_t slots = table_size((size_t)t->n);
    t->slot = calloc(slots, sizeof *t->slot);
    t->flag = calloc((size_t)t->n + 1, sizeof *t->flag);
    CHECK_MEMORY(t->slot);
    CHECK_MEMORY(t->flag);
    t->slot_mask = slots - 1;
    grow_merges(t); // an empty table, so that lookups need no test
    memset(t->byte_id, 0xFF, sizeof t->byte_id);
    for (int32_t id = 0; id < t->n; id++) {
        const Piece p = t->piece[id];
        if (p.size == 0) return err_set(err, ERR_INPUT, "id %d of %d has no piece", id, t->n);
        if (!index_piece(t, id, err)) return false;
        const int value = byte_piece_value(t->bytes + p.at, p.size);
        if (value >= 0) {
            t->byte_id[value] = id;
            t->flag[id] |= PIECE_BYTE;
        }
        note_scalar(t, id);
    }
    if (table_scalar(t, SCALAR_BLANK) < 0)
        return err_set(err, ERR_INPUT,
                       "the piece \"\u2581\", which stands for a blank, is missing");
    for (int b = 0; b < 256; b++)
        if (t->byte_id[b] < 0)
            return err_set(err, ERR_INPUT,
                           "byte_fallback needs 256 byte pieces, <0x%02X> is missing", (unsigned)b);
    return true;
}

static uint32_t first_scalar(const char *text, size_t size) {
    const unsigned char *p = (const unsigned char *)text;
    uint32_t scalar;
    bool valid;
    (void)utf8_read(p, p + size, &scalar, &valid);
    return scalar;
}

static uint32_t last_scalar(const char *text, size_t size) {
    size_t from = size - 1;
    while (from > 0 && ((unsigned char)text[from] & 0xC0) == 0x80) from--;
    return first_scalar(text + from, size - from);
}

static void note_cross(Tokenizer *t, int32_t left, int32_t right) {
    const Piece l = t->piece[left], r = t->piece[right];
    const uint32_t a = last_scalar(t->bytes + l.at, l.size),
                   b = first_scalar(t->bytes + r.at, r.size);
    const uint32_t h = cross_hash(a, b);
    t->cross[h / 64] |= (uint64_t)1 << (h % 64);
    const uint32_t x = a == SCALAR_BLANK ? ' ' : a, y = b == SCALAR_BLANK ? ' ' : b;
    if (x < 128 && y < 128) t->cross_ascii[x][y / 64] |= (uint64_t)1 << (y % 64);
    if ((t->flag[left] | t->flag[right]) & PIECE_BYTE) t->bytes_merge = true;
}

static int32_t known_piece(const Tokenizer *t, const char *text, size_t size, uint32_t rank,
                           Err *err) {
    const int32_t id = size ? table_piece(t, text, size) : -1;
    if (id < 0)
        err_set(err, ERR_INPUT, "merge %u: \"%.*s\" is not in the vocabulary", rank,
                size > 200 ? 200 : (int)size, text);
    return id;
}

// left and right are the halves' lengths; they lie one behind the other in `pair`.
bool build_merge(Tokenizer *t, const char *pair, size_t left, size_t right, uint32_t rank,
                 Err *err) {
    if (2 * (t->merges + 1) > t->merge_mask) grow_merges(t);
    const int32_t l = known_piece(t, pair, left, rank, err);
    const int32_t r = l < 0 ? -1 : known_piece(t, pair + left, right, rank, err);
    const int32_t id = r < 0 ? -1 : known_piece(t, pair, left + right, rank, err);
    if (id < 0) return false;
    if (table_merge(t, l, r) != NULL)
        return err_set(err, ERR_INPUT, "merge %u occurs twice: \"%.*s\" + \"%.*s\"", rank,
                       (int)left, pair, (int)right, pair + left);
    // User text is encoded without added tokens and must never give one.
    if (t->flag[id] & PIECE_SPECIAL)
        return err_set(err, ERR_INPUT, "merge %u builds the added token \"%.*s\" from text", rank,
                       (int)(left + right), pair);
    size_t i = merge_hash((uint32_t)l, (uint32_t)r) & t->merge_mask;
    while (t->merge[i].left != MERGE_EMPTY) i = (i + 1) & t->merge_mask;
    t->merge[i] = (Merge){(uint32_t)l, (uint32_t)r, rank, id};
    t->merges++;
    note_cross(t, l, r);
    return true;
}

static int longer_first(const void *a, const void *b) {
    const Added *x = a, *y = b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

// Added tokens the vocabulary lacks become pieces here; the others must carry the vocabulary's id.
bool build_added(Tokenizer *t, const json_t *list, Err *err) {
    const size_t n = json_array_size(list);
    t->added = memory_for(NULL, n + 1, sizeof *t->added);
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(list, i);
        const char *text = json_string_value(json_object_get(entry, "content"));
        const size_t size = json_string_length(json_object_get(entry, "content"));
        const json_int_t id = json_integer_value(json_object_get(entry, "id"));
        if (id < 0 || id >= TOKENIZER_ID_LIMIT)
            return err_set(err, ERR_INPUT, "added token \"%s\" has id %lld, allowed 0..%d", text,
                           (long long)id, TOKENIZER_ID_LIMIT - 1);
        const Piece *p = id < t->n ? &t->piece[id] : NULL;
        const bool there = p && p->size == size && memcmp(t->bytes + p->at, text, size) == 0;
        if (!there && !build_piece(t, (int32_t)id, text, size, err)) return false;
        t->added[t->n_added++] = (Added){(int32_t)id, (uint32_t)size, NULL};
    }
    return true;
}

bool build_added_index(Tokenizer *t, Err *err) {
    for (int i = 0; i < t->n_added; i++) {
        Added *a = &t->added[i];
        a->text = t->bytes + t->piece[a->id].at;
        if (t->flag[a->id] & (PIECE_SPECIAL | PIECE_BYTE) ||
            table_scalar(t, first_scalar(a->text, a->size)) == a->id)
            return err_set(err, ERR_INPUT,
                           "added token \"%.*s\" is listed twice, a byte or one character",
                           (int)a->size, a->text);
        t->flag[a->id] |= PIECE_SPECIAL;
        t->added_first[(unsigned char)a->text[0]] = true;
    }
    qsort(t->added, (size_t)t->n_added, sizeof *t->added, longer_first);
    return true;
}

void build_finish(Tokenizer *t) {
    if (!t->bytes_merge) return;
    for (uint32_t a = 0; a < 128; a++)
        for (uint32_t b = 0; b < 128; b++)
            if (table_scalar(t, a) < 0 || table_scalar(t, b) < 0)
                t->cross_ascii[a][b / 64] |= (uint64_t)1 << (b % 64);
}
