// infer/base/utf8.h - UTF-8 to scalars and back; invalid bytes read as Python reads them.
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCALAR_REPLACEMENT = 0xFFFD, SCALAR_LIMIT = 0x110000, SCALAR_BLANK = 0x2581 };

// The scalar at p and the bytes it takes (at least 1; p < end). A maximal invalid prefix is one
// U+FFFD, as with errors="replace" in Python and in the Unicode standard; *valid tells it from a
// U+FFFD that was spelled out.
static inline size_t utf8_read(const unsigned char *p, const unsigned char *end, uint32_t *scalar,
                               bool *valid) {
    const uint32_t lead = *p;
    *valid = true;
    *scalar = lead;
    if (lead < 0x80) return 1;
    *scalar = SCALAR_REPLACEMENT;
    *valid = false;
    if (lead < 0xC2 || lead > 0xF4) return 1;
    const size_t need = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    // the second byte's range is narrower where it decides about overlong forms, surrogates, limit
    const uint32_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint32_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    uint32_t value = lead & (0x7Fu >> need);
    for (size_t i = 1; i < need; i++) {
        if (p + i == end) return i;
        const uint32_t b = p[i];
        if (b < (i == 1 ? low : 0x80) || b > (i == 1 ? high : 0xBF)) return i;
        value = value << 6 | (b & 0x3F);
    }
    *scalar = value;
    *valid = true;
    return need;
}

// Bytes written to out (1..4); scalar must be one.
static inline size_t utf8_write(uint32_t scalar, char out[4]) {
    if (scalar < 0x80) {
        out[0] = (char)scalar;
        return 1;
    }
    const size_t n = scalar < 0x800 ? 2 : scalar < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; scalar >>= 6) out[i] = (char)(0x80 | (scalar & 0x3F));
    static const unsigned char lead[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (char)(lead[n] | scalar);
    return n;
}

// True when all of it is valid UTF-8.
static inline bool utf8_valid(const char *text, size_t size) {
    if (size == 0) return true; // text may be NULL then, and NULL + 0 is undefined in C
    const unsigned char *p = (const unsigned char *)text, *end = p + size;
    while (p < end) {
        uint32_t scalar;
        bool valid;
        p += utf8_read(p, end, &scalar, &valid);
        if (!valid) return false;
    }
    return true;
}

// A name for a terminal and for JSON: control characters and invalid bytes become '?', and where it
// is cut to `room` bytes (the 0 included), it is cut between characters. Returns out.
char *utf8_fit(char *out, size_t room, const char *text);

#endif
