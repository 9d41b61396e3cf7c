// eval/count/acceptance_slices.c - slices of the measured prompts, each with its own bootstrap.
#include "eval/count/acceptance_slices.h"

#include <math.h>

#include "infer/base/log.h"

enum { SLICES_MAX = 256 }; // categories, and sources: beyond that they are no parts but rows

json_t *interval_json(Interval x) {
    return json_pack("[ff]", x.lo, x.hi);
}

json_t *count_json(double x) {
    return x == floor(x) && fabs(x) < 9e15 ? json_integer((json_int_t)x) : json_real(x);
}

static double pooled_tau(const Sweep *s, const SweepSlice *slice, Head h, int k, double *rounds) {
    StepCount sum = {0};
    for (int64_t i = 0; i < s->n; i++) {
        const StepCount c = slice_count(slice, &s->prompt[i], s->rule[0], h, k);
        sum.rounds += c.rounds;
        sum.tokens += c.tokens;
    }
    *rounds = sum.rounds;
    return step_tau(sum);
}

static json_t *head_json(const Sweep *sweep, int d, const SweepSlice *slice, Head h,
                         const SweepIntervals *ci) {
    json_t *tau = json_array(), *interval = json_array(), *rounds = json_array();
    for (int k = 1; k <= sweep[d].K; k++) {
        double n;
        json_array_append_new(tau, json_real(pooled_tau(&sweep[d], slice, h, k, &n)));
        json_array_append_new(interval, interval_json(sweep_tau(ci, d, 0, h, k)));
        json_array_append_new(rounds, count_json(n));
    }
    return json_pack("{so so so}", "tau", tau, "tau_ci", interval, "num_drafts", rounds);
}

static json_t *pair_json(const Sweep *sweep, int d, const SweepSlice *slice, Head h,
                         const SweepIntervals *ci) {
    const Head beside = sweep_beside(sweep[d].deployed, sweep[0].deployed, h);
    json_t *gain = json_array(), *interval = json_array();
    for (int k = 1; k <= sweep[0].K; k++) {
        double rounds;
        const double base = pooled_tau(&sweep[0], slice, beside, k, &rounds),
                     tau = pooled_tau(&sweep[d], slice, h, k, &rounds);
        json_array_append_new(gain, json_real(base > 0.0 ? tau / base - 1.0 : 0.0));
        json_array_append_new(interval, interval_json(sweep_gain(ci, d, 0, h, k)));
    }
    return json_pack("{so so}", "gain", gain, "ci", interval);
}

static void add_drafter(json_t *o, json_t *pairs, const Sweep *sweep, int d,
                        const SweepSlice *slice, const SweepIntervals *ci) {
    json_t *drafter = json_object(), *pair = json_object();
    for (int h = 0; h < 2; h++) {
        char key[32];
        if (sweep_key(key, &sweep[d], sweep[d].rule[0], (Head)h) == NULL) continue;
        json_object_set_new(drafter, key, head_json(sweep, d, slice, (Head)h, ci));
        json_object_set_new(pair, key, pair_json(sweep, d, slice, (Head)h, ci));
    }
    json_object_set_new(o, sweep[d].name, drafter);
    if (d == 1) json_object_set(o, "paired", pair);
    if (d > 0) json_object_set(pairs, sweep[d].name, pair);
    json_decref(pair);
}

static bool add_slice(json_t *to, const char *name, const AcceptanceReport *r,
                      const SweepSlice *slice, Err *err) {
    const Sweep *first = &r->sweep[0];
    int64_t prompts = 0, tokens = 0;
    for (int64_t i = 0; i < first->n; i++) {
        const Measured *m = &first->prompt[i];
        if (!slice_has(slice, m)) continue;
        prompts++;
        tokens += slice->by_part ? m->part_tokens[slice->part] : m->tokens;
    }
    if (prompts == 0) return true;
    SweepIntervals *ci = sweep_intervals(r->sweep, r->n, 1, slice, &r->how, err);
    if (ci == NULL) return false;
    json_t *o = json_pack("{sI sI}", "prompts", (json_int_t)prompts, "tokens", (json_int_t)tokens),
           *pairs = json_object();
    for (int d = 0; d < r->n; d++) add_drafter(o, pairs, r->sweep, d, slice, ci);
    json_object_set_new(o, "pairs", pairs);
    json_object_set_new(to, name, o);
    sweep_intervals_free(ci);
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
    static const char *const names[] = {"categories", "sources", "kinds", "contexts"};
    json_t *to[4];
    for (int i = 0; i < 4; i++) json_object_set_new(report, names[i], to[i] = json_object());
    bool ok = add_names(to[0], r, false, err) && add_names(to[1], r, true, err);
    for (int p = 0; p < PART_COUNT && ok; p++) {
        const SweepSlice slice = {.by_part = true, .part = (TextPart)p};
        ok = add_slice(to[p < PART_KINDS ? 2 : 3], part_name((TextPart)p), r, &slice, err);
    }
    return ok;
}
