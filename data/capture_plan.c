// data/capture_plan.c - sequences to groups, groups to shards: a function of the samples alone.
#include <stdlib.h>

#include "data/capture.h"

enum { GROUP_MAX = 16 }; // sequences of a call: each takes a slot of the cache

static void plan_groups(CapturePlan *p, int64_t chunk) {
    int64_t rows = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const int64_t n = p->seq[i]->n, first = p->groups ? p->group[p->groups - 1] : 0;
        const bool opens = p->groups == 0 || rows + n > chunk || i - first == GROUP_MAX;
        if (opens) p->group[p->groups++] = i;
        rows = opens ? n : rows + n;
        p->tokens += n;
        p->states += n - sample_bare(p->seq[i]);
        if (n > p->longest) p->longest = n;
    }
    p->group[p->groups] = p->n;
    for (int64_t g = 0; g < p->groups; g++)
        if (p->group[g + 1] - p->group[g] > p->widest) p->widest = p->group[g + 1] - p->group[g];
}

int64_t capture_bytes(const Sample *s, const ShardMeta *meta) {
    return shard_bytes(meta, s->n, s->n - sample_bare(s));
}

int64_t capture_shard_bytes(const CapturePlan *p, int shard, const ShardMeta *meta) {
    int64_t n = 0;
    for (int64_t i = p->group[p->shard[shard]]; i < p->group[p->shard[shard + 1]]; i++)
        n += capture_bytes(p->seq[i], meta);
    return n;
}

// Two shards: of turns that follow each other, one on its way to the disk.
int64_t capture_held_bytes(const CapturePlan *p, const ShardMeta *meta, int ranks) {
    int64_t most = 0;
    for (int k = 0; k < p->shards; k++) {
        int64_t bytes = capture_shard_bytes(p, k, meta);
        if (k + ranks < p->shards) bytes += capture_shard_bytes(p, k + ranks, meta);
        if (bytes > most) most = bytes;
    }
    return most;
}

static void plan_shards(CapturePlan *p, const ShardMeta *meta, int64_t most) {
    int64_t bytes = 0;
    for (int64_t g = 0; g < p->groups; g++) {
        int64_t n = 0;
        for (int64_t i = p->group[g]; meta && i < p->group[g + 1]; i++)
            n += capture_bytes(p->seq[i], meta);
        const bool opens = p->shards == 0 || bytes + n > most;
        if (opens) p->shard[p->shards++] = g;
        bytes = opens ? n : bytes + n;
    }
    p->shard[p->shards] = p->groups;
}

bool capture_plan(CapturePlan *p, const Sample *sample, int64_t n, int64_t chunk,
                  const ShardMeta *meta, int64_t most, Err *err) {
    CHECK(chunk > 0 && n >= 0);
    *p = (CapturePlan){0};
    p->seq = malloc((size_t)(n + 1) * sizeof *p->seq);
    p->group = calloc((size_t)n + 2, sizeof *p->group);
    p->shard = calloc((size_t)n + 2, sizeof *p->shard);
    if (!p->seq || !p->group || !p->shard) {
        capture_plan_free(p);
        return err_set(err, ERR_FAILED, "out of memory for %lld sequences", (long long)n);
    }
    for (int64_t i = 0; i < n; i++) {
        if (sample_anchors(&sample[i]) > 0)
            p->seq[p->n++] = &sample[i];
        else
            p->left_out++;
    }
    plan_groups(p, chunk);
    plan_shards(p, meta, most);
    return true;
}

void capture_plan_free(CapturePlan *p) {
    free(p->seq);
    free(p->group);
    free(p->shard);
    *p = (CapturePlan){0};
}
