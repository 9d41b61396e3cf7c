// infer/tensor/cuda/spans.cuh - a list of launches, and the graph that is made of one. Private to
// spans.cu, which says what for, and graph.cu.
#ifndef CUDA_SPANS_CUH
#define CUDA_SPANS_CUH

#include "infer/tensor/cuda/cuda_parts.cuh"

typedef struct {
    Launch launch; // kernel NULL: a product, a CudaGemm in the list's bytes
    const char *op;
    size_t at, size; // in the list's bytes: arguments one behind the other
    int args;
    uint32_t arg[LAUNCH_ARGS]; // from `at` on
} SpanItem;

typedef struct {
    SpanItem *item;
    int n, room;
    char *bytes;
    size_t used, size;
    uint64_t structure; // hash of what a graph cannot exchange
} SpanList;

typedef struct {
    SpanList list;     // as it is in exec
    cudaGraph_t graph; // its nodes name those of exec
    cudaGraphExec_t exec;
    cudaGraphNode_t *node; // (n), NULL for products
    int64_t moves;         // of scratch, when it was captured
} SpanGraph;

cudaError_t span_start_item(Cuda *cu, const SpanList *l, const SpanItem *i); // now
void span_free_list(SpanList *l);

// One that starts the list; copies none of it. NULL: it could not be made, and nothing has run.
SpanGraph *graph_of(Cuda *cu, const SpanList *l);
void graph_free(SpanGraph *g); // the device is done with it
// The kernels and the products, their operands included, are the same in the same order.
bool graph_matches(const SpanGraph *g, const SpanList *l);
// The arguments of the list, which matches, go into the graph; *count: launches that differed.
// false: what the graph would start is undefined now.
bool graph_exchange(SpanGraph *g, const SpanList *l, int64_t *count);

#endif
