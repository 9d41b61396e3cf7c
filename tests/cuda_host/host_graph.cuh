// tests/cuda_host/host_graph.cuh - what memory, streams and graphs of the emulated device share.
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
cudaError_t host_start(cudaStream_t s, const HostWork &w); // into its queue
// true: a capture has the work, or it may not be put there now: *e.
bool host_captured(cudaStream_t s, HostWork *w, cudaError_t *e);
// Of a call that a capture under way does not permit: makes the capture void.
cudaError_t host_forbidden();

void host_open_memory(); // to the host, while work runs
void host_close_memory();
cudaError_t host_result(cudaError_t e); // keeps the last; what is broken stays so
void host_queue(cudaStream_t s, std::function<void()> run);
void host_drain(); // every stream

#endif
