// infer/text/tokenizer_merge.h - byte-pair merging of one segment of text, in scratch of the
// caller.
#ifndef TEXT_TOKENIZER_MERGE_H
#define TEXT_TOKENIZER_MERGE_H

#include "infer/text/tokenizer_table.h"

typedef struct {
    int32_t id;
    int32_t prev, next; // neighbours, -1 = none
    uint32_t rank;      // of the merge with next; MERGE_EMPTY = none
    int32_t merged;     // id of that merge
} Symbol;

typedef struct {
    int32_t *id; // base symbols of the segment in, its tokens out
    size_t n, room;
    Symbol *symbol; // for long segments
    uint64_t *heap; // rank << 32 | position
    size_t symbol_room, heap_n, heap_room;
} MergeScratch;

void merge_scratch_free(MergeScratch *m);
// Replaces the symbols in m->id by the tokens: always the merge of lowest rank, the leftmost first.
void merge_segment(const Tokenizer *t, MergeScratch *m);

#endif
