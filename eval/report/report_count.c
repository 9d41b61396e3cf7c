// eval/report/report_count.c - counts by prompt -> series -> one bootstrap for all of them.
#include "eval/report/report_count.h"

#include <stdlib.h>
#include <string.h>

const json_t *merge_prompts(const Merge *m, const char *what) {
    return json_object_get(json_object_get(m->in[0].acceptance, "prompt_counts"), what);
}

static bool in_slice(const Merge *m, size_t i, const char *list, const char *name) {
    const char *x = list ? json_string_value(json_array_get(merge_prompts(m, list), i)) : NULL;
    return list == NULL || (x != NULL && !strcmp(x, name));
}

// Series (drafter, key, k) over the prompts of the slice; all of it is filled, what a drafter does
// not have with zeros.
static size_t fill(const Merge *m, const char *list, const char *name, double *tokens,
                   double *rounds, size_t prompts) {
    const size_t all = json_array_size(merge_prompts(m, "id"));
    size_t at = 0;
    for (size_t i = 0; i < all; i++) {
        if (!in_slice(m, i, list, name)) continue;
        for (int s = 0; tokens != NULL && s < m->drafters * m->keys; s++) {
            const json_t *o = json_object_get(m->drafter[s / m->keys].counts, m->key[s % m->keys]);
            const json_t *t = json_array_get(json_object_get(o, "tokens"), i),
                         *r = json_array_get(json_object_get(o, "rounds"), i);
            for (int k = 0; k < m->K; k++) {
                const size_t cell = ((size_t)s * (size_t)m->K + (size_t)k) * prompts + at;
                tokens[cell] = json_number_value(json_array_get(t, (size_t)k));
                rounds[cell] = json_number_value(json_array_get(r, (size_t)k));
            }
        }
        at++;
    }
    return at;
}

void counted_free(Counted *c) {
    free(c->tokens);
    free(c->rounds);
    bootstrap_free(c->boot);
}

bool counted_run(Counted *c, const Merge *m, const char *list, const char *name, Err *err) {
    const int64_t series = (int64_t)m->drafters * m->keys * m->K;
    *c = (Counted){.prompts = fill(m, list, name, NULL, NULL, 0)};
    c->tokens = calloc((size_t)series * c->prompts + 1, sizeof(double));
    c->rounds = calloc((size_t)series * c->prompts + 1, sizeof(double));
    if (c->tokens == NULL || c->rounds == NULL)
        return err_set(err, ERR_FAILED, "no memory for %zu prompts", c->prompts);
    fill(m, list, name, c->tokens, c->rounds, c->prompts);
    const BootstrapInput in = {.prompts = (int64_t)c->prompts,
                               .series = series,
                               .tokens = c->tokens,
                               .rounds = c->rounds,
                               .resamples = m->how->resamples,
                               .confidence = m->how->confidence,
                               .seed = m->how->seed};
    return (c->boot = bootstrap_run(&in, err)) != NULL;
}

static int64_t series_of(const Merge *m, int d, int key, int k) {
    return ((int64_t)d * m->keys + key) * m->K + k;
}

static double sum(const double *v, size_t n) {
    double s = 0.0;
    for (size_t i = 0; i < n; i++) s += v[i];
    return s;
}

static double pooled_tau(const Counted *c, int64_t series, double *rounds) {
    const size_t at = (size_t)series * c->prompts;
    *rounds = sum(c->rounds + at, c->prompts);
    return *rounds > 0 ? sum(c->tokens + at, c->prompts) / *rounds : 0.0;
}

static json_t *pair(Interval x) {
    return json_pack("[ff]", x.lo, x.hi);
}

json_t *counted_tau(const Merge *m, const Counted *c, int d, int key) {
    json_t *tau = json_array(), *ci = json_array(), *drafts = json_array();
    for (int k = 0; k < m->K; k++) {
        double rounds;
        const int64_t s = series_of(m, d, key, k);
        json_array_append_new(tau, json_real(pooled_tau(c, s, &rounds)));
        json_array_append_new(ci, pair(bootstrap_tau(c->boot, s)));
        json_array_append_new(drafts, rounds == (double)(int64_t)rounds
                                          ? json_integer((json_int_t)rounds)
                                          : json_real(rounds));
    }
    return json_pack("{so so so}", "tau", tau, "tau_ci", ci, "num_drafts", drafts);
}

static json_t *gain_json(const Merge *m, const Counted *c, int d, int key) {
    json_t *gain = json_array(), *ci = json_array();
    for (int k = 0; k < m->K; k++) {
        double rounds;
        const int64_t s = series_of(m, d, key, k), base = series_of(m, 0, key, k);
        const double x = pooled_tau(c, s, &rounds), y = pooled_tau(c, base, &rounds);
        json_array_append_new(gain, json_real(y > 0 ? x / y - 1.0 : 0.0));
        json_array_append_new(ci, pair(bootstrap_gain(c->boot, s, base)));
    }
    return json_pack("{so so}", "gain", gain, "ci", ci);
}

json_t *counted_power(const Merge *m, const Counted *c, int d, int key) {
    json_t *se = json_array(), *prompts = json_array();
    for (int k = 0; k < m->K; k++) {
        const Power p =
            stats_power(c->boot, series_of(m, d, key, k), series_of(m, 0, key, k), 0.01, 0.8);
        json_array_append_new(se, json_real(p.se));
        json_array_append_new(prompts, json_integer((json_int_t)p.prompts));
    }
    return json_pack("{so so}", "se_gain", se, "prompts_for_1_percent", prompts);
}

bool merge_has(const Merge *m, int d, int key) {
    return json_object_get(m->drafter[d].counts, m->key[key]) != NULL;
}

json_t *counted_pairs(const Merge *m, const Counted *c) {
    json_t *pairs = json_object();
    for (int d = 1; d < m->drafters; d++) {
        json_t *o = json_object();
        for (int i = 0; i < m->keys; i++)
            if (merge_has(m, d, i) && merge_has(m, 0, i))
                json_object_set_new(o, m->key[i], gain_json(m, c, d, i));
        json_object_set_new(pairs, m->drafter[d].name, o);
    }
    return pairs;
}

static json_t *slice_json(const Merge *m, const Counted *c, int64_t tokens) {
    json_t *o =
        json_pack("{sI sI}", "prompts", (json_int_t)c->prompts, "tokens", (json_int_t)tokens);
    for (int d = 0; d < m->drafters; d++) {
        json_t *x = json_object();
        for (int i = 0; i < m->keys; i++)
            if (merge_has(m, d, i)) json_object_set_new(x, m->key[i], counted_tau(m, c, d, i));
        json_object_set_new(o, m->drafter[d].name, x);
    }
    json_object_set_new(o, "pairs", counted_pairs(m, c));
    return o;
}

// list: "category" or "source" of the prompts
bool counted_slices(json_t *out, const Merge *m, const char *group, const char *list, Err *err) {
    enum { SLICES = 256 };
    const json_t *names = merge_prompts(m, list), *tokens = merge_prompts(m, "tokens");
    json_t *all = json_object();
    json_object_set_new(out, group, all);
    for (size_t i = 0; i < json_array_size(names) && json_object_size(all) < SLICES; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        int64_t sum_tokens = 0;
        Counted c;
        if (name == NULL || json_object_get(all, name) != NULL) continue;
        for (size_t j = 0; j < json_array_size(tokens); j++)
            if (in_slice(m, j, list, name))
                sum_tokens += json_integer_value(json_array_get(tokens, j));
        const bool ok = counted_run(&c, m, list, name, err);
        if (ok) json_object_set_new(all, name, slice_json(m, &c, sum_tokens));
        counted_free(&c);
        if (!ok) return false;
    }
    return true;
}
