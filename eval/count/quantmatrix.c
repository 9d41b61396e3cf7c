// eval/count/quantmatrix.c - sizes beside acceptance.
#include "eval/count/quantmatrix.h"

#include <string.h>

#include "eval/count/acceptance_read.h"

static int reference_of(const QuantMatrix *m) {
    for (int d = 1; d < m->n; d++)
        if (m->artifact[d].bits_per_weight >= 16.0) return d;
    return 0;
}

static double tau_of(const Sweep *s, Head h, int k) {
    return acceptance_tau(&s->pool->k[s->rule[0]][h][k]);
}

static json_t *pair(Interval i) {
    return json_pack("[ff]", i.lo, i.hi);
}

static json_t *artifact_json(const QuantMatrix *m, int d, int reference) {
    const Sweep *s = &m->sweep[d], *base = &m->sweep[reference];
    const ArtifactInfo *a = &m->artifact[d];
    const Head h = s->deployed, beside = base->has[h] ? h : base->deployed;
    json_t *tau = json_array(), *tau_ci = json_array(), *change = json_array(),
           *change_ci = json_array();
    for (int k = 1; k <= s->K; k++) {
        const double x = tau_of(s, h, k), was = tau_of(base, beside, k);
        json_array_append_new(tau, json_real(x));
        json_array_append_new(tau_ci, pair(sweep_tau(m->intervals, d, 0, h, k)));
        json_array_append_new(change, json_real(was > 0.0 ? x / was - 1.0 : 0.0));
        json_array_append_new(change_ci,
                              pair(sweep_gain_over(m->intervals, (SweepCell){d, h},
                                                   (SweepCell){reference, beside}, 0, k)));
    }
    json_t *o = json_pack("{ss ss ss ss sf sI ss ss so so so so}", "name", s->name, "path", s->path,
                          "format", a->format, "stored", a->label, "bits_per_weight",
                          a->bits_per_weight, "bytes", (json_int_t)a->bytes, "head",
                          h == HEAD_CENTROID ? "centroid" : "dense", "sha256", s->sha.hex, "tau",
                          tau, "tau_ci", tau_ci, "change", change, "change_ci", change_ci);
    CHECK_MEMORY(o);
    return o;
}

json_t *quantmatrix_json(const QuantMatrix *m) {
    const int reference = reference_of(m);
    json_t *list = json_array(), *lengths = json_array();
    for (int k = 1; k <= m->sweep[0].K; k++) json_array_append_new(lengths, json_integer(k));
    for (int d = 0; d < m->n; d++) json_array_append_new(list, artifact_json(m, d, reference));
    json_t *o = json_pack("{ss ss ss si so sI so}", "kind", "quantmatrix", "reference",
                          m->sweep[reference].name, "rule", rule_name(m->sweep[0].rule[0]),
                          "select_k", m->select_k, "draft_tokens", lengths, "prompts",
                          (json_int_t)m->sweep[0].n, "artifacts", list);
    CHECK_MEMORY(o);
    return o;
}

static void row(FILE *out, const json_t *a, size_t k, const char *reference) {
    char name[64], stored[64];
    const char *text = json_string_value(json_object_get(a, "name"));
    const json_t *ci = json_array_get(json_object_get(a, "change_ci"), k - 1);
    fprintf(out, "| %s | %s %s | %s | %.2f | %.2f |", table_cell(name, text),
            json_string_value(json_object_get(a, "format")),
            table_cell(stored, json_string_value(json_object_get(a, "stored"))),
            json_string_value(json_object_get(a, "head")),
            json_number_value(json_object_get(a, "bits_per_weight")),
            json_number_value(json_object_get(a, "bytes")) / 1e6);
    const json_t *tau = json_object_get(a, "tau");
    for (size_t i = 0; i < json_array_size(tau); i++) fprintf(out, " %.3f |", real_at(tau, i));
    if (strcmp(text, reference) == 0)
        fprintf(out, " |\n");
    else
        fprintf(out, " %+.2f %% (%+.2f to %+.2f) |\n",
                100 * real_at(json_object_get(a, "change"), k - 1), 100 * real_at(ci, 0),
                100 * real_at(ci, 1));
}

void quantmatrix_markdown(FILE *out, const json_t *m) {
    const json_t *list = json_object_get(m, "artifacts");
    const size_t K = json_array_size(json_object_get(m, "draft_tokens")),
                 k = (size_t)json_integer_value(json_object_get(m, "select_k"));
    const char *reference = json_string_value(json_object_get(m, "reference"));
    char name[64];
    fprintf(out, "\nStored as, and tau(k); change at k = %zu beside %s with the same head\n\n", k,
            table_cell(name, reference));
    fprintf(out, "| artifact | stored as | head | bits/weight | MB |");
    for (size_t i = 1; i <= K; i++) fprintf(out, " %zu |", i);
    fprintf(out, " change, interval |\n|---|---|---|---|---|---|");
    for (size_t i = 1; i <= K; i++) fprintf(out, "---|");
    fputc('\n', out);
    for (size_t i = 0; i < json_array_size(list); i++)
        row(out, json_array_get(list, i), k, reference);
}
