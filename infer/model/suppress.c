// infer/model/suppress.c - columns of logits that nobody may choose.
#include "infer/model/suppress.h"

#include <stdlib.h>

static bool within(int64_t id, int64_t v0, int64_t cols) {
    return id >= v0 && id < v0 + cols;
}

bool suppress_any(const Suppress *s, int64_t v0, int64_t cols) {
    bool any = false;
    for (int i = 0; i < s->n; i++) any |= within(s->id[i], v0, cols);
    return any;
}

void suppress_columns(Device *dev, const Suppress *s, Tensor z, Tensor never, int64_t v0) {
    for (int i = 0; i < s->n; i++)
        if (within(s->id[i], v0, z.cols))
            op_copy(dev, tensor_cols(z, s->id[i] - v0, 1), tensor_rows(never, 0, z.rows));
}

bool suppress_fill(Device *dev, Tensor never, Err *err) {
    float *column = malloc((size_t)never.rows * sizeof *column);
    if (column == NULL)
        return err_set(err, ERR_FAILED, "out of memory for %lld rows", (long long)never.rows);
    for (int64_t i = 0; i < never.rows; i++) column[i] = SUPPRESSED;
    dev_upload(dev, never, column);
    const bool ok = dev_sync(dev, err); // the column goes
    free(column);
    return ok;
}
