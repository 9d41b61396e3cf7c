// tests/infer/tensor/twins.h - the same operator on the CPU and on a CUDA device, compared.
//
// A Twin is one tensor in both memories. Make it from random values, call the operator on
// twin_cpu() with .cpu and on twin_gpu() with .gpu, then compare: twin_close for floats,
// twin_equal for indices, twin_repeats for the bits of a second run. On the GPU every tensor has a
// block of its own, with a guard where the device is emulated.
#ifndef TESTS_TWINS_H
#define TESTS_TWINS_H

#include <stdio.h>
#include <stdlib.h>

#include "tests/infer/tensor/op_testing.h"

typedef struct {
    Tensor cpu, gpu;
} Twin;

enum { TWINS_MOST = 4096 };
static struct {
    Device *gpu;
    bool looked;
    char why[1024];
    void *block[TWINS_MOST];
    int blocks;
    size_t mark;
} twins;

static inline Device *twin_cpu(void) {
    return device_with(1);
}

// NULL where there is no CUDA device, and why in twins.why.
static inline Device *twin_gpu(void) {
    Err err = {0};
    if (twins.looked) return twins.gpu;
    twins.looked = true;
    twins.gpu = dev_open("cuda", 1, &err);
    snprintf(twins.why, sizeof twins.why, "%s", err.text);
    return twins.gpu;
}

// The CUDA device of the tests runs on the CPU (tests/cuda_host), where failures can be had.
static inline void twin_note_gpu(void *emulated, const char *name, const char *value) {
    if (strcmp(name, "GPU") == 0) *(bool *)emulated = strstr(value, "emulated") != NULL;
}
static inline bool twin_is_emulated(void) {
    bool emulated = false;
    dev_describe(twin_gpu(), twin_note_gpu, &emulated);
    return emulated;
}

// First line of every test: twins of earlier tests are forgotten.
static inline void twins_begin(void) {
    if (twin_gpu() == NULL) {
        print_message("skipped: %s\n", twins.why);
        skip();
    }
    while (twins.blocks > 0) dev_free(twins.gpu, twins.block[--twins.blocks]);
    if (twins.mark == 0) twins.mark = arena_mark(&test_env()->arena);
    arena_reset(&test_env()->arena, twins.mark);
}

// What the device wrote, in CPU memory, packed.
static inline Tensor twin_fetched(Tensor gpu) {
    Err err = {0};
    const Tensor t = test_zeros(gpu.dtype, gpu.rows, gpu.cols);
    dev_download(twin_gpu(), t.data, gpu);
    assert_ok(dev_sync(twin_gpu(), &err), err);
    return t;
}

// A twin of a CPU view: same shape, same gaps, same misalignment (the view's columns begin `skip`
// elements behind an aligned address).
static inline Twin twin_of(Tensor cpu, int64_t skip) {
    Err err = {0};
    const int64_t span = cpu.rows > 0 ? (cpu.rows - 1) * cpu.ld + cpu.cols : 0;
    const size_t size = dtype_size(cpu.dtype);
    char *block = dev_alloc(twin_gpu(), (size_t)(span + skip) * size, &err);
    assert_ok(block != NULL, err);
    assert_true(twins.blocks < TWINS_MOST);
    twins.block[twins.blocks++] = block;
    Tensor gpu = cpu;
    gpu.data = block + (size_t)skip * size;
    const Tensor packed = same_copy(cpu);
    dev_upload(twin_gpu(), gpu, packed.data);
    return (Twin){cpu, gpu};
}

// Plain, with odd gaps and misaligned, or with gaps that vectors take.
typedef enum { TWIN_PLAIN, TWIN_ODD, TWIN_GAPS, TWIN_LAYOUTS } TwinLayout;

static inline Twin twin_laid(Tensor (*make)(DType, int64_t, int64_t), DType t, int64_t rows,
                             int64_t cols, TwinLayout layout) {
    if (layout == TWIN_PLAIN) return twin_of(make(t, rows, cols), 0);
    const int64_t skip = layout == TWIN_ODD ? 3 : 16;
    return twin_of(
        tensor_cols(make(t, rows, cols + skip + (layout == TWIN_ODD ? 2 : 0)), skip, cols), skip);
}
static inline Twin twin_random(DType t, int64_t rows, int64_t cols, TwinLayout layout) {
    return twin_laid(test_random, t, rows, cols, layout);
}
static inline Twin twin_zeros(DType t, int64_t rows, int64_t cols, TwinLayout layout) {
    return twin_laid(test_zeros, t, rows, cols, layout);
}
static inline Twin twin_ids(const int32_t *id, int64_t rows, int64_t cols) {
    const Tensor x = test_zeros(DT_I32, rows, cols);
    memcpy(x.data, id, tensor_bytes(x));
    return twin_of(x, 0);
}
static const Twin NO_TWIN = {{0}, {0}};

// Another device tensor of the same values and layout, for a second run.
static inline Tensor twin_again(Twin t) {
    const Twin again = twin_of(t.cpu, 0);
    return again.gpu;
}

static inline void twin_close(const char *what, Twin t, double atol, double rtol) {
    assert_close(what, twin_fetched(t.gpu), t.cpu, atol, rtol);
}
static inline void twin_equal(const char *what, Twin t) {
    assert_same_bits(what, twin_fetched(t.gpu), t.cpu);
}
static inline void twin_repeats(const char *what, Tensor gpu, Tensor again) {
    assert_same_bits(what, twin_fetched(again), twin_fetched(gpu));
}

// Relative tolerance: two values on either side of a tie are rounded to neighbours.
static inline double twin_rounding(DType t, double f32_tolerance) {
    return t == DT_BF16 ? 1.0 / 127 : f32_tolerance;
}

static const DType TWIN_FLOATS[] = {DT_F32, DT_BF16};

#endif
