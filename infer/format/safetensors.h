// infer/format/safetensors.h - reader that checks before it believes (spec/reliability.md 1),
// writer whose bytes are those of the reference writer.
#ifndef FORMAT_SAFETENSORS_H
#define FORMAT_SAFETENSORS_H

#include <stdint.h>

#include "infer/base/err.h"
#include "infer/base/hash.h"
#include "infer/tensor/tensor.h"

enum { ST_RANK_MAX = 8 };

typedef struct {
    const char *name;
    char dtype[12]; // as spelled in the file: "BF16"
    int rank;
    int64_t dim[ST_RANK_MAX];
    int64_t count; // product of dim
    int64_t bytes;
    int file;       // index of the shard
    int64_t offset; // absolute, in that shard
} StTensor;

// One file, or every shard of a directory (model.safetensors, or model.safetensors.index.json and
// the files it names). Data are read by pread when asked for, never mapped: a file that shrinks is
// an error, not a signal.
typedef struct StFile StFile;

MUST_CHECK StFile *st_open(const char *file_or_dir, Err *err);
void st_close(StFile *f);
int st_count(const StFile *f);
const StTensor *st_at(const StFile *f, int i);              // in file order
const StTensor *st_find(const StFile *f, const char *name); // NULL = absent
const char *st_metadata(const StFile *f, const char *key);  // of the first file; NULL = absent
// The i-th pair of the first file's __metadata__; false past the end.
bool st_metadata_at(const StFile *f, int i, const char **key, const char **value);
const char *st_path(const StFile *f);
int st_shards(const StFile *f);
const char *st_shard_path(const StFile *f, int i); // StTensor.file counts these
MUST_CHECK bool st_read(const StFile *f, const StTensor *t, void *out, Err *err); // raw bytes
// Part of a tensor: bytes [first, first + size).
MUST_CHECK bool st_read_part(const StFile *f, const StTensor *t, int64_t first, int64_t size,
                             void *out, Err *err);
// Any float dtype to f32 (F32, BF16, F16, F64).
MUST_CHECK bool st_read_f32(const StFile *f, const StTensor *t, float *out, Err *err);

// Writing: declare every tensor, then the data in the order st_writer_order gives (dtype rank
// descending, then name, as the reference writer does), then commit. Atomic; nothing stays on
// failure.
typedef struct StWriter StWriter;
// path NULL: a file that is only measured, never begun.
MUST_CHECK StWriter *st_writer_open(const char *path, Err *err);
MUST_CHECK bool st_writer_declare(StWriter *w, const char *name, const char *dtype, int rank,
                                  const int64_t *dim, Err *err);
void st_writer_metadata(StWriter *w, const char *key, const char *value); // e.g. format = pt
// Of the whole file, before it is begun.
MUST_CHECK bool st_writer_file_bytes(StWriter *w, int64_t *bytes, Err *err);
MUST_CHECK bool st_writer_begin(StWriter *w, Err *err); // fixes the order, writes the header
int st_writer_count(const StWriter *w);
const StTensor *st_writer_order(const StWriter *w, int i); // the i-th tensor to be written
MUST_CHECK bool st_writer_data(StWriter *w, const void *data, int64_t bytes,
                               Err *err);                // in order; may be parts
MUST_CHECK bool st_writer_commit(StWriter *w, Err *err); // frees w, whatever it returns
void st_writer_drop(StWriter *w);                        // instead of commit; NULL is fine

#endif
