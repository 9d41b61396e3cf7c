// eval/acceptance_json.c - what was counted, under the names of the stable file.
#include "eval/acceptance_json.h"

#include "eval/acceptance_slices.h"

// u[k-1][i-1] over visited rounds.
static json_t *visited_u(const Acceptance *a, int k) {
    json_t *u = json_array();
    for (int i = 1; i <= k; i++) json_array_append_new(u, json_real(acceptance_u(a, i)));
    return u;
}

// c_i = u_i / u_{i-1}
static json_t *conditional(const Acceptance *a, int k) {
    json_t *c = json_array();
    for (int i = 1; i <= k; i++) {
        const double before = acceptance_u(a, i - 1);
        json_array_append_new(c, json_real(before > 0.0 ? acceptance_u(a, i) / before : 0.0));
    }
    return c;
}

static double ratio(int64_t a, int64_t b) {
    return b > 0 ? (double)a / (double)b : 0.0;
}

// Mean of the prompts' own tau, beside the pooled one.
static double mean_tau(const Sweep *s, Head h, int k) {
    double sum = 0.0;
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++) {
        const Acceptance *a = &s->prompt[i].k[h][k];
        if (a->rounds == 0) continue;
        sum += acceptance_tau(a);
        n++;
    }
    return n > 0 ? sum / (double)n : 0.0;
}

static json_t *head_json(const Sweep *s, Head h, const Interval *ci) {
    static const char *const arrays[] = {"tau",
                                         "tau_ci",
                                         "u",
                                         "c",
                                         "tau_prompt_mean",
                                         "num_drafts",
                                         "num_draft_tokens",
                                         "num_accepted_tokens",
                                         "acceptance_length",
                                         "acceptance_rate",
                                         "u_all"};
    enum { ARRAYS = sizeof arrays / sizeof *arrays };
    json_t *o = json_pack("{ss}", "head", h == HEAD_CENTROID ? "centroid" : "dense"), *v[ARRAYS];
    const AnchorReach all = measured_reach(s->prompt, s->n, h);
    for (int i = 0; i < ARRAYS; i++) json_object_set_new(o, arrays[i], v[i] = json_array());
    for (int k = 1; k <= s->K; k++) {
        const Acceptance a = measured_pool(s->prompt, s->n, h, k);
        json_t *const column[ARRAYS] = {json_real(acceptance_tau(&a)),
                                        interval_json(ci[k]),
                                        visited_u(&a, k),
                                        conditional(&a, k),
                                        json_real(mean_tau(s, h, k)),
                                        json_integer(a.rounds),
                                        json_integer(a.drafted),
                                        json_integer(a.accepted),
                                        json_real(1.0 + ratio(a.accepted, a.rounds)),
                                        json_real(ratio(a.accepted, a.drafted)),
                                        json_real(acceptance_u_all(&all, k))};
        for (int i = 0; i < ARRAYS; i++) json_array_append_new(v[i], column[i]);
    }
    return o;
}

// "greedy" is the deployed head; the dense one stands beside a centroid head.
static void put_heads(json_t *o, const Sweep *s,
                      json_t *(*value)(const void *, const Sweep *, Head), const void *ctx) {
    json_object_set_new(o, "greedy", value(ctx, s, s->deployed));
    if (s->deployed == HEAD_CENTROID)
        json_object_set_new(o, "greedy_dense", value(ctx, s, HEAD_DENSE));
}

static json_t *measured_value(const void *ctx, const Sweep *s, Head h) {
    const Interval(*tau)[DRAFT_MAX + 1] = ctx; // [head][k]
    return head_json(s, h, tau[h]);
}

static json_t *paired_value(const void *ctx, const Sweep *s, Head h) {
    const AcceptanceReport *r = ctx;
    json_t *gain = json_array(), *ci = json_array();
    for (int k = 1; k <= s->K; k++) {
        const Acceptance a = measured_pool(r->sweep[0].prompt, r->sweep[0].n, h, k),
                         b = measured_pool(r->sweep[1].prompt, r->sweep[1].n, h, k);
        const double base = acceptance_tau(&a);
        json_array_append_new(gain, json_real(base > 0.0 ? acceptance_tau(&b) / base - 1.0 : 0.0));
        json_array_append_new(ci, interval_json(r->intervals->gain[h][k]));
    }
    return json_pack("{so so}", "gain", gain, "ci", ci);
}

static json_t *definitions(void) {
    return json_pack("{ss ss ss ss ss ss ss}", "tau",
                     "tokens generated after the first / rounds, the last round cut at the end of "
                     "the text; bonus in, "
                     "ceiling k+1; pooled over prompts",
                     "u",
                     "share of visited rounds with at least i accepted drafts, among those with i "
                     "tokens left; depends on k",
                     "u_all", "the same over all anchors; does not depend on k", "gain",
                     "tau trained / tau stock - 1", "acceptance_length",
                     "1 + accepted / rounds: bonus in also where the text ends", "greedy",
                     "the head that config.json deploys; greedy_dense: the dense head", "kinds",
                     "rounds by the first token they have to match, tokens by their own kind; "
                     "structured: tool calls, the stop before a response, string delimiters, "
                     "brackets of channels");
}

json_t *acceptance_json(const AcceptanceReport *r, Err *err) {
    const Sweep *first = &r->sweep[0];
    int64_t tokens = 0;
    json_t *k = json_array(), *drafters = json_object();
    for (int64_t i = 0; i < first->n; i++) tokens += first->prompt[i].tokens;
    for (int i = 1; i <= first->K; i++) json_array_append_new(k, json_integer(i));
    for (int d = 0; d < r->n; d++) {
        json_t *o = json_pack("{ss ss}", "path", r->sweep[d].path, "dtype", r->sweep[d].dtype);
        if (r->sweep[d].sha.hex[0]) // export compares it with the weights it is about to write
            json_object_set_new(o, "sha256", json_string(r->sweep[d].sha.hex));
        put_heads(o, &r->sweep[d], measured_value, r->intervals->tau[d]);
        json_object_set_new(drafters, r->sweep[d].name, o);
    }
    json_t *o = json_pack("{so sI sI sI sI ss so so}", "draft_tokens", k, "select_k",
                          (json_int_t)r->select_k, "prompts", (json_int_t)first->n, "sequences",
                          (json_int_t)first->sequences, "tokens", (json_int_t)tokens, "sampler",
                          r->sampler, "drafters", drafters, "definitions", definitions());
    if (r->n == 2) {
        json_t *paired = json_object();
        put_heads(paired, &r->sweep[1], paired_value, r);
        json_object_set_new(o, "paired", paired);
    }
    json_object_set_new(o, "bootstrap",
                        json_pack("{sI sf sI sb}", "resamples", (json_int_t)r->how.resamples,
                                  "confidence", r->how.confidence, "seed", (json_int_t)r->how.seed,
                                  "few_prompts", first->n < STATS_FEW_PROMPTS));
    if (slices_add(o, r, err)) return o;
    json_decref(o);
    return NULL;
}
