// infer/export/hf.h - assistant weights in exactly the container of the stock assistant.
//
// The stock's files are mirrored: header bytes, tensor order, dtypes and metadata stay; only the
// data of trained tensors differ. So an untrained assistant comes out byte for byte.
#ifndef EXPORT_HF_H
#define EXPORT_HF_H

#include "infer/base/file.h"
#include "infer/base/hash.h"
#include "infer/format/safetensors.h"

// Supplies a tensor's bytes in the stock's dtype. *have false: the stock's own bytes are kept.
typedef struct {
    void *ctx;
    bool (*fetch)(void *ctx, const StTensor *t, void *out, bool *have, Err *err);
} HfSource;

// Writes every weight file of stock_dir (and its index) into out_dir.
MUST_CHECK bool hf_mirror(const char *stock_dir, const char *out_dir, const HfSource *src,
                          Err *err);

// A source over another drafter's files: same key and shape demanded, dtype converted when it
// differs. The StFile must outlive the source.
HfSource hf_source_file(StFile *drafter);
// f32 -> the dtype of a stock tensor (BF16 rounds to nearest even, F32 copies). Other dtypes:
// ERR_INPUT.
MUST_CHECK bool hf_store_f32(const StTensor *t, const float *x, void *out, Err *err);
// The weight files of a model folder: model.safetensors, or those its index names; caller frees
// with dir_list_free.
MUST_CHECK char **hf_weight_files(const char *dir, int *n, Err *err);

#endif
