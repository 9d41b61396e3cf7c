// infer/model/target.h - the Gemma 4 text model, from config alone; an adapter is merged at load.
#ifndef MODEL_TARGET_H
#define MODEL_TARGET_H

#include "infer/base/hash.h"
#include "infer/model/gemma4_config.h"
#include "infer/model/kv.h"
#include "infer/tensor/ops.h"

// How runtimes hold sqrt(hidden), and sqrt(width) of the per-layer table: as float32, or rounded to
// bf16 as a bf16 load does. auto: bf16 when the file's embedding is.
typedef enum { EMBED_SCALE_AUTO, EMBED_SCALE_F32, EMBED_SCALE_BF16 } EmbedScale;

typedef struct {
    const char *dir, *adapter; // adapter "" or NULL: none
    DType dtype;               // storage of weights and of what enters the GEMMs
    EmbedScale scale;
    int64_t max_rows; // of one target_forward call; 0: none, and only the embedding table is read
} TargetOptions;

typedef struct Target Target;

MUST_CHECK Target *target_open(Device *dev, const TargetOptions *opt, Err *err);
void target_close(Target *t);
const TargetConfig *target_config(const Target *t);
Tensor target_embedding(const Target *t); // (V, B), unscaled: also the head
float target_embed_scale(const Target *t);
Device *target_device(const Target *t);
size_t target_bytes(const Target *t); // device memory it holds

// SHA-256 over the hashes of config.json, the model files and the adapter's two: what shards and
// drafters are bound to. A merged export has another fingerprint than base plus adapter. Nothing is
// loaded; cache (hash_cache.h, may be NULL): model files it remembers are not read either.
MUST_CHECK bool target_fingerprint(Sha256 *out, const char *dir, const char *adapter,
                                   const char *cache, Err *err);

// Runs pieces of several sequences at once: piece i is `count` tokens of cache slot `slot`,
// appended behind what the slot holds. ids: all pieces' tokens, in order. hidden (any) receives the
// state AFTER the final norm of every piece's rows, in order, but for its first `skip`: those stop
// once the last layer that owns K/V has stored theirs (a prompt needs its last row only, or none),
// and the bits of the others are the same as without. hidden has sum of (count - skip) rows, B
// columns. layers: NULL, or L tensors (rows, B) that receive every layer's output (golden tests;
// then nothing is skipped). Rows are committed to the cache.
typedef struct {
    int slot;
    int64_t count;
    int64_t skip; // 0 .. count
} TargetPiece;
void target_forward(Target *t, KvCache *kv, const TargetPiece *piece, int n, const int32_t *ids,
                    Tensor hidden, Tensor *layers);
// Soft-capped logits of hidden rows: logits F32 (rows, V). The model's own: nothing is suppressed.
void target_logits(Target *t, Tensor logits, Tensor hidden);
// The two largest logits of each row and their ids without a (rows, V) matrix: best F32 (rows, 2),
// id I32 (rows, 2). Suppressed ids (suppress.h) are passed over.
void target_top2(Target *t, Tensor best, Tensor id, Tensor hidden);

// A step of decoding: target_forward (layers NULL) and, where best is there, target_top2 of its
// rows. Few rows, none skipped, go to the device as a span (dev_span_begin).
void target_step(Target *t, KvCache *kv, const TargetPiece *piece, int n, const int32_t *ids,
                 Tensor hidden, Tensor best, Tensor id);

// A matrix that a runtime quantises, where it lies: to be looked at, or to be replaced for a while
// and put back. name: its path in an MLX file without the prefix ("layers.3.self_attn.k_proj").
// Embeddings, and the router of a mixture (F32), are not among them.
typedef struct {
    char name[96];
    Tensor first;            // the matrix; of a mixture that of expert 0
    int64_t experts, stride; // experts 0: one matrix; stride: rows from one expert's to the next
} TargetModule;
// In the order of the layers; returns their number. out NULL: counts.
int target_modules(const Target *t, TargetModule *out);

// Merged weights under the keys and dtypes of the source files, one safetensors file (or shards as
// the source has them) in out_dir, with config and tokenizer files: what gets served.
MUST_CHECK bool target_export(const char *dir, const char *adapter, const char *out_dir, Err *err);

#endif
