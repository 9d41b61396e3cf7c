// infer/format/gguf_types.h - what the files of the GGUF reader and writer share. Private to them.
#ifndef FORMAT_GGUF_TYPES_H
#define FORMAT_GGUF_TYPES_H

#include "infer/base/file.h"
#include "infer/format/gguf.h"

enum {
    GGUF_VERSION = 3,
    GGUF_ALIGN_MAX = 4096,
    GGUF_HEAD_MAX = 64 << 20, // all metadata
    GGUF_TEXT_MAX = 16 << 20,
    GGUF_ARRAY_MAX = 4 << 20,
    GGUF_KEY_MAX = 256,
    GGUF_COUNT_MAX = 1 << 16, // values, tensors
};

// Bytes of a number; 0 for texts and arrays, -1: no such kind.
int gguf_kind_bytes(int64_t kind);
// NULL when the name is fit to be a key or a tensor's name, else what is wrong with it.
const char *gguf_name_problem(const char *name, size_t size, size_t most);
// Fills rows, count and bytes from type, rank and dim by checked arithmetic.
MUST_CHECK bool gguf_size(GgufTensor *t, Err *err);

struct GgufFile {
    char path[PATH_ROOM];
    int fd;
    int64_t size;
    char *head; // the first `loaded` bytes
    int64_t loaded;
    int64_t align, data_start, data_bytes;
    GgufValue *value; // keys are owned
    int nvalue;
    GgufTensor *tensor; // names are owned
    int ntensor;
    const GgufValue **value_by_key;
    const GgufTensor **tensor_by_name;
};

MUST_CHECK bool gguf_read_at(const GgufFile *f, void *out, int64_t size, int64_t offset, Err *err);
// Everything before the data; fills f.
MUST_CHECK bool gguf_read_head(GgufFile *f, Err *err);

#endif
