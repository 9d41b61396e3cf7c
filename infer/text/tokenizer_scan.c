// infer/text/tokenizer_scan.c - pull reader of JSON.
#include "infer/text/tokenizer_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/utf8.h"

void scan_open(Scan *s, const char *text, size_t size) {
    *s = (Scan){.begin = text, .at = text, .end = text + size};
}

void scan_close(Scan *s) {
    free(s->string);
    *s = (Scan){0};
}

static bool unexpected(Scan *s, const char *wanted, Err *err) {
    const size_t at = (size_t)(s->at - s->begin);
    if (s->at == s->end)
        return err_set(err, ERR_INPUT, "ends at byte %zu where %s should be", at, wanted);
    return err_set(err, ERR_INPUT, "byte %zu is 0x%02X where %s should be", at,
                   (unsigned)(unsigned char)*s->at, wanted);
}

char scan_peek(Scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
    return s->at < s->end ? *s->at : '\0';
}

bool scan_expect(Scan *s, char c, Err *err) {
    const char name[] = {'\'', c, '\'', '\0'};
    if (scan_peek(s) != c || s->at == s->end) return unexpected(s, name, err);
    s->at++;
    return true;
}

bool scan_step(Scan *s, char close, bool *first, bool *more, Err *err) {
    const char name[] = {'\'', ',', '\'', ' ', 'o', 'r', ' ', '\'', close, '\'', '\0'};
    const char c = scan_peek(s);
    *more = c != close;
    if (c == close) {
        s->at++;
    } else if (!*first) {
        if (c != ',') return unexpected(s, name, err);
        s->at++;
        if (scan_peek(s) == close) return unexpected(s, "a value", err);
    }
    *first = false;
    return true;
}

static void keep(Scan *s, const char *bytes, size_t n) {
    if (s->size + n >= s->room) {
        s->room = 2 * (s->size + n) + 64;
        s->string = realloc(s->string, s->room);
        CHECK_MEMORY(s->string);
    }
    if (n > 0) memcpy(s->string + s->size, bytes, n);
    s->size += n;
}

// Four hex digits behind \u; s->at stands on the first.
static bool read_hex4(Scan *s, uint32_t *value, Err *err) {
    *value = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        const char c = s->at < s->end ? *s->at : '\0';
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return unexpected(s, "a hex digit", err);
        *value = *value << 4 | (uint32_t)digit;
    }
    return true;
}

static bool read_unicode_escape(Scan *s, Err *err) {
    uint32_t scalar, low;
    if (!read_hex4(s, &scalar, err)) return false;
    if (scalar >= 0xD800 && scalar < 0xDC00) {
        if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
            return unexpected(s, "the second half of a surrogate pair", err);
        s->at += 2;
        if (!read_hex4(s, &low, err)) return false;
        if (low < 0xDC00 || low > 0xDFFF)
            return unexpected(s, "text behind a whole surrogate pair", err);
        scalar = 0x10000 + ((scalar - 0xD800) << 10 | (low - 0xDC00));
    } else if (scalar >= 0xDC00 && scalar < 0xE000) {
        return unexpected(s, "text behind a whole surrogate pair", err);
    }
    char bytes[4];
    keep(s, bytes, utf8_write(scalar, bytes));
    return true;
}

static bool read_escape(Scan *s, Err *err) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char c = s->at < s->end ? *s->at : '\0';
    if (c == 'u') {
        s->at++;
        return read_unicode_escape(s, err);
    }
    const char *found = c ? strchr(from, c) : NULL;
    if (found == NULL) return unexpected(s, "an escape", err);
    s->at++;
    keep(s, &to[found - from], 1);
    return true;
}

bool scan_string(Scan *s, Err *err) {
    if (scan_peek(s) != '"') return unexpected(s, "a string", err);
    s->at++;
    s->size = 0;
    for (;;) {
        const char *run = s->at;
        while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20)
            s->at++;
        if (!utf8_valid(run, (size_t)(s->at - run)))
            return err_set(err, ERR_INPUT, "the string at byte %zu is not UTF-8",
                           (size_t)(run - s->begin));
        keep(s, run, (size_t)(s->at - run));
        if (s->at == s->end || (unsigned char)*s->at < 0x20)
            return unexpected(s, "the end of a string", err);
        if (*s->at++ == '"') return true;
        if (!read_escape(s, err)) return false;
    }
}

bool scan_key(Scan *s, Err *err) {
    return scan_string(s, err) && scan_expect(s, ':', err);
}

bool scan_index(Scan *s, int32_t limit, int32_t *out, Err *err) {
    int64_t value = 0;
    (void)scan_peek(s);
    const char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && value <= INT32_MAX)
        value = value * 10 + (*s->at++ - '0');
    const bool ended = s->at == s->end || strchr(",]} \n\r\t", *s->at) != NULL;
    if (s->at == from || !ended || (*from == '0' && s->at - from > 1) || value >= limit) {
        s->at = from;
        char wanted[64];
        snprintf(wanted, sizeof wanted, "an integer in 0..%d", limit - 1);
        return unexpected(s, wanted, err);
    }
    *out = (int32_t)value;
    return true;
}

static bool skip_string(Scan *s, Err *err) {
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
        if (*s->at == '\\' && s->at + 1 < s->end) s->at++;
    if (s->at == s->end) return unexpected(s, "the end of a string", err);
    s->at++;
    return true;
}

bool scan_skip(Scan *s, const char **from, const char **to, Err *err) {
    if (scan_peek(s) == '\0') return unexpected(s, "a value", err);
    *from = s->at;
    int64_t depth = 0;
    do {
        const char c = scan_peek(s);
        if (c == '\0') return unexpected(s, "the end of a value", err);
        if (c == '"') {
            if (!skip_string(s, err)) return false;
        } else if (c == '{' || c == '[') {
            depth++;
            s->at++;
        } else if (c == '}' || c == ']') {
            if (depth-- == 0) return unexpected(s, "a value", err);
            s->at++;
        } else if (depth > 0 && (c == ',' || c == ':')) {
            s->at++;
        } else {
            const char *word = s->at;
            while (s->at < s->end && strchr(",:]}[{\" \n\r\t", *s->at) == NULL) s->at++;
            if (s->at == word) return unexpected(s, "a value", err);
        }
    } while (depth > 0);
    *to = s->at;
    return true;
}
