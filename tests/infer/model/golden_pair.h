// tests/infer/model/golden_pair.h - a family of the reference: its assistant over recorded hidden
// states and keys and values, in f32. Bodies are here because every test is one binary.
#ifndef TESTS_GOLDEN_PAIR_H
#define TESTS_GOLDEN_PAIR_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "infer/base/file.h"
#include "infer/format/safetensors.h"
#include "infer/model/assistant.h"
#include "infer/model/features.h"
#include "tests/testing.h"

typedef struct {
    const char *family;
    int compared, skipped;
    StFile *target; // target.safetensors
    TargetConfig tc;
    Tensor table; // the target's embedding, F32
    Assistant *a;
    FeaturePack pack;
    size_t mark; // of the env's arena
} Pair;

static inline const char *pair_path(const char *family, const char *file) {
    char sub[256];
    snprintf(sub, sizeof sub, "%s/%s", family, file);
    return test_golden(sub);
}

// Calls test for the families named in $FAMILIES, else for those present; none is a failure.
static inline void each_family(void (*test)(const char *family)) {
    static const char *const all[] = {"e2b", "e4b", "12b", "26b", "31b"};
    const char *wanted = getenv("FAMILIES");
    int ran = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (wanted && *wanted ? strstr(wanted, all[i]) == NULL : !dir_exists(test_golden(all[i])))
            continue;
        test(all[i]);
        ran++;
    }
    assert_true(ran > 0);
}

// A tensor as f32, NULL (and counted) when this set leaves it out. Caller frees.
static inline float *pair_read(Pair *p, const StFile *f, const char *name, int64_t count) {
    Err err = {0};
    const StTensor *t = st_find(f, name);
    if (t == NULL) {
        p->skipped++;
        return NULL;
    }
    if (t->count != count)
        fail_msg("%s: %s has %lld values, expected %lld", p->family, name, (long long)t->count,
                 (long long)count);
    float *x = malloc((size_t)count * sizeof *x);
    assert_ok(st_read_f32(f, t, x, &err), err);
    p->compared++;
    return x;
}

// The same for int64, which must be there.
static inline int64_t *pair_ids(const StFile *f, const char *name, int64_t *count) {
    Err err = {0};
    const StTensor *t = st_find(f, name);
    if (t == NULL) fail_msg("no tensor %s in %s", name, st_path(f));
    int64_t *x = malloc((size_t)t->bytes);
    assert_ok(st_read(f, t, x, &err), err);
    *count = t->count;
    return x;
}

static inline Tensor pair_tensor(const StFile *f, const char *name, int64_t rows, int64_t cols) {
    Err err = {0};
    const StTensor *t = st_find(f, name);
    if (t == NULL || t->count != rows * cols)
        fail_msg("%s: not %lld x %lld", name, (long long)rows, (long long)cols);
    Tensor x = test_zeros(DT_F32, rows, cols);
    assert_ok(st_read_f32(f, t, x.data, &err), err);
    return x;
}

// Appends one recorded sequence ("seq0", "bf16scale.seq0") to the pack.
static inline int64_t pair_load(Pair *p, const char *seq) {
    char name[8][96];
    const char *const part[] = {"hidden", "k_sliding", "k_full", "v_sliding", "v_full"};
    for (int i = 0; i < 5; i++) snprintf(name[i], sizeof name[i], "%s.%s", seq, part[i]);
    const StTensor *t = st_find(p->target, name[0]);
    if (t == NULL) fail_msg("no tensor %s", name[0]);
    const int64_t n = t->dim[0], *w = p->pack.kv_width;
    const Tensor h = pair_tensor(p->target, name[0], n, p->pack.width);
    const Tensor k0 = pair_tensor(p->target, name[1], n, w[0]),
                 k1 = pair_tensor(p->target, name[2], n, w[1]);
    const Tensor v0 = pair_tensor(p->target, name[3], n, w[0]),
                 v1 = pair_tensor(p->target, name[4], n, w[1]);
    features_begin(&p->pack);
    features_load(&p->pack, test_env()->dev, h.data, 0, (const void *[]){k0.data, k1.data},
                  (const void *[]){v0.data, v1.data}, n);
    return n;
}

// Opens the family with the assistant in `folder`; the pack is empty.
static inline Pair pair_open(const char *family, const char *folder, bool bf16_scale,
                             int pos_offset, int window_extra) {
    Pair p = {.family = family, .mark = arena_mark(&test_env()->arena)};
    Err err = {0};
    assert_ok(target_config_load(&p.tc, pair_path(family, "target"), &err), err);
    StFile *f = st_open(pair_path(family, "target"), &err);
    if (f == NULL) fail_msg("%s", err.text);
    p.table = pair_tensor(f, "model.language_model.embed_tokens.weight", p.tc.text.vocab,
                          p.tc.text.hidden);
    st_close(f);
    p.target = st_open(pair_path(family, "target.safetensors"), &err);
    if (p.target == NULL) fail_msg("%s", err.text);
    const AssistantOptions o = {
        .dir = pair_path(family, folder),
        .dtype = DT_F32,
        .target_table = p.table,
        .target_scale = (float)(bf16_scale ? p.tc.embed_scale_bf16 : p.tc.embed_scale_f32),
        .pos_offset = pos_offset,
        .window_extra = window_extra};
    p.a = assistant_open(test_env()->dev, &o, &err);
    if (p.a == NULL) fail_msg("%s", err.text);
    features_take(&p.pack, &p.tc, 256, DT_F32, &test_env()->arena);
    return p;
}

static inline void pair_close(Pair *p) {
    assistant_close(p->a);
    st_close(p->target);
    arena_reset(&test_env()->arena, p->mark);
}

#endif
