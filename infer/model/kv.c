// infer/model/kv.c - rows of every K/V-owning layer of every slot, in one block.
//
// A sliding layer keeps at least the W-1 rows before the next position. Its room is twice that plus
// a chunk: when a chunk no longer fits, the last W-1 rows move to the front, which never overlaps
// them.
#include "infer/model/kv.h"

#include <stdlib.h>
#include <string.h>

#include "infer/tensor/ops.h"

typedef struct {
    int64_t length, reserved;
    int64_t first; // absolute position of row 0 of the sliding layers
} Slot;

typedef struct {
    Tensor k, v; // (room, kv_heads * hd)
} Rows;

struct KvCache {
    Device *dev;
    TextConfig cfg;
    int slots;
    int64_t capacity, chunk, room[2]; // by LayerKind
    Slot *slot;
    Rows *rows; // (slots, owners)
    int owners;
    void *block;
};

static int owners_of(const TextConfig *c) {
    return (int)(c->layers - c->kv_shared);
}

// true: sliding layers have room for every position and never move rows.
static bool keeps_everything(const TextConfig *c, int64_t capacity, int64_t chunk, bool keep_all) {
    return keep_all || capacity <= 2 * (c->window - 1) + chunk;
}

static int64_t room_of(const TextConfig *c, int kind, int64_t capacity, int64_t chunk,
                       bool keep_all) {
    if (kind == LAYER_FULL || keeps_everything(c, capacity, chunk, keep_all)) return capacity;
    return 2 * (c->window - 1) + chunk;
}

// One K and one V tensor per owner and slot; rows NULL: only counts.
static void layout(const TextConfig *c, int slots, const int64_t room[2], DType dtype, Arena *arena,
                   Rows *rows) {
    for (int s = 0; s < slots; s++)
        for (int l = 0; l < owners_of(c); l++) {
            const int64_t width = layer_kv_heads(c, l) * layer_head_dim(c, l), n = room[c->kind[l]];
            const Tensor k = tensor_take(arena, dtype, n, width);
            const Tensor v = tensor_take(arena, dtype, n, width);
            if (rows != NULL) rows[s * owners_of(c) + l] = (Rows){k, v};
        }
}

int64_t kv_bytes(const TextConfig *c, int slots, int64_t capacity, int64_t chunk, bool keep_all,
                 DType dtype) {
    const int64_t room[2] = {room_of(c, LAYER_SLIDING, capacity, chunk, keep_all),
                             room_of(c, LAYER_FULL, capacity, chunk, keep_all)};
    Arena counting;
    arena_open(&counting, NULL, 0);
    layout(c, slots, room, dtype, &counting, NULL);
    return (int64_t)counting.used;
}

KvCache *kv_open(Device *dev, const TextConfig *c, int slots, int64_t capacity, int64_t chunk,
                 bool keep_all, DType dtype, Err *err) {
    CHECK(slots > 0 && capacity > 0 && chunk > 0);
    KvCache *kv = calloc(1, sizeof *kv);
    if (kv != NULL) {
        *kv =
            (KvCache){.dev = dev, .cfg = *c, .slots = slots, .capacity = capacity, .chunk = chunk};
        kv->owners = owners_of(c);
        for (int k = 0; k < 2; k++) kv->room[k] = room_of(c, k, capacity, chunk, keep_all);
        kv->slot = calloc((size_t)slots, sizeof *kv->slot);
        kv->rows = calloc((size_t)slots * (size_t)kv->owners + 1, sizeof *kv->rows);
    }
    if (kv == NULL || kv->slot == NULL || kv->rows == NULL) {
        err_set(err, ERR_FAILED, "out of memory for %d cache slots", slots);
        goto fail;
    }
    const int64_t bytes = kv_bytes(c, slots, capacity, chunk, keep_all, dtype);
    if ((kv->block = dev_alloc(dev, (size_t)bytes, err)) == NULL) {
        err_wrap(err, "K/V cache of %d slots of %lld positions", slots, (long long)capacity);
        goto fail;
    }
    Arena arena;
    arena_open(&arena, kv->block, (size_t)bytes);
    layout(c, slots, kv->room, dtype, &arena, kv->rows);
    return kv;
fail:
    kv_close(kv);
    return NULL;
}

void kv_close(KvCache *kv) {
    if (kv == NULL) return;
    dev_free(kv->dev, kv->block);
    free(kv->slot);
    free(kv->rows);
    free(kv);
}

static Slot *slot_of(const KvCache *kv, int slot) {
    CHECK(slot >= 0 && slot < kv->slots, "(slot %d of %d)", slot, kv->slots);
    return &kv->slot[slot];
}

int64_t kv_length(const KvCache *kv, int slot) {
    return slot_of(kv, slot)->length;
}

// Moves the last W-1 rows of the sliding layers to the front.
static void compact(KvCache *kv, int slot) {
    Slot *s = slot_of(kv, slot);
    const int64_t keep = kv->cfg.window - 1, from = s->length - keep - s->first;
    CHECK(from >= keep, "(rows would overlap)");
    for (int l = 0; l < kv->owners; l++) {
        if (kv->cfg.kind[l] != LAYER_SLIDING) continue;
        const Rows *r = &kv->rows[slot * kv->owners + l];
        op_copy(kv->dev, tensor_rows(r->k, 0, keep), tensor_rows(r->k, from, keep));
        op_copy(kv->dev, tensor_rows(r->v, 0, keep), tensor_rows(r->v, from, keep));
    }
    s->first += from;
}

void kv_reserve(KvCache *kv, int slot, int64_t n) {
    Slot *s = slot_of(kv, slot);
    CHECK(s->reserved == 0, "(slot %d has rows that are not committed)", slot);
    CHECK(n > 0 && n <= kv->chunk && s->length + n <= kv->capacity,
          "(%lld rows behind %lld; chunk %lld, capacity %lld)", (long long)n, (long long)s->length,
          (long long)kv->chunk, (long long)kv->capacity);
    if (s->length + n - s->first > kv->room[LAYER_SLIDING]) compact(kv, slot);
    s->reserved = n;
}

static const Rows *rows_of(const KvCache *kv, int slot, int layer) {
    CHECK(layer >= 0 && layer < kv->cfg.layers, "(layer %d)", layer);
    return &kv->rows[slot * kv->owners + layer_kv_source(&kv->cfg, layer)];
}

static int64_t first_of(const KvCache *kv, const Slot *s, int layer) {
    return kv->cfg.kind[layer] == LAYER_SLIDING ? s->first : 0;
}

KvView kv_rows(const KvCache *kv, int slot, int layer, int64_t first, int64_t n) {
    const Slot *s = slot_of(kv, slot);
    const Rows *r = rows_of(kv, slot, layer);
    const int64_t base = first_of(kv, s, layer);
    CHECK(first >= base && n >= 0 && first + n <= s->length + s->reserved,
          "(rows %lld + %lld of %lld .. %lld)", (long long)first, (long long)n, (long long)base,
          (long long)(s->length + s->reserved));
    return (KvView){tensor_rows(r->k, first - base, n), tensor_rows(r->v, first - base, n), first};
}

KvView kv_view(const KvCache *kv, int slot, int layer) {
    const Slot *s = slot_of(kv, slot);
    const int64_t base = first_of(kv, s, layer);
    return kv_rows(kv, slot, layer, base, s->length + s->reserved - base);
}

void kv_commit(KvCache *kv, int slot) {
    Slot *s = slot_of(kv, slot);
    s->length += s->reserved;
    s->reserved = 0;
}

void kv_rewind(KvCache *kv, int slot, int64_t length) {
    Slot *s = slot_of(kv, slot);
    CHECK(length >= 0 && length <= s->length, "(to %lld of %lld)", (long long)length,
          (long long)s->length);
    // the window before the new end must still be here
    CHECK(s->first == 0 || length - (kv->cfg.window - 1) >= s->first,
          "(to %lld: sliding rows begin at %lld)", (long long)length, (long long)s->first);
    s->length = length;
    s->reserved = 0;
}

void kv_clear(KvCache *kv, int slot) {
    *slot_of(kv, slot) = (Slot){0};
}
