// eval/acceptance_slices.c - slices of the measured prompts, each with its own bootstrap.
#include "eval/acceptance_slices.h"

#include "infer/base/log.h"

enum { SLICES_MAX = 256 }; // categories, and sources: beyond that they are no parts but rows

json_t *interval_json(Interval x) {
    return json_pack("[ff]", x.lo, x.hi);
}

static StepCount pool(const Sweep *s, const SweepSlice *slice, Head h, int k) {
    StepCount sum = {0};
    for (int64_t i = 0; i < s->n; i++) {
        const StepCount c = slice_count(slice, &s->prompt[i], h, k);
        sum.rounds += c.rounds;
        sum.tokens += c.tokens;
    }
    return sum;
}

static double tau_of(StepCount c) {
    return c.rounds > 0 ? (double)c.tokens / (double)c.rounds : 0.0;
}

static json_t *head_json(const Sweep *s, const SweepSlice *slice, Head h, const Interval *ci) {
    json_t *tau = json_array(), *interval = json_array(), *rounds = json_array();
    for (int k = 1; k <= s->K; k++) {
        const StepCount c = pool(s, slice, h, k);
        json_array_append_new(tau, json_real(tau_of(c)));
        json_array_append_new(interval, interval_json(ci[k]));
        json_array_append_new(rounds, json_integer(c.rounds));
    }
    return json_pack("{so so so}", "tau", tau, "tau_ci", interval, "num_drafts", rounds);
}

static json_t *paired_json(const Sweep *two, const SweepSlice *slice, Head h, const Interval *ci) {
    json_t *gain = json_array(), *interval = json_array();
    for (int k = 1; k <= two[0].K; k++) {
        const double base = tau_of(pool(&two[0], slice, h, k)),
                     tau = tau_of(pool(&two[1], slice, h, k));
        json_array_append_new(gain, json_real(base > 0.0 ? tau / base - 1.0 : 0.0));
        json_array_append_new(interval, interval_json(ci[k]));
    }
    return json_pack("{so so}", "gain", gain, "ci", interval);
}

// "greedy" is the deployed head; the dense one stands beside a centroid head.
static const char *head_name(const Sweep *s, Head h) {
    return h == s->deployed ? "greedy" : s->deployed == HEAD_CENTROID ? "greedy_dense" : NULL;
}

static bool add_slice(json_t *to, const char *name, const AcceptanceReport *r,
                      const SweepSlice *slice, Err *err) {
    SweepIntervals ci;
    const Sweep *first = &r->sweep[0];
    int64_t prompts = 0, tokens = 0;
    for (int64_t i = 0; i < first->n; i++) {
        const Measured *m = &first->prompt[i];
        if (!slice_has(slice, m)) continue;
        prompts++;
        tokens += slice->by_part ? m->part_tokens[slice->part] : m->tokens;
    }
    if (prompts == 0) return true;
    if (!sweep_intervals(&ci, r->sweep, r->n, slice, &r->how, err)) return false;
    json_t *o = json_pack("{sI sI}", "prompts", (json_int_t)prompts, "tokens", (json_int_t)tokens);
    json_t *paired = r->n == 2 ? json_object() : NULL;
    for (int h = 0; h < 2; h++)
        for (int d = 0; d < r->n; d++) {
            const Sweep *s = &r->sweep[d];
            const char *key = head_name(s, (Head)h);
            if (key == NULL) continue;
            json_t *drafter = json_object_get(o, s->name);
            if (drafter == NULL) json_object_set_new(o, s->name, drafter = json_object());
            json_object_set_new(drafter, key, head_json(s, slice, (Head)h, ci.tau[d][h]));
            if (d == 1)
                json_object_set_new(paired, key, paired_json(r->sweep, slice, (Head)h, ci.gain[h]));
        }
    if (paired) json_object_set_new(o, "paired", paired);
    json_object_set_new(to, name, o);
    return true;
}

static bool add_names(json_t *to, const AcceptanceReport *r, bool source, Err *err) {
    const Sweep *first = &r->sweep[0];
    for (int64_t i = 0; i < first->n; i++) {
        const char *name = source ? first->prompt[i].source : first->prompt[i].category;
        if (json_object_size(to) == SLICES_MAX) {
            log_warn("eval: only the first %d %s are told apart", SLICES_MAX,
                     source ? "sources" : "categories");
            return true;
        }
        const SweepSlice slice = {.category = source ? NULL : name, .source = source ? name : NULL};
        if (json_object_get(to, name) == NULL && !add_slice(to, name, r, &slice, err)) return false;
    }
    return true;
}

bool slices_add(json_t *report, const AcceptanceReport *r, Err *err) {
    json_t *categories = json_object(), *sources = json_object(), *kinds = json_object();
    json_object_set_new(report, "categories", categories);
    json_object_set_new(report, "sources", sources);
    json_object_set_new(report, "kinds", kinds);
    bool ok = add_names(categories, r, false, err) && add_names(sources, r, true, err);
    for (int p = 0; p < PART_COUNT && ok; p++) {
        const SweepSlice slice = {.by_part = true, .part = (TextPart)p};
        ok = add_slice(kinds, part_name((TextPart)p), r, &slice, err);
    }
    return ok;
}
