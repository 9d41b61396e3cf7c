// infer/text/tokenizer_encode.c - a run of plain text to ids: safe cuts, a cache of words, merging.
//
// Text is cut where no merge can ever join the two scalars (Tokenizer.cross, built from the merges
// themselves), so the segments' tokens are exactly those of the whole. Short segments repeat, so
// each thread keeps a fixed table of them; a hit compares every byte.
#include <pthread.h>
#include <stdlib.h>

#include "infer/text/tokenizer_merge.h"

enum {
    CACHE_SLOTS = 1 << 15, // 64 bytes each: 2 MiB a thread
    CACHED_BYTES = 30,     // the longest segment kept
    CACHED_IDS = 8,
    SCRATCH_KEPT = 1 << 20, // symbols a thread keeps between calls
};

typedef struct {
    uint8_t size, n; // size 0: free
    char text[CACHED_BYTES];
    int32_t id[CACHED_IDS];
} Cached;
_Static_assert(sizeof(Cached) == 64, "one cache line");

typedef struct {
    uint64_t serial; // tokenizer that the cache speaks of
    Cached *cache;
    MergeScratch merge;
} Workspace;

static pthread_key_t workspace_key;
static pthread_once_t workspace_once = PTHREAD_ONCE_INIT;

static void workspace_free(void *block) {
    Workspace *w = block;
    merge_scratch_free(&w->merge);
    free(w->cache);
    free(w);
}

static void workspace_key_make(void) {
    CHECK(pthread_key_create(&workspace_key, workspace_free) == 0, "no thread key left");
}

// This thread's workspace, its cache emptied when the tokenizer is another one.
static Workspace *workspace_of(const Tokenizer *t) {
    static _Thread_local Workspace *mine;
    if (mine == NULL) {
        CHECK(pthread_once(&workspace_once, workspace_key_make) == 0, "pthread_once");
        mine = calloc(1, sizeof *mine);
        Cached *cache = aligned_alloc(64, CACHE_SLOTS * sizeof *cache);
        CHECK_MEMORY(mine);
        CHECK_MEMORY(cache);
        mine->cache = cache;
        CHECK(pthread_setspecific(workspace_key, mine) == 0, "out of memory");
    }
    if (mine->serial != t->serial) {
        memset(mine->cache, 0, CACHE_SLOTS * sizeof *mine->cache);
        mine->serial = t->serial;
    }
    return mine;
}

static void push_many(Ids *out, const int32_t *id, size_t n) {
    if (out->n + n > out->room)
        out->id = memory_for(out->id, out->room = 2 * (out->n + n) + 64, sizeof *out->id);
    for (size_t i = 0; i < n; i++) out->id[out->n + i] = id[i];
    out->n += n;
}

// The symbols merging starts from: one-scalar pieces, and bytes where there is none.
static void base_symbols(const Tokenizer *t, const unsigned char *p, size_t size, MergeScratch *m) {
    if (3 * size > m->room) // an invalid byte may become the three bytes of U+FFFD
        m->id = memory_for(m->id, m->room = 3 * size + 64, sizeof *m->id);
    m->n = 0;
    for (const unsigned char *end = p + size; p < end;) {
        uint32_t scalar;
        bool valid;
        p += utf8_read(p, end, &scalar, &valid);
        const int32_t id = table_scalar(t, scalar == ' ' ? SCALAR_BLANK : scalar);
        if (id >= 0) {
            m->id[m->n++] = id;
            continue;
        }
        char bytes[4];
        const size_t n = utf8_write(scalar == ' ' ? SCALAR_BLANK : scalar, bytes);
        for (size_t i = 0; i < n; i++) m->id[m->n++] = t->byte_id[(unsigned char)bytes[i]];
    }
}

static void encode_segment(const Tokenizer *t, Workspace *w, const char *text, size_t size,
                           Ids *out) {
    MergeScratch *m = &w->merge;
    Cached *c = NULL;
    if (size <= CACHED_BYTES) {
        c = &w->cache[XXH3_64bits(text, size) % CACHE_SLOTS];
        if (c->size == size && memcmp(c->text, text, size) == 0) {
            push_many(out, c->id, c->n);
            return;
        }
    }
    base_symbols(t, (const unsigned char *)text, size, m);
    merge_segment(t, m);
    push_many(out, m->id, m->n);
    if (c != NULL && m->n <= CACHED_IDS) {
        c->size = (uint8_t)size;
        c->n = (uint8_t)m->n;
        memcpy(c->text, text, size);
        memcpy(c->id, m->id, m->n * sizeof *m->id);
    }
}

static bool may_cross(const Tokenizer *t, uint32_t a, uint32_t b) {
    a = a == ' ' ? SCALAR_BLANK : a;
    b = b == ' ' ? SCALAR_BLANK : b;
    const uint32_t h = cross_hash(a, b);
    if (t->cross[h / 64] >> (h % 64) & 1) return true;
    return t->bytes_merge && (table_scalar(t, a) < 0 || table_scalar(t, b) < 0);
}

void encode_run(const Tokenizer *t, const char *text, size_t size, Ids *out) {
    if (size == 0) return;
    Workspace *w = workspace_of(t);
    const unsigned char *p = (const unsigned char *)text, *end = p + size, *from = p;
    uint32_t a, b;
    bool valid;
    p += utf8_read(p, end, &a, &valid);
    while (p < end) {
        const unsigned char *at = p;
        bool joined;
        if ((a | *p) < 128) {
            b = *p++;
            joined = t->cross_ascii[a][b / 64] >> (b % 64) & 1;
        } else {
            p += utf8_read(p, end, &b, &valid);
            joined = may_cross(t, a, b);
        }
        if (!joined) {
            encode_segment(t, w, (const char *)from, (size_t)(at - from), out);
            from = at;
        }
        a = b;
    }
    encode_segment(t, w, (const char *)from, (size_t)(end - from), out);
    if (w->merge.symbol_room > SCRATCH_KEPT) merge_scratch_free(&w->merge);
}
