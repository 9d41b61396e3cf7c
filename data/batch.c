// data/batch.c - epochs are permutations of the sequences; anchors are drawn from the supervised
// ones.
#include "data/batch.h"

#include <stdlib.h>
#include <string.h>

#include "data/read_ahead.h"
#include "infer/base/rng.h"

enum { K_MAX = 64 };
#define CACHE_BYTES ((int64_t)2 << 30) // epochs of a set that fits are read from disk once

struct Batches {
    SeqSource src;
    BatchOptions opt;
    int64_t per_epoch, epoch; // order is that of this epoch; -1: none yet
    int64_t *order;           // (src.count)
    CapturedSeq *kept;        // (src.count); sample.n 0 = not kept
    int64_t kept_bytes;
    CapturedSeq loose[PACK_SEQS_MAX]; // of the present batch, not kept
    int nloose;
    ReadAhead ahead; // of the step that batches_ahead named
    int64_t room;    // anchors that the arrays below hold
    int32_t *T, *seq_of, *token, *label;
    uint8_t *valid;
    float *share;
    int64_t *pick, pick_room; // eligible positions of one sequence, then a permutation of them
    double *odds; // (pick_room) by position, then of those eligible, at last what each stands for
};

static int64_t source_length(void *ctx, int64_t i) {
    return shards_length(ctx, i);
}
static bool source_read(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    return shards_read(ctx, i, out, err);
}

static int64_t source_anchors(void *ctx, int64_t i, Err *err) {
    return shards_anchors(ctx, i, err);
}

SeqSource shards_source(ShardSet *s) {
    return (SeqSource){.ctx = s,
                       .count = shards_count(s),
                       .length = source_length,
                       .anchors = source_anchors,
                       .read = source_read,
                       .bytes_per_token = shard_bytes_per_token(shards_meta(s)),
                       .ahead = true};
}

// Sequences of a step, of all ranks.
static int64_t per_step(const Batches *b) {
    return b->opt.sequences * b->opt.ranks;
}

Batches *batches_open(const SeqSource *src, const BatchOptions *opt, Err *err) {
    CHECK(opt->K >= 1 && opt->K <= K_MAX && opt->anchors >= 0);
    CHECK(opt->rank >= 0 && opt->rank < (opt->ranks ? opt->ranks : 1));
    if (src->count < 1) {
        err_set(err, ERR_INPUT, "no captured sequences to learn from");
        return NULL;
    }
    if (opt->sequences < 1 || opt->sequences > PACK_SEQS_MAX) {
        err_set(err, ERR_USAGE, "%lld sequences a step, allowed 1 to %d", (long long)opt->sequences,
                (int)PACK_SEQS_MAX);
        return NULL;
    }
    Batches *b = calloc(1, sizeof *b);
    if (b) {
        b->order = malloc((size_t)src->count * sizeof *b->order);
        b->kept = calloc((size_t)src->count, sizeof *b->kept);
    }
    if (!b || !b->order || !b->kept) {
        batches_close(b);
        err_set(err, ERR_FAILED, "out of memory for %lld sequences", (long long)src->count);
        return NULL;
    }
    b->src = *src;
    b->opt = *opt;
    if (opt->ranks == 0) b->opt.ranks = 1;
    b->epoch = -1;
    b->per_epoch = (src->count + per_step(b) - 1) / per_step(b);
    return b;
}

static void drop_loose(Batches *b) {
    while (b->nloose > 0) captured_free(&b->loose[--b->nloose]);
}

void batches_close(Batches *b) {
    if (!b) return;
    read_ahead_drop(&b->ahead);
    drop_loose(b);
    for (int64_t i = 0; i < b->src.count; i++) captured_free(&b->kept[i]);
    free(b->order);
    free(b->kept);
    free(b->T);
    free(b->seq_of);
    free(b->token);
    free(b->label);
    free(b->valid);
    free(b->share);
    free(b->pick);
    free(b->odds);
    free(b);
}

int64_t batches_per_epoch(const Batches *b) {
    return b->per_epoch;
}

// Anchors of every sequence that a visit uses; NULL: err says why. Caller frees.
static int64_t *anchors_used(const Batches *b, Err *err) {
    int64_t *n = malloc((size_t)b->src.count * sizeof *n);
    if (!n) err_set(err, ERR_FAILED, "out of memory for %lld sequences", (long long)b->src.count);
    for (int64_t i = 0; n && i < b->src.count; i++) {
        n[i] = b->src.anchors(b->src.ctx, i, err);
        if (n[i] < 0) {
            free(n);
            return NULL;
        }
        if (b->opt.anchors > 0 && b->opt.anchors < n[i]) n[i] = b->opt.anchors;
    }
    return n;
}

// Of the sequences order[first ..] of a step.
static void add_step(const Batches *b, const int64_t *anchors, const int64_t *order, int64_t first,
                     BatchTotals *out) {
    const int64_t left = b->src.count - first, n = left < per_step(b) ? left : per_step(b);
    for (int rank = 0; rank < b->opt.ranks; rank++) {
        int64_t rows = 0, tokens = 0;
        for (int64_t i = rank; i < n; i += b->opt.ranks) {
            rows += anchors[order[first + i]];
            tokens += b->src.length(b->src.ctx, order[first + i]);
        }
        if (rows > out->max_rows) out->max_rows = rows;
        if (tokens > out->max_tokens) out->max_tokens = tokens;
        out->all_rows += rows;
        out->all_tokens += tokens;
    }
}

bool batches_totals(const Batches *b, int64_t steps, BatchTotals *out, Err *err) {
    *out = (BatchTotals){0};
    CHECK(b->ahead.n == 0);
    int64_t *anchors = anchors_used(b, err), *order = malloc((size_t)b->src.count * sizeof *order);
    const bool ok = anchors && (order || err_set(err, ERR_FAILED, "out of memory"));
    for (int64_t step = 0; ok && step < steps; step++) {
        const int64_t epoch = step / b->per_epoch, first = step % b->per_epoch * per_step(b);
        if (first == 0)
            rng_permutation(b->opt.seed, RNG_SHUFFLE, (uint64_t)epoch, order, b->src.count);
        add_step(b, anchors, order, first, out);
    }
    free(anchors);
    free(order);
    return ok;
}

int64_t batches_kept_bytes(const Batches *b, int64_t tokens, int64_t batch_tokens) {
    const int64_t each = b->src.bytes_per_token, bytes = tokens * each;
    if (bytes <= CACHE_BYTES) return bytes;
    return CACHE_BYTES + (b->src.ahead ? 2 : 1) * batch_tokens * each;
}

int64_t batches_host_bytes(const Batches *b, int64_t rows) {
    const int64_t each = 2 * (int64_t)sizeof *b->T + (int64_t)sizeof *b->share +
                         b->opt.K * (2 * (int64_t)sizeof *b->token + 1);
    return 2 * rows * each; // grown by doubling
}

// A borrowed view of sequence i, read if need be; kept while the budget lasts.
static bool take_sequence(Batches *b, int64_t i, CapturedSeq *out, Err *err) {
    CapturedSeq *kept = &b->kept[i];
    if (kept->sample.n == 0) {
        CapturedSeq c;
        if (!read_ahead_take(&b->ahead, &b->src, i, &c, err)) return false;
        const int64_t bytes = c.sample.n * b->src.bytes_per_token;
        if (bytes == 0 || b->kept_bytes + bytes > CACHE_BYTES) {
            *out = b->loose[b->nloose++] = c;
            return true;
        }
        b->kept_bytes += bytes;
        *kept = c;
    }
    *out = *kept;
    return true;
}

static int ascending(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool pick_room(Batches *b, int64_t n, Err *err) {
    if (b->pick_room >= 2 * n) return true;
    int64_t *pick = realloc(b->pick, (size_t)(2 * n) * sizeof *pick);
    if (pick) b->pick = pick;
    double *odds = realloc(b->odds, (size_t)(2 * n) * sizeof *odds);
    if (odds) b->odds = odds;
    if (!pick || !odds) return err_set(err, ERR_FAILED, "out of memory for anchors");
    b->pick_room = 2 * n;
    return true;
}

// All alike: `want` of n, ascending.
static void draw_alike(Batches *b, int64_t n, int64_t want, uint64_t visit) {
    int64_t *perm = b->pick + n;
    rng_permutation(b->opt.seed, RNG_ANCHORS, visit, perm, n);
    qsort(perm, (size_t)want, sizeof *perm, ascending);
    for (int64_t i = 0; i < want; i++) b->pick[i] = b->pick[perm[i]];
}

// Odds become probabilities p = min(1, scale odds) that sum to `want`.
static void inclusion(double *p, int64_t n, int64_t want) {
    double rest = 0.0, scale;
    int64_t sure = 0;
    for (int64_t i = 0; i < n; i++) rest += p[i];
    do {
        scale = (double)(want - sure) / rest;
        for (int64_t i = 0; i < n; i++)
            if (p[i] < 1.0 || sure == 0) p[i] *= scale;
        sure = 0, rest = 0.0;
        for (int64_t i = 0; i < n; i++) {
            if (p[i] >= 1.0) p[i] = 1.0;
            sure += p[i] == 1.0;
            rest += p[i] < 1.0 ? p[i] : 0.0;
        }
    } while (rest * (1.0 + 1e-9) < (double)(want - sure));
}

// Systematic: one uniform number and unit steps through the sum of the probabilities, so that the
// draw is spread over the sequence as they are. Leaves what each stands for in b->odds.
static int64_t draw_by_odds(Batches *b, int64_t n, int64_t want, uint64_t visit) {
    double *p = b->odds, sum = 0.0, at = rng_uniform(b->opt.seed, RNG_ANCHORS, visit, 0);
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) p[i] = p[b->pick[i]];
    inclusion(p, n, want);
    for (int64_t i = 0; i < n && m < want; i++) {
        sum += p[i];
        if (sum <= at) continue;
        b->pick[m] = b->pick[i];
        p[m++] = (double)want / ((double)n * p[i]);
        at += 1.0;
    }
    return m;
}

// Of the draws of a step's slots, so that no two share one.
static uint64_t visit_of(const Batches *b, int64_t step, int slot) {
    const int64_t slots = per_step(b) > PACK_SEQS_MAX ? per_step(b) : PACK_SEQS_MAX;
    return (uint64_t)(step * slots + (int64_t)slot * b->opt.ranks + b->opt.rank);
}

// Positions T of one sequence into b->pick, ascending, and what each stands for into b->odds; their
// number, or -1.
static int64_t pick_anchors(Batches *b, const CapturedSeq *c, int64_t step, int slot, Err *err) {
    const Sample *s = &c->sample;
    const int64_t want = b->opt.anchors;
    const uint64_t visit = visit_of(b, step, slot);
    int64_t n = 0;
    if (!pick_room(b, s->n, err)) return -1;
    for (int64_t t = 1; t + 1 < s->n; t++)
        if (sample_supervised(s, t) && sample_supervised(s, t + 1)) b->pick[n++] = t;
    if (want > 0 && n > want && b->opt.odds.fill) {
        if (!b->opt.odds.fill(b->opt.odds.ctx, slot, c, b->odds, err)) return -1;
        return draw_by_odds(b, n, want, visit);
    }
    if (want > 0 && n > want) {
        draw_alike(b, n, want, visit);
        n = want;
    }
    for (int64_t i = 0; i < n; i++) b->odds[i] = 1.0;
    return n;
}

static bool grow(Batches *b, int64_t rows, Err *err) {
    if (rows <= b->room) return true;
    const size_t room = (size_t)rows * 2, all = room * (size_t)b->opt.K;
    int32_t *T = realloc(b->T, room * sizeof *T);
    if (T) b->T = T;
    int32_t *seq_of = realloc(b->seq_of, room * sizeof *seq_of);
    if (seq_of) b->seq_of = seq_of;
    float *share = realloc(b->share, room * sizeof *share);
    if (share) b->share = share;
    int32_t *token = realloc(b->token, all * sizeof *token);
    if (token) b->token = token;
    int32_t *label = realloc(b->label, all * sizeof *label);
    if (label) b->label = label;
    uint8_t *valid = realloc(b->valid, all);
    if (valid) b->valid = valid;
    if (!T || !seq_of || !share || !token || !label || !valid)
        return err_set(err, ERR_FAILED, "out of memory for %lld anchors", (long long)rows);
    b->room = (int64_t)room;
    return true;
}

// Tokens and labels of anchor r, steps 0 .. K-1.
static void fill_anchor(const Batches *b, const Batch *out, int64_t r) {
    const Sample *s = &out->seq[b->seq_of[r]].sample;
    bool open = true;
    for (int64_t j = 0; j < b->opt.K; j++) {
        const int64_t t = b->T[r] + j, at = j * out->rows + r;
        b->token[at] = t < s->n ? s->ids[t] : -1;
        b->label[at] = t + 1 < s->n ? s->ids[t + 1] : -1;
        open = open && sample_supervised(s, t + 1);
        b->valid[at] = open;
    }
}

static bool add_anchors(Batches *b, Batch *out, int64_t step, int slot, Err *err) {
    const Sample *s = &out->seq[slot].sample;
    const int64_t n = pick_anchors(b, &out->seq[slot], step, slot, err);
    if (n < 0 || !grow(b, out->rows + n, err)) return false;
    for (int64_t i = 0; i < n; i++) {
        b->T[out->rows + i] = (int32_t)b->pick[i];
        b->seq_of[out->rows + i] = slot;
        b->share[out->rows + i] = (float)b->odds[i];
    }
    out->rows += n;
    out->tokens += s->n;
    return true;
}

// Of the sequences of a step, in the order of its epoch, the first; *left: how many there are.
static const int64_t *order_of(Batches *b, int64_t step, int64_t *left) {
    const int64_t epoch = step / b->per_epoch, first = step % b->per_epoch * per_step(b);
    if (epoch != b->epoch)
        rng_permutation(b->opt.seed, RNG_SHUFFLE, (uint64_t)epoch, b->order, b->src.count);
    b->epoch = epoch;
    *left = b->src.count - first;
    return b->order + first;
}

// The place in that order of what this rank has in a slot.
static int64_t place_of(const Batches *b, int slot) {
    return (int64_t)slot * b->opt.ranks + b->opt.rank;
}

void batches_ahead(Batches *b, int64_t step) {
    int64_t index[PACK_SEQS_MAX], left;
    int n = 0;
    if (!b->src.ahead) return;
    const int64_t *order = order_of(b, step, &left);
    for (int slot = 0; slot < b->opt.sequences && place_of(b, slot) < left; slot++) {
        const int64_t i = order[place_of(b, slot)];
        if (b->kept[i].sample.n == 0) index[n++] = i;
    }
    read_ahead_begin(&b->ahead, &b->src, index, n);
}

static bool take_sequences(Batches *b, int64_t step, Batch *out, Err *err) {
    int64_t left;
    const int64_t *order = order_of(b, step, &left);
    for (int slot = 0; slot < b->opt.sequences && place_of(b, slot) < left; slot++) {
        out->seq_index[slot] = order[place_of(b, slot)];
        if (!take_sequence(b, out->seq_index[slot], &out->seq[slot], err)) return false;
        out->nseq++;
        if (!add_anchors(b, out, step, slot, err)) return false;
    }
    return true;
}

bool batches_get(Batches *b, int64_t step, Batch *out, Err *err) {
    CHECK(step >= 0);
    drop_loose(b);
    memset(out, 0, sizeof *out);
    const bool ok = take_sequences(b, step, out, err);
    read_ahead_drop(&b->ahead); // read for another step, or behind a failure
    if (!ok) return false;
    out->T = b->T;
    out->seq_of = b->seq_of;
    out->token = b->token;
    out->label = b->label;
    out->valid = b->valid;
    out->share = b->share;
    for (int64_t r = 0; r < out->rows; r++) fill_anchor(b, out, r);
    return true;
}
