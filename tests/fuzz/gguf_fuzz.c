// tests/fuzz/gguf_fuzz.c - any bytes as a GGUF file: refused with one line, or every value and
// every tensor can be read, and what claims to be an assistant is one or is refused.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "infer/base/log.h"
#include "infer/format/gguf.h"
#include "infer/format/imatrix_file.h"
#include "infer/model/weight_source.h"

enum { VALUES_READ = 1 << 16 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    log_set_quiet(true);
    return 0;
}

static void read_values(const GgufFile *f) {
    for (int i = 0; i < gguf_values(f); i++) {
        const GgufValue *v = gguf_value_at(f, i);
        GgufCursor c = {0};
        GgufText text;
        int64_t x, sum = 0;
        double y;
        CHECK(gguf_value(f, v->key) == v);
        while (gguf_text_next(f, v, &c, &text))
            for (size_t k = 0; k < text.size; k++) sum += text.at[k];
        for (int64_t k = 0; k < v->count && k < VALUES_READ; k++)
            sum += gguf_int_at(f, v, k, &x) || gguf_real_at(f, v, k, &y);
        CHECK(v->kind != GGUF_TEXT || c.done == v->count, "(%lld)", (long long)sum);
    }
}

static void read_tensors(const GgufFile *f, size_t size) {
    for (int i = 0; i < gguf_count(f); i++) {
        const GgufTensor *t = gguf_at(f, i);
        Err err = {0};
        CHECK(gguf_find(f, t->name) == t);
        CHECK(t->offset >= 24 && t->bytes <= (int64_t)size - t->offset);
        char *raw = malloc((size_t)t->bytes + 1);
        float *x = malloc((size_t)t->count * sizeof *x + 1);
        CHECK(gguf_read(f, t, raw, &err), "(%s)", err.text);
        CHECK(gguf_read_f32(f, t, 0, t->rows, x, &err) || err.code == ERR_INPUT);
        free(raw);
        free(x);
    }
}

// A parameter of every kind, as floats.
static void read_parameters(void *source) {
    static const char *const KEYS[] = {"model.embed_tokens.weight", "model.layers.0.layer_scalar",
                                       "model.layers.0.mlp.down_proj.weight",
                                       "pre_projection.weight", "post_projection.weight"};
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        Err err = {0};
        SourceTensor t = {0};
        CHECK(source_gguf.find(source, KEYS[i], &t));
        float *x = malloc((size_t)t.count * sizeof *x);
        CHECK(source_gguf.read(source, &t, i % 2 ? DT_BF16 : DT_F32, x, &err) ||
              err.code == ERR_INPUT);
        free(x);
    }
}

// Both readers of whole artifacts: an assistant, an imatrix.
static void read_artifact(const char *path) {
    Err err = {0};
    AssistantConfig c;
    ArtifactInfo info = {0};
    Imatrix m = {0};
    void *s = source_gguf.open(path, &err);
    CHECK(s != NULL || (err.code == ERR_INPUT && err.text[0] != '\0'));
    if (s != NULL) {
        CHECK(source_gguf.config(path, &c, &err), "(%s)", err.text);
        source_gguf.info(s, &info);
        read_parameters(s);
    }
    source_gguf.close(s);
    err = (Err){0};
    CHECK(imatrix_read(&m, path, &err) || err.code == ERR_INPUT, "(%d %s)", err.code, err.text);
    imatrix_free(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    Err err = {0};
    const int fd = memfd_create("gguf", 0);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    GgufFile *f = gguf_open(path, &err);
    CHECK(f != NULL || (err.code == ERR_INPUT && err.text[0] != '\0'));
    if (f != NULL) {
        read_values(f);
        read_tensors(f, size);
    }
    gguf_close(f);
    if (f != NULL) read_artifact(path);
    close(fd);
    return 0;
}
