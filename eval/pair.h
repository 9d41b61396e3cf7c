// eval/pair.h - the models that the verbs of eval open: device, merged target, drafters on its
// embedding.
#ifndef EVAL_PAIR_H
#define EVAL_PAIR_H

#include "infer/base/file.h"
#include "infer/base/settings.h"
#include "infer/model/assistant.h"
#include "infer/model/target.h"

typedef struct {
    Device *dev;
    Target *target;
    DType dtype;      // runtime.dtype resolved: of weights, GEMM inputs and the target's cache
    int64_t max_rows; // of one target call
} Pair;

// max_rows: prompt rows and verified rows of one call.
MUST_CHECK bool pair_open(Pair *p, const Settings *s, int64_t max_rows, Err *err);
void pair_close(Pair *p);
// A drafter's folder, checked against the target. A folder without config.json (a checkpoint) takes
// configuration and constants from the stock assistant's.
MUST_CHECK Assistant *pair_drafter(const Pair *p, const Settings *s, const char *dir, Err *err);
// eval.drafter, else the best checkpoint of output_dir; "" when there is none.
MUST_CHECK bool pair_trained_path(const Settings *s, char out[PATH_ROOM], Err *err);

#endif
