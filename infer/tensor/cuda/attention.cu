// infer/tensor/cuda/attention.cu - o = softmax(q k^T) v over the rows a query may see, and its
// gradient in q: which kernel, how many blocks.
//
// Few query rows over many keys would leave most of the device idle: their keys are split over
// blocks, and what these found is combined in order.
#include "infer/tensor/cuda/attention.cuh"

constexpr int SPLITS_MAX = 64, COMBINE_THREADS = 256;

static void check_attention(Tensor o, Tensor lse, Tensor q, const AttnArgs *a) {
    CHECK(a->hd > 0 && a->hd <= ATTN_HD_MAX && a->kv_heads > 0 && a->heads % a->kv_heads == 0);
    CHECK(q.cols == (int64_t)a->heads * a->hd && q.ld >= q.cols);
    CHECK_SHAPE(o, q.rows, q.cols);
    CHECK_FLOAT(q);
    CHECK_FLOAT(o);
    CHECK(q.rows <= INT_MAX && a->span > 0);
    CHECK_SHAPE(a->end, 1, q.rows);
    if (lse.data) {
        CHECK_SHAPE(lse, q.rows, a->heads);
        CHECK_TYPE(lse, DT_F32);
    }
    for (int i = 0; i < a->nseg; i++) {
        const AttnSeg *s = &a->seg[i];
        CHECK(s->k.cols == (int64_t)a->kv_heads * a->hd && s->k.ld >= s->k.cols);
        CHECK_SHAPE(s->v, s->k.rows, s->k.cols);
        CHECK_FLOAT(s->k);
        CHECK_FLOAT(s->v);
        CHECK(s->q0 >= 0 && s->nq >= 0 && s->q0 <= q.rows - s->nq);
        const int64_t keys_end = s->first + s->k.rows,
                      end = s->nq > 0 ? a->end_host[s->q0 + s->nq - 1] : 0;
        CHECK(s->first >= 0 && keys_end <= INT_MAX);
        CHECK(end <= keys_end, "(row %lld ends at %lld, keys at %lld)",
              (long long)(s->q0 + s->nq - 1), (long long)end, (long long)keys_end);
    }
}

static bool suits_mma(const AttnArgs *a, Tensor q, Tensor o, Tensor do_, Tensor dq) {
    bool suits = (a->hd == 256 || a->hd == 512) && q.dtype == DT_BF16 &&
                 (do_.data == NULL || do_.dtype == DT_BF16) && vector_fits(q, 8) &&
                 vector_fits(o, 8) && vector_fits(do_, 8) && vector_fits(dq, 8);
    for (int i = 0; suits && i < a->nseg; i++)
        suits = a->seg[i].k.dtype == DT_BF16 && a->seg[i].v.dtype == DT_BF16 &&
                vector_fits(a->seg[i].k, 8) && vector_fits(a->seg[i].v, 8);
    return suits;
}

// Work rows of the longest segment.
static int64_t most_rows(const AttnArgs *a) {
    int64_t most = 0;
    for (int i = 0; i < a->nseg; i++)
        if (a->seg[i].nq > most) most = a->seg[i].nq;
    return most * (a->heads / a->kv_heads);
}

static AttnCall call_of(const AttnArgs *a, Tensor q, AttnShape shape) {
    AttnCall c = {};
    c.q = q;
    c.end = (const int32_t *)a->end.data;
    c.splits = 1;
    c.heads = a->heads, c.group = a->heads / a->kv_heads, c.hd = a->hd;
    c.nh = (int)least64(c.group, shape.rows);
    c.parts = (int)ceil_div(c.group, c.nh);
    c.queries = shape.rows / c.nh;
    c.span = (int)least64(a->span, INT_MAX);
    return c;
}

// Segments from *at on, as many as fit into a call; false when none is left.
static bool next_segments(AttnCall *c, const AttnArgs *a, int *at) {
    c->nseg = c->tiles = 0;
    for (; *at < a->nseg && c->nseg < ATTN_SEGS; ++*at) {
        const AttnSeg *s = &a->seg[*at];
        if (s->nq == 0) continue;
        c->seg[c->nseg++] =
            AttnSegment{s->k, s->v, (int)s->first, (int)s->q0, (int)s->nq, c->tiles};
        c->tiles += (int)ceil_div(s->nq, c->queries);
    }
    return c->nseg > 0;
}

static int64_t blocks_of(const AttnCall *c) {
    return (int64_t)c->tiles * (c->heads / c->group) * c->parts;
}

// Key tiles of the block that has most.
static int64_t most_tiles(const AttnCall *c, const AttnArgs *a, int keys) {
    int64_t most = 0;
    for (int i = 0; i < c->nseg; i++) {
        const AttnSegment *s = &c->seg[i];
        for (int q = 0; q < s->nq; q += c->queries) {
            const int last = s->nq - q < c->queries ? s->nq - 1 : q + c->queries - 1;
            const int64_t begin = a->end_host[s->q0 + q] - a->span,
                          from = begin > s->first ? begin : s->first,
                          tiles = ceil_div(a->end_host[s->q0 + last] - from, keys);
            if (tiles > most) most = tiles;
        }
    }
    return most;
}

// Splits that fill the device, none without keys; scratch for what they find.
static bool plan_splits(Cuda *cu, AttnCall *c, const AttnArgs *a, int keys, int64_t wanted) {
    const int64_t blocks = blocks_of(c), fill = least64(wanted / blocks, SPLITS_MAX);
    c->splits = 1;
    if (fill < 2) return true;
    const int64_t splits = least64(fill, most_tiles(c, a, keys));
    if (splits < 2) return true;
    const size_t rows = (size_t)(splits * c->q.rows * c->heads);
    float *part = cuda_scratch_of<float>(cu, SCRATCH_ATTENTION, rows * (size_t)(c->hd + 2));
    if (part == NULL) return false;
    c->splits = (int)splits;
    c->part = part, c->part_stat = part + rows * (size_t)c->hd;
    return true;
}

// A block has a work row, blockIdx.z of its tile: all splits' maxima and sums, then each column in
// the order of splits.
__global__ void __launch_bounds__(COMBINE_THREADS) attn_combine_kernel(AttnCall c) {
    const AttnRows b = attn_rows(c);
    if ((int)blockIdx.z >= b.nq * b.nh) return;
    const AttnPlace at = attn_place(b, (int)blockIdx.z);
    const int64_t first = attn_index(c, at), stride = c.q.rows * c.heads;
    const float *stat = c.part_stat + 2 * first;
    float max = -INFINITY, sum = 0.0f;
#pragma unroll 8
    for (int s = 0; s < c.splits; s++) max = fmaxf(max, stat[2 * s * stride]);
    const float base = max == -INFINITY ? 0.0f : max;
#pragma unroll 8
    for (int s = 0; s < c.splits; s++)
        sum = fmaf(stat[2 * s * stride + 1], exp2f(stat[2 * s * stride] - base), sum);
    const float share = sum > 0.0f ? 1.0f / sum : 0.0f;
    if (threadIdx.x == 0 && c.lse.data)
        *f32_at(c.lse, at.r, at.h) = sum > 0.0f ? max / LOG2_E + logf(sum) : -INFINITY;
    for (int col = (int)threadIdx.x; col < c.hd; col += COMBINE_THREADS) {
        const float *part = c.part + first * c.hd + col;
        float o = 0.0f;
#pragma unroll 8
        for (int s = 0; s < c.splits; s++)
            o = fmaf(part[s * stride * c.hd], exp2f(stat[2 * s * stride] - base), o);
        store_one(c.o, at.r, (int64_t)at.h * c.hd + col, o * share);
    }
}

// dq += what the splits found, in their order.
__global__ void __launch_bounds__(COMBINE_THREADS) attn_combine_back_kernel(AttnCall c) {
    const AttnRows b = attn_rows(c);
    if ((int)blockIdx.z >= b.nq * b.nh) return;
    const AttnPlace at = attn_place(b, (int)blockIdx.z);
    const int64_t stride = c.q.rows * c.heads * c.hd;
    for (int col = (int)threadIdx.x; col < c.hd; col += COMBINE_THREADS) {
        const float *part = c.part + attn_index(c, at) * c.hd + col;
        const int64_t to = (int64_t)at.h * c.hd + col;
        float sum = 0.0f;
#pragma unroll 8
        for (int s = 0; s < c.splits; s++) sum += part[s * stride];
        store_one(c.dq, at.r, to, load_one(c.dq, at.r, to) + sum);
    }
}

static void combine(Cuda *cu, const AttnCall *c, void (*kernel)(AttnCall)) {
    const dim3 grid((unsigned)c->tiles, (unsigned)(c->heads / c->group * c->parts),
                    (unsigned)(c->queries * c->nh));
    launch(cu, kernel, grid, dim3(COMBINE_THREADS), 0, *c);
}

void cuda_attention(Device *dev, Tensor o, Tensor lse, Tensor q, const AttnArgs *a) {
    Cuda *cu = cuda_begin(dev, "attention");
    check_attention(o, lse, q, a);
    const bool mma = suits_mma(a, q, o, NO_TENSOR, NO_TENSOR);
    const bool few = mma && (!attn_mma_many_fits(cu, a->hd) ||
                             most_rows(a) <= attn_mma_shape(cu, a->hd, true).rows);
    const AttnShape shape = mma ? attn_mma_shape(cu, a->hd, few) : attn_any_shape(a->hd);
    AttnCall c = call_of(a, q, shape);
    c.o = o, c.lse = lse;
    for (int at = 0; next_segments(&c, a, &at);) {
        if (!plan_splits(cu, &c, a, shape.keys, few || !mma ? 2 * cu->sms : cu->sms)) return;
        if (mma)
            attn_mma(cu, &c, few);
        else
            attn_any(cu, &c);
        if (c.splits > 1) combine(cu, &c, attn_combine_kernel);
    }
}

void cuda_attention_back(Device *dev, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                         const AttnArgs *a) {
    Cuda *cu = cuda_begin(dev, "attention_back");
    check_attention(o, lse, q, a);
    CHECK_SHAPE(dq, q.rows, q.cols);
    CHECK_SHAPE(do_, q.rows, q.cols);
    CHECK_FLOAT(dq);
    CHECK_FLOAT(do_);
    CHECK(lse.data != NULL);
    const bool mma = suits_mma(a, q, o, do_, dq) && attn_mma_back_fits(cu, a->hd);
    const AttnShape shape = mma ? attn_mma_back_shape(cu, a->hd) : attn_any_shape(a->hd);
    AttnCall c = call_of(a, q, shape);
    c.o = o, c.lse = lse, c.do_ = do_, c.dq = dq;
    for (int at = 0; next_segments(&c, a, &at);) {
        if (!plan_splits(cu, &c, a, shape.keys, cu->sms)) return;
        if (mma)
            attn_mma_back(cu, &c);
        else
            attn_any_back(cu, &c);
        if (c.splits > 1) combine(cu, &c, attn_combine_back_kernel);
    }
}
