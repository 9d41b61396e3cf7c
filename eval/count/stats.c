// eval/count/stats.c - resamples drawn by counter, so that the same seed gives the same interval.
#include "eval/count/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/checked.h"
#include "infer/base/rng.h"
#include "infer/base/watchdog.h"

struct Bootstrap {
    int64_t prompts, series, resamples;
    double confidence;
    double tail;     // mass outside the interval on either side
    double *tau;     // (series, resamples): pooled tau of every resample
    double *scratch; // (resamples)
};

void bootstrap_free(Bootstrap *b) {
    if (b == NULL) return;
    free(b->tau);
    free(b->scratch);
    free(b);
}

// How often resample r draws each prompt.
static void draw(int32_t *count, int64_t prompts, uint64_t seed, int64_t r) {
    memset(count, 0, (size_t)prompts * sizeof *count);
    for (int64_t i = 0; i < prompts; i++)
        count[rng_below(seed, RNG_BOOTSTRAP, (uint64_t)r, (uint64_t)i, (uint64_t)prompts)]++;
}

static double pooled(const int32_t *count, const double *tokens, const double *rounds,
                     int64_t prompts) {
    double t = 0.0, r = 0.0;
    for (int64_t i = 0; i < prompts; i++) {
        t += count[i] * tokens[i];
        r += count[i] * rounds[i];
    }
    return r > 0.0 ? t / r : 0.0;
}

Bootstrap *bootstrap_run(const BootstrapInput *in, Err *err) {
    CHECK(in->prompts >= 0 && in->series >= 1 && in->resamples >= 1);
    CHECK(in->confidence > 0.0 && in->confidence < 1.0);
    int64_t cells;
    int32_t *count = NULL;
    Bootstrap *b = calloc(1, sizeof *b);
    if (b == NULL || !mul_fits(in->series, in->resamples, &cells) || cells > (int64_t)1 << 30)
        goto fail;
    b->prompts = in->prompts;
    b->confidence = in->confidence;
    b->series = in->series;
    b->resamples = in->resamples;
    b->tail = 0.5 * (1.0 - in->confidence);
    b->tau = calloc((size_t)cells, sizeof *b->tau);
    b->scratch = calloc((size_t)in->resamples, sizeof *b->scratch);
    count = calloc((size_t)in->prompts + 1, sizeof *count);
    if (b->tau == NULL || b->scratch == NULL || count == NULL) goto fail;
    for (int64_t r = 0; r < in->resamples; r++) {
        watchdog_beat();
        draw(count, in->prompts, in->seed, r);
        for (int64_t s = 0; s < in->series; s++)
            b->tau[s * in->resamples + r] = pooled(count, in->tokens + s * in->prompts,
                                                   in->rounds + s * in->prompts, in->prompts);
    }
    free(count);
    return b;
fail:
    err_set(err, ERR_FAILED, "bootstrap of %lld series: no memory for %lld resamples",
            (long long)in->series, (long long)in->resamples);
    free(count);
    bootstrap_free(b);
    return NULL;
}

static int ascending(const void *pa, const void *pb) {
    const double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

double sorted_quantile(const double *v, int64_t n, double q) {
    CHECK(n >= 1 && q >= 0.0 && q <= 1.0);
    const double at = q * (double)(n - 1);
    const int64_t i = (int64_t)floor(at);
    if (i + 1 >= n) return v[n - 1];
    return v[i] + (at - (double)i) * (v[i + 1] - v[i]);
}

static Interval interval_of(const Bootstrap *b) {
    qsort(b->scratch, (size_t)b->resamples, sizeof *b->scratch, ascending);
    return (Interval){sorted_quantile(b->scratch, b->resamples, b->tail),
                      sorted_quantile(b->scratch, b->resamples, 1.0 - b->tail)};
}

Interval bootstrap_tau(const Bootstrap *b, int64_t series) {
    CHECK(series >= 0 && series < b->series);
    memcpy(b->scratch, b->tau + series * b->resamples, (size_t)b->resamples * sizeof *b->scratch);
    return interval_of(b);
}

static void gains(const Bootstrap *b, int64_t series, int64_t base) {
    CHECK(series >= 0 && series < b->series && base >= 0 && base < b->series);
    const double *x = b->tau + series * b->resamples, *y = b->tau + base * b->resamples;
    for (int64_t r = 0; r < b->resamples; r++) b->scratch[r] = y[r] > 0.0 ? x[r] / y[r] - 1.0 : 0.0;
}

Interval bootstrap_gain(const Bootstrap *b, int64_t series, int64_t base) {
    gains(b, series, base);
    return interval_of(b);
}

double normal_quantile(double p) {
    CHECK(p > 0.0 && p < 1.0);
    double lo = -40.0, hi = 40.0;
    for (int i = 0; i < 100; i++) {
        const double mid = 0.5 * (lo + hi);
        *(0.5 * erfc(-mid * M_SQRT1_2) < p ? &lo : &hi) = mid;
    }
    return 0.5 * (lo + hi);
}

Power stats_power(const Bootstrap *b, int64_t series, int64_t base, double effect, double power) {
    CHECK(effect > 0.0 && b->resamples >= 2);
    double mean = 0.0, sum = 0.0;
    gains(b, series, base);
    for (int64_t r = 0; r < b->resamples; r++) mean += b->scratch[r] / (double)b->resamples;
    for (int64_t r = 0; r < b->resamples; r++)
        sum += (b->scratch[r] - mean) * (b->scratch[r] - mean);
    const double se = sqrt(sum / (double)(b->resamples - 1)),
                 z = normal_quantile(0.5 + 0.5 * b->confidence) + normal_quantile(power);
    const double share = z * se / effect;
    return (Power){.se = se, .prompts = ceil((double)b->prompts * share * share)};
}

void stats_multiplicity(char *out, size_t size, int comparisons, double confidence) {
    if (comparisons < 2) {
        snprintf(out, size, "One draft length is compared, its interval stands for itself.");
        return;
    }
    snprintf(
        out, size,
        "%d draft lengths are compared, each with a %g %% interval of its own. For all of them "
        "to hold together with %g %%, each would have to be a %.4g %% interval (Bonferroni); "
        "neighbouring draft lengths share most of their rounds and go up and down together, "
        "so that this is conservative.",
        comparisons, 100.0 * confidence, 100.0 * confidence,
        100.0 * (1.0 - (1.0 - confidence) / comparisons));
}
