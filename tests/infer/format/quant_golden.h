// tests/infer/format/quant_golden.h - golden rows of a real quantiser: tensors named nN.what, of
// one or several row lengths N. $GOLDEN names a folder of that layout; without it the selection in
// tests/golden/quant is used.
#ifndef TESTS_QUANT_GOLDEN_H
#define TESTS_QUANT_GOLDEN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/format/safetensors.h"
#include "tests/testing.h"

typedef struct {
    StFile *file;
    int64_t n, rows; // of the rows now compared
    int compared, missing;
    int64_t bytes;
} Golden;

static inline Golden golden_open(const char *name) {
    const char *folder = getenv("GOLDEN");
    char path[PATH_ROOM];
    Err err = {0};
    path_join(path, folder != NULL && *folder ? folder : "tests/golden/quant", name);
    Golden g = {0};
    if (!file_exists(path)) {
        printf("skipped: no %s\n", path);
        skip();
    }
    g.file = st_open(path, &err);
    if (g.file == NULL) fail_msg("%s", err.text);
    return g;
}
// The next row length after g->n; false = that was the last.
static inline bool golden_next(Golden *g) {
    int64_t next = INT64_MAX;
    for (int i = 0; i < st_count(g->file); i++) {
        const StTensor *t = st_at(g->file, i);
        const char *dot = strchr(t->name, '.');
        if (t->name[0] != 'n' || dot == NULL || strcmp(dot, ".input") != 0) continue;
        const int64_t n = atoll(t->name + 1);
        if (n <= g->n || n >= next) continue;
        next = n;
        assert_int_equal(t->rank, 2);
        assert_int_equal(t->dim[1], n);
        g->rows = t->dim[0];
    }
    g->n = next;
    return next != INT64_MAX;
}
// The whole tensor nN.what, NULL = left out; to be freed.
static inline void *golden_read(Golden *g, const char *what, int64_t bytes) {
    char name[96];
    Err err = {0};
    snprintf(name, sizeof name, "n%lld.%s", (long long)g->n, what);
    const StTensor *t = st_find(g->file, name);
    if (t == NULL) return NULL;
    if (t->bytes != bytes)
        fail_msg("%s: %lld bytes, expected %lld", name, (long long)t->bytes, (long long)bytes);
    void *data = malloc((size_t)bytes);
    assert_non_null(data);
    assert_ok(st_read(g->file, t, data, &err), err);
    return data;
}
// Fails at the first byte of ours, [rows, bytes / rows], that differs from tensor nN.what.
static inline void golden_compare(Golden *g, const char *what, const void *ours, int64_t bytes) {
    const unsigned char *a = ours, *b = golden_read(g, what, bytes);
    if (b == NULL) {
        g->missing++;
        return;
    }
    for (int64_t i = 0; i < bytes; i++)
        if (a[i] != b[i])
            fail_msg("n%lld.%s: row %lld, byte %lld is %02x, expected %02x", (long long)g->n, what,
                     (long long)(i / (bytes / g->rows)), (long long)(i % (bytes / g->rows)), a[i],
                     b[i]);
    g->compared++;
    g->bytes += bytes;
    free((void *)b);
}
static inline void golden_close(Golden *g, const char *what) {
    printf("compared: %lld bytes of %d %s tensors, %d left out of the set\n", (long long)g->bytes,
           g->compared, what, g->missing);
    st_close(g->file);
    if (g->compared == 0) fail_msg("no %s tensor was compared", what);
}

#endif
