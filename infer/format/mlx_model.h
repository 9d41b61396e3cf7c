// infer/format/mlx_model.h - an MLX model folder with its quantised tensors as what they stand for:
// one weight by its plain name and shape, decoded when it is read.
#ifndef FORMAT_MLX_MODEL_H
#define FORMAT_MLX_MODEL_H

#include "infer/format/mlx_rules.h"
#include "infer/format/safetensors.h"

typedef struct {
    const char *name; // of the weight
    int rank;
    int64_t dim[ST_RANK_MAX]; // of the decoded weight
    int64_t count;
    bool quantised;
    MlxScheme scheme;
    const StTensor *stored; // packed words, or the tensor itself
    const StTensor *scales, *biases;
} MlxTensor;

typedef struct MlxModel MlxModel;

// Opens the weights of dir and checks them against its config.json: every module that has .scales
// has a rule and every rule of a quantised module has its tensors, shapes and dtypes are what the
// rule says. ERR_INPUT names the module. A folder without a block is opened with plain tensors.
MUST_CHECK MlxModel *mlx_model_open(const char *dir, Err *err);
// The same of a file and a configuration that are open already; the file is the model's from here
// on, whatever is returned.
MUST_CHECK MlxModel *mlx_model_of(StFile *file, const json_t *config, Err *err);
void mlx_model_close(MlxModel *m);
const StFile *mlx_model_file(const MlxModel *m);
const MlxRules *mlx_model_rules(const MlxModel *m);
int mlx_model_count(const MlxModel *m);
const MlxTensor *mlx_model_at(const MlxModel *m, int i);
const MlxTensor *mlx_model_find(const MlxModel *m, const char *name); // NULL = absent
// Rows [first, first + n) of a float tensor seen as (product of the leading dims, last dim): out
// (n, last). Quantised ones give the bf16 values that MLX on a CPU gives.
MUST_CHECK bool mlx_model_rows(const MlxModel *m, const MlxTensor *t, int64_t first, int64_t n,
                               float *out, Err *err);
MUST_CHECK bool mlx_model_read(const MlxModel *m, const MlxTensor *t, float *out, Err *err);

#endif
