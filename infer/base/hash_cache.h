// infer/base/hash_cache.h - SHA-256 of large files, remembered while a file is visibly the same.
//
// The same: device, inode, size and both timestamps (mtime, ctime) to the nanosecond, as git's
// index has it. What was touched within the clock's grain of being hashed is not remembered, since
// a change right behind it might not show. A cache that is damaged or cannot be written costs time,
// nothing else.
#ifndef BASE_HASH_CACHE_H
#define BASE_HASH_CACHE_H

#include "infer/base/hash.h"

// cache: path of a JSON file in an existing folder; NULL: always hashed.
MUST_CHECK bool sha256_remembered(Sha256 *out, const char *path, const char *cache, Err *err);

#endif
