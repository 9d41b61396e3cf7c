// tests/fuzz/config_fuzz.c - any bytes as a configuration: refused with one line, or resolved to
// itself.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "infer/base/json.h"
#include "infer/base/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool load(const void *data, size_t size, Settings *s, Err *err) {
    char path[64];
    const int fd = memfd_create("config", 0);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const bool ok = settings_load(s, path, NULL, 0, err);
    close(fd);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err err = {0};
    Settings s, t;
    if (!load(data, size, &s, &err)) {
        CHECK(err.code == ERR_USAGE && err.text[0] != '\0');
        return 0;
    }
    json_t *a = settings_json(&s);
    char *text = json_dumps(a, JSON_REAL_PRECISION(17));
    CHECK(load(text, strlen(text), &t, &err), "(%s)", err.text);
    json_t *b = settings_json(&t);
    CHECK(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    free(text);
    settings_free(&s);
    settings_free(&t);
    return 0;
}
