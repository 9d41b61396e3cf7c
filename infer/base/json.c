// infer/base/json.c - jansson with our errors.
#include "infer/base/json.h"

#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/base/utf8.h"

static json_t *parse(const char *text, size_t size, const char *path, Err *err) {
    json_error_t e;
    char why[sizeof e.text]; // it quotes the file
    json_t *v = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
    if (v != NULL) return v;
    utf8_fit(why, sizeof why, e.text);
    if (path != NULL)
        err_set(err, ERR_INPUT, "%s:%d:%d: not valid JSON: %s", path, e.line, e.column, why);
    else
        err_set(err, ERR_INPUT, "not valid JSON at column %d: %s", e.column, why);
    return NULL;
}

json_t *json_read_text(const char *text, size_t size, Err *err) {
    return parse(text, size, NULL, err);
}

json_t *json_read_file(const char *path, int64_t limit, Err *err) {
    size_t size;
    char *text = file_read(path, limit, &size, err);
    if (text == NULL) return NULL;
    json_t *v = parse(text, size, path, err);
    free(text);
    return v;
}

// Rewrites one real with the fewest digits that read back as the same double; returns its end.
// Never longer than what json_dumps printed with 17 digits.
static char *shorten(char *to, const char *number, size_t n) {
    char text[40];
    const double v = strtod(number, NULL);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    char *e = strchr(text, 'e');
    if (e != NULL) { // 1e-06, 1e+22: as jansson, 1e-6, 1e22
        char *digit = e + 1 + (e[1] == '+' || e[1] == '-'), *keep = e + 1 + (e[1] == '-');
        while (*digit == '0' && digit[1] != '\0') digit++;
        memmove(keep, digit, strlen(digit) + 1);
    } else if (strchr(text, '.') == NULL) {
        strcat(text, ".0");
    }
    const size_t size = strlen(text);
    const bool shorter = size < n;
    memmove(to, shorter ? text : number, shorter ? size : n);
    return to + (shorter ? size : n);
}

char *json_text(const json_t *value, size_t flags) {
    char *text = json_dumps(value, flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17)), *to = text;
    bool quoted = false;
    for (const char *p = text; p != NULL && *p != '\0';) {
        const size_t n = quoted ? 0 : strspn(p, "+-.0123456789eE");
        const bool number = n > 0 && (*p == '-' || (*p >= '0' && *p <= '9'));
        if (number && strcspn(p, ".eE") < n) {
            to = shorten(to, p, n);
            p += n;
            continue;
        }
        if (*p == '"') quoted = !quoted;
        for (size_t k = quoted && *p == '\\' ? 2 : number ? n : 1; k > 0; k--) *to++ = *p++;
    }
    if (text != NULL) *to = '\0';
    return text;
}

bool json_print(const json_t *value, Err *err) {
    char *text = json_text(value, JSON_INDENT(2));
    if (text == NULL) return err_set(err, ERR_FAILED, "out of memory for the JSON to print");
    puts(text);
    free(text);
    return true;
}

bool json_write_file(const char *path, const json_t *value, Err *err) {
    char *text = json_text(value, JSON_INDENT(2));
    if (text == NULL) return err_set(err, ERR_FAILED, "%s: out of memory for its JSON", path);
    OutFile f;
    bool ok = out_open(&f, path, err);
    if (ok) {
        out_write(&f, text, strlen(text));
        out_write(&f, "\n", 1);
        ok = out_commit(&f, err);
    }
    free(text);
    return ok;
}

static const char *type_name(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_NULL:
        return "null";
    default:
        return "a boolean";
    }
}

static bool wrong(const char *key, const json_t *v, const char *wanted, Err *err) {
    return err_set(err, ERR_INPUT, "\"%s\" is %s, expected %s", key, type_name(v), wanted);
}

// NULL: absent or null
static json_t *member(const json_t *o, const char *key) {
    json_t *v = json_object_get(o, key);
    return v == NULL || json_is_null(v) ? NULL : v;
}

bool json_get_i64(const json_t *o, const char *key, int64_t *out, Err *err) {
    const json_t *v = member(o, key);
    if (v == NULL) return true;
    if (!json_is_integer(v)) return wrong(key, v, "an integer", err);
    *out = json_integer_value(v);
    return true;
}

bool json_get_f64(const json_t *o, const char *key, double *out, Err *err) {
    const json_t *v = member(o, key);
    if (v == NULL) return true;
    if (!json_is_number(v)) return wrong(key, v, "a number", err);
    *out = json_number_value(v);
    return true;
}

bool json_get_bool(const json_t *o, const char *key, bool *out, Err *err) {
    const json_t *v = member(o, key);
    if (v == NULL) return true;
    if (!json_is_boolean(v)) return wrong(key, v, "true or false", err);
    *out = json_is_true(v);
    return true;
}

bool json_get_str(const json_t *o, const char *key, const char **out, Err *err) {
    const json_t *v = member(o, key);
    if (v == NULL) return true;
    if (!json_is_string(v)) return wrong(key, v, "a string", err);
    *out = json_string_value(v);
    return true;
}
