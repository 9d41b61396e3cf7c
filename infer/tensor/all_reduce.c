// infer/tensor/all_reduce.c - which way pieces of a gradient go.
#include "infer/tensor/all_reduce.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"
#include "infer/base/world.h"
#include "infer/tensor/nccl.h"

enum { PIECES = 64 };

struct AllReduce {
    Device *dev;
    Nccl *nccl;           // NULL: through the host
    Tensor piece[PIECES]; // started, not finished
    int n;
};

AllReduce *all_reduce_open(Device *dev, Err *err) {
    AllReduce *a = calloc(1, sizeof *a);
    CHECK_MEMORY(a);
    a->dev = dev;
    if (world_size() == 1 || strcmp(dev->kind, "cuda") != 0) return a;
    if (!nccl_open(&a->nccl, dev, err)) {
        all_reduce_close(a);
        return NULL;
    }
    if (a->nccl == NULL) log_warn("no libnccl.so.2: gradients go through the host");
    return a;
}

void all_reduce_close(AllReduce *a) {
    if (a == NULL) return;
    nccl_close(a->nccl);
    free(a);
}

bool all_reduce_start(AllReduce *a, Tensor piece, Err *err) {
    CHECK(piece.dtype == DT_F32 && tensor_is_contiguous(piece));
    if (world_size() == 1) return true;
    if (a->nccl != NULL) return nccl_add(a->nccl, piece.data, tensor_count(piece), err);
    CHECK(a->n < PIECES);
    a->piece[a->n++] = piece;
    return true;
}

static bool through_host(AllReduce *a, Tensor piece, Err *err) {
    const int64_t n = tensor_count(piece);
    if (strcmp(a->dev->kind, "cpu") == 0)
        return dev_sync(a->dev, err) && world_add(piece.data, n, err);
    float *host = malloc((size_t)n * sizeof *host);
    if (host == NULL) return err_set(err, ERR_FAILED, "out of memory: %lld floats", (long long)n);
    dev_download(a->dev, host, piece);
    const bool ok = dev_sync(a->dev, err) && world_add(host, n, err);
    if (ok) dev_upload(a->dev, piece, host);
    const bool done = ok && dev_sync(a->dev, err);
    free(host);
    return done;
}

bool all_reduce_finish(AllReduce *a, Err *err) {
    bool ok = true;
    if (a->nccl != NULL) return nccl_wait(a->nccl, err);
    for (int i = 0; i < a->n && ok; i++) ok = through_host(a, a->piece[i], err);
    a->n = 0;
    return ok;
}
