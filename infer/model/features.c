// infer/model/features.c - a pack of hidden states and shared K/V, and the anchors that look into
// it.
#include "infer/model/features.h"

static int64_t kv_columns(const TargetConfig *c, int kind) {
    const int layer = c->kv_source[kind];
    return layer_kv_heads(&c->text, layer) * layer_head_dim(&c->text, layer);
}

size_t features_bytes(const TargetConfig *c, int64_t room, DType dtype) {
    Arena count;
    FeaturePack p;
    arena_open(&count, NULL, 0);
    features_take(&p, c, room, dtype, &count);
    return count.peak;
}

void features_take(FeaturePack *p, const TargetConfig *c, int64_t room, DType dtype, Arena *arena) {
    *p = (FeaturePack){.dtype = dtype, .room = room, .width = c->text.hidden};
    p->hidden = tensor_take(arena, dtype, room, p->width);
    for (int kind = 0; kind < 2; kind++) {
        p->kv_width[kind] = kv_columns(c, kind);
        p->k[kind] = tensor_take(arena, dtype, room, p->kv_width[kind]);
        p->v[kind] = tensor_take(arena, dtype, room, p->kv_width[kind]);
    }
}

void features_clear(FeaturePack *p) {
    p->rows = p->nseq = 0;
}

int features_begin(FeaturePack *p) {
    CHECK(p->nseq < PACK_SEQS_MAX);
    p->start[p->nseq] = p->start[p->nseq + 1] = p->rows;
    p->bare[p->nseq] = 0;
    return p->nseq++;
}

// Rows of the last sequence that are about to be filled, the first `bare` without a hidden state;
// returns the first.
static int64_t grow(FeaturePack *p, int64_t n, int64_t bare) {
    const int64_t at = p->rows;
    CHECK(p->nseq > 0 && n >= 0 && n <= p->room - at, "(pack: %lld rows, %lld more, room for %lld)",
          (long long)at, (long long)n, (long long)p->room);
    CHECK(bare >= 0 && bare <= n);
    if (bare > 0) p->bare[p->nseq - 1] = at - p->start[p->nseq - 1] + bare;
    p->start[p->nseq] = p->rows = at + n;
    return at;
}

void features_append(FeaturePack *p, Device *dev, const Target *t, const KvCache *kv, int slot,
                     int64_t first, int64_t n, Tensor hidden) {
    CHECK(first >= p->rows - p->start[p->nseq - 1] && hidden.rows <= n);
    const int64_t at = grow(p, n, n - hidden.rows);
    op_copy(dev, tensor_rows(p->hidden, at + n - hidden.rows, hidden.rows), hidden);
    for (int kind = 0; kind < 2; kind++) {
        const KvView rows = kv_rows(kv, slot, target_config(t)->kv_source[kind], first, n);
        op_copy(dev, tensor_rows(p->k[kind], at, n), rows.k);
        op_copy(dev, tensor_rows(p->v[kind], at, n), rows.v);
    }
}

void features_load(FeaturePack *p, Device *dev, const void *hidden, int64_t bare,
                   const void *const k[2], const void *const v[2], int64_t n) {
    const int64_t at = grow(p, n, bare);
    dev_upload(dev, tensor_rows(p->hidden, at + bare, n - bare), hidden);
    for (int kind = 0; kind < 2; kind++) {
        dev_upload(dev, tensor_rows(p->k[kind], at, n), k[kind]);
        dev_upload(dev, tensor_rows(p->v[kind], at, n), v[kind]);
    }
}

void features_rewind(FeaturePack *p, int64_t rows) {
    CHECK(p->nseq > 0 && rows >= 0 && rows <= p->rows - p->start[p->nseq - 1]);
    p->start[p->nseq] = p->rows = p->start[p->nseq - 1] + rows;
    if (p->bare[p->nseq - 1] > rows) p->bare[p->nseq - 1] = rows;
}

static void upload_feature_rows(const FeaturePack *p, Device *dev, const int32_t *T,
                                const int32_t *seq_of, Tensor row_index) {
    int32_t piece[1024];
    for (int64_t at = 0; at < row_index.cols; at += 1024) {
        const int64_t n = row_index.cols - at < 1024 ? row_index.cols - at : 1024;
        for (int64_t i = 0; i < n; i++)
            piece[i] = (int32_t)p->start[seq_of[at + i]] + T[at + i] - 1;
        dev_upload(dev, tensor_cols(row_index, at, n), piece);
    }
}

void features_set(const FeaturePack *p, const int32_t *T, const int32_t *seq_of, int64_t rows,
                  AnchorSet *set, AttnSeg *seg_sliding, AttnSeg *seg_full) {
    AttnSeg *seg[2] = {[LAYER_SLIDING] = seg_sliding, [LAYER_FULL] = seg_full};
    *set = (AnchorSet){.rows = rows, .T = T, .seg = {seg[0], seg[1]}};
    for (int64_t r = 0; r < rows; r++) {
        const int32_t s = seq_of[r];
        CHECK(s >= 0 && s < p->nseq && T[r] > p->bare[s] && T[r] <= p->start[s + 1] - p->start[s],
              "(anchor T %d of sequence %d, whose states begin at row %lld)", (int)T[r], (int)s,
              (long long)p->bare[s]);
        const bool begins = r == 0 || seq_of[r - 1] != s;
        CHECK(begins ? r == 0 || seq_of[r - 1] < s : T[r] >= T[r - 1]);
        set->nseg += begins;
        for (int kind = 0; kind < 2; kind++) {
            AttnSeg *g = &seg[kind][set->nseg - 1];
            if (begins)
                *g = (AttnSeg){
                    .k = tensor_rows(p->k[kind], p->start[s], p->start[s + 1] - p->start[s]),
                    .v = tensor_rows(p->v[kind], p->start[s], p->start[s + 1] - p->start[s]),
                    .q0 = r};
            g->nq++;
        }
    }
}

void features_anchors(const FeaturePack *p, Device *dev, const Assistant *a, const int32_t *T,
                      const int32_t *seq_of, int64_t rows, AnchorSet *set, AttnSeg *seg_sliding,
                      AttnSeg *seg_full, Tensor row_index, Tensor feature0) {
    CHECK(a->cfg.backbone == p->width && row_index.cols == rows);
    features_set(p, T, seq_of, rows, set, seg_sliding, seg_full);
    upload_feature_rows(p, dev, T, seq_of, row_index);
    op_gather(dev, feature0, p->hidden, row_index, 1.0f);
}
