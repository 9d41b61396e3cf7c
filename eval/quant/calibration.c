// eval/quant/calibration.c - a balanced choice of captured sequences.
#include "eval/quant/calibration.h"

#include <stdlib.h>
#include <string.h>

#include "data/regenerate.h"

void calibration_close(Calibration *c) {
    shards_close(c->shards);
    free(c->index);
    *c = (Calibration){0};
}

typedef struct {
    const char *category;
    int64_t at, turn; // place among all; how many of its category stand before it
} Turn;

static int by_category(const void *pa, const void *pb) {
    const Turn *a = pa, *b = pb;
    const int order = strcmp(a->category, b->category);
    return order != 0 ? order : a->at < b->at ? -1 : a->at > b->at;
}
static int by_turn(const void *pa, const void *pb) {
    const Turn *a = pa, *b = pb;
    if (a->turn != b->turn) return a->turn < b->turn ? -1 : 1;
    return by_category(pa, pb);
}
static int by_place(const void *pa, const void *pb) {
    const int64_t a = *(const int64_t *)pa, b = *(const int64_t *)pb;
    return a < b ? -1 : a > b;
}

int64_t balanced_choice(const char (*category)[64], const int64_t *usable, int64_t count,
                        int64_t want, int64_t *chosen, int *categories) {
    Turn *turn = calloc((size_t)count + 1, sizeof *turn);
    int64_t n = 0;
    CHECK_MEMORY(turn);
    for (int64_t i = 0; i < count; i++)
        if (usable[i] > 0) turn[n++] = (Turn){.category = category[i], .at = i};
    qsort(turn, (size_t)n, sizeof *turn, by_category);
    *categories = n > 0;
    for (int64_t i = 1; i < n; i++) {
        const bool same = strcmp(turn[i].category, turn[i - 1].category) == 0;
        turn[i].turn = same ? turn[i - 1].turn + 1 : 0;
        *categories += !same;
    }
    qsort(turn, (size_t)n, sizeof *turn, by_turn);
    if (want < n) n = want;
    for (int64_t i = 0; i < n; i++) chosen[i] = turn[i].at;
    qsort(chosen, (size_t)n, sizeof *chosen, by_place);
    free(turn);
    return n;
}

static int64_t length_of(void *ctx, int64_t i) {
    const Calibration *c = ctx;
    return shards_length(c->shards, c->index[i]);
}
static int64_t anchors_of(void *ctx, int64_t i, Err *err) {
    const Calibration *c = ctx;
    return shards_anchors(c->shards, c->index[i], err);
}
static bool read_of(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    const Calibration *c = ctx;
    return shards_read(c->shards, c->index[i], out, err);
}

static bool choose(Calibration *c, int64_t want, Err *err) {
    const int64_t count = shards_count(c->shards);
    char(*category)[64] = calloc((size_t)count + 1, sizeof *category);
    int64_t *usable = calloc((size_t)count + 1, sizeof *usable);
    c->index = calloc((size_t)count + 1, sizeof *c->index);
    bool ok = category && usable && c->index;
    if (!ok) err_set(err, ERR_FAILED, "no memory for %lld sequences", (long long)count);
    for (int64_t i = 0; ok && i < count; i++)
        ok = (usable[i] = shards_anchors(c->shards, i, err)) >= 0 &&
             shards_category(c->shards, i, category[i], err);
    if (ok)
        c->n = balanced_choice((const char(*)[64])category, usable, count, want, c->index,
                               &c->categories);
    for (int64_t i = 0; i < c->n; i++) c->tokens += shards_length(c->shards, c->index[i]);
    free(category);
    free(usable);
    return ok && (c->n > 0 || err_set(err, ERR_INPUT, "%s: no sequence to calibrate on", c->dir));
}

// The sampler that the shards name, out of those that the settings know; text that was given is
// taken as greedy.
static bool find_sampler(Sampler *out, const Settings *s, const char *name, Err *err) {
    char text[64];
    const Sampler known[] = {{.top_p = 1},
                             {.temperature = s->regenerate.temperature,
                              .top_k = s->regenerate.top_k,
                              .top_p = s->regenerate.top_p}};
    *out = known[0];
    if (strcmp(name, "reference") == 0) return true;
    for (int i = 0; i < 2; i++) {
        sampler_name(text, &known[i]);
        *out = known[i];
        if (strcmp(text, name) == 0) return true;
    }
    return err_set(err, ERR_INPUT, "text made with \"%s\", the settings of regenerate say \"%s\"",
                   name, text);
}

bool calibration_open(Calibration *c, const Settings *s, const OpenTarget *t, Err *err) {
    const Split split = strcmp(s->eval.calibrate_on, "train") == 0 ? SPLIT_TRAIN : SPLIT_DEV;
    char path[PATH_ROOM];
    Sha256 hash;
    ShardMeta want = {.hidden = t->config.text.hidden, .vocab = t->config.text.vocab};
    *c = (Calibration){0};
    memcpy(want.target, t->fingerprint.hex, sizeof want.target);
    split_path(c->dir, s, "shards", split, "");
    if (!file_exists(path_join(path, c->dir, "manifest.json")))
        return err_set(err, ERR_INPUT,
                       "%s: not there; calibration reads it (eval.calibrate_on=dev|train)", c->dir);
    if (!sha256_file(&hash, path, err) || (c->shards = shards_open(c->dir, &want, err)) == NULL ||
        !find_sampler(&c->sampler, s, shards_meta(c->shards)->sampler, err) ||
        !choose(c, s->eval.calibrate_sequences, err)) {
        err_wrap(err, "calibration on %s", c->dir);
        calibration_close(c);
        return false;
    }
    memcpy(c->manifest, hash.hex, sizeof c->manifest);
    c->source = (SeqSource){.ctx = c,
                            .count = c->n,
                            .bytes_per_token = shard_bytes_per_token(shards_meta(c->shards)),
                            .length = length_of,
                            .anchors = anchors_of,
                            .read = read_of};
    return true;
}
