// data/capture.c - one group of sequences through the target and onto the host.
#include "data/capture.h"

#include <stdlib.h>
#include <string.h>

struct Capturer {
    Target *target;
    Device *dev;
    const CapturePlan *plan;
    int64_t chunk;
    KvCache *kv,
        *long_kv; // long_kv: one slot for a sequence longer than a chunk; NULL without such
    void *block;
    Tensor hidden; // F32 (chunk, B), of one call
    FeaturePack pack;
};

ShardMeta capture_meta(const TargetConfig *c, const Sha256 *fingerprint) {
    ShardMeta m = {.hidden = c->text.hidden,
                   .window = c->text.window,
                   .vocab = c->text.vocab,
                   .dtype = "BF16"};
    if (fingerprint != NULL) strcpy(m.target, fingerprint->hex);
    for (int k = 0; k < 2; k++)
        m.kv_width[k] =
            layer_kv_heads(&c->text, c->kv_source[k]) * layer_head_dim(&c->text, c->kv_source[k]);
    return m;
}

bool check_source(const OpenTarget *o, const SeqSource *src, const char *what, Err *err) {
    for (int64_t i = 0; i < src->count; i++) {
        char id[32];
        snprintf(id, sizeof id, "#%lld", (long long)i);
        if (!check_positions(o, id, src->length(src->ctx, i), err))
            return err_wrap(err, "%s", what);
    }
    return true;
}

static void lay_out(Capturer *c, Arena *arena) {
    const TargetConfig *tc = target_config(c->target);
    c->hidden = tensor_take(arena, DT_F32, c->chunk, tc->text.hidden);
    features_take(&c->pack, tc, c->chunk, DT_BF16, arena);
}

static int64_t short_slots(const CapturePlan *p) {
    return p->widest > 0 ? p->widest : 1;
}

// Of a sequence that shares a call with others.
static int64_t short_rows(const CapturePlan *p, int64_t chunk) {
    return p->longest > 0 && p->longest < chunk ? p->longest : chunk;
}

size_t capturer_bytes(const Target *t, const CapturePlan *p, int64_t chunk, DType kv_dtype) {
    const TextConfig *text = &target_config(t)->text;
    Capturer c = {.target = (Target *)t, .plan = p, .chunk = chunk};
    Arena count;
    arena_open(&count, NULL, 0);
    lay_out(&c, &count);
    const int64_t rows = short_rows(p, chunk);
    int64_t bytes = kv_bytes(text, (int)short_slots(p), rows, rows, false, kv_dtype);
    if (p->longest > chunk) bytes += kv_bytes(text, 1, p->longest, chunk, false, kv_dtype);
    return count.peak + (size_t)bytes;
}

Capturer *capturer_open(Target *t, const CapturePlan *p, int64_t chunk, DType kv_dtype, Err *err) {
    const TextConfig *text = &target_config(t)->text;
    Capturer *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    *c = (Capturer){.target = t, .dev = target_device(t), .plan = p, .chunk = chunk};
    Arena arena;
    arena_open(&arena, NULL, 0);
    lay_out(c, &arena);
    c->block = dev_alloc(c->dev, arena.peak, err);
    if (!c->block) goto fail;
    arena_open(&arena, c->block, arena.peak);
    lay_out(c, &arena);
    const int64_t rows = short_rows(p, chunk);
    c->kv = kv_open(c->dev, text, (int)short_slots(p), rows, rows, false, kv_dtype, err);
    if (!c->kv) goto fail;
    if (p->longest > chunk) {
        c->long_kv = kv_open(c->dev, text, 1, p->longest, chunk, false, kv_dtype, err);
        if (!c->long_kv) goto fail;
    }
    return c;
fail:
    capturer_close(c);
    return NULL;
}

void capturer_close(Capturer *c) {
    if (!c) return;
    kv_close(c->kv);
    kv_close(c->long_kv);
    if (c->block) dev_free(c->dev, c->block);
    free(c);
}

static bool copy_sample(Sample *to, const Sample *from) {
    *to = *from;
    to->ids = malloc((size_t)from->n * sizeof *to->ids);
    to->kind = malloc((size_t)from->n);
    if (!to->ids || !to->kind) return false;
    memcpy(to->ids, from->ids, (size_t)from->n * sizeof *to->ids);
    memcpy(to->kind, from->kind, (size_t)from->n);
    return true;
}

static bool room_for(const FeaturePack *p, const Sample *s, CapturedSeq *out, Err *err) {
    bool ok = copy_sample(&out->sample, s);
    out->bare = sample_bare(s);
    ok = ok && (out->hidden = malloc((size_t)((s->n - out->bare) * p->width) * sizeof(bf16)));
    for (int k = 0; k < 2 && ok; k++)
        ok = (out->k[k] = malloc((size_t)(s->n * p->kv_width[k]) * sizeof(bf16))) &&
             (out->v[k] = malloc((size_t)(s->n * p->kv_width[k]) * sizeof(bf16)));
    return ok || err_set(err, ERR_FAILED, "out of memory for sample %s", s->id);
}

static void rows_to(Device *dev, void *to, int64_t at, Tensor from, int64_t first, int64_t n) {
    dev_download(dev, (bf16 *)to + at * from.cols, tensor_rows(from, first, n));
}

// Sequence i of the pack becomes rows at .. of out.
static void download(const Capturer *c, int i, CapturedSeq *out, int64_t at) {
    const FeaturePack *p = &c->pack;
    const int64_t first = p->start[i], n = p->start[i + 1] - first, bare = p->bare[i];
    rows_to(c->dev, out->hidden, at + bare - out->bare, p->hidden, first + bare, n - bare);
    for (int k = 0; k < 2; k++) {
        rows_to(c->dev, out->k[k], at, p->k[k], first, n);
        rows_to(c->dev, out->v[k], at, p->v[k], first, n);
    }
}

// Several short sequences, one call.
static bool run_short(Capturer *c, const Sample *const *seq, int n, CapturedSeq *out, Err *err) {
    TargetPiece piece[PACK_SEQS_MAX];
    int64_t rows = 0, states = 0;
    for (int i = 0; i < n; i++) rows += seq[i]->n;
    int32_t *ids = malloc((size_t)rows * sizeof *ids);
    if (!ids) return err_set(err, ERR_FAILED, "out of memory");
    rows = 0;
    for (int i = 0; i < n; i++) {
        memcpy(ids + rows, seq[i]->ids, (size_t)seq[i]->n * sizeof *ids);
        piece[i] = (TargetPiece){.slot = i, .count = seq[i]->n, .skip = out[i].bare};
        kv_clear(c->kv, i);
        rows += seq[i]->n;
        states += seq[i]->n - out[i].bare;
    }
    target_forward(c->target, c->kv, piece, n, ids, tensor_rows(c->hidden, 0, states), NULL);
    states = 0;
    features_clear(&c->pack);
    for (int i = 0; i < n; i++) {
        const int64_t have = seq[i]->n - out[i].bare;
        features_begin(&c->pack);
        features_append(&c->pack, c->dev, c->target, c->kv, i, 0, seq[i]->n,
                        tensor_rows(c->hidden, states, have));
        download(c, i, &out[i], 0);
        states += have;
    }
    free(ids);
    return true;
}

// One sequence longer than a chunk; its rows leave the cache before the window moves on.
static void run_long(Capturer *c, const Sample *s, CapturedSeq *out) {
    kv_clear(c->long_kv, 0);
    for (int64_t at = 0; at < s->n; at += c->chunk) {
        const int64_t n = s->n - at < c->chunk ? s->n - at : c->chunk;
        const int64_t left = out->bare > at ? out->bare - at : 0, skip = left < n ? left : n;
        const TargetPiece piece = {.slot = 0, .count = n, .skip = skip};
        const Tensor hidden = tensor_rows(c->hidden, 0, n - skip);
        target_forward(c->target, c->long_kv, &piece, 1, s->ids + at, hidden, NULL);
        features_clear(&c->pack);
        features_begin(&c->pack);
        features_append(&c->pack, c->dev, c->target, c->long_kv, 0, at, n, hidden);
        download(c, 0, out, at);
    }
}

// First row with a value that is not finite (or, if zeros, a row of zeros alone), or -1.
static int64_t bad_row(const bf16 *x, int64_t rows, int64_t width, bool zeros) {
    for (int64_t r = 0; r < rows; r++, x += width) {
        int any = 0, broken = 0;
        for (int64_t i = 0; i < width; i++) {
            any |= x[i].bits & 0x7fff;
            broken |= (x[i].bits & 0x7f80) == 0x7f80;
        }
        if (broken || (zeros && !any)) return r;
    }
    return -1;
}

static bool check_rows(const CapturedSeq *c, const FeaturePack *p, Err *err) {
    const Sample *s = &c->sample;
    int64_t r = bad_row(c->hidden, s->n - c->bare, p->width, true);
    const char *what = "hidden state is all zero or not finite";
    if (r >= 0) r += c->bare;
    for (int k = 0; k < 2 && r < 0; k++) {
        what = "shared keys or values are not finite";
        r = bad_row(c->k[k], s->n, p->kv_width[k], false);
        if (r < 0) r = bad_row(c->v[k], s->n, p->kv_width[k], false);
    }
    if (r < 0) return true;
    return err_set(err, ERR_FAILED, "sample %s (answer %d): at token %lld of %lld the %s", s->id,
                   (int)s->sample, (long long)r, (long long)s->n, what);
}

bool capturer_run(Capturer *c, int64_t g, CapturedSeq *out, Err *err) {
    const int64_t first = c->plan->group[g];
    const int n = (int)(c->plan->group[g + 1] - first);
    const Sample *const *seq = c->plan->seq + first;
    memset(out, 0, (size_t)n * sizeof *out);
    bool ok = true;
    for (int i = 0; i < n && ok; i++) ok = room_for(&c->pack, seq[i], &out[i], err);
    if (ok && seq[0]->n > c->chunk)
        run_long(c, seq[0], out);
    else if (ok)
        ok = run_short(c, seq, n, out, err);
    ok = dev_sync(c->dev, err) && ok;
    for (int i = 0; i < n && ok; i++) ok = check_rows(&out[i], &c->pack, err);
    for (int i = 0; i < n && !ok; i++) captured_free(&out[i]);
    return ok;
}
