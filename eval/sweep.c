// eval/sweep.c - captured sequences -> counts per prompt -> intervals.
#include "eval/sweep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"

enum { SWEEP_ANCHORS = 2048, SWEEP_TOKENS = 16384 };

void sweep_free(Sweep *s) {
    free(s->prompt);
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

static MeasureOptions options(const bool head[2], int K) {
    return (MeasureOptions){.K = K,
                            .head = {head[0], head[1]},
                            .max_anchors = SWEEP_ANCHORS,
                            .pack_tokens = SWEEP_TOKENS};
}

size_t sweep_bytes(const Assistant *a, const TargetConfig *tc, const SeqSource *src, int K) {
    bool head[2] = {[HEAD_DENSE] = true};
    head[assistant_deployed_head(&a->cfg)] = true;
    const MeasureOptions opt = options(head, K);
    return measurer_bytes(a, tc, src, &opt) + (size_t)src->count * sizeof(Measured);
}

bool sweep_run(Sweep *out, const char *name, const char *path, const Assistant *a,
               const TargetConfig *tc, const SeqSource *src, int K, Err *err) {
    *out = (Sweep){.deployed = assistant_deployed_head(&a->cfg),
                   .K = K,
                   .n = src->count,
                   .sequences = src->count,
                   .has = {[HEAD_DENSE] = true}};
    snprintf(out->name, sizeof out->name, "%s", name);
    snprintf(out->path, sizeof out->path, "%s", path);
    snprintf(out->dtype, sizeof out->dtype, "%s", dtype_name(a->dtype));
    out->has[out->deployed] = true;
    char file[PATH_ROOM];
    path_join(file, path, "model.safetensors");
    if (file_exists(file) && !sha256_file(&out->sha, file, err)) return false;
    const MeasureOptions opt = options(out->has, K);
    Measurer *m = NULL;
    if ((out->prompt = calloc((size_t)src->count + 1, sizeof *out->prompt)) == NULL) {
        err_set(err, ERR_FAILED, "no memory for %lld sequences", (long long)src->count);
        goto fail;
    }
    if ((m = measurer_open(a, tc, src, &opt, err)) == NULL || !measurer_run(m, a, out->prompt, err))
        goto fail;
    measurer_close(m);
    merge_samples(out);
    return true;
fail:
    err_wrap(err, "%s drafter %s", name, path);
    measurer_close(m);
    sweep_free(out);
    return false;
}

static bool same_prompts(const Sweep *a, const Sweep *b, Err *err) {
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

StepCount slice_count(const SweepSlice *s, const Measured *m, Head h, int k) {
    if (!slice_has(s, m)) return (StepCount){0};
    if (s->by_part) return m->part[h][k][s->part];
    return (StepCount){.rounds = m->k[h][k].rounds, .tokens = m->k[h][k].tokens};
}

// Series of (sweep d, head h, draft length k).
static int64_t series_of(int d, int h, int k, int K) {
    return ((int64_t)d * 2 + h) * K + k - 1;
}

// Prompts of the slice, the same for all series.
static int64_t fill_series(const Sweep *sweep, int n, const SweepSlice *slice, int64_t prompts,
                           double *tokens, double *rounds) {
    const int K = sweep[0].K;
    int64_t at = 0;
    for (int64_t i = 0; i < sweep[0].n; i++) {
        if (!slice_has(slice, &sweep[0].prompt[i])) continue;
        for (int d = 0; d < n; d++)
            for (int h = 0; h < 2; h++)
                for (int k = 1; k <= K; k++) {
                    const StepCount c = slice_count(slice, &sweep[d].prompt[i], (Head)h, k);
                    tokens[series_of(d, h, k, K) * prompts + at] = (double)c.tokens;
                    rounds[series_of(d, h, k, K) * prompts + at] = (double)c.rounds;
                }
        at++;
    }
    return at;
}

bool sweep_intervals(SweepIntervals *out, const Sweep *sweep, int n, const SweepSlice *slice,
                     const Resampling *how, Err *err) {
    const int K = sweep[0].K;
    const int64_t series = (int64_t)n * 2 * K;
    int64_t prompts = 0;
    *out = (SweepIntervals){0};
    CHECK(n >= 1 && n <= 2);
    if (n == 2 && !same_prompts(&sweep[0], &sweep[1], err)) return false;
    for (int64_t i = 0; i < sweep[0].n; i++) prompts += slice_has(slice, &sweep[0].prompt[i]);
    double *tokens = calloc((size_t)(series * prompts) + 1, sizeof *tokens);
    double *rounds = calloc((size_t)(series * prompts) + 1, sizeof *rounds);
    Bootstrap *b = NULL;
    bool ok = false;
    if (tokens == NULL || rounds == NULL) {
        err_set(err, ERR_FAILED, "no memory for the bootstrap over %lld prompts",
                (long long)prompts);
        goto end;
    }
    const BootstrapInput in = {.prompts = fill_series(sweep, n, slice, prompts, tokens, rounds),
                               .series = series,
                               .tokens = tokens,
                               .rounds = rounds,
                               .resamples = how->resamples,
                               .confidence = how->confidence,
                               .seed = how->seed};
    if ((b = bootstrap_run(&in, err)) == NULL) goto end;
    for (int h = 0; h < 2; h++)
        for (int k = 1; k <= K; k++) {
            for (int d = 0; d < n; d++) out->tau[d][h][k] = bootstrap_tau(b, series_of(d, h, k, K));
            if (n == 2)
                out->gain[h][k] = bootstrap_gain(b, series_of(1, h, k, K), series_of(0, h, k, K));
        }
    ok = true;
end:
    free(tokens);
    free(rounds);
    bootstrap_free(b);
    return ok;
}
