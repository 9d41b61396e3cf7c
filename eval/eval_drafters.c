// eval/eval_drafters.c - which drafters are measured, on what kind of text, and by which rules.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/held_out.h"
#include "data/regenerate.h"
#include "eval/eval_parts.h"
#include "infer/model/weight_source.h"

// Keys of a slice in acceptance.json that no drafter may be called.
static bool reserved(const char *name) {
    static const char *const keys[] = {"prompts", "tokens", "paired", "pairs"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(name, keys[i])) return true;
    return false;
}

static bool taken(const Eval *e, const char *name) {
    for (int i = 0; i < e->n; i++)
        if (!strcmp(e->drafter[i].name, name)) return true;
    return reserved(name);
}

// base, or base-2, base-3, ..
static void unique_name(const Eval *e, char out[64], const char *base) {
    snprintf(out, 64, "%.50s", base[0] ? base : "drafter");
    for (int i = 2; taken(e, out); i++)
        snprintf(out, 64, "%.50s-%d", base[0] ? base : "drafter", i);
}

static bool add(Eval *e, const char *name, const char *path, Err *err) {
    if (e->n == EVAL_DRAFTERS_MAX)
        return err_set(err, ERR_USAGE, "eval.drafters: more than %d drafters at once",
                       EVAL_DRAFTERS_MAX);
    EvalDrafter *d = &e->drafter[e->n];
    snprintf(d->name, sizeof d->name, "%s", name);
    snprintf(d->path, sizeof d->path, "%s", path);
    e->n++;
    return true;
}

// NAME=PATH, or PATH named by its last part.
static bool add_listed(Eval *e, const char *item, Err *err) {
    char name[64], path[PATH_ROOM];
    const char *is = strchr(item, '=');
    const bool named = is != NULL && !weight_source_is(item);
    snprintf(path, sizeof path, "%s", named ? is + 1 : item);
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') path[--n] = '\0';
    if (!weight_source_is(path))
        return err_set(err, ERR_USAGE, "eval.drafters: neither a drafter's folder nor its file: %s",
                       path);
    if (named) {
        snprintf(name, sizeof name, "%.*s", (int)(is - item), item);
        if (name[0] == '\0' || taken(e, name))
            return err_set(err, ERR_USAGE, "eval.drafters: the name \"%s\" of %s is already taken",
                           name, path);
    } else {
        unique_name(e, name, path_base(path));
    }
    return add(e, name, path, err);
}

bool eval_list_drafters(Eval *e, Err *err) {
    char trained[PATH_ROOM];
    if (e->s->model.assistant_path[0] == '\0')
        return err_set(err, ERR_USAGE,
                       "model.assistant_path is empty: eval compares with the stock assistant");
    if (!drafter_trained_path(e->s, trained, err) ||
        !add(e, "stock", e->s->model.assistant_path, err) ||
        (trained[0] && !add(e, "trained", trained, err)))
        return false;
    for (int i = 0; i < e->s->eval.drafters.n; i++)
        if (!add_listed(e, e->s->eval.drafters.item[i], err)) return false;
    return true;
}

// What the drafter is stored as; a checkpoint is described by the stock's configuration.
static bool describe(EvalDrafter *d, Err *err) {
    WeightSource *s = weight_source_open(d->path, err);
    if (s == NULL) return false;
    weight_source_info(s, &d->assistant->cfg, &d->artifact);
    weight_source_close(s);
    return true;
}

bool eval_open_drafters(Eval *e, Err *err) {
    for (int i = 0; i < e->n; i++) {
        EvalDrafter *d = &e->drafter[i];
        if ((d->assistant = drafter_open(&e->open, e->s, d->path, err)) == NULL ||
            !describe(d, err))
            return false;
    }
    return true;
}

bool eval_sweep_options(Eval *e, Err *err) {
    const Settings *s = e->s;
    SweepOptions *o = &e->sweep_options;
    *o = (SweepOptions){.K = e->K, .sampler = held_out_sampler(s)};
    sampler_name(e->sampler, &o->sampler);
    for (int i = 0; i < s->eval.p_min.n; i++) {
        char *end;
        const char *text = s->eval.p_min.item[i];
        const double p = strtod(text, &end);
        if (o->p_mins == P_MIN_MAX)
            return err_set(err, ERR_USAGE, "eval.p_min: more than %d values", P_MIN_MAX);
        if (end == text || *end != '\0' || !(p > 0.0 && p <= 1.0))
            return err_set(err, ERR_USAGE, "eval.p_min: \"%s\" is no probability above 0", text);
        o->p_min[o->p_mins++] = p;
    }
    return true;
}
