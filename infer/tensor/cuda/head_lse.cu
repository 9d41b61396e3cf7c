// infer/tensor/cuda/head_lse.cu - log-sum-exp and the two best tokens of rows, without their logits
// in memory.
#include "infer/tensor/cuda/head_logits.cuh"
#include "infer/tensor/cuda/vocab_lse.cuh"

// What each half of the warps found in its tokens so far, (2 sides, rows).
typedef struct {
    float max[2][HEAD_ROWS], sum[2][HEAD_ROWS];
    Best2 best[2][HEAD_ROWS];
} LseSlots;

// The four lanes of a row: its best two of the tile join those so far.
DEVICE_FN void join_best(Best2 &to, const HeadTileOf &z, int mi, int h, int64_t token, int left) {
    Best2 b = best2_none();
#pragma unroll
    for (int i = 0; i < 16; i++) {
        const int col = head_col(i / 2, i % 2);
        if (col < left) best2_add(b, z[mi][i / 2][2 * h + i % 2], (int)token + col);
    }
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        Best2 o;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            o.value[i] = __shfl_xor_sync(ALL_LANES, b.value[i], step);
            o.id[i] = __shfl_xor_sync(ALL_LANES, b.id[i], step);
        }
        best2_merge(b, o);
    }
    __syncwarp(); // all four have read what is there so far
    if (lane_id() % 4 == 0) best2_merge(to, b);
}

// token: the id of the tile's first column, of which `left` are there.
DEVICE_FN void join_tile(LseSlots *s, const HeadTileOf &z, const LseCall &c, int64_t token,
                         int left) {
    const int side = head_side();
#pragma unroll
    for (int mi = 0; mi < 4; mi++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = head_row(mi, h);
            float top = -INFINITY, sum = 0.0f;
#pragma unroll
            for (int i = 0; i < 16; i++)
                if (head_col(i / 2, i % 2) < left) top = fmaxf(top, z[mi][i / 2][2 * h + i % 2]);
            top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
            top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
            // tokens rise: what only equals the second best stays behind it
            const Best2 &b = s->best[side][row];
            const bool enters = top > b.value[1] || b.id[1] < 0;
            const float before = s->max[side][row], max = fmaxf(before, top * c.inverse),
                        base = max == -INFINITY ? 0.0f : max;
#pragma unroll
            for (int i = 0; i < 16; i++)
                if (head_col(i / 2, i % 2) < left)
                    sum += exp2_fast(fmaf(z[mi][i / 2][2 * h + i % 2], c.inverse, -base) * LOG2_E);
            sum = quad_sum(sum);
            __syncwarp(); // all four have read `before`
            if (lane_id() % 4 == 0) {
                s->sum[side][row] = s->sum[side][row] * exp2_fast((before - base) * LOG2_E) + sum;
                s->max[side][row] = max;
            }
            if (c.best.data && __any_sync(ALL_LANES, enters))
                join_best(s->best[side][row], z, mi, h, token, left);
        }
}

template <bool RESIDENT>
__global__ void __launch_bounds__(HEAD_THREADS, 2) head_lse_kernel(HeadLogits in, LseCall c) {
    SHARED_MEMORY(memory);
    LseSlots *s = (LseSlots *)memory;
    const int row = (int)threadIdx.x; // as many as threads
    for (int side = 0; side < 2; side++) {
        s->max[side][row] = -INFINITY, s->sum[side][row] = 0.0f;
        s->best[side][row] = best2_none();
    }
    HeadFeed<RESIDENT> feed(in, memory + sizeof *s);
    HeadTileOf z;
    const int first = feed.edge(in, (int)blockIdx.y), end = feed.end;
    int taken = 0;
    for (int tile = first; tile < end; tile++) {
        const int64_t at = (int64_t)tile * HEAD_COLS, left = in.table.rows - at;
        next_logits(z, feed, taken);
        join_tile(s, z, c, c.v0 + at, (int)(left < HEAD_COLS ? left : HEAD_COLS));
    }
    copy_async_wait<0>();
    __syncthreads();
    const int64_t r = feed.row0 + row;
    if (r >= in.y.rows) return;
    LsePart p = {s->best[0][row], lse_merge(Lse{s->max[0][row], s->sum[0][row]},
                                            Lse{s->max[1][row], s->sum[1][row]})};
    best2_merge(p.best, s->best[1][row]);
    c.part[r * in.splits + blockIdx.y] = p;
}

void head_lse(Cuda *cu, const HeadLogits *in, Tensor lse, Tensor best, Tensor id, float temp,
              int64_t v0) {
    const bool resident = head_resident(cu, in->y.cols);
    const size_t bytes = head_ring_bytes(in->y.cols, resident) + sizeof(LseSlots);
    const int64_t rows = in->y.rows;
    LsePart *part = cuda_scratch_of<LsePart>(cu, SCRATCH_VOCAB, (size_t)(rows * in->splits));
    if (part == NULL) return;
    const LseCall c = {lse, best, id, part, 0.0f, 1.0f / temp, (int)v0};
    launch(cu, resident ? head_lse_kernel<true> : head_lse_kernel<false>,
           dim3((unsigned)ceil_div(rows, HEAD_ROWS), (unsigned)in->splits), dim3(HEAD_THREADS),
           bytes, *in, c);
    lse_finish(cu, rows, in->splits, &c);
}
