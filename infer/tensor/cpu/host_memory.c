// infer/tensor/cpu/host_memory.c - memory of the CPU device: blocks, copies, what is free.
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/device_body.h"

enum { HUGE_PAGE = 2 << 20 };

// Large blocks on large pages: one fault and one entry of the TLB for 2 MiB, not for 4 KiB.
static void wish_huge_pages(char *raw, size_t bytes) {
    const size_t skip = (HUGE_PAGE - (uintptr_t)raw % HUGE_PAGE) % HUGE_PAGE;
    if (bytes < 2 * (size_t)HUGE_PAGE) return;
    (void)madvise(raw + skip, (bytes - skip) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
}

// calloc leaves fresh pages untouched until they are used; its pointer is kept in front of the
// block.
static void *host_alloc(Device *dev, size_t bytes, Err *err) {
    (void)dev;
    char *raw = bytes > SIZE_MAX - 2 * ARENA_ALIGN ? NULL : calloc(1, bytes + 2 * ARENA_ALIGN);
    if (raw == NULL) {
        err_set(err, ERR_FAILED, "out of memory: %zu bytes wanted", bytes);
        return NULL;
    }
    wish_huge_pages(raw, bytes);
    char *p = raw + ARENA_ALIGN;
    p += (ARENA_ALIGN - (uintptr_t)p % ARENA_ALIGN) % ARENA_ALIGN;
    memcpy(p - sizeof raw, &raw, sizeof raw);
    return p;
}

static void host_release(Device *dev, void *p) {
    (void)dev;
    char *raw = NULL;
    if (p) memcpy(&raw, (char *)p - sizeof raw, sizeof raw);
    free(raw);
}

static void host_upload(Device *dev, Tensor dst, const void *src) {
    (void)dev;
    const size_t row = (size_t)dst.cols * dtype_size(dst.dtype);
    for (int64_t r = 0; r < dst.rows; r++)
        memcpy((char *)dst.data + (size_t)(r * dst.ld) * dtype_size(dst.dtype),
               (const char *)src + (size_t)r * row, row);
}

static void host_download(Device *dev, void *dst, Tensor src) {
    (void)dev;
    const size_t row = (size_t)src.cols * dtype_size(src.dtype);
    for (int64_t r = 0; r < src.rows; r++)
        memcpy((char *)dst + (size_t)r * row,
               (const char *)src.data + (size_t)(r * src.ld) * dtype_size(src.dtype), row);
}

static bool host_sync(Device *dev, Err *err) {
    (void)dev;
    (void)err;
    return true;
}

static void host_memory(const Device *dev, size_t *free_bytes, size_t *total) {
    (void)dev;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *free_bytes = (size_t)sysconf(_SC_AVPHYS_PAGES) * page;
    *total = (size_t)sysconf(_SC_PHYS_PAGES) * page;
}

const DeviceBody cpu_body = {
    .close = cpu_close,
    .alloc = host_alloc,
    .release = host_release,
    .alloc_host = host_alloc,
    .release_host = host_release,
    .upload = host_upload,
    .download = host_download,
    .sync = host_sync,
    .describe = cpu_describe,
    .scratch_bytes = cpu_scratch_bytes,
    .memory = host_memory,
    .prefers_bf16 = cpu_prefers_bf16,
};
