// infer/text/tokenizer_merge.c - merging by rank: scanning for short segments, a heap for long
// ones.
#include "infer/text/tokenizer_merge.h"

#include <stdlib.h>

// Up to here a scan for the lowest rank beats a heap (measured on mixed text, flat from 24 to 64).
enum { SHORT_SEGMENT = 32 };

void merge_scratch_free(MergeScratch *m) {
    free(m->id);
    free(m->symbol);
    free(m->heap);
    *m = (MergeScratch){0};
}

static void rank_pair(const Tokenizer *t, int32_t left, int32_t right, uint32_t *rank,
                      int32_t *id) {
    const Merge *m = table_merge(t, left, right);
    *rank = m ? m->rank : MERGE_EMPTY;
    *id = m ? m->id : -1;
}

static void merge_short(const Tokenizer *t, MergeScratch *m) {
    uint32_t rank[SHORT_SEGMENT];
    int32_t merged[SHORT_SEGMENT], *id = m->id;
    size_t n = m->n;
    for (size_t i = 0; i + 1 < n; i++) rank_pair(t, id[i], id[i + 1], &rank[i], &merged[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == MERGE_EMPTY) break;
        id[best] = merged[best];
        n--;
        for (size_t i = best + 1; i < n; i++) id[i] = id[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            merged[i] = merged[i + 1];
        }
        if (best + 1 < n) rank_pair(t, id[best], id[best + 1], &rank[best], &merged[best]);
        if (best > 0) rank_pair(t, id[best - 1], id[best], &rank[best - 1], &merged[best - 1]);
    }
    m->n = n;
}

static void heap_push(MergeScratch *m, uint64_t key) {
    if (m->heap_n == m->heap_room)
        m->heap = memory_for(m->heap, m->heap_room = 2 * m->heap_room + 256, sizeof *m->heap);
    size_t i = m->heap_n++;
    for (; i > 0 && m->heap[(i - 1) / 2] > key; i = (i - 1) / 2) m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = key;
}

static uint64_t heap_pop(MergeScratch *m) {
    const uint64_t top = m->heap[0], last = m->heap[--m->heap_n];
    size_t i = 0;
    for (size_t child = 1; child < m->heap_n; child = 2 * i + 1) {
        if (child + 1 < m->heap_n && m->heap[child + 1] < m->heap[child]) child++;
        if (m->heap[child] >= last) break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

// The merge of symbol i with the one behind it, noted in the symbol and in the heap.
static void offer(const Tokenizer *t, MergeScratch *m, int32_t i) {
    Symbol *s = &m->symbol[i];
    s->rank = MERGE_EMPTY;
    if (s->next < 0) return;
    rank_pair(t, s->id, m->symbol[s->next].id, &s->rank, &s->merged);
    if (s->rank != MERGE_EMPTY) heap_push(m, (uint64_t)s->rank << 32 | (uint32_t)i);
}

static void merge_long(const Tokenizer *t, MergeScratch *m) {
    CHECK(m->n <= INT32_MAX, "a segment of %zu symbols", m->n);
    const int32_t n = (int32_t)m->n;
    if (m->n > m->symbol_room)
        m->symbol = memory_for(m->symbol, m->symbol_room = m->n, sizeof *m->symbol);
    m->heap_n = 0;
    for (int32_t i = 0; i < n; i++)
        m->symbol[i] = (Symbol){m->id[i], i - 1, i + 1 < n ? i + 1 : -1, MERGE_EMPTY, -1};
    for (int32_t i = 0; i < n; i++) offer(t, m, i);
    while (m->heap_n > 0) {
        const uint64_t key = heap_pop(m);
        Symbol *s = &m->symbol[(uint32_t)key];
        // An entry whose pair has changed is stale: no two pairs share a rank, and a symbol that
        // was swallowed has none.
        if (s->rank != (uint32_t)(key >> 32)) continue;
        Symbol *gone = &m->symbol[s->next];
        s->id = s->merged;
        s->next = gone->next;
        gone->rank = MERGE_EMPTY;
        if (s->next >= 0) m->symbol[s->next].prev = (int32_t)(uint32_t)key;
        offer(t, m, (int32_t)(uint32_t)key);
        if (s->prev >= 0) offer(t, m, s->prev);
    }
    m->n = 0;
    for (int32_t i = 0; i >= 0; i = m->symbol[i].next) m->id[m->n++] = m->symbol[i].id;
}

void merge_segment(const Tokenizer *t, MergeScratch *m) {
    if (m->n <= SHORT_SEGMENT)
        merge_short(t, m);
    else
        merge_long(t, m);
}
