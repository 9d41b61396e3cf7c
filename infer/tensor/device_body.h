// infer/tensor/device_body.h - what a kind of device does beside arithmetic; device.h says what the
// functions promise, device.c calls them.
#ifndef TENSOR_DEVICE_BODY_H
#define TENSOR_DEVICE_BODY_H

#include "infer/tensor/device.h"

typedef struct DeviceBody {
    void (*close)(Device *);
    void *(*alloc)(Device *, size_t bytes, Err *);
    void (*release)(Device *, void *p);
    void *(*alloc_host)(Device *, size_t bytes, Err *);
    void (*release_host)(Device *, void *p);
    void (*upload)(Device *, Tensor dst, const void *src);
    void (*download)(Device *, void *dst, Tensor src);
    // NULL where nothing runs beside the host
    void (*download_begin)(Device *, void *dst, Tensor src);
    bool (*download_end)(Device *, Err *);
    bool (*sync)(Device *, Err *);
    void (*describe)(Device *, void (*line)(void *ctx, const char *name, const char *value),
                     void *ctx);
    size_t (*scratch_bytes)(const Device *);
    void (*memory)(const Device *, size_t *free, size_t *total);
    bool (*prefers_bf16)(const Device *);
    // NULL where launches cost nothing
    void (*span_begin)(Device *);
    void (*span_end)(Device *);
    void (*set_graphs)(Device *, bool on);
    DeviceGraphs (*graphs)(const Device *);
} DeviceBody;

#endif
