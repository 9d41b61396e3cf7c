// infer/tensor/cuda/vocab_lse.cu - log-sum-exp and probabilities of rows over vocabulary tiles.
#include "infer/tensor/cuda/row_chunk.cuh"
#include "infer/tensor/cuda/vocab_lse.cuh"

DEVICE_FN void lse_put(const LseCall &c, int64_t r, LsePart p) {
    if (c.v0 > 0) p.lse = lse_merge(lse_read(c.lse, r), p.lse);
    lse_write(c.lse, r, p.lse);
    if (c.best.data == NULL) return;
    if (c.v0 > 0) best2_merge(p.best, best2_read(c.best, c.id, r));
    best2_write(c.best, c.id, r, p.best);
}

template <int V> __global__ void __launch_bounds__(CHUNK_THREADS) lse_kernel(Tensor z, LseCall c) {
    const Chunk k = chunk_here<V>(z.cols);
    float x[CHUNK_HELD / V][V], max = -INFINITY, sum = 0.0f;
    LsePart p = {best2_none(), lse_none()};
    chunk_load<V>(x, z, k.row, k, -INFINITY);
    if (c.cap != 0.0f) {
#pragma unroll
        for (int e = 0; e < CHUNK_HELD; e++)
            x[e / V][e % V] = c.cap * tanhf(x[e / V][e % V] / c.cap);
        chunk_store<V>(z, k.row, k, x);
    }
#pragma unroll
    for (int e = 0; e < CHUNK_HELD; e++)
        if (chunk_step<V>(e / V) < k.left) max = fmaxf(max, x[e / V][e % V]);
    max = block_max(max) * c.inverse;
#pragma unroll
    for (int e = 0; e < CHUNK_HELD; e++)
        if (chunk_step<V>(e / V) < k.left && max > -INFINITY)
            sum += expf(x[e / V][e % V] * c.inverse - max);
    p.lse = Lse{max, block_sum(sum)};
    if (c.best.data) {
        best2_chunk<V>(p.best, x, k, c.v0);
        p.best = best2_block(p.best);
    }
    if (threadIdx.x != 0) return;
    if (c.part)
        c.part[blockIdx.x] = p;
    else
        lse_put(c, k.row, p);
}

__global__ void __launch_bounds__(FINISH_THREADS)
    lse_finish_kernel(int64_t rows, int parts, LseCall c) {
    const int64_t r = finish_row();
    if (r >= rows) return;
    LsePart p = {best2_none(), lse_none()};
    for (int i = (int)threadIdx.x % WARP; i < parts; i += WARP) {
        const LsePart q = c.part[r * parts + i];
        p.lse = lse_merge(p.lse, q.lse);
        if (c.best.data) best2_merge(p.best, q.best);
    }
    p.lse = lse_warp(p.lse);
    if (c.best.data) p.best = best2_warp(p.best);
    if (threadIdx.x % WARP == 0) lse_put(c, r, p);
}

void lse_finish(Cuda *cu, int64_t rows, int parts, const LseCall *c) {
    launch(cu, lse_finish_kernel, finish_grid(rows), dim3(FINISH_THREADS), 0, rows, parts, *c);
}

void cuda_lse_tile(Device *dev, Tensor lse, Tensor best, Tensor id, Tensor z, float cap, float temp,
                   int64_t v0) {
    Cuda *cu = cuda_begin(dev, "lse_tile");
    const int chunks = chunks_of(z.cols);
    CHECK_SHAPE(lse, z.rows, 2);
    CHECK_TYPE(lse, DT_F32);
    CHECK_FLOAT(z);
    CHECK(temp > 0.0f && v0 >= 0 && v0 + z.cols <= INT32_MAX);
    CHECK(cap == 0.0f || z.dtype == DT_F32, "(softcap of %s)", dtype_name(z.dtype));
    if (best.data) {
        CHECK_SHAPE(best, z.rows, 2);
        CHECK_SHAPE(id, z.rows, 2);
        CHECK_TYPE(best, DT_F32);
        CHECK_TYPE(id, DT_I32);
    }
    if (z.rows == 0) return;
    LseCall c = {lse, best, id, NULL, cap, 1.0f / temp, (int)v0};
    if (chunks > 1) {
        c.part = cuda_scratch_of<LsePart>(cu, SCRATCH_VOCAB, (size_t)(z.rows * chunks));
        if (c.part == NULL) return;
    }
    launch(cu, vector_width(8, z) == 8 ? lse_kernel<8> : lse_kernel<1>, chunk_grid(z),
           dim3(CHUNK_THREADS), 0, z, c);
    if (chunks > 1) lse_finish(cu, z.rows, chunks, &c);
}

// Sums of a chunk of probabilities: p, and p d.
typedef struct {
    double p, pd;
} ProbPart;

typedef struct {
    Tensor p, psum, lse; // psum.data NULL: not wanted
    ProbPart *part;
    float cap, temp;
} ProbCall;

DEVICE_FN void prob_finish(const ProbCall &c, int64_t r, ProbPart s, double log_sum) {
    double *sum = f64_at(c.psum, r, 0);
    sum[0] = s.p;
    sum[1] = s.pd - log_sum * s.p;
}

template <int V>
__global__ void __launch_bounds__(CHUNK_THREADS) prob_kernel(Tensor z, ProbCall c) {
    const Chunk k = chunk_here<V>(z.cols);
    __shared__ RowLog shared_log;
    if (threadIdx.x == 0) shared_log = row_log(c.lse, k.row, c.temp);
    float x[CHUNK_HELD / V][V], sum = 0.0f, dot = 0.0f;
    chunk_load<V>(x, z, k.row, k, 0.0f);
    __syncthreads();
    const RowLog l = shared_log;
#pragma unroll
    for (int e = 0; e < CHUNK_HELD; e++) {
        if (chunk_step<V>(e / V) >= k.left) continue;
        float &v = x[e / V][e % V];
        if (c.cap != 0.0f) v = c.cap * tanhf(v / c.cap);
        const float d = v * l.inverse - l.max;
        v = expf(d - l.ln);
        sum += v;
        dot += v * d;
    }
    chunk_store<V>(c.p, k.row, k, x);
    if (c.psum.data == NULL) return;
    const ProbPart s = {block_sum((double)sum), block_sum((double)dot)};
    if (threadIdx.x != 0) return;
    if (c.part)
        c.part[blockIdx.x] = s;
    else
        prob_finish(c, k.row, s, l.log_sum);
}

__global__ void __launch_bounds__(FINISH_THREADS)
    prob_finish_kernel(int64_t rows, int chunks, ProbCall c) {
    const int64_t r = finish_row();
    if (r >= rows) return;
    ProbPart s = {0.0, 0.0};
    for (int i = (int)threadIdx.x % WARP; i < chunks; i += WARP) {
        const ProbPart q = c.part[r * chunks + i];
        s.p += q.p, s.pd += q.pd;
    }
    s.p = warp_sum(s.p), s.pd = warp_sum(s.pd);
    if (threadIdx.x % WARP == 0) prob_finish(c, r, s, row_log(c.lse, r, c.temp).log_sum);
}

void cuda_prob_tile(Device *dev, Tensor p, Tensor psum, Tensor z, Tensor lse, float cap,
                    float temp) {
    Cuda *cu = cuda_begin(dev, "prob_tile");
    const int chunks = chunks_of(z.cols);
    CHECK_SHAPE(p, z.rows, z.cols);
    CHECK_TYPE(p, DT_F32);
    CHECK_FLOAT(z);
    CHECK_SHAPE(lse, z.rows, 2);
    CHECK_TYPE(lse, DT_F32);
    CHECK(temp > 0.0f);
    if (psum.data) {
        CHECK_SHAPE(psum, z.rows, 2);
        CHECK_TYPE(psum, DT_F64);
    }
    if (z.rows == 0) return;
    ProbCall c = {p, psum, lse, NULL, cap, temp};
    if (chunks > 1 && psum.data) {
        c.part = cuda_scratch_of<ProbPart>(cu, SCRATCH_VOCAB, (size_t)(z.rows * chunks));
        if (c.part == NULL) return;
    }
    launch(cu, vector_width(8, z, p) == 8 ? prob_kernel<8> : prob_kernel<1>, chunk_grid(z),
           dim3(CHUNK_THREADS), 0, z, c);
    if (c.part)
        launch(cu, prob_finish_kernel, finish_grid(z.rows), dim3(FINISH_THREADS), 0, z.rows, chunks,
               c);
}
