// infer/text/tokenizer_table.h - what a loaded Tokenizer holds, for the files of this module only.
//
// Everything is flat: pieces lie in one block of bytes, pieces and merges are found by
// open-addressing tables of our own. Nothing changes after loading.
#ifndef TEXT_TOKENIZER_TABLE_H
#define TEXT_TOKENIZER_TABLE_H

#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

#include "infer/base/utf8.h"
#include "infer/text/tokenizer.h"

enum {
    TOKENIZER_ID_LIMIT = 1 << 24,
    TOKENIZER_ADDED_LIMIT = 4096,
    SCALAR_PAGE = 256,    // scalars on one page of the scalar table
    CROSS_BITS = 1 << 20, // the filter of scalar pairs, in bits
    PIECE_SPECIAL = 1,    // flags
    PIECE_BYTE = 2,
};

typedef struct {
    uint32_t at, size; // in Tokenizer.bytes; size 0: no such id
} Piece;

typedef struct {
    uint32_t left, right; // ids; left == MERGE_EMPTY: free slot
    uint32_t rank;
    int32_t id; // of the two together
} Merge;
#define MERGE_EMPTY UINT32_MAX

typedef struct {
    int32_t id;
    uint32_t size;
    const char *text; // borrowed from Tokenizer.bytes
} Added;

struct Tokenizer {
    uint64_t serial; // tells tokenizers apart in caches; never reused in a process
    Sha256 hash;
    int32_t n; // ids 0..n-1, every one with a piece
    Piece *piece;
    uint8_t *flag; // PIECE_* per id
    char *bytes;
    size_t bytes_size, bytes_room;
    int32_t piece_room;
    uint32_t *slot; // id + 1 by hash of the piece, 0 = free
    size_t slot_mask;
    Merge *merge;
    size_t merge_mask;
    size_t merges;
    int32_t *page[SCALAR_LIMIT / SCALAR_PAGE]; // id of a one-scalar piece or -1; NULL page: none
    int32_t byte_id[256];
    Added *added; // longest first
    int n_added;
    bool added_first[256]; // first bytes of added tokens
    // May a merge ever join across the border between two scalars? Clear = never, so text may be
    // cut there. Built from the last scalar of each merge's left half and the first of its right
    // half.
    uint64_t cross_ascii[128][2]; // U+0020 stands for U+2581
    uint64_t
        cross[CROSS_BITS / 64]; // by cross_hash; a set bit may be a collision, which is harmless
    bool bytes_merge;           // some merge takes a byte piece: never cut beside one
};

static inline uint32_t cross_hash(uint32_t a, uint32_t b) {
    return (uint32_t)(((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15u >> (64 - 20));
}

static inline int32_t table_scalar(const Tokenizer *t, uint32_t scalar) {
    const int32_t *page = t->page[scalar / SCALAR_PAGE];
    return page ? page[scalar % SCALAR_PAGE] : -1;
}

static inline int32_t table_piece(const Tokenizer *t, const char *text, size_t size) {
    for (size_t i = XXH3_64bits(text, size) & t->slot_mask;; i = (i + 1) & t->slot_mask) {
        const uint32_t s = t->slot[i];
        if (s == 0) return -1;
        const Piece *p = &t->piece[s - 1];
        if (p->size == size && memcmp(t->bytes + p->at, text, size) == 0) return (int32_t)(s - 1);
    }
}

static inline size_t merge_hash(uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 32);
}

// The merge of two neighbours, or NULL.
static inline const Merge *table_merge(const Tokenizer *t, int32_t left, int32_t right) {
    const uint32_t l = (uint32_t)left, r = (uint32_t)right;
    for (size_t i = merge_hash(l, r) & t->merge_mask;; i = (i + 1) & t->merge_mask) {
        const Merge *m = &t->merge[i];
        if (m->left == l && m->right == r) return m;
        if (m->left == MERGE_EMPTY) return NULL;
    }
}

// The value of a byte piece <0xHH>, or -1.
int byte_piece_value(const char *text, size_t size);
void *memory_for(void *old, size_t n, size_t item); // realloc to n items that cannot fail
// Reads a whole tokenizer.json from memory; what tokenizer_load does behind the file.
MUST_CHECK Tokenizer *tokenizer_parse(const char *text, size_t size, Err *err);
// Appends the ids of text without any added token.
void encode_run(const Tokenizer *t, const char *text, size_t size, Ids *out);

#endif
