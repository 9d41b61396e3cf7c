// data/measure.c - captured sequences are packed, rolled out together and counted one by one.
#include "data/measure.h"

#include <stdlib.h>

#include "data/measure_parts.h"

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

// A drafter without centroids is measured with its dense head alone.
static SimulatorOptions simulator_options(const Assistant *a, const SeqSource *src,
                                          const MeasureOptions *opt) {
    const bool centroid = opt->head[HEAD_CENTROID] && a->cfg.ordered;
    return (SimulatorOptions){.max_anchors = anchors_at_once(src, opt),
                              .K = opt->K,
                              .head = {opt->head[HEAD_DENSE], centroid},
                              .recall = opt->recall && centroid,
                              .sampler = opt->sampler,
                              .target = opt->target,
                              .reached = opt->reached};
}

// The scores that the counts need. Of the pointers those that are wanted are made not NULL, by
// `make` of `ctx`; false: one could not be made.
typedef bool MakeScores(void *ctx, double **array);
static bool each_score(const MeasureOptions *opt, DraftScores *s, MakeScores *make, void *ctx) {
    AcceptRule rule[RULE_COUNT];
    const int rules = measure_rules(&opt->sampler, rule);
    const bool sampled = rule[0] != RULE_GREEDY;
    if (opt->p_mins > 0 && !make(ctx, &s->top)) return false;
    if (opt->p_mins > 0 && sampled && !make(ctx, &s->drawn)) return false;
    for (int i = 0; sampled && i < rules; i++)
        if (!make(ctx, &s->keep[rule[i]]) || !make(ctx, &s->alpha[rule[i]])) return false;
    return true;
}

static bool count_array(void *ctx, double **array) {
    (void)array;
    ++*(int64_t *)ctx;
    return true;
}

static bool make_array(void *ctx, double **array) {
    return (*array = malloc(*(size_t *)ctx * sizeof **array)) != NULL;
}

// Host memory: drafts, scores and counts of the pack, one sequence as it is read.
static int64_t host_bytes(const SeqSource *src, const MeasureOptions *opt) {
    const int64_t room = pack_room(src, opt);
    int64_t bytes = room * (1 + 8 + 8 * (int64_t)opt->K), longest = 0; // offered, visit, keep
    for (int h = 0; h < HEADS; h++) {
        DraftScores none = {0};
        int64_t arrays = 0;
        if (!opt->head[h]) continue;
        each_score(opt, &none, count_array, &arrays);
        bytes += room * opt->K * (4 + 8 * arrays + (opt->recall && h == HEAD_CENTROID));
    }
    for (int64_t i = 0; i < src->count; i++)
        if (src->length(src->ctx, i) > longest) longest = src->length(src->ctx, i);
    return bytes + longest * src->bytes_per_token;
}

size_t measurer_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                      const MeasureOptions *opt) {
    const SimulatorOptions so = simulator_options(a, src, opt);
    return simulator_scored_bytes(a, tc, &so) + features_bytes(tc, pack_room(src, opt), DT_BF16) +
           (size_t)host_bytes(src, opt);
}

size_t measurer_more_bytes(const Assistant *a, const TargetConfig *c, const SeqSource *src,
                           const MeasureOptions *opt) {
    const SimulatorOptions so = simulator_options(a, src, opt);
    return simulator_scored_bytes(a, c, &so);
}

static bool take_host(Measurer *m, int64_t room) {
    size_t drafts = (size_t)(room * m->opt.K);
    m->visit = malloc((size_t)room * sizeof *m->visit);
    m->offered = malloc((size_t)room * sizeof *m->offered);
    m->keep = malloc(drafts * sizeof *m->keep);
    if (m->visit == NULL || m->offered == NULL || m->keep == NULL) return false;
    for (int h = 0; h < HEADS; h++) {
        if (!m->opt.head[h]) continue;
        m->drafts[h] = malloc(drafts * sizeof *m->drafts[h]);
        if (m->drafts[h] == NULL || !each_score(&m->opt, &m->score[h], make_array, &drafts))
            return false;
    }
    if (!m->opt.recall || !m->opt.head[HEAD_CENTROID]) return true;
    return (m->score[HEAD_CENTROID].recall = malloc(drafts)) != NULL;
}

bool measurer_add(Measurer *m, const Assistant *a, Err *err) {
    const SimulatorOptions so = simulator_options(a, &m->src, &m->opt);
    CHECK(m->sims < MEASURE_DRAFTERS_MAX && (so.head[HEAD_DENSE] || so.head[HEAD_CENTROID]));
    m->sim[m->sims] = simulator_open_scored(a, &so, err);
    return m->sim[m->sims] != NULL && ++m->sims;
}

Measurer *measurer_open(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                        const MeasureOptions *opt, Err *err) {
    CHECK(opt->K >= 1 && opt->K <= DRAFT_MAX &&
          (opt->head[HEAD_DENSE] || opt->head[HEAD_CENTROID]));
    CHECK(opt->p_mins >= 0 && opt->p_mins <= P_MIN_MAX);
    CHECK(!opt->reached || (opt->p_mins == 0 && !opt->recall));
    const int64_t room = pack_room(src, opt);
    const size_t bytes = features_bytes(tc, room, DT_BF16);
    Arena arena;
    Measurer *m = calloc(1, sizeof *m);
    if (m == NULL) goto memory;
    m->dev = a->dev;
    m->opt = *opt;
    m->src = *src;
    if (!take_host(m, room)) goto memory;
    if (!measurer_add(m, a, err)) goto fail;
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
    for (int i = 0; i < m->sims; i++) simulator_close(m->sim[i]);
    if (m->block != NULL) dev_free(m->dev, m->block);
    for (int h = 0; h < HEADS; h++) {
        DraftScores *s = &m->score[h];
        free(m->drafts[h]);
        free(s->top);
        free(s->drawn);
        free(s->recall);
        for (int r = 0; r < RULE_COUNT; r++) {
            free(s->keep[r]);
            free(s->alpha[r]);
        }
    }
    free(m->offered);
    free(m->visit);
    free(m->keep);
    free(m);
}

static bool load(Measurer *m, const CapturedSeq *c, Err *err) {
    const Sample *s = &c->sample;
    if (s->prompt < 1 || s->prompt > s->n || s->n > m->pack.room - m->pack.rows)
        return err_set(err, ERR_INPUT, "sequence %s: %lld tokens, prompt %lld, room for %lld",
                       s->id, (long long)s->n, (long long)s->prompt,
                       (long long)(m->pack.room - m->pack.rows));
    features_begin(&m->pack);
    features_load(&m->pack, m->dev, c->hidden, c->bare, (const void *const *)c->k,
                  (const void *const *)c->v, s->n);
    return true;
}

// The jobs of the group for a drafter that has no centroids.
static const SimulateJob *dense_jobs(Measurer *m) {
    for (int i = 0; i < m->n; i++) {
        m->dense[i] = m->job[i];
        m->dense[i].drafts[HEAD_CENTROID] = NULL;
        m->dense[i].score[HEAD_CENTROID] = (DraftScores){0};
    }
    return m->dense;
}

// Rolls the packed group out with every drafter and counts its sequences.
static bool run_group(Measurer *m, const MeasureTask *task, int n, Err *err) {
    for (int t = 0; t < n && m->n > 0; t++) {
        const SimulateJob *job = task[t].assistant->cfg.ordered ? m->job : dense_jobs(m);
        if (!simulator_run(m->sim[t], task[t].assistant, &m->pack, job, m->n, err)) return false;
        for (int i = 0; i < m->n; i++)
            measure_count(m, &job[i], &m->seq[i].sample, &task[t].out[m->index[i]], task[t].pool);
    }
    drop_group(m);
    return true;
}

static bool fits(const Measurer *m, int64_t tokens) {
    return m->n < PACK_SEQS_MAX && m->pack.rows + tokens <= m->pack.room;
}

// The results of a job go behind those of the pack's other jobs.
static void point_job(const Measurer *m, SimulateJob *job, int h) {
    const int64_t at = m->anchors * m->opt.K;
    const DraftScores *from = &m->score[h];
    DraftScores *to = &job->score[h];
    job->drafts[h] = m->drafts[h] + at;
    if (from->top != NULL) to->top = from->top + at;
    if (from->drawn != NULL) to->drawn = from->drawn + at;
    if (from->recall != NULL) to->recall = from->recall + at;
    for (int r = 0; r < RULE_COUNT; r++) {
        if (from->keep[r] != NULL) to->keep[r] = from->keep[r] + at;
        if (from->alpha[r] != NULL) to->alpha[r] = from->alpha[r] + at;
    }
}

// Sequence i into the pack.
static bool take_sequence(Measurer *m, int64_t i, Err *err) {
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
        if (m->opt.head[h]) point_job(m, job, h);
    m->anchors += measure_anchors(&c->sample);
    return true;
}

bool measurer_run_all(Measurer *m, const MeasureTask *task, int n, Err *err) {
    int64_t before[MEASURE_DRAFTERS_MAX];
    CHECK(n >= 1 && n <= m->sims);
    drop_group(m);
    for (int t = 0; t < n; t++) {
        CHECK(!m->opt.reached || task[t].pool == NULL);
        before[t] = simulator_impossible(m->sim[t]);
        if (task[t].pool != NULL) *task[t].pool = (MeasuredPool){0};
    }
    for (int64_t i = 0; i < m->src.count; i++) {
        if (!fits(m, m->src.length(m->src.ctx, i)) && !run_group(m, task, n, err)) return false;
        if (!take_sequence(m, i, err)) return false;
    }
    if (!run_group(m, task, n, err)) return false;
    for (int t = 0; t < n; t++)
        if (task[t].pool != NULL)
            task[t].pool->impossible = simulator_impossible(m->sim[t]) - before[t];
    return true;
}

bool measurer_run(Measurer *m, const Assistant *a, Measured *out, MeasuredPool *pool, Err *err) {
    const MeasureTask one = {.assistant = a, .out = out, .pool = pool};
    return measurer_run_all(m, &one, 1, err);
}

bool measurer_lengths(Measurer *m, const Assistant *a, const CapturedSeq *c, Head head, int32_t *L,
                      int32_t *drafts, float *margin, Err *err) {
    const Sample *s = &c->sample;
    CHECK(!m->opt.reached);
    drop_group(m);
    if (!load(m, c, err)) return false;
    if (!simulator_drafts(m->sim[0], a, &m->pack, 0, s->ids, s->n, s->prompt, head, drafts, margin,
                          err))
        return false;
    acceptance_lengths(L, drafts, measure_anchors(s), m->opt.K, s->ids, s->n, s->prompt);
    return true;
}
