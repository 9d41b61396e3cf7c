// eval/quant/sensitivity.c - one matrix after the other in every type: rolled out, compared,
// counted.
#include "eval/quant/sensitivity.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/quant/divergence.h"
#include "eval/quant/imatrix.h"
#include "eval/quant/variant.h"
#include "infer/base/cli.h"
#include "infer/base/log.h"

enum { KL_EVERY = 4 }; // of the anchors: a KL is far less noisy than a count of tokens

typedef struct {
    const Assistant *a;
    const SensitivityOptions *opt;
    int64_t sequences;
    Head head;
    AcceptRule rule;
    Measurer *measurer;
    Walk *walk;
    Divergence *divergence;
    StepCount *base;    // (sequences): of the drafter itself at k
    Measured *counts;   // (ROUNDTRIP_TYPES, sequences)
    MeasuredPool *pool; // (ROUNDTRIP_TYPES)
    Variant variant[ROUNDTRIP_TYPES];
    int variants;
} Work;

static Head head_of(const Assistant *a, MixFormat format) {
    return format == MIX_GGUF ? HEAD_DENSE : assistant_deployed_head(&a->cfg);
}

static MeasureOptions measure_options(const Assistant *a, const SensitivityOptions *o) {
    const Head head = head_of(a, o->format);
    return (MeasureOptions){.K = o->k,
                            .head = {head == HEAD_DENSE, head == HEAD_CENTROID},
                            .max_anchors = o->max_anchors,
                            .pack_tokens = o->pack_tokens,
                            .sampler = o->sampler,
                            .target = o->target};
}

size_t sensitivity_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                         const SensitivityOptions *o) {
    const MeasureOptions m = measure_options(a, o);
    return measurer_bytes(a, tc, src, &m) +
           (ROUNDTRIP_TYPES - 1) * measurer_more_bytes(a, tc, src, &m) +
           walk_bytes(a, tc, src, o->max_anchors) + divergence_bytes(a, o->k, o->max_anchors) +
           ROUNDTRIP_TYPES *
               (variant_bytes(a) + (size_t)src->count * sizeof(Measured) + sizeof(MeasuredPool));
}

static void close_variants(Work *w) {
    for (int i = 0; i < w->variants; i++) variant_close(&w->variant[i]);
    w->variants = 0;
}

static void close_work(Work *w) {
    close_variants(w);
    divergence_close(w->divergence);
    walk_close(w->walk);
    measurer_close(w->measurer);
    free(w->base);
    free(w->counts);
    free(w->pool);
}

// Buffers to count n drafters in one reading.
static bool open_measurer(Work *w, const TargetConfig *tc, const SeqSource *src, int n, Err *err) {
    const MeasureOptions m = measure_options(w->a, w->opt);
    AcceptRule rules[RULE_COUNT];
    measure_rules(&m.sampler, rules);
    w->rule = rules[0];
    w->head = head_of(w->a, w->opt->format);
    w->sequences = src->count;
    w->counts = calloc((size_t)(n * src->count) + 1, sizeof *w->counts);
    w->pool = calloc((size_t)n, sizeof *w->pool);
    w->base = calloc((size_t)src->count + 1, sizeof *w->base);
    if (w->counts == NULL || w->pool == NULL || w->base == NULL)
        return err_set(err, ERR_FAILED, "no memory for %lld sequences", (long long)src->count);
    bool ok = (w->measurer = measurer_open(w->a, tc, src, &m, err)) != NULL;
    for (int i = 1; ok && i < n; i++) ok = measurer_add(w->measurer, w->a, err);
    return ok;
}

static StepCount counted(const Work *w, int i, int64_t seq) {
    return w->counts[i * w->sequences + seq].k[w->rule][w->head][w->opt->k];
}

// tau(k) of n drafters.
static bool count(Work *w, const Assistant *const *a, int n, double *tau, Err *err) {
    MeasureTask task[ROUNDTRIP_TYPES] = {0};
    for (int i = 0; i < n; i++)
        task[i] = (MeasureTask){a[i], w->counts + i * w->sequences, &w->pool[i]};
    if (!measurer_run_all(w->measurer, task, n, err)) return false;
    for (int i = 0; i < n; i++) tau[i] = acceptance_tau(&w->pool[i].k[w->rule][w->head][w->opt->k]);
    return true;
}

static bool count_base(Work *w, double *tau, Err *err) {
    if (!count(w, &w->a, 1, tau, err)) return false;
    for (int64_t i = 0; i < w->sequences; i++) w->base[i] = counted(w, 0, i);
    return true;
}

// Of tau's change: tokens are the same, so it is (tokens / rounds^2) times that of the rounds,
// whose changes differ by sequence. At least what one round makes: no change seen is not none.
static double error_of(const Work *w, int i) {
    double tokens = 0.0, rounds = 0.0, sum = 0.0, squares = 0.0;
    const double n = (double)w->sequences;
    for (int64_t s = 0; s < w->sequences; s++) {
        const StepCount now = counted(w, i, s);
        const double change = now.rounds - w->base[s].rounds;
        tokens += now.tokens;
        rounds += now.rounds;
        sum += change;
        squares += change * change;
    }
    const double variance = n > 1 ? n / (n - 1) * fmax(squares - sum * sum / n, 0.0) : 0.0;
    return tokens / (rounds * rounds) * fmax(sqrt(variance), 1.0);
}

static void put_reach(double *reach, const Work *w) {
    reach[0] = 1.0;
    for (int j = 1; j < w->opt->k; j++)
        reach[j] = acceptance_u_all(&w->pool[0].all[w->rule][w->head], j);
}

bool measure_reach(double *reach, const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                   const SensitivityOptions *opt, Err *err) {
    Work w = {.a = a, .opt = opt};
    double tau;
    const bool ok = open_measurer(&w, tc, src, 1, err) && count_base(&w, &tau, err);
    if (ok) put_reach(reach, &w);
    close_work(&w);
    return ok;
}

// A matrix that an artifact of the format quantises.
static bool is_module(const Assistant *a, const AssistantWeights *w, const AssistantParam *p,
                      MixFormat format) {
    if (!p->decay || p->tensor == &w->centroids) return false;
    return p->tensor != &w->table || format == MIX_GGUF || !a->cfg.ordered;
}

static const float *importance_of(const Work *w, const char *key, int64_t cols) {
    const SensitivityOptions *o = w->opt;
    char name[IMATRIX_NAME_MAX + 1];
    if (o->importance == NULL || o->format != MIX_GGUF || !imatrix_name(name, &w->a->cfg, key))
        return NULL;
    const ImatrixEntry *e = imatrix_find(o->importance, name);
    return e != NULL && e->n == cols ? e->iw : NULL;
}

static bool measure_module(Work *w, const Sensitivity *s, ModuleSensitivity *m, int param,
                           const AssistantParam *p, Err *err) {
    const Assistant *list[ROUNDTRIP_TYPES];
    double kl[ROUNDTRIP_TYPES * DRAFT_MAX], tau[ROUNDTRIP_TYPES];
    const float *importance = importance_of(w, p->name, p->tensor->cols);
    for (int i = 0; i < m->widths; i++) {
        if (!variant_open(&w->variant[i], w->a, param, &m->type[i], importance, err)) return false;
        w->variants++;
        list[i] = &w->variant[i].a;
    }
    if (!divergence_run(w->divergence, w->walk, w->a, list, m->widths, kl, err) ||
        !count(w, list, m->widths, tau, err))
        return false;
    for (int i = 0; i < m->widths; i++) {
        m->kl[i] = divergence_mean(kl + i * s->k, s->reach, s->k);
        m->lost[i] = s->tau - tau[i];
        m->se[i] = error_of(w, i);
    }
    close_variants(w);
    return true;
}

static void tell(const ModuleSensitivity *m) {
    char line[512];
    int at = snprintf(line, sizeof line, "%s:", m->module);
    for (int i = 0; i < m->widths && at < 400; i++) {
        char name[32];
        mix_type_name(name, &m->type[i]);
        at += snprintf(line + at, sizeof line - (size_t)at, " %s %.4f (KL %.2g)", name, m->lost[i],
                       m->kl[i]);
    }
    log_info("lost tokens per step, %s", line);
}

static bool measure_all(Work *w, Sensitivity *s, Err *err) {
    AssistantParam p[ASSISTANT_PARAMS_MAX];
    AssistantWeights weights = w->a->w;
    const int n = assistant_params(&w->a->cfg, &weights, p);
    for (int i = 0; i < n; i++) {
        if (!is_module(w->a, &weights, &p[i], s->format)) continue;
        ModuleSensitivity *m = &s->module[s->n];
        *m = (ModuleSensitivity){.rows = p[i].tensor->rows, .cols = p[i].tensor->cols};
        snprintf(m->module, sizeof m->module, "%.*s", (int)(strlen(p[i].name) - strlen(".weight")),
                 p[i].name);
        if (w->opt->only != NULL && fnmatch(w->opt->only, m->module, 0) != 0) continue;
        m->widths = roundtrip_types(s->format, m->cols, m->type);
        if (m->widths == 0) {
            log_info("%s: no type fits rows of %lld values; it stays as it is", m->module,
                     (long long)m->cols);
            continue;
        }
        if (stop_requested()) return err_set(err, ERR_STOPPED, "stopped");
        if (!measure_module(w, s, m, i, &p[i], err)) return false;
        tell(m);
        s->n++;
    }
    return true;
}

Sensitivity *sensitivity_measure(const Assistant *a, const TargetConfig *tc, const SeqSource *src,
                                 const SensitivityOptions *opt, Err *err) {
    Work w = {.a = a, .opt = opt};
    Sensitivity *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    CHECK(opt->k >= 1 && opt->k <= DRAFT_MAX);
    *s = (Sensitivity){.format = opt->format, .k = opt->k, .head = head_of(a, opt->format)};
    bool ok = open_measurer(&w, tc, src, ROUNDTRIP_TYPES, err) && count_base(&w, &s->tau, err);
    if (ok) put_reach(s->reach, &w);
    ok = ok && (w.walk = walk_open(a, tc, src, opt->k, opt->max_anchors, KL_EVERY, err)) != NULL &&
         (w.divergence = divergence_open(a, opt->k, opt->max_anchors, err)) != NULL &&
         measure_all(&w, s, err);
    close_work(&w);
    if (ok) return s;
    free(s);
    err_wrap(err, "sensitivity");
    return NULL;
}
