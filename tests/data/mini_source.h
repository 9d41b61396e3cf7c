// tests/data/mini_source.h - the miniature pair with a few captured sequences as a source. Who
// wants others than these defines MINI_SOURCE_OWN and SEQS, LONGEST, length[SEQS] and prompt[SEQS].
#ifndef TESTS_MINI_SOURCE_H
#define TESTS_MINI_SOURCE_H

#include <stdio.h>

#include "data/batch.h"
#include "infer/text/chat.h"
#include "tests/infer/decode/mini_pair.h"

#ifndef MINI_SOURCE_OWN
enum { SEQS = 4, LONGEST = 48 };
static const int64_t length[SEQS] = {40, 9, 48, 25}, prompt[SEQS] = {12, 7, 30, 5};
#endif

static MiniPair pair;
static FeaturePack pack; // of all sequences
static int32_t ids[SEQS][LONGEST];

static int open_all(void **state) {
    (void)state;
    pair = mini_pair_open();
    features_take(&pack, target_config(pair.target), SEQS * LONGEST, DT_BF16, &test_env()->arena);
    for (int i = 0; i < SEQS; i++) {
        if (i % 2)
            mini_prompt(ids[i], length[i], i);
        else
            mini_fitted(ids[i], (size_t)length[i]);
        mini_capture(&pair, &pack, ids[i], length[i]);
    }
    return 0;
}

static int close_all(void **state) {
    (void)state;
    mini_pair_close(&pair);
    return 0;
}

static void *rows_of(Tensor t, int i) {
    const size_t row = (size_t)t.cols * 2;
    void *out = malloc(row * (size_t)length[i]);
    assert_non_null(out);
    memcpy(out, (const char *)t.data + row * (size_t)pack.start[i], row * (size_t)length[i]);
    return out;
}

static int64_t length_of(void *ctx, int64_t i) {
    (void)ctx;
    return length[i];
}

static bool read_seq(void *ctx, int64_t i, CapturedSeq *out, Err *err) {
    (void)ctx;
    (void)err;
    *out = (CapturedSeq){.sample = {.prompt = prompt[i], .n = length[i]}};
    snprintf(out->sample.id, sizeof out->sample.id, "s%d", (int)i);
    out->sample.ids = malloc((size_t)length[i] * sizeof *out->sample.ids);
    memcpy(out->sample.ids, ids[i], (size_t)length[i] * sizeof *out->sample.ids);
    out->sample.kind = malloc((size_t)length[i]);
    for (int64_t t = 0; t < length[i]; t++) out->sample.kind[t] = (uint8_t)(t % TOKEN_KINDS);
    out->hidden = rows_of(pack.hidden, (int)i);
    for (int kind = 0; kind < 2; kind++) {
        out->k[kind] = rows_of(pack.k[kind], (int)i);
        out->v[kind] = rows_of(pack.v[kind], (int)i);
    }
    return true;
}
static const SeqSource source = {.count = SEQS, .length = length_of, .read = read_seq};

#endif
