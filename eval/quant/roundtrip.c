// eval/quant/roundtrip.c - encode and decode, block after block of rows.
#include "eval/quant/roundtrip.h"

#include <stdlib.h>

#include "infer/base/fp.h"

enum { BLOCK_VALUES = 4 << 20 }; // decoded at once

typedef struct {
    void *codes, *scales, *biases;
    bf16 *half;
} Room;

static void free_room(Room *r) {
    free(r->codes);
    free(r->scales);
    free(r->biases);
    free(r->half);
}

static bool take_room(Room *r, const MixType *t, int64_t rows, int64_t cols) {
    const bool mlx = t->format == MIX_MLX;
    const int64_t codes = mlx ? 4 * mlx_row_words(&t->mlx, cols) : ggml_row_bytes(t->type, cols);
    *r = (Room){.codes = malloc((size_t)(rows * codes))};
    if (!mlx) return r->codes != NULL;
    const int64_t scales = mlx_row_scale_bytes(&t->mlx, cols);
    r->scales = malloc((size_t)(rows * scales));
    r->biases = malloc((size_t)(rows * scales));
    r->half = malloc((size_t)(rows * cols) * sizeof *r->half);
    return r->codes && r->scales && r->biases && r->half;
}

static bool block(const MixType *t, const Room *r, float *w, int64_t rows, int64_t cols,
                  const float *importance, Err *err) {
    if (t->format == MIX_GGUF)
        return ggml_encode(t->type, r->codes, w, rows, cols, importance, err) &&
               ggml_decode(t->type, w, r->codes, rows, cols, err);
    bf16 *biases = mlx_has_biases(&t->mlx) ? r->biases : NULL;
    for (int64_t i = 0; i < rows * cols; i++) r->half[i] = bf16_from_f32(w[i]);
    if (!mlx_encode(&t->mlx, r->codes, r->scales, biases, r->half, rows, cols, err) ||
        !mlx_decode(&t->mlx, r->half, r->codes, r->scales, biases, rows, cols, err))
        return false;
    for (int64_t i = 0; i < rows * cols; i++) w[i] = bf16_to_f32(r->half[i]);
    return true;
}

bool roundtrip(const MixType *t, float *w, int64_t rows, int64_t cols, const float *importance,
               Err *err) {
    char name[32];
    const int64_t fit = BLOCK_VALUES / cols, most = fit < 1 ? 1 : fit < rows ? fit : rows;
    Room room = {0};
    mix_type_name(name, t);
    if (mix_type_bytes(t, rows, cols) < 0)
        return err_set(err, ERR_INPUT, "rows of %lld values are not for type %s", (long long)cols,
                       name);
    for (int64_t i = 0; i < rows * cols; i++) w[i] = round_bf16(w[i]);
    if (mix_type_plain(t)) return true;
    bool ok = take_room(&room, t, most, cols) ||
              err_set(err, ERR_FAILED, "no memory for %lld rows in type %s", (long long)most, name);
    for (int64_t r = 0; ok && r < rows; r += most)
        ok =
            block(t, &room, w + r * cols, rows - r < most ? rows - r : most, cols, importance, err);
    free_room(&room);
    return ok;
}

// Mainline's choice for rows that are no multiple of 256.
static GgmlType fallback(GgmlType t) {
    switch (t) {
    case GGML_Q3_K:
        return GGML_Q4_0;
    case GGML_IQ4_XS:
        return GGML_IQ4_NL;
    case GGML_Q4_K:
        return GGML_Q5_0;
    case GGML_Q5_K:
        return GGML_Q5_1;
    default:
        return GGML_Q8_0;
    }
}

int roundtrip_types(MixFormat format, int64_t cols, MixType out[ROUNDTRIP_TYPES]) {
    static const int bits[] = {2, 3, 4, 5, 6, 8};
    static const GgmlType types[] = {GGML_Q3_K, GGML_IQ4_XS, GGML_Q4_K,
                                     GGML_Q5_K, GGML_Q6_K,   GGML_Q8_0};
    int n = 0;
    for (int i = 0; i < 6; i++) {
        MixType t = format == MIX_MLX ? mix_mlx(bits[i], 64) : mix_gguf(types[i]);
        t.mlx.requant = bits[i] == 8; // as the exporter does by itself
        if (format == MIX_GGUF && ggml_row_bytes(t.type, cols) < 0) t.type = fallback(t.type);
        const int64_t bytes = mix_type_bytes(&t, 1, cols);
        if (bytes < 0 || (n > 0 && mix_type_bytes(&out[n - 1], 1, cols) >= bytes)) continue;
        out[n++] = t;
    }
    return n;
}
