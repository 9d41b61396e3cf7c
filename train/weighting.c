// train/weighting.c - fixed, measured-reach and visit weights of draft steps.
#include "train/weighting.h"

#include <math.h>
#include <string.h>

// The running rate forgets half in about 7 steps: fast enough to follow a drafter that learns.
static const double KEEP = 0.9;
// Share of draws that regard no odds: what one anchor stands for stays below 1 / ALIKE.
static const double ALIKE = 0.25;

bool weighting_kind(const char *name, WeightKind *out, Err *err) {
    if (strcmp(name, "fixed") == 0)
        *out = WEIGHTS_FIXED;
    else if (strcmp(name, "reach") == 0)
        *out = WEIGHTS_REACH;
    else if (strcmp(name, "visit") == 0)
        *out = WEIGHTS_VISIT;
    else
        return err_set(err, ERR_USAGE, "train.step_weights: '%s', expected fixed, reach or visit",
                       name);
    return true;
}

static double smoothed(const Weighting *w, double x) {
    return (1.0 - w->smooth) * x + w->smooth;
}

void weighting_steps(const Weighting *w, double out[DRAFT_MAX]) {
    double product = 1.0;
    for (int j = 0; j < w->K; j++) {
        out[j] = product;
        if (w->kind == WEIGHTS_FIXED)
            product *= w->decay;
        else if (w->seen > 0)
            product *= smoothed(w, w->match[j]);
    }
}

void weighting_observe(Weighting *w, const double match[DRAFT_MAX], const double rows[DRAFT_MAX]) {
    for (int j = 0; j < w->K; j++) {
        if (rows[j] == 0.0) continue;
        w->match[j] = w->seen == 0 ? match[j] : KEEP * w->match[j] + (1.0 - KEEP) * match[j];
    }
    w->seen++;
}

void weighting_fill(const Weighting *w, const Batch *b, float *weight) {
    double step[DRAFT_MAX];
    weighting_steps(w, step);
    for (int j = 0; j < w->K; j++)
        for (int64_t r = 0; r < b->rows; r++)
            weight[j * b->rows + r] =
                b->valid[j * b->rows + r] ? (float)(step[j] * batch_share(b, r)) : 0.0f;
}

void weighting_visits(const Weighting *w, const int32_t *drafts, int64_t anchors,
                      const int32_t *ids, int64_t n, int64_t first, double *visit, double *out) {
    memset(visit, 0, (size_t)anchors * sizeof *visit);
    if (anchors > 0) visit[0] = 1.0;
    for (int64_t t = 0; t < anchors; t++) {
        const int64_t left =
            n - first - t - 1; // tokens after the bonus: drafts that can be matched
        const int steps = left < w->K ? (int)left : w->K;
        double a[DRAFT_MAX], worth[DRAFT_MAX + 1];
        for (int j = 0; j < steps; j++)
            a[j] = smoothed(w, drafts[t * w->K + j] == ids[first + t + 1 + j] ? 1.0 : 0.0);
        worth[steps] = 0.0;
        for (int j = steps - 1; j >= 0; j--)
            worth[j] = 1.0 + (j + 1 < steps ? a[j + 1] * worth[j + 1] : 0.0);
        double reach = 1.0; // probability that all drafts before j were accepted
        for (int j = 0; j < steps; j++) {
            out[t * w->K + j] = visit[t] * reach * worth[j];
            if (t + 1 + j < anchors) visit[t + 1 + j] += visit[t] * reach * (1.0 - a[j]);
            reach *= a[j];
        }
        if (t + 1 + steps < anchors) visit[t + 1 + steps] += visit[t] * reach;
        for (int j = steps; j < w->K; j++) out[t * w->K + j] = 0.0;
    }
}

void weighting_odds(const double *visit, int64_t anchors, int64_t first, int64_t n, int64_t window,
                    double far, double *odds) {
    double sum = 0.0;
    for (int64_t t = 0; t < anchors; t++) {
        const double octaves = log2((double)(first + t) / (double)window);
        odds[first + t] = visit[t] * (octaves > 0 ? 1.0 + far * octaves : 1.0);
        sum += odds[first + t];
    }
    const double mean = anchors > 0 && sum > 0 ? sum / (double)anchors : 1.0;
    for (int64_t T = 0; T < n; T++) {
        const bool walked = T >= first && T < first + anchors;
        odds[T] = (1.0 - ALIKE) * (walked ? odds[T] / mean : 1.0) + ALIKE;
    }
}

void weighting_place(const Weighting *w, const Batch *b, int seq, const double *out,
                     int64_t anchors, int64_t first, float *weight) {
    double mean[DRAFT_MAX] = {0};
    for (int64_t t = 0; t < anchors; t++)
        for (int j = 0; j < w->K; j++) mean[j] += out[t * w->K + j] / (double)anchors;
    for (int64_t r = 0; r < b->rows; r++) {
        if (b->seq_of[r] != seq) continue;
        const int64_t t = b->T[r] - first;
        for (int j = 0; j < w->K; j++) {
            const double x = t >= 0 && t < anchors ? out[t * w->K + j] : mean[j];
            weight[j * b->rows + r] =
                b->valid[j * b->rows + r] ? (float)(x * batch_share(b, r)) : 0.0f;
        }
    }
}
