// infer/text/chat_value.c - truth, printing, sorting and trimming as Python and Jinja do them.
#include "infer/text/chat_value.h"

#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>

#include "infer/base/utf8.h"
#include "infer/text/chat_json.h"

void bytes_add(Bytes *b, const char *text, size_t size) {
    if (b->size + size + 1 > b->room) {
        b->room = 2 * (b->size + size) + 64;
        b->text = realloc(b->text, b->room);
        CHECK_MEMORY(b->text);
    }
    if (size > 0) memcpy(b->text + b->size, text, size);
    b->size += size;
    b->text[b->size] = '\0';
}

// Digits behind the mark, or NULL when v is not a marked integer.
static const char *marked_digits(const json_t *v) {
    if (!json_is_string(v)) return NULL;
    const char *text = json_string_value(v);
    const size_t mark = strlen(CHAT_BIG_INTEGER), size = json_string_length(v);
    if (size < mark + 19 || memcmp(text, CHAT_BIG_INTEGER, mark) != 0) return NULL;
    const char *digits = text + mark;
    const size_t sign = *digits == '-';
    return strspn(digits + sign, "0123456789") == size - mark - sign ? digits : NULL;
}

bool value_is_string(const json_t *v) {
    return json_is_string(v) && marked_digits(v) == NULL;
}
bool value_is_integer(const json_t *v) {
    return json_is_integer(v) || marked_digits(v) != NULL;
}

bool value_true(const json_t *v) {
    if (v == NULL) return false;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return json_object_size(v) > 0;
    case JSON_ARRAY:
        return json_array_size(v) > 0;
    case JSON_STRING:
        return json_string_length(v) > 0;
    case JSON_INTEGER:
        return json_integer_value(v) != 0;
    case JSON_REAL:
        return json_real_value(v) != 0;
    case JSON_TRUE:
        return true;
    default:
        return false;
    }
}

const json_t *value_get(const json_t *v, const char *key) {
    return json_is_object(v) ? json_object_get(v, key) : NULL;
}

bool value_equals(const json_t *v, const char *text) {
    return json_is_string(v) && json_string_length(v) == strlen(text) &&
           memcmp(json_string_value(v), text, strlen(text)) == 0;
}

json_t *value_items(const json_t *v) {
    if (json_is_array(v)) return json_copy((json_t *)v);
    json_t *list = v == NULL || json_is_object(v) || value_is_string(v) ? json_array() : NULL;
    if (json_is_object(v)) {
        const char *key;
        size_t size;
        json_t *unused;
        json_object_keylen_foreach((json_t *)v, key, size, unused)
            json_array_append_new(list, json_stringn(key, size));
    } else if (list != NULL && v != NULL) {
        const unsigned char *p = (const unsigned char *)json_string_value(v);
        for (const unsigned char *end = p + json_string_length(v); p < end;) {
            uint32_t scalar;
            bool valid;
            const size_t n = utf8_read(p, end, &scalar, &valid);
            json_array_append_new(list, json_stringn((const char *)p, n));
            p += n;
        }
    }
    return list;
}

// Python's str.isspace; U+200B and U+FEFF are not among them.
static bool is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

void strip(const char **text, size_t *size) {
    const unsigned char *p = (const unsigned char *)*text, *end = p + *size;
    uint32_t scalar;
    bool valid;
    while (p < end) {
        const size_t n = utf8_read(p, end, &scalar, &valid);
        if (!is_space(scalar)) break;
        p += n;
    }
    while (end > p) {
        const unsigned char *q = end - 1;
        while (q > p && (*q & 0xC0) == 0x80) q--;
        (void)utf8_read(q, end, &scalar, &valid);
        if (!is_space(scalar)) break;
        end = q;
    }
    *text = (const char *)p;
    *size = (size_t)(end - p);
}

static locale_t unicode;
static void open_unicode(void) {
    unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    CHECK(unicode != (locale_t)0, "the locale C.UTF-8 is missing");
}

static locale_t unicode_locale(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, open_unicode) == 0, "pthread_once");
    return unicode;
}

static void map_case(Bytes *out, const char *text, size_t size, bool upper) {
    const locale_t l = unicode_locale();
    const unsigned char *p = (const unsigned char *)text, *end = p + size;
    bytes_add(out, "", 0);
    while (p < end) {
        uint32_t scalar;
        bool valid;
        char bytes[4];
        p += utf8_read(p, end, &scalar, &valid);
        scalar = (uint32_t)(upper ? towupper_l((wint_t)scalar, l) : towlower_l((wint_t)scalar, l));
        bytes_add(out, bytes, utf8_write(scalar, bytes));
    }
}

void value_upper(Bytes *out, const json_t *v) {
    Bytes plain = {0};
    value_str(&plain, v);
    map_case(out, plain.text, plain.size, true);
    free(plain.text);
}

static int by_folded_key(const void *a, const void *b) {
    const Member *x = a, *y = b;
    const size_t n = x->folded.size < y->folded.size ? x->folded.size : y->folded.size;
    const int order = memcmp(x->folded.text, y->folded.text, n); // UTF-8 sorts as its scalars do
    if (order != 0) return order;
    if (x->folded.size != y->folded.size) return x->folded.size < y->folded.size ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

Members members_sorted(const json_t *object) {
    Members m = {calloc(json_object_size(object) + 1, sizeof *m.item), 0};
    CHECK_MEMORY(m.item);
    const char *key;
    size_t size;
    json_t *value;
    json_object_keylen_foreach((json_t *)object, key, size, value) {
        Member *member = &m.item[m.n];
        *member = (Member){.key = key, .size = size, .value = value, .place = m.n++};
        map_case(&member->folded, key, size, false);
    }
    qsort(m.item, m.n, sizeof *m.item, by_folded_key);
    return m;
}

void members_free(Members *m) {
    for (size_t i = 0; i < m->n; i++) free(m->item[i].folded.text);
    free(m->item);
    *m = (Members){0};
}
