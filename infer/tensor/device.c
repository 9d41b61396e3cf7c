// infer/tensor/device.c - opening a device and moving bytes; the only file that knows if CUDA is
// built in.
#include "infer/tensor/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/cores.h"
#include "infer/base/world.h"
#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/device_body.h"

#ifdef WITH_CUDA
#include "infer/tensor/cuda/cuda.h"
#else
static int cuda_count(char *why, size_t size) {
    snprintf(why, size, "this program was built without CUDA (make CUDA=1)");
    return 0;
}
static bool cuda_open(Device *dev, int n, Err *err) {
    (void)dev;
    return err_set(err, ERR_USAGE, "device cuda:%d: not built in", n);
}
static bool cuda_is_emulated(void) {
    return true;
}
#endif

// Launchers that give each rank a GPU of its own (srun --gpus-per-task) show it that one only.
static long gpu_of_rank(int count) {
    return count == 1 && getenv("CUDA_VISIBLE_DEVICES") != NULL ? 0 : world_local();
}

static bool open_cuda(Device *dev, const char *spec, int threads, Err *err) {
    char why[256], *end;
    long n = spec[4] == ':' ? strtol(spec + 5, &end, 10) : 0;
    if (spec[4] == ':' && (end == spec + 5 || *end != '\0' || n < 0))
        return err_set(err, ERR_USAGE, "device %s: expected auto, cpu, cuda or cuda:N", spec);
    const int count = cuda_count(why, sizeof why);
    if (count == 0) return err_set(err, ERR_USAGE, "device %s: %s", spec, why);
    if (spec[4] == '\0') n = gpu_of_rank(count);
    if (n >= count && spec[4] == '\0')
        return err_set(err, ERR_USAGE, "device %s: rank %d of this machine, which has %d GPUs",
                       spec, world_local(), count);
    if (n >= count)
        return err_set(err, ERR_USAGE, "device %s: there are %d GPUs, the first is cuda:0", spec,
                       count);
    const int all = cpu_thread_count(threads, err);
    if (all == 0) return false;
    *dev = (Device){.kind = "cuda", .threads = all};
    return cuda_open(dev, (int)n, err);
}

static bool open_kind(Device *dev, const char *spec, int threads, Err *err) {
    char why[256];
    if (strncmp(spec, "cuda", 4) == 0 && (spec[4] == '\0' || spec[4] == ':'))
        return open_cuda(dev, spec, threads, err);
    if (strcmp(spec, "auto") != 0 && strcmp(spec, "cpu") != 0)
        return err_set(err, ERR_USAGE, "device %s: expected auto, cpu, cuda or cuda:N", spec);
    if (strcmp(spec, "auto") == 0 && !cuda_is_emulated() && cuda_count(why, sizeof why) > 0)
        return open_cuda(dev, "cuda", threads, err);
    return cpu_open(dev, threads, err);
}

Device *dev_open(const char *spec, int threads, Err *err) {
    Device *dev = calloc(1, sizeof *dev);
    if (dev == NULL) {
        err_set(err, ERR_FAILED, "no memory for a device");
        return NULL;
    }
    if (!open_kind(dev, spec, threads, err)) {
        free(dev);
        return NULL;
    }
    cores_use(dev->threads);
    return dev;
}

void dev_close(Device *dev) {
    if (dev == NULL) return;
    dev->body->close(dev);
    free(dev);
}

void *dev_alloc(Device *dev, size_t bytes, Err *err) {
    return dev->body->alloc(dev, bytes, err);
}

void dev_free(Device *dev, void *p) {
    dev->body->release(dev, p);
}

void *dev_alloc_host(Device *dev, size_t bytes, Err *err) {
    return dev->body->alloc_host(dev, bytes, err);
}

void dev_free_host(Device *dev, void *p) {
    dev->body->release_host(dev, p);
}

void dev_upload(Device *dev, Tensor dst, const void *src) {
    dev->body->upload(dev, dst, src);
}

void dev_download(Device *dev, void *dst, Tensor src) {
    dev->body->download(dev, dst, src);
}

void dev_download_begin(Device *dev, void *dst, Tensor src) {
    if (dev->body->download_begin != NULL)
        dev->body->download_begin(dev, dst, src);
    else
        dev->body->download(dev, dst, src);
}

bool dev_download_end(Device *dev, Err *err) {
    return dev->body->download_end != NULL ? dev->body->download_end(dev, err) : dev_sync(dev, err);
}

bool dev_sync(Device *dev, Err *err) {
    return dev->body->sync(dev, err);
}

void dev_describe(Device *dev, void (*line)(void *ctx, const char *name, const char *value),
                  void *ctx) {
    dev->body->describe(dev, line, ctx);
}

size_t dev_scratch_bytes(const Device *dev) {
    return dev->body->scratch_bytes(dev);
}

void dev_memory(const Device *dev, size_t *free, size_t *total) {
    dev->body->memory(dev, free, total);
}

size_t dev_own_memory(const Device *dev) {
    size_t free_now = 0, total = 0;
    if (strcmp(dev->kind, "cpu") != 0) dev_memory(dev, &free_now, &total);
    return total;
}

bool dev_prefers_bf16(const Device *dev) {
    return dev->body->prefers_bf16(dev);
}

void dev_span_begin(Device *dev) {
    if (dev->body->span_begin != NULL) dev->body->span_begin(dev);
}

void dev_span_end(Device *dev) {
    if (dev->body->span_end != NULL) dev->body->span_end(dev);
}

void dev_set_graphs(Device *dev, bool on) {
    if (dev->body->set_graphs != NULL) dev->body->set_graphs(dev, on);
}

DeviceGraphs dev_graphs(const Device *dev) {
    return dev->body->graphs != NULL ? dev->body->graphs(dev) : (DeviceGraphs){0};
}
