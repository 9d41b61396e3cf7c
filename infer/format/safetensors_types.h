// infer/format/safetensors_types.h - what the files of the safetensors reader and writer share:
// dtypes, names, sizes, the open file. Private to them.
#ifndef FORMAT_SAFETENSORS_TYPES_H
#define FORMAT_SAFETENSORS_TYPES_H

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/format/safetensors.h"

enum { ST_NAME_MAX = 256, ST_HEADER_MAX = 100000000 };

// Position of a dtype in the reference writer's order, first written = 0; -1 = unknown.
int st_dtype_rank(const char *dtype);
// NULL when the name is fit to be a key, else what is wrong with it.
const char *st_name_problem(const char *name, size_t length);
// Fills count and bytes from dtype, rank and dim by checked arithmetic.
MUST_CHECK bool st_size(StTensor *t, Err *err);

typedef struct {
    char path[PATH_ROOM];
    int fd;
    int64_t size;
} StShard;

struct StFile {
    char path[PATH_ROOM];
    StShard *shard;
    int nshard;
    StTensor *tensor; // by shard, then offset; names are owned
    int n, room;
    StTensor **by_name;
    json_t *metadata; // of the first shard, NULL = absent
};

// Exactly size bytes at offset; a file that ends early is an error.
MUST_CHECK bool st_read_at(const StShard *s, void *out, int64_t size, int64_t offset, Err *err);
// Appends the tensors of an open shard, checked against its size.
MUST_CHECK bool st_read_header(StFile *f, int shard, Err *err);

#endif
