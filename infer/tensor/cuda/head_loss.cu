// infer/tensor/cuda/head_loss.cu - statistics and gradient of student rows against teacher
// probabilities, without the students' logits in memory: these are formed again where they are
// wanted.
#include "infer/tensor/cuda/head_logits.cuh"
#include "infer/tensor/cuda/vocab_loss.cuh"

typedef struct {
    LossSums sums[2][HEAD_ROWS]; // of each half of the warps
    LossRow row[HEAD_ROWS];
} LossSlots;

typedef struct {
    Tensor g;
    LossParts to;
} HeadLossCall;

// Gradients of eight neighbouring tokens lie with four lanes, two with each. Lanes trade halves of
// products nt and nt + 1, so that each stores four neighbours: the four lanes 32 bytes without a
// gap.
DEVICE_FN void put_gradients(const Tensor &g, int64_t row, int64_t token, int nt, uint32_t first,
                             uint32_t second, bool there, int left) {
    const bool odd = lane_id() & 1;
    const uint32_t mine = odd ? second : first,
                   theirs = __shfl_xor_sync(ALL_LANES, odd ? first : second, 1);
    const int col = head_side() * 64 + 8 * (nt + odd) + lane_id() % 4 / 2 * 4;
    if (there && col < left)
        *(uint2 *)bf16_at(g, row, token + col) =
            odd ? make_uint2(theirs, mine) : make_uint2(mine, theirs);
}

// A row as the sweeps read it.
typedef struct {
    const HeadLossCall &c;
    LossRow k;   // its target counts from the tile's first column
    int row, at; // row; first column of the tile
    int left;    // columns from there on
    bool there;  // the row is
} TileRow;

// Two neighbouring tokens of product nt; their gradients.
template <Sweep W>
DEVICE_FN uint32_t join_pair(LossLanes &sum, const TileRow &t, const float *z, float2 p, int nt) {
    float g[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int col = head_col(nt, e);
        const float d = fmaf(z[e], t.k.log.inverse, -t.k.log.max),
                    q = col < t.left ? exp2_fast((d - t.k.log.ln) * LOG2_E) : 0.0f;
        if (SWEEP_SUMS<W> && col == t.k.target && t.there)
            loss_put_target(t.c.to.l, t.c.to.stat, t.row, t.k, z[e]);
        g[e] = loss_element<W>(sum, d, q, e ? p.y : p.x, t.k, col);
    }
    return bf16_pack(g[0], g[1]);
}

// Row (mi, h) of a tile.
template <Sweep W>
DEVICE_FN void join_row(LossSums *to, const HeadTileOf &z, const TileRow &t, int mi, int h) {
    const float *p = f32_at(t.c.to.l.p, t.k.teacher, t.at);
    float2 pv[8];
    LossLanes sum = {0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int nt = 0; nt < 8; nt++)
        pv[nt] = head_col(nt, 0) < t.left ? *(const float2 *)(p + head_col(nt, 0))
                                          : make_float2(0.0f, 0.0f);
#pragma unroll
    for (int nt = 0; nt < 8; nt += 2) {
        const uint32_t first = join_pair<W>(sum, t, z[mi][nt] + 2 * h, pv[nt], nt),
                       second = join_pair<W>(sum, t, z[mi][nt + 1] + 2 * h, pv[nt + 1], nt + 1);
        if (SWEEP_GRAD<W>) put_gradients(t.c.g, t.row, t.at, nt, first, second, t.there, t.left);
    }
    if (!SWEEP_SUMS<W>) return;
    sum.pd = quad_sum(sum.pd), sum.tv = quad_sum(sum.tv);
    if (W == SWEEP_SIGNS) sum.qs = quad_sum(sum.qs);
    if (lane_id() % 4 != 0) return;
    to->pd += sum.pd, to->tv += sum.tv, to->qs += sum.qs;
}

template <Sweep W, bool RESIDENT>
__global__ void __launch_bounds__(HEAD_THREADS, 2) head_loss_kernel(HeadLogits in, HeadLossCall c) {
    SHARED_MEMORY(memory);
    LossSlots *s = (LossSlots *)memory;
    HeadFeed<RESIDENT> feed(in, memory + sizeof *s);
    const int row = (int)threadIdx.x;
    const int64_t mine = feed.row0 + row, last = in.y.rows - 1;
    LossRow k = loss_row(c.to.l, c.to.lse, c.to.stat, mine < last ? mine : last);
    if (k.teacher < 0) k.teacher = 0, k.target = -1, k.grad = false; // an alarm was raised
    s->row[row] = k;
    for (int side = 0; side < 2; side++) s->sums[side][row] = LossSums{0.0, 0.0, 0.0};
    HeadTileOf z;
    const int first = feed.edge(in, (int)blockIdx.y), end = feed.end;
    int taken = 0;
    for (int tile = first; tile < end; tile++) {
        const int64_t at = (int64_t)tile * HEAD_COLS, left = in.table.rows - at;
        next_logits(z, feed, taken);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int at_row = head_row(i / 2, i % 2), r = (int)feed.row0 + at_row;
            TileRow t = {c, s->row[at_row], r, (int)at, (int)left, r <= last};
            t.k.target -= (int)at;
            join_row<W>(&s->sums[head_side()][at_row], z, t, i / 2, i % 2);
        }
    }
    copy_async_wait<0>();
    __syncthreads();
    if (!SWEEP_SUMS<W> || c.to.part == NULL || mine > last) return;
    LossSums sum = s->sums[0][row];
    const LossSums &other = s->sums[1][row];
    sum.pd += other.pd, sum.tv += other.tv, sum.qs += other.qs;
    c.to.part[mine * in.splits + blockIdx.y] = sum;
}

template <Sweep W> static void sweep(Cuda *cu, const HeadLogits *in, const HeadLossCall *c) {
    const bool resident = head_resident(cu, in->y.cols);
    const size_t bytes = head_ring_bytes(in->y.cols, resident) + sizeof(LossSlots);
    const int64_t rows = in->y.rows;
    launch(cu, resident ? head_loss_kernel<W, true> : head_loss_kernel<W, false>,
           dim3((unsigned)ceil_div(rows, HEAD_ROWS), (unsigned)in->splits), dim3(HEAD_THREADS),
           bytes, *in, *c);
    if (SWEEP_SUMS<W> && c->to.part) loss_finish(cu, rows, in->splits, &c->to);
}

void head_loss(Cuda *cu, const HeadLogits *in, Tensor stat, Tensor g, Tensor lse,
               const LossArgs *args, int64_t v0) {
    const bool grad = (args->parts & LOSS_GRAD) != 0, stats = (args->parts & LOSS_STATS) != 0;
    HeadLossCall c = {grad ? g : NO_TENSOR, LossParts{stat, lse, loss_call(cu, args, v0), NULL}};
    if (stats) {
        c.to.part = cuda_scratch_of<LossSums>(cu, SCRATCH_VOCAB, (size_t)(in->y.rows * in->splits));
        if (c.to.part == NULL) return;
    }
    if (args->kind == LOSS_TV || args->kind == LOSS_HYBRID) {
        if (stats) sweep<SWEEP_SIGNS>(cu, in, &c);
        if (grad) sweep<SWEEP_TV>(cu, in, &c);
    } else if (!grad) {
        if (stats) sweep<SWEEP_STATS>(cu, in, &c);
    } else if (args->kind == LOSS_FKL) {
        sweep<SWEEP_KL>(cu, in, &c);
    } else {
        sweep<SWEEP_CE>(cu, in, &c);
    }
}
