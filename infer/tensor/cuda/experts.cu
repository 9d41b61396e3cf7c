// infer/tensor/cuda/experts.cu - a mixture of experts: weights of the chosen ones, and their sum.
//
// Pairs are sorted by expert on the device, so nobody waits: grids are made for the most tiles
// there can be, and blocks beyond the last end at once. Two products follow, gate and up with their
// gelu in one, and a row's sum runs over its experts in rising order, whoever its neighbours are.
#include "infer/tensor/cuda/experts.cuh"

enum { SORT_THREADS = 256, CHOICES_MAX = 64 };

__global__ void route_kernel(Tensor w, Tensor z, Tensor idx, Tensor scale, int32_t *alarm) {
    const int64_t r = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= w.rows) return;
    const int32_t *e = i32_at(idx, r, 0);
    const float *s = f32_at(z, r, 0);
    float *p = f32_at(w, r, 0), sum = 0.0f;
    for (int64_t i = 0; i < w.cols; i++)
        if (e[i] < 0 || e[i] >= z.cols) {
            cuda_raise(alarm, ALARM_EXPERT);
            return;
        }
    for (int64_t i = 0; i < w.cols; i++) {
        p[i] = expf(s[e[i]] - s[e[0]]); // the first is the largest
        sum += p[i];
    }
    for (int64_t i = 0; i < w.cols; i++) p[i] = p[i] / sum * *f32_at(scale, 0, e[i]);
}

void cuda_route(Device *dev, Tensor w, Tensor z, Tensor idx, Tensor scale) {
    Cuda *cu = cuda_begin(dev, "route");
    CHECK_SHAPE(w, idx.rows, idx.cols);
    CHECK_SHAPE(z, idx.rows, z.cols);
    CHECK_SHAPE(scale, 1, z.cols);
    CHECK_TYPE(w, DT_F32);
    CHECK_TYPE(z, DT_F32);
    CHECK_TYPE(idx, DT_I32);
    CHECK_TYPE(scale, DT_F32);
    launch(cu, route_kernel, dim3((unsigned)ceil_div(w.rows, 64)), 64, 0, w, z, idx, scale,
           cu->alarm);
}

DEVICE_FN int32_t expert_of(Tensor idx, int64_t pair) {
    return *i32_at(idx, pair / idx.cols, pair % idx.cols);
}

__global__ void count_kernel(Groups g, Tensor idx, int32_t *alarm) { // a block per expert
    const int32_t expert = (int32_t)blockIdx.x, experts = (int32_t)gridDim.x;
    const int64_t pairs = idx.rows * idx.cols;
    int n = 0;
    for (int64_t p = threadIdx.x; p < pairs; p += SORT_THREADS) {
        const int32_t e = expert_of(idx, p);
        n += e == expert;
        if (expert == 0 && (e < 0 || e >= experts)) cuda_raise(alarm, ALARM_EXPERT);
    }
    n = block_sum(n);
    if (threadIdx.x == 0) g.count[expert] = n;
}

// Its pairs, in order, behind those of the experts before it, and its tiles likewise.
__global__ void place_kernel(Groups g, Tensor idx, int tile_rows) {
    __shared__ int before[SORT_THREADS / WARP + 1];
    const int expert = (int)blockIdx.x, lane = (int)threadIdx.x % WARP,
              warp = (int)threadIdx.x / WARP;
    const int64_t pairs = idx.rows * idx.cols;
    int first = 0, tiles = 0;
    for (int e = (int)threadIdx.x; e < expert; e += SORT_THREADS) {
        first += g.count[e];
        tiles += (g.count[e] + tile_rows - 1) / tile_rows;
    }
    first = block_sum(first);
    tiles = block_sum(tiles);
    const int count = g.count[expert], own = (count + tile_rows - 1) / tile_rows;
    for (int t = (int)threadIdx.x; t < own; t += SORT_THREADS)
        g.tile[tiles + t] = {expert, first + t * tile_rows, min(tile_rows, count - t * tile_rows)};
    if (expert == (int)gridDim.x - 1 && threadIdx.x == 0) *g.tiles = tiles + own;
    for (int64_t p0 = 0; p0 < pairs; p0 += SORT_THREADS) {
        const int64_t p = p0 + threadIdx.x;
        const bool mine = p < pairs && expert_of(idx, p) == expert;
        const unsigned votes = __ballot_sync(ALL_LANES, mine);
        if (lane == 0) before[warp + 1] = __popc(votes);
        __syncthreads();
        if (threadIdx.x == 0) {
            before[0] = 0;
            for (int w = 0; w < SORT_THREADS / WARP; w++) before[w + 1] += before[w];
        }
        __syncthreads();
        if (mine) g.pair[first + before[warp] + __popc(votes & ((1u << lane) - 1u))] = (int32_t)p;
        first += before[SORT_THREADS / WARP];
        __syncthreads();
    }
}

// y[r] = sum over its choices, by rising expert, of w * out[pair]. A block per row.
__global__ void mix_kernel(Tensor y, Tensor out, Tensor w, Tensor idx, int experts) {
    __shared__ int order[CHOICES_MAX];
    const int64_t r = blockIdx.x, k = idx.cols;
    for (int64_t i = threadIdx.x; i < k; i += blockDim.x) {
        const int32_t e = *i32_at(idx, r, i);
        int rank = 0;
        for (int64_t j = 0; j < k; j++) {
            const int32_t f = *i32_at(idx, r, j);
            rank += f < e || (f == e && j < i);
        }
        order[rank] = e >= 0 && e < experts ? (int)i : -1;
    }
    __syncthreads();
    for (int64_t c = threadIdx.x; c < y.cols; c += blockDim.x) {
        float sum = 0.0f;
        for (int64_t i = 0; i < k; i++)
            if (order[i] >= 0) sum += *f32_at(w, r, order[i]) * *f32_at(out, r * k + order[i], c);
        *f32_at(y, r, c) = sum;
    }
}

static bool sort_pairs(Cuda *cu, Groups *g, Tensor idx, int64_t experts, int64_t tile_rows) {
    const int64_t pairs = tensor_count(idx);
    g->most = least64(pairs, pairs / tile_rows + experts);
    const size_t ints = (size_t)(experts + pairs + 1);
    int32_t *room = (int32_t *)cuda_scratch(
        cu, SCRATCH_PAIRS, ints * sizeof *room + (size_t)g->most * sizeof *g->tile);
    if (room == NULL) return false;
    g->count = room;
    g->pair = room + experts;
    g->tiles = g->pair + pairs;
    g->tile = (GroupTile *)(g->tiles + 1);
    launch(cu, count_kernel, dim3((unsigned)experts), SORT_THREADS, 0, *g, idx, cu->alarm);
    launch(cu, place_kernel, dim3((unsigned)experts), SORT_THREADS, 0, *g, idx, (int)tile_rows);
    return true;
}

static void group_product(Cuda *cu, const GroupProduct *p, bool gated, int64_t tile_rows) {
    if (!group_product_mma(cu, p, gated, tile_rows)) group_product_any(cu, p, gated, tile_rows);
}

static void mix_experts(Cuda *cu, Tensor y, Tensor x, Tensor idx, Tensor w, Tensor gate_up,
                        Tensor down) {
    const int64_t B = x.cols, inter = down.cols, experts = down.rows / B, pairs = tensor_count(idx);
    const int64_t tile_rows = pairs < 32 * experts ? GROUP_ROWS_FEW : GROUP_ROWS_MANY;
    Groups g;
    if (!sort_pairs(cu, &g, idx, experts, tile_rows)) return;
    const size_t mid_bytes = ((size_t)(pairs * inter) * dtype_size(x.dtype) + 255) / 256 * 256;
    char *room =
        (char *)cuda_scratch(cu, SCRATCH_EXPERTS, mid_bytes + (size_t)(pairs * B) * sizeof(float));
    if (room == NULL) return;
    const Tensor mid = tensor_of(room, x.dtype, pairs, inter),
                 out = tensor_of(room + mid_bytes, DT_F32, pairs, B);
    const GroupProduct first = {.out = mid,
                                .a = x,
                                .w = gate_up,
                                .groups = g,
                                .columns = inter,
                                .stride = 2 * inter,
                                .choices = (int)idx.cols},
                       second = {.out = out,
                                 .a = mid,
                                 .w = down,
                                 .groups = g,
                                 .columns = B,
                                 .stride = B,
                                 .choices = 0};
    group_product(cu, &first, true, tile_rows);
    group_product(cu, &second, false, tile_rows);
    launch(cu, mix_kernel, dim3((unsigned)y.rows), 256, 0, y, out, w, idx, (int)experts);
}

void cuda_experts(Device *dev, Tensor y, Tensor x, Tensor idx, Tensor w, Tensor gate_up,
                  Tensor down) {
    Cuda *cu = cuda_begin(dev, "experts");
    const int64_t B = x.cols, inter = down.cols, experts = down.rows / B;
    CHECK_SHAPE(y, x.rows, B);
    CHECK_TYPE(y, DT_F32);
    CHECK_FLOAT(x);
    CHECK_SHAPE(idx, x.rows, idx.cols);
    CHECK_TYPE(idx, DT_I32);
    CHECK_SHAPE(w, x.rows, idx.cols);
    CHECK_TYPE(w, DT_F32);
    CHECK_SHAPE(down, experts * B, inter);
    CHECK_SHAPE(gate_up, experts * 2 * inter, B);
    CHECK(idx.cols <= CHOICES_MAX && tensor_count(idx) < INT32_MAX);
    if (x.rows > 0) mix_experts(cu, y, x, idx, w, gate_up, down);
}
