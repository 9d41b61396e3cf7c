// infer/tensor/cpu/gather.c - rows of a table by id: y[r] = scale * table[ids[r]], and its
// transpose.
#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/simd.h"

KERNEL static void scale_span(float *y, const float *x, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = scale * x[i];
}

KERNEL static void add_scaled_span(float *y, const float *x, float scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += scale * x[i];
}

static void check_ids(Tensor ids, int64_t rows, int64_t table_rows) {
    CHECK_SHAPE(ids, 1, rows);
    CHECK_TYPE(ids, DT_I32);
    for (int64_t r = 0; r < rows; r++)
        CHECK(*i32_at(ids, 0, r) < table_rows, "(id %d of a table of %lld)", *i32_at(ids, 0, r),
              (long long)table_rows);
}

void cpu_gather(Device *dev, Tensor y, Tensor table, Tensor ids, float scale) {
    CHECK_SHAPE(y, y.rows, table.cols);
    CHECK_FLOAT(y);
    CHECK_FLOAT(table);
    check_ids(ids, y.rows, table.rows);
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(y)))
    for (int64_t r = 0; r < y.rows; r++) {
        const int64_t id = *i32_at(ids, 0, r);
        for (int64_t c = 0; c < y.cols; c += SPAN) {
            const int64_t n = span_size(y.cols, c);
            float in[SPAN], out[SPAN], *ys = span_begin(y, r, c, out);
            if (id < 0)
                memset(ys, 0, (size_t)n * sizeof *ys);
            else
                scale_span(ys, span_read(table, id, c, n, in), scale, n);
            span_end(y, r, c, n, ys);
        }
    }
}

// Threads share out columns, so that each sum over rows runs in order.
void cpu_gather_back(Device *dev, Tensor dtable, Tensor dy, Tensor ids, float scale) {
    CHECK_SHAPE(dy, dy.rows, dtable.cols);
    CHECK_TYPE(dtable, DT_F32);
    CHECK_FLOAT(dy);
    check_ids(ids, dy.rows, dtable.rows);
    const int64_t width = 64, spans = (dy.cols + width - 1) / width;
#pragma omp parallel for num_threads(cpu_threads(dev, tensor_count(dy)))
    for (int64_t s = 0; s < spans; s++) {
        const int64_t c = s * width, n = dy.cols - c < width ? dy.cols - c : width;
        for (int64_t r = 0; r < dy.rows; r++) {
            const int64_t id = *i32_at(ids, 0, r);
            float buf[SPAN];
            if (id >= 0)
                add_scaled_span(f32_at(dtable, id, c), span_read(dy, r, c, n, buf), scale, n);
        }
    }
}
