// infer/tensor/cuda/spans.cu - launches that come again and again go to the device as one CUDA
// graph.
//
// A launch costs the host some microseconds, and so does an assistant's kernel the device: decoding
// one sequence waits for launches. Inside of a span (device.h) launches and products are held:
// their arguments are copied into a list. At the end the list is compared with that of the graph
// that was made from a span of the same structure: the same kernels and the same products, on the
// same operands, in the same order. Kernels whose arguments or grids differ (a position further on,
// one more key) are exchanged in the executable graph, and one call starts it all. That costs a
// copy and a comparison of bytes for each launch, and a call for those few that differ. Capturing
// every step anew for cudaGraphExecUpdate would cost a launch into the capture for each and a
// comparison by the driver of them all; arguments in device memory would cost every kernel a load,
// and every grid its largest size.
//
// What could go wrong, and why it does not:
// * A value of an earlier step in a kernel's arguments: all arguments of all launches are compared,
//   every time. Who calls decides nothing but where a span begins and ends.
// * Something between the operators that is no launch (transfers, waits, memory that comes or goes,
//   scratch that grows): span_let_go starts what is held, in order, and the rest of the span goes
//   the ordinary way. So nothing but kernels and products is ever captured: no copy from pinned
//   memory whose bytes are others by the time of a replay, no call that a capture forbids.
// * Pointers inside of a product's kernels, which cannot be exchanged: its operands belong to the
//   structure. Its workspace is scratch: a graph is of no use once any scratch block has moved.
// * What a library does at its first product of a shape (choose a kernel, load it): a structure has
//   gone the ordinary way SURE times before it is captured.
// * A capture, an exchange or a launch of a graph that fails: nothing has run yet and the list is
//   still there. It is started launch by launch; without capture, graphs are off from then on.
// * Alarms and failures of kernels show at the next dev_sync, as without graphs.
#include <stdlib.h>
#include <string.h>

#include "infer/tensor/cuda/spans.cuh"

enum {
    PART = 96, // launches of a graph: the device is at the first part while the host holds the next
    SURE = 2,  // times that a structure goes launch by launch before it becomes a graph
    KNOWN = 512,  // structures that are remembered
    GRAPHS = 160, // graphs that are kept
    IDLE = 4096,  // parts of spans behind which a graph that was not used makes room
    ARG_ALIGN = 16
};

typedef struct {
    uint64_t structure;
    int64_t seen, last; // times; when last, in parts of spans
    SpanGraph *graph;   // NULL: not yet
} Structure;

struct Spans {
    bool on, open, holding;
    SpanList held;
    Structure known[KNOWN];
    int structures, graphs;
    int part;    // of the span under way
    int64_t now; // parts of spans so far
    DeviceGraphs count;
};

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static void clear(SpanList *l) {
    l->n = 0;
    l->used = 0;
    l->structure = 0;
}

void span_free_list(SpanList *l) {
    free(l->item);
    free(l->bytes);
    *l = SpanList{};
}

// A new last item with room for `size` bytes of arguments, all zero.
static SpanItem *add_item(Cuda *cu, SpanList *l, const Launch *launch, size_t size) {
    if (l->n == l->room) {
        l->room = l->room > 0 ? 2 * l->room : PART;
        l->item = (SpanItem *)realloc(l->item, (size_t)l->room * sizeof *l->item);
        CHECK_MEMORY(l->item);
    }
    if (l->used + size > l->size) {
        l->size = 2 * (l->size + size);
        l->bytes = (char *)realloc(l->bytes, l->size);
        CHECK_MEMORY(l->bytes);
    }
    SpanItem *i = &l->item[l->n++];
    *i = SpanItem{};
    i->launch = *launch;
    i->op = cu->op;
    i->at = l->used;
    i->size = size;
    memset(l->bytes + l->used, 0, size);
    l->used += size;
    return i;
}

static void start_by_hand(Cuda *cu, SpanList *l) {
    if (l->n > 0) cu->spans->count.by_hand++;
    for (int i = 0; i < l->n && cu->failure[0] == '\0'; i++)
        cuda_ok(cu, span_start_item(cu, l, &l->item[i]));
    clear(l);
}

static void forget(Cuda *cu, Structure *s) {
    if (s->graph == NULL) return;
    cudaStreamSynchronize(cu->stream); // it may be under way; a failure shows at the next sync
    graph_free(s->graph);
    s->graph = NULL;
    cu->spans->graphs--;
}

static void forget_all(Cuda *cu) {
    for (int i = 0; i < cu->spans->structures; i++) forget(cu, &cu->spans->known[i]);
}

static Structure *least_used(Spans *s, bool with_graph) {
    Structure *least = NULL;
    for (int i = 0; i < s->structures; i++)
        if ((!with_graph || s->known[i].graph != NULL) &&
            (least == NULL || s->known[i].last < least->last))
            least = &s->known[i];
    return least;
}

static Structure *structure_of(Cuda *cu, uint64_t structure) {
    Spans *s = cu->spans;
    for (int i = 0; i < s->structures; i++)
        if (s->known[i].structure == structure) return &s->known[i];
    Structure *k = s->structures < KNOWN ? &s->known[s->structures++] : least_used(s, false);
    forget(cu, k);
    *k = Structure{structure, 0, 0, NULL};
    return k;
}

// A graph in use is not given up for another: whoever needs more of them goes launch by launch.
static bool has_room(Cuda *cu) {
    Spans *s = cu->spans;
    if (s->graphs < GRAPHS) return true;
    Structure *k = least_used(s, true);
    if (s->now - k->last < IDLE) return false;
    forget(cu, k);
    return true;
}

// The graph for what is held, with its arguments; NULL: none yet, or none any more.
static SpanGraph *graph_for(Cuda *cu) {
    Spans *s = cu->spans;
    Structure *k = structure_of(cu, s->held.structure);
    k->last = ++s->now;
    if (k->graph != NULL && (k->graph->moves != cu->moves || !graph_matches(k->graph, &s->held)))
        forget(cu, k);
    if (k->graph != NULL) {
        if (graph_exchange(k->graph, &s->held, &s->count.exchanged)) return k->graph;
        cudaGetLastError();
        forget(cu, k);
        return NULL;
    }
    if (k->seen++ < SURE || !has_room(cu)) return NULL;
    if ((k->graph = graph_of(cu, &s->held)) == NULL) {
        s->on = s->holding = false;
        return NULL;
    }
    s->graphs++;
    s->count.made++;
    return k->graph;
}

// What is held becomes work of the device.
static void hand_over(Cuda *cu) {
    Spans *s = cu->spans;
    if (cu->failure[0] != '\0') clear(&s->held);
    if (s->held.n == 0) return;
    SpanGraph *g = graph_for(cu);
    if (g == NULL || cudaGraphLaunch(g->exec, cu->stream) != cudaSuccess) {
        cudaGetLastError(); // what is sticky shows again
        start_by_hand(cu, &s->held);
        return;
    }
    s->count.launched++;
    const SpanList of_graph = g->list;
    g->list = s->held;
    s->held = of_graph;
    clear(&s->held);
}

// --- spans

// Its number belongs to the structure: layers are alike, and each part keeps its own weights.
static void next_part(Cuda *cu) {
    Spans *s = cu->spans;
    hand_over(cu);
    s->held.structure = (uint64_t)++s->part;
}

bool span_hold_launch(Cuda *cu, const Launch *l, void **arg, const size_t *size, int n) {
    Spans *s = cu->spans;
    if (!s->holding) return false;
    size_t at[LAUNCH_ARGS + 1] = {0};
    CHECK(n <= LAUNCH_ARGS);
    for (int i = 0; i < n; i++)
        at[i + 1] = (at[i] + size[i] + ARG_ALIGN - 1) / ARG_ALIGN * ARG_ALIGN;
    SpanItem *item = add_item(cu, &s->held, l, at[n]);
    item->args = n;
    for (int i = 0; i < n; i++) {
        item->arg[i] = (uint32_t)at[i];
        memcpy(s->held.bytes + item->at + at[i], arg[i], size[i]);
    }
    s->held.structure = mix(mix(s->held.structure, (uint64_t)(uintptr_t)l->kernel), at[n]);
    if (s->held.n == PART) next_part(cu);
    return true;
}

static uint64_t mix_tensor(uint64_t h, const Tensor &t) {
    h = mix(mix(h, (uint64_t)(uintptr_t)t.data), (uint64_t)t.dtype);
    return mix(mix(mix(h, (uint64_t)t.rows), (uint64_t)t.cols), (uint64_t)t.ld);
}

// Into zeros: field by field, so that the gap stays zero.
static void put_tensor(Tensor *to, const Tensor &t) {
    to->data = t.data;
    to->dtype = t.dtype;
    to->rows = t.rows, to->cols = t.cols, to->ld = t.ld;
}

bool span_hold_product(Cuda *cu, const CudaGemm *g) {
    Spans *s = cu->spans;
    const Launch product = {NULL, dim3(), dim3(), 0};
    if (!s->holding) return false;
    const size_t size = (sizeof *g + ARG_ALIGN - 1) / ARG_ALIGN * ARG_ALIGN;
    SpanItem *item = add_item(cu, &s->held, &product, size);
    CudaGemm *to = (CudaGemm *)(s->held.bytes + item->at);
    put_tensor(&to->c, g->c);
    put_tensor(&to->a, g->a);
    put_tensor(&to->b, g->b);
    to->ta = g->ta, to->tb = g->tb, to->beta = g->beta;
    uint64_t h = mix_tensor(mix_tensor(mix_tensor(s->held.structure, g->c), g->a), g->b);
    s->held.structure = mix(h, (uint64_t)(g->ta + 2 * g->tb + 4 * (g->beta != 0.0f)));
    if (s->held.n == PART) next_part(cu);
    return true;
}

void span_let_go(Cuda *cu) {
    Spans *s = cu->spans;
    if (s == NULL || !s->holding || s->held.n == 0) return;
    s->holding = false;
    start_by_hand(cu, &s->held);
}

void cuda_span_begin(Device *dev) {
    Cuda *cu = cuda_of(dev);
    Spans *s = cu->spans;
    CHECK(!s->open, "(spans do not nest)");
    s->open = true;
    s->part = 0;
    clear(&s->held);
    // whoever sets CUDA_LAUNCH_BLOCKING looks for the launch that fails
    s->holding = s->on && !cu->blocking && cu->failure[0] == '\0';
}

void cuda_span_end(Device *dev) {
    Cuda *cu = cuda_of(dev);
    Spans *s = cu->spans;
    CHECK(s->open);
    if (s->holding) hand_over(cu);
    s->open = s->holding = false;
}

void cuda_set_graphs(Device *dev, bool on) {
    Cuda *cu = cuda_of(dev);
    CHECK(!cu->spans->open);
    cu->spans->on = on;
    if (!on) forget_all(cu);
}

DeviceGraphs cuda_graphs(const Device *dev) {
    return cuda_of(dev)->spans->count;
}

Spans *spans_open(Cuda *cu) {
    Spans *s = (Spans *)calloc(1, sizeof *s);
    if (s == NULL) cuda_failed(cu, "no memory on the host");
    if (s != NULL) s->on = true;
    return s;
}

void spans_close(Spans *s) {
    if (s == NULL) return;
    for (int i = 0; i < s->structures; i++) graph_free(s->known[i].graph);
    span_free_list(&s->held);
    free(s);
}
