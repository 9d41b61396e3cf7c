// infer/text/chat_print.c - str() and repr() of JSON values as Python prints them.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/utf8.h"
#include "infer/text/chat_json.h"
#include "infer/text/chat_value.h"

static void add(Bytes *out, const char *text) {
    bytes_add(out, text, strlen(text));
}

// float.__repr__: the fewest digits that read back, with an exponent below 1e-4 and from 1e16.
static void print_real(Bytes *out, double x) {
    char digits[40], text[64];
    int precision = 0;
    do snprintf(digits, sizeof digits, "%.*e", precision, x);
    while (strtod(digits, NULL) != x && precision++ < 17);
    char *e = strchr(digits, 'e');
    const int exponent = atoi(e + 1);
    if (exponent < -4 || exponent >= 16) {
        *e = '\0';
        snprintf(text, sizeof text, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        const int places = precision - exponent;
        snprintf(text, sizeof text, "%.*f", places > 1 ? places : 1, x);
    }
    add(out, text);
}

// Scalars that repr() escapes although they are above U+00A0: separators and format characters, the
// ones that occur in text. (Python's list also has every unassigned scalar.)
static bool unprintable(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD || c == 0x61C || c == 0x1680 ||
           c == 0x180E || (c >= 0x2000 && c <= 0x200F) || (c >= 0x2028 && c <= 0x202F) ||
           (c >= 0x205F && c <= 0x206F) || c == 0x3000 || (c >= 0xE000 && c <= 0xF8FF) ||
           (c >= 0xFDD0 && c <= 0xFDEF) || c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB) ||
           (c & 0xFFFE) == 0xFFFE || (c >= 0xE0000 && (c < 0xE0100 || c > 0xE01EF));
}

static void repr_string(Bytes *out, const char *text, size_t size) {
    const bool twice = memchr(text, '\'', size) != NULL && memchr(text, '"', size) == NULL;
    const char quote = twice ? '"' : '\'';
    bytes_add(out, &quote, 1);
    const unsigned char *p = (const unsigned char *)text, *end = p + size;
    while (p < end) {
        uint32_t c;
        bool valid;
        char escape[16];
        const size_t n = utf8_read(p, end, &c, &valid);
        if (c == '\\' || c == (unsigned char)quote)
            snprintf(escape, sizeof escape, "\\%c", (int)c);
        else if (c == '\n')
            strcpy(escape, "\\n");
        else if (c == '\r')
            strcpy(escape, "\\r");
        else if (c == '\t')
            strcpy(escape, "\\t");
        else if (!unprintable(c))
            snprintf(escape, sizeof escape, "%.*s", (int)n, (const char *)p);
        else if (c < 0x100)
            snprintf(escape, sizeof escape, "\\x%02x", c);
        else if (c < 0x10000)
            snprintf(escape, sizeof escape, "\\u%04x", c);
        else
            snprintf(escape, sizeof escape, "\\U%08x", c);
        add(out, escape);
        p += n;
    }
    bytes_add(out, &quote, 1);
}

static void repr(Bytes *out, const json_t *v);

static void repr_object(Bytes *out, const json_t *v) {
    const char *key;
    size_t size, done = 0;
    json_t *value;
    add(out, "{");
    json_object_keylen_foreach((json_t *)v, key, size, value) {
        if (done++ > 0) add(out, ", ");
        repr_string(out, key, size);
        add(out, ": ");
        repr(out, value);
    }
    add(out, "}");
}

static void repr_array(Bytes *out, const json_t *v) {
    add(out, "[");
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i > 0) add(out, ", ");
        repr(out, json_array_get(v, i));
    }
    add(out, "]");
}

static void repr(Bytes *out, const json_t *v) {
    if (value_is_string(v))
        repr_string(out, json_string_value(v), json_string_length(v));
    else
        value_str(out, v);
}

void value_str(Bytes *out, const json_t *v) {
    char text[32];
    bytes_add(out, "", 0);
    if (v == NULL) return;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        repr_object(out, v);
        break;
    case JSON_ARRAY:
        repr_array(out, v);
        break;
    case JSON_STRING: {
        const size_t mark = value_is_string(v) ? 0 : strlen(CHAT_BIG_INTEGER);
        bytes_add(out, json_string_value(v) + mark, json_string_length(v) - mark);
        break;
    }
    case JSON_INTEGER:
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
        add(out, text);
        break;
    case JSON_REAL:
        print_real(out, json_real_value(v));
        break;
    case JSON_TRUE:
        add(out, "True");
        break;
    case JSON_FALSE:
        add(out, "False");
        break;
    case JSON_NULL:
        add(out, "None");
        break;
    }
}
