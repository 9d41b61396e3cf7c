// infer/tensor/cpu/cpu.c - the CPU device: its table of bodies, its scratch and what it says of
// itself.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/base/cores.h"
#include "infer/tensor/cpu/cpu.h"
#include "infer/tensor/cpu/gemm.h"

extern char *openblas_get_corename(void);

const Ops cpu_ops = {
    .head_room = true,
    .zero = cpu_zero,
    .copy = cpu_copy,
    .matmul_nt = cpu_matmul_nt,
    .matmul_nn = cpu_matmul_nn,
    .matmul_tn = cpu_matmul_tn,
    .gather = cpu_gather,
    .gather_back = cpu_gather_back,
    .norm = cpu_norm,
    .norm_back = cpu_norm_back,
    .head_norm = cpu_head_norm,
    .head_norm_back = cpu_head_norm_back,
    .rope_table = cpu_rope_table,
    .attention = cpu_attention,
    .attention_back = cpu_attention_back,
    .geglu = cpu_geglu,
    .geglu_back = cpu_geglu_back,
    .gated = cpu_gated,
    .gated_room = cpu_gated_room,
    .route = cpu_route,
    .experts = cpu_experts,
    .axpby = cpu_axpby,
    .softcap = cpu_softcap,
    .top2 = cpu_top2,
    .topk = cpu_topk,
    .lse_tile = cpu_lse_tile,
    .prob_tile = cpu_prob_tile,
    .loss_tile = cpu_loss_tile,
    .head_tile = cpu_head_tile,
    .cluster_mass = cpu_cluster_mass,
    .cluster_ce = cpu_cluster_ce,
    .cluster_logits = cpu_cluster_logits,
    .adamw = cpu_adamw,
    .sumsq = cpu_sumsq,
};

int cpu_thread_count(int threads, Err *err) {
    const int all = cores_all();
    if (threads >= 0 && threads <= CPU_THREADS_MAX)
        return threads ? threads : all < CPU_THREADS_MAX ? all : CPU_THREADS_MAX;
    err_set(err, ERR_USAGE, "%d threads: expected 0 (all) to %d", threads, CPU_THREADS_MAX);
    return 0;
}

bool cpu_open(Device *dev, int threads, Err *err) {
    const int count = cpu_thread_count(threads, err);
    if (count == 0) return false;
    Cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return err_set(err, ERR_FAILED, "no memory for a CPU device");
    *dev =
        (Device){.ops = &cpu_ops, .body = &cpu_body, .kind = "cpu", .threads = count, .impl = cpu};
    cpu->dnnl = dnnl_gemm_open();
    cpu->own_f32 = cpu->dnnl && own_gemm_agrees(dev, DT_F32);
    cpu->own_bf16 = cpu->dnnl && dnnl_gemm_bf16(cpu->dnnl) && own_gemm_agrees(dev, DT_BF16);
    return true;
}

void cpu_close(Device *dev) {
    Cpu *cpu = dev->impl;
    if (cpu == NULL) return;
    for (int i = 0; i < SCRATCH_THREAD + CPU_THREADS_MAX; i++) free(cpu->scratch[i].data);
    dnnl_gemm_close(cpu->dnnl);
    free(cpu);
    dev->impl = NULL;
}

void *cpu_scratch(Device *dev, int id, size_t bytes) {
    Scratch *s = &((Cpu *)dev->impl)->scratch[id];
    if (bytes <= s->size) return s->data;
    const size_t size =
        (bytes + bytes / 4 + 4095) / 4096 * 4096; // some room, so that it seldom grows
    free(s->data);
    s->data = aligned_alloc(4096, size);
    CHECK(s->data != NULL, "(no memory for %zu bytes of scratch)", size);
    s->size = size;
    return s->data;
}

// Measured on runs of all stages: products keep packed operands of a few MiB, attention tiles and
// OpenMP under 3 MiB a thread.
size_t cpu_scratch_bytes(const Device *dev) {
    return ((size_t)12 << 20) + ((size_t)dev->threads * 3 << 20);
}

// Intel's cores with AMX leave bf16 to it and start a VDPBF16PS every other cycle, where two FMAs
// start in each: half the products of f32. Virtual machines often hide AMX.
bool cpu_fast_pairs(void) {
#ifdef __x86_64__
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") &&
           (!__builtin_cpu_is("intel") || __builtin_cpu_is("cooperlake"));
#else
    return false;
#endif
}

bool cpu_prefers_bf16(const Device *dev) {
    const Cpu *cpu = dev->impl;
    return cpu->dnnl != NULL && dnnl_gemm_bf16(cpu->dnnl);
}

static void cpu_model(char *name, size_t size) {
    snprintf(name, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (f == NULL) return;
    char line[512];
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            snprintf(name, size, "%s", strchr(line, ':') + 2);
            name[strcspn(name, "\n")] = '\0';
            break;
        }
    fclose(f);
}

void cpu_describe(Device *dev, void (*line)(void *ctx, const char *name, const char *value),
                  void *ctx) {
    const Cpu *cpu = dev->impl;
    char text[256];
    cpu_model(text, sizeof text);
    line(ctx, "CPU", text);
    snprintf(text, sizeof text, "%d of %d", dev->threads, cores_all());
    line(ctx, "threads", text);
    line(ctx, "OpenBLAS core", openblas_get_corename());
    line(ctx, "oneDNN kernels", cpu->dnnl ? dnnl_gemm_name(cpu->dnnl) : "none for this CPU");
    line(ctx, "f32 products", cpu->dnnl ? "oneDNN" : "OpenBLAS");
    line(ctx, "small products",
         cpu->own_bf16  ? "own kernels, f32 and bf16, weight gradients too"
         : cpu->own_f32 ? "own kernels, f32, weight gradients too"
                        : "as above");
    line(ctx, "bf16 products", cpu_prefers_bf16(dev) ? "oneDNN, in bf16" : "converted to f32");
}
