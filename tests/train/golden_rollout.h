// tests/train/golden_rollout.h - the reference's gradient case as a Batch: eight anchors, six
// steps.
#ifndef TESTS_GOLDEN_ROLLOUT_H
#define TESTS_GOLDEN_ROLLOUT_H

#include <math.h>

#include "infer/base/json.h"
#include "tests/infer/model/golden_pair.h"
#include "train/rollout.h"

enum { GOLDEN_K = 6, GOLDEN_ROWS = 8 };

typedef struct {
    Pair pair;
    StFile *f;              // gradients.safetensors
    json_t *doc;            // gradients.json
    int order[GOLDEN_ROWS]; // row of the batch -> anchor of the reference
    int32_t T[GOLDEN_ROWS], seq_of[GOLDEN_ROWS];
    int32_t token[GOLDEN_K * GOLDEN_ROWS], label[GOLDEN_K * GOLDEN_ROWS];
    uint8_t valid[GOLDEN_K * GOLDEN_ROWS];
    float weight[GOLDEN_K * GOLDEN_ROWS];
    Batch batch;
    AssistantWeights g; // gradients, F32
    Tensor flat;        // all of them, (1, n)
} GoldenCase;

// Ascending sequence, then T, as a Batch wants them.
static inline void golden_order(GoldenCase *c, const int64_t *anchor) {
    for (int i = 0; i < GOLDEN_ROWS; i++) {
        int at = i;
        for (; at > 0; at--) {
            const int64_t *o = anchor + 2 * c->order[at - 1], *n = anchor + 2 * i;
            if (o[0] < n[0] || (o[0] == n[0] && o[1] <= n[1])) break;
            c->order[at] = c->order[at - 1];
        }
        c->order[at] = i;
    }
}

static inline void golden_batch(GoldenCase *c) {
    int64_t n = 0, ids_n[3], *ids[3];
    int64_t *anchor = pair_ids(c->f, "anchors", &n);
    double *w = (double *)pair_ids(c->f, "step_weights", &n); // F64, the same size
    assert_int_equal(n, GOLDEN_ROWS * GOLDEN_K);
    for (int s = 0; s < 3; s++) {
        char name[32];
        snprintf(name, sizeof name, "seq%d", s);
        pair_load(&c->pair, name);
        snprintf(name, sizeof name, "seq%d.ids", s);
        ids[s] = pair_ids(c->pair.target, name, &ids_n[s]);
    }
    golden_order(c, anchor);
    for (int r = 0; r < GOLDEN_ROWS; r++) {
        const int s = (int)anchor[2 * c->order[r]], T = (int)anchor[2 * c->order[r] + 1];
        c->T[r] = T;
        c->seq_of[r] = s;
        for (int j = 0; j < GOLDEN_K; j++) {
            const int i = j * GOLDEN_ROWS + r;
            c->token[i] = T + j < ids_n[s] ? (int32_t)ids[s][T + j] : -1;
            c->valid[i] = T + j + 1 < ids_n[s];
            c->label[i] = c->valid[i] ? (int32_t)ids[s][T + j + 1] : -1;
            c->weight[i] = (float)w[c->order[r] * GOLDEN_K + j];
        }
    }
    c->batch = (Batch){.nseq = 3,
                       .rows = GOLDEN_ROWS,
                       .T = c->T,
                       .seq_of = c->seq_of,
                       .token = c->token,
                       .label = c->label,
                       .valid = c->valid,
                       .tokens = c->pair.pack.rows};
    for (int s = 0; s < 3; s++) free(ids[s]);
    free(anchor);
    free(w);
}

static inline void golden_case_open(GoldenCase *c, const char *family) {
    Err err = {0};
    *c = (GoldenCase){.pair = pair_open(family, "assistant", false, 0, 0)};
    if ((c->f = st_open(pair_path(family, "gradients.safetensors"), &err)) == NULL)
        fail_msg("%s", err.text);
    c->doc = json_read_file(pair_path(family, "gradients.json"), 1 << 26, &err);
    if (c->doc == NULL) fail_msg("%s", err.text);
    golden_batch(c);
    const AssistantConfig *cfg = &c->pair.a->cfg;
    c->flat = test_zeros(DT_F32, 1, assistant_layout(cfg, &c->g, NULL, DT_F32));
    assistant_layout(cfg, &c->g, c->flat.data, DT_F32);
}

static inline void golden_case_close(GoldenCase *c) {
    json_decref(c->doc);
    st_close(c->f);
    pair_close(&c->pair);
}

// One run over zeroed gradients.
static inline RolloutStats golden_run(GoldenCase *c, RolloutOptions o) {
    Err err = {0};
    Env *env = test_env();
    RolloutStats stats;
    o.K = GOLDEN_K;
    o.hybrid_kl = 0.6f;
    o.temperature = 1.0f;
    o.max_rows = GOLDEN_ROWS;
    o.max_tokens = c->pair.pack.rows;
    o.max_seqs = 3;
    Rollout *r =
        rollout_open(c->pair.a, &c->pair.tc, (float)c->pair.tc.text.softcap, &o, &env->arena, &err);
    if (r == NULL) fail_msg("%s", err.text);
    op_zero(env->dev, c->flat);
    assert_ok(rollout_run(r, c->pair.a, &c->batch, &c->pair.pack, c->weight, &c->g, &stats, &err),
              err);
    rollout_close(r);
    return stats;
}

#endif
