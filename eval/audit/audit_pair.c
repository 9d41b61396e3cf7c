// eval/audit/audit_pair.c - opening, buffers, and texts through the target in pieces.
#include "eval/audit/audit_pair.h"

#include <stdlib.h>

enum { ROWS = 2048 }; // several texts go through the target at once

static bool open_models(AuditPair *p, const char *dir, Err *err) {
    const Settings *s = p->s;
    ChatTemplate chat;
    p->rows = s->capture.chunk > ROWS ? s->capture.chunk : ROWS;
    if (!open_target(&p->open, s, p->rows, err)) return false;
    p->tok = open_tokenizer(s->model.target_path, target_config(p->open.target)->text.vocab, err);
    if (p->tok == NULL ||
        !chat_template_load(&chat, s->model.target_path, s->data.chat_template, err))
        return false;
    p->tools = prepare_tools(s, p->tok, chat);
    return (p->drafter = drafter_open(&p->open, s, dir, err)) != NULL;
}

static void take(AuditPair *p, Arena *arena) {
    const TargetConfig *tc = target_config(p->open.target);
    features_take(&p->pack, tc, p->capacity, DT_BF16, arena);
    p->hidden = tensor_take(arena, DT_F32, p->rows, tc->text.hidden);
    p->before = tensor_take(arena, DT_F32, p->rows, tc->text.hidden);
    p->pre_norm = tensor_take(arena, DT_BF16, p->capacity, tc->text.hidden);
    p->best = tensor_take(arena, DT_F32, p->rows, 2);
    p->id = tensor_take(arena, DT_I32, p->rows, 2);
}

static bool open_buffers(AuditPair *p, Err *err) {
    const TargetConfig *tc = target_config(p->open.target);
    const SpeculatorOptions so = {.k_max = p->K,
                                  .capacity = p->capacity,
                                  .chunk = p->rows,
                                  .feature_dtype = DT_BF16,
                                  .kv_dtype = p->open.dtype,
                                  .sampled = true};
    Arena arena;
    p->head = assistant_deployed_head(&p->drafter->cfg);
    p->gap = malloc((size_t)p->capacity * sizeof *p->gap);
    p->best_host = malloc(2 * (size_t)p->rows * sizeof *p->best_host);
    if (p->gap == NULL || p->best_host == NULL)
        return err_set(err, ERR_FAILED, "no memory for %lld tokens", (long long)p->capacity);
    arena_open(&arena, NULL, 0);
    take(p, &arena);
    if ((p->block = dev_alloc(p->open.dev, arena.peak, err)) == NULL) return false;
    arena_open(&arena, p->block, arena.peak);
    take(p, &arena);
    return (p->kv = kv_open(p->open.dev, &tc->text, 1, p->capacity, p->rows, false, p->open.dtype,
                            err)) &&
           (p->spec = speculator_open(p->open.target, p->drafter, &so, err)) &&
           (p->sim = simulator_open(p->drafter, 1024, p->K, err));
}

bool audit_pair_open(AuditPair *p, const Settings *s, const char *dir, Err *err) {
    *p = (AuditPair){.s = s, .K = (int)s->eval.draft_tokens};
    p->capacity = s->data.max_length + p->K;
    return open_models(p, dir, err) && open_buffers(p, err);
}

void audit_pair_close(AuditPair *p) {
    simulator_close(p->sim);
    speculator_close(p->spec);
    kv_close(p->kv);
    if (p->block != NULL) dev_free(p->open.dev, p->block);
    free(p->gap);
    free(p->best_host);
    assistant_close(p->drafter);
    close_target(&p->open);
    tokenizer_free(p->tok);
}

// The rows of one call; hidden is filled.
static Tensor forward(AuditPair *p, const int32_t *ids, int64_t at, int64_t n, Tensor *layers) {
    const TargetPiece piece = {.count = n - at < p->rows ? n - at : p->rows};
    const Tensor hidden = tensor_rows(p->hidden, 0, piece.count);
    if (at == 0) kv_clear(p->kv, 0);
    target_forward(p->open.target, p->kv, &piece, 1, ids + at, hidden, layers);
    return hidden;
}

bool audit_pair_capture(AuditPair *p, const int32_t *ids, int64_t n, Err *err) {
    features_clear(&p->pack);
    features_begin(&p->pack);
    for (int64_t at = 0; at < n; at += p->rows) {
        const Tensor hidden = forward(p, ids, at, n, NULL);
        features_append(&p->pack, p->open.dev, p->open.target, p->kv, 0, at, hidden.rows, hidden);
    }
    return dev_sync(p->open.dev, err);
}

bool audit_pair_look(AuditPair *p, const int32_t *ids, int64_t n, Err *err) {
    Device *dev = p->open.dev;
    Tensor layers[LAYERS_MAX]; // all the same: what the last layer leaves stays
    for (int64_t at = 0; at < n; at += p->rows) {
        const int64_t count = n - at < p->rows ? n - at : p->rows;
        const Tensor before = tensor_rows(p->before, 0, count);
        for (int l = 0; l < LAYERS_MAX; l++) layers[l] = before;
        const Tensor hidden = forward(p, ids, at, n, layers);
        const Tensor best = tensor_rows(p->best, 0, count);
        target_top2(p->open.target, best, tensor_rows(p->id, 0, count), hidden);
        op_copy(dev, tensor_rows(p->pre_norm, at, count), before);
        dev_download(dev, p->best_host, best);
        for (int64_t i = 0; i < count; i++)
            p->gap[at + i] = p->best_host[2 * i] - p->best_host[2 * i + 1];
    }
    return dev_sync(dev, err);
}
