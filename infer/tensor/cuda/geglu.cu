// infer/tensor/cuda/geglu.cu - m = gelu(a) * b, gelu the tanh form that Gemma uses.
#include "infer/tensor/cuda/gelu.cuh"
#include "infer/tensor/cuda/tile.cuh"

template <int V> __global__ void geglu_kernel(Tensor m, Tensor a, Tensor b) {
    FOR_TILE(r, c, V, m.rows, m.cols) {
        float x[V], y[V];
        load<V>(x, a, r, c);
        load<V>(y, b, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = gelu(x[i]) * y[i];
        store<V>(m, r, c, x);
    }
}

static void check_alike(Tensor x, Tensor like) {
    CHECK_SHAPE(x, like.rows, like.cols);
    CHECK_FLOAT(x);
}

void cuda_geglu(Device *dev, Tensor m, Tensor a, Tensor b) {
    Cuda *cu = cuda_begin(dev, "geglu");
    check_alike(a, m);
    check_alike(b, m);
    CHECK_FLOAT(m);
    const int v = vector_width(8, m, a, b);
    const Tile t = tile_of(m.rows, m.cols / v);
    if (v == 8)
        launch(cu, geglu_kernel<8>, t.grid, t.block, 0, m, a, b);
    else
        launch(cu, geglu_kernel<1>, t.grid, t.block, 0, m, a, b);
}

// cuBLASLt has no epilogue that multiplies two halves: the products stand in ab, kept or not.
int64_t cuda_gated_room(Device *dev, int64_t rows, int64_t cols, int64_t k, DType x, DType w) {
    (void)dev, (void)cols, (void)k, (void)x, (void)w;
    return rows;
}
void cuda_gated(Device *dev, Tensor m, Tensor ab, Tensor x, Tensor w, bool keep) {
    (void)keep;
    CHECK_SHAPE(ab, m.rows, 2 * m.cols);
    cuda_matmul_nt(dev, ab, x, w, 0.0f);
    cuda_geglu(dev, m, tensor_cols(ab, 0, m.cols), tensor_cols(ab, m.cols, m.cols));
}

// da += dm b gelu'(a), db += dm gelu(a)
template <int V>
__global__ void geglu_back_kernel(Tensor da, Tensor db, Tensor dm, Tensor a, Tensor b) {
    FOR_TILE(r, c, V, dm.rows, dm.cols) {
        float g[V], x[V], y[V], d[V];
        load<V>(g, dm, r, c);
        load<V>(x, a, r, c);
        load<V>(y, b, r, c);
        load<V>(d, da, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) d[i] += g[i] * y[i] * gelu_slope(x[i]);
        store<V>(da, r, c, d);
        load<V>(d, db, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) d[i] += g[i] * gelu(x[i]);
        store<V>(db, r, c, d);
    }
}

void cuda_geglu_back(Device *dev, Tensor da, Tensor db, Tensor dm, Tensor a, Tensor b) {
    Cuda *cu = cuda_begin(dev, "geglu_back");
    check_alike(da, dm);
    check_alike(db, dm);
    check_alike(a, dm);
    check_alike(b, dm);
    CHECK_FLOAT(dm);
    const int v = vector_width(8, da, db, dm, a, b);
    const Tile t = tile_of(dm.rows, dm.cols / v);
    if (v == 8)
        launch(cu, geglu_back_kernel<8>, t.grid, t.block, 0, da, db, dm, a, b);
    else
        launch(cu, geglu_back_kernel<1>, t.grid, t.block, 0, da, db, dm, a, b);
}
