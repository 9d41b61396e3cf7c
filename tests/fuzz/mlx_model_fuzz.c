// tests/fuzz/mlx_model_fuzz.c - any bytes as the configuration and the weights of an MLX model:
// refused with one line, or every tensor can be decoded.
//
// Two bytes hold the size of the configuration, which follows; the rest is the safetensors file.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "infer/base/json.h"
#include "infer/format/mlx_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_VALUES = 1 << 22 }; // packed bits of 2 and a scale for 32 make 16 values of a byte

static void read_all(const MlxModel *m, size_t size) {
    for (int i = 0; i < mlx_model_count(m); i++) {
        Err err = {0};
        const MlxTensor *t = mlx_model_at(m, i);
        CHECK(mlx_model_find(m, t->name) == t);
        CHECK(t->count >= 0 && (uint64_t)t->count <= 16 * (uint64_t)size);
        if (t->count > MOST_VALUES) continue;
        float *x = malloc((size_t)t->count * sizeof *x + 1);
        CHECK(mlx_model_read(m, t, x, &err) || err.code == ERR_INPUT);
        CHECK(!t->quantised || err.code == ERR_NONE, "(%s)", err.text);
        free(x);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    Err err = {0};
    if (size < 2) return 0;
    const size_t text = data[0] | (size_t)data[1] << 8;
    if (text > size - 2) return 0;
    json_t *config = json_read_text((const char *)data + 2, text, &err);
    if (config == NULL) return 0;
    const int fd = memfd_create("mlx", 0);
    CHECK(fd >= 0 && write(fd, data + 2 + text, size - 2 - text) == (ssize_t)(size - 2 - text));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    StFile *f = st_open(path, &err);
    MlxModel *m = f != NULL ? mlx_model_of(f, config, &err) : NULL;
    CHECK(m != NULL || (err.code == ERR_INPUT && err.text[0] != '\0'));
    if (m != NULL) read_all(m, size);
    mlx_model_close(m);
    json_decref(config);
    close(fd);
    return 0;
}
