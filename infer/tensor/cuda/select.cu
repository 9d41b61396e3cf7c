// infer/tensor/cuda/select.cu - the best columns of rows: running top 2 over vocabulary tiles, and
// top k.
#include "infer/tensor/cuda/row_chunk.cuh"

typedef struct {
    Tensor best, id, token_of; // token_of.data NULL: column c is token v0 + c
    Best2 *part;               // NULL: a row is one chunk
    int v0;
} Top2Call;

static inline void tidy(Top2Call &c) {
    tidy(c.best), tidy(c.id), tidy(c.token_of);
    memset((char *)&c + offsetof(Top2Call, v0) + sizeof c.v0, 0,
           sizeof c - offsetof(Top2Call, v0) - sizeof c.v0);
}

DEVICE_FN void top2_finish(const Top2Call &c, int64_t r, Best2 b) {
    if (c.v0 > 0) best2_merge(b, best2_read(c.best, c.id, r));
    best2_write(c.best, c.id, r, b);
}

template <int V>
__global__ void __launch_bounds__(CHUNK_THREADS) top2_kernel(Tensor z, Top2Call c) {
    const Chunk k = chunk_here<V>(z.cols);
    float x[CHUNK_HELD / V][V];
    Best2 b = best2_none();
    chunk_load<V>(x, z, k.row, k, -INFINITY);
    if (c.token_of.data == NULL) {
        best2_chunk<V>(b, x, k, c.v0);
    } else {
#pragma unroll
        for (int e = 0; e < CHUNK_HELD; e++)
            if (chunk_step<V>(e / V) < k.left)
                best2_add(b, x[e / V][e % V],
                          *i32_at(c.token_of, k.row, k.c0 + chunk_step<V>(e / V) + e % V));
    }
    b = best2_block(b);
    if (threadIdx.x != 0) return;
    if (c.part)
        c.part[blockIdx.x] = b;
    else
        top2_finish(c, k.row, b);
}

__global__ void __launch_bounds__(FINISH_THREADS)
    top2_finish_kernel(int64_t rows, int chunks, Top2Call c) {
    const int64_t r = finish_row();
    if (r >= rows) return;
    Best2 b = best2_none();
    for (int i = (int)threadIdx.x % WARP; i < chunks; i += WARP)
        best2_merge(b, c.part[r * chunks + i]);
    b = best2_warp(b);
    if (threadIdx.x % WARP == 0) top2_finish(c, r, b);
}

void cuda_top2(Device *dev, Tensor best, Tensor id, Tensor z, Tensor token_of, int64_t v0) {
    Cuda *cu = cuda_begin(dev, "top2");
    const int chunks = chunks_of(z.cols);
    CHECK_SHAPE(best, z.rows, 2);
    CHECK_SHAPE(id, z.rows, 2);
    CHECK_FLOAT(z);
    CHECK_TYPE(best, DT_F32);
    CHECK_TYPE(id, DT_I32);
    CHECK(v0 >= 0 && v0 + z.cols <= INT32_MAX);
    if (token_of.data) CHECK_SHAPE(token_of, z.rows, z.cols);
    if (z.rows == 0) return;
    Top2Call c = {best, id, token_of, NULL, (int)v0};
    if (chunks > 1) {
        c.part = cuda_scratch_of<Best2>(cu, SCRATCH_VOCAB, (size_t)(z.rows * chunks));
        if (c.part == NULL) return;
    }
    launch(cu, vector_width(8, z) == 8 ? top2_kernel<8> : top2_kernel<1>, chunk_grid(z),
           dim3(CHUNK_THREADS), 0, z, c);
    if (chunks > 1)
        launch(cu, top2_finish_kernel, finish_grid(z.rows), dim3(FINISH_THREADS), 0, z.rows, chunks,
               c);
}

// --- top k: the k-th value is found digit by digit (counts of keys by their top eight bits, then
// the next ..), what beats it and the first columns that equal it are gathered and sorted.

constexpr int TOPK_THREADS = 256, TOPK_MOST = 1024, DIGITS = 256;

// Rises with the value; NaN is as -infinity, -0 as 0.
DEVICE_FN uint32_t topk_key(float v) {
    const uint32_t u = __float_as_uint(v == v ? v + 0.0f : -INFINITY);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

// Sum over the threads before this one, and of all.
typedef struct {
    int before, all;
} Scan;

DEVICE_FN Scan block_scan(int v) {
    __shared__ int part[TOPK_THREADS / WARP];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    int sum = v;
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        const int below = __shfl_up_sync(ALL_LANES, sum, step);
        if (lane >= step) sum += below;
    }
    __syncthreads();
    if (lane == WARP - 1) part[warp] = sum;
    __syncthreads();
    Scan s = {sum - v, 0};
    for (int w = 0; w < TOPK_THREADS / WARP; w++) {
        if (w < warp) s.before += part[w];
        s.all += part[w];
    }
    return s;
}

// The key of rank k, and how many columns beat it.
typedef struct {
    uint32_t key;
    int above;
} Rank;

DEVICE_FN Rank topk_rank(Tensor x, int64_t row, int k) {
    __shared__ int count[DIGITS];
    __shared__ Rank next;
    Rank r = {0, 0};
    for (int shift = 24; shift >= 0; shift -= 8) {
        count[threadIdx.x] = 0;
        __syncthreads();
        for (int64_t c = threadIdx.x; c < x.cols; c += TOPK_THREADS) {
            const uint32_t key = topk_key(load_one(x, row, c));
            const bool same = shift == 24 || key >> (shift + 8) == r.key >> (shift + 8);
            if (same) atomicAdd(&count[key >> shift & 255u], 1);
        }
        __syncthreads();
        const int digit = DIGITS - 1 - (int)threadIdx.x, mine = count[digit];
        const Scan s = block_scan(mine);
        const int want = k - r.above; // of those with the digits so far
        if (s.before < want && want <= s.before + mine)
            next = Rank{r.key | (uint32_t)digit << shift, r.above + s.before};
        __syncthreads();
        r = next;
        __syncthreads();
    }
    return r;
}

// Greatest first: keys and the turned column in one number.
DEVICE_FN void topk_sort(uint64_t *item, int n) {
    for (int size = 2; size <= n; size *= 2)
        for (int step = size / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int i = (int)threadIdx.x; i < n; i += TOPK_THREADS) {
                const int j = i ^ step;
                if (j <= i) continue;
                const uint64_t a = item[i], b = item[j];
                if ((i & size) == 0 ? a < b : a > b) item[i] = b, item[j] = a;
            }
        }
    __syncthreads();
}

__global__ void __launch_bounds__(TOPK_THREADS) topk_kernel(Tensor idx, Tensor x, int k, int room) {
    __shared__ uint64_t item[TOPK_MOST];
    const int64_t row = blockIdx.x;
    const Rank r = topk_rank(x, row, k);
    int used = 0, equal = 0; // gathered; seen of those that equal the k-th
    for (int i = (int)threadIdx.x; i < room; i += TOPK_THREADS) item[i] = 0;
    __syncthreads();
    for (int64_t c0 = 0; c0 < x.cols && used < k; c0 += TOPK_THREADS) {
        const int64_t c = c0 + threadIdx.x;
        const uint32_t key = c < x.cols ? topk_key(load_one(x, row, c)) : 0;
        const bool ties = c < x.cols && key == r.key;
        const Scan same = block_scan(ties);
        const bool taken =
            c < x.cols && (key > r.key || (ties && equal + same.before < k - r.above));
        const Scan s = block_scan(taken);
        if (taken) item[used + s.before] = (uint64_t)key << 32 | (uint32_t) ~(uint32_t)c;
        used += s.all, equal += same.all;
    }
    topk_sort(item, room);
    for (int i = (int)threadIdx.x; i < k; i += TOPK_THREADS)
        *i32_at(idx, row, i) = (int32_t) ~(uint32_t)item[i];
}

void cuda_topk(Device *dev, Tensor idx, Tensor x, int k) {
    Cuda *cu = cuda_begin(dev, "topk");
    int room = 2;
    CHECK(k > 0 && k <= x.cols && k <= TOPK_MOST && x.cols <= INT32_MAX, "(k %d of %lld columns)",
          k, (long long)x.cols);
    CHECK_SHAPE(idx, x.rows, k);
    CHECK_TYPE(idx, DT_I32);
    CHECK_FLOAT(x);
    while (room < k) room *= 2;
    launch(cu, topk_kernel, dim3((unsigned)x.rows), dim3(TOPK_THREADS), 0, idx, x, k, room);
}
