// data/stream.c - captured sequences without the disk: a group is captured when one of it is asked
// for.
#include <stdlib.h>

#include "data/capture.h"

#define KEEP_BYTES ((int64_t)1 << 30) // captured, not asked for yet

struct Stream {
    Sample *sample;
    int64_t samples;
    CapturePlan plan;
    Capturer *capturer;
    int64_t chunk;
    size_t bytes, host_bytes;    // of the capturer
    CapturedSeq *ready;          // (plan.n); sample.n 0: not there
    int64_t *group_of;           // (plan.n)
    ShardMeta meta;              // prices what is kept
    int64_t ready_bytes, oldest; // oldest: where eviction looks next
};

Stream *stream_open(Target *t, const char *samples_path, int64_t chunk, DType kv_dtype, Err *err) {
    const TargetConfig *tc = target_config(t);
    Stream *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(err, ERR_FAILED, "out of memory");
        return NULL;
    }
    if (!samples_load(samples_path, (int32_t)tc->text.vocab, &s->sample, &s->samples, err) ||
        !capture_plan(&s->plan, s->sample, s->samples, chunk, NULL, 0, err) ||
        !(s->capturer = capturer_open(t, &s->plan, chunk, kv_dtype, err)))
        goto fail;
    s->ready = calloc((size_t)s->plan.n + 1, sizeof *s->ready);
    s->group_of = calloc((size_t)s->plan.n + 1, sizeof *s->group_of);
    if (!s->ready || !s->group_of) {
        err_set(err, ERR_FAILED, "out of memory");
        goto fail;
    }
    for (int64_t g = 0; g < s->plan.groups; g++)
        for (int64_t i = s->plan.group[g]; i < s->plan.group[g + 1]; i++) s->group_of[i] = g;
    s->chunk = chunk;
    s->bytes = capturer_bytes(t, &s->plan, chunk, kv_dtype);
    s->host_bytes = capturer_host_bytes(t, chunk);
    s->meta = capture_meta(tc, NULL);
    return s;
fail:
    stream_close(s);
    return NULL;
}

void stream_close(Stream *s) {
    if (!s) return;
    for (int64_t i = 0; i < s->plan.n && s->ready; i++) captured_free(&s->ready[i]);
    free(s->ready);
    free(s->group_of);
    capturer_close(s->capturer);
    capture_plan_free(&s->plan);
    samples_free(s->sample, s->samples);
    free(s);
}

size_t stream_bytes(const Stream *s) {
    return s->bytes;
}

size_t stream_host_bytes(const Stream *s) {
    const int64_t all = shard_bytes(&s->meta, s->plan.tokens, s->plan.states),
                  group = (s->plan.longest + s->chunk) * shard_bytes_per_token(&s->meta);
    return s->host_bytes + (size_t)(all < KEEP_BYTES + group ? all : KEEP_BYTES + group);
}

static int64_t length(void *ctx, int64_t i) {
    return ((Stream *)ctx)->plan.seq[i]->n;
}

static int64_t anchors(void *ctx, int64_t i, Err *err) {
    (void)err;
    return sample_anchors(((Stream *)ctx)->plan.seq[i]);
}

static int64_t bytes_of(const Stream *s, int64_t i) {
    return capture_bytes(s->plan.seq[i], &s->meta);
}

// Makes room for one group; what goes is captured again when it is asked for.
static void evict(Stream *s, int64_t group) {
    int64_t need = 0;
    for (int64_t i = s->plan.group[group]; i < s->plan.group[group + 1]; i++)
        need += bytes_of(s, i);
    for (int64_t tried = 0; s->ready_bytes + need > KEEP_BYTES && tried < s->plan.n; tried++) {
        CapturedSeq *c = &s->ready[s->oldest];
        if (c->sample.n > 0) s->ready_bytes -= bytes_of(s, s->oldest);
        captured_free(c);
        s->oldest = (s->oldest + 1) % s->plan.n;
    }
}

static bool read_one(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    Stream *s = ctx;
    CHECK(i >= 0 && i < s->plan.n);
    if (s->ready[i].sample.n == 0) {
        const int64_t g = s->group_of[i], first = s->plan.group[g];
        CapturedSeq made[PACK_SEQS_MAX];
        evict(s, g);
        if (!capturer_run(s->capturer, g, -1, made, err)) return false;
        for (int64_t k = first; k < s->plan.group[g + 1]; k++) {
            if (s->ready[k].sample.n == 0) s->ready_bytes += bytes_of(s, k);
            captured_free(&s->ready[k]);
            s->ready[k] = made[k - first];
        }
    }
    *out = s->ready[i];
    s->ready[i] = (CapturedSeq){0};
    s->ready_bytes -= bytes_of(s, i);
    return true;
}

SeqSource stream_source(Stream *s) {
    return (SeqSource){.ctx = s,
                       .count = s->plan.n,
                       .bytes_per_token = shard_bytes_per_token(&s->meta),
                       .length = length,
                       .anchors = anchors,
                       .read = read_one};
}
