// infer/tensor/cpu/attention.c - o = softmax(q k^T) v over the rows a query may see; gradient in q.
//
// Backward recomputes P = e^(s - lse) from the kept log-sum-exp: dq = sum_p P_p (do.v_p - do.o)
// k_p.
#include "infer/tensor/cpu/attention_tile.h"
#include "infer/tensor/cpu/cpu.h"

static void check_attention(Tensor o, Tensor lse, Tensor q, const AttnArgs *a) {
    CHECK(a->hd > 0 && a->hd <= SPAN && a->kv_heads > 0 && a->heads % a->kv_heads == 0);
    CHECK_SHAPE(q, q.rows, (int64_t)a->heads * a->hd);
    CHECK_SHAPE(o, q.rows, q.cols);
    CHECK_FLOAT(q);
    CHECK_FLOAT(o);
    if (lse.data) {
        CHECK_SHAPE(lse, q.rows, a->heads);
        CHECK_TYPE(lse, DT_F32);
    }
    for (int i = 0; i < a->nseg; i++) {
        const AttnSeg *s = &a->seg[i];
        CHECK_SHAPE(s->k, s->k.rows, (int64_t)a->kv_heads * a->hd);
        CHECK_SHAPE(s->v, s->k.rows, s->k.cols);
        CHECK_FLOAT(s->k);
        CHECK_FLOAT(s->v);
        CHECK(s->q0 >= 0 && s->nq >= 0 && s->q0 <= q.rows - s->nq);
    }
}

// Queries from r on that share a tile: no key between the first and the last that none of them
// sees.
static int64_t tile_queries(const AttnArgs *a, const AttnSeg *seg, int64_t r, int64_t most) {
    int64_t n = 0, to = attn_begin(a, seg, r);
    while (n < most && r + n < seg->q0 + seg->nq && attn_begin(a, seg, r + n) <= to) {
        if (a->end_host[r + n] > to) to = a->end_host[r + n];
        n++;
    }
    return n;
}

typedef struct {
    AttnTile *tile;
    int64_t count, work; // work: products of hd, roughly
} Plan;

// Up to `rows` queries times heads in a tile, nh heads at a time. Called with tile NULL to count.
static Plan plan_tiles(const AttnArgs *a, int64_t rows, int nh, AttnTile *tile) {
    Plan p = {.tile = tile};
    const int group = a->heads / a->kv_heads;
    const int64_t most = rows / nh > 0 ? rows / nh : 1;
    for (int i = 0; i < a->nseg; i++) {
        const AttnSeg *seg = &a->seg[i];
        for (int64_t r = seg->q0, n; r < seg->q0 + seg->nq; r += n) {
            n = tile_queries(a, seg, r, most);
            const int64_t keys = a->end_host[r + n - 1] - attn_begin(a, seg, r);
            for (int h = 0; h < a->heads; h += nh) {
                if (tile) tile[p.count] = (AttnTile){seg, r, n, h, nh, h / group};
                p.count++;
                p.work += n * nh * (keys > 0 ? keys : 0);
            }
        }
    }
    return p;
}

// Many rows share the packing of their keys, but every thread wants some tiles; heads that share a
// kv head are only torn apart where threads would stay idle (decoding of one sequence).
static Plan plan_open(Device *dev, const AttnArgs *a) {
    const int64_t wanted = dev->threads > 1 ? 8 * dev->threads : 1;
    int64_t rows = a->hd <= 128 ? 256 : 128;
    int nh = a->heads / a->kv_heads;
    while (rows > 16 && plan_tiles(a, rows, nh, NULL).count < wanted) rows /= 2;
    while (nh % 2 == 0 && plan_tiles(a, rows, nh, NULL).count < dev->threads) nh /= 2;
    const int64_t count = plan_tiles(a, rows, nh, NULL).count;
    return plan_tiles(a, rows, nh,
                      cpu_scratch(dev, SCRATCH_SUMS, (size_t)(count + 1) * sizeof(AttnTile)));
}

void cpu_attention(Device *dev, Tensor o, Tensor lse, Tensor q, const AttnArgs *a) {
    check_attention(o, lse, q, a);
    const Plan p = plan_open(dev, a);
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads(dev, p.work * a->hd / 8))
    for (int64_t i = 0; i < p.count; i++)
        attention_tile(dev, o, lse, q, a, &p.tile[p.count - 1 - i]);
}

void cpu_attention_back(Device *dev, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                        const AttnArgs *a) {
    check_attention(o, lse, q, a);
    CHECK_SHAPE(dq, q.rows, q.cols);
    CHECK_SHAPE(do_, q.rows, q.cols);
    CHECK_FLOAT(dq);
    CHECK_FLOAT(do_);
    CHECK(lse.data != NULL);
    const Plan p = plan_open(dev, a);
#pragma omp parallel for schedule(dynamic, 1) num_threads(cpu_threads(dev, p.work * a->hd / 8))
    for (int64_t i = 0; i < p.count; i++)
        attention_tile_back(dev, dq, do_, o, q, lse, a, &p.tile[p.count - 1 - i]);
}
