// data/capture_shards.c - the missing shards of a plan: while the target makes one, the one before
// goes to disk.
#include <stdlib.h>

#include "data/capture.h"
#include "infer/base/cli.h"
#include "infer/base/log.h"
#include "infer/base/world.h"

// What this rank holds of a shard.
typedef struct {
    CapturedSeq *seq;
    const CapturedSeq **list; // (n) into seq
    int64_t n;
} Held;

typedef struct {
    const CapturePlan *plan;
    Capturer *capturer;
    ShardWriter *out;
    Progress progress;
    int64_t done; // tokens
} Run;

static void let_go(Held *h) {
    for (int64_t i = 0; i < h->n && h->seq; i++) captured_free(&h->seq[i]);
    free(h->seq);
    free(h->list);
    *h = (Held){0};
}

static int64_t tokens_of(const CapturePlan *p, int shard) {
    int64_t n = 0;
    for (int64_t i = p->group[p->shard[shard]]; i < p->group[p->shard[shard + 1]]; i++)
        n += p->seq[i]->n;
    return n;
}

// What this rank captures behind a group of a shard; -1: nothing.
static int64_t group_behind(const CapturePlan *p, int shard, int64_t g) {
    if (g + 1 < p->shard[shard + 1]) return g + 1;
    const int next = shard + world_size();
    return next < p->shards ? p->shard[next] : -1;
}

// The groups of a shard through the target; at_once: so many ranks do as much. Without an error
// where the shard before cannot be written: shard_write_end has it.
static bool capture_groups(Run *r, int shard, int at_once, CapturedSeq *seq, Err *err) {
    const CapturePlan *p = r->plan;
    const int64_t first = p->group[p->shard[shard]];
    int64_t done = r->done;
    for (int64_t g = p->shard[shard]; g < p->shard[shard + 1]; g++) {
        if (stop_requested())
            return err_set(err, ERR_STOPPED, "stopped; the next run goes on at shard %d", shard);
        if (shard_write_failing(r->out)) return false;
        if (!capturer_run(r->capturer, g, group_behind(p, shard, g), seq + (p->group[g] - first),
                          err))
            return false;
        for (int64_t i = p->group[g]; i < p->group[g + 1]; i++) done += at_once * p->seq[i]->n;
        progress_at(&r->progress, done < p->tokens ? done : p->tokens, "");
    }
    return true;
}

static bool capture_one(Run *r, int shard, int at_once, Held *h, Err *err) {
    const CapturePlan *p = r->plan;
    if (shard < p->shards) h->n = p->group[p->shard[shard + 1]] - p->group[p->shard[shard]];
    h->seq = calloc((size_t)h->n + 1, sizeof *h->seq);
    h->list = calloc((size_t)h->n + 1, sizeof *h->list);
    if (!h->seq || !h->list)
        return err_set(err, ERR_FAILED, "out of memory for %lld sequences", (long long)h->n);
    for (int64_t i = 0; i < h->n; i++) h->list[i] = &h->seq[i];
    return h->n == 0 || capture_groups(r, shard, at_once, h->seq, err);
}

// The shards from `next` on, one a rank, through the target; then the turn before must have ended,
// and theirs to the disk begins. A rank that is stopped or fails takes the others along, behind the
// turn before: that one is whole.
static bool capture_turn(Run *r, int next, Held *now, Held *before, Err *err) {
    const int left = r->plan->shards - next, N = left < world_size() ? left : world_size();
    Err why = {0};
    const bool captured = capture_one(r, next + world_rank(), N, now, &why);
    bool ok = shard_write_end(r->out, err);
    let_go(before);
    if (!ok) return false;
    if (!captured) err_set(err, why.code, "%s", why.text);
    if (!world_agree(captured, err)) return false;
    shard_write_begin(r->out, now->list, (int)now->n);
    for (int i = next; i < next + N; i++) r->done += tokens_of(r->plan, i);
    return true;
}

bool capture_shards(const CapturePlan *p, Capturer *c, ShardWriter *out, const char *what,
                    Err *err) {
    Run r = {.plan = p, .capturer = c, .out = out};
    Held held[2] = {0};
    const int first = shard_writer_next(out);
    bool ok = true;
    for (int i = 0; i < first; i++) r.done += tokens_of(p, i);
    progress_start(&r.progress, what, "tok", p->tokens);
    progress_at(&r.progress, r.done, "");
    for (int next = first, turn = 0; ok && next < p->shards; next += world_size(), turn ^= 1)
        ok = capture_turn(&r, next, &held[turn], &held[turn ^ 1], err);
    ok = ok && shard_write_end(out, err);
    for (int i = 0; i < 2; i++) let_go(&held[i]);
    if (ok) progress_end(&r.progress, r.done, "");
    return ok;
}
