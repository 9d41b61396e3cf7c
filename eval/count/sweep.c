// eval/count/sweep.c - captured sequences -> counts per prompt -> intervals.
#include "eval/count/sweep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model/weight_source.h"

enum { SWEEP_ANCHORS = 2048, SWEEP_TOKENS = 16384 };

void sweep_free(Sweep *s) {
    free(s->prompt);
    free(s->pool);
    *s = (Sweep){0};
}

static int by_id(const void *pa, const void *pb) {
    return strcmp(((const Measured *)pa)->id, ((const Measured *)pb)->id);
}

// Samples of one prompt become one entry: the prompt is what the bootstrap draws.
static void merge_samples(Sweep *s) {
    int64_t kept = 0;
    qsort(s->prompt, (size_t)s->n, sizeof *s->prompt, by_id);
    for (int64_t i = 0; i < s->n; i++) {
        Measured *last = kept > 0 ? &s->prompt[kept - 1] : NULL;
        const Measured *m = &s->prompt[i];
        if (last == NULL || strcmp(last->id, m->id) != 0) {
            s->prompt[kept++] = *m;
            continue;
        }
        measured_add(last, m);
    }
    s->n = kept;
}

static MeasureOptions options(const bool head[2], const SweepOptions *o) {
    MeasureOptions m = {.K = o->K,
                        .head = {head[0], head[1]},
                        .max_anchors = SWEEP_ANCHORS,
                        .pack_tokens = SWEEP_TOKENS,
                        .sampler = o->sampler,
                        .target = o->target,
                        .p_mins = o->p_mins,
                        .recall = head[HEAD_CENTROID]};
    memcpy(m.p_min, o->p_min, sizeof m.p_min);
    return m;
}

size_t sweep_bytes(const SweepDrafter *d, int n, const TargetConfig *tc, const SeqSource *src,
                   const SweepOptions *o) {
    bool head[2] = {[HEAD_DENSE] = true};
    for (int i = 0; i < n; i++) head[assistant_deployed_head(&d[i].assistant->cfg)] = true;
    const MeasureOptions opt = options(head, o);
    size_t bytes = measurer_bytes(d[0].assistant, tc, src, &opt);
    for (int i = 1; i < n; i++) bytes += measurer_more_bytes(d[i].assistant, tc, src, &opt);
    return bytes + (size_t)n * ((size_t)src->count * sizeof(Measured) + sizeof(MeasuredPool));
}

static bool sweep_begin(Sweep *out, const SweepDrafter *d, const SeqSource *src,
                        const SweepOptions *o, Err *err) {
    *out = (Sweep){.deployed = assistant_deployed_head(&d->assistant->cfg),
                   .K = o->K,
                   .p_mins = o->p_mins,
                   .n = src->count,
                   .sequences = src->count,
                   .has = {[HEAD_DENSE] = true}};
    out->rules = measure_rules(&o->sampler, out->rule);
    memcpy(out->p_min, o->p_min, sizeof out->p_min);
    snprintf(out->name, sizeof out->name, "%s", d->name);
    snprintf(out->path, sizeof out->path, "%s", d->path);
    snprintf(out->dtype, sizeof out->dtype, "%s", dtype_name(d->assistant->dtype));
    out->has[out->deployed] = true;
    char file[PATH_ROOM];
    weight_source_file(file, d->path);
    if (file_exists(file) && !sha256_file(&out->sha, file, err)) return false;
    out->pool = malloc(sizeof *out->pool);
    out->prompt = calloc((size_t)src->count + 1, sizeof *out->prompt);
    return (out->pool != NULL && out->prompt != NULL) ||
           err_set(err, ERR_FAILED, "no memory for %lld sequences", (long long)src->count);
}

bool sweep_run(Sweep *out, const SweepDrafter *d, int n, const TargetConfig *tc,
               const SeqSource *src, const SweepOptions *o, Err *err) {
    MeasureTask task[MEASURE_DRAFTERS_MAX];
    Measurer *m = NULL;
    bool ok = true, head[2] = {0};
    CHECK(n >= 1 && n <= MEASURE_DRAFTERS_MAX);
    memset(out, 0, (size_t)n * sizeof *out);
    for (int i = 0; ok && i < n; i++) {
        ok = sweep_begin(&out[i], &d[i], src, o, err);
        task[i] = (MeasureTask){d[i].assistant, out[i].prompt, out[i].pool};
        for (int h = 0; h < 2; h++) head[h] |= out[i].has[h];
    }
    if (ok) {
        const MeasureOptions opt = options(head, o);
        ok = (m = measurer_open(d[0].assistant, tc, src, &opt, err)) != NULL;
    }
    for (int i = 1; ok && i < n; i++) ok = measurer_add(m, d[i].assistant, err);
    ok = ok && measurer_run_all(m, task, n, err);
    measurer_close(m);
    for (int i = 0; i < n; i++)
        if (ok)
            merge_samples(&out[i]);
        else
            sweep_free(&out[i]);
    return ok || err_wrap(err, "measuring drafters");
}

const char *sweep_key(char out[32], const Sweep *s, AcceptRule rule, Head h) {
    if (!s->has[h]) return NULL;
    snprintf(out, 32, "%s%s", rule_name(rule), h == s->deployed ? "" : "_dense");
    return out;
}

static bool same_prompts(const Sweep *a, const Sweep *b, Err *err) {
    CHECK(a->K == b->K && a->rules == b->rules);
    if (a->n != b->n)
        return err_set(err, ERR_INPUT, "%s was measured on %lld prompts, %s on %lld", a->name,
                       (long long)a->n, b->name, (long long)b->n);
    for (int64_t i = 0; i < a->n; i++)
        if (strcmp(a->prompt[i].id, b->prompt[i].id) != 0 ||
            a->prompt[i].tokens != b->prompt[i].tokens)
            return err_set(err, ERR_INPUT,
                           "prompt %lld: %s has %s (%lld tokens), %s has %s (%lld tokens)",
                           (long long)i, a->name, a->prompt[i].id, (long long)a->prompt[i].tokens,
                           b->name, b->prompt[i].id, (long long)b->prompt[i].tokens);
    return true;
}

bool slice_has(const SweepSlice *s, const Measured *m) {
    if (s->category != NULL && strcmp(s->category, m->category) != 0) return false;
    if (s->source != NULL && strcmp(s->source, m->source) != 0) return false;
    return !s->by_part || m->part_tokens[s->part] > 0;
}

StepCount slice_count(const SweepSlice *s, const Measured *m, AcceptRule rule, Head h, int k) {
    if (!slice_has(s, m)) return (StepCount){0};
    return s->by_part ? m->part[h][k][s->part] : m->k[rule][h][k];
}

struct SweepIntervals {
    int n, rules, K;
    Head deployed[MEASURE_DRAFTERS_MAX];
    Bootstrap *bootstrap;
};

void sweep_intervals_free(SweepIntervals *s) {
    if (s == NULL) return;
    bootstrap_free(s->bootstrap);
    free(s);
}

// Series of (sweep d, rule r, head h, draft length k).
static int64_t series_of(const SweepIntervals *s, int d, int r, int h, int k) {
    CHECK(d < s->n && r < s->rules && k >= 1 && k <= s->K);
    return (((int64_t)d * s->rules + r) * 2 + h) * s->K + k - 1;
}

// Column `at` of all series: one prompt.
static void fill_prompt(const SweepIntervals *s, const Sweep *sweep, const SweepSlice *slice,
                        int64_t i, int64_t prompts, int64_t at, double *tokens, double *rounds) {
    for (int d = 0; d < s->n; d++)
        for (int r = 0; r < s->rules; r++)
            for (int h = 0; h < 2; h++)
                for (int k = 1; k <= s->K; k++) {
                    const StepCount c =
                        slice_count(slice, &sweep[d].prompt[i], sweep[d].rule[r], (Head)h, k);
                    const int64_t cell = series_of(s, d, r, h, k) * prompts + at;
                    tokens[cell] = c.tokens;
                    rounds[cell] = c.rounds;
                }
}

static bool resample(SweepIntervals *s, const Sweep *sweep, const SweepSlice *slice,
                     const Resampling *how, Err *err) {
    const int64_t series = (int64_t)s->n * s->rules * 2 * s->K;
    int64_t prompts = 0, at = 0;
    for (int64_t i = 0; i < sweep[0].n; i++) prompts += slice_has(slice, &sweep[0].prompt[i]);
    double *tokens = calloc((size_t)(series * prompts) + 1, sizeof *tokens);
    double *rounds = calloc((size_t)(series * prompts) + 1, sizeof *rounds);
    if (tokens == NULL || rounds == NULL) {
        err_set(err, ERR_FAILED, "no memory for the bootstrap over %lld prompts",
                (long long)prompts);
    } else {
        for (int64_t i = 0; i < sweep[0].n; i++)
            if (slice_has(slice, &sweep[0].prompt[i]))
                fill_prompt(s, sweep, slice, i, prompts, at++, tokens, rounds);
        const BootstrapInput in = {.prompts = prompts,
                                   .series = series,
                                   .tokens = tokens,
                                   .rounds = rounds,
                                   .resamples = how->resamples,
                                   .confidence = how->confidence,
                                   .seed = how->seed};
        s->bootstrap = bootstrap_run(&in, err);
    }
    free(tokens);
    free(rounds);
    return s->bootstrap != NULL;
}

SweepIntervals *sweep_intervals(const Sweep *sweep, int n, int rules, const SweepSlice *slice,
                                const Resampling *how, Err *err) {
    CHECK(n >= 1 && rules >= 1 && rules <= sweep[0].rules && (rules == 1 || !slice->by_part));
    for (int d = 1; d < n; d++)
        if (!same_prompts(&sweep[0], &sweep[d], err)) return NULL;
    SweepIntervals *s = calloc(1, sizeof *s);
    CHECK_MEMORY(s);
    *s = (SweepIntervals){.n = n, .rules = rules, .K = sweep[0].K};
    for (int d = 0; d < n; d++) s->deployed[d] = sweep[d].deployed;
    if (resample(s, sweep, slice, how, err)) return s;
    sweep_intervals_free(s);
    return NULL;
}

Interval sweep_tau(const SweepIntervals *s, int d, int r, Head h, int k) {
    return bootstrap_tau(s->bootstrap, series_of(s, d, r, h, k));
}

Head sweep_beside(Head deployed, Head base, Head h) {
    return h == deployed ? base : h;
}

Interval sweep_gain(const SweepIntervals *s, int d, int r, Head h, int k) {
    const Head base = sweep_beside(s->deployed[d], s->deployed[0], h);
    return sweep_gain_over(s, (SweepCell){d, h}, (SweepCell){0, base}, r, k);
}

Interval sweep_gain_over(const SweepIntervals *s, SweepCell a, SweepCell base, int r, int k) {
    return bootstrap_gain(s->bootstrap, series_of(s, a.d, r, a.h, k),
                          series_of(s, base.d, r, base.h, k));
}

Power sweep_power(const SweepIntervals *s, int d, int r, Head h, int k) {
    const Head base = sweep_beside(s->deployed[d], s->deployed[0], h);
    return stats_power(s->bootstrap, series_of(s, d, r, h, k), series_of(s, 0, r, base, k), 0.01,
                       0.8);
}
