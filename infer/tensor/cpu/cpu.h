// infer/tensor/cpu/cpu.h - what the CPU bodies share: scratch, threads, rows of either float type.
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include "infer/tensor/op_checks.h"
#include "infer/tensor/ops.h"

// Scratch by purpose, grown on demand and kept until dev_close. SCRATCH_THREAD + t belongs to
// thread t.
typedef enum {
    SCRATCH_A, // operands of a product converted to f32
    SCRATCH_B,
    SCRATCH_C,
    SCRATCH_SUMS,    // partial sums of a reduction
    SCRATCH_PAIRS,   // rows by expert, by cluster
    SCRATCH_EXPERTS, // buffers of one expert
    SCRATCH_THREAD
} ScratchId;
enum { CPU_THREADS_MAX = 1024 };

typedef struct {
    void *data;
    size_t size;
} Scratch;

typedef struct {
    Scratch scratch[SCRATCH_THREAD + CPU_THREADS_MAX];
    struct Dnnl *dnnl;      // NULL: not built in, or nothing for this CPU
    bool own_f32, own_bf16; // own kernels for small products agree with oneDNN's
} Cpu;

extern const struct DeviceBody cpu_body;     // host_memory.c
int cpu_thread_count(int threads, Err *err); // that 0 (all) or a number means; 0 = err set
MUST_CHECK bool cpu_open(Device *dev, int threads, Err *err);
void cpu_close(Device *dev);
bool cpu_prefers_bf16(const Device *dev);
bool cpu_fast_pairs(void); // VDPBF16PS is there and does more than FMA in the same time
size_t cpu_scratch_bytes(const Device *dev);
void cpu_describe(Device *dev, void (*line)(void *ctx, const char *name, const char *value),
                  void *ctx);
void *cpu_scratch(Device *dev, int id,
                  size_t bytes); // contents undefined; aborts when memory is out

// Threads worth waking for `work` element visits. Only 1 or all: libgomp keeps its team that way.
static inline int cpu_threads(const Device *dev, int64_t work) {
    return work < 16384 ? 1 : dev->threads;
}

// Rows are processed in spans of at most SPAN columns: a span of f32 stays in the L1 cache.
enum { SPAN = 1024 };

static inline float *f32_at(Tensor t, int64_t r, int64_t c) {
    return (float *)t.data + r * t.ld + c;
}
static inline bf16 *bf16_at(Tensor t, int64_t r, int64_t c) {
    return (bf16 *)t.data + r * t.ld + c;
}
static inline double *f64_at(Tensor t, int64_t r, int64_t c) {
    return (double *)t.data + r * t.ld + c;
}
static inline int32_t *i32_at(Tensor t, int64_t r, int64_t c) {
    return (int32_t *)t.data + r * t.ld + c;
}

void f32_from_bf16(float *y, const bf16 *x, int64_t n); // span.c
void f32_to_bf16(bf16 *y, const float *x, int64_t n);
float span_max(const float *x, int64_t n); // -infinity when n is 0; NaN is passed over
// Maxima of MAX_BLOCK elements each, the last of what is left.
enum { MAX_BLOCK = 128 };
void block_max(float *max, const float *x, int64_t n);
float span_dot(const float *a, const float *b, int64_t n);
void span_softcap(float *z, float cap, int64_t n);                    // in place
void span_geglu(float *m, const float *a, const float *b, int64_t n); // geglu.c
// The same of a and b rounded to bf16.
void span_geglu_rounded(float *m, const float *a, const float *b, int64_t n);

// The two best of a row so far, see op_top2.
typedef struct {
    float value[2];
    int32_t id[2]; // -1: nothing yet
} Best2;
static const Best2 BEST2_NONE = {{-__builtin_inff(), -__builtin_inff()}, {-1, -1}};
void best2_add(Best2 *b, float v, int32_t id); // select.c

// Columns c .. c+n-1 of row r as f32: the tensor's own memory when it is F32, else a copy in buf.
static inline const float *span_read(Tensor t, int64_t r, int64_t c, int64_t n, float *buf) {
    if (t.dtype == DT_F32) return f32_at(t, r, c);
    f32_from_bf16(buf, bf16_at(t, r, c), n);
    return buf;
}
// Where to write a span, and the call that puts it there (rounded when the tensor is BF16).
static inline float *span_begin(Tensor t, int64_t r, int64_t c, float *buf) {
    return t.dtype == DT_F32 ? f32_at(t, r, c) : buf;
}
static inline void span_end(Tensor t, int64_t r, int64_t c, int64_t n, const float *buf) {
    if (t.dtype != DT_F32) f32_to_bf16(bf16_at(t, r, c), buf, n);
}
// The same for a span that is added to: it begins with what is there.
static inline float *span_update(Tensor t, int64_t r, int64_t c, int64_t n, float *buf) {
    return (float *)span_read(t, r, c, n, buf);
}
static inline int64_t span_size(int64_t cols, int64_t c) {
    return cols - c < SPAN ? cols - c : SPAN;
}

// Sums over rows are cut into blocks by position, never by thread, and the blocks added in order.
typedef struct {
    int64_t size, count;
} RowBlocks;
static inline RowBlocks row_blocks(int64_t rows) {
    const int64_t size = rows <= 16 * 64 ? 16 : (rows + 63) / 64;
    return (RowBlocks){size, (rows + size - 1) / size};
}

// Bodies, by the file that holds them; ops.h has the formulas.
void cpu_zero(Device *, Tensor x); // elementwise.c
void cpu_copy(Device *, Tensor y, Tensor x);
void cpu_axpby(Device *, Tensor y, Tensor x, float alpha, float beta);
void cpu_softcap(Device *, Tensor z, float cap);
void cpu_sumsq(Device *, Tensor out, Tensor x);
void cpu_matmul_nt(Device *, Tensor c, Tensor a, Tensor b, float beta); // matmul.c
void cpu_matmul_nn(Device *, Tensor c, Tensor a, Tensor b, float beta);
void cpu_matmul_tn(Device *, Tensor c, Tensor a, Tensor b, float beta);
void cpu_gather(Device *, Tensor y, Tensor table, Tensor ids, float scale); // gather.c
void cpu_gather_back(Device *, Tensor dtable, Tensor dy, Tensor ids, float scale);
void cpu_norm(Device *, Tensor y, Tensor rstd, Tensor res, Tensor x, Tensor w, float eps,
              float scale);
void cpu_norm_back(Device *, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor x, Tensor rstd,
                   Tensor w, float scale); // norm.c
void cpu_head_norm(Device *, Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, float eps,
                   int hd);
void cpu_head_norm_back(Device *, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor rstd, Tensor w,
                        Tensor cs, int hd); // head_norm.c
void cpu_rope_table(Device *, Tensor cs, Tensor pos, Tensor inv);
void cpu_attention(Device *, Tensor o, Tensor lse, Tensor q, const AttnArgs *args); // attention.c
void cpu_attention_back(Device *, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                        const AttnArgs *args);
void cpu_geglu(Device *, Tensor m, Tensor a, Tensor b); // geglu.c
void cpu_geglu_back(Device *, Tensor da, Tensor db, Tensor dm, Tensor a, Tensor b);
void cpu_gated(Device *, Tensor m, Tensor ab, Tensor x, Tensor w, bool keep); // gated.c
int64_t cpu_gated_room(Device *, int64_t rows, int64_t cols, int64_t k, DType x, DType w);
void cpu_route(Device *, Tensor w, Tensor z, Tensor idx, Tensor scale); // experts.c
void cpu_experts(Device *, Tensor y, Tensor x, Tensor idx, Tensor w, Tensor gate_up, Tensor down);
void cpu_top2(Device *, Tensor best, Tensor id, Tensor z, Tensor token_of, int64_t v0); // select.c
void cpu_topk(Device *, Tensor idx, Tensor x, int k);
void cpu_lse_tile(Device *, Tensor lse, Tensor best, Tensor id, Tensor z, float cap, float temp,
                  int64_t v0); // vocab_loss.c
void cpu_prob_tile(Device *, Tensor p, Tensor psum, Tensor z, Tensor lse, float cap, float temp);
void cpu_loss_tile(Device *, Tensor stat, Tensor g, Tensor z, Tensor lse, const LossArgs *args,
                   int64_t v0); // vocab_loss.c
void cpu_head_tile(Device *, const HeadOut *out, Tensor y, Tensor table, const LossArgs *args,
                   int64_t v0); // head_tile.c
void cpu_cluster_mass(Device *, Tensor mass, Tensor p, Tensor cluster_of,
                      int64_t v0); // cluster.c
void cpu_cluster_ce(Device *, Tensor loss, Tensor g, Tensor z, Tensor mass, Tensor trow,
                    Tensor weight);
void cpu_cluster_logits(Device *, Tensor z, Tensor token, Tensor y, Tensor table, Tensor ordering,
                        Tensor idx); // cluster_logits.c
void cpu_adamw(Device *, Tensor w, Tensor m, Tensor v, Tensor copy, Tensor g, float gscale,
               float lr, float beta1, float beta2, float eps, float decay, int64_t step); // adamw.c

#endif
