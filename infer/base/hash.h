// infer/base/hash.h - SHA-256 for identities that leave the machine, XXH3 for our own chunks.
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/err.h"

typedef struct {
    char hex[65]; // lower case, 0-terminated
} Sha256;

MUST_CHECK bool sha256_bytes(Sha256 *out, const void *data, size_t size, Err *err);
MUST_CHECK bool sha256_file(Sha256 *out, const char *path, Err *err);
// A running hash: new, add..., finish (which frees it). NULL only when memory is out.
typedef struct Hasher Hasher;
Hasher *hasher_new(void);
void hasher_add(Hasher *h, const void *data, size_t size);
void hasher_finish(Hasher *h, Sha256 *out);

uint64_t xxh3_64(const void *data, size_t size);

#endif
