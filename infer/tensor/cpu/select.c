// infer/tensor/cpu/select.c - the best columns of rows: running top 2 over vocabulary tiles, and
// top k.
//
// Rows are scanned in blocks; only a block whose maximum could enter is looked at one by one.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

static bool beats(float v, int32_t id, float value, int32_t of) {
    return of < 0 ? !isnan(v) : v > value || (v == value && id < of);
}

void best2_add(Best2 *b, float v, int32_t id) {
    if (!beats(v, id, b->value[1], b->id[1])) return;
    const bool first = beats(v, id, b->value[0], b->id[0]);
    b->value[1] = first ? b->value[0] : v;
    b->id[1] = first ? b->id[0] : id;
    if (first) b->value[0] = v, b->id[0] = id;
}

static void best2_span(Best2 *b, const float *z, const int32_t *token, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i += MAX_BLOCK) {
        const int64_t m = n - i < MAX_BLOCK ? n - i : MAX_BLOCK;
        if (b->id[1] >= 0 && span_max(z + i, m) < b->value[1]) continue;
        for (int64_t k = i; k < i + m; k++)
            best2_add(b, z[k], token ? token[k] : (int32_t)(first + k));
    }
}

void cpu_top2(Device *dev, Tensor best, Tensor id, Tensor z, Tensor token_of, int64_t v0) {
    CHECK_SHAPE(best, z.rows, 2);
    CHECK_SHAPE(id, z.rows, 2);
    CHECK_FLOAT(z);
    CHECK_TYPE(best, DT_F32);
    CHECK_TYPE(id, DT_I32);
    CHECK(v0 >= 0 && v0 + z.cols <= INT32_MAX);
    if (token_of.data) CHECK_SHAPE(token_of, z.rows, z.cols);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(z)))
    for (int64_t r = 0; r < z.rows; r++) {
        float *value = f32_at(best, r, 0);
        int32_t *ids = i32_at(id, r, 0);
        Best2 b = BEST2_NONE;
        if (v0 > 0) b = (Best2){{value[0], value[1]}, {ids[0], ids[1]}};
        for (int64_t c = 0; c < z.cols; c += SPAN) {
            const int64_t n = span_size(z.cols, c);
            float buf[SPAN];
            best2_span(&b, span_read(z, r, c, n, buf),
                       token_of.data ? i32_at(token_of, r, c) : NULL, v0 + c, n);
        }
        for (int i = 0; i < 2; i++) value[i] = b.value[i], ids[i] = b.id[i];
    }
}

typedef struct {
    float *value;
    int32_t *id;
    int k, used;
} BestK;

// Columns come in ascending order, so an equal value stays behind the ones already there.
static void bestk_add(BestK *b, float v, int32_t id) {
    if (isnan(v)) v = -INFINITY;
    if (b->used == b->k && !(v > b->value[b->k - 1])) return;
    int at = b->used < b->k ? b->used++ : b->k - 1;
    for (; at > 0 && v > b->value[at - 1]; at--) {
        b->value[at] = b->value[at - 1];
        b->id[at] = b->id[at - 1];
    }
    b->value[at] = v;
    b->id[at] = id;
}

static void bestk_span(BestK *b, const float *x, int64_t first, int64_t n) {
    for (int64_t i = 0; i < n; i += MAX_BLOCK) {
        const int64_t m = n - i < MAX_BLOCK ? n - i : MAX_BLOCK;
        if (b->used == b->k && !(span_max(x + i, m) > b->value[b->k - 1])) continue;
        for (int64_t c = i; c < i + m; c++) bestk_add(b, x[c], (int32_t)(first + c));
    }
}

void cpu_topk(Device *dev, Tensor idx, Tensor x, int k) {
    enum { K_MAX = 1024 };
    CHECK(k > 0 && k <= x.cols && k <= K_MAX, "(k %d of %lld columns)", k, (long long)x.cols);
    CHECK_SHAPE(idx, x.rows, k);
    CHECK_TYPE(idx, DT_I32);
    CHECK_FLOAT(x);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t r = 0; r < x.rows; r++) {
        float value[K_MAX];
        BestK b = {.value = value, .id = i32_at(idx, r, 0), .k = k};
        for (int64_t c = 0; c < x.cols; c += SPAN) {
            const int64_t n = span_size(x.cols, c);
            float buf[SPAN];
            bestk_span(&b, span_read(x, r, c, n, buf), c, n);
        }
    }
}
