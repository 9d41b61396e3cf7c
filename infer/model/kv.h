// infer/model/kv.h - the target's key/value cache: slots (sequences) x layers that own K/V.
//
// Sliding layers keep a window of rows, full layers all. Rows are absolute positions. A KvView
// borrows rows until the next kv_reserve() or kv_rewind() of that slot.
#ifndef MODEL_KV_H
#define MODEL_KV_H

#include "infer/model/gemma4_config.h"
#include "infer/tensor/device.h"

typedef struct KvCache KvCache;

typedef struct {
    Tensor k, v;   // (rows, kv_heads * hd), K after norm and RoPE, V after norm
    int64_t first; // absolute position of row 0
} KvView;

// capacity: most positions of a slot; chunk: most rows added at once; keep_all: sliding layers keep
// every row too (capture of short sequences). dtype F32 or BF16.
int64_t kv_bytes(const TextConfig *c, int slots, int64_t capacity, int64_t chunk, bool keep_all,
                 DType dtype);
MUST_CHECK KvCache *kv_open(Device *dev, const TextConfig *c, int slots, int64_t capacity,
                            int64_t chunk, bool keep_all, DType dtype, Err *err);
void kv_close(KvCache *kv);
int64_t kv_length(const KvCache *kv, int slot);
// Makes room for n rows behind the present ones; the new rows are then written through kv_rows().
void kv_reserve(KvCache *kv, int slot, int64_t n);
KvView kv_rows(const KvCache *kv, int slot, int layer, int64_t first, int64_t n); // absolute rows
KvView kv_view(const KvCache *kv, int slot,
               int layer);             // everything still held, reserved rows included
void kv_commit(KvCache *kv, int slot); // reserved rows count from now on
// Drops rows from `length` on (rejected drafts); always possible back to the length before the last
// kv_reserve, further only while the sliding rows are still there.
void kv_rewind(KvCache *kv, int slot, int64_t length);
void kv_clear(KvCache *kv, int slot);

#endif
