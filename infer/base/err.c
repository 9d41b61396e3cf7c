// infer/base/err.c - error values and the stop for broken promises.
#include "infer/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool err_set(Err *err, ErrCode code, const char *fmt, ...) {
    if (err == NULL || err->code != ERR_NONE) return false;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    err->code = code;
    return false;
}

bool err_wrap(Err *err, const char *fmt, ...) {
    if (err == NULL || err->code == ERR_NONE || err->text[0] == '\0') return false;
    char inner[sizeof err->text], prefix[512];
    memcpy(inner, err->text, sizeof inner);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    const size_t used = (size_t)snprintf(err->text, sizeof err->text, "%s: ", prefix);
    const size_t room = sizeof err->text - 1 - used, n = strnlen(inner, sizeof inner);
    memcpy(err->text + used, inner, n < room ? n : room);
    err->text[used + (n < room ? n : room)] = '\0';
    return false;
}

bool err_errno(Err *err, const char *fmt, ...) {
    const int saved = errno;
    char what[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(err, ERR_FAILED, "%s: %s", what, strerror(saved));
}

void check_failed(const char *file, int line, const char *cond, const char *fmt, ...) {
    fprintf(stderr, "%s:%d: broken promise: %s", file, line, cond);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

void memory_failed(void) {
    static const char line[] = "draftsmith: out of memory\n";
    (void)!write(STDERR_FILENO, line, sizeof line - 1);
    _exit(ERR_FAILED);
}
