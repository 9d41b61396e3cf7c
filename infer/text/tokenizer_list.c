// infer/text/tokenizer_list.c - the vocabulary as lists, for files that carry it.
#include "infer/text/tokenizer_table.h"

const char *tokenizer_piece(const Tokenizer *t, int32_t id, size_t *size) {
    CHECK(id >= 0 && id < t->n);
    *size = t->piece[id].size;
    return t->bytes + t->piece[id].at;
}

size_t tokenizer_merges(const Tokenizer *t) {
    return t->merges;
}

void tokenizer_merge_pairs(const Tokenizer *t, int32_t (*pair)[2]) {
    // ranks are 0..merges-1, each once: none is dropped on loading
    for (size_t i = 0; i <= t->merge_mask; i++) {
        const Merge *m = &t->merge[i];
        if (m->left == MERGE_EMPTY) continue;
        CHECK(m->rank < t->merges);
        pair[m->rank][0] = (int32_t)m->left;
        pair[m->rank][1] = (int32_t)m->right;
    }
}
