// infer/tensor/cuda/norm.cu - RMSNorm: y = scale (res + xhat w), xhat = x rstd, rstd = (mean x^2 +
// eps)^-1/2.
//
// A row is read twice by the threads that own its columns; the second time it comes from the cache.
#include "infer/tensor/cuda/rows.cuh"

#define FOR_ROW(c, V, cols)                                                                        \
    for (int64_t c = (int64_t)threadIdx.x * V; c < (cols); c += (int64_t)blockDim.x * V)

template <int V>
__global__ void norm_kernel(Tensor y, Tensor rstd, Tensor res, Tensor x, Tensor w, float eps,
                            float scale) {
    const int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (r >= x.rows) return; // all threads of a row
    float sum = 0.0f;
    FOR_ROW(c, V, x.cols) {
        float v[V];
        load<V>(v, x, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) sum = fmaf(v[i], v[i], sum);
    }
    const float s = 1.0f / sqrtf(row_sum(sum) / (float)x.cols + eps);
    if (rstd.data != NULL && threadIdx.x == 0) *f32_at(rstd, 0, r) = s;
    FOR_ROW(c, V, x.cols) {
        float v[V], u[V];
        load<V>(v, x, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] *= s;
        if (w.data != NULL) {
            load<V>(u, w, 0, c);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] *= u[i];
        }
        if (res.data != NULL) {
            load<V>(u, res, r, c);
#pragma unroll
            for (int i = 0; i < V; i++) v[i] += u[i];
        }
#pragma unroll
        for (int i = 0; i < V; i++) v[i] *= scale;
        store<V>(y, r, c, v);
    }
}

static void check_row_vector(Tensor w, int64_t cols) {
    if (w.data == NULL) return;
    CHECK_SHAPE(w, 1, cols);
    CHECK_FLOAT(w);
}

void cuda_norm(Device *dev, Tensor y, Tensor rstd, Tensor res, Tensor x, Tensor w, float eps,
               float scale) {
    Cuda *cu = cuda_begin(dev, "norm");
    CHECK_SHAPE(y, x.rows, x.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(x);
    check_row_vector(w, x.cols);
    if (rstd.data) CHECK_SHAPE(rstd, 1, x.rows);
    if (res.data) CHECK_SHAPE(res, x.rows, x.cols);
    const dim3 block = row_block(x.cols), grid((unsigned)ceil_div(x.rows, block.y));
    if (vector_width(8, y, res, x, w) == 8)
        launch(cu, norm_kernel<8>, grid, block, 0, y, rstd, res, x, w, eps, scale);
    else
        launch(cu, norm_kernel<1>, grid, block, 0, y, rstd, res, x, w, eps, scale);
}

// part: (parts, cols), or NULL where nobody wants dw.
template <int V>
__global__ void norm_back_kernel(Tensor dx, float *part, Tensor dres, Tensor dy, Tensor x,
                                 Tensor rstd, Tensor w, float scale, int64_t size) {
    SHARED_MEMORY(shared);
    float *sums = (float *)shared + threadIdx.y * x.cols;
    const int64_t first = blockIdx.x * size, end = first + size < x.rows ? first + size : x.rows;
    if (part != NULL) FOR_ROW(c, V, x.cols)
    for (int i = 0; i < V; i++) sums[part_place<V>(c + i, x.cols)] = 0.0f;
    for (int64_t r = first + threadIdx.y; r < end; r += blockDim.y) {
        const float s = *f32_at(rstd, 0, r), a = s * scale;
        float dot = 0.0f;
        FOR_ROW(c, V, x.cols) {
            float g[V], v[V], u[V];
            load<V>(g, dy, r, c);
            load<V>(v, x, r, c);
            if (w.data != NULL) {
                load<V>(u, w, 0, c);
#pragma unroll
                for (int i = 0; i < V; i++) g[i] *= u[i];
            }
#pragma unroll
            for (int i = 0; i < V; i++) dot = fmaf(g[i], v[i], dot);
        }
        const float b = s * (row_sum(dot) * scale * s / (float)x.cols);
        FOR_ROW(c, V, x.cols) {
            float g[V], v[V], u[V], d[V];
            load<V>(g, dy, r, c);
            load<V>(v, x, r, c);
            load<V>(d, dx, r, c);
            if (w.data != NULL) load<V>(u, w, 0, c);
#pragma unroll
            for (int i = 0; i < V; i++)
                d[i] += a * (w.data != NULL ? g[i] * u[i] : g[i]) - b * (v[i] * s);
            store<V>(dx, r, c, d);
            if (part != NULL)
#pragma unroll
                for (int i = 0; i < V; i++) sums[part_place<V>(c + i, x.cols)] += a * (g[i] * v[i]);
            if (dres.data == NULL) continue;
            load<V>(d, dres, r, c);
#pragma unroll
            for (int i = 0; i < V; i++) d[i] += scale * g[i];
            store<V>(dres, r, c, d);
        }
    }
    if (part != NULL) part_store<V>(part, (const float *)shared, x.cols);
}

void cuda_norm_back(Device *dev, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor x,
                    Tensor rstd, Tensor w, float scale) {
    Cuda *cu = cuda_begin(dev, "norm_back");
    CHECK_SHAPE(dx, x.rows, x.cols);
    CHECK_SHAPE(dy, x.rows, x.cols);
    CHECK_SHAPE(rstd, 1, x.rows);
    check_row_vector(w, x.cols);
    if (dw.data) {
        CHECK_SHAPE(dw, 1, x.cols);
        CHECK_TYPE(dw, DT_F32);
    }
    if (dres.data) CHECK_SHAPE(dres, x.rows, x.cols);
    const dim3 block = row_block(x.cols);
    const RowParts p = row_parts(x.rows, block);
    float *part = NULL;
    if (dw.data != NULL) {
        part = cuda_scratch_of<float>(cu, SCRATCH_SUMS, (size_t)(p.count * x.cols));
        if (part == NULL) return;
    }
    const size_t shared = part != NULL ? part_shared(block, x.cols) : 0;
    const dim3 grid((unsigned)p.count);
    if (vector_width(8, dx, dres, dy, x, w) == 8)
        launch(cu, norm_back_kernel<8>, grid, block, shared, dx, part, dres, dy, x, rstd, w, scale,
               p.size);
    else
        launch(cu, norm_back_kernel<1>, grid, block, shared, dx, part, dres, dy, x, rstd, w, scale,
               p.size);
    if (part != NULL) add_parts(cu, dw, part, p.count);
}

// Eight threads share the parts of a column; their sums meet in order.
__global__ void add_parts_kernel(Tensor dst, const float *part, int64_t count) {
    __shared__ float sums[8][WARP];
    const int64_t c = (int64_t)blockIdx.x * WARP + threadIdx.x;
    float sum = 0.0f;
    if (c < dst.cols)
        for (int64_t p = threadIdx.y; p < count; p += 8) sum += part[p * dst.cols + c];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= dst.cols) return;
    for (int y = 1; y < 8; y++) sum += sums[y][threadIdx.x];
    *f32_at(dst, 0, c) += sum;
}

void add_parts(Cuda *cu, Tensor dst, const float *part, int64_t count) {
    launch(cu, add_parts_kernel, dim3((unsigned)ceil_div(dst.cols, WARP)), dim3(WARP, 8), 0, dst,
           part, count);
}
