// infer/tensor/cuda/attention.cuh - what the attention kernels share: which rows a block works on
// and which keys they see.
//
// A block has one kv head, some query rows of a segment, and all query heads (or as many as fit)
// that read that kv head: work row i is query r0 + i / nh, head h0 + i % nh. So K and V are read
// once for a group of heads. Key tiles begin at multiples of their size in absolute rows, and what
// a row does not see adds zeros: where keys are not split, a row's bits do not depend on the rows
// beside it.
#ifndef CUDA_ATTENTION_CUH
#define CUDA_ATTENTION_CUH

#include <limits.h>

#include "infer/tensor/cuda/smem_tile.cuh"

enum { ATTN_SEGS = 32 }; // of one launch: they travel as a kernel's argument

typedef struct {
    Tensor k, v;
    int first, q0, nq;
    int tile0; // its first tile
} AttnSegment;

typedef struct {
    AttnSegment seg[ATTN_SEGS];
    Tensor q, o, lse, do_, dq; // do_ and dq in backward only
    const int32_t *end;
    // splits > 1: (splits, rows * heads, hd) sums of weights times values, and (.., 2) of each the
    // maximum score, times log2 e, and the sum of weights
    float *part, *part_stat;
    int nseg, tiles, splits;
    int heads, group, hd; // group: query heads of a kv head
    int nh, parts;        // query heads of a block, blocks of a group
    int queries;          // query rows of a tile
    int span;             // INT_MAX: all
} AttnCall;

static inline void tidy(AttnCall &c) {
    for (int i = 0; i < c.nseg; i++) tidy(c.seg[i].k), tidy(c.seg[i].v);
    tidy(c.q), tidy(c.o), tidy(c.lse), tidy(c.do_), tidy(c.dq);
}

typedef struct {
    int seg, r0, nq, h0, nh, kv;
} AttnRows;

// blockIdx: x the tile, last ones first (they see most), y the kv head and part of its group.
DEVICE_FN AttnRows attn_rows(const AttnCall &c) {
    AttnRows b;
    const int tile = c.tiles - 1 - (int)blockIdx.x, part = (int)blockIdx.y % c.parts;
    b.seg = 0;
    while (b.seg + 1 < c.nseg && c.seg[b.seg + 1].tile0 <= tile) b.seg++;
    const AttnSegment &s = c.seg[b.seg];
    const int q = (tile - s.tile0) * c.queries;
    b.r0 = s.q0 + q;
    b.nq = min(s.nq - q, c.queries);
    b.kv = (int)blockIdx.y / c.parts;
    b.h0 = b.kv * c.group + part * c.nh;
    b.nh = min(c.group - part * c.nh, c.nh);
    return b;
}

// A work row's place in a (rows, heads * hd) tensor, and among rows * heads.
typedef struct {
    int64_t r;
    int h;
} AttnPlace;

DEVICE_FN AttnPlace attn_place(const AttnRows &b, int i) {
    return AttnPlace{b.r0 + i / b.nh, b.h0 + i % b.nh};
}
DEVICE_FN int64_t attn_index(const AttnCall &c, AttnPlace at) {
    return at.r * c.heads + at.h;
}

// Keys a query sees, absolute: from .. to-1; one that sees nothing: from = to = first.
typedef struct {
    int *from, *to;       // shared memory, (queries)
    int lo, hi;           // keys that any sees; hi <= lo: none
    int all_from, all_to; // keys that all see
    bool gaps;            // between lo and hi are keys that none sees
} AttnSeen;

static inline int attn_seen_words(int queries) {
    return 2 * queries + 4;
}

// Whole block; words: shared memory, attn_seen_words ints.
DEVICE_FN AttnSeen attn_seen(const AttnCall &c, const AttnRows &b, int *words) {
    AttnSeen s;
    const int first = c.seg[b.seg].first;
    s.from = words + 4, s.to = words + 4 + c.queries;
    for (int i = (int)threadIdx.x; i < b.nq; i += (int)blockDim.x) {
        const int end = c.end[b.r0 + i], from = max(end > c.span ? end - c.span : 0, first);
        s.from[i] = from < end ? from : first;
        s.to[i] = from < end ? end : first;
    }
    __syncthreads();
    if (threadIdx.x < WARP) {
        int lo = INT_MAX, hi = INT_MIN, gaps = 0;
        for (int i = (int)threadIdx.x; i < b.nq; i += WARP) {
            if (s.from[i] >= s.to[i]) continue;
            lo = min(lo, s.from[i]), hi = max(hi, s.to[i]);
            gaps |= i > 0 && s.to[i - 1] > first && s.from[i] > s.to[i - 1];
        }
#pragma unroll
        for (int step = WARP / 2; step > 0; step /= 2) {
            lo = min(lo, __shfl_xor_sync(ALL_LANES, lo, step));
            hi = max(hi, __shfl_xor_sync(ALL_LANES, hi, step));
            gaps |= __shfl_xor_sync(ALL_LANES, gaps, step);
        }
        if (threadIdx.x == 0) words[0] = lo, words[1] = hi, words[2] = gaps;
    }
    __syncthreads();
    s.lo = words[0], s.hi = words[1], s.gaps = words[2] != 0;
    s.all_from = s.from[b.nq - 1], s.all_to = s.to[0]; // neither ever falls
    return s;
}

// Does any query of the block see this key? What unseen keys hold must not matter.
DEVICE_FN bool attn_any_sees(const AttnSeen &s, int nq, int key) {
    if (key < s.lo || key >= s.hi) return false;
    if (!s.gaps) return true;
    int i = 0, n = nq; // of the queries that end behind the key, the first begins earliest
    while (i < n) {
        const int m = (i + n) / 2;
        if (s.to[m] > key)
            n = m;
        else
            i = m + 1;
    }
    return i < nq && s.from[i] <= key;
}

// Key tiles of this split (blockIdx.z), of n keys each.
typedef struct {
    int first, end;
} AttnTiles;

DEVICE_FN AttnTiles attn_tiles(const AttnCall &c, const AttnSeen &s, int n) {
    if (s.hi <= s.lo) return AttnTiles{0, 0};
    const int t0 = s.lo / n, count = (s.hi - 1) / n + 1 - t0, split = (int)blockIdx.z;
    return AttnTiles{t0 + (int)((int64_t)count * split / c.splits),
                     t0 + (int)((int64_t)count * (split + 1) / c.splits)};
}

// Kernels, by the file that holds them. Tiles have `rows` work rows and `keys` keys.
typedef struct {
    int rows, keys;
} AttnShape;

// bf16 throughout, heads of 256 and 512, rows and columns aligned to 16 bytes. few: a segment has
// at most as many work rows as the smaller tile, or the larger ones do not fit into the shared
// memory of a block (99 KiB on sm_86, sm_89, sm_120; 163 on sm_80; 227 on sm_90, sm_100).
AttnShape attn_mma_shape(const Cuda *cu, int hd, bool few); // attention_mma.cu
bool attn_mma_many_fits(const Cuda *cu, int hd);
void attn_mma(Cuda *cu, const AttnCall *c, bool few);
bool attn_mma_back_fits(const Cuda *cu, int hd); // attention_mma_back.cu
AttnShape attn_mma_back_shape(const Cuda *cu, int hd);
void attn_mma_back(Cuda *cu, const AttnCall *c);
// Any types, any size up to ATTN_HD_MAX, f32 throughout.
enum { ATTN_HD_MAX = 1024 };
AttnShape attn_any_shape(int hd); // attention_any.cu
void attn_any(Cuda *cu, const AttnCall *c);
void attn_any_back(Cuda *cu, const AttnCall *c);

#endif
