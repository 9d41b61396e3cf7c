// eval/count/acceptance_json.c - what was counted, under the names of the stable file.
#include "eval/count/acceptance_json.h"

#include "eval/count/acceptance_slices.h"

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

// Rounds with at least i accepted, i = 1..k; they add up to the accepted drafts.
static json_t *accepted_by_position(const Acceptance *a, int k) {
    json_t *n = json_array();
    for (int i = 1; i <= k; i++) json_array_append_new(n, count_json(a->reached[i]));
    return n;
}

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0.0;
}

// Mean of the prompts' own tau, beside the pooled one.
static double mean_tau(const Sweep *s, AcceptRule rule, Head h, int k) {
    double sum = 0.0;
    int64_t n = 0;
    for (int64_t i = 0; i < s->n; i++) {
        const StepCount c = s->prompt[i].k[rule][h][k];
        if (c.rounds == 0.0) continue;
        sum += step_tau(c);
        n++;
    }
    return n > 0 ? sum / (double)n : 0.0;
}

// An object of one array per name, filled column by column.
typedef struct {
    json_t *object, *array[16];
    int n;
} Columns;

static Columns columns_begin(const char *const *name, int n) {
    Columns c = {.object = json_object(), .n = n};
    CHECK(n <= (int)(sizeof c.array / sizeof *c.array));
    for (int i = 0; i < n; i++) json_object_set_new(c.object, name[i], c.array[i] = json_array());
    return c;
}

static void columns_add(Columns *c, json_t *const *value) {
    for (int i = 0; i < c->n; i++) json_array_append_new(c->array[i], value[i]);
}

// One value of the report for every rule and head of a drafter.
typedef struct {
    const AcceptanceReport *r;
    int d, rule; // number of the drafter, of the rule
    Head head;
} Cell;

static json_t *head_json(const Cell *c) {
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
                                         "u_all",
                                         "accepted_by_position"};
    enum { ARRAYS = sizeof arrays / sizeof *arrays };
    const Sweep *s = &c->r->sweep[c->d];
    const AcceptRule rule = s->rule[c->rule];
    Columns out = columns_begin(arrays, ARRAYS);
    json_object_set_new(out.object, "head",
                        json_string(c->head == HEAD_CENTROID ? "centroid" : "dense"));
    for (int k = 1; k <= s->K; k++) {
        const Acceptance *a = &s->pool->k[rule][c->head][k];
        json_t *const column[ARRAYS] = {
            json_real(acceptance_tau(a)),
            interval_json(sweep_tau(c->r->intervals, c->d, c->rule, c->head, k)),
            visited_u(a, k),
            conditional(a, k),
            json_real(mean_tau(s, rule, c->head, k)),
            count_json(a->rounds),
            count_json(a->drafted),
            count_json(a->accepted),
            json_real(1.0 + ratio(a->accepted, a->rounds)),
            json_real(ratio(a->accepted, a->drafted)),
            json_real(acceptance_u_all(&s->pool->all[rule][c->head], k)),
            accepted_by_position(a, k)};
        columns_add(&out, column);
    }
    return out.object;
}

static json_t *pair_json(const Cell *c) {
    static const char *const arrays[] = {"gain", "ci"};
    const AcceptRule rule = c->r->sweep[0].rule[c->rule];
    const Head beside = sweep_beside(c->r->sweep[c->d].deployed, c->r->sweep[0].deployed, c->head);
    Columns out = columns_begin(arrays, 2);
    for (int k = 1; k <= c->r->sweep[0].K; k++) {
        const double base = acceptance_tau(&c->r->sweep[0].pool->k[rule][beside][k]),
                     tau = acceptance_tau(&c->r->sweep[c->d].pool->k[rule][c->head][k]);
        json_t *const column[] = {
            json_real(base > 0.0 ? tau / base - 1.0 : 0.0),
            interval_json(sweep_gain(c->r->intervals, c->d, c->rule, c->head, k))};
        columns_add(&out, column);
    }
    return out.object;
}

static json_t *p_min_json(const Cell *c) {
    static const char *const arrays[] = {"p", "tau", "accepted_per_round", "steps_per_round"};
    const Sweep *s = &c->r->sweep[c->d];
    Columns out = columns_begin(arrays, 4);
    for (int p = 0; p < s->p_mins; p++) {
        json_t *const column[] = {json_real(s->p_min[p]), json_array(), json_array(), json_array()};
        for (int k = 1; k <= s->K; k++) {
            const Acceptance *a = &s->pool->p_min[s->rule[c->rule]][c->head][p][k];
            json_array_append_new(column[1], json_real(acceptance_tau(a)));
            json_array_append_new(column[2], json_real(ratio(a->accepted, a->rounds)));
            json_array_append_new(column[3], json_real(ratio(a->steps, a->rounds)));
        }
        columns_add(&out, column);
    }
    return out.object;
}

static json_t *diagnostics_json(const Cell *c) {
    static const char *const arrays[] = {"uniform_anchors", "product_of_means", "uniform_alpha"};
    const Sweep *s = &c->r->sweep[c->d];
    const AnchorReach *all = &s->pool->all[s->rule[c->rule]][c->head];
    Columns out = columns_begin(arrays, 3);
    for (int k = 1; k <= s->K; k++) {
        json_t *const column[] = {json_real(biased_uniform_anchors(all, k)),
                                  json_real(biased_product_of_means(all, k)),
                                  json_real(biased_uniform_alpha(all, k))};
        columns_add(&out, column);
    }
    return out.object;
}

static json_t *power_json(const Cell *c) {
    static const char *const arrays[] = {"se_gain", "prompts_for_1_percent"};
    Columns out = columns_begin(arrays, 2);
    for (int k = 1; k <= c->r->sweep[0].K; k++) {
        const Power p = sweep_power(c->r->intervals, c->d, c->rule, c->head, k);
        json_t *const column[] = {json_real(p.se), json_integer((json_int_t)p.prompts)};
        columns_add(&out, column);
    }
    return out.object;
}

// Rounds of every prompt: what a comparison with other drafters is resampled from.
static json_t *prompt_rounds_json(const Cell *c) {
    static const char *const arrays[] = {"rounds", "tokens"};
    const Sweep *s = &c->r->sweep[c->d];
    Columns out = columns_begin(arrays, 2);
    for (int64_t i = 0; i < s->n; i++) {
        json_t *const column[] = {json_array(), json_array()};
        for (int k = 1; k <= s->K; k++) {
            const StepCount n = s->prompt[i].k[s->rule[c->rule]][c->head][k];
            json_array_append_new(column[0], count_json(n.rounds));
            json_array_append_new(column[1], count_json(n.tokens));
        }
        columns_add(&out, column);
    }
    return out.object;
}

// Adds value() of every rule and head of drafter d under its key.
static void put_cells(json_t *o, const AcceptanceReport *r, int d, json_t *(*value)(const Cell *)) {
    const Sweep *s = &r->sweep[d];
    for (int rule = 0; rule < s->rules; rule++)
        for (int h = 1; h >= 0; h--) { // the deployed head first where it is the centroid one
            char key[32];
            const Cell c = {.r = r, .d = d, .rule = rule, .head = (Head)h};
            if (sweep_key(key, s, s->rule[rule], (Head)h) != NULL)
                json_object_set_new(o, key, value(&c));
        }
}

static json_t *recall_json(const Sweep *s) {
    static const char *const arrays[] = {"share", "tau_ceiling"};
    Columns out = columns_begin(arrays, 2);
    for (int k = 1; k <= s->K; k++) {
        json_t *const column[] = {json_real(ratio(s->pool->recalled[k], s->pool->anchors[k])),
                                  json_real(acceptance_tau(&s->pool->ceiling[k]))};
        columns_add(&out, column);
    }
    return out.object;
}

static json_t *drafter_json(const AcceptanceReport *r, int d) {
    const Sweep *s = &r->sweep[d];
    json_t *o = json_pack("{ss ss}", "path", s->path, "dtype", s->dtype), *p = json_object(),
           *diagnostics = json_object();
    if (s->sha.hex[0]) // export compares it with the weights it is about to write
        json_object_set_new(o, "sha256", json_string(s->sha.hex));
    put_cells(o, r, d, head_json);
    if (s->deployed == HEAD_CENTROID) json_object_set_new(o, "recall", recall_json(s));
    put_cells(p, r, d, p_min_json);
    json_object_set_new(o, "p_min", p);
    put_cells(diagnostics, r, d, diagnostics_json);
    json_object_set_new(o, "diagnostics", diagnostics);
    return o;
}

static json_t *prompts_json(const AcceptanceReport *r) {
    static const char *const arrays[] = {"id", "category", "source", "tokens"};
    Columns out = columns_begin(arrays, 4);
    json_t *drafters = json_object();
    for (int64_t i = 0; i < r->sweep[0].n; i++) {
        const Measured *m = &r->sweep[0].prompt[i];
        json_t *const column[] = {json_string(m->id), json_string(m->category),
                                  json_string(m->source), json_integer(m->tokens)};
        columns_add(&out, column);
    }
    for (int d = 0; d < r->n; d++) {
        json_t *o = json_object();
        put_cells(o, r, d, prompt_rounds_json);
        json_object_set_new(drafters, r->sweep[d].name, o);
    }
    json_object_set_new(out.object, "drafters", drafters);
    return out.object;
}

// Power: of the second drafter beside the first.
static json_t *statistics_json(const AcceptanceReport *r) {
    char text[512];
    json_t *o = json_object(), *power = json_object();
    stats_multiplicity(text, sizeof text, r->sweep[0].K, r->how.confidence);
    json_object_set_new(o, "multiplicity", json_string(text));
    if (r->n > 1) put_cells(power, r, 1, power_json);
    json_object_set_new(o, "power", power);
    return o;
}

static json_t *definitions(void) {
    static const char *const text[][2] = {
        {"tau", "tokens generated after the first / rounds, the last round cut at the end of the "
                "text; bonus in, ceiling k+1; pooled over prompts"},
        {"u", "share of visited rounds with at least i accepted drafts, among those with i tokens "
              "left; depends on k"},
        {"u_all", "the same over all anchors; does not depend on k"},
        {"gain", "tau trained / tau stock - 1"},
        {"accepted_by_position", "rounds with at least i accepted drafts inside the text; over "
                                 "num_drafts: acceptance_at_pos of other tools"},
        {"acceptance_length", "1 + accepted / rounds: bonus in also where the text ends"},
        {"greedy", "greedy drafts on greedy text, with the head that config.json deploys; "
                   "greedy_dense: the dense head"},
        {"rejection", "sampled text, drafts drawn from the drafter, exact rejection sampling: "
                      "expected counts"},
        {"best", "sampled text, the drafter's best token, which stands where the target draws it"},
        {"strict", "sampled text, drafts drawn from the drafter, which stand where the target "
                   "draws the same token"},
        {"kinds", "rounds by the first token they have to match, tokens by their own kind; "
                  "structured: tool calls, the stop before a response, string delimiters, brackets "
                  "of channels"},
        {"contexts", "rounds by the tokens consumed when they begin"},
        {"p_min", "a round's drafts end before one whose most probable token has less; "
                  "steps_per_round counts that step, too, along the text"},
        {"recall", "share of anchors at draft step i whose teacher's best token lies in the "
                   "clusters that the centroid head chose; tau_ceiling: tau if it were right "
                   "wherever that is so"},
        {"statistics", "power: standard error of the gain over the bootstrap's resamples, and how "
                       "many such prompts show a gain of 1 % with a chance of 80 %"},
        {"recommendation", "speedup: tau / the cost of a round in plain decoding steps "
                           "(break_even_tau), by the cost table; break_even_rate: accepted / "
                           "drafted that pays for it; best_k 0: no drafter. Greedy choices, batch "
                           "1, whatever the rule"},
        {"diagnostics", "what other tools print for the same data, all biased: the mean over all "
                        "anchors instead of visited ones, products of mean acceptances, mean "
                        "products of acceptance probabilities"}};
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        json_object_set_new(o, text[i][0], json_string(text[i][1]));
    return o;
}

json_t *acceptance_json(const AcceptanceReport *r, Err *err) {
    const Sweep *first = &r->sweep[0];
    int64_t tokens = 0;
    json_t *k = json_array(), *rules = json_array(), *drafters = json_object(),
           *pairs = json_object();
    for (int64_t i = 0; i < first->n; i++) tokens += first->prompt[i].tokens;
    for (int i = 1; i <= first->K; i++) json_array_append_new(k, json_integer(i));
    for (int i = 0; i < first->rules; i++)
        json_array_append_new(rules, json_string(rule_name(first->rule[i])));
    json_t *o =
        json_pack("{so sI sI sI sI ss so so so}", "draft_tokens", k, "select_k",
                  (json_int_t)r->select_k, "prompts", (json_int_t)first->n, "sequences",
                  (json_int_t)first->sequences, "tokens", (json_int_t)tokens, "sampler", r->sampler,
                  "rules", rules, "drafters", drafters, "definitions", definitions());
    json_object_set_new(o, "capture", json_pack("{ss}", "manifest_sha256", r->capture));
    for (int d = 0; d < r->n; d++) {
        json_object_set_new(drafters, r->sweep[d].name, drafter_json(r, d));
        if (d == 0) continue;
        json_t *pair = json_object();
        put_cells(pair, r, d, pair_json);
        json_object_set_new(pairs, r->sweep[d].name, pair);
        if (d == 1) json_object_set(o, "paired", pair);
    }
    json_object_set_new(o, "pairs", pairs);
    json_object_set_new(o, "statistics", statistics_json(r));
    json_object_set_new(o, "prompt_counts", prompts_json(r));
    json_object_set_new(o, "bootstrap",
                        json_pack("{sI sf sI sb}", "resamples", (json_int_t)r->how.resamples,
                                  "confidence", r->how.confidence, "seed", (json_int_t)r->how.seed,
                                  "few_prompts", first->n < STATS_FEW_PROMPTS));
    if (slices_add(o, r, err)) return o;
    json_decref(o);
    return NULL;
}
