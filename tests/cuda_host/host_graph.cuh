// tests/cuda_host/host_graph.cuh - what the queue of the emulated device and its graphs share.
#ifndef TESTS_HOST_GRAPH_CUH
#define TESTS_HOST_GRAPH_CUH

#include <mutex>

extern std::recursive_mutex host_lock; // of everything the emulated device has

// A kernel, or (kernel NULL) host code in the place of a copy or of a library's kernel.
struct HostWork {
    const void *kernel = nullptr;
    dim3 grid, block;
    size_t shared = 0;
    std::function<void()> run; // one thread of the kernel; all of the host code
};

cudaError_t host_kernel(HostWork *w, const void *kernel, dim3 grid, dim3 block, size_t shared,
                        void **args);
cudaError_t host_start(const HostWork &w); // into the queue
// true: a capture has the work, or it may not be put there now: *e.
bool host_captured(cudaStream_t s, HostWork *w, cudaError_t *e);
// Of a call that a capture under way does not permit: makes the capture void.
cudaError_t host_forbidden();

#endif
