// infer/base/settings_value.c - values of settings: from text, from JSON, back to JSON.
#include "infer/base/settings_value.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"
#include "infer/base/utf8.h"

static void *place(const Settings *s, const Field *f) {
    return (char *)s + f->offset;
}

static bool in_range(const Field *f, double x, const char *given, Err *err) {
    if (x >= f->min && x <= f->max) return true;
    return err_set(err, ERR_USAGE, "%s is %s, allowed %.10g to %.10g", f->name, given, f->min,
                   f->max);
}

static bool allowed(const Field *f, const char *text, Err *err) {
    const char *p = f->choices;
    while (p != NULL) {
        char one[64];
        const size_t n = strcspn(p, "|");
        snprintf(one, sizeof one, "%.*s", (int)n, p);
        if (fnmatch(one, text, 0) == 0) return true;
        if (p[n] == '\0')
            return err_set(err, ERR_USAGE, "%s is \"%s\", allowed %s", f->name, text, f->choices);
        p += n + 1;
    }
    return true;
}

static bool set_int(Settings *s, const Field *f, int64_t v, Err *err) {
    char given[32];
    snprintf(given, sizeof given, "%" PRId64, v);
    if (!in_range(f, (double)v, given, err)) return false;
    *(int64_t *)place(s, f) = v;
    return true;
}

static bool set_real(Settings *s, const Field *f, double v, Err *err) {
    char given[32];
    snprintf(given, sizeof given, "%.15g", v);
    if (!in_range(f, v, given, err)) return false;
    *(double *)place(s, f) = v;
    return true;
}

static bool set_string(Settings *s, const Field *f, const char *text, Err *err) {
    if (!allowed(f, text, err)) return false;
    char *copy = strdup(text);
    if (copy == NULL) return err_errno(err, "%s", f->name);
    free(*(char **)place(s, f));
    *(char **)place(s, f) = copy;
    return true;
}

static void list_free(StrList *l) {
    for (int i = 0; i < l->n; i++) free(l->item[i]);
    free(l->item);
    *l = (StrList){0};
}

static bool list_add(StrList *l, const Field *f, const char *text, size_t size, Err *err) {
    char **more = realloc(l->item, (size_t)(l->n + 1) * sizeof *more);
    if (more == NULL) return err_errno(err, "%s", f->name);
    l->item = more;
    if ((l->item[l->n] = strndup(text, size)) == NULL) return err_errno(err, "%s", f->name);
    return allowed(f, l->item[l->n++], err);
}

static void list_replace(Settings *s, const Field *f, StrList l) {
    list_free(place(s, f));
    *(StrList *)place(s, f) = l;
}

static bool set_list_text(Settings *s, const Field *f, const char *text, Err *err) {
    StrList l = {0};
    while (*text != '\0') {
        const size_t n = strcspn(text, ",");
        if (n == 0) {
            err_set(err, ERR_USAGE, "%s has an empty item before \"%s\"", f->name, text);
            goto fail;
        }
        if (!list_add(&l, f, text, n, err)) goto fail;
        text += n;
        if (*text == ',' && *++text == '\0') {
            err_set(err, ERR_USAGE, "%s ends with a comma", f->name);
            goto fail;
        }
    }
    list_replace(s, f, l);
    return true;
fail:
    list_free(&l);
    return false;
}

bool field_set_text(Settings *s, const Field *f, const char *text, Err *err) {
    char *end = NULL, shown[128];
    if (!utf8_valid(text, strlen(text))) // the resolved configuration is JSON: it could not say so
        return err_set(err, ERR_USAGE, "%s is \"%s\", which is not UTF-8", f->name,
                       utf8_fit(shown, sizeof shown, text));
    errno = 0;
    switch (f->type) {
    case FIELD_INT: {
        const long long v = strtoll(text, &end, 10);
        if (end == text || *end != '\0' || errno != 0)
            return err_set(err, ERR_USAGE, "%s is \"%s\", expected an integer", f->name, text);
        return set_int(s, f, v, err);
    }
    case FIELD_REAL: {
        const double v = strtod(text, &end);
        if (end == text || *end != '\0' || !isfinite(v))
            return err_set(err, ERR_USAGE, "%s is \"%s\", expected a number", f->name, text);
        return set_real(s, f, v, err);
    }
    case FIELD_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return err_set(err, ERR_USAGE, "%s is \"%s\", expected true or false", f->name, text);
        *(bool *)place(s, f) = text[0] == 't';
        return true;
    case FIELD_STR:
        return set_string(s, f, text, err);
    case FIELD_STRS:
        return set_list_text(s, f, text, err);
    }
    return false;
}

static bool wrong_type(const Field *f, const json_t *v, Err *err) {
    static const char *const wanted[] = {"an integer", "a number", "true or false", "a string",
                                         "an array of strings"};
    char *given = json_text(v, JSON_COMPACT);
    err_set(err, ERR_USAGE, "%s is %.200s, expected %s", f->name, given ? given : "?",
            wanted[f->type]);
    free(given);
    return false;
}

static bool set_list_json(Settings *s, const Field *f, const json_t *value, Err *err) {
    StrList l = {0};
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *v = json_array_get(value, i);
        if (!json_is_string(v)) {
            wrong_type(f, value, err);
            goto fail;
        }
        if (!list_add(&l, f, json_string_value(v), json_string_length(v), err)) goto fail;
    }
    list_replace(s, f, l);
    return true;
fail:
    list_free(&l);
    return false;
}

bool field_set_json(Settings *s, const Field *f, const json_t *v, Err *err) {
    switch (f->type) {
    case FIELD_INT:
        if (json_is_integer(v)) return set_int(s, f, json_integer_value(v), err);
        break;
    case FIELD_REAL:
        if (json_is_number(v)) return set_real(s, f, json_number_value(v), err);
        break;
    case FIELD_BOOL:
        if (!json_is_boolean(v)) break;
        *(bool *)place(s, f) = json_is_true(v);
        return true;
    case FIELD_STR:
        if (json_is_string(v)) return set_string(s, f, json_string_value(v), err);
        break;
    case FIELD_STRS:
        if (json_is_array(v)) return set_list_json(s, f, v, err);
        break;
    }
    return wrong_type(f, v, err);
}

json_t *field_json(const Settings *s, const Field *f) {
    switch (f->type) {
    case FIELD_INT:
        return json_integer(*(int64_t *)place(s, f));
    case FIELD_REAL:
        return json_real(*(double *)place(s, f));
    case FIELD_BOOL:
        return json_boolean(*(bool *)place(s, f));
    case FIELD_STR:
        return json_string(*(char **)place(s, f));
    case FIELD_STRS:
        break;
    }
    const StrList *l = place(s, f);
    json_t *a = json_array();
    for (int i = 0; i < l->n; i++) json_array_append_new(a, json_string(l->item[i]));
    return a;
}

void field_free(Settings *s, const Field *f) {
    if (f->type == FIELD_STRS) list_free(place(s, f));
    if (f->type != FIELD_STR) return;
    free(*(char **)place(s, f));
    *(char **)place(s, f) = NULL;
}
