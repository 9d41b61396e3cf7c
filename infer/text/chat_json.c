// infer/text/chat_json.c - rewrites integers that jansson refuses before it sees them.
#include "infer/text/chat_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/utf8.h"

// End of the number at p; *big: an integer that does not fit int64.
static const char *number_end(const char *p, const char *end, bool *big) {
    const char *q = p;
    bool real = false;
    for (; q < end && strchr("0123456789+-.eE", *q) != NULL && *q; q++)
        if (strchr(".eE", *q) != NULL) real = true;
    char digits[24];
    const size_t length = (size_t)(q - p);
    *big = !real && length >= 19;
    if (*big && length < sizeof digits) {
        memcpy(digits, p, length);
        digits[length] = '\0';
        errno = 0;
        (void)strtoll(digits, NULL, 10);
        *big = errno == ERANGE;
    }
    return q;
}

// JSON's grammar of an integer: what is not one stays as it is, for jansson to refuse.
static bool is_integer(const char *p, const char *end) {
    if (p < end && *p == '-') p++;
    if (p == end || (*p == '0' && end - p > 1)) return false;
    for (; p < end; p++)
        if (*p < '0' || *p > '9') return false;
    return true;
}

static const char *string_end(const char *p, const char *end) {
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\' && p + 1 < end) p++;
    return p < end ? p + 1 : end;
}

// Copies text to out (or only measures when out is NULL), long integers as marked strings.
static size_t rewrite(const char *text, size_t size, char *out) {
    const char *p = text, *end = text + size;
    size_t n = 0;
    while (p < end) {
        bool big = false;
        const char *q = p + 1;
        if (*p == '"')
            q = string_end(p, end);
        else if (*p == '-' || (*p >= '0' && *p <= '9'))
            q = number_end(p, end, &big);
        big = big && is_integer(p, q);
        const char *mark = big ? "\"" CHAT_BIG_INTEGER : "";
        const size_t length = (size_t)(q - p), head = strlen(mark);
        if (out != NULL) {
            memcpy(out + n, mark, head);
            memcpy(out + n + head, p, length);
            if (big) out[n + head + length] = '"';
        }
        n += head + length + (big ? 1 : 0);
        p = q;
    }
    return n;
}

// jansson 2.14 on 64 bits: nodes, hash tables and slots with what malloc adds, doubled tables
// included. Characters that stand inside of strings are counted, too: an upper bound is enough.
size_t chat_json_cost(const char *text, size_t size) {
    size_t cost = size;
    for (size_t i = 0; i < size; i++) switch (text[i]) {
        case '{':
            cost += 256;
            break;
        case '[':
            cost += 160;
            break;
        case ':':
            cost += 112;
            break;
        case ',':
            cost += 56;
            break;
        case '"':
            cost += 32;
            break;
        default:
            break;
        }
    return cost;
}

json_t *chat_json_read(const char *text, size_t size, Err *err) {
    const size_t cost = chat_json_cost(text, size);
    if (cost > CHAT_JSON_COST) {
        err_set(err, ERR_INPUT, "its values would take %zu MiB, at most %zu are read", cost >> 20,
                CHAT_JSON_COST >> 20);
        return NULL;
    }
    const size_t n = rewrite(text, size, NULL);
    char *changed = NULL;
    if (n != size) {
        changed = malloc(n);
        CHECK_MEMORY(changed);
        (void)rewrite(text, size, changed);
    }
    json_error_t why;
    json_t *value =
        json_loadb(changed ? changed : text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    char quoted[sizeof why.text];
    if (value == NULL)
        err_set(err, ERR_INPUT, "not valid JSON at column %d: %s", why.column,
                utf8_fit(quoted, sizeof quoted, why.text));
    free(changed);
    return value;
}
