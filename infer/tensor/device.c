// infer/tensor/device.c - opening a device and moving bytes; the only file that knows if CUDA is
// built in.
#include "infer/tensor/device.h"

#include <stdlib.h>
#include <string.h>

#include "infer/tensor/cpu/cpu.h"

Device *dev_open(const char *spec, int threads, Err *err) {
    if (strncmp(spec, "cuda", 4) == 0 && (spec[4] == '\0' || spec[4] == ':')) {
        err_set(err, ERR_USAGE, "device %s: this program was built without CUDA (make CUDA=1)",
                spec);
        return NULL;
    }
    if (strcmp(spec, "auto") != 0 && strcmp(spec, "cpu") != 0) {
        err_set(err, ERR_USAGE, "device %s: expected auto, cpu, cuda or cuda:N", spec);
        return NULL;
    }
    Device *dev = calloc(1, sizeof *dev);
    if (dev == NULL) {
        err_set(err, ERR_FAILED, "no memory for a device");
        return NULL;
    }
    if (!cpu_open(dev, threads, err)) {
        free(dev);
        return NULL;
    }
    return dev;
}

void dev_close(Device *dev) {
    if (dev == NULL) return;
    cpu_close(dev);
    free(dev);
}

// calloc leaves fresh pages untouched until they are used; its pointer is kept in front of the
// block.
void *dev_alloc(Device *dev, size_t bytes, Err *err) {
    (void)dev;
    char *raw = bytes > SIZE_MAX - 2 * ARENA_ALIGN ? NULL : calloc(1, bytes + 2 * ARENA_ALIGN);
    if (raw == NULL) {
        err_set(err, ERR_FAILED, "out of memory: %zu bytes wanted", bytes);
        return NULL;
    }
    char *p = raw + ARENA_ALIGN;
    p += (ARENA_ALIGN - (uintptr_t)p % ARENA_ALIGN) % ARENA_ALIGN;
    memcpy(p - sizeof raw, &raw, sizeof raw);
    return p;
}

void dev_free(Device *dev, void *p) {
    (void)dev;
    char *raw = NULL;
    if (p) memcpy(&raw, (char *)p - sizeof raw, sizeof raw);
    free(raw);
}

void dev_upload(Device *dev, Tensor dst, const void *src) {
    (void)dev;
    const size_t row = (size_t)dst.cols * dtype_size(dst.dtype);
    for (int64_t r = 0; r < dst.rows; r++)
        memcpy((char *)dst.data + (size_t)(r * dst.ld) * dtype_size(dst.dtype),
               (const char *)src + (size_t)r * row, row);
}

void dev_download(Device *dev, void *dst, Tensor src) {
    (void)dev;
    const size_t row = (size_t)src.cols * dtype_size(src.dtype);
    for (int64_t r = 0; r < src.rows; r++)
        memcpy((char *)dst + (size_t)r * row,
               (const char *)src.data + (size_t)(r * src.ld) * dtype_size(src.dtype), row);
}

bool dev_sync(Device *dev, Err *err) {
    (void)dev;
    (void)err;
    return true;
}

void dev_describe(Device *dev, void (*line)(void *ctx, const char *name, const char *value),
                  void *ctx) {
    cpu_describe(dev, line, ctx);
}

size_t dev_scratch_bytes(const Device *dev) {
    return cpu_scratch_bytes(dev);
}

bool dev_prefers_bf16(const Device *dev) {
    return cpu_prefers_bf16(dev);
}
