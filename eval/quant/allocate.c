// eval/quant/allocate.c - two greedy knapsacks.
#include "eval/quant/allocate.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/err.h"

double allocation_bpw(const Component *c, int n, const int *width) {
    double bits = 0.0, params = 0.0;
    for (int i = 0; i < n; i++) {
        bits += c[i].bits[width[i]] * (double)c[i].params;
        params += (double)c[i].params;
    }
    return params > 0.0 ? bits / params : 0.0;
}

int64_t allocation_bytes(const Component *c, int n, const int *width) {
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) bytes += c[i].bytes[width[i]];
    return bytes;
}

// --- mlx-optiq

// The block of a module, -1: none.
static int block_of(const char *name) {
    const char *at = strstr(name, "layers.");
    int block = -1;
    return at != NULL && sscanf(at, "layers.%d", &block) == 1 ? block : -1;
}

static bool has_any(const char *name, const char *const *word, int n) {
    for (int i = 0; i < n; i++)
        if (strstr(name, word[i]) != NULL) return true;
    return false;
}

static bool is_attention(const char *name) {
    static const char *const word[] = {"q_proj",   "k_proj",   "v_proj",  "o_proj",
                                       "qkv_proj", "in_proj_", "out_proj"};
    return has_any(name, word, sizeof word / sizeof *word);
}

static bool is_protected(const char *name, int first, int last, int protect) {
    static const char *const word[] = {"lm_head", "embed", "head", "router", "shared_expert"};
    const int block = block_of(name);
    return block < 0 || has_any(name, word, sizeof word / sizeof *word) ||
           block < first + protect || block > last - protect;
}

typedef struct {
    const Component *c;
    int n, first, last; // blocks that there are
    double (*kl)[ALLOCATE_WIDTHS];
    int *width;
    const OptiqRules *r;
} Optiq;

// What was not measured loses ten times the most that was, the more the fewer bits.
static void fill_kl(Optiq *o) {
    double most = 0.0;
    for (int i = 0; i < o->n; i++)
        for (int w = 0; w < o->c[i].widths; w++)
            if (isfinite(o->c[i].kl[w]) && o->c[i].kl[w] > most) most = o->c[i].kl[w];
    for (int i = 0; i < o->n; i++)
        for (int w = 0; w < o->c[i].widths; w++) {
            const double widest = o->c[i].bits[o->c[i].widths - 1], kl = o->c[i].kl[w];
            o->kl[i][w] = isfinite(kl) ? kl : 10.0 * most * (widest / o->c[i].bits[w]);
        }
}

// Component of the block with the largest KL at its width that is still at width 0, or -1; equal
// ones by their order. Attention alone where asked for.
static int most_sensitive(const Optiq *o, int block, bool attention) {
    int best = -1;
    for (int i = 0; i < o->n; i++) {
        if (block_of(o->c[i].name) != block || o->width[i] != 0 || o->c[i].widths < 2) continue;
        if (attention && !is_attention(o->c[i].name)) continue;
        if (best < 0 || o->kl[i][0] > o->kl[best][0]) best = i;
    }
    return best;
}

static int least_int(int a, int b) {
    return a < b ? a : b;
}

static void raise_floor(Optiq *o) {
    for (int block = o->first; block <= o->last; block++) {
        int attention = 0, picked = 0, at;
        for (int i = 0; i < o->n; i++)
            attention += block_of(o->c[i].name) == block && is_attention(o->c[i].name);
        const bool full = attention >= 4;
        const int reserve = least_int(o->r->floor, full ? 2 : attention > 0),
                  budget = full ? o->r->floor : least_int(o->r->floor, 1);
        while (picked < reserve && (at = most_sensitive(o, block, true)) >= 0)
            o->width[at] = 1, picked++;
        while (picked < budget && (at = most_sensitive(o, block, false)) >= 0)
            o->width[at] = 1, picked++;
    }
}

static void protect(Optiq *o) {
    for (int i = 0; i < o->n; i++)
        if (is_protected(o->c[i].name, o->first, o->last, o->r->protect))
            for (int w = 0; w < o->c[i].widths; w++) o->kl[i][w] *= 100.0;
}

// What the next step of a component wins for a bit of a weight; 0: nothing, or no step.
static double optiq_priority(const Optiq *o, int i) {
    const Component *c = &o->c[i];
    const int w = o->width[i];
    if (w + 1 >= c->widths) return 0.0;
    const double gain = fabs(o->kl[i][w] - o->kl[i][w + 1]);
    return gain / ((c->bits[w + 1] - c->bits[w]) * (double)c->params);
}

static void climb(Optiq *o) {
    while (allocation_bpw(o->c, o->n, o->width) < o->r->target_bpw) {
        int best = -1;
        double most = 0.0;
        for (int i = 0; i < o->n; i++) {
            const double p = optiq_priority(o, i);
            if (p <= 0.0 || p < most) continue;
            if (best >= 0 && p == most && strcmp(o->c[i].name, o->c[best].name) > 0) continue;
            best = i;
            most = p;
        }
        if (best < 0) return;
        o->width[best]++;
    }
}

static bool mostly_low(const Optiq *o, int block) {
    int low = 0, all = 0;
    for (int i = 0; i < o->n; i++)
        if (block_of(o->c[i].name) == block) all++, low += o->width[i] == 0;
    return all > 0 && 2 * low > all;
}

// In a run too long its 1st, 4th, 7th .. block gets one module raised.
static void guard_runs(Optiq *o) {
    int start = o->first;
    for (int block = o->first; block <= o->last + 1; block++) {
        if (block <= o->last && mostly_low(o, block)) continue;
        if (block - start > o->r->low_run)
            for (int b = start; b < block; b += o->r->low_run) {
                const int at = most_sensitive(o, b, false);
                if (at >= 0) o->width[at]++;
            }
        start = block + 1;
    }
}

void allocate_optiq(const Component *c, int n, const OptiqRules *r, int *width) {
    Optiq o = {.c = c, .n = n, .first = 0, .last = -1, .width = width, .r = r};
    o.kl = calloc((size_t)n + 1, sizeof *o.kl);
    CHECK_MEMORY(o.kl);
    for (int i = 0; i < n; i++) {
        const int block = block_of(c[i].name);
        CHECK(c[i].widths >= 1 && c[i].widths <= ALLOCATE_WIDTHS);
        if (block >= 0 && (o.last < o.first || block < o.first)) o.first = block;
        if (block > o.last) o.last = block;
        width[i] = 0;
    }
    fill_kl(&o);
    raise_floor(&o);
    protect(&o);
    climb(&o);
    guard_runs(&o);
    free(o.kl);
}

// --- lost tokens per byte

static bool is_noisy(const Component *c, int w) {
    return c->se[w] > 0.0 && isfinite(c->se[w]) && isfinite(c->kl[w]);
}

void expected_loss(const Component *c, int n, double (*loss)[ALLOCATE_WIDTHS]) {
    double both = 0.0, squares = 0.0;
    for (int i = 0; i < n; i++)
        for (int w = 0; w < c[i].widths; w++) {
            if (!is_noisy(&c[i], w)) continue;
            const double weight = 1.0 / (c[i].se[w] * c[i].se[w]);
            both += weight * c[i].kl[w] * c[i].lost[w];
            squares += weight * c[i].kl[w] * c[i].kl[w];
        }
    const double slope = squares > 0.0 ? fmax(both / squares, 0.0) : 0.0;
    for (int i = 0; i < n; i++)
        for (int w = 0; w < c[i].widths; w++) {
            loss[i][w] = c[i].lost[w];
            if (!is_noisy(&c[i], w)) continue;
            const double said = slope * c[i].kl[w], trust = said * said,
                         noise = c[i].se[w] * c[i].se[w];
            loss[i][w] = (trust * c[i].lost[w] + noise * said) / (trust + noise);
        }
}

// Non-increasing and never below 0: neighbours that are not are averaged.
static void monotone(double *x, int n) {
    double mean[ALLOCATE_WIDTHS];
    int weight[ALLOCATE_WIDTHS], m = 0;
    for (int i = 0; i < n; i++) {
        mean[m] = x[i];
        weight[m++] = 1;
        while (m > 1 && mean[m - 2] < mean[m - 1]) {
            const int w = weight[m - 2] + weight[m - 1];
            mean[m - 2] = (mean[m - 2] * weight[m - 2] + mean[m - 1] * weight[m - 1]) / w;
            weight[--m - 1] = w;
        }
    }
    for (int i = 0, at = 0; i < m; i++)
        for (int k = 0; k < weight[i]; k++) x[at++] = fmax(mean[i], 0.0);
}

// The step from width w, of at most `left` bytes, that wins most for a byte: the next corner of the
// lower hull. -1: none wins.
static int best_step(const Component *c, const double *loss, int w, int64_t left, double *ratio) {
    int best = -1;
    *ratio = 0.0;
    for (int next = w + 1; next < c->widths && c->bytes[next] - c->bytes[w] <= left; next++) {
        const double won = loss[w] - loss[next],
                     per_byte = won / (double)(c->bytes[next] - c->bytes[w]);
        if (won > 0.0 && per_byte >= *ratio) {
            best = next;
            *ratio = per_byte;
        }
    }
    return best;
}

// Takes the best step of any component that still fits, until none does.
static void spend(const Component *c, int n, double (*loss)[ALLOCATE_WIDTHS], int64_t bytes,
                  int *width) {
    int64_t left = bytes - allocation_bytes(c, n, width);
    for (;;) {
        int best = -1, to = 0;
        double most = 0.0, ratio;
        for (int i = 0; i < n; i++) {
            const int next = best_step(&c[i], loss[i], width[i], left, &ratio);
            if (next < 0) continue;
            if (best >= 0 &&
                (ratio < most || (ratio == most && strcmp(c[i].name, c[best].name) > 0)))
                continue;
            best = i;
            to = next;
            most = ratio;
        }
        if (best < 0) return;
        left -= c[best].bytes[to] - c[best].bytes[width[best]];
        width[best] = to;
    }
}

void allocate_tokens(const Component *c, int n, int64_t bytes, int *width) {
    double(*loss)[ALLOCATE_WIDTHS] = calloc((size_t)n + 1, sizeof *loss);
    CHECK_MEMORY(loss);
    expected_loss(c, n, loss);
    for (int i = 0; i < n; i++) {
        CHECK(c[i].widths >= 1 && c[i].widths <= ALLOCATE_WIDTHS);
        width[i] = 0;
        monotone(loss[i], c[i].widths);
    }
    spend(c, n, loss, bytes, width);
    for (int i = 0; i < n; i++) {
        for (int w = 0; w < c[i].widths; w++) loss[i][w] = isfinite(c[i].kl[w]) ? c[i].kl[w] : 0.0;
        monotone(loss[i], c[i].widths);
    }
    spend(c, n, loss, bytes, width);
    free(loss);
}
