// data/capture.c - one group of sequences through the target and onto the host.
#include "data/capture.h"

#include <stdlib.h>
#include <string.h>

// One call of the target: a group, or a chunk of a sequence longer than a chunk.
typedef struct {
    int64_t group; // -1: none
    int64_t at;    // first row of the chunk
} Call;
static const Call NO_CALL = {.group = -1};

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
    // The pack's rows as the host reads them: in pinned memory, or (pinned NULL) the pack itself.
    FeaturePack down;
    void *pinned;
    Call call; // that the pack is of, its rows under way to the host
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

size_t capturer_host_bytes(const Target *t, int64_t chunk) {
    const bool apart = dev_own_memory(target_device(t)) > 0;
    return apart ? features_bytes(target_config(t), chunk, DT_BF16) : 0;
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

static bool take_down(Capturer *c, Err *err) {
    const size_t bytes = capturer_host_bytes(c->target, c->chunk);
    Arena arena;
    c->down = c->pack;
    if (bytes == 0) return true;
    c->pinned = dev_alloc_host(c->dev, bytes, err);
    if (!c->pinned) return false;
    arena_open(&arena, c->pinned, bytes);
    features_take(&c->down, target_config(c->target), c->chunk, DT_BF16, &arena);
    return true;
}

Capturer *capturer_open(Target *t, const CapturePlan *p, int64_t chunk, DType kv_dtype, Err *err) {
    const TextConfig *text = &target_config(t)->text;
    Capturer *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    *c = (Capturer){
        .target = t, .dev = target_device(t), .plan = p, .chunk = chunk, .call = NO_CALL};
    Arena arena;
    arena_open(&arena, NULL, 0);
    lay_out(c, &arena);
    c->block = dev_alloc(c->dev, arena.peak, err);
    if (!c->block) goto fail;
    arena_open(&arena, c->block, arena.peak);
    lay_out(c, &arena);
    if (!take_down(c, err)) goto fail;
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
    if (c->pinned) dev_free_host(c->dev, c->pinned); // first: rows may be on their way there
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

static const Sample *const *sequences(const Capturer *c, Call call, int *n) {
    const int64_t *group = c->plan->group + call.group;
    *n = (int)(group[1] - group[0]);
    return c->plan->seq + group[0];
}

static KvCache *cache_of(const Capturer *c, const Sample *s) {
    return s->n > c->chunk ? c->long_kv : c->kv;
}

static TargetPiece piece_of(const Capturer *c, const Sample *s, Call call, int slot) {
    const int64_t left = s->n - call.at, n = left < c->chunk ? left : c->chunk,
                  bare = sample_bare(s) - call.at;
    return (TargetPiece){.slot = slot, .count = n, .skip = bare < 0 ? 0 : bare < n ? bare : n};
}

// The call that follows on `call`, of the same group or of the next.
static Call call_behind(const Capturer *c, Call call, int64_t next) {
    const Sample *s = c->plan->seq[c->plan->group[call.group]];
    if (call.at + c->chunk < s->n) return (Call){call.group, call.at + c->chunk};
    return (Call){.group = next};
}

// The target over the call's tokens; the pack is still that of the call before.
static bool compute(Capturer *c, Call call, Err *err) {
    TargetPiece piece[PACK_SEQS_MAX];
    int n;
    const Sample *const *seq = sequences(c, call, &n);
    KvCache *kv = cache_of(c, seq[0]);
    int64_t rows = 0, states = 0;
    int32_t *ids = malloc((size_t)c->chunk * sizeof *ids);
    if (!ids) return err_set(err, ERR_FAILED, "out of memory");
    for (int i = 0; i < n; i++) {
        piece[i] = piece_of(c, seq[i], call, i);
        memcpy(ids + rows, seq[i]->ids + call.at, (size_t)piece[i].count * sizeof *ids);
        if (call.at == 0) kv_clear(kv, i);
        rows += piece[i].count;
        states += piece[i].count - piece[i].skip;
    }
    target_forward(c->target, kv, piece, n, ids, tensor_rows(c->hidden, 0, states), NULL);
    free(ids);
    return true;
}

// Hidden rows without a state come along: five copies a call, not five a sequence.
static void bring_rows(Capturer *c, Tensor down, Tensor rows) {
    dev_download_begin(c->dev, down.data, tensor_rows(rows, 0, c->pack.rows));
}

// What was computed fills the pack and is on its way to the host. That of the call before has
// arrived there. Rows leave the cache before its window moves on.
static void bring(Capturer *c, Call call) {
    int n;
    const Sample *const *seq = sequences(c, call, &n);
    FeaturePack *p = &c->pack;
    int64_t states = 0;
    features_clear(p);
    for (int i = 0; i < n; i++) {
        const TargetPiece piece = piece_of(c, seq[i], call, i);
        const int64_t have = piece.count - piece.skip;
        features_begin(p);
        features_append(p, c->dev, c->target, cache_of(c, seq[0]), i, call.at, piece.count,
                        tensor_rows(c->hidden, states, have));
        states += have;
    }
    c->call = call;
    if (!c->pinned) return;
    bring_rows(c, c->down.hidden, p->hidden);
    for (int k = 0; k < 2; k++) {
        bring_rows(c, c->down.k[k], p->k[k]);
        bring_rows(c, c->down.v[k], p->v[k]);
    }
}

static void rows_to(void *to, int64_t at, Tensor from, int64_t first, int64_t n) {
    if (n > 0)
        memcpy((bf16 *)to + at * from.cols, tensor_rows(from, first, n).data,
               (size_t)(n * from.cols) * sizeof(bf16));
}

// The call's rows, which have arrived, become rows of out; its first call makes the room.
static bool take_rows(const Capturer *c, Call call, CapturedSeq *out, Err *err) {
    const FeaturePack *p = &c->pack, *down = &c->down;
    int n;
    const Sample *const *seq = sequences(c, call, &n);
    for (int i = 0; i < n; i++) {
        const int64_t first = p->start[i], rows = p->start[i + 1] - first, bare = p->bare[i];
        CapturedSeq *o = &out[i];
        if (call.at == 0 && !room_for(p, seq[i], o, err)) return false;
        rows_to(o->hidden, call.at + bare - o->bare, down->hidden, first + bare, rows - bare);
        for (int k = 0; k < 2; k++) {
            rows_to(o->k[k], call.at, down->k[k], first, rows);
            rows_to(o->v[k], call.at, down->v[k], first, rows);
        }
    }
    return true;
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

// Rows of another group that are under way are given up: the pack is free when they have arrived.
static bool begin(Capturer *c, int64_t g, Err *err) {
    const Call call = {.group = g};
    c->call = NO_CALL;
    if (!dev_download_end(c->dev, err) || !compute(c, call, err)) return false;
    bring(c, call);
    return true;
}

bool capturer_run(Capturer *c, int64_t g, int64_t next, CapturedSeq *out, Err *err) {
    const int64_t first = c->plan->group[g];
    const int n = (int)(c->plan->group[g + 1] - first);
    CHECK(next != g);
    if (!c->pinned) next = -1; // it would run before the rows are taken, not beside
    memset(out, 0, (size_t)n * sizeof *out);
    bool ok = c->call.group == g || begin(c, g, err);
    while (ok && c->call.group == g) {
        const Call call = c->call, behind = call_behind(c, call, next);
        c->call = NO_CALL;
        ok = (behind.group < 0 || compute(c, behind, err)) && dev_download_end(c->dev, err) &&
             take_rows(c, call, out, err);
        if (ok && behind.group >= 0) bring(c, behind);
    }
    for (int i = 0; i < n && ok; i++) ok = check_rows(&out[i], &c->pack, err);
    for (int i = 0; i < n && !ok; i++) captured_free(&out[i]);
    return ok;
}
