// infer/tensor/cuda/adamw.cu - AdamW as torch computes it, one pass over all buffers:
//
// w -= lr decay w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
// w -= lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps).
#include "infer/tensor/cuda/cuda.cuh"
#include "infer/tensor/cuda/tile.cuh"

typedef struct {
    float gscale, keep, rate, beta1, beta2, root, eps; // keep = 1 - lr decay, root = sqrt(1 - b2^t)
} AdamStep;

template <int V>
__global__ void adamw_kernel(Tensor w, Tensor m, Tensor v, Tensor copy, Tensor g, AdamStep s) {
    FOR_TILE(r, c, V, w.rows, w.cols) {
        float x[V], a[V], b[V], y[V];
        load<V>(x, g, r, c);
        load<V>(a, m, r, c);
        load<V>(b, v, r, c);
        load<V>(y, w, r, c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            x[i] *= s.gscale;
            a[i] = s.beta1 * a[i] + (1.0f - s.beta1) * x[i];
            b[i] = s.beta2 * b[i] + (1.0f - s.beta2) * x[i] * x[i];
            y[i] = y[i] * s.keep - s.rate * (a[i] / (sqrtf(b[i]) / s.root + s.eps));
        }
        store<V>(m, r, c, a);
        store<V>(v, r, c, b);
        store<V>(w, r, c, y);
        if (copy.data != NULL) store<V>(copy, r, c, y);
    }
}

void cuda_adamw(Device *dev, Tensor w, Tensor m, Tensor v, Tensor copy, Tensor g, float gscale,
                float lr, float beta1, float beta2, float eps, float decay, int64_t step) {
    Cuda *cu = cuda_begin(dev, "adamw");
    const Tensor *all[] = {&w, &m, &v, &g};
    for (int i = 0; i < 4; i++) {
        CHECK_SHAPE(*all[i], w.rows, w.cols);
        CHECK_TYPE(*all[i], DT_F32);
    }
    if (copy.data) {
        CHECK_SHAPE(copy, w.rows, w.cols);
        CHECK_TYPE(copy, DT_BF16);
    }
    CHECK(step >= 1);
    const AdamStep s = {.gscale = gscale,
                        .keep = (float)(1.0 - (double)lr * decay),
                        .rate = (float)(lr / (1.0 - pow(beta1, (double)step))),
                        .beta1 = beta1,
                        .beta2 = beta2,
                        .root = (float)sqrt(1.0 - pow(beta2, (double)step)),
                        .eps = eps};
    const int width = vector_width(4, w, m, v, copy, g);
    const Tile t = tile_of(w.rows, w.cols / width);
    if (width == 4)
        launch(cu, adamw_kernel<4>, t.grid, t.block, 0, w, m, v, copy, g, s);
    else
        launch(cu, adamw_kernel<1>, t.grid, t.block, 0, w, m, v, copy, g, s);
}
