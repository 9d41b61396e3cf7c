// tests/fuzz/safetensors_fuzz.c - any bytes as a safetensors file: refused with one line, or every
// tensor can be found and read.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "infer/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    Err err = {0};
    const int fd = memfd_create("safetensors", 0);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    StFile *f = st_open(path, &err);
    CHECK(f != NULL || (err.code == ERR_INPUT && err.text[0] != '\0'));
    for (int i = 0; f != NULL && i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        CHECK(st_find(f, t->name) == t);
        CHECK(t->offset >= 8 && t->bytes <= (int64_t)size - t->offset);
        char *out = malloc((size_t)t->bytes + 1);
        float *wide = malloc((size_t)t->count * sizeof *wide + 1);
        CHECK(st_read(f, t, out, &err), "(%s)", err.text);
        CHECK(st_read_f32(f, t, wide, &err) || err.code == ERR_INPUT);
        free(out);
        free(wide);
    }
    st_close(f);
    close(fd);
    return 0;
}
