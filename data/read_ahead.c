// data/read_ahead.c - one thread for the sequences of one step.
#include "data/read_ahead.h"

#include <string.h>

static void read_all(void *ahead) {
    ReadAhead *a = ahead;
    while (a->read < a->n && a->src.read(a->src.ctx, a->index[a->read], &a->seq[a->read], &a->err))
        a->read++;
}

void read_ahead_begin(ReadAhead *a, const SeqSource *src, const int64_t *index, int n) {
    CHECK(n >= 0 && n <= PACK_SEQS_MAX);
    read_ahead_drop(a);
    if (n == 0) return;
    memcpy(a->index, index, (size_t)n * sizeof *index);
    a->src = *src;
    a->n = n;
    worker_start(&a->worker, read_all, a);
}

bool read_ahead_take(ReadAhead *a, const SeqSource *src, int64_t i, CapturedSeq *out, Err *err) {
    int k = 0;
    worker_wait(&a->worker);
    while (k < a->n && a->index[k] != i) k++;
    if (k < a->read) {
        *out = a->seq[k];
        a->index[k] = -1;
        return true;
    }
    if (k == a->read && k < a->n) return err_set(err, a->err.code, "%s", a->err.text);
    return src->read(src->ctx, i, out, err);
}

void read_ahead_drop(ReadAhead *a) {
    worker_wait(&a->worker);
    for (int k = 0; k < a->read; k++)
        if (a->index[k] >= 0) captured_free(&a->seq[k]);
    a->n = a->read = 0;
    a->err = (Err){0};
}
