// infer/tensor/cpu/experts.c - a mixture of experts: weights of the chosen ones, and their sum.
//
// (row, choice) pairs are sorted by expert, stably, and each expert runs once over its rows. A
// row's sum runs over experts in rising order, whoever its neighbours are.
#include <math.h>

#include "infer/tensor/cpu/cpu.h"

void cpu_route(Device *dev, Tensor w, Tensor z, Tensor idx, Tensor scale) {
    CHECK_SHAPE(w, idx.rows, idx.cols);
    CHECK_SHAPE(z, idx.rows, z.cols);
    CHECK_SHAPE(scale, 1, z.cols);
    CHECK_TYPE(w, DT_F32);
    CHECK_TYPE(z, DT_F32);
    CHECK_TYPE(idx, DT_I32);
    CHECK_TYPE(scale, DT_F32);
    (void)dev; // a few numbers per row
    for (int64_t r = 0; r < w.rows; r++) {
        const int32_t *e = i32_at(idx, r, 0);
        const float *s = f32_at(z, r, 0);
        float *p = f32_at(w, r, 0), sum = 0.0f;
        for (int64_t i = 0; i < w.cols; i++) {
            CHECK(e[i] >= 0 && e[i] < z.cols, "(expert %d of %lld)", e[i], (long long)z.cols);
            p[i] = expf(s[e[i]] - s[e[0]]); // the first is the largest
            sum += p[i];
        }
        for (int64_t i = 0; i < w.cols; i++) p[i] = p[i] / sum * *f32_at(scale, 0, e[i]);
    }
}

// A product is prepared per number of rows: eight sizes up to each power of two, so that they are
// found again. Up to 16 rows nothing is prepared.
static int64_t padded(int64_t rows) {
    int64_t step = 1;
    while (16 * step < rows) step *= 2;
    return (rows + step - 1) / step * step;
}

// Pairs by expert: those of expert e are pair[first[e]] .. pair[first[e + 1] - 1], as r * k + i.
typedef struct {
    int64_t *first, *pair, most; // most: pairs of the busiest expert, padded
} Groups;

static Groups group_pairs(Device *dev, Tensor idx, int64_t experts) {
    const int64_t pairs = tensor_count(idx);
    int64_t *room =
        cpu_scratch(dev, SCRATCH_PAIRS, (size_t)(2 * experts + 1 + pairs) * sizeof *room);
    int64_t *next = room + experts + 1;
    Groups g = {.first = room, .pair = next + experts};
    memset(g.first, 0, (size_t)(experts + 1) * sizeof *g.first);
    for (int64_t p = 0; p < pairs; p++) {
        const int32_t e = *i32_at(idx, p / idx.cols, p % idx.cols);
        CHECK(e >= 0 && e < experts, "(expert %d of %lld)", e, (long long)experts);
        g.first[e + 1]++;
    }
    for (int64_t e = 0; e < experts; e++) {
        const int64_t n = padded(g.first[e + 1]);
        if (n > g.most) g.most = n;
        g.first[e + 1] += g.first[e];
        next[e] = g.first[e];
    }
    for (int64_t p = 0; p < pairs; p++)
        g.pair[next[*i32_at(idx, p / idx.cols, p % idx.cols)]++] = p;
    return g;
}

static void gather_rows(Device *dev, Tensor to, Tensor x, const int64_t *pair, int64_t n,
                        int64_t k) {
    const size_t bytes = (size_t)x.cols * dtype_size(x.dtype);
#pragma omp parallel for num_threads(cpu_threads(dev, n *x.cols))
    for (int64_t i = 0; i < to.rows; i++) {
        char *row = (char *)to.data + (size_t)i * bytes;
        if (i < n)
            memcpy(row, (const char *)x.data + (size_t)(pair[i] / k * x.ld) * dtype_size(x.dtype),
                   bytes);
        else
            memset(row, 0, bytes);
    }
}

static void add_rows(Device *dev, Tensor y, Tensor from, Tensor w, const int64_t *pair, int64_t n) {
#pragma omp parallel for num_threads(cpu_threads(dev, n *y.cols))
    for (int64_t i = 0; i < n; i++) {
        const float p = *f32_at(w, pair[i] / w.cols, pair[i] % w.cols);
        float *to = f32_at(y, pair[i] / w.cols, 0);
        const float *row = f32_at(from, i, 0);
        for (int64_t c = 0; c < y.cols; c++) to[c] += p * row[c];
    }
}

// Buffers of one expert, cut from one block of scratch.
typedef struct {
    Tensor x, gate_up, mid, out;
} Room;

static Tensor cut(char **at, DType t, int64_t rows, int64_t cols) {
    char *p = *at;
    *at += ((size_t)(rows * cols) * dtype_size(t) + 63) / 64 * 64;
    return tensor_of(p, t, rows, cols);
}

static Room room_open(Device *dev, int64_t rows, Tensor x, DType mid, int64_t inter) {
    const size_t bytes = (size_t)rows * (size_t)(2 * x.cols + 3 * inter) * sizeof(float) + 4 * 64;
    char *at = cpu_scratch(dev, SCRATCH_EXPERTS, bytes);
    Room r = {.x = cut(&at, x.dtype, rows, x.cols), .gate_up = cut(&at, mid, rows, 2 * inter)};
    r.mid = cut(&at, mid, rows, inter);
    r.out = cut(&at, DT_F32, rows, x.cols);
    return r;
}

void cpu_experts(Device *dev, Tensor y, Tensor x, Tensor idx, Tensor w, Tensor gate_up,
                 Tensor down) {
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
    cpu_zero(dev, y);
    const Groups g = group_pairs(dev, idx, experts);
    const Room room = room_open(dev, g.most, x, x.dtype, inter);
    for (int64_t e = 0; e < experts; e++) {
        const int64_t *pair = g.pair + g.first[e], n = g.first[e + 1] - g.first[e];
        if (n == 0) continue;
        const int64_t m = padded(n);
        const Tensor in = tensor_rows(room.x, 0, m), mid = tensor_rows(room.mid, 0, m);
        const Tensor both = tensor_rows(room.gate_up, 0, m), out = tensor_rows(room.out, 0, m);
        gather_rows(dev, in, x, pair, n, idx.cols);
        cpu_matmul_nt(dev, both, in, tensor_rows(gate_up, e * 2 * inter, 2 * inter), 0.0f);
        cpu_geglu(dev, mid, tensor_cols(both, 0, inter), tensor_cols(both, inter, inter));
        cpu_matmul_nt(dev, out, mid, tensor_rows(down, e * B, B), 0.0f);
        add_rows(dev, y, out, w, pair, n);
    }
}
