// infer/tensor/cuda/cuda.cu - the CUDA device: opening, memory, failures, what it says of itself.
#include "infer/tensor/cuda/cuda.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/tensor/cuda/cuda_parts.cuh"

static const Ops cuda_ops = {
    .zero = cuda_zero,
    .copy = cuda_copy,
    .matmul_nt = cuda_matmul_nt,
    .matmul_nn = cuda_matmul_nn,
    .matmul_tn = cuda_matmul_tn,
    .gather = cuda_gather,
    .gather_back = cuda_gather_back,
    .norm = cuda_norm,
    .norm_back = cuda_norm_back,
    .head_norm = cuda_head_norm,
    .head_norm_back = cuda_head_norm_back,
    .rope_table = cuda_rope_table,
    .attention = cuda_attention,
    .attention_back = cuda_attention_back,
    .geglu = cuda_geglu,
    .geglu_back = cuda_geglu_back,
    .gated = cuda_gated,
    .gated_room = cuda_gated_room,
    .route = cuda_route,
    .experts = cuda_experts,
    .axpby = cuda_axpby,
    .softcap = cuda_softcap,
    .top2 = cuda_top2,
    .topk = cuda_topk,
    .lse_tile = cuda_lse_tile,
    .prob_tile = cuda_prob_tile,
    .loss_tile = cuda_loss_tile,
    .head_tile = cuda_head_tile,
    .cluster_mass = cuda_cluster_mass,
    .cluster_ce = cuda_cluster_ce,
    .cluster_logits = cuda_cluster_logits,
    .adamw = cuda_adamw,
    .sumsq = cuda_sumsq,
};

// --- failures: the first is kept, with the operator at hand when it showed

void cuda_failed(Cuda *cu, const char *text) {
    if (cu->failure[0] == '\0')
        snprintf(cu->failure, sizeof cu->failure, "GPU %d: operator %s: %.180s", cu->device, cu->op,
                 text);
}

bool cuda_ok(Cuda *cu, cudaError_t e) {
    if (e != cudaSuccess) cuda_failed(cu, cudaGetErrorString(e));
    return e == cudaSuccess;
}

static void check_alarm(Cuda *cu) {
    static const char *const text[ALARM_COUNT] = {
        "nothing",
        "gather: an id beyond its table",
        "experts: an expert that is not there",
        "cluster: a cluster that is not there",
        "cluster_logits: a token beyond its table",
        "a loss over a teacher row that is not there",
    };
    const int32_t a = *(volatile int32_t *)cu->alarm;
    if (a == ALARM_NONE || cu->failure[0] != '\0') return;
    snprintf(cu->failure, sizeof cu->failure, "GPU %d: %s", cu->device,
             a > 0 && a < ALARM_COUNT ? text[a] : "an unknown alarm");
}

static bool wait_for(Cuda *cu, cudaStream_t stream, Err *err) {
    if (cu->failure[0] == '\0') {
        cuda_ok(cu, cudaStreamSynchronize(stream));
        check_alarm(cu);
    }
    return cu->failure[0] == '\0' || err_set(err, ERR_FAILED, "%s", cu->failure);
}

static bool cuda_sync(Device *dev, Err *err) {
    span_let_go(cuda_of(dev));
    return wait_for(cuda_of(dev), cuda_of(dev)->stream, err);
}

static bool cuda_download_end(Device *dev, Err *err) {
    return wait_for(cuda_of(dev), cuda_of(dev)->copies, err);
}

// --- memory

static void *out_of_memory(const Cuda *cu, size_t bytes, cudaError_t e, Err *err) {
    size_t left = 0, total = 0;
    cudaGetLastError(); // this one is not sticky
    cudaMemGetInfo(&left, &total);
    err_set(err, ERR_FAILED, "GPU %d: %s: %zu bytes wanted, %zu of %zu free", cu->device,
            cudaGetErrorString(e), bytes, left, total);
    return NULL;
}

static void *cuda_alloc(Device *dev, size_t bytes, Err *err) {
    Cuda *cu = cuda_begin(dev, "alloc");
    void *p = NULL;
    const size_t room = bytes > 0 ? bytes : 1;
    cudaError_t e = cudaSetDevice(cu->device);
    if (e == cudaSuccess) e = cudaMalloc(&p, room);
    if (e != cudaSuccess) return out_of_memory(cu, bytes, e, err);
    cuda_ok(cu, cudaMemsetAsync(p, 0, room, cu->stream));
    return p;
}

static void cuda_release(Device *dev, void *p) {
    Cuda *cu = cuda_begin(dev, "free");
    span_let_go(cu);
    if (p != NULL) cuda_ok(cu, cudaFree(p));
}

static void *cuda_alloc_host(Device *dev, size_t bytes, Err *err) {
    Cuda *cu = cuda_begin(dev, "alloc_host");
    void *p = NULL;
    cudaError_t e = cudaSetDevice(cu->device);
    if (e == cudaSuccess) e = cudaHostAlloc(&p, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
    if (e == cudaSuccess) return p;
    cudaGetLastError();
    err_set(err, ERR_FAILED, "GPU %d: %s: %zu bytes of pinned memory wanted", cu->device,
            cudaGetErrorString(e), bytes);
    return NULL;
}

static void cuda_release_host(Device *dev, void *p) {
    Cuda *cu = cuda_begin(dev, "free_host");
    span_let_go(cu);
    cuda_ok(cu, cudaStreamSynchronize(cu->copies));
    if (p != NULL) cuda_ok(cu, cudaFreeHost(p));
}

void *cuda_scratch(Cuda *cu, ScratchId id, size_t bytes) {
    if (cu->failure[0] != '\0') return NULL;
    if (bytes <= cu->scratch[id].size && cu->scratch[id].data != NULL) return cu->scratch[id].data;
    const size_t unit = (size_t)1 << 20, size = (bytes + bytes / 4 + unit) / unit * unit;
    // kernels held or under way may still use the old block: cudaFree waits for those under way
    span_let_go(cu);
    cu->moves++;
    if (!cuda_ok(cu, cudaFree(cu->scratch[id].data))) return NULL;
    cu->scratch_bytes -= cu->scratch[id].size;
    cu->scratch[id].data = NULL;
    cu->scratch[id].size = 0;
    if (!cuda_ok(cu, cudaMalloc(&cu->scratch[id].data, size))) return NULL;
    cu->scratch[id].size = size;
    cu->scratch_bytes += size;
    return cu->scratch[id].data;
}

// What a kernel may take of shared memory is set once.
static bool may_take(Cuda *cu, const Launch *l) {
    if (l->shared <= ((size_t)48 << 10)) return true;
    int i = 0;
    while (i < cu->roomies && cu->roomy[i].kernel != l->kernel) i++;
    if (i < cu->roomies && cu->roomy[i].shared >= l->shared) return true;
    if (!cuda_ok(cu, cudaFuncSetAttribute(l->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          (int)l->shared)))
        return false;
    if (i < ROOMY_MOST) cu->roomy[i] = {l->kernel, l->shared};
    if (i == cu->roomies && i < ROOMY_MOST) cu->roomies++;
    return true;
}

void cuda_start(Cuda *cu, const Launch *l, void **arg, const size_t *size, int n) {
    if (!may_take(cu, l) || span_hold_launch(cu, l, arg, size, n)) return;
    cuda_ok(cu, cudaLaunchKernel(l->kernel, l->grid, l->block, arg, l->shared, cu->stream));
}

static void cuda_memory(const Device *dev, size_t *left, size_t *total) {
    *left = *total = 0;
    if (cudaSetDevice(cuda_of(dev)->device) == cudaSuccess) cudaMemGetInfo(left, total);
}

// Partial sums, rows by expert, logits: what stages were seen to need beside a product's workspace
// is under this until more was needed.
static size_t cuda_scratch_bytes(const Device *dev) {
    const size_t usual = (size_t)256 << 20, now = cuda_of(dev)->scratch_bytes;
    return now > usual ? now : usual;
}

static bool cuda_prefers_bf16(const Device *dev) {
    (void)dev;
    return true;
}

// --- opening and closing

static void cuda_describe(Device *dev, void (*line)(void *ctx, const char *name, const char *value),
                          void *ctx) {
    const Cuda *cu = cuda_of(dev);
    cudaDeviceProp p;
    char text[512];
    int driver = 0, runtime = 0;
    size_t left = 0, total = 0;
    if (cudaGetDeviceProperties(&p, cu->device) != cudaSuccess) return;
    snprintf(text, sizeof text, "%d: %s, sm_%d%d, %d multiprocessors", cu->device, p.name, p.major,
             p.minor, p.multiProcessorCount);
    line(ctx, "GPU", text);
    cuda_memory(dev, &left, &total);
    snprintf(text, sizeof text, "%.1f GiB, %.1f GiB free", (double)total / (1 << 30),
             (double)left / (1 << 30));
    line(ctx, "GPU memory", text);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    snprintf(text, sizeof text, "driver takes %d.%d, built with %d.%d", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    line(ctx, "CUDA", text);
    gemms_describe(cu->gemms, text, sizeof text);
    line(ctx, "products", text);
    snprintf(text, sizeof text, "%d", dev->threads);
    line(ctx, "host threads", text);
}

static void cuda_close(Device *dev) {
    Cuda *cu = cuda_of(dev);
    if (cu == NULL) return;
    cudaSetDevice(cu->device);
    if (cu->stream_open) cudaStreamSynchronize(cu->stream);
    if (cu->copies_open) cudaStreamDestroy(cu->copies);
    if (cu->asked_open) cudaEventDestroy(cu->asked);
    spans_close(cu->spans);
    gemms_close(cu->gemms);
    staging_close(cu->up);
    staging_close(cu->down);
    for (int i = 0; i < SCRATCH_COUNT; i++) cudaFree(cu->scratch[i].data);
    if (cu->alarm != NULL) cudaFreeHost(cu->alarm);
    if (cu->stream_open) cudaStreamDestroy(cu->stream);
    free(cu);
    dev->impl = NULL;
}

static const DeviceBody cuda_body = {
    .close = cuda_close,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .alloc_host = cuda_alloc_host,
    .release_host = cuda_release_host,
    .upload = cuda_upload,
    .download = cuda_download,
    .download_begin = cuda_download_begin,
    .download_end = cuda_download_end,
    .sync = cuda_sync,
    .describe = cuda_describe,
    .scratch_bytes = cuda_scratch_bytes,
    .memory = cuda_memory,
    .prefers_bf16 = cuda_prefers_bf16,
    .span_begin = cuda_span_begin,
    .span_end = cuda_span_end,
    .set_graphs = cuda_set_graphs,
    .graphs = cuda_graphs,
};

int cuda_count(char *why, size_t size) {
    int n = 0, driver = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        snprintf(why, size, "no NVIDIA driver is loaded here");
        return 0;
    }
    const cudaError_t e = cudaGetDeviceCount(&n);
    cudaGetLastError();
    if (e != cudaSuccess) snprintf(why, size, "no GPU can be used here: %s", cudaGetErrorString(e));
    if (e == cudaSuccess && n == 0) snprintf(why, size, "there is no GPU here");
    return e == cudaSuccess ? n : 0;
}

bool cuda_is_emulated(void) {
#ifdef __CUDACC__
    return false;
#else
    return true;
#endif
}

static bool open_parts(Cuda *cu) {
    cudaDeviceProp p;
    if (!cuda_ok(cu, cudaSetDevice(cu->device)) ||
        !cuda_ok(cu, cudaGetDeviceProperties(&p, cu->device)))
        return false;
    if (p.major < 8) {
        char text[320];
        snprintf(text, sizeof text, "%s is sm_%d%d, sm_80 is the oldest that works", p.name,
                 p.major, p.minor);
        cuda_failed(cu, text);
        return false;
    }
    cu->sms = p.multiProcessorCount;
    cu->shared_max = p.sharedMemPerBlockOptin;
    cu->stream_open = cuda_ok(cu, cudaStreamCreateWithFlags(&cu->stream, cudaStreamNonBlocking));
    cu->copies_open = cu->stream_open &&
                      cuda_ok(cu, cudaStreamCreateWithFlags(&cu->copies, cudaStreamNonBlocking));
    cu->asked_open = cu->copies_open &&
                     cuda_ok(cu, cudaEventCreateWithFlags(&cu->asked, cudaEventDisableTiming));
    if (!cu->asked_open ||
        !cuda_ok(cu, cudaHostAlloc((void **)&cu->alarm, sizeof *cu->alarm, cudaHostAllocDefault)))
        return false;
    *cu->alarm = ALARM_NONE;
    cu->spans = spans_open(cu);
    cu->up = cu->spans ? staging_open(cu) : NULL;
    cu->down = cu->up ? staging_open(cu) : NULL;
    cu->gemms = cu->down ? gemms_open(cu) : NULL;
    return cu->gemms != NULL;
}

bool cuda_open(Device *dev, int n, Err *err) {
    Cuda *cu = (Cuda *)calloc(1, sizeof *cu);
    if (cu == NULL) return err_set(err, ERR_FAILED, "no memory for a CUDA device");
    const char *blocking = getenv("CUDA_LAUNCH_BLOCKING");
    cu->device = n;
    cu->op = "open";
    cu->blocking = blocking != NULL && strcmp(blocking, "1") == 0;
    dev->ops = &cuda_ops;
    dev->body = &cuda_body;
    dev->impl = cu;
    if (open_parts(cu)) return true;
    err_set(err, ERR_FAILED, "device cuda:%d: %s", n,
            cu->failure[0] != '\0' ? cu->failure : "no memory");
    cuda_close(dev);
    return false;
}
