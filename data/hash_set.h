// data/hash_set.h - a set of 64-bit hashes.
#ifndef DATA_HASH_SET_H
#define DATA_HASH_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Zero-initialise, free(at).
typedef struct {
    uint64_t *at;      // open addressing; 0 stands for an empty place
    size_t used, room; // room: a power of two
} HashSet;

bool hash_set_add(HashSet *h, uint64_t key); // false: it was there
bool hash_set_has(const HashSet *h, uint64_t key);

#endif
