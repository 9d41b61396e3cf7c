// tests/infer/decode/mini_pair.h - the committed E2B-like miniature and the assistant fitted to its
// text.
#ifndef TESTS_DECODE_MINI_PAIR_H
#define TESTS_DECODE_MINI_PAIR_H

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "infer/model/features.h"
#include "tests/testing.h"

enum { MINI_ROWS = 192 };

typedef struct {
    Target *target;
    Assistant *assistant;
} MiniPair;

static inline MiniPair mini_pair_open_on(Device *dev, DType dtype) {
    Err err = {0};
    MiniPair p = {0};
    const TargetOptions to = {
        .dir = "tests/golden/e2b/target", .dtype = dtype, .max_rows = MINI_ROWS};
    assert_ok(p.target = target_open(dev, &to, &err), err);
    const AssistantOptions ao = {.dir = "tests/golden/e2b/assistant-fitted",
                                 .dtype = dtype,
                                 .target_table = target_embedding(p.target),
                                 .target_scale = target_embed_scale(p.target)};
    assert_ok(p.assistant = assistant_open(dev, &ao, &err), err);
    return p;
}

static inline MiniPair mini_pair_open(void) {
    return mini_pair_open_on(test_env()->dev, DT_F32);
}

static inline void mini_pair_close(MiniPair *p) {
    assistant_close(p->assistant);
    target_close(p->target);
}

// A prompt of n ids, a function of `number`.
static inline void mini_prompt(int32_t *ids, int64_t n, int number) {
    uint32_t x = 2654435761u * (uint32_t)(number + 1);
    for (int64_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = i == 0 ? 2 : 3 + (int32_t)(x >> 8) % 250;
    }
}

// The first n ids of the text that the assistant was fitted to: it drafts well behind them.
static inline void mini_fitted(int32_t *ids, size_t n) {
    json_t *all = json_load_file("tests/golden/e2b/rounds.json", 0, NULL);
    const json_t *text = json_object_get(all, "greedy");
    assert_true(json_array_size(text) >= n);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(text, i));
    json_decref(all);
}

// Features of n ids as the next sequence of the pack (room for it is the caller's business).
static inline void mini_capture(const MiniPair *p, FeaturePack *pack, const int32_t *ids,
                                int64_t n) {
    Err err = {0};
    Env *env = test_env();
    const TargetConfig *tc = target_config(p->target);
    const TargetPiece piece = {.count = n};
    KvCache *kv = kv_open(env->dev, &tc->text, 1, MINI_ROWS, MINI_ROWS, true, DT_F32, &err);
    assert_ok(kv, err);
    const size_t mark = arena_mark(&env->arena);
    const Tensor hidden = tensor_take(&env->arena, DT_F32, n, tc->text.hidden);
    target_forward(p->target, kv, &piece, 1, ids, hidden, NULL);
    features_begin(pack);
    features_append(pack, env->dev, p->target, kv, 0, 0, n, hidden);
    arena_reset(&env->arena, mark);
    kv_close(kv);
}

#endif
