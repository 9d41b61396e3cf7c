// eval/audit/frozen.c - tensors are read in pieces from both files; config.json is compared leaf by
// leaf.
#include "eval/audit/frozen.h"

#include <fnmatch.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/json.h"
#include "infer/format/safetensors.h"
#include "infer/model/assistant.h"

enum { PIECE = 1 << 20, CONFIG_LIMIT = 1 << 24 };

typedef struct {
    const StFile *drafter, *stock;
    const StrList *freeze;
    AssistantParam param[ASSISTANT_PARAMS_MAX]; // what can be trained
    int params;
    json_t *failures, *changed;
    int64_t frozen;
} Check;

PRINTF_LIKE(2, 3) static void failure(Check *c, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    json_array_append_new(c->failures, json_string(text));
}

// The head's second name; readers refuse one that is not the table (infer/model/assistant.h).
static bool is_alias(const char *name) {
    return strcmp(name, "lm_head.weight") == 0;
}

static bool is_frozen(const Check *c, const char *name) {
    for (int i = 0; i < c->freeze->n; i++)
        if (fnmatch(c->freeze->item[i], name, 0) == 0) return true;
    for (int i = 0; i < c->params; i++)
        if (strcmp(c->param[i].name, name) == 0) return false;
    return true;
}

static bool same_shape(const StTensor *a, const StTensor *b) {
    if (a->rank != b->rank || strcmp(a->dtype, b->dtype) != 0) return false;
    return memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) == 0;
}

static double value(const StTensor *t, const char *piece, int64_t i) {
    bf16 half;
    float whole;
    if (strcmp(t->dtype, "BF16") == 0) {
        memcpy(&half, piece + 2 * i, 2);
        return bf16_to_f32(half);
    }
    memcpy(&whole, piece + 4 * i, 4);
    return whole;
}

// Whether the bytes are the same; *relative = |a - b| / |b|, NaN for other dtypes than these two.
static bool compare_tensor(const Check *c, const StTensor *a, const StTensor *b, char *room,
                           bool *same, double *relative, Err *err) {
    const bool real = strcmp(a->dtype, "BF16") == 0 || strcmp(a->dtype, "F32") == 0;
    const int64_t size = a->bytes / (a->count > 0 ? a->count : 1);
    double diff = 0.0, norm = 0.0;
    *same = true;
    for (int64_t at = 0; at < a->bytes; at += PIECE) {
        const int64_t n = a->bytes - at < PIECE ? a->bytes - at : PIECE;
        char *x = room, *y = room + PIECE;
        if (!st_read_part(c->drafter, a, at, n, x, err) ||
            !st_read_part(c->stock, b, at, n, y, err))
            return false;
        *same &= memcmp(x, y, (size_t)n) == 0;
        for (int64_t i = 0; real && i < n / size; i++) {
            const double u = value(a, x, i), v = value(b, y, i);
            diff += (u - v) * (u - v);
            norm += v * v;
        }
    }
    *relative = !real ? NAN : norm > 0.0 ? sqrt(diff / norm) : diff > 0.0 ? INFINITY : 0.0;
    return true;
}

static void add_changed(Check *c, const char *name, double relative) {
    json_array_append_new(c->changed,
                          json_pack("{ss so}", "name", name, "relative",
                                    isfinite(relative) ? json_real(relative) : json_null()));
}

static void shape_text(char out[96], const StTensor *t) {
    int at = snprintf(out, 96, "%s [", t->dtype);
    for (int i = 0; i < t->rank && at < 80; i++)
        at += snprintf(out + at, (size_t)(96 - at), "%s%lld", i ? "," : "", (long long)t->dim[i]);
    snprintf(out + at, (size_t)(96 - at), "]");
}

static bool check_tensor(Check *c, const StTensor *b, char *room, Err *err) {
    const StTensor *a = st_find(c->drafter, b->name);
    char is[96], was[96];
    bool same;
    double relative;
    if (a == NULL) {
        failure(c, "tensor %s is missing", b->name);
        return true;
    }
    if (!same_shape(a, b)) {
        shape_text(is, a);
        shape_text(was, b);
        failure(c, "tensor %s is %s, the stock one %s", b->name, is, was);
        return true;
    }
    const bool frozen = is_frozen(c, b->name);
    c->frozen += frozen;
    if (!compare_tensor(c, a, b, room, &same, &relative, err)) return false;
    if (same) return true;
    add_changed(c, b->name, relative);
    if (frozen) failure(c, "frozen tensor %s is not the stock's", b->name);
    return true;
}

static bool check_tensors(Check *c, Err *err) {
    char *room = malloc(2 * (size_t)PIECE);
    CHECK_MEMORY(room);
    bool ok = true;
    for (int i = 0; ok && i < st_count(c->stock); i++)
        if (!is_alias(st_at(c->stock, i)->name))
            ok = check_tensor(c, st_at(c->stock, i), room, err);
    for (int i = 0; i < st_count(c->drafter); i++) {
        const char *name = st_at(c->drafter, i)->name;
        if (!is_alias(name) && st_find(c->stock, name) == NULL)
            failure(c, "tensor %s is not in the stock drafter", name);
    }
    free(room);
    return ok;
}

// Fields that say where a file comes from, or how it was trained; dtypes are the tensors' own.
static bool carries_nothing(const char *key) {
    static const char *const names[] = {
        "transformers_version", "_name_or_path", "name_or_path",      "dtype",
        "torch_dtype",          "use_cache",     "initializer_range", "attention_dropout"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(key, names[i]) == 0) return true;
    return false;
}

static void differ(Check *c, const char *path, const json_t *a, const json_t *b) {
    char *is = json_dumps(a, JSON_ENCODE_ANY | JSON_COMPACT);
    char *was = json_dumps(b, JSON_ENCODE_ANY | JSON_COMPACT);
    failure(c, "config.json: %s is %.80s, the stock one has %.80s", path, is ? is : "absent",
            was ? was : "absent");
    free(is);
    free(was);
}

static bool equal_leaves(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    return json_equal(a, b) || ((a == NULL || json_is_null(a)) && (b == NULL || json_is_null(b)));
}

enum { DEPTH = 4 };

// Members of two objects; a missing member is as good as null.
static void compare_config(Check *c, const char *prefix, const json_t *a, const json_t *b,
                           int depth) {
    json_t *all = json_object();
    const char *key;
    json_t *ignored;
    json_object_update(all, (json_t *)b);
    json_object_update(all, (json_t *)a);
    json_object_foreach(all, key, ignored) {
        char path[256];
        const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
        if (carries_nothing(key)) continue;
        snprintf(path, sizeof path, "%s%s", prefix, key);
        if (json_is_object(x) && json_is_object(y) && depth < DEPTH) {
            strncat(path, ".", sizeof path - strlen(path) - 1);
            compare_config(c, path, x, y, depth + 1);
        } else if (!equal_leaves(x, y)) {
            differ(c, path, x, y);
        }
    }
    json_decref(all);
}

static bool check_config(Check *c, const char *dir, const char *stock, Err *err) {
    char path[PATH_ROOM];
    if (!file_exists(path_join(path, dir, "config.json"))) return true; // read with the stock's
    json_t *a = json_read_file(path, CONFIG_LIMIT, err), *b = NULL;
    if (a != NULL) b = json_read_file(path_join(path, stock, "config.json"), CONFIG_LIMIT, err);
    const bool ok = a != NULL && b != NULL;
    if (ok) compare_config(c, "", a, b, 0);
    json_decref(a);
    json_decref(b);
    return ok;
}

static json_t *result(const Check *c, const char *skipped) {
    return json_pack("{sb ss sI sI sO sO}", "passed", json_array_size(c->failures) == 0, "skipped",
                     skipped, "tensors", (json_int_t)(c->stock ? st_count(c->stock) : 0), "frozen",
                     (json_int_t)c->frozen, "changed", c->changed, "failures", c->failures);
}

static bool same_folder(const char *a, const char *b) {
    char x[PATH_MAX], y[PATH_MAX];
    return realpath(a, x) != NULL && realpath(b, y) != NULL && strcmp(x, y) == 0;
}

static bool compare(Check *c, const char *dir, const char *stock, Err *err) {
    AssistantConfig cfg;
    AssistantWeights w = {0};
    if (!assistant_config_load(&cfg, stock, err)) return err_wrap(err, "%s", stock);
    if (cfg.text.layers < 1 || cfg.text.layers > ASSISTANT_LAYERS_MAX)
        return err_set(err, ERR_INPUT, "%s: %lld layers, this program takes 1 to %d", stock,
                       (long long)cfg.text.layers, ASSISTANT_LAYERS_MAX);
    c->params = assistant_params(&cfg, &w, c->param);
    return check_config(c, dir, stock, err) && check_tensors(c, err);
}

json_t *frozen_check(const char *dir, const char *stock, const StrList *freeze, Err *err) {
    Check *c = calloc(1, sizeof *c);
    StFile *a = NULL, *b = NULL;
    json_t *out = NULL;
    CHECK_MEMORY(c);
    c->freeze = freeze;
    c->failures = json_array();
    c->changed = json_array();
    if (stock[0] == '\0') {
        out = result(c, "no stock drafter (model.assistant_path) to compare with");
    } else if (same_folder(dir, stock)) {
        out = result(c, "the drafter is the stock one");
    } else if ((a = st_open(dir, err)) != NULL && (b = st_open(stock, err)) != NULL) {
        c->drafter = a;
        c->stock = b;
        if (compare(c, dir, stock, err)) out = result(c, "");
    }
    st_close(a);
    st_close(b);
    json_decref(c->failures);
    json_decref(c->changed);
    free(c);
    return out;
}

bool frozen_gate(const json_t *frozen, Err *err) {
    const json_t *all = json_object_get(frozen, "failures");
    const size_t n = json_array_size(all);
    if (n == 0) return true;
    char more[48] = "";
    if (n > 1) snprintf(more, sizeof more, " (and %zu more)", n - 1);
    return err_set(err, ERR_GATE, "frozen parts: %s%s", json_string_value(json_array_get(all, 0)),
                   more);
}

void frozen_markdown(FILE *out, const json_t *frozen) {
    const char *skipped = json_string_value(json_object_get(frozen, "skipped"));
    const json_t *changed = json_object_get(frozen, "changed");
    size_t i;
    json_t *o;
    if (skipped[0] != '\0') {
        fprintf(out, "\nFrozen parts: skipped, %s\n", skipped);
        return;
    }
    fprintf(out,
            "\nFrozen parts: %lld tensors beside the stock drafter's, %lld of them frozen, %zu "
            "changed: %s\n",
            json_integer_value(json_object_get(frozen, "tensors")),
            json_integer_value(json_object_get(frozen, "frozen")), json_array_size(changed),
            json_is_true(json_object_get(frozen, "passed")) ? "passed" : "FAILED");
    json_array_foreach(json_object_get(frozen, "failures"), i, o)
        fprintf(out, "- %s\n", json_string_value(o));
    if (json_array_size(changed) > 0) fprintf(out, "\n| changed tensor | relative |\n|---|---|\n");
    json_array_foreach(changed, i, o) {
        const json_t *r = json_object_get(o, "relative");
        fprintf(out, "| %s | ", json_string_value(json_object_get(o, "name")));
        if (json_is_real(r))
            fprintf(out, "%.2g |\n", json_real_value(r));
        else
            fprintf(out, "- |\n");
    }
}
