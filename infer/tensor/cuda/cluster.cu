// infer/tensor/cuda/cluster.cu - the centroid head: cluster masses, their cross-entropy, and sparse
// logits.
#include "infer/tensor/cuda/cuda.cuh"

constexpr int CLUSTER_THREADS = 256;

// Many columns meet in a cluster. Their sums have no order, so they are taken in integers: units of
// 2^-44, which hold up to 2^19 and are finer than f32 down to masses of 2^-20. Two words of 32
// bits, as the hardware adds those to shared memory; nearly all addends have no high word.
static __device__ const float MASS_UNITS = 17592186044416.0f;

typedef struct {
    uint32_t low, high; // two's complement
} Mass;

DEVICE_FN void mass_add(Mass *m, float p) {
    const uint64_t units = (uint64_t)(int64_t)llrintf(p * MASS_UNITS);
    const uint32_t low = (uint32_t)units;
    uint32_t high = (uint32_t)(units >> 32);
    if (units == 0) return;
    if (atomicAdd(&m->low, low) > 0xffffffffu - low) high++; // it went round
    if (high != 0) atomicAdd(&m->high, high);
}

__global__ void __launch_bounds__(CLUSTER_THREADS)
    cluster_mass_kernel(Tensor mass, Tensor p, Tensor cluster_of, int64_t v0, int32_t *alarm) {
    SHARED_MEMORY(memory);
    Mass *sum = (Mass *)memory; // (C)
    const int64_t row = blockIdx.x;
    for (int64_t c = threadIdx.x; c < mass.cols; c += CLUSTER_THREADS) sum[c] = Mass{0, 0};
    __syncthreads();
    for (int64_t c = threadIdx.x; c < p.cols; c += CLUSTER_THREADS) {
        const int32_t cluster = *i32_at(cluster_of, 0, v0 + c);
        if (cluster >= 0 && cluster < mass.cols)
            mass_add(&sum[cluster], *f32_at(p, row, c));
        else
            cuda_raise(alarm, ALARM_CLUSTER);
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < mass.cols; c += CLUSTER_THREADS) {
        const int64_t units = (int64_t)((uint64_t)sum[c].high << 32 | sum[c].low);
        *f32_at(mass, row, c) += (float)((double)units / MASS_UNITS);
    }
}

void cuda_cluster_mass(Device *dev, Tensor mass, Tensor p, Tensor cluster_of, int64_t v0) {
    Cuda *cu = cuda_begin(dev, "cluster_mass");
    CHECK(mass.rows == p.rows && mass.ld >= mass.cols);
    CHECK_TYPE(mass, DT_F32);
    CHECK_TYPE(p, DT_F32);
    CHECK_TYPE(cluster_of, DT_I32);
    CHECK(cluster_of.rows == 1 && v0 >= 0 && v0 + p.cols <= cluster_of.cols);
    launch(cu, cluster_mass_kernel, dim3((unsigned)p.rows), dim3(CLUSTER_THREADS),
           (size_t)mass.cols * sizeof(Mass), mass, p, cluster_of, v0, cu->alarm);
}

typedef struct {
    Tensor loss, g, z, mass, trow, weight; // g.data NULL: loss only
    int32_t *alarm;
} CeCall;

// A block has a row; the second and third sweep find it in a near cache.
template <int V> __global__ void __launch_bounds__(CLUSTER_THREADS) cluster_ce_kernel(CeCall k) {
    const int64_t row = blockIdx.x, teacher = *i32_at(k.trow, 0, row);
    if (teacher < 0 || teacher >= k.mass.rows) {
        cuda_raise(k.alarm, ALARM_ROW);
        return;
    }
    float z[V], p[V], max = -INFINITY, sum = 0.0f, total = 0.0f, dot = 0.0f;
    for (int64_t c = threadIdx.x * V; c < k.z.cols; c += CLUSTER_THREADS * V) {
        load<V>(z, k.z, row, c);
#pragma unroll
        for (int i = 0; i < V; i++) max = fmaxf(max, z[i]);
    }
    max = block_max(max);
    for (int64_t c = threadIdx.x * V; c < k.z.cols; c += CLUSTER_THREADS * V) {
        load<V>(z, k.z, row, c);
        load<V>(p, k.mass, teacher, c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum += expf(z[i] - max);
            total += p[i];
            dot += p[i] * (z[i] - max);
        }
    }
    const double all = block_sum((double)sum), of = block_sum((double)total),
                 along = block_sum((double)dot);
    if (threadIdx.x == 0) *f32_at(k.loss, 0, row) = (float)(of * log(all) - along);
    if (k.g.data == NULL) return;
    const float share = (float)(of / all), weight = *f32_at(k.weight, 0, row);
    for (int64_t c = threadIdx.x * V; c < k.z.cols; c += CLUSTER_THREADS * V) {
        load<V>(z, k.z, row, c);
        load<V>(p, k.mass, teacher, c);
#pragma unroll
        for (int i = 0; i < V; i++) z[i] = weight * (share * expf(z[i] - max) - p[i]);
        store<V>(k.g, row, c, z);
    }
}

void cuda_cluster_ce(Device *dev, Tensor loss, Tensor g, Tensor z, Tensor mass, Tensor trow,
                     Tensor weight) {
    Cuda *cu = cuda_begin(dev, "cluster_ce");
    CHECK_SHAPE(loss, 1, z.rows);
    CHECK(mass.cols == z.cols && mass.ld >= mass.cols);
    CHECK_SHAPE(trow, 1, z.rows);
    CHECK_TYPE(loss, DT_F32);
    CHECK_TYPE(mass, DT_F32);
    CHECK_TYPE(trow, DT_I32);
    CHECK_FLOAT(z);
    if (g.data) {
        CHECK_SHAPE(g, z.rows, z.cols);
        CHECK_SHAPE(weight, 1, z.rows);
        CHECK_FLOAT(g);
    }
    const CeCall c = {loss, g, z, mass, trow, weight, cu->alarm};
    launch(cu, vector_width(8, z, mass, g) == 8 ? cluster_ce_kernel<8> : cluster_ce_kernel<1>,
           dim3((unsigned)z.rows), dim3(CLUSTER_THREADS), 0, c);
}

typedef struct {
    Tensor z, token, y, table, ordering, idx;
    int32_t *alarm;
} LogitsCall;

constexpr int TOKENS = 4; // of a warp at a time: their rows are on the way together

// Token j of a cluster; -1: not there, or an alarm was raised.
DEVICE_FN int32_t cluster_token(const LogitsCall &k, int32_t cluster, int64_t j) {
    if (j >= k.ordering.cols) return -1;
    const int32_t v = *i32_at(k.ordering, cluster, j);
    if (v >= 0 && v < k.table.rows) return v;
    cuda_raise(k.alarm, ALARM_TOKEN);
    return -1;
}

// A block has a row and one of its clusters. T is the table's type: known beforehand, so that no
// branch stands between the loads.
template <int V, DType T>
__global__ void __launch_bounds__(CLUSTER_THREADS) cluster_logits_kernel(LogitsCall k) {
    SHARED_MEMORY(memory);
    float *y = (float *)memory; // (H): the row
    const int64_t row = blockIdx.x / k.idx.cols, nth = blockIdx.x % k.idx.cols,
                  per = k.ordering.cols, H = k.y.cols;
    const int32_t cluster = *i32_at(k.idx, row, nth);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    if (cluster < 0 || cluster >= k.ordering.rows) {
        cuda_raise(k.alarm, ALARM_CLUSTER);
        return;
    }
    const Tensor row_of_y = {y, DT_F32, 1, H, H},
                 table = {k.table.data, T, k.table.rows, H, k.table.ld};
    for (int64_t c = threadIdx.x; c < H; c += CLUSTER_THREADS) y[c] = load_one(k.y, row, c);
    __syncthreads();
    for (int64_t j = warp * TOKENS; j < per; j += CLUSTER_THREADS / WARP * TOKENS) {
        int32_t v[TOKENS];
        float sum[TOKENS] = {};
#pragma unroll
        for (int t = 0; t < TOKENS; t++) v[t] = cluster_token(k, cluster, j + t);
        for (int64_t c = lane * V; c < H; c += WARP * V) {
            float w[TOKENS][V], yv[V];
#pragma unroll
            for (int t = 0; t < TOKENS; t++) load<V>(w[t], table, v[t] < 0 ? 0 : v[t], c);
            load<V>(yv, row_of_y, 0, c);
#pragma unroll
            for (int t = 0; t < TOKENS; t++)
#pragma unroll
                for (int i = 0; i < V; i++) sum[t] = fmaf(w[t][i], yv[i], sum[t]);
        }
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            const float z = warp_sum(sum[t]);
            if (lane != t || v[t] < 0) continue;
            *i32_at(k.token, row, nth * per + j + t) = v[t];
            *f32_at(k.z, row, nth * per + j + t) = z;
        }
    }
}

void cuda_cluster_logits(Device *dev, Tensor z, Tensor token, Tensor y, Tensor table,
                         Tensor ordering, Tensor idx) {
    Cuda *cu = cuda_begin(dev, "cluster_logits");
    const int64_t per = ordering.cols, k = idx.cols;
    CHECK_SHAPE(z, y.rows, k * per);
    CHECK_SHAPE(token, y.rows, k * per);
    CHECK_SHAPE(idx, y.rows, k);
    CHECK(table.cols == y.cols && table.ld >= table.cols);
    CHECK_TYPE(z, DT_F32);
    CHECK_TYPE(token, DT_I32);
    CHECK_TYPE(idx, DT_I32);
    CHECK_TYPE(ordering, DT_I32);
    CHECK_FLOAT(y);
    CHECK_FLOAT(table);
    CHECK(y.rows * k <= INT32_MAX);
    const LogitsCall c = {z, token, y, table, ordering, idx, cu->alarm};
    const bool wide = vector_width(8, table) == 8;
    void (*const kernel)(LogitsCall) =
        table.dtype == DT_F32
            ? wide ? cluster_logits_kernel<8, DT_F32> : cluster_logits_kernel<1, DT_F32>
        : wide ? cluster_logits_kernel<8, DT_BF16>
               : cluster_logits_kernel<1, DT_BF16>;
    launch(cu, kernel, dim3((unsigned)(y.rows * k)), dim3(CLUSTER_THREADS),
           (size_t)y.cols * sizeof(float), c);
}
