// infer/tensor/cuda/gather.cu - rows of a table by id: y[r] = scale * table[ids[r]], and its
// transpose.
#include "infer/tensor/cuda/cuda.cuh"
#include "infer/tensor/cuda/tile.cuh"

static void check_ids(Tensor ids, int64_t rows) {
    CHECK_SHAPE(ids, 1, rows);
    CHECK_TYPE(ids, DT_I32);
}

template <int V>
__global__ void gather_kernel(Tensor y, Tensor table, Tensor ids, float scale, int32_t *alarm) {
    FOR_TILE(r, c, V, y.rows, y.cols) {
        const int32_t id = *i32_at(ids, 0, r);
        float v[V] = {};
        if (id >= table.rows)
            cuda_raise(alarm, ALARM_GATHER_ID);
        else if (id >= 0)
            load<V>(v, table, id, c);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] *= scale;
        store<V>(y, r, c, v);
    }
}

void cuda_gather(Device *dev, Tensor y, Tensor table, Tensor ids, float scale) {
    Cuda *cu = cuda_begin(dev, "gather");
    CHECK_SHAPE(y, y.rows, table.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(table);
    check_ids(ids, y.rows);
    const int v = vector_width(8, y, table);
    const Tile t = tile_of(y.rows, y.cols / v);
    if (v == 8)
        launch(cu, gather_kernel<8>, t.grid, t.block, 0, y, table, ids, scale, cu->alarm);
    else
        launch(cu, gather_kernel<1>, t.grid, t.block, 0, y, table, ids, scale, cu->alarm);
}

// A block per row of dy. The first row of an id adds up all rows of that id, in order; the blocks
// of the others end. Each thread owns columns, so only the search is shared.
template <int V>
__global__ void gather_back_kernel(Tensor dtable, Tensor dy, Tensor ids, float scale,
                                   int32_t *alarm) {
    const int64_t r = blockIdx.x;
    const int32_t id = *i32_at(ids, 0, r);
    if (id < 0) return;
    if (id >= dtable.rows) {
        cuda_raise(alarm, ALARM_GATHER_ID);
        return;
    }
    int earlier = 0, later = 0;
    for (int64_t i = threadIdx.x; i < dy.rows; i += blockDim.x)
        if (*i32_at(ids, 0, i) == id) earlier |= i<r, later |= i> r;
    if (__syncthreads_or(earlier)) return;
    const int64_t end = __syncthreads_or(later) ? dy.rows : r + 1;
    for (int64_t c = (int64_t)threadIdx.x * V; c < dy.cols; c += (int64_t)blockDim.x * V) {
        float sum[V], v[V];
        load<V>(sum, dtable, id, c);
        for (int64_t i = r; i < end; i++) {
            if (*i32_at(ids, 0, i) != id) continue;
            load<V>(v, dy, i, c);
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] += scale * v[k];
        }
        store<V>(dtable, id, c, sum);
    }
}

void cuda_gather_back(Device *dev, Tensor dtable, Tensor dy, Tensor ids, float scale) {
    Cuda *cu = cuda_begin(dev, "gather_back");
    CHECK_SHAPE(dy, dy.rows, dtable.cols);
    CHECK_TYPE(dtable, DT_F32);
    CHECK_FLOAT(dy);
    check_ids(ids, dy.rows);
    const int v = vector_width(8, dtable, dy);
    const unsigned threads = dy.cols / v <= 64 ? 64 : dy.cols / v <= 128 ? 128 : 256;
    const dim3 grid((unsigned)(dy.cols > 0 ? dy.rows : 0));
    if (v == 8)
        launch(cu, gather_back_kernel<8>, grid, threads, 0, dtable, dy, ids, scale, cu->alarm);
    else
        launch(cu, gather_back_kernel<1>, grid, threads, 0, dtable, dy, ids, scale, cu->alarm);
}
