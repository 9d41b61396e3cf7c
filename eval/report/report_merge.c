// eval/report/report_merge.c - drafters of several files side by side, counted anew from their
// prompts.
#include "eval/report/report_merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report/report_count.h"
#include "eval/report/report_cut.h"
#include "eval/report/report_same.h"
#include "infer/base/log.h"
#include "infer/base/utf8.h"

static const json_t *object_of(const Merge *m, int d) {
    const Member *x = &m->drafter[d];
    return json_object_get(json_object_get(m->in[x->file].acceptance, "drafters"), x->old);
}

static bool same_weights(const json_t *a, const json_t *b) {
    static const char *const what[] = {"sha256", "dtype"};
    for (int i = 0; i < 2; i++) {
        const char *x = json_string_value(json_object_get(a, what[i])),
                   *y = json_string_value(json_object_get(b, what[i]));
        if (x == NULL || y == NULL || x[0] == '\0' || strcmp(x, y) != 0) return false;
    }
    return true;
}

static bool taken(const Merge *m, const char *name) {
    for (int d = 0; d < m->drafters; d++)
        if (!strcmp(m->drafter[d].name, name)) return true;
    return false;
}

// "trained" of runs/a becomes "a"; another name is kept, with the run before it where it is taken.
static void name_it(const Merge *m, Member *x) {
    const char *run = m->in[x->file].run;
    const bool trained = !strcmp(x->old, "trained");
    char old[64], before[64], base[128];
    utf8_fit(old, sizeof old, x->old);
    utf8_fit(before, sizeof before, run);
    snprintf(x->name, sizeof x->name, "%s", trained ? before : old);
    if (!taken(m, x->name)) return;
    snprintf(base, sizeof base, "%s %s", before, old);
    snprintf(x->name, sizeof x->name, "%s", base);
    for (int i = 2; taken(m, x->name); i++) snprintf(x->name, sizeof x->name, "%s %d", base, i);
}

// The same weights in another file: their counts should be the same.
static void compare(const Merge *m, const Member *a, const Member *b, const char *key) {
    const json_t *x = json_object_get(a->counts, key), *y = json_object_get(b->counts, key);
    const json_t *rx = json_object_get(x, "rounds"), *ry = json_object_get(y, "rounds");
    for (size_t i = 0; i < json_array_size(rx) && y != NULL; i++) {
        const size_t k = (size_t)m->K - 1;
        const double p = json_number_value(json_array_get(json_array_get(rx, i), k)),
                     q = json_number_value(json_array_get(json_array_get(ry, i), k));
        if (p == q) continue;
        log_warn("report: the weights \"%s\" of %s and of %s are the same, their counts are not "
                 "(prompt %zu, k = %d: %g and %g rounds); those of the first are shown",
                 b->old, m->in[a->file].file, m->in[b->file].file, i, m->K, p, q);
        return;
    }
}

static bool add_drafters(Merge *m, int file, Err *err) {
    ReportView v;
    if (!report_view(&v, m->in[file].acceptance, err)) return false;
    const Ref counts = ref_key(view_ref(&v, "prompt_counts"), "drafters");
    for (int i = 0; i < v.keys; i++) {
        int known = 0;
        while (known < m->keys && strcmp(m->key[known], v.key[i]) != 0) known++;
        if (known == m->keys && m->keys < VIEW_KEYS)
            memcpy(m->key[m->keys++], v.key[i], sizeof v.key[i]);
    }
    for (int i = 0; i < v.drafters; i++) {
        Member x = {.file = file, .old = v.name[i], .counts = ref_key(counts, v.name[i]).v};
        int same = 0;
        while (same < m->drafters && !same_weights(object_of(m, same), view_drafter(&v, i).v))
            same++;
        if (same < m->drafters) {
            compare(m, &m->drafter[same], &x, v.key[0]);
            continue;
        }
        if (m->drafters == VIEW_DRAFTERS)
            return err_set(err, ERR_INPUT, "more than %d drafters to compare", (int)VIEW_DRAFTERS);
        name_it(m, &x);
        m->drafter[m->drafters++] = x;
    }
    return true;
}

static void set_copy(json_t *to, const json_t *from, const char *key) {
    json_t *x = json_object_get(from, key);
    if (x != NULL) json_object_set(to, key, x);
}

static json_t *drafter_json(const Merge *m, const Counted *c, int d) {
    json_t *o = cut_drafter(object_of(m, d), m->K);
    for (int i = 0; i < m->keys; i++) {
        json_t *head = json_object_get(o, m->key[i]);
        if (head == NULL || !merge_has(m, d, i)) continue;
        json_t *again = counted_tau(m, c, d, i);
        set_copy(head, again, "tau_ci");
        json_decref(again);
    }
    return o;
}

static json_t *counts_json(const Merge *m) {
    static const char *const lists[] = {"id", "category", "source", "tokens"};
    json_t *o = json_object(), *drafters = json_object();
    for (int i = 0; i < 4; i++)
        set_copy(o, json_object_get(m->in[0].acceptance, "prompt_counts"), lists[i]);
    for (int d = 0; d < m->drafters; d++)
        json_object_set_new(drafters, m->drafter[d].name, cut_counts(m->drafter[d].counts, m->K));
    json_object_set_new(o, "drafters", drafters);
    return o;
}

// Names of files and runs may be any bytes; JSON may not.
static json_t *merged_from(const Merge *m) {
    json_t *list = json_array();
    for (int f = 0; f < m->n; f++) {
        char file[1024], run[128];
        json_t *names = json_object();
        for (int d = 0; d < m->drafters; d++)
            if (m->drafter[d].file == f)
                json_object_set_new(names, m->drafter[d].old, json_string(m->drafter[d].name));
        json_array_append_new(
            list, json_pack("{ss ss so}", "file", utf8_fit(file, sizeof file, m->in[f].file), "run",
                            utf8_fit(run, sizeof run, m->in[f].run), "drafters", names));
    }
    return list;
}

// Power as eval tells it: of the second drafter beside the first.
static json_t *statistics(const Merge *m, const Counted *c) {
    char text[1024];
    const int others = m->drafters - 1;
    const size_t used = (size_t)snprintf(
        text, sizeof text,
        "%d drafter%s compared with %s by %d rule%s; all share their resamples. By "
        "each drafter and rule: ",
        others, others == 1 ? " is" : "s are", m->drafter[0].name, m->keys,
        m->keys == 1 ? "" : "s and heads");
    stats_multiplicity(text + used, sizeof text - used, m->K, m->how->confidence);
    json_t *power = json_object();
    for (int i = 0; i < m->keys && m->drafters > 1; i++)
        if (merge_has(m, 1, i) && merge_has(m, 0, i))
            json_object_set_new(power, m->key[i], counted_power(m, c, 1, i));
    return json_pack("{ss so}", "multiplicity", text, "power", power);
}

static bool same_device(const json_t *a, const json_t *b) {
    static const char *const what[] = {"device", "dtype", "context"};
    for (int i = 0; i < 3; i++) {
        const json_t *x = json_object_get(a, what[i]), *y = json_object_get(b, what[i]);
        if (x != y && !json_equal(x, y)) return false;
    }
    return true;
}

// Speed-ups are beside each other only where they hold for the same device, dtype and context. Two
// runs that timed it give slightly different costs; those of the first are shown.
static void add_recommendations(json_t *out, const Merge *m) {
    const json_t *cost = json_object_get(m->in[0].acceptance, "cost");
    json_t *all = json_object();
    for (int d = 0; d < m->drafters; d++) {
        const Member *x = &m->drafter[d];
        const json_t *from = m->in[x->file].acceptance, *its = json_object_get(from, "cost"),
                     *r = json_object_get(json_object_get(from, "recommendation"), x->old);
        if (r == NULL) continue;
        if (cost == NULL || !same_device(cost, its)) {
            log_warn("report: %s has the costs of another device, dtype or context than %s: no "
                     "speed-up of %s is shown",
                     m->in[x->file].file, m->in[0].file, x->name);
            continue;
        }
        if (!json_equal(cost, its))
            log_info("report: %s was timed by itself: its speed-up is by its own costs", x->name);
        json_object_set_new(all, x->name, cut_recommendation(r, m->K));
    }
    if (cost != NULL) json_object_set(out, "cost", (json_t *)cost);
    if (json_object_size(all) > 0) json_object_set(out, "recommendation", all);
    json_decref(all);
}

static json_t *build(const Merge *m, const Counted *c) {
    static const char *const kept[] = {"prompts", "sequences", "tokens", "sampler", "rules"};
    const json_t *first = m->in[0].acceptance;
    json_t *out = json_object(), *k = json_array(), *drafters = json_object();
    json_int_t select = json_integer_value(json_object_get(first, "select_k"));
    if (select < 1 || select > m->K) select = m->K;
    for (int i = 1; i <= m->K; i++) json_array_append_new(k, json_integer(i));
    json_object_set_new(out, "draft_tokens", k);
    json_object_set_new(out, "select_k", json_integer(select));
    for (int i = 0; i < 5; i++) set_copy(out, first, kept[i]);
    for (int d = 0; d < m->drafters; d++)
        json_object_set_new(drafters, m->drafter[d].name, drafter_json(m, c, d));
    json_object_set_new(out, "drafters", drafters);
    json_object_set_new(out, "pairs", counted_pairs(m, c));
    json_object_set_new(out, "bootstrap",
                        json_pack("{sI sf sI sb}", "resamples", (json_int_t)m->how->resamples,
                                  "confidence", m->how->confidence, "seed",
                                  (json_int_t)m->how->seed, "few_prompts",
                                  c->prompts < STATS_FEW_PROMPTS));
    json_object_set_new(out, "statistics", statistics(m, c));
    set_copy(out, first, "capture");
    set_copy(out, first, "definitions");
    add_recommendations(out, m);
    json_object_set_new(out, "prompt_counts", counts_json(m));
    json_object_set_new(out, "merged_from", merged_from(m));
    return out;
}

json_t *report_merge(const MergeInput *in, int n, const MergeSampling *how, Err *err) {
    json_t *out = NULL;
    Counted c = {0};
    Merge *m = calloc(1, sizeof *m);
    CHECK_MEMORY(m);
    CHECK(n >= 2);
    *m = (Merge){.in = in, .n = n, .how = how};
    bool ok = report_same(in, n, &m->K, err);
    for (int f = 0; f < n && ok; f++) ok = add_drafters(m, f, err);
    if (ok && counted_run(&c, m, NULL, NULL, err)) {
        out = build(m, &c);
        if (!counted_slices(out, m, "categories", "category", err) ||
            !counted_slices(out, m, "sources", "source", err)) {
            json_decref(out);
            out = NULL;
        }
    }
    counted_free(&c);
    free(m);
    return out;
}
