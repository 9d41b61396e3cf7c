// data/corpus_pack.h - bytes out of plain, compressed and packed files, member by member; limits
// instead of trust.
#ifndef DATA_CORPUS_PACK_H
#define DATA_CORPUS_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/err.h"

enum { MEMBER_NAME = 200 }; // room

typedef struct Pack Pack;
MUST_CHECK Pack *pack_open(const char *path, Err *err);
void pack_close(Pack *p);
// 1: a member is open, its printable name in `name` ("" for a file that is no archive), 0: no more,
// -1: error. What is no regular file is passed over and, folders apart, counted.
int pack_next(Pack *p, char name[MEMBER_NAME], Err *err);
// Bytes of the open member, borrowed until the next call: 1, 0 = its end, -1 = error.
int pack_read(Pack *p, const char **data, size_t *size, Err *err);
int64_t pack_skipped(const Pack *p);

#endif
