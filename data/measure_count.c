// data/measure_count.c - one sequence's rounds, by rule, head, draft length, p-min and part.
#include <stdio.h>

#include "data/measure_parts.h"
#include "infer/text/chat.h"

int measure_rules(const Sampler *s, AcceptRule rule[RULE_COUNT]) {
    int n = 0;
    rule[0] = RULE_GREEDY;
    if (s->temperature == 0.0) return 1;
    for (int r = RULE_REJECTION; r < RULE_COUNT; r++) rule[n++] = (AcceptRule)r;
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

// Drafts that a threshold lets through, by anchor; top (anchors, K): what it is compared with.
static void fill_offered(int8_t *offered, const double *top, int64_t anchors, int K, double p_min) {
    for (int64_t a = 0; a < anchors; a++) {
        int64_t i = 0;
        const int64_t inside = anchors - a < K ? anchors - a : K;
        while (i < inside && top[a * K + i] >= p_min) i++;
        offered[a] = (int8_t)(i < inside ? i : K);
    }
}

static void count_p_min(const Measurer *m, DraftOdds odds, const double *top,
                        Acceptance (*sum)[DRAFT_MAX + 1]) {
    odds.offered = m->offered;
    for (int p = 0; p < m->opt.p_mins; p++) {
        fill_offered(m->offered, top, odds.anchors, odds.K, m->opt.p_min[p]);
        for (int k = 0; k <= odds.K; k++) acceptance_expect(&sum[p][k], &odds, k, m->visit);
    }
}

static void count_rule(const Measurer *m, const Sample *s, const DraftOdds *o, AcceptRule rule,
                       bool parts, Head h, Measured *out, MeasuredPool *pool) {
    for (int k = 0; k <= m->opt.K; k++) {
        Acceptance sum = {0};
        acceptance_expect(&sum, o, k, m->visit);
        out->k[rule][h][k] = (StepCount){sum.rounds, sum.tokens};
        if (parts) count_parts(m, s, o, k, out->part[h][k]);
        if (pool != NULL) acceptance_merge(&pool->k[rule][h][k], &sum);
    }
    if (pool != NULL) acceptance_reach(&pool->all[rule][h], o);
}

static void count_head(const Measurer *m, const SimulateJob *job, const Sample *s, Head h,
                       Measured *out, MeasuredPool *pool) {
    const DraftScores *score = &job->score[h];
    AcceptRule rule[RULE_COUNT];
    const int rules = measure_rules(&m->opt.sampler, rule);
    for (int i = 0; i < rules; i++) {
        DraftOdds odds = {.keep = m->keep, .anchors = out->tokens, .K = m->opt.K};
        if (rule[i] == RULE_GREEDY) {
            acceptance_keep(m->keep, job->drafts[h], odds.anchors, odds.K, s->ids, s->n, s->prompt);
        } else {
            odds.keep = score->keep[rule[i]];
            odds.alpha = score->alpha[rule[i]];
        }
        count_rule(m, s, &odds, rule[i], i == 0, h, out, pool);
        const bool drawn = rule[i] == RULE_REJECTION || rule[i] == RULE_STRICT;
        if (pool != NULL)
            count_p_min(m, odds, drawn ? score->drawn : score->top, pool->p_min[rule[i]][h]);
    }
}

static void count_recall(const Measurer *m, const uint8_t *recall, int64_t anchors,
                         MeasuredPool *pool) {
    const int K = m->opt.K;
    const DraftOdds odds = {.keep = m->keep, .anchors = anchors, .K = K};
    for (int64_t a = 0; a < anchors; a++)
        for (int64_t i = 0; i < K && i < anchors - a; i++) {
            const uint8_t bits = recall[a * K + i];
            pool->anchors[i + 1] += 1;
            pool->recalled[i + 1] += (bits & RECALL_BEST) != 0;
            m->keep[a * K + i] = (bits & RECALL_TEXT) != 0;
        }
    for (int k = 0; k <= K; k++) acceptance_expect(&pool->ceiling[k], &odds, k, m->visit);
}

void measure_count(const Measurer *m, const SimulateJob *job, const Sample *s, Measured *out,
                   MeasuredPool *pool) {
    const int64_t anchors = measure_anchors(s);
    *out = (Measured){.tokens = anchors};
    snprintf(out->id, sizeof out->id, "%s", s->id);
    snprintf(out->category, sizeof out->category, "%s", s->category);
    snprintf(out->source, sizeof out->source, "%s", s->source);
    for (int64_t a = 0; a < anchors; a++) {
        out->part_tokens[kind_of(s, a)]++;
        out->part_tokens[context_of(s, a)]++;
    }
    for (int h = 0; h < HEADS; h++)
        if (job->drafts[h] != NULL) count_head(m, job, s, (Head)h, out, pool);
    const uint8_t *recall = job->score[HEAD_CENTROID].recall;
    if (pool != NULL && recall != NULL) count_recall(m, recall, anchors, pool);
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
