// infer/tensor/device.h - where tensors live and which bodies the operators have.
//
// Failures of a device are sticky: kept with the operator's name and returned by the next dev_sync.
#ifndef TENSOR_DEVICE_H
#define TENSOR_DEVICE_H

#include "infer/tensor/tensor.h"

struct Ops;
struct DeviceBody;
typedef struct Device {
    const struct Ops *ops;
    const struct DeviceBody *body;
    const char *kind; // "cpu" or "cuda"
    int threads;      // of the host, whatever the kind
    void *impl;       // cuBLAS handles, oneDNN primitives, scratch: private to the bodies
} Device;

// spec: auto | cpu | cuda[:n]; threads 0 = all. auto is the first GPU where one can be used.
// Chooses the kernels of this machine at run time.
MUST_CHECK Device *dev_open(const char *spec, int threads, Err *err);
void dev_close(Device *dev);

void *dev_alloc(Device *dev, size_t bytes, Err *err); // 64-byte aligned, zeroed; NULL = err set
void dev_free(Device *dev, void *p);
// Host memory that kernels of the device can read and write as well, and that it copies from and to
// without a stop in between (pinned, on a GPU: sparingly). Contents undefined.
void *dev_alloc_host(Device *dev, size_t bytes, Err *err);
void dev_free_host(Device *dev, void *p); // behind downloads that have begun
// src packed, same dtype; src may be reused at once
void dev_upload(Device *dev, Tensor dst, const void *src);
void dev_download(Device *dev, void *dst, Tensor src); // dst packed, same dtype; waits
// The same in two halves, outside of spans: src as the operators asked for so far leave it comes to
// dst while the device goes on with those that are asked for next. end waits for all that has begun
// and for no operator behind it; false: the device has failed by now, as dev_sync would say. From
// begin to end src is neither written (by an operator asked for) nor freed, and dst, memory of
// dev_alloc_host, is not touched; whoever overwrites src asks for that behind end. Where tensors
// live in the host's memory nothing runs beside the host: begin is dev_download.
void dev_download_begin(Device *dev, void *dst, Tensor src);
MUST_CHECK bool dev_download_end(Device *dev, Err *err);
MUST_CHECK bool dev_sync(Device *dev, Err *err);

// Operators between these two are likely to be asked for again, with other positions perhaps: a
// step of decoding. A device whose launches take time may start them at the end, as one, and
// remember how (a CUDA graph). Results are the same, bit for bit. Whatever else the device is asked
// for in between is right as well, and ends the gain; an upload in front of the first operator does
// not. Spans do not nest.
void dev_span_begin(Device *dev);
void dev_span_end(Device *dev);
void dev_set_graphs(Device *dev, bool on); // on from the start; off: spans mean nothing
typedef struct {
    int64_t made;      // graphs
    int64_t launched;  // parts of spans that went to the device as a graph
    int64_t by_hand;   // and those whose operators were started one by one
    int64_t exchanged; // launches whose arguments were changed in a graph
} DeviceGraphs;
DeviceGraphs dev_graphs(const Device *dev); // so far; zeros where there are none

// Lines "name: value" that doctor prints: CPU, OpenBLAS core, oneDNN kernels, bf16 choice, GPU.
void dev_describe(Device *dev, void (*line)(void *ctx, const char *name, const char *value),
                  void *ctx);
// About what operators take beside tensors: scratch of every thread, code made at run time.
size_t dev_scratch_bytes(const Device *dev);
// Memory that tensors can have: free now, and in all. 0 = unknown.
void dev_memory(const Device *dev, size_t *free, size_t *total);
// Bytes of memory that is the device's own; 0 where tensors live in the host's.
size_t dev_own_memory(const Device *dev);
// True where bf16 GEMM beats f32 GEMM on this device (told by its kind and kernels, not timed).
bool dev_prefers_bf16(const Device *dev);

// Debian 12's OpenBLAS falls back to SSE3 kernels on CPUs it does not know, and GCC's OpenMP spins
// while it waits; both read OPENBLAS_CORETYPE and GOMP_SPINCOUNT (or OMP_WAIT_POLICY) only while
// they are loaded. Sets those that no user set and, where that changes anything, re-executes the
// program: call first thing in main. Returns when nothing is to be done, or when that fails.
void start_guard(char **argv);

#endif
