// eval/cost/cost_json.c - cost tables as JSON: written by us, or given by a user for another
// device.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/cost/cost.h"
#include "infer/base/json.h"

enum { COST_LIMIT = 64 << 20 }; // acceptance.json is read too

// Where a value stands: file, field, and its part where it has one ("dense").
typedef struct {
    const char *file, *field, *part;
} Place;

static bool refused(const Place *at, int index, const json_t *v, const char *wanted, Err *err) {
    char *text = json_text(v, JSON_COMPACT), where[32] = "";
    if (index > 0) snprintf(where, sizeof where, "[%d]", index - 1);
    err_set(err, ERR_INPUT, "%s: \"%s\"%s%s%s is %.60s, expected %s", at->file, at->field,
            at->part ? "." : "", at->part ? at->part : "", where, text ? text : "?", wanted);
    free(text);
    return false;
}

typedef struct {
    double *to;
    bool optional; // null: not known
    bool signed_;  // may be below 0
} Cell;

static bool read_number(const Place *at, int index, const json_t *v, Cell cell, Err *err) {
    if (cell.optional && json_is_null(v)) return true;
    const double x = json_is_number(v) ? json_number_value(v) : NAN;
    // an upper bound: whatever is computed from it must stay finite
    if (!(fabs(x) <= 1e9) || (!cell.signed_ && x <= 0.0))
        return refused(at, index, v,
                       cell.signed_    ? "a number"
                       : cell.optional ? "a number above 0 or null"
                                       : "a number above 0",
                       err);
    *cell.to = x;
    return true;
}

// to[1 ..] from an array of at least `least` and at most `most` numbers; *n: how many.
typedef struct {
    double *to;
    int *n;
    int least, most;
    bool first_known; // entry 1 must not be null
} Row;

static bool read_row(const Place *at, const json_t *v, const Row *row, Err *err) {
    char wanted[96];
    snprintf(wanted, sizeof wanted, "an array of %d to %d numbers", row->least, row->most);
    if (!json_is_array(v)) return refused(at, 0, v, wanted, err);
    const size_t n = json_array_size(v);
    if (n < (size_t)row->least || n > (size_t)row->most)
        return err_set(err, ERR_INPUT, "%s: \"%s\"%s%s has %zu entries, expected %d to %d",
                       at->file, at->field, at->part ? "." : "", at->part ? at->part : "", n,
                       row->least, row->most);
    for (size_t i = 0; i < n; i++) {
        const bool known = row->first_known && i == 0;
        if (!read_number(at, (int)i + 1, json_array_get(v, i),
                         (Cell){.to = &row->to[i + 1], .optional = !known}, err))
            return false;
    }
    *row->n = (int)n;
    return true;
}

static bool head_of(const char *name, Head *head) {
    for (*head = HEAD_DENSE; *head <= HEAD_CENTROID; (*head)++)
        if (strcmp(name, cost_head_name(*head)) == 0) return true;
    return false;
}

// An object by head: numbers into to[head], or rows of `by_k`.
typedef struct {
    double *number;
    double (*by_k)[DRAFT_MAX + 1];
    bool signed_;
} Heads;

static bool read_heads(Place at, json_t *v, Heads heads, Err *err) {
    json_t *x;
    Head head;
    if (!json_is_object(v) || json_object_size(v) == 0)
        return refused(&at, 0, v, "an object with \"dense\", \"centroid\" or both", err);
    json_object_foreach(v, at.part, x) {
        int n;
        if (!head_of(at.part, &head))
            return refused(&at, 0, x, "nothing of that name, only \"dense\" and \"centroid\"", err);
        const bool ok =
            heads.by_k != NULL
                ? read_row(&at, x, &(Row){heads.by_k[head], &n, 1, DRAFT_MAX, false}, err)
                : read_number(&at, 0, x, (Cell){&heads.number[head], true, heads.signed_}, err);
        if (!ok) return false;
    }
    return true;
}

static bool read_text(const Place *at, const json_t *v, char *to, size_t size, Err *err) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "a text of 1 to %zu bytes", size - 1);
    const char *text = json_string_value(v);
    if (text == NULL || text[0] == '\0' || strlen(text) >= size)
        return refused(at, 0, v, wanted, err);
    strcpy(to, text);
    return true;
}

static bool read_count(const Place *at, const json_t *v, int64_t *to, Err *err) {
    *to = json_integer_value(v);
    return (json_is_integer(v) && *to >= 0) || refused(at, 0, v, "a whole number, 0 or more", err);
}

static bool read_field(CostTable *c, Place at, json_t *v, Err *err) {
    int n;
    const char *key = at.field;
    if (!strcmp(key, "device")) return read_text(&at, v, c->device, sizeof c->device, err);
    if (!strcmp(key, "source")) return read_text(&at, v, c->source, sizeof c->source, err);
    if (!strcmp(key, "dtype")) return read_text(&at, v, c->dtype, sizeof c->dtype, err);
    if (!strcmp(key, "context")) return read_count(&at, v, &c->context, err);
    if (!strcmp(key, "repetitions")) return read_count(&at, v, &c->repetitions, err);
    if (!strcmp(key, "target_ms"))
        return read_row(&at, v, &(Row){c->target_ms, &c->widths, 2, DRAFT_MAX + 1, true}, err);
    if (!strcmp(key, "target_spread_ms"))
        return json_is_null(v) ||
               read_row(&at, v, &(Row){c->target_spread_ms, &n, 1, DRAFT_MAX + 1, false}, err);
    if (!strcmp(key, "round_ratio"))
        return read_row(&at, v, &(Row){c->round_ratio, &c->lengths, 1, DRAFT_MAX, false}, err);
    if (!strcmp(key, "drafter_ms")) return read_heads(at, v, (Heads){.number = c->drafter_ms}, err);
    if (!strcmp(key, "drafter_round_ms"))
        return read_heads(at, v, (Heads){.number = c->drafter_round_ms, .signed_ = true}, err);
    if (!strcmp(key, "drafts_ms")) return read_heads(at, v, (Heads){.by_k = c->drafts_ms}, err);
    if (!strcmp(key, "drafts_spread_ms"))
        return read_heads(at, v, (Heads){.by_k = c->drafts_spread_ms}, err);
    return refused(&at, 0, v,
                   "nothing of that name, only \"device\", \"target_ms\" with \"drafter_ms\", or "
                   "\"round_ratio\"; \"context\", \"dtype\"",
                   err);
}

// Which of the fields have to be there together.
static bool check_whole(CostTable *c, const char *file, const json_t *o, Err *err) {
    const bool times = json_object_get(o, "target_ms") != NULL,
               drafter = json_object_get(o, "drafter_ms") != NULL,
               ratios = json_object_get(o, "round_ratio") != NULL;
    if (c->device[0] == '\0')
        return err_set(err, ERR_INPUT, "%s: no \"device\", expected the name of the device", file);
    if (ratios && (times || drafter))
        return err_set(
            err, ERR_INPUT,
            "%s: \"round_ratio\" beside \"%s\", expected one or the other: a ratio holds "
            "the drafter's share already",
            file, times ? "target_ms" : "drafter_ms");
    if (!ratios && !times)
        return err_set(err, ERR_INPUT,
                       "%s: no \"target_ms\", expected ms of a target call by width 1, 2, .. (or "
                       "\"round_ratio\")",
                       file);
    if (times && !(c->drafter_ms[0] > 0.0 || c->drafter_ms[1] > 0.0))
        return err_set(
            err, ERR_INPUT,
            "%s: no \"drafter_ms\", expected {\"dense\": ms, \"centroid\": ms} or one of "
            "them",
            file);
    if (times) c->lengths = c->widths - 1;
    if (ratios && cost_limit(c, HEAD_DENSE) == 0)
        return err_set(err, ERR_INPUT, "%s: \"round_ratio\" is all null, expected a number", file);
    return true;
}

bool cost_from_json(CostTable *out, const json_t *o, const char *file, Err *err) {
    *out = (CostTable){0};
    const json_t *inner = json_object_get(o, "cost");
    if (inner != NULL) o = inner;
    if (!json_is_object(o))
        return err_set(err, ERR_INPUT, "%s: a cost table is an object, expected {\"device\": ..}",
                       file);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v) {
        if (!read_field(out, (Place){.file = file, .field = key}, v, err)) return false;
    }
    return check_whole(out, file, o, err);
}

bool cost_load(CostTable *out, const char *path, Err *err) {
    json_t *o = json_read_file(path, COST_LIMIT, err);
    if (o == NULL) return false;
    const bool ok = cost_from_json(out, o, path, err);
    json_decref(o);
    snprintf(out->source, sizeof out->source, "%s", path);
    return ok;
}

static json_t *number_or_null(double x) {
    return x != 0.0 ? json_real(x) : json_null();
}

static json_t *row_json(const double *from, int n) {
    json_t *a = json_array();
    for (int i = 1; i <= n; i++) json_array_append_new(a, number_or_null(from[i]));
    return a;
}

static void set_found(json_t *o, const char *key, json_t *heads) {
    if (json_object_size(heads) > 0) json_object_set(o, key, heads);
    json_decref(heads);
}

static void set_heads(json_t *o, const char *key, const double number[2]) {
    json_t *heads = json_object();
    for (int h = 0; h < 2; h++)
        if (number[h] != 0.0)
            json_object_set_new(heads, cost_head_name((Head)h), json_real(number[h]));
    set_found(o, key, heads);
}

static void set_heads_by_k(json_t *o, const char *key, const double by_k[2][DRAFT_MAX + 1], int n) {
    json_t *heads = json_object();
    for (int h = 0; h < 2; h++)
        if (by_k[h][1] > 0.0)
            json_object_set_new(heads, cost_head_name((Head)h), row_json(by_k[h], n));
    set_found(o, key, heads);
}

json_t *cost_json(const CostTable *c) {
    json_t *o = json_object();
    json_object_set_new(o, "device", json_string(c->device));
    json_object_set_new(o, "source", json_string(c->source));
    if (c->context > 0) json_object_set_new(o, "context", json_integer(c->context));
    if (c->dtype[0] != '\0') json_object_set_new(o, "dtype", json_string(c->dtype));
    if (c->target_ms[1] <= 0.0) {
        json_object_set_new(o, "round_ratio", row_json(c->round_ratio, c->lengths));
        return o;
    }
    json_object_set_new(o, "target_ms", row_json(c->target_ms, c->widths));
    set_heads(o, "drafter_ms", c->drafter_ms);
    set_heads(o, "drafter_round_ms", c->drafter_round_ms);
    set_heads_by_k(o, "drafts_ms", c->drafts_ms, c->lengths);
    if (c->repetitions == 0) return o;
    json_object_set_new(o, "repetitions", json_integer(c->repetitions));
    json_object_set_new(o, "target_spread_ms", row_json(c->target_spread_ms, c->widths));
    set_heads_by_k(o, "drafts_spread_ms", c->drafts_spread_ms, c->lengths);
    return o;
}
