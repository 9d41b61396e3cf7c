// infer/tensor/cpu/head_tile.c - student logits of a vocabulary tile and what is wanted of them.
#include "infer/tensor/cpu/cpu.h"

void cpu_head_tile(Device *dev, const HeadOut *out, Tensor y, Tensor table, const LossArgs *args,
                   int64_t v0) {
    cpu_matmul_nt(dev, out->z, y, table, 0.0f);
    if (args->parts & LOSS_LSE)
        cpu_lse_tile(dev, out->lse, out->best, out->id, out->z, 0.0f, args->temp, v0);
    if (args->parts & (LOSS_STATS | LOSS_GRAD))
        cpu_loss_tile(dev, out->stat, out->g, out->z, out->lse, args, v0);
}
