// eval/report/report_same.c - every refusal names the file, the thing and both values.
#include "eval/report/report_same.h"

#include <math.h>
#include <string.h>

#include "eval/report/report_view.h"
#include "infer/base/log.h"
#include "infer/base/utf8.h"

static bool is_table(const json_t *rows, size_t n, size_t K) {
    if (json_array_size(rows) != n) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, i);
        if (json_array_size(row) != K) return false;
        for (size_t k = 0; k < K; k++) {
            const json_t *x = json_array_get(row, k);
            if (!json_is_number(x) || !(json_number_value(x) >= 0.0)) return false;
        }
    }
    return true;
}

static double total(const json_t *rows, size_t k) {
    double sum = 0.0;
    for (size_t i = 0; i < json_array_size(rows); i++)
        sum += json_number_value(json_array_get(json_array_get(rows, i), k));
    return sum;
}

// The counts by prompt make the tau of the file: else one of them is not what was measured.
static bool makes_tau(const MergeInput *in, const ReportView *v, int d, const char *key, Err *err) {
    const Ref o =
        ref_key(ref_key(ref_key(view_ref(v, "prompt_counts"), "drafters"), v->name[d]), key);
    for (size_t k = 0; k < (size_t)v->K && o.v != NULL; k++) {
        const double rounds = total(ref_key(o, "rounds").v, k),
                     tau = rounds > 0 ? total(ref_key(o, "tokens").v, k) / rounds : 0.0,
                     told = ref_number(ref_at(ref_key(view_head(v, d, key), "tau"), k));
        if (!(fabs(tau - told) <= 1e-6 * (1.0 + told)))
            return err_set(err, ERR_INPUT,
                           "%s: prompt_counts of %.100s, %s, give tau %g at k = %zu, its \"tau\" "
                           "is %g",
                           in->file, v->name[d], key, tau, k + 1, told);
    }
    return true;
}

static bool taus_of(const MergeInput *in, const ReportView *v, Err *err) {
    for (int d = 0; d < v->drafters; d++)
        for (int i = 0; i < v->keys; i++)
            if (!makes_tau(in, v, d, v->key[i], err)) return false;
    return true;
}

static bool counts_of(const MergeInput *in, const ReportView *v, size_t n, Err *err) {
    const Ref all = ref_key(view_ref(v, "prompt_counts"), "drafters");
    for (int d = 0; d < v->drafters; d++)
        for (int i = 0; i < v->keys; i++) {
            if (view_head(v, d, v->key[i]).v == NULL) continue;
            const Ref o = ref_key(ref_key(all, v->name[d]), v->key[i]);
            static const char *const what[] = {"rounds", "tokens"};
            for (int w = 0; w < 2; w++)
                if (!is_table(ref_key(o, what[w]).v, n, (size_t)v->K))
                    return err_set(err, ERR_INPUT,
                                   "%s: prompt_counts of %.100s, %s: \"%s\" is not %zu prompts of "
                                   "%d counts",
                                   in->file, v->name[d], v->key[i], what[w], n, v->K);
        }
    return true;
}

// The lists by prompt are there and fit together.
static bool prompts_of(const MergeInput *in, const ReportView *v, Err *err) {
    const json_t *counts = json_object_get(v->root, "prompt_counts"),
                 *id = json_object_get(counts, "id"), *tokens = json_object_get(counts, "tokens");
    const size_t n = json_array_size(id);
    if (counts == NULL)
        return err_set(err, ERR_INPUT,
                       "%s holds no counts by prompt (\"prompt_counts\"): it can be shown alone, "
                       "not compared; eval --overwrite measures it again",
                       in->file);
    if (n == 0 || json_array_size(tokens) != n)
        return err_set(err, ERR_INPUT, "%s: prompt_counts name %zu prompts and %zu token counts",
                       in->file, n, json_array_size(tokens));
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(id, i)) || !json_is_integer(json_array_get(tokens, i)))
            return err_set(err, ERR_INPUT, "%s: prompt_counts entry %zu has no id or no tokens",
                           in->file, i);
    return counts_of(in, v, n, err);
}

static bool same_text(const MergeInput *a, const MergeInput *b, const char *what, const json_t *x,
                      const json_t *y, bool optional, Err *err) {
    char sx[128], sy[128];
    const char *tx = json_string_value(x), *ty = json_string_value(y);
    if (optional && (tx == NULL || ty == NULL)) return true;
    if (tx == NULL) tx = "(none)";
    if (ty == NULL) ty = "(none)";
    if (!strcmp(tx, ty)) return true;
    return err_set(err, ERR_INPUT, "%s has %s \"%s\", %s has \"%s\"", b->file, what,
                   utf8_fit(sy, sizeof sy, ty), a->file, utf8_fit(sx, sizeof sx, tx));
}

static bool same_prompts(const MergeInput *a, const MergeInput *b, Err *err) {
    const json_t *ca = json_object_get(a->acceptance, "prompt_counts"),
                 *cb = json_object_get(b->acceptance, "prompt_counts"),
                 *ia = json_object_get(ca, "id"), *ib = json_object_get(cb, "id");
    const size_t n = json_array_size(ia);
    if (json_array_size(ib) != n)
        return err_set(err, ERR_INPUT, "%s was measured on %zu prompts, %s on %zu", b->file,
                       json_array_size(ib), a->file, n);
    for (size_t i = 0; i < n; i++) {
        char xa[128], xb[128];
        const char *na = json_string_value(json_array_get(ia, i)),
                   *nb = json_string_value(json_array_get(ib, i));
        const json_int_t ta = json_integer_value(json_array_get(json_object_get(ca, "tokens"), i)),
                         tb = json_integer_value(json_array_get(json_object_get(cb, "tokens"), i));
        if (strcmp(na, nb) != 0 || ta != tb)
            return err_set(err, ERR_INPUT,
                           "%s has as prompt %zu \"%s\" with %lld tokens, %s \"%s\" with %lld",
                           b->file, i, utf8_fit(xb, sizeof xb, nb), (long long)tb, a->file,
                           utf8_fit(xa, sizeof xa, na), (long long)ta);
    }
    return true;
}

static json_t *rules_text(const json_t *acceptance) { // "rejection, best"; new reference
    const json_t *list = json_object_get(acceptance, "rules");
    char text[256] = "";
    if (list == NULL) return json_string("greedy");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *rule = json_string_value(json_array_get(list, i));
        const size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%.40s", i > 0 ? ", " : "",
                 rule != NULL ? rule : "?");
    }
    return json_string(text);
}

static bool same_as_first(const MergeInput *a, const MergeInput *b, Err *err) {
    json_t *ra = rules_text(a->acceptance), *rb = rules_text(b->acceptance);
    const json_t *ca = json_object_get(a->acceptance, "capture"),
                 *cb = json_object_get(b->acceptance, "capture");
    const bool ok = same_text(a, b, "sampler", json_object_get(a->acceptance, "sampler"),
                              json_object_get(b->acceptance, "sampler"), false, err) &&
                    same_text(a, b, "rules", ra, rb, false, err) &&
                    same_text(a, b, "capture manifest", json_object_get(ca, "manifest_sha256"),
                              json_object_get(cb, "manifest_sha256"), true, err) &&
                    same_prompts(a, b, err);
    json_decref(ra);
    json_decref(rb);
    return ok;
}

bool report_same(const MergeInput *in, int n, int *K, Err *err) {
    ReportView v;
    int most = 0;
    *K = DRAFT_MAX;
    for (int f = 0; f < n; f++) {
        if (!report_view(&v, in[f].acceptance, err)) return err_wrap(err, "%s", in[f].file);
        if (!prompts_of(&in[f], &v, err)) return false;
        if (f > 0 && !same_as_first(&in[0], &in[f], err)) return false;
        if (!taus_of(&in[f], &v, err)) return false;
        if (v.K < *K) *K = v.K;
        if (v.K > most) most = v.K;
    }
    if (most > *K)
        for (int f = 0; f < n; f++)
            log_warn("report: %s was measured at k = 1..%zu; compared are k = 1..%d", in[f].file,
                     json_array_size(json_object_get(in[f].acceptance, "draft_tokens")), *K);
    return true;
}
