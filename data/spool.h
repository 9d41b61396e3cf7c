// data/spool.h - bytes put aside on disk in a file without a name, which is gone when it is closed
// or the process ends.
#ifndef DATA_SPOOL_H
#define DATA_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "infer/base/err.h"

typedef struct Spool Spool;
// dir: where the disk is; NULL: the system's folder for temporary files.
MUST_CHECK Spool *spool_open(const char *dir, Err *err);
void spool_close(Spool *s); // NULL is fine
// Where the bytes begin, or -1.
int64_t spool_add(Spool *s, const char *data, size_t size, Err *err);
MUST_CHECK bool spool_read(Spool *s, int64_t at, char *out, size_t size, Err *err);

#endif
