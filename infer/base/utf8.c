// infer/base/utf8.c - names that came from outside, made fit to print.
#include "infer/base/utf8.h"

#include <string.h>

char *utf8_fit(char *out, size_t room, const char *text) {
    const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
    size_t used = 0;
    while (p < end) {
        uint32_t scalar;
        bool valid;
        const size_t n = utf8_read(p, end, &scalar, &valid);
        const bool plain = valid && scalar >= 0x20 && (scalar < 0x7F || scalar >= 0xA0);
        const size_t size = plain ? n : 1;
        if (used + size >= room) break;
        memcpy(out + used, plain ? (const char *)p : "?", size);
        used += size;
        p += n;
    }
    out[used] = '\0';
    return out;
}
