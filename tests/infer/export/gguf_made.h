// tests/infer/export/gguf_made.h - a made assistant, narrower than its target, with a small
// vocabulary or the demo's: what GGUF files are written from without a model. Bodies are here
// because every test is one binary.
#ifndef TESTS_GGUF_MADE_H
#define TESTS_GGUF_MADE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/file.h"
#include "infer/export/gguf_repo.h"
#include "tests/infer/text/tokenizer_made.h"
#include "tests/testing.h"

#define STOCK "configs/demo/stock-assistant"
#define TARGET "configs/demo/base-target"

static inline const char *fresh_dir(void) {
    static char dir[4][PATH_ROOM];
    static int turn;
    char name[32];
    Err err = {0};
    snprintf(name, sizeof name, "gguf%d", turn);
    char *path = path_join(dir[turn++ % 4], test_dir(), name);
    assert_ok(dir_make(path, &err), err);
    return path;
}

enum { SMALL_VOCAB = 261, DEMO_VOCAB = 8192 };

// A folder with a tokenizer of SMALL_VOCAB pieces and one merge.
static inline const char *small_tokenizer(void) {
    static char dir[PATH_ROOM];
    char path[PATH_ROOM];
    Err err = {0};
    if (dir[0] != '\0') return dir;
    char *text = spell("\u2581 a b ab", "[[\"a\",\"b\"]]", "[" ADDED("260", "<bos>") "]");
    assert_ok(dir_make(path_join(dir, test_dir(), "tokenizer"), &err), err);
    assert_ok(file_write(path_join(path, dir, "tokenizer.json"), text, strlen(text), &err), err);
    free(text);
    return dir;
}

// An assistant narrower than its target, with kv heads of two kinds.
static inline AssistantConfig made_config(int64_t vocab) {
    AssistantConfig c = {.text = {.vocab = vocab,
                                  .hidden = 256,
                                  .inter = 512,
                                  .layers = 4,
                                  .heads = 4,
                                  .head_dim = 64,
                                  .global_head_dim = 128,
                                  .kv_heads = 2,
                                  .global_kv_heads = 1,
                                  .kv_shared = 4,
                                  .window = 64,
                                  .eps = 1e-6,
                                  .kind = {LAYER_SLIDING, LAYER_SLIDING, LAYER_SLIDING, LAYER_FULL},
                                  .max_positions = 8192},
                         .backbone = 512};
    c.text.rope[LAYER_SLIDING] = (RopeConfig){.theta = 1e4, .partial = 1, .factor = 1};
    c.text.rope[LAYER_FULL] =
        (RopeConfig){.theta = 1e6, .partial = 0.25, .factor = 1, .proportional = 1};
    return c;
}

// Values of a tensor as a function of its name and place, exact in bf16. Counts what is read.
typedef struct {
    int64_t values;
} Made;

static inline uint64_t made_seed(const char *key) {
    uint64_t h = 0xCBF29CE484222325u;
    for (; *key != '\0'; key++) h = (h ^ (unsigned char)*key) * 0x100000001B3u;
    return h;
}

static inline float made_value(uint64_t seed, int64_t i) {
    const uint64_t h = (seed ^ (uint64_t)i) * 0x9E3779B97F4A7C15u;
    return (float)((int)(h >> 40 & 255) - 128) / 1024;
}

static inline bool made_rows(void *ctx, const char *key, int64_t first, int64_t n, int64_t cols,
                             float *out, Err *err) {
    (void)err;
    const uint64_t seed = made_seed(key);
    for (int64_t i = 0; i < n * cols; i++) out[i] = made_value(seed, first * cols + i);
    ((Made *)ctx)->values += n * cols;
    return true;
}

static inline GgufJob made_job(const AssistantConfig *c, Made *made, GgufDialect d) {
    return (GgufJob){.dialect = d,
                     .config = c,
                     .weights = {made, made_rows},
                     .stock_dir = STOCK,
                     .tokenizer_dir = c->text.vocab == SMALL_VOCAB ? small_tokenizer() : TARGET,
                     .name = "made/one",
                     .base_model = "org/stock-assistant"};
}

static inline GgufFile *open_in(const char *dir, const char *name) {
    Err err = {0};
    char path[PATH_ROOM];
    GgufFile *f = gguf_open(path_join(path, dir, name), &err);
    if (f == NULL) fail_msg("%s", err.text);
    return f;
}

// A key's type and value as one word: "u32 256", "[bool] 1 1 1 0", "text gemma4".
static inline const char *value_text(const GgufFile *f, const char *key) {
    static char out[256];
    const GgufValue *v = gguf_value(f, key);
    if (v == NULL) return "absent";
    int at = snprintf(out, sizeof out, v->array ? "[%s]" : "%s", gguf_kind_name(v->kind));
    GgufCursor cursor = {0};
    GgufText text;
    int64_t x;
    double y;
    for (int64_t i = 0; i < v->count && i < 6 && at < 200; i++) {
        const size_t room = sizeof out - (size_t)at;
        if (v->kind == GGUF_TEXT && gguf_text_next(f, v, &cursor, &text))
            at += snprintf(out + at, room, " %.*s", text.size > 60 ? 60 : (int)text.size, text.at);
        else if (gguf_int_at(f, v, i, &x))
            at += snprintf(out + at, room, " %lld", (long long)x);
        else if (gguf_real_at(f, v, i, &y))
            at += snprintf(out + at, room, " %g", y);
    }
    return out;
}

#endif
