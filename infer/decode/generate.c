// infer/decode/generate.c - slots of the cache are sequences; one target call a step carries the
// next token of every answer under way and, in the rows left over, pieces of the prompts that wait.
#include "infer/decode/generate.h"

#include <math.h>
#include <stdlib.h>

#include "infer/base/rng.h"
#include "infer/decode/sampling.h"

enum { LOGIT_BYTES = 64 << 20 }; // of the (rows, V) tile that sampling needs

typedef struct {
    bool busy;
    GenerateJob job;
    int64_t fed;  // prompt tokens consumed so far
    int64_t room; // most tokens of the answer
    int32_t *ids; // (max_new_tokens)
    int64_t n;
    double min_margin;
} Slot;

typedef struct {
    Target *target;
    Device *dev;
    const GenerateOptions *opt;
    KvCache *kv;
    void *block;
    Tensor hidden, best, id, logits;
    int64_t logit_rows;
    Slot *slot;
    // One step: pieces and their tokens, and who chooses behind each row of `hidden`.
    TargetPiece *piece;
    int32_t *tokens;    // (prefill_rows)
    int *chooser;       // (slots): slot number
    int32_t *id_host;   // (slots, 2)
    float *best_host;   // (slots, 2)
    float *logits_host; // (logit_rows, V)
    Dist dist;
    bool exhausted; // no more jobs
} Run;

static bool sampled(const GenerateOptions *opt) {
    return opt->sampler.temperature > 0.0;
}

static void lay_out(Run *r, const TextConfig *c, const GenerateOptions *opt, Arena *arena) {
    r->hidden = tensor_take(arena, DT_F32, opt->slots, c->hidden);
    r->best = tensor_take(arena, DT_F32, opt->slots, 2);
    r->id = tensor_take(arena, DT_I32, opt->slots, 2);
    const int64_t fit = LOGIT_BYTES / (4 * c->vocab);
    r->logit_rows = !sampled(opt) ? 0 : fit < 1 ? 1 : fit > opt->slots ? opt->slots : fit;
    r->logits = tensor_take(arena, DT_F32, r->logit_rows, c->vocab);
}

size_t generate_bytes(const TextConfig *c, const GenerateOptions *opt) {
    Arena plan;
    Run r;
    arena_open(&plan, NULL, 0);
    lay_out(&r, c, opt, &plan);
    return plan.peak + (size_t)kv_bytes(c, (int)opt->slots, opt->max_length, opt->prefill_rows,
                                        false, opt->kv_dtype);
}

static bool run_open(Run *r, Target *t, const GenerateOptions *opt, Err *err) {
    const TextConfig *c = &target_config(t)->text;
    const size_t slots = (size_t)opt->slots;
    Arena arena;
    CHECK(opt->slots >= 1 && opt->prefill_rows >= opt->slots && opt->max_new_tokens >= 1);
    *r = (Run){.target = t, .dev = target_device(t), .opt = opt};
    arena_open(&arena, NULL, 0);
    lay_out(r, c, opt, &arena);
    if ((r->block = dev_alloc(r->dev, arena.peak, err)) == NULL) return false;
    arena_open(&arena, r->block, arena.peak);
    lay_out(r, c, opt, &arena);
    r->kv = kv_open(r->dev, c, (int)opt->slots, opt->max_length, opt->prefill_rows, false,
                    opt->kv_dtype, err);
    if (r->kv == NULL) return false;
    r->slot = calloc(slots, sizeof *r->slot);
    r->piece = calloc(slots, sizeof *r->piece);
    r->tokens = calloc((size_t)opt->prefill_rows, sizeof *r->tokens);
    r->chooser = calloc(slots, sizeof *r->chooser);
    r->id_host = calloc(2 * slots, sizeof *r->id_host);
    r->best_host = calloc(2 * slots, sizeof *r->best_host);
    r->logits_host = calloc((size_t)(r->logit_rows * c->vocab) + 1, sizeof *r->logits_host);
    bool ok = r->slot && r->piece && r->tokens && r->chooser && r->id_host && r->best_host &&
              r->logits_host;
    for (size_t i = 0; ok && i < slots; i++)
        ok = (r->slot[i].ids = malloc((size_t)opt->max_new_tokens * sizeof(int32_t))) != NULL;
    return ok || err_set(err, ERR_FAILED, "no memory for %lld answers", (long long)opt->slots);
}

static void run_close(Run *r) {
    for (int64_t i = 0; r->slot != NULL && i < r->opt->slots; i++) free(r->slot[i].ids);
    free(r->slot);
    free(r->piece);
    free(r->tokens);
    free(r->chooser);
    free(r->id_host);
    free(r->best_host);
    free(r->logits_host);
    dist_free(&r->dist);
    kv_close(r->kv);
    if (r->block != NULL) dev_free(r->dev, r->block);
}

typedef struct {
    bool (*next)(void *, GenerateJob *);
    bool (*done)(void *, const GenerateDone *, Err *);
    void *ctx;
} Callbacks;

static bool finish(Slot *s, const Callbacks *cb, bool stopped, Err *err) {
    const GenerateDone d = {.user = s->job.user,
                            .ids = s->ids,
                            .n = s->n,
                            .stopped = stopped,
                            .min_margin = s->min_margin};
    s->busy = false;
    return cb->done(cb->ctx, &d, err);
}

// Fills idle slots with jobs; a prompt that leaves no room for an answer is done at once.
static bool refill(Run *r, const Callbacks *cb, Err *err) {
    for (int i = 0; i < r->opt->slots; i++) {
        Slot *s = &r->slot[i];
        while (!s->busy && !r->exhausted) {
            GenerateJob job = {0};
            if (!cb->next(cb->ctx, &job)) {
                r->exhausted = true;
                break;
            }
            CHECK(job.n >= 1);
            int64_t room = r->opt->max_length - job.n;
            if (room > r->opt->max_new_tokens) room = r->opt->max_new_tokens;
            *s = (Slot){
                .busy = true, .job = job, .room = room, .ids = s->ids, .min_margin = INFINITY};
            kv_clear(r->kv, i);
            if (room <= 0 && !finish(s, cb, false, err)) return false;
        }
    }
    return true;
}

// Lays out one step. Answers come first: a row each; prompts share what is left, in slot order. Of
// a prompt only the state of its last row is wanted.
static int plan_step(Run *r, int *choosers) {
    int pieces = 0, answering = 0;
    int64_t rows = 0;
    *choosers = 0;
    for (int i = 0; i < r->opt->slots; i++) answering += r->slot[i].busy && r->slot[i].n > 0;
    int64_t spare = r->opt->prefill_rows - answering;
    for (int i = 0; i < r->opt->slots; i++) {
        Slot *s = &r->slot[i];
        if (!s->busy) continue;
        int64_t count = 1;
        if (s->n > 0) {
            r->tokens[rows] = s->ids[s->n - 1];
        } else {
            count = s->job.n - s->fed < spare ? s->job.n - s->fed : spare;
            if (count == 0) continue;
            for (int64_t j = 0; j < count; j++) r->tokens[rows + j] = s->job.prompt[s->fed + j];
            s->fed += count;
            spare -= count;
        }
        const bool chooses = s->fed == s->job.n;
        r->piece[pieces++] =
            (TargetPiece){.slot = i, .count = count, .skip = chooses ? count - 1 : count};
        rows += count;
        if (chooses) r->chooser[(*choosers)++] = i;
    }
    return pieces;
}

static bool not_finite(const Slot *s, Err *err) {
    return err_set(err, ERR_FAILED, "logits of the target are not finite at position %lld",
                   (long long)(s->job.n + s->n));
}

// Appends a token to the answer of chooser c.
static bool accept(Run *r, int c, int32_t id, const Callbacks *cb, Err *err) {
    const TargetConfig *tc = target_config(r->target);
    Slot *s = &r->slot[r->chooser[c]];
    s->ids[s->n++] = id;
    bool stop = false;
    for (int i = 0; i < tc->nstop; i++) stop |= tc->stop[i] == id;
    return (!stop && s->n < s->room) || finish(s, cb, stop, err);
}

static bool choose_greedy(Run *r, Tensor last, const Callbacks *cb, Err *err) {
    const int64_t n = last.rows;
    target_top2(r->target, tensor_rows(r->best, 0, n), tensor_rows(r->id, 0, n), last);
    dev_download(r->dev, r->id_host, tensor_rows(r->id, 0, n));
    dev_download(r->dev, r->best_host, tensor_rows(r->best, 0, n));
    if (!dev_sync(r->dev, err)) return false;
    for (int c = 0; c < n; c++) {
        Slot *s = &r->slot[r->chooser[c]];
        const float first = r->best_host[2 * c], second = r->best_host[2 * c + 1];
        if (!isfinite(first)) return not_finite(s, err);
        if ((double)first - second < s->min_margin) s->min_margin = (double)first - second;
        if (!accept(r, c, r->id_host[2 * c], cb, err)) return false;
    }
    return true;
}

static void suppress(float *logits, const Suppress *s) {
    for (int i = 0; i < s->n; i++) logits[s->id[i]] = -INFINITY;
}

static bool choose_sampled(Run *r, Tensor last, const Callbacks *cb, Err *err) {
    const int64_t vocab = target_config(r->target)->text.vocab;
    for (int64_t at = 0; at < last.rows; at += r->logit_rows) {
        const int64_t n = last.rows - at < r->logit_rows ? last.rows - at : r->logit_rows;
        const Tensor logits = tensor_rows(r->logits, 0, n);
        target_logits(r->target, logits, tensor_rows(last, at, n));
        dev_download(r->dev, r->logits_host, logits);
        if (!dev_sync(r->dev, err)) return false;
        for (int64_t i = 0; i < n; i++) {
            Slot *s = &r->slot[r->chooser[at + i]];
            suppress(r->logits_host + i * vocab, &target_config(r->target)->suppress);
            dist_from_logits(&r->dist, r->logits_host + i * vocab, vocab, &r->opt->sampler);
            if (r->dist.n == 0) return not_finite(s, err);
            const double u =
                rng_uniform(r->opt->sampler.seed, RNG_SAMPLE, s->job.stream, (uint64_t)s->n);
            if (!accept(r, (int)(at + i), dist_pick(&r->dist, u), cb, err)) return false;
        }
    }
    return true;
}

bool generate_run(Target *t, const GenerateOptions *opt, bool (*next)(void *, GenerateJob *),
                  bool (*done)(void *, const GenerateDone *, Err *), void *ctx, Err *err) {
    const Callbacks cb = {.next = next, .done = done, .ctx = ctx};
    bool ok = false;
    Run r;
    if (!run_open(&r, t, opt, err)) goto end;
    for (;;) {
        int choosers;
        if (!refill(&r, &cb, err)) goto end;
        const int pieces = plan_step(&r, &choosers);
        if (pieces == 0) break;
        const Tensor last = tensor_rows(r.hidden, 0, choosers);
        target_forward(t, r.kv, r.piece, pieces, r.tokens, last, NULL);
        if (choosers == 0) continue;
        if (!(sampled(opt) ? choose_sampled : choose_greedy)(&r, last, &cb, err)) goto end;
    }
    ok = true;
end:
    run_close(&r);
    return ok;
}
