// infer/export/json_edit.c - finds a member of the outermost object in JSON text and replaces its
// value.
#include "infer/export/json_edit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/json.h"

// What a scan over the outermost object found; offsets into the text.
typedef struct {
    size_t value, value_end; // of the key, value_end 0 = absent
    size_t last_end;         // end of the last member's value, 0 = no members
    size_t last_key;         // start of the last member's key
    size_t close;            // the closing brace
} Scan;

static size_t skip_string(const char *s,
                          size_t i) { // i at the opening quote; behind the closing one
    for (i++; s[i] != '"'; i++)
        if (s[i] == '\\') i++;
    return i + 1;
}

static int is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

// The text has been accepted by the parser: quotes and braces are known to match.
static Scan scan(const char *s, size_t size, const char *key) {
    Scan r = {0};
    const size_t key_size = strlen(key);
    int depth = 0;
    bool in_value = false, wanted = false;
    for (size_t i = 0; i < size;) {
        const char c = s[i];
        if (c == '"' && depth == 1 && !in_value) {
            const size_t end = skip_string(s, i);
            wanted = end - i == key_size + 2 && memcmp(s + i + 1, key, key_size) == 0;
            r.last_key = i;
            i = end;
            while (s[i] != ':') i++;
            for (i++; is_space(s[i]);) i++;
            if (wanted) r.value = i;
            in_value = true;
            continue;
        }
        if (in_value && !is_space(c) && !(depth == 1 && (c == ',' || c == '}'))) {
            const size_t end = c == '"' ? skip_string(s, i) : i + 1;
            r.last_end = end;
            if (wanted) r.value_end = end;
        }
        if (c == '"') {
            i = skip_string(s, i);
            continue;
        }
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') depth--;
        if (depth == 0 && c == '}') r.close = i;
        if (depth == 1 && c == ',') in_value = wanted = false;
        i++;
    }
    return r;
}

static char *replace(const char *text, size_t size, size_t from, size_t to, const char *with) {
    const size_t n = strlen(with);
    char *out = malloc(size - (to - from) + n + 1);
    if (out == NULL) return NULL;
    memcpy(out, text, from);
    memcpy(out + from, with, n);
    memcpy(out + from + n, text + to, size - to);
    out[size - (to - from) + n] = '\0';
    return out;
}

// Where the line of a member begins: the white space in front of its key.
static size_t line_of(const char *text, size_t key) {
    size_t line = key;
    while (line > 0 && is_space(text[line - 1])) line--;
    return line;
}

// The value as text that stands in a member with that white space in front of it. NULL: no memory.
static char *value_text(const json_t *value, const char *space, size_t size) {
    const char *newline = memrchr(space, '\n', size);
    const size_t indent = newline != NULL ? size - (size_t)(newline + 1 - space) : 0;
    const bool lines = indent > 0 && indent <= 8;
    char *flat = json_text(value, lines ? JSON_INDENT(indent) : JSON_COMPACT), *out, *to;
    if (flat == NULL || !lines) return flat;
    size_t breaks = 0;
    for (const char *p = flat; *p != '\0'; p++) breaks += *p == '\n';
    if ((out = to = malloc(strlen(flat) + breaks * indent + 1)) != NULL) {
        for (const char *p = flat; *p != '\0'; p++) {
            *to++ = *p;
            if (*p != '\n') continue;
            memcpy(to, newline + 1, indent);
            to += indent;
        }
        *to = '\0';
    }
    free(flat);
    return out;
}

static char *edit(const char *text, size_t size, const char *key, const json_t *value) {
    const Scan r = scan(text, size, key);
    const size_t line = line_of(text, r.last_key), space = r.last_end > 0 ? r.last_key - line : 0;
    char *inner = value_text(value, text + line, space), *member, *out = NULL;
    if (inner == NULL) return NULL;
    if (r.value_end > 0) {
        out = replace(text, size, r.value, r.value_end, inner);
    } else if (asprintf(&member, "%s%.*s\"%s\": %s", r.last_end > 0 ? "," : "", (int)space,
                        text + line, key, inner) >= 0) {
        const size_t at = r.last_end > 0 ? r.last_end : r.close; // indented as the last member is
        out = replace(text, size, at, at, member);
        free(member);
    }
    free(inner);
    return out;
}

char *json_text_put(const char *name, const char *text, size_t size, const char *key,
                    const json_t *value, Err *err) {
    json_t *before = json_read_text(text, size, err);
    char *out = NULL;
    if (before == NULL) {
        err_wrap(err, "%s", name);
        return NULL;
    }
    if (!json_is_object(before)) {
        err_set(err, ERR_INPUT, "%s: not a JSON object", name);
    } else if (json_equal(json_object_get(before, key), value)) {
        if ((out = replace(text, size, size, size, "")) == NULL)
            err_set(err, ERR_FAILED, "out of memory");
    } else if ((out = edit(text, size, key, value)) == NULL) {
        err_set(err, ERR_FAILED, "out of memory");
    } else { // the edit must mean what was meant
        json_object_set(before, key, (json_t *)value);
        json_t *after = json_read_text(out, strlen(out), NULL);
        if (after == NULL || !json_equal(before, after)) { // a key spelled with escapes
            err_set(err, ERR_INPUT, "%s: cannot set %s in place", name, key);
            free(out);
            out = NULL;
        }
        json_decref(after);
    }
    json_decref(before);
    return out;
}

char *json_text_set(const char *name, const char *text, size_t size, const char *key, int64_t value,
                    Err *err) {
    json_t *number = json_integer(value);
    char *out = json_text_put(name, text, size, key, number, err);
    json_decref(number);
    return out;
}
