// infer/tensor/cuda/graph.cu - a CUDA graph of a list of launches: captured once, its kernels'
// arguments exchanged from then on.
#include <stdlib.h>
#include <string.h>

#include "infer/tensor/cuda/spans.cuh"

extern "C" {
#include "infer/base/log.h"
}

static void arguments(const SpanList *l, const SpanItem *i, void **arg) {
    for (int k = 0; k < i->args; k++) arg[k] = l->bytes + i->at + i->arg[k];
}

cudaError_t span_start_item(Cuda *cu, const SpanList *l, const SpanItem *i) {
    void *arg[LAUNCH_ARGS];
    cu->op = i->op;
    if (i->launch.kernel == NULL) {
        gemms_start(cu, (const CudaGemm *)(l->bytes + i->at)); // keeps its failure
        return cudaSuccess;
    }
    arguments(l, i, arg);
    return cudaLaunchKernel(i->launch.kernel, i->launch.grid, i->launch.block, arg,
                            i->launch.shared, cu->stream);
}

void graph_free(SpanGraph *g) {
    if (g == NULL) return;
    if (g->exec) cudaGraphExecDestroy(g->exec);
    if (g->graph) cudaGraphDestroy(g->graph);
    free(g->node);
    span_free_list(&g->list);
    free(g);
}

// The node that the capture has added last.
static cudaError_t last_node(cudaStream_t stream, cudaGraphNode_t *node) {
    cudaStreamCaptureStatus status;
    const cudaGraphNode_t *last = NULL;
    size_t n = 0;
#if CUDART_VERSION >= 12030
    const cudaGraphEdgeData *edge = NULL;
#endif
#if CUDART_VERSION >= 13000
    const cudaError_t e = cudaStreamGetCaptureInfo(stream, &status, NULL, NULL, &last, &edge, &n);
#elif CUDART_VERSION >= 12030
    const cudaError_t e =
        cudaStreamGetCaptureInfo_v3(stream, &status, NULL, NULL, &last, &edge, &n);
#else
    const cudaError_t e = cudaStreamGetCaptureInfo_v2(stream, &status, NULL, NULL, &last, &n);
#endif
    if (e != cudaSuccess) return e;
    if (status != cudaStreamCaptureStatusActive || n != 1) return cudaErrorStreamCaptureInvalidated;
    *node = last[0];
    return cudaSuccess;
}

static cudaError_t capture_items(Cuda *cu, const SpanList *l, cudaGraphNode_t *node) {
    for (int i = 0; i < l->n; i++) {
        cudaError_t e = span_start_item(cu, l, &l->item[i]);
        if (e == cudaSuccess && l->item[i].launch.kernel != NULL)
            e = last_node(cu->stream, &node[i]);
        if (e == cudaSuccess && cu->failure[0] != '\0') e = cudaErrorStreamCaptureInvalidated;
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

// This thread does nothing else meanwhile; what others do is none of the capture's business.
static cudaError_t capture(Cuda *cu, SpanGraph *g, const SpanList *l) {
    cudaError_t e = cudaStreamBeginCapture(cu->stream, cudaStreamCaptureModeThreadLocal);
    if (e != cudaSuccess) return e;
    e = capture_items(cu, l, g->node);
    const cudaError_t end = cudaStreamEndCapture(cu->stream, &g->graph);
    if (e == cudaSuccess) e = end;
    return e == cudaSuccess ? cudaGraphInstantiateWithFlags(&g->exec, g->graph, 0) : e;
}

// Nothing of the list has run: failures here are the graph's and not the work's.
SpanGraph *graph_of(Cuda *cu, const SpanList *l) {
    const char *op = cu->op;
    SpanGraph *g = (SpanGraph *)calloc(1, sizeof *g);
    CHECK_MEMORY(g);
    g->node = (cudaGraphNode_t *)calloc((size_t)l->n, sizeof *g->node);
    CHECK_MEMORY(g->node);
    g->moves = cu->moves;
    const cudaError_t e = capture(cu, g, l);
    cu->op = op;
    if (e == cudaSuccess) return g;
    log_warn("GPU %d: launches go one by one, a CUDA graph of them failed: %s", cu->device,
             cu->failure[0] != '\0' ? cu->failure : cudaGetErrorString(e));
    cu->failure[0] = '\0';
    cudaGetLastError(); // none of these is sticky
    graph_free(g);
    return NULL;
}

static bool same_size(dim3 a, dim3 b) {
    return a.x == b.x && a.y == b.y && a.z == b.z;
}

static bool same_bytes(const SpanList *a, const SpanItem *x, const SpanList *b, const SpanItem *y) {
    return x->size == y->size && memcmp(a->bytes + x->at, b->bytes + y->at, x->size) == 0;
}

bool graph_matches(const SpanGraph *g, const SpanList *b) {
    const SpanList *a = &g->list;
    bool same = a->structure == b->structure && a->n == b->n;
    for (int i = 0; same && i < a->n; i++) {
        const SpanItem *x = &a->item[i], *y = &b->item[i];
        same = x->launch.kernel == y->launch.kernel && x->size == y->size &&
               (x->launch.kernel != NULL || same_bytes(a, x, b, y));
    }
    return same;
}

bool graph_exchange(SpanGraph *g, const SpanList *l, int64_t *count) {
    for (int i = 0; i < l->n; i++) {
        const SpanItem *x = &g->list.item[i], *y = &l->item[i];
        if (y->launch.kernel == NULL ||
            (same_size(x->launch.grid, y->launch.grid) &&
             same_size(x->launch.block, y->launch.block) && x->launch.shared == y->launch.shared &&
             same_bytes(&g->list, x, l, y)))
            continue;
        void *arg[LAUNCH_ARGS];
        cudaKernelNodeParams p = {};
        arguments(l, y, arg);
        p.func = (void *)y->launch.kernel;
        p.gridDim = y->launch.grid;
        p.blockDim = y->launch.block;
        p.sharedMemBytes = (unsigned)y->launch.shared;
        p.kernelParams = arg;
        if (cudaGraphExecKernelNodeSetParams(g->exec, g->node[i], &p) != cudaSuccess) return false;
        ++*count;
    }
    return true;
}
