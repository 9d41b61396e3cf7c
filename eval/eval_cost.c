// eval/eval_cost.c - what rounds cost, and the draft length that this recommends to each drafter.
#include <stdlib.h>
#include <string.h>

#include "eval/cost/recommend.h"
#include "eval/eval_parts.h"
#include "infer/base/log.h"

enum { REPETITIONS = 15, SECONDS = 20 };

static bool named(const Eval *e, const char *what) {
    return strcmp(e->s->eval.cost, what) == 0;
}

bool eval_cost_read(const Settings *s, CostTable *table, Err *err) {
    *table = (CostTable){0};
    if (strcmp(s->eval.cost, "measure") == 0 || strcmp(s->eval.cost, "none") == 0) return true;
    return cost_load(table, s->eval.cost, err);
}

// As audited: the trained drafter, or the stock one. All have its shape.
static const Assistant *timed(const Eval *e) {
    return e->drafter[e->n > 1].assistant;
}

static CostOptions options(const Eval *e, const int32_t *ids) {
    return (CostOptions){
        .K = e->K,
        .context = cost_context(e->s->eval.cost_context, e->open.config.text.max_positions, e->K),
        .chunk = e->rows,
        .repetitions = REPETITIONS,
        .seconds = SECONDS,
        .kv_dtype = e->open.dtype,
        .feature_dtype = DT_BF16,
        .ids = ids};
}

size_t eval_cost_bytes(const Eval *e) {
    const CostOptions opt = options(e, NULL);
    return named(e, "measure") ? cost_bytes(e->open.target, timed(e), &opt) : 0;
}

// Captured text, one sequence behind the other, over and over until it is enough.
static int32_t *context_ids(Eval *e, int64_t n, Err *err) {
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    int64_t have = 0;
    CHECK_MEMORY(ids);
    for (int64_t i = 0; have < n; i = (i + 1) % e->source.count) {
        CapturedSeq c = {0};
        if (!shards_read(e->shards, i, &c, err)) {
            captured_free(&c);
            free(ids);
            return NULL;
        }
        const int64_t more = c.sample.n < n - have ? c.sample.n : n - have;
        memcpy(ids + have, c.sample.ids, (size_t)more * sizeof *ids);
        have += more;
        captured_free(&c);
    }
    return ids;
}

static bool measure_here(Eval *e, CostTable *table, Err *err) {
    CostOptions opt = options(e, NULL);
    int32_t *ids = context_ids(e, opt.context, err);
    if (ids == NULL) return false;
    opt.ids = ids;
    const double start = now_s();
    const bool ok = cost_measure(table, e->open.target, timed(e), &opt, err);
    free(ids);
    if (ok)
        log_info("eval: a round of 0 .. %d drafts timed %lld times behind %lld tokens, %.1f s",
                 e->K, (long long)table->repetitions, (long long)opt.context, now_s() - start);
    return ok;
}

RoundMix round_of(const Acceptance *a) {
    RoundMix m = {0};
    if (a->rounds <= 0.0) return m;
    m.tokens = acceptance_tau(a);
    m.steps = a->steps / a->rounds;
    for (int i = 0; i <= DRAFT_MAX; i++) m.verified[i] = a->verified[i] / a->rounds;
    return m;
}

static json_t *recommendation_of(const CostTable *table, const Sweep *s, AcceptRule rule, Head h) {
    Recommendation r;
    RoundMix constant[DRAFT_MAX], *mix = calloc((size_t)P_MIN_MAX * DRAFT_MAX, sizeof *mix);
    CHECK_MEMORY(mix);
    for (int k = 1; k <= s->K; k++) {
        constant[k - 1] = round_of(&s->pool->k[rule][h][k]);
        for (int p = 0; p < s->p_mins; p++)
            mix[p * s->K + k - 1] = round_of(&s->pool->p_min[rule][h][p][k]);
    }
    recommend(&r, table, h, constant, s->K);
    recommend_p_min(&r, table, s->p_min, s->p_mins, mix);
    free(mix);
    return recommendation_json(&r);
}

static json_t *recommendations(const CostTable *table, const Sweep *s) {
    json_t *o = json_object();
    for (int r = 0; r < s->rules; r++)
        for (int h = 1; h >= 0; h--) {
            char key[32];
            if (sweep_key(key, s, s->rule[r], (Head)h) != NULL)
                json_object_set_new(o, key, recommendation_of(table, s, s->rule[r], (Head)h));
        }
    return o;
}

bool eval_cost(Eval *e, json_t *report, Err *err) {
    CostTable table;
    if (named(e, "none")) return true;
    if (!eval_cost_read(e->s, &table, err) ||
        (named(e, "measure") && !measure_here(e, &table, err)))
        return false;
    json_t *all = json_object();
    for (int d = 0; d < e->n; d++)
        json_object_set_new(all, e->sweep[d].name, recommendations(&table, &e->sweep[d]));
    json_object_set_new(report, "cost", cost_json(&table));
    json_object_set_new(report, "recommendation", all);
    return true;
}
