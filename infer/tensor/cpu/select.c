// infer/tensor/cpu/select.c - the best columns of rows: running top 2 over vocabulary tiles, and
// top k.
//
// For top 2 rows are scanned in blocks; only a block whose maximum could enter is looked at one by
// one. For top k the k-th largest is found by counting.
#include <math.h>

#include <omp.h>

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

// Floats as integers in the same order: NaN as the lowest, both zeros alike. Up to a multiple of
// LANES the row is followed by what is never chosen.
KERNEL static void order_keys(int32_t *key, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const f32x16 v = (n - i < LANES ? load_tail(x + i, n - i, 0.0f) : load16(x + i)) + 0.0f;
        const i32x16 bits = (i32x16)select16(v == v, v, lanes(-INFINITY)),
                     ordered = bits ^ ((bits >> 31) & 0x7fffffff);
        *(i32x16_at *)(key + i) = ordered;
    }
    for (int64_t i = n; i % LANES != 0; i++) key[i] = INT32_MIN;
}

KERNEL static int64_t count_from(const int32_t *key, int64_t n, int32_t least) {
    i32x16 count = {0};
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i += LANES) count -= *(const i32x16_at *)(key + i) >= least;
    for (int i = 0; i < LANES; i++) sum += count[i];
    return sum;
}

// The k-th largest key.
static int32_t kth_key(const int32_t *key, int64_t n, int k) {
    int64_t low = INT32_MIN + 1,
            high = (int64_t)INT32_MAX + 1; // as many as k from low on, not from high
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2, from = count_from(key, n, (int32_t)middle);
        if (from >= k)
            low = middle;
        else
            high = middle;
        if (from == k) break;
    }
    return (int32_t)low;
}

// Ids of the k largest keys, the largest first, of equal ones the lower id.
static void choose(int32_t *id, int32_t *chosen, const int32_t *key, int64_t n, int k) {
    const int32_t least = kth_key(key, n, k);
    int64_t equal = k - count_from(key, n, least + 1);
    for (int64_t c = 0, used = 0; used < k; c++) {
        if (key[c] < least || (key[c] == least && equal-- <= 0)) continue;
        int64_t at = used++; // ids ascend, so an equal key stays behind those already there
        for (; at > 0 && key[c] > chosen[at - 1]; at--) {
            chosen[at] = chosen[at - 1];
            id[at] = id[at - 1];
        }
        chosen[at] = key[c];
        id[at] = (int32_t)c;
    }
}

void cpu_topk(Device *dev, Tensor idx, Tensor x, int k) {
    const int64_t padded = (x.cols + LANES - 1) / LANES * LANES;
    CHECK(k > 0 && k <= x.cols && x.cols < INT32_MAX - LANES, "(k %d of %lld columns)", k,
          (long long)x.cols);
    CHECK_SHAPE(idx, x.rows, k);
    CHECK_TYPE(idx, DT_I32);
    CHECK_FLOAT(x);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(x)))
    for (int64_t r = 0; r < x.rows; r++) {
        int32_t *key = cpu_scratch(dev, SCRATCH_THREAD + omp_get_thread_num(),
                                   (size_t)(padded + k) * sizeof *key);
        for (int64_t c = 0; c < x.cols; c += SPAN) {
            const int64_t n = span_size(x.cols, c);
            float buf[SPAN];
            order_keys(key + c, span_read(x, r, c, n, buf), n);
        }
        choose(i32_at(idx, r, 0), key + padded, key, x.cols, k);
    }
}
