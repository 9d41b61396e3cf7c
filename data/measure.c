// data/measure.c - captured sequences are packed, rolled out together and counted one by one.
#include "data/measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/text/chat.h"

enum { HEADS = 2 };

struct Measurer {
    Device *dev;
    MeasureOptions opt;
    SeqSource src;
    Simulator *sim;
    void *block; // of the pack
    FeaturePack pack;
    // The group being packed
    int n;
    int64_t index[PACK_SEQS_MAX], anchors;
    CapturedSeq seq[PACK_SEQS_MAX];
    SimulateJob job[PACK_SEQS_MAX];
    int32_t *drafts[HEADS], *L; // (room, K) and (room): never more anchors than rows
    double *keep, *visit;       // (room, K) and (room)
};

// Tokens packed at once: enough for the longest sequence, not more than there are.
static int64_t pack_room(const SeqSource *src, const MeasureOptions *opt) {
    int64_t longest = 1, all = 0;
    for (int64_t i = 0; i < src->count; i++) {
        const int64_t n = src->length(src->ctx, i);
        if (n > longest) longest = n;
        all += n;
    }
    const int64_t most = all < opt->pack_tokens ? all : opt->pack_tokens;
    return most > longest ? most : longest;
}

// Every anchor is a token of the pack.
static int64_t anchors_at_once(const SeqSource *src, const MeasureOptions *opt) {
    const int64_t room = pack_room(src, opt);
    return room < opt->max_anchors ? room : opt->max_anchors;
}

// Host memory: drafts and lengths of the pack, one sequence as it is read.
static int64_t host_bytes(const SeqSource *src, const MeasureOptions *opt) {
    const int64_t room = pack_room(src, opt);
    int64_t bytes = room * (4 + 8 + 8 * (int64_t)opt->K), longest = 0; // L, visit, keep
    for (int h = 0; h < HEADS; h++)
        if (opt->head[h]) bytes += room * opt->K * (int64_t)sizeof(int32_t);
    for (int64_t i = 0; i < src->count; i++)
        if (src->length(src->ctx, i) > longest) longest = src->length(src->ctx, i);
    return bytes + longest * src->bytes_per_token;
}

size_t measurer_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                      const MeasureOptions *opt) {
    return simulator_bytes(a, anchors_at_once(src, opt)) +
           features_bytes(tc, pack_room(src, opt), DT_BF16) + (size_t)host_bytes(src, opt);
}

Measurer *measurer_open(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                        const MeasureOptions *opt, Err *err) {
    CHECK(opt->K >= 1 && opt->K <= DRAFT_MAX &&
          (opt->head[HEAD_DENSE] || opt->head[HEAD_CENTROID]));
    const int64_t room = pack_room(src, opt);
    const size_t bytes = features_bytes(tc, room, DT_BF16);
    Arena arena;
    Measurer *m = calloc(1, sizeof *m);
    if (m == NULL) goto memory;
    m->dev = a->dev;
    m->opt = *opt;
    m->src = *src;
    m->L = malloc((size_t)room * sizeof *m->L);
    m->visit = malloc((size_t)room * sizeof *m->visit);
    m->keep = malloc((size_t)(room * opt->K) * sizeof *m->keep);
    if (m->L == NULL || m->visit == NULL || m->keep == NULL) goto memory;
    for (int h = 0; h < HEADS; h++) {
        if (!opt->head[h]) continue;
        m->drafts[h] = malloc((size_t)(room * opt->K) * sizeof *m->drafts[h]);
        if (m->drafts[h] == NULL) goto memory;
    }
    if ((m->sim = simulator_open(a, anchors_at_once(src, opt), opt->K, err)) == NULL) goto fail;
    if ((m->block = dev_alloc(m->dev, bytes, err)) == NULL) goto fail;
    arena_open(&arena, m->block, bytes);
    features_take(&m->pack, tc, room, DT_BF16, &arena);
    return m;
memory:
    err_set(err, ERR_FAILED, "no memory for %lld rows", (long long)room);
fail:
    err_wrap(err, "measuring acceptance");
    measurer_close(m);
    return NULL;
}

static void drop_group(Measurer *m) {
    for (int i = 0; i < m->n; i++) captured_free(&m->seq[i]);
    m->n = 0;
    m->anchors = 0;
    features_clear(&m->pack);
}

void measurer_close(Measurer *m) {
    if (m == NULL) return;
    drop_group(m);
    simulator_close(m->sim);
    if (m->block != NULL) dev_free(m->dev, m->block);
    for (int h = 0; h < HEADS; h++) free(m->drafts[h]);
    free(m->L);
    free(m->visit);
    free(m->keep);
    free(m);
}

static int64_t anchors_of(const Sample *s) {
    return s->n - s->prompt - 1 > 0 ? s->n - s->prompt - 1 : 0;
}

static bool load(Measurer *m, const CapturedSeq *c, Err *err) {
    const Sample *s = &c->sample;
    if (s->prompt < 1 || s->prompt > s->n || s->n > m->pack.room - m->pack.rows)
        return err_set(err, ERR_INPUT, "sequence %s: %lld tokens, prompt %lld, room for %lld",
                       s->id, (long long)s->n, (long long)s->prompt,
                       (long long)(m->pack.room - m->pack.rows));
    features_begin(&m->pack);
    features_load(&m->pack, m->dev, c->hidden, (const void *const *)c->k, (const void *const *)c->v,
                  s->n);
    return true;
}

int measure_rules(const Sampler *s, AcceptRule rule[RULE_COUNT]) {
    int n = 0;
    if (s->temperature == 0.0) rule[n++] = RULE_GREEDY;
    for (int r = RULE_GREEDY + 1; n != 1 && r < RULE_COUNT; r++) rule[n++] = (AcceptRule)r;
    return n;
}

const char *part_name(TextPart part) {
    static const char *const names[PART_COUNT] = {"text",         "thought",    "structured",
                                                  "< 512",        "512 - 2047", "2048 - 8191",
                                                  "8192 - 32767", "32768 -"};
    CHECK((unsigned)part < PART_COUNT, "part %d", (int)part);
    return names[part];
}

double step_tau(StepCount c) {
    return c.rounds > 0.0 ? c.tokens / c.rounds : 0.0;
}

// Of the first token that a round at this anchor has to match.
static TextPart kind_of(const Sample *s, int64_t anchor) {
    const TokenKind kind = (TokenKind)s->kind[s->prompt + anchor + 1];
    return token_structured(kind)  ? PART_STRUCTURED
           : kind == TOKEN_THOUGHT ? PART_THOUGHT
                                   : PART_TEXT;
}

static TextPart context_of(const Sample *s, int64_t anchor) {
    const int64_t T = s->prompt + anchor;
    int part = PART_CONTEXT_512;
    for (int64_t edge = 512; part < PART_CONTEXT_MORE && T >= edge; edge *= 4) part++;
    return (TextPart)part;
}

// One draft length of the first rule: rounds by part.
static void count_parts(const Measurer *m, const Sample *s, const DraftOdds *o, int k,
                        StepCount *part) {
    for (int64_t a = 0; a < o->anchors; a++) {
        Acceptance one = {0};
        if (m->visit[a] == 0.0) continue;
        acceptance_expect_round(&one, o, a, k, m->visit[a]);
        StepCount *const to[2] = {&part[kind_of(s, a)], &part[context_of(s, a)]};
        for (int i = 0; i < 2; i++) to[i]->rounds += one.rounds, to[i]->tokens += one.tokens;
    }
}

static void count_rule(const Measurer *m, const Sample *s, const DraftOdds *o, AcceptRule rule,
                       Head h, Measured *out, MeasuredPool *pool) {
    for (int k = 0; k <= m->opt.K; k++) {
        Acceptance sum = {0};
        acceptance_expect(&sum, o, k, m->visit);
        out->k[rule][h][k] = (StepCount){sum.rounds, sum.tokens};
        if (rule == RULE_GREEDY || rule == RULE_REJECTION) count_parts(m, s, o, k, out->part[h][k]);
        if (pool != NULL) acceptance_merge(&pool->k[rule][h][k], &sum);
    }
    if (pool != NULL) acceptance_reach(&pool->all[rule][h], o);
}

static void count(const Measurer *m, const SimulateJob *job, const Sample *s, Measured *out,
                  MeasuredPool *pool) {
    const int64_t anchors = anchors_of(s);
    *out = (Measured){.tokens = anchors};
    snprintf(out->id, sizeof out->id, "%s", s->id);
    snprintf(out->category, sizeof out->category, "%s", s->category);
    snprintf(out->source, sizeof out->source, "%s", s->source);
    for (int64_t a = 0; a < anchors; a++) {
        out->part_tokens[kind_of(s, a)]++;
        out->part_tokens[context_of(s, a)]++;
    }
    for (int h = 0; h < HEADS; h++) {
        if (!m->opt.head[h]) continue;
        acceptance_keep(m->keep, job->drafts[h], anchors, m->opt.K, s->ids, s->n, s->prompt);
        const DraftOdds odds = {.keep = m->keep, .anchors = anchors, .K = m->opt.K};
        count_rule(m, s, &odds, RULE_GREEDY, (Head)h, out, pool);
    }
}

void measured_add(Measured *sum, const Measured *more) {
    sum->tokens += more->tokens;
    for (int p = 0; p < PART_COUNT; p++) sum->part_tokens[p] += more->part_tokens[p];
    for (int h = 0; h < HEADS; h++)
        for (int k = 0; k <= DRAFT_MAX; k++) {
            for (int r = 0; r < RULE_COUNT; r++) {
                sum->k[r][h][k].rounds += more->k[r][h][k].rounds;
                sum->k[r][h][k].tokens += more->k[r][h][k].tokens;
            }
            for (int p = 0; p < PART_COUNT; p++) {
                sum->part[h][k][p].rounds += more->part[h][k][p].rounds;
                sum->part[h][k][p].tokens += more->part[h][k][p].tokens;
            }
        }
}

StepCount measured_sum(const Measured *m, int64_t n, AcceptRule rule, Head head, int k) {
    StepCount sum = {0};
    CHECK(k >= 0 && k <= DRAFT_MAX);
    for (int64_t i = 0; i < n; i++) {
        sum.rounds += m[i].k[rule][head][k].rounds;
        sum.tokens += m[i].k[rule][head][k].tokens;
    }
    return sum;
}

// Rolls out the packed group and counts its sequences.
static bool run_group(Measurer *m, const Assistant *a, Measured *out, MeasuredPool *pool,
                      Err *err) {
    if (m->n > 0 && !simulator_run(m->sim, a, &m->pack, m->job, m->n, err)) return false;
    for (int i = 0; i < m->n; i++) count(m, &m->job[i], &m->seq[i].sample, &out[m->index[i]], pool);
    drop_group(m);
    return true;
}

static bool fits(const Measurer *m, int64_t tokens) {
    return m->n < PACK_SEQS_MAX && m->pack.rows + tokens <= m->pack.room;
}

bool measurer_run(Measurer *m, const Assistant *a, Measured *out, MeasuredPool *pool, Err *err) {
    drop_group(m);
    if (pool != NULL) *pool = (MeasuredPool){0};
    for (int64_t i = 0; i < m->src.count; i++) {
        if (!fits(m, m->src.length(m->src.ctx, i)) && !run_group(m, a, out, pool, err))
            return false;
        CapturedSeq *c = &m->seq[m->n];
        *c = (CapturedSeq){0};
        if (!m->src.read(m->src.ctx, i, c, err)) return false;
        m->index[m->n] = i;
        SimulateJob *job = &m->job[m->n];
        *job = (SimulateJob){
            .seq = m->n, .ids = c->sample.ids, .n = c->sample.n, .first = c->sample.prompt};
        m->n++; // from here on drop_group frees it
        if (!load(m, c, err)) return false;
        captured_drop_rows(c); // the pack has them
        for (int h = 0; h < HEADS; h++)
            if (m->opt.head[h]) job->drafts[h] = m->drafts[h] + m->anchors * m->opt.K;
        m->anchors += anchors_of(&c->sample);
    }
    return run_group(m, a, out, pool, err);
}

bool measurer_lengths(Measurer *m, const Assistant *a, const CapturedSeq *c, Head head, int32_t *L,
                      int32_t *drafts, float *margin, Err *err) {
    const Sample *s = &c->sample;
    drop_group(m);
    if (!load(m, c, err)) return false;
    if (!simulator_drafts(m->sim, a, &m->pack, 0, s->ids, s->n, s->prompt, head, drafts, margin,
                          err))
        return false;
    acceptance_lengths(L, drafts, anchors_of(s), m->opt.K, s->ids, s->n, s->prompt);
    return true;
}
