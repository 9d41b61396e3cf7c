// infer/tensor/cuda/elementwise.cu - operators without structure: fill, copy, scale and add, cap,
// square sum.
#include "infer/tensor/cuda/cuda.cuh"
#include "infer/tensor/cuda/tile.cuh"

// A matrix as bytes, for values that only move: rows of `units` units of 1, 4 or 16 bytes.
typedef struct {
    char *data;
    int64_t pitch; // bytes
} Bytes;

static Bytes bytes_of(Tensor t) {
    return {(char *)t.data, t.ld * (int64_t)dtype_size(t.dtype)};
}

static bool unit_fits(Bytes b, size_t unit) {
    return (uintptr_t)b.data % unit == 0 && (size_t)b.pitch % unit == 0;
}

template <typename Unit>
__global__ void move_kernel(Bytes to, Bytes from, int64_t rows, int64_t units) {
    FOR_TILE(r, u, 1, rows, units) {
        Unit v = {};
        if (from.data != NULL) v = ((const Unit *)(from.data + r * from.pitch))[u];
        ((Unit *)(to.data + r * to.pitch))[u] = v;
    }
}

// from.data NULL: zeros
static void move_rows(Cuda *cu, Tensor y, Bytes from) {
    const Bytes to = bytes_of(y);
    const size_t row = (size_t)y.cols * dtype_size(y.dtype);
    const auto fits = [&](size_t unit) {
        return row % unit == 0 && unit_fits(to, unit) &&
               (from.data == NULL || unit_fits(from, unit));
    };
    const int64_t unit = fits(16) ? 16 : fits(4) ? 4 : 1, units = (int64_t)row / unit;
    const Tile t = tile_of(y.rows, units);
    if (unit == 16)
        launch(cu, move_kernel<uint4>, t.grid, t.block, 0, to, from, y.rows, units);
    else if (unit == 4)
        launch(cu, move_kernel<uint32_t>, t.grid, t.block, 0, to, from, y.rows, units);
    else
        launch(cu, move_kernel<uint8_t>, t.grid, t.block, 0, to, from, y.rows, units);
}

void cuda_zero(Device *dev, Tensor x) {
    Cuda *cu = cuda_begin(dev, "zero");
    flatten(&x);
    move_rows(cu, x, {NULL, 0});
}

template <int V> __global__ void copy_kernel(Tensor y, Tensor x) {
    FOR_TILE(r, c, V, x.rows, x.cols) {
        float v[V];
        load<V>(v, x, r, c);
        store<V>(y, r, c, v);
    }
}

void cuda_copy(Device *dev, Tensor y, Tensor x) {
    Cuda *cu = cuda_begin(dev, "copy");
    CHECK_SHAPE(y, x.rows, x.cols);
    flatten(&y, &x);
    if (y.dtype == x.dtype) {
        move_rows(cu, y, bytes_of(x));
        return;
    }
    CHECK_FLOAT(y);
    CHECK_FLOAT(x);
    const int v = vector_width(8, y, x);
    const Tile t = tile_of(x.rows, x.cols / v);
    if (v == 8)
        launch(cu, copy_kernel<8>, t.grid, t.block, 0, y, x);
    else
        launch(cu, copy_kernel<1>, t.grid, t.block, 0, y, x);
}

template <int V> __global__ void axpby_kernel(Tensor y, Tensor x, float alpha, float beta) {
    FOR_TILE(r, c, V, x.rows, x.cols) {
        float v[V], old[V];
        load<V>(v, x, r, c);
        if (beta != 0.0f) load<V>(old, y, r, c); // else it may be anything, NaN included
#pragma unroll
        for (int i = 0; i < V; i++)
            v[i] = beta != 0.0f ? alpha * v[i] + beta * old[i] : alpha * v[i];
        store<V>(y, r, c, v);
    }
}

void cuda_axpby(Device *dev, Tensor y, Tensor x, float alpha, float beta) {
    Cuda *cu = cuda_begin(dev, "axpby");
    CHECK_SHAPE(y, x.rows, x.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(x);
    flatten(&y, &x);
    const int v = vector_width(8, y, x);
    const Tile t = tile_of(x.rows, x.cols / v);
    if (v == 8)
        launch(cu, axpby_kernel<8>, t.grid, t.block, 0, y, x, alpha, beta);
    else
        launch(cu, axpby_kernel<1>, t.grid, t.block, 0, y, x, alpha, beta);
}

template <int V> __global__ void softcap_kernel(Tensor z, float cap) {
    const float inverse = 1.0f / cap;
    FOR_TILE(r, c, V, z.rows, z.cols) {
        float v[V];
        load<V>(v, z, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = cap * tanhf(v[i] * inverse);
        store<V>(z, r, c, v);
    }
}

void cuda_softcap(Device *dev, Tensor z, float cap) {
    Cuda *cu = cuda_begin(dev, "softcap");
    CHECK_FLOAT(z);
    if (cap == 0.0f) return;
    flatten(&z);
    const int v = vector_width(8, z);
    const Tile t = tile_of(z.rows, z.cols / v);
    if (v == 8)
        launch(cu, softcap_kernel<8>, t.grid, t.block, 0, z, cap);
    else
        launch(cu, softcap_kernel<1>, t.grid, t.block, 0, z, cap);
}

// Part b sums a span of a row; spans are cut by position.
enum { SUMSQ_THREADS = 256, SUMSQ_SPAN = 16384 };

template <int V> __global__ void sumsq_kernel(double *part, Tensor x, int64_t across) {
    const int64_t r = blockIdx.x / across, first = blockIdx.x % across * SUMSQ_SPAN,
                  end = first + SUMSQ_SPAN < x.cols ? first + SUMSQ_SPAN : x.cols;
    double sum = 0.0;
    for (int64_t c = first + (int64_t)threadIdx.x * V; c < end; c += SUMSQ_THREADS * V) {
        float v[V];
        load<V>(v, x, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) sum += (double)v[i] * (double)v[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

__global__ void sum_parts_kernel(double *out, const double *part, int64_t n) {
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += SUMSQ_THREADS) sum += part[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = sum;
}

void cuda_sumsq(Device *dev, Tensor out, Tensor x) {
    Cuda *cu = cuda_begin(dev, "sumsq");
    CHECK_SHAPE(out, 1, 1);
    CHECK_TYPE(out, DT_F64);
    CHECK_FLOAT(x);
    flatten(&x);
    const int64_t across = ceil_div(x.cols, SUMSQ_SPAN), blocks = x.rows * across;
    CHECK(blocks <= INT32_MAX);
    double *part = cuda_scratch_of<double>(cu, SCRATCH_SUMS, (size_t)blocks);
    if (part == NULL) return;
    if (vector_width(8, x) == 8)
        launch(cu, sumsq_kernel<8>, dim3((unsigned)blocks), SUMSQ_THREADS, 0, part, x, across);
    else
        launch(cu, sumsq_kernel<1>, dim3((unsigned)blocks), SUMSQ_THREADS, 0, part, x, across);
    launch(cu, sum_parts_kernel, 1, SUMSQ_THREADS, 0, (double *)out.data, part, blocks);
}
