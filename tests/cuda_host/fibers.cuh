// tests/cuda_host/fibers.cuh - runs a grid of threads on one CPU thread.
#ifndef TESTS_FIBERS_CUH
#define TESTS_FIBERS_CUH

enum : size_t { HOST_SHARED_MAX = 227u << 10 };

// turned: blocks, warps and lanes come in falling instead of rising order.
void run_grid(dim3 grid, dim3 block, size_t shared, bool turned,
              const std::function<void()> &thread);

#endif
