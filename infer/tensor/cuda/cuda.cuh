// infer/tensor/cuda/cuda.cuh - what the CUDA bodies share: the device's state, launches, loads and
// stores of either float type, reductions in a fixed order, tensor-core and async-copy wrappers.
//
// How a body looks (elementwise.cu is the shortest example):
//
//     template <int V> __global__ void softcap_kernel(Tensor z, float cap) { ... }
//     void cuda_softcap(Device *dev, Tensor z, float cap) {
//         Cuda *cu = cuda_begin(dev, "softcap");      // failures are kept under this name
//         CHECK_FLOAT(z);                             // the same promises as the CPU body
//         launch(cu, softcap_kernel<8>, grid, block, shared_bytes, z, cap);
//     }
//
// Rules.
// * Kernels take Tensor by value (a view of device memory); host memory never enters a kernel:
//   what is in host memory (AttnArgs.seg, LossArgs) goes in by value, or through cuda_send.
// * One stream computes, so order needs no events (the second one copies rows to the host beside
//   it: dev_download_begin, where an event says behind what). Nothing waits for the device, nothing
//   allocates but scratch, which only grows (cuda_scratch; the pointer is good until the same id is
//   asked for more). Two operators may use the same id: the stream keeps them apart.
// * Inside of a span launches are held and may become a graph (spans.cu): a body reaches the stream
//   by launch, products and cuda_send alone, and keeps no pointer to scratch between operators.
// * Same input, same bits, whatever the number of rows in the call where that can be had: shapes of
//   blocks follow from columns, sums run in a fixed order, no float atomics (integer ones are
//   fine).
// * Contraction is off, on both compilers: write fmaf where it pays.
// * An index that cannot be is raised (cuda_raise), not followed: the next dev_sync fails by name.
// * The same files are compiled by g++ for the emulated test device (make CUDA=host): no inline
//   assembly, no warp intrinsics and no launch beyond the wrappers here and the plain names that
//   tests/cuda_host/cuda_host.cuh has (add to it what is missing). Every thread of a warp named in
//   a mask has to arrive, every live thread of a block at __syncthreads; dynamic shared memory by
//   SHARED_MEMORY; __shared__ arrays without initialisers.
#ifndef CUDA_CUDA_CUH
#define CUDA_CUDA_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif // g++ gets tests/cuda_host/cuda_host.cuh by -include

extern "C" {
#include "infer/tensor/cuda/cuda.h"
#include "infer/tensor/op_checks.h"
#include "infer/tensor/ops.h"
}

// Scratch by purpose, grown on demand and kept until dev_close.
typedef enum {
    SCRATCH_A, // operands of a product, converted
    SCRATCH_B,
    SCRATCH_C,
    SCRATCH_WORKSPACE, // of the library that multiplies
    SCRATCH_SUMS,      // partial sums of a reduction
    SCRATCH_PAIRS,     // rows by expert
    SCRATCH_EXPERTS,   // between the two products of experts
    SCRATCH_ATTENTION, // what attention.cu needs
    SCRATCH_VOCAB,     // what vocab_loss.cu, select.cu and cluster.cu need
    SCRATCH_LOGITS,    // of head_tile.cu, where they do not stay in registers
    SCRATCH_SENT,      // copies of host memory (cuda_send)
    SCRATCH_COUNT
} ScratchId;

// What a kernel may find in its input that must not be there.
typedef enum {
    ALARM_NONE,
    ALARM_GATHER_ID, // an id beyond the table
    ALARM_EXPERT,    // an expert that is not there
    ALARM_CLUSTER,   // a cluster that is not there
    ALARM_TOKEN,     // a token beyond the table
    ALARM_ROW,       // a teacher row that is not there
    ALARM_COUNT
} Alarm;

struct Staging; // pinned memory on the way to or from the device, staging.cu
struct Gemms;   // the library that multiplies and what it chose, gemm.cu
struct Spans;   // launches held back, and the graphs that they became, spans.cu

enum { ROOMY_MOST = 64 }; // kernels that are known to take more than 48 KiB of shared memory

typedef struct Cuda {
    int device;
    bool blocking; // CUDA_LAUNCH_BLOCKING: transfers wait as well
    bool stream_open, copies_open, asked_open;
    cudaStream_t stream; // the only one that computes
    cudaStream_t copies; // downloads that have begun
    cudaEvent_t asked;   // in stream, behind what a download is of
    int sms;             // multiprocessors
    size_t shared_max;   // bytes of shared memory that one block can have
    const char *op;      // the operator at hand
    char failure[256];   // the first failure, with its operator; "": none
    int32_t *alarm;      // an Alarm, in pinned memory, written by kernels
    struct {
        void *data;
        size_t size;
    } scratch[SCRATCH_COUNT];
    size_t scratch_bytes; // all of it
    int64_t moves;        // how often a scratch block was replaced
    struct {
        const void *kernel;
        size_t shared; // that it may take
    } roomy[ROOMY_MOST];
    int roomies;
    struct Staging *up, *down;
    struct Gemms *gemms;
    struct Spans *spans;
} Cuda;

// --- host side (cuda.cu, staging.cu)

static inline Cuda *cuda_of(const Device *dev) {
    return (Cuda *)dev->impl;
}
// First thing in every body.
static inline Cuda *cuda_begin(Device *dev, const char *op) {
    Cuda *cu = cuda_of(dev);
    cu->op = op;
    return cu;
}
// Keeps the first failure; false unless e is success.
bool cuda_ok(Cuda *cu, cudaError_t e);
void cuda_failed(Cuda *cu, const char *text); // the same for other libraries
// Device memory of at least `bytes`, 256-byte aligned, contents undefined; NULL (failure kept) when
// memory is out: the body returns.
void *cuda_scratch(Cuda *cu, ScratchId id, size_t bytes);
template <typename T> T *cuda_scratch_of(Cuda *cu, ScratchId id, size_t count) {
    return (T *)cuda_scratch(cu, id, count * sizeof(T));
}
// Copies of small host arrays for one launch: cuda_send returns device memory that holds the bytes
// when the launches behind it run, good until the next cuda_send. NULL as above.
const void *cuda_send(Cuda *cu, const void *host, size_t bytes);

static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t least64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// What a launch is, its arguments apart.
typedef struct {
    const void *kernel;
    dim3 grid, block;
    size_t shared; // dynamic, bytes
} Launch;
enum { LAUNCH_ARGS = 16 };
// Starts it now or, inside of a span (device.h), at its end. arg[i] has size[i] bytes; copied.
void cuda_start(Cuda *cu, const Launch *l, void **arg, const size_t *size, int n);

// Arguments are compared as bytes (spans.cu), so the gap that C leaves behind a tensor's type has
// to be the same bytes every time. A struct of tensors has an overload beside it; without one, a
// gap that differs costs an exchange of the same values, no more.
static inline void tidy(Tensor &t) {
    char *gap = (char *)&t.dtype + sizeof t.dtype;
    memset(gap, 0, (size_t)((char *)&t.rows - gap));
}
template <typename T> static inline void tidy(T &) {}

// kernel<<<grid, block, shared>>>(args...) on the stream; an empty grid is not launched. More than
// 48 KiB of shared memory is asked for; more than cu->shared_max is a failure.
template <typename... P, typename... A>
void launch(Cuda *cu, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... args) {
    static_assert(sizeof...(P) <= LAUNCH_ARGS);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || cu->failure[0] != '\0') return;
#ifndef __CUDACC__
    host_know(kernel);
#endif
    const Launch l = {(const void *)kernel, grid, block, shared};
    [&](P... p) { // of the types that the kernel takes
        (tidy(p), ...);
        void *arg[] = {(void *)&p...};
        const size_t size[] = {sizeof p...};
        cuda_start(cu, &l, arg, size, (int)sizeof...(P));
    }(static_cast<P>(args)...);
}

// --- kernel side: places

#define DEVICE_FN static __device__ __forceinline__

#ifdef __CUDACC__
#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#else
#define SHARED_MEMORY(name) unsigned char *name = host_shared_memory()
#endif

DEVICE_FN float *f32_at(Tensor t, int64_t r, int64_t c) {
    return (float *)t.data + r * t.ld + c;
}
DEVICE_FN uint16_t *bf16_at(Tensor t, int64_t r, int64_t c) {
    return (uint16_t *)t.data + r * t.ld + c;
}
DEVICE_FN double *f64_at(Tensor t, int64_t r, int64_t c) {
    return (double *)t.data + r * t.ld + c;
}
DEVICE_FN int32_t *i32_at(Tensor t, int64_t r, int64_t c) {
    return (int32_t *)t.data + r * t.ld + c;
}
DEVICE_FN void cuda_raise(int32_t *alarm, Alarm a) {
    *(volatile int32_t *)alarm = a;
}

// --- bf16: two in 32 bits, the first in the low half; rounded to nearest even

DEVICE_FN uint32_t bf16_pack(float first, float second) {
#ifdef __CUDA_ARCH__
    uint32_t u;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(second), "f"(first));
    return u;
#elif !defined(__CUDACC__)
    return (uint32_t)bf16_from_f32(first).bits | (uint32_t)bf16_from_f32(second).bits << 16;
#endif
}
DEVICE_FN uint16_t bf16_round(float f) {
    return (uint16_t)bf16_pack(f, 0.0f);
}
DEVICE_FN float bf16_low(uint32_t pair) {
    return __uint_as_float(pair << 16);
}
DEVICE_FN float bf16_high(uint32_t pair) {
    return __uint_as_float(pair & 0xffff0000u);
}
DEVICE_FN float bf16_float(uint16_t bits) {
    return __uint_as_float((uint32_t)bits << 16);
}

// --- loads and stores of V (1, 4 or 8) elements of an (any) tensor, by 16 bytes where V lets them.
// For V > 1 row and column have to be aligned: take V from vector_width.

template <int V> DEVICE_FN void load(float (&x)[V], Tensor t, int64_t r, int64_t c) {
    if (t.dtype == DT_F32) {
        const float *p = f32_at(t, r, c);
        if constexpr (V % 4 == 0) {
#pragma unroll
            for (int i = 0; i < V; i += 4) {
                const float4 v = *(const float4 *)(p + i);
                x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
            }
        } else {
#pragma unroll
            for (int i = 0; i < V; i++) x[i] = p[i];
        }
        return;
    }
    const uint16_t *p = bf16_at(t, r, c);
    if constexpr (V == 8) {
        const uint4 v = *(const uint4 *)p;
        x[0] = bf16_low(v.x), x[1] = bf16_high(v.x), x[2] = bf16_low(v.y), x[3] = bf16_high(v.y);
        x[4] = bf16_low(v.z), x[5] = bf16_high(v.z), x[6] = bf16_low(v.w), x[7] = bf16_high(v.w);
    } else if constexpr (V == 4) {
        const uint2 v = *(const uint2 *)p;
        x[0] = bf16_low(v.x), x[1] = bf16_high(v.x), x[2] = bf16_low(v.y), x[3] = bf16_high(v.y);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) x[i] = bf16_float(p[i]);
    }
}

template <int V> DEVICE_FN void store(Tensor t, int64_t r, int64_t c, const float (&x)[V]) {
    if (t.dtype == DT_F32) {
        float *p = f32_at(t, r, c);
        if constexpr (V % 4 == 0) {
#pragma unroll
            for (int i = 0; i < V; i += 4)
                *(float4 *)(p + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
        } else {
#pragma unroll
            for (int i = 0; i < V; i++) p[i] = x[i];
        }
        return;
    }
    uint16_t *p = bf16_at(t, r, c);
    if constexpr (V == 8)
        *(uint4 *)p = make_uint4(bf16_pack(x[0], x[1]), bf16_pack(x[2], x[3]),
                                 bf16_pack(x[4], x[5]), bf16_pack(x[6], x[7]));
    else if constexpr (V == 4)
        *(uint2 *)p = make_uint2(bf16_pack(x[0], x[1]), bf16_pack(x[2], x[3]));
    else {
#pragma unroll
        for (int i = 0; i < V; i++) p[i] = bf16_round(x[i]);
    }
}

DEVICE_FN float load_one(Tensor t, int64_t r, int64_t c) {
    float x[1];
    load<1>(x, t, r, c);
    return x[0];
}
DEVICE_FN void store_one(Tensor t, int64_t r, int64_t c, float f) {
    const float x[1] = {f};
    store<1>(t, r, c, x);
}

// True where V elements at columns 0, V, 2V, ... of every row can be moved at once; a tensor that
// is not there (data NULL) never stands in the way.
static inline bool vector_fits(Tensor t, int v) {
    if (t.data == NULL) return true;
    const size_t size = dtype_size(t.dtype), step = size * (size_t)v < 16 ? size * (size_t)v : 16;
    return (uintptr_t)t.data % step == 0 && (size_t)t.ld * size % step == 0 && t.cols % v == 0;
}
// widest (8 or 4) where every tensor's rows and its columns take it, else 1.
template <typename... T> int vector_width(int widest, T... tensor) {
    return (vector_fits(tensor, widest) && ...) ? widest : 1;
}

// --- reductions, in an order that depends on the block's shape only; every thread gets the result

constexpr int WARP = 32;
#define ALL_LANES 0xffffffffu

template <typename T> DEVICE_FN T warp_sum(T v) { // float, double or int
#ifdef __CUDACC__
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) v += __shfl_xor_sync(ALL_LANES, v, step);
    return v;
#else
    return host_butterfly(v, [](T a, T b) { return a + b; });
#endif
}
DEVICE_FN float warp_max(float v) { // a NaN is passed over
#ifdef __CUDACC__
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2)
        v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, step));
    return v;
#else
    return host_butterfly(v, [](float a, float b) { return fmaxf(a, b); });
#endif
}

// Over a block of (n * 32, 1, 1) threads. Every thread calls it; it may be called again at once.
template <typename T> DEVICE_FN T block_sum(T v) {
    __shared__ T part[WARP];
    const unsigned warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    v = warp_sum(v);
    if (warps == 1) return v;
    __syncthreads(); // whoever still reads the last call's parts
    if (threadIdx.x % WARP == 0) part[warp] = v;
    __syncthreads();
    T sum = part[0];
    for (unsigned i = 1; i < warps; i++) sum += part[i];
    return sum;
}
DEVICE_FN float block_max(float v) {
    __shared__ float part[WARP];
    const unsigned warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    v = warp_max(v);
    if (warps == 1) return v;
    __syncthreads();
    if (threadIdx.x % WARP == 0) part[warp] = v;
    __syncthreads();
    float max = part[0];
    for (unsigned i = 1; i < warps; i++) max = fmaxf(max, part[i]);
    return max;
}

// --- tensor cores: D (16 x 8, f32) += A (16 x 16, bf16, rows) B (16 x 8, bf16, columns), one warp.
// With g = lane / 4 and t = lane % 4, pairs of neighbours in 32 bits:
//     a[0] A[g][2t..]  a[1] A[g+8][2t..]  a[2] A[g][2t+8..]  a[3] A[g+8][2t+8..]
//     b[0] B[2t..][g]  b[1] B[2t+8..][g]
//     d[0], d[1] D[g][2t], D[g][2t+1]  d[2], d[3] D[g+8][2t], D[g+8][2t+1]
DEVICE_FN void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDA_ARCH__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif !defined(__CUDACC__)
    host_mma_bf16(d, a, b);
#endif
}

// Four 8 x 8 matrices of bf16 from shared memory: lane l holds the address of row l % 8 of matrix
// l / 8 (16 bytes, aligned); r[i] gets of matrix i row lane / 4, columns 2 (lane % 4) and the next.
// turned: of the matrices transposed, so of column lane / 4, rows 2 (lane % 4) and the next.
DEVICE_FN void ldmatrix(uint32_t (&r)[4], const void *row, bool turned = false) {
#ifdef __CUDA_ARCH__
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
#elif !defined(__CUDACC__)
    host_ldmatrix(r, row, turned);
#endif
}

// --- 16 bytes from device to shared memory, without registers and without waiting. there false:
// zeros (from is not read, but has to be a valid address). commit closes a group of this thread's
// copies; wait<N> until all but its last N groups have landed; then __syncthreads for the others'.
DEVICE_FN void copy_async(void *shared, const void *from, bool there = true) {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(from), "r"(there ? 16 : 0)
                 : "memory");
#elif !defined(__CUDACC__)
    host_copy_async(shared, from, there);
#endif
}
DEVICE_FN void copy_async_commit() {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.commit_group;" ::: "memory");
#elif !defined(__CUDACC__)
    host_copy_async_commit();
#endif
}
template <int N> DEVICE_FN void copy_async_wait() {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#elif !defined(__CUDACC__)
    host_copy_async_wait(N);
#endif
}

// 16 bytes (aligned) that nobody reads again soon, and nobody writes while the kernel runs: they
// leave the nearest cache to others.
DEVICE_FN uint4 load_once(const void *from) {
#ifdef __CUDA_ARCH__
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
#elif !defined(__CUDACC__)
    return *(const uint4 *)from;
#endif
}

// --- bodies, by the file that holds them; ops.h has the formulas

void cuda_zero(Device *, Tensor x); // elementwise.cu
void cuda_copy(Device *, Tensor y, Tensor x);
void cuda_axpby(Device *, Tensor y, Tensor x, float alpha, float beta);
void cuda_softcap(Device *, Tensor z, float cap);
void cuda_sumsq(Device *, Tensor out, Tensor x);
void cuda_matmul_nt(Device *, Tensor c, Tensor a, Tensor b, float beta); // matmul.cu
void cuda_matmul_nn(Device *, Tensor c, Tensor a, Tensor b, float beta);
void cuda_matmul_tn(Device *, Tensor c, Tensor a, Tensor b, float beta);
void cuda_gather(Device *, Tensor y, Tensor table, Tensor ids, float scale); // gather.cu
void cuda_gather_back(Device *, Tensor dtable, Tensor dy, Tensor ids, float scale);
void cuda_norm(Device *, Tensor y, Tensor rstd, Tensor res, Tensor x, Tensor w, float eps,
               float scale); // norm.cu
void cuda_norm_back(Device *, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor x, Tensor rstd,
                    Tensor w, float scale);
void cuda_head_norm(Device *, Tensor y, Tensor rstd, Tensor x, Tensor w, Tensor cs, float eps,
                    int hd); // head_norm.cu
void cuda_head_norm_back(Device *, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor rstd, Tensor w,
                         Tensor cs, int hd);
void cuda_rope_table(Device *, Tensor cs, Tensor pos, Tensor inv);
void cuda_attention(Device *, Tensor o, Tensor lse, Tensor q, const AttnArgs *args); // attention.cu
void cuda_attention_back(Device *, Tensor dq, Tensor do_, Tensor o, Tensor q, Tensor lse,
                         const AttnArgs *args);
void cuda_geglu(Device *, Tensor m, Tensor a, Tensor b); // geglu.cu
void cuda_geglu_back(Device *, Tensor da, Tensor db, Tensor dm, Tensor a, Tensor b);
void cuda_gated(Device *, Tensor m, Tensor ab, Tensor x, Tensor w, bool keep);
int64_t cuda_gated_room(Device *, int64_t rows, int64_t cols, int64_t k, DType x, DType w);
void cuda_route(Device *, Tensor w, Tensor z, Tensor idx, Tensor scale); // experts.cu
void cuda_experts(Device *, Tensor y, Tensor x, Tensor idx, Tensor w, Tensor gate_up, Tensor down);
void cuda_top2(Device *, Tensor best, Tensor id, Tensor z, Tensor token_of,
               int64_t v0); // select.cu
void cuda_topk(Device *, Tensor idx, Tensor x, int k);
void cuda_lse_tile(Device *, Tensor lse, Tensor best, Tensor id, Tensor z, float cap, float temp,
                   int64_t v0); // vocab_loss.cu
void cuda_prob_tile(Device *, Tensor p, Tensor psum, Tensor z, Tensor lse, float cap, float temp);
void cuda_loss_tile(Device *, Tensor stat, Tensor g, Tensor z, Tensor lse, const LossArgs *args,
                    int64_t v0); // vocab_loss.cu
void cuda_head_tile(Device *, const HeadOut *out, Tensor y, Tensor table, const LossArgs *args,
                    int64_t v0); // head_tile.cu
void cuda_cluster_mass(Device *, Tensor mass, Tensor p, Tensor cluster_of,
                       int64_t v0); // cluster.cu
void cuda_cluster_ce(Device *, Tensor loss, Tensor g, Tensor z, Tensor mass, Tensor trow,
                     Tensor weight);
void cuda_cluster_logits(Device *, Tensor z, Tensor token, Tensor y, Tensor table, Tensor ordering,
                         Tensor idx);
void cuda_adamw(Device *, Tensor w, Tensor m, Tensor v, Tensor copy, Tensor g, float gscale,
                float lr, float beta1, float beta2, float eps, float decay,
                int64_t step); // adamw.cu

#endif
