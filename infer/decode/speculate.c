// infer/decode/speculate.c - the canonical round: rows 0..T-1, bonus x_T, feature h_{T-1}; draft k,
// verify k + 1 in one target call, keep rows 0..T+a, go on from the hidden row of the last accepted
// token.
#include "infer/decode/speculate.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/log.h"

struct Speculator {
    Target *target;
    const Assistant *a; // NULL: no drafter
    Device *dev;
    SpeculatorOptions opt;
    KvCache *kv; // one slot
    void *block; // the arena's
    Arena arena; // what lives as long as the speculator, from `kept` on the buffers of a round
    size_t kept;
    FeaturePack pack;
    Tensor hidden, best, id; // (k_max + 1, B), (k_max + 1, 2) twice
    AttnSeg seg[2][PACK_SEQS_MAX];
};

// What one round's drafting needs.
typedef struct {
    Tensor row_index, feature0, token;
    StepActs acts;
    AnchorPlan plan;
} DraftBuffers;

static void lay_out(Speculator *s, Arena *arena) {
    const TargetConfig *c = target_config(s->target);
    if (s->a != NULL) features_take(&s->pack, c, s->opt.capacity, s->opt.feature_dtype, arena);
    s->hidden = tensor_take(arena, DT_F32, s->opt.k_max + 1, c->text.hidden);
    s->best = tensor_take(arena, DT_F32, s->opt.k_max + 1, 2);
    s->id = tensor_take(arena, DT_I32, s->opt.k_max + 1, 2);
}

static void draft_buffers(const Speculator *s, DraftBuffers *b, Arena *arena) {
    b->row_index = tensor_take(arena, DT_I32, 1, 1);
    b->feature0 = tensor_take(arena, s->a->dtype, 1, s->a->cfg.backbone);
    b->token = tensor_take(arena, DT_I32, 1, 1);
    assistant_acts_take(s->a, &b->acts, 1, false, arena);
}

static size_t plan_bytes(Speculator *s) {
    Arena plan;
    DraftBuffers b;
    arena_open(&plan, NULL, 0);
    lay_out(s, &plan);
    if (s->a != NULL) {
        draft_buffers(s, &b, &plan);
        arena_take(&plan, anchor_plan_bytes(s->a, 1));
        arena_take(&plan, assistant_head_bytes(s->a, 1));
    }
    return plan.peak;
}

size_t speculator_bytes(Target *t, const Assistant *a, const SpeculatorOptions *opt) {
    Speculator s = {.target = t, .a = opt->k_max > 0 ? a : NULL, .opt = *opt};
    return plan_bytes(&s) + (size_t)kv_bytes(&target_config(t)->text, 1, opt->capacity, opt->chunk,
                                             false, opt->kv_dtype);
}

Speculator *speculator_open(Target *t, const Assistant *a, const SpeculatorOptions *opt, Err *err) {
    CHECK(opt->k_max >= 0 && opt->k_max <= DRAFT_MAX && opt->chunk > opt->k_max);
    CHECK(opt->k_max == 0 || a != NULL);
    Speculator *s = calloc(1, sizeof *s);
    if (s == NULL) {
        err_set(err, ERR_FAILED, "speculator: no memory");
        return NULL;
    }
    s->target = t;
    s->a = opt->k_max > 0 ? a : NULL;
    s->dev = target_device(t);
    s->opt = *opt;
    const size_t bytes = plan_bytes(s);
    if ((s->block = dev_alloc(s->dev, bytes, err)) == NULL) goto fail;
    arena_open(&s->arena, s->block, bytes);
    lay_out(s, &s->arena);
    s->kept = arena_mark(&s->arena);
    s->kv = kv_open(s->dev, &target_config(t)->text, 1, opt->capacity, opt->chunk, false,
                    opt->kv_dtype, err);
    if (s->kv == NULL) goto fail;
    return s;
fail:
    err_wrap(err, "speculator for %lld positions", (long long)opt->capacity);
    speculator_close(s);
    return NULL;
}

void speculator_close(Speculator *s) {
    if (s == NULL) return;
    kv_close(s->kv);
    if (s->block != NULL) dev_free(s->dev, s->block);
    free(s);
}

void speculate_result_free(SpeculateResult *r) {
    free(r->ids);
    free(r->round);
    *r = (SpeculateResult){0};
}

// Feeds n tokens to the target. Rows of `hidden` are the states behind the last `wanted`.
static Tensor feed(Speculator *s, const int32_t *ids, int64_t n, int64_t wanted) {
    const TargetPiece piece = {.slot = 0, .count = n, .skip = n - wanted};
    const Tensor hidden = tensor_rows(s->hidden, 0, wanted);
    target_forward(s->target, s->kv, &piece, 1, ids, hidden, NULL);
    return hidden;
}

// The target's choices behind each row of hidden, and their margins.
static bool choose(Speculator *s, Tensor hidden, int32_t *choice, float *margin, Err *err) {
    int32_t id[2 * (DRAFT_MAX + 1)];
    float best[2 * (DRAFT_MAX + 1)];
    const int64_t n = hidden.rows;
    target_top2(s->target, tensor_rows(s->best, 0, n), tensor_rows(s->id, 0, n), hidden);
    dev_download(s->dev, id, tensor_rows(s->id, 0, n));
    dev_download(s->dev, best, tensor_rows(s->best, 0, n));
    if (!dev_sync(s->dev, err)) return false;
    for (int64_t i = 0; i < n; i++) {
        choice[i] = id[2 * i];
        margin[i] = best[2 * i] - best[2 * i + 1];
        if (!isfinite(best[2 * i]))
            return err_set(err, ERR_FAILED, "logits of the target are not finite at position %lld",
                           (long long)(kv_length(s->kv, 0) - n + i));
    }
    return true;
}

static bool prefill(Speculator *s, const int32_t *prompt, int64_t n, SpeculateResult *out,
                    int32_t *bonus, Err *err) {
    const double start = now_s();
    kv_clear(s->kv, 0);
    if (s->a != NULL) {
        features_clear(&s->pack);
        features_begin(&s->pack);
    }
    Tensor hidden = NO_TENSOR;
    for (int64_t at = 0; at < n; at += s->opt.chunk) {
        const int64_t m = n - at < s->opt.chunk ? n - at : s->opt.chunk;
        hidden = feed(s, prompt + at, m, at + m == n ? 1 : 0); // anchors begin behind it
        if (s->a != NULL) features_append(&s->pack, s->dev, s->target, s->kv, 0, at, m, hidden);
    }
    const bool ok = choose(s, hidden, bonus, &out->first_margin, err);
    out->prefill_s = now_s() - start;
    return ok;
}

// k greedy drafts from the anchor T; token is the bonus x_T.
static bool draft(Speculator *s, const SpeculateOptions *opt, int32_t token, SpeculateRound *round,
                  Err *err) {
    DraftBuffers b;
    AnchorSet set = {0};
    const int32_t T = (int32_t)round->T, seq = 0;
    arena_reset(&s->arena, s->kept);
    draft_buffers(s, &b, &s->arena);
    features_anchors(&s->pack, s->dev, s->a, &T, &seq, 1, &set, s->seg[LAYER_SLIDING],
                     s->seg[LAYER_FULL], b.row_index, b.feature0);
    anchor_plan(s->a, &set, &b.plan, &s->arena);
    for (int j = 0; j < opt->k; j++) {
        float best[2];
        int32_t id[2];
        dev_upload(s->dev, b.token, &token);
        assistant_step(s->a, &b.plan, b.token, j == 0 ? b.feature0 : b.acts.f, &b.acts,
                       j + 1 < opt->k);
        assistant_top2(s->a, opt->head, tensor_rows(s->best, 0, 1), tensor_rows(s->id, 0, 1),
                       b.acts.y, &s->arena);
        dev_download(s->dev, id, tensor_rows(s->id, 0, 1));
        dev_download(s->dev, best, tensor_rows(s->best, 0, 1));
        if (!dev_sync(s->dev, err)) return false;
        if (!isfinite(best[0]))
            return err_set(err, ERR_FAILED, "logits of the drafter are not finite at T %d, step %d",
                           T, j);
        token = round->draft[j] = id[0];
        round->margin[j] = best[0] - best[1];
    }
    return true;
}

// One round. emit receives the accepted drafts and the new bonus: accepted + 1 tokens.
static bool run_round(Speculator *s, const SpeculateOptions *opt, int32_t bonus,
                      SpeculateRound *round, int32_t *emit, SpeculateResult *out, Err *err) {
    int32_t ids[DRAFT_MAX + 1] = {bonus}, choice[DRAFT_MAX + 1];
    const double start = now_s();
    if (opt->k > 0 && !draft(s, opt, bonus, round, err)) return false;
    const double drafted = now_s();
    for (int j = 0; j < opt->k; j++) ids[j + 1] = round->draft[j];
    const Tensor hidden = feed(s, ids, opt->k + 1, opt->k + 1);
    if (!choose(s, hidden, choice, round->verify_margin, err)) return false;
    int a = 0;
    while (a < opt->k && round->draft[a] == choice[a]) a++;
    round->accepted = a;
    for (int j = 0; j <= a; j++) emit[j] = choice[j];
    if (s->a != NULL)
        features_append(&s->pack, s->dev, s->target, s->kv, 0, round->T, a + 1,
                        tensor_rows(hidden, 0, a + 1));
    kv_rewind(s->kv, 0, round->T + a + 1); // rows of rejected drafts
    out->drafter_s += drafted - start;
    out->target_s += now_s() - drafted;
    return true;
}

static bool is_stop(const TargetConfig *c, int32_t id) {
    for (int i = 0; i < c->nstop; i++)
        if (c->stop[i] == id) return true;
    return false;
}

// Appends one token; false when the text ends with it.
static bool append(const Speculator *s, const SpeculateOptions *opt, int32_t id,
                   SpeculateResult *out) {
    out->ids[out->n++] = id;
    out->stopped = !opt->ignore_stop && is_stop(target_config(s->target), id);
    return !out->stopped && out->n - out->first < opt->max_new_tokens;
}

bool speculate(Speculator *s, const SpeculateOptions *opt, const int32_t *prompt, int64_t n,
               SpeculateResult *out, Err *err) {
    *out = (SpeculateResult){.first = n};
    CHECK(opt->k >= 0 && opt->k <= s->opt.k_max);
    CHECK(n >= 1 && opt->max_new_tokens >= 1);
    if (n + opt->max_new_tokens + opt->k > s->opt.capacity)
        return err_set(
            err, ERR_USAGE, "%lld prompt tokens, %lld new ones and %d drafts, capacity %lld",
            (long long)n, (long long)opt->max_new_tokens, opt->k, (long long)s->opt.capacity);
    out->ids = malloc((size_t)(n + opt->max_new_tokens) * sizeof *out->ids);
    out->round = malloc((size_t)opt->max_new_tokens * sizeof *out->round);
    int32_t emit[DRAFT_MAX + 1] = {0};
    if (out->ids == NULL || out->round == NULL) {
        err_set(err, ERR_FAILED, "no memory for %lld tokens", (long long)opt->max_new_tokens);
        goto fail;
    }
    memcpy(out->ids, prompt, (size_t)n * sizeof *prompt);
    out->n = n;
    if (!prefill(s, prompt, n, out, emit, err)) goto fail;
    bool more = append(s, opt, emit[0], out);
    while (more) {
        SpeculateRound *round = &out->round[out->rounds++];
        *round = (SpeculateRound){.T = out->n - 1};
        if (!run_round(s, opt, out->ids[out->n - 1], round, emit, out, err)) goto fail;
        out->near_ties += speculate_gap(round, opt->k) < opt->near_tie;
        for (int j = 0; j <= round->accepted && more; j++) more = append(s, opt, emit[j], out);
    }
    return true;
fail:
    speculate_result_free(out);
    return false;
}

void speculate_count(Acceptance *sum, const SpeculateResult *r, int k) {
    for (int64_t i = 0; i < r->rounds; i++)
        acceptance_round(sum, r->round[i].accepted, k, r->n - 1 - r->round[i].T);
}

double speculate_gap(const SpeculateRound *r, int k) {
    double gap = DBL_MAX;
    for (int j = 0; j <= r->accepted && j <= k; j++) {
        if (j < k && r->margin[j] < gap) gap = r->margin[j];
        if (r->verify_margin[j] < gap) gap = r->verify_margin[j];
    }
    return gap;
}
