// tests/cuda_host/cuda_host.cuh - CUDA's runtime as far as infer/tensor/cuda uses it, on the CPU:
// make CUDA=host compiles the same .cu files with g++ and this header in front of them.
//
// A device for tests, not for work. What it is good for:
// * Device memory is out of the host's reach (PROT_NONE) but while a kernel or a copy runs, so host
//   code that follows a device pointer faults here as on a GPU. Blocks end at a page: an overrun
//   faults too. Fresh memory is filled with NaN.
// * Launches and copies wait in the queue of their stream until somebody synchronises with it
//   (CUDA_LAUNCH_BLOCKING=1: they run at once), so a missing wait is seen. Work of another stream
//   runs no sooner than an event asks for it; a stream that one waits for has then gone on as far
//   as it can. So a copy that does not wait reads what is not there yet, and one whose source is
//   overwritten too soon reads what came later.
// * Threads of a block are fibers that run one after the other between barriers; every launch turns
//   the order of blocks, warps and lanes around, so a missing barrier changes results.
// * A pointer into other host memory among a kernel's arguments ends the program.
// * copy_async lands when it is waited for and no sooner. A collective that not everybody reaches
//   ends the program with the kernel's threads counted.
// * What is captured does not run: kernels keep the arguments they were captured with, copies their
//   addresses, until a graph of them is launched. Calls that CUDA forbids meanwhile fail as they do
//   there and make the capture void (host_graph.cu).
// CUDA_HOST_FAIL=N makes the N-th launch of the process fail; CUDA_HOST_MIB sets the memory (4096),
// CUDA_HOST_SHARED_KIB the shared memory that a block can have (227; sm_80 has 163, sm_86 99);
// CUDA_HOST_NO_GRAPHS=capture|instantiate|exchange|launch makes that step of every graph fail.
#ifndef TESTS_CUDA_HOST_CUH
#define TESTS_CUDA_HOST_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

// --- what nvcc knows by itself

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
static inline int2 make_int2(int x, int y) {
    return {x, y};
}
static inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}

extern dim3 threadIdx, blockIdx, blockDim, gridDim; // of the thread that runs
using std::max;
using std::min;

static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, sizeof u);
    return u;
}
static inline float __int_as_float(int i) {
    return __uint_as_float((unsigned)i);
}
static inline int __float_as_int(float f) {
    return (int)__float_as_uint(f);
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}
#define __expf expf // glibc has these names
#define __logf logf
static inline float __fdividef(float a, float b) {
    return a / b;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
template <typename T> static inline T __ldg(const T *p) {
    return *p;
}
// Threads of a launch run in one thread of the process, so plain arithmetic is atomic.
template <typename T> static inline T atomicAdd(T *p, T v) {
    static_assert(!std::is_floating_point_v<T>, "sums by atomics have no order");
#ifdef __SANITIZE_THREAD__
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
#endif
    const T old = *p;
    *p = old + v;
    return old;
}
template <typename T> static inline T atomicMax(T *p, T v) {
    const T old = *p;
    *p = std::max(old, v);
    return old;
}
template <typename T> static inline T atomicMin(T *p, T v) {
    const T old = *p;
    *p = std::min(old, v);
    return old;
}
template <typename T> static inline T atomicCAS(T *p, T seen, T v) {
    const T old = *p;
    if (old == seen) *p = v;
    return old;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// --- collectives

void __syncthreads();
int __syncthreads_or(int v);
int __syncthreads_count(int v);
void __syncwarp(unsigned mask = 0xffffffffu);
unsigned host_lane();

// What the lanes of a mask left for each other; valid until this thread's next collective.
struct HostTable {
    alignas(64) unsigned char slot[32 * 64];
    unsigned step;                    // bytes from lane to lane
    unsigned there;                   // lanes that came
    alignas(8) unsigned char made[8]; // by the last of them
};
// Every lane of mask leaves `size` (at most 64) bytes and goes on when all have. last: this lane
// came last, and no other has seen the table yet.
HostTable *host_exchange(unsigned mask, const void *mine, size_t size, bool *last = nullptr);
[[noreturn]] void host_no_lane(unsigned lane, unsigned there);

template <typename T> static inline T host_take(const HostTable *table, unsigned lane) {
    T v;
    if (!(table->there >> lane & 1)) host_no_lane(lane, table->there);
    memcpy(&v, table->slot + lane * table->step, sizeof v);
    return v;
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32) {
    const unsigned from = host_lane() ^ (unsigned)lanes;
    const HostTable *table = host_exchange(mask, &v, sizeof v);
    return from / (unsigned)width == host_lane() / (unsigned)width ? host_take<T>(table, from) : v;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    const unsigned w = (unsigned)width, from = host_lane() / w * w + (unsigned)lane % w;
    return host_take<T>(host_exchange(mask, &v, sizeof v), from);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    const unsigned w = (unsigned)width, from = host_lane() + by;
    const HostTable *table = host_exchange(mask, &v, sizeof v);
    return from / w == host_lane() / w ? host_take<T>(table, from) : v;
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    const unsigned w = (unsigned)width, lane = host_lane();
    const HostTable *table = host_exchange(mask, &v, sizeof v);
    return lane % w >= by ? host_take<T>(table, lane - by) : v;
}
// The butterfly of a whole warp in one step, in the order of its five.
template <typename T, typename Op> static inline T host_butterfly(T v, Op op) {
#ifdef __SANITIZE_THREAD__
    for (int step = 16; step > 0; step /= 2) v = op(v, __shfl_xor_sync(0xffffffffu, v, step));
    return v;
#endif
    bool last = false;
    HostTable *table = host_exchange(0xffffffffu, &v, sizeof v, &last);
    if (last) {
        T x[32];
        for (unsigned i = 0; i < 32; i++) x[i] = host_take<T>(table, i);
        for (unsigned step = 16; step > 0; step /= 2)
            for (unsigned i = 0; i < step; i++) x[i] = op(x[i], x[i + step]);
        memcpy(table->made, x, sizeof v);
    }
    memcpy(&v, table->made, sizeof v);
    return v;
}
unsigned __ballot_sync(unsigned mask, int v);
static inline int __any_sync(unsigned mask, int v) {
    return __ballot_sync(mask, v) != 0;
}
static inline int __all_sync(unsigned mask, int v) {
    return __ballot_sync(mask, !v) == 0;
}
unsigned __activemask();

void host_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void host_ldmatrix(uint32_t (&r)[4], const void *row, bool turned);
void host_copy_async(void *shared, const void *from, bool there);
void host_copy_async_commit();
void host_copy_async_wait(int groups_left);
unsigned char *host_shared_memory(); // dynamic, of the block that runs

// --- the runtime's functions

typedef enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureImplicit = 906,
} cudaError_t;
typedef struct HostStream *cudaStream_t; // NULL: the legacy stream
typedef struct HostEvent *cudaEvent_t;
typedef struct HostGraph *cudaGraph_t;
typedef struct HostNode *cudaGraphNode_t;
typedef struct HostExec *cudaGraphExec_t;
typedef enum {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
} cudaStreamCaptureMode;
typedef enum {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated
} cudaStreamCaptureStatus;
typedef struct {
    unsigned char from_port, to_port, type;
} cudaGraphEdgeData;
#define CUDART_VERSION 13000
typedef enum {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
} cudaMemcpyKind;
typedef enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 } cudaFuncAttribute;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount;
};

cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int n);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int n);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s);
cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute a, int value);
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t s);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t e);

// One stream at a time can be captured.
struct cudaKernelNodeParams {
    void *func;
    dim3 gridDim, blockDim;
    unsigned sharedMemBytes;
    void **kernelParams, **extra;
};
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **last, const cudaGraphEdgeData **edge,
                                     size_t *n);
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags);
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaKernelNodeParams *p);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

// --- launches

// Host code in the place of a library's kernels: runs in the queue, device memory open; is captured
// like a kernel.
cudaError_t host_enqueue(cudaStream_t s, std::function<void()> work);

// What a kernel is given has to be memory of the device, or pinned: anything else ends the program.
void host_check_pointer(const void *p);
template <typename T> static inline void host_check(const T &arg) {
    if constexpr (std::is_pointer_v<T>)
        host_check_pointer((const void *)arg);
    else if constexpr (requires {
                           arg.data;
                           arg.ld;
                       }) // a Tensor
        host_check_pointer(arg.data);
}

// What one thread of a kernel does, its arguments copied from where the runtime is told they are.
typedef std::function<void()> HostBind(const void *kernel, void **args);
void host_know_kernel(const void *kernel, HostBind *bind);

template <typename... P, size_t... I>
std::function<void()> host_bind(const void *kernel, void **args, std::index_sequence<I...>) {
    (host_check(*(P *)args[I]), ...);
    const std::tuple<P...> copied(*(P *)args[I]...);
    return [f = (void (*)(P...))kernel, copied] { std::apply(f, copied); };
}
// The runtime knows the types of a kernel's parameters; here it is told them before a launch.
template <typename... P> void host_know(void (*kernel)(P...)) {
    host_know_kernel((const void *)kernel, [](const void *k, void **args) {
        return host_bind<P...>(k, args, std::index_sequence_for<P...>());
    });
}

#endif
