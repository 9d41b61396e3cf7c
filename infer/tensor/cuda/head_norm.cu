// infer/tensor/cuda/head_norm.cu - per-head RMSNorm and rotation: y = R(xhat w), R turns pairs (i,
// i
// + hd/2).
//
// A warp has one head of one row; a lane has both halves of its pairs. R by angle t: y_i = n_i cos
// t
// - n_j sin t, y_j = n_j cos t + n_i sin t, j = i + hd/2; backward turns the other way. cs holds
// cos in its first and sin in its second half, one row per row of x.
#include "infer/tensor/cuda/rows.cuh"
#include "infer/tensor/cuda/tile.cuh"

enum { HEADS_AT_ONCE = 8, HEAD_MAX = 2048 };

// Columns i of the first half that this lane has, V at a time.
#define FOR_PAIRS(i, V, half) for (int i = (int)threadIdx.x * V; i < (half); i += WARP * V)

template <int V> DEVICE_FN float square_sum(Tensor x, int64_t r, int64_t c, int half) {
    float sum = 0.0f;
    FOR_PAIRS(i, V, half) {
        float a[V], b[V];
        load<V>(a, x, r, c + i);
        load<V>(b, x, r, c + half + i);
#pragma unroll
        for (int k = 0; k < V; k++) sum = fmaf(b[k], b[k], fmaf(a[k], a[k], sum));
    }
    return warp_sum(sum);
}

// (a, b) turned by the angle of pair i; sign -1 turns back.
template <int V>
DEVICE_FN void rotate(float (&a)[V], float (&b)[V], Tensor cs, int64_t r, int i, int half,
                      float sign) {
    float c[V], s[V];
    load<V>(c, cs, r, i);
    load<V>(s, cs, r, half + i);
#pragma unroll
    for (int k = 0; k < V; k++) {
        const float x = a[k], y = b[k], t = sign * s[k];
        a[k] = x * c[k] - y * t;
        b[k] = y * c[k] + x * t;
    }
}

template <int V> DEVICE_FN void scale_by(float (&x)[V], Tensor w, int64_t c) {
    float u[V];
    load<V>(u, w, 0, c);
#pragma unroll
    for (int k = 0; k < V; k++) x[k] *= u[k];
}

template <int V>
__global__ void head_norm_kernel(Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, float eps,
                                 int hd) {
    const int64_t heads = x.cols / hd, at = (int64_t)blockIdx.x * HEADS_AT_ONCE + threadIdx.y;
    if (at >= x.rows * heads) return;
    const int64_t r = at / heads, h = at % heads, c = h * hd;
    const int half = hd / 2;
    const float s = 1.0f / sqrtf(square_sum<V>(x, r, c, half) / (float)hd + eps);
    if (rstd.data != NULL && threadIdx.x == 0) *f32_at(rstd, r, h) = s;
    FOR_PAIRS(i, V, half) {
        float a[V], b[V];
        load<V>(a, x, r, c + i);
        load<V>(b, x, r, c + half + i);
#pragma unroll
        for (int k = 0; k < V; k++) a[k] *= s, b[k] *= s;
        if (w.data != NULL) scale_by<V>(a, w, i), scale_by<V>(b, w, half + i);
        if (cs.data != NULL) rotate<V>(a, b, cs, r, i, half, 1.0f);
        store<V>(y, r, c + i, a);
        store<V>(y, r, c + half + i, b);
    }
}

static void check_heads(Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, int hd) {
    CHECK(hd > 0 && hd % 2 == 0 && hd <= HEAD_MAX && x.cols % hd == 0, "(hd %d of %lld columns)",
          hd, (long long)x.cols);
    CHECK_SHAPE(y, x.rows, x.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(x);
    if (rstd.data) CHECK_SHAPE(rstd, x.rows, x.cols / hd);
    if (w.data) CHECK_SHAPE(w, 1, hd);
    if (cs.data) {
        CHECK_SHAPE(cs, x.rows, hd);
        CHECK_TYPE(cs, DT_F32);
    }
}

// Whether halves of heads can be moved by fours.
template <typename... T> static bool by_fours(int hd, T... t) {
    return hd % 8 == 0 && vector_width(4, t...) == 4;
}

void cuda_head_norm(Device *dev, Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, float eps,
                    int hd) {
    Cuda *cu = cuda_begin(dev, "head_norm");
    check_heads(y, rstd, x, w, cs, hd);
    const dim3 grid((unsigned)ceil_div(x.rows * (x.cols / hd), HEADS_AT_ONCE)),
        block(WARP, HEADS_AT_ONCE);
    if (by_fours(hd, y, x, w, cs))
        launch(cu, head_norm_kernel<4>, grid, block, 0, y, rstd, x, w, cs, eps, hd);
    else
        launch(cu, head_norm_kernel<1>, grid, block, 0, y, rstd, x, w, cs, eps, hd);
}

// n = dy turned back, xhat = x rstd:  dw += n xhat,  dx += rstd (n w - xhat mean(n w xhat)).
// Heads of all rows are one list, cut into parts as rows are.
template <int V>
__global__ void head_norm_back_kernel(Tensor dx, float *part, Tensor dy, Tensor x, Tensor rstd,
                                      Tensor w, Tensor cs, int hd, int64_t size) {
    SHARED_MEMORY(shared);
    float *sums = (float *)shared + threadIdx.y * hd;
    const int half = hd / 2;
    const int64_t heads = x.cols / hd, all = x.rows * heads, first = blockIdx.x * size,
                  end = first + size < all ? first + size : all;
    if (part != NULL)
        for (int i = (int)threadIdx.x; i < hd; i += WARP) sums[i] = 0.0f;
    __syncwarp();
    for (int64_t at = first + threadIdx.y; at < end; at += blockDim.y) {
        const int64_t r = at / heads, c = at % heads * hd;
        const float s = *f32_at(rstd, r, at % heads);
        float dot = 0.0f;
        FOR_PAIRS(i, V, half) {
            float a[V], b[V], u[V], v[V];
            load<V>(a, dy, r, c + i);
            load<V>(b, dy, r, c + half + i);
            load<V>(u, x, r, c + i);
            load<V>(v, x, r, c + half + i);
            if (cs.data != NULL) rotate<V>(a, b, cs, r, i, half, -1.0f);
            if (part != NULL)
#pragma unroll
                for (int k = 0; k < V; k++) {
                    sums[part_place<V>(i + k, hd)] += a[k] * (u[k] * s);
                    sums[part_place<V>(half + i + k, hd)] += b[k] * (v[k] * s);
                }
            if (w.data != NULL) scale_by<V>(a, w, i), scale_by<V>(b, w, half + i);
#pragma unroll
            for (int k = 0; k < V; k++) dot = fmaf(b[k], v[k], fmaf(a[k], u[k], dot));
        }
        const float mean = warp_sum(dot) * s / (float)hd;
        FOR_PAIRS(i, V, half) {
            float a[V], b[V], u[V], v[V], d[V];
            load<V>(a, dy, r, c + i);
            load<V>(b, dy, r, c + half + i);
            load<V>(u, x, r, c + i);
            load<V>(v, x, r, c + half + i);
            if (cs.data != NULL) rotate<V>(a, b, cs, r, i, half, -1.0f);
            if (w.data != NULL) scale_by<V>(a, w, i), scale_by<V>(b, w, half + i);
            load<V>(d, dx, r, c + i);
#pragma unroll
            for (int k = 0; k < V; k++) d[k] += s * (a[k] - u[k] * s * mean);
            store<V>(dx, r, c + i, d);
            load<V>(d, dx, r, c + half + i);
#pragma unroll
            for (int k = 0; k < V; k++) d[k] += s * (b[k] - v[k] * s * mean);
            store<V>(dx, r, c + half + i, d);
        }
    }
    if (part != NULL) part_store<V>(part, (const float *)shared, hd);
}

void cuda_head_norm_back(Device *dev, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor rstd,
                         Tensor w, Tensor cs, int hd) {
    Cuda *cu = cuda_begin(dev, "head_norm_back");
    check_heads(dx, rstd, x, w, cs, hd);
    CHECK_SHAPE(dy, x.rows, x.cols);
    CHECK(rstd.data != NULL);
    if (dw.data) {
        CHECK_SHAPE(dw, 1, hd);
        CHECK_TYPE(dw, DT_F32);
    }
    const dim3 block(WARP, HEADS_AT_ONCE);
    const RowParts p = row_parts(x.rows * (x.cols / hd), block);
    float *part = NULL;
    if (dw.data != NULL) {
        part = cuda_scratch_of<float>(cu, SCRATCH_SUMS, (size_t)(p.count * hd));
        if (part == NULL) return;
    }
    const size_t shared = part != NULL ? part_shared(block, hd) : 0;
    const dim3 grid((unsigned)p.count);
    if (by_fours(hd, dx, dy, x, w, cs))
        launch(cu, head_norm_back_kernel<4>, grid, block, shared, dx, part, dy, x, rstd, w, cs, hd,
               p.size);
    else
        launch(cu, head_norm_back_kernel<1>, grid, block, shared, dx, part, dy, x, rstd, w, cs, hd,
               p.size);
    if (part != NULL) add_parts(cu, dw, part, p.count);
}

// Angles are rounded to f32, as the reference does; cosf and sinf take large ones.
__global__ void rope_table_kernel(Tensor cs, Tensor pos, Tensor inv) {
    FOR_TILE(r, c, 1, cs.rows, inv.cols) {
        const float angle = (float)*i32_at(pos, 0, r) * *f32_at(inv, 0, c);
        *f32_at(cs, r, c) = cosf(angle);
        *f32_at(cs, r, inv.cols + c) = sinf(angle);
    }
}

void cuda_rope_table(Device *dev, Tensor cs, Tensor pos, Tensor inv) {
    Cuda *cu = cuda_begin(dev, "rope_table");
    CHECK_SHAPE(cs, pos.cols, 2 * inv.cols);
    CHECK_TYPE(cs, DT_F32);
    CHECK_TYPE(pos, DT_I32);
    CHECK_TYPE(inv, DT_F32);
    const Tile t = tile_of(cs.rows, inv.cols);
    launch(cu, rope_table_kernel, t.grid, t.block, 0, cs, pos, inv);
}
