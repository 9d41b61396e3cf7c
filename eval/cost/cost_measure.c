// eval/cost/cost_measure.c - rounds of live decoding, timed part by part on the device at hand.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cost/cost.h"
#include "eval/count/stats.h"
#include "infer/base/log.h"
#include "infer/base/rng.h"

enum { REPEAT_MIN = 3, REPEAT_SURE = 5, REPEAT_MAX = 64 };

// Seconds of every repetition. A width is timed once per head and repetition.
typedef struct {
    double target[DRAFT_MAX + 2][2 * REPEAT_MAX];
    double drafts[2][DRAFT_MAX + 1][REPEAT_MAX];
    int targets[DRAFT_MAX + 2], drafted[2][DRAFT_MAX + 1];
} Times;

typedef struct {
    Target *t;
    const Assistant *a;
    Device *dev;
    const CostOptions *opt;
    KvCache *kv;
    Drafts *drafts;
    void *block;
    Tensor state, hidden, best, id; // of row context - 1; of the rows of a step
    int32_t *text;                  // (context)
    int32_t rows[DRAFT_MAX + 1];    // of a step: the bonus, then drafts
    float best_host[2 * (DRAFT_MAX + 1)];
    int32_t id_host[2 * (DRAFT_MAX + 1)];
    Times *times;
} Timer;

static int heads(const Assistant *a) {
    return a->cfg.ordered ? 2 : 1;
}

static DraftOptions draft_options(const Assistant *a, const CostOptions *opt, Head head, int k) {
    return (DraftOptions){
        .assistant = a, .k = k, .head = head, .feature_dtype = opt->feature_dtype};
}

static int64_t capacity_of(const CostOptions *opt) {
    return opt->context + opt->K + 1;
}

static void lay_out(Timer *m, const TextConfig *c, Arena *arena) {
    const int64_t rows = m->opt->K + 1;
    m->state = tensor_take(arena, DT_F32, 1, c->hidden);
    m->hidden = tensor_take(arena, DT_F32, rows, c->hidden);
    m->best = tensor_take(arena, DT_F32, rows, 2);
    m->id = tensor_take(arena, DT_I32, rows, 2);
}

static size_t own_bytes(Timer *m, const TextConfig *c) {
    Arena plan;
    arena_open(&plan, NULL, 0);
    lay_out(m, c, &plan);
    return plan.peak;
}

size_t cost_bytes(Target *t, const Assistant *a, const CostOptions *opt) {
    const TargetConfig *c = target_config(t);
    const DraftOptions d = draft_options(a, opt, HEAD_DENSE, opt->K);
    Timer m = {.opt = opt};
    return own_bytes(&m, &c->text) +
           (size_t)kv_bytes(&c->text, 1, capacity_of(opt), opt->chunk, false, opt->kv_dtype) +
           drafts_bytes(c, &d, false, 1, capacity_of(opt), opt->kv_dtype);
}

static void timer_close(Timer *m) {
    drafts_close(m->drafts);
    kv_close(m->kv);
    if (m->block != NULL) dev_free(m->dev, m->block);
    free(m->text);
    free(m->times);
}

static bool timer_open(Timer *m, Err *err) {
    const CostOptions *opt = m->opt;
    const TextConfig *c = &target_config(m->t)->text;
    const DraftOptions d = draft_options(m->a, opt, HEAD_DENSE, opt->K);
    const size_t bytes = own_bytes(m, c);
    Arena arena;
    m->text = malloc((size_t)opt->context * sizeof *m->text);
    m->times = calloc(1, sizeof *m->times);
    if (m->text == NULL || m->times == NULL)
        return err_set(err, ERR_FAILED, "no memory for %lld rows", (long long)opt->context);
    for (int64_t i = 0; i < opt->context; i++)
        m->text[i] = opt->ids != NULL
                         ? opt->ids[i]
                         : (int32_t)rng_below(3, RNG_INIT, 1, (uint64_t)i, (uint64_t)c->vocab);
    if ((m->block = dev_alloc(m->dev, bytes, err)) == NULL) return false;
    arena_open(&arena, m->block, bytes);
    lay_out(m, c, &arena);
    m->kv = kv_open(m->dev, c, 1, capacity_of(opt), opt->chunk, false, opt->kv_dtype, err);
    if (m->kv == NULL) return false;
    m->drafts = drafts_open(m->t, m->kv, &d, false, 1, capacity_of(opt), err);
    return m->drafts != NULL;
}

static bool fetch_best(Timer *m, int64_t rows, Err *err) {
    dev_download(m->dev, m->id_host, tensor_rows(m->id, 0, rows));
    dev_download(m->dev, m->best_host, tensor_rows(m->best, 0, rows));
    return dev_sync(m->dev, err);
}

// The cache is filled; the bonus is the target's own choice behind the text.
static bool prefill(Timer *m, Err *err) {
    const int64_t n = m->opt->context;
    for (int64_t at = 0; at < n; at += m->opt->chunk) {
        const int64_t count = n - at < m->opt->chunk ? n - at : m->opt->chunk,
                      shown = at + count == n ? 1 : 0;
        const TargetPiece piece = {.count = count, .skip = count - shown};
        target_step(m->t, m->kv, &piece, 1, m->text + at, tensor_rows(m->state, 0, shown),
                    tensor_rows(m->best, 0, shown), tensor_rows(m->id, 0, shown));
        drafts_keep(m->drafts, 0); // while the sliding rows are there
    }
    if (!fetch_best(m, 1, err)) return false;
    m->rows[0] = m->id_host[0];
    return true;
}

// One target call of `width` rows, its choices on the host, the rows taken back.
static bool time_target(Timer *m, int width, Err *err) {
    const TargetPiece piece = {.count = width};
    const Tensor hidden = tensor_rows(m->hidden, 0, width);
    const double start = now_s();
    target_step(m->t, m->kv, &piece, 1, m->rows, hidden, tensor_rows(m->best, 0, width),
                tensor_rows(m->id, 0, width));
    if (!fetch_best(m, width, err)) return false;
    kv_rewind(m->kv, 0, m->opt->context);
    m->times->target[width][m->times->targets[width]++] = now_s() - start;
    for (int i = 0; i < width; i++)
        if (!isfinite(m->best_host[2 * i]))
            return err_set(err, ERR_FAILED, "logits of the target are not finite at row %d", i);
    return true;
}

static bool drafter_steps(Timer *m, Head head, int k, Err *err) {
    const DraftOptions d = draft_options(m->a, m->opt, head, k);
    const Sampler greedy = {.top_p = 1};
    DraftRound round = {.T = m->opt->context};
    const DraftLane lane = {.bonus = m->rows[0], .round = &round};
    const double start = now_s();
    if (!drafts_make(m->drafts, &d, &greedy, &lane, 1, m->state, err)) return false;
    m->times->drafts[head][k][m->times->drafted[head][k]++] = now_s() - start;
    CHECK(round.drafted == k);
    memcpy(m->rows + 1, round.draft, (size_t)k * sizeof *m->rows);
    return true;
}

// Every time once; a plain step, which has no drafter before it, as often as the others.
static bool turn(Timer *m, Err *err) {
    for (int h = 0; h < heads(m->a); h++)
        if (!time_target(m, 1, err)) return false;
    for (int k = 1; k <= m->opt->K; k++)
        for (int h = 0; h < heads(m->a); h++)
            if (!drafter_steps(m, (Head)h, k, err) || !time_target(m, k + 1, err)) return false;
    return true;
}

static int ascending(const void *pa, const void *pb) {
    const double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

static double milliseconds(double s) { // to 0.1 us: below that there is nothing but noise
    return rint(s * 1e7) * 1e-4;
}

static void summarise(double *x, int n, double *median, double *spread) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    *median = milliseconds(sorted_quantile(x, n, 0.5));
    *spread = milliseconds(sorted_quantile(x, n, 0.75) - sorted_quantile(x, n, 0.25));
}

static void summarise_drafts(CostTable *out, Times *s, int h, int K) {
    double *ms = out->drafts_ms[h];
    for (int k = 1; k <= K; k++)
        summarise(s->drafts[h][k], s->drafted[h][k], &ms[k], &out->drafts_spread_ms[h][k]);
    double step = K > 1 ? (ms[K] - ms[1]) / (K - 1) : ms[1];
    if (step <= 0.0) step = ms[K] / K; // K drafts no dearer than one: times are noise
    out->drafter_ms[h] = rint(step * 1e4) * 1e-4;
    out->drafter_round_ms[h] = rint((ms[1] - step) * 1e4) * 1e-4;
}

// "CPU" and its threads, or the GPU where there is one.
static void name_device(void *ctx, const char *name, const char *value) {
    CostTable *c = ctx;
    const bool gpu = strcmp(name, "GPU") == 0; // "GPU memory" is another line
    if (gpu || (c->device[0] == '\0' && strcmp(name, "CPU") == 0))
        snprintf(c->device, sizeof c->device, "%.150s", value);
}

static void describe(CostTable *out, const Timer *m, int64_t repetitions) {
    char name[sizeof out->device];
    *out = (CostTable){.context = m->opt->context,
                       .repetitions = repetitions,
                       .widths = m->opt->K + 1,
                       .lengths = m->opt->K};
    dev_describe(m->dev, name_device, out);
    strcpy(name, out->device);
    if (strcmp(m->dev->kind, "cpu") == 0)
        snprintf(out->device, sizeof out->device, "%.120s, %d thread%s", name, m->dev->threads,
                 m->dev->threads == 1 ? "" : "s");
    strcpy(out->source, "measured");
    const DType dtype = target_embedding(m->t).dtype;
    if (m->a->dtype == dtype)
        snprintf(out->dtype, sizeof out->dtype, "%s", dtype_name(dtype));
    else
        snprintf(out->dtype, sizeof out->dtype, "%s, %s", dtype_name(dtype),
                 dtype_name(m->a->dtype));
}

static bool measure(Timer *m, CostTable *out, Err *err) {
    const CostOptions *opt = m->opt;
    const int warm = strcmp(m->dev->kind, "cpu") == 0 ? 1 : 4; // CUDA graphs are made in the third
    if (!prefill(m, err)) return false;
    for (int i = 0; i < warm; i++)
        if (!turn(m, err)) return false;
    *m->times = (Times){0};
    const double start = now_s();
    int64_t n = 0;
    while (n < opt->repetitions &&
           (n < REPEAT_SURE || opt->seconds <= 0.0 || now_s() - start < opt->seconds)) {
        if (!turn(m, err)) return false;
        n++;
    }
    describe(out, m, n);
    for (int w = 1; w <= opt->K + 1; w++)
        summarise(m->times->target[w], m->times->targets[w], &out->target_ms[w],
                  &out->target_spread_ms[w]);
    for (int h = 0; h < heads(m->a); h++) summarise_drafts(out, m->times, h, opt->K);
    return true;
}

bool cost_measure(CostTable *out, Target *t, const Assistant *a, const CostOptions *opt, Err *err) {
    CHECK(opt->K >= 1 && opt->K <= DRAFT_MAX && opt->context >= 1 && opt->chunk > opt->K);
    CHECK(opt->repetitions >= REPEAT_MIN && opt->repetitions <= REPEAT_MAX);
    Timer m = {.t = t, .a = a, .dev = target_device(t), .opt = opt};
    const bool ok = timer_open(&m, err) && measure(&m, out, err);
    timer_close(&m);
    return ok || err_wrap(err, "timing a round of decoding");
}
