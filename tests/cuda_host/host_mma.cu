// tests/cuda_host/host_mma.cu - what the lanes of a warp do together on tensor cores.
#include <stdio.h>
#include <stdlib.h>

#include "infer/tensor/cuda/cuda.cuh"
#include "tests/cuda_host/fibers.cuh"
#include "tests/cuda_host/races.cuh"

void host_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct {
        uint32_t a[4], b[2];
    } mine;
    memcpy(mine.a, a, sizeof mine.a);
    memcpy(mine.b, b, sizeof mine.b);
    const HostTable *table = host_exchange(ALL_LANES, &mine, sizeof mine);
    const unsigned g = host_lane() / 4, t = host_lane() % 4;
    for (int half = 0; half < 2; half++) // k 0..7 and 8..15
        for (unsigned pair = 0; pair < 4; pair++) {
            const auto row = host_take<decltype(mine)>(table, g * 4 + pair);
            for (unsigned side = 0; side < 2; side++) {
                const auto col = host_take<decltype(mine)>(table, (2 * t + side) * 4 + pair);
                const uint32_t bb = col.b[half];
                for (int low = 0; low < 2; low++) {
                    const uint32_t aa = row.a[2 * half + low];
                    float *sum = &d[2 * low + (int)side];
                    *sum += bf16_low(aa) * bf16_low(bb);
                    *sum += bf16_high(aa) * bf16_high(bb);
                }
            }
        }
}

void host_ldmatrix(uint32_t (&r)[4], const void *row, bool turned) {
    if ((uintptr_t)row % 16 != 0 || (const unsigned char *)row < host_shared_memory() ||
        (const unsigned char *)row >= host_shared_memory() + HOST_SHARED_MAX) {
        fprintf(stderr, "ldmatrix takes aligned rows of dynamic shared memory\n");
        abort();
    }
    RACES(__tsan_read16((void *)row));
    const HostTable *table = host_exchange(ALL_LANES, &row, sizeof row);
    const unsigned lane = host_lane();
    for (unsigned m = 0; m < 4; m++) {
        if (!turned) {
            const auto *p = host_take<const uint32_t *>(table, 8 * m + lane / 4);
            r[m] = p[lane % 4];
        } else {
            const auto *p = host_take<const uint16_t *>(table, 8 * m + 2 * (lane % 4));
            const auto *q = host_take<const uint16_t *>(table, 8 * m + 2 * (lane % 4) + 1);
            r[m] = (uint32_t)p[lane / 4] | (uint32_t)q[lane / 4] << 16;
        }
    }
    __syncwarp(); // rows may be overwritten behind this, and others have to have read them
}
