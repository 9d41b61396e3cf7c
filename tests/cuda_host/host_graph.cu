// tests/cuda_host/host_graph.cu - capture and graphs of the emulated device, as strict as CUDA's.
//
// Stricter in one thing: nothing may be put on the legacy stream while another one is captured
// (CUDA lets it pass where the other does not block).
#include <stdlib.h>

#include <map>
#include <thread>
#include <vector>

#include "infer/tensor/cuda/cuda.cuh"
#include "tests/cuda_host/host_graph.cuh"

struct HostNode {
    HostWork work;
};
struct HostGraph {
    std::vector<HostNode *> node;
};
// Instantiated: a copy, whose kernels can be exchanged by the names of the graph's nodes.
struct HostExec {
    std::vector<HostWork> work;
    std::map<const HostNode *, size_t> place;
};

namespace {

struct {
    cudaStream_t stream; // NULL: none is captured
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    HostGraph *graph;
    bool is_void;
} now;

bool fails(const char *step) {
    const char *s = getenv("CUDA_HOST_NO_GRAPHS");
    return s != nullptr && strcmp(s, step) == 0;
}

} // namespace

bool host_captured(cudaStream_t s, HostWork *w, cudaError_t *e) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    if (now.stream == nullptr || (s != nullptr && s != now.stream)) return false;
    *e = cudaSuccess;
    if (s == nullptr) {
        now.is_void = true;
        *e = cudaErrorStreamCaptureImplicit;
    } else if (now.is_void)
        *e = cudaErrorStreamCaptureInvalidated;
    else
        now.graph->node.push_back(new HostNode{std::move(*w)});
    return true;
}

cudaError_t host_forbidden() {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    if (now.stream == nullptr || now.mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
    if (now.mode == cudaStreamCaptureModeThreadLocal && now.thread != std::this_thread::get_id())
        return cudaSuccess;
    now.is_void = true;
    return cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    if (s == nullptr || now.stream != nullptr) return cudaErrorStreamCaptureUnsupported;
    now = {s, mode, std::this_thread::get_id(), new HostGraph, fails("capture")};
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    *graph = nullptr;
    if (s == nullptr || now.stream != s) return cudaErrorInvalidValue;
    const bool is_void = now.is_void;
    if (is_void)
        cudaGraphDestroy(now.graph);
    else
        *graph = now.graph;
    now = {};
    return is_void ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, cudaStreamCaptureStatus *status,
                                     unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **last, const cudaGraphEdgeData **edge,
                                     size_t *n) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    static cudaGraphNode_t node;
    static const cudaGraphEdgeData plain = {};
    *status = cudaStreamCaptureStatusNone;
    if (s == nullptr || now.stream != s) return cudaSuccess;
    *status = now.is_void ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    if (now.is_void) return cudaSuccess;
    node = now.graph->node.empty() ? nullptr : now.graph->node.back();
    if (id) *id = 1;
    if (graph) *graph = now.graph;
    if (last) *last = &node;
    if (edge) *edge = &plain;
    if (n) *n = node != nullptr;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    *exec = nullptr;
    const cudaError_t e = host_forbidden();
    if (e != cudaSuccess) return e;
    if (fails("instantiate")) return cudaErrorMemoryAllocation;
    HostExec *x = new HostExec;
    for (const HostNode *n : graph->node) {
        x->place[n] = x->work.size();
        x->work.push_back(n->work);
    }
    *exec = x;
    return cudaSuccess;
}

// What was launched before keeps its arguments.
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t exec, cudaGraphNode_t node,
                                             const cudaKernelNodeParams *p) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    const auto at = exec->place.find(node);
    if (fails("exchange") || at == exec->place.end() || exec->work[at->second].kernel == nullptr)
        return cudaErrorInvalidValue;
    return host_kernel(&exec->work[at->second], p->func, p->gridDim, p->blockDim, p->sharedMemBytes,
                       p->kernelParams);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s) {
    const std::lock_guard<std::recursive_mutex> held(host_lock);
    if (now.stream != nullptr || s == nullptr) abort(); // a graph in a graph: not emulated
    if (fails("launch")) return cudaErrorMemoryAllocation;
    for (const HostWork &w : exec->work) {
        const cudaError_t e = host_start(s, w);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    for (HostNode *n : graph->node) delete n;
    delete graph;
    return cudaSuccess;
}
