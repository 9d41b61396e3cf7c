// tests/cuda_host/cuda_host.cu - memory, kernels and the runtime's functions of the emulated
// device.
#include <sys/mman.h>

#include <stdlib.h>
#include <unistd.h>

#include <map>
#include <vector>

#include "infer/tensor/cuda/cuda.cuh"
#include "tests/cuda_host/fibers.cuh"
#include "tests/cuda_host/host_graph.cuh"

std::recursive_mutex host_lock;

namespace {

#ifdef HOST_RACES
constexpr size_t RANGE = size_t(1) << 36; // every byte has shadows
#else
constexpr size_t RANGE = size_t(1) << 40;
#endif
constexpr size_t ALIGN = 64;

struct Block {
    char *map;   // first page
    size_t size; // pages, in bytes
    char *data;  // ends where the pages end
    size_t bytes;
};

std::vector<Block> blocks, pinned;
std::map<const void *, HostBind *> kernels;
char *range, *range_end; // device addresses; range_end grows
size_t used, page;
int launches;
cudaError_t last = cudaSuccess, broken = cudaSuccess;

size_t memory_size() {
    const char *s = getenv("CUDA_HOST_MIB");
    return (s ? strtoull(s, nullptr, 10) : 4096) << 20;
}

size_t shared_size() {
    const char *s = getenv("CUDA_HOST_SHARED_KIB");
    const size_t kib = s ? strtoull(s, nullptr, 10) : HOST_SHARED_MAX >> 10;
    return std::min(kib << 10, size_t(HOST_SHARED_MAX));
}

void protect(int how) {
    for (const Block &b : blocks)
        if (mprotect(b.map, b.size, how) != 0) abort();
}

bool open;

size_t slack(const Block &b) {
    return size_t(b.map + b.size - (b.data + b.bytes));
}

// The few bytes between the end of a block and the end of its page.
bool tail_is_untouched(const Block &b) {
    for (size_t i = 0; i < slack(b); i++)
        if ((unsigned char)b.data[b.bytes + i] != 0xa5) return false;
    return true;
}

} // namespace

void host_open_memory() {
    if (!open) protect(PROT_READ | PROT_WRITE);
    open = true;
}

void host_close_memory() {
    if (open) protect(PROT_NONE);
    open = false;
}

cudaError_t host_result(cudaError_t e) {
    if (e != cudaSuccess) last = e;
    return broken != cudaSuccess ? broken : e;
}

cudaError_t host_start(cudaStream_t s, const HostWork &w) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    static const char *const fail = getenv("CUDA_HOST_FAIL");
    if (w.kernel == nullptr) {
        if (broken == cudaSuccess) host_queue(s, w.run);
        return host_result(cudaSuccess);
    }
    launches++;
    if (fail != nullptr && launches == atoi(fail)) last = broken = cudaErrorLaunchFailure;
    if (broken != cudaSuccess) return broken;
    host_queue(
        s, [w, turned = launches % 2 == 0] { run_grid(w.grid, w.block, w.shared, turned, w.run); });
    return host_result(cudaSuccess);
}

cudaError_t host_put(cudaStream_t s, HostWork w) {
    cudaError_t e;
    if (host_captured(s, &w, &e)) return host_result(e);
    return host_start(s, w);
}

cudaError_t host_enqueue(cudaStream_t s, std::function<void()> work) {
    return host_put(s, {nullptr, {}, {}, 0, std::move(work)});
}

void host_know_kernel(const void *kernel, HostBind *bind) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    kernels[kernel] = bind;
}

cudaError_t host_kernel(HostWork *w, const void *kernel, dim3 grid, dim3 block, size_t shared,
                        void **args) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const auto k = kernels.find(kernel);
    if (k == kernels.end() || block.x * block.y * block.z > 1024 || grid.y > 65535 ||
        grid.z > 65535 || shared > shared_size())
        return cudaErrorInvalidConfiguration;
    *w = {kernel, grid, block, shared, k->second(kernel, args)};
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t s) {
    HostWork w;
    const cudaError_t e = host_kernel(&w, kernel, grid, block, shared, args);
    return e == cudaSuccess ? host_put(s, std::move(w)) : host_result(e);
}

cudaError_t cudaGetDeviceCount(int *n) {
    *n = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int n) {
    return host_result(n == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int n) {
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated on the CPU, for tests");
    p->totalGlobalMem = memory_size();
    p->sharedMemPerBlockOptin = shared_size();
    p->major = 9;
    p->multiProcessorCount = 4;
    return host_result(n == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDriverGetVersion(int *v) {
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v) {
    *v = 13000;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *total = memory_size();
    *free = *total - used;
    return cudaSuccess;
}

// Addresses are never used twice, so a pointer kept too long faults; a page between blocks is never
// mapped.
cudaError_t cudaMalloc(void **p, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const cudaError_t e = host_forbidden();
    if (e != cudaSuccess) return host_result(e);
    *p = nullptr;
    if (bytes > memory_size() || used + bytes > memory_size())
        return host_result(cudaErrorMemoryAllocation);
    page = size_t(sysconf(_SC_PAGESIZE));
    if (range == nullptr) {
        void *m =
            mmap(nullptr, RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (m == MAP_FAILED) return host_result(cudaErrorMemoryAllocation);
        range = range_end = (char *)m;
    }
    host_close_memory();
    Block b = {range_end, (bytes + page) / page * page, nullptr, bytes};
    b.data = b.map + (b.size - bytes) / ALIGN * ALIGN;
    range_end += b.size + page;
    if (mprotect(b.map, b.size, PROT_READ | PROT_WRITE) != 0)
        return host_result(cudaErrorMemoryAllocation);
    memset(b.map, 0xff, b.size);
    memset(b.data + bytes, 0xa5, slack(b));
    mprotect(b.map, b.size, PROT_NONE);
    blocks.push_back(b);
    used += bytes;
    *p = b.data;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const cudaError_t e = host_forbidden();
    if (e != cudaSuccess) return host_result(e);
    host_drain();
    host_close_memory();
    if (p == nullptr) return cudaSuccess;
    for (size_t i = 0; i < blocks.size(); i++) {
        const Block b = blocks[i];
        if (b.data != p) continue;
        mprotect(b.map, b.size, PROT_READ);
        if (!tail_is_untouched(b)) {
            fprintf(stderr, "a kernel wrote behind a block of %zu bytes\n", b.bytes);
            abort();
        }
        blocks.erase(blocks.begin() + (long)i);
        used -= b.bytes;
        mmap(b.map, b.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
             0);
        return cudaSuccess;
    }
    return host_result(cudaErrorInvalidValue);
}

void host_check_pointer(const void *p) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const char *at = (const char *)p;
    if (p == nullptr || (range != nullptr && at >= range && at < range + RANGE)) return;
    for (const Block &b : pinned)
        if (at >= b.data && at <= b.data + b.bytes) return;
    fprintf(stderr, "a kernel was given the address %p, which is the host's\n", p);
    abort();
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const cudaError_t e = host_forbidden();
    if (e != cudaSuccess) return host_result(e);
    *p = mmap(nullptr, bytes + 1, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*p == MAP_FAILED) return host_result(cudaErrorMemoryAllocation);
    pinned.push_back({(char *)*p, bytes + 1, (char *)*p, bytes});
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const cudaError_t e = host_forbidden();
    if (e != cudaSuccess) return host_result(e);
    host_drain();
    for (size_t i = 0; i < pinned.size(); i++) {
        if (pinned[i].data != p) continue;
        munmap(p, pinned[i].size);
        pinned.erase(pinned.begin() + (long)i);
        return cudaSuccess;
    }
    return host_result(cudaErrorInvalidValue);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t s) {
    return host_enqueue(s, [=] { memmove(to, from, bytes); });
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind, cudaStream_t s) {
    if (width > to_pitch || width > from_pitch) return host_result(cudaErrorInvalidValue);
    return host_enqueue(s, [=] {
        for (size_t r = 0; r < height; r++)
            memmove((char *)to + r * to_pitch, (const char *)from + r * from_pitch, width);
    });
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s) {
    return host_enqueue(s, [=] { memset(p, value, bytes); });
}

cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int value) {
    return host_result((size_t)value <= shared_size() ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGetLastError() {
    const cudaError_t e = last;
    last = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureImplicit:
        return "operation would make the legacy stream depend on a capturing blocking stream";
    }
    return "unknown error";
}
