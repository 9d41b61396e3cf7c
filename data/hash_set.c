// data/hash_set.c - open addressing, doubled when half full.
#include "data/hash_set.h"

#include <stdlib.h>

#include "infer/base/err.h"

bool hash_set_add(HashSet *h, uint64_t key) {
    key += key == 0;
    if (2 * (h->used + 1) > h->room) {
        HashSet more = {.room = h->room ? 2 * h->room : 1024};
        more.at = calloc(more.room, sizeof *more.at);
        CHECK_MEMORY(more.at);
        for (size_t i = 0; i < h->room; i++)
            if (h->at[i]) hash_set_add(&more, h->at[i]);
        free(h->at);
        *h = more;
    }
    size_t i = key & (h->room - 1);
    for (; h->at[i]; i = (i + 1) & (h->room - 1))
        if (h->at[i] == key) return false;
    h->at[i] = key;
    h->used++;
    return true;
}

bool hash_set_has(const HashSet *h, uint64_t key) {
    key += key == 0;
    for (size_t i = key & (h->room - 1); h->room && h->at[i]; i = (i + 1) & (h->room - 1))
        if (h->at[i] == key) return true;
    return false;
}
