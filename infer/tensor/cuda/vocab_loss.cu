// infer/tensor/cuda/vocab_loss.cu - losses of student rows against teacher probabilities over a
// vocabulary tile, and their gradient.
#include "infer/tensor/cuda/row_chunk.cuh"
#include "infer/tensor/cuda/vocab_loss.cuh"

typedef struct {
    Tensor g, z;
    LossParts to;
} TileCall;

// One chunk of a student row.
template <Sweep W, int V> __global__ void __launch_bounds__(CHUNK_THREADS) loss_kernel(TileCall c) {
    const Chunk k = chunk_here<V>(c.z.cols);
    __shared__ LossRow shared_row;
    if (threadIdx.x == 0) shared_row = loss_row(c.to.l, c.to.lse, c.to.stat, k.row);
    __syncthreads();
    const LossRow r = shared_row;
    if (r.teacher < 0) return;
    float z[CHUNK_HELD / V][V];
    chunk_load<V>(z, c.z, k.row, k, 0.0f);
    LossLanes s = {0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < CHUNK_HELD / V; j++) {
        float p[V];
        if (chunk_step<V>(j) >= k.left) continue;
        load<V>(p, c.to.l.p, r.teacher, k.c0 + chunk_step<V>(j));
#pragma unroll
        for (int i = 0; i < V; i++) {
            const int column = (int)k.c0 + chunk_step<V>(j) + i;
            if (SWEEP_SUMS<W> && column == r.target)
                loss_put_target(c.to.l, c.to.stat, k.row, r, z[j][i]);
            const float d = z[j][i] * r.log.inverse - r.log.max;
            z[j][i] = loss_element<W>(s, d, expf(d - r.log.ln), p[i], r, column);
        }
    }
    if (SWEEP_GRAD<W> && c.g.data) chunk_store<V>(c.g, k.row, k, z);
    if (!SWEEP_SUMS<W> || !(c.to.l.parts & LOSS_STATS)) return;
    const LossSums sums = {block_sum((double)s.pd), block_sum((double)s.tv),
                           W == SWEEP_SIGNS ? block_sum((double)s.qs) : 0.0};
    if (threadIdx.x != 0) return;
    if (c.to.part)
        c.to.part[blockIdx.x] = sums;
    else
        loss_add(c.to.l, c.to.stat, k.row, r, sums);
}

__global__ void __launch_bounds__(FINISH_THREADS)
    loss_finish_kernel(int64_t rows, int parts, LossParts c) {
    const int64_t r = finish_row();
    if (r >= rows) return;
    LossSums s = {0.0, 0.0, 0.0};
    for (int i = (int)threadIdx.x % WARP; i < parts; i += WARP) {
        const LossSums q = c.part[r * parts + i];
        s.pd += q.pd, s.tv += q.tv, s.qs += q.qs;
    }
    s.pd = warp_sum(s.pd), s.tv = warp_sum(s.tv), s.qs = warp_sum(s.qs);
    if (threadIdx.x % WARP != 0) return;
    const LossRow row = loss_row(c.l, c.lse, c.stat, r);
    if (row.teacher >= 0) loss_add(c.l, c.stat, r, row, s);
}

void loss_finish(Cuda *cu, int64_t rows, int parts, const LossParts *c) {
    launch(cu, loss_finish_kernel, finish_grid(rows), dim3(FINISH_THREADS), 0, rows, parts, *c);
}

template <Sweep W> static void sweep(Cuda *cu, const TileCall *c) {
    const int v = vector_width(8, c->z, c->g, c->to.l.p);
    launch(cu, v == 8 ? loss_kernel<W, 8> : loss_kernel<W, 1>, chunk_grid(c->z),
           dim3(CHUNK_THREADS), 0, *c);
    if (c->to.part && SWEEP_SUMS<W> && (c->to.l.parts & LOSS_STATS))
        loss_finish(cu, c->z.rows, chunks_of(c->z.cols), &c->to);
}

static void run_sweeps(Cuda *cu, TileCall *c) {
    const bool grad = (c->to.l.parts & LOSS_GRAD) != 0, stats = (c->to.l.parts & LOSS_STATS) != 0;
    if (c->to.l.kind == LOSS_TV || c->to.l.kind == LOSS_HYBRID) {
        if (stats) sweep<SWEEP_SIGNS>(cu, c);
        if (grad) sweep<SWEEP_TV>(cu, c);
    } else if (!grad) {
        if (stats) sweep<SWEEP_STATS>(cu, c);
    } else if (c->to.l.kind == LOSS_FKL) {
        sweep<SWEEP_KL>(cu, c);
    } else {
        sweep<SWEEP_CE>(cu, c);
    }
}

void cuda_loss_tile(Device *dev, Tensor stat, Tensor g, Tensor z, Tensor lse, const LossArgs *args,
                    int64_t v0) {
    Cuda *cu = cuda_begin(dev, "loss_tile");
    const int chunks = chunks_of(z.cols);
    CHECK_FLOAT(z);
    loss_check(args, stat, lse, z.rows, z.cols);
    if (args->parts & LOSS_GRAD) {
        CHECK_SHAPE(g, z.rows, z.cols);
        CHECK_FLOAT(g);
    }
    if (z.rows == 0) return;
    TileCall c = {args->parts & LOSS_GRAD ? g : NO_TENSOR, z,
                  LossParts{stat, lse, loss_call(cu, args, v0), NULL}};
    if (chunks > 1 && (args->parts & LOSS_STATS)) {
        c.to.part = cuda_scratch_of<LossSums>(cu, SCRATCH_VOCAB, (size_t)(z.rows * chunks));
        if (c.to.part == NULL) return;
    }
    run_sweeps(cu, &c);
}
