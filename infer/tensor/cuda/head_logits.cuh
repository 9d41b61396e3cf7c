// infer/tensor/cuda/head_logits.cuh - logits of 128 rows by 128 tokens at a time in the registers
// of a block, from bf16 on the tensor cores; what they are wanted for happens there.
//
// A block keeps its rows and walks along tokens. Slices of 32 columns of y and of the table come
// through a ring in shared memory, three ahead, across the ends of tiles: the ring is full when a
// tile's logits are worked on. Where y is narrow it stays in shared memory (RESIDENT).
// Two blocks share a multiprocessor: one multiplies while the other works on its logits.
#ifndef CUDA_HEAD_LOGITS_CUH
#define CUDA_HEAD_LOGITS_CUH

#include "infer/tensor/cuda/smem_tile.cuh"

constexpr int HEAD_ROWS = 128, HEAD_COLS = 128, HEAD_THREADS = 128; // four warps, 64 x 64 each
constexpr int HEAD_RING = 4, HEAD_RESIDENT = 256;                   // slices; columns of y at most
constexpr int SLICE_COLS = 32, SLICE_CH = SLICE_COLS / 8, SLICE = HEAD_ROWS * SLICE_CH;

// Rows row0 .. of y against tokens of a table; blockIdx: x the rows, y the split of the tokens.
typedef struct {
    Tensor y, table; // BF16 (rows, H), (tokens, H), H a multiple of 8
    int splits;
} HeadLogits;

typedef float HeadTileOf[4][8][4]; // of a thread: element e of product (mi, nt)

// Place of a thread's elements: row (mi, h) for e = 2 h + .., token col(nt, e) of the tile.
DEVICE_FN int head_row(int mi, int h) {
    return (int)threadIdx.x / 64 * 64 + 16 * mi + 8 * h + lane_id() / 4;
}
DEVICE_FN int head_side() { // the half of the tokens that the warp has
    return (int)threadIdx.x / WARP % 2;
}
DEVICE_FN int head_col(int nt, int e) {
    return head_side() * 64 + 8 * nt + lane_id() % 4 * 2 + (e & 1);
}

static inline int head_slices(int64_t width) {
    return (int)ceil_div(width, SLICE_COLS);
}
// Shared memory of the ring, and of y where it is resident.
static inline size_t head_ring_bytes(int64_t width, bool resident) {
    const int slices = resident ? HEAD_RING + head_slices(width) : 2 * HEAD_RING;
    return (size_t)slices * SLICE * sizeof(uint4);
}
// Splits of the tokens that end soonest: full rounds of two blocks a multiprocessor, each as long
// as its longest split, and a start that costs half a tile.
static inline int head_splits(const Cuda *cu, int64_t rows, int64_t tokens) {
    const int64_t blocks = ceil_div(rows, HEAD_ROWS), tiles = ceil_div(tokens, HEAD_COLS),
                  room = 2 * (int64_t)cu->sms, most = least64(tiles, room);
    int64_t best = 1, least = INT64_MAX;
    for (int64_t s = 1; s <= most; s++) {
        const int64_t time = ceil_div(blocks * s, room) * (2 * ceil_div(tiles, s) + 1);
        if (time < least) best = s, least = time;
    }
    return (int)best;
}

// Columns 32 k .. of rows first .. first+127 of x; zeros beyond `rows` of them.
DEVICE_FN void load_slice(uint4 *to, const Tensor &x, int64_t first, int64_t rows, int k) {
    const int c = (int)threadIdx.x % SLICE_CH, col = k * SLICE_COLS + 8 * c;
#pragma unroll
    for (int i = 0; i < HEAD_ROWS * SLICE_CH / HEAD_THREADS; i++) {
        const int r = (int)threadIdx.x / SLICE_CH + i * (HEAD_THREADS / SLICE_CH);
        const bool there = r < rows && col < x.cols;
        copy_async(to + chunk_at<SLICE_CH>(r, c),
                   bf16_at(x, there ? first + r : 0, there ? col : 0), there);
    }
}

template <bool RESIDENT> struct HeadFeed {
    const HeadLogits &in;
    uint4 *y, *ring; // y: resident only
    int64_t row0;
    int slices;             // of a row
    int tile, end, k, slot; // what is loaded next

    // Tiles of this block: first, and behind the last.
    static __device__ __forceinline__ int edge(const HeadLogits &in, int split) {
        const int64_t tiles = (in.table.rows + HEAD_COLS - 1) / HEAD_COLS;
        return (int)(tiles * split / in.splits);
    }
    __device__ __forceinline__ HeadFeed(const HeadLogits &logits, unsigned char *memory)
        : in(logits), y((uint4 *)memory), ring((uint4 *)memory),
          row0((int64_t)blockIdx.x * HEAD_ROWS),
          slices((int)((logits.y.cols + SLICE_COLS - 1) / SLICE_COLS)),
          tile(edge(logits, (int)blockIdx.y)), end(edge(logits, (int)blockIdx.y + 1)), k(0),
          slot(0) {
        if (RESIDENT) {
            ring += slices * SLICE;
            for (int i = 0; i < slices; i++)
                load_slice(y + i * SLICE, in.y, row0, in.y.rows - row0, i);
        }
        for (int i = 0; i + 1 < HEAD_RING; i++) next();
    }
    __device__ __forceinline__ uint4 *place(int i) const {
        return ring + i * (RESIDENT ? 1 : 2) * SLICE;
    }
    // One group of copies, empty at the end.
    __device__ __forceinline__ void next() {
        if (tile < end) {
            const int64_t token = (int64_t)tile * HEAD_COLS;
            load_slice(place(slot), in.table, token, in.table.rows - token, k);
            if (!RESIDENT) load_slice(place(slot) + SLICE, in.y, row0, in.y.rows - row0, k);
            if (++k == slices) k = 0, tile++;
            slot = (slot + 1) % HEAD_RING;
        }
        copy_async_commit();
    }
};

DEVICE_FN void multiply_slice(HeadTileOf &z, const uint4 *y, const uint4 *table) {
    const int row0 = (int)threadIdx.x / 64 * 64, col0 = head_side() * 64;
#pragma unroll
    for (int c = 0; c < SLICE_CH; c += 2) {
        uint32_t a[4][4];
#pragma unroll
        for (int mi = 0; mi < 4; mi++) frag_rows<SLICE_CH>(a[mi], y, row0 + 16 * mi, c);
#pragma unroll
        for (int nt = 0; nt < 8; nt += 2) {
            const FragPair f = frag_turned<SLICE_CH>(table, col0 + 8 * nt, c);
#pragma unroll
            for (int mi = 0; mi < 4; mi++) {
                mma_bf16(z[mi][nt], a[mi], f.b[0]);
                mma_bf16(z[mi][nt + 1], a[mi], f.b[1]);
            }
        }
    }
}

// The logits of the next tile; taken: the slot of its first slice, moved on.
template <bool RESIDENT>
DEVICE_FN void next_logits(HeadTileOf &z, HeadFeed<RESIDENT> &feed, int &taken) {
#pragma unroll
    for (int e = 0; e < 128; e++) z[e / 32][e / 4 % 8][e % 4] = 0.0f;
    for (int k = 0; k < feed.slices; k++) {
        copy_async_wait<HEAD_RING - 2>();
        __syncthreads(); // this slice is there; the one before is done with
        feed.next();
        const uint4 *table = feed.place(taken);
        multiply_slice(z, RESIDENT ? feed.y + k * SLICE : table + SLICE, table);
        taken = (taken + 1) % HEAD_RING;
    }
}

// Sum over the four lanes that have a row together.
DEVICE_FN float quad_sum(float v) {
    v += __shfl_xor_sync(ALL_LANES, v, 1);
    return v + __shfl_xor_sync(ALL_LANES, v, 2);
}

// Bodies by the file that holds them. y and table BF16, all aligned to 16 bytes; columns of p and g
// multiples of 8.
void head_lse(Cuda *cu, const HeadLogits *in, Tensor lse, Tensor best, Tensor id, float temp,
              int64_t v0); // head_lse.cu
void head_loss(Cuda *cu, const HeadLogits *in, Tensor stat, Tensor g, Tensor lse,
               const LossArgs *args, int64_t v0); // head_loss.cu
bool head_resident(const Cuda *cu, int64_t width);

#endif
